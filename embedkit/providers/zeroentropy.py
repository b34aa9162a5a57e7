"""ZeroEntropy. https://docs.zeroentropy.dev/models

`latency="fast"` or `"slow"` goes through `extra`; left out, the server answers fast within its quota and slowly
beyond it.
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
    matrix,
    reject_unsupported,
    to_json,
    tokens_in,
    without_vectors,
)


class _Item(msgspec.Struct, frozen=True, gc=False):
    embedding: Vector | None = None


class _Reply(msgspec.Struct, frozen=True):
    results: list[_Item | None] | None = None
    usage: Any = None


_decoder = decoder_of(_Reply)


class ZeroEntropy(Dialect, frozen=True):
    """ZeroEntropy's dialect. No page says what becomes of an over-long text, so `truncate` cannot be promised."""

    def encode(self, texts: Sequence[str], options: Options) -> Request:
        target = self.target
        reject_unsupported(options, target.host.name, dtype=("float32",), truncate=(), input_type=("query", "document"))
        body = compact(
            model=target.model,
            input=texts,
            input_type=options.input_type or "document",  # the API requires one; the default is embedkit's
            dimensions=options.dimensions,
            encoding_format="base64",
        )
        return Request(target.url("/models/embed"), to_json({**body, **options.extra}), JSON)

    def decode(self, response: Response, options: Options, count: int, out: Out | None = None) -> Reply:
        reply = decode_reply(_decoder, response)
        if reply.results is None:
            raise without_vectors(response, count)
        rows = matrix([item.embedding if item else None for item in reply.results], options, count, out)
        return Reply(rows, "", tokens_in(reply.usage, "total_tokens"))


HOSTS = (
    Host(
        name="zeroentropy", dialect=ZeroEntropy, routes=("/models/embed",), base_url="https://api.zeroentropy.dev/v1",
        version_path="/v1",
        key_variables=("ZEROENTROPY_API_KEY",), key_required=True, start=100, ceiling=128,
        own_domains=("zeroentropy.dev",),
        limits=Limits(max_texts=128),  # a choice: no limit is documented
    ),
)  # fmt: skip
