"""The portal: one thread per process with an event loop in it, and a way to call into it from any other thread.

Calls made here end in order: an interrupt in the waiting thread cancels the call, the end of the interpreter cancels all calls, then
closes what the callers have open, then ends the loop. A forked child starts with a portal of its own.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401 (loops need it, and a thread that outlives the main one could not import it)
import contextlib
import os
import threading
import weakref
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .errors import ClosedError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

T = TypeVar("T")
GRACE = 5.0  # seconds that closing may take at interpreter exit
_ENDING = "the interpreter is shutting down, and this call with it"


class User(Protocol):
    """Who calls. At the end of the interpreter its embedder is closed on the loop."""

    embedder: Any


class Portal:
    """The thread and its loop; started by the first call, once per process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._running: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._users: weakref.WeakSet[User] = weakref.WeakSet()
        self.over = False

    def start(self, user: User, function: Callable[..., Awaitable[T]], *args: Any) -> Future[T]:
        """Begin a call on the loop."""
        import asyncio

        if threading.current_thread() is self._thread:
            msg = "a sync call was made on embedkit's own event loop, where it would wait for itself; use the async embedder there"
            raise RuntimeError(msg)
        loop, _ = self._opened().result()
        with self._lock:
            self._check()  # nothing is handed to a loop that has ended
            self._users.add(user)
            return asyncio.run_coroutine_threadsafe(_carried(function, *args), loop)

    def finish(self, call: Future[T]) -> T:
        """What the call gave; an interrupt while waiting cancels it."""
        try:
            return call.result()
        except _Escape as escape:
            raise escape.error from None
        except CancelledError:
            raise ClosedError(_ENDING if self.over else "the call was cancelled on embedkit's event loop") from None
        except BaseException:
            call.cancel()
            raise

    def _opened(self) -> Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]:
        with self._lock:
            self._check()
            failed = self._running.done() and self._running.exception() is not None
            if failed or self._thread is None or not self._thread.is_alive():
                self._running = Future()
                thread = threading.Thread(target=_run, args=(self, self._running), daemon=True, name="embedkit")
                thread.start()
                self._thread = thread
                atexit.register(self.stop)
            return self._running

    def _check(self) -> None:
        if self.over:
            raise ClosedError(_ENDING)

    def users(self) -> list[User]:
        """The embedders that may have sockets open here."""
        with self._lock:
            return list(self._users)

    def stop(self) -> None:
        """End running calls, close every embedder, end the loop."""
        with self._lock:
            self.over = True
        if self._thread is not None and self._thread.is_alive():
            with contextlib.suppress(Exception):
                loop, stopping = self._running.result(GRACE)
                loop.call_soon_threadsafe(stopping.set)
            self._thread.join(GRACE)


class _Escape(Exception):  # noqa: N818 (carries an error, is none)
    """Carries from thread to thread what would end the loop if it were raised there: a `sys.exit()` in an `embed_batch`."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


async def _carried(function: Callable[..., Awaitable[T]], *args: Any) -> T:
    try:
        return await function(*args)
    except (KeyboardInterrupt, SystemExit) as error:
        raise _Escape(error) from None


def _run(portal: Portal, running: Future[Any]) -> None:
    import asyncio

    try:
        with asyncio.Runner(debug=False, loop_factory=_faster()) as runner:
            runner.run(_serve(portal, running))
    except BaseException as error:
        if running.done():
            raise
        running.set_exception(error)  # the first caller hears of it


def _faster() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The loop is ours, so the faster one may be taken where it is installed."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop


async def _serve(portal: Portal, running: Future[Any]) -> None:
    import asyncio

    stopping = asyncio.Event()
    running.set_result((asyncio.get_running_loop(), stopping))
    await stopping.wait()
    calls = asyncio.all_tasks() - {asyncio.current_task()}
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    for user in portal.users():
        with contextlib.suppress(Exception):
            await user.embedder.aclose()


_portal = Portal()


def current() -> Portal:
    """The portal of this process."""
    return _portal


def _after_fork() -> None:
    global _portal  # noqa: PLW0603 (the child's own: the parent's thread did not come along)
    atexit.unregister(_portal.stop)
    _portal = Portal()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
