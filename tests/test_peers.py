"""Words of other libraries get the word that embedkit has for them."""

from __future__ import annotations

import asyncio
import contextlib
import inspect

import pytest

import embedkit
from embedkit import _peers, bulk
from embedkit.testing import FakeEmbedder, FakeExchange


def connected(**keywords):
    return embedkit.connect("openai:m", api_key="k", exchange=FakeExchange([]), **keywords)


def test_the_keywords_of_connect_are_known():
    """The list that stands below `connect` is that of `connect`, and no word of others hides one of them."""
    assert tuple(embedkit.connect.__kwdefaults__) == _peers.CONNECT
    assert not set(_peers._CLAUSES) & set(_peers.CONNECT)


@pytest.mark.parametrize("connect", [embedkit.connect, embedkit.connect_sync])
@pytest.mark.parametrize(
    ("word", "here"),
    [
        ("max_retries", "here it is retry=embedkit.RetryPolicy(attempts=1 + retries)"),
        ("num_retries", "here it is retry=embedkit.RetryPolicy(attempts=1 + retries)"),
        ("batch_size", "here it is limits=embedkit.Limits(max_texts=…)"),
        ("chunk_size", "here it is limits=embedkit.Limits(max_texts=…)"),
        ("embed_batch_size", "here it is limits=embedkit.Limits(max_texts=…)"),
        ("api_base", "here it is base_url="),
        ("baseURL", "here it is base_url="),
        ("azure_endpoint", "here it is base_url="),
        ("openai_api_key", "here it is api_key="),
        ("model_name", 'here it is part of the model: connect("provider:model")'),
        ("azure_deployment", 'here it is the model: connect("azure:NAME")'),
        ("encoding_format", "leave it out; base64 is asked for where the provider has it"),
        ("output_dimensionality", "here it is dimensions="),
        ("output_dtype", "here it is dtype="),
        ("task_type", "here it is input_type="),
        ("truncation", 'here it is truncate="end"'),
        ("request_timeout", "here it is timeout="),
        ("extra_body", "here it is extra="),
        ("default_headers", "here it is headers="),
        ("max_workers", "here it is max_concurrency="),
        ("rpm", "here it is rate=embedkit.Rate(requests_per_minute=…"),
        ("cache_folder", "leave it out; no model is downloaded"),
        ("http_client", "here it is session=, an aiohttp.ClientSession"),
        ("verify", "here it is ssl="),
        ("callbacks", "here it is observe="),
        ("input", 'texts go to the embedder: embed(["…"])'),
        ("show_progress_bar", "here it is progress=True, an argument of embed() and stream()"),
        ("on_error", "it is an argument of embed() and stream()"),
        ("progress", "it is an argument of embed() and stream()"),
    ],
)
def test_a_keyword_of_connect(connect, word, here):
    """Both doors name the word to use, and nothing else is in the way of it."""
    with pytest.raises(TypeError) as caught:
        connect("openai:m", api_key="k", **{word: 1})

    assert str(caught.value).startswith(f"connect() got an unexpected keyword {word}: {here}")


@pytest.mark.parametrize(
    ("word", "here"),
    [
        ("input", "the text or texts come first, without a name"),
        ("model", 'the model is chosen once: connect("provider:model")'),
        ("task_type", "here it is input_type="),
        ("output_dimensionality", "here it is dimensions="),
        ("batch_size", "here it is limits=embedkit.Limits(max_texts=…), an argument of connect()"),
        ("max_retries", "here it is retry=embedkit.RetryPolicy(attempts=1 + retries), an argument of connect()"),
        ("api_key", "it is an argument of connect()"),
        ("normalize_embeddings", "here it is normalize="),
    ],
)
def test_a_keyword_of_a_call(word, here):
    """`embed`, `embed_query` and `stream`, async and sync: the word, and whether it belongs to `connect`."""
    embedder = connected()
    waits = embedkit.SyncEmbedder(embedder)
    for call in (
        lambda **given: asyncio.run(embedder.embed(["a"], **given)),
        lambda **given: asyncio.run(embedder.embed_query("a", **given)),
        lambda **given: embedder.stream(["a"], **given),
        lambda **given: waits.embed(["a"], **given),
        lambda **given: waits.embed_query("a", **given),
        lambda **given: waits.stream(["a"], **given),
    ):
        with pytest.raises(TypeError, match=r"^(embed|embed_query|stream)\(\) got an unexpected keyword") as caught:
            call(**{word: 1})

        assert str(caught.value).endswith(f"keyword {word}: {here}")


