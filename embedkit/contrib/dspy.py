"""DSPy: `EmbedkitEmbedder` is a `dspy.Embedder`, `EmbedkitRetriever` a retriever. To install: `pip install '.[dspy]'`.

>>> from embedkit.contrib.dspy import EmbedkitEmbedder, EmbedkitRetriever
>>> embedder = EmbedkitEmbedder("local:all-minilm-l6-v2")
>>> embedder(["a cat on the sofa", "stock prices fell"]).shape
(2, 384)
>>> search = EmbedkitRetriever(["a cat on the sofa", "stock prices fell"], embedder, k=1)
>>> search("a kitten on the couch").passages
['a cat on the sofa']
>>> embedder.usage.requests
3
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import dspy

from embedkit import Embedder, Embeddings, Usage

from ._client import Client, Purpose


class EmbedkitEmbedder(dspy.Embedder):
    """Any model of embedkit: texts to one matrix, row i for text i.

    DSPy does not say whether texts are queries or documents; `input_type="query"` or `"document"` on the call does,
    and `EmbedkitRetriever` says it by itself.

    Args:
        model: "provider:model"; None: EMBEDKIT_MODEL if set, else the bundled model. Or an `embedkit.Embedder`.
        **settings: the other keywords of `embedkit.connect`.

    Attributes:
        model: "provider:model".
        embedder: the `embedkit.Embedder` underneath.

    Tokens are told to `dspy.track_usage`, under `model`. A pickle holds no key: one from the environment is read again
    from there, one given as text is refused.

    Raises:
        ConfigError: what `embedkit.connect` refuses. Calls raise as `embedkit.Embedder.embed` does.
    """

    def __init__(self, model: str | Embedder | None = None, **settings: Any) -> None:
        self._client = Client(model, settings)
        self.embedder: Embedder = self._client.embedder
        super().__init__(self._client.model, caching=False)

    @property
    def usage(self) -> Usage:
        """Tokens, requests and dollars of all calls so far."""
        return self._client.usage

    def __call__(self, inputs: str | Sequence[str], *_: Any, input_type: Purpose | None = None, **options: Any) -> Any:
        """Vectors of shape (n, d) for a list, (d,) for a string. Options are those of `Embedder.embed`.

        `batch_size` and `caching`, DSPy's own, change nothing: embedkit makes batches by itself.
        """
        made = self._client.embed(inputs, input_type, **_own(options))
        return self._answer(made, lone=isinstance(inputs, str))

    async def acall(
        self, inputs: str | Sequence[str], *_: Any, input_type: Purpose | None = None, **options: Any
    ) -> Any:
        """The same on the running event loop."""
        made = await self._client.aembed(inputs, input_type, **_own(options))
        return self._answer(made, lone=isinstance(inputs, str))

    def _answer(self, made: Embeddings, *, lone: bool) -> Any:
        tracker, tokens = dspy.settings.usage_tracker, made.usage.tokens
        if tracker is not None and tokens is not None:
            tracker.add_usage(self.model, {"prompt_tokens": tokens, "total_tokens": tokens})
        return made.vectors[0] if lone else made.vectors


class EmbedkitRetriever(dspy.retrievers.Embeddings):
    """`dspy.retrievers.Embeddings` whose corpus is embedded as documents, and what is asked as queries.

    Args:
        corpus: the passages.
        embedder: an `EmbedkitEmbedder`.
        k: how many passages are found.
        **options: the others of `dspy.retrievers.Embeddings`.
    """

    def __init__(self, corpus: list[str], embedder: EmbedkitEmbedder, k: int = 5, **options: Any) -> None:
        super().__init__(corpus, partial(embedder, input_type="document"), k, **options)
        self.embedder: Callable[..., Any] = partial(embedder, input_type="query")

    def load(self, path: str, embedder: EmbedkitEmbedder) -> Any:
        """As DSPy's: a saved index into this one. The corpus is not embedded again."""
        return super().load(path, partial(embedder, input_type="query"))


def _own(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in {"batch_size", "caching"}}
