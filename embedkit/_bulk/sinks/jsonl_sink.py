"""Records and their embeddings as JSON lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import msgspec

from ..._hints import NDArray
from ...errors import ConfigError
from .. import arrow_values
from ..contract import Records, Sink, State
from ..disk import AppendedFile, check_folder, copy, move, sayable
from ..sources.rows import Line
from ..stdio import own
from .file_sink import READ, FileSink, Known, Reader, reader
from .tables import ERROR, VECTOR

PIECE = 1 << 20  # bytes read at once
FLOAT_TEXT = 13  # bytes of a float32's shortest text and its comma, of a unit vector
INTEGER_TEXT = 5
CLOSED = "stdout is closed"
GONE = "what went to stdout cannot be gone on with; name a file"


class JsonlSink(FileSink):
    """The input's record and its embedding, one object per line; null and `embedding_error` in a row that failed.

    A record of JSONL is written as its line says, to the letter. Components of float32 are the shortest text that reads
    back to the same float32.

    Lines are appended to a file in the job's folder, which `sync` brings to disk and `begin` cuts back. `finish`:
    fsync, rename, fsync of the folder.
    """

    _file: AppendedFile | None = None

    def __init__(self, target: str) -> None:
        super().__init__(target, "jsonl")

    def begin(self, folder: Path, like: NDArray[Any], state: Mapping[str, Any] | None) -> None:
        """As `Sink.begin`. ConfigError: the file is not as it was."""
        del like
        check_folder(self.place.parent)
        self._rows = 0 if state is None else int(state["rows"])
        kept = () if state is None else (int(state["bytes"]), state.get("checksum"))
        self._file = AppendedFile(_unfinished(folder), *kept)

    def write(
        self, pieces: list[Records], vectors: NDArray[Any], failures: Mapping[int, str], keys: Sequence[Any] | None
    ) -> None:
        """Append a line per row."""
        del keys
        self._open.append(lines(pieces, vectors, failures))
        self._rows += len(vectors)

    def sync(self) -> State:
        """Bring the lines to disk."""
        self._open.sync()
        return {"rows": self._rows, "bytes": self._open.size, "checksum": self._open.checksum}

    def finish(self, metadata: Mapping[str, str]) -> None:
        """As `Sink.finish`; the format holds no metadata."""
        del metadata
        self._open.sync()
        self._open.close()
        move(self._open.path, self.place)

    def finished(self, folder: Path, state: Mapping[str, Any]) -> bool:
        """The file has been moved: nothing else takes it out of the job's folder."""
        del state
        return not _unfinished(folder).exists() and self.place.exists()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def room_needed(self, rows: int, like: NDArray[Any], records: int = 0) -> int:
        """The file itself."""
        text = FLOAT_TEXT if like.dtype.kind == "f" else INTEGER_TEXT
        return records + rows * (int(like.shape[1]) * text + len(VECTOR) + 8)

    def reopen(self, folder: Path, state: Mapping[str, Any]) -> State:
        """As `Sink.reopen`: a copy of the file. ConfigError: it is not as the job left it."""
        target = _unfinished(folder)
        copy(self.place, target)
        rows, size, last = 0, 0, b""
        with target.open("rb") as file:
            while piece := file.read(PIECE):
                rows, size, last = rows + piece.count(b"\n"), size + len(piece), piece[-1:]
        if last not in (b"", b"\n"):
            self.refuse("its last line has no end")
        self.check_rows(rows, state)
        return {"rows": rows, "bytes": size}

    def read_back(self, text: str | Reader, key: str | Reader | None, like: NDArray[Any]) -> Iterator[Known]:
        """As `FileSink.read_back`."""
        import numpy as np

        text_of, key_of = reader(text), None if key is None else reader(key)
        texts: list[str | None] = []
        keys: list[Any] | None = None if key_of is None else []
        rows: NDArray[Any] = np.empty((READ, like.shape[1]), like.dtype)
        with self.place.open("rb") as file:
            for number, line in enumerate(file, 1):
                record = self._record(line, number)
                if record[VECTOR] is None:
                    continue
                rows[len(texts)] = self._vector(record[VECTOR], like, number)
                texts.append(text_of(record))
                if keys is not None and key_of is not None:
                    keys.append(key_of(record))
                if len(texts) == READ:
                    yield keys, texts, rows
                    texts, keys, rows = [], None if keys is None else [], np.empty_like(rows)
        if texts:
            yield keys, texts, rows[: len(texts)]

    def _record(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            record = msgspec.json.decode(line)
        except (msgspec.DecodeError, RecursionError):
            try:
                record = json.loads(line)  # what Python writes, and JSON does not know
            except (ValueError, RecursionError) as error:
                self.refuse(f"line {number}: {error}")
        if not isinstance(record, dict) or VECTOR not in record:
            self.refuse(f"line {number} has no {VECTOR!r}")
        return record

    def _vector(self, values: Any, like: NDArray[Any], number: int) -> NDArray[Any]:
        import numpy as np

        try:
            vector: NDArray[Any] = np.array(values, like.dtype)
        except (TypeError, ValueError, OverflowError) as error:
            self.refuse(f"line {number}: {error}")
        if vector.shape != like.shape[1:]:
            self.refuse(f"line {number} has {vector.size} components, not {like.shape[1]}")
        return vector

    @property
    def _open(self) -> AppendedFile:
        if self._file is None:
            msg = "begin comes first"
            raise RuntimeError(msg)
        return self._file


class StdoutSink(Sink):
    """JSON lines on stdout. Nothing is kept: there is no going on after a crash."""

    resumable: ClassVar[bool] = False
    target = "-"
    form = "jsonl"
    place = Path("-")

    def exists(self) -> bool:
        """As `Sink.exists`: a stream is nothing that could be replaced."""
        return False

    def room_needed(self, rows: int, like: NDArray[Any], records: int = 0) -> int | None:
        """As `Sink.room_needed`: none is known."""
        del rows, like, records
        return None

    def begin(self, folder: Path, like: NDArray[Any], state: Mapping[str, Any] | None) -> None:
        """Take stdout. ConfigError: it is closed, or there is a state to go on from."""
        del folder, like
        if state is not None or sys.stdout is None:
            raise ConfigError(CLOSED if state is None else GONE)
        self._rows = 0
        self._file: BinaryIO = own(sys.stdout, "wb")

    def write(
        self, pieces: list[Records], vectors: NDArray[Any], failures: Mapping[int, str], keys: Sequence[Any] | None
    ) -> None:
        """Write a line per row; the reader of a pipe may make this wait."""
        del keys
        rest = memoryview(lines(pieces, vectors, failures))
        while rest:  # an unbuffered handle may take less than it is given
            rest = rest[self._file.write(rest) :]
        self._rows += len(vectors)

    def sync(self) -> State:
        """All is written."""
        return {"rows": self._rows}

    def finish(self, metadata: Mapping[str, str]) -> None:
        """All is written."""
        del metadata
        self._file.flush()

    def finished(self, folder: Path, state: Mapping[str, Any]) -> bool:
        """Nothing is known of what an earlier job has written."""
        del folder, state
        return False

    def reopen(self, folder: Path, state: Mapping[str, Any]) -> State:
        """As `Sink.reopen`. ConfigError: always."""
        del folder, state
        raise ConfigError(GONE)

    def close(self) -> None:
        """Stdout stays open."""


def lines(pieces: list[Records], vectors: NDArray[Any], failures: Mapping[int, str]) -> bytearray:
    """A line per row."""
    import numpy as np
    import orjson

    records = (
        record for piece in pieces for record in (piece if isinstance(piece, list) else arrow_values.records(piece))
    )
    found = bytearray()
    rows = np.ascontiguousarray(vectors, vectors.dtype.newbyteorder("="))
    for row, (record, vector) in enumerate(zip(records, rows, strict=True)):
        fields = record.source if isinstance(record, Line) else msgspec.json.encode(record, enc_hook=str)
        if row in failures:
            values = b'null,"%b":%b' % (ERROR.encode(), msgspec.json.encode(sayable(failures[row])))
        else:
            values = orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY)
        found += b'%b%b"%b":%b}\n' % (fields[:-1], b"," if record else b"", VECTOR.encode(), values)
    return found


def _unfinished(folder: Path) -> Path:
    return folder / "rows.jsonl"
