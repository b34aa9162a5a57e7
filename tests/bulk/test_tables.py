"""Records to tables: every column as wide as its values, whatever stands in a row, wherever a chunk ends."""

from __future__ import annotations

import decimal
import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedkit._bulk.sinks.table_sink import FolderSink, TableFileSink
from tests.support.sinks import like, small_files

WIDTH = 3
ADDED = ["embedding", "embedding_error"]
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.integers(-5, 5) | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "", "x.y", "é"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def vectors(count, start=0):
    return (np.arange(start * WIDTH, (start + count) * WIDTH) % 100).reshape(count, WIDTH).astype(np.float32)


def blank(count):
    return np.full((count, WIDTH), np.nan, np.float32)


def table(base, parts, form="parquet"):
    """What is read of (records, vectors) parts."""
    sink = FolderSink(str(base / "out")) if form == "folder" else TableFileSink(str(base / "out"), form)
    (base / "job").mkdir(exist_ok=True)
    sink.begin(base / "job", like(), None)
    for records, rows in parts:
        sink.write([records], rows, {}, None)
    sink.sync()
    sink.finish({})
    sink.close()
    if form == "folder":
        found = [pq.read_table(path) for path in sorted(sink.place.iterdir())]
        assert all(each.schema.equals(found[0].schema) for each in found)
        return pa.concat_tables(found)
    return pq.read_table(sink.place) if form == "parquet" else pa.ipc.open_file(sink.place.read_bytes()).read_all()


@pytest.fixture
def small_groups():
    """Every row is a chunk, a group and a part of its own."""
    with small_files(chunk=1, part=1, group=1):
        yield


def test_parquet_keeps_the_input_s_columns_as_they_were(tmp_path):
    """Categories, large strings, times, nested columns, nulls, metadata: what came from Parquet goes back unchanged."""
    kinds = {
        "text": pa.array(["a", "b", "a"], pa.large_string()),
        "category": pa.array(["x", None, "x"]).dictionary_encode(),
        "list": pa.array([[1, None], None, []], pa.list_(pa.int16())),
        "struct": pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": ""}]),
        "time": pa.array([0, None, 1], pa.timestamp("us", "UTC")),
        "none": pa.nulls(3),
        "decimal": pa.array([decimal.Decimal("1.10"), None, decimal.Decimal("2.20")]),
    }
    source = pa.table(kinds).replace_schema_metadata({"made by": "a test"})
    batches = source.to_batches(max_chunksize=2)
    found = table(tmp_path, [(batch, vectors(len(batch), start)) for batch, start in zip(batches, (0, 2), strict=True)])

    assert found.drop_columns(ADDED).equals(source)
    assert found.schema.metadata == {b"made by": b"a test"}
    assert found["embedding"].to_pylist() == vectors(3).tolist()


def test_parquet_joins_categories_of_different_batches(tmp_path):
    """Each batch has its own dictionary; the column has the values of all."""
    batches = [
        pa.RecordBatch.from_pydict({"text": pa.array(words).dictionary_encode()}) for words in (["a", "b"], ["c", "a"])
    ]
    found = table(tmp_path, [(batch, vectors(2)) for batch in batches])

    assert found["text"].to_pylist() == ["a", "b", "c", "a"]


def nested(depth, make):
    value = 1
    for _ in range(depth):
        value = make(value)
    return value


@pytest.mark.parametrize("make", [lambda value: [value], lambda value: {"a": value}], ids=["lists", "objects"])
@pytest.mark.parametrize("depth", [1, 30, 31, 400])
def test_nesting_that_readers_refuse_becomes_text(tmp_path, make, depth):
    """Parquet can be written deeper than it is read; many lists side by side are not deep."""
    value = nested(depth, make)
    wide = {f"field {number}": [number] for number in range(50)}
    found = table(tmp_path, [([{"text": "a", "value": value, "wide": wide}], vectors(1))])

    assert found["wide"].to_pylist() == [wide]
    assert found["value"].to_pylist() == [value if depth <= 30 else json.dumps(value, separators=(",", ":"))]


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("order", [1, -1])
def test_whole_numbers_keep_every_digit_beside_others(tmp_path, order):
    """One that no float64 holds makes a column of text, wherever the row groups end; smaller ones are numbers."""
    parts = [([{"text": "t", "id": value, "n": small}], vectors(1)) for value, small in ((2**60 + 1, 3), (0.5, 0.5))][
        ::order
    ]
    found = table(tmp_path, parts)

    assert found["id"].to_pylist() == [str(2**60 + 1), "0.5"][::order]
    assert found["n"].to_pylist() == [3.0, 0.5][::order]


def test_text_of_a_mixed_column_is_what_python_writes(tmp_path):
    """NaN within a value is not lost on the way."""
    found = table(tmp_path, [([{"text": "t", "v": {"x": math.nan}}, {"text": "t", "v": "plain"}], vectors(2))])

    assert found["v"].to_pylist() == ['{"x":NaN}', "plain"]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(st.sampled_from(["v", "", "x.y"]), JSONS, max_size=3), min_size=1, max_size=5))
