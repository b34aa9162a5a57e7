"""The same embedder without `await`: calls go through the portal, to the one loop of this process, and wait.

Works in a script, inside a running loop (Jupyter), from many threads and after a fork; Ctrl-C cancels the running call.
Texts are read in the thread that calls, so a generator may block, read a database cursor or call the embedder itself.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import AsyncIterable, Awaitable, Callable, Generator, Iterable, Iterator, Mapping
from functools import wraps
from inspect import cleandoc, signature
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, cast

from .._batching.stream import PART, Stream
from .._batching.texts import listed, one_by_one, refuse_what_has_no_rows
from .._connect.factory import connect
from .._embedders.base import Embedder
from .._hints import NDArray
from .._peers import Elsewhere, answering, look_up
from .._progress import Progress, Tell, length, progress_of
from .._types import DType, Embeddings, InputType, Limits, OnError, Options, Truncate
from ..errors import ConfigError
from .portal import current

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

T = TypeVar("T")
P = ParamSpec("P")


class _Feed:
    """A caller's iterable, read in the caller's thread, while that waits, when the stream on the loop asks for more."""

    def __init__(self, texts: Iterable[str], size: int) -> None:
        self._texts = one_by_one(texts)
        self._size = size
        self._read: Iterator[str] = iter(())
        self._end: Exception | None = None
        self._bell: queue.SimpleQueue[asyncio.Future[Any] | None] = queue.SimpleQueue()  # gevent may have patched it

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        import asyncio

        while True:
            for text in self._read:
                return text
            if self._end is not None:
                raise self._end
            wish = asyncio.get_running_loop().create_future()
            self._bell.put(wish)
            texts, self._end = await wish
            self._read = iter(texts)

    def serve(self, call: Future[T]) -> None:
        """Read what is asked for until the call is done."""
        call.add_done_callback(lambda _: self._bell.put(None))
        try:
            while (wish := self._bell.get()) is not None:
                found = self._next()
                with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile, and the call with it
                    wish.get_loop().call_soon_threadsafe(_fulfill, wish, found)
        except BaseException:
            call.cancel()
            raise

    def _next(self) -> tuple[list[str], Exception | None]:
        texts: list[str] = []
        try:
            texts.extend(islice(self._texts, self._size))
        except Exception as error:  # noqa: BLE001 (raised by the stream, after the texts before it)
            return texts, error
        return texts, None if len(texts) == self._size else StopAsyncIteration()


def _fulfill(wish: asyncio.Future[Any], found: object) -> None:
    if not wish.done():
        wish.set_result(found)


class SyncEmbedder:
    """Any embedder, called without `await`. The verbs, arguments, results and errors are those of `Embedder`."""

    def __init__(self, embedder: Embedder) -> None:
        if not isinstance(embedder, Embedder):
            hint = "; connect_sync() takes a model's name" if isinstance(embedder, str) else ""
            msg = f"SyncEmbedder takes an Embedder, not {type(embedder).__name__}{hint}"
            raise TypeError(msg)
        if embedder.borrowed:
            owner = "an embedder on the caller's own session"
            msg = f"{owner} belongs to that session's event loop; SyncEmbedder runs another"
            raise ConfigError(msg)
        self.embedder = embedder

    @answering
    def embed(  # noqa: PLR0913 (what one call may say)
        self,
        texts: str | Iterable[str],
        *,
        input_type: InputType | None = None,
        dimensions: int | None = None,
        dtype: DType | None = None,
        truncate: Truncate | None = None,
        normalize: bool | None = None,
        extra: Mapping[str, Any] | None = None,
        on_error: OnError = "raise",
        timeout: float | None = None,
        total_timeout: float | None = None,
        progress: bool | Tell = False,
    ) -> Embeddings:
        """As `Embedder.embed`. `total_timeout` does not count the time in which `texts` are read."""
        rows = listed(texts, skip=on_error == "skip")

        def embed(progress: bool | Tell = False) -> Awaitable[Embeddings]:
            return self.embedder.embed(
                rows, input_type=input_type, dimensions=dimensions, dtype=dtype, truncate=truncate,
                normalize=normalize, extra=extra, on_error=on_error, timeout=timeout, total_timeout=total_timeout,
                progress=progress,
            )  # fmt: skip

        if progress is not False and (bar := progress_of(progress, len(rows))) is not None:
            return self._drawn(embed, bar)
        return self._call(embed)

    @answering
    def embed_query(
        self,
        text: str,
        *,
        input_type: InputType | None = "query",
        dimensions: int | None = None,
        dtype: DType | None = None,
        truncate: Truncate | None = None,
        normalize: bool | None = None,
        extra: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        total_timeout: float | None = None,
    ) -> NDArray[Any]:
        """As `Embedder.embed_query`."""
        return self._call(
            lambda: self.embedder.embed_query(
                text, input_type=input_type, dimensions=dimensions, dtype=dtype, truncate=truncate,
                normalize=normalize, extra=extra, timeout=timeout, total_timeout=total_timeout,
            )
        )  # fmt: skip

    @answering
    def stream(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        *,
        input_type: InputType | None = None,
        dimensions: int | None = None,
        dtype: DType | None = None,
        truncate: Truncate | None = None,
        normalize: bool | None = None,
        extra: Mapping[str, Any] | None = None,
        on_error: OnError = "raise",
        progress: bool | Tell = False,
    ) -> Generator[Embeddings, None, None]:
        """As `Embedder.stream`. Leaving the loop early stops the work."""
        refuse_what_has_no_rows(texts, "stream() takes an iterable or async iterable of strings")
        feed = None
        if hasattr(texts, "__iter__") and not isinstance(texts, (str, bytes, bytearray, AsyncIterable)):
            feed = _Feed(texts, min(self.limits.max_texts or PART, PART))
        stream = self.embedder.stream(
            feed or texts, input_type=input_type, dimensions=dimensions, dtype=dtype, truncate=truncate,
            normalize=normalize, extra=extra, on_error=on_error,
        )  # fmt: skip
        return self._parts(stream, feed, None if progress is False else progress_of(progress, length(texts)))

    def _parts(
        self, stream: Stream, feed: _Feed | None, progress: Progress | None
    ) -> Generator[Embeddings, None, None]:
        portal = current()
        try:
            while portal is current():
                call: Future[Embeddings | None] = portal.start(self, anext, stream, None)
                if feed is not None:
                    feed.serve(call)
                part = portal.finish(call)
                if part is None:
                    return
                if progress is not None:
                    progress.add(len(part))
                yield part
            msg = "a stream does not survive a fork; begin another in the child"
            raise RuntimeError(msg)
        finally:
            del stream  # whose end stops the work
            if progress is not None:
                progress.close()

    def close(self) -> None:
        """Close the sockets. May be called twice; a closed embedder opens again when it is used.

        Calls of other threads that are in flight raise `ClosedError` at once, streams after the parts that are ready:
        see `Embedder.aclose`.
        """
        if not current().ended:  # else done already
            self._call(self.embedder.aclose)

    @property
    def provider(self) -> str:
        """Who embeds."""
        return self.embedder.provider

    @property
    def model(self) -> str:
        """The model asked for."""
        return self.embedder.model

    @property
    def limits(self) -> Limits:
        """What one request may hold."""
        return self.embedder.limits

    @property
    def options(self) -> Options:
        """What holds where a call says nothing else."""
        return self.embedder.options

    @property
    def max_concurrency(self) -> int:
        """How many requests of one call may be in flight."""
        return self.embedder.max_concurrency

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SyncEmbedder({self.embedder!r})"

    if not TYPE_CHECKING:  # for which a misspelled name is a mistake
        __getattr__ = look_up
        __aenter__ = Elsewhere("goes into `with`; embedkit.connect() makes one for `async with`")

    def _drawn(self, embed: Callable[[Tell], Awaitable[T]], progress: Progress) -> T:
        """What `embed` gives. The caller's thread draws: a notebook shows what a thread writes in the cell that the
        thread was started from.
        """
        done: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        call = current().start(self, lambda: embed(done.put))
        call.add_done_callback(lambda _: done.put(None))
        try:
            while (count := done.get()) is not None:
                progress.add(count)
            made = current().finish(call)
            progress.finish()
        except BaseException:
            call.cancel()
            raise
        finally:
            progress.close()
        return made

    def _call(self, function: Callable[[], Awaitable[T]]) -> T:
        return current().finish(current().start(self, function))


def _like(opens: Callable[P, Embedder]) -> Callable[[Callable[..., SyncEmbedder]], Callable[P, SyncEmbedder]]:
    """Gives a function that calls `opens` its parameters, for type checkers and `inspect`, and its documentation."""

    def dressed(function: Callable[..., SyncEmbedder]) -> Callable[P, SyncEmbedder]:
        function.__doc__ = f"{function.__doc__}\n\n{cleandoc(opens.__doc__ or '')}"
        outer: Any = wraps(opens, (), ())(function)  # whose module the names in its annotations are looked up in
        outer.__annotations__ = {**opens.__annotations__, "return": SyncEmbedder}
        outer.__signature__ = signature(opens).replace(return_annotation=SyncEmbedder)
        return cast("Callable[P, SyncEmbedder]", outer)

    return dressed


@_like(connect)
def connect_sync(*args: Any, **keywords: Any) -> SyncEmbedder:
    """As `connect`, for callers without an event loop: use it with or without `with`."""
    return SyncEmbedder(connect(*args, **keywords))


__all__ = ["SyncEmbedder", "connect_sync"]
