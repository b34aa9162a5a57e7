"""`total_timeout=` and `timeout=`: a call has an end, says where
its time went, and keeps what is paid for. In virtual time.
"""

from __future__ import annotations

import asyncio
import functools
import json
import math
import re
import sys
import time
from decimal import Decimal

import anyio
import numpy as np
import pytest

import embedkit
from benchmarks.virtual import VirtualLoop
from embedkit import (
    ClosedError,
    ConfigError,
    Embedder,
    Embeddings,
    EmbedkitError,
    Limits,
    Rate,
    RateLimitError,
    RetryPolicy,
    ServerError,
    TransportTimeoutError,
)  # fmt: skip
from embedkit._calltime import CallTime
from embedkit._embedders.coalescing import Coalesced
from embedkit.events import RetryScheduled
from embedkit.testing import FakeEmbedder, FakeExchange, response
from tests.support.servers.wire import serving

FOUR = Limits(max_texts=4)
BOTH = ["http://a/v1", "http://b/v1"]
FOREVER = 1e9


def virtually(function):
    """Run the test in virtual time."""

    @functools.wraps(function)
    def test(*args, **keywords):
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(function(*args, **keywords))

    return test


def now():
    return asyncio.get_running_loop().time()


def clock():
    """Of the running loop; on another kind of loop the real one."""
    return now() if "asyncio" in sys.modules and asyncio._get_running_loop() else time.monotonic()


def texts_of(request):
    texts = json.loads(request.body)["input"]
    return [texts] if isinstance(texts, str) else texts


def good(request):
    rows = [{"index": row, "embedding": [1.0, 0.0]} for row, _ in enumerate(texts_of(request))]
    return response({"data": rows, "usage": {"total_tokens": 1}})


# --- what a provider may do ------------------------------------------------------------------------------------------


async def stalls(request):
    await asyncio.sleep(FOREVER)


async def fails(request):
    await asyncio.sleep(0.3)
    return response({"error": {"message": "ill"}}, 503)


async def refuses(request):
    await asyncio.sleep(0.1)
    return response({"error": {"message": "slow down"}}, 429, {"retry-after": "30"})


async def breaks_off(request):
    await asyncio.sleep(0.2)
    raise embedkit.TransportError("connection reset")


def stalls_for(text, seconds=0.2):
    async def answer(request):
        await asyncio.sleep(FOREVER if text in texts_of(request) else seconds)
        return good(request)

    return answer


class Own(Embedder):
    """A subclass as a user writes it, around a provider that has no client of ours."""

    def __init__(self, answer, limits=FOUR, **attributes):
        self.answer, self.limits = answer, limits
        vars(self).update(attributes)

    async def embed_batch(self, texts, options):
        found = await self.answer(embedkit._types.Request("", json.dumps({"input": list(texts)}).encode()))
        if found.status >= 300:
            kind = RateLimitError if found.status == 429 else ServerError
            raise kind("no", status=found.status, retryable=True)
        return Embeddings(np.ones((len(texts), 2), np.float32))


def http(answer, **settings):
    settings = {"base_url": "http://h/v1", "limits": FOUR, **settings}
    exchange = answer if isinstance(answer, FakeExchange) else FakeExchange(answer)
    embedder = embedkit.connect("compatible:m", exchange=exchange, **settings)
    inner = getattr(embedder, "inner", embedder)
    for each in (inner, *getattr(inner, "_embedders", ())):
        each._clock = clock
    return embedder


KINDS = {
    "one endpoint": http,
    "a pool": functools.partial(http, base_url=BOTH),
    "two keys": functools.partial(http, api_key=["k1", "k2"]),
    "coalesced": functools.partial(http, coalesce=True),
    "coalesced, waiting for company": functools.partial(http, coalesce=0.01),
    "a coalesced pool": functools.partial(http, base_url=BOTH, coalesce=True),
    "hedged": functools.partial(http, hedge=True),
    "a hedged pool": functools.partial(http, base_url=BOTH, hedge=True),
    "long texts": functools.partial(http, long_text="mean"),
    "one at a time": functools.partial(http, max_concurrency=1),
    "without an end of retries": functools.partial(http, retry=RetryPolicy(attempts=None, deadline=None)),
    "of one's own": Own,
    "of one's own, coalesced": lambda answer, **settings: Coalesced(Own(answer, **settings)),
}
WIRED = [name for name in KINDS if "own" not in name]
ILL = {"stalls": stalls, "fails": fails, "breaks off": breaks_off}


