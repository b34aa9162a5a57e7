"""Time and servers, simulated: an event loop whose clock jumps
to the next timer, and endpoints that throttle as real ones do.

The clients are embedkit's own transport, limiter and retry policy, as
`connect` sets them up; nothing sleeps, and everything follows from the seed.
"""

from __future__ import annotations

import asyncio
import math
import random
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar
from unittest import mock

from embedkit import EmbedkitError, Rate, RetryPolicy
from embedkit._embedders.http import CEILING, START
from embedkit._http.transport import Transport
from embedkit._traffic.concurrency import ConcurrencyLimit
from embedkit._traffic.limiter import Limiter
from embedkit._traffic.quota import Quota
from embedkit._types import Request, RequestCount, Response
from embedkit.codec.error_mapping import error_from_response

T = TypeVar("T")
WIRE = 0.01  # seconds from the client to the server, and back, on average
LATENCY, SPREAD = 0.25, 0.15  # of a batch, where the server has room: the median, and sigma of its logarithm
RATE_LIMITED = b'{"error":{"message":"Rate limit reached%s","code":"rate_limit_exceeded"}}'
OVERLOADED = b'{"error":"Model is overloaded","error_type":"Overloaded"}'  # huggingface/text-embeddings-inference

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
    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """What `main` returns, on a loop of its own whose time is computed and begins at zero.

    A window asks how long its thread has worked, to tell a busy client from a slow endpoint; here work takes no time.
    """
    with mock.patch("time.thread_time", float), asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def now() -> float:
    """Seconds since the beginning."""
    return asyncio.get_running_loop().time()


# --- servers ---------------------------------------------------------------------------------------------------------


class Server:
    """An endpoint that serves whatever comes. Subclasses refuse, or get slow.

    Attributes:
        granted: (moment, cost) of each request served.
        refused: the moment of each refusal.
        later: what changes, and when: {300.0: {"rate": 25.0}}.
    """

    def __init__(
        self,
        seed: int,
        *,
        latency: float = LATENCY,
        spread: float = SPREAD,
        later: Mapping[float, dict[str, Any]] | None = None,
    ) -> None:
        self.random = random.Random(f"server {seed}")
        self.latency, self.spread = latency, spread
        self.later = dict(later or {})
        self.busy = 0
        self.granted: list[tuple[float, float]] = []
        self.refused: list[float] = []

    async def __call__(self, request: Request) -> Response:
        await self._travel()
        for moment in [each for each in self.later if each <= now()]:
            vars(self).update(self.later.pop(moment))
        cost = float(request.body)
        refusal = self.admit(now(), cost)
        if refusal is not None:
            self.refused.append(now())
            await self._travel()
            return refusal
        self.granted.append((now(), cost))
        self.busy += 1
        try:
            await asyncio.sleep(self.seconds() * self.random.lognormvariate(0.0, self.spread))
        finally:
            self.busy -= 1
        headers = self.headers(now())
        await self._travel()
        return Response(200, headers, b"")

    async def aclose(self) -> None:
        """Nothing is open."""

    async def _travel(self) -> None:
        await asyncio.sleep(self.random.uniform(0.5, 1.5) * WIRE)

    def admit(self, now: float, cost: float) -> Response | None:
        """None to serve, or the refusal."""
        return None

    def seconds(self) -> float:
        return self.latency

    def headers(self, now: float) -> dict[str, str]:
        return {}

    def use(self, start: float, stop: float) -> tuple[float, float]:
        """What was granted per second of that time, and the share of requests refused."""
        granted = [cost for moment, cost in self.granted if start <= moment < stop]
        refused = sum(start <= moment < stop for moment in self.refused)
        return sum(granted) / (stop - start), refused / max(1, refused + len(granted))


class Bucket(Server):
    """A token bucket: `rate` a second, `burst` after a rest, as
    OpenAI limits. Retry-After is in whole seconds, as theirs.

    `hints`: whether there is a Retry-After. `words`: of what there was too much. `tells`: "requests" or "tokens", and
    every answer says in x-ratelimit headers how full the bucket is.
    """

    def __init__(
        self,
        seed: int,
        rate: float,
        burst: float,
        *,
        hints: bool = True,
        words: bytes = b"",
        tells: str = "",
        **more: Any,
    ) -> None:
        super().__init__(seed, **more)
        self.rate, self.burst, self.hints, self.words, self.tells = rate, burst, hints, words, tells
        self.level, self.stamp = burst, 0.0

    def admit(self, now: float, cost: float) -> Response | None:
        self._refill(now)
        if self.level >= cost:
            self.level -= cost
            return None
        after = str(max(1, math.ceil((cost - self.level) / self.rate)))
        return Response(429, {"retry-after": after} if self.hints else {}, RATE_LIMITED % self.words)

    def headers(self, now: float) -> dict[str, str]:
        if not self.tells:
            return {}
        self._refill(now)
        return _report(self.tells, self.burst, self.level, f"{(self.burst - self.level) / self.rate:.3f}s")

    def _refill(self, now: float) -> None:
        self.level = min(self.burst, self.level + (now - self.stamp) * self.rate)
        self.stamp = now


