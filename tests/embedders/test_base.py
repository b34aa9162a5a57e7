"""The engine behind every embedder: order, concurrency, bad texts, custom embedders, cancellation. On asyncio and on
trio.
"""

from __future__ import annotations

import asyncio
import gc
import math
import random
import tracemalloc
from enum import Enum

import anyio
import numpy as np
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

import embedkit
from embedkit import (
    ApiError,
    AuthError,
    ConfigError,
    DecodeError,
    Embedder,
    Embeddings,
    InvalidInputError,
    Limits,
    Options,
    ServerError,
    TooLargeError,
    TooLongError,
    Usage,
)
from embedkit._batching.dispatch import Dispatcher
from embedkit.events import BatchDone, BatchFailed, BatchSplit, CallEnded, CallStarted
from embedkit.testing import FakeEmbedder, FakeExchange, response

pytestmark = pytest.mark.anyio
LONE = "\ud800"
SLOW = settings(deadline=None, max_examples=40)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


def rows(texts, width=4):
    """The vectors that `Own` gives these texts, worked out apart from it."""
    return np.array([[len(text), *map(ord, (text + "\0" * width)[: width - 1])] for text in texts], np.float32).reshape(
        -1, width
    )


class Own(Embedder):
    """A custom embedder that counts: `calls` (the batches in order), `peak` (the most in flight)."""

    def __init__(self, size=4, *, workers=3, bad=(), width=4, **attributes):
        # No super().__init__(): a subclass need not know that there is a base to prepare.
        self.limits = Limits(max_texts=size)
        self.max_concurrency = workers
        self.bad = set(bad)
        self.width = width
        self.calls = []
        self.flying = self.peak = 0
        for name, value in attributes.items():
            setattr(self, name, value)

    async def embed_batch(self, texts, options):
        self.calls.append(list(texts))
        self.flying += 1
        self.peak = max(self.peak, self.flying)
        try:
            await self.latency(texts)
            self.judge(texts)
        finally:
            self.flying -= 1
        return Embeddings(rows(texts, self.width), "own", Usage(len(texts), 1))

    async def latency(self, texts):
        await checkpoint()

    def judge(self, texts):
        if self.bad & set(texts):
            raise InvalidInputError("it is a bad text", status=400)


def same(expected, actual):
    """Whether two matrices agree, NaN with NaN."""
    return np.array_equal(expected, actual, equal_nan=True)


# --- order and concurrency -------------------------------------------------------------------------------------------


@SLOW
@given(st.integers(0, 60), st.integers(1, 7), st.integers(1, 9), st.integers(0, 2**32))
async def test_rows_come_back_in_input_order(count, size, workers, seed):
    """Row i belongs to text i whatever the number of texts, batches and workers, and whichever reply is first."""
    chance = random.Random(seed)  # not drawn inside the task group, which would wrap what hypothesis raises to stop
    waits = {}

    class Slow(Own):
        async def latency(self, texts):
            for _ in range(waits.setdefault(texts[0], chance.randrange(6))):
                await checkpoint()

    texts = [f"text {number}" for number in range(count)]
    embedder = Slow(size, workers=workers)
    result = await embedder.embed(texts)

    assert same(rows(texts) if texts else np.empty((0, 0)), result.vectors)
    assert result.vectors.dtype == np.float32
    assert result.vectors.flags.c_contiguous
    assert sorted(texts) == sorted(text for call in embedder.calls for text in call)
    assert len(embedder.calls) == math.ceil(count / size)
    assert embedder.peak <= workers


async def test_concurrency_reaches_its_bound_and_no_more():
    """Exactly `max_concurrency` requests are in flight when there are enough batches, and never one more."""
    embedder = Own(1, workers=5)
    await embedder.embed([str(number) for number in range(40)])

    assert embedder.peak == 5


async def test_a_slow_request_idles_nobody():
    """While one request hangs, the other workers finish everything else: there are no waves."""
    freed, finished = anyio.Event(), []

    class Hanging(Own):
        async def latency(self, texts):
            if texts == ["0"]:
                await freed.wait()
            await checkpoint()
            finished.append(texts[0])
            if len(finished) == 19:
                freed.set()

    embedder = Hanging(1, workers=2)
    result = await embedder.embed([str(number) for number in range(20)])

    assert finished == [*(str(number) for number in range(1, 20)), "0"]
    assert same(rows([str(number) for number in range(20)]), result.vectors)


async def test_pieces_of_one_batch_go_out_together():
    """The halves of a single refused batch use all workers, not one."""

    class Small(Own):
        def judge(self, texts):
            if len(texts) > 1:
                raise TooLargeError("too many")

    embedder = Small(8, workers=4)
    await embedder.embed(list("abcdefgh"))

    assert embedder.peak == 4


async def test_one_worker_sends_one_after_the_other():
    """`max_concurrency=1` never has two requests in flight."""
    embedder = Own(2, workers=1, bad={"e"})
    result = await embedder.embed(list("abcdefgh"), on_error="skip")

    assert embedder.peak == 1
    assert list(result.failures) == [4]


@pytest.mark.parametrize("workers", [0, -1, 2.5, None, "4"])
async def test_no_workers_are_refused(workers):
    """A custom embedder with `max_concurrency = 0` is told so, rather than given nothing back."""
    with pytest.raises(ConfigError, match="max_concurrency"):
        await Own(workers=workers).embed(["a"])


async def test_one_embedder_serves_many_tasks():
    """Many calls at once on one embedder do not mix rows, failures or usage."""
    embedder = Own(3, workers=4, bad={"bad"})
    found = {}

    async def one(number):
        texts = [f"{number}:{each}" for each in range(number)] + ["bad"]
        found[number] = await embedder.embed(texts, on_error="skip")

    async with anyio.create_task_group() as group:
        for number in range(1, 30):
            group.start_soon(one, number)

    for number, result in found.items():
        assert same(rows([f"{number}:{each}" for each in range(number)]), result.vectors[:-1])
        assert list(result.failures) == [number]


async def test_numbers_of_texts_cost_no_tasks():
    """Ten thousand texts in a thousand batches never make more tasks than there are workers."""
    embedder = Own(10, workers=4)
    counted = 0

    async def latency(texts):
        nonlocal counted
        counted = max(counted, len(anyio.get_running_tasks()))
        await checkpoint()

    embedder.latency = latency
    before = len(anyio.get_running_tasks())
    await embedder.embed([str(number) for number in range(10_000)])

    assert counted <= before + 4


