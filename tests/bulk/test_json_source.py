"""JSON arrays: every element in order, however the array is laid out, in bounded memory."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from embedkit._bulk.sources import json_source, streams
from tests.bulk.reading import faults, keys, read, records, refused, source, texts

ROWS = [{"text": "one", "id": 1}, "two", {"text": "th\nree", "id": 3, "deep": {"a": [{"b": "}, {"}]}}, {"text": "四"}]


@pytest.mark.parametrize("indent", [None, 0, 2])
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("end", ["", "\n", " \r\n"])
def test_an_array_however_it_is_laid_out(file, indent, ascii_only, end):
    """On a line or on many, escaped or not, with a byte order mark: elements are rows, records are carried."""
    name = file("in.json", "\ufeff" + json.dumps(ROWS, indent=indent, ensure_ascii=ascii_only) + end)

    assert texts(name) == ["one", "two", "th\nree", "四"]
    assert records(name) == [ROWS[0], {"text": "two"}, *ROWS[2:]]
    for block in source(name, carried="jsonl").blocks():
        for record in block.records:
            assert b"\n" not in record.source
            assert json.loads(record.source) == record


@pytest.mark.parametrize("piece", [1, 7, 64, 1 << 20])
def test_wherever_the_window_ends(file, monkeypatch, piece):
    """Strings, escapes, numbers and literals may be cut anywhere."""
    rows = [{"text": f'"{n}" \\ 🙂 }},{{', "n": n * 1.5e3, "t": None, "x": [{"y": n}, {"y": [n]}]} for n in range(40)]
    monkeypatch.setattr(streams, "PIECE", piece)
    monkeypatch.setattr(json_source, "FEW", piece)
    name = file("in.json", json.dumps([*rows, "last"], indent=1))

    numbers = file("numbers.json", "[123456, -1.5e-7, true, null, " + '"a"]')

    assert texts(numbers, skip=True) == [None] * 4 + ["a"]
    assert texts(name) == [*(row["text"] for row in rows), "last"]
    assert records(name)[:-1] == rows


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    some.lists(
        some.recursive(
            some.none() | some.integers() | some.floats() | some.text(some.characters(codec=None)),
            lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(), inner, max_size=3),
        )
        | some.fixed_dictionaries({"text": some.text()})
    ),
    some.sampled_from([None, 1]),
)
def test_any_array_gives_what_python_makes_of_it(tmp_path, rows, indent):
    """Element by element: the text of an object or a string, and a bad row for anything else."""
    (tmp_path / "in.json").write_text(json.dumps(rows, indent=indent))
    wanted = []
    for row in json.loads(json.dumps(rows)):
        text = row.get("text") if isinstance(row, dict) else row
        good = isinstance(text, str) and not any("\ud800" <= letter <= "\udfff" for letter in text)
        wanted.append(text if good else None)
    if any(text is not None for text in wanted):
        assert texts(str(tmp_path / "in.json"), form="json", skip=True) == wanted


def test_what_python_writes_is_read(file):
    """NaN, numbers of any size, halves of pairs beside the text."""
    name = file(
        "in.json", '[{"text": "a", "n": NaN},\n{"text": "b", "n": ' + "9" * 5_000 + '},\n{"text": "\\ud800"},\n"c"]'
    )

    assert texts(name, skip=True) == ["a", "b", None, "c"]
    assert faults(name) == {2: "line 3: 'text' holds half of a surrogate pair, which is no character"}


def test_a_bad_element_costs_itself(file):
    """By its row and line: null, a number, bytes that are no UTF-8, a field that is missing."""
    name = file("in.json", b'[\n{"text": "a"},\nnull, 7,\n{"text": "\xff"},\n{"body": 1}, "b"\n]')

    assert texts(name, skip=True) == ["a", None, None, None, None, "b"]
    assert faults(name) == {
        1: "line 3: null is neither an object nor a string",
        2: "line 3: 7 is neither an object nor a string",
        3: "line 4: not UTF-8 (invalid start byte at byte 10 of the line; --encoding names another)",
        4: "line 5: no 'text'; there is 'body' (choose with --column)",
    }
    assert "in.json, row 1 (line 3): null is neither" in refused(name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a JSON array begins with '[', and this is empty"),
        ("   ", "a JSON array begins with '[', and this is empty"),
        ('"a"', "a JSON array begins with '[', and this with '\"'"),
        ("[", "line 1: the array has no end: not all of it is there"),
        ('["a"', "line 1: the array has no end: not all of it is there"),
        ('["a",', "line 1: the array has no end: not all of it is there"),
        ('["a",]', "row 1 (line 1): not JSON: Expecting value"),
        ('["a"\n"b"]', "line 2: ',' or ']' expected, not '\"'"),
        ('["a", {"text": "b"', "row 1 (line 1): not JSON: Expecting ',' delimiter"),
        ('["a",\n{"text": b}, "c"]', "row 1 (line 2): not JSON: Expecting value"),
        ('["a", "b', "row 1 (line 1): not JSON: Unterminated string"),
        ('["a"] ["b"]', "line 1: '[' after the end of the array"),
        ('["a", ' + "[" * 100_000 + "]" * 100_000 + "]", "row 1 (line 1): not JSON: nested too deeply"),
    ],
)
def test_an_array_that_is_none_is_refused_whatever_may_be_skipped(file, content, message):
    """What comes after such a place cannot be told apart: nothing is embedded, and the place is named."""
    assert message in refused(file("in.json", content), form="json", skip=True)


def test_keys_and_templates_of_elements(file):
    """As of lines."""
    name = file("in.json", json.dumps([{"a": {"b": "x", "id": 1}}, {"a": {"b": "y", "id": "2"}}]))

    assert keys(name, "a.id", "a.b") == [1, "2"]
    assert texts(name, template="{a.b}{a.id}") == ["x1", "y2"]
    assert read(source(name, "a.b", key="c", skip=False, limit=0)) == [[], {}, []]


def test_an_element_longer_than_any_row_is_refused(file, monkeypatch):
    """Before it fills the memory."""
    monkeypatch.setattr(json_source, "LONGEST", 1 << 20)
    name = file("in.json", '["a", "' + "x" * (8 << 20))

    assert "an element is longer than 1 MiB" in refused(name, skip=True)
