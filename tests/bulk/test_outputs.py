"""Files out: every row in its place, in a file that others can read, whatever the parts it came in."""

from __future__ import annotations

import datetime as dt
import decimal
import io
import json
import math
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from embedkit._bulk import outputs
from embedkit._bulk.outputs import FORMS, OUTPUTS, Jsonl, Npy
from embedkit._bulk.sources import Line
from embedkit.codec.vector_math import missing_rows

WIDTH = 3
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.integers(-5, 5) | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "", "x.y", "é"]), inner, max_size=3)
    ),
    max_leaves=8,
)
KINDS = {"float32": np.float32, "int8": np.int8, "uint8": np.uint8}


def vectors(count, start=0, dtype="float32"):
    return (np.arange(start * WIDTH, (start + count) * WIDTH) % 100).reshape(count, WIDTH).astype(KINDS[dtype])


def blank(count, width=WIDTH, dtype="float32"):
    return missing_rows(count, width, dtype)


def written(tmp_path, kind, parts, like=None):
    """The path of what was written of (records, vectors, failed rows) parts."""
    output = FORMS[kind](tmp_path, "text", missing_rows(0, 0, "float32") if like is None else like)
    try:
        for records, rows, *failed in parts:
            output.write([records], rows, *failed)
        output.finish()
    finally:
        output.close()
    return output.path


def dicts(*texts):
    return [{"text": text} for text in texts]


def table(tmp_path, parts, like=None):
    return pq.read_table(written(tmp_path, "parquet", parts, like))


def lines(tmp_path, parts, like=None):
    return [json.loads(line) for line in written(tmp_path, "jsonl", parts, like).read_text("utf-8").splitlines()]


# --- what all of them do ---------------------------------------------------------------------------------------------


def loaded(path, kind):
    """The vectors in a file, None for a row without one."""
    if kind == "jsonl":
        return [json.loads(line)["embedding"] for line in path.read_text("utf-8").splitlines()]
    rows = np.load(path).tolist() if kind == "npy" else pq.read_table(path)["embedding"].to_pylist()
    return [None if all(map(math.isnan, row)) else row for row in rows]


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("dtype", KINDS)
def test_rows_come_out_as_they_went_in(tmp_path, kind, dtype):
    """Parts of any size, none among them, end up as one table in order, in the type they have."""
    sizes = [2, 0, 1, 5]
    starts = np.cumsum([0, *sizes])
    parts = [(dicts(*"x" * size), vectors(size, start, dtype)) for size, start in zip(sizes, starts, strict=False)]
    path = written(tmp_path, kind, parts, missing_rows(0, 0, dtype))

    assert loaded(path, kind) == vectors(8, 0, dtype).tolist()


@pytest.mark.parametrize("kind", FORMS)
def test_rows_before_the_first_success_wait_for_its_width(tmp_path, kind):
    """A part in which every text failed has no width of its own; its rows are there, without vectors."""
    parts = [(dicts("a", "b"), blank(2, 0), {0, 1}), (dicts("c", "d"), vectors(2), ()), (dicts("e"), blank(1), {0})]
    path = written(tmp_path, kind, parts)

    assert loaded(path, kind) == [None, None, [0, 1, 2], [3, 4, 5], None]


def test_a_failed_row_of_integers_is_null_in_json_alone(tmp_path):
    """Integers have no NaN: JSON tells a failed row from a vector of zeros, the others cannot."""
    rows = np.zeros((3, WIDTH), np.int8)
    like = missing_rows(0, 0, "int8")

    for kind, missing in {"jsonl": None, "npy": [0, 0, 0], "parquet": [0, 0, 0]}.items():
        assert loaded(written(tmp_path, kind, [(dicts("a", "b", "c"), rows, {1})], like), kind) == [
            [0, 0, 0],
            missing,
            [0, 0, 0],
        ]


