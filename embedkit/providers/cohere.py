"""Cohere's own API, version 2. https://docs.cohere.com/reference/embed

`input_type` and `embedding_types` are always sent: v3 and later models refuse a request without the first, some
deployments one without the second. Replies in either shape of version 1 are read too, for private deployments and
gateways that have only that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import urlsplit

import msgspec

from .._types import Limits, Options, Reply, Request, Response
from ..codec import (
    JSON,
    Dialect,
    Host,
    Out,
    Target,
    Vector,
    compact,
    decode_reply,
    decoder_of,
    error_in_success,
    host_matches,
    matrix,
    reject_unsupported,
    to_json,
    tokens_in,
    without_vectors,
)
from ..errors import DecodeError

_PURPOSES = {
    None: "search_document",  # the API requires one, so embedkit's default is sent
    "document": "search_document",
    "query": "search_query",
    "classification": "classification",
    "clustering": "clustering",
}
# base64 holds float32, but no page says in which byte order: asked for by `extra` only, and read if it comes.
_KINDS = {"float32": "float", "int8": "int8", "uint8": "uint8", "binary": "binary", "ubinary": "ubinary"}


class _Reply(msgspec.Struct, frozen=True):
    # By type; or, from version 1 if no type was named, the plain list (cohere-ai/cohere-developer-experience, OpenAPI).
    embeddings: dict[str, list[Vector | None] | None] | list[Vector | None] | None = None
    meta: Any = None


_decoder = decoder_of(_Reply)


class Cohere(Dialect, frozen=True):
    """Cohere's dialect: an over-long text is refused unless `truncate="end"` (the API's default cuts it)."""

    sends_dtypes: ClassVar[tuple[str, ...]] = tuple(_KINDS)

    @property
    def sends_dimensions(self) -> bool:
        """Only v4 and later take a width; v3 models have one each (`output_dimension`)."""
        return self.target.has_widths

    def encode(self, texts: Sequence[str], options: Options) -> Request:
        target = self.target
        reject_unsupported(options, target.host.name, truncate=("end", "error"), input_type=_PURPOSES.keys() - {None})
        body = compact(
            model=target.model,
            texts=texts,
            input_type=_PURPOSES[options.input_type],
            embedding_types=[_KINDS[options.dtype]],
            output_dimension=options.dimensions,
            truncate="END" if options.truncate == "end" else "NONE",
        )
        return Request(target.url("/embed"), to_json({**body, **options.extra}), JSON)

    def decode(self, response: Response, options: Options, count: int, out: Out | None = None) -> Reply:
        reply = decode_reply(_decoder, response)
        kind, given = _KINDS[options.dtype], reply.embeddings
        kinds: Mapping[str, list[Vector | None] | None] = given if isinstance(given, dict) else {kind: given}
        vectors = kinds.get(kind) or (kinds.get("base64") if kind == "float" else None)
        if not vectors and kinds.get(kind) == []:
            raise without_vectors(response, count)
        if vectors is None:
            msg = f"the reply has no {kind} embeddings" + (
                f", only {', '.join(given)}" if isinstance(given, dict) and given else ""
            )
            raise error_in_success(response) or DecodeError(msg)
        billed = reply.meta.get("billed_units") if isinstance(reply.meta, dict) else None
        return Reply(matrix(vectors, options, count, out), "", tokens_in(billed, "input_tokens"))


def address(value: str) -> str:
    """CO_API_URL as the official client reads it: the root, without a version at its end (cohere-python, client.py)."""
    return value.rstrip("/").removesuffix("/v1").removesuffix("/v2").rstrip("/") + "/v2"


def _locate(base_url: str, target: Target) -> str:
    """Cohere's own hosts use version 2, whatever version the base URL ends in; elsewhere it is used as given."""
    ours = host_matches(urlsplit(base_url).hostname, target.host.own_domains)
    return address(base_url) if ours and base_url.rstrip("/").endswith("/v1") else base_url


HOSTS = (
    Host(
        name="cohere", dialect=Cohere, base_url="https://api.cohere.com/v2", version_path="/v2",
        routes=("/embed", "/compatibility/v1/embeddings", "/compatibility/v1"), resolve_url=_locate,
        # The variables: cohere-python, client.py.
        key_variables=("CO_API_KEY", "COHERE_API_KEY"), key_required=True, start=100, ceiling=128,
        own_domains=("cohere.com", "cohere.ai"), url_variables=("CO_API_URL",), read_url=address,
        limits=Limits(max_texts=96),  # docs.cohere.com/reference/embed
        batches="its embed jobs have no lower price, and of its newer batches no page gives the format of a row",
    ),
)  # fmt: skip
