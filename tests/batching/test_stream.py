"""Streams: order, bounded reading ahead, bounded memory, and ends of every kind. On asyncio, uvloop and trio."""

from __future__ import annotations

import asyncio
import gc
import random
import tracemalloc
import warnings
from contextlib import aclosing, nullcontext
from importlib.util import find_spec

import anyio
import numpy as np
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit import AuthError, DecodeError, InvalidInputError, Limits, TooLargeError
from embedkit._batching.stream import PART
from embedkit.testing import FakeEmbedder
from tests.embedders.test_base import Own, rows, same

pytestmark = pytest.mark.anyio


FASTER = pytest.param(
    ("asyncio", {"use_uvloop": True}),
    id="uvloop",
    marks=pytest.mark.skipif(find_spec("uvloop") is None, reason="no uvloop here"),
)


@pytest.fixture(params=["asyncio", FASTER, "trio"])
def anyio_backend(request):
    return request.param


# The form without a block is one that asyncio has and trio has not.
ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio", FASTER])
TRIO = pytest.mark.parametrize("anyio_backend", ["trio"])


class Counted:
    """Texts "0", "1", … that count how many were read."""

    def __init__(self, count, fails=None):
        self.count = count
        self.fails = fails
        self.read = 0

    def _next(self):
        if self.read == self.fails:
            raise KeyError("source")
        if self.read == self.count:
            return None
        self.read += 1
        return str(self.read - 1)


class Source(Counted):
    """For `for`."""

    def __iter__(self):
        while (text := self._next()) is not None:
            yield text


class AsyncSource(Counted):
    """For `async for`, awaiting between texts."""

    async def __aiter__(self):
        while (text := self._next()) is not None:
            await checkpoint()
            yield text


class Ragged(Own):
    """Every batch takes another number of steps, so replies overtake each other."""

    chance = random.Random(3)

    async def latency(self, texts):
        for _ in range(self.chance.randrange(8)):
            await checkpoint()


async def drained(parts):
    """All parts of a stream, in its own block."""
    async with parts:
        return [part async for part in parts]


def texts_of(count):
    return [str(number) for number in range(count)]


async def settled(before):
    """Wait until no more tasks run than before; how many there are too many."""
    for _ in range(20):
        await checkpoint()
    return len(anyio.get_running_tasks()) - before


# --- order, sizes, sources -------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 100), st.integers(1, 9), st.integers(1, 6), st.booleans())
async def test_parts_come_in_order(count, size, workers, later):
    """Parts follow each other without a gap, each with its start, whatever overtakes what."""
    embedder = Ragged(size, workers=workers)
    parts = await drained(embedder.stream((AsyncSource if later else Source)(count)))
    starts = list(range(0, count, size))

    assert starts == [part.start for part in parts]
    assert [min(size, count - start) for start in starts] == list(map(len, parts))
    assert not count or same(rows(texts_of(count)), np.vstack([part.vectors for part in parts]))
    assert embedder.peak <= workers


@ASYNCIO
async def test_plain_async_for_will_do():
    """On asyncio no block is needed."""
    parts = [part async for part in Ragged(5).stream(texts_of(23))]

    assert [part.start for part in parts] == [0, 5, 10, 15, 20]


@TRIO
async def test_without_asyncio_a_block_is_needed():
    """On trio plain `async for` says what to write instead."""
    with pytest.raises(RuntimeError, match="async with"):
        await anext(Own().stream(["a"]))


async def test_an_empty_source_gives_no_part():
    """No texts: no part, no request."""
    embedder = Own()

    assert await drained(embedder.stream([])) == []
    assert await drained(embedder.stream(AsyncSource(0))) == []
    assert embedder.calls == []


@pytest.mark.parametrize("source", ["text", b"bytes", bytearray(b"x"), None, 7])
async def test_what_is_no_source_is_refused(source):
    """A lone string is no stream of characters; the TypeError
    comes at once, and the half-made stream leaves no warning.
    """
    with pytest.raises(TypeError, match=r"stream\(\) takes an iterable"):
        Own().stream(source)
    gc.collect()