# --- what may be embedded --------------------------------------------------------------------------------------------


async def test_nothing_sends_nothing():
    """No texts: no request, shape (0, 0), usage of zero tokens and requests."""
    for nothing in ([], (), iter(()), np.array([], str)):
        embedder = Own()
        result = await embedder.embed(nothing)

        assert result.vectors.shape == (0, 0)
        assert result.usage == Usage(0, 0)
        assert embedder.calls == []


async def test_a_string_is_one_text():
    """A lone str gives one row, not one per character."""
    assert (await Own().embed("hello")).vectors.shape == (1, 4)


@pytest.mark.parametrize(
    "texts",
    [
        ["ab", "c"],
        ("ab", "c"),
        np.array(["ab", "c"]),
        np.array(["ab", "c"], object),
        {"ab": 1, "c": 2}.keys(),
        pytest.param("generator", id="generator"),
        pytest.param("map", id="map"),
    ],
)
async def test_any_iterable_of_strings_will_do(texts):
    """Lists, tuples, generators, maps, keys and numpy arrays are all texts, and arrive as plain str."""
    texts = {"generator": (text for text in ("ab", "c")), "map": map(str.lower, ("AB", "C"))}.get(texts, texts) if isinstance(
        texts, str) else texts  # fmt: skip
    embedder = Own()
    result = await embedder.embed(texts)

    assert same(rows(["ab", "c"]), result.vectors)
    assert {str} == {type(text) for text in embedder.calls[0]}


class Color(str, Enum):  # noqa: UP042 (the trap itself)
    """Strings whose str() is their name, which is not what is to be embedded."""

    RED = "crimson"


async def test_a_string_of_another_class_gives_its_characters():
    """An enum's member is its value, in every way a text can be given."""
    embedder = Own()
    await embedder.embed([Color.RED])
    await embedder.embed(Color.RED)
    await embedder.embed_query(Color.RED)
    async with embedder.stream([Color.RED]) as parts:
        [_ async for _ in parts]

    assert embedder.calls == [["crimson"]] * 4
    assert {str} == {type(call[0]) for call in embedder.calls}


@pytest.mark.parametrize("other", [None, 1, b"bytes", ["nested"], math.nan, np.float32(1), object()])
async def test_what_is_no_string_is_named_with_its_row(other):
    """The TypeError names row and type of the first text that is none, and nothing was sent."""
    embedder = Own()

    with pytest.raises(TypeError, match=rf"texts\[2\] is {type(other).__name__}, not str"):
        await embedder.embed(["a", "b", other, None])

    assert embedder.calls == []


@pytest.mark.parametrize("texts", [b"bytes", bytearray(b"x"), None, 7, object()])
async def test_what_is_no_iterable_of_strings_is_a_type_error(texts):
    """Bytes are not taken for a sequence of numbers, and None not for nothing."""
    with pytest.raises(TypeError, match="a string or an iterable of strings"):
        await Own().embed(texts)


async def test_an_async_iterable_is_for_streams():
    """embed() does not take one, and says what does."""

    async def source():
        yield "a"

    with pytest.raises(TypeError, match=r"texts is async_generator; .*; stream\(\) takes an async one"):
        await Own().embed(source())


class Shy:
    """A thing whose repr fails, or would be a megabyte."""

    def __repr__(self):
        raise RuntimeError("no repr")


@pytest.mark.parametrize(
    "other", [Shy(), ["x" * 1_000_000], {1: [Shy()]}, b"x" * 1_000_000], ids=["shy", "long", "inside", "bytes"]
)
async def test_what_is_no_string_is_shown_briefly(other):
    """The message about a row stays a line whatever the row holds."""
    with pytest.raises(TypeError, match=r"texts\[1\] is") as caught:
        await Own().embed(["a", other])

    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("query", [["list"], b"bytes", None, 7])
async def test_a_query_is_one_string(query):
    """embed_query takes one string and says so."""
    with pytest.raises(TypeError, match="a query is one string"):
        await Own().embed_query(query)


async def test_a_query_is_a_vector():
    """embed_query gives shape (d,) and asks with input type "query", unless told otherwise."""
    seen = []

    class Asked(Own):
        async def embed_batch(self, texts, options):
            seen.append(options.input_type)
            return await super().embed_batch(texts, options)

    embedder = Asked()
    vector = await embedder.embed_query("why")
    await embedder.embed_query("why", input_type=None)

    assert same(rows(["why"])[0], vector)
    assert seen == ["query", None]


async def test_an_iterable_that_fails_fails_the_call():
    """What the caller's generator raises comes out as it is, before anything is sent."""
    embedder = Own()

    def source():
        yield "a"
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await embedder.embed(source())

    assert embedder.calls == []


# --- empty texts, lone surrogates ------------------------------------------------------------------------------------


async def test_an_empty_text_is_refused_before_sending():
    """Where empty texts are not accepted, all their rows are named, with provider and model, and nothing is sent."""
    embedder = Own(provider="mine", model="m")

    with pytest.raises(InvalidInputError) as caught:
        await embedder.embed(["a", "", "b", "", ""])

    error = caught.value
    assert (error.rows, error.status, error.provider, error.model, error.partial) == (
        (1, 3, 4),
        None,
        "mine",
        "m",
        None,
    )
    assert embedder.calls == []


async def test_empty_texts_step_aside():
    """With on_error="skip" each empty text marks just its own row."""
    result = await Own(provider="mine").embed(["", "a", "", "a"], on_error="skip")

    assert same(np.vstack([[[np.nan] * 4], rows(["a"]), [[np.nan] * 4], rows(["a"])]), result.vectors)
    assert {row: error.rows for row, error in result.failures.items()} == {0: (0,), 2: (2,)}
    assert {"mine"} == {error.provider for error in result.failures.values()}


async def test_empty_texts_are_sent_where_they_are_accepted():
    """`accepts_empty` hands them on like any other text."""
    result = await Own(accepts_empty=True).embed(["", "a"])

    assert same(rows(["", "a"]), result.vectors)


async def test_nothing_but_empty_texts():
    """Every text skipped: no request, one NaN row each, of the width known by then."""
    embedder = Own()

    assert (await embedder.embed(["", ""], on_error="skip")).vectors.shape == (2, 0)

    await embedder.embed(["a"])
    result = await embedder.embed(["", ""], on_error="skip")

    assert same(np.full((2, 4), np.nan, np.float32), result.vectors)
    assert len(embedder.calls) == 1


