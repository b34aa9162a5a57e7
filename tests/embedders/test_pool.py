"""Several endpoints or keys behind one embedder: who gets what, what becomes of failures, and which do not belong
together.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import pickle
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import anyio
import numpy as np
import pytest
import trio.testing
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

import embedkit
from benchmarks.pooling import figures
from benchmarks.virtual import VirtualLoop
from embedkit import (
    ApiError,
    AuthError,
    ConfigError,
    DecodeError,
    Embedder,
    InvalidInputError,
    Limits,
    QuotaError,
    RateLimitError,
    RetryPolicy,
    ServerError,
    SyncEmbedder,
    TooLargeError,
    TransportError,
)
from embedkit._embedders.known_text import AGREE
from embedkit._embedders.pool import Pool
from embedkit._traffic.endpoint_health import FADES, MAX_EJECTION, MIN_EJECTION, TOGETHER, EndpointHealth
from embedkit.errors import TransportTimeoutError
from embedkit.events import BatchDone, RequestSent, RetryScheduled
from embedkit.testing import FakeExchange, response
from tests.embedders.test_base import rows, same
from tests.sync.test_sync import STRICT, run

pytestmark = pytest.mark.anyio
HELLO = "hello"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    if request.param == "asyncio":
        return "asyncio", {"loop_factory": VirtualLoop}
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


class Endpoints:
    """Fake endpoints a, b, c …: each answers the vectors of `rows`, unless `says[name]` makes something else of (texts,
    number).

    `asked` holds (endpoint or key, texts) of every request; `takes` the seconds an answer of an endpoint takes.
    """

    def __init__(self, **says):
        self.says = says
        self.asked = []
        self.takes = {}
        self.flying = 0
        self.exchange = FakeExchange(self.answer)

    async def answer(self, request):
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        name = key if key in self.says else urlsplit(request.url).hostname
        texts = json.loads(request.body)["input"]
        self.asked.append((name, texts))
        number = self.count(name)
        self.flying += 1
        try:
            await anyio.sleep(self.takes[name]) if name in self.takes else await checkpoint()
        finally:
            self.flying -= 1
        said = self.says[name](texts, number) if name in self.says else None
        return good(texts) if said is None else said

    def count(self, name):
        return sum(each == name for each, _ in self.asked)

    def texts(self, name):
        """The texts that an endpoint was asked for, the one that tells models apart left out."""
        return [text for each, texts in self.asked for text in texts if each == name and text != HELLO]


def good(texts, width=4):
    return response(
        {"data": [{"embedding": row.tolist(), "index": place} for place, row in enumerate(rows(texts, width))]}
    )


def always(*said):
    """Says this whatever it is asked: the first thing first, the last from then on."""
    return lambda texts, number: said[min(number, len(said)) - 1]


def failing(status, message="no", **headers):
    return response(
        {"error": {"message": message}}, status, {name.replace("_", "-"): value for name, value in headers.items()}
    )


def connected(endpoints, names="abc", size=2, **keywords):
    settings = {
        "base_url": [f"http://{name}/v1" for name in names], "exchange": endpoints.exchange, "max_concurrency": 2,
        "limits": Limits(max_texts=size), **keywords,
    }  # fmt: skip
    embedder = embedkit.connect("compatible:m", **settings)
    virtual(embedder)
    return embedder


def virtual(embedder):
    pool = getattr(embedder, "inner", embedder)
    for each in (pool, *pool._embedders):
        each._clock = anyio.current_time


def texts_of(count):
    return [f"text {number}" for number in range(count)]


# --- one endpoint's health -------------------------------------------------------------------------------------------


def error(hint=None, kind=ServerError):
    return kind("down", status=503, retryable=True, retry_after=hint)


def test_who_fails_again_and_again_is_left_out_longer_and_longer():
    """A second, then twice as long each time, up to a bound; one good answer, and it begins anew."""
    health, now, times = EndpointHealth(), 0.0, []
    for _ in range(8):
        health.mark_failed(now, now, error())
        times.append(health.ejected_until - now)
        now = health.ejected_until

    assert times == [MIN_EJECTION, 2, 4, 8, MAX_EJECTION, MAX_EJECTION, MAX_EJECTION, MAX_EJECTION]

    health.mark_answered(now, 1.0, 1)
    health.mark_failed(now, now, error())

    assert health.ejected_until - now == MIN_EJECTION


def test_who_is_let_in_again_gets_one_request():
    """Until it has answered; then as many as its window holds."""
    health = EndpointHealth()

    assert health.room(0.0, 7) == 7

    health.mark_failed(0.0, 0.0, error())

    assert [health.room(now, 7) for now in (0.0, MIN_EJECTION - 0.01, MIN_EJECTION, 99.0)] == [0, 0, 1, 1]

    health.mark_answered(99.0, 1.0, 1)

    assert health.room(99.0, 7) == 7


def test_failures_that_were_under_way_count_once():
    """Ten requests that break together are one failure."""
    health = EndpointHealth()
    for _ in range(10):
        health.mark_failed(5.0, 4.0, error())

    assert health.ejected_until == 5.0 + MIN_EJECTION


@pytest.mark.parametrize("hints", [(30.0,), (None, 30.0), (30.0, None), (30.0, 2.0)])
def test_a_hint_is_kept_to(hints):
    """The longest hint counts, whichever of the failures that came together holds it."""
    health = EndpointHealth()
    for hint in hints:
        health.mark_failed(5.0, 4.0, error(hint))

    assert health.ejected_until == 35.0


def test_what_it_costs():
    """Nothing while unknown, more with every request in its window, less the longer ago it was seen, and most after a
    failure.
    """
    health = EndpointHealth()

    assert health.cost(0.0, 0.0) == 0

    health.mark_answered(0.0, 3.0, 30)

    assert health.cost(0.0, 0.0) == pytest.approx(0.1)
    assert health.cost(0.0, 0.5) == pytest.approx(0.15)
    assert health.cost(FADES, 0.0) == pytest.approx(0.05)

    health.mark_answered(0.0, 1.1, 1)

    assert health.cost(0.0, 0.0) == pytest.approx(0.3)

    health.mark_failed(0.0, 0.0, error())

    assert health.cost(0.0, 0.0) == math.inf


def test_where_all_fail_each_is_let_in_within_seconds():
    """Nobody else serves the callers meanwhile, so no endpoint is left out for long; but for one that named the time
    itself.
    """
    health = EndpointHealth()
    for _ in range(8):
        health.mark_failed(100.0, 100.0, error())
        health.ejected_until = -math.inf
    health.mark_failed(100.0, 100.0, error())

    assert health.back(alone=False) == 100.0 + MAX_EJECTION
    assert health.back(alone=True) == 100.0 + TOGETHER

    health.mark_failed(101.0, 101.0, error(60.0))

    assert health.back(alone=True) == health.back(alone=False) == 161.0


def test_one_that_answers_again_lets_in_the_others():
    """What failed together is tried together, but for one that named the time itself."""
    plain, told = EndpointHealth(), EndpointHealth()
    plain.mark_failed(0.0, 0.0, error())
    plain.mark_failed(MIN_EJECTION, MIN_EJECTION, error())
    told.mark_failed(0.0, 0.0, error(60.0))
    for each in (plain, told):
        each.hope(1.5)

    assert plain.room(1.5, 7) == 1
    assert told.room(59.0, 7) == 0


def test_an_answer_to_what_was_sent_before_the_failure_ends_nothing():
    """It was on its way already when the trouble began."""
    health = EndpointHealth()
    health.mark_failed(10.0, 9.0, error())
    health.mark_answered(10.5, 2.0, 1)

    assert health.failing


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 100), st.floats(0, 100), st.none() | st.floats(0, 50)), max_size=30)
)
def test_health_is_arithmetic(history):
    """Whatever happens, an endpoint is out for no longer than it asked or than the bound, and its cost is no less than
    nothing.
    """
    health, now, until = EndpointHealth(), 0.0, 0.0
    for answered, passed, took, hint in history:
        now += passed
        if answered:
            health.mark_answered(now, took, 3)
        else:
            health.mark_failed(now, now - took, error(hint))
            until = max(until, now + (MAX_EJECTION if hint is None else hint))

        assert health.ejected_until <= until
        assert health.cost(now, 0.5) >= 0
        assert (health.error is None) == (not health.failing)


# --- sharing the work ------------------------------------------------------------------------------------------------


async def test_all_endpoints_work():
    """Every endpoint gets texts, each text goes to one of them, and rows come back in input order."""
    endpoints = Endpoints()
    endpoints.takes = dict.fromkeys("abc", 1.0)
    texts = texts_of(60)
    result = await connected(endpoints).embed(texts)

    assert same(rows(texts), result.vectors)
    assert sorted(text for name in "abc" for text in endpoints.texts(name)) == sorted(texts)
    assert min(len(endpoints.texts(name)) for name in "abc") >= 16
    assert result.usage.requests == len(endpoints.asked) == 30 + 3


async def test_the_faster_gets_more():
    """Under load each endpoint gets what it can do: work is weighted by speed."""
    endpoints = Endpoints()
    endpoints.takes = {"a": 4.0, "b": 1.0}
    await connected(endpoints, "ab").embed(texts_of(200))

    assert 3 < len(endpoints.texts("b")) / len(endpoints.texts("a")) < 5


async def test_without_load_the_fastest_answers():
    """Calls one after the other go to the fastest, and to the others now and then: a slow start is forgiven."""
    endpoints = Endpoints()
    endpoints.takes = {"a": 5.0, "b": 1.0}
    embedder = connected(endpoints, "ab")
    await embedder.embed(texts_of(8))
    endpoints.asked.clear()
    for number in range(20):
        await embedder.embed(f"one {number}")

    assert len(endpoints.texts("b")) == 20

    endpoints.takes["a"] = 0.5
    await anyio.sleep(5 * FADES)
    for number in range(20):
        await embedder.embed(f"two {number}")

    assert len(endpoints.texts("a")) > 10


async def test_no_endpoint_gets_more_than_its_window():
    """`max_concurrency` holds for each endpoint."""
    endpoints, peak = Endpoints(), Counter()
    flying = Counter()

    async def answer(request):
        name = urlsplit(request.url).hostname
        flying[name] += 1
        peak[name] = max(peak[name], flying[name])
        await anyio.sleep(1.0)
        flying[name] -= 1
        return good(json.loads(request.body)["input"])

    endpoints.exchange = FakeExchange(answer)
    embedder = connected(endpoints, max_concurrency=3)
    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(embedder.embed, texts_of(60 + number))

    assert peak == {"a": 3, "b": 3, "c": 3}


async def test_who_waits_longest_is_served_first():
    """While the line is short, calls are answered in the order in which they came."""
    endpoints, done = Endpoints(), []
    endpoints.takes = dict.fromkeys("ab", 0.01)
    embedder = connected(endpoints, "ab", max_concurrency=1)

    async def call(number):
        await embedder.embed(f"text {number}")
        done.append(number)

    async with anyio.create_task_group() as group:
        for number in range(12):
            group.start_soon(call, number)
            await anyio.wait_all_tasks_blocked()

    assert all(abs(number - place) <= 1 for place, number in enumerate(done))


# --- failures --------------------------------------------------------------------------------------------------------

BROKEN = [
    failing(500),
    failing(503),
    TransportError("refused"),
    response("junk"),
    failing(404, "no such model"),
    good(["x"] * 5),
]


@pytest.mark.parametrize("broken", BROKEN, ids=["500", "503", "refused", "junk", "404", "five vectors"])
async def test_what_one_endpoint_fails_another_does(broken):
    """No text is lost, the others do the work, and the failed requests are counted and told."""
    events = []
    endpoints = Endpoints(b=always(broken))
    texts = texts_of(40)
    result = await connected(endpoints, observe=events.append).embed(texts)

    assert same(rows(texts), result.vectors)
    assert result.usage.requests == len(endpoints.asked)
    assert sum(isinstance(event, RequestSent) for event in events) == len(endpoints.asked)
    assert sum(isinstance(event, RetryScheduled) for event in events) == endpoints.count("b")
    assert sum(event.texts for event in events if isinstance(event, BatchDone)) == 40


async def test_a_dead_endpoint_is_asked_rarely():
    """Over a minute of work a dead endpoint is asked a handful of times, ever further apart."""
    endpoints = Endpoints(c=always(TransportError("refused")))
    endpoints.takes = dict.fromkeys("ab", 1.0)
    await connected(endpoints).embed(texts_of(480))

    assert 2 <= endpoints.count("c") <= 8


async def test_an_endpoint_that_comes_back_is_used_again():
    """Once it answers it gets its share of what is left."""
    endpoints = Endpoints(c=always(*[failing(503)] * 3, None))
    endpoints.takes = dict.fromkeys("abc", 1.0)
    texts = texts_of(240)
    result = await connected(endpoints).embed(texts)

    assert same(rows(texts), result.vectors)
    assert len(endpoints.texts("c")) > 40


async def test_without_load_nobody_waits_for_a_dead_endpoint():
    """While others have room, an endpoint that hangs is not tried: no single call pays for finding out."""
    endpoints = Endpoints(c=always(TransportError("refused")))
    embedder = connected(endpoints)
    await embedder.embed(texts_of(12))
    seen = endpoints.count("c")
    for number in range(20):
        await embedder.embed(f"one {number}")
        await anyio.sleep(60.0)

    assert endpoints.count("c") == seen


async def test_all_down_then_up():
    """While every endpoint is down calls wait, as patiently as `retry` says; when one comes back, all is done."""
    started = anyio.current_time()
    down = lambda texts, number: TransportError("refused") if anyio.current_time() - started < 20 else None  # noqa: E731
    endpoints = Endpoints(a=down, b=down, c=down)
    texts = texts_of(40)
    result = await connected(endpoints).embed(texts)

    assert same(rows(texts), result.vectors)
    assert len(endpoints.asked) < 60


async def test_all_down_for_good():
    """Then the last failure is raised, after as many tries as `retry` allows."""
    endpoints = Endpoints(**{name: always(failing(503)) for name in "abc"})
    with pytest.raises(ServerError) as caught:
        await connected(endpoints, retry=RetryPolicy(attempts=5)).embed("a text")

    assert (caught.value.status, len(endpoints.asked)) == (503, 5)


async def test_every_endpoint_is_tried_once_at_least():
    """Also where `retry` allows one attempt: failing over is what a pool is for."""
    endpoints = Endpoints(a=always(failing(503)), b=always(failing(503)))
    result = await connected(endpoints, retry=RetryPolicy(attempts=1)).embed("text")

    assert same(rows(["text"]), result.vectors)
    assert [name for name, _ in endpoints.asked] == ["a", "b", "c", "c"]


async def test_the_deadline_holds_through_an_outage():
    """Waiting for endpoints that are down ends at the deadline of `retry`, with their failure."""
    endpoints = Endpoints(**{name: always(TransportError("refused")) for name in "ab"})
    started = anyio.current_time()
    with pytest.raises(TransportError):
        await connected(endpoints, "ab", retry=RetryPolicy(attempts=1000, deadline=30.0)).embed("a text")

    assert anyio.current_time() - started <= 30


async def test_slow_failures_end_at_the_deadline_too():
    """Once it has passed no further endpoint is tried, however many are left."""
    endpoints = Endpoints(**{name: always(failing(503)) for name in "abcd"})
    endpoints.takes = dict.fromkeys("abcd", 20.0)
    with pytest.raises(ServerError):
        await connected(endpoints, "abcd", retry=RetryPolicy(deadline=30.0)).embed("a text")

    assert len(endpoints.asked) == 2


async def test_who_becomes_first_in_line_minds_when_an_endpoint_is_back():
    """Two calls wait for two endpoints that rest for different times; the second does not wait for the first to be
    done.
    """
    endpoints = Endpoints(
        k1=lambda texts, number: failing(429, retry_after="5") if number == 1 else None,
        k2=lambda texts, number: failing(429, retry_after="8") if number == 1 else None,
    )
    embedder = keyed(endpoints, ("k1", "k2"), max_concurrency=1)
    started, done = anyio.current_time(), []

    async def call(text):
        await embedder.embed(text)
        done.append(round(anyio.current_time() - started))

    async with anyio.create_task_group() as group:
        group.start_soon(call, "one")
        group.start_soon(call, "two")
        await anyio.sleep(1.0)
        endpoints.takes = {"k1": 100.0, "k2": 1.0}

    assert sorted(done) == [9, 105]


async def test_waiting_for_a_turn_is_not_counted():
    """A call that queues longer than the deadline for busy endpoints is served all the same."""
    endpoints = Endpoints()
    endpoints.takes = {"a": 1.0, "b": 1.0}
    texts = texts_of(400)
    result = await connected(endpoints, "ab", retry=RetryPolicy(deadline=5.0)).embed(texts)

    assert same(rows(texts), result.vectors)


async def test_what_was_embedded_travels_on_the_error():
    """When everything dies half-way the rows that are known come along."""
    dying = lambda texts, number: failing(401) if number > 6 else None  # noqa: E731
    endpoints = Endpoints(a=dying, b=dying)
    texts = texts_of(40)
    with pytest.raises(AuthError) as caught:
        await connected(endpoints, "ab").embed(texts)
    partial = caught.value.partial.vectors
    known = ~np.isnan(partial[:, 0])

    assert same(rows(texts)[known], partial[known])
    assert 10 <= known.sum() < 40


async def test_a_late_batch_comes_back_smaller_and_elsewhere():
    """A request that is not answered in time is halved, and goes where answers come from."""

    def hangs(texts, number):
        return TransportTimeoutError("nothing came") if len(texts) > 1 else None

    endpoints = Endpoints(b=hangs)
    endpoints.takes = dict.fromkeys("ac", 1.0)
    texts = texts_of(64)
    result = await connected(endpoints, size=8).embed(texts)

    assert same(rows(texts), result.vectors)
    assert max(len(each) for name, each in endpoints.asked if name == "b") == 8
    assert len([each for _, each in endpoints.asked if len(each) == 4]) >= 2


async def test_a_probe_that_hangs_halves_nothing():
    """A batch whose endpoint does not even answer the first question goes elsewhere as it is."""
    endpoints = Endpoints(b=always(TransportTimeoutError("nothing came")))
    texts = texts_of(32)
    result = await connected(endpoints, size=8).embed(texts)

    assert same(rows(texts), result.vectors)
    assert {len(each) for _, each in endpoints.asked if each != [HELLO]} == {8}


# --- keys ------------------------------------------------------------------------------------------------------------


def keyed(endpoints, keys=("k1", "k2", "k3"), **keywords):
    return connected(endpoints, base_url="http://h/v1", api_key=list(keys), **keywords)


async def test_keys_share_the_work():
    """Several keys at one address: all are used, and nothing is asked to tell models apart."""
    endpoints = Endpoints(k1=always(None), k2=always(None), k3=always(None))
    endpoints.takes = dict.fromkeys(("k1", "k2", "k3"), 1.0)
    await keyed(endpoints).embed(texts_of(30))

    assert len(endpoints.asked) == 15
    assert {name for name, _ in endpoints.asked} == {"k1", "k2", "k3"}


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (failing(401, "bad key"), AuthError),
        (failing(429, "insufficient_quota"), QuotaError),
        (failing(402), QuotaError),
    ],
    ids=["refused", "quota", "credit"],
)
async def test_one_key_that_is_no_good(refusal, kind):
    """A refused or exhausted key costs a few requests; the others serve. If all are, their error is raised at once."""
    endpoints = Endpoints(k1=always(refusal), k2=always(None), k3=always(None))
    texts = texts_of(60)
    result = await keyed(endpoints).embed(texts)

    assert same(rows(texts), result.vectors)
    assert endpoints.count("k1") <= 4

    endpoints = Endpoints(**{key: always(refusal) for key in ("k1", "k2", "k3")})
    with pytest.raises(kind):
        await keyed(endpoints).embed("a text")

    assert len(endpoints.asked) == 3


async def test_a_key_that_is_asked_to_wait_waits():
    """429 with Retry-After: that key rests for as long, the others go on, and then it is back."""
    left, started = [], anyio.current_time()

    def limited(texts, number):
        left.append(anyio.current_time() - 1.0 - started)
        return failing(429, retry_after="20") if number == 1 else None

    endpoints = Endpoints(k1=limited, k2=always(None))
    endpoints.takes = {"k1": 1.0, "k2": 1.0}
    texts = texts_of(240)
    result = await keyed(endpoints, ("k1", "k2")).embed(texts)

    assert same(rows(texts), result.vectors)
    assert [moment for moment in left if 1.0 < moment < 21.0] == []
    assert sum(moment >= 21.0 for moment in left) > 10


async def test_all_keys_asked_to_wait_for_hours():
    """Nobody sleeps for hours: the error comes at once, typed, with the figure; so it does for the next call."""
    endpoints = Endpoints(**{key: always(failing(429, retry_after="7200")) for key in ("k1", "k2")})
    embedder = keyed(endpoints, ("k1", "k2"))
    for _ in range(2):
        with pytest.raises(RateLimitError, match="not asked again for 7200 s"):
            await embedder.embed("a text")

    assert len(endpoints.asked) == 2


async def test_a_key_may_be_asked_for():
    """Callables are keys like any other, asked on every attempt."""
    endpoints = Endpoints(k1=always(None), k2=always(None))
    endpoints.takes = {"k1": 1.0, "k2": 1.0}
    asked = []

    async def later():
        asked.append(1)
        return "k2"

    await keyed(endpoints, ["k1", later]).embed(texts_of(20))

    assert len(asked) == endpoints.count("k2") > 2


# --- what is about texts ---------------------------------------------------------------------------------------------


def choosy(texts, number):
    return failing(400, "it is a bad text") if any("bad" in text for text in texts) else None


async def test_a_bad_text_is_no_bad_endpoint():
    """It is found and named as ever, costs no endpoint its place, and is not tried at every one of them."""
    endpoints = Endpoints(a=choosy, b=choosy, c=choosy)
    texts = [*texts_of(20), "bad one", *texts_of(10)]
    result = await connected(endpoints, size=8).embed(texts, on_error="skip")

    assert list(result.failures) == [20]
    assert same(rows(texts_of(20)), result.vectors[:20])
    assert sum("bad one" in each for _, each in endpoints.asked) <= 4
    assert [member.health.failing for member in connected(endpoints)._members] == [False] * 3


async def test_a_refused_request_stops_after_a_handful():
    """A refusal of everything is told from a bad text, as without a pool."""
    endpoints = Endpoints(
        **{name: lambda texts, number: None if texts == [HELLO] and number == 1 else failing(400) for name in "abc"}
    )
    with pytest.raises(InvalidInputError) as caught:
        await connected(endpoints, size=8).embed(texts_of(800))

    assert caught.value.rows == ()
    assert len(endpoints.asked) < 20


async def test_a_batch_too_large_for_one_endpoint():
    """A limit that one endpoint names holds for all from then on."""

    def small(texts, number):
        return failing(413, "batch size 8 > maximum allowed batch size 3") if len(texts) > 3 else None

    endpoints = Endpoints(a=small, b=small, c=small)
    texts = texts_of(60)
    result = await connected(endpoints, size=8).embed(texts)

    assert same(rows(texts), result.vectors)


async def test_one_text_too_large_is_raised():
    """What cannot be made smaller comes out typed."""
    endpoints = Endpoints(
        **{name: lambda texts, number: failing(413, "payload too large") if "huge" in texts else None for name in "abc"}
    )
    with pytest.raises(TooLargeError):
        await connected(endpoints).embed("huge")


# --- which belong together -------------------------------------------------------------------------------------------


def other_model(texts, number):
    return response({"data": [{"embedding": [1.0, -1.0, 1.0, -1.0], "index": place} for place in range(len(texts))]})


def wider_model(texts, number):
    return good(texts, 6)


@pytest.mark.parametrize(("says", "differ"), [(other_model, "a cosine of"), (wider_model, "4 and 6 components")])
async def test_different_models_are_refused(says, differ):
    """Two models behind one pool are found before their vectors mix; both addresses are named."""
    endpoints = Endpoints(b=says)
    with pytest.raises(ConfigError, match=differ) as caught:
        await connected(endpoints, "ab").embed(texts_of(40))

    assert "http://a/v1" in str(caught.value)
    assert "http://b/v1" in str(caught.value)
    assert endpoints.texts("b") == []


@pytest.mark.parametrize("rounding", [0.0, 1e-3, 1e-2])
async def test_the_same_model_rounded_otherwise_is_accepted(rounding):
    """Other hardware or quantized weights make other last digits: they agree well enough."""

    def rounded(texts, number):
        noise = np.random.default_rng(1).normal(1, rounding, (len(texts), 4))
        return response({"data": [{"embedding": row} for row in (rows(texts) * noise).tolist()]})

    endpoints = Endpoints(b=rounded)
    endpoints.takes = dict.fromkeys("ab", 1.0)
    result = await connected(endpoints, "ab").embed(texts_of(20))

    assert np.allclose(rows(texts_of(20)), result.vectors, rtol=10 * rounding)
    assert len(endpoints.texts("b")) > 4


async def test_an_endpoint_that_comes_back_with_another_model_is_refused():
    """After an outage the model is checked again."""
    endpoints = Endpoints(
        b=lambda texts, number: None if number < 3 else failing(503) if number < 4 else other_model(texts, number)
    )
    endpoints.takes = dict.fromkeys("ab", 1.0)
    with pytest.raises(ConfigError, match="do not serve the same model"):
        await connected(endpoints, "ab").embed(texts_of(200))

    assert len(endpoints.texts("b")) <= 6


async def test_requests_that_hang_hold_no_place():
    """Both endpoints fall silent for ten seconds, and what was sent meanwhile is never answered. The callers are
    patient, so their requests stay: the calls after the fault are answered all the same.
    """
    began = anyio.current_time()
    endpoints, late = Endpoints(), []

    async def answer(request):
        silent = 3 <= anyio.current_time() - began < 13
        await anyio.sleep(math.inf if silent else 0.2)
        return good(json.loads(request.body)["input"])

    endpoints.exchange = FakeExchange(answer)

    async def call(number):
        came = anyio.current_time()
        with anyio.move_on_after(30):
            await embedder.embed(f"text {number}")
            if came - began > 18 and anyio.current_time() - came < 5:
                late.append(number)

    embedder = connected(endpoints, "ab", max_concurrency=16)
    async with anyio.create_task_group() as group:
        for number in range(1_000):
            group.start_soon(call, number)
            await anyio.sleep(1 / 40)

    assert len(late) > 0.99 * 40 * (25 - 18)


async def test_an_ill_endpoint_is_asked_for_texts_first():
    """What it serves is asked once it answers again: while it fails, no request but the callers' own goes there."""
    endpoints = Endpoints(a=lambda texts, number: failing(503) if 2 < number < 9 else None, b=always(failing(503)))
    embedder = connected(endpoints, "ab", retry=RetryPolicy(attempts=None, deadline=300))
    await embedder.embed(["first"])
    before = len(endpoints.asked)
    result = await embedder.embed(["second"])
    asked = [texts for name, texts in endpoints.asked[before:] if name == "a"]

    assert same(rows(["second"]), result.vectors)
    assert asked == [["second"]] + [["second", HELLO]] * 6


