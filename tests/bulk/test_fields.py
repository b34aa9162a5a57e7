"""What of a record is embedded, and what it is known by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from embedkit import ConfigError
from embedkit._bulk.sources.fields import MISSING, Fields, find, parse_template, template_of


@pytest.mark.parametrize(
    ("record", "name", "value"),
    [
        ({"a": 1}, "a", 1),
        ({"a": {"b": 1}}, "a.b", 1),
        ({"a.b": 2, "a": {"b": 1}}, "a.b", 2),
        ({"a.b": None, "a": {"b": 1}}, "a.b", None),
        ({"a": {"b.c": 1}}, "a.b.c", 1),
        ({"a": {"b.c": 1, "b": {"c": 2}}}, "a.b.c", 1),
        ({"a": {"b": {"c": 2}}}, "a.b.c", 2),
        ({"a": {"b": 1}}, "a.c", MISSING),
        ({"a": [1]}, "a.0", MISSING),
        ({"a": None}, "a.b", MISSING),
        ({"": {"": 1}}, ".", 1),
        ({}, "a", MISSING),
    ],
)
def test_a_dot_goes_into_an_object_unless_a_name_has_it(record, name, value):
    """A key that is really called "a.b" wins; a list has no fields."""
    assert find(record, name) == value


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{title}\\n{body}", "T\nB"),
        ("{title}\n{body}", "T\nB"),
        (r"{title}\t{body}\\n", "T\tB\\n"),
        (r"{title}\d", r"T\d"),
        ("{{{title}}}", "{T}"),
        ("{title}{title}", "TT"),
        ("{a b.c:d}", "x"),
        ("{in.it}", "y"),
        ("{n}, {f}, {t}", "7, 0.5, true"),
    ],
)
def test_a_template_joins_fields(template, text):
    """Line breaks as a shell passes them, braces doubled, names of any kind, nested ones, numbers as JSON has them."""
    record = {"title": "T", "body": "B", "a b.c:d": "x", "in": {"it": "y"}, "n": 7, "f": 0.5, "t": True}

    assert Fields(template=parse_template(template)).text(record) == (text, "")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("", "names no field"),
        ("title", "names no field"),
        ("{{title}}", "names no field"),
        ("{}", "{} at character 0 names no field"),
        ("{title", "{ at character 0 stands alone"),
        ("title}", "} at character 5 stands alone"),
        ("{a{b}}", "{ at character 0 stands alone"),
    ],
)
def test_a_template_that_is_none_is_refused(template, message):
    """With the place, and how a brace is written."""
    with pytest.raises(ConfigError) as error:
        parse_template(template)
    assert message in str(error.value)


@given(some.lists(some.tuples(some.text(), some.text(min_size=1))), some.text())
def test_any_text_can_stand_around_the_fields(pairs, end):
    """Braces doubled and backslashes doubled give back exactly what was meant."""

    def escaped(text):
        return text.replace("\\", "\\\\").replace("{", "{{").replace("}", "}}")

    pairs = [(text, name) for text, name in pairs if not set(name) & {"{", "}"}] or [("", "n")]
    parts = parse_template("".join(f"{escaped(text)}{{{name}}}" for text, name in pairs) + escaped(end))

    assert parts == (*(each for pair in pairs for each in pair), end)


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        ({"title": "T"}, "no 'body'; there is 'title' (choose with --template)"),
        ({"title": "T", "body": None}, "'body' is null, which is no string or number"),
        ({"title": "T", "body": float("nan")}, "'body' is NaN, which is no string or number"),
        ({"title": "T", "body": ["x"]}, "'body' is [\"x\"], which is no string or number"),
    ],
)
def test_a_missing_or_null_field_costs_the_row(record, fault):
    """It is not embedded as half of what it should be."""
    assert Fields(template=parse_template("{title} {body}")).text(record) == (None, fault)


@pytest.mark.parametrize("value", ["a", "", 7, -(2**70), 0])
def test_a_key_is_a_string_or_a_whole_number(value):
    """Nested or not."""
    assert Fields(key="id").known_by({"id": value}) == (value, "")
    assert Fields(key="meta.id").known_by({"meta": {"id": value}}) == (value, "")


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        ({}, "no 'id'; there is nothing (choose with --key)"),
        ({"id": None}, "the key 'id' is null, which is no string or whole number"),
        ({"id": True}, "the key 'id' is true, which is no string or whole number"),
        ({"id": 1.0}, "the key 'id' is 1.0, which is no string or whole number"),
        ({"id": [1]}, "the key 'id' is [1], which is no string or whole number"),
        ({"id": "\ud800"}, "'id' holds half of a surrogate pair, which is no character"),
    ],
)
def test_what_is_no_key_costs_the_row(record, fault):
    """It could not be found again."""
    assert Fields(key="id").known_by(record) == (None, fault)


@given(some.lists(some.tuples(some.text(), some.text("ab.c \\", min_size=1)), min_size=1), some.text())
def test_a_template_is_told_as_somebody_would_type_it(pairs, end):
    """A journal keeps it so, and a refusal shows it so; read again, it is the same template."""
    parts = (*(part for pair in pairs for part in pair), end)

    assert parse_template(template_of(parts)) == parts
    assert template_of(("", "title", "\n{", "body", "")) == "{title}\\n{{{body}"
