"""SQLite with sqlite-vec: a table of rows, and `TABLE_vec`, a virtual table `vec0` of vectors, joined by `id`.

    SELECT key, record, distance FROM embeddings_vec JOIN embeddings USING (id)
    WHERE embeddings_vec.embedding MATCH ? AND k = 5 ORDER BY distance

`vec0` holds no null, so a row that failed has no vector there. The client is apsw: it brings a current SQLite and can
load extensions, which the `sqlite3` of many a Python cannot (docs.python.org/3/library/sqlite3.html#f1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..._types import PACKED
from ...errors import ConfigError
from .base import Label, Metric, Store
from .rows import Rows, json_records, runs, unpacked_sign

LABELS = "embedkit_tables"
WAIT = 60_000  # milliseconds for the lock of another process
ASKED = 1_000  # keys per query


class SqliteStore(Store):
    """A table in a file of SQLite."""

    extra: ClassVar[str] = "sqlite-vec"
    clients: ClassVar[tuple[str, ...]] = ("apsw", "sqlite_vec")
    metrics: ClassVar[tuple[Metric, ...]] = ("cosine", "l2")
    _base: Any = None

    def _open(self) -> None:
        import apsw
        import sqlite_vec

        path = Path(self.url.place).expanduser()
        if not path.absolute().parent.is_dir():
            msg = f"{self.target}: there is no folder {path.absolute().parent}"
            raise ConfigError(msg)
        if path.is_dir():
            msg = f"{self.target}: {self.url.place} is a folder; name a file in it"
            raise ConfigError(msg)
        self._base = apsw.Connection(str(path))
        self._base.set_busy_timeout(WAIT)
        self._base.enable_load_extension(True)
        self._base.load_extension(sqlite_vec.loadable_path())
        self._base.enable_load_extension(False)
        self._table, self._vectors = _quoted(self.url.table), _quoted(f"{self.url.table}_vec")

    def _failures(self) -> tuple[type[Exception], ...]:
        import apsw

        return (apsw.Error,)

    def _run(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        found: list[Any] = self._base.execute(sql, values).fetchall()
        return found

    def _named(self, table: str) -> bool:
        return bool(self._run("SELECT 1 FROM sqlite_schema WHERE lower(name) = lower(?)", (table,)))

    def _found(self) -> tuple[Sequence[str], str | None] | None:
        if not self._named(self.url.table):
            return None
        names = [row[1] for row in self._run(f"PRAGMA table_info({self._table})")]
        if self._named(f"{self.url.table}_vec"):
            names.append("embedding")
        label = "SELECT label FROM embedkit_tables WHERE lower(name) = lower(?)"
        told = self._run(label, (self.url.table,)) if self._named(LABELS) else []
        return names, told[0][0] if told else None

    def _create(self, label: Label, rows: Rows | None) -> None:  # noqa: ARG002
        width = label.width * 8 if label.dtype in PACKED else label.width
        kind = "bit" if label.dtype in PACKED else "int8" if label.dtype == "int8" else "float"
        # Bits are compared by their Hamming distance; vec0 takes no other for them.
        metric = "" if label.dtype in PACKED else f" distance_metric={label.metric}"
        key = "TEXT" if label.keys == "text" else "INTEGER"
        with self._step():
            if self._named(self.url.table):
                return
            self._run(
                f"CREATE TABLE {self._table} (id INTEGER PRIMARY KEY, key {key} NOT NULL UNIQUE, "
                "embedding_error TEXT, embedding_digest TEXT, record TEXT)"
            )
            self._run(
                f"CREATE VIRTUAL TABLE {self._vectors} USING "
                f"vec0(id INTEGER PRIMARY KEY, embedding {kind}[{width}]{metric})"
            )
            self._run(f"CREATE TABLE IF NOT EXISTS {LABELS} (name TEXT PRIMARY KEY, label TEXT NOT NULL)")
            self._keep(label)

    def _put(self, rows: Rows, label: Label) -> None:
        blobs = [row.tobytes() for row in _storable(rows.vectors, label)]
        records = [record.decode() for record in json_records(rows.pieces)]
        with self._step():
            known = self._known(rows.keys)
            free = self._run(f"SELECT ifnull(max(id), 0) + 1 FROM {self._table}")[0][0]
            ids, fresh = [], []
            for key in rows.keys:
                found = known.get(key)
                fresh.append(found is None)
                ids.append(free if found is None else found[0])
                free += found is None
            had = [known[key][1] if key in known else False for key in rows.keys]
            self._rows_of(rows, ids, fresh, records)
            failed = [error is not None for error in rows.errors]
            each = list(zip(ids, blobs, had, failed, strict=True))
            insert = f"INSERT INTO {self._vectors} (id, embedding) VALUES (?, {_cast(label)})"
            update = f"UPDATE {self._vectors} SET embedding = {_cast(label)} WHERE id = ?"
            self._base.executemany(insert, [(at, blob) for at, blob, has, bad in each if not has and not bad])
            self._base.executemany(update, [(blob, at) for at, blob, has, bad in each if has and not bad])
            delete = f"DELETE FROM {self._vectors} WHERE id = ?"
            self._base.executemany(delete, [(at,) for at, _, has, bad in each if has and bad])

    def _rows_of(self, rows: Rows, ids: list[int], fresh: list[bool], records: list[str]) -> None:
        each = list(zip(fresh, ids, rows.keys, rows.errors, rows.digests, records, strict=True))
        self._base.executemany(
            f"INSERT INTO {self._table} (id, key, embedding_error, embedding_digest, record) VALUES (?, ?, ?, ?, ?)",
            (row for new, *row in each if new),
        )
        self._base.executemany(
            f"UPDATE {self._table} SET embedding_error = ?, embedding_digest = ?, record = ? WHERE id = ?",
            ((error, text, record, at) for new, at, _, error, text, record in each if not new),
        )

    def _known(self, keys: Sequence[Any]) -> dict[Any, tuple[int, bool]]:
        """By key its id, and whether there is a vector."""
        return {row[0]: (row[1], row[2] is None) for row in self._asked("key, id, embedding_error", keys)}

    def _digests(self, keys: Sequence[Any]) -> Mapping[Any, str | None]:
        return {row[0]: row[1] for row in self._asked("key, embedding_digest", keys)}

    def _asked(self, columns: str, keys: Sequence[Any]) -> Iterator[Any]:
        for start, end in runs(len(keys), ASKED):
            marks = ",".join("?" * (end - start))
            yield from self._run(f"SELECT {columns} FROM {self._table} WHERE key IN ({marks})", keys[start:end])

    def _keep(self, label: Label) -> None:
        self._run(f"INSERT OR REPLACE INTO {LABELS} VALUES (?, ?)", (self.url.table, label.json()))

    def _relabel(self, label: Label) -> None:
        with self._step():
            self._keep(label)

    @contextmanager
    def _step(self) -> Iterator[None]:
        """One transaction, and the only one that writes meanwhile."""
        self._run("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if not self._base.get_autocommit():
                self._run("ROLLBACK")
            raise
        self._run("COMMIT")

    def _close(self) -> None:
        self._base.close()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _cast(label: Label) -> str:
    return "vec_bit(?)" if label.dtype in PACKED else "vec_int8(?)" if label.dtype == "int8" else "?"


def _storable(vectors: Any, label: Label) -> Any:
    if label.dtype in PACKED:
        return unpacked_sign(vectors)
    return vectors if label.dtype == "int8" else np.ascontiguousarray(vectors, np.float32)
