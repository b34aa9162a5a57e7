"""The hosts of the OpenAI dialect: what each row changes, what strict hosts never get, and where a key goes."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from embedkit import RetryPolicy, catalog, connect
from embedkit._types import QUANTIZED
from embedkit.errors import ConfigError, DecodeError, InvalidInputError
from embedkit.providers import compatible, find
from embedkit.testing import FakeExchange, check_codec, response

pytestmark = pytest.mark.anyio

GOLDEN = Path(__file__).parent.parent / "golden"
PREFIX = "Represent this sentence for searching relevant passages: "
TASK = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
HOSTED = [host.name for host in compatible.HOSTS if host.key_required]


def listing(*vectors):
    return {"data": [{"embedding": list(vector), "index": place} for place, vector in enumerate(vectors)]}


def opened(model, *vectors, **more):
    """An embedder and the exchange it asks, which answers these vectors."""
    fake = FakeExchange(lambda _: listing(*(vectors or [[0.6, 0.8]])))
    wanted = {"host": "adb-1.azuredatabricks.net"} if model.startswith("databricks:") and "base_url" not in more else {}
    return connect(
        model, **{"exchange": fake, "retry": RetryPolicy(attempts=1), "api_key": "k-test", **wanted, **more}
    ), fake


# --- finding a row ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "modules"),
    [
        ("openai:text-embedding-3-small", {"openai"}),
        ("azure:mine", {"azure", "openai"}),
        ("mistral:mistral-embed", {"openai", "mistral"}),
        ("vllm:mine", {"openai", "compatible"}),
        ("cohere:embed-v4.0", {"cohere"}),
    ],
)
def test_a_host_is_found_without_importing_the_others(model, modules):
    """Connecting imports the module that holds the host's row, and no dialect that it does not need."""
    script = (
        "import sys, embedkit; "
        f"embedkit.connect({model!r}, api_key='k', base_url='http://localhost:1/v1'); "
        "print(*(name.rpartition('.')[2] for name in sys.modules if name.startswith('embedkit.providers.')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert set(done.stdout.split()) == modules


def test_names_are_one_lower_case_word():
    """Every row has its own name, a single lower-case word."""
    names = [host.name for host in compatible.HOSTS]

    assert len(names) == len(set(names))
    assert [name for name in names if not (name.isalpha() and name.islower())] == []


@pytest.mark.parametrize("name", [*HOSTED, "sglang", "xinference"])
async def test_a_row_speaks_as_its_goldens_do(name):
    """Requests, replies, refusals and abuse: every golden exchange of the host holds."""
    assert await check_codec(GOLDEN / name) >= 2


# --- what goes out ---------------------------------------------------------------------------------------------------

# All that a strict host's own page lets a request hold (Mistral, Together, Fireworks, Databricks).
STRICT = {
    "mistral:codestral-embed": {"model", "input", "output_dimension", "output_dtype", "encoding_format", "metadata"},
    "mistral:mistral-embed": {"model", "input", "encoding_format", "metadata"},
    "together:BAAI/bge-base-en-v1.5": {"model", "input"},
    "fireworks:accounts/fireworks/models/qwen3-embedding-8b": {
        "model", "input", "dimensions", "prompt_template", "normalize", "return_logits",
    },
    "databricks:databricks-bge-large-en": {"model", "input", "instruction"},
    "databricks:databricks-qwen3-embedding-0-6b": {"model", "input", "instruction"},
}  # fmt: skip


@pytest.mark.parametrize("model", STRICT)
@pytest.mark.parametrize(
    "options",
    [{}, {"input_type": "query"}, {"input_type": "document"}, {"normalize": True}, {"dtype": "int8"}, {"dtype": "ubinary"},
     {"truncate": "end"}, {"truncate": "error"}, {"dimensions": 512}, {"dimensions": 512, "dtype": "int8"}],
    ids=str,
)  # fmt: skip
async def test_a_strict_host_never_gets_a_field_it_does_not_know(model, options):
    """Whatever is asked for, the request holds documented fields only, none of them null, or nothing is sent at all."""
    fake = FakeExchange(lambda _: response("no", 400))
    embedder, _ = opened(model, exchange=fake)
    with pytest.raises((ConfigError, InvalidInputError)) as caught:
        await embedder.embed(["a text"], **options)

    assert bool(fake.requests) == isinstance(caught.value, InvalidInputError)
    assert all(set(body) <= STRICT[model] and None not in body.values() for body in fake.bodies)


@pytest.mark.parametrize(
    ("model", "options", "fields"),
    [
        ("mistral:codestral-embed", {"dimensions": 2}, {"output_dimension": 2}),
        ("mistral:codestral-embed", {"dtype": "uint8"}, {"output_dtype": "uint8"}),
        ("mistral:a-model-to-come", {"dtype": "int8"}, {"output_dtype": "int8"}),
        ("mixedbread:mixedbread-ai/mxbai-embed-large-v1", {"input_type": "query"}, {"prompt": PREFIX.strip()}),
        ("mixedbread:mixedbread-ai/mxbai-embed-large-v1", {"normalize": False}, {"normalized": False}),
        ("fireworks:thenlper/gte-base", {"normalize": True}, {"normalize": True}),
        ("nvidia:nvidia/nv-embedqa-e5-v5", {}, {"input_type": "passage"}),
        ("nvidia:a/model-to-come", {"input_type": "query"}, {"input_type": "query"}),
        ("nvidia:nvidia/nv-embedqa-e5-v5", {"truncate": "end"}, {"truncate": "END"}),
        ("openrouter:a/model-to-come", {"input_type": "query"}, {"input_type": "search_query"}),
        ("databricks:databricks-bge-large-en", {"input_type": "query"}, {"instruction": PREFIX.strip()}),
        ("dashscope:text-embedding-v4", {"dimensions": 64}, {"dimensions": 64}),
        ("sglang:mine", {"dimensions": 2}, {"dimensions": 2}),
    ],
)
async def test_an_option_has_the_name_the_host_gives_it(model, options, fields):
    """The difference an option makes to the request is the host's own field, and nothing else."""
    bodies = []
    for asked in (options, {}):
        fake = FakeExchange(lambda _: response("no", 400))
        embedder, _ = opened(model, exchange=fake)
        with pytest.raises(InvalidInputError):
            await embedder.embed(["a text"], **asked)
        bodies.append(fake.bodies[0])
    made, plain = bodies

    assert {name: value for name, value in made.items() if plain.get(name) != value or name in fields} == fields
    assert made["input"] == ["a text"]


@pytest.mark.parametrize("input_type", ["query", "document", None])
async def test_a_router_gets_no_input_type_for_a_model_that_is_known(input_type):
    """OpenRouter passes `input_type` on; a model the catalog knows wants a prefix or nothing."""
    plain, one = opened("openrouter:openai/text-embedding-3-small")
    prefixed, two = opened("openrouter:qwen/qwen3-embedding-8b")
    await plain.embed(["a text"], input_type=input_type)
    await prefixed.embed(["a text"], input_type=input_type)

    assert "input_type" not in one.bodies[0]
    assert one.bodies[0]["input"] == ["a text"]
    assert "input_type" not in two.bodies[0]
    assert two.bodies[0]["input"] == [f"{TASK}a text" if input_type == "query" else "a text"]


async def test_github_is_asked_in_its_own_words():
    """GitHub's media type and version go out, and the organization to bill stands in the path."""
    embedder, fake = opened("github:openai/text-embedding-3-small", org="acme")
    await embedder.embed(["a text"])
    (request,) = fake.requests

    assert request.url == "https://models.github.ai/orgs/acme/inference/embeddings"
    assert request.headers["accept"] == "application/vnd.github+json"
    assert request.headers["x-github-api-version"] == "2022-11-28"


# --- widths and types made here --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "dimensions"),
    [
        ("together:BAAI/bge-base-en-v1.5", 256),
        ("databricks:databricks-gte-large-en", 512),
        ("mistral:mistral-embed", 512),
        ("nvidia:nvidia/nv-embedqa-e5-v5", 512),
        ("deepinfra:Qwen/Qwen3-Embedding-0.6B", 2048),
        ("localai:an-unknown-model", 512),
        ("llamacpp:bge-m3", 512),
    ],
)
async def test_a_width_that_the_model_is_known_not_to_have_is_refused_here(model, dimensions):
    """Neither asked for nor cut in silence: nothing is sent, and the error names the width."""
    embedder, fake = opened(model)

    with pytest.raises(ConfigError, match=f"dimensions={dimensions}"):
        await embedder.embed(["a text"], dimensions=dimensions)
    assert fake.requests == []


