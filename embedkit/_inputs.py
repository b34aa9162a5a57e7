"""Files in, for the command line: rows are read a block at a time, whatever their number.

Rows count from 0, lines from 1. Nothing is ever skipped: a blank line of text is a row with an empty text; JSONL and CSV refuse a
blank line between rows and ignore it at the end. What cannot be read is a `ConfigError` that names its place.
"""

from __future__ import annotations

import csv
import io
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from ._pipes import aside, own
from .errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterable, Iterator

    Record = dict[str, Any]
    Records = Any  # list[Record] | pyarrow.RecordBatch: both have a length and slices

INPUTS = {
    ".txt": "text", ".text": "text", ".md": "text", ".log": "text", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".csv": "csv", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
ADDED = "embedding"  # the column that outputs add
BLOCK = 256  # rows per read
COUNTED_BYTES = 1 << 30  # lines of a larger file are not counted beforehand


def form_of(name: str, asked: str | None, known: dict[str, str], default: str, option: str) -> str:
    """The format asked for, else what the file's suffix says, else (for `-`) the default."""
    form = asked or (default if name == "-" else known.get(Path(name).suffix.lower()))
    if form is None:
        msg = f"{name}: its suffix names no known format ({', '.join(known)}); pass {option}"
        raise ConfigError(msg)
    return form


class Block(msgspec.Struct, frozen=True, gc=False):
    """Texts, and the records they came from."""

    texts: list[str]
    records: Records


class Rows:
    """An input: its texts on one side, for `Embedder.stream`; on the other the records of those that came back, in order."""

    def __init__(self, blocks: Iterator[Block]) -> None:
        self._blocks = blocks
        self._waiting: deque[Records] = deque()

    async def texts(self) -> AsyncIterator[str]:
        """Every text, read in a thread aside, so that a slow pipe holds up nothing else."""
        while (block := await aside(next, self._blocks, None)) is not None:
            self._waiting.append(block.records)
            for text in block.texts:
                yield text

    def take(self, count: int) -> list[Records]:
        """The next `count` records, in pieces as they were read."""
        pieces: list[Records] = []
        while self._waiting and (count or not len(self._waiting[0])):
            records = self._waiting.popleft()
            if len(records) > count:
                self._waiting.appendleft(records[count:])
            pieces.append(records[:count])
            count -= len(pieces[-1])
        return pieces


def read(name: str, form: str, column: str, *, whole: bool) -> Iterator[Block]:
    """The rows of an input, block by block. `whole`: with all their columns, because the output wants them."""
    if form == "parquet":
        if name == "-":
            msg = "Parquet cannot be read from a pipe, because its index stands at the end: pass a file"
            raise ConfigError(msg)
        yield from _parquet(name, column, whole=whole)
        return
    shown = "stdin" if name == "-" else name
    file = own(sys.stdin, "rb") if name == "-" else Path(name).open("rb")  # noqa: SIM115 (stdin is not ours to close)
    rows = {"text": _text, "jsonl": _jsonl, "csv": _csv}[form](file, shown, column)
    try:
        texts, records = [], []
        for row, (line, record) in enumerate(rows):
            texts.append(_string(record, column, f"{shown}, row {row} (line {line})", whole=whole))
            records.append(record)
            if len(texts) == BLOCK:
                yield Block(texts, records)
                texts, records = [], []
        yield Block(texts, records)
    finally:
        rows.close()
        if name != "-":
            file.close()


def count(name: str, form: str) -> int | None:
    """How many rows an input has, where that is cheap to know."""
    if name == "-" or not Path(name).is_file():
        return None
    if form == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return int(pq.read_metadata(name).num_rows)
        except pa.ArrowException:
            return None  # reading will say it better
    if form == "csv" or Path(name).stat().st_size > COUNTED_BYTES:
        return None
    with Path(name).open("rb") as file:
        lines, last = 0, b"\n"
        while piece := file.read(1 << 20):
            lines, last = lines + piece.count(b"\n"), piece
    return lines + (not last.endswith(b"\n"))


def _string(record: Record, column: str, where: str, *, whole: bool) -> str:
    text = record.get(column)
    if not isinstance(text, str):
        has = f"{column!r} is {msgspec.json.encode(text, enc_hook=str).decode()[:60]}, which is no string"
        msg = f"{where}: {has if column in record else _missing(column, record)}"
        raise ConfigError(msg)
    if whole:
        _free(record, where)
    return text


def _missing(column: str, names: Iterable[str]) -> str:
    return f"no {column!r}; there is {', '.join(map(repr, names)) or 'nothing'} (choose with --column)"


def _free(names: Iterable[str], where: str) -> None:
    if ADDED in names:
        msg = f"{where}: there is an {ADDED!r} already, and the output adds its own; rename it, or write .npy"
        raise ConfigError(msg)


def _lines(file: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    for number, raw in enumerate(file, 1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            msg = f"{name}, row {number - 1} (line {number}): not UTF-8 ({error.reason} at byte {error.start} of the line)"
            raise ConfigError(msg) from None
        yield number, line[:-2] if line.endswith("\r\n") else line.removesuffix("\n")


def _text(file: BinaryIO, name: str, column: str) -> Generator[tuple[int, Record]]:
    for number, line in _lines(file, name):
        yield number, {column: line}


def _jsonl(file: BinaryIO, name: str, column: str) -> Generator[tuple[int, Record]]:
    blank = 0
    for number, line in _lines(file, name):
        if not line.strip():
            blank = blank or number
            continue
        _unbroken(blank, name)
        try:
            record = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            msg = f"{name}, row {number - 1} (line {number}): not JSON: {error}"
            raise ConfigError(msg) from None
        if isinstance(record, str):
            record = {column: record}
        if not isinstance(record, dict):
            msg = f"{name}, row {number - 1} (line {number}): {line[:60]} is neither an object nor a string"
            raise ConfigError(msg)
        yield number, record


def _csv(file: BinaryIO, name: str, column: str) -> Generator[tuple[int, Record]]:
    csv.field_size_limit(2**31 - 1)  # its default, 131,072 characters, is shorter than many a document
    lines = io.TextIOWrapper(file, "utf-8-sig", newline="")
    rows = csv.reader(lines, strict=True)
    blank = row = 0
    try:
        header = next(rows, [])
        if column not in header or len(set(header)) < len(header):
            twice = next((each for each in header if header.count(each) > 1), None)
            msg = f"{name}: {_missing(column, header) if twice is None else f'two columns are called {twice!r}'}"
            raise ConfigError(msg)
        for fields in rows:
            if not fields:
                blank = blank or rows.line_num
                continue
            _unbroken(blank, name)
            if len(fields) > len(header):
                msg = f"{name}, row {row} (line {rows.line_num}): {len(fields)} fields, but the header has {len(header)}"
                raise ConfigError(msg)
            yield (
                rows.line_num,
                dict(zip(header, fields + [None] * (len(header) - len(fields)), strict=True)),
            )  # a short row has no value there
            row += 1
    except (csv.Error, UnicodeDecodeError) as error:
        what = f"not UTF-8 ({error.reason})" if isinstance(error, UnicodeDecodeError) else str(error)
        msg = f"{name}, row {row} (after line {rows.line_num}): {what}"
        raise ConfigError(msg) from None
    finally:
        lines.detach()  # the file is closed by whoever opened it


def _unbroken(blank: int, name: str) -> None:
    if blank:
        msg = f"{name}, line {blank}: blank, with rows after it; every row has a line of its own"
        raise ConfigError(msg)


def _parquet(name: str, column: str, *, whole: bool) -> Iterator[Block]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    try:
        with Path(name).open("rb") as source, pq.ParquetFile(source) as file:
            schema = file.schema_arrow
            if column not in schema.names:
                raise ConfigError(f"{name}: " + _missing(column, schema.names))
            kind = schema.field(column).type
            if pa.types.is_dictionary(kind):
                kind = kind.value_type
            if str(kind) not in ("string", "large_string", "string_view"):
                msg = f"{name}: {column!r} is {schema.field(column).type}, not string"
                raise ConfigError(msg)
            if whole:
                _free(schema.names, name)
                yield Block([], pa.RecordBatch.from_pylist([], schema=schema))  # an empty file keeps its columns
            for batch in file.iter_batches(BLOCK, columns=None if whole else [column]):
                texts = batch.column(column).to_pylist()
                if None in texts:
                    msg = f"{name}, row {row + texts.index(None)}: {column!r} is null, which is no string"
                    raise ConfigError(msg)
                yield Block(texts, batch)
                row += len(texts)
    except pa.ArrowException as error:
        msg = f"{name}: cannot be read as Parquet: {error}"
        raise ConfigError(msg) from None
