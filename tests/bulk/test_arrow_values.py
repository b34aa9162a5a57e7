"""From Arrow to JSON: a rule per type, tried on every type there is, with nulls, slices and the ends of its range."""

from __future__ import annotations

import datetime as dt
import json
import math
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit._bulk.arrow_values import readable, records, unspeakable, values

LEAST, MOST = -(2**63), 2**63 - 1


def of(kind, *stored):
    """An array of a type of time, by what is stored: its own constructors refuse what files may hold."""
    return pa.array([*stored, None], pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)


def twins():
    return pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"])


TABLE = {
    "null": (pa.nulls(2), [None, None]),
    "bool": (pa.array([True, None, False]), [True, None, False]),
    "int8": (pa.array([-128, None], pa.int8()), [-128, None]),
    "int64": (pa.array([LEAST, MOST, None]), [LEAST, MOST, None]),
    "uint64": (pa.array([2**64 - 1, None], pa.uint64()), [2**64 - 1, None]),
    "float16": (pa.array(np.array([0.1, -0.0, np.nan, np.inf, 6e-8], np.float16)), [0.1, -0.0, None, None, 6e-8]),
    "float32": (pa.array(np.array([0.1, -0.0, np.nan, -np.inf, 1e-45], np.float32)), [0.1, -0.0, None, None, 1e-45]),
    "float64": (pa.array([0.1, -0.0, math.nan, math.inf, 5e-324, None]), [0.1, -0.0, None, None, 5e-324, None]),
    "string": (pa.array(["é🙂", "", None]), ["é🙂", "", None]),
    "large_string": (pa.array(["a", None], pa.large_string()), ["a", None]),
    "string_view": (pa.array(["a", None], pa.string_view()), ["a", None]),
    "binary": (pa.array([b"\x00\xff", b"", None]), ["AP8=", "", None]),
    "large_binary": (pa.array([b"\x00", None], pa.large_binary()), ["AA==", None]),
    "fixed_size_binary": (pa.array([b"ab", None], pa.binary(2)), ["YWI=", None]),
    "binary_view": (pa.array([b"ab", None], pa.binary_view()), ["YWI=", None]),
    "decimal32": (pa.array([Decimal("1.5"), None], pa.decimal32(5, 2)), ["1.50", None]),
    "decimal64": (pa.array([Decimal("-0.01"), None], pa.decimal64(15, 2)), ["-0.01", None]),
    "decimal128": (pa.array([Decimal("1.10"), None]), ["1.10", None]),
    "decimal128 of small numbers": (pa.array([Decimal("1E-20")], pa.decimal128(30, 20)), ["0." + "0" * 19 + "1"]),
    "decimal128 of thousands": (pa.array([Decimal(12000)], pa.decimal128(5, -3)), ["12000"]),
    "decimal256": (pa.array([Decimal("9" * 60), None], pa.decimal256(76, 2)), ["9" * 60 + ".00", None]),
    "date32": (of(pa.date32(), 0, -719_162, -719_163, 2_932_897),
     ["1970-01-01", "0001-01-01", "0000-12-31", "+10000-01-01", None]),
    "date32, its ends": (of(pa.date32(), -(2**31), 2**31 - 1), ["-5877641-06-23", "+5881580-07-11", None]),
    "date64": (of(pa.date64(), 0, -86_400_000), ["1970-01-01", "1969-12-31", None]),
    "time32 s": (of(pa.time32("s"), 0, 86_399), ["00:00:00", "23:59:59", None]),
    "time32 ms": (of(pa.time32("ms"), 1), ["00:00:00.001000", None]),
    "time64 us": (of(pa.time64("us"), 1), ["00:00:00.000001", None]),
    "time64 ns": (of(pa.time64("ns"), 1, -1, 10**15), ["00:00:00.000000001", "-00:00:00.000000001", "277:46:40", None]),
    "timestamp s": (of(pa.timestamp("s"), 0, -1, 253_402_300_800),
     ["1970-01-01T00:00:00", "1969-12-31T23:59:59", "+10000-01-01T00:00:00", None]),
    "timestamp ms": (of(pa.timestamp("ms"), 1_500), ["1970-01-01T00:00:01.500000", None]),
    "timestamp us": (of(pa.timestamp("us"), LEAST, MOST),
     ["-290308-12-21T19:59:05.224192", "+294247-01-10T04:00:54.775807", None]),
    "timestamp ns": (
        of(pa.timestamp("ns"), 1_700_000_000_123_456_789, LEAST),
        ["2023-11-14T22:13:20.123456789", "1677-09-21T00:12:43.145224192", None],
    ),
    "timestamp, UTC": (of(pa.timestamp("us", "UTC"), 0), ["1970-01-01T00:00:00Z", None]),
    "timestamp, a zone": (of(pa.timestamp("ms", "Europe/Berlin"), 0), ["1970-01-01T00:00:00Z", None]),
    "timestamp, an offset": (of(pa.timestamp("s", "+05:30"), 0), ["1970-01-01T00:00:00Z", None]),
    "timestamp, no zone of this world": (of(pa.timestamp("ns", "Mars/Phobos"), 0), ["1970-01-01T00:00:00Z", None]),
    "duration s": (of(pa.duration("s"), 0, 1, 86_400, -90_061), ["PT0S", "PT1S", "P1D", "-P1DT3661S", None]),
    "duration ms": (of(pa.duration("ms"), 1_500), ["PT1.5S", None]),
    "duration ns": (of(pa.duration("ns"), 10**18 + 1, LEAST),
     ["P11574DT6400.000000001S", "-P106751DT85636.854775808S", None]),
    "interval": (pa.array([(1, 2, 3 * 10**9), (0, 0, 0), (-1, 0, -1), None], pa.month_day_nano_interval()),
                 ["P1M2DT3S", "PT0S", "P-1MT-0.000000001S", None]),
    "list": (pa.array([[1, None], [], None]), [[1, None], [], None]),
    "list of dates": (pa.array([[dt.date(2020, 1, 2)], None]), [["2020-01-02"], None]),
    "large_list of float32": (pa.array([[0.1, None], None], pa.large_list(pa.float32())), [[0.1, None], None]),
    "fixed_size_list": (pa.array([[0.1, 0.2], None, [0.3, 0.4]], pa.list_(pa.float32(), 2)),
     [[0.1, 0.2], None, [0.3, 0.4]]),
    "list_view": (pa.array([[1], None, [2, 3]], pa.list_view(pa.int8())), [[1], None, [2, 3]]),
    "large_list_view": (pa.array([[b"a"], None], pa.large_list_view(pa.binary())), [["YQ=="], None]),
    "lists in lists": (pa.array([[[1], None], None, [[]]]), [[[1], None], None, [[]]]),
    "struct": (
        pa.array([{"a": dt.datetime(2020, 1, 1), "b": {"c": b"x"}}, None, {"a": None, "b": None}]),  # noqa: DTZ001 (Arrow's has no zone)
        [{"a": "2020-01-01T00:00:00", "b": {"c": "eA=="}}, None, {"a": None, "b": None}],
    ),
    "empty struct": (pa.array([{}, None], pa.struct([])), [{}, None]),
    "list of structs": (pa.array([[{"k": Decimal("1.0")}], None, []]), [[{"k": "1.0"}], None, []]),
    "map": (
        pa.array([[("a", dt.date(2020, 1, 1)), ("a", None)], None, []], pa.map_(pa.string(), pa.date32())),
        [[["a", "2020-01-01"], ["a", None]], None, []],
    ),
    "map of maps": (
        pa.array([[(1, [(b"k", 0.5)])], None], pa.map_(pa.int8(), pa.map_(pa.binary(), pa.float32()))),
        [[[1, [["aw==", 0.5]]]], None],
    ),
    "dictionary": (pa.array(["x", None, "y", "x"]).dictionary_encode(), ["x", None, "y", "x"]),
    "dictionary of dates": (pa.array([dt.date(2020, 1, 1), None]).dictionary_encode(), ["2020-01-01", None]),
    "run_end_encoded": (pa.RunEndEncodedArray.from_arrays([2, 3], [b"a", None]), ["YQ==", "YQ==", None]),
    "uuid": (pa.array([bytes(range(16)), None], pa.uuid()), ["00010203-0405-0607-0809-0a0b0c0d0e0f", None]),
    "json": (pa.array(['{"a": 1}', None], pa.json_()), ['{"a": 1}', None]),
    "bool8": (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None, 0], pa.int8())), [True, None, False]),
    "opaque": (pa.ExtensionArray.from_storage(pa.opaque(pa.binary(), "x", "y"), pa.array([b"a", None])),
     ["YQ==", None]),
    "tensor": (pa.FixedShapeTensorArray.from_numpy_ndarray(np.full((1, 2, 2), 0.1, np.float32)), [[0.1] * 4]),
}  # fmt: skip


