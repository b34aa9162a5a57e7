"""What holds across providers beyond their golden exchanges: where a key goes, what each model can be asked, what
every body keeps to.
"""

from __future__ import annotations

import base64
import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit import ConfigError, DecodeError, Options, RetryPolicy, connect
from embedkit.codec import quantize
from embedkit.testing import FakeExchange, response

pytestmark = pytest.mark.anyio

WIDTH = 512
TURN = np.arange(1, 4)[:, None] * np.arange(1, WIDTH + 1)
UNIT = (np.where(np.sin(TURN) > 0, 1, -1) / math.sqrt(WIDTH)).astype(np.float32)  # three vectors of unit length
TEXTS = ["alpha", "beta", "gamma"]
ACCOUNT = {"account_id": "abc123"}

# provider → (a model that can do most, keywords of `connect`, every field its page documents)
PROVIDERS = {
    "voyage": (
        "voyage-4", {},
        {"input", "model", "input_type", "truncation", "output_dimension", "output_dtype", "encoding_format"},
    ),
    "jina": (
        "jina-embeddings-v3", {},
        {"input", "model", "embedding_type", "normalized", "truncate", "dimensions", "task", "late_chunking"},
    ),
    "perplexity": ("pplx-embed-v1-0.6b", {}, {"input", "model", "dimensions", "encoding_format"}),
    "isaacus": ("kanon-2-embedder", {}, {"texts", "model", "task", "overflow_strategy", "dimensions"}),
    "zeroentropy": ("zembed-1", {}, {"input", "model", "input_type", "dimensions", "encoding_format", "latency"}),
    "cloudflare": ("@cf/qwen/qwen3-embedding-0.6b", ACCOUNT, {"text", "queries", "documents", "instruction"}),
}  # fmt: skip
CONTEXTUAL = {"voyage": "voyage-context-4", "perplexity": "pplx-embed-context-v1-0.6b"}


def server(request):
    """Any provider: it answers each text with its row of UNIT, cut and made unit length as the body asks."""
    body = json.loads(request.body)
    texts = next(body[name] for name in ("input", "inputs", "texts", "text", "queries", "documents") if name in body)
    asked = body.get("output_dtype") or body.get("embedding_type") or body.get("encoding_format")
    rows = UNIT[: len(texts), : body.get("dimensions") or body.get("output_dimension") or WIDTH]
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    kind = {"base64_int8": "int8", "base64_binary": "ubinary"}.get(asked, asked)
    made = quantize(rows, kind) if kind in ("int8", "uint8", "binary", "ubinary") else rows.astype("<f4")
    strings = asked != kind or "base64" in (body.get("encoding_format"), body.get("embedding_type"))
    vectors = [base64.b64encode(row.tobytes()).decode() if strings else row.tolist() for row in made]
    items = [{"index": place, "embedding": vector} for place, vector in enumerate(vectors)]
    if "/contextualizedembeddings" in request.url:
        items = [{"index": place, "data": [{**item, "index": 0}]} for place, item in enumerate(items)]
    return {"data": items, "embeddings": items, "results": items, "result": {"data": vectors}}


def embedder(provider, model=None, exchange=None, **more):
    """An embedder of this provider over the server above, or over another exchange."""
    usual, extra, _ = PROVIDERS[provider]
    fake = exchange or FakeExchange(server)
    return connect(
        f"{provider}:{model or usual}",
        exchange=fake,
        retry=RetryPolicy(attempts=1),
        **{"api_key": "k", **extra, **more},
    )


async def sent(provider, model=None, **options):
    """The body that goes out for TEXTS with these options."""
    fake = FakeExchange(server)
    await embedder(provider, model, fake).embed(TEXTS, **options)
    return fake.bodies[0]


async def refused(provider, model, match, **options):
    """These options are refused by a ConfigError that says so, and nothing is sent."""
    fake = FakeExchange([])
    with pytest.raises(ConfigError, match=match):
        await embedder(provider, model, fake).embed(TEXTS, **options)

    assert fake.requests == []


