"""Voyage AI, at its own host and at MongoDB Atlas. https://docs.voyageai.com/reference/embeddings-api

The family of the model decides the route. Contextualized models get each text as a document of its own, so a row
depends on its text alone. Chunks that belong together are grouped by hand, `extra={"inputs": [["chunk", "chunk"],
…]}`, in the order of the texts, and the count of the reply is checked. Multimodal models embed texts into the space
that they share with pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from .._types import Limits, Options, Reply, Request, Response
from ..codec import (
    JSON,
    MARK,
    Batches,
    Caps,
    Dialect,
    Host,
    Out,
    bearer,
    compact,
    listing,
    matrix,
    reject_unsupported,
    to_json,
)
from ..errors import ConfigError

# Value of `output_dtype`; None: the default.
_KINDS = {"float32": None, "int8": "int8", "uint8": "uint8", "binary": "binary", "ubinary": "ubinary"}
# The most tokens of a request; 120,000 for all others (docs.voyageai.com/reference/embeddings-api, `input`).
_TOKENS = {
    "voyage-4-lite": 1_000_000, "voyage-3.5-lite": 1_000_000,
    "voyage-4": 320_000, "voyage-3.5": 320_000, "voyage-2": 320_000,
    "voyage-multimodal-3.5": 320_000, "voyage-multimodal-3": 320_000,
}  # fmt: skip


class Voyage(Dialect, frozen=True):
    """Voyage's dialect: an over-long text is refused unless `truncate="end"` (the API's default cuts it)."""

    sends_dtypes: ClassVar[tuple[str, ...]] = tuple(_KINDS)

    @property
    def limits(self) -> Limits:
        return msgspec.structs.replace(self.target.host.limits, max_tokens=_TOKENS.get(self.target.model, 120_000))

    @property
    def sends_dimensions(self) -> bool:
        """Older models have one width each."""
        return self.target.has_widths

    @property
    def _contextual(self) -> bool:
        return self.target.model.startswith("voyage-context-")

    @property
    def joins(self) -> tuple[str, ...]:
        """Chunks grouped by hand depend on each other, and stand for the texts in their order."""
        return ("inputs",) if self._contextual else ()

    def encode(self, texts: Sequence[str], options: Options) -> Request:
        target = self.target
        # Contextualized models have no `truncation`.
        reject_unsupported(
            options,
            target.model,
            truncate=() if self._contextual else ("end", "error"),
            input_type=("query", "document"),
        )
        body = compact(
            model=target.model,
            input_type=options.input_type,
            truncation=None if self._contextual else options.truncate == "end",
            output_dimension=options.dimensions,
            output_dtype=_KINDS[options.dtype],
        )
        more: dict[str, Any]
        if self._contextual:
            route, more = (
                "/contextualizedembeddings",
                {"inputs": [[text] for text in texts], "encoding_format": "base64"},
            )
        elif target.model.startswith("voyage-multimodal-"):
            # Lists: voyage-ai/openapi calls the encoding `output_encoding`, the official client `encoding_format`.
            route, more = (
                "/multimodalembeddings",
                {"inputs": [{"content": [{"type": "text", "text": text}]} for text in texts]},
            )
        else:
            route, more = "/embeddings", {"input": texts, "encoding_format": "base64"}
        return Request(target.url(route), to_json({**more, **body, **options.extra}), JSON)

    def decode(self, response: Response, options: Options, count: int, out: Out | None = None) -> Reply:
        vectors, model, tokens = listing(response, count, nested=self._contextual)
        return Reply(matrix(vectors, options, count, out), model, tokens)


class VoyageBatches(Batches, frozen=True):
    """Voyage's batch jobs: a line holds the texts alone, and the options stand in the job, once for all lines.

    docs.voyageai.com/docs/batch-inference, with the caps; it advises to wait for half an hour where the account has no
    room for a further job.
    """

    caps: ClassVar[Caps] = Caps(lines=100_000, inputs=100_000, bytes=1_000_000_000, texts=32, full=1800.0)
    window: ClassVar[str] = "12h"

    def line(self, key: str, texts: Sequence[str], options: Options) -> bytes:
        body = self._body(texts, options)
        return to_json({"custom_id": key, "body": {name: body[name] for name in _TEXTS if name in body}})

    def create(self, key: str, file: str, options: Options) -> Request:
        body = self._body(["a"], options)
        job = {
            "input_file_id": file,
            "endpoint": self.endpoint(self.codec.encode(["a"], options)),
            "completion_window": self.window,
            # `encoding_format` is none of its parameters.
            "request_params": {name: body[name] for name in body if name not in (*_TEXTS, "encoding_format")},
            "metadata": {MARK: key},
        }
        return Request(self.url(self.jobs), to_json(job), JSON)

    def _body(self, texts: Sequence[str], options: Options) -> dict[str, Any]:
        if self.codec.target.model.startswith("voyage-multimodal-"):
            msg = f"{self.codec.target.model}: Voyage runs no batch jobs for multimodal models"
            raise ConfigError(msg)
        found: dict[str, Any] = msgspec.json.decode(self.codec.encode(texts, options).body)
        return found


_TEXTS = ("input", "inputs")  # of a body
_OWN, _ATLAS = "https://api.voyageai.com/", "https://ai.mongodb.com/"


def _routed(request: Request, credentials: Mapping[str, str], now: float) -> Request:
    """The key. One that begins with al- works at MongoDB's host only, the others at Voyage's (voyageai, util.py)."""
    signed = bearer(request, credentials, now)
    if credentials.get("api_key", "").startswith("al-") and signed.url.startswith(_OWN):
        return msgspec.structs.replace(signed, url=_ATLAS + signed.url.removeprefix(_OWN))
    return signed


def key_path(environment: Mapping[str, str]) -> str:
    """The file that holds the key, as the official client reads it."""
    return environment.get("VOYAGE_API_KEY_PATH", "")


HOSTS = (
    Host(
        name="voyage", dialect=Voyage, routes=("/embeddings", "/contextualizedembeddings", "/multimodalembeddings"),
        base_url=_OWN + "v1", version_path="/v1", authorize=_routed, static_auth=True,
        key_variables=("VOYAGE_API_KEY",), key_file=key_path, key_required=True, start=100, ceiling=128,
        # The limit: docs.voyageai.com/reference/embeddings-api.
        own_domains=("voyageai.com", "ai.mongodb.com"), limits=Limits(max_texts=1000), batches=VoyageBatches,
    ),
)  # fmt: skip
