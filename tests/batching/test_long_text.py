"""Texts of any length: how they are cut, what their vector is, and what becomes of those that no cut helps."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter

import numpy as np
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

import embedkit
from embedkit import (
    AuthError,
    ConfigError,
    Embedder,
    Embeddings,
    InvalidInputError,
    Limits,
    SyncEmbedder,
    TooLargeError,
    TooLongError,
    Usage,
)
from embedkit._batching.long_text import SURE, TRIES, head, pieces
from embedkit._batching.plan import estimate
from embedkit._embedders.coalescing import Coalesced
from embedkit.testing import FakeExchange, response

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


def words(text):
    return len(text.split())


def letters(text):
    """A vector that tells what a text holds: the share of a, b, c,
    d among its words. The mean over its words is that of the text.
    """
    if text == "hello":  # what a pool asks to tell models apart
        return [0.5] * 4
    return np.array([text.count(letter) / max(1, words(text)) for letter in "abcd"], np.float32).tolist()


class Short(Embedder):
    """Takes texts of at most `most` tokens (words, unless told otherwise); refuses a batch that holds a longer one."""

    def __init__(self, most=4, *, told=True, names=True, real=words, bad=(), **attributes):
        self.most, self.names, self.real, self.bad = most, names, real, bad
        self.limits = Limits(max_texts=8, max_text_tokens=most if told else None)
        self.count_tokens = words
        self.long_text = "mean"
        self.calls = []
        for name, value in attributes.items():
            setattr(self, name, value)

    async def embed_batch(self, texts, options):
        self.calls.append(list(texts))
        await checkpoint()
        long = [row for row, text in enumerate(texts) if self.real(text) > self.most]
        if long:
            raise TooLongError("too many tokens", status=400, rows=long if self.names else ())
        if any(text.strip() in self.bad for text in texts):
            raise InvalidInputError("a bad text", status=400)
        return Embeddings(np.array(list(map(letters, texts))), "short", Usage(sum(map(self.real, texts)), 1))

    @property
    def sent(self):
        return [text for call in self.calls for text in call]


def mean(parts, weights=None):
    """The vector of a text in these parts, worked out in double precision."""
    average = np.average([letters(part) for part in parts], axis=0, weights=weights or list(map(words, parts)))
    return (average / np.linalg.norm(average)).astype(np.float32)


LONG = "a a b b c c d d a b"  # ten words; in pieces of four: "a a b b ", "c c d d ", "a b"
PARTS = ["a a b b ", "c c d d ", "a b"]


# --- cutting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "count", [words, len, estimate, lambda text: len(text.encode())], ids=["words", "length", "estimate", "bytes"]
)
@given(st.text(st.sampled_from("ab é\n漢"), max_size=300), st.integers(1, 40))
@settings(deadline=None)
def test_pieces_are_the_text(count, text, most):
    """Together they are the text, none is empty, and each keeps
    within the limit unless one character alone does not.
    """
    found = pieces(text, most, count)

    assert "".join(found) == text
    assert all(found)
    assert all(count(piece) <= most or len(piece) == 1 for piece in found)
    assert [head(text, most, count)] * bool(found) == found[:1]


def test_pieces_end_between_words():
    """Where there is white space in the second half of a piece it ends there; a long word is cut."""
    assert pieces("one two three four", 9, len) == ["one two ", "three ", "four"]
    assert pieces("one\ntwo three", 9, len) == ["one\ntwo ", "three"]
    assert pieces("a supercalifragilistic", 9, len) == ["a superca", "lifragili", "stic"]
    assert pieces(LONG, 4, words) == PARTS


def test_a_long_text_is_not_counted_again_and_again():
    """A megabyte in pieces of a hundred tokens costs no more
    counting than a few times its length for each piece's share.
    """
    counted = Counter()

    def count(text):
        counted["characters"] += len(text)
        return len(text) // 4

    text = "word " * 200_000
    found = pieces(text, 100, count)

    assert len(found) > 2000
    assert counted["characters"] < 20 * len(text)


# --- the mean --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "weights", "average"),
    [("x y", (1, 1), [2.5, 3.5, 4.5]), ("xx y", (2, 1), [2.0, 3.0, 4.0]), ("x yy", (1, 2), [3.0, 4.0, 5.0])],
)
async def test_the_mean_is_weighted_by_tokens_and_of_unit_length(text, weights, average):
    """Two pieces, [1 2 3] and [4 5 6], averaged and normalized: numbers of a library that did this before."""

    class Two(Embedder):
        limits = Limits(max_text_tokens=2)
        long_text = "mean"
        count_tokens = staticmethod(lambda text: len(text.replace(" ", "")) + (" " in text.strip()))

        async def embed_batch(self, texts, options):
            return Embeddings([[1, 2, 3] if "x" in text else [4, 5, 6] for text in texts])

    result = await Two().embed([text])

    assert np.allclose(result[0], np.array(average) / np.linalg.norm(average), rtol=1e-6)
    assert weights == tuple(map(Two.count_tokens, text.split()))
    if weights == (1, 1):
        assert np.allclose(result[0], [0.4016096644512494, 0.5622535302317492, 0.722897396012249], rtol=1e-6)


async def test_long_and_short_texts_together():
    """A long text gets the mean of its pieces, a short one what the
    provider says, each in its own row; equal pieces are sent once.
    """
    embedder = Short()
    result = await embedder.embed(["a b", LONG, "c", LONG])

    assert np.array_equal(result.vectors, [letters("a b"), mean(PARTS), letters("c"), mean(PARTS)])
    assert sorted(embedder.sent) == sorted(["a b", "c", *PARTS[:2]])
    assert result.vectors.flags.c_contiguous
    assert (result.usage, result.model) == (Usage(11, 1), "short")


async def test_without_it_a_long_text_is_refused():
    """It is an offer: left out, the provider's refusal stands."""
    with pytest.raises(TooLongError):
        await Short(long_text=None).embed(LONG)


