"""LangChain: `EmbedkitEmbeddings` is an `Embeddings` of langchain-core. To install: `pip install '.[langchain]'`.

>>> from langchain_core.vectorstores import InMemoryVectorStore
>>> from embedkit.contrib.langchain import EmbedkitEmbeddings
>>> embeddings = EmbedkitEmbeddings(model="local:all-minilm-l6-v2")
>>> store = InMemoryVectorStore(embeddings)
>>> ids = store.add_texts(["a cat on the sofa", "stock prices fell"])
>>> store.similarity_search("a kitten on the couch", k=1)[0].page_content
'a cat on the sofa'
>>> embeddings.usage.requests
2
"""

from __future__ import annotations

from typing import Any

from langchain_core.embeddings import Embeddings
from pydantic import SecretStr

from embedkit import Embedder, Usage

from ._client import Client


class EmbedkitEmbeddings(Embeddings):
    """Any model of embedkit. Documents and queries go out as such; async methods use the running event loop.

    Args:
        model: "provider:model"; None: EMBEDKIT_MODEL if set, else the bundled model. Or an `embedkit.Embedder`.
        **settings: the other keywords of `embedkit.connect`. `api_key` may also be a `SecretStr`; `input_type` holds
            for queries and documents alike.

    Attributes:
        model: "provider:model".
        embedder: the `embedkit.Embedder` underneath.

    A pickle holds no key: one from the environment is read again from there, one given as text is refused.

    Raises:
        ConfigError: what `embedkit.connect` refuses. Calls raise as `embedkit.Embedder.embed` does.
    """

    def __init__(self, model: str | Embedder | None = None, **settings: Any) -> None:
        plain = {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in settings.items()
        }
        self._client = Client(model, plain)
        self.model: str = self._client.model
        self.embedder: Embedder = self._client.embedder

    @property
    def usage(self) -> Usage:
        """Tokens, requests and dollars of all calls so far."""
        return self._client.usage

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector per text."""
        rows: list[list[float]] = self._client.embed(texts, "document").vectors.tolist()
        return rows

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        row: list[float] = self._client.embed([text], "query").vectors[0].tolist()
        return row

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector per text, on the running event loop."""
        rows: list[list[float]] = (await self._client.aembed(texts, "document")).vectors.tolist()
        return rows

    async def aembed_query(self, text: str) -> list[float]:
        """The vector of a query, on the running event loop."""
        row: list[float] = (await self._client.aembed([text], "query")).vectors[0].tolist()
        return row

    def __getstate__(self) -> dict[str, Any]:
        return {"_client": self._client}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._client = state["_client"]
        self.model, self.embedder = self._client.model, self._client.embedder

    def __repr__(self) -> str:
        return f"EmbedkitEmbeddings({self.embedder!r})"
