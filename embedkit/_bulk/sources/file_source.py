"""Files and pipes as one input: opened, unpacked, told apart, and read one after the other."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from ...errors import ConfigError
from ..contract import Scan, Source
from ..stdio import own
from . import arrow_source, csv_source, json_source, jsonl_source, text_source
from .files import PACKED, TOLD, Named
from .format_detection import BINARY, FORMATS, SAMPLE, TEXTLESS, UTF_16, look, packing
from .rows import At, How, first
from .scan import scan
from .streams import Pieces, beginning, in_utf8, pieces, unpacked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..contract import Block

NO_PIPE = "Parquet cannot be read from a pipe, because its index stands at the end: pass a file"
TABLES = ("parquet", "arrow")  # formats whose columns have types


class FileSource(Source):
    """Rows of files, in their order; a row's number counts on from one to the next.

    Opening it looks at the beginning of each regular file: its format, its header or its columns.

    Args:
        files: in order.
        how: they are read.
        given: their names as somebody gave them.

    Raises:
        ConfigError: a file is not what its name says, lacks a column, has columns that the output could not hold, or
            that contradict those of another; stdin is closed.
        OSError: a file cannot be opened.
    """

    def __init__(self, files: list[Named], how: How, given: list[str]) -> None:
        self.how = how
        self.given = given
        self._stdin: BinaryIO | None = None
        self._start: int | None = None  # of stdin, where it is a file
        self._into: Any = None
        if any(file.name == "-" for file in files):
            if sys.stdin is None:
                msg = "stdin is closed"
                raise ConfigError(msg)
            self._stdin = own(sys.stdin, "rb")
            self._start = self._stdin.tell() if self._stdin.seekable() else None
        self.files = files
        self.again = all(self._rereadable(file) for file in files)
        self._check(files)

    def _rereadable(self, file: Named) -> bool:
        return self._start is not None if file.name == "-" else file.size is not None

    def blocks(self) -> Iterator[Block]:
        """Its rows. What a row lacks is found when it is read, what a file is, before."""
        return first(self._all(lean=False), self.how.limit)

    def scan(self, count_tokens: Callable[[str], int]) -> Scan | None:
        """Look through all of it; None for a pipe. What the output carries is decoded, where it could be wrong."""
        if not self.again:
            return None
        size = sum(file.size or 0 for file in self.files)
        rows = first(self._all(lean=True), self.how.limit)
        return scan(rows, count_tokens, time.perf_counter, ", ".join(map(str, self.given)), size)

    def described(self) -> dict[str, Any]:
        """For a journal: names, formats and sizes; the column or the template, the key, the encoding …"""
        how = self.how
        files = [
            {"name": file.name, "format": file.form, **({} if file.size is None else {"bytes": file.size})}
            for file in self.files
        ]
        asked = {"delimiter": how.delimiter, "limit": how.limit}
        return {
            "inputs": self.given,
            "files": files,
            **how.fields.described(),
            "encoding": how.encoding,
            **{name: value for name, value in asked.items() if value is not None},
        }

    def _all(self, *, lean: bool) -> Iterator[Block]:
        row = 0
        for file in self.files:
            at = At(self._shown(file, file.form), row, len(self.files) > 1)
            for block in self._of(file, at, lean=lean):
                row += len(block.texts)
                yield block

    def _of(self, file: Named, at: At, *, lean: bool) -> Iterator[Block]:
        with ExitStack() as stack:
            raw, codec, form, stream = self._opened(file, stack)
            at = At(self._shown(file, form), at.first, at.several)
            if form == "parquet":
                if not codec and not raw.seekable():
                    raise ConfigError(NO_PIPE)
                whole = stack.enter_context(arrow_source.on_disk(stream)) if codec else raw
                yield from arrow_source.read_parquet(whole, self.how, at, self._into)
            elif form == "arrow":
                mapped = not codec and file.name != "-" and file.size
                if mapped:
                    yield from arrow_source.read_mapped(file.name, self.how, at, self._into)
                else:
                    yield from arrow_source.read_stream(stream, self.how, at, self._into)
            elif form in ("csv", "tsv"):
                yield from csv_source.read(stream, self.how, at, form, lean=lean)
            else:
                readers = {"text": text_source.read, "jsonl": jsonl_source.read, "json": json_source.read}
                yield from readers[form](stream, self.how, at, lean=lean)

    def _opened(self, file: Named, stack: ExitStack) -> tuple[BinaryIO, str, str, Pieces]:
        """(the file itself, how it is packed, its format, what is in it)."""
        if file.name == "-":
            raw = self._stdin
            assert raw is not None  # noqa: S101 (it was opened with the source)
            if self._start is not None:
                raw.seek(self._start)
        else:
            raw = stack.enter_context(Path(file.name).open("rb"))  # noqa: SIM115 (the stack closes it)
        shown, patient = "stdin" if file.name == "-" else file.name, self._rereadable(file)
        start, _, stream = beginning(pieces(raw), 4, patient=True)
        codec = packing(start)
        if not codec and start and Path(file.name).suffix.lower() in PACKED:
            packed = PACKED[Path(file.name).suffix.lower()]
            msg = f"{file.name} is packed with {packed} by its suffix, but does not begin like that; rename it"
            raise ConfigError(msg)
        if codec:
            stream = unpacked(stream, codec, shown)
        form = file.form
        if form not in TABLES and self.how.encoding != "utf-8":
            stream = in_utf8(stream, self.how.encoding, shown)
        if not file.sure:
            start, ends, stream = beginning(stream, SAMPLE, patient=patient)
            form = self._settled(file, start, codec, ends=ends)
        if form in TABLES and not codec and raw.seekable():
            raw.seek(self._start or 0 if file.name == "-" else 0)
        return raw, codec, form, stream

    def _shown(self, file: Named, form: str) -> str:
        """Its name in a message; for stdin with what it was taken for, where that was told by its beginning."""
        if file.name != "-":
            return file.name
        told = not file.sure and form not in ("text", TOLD)
        return f"stdin (read as {FORMATS[form]}; --input-format says otherwise)" if told else "stdin"

    def _settled(self, file: Named, start: bytes, codec: str, *, ends: bool) -> str:
        """The format that is told or named, if the input's beginning does not speak against it."""
        found, named = look(start, self.how.fields.names, whole=ends), "" if file.form == TOLD else file.form
        begins = start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
        if not named and found.form == "parquet" and not self._rereadable(file):
            msg = f"stdin begins like Parquet; {NO_PIPE}"
            raise ConfigError(msg)
        if not named and found.form and found.sure:
            return found.form
        alike = ({"json", "jsonl"}, {"csv", "tsv"})
        if named and found.sure and found.form and any({named, found.form} <= pair for pair in alike):
            return found.form if named.startswith("json") else named
        as_json = named == "jsonl" and begins in (b"{", b"[", b'"') and found.what != UTF_16[0]
        unsaid = not start or found.what == BINARY if named in TABLES else found.form == "text" or not found.sure
        if named and (found.form == named or unsaid or as_json):
            return named
        whose = f"{file.name} is {FORMATS[named]} by its suffix, but" if named else "stdin"
        ways = found.way or f"pass --input-format {found.form}"
        lines = "embed its lines as they are" if named in ("", "text") else f"read it as {FORMATS[named]} all the same"
        packed = f" packed with {codec}" if codec else ""
        if found.what in TEXTLESS:
            msg = f"{whose} begins like {found.what}{packed}: {ways}"
            raise ConfigError(msg)
        msg = f"{whose} begins like {found.what}{packed}: {ways}, or --input-format {named or 'text'} to {lines}"
        raise ConfigError(msg)

    # --- before anything is read ---------------------------------------------------------------------------------

    def _check(self, files: list[Named]) -> None:
        """Settle the formats of regular files, and look at what each says of its columns."""
        settled: list[Named] = []
        schemas: list[tuple[str, Any]] = []
        for file in files:
            known = file
            if self._rereadable(file):
                with ExitStack() as stack:
                    raw, codec, form, stream = self._opened(file, stack)
                    known = file if file.name == "-" and not file.sure else Named(file.name, form, True, file.size)
                    at = At(self._shown(file, form), 0, len(files) > 1)
                    if form == "parquet":
                        whole = stack.enter_context(arrow_source.on_disk(stream)) if codec else raw
                        schemas.append((at.name, arrow_source.parquet_schema(whole, self.how, at)))
                    elif form == "arrow":
                        schemas.append((at.name, arrow_source.arrow_schema(stream, self.how, at)))
                    elif form in ("csv", "tsv"):
                        csv_source.check(stream, self.how, at, form)
            settled.append(known)
        self.files = settled
        if self.how.carried == "parquet" and schemas:
            if len(schemas) < len(files):
                untyped = next(file.name for file in settled if file.form not in TABLES)
                msg = (
                    f"{schemas[0][0]} has typed columns and {untyped} has none: one Parquet file cannot hold both; "
                    "write .jsonl or .npy, or a job for each"
                )
                raise ConfigError(msg)
            self._into = arrow_source.common_schema(schemas)


def refuse_unnamed(name: str) -> NoReturn:
    """Refuse a file whose suffix names no format, and say what it begins like.

    Raises:
        ConfigError: always.
        OSError: it cannot be read.
    """
    with Path(name).open("rb") as file:
        start, ends, stream = beginning(pieces(file), SAMPLE, patient=True)
        codec = packing(start)
        if codec:
            start, ends, _ = beginning(unpacked(stream, codec, name), SAMPLE, patient=True)
    found = look(start, ("text",), whole=ends)
    packed = f"is packed with {codec}, and what is in it" if codec else "has no suffix that names a format, and"
    if not start:
        msg = f"{name}: it is empty, and no suffix names its format; pass --input-format"
    elif found.form is None:
        msg = f"{name} {packed} begins like {found.what}: {found.way}"
    else:
        msg = f"{name} {packed} begins like {found.what}: pass --input-format {found.form}"
    raise ConfigError(msg)