async def test_parts_keep_within_the_limits():
    """Parts are cut by texts, tokens and bytes, and never hold more than PART texts."""
    embedder = FakeEmbedder(limits=Limits(max_texts=2048))

    assert [len(part) for part in await drained(embedder.stream(texts_of(600)))] == [PART, PART, 88]

    embedder.limits = Limits(max_bytes=10)
    sizes = [len(part) for part in await drained(embedder.stream(["aaaa", "bbbb", "cccc", "d" * 99, "e", "f"]))]

    assert sizes == [2, 1, 1, 2]


async def test_a_text_that_does_not_fit_starts_the_next_part():
    """A text held back because a part was full is neither lost nor counted twice."""
    embedder = Own(100, workers=2)
    embedder.limits = Limits(max_bytes=7)
    texts = ["aaa", "bbb", "ccc", "ddddddddd", "e", "ff", "ggg"]
    parts = await drained(embedder.stream(texts))

    assert [part.start for part in parts] == [0, 2, 3, 4]
    assert same(rows(texts), np.vstack([part.vectors for part in parts]))


async def test_usage_and_options_are_those_of_each_part():
    """Each part says what it took, and options reach every batch."""
    parts = await drained(Own(4).stream(texts_of(10), dimensions=4))

    assert [part.usage.tokens for part in parts] == [4, 4, 2]


async def test_one_task_reads_the_source():
    """A source that holds a scope over its yields is read by one task from beginning to end."""
    readers = set()

    async def source():
        for number in range(50):
            readers.add(anyio.get_current_task().id)
            await checkpoint()
            yield str(number)

    await drained(Ragged(3, workers=5).stream(source()))

    assert len(readers) == 1


@pytest.mark.parametrize("count", [1, 3, 50, 64, 200])
async def test_as_many_workers_as_there_is_work(count):
    """A stream has a worker for every part that waits, up to max_concurrency, and no more of them than parts."""
    came = anyio.Event()

    class Gathering(Own):
        most = 0

        async def latency(self, texts):
            self.most = max(self.most, len(anyio.get_running_tasks()) - before)
            if self.flying == min(count, 64):
                came.set()
            await came.wait()

    embedder, before = Gathering(1, workers=64), len(anyio.get_running_tasks())
    with anyio.fail_after(30):
        parts = await drained(embedder.stream(Source(count)))

    assert len(parts) == count
    assert embedder.peak == min(count, 64)
    assert embedder.most <= min(count, 64) + 1  # and the reader


async def test_workers_and_halves_share_the_bound():
    """A part that is split does not put more requests in flight than max_concurrency."""

    class Small(Ragged):
        def judge(self, texts):
            if len(texts) > 2:
                raise TooLargeError("too many")

    embedder = Small(16, workers=3)
    parts = await drained(embedder.stream(texts_of(200)))

    assert same(rows(texts_of(200)), np.vstack([part.vectors for part in parts]))
    assert embedder.peak <= 3


# --- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Source, AsyncSource])
async def test_reading_ahead_is_bounded(kind):
    """However slow the reader, the source is read at most 2 * workers parts (and one) ahead of it."""
    source, embedder = kind(10_000), Own(5, workers=3)
    texts = aiter(source) if kind is AsyncSource else iter(source)
    async with aclosing(texts) if kind is AsyncSource else nullcontext(), embedder.stream(texts) as parts:
        for taken in range(1, 40):
            await anext(parts)
            for _ in range(50):
                await checkpoint()

            assert source.read <= (taken + 2 * 3 + 1) * 5


async def test_a_slow_part_idles_nobody_within_the_bound():
    """While the first part hangs, the others are embedded as far as the bound goes, and come out once it is there."""
    freed = anyio.Event()

    class Hanging(Own):
        async def latency(self, texts):
            if texts == ["0"]:
                await freed.wait()
            await checkpoint()

    embedder = Hanging(1, workers=4)
    async with embedder.stream(Source(1000)) as parts:
        async with anyio.create_task_group() as group:
            group.start_soon(anext, parts)
            await anyio.wait_all_tasks_blocked()

            assert len(embedder.calls) == 8

            freed.set()
        assert [(await anext(parts)).start for _ in range(3)] == [1, 2, 3]


