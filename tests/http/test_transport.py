"""One request, until it succeeds or is given up: the order of things, what is asked again, what counts against the
deadline.

Time stands still but for what an exchange and a backoff take; where an embedder is used, its backoff is zero. No test
sleeps.
"""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys
import time

import anyio
import pytest

import embedkit
from embedkit import (
    ApiError,
    AuthError,
    ConfigError,
    DecodeError,
    EmbedkitError,
    NotFoundError,
    Rate,
    RateLimitError,
    RetryPolicy,
    ServerError,
    TransportError,
    TransportTimeoutError,
)
from embedkit._http.transport import Transport
from embedkit._traffic.concurrency import ConcurrencyLimit
from embedkit._traffic.limiter import Limiter
from embedkit._traffic.quota import Quota
from embedkit._types import Request, RequestCount
from embedkit.codec.error_mapping import error_from_response
from embedkit.events import (
    AttemptEnded,
    BatchDone,
    BatchFailed,
    CallEnded,
    CallStarted,
    RequestSent,
    RetryScheduled,
    Throttled,
    WindowChanged,
)
from embedkit.testing import FakeExchange, response
from tests.traffic.test_limiter import Clock

pytestmark = pytest.mark.anyio
NOW = RetryPolicy(initial=0.0)  # a backoff of nothing
GOOD = {"data": [{"embedding": [1.0, 2.0]}]}
BUSY = response({"error": "busy"}, 503)
REQUEST = Request("http://h/v1/embeddings", b"{}")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


class Line:
    """A transport whose every step is noted in `log`, with the time it is taken at. An answer may take seconds:
    `(seconds, answer)`.
    """

    def __init__(self, *answers, slots=4, rate=None, clock=None, jitter=0.5, keys=None, loading=0.0, **policy):
        self.clock = clock or Clock()
        self.start = self.clock.now
        self.log, self.events, self.tally = [], [], RequestCount()
        self.fake = FakeExchange([answer[1] if isinstance(answer, tuple) else answer for answer in answers])
        self.seconds = [answer[0] if isinstance(answer, tuple) else 0 for answer in answers]
        self.keys = iter(keys or map(str, range(1, 99)))
        self.transport = Transport(
            self, self.authorize, _Noted(self, slots, rate), RetryPolicy(**policy), name=("p", "m"), observe=self.events.append,
            clock=self.clock, sleep=self.clock.sleep, jitter=lambda: jitter, loading=loading,
        )  # fmt: skip

    def note(self, step):
        self.log.append((step, self.clock.now - self.start))

    @property
    def steps(self):
        return [step for step, _ in self.log]

    @property
    def sent(self):
        """When each request left."""
        return [moment for step, moment in self.log if step == "exchange"]

    async def authorize(self, request):
        self.note("authorise")
        key = next(self.keys)
        if isinstance(key, Exception):
            raise key
        return Request(request.url, request.body, {"authorization": key})

    async def __call__(self, request):
        self.note("exchange")
        if seconds := self.seconds[len(self.fake.requests)]:
            await self.clock.sleep(seconds)
        return await self.fake(request)

    async def aclose(self):
        pass

    def receive(self, answer):
        self.note("receive")
        if answer.status >= 300:
            raise error_from_response(answer, provider="p", model="m", message="", now=0.0)
        return answer.body

    async def send(self, texts=1):
        return await self.transport.send(REQUEST, self.receive, self.tally, texts=texts, tokens=texts)

    async def run(self, *calls):
        """What these calls give or raise, in their order, however long it takes; by default one `send`."""
        found = {}

        async def one(place, call):
            try:
                found[place] = await call()
            except EmbedkitError as error:
                found[place] = error

        async with anyio.create_task_group() as group:
            for place, call in enumerate(calls or [self.send]):
                group.start_soon(one, place, call)
            while len(found) < len(calls or [1]):
                await self.clock.advance(0.5)
        return [found[place] for place in sorted(found)] if calls else found[0]


