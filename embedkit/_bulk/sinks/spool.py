"""Rows as they came, in one file that grows: what no finished file holds yet. Cut back to a size that was on disk, it
holds the rows of that time.

A file is frames, each of one `append`: how many rows, why rows among them failed (msgpack), their records (dicts as
msgpack, batches as an Arrow stream with its own schema and dictionaries), their vectors. A record comes back as it was,
so that what becomes of it later does not depend on how rows were cut into frames.
"""

from __future__ import annotations

import datetime as dt
import struct
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from io import BufferedReader
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from ..._hints import NDArray
from ...errors import ConfigError
from ..contract import Record, Records, State
from ..disk import AppendedFile, sayable

FRAME = struct.Struct("<?IIQ")  # batches or dicts, rows, bytes of failures, bytes of records
PLAIN = frozenset({str, int, float, bool, type(None), bytes})

MICROSECOND = dt.timedelta.resolution

# Values that msgpack would turn into text, or has no type for: a code, how they are written, how they are read.
Spelling = tuple[int, Callable[[Any], str], Callable[[str], Any]]
SPELLINGS: dict[type, Spelling] = {
    int: (1, str, int),  # beyond 64 bits
    Decimal: (2, str, Decimal),
    dt.date: (3, dt.date.isoformat, dt.date.fromisoformat),
    dt.datetime: (4, dt.datetime.isoformat, dt.datetime.fromisoformat),
    dt.time: (5, dt.time.isoformat, dt.time.fromisoformat),
    dt.timedelta: (6, lambda span: str(span // MICROSECOND), lambda text: int(text) * MICROSECOND),
}  # fmt: skip
READ = {code: read for code, _, read in SPELLINGS.values()}

Rows: TypeAlias = "tuple[list[Records], NDArray[Any], dict[int, str]]"  # as `Sink.write` gets them; numpy is not loaded


class Spool:
    """A spool file, open for writing; `read` it at any time.

    Args:
        path: of the file.
        like: no rows, of the vectors' type and width.
        state: what `sync` returned, to go on from there; None begins a new file.
    """

    def __init__(self, path: Path, like: NDArray[Any], state: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self._like = like[:0].astype(like.dtype.newbyteorder("<"))
        self.rows = 0 if state is None else int(state["spooled"])
        kept = () if state is None else (int(state["bytes"]), state.get("checksum"))
        self._file = AppendedFile(path, *kept)

    @property
    def empty(self) -> bool:
        """Whether nothing has been added, not even a batch without rows."""
        return not self._file.size

    def append(self, pieces: list[Records], vectors: NDArray[Any], failures: Mapping[int, str]) -> None:
        """Add rows. A batch without rows is kept: it says which columns there are."""
        import numpy as np

        if (count := sum(map(len, pieces))) != len(vectors):
            msg = f"{count} records for {len(vectors)} vectors"
            raise ValueError(msg)
        vectors = np.ascontiguousarray(vectors, self._like.dtype)
        start = 0
        for schema, group in groupby(pieces, lambda piece: None if isinstance(piece, list) else piece.schema):
            records = list(group)
            end = start + sum(map(len, records))
            lost = {row - start: why for row, why in failures.items() if start <= row < end}
            about = msgspec.msgpack.encode(lost) if lost else b""
            if schema is None:
                packed = pack([record for piece in records for record in piece])
            else:
                packed = _written_stream(records)
            self._file.append(FRAME.pack(schema is not None, end - start, len(about), len(packed)) + about + packed)
            self._file.append(vectors[start:end])
            start = end
        self.rows += len(vectors)

    def sync(self) -> State:
        """Bring all of it to disk; what a spool needs to go on from here."""
        self._file.sync()
        return {"spooled": self.rows, "bytes": self._file.size, "checksum": self._file.checksum}

    def read(self, count: int) -> Iterator[Rows]:
        """All rows, `count` at a time, the last fewer. ConfigError: they are not what was written."""
        held: list[Rows] = []
        there = 0
        for frame in self._frames():
            rest = frame
            while there + len(rest[1]) >= count:
                first, rest = split(rest, count - there)
                yield _joined([*held, first])
                held, there = [], 0
            if len(rest[1]) or rest is frame:
                held.append(rest)
                there += len(rest[1])
        if held:
            yield _joined(held)

    def _frames(self) -> Iterator[Rows]:
        with self.path.open("rb") as file:
            while file.tell() < self._file.size:
                try:
                    frame = self._frame(file)
                except (msgspec.MsgspecError, struct.error, ValueError, ArithmeticError, LookupError):
                    msg = f"{self.path} is damaged: it does not hold what was written there; begin anew with --force"
                    raise ConfigError(msg) from None
                yield frame

    def _frame(self, file: BufferedReader) -> Rows:
        """The next one. Whatever its bytes are, no more is read or allocated than the file has."""
        import numpy as np

        batches, rows, about, packed = FRAME.unpack(file.read(FRAME.size))
        size = about + packed + rows * self._like.shape[1] * self._like.dtype.itemsize
        if file.tell() + size > self._file.size:
            raise ValueError(size)
        failures = msgspec.msgpack.decode(file.read(about), type=dict[int, str]) if about else {}
        pieces = _read_stream(file.read(packed)) if batches else [unpack(file.read(packed))]
        if sum(map(len, pieces)) != rows or any(row >= rows for row in failures):
            raise ValueError(rows)
        vectors: NDArray[Any] = np.empty((rows, self._like.shape[1]), self._like.dtype)
        if vectors.size:
            file.readinto(vectors.data)
        return pieces, vectors, failures

    def close(self) -> None:
        """Close the file. May be called twice."""
        self._file.close()


def pack(records: list[Record]) -> bytes:
    """Records as msgpack, every value with its type."""
    try:
        if all(type(each) is not dict or PLAIN.issuperset(map(type, each.values())) for each in records):
            return msgspec.msgpack.encode(records)
    except (OverflowError, UnicodeEncodeError):
        pass
    return msgspec.msgpack.encode([_spelled(dict(each)) for each in records])


def unpack(packed: bytes) -> list[Record]:
    """What `pack` was given."""
    return msgspec.msgpack.decode(packed, type=list[dict[str, Any]], ext_hook=_read)


def _read(code: int, data: memoryview) -> Any:
    return READ[code](bytes(data).decode())


def _spelled(value: Any) -> Any:
    """The value as msgpack has it; what has no type of its own is text."""
    if isinstance(value, dict):
        return {sayable(str(name)): _spelled(each) for name, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_spelled(each) for each in value]
    if hasattr(value, "tolist"):  # of numpy
        return _spelled(value.tolist())
    kind = next((each for each in type(value).__mro__ if each in SPELLINGS or each in PLAIN), str)
    return sayable(str(value)) if kind is str else _tagged(value, kind)


def _tagged(value: Any, kind: type) -> Any:
    if kind in PLAIN and (kind is not int or -(2**63) <= value < 2**64):
        return value
    if kind is dt.datetime and str(value) == "NaT":  # "not a time" of pandas
        return None
    code, spell, _ = SPELLINGS[kind]
    return msgspec.msgpack.Ext(code, spell(value).encode())


def _written_stream(batches: list[Any]) -> bytes:
    import pyarrow as pa

    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, batches[0].schema) as stream:
        for batch in batches:
            stream.write_batch(_compact(batch))
    written: bytes = out.getvalue().to_pybytes()
    return written


def _compact(batch: Any) -> Any:
    """The batch, with no more values in a dictionary than it has rows: each frame writes its own."""
    import pyarrow as pa

    for place, column in enumerate(batch.columns):
        if pa.types.is_dictionary(column.type) and len(column.dictionary) > len(batch):
            batch = batch.set_column(place, batch.schema.field(place), column.dictionary_decode().cast(column.type))
    return batch


def _read_stream(written: bytes) -> list[Records]:
    import pyarrow as pa

    try:
        with pa.ipc.open_stream(written) as stream:
            found: list[Records] = list(stream)
        for batch in found:
            batch.validate()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(str(error)) from None
    return found


def split(rows: Rows, count: int) -> tuple[Rows, Rows]:
    """The first so many rows, and the rest."""
    pieces, vectors, failures = rows
    head, tail, left = [], [], count
    for piece in pieces:
        head.append(piece[:left])
        tail.append(piece[left:])
        left = max(0, left - len(piece))
    return (
        (
            [piece for piece in head if len(piece)],
            vectors[:count],
            {at: why for at, why in failures.items() if at < count},
        ),
        (
            [piece for piece in tail if len(piece)],
            vectors[count:],
            {at - count: why for at, why in failures.items() if at >= count},
        ),
    )


def _joined(held: list[Rows]) -> Rows:
    import numpy as np

    pieces, failures, start = [], {}, 0
    for records, vectors, lost in held:
        pieces += records
        failures.update({start + row: why for row, why in lost.items()})
        start += len(vectors)
    return pieces, held[0][1] if len(held) == 1 else np.concatenate([vectors for _, vectors, _ in held]), failures
