"""LangChain: beside what every adapter promises, its secrets, stores and dumps; its own suite is in `test_langchain_suite`."""

from __future__ import annotations

import pickle

import pytest

from embedkit import ConfigError
from embedkit._hints import Later
from tests.contrib.adapters import KEY, voyage
from tests.support.servers.api import Api

pytestmark = pytest.mark.anyio
adapter = Later("embedkit.contrib.langchain")


def test_a_secret_string_is_a_key():
    """LangChain's usual `SecretStr` is taken, and what the provider is sent is its value."""
    from pydantic import SecretStr

    with Api() as api:
        made = adapter.EmbedkitEmbeddings(model="compatible:m", base_url=api.url, api_key=SecretStr(KEY))
        made.embed_query("a question")

        assert api.keys == [f"Bearer {KEY}"]


def test_dumps_and_pickles_hold_no_key():
    """LangChain's own `dumps` has no key, and a pickle refuses one given as text."""
    from langchain_core.load import dumps

    made = adapter.EmbedkitEmbeddings(model="voyage:voyage-3.5", api_key=KEY)

    assert KEY not in dumps(made)
    assert "voyage-3.5" in dumps(made)
    with pytest.raises(ConfigError, match="VOYAGE_API_KEY"):
        pickle.dumps(made)


async def test_a_vector_store_searches():
    """Documents that a vector store was given are found again, by its async methods too."""
    from langchain_core.vectorstores import InMemoryVectorStore

    exchange, settings = voyage()
    store = InMemoryVectorStore(adapter.EmbedkitEmbeddings(**settings, api_key=KEY))
    await store.aadd_texts(["one", "two", "three"])
    store.add_texts(["four"])
    found = await store.asimilarity_search("three", k=1)

    assert found[0].page_content == "three"
    assert [body["input_type"] for body in exchange.bodies] == ["document", "document", "document", "query"]
