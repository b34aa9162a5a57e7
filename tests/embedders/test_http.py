"""`HttpEmbedder`: what it learns and asks of a server, what it makes on the client, how it lives through loops, forks
and pickles.

Everything goes through `connect(…, exchange=…)`, on asyncio and on trio; no socket is opened.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import gc
import itertools
import json
import pickle
import ssl
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import anyio
import numpy as np
import pytest
import trio

import embedkit
from embedkit import (
    ApiError,
    AuthError,
    ConfigError,
    DecodeError,
    InvalidInputError,
    Limits,
    NotFoundError,
    QuotaError,
    RateLimitError,
    RetryPolicy,
    ServerError,
    TooLargeError,
    TooLongError,
    TransportError,
    Usage,
)
from embedkit._embedders.call_end import SHORTER
from embedkit.events import RetryScheduled
from embedkit.testing import FakeEmbedder, FakeExchange, response
from tests.support.fake_replies import KEY, echo, shaped, texts_of, vector

pytestmark = pytest.mark.anyio
NOW = RetryPolicy(initial=0, maximum=0)
ONCE = RetryPolicy(attempts=1)
OPENAI = {"model": "openai:text-embedding-3-small", "api_key": KEY}


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


class Server:
    """An exchange that pickles: answers as a seed provider would, and counts."""

    def __init__(self, provider="openai"):
        self.provider = provider
        self.requests = []
        self.closed = 0

    async def __call__(self, request):
        self.requests.append(request)
        return echo(self.provider)(request)

    async def aclose(self):
        self.closed += 1


# --- learning --------------------------------------------------------------------------------------------------------


def without_base64(status=400):
    """A server that refuses `encoding_format`, in a way seen from vLLM."""

    async def handler(request):
        await anyio.lowlevel.checkpoint()
        if "encoding_format" in json.loads(request.body):
            return response({"error": {"message": "base64 encoding is not currently supported"}}, status)
        return echo("openai")(request)

    return FakeExchange(handler)


@pytest.mark.parametrize("status", [400, 422, 500])
async def test_a_refused_encoding_is_remembered(status):
    """A server without base64 is asked another way, at once and without a wait, and never for base64 again."""
    exchange = without_base64(status)
    embedder = embedkit.connect("compatible:m", base_url="http://host.test", exchange=exchange, retry=NOW)
    first, second = await embedder.embed("a"), await embedder.embed(["b", "c"])

    assert [body.get("encoding_format") for body in exchange.bodies] == ["base64", None, None]
    assert np.allclose([vector(text) for text in "abc"], [*first, *second])
    assert (first.usage.requests, second.usage.requests) == (2, 1)


async def test_batches_at_once_learn_together():
    """Batches in flight when the encoding is refused each try once more; no row is lost and nothing is asked twice
    after.
    """
    exchange = without_base64()
    embedder = embedkit.connect("vllm:m", exchange=exchange, limits=Limits(max_texts=1), max_concurrency=6)
    texts = [f"text {number}" for number in range(40)]
    result = await embedder.embed(texts)

    asked = [body.get("encoding_format") for body in exchange.bodies]
    assert np.allclose([vector(text) for text in texts], result.vectors)
    assert 1 <= asked.count("base64") <= 6
    assert asked.count(None) == 40
    assert len(result.failures) == 0


@pytest.mark.parametrize("on_error", ["raise", "skip"])
async def test_learning_never_goes_round_in_circles(on_error):
    """A server that refuses base64 whatever is sent is believed after the second refusal."""
    exchange = FakeExchange(lambda _: response({"error": "unknown field encoding_format"}, 400))
    embedder = embedkit.connect("compatible:m", base_url="http://host.test", exchange=exchange)
    with pytest.raises(InvalidInputError, match="unknown field encoding_format") as caught:
        await embedder.embed("a", on_error=on_error)

    known_good = [(["hello"], None)] if on_error == "skip" else []  # nobody else's text is at stake otherwise
    assert [(texts_of(request), body.get("encoding_format")) for request, body in zip(exchange.requests, exchange.bodies, strict=True)] == [
        (["a"], "base64"), (["a"], None), *known_good,
    ]  # fmt: skip
    assert caught.value.rows == ()


async def test_what_was_learned_travels():
    """A pickled embedder remembers what its server refused."""
    server = Server()
    embedder = embedkit.connect("compatible:m", base_url="http://host.test", exchange=server)
    embedder._adopt(embedder._codec, response({"error": "no base64 here"}, 400))
    twin = pickle.loads(pickle.dumps(embedder))  # noqa: S301 (our own)
    await twin.embed("a")

    assert "encoding_format" not in json.loads(twin._exchange.requests[0].body)


# --- asking the server first -----------------------------------------------------------------------------------------


def tei(info, **keywords):
    """(embedder, exchange) of a TEI server whose /info answers this: a response, an exception, or JSON."""

    async def handler(request):
        await anyio.lowlevel.checkpoint()
        if request.method == "GET":
            return info if isinstance(info, BaseException) or hasattr(info, "status") else response(info)
        wide = json.loads(request.body).get("dimensions", 8)
        return echo("tei", FakeEmbedder(wide).vector)(request)

    exchange = FakeExchange(handler)
    return embedkit.connect("tei:BAAI/bge-m3", exchange=exchange, **keywords), exchange


def asked(exchange):
    """How often the server was asked about itself."""
    return sum(request.method == "GET" for request in exchange.requests)


async def test_a_server_is_asked_once_for_its_limits():
    """TEI's /info is read before the first plan, and its limit obeyed from the first batch on."""
    embedder, exchange = tei(
        {"max_client_batch_size": 3, "max_input_length": 512, "version": "1.9.3", "more": [1]}, api_key=KEY
    )
    first, second = await embedder.embed(list("abcdefg")), await embedder.embed(list("abcdefg"))

    assert exchange.requests[0].url == "http://localhost:3000/info"
    assert exchange.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert asked(exchange) == 1
    assert sorted(len(texts_of(request)) for request in exchange.requests[1:]) == [1, 1, 3, 3, 3, 3]
    assert embedder.limits.max_texts == 3
    assert embedder.limits.max_text_tokens == 512
    assert (first.usage.requests, second.usage.requests) == (4, 3)


