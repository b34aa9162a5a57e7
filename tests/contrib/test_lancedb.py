"""LanceDB: a table with a source field, in this process and in another, and what the table writes down."""

from __future__ import annotations

import pytest

from embedkit import ConfigError, InvalidInputError
from embedkit._hints import Later
from tests.contrib.adapters import KEY
from tests.contrib.test_chroma import elsewhere, on_disk
from tests.support.servers.api import Api

pytestmark = [pytest.mark.anyio, pytest.mark.engines]
adapter = Later("embedkit.contrib.lancedb")
lancedb = Later("lancedb")


def table_of(folder, function, name="sentences"):
    """A table whose column `text` is embedded by the function."""
    from lancedb.pydantic import LanceModel

    class Sentence(LanceModel):
        text: str = function.SourceField()
        vector: list[float] = function.VectorField()

    return lancedb.connect(str(folder)).create_table(name, schema=Sentence)


def test_a_table_is_opened_again_in_another_process(tmp_path, monkeypatch):
    """Its metadata has the settings and no key; another process adds and searches with the key that it has."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Api() as api:
        function = adapter.EmbedkitEmbeddings.create(
            model="openai:text-embedding-3-small", base_url=api.url, retry={"attempts": 2}
        )
        table_of(tmp_path, function).add([{"text": "short"}, {"text": "a text that is long"}])
        found = elsewhere(
            f"""
            import lancedb
            import embedkit.contrib.lancedb
            table = lancedb.connect({str(tmp_path)!r}).open_table("sentences")
            table.add([{{"text": "a third"}}])
            print(table.search("short").limit(1).to_list()[0]["text"], table.count_rows())
            """,
            OPENAI_API_KEY="another",
        )

        assert found == "short 3"
        assert KEY.encode() not in on_disk(tmp_path)
        assert {f"Bearer {KEY}", "Bearer another"} == set(api.keys)


async def test_documents_and_queries_are_told_apart():
    """The source column goes out as documents, a search as a query; so does an async table."""
    import tempfile

    with Api() as api, tempfile.TemporaryDirectory() as folder:
        function = adapter.EmbedkitEmbeddings.create(model="vllm:intfloat/e5-base-v2", base_url=api.url)
        table = table_of(folder, function)
        table.add([{"text": "one"}])
        table.search("two").limit(1).to_list()
        again = await (await lancedb.connect_async(folder)).open_table("sentences")
        found = await (await again.search("one")).limit(1).to_list()

        sent = [text for body in api.bodies for text in body["input"]]
        assert {"passage: one", "query: two", "query: one"} <= set(sent)
        assert found[0]["text"] == "one"


def test_a_key_is_a_variable_of_the_registry(tmp_path):
    """A key given as text is refused by LanceDB; "$var:name" is written as it is, and resolved on every opening."""
    from lancedb.embeddings import get_registry

    with pytest.raises(ValueError, match="api_key") as refused:
        adapter.EmbedkitEmbeddings.create(model="compatible:m", api_key=KEY)
    assert KEY not in str(refused.value)
    registry = get_registry()
    registry.set_var("of_the_test", KEY)
    with Api() as api:
        function = registry.get("embedkit").create(model="compatible:m", base_url=api.url, api_key="$var:of_the_test")
        table = table_of(tmp_path, function)
        registry.set_var("of_the_test", "another")
        table.add([{"text": "one"}])

        assert f"Bearer {KEY}" in api.keys  # it asked for the width
        assert "Bearer another" in api.keys
        assert KEY.encode() not in on_disk(tmp_path)
        assert b"$var:of_the_test" in on_disk(tmp_path)
        assert KEY not in repr(function) + str(function.model_dump())


@pytest.mark.parametrize("name", ["ad_token", "aws_secret_access_key"])
def test_every_credential_is_a_sensitive_key(name):
    """LanceDB refuses those of single providers as text, too."""
    assert name in adapter.EmbedkitEmbeddings.sensitive_keys()


def test_a_secret_elsewhere_is_refused_when_the_table_is_made(tmp_path):
    """A header with a key works in this process and is not written down."""
    with Api() as api:
        function = adapter.EmbedkitEmbeddings.create(model="compatible:m", base_url=api.url, headers={"x-api-key": KEY})
        with pytest.raises(ConfigError, match="headers holds a credential"):
            table_of(tmp_path, function)

        assert KEY.encode() not in on_disk(tmp_path)


def test_a_failure_is_raised_once_as_it_is():
    """LanceDB's own seven retries are off: a text that is refused costs no second round, and the error names its row."""
    with Api() as api:
        function = adapter.EmbedkitEmbeddings.create(model="compatible:m", base_url=api.url)
        with pytest.raises(InvalidInputError) as refused:
            function.compute_source_embeddings_with_retry(["", "one", None, "BAD"])

        assert refused.value.rows == (3,)


def test_rows_without_text_have_no_vector():
    """Null and empty get None, the others their own vector, and a request is sent for these only."""
    with Api() as api:
        function = adapter.EmbedkitEmbeddings.create(model="compatible:m", base_url=api.url)
        made = function.compute_source_embeddings([None, "one", "", "three"])

        assert [row is None for row in made] == [True, False, True, False]
        assert api.bodies[0]["input"] == ["one", "three"]
        assert function.compute_source_embeddings([None, ""]) == [None, None]


def test_functions_are_equal_by_what_they_embed():
    """As LanceDB's own: the same model and settings."""
    one, same, other = (
        adapter.EmbedkitEmbeddings.create(model="vllm:m", dimensions=width) for width in (3, 3, 4)
    )  # fmt: skip

    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != "vllm:m"