COMES_BACK = {
    "beside": ({}, {}, [["second", HELLO]]),
    "no room for it": ({"size": 1}, {}, [["second"], [HELLO]]),
    "no floats": ({}, {"dtype": "int8"}, [["second"], [HELLO]]),
    "under options that nobody had before": ({}, {"dimensions": 4}, [["second", HELLO], [HELLO]]),
    "refused with it": ({"lone": True}, {}, [["second", HELLO], ["second"], [HELLO]]),
}


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("case", COMES_BACK)
async def test_an_endpoint_that_comes_back_answers_the_known_text_beside_a_callers(case, other):
    """What it serves is known before its rows are given out, without a request of its own where that is possible."""
    settings, options, wanted = COMES_BACK[case]
    settings = {"size": 2, **settings}
    lone = settings.pop("lone", False)

    def a(texts, number):
        if number == 3:
            return failing(503)
        if number > 3 and lone and len(texts) > 1:
            return failing(413, "too many inputs")
        return other_model(texts, number) if number > 3 and other else None

    endpoints = Endpoints(a=a, b=always(failing(503)))
    embedder = connected(endpoints, "ab", retry=RetryPolicy(attempts=None, deadline=300), **settings)
    await embedder.embed(["first"])
    if other:
        with pytest.raises(ConfigError, match="do not serve the same model"):
            await embedder.embed(["second"], **options)
    else:
        result = await embedder.embed(["second"], **options)
        assert result.vectors.shape == (1, 4)
        assert case == "no floats" or same(rows(["second"]), result.vectors)
    asked = [texts for name, texts in endpoints.asked if name == "a"]

    assert asked[3:] == wanted


