"""Parquet and Arrow: every row in order, with columns of every type."""

from __future__ import annotations

import gzip
import io
import sys
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedkit import ConfigError
from tests.bulk.reading import Pipe, faults, keys, read, records, refused, source, stdin, texts


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
    blocks = list(source(file("in.parquet", table), carried="parquet").blocks())
    batches = [block.records for block in blocks]

    assert pa.Table.from_batches(batches).equals(table)
    assert batches[0].schema.metadata == {b"made by": b"a test"}


def test_parquet_reads_only_the_text_where_nothing_else_is_wanted(file, monkeypatch):
    """A matrix needs one column: the others stay on the disk."""
    asked = []
    real = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile,
        "iter_batches",
        lambda *given, columns, **rest: asked.append(columns) or real(*given, columns=columns, **rest),
    )
    name = file("in.parquet", pa.table({"text": ["a"], "embedding": [[1.0]], "id": [1]}))

    assert (texts(name), keys(name, "id")) == (["a"], [1])
    assert [*map(list, asked)] == [["text"]] * 3 + [["text", "id"]] * 3


def test_an_empty_parquet_file_keeps_its_columns(file):
    """No rows, but a schema for the output."""
    table = pa.table({"text": pa.array([], pa.string()), "n": pa.array([], pa.int8())})
    blocks = list(source(file("in.parquet", table), carried="jsonl").blocks())

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


