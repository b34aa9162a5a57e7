"""Embedders with a cache: what is known is not sent, what is sent is kept, and a cache that fails costs hits only."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import embedkit
from embedkit import (
    AuthError,
    ConfigError,
    Embeddings,
    InvalidInputError,
    Limits,
    RetryPolicy,
    SyncEmbedder,
    TransportTimeoutError,
    Usage,
)
from embedkit._embedders.cached import Cached
from embedkit.cache import Cache, CacheError, SQLiteCache
from embedkit.events import CacheRead
from embedkit.testing import FakeExchange, response
from tests.embedders.test_base import Own, rows, same
from tests.support.fake_replies import echo, texts_of

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


class Memory(Cache):
    """A cache of your own: the two methods, and what they were asked."""

    def __init__(self):
        self.rows = {}
        self.reads, self.writes, self.closed = [], [], 0

    def read(self, keys):
        self.reads.append(list(keys))
        return {key: self.rows[key] for key in keys if key in self.rows}

    def write(self, rows):
        self.writes.append(list(rows))
        self.rows |= rows

    def close(self):
        self.closed += 1


class Broken(Memory):
    """Raises what it is told to, where it is told to."""

    def __init__(self, error, where=("read", "write")):
        super().__init__()
        self.error, self.where = error, where

    def read(self, keys):
        self.reads.append(list(keys))
        if "read" in self.where:
            raise self.error
        return {key: self.rows[key] for key in keys if key in self.rows}

    def write(self, rows):
        self.writes.append(list(rows))
        if "write" in self.where:
            raise self.error
        self.rows |= rows


class Known(Own):
    """A custom embedder that says what decides its vectors, so that they may be kept."""

    def origin(self, options):
        return {"own": self.width}


def cached(inner=None, cache=None, **more):
    return Cached(Known() if inner is None else inner, Memory() if cache is None else cache, **more)


def sent(embedder):
    """The texts sent so far, in order."""
    return [text for call in embedder.inner.calls for text in call]


# --- hits ------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.text("abc", min_size=1, max_size=2), max_size=12), max_size=4), st.integers(1, 5))
async def test_it_is_the_inner_embedder_but_sends_each_text_once(calls, size):
    """Whatever is known of a call, with texts that come twice: every row is right and in its place, each text is sent
    once in all, and `cached` counts the rows that were not sent for.
    """
    embedder, known = cached(Known(size)), set()
    for texts in calls:
        result = await embedder.embed(texts)

        assert same(rows(texts) if texts else np.empty((0, 0)), result.vectors)
        assert result.usage.cached == sum(text in known for text in texts)
        assert result.usage.tokens == len(set(texts) - known)
        known |= set(texts)
    assert sorted(sent(embedder)) == sorted(known)


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "binary", "ubinary"])
async def test_a_hit_is_the_same_to_the_bit(tmp_path, dtype):
    """Of every dtype; usage says that nothing was sent, and that it cost nothing."""
    exchange = FakeExchange(echo("openai"))
    async with embedkit.connect(
        "openai:text-embedding-3-small", api_key="k", exchange=exchange, dtype=dtype, cache=tmp_path / "c"
    ) as embedder:
        first, again = await embedder.embed(["a", "b", "a"]), await embedder.embed(["a", "b", "a"])

    assert np.array_equal(first.vectors, again.vectors)
    assert (again.vectors.dtype, again.dtype, again.dimensions) == (first.vectors.dtype, dtype, first.dimensions)
    assert again.usage == Usage(tokens=0, requests=0, cost=0.0, cached=3)
    assert again.vectors.flags.c_contiguous
    assert again.vectors.flags.writeable
    assert len(exchange.requests) == 1


async def test_every_verb_uses_it(tmp_path):
    """`embed`, `embed_query` and `stream` read and write it, part by part."""
    embedder = cached(Known(4), SQLiteCache(tmp_path / "c"))
    for _ in range(2):
        assert same(rows(["q"])[0], await embedder.embed_query("q", input_type=None))
        async with embedder.stream(map(str, range(10))) as parts:
            found = [part async for part in parts]
    assert same(rows(list(map(str, range(10)))), np.concatenate([part.vectors for part in found]))
    assert [(part.start, part.usage.cached) for part in found] == [(0, 4), (4, 4), (8, 2)]
    assert (await embedder.embed(["q", "3"])).usage.cached == 2
    assert sorted(sent(embedder)) == sorted([*map(str, range(10)), "q"])
    await embedder.aclose()
    embedder.cache.close()


async def test_input_types_are_kept_apart():
    """A query never gets the vector of the document of the same words."""
    embedder = cached()
    await embedder.embed("a", input_type="document")
    await embedder.embed_query("a")

    assert sent(embedder) == ["a", "a"]


async def test_misses_are_planned_as_a_whole():
    """The texts that are missing fill requests of their own, without gaps for what is known."""
    embedder = cached(Known(50))
    await embedder.embed([str(number) for number in range(0, 100, 2)])
    await embedder.embed([str(number) for number in range(100)])

    assert [len(call) for call in embedder.inner.calls] == [50, 50]


def test_the_sync_wrapper_and_coalescing(tmp_path):
    """The cache stands before the queue of small calls, and works without an event loop of the caller's."""
    exchange = FakeExchange(echo("openai"))
    with embedkit.connect_sync(
        "openai:m", coalesce=True, api_key="k", exchange=exchange, cache=tmp_path / "c"
    ) as embedder:
        one, other = embedder.embed(["a", "b"]), embedder.embed(["b", "c"])
        part = next(embedder.stream(["a", "b", "c"]))

    assert np.array_equal(one.vectors[1], other.vectors[0])
    assert other.usage.cached == 1
    assert part.usage == Usage(0, 0, 0.0, 3)
    assert [texts_of(request) for request in exchange.requests] == [["a", "b"], ["c"]]