class Kinds(Endpoints):
    """The same, whose vectors depend on the field `kind` of a request."""

    async def answer(self, request):
        made = await super().answer(request)
        if "kind" not in json.loads(request.body) or not made.ok:
            return made
        data = json.loads(made.body)["data"]
        return response({"data": [{**each, "embedding": each["embedding"][::-1]} for each in data]})


async def test_the_known_text_is_compared_under_the_options_of_the_call():
    """Options change vectors: what comes back is compared with an earlier answer under the same ones, which an endpoint
    gives that is known to be right.
    """
    endpoints = Kinds(a=lambda texts, number: failing(503) if number in (3, 6, 7) else None, b=always(failing(503)))
    embedder = connected(endpoints, "ab", retry=RetryPolicy(attempts=None, deadline=300))
    await embedder.embed(["first"])
    for text in ("second", "third"):
        result = await embedder.embed([text], extra={"kind": "other"})
        assert same(rows([text])[:, ::-1], result.vectors)
    await embedder.embed(["fourth"])
    asked = [texts for name, texts in endpoints.asked if name == "a"]

    assert asked == [
        [HELLO],
        ["first"],
        ["second"],
        ["second", HELLO],
        [HELLO],
        ["third"],
        *[["third", HELLO]] * 2,
        ["fourth"],
    ]


