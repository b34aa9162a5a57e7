"""Late requests sent twice: when, how often, which answer counts, and what is left behind. In virtual time, on asyncio
and on trio.
"""

from __future__ import annotations

import pickle

import anyio
import numpy as np
import pytest
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

import embedkit
from benchmarks.hedging import Stalling
from benchmarks.hedging import run as simulated
from benchmarks.virtual import VirtualLoop
from embedkit import ConfigError, Rate, RateLimitError, RetryPolicy, ServerError, TransportError
from embedkit._traffic.concurrency import ConcurrencyLimit
from embedkit._traffic.hedging import BURST, LATE_SHARE, MAX_SAMPLES, MIN_SAMPLES, Hedge, HedgeBudget, Lateness
from embedkit._traffic.limiter import Limiter
from embedkit._traffic.quota import Quota
from embedkit._types import Response
from embedkit.events import RequestSent
from embedkit.testing import FakeExchange, response

pytestmark = pytest.mark.anyio
SIZE = 100  # bytes of every request


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    if request.param == "asyncio":
        return "asyncio", {"loop_factory": VirtualLoop}
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


# --- what is late, and how often -------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), max_size=2 * MAX_SAMPLES), st.floats(0.001, 1))
def test_late_is_a_quantile_of_the_last_answers(seconds, share):
    """Of the answers remembered, at most the share asked for took longer; nothing is late while too little is known."""
    lateness = Lateness(share)
    for each in seconds:
        lateness.add(each)
    last, late = seconds[-MAX_SAMPLES:], lateness.late()

    if len(seconds) < MIN_SAMPLES:
        assert late is None
    else:
        assert late in last
        assert sum(each > late for each in last) <= share * len(last) + 1e-9
        assert sum(each >= late for each in last) >= share * len(last) - 1e-9


def test_old_answers_are_forgotten():
    """An endpoint that has become slow is not late for ever."""
    lateness = Lateness(0.05)
    for seconds in [0.1] * MAX_SAMPLES + [9.0] * MAX_SAMPLES:
        lateness.add(seconds)

    assert lateness.late() == 9.0


@given(st.floats(0, 1), st.lists(st.booleans(), max_size=300))
def test_the_budget_is_a_share_of_first_requests(share, wishes):
    """However often a second request is wished for, no more are sent than the share of the first ones."""
    budget, spent = HedgeBudget(share), 0
    for first, wish in enumerate(wishes, 1):
        budget.earn()
        if wish and budget.left:
            budget.spend()
            spent += 1

        assert spent <= share * first + 1e-9


def test_what_is_not_spent_is_saved_up_to_a_bound():
    """After a long quiet time no more than a handful may go at once."""
    budget = HedgeBudget(0.5)
    for _ in range(1000):
        budget.earn()
    spent = 0
    while budget.left:
        budget.spend()
        spent += 1

    assert spent == BURST


# --- one race --------------------------------------------------------------------------------------------------------


class Wire:
    """Answers the n-th request after so many seconds with that status or error; remembers when each left, and which
    were cancelled.
    """

    def __init__(self, *script):
        self.script = script
        self.left = []
        self.cancelled = []

    async def send(self):
        number = len(self.left)
        self.left.append(round(anyio.current_time() - self.started, 6))
        seconds, outcome = self.script[number]
        try:
            await anyio.sleep(seconds)
        except BaseException:
            self.cancelled.append(number)
            raise
        if isinstance(outcome, BaseException):
            raise outcome
        return Response(outcome, {}, b"%d" % number)

    async def through(self, hedge, size=SIZE, again=lambda: True):
        """(body of the answer that counted, seconds it took)."""
        self.started = anyio.current_time()
        answer = await hedge(self.send, size, again)
        return bytes(answer.body), round(anyio.current_time() - self.started, 6)


async def primed(share=1.0, answers=MIN_SAMPLES):
    """A hedge to which one second is usual."""
    hedge = Hedge(share, clock=anyio.current_time)
    for _ in range(answers):
        await Wire((1.0, 200)).through(hedge)
    return hedge


async def test_nothing_is_sent_twice_while_little_is_known():
    """The first answers only teach."""
    wire = Wire((60.0, 200))

    assert await wire.through(await primed(answers=MIN_SAMPLES - 1)) == (b"0", 60.0)
    assert wire.left == [0.0]