async def failure(call):
    began = now()
    with pytest.raises(EmbedkitError) as caught:
        await call
    return caught.value, now() - began


# --- the whole call --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ill", ILL)
@pytest.mark.parametrize("kind", KINDS)
@virtually
async def test_no_call_takes_longer(kind, ill):
    """Whatever goes wrong, at every kind of embedder, for `embed` and
    `embed_query`: it is over in time, and not retryable by itself.
    """
    for call in (lambda it: it.embed(["a"], total_timeout=2), lambda it: it.embed_query("a", total_timeout=2)):
        error, seconds = await failure(call(KINDS[kind](ILL[ill])))

        assert seconds <= 2.001
        if ill == "stalls":
            assert type(error) is TransportTimeoutError
            assert seconds == pytest.approx(2)
            assert not error.retryable
            assert error.attempts == 1
            assert error.elapsed == pytest.approx(2)


@pytest.mark.parametrize("kind", KINDS)
@virtually
async def test_the_error_says_where_the_time_went(kind):
    """Seconds for an answer, and how often it was sent."""
    error, _ = await failure(KINDS[kind](stalls).embed(["a"], total_timeout=2))

    assert "total_timeout=2 s" in str(error)
    assert "s for an answer" in str(error)
    assert "sent once" in str(error)


@virtually
async def test_every_phase_is_told():
    """Who waits for a turn, for an answer and between tries reads all three, and the seconds add up."""

    async def at_first(request):
        if texts_of(request) == ["first"]:
            await asyncio.sleep(3)
            return good(request)
        await asyncio.sleep(1)
        return response({"error": {"message": "ill"}}, 503, {"retry-after": "2"})

    embedder = http(at_first, max_concurrency=1)
    first = asyncio.ensure_future(embedder.embed_query("first"))
    await asyncio.sleep(1)
    error, seconds = await failure(embedder.embed_query("second", total_timeout=5.5))
    await first

    assert seconds == pytest.approx(5.5)
    assert "2.0 s for a turn" in str(error)
    assert re.search(r"\b2\.[012] s between tries", str(error))
    assert "s for an answer" in str(error)
    assert "the last failure was ServerError (status 503)" in str(error)
    assert error.attempts == 2
    assert "2 attempts in 5.5 s" in str(error)


@virtually
async def test_who_was_never_sent_is_told_so():
    """Behind a long request of our own: nothing was sent."""
    embedder = http(stalls, max_concurrency=1)
    first = asyncio.ensure_future(embedder.embed_query("first"))
    await asyncio.sleep(0)
    error, _ = await failure(embedder.embed_query("second", total_timeout=0.5))
    first.cancel()

    assert "nothing was sent" in str(error)
    assert "0.50 s for a turn" in str(error)
    assert (error.attempts, error.sent) == (0, False)


@pytest.mark.parametrize("kind", KINDS)
@virtually
async def test_what_is_paid_for_is_kept(kind):
    """16 texts in four batches, one of which stalls: `partial` holds the other twelve, each in its row."""
    error, seconds = await failure(
        KINDS[kind](stalls_for("x5")).embed([f"x{row}" for row in range(16)], total_timeout=5)
    )
    done = ~np.isnan(error.partial.vectors).any(axis=1)

    assert seconds == pytest.approx(5)
    assert type(error) is TransportTimeoutError
    if "one at a time" in kind:  # the others stood behind it
        assert done[:4].all()
    else:
        assert done.tolist() == [row not in range(4, 8) for row in range(16)]


@virtually
async def test_what_is_paid_for_is_kept_with_long_texts():
    """A text in pieces of which one stalls has no vector; the other texts have theirs."""
    embedder = http(
        stalls_for("dd "),
        long_text="mean",
        limits=Limits(max_texts=1, max_text_tokens=1),
        count_tokens=lambda text: len(text) // 3,
    )
    error, _ = await failure(embedder.embed(["aa bb ", "cc dd ", "ee "], total_timeout=3))

    assert np.isnan(error.partial.vectors).any(axis=1).tolist() == [False, True, False]