@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("form", ["parquet", "arrow", "folder"])
def test_any_records_of_json_become_a_table(form, records):
    """Whatever stands in a column from row to row: one file that
    can be read, none of its rows lost, and no error after the bill.
    """
    with TemporaryDirectory() as folder:
        found = table(
            Path(folder), [([{"text": "t", **record}], vectors(1, row)) for row, record in enumerate(records)], form
        )

    assert found["embedding"].to_pylist() == vectors(len(records)).tolist()


@pytest.mark.parametrize("form", ["parquet", "arrow", "folder"])
@pytest.mark.parametrize("groups", ["one group", "a group per row"])
@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, 2], pa.int64(), [1, 2]),
        ([1, 2.5], pa.float64(), [1.0, 2.5]),
        ([2.5, 1], pa.float64(), [2.5, 1.0]),
        ([None, 1], pa.int64(), [None, 1]),
        ([1, "x"], pa.string(), ["1", "x"]),
        (["x", {"a": 1}], pa.string(), ["x", '{"a":1}']),
        (
            [{"a": 1}, {"b": "x"}],
            pa.struct([("a", pa.int64()), ("b", pa.string())]),
            [{"a": 1, "b": None}, {"a": None, "b": "x"}],
        ),
        ([[1], [2.5]], pa.list_(pa.float64()), [[1.0], [2.5]]),
        ([[1], "x"], pa.string(), ["[1]", "x"]),
        ([True, 1], pa.string(), ["true", "1"]),
        ([{}, {"a": 1}], None, None),
        ([2**80, 1], pa.string(), [str(2**80), "1"]),
        ([None, None], pa.null(), [None, None]),
        ([[None, None], [1]], pa.list_(pa.int64()), [[None, None], [1]]),
        ([[None, None], None], pa.list_(pa.null()), [[None, None], None]),
        (
            [{"a": [None, None], "b": 1}, {"b": 0.5}],
            pa.struct([("a", pa.list_(pa.null())), ("b", pa.float64())]),
            [{"a": [None, None], "b": 1.0}, {"a": None, "b": 0.5}],
        ),
    ],
    ids=str,
)
def test_a_column_is_as_wide_as_its_values(tmp_path, request, groups, form, values, kind, expected):
    """Values of JSON that need a wider type get it, wherever the
    row groups end; without a common type they are text.
    """
    if groups != "one group":
        request.getfixturevalue("small_groups")
    parts = [([{"text": "t", "value": value}], vectors(1, row)) for row, value in enumerate(values)]
    found = table(tmp_path, parts, form)

    assert found["text"].to_pylist() == ["t"] * len(values)
    assert found["embedding"].to_pylist() == vectors(len(values)).tolist()
    if kind is not None:
        assert (found.schema.field("value").type, found["value"].to_pylist()) == (kind, expected)
    else:
        assert found["value"].null_count == 0


@pytest.mark.usefixtures("small_groups")
def test_columns_that_come_and_go_are_null_where_they_are_not(tmp_path):
    """A field of some records only is a column of all."""
    found = table(
        tmp_path,
        [
            ([{"text": "a", "x": 1}], vectors(1)),
            ([{"text": "b", "y": "z"}], vectors(1, 1)),
            ([{"text": "c"}], vectors(1, 2)),
        ],
    )

    assert found.drop_columns(ADDED).to_pylist() == [
        {"text": "a", "x": 1, "y": None}, {"text": "b", "x": None, "y": "z"}, {"text": "c", "x": None, "y": None},
    ]  # fmt: skip
    assert found["embedding"].to_pylist() == vectors(3).tolist()


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("form", ["parquet", "arrow", "folder"])
def test_a_value_is_text_as_it_came(tmp_path, form):
    """However often a column was widened before: whole numbers do not become fractions on the way to text."""
    parts = [
        ([{"text": str(row), "value": row if row < 20 else "x" if row > 30 else 0.5}], vectors(1, row))
        for row in range(40)
    ]
    found = table(tmp_path, parts, form)

    assert found["text"].to_pylist() == [str(row) for row in range(40)]
    assert found["embedding"].to_pylist() == vectors(40).tolist()
    assert found["value"].to_pylist() == [*map(str, range(20)), *["0.5"] * 11, *["x"] * 9]


def test_no_rows_of_a_known_schema_keep_it(tmp_path):
    """An empty Parquet file in, one with the same columns out."""
    batch = pa.RecordBatch.from_pydict({"text": pa.array([], pa.string()), "n": pa.array([], pa.int8())})
    schema = table(tmp_path, [(batch, blank(0))]).schema

    assert schema.names == ["text", "n", *ADDED]
    assert schema.field("n").type == pa.int8()
    assert schema.field("embedding").type == pa.list_(pa.float32(), WIDTH)
