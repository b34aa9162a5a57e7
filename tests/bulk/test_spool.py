"""The spool: rows come back as they were, cut as the reader wants them."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit import ConfigError
from embedkit._bulk.sinks.spool import Spool, pack, unpack

TIMES = (
    st.datetimes().map(lambda time: time.replace(fold=0))
    | st.dates()
    | st.times().map(lambda time: time.replace(fold=0))
    | st.timedeltas()
    | st.decimals(allow_nan=False)
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(max_size=5) | TIMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.dictionaries(st.text(max_size=3), VALUES, max_size=4), max_size=4))
def test_a_record_comes_back_as_it_was(records):
    """Every value, with its type: whole numbers of any size, dates, times, decimals, bytes."""
    found = unpack(pack(records))

    assert found == records
    assert repr(found) == repr(records)  # 1 is not 1.0, and no bool


def test_what_has_no_type_of_its_own_comes_back_as_text():
    """Or as the nearest type, and never as an error after the bill."""
    number = UUID(int=5)
    record = {
        "half": "\ud800", "uuid": number, "tuple": (1, 2), "set": {3}, "array": np.arange(2), "scalar": np.float32(0.5),
        "int": np.int64(2**40), "deep": {7: [{"x": "\udfff"}]}, "zone": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        "none": None, "object": Path("a"), "nan": math.nan,
    }  # fmt: skip
    (found,) = unpack(pack([record]))

    assert math.isnan(found.pop("nan"))
    assert found == {
        "half": "\\ud800", "uuid": str(number), "tuple": [1, 2], "set": [3], "array": [0, 1], "scalar": 0.5,
        "int": 2**40, "deep": {"7": [{"x": "\\udfff"}]}, "zone": dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "none": None,
        "object": "a",
    }  # fmt: skip


def test_no_time_of_pandas_is_null():
    """It has the type of a time and is none."""
    records = unpack(pack([{"none": pd.NaT, "time": pd.Timestamp("2026-01-01", tz="UTC")}]))

    assert records == [{"none": None, "time": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}]


def test_values_that_readers_know_are_no_python_objects():
    """A spool is read after a crash, when anybody may have written it: nothing in it is executed."""
    assert pack([{"a": Decimal(1)}]) == b"\x91\x81\xa1a\xd4\x021"


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=8),
    st.integers(1, 9),
    st.integers(0, 4),
)
def test_rows_are_cut_as_the_reader_wants_them(writes, count, width):
    """However they were written, `count` at a time, each with its record, its vector and its failure."""
    with TemporaryDirectory() as folder:
        spool = Spool(Path(folder) / "spool", np.empty((0, width), np.float32))
        row = 0
        for rows, batches in writes:
            numbers = range(row, row + rows)
            records = [{"row": number} for number in numbers]
            piece = pa.RecordBatch.from_pylist(records, pa.schema([("row", pa.int64())])) if batches else records
            cut = rows // 3
            vectors = np.array([[number] * width for number in numbers], np.float32).reshape(rows, width)
            lost = {at: f"why {number}" for at, number in enumerate(numbers) if number % 4 == 1}
            spool.append([piece[:cut], piece[cut:]], vectors, lost)
            row += rows
        assert spool.rows == row
        state = spool.sync()
        spool.close()
        again = Spool(Path(folder) / "spool", np.empty((0, width), np.float32), state)
        chunks = list(again.read(count))
        again.close()

    read = 0
    assert [len(chunk[1]) for chunk in chunks if len(chunk[1])][:-1] == [count] * ((row - 1) // count)
    for pieces, vectors, failures in chunks:
        there = [each["row"] for piece in pieces for each in (piece if isinstance(piece, list) else piece.to_pylist())]
        assert there == list(range(read, read + len(vectors)))
        assert vectors.tolist() == [[number] * width for number in there]
        assert failures == {at: f"why {number}" for at, number in enumerate(there) if number % 4 == 1}
        read += len(vectors)
    assert read == row


def test_columns_of_no_rows_are_kept(tmp_path):
    """An empty batch says which columns there are."""
    spool = Spool(tmp_path / "spool", np.empty((0, 2), np.float32))
    assert spool.empty
    spool.append([[]], np.empty((0, 2), np.float32), {})
    assert [chunk[0] for chunk in spool.read(3)] in ([[]], [[[]]])
    spool.append([pa.RecordBatch.from_pydict({"a": pa.array([], pa.int8())})], np.empty((0, 2), np.float32), {})
    (chunk,) = spool.read(3)
    spool.close()

    assert chunk[0][-1].schema == pa.schema([("a", pa.int8())])
    assert not spool.empty


@pytest.mark.parametrize("batches", [False, True])
def test_a_spool_that_is_damaged_says_so(tmp_path, batches):
    """Wherever bytes are lost: its rows come, or a ConfigError that names the file, and nothing else."""
    path = tmp_path / "spool"
    spool = Spool(path, np.empty((0, 2), np.float32))
    for number in range(3):
        rows = [{"a": number, "b": "x" * number}] * 4
        spool.append([pa.RecordBatch.from_pylist(rows) if batches else rows], np.ones((4, 2), np.float32), {1: "no"})
    spool.sync()
    whole = path.read_bytes()
    refused = 0
    for start in range(0, len(whole), 3 if batches else 1):
        for filling in (b"\0", b"\xff"):
            path.write_bytes(whole[:start] + filling * (len(whole) - start))
            try:
                list(spool.read(5))
            except ConfigError as error:
                refused += "spool is damaged" in str(error)
    spool.close()

    assert refused > len(whole) / 4
