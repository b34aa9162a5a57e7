"""What a job reads: options, blocks, and what is found before anything is sent."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedkit import ConfigError, bulk
from embedkit._batching.plan import estimate
from embedkit._bulk.sources.open_source import BLOCK, open_source
from embedkit.testing import FakeEmbedder
from tests.bulk.reading import faults, read, refused, source, texts


@pytest.mark.parametrize("name", ["in.txt", "in.jsonl", "in.csv", "in.parquet"])
def test_rows_come_in_blocks(file, name):
    """However long the file is, no more than a block of it is in memory at once."""
    words = [f"text {number}" for number in range(2 * BLOCK + 5)]
    content = {
        "in.txt": "".join(f"{word}\n" for word in words),
        "in.jsonl": "".join(f"{json.dumps(word)}\n" for word in words),
        "in.csv": "\n".join(["text", *words]),
        "in.parquet": pa.table({"text": words}),
    }[name]  # fmt: skip
    blocks = [block.texts for block in source(file(name, content)).blocks() if block.texts]

    assert [len(block) for block in blocks] == [BLOCK, BLOCK, 5]
    assert sum(blocks, []) == words  # noqa: RUF017 (three lists)


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
    assert source(file(name, content)).scan(estimate).rows == rows


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.csv", "a.parquet", "a.arrow", "a.txt.gz"])
def test_a_name_that_is_not_utf8_is_a_name(file, tmp_path, monkeypatch, name):
    """Files have such names on Linux: they are read, and the report of the job names them as Python does."""
    table = pa.table({"text": ["a", "b"]})
    arrow = pa.BufferOutputStream()
    with pa.ipc.new_file(arrow, table.schema) as writer:
        writer.write_table(table)
    content = {
        "a.txt": "a\nb\n", "a.jsonl": '"a"\n"b"\n', "a.json": '["a", "b"]', "a.csv": "text\na\nb\n", "a.parquet": table,
        "a.arrow": arrow.getvalue().to_pybytes(), "a.txt.gz": gzip.compress(b"a\nb\n"),
    }[name]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    odd = os.fsdecode(b"\xe9" + name.encode())
    try:
        os.rename(file(name, content), odd)  # noqa: PTH104
    except OSError:
        pytest.skip("this file system has no such names")
    report = bulk.run_sync(odd, FakeEmbedder(4), "out.jsonl")
    (tmp_path / "in").mkdir()
    os.rename(odd, f"in/{odd}")  # noqa: PTH104

    assert [json.loads(line)["text"] for line in Path("out.jsonl").read_text().splitlines()] == ["a", "b"]
    assert report.input["inputs"] == [rf"\udce9{name}"]
    assert bulk.run_sync("in", FakeEmbedder(4), "two.npy").rows == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_nobody_looks_through_what_cannot_be_read_twice(tmp_path):
    """A pipe with a name: nobody writes into it, so it may not even be opened."""
    os.mkfifo(tmp_path / "pipe.txt")
    given = source(str(tmp_path / "pipe.txt"))

    assert (given.again, given.scan(estimate)) == (False, None)


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
        source(name).scan(estimate)
    read = texts(name, skip=True, carried="jsonl")

    assert str(error.value).startswith(f"{name}, row 1000 (line 1001): ")
    assert str(error.value).endswith("; --on-error skip makes it a failed row")
    assert read == ["ok"] * 1_000 + [None, "last"]
    assert list(faults(name)) == [1000]
    assert source(name, skip=True).scan(estimate).rows == 1_002


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
        source(name, skip=True).scan(estimate)


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
        (block,) = source(file("in.jsonl", f"\ufeff{line}{end}"), carried="jsonl").blocks()
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
    *_, block = source(name, carried="jsonl").blocks()

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


# --- several files, options ------------------------------------------------------------------------------------------


def test_files_of_several_formats_are_one_input(file):
    """In the order given: rows count on, lines do not."""
    names = [
        file("1.txt", "a\nb\n"), file("2.jsonl.gz", gzip.compress(b'{"text": "c"}\n\n{"text": null}\n')),
        file("3.csv", "n,text\n1,d\n2\n"), file("4.json", '["e",\n7]'), file("5.parquet", pa.table({"text": ["f", None]})),
        file("6.txt", ""),
    ]  # fmt: skip
    given = source(names, skip=True)
    found, wrong, _ = read(given)

    assert found == ["a", "b", "c", None, "d", None, "e", None, "f", None]
    assert wrong == {
        3: f"{names[1]}, line 3: 'text' is null, which is no string",
        5: f"{names[2]}, line 3: 'text' is null, which is no string",
        7: f"{names[3]}, line 2: 7 is neither an object nor a string",
        9: f"{names[4]}, row 1: 'text' is null, which is no string",
    }
    assert refused(names).startswith(f"{names[1]}, row 3 (line 3): 'text' is null")
    assert given.scan(estimate).bytes == sum(Path(name).stat().st_size for name in names)
    for limit in range(12):
        assert texts(names, skip=True, limit=limit) == found[:limit]


def test_a_limit_ends_before_a_bad_row(file):
    """What lies behind it is not read."""
    names = [file("a.jsonl", '"a"\n' * 300 + "oops\n"), file("b.csv", "text\nb\n")]

    assert texts(names, limit=300) == ["a"] * 300
    assert "row 300 (line 301)" in refused(names, limit=301)


def test_what_a_journal_keeps_of_an_input(file):
    """Names as they were given, formats, sizes, fields, the encoding: in JSON, and the same each time."""
    name = file("in.csv.gz", gzip.compress(b"a,b\n1,2\n"))
    described = source(name, template="{a}{b}", key="a", encoding="latin-1", limit=5).described()

    assert described == {
        "inputs": [name],
        "files": [{"name": name, "format": "csv", "bytes": Path(name).stat().st_size}],
        "template": "{a}{b}",
        "key": "a",
        "encoding": "iso8859-1",
        "limit": 5,
    }
    assert json.loads(json.dumps(described)) == described
    assert source(name, "a").described()["column"] == "a"


def test_a_path_a_list_of_paths_or_texts(file):
    """A string is a name; a list of strings is texts, unless they are called like files."""
    name = file("a.txt", "one\n")

    assert (
        read(open_source(name))[0] == read(open_source(Path(name)))[0] == read(open_source([Path(name)]))[0] == ["one"]
    )
    assert read(open_source(["one", name]))[0] == ["one", name]
    assert read(open_source(iter([name])))[0] == [name]
    for given in ([name], [name, name], (name,), [Path(name), "one"]):
        with pytest.raises(ConfigError, match="are these names of files, or texts"):
            open_source(given)
    assert read(open_source([]))[0] == []


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"column": ""}, "--column is empty"),
        ({"column": "\udcff"}, r"--column '\udcff' is not UTF-8"),
        ({"key": "\udcff"}, r"--key '\udcff' is not UTF-8"),
        ({"column": "a", "template": "{b}"}, "contradict each other"),
        ({"template": "b"}, "names no field"),
        ({"encoding": "nope"}, "Python has no such text encoding"),
        ({"delimiter": "::"}, "it is one character"),
        ({"limit": -1}, "it is a number of rows"),
        ({"form": "xml"}, "format 'xml': it is one of text, jsonl"),
    ],
)
def test_an_option_that_is_none_is_refused(file, how, message):
    """Before a file is opened."""
    with pytest.raises(ConfigError) as error:
        open_source("none.txt", **how)
    assert message in str(error.value)


def test_an_input_that_changes_has_another_digest(file):
    """One character, one row, one key: not so what is beside them."""
    rows = [{"text": f"text {number}", "id": number, "n": 0} for number in range(300)]

    def digest(**change):
        changed = [*rows[:299], {**rows[299], **change}]
        name = file("in.jsonl", "".join(json.dumps(row) + "\n" for row in changed))
        return source(name, key="id").scan(estimate).digest

    assert digest() == digest(n=1)
    assert len({digest(), digest(text="text 298"), digest(id=300), digest(id="299")}) == 4


def spoilt(content, chance):
    """The same with a byte changed, left out or put in here and there, or its end cut off."""
    found = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 5])):
        place = chance.randrange(len(found))
        kind = chance.randrange(4)
        if kind == 0:
            found[place] ^= 1 << chance.randrange(8)
        elif kind == 1 and len(found) > 200:
            del found[place : place + chance.choice([1, 5, 100])]
        elif kind == 2:
            found[place:place] = chance.randbytes(chance.choice([1, 4]))
        elif len(found) > 200:
            del found[max(place, 100) :]
    return bytes(found)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.csv", "a.parquet", "a.arrow", "a.arrows"])
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_a_spoilt_file_is_read_or_refused(file, name, packed):
    """Whatever happened to it: rows, the same when it is looked through, or a ConfigError; no other error, no crash."""
    rows = [{"text": f"text {number} é", "id": number, "d": {"a": "b"}} for number in range(30)]
    out, table = io.BytesIO(), pa.Table.from_pylist(rows)
    if name.endswith(("arrow", "arrows")):
        with (pa.ipc.new_file if name.endswith("w") else pa.ipc.new_stream)(out, table.schema) as writer:
            writer.write_table(table, 20)
    elif name.endswith("parquet"):
        pq.write_table(table, out)
    content = {
        "a.txt": "\n".join(row["text"] for row in rows).encode(),
        "a.jsonl": "\n".join(map(json.dumps, rows)).encode(),
        "a.json": json.dumps(rows, indent=1).encode(),
        "a.csv": ("text,id,d.a\n" + "".join(f'"a, {number}é",{number},b\n' for number in range(30))).encode(),
    }.get(name, out.getvalue())
    chance = random.Random(name + packed)
    for _ in range(40):
        broken = spoilt(gzip.compress(content) if packed else content, chance)
        how = chance.choice([{}, {"column": "d.a"}, {"key": "id"}, {"template": "{text} {id}"}, {"encoding": "utf-16"}])
        with suppress(ConfigError):
            texts(
                file(name + packed, broken),
                skip=chance.random() < 0.7,
                carried=chance.choice(["", "jsonl", "parquet"]),
                **how,
            )
