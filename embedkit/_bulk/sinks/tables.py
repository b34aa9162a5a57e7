"""Records to Arrow tables, and the one schema that holds them all.

Columns of records (dicts) have the type of their values. Where rows differ they get a type that holds both; values that
have no type in common become text: strings as they are, the rest as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ..._hints import NDArray
from .. import arrow_values
from ..contract import Records
from ..disk import sayable

if TYPE_CHECKING:
    import pyarrow as pa

VECTOR = "embedding"  # the columns that outputs add
ERROR = "embedding_error"
DEEPEST = 30  # nested lists and structs: pyarrow reads a schema of 100 levels, and a list takes two


class Widening:
    """The schema that holds all rows seen so far.

    Attributes:
        schema: None before the first.
        exact: columns that held whole numbers which no float64 holds: they keep every digit.
    """

    def __init__(self, schema: pa.Schema | None = None, exact: Iterable[str] = ()) -> None:
        self.schema = schema
        self.exact = set(exact)

    def add(self, table: pa.Table) -> pa.Schema:
        """Let it hold these rows, too."""
        self.exact |= _inexact_as_floats(table)
        if self.schema is None:
            self.schema = table.schema
        elif table.schema != self.schema:
            self.schema = _widened(self.schema, table.schema, self.exact)
        return self.schema


def table(pieces: Iterable[Records], column: str) -> pa.Table:
    """One table of records, dicts and batches of any schema; `column` is there even if they have no field at all."""
    import pyarrow as pa

    found = []
    for is_list, group in groupby(pieces, lambda piece: isinstance(piece, list)):
        if is_list:
            found.append(_of_dicts([record for piece in group for record in piece], column))
        else:
            found += [pa.Table.from_batches(list(each)) for _, each in groupby(group, lambda batch: batch.schema)]
    if len(found) > 1:
        found = [each for each in found if len(each)] or found[:1]
    if len(found) <= 1:
        return found[0] if found else _of_dicts([], column)
    widening = Widening()
    for each in found:
        widening.add(each)
    return pa.concat_tables([fitted(each, widening.schema) for each in found])


def fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with every column of the schema, in its type."""
    import pyarrow as pa

    columns = []
    for field in schema:
        column = table.column(field.name) if field.name in table.column_names else pa.nulls(len(table), field.type)
        if column.type != field.type:
            text = pa.types.is_string(field.type)
            column = as_text(column) if text else cast(column, field.type)
        columns.append(column)
    return pa.table(columns, schema=schema)


def cast(column: pa.ChunkedArray, kind: pa.DataType) -> Any:
    """The column in another type, as an array.

    A cast by pyarrow (26.0) spoils nulls without a type within lists where they stay such; they go through Python.
    """
    import pyarrow as pa

    if not _has_null_type(kind):
        with suppress(pa.ArrowNotImplementedError):  # of a dictionary of lists
            return column.cast(kind, safe=False)
    return pa.array(column.to_pylist(), kind)


def as_text(column: pa.ChunkedArray) -> Any:
    """The column as text: strings as they are, the rest as JSON spells it (`arrow_values`), and NaN as NaN."""
    import pyarrow as pa

    said = arrow_values.unspeakable(pa.schema([("", column.type)])) is None
    if pa.types.is_floating(column.type) or not said:
        return pa.array(_texts(column.to_pylist()), pa.string())
    found = [each for chunk in column.chunks for each in arrow_values.values(chunk)]
    return pa.array(_texts(found), pa.string())


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type without dictionaries, in lists and structs too."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(plain_type(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(plain_type(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(plain_type(kind.value_type)))
    return kind


def _has_null_type(kind: pa.DataType) -> bool:
    import pyarrow as pa

    inner = [kind.field(number).type for number in range(kind.num_fields)]
    return any(pa.types.is_null(each) or _has_null_type(each) for each in inner)


def vector_type(like: NDArray[Any]) -> pa.DataType:
    """A list of fixed size; of any size for no rows of no known width."""
    import pyarrow as pa

    return pa.list_(pa.from_numpy_dtype(like.dtype), like.shape[1] or -1)