async def test_a_late_request_is_sent_once_more_and_the_first_answer_counts():
    """After as long as is usual a second one leaves; its answer comes first, and the other request is cancelled."""
    wire = Wire((60.0, 200), (0.5, 200))

    assert await wire.through(await primed()) == (b"1", 1.5)
    assert (wire.left, wire.cancelled) == ([0.0, 1.0], [0])


async def test_the_first_request_may_still_win():
    """Then the second is cancelled, and nothing waits for it."""
    wire = Wire((1.25, 200), (60.0, 200))

    assert await wire.through(await primed()) == (b"0", 1.25)
    assert wire.cancelled == [1]


async def test_who_answers_in_time_is_sent_once():
    """Just within what is usual, no second request leaves."""
    wire = Wire((0.99, 200))

    assert await wire.through(await primed()) == (b"0", 0.99)


@pytest.mark.parametrize("refusal", [429, 500, TransportError("cut"), RuntimeError("foreign")])
async def test_a_refusal_loses_against_an_answer_to_come(refusal):
    """A second request that is refused, or breaks, does not take the first one down."""
    wire = Wire((3.0, 200), (0.1, refusal))

    assert await wire.through(await primed()) == (b"0", 3.0)
    assert wire.cancelled == []


@pytest.mark.parametrize("refusal", [429, 500, TransportError("cut"), RuntimeError("foreign")])
async def test_the_second_answer_saves_a_first_one_that_fails(refusal):
    """A first request that fails late is made good by the second."""
    wire = Wire((1.5, refusal), (3.0, 200))

    assert await wire.through(await primed()) == (b"1", 4.0)


async def test_a_failure_in_time_is_not_hedged():
    """It is the business of the retry."""
    wire = Wire((0.5, TransportError("cut")))
    with pytest.raises(TransportError, match="cut"):
        await wire.through(await primed())

    assert wire.left == [0.0]


@pytest.mark.parametrize(
    "error", [TransportError("first"), ValueError("first"), KeyboardInterrupt("first"), SystemExit("first")]
)
async def test_when_both_fail_the_earlier_failure_comes_out_bare(error):
    """No group wraps it."""
    wire = Wire((1.5, error), (3.0, TransportError("second")))
    with pytest.raises(type(error), match="first"):
        await wire.through(await primed())


async def test_when_both_are_refused_the_earlier_refusal_counts():
    """As a response, which the caller judges."""
    wire = Wire((3.0, 503), (0.5, 429))

    assert await wire.through(await primed()) == (b"1", 3.0)


async def test_a_caller_that_gives_up_ends_both():
    """Neither request goes on."""
    wire = Wire((60.0, 200), (60.0, 200))
    hedge = await primed()
    with anyio.move_on_after(5.0):
        await wire.through(hedge)

    assert sorted(wire.cancelled) == [0, 1]


async def test_without_credit_it_waits_for_some():
    """The share of second requests is kept; one that is still late when there is credit again leaves then."""
    hedge = await primed(share=0.05, answers=MIN_SAMPLES - 1)
    await Wire((1.0, 200)).through(hedge)
    wire = Wire((10.0, 200), (0.5, 200))
    hedge._budget._credit = -0.5

    async def others():
        for _ in range(40):
            await Wire((0.1, 200)).through(hedge)

    async with anyio.create_task_group() as group:
        group.start_soon(others)
        answer = await wire.through(hedge)

    assert answer == (b"1", 3.5)
    assert wire.left == [0.0, 3.0]


async def test_what_may_not_go_costs_no_credit():
    """Where the pace allows no second request none is sent, and none is paid for."""
    hedge = await primed()
    before = hedge._budget._credit
    answer = await Wire((3.0, 200)).through(hedge, again=lambda: False)

    assert answer == (b"0", 3.0)
    assert hedge._budget._credit >= before


async def test_refusals_teach_nothing():
    """A storm of quick refusals does not make every good answer late."""
    hedge = await primed()
    for _ in range(MAX_SAMPLES):
        await Wire((0.01, 429)).through(hedge)

    wire = Wire((0.9, 200))

    assert await wire.through(hedge) == (b"0", 0.9)
    assert wire.left == [0.0]


