"""Workers that share one iterator of slices, and a stack for pieces that come back smaller.

A worker leaves when both are empty and nothing is in flight: until then a piece may still come back. There
are no waves and no task per slice: each worker starts the next as soon as it has something to do itself.
Knows slices only, nothing of texts or vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._values import shown
from ..errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    import anyio
    from anyio.abc import TaskGroup

    Work = Callable[[slice, int], Awaitable[None]]


class WorkerPool:
    """Gives out every slice once, and what comes back of it.

    Attributes:
        proven: the work succeeds at all, so that everyone may start.
        reached: where the last slice that was given out ends.
    """

    def __init__(self, slices: Iterator[slice]) -> None:
        self.proven = False
        self.reached = 0
        self._slices = slices
        self._pieces: list[tuple[slice, int]] = []  # a stack: depth first, a bad text stands alone soonest
        self._in_flight = 0
        self._running = 0  # workers running
        self._most = 0  # most workers
        self._first = 0  # most workers until the first success
        self._changed: anyio.Event | None = None
        self._error: BaseException | None = None

    async def run(self, work: Work, workers: int, first: int | None = None) -> None:
        """Do `work(part, late)` for every slice, where `late` is how often the part was late before.

        There are so many workers (`first`: until the work is proven).
        The first error stops everyone and is raised as it is.
        """
        check_workers(workers)
        self._most, self._first = workers, min(workers, first or workers)
        head = self._next()
        if head is None:
            return
        if workers == 1:
            self._pieces.append(head)
        else:
            second = self._next()
            if second is None:
                await work(*head)  # one slice needs no task group
            else:
                self._pieces += (second, head)
        await (self._together(work) if self._pieces and workers > 1 else self._run_batches(work, None))

    def push_back(self, pieces: Iterable[slice], late: int = 0) -> None:
        """These come back, to be done next, in their order."""
        self._pieces += ((piece, late) for piece in reversed(list(pieces)))

    def replace_rest(self, slices: Iterator[slice]) -> None:
        """Go on with these instead of what the iterator has left."""
        self._slices = slices

    def finish(self) -> None:
        """Give out nothing more; what is in flight comes to its end."""
        self._slices = iter(())
        self._pieces.clear()

    async def _together(self, work: Work) -> None:
        import anyio

        self._running = 0
        async with anyio.create_task_group() as group:
            self._start_worker(work, group)
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _start_worker(self, work: Work, group: TaskGroup | None) -> None:
        if group is not None and self._running < (self._most if self.proven else self._first):
            self._running += 1
            group.start_soon(self._worker, work, group)

    async def _worker(self, work: Work, group: TaskGroup) -> None:
        try:
            await self._run_batches(work, group)
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001 (raised by `_together`)
            # Kept aside rather than raised: a task group would wrap it, and users write `except ApiError`.
            self._error = self._error or error
            group.cancel_scope.cancel()

    async def _run_batches(self, work: Work, group: TaskGroup | None) -> None:
        while True:
            found = self._next()
            if found is not None:
                self._in_flight += 1
                self._start_worker(work, group)
                try:
                    await work(*found)
                finally:
                    self._in_flight -= 1
                    if self._changed is not None:
                        self._changed.set()
                        self._changed = None
            elif self._in_flight:
                await self._change()  # what is in flight may come back in pieces
            else:
                return

    def _next(self) -> tuple[slice, int] | None:
        if self._pieces:
            return self._pieces.pop()
        part = next(self._slices, None)
        if part is None:
            return None
        self.reached = part.stop
        return part, 0

    async def _change(self) -> None:
        if self._changed is None:
            import anyio

            self._changed = anyio.Event()
        await self._changed.wait()


def check_workers(workers: int) -> None:
    """ConfigError where so many workers would never send anything."""
    if not isinstance(workers, int) or workers < 1:
        msg = f"max_concurrency={shown(workers)}: nothing would ever be sent; it is a whole number of at least 1"
        raise ConfigError(msg)
