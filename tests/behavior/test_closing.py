"""Closing with calls in flight: one rule for every kind of embedder and every place where a call can wait."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import threading
import time
from contextlib import asynccontextmanager

import anyio
import numpy as np
import pytest

import embedkit
from embedkit import (
    ClosedError,
    Embedder,
    EmbedkitError,
    Limits,
    Options,
    Rate,
    RateLimitError,
    RetryPolicy,
    SyncEmbedder,
)
from embedkit._calls import Calls
from embedkit.testing import FakeEmbedder, FakeExchange, response
from tests.embedders.test_http import OPENAI
from tests.support.fake_replies import echo
from tests.support.servers.wire import Threaded, heard

pytestmark = pytest.mark.anyio
KINDS = {
    "plain": {},
    "one at a time": {"max_concurrency": 1},
    "coalesce": {"coalesce": True},
    "coalesce, waiting": {"coalesce": 60.0},
    "hedge": {"hedge": 0.5},
    "pool": {"api_key": ["a", "b"]},
    "pool, coalesce, hedge": {"api_key": ["a", "b"], "coalesce": True, "hedge": 0.5},
    "paced": {"rate": Rate(requests_per_minute=0.001)},
}
SOON = 5.0  # seconds; a call that waits on would wait for ever


class Stuck:
    """A handler that answers nobody until it is let go; `hands`: what it says to those it refuses at once."""

    def __init__(self, refusal=None):
        self.waiting = 0
        self.open = False
        self.refusal = refusal

    async def __call__(self, request):
        if self.open:
            return echo("openai")(request)
        if self.refusal is not None:
            return self.refusal
        self.waiting += 1
        try:
            await anyio.sleep(3600)
        finally:
            self.waiting -= 1


def opened(handler, **settings):
    return embedkit.connect(**{**OPENAI, "exchange": FakeExchange(handler), **settings})


VERBS = {
    "embed": lambda embedder: embedder.embed([f"text {number}" for number in range(40)]),
    "embed one": lambda embedder: embedder.embed("a"),
    "embed_query": lambda embedder: embedder.embed_query("b"),
    "embed_batch": lambda embedder: embedder.embed_batch(["c"], Options()),
    "stream": lambda embedder: read(embedder.stream(str(number) for number in range(2000))),
}


async def read(stream):
    async with stream as parts:
        async for _ in parts:
            pass


@asynccontextmanager
async def calling(embedder, verbs=VERBS):
    """All verbs, several times each, in flight; in the end each has to have raised ClosedError."""
    ends = []

    async def call(verb):
        try:
            await verb(embedder)
        except EmbedkitError as error:
            ends.append(error)
        else:
            ends.append(None)

    with anyio.fail_after(SOON):
        async with anyio.create_task_group() as group:
            for verb in 3 * list(verbs.values()):
                group.start_soon(call, verb)
            await anyio.wait_all_tasks_blocked()
            yield ends
    assert len(ends) == 3 * len(verbs)
    assert {type(each) for each in ends} == {ClosedError}, ends
    assert not any(each.retryable for each in ends)
    assert all("embedder was closed" in str(each) for each in ends)


@pytest.mark.parametrize("kind", KINDS)
async def test_every_call_ends(kind):
    """Whatever it waits for, a call in flight ends with ClosedError,
    is over when aclose returns, and a later one opens anew.
    """
    handler = Stuck()
    settings = {"limits": Limits(max_texts=8), **KINDS[kind]}
    embedder = opened(handler, **settings)
    async with calling(embedder) as ends:
        assert not ends
        await embedder.aclose()
        assert handler.waiting == 0
        await embedder.aclose()
    handler.open = True
    if kind != "paced" and "waiting" not in kind:
        assert (await embedder.embed([str(number) for number in range(20)])).vectors.shape[0] == 20
    await embedder.aclose()


@pytest.mark.parametrize("kind", ["plain", "coalesce", "pool", "hedge"])
async def test_between_two_tries(kind):
    """A call that waits for its next try ends too, and sends nothing more."""
    exchange = FakeExchange(lambda request: response({"error": "too fast"}, 429, {"retry-after": "100"}))
    embedder = embedkit.connect(**{**OPENAI, "exchange": exchange, "retry": RetryPolicy(deadline=None), **KINDS[kind]})
    async with calling(embedder):
        await embedder.aclose()
        sent = len(exchange.requests)
        await anyio.sleep(0.05)
        assert len(exchange.requests) == sent


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("kind", ["plain", "pool", "hedge"])
def test_on_both_loops(kind, backend):
    """The same without asyncio."""

    async def main():
        handler = Stuck()
        embedder = opened(handler, **KINDS[kind])
        async with calling(embedder):
            await embedder.aclose()
            assert handler.waiting == 0

    anyio.run(main, backend=backend)


class Slow(Embedder):
    """Of a user, with an aclose of its own that knows nothing of the rule."""

    provider, model = "own", "slow"
    limits = Limits(max_texts=2)

    def __init__(self, *, calls_super=False):
        self.running = self.closed = 0
        self.seen = []
        self.calls_super = calls_super

    async def embed_batch(self, texts, options):
        self.running += 1
        try:
            await anyio.sleep(3600)
        finally:
            self.running -= 1

    async def aclose(self):
        self.seen.append(self.running)
        self.closed += 1
        if self.calls_super:
            await super().aclose()


@pytest.mark.parametrize("calls_super", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
async def test_an_embedder_of_ones_own(wrapped, calls_super):
    """Its aclose runs once, when its calls have ended; a subclass of it too."""

    class Slower(Slow):
        pass

    inner = Slower(calls_super=calls_super)
    embedder = embedkit._embedders.coalescing.Coalesced(inner) if wrapped else inner
    verbs = {name: verb for name, verb in VERBS.items() if name != "embed_batch"}
    async with calling(embedder, verbs):
        await embedder.aclose()
        assert (inner.seen, inner.closed) == ([0], 1)


async def test_a_call_that_closes_its_own_embedder():
    """It is not ended by itself, and does not wait for itself."""

    class Odd(FakeEmbedder):
        async def embed_batch(self, texts, options):
            await self.aclose()
            return await super().embed_batch(texts, options)

    with anyio.fail_after(SOON):
        assert (await Odd().embed(["a"])).vectors.shape == (1, 8)


async def test_a_call_that_cannot_be_interrupted_gives_its_result():
    """What takes no cancellation goes on; its caller is not left with a cancelled task."""

    class Stubborn(FakeEmbedder):
        async def embed_batch(self, texts, options):
            with anyio.CancelScope(shield=True):
                for _ in range(5):
                    try:
                        await asyncio.sleep(0.01)
                    except asyncio.CancelledError:
                        continue
            return await super().embed_batch(texts, options)

    embedder, found = Stubborn(), []

    async def call():
        found.append((await embedder.embed(["a"])).vectors.shape)
        await asyncio.sleep(0.01)
        found.append(asyncio.current_task().cancelling())

    task = asyncio.create_task(call())
    await anyio.wait_all_tasks_blocked()
    await embedder.aclose()
    await task

    assert found == [(1, 8), 0]


async def test_a_caller_cancelled_meanwhile_stays_cancelled():
    """Where the caller is cancelled in the same moment, or gives up first, that is what it sees."""
    for first in ("caller", "close"):
        embedder = opened(Stuck())
        task = asyncio.create_task(embedder.embed("a"))
        await anyio.wait_all_tasks_blocked()
        if first == "caller":
            task.cancel()
        closing = asyncio.create_task(embedder.aclose())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task, closing])
        assert task.cancelled() or isinstance(task.exception(), ClosedError)
        assert task.cancelled() or first == "close"


@pytest.mark.parametrize("kind", ["plain", "coalesce", "pool"])
async def test_the_callers_timeout_is_no_business_of_closing(kind):
    """A timeout around a call that closing has ended does not fire, and the task can be cancelled as ever."""
    embedder = opened(Stuck(), **KINDS[kind])

    async def call():
        with pytest.raises(ClosedError):
            async with asyncio.timeout(0.3):
                await embedder.embed("a")
        assert asyncio.current_task().cancelling() == 0
        async with asyncio.timeout(1):
            await asyncio.sleep(0.4)

    task = asyncio.create_task(call())
    await anyio.wait_all_tasks_blocked()
    await embedder.aclose()
    await task


async def test_who_calls_again_at_once_does_not_keep_it_from_returning():
    """A caller in a loop without a pause gets its errors, then opens the embedder anew."""
    handler, stop = Stuck(), False
    embedder = opened(handler)
    errors = []

    async def insist():
        while not stop:
            try:
                await embedder.embed("a")
            except ClosedError as error:
                errors.append(error)

    tasks = [asyncio.create_task(insist()) for _ in range(5)]
    await anyio.wait_all_tasks_blocked()
    with anyio.fail_after(SOON):
        await embedder.aclose()
        await anyio.wait_all_tasks_blocked()
    assert len(errors) in (5, 10)
    stop = True
    await embedder.aclose()
    await asyncio.wait(tasks)


async def test_a_stream_gives_what_is_ready():
    """Parts that are done come out before the ClosedError; a stream not yet begun opens the embedder again."""
    ready = asyncio.Event()

    class Half(FakeEmbedder):
        limits = Limits(max_texts=2)

        async def embed_batch(self, texts, options):
            if texts[0] == "4" and not ready.is_set():
                await asyncio.sleep(3600)
            return await super().embed_batch(texts, options)

    embedder = Half(limits=Limits(max_texts=2))
    embedder.max_concurrency = 1
    stream, later = embedder.stream(map(str, range(8))), embedder.stream(map(str, range(8)))
    first = await anext(stream)
    await anyio.wait_all_tasks_blocked()
    await embedder.aclose()
    second = await anext(stream)
    assert (first.start, second.start) == (0, 2)
    with pytest.raises(ClosedError):
        await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    ready.set()
    assert [part.start async for part in later] == [0, 2, 4, 6]


async def test_a_stream_whose_source_is_slow():
    """The reader waits for the source, not for an answer: it ends all the same."""

    async def source():
        yield "a"
        await asyncio.sleep(3600)

    embedder = FakeEmbedder()
    reading = asyncio.create_task(anext(embedder.stream(source())))
    await anyio.wait_all_tasks_blocked()
    with anyio.fail_after(SOON):
        await embedder.aclose()
        with pytest.raises(ClosedError):
            await reading


def silent(connection, server):
    """Reads requests and never answers."""
    while heard(connection) is not None:
        pass


@pytest.mark.parametrize("kind", ["plain", "coalesce", "hedge", "pool"])
async def test_over_real_sockets(kind):
    """The connections are gone when aclose returns."""
    with Threaded(silent) as server:
        embedder = embedkit.connect("compatible:m", base_url=server.url, **{"api_key": "k", **KINDS[kind]})
        async with calling(embedder):
            await anyio.sleep(0.3)
            assert server.opened > 0
            started = time.monotonic()
            await embedder.aclose()
            assert time.monotonic() - started < 1.0
        for _ in range(100):
            if server.closed == server.opened:
                break
            await anyio.sleep(0.02)
        assert server.closed == server.opened


@pytest.mark.parametrize("kind", ["plain", "coalesce", "hedge", "pool", "own"])
def test_the_sync_wrapper_closed_from_another_thread(kind):
    """Every thread that waits hears of it at once."""
    with Threaded(silent) as server:
        embedder = (
            SyncEmbedder(Slow())
            if kind == "own"
            else embedkit.connect_sync("compatible:m", base_url=server.url, **{"api_key": "k", **KINDS[kind]})
        )
        ends = []

        def call(verb):
            try:
                ends.append(verb())
            except Exception as error:
                ends.append(error)

        verbs = [
            lambda: embedder.embed(["a"]),
            lambda: embedder.embed([str(number) for number in range(3000)]),
            lambda: embedder.embed_query("b"),
            lambda: list(embedder.stream(map(str, range(3000)))),
        ]
        threads = [threading.Thread(target=call, args=(verb,), daemon=True) for verb in verbs]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        assert not ends
        embedder.close()
        for thread in threads:
            thread.join(SOON)
        embedder.close()

    assert [type(each) for each in ends] == [ClosedError] * len(verbs)


async def test_other_loops_go_on():
    """Each loop closes its own: a call on the loop of the sync wrapper is none of this one's."""
    freed = threading.Event()

    class Patient(FakeEmbedder):
        async def embed_batch(self, texts, options):
            while not freed.is_set():
                await asyncio.sleep(0.01)
            return await super().embed_batch(texts, options)

    inner = Patient()
    elsewhere = asyncio.create_task(asyncio.to_thread(SyncEmbedder(inner).embed, ["a"]))
    await asyncio.sleep(0.2)
    await inner.aclose()
    freed.set()
    assert (await elsewhere).vectors.shape == (1, 8)


