"""Haystack: `EmbedkitTextEmbedder` and `EmbedkitDocumentEmbedder` are components of haystack-ai. To install:
`pip install '.[haystack]'`.

>>> from haystack import Document, Pipeline
>>> from haystack.components.retrievers import InMemoryEmbeddingRetriever
>>> from haystack.document_stores.in_memory import InMemoryDocumentStore
>>> from embedkit.contrib.haystack import EmbedkitDocumentEmbedder, EmbedkitTextEmbedder
>>> store = InMemoryDocumentStore()
>>> embedder = EmbedkitDocumentEmbedder(model="local:all-minilm-l6-v2")
>>> made = embedder.run([Document(content="a cat on the sofa"), Document(content="stock prices fell")])
>>> made["meta"]["model"], store.write_documents(made["documents"])
('all-minilm-l6-v2', 2)
>>> search = Pipeline()
>>> _ = search.add_component("embedder", EmbedkitTextEmbedder(model="local:all-minilm-l6-v2"))
>>> _ = search.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=1))
>>> _ = search.connect("embedder.embedding", "retriever.query_embedding")
>>> search.run({"embedder": {"text": "a kitten on the couch"}})["retriever"]["documents"][0].content
'a cat on the sofa'

`Pipeline.loads` builds components of modules that it trusts: `allowed_modules=["embedkit.contrib.haystack"]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

from haystack import Document, component, default_from_dict, default_to_dict
from haystack.utils import Secret

from embedkit import ConfigError, Embedder, Embeddings, Usage

from .._values import shown
from ._client import Client


class _Component:
    """What both have in common: settings, how they are written down, and the end.

    They call it by name: `@component` makes another class of each, which `super()` does not know.
    """

    def __init__(self, model: str | Embedder | None, own: dict[str, Any], settings: dict[str, Any]) -> None:
        if isinstance(settings.get("api_key"), str):
            msg = "api_key is text: pass Secret.from_env_var('NAME'), Secret.from_token(…), or leave it out"
            raise ConfigError(msg)
        self._own = own
        self._secrets = {name: value for name, value in settings.items() if isinstance(value, Secret)}
        self._client = Client(model, settings | {name: each.resolve_value() for name, each in self._secrets.items()})
        self.model: str = self._client.model
        self.embedder: Embedder = self._client.embedder

    @property
    def usage(self) -> Usage:
        """Tokens, requests and dollars of all runs so far; those of one run are in its `meta`."""
        return self._client.usage

    def to_dict(self) -> dict[str, Any]:
        """The component as data.

        A `Secret` of an environment variable is written as its name; no key ever is: Haystack refuses a `Secret` of a
        token, and ConfigError names any other setting that holds a credential or cannot be written.
        """
        return default_to_dict(self, **self._client.as_data(without=self._secrets), **self._secrets, **self._own)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The component that `to_dict` has written."""
        return default_from_dict(cls, data)

    def close(self) -> None:
        """Close what `run` has opened; a later run opens it again."""
        self._client.close()

    async def close_async(self) -> None:
        """Close what `run_async` has opened on this event loop; a later run opens it again."""
        await self._client.aclose()


@component
class EmbedkitTextEmbedder(_Component):
    """Embeds one text as a query, with any model of embedkit.

    Args:
        model: "provider:model"; None: EMBEDKIT_MODEL if set, else the bundled model. Or an `embedkit.Embedder`,
            which cannot be written down.
        prefix, suffix: what goes before and after every text. Instructions that the model's family wants are there
            already.
        **settings: the other keywords of `embedkit.connect`. Credentials are given as a `Secret`; left out, the
            provider's own variable is read. `limits`, `rate` and `retry` may also be mappings, as YAML has them.

    Attributes:
        model: "provider:model".
        embedder: the `embedkit.Embedder` underneath.

    Raises:
        ConfigError: what `embedkit.connect` refuses. Runs raise as `embedkit.Embedder.embed` does.
    """

    def __init__(
        self, model: str | Embedder | None = None, *, prefix: str = "", suffix: str = "", **settings: Any
    ) -> None:
        _Component.__init__(self, model, {"prefix": prefix, "suffix": suffix}, settings)
        self.prefix: str = prefix
        self.suffix: str = suffix

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    def run(self, text: str) -> dict[str, Any]:
        """`embedding` of the text; `meta` has the model and the usage."""
        return self._answer(self._client.embed([self._text(text)], "query"))

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    async def run_async(self, text: str) -> dict[str, Any]:
        """As `run`, on the running event loop."""
        return self._answer(await self._client.aembed([self._text(text)], "query"))

    def _text(self, text: str) -> str:
        if not isinstance(text, str):
            msg = f"EmbedkitTextEmbedder embeds one string, not {type(text).__name__}; for documents there is another"
            raise TypeError(msg)
        return self.prefix + text + self.suffix

    def _answer(self, made: Embeddings) -> dict[str, Any]:
        return {"embedding": made.vectors[0].tolist(), "meta": _meta(made)}