@pytest.mark.parametrize(("array", "expected"), TABLE.values(), ids=TABLE)
def test_every_type_has_its_rule(array, expected):
    """Value by value, as a slice from anywhere, inside a list and a struct, and as JSON that every reader takes."""

    def same(found, wanted):
        assert repr(found) == repr(wanted)  # so that -0.0 is not 0.0, and True not 1

    same(values(array), expected)
    assert json.loads(json.dumps(expected, allow_nan=False)) == expected
    for start in range(len(array) + 1):
        for stop in range(start, len(array) + 1):
            same(values(array[start:stop]), expected[start:stop])
    assert unspeakable(pa.schema([("x", array.type)])) is None
    assert readable(array)
    batch = pa.RecordBatch.from_arrays([array], ["x"])
    same(records(batch), [{"x": value} for value in expected])
    if not isinstance(array.type, pa.BaseExtensionType):
        lists = pa.ListArray.from_arrays([0, 0, len(array)], array)
        same(values(lists), [[], expected])
        same(values(pa.StructArray.from_arrays([array], ["x"])), [{"x": value} for value in expected])


@pytest.mark.parametrize(("array", "expected"), TABLE.values(), ids=TABLE)
def test_every_type_that_parquet_holds_comes_back_by_its_rule(tmp_path, array, expected):
    """Read from a file it may be of a wider type; its JSON stays."""
    try:
        pq.write_table(pa.table({"x": array}), tmp_path / "x.parquet")
        (batch,) = pq.read_table(tmp_path / "x.parquet").to_batches()
    except (pa.ArrowException, OSError):
        return  # no file can hold it: empty structs, intervals, runs
    assert [row["x"] for row in records(batch)] == expected


