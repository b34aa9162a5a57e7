"""Detects the format of an input from its first bytes, so that nothing else is embedded as lines of text. Pure."""

from __future__ import annotations

import codecs
import csv
import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

import msgspec

SAMPLE = 64 * 1024  # bytes looked at
FORMATS = {
    "text": "text", "jsonl": "JSON lines", "json": "a JSON array", "csv": "CSV", "tsv": "TSV", "parquet": "Parquet",
    "arrow": "Arrow",
}  # fmt: skip
PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
UTF_16 = ("text in UTF-16", "pass --encoding utf-16")
UTF_32 = ("text in UTF-32", "pass --encoding utf-32")
IMAGE, PROGRAM = ("an image", "embedkit embeds texts"), ("a program", "embedkit embeds texts")
BINARY = "binary data"
TEXTLESS = (IMAGE[0], PROGRAM[0], BINARY)  # of these no lines are worth embedding
MAGIC = {
    b"\xfd7zXZ\x00": ("xz", "unpack it first, as xz -dc does"),
    **{b"BZh%d1AY&SY" % level: ("bzip2", "unpack it first, as bzip2 -dc does") for level in range(1, 10)},
    b"\x04\x22\x4d\x18": ("lz4", "unpack it first, as lz4 -dc does"),
    b"PK\x03\x04": ("a ZIP archive or an office document", "unpack it, or export text from it, first"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "unpack it first"),
    b"Rar!\x1a\x07": ("a RAR archive", "unpack it first"),
    b"\xd0\xcf\x11\xe0": ("an old office document", "export text from it first"),
    b"%PDF-": ("PDF", "extract its text first"),
    b"\x89PNG\r\n": IMAGE,
    b"\xff\xd8\xff": IMAGE,
    b"GIF8": IMAGE,
    b"\x7fELF": PROGRAM,
    b"\x89HDF\r\n": ("HDF5", "write it as Parquet or JSON lines first"),
    b"\x80\x04\x95": ("a pickle", "write it as Parquet or JSON lines first"),
    b"\x80\x05\x95": ("a pickle", "write it as Parquet or JSON lines first"),
    b"\x93NUMPY": ("a NumPy array", "that holds vectors, not texts"),
    b"SQLite format 3\x00": ("an SQLite database", "export its texts first"),
    b"Obj\x01": ("Avro", "write it as Parquet or JSON lines first"),
    b"FEA1": ("Feather of the first version", "write it anew, as Feather 2, Arrow or Parquet"),
    b"\xff\xfe\x00\x00": UTF_32,
    b"\x00\x00\xfe\xff": UTF_32,
    b"\xff\xfe": UTF_16,
    b"\xfe\xff": UTF_16,
}
OBJECT = re.compile(r'\{\s*(?:"(?:[^"\\]|\\.)*"\s*:|\})')
ARRAY = re.compile(r'\[\s*(?:\{\s*"|$|"(?:[^"\\]|\\.)*"\s*,\s*["{])')
UNFINISHED = re.compile(r'\[\s*[\["{]')  # of a line that goes on beyond what is looked at
DICT = re.compile(r"\{\s*'[^']*'\s*:")
NAME = re.compile(r"[^\W\d][\w.-]*(?: [\w.-]+)*")
MARKS = (",", "\t", ";", "|")  # between the fields of a table


class Look(msgspec.Struct, frozen=True):
    """What the beginning of an input looks like.

    Attributes:
        form: the format that reads it; None where none does.
        what: in words.
        way: what to do, where no format reads it.
        sure: False where it may as well be text.
    """

    form: Literal["text", "jsonl", "json", "csv", "tsv", "parquet", "arrow"] | None
    what: str
    way: str = ""
    sure: bool = True


TEXT = Look("text", "text")
TAR_AT = 257  # where a tar archive has its mark: https://www.gnu.org/software/tar/manual/html_node/Standard.html
CONTROL = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b\b"))  # what no text has
NO_CONTROL = bytes(set(range(256)) - set(CONTROL))
NOWHERE = ("Cc", "Cn", "Co", "Cs")  # categories of characters that stand in no text
LOOKED_AT = 4096  # bytes decoded, to see whether they are UTF-16
MANY, SHARE = 4, 0.02  # control characters that make a file a binary one: so many, and such a share
ZEROS = 0.4  # share of zero bytes at every second place, from which on text is UTF-16


def packing(start: bytes) -> str:
    """How a file that begins like this is packed: "gzip", "zstd", or "" for not at all."""
    return next((codec for magic, codec in PACKED.items() if start.startswith(magic)), "")


