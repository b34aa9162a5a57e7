"""Rows of JSON, whatever stands between them: an object or a string each, some at a time.

A row is good if msgspec reads the fields that are needed; what it does not read is read once more as Python writes
JSON. Looking through an input decodes nothing else, and so finds what reading it finds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from .json_fields import typed
from .json_rows import DEEPEST, as_python_writes_it, check_for_parquet, half, record_of
from .rows import Builder, Line
from .streams import is_utf8, not_utf8

if TYPE_CHECKING:
    from ..contract import Block
    from .rows import At, How


class JsonReader:
    """Makes blocks of rows of JSON. `lean`: no records are wanted."""

    def __init__(self, how: How, at: At, *, lean: bool) -> None:
        self.rows = Builder(how, at, lean=lean)
        self._how, self._at = how, at
        self._whole = how.carried != "" and not lean
        self._values = typed(how.fields, beside=how.carried != "")

    def block(self, parts: list[bytes], line_of: Callable[[int], int]) -> Block:
        """A block of these rows; a blank one is none. `line_of` gives the line that one begins in."""
        values = self._values(parts) if self._values is not None and self._plain(parts) else None
        records = self._records(parts) if values is not None and self._whole else []
        if values is not None and records is not None:
            return self.rows.lot(values[0], records, values[1], line_of)
        for place, part in enumerate(parts):
            if part.strip():
                self._add(part, line_of(place))
        return self.rows.take()

    def _plain(self, parts: list[bytes]) -> bool:
        """Whether all of them are UTF-8, and none can be nested too deeply for Parquet."""
        flat = self._how.carried != "parquet" or all(_brackets(part) <= DEEPEST for part in parts)
        return flat and all(map(is_utf8, parts))

    def _records(self, parts: list[bytes]) -> list[Any] | None:
        """The records of rows that are good; None if one is JSON of Python's."""
        try:
            values = [*map(msgspec.json.decode, parts)]
        except (msgspec.DecodeError, RecursionError):
            return None
        records: list[Any] = []
        for value, part in zip(values, parts, strict=True):
            if type(value) is dict:
                record = Line(value)
                record.source = on_a_line(part)
                records.append(record)
            else:
                records.append(record_of(value, on_a_line(part), self._how.fields, "")[0])
        return records

    def _add(self, part: bytes, line: int) -> None:
        how, value, fault, by_the_book = self._how, None, not_utf8(part, self._how.encoding), True
        if not fault:
            try:
                value = msgspec.json.decode(part)
            except (msgspec.DecodeError, RecursionError):
                value, fault = as_python_writes_it(part.decode().rstrip("\r"))
                by_the_book = False
        if how.carried == "parquet" and (not by_the_book or _brackets(part) > DEEPEST):
            check_for_parquet(value, how.fields, _brackets(part), self._at.where(self.rows.row, line))
        if not by_the_book and not fault:
            fault = half(value, how.fields, how.carried)
        self.rows.record(line, *record_of(value, on_a_line(part), how.fields, fault))


def on_a_line(part: bytes) -> bytes:
    """The same JSON on one line: line breaks stand between its tokens only."""
    part = part.strip()
    if b"\n" in part:
        try:
            return msgspec.json.format(part, indent=-1)
        except msgspec.DecodeError:  # NaN, say
            part = part.replace(b"\n", b" ")
    return part.replace(b"\r", b" ")


def _brackets(part: bytes) -> int:
    return part.count(b"[") + part.count(b"{")
