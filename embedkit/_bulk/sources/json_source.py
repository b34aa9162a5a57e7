"""A JSON array: an object or a string for each row, however long the array and however it is laid out.

A window of it is read at a time. What lies between the place that has been reached and some later "}," is decoded as an
array of its own: if that works, both are ends of elements, because JSON is read from left to right. Where it does not,
Python's decoder says where the next elements end.

(ijson would read a stream, but refuses all of it for one NaN, one byte that is no UTF-8 or one number that is too long,
makes a question mark of half a surrogate pair, and keeps no element's own text, which is carried to the output; msgspec
and simdjson decode whole documents only.)
"""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8 as BOM
from typing import TYPE_CHECKING

import msgspec

from ...errors import ConfigError
from .json_reader import JsonReader
from .json_rows import real, whole
from .rows import BLOCK, LONGEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..contract import Block
    from .rows import At, How
    from .streams import Pieces

SPACE = re.compile(rb"[ \t\r\n]*")
COMMA = re.compile(r"[ \t\r\n]*,[ \t\r\n]*")
FEW = 1 << 19  # bytes left in a window, below which more are read
GUESSES = 8  # places where a window may be cut that are tried
EXPONENT = 3  # characters behind a number that may belong to it, if the rest of them comes: "e-" of 1e-7
MARGIN = 16  # characters before the end of a window, where an error may be owed to the cut: "-Infinit", "\ud83d\ud"
_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode = json.JSONDecoder().raw_decode
_decode_any = json.JSONDecoder(parse_int=whole, parse_float=real).raw_decode


def read(file: Pieces, how: How, at: At, *, lean: bool) -> Iterator[Block]:
    """Every element.

    Raises:
        ConfigError: it is no array, is cut off, or is no JSON from some place on: what comes after that is lost.
    """
    reader = JsonReader(how, at, lean=lean)
    window = _Window(file, at)
    window.skip(b"[")
    some = more = not window.skips(b"]")
    while more:
        found, line_of = window.elements(reader.rows.row)
        for start in range(0, len(found), BLOCK):
            yield reader.block(found[start : start + BLOCK], _after(start, line_of))
        more = window.skips(b",")
    if some:
        window.skip(b"]")
    window.end()


def _after(start: int, line_of: Callable[[int], int]) -> Callable[[int], int]:
    return lambda place: line_of(start + place)