async def test_a_vector_filled_up_with_zeros_is_an_error():
    """DeepInfra pads a width the model does not have; of a model that is not known that shows in the last component."""
    embedder, _ = opened("deepinfra:a/model-to-come", [0.6, 0.8, 0.0], [1.0, 0.0, 0.0])
    honest, _ = opened("deepinfra:a/model-to-come", [0.6, 0.8, 0.0], [1.0, 0.0, 1e-9])

    with pytest.raises(DecodeError, match="dimensions=3 is more than a/model-to-come has"):
        await embedder.embed(["one", "two"], dimensions=3)
    assert (await honest.embed(["one", "two"], dimensions=3)).vectors.shape == (2, 3)


async def test_a_server_that_ignores_widths_is_not_asked_for_one():
    """For weights known by name the client keeps the first components and makes unit length again."""
    vector = [3.0, 4.0, *[0.0] * 1021, 12.0]
    embedder, fake = opened("xinference:Qwen3-Embedding-0.6B", vector)
    result = await embedder.embed(["a text"], dimensions=32)

    assert "dimensions" not in fake.bodies[0]
    np.testing.assert_allclose(result.vectors[0, :3], [0.6, 0.8, 0.0], rtol=1e-6)
    assert result.vectors.shape == (1, 32)


@pytest.mark.parametrize("model", ["mistral:mistral-embed", "venice:text-embedding-bge-m3", "vllm:mine"])
async def test_a_type_the_host_does_not_make_is_made_here(model):
    """The request stays the plain one, and its floats become integers."""
    embedder, fake = opened(model, [0.6, -0.8, 0, 0, 0, 0, 0, 0])
    whole = await embedder.embed(["a text"], dtype="int8")
    bits = await embedder.embed(["a text"], dtype="ubinary")

    assert whole.vectors.tolist() == [[76, -102, 0, 0, 0, 0, 0, 0]]
    assert bits.vectors.tolist() == [[0b1000_0000]]
    assert fake.bodies[0] == fake.bodies[1]
    assert not fake.bodies[0].keys() & {"output_dtype", "dtype"}


