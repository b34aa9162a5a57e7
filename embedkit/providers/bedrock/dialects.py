"""The dialects behind Bedrock's one route: Titan, Cohere, Nova."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec

from ..._types import Limits, Options, Reply, Request, Response
from ...codec import (
    JSON,
    Dialect,
    Out,
    Target,
    Vector,
    compact,
    decode_reply,
    decoder_of,
    error_in_success,
    header_int,
    matrix,
    reject_unsupported,
    single_text,
    to_json,
    whole_number,
    without_vectors,
)
from ...errors import DecodeError

_TOKENS = "x-amzn-bedrock-input-token-count"
_LONGEST = 2048  # characters of a text for Cohere v3, checked before `truncate` (aws-samples/bedrock-access-gateway#41)


def _invoke(target: Target, body: Mapping[str, Any], options: Options) -> Request:
    return Request(
        target.url(f"/model/{quote(target.model, safe='')}/invoke"), to_json({**body, **options.extra}), JSON
    )


class _TitanReply(msgspec.Struct, frozen=True, rename="camel"):
    embedding: Vector | None = None  # embeddingsByType holds the same floats again
    input_text_token_count: Any = None


class _CohereReply(msgspec.Struct, frozen=True):
    # By type; or the plain list if no type was asked for.
    embeddings: dict[str, list[Vector | None] | None] | list[Vector | None] | None = None


class _NovaItem(msgspec.Struct, frozen=True, gc=False):
    embedding: Vector | None = None


class _NovaReply(msgspec.Struct, frozen=True):
    embeddings: list[_NovaItem | None] | None = None


_titan = decoder_of(_TitanReply)
_cohere = decoder_of(_CohereReply)
_nova = decoder_of(_NovaReply)


class Titan(Dialect, frozen=True):
    """Titan Text Embeddings: an over-long text is always refused. Version 1 has no field but the text."""

    limits: ClassVar[Limits] = Limits(max_texts=1)

    @property
    def sends_dimensions(self) -> bool:
        return self.target.has_widths

    def encode(self, texts: Sequence[str], options: Options) -> Request:
        reject_unsupported(
            options, "bedrock:titan", dtype=("float32",), truncate=("error",), input_type=("query", "document")
        )
        unit = options.normalize if self.sends_dimensions else None  # version 1 is made unit length here
        body = compact(inputText=single_text(texts, "bedrock:titan"), dimensions=options.dimensions, normalize=unit)
        return _invoke(self.target, body, options)

    def decode(self, response: Response, options: Options, count: int, out: Out | None = None) -> Reply:
        reply = decode_reply(_titan, response)
        if reply.embedding is None and (error := error_in_success(response)) is not None:
            raise error
        tokens = header_int(response, _TOKENS)
        rows = matrix([reply.embedding], options, count, out)
        return Reply(rows, "", whole_number(reply.input_text_token_count) if tokens is None else tokens)


class Cohere(Dialect, frozen=True):
    """Cohere's models, in the body of its API's version 1: an over-long text is refused unless `truncate="end"`."""

    limits: ClassVar[Limits] = Limits(max_texts=96)
    sends_dtypes: ClassVar[tuple[str, ...]] = ("float32", "int8", "uint8", "binary", "ubinary")

    @property
    def sends_dimensions(self) -> bool:
        """The third generation has one width per model, and refuses the field."""
        return "-v3" not in self.target.model

    def encode(self, texts: Sequence[str], options: Options) -> Request:
        purposes = ("query", "document", "classification", "clustering")
        reject_unsupported(options, "bedrock:cohere", truncate=("end", "error"), input_type=purposes)
        purpose = options.input_type or "document"  # the API wants one
        cut = options.truncate == "end"
        body = compact(
            texts=[text[:_LONGEST] for text in texts] if cut and not self.sends_dimensions else texts,
            input_type=f"search_{purpose}" if purpose in ("query", "document") else purpose,
            embedding_types=None if options.dtype == "float32" else [options.dtype],
            output_dimension=options.dimensions,
            truncate="END" if cut else "NONE",  # v4 takes END too, though its page says RIGHT
        )
        return _invoke(self.target, body, options)

    def decode(self, response: Response, options: Options, count: int, out: Out | None = None) -> Reply:
        given = decode_reply(_cohere, response).embeddings
        kind = "float" if options.dtype == "float32" else options.dtype
        vectors: list[Vector | None] | None = given.get(kind) if isinstance(given, dict) else given
        if vectors is None:
            names = ", ".join(given) if isinstance(given, dict) else ""
            msg = f"the reply has no {kind} embeddings, only {names or 'none'}"
            raise error_in_success(response) or DecodeError(msg)
        return Reply(matrix(vectors, options, count, out), "", header_int(response, _TOKENS))


class Nova(Dialect, frozen=True):
    """Nova Multimodal Embeddings, texts only: an over-long text is refused unless `truncate="end"`."""

    limits: ClassVar[Limits] = Limits(max_texts=1)

    def encode(self, texts: Sequence[str], options: Options) -> Request:
        purposes = {
            None: "GENERIC_INDEX",  # the API wants one
            "document": "GENERIC_INDEX",
            "query": "TEXT_RETRIEVAL",
            "classification": "CLASSIFICATION",
            "clustering": "CLUSTERING",
        }
        reject_unsupported(
            options, "bedrock:nova", dtype=("float32",), truncate=("end", "error"), input_type=purposes.keys() - {None}
        )
        text = {
            "truncationMode": "END" if options.truncate == "end" else "NONE",
            "value": single_text(texts, "bedrock:nova"),
        }
        single = compact(
            embeddingPurpose=purposes[options.input_type], embeddingDimension=options.dimensions, text=text
        )
        return _invoke(self.target, {"taskType": "SINGLE_EMBEDDING", "singleEmbeddingParams": single}, options)

    def decode(self, response: Response, options: Options, count: int, out: Out | None = None) -> Reply:
        items = decode_reply(_nova, response).embeddings
        if items is None:
            raise without_vectors(response, count)
        rows = matrix([item.embedding if item else None for item in items], options, count, out)
        return Reply(rows, "", header_int(response, _TOKENS))