class _Window:
    """What has been read of an array and is not done with."""

    def __init__(self, file: Pieces, at: At) -> None:
        self._file, self._at = file, at
        self._bytes, self._place, self._ended = b"", 0, False
        self._line, self._counted = 1, 0  # the line of a place
        while not self._ended and len(self._bytes) < len(BOM):
            self._more()
        self._bytes = self._bytes.removeprefix(BOM)

    def _more(self, most: int = 1) -> bool:
        """Read on, until there are so many bytes more; whether there was anything."""
        self._line_here()
        rest = [self._bytes[self._place :]]
        self._place = self._counted = 0
        size = 0
        while size < most and not self._ended:
            rest.append(self._file.some())
            self._ended = not rest[-1]
            size += len(rest[-1])
        self._bytes = b"".join(rest)
        return size > 0

    def _line_here(self) -> int:
        self._line += self._bytes.count(b"\n", self._counted, self._place)
        self._counted = self._place
        return self._line

    def _next(self) -> bytes:
        """The next byte that is no space; none at the end."""
        while True:
            self._place = SPACE.match(self._bytes, self._place).end()  # type: ignore[union-attr]  # it matches anything
            if self._place < len(self._bytes):
                return self._bytes[self._place : self._place + 1]
            if not self._more():
                return b""

    def skips(self, mark: bytes) -> bool:
        """Whether this mark comes next; then it is behind."""
        if self._next() != mark:
            return False
        self._place += 1
        return True

    def skip(self, mark: bytes) -> None:
        """Go behind a mark that has to come next."""
        if self.skips(mark):
            return
        there = self._next().decode("utf-8", "replace")
        if mark == b"[":
            begins = f"this with {there!r}" if there else "this is empty"
            msg = (
                f"{self._at.name}: a JSON array begins with '[', and {begins}; "
                "one object per line is --input-format jsonl"
            )
            raise ConfigError(msg)
        what = "the array has no end: not all of it is there" if not there else f"',' or ']' expected, not {there!r}"
        msg = f"{self._at.name}, line {self._line_here()}: {what}"
        raise ConfigError(msg)

    def end(self) -> None:
        """Refuse what stands behind the array."""
        if there := self._next():
            shown = there.decode("utf-8", "replace")
            msg = f"{self._at.name}, line {self._line_here()}: {shown!r} after the end of the array"
            raise ConfigError(msg)

    def elements(self, row: int) -> tuple[list[bytes], Callable[[int], int]]:
        """(the next elements, of which there is one at least; a function that gives the line of each)."""
        if not self._next():
            self.skip(b"]")
        if len(self._bytes) - self._place < FEW:
            self._more()
        found: list[bytes] = []
        while not found:
            found, end = self._many()
            if not found:
                found, end = self._some(row)
        line, text = self._line_here(), self._bytes[self._place : end]
        self._place = end
        return found, _lines_of(found, text, line)

    def _many(self) -> tuple[list[bytes], int]:
        """(all elements up to some place in the window, that place); none if they are not by the book."""
        mark = b'",' if self._bytes.startswith(b'"', self._place) else b"},"
        end = len(self._bytes)
        for _ in range(GUESSES):
            end = self._bytes.rfind(mark, self._place, end)
            if end < 0:
                break
            try:
                found = _array(b"[%b]" % self._bytes[self._place : end + 1])
            except (msgspec.DecodeError, RecursionError):
                continue
            return [*map(bytes, found)], end + 1
        return [], 0

    def _some(self, row: int) -> tuple[list[bytes], int]:
        """(the next elements as Python reads them, the place behind them); none if there has to be more of the first,
        which is then there.
        """
        text = self._bytes[self._place :].decode("utf-8", "surrogateescape")
        found: list[str] = []
        place = end = 0
        why = ""
        while len(found) < BLOCK:
            try:
                stop = _end_of(text, place)
            except json.JSONDecodeError as error:
                why = error.msg
                cut = error.pos + MARGIN >= len(text) or why.startswith("Unterminated")
                break
            except RecursionError:
                why, cut = "nested too deeply to be read", False
                break
            if not self._ended and stop + EXPONENT >= len(text) and text[place] not in '"{[':
                cut = True
                break
            found.append(text[place:stop])
            end = stop
            comma = COMMA.match(text, stop)
            if comma is None or comma.end() == len(text):
                break
            place = comma.end()
        if not found and not (cut and self._more(len(text))):
            msg = f"{self._at.where(row, self._line_here())}: not JSON: {why}; what follows cannot be read"
            raise ConfigError(msg)
        if not found and len(text) > LONGEST:
            msg = f"{self._at.where(row, self._line_here())}: an element is longer than {LONGEST >> 20} MiB"
            raise ConfigError(msg)
        behind = self._place + len(text[:end].encode("utf-8", "surrogateescape"))
        return [each.encode("utf-8", "surrogateescape") for each in found], behind


def _end_of(text: str, place: int) -> int:
    try:
        return _decode(text, place)[1]
    except json.JSONDecodeError:
        raise
    except ValueError:  # a whole number of more digits than Python reads
        return _decode_any(text, place)[1]


def _lines_of(elements: list[bytes], text: bytes, line: int) -> Callable[[int], int]:
    """The lines of elements, in a text that begins in this line; counted when somebody asks."""
    known: list[int] = []

    def line_of(number: int) -> int:
        if not known:
            place, here = 0, line
            for element in elements:
                begin = text.index(element, place)
                here += text.count(b"\n", place, begin)
                known.append(here)
                place = begin + len(element)
                here += element.count(b"\n")
        return known[number]

    return line_of
