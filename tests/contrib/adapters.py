"""Every adapter behind one face, so that what all of them promise is asked of each; and what answers them."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from embedkit._hints import Later
from embedkit.testing import FakeEmbedder, FakeExchange

langchain = Later("embedkit.contrib.langchain")
llama_index = Later("embedkit.contrib.llama_index")
haystack = Later("embedkit.contrib.haystack")
chroma = Later("embedkit.contrib.chroma")
lancedb = Later("embedkit.contrib.lancedb")
pydantic_ai = Later("embedkit.contrib.pydantic_ai")
dspy = Later("embedkit.contrib.dspy")
mteb = Later("embedkit.contrib.mteb")

KEY = "sk-of-the-test-1234567890"
vector = FakeEmbedder(8).vector
HEAVY = pytest.mark.engines


@dataclass
class Adapter:
    """One adapter: its framework's own calls under common names. `written` is what it writes down, as text."""

    made: Any

    def documents(self, texts):
        raise NotImplementedError

    def query(self, text):
        raise NotImplementedError

    async def adocuments(self, texts):
        raise NotImplementedError

    async def aquery(self, text):
        raise NotImplementedError

    def written(self):
        raise NotImplementedError

    @classmethod
    def build(cls, model=None, **settings):
        raise NotImplementedError

    @classmethod
    def read(cls, written):
        """The adapter again, from what was written."""
        raise NotImplementedError

    @property
    def usage(self):
        return self.made.usage


class LangChain(Adapter):
    @classmethod
    def build(cls, model=None, **settings):
        return cls(langchain.EmbedkitEmbeddings(model=model, **settings))

    def documents(self, texts):
        return self.made.embed_documents(texts)

    def query(self, text):
        return self.made.embed_query(text)

    async def adocuments(self, texts):
        return await self.made.aembed_documents(texts)

    async def aquery(self, text):
        return await self.made.aembed_query(text)

    def written(self):
        return pickle.dumps(self.made).hex()

    @classmethod
    def read(cls, written):
        return cls(pickle.loads(bytes.fromhex(written)))  # noqa: S301 (our own)


class LlamaIndex(Adapter):
    @classmethod
    def build(cls, model=None, **settings):
        return cls(llama_index.EmbedkitEmbedding(model=model, **settings))

    def documents(self, texts):
        return self.made.get_text_embedding_batch(texts)

    def query(self, text):
        return self.made.get_query_embedding(text)

    async def adocuments(self, texts):
        return await self.made.aget_text_embedding_batch(texts)

    async def aquery(self, text):
        return await self.made.aget_query_embedding(text)

    def written(self):
        return self.made.to_json()

    @classmethod
    def read(cls, written):
        return cls(llama_index.EmbedkitEmbedding.from_json(written))


class Haystack(Adapter):
    @classmethod
    def build(cls, model=None, **settings):
        from haystack.utils import Secret

        if "api_key" in settings:
            settings["api_key"] = Secret.from_token(settings["api_key"])
        kinds = (haystack.EmbedkitDocumentEmbedder, haystack.EmbedkitTextEmbedder)
        return cls([kind(model=model, **settings) for kind in kinds])

    def documents(self, texts):
        from haystack import Document

        made = self.made[0].run([Document(content=text) for text in texts])
        return [each.embedding for each in made["documents"]]

    def query(self, text):
        return self.made[1].run(text)["embedding"]

    async def adocuments(self, texts):
        from haystack import Document

        made = await self.made[0].run_async([Document(content=text) for text in texts])
        return [each.embedding for each in made["documents"]]

    async def aquery(self, text):
        return (await self.made[1].run_async(text))["embedding"]

    def written(self):
        return json.dumps([each.to_dict() for each in self.made])

    @classmethod
    def read(cls, written):
        first, second = json.loads(written)
        return cls(
            [haystack.EmbedkitDocumentEmbedder.from_dict(first), haystack.EmbedkitTextEmbedder.from_dict(second)]
        )

    @property
    def usage(self):
        first, second = (each.usage for each in self.made)
        return type(first)((first.tokens or 0) + (second.tokens or 0), first.requests + second.requests)


