"""Every sink: what comes out is the same, whatever happened on the way."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit import ConfigError
from embedkit._bulk.contract import Sink
from embedkit._bulk.sinks import open_sink as sinks
from embedkit._bulk.sinks.file_sink import FileSink
from embedkit._bulk.sinks.jsonl_sink import StdoutSink
from embedkit._bulk.sinks.open_sink import FORMS, SUFFIXES, open_sink
from tests.support.sinks import (
    METADATA,
    NAMES,
    WIDTH,
    KilledError,
    expected_vectors,
    files_of,
    killed_at,
    like,
    opened,
    other_file_system,
    rows_of,
    small_disk,
    small_files,
    spoil,
    target,
    vectors_of,
    whole,
    write,
)

ROWS = 26
every_sink = pytest.mark.parametrize("kind", FORMS)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """By kind, the files of a job of `ROWS` rows that nothing interrupted, in small parts."""
    base = tmp_path_factory.mktemp("undisturbed")
    with small_files():
        found = {kind: files_of(whole(base / kind, kind, ROWS)) for kind in FORMS}
    return lambda kind: found[kind]


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "form", "made"),
    [
        ("a.npy", None, "npy"), ("a.NPY", None, "npy"), ("a.jsonl", None, "jsonl"), ("a.ndjson", None, "jsonl"),
        ("a.parquet", None, "parquet"), ("a.pq", None, "parquet"), ("a.arrow", None, "arrow"),
        ("a.feather", None, "arrow"), ("a/", None, "folder"), ("there", None, "folder"), ("there", "parquet", "folder"),
        ("a", "folder", "folder"), ("a.npy", "jsonl", "jsonl"), ("a.v1", "parquet", "parquet"),
        ("there.npy/", None, "folder"), ("-", None, "jsonl"), ("-", "jsonl", "jsonl"),
    ],
)  # fmt: skip
def test_a_name_tells_the_form(tmp_path, name, form, made):
    """By suffix, a slash at the end or a folder that is there, unless a form is asked for."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there.npy").mkdir()
    sink = open_sink(name if name == "-" else f"{tmp_path}/{name}", form)

    assert sink.form == made
    assert isinstance(sink, StdoutSink) == (name == "-")


@pytest.mark.parametrize(
    ("name", "form", "says"),
    [
        ("a", None, "suffix names no known format"), ("a.txt", None, "suffix names no known format"),
        ("a.npy", "csv", "there is npy, jsonl"), ("there.npy", None, r"is a folder: name a file, or end the name in /"), ("there", "npy", "is a folder"), ("a/", "jsonl", "is a folder"),
        ("no/a.npy", None, "no folder .*no$"), ("-", "npy", "does not go to stdout"), ("file", "folder", "is a file"),
        ("pipe.npy", None, "not a regular file"), ("sqlite:x.db", "npy", "is a store"),
    ],
)  # fmt: skip
def test_a_name_that_cannot_be_written_is_refused(tmp_path, name, form, says):
    """Before anything is sent, with the name."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there.npy").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe.npy")
    with pytest.raises(ConfigError, match=says):
        open_sink(name if name == "-" or ":" in name else f"{tmp_path}/{name}", form)


def test_an_empty_name_is_none():
    """It is the folder that the job runs in nowhere but in the rules of paths."""
    with pytest.raises(ConfigError, match="the name of the output is empty"):
        open_sink("")


@pytest.mark.parametrize("name", ["{}.npy", "{}/", "sqlite:{}.db#t", "duckdb:x.db#{}"])
def test_a_name_that_is_not_utf8_is_refused(name):
    """Parquet, Arrow and DuckDB can have no such name, and would fail at the end."""
    with pytest.raises(ConfigError, match=r"\\udce9.*: the name is not UTF-8"):
        open_sink(name.format(os.fsdecode(b"\xe9")))


def test_a_link_to_a_folder_that_is_missing_is_told_by_that_folder(tmp_path):
    """Not by the one that the link lies in, which is there."""
    (tmp_path / "link.npy").symlink_to("missing/out.npy")
    with pytest.raises(ConfigError, match=r"link\.npy: there is no folder .*missing$"):
        open_sink(str(tmp_path / "link.npy"))


def test_the_url_of_a_store_goes_to_the_stores(monkeypatch):
    """With the column and the key; a drive's letter is no store."""

    class Stores:
        @staticmethod
        def open_store(url, **options):
            return url, options

    monkeypatch.setattr(sinks, "import_module", lambda name, package: Stores)
    for url in ("lancedb:x", "qdrant:http://h:1#c", "postgresql://h/d", "postgres://h/d", "sqlite:a.db", "duckdb:a"):
        assert open_sink(url, column="c", key="k") == (url, {"column": "c", "template": None, "key": "k"})
    with pytest.raises(ConfigError, match="suffix"):
        open_sink("c:out")


