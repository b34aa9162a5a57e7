"""What an input is, told by its beginning: nothing that is no
text is embedded as raw lines without anybody having said so.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import string
import struct

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedkit import ConfigError
from embedkit._bulk.sources.format_detection import SAMPLE, look
from tests.bulk.reading import stdin, texts

ARROW, STREAM, PARQUET = io.BytesIO(), io.BytesIO(), io.BytesIO()
with pa.ipc.new_file(ARROW, pa.schema([("text", pa.string())])) as writer:
    writer.write(pa.table({"text": ["a"]}))
with pa.ipc.new_stream(STREAM, pa.schema([("text", pa.string())])) as writer:
    writer.write(pa.table({"text": ["a"]}))
pq.write_table(pa.table({"text": ["a"]}), PARQUET)
LINES = b'{"text": "a"}\n{"text": "b"}\n'


def named(tmp_path, name, content):
    """The texts of a file whose suffix says something."""
    (tmp_path / name).write_bytes(content)
    return texts(str(tmp_path / name))


@pytest.mark.parametrize("size", [1, 7, 1 << 16], ids="pieces of {}".format)
@pytest.mark.parametrize(
    ("content", "rows"),
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
        (b"id;text\n1;a\n", ["a"]),
        (b"id|text\n1|a\n", ["a"]),
        (b'[{"text": "a"},\n{"text": "b"}]\n', ["a", "b"]),
        (json.dumps([{"text": "a"}] * 10_000).encode(), ["a"] * 10_000),
        (json.dumps(["a"] * 50_000).encode(), ["a"] * 50_000),
        (json.dumps([{"text": "a"}, "b"], indent=2).encode(), ["a", "b"]),
        (gzip.compress(LINES), ["a", "b"]),
        (gzip.compress(b'["a", "b"]'), ["a", "b"]),
        (pa.compress(b"id,text\n1,a\n", "zstd", asbytes=True), ["a"]),
        (ARROW.getvalue(), ["a"]),
        (STREAM.getvalue(), ["a"]),
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
def test_a_pipe_is_read_as_what_it_holds(monkeypatch, content, rows, size):
    """JSON lines, CSV and TSV by their first lines, whatever the pieces they come in; prose stays prose."""
    assert stdin(monkeypatch, content, size=size if len(content) < SAMPLE else max(size, 7)) == rows


REFUSED = {
    "a JSON object, indented": json.dumps({"text": "a"}, indent=2).encode(),
    "JSON strings": b'"a"\n"b"\n',
    "JSON lines behind a comment": b'# made today\n{"text": "a"}\n{"text": "b"}\n',
    "JSON lines behind null": b'null\n{"text": "a"}\n{"text": "b"}\n',
    "Python dicts": b"{'text': 'a'}\n{'text': 'b'}\n",
    "a CSV of other names": b"id,body\n1,a\n2,b\n",
    "a TSV of other names": b"id\tbody\n1\ta b c\n2\tb\n",
    "a CSV of one column": b"text\na\nb\n",
    "arrays on lines": b'["a"]\n["b"]\n',
    "bzip2": b"BZh91AY&SY",
    "Parquet": PARQUET.getvalue(),
    "UTF-16": "text\n".encode("utf-16"),
    "a ZIP archive": b"PK\x03\x04\x14\x00",
}


@pytest.mark.parametrize("size", [13, 1 << 16])
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED)
def test_a_pipe_that_is_no_text_is_refused(monkeypatch, content, skip, size):
    """Whether or not rows may be skipped: what it looks like, and the option that settles it."""
    with pytest.raises(ConfigError, match=r"^stdin (begins like|\(read as) .*(--input-format|pass a file)"):
        stdin(monkeypatch, content, skip=skip, size=size)


SCRIPTS = {
    "Latin": "grüße aus Köln",
    "Cyrillic": "привет мир",
    "Chinese": "你好 世界",
    "Arabic": "مرحبا بالعالم",
    "emoji": "🙂 ok",
}


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("words", SCRIPTS.values(), ids=SCRIPTS)
@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("in.txt", lambda words: [words] * 5),
        ("in.jsonl", lambda words: [json.dumps({"text": words}, ensure_ascii=False)] * 5),
        ("in.jsonl", lambda words: [json.dumps({"text": words})]),
        ("in.csv", lambda words: ["id,text", f"1,{words}"]),
        ("in.json", lambda words: [json.dumps([{"text": words}], ensure_ascii=False)]),
    ],
)
def test_utf_16_without_a_mark_is_named(tmp_path, monkeypatch, name, lines, words, codec):
    """Whatever the script, the format and the order of bytes: what it is and the option that reads it, which does."""
    content = "".join(f"{line}\n" for line in lines(words)).encode(codec)
    with pytest.raises(ConfigError, match=rf"begins like text in UTF-16: pass --encoding {codec},"):
        named(tmp_path, name, content)
    with pytest.raises(ConfigError, match=rf"stdin begins like text in UTF-16: pass --encoding {codec},"):
        stdin(monkeypatch, content)
    assert set(texts(str(tmp_path / name), encoding=codec)) == {words}


def test_other_bytes_are_not_utf_16():
    """Random bytes, whole numbers and floats, in either order of bytes, are binary data."""
    made = random.Random(5)
    for size in (64, 500, 5000):
        samples = [
            made.randbytes(8 * size),
            struct.pack(f"<{size}i", *(made.randrange(-(10**6), 10**6) for _ in range(size))),
            struct.pack(f">{size}f", *(made.gauss(0, 1) for _ in range(size))),
            struct.pack(f"<{size}d", *(made.gauss(0, 1) for _ in range(size))),
        ]
        assert {look(each, [], whole=True).what for each in samples} == {"binary data"}


@pytest.mark.parametrize("content", [LINES, *(each for each in REFUSED.values())])
def test_what_is_asked_for_is_not_looked_at(tmp_path, content):
    """`--input-format text`: raw lines, whatever they look like."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(content)

    assert len(texts(str(path), form="text", skip=True)) == content.count(b"\n") + (not content.endswith(b"\n"))


