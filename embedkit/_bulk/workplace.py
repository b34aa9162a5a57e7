"""Where a job keeps what is unfinished: the folder `OUT.job`, held by one process at a time."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .disk import sayable, sync_file, sync_folder
from .journal import NAME, beside
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
        if not place.name:
            msg = f"{output} is the root of the file system, which has no place beside it for a job: name a folder"
            raise ConfigError(msg)
        if str(place) != sayable(str(place)):
            msg = f"{sayable(output)}: the folder that it is in has a path that is not UTF-8; choose another"
            raise ConfigError(msg)
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
            ConfigError: another process works on this output; there is no room in a name for what is left beside it.
            OSError: the folder cannot be made.
        """
        from filelock import FileLock, Timeout

        parent = self.place.parent
        if not parent.is_dir():
            msg = f"{self.output}: there is no folder {parent}"
            raise ConfigError(msg)
        self._check_length(parent)
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

    def _check_length(self, parent: Path) -> None:
        """Refuse a name that has no room for what is written beside the output, the last of it at the very end."""
        longest = beside(self.report).name
        spare = os.pathconf(parent, "PC_NAME_MAX") - len(os.fsencode(longest)) if hasattr(os, "pathconf") else 0
        if spare < 0:
            msg = (
                f"{self.output}: a name that is longer than that, {longest}, has {-spare} bytes more than the file "
                "system takes: give the output a shorter one"
            )
            raise ConfigError(msg)

    def sweep(self) -> None:
        """Remove the folder that a job of a finished output has left if it was killed at its very end."""
        if not self.folder.is_dir() or self.unfinished():
            return
        with suppress(ConfigError, OSError):  # another job has begun in it; nothing may be removed there
            self.enter()
            self.remove()

    def clear(self) -> None:
        """Remove what an unfinished job has left, but the lock. The journal goes first: it speaks of the rest."""
        if (self.folder / NAME).is_file():
            (self.folder / NAME).unlink()
            sync_folder(self.folder)
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
        """Put the list of failed rows beside the output, or take an old one away. The job keeps its own: where it is
        killed before its end, it looks for it.
        """
        inside, copied = self.folder / FAILURES, self.folder / f"{FAILURES}.new"
        if failed and inside.exists():
            shutil.copyfile(inside, copied)
            sync_file(copied)
            copied.replace(self.failures)
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
