"""A pool of three endpoints in virtual time: one dies in the middle of a run and comes back. No text may be lost.

Each endpoint serves eight requests side by side. A dead one refuses connections at once, answers 503, or says nothing
until the timeout. Everything runs through `connect`, nothing sleeps, and everything follows from the seed.

    python -m benchmarks.pooling
"""

from __future__ import annotations

import asyncio
import functools
import math
import random
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np

import embedkit
from benchmarks.virtual import VirtualLoop
from embedkit import RetryPolicy, TransportError, TransportTimeoutError
from embedkit._types import Request, Response

BATCH, SECONDS = 64, 0.2  # texts per request, and what it takes (median; lognormal)
TIMEOUT = 3.0


class Endpoint:
    """Serves so many requests side by side; each beyond them waits.
    Dead from `dies` until `returns`, in a manner of its own.
    """

    def __init__(
        self,
        seed: int,
        *,
        slots: int = 8,
        times: float = 1.0,
        dies: float = math.inf,
        returns: float = math.inf,
        how: str = "",
    ) -> None:
        self.random = random.Random(seed)
        self.slots = asyncio.Semaphore(slots)
        self.times, self.dies, self.returns, self.how = times, dies, returns, how
        self.requests = 0
        self.served: list[tuple[float, int]] = []  # (moment, texts)

    async def __call__(self, request: Request) -> Response:
        self.requests += 1
        loop = asyncio.get_running_loop()
        texts: list[str] = msgspec.json.decode(request.body)["input"]
        async with self.slots:
            if (broken := await self.broken(loop.time())) is not None:
                return broken
            await asyncio.sleep(
                self.times * SECONDS * self.random.lognormvariate(0.0, 0.1) * (0.3 + 0.7 * len(texts) / BATCH)
            )
            if (broken := await self.broken(loop.time())) is not None:
                return broken
        self.served.append((loop.time(), len(texts)))
        return Response(200, {}, msgspec.json.encode({"data": [{"embedding": vector(text)} for text in texts]}))

    async def broken(self, now: float) -> Response | None:
        if not self.dies <= now < self.returns:
            return None
        if self.how == "answers 503":
            await asyncio.sleep(0.01)
            return Response(503, {}, b'{"error":{"message":"down"}}')
        if self.how == "says nothing":
            await asyncio.sleep(TIMEOUT)
            msg = "nothing came"
            raise TransportTimeoutError(msg)
        msg = "refused"
        raise TransportError(msg)


def vector(text: str) -> list[float]:
    """Tells texts apart."""
    number = int(text) if text.isdigit() else 0
    return [1.0, number % 997, number // 997]


class Network:
    """Leads a request to its endpoint, by host name."""

    def __init__(self, endpoints: list[Endpoint]) -> None:
        self.endpoints = endpoints

    async def __call__(self, request: Request) -> Response:
        return await self.endpoints[int((urlsplit(request.url).hostname or "").removeprefix("e"))](request)

    async def aclose(self) -> None:
        """Nothing is open."""


class Outcome(msgspec.Struct):
    """What a run gave: texts that came back with a wrong vector
    or not at all, and texts per second in spans of a second.
    """

    wrong: int
    requests: int
    served: list[list[tuple[float, int]]]  # by endpoint
    seconds: float

    def rate(self, since: float, until: float) -> float:
        return sum(texts for each in self.served for moment, texts in each if since <= moment < until) / (until - since)


def run(changes: list[dict[str, Any]], texts: int, **keywords: Any) -> Outcome:
    """Embed so many texts over endpoints made with these changes."""

    async def go() -> Outcome:
        loop = asyncio.get_running_loop()
        network = Network([Endpoint(number, **each) for number, each in enumerate(changes)])
        settings: dict[str, Any] = {"retry": RetryPolicy(deadline=None), "max_concurrency": 8, **keywords}
        embedder: Any = embedkit.connect(
            "compatible:m", base_url=[f"http://e{number}" for number in range(len(changes))], exchange=network,
            limits=embedkit.Limits(max_texts=BATCH), **settings,
        )  # fmt: skip
        for each in (embedder, *embedder._embedders):
            each._clock = loop.time
        result = await embedder.embed(map(str, range(texts)))
        numbers = np.arange(texts)
        wrong = int(
            (result.vectors != np.stack([np.ones(texts), numbers % 997, numbers // 997], axis=1)).any(axis=1).sum()
        )
        served = [each.served for each in network.endpoints]
        assert result.usage.requests == sum(each.requests for each in network.endpoints)  # the tally is exact
        return Outcome(wrong, result.usage.requests, served, loop.time())

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(go())


@functools.cache
def steady(endpoints: int) -> float:
    """The rate of so many endpoints when all is well."""
    made = run([{}] * endpoints, 20_000 * endpoints)
    return made.rate(2.0, made.seconds - 2.0)


def figures(how: str, texts: int, dies: float, returns: float) -> tuple[int, float, float, float]:
    """Texts lost; rate while one of three is dead against what two give;
    seconds until it is used again; rate then against what three give.
    """
    mixed = run([{}, {}, {"dies": dies, "returns": returns, "how": how}], texts)
    back = next(moment for moment, _ in mixed.served[2] if moment >= returns)
    return (
        mixed.wrong,
        mixed.rate(dies, returns) / steady(2),
        back - returns,
        mixed.rate(back + 2.0, mixed.seconds - 2.0) / steady(3),
    )


def main() -> None:
    print("One of three endpoints is dead from second 10 to 40\n")
    print(
        f"{'while dead it':22}{'texts lost':>12}{'rate while dead':>18}{'used again after':>18}{'rate from then on':>19}"
    )
    print(f"{'':34}{'(of what 2 give)':>18}{'':18}{'(of what 3 give)':>19}")
    for how in ("refuses connections", "answers 503", "says nothing"):
        lost, dead, back, after = figures(how, 450_000, 10.0, 40.0)
        print(f"{how:22}{lost:12}{dead:18.1%}{back:17.1f}s{after:19.1%}")
    shares = run([{}, {"times": 2.0}, {"times": 4.0}], 100_000)
    best = sum(run([{"times": times}], 30_000).rate(2.0, 8.0) for times in (1.0, 2.0, 4.0))
    print(
        f"\nThree endpoints, one twice and one four times as slow: {shares.rate(2.0, shares.seconds - 3.0) / best:.1%} of their sum"
    )


if __name__ == "__main__":
    main()
