"""Everything a network and a provider get wrong at once, over real
sockets: every vector is right or its row reported, and nothing stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading

import anyio
import numpy as np
import pytest

import embedkit
from embedkit import DecodeError, EmbedkitError, InvalidInputError, Limits, RetryPolicy
from tests.support.servers.chaos import BROKEN, CURED, Chaos, serving, vector

pytestmark = pytest.mark.anyio
PATIENT = RetryPolicy(attempts=40, deadline=None, initial=0.001, maximum=0.01)
SECONDS = 2.0  # until a stalled request is given up; the rest goes on meanwhile


def texts_of(count, *, bad=0):
    """Texts with numbers, so many bad ones among them, evenly spread; and the rows of the bad ones."""
    rows = {int((place + 0.5) * count / bad) for place in range(bad)}
    return [f"{'bad' if row in rows else 'text'} {row}" for row in range(count)], rows


def expected(texts):
    return np.array(list(map(vector, texts)), np.float32)


def connected(*places, **keywords):
    settings = {"limits": Limits(max_texts=64), "retry": PATIENT, "timeout": SECONDS, **keywords}
    url = places[0].url if len(places) == 1 else [each.url for each in places]
    return embedkit.connect("compatible:m", base_url=url, **settings)


@contextlib.asynccontextmanager
async def nothing_left():
    """Whatever happens inside, no task and no thread more than before is there afterwards."""
    before, threads = asyncio.all_tasks(), threading.active_count()
    yield
    for _ in range(100):
        if asyncio.all_tasks() <= before:
            break
        await asyncio.sleep(0.001)

    assert asyncio.all_tasks() <= before
    assert threading.active_count() <= threads


def check(texts, vectors, failures, bad):
    """All rows right, but those of the bad texts, which are reported."""
    good = sorted(set(range(len(texts))) - bad)

    assert set(failures) == bad
    assert all(isinstance(error, InvalidInputError) and error.rows == (row,) for row, error in failures.items())
    assert np.isnan(vectors[sorted(bad)]).all()
    assert np.array_equal(vectors[good], expected([texts[row] for row in good]))


def happened(chaos, *faults):
    """How often each of these went wrong: never is too rarely for a test of it."""
    assert [fault for fault in faults if not chaos.done[fault]] == []


async def test_fifty_thousand_texts_through_a_storm():
    """Resets, cut and trickling bodies, stalls, refusals in storms,
    shuffled rows and bad texts: all rows are there, each its own.
    """
    texts, bad = texts_of(50_000, bad=5)
    async with nothing_left(), serving(Chaos(1, share=0.12, stalls=3)) as chaos:
        async with connected(chaos) as embedder:
            result = await embedder.embed(texts, on_error="skip")

        check(texts, result.vectors, result.failures, bad)
        happened(chaos, *CURED, "stall")
        assert result.usage.requests >= 50_000 / 64 + sum(chaos.done[fault] for fault in ("429", "500", "503"))


@pytest.mark.parametrize("seed", range(2))
async def test_a_reply_that_breaks_the_contract_is_never_believed(seed):
    """Rows twice, missing, too many, NaN, null, of odd bytes, half
    a body: an error with all that is known, and that is right.
    """
    texts, _ = texts_of(6_400)
    left, rounds = list(range(len(texts))), 0
    async with nothing_left(), serving(Chaos(seed, share=0.2, faults=(*BROKEN, "shuffled", "reset"))) as chaos:
        async with connected(chaos) as embedder:
            while left and rounds < 200:
                rounds += 1
                try:
                    vectors = (await embedder.embed([texts[row] for row in left])).vectors
                except DecodeError as error:
                    vectors = np.full((len(left), 4), np.nan) if error.partial is None else error.partial.vectors
                known = ~np.isnan(vectors).any(axis=1)
                assert np.array_equal(vectors[known], expected([texts[row] for row in left])[known])
                left = [row for row, done in zip(left, known, strict=True) if not done]

        assert left == []
        assert rounds > 1
        assert sum(chaos.done[fault] > 0 for fault in BROKEN) >= 3


async def test_small_calls_through_a_storm():
    """Callers that share requests: each gets its own vector or its own error, those that give up harm nobody."""
    texts, bad = texts_of(2_400, bad=4)
    gave_up, errors = set(), {}

    async def caller(row):
        if row % 50 == 7:
            with anyio.move_on_after(0.001 * (row % 9)) as scope:
                await embedder.embed_query(texts[row])
            if scope.cancelled_caught:
                gave_up.add(row)
            return
        try:
            vectors[row] = await embedder.embed_query(texts[row])
        except InvalidInputError as error:
            errors[row] = error

    vectors = np.full((len(texts), 4), np.nan, np.float32)
    async with nothing_left(), serving(Chaos(5, share=0.15)) as chaos:
        async with connected(chaos, coalesce=True, limits=Limits(max_texts=16)) as embedder:
            rows = list(range(len(texts)))
            for start in range(0, len(rows), 400):
                await asyncio.gather(*map(caller, rows[start : start + 400]))

        waited = [row for row in rows if row % 50 != 7]
        good = [row for row in waited if row not in bad]
        assert np.array_equal(vectors[good], expected([texts[row] for row in good]))
        assert set(errors) == bad & set(waited)
        assert all(error.rows == (0,) for error in errors.values())
        assert gave_up
        assert chaos.requests < len(waited) / 4
        assert sum(chaos.done[fault] > 0 for fault in CURED) >= 4


async def test_hedged_requests_through_a_storm():
    """Late requests sent twice: no row is lost or doubled, and every request is counted."""
    texts, bad = texts_of(9_600, bad=2)
    async with nothing_left(), serving(Chaos(9, share=0.1, stalls=6)) as chaos:
        async with connected(chaos, hedge=0.5) as embedder:
            result = await embedder.embed(texts, on_error="skip")

        check(texts, result.vectors, result.failures, bad)
        happened(chaos, "stall", "reset", "trickle")
        assert result.usage.requests >= 9_600 / 64


async def test_a_pool_through_a_storm():
    """Three endpoints, each broken in its own way, one with bad
    replies, one dead from the middle on: nothing is lost.
    """
    texts, bad = texts_of(12_800, bad=3)
    async with (
        nothing_left(),
        serving(Chaos(21, share=0.03)) as one,
        serving(Chaos(22, share=0.03, faults=(*BROKEN, "shuffled"))) as two,
        serving(Chaos(23, share=0.03, stalls=1)) as three,
    ):
        async with connected(one, two, three, coalesce=True) as embedder:
            result = await embedder.embed(texts[:6_400], on_error="skip")
            three.share, three.faults = 1.0, ("reset",)
            rest = await embedder.embed(texts[6_400:], on_error="skip")

        check(texts[:6_400], result.vectors, result.failures, {row for row in bad if row < 6_400})
        check(texts[6_400:], rest.vectors, rest.failures, {row - 6_400 for row in bad if row >= 6_400})
        for each in (one, two):
            assert each.asked


async def test_a_stream_through_a_storm():
    """Parts in order, each right, whatever happens to their requests; a source that is read as it goes."""
    texts, bad = texts_of(9_600, bad=2)
    rows = []
    async with nothing_left(), serving(Chaos(31, share=0.15)) as chaos:
        async with connected(chaos) as embedder, embedder.stream(iter(texts), on_error="skip") as parts:
            async for part in parts:
                assert part.start == len(rows)
                rows += part.vectors.tolist()
                assert {part.start + row for row in part.failures} == {
                    row for row in bad if part.start <= row < len(rows)
                }

        good = [row for row in range(len(texts)) if row not in bad]
        assert np.array_equal(np.array(rows)[good], expected([texts[row] for row in good]))
        happened(chaos, "reset", "cut off")


async def test_the_sync_wrapper_through_a_storm():
    """From a thread without a loop: calls and streams alike, over a loop that is not the server's."""
    texts, bad = texts_of(6_400, bad=2)

    def calls(chaos):
        with embedkit.SyncEmbedder(connected(chaos)) as embedder:
            whole = embedder.embed(texts, on_error="skip")
            parts = list(embedder.stream(texts, on_error="skip"))
        return whole, np.concatenate([part.vectors for part in parts])

    async with serving(Chaos(41, share=0.15)) as chaos:
        whole, streamed = await asyncio.to_thread(calls, chaos)

        check(texts, whole.vectors, whole.failures, bad)
        assert np.array_equal(whole.vectors, streamed, equal_nan=True)
        happened(chaos, "reset", "shuffled")


