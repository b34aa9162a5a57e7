"""Which files an input is, in which order, and what their names say."""

from __future__ import annotations

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as some

from embedkit import ConfigError
from embedkit._bulk.sources.files import INPUTS, TOLD, form_of, found, natural


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.txt", "text"),
        ("A.TXT", "text"),
        ("b.md", "text"),
        ("c.ndjson", "jsonl"),
        ("d.csv", "csv"),
        ("e.v2.pq", "parquet"),
        ("in.tsv", "tsv"),
        ("a.json", "json"),
        ("a.jsonl.gz", "jsonl"),
        ("A.CSV.ZST", "csv"),
        ("a.arrow", "arrow"),
        ("a.feather.zst", "arrow"),
        ("-", TOLD),
    ],
)
def test_the_suffix_tells_the_format(name, found):
    """Whatever its case, by the last suffix; stdin has none, and is told by its beginning."""
    assert form_of(name, None, INPUTS, TOLD, "--input-format") == found


def test_what_is_asked_for_wins():
    """`--input-format` beats the suffix."""
    assert form_of("a.txt", "jsonl", INPUTS, TOLD, "--input-format") == "jsonl"


@pytest.mark.parametrize("name", ["a.foo", "a", "a.gz", ".txt"])
def test_an_unknown_suffix_names_the_known_ones_and_the_option(name):
    """No guessing: the error lists what is known, and the option that says it."""
    with pytest.raises(
        ConfigError, match=r"its suffix names no known format \(\.txt, .*\.parquet, .*\); pass --input-format"
    ):
        form_of(name, None, INPUTS, TOLD, "--input-format")


# --- names, folders, patterns ----------------------------------------------------------------------------------------


def names(given, asked=None):
    return [entry.name for entry in found(given, asked)]


def test_a_folder_is_its_files_in_the_order_that_people_count(file, tmp_path):
    """Numbers by value, folders inside too; nothing that is hidden or that a job left beside its output."""
    wanted = ["a-1.jsonl", "a-2.jsonl", "a-10.jsonl", "a-10b.csv", "b.txt.gz", "year=2024/part-0.parquet"]
    left = [".hidden.txt", "_SUCCESS", "out.report.json", "out.failures.jsonl", "out.npy.job/part.jsonl", ".git/x.txt",
            "year=2024/.part-0.crc"]  # fmt: skip
    for name in reversed(wanted + left):
        file(name, b"")

    assert names([str(tmp_path)]) == [str(tmp_path / name) for name in wanted]
    assert names([f"{tmp_path}/**"]) == [str(tmp_path / name) for name in wanted]
    assert names([f"{tmp_path}/a-*.jsonl"]) == [str(tmp_path / name) for name in wanted[:3]]


def test_names_keep_the_order_they_are_given_in(file, tmp_path):
    """And may be there twice; what is left out of a folder may be named."""
    given = [file(name, b"") for name in ("b.txt", "a.txt", "x.report.json", ".c.txt")]

    assert names([*given, given[0]]) == [*given, given[0]]
    assert names([given[1], str(tmp_path), given[0]]) == [given[1], given[1], given[0], given[0]]


def test_a_name_with_the_characters_of_a_pattern_is_itself(file):
    """If there is such a file."""
    name = file("a[1].txt", b"")
    file("a1.txt", b"")

    assert names([name]) == [name]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("*.jsonl", "no file matches"),
        ("empty", "there is no file in this folder"),
        ("foreign", "its suffix names no known format"),
    ],
)
def test_nothing_to_read_is_refused(file, tmp_path, given, message):
    """A pattern without a match, an empty folder, a file that nobody knows how to read: none is left out in silence."""
    (tmp_path / "empty").mkdir()
    file("foreign/a.txt", b"")
    file("foreign/b.xyz", b"")
    with pytest.raises(ConfigError, match=message):
        names([str(tmp_path / given)])
    assert len(names([str(tmp_path / "foreign")], "text")) == 2


def test_what_is_no_file_is_left_out_unless_it_is_named(file, tmp_path):
    """A pipe in a folder would be waited for without an end. A link to nothing is an error: rows would be missing."""
    wanted = file("in/a.txt", b"")
    os.mkfifo(tmp_path / "in" / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "in" / "s.txt"))
    assert names([str(tmp_path / "in")]) == names([str(tmp_path / "in" / "*.txt")]) == [str(wanted)]
    assert names([str(tmp_path / "in" / "pipe.txt")]) == [str(tmp_path / "in" / "pipe.txt")]

    (tmp_path / "in" / "b.txt").symlink_to("nowhere")
    for place in ("in", "in/*.txt"):
        with pytest.raises(FileNotFoundError, match=r"b\.txt"):
            names([str(tmp_path / place)])


def test_stdin_is_read_once():
    """Named twice it is refused."""
    with pytest.raises(ConfigError, match="named twice"):
        names(["-", "-"])


def test_a_missing_file_is_an_oserror(tmp_path):
    """The system says it best."""
    with pytest.raises(FileNotFoundError):
        names([str(tmp_path / "none.txt")])


@given(some.lists(some.text(some.sampled_from("ab019-"), min_size=1)))
def test_the_order_of_names_is_total(given):
    """Whatever they are called: sorted from any order they come out the same."""
    shuffled = given[::-1]

    assert sorted(shuffled, key=natural) == sorted(given, key=natural)
