"""`embedkit.events`: frozen facts in pairs, with ids by which tracing
can pair them; and `headers=` as a callable, so that a trace can travel.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import json
import logging
import pickle
from collections import Counter

import msgspec
import numpy as np
import pytest

import embedkit
from benchmarks.virtual import VirtualLoop
from embedkit import (
    AuthError,
    ClosedError,
    ConfigError,
    Embedder,
    EmbedkitError,
    Limits,
    RetryPolicy,
    ServerError,
    TransportError,
    events,
)  # fmt: skip
from embedkit.events import (
    AttemptEnded,
    BatchDone,
    BatchFailed,
    BatchSplit,
    CallEnded,
    CallStarted,
    Event,
    RequestSent,
    RetryScheduled,
    Throttled,
    WindowChanged,
)  # fmt: skip
from embedkit.testing import FakeExchange, response

pytestmark = pytest.mark.anyio
NOW = RetryPolicy(attempts=3, initial=0.0)
BOTH = ["http://a/v1", "http://b/v1"]
BUSY = response({"error": {"message": "busy"}}, 503)
SPAN = contextvars.ContextVar("SPAN", default="")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


def good(request):
    texts = json.loads(request.body)["input"]
    rows = [{"index": row, "embedding": [1.0, 0.0]} for row in range(len(texts) if isinstance(texts, list) else 1)]
    return response({"data": rows, "usage": {"total_tokens": 1}})


def connect(answers=good, **settings):
    settings = {"base_url": "http://h.test/v1", "retry": NOW, **settings}
    exchange = answers if isinstance(answers, FakeExchange) else FakeExchange(answers)
    return embedkit.connect("compatible:m", exchange=exchange, **settings)


def script(*answers):
    """These answers, then good ones."""
    left = list(answers)

    def answer(request):
        return left.pop(0) if left else good(request)

    return answer


def of(seen, kind):
    return [event for event in seen if isinstance(event, kind)]


def paired(seen):
    """Assert that attempts leave and end in pairs of one id, each once and in that order; returns the pairs."""
    left = {event.id: event for event in of(seen, RequestSent) if not event.hedged}
    ended = {event.id: event for event in of(seen, AttemptEnded)}
    assert left.keys() == ended.keys()
    assert all(left)
    assert max(Counter(event.id for event in of(seen, AttemptEnded)).values(), default=1) == 1
    for number, end in ended.items():
        assert seen.index(left[number]) < seen.index(end)
        assert (left[number].attempt, left[number].texts, left[number].call) == (end.attempt, end.texts, end.call)
    return [(left[number], ended[number]) for number in left]


# --- what they are ---------------------------------------------------------------------------------------------------

KINDS = [getattr(events, name) for name in events.__all__]


def test_the_module_is_public():
    """There after a plain import, and all that it names is an event."""
    assert embedkit.events is events
    assert set(KINDS) >= {*Event.__subclasses__(), Event}
    assert all(issubclass(kind, Event) for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_each_is_frozen_documented_and_travels(kind):
    """No event can be changed; each says what its fields are; copies and pickles are equal."""
    samples = {
        "int": 3,
        "float": 0.5,
        "int | None": 200,
        "float | None": None,
        "str": "x",
        "EmbedkitError": None,
        "bool": True,
    }
    fields = {
        each.name: samples.get(str(kind.__annotations__.get(each.name, ""))) for each in msgspec.structs.fields(kind)
    }
    event = kind(**fields)

    assert kind.__struct_config__.frozen
    assert len(kind.__doc__) > 40
    assert pickle.loads(pickle.dumps(event)) == event  # noqa: S301 (our own)
    with pytest.raises(AttributeError):
        event.provider = "other"


# --- attempts pair up ------------------------------------------------------------------------------------------------

ENDS = {
    "good": ([], [(200, None)]),
    "busy, then good": ([BUSY], [(503, ServerError), (200, None)]),
    "refused": ([response("no", 401)], [(401, AuthError)]),
    "no connection, then good": ([TransportError("reset")], [(None, TransportError), (200, None)]),
    "junk, then good": ([response("junk")], [(200, embedkit.DecodeError), (200, None)]),
    "three failures": ([BUSY] * 3, [(503, ServerError)] * 3),
    "too fast": ([response("slow", 429, {"retry-after": "0.01"})], [(429, embedkit.RateLimitError), (200, None)]),
}


@pytest.mark.parametrize("end", ENDS)
async def test_each_attempt_ends_once(end):
    """With the status of its response, the seconds, and its error."""
    answers, ends = ENDS[end]
    seen = []
    embedder, raised = connect(script(*answers), observe=seen.append), None
    try:
        await embedder.embed(["a"])
    except EmbedkitError as error:
        raised = error
    pairs = paired(seen)

    assert [(end.status, end.error and type(end.error)) for _, end in pairs] == ends
    assert [left.attempt for left, _ in pairs] == list(range(1, len(ends) + 1))
    assert all(end.seconds >= 0 for _, end in pairs)
    assert raised is None or raised.attempts == len(ends)
    assert len({event.call for event in seen if not isinstance(event, WindowChanged)}) == 1


async def test_the_seconds_are_those_of_the_attempt():
    """The waits for a key and for headers are in them, that for a turn is not."""
    import anyio

    async def key():
        await anyio.sleep(0.05)
        return "sk-123456"

    async def answer(request):
        await anyio.sleep(0.05)
        return good(request)

    seen = []
    await connect(answer, observe=seen.append, api_key=key).embed(["a"])

    assert 0.1 <= of(seen, AttemptEnded)[0].seconds < 30


async def test_one_whose_key_cannot_be_had_ends_too():
    """What fails between the event and the exchange ends the attempt."""
    seen = []
    with pytest.raises(ConfigError):
        await connect(api_key=lambda: "", observe=seen.append).embed(["a"])
    with pytest.raises(LookupError):
        await connect(api_key=lambda: {}["no"], observe=seen.append).embed(["a"])

    assert [(end.status, end.error and type(end.error)) for _, end in paired(seen)] == [
        (None, ConfigError),
        (None, None),
    ]


async def test_one_whose_caller_is_gone_ends_too():
    """Cancelled, closed or out of time: no status, no error, the seconds until then."""
    import anyio

    async def never(request):
        await anyio.sleep(60)

    seen = []
    embedder = connect(never, observe=seen.append)
    with anyio.move_on_after(0.3):
        await embedder.embed(["a"])
    with pytest.raises(EmbedkitError):
        await embedder.embed(["a"], total_timeout=0.3)
    async with anyio.create_task_group() as group:

        async def call():
            with pytest.raises(ClosedError):
                await embedder.embed(["a"])

        group.start_soon(call)
        await anyio.sleep(0.3)
        await embedder.aclose()
    pairs = paired(seen)

    assert [(end.status, end.error) for _, end in pairs] == [(None, None)] * 3
    assert all(0.1 <= end.seconds < 30 for _, end in pairs)


KINDS_OF_EMBEDDER = {
    "one endpoint": {},
    "a pool": {"base_url": BOTH},
    "two keys": {"api_key": ["sk-123456", "sk-654321"]},
    "coalesced": {"coalesce": True},
    "long texts": {"long_text": "mean"},
    "hedged": {"hedge": True},
}


@pytest.mark.parametrize("kind", KINDS_OF_EMBEDDER)
async def test_ids_tell_calls_and_attempts_apart(kind):
    """Many calls of many batches at once, a third of the requests
    failing: every attempt is paired, and each call has its own number.
    """
    import anyio

    count = 0

    async def answer(request):
        nonlocal count
        count += 1
        third = count % 3 == 0
        await anyio.sleep(0)
        return BUSY if third else good(request)

    seen = []
    embedder = connect(
        answer,
        observe=seen.append,
        limits=Limits(max_texts=20),
        retry=RetryPolicy(attempts=9, initial=0.0),
        **KINDS_OF_EMBEDDER[kind],
    )
    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(embedder.embed, [f"{number} {row}" for row in range(50)])
    paired(seen)
    calls = Counter(event.call for event in of(seen, BatchDone))

    assert len(calls) == 8
    assert all(calls)
    assert set(calls.values()) == {3}
    assert {event.call for event in of(seen, AttemptEnded)} == calls.keys()


async def test_a_long_text_is_one_call():
    """Its pieces and their second round have one number."""
    seen = []
    settings = {"limits": Limits(max_texts=1, max_text_tokens=2), "count_tokens": lambda text: len(text.split())}
    await connect(observe=seen.append, long_text="mean", **settings).embed(["a b c d e f"])

    assert len(of(seen, BatchDone)) == 3
    assert len({event.call for event in of(seen, BatchDone)}) == 1


async def test_a_split_batch_is_one_call():
    """What a refusal takes apart keeps the call's number."""

    def answer(request):
        texts = json.loads(request.body)["input"]
        return good(request) if len(texts) < 3 else response({"error": {"message": "too many inputs"}}, 413)

    seen = []
    await connect(answer, observe=seen.append).embed([*"abcdef"])

    assert of(seen, BatchSplit)
    assert {event.call for event in seen if not isinstance(event, WindowChanged)} == {of(seen, BatchDone)[0].call}