async def test_two_endpoints_first_used_under_different_options_are_compared():
    """Each is asked under the options of a call of its own at first, and then under those of whoever was first."""
    endpoints = Kinds(b=other_model)
    endpoints.takes = dict.fromkeys("ab", 1.0)
    embedder = connected(endpoints, "ab")
    found = []

    async def call(text, **options):
        try:
            found.append((await embedder.embed(text, **options)).vectors)
        except ConfigError as error:
            found.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(call, "one")
        await checkpoint()
        group.start_soon(lambda: call("two", extra={"kind": "other"}))

    assert sum(isinstance(each, ConfigError) for each in found) == 1
    assert sum(texts == [HELLO] for _, texts in endpoints.asked) == 3


async def test_a_width_that_changes_is_never_mixed_in():
    """An endpoint that begins to answer another width fails; the others do its work."""
    endpoints = Endpoints(b=lambda texts, number: None if number < 4 else wider_model(texts, number))
    endpoints.takes = dict.fromkeys("ac", 1.0)
    texts = texts_of(40)
    result = await connected(endpoints, "abc", retry=RetryPolicy(attempts=3)).embed(texts[:8])

    assert same(rows(texts[:8]), result.vectors)


async def test_an_endpoint_that_ignores_the_width_asked_for():
    """`dimensions` is checked on every reply: who ignores it is left out, or refused where all do."""
    endpoints = Endpoints(a=lambda texts, number: None if texts == [HELLO] else wider_model(texts, number))
    endpoints.takes = dict.fromkeys("ab", 1.0)
    result = await connected(endpoints, "ab").embed(texts_of(10), dimensions=4)

    assert same(rows(texts_of(10)), result.vectors)

    with pytest.raises(DecodeError, match="dimensions=5"):
        await connected(Endpoints(), "ab").embed("a text", dimensions=5)


