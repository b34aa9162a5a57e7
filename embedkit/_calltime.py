"""The time of one call that has a limit: when it is over, how much is left, and where it went.

Made only for a call with `total_timeout=` or `timeout=` of its own, so that all others pay nothing. Seconds are those
of the event loop's clock, on asyncio and on trio. Of several requests side by side the time counts as waiting for an
answer while one is on its way, else as waiting for a turn while one waits for that, else as lying between tries: so the
parts add up to the whole.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, TypeVar

from ._values import shown
from .errors import ConfigError, RateLimitError, TransportTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence
    from typing import Self

T = TypeVar("T")
ANSWER, TURN, PAUSE, ELSE = range(4)
WHERE = ("for an answer", "for a turn", "between tries", "elsewhere")
SHOWN = 0.01  # of the whole time: less is not worth a word
UNLIMITED = ("total_timeout", "read_timeout")  # without one there is no limit
YEARS = 1e10  # seconds; a larger number is no time that anybody waits


def seconds(name: str, value: object) -> float:
    """The value, if it is a positive number of seconds; else a ConfigError that names the option."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < value < YEARS:  # type: ignore[operator]
        without = "no limit" if name in UNLIMITED else "the default"
        msg = f"{name}={shown(value)}: a positive number of seconds, and a finite one; leave it out for {without}"
        raise ConfigError(msg)
    return float(value)


class CallTime:
    """The limits of one call, and where its time went: `begin(phase)` and `end(phase)` stand around every wait.

    Attributes:
        total: seconds for the whole call; None: no limit.
        timeout: seconds of one attempt; None: as the embedder says.
        attempts: requests sent so far.
        failure: what kind the last attempt's was; empty where none has failed. No error is kept: its traceback knows
            who keeps it.
        cut: it was cut off.
        ends: when it is over.
    """

    __slots__ = (
        "_began",
        "_binds",
        "_open",
        "_seen",
        "_shared",
        "_spent",
        "attempts",
        "cut",
        "ends",
        "failure",
        "timeout",
        "total",
    )

    def __init__(self, total: float | None, timeout: float | None) -> None:
        import anyio

        self.total: float | None = None if total is None else seconds("total_timeout", total)
        self.timeout: float | None = None if timeout is None else seconds("timeout", timeout)
        self.attempts: int = 0
        self.failure: str = ""
        self.cut: bool = False
        self._began = self._seen = anyio.current_time()
        self.ends: float = math.inf if self.total is None else self._began + self.total
        self._binds = self.total is not None  # it is cut off here
        self._open = [0, 0, 0]
        self._spent = [0.0, 0.0, 0.0, 0.0]
        self._shared: CallTime | None = None  # of the request that it shares with other calls

    @classmethod
    def of_several(cls, calls: Sequence[CallTime | None], timeout: float | None) -> Self | None:
        """The time of a request that several calls share: as long as the longest of them, which leave it one by one."""
        known = [each for each in calls if each is not None]
        if not known:
            return None
        shared = cls(None, timeout)
        shared.ends = max(each.ends for each in known) if len(known) == len(calls) else math.inf
        for each in known:
            each.join(shared)
        return shared

    def join(self, shared: CallTime) -> None:
        """From now on the time goes where that of the request goes that it shares with other calls."""
        self._note()
        self._open, self._shared = [0, 0, 0], shared

    def leave(self) -> None:
        """Share no longer."""
        if self._shared is not None:
            self.attempts, self.failure = self._attempts(), self._shared.failure or self.failure
            self._spent, self._seen, self._shared = self.spent(), self._now(), None

    def left(self) -> float:
        """Seconds until the call is over; infinite where it has no end."""
        return self.ends - self._now() if self.ends < math.inf else math.inf

    def begin(self, phase: int) -> None:
        """A request of this call waits for that from now on."""
        self._note()
        self._open[phase] += 1
        if phase == ANSWER:
            self.attempts += 1

    def end(self, phase: int) -> None:
        """It waits no more."""
        self._note()
        self._open[phase] -= 1

    async def within(self, work: Awaitable[T]) -> T:
        """What `work` gives; cut off, and TransportTimeoutError, when the call is over."""
        import anyio

        try:
            with anyio.CancelScope(deadline=self.ends if self._binds else math.inf):
                return await work
        finally:
            del work  # it may know its error, and that this frame
        self.cut = True
        raise self.over()

    async def attempt(self, work: Awaitable[T]) -> T:
        """The result of an attempt; a TransportTimeoutError, which may be retried, once it has taken too long."""
        if self.timeout is None:
            return await work
        import anyio

        with anyio.move_on_after(self.timeout):
            return await work
        msg = f"no answer within timeout={self.timeout:g} s of one attempt; raise timeout= or send smaller batches"
        raise TransportTimeoutError(msg)

    def refuse(self, wait: float) -> None:
        """Raise the error of a rate limit that makes the next request wait for longer than the call has left."""
        left = self.left()
        if wait <= 0 or wait < left:
            return
        msg = (
            "a rate limit (told by rate=, reported by the provider, or found from its refusals) keeps the next "
            "request waiting for "
            f"{wait:.1f} s, and this call has {max(0.0, left):.1f} s left"
        )
        raise RateLimitError(msg, retryable=True, retry_after=wait)

    def so_far(self) -> tuple[int, float]:
        """The requests sent, and the seconds since the call began."""
        return self._attempts(), self._now() - self._began

    def over(self) -> TransportTimeoutError:
        """The error of a call whose time is over: it says where the time went."""
        spent, (attempts, elapsed) = self.spent(), self.so_far()
        told = [(phase, part) for phase, part in enumerate(spent) if part > max(SHOWN * elapsed, 0.005)]
        where = ", ".join(f"{_short(part)} s {WHERE[phase]}" for phase, part in sorted(told, key=lambda each: -each[1]))
        sent = "" if attempts > 1 else "; sent once" if attempts else "; nothing was sent"
        msg = f"no answer within total_timeout={self.total:g} s: it waited {where or 'not at all'}{sent}{self._last()}"
        error = TransportTimeoutError(msg, retryable=False)
        error.sent = attempts > 0
        error.attempts, error.elapsed = attempts, elapsed
        return error

    def _last(self) -> str:
        failure = (self._shared.failure if self._shared is not None else "") or self.failure
        return f"; the last failure was {failure}" if failure else ""

    def _attempts(self) -> int:
        return self.attempts + (self._shared.attempts if self._shared is not None else 0)

    def spent(self) -> list[float]:
        """Seconds that went to each phase, and elsewhere."""
        if self._shared is None:
            self._note()
            return self._spent
        return [one + other for one, other in zip(self._spent, self._shared.spent(), strict=True)]

    def _note(self) -> None:
        now = self._now()
        phase = next((phase for phase in (ANSWER, TURN, PAUSE) if self._open[phase]), ELSE)
        self._spent[phase] += now - self._seen
        self._seen = now

    def _now(self) -> float:
        import anyio

        return anyio.current_time()


def _short(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


__all__ = ["ANSWER", "PAUSE", "TURN", "CallTime", "seconds"]
