"""Small calls that share requests: who travels with whom, what each caller gets, and what happens when one gives up."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import json
import pickle
import random
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import anyio
import numpy as np
import pytest

import embedkit
from benchmarks.virtual import VirtualLoop
from embedkit import (
    AuthError,
    ConfigError,
    DecodeError,
    Embedder,
    Embeddings,
    InvalidInputError,
    Limits,
    SyncEmbedder,
    TooLargeError,
    Usage,
)
from embedkit._embedders.coalescing import FAILED, LOOK, SMALL_CALL, TRIPS, UNANSWERED, Coalesced, _PendingCall
from embedkit.testing import FakeEmbedder, FakeExchange, response
from tests.embedders.test_base import Own, alive, rows, same

pytestmark = pytest.mark.anyio


class Gated(Own):
    """Answers nothing until its gate is opened; `given_up` counts requests that were cancelled."""

    def __init__(self, size=256, *, workers=1, **attributes):
        super().__init__(size, workers=workers, **attributes)
        self.gate = asyncio.Event()
        self.asked = []
        self.given_up = 0

    async def embed_batch(self, texts, options):
        self.asked.append(options)
        return await super().embed_batch(texts, options)

    async def latency(self, texts):
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise


async def settled():
    """Let everything run that can."""
    for _ in range(30):
        await asyncio.sleep(0)


async def started(embedder, *calls):
    """Tasks of these calls, each begun after the one before has gone as far as it can."""
    tasks = []
    for call in calls:
        tasks.append(asyncio.create_task(call))
        await settled()
    return tasks


def others():
    """Tasks that a test has left running."""
    own = asyncio.current_task()
    return {task for task in asyncio.all_tasks() - {own} if "_call_in_runner_task" not in repr(task)}


# --- who travels with whom -------------------------------------------------------------------------------------------


async def test_the_first_leaves_at_once_and_the_others_together():
    """One connection: the first call has a request of its own, all that come while it is away share the next."""
    inner = Gated()
    embedder = Coalesced(inner)
    tasks = await started(embedder, *(embedder.embed_query(text) for text in "abcde"))

    assert inner.calls == [["a"]]

    inner.gate.set()
    vectors = await asyncio.gather(*tasks)

    assert inner.calls == [["a"], ["b", "c", "d", "e"]]
    assert same(rows("abcde"), np.array(vectors))


async def test_thousands_of_calls_need_few_requests():
    """Two thousand calls at once become eight requests of 250, and each caller gets the vector of its own text."""
    inner = Own(250, workers=16)
    embedder = Coalesced(inner)
    texts = [f"text {number}" for number in range(2000)]
    vectors = await asyncio.gather(*(embedder.embed_query(text) for text in texts))

    assert same(rows(texts), np.array(vectors))
    assert [len(call) for call in inner.calls] == [250] * 8


@pytest.mark.parametrize(("workers", "expected"), [(3, 3), (100, TRIPS)])
async def test_requests_in_flight_are_bounded(workers, expected):
    """No more requests are in flight than the embedder may have, nor than would leave something to share."""
    inner = Gated(workers=workers)
    embedder = Coalesced(inner)
    tasks = await started(embedder, *(embedder.embed_query(str(number)) for number in range(40)))
    inner.gate.set()
    await asyncio.gather(*tasks)

    assert inner.peak == expected
    assert len(inner.calls) == expected + 1


@pytest.mark.parametrize(
    ("limits", "sizes"),
    [
        (Limits(max_texts=4), [4, 4, 4]),
        (Limits(max_tokens=25), [5, 5, 2]),
        (Limits(max_bytes=9), [3, 3, 3, 3]),
        (Limits(), [12]),
    ],
)
async def test_a_shared_request_keeps_within_the_limits(limits, sizes):
    """Texts, tokens and bytes: what does not fit takes the next request."""
    inner = Gated(limits=limits, count_tokens=lambda text: 5)
    embedder = Coalesced(inner)
    tasks = await started(embedder, embedder.embed("first"), *(embedder.embed(f"{number:03}") for number in range(12)))
    inner.gate.set()
    await asyncio.gather(*tasks)

    assert [len(call) for call in inner.calls] == [1, *sizes]


@pytest.mark.parametrize(
    ("refused", "within"), [(True, FAILED + 2 * LOOK), (False, UNANSWERED + 2 * LOOK)], ids=["failed", "unanswered"]
)
def test_requests_that_are_late_hold_up_nobody(refused, within):
    """As many requests as may be on their way fail and wait for their next try, or are never answered: another call is
    answered soon all the same.
    """

    async def answer(request):
        texts = json.loads(request.body)["input"]
        if texts != ["well"]:
            if refused:
                return response({"error": {"message": "no"}}, 503)
            await asyncio.Event().wait()
        return response({"data": [{"index": 0, "embedding": [1.0, 0.0]}]})

    async def main():
        embedder = embedkit.connect("openai:m", api_key="k", coalesce=True, exchange=FakeExchange(answer))
        embedder.inner._clock = asyncio.get_running_loop().time
        stuck = [asyncio.create_task(embedder.embed_query(f"text {number}")) for number in range(TRIPS)]
        for task in stuck:
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.sleep(0.1)
        joined = asyncio.get_running_loop().time()
        await embedder.embed_query("well")
        took = asyncio.get_running_loop().time() - joined
        for task in stuck:
            task.cancel()
        return took

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(main()) <= within


async def test_a_call_is_never_torn_apart():
    """The texts of one call travel in one request, also where only some of them would still fit into an earlier one."""
    inner = Gated(4)
    embedder = Coalesced(inner)
    tasks = await started(
        embedder, *(embedder.embed(call) for call in (["first"], list("abc"), list("de"), list("fg")))
    )
    inner.gate.set()
    await asyncio.gather(*tasks)

    assert inner.calls == [["first"], ["a", "b", "c"], ["d", "e", "f", "g"]]


async def test_limits_that_shrink_below_a_waiting_call_strand_nobody():
    """A call that no longer fits into one request still goes out."""
    inner = Gated(8)
    embedder = Coalesced(inner)
    tasks = await started(embedder, embedder.embed("first"), embedder.embed(list("abcdef")))
    inner.limits = Limits(max_texts=2)
    inner.gate.set()
    results = await asyncio.gather(*tasks)

    assert same(rows("abcdef"), results[1].vectors)
    assert sorted(map(len, inner.calls)) == [1, 2, 2, 2]


async def test_equal_texts_of_different_callers_are_sent_once():
    """What several callers ask for at once costs one text."""
    inner = Gated()
    embedder = Coalesced(inner)
    tasks = await started(embedder, *(embedder.embed_query(text) for text in ["x", "a", "b", "a", "a"]))
    inner.gate.set()
    vectors = await asyncio.gather(*tasks)

    assert inner.calls == [["x"], ["a", "b"]]
    assert same(rows("xabaa"), np.array(vectors))


async def test_options_never_mix():
    """Every request holds texts of one set of options only, whatever differs: input type, width, `extra`."""
    inner = Gated(workers=1)
    embedder = Coalesced(inner)
    kinds = [{}, {"input_type": "query"}, {"dimensions": 4}, {"extra": {"user": "a"}}, {"extra": {"user": "b"}}]
    tasks = await started(
        embedder,
        *(embedder.embed(f"{place} {number}", **kind) for number in range(4) for place, kind in enumerate(kinds)),
    )
    inner.gate.set()
    await asyncio.gather(*tasks)

    assert len(inner.calls) == 2 * len(kinds)
    for call, options in zip(inner.calls, inner.asked, strict=True):
        asked = kinds[int(call[0].split()[0])]
        assert {text.split()[0] for text in call} == {call[0].split()[0]}
        assert {name: getattr(options, name) for name in asked} == asked
    assert embedder._queues == {}


async def test_large_calls_and_streams_go_straight_through():
    """More than sixteen texts are a batch of their own, as is each part of a stream."""
    inner = Own(32, workers=4)
    embedder = Coalesced(inner)
    large = [f"large {number}" for number in range(SMALL_CALL + 1)]
    result, *_ = await asyncio.gather(embedder.embed(large), *(embedder.embed_query(text) for text in "abc"))
    parts = [part async for part in embedder.stream(["s", "t"])]

    assert same(rows(large), result.vectors)
    assert result.usage == Usage(17, 1)
    assert same(rows("st"), parts[0].vectors)
    assert sorted(map(len, inner.calls)) == [2, 3, 17]


async def test_nothing_sends_nothing():
    """No texts: an empty result, and no request."""
    inner = Own()

    assert (await Coalesced(inner).embed([])).vectors.shape == (0, 0)
    assert inner.calls == []


# --- a longest wait --------------------------------------------------------------------------------------------------


def virtually(function):
    """Run the test in virtual time."""

    @functools.wraps(function)
    def test():
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(function())

    return test


async def at(moment, call):
    loop = asyncio.get_running_loop()
    await asyncio.sleep(moment - loop.time())
    return await call


class Timed(Own):
    """Notes when each request leaves."""

    def __init__(self, size=256, *, takes=0.0, **attributes):
        super().__init__(size, **attributes)
        self.takes = takes
        self.left = []

    async def latency(self, texts):
        self.left.append(round(asyncio.get_running_loop().time(), 6))
        await asyncio.sleep(self.takes)


@virtually
async def test_a_wait_gathers_company():
    """With a longest wait of a second the first call waits so long, and those that come meanwhile join it."""
    inner = Timed(workers=4)
    embedder = Coalesced(inner, 1.0)
    await asyncio.gather(*(at(moment, embedder.embed_query(str(moment))) for moment in (0.0, 0.5, 0.9, 1.2, 5.0)))

    assert inner.calls == [["0.0", "0.5", "0.9"], ["1.2"], ["5.0"]]
    assert inner.left == [1.0, 2.2, 6.0]


@virtually
async def test_a_full_request_does_not_wait():
    """As soon as a request is full it leaves; what did not fit goes on waiting no longer than it would have."""
    inner = Timed(3, workers=4)
    embedder = Coalesced(inner, 1.0)
    await asyncio.gather(*(at(number / 10, embedder.embed_query(str(number))) for number in range(4)))

    assert inner.calls == [["0", "1", "2"], ["3"]]
    assert inner.left == [0.2, 1.3]


@virtually
async def test_who_has_waited_long_enough_leaves_with_the_next_free_connection():
    """Where the wait is over but every connection is busy, the request leaves when one is free."""
    inner = Timed(workers=1, takes=3.0)
    embedder = Coalesced(inner, 1.0)
    await asyncio.gather(*(at(moment, embedder.embed_query(str(moment))) for moment in (0.0, 1.5, 3.5, 3.9)))

    assert inner.calls == [["0.0"], ["1.5", "3.5", "3.9"]]
    assert inner.left == [1.0, 4.0]


@virtually
async def test_what_does_not_fit_leaves_at_once_where_it_may():
    """Two calls of two texts, where three fit: the second has a request of its own, and need not wait for the first to
    be back.
    """
    inner = Timed(3, workers=4, takes=5.0)
    embedder = Coalesced(inner, 1.0)
    await asyncio.gather(embedder.embed(["a", "b"]), embedder.embed(["c", "d"]))

    assert inner.calls == [["a", "b"], ["c", "d"]]
    assert inner.left == [0.0, 0.0]


@virtually
async def test_a_request_that_is_back_does_not_cut_short_the_wait():
    """Who came while another request was away still waits for company as long as it may."""
    inner = Timed(workers=4, takes=0.5)
    embedder = Coalesced(inner, 1.0)
    await asyncio.gather(*(at(moment, embedder.embed_query(str(moment))) for moment in (0.0, 1.2, 2.0)))

    assert inner.calls == [["0.0"], ["1.2", "2.0"]]
    assert inner.left == [1.0, 2.2]


@virtually
async def test_without_a_wait_nobody_waits():
    """An idle embedder adds no delay."""
    inner = Timed(workers=4)
    embedder = Coalesced(inner)
    await asyncio.gather(*(at(moment, embedder.embed_query(str(moment))) for moment in (0.0, 0.5)))

    assert inner.left == [0.0, 0.5]


# --- what each caller gets -------------------------------------------------------------------------------------------


async def waiting(inner, *calls):
    """What became of these calls: those under the same options share one request, behind a first one."""
    embedder = Coalesced(inner)
    firsts = embedder.embed("first"), embedder.embed_query("first")
    tasks = await started(embedder, *firsts, *(call(embedder) for call in calls))
    inner.gate.set()
    return (await asyncio.gather(*tasks, return_exceptions=True))[2:]


async def test_a_bad_text_hurts_only_its_caller():
    """Its caller gets the error with its own row and what else it had; all others get their vectors."""
    inner = Gated(bad={"bad"})
    good, mixed, skipped, alone = await waiting(
        inner,
        lambda embedder: embedder.embed(["a", "b"]),
        lambda embedder: embedder.embed(["c", "bad", "d"]),
        lambda embedder: embedder.embed(["bad", "e"], on_error="skip"),
        lambda embedder: embedder.embed("bad"),
    )

    assert same(rows("ab"), good.vectors)
    assert (type(mixed), mixed.rows) == (InvalidInputError, (1,))
    assert same([*rows("c"), [np.nan] * 4, *rows("d")], mixed.partial.vectors)
    assert (list(skipped.failures), skipped.failures[0].rows) == ([0], (0,))
    assert same([[np.nan] * 4, *rows("e")], skipped.vectors)
    assert inner.calls[2] == ["a", "b", "c", "bad", "d", "e"]
    assert (alone.rows, alone.partial) == ((0,), None)
    assert len({id(mixed), id(alone), id(skipped.failures[0])}) == 3


async def test_rows_of_different_reasons_are_told_apart():
    """An error names the rows of its caller that share its reason, and no others."""

    class Choosy(Gated):
        def judge(self, texts):
            for kind in ("long", "rude"):
                if named := [place for place, text in enumerate(texts) if kind in text]:
                    raise InvalidInputError(f"it is {kind}", status=400, rows=named)

    inner = Choosy()
    _, error = await waiting(
        inner,
        lambda embedder: embedder.embed(["x"]),
        lambda embedder: embedder.embed(["rude 1", "long 1", "a", "rude 2"]),
    )

    assert inner.calls[2] == ["x", "rude 1", "long 1", "a", "rude 2"]
    assert (error.message, error.rows) in [("it is rude", (0, 3)), ("it is long", (1,))]


async def test_a_failure_of_the_request_reaches_every_caller():
    """A refused key is raised in every caller as an error of its own, about no row."""

    class Locked(Gated):
        def judge(self, texts):
            if texts != ["first"]:
                raise AuthError("no such key", status=401)

    inner = Locked()
    errors = await waiting(inner, *(lambda embedder, text=text: embedder.embed_query(text) for text in "abc"))

    assert [(type(error), error.rows, error.partial) for error in errors] == [(AuthError, (), None)] * 3
    assert len(set(map(id, errors))) == 3
    assert inner.calls == [["first"], ["first"], ["a", "b", "c"]]


@pytest.mark.parametrize("error", [DecodeError("a text was lost"), ValueError("odd"), RuntimeError("broken")])
async def test_what_may_be_anothers_fault_is_tried_alone(error):
    """A reply that breaks the contract, or an exception of others, names no text: each call goes again by itself."""

    class Fragile(Gated):
        def judge(self, texts):
            if "odd" in texts:
                raise error

    inner = Fragile()
    good, odd, other = await waiting(
        inner, *(lambda embedder, text=text: embedder.embed_query(text) for text in ["a", "odd", "b"])
    )

    assert same(rows("ab"), np.array([good, other]))
    assert type(odd) is type(error)
    assert inner.calls == [["first"], ["first"], ["a", "odd", "b"], ["a"], ["odd"], ["b"]]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
async def test_an_interrupt_reaches_the_callers(error):
    """What ends programs comes out of the calls, not out of the event loop beneath them."""

    class Ending(Gated):
        def judge(self, texts):
            if texts != ["first"]:
                raise error

    embedder = Coalesced(Ending())
    embedder.inner.gate.set()
    line_of_two = [embedder.embed_query("first"), embedder.embed_query("a")]
    await line_of_two[0]
    with pytest.raises(type(error)):
        await line_of_two[1]


async def test_a_counter_that_fails_fails_its_own_call():
    """`count_tokens` runs in the caller: what it raises there concerns no one else."""

    def count(text):
        if text == "odd":
            raise ValueError(text)
        return 1

    inner = Gated(limits=Limits(max_tokens=10), count_tokens=count)
    good, odd = await waiting(
        inner, lambda embedder: embedder.embed_query("a"), lambda embedder: embedder.embed_query("odd")
    )

    assert same(rows("a")[0], good)
    assert type(odd) is ValueError


async def test_an_empty_text_is_refused_before_sending():
    """As without sharing: its caller gets the error, nothing of that call is sent, nobody else notices."""
    inner = Gated()
    refused, good = await waiting(
        inner, lambda embedder: embedder.embed(["x", ""]), lambda embedder: embedder.embed("good")
    )

    assert (refused.status, refused.rows) == (None, (1,))
    assert same(rows(["good"]), good.vectors)
    assert [call for call in inner.calls if "x" in call] == []


async def test_usage_says_what_is_known():
    """Alone, a call has the exact usage; shared, its tokens are unknown, and it counts the requests it had a part
    in.
    """
    inner = Gated(price=1.0)
    alone = await Coalesced(Own(price=1.0)).embed(["a", "b"])
    shared = await waiting(inner, lambda embedder: embedder.embed(["a", "b"]), lambda embedder: embedder.embed("c"))

    assert alone.usage == Usage(2, 1, 2e-6)
    assert [each.usage for each in shared] == [Usage(None, 1), Usage(None, 1)]


async def test_integers_stay_integers():
    """Callers of a smaller dtype get their rows in it; a bad text's row is zero."""
    inner = Gated(bad={"bad"})
    good, bad = await waiting(
        inner,
        lambda embedder: embedder.embed(["a", "b"], dtype="uint8"),
        lambda embedder: embedder.embed(["bad", "c"], dtype="uint8", on_error="skip"),
    )

    assert (good.vectors.dtype, good.dtype) == (np.uint8, "uint8")
    assert same(rows("ab"), good.vectors)
    assert same([[0] * 4, *rows("c")], bad.vectors)