def test_what_agrees():
    """Below a cosine of 0.98 vectors are taken to be of different models."""
    assert AGREE == 0.98


# --- giving up -------------------------------------------------------------------------------------------------------


async def test_a_caller_that_gives_up_leaves_nothing():
    """Neither requests nor places: whatever is cancelled while waiting or on the way, the next call finds all free."""
    endpoints = Endpoints()
    endpoints.takes = dict.fromkeys("abc", 5.0)
    embedder = connected(endpoints)
    for patience in (0.0, 2.0, 5.0, 7.0, 10.0, 12.0):
        with anyio.move_on_after(patience):
            await embedder.embed(texts_of(60))

        assert endpoints.flying == 0
        (balancer,) = embedder._balancers.values() or [None]
        assert set(balancer._busy.values()) == {0}
        assert not balancer._queue.size

    assert same(rows(["text"]), (await embedder.embed("text")).vectors)


async def test_a_place_given_to_someone_who_left_goes_on():
    """Whoever is cancelled just when a place comes free passes it on."""
    endpoints = Endpoints()
    endpoints.takes = {"a": 1.0}
    embedder = connected(endpoints, "a", max_concurrency=1)
    done = []

    async def call(number, patience):
        with anyio.move_on_after(patience):
            await embedder.embed(f"text {number}")
            done.append(number)

    async with anyio.create_task_group() as group:
        for number, patience in enumerate([math.inf, 1.0, 1.0, math.inf]):
            group.start_soon(call, number, patience)
            await anyio.wait_all_tasks_blocked()

    assert {0, 3} <= set(done)


