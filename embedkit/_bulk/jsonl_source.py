"""JSON lines: an object or a string on each; a blank line is no row.

A row is good if msgspec reads the fields that are needed from its line, the others being checked for their grammar
only. What it does not read is read once more as Python writes JSON. So looking through a file, where nothing else is
decoded, finds what reading it finds.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from .fields import MISSING
from .json_rows import DEEPEST, as_python_writes_it, check_for_parquet, half, record_of
from .rows import ADDED, BLOCK, Builder, Line
from .streams import is_utf8, not_utf8, whole_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .contract import Block
    from .fields import Fields
    from .rows import At, How
    from .streams import Pieces

Values = tuple[list[str], "list[Any] | None"]


def read(file: Pieces, how: How, at: At, *, lean: bool) -> Iterator[Block]:
    """Every row; where only texts are asked for, a part of the lines at a time is decoded in one go."""
    rows = Builder(how, at, lean=lean)
    number = 0  # lines before
    whole = how.carried != "" and not lean
    decode = typed(how.fields, beside=how.carried != "")
    for piece in whole_lines(file, at.name):
        lines = piece.removesuffix(b"\n").split(b"\n")
        good = decode is not None and is_utf8(piece)
        for start in range(0, len(lines), BLOCK):
            part = lines[start : start + BLOCK]
            values = decode(part) if good and decode is not None and _flat(part, how) else None
            records = _records(part, how.fields) if values is not None and whole else []
            if values is not None and records is not None:
                yield rows.lot(values[0], records, values[1], number + 1)
            else:
                _one_by_one(part, number, rows, how, at)
                if len(rows):
                    yield rows.take()
            number += len(part)


def _flat(lines: list[bytes], how: How) -> bool:
    """Whether no line can be nested too deeply for Parquet."""
    return how.carried != "parquet" or all(line.count(b"[") + line.count(b"{") <= DEEPEST for line in lines)


def _records(lines: list[bytes], fields: Fields) -> list[Any] | None:
    """The records of lines that are good; None if one is JSON of Python's."""
    try:
        values = [*map(msgspec.json.decode, lines)]
    except (msgspec.DecodeError, RecursionError):
        return None
    records: list[Any] = []
    for value, line in zip(values, lines, strict=True):
        if type(value) is dict:
            record = Line(value)
            record.source = line.strip().replace(b"\r", b" ")
            records.append(record)
        else:
            records.append(record_of(value, line.strip(), fields, "")[0])
    return records


def _one_by_one(lines: list[bytes], number: int, rows: Builder, how: How, at: At) -> None:
    for line, raw in enumerate(lines, number + 1):
        if not raw.strip():
            continue
        value, source, fault, by_the_book = None, raw.strip().replace(b"\r", b" "), not_utf8(raw, how.encoding), True
        if not fault:
            try:
                value = msgspec.json.decode(raw)
            except (msgspec.DecodeError, RecursionError):
                value, fault = as_python_writes_it(raw.decode().rstrip("\r"))
                by_the_book = False
        if how.carried == "parquet":
            brackets = raw.count(b"[") + raw.count(b"{")
            if not by_the_book or brackets > DEEPEST:
                check_for_parquet(value, how.fields, brackets, at.where(rows.row, line))
        if not by_the_book and not fault:
            fault = half(value, how.fields, how.carried)
        rows.record(line, *record_of(value, source, how.fields, fault))


# --- only what is needed ---------------------------------------------------------------------------------------------


def typed(fields: Fields, *, beside: bool) -> Callable[[list[bytes]], Values | None] | None:
    """A function: lines → (texts, keys), or None if one of them is not as it should be. None if there is none. With
    `beside` no line may have a field called "embedding".
    """
    worded = str | int | float | bool
    kinds: dict[str, Any] = dict.fromkeys(fields.names, worded if fields.template else str)
    if fields.key is not None:
        if fields.key in kinds:
            return None
        kinds[fields.key] = str | int
    shape = _shape(kinds, beside=beside)
    if shape is None:
        return None
    strings = fields.key is None and not fields.template  # a string is a row
    decode = msgspec.json.Decoder(shape | str if strings else shape).decode
    getters = [_getter(name) for name in kinds]

    def values(lines: list[bytes]) -> Values | None:
        try:
            rows: list[Any] = [*map(decode, lines)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if beside and any(type(row) is not str and row.beside is not MISSING for row in rows):
            return None
        if strings:
            get = getters[0]
            texts = [row if type(row) is str else get(row) for row in rows]
            return None if MISSING in texts else (texts, None)
        columns = [[*map(get, rows)] for get in getters]
        if any(MISSING in column for column in columns):
            return None
        keys = None if fields.key is None else columns.pop()
        if not fields.template:
            return columns[0], keys
        by_name = dict(zip(kinds, columns, strict=False))
        some = zip(*(by_name[name] for name in fields.names), strict=True)
        return [fields.joined(list(each), {})[0] or "" for each in some], keys

    return values


def _shape(kinds: dict[str, Any], *, beside: bool) -> Any:
    """A struct of these fields; a nested one is looked for in both places. None where two stand in each other's way."""
    fields: list[tuple[str, Any, Any]] = []
    renamed = {}
    inner: dict[str, dict[str, Any]] = {}
    for name, kind in kinds.items():
        head, dot, rest = name.partition(".")
        fields.append((_own(name), kind | msgspec.UnsetType if dot else kind, MISSING if dot else msgspec.NODEFAULT))
        renamed[_own(name)] = name
        if dot:
            inner.setdefault(head, {})[rest] = kind
    for head, names in inner.items():
        shape = _shape(names, beside=False)
        if shape is None:
            return None
        fields.append((_within(head), shape | msgspec.UnsetType, MISSING))
        renamed[_within(head)] = head
    if beside:
        fields.append(("beside", msgspec.Raw | msgspec.UnsetType, MISSING))
        renamed["beside"] = ADDED
    if len(set(renamed.values())) < len(renamed):
        return None
    return msgspec.defstruct("Row", fields, rename=renamed, gc=False, kw_only=True)


def _own(name: str) -> str:
    return f"own_{name.encode('utf-8', 'surrogatepass').hex()}"


def _within(name: str) -> str:
    return f"in_{name.encode('utf-8', 'surrogatepass').hex()}"


def _getter(name: str) -> Callable[[Any], Any]:
    own = attrgetter(_own(name))
    head, dot, rest = name.partition(".")
    if not dot:
        return own
    nested, inner = attrgetter(_within(head)), _getter(rest)

    def get(row: Any) -> Any:
        value = own(row)
        if value is not MISSING:
            return value
        within = nested(row)
        return MISSING if within is MISSING else inner(within)

    return get
