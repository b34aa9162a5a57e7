"""One timer for everything in flight: whoever is not done in time is cancelled.

All get the same number of seconds, so they are due in the order in which they began, and only the first has to be
waited for. A timer of its own for every request costs more than what goes around it (`asyncio.timeout`, aiohttp's
`total`).
"""

from __future__ import annotations

import asyncio
from asyncio import current_task
from time import monotonic
from typing import cast


class Deadline:
    """`ticket = deadline.begin()` before what may take so many seconds, `deadline.end(ticket, error)` after it."""

    __slots__ = ("_due", "_ticket", "_timer", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        # Ticket → when, by how many cancellations the task was troubled before, and the task.
        self._due: dict[int, tuple[float, int, asyncio.Task[object]]] = {}
        self._ticket = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> int:
        """From now on the running task has so many seconds."""
        task = cast("asyncio.Task[object]", current_task())
        self._ticket = ticket = self._ticket + 1
        self._due[ticket] = (monotonic() + self.seconds, task.cancelling(), task)
        if self._timer is None:
            self._wait(self.seconds)
        return ticket

    def end(self, ticket: int, error: BaseException | None = None) -> bool:
        """Unregister the ticket. True if `error` is the cancellation that only this timer asked for: a timeout."""
        when, before, task = self._due.pop(ticket)
        return when < 0 and task.uncancel() <= before and isinstance(error, asyncio.CancelledError)

    def _wait(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._strike)

    def _strike(self) -> None:
        self._timer = None
        now = monotonic()
        for ticket, (when, before, task) in self._due.items():
            if when > now:
                self._wait(when - now)
                return
            if when >= 0:
                self._due[ticket] = (-1.0, before, task)
                task.cancel()

    def close(self) -> None:
        """Leave no timer behind, unless somebody is still in flight: they keep their end, and the timer with them."""
        if self._timer is not None and not self._due:
            self._timer.cancel()
            self._timer = None


__all__ = ["Deadline"]
