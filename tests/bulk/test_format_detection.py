"""What an input is, told by its beginning: nothing that is no
text is embedded as raw lines without anybody having said so.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import string
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedkit import ConfigError
from embedkit._bulk.format_detection import SAMPLE, look
from embedkit._bulk.sources import TOLD, Source

PARQUET = io.BytesIO()
pq.write_table(pa.table({"text": ["a"]}), PARQUET)
LINES = b'{"text": "a"}\n{"text": "b"}\n'


class Pipe(io.RawIOBase):
    """A pipe that gives so many bytes at a time."""

    def __init__(self, content, size):
        self._content, self._size = content, size

    def readable(self):
        return True

    def readinto(self, buffer):
        count = min(self._size, len(buffer))
        piece, self._content = self._content[:count], self._content[count:]
        buffer[: len(piece)] = piece
        return len(piece)


def stdin(monkeypatch, content, *, size=1 << 16, **how):
    """The texts that come through a pipe of this content."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Pipe(content, size))))
    return [text for block in Source(name="-", form=TOLD, sure=False, **how).read() for text in block.texts]


def named(tmp_path, name, content, form):
    """The texts of a file whose suffix says this format."""
    (tmp_path / name).write_bytes(content)
    return [text for block in Source(name=str(tmp_path / name), form=form, sure=False).read() for text in block.texts]


@pytest.mark.parametrize("size", [1, 7, 1 << 16], ids="pieces of {}".format)
@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (LINES, ["a", "b"]),
        (b'{"text": "a"}', ["a"]),
        (b'\xef\xbb\xbf{"text": "a"}\r\n{"text": "b"}\r\n', ["a", "b"]),
        (b'\n\n {"text": "a"}\n', ["a"]),
        (b'{"id": NaN, "text": "a"}\n', ["a"]),
        (b'{"id": "' + b"x" * 3 * SAMPLE + b'", "text": "a"}\n"b"\n', ["a", "b"]),
        (b"id,text\n1,a\n2,b\n", ["a", "b"]),
        (b'id,text,n\n1,"a, b\nc",2\n', ["a, b\nc"]),
        (b"id\ttext\n1\ta\n", ["a"]),
        (b"one\ntwo, three\n", ["one", "two, three"]),
        (b"one, two\nthree, four\n", ["one, two", "three, four"]),
        (b"\n\none\n", ["", "", "one"]),
        (b"", []),
        (b"[Chorus]\nla la la\n", ["[Chorus]", "la la la"]),
        (b"[[a wiki]] link\n", ["[[a wiki]] link"]),
        (b"{% if x %}\n{{ y }}\n", ["{% if x %}", "{{ y }}"]),
        (b'"To be," he said.\n', ['"To be," he said.']),
        (b"{braces} and {more}\n", ["{braces} and {more}"]),
        (b"1\n2\n3\n", ["1", "2", "3"]),
        (b'# a\n\n    {"x": 1}\n\nmore\n', ["# a", "", '    {"x": 1}', "", "more"]),
    ],
)  # fmt: skip
def test_a_pipe_is_read_as_what_it_holds(monkeypatch, content, texts, size):
    """JSON lines, CSV and TSV by their first lines, whatever the pieces they come in; prose stays prose."""
    assert stdin(monkeypatch, content, size=size if len(content) < SAMPLE else max(size, 7)) == texts


REFUSED = {
    "a JSON array": b'[{"text": "a"},\n{"text": "b"}]\n',
    "a JSON array on a line": json.dumps([{"text": "a"}] * 10_000).encode(),
    "a JSON array of strings": json.dumps(["a"] * 50_000).encode(),
    "a JSON array, indented": json.dumps([{"text": "a"}], indent=2).encode(),
    "a JSON object, indented": json.dumps({"text": "a"}, indent=2).encode(),
    "JSON strings": b'"a"\n"b"\n',
    "JSON lines behind a comment": b'# made today\n{"text": "a"}\n{"text": "b"}\n',
    "JSON lines behind null": b'null\n{"text": "a"}\n{"text": "b"}\n',
    "Python dicts": b"{'text': 'a'}\n{'text': 'b'}\n",
    "a CSV of other names": b"id,body\n1,a\n2,b\n",
    "a TSV of other names": b"id\tbody\n1\ta b c\n2\tb\n",
    "a CSV of one column": b"text\na\nb\n",
    "semicolons": b"id;text\n1;a\n",
    "bars": b"id|text\n1|a\n",
    "gzip": gzip.compress(LINES),
    "Parquet": PARQUET.getvalue(),
    "UTF-16": "text\n".encode("utf-16"),
    "a ZIP archive": b"PK\x03\x04\x14\x00",
    "an Arrow file": b"ARROW1\x00\x00",
}


