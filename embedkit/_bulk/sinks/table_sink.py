"""Sinks of Parquet and Arrow IPC: one file, or a folder of numbered parts.

No such file can be gone on with after a crash, so rows lie in a spool in the job's folder until a file is written from
it. Every file has the input's columns, `embedding` (a list of fixed size, null in a row that failed) and
`embedding_error` (text, null in every other row). Reading those nulls back with pyarrow takes version 26.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..._hints import NDArray
from ..contract import Records, State
from ..disk import check_folder, move, sync_file, sync_folder
from .arrow_files import CHUNK, Arrow, Format, Parquet, rewrite, spooled, write_spool
from .file_sink import READ, FileSink, Known, Reader, described, reader, row_bytes
from .spool import Rows, Spool, split
from .tables import ERROR, VECTOR, Widening, without_vectors

if TYPE_CHECKING:
    import pyarrow as pa

NEW: State = {"rows": 0, "spooled": 0, "parts": 0, "narrow": 0, "exact": []}
PART = re.compile(r"part-(\d{5,})\.parquet")
PART_BYTES = 256 * 1024 * 1024  # of vectors in a part
FORMATS: dict[str, type[Parquet | Arrow]] = {"parquet": Parquet, "arrow": Arrow}


class TableFileSink(FileSink):
    """One file. All rows are spooled, and `finish` writes it: Parquet from the spool, fsync, rename, fsync of the
    folder; only then the spool goes.

    Args:
        target: the file.
        form: "parquet" or "arrow".
        column: the text's; it is there even if there are no records.
    """

    carried: ClassVar[Literal["jsonl", "parquet", ""]] = "parquet"
    _spool: Spool | None = None

    def __init__(self, target: str, form: str = "parquet", *, column: str = "text") -> None:
        super().__init__(target, form)
        self._format: Format = FORMATS[form]()
        self._column = column

    def begin(self, folder: Path, like: NDArray[Any], state: Mapping[str, Any] | None) -> None:
        """As `Sink.begin`. ConfigError: the spool is not as it was, or holds vectors of another width."""
        check_folder(self.place.parent)
        self._like = like[:0].astype(like.dtype.newbyteorder("<"))
        self.check_vectors(state, like)
        self._folder = folder
        self._spool = Spool(_spool(folder), like, state)

    def write(
        self, pieces: list[Records], vectors: NDArray[Any], failures: Mapping[int, str], keys: Sequence[Any] | None
    ) -> None:
        """Spool the rows."""
        del keys
        self._open.append(pieces, vectors, failures)

    def sync(self) -> State:
        """Bring the spool to disk."""
        return {"rows": self._open.rows, **described(self._like), **self._open.sync()}

    def finish(self, metadata: Mapping[str, str]) -> None:
        """Write the file from the spool, with the metadata, and give it its name."""
        new = self._folder / f"whole{self._format.suffix}"
        write_spool(self._format, self._open, new, self._like, Widening(), self._column, metadata)
        sync_file(new)
        move(new, self.place)
        self._open.close()
        self._open.path.unlink()

    def finished(self, folder: Path, state: Mapping[str, Any]) -> bool:
        """The spool is gone: it goes last."""
        del state
        return self.place.exists() and not _spool(folder).exists()

    def close(self) -> None:
        """Close the spool."""
        if self._spool is not None:
            self._spool.close()

    def room_needed(self, rows: int, like: NDArray[Any], records: int = 0) -> int:
        """The spool and the file."""
        return 2 * (records + rows * row_bytes(like))

    def reopen(self, folder: Path, state: Mapping[str, Any]) -> State:
        """As `Sink.reopen`: the file's rows, in a spool. ConfigError: it is not as the job left it."""
        like = _like(self, self._format, [self.place])
        spool = Spool(_spool(folder), like)
        try:
            spooled(self._format, self.place, spool, like)
            self.check_rows(spool.rows, state)
            return {"rows": spool.rows, **described(like), **spool.sync()}
        finally:
            spool.close()

    def read_back(self, text: str | Reader, key: str | Reader | None, like: NDArray[Any]) -> Iterator[Known]:
        """As `FileSink.read_back`."""
        yield from _known(self, self._format, [self.place], text, key, like)

    @property
    def _open(self) -> Spool:
        if self._spool is None:
            msg = "begin comes first"
            raise RuntimeError(msg)
        return self._spool


