"""Rows that a program has: strings, dicts, tables of pyarrow, polars and pandas."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from embedkit import ConfigError
from embedkit._batching.plan import estimate
from embedkit._bulk.sources.open_source import open_source
from tests.bulk.reading import read

ROWS = [{"text": f"text {number}", "id": number, "doc": {"a": f"a{number}"}} for number in range(600)]
TEXTS = [row["text"] for row in ROWS]
TABLE = pa.Table.from_pylist(ROWS)


def columns(frame):
    """Frames without the nested column."""
    return frame[["text", "id"]]


INPUTS = {
    "list of strings": TEXTS,
    "tuple of strings": tuple(TEXTS),
    "numpy": np.array(TEXTS),
    "numpy objects": np.array(TEXTS, object),
    "list of dicts": ROWS,
    "dict values": dict(enumerate(TEXTS)).values(),
    "pyarrow array": pa.array(TEXTS),
    "pyarrow chunks": pa.chunked_array([TEXTS[:5], TEXTS[5:]]),
    "pyarrow table": TABLE,
    "pyarrow batch": TABLE.to_batches()[0],
    "pyarrow dataset": ds.dataset(TABLE),
    "polars frame": pl.DataFrame(ROWS),
    "polars series": pl.Series("x", TEXTS),
    "pandas frame": columns(pd.DataFrame(ROWS)),
    "pandas frame of objects": columns(pd.DataFrame(ROWS)).astype(object),
    "pandas series": pd.Series(TEXTS),
}
ONCE = {
    "generator": lambda: (text for text in TEXTS),
    "generator of dicts": lambda: iter(ROWS),
    "pyarrow reader": TABLE.to_reader,
}


@pytest.mark.parametrize("given", INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("carried", ["", "jsonl", "parquet"])
def test_rows_in_memory(given, carried):
    """Every kind gives every text in order, again and again, in blocks with a record each."""
    source = open_source(given, carried=carried)
    described = source.described()

    assert (read(source)[0], read(source)[0]) == (TEXTS, TEXTS)
    assert source.again
    assert described["inputs"]
    assert described.get("rows", 600) == 600
    assert max(len(block.texts) for block in source.blocks()) <= 256
    assert read(open_source(given, carried=carried, limit=300))[0] == TEXTS[:300]


@pytest.mark.parametrize("given", ONCE.values(), ids=ONCE)
def test_rows_that_come_once(given):
    """They are not looked through, and not read in another thread: they may be bound to theirs."""
    source = open_source(given())

    assert (source.again, source.aside, source.scan(estimate)) == (False, False, None)
    assert read(source)[0] == TEXTS
    assert read(open_source(given(), limit=7))[0] == TEXTS[:7]


@pytest.mark.parametrize("name", ["list of dicts", "pyarrow table", "pyarrow dataset", "polars frame"])
@pytest.mark.parametrize("carried", ["", "jsonl", "parquet"])
def test_fields_templates_and_keys(name, carried):
    """Nested ones as well."""
    found = read(open_source(INPUTS[name], carried=carried, template="{id}: {doc.a}", key="id"))

    assert (found[0][1], found[2][:3]) == ("1: a1", [0, 1, 2])
    assert read(open_source(INPUTS[name], carried=carried, column="doc.a"))[0][2] == "a2"


def test_frames_of_pandas_give_keys_and_templates():
    """Missing numbers, too."""
    frame = pd.DataFrame({"text": ["a", None, math.nan, "d"], "id": [1, 2, 3, 4], "n": [1.5, None, 2, 3]})
    found = read(open_source(frame, key="id"))

    assert found == [["a", None, None, "d"], dict.fromkeys((1, 2), "'text' is null, which is no string"), [1, 2, 3, 4]]
    assert read(open_source(frame, template="{text} {n}"))[0] == ["a 1.5", None, None, "d 3.0"]


def test_a_frame_with_two_columns_of_a_name_is_refused():
    """None of them is left out in silence; where the output carries none, only what is read counts."""
    frame = pd.DataFrame([["a", "b", 1, 2]], columns=["text", "text", "n", "n"])
    with pytest.raises(ConfigError, match="two columns are called 'text'"):
        open_source(frame)
    with pytest.raises(ConfigError, match="two columns are called 'n'"):
        open_source(frame.iloc[:, 1:], carried="jsonl")
    assert read(open_source(frame.iloc[:, 1:]))[0] == ["b"]


def test_a_frame_of_mixed_objects_costs_its_bad_rows():
    """A column may hold anything."""
    frame = pd.DataFrame({"text": ["a", 7, None, ["x"], "e"], "id": [1, 2, 3, 4, 5]}, dtype=object)

    assert read(open_source(frame, key="id", carried="jsonl"))[:2] == [
        ["a", None, None, None, "e"],
        {
            1: "'text' is 7, which is no string",
            2: "'text' is null, which is no string",
            3: "'text' is [\"x\"], which is no string",
        },
    ]


def test_bad_rows_of_an_iterable():
    """Missing values, numbers, halves of pairs, bytes, dicts without the field."""
    rows = ["a", None, math.nan, pd.NA, 7, b"x", "\ud800", {"body": "x"}, {"text": "\ud800"}, {"text": None}, [], "z"]
    texts, faults, _ = read(open_source(iter(rows)))

    assert texts == ["a", *[None] * 10, "z"]
    assert list(faults) == list(range(1, 11))
    assert faults[1] == "the text is missing"
    assert faults[4] == "the text is 7, which is no string"
    assert faults[7] == "no 'text'; there is 'body' (choose with --column)"
    with pytest.raises(ConfigError, match=r"the input, row 1: the text is missing; --on-error skip"):
        read(open_source(rows, skip=False))


def test_records_of_a_program_are_made_of_what_outputs_can_hold():
    """Dates, decimals, numpy's numbers: as JSON says them; what cannot be said is refused before anything is sent."""
    record = {
        "text": "a",
        "day": dt.date(2026, 1, 2),
        "sum": Decimal("1.10"),
        "n": np.int64(3),
        "v": np.zeros(2),
        "s": {1},
    }
    for carried in ("jsonl", "parquet"):
        (block,) = open_source([record], carried=carried).blocks()
        assert block.records == [{"text": "a", "day": "2026-01-02", "sum": "1.10", "n": 3, "v": [0.0, 0.0], "s": [1]}]
        for bad, message in (
            ({"text": "a", "x": "\ud800"}, "field 'x' cannot be written"),
            ({"text": "a", 1: 2}, "field 1 cannot be written"),
            ({"text": "a", "embedding": 2}, "there is an 'embedding' already"),
            ({"text": "a", "embedding_error": ""}, "there is an 'embedding_error' already"),
        ):
            with pytest.raises(ConfigError, match=message):
                open_source([bad], carried=carried).scan(estimate)
            assert read(open_source([bad]))[0] == ["a"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (b"text", "the input is bytes; it takes the name of a file"),
        ({"a": "b"}, "the input is dict"),
        ({"a", "b"}, "the input is set"),
        (7, "the input is int"),
        (None, "the input is NoneType"),
        (np.zeros((2, 2)), "of 2 axes"),
        (pl.LazyFrame({"text": ["a"]}), r"pass .collect\(\)"),
        (pa.table({"body": ["a"]}), "no 'text'; there is 'body'"),
        (pl.DataFrame({"body": ["a"]}), "no 'text'; there is 'body'"),
        (pa.table({"text": [1]}), "'text' is int64, not string"),
        (pa.table({"text": ["a"], "embedding": [1]}), "there is an 'embedding' already"),
    ],
)
def test_what_has_no_rows_in_an_order_is_refused(given, message):
    """Or no text in them: what it is, and what to pass."""
    with pytest.raises(ConfigError, match=message):
        open_source(given, carried="jsonl")


def test_a_dataset_reads_the_columns_it_needs(tmp_path):
    """From several files, in their order."""
    for part in range(3):
        pq.write_table(TABLE.slice(part * 200, 200), tmp_path / f"{part}.parquet")
    found = ds.dataset(tmp_path)

    assert read(open_source(found, key="id")) == [TEXTS, {}, [*range(600)]]
