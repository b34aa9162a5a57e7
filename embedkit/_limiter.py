"""Whose turn it is: concurrency slots, a rate, and a cool-down that stops everyone.

The arithmetic (`Bucket`, `Pace`) takes `now` and returns seconds to wait; the shell (`Limiter`) waits. Slots belong to one event
loop; a `Pace` holds only numbers behind a lock, so embedders on several loops and threads can share one.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from .errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import anyio


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """A quota to stay within. None: no such quota."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if value is not None and not (number and 0 < value < math.inf):
                msg = f"Rate({name}={value!r}): a rate is a positive number, or None for no such quota"
                raise ConfigError(msg)


class Bucket:
    """A token bucket that may go into debt: a reservation always succeeds, and says how long to wait before using it.

    Holds at most one second's worth (never less than `least`), since providers check per-minute quotas over windows of 1 to 10 s
    (Azure, wire reference 1A.4).
    """

    __slots__ = ("capacity", "level", "per_second", "stamp")

    def __init__(self, per_minute: float, least: float = 1.0) -> None:
        self.per_second = per_minute / 60.0
        self.capacity = max(self.per_second, least)
        self.level = self.capacity
        self.stamp: float | None = None

    def reserve(self, now: float, amount: float) -> float:
        """Take `amount`; the seconds until it is really there. Zero or negative amounts give some back."""
        if self.stamp is not None and now > self.stamp:
            self.level = min(self.capacity, self.level + (now - self.stamp) * self.per_second)
        self.stamp = now if self.stamp is None else max(now, self.stamp)
        self.level = min(self.capacity, self.level - amount)
        return max(0.0, -self.level / self.per_second)


class Pace:
    """What all callers of one quota share: a moment before which nobody sends, and the buckets of a `Rate`."""

    def __init__(self, rate: Rate | None = None) -> None:
        self._lock = threading.Lock()
        self._until = float("-inf")
        self._requests = Bucket(rate.requests_per_minute) if rate and rate.requests_per_minute else None
        self._tokens = Bucket(rate.tokens_per_minute) if rate and rate.tokens_per_minute else None

    def reserve(self, now: float, tokens: int) -> float:
        """Seconds before a request of so many tokens may go; it is counted at once, from the end of a cool-down if there is one."""
        with self._lock:
            start = max(now, self._until)
            wait = 0.0
            if self._requests is not None:
                wait = self._requests.reserve(start, 1)
            if self._tokens is not None:
                wait = max(wait, self._tokens.reserve(start, tokens))
            return start - now + wait

    def refund(self, now: float, tokens: int) -> None:
        """A reserved request was never sent. Without this, callers who lose patience would pile up debt that nobody used."""
        with self._lock:
            if self._requests is not None:
                self._requests.reserve(now, -1)
            if self._tokens is not None:
                self._tokens.reserve(now, -tokens)

    def blocked(self, now: float) -> float:
        """Seconds until the cool-down ends; nothing is counted."""
        return max(0.0, self._until - now)

    def pause(self, now: float, seconds: float) -> None:
        """Nobody sends for so many seconds from now. A shorter pause never ends a longer one."""
        with self._lock:
            self._until = max(self._until, now + seconds)

    def correct(self, now: float, tokens: int) -> None:
        """The provider counted so many tokens more (or, negative, fewer) than were reserved."""
        if self._tokens is not None:
            with self._lock:
                self._tokens.reserve(now, tokens)


class Limiter:
    """`await acquire(tokens)` before an exchange, `release()` after it; `pause(seconds)` stops everyone on the same pace."""

    def __init__(
        self, slots: int, pace: Pace, *, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self.slots = slots
        self.pace = pace
        self._clock = clock
        self._sleep = sleep
        self._busy = 0
        self._queue: deque[anyio.Event] = deque()

    async def acquire(self, tokens: int = 0) -> float:
        """Wait for a slot and for the pace; returns the seconds slept for the pace."""
        if self._busy >= self.slots or self._queue:
            await self._stand_in_line()
        else:
            self._busy += 1
        slept = 0.0
        wait = self.pace.reserve(self._clock(), tokens)
        try:
            while wait > 0:
                await self._sleep(wait)
                slept += wait
                wait = self.pace.blocked(self._clock())  # a pause may have come while we slept
        except BaseException:
            self.pace.refund(self._clock(), tokens)
            self.release()
            raise
        return slept

    def release(self) -> None:
        """Give the slot back; the first in line takes it."""
        if self._queue:
            self._queue.popleft().set()  # the slot passes on: _busy stays
        else:
            self._busy -= 1

    def pause(self, seconds: float) -> None:
        """Nobody on this pace sends for so many seconds."""
        self.pace.pause(self._clock(), seconds)

    async def _stand_in_line(self) -> None:
        import anyio

        turn = anyio.Event()
        self._queue.append(turn)
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self.release()
            else:
                self._queue.remove(turn)
            raise