async def test_texts_that_are_short_cost_nothing():
    """Where no text is long the result is the provider's, uncopied, and few texts are even counted."""
    counted = []
    embedder = Short(1000, count_tokens=lambda text: counted.append(text) or words(text))
    result = await embedder.embed(["a b", "c d"])

    assert np.array_equal(result.vectors, [letters("a b"), letters("c d")])
    assert counted == []


@pytest.mark.parametrize("names", [True, False])
@pytest.mark.parametrize("factor", [1, 2, 3, 7, 12])
async def test_a_count_that_is_too_low_is_made_good(factor, names):
    """Pieces that the provider still finds too long are halved until they fit; what is sent holds the whole text."""
    embedder = Short(12, names=names, real=lambda text: factor * words(text))
    text = "".join("abbcccdddd"[number % 10] + " " for number in range(101))
    result = await embedder.embed(["a", text, "b", text + "d"])

    assert result.failures == {}
    assert np.allclose(result.vectors, [letters("a"), mean([text]), letters("b"), mean([text + "d"])], atol=1e-5)


async def test_an_unknown_limit_is_found_by_halving():
    """Where nobody says what a text may hold, a refused one is halved."""
    embedder = Short(4, told=False)
    result = await embedder.embed([LONG, "a"])

    assert np.allclose(result[0], mean([LONG]))
    assert np.array_equal(result[1], letters("a"))


async def test_a_text_too_large_for_any_request_is_cut_too():
    """A refusal of the size of the request, for one text alone, is about that text."""

    class Small(Short):
        async def embed_batch(self, texts, options):
            if sum(map(words, texts)) > 4:
                raise TooLargeError("payload too large", status=413)
            return await super().embed_batch(texts, options)

    result = await Small(told=False).embed(["a", LONG])

    assert result.failures == {}
    assert np.allclose(np.linalg.norm(result[1]), 1)