async def test_an_event_tells_of_hits():
    """`CacheRead` has the different texts, those found, and no text."""
    embedder, seen = cached(), []
    embedder.observe = seen.append
    await embedder.embed(["a", "b"])
    await embedder.embed(["a", "a", "c"])

    told = [(event.texts, event.found) for event in seen if isinstance(event, CacheRead)]
    assert told == [(2, 0), (2, 1)]


# --- what is not kept ------------------------------------------------------------------------------------------------


async def test_a_failed_row_stays_and_is_not_kept():
    """With `skip` a bad text keeps its row and its error, among hits and misses; the next call asks for it again."""
    embedder = cached(Known(bad=["x", "y"]))
    await embedder.embed(["a"], on_error="skip")
    for _ in range(2):
        embedder.inner.calls.clear()
        result = await embedder.embed(["x", "a", None, "b", "x", "y"], on_error="skip")

        assert sorted(result.failures) == [0, 2, 4, 5]
        assert all(error.rows == (row,) for row, error in result.failures.items())
        assert np.isnan(result.vectors[[0, 2, 4, 5]]).all()
        assert same(rows("ab"), result.vectors[[1, 3]])
    assert "b" not in sent(embedder)
    assert {"x", "y"} <= set(sent(embedder))
    assert len(embedder.cache.rows) == 2


async def test_all_rows_failed():
    """Hits keep their rows where everything else fails, with no width of its own: an empty text is not even sent."""
    embedder = cached()
    assert (await embedder.embed([""], on_error="skip")).vectors.shape == (1, 0)
    await embedder.embed("a")
    fresh = Cached(Known(), embedder.cache)
    result = await fresh.embed(["", "a"], on_error="skip")

    assert same(rows("a"), result.vectors[1:])
    assert np.isnan(result.vectors[0]).all()


async def test_an_error_names_the_callers_rows_and_keeps_what_was_paid():
    """With `raise` the rows are those of the whole call; `partial` has hits and what was embedded, which is kept."""
    embedder = cached(Known(2, workers=1, bad=["x"]))
    await embedder.embed(["h", "i"])
    texts = ["h", "a", "x", "b", "i", "x"]
    with pytest.raises(InvalidInputError) as caught:
        await embedder.embed(texts)

    assert caught.value.rows == (2, 5)
    done = [row for row in range(6) if not np.isnan(caught.value.partial.vectors[row]).all()]
    assert {0, 4} <= set(done)
    assert same(rows([texts[row] for row in done]), caught.value.partial.vectors[done])
    assert caught.value.partial.usage.cached == 2
    kept = len(embedder.cache.rows)
    assert kept == len({texts[row] for row in done})
    with pytest.raises(InvalidInputError) as caught:
        await embedder.embed(["", "h"])
    assert caught.value.rows == (0,)
    assert same(rows("h"), caught.value.partial.vectors[1:])


