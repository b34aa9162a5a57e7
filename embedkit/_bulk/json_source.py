"""A JSON array: an object or a string for each row, however long the array and however it is laid out.

It is read element by element from a window of its text. Python's own decoder says where an element ends: msgspec
decodes whole documents only, and ijson, which walks a stream event by event, makes a decimal of every number and takes
several times as long.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import ConfigError
from .fields import sayable
from .json_rows import check_for_parquet, half, real, record_of, whole
from .rows import BLOCK, LONGEST, Builder
from .streams import MARK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .contract import Block
    from .rows import At, How
    from .streams import Pieces

SPACE = re.compile(r"[ \t\r\n]*")
MARGIN = 16  # characters before the end of a window, where an error may be owed to the cut: "-Infinit", "\ud83d\ud"
_decode = json.JSONDecoder().raw_decode
_decode_any = json.JSONDecoder(parse_int=whole, parse_float=real).raw_decode


def read(file: Pieces, how: How, at: At, *, lean: bool) -> Iterator[Block]:
    """Every element.

    Raises:
        ConfigError: it is no array, is cut off, or is no JSON from some place on: what comes after that is lost.
    """
    rows = Builder(how, at, lean=lean)
    window = _Window(file, at)
    window.skip("[")
    more = not window.skips("]")
    while more:
        value, text, line = window.element(rows.row)
        _add(value, text, line, rows, how, at)
        if len(rows) == BLOCK:
            yield rows.take()
        more = window.skips(",")
    window.skip("]")
    window.end()
    if len(rows):
        yield rows.take()


def _add(value: Any, text: str, line: int, rows: Builder, how: How, at: At) -> None:
    if not sayable(text):
        rows.record(line, {how.fields.column: None}, f"not {'UTF-8' if how.encoding == 'utf-8' else how.encoding}")
        return
    carried = how.carried != ""
    fault = half(value, how.fields, how.carried) if "\\u" in text else ""
    if how.carried == "parquet":
        check_for_parquet(value, how.fields, text.count("[") + text.count("{"), at.where(rows.row, line))
    source = text.encode() if carried or not isinstance(value, dict) else b""
    if b"\n" in source or b"\r" in source:
        source = _on_a_line(source)
    rows.record(line, *record_of(value, source, how.fields, fault))


def _on_a_line(source: bytes) -> bytes:
    try:
        return msgspec.json.format(source, indent=-1)
    except msgspec.DecodeError:  # NaN, say: line breaks stand between values only
        return source.replace(b"\r", b" ").replace(b"\n", b" ")


class _Window:
    """What has been read of a text and is not done with."""

    def __init__(self, file: Pieces, at: At) -> None:
        self._file, self._at = file, at
        self._decoder = codecs.getincrementaldecoder("utf-8")(MARK)
        self._text, self._place, self._ended = "", 0, False
        self._line, self._counted = 1, 0  # the line of a place
        self._more()
        self._text = self._text.removeprefix("\ufeff")

    def _more(self, most: int = 1) -> bool:
        """Read on, until there are so many characters more; whether there was anything."""
        self._line = self._line_here()
        rest = [self._text[self._place :]]
        self._place = self._counted = 0
        size = 0
        while size < most and not self._ended:
            piece = self._file.some()
            self._ended = not piece
            rest.append(self._decoder.decode(piece, self._ended))
            size += len(rest[-1])
        self._text = "".join(rest)
        return size > 0

    def _line_here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._place)
        self._counted = self._place
        return self._line

    def _next(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            self._place = SPACE.match(self._text, self._place).end()  # type: ignore[union-attr]  # it matches anything
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._more():
                return ""

    def skips(self, mark: str) -> bool:
        """Whether this mark comes next; then it is behind."""
        if self._next() != mark:
            return False
        self._place += 1
        return True

    def skip(self, mark: str) -> None:
        """Go behind a mark that has to come next."""
        if self.skips(mark):
            return
        there = self._next()
        if mark == "[":
            msg = (
                f"{self._at.name}: a JSON array begins with '[', and this with {there!r}; "
                "one object per line is --input-format jsonl"
            )
            raise ConfigError(msg)
        what = "the array has no end: not all of it is there" if not there else f"',' or ']' expected, not {there!r}"
        msg = f"{self._at.name}, line {self._line_here()}: {what}"
        raise ConfigError(msg)

    def end(self) -> None:
        """Refuse what stands behind the array."""
        if there := self._next():
            msg = f"{self._at.name}, line {self._line_here()}: {there!r} after the end of the array"
            raise ConfigError(msg)

    def element(self, row: int) -> tuple[Any, str, int]:
        """(the next value, its text, its line)."""
        self._next()
        while True:
            try:
                value, end = self._decoded()
            except json.JSONDecodeError as error:
                why = error.msg
                certain = error.pos + MARGIN < len(self._text) and not why.startswith("Unterminated")
            except RecursionError:
                why, certain = "nested too deeply to be read", True
            else:
                if end < len(self._text) or self._ended:
                    found = self._text[self._place : end]
                    line = self._line_here()
                    self._place = end
                    return value, found, line
                why, certain = "", False  # a number may go on
            size = len(self._text) - self._place
            if certain or (not self._more(size) and why):
                msg = f"{self._at.where(row, self._line_here())}: not JSON: {why}; what follows cannot be read"
                raise ConfigError(msg)
            if size > LONGEST:
                msg = f"{self._at.where(row, self._line_here())}: longer than {LONGEST >> 20} MiB"
                raise ConfigError(msg)

    def _decoded(self) -> tuple[Any, int]:
        try:
            return _decode(self._text, self._place)
        except json.JSONDecodeError:
            raise
        except ValueError:  # a whole number of more digits than Python reads
            return _decode_any(self._text, self._place)