async def test_a_host_that_refuses_base64_is_asked_without_it_from_then_on():
    """One refusal costs one request; what was learned holds for the next call."""

    def answer(request):
        asked = json.loads(request.body).get("encoding_format")
        return listing([0.6, 0.8]) if asked is None else response({"detail": "encoding_format is not supported"}, 400)

    fake = FakeExchange(answer)
    embedder, _ = opened("siliconflow:mine", exchange=fake)
    await embedder.embed(["one"])
    await embedder.embed(["two"])

    assert [body.get("encoding_format") for body in fake.bodies] == ["base64", None, None]


# --- addresses and keys ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTED)
def test_a_hosted_host_names_the_variable_it_reads_a_key_from(name):
    """Without a key nothing is sent, and the error says where one is looked for."""
    host = find(name)

    with pytest.raises(ConfigError, match=host.key_variables[0]):
        connect(f"{name}:mine", **({"host": "adb-1.azuredatabricks.net"} if name == "databricks" else {}))


@pytest.mark.parametrize("name", HOSTED)
async def test_a_key_from_the_environment_goes_to_its_own_host_only(name, monkeypatch):
    """To the provider's own domain it goes; to any other, nothing does."""
    host = find(name)
    for variable in host.key_variables:
        monkeypatch.setenv(variable, "k-environment")
    own = f"https://api.{host.own_domains[0]}/v1"
    for base_url, sent in ((own, "Bearer k-environment"), ("https://elsewhere.example/v1", None)):
        fake = FakeExchange(lambda _: listing([0.6, 0.8]))
        embedder = connect(f"{name}:mine", base_url=base_url, exchange=fake)
        await embedder.embed(["a text"])

        assert fake.requests[0].headers.get("authorization") == sent


