"""Turns: slots that are never doubled, pauses that stop everyone, and whom a 429 is blamed on. No test sleeps."""

from __future__ import annotations

import itertools

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit import Rate
from embedkit._traffic.concurrency import ConcurrencyLimit
from embedkit._traffic.limiter import Limiter
from embedkit._traffic.quota import Cooldown, Quota
from embedkit._traffic.wait_queue import CALLER, RETRY


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
    return Limiter(ConcurrencyLimit(slots, slots), Quota(rate), clock=clock, sleep=clock.sleep)


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

    assert (turns._busy, turns._queue.size) == (0, 0)


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
    """A pause that comes while others sleep for their turn delays all of them by as much: in order, and as far apart as
    before.
    """
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

    assert woken == [100.0, 131.0, 132.0]


@pytest.mark.anyio
async def test_pauses_add_up_for_those_who_wait():
    """Pauses that overlap count once, later ones again; who waits for no rate goes at the end of them all."""
    clock = Clock()
    cooldown = Cooldown()
    paces = Quota(Rate(requests_per_minute=60), cooldown), Quota(None, cooldown)
    told, free = (Limiter(ConcurrencyLimit(9, 9), pace, clock=clock, sleep=clock.sleep) for pace in paces)
    woken = []

    async def one(turns, name):
        slept = await turns.acquire()
        woken.append((name, clock.now, slept))
        turns.release()

    async with anyio.create_task_group() as group:
        free.pause(10)
        for turns, name in ((told, "first"), (told, "second"), (free, "free")):
            group.start_soon(one, turns, name)
            await wait_all_tasks_blocked()
        await clock.advance(5)
        free.pause(10)  # 5 of them are new
        await clock.advance(10.5)
        told.pause(2)  # while only the second waits
        await clock.advance(10)

    assert sorted(woken) == [("first", 115.0, 15.0), ("free", 115.0, 15.0), ("second", 118.0, 18.0)]


@pytest.mark.anyio
async def test_a_pause_stops_every_limiter_on_the_same_pace():
    """Two embedders of one host and key share the pause, each with slots of its own."""
    clock = Clock()
    pace = Quota()
    first, second = (Limiter(ConcurrencyLimit(1, 1), pace, clock=clock, sleep=clock.sleep) for _ in range(2))
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


# --- whom a 429 is blamed on -----------------------------------------------------------------------------------------


def known(*, size=20, seconds=1.0, granted=10):
    """A limiter that has seen a refusal, and since then so many requests granted per second, each answered after so
    many.
    """
    clock = Clock()
    turns = Limiter(ConcurrencyLimit(size, 64), Quota(), clock=clock, sleep=clock.sleep)
    turns.quota.on_rejected(clock.now, clock.now, 0)
    for _ in range(10 * granted + 1):
        turns.quota.sent(0)
    clock.now += 10.0
    turns.quota.on_rejected(clock.now, clock.now, 0)
    for _ in range(10 * granted + 1):
        turns.quota.sent(0)
    clock.now += 10.0
    turns.window.seconds = seconds
    return turns


def changed(turns, busy, *, hint=None, about=None, tokens=0):
    """What a 429 to a request sent just now does: (a narrower window?, a slower pace?, does everyone wait?)."""
    now, size, pace = turns._clock(), turns.window.size, allowed(turns)
    waits = turns.on_rejected(now, busy, tokens, hint=hint, about=about)
    return turns.window.size < size, allowed(turns) < pace, waits


def allowed(turns):
    """Requests per second that the pace found allows now."""
    return turns.quota._found["requests"].rate(turns._clock())


@pytest.mark.parametrize(("busy", "crowd"), [(20, True), (12, True), (11, True), (10, False), (2, False), (1, False)])
def test_littles_law_tells_a_crowd_from_a_rush(busy, crowd):
    """Ten a second at a second each keep ten in flight: one fewer than eleven would carry them, one fewer than ten
    would not.
    """
    assert changed(known(), busy) == (crowd, not crowd, False)


def test_one_in_flight_is_no_crowd():
    """With a single request in flight nothing is left to make smaller but the pace."""
    assert changed(known(seconds=1e-6), 1) == (False, True, False)


