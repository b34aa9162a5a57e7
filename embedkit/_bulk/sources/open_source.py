"""What a job reads: files of every format, and rows that a program has, all as blocks of rows in bounded memory.

Rows count from 0, lines from 1. A blank line of text is a row with an empty text; in JSONL and CSV it is no row. What
an input cannot be is a `ConfigError` that names its place. A row without a usable text is a failed row, unless such
rows are to be refused. What is beside the text is carried on as it came.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ..contract import Source
from .fields import Fields, parse_template
from .file_source import FileSource, refuse_unnamed
from .files import INPUTS, TOLD, form_of, found
from .format_detection import FORMATS
from .memory_source import source_of
from .rows import ADDED, BLOCK, How, Line
from .streams import encoding_named

SOME = 16  # strings looked at, to see whether they are names of files


def open_source(  # noqa: PLR0913 (a name for each way in which inputs differ)
    inputs: Any,
    *,
    column: str = "text",
    template: str | None = None,
    key: str | None = None,
    key_option: str = "--key",
    form: str | None = None,
    delimiter: str | None = None,
    encoding: str = "utf-8",
    limit: int | None = None,
    carried: str = "",
    empty: bool = True,
    skip: bool = True,
) -> Source:
    r"""What a job reads.

    Args:
        inputs: a file, a folder, a pattern ("data/*.jsonl") or "-" for stdin, as a string or a `Path`; several of them
            as a list of `Path`. Rows in memory: an iterable of strings and dicts, a Table, RecordBatch,
            RecordBatchReader or Dataset of pyarrow, a DataFrame or Series of polars or pandas.
        column: of the text; "a.b" is a field of the object a.
        template: what is embedded instead, like "{title}\n{body}".
        key: a field or column of strings or whole numbers, which comes with each row.
        key_option: the option that named it, for what is wrong with it.
        form: the format of all files, one of `FORMATS`; None: as their names and beginnings say.
        delimiter: between the fields of CSV; None: what the header shows.
        encoding: of text, JSON and CSV, one of Python's codecs.
        limit: rows that are read, at most.
        carried: how the output keeps the columns beside the text: as "jsonl", as "parquet", or not at all.
        empty: an empty text is usable.
        skip: a row without a usable text is a failed row; otherwise it is a `ConfigError` as soon as it is read.

    Raises:
        ConfigError: an option is none, a file has none of the columns, is not what its name says, or contradicts
            another; the input has no rows in an order.
        OSError: a file is not there or cannot be opened.
    """
    how = _how(
        column=column, template=template, key=key, key_option=key_option, delimiter=delimiter, encoding=encoding,
        limit=limit, carried=carried, empty=empty, skip=skip,
    )  # fmt: skip
    if form is not None and form not in FORMATS:
        msg = f"format {form!r}: it is one of {', '.join(FORMATS)}"
        raise ConfigError(msg)
    if isinstance(inputs, (str, os.PathLike)):
        return _of_files([inputs], form, how)
    if isinstance(inputs, (list, tuple)) and inputs:
        paths = [each for each in inputs if isinstance(each, os.PathLike)]
        if len(paths) == len(inputs):
            return _of_files(paths, form, how)
        if paths or all(isinstance(each, str) and _is_file(each) for each in inputs[:SOME]):
            msg = (
                f"{inputs[0]!r} …: are these names of files, or texts? "
                "Names go as [Path(name), …], texts that are called like files as iter([…])"
            )
            raise ConfigError(msg)
    return source_of(inputs, how)


def open_files(names: Sequence[str], *, form: str | None = None, **options: Any) -> Source:
    """As `open_source`, for names as they come from a command line: each is a file, a folder, a pattern or "-"."""
    if len(names) == 1:
        return open_source(names[0], form=form, **options)
    return _of_files(names, form, _how(**options))


def _of_files(names: Iterable[str | os.PathLike[str]], form: str | None, how: How) -> Source:
    given = [os.fsdecode(name) for name in names]
    for name in given:
        _check_name(name, "the input")
    return FileSource(found(given, form, refuse_unnamed), how, given)


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except ValueError:  # a null character
        return False


def _how(
    *,
    column: str = "text",
    template: str | None = None,
    key: str | None = None,
    key_option: str = "--key",
    encoding: str = "utf-8",
    **rest: Any,
) -> How:
    _check_name(column, "--column")
    if key is not None:
        _check_name(key, key_option)
    if template is not None and column != "text":
        msg = f"column {column!r} and template {template!r} contradict each other; the template names its columns"
        raise ConfigError(msg)
    delimiter = rest.get("delimiter")
    if delimiter is not None:
        rest["delimiter"] = delimiter = {r"\t": "\t", "tab": "\t"}.get(delimiter, delimiter)
        if len(delimiter) != 1 or delimiter in '"\r\n':
            msg = f"delimiter {delimiter!r}: it is one character, like ';' or '|', and no quote or line break"
            raise ConfigError(msg)
    limit = rest.get("limit")
    if limit is not None and (not isinstance(limit, int) or limit < 0):
        msg = f"limit {limit!r}: it is a number of rows"
        raise ConfigError(msg)
    parts = () if template is None else parse_template(template)
    return How(fields=Fields(column, parts, key, key_option), encoding=encoding_named(encoding), **rest)


def _check_name(name: str, what: str) -> None:
    try:
        if not name:
            msg = f"{what} is empty"
            raise ConfigError(msg)
        if what != "the input":  # a file's name may be of any bytes
            name.encode()
    except UnicodeEncodeError:
        msg = f"{what} {name!a} is not UTF-8"
        raise ConfigError(msg) from None


__all__ = ["ADDED", "BLOCK", "FORMATS", "INPUTS", "TOLD", "Line", "form_of", "open_files", "open_source"]
