"""Rows into stores: embedkit's sinks beside the client alone, rows per second and peak memory.

python -m benchmarks.stores sqlite duckdb lancedb postgresql qdrant     (what make test-engines installs)

Each run is a process of its own; memory is what the process holds at its peak beyond what it holds before the first
row. The client alone writes the same columns of the same rows in the simplest way that its documentation shows for
many rows, and commits as often.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from embedkit._bulk.stores import open_store
from embedkit._bulk.stores.rows import digest
from embedkit.codec.vector_math import missing_rows
from tests.support.stores import REAL

WIDTH = 384
ROWS = {"qdrant": 20_000}
STEP = 256  # rows that come back at once
COMMIT = 8192  # rows


def rss() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise OSError


def parts(rows: int) -> Iterator[Any]:
    noise = np.random.default_rng(0)
    for start in range(0, rows, STEP):
        count = min(STEP, rows - start)
        records = [
            {"text": f"some words of text number {row} " * 5, "id": f"key-{row}"} for row in range(start, start + count)
        ]
        yield records, noise.random((count, WIDTH), dtype=np.float32)


def ours(url: str, rows: int) -> Iterator[None]:
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


def measured(name: str, how: str, folder: Path) -> dict[str, Any]:
    rows = ROWS.get(name, 200_000)
    url = REAL[name].url(folder)
    steps = ours(url, rows) if how == "embedkit" else globals()[f"alone_{name}"](url, rows)
    next(steps)
    before, begun = rss(), time.perf_counter()
    with suppress(StopIteration):
        next(steps)
    lasted = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"store": name, "how": how, "rows": rows, "rows/s": round(rows / lasted), "MB": round(peak - before)}


def main() -> None:
    if len(sys.argv) > 2 and sys.argv[1] == "one":
        with tempfile.TemporaryDirectory() as folder, REAL[sys.argv[2]].running():
            print(json.dumps(measured(sys.argv[2], sys.argv[3], Path(folder))))
        return
    for name in sys.argv[1:] or REAL:
        for how in ("alone", "embedkit", "alone", "embedkit"):
            subprocess.run([sys.executable, "-m", "benchmarks.stores", "one", name, how], check=True)


if __name__ == "__main__":
    main()
