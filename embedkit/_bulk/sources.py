"""Files in, for the command line: rows are read a block at a time, whatever their number.

Rows count from 0, lines from 1. A blank line of text is a row with an empty text; in JSONL and CSV it is no row. What
an input cannot be is a `ConfigError` that names its place. So is a row without a usable text, unless it is to be
skipped: then its text is None, and the block says why. What is beside the text is carried on as it came.
"""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from ..errors import ConfigError
from .arrow_values import readable, unspeakable
from .format_detection import FORMATS, SAMPLE, look
from .stdio import aside, own

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Generator, Iterable, Iterator

    import pyarrow as pa

    Record = dict[str, Any]
    Records = Any  # list[Record] | pyarrow.RecordBatch: both have a length and slices
    Row = tuple[int, Record, str]  # its line, what it holds, and what is wrong with it, if anything

INPUTS = {
    ".txt": "text", ".text": "text", ".md": "text", ".log": "text", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
TOLD = "told by its beginning"  # the format of stdin, unless it is named
ADDED = "embedding"  # the column that outputs add
BLOCK = 256  # rows per read
NO_PIPE = "Parquet cannot be read from a pipe, because its index stands at the end: pass a file"
LINES = 16  # looked at, to see what a pipe holds
SKIP = "--on-error skip makes it a failed row"
SHOWN = 60  # characters of a value in a message
DEEPEST = 500  # nested lists and objects; Python can write these as text in a Parquet column
DIGITS = 4_000  # of a whole number: Python reads no more than 4,300


def form_of(name: str, asked: str | None, known: dict[str, str], default: str, option: str) -> str:
    """The format asked for, else what the file's suffix says, else (for `-`) the default."""
    form = asked or (default if name == "-" else known.get(Path(name).suffix.lower()))
    if form is None:
        msg = f"{name}: its suffix names no known format ({', '.join(known)}); pass {option}"
        raise ConfigError(msg)
    return form


class Block(msgspec.Struct, frozen=True, gc=False):
    """Texts (None: the row has none that can be used), the records
    they came from, and by row what is wrong with those without.
    """

    texts: list[str | None]
    records: Records
    faults: dict[int, str] = {}


class Line(dict[str, Any]):
    """A record of JSONL, and its own text: written on as that,
    nothing in it changes, not even what JSON does not know (NaN).
    """

    __slots__ = ("source",)
    source: bytes


class Rows:
    """An input: its texts on one side, for `Embedder.stream`;
    on the other the records of those that came back, in order.

    Attributes:
        faults: row → what is wrong with it, for rows without a usable text; whoever tells of one takes it out.
    """

    def __init__(self, blocks: Iterator[Block]) -> None:
        self.faults: dict[int, str] = {}
        self._blocks = blocks
        self._waiting: deque[Records] = deque()

    async def texts(self) -> AsyncIterator[Any]:
        """Every text, read in a thread aside, so that a slow pipe holds up nothing else."""
        while (block := await aside(next, self._blocks, None)) is not None:
            self._waiting.append(block.records)
            self.faults.update(block.faults)
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


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """An input, and how to read it.

    Attributes:
        name: of the file; "-" is stdin.
        form: the format, or `TOLD`.
        column: the text's.
        sure: the format was asked for; otherwise the input's beginning has a say.
        carried: how the output keeps the columns beside the text: as "jsonl", as "parquet", or not at all ("").
        skip: rows without a usable text come as None instead of being refused.
        empty: an empty text is usable.
    """

    name: str
    form: str
    column: str = "text"
    sure: bool = True
    carried: str = ""
    skip: bool = False
    empty: bool = True

    def look_through(self) -> int | None:
        """Read all of it, so that whatever cannot be read is found before anything is paid for.

        Returns:
            The number of rows; None for a pipe, which can be read only once.

        Raises:
            ConfigError: as `read_error_body` does, or because not one row has a usable text.
        """
        if self.name == "-":
            file = own(sys.stdin, "rb")
            if not file.seekable():
                return None
            start = file.tell()
            try:
                return self._counted()
            finally:
                file.seek(start)
        return self._counted() if Path(self.name).is_file() else None

    def _counted(self) -> int:
        count, usable, first = 0, 0, ""
        for block in self.read():
            count += len(block.texts)
            usable += len(block.texts) - len(block.faults)
            first = first or next((f"row {row}, {fault}" for row, fault in block.faults.items()), "")
        if count and not usable:
            msg = f"{self.shown(self.form)}: no row has a text that can be used; {first}"
            raise ConfigError(msg)
        return count

    def shown(self, form: str) -> str:
        """Its name in a message; for stdin with what it was taken for, where that was told by its beginning."""
        if self.name != "-":
            return self.name
        told = not self.sure and form not in ("text", TOLD)
        return f"stdin (read as {FORMATS[form]}; --input-format says otherwise)" if told else "stdin"

    def read(self) -> Iterator[Block]:
        """Its rows, block by block."""
        if self.name == "-":
            if self.form == "parquet":
                raise ConfigError(NO_PIPE)
            yield from self._blocks(own(sys.stdin, "rb"))
            return
        with Path(self.name).open("rb") as file:
            yield from self._blocks(file)

    def _blocks(self, file: BinaryIO) -> Iterator[Block]:
        form = self.form
        if not self.sure:
            start, ends, file = _beginning(file)
            form = self._settled(start, ends)
        if form == "parquet":
            yield from _parquet(file, self)
            return
        shown = self.shown(form)
        readers = {"text": _text, "jsonl": _jsonl, "csv": _csv, "tsv": _csv}
        rows = readers[form](file, shown, self, "\t" if form == "tsv" else ",")
        texts: list[str | None] = []
        records: list[Record] = []
        faults: dict[int, str] = {}
        column, whole = self.column, self.carried != ""
        try:
            for row, (line, record, fault) in enumerate(rows):
                if whole and ADDED in record:
                    raise ConfigError(_taken(f"{shown}, row {row} (line {line})"))
                text = record.get(column)
                if fault or not isinstance(text, str) or not (text or self.empty):
                    faults[row] = self.refused(f"{shown}, row {row}", f"line {line}", fault or _fault(record, column))
                    text = None
                texts.append(text)
                records.append(record)
                if len(texts) == BLOCK:
                    yield Block(texts, records, faults)
                    texts, records, faults = [], [], {}
            yield Block(texts, records, faults)
        finally:
            rows.close()

    def refused(self, place: str, line: str, fault: str) -> str:
        """What is wrong with a row, for its own error; raised at once unless such rows are skipped."""
        if not self.skip:
            msg = f"{place}{f' ({line})' if line else ''}: {fault}; {SKIP}"
            raise ConfigError(msg)
        return f"{line}: {fault}" if line else fault

    def _settled(self, start: bytes, ends: bool) -> str:
        """The format that is told or named, if the input's beginning does not speak against it."""
        found, named = look(start, self.column, whole=ends), "" if self.form == TOLD else self.form
        if not named and found.form == "parquet":
            msg = f"stdin begins like Parquet; {NO_PIPE}"
            raise ConfigError(msg)
        if not named and found.form and found.sure:
            return found.form
        as_json = start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[", b'"')
        if named and (
            found.form in (named, "text") or not found.sure or named == "parquet" or (named == "jsonl" and as_json)
        ):
            return named
        whose = f"{self.name} is {FORMATS[named]} by its suffix, but" if named else "stdin"
        ways = found.way or f"pass --input-format {found.form}"
        lines = "embed its lines as they are" if named in ("", "text") else f"read it as {FORMATS[named]} all the same"
        msg = f"{whose} begins like {found.what}: {ways}, or --input-format {named or 'text'} to {lines}"
        raise ConfigError(msg)


class _Ahead(io.RawIOBase):
    """A stream of which the beginning has been read, with that before it. The stream stays open."""

    def __init__(self, start: bytes, file: BinaryIO) -> None:
        self._start, self._file = start, file

    def readable(self) -> bool:
        """True; `io.RawIOBase` asks."""
        return True

    def readinto(self, buffer: Any) -> int:
        """The bytes already read, then what the stream has."""
        piece = self._start[: len(buffer)] or self._file.read1(len(buffer))  # type: ignore[attr-defined]  # it is buffered
        self._start = self._start[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)


def _beginning(file: BinaryIO) -> tuple[bytes, bool, BinaryIO]:
    """(first lines, whether they are all, the stream with those lines put back)."""
    if file.seekable():
        place = file.tell()
        start = file.read(SAMPLE)
        ends = not file.read(1)
        file.seek(place)
        return start, ends, file
    start, piece = b"", b"_"
    while piece and start.lstrip().count(b"\n") < LINES and len(start) < SAMPLE:
        start += (piece := file.read1(SAMPLE))  # type: ignore[attr-defined]
    return start, not piece, io.BufferedReader(_Ahead(start, file), SAMPLE)


def _fault(record: Record, column: str) -> str:
    if column not in record:
        return _missing(column, record)
    text = record[column]
    if text == "":
        return f"{column!r} is empty, and this provider embeds no empty text"
    return f"{column!r} is {_brief(text)}, which is no string"


def _brief(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    try:
        shown = msgspec.json.encode(value, enc_hook=str).decode()
    except (UnicodeEncodeError, RecursionError):
        shown = type(value).__name__
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…"


def _missing(column: str, names: Iterable[str]) -> str:
    return f"no {column!r}; there is {', '.join(map(repr, names)) or 'nothing'} (choose with --column)"


def _taken(where: str) -> str:
    return f"{where}: there is an {ADDED!r} already, and the output adds its own; rename it, or write .npy"


def _lines(file: BinaryIO) -> Iterator[tuple[int, str, str]]:
    """Number, text and fault of every line; one that is not UTF-8 has no text."""
    for number, raw in enumerate(file, 1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            yield number, "", f"not UTF-8 ({error.reason} at byte {error.start} of the line)"
            continue
        yield number, line[:-2] if line.endswith("\r\n") else line.removesuffix("\n"), ""


def _text(file: BinaryIO, name: str, source: Source, mark: str) -> Generator[Row]:  # noqa: ARG001 (all are called alike)
    for number, line, fault in _lines(file):
        yield number, {source.column: None if fault else line}, fault


# --- JSON lines ------------------------------------------------------------------------------------------------------


def _jsonl(file: BinaryIO, name: str, source: Source, mark: str) -> Generator[Row]:  # noqa: ARG001
    column, decode = source.column, msgspec.json.decode
    row = 0
    for number, line, fault in _lines(file):
        if not fault and not line.strip():
            continue
        where = f"{name}, row {row} (line {number})"
        record, by_the_book = None, True
        try:
            record = None if fault else decode(line)
        except (msgspec.DecodeError, RecursionError):
            record, fault = _as_python_writes_it(line)  # noqa: PLW2901
            by_the_book = False
        if isinstance(record, dict) and source.carried == "parquet":
            if line.count("[") + line.count("{") > DEEPEST and _deeper(record, DEEPEST):
                msg = f"{where}: nested more than {DEEPEST} deep, which Parquet cannot hold; write .jsonl or .npy"
                raise ConfigError(msg)
            if not by_the_book:
                _check_characters(record, column, where)
        if not by_the_book and not fault:
            fault = _half(record, column, source.carried)  # noqa: PLW2901
        yield number, *_record(record, line, column, fault)
        row += 1


def _deeper(value: Any, most: int) -> bool:
    """Whether lists and objects are nested deeper than this."""
    level = [value]
    for _ in range(most):
        inner = (each for one in level for each in (one.values() if isinstance(one, dict) else one))
        level = [each for each in inner if isinstance(each, (list, dict))]
    return bool(level)


def _record(record: Any, line: str, column: str, fault: str) -> tuple[Record, str]:
    if isinstance(record, dict):
        kept = Line(record)
        kept.source = line.strip().replace("\r", " ").encode()
        if fault:
            kept[column] = None  # half of a pair is no text in any column
        return kept, fault
    if isinstance(record, str):
        kept = Line({column: None if fault else record})
        kept.source = b"{%b:%b}" % (msgspec.json.encode(column), line.strip().encode())
        return kept, fault
    shown = line if len(line) <= SHOWN else f"{line[:SHOWN]}…"
    return {column: None}, fault or f"{shown} is neither an object nor a string"


def _as_python_writes_it(line: str) -> tuple[Any, str]:
    """A line that is not JSON by the book, if it is JSON by Python's:
    NaN, Infinity, halves of surrogate pairs, numbers of any size.
    """
    try:
        return json.loads(line, parse_int=_whole, parse_float=_real), ""
    except json.JSONDecodeError as error:
        return None, f"not JSON: {error.msg} (at character {error.pos} of the line)"
    except RecursionError:
        return None, "nested too deeply to be read"


def _whole(digits: str) -> int | str:
    return int(digits) if len(digits) < DIGITS else digits


def _real(digits: str) -> float | str:
    value = float(digits)
    return value if math.isfinite(value) else digits


def _check_characters(record: dict[str, Any], column: str, where: str) -> None:
    """Refuse halves of surrogate pairs beside the text: no column of Parquet can hold one."""
    for name, value in record.items():
        if name != column and not (_sayable(name) and _sayable(value)):
            msg = f"{where}: {_HALF.format(ascii(name))}, which Parquet cannot hold; mend it, or write .jsonl or .npy"
            raise ConfigError(msg)


def _half(record: Any, column: str, carried: str) -> str:
    """What is wrong with a text that holds half of a surrogate pair."""
    value = record.get(column) if isinstance(record, dict) else record
    checked = isinstance(value, str) or carried == "parquet"  # there no value may hold one, text or not
    return _HALF.format(repr(column)) if checked and not _sayable(value) else ""


_HALF = "{} holds half of a surrogate pair, which is no character"


def _sayable(value: object) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


# --- CSV -------------------------------------------------------------------------------------------------------------


def _csv(file: BinaryIO, name: str, source: Source, mark: str) -> Generator[Row]:
    csv.field_size_limit(2**31 - 1)  # its default, 131,072 characters, is shorter than many a document
    lines = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
    rows = csv.reader(lines, strict=True, delimiter=mark)
    row = 0
    try:
        header = next(rows, [])
        _check_header(header, name, source.column, mark)
        for fields in rows:
            if not fields:
                continue
            fault = ""
            if len(fields) > len(header):
                fault = f"{len(fields)} fields, but the header has {len(header)}"
            if not all(map(str.isascii, fields)) and not _sayable(fields):
                fault = "not UTF-8"
            values = [each if not fault or _sayable(each) else None for each in fields]
            # A short row has no value there.
            yield rows.line_num, dict(zip(header, values + [None] * (len(header) - len(values)), strict=False)), fault
            row += 1
    except csv.Error as error:
        msg = f"{name}, row {row} (after line {rows.line_num}): {error}"
        raise ConfigError(msg) from None
    finally:
        lines.detach()  # the file is closed by whoever opened it


def _check_header(header: list[str], name: str, column: str, mark: str) -> None:
    twice = next((each for each in header if header.count(each) > 1), None)
    what = ""
    if not _sayable(header):
        what = "the header is not UTF-8"
    elif column not in header:
        what = _missing(column, header) + _other_mark(header, mark)
    elif twice is not None:
        what = f"two columns are called {twice!r}"
    if what:
        msg = f"{name}: {what}"
        raise ConfigError(msg)


def _other_mark(header: Collection[str], mark: str) -> str:
    """What to do about fields with another separator."""
    other = next((each for each in "\t,;|" if each != mark and any(each in name for name in header)), None)
    if other is None:
        return ""
    return f"; they look parted by {other!r}: " + {"\t": "pass --input-format tsv", ",": "pass --input-format csv"}.get(
        other, "part them by commas or tabs"
    )


# --- Parquet ---------------------------------------------------------------------------------------------------------


def _parquet(file: BinaryIO, source: Source) -> Iterator[Block]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    name, column, whole = source.name, source.column, source.carried != ""
    row = 0
    try:
        # Spark's old timestamps hold any year, of which nanoseconds
        # in 64 bits have 584, and pyarrow would wrap the rest.
        with pq.ParquetFile(file, coerce_int96_timestamp_unit="us") as table:
            schema = table.schema_arrow
            _speakable(schema, name, column, source.carried)
            if whole:
                none = [pa.nulls(0, kind) for kind in schema.types]
                yield Block([], pa.RecordBatch.from_arrays(none, schema=schema))  # an empty file keeps its columns
            for found in table.iter_batches(BLOCK, columns=None if whole else [column]):
                batch = found
                if source.carried == "jsonl":
                    _check_strings(batch, name, column, row)
                texts, wrong = _strings(batch.column(column), column, empty=source.empty)
                if wrong and source.carried == "jsonl":  # a text that is not UTF-8 is null in the record too
                    batch = batch.set_column(schema.get_field_index(column), column, pa.array(texts, pa.large_string()))
                faults = {
                    row + place: source.refused(f"{name}, row {row + place}", "", why) for place, why in wrong.items()
                }
                yield Block(texts, batch, faults)
                row += len(texts)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and not isinstance(error, pa.ArrowException) and error.errno is not None:
            raise
        msg = f"{name}: cannot be read as Parquet: {error}"
        raise ConfigError(msg) from None


def _speakable(schema: pa.Schema, name: str, column: str, carried: str) -> None:
    """Refuse columns that are missing, or that the output could not hold."""
    import pyarrow as pa

    if column not in schema.names:
        raise ConfigError(f"{name}: " + _missing(column, schema.names))
    twice = next((each for each in (schema.names if carried else [column]) if schema.names.count(each) > 1), None)
    if twice is not None:
        msg = f"{name}: two columns are called {twice!r}"
        raise ConfigError(msg)
    kind = schema.field(column).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if str(kind) not in ("string", "large_string", "string_view"):
        msg = f"{name}: {column!r} is {schema.field(column).type}, not string"
        raise ConfigError(msg)
    if carried and ADDED in schema.names:
        raise ConfigError(_taken(name))
    if carried == "jsonl" and (found := unspeakable(schema)) is not None:
        msg = f"{name}: column {found[0]!r} cannot be written as JSON: {found[1]}; write .parquet or .npy"
        raise ConfigError(msg)


def _strings(array: Any, column: str, *, empty: bool) -> tuple[list[str | None], dict[int, str]]:
    """The texts of a column, and by place what is wrong with those that are None."""
    try:
        texts = array.to_pylist()
        wrong: dict[int, str] = {}
    except UnicodeDecodeError:
        texts, wrong = _decoded(array, column)
    if None in texts or not (empty or "" not in texts):
        for place, text in enumerate(texts):
            if place not in wrong and not (text or (empty and text is not None)):
                wrong[place] = _fault({column: text}, column)
                texts[place] = None
    return texts, wrong


def _decoded(array: Any, column: str) -> tuple[list[str | None], dict[int, str]]:
    texts: list[str | None] = []
    wrong: dict[int, str] = {}
    for place in range(len(array)):
        try:
            texts.append(array[place].as_py())
        except UnicodeDecodeError as error:
            wrong[place] = f"{column!r} is not UTF-8 ({error.reason} at byte {error.start})"
            texts.append(None)
    return texts, wrong


def _check_strings(batch: pa.RecordBatch, name: str, column: str, row: int) -> None:
    """Refuse what Parquet may hold and JSON cannot: strings beside the text that are not UTF-8."""
    for field, array in zip(batch.schema, batch.columns, strict=True):
        if field.name != column and not readable(array):
            place = next(place for place in range(len(array)) if not readable(array.slice(place, 1)))
            where = f"{name}, row {row + place}"
            msg = f"{where}: column {field.name!r} is not UTF-8, as JSON must be; write .parquet or .npy"
            raise ConfigError(msg)
