"""Real troubles of real caches under an embedder: they cost hits and one warning, never a call."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager

import anyio
import numpy as np
import pytest

import embedkit
from embedkit.cache import CacheError, RedisCache, sqlite
from embedkit.testing import FakeExchange
from tests.cache.test_redis import Valkey
from tests.cache.test_sqlite import mounted, sound
from tests.support.fake_replies import echo, vector

pytestmark = pytest.mark.anyio
TEXTS = [f"text number {number}" for number in range(400)]


@contextmanager
def small_disk(folder, size):
    """A file system of this size at a folder, or a skip."""
    if not sys.platform.startswith("linux") or not mounted(folder, size):
        pytest.skip("needs the right to mount a small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def corrupt(path, stack, cache):
    cache.close()  # what is in its log only would not be met
    with path.open("r+b") as file:
        file.seek(sqlite.PAGE)
        file.write(os.urandom(20 * sqlite.PAGE))


def removed(path, stack, cache):
    for each in path.parent.iterdir():
        each.unlink()


def locked(path, stack, cache):
    other = sqlite3.connect(path, isolation_level=None)
    stack.callback(other.close)
    other.execute("BEGIN IMMEDIATE")


def read_only(path, stack, cache):
    cache.close()  # a file that is open for writing keeps its disk from becoming read-only
    subprocess.run(["mount", "-o", "remount,ro", path.parent], check=True)


def full(path, stack, cache):
    with (path.parent / "all the rest").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(65_536))
    with pytest.raises(CacheError):  # nothing fits into the file and its log either
        for number in range(100):
            cache.write({os.urandom(16): bytes(100_000) for _ in range(number)})


@pytest.mark.parametrize("trouble", [corrupt, removed, locked, read_only, full], ids=lambda one: one.__name__)
async def test_what_happens_to_the_file_costs_no_call(trouble, tmp_path, caplog, monkeypatch):
    """In the middle of a run the file is overwritten, removed or locked, or its disk becomes full or read-only: every
    later call gets its vectors, and at most one warning says what is wrong.
    """
    monkeypatch.setattr(sqlite, "PATIENCE", 0.01)
    path, exchange = tmp_path / "c", FakeExchange(echo("openai"))
    with ExitStack() as stack:
        if trouble in (read_only, full):
            stack.enter_context(small_disk(tmp_path, "3m"))
        async with embedkit.connect("openai:m", api_key="k", exchange=exchange, cache=path) as embedder:
            embedder._clock = embedder._reads._clock = embedder._writes._clock = iter(range(0, 10**6, 100)).__next__
            await embedder.embed(TEXTS[:200])
            trouble(path, stack, embedder.cache)
            with caplog.at_level(logging.INFO, "embedkit"):
                for start in (0, 100, 200, 300, 0):
                    texts = TEXTS[start : start + 100]
                    found = await embedder.embed(texts)
                    assert np.array_equal(found.vectors, [vector(text) for text in texts])

        told = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(told) == (0 if trouble is removed else 1), told
        assert trouble is removed or told[0].startswith("the cache is not ")
    if trouble in (corrupt, removed, locked):
        assert sound(path)


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_a_redis_server_that_dies_mid_run_costs_no_call(how, caplog):
    """Killed or frozen while many calls are under way, then back: every call gets its vectors, few warnings say why, and
    the cache is used again in the end.
    """
    server, exchange = Valkey(), FakeExchange(echo("openai"))
    server.start()
    cache = RedisCache(server.url, timeout=0.2)
    embedder = embedkit.connect("openai:m", api_key="k", exchange=exchange, cache=cache)
    now = [0.0]
    embedder._clock = embedder._reads._clock = embedder._writes._clock = lambda: now[0]
    answered = [0]

    async def calls(first):
        for number in range(40):
            texts = TEXTS[(first + number) % 380 :][:20]
            found = await embedder.embed(texts)
            assert np.array_equal(found.vectors, [vector(text) for text in texts])
            answered[0] += 1
            if answered[0] == 60:
                server.process.send_signal(9 if how == "killed" else 19)
            await anyio.sleep(0.001)

    try:
        with caplog.at_level(logging.INFO, "embedkit"):
            async with anyio.create_task_group() as group:
                for first in range(0, 380, 50):
                    group.start_soon(calls, first)
        assert answered == [8 * 40]
        told = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
        assert 1 <= len(told) <= 2, told  # it was not read, or not written, for one reason or another
        if how == "killed":
            server.process.communicate()
            server.start()
        else:
            server.process.send_signal(18)
        now[0] += 1000
        await embedder.embed(TEXTS[:5])
        now[0] += 1000
        assert (await embedder.embed(TEXTS[:5])).usage.cached == 5
    finally:
        await embedder.aclose()
        cache.close()
        server.stop()
    assert threading.active_count() < 60
