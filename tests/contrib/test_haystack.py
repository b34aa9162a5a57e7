"""Haystack: pipelines that are written and read, `Secret`s, the `meta` of a run, and documents that fail."""

from __future__ import annotations

import pytest

from embedkit import AuthError, ConfigError, InvalidInputError
from embedkit._hints import Later
from tests.contrib.adapters import KEY, reply, voyage
from tests.support.servers.api import Api

pytestmark = [pytest.mark.anyio, pytest.mark.engines]
adapter = Later("embedkit.contrib.haystack")


def documents(*texts):
    from haystack import Document

    return [Document(content=text) for text in texts]


async def test_a_pipeline_is_written_as_yaml_and_read_again(monkeypatch):
    """A `Secret` travels as its variable's name, and the pipeline that is read sends what the variable holds then."""
    from haystack import Pipeline
    from haystack.components.writers import DocumentWriter
    from haystack.document_stores.in_memory import InMemoryDocumentStore
    from haystack.utils import Secret

    monkeypatch.setenv("OF_THE_TEST", KEY)
    with Api() as api:
        pipeline = Pipeline()
        embedder = adapter.EmbedkitDocumentEmbedder(
            "compatible:m", base_url=api.url, api_key=Secret.from_env_var("OF_THE_TEST"), retry={"attempts": 2},
            meta_fields_to_embed=["title"],
        )  # fmt: skip
        pipeline.add_component("embedder", embedder)
        pipeline.add_component("writer", DocumentWriter(InMemoryDocumentStore()))
        pipeline.connect("embedder", "writer")
        written = pipeline.dumps()
        monkeypatch.setenv("OF_THE_TEST", "another")
        again = Pipeline.loads(written, allowed_modules=["embedkit.contrib.haystack"])
        done = again.run({"embedder": {"documents": documents("one", "two")}})
        later = await again.run_async({"embedder": {"documents": documents("three")}})

        assert KEY not in written
        assert "OF_THE_TEST" in written
        assert done["writer"]["documents_written"] == 2
        assert later["writer"]["documents_written"] == 1
        assert api.keys == ["Bearer another"] * 2
        assert again.get_component("embedder").to_dict() == embedder.to_dict()
        again.close()
        await again.close_async()


def test_a_key_that_is_no_secret_is_refused():
    """Text is no `Secret`; a `Secret` of a token works, and Haystack itself refuses to write it."""
    from haystack.utils import Secret

    with pytest.raises(ConfigError, match="from_env_var") as refused:
        adapter.EmbedkitTextEmbedder("voyage:voyage-3.5", api_key=KEY)
    with pytest.raises(ValueError, match="token-based"):
        adapter.EmbedkitTextEmbedder("voyage:voyage-3.5", api_key=Secret.from_token(KEY)).to_dict()

    assert KEY not in str(refused.value)


def test_any_credential_may_be_a_secret(monkeypatch):
    """So may those that only some providers take."""
    from haystack.utils import Secret

    monkeypatch.setenv("OF_THE_TEST", KEY)
    made = adapter.EmbedkitTextEmbedder(
        "azure:ada", ad_token=Secret.from_env_var("OF_THE_TEST"), base_url="https://r.openai.azure.com"
    )
    again = adapter.EmbedkitTextEmbedder.from_dict(made.to_dict())

    assert KEY not in str(made.to_dict())
    assert again.to_dict() == made.to_dict()


async def test_meta_has_model_and_usage_of_the_run():
    """Each run says what it took, in the words of Haystack's own embedders; `usage` has the sum."""
    _, settings = voyage()
    from haystack.utils import Secret

    embedder = adapter.EmbedkitDocumentEmbedder(**settings, api_key=Secret.from_token(KEY))
    first = embedder.run(documents("one", "two", "three"))["meta"]
    second = (await embedder.run_async(documents("four")))["meta"]

    assert first == {
        "model": "voyage-3.5",
        "usage": {"prompt_tokens": 3, "total_tokens": 3, "requests": 2, "cost": 3 * 0.06 / 1e6},
    }
    assert second["usage"]["prompt_tokens"] == 1
    assert (embedder.usage.tokens, embedder.usage.requests) == (4, 3)
    await embedder.close_async()


def test_what_is_embedded_of_a_document():
    """Chosen fields of its meta, then its content, between prefix and suffix; the document itself is not changed."""
    from haystack import Document

    with Api() as api:
        embedder = adapter.EmbedkitDocumentEmbedder(
            "compatible:m", base_url=api.url, prefix="<", suffix=">", meta_fields_to_embed=["title", "none", "number"],
            embedding_separator="|",
        )  # fmt: skip
        given = Document(content="text", meta={"title": "Title", "none": None, "number": 3})
        made = embedder.run([given, Document(content=None, meta={"title": "only"})])["documents"]
        adapter.EmbedkitTextEmbedder("compatible:m", base_url=api.url, prefix="?").run("text")

        assert api.bodies[0]["input"] == ["<Title|3|text>", "<only|>"]
        assert api.bodies[1]["input"] == ["?text"]
        assert given.embedding is None
        assert (made[0].id, made[0].meta) == (given.id, given.meta)


def test_a_document_that_fails_is_named_or_passes_without_an_embedding():
    """By default it is raised, with its row. Otherwise it alone has no embedding, and meta says why."""
    given = documents("one", "BAD", "three")
    with Api() as api:
        strict = adapter.EmbedkitDocumentEmbedder("compatible:m", base_url=api.url)
        with pytest.raises(InvalidInputError) as refused:
            strict.run(given)
        lenient = adapter.EmbedkitDocumentEmbedder("compatible:m", base_url=api.url, raise_on_failure=False)
        made = lenient.run(given)

    assert refused.value.rows == (1,)
    assert [each.embedding is None for each in made["documents"]] == [False, True, False]
    assert list(made["meta"]["failures"]) == [given[1].id]
    assert "not to my liking" in made["meta"]["failures"][given[1].id]


def test_a_provider_that_fails_is_raised_in_any_case():
    """`raise_on_failure=False` is about documents: a key that is refused is no document's fault."""
    from haystack.utils import Secret

    exchange, settings = voyage(lambda _: AuthError("no", status=401))
    embedder = adapter.EmbedkitDocumentEmbedder(**settings, api_key=Secret.from_token(KEY), raise_on_failure=False)
    with pytest.raises(AuthError):
        embedder.run(documents("one"))

    assert len(exchange.bodies) == 1


@pytest.mark.parametrize("given", ["text", ["text"], None, [1]])
def test_what_are_no_documents_is_refused(given):
    """A text given to the embedder of documents is a TypeError that names the other; and the other way round."""
    with pytest.raises(TypeError, match="EmbedkitTextEmbedder"):
        adapter.EmbedkitDocumentEmbedder("vllm:m").run(given)
    if not isinstance(given, str):
        with pytest.raises(TypeError, match="one string"):
            adapter.EmbedkitTextEmbedder("vllm:m").run(given)


def test_no_documents_are_no_request():
    """An empty list gives an empty list."""
    _, settings = voyage(reply)
    from haystack.utils import Secret

    embedder = adapter.EmbedkitDocumentEmbedder(**settings, api_key=Secret.from_token(KEY))

    assert embedder.run([])["documents"] == []
    assert embedder.usage.requests == 0


def test_fields_are_a_list_of_names():
    """One name as text would be taken for its letters."""
    with pytest.raises(ConfigError, match="'title'"):
        adapter.EmbedkitDocumentEmbedder("vllm:m", meta_fields_to_embed="title")
