"""DuckDB: a table in a file, rows by way of Arrow. A file has one writing process at a time, and no reader meanwhile.

    SELECT key, record, array_cosine_distance(embedding, ?::FLOAT[384]) AS distance
    FROM embeddings ORDER BY distance LIMIT 5

Fields of the records are columns of their types. `key` has no index: one would be held in memory as a whole
(duckdb.org/docs/stable/guides/performance/indexing); rows that come again are found by a join.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from ..._types import PACKED
from ...errors import ConfigError
from .base import Label, Store
from .columns import fields_of, table_of, vector_type
from .rows import COLUMNS, KEY, Rows

MEMORY = "512MB"  # of DuckDB's own; what it needs beyond lies beside the file meanwhile
GIVEN = "embedkit_given"  # the name under which it sees the rows of a flush


class DuckStore(Store):
    """A table in a file of DuckDB."""

    extra: ClassVar[str] = "duckdb"
    clients: ClassVar[tuple[str, ...]] = ("duckdb",)
    _base: Any = None

    def _open(self) -> None:
        import duckdb

        path = Path(self.url.place).expanduser()
        if not path.absolute().parent.is_dir():
            msg = f"{self.target}: there is no folder {path.absolute().parent}"
            raise ConfigError(msg)
        if path.is_dir():
            msg = f"{self.target}: {self.url.place} is a folder; name a file in it"
            raise ConfigError(msg)
        self._base = duckdb.connect(str(path), config={"memory_limit": MEMORY})
        self._table = _quoted(self.url.table)

    def _failures(self) -> tuple[type[Exception], ...]:
        import duckdb

        return (duckdb.Error,)

    def _found(self) -> tuple[Sequence[str], str | None] | None:
        where = "WHERE lower(table_name) = lower(?) AND schema_name = 'main' AND database_name = current_database()"
        told = self._base.execute(f"SELECT comment FROM duckdb_tables() {where}", [self.url.table]).fetchone()
        if told is None:
            return None
        names = self._base.execute(f"SELECT column_name FROM duckdb_columns() {where}", [self.url.table]).fetchall()
        return [name for (name,) in names], told[0]

    def _create(self, label: Label, rows: Rows | None) -> None:
        key = "VARCHAR" if label.keys == "text" else "BIGINT"
        kind = "UTINYINT" if label.dtype in PACKED else "FLOAT"
        own = f"{key} NOT NULL", f"{kind}[{label.width}]", "VARCHAR", "VARCHAR", "JSON"
        columns = ", ".join(f"{name} {what}" for name, what in zip(COLUMNS, own, strict=True))
        # DuckDB names the types of the fields itself, from a table of Arrow without rows.
        fields = fields_of(rows.pieces if rows else [], bool)
        self._base.execute("BEGIN")
        try:
            self._base.execute(f"CREATE TABLE {self._table} ({columns})")
            if fields:
                self._add(fields)
            self._relabel(label)
        except BaseException:
            self._base.execute("ROLLBACK")
            raise
        self._base.execute("COMMIT")

    def _add(self, fields: list[pa.Field]) -> None:
        self._base.register(GIVEN, pa.schema(fields).empty_table())
        try:
            for name, kind, *_ in self._base.execute(f"DESCRIBE SELECT * FROM {GIVEN}").fetchall():
                self._base.execute(f"ALTER TABLE {self._table} ADD COLUMN {_quoted(name)} {kind}")
        finally:
            self._base.unregister(GIVEN)

    def _fields(self) -> list[pa.Field]:
        """The table's fields of records, as Arrow calls their types."""
        found = self._base.sql(f"SELECT * FROM {self._table} LIMIT 0").to_arrow_table().schema
        return [field for field in found if field.name not in COLUMNS]

    def _put(self, rows: Rows, label: Label) -> None:
        given = table_of(rows, self._fields(), vector_type(label, pa.float32()))
        self._base.register(GIVEN, given)
        try:
            self._base.execute("BEGIN")
            try:
                self._base.execute(f"DELETE FROM {self._table} WHERE {KEY} IN (SELECT {KEY} FROM {GIVEN})")
                self._base.execute(f"INSERT INTO {self._table} BY NAME SELECT * FROM {GIVEN}")
            except BaseException:
                self._base.execute("ROLLBACK")
                raise
            self._base.execute("COMMIT")
        finally:
            self._base.unregister(GIVEN)

    def _digests(self, keys: Sequence[Any]) -> Mapping[Any, str | None]:
        self._base.register(GIVEN, pa.table({KEY: keys}))
        try:
            asked = f"SELECT {KEY}, embedding_digest FROM {self._table} JOIN {GIVEN} USING ({KEY})"
            return dict(self._base.execute(asked).fetchall())
        finally:
            self._base.unregister(GIVEN)

    def _relabel(self, label: Label) -> None:
        self._base.execute(f"COMMENT ON TABLE {self._table} IS {_text(label.json())}")

    def _close(self) -> None:
        self._base.close()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