async def test_large_requests_are_judged_apart():
    """What is late for a small request is usual for a large one."""
    hedge = await primed()
    for _ in range(MIN_SAMPLES):
        await Wire((20.0, 200)).through(hedge, size=100 * SIZE)
    wire = Wire((19.0, 200))

    assert await wire.through(hedge, size=100 * SIZE) == (b"0", 19.0)


async def test_answers_without_any_delay_do_not_spin():
    """Where everything answers at once, a request that hangs without credit is asked for again ever more rarely."""
    hedge = Hedge(0.01, clock=anyio.current_time)
    for _ in range(MIN_SAMPLES):
        await Wire((0.0, 200)).through(hedge)
    asked = []
    hedge._budget._credit = 1.0
    await Wire((100.0, 200)).through(hedge, again=lambda: bool(asked.append(1)))

    assert len(asked) < 20


# --- through the engine ----------------------------------------------------------------------------------------------


class Slow:
    """An exchange whose n-th request takes seconds[n] (one second beyond the list) and answers statuses[n] (200)."""

    def __init__(self, seconds, statuses=()):
        self.seconds, self.statuses = dict(seconds), dict(statuses)
        self.exchange = FakeExchange(self.answer)

    async def answer(self, request):
        number = len(self.exchange.requests) - 1
        await anyio.sleep(self.seconds.get(number, 1.0))
        status = self.statuses.get(number, 200)
        return response({"data": [{"embedding": [3.0, 4.0], "index": 0}]} if status == 200 else "no", status)


async def connected(slow, **keywords):
    """An embedder to which one second is usual, after LEAST requests."""
    settings = {
        "hedge": 1.0,
        "max_concurrency": 4,
        "exchange": slow.exchange,
        "retry": RetryPolicy(attempts=1),
        **keywords,
    }
    embedder = embedkit.connect("openai:m", base_url="http://h/v1", **settings)
    embedder._clock = anyio.current_time
    for number in range(MIN_SAMPLES):
        await embedder.embed(f"usual {number:02}")
    return embedder


async def test_usage_counts_both_requests():
    """A call whose request was late has sent two."""
    slow = Slow({MIN_SAMPLES: 60.0})
    embedder = await connected(slow)
    result = await embedder.embed("text late")

    assert np.array_equal(result.vectors, [[3, 4]])
    assert result.usage.requests == 2
    assert len(slow.exchange.requests) == MIN_SAMPLES + 2
    assert slow.exchange.requests[-1] == slow.exchange.requests[-2]


async def test_usage_is_exact_when_both_fail():
    """Two refused requests and one that is tried again: three."""
    slow = Slow(
        {MIN_SAMPLES: 3.0, MIN_SAMPLES + 1: 3.0, MIN_SAMPLES + 2: 0.5}, {MIN_SAMPLES: 500, MIN_SAMPLES + 1: 500}
    )
    embedder = await connected(slow, retry=RetryPolicy(attempts=2, initial=0))
    result = await embedder.embed("text late")

    assert result.usage.requests == 3


async def test_usage_is_exact_at_the_deadline():
    """Three requests: one refused, then one and its second, both cut off at the deadline."""
    slow = Slow({MIN_SAMPLES: 0.5, MIN_SAMPLES + 1: 600.0, MIN_SAMPLES + 2: 600.0}, {MIN_SAMPLES: 500})
    embedder = await connected(slow, retry=RetryPolicy(attempts=3, initial=0, deadline=100.0))
    sent = len(slow.exchange.requests)
    tally = []
    original = embedder.fill_rows

    async def fill(texts, options, out, count, tries):
        tally.append(count)
        return await original(texts, options, out, count, tries)

    embedder.fill_rows = fill
    with pytest.raises(TransportError, match="deadline of 100 s"):
        await embedder.embed("text late")

    assert tally[0].requests == len(slow.exchange.requests) - sent == 3


async def test_both_failures_reach_the_caller_as_one():
    """The error is that of the endpoint, typed and bare."""
    slow = Slow({MIN_SAMPLES: 3.0}, {MIN_SAMPLES: 503, MIN_SAMPLES + 1: 503})
    embedder = await connected(slow)
    with pytest.raises(ServerError) as caught:
        await embedder.embed("text late")

    assert (caught.value.status, caught.value.model) == (503, "m")


