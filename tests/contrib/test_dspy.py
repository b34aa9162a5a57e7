"""DSPy: the retriever tells documents from queries, and `track_usage` is told of tokens."""

from __future__ import annotations

import numpy as np
import pytest

from embedkit._hints import Later
from tests.contrib.adapters import KEY, vector, voyage

pytestmark = [pytest.mark.anyio, pytest.mark.engines]
adapter = Later("embedkit.contrib.dspy")
dspy = Later("dspy")
CORPUS = ["one", "two", "three"]


def test_the_retriever_tells_documents_from_queries():
    """The corpus goes out as documents, what is asked as a query, and the right passage is found."""
    exchange, settings = voyage()
    search = adapter.EmbedkitRetriever(CORPUS, adapter.EmbedkitEmbedder(**settings, api_key=KEY), k=1)
    found = search("two")

    assert found.passages == ["two"]
    kinds = [(text, body["input_type"]) for body in exchange.bodies for text in body["input"]]
    assert sorted(kinds) == [("one", "document"), ("three", "document"), ("two", "document"), ("two", "query")]


def test_a_saved_index_asks_with_queries_too(tmp_path):
    """An index that is loaded embeds no corpus again, and what it is asked goes out as a query."""
    exchange, settings = voyage()
    embedder = adapter.EmbedkitEmbedder(**settings, api_key=KEY)
    adapter.EmbedkitRetriever(CORPUS, embedder, k=1).save(str(tmp_path / "index"))
    before = len(exchange.bodies)
    found = adapter.EmbedkitRetriever.from_saved(str(tmp_path / "index"), embedder)("three")

    assert found.passages == ["three"]
    assert [body["input_type"] for body in exchange.bodies[before:]] == ["query"]


def test_the_embedder_is_dspy_s_own_kind():
    """One text is a row, several are a matrix; without an input type nothing is said; DSPy's keywords are taken."""
    exchange, settings = voyage()
    embedder = adapter.EmbedkitEmbedder(**settings, api_key=KEY)

    assert isinstance(embedder, dspy.Embedder)
    assert np.array_equal(embedder("one"), vector("one"))
    assert embedder(CORPUS, batch_size=1, caching=True).shape == (3, 8)
    assert not any("input_type" in body for body in exchange.bodies)


async def test_usage_is_tracked():
    """`dspy.track_usage` has the tokens of calls, with and without `await`, under the model's name."""
    _, settings = voyage()
    embedder = adapter.EmbedkitEmbedder(**settings, api_key=KEY)
    with dspy.track_usage() as tracker:
        embedder(CORPUS)
        await embedder.acall("one")

    assert tracker.get_total_tokens() == {"voyage:voyage-3.5": {"prompt_tokens": 4, "total_tokens": 4}}


def test_examples_are_found_by_their_neighbors():
    """`dspy.KNN` works with it."""
    _, settings = voyage()
    embedder = adapter.EmbedkitEmbedder(**settings, api_key=KEY)
    trainset = [dspy.Example(text=text).with_inputs("text") for text in CORPUS]
    found = dspy.KNN(k=1, trainset=trainset, vectorizer=embedder)(text="two")

    assert found[0].text == "two"