def test_a_misspelt_keyword_gets_the_nearest():
    """A word that no other library has is answered with the nearest of the function's own; one without, by its name."""
    with pytest.raises(TypeError, match=r"unexpected keyword dimensins; did you mean dimensions\?$"):
        embedkit.SyncEmbedder(connected()).embed(["a"], dimensins=3)
    with pytest.raises(TypeError, match=r"unexpected keyword xyzzy$"):
        embedkit.SyncEmbedder(connected()).embed(["a"], xyzzy=3)


@pytest.mark.parametrize(
    ("word", "here"),
    [
        ("batch_size", "here it is limits=embedkit.Limits(max_texts=…), an argument of connect()"),
        ("text_column", "here it is column="),
        ("id_column", "here it is key="),
        ("overwrite", "here it is force=True"),
        ("resume", "leave it out; the same call again resumes the job"),
        ("max_concurrency", "it is an argument of connect()"),
    ],
)
def test_a_keyword_of_a_job(word, here):
    """`bulk.run` and `bulk.run_sync` likewise."""
    with pytest.raises(TypeError) as caught:
        bulk.run_sync(["a"], FakeEmbedder(), "out.npy", **{word: 1})
    with pytest.raises(TypeError) as waited:
        asyncio.run(bulk.run(["a"], FakeEmbedder(), "out.npy", **{word: 1}))

    assert str(caught.value) == str(waited.value) == f"run() got an unexpected keyword {word}: {here}"


def test_a_keyword_of_a_pool():
    """What belongs to a member is said to belong there."""
    with pytest.raises(TypeError, match=r"unexpected keyword batch_size: here it is .*, an argument of connect\(\)"):
        embedkit.pool([FakeEmbedder()], batch_size=3)


def test_a_type_error_of_the_texts_stays_what_it_is():
    """Only what is wrong with the arguments' names is said in other words."""
    with pytest.raises(TypeError, match=r"^texts\[0\]|row 0|string"):
        embedkit.SyncEmbedder(connected()).embed([1])
    with pytest.raises(TypeError, match=r"missing 1 required positional argument: .texts."):
        embedkit.SyncEmbedder(connected()).embed()


@pytest.mark.parametrize(
    ("word", "here"),
    [
        ("embed_documents", 'embed(texts, input_type="document")'),
        ("aembed_documents", 'embed(texts, input_type="document")'),
        ("encode", "embed(texts)"),
        ("embeddings", "embed(texts)"),
        ("get_text_embedding", "embed(texts)"),
        ("aembed_query", "embed_query(text)"),
    ],
)
def test_a_method_of_another_library(word, here):
    """Both embedders name their own method; nothing that is there is hidden."""
    for embedder in (connected(), embedkit.SyncEmbedder(connected())):
        with pytest.raises(AttributeError, match=r" object has no attribute ") as caught:
            getattr(embedder, word)

        assert str(caught.value).endswith(f"{word!r}: here it is {here}")
        assert not hasattr(embedder, word)


@pytest.mark.parametrize(
    ("word", "here"), [("data", "vectors"), ("embeddings", "vectors"), ("tolist", "to_list()"), ("cost", "usage.cost")]
)
def test_a_field_of_another_library(word, here):
    """The result names its own."""
    result = asyncio.run(FakeEmbedder().embed(["a"]))
    with pytest.raises(AttributeError, match=rf"^'Embeddings' object has no attribute '{word}': here it is ") as caught:
        getattr(result, word)

    assert str(caught.value).endswith(here)