class _Noted(Limiter):
    """A limiter that notes its turns."""

    def __init__(self, line, slots, rate):
        super().__init__(ConcurrencyLimit(slots, slots), Quota(rate), clock=line.clock, sleep=line.clock.sleep)
        self.line = line

    def try_acquire(self):
        entered = super().try_acquire()
        if entered:
            self.line.note("turn")
        return entered

    async def acquire(self, tokens=0, **more):
        waited = await super().acquire(tokens, **more)
        self.line.note("turn")
        return waited

    def release(self, *kind):
        super().release(*kind)
        self.line.note("release")


ATTEMPT = ["turn", "authorise", "exchange", "receive", "release"]


# --- the order of things ---------------------------------------------------------------------------------------------


async def test_an_attempt_in_order():
    """A turn, then a signature, then the exchange, then the verdict; the place is given back last."""
    line = Line(response("good"))

    assert await line.run() == b"good"
    assert line.steps == ATTEMPT


async def test_every_attempt_takes_every_step():
    """A retry waits for its turn and is signed afresh, with the key of then; between attempts it holds no place."""
    line = Line(BUSY, TransportError("cut"), response("good"))
    failed = [step for step in ATTEMPT if step != "receive"]

    assert await line.run() == b"good"
    assert line.steps == ATTEMPT + failed + ATTEMPT
    assert [request.headers["authorization"] for request in line.fake.requests] == ["1", "2", "3"]


async def test_a_place_is_given_back_whatever_happens():
    """A failed signature, a failed exchange, a refusal and an error of nobody's: the one slot there is serves the next
    call.
    """
    clock = Clock()
    for answers, keys in (
        ([BUSY], None), ([TransportError("cut")], None), ([response("no", 401)], None), ([], [ConfigError("no key")]),
    ):  # fmt: skip
        line = Line(*answers, response("good"), slots=1, clock=clock, attempts=1, keys=[*(keys or []), "k", "k"])

        assert isinstance(await line.run(), EmbedkitError)
        assert await line.run() == b"good"

    line = Line(ZeroDivisionError(), response("good"), slots=1)
    with pytest.raises(ZeroDivisionError):
        await line.send()
    assert await line.run() == b"good"


async def test_a_cancelled_exchange_gives_its_place_back():
    """Cancelled on the wire: the place is free, and nothing is asked again."""
    line = Line((1000, response("late")), slots=1)
    async with anyio.create_task_group() as group:
        group.start_soon(line.send)
        await line.clock.advance(1)
        group.cancel_scope.cancel()

    assert line.steps == ["turn", "authorise", "exchange", "release"]
    line.seconds = [0]
    assert await line.run() == b"late"


async def test_a_signature_that_fails_sends_nothing():
    """An error while signing is not counted as a request; one that may pass is tried again."""
    line = Line(response("good"), keys=[TransportError("the vault is away"), "k"])

    assert await line.run() == b"good"
    assert line.tally.requests == len(line.fake.requests) == 1
    assert line.steps == ["turn", "authorise", "release", *ATTEMPT]


# --- events ----------------------------------------------------------------------------------------------------------


async def test_events_in_order():
    """Sent, scheduled, sent again …; each with its attempt, its wait and its error."""
    line = Line(BUSY, response("no", 502), response("good"), jitter=0.5, initial=2.0)
    await line.run(lambda: line.send(texts=3))
    sent = [event for event in line.events if isinstance(event, RequestSent)]
    second, fourth = (event for event in line.events if isinstance(event, RetryScheduled))

    assert [type(event) for event in line.events if not isinstance(event, WindowChanged)] == [
        RequestSent, AttemptEnded, RetryScheduled, RequestSent, AttemptEnded, RetryScheduled, RequestSent, AttemptEnded,
    ]  # fmt: skip
    assert sent == [
        RequestSent(provider="p", model="m", texts=3, attempt=number, id=each.id) for number, each in enumerate(sent, 1)
    ]
    assert (type(second), second.attempt, second.wait, second.error.status) == (RetryScheduled, 1, 1.0, 503)
    assert (type(fourth), fourth.attempt, fourth.wait, fourth.error.status) == (RetryScheduled, 2, 2.0, 502)
    assert line.sent == [0.0, 1.0, 3.0]


