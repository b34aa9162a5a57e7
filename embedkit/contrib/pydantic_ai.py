"""pydantic-ai: `EmbedkitEmbeddingModel` is an `EmbeddingModel` of pydantic-ai. To install:
`pip install '.[pydantic-ai]'`.

>>> import asyncio
>>> from pydantic_ai import Embedder
>>> from embedkit.contrib.pydantic_ai import EmbedkitEmbeddingModel
>>> embedder = Embedder(EmbedkitEmbeddingModel("local:all-minilm-l6-v2"))
>>> found = asyncio.run(embedder.embed_documents(["a cat on the sofa", "stock prices fell"]))
>>> len(found["a cat on the sofa"]), found.model_name, found.usage.input_tokens
(384, 'all-minilm-l6-v2', 12)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_ai import exceptions
from pydantic_ai.embeddings import EmbeddingModel, EmbeddingResult, EmbeddingSettings
from pydantic_ai.embeddings.result import EmbedInputType
from pydantic_ai.models import check_allow_model_requests
from pydantic_ai.usage import RequestUsage

import embedkit
from embedkit import ConfigError, Embedder, EmbedkitError, Usage

from ._client import Client


class EmbedkitEmbeddingModel(EmbeddingModel):
    """Any model of embedkit. Queries and documents go out as such.

    Args:
        model: "provider:model"; None: EMBEDKIT_MODEL if set, else the bundled model. Or an `embedkit.Embedder`.
        settings: pydantic-ai's own: `dimensions`, `truncate` and `extra_body`; headers are a keyword of `connect`.
        **keywords: the other keywords of `embedkit.connect`; `input_type` holds for queries and documents alike.

    Attributes:
        embedder: the `embedkit.Embedder` underneath.

    A result's `usage` has the tokens, its `provider_details` the requests and the cost as embedkit knows it.

    Raises:
        ConfigError: what `embedkit.connect` refuses. What a provider refuses, an answer that cannot be read, or that
            nothing is reached, is raised as pydantic-ai's own error, whose cause is embedkit's.
    """

    def __init__(
        self, model: str | Embedder | None = None, *, settings: EmbeddingSettings | None = None, **keywords: Any
    ) -> None:
        self._client = Client(model, keywords)
        self.embedder: Embedder = self._client.embedder
        super().__init__(settings=settings)

    @property
    def model_name(self) -> str:
        """The model, as its provider names it."""
        return self.embedder.model

    @property
    def system(self) -> str:
        """The provider, as embedkit names it."""
        return self.embedder.provider

    @property
    def base_url(self) -> str | None:
        """Where requests go; None where there are none, or to several places."""
        return getattr(self.embedder, "base_url", None)

    @property
    def usage(self) -> Usage:
        """Tokens, requests and dollars of all calls so far."""
        return self._client.usage

    async def embed(
        self, inputs: str | Sequence[str], *, input_type: EmbedInputType, settings: EmbeddingSettings | None = None
    ) -> EmbeddingResult:
        """Embed texts as queries or documents, on the running event loop."""
        check_allow_model_requests()
        texts, merged = self.prepare_embed(inputs, settings)
        if merged.get("extra_headers"):
            raise ConfigError("extra_headers are not sent per call: pass headers= to EmbedkitEmbeddingModel")
        try:
            made = await self._client.aembed(
                texts, input_type, dimensions=merged.get("dimensions"), extra=merged.get("extra_body"),
                truncate="end" if merged.get("truncate") else None,
            )  # fmt: skip
        except (embedkit.ApiError, embedkit.DecodeError, embedkit.TransportError) as error:
            raise _as_pydantic_ai(error, self.model_name) from error
        return EmbeddingResult(
            embeddings=made.vectors.tolist(), inputs=texts, input_type=input_type, model_name=made.model,
            provider_name=self.system, usage=RequestUsage(input_tokens=made.usage.tokens or 0),
            provider_details={"requests": made.usage.requests, "cost": made.usage.cost},
        )  # fmt: skip

    async def max_input_tokens(self) -> int | None:
        """The most tokens that one text may have; None: not published."""
        return self.embedder.most_text_tokens(self.embedder.options)

    async def count_tokens(self, text: str) -> int:
        """Tokens of a text, exactly; NotImplementedError where they are only estimated."""
        if self.embedder.count_tokens is Embedder.count_tokens:
            msg = "tokens are only estimated: pass count_tokens= (embedkit.tokens has exact ones)"
            raise NotImplementedError(msg)
        return self.embedder.count_tokens(text)


# The first that fits names the error; what fits none is told by its status alone.
KINDS = (
    (embedkit.QuotaError, exceptions.ModelQuotaExceededError),
    (embedkit.RateLimitError, exceptions.ModelRateLimitError),
    (embedkit.AuthError, exceptions.ModelAuthenticationError),
    (embedkit.NotFoundError, exceptions.ModelNotFoundError),
    (embedkit.TooLongError, exceptions.ModelContextWindowExceededError),
    (embedkit.InvalidInputError, exceptions.ModelRequestRejectedError),
    (embedkit.ServerError, exceptions.ModelServerError),
)


def _as_pydantic_ai(error: EmbedkitError, model: str) -> Exception:
    """The error as pydantic-ai's own models raise it."""
    status = getattr(error, "status", None)
    if isinstance(error, embedkit.DecodeError):
        return exceptions.UnexpectedModelBehavior(str(error))
    if isinstance(error, embedkit.TransportTimeoutError):
        return exceptions.ModelTimeoutError(model, str(error))
    if isinstance(error, embedkit.TransportError):
        return exceptions.ModelConnectionError(model, str(error))
    if status is None:
        return exceptions.ModelAPIError(model, str(error), retry_after=error.retry_after)
    kind = next((theirs for ours, theirs in KINDS if isinstance(error, ours)), None)
    return exceptions.ModelHTTPError.for_category(
        kind, status_code=status, model_name=model, body=str(error), retry_after=error.retry_after
    )