def test_every_form_has_a_suffix_or_is_a_folder():
    """No suffix leads nowhere."""
    assert {*SUFFIXES.values(), "folder"} == set(FORMS)


@every_sink
def test_opening_makes_nothing(tmp_path, kind):
    """A job that is refused leaves no trace."""
    sink = open_sink(f"{tmp_path}/{NAMES[kind]}")

    assert not sink.exists()
    assert list(tmp_path.iterdir()) == []
    assert isinstance(sink, Sink)
    assert sink.place == target(tmp_path, kind)


# --- rows ------------------------------------------------------------------------------------------------------------


@every_sink
@pytest.mark.parametrize("rows", [0, 1, 7, 8, 16, ROWS])
def test_rows_come_out_as_they_went_in(tmp_path, kind, rows):
    """In order, each once, whatever the number; failed ones without a vector."""
    with small_files():
        path = whole(tmp_path, kind, rows)

    assert vectors_of(path) == expected_vectors(rows)
    assert list((tmp_path / "job").iterdir()) == []


@every_sink
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_vectors_keep_their_type(tmp_path, kind, dtype):
    """A failed row of integers is zeros in a matrix, null elsewhere."""
    path = whole(tmp_path, kind, 5, dtype)
    found = np.load(path).tolist() if kind == "npy" else vectors_of(path)
    missing = [0] * WIDTH if kind == "npy" else None

    assert found == [missing if row == 3 else rows_of(row, 1, dtype)[1][0].tolist() for row in range(5)]


@every_sink
def test_rows_come_out_whatever_their_memory_looks_like(tmp_path, kind):
    """Views with strides, Fortran's order and big-endian numbers are written as the rows they show."""
    wide = np.arange(24, dtype=np.float32).reshape(4, 6)
    views = [wide[:, ::2], np.asfortranarray(wide)[:, 1:4], wide[::-1, :3], wide[:, :3].astype(">f4")]
    sink = opened(tmp_path, kind)
    for view in views:
        sink.write([[{"text": "t"}] * 4], view, {}, None)
    sink.sync()
    sink.finish({})
    sink.close()

    assert vectors_of(target(tmp_path, kind)) == np.concatenate(views).tolist()


@pytest.mark.parametrize("kind", ["parquet", "arrow", "folder"])
def test_records_and_vectors_must_be_as_many(tmp_path, kind):
    """A mistake of the caller's is no shifted output."""
    sink = opened(tmp_path, kind)
    with pytest.raises(ValueError, match="1 records for 2 vectors"):
        sink.write([[{"text": "t"}]], np.zeros((2, WIDTH), np.float32), {}, None)
    sink.close()


# --- crashes ---------------------------------------------------------------------------------------------------------

steps = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from(["go on", "sync", "sync", "crash", "crash before the journal"])),
    max_size=12,
)


@every_sink
@settings(deadline=None, max_examples=25)
@given(steps, st.binary(max_size=300))
def test_random_crashes_change_nothing(undisturbed, kind, steps, garbage):
    """After any crash a new sink goes on from the last state that the journal has, and the files are, byte by byte,
    those of a job that nothing interrupted.
    """
    with TemporaryDirectory() as folder, small_files():
        base = Path(folder)
        sink, row, states = opened(base, kind), 0, [None]
        for count, then in steps:
            write(sink, row, min(count, ROWS - row))
            row += min(count, ROWS - row)
            if then == "sync":
                states.append(sink.sync())
                assert states[-1]["rows"] == row
            elif then != "go on":
                if then != "crash":
                    sink.sync()  # and the process ends before the journal has that
                sink.close()
                spoil(base / "job", garbage)
                state = states[-1]
                assert state is None or not sink.finished(base / "job", state)
                sink = opened(base, kind, None if state is None else json.loads(json.dumps(state)))
                row = 0 if state is None else state["rows"]
        write(sink, row, ROWS - row)
        sink.sync()
        sink.finish(METADATA)
        sink.close()
        sink.close()

        assert files_of(target(base, kind)) == undisturbed(kind)


