"""Files in: every row of every format, in order, or an error that names its place."""

from __future__ import annotations

import json
import os

import anyio
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedkit import ConfigError
from embedkit._bulk.sources import BLOCK, INPUTS, TOLD, Block, Rows, Source, form_of


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
    return form_of(name, None, INPUTS, TOLD, "--input-format")


def source(name, column="text", **how):
    return Source(name=name, form=form(name), column=column, **how)


def texts(name, column="text", **how):
    return [text for block in source(name, column, **how).read() for text in block.texts]


def faults(name, column="text", **how):
    """By row, what is wrong with those that are skipped."""
    return {row: why for block in source(name, column, skip=True, **how).read() for row, why in block.faults.items()}


def records(name, column="text"):
    """The whole rows, as dicts."""
    found = []
    for block in source(name, column, carried="jsonl").read():
        found += block.records if isinstance(block.records, list) else block.records.to_pylist()
    return found


def refused(name, column="text", **how):
    with pytest.raises(ConfigError) as error:
        texts(name, column, **how)
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
        ("in.tsv", "tsv"),
        ("-", TOLD),
    ],
)
def test_the_suffix_tells_the_format(name, found):
    """Whatever its case, by the last suffix; stdin has none, and is told by its beginning."""
    assert form(name) == found


def test_what_is_asked_for_wins():
    """`--input-format` beats the suffix."""
    assert form_of("a.txt", "jsonl", INPUTS, TOLD, "--input-format") == "jsonl"


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

    assert refused(name) == f"{name}, {message}; --on-error skip makes it a failed row"


def test_the_rows_before_a_bad_line_are_not_lost(file):
    """Blocks are read one at a time: those before the bad one are there to be embedded."""
    blocks = source(file("in.txt", b"good\n" * BLOCK + b"\xff\n")).read()

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
        (b'"a"\n{"text": "\xff"}\n', "row 1 (line 2): not UTF-8 (invalid start byte at byte 10 of the line)"),
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
        name, column, carried="jsonl"
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
    ("content", "message"),
    [
        ("", ": no 'text'; there is nothing (choose with --column)"),
        ("id,body\n1,a\n", ": no 'text'; there is 'id', 'body' (choose with --column)"),
        ("text,text\na,b\n", ": two columns are called 'text'"),
        ("text\na\nb,c\n", ", row 1 (line 3): 2 fields, but the header has 1"),
        ('text\na\n"b\n', ", row 1 (after line 3): unexpected end of data"),
        ('text\n"a"b\n', ", row 0 (after line 2): ',' expected after '\"'"),
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
    assert faults(name) == {5000: "line 5002: not UTF-8", 5001: "line 5003: not UTF-8"}
    skipped = [row for block in source(name, skip=True).read() for row in block.records][-3:]
    assert skipped == [{"text": None, "n": "2"}, {"text": "b", "n": None}, {"text": "c", "n": "3"}]
    assert "the header is not UTF-8" in refused(file("head.csv", b"text,\xe9\na,b\n"))


@pytest.mark.parametrize("name", ["in.tsv", "in.tab"])
def test_tsv_is_csv_with_tabs(file, name):
    """Quotes mean the same; a quote within a field is a quote."""
    name = file(name, 'id\ttext\n1\t"two\nlines, ""quoted"""\n2\ta "b", c\n')

    assert records(name) == [{"id": "1", "text": 'two\nlines, "quoted"'}, {"id": "2", "text": 'a "b", c'}]


@pytest.mark.parametrize(
    ("name", "mark", "way"),
    [
        ("a.csv", "\t", "pass --input-format tsv"),
        ("a.tsv", ",", "pass --input-format csv"),
        ("a.csv", ";", "part them by commas"),
    ],
)
def test_fields_that_are_parted_by_something_else(file, name, mark, way):
    """The header shows it, and the error says what to do."""
    assert way in refused(file(name, f"id{mark}text\n1{mark}a\n"))


# --- Parquet ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.dictionary(pa.int8(), pa.large_string()),
    ],
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
    blocks = list(source(file("in.parquet", table), carried="parquet").read())
    batches = [block.records for block in blocks]

    assert pa.Table.from_batches(batches).equals(table)
    assert batches[0].schema.metadata == {b"made by": b"a test"}


def test_parquet_reads_only_the_text_where_nothing_else_is_wanted(file):
    """A matrix needs one column: the others stay on the disk."""
    table = pa.table({"text": ["a"], "embedding": [[1.0]]})
    (block,) = source(file("in.parquet", table)).read()

    assert block.records.schema.names == ["text"]


def test_an_empty_parquet_file_keeps_its_columns(file):
    """No rows, but a schema for the output."""
    table = pa.table({"text": pa.array([], pa.string()), "n": pa.array([], pa.int8())})
    blocks = list(source(file("in.parquet", table), carried="jsonl").read())

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
        next(Source(name="-", form="parquet").read())


def test_an_embedding_column_in_parquet_is_not_overwritten(file):
    """As in JSONL."""
    name = file("in.parquet", pa.table({"text": ["a"], "embedding": [1]}))

    assert "there is an 'embedding' already" in refused(name, carried="jsonl")