@pytest.mark.parametrize(
    ("word", "here"),
    [
        ("OpenAI", 'embedkit.connect_sync("provider:model")'),
        ("AsyncOpenAI", 'embedkit.connect("provider:model")'),
        ("embedding", 'embedkit.connect_sync("provider:model").embed(texts)'),
        ("exceptions", "embedkit.errors"),
        ("AuthenticationError", "embedkit.AuthError"),
    ],
)
def test_a_name_of_another_library(word, here):
    """So does the package."""
    with pytest.raises(AttributeError) as caught:
        getattr(embedkit, word)

    assert str(caught.value) == f"module 'embedkit' has no attribute {word!r}: here it is {here}"


def test_what_fails_inside_a_property_is_not_hidden():
    """A property of a subclass that fails shows its own error."""

    class Broken(FakeEmbedder):
        @property
        def dimension(self):
            return self.nothing

    with pytest.raises(AttributeError, match="'Broken' object has no attribute 'nothing'"):
        _ = Broken().dimension


def test_every_word_leads_to_something_that_is_there():
    """A keyword, a method, a field or a name that is named is there."""
    for here in _peers._RENAMED:
        keyword = here.partition("=")[0]
        assert keyword in (*_peers.CONNECT, "progress", "on_error"), here
    for here in _peers._METHODS:
        for name in here.partition(", or ")[0].split(" and "):
            assert hasattr(embedkit.Embedder, name.partition("(")[0].partition(".")[0]), here
    for here in _peers._RESULTS:
        assert here.partition("(")[0].partition(".")[0] in dir(embedkit.Embeddings), here
    for here in _peers._MODULE:
        name = here.removeprefix("await ").removeprefix("embedkit.").partition("(")[0].partition(".")[0]
        assert hasattr(embedkit, name), here
    parameters = inspect.signature(bulk.run).parameters
    for here in _peers._OF_JOBS.values():
        if here.startswith("here it is "):
            assert here.removeprefix("here it is ").partition("=")[0].partition(",")[0] in parameters, here


@pytest.mark.parametrize(
    ("model", "near"),
    [
        ("openai/text-embedding-3-small", "openai:text-embedding-3-small"),
        ("azure/mine", "azure:mine"),
        ("vertex_ai/gemini-embedding-001", "vertex:gemini-embedding-001"),
        ("together_ai/x", "together:x"),
        ("huggingface/BAAI/bge-small", "huggingface:BAAI/bge-small"),
        ("all-MiniLM-L6-v2", "local:all-minilm-l6-v2"),
        ("openai", "openai:text-embedding-3-small"),
    ],
)
def test_a_model_as_others_write_it(model, near):
    """The form with a colon is named first."""
    with pytest.raises(embedkit.ConfigError, match=rf"^model='{model}' has no (provider|model): the form is") as caught:
        embedkit.connect(model)

    assert f"did you mean {near!r}" in str(caught.value)


@pytest.mark.parametrize(("provider", "near"), [("google", "gemini or vertex"), ("together_ai", "together")])
def test_a_provider_as_others_call_it(provider, near):
    """So is a provider that has another name elsewhere."""
    with pytest.raises(embedkit.ConfigError, match=rf"^unknown provider '{provider}'; did you mean {near}\?"):
        embedkit.connect(f"{provider}:m")


def test_a_secret_of_pydantic():
    """A SecretStr gets the one line that helps, and shows nothing."""

    class SecretStr:
        def get_secret_value(self):
            return "sk-secret"

    with pytest.raises(embedkit.ConfigError, match=r"^api_key is SecretStr; pass api_key=secret.get_secret_value\(\)$"):
        embedkit.connect("openai:m", api_key=SecretStr())