async def test_nobody_holds_on_to_the_rows_of_others():
    """Each caller's rows are its own memory, and its to change."""
    first, second = await waiting(
        Gated(), lambda embedder: embedder.embed(["a"]), lambda embedder: embedder.embed(["a"], on_error="skip")
    )
    first.vectors[:] = 0

    assert first.vectors.base is None
    assert same(rows("a"), second.vectors)


async def test_an_error_that_is_forgotten_is_gone():
    """An error raised in a caller is in no cycle: with it go the rows it carries."""
    embedder = Coalesced(Own(bad={"b"}))
    before = alive(InvalidInputError)
    gc.disable()
    try:
        with pytest.raises(InvalidInputError) as caught:
            await embedder.embed(["a", "b"])
        del caught
        await settled()
        left = alive(InvalidInputError, collect=False) - before
    finally:
        gc.enable()

    assert left == set()


# --- giving up -------------------------------------------------------------------------------------------------------


async def test_a_caller_that_gives_up_in_line_is_not_sent():
    """Its text never leaves; the others travel as ever."""
    inner = Gated()
    embedder = Coalesced(inner)
    tasks = await started(embedder, *(embedder.embed_query(text) for text in "abc"))
    tasks[1].cancel()
    await settled()
    inner.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert isinstance(results[1], asyncio.CancelledError)
    assert inner.calls == [["a"], ["c"]]
    assert same(rows("ac"), np.array([results[0], results[2]]))