@pytest.mark.parametrize("dtype", KINDS)
def test_parquet_has_no_null_among_its_vectors(tmp_path, dtype):
    """A null there would make a file that pyarrow up to 23 cannot read at all."""
    found = table(tmp_path, [(dicts("a", "b"), missing_rows(2, WIDTH, dtype), {0, 1})], missing_rows(0, 0, dtype))

    assert found["embedding"].null_count == 0


@pytest.mark.parametrize("kind", FORMS)
def test_no_rows_make_a_file_all_the_same(tmp_path, kind):
    """Nothing in, a valid file of nothing out, as wide as asked."""
    path = written(tmp_path, kind, [([], blank(0, 0))], missing_rows(0, WIDTH, "float32"))

    assert loaded(path, kind) == []
    if kind == "npy":
        assert np.load(path).shape == (0, WIDTH)


def test_suffixes_lead_to_the_three_forms():
    """Every suffix names a form that is there."""
    assert set(OUTPUTS.values()) == set(FORMS)


# --- .npy ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "kind"), KINDS.items())
def test_npy_is_what_numpy_writes(tmp_path, dtype, kind):
    """Byte for byte the file of `np.save`, so that anything that reads one reads ours."""
    path = written(
        tmp_path,
        "npy",
        [(dicts("a", "b"), vectors(2, 0, dtype)), (dicts("c"), vectors(1, 2, dtype))],
        missing_rows(0, 0, dtype),
    )
    np.save(tmp_path / "theirs.npy", vectors(3, 0, dtype))

    assert path.read_bytes() == (tmp_path / "theirs.npy").read_bytes()


def test_npy_maps_into_memory(tmp_path):
    """The header is 128 bytes, so rows are aligned and the file can be mapped."""
    mapped = np.load(written(tmp_path, "npy", [(dicts("a", "b"), vectors(2))]), mmap_mode="r")

    assert mapped.offset == 128
    assert np.array_equal(mapped, vectors(2))


def test_npy_writes_rows_that_are_not_contiguous(tmp_path):
    """A view with strides is written as the rows it shows."""
    wide = np.arange(12, dtype=np.float32).reshape(2, 6)

    assert np.array_equal(np.load(written(tmp_path, "npy", [(dicts("a", "b"), wide[:, ::2])])), wide[:, ::2])


def test_npy_header_has_room_for_any_shape(tmp_path):
    """However many rows, the header stays 128 bytes long."""
    output = Npy(tmp_path, "text", missing_rows(0, 4096, "float32"))
    output._count = 10**15
    output._header()
    output.close()

    assert output.path.stat().st_size == 128


# --- JSON lines ------------------------------------------------------------------------------------------------------


def test_jsonl_has_the_record_and_then_its_embedding(tmp_path):
    """Fields in their order, Unicode as it is, the embedding last; a float32 survives the way through text."""
    record = {"z": 1, "text": "Grüße 🙂", "a": {"deep": [1, None, 2.5]}, "big": 2**70}
    rows = np.array([[0.1, 1e-20, 16777217.0]], np.float32)
    path = written(tmp_path, "jsonl", [([record], rows)])
    line = path.read_text("utf-8")

    assert line.startswith(
        '{"z":1,"text":"Grüße 🙂","a":{"deep":[1,null,2.5]},"big":1180591620717411303424,"embedding":['
    )
    assert np.array_equal(np.array(json.loads(line)["embedding"], np.float32), rows[0])


def test_jsonl_spells_what_json_lacks(tmp_path):
    """Dates, times, decimals and bytes of a Parquet file become text."""
    batch = pa.RecordBatch.from_pydict(
        {
            "text": ["a"], "day": [dt.date(2026, 11, 25)], "time": pa.array([0], pa.timestamp("s")),
            "sum": [decimal.Decimal("1.10")],
            "raw": [b"\x00\xff"], "span": pa.array([1], pa.duration("s")), "list": [[1, 2]],
        }
    )  # fmt: skip
    (line,) = lines(tmp_path, [(batch, vectors(1))])

    assert line == {
        "text": "a", "day": "2026-11-25", "time": "1970-01-01T00:00:00", "sum": "1.10", "raw": "AP8=", "span": "PT1S",
        "list": [1, 2],
        "embedding": [0, 1, 2],
    }  # fmt: skip


