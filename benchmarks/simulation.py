"""The pacing of embedkit against servers that throttle, in virtual time: the same transport, limiter and retry policy, no sleeping.

Three servers, none of which says what it grants: a token bucket, a cap on requests in flight, and a latency knee. Then four separate
callers on one quota, and a server that reports its bucket in headers. Everything follows from the seed.

    python -m benchmarks.simulation            the table
    python -m benchmarks.simulation --plot     and the plots beside this file
"""

from __future__ import annotations

import asyncio
import math
import random
import selectors
from collections.abc import Callable
from typing import Any

from embedkit import RetryPolicy
from embedkit._limiter import Limiter
from embedkit._pace import Pace
from embedkit._refusal import judge
from embedkit._transport import Tally, Transport
from embedkit._types import Request, Response
from embedkit._window import Window


class _Skipping(selectors.DefaultSelector):
    """Instead of waiting for the next timer, the clock is moved to it."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout:
            self.now += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is computed."""

    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now


class Server:
    """What a simulated endpoint does with a request; counts what it granted and refused, second by second."""

    def __init__(self, seed: int, latency: float = 0.1, spread: float = 0.15) -> None:
        self.random = random.Random(seed)
        self.latency = latency
        self.spread = spread
        self.busy = 0
        self.granted: list[float] = []
        self.refused: list[float] = []

    async def __call__(self, request: Request) -> Response:
        now = asyncio.get_running_loop().time()
        hint = self.admit(now)
        if hint is not None:
            self.refused.append(now)
            await asyncio.sleep(0.02)
            return Response(
                429,
                {"retry-after": hint} if hint else {},
                b'{"error":{"message":"Rate limit reached","code":"rate_limit_exceeded"}}',
            )
        self.granted.append(now)
        self.busy += 1
        try:
            await asyncio.sleep(self.seconds() * self.random.lognormvariate(0.0, self.spread))
        finally:
            self.busy -= 1
        return Response(200, self.headers(asyncio.get_running_loop().time()), b"")

    def admit(self, now: float) -> str | None:
        """None to serve; else the Retry-After to answer 429 with (empty: none)."""
        return None

    def seconds(self) -> float:
        return self.latency

    def headers(self, now: float) -> dict[str, str]:
        return {}

    async def aclose(self) -> None:
        pass


class TokenBucket(Server):
    """Grants `rate` requests per second, and a burst of `burst` after a rest. Retry-After is whole seconds, as OpenAI's."""

    def __init__(self, seed: int, rate: float, burst: float, *, tells: bool = False, hints: bool = True, **more: float) -> None:
        super().__init__(seed, **more)
        self.rate, self.burst, self.tells, self.hints = rate, burst, tells, hints
        self.level, self.stamp = burst, 0.0

    def admit(self, now: float) -> str | None:
        self.level = min(self.burst, self.level + (now - self.stamp) * self.rate)
        self.stamp = now
        if self.level >= 1:
            self.level -= 1
            return None
        return str(max(1, math.ceil((1 - self.level) / self.rate))) if self.hints else ""

    def headers(self, now: float) -> dict[str, str]:
        if not self.tells:
            return {}
        level = min(self.burst, self.level + (now - self.stamp) * self.rate)
        return {
            "x-ratelimit-limit-requests": str(int(self.burst)),
            "x-ratelimit-remaining-requests": str(int(level)),
            "x-ratelimit-reset-requests": f"{(self.burst - level) / self.rate:.3f}s",
        }


class Capped(Server):
    """Refuses what comes while `cap` requests are being served."""

    def __init__(self, seed: int, cap: int, **more: float) -> None:
        super().__init__(seed, **more)
        self.cap = cap

    def admit(self, now: float) -> str | None:
        return "" if self.busy >= self.cap else None


class Knee(Server):
    """Never refuses. Up to `knee` requests are served side by side; beyond that they only take longer."""

    def __init__(self, seed: int, knee: int, **more: float) -> None:
        super().__init__(seed, **more)
        self.knee = knee

    def seconds(self) -> float:
        return self.latency * max(1.0, self.busy / self.knee)