async def test_a_caller_that_gives_up_on_the_way_harms_nobody():
    """The request goes on for the others that share it."""
    inner = Gated(workers=1)
    embedder = Coalesced(inner)
    tasks = [asyncio.create_task(embedder.embed_query(text)) for text in "abc"]
    await settled()
    tasks[0].cancel()
    await settled()
    inner.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert inner.calls == [["a", "b", "c"]]
    assert same(rows("bc"), np.array(results[1:]))
    assert inner.given_up == 0


async def test_a_request_nobody_waits_for_is_cancelled():
    """When the last of its callers gives up, the request ends too, before that caller goes on; the line lives on."""
    inner = Gated()
    embedder = Coalesced(inner)
    tasks = [asyncio.create_task(embedder.embed_query(text)) for text in "abc"]
    await settled()
    (later,) = await started(embedder, embedder.embed_query("later"))
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)

    assert inner.given_up == 1

    inner.gate.set()

    assert same(rows(["later"])[0], await later)
    assert inner.calls == [["a", "b", "c"], ["later"]]


async def test_a_deadline_of_anyio_ends_the_request():
    """`anyio.move_on_after` works as around any call, and leaves no task."""
    inner = Gated()
    embedder = Coalesced(inner)
    with anyio.move_on_after(0.01) as scope:
        await embedder.embed_query("a")

    assert scope.cancelled_caught
    assert (inner.given_up, others(), embedder._queues) == (1, set(), {})


