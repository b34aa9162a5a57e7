"""LanceDB: a table in a folder or an object store, rows by way of Arrow.

    table.search(vector).distance_type("cosine").limit(5).to_list()

Fields of the records are columns of their types. A flush is one `merge_insert`: one version of the table, there or not
there. Now and then, and at the end of a job, the table is compacted, `key` gets an index, and versions older than
five minutes go, unless one is tagged. LanceDB knows no unique columns: two jobs that write the same new key at the same
moment may leave it twice.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Container, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from ...errors import ConfigError
from .base import Label, Store
from .columns import fields_of, table_of, vector_type
from .rows import COLUMNS, DIGEST, ERROR, KEY, RECORD, VECTOR, Rows, runs

TIDY = 500  # flushes; the time that one takes grows with their number
# What a scan reads ahead, in bytes, and in rows at a time; Lance would take 2 GiB, and 8,192 rows of any width
# (lance-format/lance, rust/lance/src/dataset/scanner.rs). To compact a table is to scan it.
LEAN = {"LANCE_DEFAULT_IO_BUFFER_SIZE": str(2**25), "LANCE_DEFAULT_BATCH_SIZE": "1024"}
KEPT = timedelta(minutes=5)  # old versions, for those who read meanwhile
ASKED = 5_000  # keys per query
LABEL = "embedkit"  # in the metadata of the field of vectors


class LanceStore(Store):
    """A table of LanceDB."""

    extra: ClassVar[str] = "lancedb"
    clients: ClassVar[tuple[str, ...]] = ("lancedb",)
    most_rows: ClassVar[int | None] = 2048  # measured: as fast as more of them, and 100 MB less
    _base: Any = None
    _table: Any = None
    _flushes = 0  # since the table was compacted

    def _connect(self) -> None:
        _read_little_ahead(sys.modules, os.environ)
        super()._connect()

    def _open(self) -> None:
        import lancedb

        place = self.url.place
        if "://" not in place:
            path = Path(place).expanduser().absolute()
            if not path.parent.is_dir():
                msg = f"{self.target}: there is no folder {path.parent}"
                raise ConfigError(msg)
            place = str(path)
        self._base = lancedb.connect(place)

    def _failures(self) -> tuple[type[Exception], ...]:
        return (RuntimeError, ValueError)  # LanceDB has no errors of its own

    def _found(self) -> tuple[Sequence[str], str | None] | None:
        try:
            self._table = self._base.open_table(self.url.table)
        except ValueError as error:
            if "not found" in str(error):
                return None
            raise
        schema = self._table.schema
        held = schema.field(VECTOR).metadata if VECTOR in schema.names else None
        return schema.names, (held or {}).get(LABEL.encode(), b"").decode()

    def _create(self, label: Label, rows: Rows | None) -> None:
        key = pa.string() if label.keys == "text" else pa.int64()
        vector = pa.field(VECTOR, vector_type(label, pa.float16()), metadata={LABEL: label.json()})
        own = [pa.field(KEY, key, nullable=False), vector]
        own += [pa.field(name, pa.string()) for name in (ERROR, DIGEST, RECORD)]
        fields = fields_of(rows.pieces if rows else [], lambda name: bool(name) and "." not in name)
        self._base.create_table(self.url.table, schema=pa.schema([*own, *fields]), exist_ok=True)

    def _put(self, rows: Rows, label: Label) -> None:
        schema = self._table.schema
        fields = [field for field in schema if field.name not in COLUMNS]
        with _given_back():
            given = table_of(rows, fields, vector_type(label, pa.float16()))
            merge = self._table.merge_insert(KEY).when_matched_update_all().when_not_matched_insert_all()
            merge.execute(given.select(schema.names), on_bad_vectors="null")  # a row without a vector is one of those
        self._flushes += 1
        if self._flushes >= TIDY:
            self._tidy()

    def _digests(self, keys: Sequence[Any]) -> Mapping[Any, str | None]:
        found: dict[Any, str | None] = {}
        for start, end in runs(len(keys), ASKED):
            asked = ",".join(_literal(key) for key in keys[start:end])
            query = self._table.search().where(f"{KEY} IN ({asked})").select([KEY, DIGEST]).limit(end - start)
            rows = query.to_arrow()
            found.update(zip(rows.column(KEY).to_pylist(), rows.column(DIGEST).to_pylist(), strict=True))
        return found

    def _relabel(self, label: Label) -> None:
        self._table.update_field_metadata({"path": VECTOR, "metadata": {LABEL: label.json()}})
        self._tidy()

    def _tidy(self) -> None:
        """Join small fragments, index the keys, and let go of old versions: each flush has left one of each."""
        from lancedb.index import BTree

        self._flushes = 0
        try:
            if self._table.count_rows() and not any(index.columns == [KEY] for index in self._table.list_indices()):
                self._table.create_index(KEY, config=BTree())
            self._table.optimize(cleanup_older_than=KEPT)
        except RuntimeError as error:
            # Another job is at it, or an old version has a tag: the rows are there all the same.
            if not any(word in str(error).lower() for word in ("conflict", "tag")):
                raise

    def _close(self) -> None:
        self._table = self._base = None


def _read_little_ahead(loaded: Container[str], environment: MutableMapping[str, str]) -> None:
    """Set `LEAN` for this process, unless it says otherwise, or uses LanceDB already in its own way."""
    if "lancedb" not in loaded:
        for name, value in LEAN.items():
            environment.setdefault(name, value)


@contextmanager
def _given_back() -> Iterator[None]:
    """Arrow's memory from the system meanwhile: its own allocator keeps what each thread has had, and a job writes from
    several threads (measured: 150 MB).
    """
    pool = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(pool)


def _literal(key: Any) -> str:
    return str(key) if isinstance(key, int) else "'" + key.replace("'", "''") + "'"