# --- every provider --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "binary", "ubinary"])
async def test_every_dtype_is_the_same_vector(provider, dtype):
    """Whoever makes it, provider or client, a dtype is what embedkit's rule makes of the float vector."""
    result = await embedder(provider).embed(TEXTS, dtype=dtype, normalize=True if dtype == "float32" else None)
    expected = quantize(UNIT, dtype)

    assert result.vectors.dtype == expected.dtype
    assert result.dimensions == WIDTH
    assert np.allclose(result.vectors.astype(float), expected.astype(float), atol=1e-6)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_narrow_vector_has_the_width_asked_for(provider):
    """`dimensions` gives so many components of unit length, whether the API or the client cuts; in bits too."""
    width = 256 if provider == "voyage" else 160  # each has its own list of widths
    one, cut = embedder(provider), UNIT[:, :width]
    narrow = await one.embed(TEXTS, dimensions=width, normalize=True)
    bits = await one.embed(TEXTS, dimensions=width, dtype="ubinary")

    assert narrow.vectors.shape == (3, width)
    assert np.allclose(narrow.vectors, cut * math.sqrt(WIDTH / width), atol=1e-5)
    assert np.array_equal(bits.vectors, np.packbits(cut > 0, axis=1))


@pytest.mark.parametrize("provider", PROVIDERS)
@settings(deadline=None, max_examples=60)
@given(
    input_type=st.sampled_from([None, "query", "document", "classification", "clustering", "similarity"]),
    dimensions=st.sampled_from([None, 64, 160, 256]),
    dtype=st.sampled_from([None, "int8", "uint8", "binary", "ubinary"]),
    truncate=st.sampled_from([None, "end", "error"]),
    normalize=st.sampled_from([None, False, True]),
)
def test_a_body_holds_only_what_the_page_documents(provider, input_type, dimensions, dtype, truncate, normalize):
    """Only documented fields, the texts once and in order, no null (except Isaacus' strategy); or ConfigError."""
    import anyio

    options = {
        "input_type": input_type,
        "dimensions": dimensions,
        "dtype": dtype,
        "truncate": truncate,
        "normalize": normalize,
    }
    fake = FakeExchange(server)
    try:
        anyio.run(lambda: embedder(provider, None, fake).embed(TEXTS, **options))
    except ConfigError:
        assert fake.requests == []
        return
    body = fake.bodies[0]

    assert len(fake.requests) == 1
    assert set(body) <= PROVIDERS[provider][2]
    assert [value for value in body.values() if isinstance(value, list)] == [TEXTS]
    assert {name for name, value in body.items() if value is None} <= {"overflow_strategy"}
    assert fake.requests[0].headers["authorization"] == "Bearer k"


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_query_and_document_are_always_taken(provider):
    """Portable code runs everywhere: both are accepted; a purpose unknown to the API is refused before sending."""
    one = embedder(provider)
    await one.embed(TEXTS, input_type="document")
    await one.embed_query("alpha")

    if provider != "jina":
        await refused(provider, None, "clustering", input_type="clustering")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_embedder_travels(provider):
    """An embedder of every provider pickles, and comes back as what it was."""
    one = embedder(provider, None, response)  # no exchange is called, and this one pickles
    back = pickle.loads(pickle.dumps(one))  # noqa: S301 (our own)

    assert repr(back) == repr(one)
    assert back.limits == one.limits


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_missing_key_is_named(provider):
    """Without a key nothing can be sent, and the error names the variable to set."""
    with pytest.raises(ConfigError, match=f"{provider.upper()}_API_(KEY|TOKEN)"):
        embedder(provider, api_key=None)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    "body", [{}, {"data": None}, {"result": None}, {"embeddings": None}, [], {"error": {"message": "no"}}]
)
async def test_a_success_without_vectors_is_none(provider, body):
    """A 200 that holds no vectors is a DecodeError, not an empty result."""
    with pytest.raises(DecodeError):
        await embedder(provider, None, FakeExchange(lambda _: response(body))).embed(TEXTS)


