"""PostgreSQL with pgvector: rows by way of `COPY` in binary, into a temporary table and from there into the table.

    SELECT key, record FROM embeddings ORDER BY embedding <=> $1 LIMIT 5

The password may be in the address, in PGPASSWORD or in ~/.pgpass. PostgreSQL holds no zero character: it becomes
U+FFFD.
An index on `embedding` is its owner's business, and best made after the rows are there:
`CREATE INDEX ON embeddings USING hnsw (embedding vector_cosine_ops)` (github.com/pgvector/pgvector#loading).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ..._hints import NDArray
from ..._types import PACKED
from ...errors import ConfigError
from .base import Label, Store
from .rows import COLUMNS, Rows, json_records, runs, unpacked_sign

# postgresql.org/docs/current/sql-copy.html: the signature, no flags, no extension of the header; then the end
HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
TRAILER = b"\xff\xff"
NULL = b"\xff\xff\xff\xff"
FIELDS = len(COLUMNS).to_bytes(2, "big")
PIECE = 256  # rows given to the client at once
_ZERO = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")


class PostgresStore(Store):
    """A table of PostgreSQL."""

    extra: ClassVar[str] = "postgres"
    clients: ClassVar[tuple[str, ...]] = ("psycopg",)
    _base: Any = None

    def _open(self) -> None:
        import psycopg
        from psycopg import sql

        self._base = psycopg.connect(self.url.place, autocommit=True, application_name="embedkit")
        self._name = sql.Identifier(*self.url.table.split("."))

    def _failures(self) -> tuple[type[Exception], ...]:
        import psycopg

        return (psycopg.Error,)

    def _passing(self, error: Exception) -> bool:
        import psycopg

        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)

    def _run(self, query: str, values: Sequence[Any] = ()) -> Any:
        """Run SQL in which {table} stands for the table's name."""
        from psycopg import sql

        return self._base.execute(sql.SQL(query).format(table=self._name), values or None)

    def _found(self) -> tuple[Sequence[str], str | None] | None:
        name = self._name.as_string(self._base)
        told = self._base.execute(
            "SELECT c.oid, obj_description(c.oid, 'pg_class') FROM pg_class c WHERE c.oid = to_regclass(%s)", (name,)
        ).fetchone()
        if told is None:
            return None
        names = self._base.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped", (told[0],)
        ).fetchall()
        return [each[0] for each in names], told[1]

    def _create(self, label: Label, rows: Rows | None) -> None:  # noqa: ARG002
        key = 'text COLLATE "C"' if label.keys == "text" else "bigint"
        with self._base.transaction():
            # Two jobs that begin at once: the second waits here, and finds the table.
            self._base.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"embedkit {self.url.table}",))
            if self._found() is not None:
                return
            self._extension()
            self._run(
                f"CREATE TABLE {{table}} (key {key} PRIMARY KEY, embedding {_type(label)}, "
                "embedding_error text, embedding_digest text, record jsonb)"
            )
            self._comment(label)

    def _extension(self) -> None:
        import psycopg

        if self._base.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'").fetchone():
            return
        try:
            self._base.execute("CREATE EXTENSION vector")
        except psycopg.Error as error:
            said = str(error).strip().partition("\n")[0]
            msg = f"{self.target}: the database has no pgvector ({said}); have CREATE EXTENSION vector run in it"
            raise ConfigError(msg) from None

    def _put(self, rows: Rows, label: Label) -> None:
        with self._base.transaction():
            self._run("CREATE TEMP TABLE embedkit_given (LIKE {table}) ON COMMIT DROP")
            with self._base.cursor().copy("COPY embedkit_given FROM STDIN (FORMAT BINARY)") as copy:
                copy.write(HEADER)
                for piece in _pieces(rows, label):
                    copy.write(piece)
                copy.write(TRAILER)
            # In the order of the keys: two jobs that write the same ones wait for each other, and never in a circle.
            self._run(
                "INSERT INTO {table} SELECT * FROM embedkit_given ORDER BY key ON CONFLICT (key) DO UPDATE SET "
                "embedding = excluded.embedding, embedding_error = excluded.embedding_error, "
                "embedding_digest = excluded.embedding_digest, record = excluded.record"
            )

    def _digests(self, keys: Sequence[Any]) -> Mapping[Any, str | None]:
        asked = [_clean(key) if isinstance(key, str) else key for key in keys]
        found = dict(self._run("SELECT key, embedding_digest FROM {table} WHERE key = ANY(%s)", (asked,)).fetchall())
        return {key: found[clean] for key, clean in zip(keys, asked, strict=True) if clean in found}

    def _comment(self, label: Label) -> None:
        from psycopg import sql

        self._base.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(self._name, sql.Literal(label.json())))

    def _relabel(self, label: Label) -> None:
        self._comment(label)
        self._run("ANALYZE {table}")

    def _close(self) -> None:
        self._base.close()


def _type(label: Label) -> str:
    if label.dtype in PACKED:
        return f"bit({label.width * 8})"
    return f"{'vector' if label.dtype == 'float32' else 'halfvec'}({label.width})"


# --- rows as COPY wants them -----------------------------------------------------------------------------------------


def _pieces(rows: Rows, label: Label) -> Iterator[bytes]:
    """Rows in the binary format of COPY, some at a time."""
    vectors = _sized(rows.vectors, label)
    records = json_records(rows.pieces)
    number = isinstance(rows.keys[0], int)
    for start, end in runs(len(rows.keys), PIECE):
        said: list[bytes] = []
        for row in range(start, end):
            key, error, text = rows.keys[row], rows.errors[row], rows.digests[row]
            said += (
                FIELDS,
                b"\x00\x00\x00\x08" + key.to_bytes(8, "big") if number else _field(_clean(key).encode()),  # type: ignore[union-attr, arg-type]
                vectors[row].tobytes() if error is None else NULL,
                NULL if error is None else _field(_clean(error).encode("utf-8", "replace")),
                NULL if text is None else _field(text.encode()),
                _field(b"\x01" + _without_zeros(records[row])),  # jsonb, version 1 of its text
            )
        yield b"".join(said)


def _sized(vectors: NDArray[Any], label: Label) -> NDArray[np.uint8]:
    """Every vector as its field: the length in bytes, then what pgvector's (or bit's) receive function reads."""
    if label.dtype in PACKED:
        body = unpacked_sign(vectors)
        head = (4 + body.shape[1]).to_bytes(4, "big") + (8 * body.shape[1]).to_bytes(4, "big")
    else:
        body = np.ascontiguousarray(vectors, ">f4" if label.dtype == "float32" else ">f2").view(np.uint8)
        head = (4 + body.shape[1]).to_bytes(4, "big") + label.width.to_bytes(2, "big") + b"\x00\x00"
    fields = np.empty((len(vectors), len(head) + body.shape[1]), np.uint8)
    fields[:, : len(head)] = np.frombuffer(head, np.uint8)
    fields[:, len(head) :] = body
    return fields


def _field(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


def _clean(text: str) -> str:
    return text.replace("\0", "\ufffd")


def _without_zeros(text: bytes) -> bytes:
    return _ZERO.sub(rb"\1\\ufffd", text) if b"\\u0000" in text else text
