"""From "provider:model" to an embedder: what is understood, what is refused, where requests go and which key goes with them.

The checklist at the end is that of a predecessor in another language, LinGoose: what its embedding page offers works here too.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import ssl
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType

import anyio
import numpy as np
import pytest

import embedkit
from embedkit import ApiError, AuthError, ConfigError, DecodeError, Limits, Rate, RetryPolicy
from embedkit.events import AttemptEnded, BatchDone, BatchFailed, RequestSent
from embedkit.providers import hosts
from embedkit.testing import FakeEmbedder, FakeExchange, response
from tests.support.fake_replies import KEY, SEED, THERE, echo, shaped, texts_of, vector

pytestmark = pytest.mark.anyio
OPENAI = "openai:text-embedding-3-small"
NOW = RetryPolicy(initial=0, maximum=0)
EVIL = (
    "https://api.openai.com.evil.test/v1", "https://evilapi.openai.com/v1", "https://api.openai.com@evil.test/v1",
    "https://evil.test/api.openai.com/v1", "https://openai.com/v1", "https://api-openai.com/v1", "https://api.openai.com./v1",
    "http://api.openai.com/v1", "http://localhost.evil.test:8080/v1", "http://127.0.0.1.evil.test/v1", "http://127.evil.test", "http://10.0.0.1:8000/v1",
)  # fmt: skip


def provider_of(model):
    return model.partition(":")[0]


async def sent(model, texts="a", **keywords):
    """The request that embedding these texts sends, the last if there are several."""
    exchange = FakeExchange(echo(provider_of(model)))
    async with embedkit.connect(model, exchange=exchange, **keywords) as embedder:
        await embedder.embed(texts)
    return exchange.requests[-1]


def authorized(request):
    """What a request says of who sends it."""
    return request.headers.get("authorization") or request.headers.get("api-key")


# --- "provider:model" ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "provider", "name"),
    [
        ("openai:text-embedding-3-small", "openai", "text-embedding-3-small"),
        ("ollama:hf.co/org/name:Q4_K_M", "ollama", "hf.co/org/name:Q4_K_M"),
        ("tei:BAAI/bge-m3", "tei", "BAAI/bge-m3"),
        (" OpenAI : m ", "openai", "m"),
        ("ollama::latest", "ollama", ":latest"),
        ("ollama:模型", "ollama", "模型"),
    ],
)
async def test_a_model_is_split_on_the_first_colon_only(model, provider, name):
    """What follows the first colon is the model's name, colons, slashes and all; the provider's name is any case."""
    embedder = embedkit.connect(model, api_key=KEY)

    assert (embedder.provider, embedder.model) == (provider, name)
    if provider != "tei":
        assert json.loads((await sent(model, api_key=KEY)).body)["model"] == name


@pytest.mark.parametrize(
    ("model", "lacks"),
    [("", "provider"), (":", "provider"), (":m", "provider"), ("  :m", "provider"), ("openai", "provider"), ("openai:", "model"),
     ("openai: ", "model"), ("unknown:", "model")],
)  # fmt: skip
def test_both_parts_are_needed(model, lacks):
    """Without a colon, or with nothing before or after it, the message names what is missing and shows the form."""
    with pytest.raises(ConfigError, match=f"^model='{model}' has no {lacks}: the form is 'provider:model'"):
        embedkit.connect(model)


def test_a_bare_model_of_the_catalog_is_given_its_provider():
    """A well-known model's name alone is answered with the whole of it."""
    with pytest.raises(ConfigError, match="did you mean 'openai:text-embedding-3-large'"):
        embedkit.connect("text-embedding-3-large")


@pytest.mark.parametrize("model", ["openai:a\nb", "openai:\x00", "openai:\ud800", "openai:a\u2028b", "openai:a\x7f"])
def test_a_model_is_printable(model):
    """Control characters and lone surrogates in a name, which no request could carry, are refused."""
    with pytest.raises(ConfigError, match="holds a character that no model's name has"):
        embedkit.connect(model, api_key=KEY)


@pytest.mark.parametrize("model", [7, b"openai:m", ["openai:m"], object()])
def test_a_model_is_a_string(model):
    """Anything but a string or None is a TypeError that says what it got."""
    with pytest.raises(TypeError, match=f"^model is {type(model).__name__}; it is a string like"):
        embedkit.connect(model)


@pytest.mark.parametrize(
    ("name", "near"),
    [("opena1", "openai"), ("olama", "ollama"), ("cohear", "cohere"), ("hugging-face", "huggingface"), ("azuer", "azure")],
)
def test_an_unknown_provider_is_answered_with_near_names(name, near):
    """A misspelt provider gets the nearest names first, then all there are."""
    with pytest.raises(ConfigError, match=f"unknown provider '{name}'; did you mean .*{near}.*Known: azure, .*local") as caught:
        embedkit.connect(f"{name}:m")

    assert all(host.name in str(caught.value) for host in hosts())


def test_a_provider_like_no_other_gets_the_list_alone():
    """Where nothing is near, no guess is made."""
    with pytest.raises(ConfigError, match="unknown provider 'xyzzy' Known: ") as caught:
        embedkit.connect("xyzzy:m")

    assert "did you mean" not in str(caught.value)


def test_the_environment_may_name_the_model(monkeypatch):
    """EMBEDKIT_MODEL holds where nothing is passed, and only there; what is wrong with it is said of it."""
    monkeypatch.setenv("EMBEDKIT_MODEL", " ollama:mistral ")

    assert repr(embedkit.connect()) == "<HttpEmbedder ollama:mistral at http://127.0.0.1:11434/api>"
    assert embedkit.connect("vllm:m").provider == "vllm"

    monkeypatch.setenv("EMBEDKIT_MODEL", "mistral")
    with pytest.raises(ConfigError, match=r"^EMBEDKIT_MODEL='mistral' has no provider"):
        embedkit.connect()
    with pytest.raises(ConfigError, match=r"^model='' has no provider"):
        embedkit.connect("")


@pytest.mark.parametrize("said", [None, "", "  "])
@pytest.mark.parametrize("model", [None, "local", "local:", "LOCAL:all-MiniLM-L6-v2"])
def test_without_a_word_it_is_the_embedded_model(monkeypatch, said, model):
    """No argument and no EMBEDKIT_MODEL: the local model, which "local" names too."""
    if said is not None:
        monkeypatch.setenv("EMBEDKIT_MODEL", said)
    embedder = embedkit.connect(model)

    assert (embedder.provider, embedder.model) == ("local", "all-minilm-l6-v2")


# --- keywords --------------------------------------------------------------------------------------------------------


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
    "headers": [7, [("a", "b")], {7: "a"}, {"": "a"}, {"a b": "c"}, {"a:": "c"}, {"a\n": "c"}, {"é": "c"}, {"a": 7}, {"a": None},
                {"a": b"c"}, {"a": "b\r\nc: d"}, {"a": "\x00"}, {"a": "\ud800"}, {"a": "…"}],
    "count_tokens": [7, "cl100k", asyncio.sleep],
    "observe": [7, [], asyncio.sleep],
    "exchange": [7, "https://"],
    "long_text": ["max", True, 7],
    "coalesce": [-1, "yes", math.nan, math.inf, None],
    "hedge": [-0.1, 1.5, "yes", math.nan, None],
    "api_key": ["", "  ", 7, b"key", "Bearer sk-1", "sk\n1", "sk\x00", "sk-…", "sk-\ud800"],
    "base_url": ["", " ", 7, b"http://h", object()],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values], ids=repr)
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


def test_every_keyword_has_a_wrong_value_here():
    """Whoever adds a keyword to connect() adds what is wrong with it above."""
    assert set(embedkit.connect.__kwdefaults__) == set(WRONG)


