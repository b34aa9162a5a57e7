"""The workers behind every call: each slice once, whatever comes
back, and no one left behind. On asyncio and on trio.
"""

from __future__ import annotations

import gc
import random
import weakref

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit import ConfigError
from embedkit._batching.workers import WorkerPool

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


def slices(count, size=1):
    return iter([slice(start, min(start + size, count)) for start in range(0, count, size)])


class Work:
    """Work that notes what it is given; `peak` is the most under way at once."""

    def __init__(self, *, turns=lambda part: 1):
        self.turns = turns
        self.done = []
        self.lates = []
        self.flying = self.peak = 0

    async def __call__(self, part, late):
        self.flying += 1
        self.peak = max(self.peak, self.flying)
        try:
            for _ in range(self.turns(part)):
                await checkpoint()
            await self.act(part, late)
        finally:
            self.flying -= 1
        self.done.append(part)
        self.lates.append(late)

    async def act(self, part, late):
        pass

    @property
    def numbers(self):
        return sorted(number for part in self.done for number in range(part.start, part.stop))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 60), st.integers(1, 7), st.integers(1, 9), st.none() | st.integers(1, 12), st.integers(0, 2**32))
async def test_every_slice_is_done_once(count, size, workers, first, seed):
    """Whatever the number of slices and workers, and however
    long each takes; never more at once than there are workers.
    """
    chance = random.Random(seed)
    turns = {start: chance.randrange(5) for start in range(count)}
    work = Work(turns=lambda part: turns[part.start])
    pool = WorkerPool(slices(count, size))
    pool.proven = chance.random() < 0.5
    await pool.run(work, workers, first)

    assert work.numbers == list(range(count))
    assert work.peak <= workers
    assert pool.reached == count


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 80), st.integers(1, 16), st.integers(1, 9), st.integers(0, 2**32))
async def test_pieces_that_come_back_are_done_once(count, size, workers, seed):
    """A slice that comes back in halves, again and again, is done in the end, down to single ones."""
    chance = random.Random(seed)
    small = chance.choice([1, 2, 5])
    waits = [chance.randrange(4) for _ in range(count)]

    class Halving(Work):
        async def act(self, part, late):
            if part.stop - part.start > small:
                middle = (part.start + part.stop) // 2
                pool.push_back([slice(part.start, middle), slice(middle, part.stop)])

    work = Halving(turns=lambda part: waits[part.start])
    pool = WorkerPool(slices(count, size))
    pool.proven = True
    await pool.run(work, workers)
    whole = [part for part in work.done if part.stop - part.start <= small]

    assert sorted(number for part in whole for number in range(part.start, part.stop)) == list(range(count))
    assert work.peak <= workers


async def test_pieces_go_next_and_in_their_order():
    """What comes back is done before what has not begun: a search goes deep first."""

    class Once(Work):
        async def act(self, part, late):
            if part == slice(0, 4):
                pool.push_back([slice(0, 2), slice(2, 4)], late=3)

    work = Once()
    pool = WorkerPool(slices(8, 4))
    await pool.run(work, 1)

    assert work.done == [slice(0, 4), slice(0, 2), slice(2, 4), slice(4, 8)]
    assert work.lates == [0, 3, 3, 0]


async def test_workers_wait_for_what_may_come_back():
    """While the last slice is under way the others stay: its pieces are shared among them."""

    class Last(Work):
        async def act(self, part, late):
            if part.stop - part.start == 8:
                pool.push_back([slice(start, start + 1) for start in range(part.start, part.stop)])

    work = Last(turns=lambda part: 5)
    pool = WorkerPool(iter([slice(0, 1), slice(1, 9)]))
    pool.proven = True
    await pool.run(work, 4)

    assert work.peak == 4
    assert sorted(part.start for part in work.done if part.stop - part.start == 1) == list(range(9))


async def test_few_work_until_it_is_proven():
    """Before the first success only `first` are at it; then as many as there may be."""
    peaks = []

    class Proving(Work):
        async def act(self, part, late):
            if len(self.done) == 10:
                peaks.append(self.peak)
                pool.proven = True

    work = Proving(turns=lambda part: 3)
    pool = WorkerPool(slices(100))
    await pool.run(work, 8, 2)

    assert (peaks, work.peak) == ([2], 8)


