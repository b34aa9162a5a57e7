"""A lone text goes out by itself; what comes of it is what the dispatcher would have made of it."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import embedkit
from embedkit import RetryPolicy
from embedkit._types import OnError
from embedkit.errors import EmbedkitError, TransportError
from embedkit.testing import Answer, FakeExchange, response

QUICK = RetryPolicy(attempts=2, initial=0.0001, maximum=0.0001)
pytestmark = pytest.mark.anyio
LONG = 1000.0  # seconds: a call with a limit of time always goes through the dispatcher


def reply(*vectors: Any) -> dict[str, Any]:
    entries = [{"index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return {"data": entries, "model": "m", "usage": {"prompt_tokens": 2, "total_tokens": 2}}


ANSWERS: dict[str, Answer] = {
    "good": reply([1.0, 2.0, 3.0]),
    "another width": reply([1.0, 2.0]),
    "null in it": reply([1.0, None, 3.0]),
    "null": reply(None),
    "empty": reply([]),
    "none": reply(),
    "two": reply([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]),
    "no JSON": response("<html>"),
    "400": response({"error": {"message": "bad"}}, 400),
    "413": response({"error": {"message": "too large"}}, 413),
    "429": response({"error": {"message": "slow down"}}, 429, {"retry-after": "0"}),
    "503": response({"error": {"message": "busy"}}, 503),
    "reset": TransportError("reset", retryable=True),
}


async def outcome(
    script: tuple[str, ...], texts: list[str], on_error: OnError, warm: bool, limit: float | None
) -> object:
    """What a caller sees, and how many requests were sent."""
    answers = iter([*(("good",) if warm else ()), *script])
    exchange = FakeExchange(lambda _: ANSWERS[next(answers, "good")])
    embedder = embedkit.connect("compatible:m", base_url="http://fake", retry=QUICK, exchange=exchange)
    if warm:
        await embedder.embed(["before"])
    seen: object
    try:
        made = await embedder.embed(texts, on_error=on_error, total_timeout=limit)
    except EmbedkitError as error:
        seen = type(error), error.rows, error.attempts, error.retryable, error.partial is None
    else:
        failures = {row: (type(error), error.rows, error.attempts) for row, error in made.failures.items()}
        seen = made.vectors.tolist() if not failures else made.shape, failures, made.model, made.usage
        assert np.isfinite(made.vectors).all(axis=1).tolist() == [row not in failures for row in range(len(texts))]
    await embedder.aclose()
    return seen, [body["input"] for body in exchange.bodies]


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("texts", [["x"], ["x", "x"], ["x", "", "x"]], ids=["one", "twice", "an empty one"])
async def test_the_dispatcher_would_have_made_the_same_of_it(texts: list[str], on_error: OnError, warm: bool) -> None:
    """Whatever comes first and second, result, error and requests are those of a call through the dispatcher."""
    for script in itertools.product(ANSWERS, repeat=2):
        alone = await outcome(script, texts, on_error, warm, None)
        dispatched = await outcome(script, texts, on_error, warm, LONG)
        assert alone == dispatched, script


async def test_text_that_is_no_unicode_is_its_own_row() -> None:
    """A lone surrogate is refused with its row, nothing sent."""
    exchange = FakeExchange([])
    async with embedkit.connect("compatible:m", base_url="http://fake", exchange=exchange) as embedder:
        with pytest.raises(EmbedkitError, match="surrogate") as caught:
            await embedder.embed(["\ud800"])
        made = await embedder.embed(["\ud800"], on_error="skip")
    assert caught.value.rows == (0,)
    assert list(made.failures) == [0]
    assert not exchange.requests


async def test_each_try_has_rows_of_its_own() -> None:
    """A vector that is wrong once and good then is the good one: the first is not left in it."""
    answers: Iterator[Answer] = iter([response({"error": {"message": "busy"}}, 503), reply([1.0, 2.0, 3.0])])
    exchange = FakeExchange(lambda _: next(answers))
    async with embedkit.connect("compatible:m", base_url="http://fake", retry=QUICK, exchange=exchange) as embedder:
        made = await embedder.embed(["x"])
    assert made.vectors.tolist() == [[1.0, 2.0, 3.0]]
    assert made.usage.requests == 2