@pytest.mark.parametrize("name", HOSTED)
async def test_a_base_url_without_a_path_gets_the_hosts_own(name):
    """The version segment is added, so the bare name of the host is enough."""
    host = find(name)
    root = "/".join(host.base_url.split("/")[:3]).replace("{host}", "adb-1.azuredatabricks.net")
    bare, one = opened(f"{name}:mine", base_url=root)
    whole, two = opened(f"{name}:mine")
    await bare.embed(["a text"])
    await whole.embed(["a text"])

    assert one.requests[0].url == two.requests[0].url
    assert one.requests[0].url.endswith(f"{host.version_path}/embeddings")


@pytest.mark.parametrize(
    ("variable", "value", "url"),
    [
        (
            "DATABRICKS_HOST",
            "adb-1.2.azuredatabricks.net",
            "https://adb-1.2.azuredatabricks.net/serving-endpoints/embeddings",
        ),
        (
            "DATABRICKS_HOST",
            "https://acme.cloud.databricks.com/",
            "https://acme.cloud.databricks.com/serving-endpoints/embeddings",
        ),
        (
            "DATABRICKS_API_BASE",
            "https://acme.example/serving-endpoints",
            "https://acme.example/serving-endpoints/embeddings",
        ),
    ],
)
async def test_the_workspace_comes_from_databricks_own_variables(variable, value, url, monkeypatch):
    """Host or URL, and the token from the environment goes there: both are the user's own settings of Databricks."""
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-1")
    fake = FakeExchange(lambda _: listing([0.6, 0.8]))
    await connect("databricks:mine", exchange=fake).embed(["a text"])

    assert fake.requests[0].url == url
    assert fake.requests[0].headers["authorization"] == "Bearer dapi-1"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "databricks.com.evil.example", "notdatabricks.com", "a/b.azuredatabricks.net", "me@evil.azuredatabricks.net",
        "evil.example?.azuredatabricks.net", "evil.example#.azuredatabricks.net", "evil.example\\.azuredatabricks.net",
        "http://adb-1.azuredatabricks.net", "adb-1.azuredatabricks.net\n",
    ],
)  # fmt: skip
def test_a_workspace_is_one_of_databricks(host, monkeypatch):
    """A token from the environment cannot be led elsewhere by `host=`."""
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-1")

    with pytest.raises(ConfigError, match="is no workspace of"):
        connect("databricks:mine", host=host)


def test_databricks_needs_a_workspace():
    """The error names the ways to give one."""
    with pytest.raises(ConfigError, match=r"host= or base_url=, or set DATABRICKS_HOST"):
        connect("databricks:mine", api_key="dapi-1")


async def test_an_explicit_workspace_beats_the_variable(monkeypatch):
    """`host=` is this call's, the variable everybody's."""
    monkeypatch.setenv("DATABRICKS_HOST", "other.cloud.databricks.com")
    embedder, fake = opened("databricks:mine", host="acme.cloud.databricks.com")
    await embedder.embed(["a text"])

    assert fake.requests[0].url == "https://acme.cloud.databricks.com/serving-endpoints/embeddings"


@pytest.mark.parametrize("name", ["sglang", "xinference", "compatible"])
async def test_a_local_server_needs_no_key(name):
    """And then no Authorization goes out at all."""
    fake = FakeExchange(lambda _: listing([0.6, 0.8]))
    await connect(f"{name}:mine", base_url="http://localhost:1", exchange=fake).embed(["a text"])

    assert "authorization" not in fake.requests[0].headers