@pytest.mark.parametrize(
    "info",
    [
        response("", 404), response({"error": "no"}, 401), response("", 500), response("", 503), response("<html>hello</html>"),
        response(""), response("not json"), response([]), response(None), {}, {"max_client_batch_size": None}, {"version": "dev"},
        {"max_client_batch_size": "32"}, {"max_client_batch_size": 0}, {"max_client_batch_size": 1e9},
    ],
    ids=str,
)  # fmt: skip
async def test_a_server_that_tells_nothing_is_used_as_it_is(info):
    """A missing page, an HTML page, nonsense: the usual limits hold, and nobody asks again."""
    embedder, exchange = tei(info)
    result = await embedder.embed(list("ab"))
    await embedder.embed(list("cd"))

    assert asked(exchange) == 1
    assert np.allclose([vector("a"), vector("b")], result.vectors)
    assert embedder.limits.max_texts == 32


async def test_a_server_that_is_down_is_asked_again():
    """No answer at all fails the call as any request would, and the next call asks anew."""
    embedder, exchange = tei(TransportError("nobody is there"), retry=ONCE)
    for _ in range(2):
        with pytest.raises(TransportError, match="nobody is there"):
            await embedder.embed("a")

    assert asked(exchange) == len(exchange.requests) == 2


async def test_calls_at_once_ask_once_and_wait():
    """The first calls of an embedder, made together, share one question, and none goes out before the answer."""
    embedder, exchange = tei({"max_client_batch_size": 2, "version": "1.7.0"})
    found = []

    async def one(number):
        found.append(await embedder.embed([f"{number} {each}" for each in range(4)]))

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(one, number)

    assert asked(exchange) == 1
    assert exchange.requests[0].method == "GET"
    assert len(exchange.requests) == 21
    assert len(found) == 10


async def test_a_question_that_was_cancelled_leaves_the_others_alone():
    """The call that asked is cancelled while it waits: those that waited with it still get their vectors."""
    freed, found = anyio.Event(), []

    async def handler(request):
        if request.method == "GET":
            await freed.wait()
            return response({})
        return echo("tei")(request)

    embedder = embedkit.connect("tei:m", exchange=FakeExchange(handler))

    async def first(scope):
        with scope:
            await embedder.embed("a")

    async def second():
        found.append(await embedder.embed_query("b", input_type=None))

    async with anyio.create_task_group() as group:
        group.start_soon(first, scope := anyio.CancelScope())
        await anyio.wait_all_tasks_blocked()
        group.start_soon(second)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        freed.set()

    assert np.allclose(vector("b"), found[0])


async def test_an_old_server_is_not_asked_for_a_width():
    """TEI before 1.8 knows no `dimensions`: a known Matryoshka model is cut here, another refused with its widths."""
    exchange = FakeExchange(
        lambda request: response({"version": "1.7.4"}) if request.method == "GET" else echo("tei", wide)(request)
    )
    embedder = embedkit.connect("tei:nomic-ai/nomic-embed-text-v1.5", exchange=exchange)
    result = await embedder.embed("a", dimensions=256)

    assert "dimensions" not in exchange.bodies[0]
    assert np.allclose(unit(wide("a")[None, :256]), result.vectors)
    with pytest.raises(ConfigError, match="dimensions=100: tei cannot be asked for a width"):
        await embedder.embed("a", dimensions=100)


# --- made on the client ----------------------------------------------------------------------------------------------

TEXTS = ["a", "b", "a", "c", "dd", "b"]
NATIVE = 768


