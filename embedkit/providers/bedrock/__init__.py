"""Amazon Bedrock's InvokeModel. https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html

One route, three families of bodies: Titan and Nova take one text per request, Cohere up to 96. The family is told by the model's
name, be it a bare id, an inference profile or an ARN (wire reference, part 2, 7). A bearer key goes out as it is; AWS keys sign.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

import msgspec

from ..._types import Limits, Options, Reply, Request, Response
from ...codec import (
    JSON,
    Host,
    Out,
    Parameter,
    Target,
    Vector,
    bearer,
    compact,
    counted,
    decoder_of,
    filled,
    inside,
    lone,
    matrix,
    miscounted,
    only,
    parsed,
    read,
    to_json,
    whole_number,
    with_headers,
)
from ...errors import ConfigError, DecodeError
from .sigv4 import sign

_TOKENS = "x-amzn-bedrock-input-token-count"
_LONGEST = 2048  # characters of one text for Cohere's third generation, checked before `truncate` is looked at (part 2, 1.2)


def _invoke(target: Target, body: Mapping[str, Any], options: Options) -> Request:
    return Request(target.url(f"/model/{quote(target.model, safe='')}/invoke"), to_json({**body, **options.extra}), JSON)


class _TitanReply(msgspec.Struct, frozen=True, rename="camel"):
    embedding: Vector | None = None  # embeddingsByType holds the same floats again
    input_text_token_count: Any = None


class _CohereReply(msgspec.Struct, frozen=True):
    embeddings: dict[str, list[Vector | None] | None] | list[Vector | None] | None = (
        None  # by type; or, of one type that was not named, the plain list
    )


class _NovaItem(msgspec.Struct, frozen=True, gc=False):
    embedding: Vector | None = None


class _NovaReply(msgspec.Struct, frozen=True):
    embeddings: list[_NovaItem | None] | None = None


_titan = decoder_of(_TitanReply)
_cohere = decoder_of(_CohereReply)
_nova = decoder_of(_NovaReply)


class Titan(msgspec.Struct, frozen=True):
    """Titan Text Embeddings: an over-long text is refused, always. Version 1 knows no field but the text."""

    target: Target
    limits: ClassVar[Limits] = Limits(max_texts=1)

    @property
    def sends_dimensions(self) -> bool:
        facts = self.target.facts
        return facts is None or bool(facts.widths)

    def encode(self, texts: Sequence[str], options: Options) -> Request:
        only(options, "bedrock:titan", dtype=("float32",), truncate=("error",), input_type=("query", "document"))
        unit = options.normalize if self.sends_dimensions else None  # version 1 is made unit length here
        body = compact(inputText=lone(texts, "bedrock:titan"), dimensions=options.dimensions, normalize=unit)
        return _invoke(self.target, body, options)

    def decode(self, response: Response, options: Options, count: int, out: Out | None = None) -> Reply:
        reply = parsed(_titan, response)
        if reply.embedding is None and (error := inside(response)) is not None:
            raise error
        tokens = counted(response, _TOKENS)
        rows = matrix([reply.embedding], options, count, out)
        return Reply(rows, "", whole_number(reply.input_text_token_count) if tokens is None else tokens)

    def explain(self, response: Response) -> str:
        return read(response).message


class Cohere(msgspec.Struct, frozen=True):
    """Cohere's models, in the body of its API's version 1: an over-long text is refused unless `truncate="end"`."""

    target: Target
    limits: ClassVar[Limits] = Limits(max_texts=96)
    sends_dtypes: ClassVar[tuple[str, ...]] = ("float32", "int8", "uint8", "binary", "ubinary")

    @property
    def sends_dimensions(self) -> bool:
        """The third generation has one width per model, and refuses the field."""
        return "-v3" not in self.target.model

    def encode(self, texts: Sequence[str], options: Options) -> Request:
        purposes = ("query", "document", "classification", "clustering")
        only(options, "bedrock:cohere", truncate=("end", "error"), input_type=purposes)
        purpose = options.input_type or "document"  # the API wants one
        cut = options.truncate == "end"
        body = compact(
            texts=[text[:_LONGEST] for text in texts] if cut and not self.sends_dimensions else texts,
            input_type=f"search_{purpose}" if purpose in ("query", "document") else purpose,
            embedding_types=None if options.dtype == "float32" else [options.dtype],
            output_dimension=options.dimensions,
            truncate="END" if cut else "NONE",  # v4 takes END too, though its page says RIGHT (recorded)
        )
        return _invoke(self.target, body, options)

    def decode(self, response: Response, options: Options, count: int, out: Out | None = None) -> Reply:
        given = parsed(_cohere, response).embeddings
        kind = "float" if options.dtype == "float32" else options.dtype
        vectors: list[Vector | None] | None = given.get(kind) if isinstance(given, dict) else given
        if vectors is None:
            msg = f"the reply has no {kind} embeddings, only {', '.join(given or ()) or 'none'}"  # type: ignore[arg-type]  # no list here
            raise inside(response) or DecodeError(msg)
        return Reply(matrix(vectors, options, count, out), "", counted(response, _TOKENS))

    def explain(self, response: Response) -> str:
        return read(response).message


class Nova(msgspec.Struct, frozen=True):
    """Nova Multimodal Embeddings, texts only: an over-long text is refused unless `truncate="end"`."""

    target: Target
    limits: ClassVar[Limits] = Limits(max_texts=1)

    def encode(self, texts: Sequence[str], options: Options) -> Request:
        purposes = {
            None: "GENERIC_INDEX",  # the API wants one
            "document": "GENERIC_INDEX",
            "query": "TEXT_RETRIEVAL",
            "classification": "CLASSIFICATION",
            "clustering": "CLUSTERING",
        }
        only(options, "bedrock:nova", dtype=("float32",), truncate=("end", "error"), input_type=purposes.keys() - {None})
        text = {"truncationMode": "END" if options.truncate == "end" else "NONE", "value": lone(texts, "bedrock:nova")}
        single = compact(embeddingPurpose=purposes[options.input_type], embeddingDimension=options.dimensions, text=text)
        return _invoke(self.target, {"taskType": "SINGLE_EMBEDDING", "singleEmbeddingParams": single}, options)

    def decode(self, response: Response, options: Options, count: int, out: Out | None = None) -> Reply:
        items = parsed(_nova, response).embeddings
        if items is None:
            raise inside(response) or miscounted(0, count)
        rows = matrix([item.embedding if item else None for item in items], options, count, out)
        return Reply(rows, "", counted(response, _TOKENS))

    def explain(self, response: Response) -> str:
        return read(response).message


_FAMILIES: dict[str, tuple[str, type[Titan | Cohere | Nova]]] = {
    "titan": ("titan-embed-text", Titan),
    "cohere": ("cohere.embed", Cohere),
    "nova": ("multimodal-embeddings", Nova),
}


def _family(target: Target) -> Titan | Cohere | Nova:
    said = target.parameters.get("family")
    for name, (part, dialect) in _FAMILIES.items():
        if name == said or (said is None and part in target.model):
            return dialect(target)
    msg = f"model {target.model!r} does not tell its family: pass family={' or '.join(map(repr, _FAMILIES))}"
    raise ConfigError(msg)


def _bare(model: str) -> str:
    """The model's own id, without what an ARN or an inference profile (us., global.) puts before it."""
    found = re.search(r"(?:amazon|cohere)\.[\w.:-]+$", model)
    return found[0] if found else model


