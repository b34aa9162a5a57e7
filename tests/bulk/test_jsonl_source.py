"""JSON lines: every row in order, or what is wrong with it, by its line."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from embedkit import ConfigError
from embedkit._bulk.sources.open_source import open_files
from tests.bulk.reading import faults, keys, read, records, refused, source, texts


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
        (
            b'"a"\n{"text": "\xff"}\n',
            "row 1 (line 2): not UTF-8 (invalid start byte at byte 10 of the line; --encoding names another)",
        ),
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


def test_an_error_that_is_there_already_is_not_overwritten(file):
    """As little as an embedding, whether the file is looked through or read."""
    name = file("in.jsonl", '{"text":"a"}\n{"text":"b","embedding_error":null}\n')

    for form in ("jsonl", "parquet"):
        assert "row 1 (line 2): there is an 'embedding_error' already" in refused(name, carried=form)
    assert texts(name) == ["a", "b"]


@pytest.mark.parametrize("carried", ["", "jsonl", "parquet"])
def test_a_line_that_is_not_utf8_beside_the_text_costs_its_row(file, carried):
    """It is no JSON, whether or not the field is needed."""
    name = file("in.jsonl", b'{"text": "a"}\n{"text": "b", "x": "\xff"}\n{"text": "c", "\xff": "d"}\n')

    assert texts(name, skip=True, carried=carried) == ["a", None, None]


# --- nested fields, templates, keys ----------------------------------------------------------------------------------


@pytest.mark.parametrize("carried", ["", "jsonl", "parquet"])
def test_fields_from_where_they_are(file, carried):
    """Nested ones, a key called "a.b", templates, keys beside or inside the same object: with records or without."""
    lines = [
        {"doc": {"text": "one", "id": 1}, "id": "x", "n": 3},
        {"doc.text": "two", "doc": {"id": 2}, "id": "y", "n": 0.5},
        {"doc": {"text": "three", "id": 3, "deep": {"a": [{"b": None}]}}, "doc.id": 9, "id": 4, "n": False},
    ]
    name = file("in.jsonl", "".join(json.dumps(line) + "\n" for line in lines))

    assert texts(name, "doc.text", carried=carried) == ["one", "two", "three"]
    assert keys(name, "doc.id", "doc.text", carried=carried) == [1, 2, 9]
    assert keys(name, "id", "doc.text", carried=carried) == ["x", "y", 4]
    assert keys(name, "doc.text", "doc.text", carried=carried) == ["one", "two", "three"]
    assert texts(name, template="{id}:{doc.text}={n}", carried=carried) == ["x:one=3", "y:two=0.5", "4:three=false"]
    assert keys(name, "id", template="{id}", carried=carried) == ["x", "y", 4]


@pytest.mark.parametrize("carried", ["", "jsonl", "parquet"])
def test_a_key_or_a_field_that_is_not_there_costs_the_row(file, carried):
    """And no other; a bare string has its text only."""
    rows = ['{"text": "a", "id": 1}', '{"text": "b"}', '{"text": "c", "id": null}', '"d"', '{"text": "e", "id": 5}']
    name = file("in.jsonl", "\n".join(rows))
    found = read(source(name, key="id", skip=True, carried=carried))

    assert found[0] == ["a", None, None, None, "e"]
    assert found[2] == [1, None, None, None, 5]
    assert found[1] == {
        1: "line 2: no 'id'; there is 'text' (choose with --key)",
        2: "line 3: the key 'id' is null, which is no string or whole number",
        3: "line 4: no 'id'; there is 'text' (choose with --key)",
    }
    assert texts(name, template="{text} {id}", skip=True) == ["a 1", None, None, None, "e 5"]


def test_a_line_without_an_end_is_refused_before_the_memory_is_full(file, monkeypatch):
    """What is longer than any row is no row."""
    monkeypatch.setattr("embedkit._bulk.sources.streams.LONGEST", 3 << 20)
    name = file("in.jsonl", '"a"\n' + '{"text": "' + "x" * (6 << 20))

    assert "a line is longer than 256 MiB" in refused(name, skip=True).replace(" 3 MiB", " 256 MiB")


VALUES = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(some.characters(codec=None)),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(), inner, max_size=3),
    max_leaves=6,
)
NAMES = some.sampled_from(["text", "id", "a", "a.b", "embedding", "b"])
RECORDS = some.dictionaries(NAMES, VALUES | some.text(), max_size=4)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some.data())
def test_looking_through_finds_what_reading_finds(tmp_path, data):
    """For any records, spoilt in any way, with any fields, whatever the output carries: `read` compares both."""
    lines = data.draw(some.lists(RECORDS.map(json.dumps) | VALUES.map(json.dumps), min_size=1, max_size=8))
    blob = "\n".join(lines).encode()
    if data.draw(some.booleans()):
        place = data.draw(some.integers(0, len(blob)))
        blob = blob[:place] + data.draw(some.binary(max_size=3)) + blob[place + data.draw(some.integers(0, 2)) :]
    (tmp_path / "in.jsonl").write_bytes(blob)
    how = data.draw(
        some.fixed_dictionaries(
            {"carried": some.sampled_from(["", "jsonl", "parquet"]), "skip": some.booleans(), "empty": some.booleans()},
            optional={"key": NAMES},
        )
    )
    how |= data.draw(some.sampled_from([{}, {"column": "a.b"}, {"column": "a"}, {"template": "{text}-{a.b}"}]))
    with suppress(ConfigError):
        read(open_files([str(tmp_path / "in.jsonl")], form="jsonl", **how))


@pytest.mark.parametrize("carried", ["jsonl", "parquet", ""])
@pytest.mark.parametrize("column", ["text", "a.b"])
def test_a_record_with_nan_and_without_the_text_is_a_bad_row(file, carried, column):
    """Whatever the output: what is not JSON beside a text that is missing is no other fault than the text's."""
    assert set(faults(file("in.jsonl", '{"other": NaN}\n'), column, carried=carried)) == {0}
