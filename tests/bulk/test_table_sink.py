"""Parquet, Arrow and folders of parts: what other libraries read in them."""

from __future__ import annotations

import json

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from embedkit import ConfigError
from embedkit._bulk.arrow_values import values
from embedkit._bulk.sinks import arrow_files, table_sink
from embedkit._bulk.sinks.open_sink import open_sink
from embedkit._bulk.sinks.table_sink import FolderSink, TableFileSink
from tests.bulk.test_arrow_values import TABLE
from tests.support.sinks import (
    METADATA,
    WIDTH,
    expected_vectors,
    failure_of,
    files_of,
    like,
    opened,
    small_files,
    table_of,
    target,
    whole,
    write,
)

KINDS = ["parquet", "arrow", "folder"]
every_table = pytest.mark.parametrize("kind", KINDS)


def finished(sink, base, *writes, metadata=None):
    (base / "job").mkdir(exist_ok=True)
    sink.begin(base / "job", writes[0][1][:0] if writes else like(), None)
    for records, rows, *failures in writes:
        sink.write([records], rows, *(failures or [{}]), None)
    sink.sync()
    sink.finish(metadata or {})
    sink.close()
    return sink.place


def ones(count):
    return np.ones((count, WIDTH), np.float32)


# --- what is in them -------------------------------------------------------------------------------------------------


@every_table
def test_failed_rows_do_not_change_the_schema(tmp_path, kind):
    """The vector and the error have their columns in any case: a list of fixed size, and text."""
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.mkdir()
    bad.mkdir()
    paths = [
        finished(open_sink(str(target(base, kind)), kind), base, ([{"text": "a"}], ones(1), failures))
        for base, failures in ((good, {}), (bad, {0: "refused"}))
    ]
    first, second = map(table_of, paths)

    assert first.schema.equals(second.schema)
    assert first.schema.names == ["text", "embedding", "embedding_error"]
    assert first.schema.field("embedding").type == pa.list_(pa.float32(), WIDTH)
    assert first["embedding_error"].to_pylist() == [None]
    assert second.to_pylist() == [{"text": "a", "embedding": None, "embedding_error": "refused"}]


@every_table
def test_nulls_among_vectors_are_read_by_others(tmp_path, kind):
    """Arrow (whole, in batches, as a dataset), polars, pandas and DuckDB read every row, null or not."""
    rows = 50
    with small_files(chunk=8, part=16):
        path = whole(tmp_path, kind, rows)
    wanted, errors = expected_vectors(rows), [failure_of(row) for row in range(rows)]
    if kind == "arrow":
        table = pl.read_ipc(path)
        mapped = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        mapped.validate(full=True)
        found = [mapped, table.to_arrow(), pa.Table.from_pandas(pd.read_feather(path))]
    else:
        pattern = f"{path}/*.parquet" if kind == "folder" else str(path)
        table = pl.read_parquet(pattern)
        data = ds.dataset(str(path)).to_table()
        data.validate(full=True)
        found = [data, pq.read_table(path), table.to_arrow(), pa.Table.from_pandas(pd.read_parquet(path))]
        found.append(duckdb.read_parquet(pattern).to_arrow_table())
        there = duckdb.read_parquet(pattern).filter("embedding is not null")
        near = there.order(f"array_distance(embedding::float[{WIDTH}], {wanted[8]}::float[{WIDTH}]), id").limit(1)
        assert near.project("id").fetchall() == [(8,)]
    assert table.schema["embedding"] == pl.Array(pl.Float32, WIDTH)
    for each in found:
        vectors = [None if row is None else list(row) for row in each["embedding"].to_pylist()]
        assert vectors == wanted
        assert [error or None for error in each["embedding_error"].to_pylist()] == errors
        assert each["id"].to_pylist() == list(range(rows))


@every_table
@pytest.mark.parametrize("lost", [{}, {0, 1, 2}, {1}, {0, 2}])
@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8"])
def test_rows_are_read_back_as_they_were_written(tmp_path, kind, lost, dtype):
    """All, some or none failed: each vector stays with its own row."""
    vectors = np.arange(9).reshape(3, 3).astype(dtype)
    records = [{"text": text, "id": number} for number, text in enumerate("abc")]
    failures = dict.fromkeys(lost, "refused")
    sink = open_sink(str(target(tmp_path, kind)), kind)
    path = finished(sink, tmp_path, (records, vectors, failures))
    kept = [row for row in range(3) if row not in lost]
    blocks = list(sink.read_back("text", "id", vectors[:0]))

    assert [each for block in blocks for each in block[0]] == kept
    assert [each for block in blocks for each in block[1]] == ["abc"[row] for row in kept]
    assert np.concatenate([block[2] for block in blocks]).tolist() == vectors[kept].tolist()
    assert np.concatenate([block[2] for block in blocks]).dtype == dtype
    with pytest.raises(ConfigError, match="and these are of 4"):
        list(open_sink(str(path), kind).read_back("text", "id", like(width=4)))


