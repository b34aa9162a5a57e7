"""The journal of a job: how far it has come, in a file that a crash cannot spoil.

A line is a JSON value behind its CRC-32, and is valid by itself; what a crash has cut off is no line. The first is the
header: what the job is. Each other line says what is safe from then on.

The order of writes, which makes that true: (1) the sink's rows, then the list of failed rows, are written and fsynced;
(2) the line that speaks of them is appended and fsynced. A crash between the two leaves rows that no line speaks of,
and the sink undoes them when it begins again.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec

from ..errors import ConfigError
from .contract import State
from .disk import naming, sync_folder, to_json

FORMAT = 1  # of the journal and of what lies beside it; another one is refused
NAME = "journal.jsonl"


class Totals(msgspec.Struct, kw_only=True):
    """What a job has done so far, all its runs together. `tokens` and `cost` are None where the provider says none;
    `cached` rows came from a cache.
    """

    rows: int = 0
    failed: int = 0
    tokens: int | None = 0
    cost: float | None = 0.0
    requests: int = 0
    retries: int = 0
    cached: int = 0
    seconds: float = 0.0


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the journal: so many rows are safe.

    Attributes:
        digest: `RowDigest.hex` of these rows.
        width: values per row; 0: no row has a vector yet.
        state: what the sink needs to go on.
        failures, failures_checksum: bytes of the list of failed rows, and `AppendedFile.checksum` of it; None: an
            earlier embedkit wrote none.
        complete: these are all rows; what is missing is to move the output to its name.
    """

    totals: Totals
    digest: str = ""
    width: int = 0
    state: State = {}
    failures: int = 0
    failures_checksum: list[int] | None = None
    complete: bool = False


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line: what the job is.

    Attributes:
        format: of the journal.
        identity: what must be the same for a job to go on, by name.
        rows, digest: of the whole input, where it was looked through; None and "" elsewhere.
        input: what was read, for the report.
        version: of embedkit, for the report only.
        by_key: only records are sent that a finished output does not have under their key.
        replaces: there was an output when the job began, which it was to replace or to add to.
    """

    identity: dict[str, Any]
    rows: int | None = None
    digest: str = ""
    input: dict[str, Any] = {}
    version: str = ""
    started: float = 0.0
    format: int = FORMAT
    by_key: bool = False
    replaces: bool = True


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line. `batch`: number and state of a job at the provider; `run`: when another run began. What must be true
    together is one line: a job that goes on after a finished one begins with header and checkpoint.
    """

    header: Header | None = None
    checkpoint: Checkpoint | None = None
    batch: tuple[int, dict[str, Any]] | None = None
    run: float | None = None


class Journal:
    """A journal, read to its last whole line, and open for more.

    Attributes:
        header: its first line; None in a new one.
        last: the newest checkpoint.
        before: what a finished job had done that this one goes on after.
        history: (seconds, rows, tokens, retries) of each.
        batches: number → state, of jobs at the provider.
        runs: how often the job was started, this run not counted.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.header: Header | None = None
        self.last: Checkpoint | None = None
        self.before = Totals()  # of the finished job that this one adds to
        self.history: list[tuple[float, int, int | None, int]] = []
        self.batches: dict[int, dict[str, Any]] = {}
        self.runs = 0
        self._file: Any = None
        self._lock = threading.Lock()
        if self.path.exists():
            self._read()

    def _read(self) -> None:
        data = self.path.read_bytes()
        kept = 0
        for raw in data.splitlines(keepends=True):
            line = decoded(raw)
            if line is None:
                break  # what follows was written after it, and may speak of what is not there
            kept += len(raw)
            self._take(line)
        # The header is on disk before any row is: alone, a part of it is what a crash has left.
        if self.header is None and (b"\n" in data or self._has_company()):
            msg = f"{self.path}: no journal of this format can be read in it; --force begins anew"
            raise ConfigError(msg)
        if kept < len(data):
            with self.path.open("r+b") as file:
                file.truncate(kept)
                os.fsync(file.fileno())

    def _has_company(self) -> bool:
        """Whether there is anything in the job's folder beside the journal and the lock, which is empty."""
        others = (path for path in self.path.parent.iterdir() if path != self.path)
        return any(path.is_dir() or path.stat().st_size for path in others)

    def _take(self, line: Line) -> None:
        if line.header is not None:
            self.header = line.header
        if line.batch is not None:
            self.batches[line.batch[0]] = line.batch[1]
        if line.run is not None:
            self.runs += 1
        if line.checkpoint is not None:
            self.last = line.checkpoint
            totals = line.checkpoint.totals
            if line.header is not None:
                self.before = totals
            self.history.append((totals.seconds, totals.rows, totals.tokens, totals.retries))

    def append(self, line: Line) -> None:
        """Write a line; it is on disk when this returns. May be called from several threads."""
        with self._lock:
            if self._file is None and not self.path.exists():
                # Whole or not at all: what lies beside it already is no reason to doubt it.
                replace_file(self.path, encoded(line))
                self._take(line)
                return
            if self._file is None:
                self._file = self.path.open("ab", buffering=0)
            with naming(self.path):
                self._file.write(encoded(line))
                os.fsync(self._file.fileno())
            self._take(line)

    @property
    def announced(self) -> int:
        """The row after the last one that is in a job at the provider, or was to be."""
        return max((record["start"] + record["rows"] for record in self.batches.values()), default=0)

    def jobs_under_way(self) -> list[str]:
        """Ids, or else our names, of jobs at the provider with rows that are not written yet."""
        done = self.last.totals.rows if self.last is not None else 0
        left = [record for record in self.batches.values() if record["start"] + record["rows"] > done]
        rounds = [each for record in left for each in record["rounds"]]
        return [each.get("job") or each["key"] for each in rounds if each.get("job") or each.get("asked")]

    def jobs_at_the_provider(self) -> list[str]:
        """Ids, or else our names, of those jobs whose answers have not been fetched: they may be running there."""
        last = [record["rounds"][-1] for record in self.batches.values() if record["rounds"]]
        left = [each for each in last if not each.get("fetched")]
        return [each.get("job") or each["key"] for each in left if each.get("job") or each.get("asked")]

    def get(self, number: int) -> dict[str, Any] | None:
        """The record of a job at the provider; None: there is none."""
        return self.batches.get(number)

    def put(self, number: int, record: dict[str, Any]) -> None:
        """Keep the record of a job at the provider; it is on disk when this returns."""
        self.append(Line(batch=(number, record)))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def encoded(line: Line) -> bytes:
    """A line as it is written."""
    said = to_json(line)
    return b"%08x %b\n" % (crc32(said), said)


def decoded(raw: bytes) -> Line | None:
    """A line that was written whole; None for any other bytes."""
    said = raw[9:-1]
    if raw[-1:] != b"\n" or raw[:9] != b"%08x " % crc32(said):
        return None
    try:
        return msgspec.json.decode(said, type=Line)
    except msgspec.DecodeError:
        return None


def beside(path: Path) -> Path:
    """Where a small file is written before it gets its name."""
    return path.with_name(f".{path.name}.new")


def replace_file(path: Path, data: bytes) -> None:
    """Write a small file whole: a reader sees the old one or the new one, also after a crash."""
    new = beside(path)
    try:
        with naming(path), new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
