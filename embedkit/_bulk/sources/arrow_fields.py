"""Texts and keys out of Arrow's columns, and which columns an output could not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ..arrow_values import readable, unspeakable, values
from .fields import missing
from .rows import ADDED, taken

if TYPE_CHECKING:
    import pyarrow as pa

    from .fields import Fields
    from .rows import How

WORDS = ("string", "large_string", "string_view")


def check_schema(schema: pa.Schema, name: str, how: How) -> None:
    """Refuse columns that are missing or of a wrong type, or that the output could not hold."""
    fields, carried = how.fields, how.carried
    heads = [each if each in schema.names else each.partition(".")[0] for each in fields.needed]
    twice = next((each for each in (schema.names if carried else heads) if schema.names.count(each) > 1), None)
    if twice is not None:
        msg = f"{name}: two columns are called {twice!r}"
        raise ConfigError(msg)
    for place, each in enumerate(fields.needed):
        is_key = place == len(fields.names)
        option = fields.key_option if is_key else "--template" if fields.template else "--column"
        kind = _type_of(schema, each)
        if kind is None:
            raise ConfigError(f"{name}: " + missing(each, schema.names, option))
        wanted = _unlike(kind, as_key=is_key, worded=bool(fields.template))
        if wanted:
            msg = f"{name}: {each!r} is {_find_type(schema, each)}, not {wanted}"
            raise ConfigError(msg)
    if carried and not ADDED.isdisjoint(schema.names):
        raise ConfigError(taken(name, schema.names))
    if carried == "jsonl" and (found := unspeakable(schema)) is not None:
        msg = f"{name}: column {found[0]!r} cannot be written as JSON: {found[1]}; write .parquet or .npy"
        raise ConfigError(msg)


def _find_type(schema: Any, name: str) -> Any:
    """The type of a column or of a nested field; None if there is none. `schema`: of a table, or a struct's type."""
    import pyarrow as pa

    place = schema.get_field_index(name)
    if place >= 0:
        return schema.field(place).type
    head, dot, rest = name.partition(".")
    place = schema.get_field_index(head) if dot else -1
    kind = schema.field(place).type if place >= 0 else None
    return _find_type(kind, rest) if kind is not None and pa.types.is_struct(kind) else None


def _type_of(schema: Any, name: str) -> Any:
    import pyarrow as pa

    kind = _find_type(schema, name)
    return kind.value_type if kind is not None and pa.types.is_dictionary(kind) else kind


def _unlike(kind: Any, *, as_key: bool, worded: bool) -> str:
    """What the type should be; "" if it is."""
    import pyarrow as pa

    asked = pa.types
    if str(kind) in WORDS:
        return ""
    if as_key:
        return "" if asked.is_integer(kind) else "string or integer"
    if not worded:
        return "string"
    plain = (asked.is_integer, asked.is_floating, asked.is_boolean, asked.is_decimal, asked.is_temporal, asked.is_null)
    return "" if any(test(kind) for test in plain) else "string, number or time"


def column_of(batch: Any, name: str) -> Any:
    """The values of a column, or of a nested field: null where an object above it is."""
    import pyarrow.compute as pc

    place = batch.schema.get_field_index(name)
    if place >= 0:
        return batch.column(place)
    head, *rest = _path(batch.schema, name)
    array = batch.column(batch.schema.get_field_index(head))
    for step in rest:
        array = pc.struct_field(array, step)
    return array


def _path(schema: Any, name: str) -> list[str]:
    if schema.get_field_index(name) >= 0:
        return [name]
    head, _, rest = name.partition(".")
    return [head, *_path(schema.field(schema.get_field_index(head)).type, rest)]


def texts_of(batch: Any, fields: Fields, *, empty: bool) -> tuple[list[str | None], list[Any] | None, dict[int, str]]:
    """(texts, keys, by place what is wrong with the rows that have none)."""
    wrong: dict[int, str] = {}
    if fields.template:
        texts = _joined(batch, fields, wrong)
    else:
        texts = _strings(column_of(batch, fields.column), fields.column, wrong)
        if None in texts:
            _say_null(texts, fields, fields.column, wrong)
    keys = None
    if fields.key is not None:
        array = column_of(batch, fields.key)
        keys = _strings(array, fields.key, wrong) if str(_plain(array).type) in WORDS else array.to_pylist()
        for place, key in enumerate(keys):
            if key is None and place not in wrong:
                wrong[place] = f"the key {fields.key!r} is null, which is no string or whole number"
    if not empty and "" in texts:
        wrong.update({place: fields.empty() for place, text in enumerate(texts) if text == "" and place not in wrong})
    return texts, keys, wrong


def _say_null(texts: list[str | None], fields: Fields, name: str, wrong: dict[int, str]) -> None:
    for place, text in enumerate(texts):
        if text is None and place not in wrong:
            wrong[place] = fields.joined([None], {name: None})[1]


def _joined(batch: Any, fields: Fields, wrong: dict[int, str]) -> list[str | None]:
    columns = []
    for name in fields.names:
        array = column_of(batch, name)
        columns.append(_strings(array, name, wrong) if str(_plain(array).type) in WORDS else values(array))
    texts: list[str | None] = []
    for place, row in enumerate(zip(*columns, strict=True)):
        text, fault = fields.joined(list(row), {})
        if text is None:
            wrong.setdefault(place, fault)
        texts.append(text)
    return texts


def _plain(array: Any) -> Any:
    import pyarrow as pa

    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _strings(array: Any, name: str, wrong: dict[int, str]) -> list[str | None]:
    """The strings of a column; one that is not UTF-8 is None, and in `wrong`."""
    import pyarrow as pa

    try:
        # Ten times as fast as to_pylist, which makes a scalar of each.
        found: list[str | None] = _plain(array).to_numpy(zero_copy_only=False).tolist()
        return found
    except (UnicodeDecodeError, pa.ArrowException):
        pass
    texts: list[str | None] = []
    for place in range(len(array)):
        try:
            texts.append(array[place].as_py())
        except UnicodeDecodeError as error:
            wrong.setdefault(place, f"{name!r} is not UTF-8 ({error.reason} at byte {error.start})")
            texts.append(None)
    return texts


def check_strings(batch: Any, at: str, row: int, column: str | None) -> None:
    """Refuse what Parquet may hold and JSON cannot: strings beside the text that are not UTF-8."""
    for field, array in zip(batch.schema, batch.columns, strict=True):
        if field.name != column and not readable(array):
            place = next(place for place in range(len(array)) if not readable(array.slice(place, 1)))
            where = f"{at}, row {row + place}"
            msg = f"{where}: column {field.name!r} is not UTF-8, as JSON must be; write .parquet or .npy"
            raise ConfigError(msg)