@every_table
def test_no_rows_of_no_width_make_a_file_all_the_same(tmp_path, kind):
    """Nothing in, a valid file out; one in which every row failed has no width, and gets no rows later."""
    for records, failures in (([], {}), ([{"text": "a"}], {0: "refused"})):
        base = tmp_path / str(len(records))
        base.mkdir()
        sink = open_sink(str(target(base, kind)), kind)
        path = finished(sink, base, (records, np.empty((len(records), 0), np.float32), failures))
        assert len(table_of(path)) == len(records)
        assert table_of(path)["embedding"].null_count == len(records)
        with pytest.raises(ConfigError, match="no row of it has a vector"):
            sink.reopen(base / "job", {"rows": 1, "parts": 0, "spooled": 1})


def test_parquet_looks_for_repetition_in_the_texts_only(tmp_path):
    """Vectors never repeat: a dictionary of them would cost time and space, and so would their least and greatest."""
    sink = TableFileSink(str(tmp_path / "out.parquet"))
    path = finished(sink, tmp_path, ([{"text": "a"}, {"text": "a"}], ones(2)))
    text, vector = (pq.read_metadata(path).row_group(0).column(number) for number in (0, 1))

    assert "RLE_DICTIONARY" in text.encodings
    assert "RLE_DICTIONARY" not in vector.encodings
    assert (text.is_stats_set, vector.is_stats_set) == (True, False)


def test_groups_are_bounded(tmp_path, monkeypatch):
    """In bytes of all columns, so that long texts do not fill the memory."""
    monkeypatch.setattr(arrow_files, "GROUP_BYTES", 100_000)
    monkeypatch.setattr(arrow_files, "CHUNK", 10)
    sink = TableFileSink(str(tmp_path / "out.parquet"))
    path = finished(sink, tmp_path, ([{"text": f"{row}" * 5000} for row in range(100)], ones(100)))
    about = pq.read_metadata(path)

    assert [about.row_group(number).num_rows for number in range(about.num_row_groups)] == [
        20,
        10,
        10,
        10,
        10,
        10,
        10,
        10,
        10,
    ]


# --- metadata --------------------------------------------------------------------------------------------------------


@every_table
def test_files_say_how_they_were_made(tmp_path, kind):
    """What the job says of itself, beside the metadata that the input had."""
    batch = pa.RecordBatch.from_pydict({"text": ["a"]}, pa.schema([("text", pa.string())], {"made by": "a test"}))
    path = finished(open_sink(str(target(tmp_path, kind)), kind), tmp_path, (batch, ones(1)), metadata=METADATA)
    about = table_of(path).schema.metadata

    assert about[b"made by"] == b"a test"
    assert about[b"embedkit.model"] == b"test:m"


def test_every_part_says_how_it_was_made(tmp_path):
    """As far as it is known when the part is written."""
    sink = FolderSink(str(tmp_path / "out"))
    sink.expect({"embedkit.model": "test:m"})
    with small_files(chunk=1, part=2):
        path = finished(sink, tmp_path, ([{"text": "a"}] * 5, ones(5)), metadata={"embedkit.options": "{}"})
    about = [pq.read_schema(each).metadata for each in sorted(path.iterdir())]

    assert [each[b"embedkit.model"] for each in about] == [b"test:m"] * 3
    assert [each.get(b"embedkit.options") for each in about] == [None, None, b"{}"]


# --- parts -----------------------------------------------------------------------------------------------------------


def test_parts_are_whole_and_numbered(tmp_path):
    """Each has as many rows as the one before; a reader of the folder sees whole files only."""
    with small_files(chunk=4, part=8):
        sink = opened(tmp_path, "folder")
        for start in range(0, 30, 5):
            write(sink, start, 5)
            for path in (tmp_path / "out").iterdir():
                assert pq.read_metadata(path).num_rows == 8
        sink.sync()
        sink.finish({})
        sink.close()

    assert {path.name: pq.read_metadata(path).num_rows for path in (tmp_path / "out").iterdir()} == {
        "part-00000.parquet": 8, "part-00001.parquet": 8, "part-00002.parquet": 8, "part-00003.parquet": 6,
    }  # fmt: skip