@virtually
async def test_skipping_rows_does_not_hide_the_end():
    """With on_error="skip" the end of the time is still the call's
    failure, and partial keeps the place of rows that are no text.
    """
    error, _ = await failure(
        http(stalls_for("x5")).embed([None, *(f"x{row}" for row in range(8))], on_error="skip", total_timeout=5)
    )

    assert np.isnan(error.partial.vectors).any(axis=1).tolist() == [True, *[row > 3 for row in range(8)]]


@pytest.mark.parametrize("kind", KINDS)
@virtually
async def test_who_is_answered_in_time_notices_nothing(kind):
    """The limit leaves no trace in a result."""
    result = await KINDS[kind](stalls_for("never")).embed([f"x{row}" for row in range(6)], total_timeout=5, timeout=4)

    assert result.vectors.shape == (6, 2)
    assert not np.isnan(result.vectors).any()


@virtually
async def test_of_connect_and_of_a_call():
    """What a call says wins over what `connect` was told, either
    way; at every kind, an embedder of one's own as an attribute.
    """
    for make in (http, functools.partial(http, base_url=BOTH), functools.partial(http, coalesce=True), Own):
        embedder = make(stalls, total_timeout=2)
        for seconds, given in ((2, None), (1, 1), (7, 7)):
            _, took = await failure(embedder.embed(["a"], total_timeout=given))
            assert took == pytest.approx(seconds)
            _, took = await failure(embedder.embed_query("a", total_timeout=given))
            assert took == pytest.approx(seconds)


@virtually
async def test_a_stream_has_no_end():
    """`total_timeout` of connect is not that of a stream: it takes as long as it takes."""
    embedder = http(stalls_for("never", 5), total_timeout=1)
    found = [part async for part in embedder.stream([f"x{row}" for row in range(40)])]

    assert sum(map(len, found)) == 40
    assert now() >= 5


# --- hints and quotas ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WIRED)
@virtually
async def test_a_hint_beyond_the_time_is_the_providers_error_at_once(kind):
    """Retry-After: 30, and two seconds left: nobody waits for them."""
    error, seconds = await failure(KINDS[kind](refuses).embed(["a"], total_timeout=2))

    assert seconds < 1
    assert type(error) is RateLimitError
    assert (error.status, error.retry_after) == (429, 30.0)


@pytest.mark.parametrize("kind", WIRED)
@virtually
async def test_who_comes_while_it_holds_is_told_at_once(kind):
    """The hint of another's refusal: the next caller with less time than
    that gets a RateLimitError that says how long, and nothing is sent.
    """
    embedder = KINDS[kind](refuses)
    for _ in range(2):  # both members of a pool
        with pytest.raises(RateLimitError):
            await embedder.embed(["a"], total_timeout=2)
    error, seconds = await failure(embedder.embed(["b"], total_timeout=2))

    assert seconds < 0.3
    assert type(error) is RateLimitError
    assert error.retry_after > 20


@virtually
async def test_a_known_quota_beyond_the_time():
    """A rate of one a minute, told by the caller: the second call
    with five seconds is refused at once, one with none waits.
    """
    embedder = http(stalls_for("never"), rate=Rate(requests_per_minute=1))
    await embedder.embed(["a"])
    error, seconds = await failure(embedder.embed(["b"], total_timeout=5))

    assert seconds == 0
    assert type(error) is RateLimitError
    assert error.status is None
    assert 55 < error.retry_after <= 60
    assert "keeps the next request waiting for" in str(error)
    assert "5.0 s left" in str(error)
    assert error.attempts == 0


@virtually
async def test_a_reported_quota_beyond_the_time():
    """`x-ratelimit-remaining-requests: 0`, back in a minute."""

    def answer(request):
        spent = {
            "x-ratelimit-limit-requests": "1",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "60",
        }
        return response(json.loads(good(request).body), 200, spent)

    embedder = http(answer)
    await embedder.embed(["a"])
    error, seconds = await failure(embedder.embed_query("b", total_timeout=5))

    assert seconds == 0
    assert type(error) is RateLimitError
    assert error.retry_after > 5


