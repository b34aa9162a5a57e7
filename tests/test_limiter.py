"""Turns: rates that are never exceeded, slots that are never doubled, pauses that stop everyone. No test sleeps."""

from __future__ import annotations

import itertools
import math
import threading

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit import ConfigError, Rate
from embedkit._limiter import Limiter
from embedkit._pace import Bucket, Pace
from embedkit._window import Window

CLOSE = 1e-6
STEPS = st.lists(st.tuples(st.floats(0, 30), st.floats(0, 1)), min_size=1, max_size=40)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


class Clock:
    """Time that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0
        self._sleepers: list[tuple[float, int, anyio.Event]] = []
        self._numbers = itertools.count()

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        alarm = anyio.Event()
        self._sleepers.append((self.now + seconds, next(self._numbers), alarm))
        await alarm.wait()

    async def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            await wait_all_tasks_blocked()
            due = min((sleeper for sleeper in self._sleepers if sleeper[0] <= end), default=None)
            if due is None:
                break
            self._sleepers.remove(due)
            self.now = max(self.now, due[0])
            due[2].set()
        self.now = end


def limiter(slots, rate=None, clock=None):
    clock = clock or Clock()
    return Limiter(Window(slots, slots), Pace(rate), clock=clock, sleep=clock.sleep)


def within(grants, per_second, capacity):
    """Whether (moment, amount) never add up to more than rate * window + capacity, whatever the window."""
    for first in range(len(grants)):
        total = 0.0
        for moment, amount in grants[first:]:
            total += amount
            if total > per_second * (moment - grants[first][0]) + capacity + CLOSE * total:
                return False
    return True


# --- Rate ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, True, "60", [1]])
@pytest.mark.parametrize("name", ["requests_per_minute", "tokens_per_minute"])
def test_a_rate_is_a_positive_number(name, value):
    """Anything but a positive finite number is a ConfigError that names the field."""
    with pytest.raises(ConfigError, match=name):
        Rate(**{name: value})


def test_a_rate_may_be_left_open():
    """Either quota may be None, and a fraction is a rate."""
    assert Rate().requests_per_minute is None
    assert Rate(requests_per_minute=0.5).requests_per_minute == 0.5


# --- Bucket ----------------------------------------------------------------------------------------------------------


@given(st.floats(1, 6000), STEPS)
def test_a_bucket_never_grants_more_than_its_rate(per_minute, steps):
    """Over any window, what is granted stays within rate * window + capacity."""
    bucket, now, grants = Bucket(per_minute), 0.0, []
    for pause, share in steps:
        now += pause
        amount = share * bucket.capacity
        grants.append((now + bucket.reserve(now, amount), amount))

    moments = [moment for moment, _ in grants]
    assert all(later >= earlier - CLOSE for earlier, later in itertools.pairwise(moments))
    assert within(grants, bucket.per_second, bucket.capacity)


@given(st.floats(1, 6000), STEPS)
def test_a_larger_amount_than_the_bucket_is_paid_off(per_minute, steps):
    """An amount beyond the capacity is granted late rather than never, and what follows waits until it is paid."""
    bucket, now, grants = Bucket(per_minute), 0.0, []
    for pause, share in steps:
        now += pause
        amount = share * 5 * bucket.capacity
        grants.append((now + bucket.reserve(now, amount), amount))

    assert within(grants, bucket.per_second, max(bucket.capacity, *(amount for _, amount in grants)))


def test_a_bucket_by_hand():
    """60 a minute: one at once, then one a second; a minute of rest saves no more than one second's worth."""
    bucket = Bucket(60)

    assert [bucket.reserve(0.0, 1) for _ in range(4)] == [0.0, 1.0, 2.0, 3.0]
    assert bucket.reserve(60.0, 1) == 0.0
    assert bucket.reserve(60.0, 1) == 1.0


def test_a_bucket_is_used_in_full():
    """Whoever comes back exactly when told is never told to wait longer: the rate is reached, not only kept."""
    bucket, now = Bucket(600), 0.0
    for _ in range(1000):
        now += bucket.reserve(now, 1)

    assert now == pytest.approx((1000 - 10) / 10)


@given(st.floats(1, 6000), STEPS)
def test_giving_back_leaves_no_trace(per_minute, steps):
    """An amount taken and given back at the same moment changes nothing, and giving more never overfills."""
    plain, other, now = Bucket(per_minute), Bucket(per_minute), 0.0
    for pause, share in steps:
        now += pause
        if other.reserve(now, 0.0) > 0:
            other.reserve(now, 7.0)
            other.reserve(now, -7.0)

        assert other.reserve(now, share) == pytest.approx(plain.reserve(now, share), abs=1e-6)

    other.reserve(now, -1e9)

    assert other.level == other.capacity


