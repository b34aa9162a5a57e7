"""Embeds any number of texts through the provider's batch jobs, at their lower price, in the place of a stream.

The input is cut into chunks, each of which becomes a job (see `chunk.py`); several are under way at a time. The
chunks take their steps one after the other, in no task of their own, so whoever reads the parts may be cancelled at any
time: what was stored then says where to go on.
"""

from __future__ import annotations

import math
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from ..._batching.failed_rows import first_failure
from ..._batching.options import validated
from ..._batching.texts import one_by_one
from ..._embedders.http import HttpEmbedder
from ..._embedders.wrapper import Wrapped
from ..._types import Embeddings, OnError, Options, Usage
from ...codec import Caps
from ...errors import ApiError, AuthError, ClosedError, ConfigError
from .chunk import BatchEvent, Chunk, Poll, Store, Work, lost_key, unfinished_job
from .texts import placed, read_places, size_of

if TYPE_CHECKING:
    from ..._embedders.base import Embedder

PART = 256  # most rows of a part, as in a stream
SIZE = 32 * 2**20  # bytes of text in one chunk, about: it is held in memory while it is written down and sent
AHEAD = 16  # chunks under way at a time


async def _sleep(seconds: float) -> None:
    import anyio

    await anyio.sleep(seconds)


def batch_stream(  # noqa: PLR0913 (the seams of a job)
    embedder: Embedder,
    texts: Iterable[str | None] | AsyncIterable[str | None],
    options: Options,
    *,
    store: Store,
    folder: Path,
    first: int = 0,
    on_error: OnError = "skip",
    poll: Poll | None = None,
    caps: Caps | None = None,
    on_event: Callable[[BatchEvent], object] | None = None,
    sleep: Callable[[float], Awaitable[None]] = _sleep,
    now: Callable[[], float] = time.monotonic,
    new_key: Callable[[], str] | None = None,
) -> BatchStream:
    """The parts of these texts, in their order, as `Embedder.stream` gives them, embedded by batch jobs.

    Args:
        embedder: made by `connect`, for one endpoint; its own `options` are not looked at.
        texts: of the input, from row `first`; a row without a text is a failed row. After a crash they have to be the
            same.
        options: how to embed.
        store: keeps a record per chunk. Nothing that costs money is sent before the record that tells of it is stored.
        folder: is there, and keeps the answers until `forget`; the same after a crash. A chunk takes the room of its
            texts, its answers and, until it has been given, its rows.
        first: rows of the input before these texts, which an earlier run has given.
        on_error: "skip" marks failed rows, "raise" raises the first.
        poll: how often a job is asked how it stands.
        caps: what one job may hold, where it is to be less than the provider allows.
        on_event: told of each step of each chunk.
        sleep: waits for so many seconds.
        now: seconds of any clock that only grows.
        new_key: makes the names of jobs; random ones.

    Raises:
        ConfigError: the provider has no batch jobs that embedkit knows of, or an option cannot be honored by them.
    """
    known = _over_http(embedder)
    options = validated(options)
    api = known.batches()
    _refuse_what_jobs_cannot(known, options)
    work = Work(
        known, options,
        caps=api.caps if caps is None else _within(caps, api.caps),
        folder=folder, store=store, poll=poll or Poll(), now=now,
        new_key=new_key or (lambda: f"embedkit-{secrets.token_hex(8)}"),
        tell=on_event or (lambda event: None),  # noqa: ARG005 (nobody asks)
    )  # fmt: skip
    api.line("0-1", ["a"], work.options[0])  # an option that cannot be honored is refused here
    return BatchStream(work, texts, first=first, skip=on_error == "skip", sleep=sleep)


def _over_http(embedder: Embedder) -> HttpEmbedder:
    inner = embedder
    while isinstance(inner, Wrapped):
        inner = inner.inner
    if not isinstance(inner, HttpEmbedder):
        msg = f"batch jobs are run by one provider's API, with one key, and {embedder!r} is none: connect to it alone"
        raise ConfigError(msg)
    return inner


def _refuse_what_jobs_cannot(embedder: HttpEmbedder, options: Options) -> None:
    if embedder.joins_texts(options):
        msg = "batch jobs send texts one by one, and here a vector depends on the other texts of its request"
        raise ConfigError(msg)
    if embedder.long_text is not None and options.truncate is None:
        msg = f"long_text={embedder.long_text!r} is not done in batch jobs: pass truncate='end', or leave it out"
        raise ConfigError(msg)


