"""Records as columns of Arrow: nothing is lost, whatever the first records looked like."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from embedkit._bulk.stores.columns import fields_of, table_of
from embedkit._bulk.stores.rows import Rows, json_text

VALUES = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.integers(-5, 5) | st.floats() | st.text(max_size=3)
    | st.lists(st.integers(-5, 5), max_size=2) | st.dictionaries(st.text(max_size=2), st.integers(), max_size=2)
)  # fmt: skip
RECORDS = st.lists(
    st.dictionaries(st.sampled_from(["a", "A", "b", "", "x.y", "key", "record"]), VALUES), min_size=1, max_size=6
)


def usable(name):
    return bool(name)


def rows(pieces):
    count = sum(map(len, pieces))
    return Rows(
        [str(n) for n in range(count)], np.zeros((count, 2), np.float32), [None] * count, [None] * count, pieces
    )


def put_together(table, fields):
    """The records again: their columns, and the rest."""
    names = [field.name for field in fields]
    return [
        {name: row[name] for name in names if row[name] is not None} | json.loads(row["record"] or "{}")
        for row in table.to_pylist()
    ]


def plain(record):
    """As JSON has it; a null and a missing field are one."""
    return {name: value for name, value in json.loads(json_text(record)).items() if value is not None}


@settings(deadline=None, max_examples=50)
@given(RECORDS, RECORDS)
def test_what_goes_in_comes_out(first, later):
    """Fields are decided by the first records; a later one of another type or name is in `record`."""
    fields = fields_of([first], usable)
    found = put_together(table_of(rows([first, later]), fields, pa.list_(pa.float32(), 2)), fields)

    for mine, given_ in zip(found, first + later, strict=True):
        assert plain(
            {
                name: None if isinstance(value, float) and not math.isfinite(value) else value
                for name, value in mine.items()
            }
        ) == plain(given_)


@settings(deadline=None, max_examples=50)
@given(RECORDS)
def test_arrow_and_dicts_are_put_alike(records):
    """A batch into columns that dicts decided, and the other way round."""
    simple = [{name: value for name, value in record.items() if isinstance(value, str) and name} for record in records]
    assume(any(simple))
    batch = pa.RecordBatch.from_pylist(
        simple, pa.schema([(name, pa.string()) for name in {n for r in simple for n in r}])
    )
    for pieces in ([simple, batch], [batch, simple]):
        fields = fields_of(pieces[:1], usable)
        found = put_together(table_of(rows(pieces), fields, pa.list_(pa.float32(), 2)), fields)
        assert [plain(record) for record in found] == [plain(record) for record in simple * 2]


def test_names_that_differ_in_case_only_share_no_column():
    """DuckDB's columns have one name in any case; every table's own columns are taken."""
    fields = fields_of([[{"Key": "a", "text": "b", "TEXT": "c", "embedding": "d"}]], usable)

    assert [field.name for field in fields] == ["text"]
