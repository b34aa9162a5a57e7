"""What is taken for "provider:model", and what is refused."""

from __future__ import annotations

import json

import pytest

import embedkit
from embedkit import ConfigError, catalog
from embedkit._connect.model_name import split
from embedkit.providers import hosts
from tests.support.fake_replies import KEY
from tests.support.sent import sent

pytestmark = pytest.mark.anyio


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
    [("", "provider"), (":", "provider"), (":m", "provider"), ("  :m", "provider"), ("openai", "model"),
     ("openai:", "model"),
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
    [
        ("opena1", "openai"),
        ("olama", "ollama"),
        ("cohear", "cohere"),
        ("hugging-face", "huggingface"),
        ("azuer", "azure"),
    ],
)
def test_an_unknown_provider_is_answered_with_near_names(name, near):
    """A misspelt provider gets the nearest names first, then all there are."""
    with pytest.raises(
        ConfigError, match=f"unknown provider '{name}'; did you mean .*{near}.*Known: azure, .*local"
    ) as caught:
        embedkit.connect(f"{name}:m")

    assert all(host.name in str(caught.value) for host in hosts())


def test_a_provider_like_no_other_gets_the_list_alone():
    """Where nothing is near, no guess is made."""
    with pytest.raises(ConfigError, match=r"unknown provider 'xyzzy'. Known: ") as caught:
        embedkit.connect("xyzzy:m")

    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("locl", "local:all-minilm-l6-v2"),
        ("opnai", "openai:text-embedding-3-small"),
        ("mistal", "mistral:mistral-embed"),
        ("text-embedding-3-smal", "openai:text-embedding-3-small"),
        ("embed-v4", "cohere:embed-v4.0"),
    ],
)
def test_a_misspelled_name_without_a_provider(name, meant):
    """The nearest provider or model of the catalog is named; a name that is near to none gets no guess."""
    with pytest.raises(ConfigError, match=f"did you mean '{meant}'"):
        embedkit.connect(name)
    with pytest.raises(ConfigError, match=r"the form is 'provider:model', like 'openai"):
        embedkit.connect("bert-base-uncased")


def test_the_environment_may_name_the_model(monkeypatch):
    """EMBEDKIT_MODEL holds where nothing is passed, and only there; what is wrong with it is said of it."""
    monkeypatch.setenv("EMBEDKIT_MODEL", " ollama:mistral ")

    assert repr(embedkit.connect()) == "<HttpEmbedder ollama:mistral at http://127.0.0.1:11434/api>"
    assert embedkit.connect("vllm:m").provider == "vllm"

    monkeypatch.setenv("EMBEDKIT_MODEL", "some-model")
    with pytest.raises(ConfigError, match=r"^EMBEDKIT_MODEL='some-model' has no provider"):
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


def test_a_slash_in_place_of_the_colon_is_named():
    """As litellm writes it, "provider/model": the error gives the form with a colon first."""
    with pytest.raises(ConfigError, match="did you mean 'openai:text-embedding-3-small'"):
        embedkit.connect("openai/text-embedding-3-small")


KEYS = ["sk-proj-abcDEF0123456789abcdef_x", "AIzaSyA1234567890abcdefghijklmnopqrstu", "hf_abcdefghijklmnopqrstuv",
        "pa-abcdefghij0123456789", "jina_0123456789abcdefghij"]  # fmt: skip
LONG = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("key", "form"), [(key, form) for key in KEYS for form in ("{}", " {} ", "openai:{}")] + [(LONG, "{}")]
)
async def test_a_key_in_place_of_a_model_is_not_shown(key, form):
    """The message says where a key goes, and holds nothing of it."""
    with pytest.raises(
        ConfigError, match="looks like a key, so it is not shown here: a key goes into api_key="
    ) as caught:
        split(form.format(key))

    assert key not in str(caught.value)


async def test_no_known_model_looks_like_a_key():
    """Of the catalog, long names of other models, names of deployments."""
    names = [facts.name for models in catalog.MODELS.values() for facts in models]
    for name in [*names, "multilingual-MiniLM-L12-H384-uncased", "sk-test", "hf-internal-testing-tiny-random", LONG]:
        assert split(f"openai:{name}") == ("openai", name)