async def test_an_embedder_of_ones_own_has_calls_too():
    """Its batches are done or given up under the number of their call."""

    class Own(Embedder):
        limits = Limits(max_texts=1)

        async def embed_batch(self, texts, options):
            if "bad" in texts:
                raise ServerError("no", status=500)
            return embedkit.Embeddings(np.ones((len(texts), 2), np.float32))

    embedder, seen = Own(), []
    embedder.observe = seen.append
    await embedder.embed(["a", "b"])
    with pytest.raises(ServerError) as caught:
        await embedder.embed("bad")

    assert [type(event) for event in seen] == [
        CallStarted, BatchDone, BatchDone, CallEnded, CallStarted, BatchFailed, CallEnded,
    ]  # fmt: skip
    assert len({event.call for event in seen[:4]}) == len({event.call for event in seen[4:]}) == 1
    assert seen[0].call == seen[4].call - 1
    assert caught.value.attempts == 1
    assert caught.value.elapsed > 0


def test_a_hedge_is_told_under_the_id_of_its_attempt():
    """The second request has `hedged` set, and there is one end for both."""

    async def main():
        slow = False

        async def answer(request):
            await asyncio.sleep(5 if slow else 0.1 - int(json.loads(request.body)["input"][0]) / 1000)
            return good(request)

        seen = []
        embedder = connect(answer, observe=seen.append, hedge=True)
        embedder._clock = asyncio.get_running_loop().time
        for number in range(60):
            await embedder.embed_query(f"{number}")
        slow = True
        await embedder.embed_query("99")
        return seen

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        seen = runner.run(main())
    paired(seen)
    (second,) = [event for event in of(seen, RequestSent) if event.hedged]

    assert second.id == of(seen, AttemptEnded)[-1].id
    assert not of(seen, RequestSent)[0].hedged