def queues_of(embedder):
    return (queue for queues in embedder._queues.values() for queue in queues.values())


async def test_closing_answers_everyone():
    """A close while calls wait raises in each of them, cancels what is on its way, and leaves nothing; then it opens
    anew.
    """
    inner = Gated()
    embedder = Coalesced(inner, 60.0)
    tasks = await started(embedder, *(embedder.embed_query(text) for text in "abc"))
    next(queues_of(embedder))._depart()
    await settled()
    tasks += await started(embedder, *(embedder.embed_query(text) for text in "de"))
    await embedder.aclose()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert ["closed" in str(each) for each in results] == [True] * 5
    assert (inner.calls, inner.given_up, embedder._queues, others()) == ([["a", "b", "c"]], 1, {}, set())

    inner.gate.set()
    embedder._wait = 0.0

    assert same(rows("f")[0], await embedder.embed_query("f"))


async def test_closing_holds_on_to_nothing():
    """A wait that a close cuts short leaves no timer that would keep the embedder alive."""
    embedder = Coalesced(Gated(), 60.0)
    (task,) = await started(embedder, embedder.embed_query("a"))
    (line,) = map(weakref.ref, queues_of(embedder))
    await embedder.aclose()
    await asyncio.wait([task])
    gc.collect()

    assert isinstance(task.exception(), RuntimeError)
    assert line() is None