@pytest.mark.parametrize(
    ("provider", "usage", "tokens"),
    [
        ("voyage", {"total_tokens": 0}, 0),
        ("voyage", {"total_tokens": 9}, 9),
        ("voyage", None, None),
        ("jina", {"total_tokens": 9, "prompt_tokens": 7}, 7),
        ("perplexity", {"prompt_tokens": 3, "total_tokens": 4, "cost": {"total_cost": 6e-08}}, 3),
        ("isaacus", {"input_tokens": 5}, 5),
        ("isaacus", {}, None),
        ("zeroentropy", {"total_bytes": 40, "total_tokens": 6}, 6),
        ("cloudflare", {"total_tokens": 8}, None),
    ],
)
async def test_usage_is_what_the_provider_reports(provider, usage, tokens):
    """Tokens, not bytes; zero where it says zero; None where it reports none."""
    fake = FakeExchange(lambda request: {**server(request), "usage": usage})
    result = await embedder(provider, None, fake).embed(TEXTS)

    assert result.usage.tokens == tokens


# --- what a model can be asked ---------------------------------------------------------------------------------------

TASKS = {
    "jina-embeddings-v3": ("retrieval.query", "retrieval.passage", "classification", "separation", "text-matching"),
    "jina-embeddings-v4": ("retrieval.query", "retrieval.passage", ConfigError, ConfigError, "text-matching"),
    "jina-embeddings-v5-text-nano": (
        "retrieval.query",
        "retrieval.passage",
        "classification",
        "clustering",
        "text-matching",
    ),
    "jina-code-embeddings-1.5b": ("nl2code.query", "nl2code.passage", ConfigError, ConfigError, ConfigError),
    "jina-embeddings-v2-base-en": (None, None, ConfigError, ConfigError, ConfigError),
    "jina-clip-v2": (None, None, ConfigError, ConfigError, ConfigError),
    "jina-embeddings-v9": ("retrieval.query", "retrieval.passage", ConfigError, ConfigError, ConfigError),
}


@pytest.mark.parametrize("model", TASKS)
async def test_a_task_is_one_that_the_model_has(model):
    """Each family of Jina's has its own list of tasks; a purpose that it cannot tell is refused before sending."""
    for purpose, task in zip(
        ("query", "document", "classification", "clustering", "similarity"), TASKS[model], strict=True
    ):
        if task is ConfigError:
            await refused("jina", model, f"{model} cannot do input_type='{purpose}'", input_type=purpose)
        else:
            assert (await sent("jina", model, input_type=purpose)).get("task") == task
    assert "task" not in await sent("jina", model)


@pytest.mark.parametrize(
    ("model", "field"),
    [("jina-embeddings-v3", True), ("jina-embeddings-v4", False), ("jina-code-embeddings-0.5b", False)],
)
async def test_raw_length_is_asked_where_there_is_a_field(model, field):
    """`normalize` is sent as `normalized` to the models that have it; the schema of the others would refuse it."""
    body = await sent("jina", model, normalize=False)

    assert body.get("normalized") == (False if field else None)
    assert "normalized" not in await sent("jina", model)


@pytest.mark.parametrize(
    ("provider", "model", "width"),
    [
        ("voyage", "voyage-3-lite", 512),
        ("voyage", "voyage-law-2", 1024),
        ("jina", "jina-embeddings-v2-base-en", None),
        ("cloudflare", "@cf/baai/bge-m3", 1024),
    ],
)
async def test_a_model_of_one_width_is_not_asked_for_another(provider, model, width):
    """Where a model has a single width, another is refused before sending, and its own is not put into the body."""
    await refused(provider, model, "dimensions=64", dimensions=64)
    if width is not None:
        wide = np.ones((3, width)).tolist()
        fake = FakeExchange([{"data": [{"embedding": row} for row in wide], "result": {"data": wide}}])
        await embedder(provider, model, fake).embed(TEXTS, dimensions=width)

        assert not {"dimensions", "output_dimension"} & set(fake.bodies[0])


