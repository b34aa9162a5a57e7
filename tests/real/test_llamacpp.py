"""A real llama.cpp server with real weights, over real sockets:
what embedkit promises, kept by a server that nobody scripted.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import embedkit
from embedkit import AuthError, ConfigError, NotFoundError, RetryPolicy, TooLongError, TransportError
from embedkit._http.aiohttp_exchange import AiohttpExchange
from embedkit._http.settings import HttpSettings
from embedkit.events import BatchDone
from embedkit.local import LocalEmbedder
from tests.support.servers.llamacpp import start

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real,
    pytest.mark.skipif(find_spec("xllamacpp") is None, reason="xllamacpp has no wheel for this Python on this system"),
]
HERE = Path(__file__).parent.parent.parent
KEY = "sk-llama-test"
TEXTS = ["a cat sleeps on the sofa", "stock prices fell", "Grüße aus 世界 🙂", "x", "two\nlines", "hello world " * 40]
LONG = "word " * 600  # beyond one sequence
HUGE = "word " * 10_000  # beyond the whole batch, which llama.cpp calls a server error


@pytest.fixture(scope="session")
def server():
    """One server without a key for the whole session."""
    with start(threads=1, parallel=16) as running:
        yield running


@pytest.fixture(scope="session")
def guarded():
    """One that asks for a key."""
    with start(KEY, threads=1, parallel=16) as running:
        yield running


def connected(server, provider="llamacpp", **settings):
    return embedkit.connect(f"{provider}:{server.model}", base_url=server.url, **settings)


def run(server, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "embedkit", *arguments, "--base-url", server.url], capture_output=True, text=True,
        cwd=HERE,
        check=False, timeout=60,
    )  # fmt: skip


class Recorder:
    """The real exchange, remembering what went over it."""

    def __init__(self):
        self.inner = AiohttpExchange(HttpSettings())
        self.sent, self.received = [], []

    async def __call__(self, request):
        response = await self.inner(request)
        self.sent.append(bytes(request.body))
        self.received.append(bytes(response.body))
        return response

    async def aclose(self):
        await self.inner.aclose()


async def test_base64_and_float_are_the_same_vectors(server):
    """Base64 is asked for and comes; asked for floats the server sends text; both decode to the same bits."""
    exchange = Recorder()
    async with connected(server, exchange=exchange) as embedder:
        packed = await embedder.embed(TEXTS)
        plain = await embedder.embed(TEXTS, extra={"encoding_format": "float"})

    assert b'"encoding_format":"base64"' in exchange.sent[0]
    assert b'"embedding":"' in exchange.received[0]
    assert b'"embedding":[' in exchange.received[1]
    assert packed.vectors.shape == (len(TEXTS), 384)
    assert np.array_equal(packed.vectors, plain.vectors)


@pytest.mark.parametrize("provider", ["llamacpp", "compatible", "vllm", "localai"])
async def test_it_agrees_with_the_embedded_model(server, provider):
    """The same weights in two programs, each text in its own row:
    cosine above 0.999; also by the names of its cousins.
    """
    async with connected(server, provider) as remote, LocalEmbedder() as local:
        theirs, ours = await remote.embed(TEXTS), await local.embed(TEXTS)

    assert (theirs.vectors * ours.vectors).sum(axis=1).min() > 0.999
    assert theirs.usage.tokens == ours.usage.tokens
    assert np.linalg.norm(theirs.vectors, axis=1) == pytest.approx(1, abs=1e-5)


async def test_two_thousand_texts_come_back_in_order(server):
    """63 requests over several connections: row i belongs to text i, and every token is counted."""
    texts = [f"{number}" for number in range(2_000)]
    async with connected(server) as embedder:
        result = await embedder.embed(texts)
        some = [0, 31, 32, 999, 1_023, 1_999]
        alone = np.stack([await embedder.embed_query(texts[row]) for row in some])

    assert result.usage.requests == 63
    assert (result.vectors[some] * alone).sum(axis=1).min() > 0.9999
    assert (result.vectors @ alone.T).argmax(axis=0).tolist() == some


async def test_a_stream_gives_the_same_in_parts(server):
    """Parts in order, together the same rows as one call."""
    texts = [f"passage number {number}" for number in range(100)]
    async with connected(server) as embedder, embedder.stream(texts) as stream:
        parts = [part async for part in stream]
        whole = await embedder.embed(texts)

    assert [part.start for part in parts] == [0, 32, 64, 96]
    assert (np.concatenate([part.vectors for part in parts]) * whole.vectors).sum(axis=1).min() > 0.9999


def test_without_await(server):
    """`connect_sync` and its stream, against the same server."""
    with embedkit.connect_sync(f"llamacpp:{server.model}", base_url=server.url) as embedder:
        result = embedder.embed(TEXTS)
        parts = list(embedder.stream(TEXTS))

    assert result.vectors.shape == (len(TEXTS), 384)
    assert parts[0].vectors == pytest.approx(result.vectors, abs=1e-3)


@pytest.mark.parametrize("bad", [LONG, HUGE], ids=["beyond a sequence", "beyond the batch"])
async def test_a_text_too_long_costs_its_own_row_only(server, bad):
    """`on_error="skip"` isolates it among forty, whichever of
    its two errors llama.cpp chooses; the others are embedded.
    """
    texts = [f"text {number}" for number in range(40)]
    texts[17] = bad
    async with connected(server) as embedder:
        result = await embedder.embed(texts, on_error="skip")
        with pytest.raises(embedkit.ApiError) as refused:
            await embedder.embed(texts)

    assert list(result.failures) == [17]
    assert np.isnan(result.vectors).all(axis=1).nonzero()[0].tolist() == [17]
    assert refused.value.rows == (17,)
    assert refused.value.partial is not None


async def test_its_error_says_what_is_wrong(server):
    """The error carries the server's own words: how long the text is, and how long it may be."""
    async with connected(server) as embedder:
        with pytest.raises(
            TooLongError, match=r"input \(602 tokens\) is larger than the max context size \(512 tokens\)"
        ) as refused:
            await embedder.embed(["a", LONG])

    assert refused.value.rows == (1,)


