"""LlamaIndex: `EmbedkitEmbedding` is a `BaseEmbedding` of llama-index-core. To install: `pip install '.[llama-index]'`.

>>> from llama_index.core import Document, VectorStoreIndex
>>> from embedkit.contrib.llama_index import EmbedkitEmbedding
>>> embed_model = EmbedkitEmbedding(model="local:all-minilm-l6-v2")
>>> documents = [Document(text="a cat on the sofa"), Document(text="stock prices fell")]
>>> index = VectorStoreIndex.from_documents(documents, embed_model=embed_model)
>>> index.as_retriever(similarity_top_k=1).retrieve("a kitten on the couch")[0].text
'a cat on the sofa'
>>> embed_model.usage.requests
2
"""

from __future__ import annotations

from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr

from embedkit import Embedder, Usage

from ._client import Client

MOST = 2048  # the most that `BaseEmbedding.embed_batch_size` may be


class EmbedkitEmbedding(BaseEmbedding):
    """Any model of embedkit. Texts and queries go out as such; async methods use the running event loop.

    Args:
        model: "provider:model"; None: EMBEDKIT_MODEL if set, else the bundled model. Or an `embedkit.Embedder`.
        **settings: the other keywords of `embedkit.connect` (`input_type` holds for queries and texts alike), and the
            fields of `BaseEmbedding`. Leave `embed_batch_size` large: so many texts are given to embedkit at a time,
            which makes batches of them for the provider and sends these side by side.

    Attributes:
        model_name: "provider:model".
        settings: those that can be written down. `to_dict` and a pickle hold these, and no credential; keys are read
            again from the environment. A pickle refuses a key given as text; `to_dict` leaves it out, since
            `IngestionPipeline` calls that too.

    Raises:
        ConfigError: what `embedkit.connect` refuses. Calls raise as `embedkit.Embedder.embed` does.
    """

    embed_batch_size: int = Field(default=MOST, description="Texts given to embedkit at a time.", gt=0, le=MOST)
    settings: dict[str, Any] = Field(default_factory=dict, description="Keywords of embedkit.connect.")
    _client: Client = PrivateAttr()

    def __init__(
        self,
        model: str | Embedder | None = None,
        *,
        model_name: str | None = None,
        settings: dict[str, Any] | None = None,
        **keywords: Any,
    ) -> None:
        fields = {name: keywords.pop(name) for name in BaseEmbedding.model_fields if name in keywords}
        client = Client(model_name if model is None else model, {**(settings or {}), **keywords})
        written = client.as_data(lenient=True)
        super().__init__(model_name=written.pop("model"), settings=written, **fields)
        self._client = client

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex writes it down."""
        return "EmbedkitEmbedding"

    @property
    def embedder(self) -> Embedder:
        """The `embedkit.Embedder` underneath."""
        return self._client.embedder

    @property
    def usage(self) -> Usage:
        """Tokens, requests and dollars of all calls so far."""
        return self._client.usage

    def _get_query_embedding(self, query: str) -> list[float]:
        row: list[float] = self._client.embed([query], "query").vectors[0].tolist()
        return row

    async def _aget_query_embedding(self, query: str) -> list[float]:
        row: list[float] = (await self._client.aembed([query], "query")).vectors[0].tolist()
        return row

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        rows: list[list[float]] = self._client.embed(texts, "document").vectors.tolist()
        return rows

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        rows: list[list[float]] = (await self._client.aembed(texts, "document")).vectors.tolist()
        return rows

    def __reduce__(self) -> tuple[Any, ...]:
        state = self._client.__getstate__()  # asked here, since LlamaIndex leaves out what refuses to be pickled
        own = {"embed_batch_size": self.embed_batch_size, "num_workers": self.num_workers}
        cache = {} if self.embeddings_cache is None else {"embeddings_cache": self.embeddings_cache}
        return _restored, (state["model"], {**state["settings"], **own, **cache})


def _restored(model: str | Embedder, keywords: dict[str, Any]) -> EmbedkitEmbedding:
    return EmbedkitEmbedding(model, **keywords)