async def test_a_429_to_the_second_request_is_no_429_to_the_call():
    """The first answer still counts, and nobody is told to slow down."""
    slow = Slow({MIN_SAMPLES: 3.0}, {MIN_SAMPLES + 1: 429})
    embedder = await connected(slow)
    result = await embedder.embed("text late")

    assert result.usage.requests == 2
    assert embedder._quota.blocked(anyio.current_time()) == 0


async def test_a_429_to_both_is_a_rate_limit():
    """Then it is told as ever."""
    slow = Slow({MIN_SAMPLES: 3.0}, {MIN_SAMPLES: 429, MIN_SAMPLES + 1: 429})
    embedder = await connected(slow)
    with pytest.raises(RateLimitError):
        await embedder.embed("text late")


async def test_the_rate_asked_for_holds_for_second_requests_too():
    """A quota of one request a second leaves no room for a second one: none is sent."""
    slow = Slow({MIN_SAMPLES: 10.0})
    embedder = await connected(slow, rate=Rate(requests_per_minute=6))
    result = await embedder.embed("text late")

    assert result.usage.requests == 1


async def test_asking_for_a_second_place_takes_none():
    """A pace without room for a second request is not charged for the question."""
    now = 0.0

    async def sleep(seconds):
        nonlocal now
        now += seconds

    limiter = Limiter(ConcurrencyLimit(8, 8), Quota(Rate(requests_per_minute=60)), clock=lambda: now, sleep=sleep)
    await limiter.acquire()

    assert [limiter.try_extra() for _ in range(10)] == [False] * 10
    assert await limiter.acquire() == pytest.approx(1.0)

    now += 1.0

    assert [limiter.try_extra(), limiter.try_extra()] == [True, False]


async def test_events_tell_of_both():
    """As many `RequestSent` as usage.requests, the second under the number of its attempt."""
    events = []
    slow = Slow({MIN_SAMPLES: 60.0})
    embedder = await connected(slow, observe=events.append)
    events.clear()
    await embedder.embed("text late")

    assert [event.attempt for event in events if isinstance(event, RequestSent)] == [1, 1]


async def test_without_hedging_nothing_is_doubled():
    """It is an offer: left out, a late request is waited for."""
    slow = Slow({MIN_SAMPLES: 60.0})
    embedder = await connected(slow, hedge=False)

    assert (await embedder.embed("text late")).usage.requests == 1


async def test_closing_closes_the_exchange():
    """The exchange beneath is closed as ever."""
    slow = Slow({})
    embedder = await connected(slow)
    await embedder.aclose()

    assert slow.exchange.closed


@pytest.mark.parametrize("hedge", [-0.1, 1.5, float("nan"), "yes", None])
def test_a_share_is_a_share(hedge):
    """Anything but True, False or a share between 0 and 1 is refused, by name."""
    with pytest.raises(ConfigError, match="hedge="):
        embedkit.connect("openai:m", base_url="http://h", hedge=hedge)


def test_it_travels_with_a_pickle():
    """What is configured stays configured."""
    embedder = embedkit.connect("openai:m", base_url="http://h", hedge=True)
    twin = pickle.loads(pickle.dumps(embedder))  # noqa: S301 (our own bytes)

    assert twin._hedge == 0.05


# --- what it is good for ---------------------------------------------------------------------------------------------


def test_a_server_that_stalls_two_replies_in_a_hundred():
    """Two stalls in a hundred, tenfold: the slowest call in a hundred takes 2.5 times the median instead of ten, for
    under 5 %.
    """
    without = simulated(Stalling(3), 2500, hedge=0.0)
    hedged = simulated(Stalling(3), 2500, hedge=0.05)
    middle = without.quantile(0.5)

    assert without.extra == 0
    assert without.quantile(0.99) > 9 * middle
    assert hedged.quantile(0.99) < 2.5 * middle
    assert hedged.quantile(0.999) < 4 * middle
    assert hedged.quantile(0.5) < 1.05 * middle
    assert hedged.extra <= 0.05


def test_an_endpoint_that_gets_slow_is_not_asked_twice_for_everything():
    """Twice as slow from the middle on: the budget holds, and what counts as late is learned anew."""
    hedged = simulated(Stalling(3, slows=7.0), 1500, hedge=0.05)

    assert hedged.extra <= 0.05


def test_late_ones_are_fewer_than_may_be_sent_twice():
    """Else there would mostly be no credit left for those that stall."""
    assert 0 < LATE_SHARE < 1
