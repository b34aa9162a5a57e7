"""Chroma: what a persistent client writes to disk, and what another process makes of it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from embedkit import ConfigError
from embedkit._hints import Later
from tests.contrib.adapters import KEY
from tests.support.servers.api import Api

pytestmark = pytest.mark.engines
adapter = Later("embedkit.contrib.chroma")
HERE = Path(__file__).parent.parent.parent


def elsewhere(script, **environment):
    """What a script prints in a process of its own."""
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, cwd=HERE, timeout=120,
        env={**os.environ, "PYTHONPATH": str(HERE), **environment}, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-2000:]
    return found.stdout.strip()


def on_disk(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_collection_is_opened_again_in_another_process(tmp_path, monkeypatch):
    """Its configuration is on disk without the key; another process searches with the key of its own environment."""
    import chromadb

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Api() as api:
        function = adapter.EmbedkitEmbeddingFunction("openai:text-embedding-3-small", base_url=api.url, dimensions=3)
        client = chromadb.PersistentClient(str(tmp_path))
        collection = client.create_collection("sentences", embedding_function=function)
        collection.add(ids=["1", "2"], documents=["short", "a text that is long"])
        found = elsewhere(
            f"""
            import chromadb
            import embedkit.contrib.chroma
            collection = chromadb.PersistentClient({str(tmp_path)!r}).get_collection("sentences")
            print(collection.configuration["embedding_function"].get_config())
            print(collection.query(query_texts=["short"], n_results=1)["documents"])
            collection.add(ids=["3"], documents=["a third"])
            """,
            OPENAI_API_KEY="another",
        )

        assert KEY.encode() not in on_disk(tmp_path)
        config, documents = found.splitlines()
        assert config == str({"model": "openai:text-embedding-3-small", "base_url": api.url, "dimensions": 3})
        assert documents == "[['short']]"
        assert api.keys == [f"Bearer {KEY}", "Bearer another", "Bearer another"]


def test_a_variable_of_its_own_is_written_as_its_name(tmp_path, monkeypatch):
    """`api_key_env_var`, as Chroma's own functions have it."""
    import chromadb

    monkeypatch.setenv("OF_THE_TEST", KEY)
    with Api() as api:
        settings = {"base_url": api.url, "api_key_env_var": "OF_THE_TEST"}
        function = adapter.EmbedkitEmbeddingFunction("compatible:m", **settings)
        client = chromadb.PersistentClient(str(tmp_path))
        client.create_collection("sentences", embedding_function=function)
        client.get_collection("sentences").add(ids=["1"], documents=["one"])

        assert api.keys == [f"Bearer {KEY}"]
        assert KEY.encode() not in on_disk(tmp_path)
        assert b"OF_THE_TEST" in on_disk(tmp_path)
    monkeypatch.delenv("OF_THE_TEST")
    with pytest.raises(ConfigError, match="OF_THE_TEST"):
        adapter.EmbedkitEmbeddingFunction("compatible:m", **settings)
    with pytest.raises(ConfigError, match="both"):
        adapter.EmbedkitEmbeddingFunction("compatible:m", api_key=KEY, api_key_env_var="OF_THE_TEST")


def test_a_key_given_as_text_works_and_is_not_written(tmp_path):
    """Chroma then keeps no configuration of the function, and says why in a warning that does not hold the key."""
    import chromadb

    with Api() as api:
        function = adapter.EmbedkitEmbeddingFunction("compatible:m", base_url=api.url, api_key=KEY)
        client = chromadb.PersistentClient(str(tmp_path))
        with pytest.warns(DeprecationWarning, match="api_key holds a credential") as warned:
            collection = client.create_collection("sentences", embedding_function=function)
        collection.add(ids=["1"], documents=["one"])

        assert api.keys == [f"Bearer {KEY}"]
        assert KEY.encode() not in on_disk(tmp_path)
        assert not any(KEY in str(each.message) for each in warned)


def test_it_keeps_chroma_s_contract():
    """It is no legacy function, is registered by its name, gives float32 arrays, and its configuration is valid."""
    from chromadb.utils.embedding_functions import config_to_embedding_function, known_embedding_functions

    with Api() as api:
        function = adapter.EmbedkitEmbeddingFunction("compatible:m", base_url=api.url)
        vectors = function(["one", "two"])
        again = config_to_embedding_function({"name": function.name(), "config": function.get_config()})

        assert not function.is_legacy()
        assert known_embedding_functions["embedkit"] is adapter.EmbedkitEmbeddingFunction
        assert [(type(row), row.dtype, row.shape) for row in vectors] == [(np.ndarray, np.float32, (3,))] * 2
        assert np.array_equal(again(["one"])[0], vectors[0])
        assert function.default_space() in function.supported_spaces()
        function.validate_config(function.get_config())
        with pytest.raises(ConfigError, match="model"):
            function.validate_config({})


def test_what_makes_other_vectors_cannot_be_changed(tmp_path):
    """A collection refuses a function of another model or width, and takes one that only waits longer."""
    import chromadb

    with Api() as api:

        def made(model="compatible:m", **settings):
            return adapter.EmbedkitEmbeddingFunction(model, base_url=api.url, **settings)

        collection = chromadb.PersistentClient(str(tmp_path)).create_collection("name", embedding_function=made())
        for function, named in ((made("compatible:other"), "model"), (made(dimensions=2), "dimensions")):
            with pytest.raises(ConfigError, match=f"{named} cannot be changed"):
                collection.modify(configuration={"embedding_function": function})
        collection.modify(configuration={"embedding_function": made(timeout=600)})


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8"])
def test_whole_numbers_are_kept_as_chroma_keeps_numbers(dtype):
    """Chroma takes no integers of one byte: they go in as float32, and are found again."""
    import chromadb

    with Api() as api:
        function = adapter.EmbedkitEmbeddingFunction("compatible:m", base_url=api.url, dtype=dtype)
        collection = chromadb.EphemeralClient().create_collection(f"of_{dtype}", embedding_function=function)
        collection.add(ids=["1", "2"], documents=["short", "a text that is long"])

        assert collection.query(query_texts=["short"], n_results=1)["documents"] == [["short"]]
        assert {row.dtype for row in function(["one"])} == {np.dtype("float32")}


@pytest.mark.parametrize("dtype", ["binary", "ubinary"])
def test_packed_bits_are_refused(dtype):
    """Chroma would compare bytes as numbers."""
    with pytest.raises(ConfigError, match=dtype):
        adapter.EmbedkitEmbeddingFunction("compatible:m", base_url="http://localhost:1/v1", dtype=dtype)


@pytest.mark.parametrize("settings", [{"extra": {"task": "x"}}, {"truncate": "end"}, {"normalize": True}], ids=str)
def test_every_option_that_makes_other_vectors_is_fixed(settings):
    """What a request says of the vectors cannot be changed under a collection."""
    old, new = {"model": "vllm:m"}, {"model": "vllm:m", **settings}
    function = adapter.EmbedkitEmbeddingFunction("vllm:m")
    with pytest.raises(ConfigError, match=f"{next(iter(settings))} cannot be changed"):
        function.validate_config_update(old, new)
