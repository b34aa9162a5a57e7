"""Records as columns of Arrow: what has a column's type goes into it, and the rest of a record into JSON, so that no
value of a later row is lost or refused. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ..._hints import NDArray
from ..._types import PACKED
from .. import arrow_values
from ..contract import Record, Records
from .base import Label
from .rows import COLUMNS, DIGEST, ERROR, KEY, RECORD, VECTOR, Rows, json_text, unpacked_sign

MOST = 2**63  # whole numbers of 64 bits are below


def table_of(rows: Rows, fields: Sequence[pa.Field], vector: pa.DataType) -> pa.Table:
    """Rows as a table: the columns of every store, and these fields of the records."""
    keys = pa.array(rows.keys, pa.int64() if rows.keys and isinstance(rows.keys[0], int) else pa.string())
    parts = [_part(piece, fields) for piece in rows.pieces]
    rest = [text for _, texts in parts for text in texts]
    own = {
        KEY: keys,
        VECTOR: _vectors(rows, vector),
        ERROR: pa.array(rows.errors, pa.string()),
        DIGEST: pa.array(rows.digests, pa.string()),
        RECORD: pa.array(rest, pa.string()),
    }
    spread = {
        field.name: pa.chunked_array([columns[place] for columns, _ in parts], field.type)
        for place, field in enumerate(fields)
    }
    return pa.table({**own, **spread})


def vector_type(label: Label, integers: pa.DataType) -> pa.DataType:
    """The type of the vectors: packed bits are bytes, and other integers are kept as these floats."""
    kind = pa.uint8() if label.dtype in PACKED else pa.float32() if label.dtype == "float32" else integers
    return pa.list_(kind, label.width)


def _vectors(rows: Rows, kind: pa.DataType) -> pa.Array:
    values: NDArray[Any] = rows.vectors
    values = unpacked_sign(values) if pa.types.is_uint8(kind.value_type) else values
    values = np.ascontiguousarray(values, kind.value_type.to_pandas_dtype())
    missing = pa.array([error is not None for error in rows.errors], pa.bool_())
    flat = pa.array(values.reshape(-1), kind.value_type)
    return pa.FixedSizeListArray.from_arrays(flat, type=kind, mask=missing)


# --- which fields have a column -------------------------------------------------------------------------------------


def fields_of(pieces: Sequence[Records], usable: Callable[[str], bool]) -> list[pa.Field]:
    """The fields that the first records suggest: those with one simple type. Names that differ in case only, or that
    every table has, are left to JSON.
    """
    found: list[pa.Field] = []
    taken = set(COLUMNS)
    for name, kind in _suggested(pieces).items():
        if kind is not None and usable(name) and name.lower() not in taken:
            taken.add(name.lower())
            found.append(pa.field(name, kind))
    return found


def _suggested(pieces: Sequence[Records]) -> dict[str, pa.DataType | None]:
    if not pieces:
        return {}
    if not isinstance(pieces[0], list):
        return {field.name: _simple(field.type) for field in pieces[0].schema}
    kinds: dict[str, set[type]] = {}
    for piece in pieces:
        for record in piece:
            for name, value in record.items():
                kinds.setdefault(name, set()).add(type(value))
    return {name: _of_values(found - {type(None)}) for name, found in kinds.items()}


def _of_values(kinds: set[type]) -> pa.DataType | None:
    if kinds == {str}:
        return pa.string()
    if kinds == {bool}:
        return pa.bool_()
    if kinds == {int}:
        return pa.int64()
    return pa.float64() if kinds and kinds <= {int, float} else None


def _simple(kind: Any) -> pa.DataType | None:
    """The type of a column that both stores have, or None."""
    asked = pa.types
    if asked.is_dictionary(kind):
        return _simple(kind.value_type)
    if asked.is_string(kind) or asked.is_large_string(kind):
        return pa.string()
    if asked.is_float16(kind):
        return None
    plain = (asked.is_boolean, asked.is_integer, asked.is_floating, asked.is_date32, asked.is_timestamp)
    if any(test(kind) for test in plain):
        return kind
    if asked.is_list(kind) and not asked.is_nested(kind.value_type):
        inner = _simple(kind.value_type)
        return None if inner is None else pa.list_(inner)
    return None


# --- a piece of records into columns ---------------------------------------------------------------------------------


def _part(piece: Records, fields: Sequence[pa.Field]) -> tuple[list[pa.Array], list[str | None]]:
    return _of_records(piece, fields) if isinstance(piece, list) else _of_batch(piece, fields)


def _of_records(records: list[Record], fields: Sequence[pa.Field]) -> tuple[list[pa.Array], list[str | None]]:
    misfits: dict[int, set[str]] = {}
    columns = []
    for field in fields:
        values = [record.get(field.name) for record in records]
        if not _fit(values, field.type):
            for row, value in enumerate(values):
                if not _fit([value], field.type):
                    misfits.setdefault(row, set()).add(field.name)
                    values[row] = None
        columns.append(pa.array(values, field.type))
    names = {field.name for field in fields}
    rest: list[str | None] = []
    for row, record in enumerate(records):
        if row not in misfits and record.keys() <= names:
            rest.append(None)
            continue
        left = {name: value for name, value in record.items() if name not in names or name in misfits.get(row, ())}
        rest.append(json_text(left).decode())
    return columns, rest


def _fit(values: list[Any], kind: Any) -> bool:
    """Whether all of them (None aside) can be in a column of this type, and come out as they went in."""
    found = set(map(type, values)) - {type(None)}
    if pa.types.is_string(kind):
        return found <= {str} and _utf8(values)
    if pa.types.is_boolean(kind):
        return found <= {bool}
    if pa.types.is_int64(kind):
        return found <= {int} and all(-MOST <= each < MOST for each in values if each is not None)
    if pa.types.is_float64(kind):
        return found <= {float, int} and all(abs(each) <= 2**53 for each in values if isinstance(each, int))
    return not found


def _utf8(values: list[Any]) -> bool:
    try:
        "".join(filter(None, values)).encode()
    except UnicodeEncodeError:
        return False
    return True


def _of_batch(batch: Any, fields: Sequence[pa.Field]) -> tuple[list[pa.Array], list[str | None]]:
    columns, placed = [], set()
    names = batch.schema.names
    for field in fields:
        array = _as(batch.column(names.index(field.name)), field.type) if field.name in names else None
        if array is not None:
            placed.add(field.name)
        columns.append(pa.nulls(len(batch), field.type) if array is None else array)
    left = [name for name in names if name not in placed]
    if not left:
        return columns, [None] * len(batch)
    return columns, [json_text(record).decode() for record in arrow_values.records(batch.select(left))]


def _as(array: Any, kind: Any) -> pa.Array | None:
    """The array in a column's type, where `_simple` says that this is the type for it."""
    if _simple(array.type) != kind:
        return None
    try:
        return array.cast(kind)
    except pa.ArrowNotImplementedError:  # of a dictionary of lists
        return pa.array(array.to_pylist(), kind)