async def test_a_wait_for_the_pace_is_told():
    """Throttled comes before the request it held up, with the seconds; a request that did not wait has none."""
    line = Line(response("a"), response("b"), rate=Rate(requests_per_minute=1))
    await line.run()
    await line.run()

    assert [type(event) for event in line.events] == [RequestSent, AttemptEnded, Throttled, RequestSent, AttemptEnded]
    assert line.sent == [0.0, pytest.approx(60)]
    assert 59 < line.events[2].seconds <= 60


async def test_the_last_failure_is_not_scheduled():
    """What is given up is not announced as a retry."""
    line = Line(BUSY, BUSY, attempts=2)
    await line.run()

    seen = [type(event) for event in line.events if not isinstance(event, WindowChanged)]

    assert seen == [RequestSent, AttemptEnded, RetryScheduled, RequestSent, AttemptEnded]


async def test_events_of_an_embedder():
    """Through an embedder: what the transport tells, then what became of the batch."""
    events = []
    exchange = FakeExchange([BUSY, GOOD, response({"error": "no"}, 401)])
    embedder = embedkit.connect(
        "compatible:m", base_url="http://h/v1", exchange=exchange, retry=NOW, observe=events.append
    )
    await embedder.embed(["a"])
    with pytest.raises(AuthError):
        await embedder.embed(["b"])

    assert [type(event) for event in events if not isinstance(event, WindowChanged)] == [
        CallStarted, RequestSent, AttemptEnded, RetryScheduled, RequestSent, AttemptEnded, BatchDone, CallEnded,
        CallStarted, RequestSent, AttemptEnded, BatchFailed, CallEnded,
    ]  # fmt: skip
    assert {(event.provider, event.model) for event in events} == {("compatible", "m")}


async def test_an_observer_that_fails_changes_nothing(caplog):
    """What an observer raises is logged, on every kind of event."""

    def fail(event):
        raise LookupError(type(event).__name__)

    exchange = FakeExchange([BUSY, GOOD])
    embedder = embedkit.connect("compatible:m", base_url="http://h/v1", exchange=exchange, retry=NOW, observe=fail)

    assert (await embedder.embed(["a"])).usage.requests == 2
    told = [record for record in caplog.records if "the observer failed" in record.getMessage()]

    assert {record.args[0] for record in told} >= {"RequestSent", "AttemptEnded", "RetryScheduled", "BatchDone"}


# --- again, or not ---------------------------------------------------------------------------------------------------


async def after(*answers, retry=NOW, texts=("a",), **settings):
    """How many requests go out for these answers, and the error that comes of them, or None."""
    exchange = FakeExchange(answers)
    embedder = embedkit.connect("compatible:m", base_url="http://h/v1", exchange=exchange, retry=retry, **settings)
    try:
        result = await embedder.embed(list(texts))
    except EmbedkitError as error:
        return len(exchange.requests), error
    assert result.usage.requests == len(exchange.requests)
    return len(exchange.requests), None


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 520, 524, 529])
async def test_what_may_pass_is_asked_again(status):
    """These statuses are asked again until an answer comes; every request is counted."""
    assert await after(*[response("no", status)] * 3, GOOD) == (4, None)


@pytest.mark.parametrize("status", [301, 400, 401, 402, 403, 404, 405, 413, 422, 431, 498, 499, 501, 505, 511])
async def test_what_will_not_pass_is_not(status):
    """These statuses are final. (A text, or a size, that is refused may be looked into by other requests, never the
    same again.)
    """
    exchange = FakeExchange([response("no", status)] * 9)
    embedder = embedkit.connect("compatible:m", base_url="http://h/v1", exchange=exchange, retry=NOW)
    with pytest.raises(ApiError) as caught:
        await embedder.embed(["a"])

    assert caught.value.status == status
    assert not caught.value.retryable
    assert len({request.body for request in exchange.requests}) == len(exchange.requests)


