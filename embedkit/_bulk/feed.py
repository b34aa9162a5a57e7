"""Feeds a stream from a source, and gives the records back beside the vectors, in the same order."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from ..errors import ConfigError
from .contract import Block, Records, RowDigest, Source
from .parked import ParkedBlocks
from .read_ahead import ReadAhead
from .stdio import aside


class Taken(msgspec.Struct, frozen=True, gc=False):
    """Rows whose vectors have come: records in pieces as they were read, keys, and by place what was wrong with them
    before they were sent.
    """

    texts: list[str | None]
    pieces: list[Records]
    keys: list[Any] | None
    faults: dict[int, str]


class Feed:
    """The rows of a source, on their way to the provider and back.

    Args:
        source: where they come from.
        may: asked before each text; False ends the feed, as `stop` does.
        expected: rows that a look through the source has counted. Where fewer come, somebody has cut it meanwhile,
            and the last of them may be half a row: it is not handed out.
        waiting: where blocks wait for their vectors; None: in memory.
        holds: asked before each text: True holds it back until a row has come back.

    Attributes:
        read: rows that came so far.
        over: no more texts are handed out.
        cut_short: ended by `stop` or `may`, with rows left.
        too_few: ended with fewer rows than were expected.
    """

    def __init__(
        self,
        source: Source,
        may: Callable[[str | None], bool] | None = None,
        expected: int | None = None,
        waiting: ParkedBlocks | None = None,
        holds: Callable[[], bool] | None = None,
    ) -> None:
        self.digest = RowDigest()  # of the rows that were taken
        self._blocks = source.blocks()
        self._aside = source.aside
        self._may = may
        self._holds = holds
        self._news: Any = None  # an event, while a text is held back
        self._waiting: deque[Block] | ParkedBlocks = deque() if waiting is None else waiting
        self._ahead = ReadAhead(self._blocks) if source.aside else None
        self._expected = expected
        self.read: int = 0
        self.over = False
        self.cut_short = False
        self.too_few: bool = False

    async def skip(self, rows: int, digest: str, output: str) -> None:
        """Leave out the first rows, which an earlier run has written to `output`.

        Raises:
            ConfigError: they are not the rows that it wrote.
        """
        if rows and self._aside:
            await aside(self._skip, rows, digest, output)
        elif rows:
            self._skip(rows, digest, output)

    def _skip(self, rows: int, digest: str, output: str) -> None:
        while self.digest.rows < rows:
            block = next(self._blocks, None)
            if block is None:
                msg = (
                    f"the input has {self.digest.rows:,} rows, and {output} has {rows:,} already; "
                    "--force begins anew and replaces it"
                )
                raise ConfigError(msg)
            head, rest = _cut(block, rows - self.digest.rows)
            self.digest.update(head.texts, head.keys)
            if rest is not None:
                self._waiting.append(rest)
        if digest and self.digest.hex() != digest:
            msg = (
                f"the first {rows:,} rows of the input are not those that were embedded for {output}; "
                "--force begins anew and replaces it"
            )
            raise ConfigError(msg)

    async def texts(self) -> AsyncIterator[Any]:
        """Every text, None where a row has none."""
        may = self._may
        begun = [self._waiting[0]] if self._waiting else []  # the end of a block whose beginning was left out
        self.read = self.digest.rows
        held: list[str | None] = []  # the last row so far, where rows are expected
        while True:
            for block in begun:
                self.read += len(block.texts)
                texts = block.texts
                if self._expected is not None and texts:
                    texts, held = [*held, *texts[:-1]], texts[-1:]
                for text in texts:
                    while self._holds is not None and self._holds() and not self.over:
                        await self._row_back()
                    if self.over or (may is not None and not may(text)):
                        self.over = self.cut_short = True
                        return
                    yield text
            block_read = await self._next()
            if block_read is None:
                break
            self._waiting.append(block_read)
            begun = [block_read]
        self.too_few = not self.over and self._expected is not None and self.read < self._expected
        for text in [] if self.too_few or self.over else held:
            if may is not None and not may(text):
                self.over = self.cut_short = True
                return
            yield text

    async def _row_back(self) -> None:
        """Wait until a row comes back, or nothing more is handed out."""
        import anyio

        self._news = anyio.Event()
        await self._news.wait()

    def _tell(self) -> None:
        if self._news is not None:
            self._news.set()

    async def _next(self) -> Block | None:
        if not self.over:
            block = next(self._blocks, None) if self._ahead is None else await self._ahead.next()
            if block is not None or not self.over:
                return block
        self.cut_short = True
        return None

    def stop(self) -> None:
        """Hand out no more texts. What has been handed out still comes back."""
        self.over = True
        self._tell()
        if self._ahead is not None:
            self._ahead.close()

    def close(self) -> None:
        """Read no more of the source, and let go of what waits on disk."""
        if self._ahead is not None:
            self._ahead.close()
        if isinstance(self._waiting, ParkedBlocks):
            self._waiting.close()

    def take(self, count: int) -> Taken:
        """The next `count` rows, whose vectors have come."""
        texts: list[str | None] = []
        pieces: list[Records] = []
        keys: list[Any] | None = None
        faults: dict[int, str] = {}
        begin = self.digest.rows
        while len(texts) < count or (self._waiting and not self._waiting[0].texts):
            block = self._waiting.popleft()
            head, rest = _cut(block, count - len(texts))
            if rest is not None:
                self._waiting.appendleft(rest)
            faults.update({row - begin: fault for row, fault in head.faults.items()})
            texts += head.texts
            pieces.append(head.records)
            keys = head.keys if keys is None else keys + (head.keys or [])
        self.digest.update(texts, keys)
        self._tell()
        return Taken(texts, pieces, keys, faults)


def _cut(block: Block, count: int) -> tuple[Block, Block | None]:
    """The first `count` rows of a block, and the others."""
    if len(block.texts) <= count:
        return block, None
    parts: tuple[dict[int, str], dict[int, str]] = ({}, {})
    if block.faults:
        # Faults are by row of the whole input, which the block does not know: they are told apart by their order.
        bad = [place for place, text in enumerate(block.texts) if text is None]
        rows = sorted(block.faults)
        split = sum(place < count for place in bad)
        parts = ({row: block.faults[row] for row in rows[:split]}, {row: block.faults[row] for row in rows[split:]})
    keys = block.keys
    return (
        Block(block.texts[:count], block.records[:count], parts[0], None if keys is None else keys[:count]),
        Block(block.texts[count:], block.records[count:], parts[1], None if keys is None else keys[count:]),
    )