async def test_a_refused_key_leaves_the_hits():
    """An error about the request as a whole has no rows, and hands the hits out all the same."""
    exchange = FakeExchange(lambda request: response({"error": {"message": "no"}}, 401))
    embedder = Cached(embedkit.connect("openai:m", api_key="k", exchange=exchange), cache := Memory())
    keys = embedder._keys(embedder.options).of(["a"])
    cache.rows = {keys[0]: np.array([1, 2], "<f4").tobytes()}
    with pytest.raises(AuthError) as caught:
        await embedder.embed(["b", "a"])

    assert caught.value.rows == ()
    assert same(np.array([[np.nan, np.nan], [1, 2]]), caught.value.partial.vectors)


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_no_row_without_a_vector_is_kept(kind):
    """NaN, infinity and zeros are never written, wherever they come from."""
    embedder, cache = cached(), Memory()
    embedder.options = embedkit.Options(dtype=kind)
    from embedkit._batching.dedupe import UniqueTexts
    from embedkit._embedders.cached_call import CachedCall

    call = CachedCall(UniqueTexts(list("abcde"), accepts_empty=True, skip=True), embedder._keys(embedder.options), kind)
    vectors = np.array([[1, 2], [0, 0], [3, np.nan], [np.inf, 1], [4, 5]])
    vectors = vectors.astype(np.float32) if kind == "float32" else np.nan_to_num(vectors, posinf=0).astype(np.int8)
    made = Embeddings(vectors, failures={4: InvalidInputError("bad", rows=(4,))}, dtype=kind)

    assert call.write(cache.write, range(5), made) is None
    assert set(cache.rows) == {call.keys()[row] for row in ([0] if kind == "float32" else [0, 2, 3])}


async def test_texts_that_belong_together_are_neither_read_nor_written():
    """Where a vector depends on its neighbors, the cache is not asked."""
    exchange = FakeExchange(echo("openai"))
    embedder = Cached(embedkit.connect("jina:jina-embeddings-v3", api_key="k", exchange=exchange), cache := Memory())
    for _ in range(2):
        await embedder.embed(["a", "b"], extra={"late_chunking": True})
    assert not cache.reads + cache.writes
    for _ in range(2):
        await embedder.embed(["a", "b"])
    assert len(exchange.requests) == 3


async def test_an_embedder_that_says_nothing_of_itself_is_not_cached():
    """What decides the vectors of a custom embedder nobody knows: every call is handed on."""
    embedder = cached(Own())
    for _ in range(2):
        assert same(rows("a"), (await embedder.embed("a")).vectors)
    assert len(embedder.inner.calls) == 2


async def test_extra_that_is_no_json_is_refused_as_without_a_cache():
    """The error is the inner embedder's."""
    with pytest.raises(ConfigError, match="extra cannot be written as JSON"):
        await cached().embed("a", extra={"a": object()})


async def test_what_is_cut_elsewhere_meanwhile_is_not_kept():
    """A refusal that teaches a smaller limit while a call runs: its vectors have no key, and are not written."""

    class Learning(Known):
        long_text = "mean"

        def judge(self, texts):
            self.limits = Limits(max_texts=4, max_text_tokens=5)

    embedder = cached(Learning())
    embedder.inner.limits = Limits(max_texts=4, max_text_tokens=50)
    await embedder.embed("many words " * 20)
    assert not embedder.cache.writes
    await embedder.embed("other words " * 20)
    assert len(embedder.cache.writes) == 1


# --- another model under the same name -------------------------------------------------------------------------------


async def test_vectors_of_another_width_are_asked_for_anew():
    """Where misses come back wider than the hits, the model has changed: the hits are asked for too, and replaced."""
    embedder = cached()
    await embedder.embed(["a", "b"])
    later = Cached(Known(width=6), embedder.cache)
    later.inner.origin = embedder.inner.origin
    result = await later.embed(["a", "c", "b", "a"])

    assert same(rows(["a", "c", "b", "a"], 6), result.vectors)
    assert result.usage == Usage(tokens=3, requests=2, cached=0, cost=None)
    assert (await later.embed(["a", "b"])).usage.cached == 2