@every_sink
def test_a_crash_at_any_step_changes_nothing(tmp_path, undisturbed, kind):
    """Whichever call the process dies at, in parts, in checkpoints or at the end, it goes on from its journal."""
    step, over = 0, False
    while not over:
        step += 1
        base = tmp_path / str(step)
        base.mkdir()
        states, row, sink = [None], 0, None
        try:
            with small_files(), killed_at(step):
                sink = opened(base, kind)
                while row < ROWS:
                    write(sink, row, min(6, ROWS - row))
                    row += min(6, ROWS - row)
                    states.append(sink.sync())
                sink.finish(METADATA)
                over = True
        except KilledError:
            if sink is not None:
                sink.close()
        state = states[-1]
        if over or (state is not None and sink.finished(base / "job", state)):
            assert files_of(target(base, kind)) == undisturbed(kind)
            continue
        row = state["rows"] if state else 0
        with small_files():
            sink = opened(base, kind, state)
            write(sink, row, ROWS - row)
            sink.sync()
            sink.finish(METADATA)
            sink.close()

        assert files_of(target(base, kind)) == undisturbed(kind), step
    assert step > 3


@every_sink
def test_a_new_job_does_not_harm_the_old_output_before_it_is_done(tmp_path, kind):
    """A file stays as it is until another takes its name; of a folder only parts of ours go."""
    path = whole(tmp_path, kind, 5)
    before = files_of(path)
    if kind == "folder":
        (path / "notes.txt").write_text("mine")
    sink = opened(tmp_path, kind)
    write(sink, 0, 3)
    sink.sync()
    during = files_of(path)
    sink.finish(METADATA)
    sink.close()

    assert during == before if kind != "folder" else set(during) == {"notes.txt"}
    if kind != "folder":
        assert vectors_of(path) == expected_vectors(3)


@every_sink
def test_a_shorter_file_than_it_was_is_refused(tmp_path, kind):
    """What somebody has cut off cannot be gone on with, and the message says what to do."""
    sink = opened(tmp_path, kind)
    write(sink, 0, 5)
    state = sink.sync()
    sink.close()
    (path,) = (tmp_path / "job").iterdir()
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(ConfigError, match=f"{path.name} holds .*--force"):
        opened(tmp_path, kind, state)
    path.unlink()
    with pytest.raises(ConfigError, match=f"{path.name} is gone.*--force"):
        opened(tmp_path, kind, state)


@pytest.mark.parametrize("kind", ["npy", "parquet", "arrow", "folder"])
def test_vectors_of_another_width_are_refused(tmp_path, kind):
    """A file of rows of one width gets no others."""
    sink = opened(tmp_path, kind)
    state = sink.sync()
    sink.close()

    with pytest.raises(ConfigError, match="vectors of 3 <f4, and these are of 4 <f4"):
        open_sink(str(target(tmp_path, kind)), kind).begin(tmp_path / "job", like(width=4), state)


def test_a_part_that_is_gone_is_told(tmp_path):
    """Nobody else writes it again."""
    with small_files():
        sink = opened(tmp_path, "folder")
        write(sink, 0, ROWS)
        state = sink.sync()
        sink.close()
        (tmp_path / "out" / "part-00001.parquet").unlink()
        with pytest.raises(ConfigError, match=r"part-00001.parquet is gone"):
            opened(tmp_path, "folder", state)


# --- adding to a finished output -------------------------------------------------------------------------------------


