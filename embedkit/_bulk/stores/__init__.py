"""Stores as outputs of bulk jobs: rows go straight into a table, by key, through the store's own client.

| address | extra | a row without a vector | types of vectors |
| --- | --- | --- | --- |
| `lancedb:PATH#table` | `lancedb` | null | float32; integers as float16; bits as uint8 |
| `qdrant:http://host:6333#name`, `qdrant:PATH#name` | `qdrant` | a point without | float32; uint8; int8 as float16 |
| `postgresql://user@host/database#table` | `postgres` | null | vector; integers as halfvec; bits as bit(n) |
| `sqlite:PATH#table` | `sqlite-vec` | no row in `table_vec` | float, int8, bit; uint8 as float |
| `duckdb:PATH#table` | `duckdb` | null | FLOAT[n], for integers too; bits as UTINYINT[n] |

Every table has the columns `key` (text; without a key column the row's number), `embedding`, `embedding_error` (why a
row has no vector), `embedding_digest` (of the text, so that an equal one is known again) and `record` (JSON, what the
input had beside it). LanceDB and DuckDB have the fields of the record as columns of their types, and in `record` only
what has none; in Qdrant they are the payload. A row that is written again replaces the one with its key. Rows with
other keys stay: a store is added to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..._types import DType
from ..sources.fields import Fields, parse_template
from .base import Metric, Setup, StoreError
from .rows import texts_of
from .url import is_store, parse_url

if TYPE_CHECKING:
    from .base import Store


def open_store(
    url: str,
    *,
    column: str = "text",
    key: str | None = None,
    template: str | None = None,
    dtype: DType | None = None,
    metric: Metric = "cosine",
    made_by: Mapping[str, str] | None = None,
) -> Store:
    """A sink for the table that an address names. Nothing is imported or asked yet.

    Args:
        url: as in the table above; without `#table` the table is `embeddings`.
        column: of the text in a record.
        key: the key column's name; None: rows are known by their number.
        template: what the texts are made of, in place of `column`.
        dtype: of the vectors to come; None: as they come, but packed bits cannot be told from numbers then.
        metric: how the vectors are to be compared: "cosine", "l2" (Euclidean) or "ip" (inner product).
        made_by: what changes a vector (model, options); a table that says another is refused.

    Raises:
        ConfigError: the address is none, or the store has no such type or metric.
    """
    address = parse_url(url)
    fields = Fields(column, parse_template(template) if template is not None else ())
    setup = Setup(
        texts=texts_of(fields), keyed=key is not None, dtype=dtype, metric=metric, made_by=dict(made_by or {})
    )
    return _kind(address.kind)(address, setup)


def _kind(kind: str) -> type[Store]:
    if kind == "lancedb":
        from .lance import LanceStore

        return LanceStore
    if kind == "qdrant":
        from .qdrant import QdrantStore

        return QdrantStore
    if kind == "postgresql":
        from .postgres import PostgresStore

        return PostgresStore
    if kind == "sqlite":
        from .sqlite import SqliteStore

        return SqliteStore
    from .duck import DuckStore

    return DuckStore


__all__ = ["StoreError", "is_store", "open_store"]
