"""Files in: every row of every format, in order, or an error that names its place."""

from __future__ import annotations

import json
import os

import anyio
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedkit import ConfigError
from embedkit._inputs import BLOCK, INPUTS, Block, Rows, count, form_of, read


@pytest.fixture
def file(tmp_path):
    """Writes a file of this name and content; its path as text."""

    def write(name, content):
        path = tmp_path / name
        if isinstance(content, pa.Table):
            pq.write_table(content, path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def form(name):
    return form_of(name, None, INPUTS, "text", "--input-format")


def texts(name, column="text", *, whole=False):
    return [text for block in read(name, form(name), column, whole=whole) for text in block.texts]


def records(name, column="text"):
    """The whole rows, as dicts."""
    found = []
    for block in read(name, form(name), column, whole=True):
        found += block.records if isinstance(block.records, list) else block.records.to_pylist()
    return found


def refused(name, column="text", *, whole=False):
    with pytest.raises(ConfigError) as error:
        texts(name, column, whole=whole)
    return str(error.value)


# --- which format ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.txt", "text"),
        ("A.TXT", "text"),
        ("b.md", "text"),
        ("c.ndjson", "jsonl"),
        ("d.csv", "csv"),
        ("e.v2.pq", "parquet"),
        ("-", "text"),
    ],
)
def test_the_suffix_tells_the_format(name, found):
    """Whatever its case, by the last suffix; stdin is text."""
    assert form(name) == found


def test_what_is_asked_for_wins():
    """`--input-format` beats the suffix."""
    assert form_of("a.txt", "jsonl", INPUTS, "text", "--input-format") == "jsonl"


@pytest.mark.parametrize("name", ["a.foo", "a", "a.jsonl.gz", ".txt"])
def test_an_unknown_suffix_names_the_known_ones_and_the_option(name):
    """No guessing: the error lists what is known, and the option that says it."""
    with pytest.raises(
        ConfigError, match=r"its suffix names no known format \(\.txt, .*\.parquet, \.pq\); pass --input-format"
    ):
        form(name)


# --- text ------------------------------------------------------------------------------------------------------------


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
        (b"one\ntwo \xff\n", "row 1 (line 2): not UTF-8 (invalid start byte at byte 4 of the line)"),
        ("one\n".encode("utf-16"), "row 0 (line 1): not UTF-8 (invalid start byte at byte 0 of the line)"),
        (b"caf\xe9\n", "row 0 (line 1): not UTF-8 (invalid continuation byte at byte 3 of the line)"),
        (b"cut \xe2\x82", "row 0 (line 1): not UTF-8 (unexpected end of data at byte 4 of the line)"),
    ],
)
def test_text_that_is_not_utf8_is_refused_by_place(file, content, message):
    """Row, line and byte are named; nothing is replaced in silence."""
    name = file("in.txt", content)

    assert refused(name) == f"{name}, {message}"


def test_the_rows_before_a_bad_line_are_not_lost(file):
    """Blocks are read one at a time: those before the bad one are there to be embedded."""
    blocks = read(file("in.txt", b"good\n" * BLOCK + b"\xff\n"), "text", "text", whole=False)

    assert next(blocks).texts == ["good"] * BLOCK
    with pytest.raises(ConfigError, match=rf"row {BLOCK} \(line {BLOCK + 1}\)"):
        next(blocks)


def test_a_missing_file_is_an_oserror(tmp_path):
    """The system says it best."""
    with pytest.raises(FileNotFoundError):
        texts(str(tmp_path / "none.txt"))


# --- JSON lines ------------------------------------------------------------------------------------------------------


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


def test_jsonl_may_end_in_blank_lines(file):
    """Blank lines at the end are no rows; a byte order mark at the start is none of the JSON."""
    assert texts(file("in.jsonl", '\ufeff{"text": "one"}\n\n  \n')) == ["one"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('"a"\n\n"b"\n', "line 2: blank, with rows after it; every row has a line of its own"),
        ('"a"\n{"text": "b"\n', "row 1 (line 2): not JSON: Input data was truncated"),
        ('{"text": NaN}\n', "row 0 (line 1): not JSON: JSON is malformed: invalid character (byte 9)"),
        ('{"text": "\\ud800"}\n', "row 0 (line 1): not JSON: "),
        ("[1, 2]\n", "row 0 (line 1): [1, 2] is neither an object nor a string"),
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
        name, column, whole=True
    )
    assert texts(name, column) == ["a"]


