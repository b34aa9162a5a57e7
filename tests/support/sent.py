"""The request that `connect` and `embed` send, and what it says of who sends it."""

from __future__ import annotations

import embedkit
from embedkit.testing import FakeExchange
from tests.support.fake_replies import echo


def provider_of(model):
    return model.partition(":")[0]


async def sent(model, texts="a", **keywords):
    """The request that embedding these texts sends, the last if there are several."""
    exchange = FakeExchange(echo(provider_of(model)))
    async with embedkit.connect(model, exchange=exchange, **keywords) as embedder:
        await embedder.embed(texts)
    return exchange.requests[-1]


def authorized(request):
    """What a request says of who sends it."""
    return request.headers.get("authorization") or request.headers.get("api-key")
