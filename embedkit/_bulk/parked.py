"""Blocks that wait for hours, on disk: a batch job holds many texts, and what came beside them is wanted at its end.

They lie in files without a name (`tempfile.TemporaryFile`) in the job's folder: no other process can put something else
there, which makes `pickle` safe to read, and a crash leaves none. A source is read again after a crash anyhow.
"""

from __future__ import annotations

import pickle
from collections import deque
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import msgspec

from .contract import Block
from .disk import naming

SEGMENT = 32 * 1024 * 1024  # bytes of one file; each goes when the last of its blocks is taken


class _Segment:
    def __init__(self, folder: Path) -> None:
        self.file: IO[bytes] = TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 (closed with its last block)
        self.size = 0
        self.left = 0  # blocks that are still wanted


class _Place(msgspec.Struct, frozen=True, gc=False):
    segment: _Segment
    start: int
    size: int


class ParkedBlocks:
    """A queue of blocks, as much of `collections.deque` as a `Feed` uses. In memory are the first one, once it was
    looked at, and blocks with records that pickle cannot write.

    Args:
        folder: in which the files lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: deque[Block | _Place] = deque()
        self._written: _Segment | None = None  # takes what comes next

    def __len__(self) -> int:
        return len(self._waiting)

    def __getitem__(self, place: int) -> Block:
        if place:
            msg = "only the first block is looked at"
            raise IndexError(msg)
        self._waiting[0] = block = self._read(self._waiting[0])
        return block

    def append(self, block: Block) -> None:
        """Add a block at the end.

        Raises:
            OSError: the disk is full; names the folder.
        """
        try:
            data = pickle.dumps(block, pickle.HIGHEST_PROTOCOL)
        except Exception:  # noqa: BLE001 (a record of the caller's may hold anything)
            self._waiting.append(block)
            return
        with naming(self._folder):
            segment = self._written
            if segment is None or segment.size >= SEGMENT:
                segment = self._written = _Segment(self._folder)
            segment.file.seek(segment.size)
            view = memoryview(data)
            while view:
                view = view[segment.file.write(view) :]
        self._waiting.append(_Place(segment, segment.size, len(data)))
        segment.size += len(data)
        segment.left += 1

    def appendleft(self, block: Block) -> None:
        """Put a block back before all others."""
        self._waiting.appendleft(block)

    def popleft(self) -> Block:
        """Take the first block away."""
        return self._read(self._waiting.popleft())

    def close(self) -> None:
        """Let go of the files, and of all blocks."""
        while self._waiting:
            waiting = self._waiting.popleft()
            if isinstance(waiting, _Place):
                self._let_go(waiting.segment)

    def _read(self, waiting: Block | _Place) -> Block:
        if isinstance(waiting, Block):
            return waiting
        with naming(self._folder):
            waiting.segment.file.seek(waiting.start)
            data = waiting.segment.file.read(waiting.size)
        self._let_go(waiting.segment)
        block: Block = pickle.loads(data)  # noqa: S301 (ours: the file has no name)
        return block

    def _let_go(self, segment: _Segment) -> None:
        segment.left -= 1
        if not segment.left:
            segment.file.close()
            if segment is self._written:
                self._written = None