def wide(text):
    """The model's own vector of a text: not of unit length."""
    return 3 * FakeEmbedder(NATIVE).vector(text)


def unit(rows):
    return rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)


def quantized(rows, dtype):
    """The textbook: what each dtype holds of float rows, worked out apart from the code."""
    if dtype == "float32":
        return rows.astype(np.float32)
    if dtype == "int8":
        return np.round(unit(rows) * 127).astype(np.int8)
    if dtype == "uint8":
        return (np.round(unit(rows) * 127) + 128).astype(np.uint8)
    bits = [[sum(int(value > 0) << 7 - place for place, value in enumerate(row[start : start + 8])) for start in range(0, len(row), 8)]
            for row in rows]  # fmt: skip
    return np.array(bits, np.uint8) if dtype == "ubinary" else (np.array(bits) - 128).astype(np.int8)


def reference(texts, dimensions, dtype, normalize):
    """What any provider must give: cut, then unit length where it was cut or is asked for, then quantized."""
    rows = np.array([wide(text) for text in texts])
    if dimensions is not None and dimensions < NATIVE:
        rows = rows[:, :dimensions] if normalize is False else unit(rows[:, :dimensions])
    elif normalize:
        rows = unit(rows)
    return quantized(rows, dtype)


def without(request):
    """A server that knows neither widths nor dtypes."""
    assert not {"dimensions", "output_dimension", "embedding_types"} & set(json.loads(request.body))
    return echo("localai", wide)(request)


def half(request):
    """OpenAI: narrow vectors are its own business, and re-normalized; dtypes are none of it."""
    width = json.loads(request.body).get("dimensions")
    return echo("openai", lambda text: reference([text], width, "float32", None)[0])(request)


def whole(request):
    """Cohere: widths and dtypes are its own."""
    body = json.loads(request.body)
    kind = body["embedding_types"][0].replace("float", "float32").replace("float3232", "float32")
    rows = reference(body["texts"], body.get("output_dimension"), kind, None)
    return response({"embeddings": {body["embedding_types"][0]: rows.tolist()}})


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "binary", "ubinary"])
@pytest.mark.parametrize("dimensions", [None, 64, 256, 768])
@pytest.mark.parametrize(
    ("model", "server"),
    [
        ("localai:nomic-ai/nomic-embed-text-v1.5", without),
        ("openai:text-embedding-3-small", half),
        ("cohere:embed-v9", whole),
    ],
    ids=["client", "half", "provider"],
)
async def test_every_width_and_dtype_everywhere(model, server, dimensions, dtype):
    """Any width, dtype and length gives what numpy gives, whoever makes it; equal texts and several batches
    included.
    """
    exchange = FakeExchange(server)
    embedder = embedkit.connect(model, api_key=KEY, exchange=exchange, limits=Limits(max_texts=3))
    for normalize in (None, False, True):
        if normalize and dtype != "float32":
            with pytest.raises(ConfigError, match="only float32 vectors can be made unit length"):
                await embedder.embed(TEXTS, dimensions=dimensions, dtype=dtype, normalize=normalize)
            continue
        result = await embedder.embed(TEXTS, dimensions=dimensions, dtype=dtype, normalize=normalize)
        expected = reference(
            TEXTS, dimensions, dtype, None if normalize is False and server is not without else normalize
        )

        assert result.vectors.dtype == expected.dtype
        assert result.dimensions == (dimensions or NATIVE)
        assert result.vectors.flags.c_contiguous
        assert np.allclose(expected, result.vectors, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("dtype", "stored"), [("int8", 1024), ("ubinary", 128)])
async def test_the_only_width_there_is_may_be_asked_for(dtype, stored):
    """A model of one width is not asked for it, but may be: the provider's own bytes come through untouched, another
    width does not.
    """
    row = np.arange(stored, dtype=np.int64) % 128
    exchange = FakeExchange(lambda _: {"embeddings": {dtype: [row.tolist()]}})
    embedder = embedkit.connect("cohere:embed-english-v3.0", api_key=KEY, exchange=exchange)
    result = await embedder.embed("a", dimensions=1024, dtype=dtype)

    assert "output_dimension" not in exchange.bodies[0]
    assert exchange.bodies[0]["embedding_types"] == [dtype]
    assert result.vectors.tolist() == [row.tolist()]
    row = row[:-1]
    with pytest.raises(DecodeError, match="dimensions=1024 was asked for, but the provider answered"):
        await embedder.embed("a", dimensions=1024, dtype=dtype)


