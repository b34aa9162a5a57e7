"""Rows into stores: the command, embedkit's sink and the client alone; rows per second and peak memory.

python -m benchmarks.stores sqlite duckdb lancedb postgresql qdrant     (what make test-engines installs)

Each run is a process of its own; memory is the most that the whole process ever held (VmHWM of Linux). The client alone
writes the same columns of the same rows in the simplest way that its documentation shows for many rows, and commits as
often; it imports nothing else but numpy. The job is `embedkit embed` on a file of the same records, with a server that
answers at once; its seconds are those of the whole process.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

WIDTH = 384
MANY = 200_000  # rows
ROWS = {"qdrant": 20_000}  # its local mode is for small ones
ROUNDS = 2
STEP = 256  # rows that come back at once
COMMIT = 8192  # rows


def peak(pid: int | str = "self") -> float:
    """MB that a process has held at most. (`ru_maxrss` also counts the parent, as it was at the fork.)"""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return 0.0


def digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


def record(row: int) -> dict[str, str]:
    return {"text": f"@{row} " + f"some words of text number {row} " * 5, "id": f"key-{row}"}


def parts(rows: int) -> Iterator[Any]:
    noise = np.random.default_rng(0)
    for start in range(0, rows, STEP):
        count = min(STEP, rows - start)
        yield [record(row) for row in range(start, start + count)], noise.random((count, WIDTH), dtype=np.float32)


def sink(url: str, rows: int) -> Iterator[None]:
    from embedkit._bulk.stores import open_store
    from embedkit.codec.vector_math import missing_rows

    store = open_store(url, key="id")
    store.begin(Path(), missing_rows(0, WIDTH, "float32"), None)
    yield
    for number, (records, vectors) in enumerate(parts(rows), 1):
        store.write([records], vectors, {}, [record["id"] for record in records])
        if number % (COMMIT // STEP) == 0:
            store.sync()
    store.sync()
    store.close()


def blocks(rows: int) -> Iterator[Any]:
    held: list[Any] = []
    matrix: list[Any] = []
    for records, vectors in parts(rows):
        held += records
        matrix.append(vectors)
        if len(held) >= COMMIT:
            yield held, np.concatenate(matrix)
            held, matrix = [], []
    if held:
        yield held, np.concatenate(matrix)


def arrow(records: Any, vectors: Any) -> Any:
    import pyarrow as pa

    return pa.table(
        {
            "key": [record["id"] for record in records],
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), WIDTH),
            "text": [record["text"] for record in records],
            "embedding_digest": [digest(record["text"]) for record in records],
        }
    )


def alone_sqlite(url: str, rows: int) -> Iterator[None]:
    import apsw
    import sqlite_vec

    base = apsw.Connection(url.partition(":")[2].rpartition("#")[0])
    base.enable_load_extension(True)
    base.load_extension(sqlite_vec.loadable_path())
    base.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, digest TEXT, record TEXT)")
    base.execute(
        f"CREATE VIRTUAL TABLE v USING vec0(id INTEGER PRIMARY KEY, embedding float[{WIDTH}] distance_metric=cosine)"
    )
    yield
    at = 0
    for records, vectors in blocks(rows):
        base.execute("BEGIN")
        base.executemany(
            "INSERT INTO t VALUES (?, ?, ?, ?)",
            (
                (at + row, record["id"], digest(record["text"]), json.dumps(record))
                for row, record in enumerate(records)
            ),
        )
        base.executemany(
            "INSERT INTO v VALUES (?, ?)", ((at + row, vector.tobytes()) for row, vector in enumerate(vectors))
        )
        base.execute("COMMIT")
        at += len(records)
    base.close()


def alone_duckdb(url: str, rows: int) -> Iterator[None]:
    import duckdb

    base = duckdb.connect(url.partition(":")[2].rpartition("#")[0], config={"memory_limit": "512MB"})
    base.execute(f"CREATE TABLE t (key VARCHAR, embedding FLOAT[{WIDTH}], text VARCHAR, embedding_digest VARCHAR)")
    yield
    for records, vectors in blocks(rows):
        base.register("given", arrow(records, vectors))
        base.execute("INSERT INTO t BY NAME SELECT * FROM given")
        base.unregister("given")
    base.close()


def alone_lancedb(url: str, rows: int) -> Iterator[None]:
    import lancedb

    base = lancedb.connect(url.partition(":")[2].rpartition("#")[0])
    yield
    table = None
    for records, vectors in blocks(rows):
        given = arrow(records, vectors)
        if table is None:
            table = base.create_table("t", given)
        else:
            table.add(given)


def alone_postgresql(url: str, rows: int) -> Iterator[None]:
    import psycopg
    from pgvector.psycopg import register_vector

    base = psycopg.connect(url.rpartition("#")[0], autocommit=True)
    base.execute("CREATE EXTENSION vector")
    register_vector(base)
    base.execute(f"CREATE TABLE t (key text PRIMARY KEY, embedding vector({WIDTH}), digest text, record jsonb)")
    yield
    for records, vectors in blocks(rows):
        with base.cursor().copy("COPY t FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["text", "vector", "text", "jsonb"])
            for record, vector in zip(records, vectors, strict=True):
                copy.write_row((record["id"], vector, digest(record["text"]), json.dumps(record)))
    base.close()


def alone_qdrant(url: str, rows: int) -> Iterator[None]:
    from qdrant_client import QdrantClient, models

    base = QdrantClient(path=url.partition(":")[2].rpartition("#")[0])
    base.create_collection("t", models.VectorParams(size=WIDTH, distance=models.Distance.COSINE))
    yield
    at = 0
    for records, vectors in parts(rows):
        base.upsert(
            "t", models.Batch(ids=list(range(at, at + len(records))), vectors=vectors.tolist(), payloads=records)
        )
        at += len(records)
    base.close()


def written(name: str, how: str, url: str, rows: int) -> dict[str, float]:
    """Rows written in this process."""
    steps = sink(url, rows) if how == "sink" else globals()[f"alone_{name}"](url, rows)
    next(steps)
    begun = time.perf_counter()
    with suppress(StopIteration):
        next(steps)
    return {"seconds": time.perf_counter() - begun, "MB": peak()}


def command(url: str, rows: int, folder: Path) -> dict[str, float]:
    """The command in a process of its own."""
    from .server import wire

    given = folder / "in.jsonl"
    with given.open("w") as file:
        file.writelines(json.dumps(record(row)) + "\n" for row in range(rows))
    with wire.server(WIDTH) as server:
        words = ["embed", str(given), "-o", url, "--key", "id", "-m", "compatible:m", "--base-url", f"{server.url}/v1"]
        begun, most = time.perf_counter(), 0.0
        child = subprocess.Popen([sys.executable, "-m", "embedkit", *words, "--quiet"], cwd=folder)
        while child.poll() is None:
            most = max(most, peak(child.pid))
            time.sleep(0.005)
        if child.returncode:
            sys.exit(f"the command failed: {child.returncode}")
    return {"seconds": time.perf_counter() - begun, "MB": most}


def measured(name: str, how: str, rows: int) -> dict[str, float]:
    """Seconds and memory of one run: "alone" (the client), "sink" or "job"."""
    from tests.support.stores import REAL

    with tempfile.TemporaryDirectory() as folder, REAL[name].running():
        url = REAL[name].url(Path(folder))
        if how == "job":
            return command(url, rows, Path(folder))
        own = [sys.executable, "-m", "benchmarks.stores", "one", name, how, url, str(rows)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        found: dict[str, float] = json.loads(
            subprocess.run(own, check=True, capture_output=True, env=environment).stdout
        )
        return found


def main() -> None:
    if sys.argv[1:2] == ["one"]:
        name, how, url, count = sys.argv[2:]
        print(json.dumps(written(name, how, url, int(count))))
        return
    print(
        "| store | rows | client alone, rows/s | sink | job | client alone, MB | sink | job | job beyond the client |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in sys.argv[1:] or ("sqlite", "duckdb", "lancedb", "postgresql", "qdrant"):
        hows, rows = ("alone", "sink", "job"), ROWS.get(name, MANY)
        runs = [{how: measured(name, how, rows) for how in hows} for _ in range(ROUNDS)]
        speed = [rows / statistics.median(run[how]["seconds"] for run in runs) for how in hows]
        memory = [statistics.median(run[how]["MB"] for run in runs) for how in hows]
        told = [f"{rows:,}", *(f"{each:,.0f}" for each in (*speed, *memory, memory[2] - memory[0]))]
        print(f"| {name} | {' | '.join(told)} |", flush=True)


if __name__ == "__main__":
    main()
