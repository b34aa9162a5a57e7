"""Callables of the caller's that give a key or headers: they may hang, or give what no request can carry."""

from __future__ import annotations

import asyncio
import json

import pytest

import embedkit
from benchmarks.virtual import VirtualLoop
from embedkit import ConfigError, RetryPolicy
from embedkit.errors import TransportTimeoutError
from embedkit.testing import FakeExchange, response

NOW = RetryPolicy(initial=0.0)


def good(request):
    texts = json.loads(request.body)["input"]
    return response({"data": [{"index": row, "embedding": [1.0, 0.0]} for row in range(len(texts))]})


def connected(**settings):
    keywords = {"base_url": "http://h/v1", "exchange": FakeExchange(good), "retry": NOW, **settings}
    return embedkit.connect("compatible:m", **keywords)


@pytest.mark.parametrize("option", ["api_key", "headers"])
def test_one_that_hangs_ends_with_the_timeout(option):
    """As an attempt does."""

    async def give():
        await asyncio.sleep(60)

    with pytest.raises(TransportTimeoutError, match=r"gave nothing within timeout=0\.05 s"):
        asyncio.run(connected(timeout=0.05, retry=RetryPolicy(attempts=2, initial=0.0), **{option: give}).embed("text"))


@pytest.mark.parametrize("option", ["api_key", "headers"])
def test_each_try_that_hung_is_in_what_has_elapsed(option):
    """Two tries of two seconds are four seconds, though nothing was sent."""

    async def give():
        await asyncio.sleep(60)

    async def main():
        embedder = connected(timeout=2, retry=RetryPolicy(attempts=2, initial=0.0), **{option: give})
        embedder._clock = asyncio.get_running_loop().time
        with pytest.raises(TransportTimeoutError) as caught:
            await embedder.embed("text")
        return caught.value

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        error = runner.run(main())
    assert error.elapsed == pytest.approx(4)
    assert error.attempts == 0


@pytest.mark.parametrize(
    "kind", [{}, {"api_key": ["a", "b"]}, {"coalesce": True}, {"total_timeout": 60.0}, {"hedge": 1}]
)
@pytest.mark.parametrize("after", [0, 1])
def test_an_attempt_without_credentials_is_none(kind, after):
    """What was sent before counts: an endpoint is asked once in vain, and then no headers are given."""
    left = [after]

    def give():
        left[0] -= 1
        return {} if left[0] >= 0 else 7

    exchange = FakeExchange(lambda request: response({"error": {"message": "ill"}}, 500))
    with pytest.raises(ConfigError, match="returned int") as caught:
        asyncio.run(connected(headers=give, exchange=exchange, **kind).embed("text"))

    assert caught.value.attempts == len(exchange.requests) == after


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding"])
def test_what_frames_the_body_is_no_header_of_the_callers(name):
    """Whatever the value, the server would read another body than was sent."""
    with pytest.raises(ConfigError, match="where the body ends"):
        connected(headers={name: "3"})
    with pytest.raises(ConfigError, match="name number 1 says where the body ends"):
        asyncio.run(connected(headers=lambda: {name: "3"}).embed("text"))