async def test_an_error_nobody_asks_for_any_more_is_quiet(caplog):
    """A caller that is cancelled in the very moment its error comes does not leave it behind in the log."""
    call = _PendingCall(["a"], (0, 0, 1), asyncio.get_running_loop().create_future(), skip=False)
    call.settle(ValueError("unseen"))
    del call
    gc.collect()

    assert caplog.records == []


async def test_a_loop_that_ends_under_its_calls_is_quiet(caplog):
    """Calls cancelled with their loop leave no warning, and another loop finds the embedder ready."""
    inner = Gated()
    embedder = Coalesced(inner)

    async def leave():
        for text in "abc":
            asyncio.create_task(embedder.embed_query(text))  # noqa: RUF006 (left behind on purpose)
        await settled()

    await asyncio.to_thread(asyncio.run, leave())
    inner.gate.set()
    gc.collect()

    assert same(rows("a")[0], await asyncio.to_thread(asyncio.run, embedder.embed_query("a")))
    assert [record.message for record in caplog.records if record.levelname != "DEBUG"] == []
    assert {loop.is_closed() for loop in embedder._queues} <= {True}


async def test_a_storm():
    """Callers that cancel, bad texts, refusals of size, a reply too short, several options: each gets what is its
    own.
    """
    chance = random.Random(11)

    class Stormy(Own):
        async def latency(self, texts):
            for _ in range(chance.randrange(5)):
                await asyncio.sleep(0)

        def judge(self, texts):
            if len(texts) > 40:
                raise TooLargeError("too many")
            if len(texts) > 4 and chance.random() < 0.1:
                raise DecodeError("one is missing")
            super().judge(texts)

    inner = Stormy(64, workers=4, bad={"7", "77", "177"})
    embedder = Coalesced(inner)
    outcomes = Counter()

    async def caller(number):
        texts = [str(chance.randrange(200)) for _ in range(chance.randrange(1, 5))]
        call = asyncio.ensure_future(embedder.embed(texts, input_type=chance.choice([None, "query"])))
        for _ in range(chance.randrange(12)):
            await asyncio.sleep(0)
        if number % 10 == 0:
            call.cancel()
        try:
            result = await call
        except asyncio.CancelledError:
            outcomes["cancelled"] += 1
        except InvalidInputError as error:
            outcomes["bad" if error.rows and {texts[row] for row in error.rows} <= inner.bad else "wrong"] += 1
        else:
            outcomes["good"] += 1
            assert same(rows(texts), result.vectors)

    await asyncio.gather(*map(caller, range(1500)))
    await settled()

    assert sum(outcomes.values()) == 1500
    assert set(outcomes) == {"good", "bad", "cancelled"}
    assert min(outcomes.values()) > 20
    assert (inner.flying, others(), embedder._queues) == (0, set(), {})