@pytest.mark.parametrize("junk", [b"", b"123", b"x" * 8, None])
async def test_a_row_of_another_size_is_a_miss(junk):
    """Junk in the cache is asked for and replaced, once the width is known or the others show it."""
    embedder = cached()
    await embedder.embed(["a", "b", "c"])
    keys = embedder._keys(embedder.options).of(["b"])
    embedder.cache.rows[keys[0]] = junk
    result = await embedder.embed(["a", "b", "c"])

    assert same(rows("abc"), result.vectors)
    assert result.usage.cached == 2
    assert (await embedder.embed(["a", "b", "c"])).usage.cached == 3


# --- a cache that fails ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (CacheError("the disk is full"), "the disk is full"),
        (ValueError("sk-secret"), "ValueError"),
        (OSError(5, "x"), "OSError"),
    ],
)
async def test_a_cache_that_fails_costs_hits_and_one_warning(caplog, error, shown):
    """Every call is answered. The cache is left alone for 1 s, 2 s … 60 s, then asked again; each trouble is told once;
    only a CacheError is quoted.
    """
    now = [0.0]
    embedder = cached(Known(), Broken(error), clock=lambda: now[0])
    with caplog.at_level(logging.INFO, "embedkit"):
        for step in range(200):
            now[0] = float(step)
            assert same(rows("ab"), (await embedder.embed(["a", "b"])).vectors)

    assert len(embedder.cache.reads) == len(embedder.cache.writes) == 9  # after 0, 1, 3, 7, 15, 31, 63, 123, 183 s
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
        f"the cache is not read for 1 s: {shown}"
    ]
    assert "sk-secret" not in caplog.text
    embedder.cache.where = ()
    now[0] = 1000.0
    await embedder.embed(["a", "b"])
    assert (await embedder.embed(["a", "b"])).usage.cached == 2


async def test_reading_goes_on_where_writing_fails():
    """A full disk costs what is new; what was kept before is still read."""
    embedder = cached(Known(), Broken(CacheError("full"), where=()))
    await embedder.embed("a")
    embedder.cache.where = ("write",)
    await embedder.embed("b")
    result = await embedder.embed(["a", "b"])

    assert result.usage.cached == 1
    assert len(embedder.cache.writes) == 2


async def test_calls_that_wait_for_a_cache_that_fails_go_on_without():
    """Of many calls at once only those that had their turn meet the failure: the others do not wait for theirs."""
    import anyio

    embedder = cached(Known(), Broken(CacheError("gone")))
    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(embedder.embed, str(number))

    assert len(embedder.cache.reads) <= 8
    assert len(embedder.cache.writes) == 1
    assert len(sent(embedder)) == 50


class Stuck(Memory):
    """Answers when its gate is opened."""

    def __init__(self, where):
        super().__init__()
        self.where, self.gate = where, threading.Event()

    def read(self, keys):
        if self.where == "read":
            self.gate.wait(30)
        return super().read(keys)

    def write(self, rows):
        if self.where == "write":
            self.gate.wait(30)
        super().write(rows)


async def test_the_time_of_a_call_bounds_the_cache_too():
    """A cache that hangs while it is read ends a call whose time is over; while it is written, the result is handed
    out when the time is over.
    """
    embedder = cached(cache=Stuck("read"))
    with pytest.raises(TransportTimeoutError):
        await embedder.embed("a", total_timeout=0.05)
    embedder.cache.gate.set()
    embedder = cached(cache=Stuck("write"))
    assert same(rows("a"), (await embedder.embed("a", total_timeout=0.05)).vectors)
    embedder.cache.gate.set()


@pytest.mark.parametrize("content", [b"my diary\n" * 1000, bytes(10_000)])
async def test_a_file_that_is_no_cache(tmp_path, caplog, content):
    """A wrong or damaged file costs a warning: the call goes on."""
    (tmp_path / "c").write_bytes(content)
    exchange = FakeExchange(echo("openai"))
    with caplog.at_level(logging.WARNING, "embedkit"):
        async with embedkit.connect("openai:m", api_key="k", exchange=exchange, cache=tmp_path / "c") as embedder:
            for _ in range(5):
                await embedder.embed("a")

    assert len(caplog.records) == 1
    assert str(tmp_path / "c") in caplog.text