@pytest.mark.parametrize(
    "keywords",
    [
        dict.fromkeys(name for name, value in (embedkit.connect.__kwdefaults__ or {}).items() if value is None and name != "api_key"),
        {"timeout": 1, "connect_timeout": 0.5, "read_timeout": 1e6, "max_response_bytes": 1, "max_concurrency": 1},
        {"limits": Limits(), "rate": Rate(), "retry": RetryPolicy(), "headers": MappingProxyType({"x-a": "b c\td"}), "extra": {}},
        {"ssl": False}, {"ssl": True}, {"ssl": "/ca.pem"}, {"ssl": Path("ca.pem")}, {"ssl": ssl.create_default_context()},
        {"proxy": "http://user:word@proxy.test:3128"}, {"api_key": lambda: KEY}, {"api_key": f" {KEY}\n"},
    ],
    ids=lambda keywords: "-".join(keywords)[:40],
)  # fmt: skip
def test_right_values_are_taken(keywords):
    """None is as good as leaving a keyword out, and each kind that the docstring names is taken."""
    assert embedkit.connect(**{"model": OPENAI, "api_key": KEY, **keywords}).provider == "openai"


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
        ("openai:m", "dimension", "unexpected keyword dimension; did you mean dimensions?"),
        ("openai:m", "organisation", r"did you mean organization\? parameters of openai: organization \(organisation to bill"),
        ("azure:m", "deployment", r"parameters of azure: api_version \(.*\), ad_token \(.*\)"),
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


# --- base_url --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("http://host.test:8080", "http://host.test:8080/v1/embeddings"),
        ("http://host.test:8080/", "http://host.test:8080/v1/embeddings"),
        ("http://host.test/v1", "http://host.test/v1/embeddings"),
        ("http://host.test/v1//", "http://host.test/v1/embeddings"),
        ("http://host.test/a/b", "http://host.test/a/b/embeddings"),
        ("http://host.test/a%20b", "http://host.test/a%20b/embeddings"),
        ("HTTP://Host.Test/V1", "http://Host.Test/V1/embeddings"),
        ("  http://host.test/v1\n", "http://host.test/v1/embeddings"),
        ("http://host.test?tenant=a/", "http://host.test/v1/embeddings?tenant=a/"),
        ("http://host.test/v3/?tenant=a&x=", "http://host.test/v3/embeddings?tenant=a&x="),
        ("http://[::1]:8080", "http://[::1]:8080/v1/embeddings"),
        ("https://[2001:db8::1]/v1/", "https://[2001:db8::1]/v1/embeddings"),
        ("http://user:p%40ss@host.test:8080", "http://host.test:8080/v1/embeddings"),
    ],
)  # fmt: skip
async def test_where_a_base_url_leads(base_url, url):
    """A bare host gets the version segment, a path is used as given; slashes at the end and white space around do not matter."""
    assert (await sent("compatible:m", base_url=base_url)).url == url
    assert (await sent("openai:m", base_url=base_url)).url == url


@pytest.mark.parametrize(
    ("model", "url"),
    [
        ("azure:d", "https://host.test/openai/v1/embeddings"),
        ("ollama:m", "https://host.test/api/embed"),
        ("cohere:m", "https://host.test/v2/embed"),
        ("nomic:m", "https://host.test/v1/embedding/text"),
        ("huggingface:o/m", "https://host.test/hf-inference/models/o/m/pipeline/feature-extraction"),
        ("hfendpoint:m", "https://host.test"),
        ("tei:m", "https://host.test/embed"),
        ("infinity:m", "https://host.test/embeddings"),
        ("localai:m", "https://host.test/v1/embeddings"),
    ],
)
async def test_each_host_has_its_own_segment(model, url):
    """A bare base URL gets what this provider's address ends in, and a path replaces it."""
    route = url.removeprefix("https://host.test").removeprefix("/openai").removeprefix("/hf-inference").lstrip("/")
    route = route if model.startswith(("hugging", "tei", "infinity", "hfendpoint")) else route.partition("/")[2]

    assert (await sent(model, base_url="https://host.test/")).url == url
    assert (await sent(model, base_url="https://host.test/own")).url == f"https://host.test/own/{route}".rstrip("/")


@pytest.mark.parametrize(
    "base_url",
    [
        "host.test:8080", "localhost", "//host.test", "ftp://host.test", "http://", "https:///v1", "http:host.test", "http://[::1",
        "http://host.test:99999", "http://host.test:abc", "http://host.test:0", "http://host.test/a b", "http://ho st.test",
        "http://host.test/v1#part", "http://bücher.test/v1", "http://host.test\\@api.openai.com/v1", "https://api.openai.com\n.evil.test",
        "http://host.test/\x00", "http://user:p#ss@host.test", "unix:///run/server.sock",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(base_url):
    """What two clients might read apart, or none could call, is refused with an example of what works."""
    with pytest.raises(
        ConfigError, match=r"^base_url=.*: an http or https URL with a host .*, like https://api.openai.com/v1$"
    ):
        embedkit.connect("openai:m", api_key=KEY, base_url=base_url)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"base_url": []}, "base_url has 0 and api_key 1 entries"),
        ({"base_url": ["http://a", None]}, "base_url holds None beside others"),
        ({"api_key": [KEY, None]}, "api_key holds None beside others"),
        ({"api_key": [KEY, ""]}, "api_key is empty"),
        ({"base_url": ["http://a", "b"]}, "base_url='b': an http or https URL"),
        ({"base_url": {"http://a"}}, "base_url={'http://a'}: an http or https URL"),
        ({"base_url": ["http://a", "http://b"], "api_key": [KEY] * 3}, "base_url has 2 and api_key 3 entries"),
    ],
    ids=str,
)
def test_each_entry_of_a_pool_is_checked(keywords, message):
    """A pool's addresses and keys are held to the rules of a single one; a missing one does not stand for the provider's own."""
    with pytest.raises(ConfigError, match=message):
        embedkit.connect(**{"model": OPENAI, "api_key": KEY, **keywords})


@pytest.mark.parametrize("name", ["compatible", "azure", "hfendpoint"])
def test_a_host_without_an_address_asks_for_one(name):
    """Where only the user can know the address, its absence is said at once."""
    with pytest.raises(ConfigError, match=f"{name} has no address of its own: pass base_url="):
        embedkit.connect(f"{name}:m", api_key=KEY)


async def test_a_password_in_the_address_becomes_a_header():
    """user:password in a URL goes out as Basic authorization, and shows nowhere: not in a URL, a repr or an error."""
    exchange = FakeExchange([response({"error": "no"}, 403)])
    embedder = embedkit.connect("ollama:m", base_url="http://me:p%40ss:word@host.test", exchange=exchange)
    with pytest.raises(AuthError) as caught:
        await embedder.embed("a")

    request = exchange.requests[0]
    assert base64.b64decode(request.headers["authorization"].removeprefix("Basic ")) == b"me:p@ss:word"
    for shown in (request.url, repr(request), repr(embedder), embedder.base_url, str(caught.value)):
        assert "p@ss" not in shown
        assert "p%40ss" not in shown

    with pytest.raises(ConfigError, match="base_url holds a user and api_key is given"):
        embedkit.connect("openai:m", base_url="http://me:word@host.test", api_key=KEY)


async def test_a_query_stays_out_of_the_repr_of_a_request():
    """A gateway's key in the query goes out, but is not shown."""
    request = await sent("compatible:m", base_url="https://host.test/v1?key=secret")

    assert request.url.endswith("/embeddings?key=secret")
    assert "secret" not in repr(request)


