"""Which key goes with a request, and where one from the environment never goes."""

from __future__ import annotations

import pytest

import embedkit
from embedkit import AuthError, ConfigError, RetryPolicy
from embedkit.testing import FakeExchange, response
from tests.support.fake_replies import KEY, SEED, shaped, vector
from tests.support.sent import authorized, sent

pytestmark = pytest.mark.anyio
NOW = RetryPolicy(initial=0, maximum=0)
EVIL = (
    "https://api.openai.com.evil.test/v1", "https://evilapi.openai.com/v1", "https://api.openai.com@evil.test/v1",
    "https://evil.test/api.openai.com/v1", "https://openai.com/v1", "https://api-openai.com/v1",
    "https://api.openai.com./v1",
    "http://api.openai.com/v1", "http://localhost.evil.test:8080/v1", "http://127.0.0.1.evil.test/v1",
    "http://127.evil.test", "http://10.0.0.1:8000/v1",
)  # fmt: skip

KEYS = [
    ("openai:m", "OPENAI_API_KEY"), ("cohere:m", "CO_API_KEY"), ("cohere:m", "COHERE_API_KEY"),
    ("nomic:m", "NOMIC_API_KEY"),
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
    """Whoever sets OPENAI_BASE_URL and OPENAI_API_KEY means them
    for each other; the same URL as an argument gets no key.
    """
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

    assert [authorized(request) for request in exchange.requests] == [
        "Bearer k-first",
        "Bearer k-second",
        "Bearer k-third",
    ]


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
    embedder = embedkit.connect(
        "openai:m", api_key=KEY, base_url="https://host.test/v1?key=secret", organization="org-secret"
    )

    assert repr(embedder) == "<HttpEmbedder openai:m at https://host.test/v1>"
    assert "secret" not in repr(embedkit.SyncEmbedder(embedder))


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
    embedder = embedkit.connect(
        "hfendpoint:m", base_url="https://endpoints.huggingface.cloud.evil.test", exchange=exchange
    )
    with pytest.raises(AuthError, match=r"the key in .*token was not sent, because"):
        await embedder.embed("a")

    assert authorized(exchange.requests[0]) is None
    assert authorized(await sent("tei:m")) is None


def test_a_secret_of_pydantic_is_told_the_way_out():
    """An object that hides a text is refused with the call that gives it, and is not shown."""

    class SecretStr:
        def get_secret_value(self):
            return "sk-of-the-test-1234567890"

    with pytest.raises(ConfigError, match=r"api_key is SecretStr.*api_key=secret.get_secret_value\(\)") as caught:
        embedkit.connect("openai:m", api_key=SecretStr())
    assert "sk-of" not in str(caught.value)