def test_parquet_does_not_come_through_a_pipe(monkeypatch):
    """Its index stands at the end: the error says so before anything is read."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Pipe(b"PAR1", 9))))

    assert "cannot be read from a pipe" in refused("-", form="parquet")


def test_an_embedding_column_in_parquet_is_not_overwritten(file):
    """As in JSONL."""
    for column in ("embedding", "embedding_error"):
        name = file("in.parquet", pa.table({"text": ["a"], column: [1]}))
        assert f"there is an '{column}' already" in refused(name, carried="jsonl")


def test_a_single_row_group_is_read_by_its_pages(file):
    """However large it is, pyarrow holds a small part of it."""
    name = file("in.parquet", b"")
    pq.write_table(
        pa.table({"text": [f"{n:08192}" for n in range(4_000)]}), name, compression="none", use_dictionary=False
    )
    before = pa.total_allocated_bytes()
    tracemalloc.start()  # what pyarrow reads from a file of Python's is Python's
    try:
        held = [pa.total_allocated_bytes() - before for _ in source(name, carried="parquet").blocks()]
        most = max(held) + tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert pq.ParquetFile(name).num_row_groups == 1
    assert Path(name).stat().st_size > 30_000_000
    assert most < 30_000_000


# --- Arrow -----------------------------------------------------------------------------------------------------------


def arrow(table, *, stream=False, rows=None, **how):
    """The bytes of an Arrow file or stream."""
    out = io.BytesIO()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(out, table.schema, **how) as writer:
        writer.write_table(table, rows)
    return out.getvalue()


WIDE = pa.table(
    {
        "text": [f"text {number}" for number in range(1_000)],
        "id": range(1_000),
        "doc": [{"title": f"t{number}", "n": number, "day": None} for number in range(1_000)],
        "kind": pa.array(["a", "b"] * 500).dictionary_encode(),
    }
)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("rows", [None, 7, 300])
@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
def test_arrow_files_and_streams(file, stream, rows, compression):
    """Batches of any size, packed inside or not, with their columns and types."""
    content = arrow(WIDE, stream=stream, rows=rows, options=pa.ipc.IpcWriteOptions(compression=compression))
    name = file("in.arrow", content)
    blocks = list(source(name, carried="parquet").blocks())

    assert texts(name) == WIDE["text"].to_pylist()
    assert keys(name, "id", "kind") == WIDE["id"].to_pylist()
    assert pa.Table.from_batches([block.records for block in blocks]).equals(WIDE)
    assert max(len(block.texts) for block in blocks) <= 256


@pytest.mark.parametrize("stream", [False, True])
def test_arrow_through_a_pipe_and_packed(file, monkeypatch, stream):
    """A file of Arrow is a stream between two marks; Parquet is unpacked into a temporary file."""
    content, words = arrow(WIDE, stream=stream), WIDE["text"].to_pylist()
    out = io.BytesIO()
    pq.write_table(WIDE, out)

    assert stdin(monkeypatch, content) == stdin(monkeypatch, content, form="arrow", size=13) == words
    assert texts(file("in.arrow.gz", gzip.compress(content))) == words
    assert texts(file("in.feather.zst", pa.compress(content, "zstd", asbytes=True))) == words
    assert texts(file("in.parquet.gz", gzip.compress(out.getvalue()))) == words
    assert stdin(monkeypatch, pa.compress(out.getvalue(), "zstd", asbytes=True), form="parquet") == words


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.999])
def test_a_cut_arrow_file_is_refused(file, stream, share, suffix):
    """Wherever it was cut; pyarrow's words, and the file's name."""
    content = arrow(WIDE, stream=stream, rows=100)
    content = content[: int(len(content) * share)]
    name = file(f"in.arrow{suffix}", gzip.compress(content) if suffix else content)

    assert "in.arrow" in refused(name, skip=True)


def test_offsets_of_an_arrow_file_are_not_believed(file):
    """One that points beyond the text would crash the process."""
    whole = arrow(pa.table({"text": ["abcd", "efgh", "ijkl"]}))
    assert whole.count((8).to_bytes(4, "little") + (12).to_bytes(4, "little")) == 1
    spoilt = whole.replace(
        (8).to_bytes(4, "little") + (12).to_bytes(4, "little"),
        (8).to_bytes(4, "little") + (2**30).to_bytes(4, "little"),
    )

    assert "in.arrow: cannot be read as Arrow: " in refused(file("in.arrow", spoilt), skip=True)


def test_an_arrow_text_that_is_not_utf8_costs_its_row(file):
    """As in Parquet."""
    words = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xff"))

    assert faults(file("in.arrow", arrow(pa.table({"text": words})))) == {
        1: "'text' is not UTF-8 (invalid start byte at byte 0)"
    }


# --- nested fields, templates, keys ----------------------------------------------------------------------------------


@pytest.mark.parametrize("carried", ["", "jsonl", "parquet"])
def test_fields_of_structs_templates_and_keys(file, carried):
    """Nested ones, a column called "a.b", numbers and times in a template, categories as keys."""
    table = WIDE.append_column("doc.n", pa.array(["real"] * 1_000)).append_column(
        "at", pa.array([0] * 1_000, pa.timestamp("s"))
    )
    name = file("in.parquet", table)

    assert texts(name, "doc.title", carried=carried)[:2] == ["t0", "t1"]
    assert texts(name, "doc.n", carried=carried)[:2] == ["real", "real"]
    assert keys(name, "kind", carried=carried)[:3] == ["a", "b", "a"]
    assert keys(name, "doc.title", carried=carried)[:2] == ["t0", "t1"]
    assert texts(name, template="{id} {doc.title}\\n{at}", carried=carried)[1] == "1 t1\n1970-01-01T00:00:00"


@pytest.mark.parametrize("carried", ["", "jsonl"])
def test_null_fields_and_keys_cost_their_row(file, carried):
    """A struct that is null has null fields."""
    table = pa.table({"doc": [{"a": "x"}, None, {"a": None}], "text": ["a", "b", None], "id": [None, 2, 3]})
    name = file("in.parquet", table)

    assert faults(name, "doc.a", carried=carried) == {
        1: "'doc.a' is null, which is no string",
        2: "'doc.a' is null, which is no string",
    }
    assert read(source(name, key="id", skip=True, carried=carried))[1:] == [
        {0: "the key 'id' is null, which is no string or whole number", 2: "'text' is null, which is no string"},
        [None, 2, 3],
    ]
    assert faults(name, template="{text}{id}") == {
        0: "'id' is null, which is no string or number",
        2: "'text' is null, which is no string or number",
    }


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"key": "x"}, "no 'x'; there is 'text', 'n', 'doc', 'list' (choose with --key)"),
        ({"key": "n"}, "'n' is double, not string or integer"),
        ({"key": "doc"}, "'doc' is struct<a: int64>, not string or integer"),
        ({"column": "doc.a"}, "'doc.a' is int64, not string"),
        ({"column": "doc.b"}, "no 'doc.b'; there is"),
        ({"column": "text.a"}, "no 'text.a'; there is"),
        ({"template": "{text}{y}"}, "no 'y'; there is 'text', 'n', 'doc', 'list' (choose with --template)"),
        ({"template": "{text}{list}"}, "'list' is list<element: int64>, not string, number or time"),
    ],
)
def test_a_column_that_cannot_be_is_refused_at_once(file, how, message):
    """When the source is opened: nothing has been read."""
    name = file("in.parquet", pa.table({"text": ["a"], "n": [0.5], "doc": [{"a": 1}], "list": [[1]]}))
    with pytest.raises(ConfigError) as error:
        source(name, **how)
    assert message in str(error.value)


# --- several files ---------------------------------------------------------------------------------------------------


def test_files_of_one_schema_or_of_wider_types_are_one_table(file):
    """Columns of any, nulls where a file has none, each type wide enough."""
    first = pa.table({"text": ["a"], "n": pa.array([1], pa.int32()), "s": ["x"]})
    second = pa.table({"text": pa.array(["b"], pa.large_string()), "m": [2.5], "n": pa.array([2**40])})
    names = [file("1.parquet", first), file("2.arrow", arrow(second))]
    blocks = list(source(names, carried="parquet").blocks())
    table = pa.Table.from_batches([block.records for block in blocks])

    assert texts(names, carried="parquet") == texts(names) == ["a", "b"]
    assert table.to_pylist() == [
        {"text": "a", "n": 1, "s": "x", "m": None},
        {"text": "b", "n": 2**40, "s": None, "m": 2.5},
    ]
    assert records(names) == [{"text": "a", "n": 1, "s": "x"}, {"text": "b", "m": 2.5, "n": 2**40}]


def test_columns_that_contradict_each_other_are_refused_for_parquet(file):
    """Text and numbers, at once; a value that its common type cannot hold, by row; files without types beside some."""
    one = file("1.parquet", pa.table({"text": ["a"], "n": [1]}))
    two = file("2.parquet", pa.table({"text": ["b"], "n": ["x"]}))
    for how in ("", "jsonl"):
        assert texts([one, two], carried=how) == ["a", "b"]
    with pytest.raises(
        ConfigError, match=r"2.parquet: column 'n' is string, and int64 in .*1.parquet: one Parquet file"
    ):
        source([one, two], carried="parquet")
    with pytest.raises(ConfigError, match=r"has typed columns and .*a.csv has none"):
        source([one, file("a.csv", "text\na\n")], carried="parquet")
    far = file("3.parquet", pa.table({"text": ["c"], "n": [2**60 + 1]}))
    half = file("4.parquet", pa.table({"text": ["d"], "n": [0.5]}))
    assert "row 0 (row 0 of this file): column 'n' does not fit" in refused([far, half], carried="parquet", skip=True)


def test_a_row_is_named_by_its_file(file):
    """Its own row there, and the row of all."""
    names = [file("1.parquet", pa.table({"text": ["a", "b"]})), file("2.parquet", pa.table({"text": ["c", None]}))]

    assert faults(names) == {3: f"{names[1]}, row 1: 'text' is null, which is no string"}
    assert f"{names[1]}, row 3 (row 1 of this file): 'text' is null" in refused(names)
