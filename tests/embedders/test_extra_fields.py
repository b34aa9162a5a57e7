"""Fields of `extra` that are refused, at every host: those that hold the texts, and those that `dtype` stands for."""

from __future__ import annotations

import json

import pytest

import embedkit
from embedkit import ConfigError
from embedkit.testing import FakeExchange, response
from tests.providers.test_conformance import HOSTS, goldens, successes

pytestmark = pytest.mark.anyio


def made(golden, fake, **more):
    settings = {"retry": embedkit.RetryPolicy(attempts=1), **golden["connect"], "exchange": fake, **more}
    embedder = embedkit.connect(**settings)
    embedder.skip_probe(response(golden["probe"]) if "probe" in golden else None)
    return embedder


async def body_of(golden, **options):
    """What goes out for one text; the answer does not matter."""
    fake = FakeExchange(lambda _: {})
    embedder = made(golden, fake)
    with pytest.raises(embedkit.EmbedkitError):
        await embedder.embed(["a text of mine"], **options)
    return fake.bodies[0]


async def refused(golden, match, extra, **options):
    """Whether at `connect` or at the call: nothing goes out."""
    for standing in (True, False):
        fake = FakeExchange([])
        embedder = made(golden, fake, **({"extra": extra} if standing else {}))
        with pytest.raises(ConfigError, match=match):
            await embedder.embed(["a", "b"], **options, **({} if standing else {"extra": extra}))
        assert fake.requests == []


@pytest.mark.parametrize("name", sorted(HOSTS))
async def test_the_texts_cannot_be_replaced(name):
    """Other texts under the names of those passed, the same for every batch: the field is named."""
    for golden in [each for each in goldens(name) if "error" not in each["expect"]][:2]:
        if any(field in golden["request"]["body"] for field in golden.get("options", {}).get("extra", {})):
            continue
        body = await body_of(golden)
        (field,) = [each for each, value in body.items() if "a text of mine" in json.dumps(value)]
        contextual = "context" in golden["connect"]["model"]  # chunks are grouped by hand
        if not contextual:
            await refused(golden, f"{field!r}.*pass them as the texts", {field: ["x", "y"], "user": "me"})
        fake = FakeExchange(lambda _: {})
        with pytest.raises(embedkit.EmbedkitError):
            await made(golden, fake).embed(["a"], extra={"model": "other", "user": "me"})
        assert fake.bodies[0]["user"] == "me"


@pytest.mark.parametrize("name", sorted(HOSTS))
async def test_a_type_is_asked_for_by_dtype(name):
    """Bytes of a type that nobody expects would be read as other numbers: dtype= is named."""
    golden = successes(name)[0]
    plain = await body_of(golden)
    seen = 0
    for dtype in ("int8", "uint8", "binary", "ubinary"):
        try:
            other = await body_of(golden, dtype=dtype)
        except ConfigError:
            continue
        changed = {field: value for field, value in other.items() if plain.get(field) != value}
        if changed:
            seen += 1
            await refused(golden, "pass dtype=", changed)
            assert (await body_of(golden, dtype=dtype, extra=changed)).items() >= changed.items()

    assert seen or name not in ("voyage", "jina", "cohere", "mistral", "mixedbread", "perplexity")