@component
class EmbedkitDocumentEmbedder(_Component):
    """Embeds documents, with any model of embedkit; batches go out side by side.

    Args:
        model: as of `EmbedkitTextEmbedder`.
        prefix, suffix: what goes before and after every text.
        meta_fields_to_embed: fields of a document's `meta` whose values go before its content.
        embedding_separator: what stands between them.
        raise_on_failure: False lets a document that cannot be embedded pass without an embedding; the reason is in
            `meta["failures"]` by its id. Failures that are not the document's own are raised all the same.
        **settings: as of `EmbedkitTextEmbedder`.

    Attributes:
        model: "provider:model".
        embedder: the `embedkit.Embedder` underneath.

    Raises:
        ConfigError: what `embedkit.connect` refuses. Runs raise as `embedkit.Embedder.embed` does.
    """

    def __init__(
        self,
        model: str | Embedder | None = None,
        *,
        prefix: str = "",
        suffix: str = "",
        meta_fields_to_embed: Sequence[str] | None = None,
        embedding_separator: str = "\n",
        raise_on_failure: bool = True,
        **settings: Any,
    ) -> None:
        if isinstance(meta_fields_to_embed, str):
            msg = f"meta_fields_to_embed={shown(meta_fields_to_embed)}: pass a list of names"
            raise ConfigError(msg)
        own: dict[str, Any] = {
            "prefix": prefix, "suffix": suffix, "meta_fields_to_embed": list(meta_fields_to_embed or ()),
            "embedding_separator": embedding_separator, "raise_on_failure": raise_on_failure,
        }  # fmt: skip
        _Component.__init__(self, model, own, settings)
        self.prefix: str = prefix
        self.suffix: str = suffix
        self.meta_fields_to_embed: list[str] = own["meta_fields_to_embed"]
        self.embedding_separator: str = embedding_separator
        self.raise_on_failure: bool = raise_on_failure

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """`documents` in the same order, each a copy with its embedding; `meta` has the model and the usage."""
        return self._answer(documents, self._client.embed(self._texts(documents), "document", on_error=self._on_error))

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        """As `run`, on the running event loop."""
        texts = self._texts(documents)
        return self._answer(documents, await self._client.aembed(texts, "document", on_error=self._on_error))

    @property
    def _on_error(self) -> str:
        return "raise" if self.raise_on_failure else "skip"

    def _texts(self, documents: list[Document]) -> list[str]:
        if not isinstance(documents, list) or not all(isinstance(each, Document) for each in documents):
            msg = "EmbedkitDocumentEmbedder embeds a list of Documents; for a string there is EmbedkitTextEmbedder"
            raise TypeError(msg)
        return [self._text(each) for each in documents]

    def _text(self, document: Document) -> str:
        values = (document.meta.get(name) for name in self.meta_fields_to_embed)
        parts = [*(str(value) for value in values if value is not None), document.content or ""]
        return self.prefix + self.embedding_separator.join(parts) + self.suffix

    def _answer(self, documents: list[Document], made: Embeddings) -> dict[str, Any]:
        rows = made.vectors.tolist()
        embedded = [
            replace(each, embedding=None if row in made.failures else rows[row]) for row, each in enumerate(documents)
        ]
        meta = _meta(made)
        if made.failures:
            meta["failures"] = {documents[row].id: str(error) for row, error in made.failures.items()}
        return {"documents": embedded, "meta": meta}


def _meta(made: Embeddings) -> dict[str, Any]:
    """As Haystack's own embedders have it, with what embedkit knows beside."""
    tokens, usage = made.usage.tokens, {"requests": made.usage.requests, "cost": made.usage.cost}
    counted = {} if tokens is None else {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"model": made.model, "usage": {**counted, **usage}}