def _authorised(request: Request, credentials: Mapping[str, str], now: float) -> Request:
    """The bearer key where there is one, as AWS's own clients prefer it; else a signature."""
    keys = {name: credentials.get(name) for name in _KEYS}
    if credentials.get("api_key") or not any(keys.values()):
        return bearer(request, credentials, now)
    access, secret, token = keys.values()
    told = re.search(r"bedrock-runtime[\w-]*\.([\w-]+)\.", urlsplit(request.url).hostname or "")
    region = told[1] if told else credentials.get("region")  # a signature for another region than the host's is refused
    if not access or not secret or not region:
        missing = ", ".join(
            name for name, value in {**keys, "region": region}.items() if not value and name != "aws_session_token"
        )
        msg = f"bedrock signs with aws_access_key_id and aws_secret_access_key for a region; missing: {missing}"
        raise ConfigError(msg)
    headers = sign(request, access_key=access, secret_key=secret, token=token or "", region=region, service="bedrock", now=now)
    return with_headers(request, headers)


_KEYS = {
    "aws_access_key_id": Parameter(("AWS_ACCESS_KEY_ID",), secret=True, key=True, help="access key of AWS"),
    "aws_secret_access_key": Parameter(("AWS_SECRET_ACCESS_KEY",), secret=True, key=True, help="its secret"),
    "aws_session_token": Parameter(("AWS_SESSION_TOKEN",), secret=True, key=True, help="of a temporary access key"),
}

HOSTS = (
    Host(
        name="bedrock", dialect=_family, base_url="https://bedrock-runtime.{region}.amazonaws.com",
        routes=("/model/{model*}/invoke", "/model/{model*}/converse"),
        keys=("AWS_BEARER_TOKEN_BEDROCK",), key_required=True, start=100, ceiling=128, locate=filled, authorise=_authorised, known_as=_bare,
        domains=("bedrock-runtime.*.amazonaws.com", "bedrock-runtime-fips.*.amazonaws.com", "bedrock-runtime.*.vpce.amazonaws.com"),
        parameters={
            "region": Parameter(("AWS_REGION", "AWS_DEFAULT_REGION"), help="like us-east-1"),
            "family": Parameter(choices=tuple(_FAMILIES), help="whose body to send, where the model's name (an ARN) does not tell"),
            **_KEYS,
        },
    ),
)  # fmt: skip