def test_parts_have_one_schema(tmp_path):
    """Columns that change their type or come later are alike in all, without a word to the reader."""
    with small_files(chunk=2, part=4):
        path = whole(tmp_path, "folder", 26)
    schemas = [pq.read_schema(each) for each in path.iterdir()]

    assert all(each.equals(schemas[0]) for each in schemas)
    assert str(schemas[0].field("sometimes").type) == "string"
    assert pl.read_parquet(f"{path}/*.parquet")["id"].to_list() == list(range(26))


def test_numbers_keep_every_digit_across_a_crash(tmp_path):
    """A whole number that no float64 holds lies in a part; the fraction that makes its column text comes after."""
    values = [2**60 + 1, 0.5]
    with small_files(chunk=1, part=1):
        state = None
        for row, value in enumerate(values):
            sink = opened(tmp_path, "folder", state)
            sink.write([[{"text": "t", "n": value}]], ones(1), {}, None)
            state = sink.sync()
            assert state["rows"] == row + 1
            sink.close()
        sink = opened(tmp_path, "folder", state)
        sink.finish({})
        sink.close()

    assert table_of(target(tmp_path, "folder"))["n"].to_pylist() == [str(2**60 + 1), "0.5"]


def test_a_part_takes_so_many_bytes_of_vectors(tmp_path, monkeypatch):
    """Whatever their width, and never less than a chunk of rows."""
    monkeypatch.setattr(table_sink, "PART_BYTES", 1024 * 1024)
    for width, rows in ((64, 4096), (1024, 1024), (1536, 1024), (0, 1024 * 1024)):
        sink = FolderSink(str(tmp_path / str(width)))
        (tmp_path / "job").mkdir(exist_ok=True)
        sink.begin(tmp_path / "job", like(width=width), None)
        assert sink._part_rows == rows
        sink.close()


def test_spools_go_when_no_state_needs_them(tmp_path):
    """The last two states can be gone on from, and the disk holds no more than their rows."""
    with small_files(chunk=4, part=8):
        sink = opened(tmp_path, "folder")
        seen = []
        for start in range(0, 40, 8):
            write(sink, start, 8)
            sink.sync()
            seen.append(sorted(path.name[-1] for path in (tmp_path / "job").iterdir() if path.name.startswith("spool")))
        sink.close()

    assert seen == [["0", "1"], ["1", "2"], ["2", "3"], ["3", "4"], ["4", "5"]]


def test_parts_of_an_append_that_was_given_up_are_taken_away(tmp_path):
    """The report still says what the finished output was."""
    with small_files(chunk=4, part=8):
        path = whole(tmp_path, "folder", 10)
        before = files_of(path)
        left = {"rows": 10, "parts": 1, "spooled": 2}
        for _ in range(2):
            state = FolderSink(str(path)).reopen(tmp_path / "job", left)
            sink = opened(tmp_path, "folder", state)
            assert files_of(path) == before
            write(sink, 10, 20)
            sink.sync()
            sink.close()
            assert len(files_of(path)) == 4


def test_other_files_in_the_folder_stay(tmp_path):
    """Only parts by our name are ours."""
    path = tmp_path / "out"
    path.mkdir()
    for name in ("part-0.parquet", "part-00000.parquet", "part-000000.parquet", "notes.txt"):
        (path / name).write_text("x")
    assert FolderSink(str(path)).exists()
    opened(tmp_path, "folder").close()

    assert sorted(each.name for each in path.iterdir()) == ["notes.txt", "part-0.parquet", "part-000000.parquet"]


# --- the input's columns ---------------------------------------------------------------------------------------------


def test_arrow_has_values_for_categories(tmp_path):
    """Wherever they stand, and though each batch has categories of its own."""
    kind = pa.dictionary(pa.int8(), pa.string())
    schema = pa.schema(
        {"text": pa.string(), "c": kind, "l": pa.list_(kind), "s": pa.struct([("a", kind)]), "b": pa.large_list(kind)}
    )
    batches = [
        pa.RecordBatch.from_pylist([{"text": "t", "c": c, "l": [c, None], "s": {"a": c}, "b": [c]}], schema)
        for c in ("x", "y", None)
    ]
    sink = TableFileSink(str(tmp_path / "out.arrow"), "arrow")
    path = finished(sink, tmp_path, *((batch, ones(1)) for batch in batches))
    found = table_of(path)

    assert found["c"].to_pylist() == ["x", "y", None]
    assert found["l"].to_pylist() == [["x", None], ["y", None], [None, None]]
    assert found["s"].to_pylist() == [{"a": "x"}, {"a": "y"}, {"a": None}]
    assert "dictionary" not in str(found.schema)


