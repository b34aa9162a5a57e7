"""The calls of one embedder that are in flight, so that closing it can end them.

Closing ends every call at once, wherever it waits: for a turn, for an answer, between two tries, for company, for an
endpoint of a pool. The call is cancelled and raises `ClosedError` in place of the cancellation, which its caller never
asked for; whoever knows what has been sent of it, and what has come in, raises that first (`closing`). On asyncio the
task is cancelled as `asyncio.timeout` does it, with `Task.uncancel`, which costs a call almost nothing; elsewhere a
cancel scope does the same.
https://docs.python.org/3/library/asyncio-task.html#asyncio.Task.uncancel
"""

from __future__ import annotations

import contextlib
import sys
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from ._loops import this_loop
from ._peers import improved
from .errors import ClosedError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Coroutine

    import anyio

P = ParamSpec("P")
T = TypeVar("T")
CLOSED = "the embedder was closed before this call was answered; a call made after it opens the embedder again"


class _OpenCall:
    """One call: the loop it is on, and what ends it."""

    __slots__ = ("before", "ended", "gone", "loop", "number", "scope", "task")

    def __init__(
        self, loop: object, task: asyncio.Task[Any] | None, scope: anyio.CancelScope | None, number: int
    ) -> None:
        self.loop = loop
        self.number = number  # of the task, as anyio has it
        self.task = task
        self.before = task.cancelling() if task is not None else 0  # by others
        self.scope = scope
        self.ended = False  # by us
        self.gone: anyio.Event | None = None  # set when it is over, where somebody waits for that

    def end(self) -> None:
        self.ended = True
        _ending[self.number] = self
        if self.task is not None:
            self.task.cancel()
        elif self.scope is not None:
            self.scope.cancel()


_ending: dict[int, _OpenCall] = {}  # those ended that are not over yet, by their task


def closing() -> ClosedError | None:
    """What a cancellation of the running task, or of the one that has started it, becomes: the error of a call whose
    embedder was closed, to be told what is known of the call; None where it is not (only) that.
    """
    if not _ending:
        return None
    import anyio

    running = anyio.get_current_task()
    call = _ending.get(running.id) or _ending.get(running.parent_id or 0)
    if call is None or (call.task is not None and call.task.cancelling() > call.before + 1):
        return None
    return ClosedError(CLOSED)


class Calls:
    """Who is in flight, on any event loop."""

    def __init__(self) -> None:
        self._open: set[_OpenCall] = set()

    async def run(self, work: Awaitable[T]) -> T:
        """Await `work` as a call of this embedder.

        Raises:
            ClosedError: the embedder was closed meanwhile.
        """
        task = _task()
        if task is None:
            return await self._scoped(work)
        self._open.add(call := _OpenCall(task.get_loop(), task, None, id(task)))
        try:
            result = await work
        except BaseException as error:
            # As with a timeout: where others cancelled the task too, the cancellation is theirs.
            if call.ended and task.uncancel() <= call.before and type(error).__name__ == "CancelledError":
                raise ClosedError(CLOSED) from None
            raise
        else:
            if call.ended:
                task.uncancel()  # it could not be interrupted
            return result
        finally:
            self._over(call)

    async def _scoped(self, work: Awaitable[T]) -> T:
        import anyio

        with anyio.CancelScope() as scope:
            self._open.add(call := _OpenCall(this_loop(), None, scope, anyio.get_current_task().id))
            try:
                return await work
            finally:
                self._over(call)
        raise ClosedError(CLOSED)

    def _over(self, call: _OpenCall) -> None:
        self._open.discard(call)
        if call.ended:
            _ending.pop(call.number, None)
        if call.gone is not None:
            with contextlib.suppress(RuntimeError):  # the loop may be closed by now
                call.gone.set()

    async def end(self) -> None:
        """End every call on this event loop, but for one that asks for it itself, and return when they are over.

        Calls that begin meanwhile are ended too, and not waited for: a caller that calls again at once would keep this
        from returning.
        """
        for call in (ending := self._strike()):
            if call.gone is not None:
                await call.gone.wait()
        if ending:
            self._strike()

    def _strike(self) -> list[_OpenCall]:
        loop, task = this_loop(), _task()
        found = [
            call for call in list(self._open)
            if call.loop == loop and not call.ended and (task is None or call.task is not task)
        ]  # fmt: skip
        if found:
            import anyio

            for call in found:
                call.gone = anyio.Event()
                call.end()
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return Calls, ()  # a copy, or one in another process, has none


def until_closed(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """A method of an embedder whose calls end when it is closed."""

    @wraps(method)
    async def called(self: Any, /, *args: P.args, **keywords: P.kwargs) -> T:
        calls: Calls = self._calls
        try:
            made = method(self, *args, **keywords)
        except TypeError as error:  # of the arguments: the coroutine has not begun
            raise improved(error, method, keywords) from None
        return await calls.run(made)

    return called


def ending_calls(closes: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Coroutine[Any, Any, None]]:
    """An `aclose` that ends the calls in flight before it does anything else."""

    @wraps(closes)
    async def aclose(self: Any) -> None:
        await self._calls.end()
        await closes(self)

    return aclose


def _task() -> asyncio.Task[Any] | None:
    """The running task; None off asyncio."""
    asyncio = sys.modules.get("asyncio")
    try:
        return asyncio.current_task() if asyncio is not None else None
    except RuntimeError:
        return None


__all__ = ["CLOSED", "Calls", "closing", "ending_calls", "until_closed"]