@pytest.mark.parametrize(("width", "right"), [(NATIVE, True), (512, True), (256, True), (1024, False), (128, False)])
async def test_a_width_is_cut_only_from_one_the_model_has(width, right):
    """A server that answers a width the model does not have, or less than was asked for, is an error: another model is
    not cut.
    """
    exchange = FakeExchange(echo("localai", FakeEmbedder(width).vector))
    embedder = embedkit.connect("localai:nomic-ai/nomic-embed-text-v1.5", exchange=exchange)
    if right:
        assert (await embedder.embed("a", dimensions=256)).vectors.shape == (1, 256)
    else:
        with pytest.raises(
            DecodeError, match=f"dimensions=256 was asked for, but the provider answered {width}, and the model has"
        ):
            await embedder.embed("a", dimensions=256)


@pytest.mark.parametrize(
    ("model", "dimensions"),
    [
        ("localai:mine", 256),
        ("localai:nomic-ai/nomic-embed-text-v1.5", 100),
        ("localai:BAAI/bge-m3", 256),
        ("llamacpp:m", 8),
    ],
)
async def test_an_unknown_width_is_refused_before_sending(model, dimensions):
    """Only a width the model was trained for is cut to; anything else is refused, and nothing is sent."""
    exchange = FakeExchange([])
    with pytest.raises(
        ConfigError, match=f"dimensions={dimensions}: .* cannot be asked for a width, and .* cannot be cut to it"
    ):
        await embedkit.connect(model, exchange=exchange).embed("a", dimensions=dimensions)

    assert exchange.requests == []


async def test_any_finite_vector_can_be_made_unit_length():
    """Values near the end of float32's range, and zero vectors, come out finite and right."""
    rows = [[3e38] * 8, [1e-30] * 8, [0.0] * 8, [1.4e-45] + [0.0] * 7]
    exchange = FakeExchange([shaped("openai", rows)])
    result = await embedkit.connect(**OPENAI, exchange=exchange).embed(list("abcd"), normalize=True)

    assert np.allclose(np.linalg.norm(result.vectors, axis=1), [1, 1, 0, 1])


async def test_bits_need_a_multiple_of_eight():
    """A model whose width is no multiple of eight cannot be packed into bits, and says so."""
    with pytest.raises(ConfigError, match="dtype='binary' packs eight components into a byte, and this model has 12"):
        await embedkit.connect(**OPENAI, exchange=FakeExchange(echo("openai", FakeEmbedder(12).vector))).embed(
            "a", dtype="binary"
        )


# --- options and extra -----------------------------------------------------------------------------------------------


async def test_a_call_overrides_connect():
    """What a call names holds for that call alone; what it leaves out, or gives as None, is connect's."""
    exchange = FakeExchange(whole)
    embedder = embedkit.connect(
        "cohere:embed-v9",
        api_key=KEY,
        exchange=exchange,
        dimensions=64,
        dtype="int8",
        input_type="query",
        truncate="end",
        extra={"a": 1},
    )
    await embedder.embed("a")
    await embedder.embed("a", dimensions=256, dtype="float32", input_type="document", truncate="error", extra={"b": 2})
    await embedder.embed("a", dimensions=None, dtype=None, input_type=None, truncate=None, normalize=None, extra=None)

    first, second, third = exchange.bodies
    assert first == third
    assert (first["output_dimension"], first["embedding_types"], first["input_type"], first["truncate"]) == (
        64, ["int8"], "search_query", "END",
    )  # fmt: skip
    assert (second["output_dimension"], second["embedding_types"], second["input_type"], second["truncate"]) == (
        256, ["float"], "search_document", "NONE",
    )  # fmt: skip
    assert [("a" in body, "b" in body) for body in exchange.bodies] == [(True, False), (False, True), (True, False)]


class Purpose(str):
    """A string of another class, as settings libraries and numpy make them."""

    __slots__ = ()


async def test_options_of_other_classes_are_taken_for_their_values():
    """Integers of numpy and any kind of string say what they say."""
    exchange = FakeExchange(whole)
    await embedkit.connect("cohere:embed-v9", api_key=KEY, exchange=exchange).embed(
        "a", dimensions=np.int64(64), input_type=Purpose("query"), truncate=np.str_("end"), dtype=Purpose("int8")
    )
    body = exchange.bodies[0]

    assert (body["output_dimension"], body["input_type"], body["truncate"], body["embedding_types"]) == (
        64, "search_query", "END", ["int8"],
    )  # fmt: skip


async def test_extra_goes_into_the_body_verbatim():
    """Nested values, nulls and fields embedkit itself would send: all as given, the last word being the caller's."""
    extra = {
        "user": "é",
        "nested": {"a": [1, None, 2.5]},
        "nothing": None,
        "encoding_format": "float",
        "model": "other",
    }
    exchange = FakeExchange(echo("openai"))
    await embedkit.connect(**OPENAI, exchange=exchange).embed("a", extra=extra)

    assert exchange.bodies == [{"input": ["a"], **extra}]