@virtually
async def test_who_has_no_time_left_is_not_told_of_a_rate():
    """Where nothing is owed, the end of the time is no rate limit."""
    time_of = CallTime(1e-9, None)
    await asyncio.sleep(1)
    time_of.refuse(0.0)

    with pytest.raises(RateLimitError):
        time_of.refuse(0.1)


# --- one attempt -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "without" not in kind])
@virtually
async def test_one_attempt_of_this_call(kind):
    """`timeout=` of a call cuts each attempt; those that follow have
    as much again, and the time of the whole call is another matter.
    """
    asked = []

    async def answer(request):
        asked.append(now())
        await asyncio.sleep(FOREVER)

    error, seconds = await failure(KINDS[kind](answer).embed(["a"], timeout=0.5))

    assert isinstance(error, TransportTimeoutError)
    assert "timeout=0.5 s" in str(error)
    assert error.attempts == len(asked)
    assert seconds >= 0.5 * len(asked) / (2 if "hedged" in kind else 1)
    assert "own" in kind or len(asked) == 6


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "without" not in kind and "own" not in kind])
@virtually
async def test_the_tries_of_an_impatient_call_lie_apart(kind):
    """Each endpoint is asked once without a pause; then tries that
    `timeout=` of the call cuts back off, at every kind of embedder.
    """
    waits = []

    def observe(event):
        if isinstance(event, RetryScheduled):
            waits.append(event.wait)

    _, seconds = await failure(KINDS[kind](stalls, observe=observe).embed(["a"], timeout=0.05))

    assert len(waits) == 5
    assert sum(wait > 0 for wait in waits) >= 2
    assert seconds >= sum(waits) + 0.05


@pytest.mark.anyio
@pytest.mark.parametrize("seconds", [0.2, 3.0])
async def test_it_wins_over_that_of_connect_on_the_wire(seconds):
    """Over a real socket: shorter and longer than what `connect` was told."""

    async def silent(talk):
        await asyncio.sleep(60)

    async with serving(silent) as server:
        embedder = embedkit.connect("compatible:m", base_url=server.url, timeout=1, retry=RetryPolicy(attempts=1))
        async with embedder:
            began = time.monotonic()
            with pytest.raises(TransportTimeoutError, match=f"within {seconds:g} s"):
                await embedder.embed(["a"], timeout=seconds)
            assert seconds <= time.monotonic() - began < seconds + 0.7


@virtually
async def test_an_impatient_caller_harms_nobody():
    """A `timeout` that no answer can keep is no sign of trouble:
    the window stays as wide, and no endpoint of a pool is left out.
    """
    for make in (http, functools.partial(http, base_url=BOTH)):
        embedder = make(stalls_for("never", 0.4), retry=RetryPolicy(attempts=1))
        members = getattr(embedder, "_embedders", [embedder])
        await asyncio.gather(*(embedder.embed_query(f"warm{number}") for number in range(60)))
        before = [each.window for each in members]
        for number in range(20):
            with pytest.raises(TransportTimeoutError):
                await embedder.embed_query(f"q{number}", timeout=0.05)

        assert [each.window for each in members] >= before
        assert not any(each.health.failing for each in getattr(embedder, "_members", []))


# --- coalescing ------------------------------------------------------------------------------------------------------


@virtually
async def test_a_shared_request_lives_as_long_as_its_longest_caller():
    """Three callers of one request: each has its error at its own time, and the one without a limit its vector."""
    exchange = FakeExchange(stalls_for("never", 4))
    embedder = http(exchange, coalesce=0.1)
    ends = {}

    async def call(name, **limits):
        try:
            await embedder.embed_query(name, **limits)
            ends[name] = (now(), "vector")
        except TransportTimeoutError as error:
            ends[name] = (now(), error)

    await asyncio.gather(call("a", total_timeout=1), call("b", total_timeout=2), call("c"))

    assert len(exchange.requests) == 1
    assert ends["a"][0] == pytest.approx(1)
    assert ends["b"][0] == pytest.approx(2)
    assert ends["c"] == (pytest.approx(4.1), "vector")
    assert "0.90 s for an answer, 0.10 s for a turn; sent once" in str(ends["a"][1])
    assert "total_timeout=2 s" in str(ends["b"][1])


