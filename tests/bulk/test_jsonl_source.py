"""JSON lines: every row in order, or what is wrong with it, by its line."""

from __future__ import annotations

import json

import pytest

from tests.bulk.reading import records, refused, texts


def test_jsonl_takes_objects_and_strings(file):
    """An object's text is in its column, a bare string is the text; the rest of a record comes along as it was."""
    rows = [{"text": "one", "n": 1}, "two", {"id": None, "text": "three", "deep": {"a": [1, {"b": 2.5}]}, "big": 2**80}]
    name = file("in.jsonl", "\r\n".join(json.dumps(row) for row in rows))

    assert texts(name) == ["one", "two", "three"]
    assert records(name) == [rows[0], {"text": "two"}, rows[2]]


def test_jsonl_from_another_column(file):
    """`--column` names it, for objects and for bare strings alike."""
    name = file("in.jsonl", '{"body": "one", "text": 7}\n"two"\n')

    assert texts(name, "body") == ["one", "two"]
    assert records(name, "body")[1] == {"body": "two"}


def test_a_blank_line_of_jsonl_is_no_row(file):
    """Between rows as at the end; a byte order mark at the start is none of the JSON."""
    assert texts(file("in.jsonl", '\ufeff{"text": "one"}\r\n\r\n \t\n"two"\n\n  \n')) == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('"a"\n{"text": "b"\n', "row 1 (line 2): not JSON: Expecting ',' delimiter (at character 12 of the line)"),
        ('"a"\n\n"b"\n\noops\n', "row 2 (line 5): not JSON: Expecting value (at character 0 of the line)"),
        ('{"text": NaN}\n', "row 0 (line 1): 'text' is NaN, which is no string"),
        ('{"text": -Infinity}\n', "row 0 (line 1): 'text' is -Infinity, which is no string"),
        ('{"text": "\\ud800"}\n', "row 0 (line 1): 'text' holds half of a surrogate pair, which is no character"),
        ('"\\udfff"\n', "row 0 (line 1): 'text' holds half of a surrogate pair, which is no character"),
        (
            '{"text": "a", "deep": ' + "[" * 100_000 + "]" * 100_000 + "}\n",
            "row 0 (line 1): nested too deeply to be read",
        ),
        (b'"a"\n{"text": "\xff"}\n', "row 1 (line 2): not UTF-8 (invalid start byte at byte 10 of the line; --encoding names another)"),
        ("[1, 2]\n[3]\n", "row 0 (line 1): [1, 2] is neither an object nor a string"),
        ("null\n", "row 0 (line 1): null is neither an object nor a string"),
        ('{"text": 7}\n', "row 0 (line 1): 'text' is 7, which is no string"),
        ('{"text": null}\n', "row 0 (line 1): 'text' is null, which is no string"),
        ('{"a": 1, "b": 2}\n', "row 0 (line 1): no 'text'; there is 'a', 'b' (choose with --column)"),
        ("{}\n", "row 0 (line 1): no 'text'; there is nothing (choose with --column)"),
    ],
)
def test_jsonl_that_cannot_be_read_is_refused_by_place(file, content, message):
    """What is wrong, where, and what there is instead."""
    name = file("in.jsonl", content)

    assert refused(name).startswith(f"{name}, {message}")


@pytest.mark.parametrize("content", ['{"text": "a", "embedding": [1]}\n', '{"embedding": "a"}\n'])
def test_an_embedding_that_is_there_already_is_not_overwritten(file, content):
    """The output's own column must be free; a matrix has no columns, and takes it."""
    name, column = file("in.jsonl", content), next(iter(set(json.loads(content)) - {"embedding"}), "embedding")

    assert "there is an 'embedding' already, and the output adds its own; rename it, or write .npy" in refused(
        name, column, carried="jsonl"
    )
    assert texts(name, column) == ["a"]