class Chroma(Adapter):
    @classmethod
    def build(cls, model=None, **settings):
        return cls(chroma.EmbedkitEmbeddingFunction(model=model, **settings))

    def documents(self, texts):
        return self.made(texts)

    def query(self, text):
        return self.made.embed_query([text])[0]

    def written(self):
        return json.dumps(self.made.get_config())

    @classmethod
    def read(cls, written):
        return cls(chroma.EmbedkitEmbeddingFunction.build_from_config(json.loads(written)))


class LanceDB(Adapter):
    @classmethod
    def build(cls, model=None, **settings):
        kind = lancedb.EmbedkitEmbeddings
        exchange, key = settings.get("exchange"), settings.get("api_key")
        if exchange is None and key is None:
            return cls(kind.create(model=model, **settings))
        return cls(kind(model=model, **settings))  # `create` copies what it is given

    def documents(self, texts):
        return self.made.generate_embeddings(texts)

    def query(self, text):
        return self.made.compute_query_embeddings(text)[0]

    def written(self):
        if not hasattr(self.made, "_original_args"):
            self.made._original_args = {}
        return json.dumps(self.made.safe_model_dump())

    @classmethod
    def read(cls, written):
        return cls(lancedb.EmbedkitEmbeddings.create(**json.loads(written)))


class PydanticAI(Adapter):
    @classmethod
    def build(cls, model=None, **settings):
        return cls(pydantic_ai.EmbedkitEmbeddingModel(model, **settings))

    async def adocuments(self, texts):
        from pydantic_ai import Embedder

        return (await Embedder(self.made).embed_documents(texts)).embeddings

    async def aquery(self, text):
        from pydantic_ai import Embedder

        return (await Embedder(self.made).embed_query(text)).embeddings[0]

    def documents(self, texts):
        return anyio.run(self.adocuments, texts)

    def query(self, text):
        return anyio.run(self.aquery, text)


class DSPy(Adapter):
    @classmethod
    def build(cls, model=None, **settings):
        return cls(dspy.EmbedkitEmbedder(model, **settings))

    def documents(self, texts):
        return self.made(texts, input_type="document")

    def query(self, text):
        return self.made(text, input_type="query")

    async def adocuments(self, texts):
        return await self.made.acall(texts, input_type="document")

    async def aquery(self, text):
        return await self.made.acall(text, input_type="query")

    def written(self):
        return pickle.dumps(self.made).hex()

    @classmethod
    def read(cls, written):
        return cls(pickle.loads(bytes.fromhex(written)))  # noqa: S301 (our own)


class MTEB(Adapter):
    """It writes nothing down: a result of MTEB holds what `mteb_model_meta` says."""

    @classmethod
    def build(cls, model=None, **settings):
        return cls(mteb.EmbedkitEncoder(model, **settings))

    def documents(self, texts):
        return self._encode(texts, "document")

    def query(self, text):
        return self._encode([text], "query")[0]

    def _encode(self, texts, prompt_type):
        task = SimpleNamespace(name="Ours", type="Retrieval")
        batches = [{"text": texts}] if texts else []
        return self.made.encode(
            batches, task_metadata=task, hf_split="test", hf_subset="default", prompt_type=prompt_type
        )


def _heavy(*kinds):
    return [pytest.param(kind, marks=HEAVY) for kind in kinds]


ADAPTERS = [LangChain, *_heavy(LlamaIndex, Haystack, Chroma, LanceDB, PydanticAI, DSPy, MTEB)]
ASYNC = [LangChain, *_heavy(LlamaIndex, Haystack, PydanticAI, DSPy)]
SYNC = [LangChain, *_heavy(LlamaIndex, Haystack, Chroma, LanceDB, DSPy, MTEB)]
WRITTEN = [LangChain, *_heavy(LlamaIndex, Haystack, Chroma, LanceDB, DSPy)]


def reply(request):
    """Voyage's answer: the fake's vector of each text, a token a text."""
    texts = json.loads(request.body)["input"]
    data = [{"index": row, "embedding": vector(text).tolist()} for row, text in enumerate(texts)]
    return {"data": data, "model": "voyage-3.5", "usage": {"total_tokens": len(texts)}}


def voyage(handler=reply):
    """What connects an adapter to a provider that is told what texts are for; and the exchange that was asked."""
    exchange = FakeExchange(handler)
    return exchange, {"model": "voyage:voyage-3.5", "exchange": exchange, "limits": {"max_texts": 2}}