@pytest.mark.parametrize("size", [13, 1 << 16])
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED)
def test_a_pipe_that_is_no_text_is_refused(monkeypatch, content, skip, size):
    """Whether or not rows may be skipped: what it looks like, and the option that settles it."""
    with pytest.raises(ConfigError, match=r"^stdin (begins like|\(read as) .*(--input-format|pass a file)"):
        stdin(monkeypatch, content, skip=skip, size=size)


@pytest.mark.parametrize("content", [LINES, *REFUSED.values()])
def test_what_is_asked_for_is_not_looked_at(tmp_path, content):
    """`--input-format text`: raw lines, whatever they look like."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(content)
    source = Source(name=str(path), form="text", skip=True)

    assert sum(len(block.texts) for block in source.read()) == content.count(b"\n") + (not content.endswith(b"\n"))


MISNAMED = {
    ("in.txt", "text"): (LINES, REFUSED["a JSON array"], b"id,text\n1,a\n", b"a\tb\n1\t2\n", gzip.compress(LINES),
     PARQUET.getvalue()),
    ("in.jsonl", "jsonl"): (b"id,text\n1,a\n", gzip.compress(LINES), PARQUET.getvalue()),
    ("in.csv", "csv"): (LINES, b"id\ttext\n1\ta\n", b"id;text\n1;a\n", gzip.compress(LINES), PARQUET.getvalue()),
    ("in.tsv", "tsv"): (LINES, b"id,text\n1,a\n", PARQUET.getvalue()),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "form", "content"), [(*key, content) for key, contents in MISNAMED.items() for content in contents]
)
def test_a_misleading_suffix_is_refused(tmp_path, name, form, content):
    """The suffix says one thing, the content another: both are named, and the option that settles it."""
    with pytest.raises(ConfigError, match=rf"{name} is .* by its suffix, but begins like .*--input-format {form} to "):
        named(tmp_path, name, content, form)


@pytest.mark.parametrize(
    ("name", "form", "content", "texts"),
    [
        ("in.txt", "text", b"text\na\n", ["text", "a"]),
        ("in.txt", "text", b'"a"\n"b"\n', ['"a"', '"b"']),
        ("in.txt", "text", b"Paris,France\nRome,Italy\n", ["Paris,France", "Rome,Italy"]),
        ("in.csv", "csv", b'"text"\n"a"\n', ["a"]),
        ("in.csv", "csv", b"text\na\n", ["a"]),
        ("in.jsonl", "jsonl", b'"a"\n{"text": "b"}\n', ["a", "b"]),
        ("in.parquet", "parquet", PARQUET.getvalue(), ["a"]),
    ],
)
def test_a_suffix_holds_where_nothing_speaks_against_it(tmp_path, name, form, content, texts):
    """What may as well be what the suffix says is that."""
    assert named(tmp_path, name, content, form) == texts


def test_a_pipe_read_as_a_format_says_so_in_its_errors(monkeypatch):
    """Whoever meant something else learns how to say it."""
    with pytest.raises(
        ConfigError, match=r"^stdin \(read as JSON lines; --input-format says otherwise\), row 1 \(line 2\): "
    ):
        stdin(monkeypatch, b'{"text": "a"}\noops\n')


def test_json_objects_on_lines_are_never_text():
    """Whatever their fields: made by Python, compact or spaced, in any script."""
    chance = random.Random(9)
    for _ in range(500):
        fields = {"".join(chance.choices(string.printable + "é日🙂", k=chance.randrange(9))): chance.choice([None, 1,
           "x", [1], {"a": "}"}])
                  for _ in range(chance.randrange(1, 4))}  # fmt: skip
        line = json.dumps(
            fields, ensure_ascii=chance.random() < 0.5, separators=chance.choice([(",", ":"), (", ", ": ")])
        )
        found = look(
            (chance.choice(["", " ", "\n"]) + line + chance.choice(["", "\n", "\r\n"])).encode(), "text", whole=True
        )
        assert found.form == "jsonl", line
