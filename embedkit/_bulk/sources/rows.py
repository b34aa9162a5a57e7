"""Rows on their way into blocks: where one stands, in words, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from ...errors import ConfigError
from ..contract import Block, Record
from .fields import Fields

ADDED = frozenset({"embedding", "embedding_error"})  # the columns that outputs add
BLOCK = 256  # rows, at most
LONGEST = 1 << 28  # bytes of one row: what is longer is read as a whole by nobody
Lines = Callable[[int], int | None]  # the line of a row, by its place among some; None: there are no lines
SKIP = "--on-error skip makes it a failed row"


class Line(dict[str, Any]):
    """A record of JSON, and its own text: written on as that,
    nothing in it changes, not even what JSON does not know (NaN).
    """

    __slots__ = ("source",)
    source: bytes


class How(msgspec.Struct, frozen=True, kw_only=True):
    """How an input is read.

    Attributes:
        fields: where text and key are.
        carried: how the output keeps the columns beside the text: as "jsonl", as "parquet", or not at all ("").
        skip: rows without a usable text come as None instead of being refused.
        empty: an empty text is usable.
        encoding: of text, JSON and CSV; one of Python's codecs.
        delimiter: of CSV; None: a comma, or what the header shows.
        limit: rows read, at most.
    """

    fields: Fields = Fields()
    carried: str = ""
    skip: bool = True
    empty: bool = True
    encoding: str = "utf-8"
    delimiter: str | None = None
    limit: int | None = None


class At(msgspec.Struct, frozen=True):
    """A file among those read.

    Attributes:
        name: for messages.
        first: the row of the whole input that its first row is.
        several: there are others.
    """

    name: str
    first: int = 0
    several: bool = False

    def where(self, row: int, line: int | None = None) -> str:
        """The row of this file in words, for an error."""
        own = f"line {line}" if line is not None else f"row {row} of this file" if self.several else ""
        return f"{self.name}, row {self.first + row}{f' ({own})' if own else ''}"

    def fault(self, row: int, line: int | None, why: str, how: How) -> str:
        """What is wrong with a row, for its own error; raised at once unless such rows are skipped."""
        if not how.skip and (how.limit is None or self.first + row < how.limit):
            msg = f"{self.where(row, line)}: {why}; {SKIP}"
            raise ConfigError(msg)
        if not self.several:
            return why if line is None else f"line {line}: {why}"
        return f"{self.name}, row {row}: {why}" if line is None else f"{self.name}, line {line}: {why}"


class Builder:
    """Makes blocks of the rows of one file, one row at a time.

    Args:
        lean: no records are wanted, only texts, keys and faults.
    """

    def __init__(self, how: How, at: At, *, lean: bool) -> None:
        self.row = 0  # of the file: the next one
        self._how, self._at, self._lean = how, at, lean
        self._new()

    def _new(self) -> None:
        self._texts: list[str | None] = []
        self._records: list[Record] = []
        self._faults: dict[int, str] = {}
        self._keys: list[Any] = []

    def __len__(self) -> int:
        return len(self._texts)

    def take(self) -> Block:
        """The rows added since the last block."""
        records = self._records if self._how.carried and not self._lean else [{}] * len(self._texts)
        block = Block(self._texts, records, self._faults, None if self._how.fields.key is None else self._keys)
        self._new()
        return block

    def record(self, line: int | None, record: Record, fault: str = "") -> None:
        """Add the row that a record is."""
        how, text, key = self._how, None, None
        if how.carried and not ADDED.isdisjoint(record):
            raise ConfigError(taken(self._at.where(self.row, line), record))
        if not fault:
            text, fault = how.fields.text(record)
        if how.fields.key is not None:
            key, unknown = how.fields.known_by(record)
            fault = fault or unknown
        self.add(line, record, text, key, fault)

    def add(self, line: int | None, record: Record, text: str | None, key: Any, fault: str) -> None:
        """Add a row whose text and key are known."""
        if text == "" and not self._how.empty and not fault:
            fault = self._how.fields.empty()
        if fault:
            text = None
            self._faults[self._at.first + self.row] = self._at.fault(self.row, line, fault, self._how)
        self._texts.append(text)
        self._records.append(record)
        self._keys.append(key)
        self.row += 1

    def lot(self, texts: list[str], records: list[Record], keys: list[Any] | None, line_of: Lines) -> Block:
        """A block of rows that are good if they are not empty; nothing may be waiting."""
        kept = records if self._how.carried and not self._lean else [{}] * len(texts)
        wrong = {}
        if not self._how.empty and "" in texts:
            wrong = {place: self._how.fields.empty() for place, text in enumerate(texts) if not text}
        return self.judged([*texts], kept, keys, wrong, line_of)

    def judged(
        self, texts: list[str | None], records: Any, keys: list[Any] | None, wrong: dict[int, str], line_of: Lines
    ) -> Block:
        """A block of rows of which those in `wrong` (by place) have no usable text."""
        faults = {}
        for place, why in sorted(wrong.items()):
            why_there = self._at.fault(self.row + place, line_of(place), why, self._how)
            faults[self._at.first + self.row + place] = why_there
            texts[place] = None
        self.row += len(texts)
        return Block(texts, records, faults, keys)


def taken(where: str, names: Iterable[str]) -> str:
    """That the input has what the output adds."""
    name = min(ADDED.intersection(names))
    return f"{where}: there is an {name!r} already, and the output adds its own; rename it, or write .npy"


def first(blocks: Iterator[Block], limit: int | None) -> Iterator[Block]:
    """No more than so many rows of these."""
    row = 0
    if limit == 0:
        return
    for block in blocks:
        rest = None if limit is None else limit - row
        row += len(block.texts)
        if rest is None or len(block.texts) < rest:
            yield block
            continue
        faults = {place: why for place, why in block.faults.items() if place < (limit or 0)}
        yield Block(block.texts[:rest], block.records[:rest], faults, None if block.keys is None else block.keys[:rest])
        return
