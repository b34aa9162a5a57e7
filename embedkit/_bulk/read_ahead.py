"""Reads a little ahead, in a thread that nobody waits for: a slow pipe or disk holds up nothing else."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")
AHEAD = 4  # items held at most


class ReadAhead(Generic[T]):
    """The items of an iterator, in order, for one task of an event loop.

    The thread is a daemon: where its source stays silent, neither `close` nor the interpreter at its end waits for it.
    """

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self._ready: deque[tuple[T | None, BaseException | None]] = deque()  # (None, None): the end
        self._room = threading.Semaphore(AHEAD)
        self._loop: Any = None
        self._waiter: Any = None
        self._closed = False

    async def next(self) -> T | None:
        """The next item; None at the end, or once it is closed. Raises what the iterator raised, in its place."""
        import asyncio

        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            threading.Thread(target=self._read, name="embedkit reader", daemon=True).start()
        while not self._ready:
            if self._closed:
                return None
            self._waiter = self._loop.create_future()
            if not self._ready and not self._closed:  # else it came before there was anybody to wake
                await self._waiter
        item, error = self._ready[0]
        if error is not None:
            raise error
        if item is not None:  # the end stays, for whoever asks again
            self._ready.popleft()
            self._room.release()
        return item

    def close(self) -> None:
        """Read no more; who waits gets None. Called on the event loop, and may be called twice."""
        self._closed = True
        self._room.release()
        self._wake()

    def _read(self) -> None:
        try:
            for item in self._items:
                self._room.acquire()
                if self._closed:
                    return
                self._put(item, None)
            self._put(None, None)
        except BaseException as error:  # noqa: BLE001 (raised where the item is asked for)
            self._put(None, error)

    def _put(self, item: T | None, error: BaseException | None) -> None:
        self._ready.append((item, error))
        if self._waiter is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


__all__ = ["AHEAD", "ReadAhead"]