# --- base URLs from the environment ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "variable", "value", "url"),
    [
        # OpenAI: includes the version, so nothing is added (wire reference 1.1).
        ("openai:m", "OPENAI_BASE_URL", "https://gate.test/v1", "https://gate.test/v1/embeddings"),
        ("openai:m", "OPENAI_BASE_URL", "https://gate.test/", "https://gate.test/embeddings"),
        ("openai:m", "OPENAI_BASE_URL", " https://gate.test/a/ ", "https://gate.test/a/embeddings"),
        ("openai:m", "OPENAI_BASE_URL", " ", "https://api.openai.com/v1/embeddings"),
        # Azure: the resource's root (1A.3).
        ("azure:d", "AZURE_OPENAI_ENDPOINT", "https://r.openai.azure.com", "https://r.openai.azure.com/openai/v1/embeddings"),
        ("azure:d", "AZURE_OPENAI_ENDPOINT", "https://r.openai.azure.com/", "https://r.openai.azure.com/openai/v1/embeddings"),
        # Cohere: the root, a version at its end does not count (2.1).
        ("cohere:m", "CO_API_URL", "https://api.cohere.com", "https://api.cohere.com/v2/embed"),
        ("cohere:m", "CO_API_URL", "https://api.cohere.ai/v1", "https://api.cohere.ai/v2/embed"),
        ("cohere:m", "CO_API_URL", "https://api.cohere.com/v1/", "https://api.cohere.com/v2/embed"),
        ("cohere:m", "CO_API_URL", "https://gate.test/cohere/v2", "https://gate.test/cohere/v2/embed"),
        # Nomic: the root, as its own client has it (6.1).
        (
            "nomic:m",
            "ATLAS_API_PATH",
            "https://staging-api-atlas.nomic.ai",
            "https://staging-api-atlas.nomic.ai/v1/embedding/text",
        ),
        ("nomic:m", "ATLAS_API_PATH", "https://gate.test/v1/", "https://gate.test/v1/embedding/text"),
        # Nobody else reads one of another's.
        ("compatible:m", "OPENAI_BASE_URL", "https://gate.test/v1", "http://host.test/v1/embeddings"),
        ("vllm:m", "OPENAI_BASE_URL", "https://gate.test/v1", "http://localhost:8000/v1/embeddings"),
    ],
)
async def test_base_urls_of_the_environment(monkeypatch, model, variable, value, url):
    """Each provider's variable is read by the rules of its own client."""
    monkeypatch.setenv(variable, value)
    elsewhere = {"base_url": "http://host.test"} if model.startswith("compatible") else {}

    assert (await sent(model, api_key=KEY, **elsewhere)).url == url


async def test_the_argument_beats_the_environment(monkeypatch):
    """An explicit base_url wins over the provider's variable."""
    monkeypatch.setenv("OLLAMA_HOST", "gate.test")

    assert (await sent("ollama:m", base_url="http://host.test")).url == "http://host.test/api/embed"


@pytest.mark.parametrize("value", ["gate.test", "ftp://gate.test", "https://gate.test:99999", "https://gate.test/a b"])
@pytest.mark.parametrize(
    ("model", "variable"),
    [("openai:m", "OPENAI_BASE_URL"), ("azure:m", "AZURE_OPENAI_ENDPOINT"), ("cohere:m", "CO_API_URL"), ("nomic:m", "ATLAS_API_PATH")],
)  # fmt: skip
def test_a_wrong_address_names_its_variable(monkeypatch, model, variable, value):
    """What is wrong in the environment is said of the variable, not of an argument nobody passed."""
    monkeypatch.setenv(variable, value)

    with pytest.raises(ConfigError, match=f"^{variable}='{value}': an http or https URL"):
        embedkit.connect(model, api_key=KEY)


@pytest.mark.parametrize(
    ("value", "base"),
    [
        (None, "http://127.0.0.1:11434"),
        ("", "http://127.0.0.1:11434"),
        ("  ", "http://127.0.0.1:11434"),
        ('""', "http://127.0.0.1:11434"),
        ("1.2.3.4", "http://1.2.3.4:11434"),
        ("example.com", "http://example.com:11434"),
        (":56789", "http://127.0.0.1:56789"),
        ("example.com:56789", "http://example.com:56789"),
        ("http://example.com", "http://example.com:80"),
        ("https://example.com", "https://example.com:443"),
        ("https://example.com:8443", "https://example.com:8443"),
        ("ollama.com", "https://ollama.com:443"),
        ("https://ollama.com", "https://ollama.com:443"),
        ("example.com/path/", "http://example.com:11434/path"),
        ("https://example.com/ollama", "https://example.com:443/ollama"),
        ("[::1]", "http://[::1]:11434"),
        ("[::1]:1234", "http://[::1]:1234"),
        ("::1", "http://[::1]:11434"),
        ("::1/path", "http://[::1]:11434/path"),
        (":66000", "http://127.0.0.1:11434"),
        (":-1", "http://127.0.0.1:11434"),
        ("example.com:66000", "http://example.com:11434"),
        ("http://example.com:66000", "http://example.com:80"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:1234", "http://127.0.0.1:1234"),
        ("http://0.0.0.0:1234", "http://127.0.0.1:1234"),
        ("[::]", "http://[::1]:11434"),
        ("[::]:1234", "http://[::1]:1234"),
        ('"example.com:1"', "http://example.com:1"),
        (" 'example.com' ", "http://example.com:11434"),
        ("http://me:word@example.com:1", "http://example.com:1"),
        ("me@example.com", "http://example.com:11434"),
    ],
)
async def test_ollama_host(monkeypatch, value, base):
    """OLLAMA_HOST means what Ollama takes it to mean, bind-all addresses, quotes and bad ports included (wire reference 4.4)."""
    if value is not None:
        monkeypatch.setenv("OLLAMA_HOST", value)

    assert (await sent("ollama:m")).url == f"{base}/api/embed"


@pytest.mark.parametrize(
    "value", ["a b", "[::1", "http://[::1", "ftp://example.com", "\\\\example", "example.com/#x", "exämple.com"]
)
def test_a_senseless_ollama_host_is_refused(monkeypatch, value):
    """What Ollama's rules make no URL of is refused, by the variable's name."""
    monkeypatch.setenv("OLLAMA_HOST", value)

    with pytest.raises(ConfigError, match=r"^OLLAMA_HOST="):
        embedkit.connect("ollama:m")


# --- keys ------------------------------------------------------------------------------------------------------------

KEYS = [
    ("openai:m", "OPENAI_API_KEY"), ("cohere:m", "CO_API_KEY"), ("cohere:m", "COHERE_API_KEY"), ("nomic:m", "NOMIC_API_KEY"),
    ("huggingface:m", "HF_TOKEN"), ("huggingface:m", "HUGGING_FACE_HUB_TOKEN"), ("ollama:m", "OLLAMA_API_KEY"),
]  # fmt: skip
LOCAL = ("compatible", "localai", "vllm", "llamacpp", "lmstudio", "infinity", "tei", "ollama")


@pytest.mark.parametrize(("model", "variable"), KEYS)
async def test_a_key_of_the_environment_is_used(monkeypatch, model, variable):
    """The provider's own variable is read, white space around the key is not sent."""
    monkeypatch.setenv(variable, f" {KEY}\n")

    assert authorized(await sent(model)) == f"Bearer {KEY}"


@pytest.mark.parametrize(("model", "variable"), KEYS)
async def test_an_explicit_key_beats_the_environment(monkeypatch, model, variable):
    """`api_key=` wins, and the variable's key is not sent."""
    monkeypatch.setenv(variable, "from-the-environment")

    assert authorized(await sent(model, api_key=KEY)) == f"Bearer {KEY}"
    assert authorized(await sent(model, api_key=lambda: KEY)) == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("model", "first", "second"),
    [("cohere:m", "CO_API_KEY", "COHERE_API_KEY"), ("huggingface:m", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")],
)
async def test_the_first_variable_wins(monkeypatch, model, first, second):
    """Of two variables the documented one is taken; the other where that is empty."""
    monkeypatch.setenv(first, KEY)
    monkeypatch.setenv(second, "the-other")

    assert authorized(await sent(model)) == f"Bearer {KEY}"

    monkeypatch.setenv(first, "  ")
    assert authorized(await sent(model)) == "Bearer the-other"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("openai:m", "openai needs a key: set OPENAI_API_KEY, or pass api_key="),
        ("cohere:m", "cohere needs a key: set CO_API_KEY or COHERE_API_KEY, or pass api_key="),
        ("nomic:m", "nomic needs a key: set NOMIC_API_KEY, or pass api_key="),
        ("huggingface:m", "huggingface needs a key: set HF_TOKEN or HUGGING_FACE_HUB_TOKEN, or pass api_key="),
    ],
)
def test_a_missing_key_is_one_clear_line(model, message):
    """Without a key connect() itself refuses, naming the variables."""
    with pytest.raises(ConfigError) as caught:
        embedkit.connect(model)

    assert str(caught.value) == message


