"""Texts and keys out of JSON without the rest of it: msgspec decodes the fields that are needed, and only checks the
grammar of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import msgspec

from .fields import MISSING, Fields
from .rows import ADDED

Values = tuple[list[str], "list[Any] | None"]


def typed(fields: Fields, *, beside: bool) -> Callable[[list[bytes]], Values | None] | None:
    """A function: rows of JSON → (texts, keys), or None if one of them is not as it should be. None if there is none.
    With `beside` no row may have one of the fields that outputs add.
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
    added, none = attrgetter(*ADDED), (MISSING,) * len(ADDED)

    def values(parts: list[bytes]) -> Values | None:
        try:
            rows: list[Any] = [*map(decode, parts)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if beside and any(type(row) is not str and added(row) != none for row in rows):
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
        fields += [(each, msgspec.Raw | msgspec.UnsetType, MISSING) for each in ADDED]
        renamed.update({each: each for each in ADDED})
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