async def test_the_end_of_a_calls_time_is_a_failure_of_its_batches():
    """Of all texts that are missing by then."""
    import anyio

    async def answer(request):
        await anyio.sleep(60 if "x5" in json.loads(request.body)["input"] else 0)
        return good(request)

    seen = []
    embedder = connect(answer, observe=seen.append, limits=Limits(max_texts=4))
    with pytest.raises(EmbedkitError) as caught:
        await embedder.embed([f"x{row}" for row in range(12)], total_timeout=0.3)

    assert of(seen, BatchFailed) == [
        BatchFailed(provider="compatible", model="m", call=seen[0].call, texts=4, error=caught.value)
    ]


async def test_the_window_is_told():
    """A timeout halves it, good answers widen it: each change is told with what it was, and they chain."""
    answers = [embedkit.TransportTimeoutError("late")]
    seen = []
    embedder = connect(script(*answers), observe=seen.append)
    for number in range(400):
        await embedder.embed_query(f"{number}")
    changes = of(seen, WindowChanged)

    assert changes[0].size < changes[0].before
    assert any(event.size > event.before for event in changes)
    assert [event.before for event in changes[1:]] == [event.size for event in changes[:-1]]
    assert (changes[0].provider, changes[0].call) == ("compatible", 0)
    assert {event.server for event in changes} == {of(seen, RequestSent)[0].server} != {""}


