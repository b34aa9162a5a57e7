"""The same embedder without `await`: one portal thread per process runs an event loop, and calls wait for it.

Works in a script, inside a running loop (Jupyter), from many threads and after a fork. Ctrl-C cancels the running call. At
interpreter exit sockets are closed first, then the thread ends.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, TypeVar

from ._client import HttpEmbedder
from ._connect import connect
from .errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Self

    from anyio.from_thread import BlockingPortal
    from numpy.typing import NDArray

    from ._embedder import Embedder
    from ._stream import Stream
    from ._types import Embeddings

T = TypeVar("T")
GRACE = 5.0  # seconds that closing may take at interpreter exit


class _Portal:
    """The thread, its loop and its way in; started by the first call, once per process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._portal: BlockingPortal | None = None
        self.users: weakref.WeakSet[SyncEmbedder] = weakref.WeakSet()

    def call(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run on the loop, wait for the result; an interrupt here cancels it there."""
        if threading.current_thread() is self._thread:
            msg = "a sync call was made on embedkit's own event loop, where it would wait for itself; use the async embedder there"
            raise RuntimeError(msg)
        future: Future[T] = self._started().start_task_soon(function, *args)
        try:
            return future.result()
        except CancelledError:
            msg = "the call was cancelled because the interpreter is shutting down"
            raise RuntimeError(msg) from None
        except BaseException:
            if not future.done():
                future.cancel()
            raise

    def _started(self) -> BlockingPortal:
        with self._lock:
            if self._portal is None:
                ready: Future[BlockingPortal] = Future()
                self._thread = threading.Thread(target=_run, args=(ready,), daemon=True, name="embedkit")
                self._thread.start()
                self._portal = ready.result()
                atexit.register(self.stop)
            return self._portal

    def stop(self) -> None:
        """Close every embedder, then the loop."""
        with self._lock:
            portal, self._portal = self._portal, None
        if portal is None or self._thread is None or not self._thread.is_alive():
            return
        with contextlib.suppress(Exception):
            portal.start_task_soon(_close, list(self.users), portal).result(GRACE)
        self._thread.join(GRACE)


async def _close(users: list[SyncEmbedder], portal: BlockingPortal) -> None:
    for user in users:
        with contextlib.suppress(Exception):
            await user.embedder.aclose()
    await portal.stop(cancel_remaining=True)


def _run(ready: Future[BlockingPortal]) -> None:
    from importlib.util import find_spec

    import anyio
    from anyio.from_thread import BlockingPortal

    async def serve() -> None:
        async with BlockingPortal() as portal:
            ready.set_result(portal)
            await portal.sleep_until_stopped()

    # The loop is ours, so the faster one may be taken where it is installed.
    anyio.run(serve, backend_options={"use_uvloop": find_spec("uvloop") is not None})


_portal = _Portal()


def _after_fork() -> None:
    global _portal  # noqa: PLW0603 (the child's own: the parent's thread did not come along)
    _portal = _Portal()


os.register_at_fork(after_in_child=_after_fork)


class SyncEmbedder:
    """Any embedder, called without `await`. The verbs, arguments, results and errors are those of `Embedder`."""

    def __init__(self, embedder: Embedder) -> None:
        if isinstance(embedder, HttpEmbedder) and embedder.borrowed:
            msg = "an embedder on the caller's own session belongs to that session's event loop; SyncEmbedder runs another"
            raise ConfigError(msg)
        self.embedder = embedder

    def embed(self, texts: str | Iterable[str], **options: Any) -> Embeddings:
        """As `Embedder.embed`."""
        return self._call(lambda: self.embedder.embed(texts, **options))

    def embed_query(self, text: str, **options: Any) -> NDArray[Any]:
        """As `Embedder.embed_query`."""
        return self._call(lambda: self.embedder.embed_query(text, **options))

    def stream(self, texts: Iterable[str], **options: Any) -> Iterator[Embeddings]:
        """As `Embedder.stream`. The iterable is read on embedkit's own thread; leaving the loop early stops the work."""
        stream = self.embedder.stream(texts, **options)
        return self._parts(stream)

    def _parts(self, stream: Stream) -> Iterator[Embeddings]:
        try:
            while (part := self._call(lambda: _next(stream))) is not None:
                yield part
        finally:
            self._call(stream.aclose)

    def close(self) -> None:
        """Close the sockets. May be called twice; a closed embedder opens again when it is used."""
        self._call(self.embedder.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SyncEmbedder({self.embedder!r})"

    def __getattr__(self, name: str) -> Any:
        if name in ("model", "provider", "limits", "options", "max_concurrency"):
            return getattr(self.embedder, name)
        raise AttributeError(name)

    def _call(self, function: Callable[[], Awaitable[T]]) -> T:
        _portal.users.add(self)

        async def run() -> T:
            return await function()

        return _portal.call(run)


async def _next(stream: Stream) -> Embeddings | None:
    return await anext(stream, None)


def connect_sync(model: str | None = None, **options: Any) -> SyncEmbedder:
    """As `connect`, for callers without an event loop."""
    return SyncEmbedder(connect(model, **options))
