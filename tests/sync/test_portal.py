"""The loop of the sync wrapper at the end of the interpreter."""

from __future__ import annotations

import asyncio
import gc
from concurrent.futures import Future
from typing import Any

import anyio
import pytest

from embedkit.sync.portal import Portal, _serve


class Started(Future[Any]):
    """Of a portal's loop: `begin` is run on it at once, and the loop is told to end."""

    def __init__(self, begin):
        super().__init__()
        self.begin = begin

    def set_result(self, result):
        super().set_result(result)
        loop, stopping = result
        self.tasks = [loop.create_task(self.begin())]
        stopping.set()


@pytest.mark.parametrize("turns", range(4))
def test_tasks_that_have_not_begun_are_ended_without_a_warning(turns):
    """Whatever is under way when the loop ends is canceled once, and no coroutine is left that nobody awaited."""
    ended = []

    async def worker():
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("worker")

    async def call():
        try:
            async with anyio.create_task_group() as group:
                for _ in range(turns):
                    await asyncio.sleep(0)
                group.start_soon(worker)
                await asyncio.sleep(3600)
        finally:
            ended.append("call")

    started = Started(call)
    asyncio.run(_serve(Portal(), started))
    gc.collect()

    assert started.tasks[0].cancelled()
    assert ended[-1:] == ["call"]
