"""From Arrow to JSON: one rule for every type, and no value that
a rule cannot spell. What has no rule is known by its type alone.

| Arrow | JSON |
| --- | --- |
| null, bool, integers, strings | themselves |
| float16, float32, float64 | the shortest number that reads back to the same float; NaN and infinity: null |
| decimals | text, every digit: "1.10" |
| binary of any kind | text, base64 |
| date32, date64 | "2026-11-25"; beyond the years 0000 to 9999 with a sign, as ISO 8601 has it: "+12026-11-25" |
| time32, time64 | "13:05:00", with six or nine digits after the second where they are not zero |
| timestamp | "2026-11-25T13:05:00"; with a time zone the same instant in UTC, "2026-11-25T12:05:00Z" |
| duration | "P1DT2.5S", negative "-P1DT2.5S" |
| month_day_nano_interval | "P1M2DT3S", each part with its sign |
| list, large_list, fixed_size_list, list views | array |
| struct | object |
| map | array of [key, value], because keys may repeat and need not be text |
| dictionary, run_end_encoded | as the value |
| extension | uuid and bool8 as such, any other as its storage |
"""

from __future__ import annotations

import math
from base64 import b64encode
from datetime import date
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa

UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}  # in a second
DAY = 86_400
EPOCH = date(1970, 1, 1).toordinal() - 1  # days from the year 1 to it
CYCLE = 146_097  # days in 400 years, after which the calendar repeats


def unspeakable(schema: pa.Schema) -> tuple[str, str] | None:
    """The first column that has no rule, and why; None where all have one."""
    lacking = ((field.name, _lacking(field.type)) for field in schema)
    return next(((name, why) for name, why in lacking if why is not None), None)


