"""What the adapters share: settings without secrets, one embedder with and without `await`, and what it took."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from threading import Event, Thread

import aiohttp
import hypothesis
import pytest
from hypothesis import strategies as st

import embedkit
from embedkit import ConfigError, Limits, Rate, RetryPolicy
from embedkit.contrib import _client
from embedkit.contrib._client import Client
from embedkit.testing import FakeEmbedder, response
from tests.contrib.adapters import KEY, voyage
from tests.support.servers.api import Api

pytestmark = pytest.mark.anyio


def key_of_the_test():
    """A key that a function gives."""
    return KEY


SECRETS = [
    ("cohere:embed-v4.0", {"api_key": KEY}),
    ("cohere:embed-v4.0", {"api_key": [KEY, "another"]}),
    ("azure:ada", {"ad_token": KEY, "base_url": "https://r.openai.azure.com"}),
    ("bedrock:cohere.embed-v4:0", {"aws_access_key_id": "AKIA", "aws_secret_access_key": KEY, "region": "us-east-1"}),
    ("vllm:m", {"headers": {"Authorization": f"Bearer {KEY}"}}),
    ("vllm:m", {"headers": {"x-goog-api-key": KEY}}),
    ("vllm:m", {"headers": {"accessKey": KEY}}),
    ("vllm:m", {"headers": {"Cookie": KEY}}),
    *(
        ("vllm:m", {"headers": {name: KEY}})
        for name in ("x-accesstoken", "apikey", "X-JWT", "passwd", "x-pwd", "secretkey", "subscriptionkey", "AuthToken")
    ),
    *(("vllm:m", {"headers": {"X-Team": f"{scheme} {KEY}"}}) for scheme in ("Bearer", "basic", "Token", "ApiKey")),
    ("vllm:m", {"extra": {"nested": [{"client_secret": KEY}]}}),
    ("vllm:m", {"base_url": f"http://user:{KEY}@localhost:8000"}),
    ("vllm:m", {"base_url": ["http://localhost:8000", f"http://{KEY}@localhost:8001"]}),
    ("vllm:m", {"proxy": f"http://user:{KEY}@proxy.test:3128"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "settings"), SECRETS, ids=lambda value: str(list(value)) if isinstance(value, dict) else ""
)
def test_a_credential_given_as_text_is_written_nowhere(model, settings):
    """Data and pickles refuse it by name; the lenient form leaves it out; no message and no representation has it."""
    client = Client(model, settings)

    for write in (client.as_data, lambda: pickle.dumps(client)):
        with pytest.raises(ConfigError) as refused:
            write()
        assert KEY not in str(refused.value)
        assert any(name in str(refused.value) for name in settings)
    assert KEY not in json.dumps(client.as_data(lenient=True))
    assert KEY not in repr(client)


@pytest.mark.parametrize(
    "settings",
    [
        {"headers": {"X-Team": "search", "openai-organization": "org", "X-Monkey": "basic", "Keyboard": "tokens 5"}},
        {"extra": {"user": "me", "max_tokens": 5, "author": "x", "passages": [], "task": "token classification"}},
        {"base_url": "http://localhost:8000/v1?api-version=2024-10-21"},
        {"limits": Limits(max_tokens=100), "rate": Rate(tokens_per_minute=5), "retry": RetryPolicy(attempts=None)},
    ],
)
def test_what_is_no_credential_is_written(settings):
    """Names that only look alike are kept, and the client that is read back connects alike."""
    client = Client("vllm:m", settings)
    data = json.loads(json.dumps(client.as_data()))
    again, copied = Client(data.pop("model"), data), pickle.loads(pickle.dumps(client))  # noqa: S301 (our own)

    assert copied.as_data() == again.as_data() == client.as_data() == client.as_data(lenient=True)
    assert again.embedder.limits == client.embedder.limits


@hypothesis.given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["http://a:b@c/?key=d&e=f"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.sampled_from(["api_key"]), inner, max_size=3),
    max_leaves=8,
))  # fmt: skip
@hypothesis.settings(deadline=None, max_examples=50)
def test_the_lenient_form_is_clean(value):
    """Whatever `extra` holds, its lenient form can be written strictly."""
    data = Client("vllm:m", {"extra": {"value": value}}).as_data(lenient=True)

    assert Client(data.pop("model"), data).as_data()


def test_a_path_is_written_as_text(tmp_path):
    """A path of a cache goes into a configuration as its text, and comes back as the same cache."""
    data = Client("vllm:m", {"cache": tmp_path / "vectors"}).as_data()

    assert data["cache"] == str(tmp_path / "vectors")
    assert Client(data.pop("model"), data).as_data() == {"model": "vllm:m", **data}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rate": {"requests": 5}}, ["rate", "'requests'", "requests_per_minute"]),
        ({"limits": {"texts": 5}}, ["limits", "'texts'", "max_texts"]),
        ({"retry": {"max_attempts": 5}}, ["retry", "'max_attempts'", "attempts"]),
        ({"rate": {5: 5}}, ["rate", "5", "requests_per_minute"]),
        ({"rate": {"requests_per_minute": "5"}}, ["requests_per_minute", "'5'"]),
    ],
)
def test_a_mapping_with_a_wrong_field_is_refused_by_name(settings, words):
    """The message has the setting, the field, and the fields that there are."""
    with pytest.raises(ConfigError) as refused:
        Client("vllm:m", settings)

    assert all(word in str(refused.value) for word in words)


def test_what_json_cannot_hold_is_refused_by_name():
    """A function, a session or an embedder cannot be part of a configuration, and the message says which it is."""
    for settings in ({"observe": print}, {"headers": dict}, {"extra": {"x": object()}}, {"api_key": key_of_the_test}):
        with pytest.raises(ConfigError, match=next(iter(settings))):
            Client("vllm:m", settings).as_data()
    with pytest.raises(ConfigError, match="as an object"):
        Client(FakeEmbedder(), {}).as_data()


def test_a_key_from_a_function_travels_in_a_pickle():
    """A function of a module pickles as its name, so a client with one does."""
    client = pickle.loads(pickle.dumps(Client("voyage:voyage-3.5", {"api_key": key_of_the_test})))  # noqa: S301 (our own)

    assert client.settings["api_key"] is key_of_the_test
    assert KEY.encode() not in pickle.dumps(client)


def test_the_model_is_written_as_it_was_resolved(monkeypatch):
    """What EMBEDKIT_MODEL said when the client was made is written down, not that it was asked."""
    monkeypatch.setenv("EMBEDKIT_MODEL", "vllm:m")
    data = Client(None, {}).as_data()
    monkeypatch.setenv("EMBEDKIT_MODEL", "vllm:another")

    assert data == {"model": "vllm:m"}
    assert Client(**{"settings": {}, **data}).model == "vllm:m"


def test_settings_belong_to_an_embedder_that_is_given():
    """An embedder is taken as it is; settings beside it are a mistake."""
    assert Client(FakeEmbedder(4), {"dimensions": None}).embed(["a", "b"], "query").vectors.shape == (2, 4)
    with pytest.raises(ConfigError, match="dimensions"):
        Client(FakeEmbedder(), {"dimensions": 4})


def test_copies_share_the_embedder():
    """Frameworks copy what they are given: copies share sockets, limits and the count."""
    client = Client(FakeEmbedder(), {})
    twin = copy.deepcopy([copy.copy(client)])[0]
    twin.embed(["two words"], "query")

    assert twin.embedder is client.embedder
    assert client.usage.tokens == 2


def test_usage_of_many_threads_adds_up():
    """No call is lost from the count, whichever thread makes it and whenever it is interrupted."""
    client = Client(FakeEmbedder(), {})
    made = client.embed(["two words"], "query")
    threads = [Thread(target=lambda: [client._count(made.usage) for _ in range(1000)]) for _ in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)

    assert (client.usage.tokens, client.usage.requests) == (16_002, 8_001)


def test_rows_from_a_cache_are_counted(tmp_path):
    """The count has them beside the tokens, which they did not take again."""
    with Api() as api:
        client = Client("compatible:m", {"base_url": api.url, "cache": str(tmp_path / "vectors")})
        for texts in (["one", "two"], ["one", "two", "three"]):
            client.embed(texts, "document")
        client.close()

    assert (client.usage.requests, client.usage.cached) == (2, 2)


def test_threads_that_come_first_together_share_one_embedder(monkeypatch):
    """Calls without `await` from many threads use one `SyncEmbedder`, which `close` can close."""
    made = []

    def slowly(embedder):
        made.append(embedder)
        started.wait(timeout=0.2)  # so that a second thread could come in between
        return object()

    started = Event()
    monkeypatch.setattr(_client, "SyncEmbedder", slowly)
    client = Client(FakeEmbedder(), {})
    threads = [Thread(target=lambda: client.sync) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(made) == 1


def test_requests_of_a_call_that_fails_are_counted():
    """A call that embeds nothing has sent requests all the same."""
    _, settings = voyage(lambda _: response({"error": "broken"}, 500))
    client = Client(settings.pop("model"), {**settings, "api_key": KEY, "retry": {"attempts": 3, "initial": 0}})
    with pytest.raises(embedkit.ServerError):
        client.embed(["a"], "query")

    assert (client.usage.tokens, client.usage.requests) == (None, 3)


def test_usage_nobody_reports_is_none():
    """Tokens and dollars are None until a provider reports some; requests are always counted."""
    _, settings = voyage(lambda _: {"data": [{"embedding": [1.0, 2.0]}]})
    client = Client(settings.pop("model"), {**settings, "api_key": KEY})
    client.embed(["a"], "query")

    assert (client.usage.tokens, client.usage.requests, client.usage.cost) == (None, 1, None)


async def test_the_caller_s_own_session_is_for_async_calls():
    """With `session=` async calls work, and a call without `await` says why it cannot."""
    with Api() as api:
        async with aiohttp.ClientSession() as session:
            client = Client("compatible:m", {"base_url": api.url, "session": session})
            assert len(await client.aembed(["a"], "query")) == 1
            with pytest.raises(ConfigError, match="session"):
                client.embed(["a"], "query")


async def test_it_opens_again_after_it_was_closed():
    """Closing ends the sockets of either side, and a later call opens new ones."""
    with Api() as api:
        client = Client("compatible:m", {"base_url": api.url})
        for _ in range(2):
            assert len(client.embed(["a"], "query")) == len(await client.aembed(["a"], "query")) == 1
            client.close()
            await client.aclose()


def test_errors_are_embedkit_s():
    """What a provider refuses is raised as it is, with the row it is about."""
    with Api() as api:
        client = Client("compatible:m", {"base_url": api.url, "limits": {"max_texts": 1}})
        with pytest.raises(embedkit.InvalidInputError) as refused:
            client.embed(["a", "BAD"], "document")

    assert refused.value.rows == (1,)


def test_an_embedder_is_pickled_by_nobody():
    """It may hold a key that was given as text, which a pickle of it holds too; copies share it all the same."""
    client = Client(embedkit.connect("cohere:embed-v4.0", api_key=KEY), {})
    with pytest.raises(ConfigError, match="may hold a key") as refused:
        pickle.dumps(client)

    assert KEY not in str(refused.value)
    assert copy.deepcopy(client).embedder is copy.copy(client).embedder is client.embedder