def _within(caps: Caps, allowed: Caps) -> Caps:
    """These caps, none of them above what the provider allows."""
    least = {
        name: min(getattr(caps, name), getattr(allowed, name)) for name in ("lines", "inputs", "bytes", "texts", "jobs")
    }
    return msgspec.structs.replace(caps, **least)


class BatchStream(AsyncIterator[Embeddings]):
    """An async iterator of parts. Made by `batch_stream`.

    Whoever stops reading, by an error, a cancellation or `aclose`, leaves the jobs running at the provider; made again
    with the same store, folder and texts, it finds them. `cancel` stops them.
    """

    def __init__(
        self,
        work: Work,
        texts: Iterable[str | None] | AsyncIterable[str | None],
        *,
        first: int,
        skip: bool,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._work = work
        self._reader = _Reader(work, texts, first)
        self._first = first
        self._skip = skip
        self._sleep = sleep
        self._window: deque[Chunk] = deque()
        self._stops: dict[int, int] = {}  # chunk given → the row after its last
        self._width = 0
        self._told = 0  # requests that a part has told of
        self._parts: AsyncGenerator[Embeddings, None] = self._run()
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def __anext__(self) -> Embeddings:
        if self._ended:
            msg = "this stream of batch jobs was ended before its last part; made again it goes on"
            raise ClosedError(msg)
        try:
            return await anext(self._parts)
        except StopAsyncIteration:
            raise
        except BaseException:
            self._ended = True
            self._let_go()
            raise

    @property
    def jobs(self) -> list[str]:
        """The provider's ids of the jobs under way."""
        return [chunk.job for chunk in self._window if chunk.job]

    def forget(self, rows: int) -> None:
        """All rows of the input before this one are safe with the reader: what is kept of their chunks is deleted."""
        for number, stop in list(self._stops.items()):
            if stop <= rows:
                del self._stops[number]
                self._work.remove(number)

    async def aclose(self) -> None:
        """Stop reading. The jobs go on at the provider."""
        self._ended = True
        await self._parts.aclose()
        self._let_go()

    async def cancel(self) -> list[str]:
        """Stop the jobs at the provider, those of an earlier run too, and return their ids.

        What they have finished is delivered, paid, and found when the stream is made again. Nothing else may be
        waiting for the stream.
        """
        self._ended = True
        found, number = [], 0
        while (record := self._work.store.get(number)) is not None:
            job = unfinished_job(record)
            if not job and (key := lost_key(record)):
                job = await self._work.find(key) or ""
                record["rounds"][-1] |= {"job": job} if job else {}
            if job:
                await self._stop(number, record, job)
                found.append(job)
            number += 1
        self._let_go()
        return found

    async def _stop(self, number: int, record: dict[str, Any], job: str) -> None:
        work = self._work
        record["rounds"][-1]["stopped"] = True
        work.store.put(number, record)
        try:
            await work.ask(work.api.cancel(job), bool)
        except AuthError:
            raise
        except ApiError as error:
            if error.retryable:  # it may run on
                raise
            message = str(error)  # it is finished already
        else:
            message = ""
        start, rows = record["start"], record["rows"]
        with suppress(Exception):
            work.tell(BatchEvent(chunk=number, start=start, rows=rows, state="stopped", job=job, message=message))

    def _let_go(self) -> None:
        for chunk in self._window:
            chunk.close()
        self._window.clear()

    async def _run(self) -> AsyncGenerator[Embeddings, None]:
        window, work = self._window, self._work
        ahead = min(AHEAD, work.caps.jobs)
        while True:
            for chunk in window:
                await chunk.step()
            while self._takes_more(ahead) and (read := await self._reader.next()) is not None:
                window.append(read)
                await read.step()
            self._stops |= self._reader.take_passed()
            if not window:
                return
            if (failure := window[0].failure) is not None:
                raise failure
            if window[0].ready:
                for part in self._given(window[0]):
                    yield part
                window.popleft()
                continue
            due = min(chunk.due for chunk in window if not chunk.ready and chunk.failure is None)
            if due > work.now():
                await self._sleep(due - work.now())

    def _takes_more(self, ahead: int) -> bool:
        """Whether another chunk is to be begun. After a failure none is: what is paid for is waited for, no more."""
        room = len(self._window) < ahead and self._work.full_until <= self._work.now()
        return room and not self._reader.ended and all(chunk.failure is None for chunk in self._window)

    def _given(self, chunk: Chunk) -> Iterator[Embeddings]:
        stop = self._stops[chunk.number] = chunk.start + chunk.rows
        for start in range(max(chunk.start, self._first), stop, PART):
            at = start - chunk.start
            part = chunk.part(at, min(at + PART, chunk.rows), self._width)
            yield self._finished(msgspec.structs.replace(part, start=start - self._first))
        chunk.close()

    def _finished(self, part: Embeddings) -> Embeddings:
        self._width = part.vectors.shape[1] or self._width
        requests = self._work.tally.requests
        price, tokens = self._work.embedder.batch_price, part.usage.tokens
        cost = None if price is None or tokens is None else tokens * price / 1e6
        part = msgspec.structs.replace(part, usage=Usage(tokens, requests - self._told, cost))
        self._told = requests
        if part.failures and not self._skip:
            error = first_failure(part)
            error.rows = tuple(part.start + row for row in error.rows)
            raise error
        return part


class _Reader:
    """Cuts the input into chunks: as they were cut before, else as large as a job may be."""

    def __init__(self, work: Work, texts: Iterable[str | None] | AsyncIterable[str | None], first: int) -> None:
        self.ended = False
        self._passed: dict[int, int] = {}
        self._work = work
        self._later: AsyncIterator[str | None] | None = aiter(texts) if isinstance(texts, AsyncIterable) else None
        self._now: Iterator[str | None] = (
            iter(()) if isinstance(texts, AsyncIterable) else one_by_one(texts)  # type: ignore[arg-type]
        )
        self._first = first
        self._held: list[str | None] = []  # read, but the chunk before was full
        self._number = 0
        self._row = first  # of the text that is read next

    def take_passed(self) -> dict[int, int]:
        """Chunks read since this was called last whose rows were all given by an earlier run: number → row after it."""
        passed, self._passed = self._passed, {}
        return passed

    async def next(self) -> Chunk | None:
        """The next chunk of which a part is wanted; None, and `ended`: there is none."""
        work, record = self._work, self._work.store.get(self._number)
        while record is not None and record["start"] + record["rows"] <= self._first:
            self._passed[self._number] = record["start"] + record["rows"]
            self._number += 1
            record = work.store.get(self._number)
        number, start = self._number, self._row if record is None else record["start"]
        rows = self._given(number, self._row - start)
        rows += await self._rows(None if record is None else record["rows"] - len(rows))
        if not rows and record is None:
            self.ended = True
            return None
        places = placed(rows, accepts_empty=work.embedder.accepts_empty)
        found = {"start": start, "rows": len(rows), "digest": places.digest()}
        if record is None:
            work.remove(number)  # files of a chunk that nothing tells of
            record = {**found, "rounds": []}
            work.store.put(number, record)
        elif start > self._row or any(record[name] != value for name, value in found.items()):
            stop = start + record["rows"]
            msg = f"rows {start} to {stop - 1} of the input are not those that were sent to the provider: begin anew"
            raise ConfigError(msg)
        self._number, self._row = number + 1, start + len(rows)
        return Chunk(work, number, record, places)

    def _given(self, number: int, count: int) -> list[str | None]:
        """The first rows of a chunk, which an earlier run has given."""
        if count <= 0:
            return []
        path = self._work.texts_at(number)
        try:
            return read_places(path).rows(count)
        except FileNotFoundError:
            msg = f"{path} is missing: without it nobody knows what the batch job holds; begin anew"
            raise ConfigError(msg) from None

    async def _rows(self, count: int | None) -> list[str | None]:
        """So many rows, or as many as there are; None: as many as a job takes."""
        caps = self._work.caps
        most = min(caps.inputs, caps.lines * caps.texts) if count is None else count
        room: float = min(SIZE, caps.bytes) if count is None else math.inf
        rows: list[str | None] = []
        while len(rows) < most and (found := await self._next_text()):
            size = size_of(found[0] if isinstance(found[0], str) else None)
            if rows and size > room:
                self._held += found
                break
            room -= size
            rows += found
        return rows

    async def _next_text(self) -> list[str | None]:
        """The next text; none at the end."""
        if self._held:
            return [self._held.pop()]
        try:
            return [next(self._now) if self._later is None else await anext(self._later)]
        except (StopIteration, StopAsyncIteration):
            return []


__all__ = ["BatchEvent", "BatchStream", "Caps", "Poll", "Store", "batch_stream"]