def test_time_that_runs_backwards_refills_nothing():
    """A `now` before the last one counts as the last one."""
    bucket = Bucket(60)
    bucket.reserve(10.0, 1)

    assert bucket.reserve(5.0, 1) == 1.0
    assert bucket.reserve(10.0, 1) == 2.0


# --- Pace ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100))))
def test_a_pause_only_ever_grows(pauses):
    """The cool-down ends at the latest of all pauses; a shorter one never cuts it."""
    pace = Pace()
    for now, seconds in pauses:
        before = pace.blocked(0.0)
        pace.pause(now, seconds)

        assert pace.blocked(0.0) >= before

    end = max((now + seconds for now, seconds in pauses), default=0.0)

    assert pace.blocked(0.0) == end
    assert pace.reserve(end, 10**9) == 0.0


@given(st.floats(1, 600), st.lists(st.tuples(st.floats(0, 5), st.sampled_from(["reserve", "pause"])), min_size=1, max_size=40))
def test_the_rate_holds_after_a_pause(per_minute, steps):
    """Requests that arrive during a cool-down do not all leave at its end: over any window the rate still holds."""
    pace, now, until, grants = Pace(Rate(requests_per_minute=per_minute)), 0.0, 0.0, []
    for seconds, what in steps:
        now += seconds
        if what == "pause" and not grants:
            pace.pause(now, 3 * seconds)
            until = max(until, now + 3 * seconds)
        elif what == "reserve":
            grants.append((now + pace.reserve(now, 1), 1))

    assert all(moment >= until - CLOSE for moment, _ in grants)
    assert within(grants, per_minute / 60, max(1.0, per_minute / 60))


def test_requests_and_tokens_are_both_kept():
    """The longer wait of the two quotas counts."""
    pace = Pace(Rate(requests_per_minute=60, tokens_per_minute=6000))

    assert pace.reserve(0.0, 100) == 0.0
    assert pace.reserve(0.0, 1) == 1.0  # requests
    assert pace.reserve(2.0, 1000) == 9.0  # tokens: the bucket is full again with 100, and 900 are owed


def test_reported_usage_corrects_the_estimate():
    """What the provider counted more is owed, what it counted less is given back."""
    pace = Pace(Rate(tokens_per_minute=6000))
    pace.reserve(0.0, 100)
    pace.correct(0.0, 300)

    assert pace.reserve(0.0, 0) == pytest.approx(3.0)

    pace.correct(0.0, -300)

    assert pace.reserve(0.0, 0) == pytest.approx(0.0)


def test_a_pace_without_a_rate_never_waits():
    """No quota: only a pause makes anyone wait, and corrections are harmless."""
    pace = Pace()
    pace.correct(0.0, 10**9)
    pace.refund(0.0, 10**9)

    assert [pace.reserve(0.0, 10**9) for _ in range(100)] == [0.0] * 100