def test_a_key_no_header_can_carry_names_its_variable(monkeypatch):
    """A broken key in the environment is refused at connect(), by the variable's name, without showing it."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1\nsk-2")

    with pytest.raises(ConfigError, match=r"^the key in OPENAI_API_KEY holds white space") as caught:
        embedkit.connect("openai:m")
    assert "sk-1" not in str(caught.value)


@pytest.mark.parametrize("provider", LOCAL)
async def test_local_servers_are_sent_no_authorization(monkeypatch, provider):
    """No key, no header: nothing like an empty Bearer, whatever keys of others lie about."""
    for variable in ("OPENAI_API_KEY", "HF_TOKEN", "LOCALAI_API_KEY", "VLLM_API_KEY", "API_KEY"):
        monkeypatch.setenv(variable, KEY)
    request = await sent(**{"base_url": "http://localhost:1234", **SEED[provider]})

    assert authorized(request) is None
    assert KEY not in str(request.headers)


@pytest.mark.parametrize("provider", LOCAL)
async def test_a_key_for_a_local_server_is_sent(provider):
    """Given one, a local server gets it as Bearer."""
    assert authorized(await sent(**{**SEED[provider], "api_key": KEY})) == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("model", "variable", "base_url"),
    [
        ("openai:m", "OPENAI_API_KEY", "https://eu.api.openai.com/v1"),
        ("openai:m", "OPENAI_API_KEY", "https://API.openai.com/v1"),
        ("openai:m", "OPENAI_API_KEY", "http://localhost:8080"),
        ("openai:m", "OPENAI_API_KEY", "http://127.0.0.1:8080/v1"),
        ("openai:m", "OPENAI_API_KEY", "http://127.1.2.3"),
        ("openai:m", "OPENAI_API_KEY", "http://[::1]:8080"),
        ("cohere:m", "CO_API_KEY", "https://api.cohere.ai/v1"),
        ("nomic:m", "NOMIC_API_KEY", "https://staging-api-atlas.nomic.ai"),
        ("huggingface:m", "HF_TOKEN", "https://router.huggingface.co/hf-inference"),
        ("hfendpoint:m", "HF_TOKEN", "https://x.us-east-1.aws.endpoints.huggingface.cloud"),
        ("ollama:m", "OLLAMA_API_KEY", "https://ollama.com"),
    ],
)
async def test_a_key_of_the_environment_goes_home(monkeypatch, model, variable, base_url):
    """To the provider's own hosts and to loopback the variable's key may go."""
    monkeypatch.setenv(variable, KEY)

    assert authorized(await sent(model, base_url=base_url)) == f"Bearer {KEY}"


@pytest.mark.parametrize("base_url", EVIL)
async def test_a_key_of_the_environment_goes_nowhere_else(monkeypatch, base_url):
    """Hosts that only look like the provider's get no key; a 401 from there says so, and what to do."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    exchange = FakeExchange([response({"error": {"message": "who are you?"}}, 401)])
    embedder = embedkit.connect("openai:m", base_url=base_url, exchange=exchange)
    with pytest.raises(
        AuthError, match=r"who are you\?; the key in OPENAI_API_KEY was not sent, because .* pass api_key="
    ) as caught:
        await embedder.embed("a")

    assert KEY not in str(exchange.requests[0].headers)
    assert "org-mine" not in str(exchange.requests[0].headers)
    assert KEY not in str(caught.value)


async def test_an_explicit_key_goes_where_it_is_sent():
    """What the caller passes with an address goes to that address."""
    assert authorized(await sent("openai:m", base_url=EVIL[0], api_key=KEY)) == f"Bearer {KEY}"


async def test_a_401_without_a_held_back_key_says_nothing_of_one():
    """Where no key was held back, the provider's message stands alone."""
    embedder = embedkit.connect("openai:m", base_url=EVIL[0], exchange=FakeExchange([response({"error": "no"}, 401)]))
    with pytest.raises(AuthError) as caught:
        await embedder.embed("a")

    assert caught.value.message == "no"


@pytest.mark.parametrize(
    ("model", "variable", "key"),
    [("openai:m", "OPENAI_BASE_URL", "OPENAI_API_KEY"), ("cohere:m", "CO_API_URL", "CO_API_KEY"),
     ("nomic:m", "ATLAS_API_PATH", "NOMIC_API_KEY"), ("ollama:m", "OLLAMA_HOST", "OLLAMA_API_KEY")],
)  # fmt: skip
async def test_a_key_follows_the_providers_own_variable(monkeypatch, model, variable, key):
    """Whoever sets OPENAI_BASE_URL and OPENAI_API_KEY means them for each other; the same URL as an argument gets no key."""
    monkeypatch.setenv(key, KEY)
    assert authorized(await sent(model, base_url="https://gate.test/v1")) is None

    monkeypatch.setenv(variable, "https://gate.test/v1")
    assert authorized(await sent(model)) == f"Bearer {KEY}"


async def test_a_callable_key_is_asked_on_every_attempt():
    """Sync or async, it is asked afresh for each try, so that a key may rotate."""
    keys = iter(["k-first", "k-second", "k-third"])

    async def rotating():
        return next(keys)

    exchange = FakeExchange([response("", 503), shaped("openai", [vector("a")]), shaped("openai", [vector("b")])])
    embedder = embedkit.connect("openai:m", api_key=rotating, exchange=exchange, retry=NOW)
    await embedder.embed("a")
    await embedder.embed("b")

    assert [authorized(request) for request in exchange.requests] == ["Bearer k-first", "Bearer k-second", "Bearer k-third"]


@pytest.mark.parametrize("given", [None, "", " ", 7, b"key", "a\nb", "ké"])
async def test_a_callable_that_gives_no_key_is_refused(given):
    """What comes out of the callable is checked before it is sent."""
    exchange = FakeExchange([])
    embedder = embedkit.connect("openai:m", api_key=lambda: given, exchange=exchange)
    with pytest.raises(ConfigError, match="the callable given as api_key returned"):
        await embedder.embed("a")

    assert exchange.requests == []


async def test_organization_and_project_are_headers(monkeypatch):
    """OpenAI's two billing headers come from keywords or from the environment, and stay away otherwise."""
    monkeypatch.setenv("OPENAI_ORG_ID", "org-environment")
    headers = (await sent("openai:m", api_key=KEY, project="proj_1")).headers

    assert (headers["openai-organization"], headers["openai-project"]) == ("org-environment", "proj_1")

    monkeypatch.delenv("OPENAI_ORG_ID")
    assert not {"openai-organization", "openai-project"} & set((await sent("openai:m", api_key=KEY)).headers)


def test_keys_do_not_show():
    """No repr of an embedder holds a key, wherever it came from."""
    embedder = embedkit.connect("openai:m", api_key=KEY, base_url="https://host.test/v1?key=secret", organization="org-secret")

    assert repr(embedder) == "<HttpEmbedder openai:m at https://host.test/v1>"
    assert "secret" not in repr(embedkit.SyncEmbedder(embedder))


# --- Azure -----------------------------------------------------------------------------------------------------------

CLASSIC = "https://r.openai.azure.com/openai/deployments/my%20ada%2F2/embeddings"


@pytest.mark.parametrize(
    ("base_url", "version", "url"),
    [
        ("https://r.openai.azure.com", None, "https://r.openai.azure.com/openai/v1/embeddings"),
        ("https://r.services.ai.azure.com", None, "https://r.services.ai.azure.com/openai/v1/embeddings"),
        ("https://r.openai.azure.com/openai/v1/", None, "https://r.openai.azure.com/openai/v1/embeddings"),
        ("https://r.openai.azure.com", "latest", "https://r.openai.azure.com/openai/v1/embeddings"),
        ("https://r.openai.azure.com", "preview", "https://r.openai.azure.com/openai/v1/embeddings?api-version=preview"),
        ("https://r.openai.azure.com/openai/v1?api-version=preview", "preview",
         "https://r.openai.azure.com/openai/v1/embeddings?api-version=preview"),
        ("https://r.openai.azure.com", "2024-10-21", f"{CLASSIC}?api-version=2024-10-21"),
        ("https://r.openai.azure.com/", "2024-10-21", f"{CLASSIC}?api-version=2024-10-21"),
        ("https://r.openai.azure.com/openai", "2024-10-21", f"{CLASSIC}?api-version=2024-10-21"),
        ("https://r.openai.azure.com/openai/v1", "2024-10-21", f"{CLASSIC}?api-version=2024-10-21"),
        (CLASSIC.removesuffix("/embeddings"), "2024-10-21", f"{CLASSIC}?api-version=2024-10-21"),
        (CLASSIC.removesuffix("/embeddings") + "?api-version=2023-05-15", None, f"{CLASSIC}?api-version=2023-05-15"),
        ("https://r.openai.azure.com", "2024&key=1#", f"{CLASSIC}?api-version=2024%26key%3D1%23"),
        # A resource may be called anything, "openai…" included.
        ("https://openai-eu.openai.azure.com", "2024-10-21",
         f"{CLASSIC}?api-version=2024-10-21".replace("//r.", "//openai-eu.")),
        ("https://openai-eu.openai.azure.com", None, "https://openai-eu.openai.azure.com/openai/v1/embeddings"),
        # A gateway in front of it.
        ("https://gate.test/llm", None, "https://gate.test/llm/embeddings"),
        ("https://gate.test/llm", "2024-10-21", f"{CLASSIC}?api-version=2024-10-21".replace("r.openai.azure.com", "gate.test/llm")),
    ],
)  # fmt: skip
async def test_the_two_url_families_of_azure(base_url, version, url):
    """A dated api_version puts the deployment into the path, else it is the v1 API (wire reference 1A.1)."""
    request = await sent("azure:my ada/2", base_url=base_url, api_version=version, api_key=KEY)

    assert request.url == url
    assert request.headers["api-key"] == KEY
    assert "authorization" not in request.headers
    assert json.loads(request.body)["model"] == "my ada/2"


