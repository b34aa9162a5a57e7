"""pydantic-ai: results, usage, settings, limits, and errors in its own classes."""

from __future__ import annotations

import pytest

import embedkit
from embedkit import ConfigError
from embedkit._hints import Later
from tests.contrib.adapters import KEY, reply, vector, voyage

pytestmark = [pytest.mark.anyio, pytest.mark.engines]
adapter = Later("embedkit.contrib.pydantic_ai")
pydantic_ai = Later("pydantic_ai")


async def test_a_result_has_vectors_usage_and_model():
    """A result is looked up by text or index, and says what it took in pydantic-ai's own usage object."""
    _, settings = voyage()
    embedder = pydantic_ai.Embedder(adapter.EmbedkitEmbeddingModel(**settings, api_key=KEY))
    found = await embedder.embed_documents(["one", "two", "three"])

    assert list(found["two"]) == vector("two").tolist() == list(found[1])
    assert found.usage.input_tokens == 3
    assert (found.model_name, found.provider_name) == ("voyage-3.5", "voyage")
    assert found.provider_details == {"requests": 2, "cost": pytest.approx(3 * 0.06 / 1e6)}


async def test_settings_reach_the_request():
    """Dimensions, truncation and further fields of pydantic-ai's settings are embedkit's; headers per call are refused."""
    from pydantic_ai.exceptions import UnexpectedModelBehavior

    exchange, settings = voyage()
    model = adapter.EmbedkitEmbeddingModel(**settings, api_key=KEY, settings={"dimensions": 256})
    embedder = pydantic_ai.Embedder(model, settings={"truncate": True})
    with pytest.raises(UnexpectedModelBehavior, match="256"):  # the fake answers eight components
        await embedder.embed_query("one", settings={"extra_body": {"more": 1}})
    with pytest.raises(ConfigError, match="headers="):
        await embedder.embed_query("one", settings={"extra_headers": {"x": "y"}})

    assert {"output_dimension": 256, "truncation": True, "more": 1}.items() <= exchange.bodies[0].items()


@pytest.mark.parametrize(
    ("raised", "name"),
    [
        (embedkit.RateLimitError("slow down", status=429), "ModelRateLimitError"),
        (embedkit.QuotaError("pay", status=429), "ModelQuotaExceededError"),
        (embedkit.AuthError("no", status=401), "ModelAuthenticationError"),
        (embedkit.NotFoundError("no such model", status=404), "ModelNotFoundError"),
        (embedkit.TooLongError("too long", status=400), "ModelContextWindowExceededError"),
        (embedkit.InvalidInputError("bad", status=400), "ModelRequestRejectedError"),
        (embedkit.ServerError("broken", status=500), "ModelServerError"),
        (embedkit.TransportTimeoutError("late"), "ModelTimeoutError"),
        (embedkit.TransportError("gone"), "ModelConnectionError"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_errors_are_pydantic_ai_s_own(raised, name):
    """Each failure is the class that pydantic-ai's own models raise for it, with embedkit's error as its cause."""
    from pydantic_ai import exceptions

    _, settings = voyage(lambda _: raised)
    model = adapter.EmbedkitEmbeddingModel(**settings, api_key=KEY, retry={"attempts": 1})
    with pytest.raises(getattr(exceptions, name)) as caught:
        await pydantic_ai.Embedder(model).embed_query("one")

    assert isinstance(caught.value, exceptions.ModelHTTPError) == hasattr(raised, "status")
    assert isinstance(caught.value.__cause__, type(raised))
    assert caught.value.model_name == "voyage-3.5"


async def test_limits_and_counts():
    """The most tokens of a text are the catalog's; tokens are counted where that is exact, and not guessed elsewhere."""
    model = adapter.EmbedkitEmbeddingModel("openai:text-embedding-3-small", api_key=KEY)
    counting = adapter.EmbedkitEmbeddingModel("openai:text-embedding-3-small", api_key=KEY, count_tokens=len)
    embedder = pydantic_ai.Embedder(adapter.EmbedkitEmbeddingModel("local:all-minilm-l6-v2"))

    assert await pydantic_ai.Embedder(model).max_input_tokens() == 8191
    with pytest.raises(NotImplementedError, match="count_tokens="):
        await pydantic_ai.Embedder(model).count_tokens("one")
    assert await pydantic_ai.Embedder(counting).count_tokens("one") == 3
    assert await embedder.count_tokens("hello") == 3
    assert (model.system, model.model_name) == ("openai", "text-embedding-3-small")
    assert model.base_url == "https://api.openai.com/v1"


async def test_requests_can_be_forbidden():
    """pydantic-ai's switch for tests, `ALLOW_MODEL_REQUESTS = False`, holds here too."""
    from pydantic_ai import models

    exchange, settings = voyage(reply)
    with models.override_allow_model_requests(False), pytest.raises(RuntimeError, match="not allowed"):
        await adapter.EmbedkitEmbeddingModel(**settings, api_key=KEY).embed("one", input_type="query")

    assert exchange.requests == []


async def test_an_answer_that_cannot_be_read_is_unexpected_behavior():
    """As pydantic-ai calls it, with embedkit's error as its cause."""
    from pydantic_ai import exceptions

    _, settings = voyage(lambda _: {"data": [{"embedding": "?"}]})
    with pytest.raises(exceptions.UnexpectedModelBehavior) as caught:
        await adapter.EmbedkitEmbeddingModel(**settings, api_key=KEY).embed("one", input_type="query")

    assert isinstance(caught.value.__cause__, embedkit.DecodeError)
