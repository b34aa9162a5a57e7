"""The catalog: every entry is whole, sourced and plausible, and
looking one up never stands in the way of a model without one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import get_args

import pytest

import embedkit
from embedkit import catalog
from embedkit._types import InputType
from embedkit.providers import find, hosts
from embedkit.testing import FakeExchange
from tests.support.fake_replies import echo

pytestmark = pytest.mark.anyio
ENTRIES = [(provider, each) for provider, models in catalog.MODELS.items() for each in models]
every_entry = pytest.mark.parametrize(
    ("provider", "facts"), ENTRIES, ids=[f"{name}:{each.name}" for name, each in ENTRIES]
)


def test_each_family_belongs_to_a_host():
    """A list of models is there for a provider of that name, and a host that borrows one borrows one that exists."""
    names = {host.name for host in hosts()} | {"local"}

    assert set(catalog.MODELS) <= names
    assert {host.catalog for host in hosts()} - {""} <= set(catalog.MODELS)


@pytest.mark.parametrize("provider", catalog.MODELS)
def test_no_model_is_there_twice(provider):
    """A name stands once at each provider, whatever its capitals, since looking it up ignores them."""
    names = [each.name.lower() for each in catalog.MODELS[provider]]

    assert len(names) == len(set(names))


@every_entry
def test_every_entry_says_where_it_is_written(provider, facts):
    """Each has a source, and the month in which it was read."""
    assert re.search(r"\w.*\b20\d\d-(0[1-9]|1[0-2])\b", facts.source)


@every_entry
def test_every_name_is_found(provider, facts):
    """Each entry is what its own name finds, in any capitals, and connect() takes it."""
    for name in (facts.name, facts.name.upper(), facts.name.lower()):
        assert catalog.facts(provider, name) is facts
    assert facts.name == facts.name.strip()
    assert facts.name.isprintable()
    assert ":" not in facts.name or provider == "ollama" or facts.name.rpartition(":")[2].isdigit()


@every_entry
def test_every_number_is_plausible(provider, facts):
    """Widths and token limits are positive whole numbers, a price is dollars per million tokens and not per token."""
    for number in (facts.dimensions, facts.tokens):
        assert number is None or (type(number) is int and 0 < number <= 1_000_000)
    assert facts.dimensions is None or 32 <= facts.dimensions <= 8192
    assert facts.price is None or facts.price == 0 or 0.001 <= facts.price <= 10


@every_entry
def test_every_other_width_is_one(provider, facts):
    """Matryoshka widths are unique, in order and positive, and other than the model's own."""
    assert isinstance(facts.widths, Sequence)
    widths = list(facts.widths)

    assert widths == sorted(set(widths))
    assert all(type(width) is int and 0 < width <= 8192 for width in widths)
    assert not widths or facts.dimensions is not None
    assert facts.dimensions not in widths or isinstance(facts.widths, range)


@every_entry
def test_every_prefix_is_for_a_purpose_there_is(provider, facts):
    """Prefixes belong to input types that an option can name; none is empty, and where one exists a query has one."""
    assert set(facts.prefixes) <= set(get_args(InputType))
    assert all(facts.prefixes.values())
    assert not facts.prefixes or "query" in facts.prefixes


@pytest.mark.parametrize(
    ("provider", "model", "name", "width"),
    [
        ("ollama", "nomic-embed-text:latest", "nomic-embed-text", 768),
        ("ollama", "Nomic-Embed-Text:v1.5", "nomic-embed-text", 768),
        ("ollama", "all-minilm:33m-l12-v2-fp16", "all-minilm", 384),
        ("ollama", "snowflake-arctic-embed:22m-s-fp16", "snowflake-arctic-embed:22m", 384),
        ("ollama", "snowflake-arctic-embed:137m", "snowflake-arctic-embed:137m", 768),
        ("ollama", "snowflake-arctic-embed:335m", "snowflake-arctic-embed", 1024),
        ("ollama", "qwen3-embedding", "qwen3-embedding", None),
        ("ollama", "qwen3-embedding:0.6b", "qwen3-embedding:0.6b", 1024),
        ("ollama", "qwen3-embedding:8b-q8_0", "qwen3-embedding:8b", 4096),
        ("ollama", "granite-embedding:278m", "granite-embedding:278m", 768),
        ("huggingface", "baai/BGE-m3", "BAAI/bge-m3", 1024),
        ("openai", "text-embedding-3-large", "text-embedding-3-large", 3072),
    ],
)
def test_a_tag_and_capitals_do_not_matter_a_size_does(provider, model, name, width):
    """A tag is looked through to the family, unless it names a size that has a width of its own."""
    found = catalog.facts(provider, model)

    assert (found.name, found.dimensions) == (name, width)