async def test_throttled_and_retried_have_their_call():
    """Every event of a request says whose it is."""
    seen = []
    embedder = connect(script(BUSY), observe=seen.append, rate=embedkit.Rate(requests_per_minute=6000))
    await embedder.embed(["a"])
    for number in range(200):
        await embedder.embed([f"{number}"])

    assert of(seen, RetryScheduled)
    assert of(seen, Throttled)
    assert all(event.call for event in seen if not isinstance(event, WindowChanged))


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in KINDS_OF_EMBEDDER if kind != "hedged"])
async def test_errors_say_how_often_and_how_long(kind):
    """`attempts` and `elapsed`; from two on the text says both. They survive a pickle."""
    with pytest.raises(ServerError) as caught:
        await connect(lambda _: BUSY, **KINDS_OF_EMBEDDER[kind]).embed(["a"])
    error = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 (our own)

    assert error.attempts == 3
    assert 0 < error.elapsed < 5
    assert "3 attempts in " in str(error)
    with pytest.raises(AuthError) as caught:
        await connect(
            lambda _: response("no", 401), **{**KINDS_OF_EMBEDDER[kind], "retry": RetryPolicy(attempts=1)}
        ).embed(["a"])
    if "base_url" not in KINDS_OF_EMBEDDER[kind] and "api_key" not in KINDS_OF_EMBEDDER[kind]:
        assert caught.value.attempts == 1
        assert "attempt" not in str(caught.value)


async def test_a_row_that_failed_says_so_too():
    """`failures` of a call that skips, refused or not usable; what was never sent has none."""

    def answer(request):
        texts = json.loads(request.body)["input"]
        if "bad" in texts:
            return response({"error": {"message": "bad text"}}, 400)
        rows = [{"index": row, "embedding": None if text == "null" else [1.0]} for row, text in enumerate(texts)]
        return response({"data": rows})

    result = await connect(answer).embed(["a", "bad", "null", None, "b"], on_error="skip")

    assert [*result.failures] == [1, 2, 3]
    assert result.failures[1].attempts == 1
    assert result.failures[2].attempts >= 1
    assert result.failures[3].attempts == 0


# --- headers that are asked for --------------------------------------------------------------------------------------


async def later():
    return {"X-Trace": "t-1"}


GIVEN = {
    "a function": lambda: {"X-Trace": "t-1"},
    "a coroutine function": later,
    "a partial": functools.partial(lambda value: {"x-trace": value}, "t-1"),
    "an object": type("Asks", (), {"__call__": lambda self: {"x-TRACE": " t-1 "}})(),
    "a mapping": {"X-Trace": "t-1"},
}


@pytest.mark.parametrize("settings", KINDS_OF_EMBEDDER.values(), ids=KINDS_OF_EMBEDDER)
@pytest.mark.parametrize("given", GIVEN)
async def test_headers_may_be_asked_for(given, settings):
    """Sync or async, at every kind of embedder: they go out as a mapping's do."""
    exchange = FakeExchange(good)
    await connect(exchange, headers=GIVEN[given], **settings).embed(["a"])

    assert {request.headers["x-trace"] for request in exchange.requests} == {"t-1"}


def test_without_await_too():
    """In the sync wrapper."""
    exchange = FakeExchange(good)
    with embedkit.connect_sync("compatible:m", base_url="http://h/v1", exchange=exchange, headers=later) as embedder:
        embedder.embed(["a"])

    assert exchange.requests[0].headers["x-trace"] == "t-1"


async def test_they_are_asked_on_every_attempt():
    """So that each may be a span of its own."""
    numbers = iter(range(9))
    exchange = FakeExchange(script(BUSY, BUSY))
    await connect(exchange, headers=lambda: {"x-n": str(next(numbers))}, api_key="sk-123456").embed(["a"])

    assert [request.headers["x-n"] for request in exchange.requests] == ["0", "1", "2"]
    assert {request.headers["authorization"] for request in exchange.requests} == {"Bearer sk-123456"}


async def test_a_trace_travels():
    """What an observer sets when the request leaves, the callable
    reads: in the caller's context, attempt by attempt.
    """
    exchange = FakeExchange(script(BUSY))

    def observe(event):
        if isinstance(event, RequestSent):
            SPAN.set(f"span-{event.id}")

    seen = []
    embedder = connect(
        exchange,
        headers=lambda: {"traceparent": SPAN.get()},
        observe=lambda event: (seen.append(event), observe(event)),
    )
    await embedder.embed(["a"])

    assert [request.headers["traceparent"] for request in exchange.requests] == [
        f"span-{left.id}" for left, _ in paired(seen)
    ]


async def test_they_win_as_those_of_a_mapping_do():
    """Over the key's own header, and a user in the address."""
    exchange = FakeExchange(good)
    await connect(exchange, api_key="sk-123456", headers=lambda: {"Authorization": "Basic own"}).embed(["a"])
    await connect(exchange, base_url="http://me:word@h.test/v1", headers=lambda: {"x-a": "b"}).embed(["a"])
    await connect(exchange, base_url="http://me:word@h.test/v1", headers=lambda: {"authorization": "mine"}).embed(["a"])

    assert exchange.requests[0].headers["authorization"] == "Basic own"
    assert exchange.requests[1].headers["authorization"].startswith("Basic ")
    assert exchange.requests[1].headers["x-a"] == "b"
    assert exchange.requests[2].headers["authorization"] == "mine"


