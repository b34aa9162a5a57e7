"""What belongs to an event loop: found by the loop, let go with it."""

from __future__ import annotations

import asyncio
import copy
import pickle

import pytest

from embedkit._loops import PerLoop, this_loop


async def loop_here():
    return this_loop()


def test_a_sweep_takes_out_closed_loops():
    """What belonged to a closed loop is handed back, so that it can be closed; an open one keeps its own."""
    values, ended, live = PerLoop(), asyncio.new_event_loop(), asyncio.new_event_loop()
    values[ended], values[live] = "ended", "live"
    ended.close()

    assert values.sweep() == ["ended"]
    assert values.sweep() == []
    assert values == {live: "live"}
    live.close()


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_each_loop_is_told_from_others(anyio_backend):
    """A loop is itself every time it is asked, on asyncio and on trio; another thread's loop is another."""
    mine = this_loop()

    assert this_loop() == mine
    assert (
        await asyncio.to_thread(asyncio.run, loop_here()) is not mine
        if anyio_backend == "asyncio"
        else mine is not None
    )


@pytest.mark.parametrize("travel", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])  # noqa: S301 (our own)
def test_loops_do_not_travel(travel):
    """A copy and a pickle are empty, whatever there was."""
    assert travel(PerLoop({"a loop": lambda: None})) == {}