async def test_a_failed_backend_is_asked_once_more():
    """424 is asked again once, and no more."""
    failed = response({"error": "backend", "error_type": "Backend"}, 424)

    assert await after(failed, GOOD) == (2, None)
    count, error = await after(failed, failed, GOOD)
    assert (count, type(error), error.status) == (2, ServerError, 424)


SHOULD = [
    # status, x-should-retry, requests
    (503, "true", 2), (503, "false", 1), (401, "true", 2), (401, "false", 1), (501, "true", 2), (429, "false", 1),
    (404, "true", 2), (503, "maybe", 2), (404, "maybe", 1),
]  # fmt: skip


@pytest.mark.parametrize(("status", "should", "requests"), SHOULD)
async def test_the_server_knows_best(status, should, requests):
    """`x-should-retry` overrides the status, either way; any other word says nothing."""
    count, error = await after(response("no", status, {"X-Should-Retry": should}), GOOD)

    assert count == requests
    assert (error is None) is (requests == 2)


async def test_an_exhausted_account_is_not_asked_again_whatever_the_server_says():
    """Waiting fills no account."""
    body = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
    count, error = await after(response(body, 429, {"x-should-retry": "true"}), GOOD)

    assert (count, type(error)) == (1, embedkit.QuotaError)


@pytest.mark.parametrize(
    "broken", ["[]", '{"data": 7}', '{"data": [{"embedding": [NaN]}]}', '{"data": [{"embedding": null}]}']
)
async def test_a_broken_reply_is_not_asked_again(broken):
    """One that can be read and breaks the contract: the same answer would come back."""
    count, error = await after(response(broken), GOOD)

    assert (count, type(error)) == (1, DecodeError)


@pytest.mark.parametrize("broken", ["", "no json", "<html></html>", '{"data": [{"embedd', '{"data": []}', "{}"])
async def test_a_reply_that_cannot_be_read_is_asked_for_once_more(broken):
    """One that is cut, empty or no JSON, or has too few embeddings, may be whole the next time; a third is not asked
    for.
    """
    broken = response(broken)

    assert await after(broken, GOOD) == (2, None)
    assert await after(response("busy", 503), broken, GOOD) == (3, None)
    count, error = await after(broken, broken, GOOD)
    assert (count, type(error)) == (2, DecodeError)
    count, error = await after(broken, GOOD, retry=RetryPolicy(attempts=1))
    assert (count, type(error)) == (1, DecodeError)


async def test_an_error_inside_a_200_is_asked_again_if_its_code_is():
    """A hidden 503 is a 503."""
    hidden = response({"error": {"message": "busy", "code": 503}})

    assert await after(hidden, hidden, GOOD) == (3, None)
    count, error = await after(response({"error": {"message": "no", "code": 404}}), GOOD)
    assert (count, type(error)) == (1, NotFoundError)


async def test_attempts_are_an_end():
    """After as many attempts as the policy has, the last error is raised; one attempt is one."""
    errors = [response({"error": str(number)}, 503) for number in range(9)]
    for attempts in (1, 2, 5):
        count, error = await after(*errors, retry=RetryPolicy(attempts=attempts, initial=0.0))

        assert (count, error.message) == (attempts, str(attempts - 1))


@pytest.mark.parametrize(("retryable", "requests"), [(True, 2), (False, 1)])
async def test_a_transport_error_knows_whether_again(retryable, requests):
    """A cut connection is worth another try, a refused certificate is not."""
    count, _ = await after(TransportError("cut", retryable=retryable), GOOD)

    assert count == requests


async def test_a_timeout_comes_back_smaller():
    """Several texts that were not done in time are halved rather than asked again as they are; one text is asked
    again.
    """
    late = TransportTimeoutError("late")
    exchange = FakeExchange([late, GOOD, GOOD])
    embedder = embedkit.connect(
        "compatible:m", base_url="http://h/v1", exchange=exchange, retry=NOW, limits=embedkit.Limits(max_texts=2)
    )
    await embedder.embed(["a", "b"])

    assert [len(body["input"]) for body in exchange.bodies] == [2, 1, 1]
    assert await after(late, GOOD) == (2, None)


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyError("x"), OSError("mine"), ValueError("mine")])
async def test_what_is_nobodys_error_is_not_asked_again(error):
    """An exception that is none of ours comes out as it is, after one request."""
    exchange = FakeExchange([error, GOOD])
    embedder = embedkit.connect("compatible:m", base_url="http://h/v1", exchange=exchange, retry=NOW)
    with pytest.raises(type(error)) as caught:
        await embedder.embed(["a"])

    assert caught.value is error
    assert len(exchange.requests) == 1