SECRET = "sk-PLANTED-9f8e7d6c5b4a"
WRONG = {
    "a string": (SECRET, "str"),
    "nothing": (None, "NoneType"),
    "pairs": ([("x-key", SECRET)], "list"),
    "a number": (7, "int"),
    "bytes": (SECRET.encode(), "bytes"),
    "a set": ({SECRET}, "set"),
    "a value of bytes": ({"x-key": SECRET.encode()}, "value number 1 is bytes"),
    "a value of a list": ({"x-a": "b", "x-key": [SECRET]}, "value number 2 is list"),
    "a value of None": ({"x-key": None}, "value number 1 is NoneType"),
    "a line break": ({"x-key": f"{SECRET}\r\nx-other: 1"}, "value number 1 holds a character"),
    "an umlaut": ({"x-key": f"{SECRET}ä"}, "value number 1 holds a character"),
    "a key as a name": ({f"{SECRET} ": "x"}, "name number 1 (str)"),
    "a name that is a number": ({7: SECRET}, "name number 1 (int)"),
    "an empty name": ({"": SECRET}, "name number 1 (str)"),
    "a callable": (lambda: {"x-key": SECRET}, "function"),
}


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("wrong", WRONG)
async def test_what_is_wrong_is_told_by_its_kind(wrong, asynchronous):
    """Never by its value: it may be a key. Nothing is sent, and no frame of ours holds it."""
    from tests.behavior.test_no_secret_shows import shown

    value, words = WRONG[wrong]

    async def wait():
        return value

    exchange = FakeExchange([])
    for settings in ({}, {"coalesce": True}):
        with pytest.raises(ConfigError) as caught:
            await connect(exchange, headers=wait if asynchronous else lambda: value, **settings).embed(["a"])
        assert words in str(caught.value)
        assert "the callable given as headers returned" in str(caught.value)
        assert exchange.requests == []
        told = [text for text in shown(caught.value) if not text.startswith(("test_what", "wait"))]
        assert not any(SECRET in text for text in told if "WRONG" not in text and "test_events" not in text), told


async def test_what_it_raises_is_the_callers():
    """An exception of the callable comes out as it is, and the embedder goes on."""
    calls = iter([True, False])

    def fail():
        if next(calls):
            raise LookupError("no span")
        return {}

    embedder = connect(headers=fail)
    with pytest.raises(LookupError, match="no span"):
        await embedder.embed(["a"])

    assert (await embedder.embed(["a"])).vectors.shape == (1, 2)


async def test_what_it_returned_never_comes_back():
    """A server that quotes the whole request: no header of any
    attempt is in the error, though each had another, nor in an event.
    """
    numbers = iter(range(10**6))
    sent = []

    def ask():
        sent.append(f"{SECRET}-{next(numbers)}")
        return {"x-secret": sent[-1], "x-also": f"Bearer {sent[-1]}"}

    def answer(request):
        return response({"error": {"message": json.dumps(dict(request.headers))}}, 503)

    seen = []
    embedder = connect(answer, headers=ask, observe=seen.append)
    for _ in range(5):
        with pytest.raises(ServerError) as caught:
            await embedder.embed(["a"])
        assert SECRET not in f"{caught.value} {caught.value.body} {seen} {embedder!r} {vars(embedder)}"
    assert len(sent) == 15


async def test_many_of_them_push_no_key_out_of_hiding():
    """After a thousand attempts with a header of their own the proxy's password and the key are hidden still."""
    numbers = iter(range(10**6))
    proxy = "http://me:pass-PLANTED-word@proxy.test:1"
    quoting = False

    def answer(request):
        return response({"error": {"message": f"{proxy} {SECRET}"}}, 401) if quoting else good(request)

    embedder = connect(
        answer, headers=lambda: {"traceparent": f"00-trace-{next(numbers)}"}, api_key=SECRET, proxy=proxy
    )
    for number in range(1000):
        await embedder.embed_query(f"{number}")
    quoting = True
    with pytest.raises(AuthError) as caught:
        await embedder.embed(["a"])

    assert "PLANTED" not in str(caught.value)


