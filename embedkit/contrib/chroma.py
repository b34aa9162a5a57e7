"""Chroma: `EmbedkitEmbeddingFunction` is an `EmbeddingFunction` of chromadb. To install: `pip install '.[chroma]'`.

>>> import chromadb
>>> from embedkit.contrib.chroma import EmbedkitEmbeddingFunction
>>> client = chromadb.EphemeralClient()
>>> function = EmbedkitEmbeddingFunction(model="local:all-minilm-l6-v2")
>>> collection = client.get_or_create_collection("sentences", embedding_function=function)
>>> collection.upsert(ids=["1", "2"], documents=["a cat on the sofa", "stock prices fell"])
>>> collection.query(query_texts=["a kitten on the couch"], n_results=1)["documents"]
[['a cat on the sofa']]
>>> function.usage.requests
2

Importing this module makes the function known to Chroma, so that a collection that was made with it is opened again
with it, without saying so.
"""

from __future__ import annotations

import os
from typing import Any

from chromadb.api.types import Documents, EmbeddingFunction, Space
from chromadb.api.types import Embeddings as ChromaEmbeddings
from chromadb.utils.embedding_functions import register_embedding_function

from embedkit import ConfigError, Embedder, Usage

from ._client import Client, Purpose

# Vectors of others do not compare.
FIXED = ("model", "input_type", "dimensions", "dtype", "normalize", "truncate", "long_text", "extra")
COMPONENTS = ("float32", "int8", "uint8")  # types that Chroma compares as numbers


@register_embedding_function
class EmbedkitEmbeddingFunction(EmbeddingFunction[Documents]):
    """Any model of embedkit. Documents and queries go out as such.

    Args:
        model: "provider:model"; None: EMBEDKIT_MODEL if set, else the bundled model. Or an `embedkit.Embedder`,
            which Chroma cannot write down.
        api_key_env_var: the variable that holds the key, if not the provider's own; written down as its name.
        **settings: the other keywords of `embedkit.connect`; `input_type` holds for queries and documents alike.
            `dtype` is float32, int8 or uint8, and Chroma keeps all of them as float32; packed bits are no numbers.

    Attributes:
        model: "provider:model".
        embedder: the `embedkit.Embedder` underneath.

    What Chroma writes down holds no key. A function with a key given as text works, but Chroma then says in a warning
    that it is not written down, and why: pass it again when the collection is opened, or name its variable.

    Raises:
        ConfigError: what `embedkit.connect` refuses, and packed bits. Calls raise as `embedkit.Embedder.embed` does.
    """

    def __init__(
        self, model: str | Embedder | None = None, *, api_key_env_var: str | None = None, **settings: Any
    ) -> None:
        self.api_key_env_var = api_key_env_var
        if api_key_env_var is not None:
            if settings.get("api_key") is not None:
                raise ConfigError("api_key and api_key_env_var both say what the key is; pass one of them")
            settings["api_key"] = os.environ.get(api_key_env_var)
            if not settings["api_key"]:
                msg = f"api_key_env_var={api_key_env_var!r}: that variable is not set"
                raise ConfigError(msg)
        self._client = Client(model, settings)
        self.model: str = self._client.model
        self.embedder: Embedder = self._client.embedder
        dtype = self.embedder.options.dtype
        if dtype not in COMPONENTS:
            msg = f"dtype={dtype!r}: Chroma compares numbers, and packed bits are none; pass {', '.join(COMPONENTS)}"
            raise ConfigError(msg)

    @property
    def usage(self) -> Usage:
        """Tokens, requests and dollars of all calls so far."""
        return self._client.usage

    def __call__(self, input: Documents) -> ChromaEmbeddings:  # noqa: A002 (Chroma looks at the name)
        """One vector per document."""
        return self._vectors(input, "document")

    def embed_query(self, input: Documents) -> ChromaEmbeddings:  # noqa: A002 (likewise)
        """One vector per query."""
        return self._vectors(input, "query")

    def _vectors(self, texts: Documents, purpose: Purpose) -> ChromaEmbeddings:
        # Chroma takes no integers of one byte
        return list(self._client.embed(texts, purpose).vectors.astype("float32", copy=False))

    @staticmethod
    def name() -> str:
        """The name under which Chroma knows it."""
        return "embedkit"

    def default_space(self) -> Space:
        """What texts are compared by."""
        return "cosine"

    def supported_spaces(self) -> list[Space]:
        """All of them."""
        return ["cosine", "l2", "ip"]

    def get_config(self) -> dict[str, Any]:
        """What Chroma writes down; ConfigError names a credential given as text, or what cannot be written."""
        if self.api_key_env_var is None:
            return self._client.as_data()
        return {**self._client.as_data(without=["api_key"]), "api_key_env_var": self.api_key_env_var}

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> EmbedkitEmbeddingFunction:
        """The function that `get_config` has written down."""
        return EmbedkitEmbeddingFunction(**config)

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Refuse what would make new vectors that do not compare with those of the collection."""
        changed = [name for name in FIXED if old_config.get(name) != new_config.get(name)]
        if changed:
            name = changed[0]
            msg = (
                f"{name} cannot be changed from {old_config.get(name)!r} to {new_config.get(name)!r}: the vectors that "
                "the collection holds would not compare with new ones; make another collection"
            )
            raise ConfigError(msg)

    @staticmethod
    def validate_config(config: dict[str, Any]) -> None:
        """Refuse a configuration without a model."""
        if not isinstance(config.get("model"), str):
            msg = f"model={config.get('model')!r}: a configuration names it, as 'provider:model'"
            raise ConfigError(msg)
