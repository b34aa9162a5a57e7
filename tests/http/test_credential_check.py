"""Credentials as people paste them: each is held to the same rules, wherever it comes from, and never shown."""

from __future__ import annotations

import pickle

import pytest

import embedkit
from embedkit._http.credential_check import QUOTES, flaw
from embedkit.errors import ConfigError
from embedkit.providers import hosts
from embedkit.testing import FakeExchange, response

pytestmark = pytest.mark.anyio

KEY = "sk-PLANTED-0123456789"
# What was pasted, and what the error says of it.
PASTED = [
    *((f"{mark}{KEY}{mark}", "in quotes") for mark in QUOTES),
    (f"\u201c{KEY}\u201d", r"in quotes \(U\+201C, left double quotation mark\)"),
    (f'"{KEY}', "in quotes"),
    (f"{KEY}'", "in quotes"),
    (f' "{KEY}"\n', "in quotes"),
    (f'"{KEY[:9]}\n{KEY}"', "in quotes"),
    (f"Bearer {KEY}", "begins with 'Bearer'"),
    (f"bearer\t{KEY}", "begins with 'bearer'"),
    (f"Authorization: Bearer {KEY}", "begins with 'Authorization:'"),
    (f"api-key: {KEY}", "begins with 'api-key:'"),
    (f"OPENAI_API_KEY={KEY}", "begins with 'OPENAI_API_KEY=', the name of a variable"),
    (f"export HF_TOKEN={KEY}", "begins with 'export HF_TOKEN='"),
    (f"{KEY}\n{KEY}", r"white space .*\(U\+000A, line break\)"),
    (f"{KEY}\r\n{KEY}", r"white space .*\(U\+000D, line break\)"),
    (f"{KEY} {KEY}", r"U\+0020, space"),
    (f"{KEY}\u00a0{KEY}", r"U\+00A0, no-break space"),
    (f"\ufeff{KEY}", r"U\+FEFF, zero width no-break space"),
    (f"{KEY}\u200b", r"U\+200B, zero width space"),
    (f"{KEY[:9]}\u200d{KEY}", r"U\+200D, zero width joiner"),
    (f"{KEY}\x00", r"U\+0000\)"),
    (f"{KEY}\u2026", r"U\+2026, horizontal ellipsis"),
    (f"{KEY}\u0435", r"U\+0435, cyrillic small letter ie"),
    (f"{KEY}\U0001f511", r"U\+1F511, key"),
]
WELL = [
    KEY,
    f" {KEY}\n",
    f"\u00a0{KEY}\u2028",
    "a",
    "k=",
    "eyJ.a-b_c.d==",
    "it's",
    "apikey:k",
    "TOKEN",
    "bearer-k",
    "token:k",
]
SECRETS = [(host, name) for host in hosts() for name, one in host.parameters.items() if one.secret]


def opened(host, **given):
    """An embedder of this host, on an exchange that refuses everything, with whatever else it needs."""
    needs = {name: "x" for name, one in host.parameters.items() if one.required}
    base = {"base_url": "http://localhost:1"} if "base_url" not in given else {}
    model = "amazon.titan-embed-text-v2:0" if host.name == "bedrock" else "m"
    extra = {
        name: "x" for name in ("project", "project_id") if name in host.parameters and not host.parameters[name].secret
    }
    refusing = FakeExchange(lambda _: response({"error": "no"}, 403))
    return embedkit.connect(f"{host.name}:{model}", exchange=refusing, **{**needs, **extra, **base, **given})


def refused(says, make, *more):
    """The message of the ConfigError, which names this and does not hold the key."""
    with pytest.raises(ConfigError, match=says) as caught:
        make(*more)
    assert KEY not in str(caught.value)
    assert KEY[3:] not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("value", "says"), PASTED, ids=ascii)
