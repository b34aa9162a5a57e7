"""Time and servers, simulated: an event loop whose clock jumps to the next timer, and endpoints that throttle as real ones do.

The clients are embedkit's own transport, limiter and retry policy; nothing sleeps, and everything follows from the seed.
"""

from __future__ import annotations

import asyncio
import math
import random
import selectors
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from embedkit import EmbedkitError, Rate, RetryPolicy
from embedkit._limiter import Limiter
from embedkit._pace import Pace
from embedkit._refusal import judge
from embedkit._transport import Tally, Transport
from embedkit._types import Request, Response
from embedkit._window import Window
from embedkit.errors import TransportTimeoutError

START, CEILING = 8, 64  # what `connect` begins with and stops at (embedkit/_client.py)
REFUSAL = b'{"error":{"message":"too many %s","code":"rate_limit_exceeded"}}'
WIRE = 0.01  # seconds from the client to the server, and back, on average

# --- time ------------------------------------------------------------------------------------------------------------


class _Skipping(selectors.DefaultSelector):
    """Instead of waiting for the next timer, the clock is moved to it."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            msg = "the simulation waits for what will never come"
            raise RuntimeError(msg)
        self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is computed."""

    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now


# --- servers ---------------------------------------------------------------------------------------------------------


class Server:
    """An endpoint that serves whatever comes. Subclasses refuse, or get slow.

    Attributes:
        granted: (moment, cost) of each request served.
        refused: the moment of each refusal.
        later: what changes, and when: {300.0: {"rate": 25.0}}.
    """

    def __init__(
        self, seed: int, *, latency: float = 0.25, spread: float = 0.15, later: Mapping[float, Mapping[str, Any]] = {}
    ) -> None:
        self.random = random.Random(f"server {seed}")
        self.latency, self.spread = latency, spread
        self.later = dict(later)
        self.busy = 0
        self.granted: list[tuple[float, float]] = []
        self.refused: list[float] = []

    async def __call__(self, request: Request) -> Response:
        await self.travel()
        now = self.now()
        for moment in [moment for moment in self.later if moment <= now]:
            vars(self).update(self.later.pop(moment))
        cost = float(request.body or 1)
        refusal = self.admit(now, cost)
        if refusal is not None:
            self.refused.append(now)
            await self.travel()
            return refusal
        self.granted.append((now, cost))
        self.busy += 1
        try:
            await asyncio.sleep(self.seconds() * self.random.lognormvariate(0.0, self.spread))
        finally:
            self.busy -= 1
        headers = self.headers(self.now())
        await self.travel()
        return Response(200, headers, b"")

    async def travel(self) -> None:
        """Over the wire, one way."""
        await asyncio.sleep(self.random.uniform(0.5, 1.5) * WIRE)

    async def aclose(self) -> None:
        """Nothing is open."""

    @staticmethod
    def now() -> float:
        return asyncio.get_running_loop().time()

    def admit(self, now: float, cost: float) -> Response | None:
        """None to serve, or the refusal."""
        return None

    def seconds(self) -> float:
        return self.latency

    def headers(self, now: float) -> dict[str, str]:
        return {}


class Bucket(Server):
    """A token bucket: `rate` a second, `burst` after a rest, as OpenAI limits. Retry-After is in whole seconds, as theirs.

    `hints`: whether there is a Retry-After. `what`: there was too much of, in words. `tells`: "requests" or "tokens" reports the bucket in x-ratelimit headers.
    """

    def __init__(
        self, seed: int, rate: float, burst: float, *, hints: bool = True, what: str = "", tells: str = "", **more: Any
    ) -> None:
        super().__init__(seed, **more)
        self.rate, self.burst, self.hints, self.what, self.tells = rate, burst, hints, what, tells
        self.level, self.stamp = burst, 0.0

    def refill(self, now: float) -> None:
        self.level = min(self.burst, self.level + (now - self.stamp) * self.rate)
        self.stamp = now

    def admit(self, now: float, cost: float) -> Response | None:
        self.refill(now)
        if self.level >= cost:
            self.level -= cost
            return None
        after = str(max(1, math.ceil((cost - self.level) / self.rate)))
        return Response(429, {"retry-after": after} if self.hints else {}, REFUSAL % self.what.encode())

    def headers(self, now: float) -> dict[str, str]:
        if not self.tells:
            return {}
        self.refill(now)
        return _report(self.tells, self.burst, self.level, f"{(self.burst - self.level) / self.rate:.3f}s")


class Calendar(Server):
    """`most` requests in each window of `every` seconds; whoever comes too late is sent to the next one."""

    def __init__(self, seed: int, most: int, every: float = 60.0, *, tells: str = "", **more: Any) -> None:
        super().__init__(seed, **more)
        self.most, self.every, self.tells = most, every, tells
        self.window, self.used = 0.0, 0.0

    def turn(self, now: float) -> float:
        """Seconds until the next window."""
        window = now // self.every
        if window != self.window:
            self.window, self.used = window, 0.0
        return (window + 1) * self.every - now

    def admit(self, now: float, cost: float) -> Response | None:
        left = self.turn(now)
        if self.used + cost <= self.most:
            self.used += cost
            return None
        return Response(429, {"retry-after": str(math.ceil(left)), **self.headers(now)}, REFUSAL % b"")

    def headers(self, now: float) -> dict[str, str]:
        if not self.tells:
            return {}
        left = self.turn(now)
        return _report(self.tells, self.most, self.most - self.used, str(math.ceil(left)))