async def test_other_slices_may_follow():
    """What the iterator has left can be replaced while all work; `reached` says where to go on from."""

    class Learning(Work):
        async def act(self, part, late):
            if part.stop == 8:
                pool.replace_rest(iter([slice(start, start + 2) for start in range(pool.reached, 16, 2)]))

    work = Learning()
    pool = WorkerPool(slices(16, 4))
    await pool.run(work, 1)

    assert work.done == [slice(0, 4), slice(4, 8), *(slice(start, start + 2) for start in range(8, 16, 2))]


async def test_slices_are_taken_only_when_someone_is_free():
    """A plan is as lazy as it may be: no slice is asked for before a worker can do it."""
    asked = []

    def lazily():
        for start in range(100):
            asked.append(start)
            yield slice(start, start + 1)

    class Looking(Work):
        async def act(self, part, late):
            assert len(asked) <= len(self.done) + 5

    pool = WorkerPool(lazily())
    pool.proven = True
    await pool.run(Looking(), 3)

    assert len(asked) == 100


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(2)])
async def test_the_first_error_comes_out_bare_and_stops_everyone(error, workers):
    """No group wraps it, nothing more is begun, and nobody is still at work."""

    class Failing(Work):
        async def act(self, part, late):
            if part.start == 5:
                raise error
            if part.start > 5:
                await anyio.sleep_forever()

    work = Failing(turns=lambda part: part.start)
    pool = WorkerPool(slices(100))
    pool.proven = True
    with pytest.raises(type(error)) as caught:
        await pool.run(work, workers)

    assert caught.value is error
    assert work.flying == 0
    assert len(work.done) <= 5 + workers


async def test_what_fails_on_the_way_out_does_not_hide_the_first_error():
    """A worker that breaks while it is being stopped changes nothing about why."""

    class Breaking(Work):
        async def act(self, part, late):
            if part.start == 0:
                await checkpoint()
                raise ValueError("first")
            try:
                await anyio.sleep_forever()
            finally:
                raise RuntimeError("later")

    pool = WorkerPool(slices(4))
    pool.proven = True
    with pytest.raises(ValueError, match="first"):
        await pool.run(Breaking(), 4)


@pytest.mark.parametrize("workers", [1, 4])
async def test_a_plan_that_fails_fails_the_work(workers):
    """What the iterator of slices raises comes out as it is."""

    def broken():
        yield slice(0, 1)
        yield slice(1, 2)
        raise LookupError("no plan")

    work = Work()
    with pytest.raises(LookupError, match="no plan"):
        await WorkerPool(broken()).run(work, workers)

    assert work.flying == 0


@pytest.mark.parametrize("workers", [1, 4])
async def test_a_cancelled_crew_goes_home(workers):
    """Cancelled from outside, at any moment, nobody is left at work."""
    for moment in range(12):
        work = Work(turns=lambda part: 4)
        pool = WorkerPool(slices(20))
        pool.proven = True
        async with anyio.create_task_group() as group:
            group.start_soon(pool.run, work, workers)
            for _ in range(moment):
                await checkpoint()
            group.cancel_scope.cancel()

        assert work.flying == 0
        assert len(work.done) < 20


@pytest.mark.parametrize("workers", [0, -1])
async def test_no_workers_do_nothing(workers):
    """Rather than waiting for ever, a pool without workers is refused."""
    with pytest.raises(ConfigError, match=f"max_concurrency={workers}"):
        await WorkerPool(slices(3)).run(Work(), workers)


async def test_a_crew_is_forgotten():
    """When its work is done nothing holds on to it, not even until the garbage collector comes."""
    gc.collect()
    gc.disable()
    try:
        pool = WorkerPool(slices(20))
        pool.proven = True
        seen = weakref.ref(pool)
        await pool.run(Work(), 4)
        del pool

        assert seen() is None
    finally:
        gc.enable()
