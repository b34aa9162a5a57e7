"""Each keyword of `connect` is looked at before it is used, and a wrong one is named."""

from __future__ import annotations

import asyncio
import math
import ssl
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

import embedkit
from embedkit import ConfigError, Limits, Rate, RetryPolicy
from embedkit.testing import FakeExchange
from tests.support.fake_replies import KEY, echo

pytestmark = pytest.mark.anyio
OPENAI = "openai:text-embedding-3-small"


class Later:
    """An object that is called and awaited."""

    async def __call__(self, given):
        pass


WRONG: dict[str, list[object]] = {
    "input_type": ["search", "QUERY", 1, True],
    "dimensions": [0, -1, True, "256", 256.0, [256]],
    "dtype": ["", "float16", "FLOAT32", 0, False, np.float32],
    "normalize": ["yes", 0, 1],
    "truncate": ["END", True, False, ""],
    "extra": [[], "", "a", 5, [("a", 1)], {1, 2}],
    "max_concurrency": [0, -1, True, False, "4", 2.0, math.inf],
    "limits": [64, {"max_texts": 64}, Limits],
    "rate": [60, Limits()],
    "retry": [3, 0, False, RetryPolicy],
    "timeout": [0, -1, True, "5", math.inf, math.nan],
    "total_timeout": [0, -1, True, "5", math.inf, math.nan],
    "connect_timeout": [0, None, "5", math.inf],
    "read_timeout": [0, False, "5"],
    "max_response_bytes": [0, None, True, "1 MB", 1e6],
    "session": [7, object(), "session"],
    "proxy": [7, "", "proxy:3128", "socks5://proxy:1080", "http://", "http://proxy:99999", "http://pro xy"],
    "ssl": [7, 0, b"ca.pem", []],
    "headers": [7, [("a", "b")], {7: "a"}, {"": "a"}, {"a b": "c"}, {"a:": "c"}, {"a\n": "c"}, {"é": "c"}, {"a": 7},
     {"a": None},
                {"a": b"c"}, {"a": "b\r\nc: d"}, {"a": "\x00"}, {"a": "\ud800"}, {"a": "…"}],
    "count_tokens": [7, "cl100k", asyncio.sleep, Later()],
    "observe": [7, [], asyncio.sleep, Later()],
    "exchange": [7, "https://"],
    "long_text": ["max", True, 7],
    "coalesce": [-1, "yes", math.nan, math.inf, None, 121, 1e308, 10**400],
    "cache": [7, True, b"c", "", ":memory:", "/", "/no/such/folder/c", "http://host", "postgresql://host/d",
              "a\x00b", "\ud800"],
    "hedge": [-0.1, 1.5, "yes", math.nan, None],
    "api_key": ["", "  ", 7, b"key", "Bearer sk-1", "sk\n1", "sk\x00", "sk-…", "sk-\ud800"],
    "base_url": ["", " ", 7, b"http://h", object()],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values], ids=repr
)
def test_a_wrong_value_is_named_at_once(name, value):
    """connect() refuses what is of the wrong kind itself, by the keyword's name, before any call is made."""
    with pytest.raises(ConfigError, match=rf"\b{name}\b"):
        embedkit.connect(**{"model": OPENAI, "api_key": KEY, name: value})


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"dtype": "binary", "dimensions": 100}, "dimensions=100 with dtype='binary': eight components share a byte"),
        ({"dtype": "int8", "normalize": True}, "normalize=True with dtype='int8': only float32 vectors"),
    ],
)
def test_options_that_contradict_each_other_are_refused(keywords, message):
    """What each option allows alone, but not together, is refused at once as well."""
    with pytest.raises(ConfigError, match=message):
        embedkit.connect("cohere:embed-v4.0", api_key=KEY, **keywords)


@pytest.mark.parametrize("name", [name for name in WRONG if name != "exchange"])
def test_a_huge_value_is_refused_in_few_words(name):
    """An integer of more digits than Python writes, and a text of 10,000 characters."""
    long_ones = {"base_url", "proxy", "long_text", "input_type", "dtype", "truncate", "normalize"} & {name}
    for value in (10**5000, -(10**5000), [10**5000], *(["x" * 10_000] if long_ones else [])):
        with pytest.raises(ConfigError, match=rf"\b{name}\b") as caught:
            embedkit.connect(**{"model": OPENAI, "api_key": KEY, name: value})
        assert len(str(caught.value)) < 500


def test_every_keyword_has_a_wrong_value_here():
    """Whoever adds a keyword to connect() adds what is wrong with it above."""
    assert set(embedkit.connect.__kwdefaults__) == set(WRONG)


