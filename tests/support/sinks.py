"""Rows that follow from their number alone, sinks that take them, and crashes in between."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedkit._bulk.sinks import arrow_files, table_sink
from embedkit._bulk.sinks.open_sink import open_sink
from embedkit._bulk.sources.rows import Line

WIDTH = 3
NAMES = {"npy": "out.npy", "jsonl": "out.jsonl", "parquet": "out.parquet", "arrow": "out.arrow", "folder": "out/"}
METADATA = {"embedkit.model": "test:m"}


def vector_of(row, width=WIDTH, dtype="float32"):
    return np.array([(row * 7 + place * 3) % 101 / (8 if dtype == "float32" else 1) for place in range(width)], dtype)


def failure_of(row):
    return f"refused: row {row}" if row % 7 == 3 else None


def record_of(row):
    """A record whose columns change their type, come and go."""
    fields = {"id": row, "text": f"text of row {row}"}
    if row % 5 == 0:
        fields["sometimes"] = row if row < 9 else row / 2 if row < 14 else "x"
    fields["nested"] = {"a": [row]} if row < 17 else {"a": [], "b": None}
    record = Line(fields)
    record.source = json.dumps(fields).encode()
    return record


def rows_of(start, count, dtype="float32"):
    """What `Sink.write` is given for these rows."""
    failures = {row - start: why for row in range(start, start + count) if (why := failure_of(row))}
    rows = np.array([vector_of(row, dtype=dtype) for row in range(start, start + count)], dtype).reshape(count, WIDTH)
    for place in failures:
        rows[place] = np.nan if dtype == "float32" else 0
    records = [record_of(row) for row in range(start, start + count)]
    cut = count // 2
    return [records[:cut], records[cut:]], rows, failures


def write(sink, start, count, dtype="float32"):
    pieces, rows, failures = rows_of(start, count, dtype)
    sink.write(pieces, rows, failures, None)


def like(dtype="float32", width=WIDTH):
    return np.empty((0, width), dtype)


def opened(base, kind, state=None, dtype="float32", **options):
    """A sink that has begun, in a folder `job` beside its output."""
    sink = open_sink(str(base / NAMES[kind].rstrip("/")), kind, **options)
    (base / "job").mkdir(exist_ok=True)
    sink.begin(base / "job", like(dtype), state)
    return sink


def target(base, kind):
    return Path(base / NAMES[kind].rstrip("/"))


def whole(base, kind, rows, dtype="float32", step=5):
    """The output of a job that nothing interrupts."""
    base.mkdir(exist_ok=True)
    sink = opened(base, kind, dtype=dtype)
    for start in range(0, rows, step):
        write(sink, start, min(step, rows - start), dtype)
    sink.sync()
    sink.finish(METADATA)
    sink.close()
    return target(base, kind)


def files_of(path):
    """Names and bytes of an output."""
    if path.is_dir():
        return {each.name: each.read_bytes() for each in sorted(path.iterdir())}
    return {path.name: path.read_bytes()}


def table_of(path):
    if path.suffix == ".arrow":
        with pa.OSFile(str(path)) as file:
            return pa.ipc.open_file(file).read_all()
    paths = sorted(path.iterdir()) if path.is_dir() else [path]
    return pa.concat_tables([pq.read_table(each) for each in paths])


def vectors_of(path):
    """The vectors in an output, None for a row that failed."""
    if path.suffix == ".npy":
        return [None if np.isnan(row).all() else row.tolist() for row in np.load(path)]
    if path.suffix == ".jsonl":
        return [json.loads(line)["embedding"] for line in path.read_text("utf-8").splitlines()]
    return table_of(path)["embedding"].to_pylist()


def expected_vectors(rows):
    return [None if failure_of(row) else vector_of(row).tolist() for row in range(rows)]


class KilledError(BaseException):
    """The process ends here."""


@contextmanager
def killed_at(step):
    """Within, the so-manieth call that changes what is on disk never happens, nor any later one."""
    calls = 0

    def dying(real):
        def call(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls >= step:
                raise KilledError
            return real(*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", dying(lambda number: None))  # a process that dies loses nothing it has written
        for name in ("replace", "unlink"):
            patch.setattr(Path, name, dying(getattr(Path, name)))
        yield


@contextmanager
def small_files(chunk=4, part=8, group=200):
    """So many rows get their type together; parts and row groups are as small. The disk is not waited for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda number: None)
        patch.setattr(arrow_files, "CHUNK", chunk)
        patch.setattr(table_sink, "CHUNK", chunk)
        patch.setattr(table_sink, "PART_BYTES", part * WIDTH * 4)
        patch.setattr(arrow_files, "GROUP_BYTES", group)
        yield


def spoil(folder, garbage):
    """What a crash may leave: more bytes than were said to be there, and files nobody knows."""
    for path in folder.iterdir():
        with path.open("ab") as file:
            file.write(garbage)
    (folder / "part.parquet").write_bytes(garbage)
    (folder / "spool-99999").write_bytes(garbage)


@contextmanager
def small_disk(path, size):
    """A file system of so many bytes; the test is skipped where none can be mounted."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except OSError:
        done = None
    if done is None or done.returncode:
        pytest.skip("mounting takes root")
    try:
        yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", str(path)], check=True)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)  # also where a failed test left a file open


@contextmanager
def other_file_system(folder):
    """Within, renames out of a folder fail as they do between file systems."""
    real = Path.replace

    def replace(self, to):
        if Path(to).parent != self.parent and self.parent == folder:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(self), None, str(to))
        return real(self, to)

    with pytest.MonkeyPatch.context() as patch, suppress(FileNotFoundError):
        patch.setattr(Path, "replace", replace)
        yield