ARRAY = b'[{"text": "a"}]'
MISNAMED = {
    "in.txt": (LINES, ARRAY, b"id,text\n1,a\n", b"a\tb\n1\t2\n", PARQUET.getvalue(), ARROW.getvalue(),
               gzip.compress(LINES)),
    "in.jsonl": (b"id,text\n1,a\n", PARQUET.getvalue(), gzip.compress(b"id,text\n1,a\n")),
    "in.json": (b"id,text\n1,a\n", PARQUET.getvalue(), b'{\n"text": "a"\n}', STREAM.getvalue()),
    "in.csv": (LINES, ARRAY, PARQUET.getvalue()),
    "in.tsv": (LINES, ARRAY, PARQUET.getvalue()),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content"), [(name, content) for name, contents in MISNAMED.items() for content in contents]
)
def test_a_misleading_suffix_is_refused(tmp_path, name, content):
    """The suffix says one thing, the content another: both are named, and the option that settles it."""
    with pytest.raises(ConfigError, match=rf"{name} is .* by its suffix, but begins like .*--input-format \w+ to "):
        named(tmp_path, name, content)


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("in.txt", b"text\na\n", ["text", "a"]),
        ("in.txt", b'"a"\n"b"\n', ['"a"', '"b"']),
        ("in.txt", b"Paris,France\nRome,Italy\n", ["Paris,France", "Rome,Italy"]),
        ("in.csv", b'"text"\n"a"\n', ["a"]),
        ("in.csv", b"text\na\n", ["a"]),
        ("in.csv", b"id\ttext\n1\ta\n", ["a"]),
        ("in.tsv", b"id,text\n1,a\n", ["a"]),
        ("in.jsonl", b'"a"\n{"text": "b"}\n', ["a", "b"]),
        ("in.jsonl", ARRAY, ["a"]),
        ("in.json", LINES, ["a", "b"]),
        ("in.json", ARRAY, ["a"]),
        ("in.json", b" []", []),
        ("in.parquet", PARQUET.getvalue(), ["a"]),
        ("in.feather", ARROW.getvalue(), ["a"]),
        ("in.arrow", STREAM.getvalue(), ["a"]),
        ("in.jsonl", gzip.compress(LINES), ["a", "b"]),
    ],
)
def test_a_suffix_holds_where_nothing_speaks_against_it(tmp_path, name, content, rows):
    """What may as well be what the suffix says is that; of JSON and of tables the content knows which."""
    assert named(tmp_path, name, content) == rows


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
            (chance.choice(["", " ", "\n"]) + line + chance.choice(["", "\n", "\r\n"])).encode(), ["text"], whole=True
        )
        assert found.form == "jsonl", line
