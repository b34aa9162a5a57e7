"""CSV and TSV with a header, as RFC 4180 has them: quotes, line breaks within them, either line ending."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .fields import missing, sayable
from .rows import ADDED, BLOCK, Builder, taken

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .contract import Block
    from .rows import At, How
    from .streams import Pieces

DELIMITERS = ",\t;|"  # tried in this order
LONGEST_FIELD = 1 << 27  # characters; a quote that is never closed swallows no more than that


def read(file: Pieces, how: How, at: At, form: str, *, lean: bool) -> Iterator[Block]:
    """Every row; a blank line is none, and a short row has no value at its end."""
    rows, table = Builder(how, at, lean=lean), _Table(file, how, at, form)
    header, width = table.header, len(table.header)
    fields, carried = how.fields, how.carried != "" and not lean
    places = [header.index(name) for name in fields.names]
    key = None if fields.key is None else header.index(fields.key)
    simple = not fields.template and key is None and not carried
    place = places[0]
    coding = "UTF-8" if how.encoding == "utf-8" else how.encoding
    for line, values in table:
        fault = ""
        if len(values) > width:
            fault = f"{len(values)} fields, but the header has {width}"
        joined = "".join(values)
        if not joined.isascii() and not sayable(joined):
            fault = f"not {coding}"
        if simple and not fault and len(values) > place:
            rows.add(line, {}, values[place], None, "")
        else:
            kept: list[str | None] = [each if not fault or sayable(each) else None for each in values]
            kept += [None] * (width - len(kept))
            rows.record(line, dict(zip(header, kept, strict=False)), fault)
        if len(rows) == BLOCK:
            yield rows.take()
    yield rows.take()


def check(file: Pieces, how: How, at: At, form: str) -> list[str]:
    """The header, if rows can be read by it."""
    return _Table(file, how, at, form).header


class _Table:
    """The header and the rows of a file.

    Raises:
        ConfigError: a column is missing or is there twice; a quote is not as it should be.
    """

    def __init__(self, file: Pieces, how: How, at: At, form: str) -> None:
        if (
            csv.field_size_limit() < LONGEST_FIELD
        ):  # 131,072 characters unless somebody said more: many a text is longer
            csv.field_size_limit(LONGEST_FIELD)
        self._at = at
        lines: Iterator[str] = io.TextIOWrapper(
            io.BufferedReader(file, 1 << 16), "utf-8-sig", "surrogateescape", newline=""
        )
        first: str = next((line for line in lines if line.strip("\r\n")), "")  # a blank line is none
        mark = how.delimiter or _delimiter(first, "\t" if form == "tsv" else ",", how.fields.needed)
        self._rows = csv.reader(_put_back(first, lines), strict=True, delimiter=mark)
        try:
            self.header = next(self._rows, [])
        except csv.Error as error:
            msg = f"{at.name}, the header: {error}"
            raise ConfigError(msg) from None
        _check_header(self.header, how, at.name, mark)

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        row = 0
        try:
            for values in self._rows:
                if values:
                    yield self._rows.line_num, values
                    row += 1
        except csv.Error as error:
            where = f"{self._at.name}, row {self._at.first + row} (after line {self._rows.line_num})"
            msg = f"{where}: {error}; what follows cannot be read"
            raise ConfigError(msg) from None


def _put_back(first: str, lines: Any) -> Iterator[str]:
    if first:
        yield first
    yield from lines


def _delimiter(line: str, usual: str, names: tuple[str, ...]) -> str:
    """The mark by which a header has the columns that are needed; the usual one if several have them, or none."""
    for mark in dict.fromkeys([usual, *DELIMITERS]):
        try:
            header = next(csv.reader([line], delimiter=mark), [])
        except csv.Error:
            continue
        if all(name in header for name in names):
            return mark
    return usual


def _check_header(header: list[str], how: How, name: str, mark: str) -> None:
    what = ""
    lacking = next((each for each in how.fields.needed if each not in header), None)
    twice = next((each for each in header if header.count(each) > 1), None)
    if not sayable(header):
        what = f"the header is not {'UTF-8' if how.encoding == 'utf-8' else how.encoding}; --encoding names another"
    elif lacking is not None:
        option = "--key" if lacking == how.fields.key else "--template" if how.fields.template else "--column"
        what = missing(lacking, header, option) + _other_mark(header, mark)
    elif twice is not None:
        what = f"two columns are called {twice!r}"
    elif how.carried and ADDED in header:
        raise ConfigError(taken(name))
    if what:
        msg = f"{name}: {what}"
        raise ConfigError(msg)


def _other_mark(header: list[str], mark: str) -> str:
    """What to do about fields with another separator."""
    other = next((each for each in DELIMITERS if each != mark and any(each in name for name in header)), None)
    return "" if other is None else f"; they look parted by {other!r}: --delimiter says so"