@pytest.mark.parametrize(
    "keywords",
    [
        dict.fromkeys(name for name,
         value in (embedkit.connect.__kwdefaults__ or {}).items() if value is None and name != "api_key"),
        {"timeout": 1, "connect_timeout": 0.5, "read_timeout": 1e6, "max_response_bytes": 1, "max_concurrency": 1},
        {"limits": Limits(), "rate": Rate(), "retry": RetryPolicy(), "headers": MappingProxyType({"x-a": "b c\td"}),
         "extra": {}},
        {"ssl": False}, {"ssl": True}, {"ssl": "/ca.pem"}, {"ssl": Path("ca.pem")},
        {"ssl": ssl.create_default_context()},
        {"proxy": "http://user:word@proxy.test:3128"}, {"api_key": lambda: KEY}, {"api_key": f" {KEY}\n"},
    ],
    ids=lambda keywords: "-".join(keywords)[:40],
)  # fmt: skip
def test_right_values_are_taken(keywords):
    """None is as good as leaving a keyword out, and each kind that the docstring names is taken."""
    assert embedkit.connect(**{"model": OPENAI, "api_key": KEY, **keywords}).provider == "openai"


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([1, 2], r"returned list, .*lambda text: len\(encode\(text\)\)"),
        ({"input_ids": [1]}, "returned dict, and not a number"),
        ("7", "returned str"),
        (None, "returned NoneType"),
        (-1, "returned -1: a number of tokens is finite"),
        (math.nan, "returned nan"),
        (math.inf, "returned inf"),
    ],
)
async def test_what_counts_tokens_must_give_their_number(found, message):
    """Tokens in place of their number, or nothing, are named as that, and nothing is sent."""
    exchange = FakeExchange([])
    embedder = embedkit.connect(OPENAI, api_key=KEY, exchange=exchange, count_tokens=lambda text: found)

    with pytest.raises(ConfigError, match=f"count_tokens {message}"):
        await embedder.embed(["a", "b"])
    assert exchange.requests == []


@pytest.mark.parametrize("found", [7, 0, 2.5, np.int64(7), np.float32(0.5), True])
async def test_a_number_of_tokens_may_be_of_any_type(found):
    """Of numpy, or a fraction, which is rounded up."""
    embedder = embedkit.connect(
        OPENAI, api_key=KEY, exchange=FakeExchange(echo("openai")), count_tokens=lambda text: found
    )

    assert embedder.count_tokens("a") == math.ceil(found)
    assert (await embedder.embed(["a", "b"])).shape[0] == 2


def test_no_secret_shows_in_a_refusal():
    """A key, a header's value and a password in a URL are not repeated in the message that refuses them."""
    for keywords in (
        {"api_key": "secret word"}, {"headers": {"x-key": "secret\n"}}, {"proxy": "socks5://me:secret@proxy.test"},
        {"base_url": "ftp://me:secret@host.test/v1"}, {"base_url": "http://me:se/secret@host.test/v1 "},
        {"organization": 7, "api_key": "secret"},
    ):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            embedkit.connect(**{"model": OPENAI, "api_key": KEY, **keywords})

        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "keyword", "message"),
    [
        ("openai:m", "dimensins", r"unexpected keyword dimensins; did you mean dimensions\? parameters of openai: "),
        (
            "openai:m",
            "organisation",
            r"did you mean organization\? parameters of openai: organization \(organization to bill",
        ),
        ("azure:m", "depth", r"parameters of azure: api_version \(.*\), ad_token \(.*\)"),
        ("ollama:m", "num_ctx", r"keep_alive \(.*model_options \(.*legacy \("),
        ("vllm:m", "xyzzy", "unexpected keyword xyzzy; parameters of vllm: none of its own"),
        ("local", "thread", r"did you mean threads\? parameters of local: path, threads"),
    ],
)
def test_an_unknown_keyword_is_a_type_error_that_lists_what_there_is(model, keyword, message):
    """The message names the keyword, the nearest one there is, and everything this host takes, with what it is."""
    with pytest.raises(TypeError, match=message):
        embedkit.connect(model, **{keyword: 1})


def test_parameters_of_a_host_are_checked():
    """A choice that is none, an empty value, and a credential of the wrong type are refused by name."""
    for model, keywords, message in (
        ("huggingface:m", {"pooling": "max"}, "pooling='max': it is one of 'mean', 'cls', 'last'"),
        ("azure:m", {"api_version": "", "base_url": "http://localhost"}, "api_version is empty; pass a value"),
        ("azure:m", {"ad_token": "", "base_url": "http://localhost"}, "ad_token is empty"),
        ("openai:m", {"organization": 7}, "organization is int; pass a value"),
        (
            "ollama:m",
            {"keep_alive": object()},
            "keep_alive cannot be written into a request: .*how long the model stays loaded",
        ),
        ("ollama:m", {"model_options": {"a": {1: "\ud800"}}}, "model_options cannot be written into a request"),
    ):
        with pytest.raises(ConfigError, match=message):
            embedkit.connect(model, api_key=KEY, **keywords)


async def test_the_configuration_is_the_callers_no_longer():
    """Changing a dictionary after connect() took it changes no request."""
    extra, headers = {"user": "me"}, {"x-a": "1"}
    exchange = FakeExchange(echo("openai"))
    embedder = embedkit.connect(OPENAI, api_key=KEY, extra=extra, headers=headers, exchange=exchange)
    extra["user"] = headers["x-a"] = "you"
    await embedder.embed("a")

    assert exchange.bodies[0]["user"] == "me"
    assert exchange.requests[0].headers["x-a"] == "1"