@pytest.mark.parametrize(
    "host",
    [host for host in hosts() if host.name in ("openai", "gemini", "voyage", "bedrock")],
    ids=lambda host: host.name,
)
def test_what_is_wrong_with_a_key_is_named(monkeypatch, host, value, says):
    """Given by hand or in the environment: what has to go is said, the key is not."""
    assert "api_key" in refused(says, lambda: opened(host, api_key=value))
    if "\x00" not in value:
        monkeypatch.setenv(host.key_variables[0], value)

        assert host.key_variables[0] in refused(says, lambda: opened(host))


@pytest.mark.parametrize(("value", "says"), PASTED, ids=ascii)
@pytest.mark.parametrize(("host", "name"), SECRETS, ids=lambda each: getattr(each, "name", each))
async def test_every_secret_is_held_to_the_same_rules(monkeypatch, host, name, value, says):
    """Whatever is secret, be it a parameter, its variable, or what a callable gives."""
    key = {} if host.parameters[name].key else {"api_key": "k"}

    assert name in refused(says, lambda: opened(host, **key, **{name: value}))
    embedder = opened(host, **key, **{name: lambda: value})
    with pytest.raises(ConfigError, match=f"the callable given as {name} returned a string that .*{says}") as caught:
        await embedder.embed("a")
    assert KEY not in str(caught.value)
    variable = host.parameters[name].variables[0]
    if "\x00" not in value:
        monkeypatch.setenv(variable, value)

        assert variable in refused(says, lambda: opened(host, **key))


@pytest.mark.parametrize("value", WELL, ids=ascii)
@pytest.mark.parametrize(
    ("host", "name"), [*SECRETS, (next(iter(hosts())), "api_key")], ids=lambda each: getattr(each, "name", each)
)
def test_a_credential_is_taken_without_the_space_around_it(host, name, value):
    """White space around it is taken off, of a parameter as of the key; what a key may look like is taken as it is."""
    key = {} if name == "api_key" or host.parameters[name].key else {"api_key": "k"}
    embedder = opened(host, **key, **{name: value})

    assert flaw(value) == ""
    assert embedder._sources[name] == value.strip()


@pytest.mark.parametrize("value", ["", "  ", "\n"])
@pytest.mark.parametrize(("host", "name"), SECRETS, ids=lambda each: getattr(each, "name", each))
def test_an_empty_credential_is_none(host, name, value):
    """White space alone is no credential."""
    with pytest.raises(ConfigError, match=f"{name} is empty; pass"):
        opened(host, **{name: value})


async def test_what_is_not_sent_is_not_looked_at(monkeypatch):
    """A variable in quotes harms nobody who goes without it."""
    monkeypatch.setenv("OPENAI_API_KEY", f'"{KEY}"')
    monkeypatch.setenv("OPENAI_ORG_ID", f'"{KEY}"')
    host = next(host for host in hosts() if host.name == "openai")

    assert dict(opened(host, base_url="https://elsewhere.test")._sources) == {}


async def test_a_key_that_is_worse_after_pickling(monkeypatch):
    """Read anew from the variable in another process, it is held to the same rules there."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    host = next(host for host in hosts() if host.name == "openai")
    pickled = pickle.dumps(embedkit.connect(f"{host.name}:m"))
    monkeypatch.setenv("OPENAI_API_KEY", f"'{KEY}'")
    with pytest.raises(
        ConfigError, match=r"the key in OPENAI_API_KEY stands in quotes \(U\+0027, apostrophe\)"
    ) as caught:
        await pickle.loads(pickled).embed("a")  # noqa: S301 (our own bytes)

    assert KEY not in str(caught.value)


@pytest.mark.parametrize("content", [f"\ufeff{KEY}\r\n", f"{KEY}\n"])
def test_a_key_file_of_an_editor(monkeypatch, tmp_path, content):
    """A mark of byte order at the start of a file is not part of its text; quotes in it are named with the file."""
    place = tmp_path / "key"
    place.write_text(content, "utf-8")
    monkeypatch.setenv("VOYAGE_API_KEY_PATH", str(place))

    assert embedkit.connect("voyage:m")._sources["api_key"] == KEY
    place.write_text(f"'{KEY}'", "utf-8")
    assert str(place) in refused("in quotes", embedkit.connect, "voyage:m")
