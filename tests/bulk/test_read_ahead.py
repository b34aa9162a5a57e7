"""Items read ahead, in a thread of their own."""

import asyncio
import gc
import threading

import pytest

from embedkit import ConfigError
from embedkit._bulk.read_ahead import AHEAD, ReadAhead


def readers():
    """The threads that read by now."""
    return [thread for thread in threading.enumerate() if thread.name == "embedkit reader"]


async def ended():
    """Wait until no thread reads."""
    while readers():
        await asyncio.sleep(0.001)


async def everything(ahead):
    found = []
    while (item := await ahead.next()) is not None:
        found.append(item)
    return found


@pytest.mark.parametrize("count", [0, 1, AHEAD, AHEAD + 1, 1_000])
def test_every_item_comes_once_and_in_order(count):
    """Whatever there are; and the end is the end, however often it is asked for."""

    async def main():
        ahead = ReadAhead(iter([str(number) for number in range(count)]))
        assert await everything(ahead) == [str(number) for number in range(count)]
        assert await ahead.next() is None
        await ended()

    asyncio.run(main())


def test_no_more_than_a_few_are_held():
    """A reader that is far faster than its task waits for it."""
    read = []

    def items():
        for number in range(1, 100):
            read.append(number)
            yield number

    async def main():
        ahead = ReadAhead(items())
        for number in range(1, 40):
            assert await ahead.next() == number
            assert len(read) <= number + AHEAD + 1
        ahead.close()
        await ended()

    asyncio.run(main())


def test_a_slow_source_gives_each_item_as_it_comes():
    """An item is handed on though the next one is not there, and the event loop runs meanwhile."""
    gates = [threading.Event() for _ in range(3)]

    def items():
        for number, gate in enumerate(gates, 1):
            gate.wait()
            yield number

    async def main():
        ahead, ticks = ReadAhead(items()), 0
        for number, gate in enumerate(gates, 1):
            waiting = asyncio.ensure_future(ahead.next())
            for _ in range(5):
                await asyncio.sleep(0)
                ticks += 1
            assert not waiting.done()
            gate.set()
            assert await waiting == number
        assert await ahead.next() is None
        assert ticks == 15

    asyncio.run(main())


def test_an_error_comes_in_its_place():
    """After the items before it, and every time that the next one is asked for."""

    def items():
        yield 1
        yield 2
        message = "row 3"
        raise ConfigError(message)

    async def main():
        ahead = ReadAhead(items())
        assert [await ahead.next(), await ahead.next()] == [1, 2]
        for _ in range(2):
            with pytest.raises(ConfigError, match="row 3"):
                await ahead.next()

    asyncio.run(main())


def test_closing_ends_a_wait_and_the_thread():
    """Who waits gets the end at once, though the source says nothing; the thread ends with the next item."""
    gate = threading.Event()

    def items():
        yield 1
        gate.wait()
        yield 2
        yield 3

    async def main():
        ahead = ReadAhead(items())
        assert await ahead.next() == 1
        waiting = asyncio.ensure_future(ahead.next())
        await asyncio.sleep(0.01)
        ahead.close()
        ahead.close()
        assert await waiting is None
        gate.set()
        await ended()

    asyncio.run(main())


def test_a_reader_that_is_full_ends_when_it_is_closed():
    """It waits for room, which nobody will make any more."""

    async def main():
        ahead = ReadAhead(iter(range(1, 1_000)))
        assert await ahead.next() == 1
        await asyncio.sleep(0.01)
        ahead.close()
        await ended()

    asyncio.run(main())


def test_a_loop_that_has_ended_is_not_woken():
    """A source that speaks after its loop has ended says nothing to anybody, and no warning comes of it."""
    gate = threading.Event()

    def items():
        gate.wait()
        yield 1

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ReadAhead(items()).next(), 0.01)

    asyncio.run(main())
    gate.set()
    asyncio.run(ended())
    gc.collect()