@every_sink
@pytest.mark.parametrize("first", [5, 8, 16])
def test_rows_are_added_to_a_finished_output(tmp_path, kind, first):
    """As often as wanted, after crashes too; the output is there all the time."""
    with small_files():
        path = whole(tmp_path, kind, first)
        sink = open_sink(str(path), kind)
        left = open_sink(str(path), kind)
        state = {"rows": first, "parts": first // 8, "spooled": first % 8}
        added = left.reopen(tmp_path / "job", state)
        assert added["rows"] == first
        assert vectors_of(path) == expected_vectors(first)
        sink.begin(tmp_path / "job", like(), added)
        write(sink, first, 10)
        sink.close()
        sink = opened(tmp_path, kind, json.loads(json.dumps(added)))
        write(sink, first, ROWS - first)
        sink.sync()
        sink.finish(METADATA)
        sink.close()

    assert vectors_of(path) == expected_vectors(ROWS)
    assert list((tmp_path / "job").iterdir()) == []


@every_sink
def test_an_output_that_was_changed_gets_no_rows(tmp_path, kind):
    """More or fewer rows than the job left in it: somebody else's."""
    path = whole(tmp_path, kind, 5)
    with pytest.raises(ConfigError, match="it has 5 rows, and was left with 6"):
        open_sink(str(path), kind).reopen(tmp_path / "job", {"rows": 6, "parts": 0, "spooled": 6})

    assert vectors_of(path) == expected_vectors(5)


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "arrow", "folder"])
def test_what_an_output_holds_can_be_read_back(tmp_path, kind):
    """Keys, texts and vectors of the rows that have one, in order; fields by name, by path, or from the record."""
    with small_files():
        path = whole(tmp_path, kind, ROWS)
    good = [row for row, vector in enumerate(expected_vectors(ROWS)) if vector]
    for text, key in (("text", "id"), (lambda record: record["text"], "nested.a"), ("text", None)):
        found = list(open_sink(str(path), kind).read_back(text, key, like()))
        texts = [each for block in found for each in block[1]]
        rows = np.concatenate([block[2] for block in found])
        assert texts == [f"text of row {row}" for row in good]
        assert rows.tolist() == [vector for vector in expected_vectors(ROWS) if vector]
        if key is None:
            assert all(block[0] is None for block in found)
        else:
            wanted = good if key == "id" else [[row] if row < 17 else [] for row in good]
            assert [each for block in found for each in block[0]] == wanted


def test_a_matrix_cannot_be_read_back(tmp_path):
    """It has no texts."""
    with pytest.raises(ConfigError, match="holds no records"):
        open_sink(str(tmp_path / "a.npy")).read_back("text", "id", like())


@every_sink
def test_files_of_others_get_no_rows(tmp_path, kind):
    """What embedkit has not written is not copied, and not touched."""
    path = target(tmp_path, kind)
    if kind == "folder":
        path.mkdir()
        path /= "part-00000.parquet"
    path.write_bytes(b"something else, without an end of line")
    (tmp_path / "job").mkdir()
    with pytest.raises(ConfigError):
        open_sink(str(target(tmp_path, kind)), kind).reopen(
            tmp_path / "job", {"rows": 1, "parts": 0, "spooled": 1, "bytes": 0}
        )
    assert path.read_bytes() == b"something else, without an end of line"


# --- room ------------------------------------------------------------------------------------------------------------