# --- CSV -------------------------------------------------------------------------------------------------------------


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
    assert records(file("in.csv", "text,note\none\ntwo,x\n")) == [{"text": "one", "note": None}, {"text": "two", "note": "x"}]
    assert "row 0 (line 2): 'text' is null, which is no string" in refused(file("late.csv", "note,text\none\n"))


def test_csv_of_a_header_alone_has_no_rows(file):
    """No rows is no error; blank lines at the end are none either."""
    assert texts(file("in.csv", "text\n")) == []
    assert texts(file("ends.csv", "text\none\n\n\n")) == ["one"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ": no 'text'; there is nothing (choose with --column)"),
        ("id,body\n1,a\n", ": no 'text'; there is 'id', 'body' (choose with --column)"),
        ("text,text\na,b\n", ": two columns are called 'text'"),
        ("text\na\nb,c\n", ", row 1 (line 3): 2 fields, but the header has 1"),
        ("text\na\n\nb\n", ", line 3: blank, with rows after it"),
        ('text\na\n"b\n', ", row 1 (after line 3): unexpected end of data"),
        ('text\n"a"b\n', ", row 0 (after line 2): ',' expected after '\"'"),
    ],
)
def test_csv_that_cannot_be_read_is_refused_by_place(file, content, message):
    """What is wrong, and where."""
    name = file("in.csv", content)

    assert refused(name).startswith(name + message)


def test_csv_that_is_not_utf8_is_refused(file):
    """As text is, by the last row that could be read: the file is decoded some lines ahead."""
    name = file("in.csv", b"text\n" + b"a\n" * 5_000 + b"\xff\n")

    assert refused(name).endswith(": not UTF-8 (invalid start byte)")


# --- Parquet ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.dictionary(pa.int8(), pa.large_string())],
    ids=str,
)
def test_parquet_text_in_each_of_its_types(file, kind):
    """Plain, large and categorical strings, in several row groups, in order."""
    words = [f"text {number % 7}" for number in range(600)]
    table = pa.table({"text": pa.array(words, pa.string()).cast(kind), "n": range(600)})
    name = file("in.parquet", table)

    assert texts(name) == words
    assert [record["n"] for record in records(name)] == list(range(600))


def test_parquet_keeps_types_nested_columns_and_nulls(file):
    """What is beside the text comes along as Arrow has it."""
    beside = {
        "list": [[1, None], None],
        "struct": [{"a": 1, "b": "x"}, None],
        "time": pa.array([0, None], pa.timestamp("us", "UTC")),
    }
    table = pa.table({"text": ["a", "b"], **beside}).replace_schema_metadata({"made by": "a test"})
    blocks = list(read(file("in.parquet", table), "parquet", "text", whole=True))
    batches = [block.records for block in blocks]

    assert pa.Table.from_batches(batches).equals(table)
    assert batches[0].schema.metadata == {b"made by": b"a test"}


def test_parquet_reads_only_the_text_where_nothing_else_is_wanted(file):
    """A matrix needs one column: the others stay on the disk."""
    table = pa.table({"text": ["a"], "embedding": [[1.0]]})
    (block,) = read(file("in.parquet", table), "parquet", "text", whole=False)

    assert block.records.schema.names == ["text"]