# --- loops, threads, forks, pickles ----------------------------------------------------------------------------------


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_several_event_loops_share_an_embedder(tmp_path):
    """Two threads with a loop each, one embedder, one cache: nothing is mixed up."""
    embedder = cached(Known(64, width=8), SQLiteCache(tmp_path / "c"))

    def work(start):
        async def run():
            for number in range(start, start + 30):
                texts = [str(each) for each in range(number, number + 20)]
                assert same(rows(texts, 8), (await embedder.embed(texts)).vectors)

        asyncio.run(run())

    with ThreadPoolExecutor() as threads:
        await asyncio.gather(
            *(asyncio.get_running_loop().run_in_executor(threads, work, each) for each in (0, 10, 500))
        )
    await embedder.embed([str(number) for number in range(20)])
    assert len(embedder._turns) == 1  # those of closed loops are let go
    embedder.cache.close()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_pickled_embedder_finds_what_the_first_has_kept(tmp_path):
    """The configuration travels, the cache's place with it."""
    embedder = embedkit.connect("openai:m", api_key="k", exchange=None, cache=tmp_path / "c")
    embedder.inner._exchange = FakeExchange(echo("openai"))
    first = await embedder.embed(["a", "b"])
    embedder.inner._exchange = None
    copy = pickle.loads(pickle.dumps(embedder))  # noqa: S301 (our own)
    result = await copy.embed(["b", "a"])

    assert np.array_equal(first.vectors[::-1], result.vectors)
    assert result.usage.requests == 0
    for each in (embedder, copy):
        await each.aclose()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_after_a_fork(tmp_path):
    """A child goes on with the cache of its parent, and finds in it what the parent keeps."""
    exchange = FakeExchange(echo("openai"))
    embedder = embedkit.connect_sync("openai:m", api_key="k", exchange=exchange, cache=tmp_path / "c")
    embedder.embed(["a", "b"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: forking beside a thread
        child = os.fork()
    if not child:
        good = False
        try:
            good = embedder.embed(["a", "b"]).usage.cached == 2 and embedder.embed("child").usage.requests == 1
            embedder.close()
        finally:
            os._exit(not good)
    status = os.waitpid(child, 0)[1]

    assert os.waitstatus_to_exitcode(status) == 0
    assert embedder.embed(["child", "a"]).usage.cached == 2
    embedder.close()


async def test_closing_closes_a_cache_of_its_own():
    """A cache that was handed over stays open: others may use it. One made from a path is closed, and opens again."""
    embedder = cached()
    await embedder.aclose()
    assert not embedder.cache.closed
    embedder = cached(owned=True)
    await embedder.aclose()
    assert embedder.cache.closed == 1
    await embedder.embed("a")
    assert (await embedder.embed("a")).usage.cached == 1


@pytest.mark.parametrize("wrong", [5, b"path", ["a"], object(), True])
def test_what_is_no_cache_is_refused(wrong):
    """`cache=` takes a path, a URL or a Cache; anything else is named."""
    with pytest.raises(ConfigError, match=r"cache is \w+; it takes"):
        embedkit.connect("openai:m", api_key="k", cache=wrong)
    with pytest.raises(ConfigError, match="redis://"):
        embedkit.connect("openai:m", api_key="k", cache="http://host/")


def test_any_kind_of_embedder_takes_one(tmp_path):
    """Over HTTP, a pool, the bundled model: the cache is outermost, and shows what the inner one shows."""
    for keywords in (
        {"model": "openai:m", "api_key": "k"}, {"model": "openai:m", "api_key": ["k", "l"], "coalesce": True},
        {"model": "local:all-minilm-l6-v2"},
    ):  # fmt: skip
        embedder = embedkit.connect(**keywords, cache=tmp_path / "c")

        assert isinstance(embedder, Cached)
        assert embedder.model == embedder.inner.model
        assert embedder._keys(embedder.options) is not None
        assert repr(embedder).endswith(f"with SQLiteCache('{tmp_path / 'c'}')>")
    assert isinstance(SyncEmbedder(embedder).embedder, Cached)
    assert not (tmp_path / "c").exists()


async def test_a_retry_is_nothing_to_the_cache():
    """Attempts that fail count as requests; the row is kept once."""
    answers = iter([response({}, 503), echo("openai")])

    def handler(request):
        answer = next(answers)
        return answer(request) if callable(answer) else answer

    exchange = FakeExchange(handler)
    embedder = Cached(
        embedkit.connect("openai:m", api_key="k", exchange=exchange, retry=RetryPolicy(initial=0, maximum=0)), Memory()
    )

    assert (await embedder.embed(["a", "b"])).usage.requests == 2
    assert (await embedder.embed(["a", "b"])).usage.requests == 0
