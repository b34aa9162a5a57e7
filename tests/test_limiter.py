"""Turns: slots that are never doubled, pauses that stop everyone, and whom a 429 is blamed on. No test sleeps."""

from __future__ import annotations

import itertools

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit import Rate
from embedkit._limiter import Limiter
from embedkit._pace import Pace
from embedkit._window import Window


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