# --- blocks, counts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["in.txt", "in.jsonl", "in.csv", "in.parquet"])
def test_rows_come_in_blocks(file, name):
    """However long the file is, no more than a block of it is in memory at once."""
    words = [f"text {number}" for number in range(2 * BLOCK + 5)]
    content = {
        "in.txt": "\n".join(words), "in.jsonl": "\n".join(map(json.dumps, words)),
        "in.csv": "\n".join(["text", *words]),
        "in.parquet": pa.table({"text": words}),
    }[name]  # fmt: skip
    blocks = [block.texts for block in source(file(name, content)).read()]

    assert [len(block) for block in blocks] == [BLOCK, BLOCK, 5]
    assert sum(blocks, []) == words  # noqa: RUF017 (three lists)


@pytest.mark.parametrize("takes", [[1] * 7, [7], [3, 4], [0, 2, 0, 5]])
def test_records_come_back_beside_their_texts(takes):
    """However many are taken at once, and wherever blocks end, record i belongs to text i."""
    words = [str(number) for number in range(7)]
    blocks = [
        Block(words[:2], words[:2]),
        Block([], []),
        Block(words[2:], pa.RecordBatch.from_pydict({"text": words[2:]})),
    ]
    rows = Rows(iter(blocks))

    async def read_all():
        return [text async for text in rows.texts()]

    assert anyio.run(read_all) == words
    taken = []
    for each in takes:
        pieces = rows.take(each)
        found = [
            record
            for piece in pieces
            for record in (piece if isinstance(piece, list) else piece.column("text").to_pylist())
        ]
        assert len(found) == each
        taken += found
    assert taken == words


# --- what is found before anything is sent ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("a.txt", "one\ntwo", 2),
        ("a.txt", "one\ntwo\n", 2),
        ("a.txt", "", 0),
        ("a.jsonl", '"a"\n\n"b"\n', 2),
        ("a.csv", 'text\n"a\nb"\nc\n', 2),
        ("a.parquet", pa.table({"text": ["a"] * 9}), 9),
    ],
)
def test_looking_through_counts_the_rows(file, name, content, rows):
    """For the progress bar; a field may hold line breaks."""
    assert source(file(name, content)).look_through() == rows


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_nobody_looks_through_what_cannot_be_read_twice(tmp_path):
    """A pipe with a name, and a file that is not there (reading will say so)."""
    os.mkfifo(tmp_path / "pipe.txt")

    assert [source(str(tmp_path / name)).look_through() for name in ("pipe.txt", "none.txt")] == [None] * 2


BAD = {
    "null": '{"text": null}', "missing": '{"body": "x"}', "a number": '{"text": 7}', "an object": '{"text": {"a": 1}}',
    "a list": '{"text": ["a"]}', "a truth value": '{"text": true}', "NaN": '{"text": NaN}', "not JSON": "oops",
    "cut": '{"text": "a"',
    "two values": '{"text": "a"} {"text": "b"}', "an array": '["a"]', "null alone": "null", "a number alone": "7",
    "not UTF-8": b'{"text": "\xff"}',
    "half a pair": '{"text": "\\ud83d"}', "deep": '{"text": ' + "[" * 5000 + "]" * 5000 + "}", "empty object": "{}",
}  # fmt: skip


@pytest.mark.parametrize("line", BAD.values(), ids=BAD)
def test_a_bad_row_of_jsonl_is_refused_by_place_or_costs_its_row(file, line):
    """Wherever it stands: with "raise" it is found before anything is
    sent, by row and line, with the way out; else it is a row without text.
    """
    line = line if isinstance(line, bytes) else line.encode()
    name = file("in.jsonl", b'"ok"\n' * 1_000 + line + b'\n{"text": "last"}\n')
    with pytest.raises(ConfigError) as error:
        source(name).look_through()
    read = texts(name, skip=True, carried="jsonl")

    assert str(error.value).startswith(f"{name}, row 1000 (line 1001): ")
    assert str(error.value).endswith("; --on-error skip makes it a failed row")
    assert read == ["ok"] * 1_000 + [None, "last"]
    assert list(faults(name)) == [1000]
    assert source(name, skip=True).look_through() == 1_002


def test_an_empty_text_is_refused_where_the_provider_refuses_it(file):
    """Before it is paid for; a provider that takes it gets it."""
    name = file("in.jsonl", '"a"\n""\n')

    assert "row 1 (line 2): 'text' is empty, and this provider embeds no empty text" in refused(name, empty=False)
    assert texts(name) == ["a", ""]
    table = file("in.parquet", pa.table({"text": ["a", ""]}))
    assert "row 1: 'text' is empty" in refused(table, empty=False)


def test_a_column_that_no_row_has_is_refused_even_with_skip(file):
    """Nothing but failed rows is no result: the first reason is named."""
    name = file("in.jsonl", '{"body": "a"}\n' * 300)
    with pytest.raises(
        ConfigError, match=r"no row has a text that can be used; row 0, line 1: no 'text'; there is 'body'"
    ):
        source(name, skip=True).look_through()


