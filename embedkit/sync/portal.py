"""The portal: one thread per process with an event loop in it, and a way to call into it from any other thread.

Calls made here end in order: an interrupt in the waiting thread cancels the call, the end of the interpreter cancels
all calls, then closes what the callers have open, then ends the loop. A forked child starts with a portal of its own.

Where gevent or eventlet has patched `threading`, the thread is a greenlet among the others, and so is whoever waits:
the loop has to give way while it waits for its sockets. asyncio's own does, since its selector is patched with the
rest; uvloop waits in C, and would stop them all (https://www.gevent.org/api/gevent.monkey.html,
https://eventlet.readthedocs.io/en/latest/patching.html).
"""

from __future__ import annotations

import atexit
import contextlib
import inspect
import os
import select
import sys
import threading
import weakref
from concurrent.futures import CancelledError, Future
from types import BuiltinFunctionType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .._threads import pools_loaded
from ..errors import ClosedError, ConfigError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

T = TypeVar("T")
GRACE = 5.0  # seconds that closing may take at interpreter exit
_ENDING = "the interpreter is shutting down, and this call with it"
_NO_THREAD = (
    "a sync call needs embedkit's own thread, and this Python starts none any more ({}); make the first sync call "
    "before the main thread ends, let the main thread join() this one, or use the async embedder here: "
    "asyncio.run(embedder.embed(…))"
)

pools_loaded()  # loops need them


class EndingError(ClosedError):
    """The interpreter is at its end: the call cannot be made, or not be finished."""


class User(Protocol):
    """Who calls. At the end of the interpreter its embedder is closed on the loop."""

    embedder: Any


class Portal:
    """The thread and its loop; started by the first call, once per process."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._green = False  # whether that is a greenlet
        self._running: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._users: weakref.WeakSet[User] = weakref.WeakSet()
        self.over: bool = False

    @property
    def _lock(self) -> threading.Lock:
        """Made by the first call: what patches `threading` may come between it and the import."""
        found: threading.Lock | None = self.__dict__.get("_mutex")
        return found if found is not None else self.__dict__.setdefault("_mutex", threading.Lock())  # atomic

    def start(self, user: User, function: Callable[..., Awaitable[T]], *args: Any) -> Future[T]:
        """Begin a call on the loop.

        Raises:
            EndingError: the interpreter is ending: in a `__del__` that is called at the very end, too.
        """
        self._check()
        import asyncio

        if threading.current_thread() is self._thread:
            what = "a sync call was made on embedkit's own event loop, where it would wait for itself"
            msg = f"{what}; use the async embedder there"
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
            if self.over:
                raise EndingError(_ENDING) from None
            raise ClosedError("the call was canceled on embedkit's event loop") from None
        except BaseException:
            call.cancel()
            raise

    def _opened(self) -> Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]:
        with self._lock:
            self._check()
            failed = self._running.done() and self._running.exception() is not None
            if failed or self._thread is None or not self._thread.is_alive():
                self._green = green()
                self._running = Future()
                thread = threading.Thread(target=_run, args=(self, self._running), daemon=True, name="embedkit")
                try:
                    thread.start()
                except RuntimeError as error:
                    raise EndingError(_NO_THREAD.format(error)) from None
                self._thread = thread
                atexit.register(self.stop)
            elif self._green != green():
                msg = (
                    "gevent or eventlet has patched threading after embedkit's first call, which has a thread of its "
                    "own since; patch before it, best in the first lines of the program"
                )
                raise ConfigError(msg)
            return self._running

    @property
    def ended(self) -> bool:
        """Whether no call can be made any more: while the modules go, nothing can be imported and no thread started."""
        return self.over or sys.is_finalizing()

    def _check(self) -> None:
        if self.ended:
            raise EndingError(_ENDING)

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
    """Carries to the caller's thread what would end the loop if raised there: a `sys.exit()` in an `embed_batch`."""

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
    if green():
        return _giving_way
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop


def green() -> bool:
    """Whether `threading` makes greenlets, by gevent or eventlet.

    Raises:
        ConfigError: it does, but `select` stops them all.
    """
    if isinstance(threading.get_ident, BuiltinFunctionType):
        return False
    if isinstance(select.select, BuiltinFunctionType):
        msg = (
            "gevent or eventlet has patched threading but not select, so that a loop which waits would stop every "
            "greenlet for ever: patch both, as gevent.monkey.patch_all() and eventlet.monkey_patch() do, or use the "
            "async embedder in a thread of your own"
        )
        raise ConfigError(msg)
    return True


def _giving_way() -> asyncio.AbstractEventLoop:
    """A loop in a greenlet. While it waits, others have the thread, and `asyncio.run` must not find it running there.

    A greenlet, unlike a thread, is still there after a fork. The child's has a portal of its own, and this one shall
    not take what its parent's is woken with.
    """
    import asyncio
    import selectors

    parent = os.getpid()

    class Selector(selectors.DefaultSelector):
        theirs: asyncio.AbstractEventLoop | None = None

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            ours = asyncio._get_running_loop()  # noqa: SLF001 (made for whoever writes event loops)
            asyncio._set_running_loop(self.theirs)  # noqa: SLF001
            try:
                return super().select(timeout)
            finally:
                if os.getpid() != parent:
                    threading.Event().wait()  # for ever
                self.theirs = asyncio._get_running_loop()  # noqa: SLF001
                asyncio._set_running_loop(ours)  # noqa: SLF001

    return asyncio.SelectorEventLoop(Selector())


async def _serve(portal: Portal, running: Future[Any]) -> None:
    import asyncio

    stopping = asyncio.Event()
    running.set_result((asyncio.get_running_loop(), stopping))
    await stopping.wait()
    await _end_tasks()
    for user in portal.users():
        with contextlib.suppress(Exception):
            await user.embedder.aclose()


async def _end_tasks() -> None:
    """Cancel every other task of this loop, and wait for them.

    A task of an anyio task group that has not begun must not be cancelled in any other way than anyio's own: its
    coroutine would be left "never awaited". It begins at the loop's next turn.
    """
    import asyncio

    ended: set[asyncio.Task[Any]] = set()
    while fresh := asyncio.all_tasks() - ended - {asyncio.current_task()}:
        begun = {task for task in fresh if not _is_new(task.get_coro())}
        for task in begun:
            task.cancel()
        ended |= begun
        await asyncio.sleep(0)
    await asyncio.gather(*ended, return_exceptions=True)


def _is_new(work: object) -> bool:
    return inspect.iscoroutine(work) and inspect.getcoroutinestate(work) == inspect.CORO_CREATED


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