# --- as a citizen ----------------------------------------------------------------------------------------------------


def test_connect_makes_one():
    """`coalesce` is a keyword of connect; what it gives is an embedder that shows what it wraps."""
    embedder = embedkit.connect("openai:m", base_url="http://h/v1", api_key="sk-secret", coalesce=0.5)

    assert isinstance(embedder, Embedder)
    assert (embedder.model, embedder.provider, embedder.base_url) == ("m", "openai", "http://h/v1")
    assert (embedder.limits.max_texts, embedder.borrowed, embedder.max_concurrency) == (2048, False, 128)
    assert "secret" not in repr(embedder)
    assert "openai:m at http://h/v1" in repr(embedder)


@pytest.mark.parametrize("coalesce", [-1, float("inf"), float("nan"), "yes", None])
def test_a_wait_is_a_number_of_seconds(coalesce):
    """Anything but True, False or a finite number of seconds is refused, by name."""
    with pytest.raises(ConfigError, match="coalesce="):
        embedkit.connect("openai:m", base_url="http://h", coalesce=coalesce)


@pytest.mark.parametrize("coalesce", [True, 0, 0.0])
def test_a_wait_of_nothing_is_no_wait(coalesce):
    """True and zero both share without waiting."""
    assert embedkit.connect("openai:m", base_url="http://h", coalesce=coalesce)._wait == 0