async def test_what_no_cut_helps_is_refused_in_the_end():
    """A provider that finds everything too long is asked a bounded number of times, and its error has the row."""
    embedder = Short(1000, told=False, real=lambda text: 0 if text in ("fine", "hello") else 9999)
    with pytest.raises(TooLongError) as caught:
        await embedder.embed(["fine", "x" * 500])

    assert caught.value.rows == (1,)
    assert np.array_equal(caught.value.partial.vectors[0], letters("fine"))
    assert np.isnan(caught.value.partial.vectors[1]).all()
    assert len(embedder.sent) < 10 * 2**TRIES


# --- failures --------------------------------------------------------------------------------------------------------


async def test_a_bad_piece_is_the_failure_of_its_text():
    """Rows are those of the caller, whatever the pieces; all other texts are embedded."""
    bad = "bad bad bad bad"
    embedder = Short(bad={bad})
    texts = ["a b", f"a a a a {bad} b", LONG, "c"]
    result = await embedder.embed(texts, on_error="skip")

    assert (list(result.failures), result.failures[1].rows) == ([1], (1,))
    assert np.isnan(result[1]).all()
    assert np.array_equal(result.vectors[[0, 2, 3]], [letters("a b"), mean(PARTS), letters("c")])

    with pytest.raises(InvalidInputError) as caught:
        await embedder.embed(texts)

    assert caught.value.rows == (1,)
    assert np.array_equal(caught.value.partial.vectors, result.vectors, equal_nan=True)


async def test_a_short_text_that_is_bad_before_anything_is_known():
    """Where nothing was embedded at first, the width is known from what is cut later."""
    embedder = Short(told=False, bad={"bad"})
    result = await embedder.embed(["bad", LONG], on_error="skip")

    assert list(result.failures) == [0]
    assert np.isnan(result[0]).all()
    assert np.allclose(np.linalg.norm(result[1]), 1)


async def test_an_empty_text_is_refused_with_its_row():
    """As ever."""
    with pytest.raises(InvalidInputError) as caught:
        await Short().embed([LONG, ""])

    assert caught.value.rows == (1,)


@pytest.mark.parametrize(
    ("told", "after", "expected"),
    [
        (False, 0, None),  # the first batch, ["a", LONG]
        (False, 2, [True, False, False, False]),
        (False, 3, [True, False, True, True]),  # all but the pieces of the long text
        (True, 0, None),  # ["a", its first piece]
        (True, 1, [True, False, False, False]),
        (True, 2, [True, True, False, False]),  # ["b", "c"]
    ],
)
async def test_what_dies_half_way_gives_the_callers_rows(told, after, expected):
    """An endpoint that dies leaves a partial in the caller's rows: whole texts only, unknown ones NaN."""

    class Dying(Short):
        async def embed_batch(self, texts, options):
            if len(self.calls) >= after:
                raise AuthError("revoked", status=401)
            return await super().embed_batch(texts, options)

    embedder = Dying(max_concurrency=1, limits=Limits(max_texts=2, max_text_tokens=4 if told else None))
    with pytest.raises(AuthError) as caught:
        await embedder.embed(["a", LONG, "b", "c"])
    partial = caught.value.partial

    assert caught.value.rows == ()
    if expected is None:
        assert partial is None
    else:
        known = ~np.isnan(partial.vectors[:, 0])
        whole = np.array([letters("a"), mean(PARTS), letters("b"), letters("c")])
        assert known.tolist() == expected
        assert np.array_equal(partial.vectors[known], whole[known])


async def test_an_error_about_pieces_names_texts():
    """Rows that a reply breaks the contract for are mapped back to the caller's."""

    class Nan(Short):
        async def embed_batch(self, texts, options):
            made = await super().embed_batch(texts, options)
            made.vectors[[text == PARTS[1] for text in texts]] = np.nan
            return made

    with pytest.raises(embedkit.DecodeError) as caught:
        await Nan().embed(["a", "b", LONG])

    assert caught.value.rows == (2,)


# --- with the rest ---------------------------------------------------------------------------------------------------