class FolderSink(TableFileSink):
    """A folder of Parquet files, `part-00000.parquet` and so on, of 256 MiB of vectors each; the last one is smaller.

    The rows of the part to come lie in a spool of its own. When they are all there, the part is written in the job's
    folder: fsync, rename into the output's folder, fsync of that folder. A spool is deleted two `sync` after its part
    is there, so that any state that `sync` has returned since can be gone on from: `begin` deletes the parts that came
    after it, and they are written again from their rows.

    All parts have one schema: if a column had to be widened on the way, `finish` writes the parts before that again.

    Args:
        target: the folder, which is made if need be.
        column: the text's.
    """

    def __init__(self, target: str, *, column: str = "text") -> None:
        super().__init__(target, "parquet", column=column)
        self.form = "folder"
        self._metadata: dict[str, str] = {}

    def expect(self, metadata: Mapping[str, str]) -> None:
        """As `Sink.expect`: every part has it."""
        self._metadata = dict(metadata)

    def exists(self) -> bool:
        """As `Sink.exists`: whether there is anything in the folder."""
        return self.place.exists() and (not self.place.is_dir() or any(self.place.iterdir()))

    def begin(self, folder: Path, like: NDArray[Any], state: Mapping[str, Any] | None) -> None:
        """As `Sink.begin`; with no state, parts that lie in the folder are deleted. ConfigError: a part is gone, or
        as for a file.
        """
        self._like = like[:0].astype(like.dtype.newbyteorder("<"))
        self.check_vectors(state, like)
        self._folder = folder
        self._make()
        about = NEW if state is None else state
        self._parts: int = about["parts"]
        self._narrow: int = about["narrow"]
        self._before: int = about["rows"] - about["spooled"]
        self._safe = self._parts
        self._part_rows = max(1, PART_BYTES // max(1, row_bytes(like)) // CHUNK) * CHUNK
        self._delete_later()
        schema = _records_schema(self._format.schema(self._part(self._parts - 1))) if self._parts else None
        self._widening = Widening(schema, about["exact"])
        self._spool = Spool(_spool(folder, self._parts), like, state)

    def _make(self) -> None:
        if not self.place.exists():
            self.place.mkdir()
            sync_folder(self.place.parent)
        check_folder(self.place)

    def _delete_later(self) -> None:
        """Delete parts and spools that came after the state, and spools that came before."""
        there = self._numbers()
        if there[: self._parts] != list(range(self._parts)):
            lost = next(number for number in range(self._parts) if number not in there)
            self.refuse(f"{self._part(lost).name} is gone")
        for number in there[self._parts :]:
            self._part(number).unlink()
        sync_folder(self.place)
        for spool in self._folder.glob("spool-*"):
            if spool != _spool(self._folder, self._parts):
                spool.unlink()

    def write(
        self, pieces: list[Records], vectors: NDArray[Any], failures: Mapping[int, str], keys: Sequence[Any] | None
    ) -> None:
        """Spool the rows; write every part that is full."""
        del keys
        rest: Rows = pieces, vectors, dict(failures)
        while self._open.rows + len(rest[1]) >= self._part_rows:
            first, rest = split(rest, self._part_rows - self._open.rows)
            self._open.append(*first)
            self._write_part(self._metadata)
            self._open.close()
            self._before += self._open.rows
            self._parts += 1
            self._spool = Spool(_spool(self._folder, self._parts), self._like)
        if rest[0]:
            self._open.append(*rest)

    def _write_part(self, metadata: Mapping[str, str]) -> None:
        new, earlier = self._folder / "part.parquet", self._widening.schema
        write_spool(self._format, self._open, new, self._like, self._widening, self._column, metadata)
        sync_file(new)
        move(new, self._part(self._parts))
        if self._parts and self._widening.schema != earlier:
            self._narrow = self._parts

    def sync(self) -> State:
        """Bring the spool to disk. Spools that neither this state nor the one before needs are deleted."""
        spool = self._open.sync()
        for number in range(self._safe):
            _spool(self._folder, number).unlink(missing_ok=True)
        self._safe = self._parts
        about = {"parts": self._parts, "narrow": self._narrow, "exact": sorted(self._widening.exact)}
        return {"rows": self._before + self._open.rows, **about, **described(self._like), **spool}

    def finish(self, metadata: Mapping[str, str]) -> None:
        """Write the last part, with the metadata, and again the parts whose schema is not that of all."""
        if self._open.rows or not self._parts:
            self._write_part({**self._metadata, **metadata})
        for number in range(self._narrow):
            new = self._folder / "part.parquet"
            rewrite(self._format, self._part(number), new, self._widening)
            sync_file(new)
            move(new, self._part(number))
        self._open.close()
        for spool in sorted(self._folder.glob("spool-*")):  # the last one last
            spool.unlink()

    def finished(self, folder: Path, state: Mapping[str, Any]) -> bool:
        """The last spool is gone: it goes when all else is done."""
        return self.place.exists() and not _spool(folder, state["parts"]).exists()

    def room_needed(self, rows: int, like: NDArray[Any], records: int = 0) -> int:
        """The parts, and the spools of two."""
        whole = records + rows * row_bytes(like)
        return whole + min(whole, 2 * PART_BYTES * whole // max(1, whole - records))

    def reopen(self, folder: Path, state: Mapping[str, Any]) -> State:
        """As `Sink.reopen`: the parts stay where they are, and those to come have the next numbers; parts that came
        later, of an append that was given up, are deleted by `begin`. ConfigError: they are not as the job left them.
        """
        count = state["parts"] + (1 if state["spooled"] or not state["parts"] else 0)
        if self._numbers()[:count] != list(range(count)):
            self.refuse("a part of it is gone")
        paths = [self._part(number) for number in range(count)]
        like = _like(self, self._format, paths)
        schema = self._format.schema(paths[-1])
        spool = Spool(_spool(folder, len(paths)), like)
        try:
            empty = spool.sync()
        finally:
            spool.close()
        exact = [field.name for field in schema if str(field.type) == "int64"]  # they may hold any whole number
        rows = sum(map(self._format.count, paths))
        self.check_rows(rows, state)
        about = {"parts": len(paths), "narrow": 0, "exact": exact, **described(like)}
        return {"rows": rows, **about, **empty}

    def read_back(self, text: str | Reader, key: str | Reader | None, like: NDArray[Any]) -> Iterator[Known]:
        """As `FileSink.read_back`."""
        yield from _known(self, self._format, [self._part(number) for number in self._numbers()], text, key, like)

    def _part(self, number: int) -> Path:
        return self.place / f"part-{number:05}.parquet"

    def _numbers(self) -> list[int]:
        """Of the parts that are there."""
        names = [each.name for each in self.place.iterdir()]
        numbers = sorted(int(match[1]) for match in map(PART.fullmatch, names) if match)
        return [number for number in dict.fromkeys(numbers) if self._part(number).name in names]


def _spool(folder: Path, number: int = 0) -> Path:
    return folder / f"spool-{number:05}"


def _records_schema(schema: pa.Schema) -> pa.Schema:
    """Of a file's records alone."""
    import pyarrow as pa

    return pa.schema([field for field in schema if field.name not in (VECTOR, ERROR)], schema.metadata)


def _like(sink: TableFileSink, form: Format, paths: list[Path]) -> NDArray[Any]:
    """No rows, of the vectors' type and width in a finished output."""
    import numpy as np
    import pyarrow as pa

    if not paths:
        sink.refuse("there is no part in it")
    try:
        schema = form.schema(paths[0])
    except pa.ArrowException as error:
        sink.refuse(str(error))
    if VECTOR not in schema.names or ERROR not in schema.names:
        sink.refuse(f"it has no columns {VECTOR!r} and {ERROR!r}")
    kind = schema.field(VECTOR).type
    if not pa.types.is_fixed_size_list(kind):
        sink.refuse("no row of it has a vector")
    return np.empty((0, kind.list_size), kind.value_type.to_pandas_dtype())


def _known(
    sink: TableFileSink,
    form: Format,
    paths: list[Path],
    text: str | Reader,
    key: str | Reader | None,
    like: NDArray[Any],
) -> Iterator[Known]:
    import numpy as np

    found = _like(sink, form, paths)
    if (found.shape[1], found.dtype) != (like.shape[1], like.dtype):
        has = f"it has vectors of {found.shape[1]} {found.dtype}"
        sink.refuse(f"{has}, and these are of {like.shape[1]} {like.dtype}")
    for path in paths:
        for batch in form.batches(path, READ):
            records, vectors, failures = without_vectors(batch, like)
            rows = np.delete(np.arange(len(batch)), list(failures))
            kept = records.take(rows) if failures else records
            keys = None if key is None else _field(kept, key)
            yield keys, _field(kept, text), vectors[rows] if failures else vectors


def _field(batch: pa.RecordBatch, field: str | Reader) -> list[Any]:
    if isinstance(field, str) and field in batch.schema.names:
        found: list[Any] = batch.column(field).to_pylist()
        return found
    if isinstance(field, str):
        batch = batch.select([name for name in batch.schema.names if name == field.split(".")[0]])
    read = reader(field)
    return [read(record) for record in batch.to_pylist()]
