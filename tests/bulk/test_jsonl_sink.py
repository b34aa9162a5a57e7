"""JSON lines: the record as it came, and the shortest text of each number."""

from __future__ import annotations

import datetime as dt
import decimal
import io
import json
import sys
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedkit import ConfigError
from embedkit._bulk.sinks.jsonl_sink import JsonlSink, StdoutSink
from embedkit._bulk.sources.rows import Line
from tests.support.sinks import like

WIDTH = 3


def vectors(count, start=0):
    return (np.arange(start * WIDTH, (start + count) * WIDTH) % 100).reshape(count, WIDTH).astype(np.float32)


def written(base, parts):
    """The path of what was written of (records, vectors, failures) parts."""
    sink = JsonlSink(str(base / "out.jsonl"))
    (base / "job").mkdir(exist_ok=True)
    sink.begin(base / "job", like(), None)
    for records, rows, *failures in parts:
        sink.write([records], rows, *(failures or [{}]), None)
    sink.sync()
    sink.finish({})
    sink.close()
    return sink.place


def lines(base, parts):
    return [json.loads(line) for line in written(base, parts).read_text("utf-8").splitlines()]


def dicts(*texts):
    return [{"text": text} for text in texts]


def test_jsonl_has_the_record_and_then_its_embedding(tmp_path):
    """Fields in their order, Unicode as it is, the embedding last; a float32 survives the way through text."""
    record = {"z": 1, "text": "Grüße 🙂", "a": {"deep": [1, None, 2.5]}, "big": 2**70}
    rows = np.array([[0.1, 1e-20, 16777217.0]], np.float32)
    path = written(tmp_path, [([record], rows)])
    line = path.read_text("utf-8")

    assert line.startswith(
        '{"z":1,"text":"Grüße 🙂","a":{"deep":[1,null,2.5]},"big":1180591620717411303424,"embedding":['
    )
    assert np.array_equal(np.array(json.loads(line)["embedding"], np.float32), rows[0])


def test_jsonl_spells_what_json_lacks(tmp_path):
    """Dates, times, decimals and bytes of a Parquet file become text."""
    batch = pa.RecordBatch.from_pydict(
        {
            "text": ["a"], "day": [dt.date(2026, 11, 25)], "time": pa.array([0], pa.timestamp("s")),
            "sum": [decimal.Decimal("1.10")],
            "raw": [b"\x00\xff"], "span": pa.array([1], pa.duration("s")), "list": [[1, 2]],
        }
    )  # fmt: skip
    (line,) = lines(tmp_path, [(batch, vectors(1))])

    assert line == {
        "text": "a", "day": "2026-11-25", "time": "1970-01-01T00:00:00", "sum": "1.10", "raw": "AP8=", "span": "PT1S",
        "list": [1, 2],
        "embedding": [0, 1, 2],
    }  # fmt: skip


def kept(source, **record):
    """A record of JSONL and its line."""
    line = Line(record)
    line.source = source
    return line


def test_a_record_of_jsonl_is_written_to_the_letter(tmp_path):
    """What JSON does not know, what no float holds, keys that
    repeat, spaces: as they came; an empty object needs no comma.
    """
    sources = [b'{"text":"a","n":NaN,"big":1e999,"x":1,"x":2}', b'{ "text" : "b" , "half":"\\ud800" }', b"{ }"]
    records = [kept(sources[0], text="a", x=2), kept(sources[1], text="b"), kept(sources[2])]
    path = written(tmp_path, [(records, vectors(3), {2: 'refused: \ud800 "x"'})])

    assert path.read_bytes().splitlines() == [
        sources[0][:-1] + b',"embedding":[0.0,1.0,2.0]}', sources[1][:-1] + b',"embedding":[3.0,4.0,5.0]}',
        b'{ "embedding":null,"embedding_error":"refused: \\\\ud800 \\"x\\""}',
    ]  # fmt: skip


ODD = [
    0.0,
    -0.0,
    1e-45,
    -1e-45,
    1.1754942e-38,
    1.17549435e-38,
    3.4028235e38,
    -3.4028235e38,
    0.1,
    1 / 3,
    16777217.0,
    1e22,
    9.5367431640625e-07,
]


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=64),
    st.integers(0, 2**32 - 1),
)
@example(ODD, 0)
def test_a_float32_comes_back_bit_by_bit_from_short_text(numbers, seed):
    """Through `json.loads` and numpy: every bit, denormals and the sign of zero too, in at most nine digits."""
    bits = np.random.default_rng(seed).integers(0, 2**32, 256, np.uint32).view(np.float32)
    rows = np.concatenate([np.array(numbers, np.float32), bits[np.isfinite(bits)]])[None, :]
    with TemporaryDirectory() as folder:
        text = written(Path(folder), [(dicts("a"), rows)]).read_text("utf-8")
    spelled = json.loads(text, parse_float=str, parse_constant=refuse)["embedding"]

    assert np.array(json.loads(text)["embedding"], np.float32).tobytes() == rows.tobytes()
    assert max(len(Decimal(each).normalize().as_tuple().digits) for each in spelled) <= 9