async def test_streams_average_too():
    """A part is a call like any other."""
    parts = []
    async with Short().stream(["a b", LONG, "c"]) as stream:
        parts = [part async for part in stream]

    assert np.array_equal(np.concatenate([part.vectors for part in parts]), [letters("a b"), mean(PARTS), letters("c")])


def test_shared_and_sync_calls_average_too():
    """Small calls that share a request, and calls without await."""
    shared = Coalesced(Short())

    async def both():
        return await asyncio.gather(shared.embed_query(LONG), shared.embed_query("a"))

    assert np.array_equal(asyncio.run(both()), [mean(PARTS), letters("a")])
    with SyncEmbedder(Short()) as embedder:
        assert np.array_equal(embedder.embed_query(LONG), mean(PARTS))


async def test_the_mean_is_of_floats():
    """Integer dtypes have no mean: said before anything is sent, also for short texts."""
    embedder = Short()
    with pytest.raises(ConfigError, match="dtype='int8' has no mean"):
        await embedder.embed(["a"], dtype="int8")

    assert embedder.calls == []


async def test_a_call_may_ask_for_something_else():
    """`truncate` in a call wins over `long_text`: the embedder itself is asked to cut, or to refuse."""
    seen = []

    class Cutting(Short):
        async def embed_batch(self, texts, options):
            seen.append((list(texts), options.truncate))
            return Embeddings([letters(text) for text in texts])

    embedder = Cutting()
    for truncate in ("end", "error", None):
        await embedder.embed(LONG, truncate=truncate)

    assert seen == [([LONG], "end"), ([LONG], "error"), (PARTS, None)]


def test_connect_refuses_what_contradicts_itself():
    """`long_text` and `truncate` are two answers to one question; and there is one kind of mean."""
    with pytest.raises(ConfigError, match="contradict"):
        embedkit.connect("openai:m", base_url="http://h", long_text="mean", truncate="end")
    with pytest.raises(ConfigError, match="long_text='median'"):
        embedkit.connect("openai:m", base_url="http://h", long_text="median")


# --- over HTTP, and cutting off --------------------------------------------------------------------------------------


def openai(most, real=words, says="This model's maximum context length is {most} tokens"):
    """OpenAI as far as long texts go: a batch that holds one is refused whole, without a row."""

    def answer(request):
        texts = json.loads(request.body)["input"]
        if any(real(text) > most for text in texts):
            return response({"error": {"message": says.format(most=most), "code": None}}, 400)
        return response({"data": [{"embedding": letters(text), "index": place} for place, text in enumerate(texts)]})

    return FakeExchange(answer)


def connected(exchange, provider="openai:m", **keywords):
    return embedkit.connect(provider, base_url="http://h/v1", exchange=exchange, **keywords)


async def test_the_mean_over_http():
    """Through connect: with the caller's counter, no request is wasted."""
    exchange = openai(4)
    embedder = connected(exchange, long_text="mean", count_tokens=words, limits=Limits(max_text_tokens=4))
    result = await embedder.embed(["a b", LONG])

    assert np.array_equal(result.vectors, [letters("a b"), mean(PARTS)])
    assert [body["input"] for body in exchange.bodies] == [["a b", *PARTS[:2]]]
    assert "truncate" not in exchange.bodies[0]


async def test_the_catalog_knows_what_a_text_may_hold():
    """Where the host has no limit of its own, the model's is taken, less what goes before every text."""
    counted = []
    embedder = connected(
        openai(512), "compatible:intfloat/e5-base-v2", count_tokens=lambda text: counted.append(text) or words(text)
    )

    assert embedder.most_text_tokens(embedkit.Options()) == 512
    assert embedder.most_text_tokens(embedkit.Options(input_type="query")) == 511
    assert counted == ["query: "]


