"""Hedging: a request that is late beyond nearly all others is sent a second time, and the first good answer counts.

What is late is learned from the answers themselves, apart by size of request; how often is bounded by a budget, so that
an endpoint which is slow altogether is not asked twice for everything. A second request cannot be sent before the first
is known to be late, so a stalled answer takes that long and then as long as another: about twice the usual time,
instead of ten times.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from typing import TYPE_CHECKING

from .._types import Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# A request is late if it is slower than all but `0.7 * share` of the recent ones. With 1.0 the hedging budget would
# often be empty when it is needed.
LATE_SHARE = 0.7
MIN_SAMPLES = 20  # no request is late before so many answers
MAX_SAMPLES = 500  # older ones are dropped
BURST = 5.0  # most second requests that may be saved up
LEAST_PAUSE = 0.001  # seconds; nothing sooner is late


class Lateness:
    """How long nearly all of the last answers took.

    Args:
        share: of the answers that count as late.
    """

    def __init__(self, share: float) -> None:
        self._quantile = 1 - share
        self._order: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, seconds: float) -> None:
        """One more answer; beyond MOST the oldest is forgotten."""
        self._order.append(seconds)
        insort(self._sorted, seconds)
        if len(self._order) > MAX_SAMPLES:
            del self._sorted[bisect_left(self._sorted, self._order.popleft())]

    def late(self) -> float | None:
        """Seconds after which an answer is late; None while too little is known."""
        return self._sorted[int(len(self._sorted) * self._quantile)] if len(self._sorted) >= MIN_SAMPLES else None


class HedgeBudget:
    """Second requests as a share of all first ones."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._credit = 0.0

    def earn(self) -> None:
        """A first request was sent."""
        self._credit = min(BURST, self._credit + self._share)

    @property
    def left(self) -> bool:
        """Whether a second one may be sent."""
        return self._credit >= 1

    def spend(self) -> None:
        """A second one was sent."""
        self._credit -= 1


class Hedge:
    """Sends late requests twice. The one that loses is cancelled; a refusal loses to any answer still to come.

    Args:
        share: most second requests, as a share of all first ones.
        clock: seconds.
    """

    def __init__(self, share: float, *, clock: Callable[[], float]) -> None:
        self._budget = HedgeBudget(share)
        self._late = LATE_SHARE * share
        self._clock = clock
        self._known: dict[int, Lateness] = {}  # by the power of two of the request's size

    async def __call__(self, send: Callable[[], Awaitable[Response]], size: int, again: Callable[[], bool]) -> Response:
        """What `send()` answers to a request of so many bytes. `again()` says whether a second one may go."""
        self._budget.earn()
        lateness = self._known.setdefault(size.bit_length(), Lateness(self._late))
        late = lateness.late()
        started = self._clock()
        response = await (send() if late is None else self._race(send, late, again))
        if _good(response):
            lateness.add(self._clock() - started)
        return response

    async def _race(self, send: Callable[[], Awaitable[Response]], late: float, again: Callable[[], bool]) -> Response:
        import anyio

        results: list[Response | BaseException] = []
        sent, decided = 1, anyio.Event()

        async def one() -> None:
            try:
                results.append(await send())
            except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001 (raised below)
                results.append(error)
            if len(results) == sent or _good(results[-1]):
                decided.set()

        async with anyio.create_task_group() as group:
            group.start_soon(one)
            pause = max(late, LEAST_PAUSE)
            while sent == 1 and not decided.is_set():
                with anyio.move_on_after(pause):
                    await decided.wait()
                pause *= 2  # where it may not be sent yet
                if not decided.is_set() and self._budget.left and again():
                    self._budget.spend()
                    sent = 2
                    group.start_soon(one)
            await decided.wait()
            group.cancel_scope.cancel()
        found = next(filter(_good, results), results[0])
        results.clear()
        if isinstance(found, BaseException):
            try:
                raise found
            finally:
                del found  # it knows this frame
        return found


def _good(found: Response | BaseException) -> bool:
    """Whether it ends the race. What is refused, or breaks, does not while another answer may come."""
    return found.ok if isinstance(found, Response) else not isinstance(found, Exception)
