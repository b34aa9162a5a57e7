"""Qdrant: a collection of a server, or in a folder (the client's local mode, for small ones).

    client.query_points("embeddings", query=vector, limit=5)

A row without a key column is the point of its number; a key is the point `uuid5(NAMESPACE, key)`. The fields of the
record are the payload, with `embedding_key`, `embedding_digest` and `embedding_error` beside them. A row that failed is
a point without a vector. With the metric "cosine" Qdrant keeps vectors at unit length
(qdrant.tech/documentation/concepts/collections). The key of a server is in QDRANT_API_KEY; a server has to be of
version 1.16 or newer, which keeps metadata of a collection.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID, uuid5

import msgspec

from ..._types import DType
from ...errors import ConfigError
from .base import Label, Store
from .rows import DIGEST, ERROR, Rows, json_records, runs

NAMESPACE = UUID("5a4c1a30-4b6f-5bb1-9d8e-6c0c3a3f8d11")  # of the points of embedkit's keys
NAMED = "embedding_key"
ASKED = 1_000  # points per question
BATCH = 256  # points per request
BODY = 8 * 1024 * 1024  # bytes of a request, about; a server takes 32 MiB unless told otherwise
DIGITS = 20  # bytes of a number in JSON, at most
BUSY = (408, 429, 500, 502, 503, 504)
TIMEOUT = 120  # seconds for one request


class QdrantStore(Store):
    """A collection of Qdrant."""

    extra: ClassVar[str] = "qdrant"
    clients: ClassVar[tuple[str, ...]] = ("qdrant_client",)
    dtypes: ClassVar[tuple[DType, ...]] = ("float32", "int8", "uint8")
    _base: Any = None

    def _open(self) -> None:
        from qdrant_client import QdrantClient

        place = self.url.place
        if "://" in place:
            key = os.environ.get("QDRANT_API_KEY") or None
            self._base = QdrantClient(url=place, api_key=key, timeout=TIMEOUT, check_compatibility=False)
            return
        path = Path(place).expanduser().absolute()
        if not path.parent.is_dir():
            msg = f"{self.target}: there is no folder {path.parent}"
            raise ConfigError(msg)
        # A job writes from several threads, one at a time.
        self._base = QdrantClient(path=str(path), force_disable_check_same_thread=True)

    def _failures(self) -> tuple[type[Exception], ...]:
        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ApiException

        return (ApiException, QdrantException, RuntimeError, ValueError)  # local mode raises the last two

    def _passing(self, error: Exception) -> bool:
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

        if isinstance(error, UnexpectedResponse):
            return error.status_code in BUSY
        return isinstance(error, ResponseHandlingException)

    def _secrets(self) -> list[str]:
        return [*super()._secrets(), *filter(None, [os.environ.get("QDRANT_API_KEY")])]

    def _found(self) -> tuple[Sequence[str], str | None] | None:
        if not self._base.collection_exists(self.url.table):
            return None
        held = self._base.get_collection(self.url.table).config.metadata
        return (), msgspec.json.encode(held).decode() if held else None

    def _create(self, label: Label, rows: Rows | None) -> None:  # noqa: ARG002
        from qdrant_client import models

        kinds = {"float32": None, "int8": models.Datatype.FLOAT16, "uint8": models.Datatype.UINT8}
        metrics = {"cosine": models.Distance.COSINE, "l2": models.Distance.EUCLID, "ip": models.Distance.DOT}
        vectors = models.VectorParams(size=label.width, distance=metrics[label.metric], datatype=kinds[label.dtype])
        try:
            self._base.create_collection(self.url.table, vectors_config=vectors, metadata=_metadata(label))
        except self._failures():
            if not self._base.collection_exists(self.url.table):  # else another process has just made it
                raise

    def _put(self, rows: Rows, label: Label) -> None:  # noqa: ARG002
        from qdrant_client import models

        records = json_records(rows.pieces)
        for start, end in _batches(rows, records):
            points = []
            for row in range(start, end):
                key, error = rows.keys[row], rows.errors[row]
                payload = msgspec.json.decode(records[row])
                payload |= {NAMED: key, DIGEST: rows.digests[row], ERROR: error}
                vector = rows.vectors[row].tolist() if error is None else {}
                points.append(models.PointStruct(id=_point(key), vector=vector, payload=payload))
            self._base.upsert(self.url.table, points, wait=True)

    def _digests(self, keys: Sequence[Any]) -> Mapping[Any, str | None]:
        found: dict[Any, str | None] = {}
        for start, end in runs(len(keys), ASKED):
            points = [_point(key) for key in keys[start:end]]
            for point in self._base.retrieve(self.url.table, points, with_payload=[NAMED, DIGEST]):
                found[point.payload[NAMED]] = point.payload.get(DIGEST)
        return found

    def _relabel(self, label: Label) -> None:
        self._base.update_collection(self.url.table, metadata=_metadata(label))

    def _close(self) -> None:
        self._base.close()


def _metadata(label: Label) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(label.json())
    return found


def _point(key: Any) -> int | str:
    return key if isinstance(key, int) else str(uuid5(NAMESPACE, key))


def _batches(rows: Rows, records: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """(start, end) of requests of bounded size."""
    start = size = 0
    width = DIGITS * rows.vectors.shape[1]
    for row, record in enumerate(records):
        size += width + len(record)
        if row > start and (size > BODY or row - start >= BATCH):
            yield start, row
            start, size = row, width + len(record)
    if start < len(records):
        yield start, len(records)
