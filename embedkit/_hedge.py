"""Hedging: a request that is late beyond nearly all others is sent a second time, and the first answer counts.

An exchange around an exchange. What is late is learned from the answers themselves, apart by size of request; how often is bounded by
a budget, so that an endpoint which is slow altogether is not asked twice for everything.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._transport import Exchange
    from ._types import Request, Response

QUANTILE = 0.95
LEAST, MOST = 20, 200  # answers before anything counts as late; that are remembered
BURST = 5.0  # most second requests that may be saved up


class Lateness:
    """How long nearly all of the last answers took."""

    def __init__(self) -> None:
        self._order: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, seconds: float) -> None:
        """One more answer; beyond MOST the oldest is forgotten."""
        self._order.append(seconds)
        insort(self._sorted, seconds)
        if len(self._order) > MOST:
            del self._sorted[bisect_left(self._sorted, self._order.popleft())]

    def late(self) -> float | None:
        """Seconds after which an answer is late; None while too little is known."""
        return self._sorted[int(len(self._sorted) * QUANTILE)] if len(self._sorted) >= LEAST else None


class Budget:
    """Second requests as a share of all requests."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._credit = 0.0

    def earn(self) -> None:
        """A first request was sent."""
        self._credit = min(BURST, self._credit + self._share)

    def spend(self) -> bool:
        """True where a second one may be."""
        if self._credit < 1:
            return False
        self._credit -= 1
        return True


class Hedged:
    """An exchange that sends late requests twice; the one that loses is cancelled."""

    def __init__(self, exchange: Exchange, share: float, *, clock: Callable[[], float]) -> None:
        self.inner = exchange
        self._budget = Budget(share)
        self._clock = clock
        self._known: dict[int, Lateness] = {}  # by the power of two of the request's size

    async def __call__(self, request: Request) -> Response:
        """Send, and once more if it is late."""
        self._budget.earn()
        lateness = self._known.setdefault(len(request.body).bit_length(), Lateness())
        late = lateness.late()
        started = self._clock()
        response = await (self.inner(request) if late is None else self._race(request, late))
        lateness.add(self._clock() - started)
        return response

    async def _race(self, request: Request, late: float) -> Response:
        import anyio

        answers: list[Response] = []
        failures: list[Exception] = []
        sent, decided = 1, anyio.Event()

        async def one() -> None:
            try:
                answers.append(await self.inner(request))
            except Exception as error:  # noqa: BLE001 (raised below, where no other answer comes)
                failures.append(error)
            if answers or len(failures) == sent:
                decided.set()

        async with anyio.create_task_group() as group:
            group.start_soon(one)
            with anyio.move_on_after(late):
                await decided.wait()
            if not decided.is_set() and self._budget.spend():
                sent = 2
                group.start_soon(one)
            await decided.wait()
            group.cancel_scope.cancel()
        if not answers:
            raise failures[0]
        return msgspec.structs.replace(answers[0], requests=sent)

    async def aclose(self) -> None:
        """Close what is open."""
        await self.inner.aclose()