@pytest.mark.parametrize("wrong", [7, "x-a: b", [("a", "b")], b"", object()])
def test_neither_a_mapping_nor_a_callable(wrong):
    """Refused by `connect`, with what it takes."""
    with pytest.raises(
        ConfigError, match=r"headers is .*; it takes a mapping of header names to values, or a callable"
    ):
        connect(headers=wrong)


def test_an_embedder_with_such_headers_pickles():
    """Where the callable does; a function of a test does not, and the error names it."""
    with pytest.raises(ConfigError, match=r"headers .*cannot be pickled"):
        pickle.dumps(embedkit.connect("compatible:m", base_url="http://h/v1", headers=lambda: {"a": "b"}))
    twin = pickle.loads(pickle.dumps(embedkit.connect("compatible:m", base_url="http://h/v1", headers=later)))  # noqa: S301 (our own)

    assert twin._ask_headers["headers"] is later


# --- calls -----------------------------------------------------------------------------------------------------------


async def test_a_call_begins_and_ends_once():
    """`CallStarted` and `CallEnded` pair up, whatever becomes of the call, and say what it held, took and gave."""
    seen = []
    embedder = connect(script(response("no", 401)), observe=seen.append)
    with pytest.raises(AuthError) as caught:
        await embedder.embed(["a"])
    result = await embedder.embed(["a", "b"])
    await embedder.embed([])
    (failed, done), ends = of(seen, CallStarted), of(seen, CallEnded)

    assert [failed.call, done.call] == [each.call for each in ends]
    assert (failed.texts, done.texts, done.server, done.callers) == (1, 2, "http://h.test", ())
    assert ends[0].error is caught.value
    assert (ends[1].error, ends[1].tokens, ends[1].requests, ends[1].dimensions) == (None, 1, 1, 2)
    assert ends[1].requests == result.usage.requests
    assert ends[1].seconds > 0


def test_calls_that_share_a_request_begin_and_end_too():
    """Each has its own number and names no tokens; the request that they share names them, and has the tokens."""

    async def main():
        seen = []
        embedder = connect(observe=seen.append, coalesce=0.01)
        await asyncio.gather(*(embedder.embed_query(f"{each}") for each in range(5)))
        await embedder.embed_query("on its own")
        shared = [event for event in of(seen, CallEnded) if event.callers]
        alone = [event for event in of(seen, CallEnded) if not event.callers]
        assert sorted(call for event in shared for call in event.callers) == sorted(event.call for event in alone)
        assert {event.tokens for event in alone} == {None}
        assert {event.tokens for event in shared} == {1}
        assert {event.call for event in of(seen, RequestSent)} == {event.call for event in shared}
        assert len(of(seen, CallStarted)) == len(of(seen, CallEnded)) == 6 + len(shared)

    asyncio.run(main())


def test_a_request_says_how_long_it_has_waited():
    """`waited` is the time behind others; 0 where there was a place at once."""

    async def main():
        async def answer(request):
            await asyncio.sleep(0.05)
            return good(request)

        seen = []
        embedder = connect(answer, observe=seen.append, max_concurrency=1)
        embedder._clock = asyncio.get_running_loop().time
        await asyncio.gather(*(embedder.embed([f"{each}"]) for each in range(3)))
        return [event.waited for event in of(seen, RequestSent)]

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(main()) == pytest.approx([0, 0.05, 0.1])


# --- nobody listens --------------------------------------------------------------------------------------------------


async def test_nothing_is_made_for_nobody(monkeypatch):
    """Without an observer and a logger no event is built and no attempt numbered."""

    def never(*_, **__):
        raise AssertionError

    for kind in ("AttemptEnded", "RequestSent", "RetryScheduled", "WindowChanged", "Throttled"):
        monkeypatch.setattr(f"embedkit._http.transport.{kind}", never)
    for kind in ("base.CallStarted", "call_end.CallEnded"):
        monkeypatch.setattr(f"embedkit._embedders.{kind}", never)
    monkeypatch.setattr("embedkit._http.transport._ids", iter(()))
    logging.getLogger("embedkit").setLevel(logging.CRITICAL)
    try:
        assert (await connect(script(BUSY)).embed(["a"])).vectors.shape == (1, 2)
    finally:
        logging.getLogger("embedkit").setLevel(logging.NOTSET)
