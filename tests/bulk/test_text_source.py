"""Lines of text: every one is a row, or named by its place."""

from __future__ import annotations

import pytest

from embedkit import ConfigError
from embedkit._bulk.sources.open_source import BLOCK
from tests.bulk.reading import refused, source, texts


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("one\ntwo\n", ["one", "two"]),
        ("one\ntwo", ["one", "two"]),
        ("one\r\ntwo\r\n", ["one", "two"]),
        ("\ufeffone\r\n\ufefftwo", ["one", "\ufefftwo"]),  # the mark of the file, and a character of the second line
        ("\n\none\n\n", ["", "", "one", ""]),
        (" one \t\n", [" one \t"]),
        ("a\x0bb\x0cc\x85d\u2028e\rf\n", ["a\x0bb\x0cc\x85d\u2028e\rf"]),  # str.splitlines would make six of it
        ("a\0b\n", ["a\0b"]),
        ("日本\n🙂\n", ["日本", "🙂"]),
        ("x" * 3_000_000 + "\nshort\n", ["x" * 3_000_000, "short"]),
        ("", []),
        ("\ufeff", [""]),
    ],
)
def test_text_has_one_row_per_line(file, content, rows):
    """A line ends at LF or CR LF and nowhere else; a blank one is a row; nothing is stripped but a byte order mark."""
    assert texts(file("in.txt", content)) == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"one\ntwo \xff\n",
            "row 1 (line 2): not UTF-8 (invalid start byte at byte 4 of the line; --encoding names another)",
        ),
        (
            b"caf\xe9\n",
            "row 0 (line 1): not UTF-8 (unexpected end of data at byte 3 of the line; --encoding names another)",
        ),
        (
            b"cut \xe2\x82",
            "row 0 (line 1): not UTF-8 (unexpected end of data at byte 4 of the line; --encoding names another)",
        ),
    ],
)
def test_text_that_is_not_utf8_is_refused_by_place(file, content, message):
    """Row, line and byte are named; nothing is replaced in silence."""
    name = file("in.txt", content)

    assert refused(name) == f"{name}, {message}; --on-error skip makes it a failed row"


def test_the_rows_before_a_bad_line_are_not_lost(file):
    """Blocks are read one at a time: those before the bad one are there to be embedded."""
    blocks = source(file("in.txt", b"good\n" * BLOCK + b"\xff\n")).blocks()

    assert next(blocks).texts == ["good"] * BLOCK
    with pytest.raises(ConfigError, match=rf"row {BLOCK} \(line {BLOCK + 1}\)"):
        next(blocks)


def test_a_missing_file_is_an_oserror(tmp_path):
    """The system says it best."""
    with pytest.raises(FileNotFoundError):
        texts(str(tmp_path / "none.txt"))
