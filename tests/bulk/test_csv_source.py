"""CSV and TSV: every row in order, or what is wrong with it, by its line."""

from __future__ import annotations

import csv

import pytest

from tests.bulk.reading import faults, records, refused, source, texts


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_is_read_as_rfc_4180_has_it(file, end):
    """Quotes, commas, line breaks inside a field, a byte order mark, either line ending; values stay text."""
    rows = [["id", "text"], ["1", "one"], ["2", 'two, "quoted"\nlines'], ["03", ""]]
    content = end.join(",".join('"' + field.replace('"', '""') + '"' for field in row) for row in rows) + end
    name = file("in.csv", "\ufeff" + content)

    assert records(name) == [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    assert texts(name) == ["one", 'two, "quoted"\nlines', ""]


def test_csv_fields_may_be_long(file):
    """A document longer than Python's own limit of 131,072 characters is a field like any other."""
    assert texts(file("in.csv", "text\n" + "x" * 1_000_000 + "\n")) == ["x" * 1_000_000]


def test_a_short_csv_row_has_no_value_there(file):
    """Fields left off at the end are null, unless the text is among them."""
    assert records(file("in.csv", "text,note\none\ntwo,x\n")) == [
        {"text": "one", "note": None},
        {"text": "two", "note": "x"},
    ]
    assert "row 0 (line 2): 'text' is null, which is no string" in refused(file("late.csv", "note,text\none\n"))


def test_csv_of_a_header_alone_has_no_rows(file):
    """No rows is no error; blank lines are none either."""
    assert texts(file("between.csv", "text\none\n\n\ntwo\n")) == ["one", "two"]
    assert texts(file("in.csv", "text\n")) == []
    assert texts(file("ends.csv", "text\none\n\n\n")) == ["one"]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("text,,\na,b,c\n", ["text", "column_2", "column_3"]),  # a spreadsheet's trailing commas
        (",text,\nb,a,c\n", ["column_1", "text", "column_3"]),
        (",text\nb,a\n", ["", "text"]),  # pandas writes its index like that
    ],
)
def test_columns_without_a_name_are_called_by_their_place(file, content, names):
    """Where there are several; a lone one is told apart by having none."""
    ((record,),) = [block.records for block in source(file("in.csv", content), carried="jsonl").blocks()]

    assert list(record) == names
    assert record["text"] == "a"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ": no 'text'; there is nothing (choose with --column)"),
        ("id,body\n1,a\n", ": no 'text'; there is 'id', 'body' (choose with --column)"),
        ("text,text\na,b\n", ": two columns are called 'text': rename one"),
        (",text,,column_1\na,b,c,d\n", ": two columns are called 'column_1': rename one"),
        ("text\na\nb,c\n", ", row 1 (line 3): 2 fields, but the header has 1"),
        ('text\na\n"b\n', ", row 1, which begins in line 3: a quote is opened and never closed"),
        ('text\n"a"b\n', ", row 0, line 2: ',' expected after '\"'"),
    ],
)
def test_csv_that_cannot_be_read_is_refused_by_place(file, content, message):
    """What is wrong, and where."""
    name = file("in.csv", content)

    assert refused(name).startswith(name + message)


def test_csv_that_is_not_utf8_is_refused(file):
    """As text is, by its row; one that is skipped keeps the fields that can be read. A header has to be UTF-8."""
    name = file("in.csv", b"text,n\n" + b"a,1\n" * 5_000 + b"\xff,2\nb,\xe9\nc,3\n")

    assert "row 5000 (line 5002): not UTF-8" in refused(name)
    assert faults(name) == {row: f"line {row + 2}: not UTF-8 (--encoding names another)" for row in (5000, 5001)}
    skipped = [row for block in source(name, skip=True, carried="jsonl").blocks() for row in block.records][-3:]
    assert skipped == [{"text": None, "n": "2"}, {"text": "b", "n": None}, {"text": "c", "n": "3"}]
    assert "the header is not UTF-8" in refused(file("head.csv", b"text,\xe9\na,b\n"))


@pytest.mark.parametrize("name", ["in.tsv", "in.tab"])
def test_tsv_is_csv_with_tabs(file, name):
    """Quotes mean the same; a quote within a field is a quote."""
    name = file(name, 'id\ttext\n1\t"two\nlines, ""quoted"""\n2\ta "b", c\n')

    assert records(name) == [{"id": "1", "text": 'two\nlines, "quoted"'}, {"id": "2", "text": 'a "b", c'}]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("mark", [",", "\t", ";", "|"])
def test_fields_parted_by_something_else_are_seen_in_the_header(file, name, mark):
    """The mark by which the header has the columns that are needed; the usual one wins."""
    other = ";" if mark == "," else ","
    name = file(name, f"id{mark}text\n1{mark}a{other}b\n")

    assert records(name) == [{"id": "1", "text": f"a{other}b"}]
    assert texts(name) == [f"a{other}b"]


def test_a_delimiter_may_be_said(file):
    r"""Any character, `\t` as it is typed in a shell too; then the header has to be parted by it."""
    assert texts(file("a.csv", "id~text\n1~a,b\n"), delimiter="~") == ["a,b"]
    assert texts(file("b.csv", "id\ttext,x\n1\ta\n"), "text,x", delimiter="\\t") == ["a"]
    message = refused(file("c.csv", "id;text\n1;a\n"), delimiter="|")
    assert message.endswith("no 'text'; there is 'id;text' (choose with --column); they look separated by ';': "
                            "--delimiter says so")  # fmt: skip
    for bad in ("", "ab", '"', "\n"):
        assert "it is one character" in refused(file("d.csv", "text\na\n"), delimiter=bad)


def test_blank_lines_before_the_header_are_none(file):
    """As those after it."""
    assert texts(file("a.csv", "\n\r\n\nid,text\n\n1,a\n")) == ["a"]


def test_a_quote_that_is_never_closed_does_not_fill_the_memory(file, monkeypatch):
    """The field ends at a length that no text has: an error, whatever may be skipped."""
    monkeypatch.setattr("embedkit._bulk.sources.csv_source.LONGEST_FIELD", 100)
    monkeypatch.setattr("csv.field_size_limit", lambda _=None, limit=csv.field_size_limit: limit(150_000) and 150_000)
    name = file("a.csv", 'text\na\n"' + "x\n" * 100_000)

    assert "row 1, which begins in line 3: a field of more than 100 characters" in refused(name, skip=True)


def test_a_header_that_the_output_could_not_hold(file):
    """It has what the output adds."""
    assert "there is an 'embedding' already" in refused(file("a.csv", "text,embedding\na,1\n"), carried="jsonl")
    assert "there is an 'embedding_error'" in refused(file("a.csv", "text,embedding_error\na,1\n"), carried="jsonl")
    assert texts(file("a.csv", "text,embedding\na,1\n")) == ["a"]
