"""Vectors that depend on the other texts of their request: all are sent, in place, in one request, or nothing is."""

from __future__ import annotations

import json

import numpy as np
import pytest

import embedkit
from embedkit import ConfigError, InvalidInputError, Limits, RetryPolicy, TooLargeError, TransportTimeoutError
from embedkit.testing import FakeExchange, response

pytestmark = pytest.mark.anyio
CHUNKS = ["Yes.", "It is big.", "Yes.", "It is old."]
LATE = {"late_chunking": True}


def document(texts):
    """A vector for every chunk that depends on all of them and on its place."""
    total = sum(map(len, texts))
    return [[float(len(text)), float(total), float(place)] for place, text in enumerate(texts)]


def server(request):
    body = json.loads(request.body)
    texts = body.get("input") or [chunk for chunks in body["inputs"] for chunk in chunks]
    texts = [chunk for each in texts for chunk in (each if isinstance(each, list) else [each])]
    items = [{"index": place, "embedding": vector} for place, vector in enumerate(document(texts))]
    if isinstance((body.get("inputs") or body.get("input"))[0], list):
        groups = body.get("inputs") or body.get("input")
        items, data = iter(items), []
        for number, group in enumerate(groups):
            data.append({"index": number, "data": [{**next(items), "index": place} for place, _ in enumerate(group)]})
        return {"data": data}
    return {"data": items}


GROUPED = [["Yes.", "It is big."], ["Yes.", "It is old."]]
CASES = {
    "jina": ("jina:jina-embeddings-v3", LATE), "jina at any server": ("compatible:jina-embeddings-v3", LATE),
    "jina at a router": ("openrouter:jina-embeddings-v3", LATE),
    "voyage": ("voyage:voyage-context-3", {"inputs": GROUPED}),
    "perplexity": ("perplexity:pplx-embed-context-v1-4b", {"input": GROUPED}),
}  # fmt: skip


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def joined(request):
    model, extra = request.param

    def connect(exchange=None, **settings):
        place = {"base_url": "http://h/v1"} if model.startswith("compatible") else {"api_key": "k"}
        return embedkit.connect(model, exchange=exchange or FakeExchange(server), extra=extra, **place, **settings)

    return connect


async def test_equal_chunks_are_all_sent(joined):
    """Each in its place: the document is the caller's, and so is every row."""
    exchange = FakeExchange(server)
    result = await joined(exchange).embed(CHUNKS)

    assert len(exchange.requests) == 1
    assert result.vectors.tolist() == document(CHUNKS)
    assert result.usage.requests == 1


@pytest.mark.parametrize("coalesce", [True, 0.01])
async def test_calls_do_not_share_a_request(joined, coalesce):
    """Another caller's texts would be in the same document."""
    import asyncio

    exchange = FakeExchange(server)
    embedder = joined(exchange, coalesce=coalesce)
    results = await asyncio.gather(*(embedder.embed(CHUNKS) for _ in range(20)))

    assert len(exchange.requests) == 20
    assert all(result.vectors.tolist() == document(CHUNKS) for result in results)


@pytest.mark.parametrize("limits", [Limits(max_texts=3), Limits(max_tokens=8), Limits(max_bytes=20)])
@pytest.mark.parametrize("on_error", ["raise", "skip"])
async def test_what_does_not_fit_says_how_much_does(joined, limits, on_error):
    """More chunks than one request takes: nothing is sent, and the error says how many fit."""
    exchange = FakeExchange(server)
    with pytest.raises(TooLargeError, match=r"4 were given: [23] fit into one request") as caught:
        await joined(exchange, limits=limits).embed(CHUNKS, on_error=on_error)

    assert exchange.requests == []
    assert caught.value.status is None
    assert caught.value.max_texts in (2, 3)


REFUSALS = {
    "too large": (response({"error": {"message": "too many inputs"}}, 413), TooLargeError),
    "a bad text": (response({"error": {"message": "no"}}, 400), InvalidInputError),
    "a bad text by name": (response({"error": {"message": "input[2] is not accepted"}}, 400), InvalidInputError),
    "a failing server": (response("x", 500), embedkit.ServerError),
    "no answer in time": (TransportTimeoutError("late"), TransportTimeoutError),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "kind"), REFUSALS.values(), ids=REFUSALS)