CUTS = [
    ("voyage", None, {"truncation": False}, {"truncation": True}, {"truncation": False}),
    ("voyage", "voyage-context-4", {}, ConfigError, ConfigError),
    ("jina", None, {}, {"truncate": True}, {"truncate": False}),
    ("isaacus", None, {"overflow_strategy": None}, {"overflow_strategy": "drop_end"}, {"overflow_strategy": None}),
    ("perplexity", None, {}, ConfigError, ConfigError),
    ("zeroentropy", None, {}, ConfigError, ConfigError),
    ("cloudflare", None, {}, ConfigError, ConfigError),
    (
        "cloudflare",
        "@cf/baai/bge-m3",
        {"truncate_inputs": False},
        {"truncate_inputs": True},
        {"truncate_inputs": False},
    ),
]


@pytest.mark.parametrize(("provider", "model", "silent", "end", "error"), CUTS)
async def test_an_over_long_text_is_cut_only_when_asked(provider, model, silent, end, error):
    """Left out, nothing is cut in silence where the API can refuse; what it cannot promise is a ConfigError."""
    fields = {"truncation", "truncate", "overflow_strategy", "truncate_inputs"}
    for choice, expected in ((None, silent), ("end", end), ("error", error)):
        if expected is ConfigError:
            await refused(provider, model, f"truncate='{choice}'", truncate=choice)
        else:
            body = await sent(provider, model, truncate=choice)

            assert {name: value for name, value in body.items() if name in fields} == expected


@pytest.mark.parametrize("provider", CONTEXTUAL)
async def test_each_text_is_a_document_of_its_own(provider):
    """A contextualized model sees each text alone unless grouped by hand, and then the count must be right."""
    body = await sent(provider, CONTEXTUAL[provider])
    field = "inputs" if provider == "voyage" else "input"

    assert body[field] == [["alpha"], ["beta"], ["gamma"]]

    two = [{"index": 0, "data": [{"index": 0, "embedding": "AQ=="}, {"index": 1, "embedding": "Ag=="}]}]
    fake = FakeExchange([{"data": two}])
    with pytest.raises(DecodeError, match="3 texts were sent, but 2 embeddings came back"):
        await embedder(provider, CONTEXTUAL[provider], fake).embed(
            TEXTS, dtype="int8", extra={field: [["alpha", "beta"]]}
        )


async def test_the_chunks_of_documents_come_in_order():
    """Documents and chunks that arrive shuffled are ordered by the indices of documents, then of chunks."""
    chunks = {(document, chunk): [float(document), float(chunk)] for document in range(3) for chunk in range(2)}
    data = [
        {"index": document, "data": [{"index": chunk, "embedding": chunks[document, chunk]} for chunk in (1, 0)]}
        for document in (2, 0, 1)
    ]
    texts = [f"{document}.{chunk}" for document, chunk in chunks]
    groups = {"inputs": [texts[:2], texts[2:4], texts[4:]]}
    result = await embedder("voyage", "voyage-context-3", FakeExchange([{"data": data}])).embed(texts, extra=groups)

    assert result.vectors.tolist() == list(chunks.values())


# --- Voyage: whose key, which host, how much -------------------------------------------------------------------------


def host(fake):
    """Where each request went, and as whom."""
    return [(request.url.split("/")[2], request.headers.get("authorization")) for request in fake.requests]


async def test_a_key_of_atlas_goes_to_atlas():
    """A key that begins with al- goes to MongoDB's host on every attempt, another to Voyage's; callables too."""
    keys = iter(["al-one", "pa-two", "al-three"])
    fake = FakeExchange(server)
    one = embedder("voyage", None, fake, api_key=lambda: next(keys))
    for text in TEXTS:
        await one.embed(text)

    assert host(fake) == [
        ("ai.mongodb.com", "Bearer al-one"),
        ("api.voyageai.com", "Bearer pa-two"),
        ("ai.mongodb.com", "Bearer al-three"),
    ]
    assert fake.requests[0].url == "https://ai.mongodb.com/v1/embeddings"