class Wire(Own):
    """Writes its texts as UTF-8, as every HTTP dialect does."""

    def judge(self, texts):
        for text in texts:
            text.encode()
        super().judge(texts)


async def test_a_lone_surrogate_names_its_rows():
    """Texts that cannot be written as UTF-8 are named by row: all of a batch at once, equal ones each."""
    with pytest.raises(InvalidInputError, match="lone surrogate") as caught:
        await Wire(8).embed(["a", LONE, "b", "x" + LONE, LONE])

    assert caught.value.rows == (1, 3, 4)


async def test_a_lone_surrogate_spares_the_others():
    """With on_error="skip" the texts beside it are embedded."""
    embedder = Wire(4)
    texts = ["a", LONE, "b", "c", "d", LONE + "x", "e"]
    result = await embedder.embed(texts, on_error="skip")

    assert list(result.failures) == [1, 5]
    assert same(rows(["a", "b", "c", "d", "e"]), result.vectors[[0, 2, 3, 4, 6]])
    assert np.isnan(result.vectors[[1, 5]]).all()
    assert all(isinstance(error, InvalidInputError) for error in result.failures.values())


async def test_an_encode_error_about_something_else_comes_out():
    """A UnicodeEncodeError while all texts are fine is not blamed on them."""

    class Broken(Own):
        def judge(self, texts):
            LONE.encode()

    with pytest.raises(UnicodeEncodeError):
        await Broken().embed(["a", "b"])


# --- equal texts -----------------------------------------------------------------------------------------------------


async def test_equal_texts_are_sent_once():
    """Each distinct text is sent once, in order of first appearance, and every row gets its vector."""
    embedder = Own(2)
    texts = list("abacabadabacaba")
    result = await embedder.embed(texts)

    assert embedder.calls == [["a", "b"], ["c", "d"]]
    assert same(rows(texts), result.vectors)
    assert result.usage == Usage(4, 2)


@settings(deadline=None, max_examples=120)
@given(
    st.lists(st.sampled_from(["", "bad 1", "bad 2", *"abcdefg"]), max_size=50),
    st.integers(1, 6),
    st.integers(1, 4),
    st.booleans(),
)
async def test_any_pattern_of_equal_empty_and_bad_texts(texts, size, workers, accepts_empty):
    """Whatever repeats and whatever fails: good rows hold their vectors, the others NaN and an error that names that
    row.
    """
    bad = {"bad 1", "bad 2"} | (set() if accepts_empty else {""})
    embedder = Own(size, workers=workers, bad=bad, accepts_empty=accepts_empty)
    result = await embedder.embed(texts, on_error="skip")
    expected = rows(texts)
    wrong = [row for row, text in enumerate(texts) if text in bad]
    expected[wrong] = np.nan
    expected = expected if set(texts) - bad else np.full((len(texts), result.vectors.shape[1]), np.nan)

    assert same(expected, result.vectors)
    assert wrong == list(result.failures)
    assert all(error.rows == (row,) for row, error in result.failures.items())


@settings(deadline=None, max_examples=120)
@given(
    st.lists(st.sampled_from(["bad 1", "bad 2", *"abcdefg"]), min_size=1, max_size=50),
    st.integers(1, 6),
    st.integers(1, 4),
)
async def test_any_pattern_of_equal_and_bad_texts_raises_with_what_is_known(texts, size, workers):
    """The raised error names exactly the rows of one bad text, or none where there is no other text; `partial` holds
    true vectors or NaN, row by row.
    """
    embedder = Own(size, workers=workers, bad={"bad 1", "bad 2"})
    wrong = {
        text: tuple(row for row, each in enumerate(texts) if each == text)
        for text in ("bad 1", "bad 2")
        if text in texts
    }
    try:
        result = await embedder.embed(texts)
    except InvalidInputError as error:
        assert error.rows in wrong.values() or (error.rows, len(set(texts))) == ((), 1)  # noqa: PT017 (it may also succeed)
        partial = error.partial
    else:
        assert not wrong
        partial = result

    if partial is not None:
        known = ~np.isnan(partial.vectors).all(axis=1)
        assert known.any()
        assert same(rows(texts)[known], partial.vectors[known])
        assert not known[[row for each in wrong.values() for row in each]].any()