async def test_where_the_provider_cannot_cut_the_client_does():
    """`truncate="end"` on OpenAI: with the model's own counter the
    text is cut to exactly what fits, the others are untouched.
    """
    exchange = openai(4)
    embedder = connected(exchange, truncate="end", count_tokens=words, limits=Limits(max_texts=8, max_text_tokens=4))
    result = await embedder.embed(["a b", "a a b b c c d d a b", "c", "d d d d d"])

    assert np.array_equal(result.vectors, [letters(text) for text in ("a b", "a a b b", "c", "d d d d")])
    assert result.failures == {}
    assert all("truncate" not in body for body in exchange.bodies)


async def test_a_text_that_fits_is_never_cut_off():
    """A count that is too high does not cost a text its end: it is tried whole first."""
    exchange = openai(9)
    text = " ".join("abcdabcd")
    embedder = connected(
        exchange, count_tokens=lambda text: math.ceil(1.5 * words(text)), limits=Limits(max_text_tokens=9)
    )
    result = await embedder.embed([text], truncate="end")

    assert np.array_equal(result[0], letters(text))
    assert len(exchange.requests) == 1


async def test_a_text_far_too_long_is_not_sent_whole():
    """Beyond twice the limit even a rough count is sure."""
    exchange = openai(4)
    embedder = connected(exchange, truncate="end", count_tokens=words, limits=Limits(max_text_tokens=4))
    result = await embedder.embed(["a " * 1000])

    assert np.array_equal(result[0], letters("a " * 4))
    assert max(words(text) for body in exchange.bodies for text in body["input"]) <= SURE * 4


@pytest.mark.parametrize(("model", "kept"), [("llamacpp:m", 3), ("compatible:m", None), ("ollama:m", None)])
async def test_who_is_cut_where(model, kept):
    """A host that refuses and cannot be asked is cut for here;
    one of which nothing is known says so; one that can is asked.
    """
    exchange = openai(4, says="the input is larger than the max context size; input is too long")
    embedder = connected(exchange, model, truncate="end")
    if model.startswith("llamacpp"):
        result = await embedder.embed(["a b c d a b c d a b c d"])

        assert np.array_equal(result[0], letters("a b c "))
        assert result.usage.requests == len(exchange.requests)
    elif model.startswith("compatible"):
        with pytest.raises(ConfigError, match="truncate='end'"):
            await embedder.embed("a")
    else:
        with pytest.raises(embedkit.DecodeError):
            await embedder.embed("a")

        assert exchange.bodies[0]["truncate"] is True


@pytest.mark.parametrize("dtype", ["float32", "int8"])
async def test_cutting_off_needs_no_floats(dtype):
    """Only a mean does."""
    embedder = connected(openai(4), truncate="end", count_tokens=words, limits=Limits(max_text_tokens=4))
    result = await embedder.embed(["a b c d d d d d d"], dtype=dtype)

    assert result.vectors.dtype == dtype
    assert result.failures == {}


async def test_a_pool_cuts_as_its_endpoints_would():
    """Both ways of shortening work over several endpoints."""
    for keywords, expected in (
        ({"truncate": "end"}, np.array(letters("a a b b"), np.float32)),
        ({"long_text": "mean"}, mean(PARTS)),
    ):
        embedder = embedkit.connect(
            "openai:m", base_url=["http://h/v1", "http://i/v1"], exchange=openai(4), count_tokens=words,
            limits=Limits(max_text_tokens=4), **keywords,
        )  # fmt: skip
        result = await embedder.embed([LONG])

        assert np.allclose(result[0], expected, rtol=1e-6)


async def test_one_long_text_costs_few_requests():
    """Among ten thousand texts, one that is too long by a low
    count is found, and cut, with a handful of extra requests.
    """
    exchange = openai(4)
    texts = [f"a b {number}" for number in range(10_000)]
    texts[7777] = LONG
    embedder = connected(
        exchange, truncate="end", count_tokens=lambda text: 1, limits=Limits(max_texts=256, max_text_tokens=4)
    )
    result = await embedder.embed(texts)
    usual = math.ceil(10_000 / 256)

    assert np.array_equal(result[7777], letters("a a "))
    assert len(exchange.requests) <= usual + 2 * math.log2(256) + 2 + TRIES