async def test_it_closes_every_endpoint_and_opens_again():
    """`aclose` may be called twice; a closed pool opens when it is used."""
    endpoints = Endpoints()
    async with connected(endpoints) as embedder:
        await embedder.embed("a text")
        await embedder.aclose()
        await embedder.embed("a text")

    assert endpoints.exchange.closed


async def test_what_is_not_ours_comes_out_as_it_is():
    """An exception of the caller's own (a key that cannot be had) passes through, and no place is lost."""

    def key():
        raise LookupError("no vault")

    embedder = keyed(Endpoints(), [key, key])
    for _ in range(5):
        with pytest.raises(LookupError, match="no vault"):
            await embedder.embed(texts_of(20))


# --- as a citizen ----------------------------------------------------------------------------------------------------


def test_connect_makes_one():
    """A sequence of addresses, of keys, or of both in step; it is an embedder like any other, and shows no key."""
    places = ["http://a:1/v1", "http://b:2/v1"]
    one = embedkit.connect("openai:m", base_url=places, api_key="sk-secret-1")
    two = embedkit.connect("openai:m", base_url="http://a/v1", api_key=("sk-secret-1", "sk-secret-2", "sk-secret-3"))
    both = embedkit.connect("openai:m", base_url=places, api_key=["sk-secret-1", "sk-secret-2"])

    assert [type(each) for each in (one, two, both)] == [Pool] * 3
    assert isinstance(one, Embedder)
    assert [len(each._members) for each in (one, two, both)] == [2, 3, 2]
    assert (one.provider, one.model, one.max_concurrency, one.borrowed) == ("openai", "m", 256, False)
    assert (one.base_url, two.base_url) == ("http://a:1/v1, http://b:2/v1", "http://a/v1")
    assert "secret" not in repr([one, two, both])
    assert "http://b:2/v1" in repr(one)