class Capped(Server):
    """Refuses what comes while `cap` requests are being served, with the status and Retry-After given."""

    def __init__(self, seed: int, cap: int, *, status: int = 429, after: str = "", words: bytes = b"", **more: Any) -> None:
        super().__init__(seed, **more)
        self.cap, self.status, self.after, self.words = cap, status, after, words

    def admit(self, now: float, cost: float) -> Response | None:
        if self.busy < self.cap:
            return None
        return Response(self.status, {"retry-after": self.after} if self.after else {}, self.words)


class Knee(Server):
    """Never refuses: up to `knee` requests are served side by side, beyond that they only take longer."""

    def __init__(self, seed: int, knee: float, **more: Any) -> None:
        super().__init__(seed, **more)
        self.knee = knee

    def seconds(self) -> float:
        return self.latency * max(1.0, self.busy / self.knee)


class Hanging(Server):
    """Never refuses: what comes while `cap` requests are being served is not answered before the client's timeout."""

    def __init__(self, seed: int, cap: int, timeout: float = 10.0, **more: Any) -> None:
        super().__init__(seed, **more)
        self.cap, self.timeout = cap, timeout

    async def __call__(self, request: Request) -> Response:
        if self.busy < self.cap:
            return await super().__call__(request)
        self.refused.append(self.now())
        await asyncio.sleep(self.timeout)
        msg = f"no answer within {self.timeout:g} s"
        raise TransportTimeoutError(msg)


def _report(what: str, limit: float, remaining: float, reset: str) -> dict[str, str]:
    values = {"limit": str(int(limit)), "remaining": str(int(remaining)), "reset": reset}
    return {f"x-ratelimit-{name}-{what}": value for name, value in values.items()}


# --- clients ---------------------------------------------------------------------------------------------------------


class Fixed(Window):
    """A window that learns nothing, to compare with."""

    def answered(self, now: float, seconds: float, busy: int) -> None:
        """As before."""

    def refused(self, now: float, sent: float, busy: int) -> None:
        """As before."""

    def late(self, now: float, sent: float) -> None:
        """As before."""


class Unpaced(Pace):
    """A pace that learns nothing: everyone retries alone."""

    def pause(self, now: float, seconds: float) -> None:
        """Nobody else waits."""

    def refused(self, now: float, sent: float, tokens: int, *, what: str = "requests", cut: bool = True) -> None:
        """As before."""

    def heed(self, now: float, headers: Mapping[str, str]) -> None:
        """Nothing is read."""


class Client:
    """One embedder's way to a server: workers that always have another request to send.

    Attributes:
        costs: of the next request, in tokens; and what the client believes it to be.
        lost: requests given up.
    """

    def __init__(
        self,
        server: Server,
        seed: int,
        *,
        fixed: int | None = None,
        rate: Rate | None = None,
        pace: Pace | None = None,
        costs: Callable[[random.Random], tuple[int, int]] | None = None,
        resting: Callable[[float], float] | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.random = random.Random(f"client {seed}")
        self.window = Fixed(fixed, fixed) if fixed else Window(START, CEILING)
        self.pace = pace or (Unpaced() if fixed else Pace(rate))
        self.lost = self.done = 0
        self._workers = fixed or CEILING
        self._costs = costs
        self._resting = resting
        self._transport = Transport(
            server,
            _unsigned,
            Limiter(self.window, self.pace, clock=loop.time, sleep=asyncio.sleep),
            RetryPolicy(),
            clock=loop.time,
            sleep=asyncio.sleep,
            jitter=self.random.random,
        )

    async def work(self, seconds: float) -> None:
        tasks = [asyncio.create_task(self._work()) for _ in range(self._workers)]
        await asyncio.sleep(seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            if self._resting is not None and (rest := self._resting(now())) > 0:
                await asyncio.sleep(rest)
            cost, believed = self._costs(self.random) if self._costs else (1, 0)
            request = Request("http://simulated", str(cost).encode())
            try:
                await self._transport.send(request, _receive, Tally(), tokens=believed)
            except EmbedkitError:
                self.lost += 1
            else:
                self.done += 1
                if self.pace.counts_tokens:
                    self.pace.correct(now(), cost - believed)


async def _unsigned(request: Request) -> Request:
    return request


def _receive(response: Response) -> Response:
    if response.status != 200:
        raise judge(response, provider="simulated", model="", message="", now=0.0)
    return response


def run(go: Callable[[], Awaitable[Any]]) -> Any:
    """What `go()` returns, on a loop of its own whose time begins at zero."""

    async def main() -> Any:
        return await go()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())