def added_columns(vectors: NDArray[Any], failures: Mapping[int, str]) -> pa.Table:
    """What outputs add: the vector, null in a row that failed, and why it failed, null elsewhere. Both columns are
    always there, so that files with failed rows and files without have one schema.
    """
    import numpy as np
    import pyarrow as pa

    kind, rows = vector_type(vectors), len(vectors)
    why = pa.nulls(rows, pa.string())
    mask = None
    if failures:
        missing = np.zeros(rows, bool)
        missing[list(failures)] = True
        mask = pa.array(missing)
        why = pa.array([sayable(failures[row]) if row in failures else None for row in range(rows)], pa.string())
    added = pa.nulls(rows, kind)
    if vectors.shape[1]:
        added = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=kind, mask=mask)
    return pa.table({VECTOR: added, ERROR: why})


def without_vectors(batch: pa.RecordBatch, like: NDArray[Any]) -> tuple[pa.RecordBatch, NDArray[Any], dict[int, str]]:
    """Records, vectors and failures of rows that an output holds.

    Args:
        batch: of an output.
        like: no rows, of the type and width that its vectors have.
    """
    import numpy as np

    from ...codec.vector_math import missing_value

    added, why = batch.column(VECTOR), batch.column(ERROR)
    lost = np.flatnonzero(added.is_null().to_numpy(zero_copy_only=False))
    rows = np.empty((len(batch), like.shape[1]), like.dtype)
    if len(lost):
        rows[:] = missing_value(rows)
    rows[added.is_valid().to_numpy(zero_copy_only=False)] = added.flatten().to_numpy().reshape(-1, like.shape[1])
    failures = {int(row): why[int(row)].as_py() or "" for row in lost}
    return batch.drop_columns([VECTOR, ERROR]), rows, failures


def _of_dicts(records: list[dict[str, Any]], column: str) -> pa.Table:
    import pyarrow as pa

    names = dict.fromkeys(name for record in records for name in record)
    if not names:
        return pa.table({column: pa.nulls(len(records), pa.string())})
    return pa.table({name: _array([record.get(name) for record in records]) for name in names})


def _array(values: list[Any]) -> Any:
    import pyarrow as pa

    try:
        found = pa.array(values)
    except (pa.ArrowException, OverflowError):
        return pa.array(_texts(values), pa.string())
    # Parquet has no empty struct, and its readers stop at some depth.
    unwritable = "struct<>" in str(found.type) or _deeper(found.type, DEEPEST)
    return pa.array(_texts(values), pa.string()) if unwritable else found


def _deeper(kind: pa.DataType, most: int) -> bool:
    return any(not most or _deeper(kind.field(number).type, most - 1) for number in range(kind.num_fields))


def _texts(values: list[Any]) -> list[str | None]:
    return [
        each
        if each is None or isinstance(each, str)
        else json.dumps(each, ensure_ascii=False, separators=(",", ":"), default=str)
        for each in values
    ]


def _inexact_as_floats(table: pa.Table) -> set[str]:
    import pyarrow as pa
    import pyarrow.compute as pc

    whole = [field.name for field in table.schema if pa.types.is_int64(field.type)]
    most = {name: pc.min_max(table.column(name)).as_py() for name in whole}
    return {name for name, ends in most.items() if ends["max"] is not None and max(-ends["min"], ends["max"]) > 2**53}


def _unified(fields: list[pa.Field]) -> pa.Field | None:
    """A field that holds the values of all; None: there is none."""
    import pyarrow as pa

    try:
        return pa.unify_schemas([pa.schema([each]) for each in fields], promote_options="permissive").field(0)
    except pa.ArrowException:
        return None


def _widened(old: pa.Schema, new: pa.Schema, exact: Collection[str]) -> pa.Schema:
    """A schema for the rows of both; the columns in `exact` keep every digit."""
    import pyarrow as pa

    fields = {field.name: field for field in old}
    for field in new:
        both = [fields.get(field.name, field), field]
        # Categories and their values have no type in common for pyarrow.
        fields[field.name] = (
            _unified(both)
            or _unified([each.with_type(plain_type(each.type)) for each in both])
            or pa.field(field.name, pa.string())
        )
        if field.name in exact and pa.types.is_floating(fields[field.name].type):
            fields[field.name] = pa.field(field.name, pa.string())
    return pa.schema(list(fields.values()), old.metadata)