@every_table
def test_batches_and_dicts_share_an_output(tmp_path, kind):
    """Rows of Parquet and rows of JSON lines, one after the other: one file, every value."""
    sink = open_sink(str(target(tmp_path, kind)), kind)
    (tmp_path / "job").mkdir()
    sink.begin(tmp_path / "job", like(), None)
    batch = pa.RecordBatch.from_pydict({"text": ["a", "b"], "n": pa.array([1, 2], pa.int32()), "only": ["x", None]})
    other = pa.RecordBatch.from_pydict({"text": ["c"], "n": pa.array([0.5])})
    sink.write([batch[:1], batch[1:], other, [{"text": "d", "n": 3}], [], [{"text": "e"}]], ones(5), {1: "no"}, None)
    sink.sync()
    sink.finish({})
    sink.close()
    found = table_of(sink.place)

    assert found["text"].to_pylist() == list("abcde")
    assert found["n"].to_pylist() == [1, 2, 0.5, 3, None]
    assert found["only"].to_pylist() == ["x", None, None, None, None]
    assert found["embedding_error"].to_pylist() == [None, "no", None, None, None]


UNION = pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["x", "y"])])
YEARS = pa.array([0, 2**62, None], pa.timestamp("s"))
COLUMNS = {
    **TABLE,
    "union": (UNION, ["1", "y"]),
    "union in a list": (pa.ListArray.from_arrays([0, 0, 2], UNION), ["[]", '[1,"y"]']),
    "runs in a struct": (
        pa.StructArray.from_arrays([pa.RunEndEncodedArray.from_arrays([2], ["a"])], ["r"]), [{"r": "a"}] * 2,
    ),
    "years of five digits and more": (YEARS, ["1970-01-01T00:00:00", "+146138514283-06-19T07:45:04", None]),
}  # fmt: skip


@every_table
@pytest.mark.parametrize(("array", "expected"), COLUMNS.values(), ids=COLUMNS)
def test_a_column_of_any_type_is_kept(tmp_path, kind, array, expected):
    """Every value, in the type it came in where the format has it, else as text; nothing fails when all is paid for."""
    batch = pa.RecordBatch.from_arrays([pa.nulls(len(array), pa.string()), array], ["text", "c"])
    path = finished(open_sink(str(target(tmp_path, kind)), kind), tmp_path, (batch, ones(len(array))))
    said = [each for chunk in table_of(path)["c"].chunks for each in values(chunk)]

    assert said == expected or [each and json.loads(each) for each in said] == expected


@every_table
def test_categories_of_numbers_stay_numbers(tmp_path, kind):
    """Beside plain ones, which is what a file gives back when rows are added to it."""
    batches = [
        pa.RecordBatch.from_arrays([pa.array(["a"]), numbers], ["text", "c"])
        for numbers in (pa.array([5]), pa.array([7]).dictionary_encode())
    ]
    with small_files(chunk=1, part=1):
        path = finished(
            open_sink(str(target(tmp_path, kind)), kind), tmp_path, *((batch, ones(1)) for batch in batches)
        )

    assert table_of(path)["c"].to_pylist() == [5, 7]


@every_table
def test_categories_cost_their_rows_only(tmp_path, kind):
    """A dictionary of a whole file does not lie in the spool once per block."""
    values = pa.array([f"a long value with the number {number}" for number in range(20_000)])
    column = pa.DictionaryArray.from_arrays(pa.array(range(20_000), pa.int32()), values)
    batch = pa.RecordBatch.from_arrays([column, column], ["text", "c"])
    sink = opened(tmp_path, kind)
    for start in range(0, 2000, 100):
        sink.write([batch.slice(start, 100)], ones(100), {}, None)
    size = sink.sync()["bytes"]
    sink.finish({})
    sink.close()

    assert size < 500_000
    assert table_of(target(tmp_path, kind))["c"].to_pylist() == values.to_pylist()[:2000]


@every_table
def test_what_embedkit_has_not_written_gets_no_rows(tmp_path, kind):
    """A file of the right format without our columns; the file says what is missing."""
    path = target(tmp_path, kind)
    (tmp_path / "job").mkdir()
    if kind == "arrow":
        table = pa.table({"text": ["a"]})
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    else:
        part = path / "part-00000.parquet" if kind == "folder" else path
        part.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"text": ["a"]}), part)
    with pytest.raises(ConfigError, match="has no columns 'embedding' and 'embedding_error'"):
        open_sink(str(path), kind).reopen(tmp_path / "job", {"rows": 1, "parts": 0, "spooled": 1})
    assert json.dumps(list(map(str, (tmp_path / "job").iterdir()))) == "[]"