def kept(source, **record):
    """A record of JSONL and its line."""
    line = Line(record)
    line.source = source
    return line


def test_a_record_of_jsonl_is_written_to_the_letter(tmp_path):
    """What JSON does not know, what no float holds, keys that
    repeat, spaces: as they came; an empty object needs no comma.
    """
    sources = [b'{"text":"a","n":NaN,"big":1e999,"x":1,"x":2}', b'{ "text" : "b" , "half":"\\ud800" }', b"{ }"]
    records = [kept(sources[0], text="a", x=2), kept(sources[1], text="b"), kept(sources[2])]
    path = written(tmp_path, "jsonl", [(records, vectors(3), {2})])

    assert path.read_bytes().splitlines() == [
        sources[0][:-1] + b',"embedding":[0.0,1.0,2.0]}', sources[1][:-1] + b',"embedding":[3.0,4.0,5.0]}',
        b'{ "embedding":null}',
    ]  # fmt: skip


ODD = [
    0.0,
    -0.0,
    1e-45,
    -1e-45,
    1.1754942e-38,
    1.17549435e-38,
    3.4028235e38,
    -3.4028235e38,
    0.1,
    1 / 3,
    16777217.0,
    1e22,
    9.5367431640625e-07,
]


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=64),
    st.integers(0, 2**32 - 1),
)
@example(ODD, 0)
def test_a_float32_comes_back_bit_by_bit_from_short_text(numbers, seed):
    """Through `json.loads` and numpy: every bit, denormals and the sign of zero too, in at most nine digits."""
    bits = np.random.default_rng(seed).integers(0, 2**32, 256, np.uint32).view(np.float32)
    rows = np.concatenate([np.array(numbers, np.float32), bits[np.isfinite(bits)]])[None, :]
    with TemporaryDirectory() as folder:
        text = written(Path(folder), "jsonl", [(dicts("a"), rows)]).read_text("utf-8")
    spelled = json.loads(text, parse_float=str, parse_constant=refuse)["embedding"]

    assert np.array(json.loads(text)["embedding"], np.float32).tobytes() == rows.tobytes()
    assert max(len(Decimal(each).normalize().as_tuple().digits) for each in spelled) <= 9


def refuse(constant):
    """No JSON has this."""
    raise AssertionError(constant)


def test_a_line_is_about_half_as_long_as_with_doubles(tmp_path):
    """1,536 components of a unit vector: about 12.5 bytes each, where a double's text takes 21."""
    row = np.random.default_rng(9).standard_normal((1, 1536)).astype(np.float32)
    row /= np.linalg.norm(row)
    line = written(tmp_path, "jsonl", [(dicts("a"), row)]).read_bytes()

    assert len(line) < 0.62 * len(json.dumps({"text": "a", "embedding": row[0].tolist()}, separators=(",", ":")))


def test_rows_that_are_not_contiguous_are_written_too(tmp_path):
    """Views with strides, and rows of Fortran's order."""
    wide = np.arange(12, dtype=np.float32).reshape(2, 6)
    for view in (wide[:, ::2], np.asfortranarray(wide)[:, 1:4], wide[::-1]):
        found = [line["embedding"] for line in lines(tmp_path, [(dicts("a", "b"), view)])]
        assert found == view.tolist()


def test_a_pipe_may_take_a_line_in_pieces(tmp_path):
    """An unbuffered handle that takes seven bytes at a time gets all of them, once."""

    class Narrow(io.RawIOBase):
        taken = b""

        def write(self, data):
            self.taken += bytes(data[:7])
            return min(len(data), 7)

    output = Jsonl(tmp_path, "text", missing_rows(0, 0, "float32"))
    output.close()
    output._file = Narrow()
    output.write([dicts("a", "b")], vectors(2))

    assert output._file.taken == b'{"text":"a","embedding":[0.0,1.0,2.0]}\n{"text":"b","embedding":[3.0,4.0,5.0]}\n'


