"""Where a job keeps what is unfinished: the folder `OUT.job`, held by one process at a time."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .journal import NAME
from .writer import FAILURES

LOCK = "lock"


class Workplace:
    """Names around an output, and the lock on its folder.

    Attributes:
        output: the output as it was named.
        folder: the job's own: journal, lock and what is unfinished.
        report, failures: what a finished job leaves beside the output.
    """

    def __init__(self, output: str, place: Path) -> None:
        self.output = output
        self.place = place
        self.folder = place.with_name(f"{place.name}.job")
        self.report = place.with_name(f"{place.name}.report.json")
        self.failures = place.with_name(f"{place.name}.failures.jsonl")
        self._lock: Any = None

    def unfinished(self) -> bool:
        """Whether a job has begun here, and not ended. A folder without a journal is what a killed one left at its very
        end.
        """
        journal = self.folder / NAME
        return journal.exists() and journal.stat().st_size > 0

    def enter(self) -> None:
        """Make the folder and take its lock.

        Raises:
            ConfigError: another process works on this output.
            OSError: the folder cannot be made.
        """
        from filelock import FileLock, Timeout

        parent = self.place.parent
        if not parent.is_dir():
            msg = f"{self.output}: there is no folder {parent}"
            raise ConfigError(msg)
        while True:
            self.folder.mkdir(exist_ok=True)
            lock = FileLock(self.folder / LOCK)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                msg = f"{self.output}: another job is writing it (it holds {self.folder / LOCK}); wait for its end"
                raise ConfigError(msg) from None
            except FileNotFoundError:
                continue  # the job that had it has just finished, and its folder is gone
            if (self.folder / LOCK).exists():
                self._lock = lock
                return
            lock.release()

    def clear(self) -> None:
        """Remove what an unfinished job has left, but the lock."""
        for path in self.folder.iterdir():
            if path.name == LOCK:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def copy_failures(self) -> int:
        """Put the list of failed rows of a finished job into the folder; its size in bytes."""
        if not self.failures.exists():
            return 0
        return Path(shutil.copyfile(self.failures, self.folder / FAILURES)).stat().st_size

    def tidy(self, *, failed: bool) -> None:
        """Put the list of failed rows beside the output, or take an old one away."""
        inside = self.folder / FAILURES
        if failed and inside.exists():
            inside.replace(self.failures)
        elif not failed:
            self.failures.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder. The lock goes last: until then nobody else can take the folder for an old one."""
        self.clear()
        lock, self._lock = self._lock, None
        (self.folder / LOCK).unlink(missing_ok=True)
        if lock is not None:
            lock.release()
        (self.folder / LOCK).unlink(missing_ok=True)
        try:
            self.folder.rmdir()
        except OSError:  # another job has begun in it meanwhile
            return

    def leave(self) -> None:
        """Give the lock back. The folder stays, unless there is nothing in it."""
        if self._lock is not None and {path.name for path in self.folder.iterdir()} <= {LOCK}:
            self.remove()
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()
