"""From an output's name to its sink."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ...errors import ConfigError
from ..contract import Sink
from ..disk import sayable
from .jsonl_sink import JsonlSink, StdoutSink
from .npy_sink import NpySink
from .table_sink import FolderSink, TableFileSink

STDOUT = "-"
FORMS = ("npy", "jsonl", "parquet", "arrow", "folder")
SUFFIXES = {
    ".npy": "npy", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow",
    ".feather": "arrow",
}  # fmt: skip
STORE = re.compile("(lancedb|qdrant|postgres|postgresql|sqlite|duckdb):")


def open_sink(
    target: str,
    form: str | None = None,
    *,
    column: str = "text",
    template: str | None = None,
    key: str | None = None,
) -> Sink:
    """The sink of an output. Nothing is made, opened or imported for it yet.

    Args:
        target: a file; a folder (one that is there, or a name that ends in "/"); "-", stdout; the URL of a store.
        form: one of `FORMS`; None: told by the name.
        column: the text's.
        template: what the texts are made of instead.
        key: the key's column, for stores.

    Raises:
        ConfigError: the name is empty or not UTF-8, tells no form, or contradicts the one that is asked for; its folder
            is missing.
    """
    if not target:
        raise ConfigError("the name of the output is empty: name a file, a folder, a store, or - for stdout")
    if target != sayable(target):
        msg = f"{sayable(target)}: the name is not UTF-8, as most formats and databases need it; choose another"
        raise ConfigError(msg)
    if STORE.match(target):
        if form is not None:
            msg = f"{target.partition(':')[0]}: is a store, and takes no --output-format"
            raise ConfigError(msg)
        stores = import_module("..stores", __package__)
        found: Sink = stores.open_store(target, column=column, template=template, key=key)
        return found
    if target == STDOUT:
        if form not in (None, "jsonl"):
            msg = f"{form} does not go to stdout; name a file, or leave --output-format out"
            raise ConfigError(msg)
        return StdoutSink()
    made = _form(target, form)
    _check_place(target, made)
    makers: dict[str, Callable[[], Sink]] = {
        "npy": lambda: NpySink(target),
        "jsonl": lambda: JsonlSink(target),
        "parquet": lambda: TableFileSink(target, "parquet", column=column),
        "arrow": lambda: TableFileSink(target, "arrow", column=column),
        "folder": lambda: FolderSink(target, column=column),
    }
    return makers[made]()


def _form(target: str, asked: str | None) -> str:
    """Which of `FORMS`."""
    if asked is not None and asked not in FORMS:
        msg = f"--output-format {asked}: there is {', '.join(FORMS)}"
        raise ConfigError(msg)
    suffixed = SUFFIXES.get(Path(target).suffix.lower())
    if _ends_as_folder(target) or (Path(target).is_dir() and not suffixed):
        if asked in (None, "folder", "parquet"):
            return "folder"
        msg = f"{target} is a folder, and those hold parts in Parquet, not {asked}: name a file"
        raise ConfigError(msg)
    found = asked or suffixed
    if found is None:
        msg = (
            f"{target}: its suffix names no known format ({', '.join(SUFFIXES)}); pass --output-format, or end the "
            "name in / for a folder of Parquet files"
        )
        raise ConfigError(msg)
    return found


def _ends_as_folder(target: str) -> bool:
    return target.endswith(("/", os.sep))


def _check_place(target: str, form: str) -> None:
    path = Path(os.path.realpath(target))
    if form == "folder" and path.exists() and not path.is_dir():
        msg = f"{target} is a file, not a folder"
        raise ConfigError(msg)
    if form != "folder" and path.is_dir():
        msg = f"{target} is a folder: name a file, or end the name in / for a folder of Parquet files"
        raise ConfigError(msg)
    if form != "folder" and path.exists() and not path.is_file():
        msg = f"{target} is not a regular file (- is stdout)"
        raise ConfigError(msg)
    if not path.parent.is_dir():
        msg = f"{target}: there is no folder {(path if Path(target).is_symlink() else Path(target)).parent}"
        raise ConfigError(msg)