def test_an_empty_parquet_file_keeps_its_columns(file):
    """No rows, but a schema for the output."""
    blocks = list(
        read(
            file("in.parquet", pa.table({"text": pa.array([], pa.string()), "n": pa.array([], pa.int8())})),
            "parquet",
            "text",
            whole=True,
        )
    )

    assert [block.texts for block in blocks] == [[]]
    assert blocks[0].records.schema.names == ["text", "n"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"a": [1]}), ": no 'text'; there is 'a' (choose with --column)"),
        (pa.table({"text": [1]}), ": 'text' is int64, not string"),
        (pa.table({"text": [b"a"]}), ": 'text' is binary, not string"),
        (pa.table({"text": [["a"]]}), ": 'text' is list<element: string>, not string"),
        (pa.table({"text": ["a", None]}), ", row 1: 'text' is null, which is no string"),
        (pa.table({"text": ["a"] * 300 + [None]}), ", row 300: 'text' is null, which is no string"),
        (pa.table({"text": pa.array([b"a"]).dictionary_encode()}), ": 'text' is dictionary<values=binary"),
        (b"PAR1 not really", ": cannot be read as Parquet: "),
        (b"", ": cannot be read as Parquet: "),
    ],
)
def test_parquet_that_cannot_be_read_is_refused(file, table, message):
    """By column, by row, or as a whole."""
    name = file("in.parquet", table)

    assert refused(name).startswith(name + message)


def test_parquet_does_not_come_through_a_pipe():
    """Its index stands at the end: the error says so before anything is read."""
    with pytest.raises(ConfigError, match="cannot be read from a pipe"):
        next(read("-", "parquet", "text", whole=False))


def test_an_embedding_column_in_parquet_is_not_overwritten(file):
    """As in JSONL."""
    name = file("in.parquet", pa.table({"text": ["a"], "embedding": [1]}))

    assert "there is an 'embedding' already" in refused(name, whole=True)


# --- blocks, counts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["in.txt", "in.jsonl", "in.csv", "in.parquet"])
def test_rows_come_in_blocks(file, name):
    """However long the file is, no more than a block of it is in memory at once."""
    words = [f"text {number}" for number in range(2 * BLOCK + 5)]
    content = {
        "in.txt": "\n".join(words), "in.jsonl": "\n".join(map(json.dumps, words)), "in.csv": "\n".join(["text", *words]),
        "in.parquet": pa.table({"text": words}),
    }[name]  # fmt: skip
    blocks = [block.texts for block in read(file(name, content), form(name), "text", whole=False)]

    assert [len(block) for block in blocks] == [BLOCK, BLOCK, 5]
    assert sum(blocks, []) == words  # noqa: RUF017 (three lists)


@pytest.mark.parametrize("takes", [[1] * 7, [7], [3, 4], [0, 2, 0, 5]])
def test_records_come_back_beside_their_texts(takes):
    """However many are taken at once, and wherever blocks end, record i belongs to text i."""
    words = [str(number) for number in range(7)]
    blocks = [Block(words[:2], words[:2]), Block([], []), Block(words[2:], pa.RecordBatch.from_pydict({"text": words[2:]}))]
    rows = Rows(iter(blocks))

    async def read_all():
        return [text async for text in rows.texts()]

    assert anyio.run(read_all) == words
    taken = []
    for each in takes:
        pieces = rows.take(each)
        found = [
            record for piece in pieces for record in (piece if isinstance(piece, list) else piece.column("text").to_pylist())
        ]
        assert len(found) == each
        taken += found
    assert taken == words


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("a.txt", "one\ntwo", 2),
        ("a.txt", "one\ntwo\n", 2),
        ("a.txt", "", 0),
        ("a.jsonl", '"a"\n"b"\n', 2),
        ("a.csv", "text\na\n", None),  # a field may hold line breaks
        ("a.parquet", pa.table({"text": ["a"] * 9}), 9),
        ("a.parquet", b"junk", None),
    ],
)
def test_rows_are_counted_where_that_is_cheap(file, name, content, rows):
    """For the progress bar; where counting would cost a reading of its own there is no total."""
    assert count(file(name, content), form(name)) == rows


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_nobody_counts_what_cannot_be_read_twice(tmp_path):
    """stdin, a pipe with a name, and a file that is not there."""
    os.mkfifo(tmp_path / "pipe.txt")

    assert [count(name, "text") for name in ("-", str(tmp_path / "pipe.txt"), str(tmp_path / "none.txt"))] == [None] * 3
