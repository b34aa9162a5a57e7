"""Columns beside the text, of every type of Arrow, into every output: they come through."""

from __future__ import annotations

import decimal
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedkit import ConfigError, bulk
from embedkit.testing import FakeEmbedder

FAR = 2**60  # seconds: 36 billion years, and more than 64 bits hold in milliseconds
TEXTS = ["a cat", "a dog", "a bird"]


def union(mode):
    kinds, children = pa.array([0, 1, 0], pa.int8()), [pa.array([1, 2, 3]), pa.array(["x", "y", "z"])]
    if mode == "dense":
        return pa.UnionArray.from_dense(kinds, pa.array([0, 0, 1], pa.int32()), children)
    return pa.UnionArray.from_sparse(kinds, children)


COLUMNS = {
    "time in ns": pa.array([1, 2**62, None], pa.timestamp("ns")),
    "time in s": pa.array([1, -1, None], pa.timestamp("s", "Europe/Berlin")),
    "far time": pa.array([0, FAR, None], pa.timestamp("s")),
    "far time with a zone": pa.array([0, None, -FAR], pa.timestamp("s", "UTC")),
    "far times in a list": pa.array([[0], [FAR], None], pa.list_(pa.timestamp("s"))),
    "far time in a struct": pa.array([{"a": 0}, {"a": FAR}, None], pa.struct([("a", pa.timestamp("s"))])),
    "far time in a map": pa.array([[], [("k", FAR)], None], pa.map_(pa.string(), pa.timestamp("s"))),
    "date": pa.array([2**30, -(2**30), None], pa.date32()),
    "date in ms": pa.array([86_400_000, None, 0], pa.date64()),
    "time of day": pa.array([1, None, 3], pa.time32("s")),
    "duration": pa.array([FAR, -5, None], pa.duration("s")),
    "interval": pa.array([(1, 2, 3), None, (0, 0, 0)], pa.month_day_nano_interval()),
    "intervals": pa.array([[(1, 2, 3)], None, []], pa.list_(pa.month_day_nano_interval())),
    "decimal": pa.array([decimal.Decimal(10) ** 60, None, decimal.Decimal("-0.01")], pa.decimal256(76, 2)),
    "float16": pa.array([np.float16(1.5), np.float16("nan"), None], pa.float16()),
    "not finite": pa.array([float("nan"), float("-inf"), None]),
    "uint64": pa.array([2**64 - 1, 0, None], pa.uint64()),
    "bytes": pa.array([b"\xff", b"", None]),
    "bytes of one size": pa.array([b"12", None, b"\xff\xff"], pa.binary(2)),
    "string view": pa.array(["x", None, ""], pa.string_view()),
    "list view": pa.array([[1], None, []], pa.list_view(pa.int32())),
    "list of one size": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int8(), 2)),
    "null": pa.nulls(3),
    "nulls": pa.array([[None], None, []], pa.list_(pa.null())),
    "empty struct": pa.array([{}, None, {}], pa.struct([])),
    "category": pa.array(["x", None, "x"]).dictionary_encode(),
    "category of lists": pa.DictionaryArray.from_arrays(pa.array([0, None, 1]), pa.array([[1], []])),
    "runs": pa.RunEndEncodedArray.from_arrays([1, 3], ["x", "y"]),
    "union, dense": union("dense"),
    "union, sparse": union("sparse"),
    "union in a list": pa.ListArray.from_arrays([0, 1, 2, 3], union("sparse")),
    "uuid": pa.array([b"1" * 16, None, b"2" * 16], pa.uuid()),
    "tensor": pa.FixedShapeTensorArray.from_numpy_ndarray(np.ones((3, 2, 2), "f4")),
}
OUTPUTS = ("out.parquet", "out/", "out.arrow", "out.jsonl", "out.npy", "sqlite:out.db#t", "duckdb:out.duckdb#t")


UNIONS = {name for name in COLUMNS if name.startswith("union")}


@pytest.mark.parametrize("out", OUTPUTS)
@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_comes_through(tmp_path, monkeypatch, name, out):
    """In its type where the output has it, else as text. What JSON has nothing for is refused before the first request."""
    monkeypatch.chdir(tmp_path)
    table = pa.table({"text": TEXTS, name: COLUMNS[name]})
    with pa.OSFile("in.arrow", "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    fake = FakeEmbedder(4)
    if name in UNIONS and out.startswith(("out.jsonl", "sqlite", "duckdb")):
        with pytest.raises(ConfigError, match=rf"column '{name}' cannot be written as JSON.*write \.parquet or \.npy"):
            bulk.run_sync("in.arrow", fake, out)
        assert fake.batches == []
        return
    report = bulk.run_sync("in.arrow", fake, out)

    assert (report.rows, report.failed) == (3, 0)
    if out == "out.jsonl":
        lines = (tmp_path / out).read_text().splitlines()
        assert all(name in json.loads(line, parse_constant=pytest.fail) for line in lines)
    elif out == "out.arrow":
        found = pa.ipc.open_file(out).read_all().column(name).combine_chunks()
        changed = name in UNIONS or pa.types.is_dictionary(COLUMNS[name].type)
        assert changed or str(found) == str(COLUMNS[name])
        assert found.is_null().to_pylist() == COLUMNS[name].is_null().to_pylist()


def test_a_text_that_failed_stands_in_the_output_as_it_was(tmp_path):
    """An empty text, and one whose key is missing, are what they were: only a text that is no string becomes null."""
    pq.write_table(pa.table({"text": ["a", "", None, "b"], "id": ["1", "2", "3", None]}), tmp_path / "in.parquet")
    bulk.run_sync(tmp_path / "in.parquet", FakeEmbedder(4), tmp_path / "out.jsonl", key="id")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]

    assert [row["text"] for row in rows] == ["a", "", None, "b"]
    assert [row["embedding"] is None for row in rows] == [False, True, True, True]
