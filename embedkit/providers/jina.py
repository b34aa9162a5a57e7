"""Jina AI. https://api.jina.ai/redoc, the OpenAPI page of POST /v1/embeddings

The field `task` says what a text is for, and each family of models has its own values. Late chunking is
`extra={"late_chunking": True}`: all texts of a request are then read as one document, so pass no more than a request
may hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec

from .._types import Limits, Options, Reply, Request, Response
from ..codec import JSON, Dialect, Host, Out, compact, listing, matrix, reject_unsupported, to_json

_KINDS = {"float32": "base64", "binary": "binary", "ubinary": "ubinary"}
_RETRIEVAL = {"query": "retrieval.query", "document": "retrieval.passage"}


class _Family(msgspec.Struct, frozen=True):
    tasks: Mapping[str, str]
    widths: bool = True  # takes `dimensions`
    normalized: bool = True  # takes `normalized`


_MATCHING = {**_RETRIEVAL, "similarity": "text-matching"}
# By the start of the model's name (api.jina.ai/redoc, `task`). An unknown model is asked for what all newer ones know.
_FAMILIES = {
    "jina-embeddings-v2-": _Family({}, widths=False),
    "jina-embeddings-v3": _Family({**_MATCHING, "classification": "classification", "clustering": "separation"}),
    "jina-embeddings-v4": _Family(_MATCHING, normalized=False),
    "jina-embeddings-v5-": _Family({**_MATCHING, "classification": "classification", "clustering": "clustering"}),
    "jina-code-embeddings-": _Family({"query": "nl2code.query", "document": "nl2code.passage"}, normalized=False),
    "jina-clip-": _Family({}, normalized=False),
    "": _Family(_RETRIEVAL, normalized=False),
}


class Jina(Dialect, frozen=True):
    """Jina's dialect: an over-long text is refused unless `truncate="end"`, as is the API's own default."""

    sends_dtypes: ClassVar[tuple[str, ...]] = tuple(_KINDS)
    joins: ClassVar[tuple[str, ...]] = ("late_chunking",)  # all texts of one request are then read as one document

    @property
    def sends_dimensions(self) -> bool:
        """All but the second generation take a width."""
        return self._family.widths

    @property
    def _family(self) -> _Family:
        return next(family for start, family in _FAMILIES.items() if self.target.model.startswith(start))

    def encode(self, texts: Sequence[str], options: Options) -> Request:
        target, family = self.target, self._family
        reject_unsupported(
            options, target.model, truncate=("end", "error"), input_type={"query", "document", *family.tasks}
        )
        body = compact(
            model=target.model,
            input=texts,
            task=family.tasks.get(options.input_type or ""),
            dimensions=options.dimensions,
            embedding_type=_KINDS[options.dtype],
            normalized=options.normalize if family.normalized else None,
            truncate=None if options.truncate is None else options.truncate == "end",
        )
        return Request(target.url("/embeddings"), to_json({**body, **options.extra}), JSON)

    def decode(self, response: Response, options: Options, count: int, out: Out | None = None) -> Reply:
        vectors, model, tokens = listing(response, count)
        return Reply(matrix(vectors, options, count, out), model, tokens)


HOSTS = (
    Host(
        name="jina", dialect=Jina, base_url="https://api.jina.ai/v1", version_path="/v1",
        # Jina's own variable, and those of litellm and llama-index.
        key_variables=("JINA_API_KEY", "JINA_AI_API_KEY", "JINAAI_API_KEY"),
        key_required=True, own_domains=("jina.ai",),
        limits=Limits(max_texts=512),  # v4's (langgenius/dify-official-plugins#1997)
    ),
)  # fmt: skip