async def test_azure_is_set_up_by_its_environment_alone(monkeypatch):
    """The four variables of the official client are enough (wire reference 1A.3)."""
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://r.openai.azure.com")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    request = await sent("azure:ada")

    assert request.url == "https://r.openai.azure.com/openai/deployments/ada/embeddings?api-version=2024-10-21"
    assert request.headers["api-key"] == KEY


@pytest.mark.parametrize(
    ("key", "token", "explicit", "expected"),
    [
        ("k-env", None, {}, {"api-key": "k-env"}),
        (None, "t-env", {}, {"authorization": "Bearer t-env"}),
        ("k-env", "t-env", {}, {"authorization": "Bearer t-env"}),  # the token wins where both come from there
        ("k-env", "t-env", {"api_key": "k-own"}, {"api-key": "k-own"}),
        ("k-env", "t-env", {"ad_token": "t-own"}, {"authorization": "Bearer t-own"}),
        ("k-env", None, {"ad_token": lambda: "t-own"}, {"authorization": "Bearer t-own"}),
    ],
)
async def test_azure_goes_by_key_or_token(monkeypatch, key, token, explicit, expected):
    """A key is `api-key`, an Entra token Bearer; one of them goes out, and what was passed beats the environment."""
    for variable, value in (("AZURE_OPENAI_API_KEY", key), ("AZURE_OPENAI_AD_TOKEN", token)):
        if value:
            monkeypatch.setenv(variable, value)
    headers = (await sent("azure:ada", base_url="https://r.openai.azure.com", **explicit)).headers

    assert {name: value for name, value in headers.items() if name in ("api-key", "authorization")} == expected


def test_azure_takes_key_or_token_not_both():
    """Passing both is refused at once."""
    with pytest.raises(ConfigError, match="azure takes api_key or ad_token, not both"):
        embedkit.connect("azure:ada", base_url="https://r.openai.azure.com", api_key=KEY, ad_token="t")


async def test_a_token_of_the_environment_stays_at_home(monkeypatch):
    """AZURE_OPENAI_AD_TOKEN is held back from a foreign host like a key, and the 401 says so."""
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "t-secret")
    exchange = FakeExchange([response("", 401)])
    embedder = embedkit.connect("azure:ada", base_url="https://r.openai.azure.com.evil.test", exchange=exchange)
    with pytest.raises(AuthError, match="the key in AZURE_OPENAI_AD_TOKEN was not sent"):
        await embedder.embed("a")

    assert "t-secret" not in str(exchange.requests[0].headers)


# --- Hugging Face's token file ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({"HF_TOKEN_PATH": "{}/mine"}, "mine"),
        ({"HF_HOME": "{}/hub"}, "hub/token"),
        ({"XDG_CACHE_HOME": "{}/cache"}, "cache/huggingface/token"),
        ({"HOME": "{}"}, ".cache/huggingface/token"),
    ],
)
async def test_the_token_file_of_hugging_face(monkeypatch, tmp_path, variables, place):
    """Where no variable holds a token, the file of `hf auth login` does, wherever the variables put it."""
    for name in ("HF_TOKEN_PATH", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(tmp_path))
    file = tmp_path / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{KEY}\n")

    assert authorized(await sent("huggingface:m")) == f"Bearer {KEY}"

    monkeypatch.setenv("HF_TOKEN", "from-a-variable")
    assert authorized(await sent("huggingface:m")) == "Bearer from-a-variable"


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe"])
def test_a_token_file_that_holds_none_is_no_key(monkeypatch, tmp_path, content):
    """A missing, empty or unreadable file is as good as none: the usual line about the missing key."""
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    if content is not None:
        (tmp_path / "token").write_bytes(content)

    with pytest.raises(ConfigError, match="huggingface needs a key: set HF_TOKEN"):
        embedkit.connect("huggingface:m")


async def test_the_token_file_stays_at_home(monkeypatch, tmp_path):
    """The file's token is held back from other hosts as a variable's is; so is it from a self-hosted TEI."""
    (tmp_path / "token").write_text(KEY)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    exchange = FakeExchange([response("", 401)])
    embedder = embedkit.connect("hfendpoint:m", base_url="https://endpoints.huggingface.cloud.evil.test", exchange=exchange)
    with pytest.raises(AuthError, match=r"the key in .*token was not sent, because"):
        await embedder.embed("a")

    assert authorized(exchange.requests[0]) is None
    assert authorized(await sent("tei:m")) is None


# --- the checklist ---------------------------------------------------------------------------------------------------
#
# What LinGoose's embedding page and code offer (A, B), what it lacks (C) and where embedkit differs on purpose (D), row by row.
# A row that says no file is proven below; LIVE rows (A13) need a real key and are nobody's claim here.
#
# A1  one call for every provider ........ test_the_same_call_on_every_provider
# A2  OpenAI's example ................... test_the_example_of_openai
# A3  Cohere, A4 Hugging Face, A7 Nomic, A8 Voyage: test_the_same_call_on_every_provider, test_requests_of_the_hosted_providers
# A5  Ollama's example ................... test_the_example_of_ollama
# A6  LocalAI, both addresses ............ test_localai_by_either_address
# A9  keys from the environment .......... test_a_key_of_the_environment_is_used, test_an_explicit_key_beats_the_environment
# A10 a custom embedder .................. test_a_custom_embedder_is_as_good; test_embedder.py
# A11 the caller's own client ............ test_the_callers_own_session_serves_every_provider
# A12 failures raised, cancellation ...... test_every_failure_of_every_provider_raises, test_cancellation_reaches_every_provider
# B-1 options, B-2 widths, B-3 float32 ... test_every_option_means_the_same_everywhere; test_catalog.py; test_the_numbers_are_float32
# B-4 observers .......................... test_an_observer_sees_start_and_end; test_embedder.py
# B-5 a bulk path in batches of 32 ....... test_a_stream_in_batches_of_32; test_stream.py
# B-6 llama.cpp .......................... the provider `llamacpp`, in test_the_same_call_on_every_provider
# B-7 Ollama's older route ............... test_ollama_legacy_route
# B-8 the `user` field ................... test_a_user_is_sent_only_when_there_is_one
# C1  typed errors ....................... test_client.py; test_errors.py
# C2  errors inside a 200 ................ test_an_error_inside_a_success_raises
# C3, C4, C5, C7 order, count, values .... test_rows_go_by_index, test_a_broken_reply_raises
# C6  what is retried .................... test_what_is_tried_again; test_retry.py
# C7  timeouts ........................... test_there_is_always_a_timeout
# C8, C9, C10, C11 batches, concurrency, siblings, nothing to do: test_plan.py, test_embedder.py; test_limits_split_a_call
# C12 input types ........................ test_input_types_reach_each_provider
# C13 dimensions, dtype, truncate ........ test_options_reach_each_provider
# C14 usage, odd headers ................. test_odd_headers_do_no_harm; test_embedder.py
# C15 Ollama's list route ................ test_the_example_of_ollama
# C16 the same names everywhere .......... test_every_option_means_the_same_everywhere
# C17 configuration that stays ........... test_the_configuration_is_the_callers_no_longer, test_calls_at_once_do_not_mix
# C18 a missing key ...................... test_a_missing_key_is_one_clear_line, test_local_servers_are_sent_no_authorization
# C19 redirects .......................... test_a_redirect_is_not_followed
# C20, C21 response cap, rate limiter .... test_http.py; test_limiter.py
# C22 unit length ........................ test_client.py
# C23 an observer that breaks nothing .... test_embedder.py; test_an_observer_sees_start_and_end
# C24 the sync wrapper ................... test_sync.py; test_the_examples_without_await
# C25 cache, C26 Azure, C27 codecs ....... the modules' own files; the section on Azure above; the golden exchanges
# D1 Cohere, D2 Hugging Face, D3 Ollama, D4 Nomic, D5 numbers: test_either_shape_of_cohere, test_shapes_of_hugging_face,
#    test_ollama_legacy_route, test_a_model_is_never_chosen_for_the_caller, test_the_numbers_are_float32

