"""One timer for everything in flight: whoever is not done in time is cancelled.

All get the same number of seconds, so they are due in the order in which they began, and only the first has to be waited for. A timer of
its own for every request costs more than what goes around it (`asyncio.timeout`, aiohttp's `total`).
"""

from __future__ import annotations

import asyncio
from asyncio import current_task
from time import monotonic
from typing import cast


class Deadline:
    """`task = deadline.begin()` before what may take so many seconds, `deadline.end(task)` after it, whatever came of it."""

    __slots__ = ("_due", "_seconds", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due: dict[asyncio.Task[object], tuple[float, int]] = {}  # when, and how often it had been cancelled before
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> asyncio.Task[object]:
        """From now on this task has so many seconds."""
        task = cast("asyncio.Task[object]", current_task())
        self._due[task] = (monotonic() + self._seconds, task.cancelling())
        if self._timer is None:
            self._wait(self._seconds)
        return task

    def end(self, task: asyncio.Task[object]) -> bool:
        """It has ended, somehow. True where it was cancelled here, and by nobody else: then that was the end of its time."""
        when, before = self._due.pop(task)
        return when < 0 and task.uncancel() <= before

    def _wait(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._strike)

    def _strike(self) -> None:
        self._timer = None
        now = monotonic()
        for task, (when, before) in self._due.items():
            if when > now:
                self._wait(when - now)
                return
            if when >= 0:
                self._due[task] = (-1.0, before)
                task.cancel()

    def close(self) -> None:
        """Leave no timer behind; what is in flight has all the time of the world."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


__all__ = ["Deadline"]
