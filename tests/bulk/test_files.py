"""Which files an input is, in which order, and what their names say."""

from __future__ import annotations

import pytest

from embedkit import ConfigError
from embedkit._bulk.files import INPUTS, TOLD, form_of


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