@pytest.mark.parametrize("on_error", ["raise", "skip"])
async def test_nothing_is_taken_apart(joined, answer, kind, on_error):
    """A document without one of its chunks would be another: what fails is raised, and every try sends all chunks."""
    exchange = FakeExchange(lambda _: answer)
    with pytest.raises(kind):
        await joined(exchange, retry=RetryPolicy(attempts=3, initial=0.0)).embed(CHUNKS, on_error=on_error)

    assert len(exchange.requests) == (3 if kind in (embedkit.ServerError, TransportTimeoutError) else 1)
    assert len({request.body for request in exchange.requests}) == 1


async def test_an_unusable_vector_still_costs_its_row_alone():
    """The other chunks were embedded with it, as the document has it."""
    exchange = FakeExchange(lambda request: spoilt(server(request)))
    embedder = embedkit.connect("jina:jina-embeddings-v3", api_key="k", exchange=exchange, extra=LATE)
    result = await embedder.embed(CHUNKS, on_error="skip")

    assert list(result.failures) == [2]
    assert result.vectors[[0, 1, 3]].tolist() == [document(CHUNKS)[row] for row in (0, 1, 3)]
    assert len(exchange.requests) == 1


def spoilt(body):
    body["data"][2]["embedding"] = None
    return body


async def test_texts_are_not_cut_on_the_client(joined):
    """Pieces of a text, or its head alone, would be another document."""
    with pytest.raises(ConfigError, match="depends on the other texts"):
        await joined(long_text="mean").embed(CHUNKS)


async def test_the_option_of_a_call_joins_too():
    """The field may come with one call; without it, or where it is false, equal texts are sent once as ever."""
    exchange = FakeExchange(server)
    embedder = embedkit.connect("jina:jina-embeddings-v3", api_key="k", exchange=exchange)
    await embedder.embed(CHUNKS)
    await embedder.embed(CHUNKS, extra={"late_chunking": False})
    await embedder.embed(CHUNKS, extra=LATE)

    assert [len(body["input"]) for body in exchange.bodies] == [3, 3, 4]


async def test_a_pool_joins_too():
    """Over several keys or endpoints the texts are one request all the same."""
    exchange = FakeExchange(server)
    embedder = embedkit.connect(
        "jina:jina-embeddings-v3", api_key=["a", "b"], exchange=exchange, extra=LATE, limits=Limits(max_texts=4)
    )
    result = await embedder.embed(CHUNKS)

    assert result.vectors.tolist() == document(CHUNKS)
    with pytest.raises(TooLargeError, match="4 fit"):
        await embedder.embed([*CHUNKS, "And more."])


async def test_a_part_of_a_stream_is_a_document():
    """As the docstring says: the limits set the boundary."""
    exchange = FakeExchange(server)
    embedder = embedkit.connect(
        "jina:jina-embeddings-v3", api_key="k", exchange=exchange, extra=LATE, limits=Limits(max_texts=3)
    )
    parts = [part.vectors async for part in embedder.stream(CHUNKS)]

    assert [body["input"] for body in exchange.bodies] == [CHUNKS[:3], CHUNKS[3:]]
    assert np.concatenate(parts).tolist() == document(CHUNKS[:3]) + document(CHUNKS[3:])
    assert "boundary" in (embedkit.Embedder.stream.__doc__ or "")


async def test_empty_chunks_step_aside():
    """Where the provider takes no empty text, it fails alone, and the others stay one document in their order."""
    exchange = FakeExchange(server)
    embedder = embedkit.connect("jina:jina-embeddings-v3", api_key="k", exchange=exchange, extra=LATE)
    result = await embedder.embed(["Yes.", "", "Yes.", None], on_error="skip")

    assert list(result.failures) == [1, 3]
    assert result.vectors[[0, 2]].tolist() == document(["Yes.", "Yes."])