def test_what_is_in_flight_does_not_travel():
    """A copy, or one in another process, has no calls."""
    calls = Calls()
    calls._open.add(object())

    assert not copy.deepcopy(calls)._open
    assert not pickle.loads(pickle.dumps(calls))._open  # noqa: S301 (our own)


def test_the_error_is_what_people_would_catch():
    """An EmbedkitError, and the RuntimeError that other clients raise; never retryable, no rate limit, no outage."""
    assert issubclass(ClosedError, EmbedkitError)
    assert issubclass(ClosedError, RuntimeError)
    assert not issubclass(ClosedError, RateLimitError)
    assert not ClosedError("x").retryable


HALF = 16  # texts that are answered before everything hangs


class Halfway(Stuck):
    """Answers the first requests, until so many texts have come; then it refuses one request, and answers nobody."""

    def __init__(self, texts=HALF):
        super().__init__()
        self.left, self.refused = texts, False

    async def __call__(self, request):
        if self.left > 0:
            self.left -= len(json.loads(request.body)["input"])
            return echo("openai")(request)
        if not self.refused:
            self.refused = True
            return response({"error": {"message": "ill"}}, 503)
        return await super().__call__(request)


TOLD = {
    "single": {},
    "coalesce": {"coalesce": True},
    "pool": {"api_key": ["a", "b"]},
    "hedge": {"hedge": 0.5},
    "pool, coalesce, hedge": {"api_key": ["a", "b"], "coalesce": True, "hedge": 0.5},
    "total_timeout": {"total_timeout": 600.0},
}


