"""What a job is made of: a source gives blocks of rows, a sink takes their vectors; both in order, each row once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec

from .._hints import NDArray

Record = dict[str, Any]
Records = Any  # list[Record] | pyarrow.RecordBatch: both have a length and slices
State = dict[str, Any]  # JSON


class Block(msgspec.Struct, frozen=True, gc=False):
    """Some rows of an input, one after the other.

    Attributes:
        texts: None where a row has none that can be used.
        records: what the texts came from.
        faults: row of the whole input → what is wrong with it.
        keys: of the rows; None where no key was asked for.
    """

    texts: list[str | None]
    records: Records
    faults: dict[int, str] = {}
    keys: list[Any] | None = None


class RowDigest:
    """A digest of texts and keys, row by row: equal for the same rows, however they are cut into blocks."""

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=16)
        self.rows: int = 0

    def update(self, texts: Sequence[str | None], keys: Sequence[Any] | None = None) -> None:
        """Add rows."""
        if keys is None:
            said = "".join(["n" if text is None else f"{len(text)}:{text}" for text in texts])
        else:
            pairs = zip(texts, keys, strict=True)
            said = "".join([f"{'n' if text is None else f'{len(text)}:{text}'}={key!r};" for text, key in pairs])
        self._hash.update(said.encode("utf-8", "surrogatepass"))
        self.rows += len(texts)

    def hex(self) -> str:
        """The digest of the rows so far, 32 hexadecimal digits."""
        return self._hash.hexdigest()


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """What looking through an input once has shown.

    Attributes:
        rows: how many there are.
        bad: those among them without a usable text.
        examples: row → what is wrong, of the first few of those.
        tokens: of all usable texts, an estimate.
        bytes: read, as they lie on disk.
        seconds: it took.
        digest: `RowDigest.hex` of all rows.
    """

    rows: int
    bad: int = 0
    examples: dict[int, str] = {}
    tokens: int = 0
    bytes: int = 0
    seconds: float = 0.0
    digest: str = ""


class Source(ABC):
    """Rows in, a block at a time. Read again, by this process or a later one, it gives the same rows.

    Attributes:
        aside: it is read in a thread of its own, since it may wait for a pipe or a disk. False for iterators of the
            caller's, which may belong to the thread they were made in (a database cursor does).
    """

    aside: bool = True

    @abstractmethod
    def blocks(self) -> Iterator[Block]:
        """Its rows, from the first. A row that has no usable text is in `faults`."""

    @abstractmethod
    def described(self) -> dict[str, Any]:
        """What it is, in JSON: names, formats, column or template, key. A job goes on only with an equal one."""

    @abstractmethod
    def scan(self, count_tokens: Callable[[str], int]) -> Scan | None:
        """Look through all of it without sending anything; None where it can be read once only."""


class Sink(ABC):
    """Takes rows in order, once each, and can go on after a crash from what `sync` said last.

    A job calls `begin`, then `write` and now and then `sync`, then `finish`; `close` at any end.

    Attributes:
        carried: how it keeps the input's record beside the vector: as "jsonl" (what JSON can say), as "parquet" (what
            Arrow can hold), or not at all (""): `write` gets records all the same then, and ignores them.
        resumable: a later run can go on with it. False for a pipe, whose reader may also keep `write` waiting.
        paced: it may be slower than the provider, so a job sends no more than it takes in about a second.
        target: the output's name, as the user gave it, without a password.
        form: what it writes: "npy", "parquet" …
        place: the path that the job's folder, its report and its list of failed rows are named after: of the output
            itself where that is a file or a folder.
    """

    carried: ClassVar[Literal["jsonl", "parquet", ""]] = "jsonl"
    resumable: ClassVar[bool] = True
    paced: ClassVar[bool] = False
    target: str = ""
    form: str = ""
    place: Path

    def expect(self, metadata: Mapping[str, str]) -> None:  # noqa: B027 (most outputs need not know)
        """Learn what will make the vectors, before anything else is asked.

        Args:
            metadata: as `finish` will be given it.

        Raises:
            ConfigError: the output cannot hold such vectors.
        """

    @abstractmethod
    def exists(self) -> bool:
        """Whether there is an output of this name that a new job would replace."""

    def gone(self) -> bool:
        """Whether a finished output has been taken away; False also where that cannot be told without a connection."""
        return False

    @abstractmethod
    def room_needed(self, rows: int, like: NDArray[Any], records: int) -> int | None:
        """Bytes on disk that a job takes here at most, unfinished files included: an estimate. None: nobody knows.

        Args:
            rows: how many there are.
            like: no rows, of the type and width to come.
            records: bytes of the input, for outputs that keep it.
        """

    @abstractmethod
    def begin(self, folder: Path, like: NDArray[Any], state: Mapping[str, Any] | None) -> None:
        """Start, or go on.

        Args:
            folder: the job's own, which is there and is removed when the job is finished. What is unfinished lies
                here, and nowhere else.
            like: no rows, of the type and width to come.
            state: what `sync` returned last, after a crash or not; whatever was written after it is undone (cut off,
                deleted, or overwritten later). None: a new output.
        """

    @abstractmethod
    def write(
        self, pieces: list[Records], vectors: NDArray[Any], failures: Mapping[int, str], keys: Sequence[Any] | None
    ) -> None:
        """Add rows: their records in pieces as they were read, vectors of shape (n, d), and why rows among them (by
        place, from 0) failed; those are NaN or zero in `vectors`.
        """

    @abstractmethod
    def sync(self) -> State:
        """Put on disk (fsync, commit) all that was written.

        Returns:
            What `begin` needs to go on from here, in JSON; its "rows" is the number of rows that are safe.
        """

    @abstractmethod
    def finish(self, metadata: Mapping[str, str]) -> None:
        """Make the output whole and move it to its name at once. Called after `sync`; called again after a crash in the
        middle of it (after `begin` with the state of that sync), it does what is missing.

        Args:
            metadata: of the job (model, options …), for outputs that can hold it.
        """

    @abstractmethod
    def reopen(self, folder: Path, state: Mapping[str, Any]) -> State:
        """Prepare to add rows to a finished output, without harming it: `begin` goes on with what this returns.

        Args:
            folder: of the new job.
            state: what the last `sync` of the job that made it returned.
        """

    @abstractmethod
    def finished(self, folder: Path, state: Mapping[str, Any]) -> bool:
        """Whether `finish` has made the output whole already, and only the job's folder was left."""

    @abstractmethod
    def close(self) -> None:
        """Close what is open, finished or not. May be called twice."""