def _lacking(kind: Any) -> str | None:
    import pyarrow as pa

    if isinstance(kind, pa.BaseExtensionType):
        return _lacking(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _lacking(kind.value_type)
    if pa.types.is_struct(kind):
        names = [kind.field(number).name for number in range(kind.num_fields)]
        if len(set(names)) < len(names):
            return f"two fields of {kind} have one name"
    elif not pa.types.is_nested(kind):
        return None if _rule(kind) is not None else f"JSON has nothing for {kind}"
    elif _rule(kind) is None:
        return f"JSON has nothing for {kind}"
    return next(filter(None, (_lacking(kind.field(number).type) for number in range(kind.num_fields))), None)


def values(array: Any) -> list[Any]:
    """An array as what JSON can say."""
    rule = _rule(array.type)
    if rule is None:
        msg = f"JSON has nothing for {array.type}"
        raise TypeError(msg)
    found: list[Any] = rule(array)
    return found


def readable(array: Any) -> bool:
    """Whether every string in an array is UTF-8: the one thing that a type does not promise."""
    import pyarrow as pa

    for strings in _strings(array):
        try:
            strings.validate(full=True)
        except pa.ArrowException:
            return False
    return True


def _strings(array: Any) -> Iterator[Any]:
    import pyarrow as pa

    kind, asked = array.type, pa.types
    if isinstance(kind, pa.BaseExtensionType):
        yield from _strings(array.storage)
    elif asked.is_dictionary(kind):
        yield from _strings(array.dictionary_decode())
    elif asked.is_run_end_encoded(kind):
        yield from _strings(array.values)
    elif asked.is_map(kind):
        yield from _strings(_pairs(array).flatten())
    elif asked.is_struct(kind):
        for column in array.flatten():
            yield from _strings(column)
    elif asked.is_nested(kind):
        yield from _strings(array.flatten())
    elif asked.is_string(kind) or asked.is_large_string(kind) or asked.is_string_view(kind):
        yield array


def records(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows of a batch, each as what JSON can say."""
    columns = [values(column) for column in batch.columns]
    names = batch.schema.names
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)] if columns else [{}] * len(batch)


def _rule(kind: Any) -> Callable[[Any], list[Any]] | None:
    import pyarrow as pa

    if isinstance(kind, pa.BaseExtensionType):
        return (
            _uuids
            if kind.extension_name == "arrow.uuid"
            else _truths
            if kind.extension_name == "arrow.bool8"
            else _stored
        )
    asked = pa.types
    rules: tuple[tuple[tuple[Callable[[Any], bool], ...], Callable[[Any], list[Any]]], ...] = (
        ((asked.is_null, asked.is_boolean, asked.is_integer,
          asked.is_string, asked.is_large_string, asked.is_string_view), _same),
        ((asked.is_floating,), _floats),
        ((asked.is_decimal,), _decimals),
        ((asked.is_binary, asked.is_large_binary, asked.is_fixed_size_binary, asked.is_binary_view), _bytes),
        ((asked.is_date,), _dates),
        ((asked.is_time,), _times),
        ((asked.is_timestamp,), _timestamps),
        ((asked.is_duration,), _durations),
        ((asked.is_interval,), _intervals),
        ((asked.is_map,), _maps),
        ((asked.is_list, asked.is_large_list, asked.is_fixed_size_list, asked.is_list_view, asked.is_large_list_view),
         _lists),
        ((asked.is_struct,), _structs),
        ((asked.is_dictionary,), lambda array: values(array.dictionary_decode())),
        ((asked.is_run_end_encoded,), _runs),
    )  # fmt: skip
    return next((rule for tests, rule in rules if any(test(kind) for test in tests)), None)


def _same(array: Any) -> list[Any]:
    found: list[Any] = array.to_pylist()
    return found


def _floats(array: Any) -> list[float | None]:
    import pyarrow as pa

    if pa.types.is_float32(
        array.type
    ):  # by way of its shortest text, which is then the shortest text of the double as well
        array = array.cast(pa.string()).cast(pa.float64())
    elif pa.types.is_float16(array.type):
        array = pa.array(array.to_pylist(), pa.float64())
        return [None if each is None or not math.isfinite(each) else _half(each) for each in array.to_pylist()]
    return [None if each is None or not math.isfinite(each) else each for each in array.to_pylist()]


def _half(value: float) -> float:
    import numpy as np

    return float(np.format_float_scientific(np.float16(value), unique=True))


def _decimals(array: Any) -> list[str | None]:
    return [None if each is None else format(each, "f") for each in array.to_pylist()]


def _bytes(array: Any) -> list[str | None]:
    return [None if each is None else b64encode(each).decode() for each in array.to_pylist()]


def _uuids(array: Any) -> list[str | None]:
    return [None if each is None else str(UUID(bytes=each)) for each in array.storage.to_pylist()]


def _truths(array: Any) -> list[bool | None]:
    return [None if each is None else bool(each) for each in array.storage.to_pylist()]


def _stored(array: Any) -> list[Any]:
    return values(array.storage)


def _lists(array: Any) -> list[list[Any] | None]:
    import pyarrow.compute as pc

    inner = iter(values(array.flatten()))
    lengths = pc.list_value_length(array).to_pylist()
    return [None if length is None else list(islice(inner, length)) for length in lengths]


def _maps(array: Any) -> list[list[Any] | None]:
    return [None if row is None else [[pair["key"], pair["value"]] for pair in row] for row in _lists(_pairs(array))]


def _pairs(array: Any) -> Any:
    import pyarrow as pa

    return array.cast(pa.list_(pa.struct([("key", array.type.key_type), ("value", array.type.item_type)])))


def _structs(array: Any) -> list[dict[str, Any] | None]:
    names = [array.type.field(number).name for number in range(array.type.num_fields)]
    there = array.is_valid().to_pylist()
    columns = [values(column) for column in array.flatten()]
    rows = zip(*columns, strict=True) if columns else ((),) * len(there)
    return [dict(zip(names, row, strict=True)) if is_there else None for is_there, row in zip(there, rows, strict=True)]


def _runs(array: Any) -> list[Any]:
    import pyarrow.compute as pc

    return values(pc.run_end_decode(array))


# --- days and seconds ------------------------------------------------------------------------------------------------


def _counts(array: Any) -> list[int | None]:
    """What a type of time is stored as: so many of its units."""
    import pyarrow as pa

    width = pa.int32() if array.type.bit_width == 32 else pa.int64()  # noqa: PLR2004
    found: list[int | None] = array.view(width).to_pylist()
    return found


def _dates(array: Any) -> list[str | None]:
    import pyarrow as pa

    unit = 1 if pa.types.is_date32(array.type) else DAY * UNITS["ms"]
    return [None if each is None else _day(each // unit) for each in _counts(array)]


def _times(array: Any) -> list[str | None]:
    unit = UNITS[array.type.unit]
    return [None if each is None else _sign(each) + _clock(abs(each), unit) for each in _counts(array)]


def _timestamps(array: Any) -> list[str | None]:
    unit, zone = UNITS[array.type.unit], "" if array.type.tz is None else "Z"
    split = (None if each is None else divmod(each, DAY * unit) for each in _counts(array))
    return [None if each is None else f"{_day(each[0])}T{_clock(each[1], unit)}{zone}" for each in split]


def _durations(array: Any) -> list[str | None]:
    unit = UNITS[array.type.unit]
    return [
        None if each is None else _sign(each) + _span(*divmod(abs(each), DAY * unit), unit) for each in _counts(array)
    ]


def _intervals(array: Any) -> list[str | None]:
    return [None if each is None else _interval(*each) for each in array.to_pylist()]


def _interval(months: int, days: int, nanoseconds: int) -> str:
    parts = [f"{months}M" if months else "", f"{days}D" if days else ""]
    seconds = f"{_sign(nanoseconds)}{_seconds(abs(nanoseconds), UNITS['ns'])}S" if nanoseconds or not any(parts) else ""
    return f"P{''.join(parts)}{f'T{seconds}' if seconds else ''}"


def _day(days: int) -> str:
    """The date so many days after 1970-01-01, in any year."""
    cycles, rest = divmod(days + EPOCH, CYCLE)
    found = date.fromordinal(rest + 1)
    year = found.year + 400 * cycles
    shown = f"{year:04}" if 0 <= year <= 9999 else f"{year:+05}"  # noqa: PLR2004
    return f"{shown}-{found.month:02}-{found.day:02}"


def _clock(units: int, unit: int) -> str:
    seconds, rest = divmod(units, unit)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{_fraction(rest, unit)}"


def _fraction(units: int, unit: int) -> str:
    nanoseconds = units * (UNITS["ns"] // unit)
    if not nanoseconds:
        return ""
    return f".{nanoseconds:09}" if nanoseconds % 1000 else f".{nanoseconds // 1000:06}"


def _span(days: int, rest: int, unit: int) -> str:
    shown = f"{days}D" if days else ""
    return f"P{shown}{f'T{_seconds(rest, unit)}S' if rest or not days else ''}"


def _seconds(units: int, unit: int) -> str:
    seconds, rest = divmod(units, unit)
    return f"{seconds}{_fraction(rest, unit)}".rstrip("0") if rest else str(seconds)


def _sign(value: int) -> str:
    return "-" if value < 0 else ""
