"""Streams: any number of texts in, parts in input order out, in memory that does not grow with their number.

One producer task reads the source (alone, so a source may hold locks and scopes of its own) and hands parts to
workers, whose results wait in a reorder buffer; the reader takes them in order. A permit per part on its way
bounds how far the producer runs ahead. A stream holds the producer rather than being it: leaving an `async for`
early must not cancel the caller's next await.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from .._calls import Calls
from .._hints import Later
from .._progress import Progress
from .._types import Embeddings, Limits
from ..codec.vector_math import missing_rows
from ..errors import ClosedError, EmbedkitError
from .plan import BatchBuilder, estimate, measure
from .texts import one_by_one, plain, refuse_what_has_no_rows, shown

if TYPE_CHECKING:
    import anyio.abc
else:
    anyio = Later("anyio")

PART = 256  # most texts in a part: larger ones would only hold more memory


class Stream(AsyncIterator[Embeddings]):
    """An async iterator of `Embeddings`. Made by `Embedder.stream`.

    It is no async generator: one that holds a task group would,
    closed after a `break`, cancel whatever its reader awaits next.
    """

    _task: Any = None
    _group: anyio.abc.TaskGroup | None = None
    _closed = False

    def __init__(
        self,
        source: Iterable[str] | AsyncIterable[str],
        limits: Callable[[], Limits],
        work: Callable[[list[Any]], Awaitable[Embeddings]],
        *,
        workers: int,
        count_tokens: Callable[[str], int] = estimate,
        skip: bool = False,
        calls: Calls | None = None,
        progress: Progress | None = None,
    ) -> None:
        takes = "stream() takes an iterable or async iterable of strings"
        refuse_what_has_no_rows(source, takes)
        if isinstance(source, str) or not (hasattr(source, "__aiter__") or hasattr(source, "__iter__")):
            msg = f"{takes}, not {type(source).__name__}"
            raise TypeError(msg)
        self._producer = _Producer(_Parts(source, limits, count_tokens, skip=skip), work, workers, calls or Calls())
        self._progress = progress

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Embeddings:
        if self._closed:
            raise StopAsyncIteration
        if self._task is None and self._group is None:
            self._start()
        try:
            part = await self._producer.take()
        except Exception:
            await self.aclose()
            raise
        except BaseException:  # cancelled: the work stops too, and another call says that the end was not reached
            await self._halt()
            raise
        if part is None:
            await self.aclose()
            raise StopAsyncIteration
        if self._progress is not None:
            self._progress.add(len(part))
        return part

    def _start(self) -> None:
        import asyncio

        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            msg = "on this event loop a stream needs its own block: `async with embedder.stream(texts) as parts:`"
            raise RuntimeError(msg) from None
        self._producer.open()
        self._task = loop.create_task(self._producer.run())

    async def aclose(self) -> None:
        """Stop the work at once and wait until it has stopped. Texts not yet read stay unread."""
        self._closed = True
        await self._halt()

    async def _halt(self) -> None:
        self._producer.stop()
        if self._progress is not None:
            self._progress.close()
        if self._task is not None and not self._task.done():
            import asyncio

            import anyio

            with anyio.CancelScope(shield=True):
                await asyncio.wait([self._task])

    async def __aenter__(self) -> Self:
        if self._task is None and self._group is None and not self._closed:
            import anyio

            self._producer.open()
            self._group = await anyio.create_task_group().__aenter__()
            self._group.start_soon(self._producer.run)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        if self._progress is not None:
            self._progress.close()
        group, self._group = self._group, None
        if group is None:
            await self._halt()
        else:
            group.cancel_scope.cancel()
            await group.__aexit__(None, None, None)

    def __del__(self) -> None:
        if self._task is not None and not self._task.done():
            # Left behind by `break`: nobody will read on, so the workers stop at the loop's next turn.
            with contextlib.suppress(RuntimeError):
                self._task.get_loop().call_soon_threadsafe(self._producer.stop)


class _Producer:
    """The producer of a stream and its workers, and the reorder buffer between them and the reader."""

    def __init__(
        self, parts: _Parts, work: Callable[[list[str]], Awaitable[Embeddings]], workers: int, calls: Calls
    ) -> None:
        self._parts = parts
        self._calls = calls
        self._closed: ClosedError | None = None
        self._work = work
        self._workers = workers
        self._todo: deque[tuple[int, int, list[str]] | None] = (
            deque()
        )  # (number, row of the first text, texts); None: go home
        self._reordered: dict[int, Embeddings | BaseException] = {}
        self._next = 0
        self._width = 0  # values per row of the parts before
        self._total: int | None = None  # parts there will be, once known
        self._over = False
        self._running = self._idle = 0  # workers: all, and those that wait for a part
        self._news: Any = None
        self._permits: Any = None
        self._waiting: Any = None
        self._scope: Any = None

    def open(self) -> None:
        """Make what belongs to the running loop."""
        import anyio

        self._permits = anyio.Semaphore(2 * self._workers)
        self._waiting = anyio.Semaphore(0)
        self._scope = anyio.CancelScope()

    def stop(self) -> None:
        """Cancel the work; does not wait for it."""
        if self._scope is not None:
            self._scope.cancel()

    async def take(self) -> Embeddings | None:
        """The next part in order; None at the end. Raises what its part raised."""
        import anyio

        while self._next not in self._reordered:
            if self._total is not None and self._next >= self._total:
                return None
            if self._closed is not None:
                raise self._closed
            if self._over:
                msg = "the stream was canceled before its end; what it has not given yet is lost"
                raise RuntimeError(msg)
            if self._news is None:
                self._news = anyio.Event()
            await self._news.wait()
        found = self._reordered.pop(self._next)
        self._next += 1
        self._permits.release()
        if isinstance(found, BaseException):
            raise found
        if found.vectors.shape[1] or not self._width:
            self._width = found.vectors.shape[1]
            return found
        return msgspec.structs.replace(
            found, vectors=missing_rows(len(found), self._width, found.dtype)
        )  # no text of it has a vector

    async def run(self) -> None:
        """Read part after part and have it embedded, until the source ends, a part fails or the embedder is closed."""
        try:
            await self._calls.run(self._all())
        except ClosedError as error:
            self._closed = error.with_traceback(None)
        finally:
            self._over = True
            self._ring()

    async def _all(self) -> None:
        import anyio

        with self._scope:
            async with anyio.create_task_group() as group:
                await self._read(group)

    async def _read(self, group: anyio.abc.TaskGroup) -> None:
        number = 0
        while self._total is None:
            await self._permits.acquire()
            start, texts, error = await self._parts.next()
            if error is not None or not texts:
                self._put(number, error, last=True)
            else:
                self._hand((number, start, texts))
                number += 1
                if len(self._todo) > self._idle and self._running < self._workers:
                    self._running += 1
                    group.start_soon(self._worker)
        for _ in range(self._running):
            self._hand(None)

    def _hand(self, part: tuple[int, int, list[str]] | None) -> None:
        self._todo.append(part)
        self._waiting.release()

    async def _worker(self) -> None:
        while True:
            self._idle += 1
            await self._waiting.acquire()
            self._idle -= 1
            part = self._todo.popleft()
            if part is None:
                return
            number, start, texts = part
            if self._total is None or number < self._total:
                self._put(number, await self._embedded(start, texts))

    async def _embedded(self, start: int, texts: list[str]) -> Embeddings | BaseException:
        try:
            return msgspec.structs.replace(await self._work(texts), start=start, texts=texts)
        except EmbedkitError as error:
            error.rows = tuple(start + row for row in error.rows)
            if error.partial is not None:
                error.partial = msgspec.structs.replace(error.partial, start=start, texts=texts)
            return error
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001 (the reader raises it)
            return error

    def _put(self, number: int, found: Embeddings | BaseException | None, *, last: bool = False) -> None:
        if found is not None:
            self._reordered[number] = found
        if last or isinstance(found, BaseException):
            # Nothing is read beyond a failure; parts before it still come out.
            total = number + 1 if found is not None else number
            self._total = total if self._total is None else min(self._total, total)
        self._ring()

    def _ring(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None


class _Parts:
    """Reads the source and cuts it into parts within the limits."""

    def __init__(
        self,
        source: Iterable[str] | AsyncIterable[str],
        limits: Callable[[], Limits],
        count_tokens: Callable[[str], int],
        *,
        skip: bool = False,
    ) -> None:
        self._later: AsyncIterator[str] | None = aiter(source) if isinstance(source, AsyncIterable) else None
        self._now: Iterator[str] = iter(()) if isinstance(source, AsyncIterable) else one_by_one(source)
        self._skip = skip
        self._limits = limits
        self._count_tokens = count_tokens
        self._row = 0  # texts read
        self._held: tuple[str, int, int] | None = None  # read, but the part before was full
        self._failure: BaseException | None = None  # comes after the texts before it

    async def next(self) -> tuple[int, list[str], BaseException | None]:
        """(row of the first text, texts, the source's own failure). No texts: the end."""
        limits = self._limits()  # as they are by now: refusals may have shown more
        most = min(limits.max_texts or PART, PART)
        builder = BatchBuilder(limits)
        texts: list[str] = []
        start = self._row - (self._held is not None)
        try:
            while self._failure is None and (found := self._held or await self._measured(limits)) is not None:
                text, tokens, size = self._held = found
                if not builder.fits(tokens, size):
                    break
                self._held = None
                builder.add(tokens, size)
                texts.append(text)
                if builder.count == most:
                    break
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001 (raised by the reader, in its place)
            self._failure = error
        return start, texts, None if texts else self._failure

    async def _measured(self, limits: Limits) -> tuple[str, int, int] | None:
        try:
            text = next(self._now) if self._later is None else await anext(self._later)
        except (StopIteration, StopAsyncIteration):
            return None
        row, self._row = self._row, self._row + 1
        if not isinstance(text, str) and self._skip:
            return text, 0, 0  # a failed row
        if not isinstance(text, str):
            msg = f"text {row} of the stream is {type(text).__name__}, not str: {shown(text)}"
            raise TypeError(msg)
        return (plain(text), *measure(text, limits, self._count_tokens))
