"""Lends connections: each to one thread at a time, and none is open while the process forks.

SQLite's connections do not survive a fork, not even unused ones (https://www.sqlite.org/howtocorrupt.html, section
2.6). So a fork waits for those that are lent, which takes milliseconds, and closes all; both processes open new ones.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar, cast
from weakref import WeakSet

C = TypeVar("C")
LONGEST = 5.0  # seconds that a fork waits for connections to come back


class Lending(Generic[C]):
    """Connections that are open and idle, and how many are lent.

    Args:
        opens: makes a connection.
        closes: closes one.
        fits: whether an idle one may still be used.
    """

    def __init__(self, opens: Callable[[], C], closes: Callable[[C], object], fits: Callable[[C], bool]) -> None:
        self._opens = opens
        self._closes = closes
        self._fits = fits
        self._turn = threading.Condition(threading.Lock())
        self._idle: list[C] = []
        self._lent = 0
        self._held = False  # for a fork
        _all.add(cast("Lending[object]", self))

    @contextmanager
    def one(self) -> Iterator[C]:
        """A connection, a new one where none is idle. One that something has failed on is closed, so that no
        transaction stays open.
        """
        found = self._take()
        try:
            if found is None:
                found = self._opens()
            yield found
        except BaseException:
            if found is not None:
                self._closes(found)
            self._put(None)
            raise
        self._put(found)

    @contextmanager
    def idle(self) -> Iterator[C | None]:
        """A connection that is open already, or None."""
        found = self._take()
        try:
            yield found
        except BaseException:
            if found is not None:
                self._closes(found)
            self._put(None)
            raise
        self._put(found)

    def close(self) -> None:
        """Close those that nobody uses."""
        with self._turn:
            idle, self._idle = self._idle, []
        for each in idle:
            self._closes(each)

    def _take(self) -> C | None:
        with self._turn:
            self._turn.wait_for(lambda: not self._held)
            self._lent += 1
            found = self._idle.pop() if self._idle else None
        if found is None or self._fits(found):
            return found
        self._closes(found)
        self.close()  # the others are of the same age
        return None

    def _put(self, connection: C | None) -> None:
        with self._turn:
            self._lent -= 1
            if connection is not None:
                self._idle.append(connection)
            self._turn.notify_all()

    # --- around a fork -----------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Lend nothing from now on, and close all."""
        self._turn.acquire()
        self._held = True
        self._turn.wait_for(lambda: not self._lent, LONGEST)
        for each in self._idle:
            self._closes(each)
        self._idle.clear()

    def resume(self, *, forgets: bool) -> None:
        """Lend again. `forgets`: whoever had one is not in this process."""
        if forgets:
            self._lent = 0
        self._held = False
        self._turn.notify_all()
        self._turn.release()


_all: WeakSet[Lending[object]] = WeakSet()
_held: list[Lending[object]] = []


def _before() -> None:
    for each in list(_all):
        each.hold()
        _held.append(each)


def _after(*, forgets: bool) -> None:
    while _held:
        _held.pop().resume(forgets=forgets)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before, after_in_parent=lambda: _after(forgets=False), after_in_child=lambda: _after(forgets=True)
    )
