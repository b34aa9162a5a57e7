"""JSON as Python writes it, and what of it an output cannot hold. Pure."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec

from ...errors import ConfigError
from ..contract import Record
from .fields import HALF, MISSING, SHOWN, Fields, find, sayable
from .rows import Line

DEEPEST = 500  # nested lists and objects; Python can write these as text in a Parquet column
DIGITS = 4_000  # of a whole number: Python reads no more than 4,300


def as_python_writes_it(text: str) -> tuple[Any, str]:
    """A value that is not JSON by the book, if it is JSON by Python's:
    NaN, Infinity, halves of surrogate pairs, numbers of any size.
    """
    try:
        return json.loads(text, parse_int=whole, parse_float=real), ""
    except json.JSONDecodeError as error:
        return None, f"not JSON: {error.msg} (at character {error.pos} of the line)"
    except RecursionError:
        return None, "nested too deeply to be read"


def whole(digits: str) -> int | str:
    """A whole number; as text, if Python would refuse it."""
    return int(digits) if len(digits) < DIGITS else digits


def real(digits: str) -> float | str:
    """A real number; as text, if no float holds it."""
    value = float(digits)
    return value if math.isfinite(value) else digits


def record_of(value: Any, source: bytes, fields: Fields, fault: str) -> tuple[Record, str]:
    """(the record that a JSON value is, what is wrong with it); a string is its text. `source`: on one line."""
    column = fields.column
    if isinstance(value, dict):
        kept = Line(value)
        kept.source = source
        if fault and not fields.template:
            kept[column] = None  # half of a pair is no text in any column
        return kept, fault
    if isinstance(value, str):
        kept = Line({column: None if fault else value})
        kept.source = b"{%b:%b}" % (msgspec.json.encode(column), source)
        return kept, fault
    shown = source.decode("utf-8", "replace")
    shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…"
    return {column: None}, fault or f"{shown} is neither an object nor a string"


def check_for_parquet(record: Any, fields: Fields, brackets: int, where: str) -> None:
    """Refuse what no column of Parquet can hold: lists in lists without end, halves of surrogate pairs beside the text.
    `brackets`: how many stand in the record's text, no fewer than it is deep.
    """
    if not isinstance(record, dict):
        return
    if brackets > DEEPEST and deeper(record, DEEPEST):
        msg = f"{where}: nested more than {DEEPEST} deep, which Parquet cannot hold; write .jsonl or .npy"
        raise ConfigError(msg)
    for name, value in record.items():
        if name != fields.column and not (sayable(name) and sayable(value)):
            msg = f"{where}: {HALF.format(ascii(name))}, which Parquet cannot hold; mend it, or write .jsonl or .npy"
            raise ConfigError(msg)


def deeper(value: Any, most: int) -> bool:
    """Whether lists and objects are nested deeper than this."""
    level = [value]
    for _ in range(most):
        inner = (each for one in level for each in (one.values() if isinstance(one, dict) else one))
        level = [each for each in inner if isinstance(each, (list, dict))]
    return bool(level)


def half(value: Any, fields: Fields, carried: str) -> str:
    """What is wrong with a text that holds half of a surrogate pair."""
    for name in fields.names:
        found = find(value, name) if isinstance(value, dict) else value
        checked = isinstance(found, str) or carried == "parquet"  # there no value may hold one, text or not
        if checked and found is not MISSING and not sayable(found):
            return HALF.format(repr(name))
    return ""