def look(start: bytes, columns: Sequence[str], *, whole: bool) -> Look:
    """What begins like this. `columns`: what a table's header would have to name; `whole`: nothing comes after it."""
    if start.startswith(b"PAR1"):
        return Look("parquet", "Parquet")
    if start.startswith((b"ARROW1\x00\x00", b"\xff\xff\xff\xff")):
        return Look("arrow", "Arrow")
    for magic, (what, way) in MAGIC.items():
        if start.startswith(magic):
            return Look(None, what, way)
    if (binary := _binary(start)) is not None:
        return binary
    finished = whole or b"\n" in start
    lines = start.decode("utf-8-sig", "replace").split("\n")
    if not whole and len(lines) > 1:
        lines.pop()  # cut off by the sample
    there = [line.strip() for line in lines if line.strip()]
    if not there:
        return TEXT
    return _json(there, finished=finished) or _table([line.removesuffix("\r") for line in lines], columns) or TEXT


def _binary(start: bytes) -> Look | None:
    """What is no text in UTF-8, or in any encoding that leaves ASCII what it is."""
    if start[TAR_AT:].startswith(b"ustar"):
        return Look(None, "a tar archive", "unpack it first")
    for first, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        zeros, others = start[first::2].count(0), start[1 - first :: 2].count(0)
        if zeros >= MANY and zeros >= ZEROS * len(start[first::2]) and others < zeros / 8:
            return Look(None, UTF_16[0], f"pass --encoding {name}")
    if (codec := _utf_16(start)) is not None:
        return Look(None, UTF_16[0], f"pass --encoding {codec}")
    controls = len(start) - len(start.translate(None, CONTROL))
    if controls >= MANY and controls > SHARE * len(start):
        return Look(None, BINARY, "embedkit reads text, JSON, CSV, Parquet and Arrow")
    return None


def _utf_16(start: bytes) -> str | None:
    """The codec of text in UTF-16 without a mark, of whatever script; None: it is none. It has controls in UTF-8, and
    spaces or line ends and none but assigned characters in UTF-16; other data has not.
    """
    piece = start[: min(len(start), LOOKED_AT) & ~1]
    if not piece.translate(None, NO_CONTROL):
        return None
    for name in ("utf-16-le", "utf-16-be"):
        text = codecs.getincrementaldecoder(name)("replace").decode(piece)
        parted = any(char in text for char in " \r\n")
        if parted and all(char in "\t\r\n" or _stands_in_text(char) for char in text):
            return name
    return None


def _stands_in_text(char: str) -> bool:
    return char != "\ufffd" and unicodedata.category(char) not in NOWHERE


def _json(lines: list[str], *, finished: bool) -> Look | None:
    first = lines[0]
    objects = sum(OBJECT.match(line) is not None for line in lines)
    listed = isinstance(_parsed(first), list)
    array = ARRAY.match(first) or (not finished and UNFINISHED.match(first)) or listed
    cases = (
        (OBJECT.match(first), Look("jsonl", "JSON lines")),
        (DICT.match(first), Look(None, "dicts as Python prints them", "write JSON, as json.dumps does")),
        (
            listed and len(lines) > 1,
            Look(None, "JSON arrays on lines", "write one object per line, as jq -c '.[]' does"),
        ),
        (array, Look("json", "a JSON array")),
        (first == "{", Look(None, "a JSON document of several lines", "write one object per line, as jq -c does")),
        (2 * objects >= len(lines), Look(None, "JSON lines, with others among them", "pass --input-format jsonl")),
        (all(isinstance(_parsed(line), str) for line in lines), Look("jsonl", "JSON strings", sure=False)),
    )
    return next((found for holds, found in cases if holds), None)


def _parsed(line: str) -> object:
    if line[0] not in '["':
        return None
    try:
        found: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found


def _table(lines: list[str], columns: Sequence[str]) -> Look | None:
    tables = {mark: _rows(lines, mark) for mark in MARKS}
    for mark, rows in tables.items():
        if all(column in rows[0] for column in columns):
            one = Look("csv", f"CSV of one column, {rows[0][0]!r}", sure=False)
            return one if len(rows[0]) == 1 else _parted(mark)
    for mark, rows in tables.items():
        header, counted = rows[0], rows[: -1 if len(rows) > 3 else None]  # noqa: PLR2004 (the last may be cut off)
        alike = len(header) > 1 < len(rows) and {len(row) for row in counted} == {len(header)}
        named = len(set(header)) == len(header) and all(map(NAME.fullmatch, header))
        if alike and named and not any(field.startswith(" ") for row in rows for field in row):
            found = _parted(mark)
            return found if mark == "\t" else Look(found.form, found.what, found.way, sure=False)
    return None


def _rows(lines: list[str], mark: str) -> list[list[str]]:
    try:
        return [row for row in csv.reader(lines[:50], delimiter=mark) if row] or [[]]
    except csv.Error:
        return [[]]


def _parted(mark: str) -> Look:
    if mark == "\t":
        return Look("tsv", "TSV")
    return Look("csv", "CSV" if mark == "," else f"a table whose fields are separated by {mark!r}")
