"""Perplexity. https://docs.perplexity.ai/api-reference/embeddings-post

The API has no float output: vectors are int8 or packed bits, always in base64. As float32 they keep their values,
whole numbers and not of unit length: compare them by cosine, or pass `normalize=True`. Packed bits keep the
provider's order, the least significant first (docs.perplexity.ai/docs/embeddings/best-practices, 2026-11).
Contextualized models get each text as a document of its own; chunks are grouped by hand, `extra={"input": [["chunk",
"chunk"], …]}`, in the order of the texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import ClassVar

from .._types import Limits, Options, Reply, Request, Response
from ..codec import (
    JSON,
    Dialect,
    Host,
    Out,
    VectorLike,
    accepted_input_types,
    compact,
    float_type,
    listing,
    matrix,
    reject_unsupported,
    to_json,
    vector_values,
)
from ..errors import DecodeError

_KINDS = {"float32": "base64_int8", "int8": "base64_int8", "binary": "base64_binary", "ubinary": "base64_binary"}
_OFFSET = bytes(byte ^ 0x80 for byte in range(256))  # a byte → the same less 128, as int8: what "binary" is here


class Perplexity(Dialect, frozen=True):
    """Perplexity's dialect. No page says what becomes of an over-long text, so `truncate` cannot be promised."""

    sends_dtypes: ClassVar[tuple[str, ...]] = tuple(_KINDS)

    @property
    def _contextual(self) -> bool:
        return self.target.model.startswith("pplx-embed-context-")

    @property
    def joins(self) -> tuple[str, ...]:
        """Chunks grouped by hand depend on each other, and stand for the texts in their order."""
        return ("input",) if self._contextual else ()

    def encode(self, texts: Sequence[str], options: Options) -> Request:
        target = self.target
        reject_unsupported(options, target.host.name, truncate=(), input_type=accepted_input_types(target.facts))
        body = compact(
            model=target.model,
            input=[[text] for text in texts] if self._contextual else texts,
            dimensions=options.dimensions,
            encoding_format=_KINDS[options.dtype],
        )
        route = "/contextualizedembeddings" if self._contextual else "/embeddings"
        return Request(target.url(route), to_json({**body, **options.extra}), JSON)

    def decode(self, response: Response, options: Options, count: int, out: Out | None = None) -> Reply:
        vectors, model, tokens = listing(response, count, nested=self._contextual)
        rows: list[VectorLike] = []
        for vector in vectors:
            made = _bytes(vector)
            if name := float_type(made):
                rows.append(DecodeError(f"the vector is {name}, but Perplexity's are int8 or packed bits"))
            else:
                rows.append(_given(vector, made, options))
        if rows and all(isinstance(row, DecodeError) for row in rows):
            raise next(row for row in rows if isinstance(row, DecodeError))
        return Reply(matrix(rows, options, count, out), model, tokens)


def _bytes(vector: VectorLike) -> bytes:
    """The bytes inside base64; none of anything else."""
    with suppress(DecodeError):
        made = vector_values(vector)
        if isinstance(made, bytes):
            return made
    return b""


def _given(vector: VectorLike, made: bytes, options: Options) -> VectorLike:
    """The bytes of a vector as what was asked for; anything else as it is, should it ever come."""
    if made and options.dtype == "float32":
        return memoryview(made).cast("b")
    return made.translate(_OFFSET) if made and options.dtype == "binary" else vector


def address(value: str) -> str:
    """PERPLEXITY_BASE_URL as the official client reads it: the root, to which it adds /v1 itself."""
    return value.rstrip("/").removesuffix("/v1") + "/v1"


HOSTS = (
    Host(
        name="perplexity", dialect=Perplexity, routes=("/embeddings", "/contextualizedembeddings"),
        base_url="https://api.perplexity.ai/v1", version_path="/v1",
        key_variables=("PERPLEXITY_API_KEY",), key_required=True, start=100, ceiling=128,
        own_domains=("perplexity.ai",),
        url_variables=("PERPLEXITY_BASE_URL",), read_url=address,
        limits=Limits(max_texts=512, max_tokens=120_000, max_text_tokens=32_000),  # its page, `input`
    ),
)  # fmt: skip