@pytest.mark.parametrize(
    ("keywords", "says"),
    [
        ({"base_url": []}, "base_url has 0"),
        ({"base_url": ["http://a"], "api_key": []}, "api_key 0"),
        ({"base_url": ["http://a", "http://b"], "api_key": ["1", "2", "3"]}, "equally many"),
        ({"base_url": ["http://a", "ftp://b"]}, "ftp://b"),
        ({"base_url": ["http://a", None]}, "base_url"),
        ({"base_url": "http://a", "api_key": ["k", ""]}, "api_key is empty"),
        ({"base_url": "http://a", "api_key": b"bytes"}, "api_key is bytes"),
        ({"base_url": b"http://a"}, "base_url=b'http://a'"),
        ({"base_url": ["http://a"], "unknown": 1}, "unexpected keyword unknown"),
    ],
)
def test_what_makes_no_pool_is_refused(keywords, says):
    """Before anything is sent, by name."""
    with pytest.raises((ConfigError, TypeError), match=says):
        embedkit.connect("compatible:m", **keywords)


def test_limits_are_the_strictest():
    """One plan serves all, so it keeps within what each of them takes, as it is known by now."""
    pool = embedkit.connect("openai:m", base_url=["http://a", "http://b"])
    pool._embedders[0]._own_limits = Limits(max_texts=10, max_tokens=50)
    pool._embedders[1]._own_limits = Limits(max_texts=20, max_bytes=9)

    assert pool.limits == Limits(max_texts=10, max_tokens=50, max_bytes=9)


