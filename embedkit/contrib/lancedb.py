"""LanceDB: `EmbedkitEmbeddings` is the function "embedkit" of its registry. To install: `pip install '.[lancedb]'`.

>>> import tempfile, lancedb
>>> from lancedb.pydantic import LanceModel
>>> from embedkit.contrib.lancedb import EmbedkitEmbeddings
>>> function = EmbedkitEmbeddings.create(model="local:all-minilm-l6-v2")
>>> class Sentence(LanceModel):
...     text: str = function.SourceField()
...     vector: list[float] = function.VectorField()
>>> folder = tempfile.TemporaryDirectory()
>>> table = lancedb.connect(folder.name).create_table("sentences", schema=Sentence)
>>> _ = table.add([{"text": "a cat on the sofa"}, {"text": "stock prices fell"}])
>>> table.search("a kitten on the couch").limit(1).to_list()[0]["text"]
'a cat on the sofa'
>>> folder.cleanup()

A table remembers its function: import this module before it is opened again.
"""

from __future__ import annotations

from typing import Any, ClassVar

from lancedb.embeddings import TextEmbeddingFunction, register
from pydantic import ConfigDict, PrivateAttr

from embedkit import Embedder, EmbedkitError, Usage, providers

from ._client import Client, Purpose


@register("embedkit")
class EmbedkitEmbeddings(TextEmbeddingFunction):
    """Any model of embedkit. Source texts and queries go out as such. Make it with `create`, as LanceDB's own.

    Args:
        model: "provider:model"; None: EMBEDKIT_MODEL if set, else the bundled model.
        **settings: the other keywords of `embedkit.connect`. A credential is given as "$var:name", a variable of
            LanceDB's registry; left out, the provider's own environment variable is read. `limits`, `rate` and `retry`
            may be mappings.

    A row without a text (null or empty) gets no vector, which a table takes by `add(…, on_bad_vectors="null")`.
    Whatever else fails is raised: embedkit has tried again already, so LanceDB does not.

    Raises:
        ConfigError: what `embedkit.connect` refuses; where a table is made, also what it cannot write down. Calls raise
            as `embedkit.Embedder.embed` does.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow", protected_namespaces=())
    model: str | None = None
    max_retries: int = 0
    _client: Client = PrivateAttr()
    _width: int = PrivateAttr(default=0)

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        extra = self.__pydantic_extra__ or {}
        self._client = Client(self.model, extra)
        extra.clear()  # pydantic would show and dump them, a resolved "$var:" among them

    @property
    def embedder(self) -> Embedder:
        """The `embedkit.Embedder` underneath."""
        return self._client.embedder

    @property
    def usage(self) -> Usage:
        """Tokens, requests and dollars of all calls so far; a table that is opened makes a function of its own."""
        return self._client.usage

    def ndims(self) -> int:
        """Values per vector; the first time a short text is embedded to see."""
        if not self._width:
            self._width = int(self._client.embed(["width"], "document").vectors.shape[1])
        return self._width

    def generate_embeddings(self, texts: Any, *_: Any, **__: Any) -> list[Any]:
        """One vector per source text; None where there is no text."""
        return self._vectors(texts, "document")

    def compute_query_embeddings(self, query: Any, *_: Any, **__: Any) -> list[Any]:
        """One vector per query."""
        return self._vectors(query, "query")

    def compute_query_embeddings_with_retry(self, *args: Any, **keywords: Any) -> list[Any]:
        """As without: embedkit tries again where that helps, and its errors stay what they are."""
        return self.compute_query_embeddings(*args, **keywords)

    def compute_source_embeddings_with_retry(self, *args: Any, **keywords: Any) -> list[Any]:
        """Likewise."""
        found: list[Any] = self.compute_source_embeddings(*args, **keywords)
        return found

    @staticmethod
    def sensitive_keys() -> list[str]:
        """Settings that LanceDB refuses as plain text."""
        return ["api_key", *{name for host in providers.hosts() for name, one in host.parameters.items() if one.secret}]

    def safe_model_dump(self) -> dict[str, Any]:
        """What a table writes down: variables by name, and no credential."""
        given: dict[str, Any] = super().safe_model_dump()
        variables = {name: value for name, value in given.items() if str(value).startswith("$var:")}
        return {**self._client.as_data(without=variables), **variables}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EmbedkitEmbeddings):
            return NotImplemented
        return (self._client.model, self._client.settings) == (other._client.model, other._client.settings)

    def __hash__(self) -> int:
        return hash(self._client.model)

    def __repr__(self) -> str:
        return f"EmbedkitEmbeddings({self.embedder!r})"

    def _vectors(self, texts: Any, purpose: Purpose) -> list[Any]:
        rows = self.sanitize_input(texts)
        places = [place for place, each in enumerate(rows) if each]
        vectors: list[Any] = [None] * len(rows)
        try:
            made = self._client.embed([rows[place] for place in places], purpose)
        except EmbedkitError as error:
            error.rows, error.partial = tuple(places[row] for row in error.rows), None  # of the caller's rows
            raise
        for place, vector in zip(places, made.vectors, strict=True):
            vectors[place] = vector
        return vectors