@virtually
async def test_where_all_are_gone_it_ends():
    """With its longest caller's time the request is over too: nothing goes on for nobody."""
    ended = []

    async def answer(request):
        try:
            await asyncio.sleep(FOREVER)
        finally:
            ended.append(now())

    embedder = http(answer, coalesce=0.1)
    found = await asyncio.gather(
        embedder.embed_query("a", total_timeout=1), embedder.embed_query("b", total_timeout=2), return_exceptions=True
    )

    assert [type(each) for each in found] == [TransportTimeoutError, TransportTimeoutError]
    assert ended == [pytest.approx(2)]


@virtually
async def test_a_shared_hint_is_judged_by_the_longest_caller():
    """Retry-After: 30. Where one of them has time for it,
    nobody's request is given up; the other leaves at its own end.
    """
    answers = iter([refuses, None])

    async def answer(request):
        how = next(answers)
        return await how(request) if how else good(request)

    embedder = http(answer, coalesce=0.1)
    found = await asyncio.gather(
        embedder.embed_query("a", total_timeout=2), embedder.embed_query("b", total_timeout=60), return_exceptions=True
    )

    assert type(found[0]) is TransportTimeoutError
    assert "between tries" in str(found[0])
    assert found[1].shape == (2,)


@virtually
async def test_only_the_same_timeout_is_shared():
    """Calls of another `timeout` go in another request."""
    exchange = FakeExchange(stalls_for("never"))
    embedder = http(exchange, coalesce=0.1)
    await asyncio.gather(
        *(embedder.embed_query(f"{number}", timeout=limit) for number, limit in enumerate([None, 5, 5.0, 6, None]))
    )

    assert sorted(map(texts_of, exchange.requests)) == [["0", "4"], ["1", "2"], ["3"]]


@virtually
async def test_a_call_that_is_sent_again_alone_keeps_its_ledger():
    """Its first request, shared, fails for another's text; the seconds of both count."""

    async def answer(request):
        await asyncio.sleep(1)
        texts = texts_of(request)
        if len(texts) > 1 or "bad" in texts:
            return response({"data": [{"embedding": [1.0] * (2 + ("bad" in texts))} for _ in texts[1:]]})
        return await asyncio.sleep(FOREVER)

    embedder = http(answer, coalesce=0.1, retry=RetryPolicy(attempts=1))
    found = await asyncio.gather(
        embedder.embed_query("good", total_timeout=8),
        embedder.embed_query("bad", total_timeout=8),
        return_exceptions=True,
    )

    assert type(found[0]) is TransportTimeoutError
    assert found[0].elapsed == pytest.approx(8)
    assert found[0].attempts > 1


# --- beside others ---------------------------------------------------------------------------------------------------


@virtually
async def test_within_a_timeout_of_the_caller():
    """A caller's own `asyncio.timeout` inside that time ends it as ever, and beyond it our error comes first."""
    for kind in ("one endpoint", "a pool", "coalesced"):
        embedder = KINDS[kind](stalls)
        began = now()
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(1):
                await embedder.embed(["a"], total_timeout=2)
        assert (type(caught.value), now() - began) == (TimeoutError, pytest.approx(1))
        with pytest.raises(TransportTimeoutError):
            async with asyncio.timeout(5):
                await embedder.embed(["a"], total_timeout=2)
        await asyncio.sleep(10)  # nothing is left that would cancel this task


@virtually
async def test_closing_in_the_middle():
    """A call with a limit ends with ClosedError when its embedder is closed."""
    for kind in ("one endpoint", "a pool", "coalesced", "of one's own"):
        embedder = KINDS[kind](stalls)
        call = asyncio.ensure_future(embedder.embed(["a"], total_timeout=20))
        await asyncio.sleep(1)
        await embedder.aclose()
        with pytest.raises(ClosedError):
            await call