async def test_expansion_needs_no_second_matrix():
    """Sending equal texts once takes no second copy of the result, not even for a moment."""
    width, count = 256, 40_000
    texts = [str(number % (count // 2)) for number in range(count)]

    class Zeros(Embedder):
        limits = Limits(max_texts=1000)
        max_concurrency = 2

        async def embed_batch(self, texts, options):
            return Embeddings(np.ones((len(texts), width), np.float32))

    await Zeros().embed(["warm"])
    tracemalloc.start()
    try:
        result = await Zeros().embed(texts)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert result.vectors.shape == (count, width)
    assert peak < 1.35 * result.vectors.nbytes


# --- one bad text, many bad texts, a bad request ---------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 4999, 9999])
async def test_one_bad_text_among_ten_thousand_is_found(place):
    """At most 2 * log2(batch) + 2 requests more than without it, and all other rows arrive."""
    texts = [str(number) for number in range(10_000)]
    embedder = Own(128, workers=8, bad={str(place)})
    result = await embedder.embed(texts, on_error="skip")
    expected = rows(texts)
    expected[place] = np.nan

    assert same(expected, result.vectors)
    assert [place] == list(result.failures)
    assert len(embedder.calls) <= math.ceil(10_000 / 128) + 2 * math.log2(128) + 2


async def test_one_bad_text_raises_with_its_row_and_what_is_known():
    """on_error="raise": the error itself, with the row in the caller's list, a traceback into embed_batch, and
    `partial`.
    """
    texts = [str(number) for number in range(100)]
    embedder = Own(10, workers=2, bad={"57"})

    with pytest.raises(InvalidInputError, match=r"it is a bad text \(status 400, row 57\)") as caught:
        await embedder.embed(texts)

    partial = caught.value.partial
    known = ~np.isnan(partial.vectors).all(axis=1)
    assert caught.value.rows == (57,)
    assert caught.traceback[-1].name == "judge"
    assert partial.vectors.shape == (100, 4)
    assert known[:40].all()
    assert not known[57]
    assert same(rows(texts)[known], partial.vectors[known])
    assert (partial.model, partial.usage.tokens) == ("own", int(known.sum()) + (embedder.calls.count(["hello"])))


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("bad", [{"3", "4"}, {"0"}, {"9"}, {str(number) for number in range(0, 40, 2)}, {"0", "39"}])
async def test_many_bad_texts_each_stand_alone(bad, named):
    """However many texts are bad, and whether the provider names them or not: exactly they fail."""

    class Choosy(Own):
        def judge(self, texts):
            found = [row for row, text in enumerate(texts) if text in self.bad]
            if found:
                raise TooLongError("too long", rows=found if named else ())

    texts = [str(number) for number in range(40)]
    embedder = Choosy(10, workers=3, bad=bad)
    result = await embedder.embed(texts, on_error="skip")

    assert bad == {str(row) for row in result.failures}
    assert {TooLongError} == set(map(type, result.failures.values()))
    assert same(rows([text for text in texts if text not in bad]), np.delete(result.vectors, sorted(map(int, bad)), 0))


async def test_named_rows_are_all_raised_at_once():
    """A provider that names several texts: the error names all of their rows, after one request and no search."""

    class Choosy(Own):
        def judge(self, texts):
            raise InvalidInputError("bad", rows=[1, 3])

    embedder = Choosy(10)

    with pytest.raises(InvalidInputError) as caught:
        await embedder.embed(list("abcde"))

    assert caught.value.rows == (1, 3)
    assert len(embedder.calls) == 1


@pytest.mark.parametrize("named", [(99,), (-1,), (99, -1)])
async def test_rows_that_do_not_exist_name_nothing(named):
    """A refusal that names rows outside its batch is searched like one that names none."""

    class Confused(Own):
        def judge(self, texts):
            if "c" in texts:
                raise InvalidInputError("bad", rows=named)

    result = await Confused(10).embed(list("abcde"), on_error="skip")

    assert list(result.failures) == [2]


async def test_one_object_raised_again_and_again():
    """An embedder that raises one and the same error object: rows are right, in this call and in the next."""
    always = InvalidInputError("bad")

    class Lazy(Own):
        def judge(self, texts):
            if self.bad & set(texts):
                raise always

    embedder = Lazy(4, bad={"b", "k"})
    texts = list("abcdefghijkl")

    for _ in range(2):
        result = await embedder.embed(texts, on_error="skip")
        assert {row: error.rows for row, error in result.failures.items()} == {1: (1,), 10: (10,)}
        with pytest.raises(InvalidInputError) as caught:
            await embedder.embed(list("cdefghik"))
        assert caught.value.rows == (7,)

    assert (always.rows, always.partial) == ((), None)


class Refusing(Own):
    """Refuses every request, whatever is in it."""

    def judge(self, texts):
        raise InvalidInputError("dimensions must be at most 1024", status=400, code="bad_dimensions")


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize(("count", "workers"), [(1, 16), (20, 16), (1000, 16), (1000, 1), (1000, 4)])
async def test_a_refused_request_is_no_bad_text(count, workers, on_error):
    """Every request refused: it stops after those in flight and three more, names no row, and skips nothing."""
    embedder = Refusing(8, workers=workers)

    with pytest.raises(InvalidInputError, match="dimensions must be") as caught:
        await embedder.embed([str(number) for number in range(8 * count)], on_error=on_error)

    assert (caught.value.rows, caught.value.partial, caught.value.code) == ((), None, "bad_dimensions")
    assert len(embedder.calls) <= min(count, workers) + 3


@pytest.mark.parametrize("on_error", ["raise", "skip"])
async def test_one_text_refused_with_its_request(on_error):
    """A single text, and (where it could be set aside) a known-good one refused like it; no row is blamed."""
    embedder = Refusing()

    with pytest.raises(InvalidInputError) as caught:
        await embedder.embed(["x"], on_error=on_error)

    assert caught.value.rows == ()
    assert embedder.calls == [["x"], ["hello"]][: 1 if on_error == "raise" else 2]


async def test_an_embedder_that_knows_only_its_own_texts():
    """Where even the known-good text is unknown, the halves of the batch prove that the request is not to blame."""
    texts = list("abcdefgh")

    class Table(Own):
        def judge(self, texts):
            if set(texts) - set("abcdefg"):
                raise InvalidInputError("not in my table")

    result = await Table(8).embed(texts, on_error="skip")

    assert list(result.failures) == [7]
    assert same(rows(list("abcdefg")), result.vectors[:7])


@pytest.mark.parametrize("code", ["dimensions", "gone"])
async def test_a_refused_request_over_http_is_no_bad_text(code):
    """The same through connect(): 20 batches at concurrency 16, all refused with 400, make at most 19 requests."""
    exchange = FakeExchange(lambda request: response({"error": {"message": "no such width", "code": code}}, 400))
    embedder = embedkit.connect("compatible:m", base_url="http://h/v1", exchange=exchange, limits=Limits(max_texts=4))

    with pytest.raises(InvalidInputError) as caught:
        await embedder.embed([str(number) for number in range(80)])

    assert caught.value.rows == ()
    assert len(exchange.requests) <= 19


async def test_too_large_halves_down_to_one():
    """A batch refused for its size is halved until it is taken, and no text is lost."""

    class Small(Own):
        def judge(self, texts):
            if len(texts) > 1:
                raise TooLargeError("too many")

    texts = [str(number) for number in range(40)]
    embedder = Small(16, workers=2)
    result = await embedder.embed(texts)

    assert same(rows(texts), result.vectors)
    assert max(map(len, embedder.calls)) == 16
    assert result.usage.tokens == 40


@pytest.mark.parametrize("on_error", ["raise", "skip"])
async def test_one_text_too_large_alone(on_error):
    """A text that is too large by itself is a failure of its row, and the others are embedded."""

    class Small(Own):
        def judge(self, texts):
            if sum(map(len, texts)) > 5:
                raise TooLargeError("too large", status=413)

    texts = ["aa", "bb", "c" * 9, "dd", "ee"]
    embedder = Small(5, workers=1)
    if on_error == "raise":
        with pytest.raises(TooLargeError) as caught:
            await embedder.embed(texts)
        assert caught.value.rows == (2,)
        assert same(rows(["aa", "bb"]), caught.value.partial.vectors[:2])
    else:
        result = await embedder.embed(texts, on_error="skip")
        assert list(result.failures) == [2]
        assert same(rows(["dd", "ee"]), result.vectors[3:])


@pytest.mark.parametrize("on_error", ["raise", "skip"])
async def test_an_endpoint_that_finds_everything_too_large(on_error):
    """If "hello" is too large as well, no text is to blame: no row is named, and not every text is tried."""

    class Closed(Own):
        def judge(self, texts):
            raise TooLargeError("payload too large", status=413)

    embedder = Closed(64, workers=4)

    with pytest.raises(TooLargeError) as caught:
        await embedder.embed([str(number) for number in range(640)], on_error=on_error)

    assert caught.value.rows == ()
    assert len(embedder.calls) < 40


async def test_a_search_goes_deep_first():
    """With on_error="raise", finding a bad text in a provider that turned all bad takes a path, not a whole tree."""

    class Turned(Own):
        def judge(self, texts):
            if len(self.calls) > 1:
                raise InvalidInputError("no more")

    embedder = Turned(64, workers=1)

    with pytest.raises(InvalidInputError):
        await embedder.embed([str(number) for number in range(640)])

    assert len(embedder.calls) <= 1 + 1 + 6


# --- other failures --------------------------------------------------------------------------------------------------


class Dying(Own):
    """Works for so many calls, then raises."""

    def __init__(self, error, after=3, **keywords):
        super().__init__(**keywords)
        self.error = error
        self.after = after

    def judge(self, texts):
        if len(self.calls) > self.after:
            raise self.error


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize(
    "error", [AuthError("key", status=401), ServerError("gone", status=503), DecodeError("no JSON")]
)
async def test_what_was_embedded_travels_on_the_error(error, on_error):
    """An endpoint that dies half-way raises whatever on_error is, with all rows done so far in `partial`."""
    texts = [str(number) for number in range(40)]
    embedder = Dying(error, workers=1)

    with pytest.raises(type(error)) as caught:
        await embedder.embed([*texts, "0", "1"], on_error=on_error)

    partial = caught.value.partial
    assert same(np.vstack([rows(texts[:12]), np.full((28, 4), np.nan), rows(texts[:2])]), partial.vectors)
    assert partial.usage == Usage(12, 3)
    assert caught.value.rows == ()


async def test_nothing_embedded_leaves_no_partial():
    """A first request that fails has nothing to give."""
    with pytest.raises(AuthError) as caught:
        await Dying(AuthError("key"), 0).embed(list("abcdefgh"))

    assert caught.value.partial is None


async def test_rows_of_any_error_are_the_callers():
    """Whatever names rows within its batch, a DecodeError or a class of one's own, names the caller's rows in the
    end.
    """

    class Nan(Own):
        async def embed_batch(self, texts, options):
            made = await super().embed_batch(texts, options)
            made.vectors[[text == "bad" for text in texts]] = np.nan
            return made

    with pytest.raises(DecodeError, match=r"\(rows 5, 8\)") as caught:
        await Nan(3).embed(["a", "a", "b", "c", "d", "bad", "e", "f", "bad"])

    assert caught.value.rows == (5, 8)

    with pytest.raises(ServerError) as other:
        await Dying(ServerError("x", rows=[1]), 1, size=3, workers=1).embed(list("abcdef"))

    assert other.value.rows == (4,)


@pytest.mark.parametrize(
    "error",
    [KeyError("bug"), OSError("disk"), ExceptionGroup("mine", [ValueError()]), KeyboardInterrupt(), SystemExit(3)],
)
@pytest.mark.parametrize("workers", [1, 4])
async def test_what_is_not_ours_comes_out_bare(error, workers):
    """An exception of the user's own code, Ctrl-C and sys.exit too, comes out as itself and never inside a group."""
    with pytest.raises(type(error)) as caught:
        await Dying(error, workers=workers).embed([str(number) for number in range(40)])

    assert caught.value is error


async def test_the_cause_of_an_error_stays():
    """`raise … from …` in an embed_batch is still there for the reader of the traceback."""

    class Caused(Own):
        def judge(self, texts):
            try:
                raise KeyError("deep")  # noqa: TRY301 (the cause)
            except KeyError as error:
                raise ServerError("shallow") from error

    with pytest.raises(ServerError) as caught:
        await Caused().embed(["a", "b"])

    assert isinstance(caught.value.__cause__, KeyError)


async def test_the_first_failure_stops_the_others():
    """One failure cancels what is in flight at once, and nothing more is sent."""
    cancelled = []

    class Hanging(Own):
        async def latency(self, texts):
            if texts == ["0"]:
                await anyio.sleep(0.001)
                raise AuthError("key")
            try:
                await anyio.sleep_forever()
            except BaseException:
                cancelled.append(texts[0])
                raise

    embedder = Hanging(1, workers=4)

    with pytest.raises(AuthError):
        await embedder.embed([str(number) for number in range(100)])

    assert sorted(cancelled) == ["1", "2", "3"]
    assert len(embedder.calls) == 4
    assert embedder.flying == 0


async def test_a_cancelled_caller_leaves_nothing_behind():
    """A timeout around the call takes effect at once: no request runs on, no task is left."""
    embedder = Own(1, workers=8, latency=lambda texts: anyio.sleep_forever())
    before = len(anyio.get_running_tasks())
    with anyio.move_on_after(0.01) as scope:
        await embedder.embed([str(number) for number in range(100)])

    assert scope.cancelled_caught
    assert embedder.flying == 0
    assert len(anyio.get_running_tasks()) == before


async def test_a_cancelled_call_can_be_made_again():
    """Nothing of a cancelled call stays in the embedder."""
    embedder = Own(1, workers=8, latency=lambda texts: anyio.sleep_forever())
    with anyio.move_on_after(0.01):
        await embedder.embed(["a", "b", "c"])
    embedder.latency = lambda texts: checkpoint()

    assert same(rows(["a", "b"]), (await embedder.embed(["a", "b"])).vectors)


# --- what a custom embedder may return -------------------------------------------------------------------------------


def answering(made, **attributes):
    """An embedder whose embed_batch gives this."""

    class Answering(Embedder):
        async def embed_batch(self, texts, options):
            return made(texts) if callable(made) else made

    embedder = Answering()
    for name, value in attributes.items():
        setattr(embedder, name, value)
    return embedder


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_batch_cancelled_from_within_is_no_success(on_error):
    """A batch that ends in a cancellation of its own making fails the call; its rows are not quietly missing."""

    class Inner(Own):
        async def latency(self, texts):
            if "e" in texts:
                raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="a batch was canceled from within"):
        asyncio.run(Inner(2).embed(list("abcdefgh"), on_error=on_error))


@pytest.mark.parametrize("made", [None, [[1.0]], np.ones((1, 2)), {"vectors": 1}, (Embeddings(np.ones((1, 2))),)])
async def test_what_is_no_embeddings_is_a_type_error(made):
    """An embed_batch that returns something else is told what it must return."""
    with pytest.raises(TypeError, match=r"Answering\.embed_batch returned \w+; it must return embedkit\.Embeddings"):
        await answering(made).embed(["a"])


@pytest.mark.parametrize(
    "vectors",
    [
        np.ones((1, 4)),
        np.ones((3, 4)),
        np.ones(2),
        np.ones((2, 2, 2)),
        np.ones((2, 0)),
        [],
        [[1.0, 2.0], [3.0]],
        [["1", "2"], ["3", "4"]],
        [[1j, 2], [3, 4]],
        [[None, 1], [1, 1]],
        "two",
        None,
        [[math.nan, 1], [1, 1]],
        [[1, 1], [math.inf, 1]],
        [[1e39, 1], [1, 1]],
    ],
    ids=repr,
)
async def test_vectors_that_are_none_are_refused(vectors):
    """Wrong counts, shapes, types, NaN and what overflows float32 are a DecodeError, and no warning."""
    with pytest.raises(DecodeError):
        await answering(Embeddings(vectors)).embed(["a", "b"])


@pytest.mark.parametrize(
    "vectors",
    [
        [[1, 2], [3, 4]],
        np.array([[1, 2], [3, 4]], np.float64),
        np.array([[1, 2], [3, 4]], np.float16),
        np.array([[1, 3], [2, 4]], np.int64).T,
        np.array([[1, 0, 2, 0], [3, 0, 4, 0]], np.float32)[:, ::2],
    ],
    ids=["list", "float64", "float16", "transposed", "strided"],
)
async def test_any_numbers_become_float32_rows(vectors):
    """Lists, other types and other memory layouts become one C-contiguous float32 matrix of its own."""
    result = await answering(Embeddings(vectors)).embed(["a", "b"])

    assert result.vectors.tolist() == [[1, 2], [3, 4]]
    assert result.vectors.dtype == np.float32
    assert result.vectors.flags.c_contiguous
    assert result.vectors is not vectors


@pytest.mark.parametrize(
    ("dtype", "vectors", "fits"),
    [
        ("int8", [[-128, 127]], True),
        ("int8", [[1.0, 2.0]], True),
        ("int8", [[0.1, 0.2]], False),
        ("int8", [[128, 0]], False),
        ("int8", [[math.nan, 0]], False),
        ("uint8", [[255, 0]], True),
        ("uint8", [[-1, 0]], False),
        ("binary", [[-1, 0]], True),
        ("ubinary", [[256, 0]], False),
    ],
)
async def test_integers_are_never_rounded(dtype, vectors, fits):
    """Where an integer dtype was asked for, values that do not fit it are refused rather than cut to zero."""
    embedder = answering(Embeddings(vectors))
    if fits:
        result = await embedder.embed(["a"], dtype=dtype)
        assert result.vectors.tolist() == vectors
        assert result.dimensions == (16 if "binary" in dtype else 2)
    else:
        with pytest.raises(DecodeError, match=f"dtype='{dtype}'"):
            await embedder.embed(["a"], dtype=dtype)


@pytest.mark.parametrize(
    ("dtype", "asked", "right"),
    [("float32", 4, True), ("float32", 3, False), ("binary", 32, True), ("binary", 8, False)],
)
async def test_the_width_asked_for_is_the_width_given(dtype, asked, right):
    """A custom embedder that ignores `dimensions` is an error; packed bits count eight to a byte."""
    embedder = answering(lambda texts: Embeddings(np.ones((len(texts), 4))))
    if right:
        assert (await embedder.embed(["a"], dtype=dtype, dimensions=asked)).dimensions == asked
    else:
        with pytest.raises(DecodeError, match=f"dimensions={asked}"):
            await embedder.embed(["a"], dtype=dtype, dimensions=asked)


async def test_failed_rows_of_integers_are_zero():
    """Where a dtype has no NaN, a failed row is all zeros and stands in `failures`."""
    embedder = Own(2, bad={"b"})
    result = await embedder.embed(list("abc"), dtype="uint8", on_error="skip")

    assert result.vectors[1].tolist() == [0, 0, 0, 0]
    assert list(result.failures) == [1]


async def test_the_width_may_not_change_between_batches():
    """A reply of another width than the first is a DecodeError that keeps what was right."""
    embedder = Own(2, workers=1)

    def judge(texts):
        embedder.width = 4 if len(embedder.calls) < 3 else 5

    embedder.judge = judge

    with pytest.raises(DecodeError, match="5 values per row, earlier ones under the same options had 4") as caught:
        await embedder.embed(list("abcdef"))

    assert same(rows(list("abcd")), caught.value.partial.vectors[:4])


async def test_the_width_may_not_change_between_calls():
    """The width of an embedder's first call holds for all later ones with the same options, and only for them."""
    embedder = Own()
    await embedder.embed(["a"])
    embedder.width = 5

    with pytest.raises(DecodeError, match="earlier ones under the same options had 4"):
        await embedder.embed(["a"])

    assert (await embedder.embed(["a"], dimensions=5)).dimensions == 5


async def test_the_width_may_not_differ_between_calls_at_once():
    """Two first calls side by side that get different widths: one of them is refused."""
    embedder = Own()
    ready, outcomes = [], []

    async def latency(texts):
        ready.append(texts)
        while len(ready) < 2:
            await checkpoint()
        embedder.width = 4 + ready.index(texts)

    embedder.latency = latency

    async def one(text):
        try:
            outcomes.append((await embedder.embed([text])).dimensions)
        except DecodeError:
            outcomes.append("refused")

    async with anyio.create_task_group() as group:
        group.start_soon(one, "a")
        group.start_soon(one, "b")

    assert "refused" in outcomes
    assert len(set(outcomes)) == 2


async def test_the_memory_of_widths_is_bounded():
    """An `extra` that differs with every call does not grow the embedder for ever."""
    embedder = Own()
    for number in range(600):
        await embedder.embed(["a"], extra={"user": str(number)})

    assert len(embedder._learned.widths) <= 256


async def test_a_batch_is_copied():
    """An embedder that hands out one buffer again and again does not overwrite earlier rows."""
    buffer = np.zeros((2, 2), np.float32)

    def made(texts):
        buffer[:] = float(texts[0])
        return Embeddings(buffer)

    result = await answering(made, limits=Limits(max_texts=2)).embed(["1", "1.5", "2", "2.5"])

    assert result.vectors.tolist() == [[1, 1], [1, 1], [2, 2], [2, 2]]


async def test_normalize_makes_unit_length():
    """normalize=True scales every row to length 1, and leaves a zero row zero."""
    result = await answering(Embeddings([[3, 4], [0, 0]])).embed(["a", "b"], normalize=True)

    assert np.allclose([[0.6, 0.8], [0, 0]], result.vectors)


# --- options, usage, events ------------------------------------------------------------------------------------------


async def test_options_of_a_call_override_those_of_the_embedder():
    """What a call names wins, what it leaves out stands, and the embedder's own options stay as they were."""
    seen = []

    class Asked(Own):
        async def embed_batch(self, texts, options):
            seen.append(options)
            return await super().embed_batch(texts, options)

    mine = Options(input_type="document", truncate="end", extra={"a": 1})
    embedder = Asked(options=mine)
    await embedder.embed(["a"])
    await embedder.embed(["a"], input_type="query", dimensions=4, extra={"b": 2}, normalize=False)

    assert seen == [mine, Options(input_type="query", dimensions=4, truncate="end", normalize=False, extra={"b": 2})]
    assert embedder.options is mine


@pytest.mark.parametrize(
    "wrong",
    [
        {"input_type": "passage"}, {"dtype": "float16"}, {"dtype": np.float32}, {"truncate": True}, {"normalize": 1},
        {"dimensions": 0}, {"dimensions": 2.0}, {"dimensions": True}, {"dimensions": "256"}, {"extra": [1]}, {"extra": "x"},
        {"on_error": "ignore"}, {"on_error": None}, {"dtype": "binary", "dimensions": 12}, {"dtype": "int8", "normalize": True},
        {"extra": {"x": object()}}, {"extra": {"x": LONE}},
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("verb", ["embed", "stream"])
async def test_options_that_make_no_sense_are_refused(wrong, verb):
    """A value of the wrong kind is a ConfigError that names the option, in every verb, and nothing is sent."""
    embedder = Own()

    with pytest.raises(ConfigError, match=next(iter(wrong)) if len(wrong) == 1 else "dimensions|normalize"):
        if verb == "embed":
            await embedder.embed(["a"], **wrong)
        else:
            async with embedder.stream(["a"], **wrong) as parts:
                await anext(parts)

    assert embedder.calls == []


async def test_usage_sums_what_was_reported():
    """Tokens and requests are those of all batches; cost is tokens times the price per million."""
    result = await Own(2, price=10.0).embed(list("abcde"))

    assert result.usage.tokens == 5
    assert result.usage.requests == 3
    assert result.usage.cost == pytest.approx(5e-5)


async def test_usage_is_unknown_when_one_batch_reports_none():
    """One batch without a count makes the sum None, never a smaller number; zero is a count."""

    class Silent(Own):
        async def embed_batch(self, texts, options):
            made = await super().embed_batch(texts, options)
            return Embeddings(made.vectors, usage=Usage(None if "c" in texts else 0, 2))

    result = await Silent(2, price=10.0, model="as asked").embed(list("abcde"))

    assert result.usage == Usage(None, 6, None)
    assert result.model == "as asked"
    assert (await Silent(2, price=10.0).embed(list("ab"))).usage == Usage(0, 2, 0.0)


async def test_events_tell_what_became_of_each_batch():
    """A batch that came back is done, one taken apart is split, a text given up has failed; nothing else is
    reported.
    """
    seen = []
    embedder = Own(4, workers=1, bad={"b"}, observe=seen.append, provider="mine", model="m")
    await embedder.embed(list("abcd"), on_error="skip")

    assert [(type(event), event.texts) for event in seen] == [
        (CallStarted, 4),
        (BatchDone, 1), (BatchSplit, 4), (BatchSplit, 2), (BatchDone, 1), (BatchFailed, 1), (BatchDone, 2),
        (CallEnded, 4),
    ]  # fmt: skip
    assert {("mine", "m")} == {(event.provider, event.model) for event in seen}


async def test_events_tell_the_failure_that_ends_a_call():
    """The error that is raised was reported once, with the number of texts it concerns."""
    seen = []

    with pytest.raises(AuthError):
        await Dying(AuthError("key"), 1, workers=1, observe=seen.append).embed(list("abcdefgh"))

    assert [(type(event), event.texts) for event in seen] == [
        (CallStarted, 8), (BatchDone, 4), (BatchFailed, 4), (CallEnded, 8),
    ]  # fmt: skip


async def test_an_observer_that_fails_breaks_nothing(caplog):
    """What the observer raises is logged, and the call goes on."""

    def observe(event):
        raise ValueError("observer")

    result = await Own(2, observe=observe).embed(list("abc"))

    assert result.vectors.shape == (3, 4)
    assert "the observer failed on BatchDone" in caplog.text


async def test_a_tokenizer_of_the_callers_plans():
    """`count_tokens` decides how many texts go together, as an attribute or as a method."""

    class Counting(Own):
        def count_tokens(self, text):
            return 5

    for embedder in (Counting(), Own(count_tokens=lambda text: 5)):
        embedder.limits = Limits(max_tokens=10)
        await embedder.embed(list("abcde"))
        assert embedder.calls == [["a", "b"], ["c", "d"], ["e"]]


async def test_a_tokenizer_that_fails_fails_the_call():
    """What `count_tokens` raises comes out bare, also half-way."""

    def count(text):
        return {"e": [].__getitem__}.get(text, len)(text and 1) if text == "e" else 1

    embedder = Own(count_tokens=count)
    embedder.limits = Limits(max_tokens=1)

    with pytest.raises(IndexError):
        await embedder.embed(list("abcde"))


# --- the six lines ---------------------------------------------------------------------------------------------------


class Mine(Embedder):
    """The custom embedder of the documentation."""

    limits = Limits(max_texts=64)

    async def embed_batch(self, texts, options):
        return Embeddings([[len(text), 1.0] for text in texts], model="mine")


async def test_a_custom_embedder_is_six_lines():
    """One method and one attribute give embed, embed_query, stream and `async with`, unchanged on any loop."""
    async with Mine() as embedder:
        result = await embedder.embed(["ab", "c"] * 100)
        vector = await embedder.embed_query("abc")
        async with embedder.stream("x" * number for number in range(1, 130)) as parts:
            starts = [part.start async for part in parts]

    assert result.vectors.tolist() == [[2, 1], [1, 1]] * 100
    assert vector.tolist() == [3, 1]
    assert result.model == "mine"
    assert starts == [0, 64, 128]


async def test_the_abstract_method_is_needed():
    """An Embedder without embed_batch cannot be made."""

    class Empty(Embedder):
        pass

    with pytest.raises(TypeError, match="embed_batch"):
        Empty()


async def test_an_embedder_around_an_embedder():
    """A custom embedder may call another one; the inner error's rows become the caller's."""
    inner = Own(2, bad={"e"})

    class Outer(Embedder):
        limits = Limits(max_texts=4)

        async def embed_batch(self, texts, options):
            return await inner.embed(texts)

    with pytest.raises(InvalidInputError) as caught:
        await Outer().embed(list("abcdef"))

    assert caught.value.rows == (4,)
    assert same(rows(list("abcd")), caught.value.partial.vectors[:4])

    result = await Outer().embed(list("abcdef"), on_error="skip")

    assert list(result.failures) == [4]


async def test_failures_hold_on_to_nothing():
    """The errors of a result keep no traceback, and so neither frames nor matrices alive."""
    result = await Own(2, bad={"b", "d"}).embed(list("abcde"), on_error="skip")

    assert [error.__traceback__ for error in result.failures.values()] == [None, None]


def alive(kind, *, collect=True):
    """The ids of all objects of a kind."""
    if collect:
        gc.collect()
    return {id(each) for each in gc.get_objects() if isinstance(each, kind)}


async def test_a_text_set_aside_leaves_no_cycle():
    """A call that skips a bad text needs no garbage collector: its matrix goes with the last reference to it."""
    before = alive(Dispatcher)
    gc.disable()
    try:
        await Own(2, bad={"b"}).embed(list("abcde"), on_error="skip")
        left = alive(Dispatcher, collect=False) - before
    finally:
        gc.enable()

    assert left == set()


async def test_the_fake_embedder_is_an_embedder():
    """FakeEmbedder gives equal texts equal unit vectors, and remembers what it was sent."""
    embedder = FakeEmbedder(8, limits=Limits(max_texts=2))
    result = await embedder.embed(["a", "b", "a", "c"])

    assert np.array_equal(result[0], result[2])
    assert np.allclose(np.linalg.norm(result.vectors, axis=1), 1)
    assert sorted(embedder.batches) == [["a", "b"], ["c"]]


async def test_a_random_storm():
    """Latency, size limits, bad texts and duplicates all at once: what comes back is right, and nothing is left
    running.
    """
    chance = random.Random(7)
    for _ in range(10):
        texts = [str(chance.randrange(400)) for _ in range(600)]
        bad = {str(chance.randrange(400)) for _ in range(chance.randrange(12))}

        class Storm(Own):
            async def latency(self, texts):
                for _ in range(chance.randrange(4)):
                    await checkpoint()

            def judge(self, texts):
                if len(texts) > 20:
                    raise TooLargeError("too many")
                super().judge(texts)

        embedder = Storm(chance.choice([7, 33, 64]), workers=chance.choice([1, 5, 16]), bad=bad)
        result = await embedder.embed(texts, on_error="skip")
        expected = rows(texts)
        expected[[text in bad for text in texts]] = np.nan

        assert same(expected, result.vectors)
        assert set(result.failures) == {row for row, text in enumerate(texts) if text in bad}
        assert (embedder.flying, embedder.peak <= embedder.max_concurrency) == (0, True)


async def test_a_failed_call_leaves_no_cycle_of_matrices():
    """After a failed call is forgotten and collected, its matrix is gone."""
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(5):
            with pytest.raises(ApiError):
                await Dying(AuthError("key"), 3, size=1000, width=64).embed([str(number) for number in range(20_000)])
        gc.collect()
        left = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert left < 20_000 * 64 * 4


# --- an embedder around another --------------------------------------------------------------------------------------


class Around(Embedder):
    """Asks another embedder, and passes on what it says, failures included."""

    limits = Limits(max_texts=4)

    async def embed_batch(self, texts, options):
        failures = {row: InvalidInputError("not this one") for row, text in enumerate(texts) if "bad" in text}
        return Embeddings(np.ones((len(texts), 2), options.dtype), "m", failures=failures)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("texts", [["a", "bad 1", "b", "c", "d", "bad 2"], ["bad 1", "bad 2"], ["a", "bad"]])
async def test_failures_that_a_batch_reports_are_failures(texts, dtype):
    """They keep their reason, their rows have no vector, and the other rows are not sent again."""
    bad = [row for row, text in enumerate(texts) if "bad" in text]
    result = await Around().embed(texts, on_error="skip", dtype=dtype)

    assert sorted(result.failures) == bad
    assert {type(error) for error in result.failures.values()} == {InvalidInputError}
    assert all("not this one" in str(error) for error in result.failures.values())
    if len(bad) < len(texts):
        assert np.isnan(result.vectors[bad]).all() if dtype == "float32" else not result.vectors[bad].any()
        assert (np.delete(result.vectors, bad, axis=0) == 1).all()
    with pytest.raises(InvalidInputError, match="not this one"):
        await Around().embed(texts)


async def test_a_failure_of_a_lone_text():
    """It is raised, though a vector came with it."""
    with pytest.raises(InvalidInputError, match="not this one"):
        await Around().embed_query("bad")


def test_the_provider_is_the_class_unless_it_is_set():
    """Two classes that name nothing are two providers; what a class or an embedder sets wins."""

    class Mine(Around):
        pass

    class Named(Around):
        provider = "named"

    named = Named()
    named.provider = "anew"

    assert [each().provider for each in (Around, Mine, Named)] == ["Around", "Mine", "named"]
    assert named.provider == "anew"