@pytest.mark.parametrize(
    "model", ["", ":", "x", "x:latest", ":latest", "nomic", "nomic-embed-text-v9", "text-embedding-3-small "]
)
@pytest.mark.parametrize("provider", ["ollama", "openai", "tei", "no-such-provider"])
def test_what_is_unknown_is_none(provider, model):
    """No near miss is taken for a model that is known."""
    assert catalog.facts(provider, model) is None


@pytest.mark.parametrize(
    "model", ["openai:future-model", "ollama:mine:latest", "cohere:embed-v9", "nomic:nomic-embed-text-v9", "tei:a/b"]
)
async def test_an_unknown_model_works(model):
    """Without an entry there is no price, no prefix and no cut;
    vectors come all the same, queries and widths included.
    """
    exchange = FakeExchange(echo(model.partition(":")[0]))
    embedder = embedkit.connect(model, api_key="k", exchange=exchange)
    result = await embedder.embed(["a"], input_type="document", dimensions=8)
    query = await embedder.embed_query("b")

    assert result.vectors.shape == (1, 8)
    assert query.shape == (8,)
    assert result.usage.cost is None


@pytest.mark.parametrize("model", ["intfloat/e5-base-v2", "INTFLOAT/E5-Base-v2"])
@pytest.mark.parametrize(
    "provider",
    ["huggingface", "hfendpoint", "tei", "vllm", "llamacpp", "localai", "lmstudio", "infinity", "compatible"],
)
async def test_a_model_of_the_hub_is_known_wherever_it_is_served(provider, model):
    """Under its name on the Hub, a model gets its family's prefixes from every server that puts on none itself."""
    exchange = FakeExchange(echo(provider))
    embedder = embedkit.connect(f"{provider}:{model}", api_key="k", base_url="http://host.test", exchange=exchange)
    await embedder.embed_query("why")
    body = exchange.bodies[-1]

    assert (body.get("inputs") or body["input"]) == ["query: why"]


def test_widths_of_the_predecessor():
    """Cohere's widths are those that LinGoose knew, for the models that are still served."""
    known = {
        "embed-english-v3.0": 1024, "embed-english-light-v3.0": 384, "embed-multilingual-v3.0": 1024,
        "embed-multilingual-light-v3.0": 384,
    }  # fmt: skip

    assert {name: catalog.facts("cohere", name).dimensions for name in known} == known
    assert catalog.facts("cohere", "embed-english-v2.0") is None
    assert find("cohere").name == "cohere"


def test_prices_of_batch_jobs():
    """A batch job costs what the provider's page says; no other provider and no model beside the pages has a price."""
    assert catalog.facts("openai", "text-embedding-3-small").batch_price == 0.01
    assert catalog.facts("gemini", "gemini-embedding-001").batch_price == 0.075
    assert catalog.facts("voyage", "voyage-3.5").batch_price == pytest.approx(0.06 * 0.67)
    assert catalog.facts("mistral", "mistral-embed").batch_price == 0.05
    for provider, model in [("gemini", "gemini-embedding-2"), ("voyage", "voyage-law-2"), ("cohere", "embed-v4.0")]:
        assert catalog.facts(provider, model).batch_price is None
    for provider, (_, models) in catalog.BATCH_PRICES.items():
        assert (models or set()) <= {facts.name for facts in catalog.MODELS[provider]}