@pytest.mark.parametrize(
    ("word", "here"),
    [
        ("search_document", "document"),
        ("RETRIEVAL_QUERY", "query"),
        ("retrieval.passage", "document"),
        ("SEMANTIC_SIMILARITY", "similarity"),
        ("Query", "query"),
    ],
)
def test_an_input_type_of_a_provider(word, here):
    """An input type as a provider's own API calls it is refused with our word, by `connect` and by a call."""
    with pytest.raises(embedkit.ConfigError, match=f"; here that is '{here}'$"):
        connected(input_type=word)
    with pytest.raises(embedkit.ConfigError, match=f"; here that is '{here}'$"):
        embedkit.SyncEmbedder(FakeEmbedder()).embed(["a"], input_type=word)


def test_an_input_type_that_nobody_has():
    """Nothing is guessed for a word that no API has."""
    with pytest.raises(embedkit.ConfigError, match=r"'similarity'$"):
        connected(input_type="poem")


def test_a_result_is_no_response_of_the_openai_package():
    """`result["data"]` is told where the vectors are; rows are numbers."""
    made = embedkit.SyncEmbedder(FakeEmbedder()).embed(["a", "b"])

    with pytest.raises(TypeError, match=r"a row is a number; the vectors are \.vectors"):
        made["data"]
    assert (made[1] == made.vectors[1]).all()


def test_a_parameter_of_another_host():
    """A keyword that other hosts take is told with their names."""
    with pytest.raises(TypeError, match=r"parameters of openai: organization .*; of azure.*: api_version"):
        connected(api_version="2024-10-21")


def test_an_address_inside_the_model():
    """An address after the model goes into `base_url=`; it is not shown, since it may hold a password."""
    with pytest.raises(embedkit.ConfigError, match="base_url=") as caught:
        embedkit.connect("compatible:m@http://user:pass@localhost:8000")
    assert "pass@" not in str(caught.value)


MIXED = [
    (
        lambda: embedkit.connect("local"),
        "LocalEmbedder goes into `async with`; embedkit.connect_sync() makes one for `with`",
    ),
    (FakeEmbedder, "FakeEmbedder goes into `async with`; embedkit.connect_sync() makes one for `with`"),
]


@pytest.mark.parametrize(("make", "said"), MIXED)
def test_with_in_place_of_async_with(make, said):
    """`with connect(…)` names `async with` and `connect_sync`, of every kind of embedder."""
    with pytest.raises(AttributeError) as caught, make():
        pass

    assert str(caught.value) == said


def test_async_with_in_place_of_with():
    """`async with connect_sync(…)` names `with` and `connect`."""

    async def enter():
        async with embedkit.connect_sync("local"):
            pass

    with pytest.raises(AttributeError, match=r"SyncEmbedder goes into `with`; embedkit.connect.. makes one for `async"):
        asyncio.run(enter())


def test_an_embedder_is_no_context_manager_of_the_other_kind():
    """A library that opens what it is given, by looking at it, opens each in its own way."""
    embedder, sync = embedkit.connect("local"), embedkit.connect_sync("local")

    assert not isinstance(embedder, contextlib.AbstractContextManager)
    assert isinstance(embedder, contextlib.AbstractAsyncContextManager)
    assert not isinstance(sync, contextlib.AbstractAsyncContextManager)
    assert isinstance(sync, contextlib.AbstractContextManager)
    assert not hasattr(embedder, "__enter__")
    assert not hasattr(sync, "__aenter__")
    assert inspect.getmembers(embedder)


def test_a_name_in_place_of_an_embedder():
    """What takes embedders says what makes one of a model's name."""
    with pytest.raises(TypeError, match=r"not str; pass what connect\(\) makes of a model's name"):
        embedkit.pool(["openai:m"])
    with pytest.raises(TypeError, match=r"not str; connect_sync\(\) takes a model's name"):
        embedkit.SyncEmbedder("openai:m")
