"""Google's Gemini API. https://ai.google.dev/api/embeddings

Always `:batchEmbedContents` with one element per text: several parts in one content would be fused into one vector
(googleapis/python-genai#2523). The first generation takes the task as a field; the second ignores the field and wants
the task in the text, so its prefixes stand in the catalog (ai.google.dev/gemini-api/docs/embeddings). Over-long texts
are always cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

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
    prefixed,
    reject_unsupported,
    renormalize_cut,
    split_extra,
    to_json,
    tokens_in,
    with_headers,
    without_vectors,
)

TASKS = {
    "query": "RETRIEVAL_QUERY",
    "document": "RETRIEVAL_DOCUMENT",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
    "similarity": "SEMANTIC_SIMILARITY",
}
_EACH = ("taskType", "title")  # fields of one text: where `extra` has them, they go to every one


class _Values(msgspec.Struct, frozen=True, gc=False):
    values: Vector | None = None


class _Reply(msgspec.Struct, frozen=True, rename="camel"):
    embeddings: list[_Values | None] | None = None
    embedding: _Values | None = None  # of :embedContent, which a gateway may have asked
    usage_metadata: Any = None  # of the second generation only


_decoder = decoder_of(_Reply)


class Gemini(Dialect, frozen=True):
    """Gemini's dialect. A narrower vector of the first generation comes un-normalized and is made unit length here."""

    @property
    def limits(self) -> Limits:
        return self.target.limits

    def encode(self, texts: Sequence[str], options: Options) -> Request:
        target, facts = self.target, self.target.facts
        reject_unsupported(options, target.host.name, dtype=("float32",), truncate=("end",), input_type=TASKS)
        name = f"models/{_bare(target.model)}"
        in_text = facts is not None and bool(facts.prefixes)
        each = compact(
            model=name,
            taskType=None if in_text else TASKS.get(options.input_type or ""),
            outputDimensionality=options.dimensions,
        )
        own, rest = split_extra(options.extra, _EACH)
        requests = [{**each, **own, "content": {"parts": [{"text": text}]}} for text in prefixed(texts, options, facts)]
        url = target.url(f"/{quote(name)}:batchEmbedContents")
        return Request(url, to_json({"requests": requests, **rest}), JSON)

    def decode(self, response: Response, options: Options, count: int, out: Out | None = None) -> Reply:
        reply = decode_reply(_decoder, response)
        items = reply.embeddings if reply.embedding is None else [reply.embedding]
        if items is None:
            raise without_vectors(response, count)
        rows = matrix([item.values if item else None for item in items], options, count, out)
        renormalize_cut(rows, options, self.target.facts)
        return Reply(rows, "", tokens_in(reply.usage_metadata, "promptTokenCount"))


def _bare(model: str) -> str:
    """The name without the collection that Google's own pages put before it."""
    return model.removeprefix("models/")


def _keyed(request: Request, credentials: Mapping[str, str], now: float) -> Request:  # noqa: ARG001 (an `authorize`)
    """The key in a header. It may also stand in the URL, but then every log would hold it."""
    key = credentials.get("api_key")
    return with_headers(request, {"x-goog-api-key": key}) if key else request


HOSTS = (
    Host(
        name="gemini", dialect=Gemini, base_url="https://generativelanguage.googleapis.com/v1", version_path="/v1",
        key_variables=("GOOGLE_API_KEY", "GEMINI_API_KEY"), key_required=True, start=100, ceiling=128,
        own_domains=("generativelanguage.googleapis.com",),
        routes=("/models/{model}:{verb}", "/models/{model}", "/models", "/openai/embeddings", "/openai"),
        # "at most 100 requests can be in one batch"
        authorize=_keyed, static_auth=True, catalog_name=_bare, limits=Limits(max_texts=100),
    ),
)  # fmt: skip