def test_what_has_no_rule_is_known_by_its_type():
    """Unions, and structs with two fields of one name, however deep: before a value is looked at."""
    union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1]), pa.array(["a"])])
    for kind in (union.type, twins().type):
        for nested in (
            kind,
            pa.list_(kind),
            pa.struct([("a", pa.int8()), ("b", kind)]),
            pa.map_(pa.string(), pa.list_(kind)),
        ):
            name, why = unspeakable(pa.schema([("fine", pa.int8()), ("x", nested)]))
            assert name == "x"
            assert why


def test_strings_that_are_not_utf8_are_found_wherever_they_are():
    """The one thing that a type promises and a file need not keep."""
    bad = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xff"))
    for array in (
        bad, pa.ListArray.from_arrays([0, 2], bad), pa.StructArray.from_arrays([pa.array([1, 2]), bad], ["a", "b"]),
        pa.DictionaryArray.from_arrays(pa.array([0, 1]), bad), pa.MapArray.from_arrays([0, 2], pa.array(["a", "b"]), bad), pa.FixedSizeListArray.from_arrays(bad, 2),
    ):  # fmt: skip
        assert not readable(array), array.type
    assert readable(bad[:1])


@given(st.datetimes(), st.sampled_from(["us", "ms", "s"]))
def test_a_timestamp_that_python_knows_is_spelled_as_python_spells_it(when, unit):
    """ISO 8601 as `isoformat` has it, but for the sign of years that Python does not know."""
    when = when.replace(microsecond={"us": when.microsecond, "ms": when.microsecond // 1000 * 1000, "s": 0}[unit])

    assert values(pa.array([when], pa.timestamp(unit))) == [when.isoformat()]
    assert values(pa.array([when.date()])) == [when.date().isoformat()]
    assert values(pa.array([when.time()], pa.time64("us"))) == [when.time().isoformat()]


@given(st.integers(LEAST, MOST), st.sampled_from(["s", "ms", "us", "ns"]))
def test_no_instant_is_too_far(count, unit):
    """Of any 64 bits: the day, its seconds and their fraction add up to what was stored."""
    (text,) = values(of(pa.timestamp(unit), count)[:1])
    (span,) = values(of(pa.duration(unit), count)[:1])
    day, _, clock = text.partition("T")
    hours, minutes, seconds = clock.split(":")
    year, month, date = day.rsplit("-", 2)
    cycles, rest = divmod(int(year), 400)
    days = (dt.date(rest + 400, int(month), int(date)) - dt.date(1970, 1, 1)).days + (cycles - 1) * 146_097
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    found = (days * 86_400 + int(hours) * 3600 + int(minutes) * 60 + Decimal(seconds)) * per_second
    assert found == count
    sign, _, rest = span.partition("P")
    days, _, rest = rest.rpartition("D")
    whole = int(days or 0) * 86_400 + Decimal(rest.removeprefix("T").removesuffix("S") or 0)
    assert whole * per_second * (-1 if sign else 1) == count


@given(st.lists(st.floats(width=32)))
def test_a_float32_reads_back_to_the_same_float32(numbers):
    """The shortest text for it, not for the double of the same value."""
    made = np.array(numbers, np.float32)
    found = json.loads(json.dumps(values(pa.array(made))))

    back = np.array([math.nan if each is None else each for each in found], np.float32)
    finite = np.isfinite(made)
    assert back[finite].tobytes() == made[finite].tobytes()
    assert all(len(Decimal(repr(each)).normalize().as_tuple().digits) <= 9 for each in found if each is not None)