# --- weights that anyone may serve -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "model", "name"),
    [
        (
            "fireworks",
            "accounts/fireworks/models/qwen3-embedding-0p6b",
            "accounts/fireworks/models/qwen3-embedding-0p6b",
        ),
        ("vllm", "BAAI/bge-m3", "BAAI/bge-m3"),
        ("xinference", "bge-small-en-v1.5", "BAAI/bge-small-en-v1.5"),
        ("lmstudio", "text-embedding-nomic-embed-text-v1.5", "nomic-ai/nomic-embed-text-v1.5"),
        ("deepinfra", "intfloat/e5-base-v2", "intfloat/e5-base-v2"),
        ("siliconflow", "Pro/BAAI/bge-m3", "Pro/BAAI/bge-m3"),
    ],
)
def test_a_name_finds_its_row(provider, model, name):
    """The name of an organization does not hide a model that anyone may serve; the provider's own row comes first."""
    assert catalog.facts(provider, model).name == name


def test_a_guess_by_name_claims_no_width():
    """A server may cut weights as it likes; that they can be cut on the client is known all the same."""
    own, guess = (
        catalog.facts("huggingface", "nomic-ai/nomic-embed-text-v1.5"),
        catalog.facts("vllm", "nomic-embed-text-v1.5"),
    )

    assert (own.dimensions, tuple(own.widths)) == (768, (64, 128, 256, 512))
    assert (guess.dimensions, tuple(guess.widths)) == (None, (64, 128, 256, 512, 768))
    assert guess.price is None


@pytest.mark.parametrize(
    ("provider", "row"),
    [(provider, row) for provider, known in catalog.MODELS.items() for row in known if row.dtypes or row.prefix_field],
)
def test_what_a_provider_makes_itself_can_be_asked_for(provider, row):
    """Each input type can be an option, a prefix field comes with a prefix, and the dialect reads both."""
    assert set(row.dtypes) <= set(QUANTIZED)
    assert row.prefixes or not row.prefix_field
    assert provider in {host.name for host in compatible.HOSTS} or not row.prefix_field


async def test_tokens_become_dollars():
    """Cost is the tokens that the provider reports, at the price of its row."""
    fake = FakeExchange([{"data": [{"embedding": [0.6, 0.8]}], "usage": {"prompt_tokens": 500_000}}])
    result = await connect("mistral:mistral-embed", api_key="k", exchange=fake).embed(["a text"])

    assert result.usage.cost == pytest.approx(0.05)


# What each family's own card puts before a query and before a document.
FAMILIES = {
    "intfloat/multilingual-e5-base": ("query: ", "passage: "),
    "intfloat/multilingual-e5-large-instruct": (
        "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: ", "",
    ),
    "BAAI/bge-base-en-v1.5": ("Represent this sentence for searching relevant passages: ", ""),
    "BAAI/bge-m3": ("", ""),
    "nomic-ai/nomic-embed-text-v1.5": ("search_query: ", "search_document: "),
    "mixedbread-ai/mxbai-embed-large-v1": ("Represent this sentence for searching relevant passages: ", ""),
    "Snowflake/snowflake-arctic-embed-m": ("Represent this sentence for searching relevant passages: ", ""),
    "Snowflake/snowflake-arctic-embed-l-v2.0": ("query: ", ""),
    "google/embeddinggemma-300m": ("task: search result | query: ", "title: none | text: "),
    "Qwen/Qwen3-Embedding-4B": (
        "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:", "",
    ),
    "sentence-transformers/all-MiniLM-L6-v2": ("", ""),
}  # fmt: skip


@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize("host", ["vllm", "compatible", "deepinfra"])
async def test_a_query_and_a_document_get_their_familys_prefix(host, model):
    """On any server that serves the weights, word for word; without an input type the text goes out as it is."""
    fake = FakeExchange(lambda _: {"data": [{"embedding": [0.6, 0.8]}]})
    embedder = connect(f"{host}:{model}", api_key="k", base_url="http://localhost:1", exchange=fake)
    await embedder.embed_query("a text")
    await embedder.embed(["a text"], input_type="document")
    await embedder.embed(["a text"])
    query, document = FAMILIES[model]

    assert list(chain(*(body["input"] for body in fake.bodies))) == [f"{query}a text", f"{document}a text", "a text"]