@pytest.mark.parametrize("verb", ["embed", "embed one", "embed_query", "embed_batch", "stream"])
@pytest.mark.parametrize("kind", TOLD)
async def test_what_a_closed_call_has_sent_and_got_is_told(kind, verb, anyio_backend_name):
    """`attempts` and `elapsed` as with any other error, and `partial` where rows have come in."""
    many = verb in ("embed", "stream")
    handler = Halfway(HALF if many else 0)
    settings = {"limits": Limits(max_texts=8), "max_concurrency": 2, "retry": RetryPolicy(initial=0.0), **TOLD[kind]}
    embedder = opened(handler, **settings)
    ends = []

    async def call():
        try:
            await VERBS[verb](embedder)
        except ClosedError as error:
            ends.append(error)

    with anyio.fail_after(SOON):
        async with anyio.create_task_group() as group:
            group.start_soon(call)
            while not handler.waiting:
                await anyio.sleep(0.01)
            await embedder.aclose()
    (error,) = ends

    assert error.attempts >= (1 if verb == "stream" else 2)
    assert 0 < error.elapsed < SOON
    assert verb == "stream" or f"{error.attempts} attempts in" in str(error)
    assert (error.partial is not None) == (verb == "embed")
    if verb == "embed":
        assert np.isfinite(error.partial.vectors[:, 0]).sum() == HALF
        assert error.attempts >= HALF // 8 + 2


