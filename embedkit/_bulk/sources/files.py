"""Which files an input is, in which order, and what their names say of them."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from ...errors import ConfigError

INPUTS = {
    ".txt": "text", ".text": "text", ".md": "text", ".log": "text", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".json": "json", ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".parquet": "parquet", ".pq": "parquet",
    ".arrow": "arrow", ".arrows": "arrow", ".feather": "arrow", ".ipc": "arrow",
}  # fmt: skip
PACKED = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd"}
TOLD = "told by its beginning"  # the format of stdin, unless it is named
LEFT = (".report.json", ".failures.jsonl", ".job")  # what jobs leave beside their outputs


class Named(msgspec.Struct, frozen=True):
    """A file, by its name; "-" is stdin.

    Attributes:
        form: its format, or `TOLD`.
        sure: the format was asked for; otherwise the file's beginning has a say.
        size: in bytes; None for a pipe.
    """

    name: str
    form: str
    sure: bool
    size: int | None = None


def form_of(name: str, asked: str | None, known: Mapping[str, str], default: str, option: str) -> str:
    """The format asked for, else what the file's suffix says (before .gz or .zst), else (for `-`) the default."""
    form = asked or (default if name == "-" else known.get(suffix(name)))
    if form is None:
        msg = f"{name}: its suffix names no known format ({', '.join(known)}); pass {option}"
        raise ConfigError(msg)
    return form


def suffix(name: str) -> str:
    """The last suffix in small letters, of what is packed the one before that."""
    path = Path(name)
    return (Path(path.stem) if path.suffix.lower() in PACKED else path).suffix.lower()


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """To sort by: part-2 before part-10."""
    pieces = re.split(r"(\d+)", name)
    return [(1, int(each), "") if each.isdecimal() else (0, 0, each) for each in pieces if each], name


def found(names: Iterable[str], asked: str | None, unnamed: Callable[[str], object] | None = None) -> list[Named]:
    """The files that names, folders and patterns stand for, in order.

    A name that is there is itself, whatever its characters. Folders (with theirs) and patterns are sorted by name,
    numbers by value. What is hidden (. or _ before its name), what jobs leave, pipes, sockets and devices are no input,
    unless they are named.

    Args:
        names: of them.
        asked: the format of all; None: as their suffixes say.
        unnamed: is called with a file whose suffix says nothing, to refuse it in better words than that.

    Raises:
        ConfigError: a pattern or a folder has no file; a suffix is unknown; stdin is named twice.
        OSError: a file is not there, or cannot be read.
    """
    files: list[Named] = []
    for name in names:
        if name != "-" and Path(name).is_dir():
            files += [_named(each, asked, unnamed) for each in _in_folder(name)]
        elif name != "-" and not os.path.lexists(name) and glob.has_magic(name):
            files += [_named(each, asked, unnamed) for each in _matching(name)]
        else:
            files.append(_named(name, asked, unnamed))
    if [file.name for file in files].count("-") > 1:
        msg = "- (stdin) is named twice; it can be read only once"
        raise ConfigError(msg)
    return files


def _named(name: str, asked: str | None, unnamed: Callable[[str], object] | None) -> Named:
    size = None
    if name != "-":
        status = Path(name).stat()
        size = status.st_size if stat.S_ISREG(status.st_mode) else None
        if unnamed is not None and asked is None and size is not None and suffix(name) not in INPUTS:
            unnamed(name)
    form = form_of(name, asked, INPUTS, TOLD, "--input-format")
    return Named(name, form, asked is not None, size)


def _in_folder(folder: str) -> list[str]:
    names = []
    for place, folders, files in os.walk(folder, onerror=_raised):
        folders[:] = [each for each in folders if not _left_out(each)]
        names += [str(path) for each in files if not _left_out(each) and not _is_other(path := Path(place, each))]
    if not names:
        msg = f"{folder}: there is no file in this folder"
        raise ConfigError(msg)
    return sorted(names, key=natural)


def _raised(error: OSError) -> None:
    raise error


def _matching(pattern: str) -> list[str]:
    named = glob.glob(pattern, recursive=True)  # noqa: PTH207 (a pattern may begin with a root, which Path.glob refuses)
    names = [
        each for each in named if not _is_other(path := Path(each)) and not _left_out(path.name) and not _in_job(each)
    ]
    if not names:
        msg = f"{pattern}: no file matches"
        raise ConfigError(msg)
    return sorted(names, key=natural)


def _is_other(path: Path) -> bool:
    """A folder, a pipe, a socket or a device. A link to nothing is a file, that there is an error of."""
    return path.exists() and not path.is_file()


def _in_job(name: str) -> bool:
    return any(part.endswith(".job") for part in Path(name).parts[:-1])


def _left_out(name: str) -> bool:
    return name.startswith((".", "_")) or name.endswith(LEFT)