# --- hints and the deadline ------------------------------------------------------------------------------------------


def busy(seconds):
    return response({"error": "slow down"}, 429, {"retry-after": str(seconds)})


@pytest.mark.parametrize(
    ("policy", "seconds"), [({"deadline": None}, 121), ({"deadline": 30}, 31), ({"deadline": None}, 86400)]
)
async def test_a_hint_beyond_reason_is_raised_at_once(policy, seconds):
    """More than 120 s, or more than is left until the deadline: no waiting, and the figure is in the message."""
    count, error = await after(busy(seconds), GOOD, retry=RetryPolicy(**policy))

    assert (count, type(error), error.retry_after) == (1, RateLimitError, seconds)
    assert f"retry after {seconds} s" in str(error)


async def test_a_hint_is_waited_out():
    """A hint within reason is kept to, plus at most a tenth."""
    line = Line(busy(100), response("good"), jitter=0.5, deadline=110)

    assert await line.run() == b"good"
    assert line.sent == [0.0, 105.0]


async def test_backoff_doubles():
    """Without a hint: twice as long each time, up to the maximum."""
    line = Line(*[BUSY] * 5, response("good"), jitter=0.5, initial=2.0, maximum=8.0)
    await line.run()

    assert line.sent == [0.0, 1.0, 3.0, 7.0, 11.0, 15.0]


async def test_a_429_holds_up_everyone():
    """A refusal for haste pauses every request on the same pace, not only its own."""
    line = Line((1, busy(40)), response("b"), response("c"))

    async def later():
        await line.clock.sleep(2)
        return await line.send()

    await line.run(line.send, later)

    assert line.sent[0] == 0.0
    assert min(line.sent[1:]) >= 41.0


async def test_a_429_holds_up_the_others_though_it_is_given_up():
    """A request that has no attempt left, or no time, still tells everyone else how long to stay away."""
    for policy in ({"attempts": 1}, {"deadline": 30}):
        line = Line((1, busy(40)), response("b"), **policy)
        error = await line.run()

        assert type(error) is RateLimitError
        assert await line.run() == b"b"
        assert line.sent == [0.0, 41.0]


@pytest.mark.parametrize("seconds", [121, 86400])
async def test_a_hint_beyond_reason_holds_up_nobody(seconds):
    """Hours are not waited by anyone: the next request asks for itself."""
    line = Line((1, busy(seconds)), response("b"))
    await line.run()

    assert await line.run() == b"b"
    assert line.sent[1] < 3


@pytest.mark.parametrize("seconds", ["0", "-1", "soon"])
async def test_a_hint_of_nothing_is_no_hint(seconds):
    """Retry-After: 0 is a 429 without a hint: a backoff, growing, and the first holds up everyone."""
    line = Line(*[busy(seconds)] * 2, response("good"), jitter=0.0)
    await line.run()

    assert line.sent == [0.0, 1.0, 3.0]


async def test_too_many_at_once_holds_up_only_itself():
    """An overloaded endpoint gets fewer at once; the others need not wait, since it is not about haste."""
    overloaded = response({"error": "Model is overloaded", "error_type": "Overloaded"}, 429)
    line = Line((1, response("a")), (0.5, overloaded), (0.5, response("b")), (1, response("c")), slots=2)

    async def later():
        await line.clock.sleep(0.6)
        return await line.send()

    await line.run(line.send, line.send, later)

    assert line.sent[:2] == [0.0, 0.0]
    assert line.sent[2] == pytest.approx(1.0)  # one at once from then on
    assert line.transport.limiter.window.size == 2  # the last answer was good: the second place is tried again
    assert line.transport.limiter.quota.blocked(line.clock.now) == 0.0


