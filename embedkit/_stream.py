"""Streams: any number of texts in, parts in input order out, in memory that does not grow with their number.

Workers read the source in turn (so parts are numbered in its order), embed their part, and lay it on the shelf; the reader takes
parts off in order. A permit per part on its way bounds how far the workers may run ahead. One producer task owns the workers, and
a stream holds the task rather than being it: leaving an `async for` early must not cancel the caller's next await.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

import msgspec

from ._plan import Tray, estimate, measure
from ._types import Embeddings, Limits
from .errors import EmbedkitError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from anyio.abc import TaskGroup

PART = 256  # most texts in a part: larger ones would only hold more memory


class Stream(AsyncIterator[Embeddings]):
    """An async iterator of `Embeddings`. Made by `Embedder.stream`."""

    def __init__(
        self,
        source: Iterable[str] | AsyncIterable[str],
        limits: Limits,
        work: Callable[[list[str]], Awaitable[Embeddings]],
        *,
        workers: int,
        count_tokens: Callable[[str], int] = estimate,
    ) -> None:
        if isinstance(source, (str, bytes)) or not (hasattr(source, "__aiter__") or hasattr(source, "__iter__")):
            msg = f"stream() takes an iterable or async iterable of strings, not {type(source).__name__}"
            raise TypeError(msg)
        most = min(limits.max_texts or PART, PART)
        self._pump = _Pump(_Parts(source, msgspec.structs.replace(limits, max_texts=most), count_tokens), work, workers)
        self._task: Any = None
        self._group: TaskGroup | None = None
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Embeddings:
        if self._closed:
            raise StopAsyncIteration
        if self._task is None and self._group is None:
            self._start()
        try:
            part = await self._pump.take()
        except BaseException:
            await self.aclose()
            raise
        if part is None:
            await self.aclose()
            raise StopAsyncIteration
        return part

    def _start(self) -> None:
        import asyncio

        try:
            self._task = asyncio.get_running_loop().create_task(self._pump.run())
        except RuntimeError:
            msg = "on this event loop a stream needs its own block: `async with embedder.stream(texts) as parts:`"
            raise RuntimeError(msg) from None

    async def aclose(self) -> None:
        """Stop the work at once and wait until it has stopped. Texts not yet read stay unread."""
        self._closed = True
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            import asyncio

            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
            if task.done() and not task.cancelled():
                task.exception()  # seen: whatever it was, the reader has it already

    async def __aenter__(self) -> Self:
        import anyio

        self._group = await anyio.create_task_group().__aenter__()
        self._group.start_soon(self._pump.run)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        group, self._group = self._group, None
        if group is not None:
            group.cancel_scope.cancel()
            await group.__aexit__(None, None, None)

    def __del__(self) -> None:
        if self._task is not None and not self._task.done():
            # Left behind by `break`: nobody will read on, so the workers stop at the loop's next turn.
            with contextlib.suppress(RuntimeError):
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)


class _Pump:
    """The workers of a stream and the shelf between them and the reader."""

    def __init__(self, parts: _Parts, work: Callable[[list[str]], Awaitable[Embeddings]], workers: int) -> None:
        self._parts = parts
        self._work = work
        self._workers = workers
        self._shelf: dict[int, Embeddings | BaseException] = {}
        self._next = 0
        self._total: int | None = None
        self._news: Any = None
        self._permits: Any = None

    async def take(self) -> Embeddings | None:
        """The next part in order; None at the end. Raises what its part raised."""
        import anyio

        while self._next not in self._shelf:
            if self._total is not None and self._next >= self._total:
                return None
            self._news = anyio.Event()
            await self._news.wait()
        found = self._shelf.pop(self._next)
        self._next += 1
        if isinstance(found, BaseException):
            raise found
        self._permits.release()
        return found

    async def run(self) -> None:
        import anyio

        reading = anyio.Lock()
        self._permits = anyio.Semaphore(2 * self._workers)
        number = 0

        async def worker() -> None:
            nonlocal number
            while self._total is None:
                await self._permits.acquire()
                async with reading:
                    if self._total is not None:
                        return
                    mine, start, texts, error = number, *await self._parts.next()
                    number += 1
                    if error is not None or not texts:
                        self._put(mine, error, last=True)
                        return
                self._put(mine, await self._embedded(texts, start))

        try:
            async with anyio.create_task_group() as group:
                for _ in range(self._workers):
                    group.start_soon(worker)
        finally:
            self._total = self._next if self._total is None else self._total
            self._ring()

    async def _embedded(self, texts: list[str], start: int) -> Embeddings | BaseException:
        try:
            return msgspec.structs.replace(await self._work(texts), start=start)
        except Exception as error:
            if isinstance(error, EmbedkitError):
                error.rows = tuple(start + row for row in error.rows)
                if error.partial is not None:
                    error.partial = msgspec.structs.replace(error.partial, start=start)
            return error

    def _put(self, number: int, found: Embeddings | BaseException | None, *, last: bool = False) -> None:
        if found is not None:
            self._shelf[number] = found
        if last or isinstance(found, BaseException):
            # Nothing is read beyond a failure; parts before it still come out.
            total = number + 1 if found is not None else number
            self._total = total if self._total is None else min(self._total, total)
        self._ring()

    def _ring(self) -> None:
        if self._news is not None:
            self._news.set()


class _Parts:
    """Reads the source and cuts it into parts within the limits."""

    def __init__(
        self, source: Iterable[str] | AsyncIterable[str], limits: Limits, count_tokens: Callable[[str], int]
    ) -> None:
        self._source: AsyncIterator[str] | Iterator[str] = (
            aiter(cast("AsyncIterable[str]", source)) if hasattr(source, "__aiter__") else iter(cast("Iterable[str]", source))
        )
        self._limits = limits
        self._count_tokens = count_tokens
        self._row = 0
        self._held: tuple[str, int, int] | None = None

    async def next(self) -> tuple[int, list[str], Exception | None]:
        """(row of the first text, texts, the source's own failure). No texts: the end."""
        tray = Tray(self._limits)
        texts: list[str] = []
        start = self._row
        try:
            while (found := self._held or await self._measured()) is not None:
                text, tokens, size = self._held = found
                if not tray.takes(tokens, size):
                    break
                self._held = None
                tray.add(tokens, size)
                texts.append(text)
                if tray.count == self._limits.max_texts:
                    break
        except Exception as error:
            if not texts:
                return start, [], error
            self._failed(error)
        self._row = start + len(texts)
        return start, texts, None

    def _failed(self, error: Exception) -> None:
        def again() -> Iterator[str]:
            raise error
            yield  # pragma: no cover

        self._source = again()

    async def _measured(self) -> tuple[str, int, int] | None:
        source = self._source
        try:
            text = await source.__anext__() if isinstance(source, AsyncIterator) else next(source)
        except (StopIteration, StopAsyncIteration):
            return None
        if not isinstance(text, str):
            row = self._row
            msg = f"the stream's text after row {row} is {type(text).__name__}, not str: {str(text)[:60]!r}"
            raise TypeError(msg)
        return (text, *measure(text, self._limits, self._count_tokens))