QUESTION = "What is the NATO purpose?"


def connected(provider, exchange=None, **keywords):
    """A seed provider's embedder over an exchange that knows its shape."""
    return embedkit.connect(**{**SEED[provider], **keywords}, exchange=exchange or FakeExchange(echo(provider)))


@pytest.mark.parametrize("provider", THERE)
async def test_the_same_call_on_every_provider(provider):
    """`await embedder.embed(list)` gives one float32 row per text, in order, whoever is asked."""
    texts = [QUESTION, "b", "a", QUESTION, "naïve 模型 \x00"]
    async with connected(provider, max_concurrency=1) as embedder:
        result = await embedder.embed(texts)

    assert result.vectors.dtype == np.float32
    assert np.allclose([vector(text) for text in texts], result.vectors, rtol=1e-6)
    assert (len(result), result.dimensions, result.failures) == (5, 8, {})


async def test_the_example_of_openai(monkeypatch):
    """The page's first example: the key from OPENAI_API_KEY, a list and a model in the body, a vector back."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    exchange = FakeExchange(echo("openai", lambda _: [0.1] * 1536))
    async with embedkit.connect("openai:text-embedding-ada-002", exchange=exchange) as embedder:
        result = await embedder.embed([QUESTION])

    request = exchange.requests[0]
    assert (request.method, request.url) == ("POST", "https://api.openai.com/v1/embeddings")
    assert authorized(request) == f"Bearer {KEY}"
    assert exchange.bodies == [{"input": [QUESTION], "model": "text-embedding-ada-002", "encoding_format": "base64"}]
    assert result.vectors.shape == (1, 1536)


@pytest.mark.parametrize(
    "base_url", [None, "http://localhost:11434/api", "http://localhost:11434/api/", "http://localhost:11434"]
)
@pytest.mark.parametrize("model", ["mistral", "llama2", "nomic-embed-text:v1.5"])
async def test_the_example_of_ollama(base_url, model):
    """The page's second example: with /api as it writes it, without, or by default; one list, no key, nothing cut in silence."""
    exchange = FakeExchange(echo("ollama"))
    async with embedkit.connect(f"ollama:{model}", base_url=base_url, exchange=exchange) as embedder:
        await embedder.embed([QUESTION, "b"])

    host = "localhost" if base_url else "127.0.0.1"
    assert exchange.requests[0].url == f"http://{host}:11434/api/embed"
    assert exchange.bodies == [{"model": model, "input": [QUESTION, "b"], "truncate": False}]
    assert authorized(exchange.requests[0]) is None


def test_the_examples_without_await():
    """Both examples again, in a script without an event loop."""
    with embedkit.connect_sync(OPENAI, api_key=KEY, exchange=FakeExchange(echo("openai"))) as embedder:
        assert embedder.embed([QUESTION]).vectors.shape == (1, 8)
    with embedkit.connect_sync(
        "ollama:mistral", base_url="http://localhost:11434/api", exchange=FakeExchange(echo("ollama"))
    ) as embedder:
        assert embedder.embed([QUESTION]).vectors.shape == (1, 8)


@pytest.mark.parametrize("model", ["localai:bert", "openai:bert", "compatible:bert"])
@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("http://host.test:8080", "http://host.test:8080/v1/embeddings"),
        ("http://host.test:8080/v1", "http://host.test:8080/v1/embeddings"),
        ("http://host.test:8080/v1/", "http://host.test:8080/v1/embeddings"),
    ],
)
async def test_localai_by_either_address(model, base_url, url):
    """LocalAI answers with and without /v1 in the address, needs no key, and gets one as Bearer, OpenAI's embedder included."""
    assert (await sent(model, base_url=base_url)).url == url
    assert authorized(await sent(model, base_url=base_url)) is None
    assert authorized(await sent(model, base_url=base_url, api_key=KEY)) == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("provider", "url", "body"),
    [
        ("cohere", "https://api.cohere.com/v2/embed",
         {"model": "embed-v4.0", "texts": [QUESTION], "input_type": "search_document", "embedding_types": ["float"], "truncate": "NONE"}),
        ("huggingface",
         "https://router.huggingface.co/hf-inference/models/sentence-transformers/all-MiniLM-L6-v2/pipeline/feature-extraction",
         {"inputs": [QUESTION]}),
        ("nomic", "https://api-atlas.nomic.ai/v1/embedding/text",
         {"model": "nomic-embed-text-v1.5", "texts": [QUESTION], "task_type": "search_document", "long_text_mode": "truncate"}),
    ],
)  # fmt: skip
async def test_requests_of_the_hosted_providers(provider, url, body):
    """Where and what the other hosted providers of the page are sent: today's routes, a list always, no field without a value."""
    exchange = FakeExchange(echo(provider))
    await connected(provider, exchange).embed([QUESTION])

    assert exchange.requests[0].url == url
    assert exchange.bodies == [body]
    assert authorized(exchange.requests[0]) == f"Bearer {KEY}"


async def test_a_custom_embedder_is_as_good():
    """A class of one's own takes the same calls, streams, and runs without await."""

    class Mine(embedkit.Embedder):
        limits = Limits(max_texts=2)

        async def embed_batch(self, texts, options):
            return embedkit.Embeddings(np.array([vector(text) for text in texts]), model="mine")

    result = await Mine().embed([QUESTION, "b", "c"])
    parts = [part.vectors async for part in Mine().stream([QUESTION, "b", "c"])]

    assert np.array_equal(result.vectors, np.concatenate(parts))
    assert np.array_equal(result.vectors[0], await Mine().embed_query(QUESTION))
    assert isinstance(embedkit.connect("ollama:m"), embedkit.Embedder)