async def test_memory_does_not_grow_with_the_stream():
    """A hundred thousand texts pass through in less memory than a tenth of their vectors."""
    embedder = Own(256, workers=4, width=64)
    embedder.calls = type("Forgetful", (list,), {"append": lambda self, call: None})()
    await drained(embedder.stream(["warm"]))
    count = 0
    tracemalloc.start()
    try:
        async with embedder.stream(map(str, range(100_000))) as parts:
            async for part in parts:
                count += len(part)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert count == 100_000
    assert peak < 100_000 * 64 * 4 / 10


async def test_the_fake_embedder_streams():
    """The public fake streams like any other."""
    embedder = FakeEmbedder(4, limits=Limits(max_texts=1000))
    parts = await drained(embedder.stream(map(str, range(2000))))

    assert sum(map(len, parts)) == 2000


# --- failures --------------------------------------------------------------------------------------------------------


async def collected(parts):
    """(parts, the error that ended them)."""
    found = []
    while True:
        try:
            found.append(await anext(parts))
        except StopAsyncIteration:
            return found, None
        except Exception as error:
            return found, error


@pytest.mark.parametrize("place", [0, 3, 17, 49])
async def test_a_bad_text_is_named_by_its_row_in_the_stream(place):
    """Earlier parts still come out, all of them; the error names
    the row of the whole stream, its partial where it starts.
    """
    embedder = Ragged(5, workers=4, bad={str(place)})
    async with embedder.stream(Source(50)) as parts:
        found, error = await collected(parts)

        with pytest.raises(StopAsyncIteration):
            await anext(parts)

    start = place - place % 5
    assert isinstance(error, InvalidInputError)
    assert error.rows == (place,)
    assert list(range(0, start, 5)) == [part.start for part in found]
    assert error.partial is None or error.partial.start == start


async def test_rows_of_equal_texts_are_those_of_the_stream():
    """Every row of a bad text within its part is named."""
    embedder = Own(6, bad={"x"})
    async with embedder.stream([*"abcdef", *"gxhxix"]) as parts:
        _, error = await collected(parts)

    assert error.rows == (7, 9, 11)


async def test_skip_marks_rows_within_the_part():
    """With on_error="skip" the stream goes on; failures count within each part."""
    parts = await drained(Ragged(5, workers=4, bad={"3", "7"}).stream(Source(12), on_error="skip"))

    assert [{3}, {2}, set()] == [set(part.failures) for part in parts]
    assert np.isnan(parts[0].vectors[3]).all()


@pytest.mark.parametrize("kind", [Source, AsyncSource])
@pytest.mark.parametrize("fails", [0, 3, 10, 12])
async def test_a_source_that_fails_ends_the_stream(kind, fails):
    """What the source raises comes out bare, after all texts read before it."""
    async with Ragged(5).stream(kind(50, fails)) as parts:
        found, error = await collected(parts)

    assert repr(error) == repr(KeyError("source"))
    assert sum(map(len, found)) == fails


