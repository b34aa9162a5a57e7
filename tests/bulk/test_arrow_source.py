"""Parquet and Arrow: every row in order, with columns of every type."""

from __future__ import annotations

import io
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.bulk.reading import Pipe, keys, records, refused, source, texts


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.dictionary(pa.int8(), pa.large_string()),
    ],
    ids=str,
)
def test_parquet_text_in_each_of_its_types(file, kind):
    """Plain, large and categorical strings, in several row groups, in order."""
    words = [f"text {number % 7}" for number in range(600)]
    table = pa.table({"text": pa.array(words, pa.string()).cast(kind), "n": range(600)})
    name = file("in.parquet", table)

    assert texts(name) == words
    assert [record["n"] for record in records(name)] == list(range(600))


def test_parquet_keeps_types_nested_columns_and_nulls(file):
    """What is beside the text comes along as Arrow has it."""
    beside = {
        "list": [[1, None], None],
        "struct": [{"a": 1, "b": "x"}, None],
        "time": pa.array([0, None], pa.timestamp("us", "UTC")),
    }
    table = pa.table({"text": ["a", "b"], **beside}).replace_schema_metadata({"made by": "a test"})
    blocks = list(source(file("in.parquet", table), carried="parquet").blocks())
    batches = [block.records for block in blocks]

    assert pa.Table.from_batches(batches).equals(table)
    assert batches[0].schema.metadata == {b"made by": b"a test"}


def test_parquet_reads_only_the_text_where_nothing_else_is_wanted(file, monkeypatch):
    """A matrix needs one column: the others stay on the disk."""
    asked = []
    real = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile,
        "iter_batches",
        lambda *given, columns, **rest: asked.append(columns) or real(*given, columns=columns, **rest),
    )
    name = file("in.parquet", pa.table({"text": ["a"], "embedding": [[1.0]], "id": [1]}))

    assert (texts(name), keys(name, "id")) == (["a"], [1])
    assert [*map(list, asked)] == [["text"]] * 3 + [["text", "id"]] * 3


def test_an_empty_parquet_file_keeps_its_columns(file):
    """No rows, but a schema for the output."""
    table = pa.table({"text": pa.array([], pa.string()), "n": pa.array([], pa.int8())})
    blocks = list(source(file("in.parquet", table), carried="jsonl").blocks())

    assert [block.texts for block in blocks] == [[]]
    assert blocks[0].records.schema.names == ["text", "n"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"a": [1]}), ": no 'text'; there is 'a' (choose with --column)"),
        (pa.table({"text": [1]}), ": 'text' is int64, not string"),
        (pa.table({"text": [b"a"]}), ": 'text' is binary, not string"),
        (pa.table({"text": [["a"]]}), ": 'text' is list<element: string>, not string"),
        (pa.table({"text": ["a", None]}), ", row 1: 'text' is null, which is no string"),
        (pa.table({"text": ["a"] * 300 + [None]}), ", row 300: 'text' is null, which is no string"),
        (pa.table({"text": pa.array([b"a"]).dictionary_encode()}), ": 'text' is dictionary<values=binary"),
        (b"PAR1 not really", ": cannot be read as Parquet: "),
        (b"", ": cannot be read as Parquet: "),
    ],
)
def test_parquet_that_cannot_be_read_is_refused(file, table, message):
    """By column, by row, or as a whole."""
    name = file("in.parquet", table)

    assert refused(name).startswith(name + message)


def test_parquet_does_not_come_through_a_pipe(monkeypatch):
    """Its index stands at the end: the error says so before anything is read."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Pipe(b"PAR1", 9))))

    assert "cannot be read from a pipe" in refused("-", form="parquet")


def test_an_embedding_column_in_parquet_is_not_overwritten(file):
    """As in JSONL."""
    name = file("in.parquet", pa.table({"text": ["a"], "embedding": [1]}))

    assert "there is an 'embedding' already" in refused(name, carried="jsonl")