async def test_the_callers_own_session_serves_every_provider():
    """Each provider sends over the caller's aiohttp session, headers of its own included, and leaves it open."""
    import aiohttp
    from aiohttp import web

    seen = []

    async def answer(request):
        seen.append((request.path, request.headers["x-mine"]))
        if request.method == "GET":
            return web.json_response({})
        body = json.loads(await request.read())
        rows = [vector(text) for text in next(body[name] for name in ("input", "inputs", "texts") if name in body)]
        return web.Response(body=shaped(request.path.split("/")[1], rows).body, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    async with aiohttp.ClientSession(headers={"x-mine": "yes"}) as session:
        for provider in THERE:
            embedder = embedkit.connect(
                **{**SEED[provider], "base_url": f"http://127.0.0.1:{port}/{provider}"}, session=session
            )
            assert np.allclose(vector("a"), await embedder.embed_query("a", input_type=None))
            await embedder.aclose()
            assert not session.closed
    await runner.cleanup()

    assert {path.split("/")[1] for path, _ in seen} == set(THERE)
    assert {mine for _, mine in seen} == {"yes"}


@pytest.mark.parametrize("provider", THERE)
async def test_every_failure_of_every_provider_raises(provider):
    """No status from 300 up is ever a result, empty or not: each is an ApiError that carries it."""
    for status in (
        302,
        400,
        401,
        402,
        403,
        404,
        405,
        408,
        409,
        410,
        413,
        422,
        424,
        425,
        429,
        431,
        500,
        501,
        502,
        503,
        504,
        529,
    ):
        embedder = connected(
            provider, FakeExchange(lambda _, status=status: response("", status)), retry=RetryPolicy(attempts=1)
        )
        with pytest.raises(ApiError) as caught:
            await embedder.embed(["a", "b"])

        assert (caught.value.status, caught.value.provider) == (status, provider)


@pytest.mark.parametrize("provider", THERE)
async def test_cancellation_reaches_every_provider(provider):
    """A cancelled call stops waiting for its answer at once, and the embedder is as good as new."""
    hanging = True

    async def handler(request):
        if hanging:
            await anyio.sleep_forever()
        return echo(provider)(request)

    embedder = connected(provider, FakeExchange(handler))
    async with anyio.create_task_group() as group:
        group.start_soon(embedder.embed, ["a"])
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    hanging = False

    assert np.allclose(vector("b"), await embedder.embed_query("b", input_type=None))


TRACE = ContextVar("TRACE", default=None)


async def test_an_observer_sees_start_and_end():
    """It hears of each request and its outcome with provider and model, in the caller's context, and of a failure as such."""
    seen = []
    exchange = FakeExchange([shaped("ollama", [vector("a")]), response("", 404)])
    embedder = embedkit.connect("ollama:m", observe=lambda event: seen.append((event, TRACE.get())), exchange=exchange)
    TRACE.set("trace-1")
    await embedder.embed("a")
    with pytest.raises(ApiError):
        await embedder.embed("b")

    assert [type(event) for event, _ in seen] == [RequestSent, AttemptEnded, BatchDone, RequestSent, AttemptEnded, BatchFailed]
    assert {(event.provider, event.model, trace) for event, trace in seen} == {("ollama", "m", "trace-1")}


async def test_a_stream_in_batches_of_32():
    """Any number of texts goes out 32 at a time, in order, when that is the limit."""
    exchange = FakeExchange(echo("ollama"))
    embedder = embedkit.connect("ollama:m", limits=Limits(max_texts=32), exchange=exchange)
    texts = [f"text {number}" for number in range(100)]
    parts = [part async for part in embedder.stream(texts)]

    assert sorted(len(texts_of(request)) for request in exchange.requests) == [4, 32, 32, 32]
    assert [part.start for part in parts] == [0, 32, 64, 96]
    assert np.allclose([vector(text) for text in texts], np.concatenate(parts))


async def test_ollama_legacy_route():
    """`legacy=True` speaks the older route: one prompt per request, the caller's options, values as they come."""
    exchange = FakeExchange(lambda request: response({"embedding": [3.0, 4.0 * len(json.loads(request.body)["prompt"])]}))
    embedder = embedkit.connect("ollama:m", legacy=True, model_options={"temperature": 0}, max_concurrency=1, exchange=exchange)
    result = await embedder.embed(["a", "bb"])

    assert {request.url for request in exchange.requests} == {"http://127.0.0.1:11434/api/embeddings"}
    assert exchange.bodies == [{"model": "m", "prompt": text, "options": {"temperature": 0}} for text in ("a", "bb")]
    assert result.vectors.tolist() == [[3, 4], [3, 8]]


async def test_a_user_is_sent_only_when_there_is_one():
    """No empty `user` field: it goes out with `extra`, and not without."""
    assert "user" not in json.loads((await sent(OPENAI, api_key=KEY)).body)
    assert json.loads((await sent(OPENAI, api_key=KEY, extra={"user": "me"})).body)["user"] == "me"


@pytest.mark.parametrize("provider", THERE)
@pytest.mark.parametrize(
    "body", [{"error": {"message": "boom"}}, {"error": "boom"}, {"detail": "boom"}, {"message": "boom"}, {}, [], None]
)
async def test_an_error_inside_a_success_raises(provider, body):
    """A 200 without vectors is an error, with the provider's words where there are any; never an empty result."""
    embedder = connected(provider, FakeExchange(lambda _: response(body)), retry=RetryPolicy(attempts=1))
    with pytest.raises(DecodeError):
        await embedder.embed(["a"])


@pytest.mark.parametrize("provider", ["openai", "azure", "localai", "vllm"])
async def test_rows_go_by_index(provider):
    """A reply in another order is put right; doubled, missing and impossible indices are refused."""
    rows = [vector("a"), vector("b"), vector("c")]

    def answered(*indices):
        return {"data": [{"index": index, "embedding": rows[index % 3].tolist()} for index in indices]}

    result = await connected(provider, FakeExchange([answered(2, 0, 1)])).embed(["a", "b", "c"])
    assert np.allclose(rows, result.vectors)

    for wrong in ((0, 1, 1), (1, 2, 4), (0, 1, -1), (0, 1), (0, 1, 2, 3)):
        with pytest.raises(DecodeError):
            await connected(provider, FakeExchange([answered(*wrong)] * (2 if wrong == (0, 1) else 1))).embed(["a", "b", "c"])


BROKEN = {
    "none": [], "one more": [[1.0, 2.0]] * 3, "ragged": [[1.0, 2.0], [1.0]], "null inside": [[1.0, 2.0], [1.0, None]],
    "a null": [[1.0, 2.0], None], "empty": [[], []], "one empty": [[1.0], []], "text": [[1.0, 2.0], [1.0, "2"]], "huge": [[1.0], [1e39]],
}  # fmt: skip


@pytest.mark.parametrize("provider", THERE)
@pytest.mark.parametrize("rows", BROKEN.values(), ids=BROKEN)
async def test_a_broken_reply_raises(provider, rows):
    """Too few, too many, unequal, empty or senseless vectors are a DecodeError for every provider; no zero is made up."""
    with pytest.raises(DecodeError):
        await connected(
            provider, FakeExchange(lambda request: response({}) if request.method == "GET" else shaped(provider, rows))
        ).embed(["a", "b"])


@pytest.mark.parametrize("provider", THERE)
async def test_what_is_tried_again(provider):
    """What may pass later is sent again, what cannot is not; over every provider."""
    for status in (408, 409, 425, 429, 500, 502, 503, 504, 520, 529):
        answers = iter([response("", status)])
        exchange = FakeExchange(lambda request, answers=answers: next(answers, None) or echo(provider)(request))
        embedder = connected(provider, exchange, retry=NOW, api_key=f"{KEY}-{status}")
        embedder._probed = True
        result = await embedder.embed("a")

        assert result.usage.requests == 2
    for status in (401, 402, 403, 404, 405, 410, 501):
        exchange = FakeExchange(lambda _, status=status: response("", status))
        embedder = connected(provider, exchange, retry=NOW, api_key=f"{KEY}-{status}")
        embedder._probed = True
        with pytest.raises(ApiError):
            await embedder.embed("a")

        assert len(exchange.requests) == 1


@pytest.mark.parametrize("provider", THERE)
def test_there_is_always_a_timeout(provider):
    """Nobody has to ask for one: each attempt ends after minutes at most, connecting after seconds."""
    http = connected(provider)._http

    assert 0 < http.connect <= 10
    assert 0 < http.timeout <= 600


async def test_limits_split_a_call():
    """A provider's own limit on texts per request is kept without a word from the caller: Cohere takes 96."""
    exchange = FakeExchange(echo("cohere"))
    texts = [f"text {number}" for number in range(250)]
    result = await connected("cohere", exchange).embed(texts)

    assert sorted(len(texts_of(request)) for request in exchange.requests) == [58, 96, 96]
    assert np.allclose([vector(text) for text in texts], result.vectors)
    assert result.usage.requests == 3


@pytest.mark.parametrize(
    ("model", "query", "document"),
    [
        ("cohere:embed-v4.0", {"input_type": "search_query"}, {"input_type": "search_document"}),
        ("nomic:nomic-embed-text-v1.5", {"task_type": "search_query"}, {"task_type": "search_document"}),
        ("ollama:nomic-embed-text", {"input": ["search_query: a"]}, {"input": ["search_document: a"]}),
        ("ollama:bge-m3", {"input": ["a"]}, {"input": ["a"]}),
        ("huggingface:intfloat/e5-small-v2", {"inputs": ["query: a"]}, {"inputs": ["passage: a"]}),
        ("tei:intfloat/e5-small-v2", {"inputs": ["query: a"]}, {"inputs": ["passage: a"]}),
        ("vllm:intfloat/e5-small-v2", {"input": ["query: a"]}, {"input": ["passage: a"]}),
        ("openai:text-embedding-3-small", {"input": ["a"]}, {"input": ["a"]}),
    ],
)
async def test_input_types_reach_each_provider(model, query, document):
    """A query and a document are told apart by each provider's own means; left out, nothing or `document` is said."""
    for input_type, fields in (("query", query), ("document", document)):
        body = json.loads((await sent(model, api_key=KEY, input_type=input_type)).body)
        assert {name: body[name] for name in fields} == fields


@pytest.mark.parametrize("model", ["openai:text-embedding-3-small", "ollama:bge-m3", "tei:BAAI/bge-m3", "vllm:m"])
async def test_a_purpose_a_model_does_not_know_is_refused(model):
    """`query` and `document` run everywhere; the other purposes are refused where they would mean nothing."""
    with pytest.raises(ConfigError, match="cannot do input_type='clustering'; it takes 'document', 'query'"):
        await sent(model, api_key=KEY, input_type="clustering")


@pytest.mark.parametrize(
    ("model", "options", "fields"),
    [
        ("openai:text-embedding-3-small", {"dimensions": 8}, {"dimensions": 8, "encoding_format": "base64"}),
        ("azure:ada", {"dimensions": 8, "base_url": "https://r.openai.azure.com"}, {"dimensions": 8}),
        ("ollama:m", {"dimensions": 8, "truncate": "end"}, {"dimensions": 8, "truncate": True}),
        ("ollama:m", {"truncate": "error"}, {"truncate": False}),
        ("cohere:embed-v4.0", {"truncate": "end"}, {"truncate": "END"}),
        ("nomic:nomic-embed-text-v1.5", {"dimensions": 64}, {"dimensionality": 64}),
        (
            "tei:m",
            {"dimensions": 8, "normalize": False, "truncate": "end"},
            {"dimensions": 8, "normalize": False, "truncate": True},
        ),
        ("vllm:m", {"dimensions": 8, "truncate": "end"}, {"dimensions": 8, "truncate_prompt_tokens": -1}),
        ("huggingface:m", {"truncate": "end", "normalize": True}, {"truncate": True, "normalize": True}),
    ],
)
async def test_options_reach_each_provider(model, options, fields):
    """Width, truncation and unit length travel under each provider's own names, and only when asked for."""
    wide = {"nomic": 64}.get(provider_of(model), 8)
    exchange = FakeExchange(echo(provider_of(model), FakeEmbedder(wide).vector))
    await embedkit.connect(model, api_key=KEY, exchange=exchange, **options).embed("a")
    body = exchange.bodies[-1]

    assert {name: body[name] for name in fields} == fields
    assert None not in body.values()


async def test_a_smaller_dtype_reaches_cohere():
    """Where the provider has the dtype, it is asked for and its own bytes are given."""
    exchange = FakeExchange([{"embeddings": {"int8": [[-128, 0, 127]]}}])
    result = await connected("cohere", exchange, dtype="int8").embed("a")

    assert exchange.bodies[0]["embedding_types"] == ["int8"]
    assert result.vectors.dtype == np.int8
    assert result.vectors.tolist() == [[-128, 0, 127]]


@pytest.mark.parametrize("provider", THERE)
async def test_odd_headers_do_no_harm(provider):
    """A good answer stays one whatever its headers say: fractions, words, another content type."""
    odd = {
        "X-RateLimit-Remaining-Requests": "1.5", "X-RateLimit-Limit-Tokens": "many", "X-Endpoint-Monthly-Call-Limit": "-1",
        "Retry-After": "soon", "Content-Type": "text/plain", "X-Compute-Tokens": "n/a", "X-RateLimit-Reset-Requests": "",
    }  # fmt: skip
    answer = shaped(provider, [vector("a")])
    odd_answer = response(answer.body, 200, odd)
    result = await connected(
        provider, FakeExchange(lambda request: response({}) if request.method == "GET" else odd_answer)
    ).embed("a")

    assert np.allclose([vector("a")], result.vectors)
    assert result.usage.tokens is None


@pytest.mark.parametrize("provider", THERE)
async def test_every_option_means_the_same_everywhere(provider):
    """The common keywords have one name each for every provider, `query` and `document` included."""
    exchange = FakeExchange(echo(provider))
    embedder = connected(
        provider, exchange, api_key=KEY, base_url="http://localhost:1/own", headers={"x-a": "1"}, extra={"own": 1}, timeout=5,
        max_concurrency=2, limits=Limits(max_texts=2), rate=Rate(requests_per_minute=6e6), input_type="document", normalize=True,
        count_tokens=len, observe=lambda _: None,
    )  # fmt: skip
    result = await embedder.embed(["a", "b", "c"])
    await embedder.embed_query("d")

    assert np.allclose(np.linalg.norm(result.vectors, axis=1), 1)
    for request in exchange.requests:
        assert request.url.startswith("http://localhost:1/own")
        assert authorized(request).removeprefix("Bearer ") == KEY
        assert request.headers["x-a"] == "1"
    assert [body["own"] for body in exchange.bodies] == [1] * len(exchange.bodies)


async def test_calls_at_once_do_not_mix():
    """One embedder in many tasks, each call with options of its own: every call gets its own answer."""
    exchange = FakeExchange(
        lambda request: echo("ollama", FakeEmbedder(json.loads(request.body).get("dimensions", 8)).vector)(request)
    )
    embedder = embedkit.connect("ollama:m", exchange=exchange)
    found = {}

    async def one(width):
        found[width] = await embedder.embed([f"text of {width}", "shared"], dimensions=width)

    async with anyio.create_task_group() as group:
        for width in range(2, 40):
            group.start_soon(one, width)

    for width, result in found.items():
        made = FakeEmbedder(width).vector
        assert np.allclose([made(f"text of {width}"), made("shared")], result.vectors)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status):
    """A redirect is an error that names the new address and base_url; neither texts nor key go there."""
    exchange = FakeExchange([response("", status, {"Location": "https://evil.test/v1"})])
    with pytest.raises(ApiError, match=r"redirects to https://evil.test/v1; .* set base_url"):
        await connected("openai", exchange).embed("a")

    assert len(exchange.requests) == 1


