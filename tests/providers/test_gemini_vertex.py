"""Gemini and Vertex where their golden exchanges do not reach: keys, places, one text per request, and what is
refused.
"""

from __future__ import annotations

import numpy as np
import pytest

import embedkit
from embedkit import ConfigError, Limits, RetryPolicy
from embedkit.testing import FakeExchange, response

GEMINI = {"model": "gemini:gemini-embedding-001", "api_key": "AIza-secret"}
VERTEX = {"model": "vertex:text-embedding-005", "api_key": "ya29.t", "project": "p"}


def connected(answers, **given):
    exchange = FakeExchange(answers)
    return embedkit.connect(exchange=exchange, **{"retry": RetryPolicy(initial=0.0), **given}), exchange


def gemini(request):
    """One unit vector per text, turned by its place in the batch."""
    import json

    count = len(json.loads(request.body)["requests"])
    return {"embeddings": [{"values": [1.0, float(place)]} for place in range(count)]}


def vertex(request):
    return {"embedding": {"values": [1.0, float(len(request.body))]}}


@pytest.mark.anyio
@pytest.mark.parametrize("model", ["gemini-embedding-001", "models/gemini-embedding-001"])
async def test_the_key_is_never_in_the_address(model):
    """The key goes in a header; the model's name is the same with and without the collection before it."""
    embedder, exchange = connected(gemini, **{**GEMINI, "model": f"gemini:{model}"})
    await embedder.embed(["a"], input_type="query")
    (request,) = exchange.requests

    assert request.url == "https://generativelanguage.googleapis.com/v1/models/gemini-embedding-001:batchEmbedContents"
    assert request.headers["x-goog-api-key"] == "AIza-secret"
    assert "authorization" not in request.headers
    assert exchange.bodies[0]["requests"][0]["model"] == "models/gemini-embedding-001"
    assert embedder.price == 0.15


@pytest.mark.anyio
async def test_of_two_variables_googles_own_wins(monkeypatch):
    """GOOGLE_API_KEY beats GEMINI_API_KEY, as in google-genai; neither goes to another host."""
    monkeypatch.setenv("GEMINI_API_KEY", "second")
    monkeypatch.setenv("GOOGLE_API_KEY", "first")
    embedder, exchange = connected(gemini, model="gemini:m")
    await embedder.embed(["a"])
    foreign, other = connected(gemini, model="gemini:m", base_url="https://proxy.example/v1beta")
    await foreign.embed(["a"])

    assert exchange.requests[0].headers["x-goog-api-key"] == "first"
    assert other.requests[0].url == "https://proxy.example/v1beta/models/m:batchEmbedContents"
    assert "x-goog-api-key" not in other.requests[0].headers


@pytest.mark.anyio
async def test_a_hundred_texts_are_one_request_and_one_more_are_two():
    """No request holds more than the 100 texts the API takes, and every text is an element of its own."""
    embedder, exchange = connected(gemini, **GEMINI, max_concurrency=1)
    result = await embedder.embed([str(number) for number in range(101)])

    assert [len(body["requests"]) for body in exchange.bodies] == [100, 1]
    assert all(len(each["content"]["parts"]) == 1 for body in exchange.bodies for each in body["requests"])
    assert result.vectors[:, 1].tolist() == [*map(float, range(100)), 0.0]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("options", "length"),
    [({"dimensions": 2}, 1.0), ({"dimensions": 2, "normalize": False}, 0.5), ({}, 0.5), ({"normalize": True}, 1.0)],
)
async def test_what_the_api_cuts_is_made_unit_length(options, length):
    """A narrower vector is normalized unless the caller wants it raw; one of full width is the provider's own."""
    embedder, _ = connected(lambda _: {"embeddings": [{"values": [0.3, 0.4]}]}, **GEMINI)
    result = await embedder.embed(["a"], **options)

    assert np.linalg.norm(result.vectors[0]) == pytest.approx(length)


@pytest.mark.anyio
async def test_a_text_too_long_is_told_by_the_catalog():
    """The Gemini API cuts without saying so: with the mean, an over-long text is sent in pieces."""
    embedder, exchange = connected(gemini, **GEMINI, long_text="mean")
    text = " ".join(map(str, range(4000)))
    result = await embedder.embed([text])
    pieces = [each["content"]["parts"][0]["text"] for each in exchange.bodies[0]["requests"]]

    assert embedder.limits.max_text_tokens == 2048
    assert len(pieces) > 1
    assert "".join(pieces) == text
    assert result.vectors.shape == (1, 2)