@pytest.mark.parametrize("value", [object(), {1, 2}.__iter__(), "\ud800", lambda: 1])
async def test_extra_that_is_no_json_is_refused_before_sending(value):
    """What cannot be written is a ConfigError about `extra`, from connect's as from the call's."""
    exchange = FakeExchange([])
    for connected, called in (({"a": value}, None), (None, {"a": value})):
        with pytest.raises(ConfigError, match="extra cannot be written as JSON"):
            await embedkit.connect(**OPENAI, exchange=exchange, extra=connected).embed("a", extra=called)

    assert exchange.requests == []


# --- loops, threads, forks -------------------------------------------------------------------------------------------


def test_one_embedder_over_many_loops():
    """Two asyncio.run in a row, trio after asyncio, and back: the same embedder works on each loop."""
    server = Server()
    embedder = embedkit.connect(**OPENAI, exchange=server)
    for run in (asyncio.run, asyncio.run, lambda call: trio.run(lambda: call), asyncio.run):
        assert np.allclose(vector("a"), run(embedder.embed_query("a")))

    assert len(server.requests) == 4


def test_one_embedder_in_many_threads():
    """Threads with loops of their own share an embedder: each gets its rows, no loop is left behind."""
    embedder = embedkit.connect(**OPENAI, exchange=Server(), limits=Limits(max_texts=2))
    found = {}

    def work(number):
        for turn in range(5):
            texts = [f"{number} {turn} {each}" for each in range(5)]
            result = asyncio.run(embedder.embed(texts))
            found[number, turn] = np.allclose([vector(text) for text in texts], result.vectors)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 40
    assert all(found.values())
    assert len(embedder._transports) <= 8 + 1


def test_after_a_fork():
    """A child opens its own: a connection of the parent is neither used nor closed by it."""
    script = """if True:
        import asyncio, os, sys, embedkit
        from tests.embedders.test_http import OPENAI, Server
        server = Server()
        embedder = embedkit.connect(**OPENAI, exchange=server)
        asyncio.run(embedder.embed("a"))
        before = list(embedder._transports.values())
        child = os.fork()
        asyncio.run(embedder.embed("b"))
        line, = embedder._transports.values() if child == 0 else before[:1]
        who = "child" if child == 0 else "parent"
        os.write(1, f"{who} {len(server.requests)} {line in before} {server.closed}\\n".encode())
        if child:
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent.parent,
        check=False,
    )

    assert (found.returncode, found.stderr) == (0, "")
    assert sorted(found.stdout.splitlines()) == ["child 2 False 0", "parent 2 True 0"]


async def test_closing_is_closing_once():
    """aclose() before use, twice, and inside a block closes what is open once; a closed embedder opens again."""
    server = Server()
    embedder = embedkit.connect(**OPENAI, exchange=server)
    await embedder.aclose()
    assert server.closed == 0

    async with embedder:
        await embedder.embed("a")
    await embedder.aclose()
    assert server.closed == 1

    assert np.allclose(vector("b"), await embedder.embed_query("b"))
    await embedder.aclose()
    assert server.closed == 2


def test_an_embedder_nobody_closes_is_quiet():
    """Left to the garbage collector with an idle connection, it closes that without a warning, even out of a ring of
    references.
    """
    from aiohttp import web

    async def refuse(request):
        return web.json_response({"error": "no"}, status=401)

    async def on_asyncio():
        app = web.Application()
        app.router.add_post("/v1/embeddings", refuse)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        embedder = embedkit.connect("openai:m", api_key=KEY, base_url=f"http://127.0.0.1:{port}")
        embedder.itself = embedder
        with pytest.raises(AuthError):
            await embedder.embed("a")
        (line,) = embedder._transports.values()
        pool = weakref.ref(line.exchange._session.connector)
        assert pool()._conns
        del embedder, line
        gc.collect()
        for _ in range(9):  # the loop closes what is its own
            await asyncio.sleep(0)
        gc.collect()
        assert pool() is None
        await runner.cleanup()

    asyncio.run(on_asyncio())


async def test_an_exchange_may_be_any_object():
    """An exchange that is empty or false in a condition is used all the same: nothing real is opened in its place."""

    class Falsy(Server):
        def __len__(self):
            return 0

    server = Falsy()
    await embedkit.connect(**OPENAI, exchange=server).embed("a")

    assert len(server.requests) == 1


# --- pickles ---------------------------------------------------------------------------------------------------------


def traveled(embedder, protocol=pickle.HIGHEST_PROTOCOL):
    return pickle.loads(pickle.dumps(embedder, protocol))  # noqa: S301 (our own)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
async def test_a_pickle_carries_the_configuration(protocol):
    """Whatever connect() was told is told again by the copy: address, key, headers, options, limits, bounds."""
    embedder = embedkit.connect(
        "openai:m", api_key=KEY, base_url="http://host.test/own", exchange=Server(), headers={"X-A": "1"}, dimensions=8,
        extra={"user": "me"}, limits=Limits(max_texts=2), max_concurrency=3, retry=NOW, timeout=7, count_tokens=len,
        organization="org-1", normalize=True,
    )  # fmt: skip
    await embedder.embed("a")
    twin = traveled(embedder, protocol)
    result = await twin.embed(list("abc"))
    last = twin._exchange.requests[-1]

    assert repr(twin) == repr(embedder)
    assert (twin.limits, twin.max_concurrency) == (Limits(max_texts=2), 3)
    assert (twin.options, twin.count_tokens) == (embedder.options, embedder.count_tokens)
    assert twin.count_tokens("four") == 4
    assert last.url == "http://host.test/own/embeddings"
    assert (last.headers["authorization"], last.headers["x-a"], last.headers["openai-organization"]) == (
        f"Bearer {KEY}",
        "1",
        "org-1",
    )
    assert (json.loads(last.body)["dimensions"], json.loads(last.body)["user"]) == (8, "me")
    assert np.allclose([vector(text) for text in "abc"], result.vectors)


async def test_a_key_of_the_environment_travels_as_its_name(monkeypatch):
    """The pickle holds the variable's name, never the key; the copy reads it where it wakes up."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-environment")
    raw = pickle.dumps(embedkit.connect("openai:m", exchange=Server()))

    assert KEY.encode() not in raw
    assert b"org-environment" not in raw
    assert b"OPENAI_API_KEY" in raw

    monkeypatch.setenv("OPENAI_API_KEY", "of-another-process")
    twin = pickle.loads(raw)  # noqa: S301 (our own)
    await twin.embed("a")
    assert twin._exchange.requests[0].headers["authorization"] == "Bearer of-another-process"