@pytest.mark.parametrize(
    ("answer", "size"),
    [(BUSY, 2), (response("no", 529), 2), (response("no", 502), 4), (TransportTimeoutError("late"), 2)],
)
async def test_what_narrows_the_window(answer, size):
    """Overload and timeouts leave fewer in flight (a good answer with one in flight wins one back); another failure
    says nothing of it.
    """
    line = Line(answer, response("good"))
    await line.run()

    assert line.transport.limiter.window.size == size


LOADING = response({"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}, 503)


async def test_a_model_that_is_being_loaded_is_waited_for():
    """Twenty looks and more, every few seconds, whatever the number of attempts says: the host's row allows for
    loading.
    """
    line = Line(*[LOADING] * 20, response("good"), loading=600.0)
    found = await line.run()

    assert found == b"good"
    assert 60 < line.sent[-1] < 110
    assert max(after - before for before, after in itertools.pairwise(line.sent)) <= 5.5


@pytest.mark.parametrize(
    ("loading", "policy", "tries"),
    [(0.0, {}, 6), (600.0, {"attempts": 1}, 1), (600.0, {"deadline": 10.0}, 6), (10.0, {}, 7)],
)
async def test_loading_is_not_waited_for_beyond_what_was_said(loading, policy, tries):
    """No longer than the row or the deadline allows, and not at all where there is to be one attempt, or the row does
    not know of it.
    """
    line = Line(*[LOADING] * 40, loading=loading, **policy)
    found = await line.run()

    assert isinstance(found, ServerError)
    assert found.loading
    assert len(line.sent) == tries


async def test_nobody_else_asks_while_a_model_is_being_loaded():
    """One answer tells all: the others wait with it, and the window stays as wide as it was."""
    line = Line(LOADING, *[response("good")] * 5, loading=600.0)
    before = line.transport.limiter.window.size
    await line.run(line.send, *[line.send] * 4)

    assert len(line.sent) <= 9
    assert line.transport.limiter.window.size >= before


async def test_the_deadline_counts_exchanges_and_backoff():
    """A retry that could only begin beyond the deadline is not made: the last error is raised."""
    line = Line((4, BUSY), (4, BUSY), (4, BUSY), response("never"), jitter=0.5, initial=2.0, deadline=11)
    error = await line.run()

    assert type(error) is ServerError
    assert line.sent == [0.0, 5.0]  # 4 s and a backoff of 1, then 4 s again: another 2 would be all that is left of 11


async def test_the_deadline_does_not_count_the_wait_for_a_turn():
    """However long the line is, each request has its whole deadline."""
    answers = [(0.1, response(name)) for name in "abc"]
    line = Line(BUSY, *answers, rate=Rate(requests_per_minute=1), deadline=2)
    found = await line.run(line.send, line.send, line.send)

    assert sorted(found) == [b"a", b"b", b"c"]
    assert line.sent[-1] > 120


async def test_a_later_attempt_is_cut_off_at_the_deadline():
    """A retry that gets no answer ends with the deadline, as a timeout that names it and is final."""

    class Hangs:
        requests = 0

        async def __call__(self, request):
            self.requests += 1
            if self.requests == 1:
                return BUSY
            return await anyio.sleep_forever()

        async def aclose(self):
            pass

    exchange = Hangs()
    policy = RetryPolicy(initial=0.0, deadline=0.05)
    embedder = embedkit.connect("compatible:m", base_url="http://h/v1", exchange=exchange, retry=policy)
    with pytest.raises(TransportTimeoutError, match=r"deadline of 0\.05 s") as caught:
        await embedder.embed(["a"])

    assert exchange.requests == 2
    assert not caught.value.retryable


@pytest.mark.parametrize("texts", [["a"], ["a", "b"]])
@pytest.mark.parametrize("more", [{}, {"hedge": True}])
async def test_the_first_attempt_is_cut_off_at_the_deadline(texts, more):
    """A server that accepts and never answers: the error comes with the deadline, long before the timeout of an
    attempt.
    """

    class Hangs:
        async def __call__(self, request):
            return await anyio.sleep_forever()

        async def aclose(self):
            pass

    policy = RetryPolicy(deadline=0.05)
    embedder = embedkit.connect("compatible:m", base_url="http://h/v1", exchange=Hangs(), retry=policy, **more)
    with anyio.fail_after(5), pytest.raises(TransportTimeoutError, match=r"deadline of 0\.05 s") as caught:
        await embedder.embed(texts)

    assert not caught.value.retryable


async def test_no_deadline_is_none():
    """`deadline=None` waits as long as it takes."""
    line = Line((400, BUSY), (400, BUSY), response("good"), deadline=None)

    assert await line.run() == b"good"


# --- keys ------------------------------------------------------------------------------------------------------------


async def embedded(api_key, *answers, model="openai:text-embedding-3-small", **settings):
    """The requests that go out with this key."""
    exchange = FakeExchange(answers or [GOOD])
    embedder = embedkit.connect(model, api_key=api_key, exchange=exchange, retry=NOW, **settings)
    await embedder.embed(["a"])
    return exchange.requests


def plain(keys):
    return lambda: next(keys)


def coroutine(keys):
    async def key():
        await anyio.lowlevel.checkpoint()
        return next(keys)

    return key


def awaitable(keys):
    return lambda: coroutine(keys)()  # noqa: PLW0108 (a plain function that gives something to await)


@pytest.mark.parametrize("kind", [plain, coroutine, awaitable])
async def test_a_callable_is_asked_on_every_attempt(kind):
    """A key that is a function, of whatever kind, is asked for before each attempt, and what it says then is sent."""
    sent = await embedded(kind(iter(["one", "two", "three"])), BUSY, BUSY, GOOD)

    assert [request.headers["authorization"] for request in sent] == ["Bearer one", "Bearer two", "Bearer three"]


async def test_a_callable_is_not_asked_before_it_is_needed():
    """`connect` asks for nothing."""
    embedkit.connect("openai:text-embedding-3-small", api_key=lambda: pytest.fail("asked too early"))


async def test_a_callable_for_another_secret():
    """What the host's row declares secret may be a function too."""
    settings = {"base_url": "https://r.openai.azure.com", "ad_token": coroutine(iter(["t1", "t2"]))}
    sent = await embedded(None, BUSY, GOOD, model="azure:m", **settings)

    assert [request.headers["authorization"] for request in sent] == ["Bearer t1", "Bearer t2"]


class Vault(Exception):
    """Nobody's error."""


def raising(error):
    def key():
        raise error

    return key


@pytest.mark.parametrize("error", [Vault("sealed"), KeyError("k"), TimeoutError(), ConfigError("no"), AuthError("no")])
async def test_what_a_callable_raises_comes_out(error):
    """The caller's own exception, as it is; nothing was sent, and nothing is asked again."""
    exchange = FakeExchange([])
    embedder = embedkit.connect("openai:m", api_key=raising(error), exchange=exchange, retry=NOW)
    with pytest.raises(type(error)) as caught:
        await embedder.embed(["a"])

    assert caught.value is error or str(caught.value) == str(error)
    assert exchange.requests == []


async def test_a_callable_that_may_do_better_later():
    """An error of ours that is retryable is, also out of a callable."""
    keys = iter([TransportError("the vault is away"), "k"])

    def key():
        value = next(keys)
        if isinstance(value, Exception):
            raise value
        return value

    assert len(await embedded(key)) == 1


@pytest.mark.parametrize(
    ("junk", "says"),
    [
        (None, "NoneType"), ("", "str"), ("  ", "str"), (b"sk-bytes", "bytes"), (7, "int"), (["k"], "list"), (time, "module"),
        ("k\nx-evil: 1", "no header can carry"), ("schlüssel", "no header can carry"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [plain, coroutine])
async def test_junk_from_a_callable(junk, says, kind):
    """Anything but a key is a ConfigError that names the argument and the type, never the value; nothing is sent."""
    exchange = FakeExchange([])
    embedder = embedkit.connect("openai:m", api_key=kind(iter([junk])), exchange=exchange, retry=NOW)
    with pytest.raises(ConfigError, match=says) as caught:
        await embedder.embed(["a"])

    assert "api_key" in str(caught.value)
    assert not isinstance(junk, (str, bytes)) or len(junk) < 3 or str(junk) not in str(caught.value)
    assert exchange.requests == []


async def test_white_space_around_a_key_is_none():
    """A key read from a file ends in a line break more often than not."""
    sent = await embedded(lambda: " sk-of-a-file\n")

    assert sent[0].headers["authorization"] == "Bearer sk-of-a-file"


# --- one cool-down ---------------------------------------------------------------------------------------------------

LINE = FakeExchange(lambda request: busy(90))  # one for all: each has a quota of its own


async def refused(**settings):
    """An embedder that has just been told to stay away for 90 s, and did not ask again."""
    given = {"api_key": "k", **settings}
    embedder = embedkit.connect("openai:a", exchange=LINE, retry=RetryPolicy(attempts=1), **given)
    with pytest.raises(RateLimitError):
        await embedder.embed("x")
    return embedder


def held(model="openai:a", **settings):
    """For how many seconds an embedder made now would hold back its first request."""
    embedder = embedkit.connect(model, exchange=LINE, **{"api_key": "k", **settings})
    return embedder._quota.blocked(time.monotonic())


async def test_one_cool_down_for_a_host_and_a_key():
    """Every embedder of the same host and key stays away, of whatever model, settings and age; another key or host need
    not.
    """
    other = held()
    first = await refused()

    assert (other, first._quota.blocked(time.monotonic()) > 60) == (0.0, True)
    assert held() > 60
    assert held("openai:b", rate=Rate(requests_per_minute=1e6), dimensions=256) > 60
    assert held(api_key="another") == 0.0
    assert held(base_url="http://elsewhere/v1") == 0.0
    assert held("voyage:voyage-3.5") == 0.0


async def test_a_cool_down_reaches_an_embedder_that_is_older():
    """Also one that was there before."""
    older = embedkit.connect("openai:b", api_key="k", exchange=LINE)
    first = await refused()

    assert older._quota.blocked(time.monotonic()) > 60
    assert older._quota is not first._quota


async def test_a_key_that_is_asked_for_is_an_account_of_its_own():
    """What a callable will return is not known: the same callable shares, another does not."""

    def mine():
        return "k"

    first = await refused(api_key=mine)

    assert first._quota.blocked(time.monotonic()) > 60
    assert held(api_key=mine) > 60
    assert held(api_key=lambda: "k") == 0.0


async def test_a_pickled_embedder_joins_its_account():
    """Unpickled in the same process it shares what is known of the quota; the pickle carries none of it."""
    first = embedkit.connect("openai:a", api_key="k")
    first._quota.pause(time.monotonic(), 90.0)
    data = pickle.dumps(first)

    assert pickle.loads(data)._quota is first._quota  # noqa: S301 (our own)

    script = "import pickle, sys; print(pickle.load(sys.stdin.buffer)._quota.blocked(0.0))"
    found = subprocess.run([sys.executable, "-c", script], input=data, capture_output=True, check=True)

    assert float(found.stdout) == 0.0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
async def test_a_forked_embedder_starts_over():
    """A child does not wait for what its parent was told: it may live on another quota, and a lock may have been
    held.
    """
    script = """if True:
        import asyncio, os, sys, time, embedkit
        from embedkit.testing import FakeExchange
        good = {"data": [{"embedding": [1.0, 2.0]}]}
        embedder = embedkit.connect("openai:a", api_key="k", exchange=FakeExchange([good]))
        embedder._quota.pause(time.monotonic(), 3600.0)
        with embedder._quota._lock:
            child = os.fork()
        if child == 0:
            asyncio.run(embedder.embed("x"))
            os._exit(17)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) - 17)
    """
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False, timeout=60
    )

    assert (found.returncode, found.stderr) == (0, "")