# --- Parquet ---------------------------------------------------------------------------------------------------------


def test_parquet_has_a_list_of_fixed_size(tmp_path):
    """The type vector stores expect, with the input's columns before it."""
    schema = table(tmp_path, [(dicts("a"), vectors(1))]).schema

    assert schema.names == ["text", "embedding"]
    assert schema.field("embedding").type == pa.list_(pa.float32(), WIDTH)


def test_parquet_looks_for_repetition_in_the_texts_only(tmp_path):
    """Vectors never repeat: a dictionary of them would cost time and space."""
    path = written(tmp_path, "parquet", [(dicts("a", "a"), vectors(2))])
    text, vector = (pq.read_metadata(path).row_group(0).column(number) for number in (0, 1))

    assert "RLE_DICTIONARY" in text.encodings
    assert "RLE_DICTIONARY" not in vector.encodings


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

    assert found.drop_columns(["embedding"]).equals(source)
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


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(st.sampled_from(["v", "", "x.y"]), JSONS, max_size=3), min_size=1, max_size=5))
@pytest.mark.usefixtures("small_groups")
def test_any_records_of_json_become_a_table(records):
    """Whatever stands in a column from row to row: one file that
    can be read, none of its rows lost, and no error after the bill.
    """
    with TemporaryDirectory() as folder:
        found = table(
            Path(folder), [([{"text": "t", **record}], vectors(1, row)) for row, record in enumerate(records)]
        )

    assert found["embedding"].to_pylist() == vectors(len(records)).tolist()


@pytest.fixture
def small_groups(monkeypatch):
    """Every part is a row group of its own."""
    monkeypatch.setattr(outputs, "GROUP_BYTES", 1)


@pytest.mark.parametrize("groups", ["one group", "a group per part"])
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
    ],
    ids=str,
)
def test_a_column_is_as_wide_as_its_values(tmp_path, monkeypatch, groups, values, kind, expected):
    """Values of JSON that need a wider type get it, wherever the
    row groups end; without a common type they are text.
    """
    if groups != "one group":
        monkeypatch.setattr(outputs, "GROUP_BYTES", 1)
    parts = [([{"text": "t", "value": value}], vectors(1, row)) for row, value in enumerate(values)]
    found = table(tmp_path, parts)

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

    assert found.drop_columns(["embedding"]).to_pylist() == [
        {"text": "a", "x": 1, "y": None}, {"text": "b", "x": None, "y": "z"}, {"text": "c", "x": None, "y": None},
    ]  # fmt: skip
    assert found["embedding"].to_pylist() == vectors(3).tolist()


@pytest.mark.usefixtures("small_groups")
def test_a_widened_table_is_one_file(tmp_path):
    """What was begun anew is joined: one path, all rows, in order."""
    parts = [
        ([{"text": str(row), "value": row if row < 50 else "x" if row > 80 else 0.5}], vectors(1, row))
        for row in range(100)
    ]
    path = written(tmp_path, "parquet", parts)
    found = pq.read_table(path)

    assert found["text"].to_pylist() == [str(row) for row in range(100)]
    assert found["embedding"].to_pylist() == vectors(100).tolist()
    assert found["value"].to_pylist()[::25] == ["0", "25", "0.5", "0.5"]


def test_no_rows_of_a_known_schema_keep_it(tmp_path):
    """An empty Parquet file in, one with the same columns out."""
    batch = pa.RecordBatch.from_pydict({"text": pa.array([], pa.string()), "n": pa.array([], pa.int8())})
    schema = table(tmp_path, [(batch, blank(0, 0))], missing_rows(0, WIDTH, "float32")).schema

    assert schema.names == ["text", "n", "embedding"]
    assert schema.field("n").type == pa.int8()
    assert schema.field("embedding").type == pa.list_(pa.float32(), WIDTH)