async def test_streams_share_the_work():
    """Parts come in input order, through every endpoint, around a dead one."""
    endpoints = Endpoints(b=always(failing(503)))
    endpoints.takes = dict.fromkeys("ac", 1.0)
    texts = texts_of(60)
    async with connected(endpoints).stream(texts) as parts:
        found = [part async for part in parts]

    assert same(rows(texts), np.concatenate([part.vectors for part in found]))
    assert min(len(endpoints.texts(name)) for name in "ac") > 10


async def test_small_calls_may_share_requests_over_a_pool():
    """Coalescing goes around it."""
    endpoints = Endpoints()
    embedder = connected(endpoints, size=64, coalesce=True)
    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(embedder.embed_query, f"text {number}")
    requests = [each for _, each in endpoints.asked if each != [HELLO]]

    assert sorted(text for each in requests for text in each) == sorted(texts_of(50))
    assert isinstance(embedder.inner, Pool)


async def test_late_requests_may_be_sent_twice_in_a_pool():
    """Hedging happens at each endpoint, and the count of requests stays exact."""
    stuck = []
    endpoints = Endpoints()
    embedder = connected(endpoints, hedge=1.0, size=1)
    answer = endpoints.answer

    async def at_times_slow(request):
        if not stuck and len(endpoints.asked) == 100:
            stuck.append(1)
            await anyio.sleep(60.0)
        await anyio.sleep(0.5)
        return await answer(request)

    endpoints.exchange._handler = at_times_slow
    started = anyio.current_time()
    result = await embedder.embed(texts_of(300))

    assert result.usage.requests == len(endpoints.exchange.requests) > 303
    assert anyio.current_time() - started < 60


def test_it_pickles_its_configuration():
    """What was seen of endpoints stays behind, and so does what is under way."""
    embedder = embedkit.connect("openai:m", base_url=["http://a", "http://b"], api_key="sk-1")
    embedder._members[0].health.mark_failed(0.0, 0.0, error())
    twin = pickle.loads(pickle.dumps(embedder))  # noqa: S301 (our own bytes)

    assert repr(twin) == repr(embedder)
    assert [member.health.failing for member in twin._members] == [False, False]


def sleepless(names="abc"):
    """A pool whose endpoints answer at once, for loops in real time."""
    return embedkit.connect(
        "compatible:m", base_url=[f"http://{name}/v1" for name in names], limits=Limits(max_texts=4), max_concurrency=2,
        exchange=FakeExchange(lambda request: good(json.loads(request.body)["input"])),
    )  # fmt: skip


def test_threads_and_loops_share_one_pool():
    """Loops in several threads at once, one after the other, and the sync wrapper: each call gets its own rows."""
    embedder = sleepless()
    texts = texts_of(200)
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda _: asyncio.run(embedder.embed(texts)), range(8)))
    with SyncEmbedder(embedder) as sync:
        results.append(sync.embed(texts))
        results += [type(results[0])(np.concatenate([part.vectors for part in sync.stream(iter(texts))]))]

    assert [same(rows(texts), result.vectors) for result in results] == [True] * 10
    assert len(embedder._balancers) <= 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_after_a_fork():
    """Parent and child both go on with a pool, whose small calls share requests; both end cleanly."""
    out = run(
        """
        import warnings
        one, two = Server(), Server()
        embedder = embedkit.connect_sync("compatible:m", base_url=[one.url, two.url], coalesce=True)
        assert embedder.embed_query("a").shape == (2,)
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: forking beside a thread
        child = os.fork()
        assert embedder.embed(map(str, range(1000))).vectors.shape == (1000, 2)
        assert embedder.embed_query("b").shape == (2,)
        if child == 0:
            embedder.close()
            print("child", flush=True)
            sys.exit(7)
        _, status = os.waitpid(child, 0)
        print("parent", os.waitstatus_to_exitcode(status))
        """,
        *STRICT,
    )

    assert out == "child\nparent 7\n"


def test_a_loop_that_died_with_calls_in_line_harms_nobody():
    """Calls cancelled with their loop hold no place on the next."""
    embedder = sleepless("a")
    held = embedder._embedders[0]._exchange
    handler = held._handler

    async def never(request):
        await asyncio.Event().wait()

    async def leave():
        for _ in range(5):
            asyncio.create_task(embedder.embed(texts_of(9)))  # noqa: RUF006 (left behind on purpose)
        for _ in range(20):
            await asyncio.sleep(0)

    held._handler = never
    asyncio.run(leave())
    held._handler = handler

    assert same(rows(["text"]), asyncio.run(embedder.embed("text")).vectors)


@pytest.mark.parametrize("how", ["refuses connections", "answers 503", "says nothing"])
def test_one_of_three_dies_and_comes_back(how):
    """No text is lost; the rate is that of two while it is dead, and that of three once it is back, within a tenth."""
    lost, dead, back, after = figures(how, 100_000, 4.0, 7.0)

    assert lost == 0
    assert dead > 0.9
    assert back < MAX_EJECTION + 4
    assert after > 0.9


async def test_errors_are_api_errors_with_the_endpoints_facts():
    """What the endpoint said is on the error that comes out in the end."""
    endpoints = Endpoints(**{name: always(failing(500, "out of memory", x_request_id="r-1")) for name in "ab"})
    with pytest.raises(ApiError, match="out of memory") as caught:
        await connected(endpoints, "ab", retry=RetryPolicy(attempts=2)).embed("a text")

    assert (caught.value.request_id, caught.value.provider, caught.value.model) == ("r-1", "compatible", "m")
