"""Whose turn it is: a place within the window, then the moment the pace allows.

The shell around two pieces of arithmetic: a `Window` says how many may be in flight and belongs to one event loop; a `Pace` says when,
and is shared with everyone who spends the same quota. Only here does anyone wait.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ._pace import LEFT, MOST_TOKENS, REQUESTS, TOKENS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import anyio

    from ._pace import Pace
    from ._window import Window


# By how much fewer must do, for too many at once to be blamed: none (and Little's law may be off a little), or clearly, where the
# provider says when to come back, as it does for too many a minute.
FEWER, CLEARLY = 0.95, 1.5


class Limiter:
    """`enter()`, or else `await acquire(tokens)`, before an exchange, what came of it to `answered`, `refused`, `crowded` or `late`, then `release()`."""

    def __init__(
        self, window: Window, pace: Pace, *, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self.window = window
        self.pace = pace
        self._clock = clock
        self._sleep = sleep
        self._busy = 0  # places taken, by requests in flight and by those that still wait for the pace
        self.flying = 0  # requests on their way
        self._queue: deque[anyio.Event] = deque()

    def enter(self) -> bool:
        """Take a place without waiting, where there is one and nothing is paced; else `acquire` it."""
        if self._busy >= self.window.size or self._queue or not self.pace.free(self._clock()):
            return False
        self._busy += 1
        self.flying += 1
        return True

    async def acquire(self, tokens: int = 0) -> float:
        """Wait for a place and for the pace; returns the seconds slept for the pace."""
        if self._busy >= self.window.size or self._queue:
            await self._stand_in_line()
        else:
            self._busy += 1
        wait = self.pace.reserve(self._clock(), tokens)
        slept = await self._wait(wait, tokens) if wait > 0 else 0.0
        self.pace.sent(tokens)
        self.flying += 1
        return slept

    async def _wait(self, wait: float, tokens: int) -> float:
        """Sleep so long, and as much longer as pauses come meanwhile; the seconds slept."""
        slept, paused = 0.0, self.pace.paused
        try:
            while wait > 0:
                await self._sleep(wait)
                slept += wait
                wait, paused = self.pace.paused - paused, self.pace.paused
        except BaseException:
            self.pace.refund(self._clock(), tokens)
            self._leave()
            raise
        return slept

    def spare(self, tokens: int = 0) -> bool:
        """Whether one more request may go at once, beside the window but within the pace; then it is counted."""
        now = self._clock()
        if self.pace.reserve(now, tokens) <= 0:
            self.pace.sent(tokens)
            return True
        self.pace.refund(now, tokens)
        return False

    def answered(self, sent: float, seconds: float, busy: int) -> None:
        """A good answer after so many seconds, to a request that made `busy` in flight."""
        self.window.answered(sent + seconds, seconds, busy)

    def refused(self, sent: float, busy: int, tokens: int, *, hint: float | None, about: str | None) -> bool:
        """A 429 to a request of so many tokens that made `busy` in flight. `hint`: seconds to stay away; `about`: too much of what.

        Too many a minute, or too many at once? Where nothing tells, the first is taken for both. Then Little's law: if one fewer in
        flight would carry what is granted, there were too many; else they came too fast.

        Returns:
            whether everyone should wait.
        """
        now = self._clock()
        if about == "concurrency":
            self.window.refused(now, sent, busy)
            return hint is not None or busy <= 1  # there is nothing left to make smaller
        first = not self.pace.tried
        needed = self.pace.granted(now) * self.window.seconds  # in flight, by Little's law
        spare = about is None and busy > 1 and busy - 1 >= needed * (FEWER if hint is None else CLEARLY) > 0
        cut = first or hint is not None or not spare
        self.pace.refused(now, sent, tokens, what=TOKENS if about == TOKENS else REQUESTS, cut=cut)
        if first:
            self.window.late(now, sent)
        elif spare:
            self.window.refused(now, sent, busy)
        return first or hint is not None

    def crowded(self, sent: float, busy: int) -> None:
        """The endpoint says that it has too much to do: fewer at once."""
        self.window.refused(self._clock(), sent, busy)

    def late(self, sent: float) -> None:
        """No answer in time: far fewer at once."""
        self.window.late(self._clock(), sent)

    def pause(self, seconds: float) -> None:
        """Nobody on this pace sends for so many seconds."""
        self.pace.pause(self._clock(), seconds)

    def heed(self, headers: Mapping[str, str]) -> None:
        """Learn from a response what is left of a quota."""
        if LEFT[0] in headers or LEFT[1] in headers or MOST_TOKENS in headers:
            self.pace.heed(self._clock(), headers)

    def release(self) -> None:
        """Give the place back."""
        self.flying -= 1
        self._leave()

    def _leave(self) -> None:
        """Whoever is first in line takes the place, and more may come where the window has grown."""
        self._busy -= 1
        while self._queue and self._busy < self.window.size:
            self._busy += 1
            self._queue.popleft().set()

    async def _stand_in_line(self) -> None:
        import anyio

        turn = anyio.Event()
        self._queue.append(turn)
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self._leave()
            else:
                self._queue.remove(turn)
            raise
