"""Writes the rows that came back, in a thread aside, and a checkpoint at most a second after them."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from .._batching.options import stored_width
from .._hints import NDArray
from .._threads import aside
from .._types import Options
from ..codec.vector_math import missing_rows
from ..errors import DecodeError, EmbedkitError
from .contract import Records, Sink
from .disk import AppendedFile, to_json
from .journal import Checkpoint, Journal, Line, Totals
from .stdio import aside as left_behind

INTERVAL = 0.5  # seconds between checkpoints
ENOUGH = 8 * 1024 * 1024  # bytes of vectors that are written before the interval is over
MOST = 16 * 1024 * 1024  # bytes of vectors that wait for a slow disk; then the reader waits
# Seconds of rows that a kill may cost. The reader waits where the oldest row that no checkpoint speaks of is older (the
# disk has stalled), and where an output that is slower than the provider takes longer to write what has come.
AT_STAKE = 1.0
FEWEST = 1024  # rows that may be at stake however slow the output is: each commit costs something by itself
HOPELESS = 10_000  # rows that the provider refused before it gave one vector
FAILURES = "failures.jsonl"


class Rows(msgspec.Struct, frozen=True, gc=False):
    """Rows that came back. `numbers`: of those that failed, by place, their rows of the whole input. `digest`: of all
    rows up to the last of them. `totals`: with them.
    """

    numbers: Mapping[int, int]
    pieces: list[Records]
    keys: Sequence[Any] | None
    vectors: NDArray[Any]
    failures: Mapping[int, str]
    refused: int
    digest: str
    totals: Totals


class Writer:
    """The one place where a job writes.

    Args:
        sink, journal: where rows and checkpoints go.
        folder: the job's.
        options: what the vectors are like.
        now: a clock, in seconds.
    """

    def __init__(self, sink: Sink, journal: Journal, folder: Path, options: Options, now: Callable[[], float]) -> None:
        self._sink = sink
        # A pipe that nobody reads must not keep a canceled job from ending.
        self._aside: Callable[..., Awaitable[object]] = aside if sink.resumable else left_behind
        self._journal = journal
        self._folder = folder
        self._dtype = options.dtype
        self._asked = stored_width(options)  # for an output without a vector; 0: nobody asked
        self._now = now
        self._waiting: list[Rows] = []
        self._bytes = 0
        self._early: list[Rows] = []  # before the width is known
        self._refused = 0
        self._width: int | None = None
        self._failures: AppendedFile | Any = None
        self._last: Rows | None = None  # the newest that is written
        self._synced = -float("inf")
        self._unsynced = False  # rows are written that no checkpoint speaks of
        self._at_stake = 0  # rows that came, and that no checkpoint speaks of
        self._oldest = 0.0  # when the oldest of them came
        self._bearable: float = FEWEST if sink.paced else math.inf  # how many those may be, as the output has shown
        self._busy = 0.0  # seconds of writing since the newest checkpoint
        self._ended = False
        self.checkpointed: Callable[[int], object] | None = None  # is told how many rows are safe
        self._news: Any = None
        self._room: Any = None

    def begin(self, last: Checkpoint | None) -> None:
        """Go on after a checkpoint, or start. What was written after it is undone."""
        self._failures = AppendedFile(
            self._folder / FAILURES, *((last.failures, last.failures_checksum) if last else ())
        )
        if last is not None:
            self._width = last.width
            self._sink.begin(self._folder, missing_rows(0, last.width, self._dtype), last.state)

    async def put(self, rows: Rows) -> None:
        """Have rows written; waits only where the output is far behind."""
        import anyio

        if not self._at_stake:
            self._oldest = self._now()
        self._waiting.append(rows)
        self._bytes += rows.vectors.nbytes
        self._at_stake += len(rows.vectors)
        if self._news is not None:
            self._news.set()
        while self._is_too_much:
            self._room = anyio.Event()
            await self._room.wait()

    @property
    def _is_too_much(self) -> bool:
        """Whether nothing more may come before the next checkpoint."""
        return (
            self._bytes > MOST
            or self._at_stake > self._bearable
            or (self._at_stake > 0 and self._now() - self._oldest > AT_STAKE)
        )

    @property
    def _is_enough(self) -> bool:
        """Whether a checkpoint is due before the interval is over, so that as much again may come meanwhile."""
        return self._at_stake > self._bearable / 2

    def end(self) -> None:
        """No more rows come."""
        self._ended = True
        if self._news is not None:
            self._news.set()

    async def run(self) -> None:
        """Write until the end; everything is on disk then, and in the journal."""
        import anyio

        while not self._ended:
            if not self._waiting:
                if self._unsynced:  # nothing more may come for long: what is written is safe all the same
                    with anyio.move_on_after(max(0.0, self._synced + INTERVAL - self._now())):
                        await self._wait()
                    if not self._waiting and not self._ended:
                        await self._flush(sync=True)
                else:
                    await self._wait()
                continue
            if (left := self._synced + INTERVAL - self._now()) > 0:
                with anyio.move_on_after(left):
                    while not self._ended and self._bytes < ENOUGH and not self._is_enough:
                        await self._wait()
            await self._flush(sync=self._is_enough or self._now() - self._synced >= INTERVAL)
        await self._flush(sync=True)

    async def _wait(self) -> None:
        import anyio

        self._news = anyio.Event()
        await self._news.wait()

    async def _flush(self, *, sync: bool) -> None:
        rows, self._waiting, self._bytes = self._waiting, [], 0
        at_stake, began = self._at_stake, self._now()
        await self._aside(self._write, rows, sync)
        self._busy += self._now() - began
        self._unsynced = not sync
        if sync:
            self._at_stake, self._oldest = self._at_stake - at_stake, began
            if self._sink.paced and at_stake:
                self._bearable = max(FEWEST, 0.9 * self._bearable, AT_STAKE * at_stake / max(self._busy, 1e-9))
            self._busy = 0.0
        if self._room is not None:
            self._room.set()
            self._room = None
        if sync and self.checkpointed is not None and self._journal.last is not None:
            self.checkpointed(self._journal.last.totals.rows)

    def _write(self, waiting: list[Rows], sync: bool) -> None:
        for rows in waiting:
            if self._width is None and not rows.vectors.shape[1]:
                self._early.append(rows)
                self._refused += rows.refused
                if self._refused >= HOPELESS:
                    first = next(iter(self._early[0].failures.values()), "")
                    msg = f"the provider refused the first {self._refused:,} texts, every one; the first: {first}"
                    raise EmbedkitError(msg)
                continue
            if self._width is None:
                self._start(rows.vectors.shape[1])
            elif (came := rows.vectors.shape[1]) != self._width and len(rows.failures) < len(rows.vectors):
                self._checkpoint(complete=False)  # of what came before it
                msg = (
                    f"vectors of {came} values came, and those of the rows that are written have {self._width}: the "
                    "provider has put another model in the place of the one that the job began with; with that one "
                    "back the same job goes on, and --force begins anew"
                )
                raise DecodeError(msg)
            self._put(rows)
        if sync:
            self._checkpoint(complete=False)

    def _start(self, width: int) -> None:
        self._width = width
        self._sink.begin(self._folder, missing_rows(0, width, self._dtype), None)
        early, self._early = self._early, []
        for rows in early:
            self._put(rows)

    def _put(self, rows: Rows) -> None:
        vectors = rows.vectors
        if vectors.shape[1] != self._width:
            vectors = missing_rows(len(vectors), self._width or 0, self._dtype)
        self._sink.write(rows.pieces, vectors, rows.failures, rows.keys)
        for place, reason in rows.failures.items():
            failure = {"row": rows.numbers[place], "key": rows.keys[place] if rows.keys else None, "reason": reason}
            self._failures.append(to_json(failure) + b"\n")
        self._last = rows

    def _checkpoint(self, *, complete: bool) -> None:
        if self._last is None and not complete:
            return
        state = self._sink.sync()
        self._failures.sync()
        before = self._journal.last
        totals = self._last.totals if self._last is not None else before.totals if before is not None else Totals()
        digest = self._last.digest if self._last is not None else before.digest if before is not None else ""
        self._journal.append(
            Line(
                checkpoint=Checkpoint(
                    totals=totals,
                    digest=digest,
                    width=self._width or 0,
                    state=state,
                    failures=self._failures.size,
                    failures_checksum=self._failures.checksum,
                    complete=complete,
                )
            )
        )
        self._last = None
        self._synced = self._now()

    def complete(self, digest: str) -> None:
        """Every row is written: say so in the journal. `digest`: of all rows."""
        if self._width is None:
            self._start(self._asked)
        if self._journal.last is None and self._last is None:  # an input without rows
            self._last = Rows({}, [], None, missing_rows(0, 0, self._dtype), {}, 0, digest, Totals())
        self._checkpoint(complete=True)

    def close(self) -> None:
        """Close what is open."""
        if self._failures is not None:
            self._failures.close()
            self._failures = None