def test_a_hint_is_about_the_rate_too():
    """A 429 that says when to come back slows the pace, however many were in flight, and everyone waits."""
    assert changed(known(), 20, hint=5.0) == (True, True, True)
    assert changed(known(), 5, hint=5.0) == (False, True, True)


@pytest.mark.parametrize("hint", [None, 5.0])
def test_the_first_refusal_is_taken_for_both(hint):
    """While nothing is known: half the window, a pace begun, and everyone waits."""
    turns = limiter(20)

    assert turns.on_rejected(turns._clock(), 20, 0, hint=hint, about=None)
    assert turns.window.size == 10
    assert "requests" in turns.quota._found


def test_too_many_at_once_in_words():
    """Where the provider says so it is the window alone; nobody else waits, unless one in flight was too many, or it
    says when.
    """
    assert changed(known(), 4, about="concurrency") == (True, False, False)
    assert changed(known(), 4, about="concurrency", hint=5.0) == (True, False, True)
    assert known().on_rejected(110.0, 1, 0, hint=None, about="concurrency")
    assert limiter(20).on_rejected(100.0, 4, 0, hint=None, about="concurrency") is False


def test_too_many_tokens_in_words():
    """Where the provider says so, the pace of tokens is found, and neither the window nor the pace of requests
    changes.
    """
    turns = known()

    assert changed(turns, 20, about="tokens", tokens=1000, hint=1.0) == (False, False, True)
    assert turns.quota.counts_tokens


def test_overload_and_timeouts_narrow_the_window_alone():
    """A 503 gives up a little, a timeout half; neither says anything of a rate."""
    turns = limiter(20)
    turns.window.on_timeout(0.0, 0.0)
    turns.on_overloaded(100.0, 10)

    assert turns.window.size == 9

    turns._clock.now += 1
    turns.on_timeout(101.0)

    assert turns.window.size == 4
    assert turns.quota._found == {}
    assert turns.quota.blocked(101.0) == 0.0


@pytest.mark.anyio
async def test_places_that_are_taken_away_are_not_given_again():
    """A window that shrinks while it is full lets nobody in until as many have left; one that grows lets several in at
    once.
    """
    turns, inside = limiter(4), []

    async def one(number):
        await turns.acquire()
        inside.append(number)

    async with anyio.create_task_group() as group:
        for number in range(9):
            group.start_soon(one, number)
        await wait_all_tasks_blocked()
        turns.window.size = 2
        for expected in (4, 4, 5):
            turns.release()
            await wait_all_tasks_blocked()

            assert len(inside) == expected

        turns.window.size = 4
        turns.release()
        await wait_all_tasks_blocked()

        assert len(inside) == 8

        for _ in range(4):
            turns.release()
        await wait_all_tasks_blocked()
        turns.release()

    assert (turns._busy, turns.in_flight) == (0, 0)


@pytest.mark.anyio
async def test_only_those_on_their_way_are_in_flight():
    """Who waits for the pace holds a place, but is not in flight yet."""
    clock = Clock()
    turns = limiter(8, Rate(requests_per_minute=60), clock)
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(turns.acquire)
        await wait_all_tasks_blocked()

        assert (turns._busy, turns.in_flight, turns._queue.size) == (2, 1, 1)  # one at a time waits for the pace

        await clock.advance(2)

    assert (turns._busy, turns.in_flight) == (3, 3)


def test_a_request_beside_the_window_is_counted_or_not_at_all():
    """`spare` takes from the pace only what may go at once."""
    turns = limiter(1, Rate(requests_per_minute=60))

    assert [turns.try_extra() for _ in range(3)] == [True, False, False]
    assert turns.quota.reserve(100.0, 0) == pytest.approx(1.0)


@pytest.mark.anyio
async def test_retries_that_the_budget_holds_back_hold_up_no_newcomer():
    """A place is free, and before a newcomer only a retry waits that may not go: the newcomer goes at once."""
    turns = limiter(4)
    turns.budget.failed(turns._clock())
    turns.budget.balance = 0.0
    turns.budget.spend(turns._clock())
    served = []

    async def one(kind):
        await turns.acquire(kind=kind)
        served.append(kind)

    async with anyio.create_task_group() as group:
        group.start_soon(one, RETRY)
        await wait_all_tasks_blocked()

        assert served == []

        group.start_soon(one, CALLER)
        await wait_all_tasks_blocked()

        assert served == [CALLER]

        group.cancel_scope.cancel()