async def test_a_variable_that_is_gone_is_named(monkeypatch):
    """Woken up where the variable is not set, the copy says which one, and sends nothing without a key."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    raw = pickle.dumps(embedkit.connect("openai:m", exchange=Server()))
    monkeypatch.delenv("OPENAI_API_KEY")
    twin = pickle.loads(raw)  # noqa: S301 (our own)
    with pytest.raises(ConfigError, match="the key comes from OPENAI_API_KEY, where there is none in this process"):
        await twin.embed("a")

    assert twin._exchange.requests == []


async def test_a_key_of_a_file_travels_as_the_file(monkeypatch, tmp_path):
    """Of Hugging Face's token file the pickle holds the place, not the content."""
    (tmp_path / "token").write_text(KEY)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    raw = pickle.dumps(embedkit.connect("huggingface:m", exchange=Server("huggingface")))
    twin = pickle.loads(raw)  # noqa: S301 (our own)
    await twin.embed("a")

    assert KEY.encode() not in raw
    assert twin._exchange.requests[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("observe", lambda _: None), ("count_tokens", lambda _: 1), ("api_key", lambda: KEY), ("exchange", FakeExchange(lambda _: {})),
        ("ssl", ssl.create_default_context()), ("extra", {"lock": threading.Lock()}),
    ],
)  # fmt: skip
def test_what_cannot_be_pickled_is_named(name, value):
    """The error names the keyword that stands in the way, not some object inside, and shows no key."""
    embedder = embedkit.connect(**{**OPENAI, name: value})
    with pytest.raises(ConfigError, match=f"^{name} .* cannot be pickled, so this embedder cannot") as caught:
        pickle.dumps(embedder)

    assert KEY not in str(caught.value)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
async def test_a_copy_stands_on_its_own(copied):
    """An embedder can be copied with what no pickle could hold; each has its own connections and learns for itself."""
    exchange = FakeExchange(echo("openai"))
    embedder = embedkit.connect(**OPENAI, exchange=exchange, observe=lambda _: None, count_tokens=lambda _: 1)
    await embedder.embed("a")
    twin = copied(embedder)
    await embedder.aclose()

    assert np.allclose(vector("b"), await twin.embed_query("b"))
    assert twin.observe is embedder.observe
    assert twin.options == embedder.options


def test_the_callers_session_is_not_pickled():
    """A session belongs to its loop: an embedder on one says so instead of traveling without it."""
    import aiohttp

    async def on_asyncio():
        async with aiohttp.ClientSession() as session:
            with pytest.raises(ConfigError, match="an embedder on the caller's own session cannot be pickled"):
                pickle.dumps(embedkit.connect(**OPENAI, session=session))

    asyncio.run(on_asyncio())


# --- usage and cost --------------------------------------------------------------------------------------------------


def with_usage(*tokens):
    """A handler whose replies report these token counts in turn; None: no usage at all."""
    counts = itertools.cycle(tokens)

    def handler(request):
        count = next(counts)
        body = json.loads(bytes(echo("openai")(request).body))
        return response(body if count is None else {**body, "usage": {"prompt_tokens": count, "total_tokens": count}})

    return FakeExchange(handler)


