"""Finished outputs, read again: vectors in blocks of bounded memory, records by row, and what made them.

`.npy` and Arrow files are mapped into memory; Parquet is read a batch of one column at a time; JSONL a line at a time.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import msgspec

from .._hints import NDArray
from .._types import PACKED, DType, array_of
from ..errors import ConfigError
from . import arrow_values
from .report import Report, read_report
from .sinks.open_sink import SUFFIXES
from .sinks.table_sink import PART
from .sinks.tables import ERROR, VECTOR

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 16 * 1024 * 1024  # bytes of vectors at once
ROWS = 1 << 16  # at once, of narrow vectors: what is worked out for each row may be wider
LINES = 1024  # of JSONL at once
MODEL, OPTIONS = b"embedkit.model", b"embedkit.options"


class Origin(msgspec.Struct, frozen=True):
    """What made the vectors, as far as the output or its report says.

    Attributes:
        model: "provider:model"; "" where nobody says.
        options: those of `Options` that were set.
        base_url: where requests went; "" where nobody says.
        said: by which file.
    """

    model: str = ""
    options: Mapping[str, Any] = {}
    base_url: str = ""
    said: str = ""


class Block(msgspec.Struct, frozen=True):
    """Rows of an output.

    Attributes:
        start: the number of the first one.
        vectors: shape (n, values per row); rows that failed hold anything.
        there: shape (n,), whether a row has a vector; None: see `missing`.
    """

    start: int
    vectors: NDArray[Any]
    there: NDArray[Any] | None = None


class Embedded(ABC):
    """A finished output.

    Attributes:
        name: as it was given.
        report: of the job that made it, where it lies beside.
        width: values per row (bytes, where bits are packed); 0 where no row has a vector.
        rows: how many there are; None where only reading tells.
    """

    holds_records: ClassVar[bool] = True
    width: int = 0
    rows: int | None = None

    def __init__(self, name: str, paths: list[Path], report: Report | None) -> None:
        self.name = name
        self.paths = paths
        self.report = report

    @abstractmethod
    def blocks(self) -> Iterator[Block]:
        """All rows, in order."""

    @abstractmethod
    def records(self, rows: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        """(row, record) of these rows, in order and each once, without the vector, as JSON can say it; nothing where
        the output holds none. Few are in memory at a time.
        """

    def origin(self) -> Origin:
        """What made it: by its own metadata, else by its report."""
        report = self.report
        if report is None:
            return Origin()
        return Origin(report.model, report.options, report.base_url, f"{self.name.rstrip('/')}.report.json")

    def refuse(self, why: str) -> NoReturn:
        """Raise ConfigError, which names the output."""
        msg = f"{self.name}: {why}"
        raise ConfigError(msg) from None


def missing(block: Block, dtype: DType) -> NDArray[Any]:
    """Which rows have no vector, shape (n,): null or NaN; nothing but zeros, where the type has no NaN."""
    import numpy as np

    vectors = block.vectors
    bad: NDArray[Any] = ~(vectors != 0).any(axis=1) if dtype != "float32" else ~np.isfinite(vectors).all(axis=1)
    return bad if block.there is None else ~block.there if dtype != "float32" else bad | ~block.there


def open_embedded(name: str) -> Embedded:
    """A finished output: a file, or a folder of parts.

    Raises:
        ConfigError: there is none, or embedkit has not written it.
    """
    path = Path(os.path.realpath(name))
    job = path.with_name(f"{path.name}.job")
    way = f"; its job is not finished: {job} is there, and the same command goes on" if job.is_dir() else ""
    if not path.exists():
        msg = f"{name}: there is no such file or folder{way}"
        raise ConfigError(msg)
    report = read_report(path.with_name(f"{path.name}.report.json"))
    if path.is_dir():
        parts = sorted(each for each in path.iterdir() if PART.fullmatch(each.name))
        if not parts:
            msg = f"{name} is a folder without parts of embedkit (part-00000.parquet …){way}"
            raise ConfigError(msg)
        return _Parquet(name, parts, report)
    form = SUFFIXES.get(path.suffix.lower())
    kinds: dict[str, Callable[[str, list[Path], Report | None], Embedded]] = {
        "npy": _Npy,
        "jsonl": _Jsonl,
        "parquet": _Parquet,
        "arrow": _Arrow,
    }
    if form is None:
        msg = f"{name}: its suffix is none of {', '.join(SUFFIXES)}"
        raise ConfigError(msg)
    return kinds[form](name, [path], report)


class _Npy(Embedded):
    """One matrix, mapped into memory."""

    holds_records = False

    def __init__(self, name: str, paths: list[Path], report: Report | None) -> None:
        super().__init__(name, paths, report)
        import numpy as np

        try:
            self._matrix: NDArray[Any] = np.load(paths[0], mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            self.refuse(f"it is no matrix that can be read ({error})")
        if self._matrix.ndim != 2 or self._matrix.dtype.kind not in "fiu":  # noqa: PLR2004 (rows and columns)
            shape = "x".join(map(str, self._matrix.shape))
            self.refuse(f"it holds {shape} {self._matrix.dtype}, not a matrix with one vector per row")
        self.rows, self.width = map(int, self._matrix.shape)
        if report is not None and (report.rows, report.width) != (self.rows, self.width):
            self.refuse(
                f"it holds {self.rows:,} x {self.width} values, and its report says {report.rows:,} x {report.width}: "
                "they are not of one job; move the report away"
            )

    @property
    def dtype(self) -> str:
        """Of the matrix, as numpy names it."""
        return str(self._matrix.dtype)

    def blocks(self) -> Iterator[Block]:
        import numpy as np

        each = _rows_at_once(self.width * self._matrix.itemsize)
        for start in range(0, len(self._matrix), each):
            yield Block(start, np.asarray(self._matrix[start : start + each]))

    def records(self, rows: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        del rows
        return iter(())


class _Table(Embedded):
    """Files with the columns `embedding` and `embedding_error`."""

    def __init__(self, name: str, paths: list[Path], report: Report | None) -> None:
        super().__init__(name, paths, report)
        import pyarrow as pa

        counts: list[int] = []
        self._said: dict[bytes, bytes] = {}
        for path in paths:
            try:
                schema, count = self._opened(path)
            except pa.ArrowException as error:
                self.refuse(f"{path.name} cannot be read ({error})")
            if VECTOR not in schema.names:
                self.refuse(f"{path.name} has no column {VECTOR!r}: embedkit has not written it")
            kind = schema.field(VECTOR).type
            width = kind.list_size if pa.types.is_fixed_size_list(kind) else 0
            said = {each: (schema.metadata or {}).get(each, b"") for each in (MODEL, OPTIONS)}
            if counts and (said, width) != (self._said, self.width):
                self.refuse(f"{path.name} was not made by the job that made {paths[0].name}")
            self._said, self.width = said, width
            counts.append(count)
        self._counts = counts
        self.rows = sum(counts)

    def _opened(self, path: Path) -> tuple[pa.Schema, int]:
        raise NotImplementedError

    def _batches(self, path: Path, rows: int) -> Iterator[pa.Array]:
        """The vectors' column, so many rows at a time."""
        raise NotImplementedError

    def _rows(self, path: Path, rows: list[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Records of rows of one file, in order."""
        raise NotImplementedError

    def origin(self) -> Origin:
        if not self._said[MODEL]:
            return super().origin()
        reported = super().origin()
        model = self._said[MODEL].decode()
        address = reported.base_url if reported.model == model else ""
        return Origin(model, msgspec.json.decode(self._said[OPTIONS] or b"{}"), address, self.name)

    def blocks(self) -> Iterator[Block]:
        import numpy as np

        if not self.width:
            return
        start = 0
        for path in self.paths:
            for column in self._whole_batches(path):
                there = column.is_valid().to_numpy(zero_copy_only=False)
                flat = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, self.width)
                vectors = flat
                if len(flat) != len(column):
                    vectors = np.zeros((len(column), self.width), flat.dtype)
                    vectors[there] = flat
                yield Block(start, vectors, there)
                start += len(column)

    def _whole_batches(self, path: Path) -> Iterator[pa.Array]:
        import pyarrow as pa

        try:
            yield from self._batches(path, _rows_at_once(self.width * 4))
        except pa.ArrowException as error:
            self.refuse(f"{path.name} cannot be read ({error})")

    def records(self, rows: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        before, wanted = 0, sorted(set(rows))
        for path, count in zip(self.paths, self._counts, strict=True):
            here = [row - before for row in wanted if before <= row < before + count]
            if here:
                for row, record in self._rows(path, here):
                    yield row + before, record
            before += count


class _Parquet(_Table):
    def _opened(self, path: Path) -> tuple[pa.Schema, int]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            return file.schema_arrow, int(file.metadata.num_rows)

    def _batches(self, path: Path, rows: int) -> Iterator[pa.Array]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(rows, columns=[VECTOR], use_threads=False):
                yield batch.column(0)

    def _rows(self, path: Path, rows: list[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if name not in (VECTOR, ERROR)]
            before = 0
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                here = [row - before for row in rows if before <= row < before + count]
                if here:
                    for batch in file.read_row_group(group, names).take(here).combine_chunks().to_batches():
                        yield from zip([row + before for row in here], arrow_values.records(batch), strict=True)
                before += count


class _Arrow(_Table):
    def _opened(self, path: Path) -> tuple[pa.Schema, int]:
        import pyarrow as pa

        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
            return file.schema, sum(file.get_batch(number).num_rows for number in range(file.num_record_batches))

    def _batches(self, path: Path, rows: int) -> Iterator[pa.Array]:
        import pyarrow as pa

        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
            for number in range(file.num_record_batches):
                column = file.get_batch(number).column(VECTOR)
                for start in range(0, len(column), rows):
                    yield column.slice(start, rows)

    def _rows(self, path: Path, rows: list[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        import pyarrow as pa

        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
            before = 0
            for number in range(file.num_record_batches):
                batch = file.get_batch(number)
                here = [row - before for row in rows if before <= row < before + len(batch)]
                if here:
                    taken = batch.drop_columns([name for name in (VECTOR, ERROR) if name in batch.schema.names])
                    yield from zip([row + before for row in here], arrow_values.records(taken.take(here)), strict=True)
                before += len(batch)


class _Jsonl(Embedded):
    """A record per line."""

    def __init__(self, name: str, paths: list[Path], report: Report | None) -> None:
        super().__init__(name, paths, report)
        self._starts: list[int] = []  # where each block of lines begins, once they were read
        self._each = LINES
        self.width = next((len(values) for _, values in self._vectors() if values is not None), 0)
        if report is not None and self.width and report.width != self.width:
            self.refuse(
                f"it holds vectors of {self.width} values, and its report says {report.width}: they are not of one "
                "job; move the report away"
            )

    def _lines(self, start: int = 0) -> Iterator[bytes]:
        with self.paths[0].open("rb") as file:
            file.seek(start)
            yield from file

    def _record(self, line: bytes, row: int) -> dict[str, Any]:
        try:
            found = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            try:
                found = json.loads(line)  # what Python writes, and JSON does not know
            except (ValueError, RecursionError) as error:
                self.refuse(f"line {row + 1}: {error}")
        if not isinstance(found, dict) or not isinstance(found.get(VECTOR, 0), list | None):
            self.refuse(f"line {row + 1} has no {VECTOR!r} that is a list of numbers: embedkit has not written it")
        return found

    def _vectors(self) -> Iterator[tuple[int, list[Any] | None]]:
        for row, line in enumerate(self._lines()):
            yield row, self._record(line, row)[VECTOR]

    def blocks(self) -> Iterator[Block]:
        rows = min(LINES, _rows_at_once(self.width * 4))
        held: list[list[Any] | None] = []
        start, at, self._starts, self._each = 0, 0, [0], rows
        for row, line in enumerate(self._lines()):
            values, at = self._record(line, row)[VECTOR], at + len(line)
            if values is not None and len(values) != self.width:
                self.refuse(f"line {row + 1} has {len(values)} values, and the lines before have {self.width}")
            held.append(values)
            if len(held) == rows:
                self._starts.append(at)
                yield self._block(start, held)
                start, held = row + 1, []
        if held:
            yield self._block(start, held)

    def _block(self, start: int, held: list[list[Any] | None]) -> Block:
        import numpy as np

        there = np.array([values is not None for values in held])
        vectors = np.zeros((len(held), self.width), np.float32)
        if there.any():
            try:
                vectors[there] = [values for values in held if values is not None]
            except (TypeError, ValueError) as error:
                self.refuse(f"lines {start + 1} to {start + len(held)}: {error}")
        return Block(start, vectors, there)

    def records(self, rows: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        blocks = groupby(sorted(set(rows)), lambda row: row // self._each if self._starts else 0)
        for block, here in blocks:
            first, start = (block * self._each, self._starts[block]) if self._starts else (0, 0)
            wanted = set(here)
            for row, line in enumerate(self._lines(start), first):
                if row in wanted:
                    record = self._record(line, row)
                    yield row, {name: value for name, value in record.items() if name not in (VECTOR, ERROR)}
                    wanted.remove(row)
                if not wanted:
                    break


def stored_as(output: Embedded, asked: DType | None) -> DType:
    """The type of an output's components: as its origin says, else as asked for.

    Raises:
        ConfigError: neither says, and its values may be of several types; or both do, and differ.
    """
    said = output.origin().options.get("dtype")
    kind = output.dtype if isinstance(output, _Npy) else ""
    if said is None and output.origin().model:
        said = "float32"
    if said is not None and asked is not None and said != asked:
        output.refuse(f"its vectors are {said}, not {asked}")
    dtype: DType | None = said or asked or (None if kind in ("int8", "uint8") else "float32")
    if dtype is None:
        packed = "binary" if kind == "int8" else "ubinary"
        output.refuse(f"it holds {kind}, and nothing says of which --dtype: pass --dtype {kind} or {packed}")
    if kind and dtype != "float32" and str(array_of(dtype).__name__) != kind:
        output.refuse(f"it holds {kind}, which is not how {dtype} is stored")
    return dtype


def components(width: int, dtype: DType) -> int:
    """Of a vector that is so many values wide."""
    return width * 8 if dtype in PACKED else width


def _rows_at_once(row_bytes: int) -> int:
    return max(1, min(ROWS, BLOCK // max(1, row_bytes)))
