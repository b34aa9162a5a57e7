"""Files out, for the command line: rows are written a part at a time, in order.

Records come in pieces as they were read: a list of dicts, or a `pyarrow.RecordBatch`. A file's name is its maker's
business: what is written here lies in a folder of its own until all of it is there.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from ..codec.vector_math import missing_value
from . import arrow_values
from .sources import ADDED, Line
from .stdio import own
from .tables import _inexact_as_floats, _widened, fitted, table

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

    from .sources import Records

OUTPUTS = {".npy": "npy", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet"}
GROUP_BYTES = 64 * 1024 * 1024  # vectors per Parquet row group


class Output(ABC):
    """Takes rows in order. Those before the first success wait until the width is known.

    Args:
        like: no rows of the type to come, and of its width where that is known already (0: it is not).
    """

    whole = True  # it keeps the input's columns
    path: Path | None = None  # of what has been written; None: stdout
    like: NDArray[Any]

    def __init__(self, like: NDArray[Any]) -> None:
        self.like = like
        self._held: list[tuple[list[Records], NDArray[Any], Collection[int]]] = []

    def write(self, pieces: list[Records], vectors: NDArray[Any], failed: Collection[int] = ()) -> None:
        """Add rows; `failed` are those among them without a vector."""
        import numpy as np

        if not self.like.shape[1]:
            self.like = vectors[:0]
        self._held.append((pieces, vectors, failed))
        if self.like.shape[1] or not len(vectors):
            held, self._held = self._held, []
            for records, rows, missing in held:
                fits = rows.shape[1] == self.like.shape[1]
                self._put(
                    records,
                    rows if fits else np.full((len(rows), self.like.shape[1]), missing_value(rows), rows.dtype),
                    missing,
                )

    @abstractmethod
    def _put(self, pieces: list[Records], vectors: NDArray[Any], failed: Collection[int]) -> None: ...

    @abstractmethod
    def finish(self) -> None:
        """Write what is still missing."""

    @abstractmethod
    def close(self) -> None:
        """Close the file, finished or not."""


class Npy(Output):
    """One matrix. Its header is always 128 bytes long (format 1.0, NEP 1) and gets its shape at the end."""

    whole = False

    def __init__(self, folder: Path, column: str, like: NDArray[Any]) -> None:  # noqa: ARG002 (outputs are made alike)
        super().__init__(like)
        self.path: Path | None = folder / "vectors.npy"
        self._file = self.path.open("wb")
        self._count = 0
        self._header()

    def _header(self) -> None:
        kind = self.like.dtype.newbyteorder("<").str
        shape = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': ({self._count}, {self.like.shape[1]}), }}"
        self._file.seek(0)
        self._file.write(b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + shape.ljust(117).encode() + b"\n")

    def _put(self, pieces: list[Records], vectors: NDArray[Any], failed: Collection[int]) -> None:  # noqa: ARG002
        import numpy as np

        self._file.write(np.ascontiguousarray(vectors, vectors.dtype.newbyteorder("<")).data)
        self._count += len(vectors)

    def finish(self) -> None:
        """Patch the header."""
        self._header()
        _settle(self._file)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Jsonl(Output):
    """The input's record and its embedding, one JSON object per line; null in a row that failed.

    A record of JSONL is written as its line says, to the letter. Components
    of float32 are the shortest text that reads back to the same float32.
    """

    def __init__(self, folder: Path | None, column: str, like: NDArray[Any]) -> None:  # noqa: ARG002
        super().__init__(like)
        self.path: Path | None = None if folder is None else folder / "rows.jsonl"
        self._file = own(sys.stdout, "wb") if self.path is None else self.path.open("wb")

    def _put(self, pieces: list[Records], vectors: NDArray[Any], failed: Collection[int]) -> None:
        import numpy as np
        import orjson

        records = (
            record for piece in pieces for record in (piece if isinstance(piece, list) else arrow_values.records(piece))
        )
        lines = bytearray()
        for row, (record, vector) in enumerate(zip(records, np.ascontiguousarray(vectors), strict=True)):
            fields = record.source if isinstance(record, Line) else msgspec.json.encode(record, enc_hook=str)
            values = b"null" if row in failed else orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY)
            lines += b'%b%b"%b":%b}\n' % (fields[:-1], b"," if record else b"", ADDED.encode(), values)
        rest = memoryview(lines)
        while rest:  # an unbuffered handle may take less than it is given
            rest = rest[self._file.write(rest) :]

    def finish(self) -> None:
        """Do nothing: every row is written already."""
        if self.path is not None:
            _settle(self._file)

    def close(self) -> None:
        """Close the file; stdout stays open."""
        if self.path is not None:
            self._file.close()


class Parquet(Output):
    """The input's columns and `embedding`, a list of fixed size. A row that failed is NaN there, or zero in integers,
    as in a matrix: a null among lists of fixed size makes a file that pyarrow cannot read (up to version 23, tried).

    Columns of JSONL have the type of their values. Where a later row needs a wider one a new file is begun, and all are
    joined at the end. A column whose values have no type in common becomes text: strings as they are, the rest as JSON.
    """

    def __init__(self, folder: Path, column: str, like: NDArray[Any]) -> None:
        super().__init__(like)
        self._folder = folder
        self._column = column
        self._pieces: list[Records] = []
        self._vectors: list[NDArray[Any]] = []
        self._files: list[Path] = []
        self._schema: pa.Schema | None = None
        self._exact: set[str] = set()  # columns with whole numbers that no float64 holds
        self._writer: Any = None

    def _put(self, pieces: list[Records], vectors: NDArray[Any], failed: Collection[int]) -> None:  # noqa: ARG002
        self._pieces += pieces
        self._vectors.append(vectors)
        if sum(each.nbytes for each in self._vectors) >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        import numpy as np
        import pyarrow as pa

        values = np.concatenate(self._vectors or [self.like])
        found = table(self._pieces, self._column)
        added: pa.Array = pa.array([], self._kind())
        if len(values):
            added = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=self._kind())
        self._exact |= _inexact_as_floats(found)
        schema = found.schema if self._schema is None else _widened(self._schema, found.schema, self._exact)
        if schema != self._schema:
            self._begin(schema)
        self._writer.write_table(fitted(found, self._schema).append_column(ADDED, added))
        self._pieces, self._vectors = [], []

    def _kind(self) -> pa.DataType:
        import pyarrow as pa

        size = self.like.shape[1] or -1  # -1: of any size, for no rows of no known width
        return pa.list_(pa.from_numpy_dtype(self.like.dtype), size)

    def _begin(self, schema: pa.Schema) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._writer is not None:
            self._writer.close()
        self._schema = schema
        self._files.append(self._folder / f"{len(self._files)}.parquet")
        added = pa.field(ADDED, self._kind())
        self._writer = pq.ParquetWriter(self._files[-1], schema.append(added), use_dictionary=schema.names)

    def finish(self) -> None:
        """Write the last rows; join the files."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._vectors or self._schema is None:
            self._flush()
        earlier = self._files[:] if len(self._files) > 1 else []
        if earlier:
            self._begin(self._schema)
        for path in earlier:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(4096):
                    found = pa.Table.from_batches([batch])
                    rows = fitted(found.drop_columns([ADDED]), self._schema)
                    self._writer.write_table(rows.append_column(ADDED, found.column(ADDED)))
        self._writer.close()
        self.path: Path | None = self._files[-1]

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


def _settle(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


FORMS: dict[str, type[Npy | Jsonl | Parquet]] = {"npy": Npy, "jsonl": Jsonl, "parquet": Parquet}
