"""Rows that a program has in memory or makes: strings, dicts, tables of pyarrow, polars and pandas."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from ..._batching.texts import one_by_one
from ...errors import ConfigError
from ..contract import Block, Scan, Source
from .arrow_fields import check_schema
from .arrow_source import blocks as blocks_of
from .fields import HALF, brief, sayable
from .json_rows import DEEPEST, check_for_parquet
from .rows import BLOCK, At, Builder, How, first
from .scan import scan

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "the input"
AHEAD = 2  # batches that a dataset reads before they are asked for


class IterableSource(Source):
    """Rows of an iterable: a string or None is a text, a mapping a record. Anything else is a bad row."""

    def __init__(self, rows: Iterable[Any], how: How, kind: str) -> None:
        self.how = how
        self._rows, self._kind = rows, kind
        self.again = not isinstance(rows, Iterator)
        self.aside = False

    def blocks(self) -> Iterator[Block]:
        """The rows, as they are made."""
        return first(self._all(lean=False), self.how.limit)

    def scan(self, count_tokens: Callable[[str], int]) -> Scan | None:
        """Go through them once; None where that can be done only once."""
        if not self.again:
            return None
        return scan(first(self._all(lean=True), self.how.limit), count_tokens, time.perf_counter, NAME, 0)

    def described(self) -> dict[str, Any]:
        """The type, how many there are if that is known, and which fields."""
        return _described(self._kind, self._rows, self.how)

    def _all(self, *, lean: bool) -> Iterator[Block]:
        rows = Builder(self.how, At(NAME), lean=lean)
        for given in one_by_one(self._rows):
            self._add(given, rows)
            if len(rows) == BLOCK:
                yield rows.take()
        if len(rows):
            yield rows.take()

    def _add(self, given: Any, rows: Builder) -> None:
        column = self.how.fields.column
        if isinstance(given, str):
            text = str.__str__(given)
            fault = "" if sayable(text) else HALF.format("the text")
            rows.record(None, {column: None if fault else text}, fault)
        elif isinstance(given, Mapping):
            record = self._plain(given, rows.row) if self.how.carried else dict(given)
            said, _ = self.how.fields.text(record)
            fault = "" if said is None or sayable(said) else HALF.format("the text")
            rows.record(None, {**record, column: None} if fault and column in record else record, fault)
        else:
            why = "is missing" if given is None else f"is {brief(given)}, which is no string"
            rows.record(None, {column: None}, f"the text {why}")

    def _plain(self, given: Mapping[Any, Any], row: int) -> dict[str, Any]:
        """The record, of nothing but what JSON knows, so that every output can hold it."""
        where, own = At(NAME).where(row), self.how.fields.column
        text = {own: given[own]} if isinstance(given.get(own), str) else {}  # told by its own fault
        rest = {name: value for name, value in given.items() if name not in text}
        try:
            plain, said = _written(rest)
        except _UNWRITABLE:
            self._name_field(rest, where)
            raise
        brackets = said.count(b"[") + said.count(b"{")
        if self.how.carried == "parquet" and brackets > DEEPEST:
            check_for_parquet(plain, self.how.fields, brackets, where)
        return {name: text.get(name, plain.get(name)) for name in given}

    def _name_field(self, record: Mapping[Any, Any], where: str) -> None:
        for name, value in record.items():
            try:
                _written({name: value})
            except _UNWRITABLE as error:
                msg = f"{where}: field {name!a} cannot be written ({error}); leave it out, or write .npy"
                raise ConfigError(msg) from None


_UNWRITABLE = (TypeError, ValueError, RecursionError, OverflowError)


def _written(record: Mapping[Any, Any]) -> tuple[dict[str, Any], bytes]:
    """(a record of what JSON knows, its JSON)."""
    if not all(isinstance(name, str) for name in record):
        msg = "its name is no string"
        raise TypeError(msg)
    plain = msgspec.to_builtins(record, str_keys=True, enc_hook=_plain_value)
    return plain, msgspec.json.encode(plain)


def _plain_value(value: Any) -> Any:
    """What msgspec does not know: numpy's numbers and arrays as Python's, anything else as it prints itself."""
    plain = getattr(value, "tolist", None)
    return plain() if callable(plain) else str(value)


class TableSource(Source):
    """Rows of record batches.

    Args:
        batches: gives them, from the first; again only if `again`.
    """

    def __init__(
        self, schema: pa.Schema, batches: Callable[[], Iterator[Any]], how: How, given: Any, *, again: bool
    ) -> None:
        check_schema(schema, NAME, how)
        self.how = how
        self.again = self.aside = again
        self._schema, self._batches, self._given = schema, batches, given

    def blocks(self) -> Iterator[Block]:
        """The rows."""
        return first(blocks_of(self._batches(), self._schema, self.how, At(NAME), None), self.how.limit)

    def scan(self, count_tokens: Callable[[str], int]) -> Scan | None:
        """Go through them once; None where that can be done only once."""
        return scan(self.blocks(), count_tokens, time.perf_counter, NAME, 0) if self.again else None

    def described(self) -> dict[str, Any]:
        """The type, how many rows there are if that is known, and which fields."""
        kind = type(self._given)
        return _described(f"{kind.__module__.partition('.')[0]}.{kind.__name__}", self._given, self.how)


def _described(kind: str, given: Any, how: How) -> dict[str, Any]:
    rows = {"rows": len(given)} if hasattr(given, "__len__") else {}
    limit = {} if how.limit is None else {"limit": how.limit}
    return {"inputs": [kind], **rows, **how.fields.described(), **limit}


def source_of(given: Any, how: How) -> Source:
    """The source that an object in memory is.

    Raises:
        ConfigError: it has no rows in an order, a column is missing, or the output could not hold one.
    """
    kind = type(given)
    library, name = kind.__module__.partition(".")[0], kind.__name__
    if library == "polars":
        return _of_polars(given, name, how)
    if library == "pandas" and name == "DataFrame":
        return _of_pandas(given, how)
    if library == "pyarrow":
        found = _of_pyarrow(given, how)
        if found is not None:
            return found
    what = f"{library}.{name}" if library != "builtins" else name
    if isinstance(given, (bytes, bytearray, Mapping, set, frozenset)) or not isinstance(given, Iterable):
        msg = (
            f"the input is {what}; it takes the name of a file, an iterable of strings or dicts, or a table of "
            "pyarrow, polars or pandas"
        )
        raise ConfigError(msg)
    axes = getattr(given, "ndim", 1)
    if axes != 1:
        msg = f"the input is {what} of {axes} axes; pass one row of strings"
        raise ConfigError(msg)
    return IterableSource(given, how, what)


def _of_pyarrow(given: Any, how: How) -> Source | None:
    import pyarrow as pa

    if isinstance(given, pa.Table):
        return TableSource(given.schema, lambda: iter(given.to_batches()), how, given, again=True)
    if isinstance(given, pa.RecordBatch):
        return TableSource(given.schema, lambda: iter([given]), how, given, again=True)
    if isinstance(given, pa.RecordBatchReader):
        return TableSource(given.schema, lambda: iter(given), how, given, again=False)
    if hasattr(given, "get_fragments"):
        ahead = {"batch_readahead": AHEAD, "fragment_readahead": 1}
        wanted = None if how.carried else [name for name in given.schema.names if _needs(name, how)]
        return TableSource(
            given.schema, lambda: given.to_batches(columns=wanted, batch_size=4096, **ahead), how, given, again=True
        )
    return None


def _needs(name: str, how: How) -> bool:
    return any(name in (each, each.partition(".")[0]) for each in how.fields.needed)


def _of_polars(given: Any, name: str, how: How) -> Source:
    if name == "LazyFrame":
        msg = "the input is a LazyFrame, which has no rows yet; pass .collect(), or write it with .sink_parquet() first"
        raise ConfigError(msg)
    if name != "DataFrame":
        return IterableSource(given, how, f"polars.{name}")
    wanted = given if how.carried else given.select([each for each in given.columns if _needs(each, how)])
    table = (wanted if len(wanted.columns) else given).to_arrow()
    return TableSource(table.schema, lambda: iter(table.to_batches()), how, given, again=True)


def _of_pandas(given: Any, how: How) -> Source:
    import pyarrow as pa

    names = [str(each) for each in given.columns]
    used = [name for name in names if how.carried or _needs(name, how)]
    twice = next((name for place, name in enumerate(used) if name in used[:place]), None)
    if twice is not None:
        msg = f"the input: two columns are called {twice!r}"
        raise ConfigError(msg)
    wanted = given if how.carried else given[[each for each in given.columns if _needs(str(each), how)]]
    try:
        table = pa.Table.from_pandas(wanted if len(wanted.columns) else given, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError):
        table = None
    if table is not None and names and not _loose(table.schema, how):
        return TableSource(table.schema, lambda: iter(table.to_batches()), how, given, again=True)
    # Columns of Python's objects, of several types: row by row.
    return IterableSource(_Rows(given), how, "pandas.DataFrame")


def _loose(schema: Any, how: How) -> bool:
    """Whether a field that should be text is not even that: its rows are told one by one."""
    return any(str(schema.field(name).type) == "null" for name in how.fields.needed if name in schema.names)


class _Rows:
    """The rows of a data frame, as dicts; a missing value is None."""

    def __init__(self, frame: Any) -> None:
        self._frame = frame

    def __len__(self) -> int:
        return len(self._frame)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for start in range(0, len(self._frame), BLOCK):
            part = self._frame.iloc[start : start + BLOCK].astype(object)
            for record in part.where(part.notna(), None).to_dict("records"):
                yield {str(name): value for name, value in record.items()}
