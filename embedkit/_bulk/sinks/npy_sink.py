"""One matrix as `.npy`, which maps into memory, finished or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..._hints import NDArray
from ...errors import ConfigError
from ..contract import Records, State
from ..disk import AppendedFile, check_folder, copy, move
from .file_sink import FileSink, described, row_bytes

HEADER = 128  # bytes (format 1.0, NEP 1): rows are aligned, and any shape has room


class NpySink(FileSink):
    """Row i of the matrix is row i of the input; NaN, or zero in integers, where it failed.

    Rows are appended to a file in the job's folder. `sync` brings them and a header with their number to disk, so that
    an unfinished file can be read, too; `begin` cuts off what came after. `finish`: header, fsync, rename, fsync of the
    folder.
    """

    carried: ClassVar[Literal["jsonl", "parquet", ""]] = ""
    _file: AppendedFile | None = None

    def __init__(self, target: str) -> None:
        super().__init__(target, "npy")

    def begin(self, folder: Path, like: NDArray[Any], state: Mapping[str, Any] | None) -> None:
        """As `Sink.begin`. ConfigError: the file is not as it was, or holds rows of another type or width."""
        check_folder(self.place.parent)
        self._like = like[:0].astype(like.dtype.newbyteorder("<"))
        self._rows = 0 if state is None else int(state["rows"])
        self.check_vectors(state, like)
        size = HEADER + self._rows * row_bytes(like)
        self._file = AppendedFile(_unfinished(folder), *((size, state.get("checksum")) if state is not None else ()))
        if state is None:
            self._file.append(self._header(), changes=True)

    def _header(self) -> bytes:
        kind, shape = self._like.dtype.str, (self._rows, self._like.shape[1])
        text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
        return b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little") + text.ljust(HEADER - 11).encode() + b"\n"

    def write(
        self, pieces: list[Records], vectors: NDArray[Any], failures: Mapping[int, str], keys: Sequence[Any] | None
    ) -> None:
        """Append the vectors."""
        import numpy as np

        del pieces, failures, keys
        self._open.append(np.ascontiguousarray(vectors, self._like.dtype))
        self._rows += len(vectors)

    def sync(self) -> State:
        """Bring rows and header to disk."""
        self._open.put(self._header(), 0)
        self._open.sync()
        return {"rows": self._rows, **described(self._like), "checksum": self._open.checksum}

    def finish(self, metadata: Mapping[str, str]) -> None:
        """As `Sink.finish`; the format holds no metadata."""
        del metadata
        self.sync()
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
        del records
        return HEADER + rows * row_bytes(like)

    def reopen(self, folder: Path, state: Mapping[str, Any]) -> State:
        """As `Sink.reopen`: a copy of the file. ConfigError: it is not as the job left it."""
        import numpy as np

        with self.place.open("rb") as file:
            try:
                if np.lib.format.read_magic(file) != (1, 0):  # the header of another version cannot be read as this one
                    self.refuse("embedkit has not written it")
                (rows, width), by_column, dtype = np.lib.format.read_array_header_1_0(file)
            except ValueError as error:
                if isinstance(error, ConfigError):
                    raise
                self.refuse(str(error))
            ours = file.tell() == HEADER and not by_column
        if not ours:
            self.refuse("embedkit has not written it")
        self.check_rows(rows, state)
        copy(self.place, _unfinished(folder))
        return {"rows": rows, "width": width, "dtype": dtype.str}

    @property
    def _open(self) -> AppendedFile:
        if self._file is None:
            msg = "begin comes first"
            raise RuntimeError(msg)
        return self._file


def _unfinished(folder: Path) -> Path:
    return folder / "vectors.npy"
