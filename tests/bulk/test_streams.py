"""Bytes in: unpacked, in UTF-8, whole lines at a time."""

from __future__ import annotations

import gzip
import io

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as some

from embedkit import ConfigError
from embedkit._bulk.sources import streams
from embedkit._bulk.sources.streams import Pieces, beginning, encoding_named, in_utf8, pieces, whole_lines
from tests.bulk.reading import faults, refused, stdin, texts

LINES = b"".join(b"row %d\n" % number for number in range(5_000))
PACK = {"gz": gzip.compress, "zst": lambda content: pa.compress(content, "zstd", asbytes=True)}


def in_pieces(content, size):
    """A stream that gives so many bytes at a time."""
    file = io.BytesIO(content)
    return Pieces(lambda: file.read(size))


@pytest.mark.parametrize("kind", PACK)
def test_packed_files_of_several_members(file, kind):
    """As `cat a.gz b.gz` and pigz make them: all are read."""
    content = PACK[kind](LINES) + PACK[kind](b"") + PACK[kind](b"last\n")

    assert texts(file(f"in.txt.{kind}", content)) == [*LINES.decode().splitlines(), "last"]
    assert texts(file("in.txt", content), form="text")[-1] == "last"


@pytest.mark.parametrize("zeros", [1, 512, 3 * 10**5])
def test_zeros_behind_gzip_are_padding(file, monkeypatch, zeros):
    """As tapes and block devices leave them, which gzip itself passes over: in a file, between members, in a pipe."""
    packed = gzip.compress(LINES)
    assert texts(file("in.txt.gz", packed + bytes(zeros))) == LINES.decode().splitlines()
    assert texts(file("two.txt.gz", packed + bytes(zeros) + packed)) == 2 * LINES.decode().splitlines()
    assert stdin(monkeypatch, packed + bytes(zeros), form="text", size=100) == LINES.decode().splitlines()


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("spoil", ["cut", "cut early", "rubbish", "flipped"])
def test_a_packed_file_that_is_damaged_is_refused(file, kind, members, spoil):
    """A copy that was not finished, a bit that fell over, something behind it: never fewer rows in silence."""
    if (kind, spoil) == ("zst", "flipped"):
        pytest.skip("what writes no checksum cannot be checked")
    content = PACK[kind](LINES) * members
    middle = len(content) // 2
    spoilt = {
        "cut": content[:-5],
        "cut early": content[:9],
        "rubbish": content + b"rubbish",
        "flipped": content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :],
    }[spoil]

    assert "cannot be unpacked as" in refused(file(f"in.txt.{kind}", spoilt), skip=True)


def test_what_is_packed_by_its_name_only(file):
    """Said at once, rather than embedded."""
    assert "is packed with gzip by its suffix" in refused(file("in.txt.gz", LINES))
    assert texts(file("none.txt.gz", b"")) == []


@pytest.mark.parametrize(
    "encoding", ["cp1252", "latin-1", "utf-16", "utf-16-le", "utf-32", "shift_jis", "gb18030", "koi8-r"]
)
@pytest.mark.parametrize("name", ["in.txt", "in.jsonl", "in.json", "in.csv", "in.csv.gz"])
def test_text_in_another_encoding(file, encoding, name):
    """Any of Python's: line ends, quotes and marks of byte order are seen after decoding."""
    words = {"shift_jis": ["日本", "ab"], "gb18030": ["汉字🙂", "ab"], "koi8-r": ["дом", "ab"]}.get(
        encoding, ["café", "ab"]
    )
    content = {
        "in.txt": "\r\n".join(words),
        "in.jsonl": "\n".join(f'{{"text": "{word}"}}' for word in words),
        "in.json": "[" + ",\n".join(f'"{word}"' for word in words) + "]",
    }.get(name, "text,n\r\n" + "".join(f'"{word}",1\r\n' for word in words))
    blob = content.encode(encoding)

    assert texts(file(name, gzip.compress(blob) if name.endswith("gz") else blob), encoding=encoding) == words


@pytest.mark.parametrize("name", ["in.txt", "in.csv", "in.jsonl", "in.json"])
def test_bytes_that_the_encoding_does_not_have_cost_their_row(file, name):
    """And say so by its name."""
    parts = {"in.txt": (b"", b"\n", b""), "in.csv": (b"text\n", b"\n", b""), "in.jsonl": (b'"', b'"\n"', b'"'),
             "in.json": (b'["', b'",\n"', b'"]')}[name]  # fmt: skip
    line, way = (3, " (--encoding names another)") if name == "in.csv" else (2, "")
    content = parts[0] + parts[1].join([b"caf\xe9", b"\x81", b"ok"]) + parts[2]

    assert texts(file(name, content), encoding="cp1252", skip=True) == ["café", None, "ok"]
    assert faults(file(name, content), encoding="cp1252") == {1: f"line {line}: not cp1252{way}"}


def test_a_cut_character_at_the_end_costs_the_last_row(file):
    """Half of one in UTF-16."""
    assert texts(file("in.txt", "ab\ncd".encode("utf-16")[:-1]), encoding="utf-16", skip=True) == ["ab", None]


def test_a_text_that_is_not_at_all_in_the_encoding_is_refused(file):
    """UTF-16 begins with a byte order mark."""
    message = refused(file("in.txt", b"abcd"), encoding="utf-16", skip=True)

    assert "it is not utf-16 (" in message  # the reason is in the words of this Python
    assert message.endswith("); --encoding names another")


@pytest.mark.parametrize("name", ["nope", "rot13", "base64", "", "a\0b"])
def test_an_encoding_that_is_none_is_refused(name):
    """Of characters to characters neither."""
    with pytest.raises(ConfigError, match="Python has no such text encoding"):
        encoding_named(name)


def test_utf8_has_several_names():
    """The byte order mark is left out in any case."""
    assert {encoding_named(name) for name in ("utf-8", "UTF8", "u8", "utf-8-sig", "utf_8")} == {"utf-8"}


@given(some.binary(), some.integers(1, 9))
def test_lines_are_the_same_however_they_come(content, size):
    """Nothing is lost or doubled, each piece ends with a line, and only the mark at the beginning is left out."""
    found = [*whole_lines(in_pieces(content, size), "x")]

    assert b"".join(found) == content.removeprefix(b"\xef\xbb\xbf")
    assert all(piece.endswith(b"\n") for piece in found[:-1])


@given(some.binary(), some.integers(1, 9), some.integers(1, 20))
def test_what_is_looked_at_is_read_again(content, size, most):
    """The beginning, and then the whole stream."""
    start, ends, stream = beginning(in_pieces(content, size), most, patient=True)

    assert content.startswith(start)
    assert len(start) == min(most, len(content))
    assert io.BufferedReader(stream).read() == content
    assert not ends or start == content


@given(some.text(), some.sampled_from(["utf-16", "utf-7", "cp1252", "gb18030", "utf-32-be"]), some.integers(1, 5))
def test_decoding_in_pieces_is_decoding(text, encoding, size):
    """Wherever a character is cut."""
    content = text.encode(encoding, "ignore")
    found = io.BufferedReader(in_utf8(in_pieces(content, size), encoding, "x")).read()

    assert found.decode() == content.decode(encoding)


def test_a_pipe_gives_what_it_has(monkeypatch):
    """No read waits for a full buffer."""
    monkeypatch.setattr(streams, "PIECE", 1 << 20)

    class Slow(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            buffer[:2] = b"a\n"
            return 2

    assert pieces(io.BufferedReader(Slow())).some() == b"a\n"