async def test_extra_that_is_no_json_is_refused_in_its_own_call():
    """Before anything is lined up."""
    with pytest.raises(ConfigError, match="extra"):
        await Coalesced(Own()).embed("a", extra={"odd": object()})


async def test_the_wire_sees_one_request():
    """Over the real engine: calls in flight together are one body."""
    exchange = FakeExchange(
        lambda request: {
            "data": [{"embedding": [1.0, 2.0], "index": place} for place in range(request.body.count(b"text"))]
        }
    )
    async with embedkit.connect("openai:m", base_url="http://h/v1", exchange=exchange, coalesce=True) as embedder:
        await asyncio.gather(*(embedder.embed_query(f"text {number}") for number in range(50)))

    assert [len(body["input"]) for body in exchange.bodies] == [50]
    assert exchange.closed


async def test_a_shared_request_runs_in_the_context_of_a_caller():
    """Context variables are those of the call that set it off."""
    who = contextvars.ContextVar("who", default="nobody")
    seen = []

    class Looking(Own):
        async def latency(self, texts):
            seen.append(who.get())

    embedder = Coalesced(Looking())
    who.set("caller")
    await embedder.embed_query("a")

    assert seen == ["caller"]


def test_threads_share_through_the_sync_wrapper():
    """Calls from many threads meet on the one loop, and share requests there."""
    inner = Own(64, workers=1)
    texts = [f"text {number}" for number in range(200)]
    with SyncEmbedder(Coalesced(inner, 0.2)) as embedder, ThreadPoolExecutor(100) as threads:
        vectors = list(threads.map(embedder.embed_query, texts))

    assert same(rows(texts), np.array(vectors))
    assert len(inner.calls) < 100