@pytest.mark.anyio
async def test_extra_reaches_every_text():
    """What the APIs say per text goes into each of them; the rest stays where `extra` puts it, at the top."""
    extra = {
        "taskType": "CODE_RETRIEVAL_QUERY",
        "task_type": "CODE_RETRIEVAL_QUERY",
        "title": "t",
        "labels": {"a": "b"},
    }
    one, first = connected(gemini, **GEMINI, input_type="query", extra=extra)
    await one.embed(["a", "b"])
    reply = {"predictions": [{"embeddings": {"values": [1.0]}}]}
    two, second = connected([reply], **VERTEX, input_type="query", extra=extra)
    await two.embed(["a"])

    assert [(each["taskType"], each["title"]) for each in first.bodies[0]["requests"]] == [
        ("CODE_RETRIEVAL_QUERY", "t")
    ] * 2
    assert first.bodies[0].keys() == {"requests", "task_type", "labels"}
    assert second.bodies[0]["instances"] == [{"content": "a", "task_type": "CODE_RETRIEVAL_QUERY", "title": "t"}]
    assert second.bodies[0].keys() == {"instances", "parameters", "taskType", "labels"}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("given", "options"),
    [
        (GEMINI, {"truncate": "error"}),  # the Gemini API cuts, always
        ({**VERTEX, "model": "vertex:gemini-embedding-2", "limits": Limits(max_texts=8)}, {}),  # parts would be fused
    ],
)
async def test_what_cannot_be_honored_is_refused(given, options):
    """An option the API has no way to honor is a ConfigError, and nothing is sent."""
    embedder, exchange = connected([], **given)

    with pytest.raises(ConfigError):
        await embedder.embed(["a", "b"], **options)

    assert exchange.requests == []


@pytest.mark.anyio
@pytest.mark.parametrize("model", ["gemini-embedding-001", "gemini-embedding-2"])
async def test_gemini_models_on_vertex_take_one_text_each(model):
    """Texts for a Gemini model go out one by one, and come back in order."""
    embedder, exchange = connected(vertex, **{**VERTEX, "model": f"vertex:{model}"})
    texts = ["a" * size for size in (3, 1, 2)]
    rows = (await embedder.embed(texts)).vectors[:, 1]

    assert len(exchange.requests) == 3
    assert (rows - rows.min()).tolist() == [2.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("location", "host"),
    [
        (None, "aiplatform.googleapis.com"),
        ("global", "aiplatform.googleapis.com"),
        ("us", "aiplatform.us.rep.googleapis.com"),
        ("europe-west4", "europe-west4-aiplatform.googleapis.com"),
        ("evil.example/#", "evil.example%2F%23-aiplatform.googleapis.com"),
    ],
)
def test_a_location_has_its_host(monkeypatch, location, host):
    """Global, multi-region and region have hosts of their own; Google's variables name project and location."""
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p-1")
    if location is not None:
        monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", location)
    embedder, _ = connected([], model="vertex:m", api_key="t")

    assert embedder.base_url.partition("/projects/")[0] == f"https://{host}/v1beta1"
    assert "/projects/p-1/locations/" in embedder.base_url


def test_a_base_url_takes_the_place_of_the_host_only():
    """A private endpoint keeps its host and version; project and location still follow."""
    embedder, _ = connected([], **VERTEX, location="us-central1", base_url="https://psc.example")

    assert embedder.base_url == "https://psc.example/v1beta1/projects/p/locations/us-central1/publishers/google"


@pytest.mark.parametrize(
    ("given", "said"),
    [({"api_key": "t"}, "GOOGLE_CLOUD_PROJECT"), ({"project": "p"}, "vertex needs a key: pass api_key=")],
)
def test_vertex_says_what_it_lacks(given, said):
    """No project, or no token: a ConfigError from `connect` with the way out."""
    with pytest.raises(ConfigError, match=said):
        connected([], model="vertex:m", **given)


@pytest.mark.anyio
async def test_a_token_is_asked_for_on_every_attempt():
    """A callable gives the token of each try, so one that has ended is not sent twice."""
    tokens = iter(["first", "second"])

    async def token():
        return next(tokens)

    reply = {"predictions": [{"embeddings": {"values": [1.0]}}]}
    embedder, exchange = connected([response("", 503), reply], **{**VERTEX, "api_key": token})
    result = await embedder.embed(["a"])

    assert [each.headers["authorization"] for each in exchange.requests] == ["Bearer first", "Bearer second"]
    assert result.usage.tokens is None
