"""What every adapter promises, asked of each with its real framework; LangChain's here, the heavy ones with `engines`."""

from __future__ import annotations

import asyncio
import doctest
import importlib
import json
import subprocess
import sys
from pathlib import Path

import anyio
import numpy as np
import pytest

import embedkit
from embedkit import ConfigError
from tests.contrib.adapters import ADAPTERS, ASYNC, KEY, SYNC, WRITTEN, reply, vector, voyage
from tests.support.servers.api import Api

pytestmark = pytest.mark.anyio
HERE = Path(__file__).parent.parent.parent
TEXTS = [f"passage {number}" for number in range(8)]
RETRY = {"attempts": 1}


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("VOYAGE_API_KEY", KEY)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_documents_and_queries_go_out_as_such(adapter):
    """The provider is told what each text is for, and every text gets its own vector, in order."""
    exchange, settings = voyage()
    made = adapter.build(**settings)

    rows, row = made.documents(TEXTS), made.query("a question")

    assert np.array_equal(np.asarray(rows, np.float32), np.stack([vector(text) for text in TEXTS]))
    assert np.array_equal(np.asarray(row, np.float32), vector("a question"))
    kinds = {text: body["input_type"] for body in exchange.bodies for text in body["input"]}
    assert kinds == {**dict.fromkeys(TEXTS, "document"), "a question": "query"}


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_what_texts_are_for_may_be_said_once(adapter):
    """`input_type` of the constructor holds for documents and queries alike."""
    exchange, settings = voyage()
    made = adapter.build(**settings, input_type="query")

    made.documents(TEXTS)
    made.query("a question")

    assert {body["input_type"] for body in exchange.bodies} == {"query"}


@pytest.mark.parametrize("adapter", ASYNC)
async def test_async_methods_send_side_by_side_on_the_running_loop(adapter):
    """Four requests of one call are in flight at once, on the caller's own event loop."""
    loops, waiting, together = set(), [], anyio.Event()

    async def hold(request):
        loops.add(asyncio.get_running_loop())
        waiting.append(request)
        if len(waiting) == 4:
            together.set()
        await together.wait()
        return reply(request)

    _, settings = voyage(hold)
    made = adapter.build(**settings, max_concurrency=4)
    with anyio.fail_after(60):
        rows = await made.adocuments(TEXTS)
        row = await made.aquery("a question")

    assert np.array_equal(np.asarray(rows, np.float32), np.stack([vector(text) for text in TEXTS]))
    assert np.array_equal(np.asarray(row, np.float32), vector("a question"))
    assert loops == {asyncio.get_running_loop()}


@pytest.mark.parametrize("adapter", SYNC)
async def test_sync_methods_work_inside_a_running_loop(adapter):
    """As in a notebook: on a loop of their own, with requests side by side."""
    loops, waiting, together = set(), [], []

    async def hold(request):
        loops.add(asyncio.get_running_loop())
        together[:] = together or [anyio.Event()]
        waiting.append(request)
        if len(waiting) == 4:
            together[0].set()
        await together[0].wait()
        return reply(request)

    _, settings = voyage(hold)
    rows = adapter.build(**settings, max_concurrency=4, timeout=60).documents(TEXTS)

    assert np.array_equal(np.asarray(rows, np.float32), np.stack([vector(text) for text in TEXTS]))
    assert asyncio.get_running_loop() not in loops


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_usage_adds_up(adapter):
    """Tokens and requests of all calls stay within reach, those of a call that failed half-way too."""

    def half(request):
        failed = "passage 7" in json.loads(request.body)["input"]
        return embedkit.AuthError("no", status=401) if failed and broken else reply(request)

    broken = False
    _, settings = voyage(half)
    made = adapter.build(**settings, retry=RETRY, max_concurrency=1)
    made.documents(TEXTS)
    made.query("a question")
    before = made.usage
    broken = True
    with pytest.raises(Exception, match="no"):
        made.documents(TEXTS)

    assert (before.tokens, before.requests) == (9, 5)
    assert made.usage.tokens == 15
    assert made.usage.requests >= 8


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_constructors_refuse_what_connect_refuses(adapter, monkeypatch):
    """A misspelt keyword and a missing key are named before anything is sent."""
    with pytest.raises(TypeError, match="dimensionz"):
        adapter.build("voyage:voyage-3.5", dimensionz=256)
    monkeypatch.delenv("VOYAGE_API_KEY")
    with pytest.raises(ConfigError, match="VOYAGE_API_KEY"):
        adapter.build("voyage:voyage-3.5")


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_the_key_does_not_show(adapter):
    """No representation of an adapter has the key that it was given."""
    made = adapter.build("voyage:voyage-3.5", api_key=KEY)

    assert KEY not in repr(made.made) + str(made.made)