def test_a_pace_is_shared_between_threads():
    """Reservations and pauses from many threads all count, none twice."""
    pace = Pace(Rate(requests_per_minute=60))
    start, paused = threading.Barrier(8), threading.Barrier(8)

    def work(number):
        start.wait()
        for _ in range(500):
            pace.reserve(0.0, 1)
        paused.wait()
        for each in range(500):
            pace.pause(0.0, float(each * 8 + number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert pace.blocked(0.0) == 3999.0
    assert pace.reserve(0.0, 1) == 3999.0 + 1.0  # 4000 reserved, of which 3999 seconds have paid all but one


# --- Limiter ---------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 3),
    st.lists(
        st.tuples(st.sampled_from(["come", "leave", "cancel", "leave and cancel", "cancel all"]), st.integers(0, 5)),
        max_size=30,
    ),
)
async def test_slots_are_never_exceeded_and_never_lost(slots, steps):
    """Slots are never exceeded nor lost, and turns go in order of arrival, whatever comes, leaves and is cancelled."""
    turns, numbers = limiter(slots), itertools.count()
    arrived, waiting, holding, granted, scopes, ends = [], [], [], [], {}, {}

    async def one(number):
        with anyio.CancelScope() as scopes[number]:
            arrived.append(number)
            waiting.append(number)
            try:
                await turns.acquire()
            finally:
                waiting.remove(number)
            holding.append(number)
            granted.append(number)
            try:
                await ends[number].wait()
            finally:
                holding.remove(number)
                turns.release()

    async with anyio.create_task_group() as group:
        for what, which in steps:
            if what == "come":
                number = next(numbers)
                ends[number] = anyio.Event()
                group.start_soon(one, number)
            if what in ("leave", "leave and cancel") and holding:
                ends[holding[which % len(holding)]].set()
                if what == "leave and cancel":
                    await anyio.lowlevel.checkpoint()  # the turn may have been given, its owner not have run
            if what in ("cancel", "leave and cancel") and waiting:
                scopes[waiting[which % len(waiting)]].cancel()
            if what == "cancel all":
                for number in waiting:
                    scopes[number].cancel()
            if which % 2:
                await wait_all_tasks_blocked()

                assert len(holding) == min(slots, len(holding) + len(waiting))
                assert not waiting or all(arrived.index(number) < arrived.index(waiting[0]) for number in granted)
            assert len(holding) <= slots
        group.cancel_scope.cancel()

    assert (turns._busy, list(turns._queue)) == (0, [])


@pytest.mark.anyio
@pytest.mark.parametrize("cancelled_first", [True, False])
async def test_a_turn_granted_to_a_cancelled_waiter_passes_on(cancelled_first):
    """A waiter cancelled in the very step in which its turn is granted hands it to the next in line."""
    turns = limiter(1)
    await turns.acquire()
    scope, done = anyio.CancelScope(), []

    async def impatient():
        with scope:
            await turns.acquire()
            turns.release()

    async def patient():
        await turns.acquire()
        done.append("patient")
        turns.release()

    async with anyio.create_task_group() as group:
        group.start_soon(impatient)
        await wait_all_tasks_blocked()
        group.start_soon(patient)
        await wait_all_tasks_blocked()
        if cancelled_first:
            scope.cancel()
            turns.release()
        else:
            turns.release()
            scope.cancel()

    assert done == ["patient"]
    assert turns._busy == 0


@pytest.mark.anyio
async def test_a_newcomer_does_not_overtake_the_line():
    """Between a release and the moment the first in line runs, a newcomer finds no free slot."""
    turns, order = limiter(1), []
    await turns.acquire()

    async def one(name):
        await turns.acquire()
        order.append(name)
        turns.release()

    async with anyio.create_task_group() as group:
        group.start_soon(one, "first")
        await wait_all_tasks_blocked()
        turns.release()
        await one("newcomer")

    assert order == ["first", "newcomer"]


@pytest.mark.anyio
async def test_the_rate_is_waited_for():
    """`acquire` sleeps until the pace allows, and says how long it slept."""
    clock = Clock()
    turns = limiter(8, Rate(requests_per_minute=60), clock)
    slept = []

    async def one():
        slept.append((await turns.acquire(), clock.now))
        turns.release()

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(one)
            await wait_all_tasks_blocked()
        await clock.advance(10)

    assert slept == [(0.0, 100.0), (1.0, 101.0), (2.0, 102.0), (3.0, 103.0)]


@pytest.mark.anyio
async def test_a_pause_makes_everyone_wake_later():
    """A pause that comes while others sleep for their turn keeps all of them from sending until it is over."""
    clock = Clock()
    turns = limiter(8, Rate(requests_per_minute=60), clock)
    woken = []

    async def one():
        await turns.acquire()
        woken.append(clock.now)
        turns.release()

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(one)
            await wait_all_tasks_blocked()
        turns.pause(30)
        turns.pause(5)  # shorter: changes nothing
        await clock.advance(29)

        assert woken == [100.0]

        await clock.advance(5)

    assert woken == [100.0, 130.0, 130.0]


@pytest.mark.anyio
async def test_a_pause_stops_every_limiter_on_the_same_pace():
    """Two embedders of one host and key share the pause, each with slots of its own."""
    clock = Clock()
    pace = Pace()
    first, second = (Limiter(Window(1, 1), pace, clock=clock, sleep=clock.sleep) for _ in range(2))
    woken = []

    async def one():
        await second.acquire()
        woken.append(clock.now)
        second.release()

    async with anyio.create_task_group() as group:
        first.pause(7)
        group.start_soon(one)
        await clock.advance(10)

    assert woken == [107.0]


@pytest.mark.anyio
async def test_whoever_gives_up_while_waiting_for_the_rate_harms_nobody():
    """A call cancelled while it slept for its turn gives back its slot and its share of the rate."""
    clock = Clock()
    turns = limiter(1, Rate(requests_per_minute=1, tokens_per_minute=600), clock)
    await turns.acquire(10)
    turns.release()
    for _ in range(50):
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(turns.acquire, 600)
                await wait_all_tasks_blocked()
                scope.cancel()
    done = []

    async def one():
        done.append(await turns.acquire(1))

    async with anyio.create_task_group() as group:
        group.start_soon(one)
        await clock.advance(61)

    assert done == [pytest.approx(60.0)]
    assert turns._busy == 1