class Calendar(Server):
    """`most` requests in each window of `every` seconds; who comes
    too late is sent to the next one. `tells`: as above.
    """

    def __init__(self, seed: int, most: int, every: float = 60.0, *, tells: str = "", **more: Any) -> None:
        super().__init__(seed, **more)
        self.most, self.every, self.tells = most, every, tells
        self.window, self.used = 0.0, 0.0

    def admit(self, now: float, cost: float) -> Response | None:
        left = self._left(now)
        if self.used + cost <= self.most:
            self.used += cost
            return None
        return Response(429, {"retry-after": str(math.ceil(left)), **self.headers(now)}, RATE_LIMITED % b"")

    def headers(self, now: float) -> dict[str, str]:
        left = self._left(now)
        return _report(self.tells, self.most, self.most - self.used, str(math.ceil(left))) if self.tells else {}

    def _left(self, now: float) -> float:
        window = now // self.every
        if window != self.window:
            self.window, self.used = window, 0.0
        return (window + 1) * self.every - now


class Capped(Server):
    """Refuses what comes while `cap` requests are being served, with the status, Retry-After and body given."""

    def __init__(
        self, seed: int, cap: int, *, status: int = 429, after: str = "", body: bytes = b"", **more: Any
    ) -> None:
        super().__init__(seed, **more)
        self.cap, self.status, self.after, self.body = cap, status, after, body

    def admit(self, now: float, cost: float) -> Response | None:
        if self.busy < self.cap:
            return None
        return Response(self.status, {"retry-after": self.after} if self.after else {}, self.body)


class Knee(Server):
    """Never refuses: up to `knee` requests are served side by side, beyond that they only take longer."""

    def __init__(self, seed: int, knee: float, **more: Any) -> None:
        super().__init__(seed, **more)
        self.knee = knee

    def seconds(self) -> float:
        return self.latency * max(1.0, self.busy / self.knee)


def _report(what: str, limit: float, remaining: float, reset: str) -> dict[str, str]:
    values = {"limit": str(int(limit)), "remaining": str(int(remaining)), "reset": reset}
    return {f"x-ratelimit-{name}-{what}": value for name, value in values.items()}


# --- clients ---------------------------------------------------------------------------------------------------------


class _Fixed(ConcurrencyLimit):
    """A window that learns nothing."""

    def on_success(self, now: float, seconds: float, busy: int) -> None:
        """As before."""

    def on_rejected(self, now: float, sent: float, busy: int) -> None:
        """As before."""

    def on_timeout(self, now: float, sent: float) -> None:
        """As before."""


class _Unpaced(Quota):
    """A pace that learns nothing: everyone retries alone."""

    def pause(self, now: float, seconds: float) -> None:
        """Nobody else waits."""

    def on_rejected(
        self,
        now: float,
        sent: float,
        tokens: int,
        *,
        what: str = "requests",
        cut: bool = True,
        before: float = 0.0,
        in_flight: int = 0,
        good: float = 0.0,
    ) -> None:
        """As before."""

    def update_from_headers(self, now: float, headers: Mapping[str, str]) -> None:
        """As before."""


Cost = tuple[int, int]  # of a request, in tokens: what it is, and what the client believes it to be


class Client:
    """One embedder's way to a server: as many workers as it may
    have requests in flight, each with always another one to send.

    Attributes:
        fixed: so many in flight, whatever comes, and no common pace: what to compare with.
        costs: of the next request; None where only requests count.
        rest: seconds for which a worker has nothing to do, given the time.
        done, lost: requests answered, and given up.
    """

    def __init__(
        self,
        server: Server,
        seed: int,
        *,
        fixed: int | None = None,
        rate: Rate | None = None,
        pace: Quota | None = None,
        costs: Callable[[random.Random], Cost] | None = None,
        rest: Callable[[float], float] | None = None,
    ) -> None:
        clock = asyncio.get_running_loop().time
        self.random = random.Random(f"client {seed}")
        self.window = ConcurrencyLimit(START, CEILING) if fixed is None else _Fixed(fixed, fixed)
        self.pace = pace or (Quota(rate) if fixed is None else _Unpaced())
        self.done = self.lost = 0
        self._tally = RequestCount(patient=True)  # as the workers of one bulk call
        self._workers = fixed or CEILING
        self._costs, self._rest = costs, rest
        self._transport = Transport(
            server, _unsigned, Limiter(self.window, self.pace, clock=clock, sleep=asyncio.sleep), RetryPolicy(),
            clock=clock, sleep=asyncio.sleep, jitter=self.random.random,
        )  # fmt: skip

    @property
    def allowed(self) -> float:
        """Requests (or tokens) per second that the pace found allows; infinite while it has found none."""
        return min((probe.rate(now()) for probe in self.pace._found.values() if probe.wall), default=math.inf)

    async def work(self, seconds: float) -> None:
        workers = [asyncio.create_task(self._work()) for _ in range(self._workers)]
        await asyncio.sleep(seconds)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            if self._rest is not None and (seconds := self._rest(now())) > 0:
                await asyncio.sleep(seconds)
            cost, believed = self._costs(self.random) if self._costs is not None else (1, 0)
            request = Request("http://simulated", str(cost).encode())
            try:
                await self._transport.send(request, _receive, self._tally, tokens=believed)
            except EmbedkitError:
                self.lost += 1
            else:
                self.done += 1
                self.pace.correct(now(), cost - believed)


async def _unsigned(request: Request) -> Request:
    return request


def _receive(response: Response) -> Response:
    if response.status != 200:
        raise error_from_response(response, provider="simulated", model="", message="", now=0.0)
    return response