@pytest.mark.parametrize(
    "body", [{"embeddings": {"float": [[1, 2]]}}, {"embeddings": [[1, 2]]}, {"embeddings": {"float": [[1, 2]], "int8": None}}]
)
async def test_either_shape_of_cohere(body):
    """Version 2's mapping by type and version 1's plain list are both read."""
    assert (await connected("cohere", FakeExchange([body])).embed("a")).vectors.tolist() == [[1, 2]]


async def test_shapes_of_hugging_face():
    """Pooled vectors are taken as they are; one vector per token needs to be told how to pool, or is refused with the way out."""
    tokens = [[[1.0, 0.0], [3.0, 4.0]]]
    for reply in ([[1.0, 2.0]], [1.0, 2.0]):
        assert (await connected("huggingface", FakeExchange([response(reply)])).embed("a")).vectors.tolist() == [[1, 2]]
    for how, row in (("mean", [2, 2]), ("cls", [1, 0]), ("last", [3, 4])):
        assert (await connected("huggingface", FakeExchange([response(tokens)]), pooling=how).embed("a")).vectors.tolist() == [
            row
        ]
    with pytest.raises(DecodeError, match="one vector per token, not per text: pass pooling='mean'"):
        await connected("huggingface", FakeExchange([response(tokens)])).embed("a")


@pytest.mark.parametrize("provider", THERE)
async def test_a_model_is_never_chosen_for_the_caller(provider):
    """There is no default model that could change the space of the vectors: "provider" alone is refused, any name goes out as given."""
    with pytest.raises(ConfigError):
        embedkit.connect(provider, api_key=KEY)
    if provider in ("cohere", "nomic", "ollama", "openai", "voyage"):
        model = {"nomic": "nomic-embed-text-v1"}.get(provider, "some/old-model")
        assert json.loads((await sent(f"{provider}:{model}", api_key=KEY)).body)["model"] == model


async def test_the_numbers_are_float32():
    """Values are the nearest float32 of what came, no more digits and no fewer."""
    given = [0.1, 1 / 3, -1e-8, 16_777_217.0, 1e-45]
    result = await connected("openai", FakeExchange([shaped("openai", [given])])).embed("a")

    assert result.vectors.tobytes() == np.array([given], np.float32).tobytes()
