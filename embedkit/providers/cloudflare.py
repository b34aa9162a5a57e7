"""Cloudflare Workers AI, its native route. https://developers.cloudflare.com/workers-ai/models/

The model's name is part of the URL, with its slashes. No usage is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from .._types import Limits, Options, Reply, Request, Response
from ..codec import (
    JSON,
    Dialect,
    Host,
    Out,
    Parameter,
    Vector,
    accepted_input_types,
    decode_reply,
    decoder_of,
    matrix,
    prefixed,
    reject_unsupported,
    text_of,
    to_json,
    without_vectors,
)
from ..errors import DecodeError

_FIELDS = {"query": "queries", "document": "documents"}  # qwen3-embedding writes the instruction before queries itself


class _Result(msgspec.Struct, frozen=True):
    data: list[Vector | None] | None = None
    pooling: Any = None


class _Reply(msgspec.Struct, frozen=True):
    result: _Result | None = None


_decoder = decoder_of(_Reply)


class Cloudflare(Dialect, frozen=True):
    """Cloudflare's dialect. What fields a request has depends on the model, as the model's page shows."""

    sends_dimensions = False

    def encode(self, texts: Sequence[str], options: Options) -> Request:
        target, facts = self.target, self.target.facts
        cuts = ("end", "error") if self._is("bge-m3") else ()
        reject_unsupported(
            options, target.model, dtype=("float32",), truncate=cuts, input_type=accepted_input_types(facts)
        )
        field = _FIELDS.get(options.input_type or "", "text") if self._is("qwen3-embedding") else "text"
        body: dict[str, Any] = {field: prefixed(texts, options, facts)}
        if self._is("bge-m3"):
            body["truncate_inputs"] = options.truncate == "end"
        if self._pooling:
            body["pooling"] = self._pooling
        account = quote(target.parameters["account_id"], safe="")
        url = target.url(f"/accounts/{account}/ai/run/{quote(target.model, safe='@/')}")
        return Request(url, to_json({**body, **options.extra}), JSON)

    def decode(self, response: Response, options: Options, count: int, out: Out | None = None) -> Reply:
        result = decode_reply(_decoder, response).result
        if result is None:
            raise without_vectors(response, count)
        said = text_of(result.pooling)
        if self._pooling and said not in ("", options.extra.get("pooling", self._pooling)):
            msg = (
                f"pooling={self._pooling!r} was asked for, but the vectors are pooled by {said!r}: "
                "the two do not compare"
            )
            raise DecodeError(msg)
        return Reply(matrix(result.data or [], options, count, out))

    def _is(self, family: str) -> bool:
        return f"/{family}" in self.target.model

    @property
    def _pooling(self) -> str | None:
        """Vectors of different pooling do not compare, so the API's default is sent too."""
        pools = self._is("bge-") and not self._is("bge-m3")
        return self.target.parameters.get("pooling") or ("mean" if pools else None)


HOSTS = (
    Host(
        name="cloudflare", dialect=Cloudflare, base_url="https://api.cloudflare.com/client/v4",
        version_path="/client/v4",
        routes=tuple(
            f"/accounts/{{account_id}}{rest}"
            for rest in ("/ai/run/{model*}", "/ai/run", "/ai/v1/embeddings", "/ai/v1", "/ai", "")
        ),
        key_variables=("CLOUDFLARE_API_TOKEN",), key_required=True, start=100, ceiling=128,
        own_domains=("api.cloudflare.com",),
        parameters={
            "account_id": Parameter(
                ("CLOUDFLARE_ACCOUNT_ID",), required=True, help="whose account, 32 hexadecimal digits"
            ),
            "pooling": Parameter(choices=("mean", "cls"), help="how bge-*-en models pool; mean unless said"),
        },
        limits=Limits(max_texts=100),  # cloudflare/cloudflare-docs#11316
    ),
)  # fmt: skip
