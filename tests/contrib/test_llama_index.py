"""LlamaIndex: an index, an ingestion pipeline, events and pickles."""

from __future__ import annotations

import pickle

import pytest

from embedkit import ConfigError
from embedkit._hints import Later
from tests.contrib.adapters import KEY, vector, voyage
from tests.support.servers.api import Api

pytestmark = [pytest.mark.anyio, pytest.mark.engines]
adapter = Later("embedkit.contrib.llama_index")


async def test_an_index_is_built_and_asked():
    """`VectorStoreIndex` embeds its nodes as documents and what is asked as a query, without and with `await`."""
    from llama_index.core import Document, VectorStoreIndex

    exchange, settings = voyage()
    model = adapter.EmbedkitEmbedding(**settings, api_key=KEY)
    documents = [Document(text=text) for text in ("one", "two", "three")]
    for use_async in (False, True):
        index = VectorStoreIndex.from_documents(documents, embed_model=model, use_async=use_async)
        found = await index.as_retriever(similarity_top_k=1).aretrieve("two")
        assert found[0].text == "two"

    kinds = {(text, body["input_type"]) for body in exchange.bodies for text in body["input"]}
    assert kinds == {("one", "document"), ("two", "document"), ("three", "document"), ("two", "query")}


async def test_an_ingestion_pipeline_takes_a_key_given_as_text():
    """`IngestionPipeline` writes its transformations down to know them again: no key is in what it knows them by."""
    from llama_index.core import Document
    from llama_index.core.ingestion import IngestionPipeline

    exchange, settings = voyage()
    model = adapter.EmbedkitEmbedding(**settings, api_key=KEY)
    pipeline = IngestionPipeline(transformations=[model])
    documents = [Document(text=text) for text in ("one", "two")]
    nodes = await pipeline.arun(documents=documents)
    again = await pipeline.arun(documents=documents)

    assert [node.embedding for node in nodes] == [vector(text).tolist() for text in ("one", "two")]
    assert [node.embedding for node in again] == [node.embedding for node in nodes]
    assert len(exchange.bodies) == 1  # the second run was answered by the pipeline's cache
    assert KEY not in str(model.to_dict()) + model.to_json() + str(model.to_payload())


def test_another_setting_is_another_transformation():
    """What changes the vectors changes what the pipeline's cache knows the model by."""
    from llama_index.core.ingestion.pipeline import get_transformation_hash

    one, two = (
        adapter.EmbedkitEmbedding("openai:text-embedding-3-small", api_key=KEY, dimensions=d) for d in (256, 512)
    )

    assert get_transformation_hash([], one) != get_transformation_hash([], two)


def test_events_name_the_model_and_no_key():
    """LlamaIndex's callbacks see texts and vectors of a call, and the model by name."""
    from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler

    handler = LlamaDebugHandler(print_trace_on_end=False)
    _, settings = voyage()
    model = adapter.EmbedkitEmbedding(**settings, api_key=KEY, callback_manager=CallbackManager([handler]))
    model.get_text_embedding_batch(["one", "two", "three"])
    start, end = handler.get_event_pairs()[0]

    assert start.payload["serialized"]["model_name"] == "voyage:voyage-3.5"
    assert end.payload["chunks"] == ["one", "two", "three"]
    assert KEY not in str(start.payload)


def test_a_pickle_holds_no_key(monkeypatch):
    """A key given as text is refused; one of the environment is read again; settings and fields are there again."""
    with pytest.raises(ConfigError, match="VOYAGE_API_KEY"):
        pickle.dumps(adapter.EmbedkitEmbedding("voyage:voyage-3.5", api_key=KEY))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Api() as api:
        model = adapter.EmbedkitEmbedding("openai:m", base_url=api.url, embed_batch_size=7, num_workers=2)
        written = pickle.dumps(model)
        monkeypatch.setenv("OPENAI_API_KEY", "another")
        again = pickle.loads(written)  # noqa: S301 (our own)
        again.get_query_embedding("one")

        assert KEY.encode() not in written
        assert api.keys == ["Bearer another"]
        assert (again.embed_batch_size, again.num_workers, again.model_name) == (7, 2, "openai:m")


def test_an_embedder_that_is_given_cannot_be_built_from_data():
    """An `embedkit.Embedder` has no data; what is read from it is refused rather than another embedder."""
    from embedkit.testing import FakeEmbedder

    model = adapter.EmbedkitEmbedding(FakeEmbedder(4))

    assert len(model.get_text_embedding("one")) == 4
    with pytest.raises((ConfigError, TypeError)):
        adapter.EmbedkitEmbedding.from_dict(model.to_dict())
