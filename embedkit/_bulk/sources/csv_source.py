"""CSV and TSV with a header, as RFC 4180 has them: quotes, line breaks within them, either line ending."""

from __future__ import annotations

import csv
import io
from itertools import chain
from typing import TYPE_CHECKING

from ...errors import ConfigError
from .fields import missing, sayable
from .rows import ADDED, BLOCK, Builder, taken

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..contract import Block
    from .rows import At, How
    from .streams import Pieces

DELIMITERS = ",\t;|"  # tried in this order
LONGEST_FIELD = 1 << 27  # characters; a quote that is never closed swallows no more than that


def read(file: Pieces, how: How, at: At, form: str, *, lean: bool) -> Iterator[Block]:
    """Every row; a blank line is none, and a short row has no value at its end."""
    rows, table = Builder(how, at, lean=lean), _Table(file, how, at, form)
    fields, width = how.fields, len(table.header)
    places = [table.header.index(name) for name in fields.names]
    key = None if fields.key is None else table.header.index(fields.key)
    for found, lines in table:
        if not (set(map(len, found)) == {width} and all(map(_said, map("".join, found)))):
            for values, line in zip(found, lines, strict=True):
                rows.record(line, *_record(values, table.header, how))
            yield rows.take()
            continue
        if fields.template:
            texts = [fields.joined([values[place] for place in places], {})[0] or "" for values in found]
        else:
            texts = [values[places[0]] for values in found]
        keys = None if key is None else [values[key] for values in found]
        records = [dict(zip(table.header, values, strict=True)) for values in found] if how.carried and not lean else []
        yield rows.lot(texts, records, keys, lines.__getitem__)


def _said(text: str) -> bool:
    return text.isascii() or sayable(text)


def _record(values: list[str], header: list[str], how: How) -> tuple[dict[str, str | None], str]:
    """(a row that is not as it should be, what is wrong with it)."""
    fault = f"{len(values)} fields, but the header has {len(header)}" if len(values) > len(header) else ""
    kept: list[str | None] = [each if _said(each) else None for each in values]
    if None in kept:
        fault = f"not {'UTF-8' if how.encoding == 'utf-8' else how.encoding} (--encoding names another)"
    kept += [None] * (len(header) - len(kept))
    return dict(zip(header, kept, strict=False)), fault


def check(file: Pieces, how: How, at: At, form: str) -> list[str]:
    """The header, if rows can be read by it."""
    return _Table(file, how, at, form).header


class _Table:
    """The header and the rows of a file.

    Raises:
        ConfigError: a column is missing or is there twice; a quote is not as it should be.
    """

    def __init__(self, file: Pieces, how: How, at: At, form: str) -> None:
        # Its default, 131,072 characters, is shorter than many a text.
        if csv.field_size_limit() < LONGEST_FIELD:
            csv.field_size_limit(LONGEST_FIELD)
        self._at = at
        buffered = io.BufferedReader(file, 1 << 16)
        lines = io.TextIOWrapper(buffered, "utf-8-sig", "surrogateescape", newline="")
        start: list[str] = []
        for line in lines:
            start.append(line)
            if line.strip("\r\n"):
                break
        usual = "\t" if form == "tsv" else ","
        mark = how.delimiter or _delimiter("".join(start[-1:]), usual, how.fields.needed)
        self._rows = csv.reader(chain(start, lines), strict=True, delimiter=mark)
        try:
            self.header: list[str] = _told_apart(next(filter(None, self._rows), []))
        except csv.Error as error:
            raise ConfigError(_broken(f"{at.name}, the header", error, len(start), self._rows.line_num)) from None
        self._header_end = self._rows.line_num
        _check_header(self.header, how, at.name, mark)

    def __iter__(self) -> Iterator[tuple[list[list[str]], list[int]]]:
        """Some rows at a time, and the line that each ends in."""
        row, last = 0, self._header_end
        found: list[list[str]] = []
        lines: list[int] = []
        try:
            for values in self._rows:
                last = self._rows.line_num
                if values:
                    found.append(values)
                    lines.append(last)
                    if len(found) == BLOCK:
                        row += BLOCK
                        yield found, lines
                        found, lines = [], []
        except csv.Error as error:
            if found:
                yield found, lines
            where = f"{self._at.name}, row {self._at.first + row + len(found)}"
            raise ConfigError(_broken(where, error, last + 1, self._rows.line_num)) from None
        if found:
            yield found, lines


def _broken(where: str, error: csv.Error, begun: int, ended: int) -> str:
    """What is wrong with a record that began in one line and could not be read up to another."""
    if "unexpected end of data" in str(error):
        return f"{where}, which begins in line {begun}: a quote is opened and never closed; what follows cannot be read"
    if "field limit" in str(error):
        why = f"a field of more than {LONGEST_FIELD:,} characters, as where a quote is opened and never closed"
        return f"{where}, which begins in line {begun}: {why}; what follows cannot be read"
    lines = f"line {ended}" if ended == begun else f"lines {begun} to {ended}"
    return f"{where}, {lines}: {error}; what follows cannot be read"


def _delimiter(line: str, usual: str, names: tuple[str, ...]) -> str:
    """The mark by which a header has the columns that are needed; the usual one if several have them, or none."""
    for mark in dict.fromkeys([usual, *DELIMITERS]):
        try:
            header = next(csv.reader([line], delimiter=mark), [])
        except csv.Error:
            continue
        if all(name in header for name in names):
            return str(mark)
    return usual


def _told_apart(header: list[str]) -> list[str]:
    """The header, in which columns without a name, where there are several, are called by their place: from 1."""
    if header.count("") < 2:  # noqa: PLR2004 (a lone one keeps its name: the index of a data frame)
        return header
    return [name or f"column_{place}" for place, name in enumerate(header, 1)]


def _check_header(header: list[str], how: How, name: str, mark: str) -> None:
    what = ""
    lacking = next((each for each in how.fields.needed if each not in header), None)
    twice = next((each for each in header if header.count(each) > 1), None)
    if not sayable(header):
        what = f"the header is not {'UTF-8' if how.encoding == 'utf-8' else how.encoding}; --encoding names another"
    elif lacking is not None:
        option = (
            how.fields.key_option if lacking == how.fields.key else "--template" if how.fields.template else "--column"
        )
        what = missing(lacking, header, option) + _other_mark(header, mark)
    elif twice is not None:
        what = f"two columns are called {twice!r}: rename one"
    elif how.carried and not ADDED.isdisjoint(header):
        raise ConfigError(taken(name, header))
    if what:
        msg = f"{name}: {what}"
        raise ConfigError(msg)


def _other_mark(header: list[str], mark: str) -> str:
    """What to do about fields with another separator."""
    other = next((each for each in DELIMITERS if each != mark and any(each in name for name in header)), None)
    return "" if other is None else f"; they look separated by {other!r}: --delimiter says so"