@pytest.mark.parametrize("kind", ["single", "pool"])
async def test_a_closed_call_that_sent_nothing_says_so(kind):
    """A call that waits for its turn has made no attempt."""
    embedder = opened(Stuck(), max_concurrency=1, **TOLD[kind])
    ends = []

    async def call(text):
        try:
            await embedder.embed_query(text)
        except ClosedError as error:
            ends.append(error.attempts)

    with anyio.fail_after(SOON):
        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(call, f"text {number}")
            await anyio.wait_all_tasks_blocked()
            await embedder.aclose()

    sent = 2 if kind == "pool" else 1
    assert sorted(ends) == [0] * (5 - sent) + [1] * sent


async def test_a_closed_call_cut_into_pieces_keeps_its_rows_in_place():
    """What has come in of long texts that are cut here, and of rows that hold no text, stands where the caller has
    it.
    """
    handler = Halfway()
    embedder = opened(handler, limits=Limits(max_texts=8), max_concurrency=1, retry=RetryPolicy(initial=0.0))
    texts = [None, *(f"text {number}" for number in range(40))]
    ends = []

    async def call():
        try:
            await embedder.embed(texts, on_error="skip")
        except ClosedError as error:
            ends.append(error)

    with anyio.fail_after(SOON):
        async with anyio.create_task_group() as group:
            group.start_soon(call)
            while handler.waiting < 1:
                await anyio.sleep(0.01)
            await embedder.aclose()

    assert np.isfinite(ends[0].partial.vectors[:, 0]).tolist() == [False] + [True] * HALF + [False] * 24
