"""The deadline of requests: one timer for all, and only its own cancellations become the end of somebody's time."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from embedkit._http import timeout
from embedkit._http.timeout import Deadline

pytestmark = pytest.mark.anyio
EVER = 3600.0


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def under(deadline, waits):
    """Wait as an exchange does: "late" once the deadline has struck, else what the wait gives or raises."""
    ticket = deadline.begin()
    try:
        made = await waits
    except BaseException as error:
        if deadline.end(ticket, error):
            return "late"
        raise
    deadline.end(ticket)
    return made


def never():
    return asyncio.get_running_loop().create_future()


async def test_who_is_not_done_in_time_is_cut_off():
    """Everyone in flight is cut off when the time is over, and can wait for something else afterwards."""
    deadline = Deadline(0.0)

    async def one():
        said = await under(deadline, never())
        await asyncio.sleep(0)
        return said

    assert await asyncio.gather(*(one() for _ in range(20))) == ["late"] * 20
    assert asyncio.current_task().cancelling() == 0


async def test_who_is_done_in_time_is_left_alone():
    """Nothing strikes after the end, though the timer still runs."""
    deadline = Deadline(0.0)

    assert await under(deadline, asyncio.sleep(0, "done")) == "done"
    assert await asyncio.sleep(0.0, "alive") == "alive"
    assert await under(Deadline(EVER), asyncio.sleep(0, "done")) == "done"


async def test_each_has_its_own_end(monkeypatch):
    """The first timer strikes those that are due by then; whoever began later is struck by the next."""
    now = 100.0
    monkeypatch.setattr(timeout, "monotonic", lambda: now)
    deadline = Deadline(10.0)
    early = asyncio.create_task(under(deadline, never()))
    await asyncio.sleep(0)
    now = 105.0
    late = asyncio.create_task(under(deadline, never()))
    await asyncio.sleep(0)
    now = 110.0
    deadline._strike()

    assert await early == "late"
    assert not late.done()
    assert deadline._timer is not None

    deadline.close()
    now = 115.0
    deadline._strike()
    assert await late == "late"


async def test_one_timer_serves_all(monkeypatch):
    """A thousand requests in flight, and one timer."""
    loop, timers = asyncio.get_running_loop(), []
    real = loop.call_later
    monkeypatch.setattr(loop, "call_later", lambda *given: timers.append(given) or real(*given))
    deadline = Deadline(EVER)
    waiting = [asyncio.create_task(under(deadline, never())) for _ in range(1000)]
    await asyncio.sleep(0)

    assert len(timers) == 1

    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    deadline.close()


async def test_a_cancellation_from_outside_stays_one():
    """Who is cancelled by somebody else is not late, not even when both happen at once."""
    for struck in (False, True):
        deadline = Deadline(EVER)
        task = asyncio.create_task(under(deadline, never()))
        await asyncio.sleep(0)
        if struck:
            deadline._due = {ticket: (0.0, *rest) for ticket, (_, *rest) in deadline._due.items()}
            deadline._strike()
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        deadline.close()


async def test_in_a_task_that_was_cancelled_before():
    """A request sent while cleaning up after a cancellation has its deadline like any other."""
    said = []

    async def work():
        try:
            await never()
        finally:
            said.append(await under(Deadline(0.0), never()))

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert said == ["late"]


async def test_another_error_stays_what_it_is():
    """Who fails in the very moment of being struck has failed, and is not troubled any more."""
    deadline = Deadline(EVER)
    ticket = deadline.begin()
    deadline._due = {ticket: (0.0, *rest) for ticket, (_, *rest) in deadline._due.items()}
    deadline._strike()

    assert not deadline.end(ticket, ValueError())
    assert asyncio.current_task().cancelling() == 0
    with contextlib.suppress(asyncio.CancelledError):  # before Python 3.13 what was asked for is still delivered
        await asyncio.sleep(0)
    deadline.close()


async def test_one_task_may_have_several_ends():
    """A request within a request has an end of its own."""
    deadline = Deadline(EVER)
    outer = deadline.begin()

    assert await under(deadline, asyncio.sleep(0, "done")) == "done"
    assert not deadline.end(outer)
    deadline.close()


async def test_closing_leaves_no_timer():
    """With nothing in flight no timer is left; the next request sets a new one."""
    deadline = Deadline(EVER)

    assert await under(deadline, asyncio.sleep(0, "done")) == "done"
    deadline.close()
    assert deadline._timer is None


async def test_who_is_in_flight_when_it_is_closed_still_has_an_end():
    """Closing takes the end from nobody: a server that says no more would be waited for ever."""
    deadline = Deadline(0.0)
    task = asyncio.create_task(under(deadline, never()))
    await asyncio.sleep(0)
    deadline.close()

    assert await task == "late"
