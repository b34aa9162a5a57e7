"""Files that outlast a crash, and errors that name them.

What is said to be on disk is there in this order: the bytes, the file (fsync), its name (rename), the name's folder
(fsync). A rename within a file system is atomic: https://pubs.opengroup.org/onlinepubs/9799919799/functions/rename.html
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec

from ..errors import ConfigError

PIECE = 1 << 30  # bytes copied at once
READ = 1 << 20  # bytes read at once


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Every OSError within names this file, where it names none: a full disk is met by writes, which know no name."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        number = error.errno or errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from error


class AppendedFile:
    """A file that only grows, and can be cut back to a size that was on disk.

    A checksum says whether what is kept is still what was written: a disk, a copy or another program may have changed
    it without changing its size. Of 300 MB it takes 0.05 s of CPU.

    After an error nothing more is taken: a second fsync after one that failed may say that all is well, though the
    pages are gone (https://www.usenix.org/conference/atc20/presentation/rebello).

    Args:
        path: of the file.
        size: what is kept of it, in bytes; None or 0 begins a new one.
        checksum: what `checksum` was at that size; None: nobody knows, and it begins at this size.

    Raises:
        ConfigError: it is shorter than that, or what is kept has another checksum. It is left as it is.
        OSError: it cannot be opened, read, written or brought to disk; names it.
    """

    def __init__(self, path: Path, size: int | None = None, checksum: Sequence[int] | None = None) -> None:
        self.path, self.size = path, size or 0
        self._from, self._crc = checksum if self.size and checksum else (self.size, 0)
        self._error: OSError | None = None
        self._named = self.size > 0
        if self.size:
            _check_size(path, self.size)
            with naming(path):
                _check_bytes(path, self._from, self.size, self._crc)
        with naming(path):
            self._file = path.open("r+b" if self.size else "wb", buffering=0)
            self._file.truncate(self.size)
            self._file.seek(self.size)

    @property
    def checksum(self) -> list[int]:
        """A byte, and the CRC-32 of all bytes from that one on."""
        return [self._from, self._crc]

    def append(self, data: Any, *, changes: bool = False) -> None:
        """Write all of it: bytes, or an array in C order. `changes`: `put` will write over it, so the checksum begins
        after it.
        """
        with self._lasting_error():
            rest = memoryview(data)
            self.size += rest.nbytes
            if rest.nbytes:  # an empty view cannot be cast
                rest = rest.cast("B")
            if changes:
                self._from, self._crc = self.size, 0
            else:
                self._crc = crc32(rest, self._crc)
            while rest.nbytes:  # one call may take less than it is given
                rest = rest[self._file.write(rest) :]

    def put(self, data: bytes, place: int) -> None:
        """Write over what stands there."""
        with self._lasting_error():
            self._file.seek(place)
            self._file.write(data)
            self._file.seek(self.size)

    def sync(self) -> None:
        """Bring it to disk; the first time its name, too."""
        with self._lasting_error():
            os.fsync(self._file.fileno())
            if not self._named:
                sync_folder(self.path.parent)
                self._named = True

    def close(self) -> None:
        """Close it. May be called twice."""
        self._file.close()

    @contextmanager
    def _lasting_error(self) -> Iterator[None]:
        if self._error is not None:
            raise self._error
        try:
            with naming(self.path):
                yield
        except OSError as error:
            self._error = error
            raise


def sync_file(path: Path) -> None:
    """Bring a file to disk that somebody else wrote and closed."""
    with naming(path), path.open("r+b") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Bring the names in a folder to disk; Windows does so by itself, and opens no folder."""
    if os.name == "nt":
        return
    with naming(path):
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def copy(source: Path, target: Path) -> None:
    """A copy, on disk when this returns; the file system shares the blocks where it can."""
    with source.open("rb") as read, naming(target), target.open("wb") as written:
        try:
            while os.copy_file_range(read.fileno(), written.fileno(), PIECE):
                pass
        except (AttributeError, OSError) as error:  # not on this system, or not between these two file systems
            if getattr(error, "errno", None) not in (None, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            read.seek(0)
            written.seek(0)
            shutil.copyfileobj(read, written, 1 << 20)
        written.flush()
        os.fsync(written.fileno())


def move(source: Path, target: Path) -> None:
    """Give a file that is on disk its name at once, and bring the name to disk. Into another file system (a folder of
    the output's that is mounted) it is copied, under a hidden name, and gets its own name there.
    """
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            if not source.exists():
                raise
            raise OSError(error.errno, error.strerror, str(target)) from error  # it names the source, which is well
        beside = target.with_name(f".{target.name}.part")
        copy(source, beside)
        beside.replace(target)
        sync_folder(target.parent)
        source.unlink()
        return
    sync_folder(target.parent)


def check_folder(path: Path) -> None:
    """Refuse a folder in which no file can be made, before anything is paid for.

    Raises:
        OSError: as making one would.
    """
    if not path.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(path))
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "no file can be made there", str(path))


def sayable(text: str) -> str:
    """The text without halves of surrogate pairs, which UTF-8 cannot hold."""
    return text.encode("utf-8", "backslashreplace").decode()


def to_json(value: Any) -> bytes:
    """As JSON, in which each byte of a file's name that is not UTF-8 is named as Python names it."""
    try:
        return msgspec.json.encode(value, enc_hook=str)
    except UnicodeEncodeError:
        return msgspec.json.encode(_sayable_parts(msgspec.to_builtins(value, enc_hook=str)))


def _sayable_parts(value: Any) -> Any:
    if isinstance(value, str):
        return sayable(value)
    if isinstance(value, dict):
        return {_sayable_parts(name): _sayable_parts(part) for name, part in value.items()}
    return [_sayable_parts(part) for part in value] if isinstance(value, (list, tuple)) else value


def checksum_of(path: Path, start: int = 0, stop: int | None = None) -> int:
    """The CRC-32 of a file, or of its bytes from `start` to `stop`."""
    crc, left = 0, (path.stat().st_size if stop is None else stop) - start
    with path.open("rb") as file:
        file.seek(start)
        while left > 0 and (piece := file.read(min(READ, left))):
            crc, left = crc32(piece, crc), left - len(piece)
    return crc


def _check_bytes(path: Path, start: int, stop: int, known: int) -> None:
    if checksum_of(path, start, stop) != known:
        msg = (
            f"{path} is damaged: its first {stop:,} bytes are not those that were written, although none is missing; "
            "something else has changed them since; begin anew with --force"
        )
        raise ConfigError(msg)


def _check_size(path: Path, size: int) -> None:
    there = path.stat().st_size if path.exists() else -1
    if there < size:
        what = "is gone" if there < 0 else f"holds {there} bytes, and held {size}"
        msg = f"{path} {what}: something else has changed it since; begin anew with --force"
        raise ConfigError(msg)