async def test_a_width_the_model_was_not_trained_for_is_refused(server):
    """The server ignores `dimensions`, MiniLM is not Matryoshka:
    a ConfigError before anything is sent, not 384 for 128.
    """
    exchange = Recorder()
    async with connected(server, exchange=exchange) as embedder:
        with pytest.raises(ConfigError, match="dimensions=128: llamacpp cannot be asked for a width"):
            await embedder.embed(["a"], dimensions=128)

    assert exchange.sent == []


async def test_its_key_is_asked_for_and_sent(guarded):
    """The right key works; a wrong one and none are AuthErrors that never show it."""
    async with connected(guarded, api_key=KEY) as embedder:
        assert (await embedder.embed(["a"])).dimensions == 384
    for settings in ({"api_key": "sk-wrong-key"}, {}):
        async with connected(guarded, **settings) as embedder:
            with pytest.raises(AuthError) as refused:
                await embedder.embed(["a"] * 40)

        assert refused.value.status == 401
        assert "sk-wrong-key" not in f"{refused.value!r} {refused.value} {refused.value.body}"


async def test_the_ollama_dialect_is_not_spoken_here(server):
    """llama.cpp has no /api/embed: NotFoundError with the server's words, after one request."""
    exchange = Recorder()
    async with connected(server, "ollama", exchange=exchange) as embedder:
        with pytest.raises(NotFoundError, match="File Not Found"):
            await embedder.embed(["a"])

    assert len(exchange.sent) == 1


async def test_a_server_that_dies_half_way_leaves_what_it_gave():
    """Killed between two batches: a TransportError that says where nothing answers; every row given before is kept."""
    done = []

    def observe(event):
        if isinstance(event, BatchDone):
            done.append(event.texts)
            if len(done) == 3:
                server.process.kill()
                server.process.wait()

    texts = [f"text {number}" for number in range(500)]
    with start(threads=1, parallel=16) as server:
        settings = {"max_concurrency": 2, "retry": RetryPolicy(attempts=2, initial=0.01, maximum=0.01)}
        async with connected(server, observe=observe, **settings) as embedder:
            with pytest.raises(
                TransportError, match=f"{server.url}.*is llama-server running|connection to {server.url} broke"
            ) as died:
                await embedder.embed(texts)
    kept = ~np.isnan(died.value.partial.vectors).any(axis=1)

    assert kept.sum() in (96, 128)  # the fourth batch may have been answered already
    assert np.isnan(died.value.partial.vectors[~kept]).all()
    async with LocalEmbedder() as local:
        expected = (await local.embed([text for text, known in zip(texts, kept, strict=True) if known])).vectors
    assert (died.value.partial.vectors[kept] * expected).sum(axis=1).min() > 0.999


def test_check_reports_it(server):
    """`embedkit check` says what a user wants to know before using a server."""
    found = run(server, "check", f"llamacpp:{server.model}")
    said = dict(line.split(maxsplit=1) for line in found.stdout.splitlines())

    assert (found.returncode, found.stderr) == (0, "")
    assert said["provider"] == "llamacpp"
    assert said["address"] == f"{server.url}/v1"
    assert said["model"] == server.model
    assert said["dimensions"] == "384"
    assert said["norm"] == "1.0000"
    assert said["tokens"] == "3 for one word"


def test_check_of_a_guarded_server_fails_in_one_line(guarded):
    """No key: exit code 1, one line, the server's own words."""
    found = run(guarded, "check", f"llamacpp:{guarded.model}")

    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr.count("\n") == 1
    assert "401" in found.stderr


def test_a_file_goes_through_it(server, tmp_path):
    """`embedkit embed` of a file with a text that is too long: its row is NaN, all others are there, exit code 3."""
    (tmp_path / "in.txt").write_text("one\n" * 50 + LONG + "\n" + "two\n" * 50, "utf-8")
    found = run(
        server, "embed", str(tmp_path / "in.txt"), "-m", f"llamacpp:{server.model}", "-o", str(tmp_path / "out.npy"),
        "--on-error", "skip",
    )  # fmt: skip
    vectors = np.load(tmp_path / "out.npy")

    assert found.returncode == 3
    assert "row 50: llamacpp:all-minilm-l6-v2: input (602 tokens) is larger than the max context size" in found.stderr
    assert vectors.shape == (101, 384)
    assert np.isnan(vectors).any(axis=1).nonzero()[0].tolist() == [50]