@pytest.mark.parametrize(
    "line",
    [
        '{"text":"a","n":NaN,"i":[Infinity,{"deep":-Infinity}]}',
        '{"text":"a","big":' + "9" * 5_000 + ',"far":1e400,"near":1e-400}',
        '{"text":"a","twice":1,"twice":2,"text":"b"}',
        '{"text":"a","half":"\\ud800","\\udc00":1}',
        '{ "text" : "a" , "zero":-0 , "real":0.1000000000000000055511151231257827 }',
        '{"text":"a","deep":' + "[" * 400 + "]" * 400 + "}",
        '{"text":"\\u0041\\ud83d\\ude00","sep":"\u2028","nul":"\\u0000"}',
    ],
    ids=range(7),
)
def test_what_stands_beside_the_text_in_jsonl_is_carried_to_the_letter(file, line):
    """Python's NaN, numbers of any size, keys that repeat, halves of pairs, the spelling of everything."""
    for end in ("\n", "\r\n", ""):
        (block,) = source(file("in.jsonl", f"\ufeff{line}{end}"), carried="jsonl").read()
        assert block.records[0].source.decode() == line
        assert block.records[0]["text"] == json.loads(line, parse_int=str)["text"]


def test_what_parquet_cannot_hold_is_refused_by_row_and_field(file):
    """Half of a surrogate pair beside the text is no UTF-8 whatever one does; JSON can say it."""
    name = file("in.jsonl", '{"text": "a"}\n{"text": "b", "note": {"x": ["\\ud800"]}}\n')

    assert "row 1 (line 2): 'note' holds half of a surrogate pair" in refused(name, carried="parquet", skip=True)
    assert texts(name, carried="jsonl") == texts(name) == ["a", "b"]


@pytest.mark.parametrize(("depth", "taken"), [(499, True), (500, False), (900, False)])
def test_nesting_that_could_not_be_written_is_refused_at_reading(file, depth, taken):
    """Into Parquet it goes as text, up to a depth that Python can
    write from anywhere; JSONL carries the line itself.
    """
    name = file(
        "in.jsonl",
        '{"text": "a", "x": ' + "[" * depth + "]" * depth + "}\n" + '{"text": "b", "x": ' + f"{[[]] * 600}" + "}\n",
    )

    assert texts(name, carried="jsonl") == ["a", "b"]
    if taken:
        assert texts(name, carried="parquet") == ["a", "b"]
    else:
        assert "row 0 (line 1): nested more than 500 deep" in refused(name, carried="parquet")


def test_timestamps_of_spark_keep_their_year(tmp_path):
    """INT96, any year: pyarrow alone would wrap what does not fit into nanoseconds of 64 bits."""
    ends = [253_402_214_400_000_000, -62_135_596_800_000_000]  # the last day of 9999, the first of the year 1
    moments = pa.array([*ends, 1_577_836_800_123_456, None], pa.timestamp("us"))
    name = str(tmp_path / "in.parquet")
    pq.write_table(pa.table({"text": ["a"] * 4, "t": moments}), name, use_deprecated_int96_timestamps=True)
    *_, block = source(name, carried="jsonl").read()

    assert block.records["t"].to_pylist() == moments.to_pylist()


def test_parquet_costs_a_bad_row_alone(file):
    """Null, and text that is not UTF-8 (a file may hold it)."""
    words = pa.StringArray.from_buffers(3, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0"), pa.py_buffer(b"a\xffb"))
    name = file("in.parquet", pa.table({"text": pa.concat_arrays([words, pa.array([None, "c"])])}))

    assert texts(name, skip=True) == ["a", None, "b", None, "c"]
    assert faults(name) == {
        1: "'text' is not UTF-8 (invalid start byte at byte 0)",
        3: "'text' is null, which is no string",
    }
    assert "row 1: 'text' is not UTF-8" in refused(name)


def test_parquet_that_json_cannot_say_is_refused_before_anything_is_sent(file):
    """A string beside the text that is not UTF-8, by row; fields or
    columns of one name. As Parquet or a matrix they are no trouble.
    """
    words = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xff"))
    twins = pa.StructArray.from_arrays([pa.array([1, 2]), pa.array([1, 2])], ["x", "x"])
    for column, message in (
        (words, "row 1: column 'n' is not UTF-8"),
        (twins, "column 'n' cannot be written as JSON: two fields of"),
    ):
        for nested in (column, pa.array([[1], [2]]).from_arrays([0, 1, 2], column)):
            name = file("in.parquet", pa.table({"text": ["a", "b"], "n": nested}))
            assert message in refused(name, carried="jsonl", skip=True)
            assert texts(name, carried="parquet") == texts(name) == ["a", "b"]
    name = file("in.parquet", pa.Table.from_arrays([pa.array(["a"]), pa.array([1]), pa.array([2])], ["text", "n", "n"]))
    assert "two columns are called 'n'" in refused(name, carried="parquet")
    assert texts(name) == ["a"]
