"""Every built-in host against its golden exchanges, and nothing accepted that no golden shows.

The goldens are the table of what a host can do: adding a host means adding its folder, and a line in `UNSHOWN` only
where something is accepted that cannot be shown.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedkit import RetryPolicy, connect
from embedkit.errors import ConfigError
from embedkit.providers import hosts
from embedkit.testing import FakeExchange, _listed, _vector, check_codec

GOLDEN = Path(__file__).parent.parent / "golden"
HOSTS = {host.name: host for host in hosts() if host.dialect.__module__.startswith("embedkit.")}
OPTIONS = ("input_type", "dimensions", "dtype", "truncate", "normalize", "extra")

# What a host may be asked for. `query` and `document` are taken everywhere, so that portable code runs everywhere.
ASKED = [
    ("truncate", "end"), ("truncate", "error"),
    ("input_type", "classification"), ("input_type", "clustering"), ("input_type", "similarity"),
    ("dtype", "int8"), ("dtype", "uint8"), ("dtype", "binary"), ("dtype", "ubinary"),
    ("dimensions", 8),
]  # fmt: skip

# Accepted, though no golden shows it: host -> options, with the reason. One line per host.
UNSHOWN: dict[str, tuple[tuple[str, object], ...]] = {}

pytestmark = pytest.mark.anyio
each_host = pytest.mark.parametrize("name", sorted(HOSTS))


def goldens(name):
    return [json.loads(path.read_text("utf-8")) for path in sorted((GOLDEN / name).glob("*.json"))]


def successes(name):
    return [golden for golden in goldens(name) if "error" not in golden["expect"]]


async def asked(golden, **options):
    """The request for a golden's texts under these options; None if they are refused before sending."""
    fake = FakeExchange(lambda _: {})
    embedder = connect(**{"retry": RetryPolicy(attempts=1), **golden["connect"], "exchange": fake})
    embedder._probed = True
    try:
        await embedder.embed_batch(golden["texts"], embedder._merged(*[options.get(option) for option in OPTIONS]))
    except ConfigError:
        assert fake.requests == []
        return None
    except Exception:
        assert len(fake.requests) == 1
    return fake.requests[0]


@each_host
async def test_a_host_speaks_as_its_goldens_do(name):
    """Every golden of the host holds, and at least one is a success and one a refusal."""
    assert await check_codec(GOLDEN / name) >= 2


@each_host
async def test_nothing_is_accepted_that_no_golden_shows(name):
    """A golden shows an option, or it is refused before sending, or the client does it from the plain request."""
    plain = successes(name)[0]
    base = (await asked(plain)).body
    shown = [pair for golden in goldens(name) for pair in golden.get("options", {}).items()]
    wrong = []
    for option, value in ASKED:
        request = await asked(plain, **{option: value})
        here = option in ("dtype", "dimensions")  # what the engine can make itself, from the same request
        accepted = request is not None and (request.body != base or not here)
        proved = any(each == option for each, _ in shown) if option == "dimensions" else (option, value) in shown
        if accepted and not proved and (option, value) not in UNSHOWN.get(name, ()):
            wrong.append(f"{option}={value!r} is accepted, but no golden of {name} shows it")
        if proved and request is None and option != "dimensions":
            wrong.append(f"{option}={value!r} is in a golden of {name}, but refused for {plain['connect']['model']}")

    assert wrong == []


@each_host
async def test_goldens_say_what_they_expect(name):
    """Every success states the tokens that are reported (null: none), so that a missing usage is asserted missing."""
    assert [golden["request"]["url"] for golden in successes(name) if "tokens" not in golden["expect"]] == []
    assert all(golden["source"] for golden in goldens(name))


@each_host
async def test_goldens_cover_encoding_and_key(name):
    """If base64 is asked for, a golden answers it and another numbers; if a key is needed, one is refused."""
    texts = [json.dumps(golden["request"]["body"]) for golden in successes(name)]
    strings = {isinstance(first(golden), str) for golden in successes(name)}
    refused = {golden["expect"].get("error") for golden in goldens(name)}

    assert not any('"encoding_format": "base64"' in text for text in texts) or strings == {True, False}
    assert "AuthError" in refused or not HOSTS[name].key_required


def first(golden):
    """The first embedding of a golden reply, whatever its envelope."""
    _, items = _listed(golden["response"]["body"], len(golden["texts"]))
    return _vector(items[0])[1] if items else None


def test_every_golden_folder_has_its_host(tell):
    """No folder of goldens is left over from a host that is gone."""
    folders = {path.name for path in GOLDEN.iterdir() if path.is_dir()}
    tell(f"conformance: {len(HOSTS)} hosts, {sum(len(goldens(name)) for name in HOSTS)} goldens")

    assert folders <= set(HOSTS)
    assert set(UNSHOWN) <= set(HOSTS)