@pytest.mark.parametrize(
    ("model", "tokens", "usage"),
    [
        ("text-embedding-3-small", (7,), Usage(21, 3, 21 * 0.02 / 1e6)),
        ("text-embedding-3-large", (1, 2, 3), Usage(6, 3, 6 * 0.13 / 1e6)),
        ("text-embedding-3-small", (0,), Usage(0, 3, 0.0)),
        ("text-embedding-3-small", (7, None), Usage(None, 3, None)),
        ("text-embedding-3-small", (None,), Usage(None, 3, None)),
        ("unknown-model", (7,), Usage(21, 3, None)),
    ],
)
async def test_tokens_and_cost(model, tokens, usage):
    """Tokens are summed over batches, None where one reports none; the cost is known where tokens and price are."""
    embedder = embedkit.connect(
        f"openai:{model}", api_key=KEY, exchange=with_usage(*tokens), limits=Limits(max_texts=2)
    )
    found = (await embedder.embed(list("abcde"))).usage

    assert (found.tokens, found.requests) == (usage.tokens, usage.requests)
    assert found.cost == (None if usage.cost is None else pytest.approx(usage.cost))


async def test_a_server_that_counts_characters_reports_no_tokens():
    """Infinity's usage counts characters: it is not passed off as tokens."""
    assert (await embedkit.connect("infinity:m", exchange=with_usage(7)).embed("a")).usage == Usage(None, 1)


async def test_every_attempt_is_counted():
    """Retries, halves and the question about a bad text are requests too, also where a row was skipped."""
    answers = iter([response("", 503), response("", 503)])

    def handler(request):
        texts = texts_of(request)
        if (failure := next(answers, None)) is not None:
            return failure
        if len(texts) > 2:
            return response({"error": {"message": "max 300000 tokens per request"}}, 400)
        return response({"error": {"message": "bad text"}}, 400) if "bad" in texts else echo("openai")(request)

    exchange = FakeExchange(handler)
    result = await embedkit.connect(**OPENAI, exchange=exchange, retry=NOW, max_concurrency=1).embed(
        ["a", "b", "c", "bad"], on_error="skip"
    )

    assert result.usage.requests == len(exchange.requests)
    assert list(result.failures) == [3]


# --- errors ----------------------------------------------------------------------------------------------------------