def refuse(constant):
    """No JSON has this."""
    raise AssertionError(constant)


def test_a_line_is_about_half_as_long_as_with_doubles(tmp_path):
    """1,536 components of a unit vector: about 12.5 bytes each, where a double's text takes 21."""
    row = np.random.default_rng(9).standard_normal((1, 1536)).astype(np.float32)
    row /= np.linalg.norm(row)
    line = written(tmp_path, [(dicts("a"), row)]).read_bytes()

    assert len(line) < 0.62 * len(json.dumps({"text": "a", "embedding": row[0].tolist()}, separators=(",", ":")))


def test_rows_that_are_not_contiguous_are_written_too(tmp_path):
    """Views with strides, and rows of Fortran's order."""
    wide = np.arange(12, dtype=np.float32).reshape(2, 6)
    for view in (wide[:, ::2], np.asfortranarray(wide)[:, 1:4], wide[::-1]):
        found = [line["embedding"] for line in lines(tmp_path, [(dicts("a", "b"), view)])]
        assert found == view.tolist()


def test_a_failed_row_says_why(tmp_path):
    """Null, and the error beside it; no other row has the field."""
    found = lines(tmp_path, [(dicts("a", "b"), vectors(2), {1: "too long"})])

    assert found == [
        {"text": "a", "embedding": [0, 1, 2]},
        {"text": "b", "embedding": None, "embedding_error": "too long"},
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"text":"a"}', "line 1 has no 'embedding'"), ("[1]", "line 1 has no 'embedding'"), ("{", "line 1: "),
        ('{"embedding":[1,2]}', "line 1 has 2 components, not 3"), ('{"embedding":["x"]}', "line 1: could not convert"),
        ('{"embedding":[[1],[2,3]]}', "line 1: "), ('{"embedding":"x"}', "line 1: could not convert"),
    ],
)  # fmt: skip
def test_what_is_no_line_of_ours_is_not_read_back(tmp_path, line, says):
    """The line is named; one number is not spread over a row."""
    path = tmp_path / "out.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ConfigError, match=says):
        list(JsonlSink(str(path)).read_back("text", None, like()))


def test_lines_that_json_does_not_know_are_read_back(tmp_path):
    """NaN beside the text is written as it came, and read."""
    path = written(tmp_path, [([kept(b'{"text":"a","n":NaN}', text="a")], vectors(1))])
    (found,) = JsonlSink(str(path)).read_back("text", None, like())

    assert (found[1], found[2].tolist()) == (["a"], [[0, 1, 2]])


# --- stdout ----------------------------------------------------------------------------------------------------------


def test_a_pipe_may_take_a_line_in_pieces(tmp_path):
    """An unbuffered handle that takes seven bytes at a time gets all of them, once."""

    class Narrow(io.RawIOBase):
        taken = b""

        def write(self, data):
            self.taken += bytes(data[:7])
            return min(len(data), 7)

    sink = StdoutSink()
    sink.begin(tmp_path, like(), None)
    sink._file = Narrow()
    sink.write([dicts("a", "b")], vectors(2), {}, None)

    assert sink._file.taken == b'{"text":"a","embedding":[0.0,1.0,2.0]}\n{"text":"b","embedding":[3.0,4.0,5.0]}\n'
    assert sink.sync() == {"rows": 2}


def test_stdout_stays_open_and_is_not_gone_on_with(tmp_path, capfd, monkeypatch):
    """What a pipe has taken is gone: nothing says that a later run could go on."""
    sink = StdoutSink()
    sink.begin(tmp_path, like(), None)
    sink.write([dicts("a")], vectors(1), {}, None)
    sink.finish({})
    sink.close()
    print("after", flush=True)  # noqa: T201

    assert capfd.readouterr().out == '{"text":"a","embedding":[0.0,1.0,2.0]}\nafter\n'
    assert not sink.resumable
    assert not sink.exists()
    assert not sink.finished(tmp_path, {"rows": 1})
    for call in (lambda: sink.begin(tmp_path, like(), {"rows": 1}), lambda: sink.reopen(tmp_path, {"rows": 1})):
        with pytest.raises(ConfigError, match="cannot be gone on with"):
            call()
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(ConfigError, match="stdout is closed"):
        StdoutSink().begin(tmp_path, like(), None)
