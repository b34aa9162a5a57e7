"""What sinks that write files have in common."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from ..._hints import NDArray
from ...errors import ConfigError
from ..contract import Record, Sink, State

READ = 1024  # rows of a block that is read back

# Of a block: the keys (None: not asked for), the texts, and the vectors, of shape (n, d).
Known: TypeAlias = "tuple[list[Any] | None, list[str | None], NDArray[Any]]"  # text, or numpy would be loaded
Reader = Callable[[Record], Any]


class FileSink(Sink):
    """A sink that writes a file, or a folder of files. A symbolic link stays one: what it names is written."""

    def __init__(self, target: str, form: str) -> None:
        self.target, self.form = target, form
        self.place = Path(os.path.realpath(target))

    def exists(self) -> bool:
        """As `Sink.exists`."""
        return self.place.exists()

    def gone(self) -> bool:
        """As `Sink.gone`."""
        return not self.place.exists()

    @abstractmethod
    def room_needed(self, rows: int, like: NDArray[Any], records: int = 0) -> int:
        """Bytes on disk that the job takes at most: unfinished files and the output. An estimate.

        Args:
            rows: how many there are.
            like: no rows, of the vectors' type and width.
            records: bytes of the input, for outputs that keep it.
        """

    def read_back(self, text: str | Reader, key: str | Reader | None, like: NDArray[Any]) -> Iterator[Known]:
        """Keys, texts and vectors of the finished output, in order and in blocks; rows without a vector are left out.

        Args:
            text: the column or nested field, or what makes the text of a record.
            key: likewise; None: no keys.
            like: no rows, of the vectors' type and width.

        Raises:
            ConfigError: the output keeps no records, or is none that this sink has written.
        """
        del text, key, like
        msg = f"{self.target} holds no records, so that nothing tells which of them are in it already"
        raise ConfigError(msg)

    def check_rows(self, found: int, state: Mapping[str, Any]) -> None:
        """Refuse to add to an output that has other rows than the job left in it."""
        if found != state["rows"]:
            self.refuse(f"it has {found:,} rows, and was left with {state['rows']:,}")

    def check_vectors(self, state: Mapping[str, Any] | None, like: NDArray[Any]) -> None:
        """Refuse to add vectors of another type or width."""
        if state is not None and (state["width"], state["dtype"]) != (like.shape[1], _little(like.dtype)):
            has = f"it has vectors of {state['width']} {state['dtype']}"
            self.refuse(f"{has}, and these are of {like.shape[1]} {_little(like.dtype)}")

    def refuse(self, why: str) -> NoReturn:
        """Raise the ConfigError of an output, finished or not, that is not as this sink has left it."""
        msg = f"{self.target} is no output that rows can be added to: {why}"
        raise ConfigError(msg) from None


def described(like: NDArray[Any]) -> State:
    """Type and width of vectors, for a state."""
    return {"width": like.shape[1], "dtype": _little(like.dtype)}


def _little(dtype: Any) -> str:
    return str(dtype.newbyteorder("<").str)


def row_bytes(like: NDArray[Any]) -> int:
    """Bytes of a row of this type and width."""
    return int(like.shape[1] * like.dtype.itemsize)


def reader(field: str | Reader) -> Reader:
    """What gets a field out of a record: a name that is there as it is, else a path of names ("a.b")."""
    if callable(field):
        return field
    names = field.split(".")

    def read(record: Record) -> Any:
        if field in record:
            return record[field]
        found: Any = record
        for name in names:
            found = found.get(name) if isinstance(found, dict) else None
        return found

    return read