@pytest.mark.parametrize("base_url", ["https://gateway.example/v1", "https://api.voyageai.com.example/v1"])
async def test_a_gateway_keeps_a_key_of_atlas(base_url):
    """Another base URL is used as it is given, whatever the key begins with."""
    fake = FakeExchange(server)
    await embedder("voyage", None, fake, api_key="al-one", base_url=base_url).embed(TEXTS)

    assert [request.url for request in fake.requests] == [f"{base_url}/embeddings"]


async def test_the_key_of_the_environment_goes_to_either_host_and_no_other(monkeypatch):
    """VOYAGE_API_KEY may go to MongoDB's host too, named or not, and to no other host."""
    monkeypatch.setenv("VOYAGE_API_KEY", "al-one")
    fake = FakeExchange(server)
    for base_url in (None, "https://ai.mongodb.com/v1", "https://mongodb.com.example/v1"):
        await embedder("voyage", None, fake, api_key=None, base_url=base_url).embed("alpha")

    assert host(fake) == [
        ("ai.mongodb.com", "Bearer al-one"),
        ("ai.mongodb.com", "Bearer al-one"),
        ("mongodb.com.example", None),
    ]


async def test_the_key_may_lie_in_a_file(monkeypatch, tmp_path):
    """VOYAGE_API_KEY_PATH names a file with the key; the variable that holds the key itself comes first."""
    (tmp_path / "key").write_text("pa-file\n", "utf-8")
    monkeypatch.setenv("VOYAGE_API_KEY_PATH", str(tmp_path / "key"))
    fake = FakeExchange(server)
    await embedder("voyage", None, fake, api_key=None).embed("alpha")
    monkeypatch.setenv("VOYAGE_API_KEY", "pa-variable")
    await embedder("voyage", None, fake, api_key=None).embed("alpha")

    assert [key for _, key in host(fake)] == ["Bearer pa-file", "Bearer pa-variable"]


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        ("voyage-4-lite", 1_000_000), ("voyage-3.5-lite", 1_000_000), ("voyage-4", 320_000), ("voyage-3.5", 320_000),
        ("voyage-2", 320_000), ("voyage-multimodal-3.5", 320_000), ("voyage-4-large", 120_000), ("voyage-3-large", 120_000),
        ("voyage-code-3", 120_000), ("voyage-context-4", 120_000), ("voyage-not-yet-there", 120_000),
    ],
)  # fmt: skip
async def test_a_request_keeps_to_the_tokens_of_its_model(model, tokens):
    """Texts are planned by the model's own cap; a model that is not known gets the smallest."""
    one = embedder("voyage", model)

    assert (one.limits.max_texts, one.limits.max_tokens) == (1000, tokens)

    fake = FakeExchange(server)
    texts = ["a" * (tokens - 3), "b" * (tokens - 3), "c" * (tokens - 3), "d" * (tokens - 3)]  # a third of the cap each
    await embedder("voyage", model, fake).embed(texts)

    assert sorted(len(body.get("input") or body["inputs"]) for body in fake.bodies) == [1, 3]


# --- Perplexity, Cloudflare ------------------------------------------------------------------------------------------


async def test_whole_numbers_stay_what_they_were():
    """Perplexity's int8 values arrive as they are in int8 and in float32; binary is ubinary less 128."""
    values = np.array([[-128, -1, 0, 1, 127, 5, -5, 9]], np.int8)
    text = base64.b64encode(values.tobytes()).decode()
    found = {}
    for dtype in ("int8", "float32", "binary", "ubinary"):
        fake = FakeExchange([{"data": [{"embedding": text}]}])
        found[dtype] = (await embedder("perplexity", None, fake).embed("alpha", dtype=dtype)).vectors

    assert np.array_equal(found["int8"], values)
    assert found["float32"].dtype == np.float32
    assert np.array_equal(found["float32"], values.astype(np.float32))
    assert np.array_equal(found["ubinary"], values.view(np.uint8))
    assert np.array_equal(found["binary"], found["ubinary"].astype(int) - 128)