@pytest.mark.parametrize("keywords", [{}, {"coalesce": True}, {"hedge": 1.0}], ids=["plain", "coalesce", "hedge"])
async def test_leaving_in_the_middle_of_a_storm(keywords):
    """Cancelled, closed or broken off at any moment, nothing goes on: no task, no socket."""
    texts, _ = texts_of(3_200)
    for moment in (0.0, 0.005, 0.02, 0.05):
        async with (
            nothing_left(),
            serving(Chaos(51, share=0.3, stalls=2)) as chaos,
            connected(chaos, **keywords) as embedder,
        ):
            with anyio.move_on_after(moment):
                await asyncio.gather(embedder.embed(texts), *(embedder.embed_query(text) for text in texts[:100]))
            with contextlib.suppress(EmbedkitError):
                async for _ in embedder.stream(texts):
                    break


# --- without a storm: what finding a bad text costs ------------------------------------------------------------------


@pytest.mark.parametrize("size", [64, 256, 2048])
@pytest.mark.parametrize("place", [0, 4_321, 9_999])
async def test_one_bad_text_among_ten_thousand_over_http(size, place):
    """With as many requests in flight as the default allows, one
    bad text is found within 2 log2(batch) + 2 extra requests.
    """
    texts = [f"{'bad' if row == place else 'text'} {row}" for row in range(10_000)]
    async with serving(Chaos(1, share=0.0)) as chaos, connected(chaos, limits=Limits(max_texts=size)) as embedder:
        result = await embedder.embed(texts, on_error="skip")
        extra = chaos.requests - math.ceil(10_000 / size)

        check(texts, result.vectors, result.failures, {place})
        assert result.usage.requests == chaos.requests
        assert extra <= 2 * math.log2(size) + 2


@pytest.mark.parametrize("count", [1, 100, 10_000])
@pytest.mark.parametrize(
    "keywords",
    [{}, {"coalesce": True}, {"hedge": True}, {"long_text": "mean"}],
    ids=lambda each: next(iter(each), "plain"),
)
async def test_a_refused_request_over_http_stops_early(count, keywords):
    """A refusal of everything (no such dimensions) is raised after as
    many requests as were in flight, and a handful: however many texts.
    """
    texts, _ = texts_of(count)
    async with serving(Chaos(1, share=0.0)) as chaos, connected(chaos, dimensions=3, **keywords) as embedder:
        with pytest.raises(InvalidInputError, match="no dimensions") as caught:
            await embedder.embed(texts)

        assert caught.value.rows == ()
        assert caught.value.partial is None
        assert chaos.requests <= 8 + 3
