"""Google's Vertex AI. https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api

Two shapes: `:predict` for the text models and gemini-embedding-001, `:embedContent` for later Gemini models. Either
cuts an over-long text unless `autoTruncate` is false, so that always goes out. The token is the caller's: `api_key`
is an OAuth access token or a callable that gives one, asked on every attempt.
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
    Parameter,
    Target,
    Vector,
    bearer,
    compact,
    decode_reply,
    decoder_of,
    matrix,
    prefixed,
    reject_unsupported,
    renormalize_cut,
    single_text,
    split_extra,
    to_json,
    tokens_in,
    with_headers,
    without_vectors,
)
from ..errors import ConfigError
from .gemini import TASKS

_EACH = ("task_type", "title")  # fields of one instance: where `extra` has them, they go to every one


class _Values(msgspec.Struct, frozen=True, gc=False):
    values: Vector | None = None
    statistics: Any = None


class _Prediction(msgspec.Struct, frozen=True, gc=False):
    embeddings: _Values | None = None


class _Reply(msgspec.Struct, frozen=True, rename="camel"):
    predictions: list[_Prediction | None] | None = None
    embedding: _Values | None = None
    usage_metadata: Any = None


_decoder = decoder_of(_Reply)


class Vertex(Dialect, frozen=True):
    """Vertex's dialect: an over-long text is refused unless `truncate="end"`."""

    @property
    def limits(self) -> Limits:
        """A Gemini model takes one text per request (mem0ai/mem0#6189; @ai-sdk/google-vertex)."""
        limits = self.target.limits
        return msgspec.structs.replace(limits, max_texts=1) if "gemini" in self.target.model else limits

    @property
    def _later(self) -> bool:
        return "gemini" in self.target.model and self.target.model != "gemini-embedding-001"

    def encode(self, texts: Sequence[str], options: Options) -> Request:
        target, facts = self.target, self.target.facts
        reject_unsupported(options, target.host.name, dtype=("float32",), truncate=("end", "error"), input_type=TASKS)
        task = None if facts is not None and facts.prefixes else TASKS.get(options.input_type or "")
        texts = prefixed(texts, options, facts)
        settings = compact(outputDimensionality=options.dimensions, autoTruncate=options.truncate == "end")
        body: dict[str, Any]
        if self._later:
            config = compact(taskType=task) | settings
            body = {
                "content": {"parts": [{"text": single_text(texts, target.host.name)}]},
                "embedContentConfig": config,
            }
            return Request(self._url("embedContent"), to_json({**body, **options.extra}), JSON)
        own, rest = split_extra(options.extra, _EACH)
        body = {
            "instances": [{"content": text, **compact(task_type=task), **own} for text in texts],
            "parameters": settings,
        }
        return Request(self._url("predict"), to_json({**body, **rest}), JSON)

    def _url(self, verb: str) -> str:
        return self.target.url(f"/models/{quote(self.target.model, safe='')}:{verb}")

    def decode(self, response: Response, options: Options, count: int, out: Out | None = None) -> Reply:
        reply = decode_reply(_decoder, response)
        if reply.predictions is not None:
            items = [prediction.embeddings if prediction else None for prediction in reply.predictions]
            counts = [tokens_in(item.statistics if item else None, "token_count") for item in items]
        elif reply.embedding is not None:
            items, counts = [reply.embedding], [tokens_in(reply.usage_metadata, "promptTokenCount")]
        else:
            raise without_vectors(response, count)
        rows = matrix([item.values if item else None for item in items], options, count, out)
        renormalize_cut(rows, options, self.target.facts)
        known = [number for number in counts if number is not None]
        return Reply(rows, "", sum(known) if len(known) == count else None)


def _locate(base_url: str, target: Target) -> str:
    """The host of the location, then project and location; a base URL with `/publishers/` is used as it is."""
    if "/publishers/" in base_url:
        return base_url
    if "/projects/" in base_url:
        return msgspec.structs.replace(target, base_url=base_url).url("/publishers/google")
    name = target.host.name
    project, location = target.parameters.get("project"), target.parameters.get("location") or "global"
    if project is None:
        msg = (
            f"{name} needs project (a Google Cloud project): pass project= or set GOOGLE_CLOUD_PROJECT; "
            f"with a key of express mode, which has none: base_url='{target.host.base_url}/publishers/google'"
        )
        raise ConfigError(msg)
    if base_url == target.host.base_url and location != "global":
        where = f"aiplatform.{location}.rep" if location in ("us", "eu") else f"{quote(location, safe='')}-aiplatform"
        base_url = base_url.replace("aiplatform", where)
    place = f"/projects/{quote(project, safe=':')}/locations/{quote(location, safe='')}/publishers/google"
    return msgspec.structs.replace(target, base_url=base_url).url(place)


def _authorized(request: Request, credentials: Mapping[str, str], now: float) -> Request:
    """An OAuth token as Bearer, or in express mode, which has no project in the path, the API key (python-genai)."""
    key = credentials.get("api_key")
    if not key or "/projects/" in request.url:
        return bearer(request, credentials, now)
    return with_headers(request, {"x-goog-api-key": key})


HOSTS = (
    Host(
        name="vertex", dialect=Vertex, base_url="https://aiplatform.googleapis.com/v1beta1", version_path="/v1beta1",
        routes=("/models/{model}:{verb}", "/models/{model}", "/models"), key_required=True, start=100, ceiling=128,
        own_domains=("aiplatform.googleapis.com",), resolve_url=_locate, authorize=_authorized,
        parameters={
            "project": Parameter(("GOOGLE_CLOUD_PROJECT",), help="a Google Cloud project"),
            "location": Parameter(
                ("GOOGLE_CLOUD_LOCATION",), help="a region like us-central1, a multi-region (us, eu), or global"
            ),
        },
        limits=Limits(max_texts=250, max_tokens=16_000),  # of 20,000: the count is an estimate
        batches="its batch jobs read from and write to Cloud Storage, which embedkit does not speak",
    ),
)  # fmt: skip