LONG = "Invalid 'input[0]': maximum input length is 8192 tokens."
ERRORS = [
    (AuthError, 401, {"error": {"message": "Incorrect API key", "code": "invalid_api_key"}}, {}, {"code": "invalid_api_key"}),
    (AuthError, 403, {"error": {"message": "not for you"}}, {}, {}),
    (QuotaError, 402, {"error": "no credit"}, {}, {}),
    (QuotaError, 429, {"error": {"message": "You exceeded your current quota.", "code": "insufficient_quota"}}, {}, {"code": "insufficient_quota"}),
    (NotFoundError, 404, {"error": {"message": "no such model", "code": "model_not_found"}}, {}, {"code": "model_not_found"}),
    (RateLimitError, 429, {"error": {"message": "slow down"}}, {"Retry-After": "7"}, {"retryable": True, "retry_after": 7.0}),
    (TooLargeError, 413, {"error": {"message": "payload too large"}}, {}, {"rows": (0,)}),
    (TooLongError, 400, {"error": {"message": LONG, "code": None}}, {}, {"rows": (0,), "code": None}),
    (InvalidInputError, 422, {"detail": [{"loc": ["body", "input", 0], "msg": "bad text"}]}, {}, {"rows": (0,)}),
    (ServerError, 500, {"error": {"message": "oops", "type": "server_error"}}, {}, {"retryable": True, "code": "server_error"}),
    (ServerError, 501, {"error": {"message": "not here"}}, {}, {"retryable": False}),
    (ApiError, 418, {"error": {"message": "a teapot", "code": 7}}, {}, {"code": "7"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "status", "body", "headers", "more"), ERRORS, ids=lambda value: getattr(value, "__name__", None)
)
async def test_an_error_answers_every_question(kind, status, body, headers, more):
    """Each kind carries status, provider, model, request id, body, rows, and whether and when to try again."""
    known_good = shaped("openai", [vector("hello")])

    def handler(request):
        return (
            known_good
            if texts_of(request) == ["hello"]
            else response(body, status, {"X-Request-Id": "req-7", **headers})
        )

    embedder = embedkit.connect(**OPENAI, exchange=FakeExchange(handler), retry=ONCE)
    with pytest.raises(ApiError) as caught:
        await embedder.embed("a")
    error = caught.value

    assert type(error) is kind
    expected = {"retryable": False, "retry_after": None, "rows": (), "code": error.code, **more}
    assert {name: getattr(error, name) for name in expected} == expected
    assert (error.status, error.provider, error.model, error.request_id) == (
        status,
        "openai",
        "text-embedding-3-small",
        "req-7",
    )
    assert json.loads(error.body) == body
    assert error.message
    assert all(str(part) in str(error) for part in (error.message, status, "openai:text-embedding-3-small", "req-7"))
    twin = pickle.loads(pickle.dumps(error))  # noqa: S301 (our own)
    assert (type(twin), str(twin), twin.__dict__) == (kind, str(error), error.__dict__)


async def test_a_long_body_is_cut_to_an_excerpt():
    """An error keeps the start of a body, not megabytes of it."""
    page = "<html><title>Bad Gateway</title>" + "x" * 1_000_000
    with pytest.raises(ServerError) as caught:
        await embedkit.connect(**OPENAI, exchange=FakeExchange([response(page, 502)]), retry=ONCE).embed("a")

    assert caught.value.body == page[:2000]
    assert caught.value.message.startswith("an HTML page instead of JSON: Bad Gateway: xxx")
    assert len(caught.value.message) < 250


SECRET = "sk-secret-of-the-test"


@pytest.mark.parametrize("status", [200, 400, 401, 429, 500])
async def test_a_key_quoted_back_is_hidden(status):
    """A server that repeats the key, anywhere in its answer, does not get it into an error or an event."""
    basic = base64.b64encode(b"me:word-of-the-test").decode()
    body = {"error": {"message": f"{SECRET}, {basic}, {KEY}", "code": SECRET, "type": SECRET}}
    events = []
    embedder = embedkit.connect(
        "openai:m", api_key=SECRET, headers={"X-Token": KEY, "X-Basic": basic}, observe=events.append, retry=NOW,
        exchange=FakeExchange(lambda _: response(body, status, {"X-Request-Id": SECRET})),
    )  # fmt: skip
    with pytest.raises(embedkit.EmbedkitError) as caught:
        await embedder.embed("a")

    shown = [
        repr(caught.value),
        str(caught.value),
        str(caught.value.__dict__),
        *(f"{event!r} {event}" for event in events),
    ]
    shown += [f"{event.error} {event.error.__dict__}" for event in events if hasattr(event, "error")]
    for secret in (SECRET, KEY, basic):
        assert not [text for text in shown if secret in text]
    assert any(isinstance(event, RetryScheduled) for event in events) is (status in (429, 500))


async def test_a_broken_reply_shows_its_start_without_the_key():
    """A DecodeError quotes what came, but not a key in it."""
    exchange = FakeExchange([response(f"hello {SECRET}, this is no JSON")] * 2)
    with pytest.raises(DecodeError, match=r"unreadable reply: .*it starts with 'hello \*\*\*, this is no JSON'"):
        await embedkit.connect("openai:m", api_key=SECRET, exchange=exchange).embed("a")


async def test_one_batch_alone():
    """`embed_batch` sends one request and gives its rows, without planning."""
    exchange = FakeExchange(echo("openai"))
    embedder = embedkit.connect(**OPENAI, exchange=exchange, limits=Limits(max_texts=1))
    result = await embedder.embed_batch(["a", "b", "a"], embedkit.Options())

    assert np.allclose([vector(text) for text in "aba"], result.vectors)
    assert (len(exchange.requests), result.usage.requests) == (1, 1)


async def test_an_exchange_that_writes_into_headers_harms_nobody_else():
    """What one embedder's exchange puts into a request stays there: neither its next request nor another embedder
    carries it.
    """
    seen = []

    def meddling(request):
        seen.append(dict(request.headers))
        with contextlib.suppress(TypeError):
            request.headers["x-tenant"] = "a"
        return echo("openai")(request)

    for key in (None, "k"):
        for _ in range(2):
            embedder = embedkit.connect(
                "vllm:m", base_url="http://127.0.0.1:1/v1", api_key=key, exchange=FakeExchange(meddling)
            )
            for text in ("one", "two", "three"):
                await embedder.embed([text])

    assert len(seen) == 12
    assert not any("x-tenant" in headers for headers in seen)


@pytest.mark.parametrize(
    ("cache", "coalesce", "truncate", "notes"),
    [
        (None, False, None, [SHORTER]),
        ("v.cache", False, None, [SHORTER]),
        (None, True, None, [SHORTER]),
        ("v.cache", True, None, [SHORTER]),
        (None, False, "error", []),
    ],
)
async def test_a_text_that_is_too_long_says_how_it_can_be_embedded(tmp_path, cache, coalesce, truncate, notes):
    """One note names both ways, under a cache and coalesced too; none where the caller has chosen to be told."""
    said = {"error": {"message": "This model's maximum context length is 8192 tokens, however you requested 9000"}}
    settings = {"cache": tmp_path / cache} if cache else {}
    async with embedkit.connect(
        "openai:text-embedding-3-small",
        api_key="k",
        exchange=FakeExchange(lambda _: response(said, status=400)),
        coalesce=coalesce,
        **settings,
    ) as embedder:
        with pytest.raises(TooLongError) as caught:
            await embedder.embed("a " * 9_000, truncate=truncate)

    assert [note for note in getattr(caught.value, "__notes__", []) if "truncate" in note] == notes