async def test_one_vector_of_floats_costs_no_other_row():
    """Perplexity's vectors are bytes: one of float32 among them fails, alone; if all are, the reply is refused."""
    whole = np.random.default_rng(1).integers(-128, 128, (3, 512), np.int8)
    good = [base64.b64encode(row.tobytes()).decode() for row in whole]
    floats = base64.b64encode(UNIT[0].tobytes()).decode()
    for place in range(3):
        mixed = [floats if row == place else good[row] for row in range(3)]
        fake = FakeExchange([{"data": [{"embedding": each} for each in mixed]}])
        result = await embedder("perplexity", None, fake).embed(TEXTS, dtype="int8", on_error="skip")

        assert list(result.failures) == [place]
        assert np.array_equal(np.delete(result.vectors, place, 0), np.delete(whole, place, 0))
    with pytest.raises(DecodeError, match="float32"):
        fake = FakeExchange(lambda _: {"data": [{"embedding": floats}] * 3})
        await embedder("perplexity", None, fake).embed(TEXTS, dtype="int8", on_error="skip")


async def test_perplexity_reads_its_base_url_as_its_client_does(monkeypatch):
    """PERPLEXITY_BASE_URL is the root, to which /v1 is added; with /v1 at its end it is taken as well."""
    fake = FakeExchange(server)
    for value in ("https://proxy.example", "https://proxy.example/", "https://proxy.example/v1"):
        monkeypatch.setenv("PERPLEXITY_BASE_URL", value)
        await embedder("perplexity", None, fake).embed("alpha")

    assert {request.url for request in fake.requests} == {"https://proxy.example/v1/embeddings"}


async def test_cloudflare_needs_an_account(monkeypatch):
    """Without an account nothing can be sent, and the error names the variable; the variable will do."""
    with pytest.raises(ConfigError, match=r"account_id.*CLOUDFLARE_ACCOUNT_ID"):
        connect("cloudflare:@cf/baai/bge-m3", api_key="k")
    monkeypatch.setenv("CLOUDFLARE_ACCOUNT_ID", "of the/environment")
    fake = FakeExchange(server)
    await connect("cloudflare:@cf/baai/bge-m3", api_key="k", exchange=fake).embed(TEXTS)

    url = "https://api.cloudflare.com/client/v4/accounts/of%20the%2Fenvironment/ai/run/@cf/baai/bge-m3"
    assert [request.url for request in fake.requests] == [url]


@pytest.mark.parametrize(
    ("told", "answered", "fine"),
    [
        (None, "mean", True), (None, None, True), ("cls", "cls", True), (None, "cls", False), ("cls", "mean", False),
        (None, 7, True), (None, {"mode": 1}, True), ("cls", "", True),
    ],
)  # fmt: skip
async def test_vectors_of_another_pooling_are_no_result(told, answered, fine):
    """Vectors pooled otherwise than asked do not compare: DecodeError, if the reply names the other."""
    fake = FakeExchange([{"result": {"data": UNIT.tolist(), **({} if answered is None else {"pooling": answered})}}])
    one = embedder("cloudflare", "@cf/baai/bge-base-en-v1.5", fake, **({"pooling": told} if told else {}))
    if fine:
        assert np.array_equal((await one.embed(TEXTS)).vectors, UNIT)
    else:
        with pytest.raises(DecodeError, match="pooling"):
            await one.embed(TEXTS)

    assert fake.bodies[0]["pooling"] == (told or "mean")


async def test_a_reply_of_another_count_is_no_result():
    """A list nested in an envelope is counted as any other."""
    for rows in (UNIT[:2], np.vstack([UNIT, UNIT])):
        with pytest.raises(DecodeError, match=f"3 texts were sent, but {len(rows)} embeddings"):
            exchange = FakeExchange(lambda _, rows=rows: {"result": {"data": rows.tolist()}})
            await embedder("cloudflare", None, exchange).embed_batch(TEXTS, Options())
