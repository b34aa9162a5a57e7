"""Nomic Atlas. https://docs.nomic.ai/reference/api/embed-text-v-1-embedding-text-post

The server puts the model's prefix before each text, which `task_type` names. No page says whether it normalizes:
values come as they are, and `normalize=True` makes them unit length.
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
    text_of,
    to_json,
    tokens_in,
    without_vectors,
)

_TASKS = {
    None: "search_document",  # the default of the API and of its client
    "document": "search_document",
    "query": "search_query",
    "classification": "classification",
    "clustering": "clustering",
}


class _Reply(msgspec.Struct, frozen=True):
    embeddings: list[Vector | None] | None = None
    model: Any = None
    usage: Any = None


_decoder = decoder_of(_Reply)


class Nomic(Dialect, frozen=True):
    """Nomic's dialect. The API cannot refuse an over-long text, so `truncate="error"` is a ConfigError."""

    @property
    def sends_dimensions(self) -> bool:
        """Only v1.5 takes a width (`dimensionality`)."""
        return self.target.has_widths

    def encode(self, texts: Sequence[str], options: Options) -> Request:
        target = self.target
        reject_unsupported(
            options, target.host.name, dtype=("float32",), truncate=("end",), input_type=_TASKS.keys() - {None}
        )
        body = compact(
            model=target.model,  # never left out: the API's default is v1, its client's v1.5
            texts=texts,
            task_type=_TASKS[options.input_type],
            dimensionality=options.dimensions,
            # As the official client. The API's default averages chunks: extra={"long_text_mode": "mean"}.
            long_text_mode="truncate",
        )
        return Request(target.url("/embedding/text"), to_json({**body, **options.extra}), JSON)

    def decode(self, response: Response, options: Options, count: int, out: Out | None = None) -> Reply:
        reply = decode_reply(_decoder, response)
        if reply.embeddings is None:
            raise without_vectors(response, count)
        tokens = tokens_in(reply.usage, "prompt_tokens", "total_tokens")
        return Reply(matrix(reply.embeddings, options, count, out), text_of(reply.model), tokens)


def address(value: str) -> str:
    """ATLAS_API_PATH as the official client reads it: the root, without the version."""
    return value.rstrip("/").removesuffix("/v1") + "/v1"


HOSTS = (
    Host(
        name="nomic", dialect=Nomic, routes=("/embedding/text",), base_url="https://api-atlas.nomic.ai/v1",
        version_path="/v1",
        # LangChain's name for it; the official client reads its own login
        key_variables=("NOMIC_API_KEY",), key_required=True, start=100, ceiling=128,
        own_domains=("nomic.ai",), url_variables=("ATLAS_API_PATH",), read_url=address,
        limits=Limits(max_texts=10),  # the most the official client sends (nomic-ai/nomic#392); the API names no limit
    ),
)  # fmt: skip