@virtually
async def test_many_at_once_each_at_its_own_end():
    """Forty calls of forty limits, on one window of four: every one is over when it said."""
    embedder = http(stalls, max_concurrency=4)

    async def call(number):
        _, seconds = await failure(embedder.embed_query(f"{number}", total_timeout=1 + number / 10))
        return seconds

    assert await asyncio.gather(*map(call, range(40))) == [pytest.approx(1 + number / 10) for number in range(40)]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_on_trio(anyio_backend):
    """The same on another event loop."""

    async def answer(request):
        await anyio.sleep(60)

    with pytest.raises(TransportTimeoutError, match=r"for an answer.*; sent once"):
        await http(answer).embed(["a"], total_timeout=0.3)
    with pytest.raises(TransportTimeoutError, match=r"timeout=0\.1 s"):
        await http(answer, retry=RetryPolicy(attempts=1)).embed(["a"], timeout=0.1)


def test_without_await():
    """The sync wrapper takes both, per call and from `connect_sync`."""

    async def answer(request):
        await asyncio.sleep(60)

    settings = {"base_url": "http://h/v1", "exchange": FakeExchange(answer)}
    with embedkit.connect_sync("compatible:m", **settings) as embedder:
        for call in (embedder.embed, embedder.embed_query):
            with pytest.raises(TransportTimeoutError, match=r"total_timeout=0\.05 s"):
                call("a", total_timeout=0.05)
            with pytest.raises(TransportTimeoutError, match=r"total_timeout=0\.2 s"):
                call("a", total_timeout=0.2, timeout=5)
    with (
        embedkit.connect_sync("compatible:m", total_timeout=0.05, **settings) as embedder,
        pytest.raises(TransportTimeoutError, match=r"total_timeout=0\.05 s"),
    ):
        embedder.embed_query("a")


@pytest.mark.anyio
async def test_the_local_model():
    """It honors the limit too, at the end of the part that is being computed."""
    pytest.importorskip("onnxruntime")
    embedder = embedkit.connect("local:all-minilm-l6-v2", total_timeout=0.3)
    try:
        await embedder.embed(["warm"], total_timeout=60)
    except ConfigError:
        pytest.skip("the model is not installed")
    with pytest.raises(TransportTimeoutError):
        await embedder.embed([f"{number} " * 100 for number in range(3000)])


# --- bad values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", [0, -1, -0.0, math.nan, math.inf, -math.inf, "5", True, False, b"5", [5], Decimal(5), 5j, object]
)
@pytest.mark.parametrize("name", ["timeout", "total_timeout"])
def test_a_bad_value_is_named(name, wrong):
    """Per call, on connect, async and sync: a ConfigError with the option's name and the value; nothing is sent."""
    exchange = FakeExchange([])
    settings = {"base_url": "http://h/v1", "exchange": exchange}

    async def calls():
        for embedder in (embedkit.connect("compatible:m", **settings), FakeEmbedder()):
            for call in (embedder.embed, embedder.embed_query):
                with pytest.raises(ConfigError, match=f"{name}=.*a positive number of seconds"):
                    await call("a", **{name: wrong})

    asyncio.run(calls())
    with pytest.raises(ConfigError, match=f"{name}=.*a positive number of seconds"):
        embedkit.connect_sync("compatible:m", **settings).embed("a", **{name: wrong})
    for more in ({}, {"base_url": BOTH}, {"coalesce": True}):
        with pytest.raises(ConfigError, match=f"^{name}=.*a positive number of seconds"):
            embedkit.connect("compatible:m", **{**settings, **more}, **{name: wrong})
    if name == "total_timeout":
        with pytest.raises(ConfigError, match=f"^{name}="):
            embedkit.connect("local:", total_timeout=wrong)


@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("timeout", "the default"),
        ("connect_timeout", "the default"),
        ("total_timeout", "no limit"),
        ("read_timeout", "no limit"),
    ],
)
def test_a_bad_value_says_what_holds_without_it(name, without):
    """`timeout=` that is left out is 120 s, not forever."""
    with pytest.raises(ConfigError, match=f"leave it out for {without}$"):
        embedkit.connect("compatible:m", base_url="http://h/v1", **{name: -1})


def test_a_call_without_limits_has_no_ledger(monkeypatch):
    """Nothing is made for it, so nothing is paid for it."""

    def never(*_):
        raise AssertionError

    monkeypatch.setattr(CallTime, "__init__", never)

    assert asyncio.run(http(good).embed(["a"])).vectors.shape == (1, 2)