@pytest.mark.parametrize("error", [AuthError("key"), OSError("disk"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
async def test_what_a_batch_raises_comes_out_bare(error):
    """No group around it, Ctrl-C and sys.exit included, from the work as from the source."""

    class Dying(Own):
        provider = ""  # else an error of ours names it

        def judge(self, texts):
            if "7" in texts:
                raise error

    def source():
        yield from texts_of(7)
        raise error

    for stream in (Dying(3).stream(Source(50)), Own(3).stream(source())):
        with pytest.raises(type(error)) as caught:
            await drained(stream)

        assert str(caught.value) == str(error)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_what_is_no_string_is_named_by_its_row(kind):
    """The TypeError has the row in the stream; the texts before it come out."""

    async def later():
        for text in [*texts_of(7), 8]:
            yield text

    async with Own(3).stream([*texts_of(7), 8] if kind == "sync" else later()) as parts:
        found, error = await collected(parts)

    assert str(error) == "text 7 of the stream is int, not str: 8"
    assert sum(map(len, found)) == 7


async def test_nothing_is_read_beyond_a_failure():
    """Once a part has failed the source is left alone."""

    class Dying(Own):
        def judge(self, texts):
            raise AuthError("key")

    source = Source(100_000)
    async with Dying(5, workers=3).stream(source) as parts:
        await collected(parts)
        await anyio.wait_all_tasks_blocked()

    assert source.read <= 5 * 7


async def test_a_width_that_changes_ends_the_stream():
    """Two parts of different width are never both given."""
    embedder = Own(2, workers=2)

    def judge(texts):
        embedder.width = 4 if "0" in texts else 5

    embedder.judge = judge
    async with embedder.stream(Source(10)) as parts:
        found, error = await collected(parts)

    assert isinstance(error, DecodeError)
    assert len({part.vectors.shape[1] for part in found}) <= 1


# --- ends ------------------------------------------------------------------------------------------------------------


@ASYNCIO
async def test_break_leaves_no_task_and_no_warning():
    """Leaving `async for` early and forgetting the stream ends the work by itself."""
    before = len(asyncio.all_tasks())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embedder = Own(1, workers=4)
        async for _ in embedder.stream(Source(10_000)):
            break
        gc.collect()
        for _ in range(20):
            await asyncio.sleep(0)

    assert len(asyncio.all_tasks()) == before
    assert embedder.flying == 0


@ASYNCIO
async def test_break_does_not_touch_the_next_await():
    """After a `break` the caller's next awaits go through: a stream is no async generator over a task group."""
    for _ in range(5):
        async for _part in Own(1, workers=4).stream(Source(10_000)):
            break
        await asyncio.sleep(0.001)
        async with asyncio.timeout(5):
            await Own().embed(["a"])
        gc.collect()
        await asyncio.sleep(0)


async def test_break_inside_a_block_ends_the_work():
    """`async with`: when the block is left, by break, by an exception or at its end, nothing runs any more."""
    embedder, before = Own(1, workers=4), len(anyio.get_running_tasks())
    async with embedder.stream(Source(10_000)) as parts:
        async for _ in parts:
            break
    sent = len(embedder.calls)

    assert await settled(before) == 0

    with pytest.raises(ZeroDivisionError):
        async with embedder.stream(Source(10_000)) as parts:
            await anext(parts)
            _ = 1 / 0

    assert await settled(before) == 0
    assert embedder.flying == 0
    assert len(embedder.calls) <= sent + 16


async def test_a_block_never_entered_starts_nothing():
    """A stream that is made and forgotten reads nothing and leaves nothing."""
    source = Source(10)
    Own().stream(source)
    gc.collect()
    async with Own().stream(source):
        pass

    assert source.read <= 4


async def test_closing_twice_is_closing_once():
    """aclose() may be called again, before and after; a closed
    stream is at its end, in its block as well as without.
    """
    stream = Own(1).stream(Source(100))
    await stream.aclose()
    await stream.aclose()

    assert [part async for part in stream] == []

    async with Own(1).stream(Source(100)) as parts:
        await anext(parts)
        await parts.aclose()
        await parts.aclose()
        await checkpoint()

        assert [part async for part in parts] == []


@ASYNCIO
async def test_closing_waits_until_the_work_has_stopped():
    """After aclose() no request is in flight and no task left, also with contextlib.aclosing and on a pending one."""
    before, embedder = len(asyncio.all_tasks()), Own(1, workers=4, latency=lambda texts: anyio.sleep(0.0005))
    async with aclosing(embedder.stream(Source(100))) as parts:
        await anext(parts)

    assert (embedder.flying, len(asyncio.all_tasks())) == (0, before)


@ASYNCIO
async def test_closing_does_not_swallow_the_callers_cancellation():
    """A task cancelled while aclose() waits is cancelled, not told that all is well."""
    begun, stopping, hold = asyncio.Event(), asyncio.Event(), asyncio.Event()
    scope = anyio.CancelScope()

    class Stubborn(Own):
        async def latency(self, texts):
            begun.set()
            try:
                await asyncio.sleep(10)
            finally:
                stopping.set()
                with anyio.CancelScope(shield=True):
                    await hold.wait()

    stream = Stubborn(1, workers=1).stream(Source(3))

    async def reader():
        with scope:
            await anext(stream)

    async def closer():
        await stream.aclose()

    reading = asyncio.create_task(reader())
    await begun.wait()
    scope.cancel()
    await stopping.wait()
    closing = asyncio.create_task(closer())
    for _ in range(10):  # turns of the loop, in which it comes to its wait
        await asyncio.sleep(0)
    closing.cancel()
    outcome = (await asyncio.gather(closing, return_exceptions=True))[0]
    hold.set()
    await reading

    assert isinstance(outcome, asyncio.CancelledError)


@ASYNCIO
async def test_a_reader_that_is_cancelled_leaves_nothing():
    """A timeout while waiting for a part stops the work; reading on afterwards says that the end was not reached."""
    before, embedder = len(asyncio.all_tasks()), Own(1, workers=4, latency=lambda texts: anyio.sleep_forever())
    stream = embedder.stream(Source(100))
    with anyio.move_on_after(0.01) as scope:
        await anext(stream)

    assert scope.cancelled_caught
    assert (embedder.flying, len(asyncio.all_tasks())) == (0, before)

    with pytest.raises(RuntimeError, match="canceled before its end"):
        await anext(stream)


async def test_a_reader_that_is_cancelled_in_its_block_leaves_nothing():
    """The same in a block: the timeout takes effect at once, and the block ends cleanly."""
    before, embedder = len(anyio.get_running_tasks()), Own(1, workers=4, latency=lambda texts: anyio.sleep_forever())
    with anyio.move_on_after(0.01) as scope:
        async with embedder.stream(Source(100)) as parts:
            await anext(parts)

    assert scope.cancelled_caught
    assert embedder.flying == 0
    assert await settled(before) == 0

    async with embedder.stream(Source(100)) as parts:
        with anyio.move_on_after(0.01):
            await anext(parts)
        with pytest.raises(RuntimeError, match="canceled before its end"):
            await anext(parts)


@ASYNCIO
async def test_work_cancelled_by_others_is_no_end():
    """If somebody cancels the stream's own task, the reader is told; a shorter result never looks complete."""
    embedder = Own(1, workers=2, latency=lambda texts: anyio.sleep(0.001))
    stream = embedder.stream(Source(1000))
    await anext(stream)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        if task is stream._task:
            task.cancel()

    with pytest.raises(RuntimeError, match="canceled before its end"):
        [part async for part in stream]


async def test_a_source_that_never_gives_can_be_cancelled():
    """Waiting for a silent source is cancelled at once, and so is the source."""
    ended = []

    async def silent():
        try:
            yield "a"
            await anyio.sleep_forever()
        finally:
            ended.append(True)

    async with Own(1).stream(silent()) as parts:
        await anext(parts)
        with anyio.move_on_after(0.01):
            await anext(parts)
    await checkpoint()

    assert ended == [True]


async def test_a_stream_is_read_once():
    """A second loop over the same stream finds it at its end, and does not read the source again."""
    source = Source(7)
    async with Own(2).stream(source) as parts:
        first = [part async for part in parts]
        second = [part async for part in parts]

    assert (len(first), second, source.read) == (4, [], 7)


async def test_two_readers_share_a_stream():
    """Two tasks reading one stream get each part once, and both come to the end."""
    found = []

    async def reader(parts):
        async for part in parts:
            found.append(part.start)
            await checkpoint()

    async with Ragged(1, workers=3).stream(Source(50)) as parts, anyio.create_task_group() as group:
        group.start_soon(reader, parts)
        group.start_soon(reader, parts)

    assert sorted(found) == list(range(50))


async def test_two_streams_at_once():
    """Streams of one embedder do not mix."""
    embedder, found = Ragged(3, workers=3), {}

    async def reader(name):
        found[name] = await drained(embedder.stream(f"{name}{number}" for number in range(40)))

    async with anyio.create_task_group() as group:
        for name in "abc":
            group.start_soon(reader, name)

    for name, parts in found.items():
        assert same(rows([f"{name}{number}" for number in range(40)]), np.vstack([part.vectors for part in parts]))


@ASYNCIO
async def test_a_block_around_a_started_stream():
    """`async with` around a stream that is already being read does not read it a second time."""
    stream = Own(1, workers=2).stream(Source(20))
    first = await anext(stream)
    async with stream as parts:
        rest = [part.start async for part in parts]

    assert [first.start, *rest] == list(range(20))


def test_an_abandoned_stream_is_quiet_when_its_loop_ends():
    """A stream left open when asyncio.run returns makes no noise, then or when it is collected."""

    async def main():
        stream = Own(1, workers=2).stream(Source(1000))
        await anext(stream)
        return stream

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stream = asyncio.run(main())
        gc.collect()
        del stream
        gc.collect()
