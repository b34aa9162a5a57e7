"""What every adapter promises, asked of each with its real framework; LangChain's here, the heavy ones with `engines`."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import anyio
import numpy as np
import pytest

import embedkit
from embedkit import ConfigError
from tests.contrib.adapters import ADAPTERS, ASYNC, KEY, SYNC, WRITTEN, reply, vector, voyage
from tests.support.servers.api import Api
from tests.support.servers.api import vector as of_api

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
    "lancedb": "lancedb", "pydantic_ai": "pydantic_ai", "dspy": "dspy", "mteb": "mteb", "ray": "ray", "spark": "pyspark",
    "dask": "dask", "daft": "daft",
}  # fmt: skip
OF_ENGINES = {  # no calls home, no key for the local cluster, workers of this Python
    "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "PYSPARK_PYTHON": sys.executable,
    "SPARK_LOCAL_IP": "127.0.0.1",
}  # fmt: skip
EACH = pytest.mark.parametrize(
    "name", ["langchain", *(pytest.param(name, marks=pytest.mark.engines) for name in list(FRAMEWORKS)[1:])]
)


@EACH
def test_one_adapter_imports_no_other_framework(name):
    """Importing an adapter loads no framework but its own, and no HTTP client or model of embedkit."""
    pytest.importorskip(FRAMEWORKS[name])
    script = (
        f"import importlib, sys; importlib.import_module({FRAMEWORKS[name]!r}); before = set(sys.modules)\n"
        f"import embedkit.contrib.{name}; print(*sys.modules); print(*(set(sys.modules) - before))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=HERE, check=True)
    loaded, own = (set(line.split()) for line in found.stdout.splitlines())

    assert FRAMEWORKS[name] in loaded
    assert {*FRAMEWORKS.values()} & own == set()
    assert {"aiohttp", "embedkit.local", "onnxruntime"} & own == set()


@EACH
def test_the_example_of_an_adapter_runs(name, tmp_path):
    """The example that opens each adapter's file gives what it says, word for word."""
    pytest.importorskip(FRAMEWORKS[name])
    script = f"import doctest, embedkit.contrib.{name} as module; print(*doctest.testmod(module))"
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)]), **OF_ENGINES},
        timeout=200,
    )  # fmt: skip
    failed, tried = map(int, found.stdout.split()[-2:])

    assert tried >= 5
    assert failed == 0, found.stdout


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_no_texts_send_nothing(adapter):
    """An empty list gives no vectors, and no request; Chroma refuses it by itself."""
    exchange, settings = voyage()
    made = adapter.build(**settings)

    if adapter.__name__ == "Chroma":
        with pytest.raises(ValueError, match="non-empty"):
            made.documents([])
    else:
        assert len(made.documents([])) == 0
    assert exchange.bodies == []


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_one_bad_text_is_an_error_that_names_it(adapter):
    """No other text gets its vector or none: the call fails with the provider's words and the text's place."""
    with Api() as api:
        made = adapter.build("compatible:m", base_url=api.url, limits={"max_texts": 2})
        with pytest.raises(Exception, match=api.refusal) as refused:
            made.documents([*TEXTS, "BAD"])
        rows = made.documents(TEXTS)

    causes = {type(error) for error in (refused.value, refused.value.__cause__)}
    assert embedkit.InvalidInputError in causes
    assert "row 8" in str(refused.value)
    assert np.array_equal(np.asarray(rows, np.float32), np.array([of_api(text) for text in TEXTS], np.float32))


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_threads_and_event_loops_share_one(adapter):
    """Three threads without `await` and three event loops of their own at once: each gets the vectors of its texts."""
    found = {}

    def work(number):
        texts = [f"{'word ' * number}{text}" for text in TEXTS]
        if number % 2 and adapter in LOOPS:
            found[number] = texts, anyio.run(made.adocuments, texts)
        else:
            found[number] = texts, made.documents(texts)

    with Api() as api:
        made = adapter.build("compatible:m", base_url=api.url, limits={"max_texts": 2}, timeout=60)
        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)

    for texts, rows in found.values():
        assert np.array_equal(np.asarray(rows, np.float32), np.array([of_api(text) for text in texts], np.float32))
    assert len(found) == 6
    assert made.usage.requests == len(api.bodies) == 24


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_nothing_stays_open(adapter):
    """An adapter that was used with and without `await`, and then forgotten, leaves no socket that somebody warns of."""
    script = SCRIPT.format(name=adapter.__name__, asks=adapter in LOOPS)
    with Api() as api:
        found = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "default::ResourceWarning", "-c", script, api.url],
            capture_output=True, text=True, cwd=HERE, check=False, timeout=120,
        )  # fmt: skip

    assert found.returncode == 0, found.stderr[-2000:]
    assert "8 8" in found.stdout
    ours = [line for line in found.stderr.splitlines() if "ResourceWarning" in line and "socket" in line]
    assert ours == []
    assert "Unclosed" not in found.stderr


LOOPS = {getattr(each, "values", (each,))[0] for each in ASYNC}
SCRIPT = """
import gc, sys, anyio
from tests.contrib import adapters
made = adapters.{name}.build("compatible:m", base_url=sys.argv[1], limits={{"max_texts": 2}})
texts = [f"passage {{number}}" for number in range(8)]
rows = made.documents(texts)
more = anyio.run(made.adocuments, texts) if {asks} else rows
print(len(rows), len(more))
del made
gc.collect()
"""
