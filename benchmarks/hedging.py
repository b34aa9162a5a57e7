"""Hedging in virtual time: what a second request for late ones does to the slowest calls, and what it costs.

A server answers in 0.1 s (median; lognormal) and stalls some of its replies tenfold. Callers come at random moments,
and each waits for one vector. Everything runs through `connect`, nothing sleeps, and everything follows from the seed.

    python -m benchmarks.hedging
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec

import embedkit
from benchmarks.virtual import VirtualLoop
from embedkit import Embedder
from embedkit._types import Request, Response

MEDIAN, PER_SECOND = 0.1, 100.0


class Stalling:
    """Answers one vector per request; a share of the replies takes
    `times` as long. From `slows` on every reply takes twice as long.
    """

    def __init__(
        self, seed: int, *, share: float = 0.02, times: float = 10.0, spread: float = 0.1, slows: float = 1e9
    ) -> None:
        self.random = random.Random(seed)
        self.share, self.times, self.spread, self.slows = share, times, spread, slows
        self.requests = self.cancelled = 0

    async def __call__(self, request: Request) -> Response:
        self.requests += 1
        seconds = MEDIAN * self.random.lognormvariate(0.0, self.spread)
        if self.random.random() < self.share:
            seconds *= self.times
        if asyncio.get_running_loop().time() >= self.slows:
            seconds *= 2
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        count = len(msgspec.json.decode(request.body)["input"])
        return Response(200, {}, msgspec.json.encode({"data": [{"embedding": [1.0, 0.0]}] * count}))

    async def aclose(self) -> None:
        """Nothing is open."""


class Outcome(msgspec.Struct):
    """What `calls` calls were like: their seconds, in order of
    size, and how many requests they took beyond one each.
    """

    seconds: list[float]
    extra: float

    def quantile(self, share: float) -> float:
        return self.seconds[min(len(self.seconds) - 1, int(len(self.seconds) * share))]


def run(server: Stalling, calls: int, *, hedge: float, warm: int = 200) -> Outcome:
    """Calls at random moments; the first `warm` of them, in which nothing is known yet, are left out of the seconds."""
    arrivals = random.Random(7)

    async def go() -> Outcome:
        loop = asyncio.get_running_loop()
        embedder: Any = embedkit.connect(
            "openai:m", base_url="http://simulated", exchange=server, hedge=hedge, max_concurrency=1000
        )
        embedder._clock = loop.time
        seconds: list[float] = []
        used = 0

        async def call(number: int) -> None:
            nonlocal used
            started = loop.time()
            made = await _asked(embedder, number)
            used += made.usage.requests
            if number >= warm:
                seconds.append(loop.time() - started)

        tasks = []
        for number in range(calls):
            tasks.append(loop.create_task(call(number)))
            await asyncio.sleep(arrivals.expovariate(PER_SECOND))
        await asyncio.gather(*tasks)
        assert used == server.requests  # the tally is exact
        return Outcome(sorted(seconds), server.requests / calls - 1)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(go())


async def _asked(embedder: Embedder, number: int) -> embedkit.Embeddings:
    return await embedder.embed(f"text {number:06}")


def main() -> None:
    calls = 10_000
    print(f"{calls} calls, {PER_SECOND:g} a second; seconds as multiples of the median of each row\n")
    print(f"{'replies that stall':34}{'hedge':>7}{'p50':>8}{'p95':>7}{'p99':>7}{'p99.9':>7}{'extra requests':>16}")
    scenarios: dict[str, dict[str, float]] = {
        "2 % tenfold, steady server": {"spread": 0.02},
        "2 % tenfold": {},
        "2 % tenfold, uneven server": {"spread": 0.4},
        "none": {"share": 0.0},
        "2 %, then all twice as slow": {"slows": 50.0},
    }
    for name, changes in scenarios.items():
        for hedge in (0.0, 0.05):
            made = run(Stalling(1, **changes), calls, hedge=hedge)
            middle = made.quantile(0.5)
            times = "".join(f"{made.quantile(share) / middle:7.2f}" for share in (0.95, 0.99, 0.999))
            print(f"{name:34}{hedge:7.0%}{middle:7.3f}s{times}{made.extra:16.2%}")


if __name__ == "__main__":
    main()