async def _never_authorised(request: Request) -> Request:
    return request


def caller(server: Server, seed: int, *, start: int = 8, ceiling: int = 128, pace: Pace | None = None) -> Transport:
    loop = asyncio.get_running_loop()
    limiter = Limiter(Window(start, ceiling), pace or Pace(), clock=loop.time, sleep=asyncio.sleep)
    return Transport(
        server,
        _never_authorised,
        limiter,
        RetryPolicy(attempts=10_000, deadline=None),
        clock=loop.time,
        sleep=asyncio.sleep,
        jitter=random.Random(seed).random,
    )


def receive(response: Response) -> Response:
    if response.status != 200:
        raise judge(response, provider="simulated", model="m", message="", now=0.0)
    return response


async def load(transport: Transport, seconds: float, workers: int) -> None:
    """Workers that always have another request to send."""
    loop = asyncio.get_running_loop()
    request = Request("http://simulated")

    async def work() -> None:
        while loop.time() < seconds:
            await transport.send(request, receive, Tally())

    tasks = [loop.create_task(work()) for _ in range(workers)]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def run(
    make: Callable[[], Server],
    seconds: float,
    callers: int = 1,
    *,
    start: int = 8,
    ceiling: int = 128,
    trace: list[Any] | None = None,
) -> Server:
    async def go() -> Server:
        server = make()
        clients = [caller(server, number, start=start, ceiling=ceiling) for number in range(callers)]
        tasks = [asyncio.create_task(load(client, seconds, ceiling)) for client in clients]
        if trace is not None:
            while asyncio.get_running_loop().time() < seconds:
                await asyncio.sleep(0.5)
                trace.append((asyncio.get_running_loop().time(), clients[0].limiter.window.size, clients[0].limiter._busy))
        await asyncio.gather(*tasks)
        return server

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(go())


def steady(server: Server, after: float, until: float) -> tuple[float, float]:
    """(granted per second, share refused) in the steady state."""
    granted = sum(after <= moment < until for moment in server.granted)
    refused = sum(after <= moment < until for moment in server.refused)
    return granted / (until - after), refused / max(1, granted + refused)


if __name__ == "__main__":
    import time

    for name, make, best, n in [
        ("bucket 50/s burst 50", lambda: TokenBucket(1, 50, 50), 50, 1),
        ("bucket 50/s burst 50 nohint", lambda: TokenBucket(1, 50, 50, hints=False), 50, 1),
        ("bucket 5/s burst 10", lambda: TokenBucket(1, 5, 10), 5, 1),
        ("bucket 300/s burst 300", lambda: TokenBucket(1, 300, 300), 300, 1),
        ("bucket 50/s burst 3000", lambda: TokenBucket(1, 50, 3000), 50, 1),
        ("bucket tells 50/s burst 3000", lambda: TokenBucket(1, 50, 3000, tells=True), 50, 1),
        ("capped 32", lambda: Capped(1, 32), 32 / 0.1, 1),
        ("capped 6", lambda: Capped(1, 6), 6 / 0.1, 1),
        ("knee 24", lambda: Knee(1, 24), 24 / 0.1, 1),
        ("knee 1", lambda: Knee(1, 1), 1 / 0.1, 1),
        ("knee 100", lambda: Knee(1, 100), 100 / 0.1, 1),
        ("four 50/s", lambda: TokenBucket(1, 50, 50), 50, 4),
        ("four 50/s tells", lambda: TokenBucket(1, 50, 3000, tells=True), 50, 4),
        ("four capped 32", lambda: Capped(1, 32), 320, 4),
    ]:
        t = time.time()
        trace: list[Any] = []
        server = run(make, 600, n, trace=trace)
        rate, share = steady(server, 120, 600)
        r0, s0 = steady(server, 0, 120)
        print(
            f"{name:32s} used {rate / best:6.1%} refused {share:6.2%}   first 2 min {r0 / best:6.1%} {s0:6.2%}  window {trace[-1][1:]} {time.time() - t:.1f}s"
        )