def test_two_loops_at_once():
    """Two loops in two threads use one embedder, each with requests of its own."""
    embedder = Coalesced(FakeEmbedder())
    texts = [f"text {number}" for number in range(300)]

    async def ask():
        return await asyncio.gather(*(embedder.embed_query(text) for text in texts))

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: asyncio.run(ask()), range(4)))

    expected = [embedder.inner.vector(text) for text in texts]
    assert [same(expected, np.array(answer)) for answer in answers] == [True] * 4


async def test_it_pickles_without_what_is_under_way():
    """The configuration travels, calls do not."""
    embedder = embedkit.connect("openai:m", base_url="http://h/v1", coalesce=0.25)
    task = asyncio.create_task(embedder.embed_query("a"))
    await settled()
    twin = pickle.loads(pickle.dumps(embedder))  # noqa: S301 (our own bytes)
    task.cancel()
    await asyncio.wait([task])

    assert (twin._wait, twin._queues, twin.base_url) == (0.25, {}, "http://h/v1")


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_on_another_kind_of_loop_each_goes_alone(anyio_backend):
    """On trio calls work, without company, and closing works too."""
    inner = Own()
    async with Coalesced(inner) as embedder:
        vector = await embedder.embed_query("a")

    assert same(rows("a")[0], vector)
    assert isinstance(vector, np.ndarray)


async def test_streams_learn_with_the_inner_embedder():
    """A limit that the inner embedder has found out cuts the parts of later streams too."""

    class Small(Own):
        def judge(self, texts):
            if len(texts) > 3:
                error = TooLargeError("three at most")
                error.max_texts = 3
                raise error

    inner = Small(10)
    embedder = Coalesced(inner)
    await embedder.embed([str(number) for number in range(20)])

    assert [len(part) async for part in embedder.stream("abcdefg"[place] for place in range(7))] == [3, 3, 1]


def test_embed_batch_is_the_inner_ones():
    """One batch, by hand, is not held up."""
    made = asyncio.run(Coalesced(Own()).embed_batch(["a"], embedkit.Options()))

    assert isinstance(made, Embeddings)
