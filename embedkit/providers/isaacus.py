"""Isaacus. https://docs.isaacus.com, API reference, embeddings

`overflow_strategy` is always sent, since null is a value of it: with null an over-long text is refused, without the
field it is cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from .._types import Limits, Options, Reply, Request, Response
from ..codec import (
    JSON,
    Dialect,
    Host,
    Out,
    Vector,
    compact,
    decode_reply,
    decoder_of,
    in_place,
    matrix,
    reject_unsupported,
    to_json,
    tokens_in,
    without_vectors,
)

_TASKS = {"query": "retrieval/query", "document": "retrieval/document"}


class _Item(msgspec.Struct, frozen=True, gc=False):
    embedding: Vector | None = None
    index: Any = None


class _Reply(msgspec.Struct, frozen=True):
    embeddings: list[_Item] | None = None
    usage: Any = None


_decoder = decoder_of(_Reply)


class Isaacus(Dialect, frozen=True):
    """Isaacus' dialect: an over-long text is refused unless `truncate="end"`."""

    def encode(self, texts: Sequence[str], options: Options) -> Request:
        target = self.target
        reject_unsupported(options, target.host.name, truncate=("end", "error"), input_type=_TASKS)
        body = compact(
            model=target.model, texts=texts, task=_TASKS.get(options.input_type or ""), dimensions=options.dimensions
        )
        body["overflow_strategy"] = "drop_end" if options.truncate == "end" else None
        return Request(target.url("/embeddings"), to_json({**body, **options.extra}), JSON)

    def decode(self, response: Response, options: Options, count: int, out: Out | None = None) -> Reply:
        reply = decode_reply(_decoder, response)
        if reply.embeddings is None:
            raise without_vectors(response, count)
        items = in_place(reply.embeddings, count)  # they may come in any order (docs.isaacus.com, `index`)
        rows = matrix([item.embedding for item in items], options, count, out)
        return Reply(rows, "", tokens_in(reply.usage, "input_tokens"))


HOSTS = (
    Host(
        name="isaacus", dialect=Isaacus, base_url="https://api.isaacus.com/v1", version_path="/v1",
        key_variables=("ISAACUS_API_KEY",),
        # The limit: docs.isaacus.com, `texts`.
        key_required=True, start=100, ceiling=128, own_domains=("isaacus.com",), limits=Limits(max_texts=128),
    ),
)  # fmt: skip