@every_sink
def test_the_room_that_is_asked_for_is_enough(tmp_path, kind):
    """And not more than three times what is taken at most."""
    rows, width = 3000, 64
    vectors = np.random.default_rng(0).standard_normal((rows, width)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    records = [{"text": f"text {row}"} for row in range(rows)]
    sink = open_sink(f"{tmp_path}/{NAMES[kind]}")
    assert isinstance(sink, FileSink)
    job = tmp_path / "job"
    job.mkdir()
    sink.begin(job, vectors[:0], None)
    sink.write([records], vectors, {}, None)
    sink.sync()
    inside = sum(path.stat().st_size for path in job.iterdir())
    sink.finish({})
    sink.close()
    path = target(tmp_path, kind)
    taken = sum(each.stat().st_size for each in (path.iterdir() if path.is_dir() else [path]))
    taken += inside if kind in ("parquet", "arrow", "folder") else 0
    asked = sink.room_needed(rows, vectors[:0], len(json.dumps(records)))

    assert 0.95 * taken < asked < 3 * taken


@every_sink
def test_a_full_disk_is_named_and_gone_on_with(tmp_path, kind):
    """The error says which file; when there is room again, the job goes on from its journal and nothing is lost."""
    rows = 6000
    with small_disk(tmp_path / "disk", 40_000 if kind == "npy" else 250_000) as remount:
        base = tmp_path / "disk"
        sink, states, row = opened(base, kind), [None], 0
        with pytest.raises(OSError, match="No space left") as caught:
            while row < rows:
                write(sink, row, 100)
                row += 100
                states.append(sink.sync())
            sink.finish(METADATA)
        assert caught.value.errno == errno.ENOSPC
        assert str(base) in caught.value.filename
        with pytest.raises(OSError, match="No space left"):  # no later call says that all is well
            write(sink, row, 100)
            sink.sync()
            sink.finish(METADATA)
        sink.close()
        remount("size=100000000")
        sink = opened(base, kind, states[-1])
        row = states[-1]["rows"]
        write(sink, row, rows - row)
        sink.sync()
        sink.finish(METADATA)
        sink.close()
        found = vectors_of(target(base, kind))

    assert found == expected_vectors(rows)


@every_sink
def test_a_read_only_folder_is_told_before_anything_is_written(tmp_path, kind):
    """`begin` names it."""
    with small_disk(tmp_path / "disk", 1_000_000) as remount:
        base = tmp_path / "disk"
        (tmp_path / "job").mkdir()
        if kind == "folder":
            target(base, kind).mkdir()
        remount("ro")
        with pytest.raises(OSError, match="no file can be made there") as caught:
            open_sink(str(target(base, kind)), kind).begin(tmp_path / "job", like(), None)
        assert caught.value.filename.startswith(str(base))


@every_sink
def test_an_output_on_another_file_system_gets_its_name_at_once_too(tmp_path, kind):
    """It is copied under a hidden name there, and renamed."""
    with small_files(), other_file_system(tmp_path / "job"):
        path = whole(tmp_path, kind, ROWS)

    assert vectors_of(path) == expected_vectors(ROWS)
    assert not list(tmp_path.rglob(".*"))
    assert list((tmp_path / "job").iterdir()) == []


# --- kill -9 ---------------------------------------------------------------------------------------------------------

WRITER = """
import json, os, sys, time
from pathlib import Path
from tests.support.sinks import METADATA, opened, write
base, kind, rows = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
journal = (base / "journal").open("a")
lines = (base / "journal").read_text().splitlines()
state = json.loads(lines[-1]) if lines and lines[-1] != "null" else None
row = state["rows"] if state else 0
from embedkit._bulk.sinks import table_sink
table_sink.PART_BYTES = 12 * 1024
sink = opened(base, kind, state)
print("began", flush=True)
while row < rows:
    write(sink, row, min(300, rows - row))
    row += min(300, rows - row)
    state = sink.sync()
    time.sleep(0.01)
    if row // 300 % 3 == 0 or row == rows:
        journal.write(json.dumps(state) + "\\n")
        journal.flush()
        os.fsync(journal.fileno())
sink.finish(METADATA)
print("done", flush=True)
"""


def killed_and_resumed(base, kind, rows, kills, moments):
    """Write in a process that is killed at random moments, so many times, and then in one that comes to its end."""
    base.mkdir(exist_ok=True)
    command = [sys.executable, "-c", WRITER, str(base), kind, str(rows)]
    for death in range(kills + 1):
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(Path.cwd())}
        ) as child:
            assert child.stdout.readline() == "began\n"
            if death < kills:
                time.sleep(moments.uniform(0, rows / 300 * 0.01 / kills))
                child.send_signal(signal.SIGKILL)
            last = child.stdout.readline()
        assert (child.returncode, last) == ((-signal.SIGKILL, "") if death < kills else (0, "done\n"))
    return target(base, kind)


@pytest.mark.parametrize("kind", ["npy", "folder"])
def test_a_process_that_is_killed_is_gone_on_with(tmp_path, kind):
    """`kill -9`, three times, at random moments: the same values, row by row."""
    moments = random.Random(kind)
    path = killed_and_resumed(tmp_path / "killed", kind, 6000, 3, moments)

    assert vectors_of(path) == expected_vectors(6000)


@pytest.mark.engines
@every_sink
def test_a_process_that_is_killed_twenty_times_is_gone_on_with(tmp_path, kind):
    """`kill -9` at 20 random moments."""
    moments = random.Random(f"{kind} 20")
    path = killed_and_resumed(tmp_path / "killed", kind, 60_000, 20, moments)

    assert vectors_of(path) == expected_vectors(60_000)