@pytest.mark.parametrize("adapter", WRITTEN)
@pytest.mark.parametrize(
    "secret",
    [
        {"api_key": KEY},
        {"headers": {"X-Api-Key": KEY}},
        {"base_url": f"https://user:{KEY}@host.test/v1"},
        {"base_url": f"https://host.test/v1?code={KEY}"},
        {"extra": {"auth": {"token": KEY}}},
    ],
    ids=lambda secret: next(iter(secret)),
)
def test_no_credential_is_written_down(adapter, secret):
    """A credential given as text is refused by name, or left out where the framework leaves out its own."""
    made = adapter.build("voyage:voyage-3.5", **secret)
    if adapter.__name__ == "LlamaIndex":
        written = made.written()
        assert KEY not in written
        assert ("host.test/v1" in written) == ("base_url" in secret)
        return
    with pytest.raises((ConfigError, ValueError)) as refused:
        made.written()
    assert KEY not in str(refused.value)
    assert any(said in str(refused.value) for said in (*secret, "token-based secret"))


@pytest.mark.parametrize("adapter", WRITTEN)
def test_it_is_rebuilt_with_the_key_of_the_environment(adapter, monkeypatch):
    """What is written down has no key; what is read from it sends the one that the environment has then."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Api() as api:
        made = adapter.build("openai:text-embedding-3-small", base_url=api.url, limits={"max_texts": 2}, timeout=30)
        written = made.written()
        monkeypatch.setenv("OPENAI_API_KEY", "another-key")
        again = adapter.read(written)
        rows = again.documents(TEXTS)

        assert KEY not in written
        assert KEY.encode().hex() not in written
        assert len(rows) == len(TEXTS)
        assert len(api.bodies) == 4
        assert set(api.keys) == {"Bearer another-key"}


@pytest.mark.parametrize("adapter", WRITTEN)
def test_settings_survive_being_written_down(adapter, monkeypatch):
    """Every setting that JSON can hold is there again, structures of embedkit included."""
    settings = {
        "input_type": "document", "dimensions": 256, "truncate": "end", "extra": {"user": "x"},
        "limits": {"max_texts": 3}, "rate": {"tokens_per_minute": 1e6}, "retry": {"attempts": 2}, "timeout": 7.5,
    }  # fmt: skip
    made = adapter.build("voyage:voyage-3.5", **settings)
    again = adapter.read(made.written())

    clients = [each._client for each in (again.made if isinstance(again.made, list) else [again.made])]
    for client in clients:
        assert client.model == "voyage:voyage-3.5"
        assert client.embedder.limits.max_texts == 3
        assert (client.embedder.options.dimensions, client.embedder.options.truncate) == (256, "end")
        assert client.embedder.options.extra == {"user": "x"}
        assert client.settings["timeout"] == 7.5


FRAMEWORKS = {
    "langchain": "langchain_core", "llama_index": "llama_index", "haystack": "haystack", "chroma": "chromadb",
    "lancedb": "lancedb", "pydantic_ai": "pydantic_ai", "dspy": "dspy",
}  # fmt: skip


@pytest.mark.parametrize(
    "name", ["langchain", *(pytest.param(name, marks=pytest.mark.engines) for name in list(FRAMEWORKS)[1:])]
)
def test_one_adapter_imports_no_other_framework(name):
    """Importing an adapter loads its own framework and none of the others', and no HTTP client or model of embedkit."""
    script = (
        f"import importlib, sys; importlib.import_module({FRAMEWORKS[name]!r}); before = set(sys.modules)\n"
        f"import embedkit.contrib.{name}; print(*sys.modules); print(*(set(sys.modules) - before))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=HERE, check=True)
    loaded, own = (set(line.split()) for line in found.stdout.splitlines())

    assert FRAMEWORKS[name] in loaded
    assert {each for each in FRAMEWORKS.values() if each != FRAMEWORKS[name]} & loaded == set()
    assert {"aiohttp", "embedkit.local", "onnxruntime"} & own == set()


@pytest.mark.parametrize(
    "name", ["langchain", *(pytest.param(name, marks=pytest.mark.engines) for name in list(FRAMEWORKS)[1:])]
)
def test_the_example_of_an_adapter_runs(name):
    """The example that opens each adapter's file gives what it says, word for word."""
    module = importlib.import_module(f"embedkit.contrib.{name}")
    failed, tried = doctest.testmod(module)

    assert tried >= 5
    assert failed == 0
