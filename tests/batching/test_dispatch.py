"""One bad text costs its own row, however it fails its request;
an outage is still an outage; and what both cost in requests.
"""

from __future__ import annotations

import base64
import json
import math
from collections import Counter

import anyio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import embedkit
from embedkit import (
    DecodeError,
    InvalidInputError,
    Limits,
    RetryPolicy,
    ServerError,
    TransportError,
    TransportTimeoutError,
)
from embedkit.testing import FakeExchange, response


@pytest.fixture(scope="module", autouse=True)
def _no_spacing():
    """What is asked, and how often, is tested here; the time
    between two requests that try whether the server is well is not.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embedkit._traffic.retry_budget.FARTHEST", 0.0)
        patch.setattr("embedkit._traffic.retry_budget.APART", 0.0)
        yield


pytestmark = pytest.mark.anyio

EOF_500 = response({"error": 'do embedding request: Post "http://127.0.0.1:39217/embedding": EOF'}, 500)
NAN = base64.b64encode(np.full(3, np.nan, "<f4").tobytes()).decode()

# What happens to a whole request that holds a bad text.
REQUEST_FAILS = {
    "a refusal": (lambda: response({"error": {"message": "one of these is not accepted"}}, 400), InvalidInputError),
    "a failing server": (lambda: response("x", 500), ServerError),
    "a runner that dies": (lambda: EOF_500, ServerError),
    "unavailable": (lambda: response("x", 503), ServerError),
    "a gateway's timeout": (lambda: response("x", 504), ServerError),
    "no answer in time": (lambda: TransportTimeoutError("no answer within 60 s"), TransportTimeoutError),
    "a connection that breaks": (lambda: TransportError("the connection broke"), TransportError),
}  # fmt: skip
# What stands in the place of a bad text's vector in an answer to all of them.
VECTOR_FAILS = {
    "NaN": "[NaN, 0.5, 0.5]", "infinite": "[0.5, Infinity, 0.5]", "beyond a double": "[1e999, 0.5, 0.5]",
    "null": "null",
    "null inside": "[null, 0.5, 0.5]", "all null": "[null, null, null]", "empty": "[]", "an empty text": '""',
    "wider": "[1, 2, 3, 4]",
    "narrower": "[1, 2]", "NaN in base64": f'"{NAN}"', "no base64": '"?"', "half a float": '"AACAPw=="',
    "beyond float32": "[1e39, 0, 0]",
    "left out": None,
}  # fmt: skip


def right(text):
    """The vector of a text."""
    return [float(len(text)), float(sum(map(ord, text)) % 1000), 0.5]


class Server(FakeExchange):
    """Answers an OpenAI-like request; texts that start with "bad" spoil it in one way."""

    def __init__(self, fails=None, spoils=None, numbered=True):
        super().__init__(self.answer)
        self.fails, self.spoils, self.numbered = fails, spoils, numbered
        self.batches = []

    def answer(self, request):
        texts = json.loads(request.body)["input"]
        self.batches.append(texts)
        if self.fails is not None and any(text.startswith("bad") for text in texts):
            return self.fails()
        items = []
        for row, text in enumerate(texts):
            vector = self.spoils if text.startswith("bad") else json.dumps(right(text))
            if vector is not None:
                items.append(
                    f'{{"index": {row}, "embedding": {vector}}}' if self.numbered else f'{{"embedding": {vector}}}'
                )
        return response(f'{{"data": [{",".join(items)}]}}')


def connected(server, *, size=64, attempts=2, **more):
    policy = RetryPolicy(attempts=attempts, initial=0.0)
    given = {"limits": Limits(max_texts=size), "retry": policy, "max_concurrency": 1, **more}
    return embedkit.connect("compatible:m", base_url="http://h/v1", exchange=server, **given)


def texts_of(count, bad):
    return [f"{'bad' if row in bad else 'text'} {row}" for row in range(count)]


def check(texts, result, bad, kind):
    good = [row for row in range(len(texts)) if row not in bad]

    assert list(result.failures) == sorted(bad)
    for row, error in result.failures.items():
        assert isinstance(error, kind)
        assert error.rows == (row,)
    assert np.isnan(result.vectors[sorted(bad)]).all()
    if good:
        assert np.array_equal(result.vectors[good], np.array([right(texts[row]) for row in good], np.float32))


@pytest.mark.parametrize(("fails", "kind"), REQUEST_FAILS.values(), ids=REQUEST_FAILS)
@pytest.mark.parametrize("workers", [1, 4])
async def test_a_text_that_fails_its_request_costs_its_row(fails, kind, workers):
    """100 texts, one of them bad: 99 vectors and a failure of its own kind."""
    texts = texts_of(100, {40})
    result = await connected(Server(fails), max_concurrency=workers).embed(texts, on_error="skip")

    check(texts, result, {40}, kind)


@pytest.mark.parametrize("vector", VECTOR_FAILS.values(), ids=VECTOR_FAILS)
@pytest.mark.parametrize("bad", [{40}, {0}, {99}, {0, 1, 50}])
async def test_a_text_without_a_usable_vector_costs_its_row(vector, bad):
    """The reply says which: no further request finds it (a vector that is left out is asked for once more)."""
    texts, server = texts_of(100, bad), Server(spoils=vector)
    result = await connected(server, size=100).embed(texts, on_error="skip")

    check(texts, result, bad, DecodeError)
    if vector is not None:
        assert len(server.batches) == 1
    elif not bad & {0, 99}:  # where the first or the last is left out, nobody knows which, and the batch is halved
        assert len(server.batches) == 2


@pytest.mark.parametrize("vector", VECTOR_FAILS.values(), ids=VECTOR_FAILS)
async def test_an_unusable_vector_is_named_and_the_others_travel(vector):
    """With "raise" the error names the row, and carries the other vectors."""
    texts = texts_of(100, {40})
    with pytest.raises(DecodeError) as caught:
        await connected(Server(spoils=vector), size=100).embed(texts)

    assert caught.value.rows == (40,)
    assert np.isnan(caught.value.partial.vectors[40]).all()
    good = [row for row in range(100) if row != 40]
    assert np.array_equal(caught.value.partial.vectors[good], np.array([right(texts[row]) for row in good], np.float32))


@pytest.mark.parametrize("numbered", [True, False])
async def test_a_reply_with_too_few_rows(numbered):
    """It is asked for once more; then the rows that its numbers
    leave out fail, and without numbers the batch is halved.
    """
    texts, server = texts_of(64, {40}), Server(spoils=None, numbered=numbered)
    result = await connected(server).embed(texts, on_error="skip")

    check(texts, result, {40}, DecodeError)
    sizes = [len(batch) for batch in server.batches]
    assert sizes[:2] == [64, 64]
    assert len(sizes) == 2 if numbered else len(sizes) <= 2 + 2 * math.log2(64) + 2 + 3


async def test_a_reply_that_is_short_once_is_whole_the_second_time():
    """What was missing comes with the second answer: nothing failed."""
    texts, server = texts_of(8, set()), Server()
    answers = iter([response({"data": [{"index": 0, "embedding": right(texts[0])}]})])
    exchange = FakeExchange(lambda request: next(answers, None) or server.answer(request))
    result = await connected(exchange).embed(texts)

    assert np.array_equal(result.vectors, np.array([right(text) for text in texts], np.float32))
    assert result.usage.requests == 2


# --- what it costs ---------------------------------------------------------------------------------------------------

COSTS = {**REQUEST_FAILS, "a vector left out of a list without numbers": (None, DecodeError)}


@pytest.mark.parametrize(("fails", "kind"), COSTS.values(), ids=COSTS)
@pytest.mark.parametrize("size", [64, 2048])
@pytest.mark.parametrize("place", [0, 4_999, 9_999])
async def test_one_bad_text_in_ten_thousand_is_found_by_halving(fails, kind, size, place, tell):
    """At most 2 log2(n) + 2 requests, besides the tries of the batch, of the text alone and of the known-good one."""
    texts, server = texts_of(10_000, {place}), Server(fails, spoils=None, numbered=False)
    result = await connected(server, size=size, attempts=3).embed(texts, on_error="skip")
    plain = math.ceil(10_000 / size)
    known_good = sum(batch == ["hello"] for batch in server.batches)
    alone = sum(batch == [texts[place]] for batch in server.batches)
    whole = Counter(map(tuple, server.batches)).most_common(1)[0][1] if size > 1 else 0
    pieces = len(server.batches) - plain - known_good - (alone - 1) - (max(whole, alone) - 1 if alone < whole else 0)

    check(texts, result, {place}, kind)
    assert pieces <= 2 * math.log2(size) + 2
    assert alone <= 3
    assert known_good <= 4
    assert result.usage.requests == len(server.batches)
    tell(
        f"one bad of 10,000, batch {size}, {kind.__name__}: {len(server.batches) - plain} extra requests, {known_good} known-good"
    )


@settings(deadline=None, max_examples=150)
@given(
    st.sets(st.integers(0, 199), max_size=12), st.sampled_from(sorted(REQUEST_FAILS)),
    st.sampled_from([1, 3, 16, 64, 200]), st.integers(1, 4)
)  # fmt: skip
async def test_any_set_of_bad_texts(bad, how, size, workers):
    """Each costs its own row and no other, for every kind of failure."""
    fails, kind = REQUEST_FAILS[how]
    texts, server = texts_of(200, bad), Server(fails)
    result = await connected(server, size=size, attempts=1, max_concurrency=workers).embed(texts, on_error="skip")

    check(texts, result, bad, kind)


@pytest.mark.parametrize(("fails", "kind"), REQUEST_FAILS.values(), ids=REQUEST_FAILS)
async def test_with_raise_the_row_is_named(fails, kind):
    """The first bad text found raises its error with its row; what was embedded travels on it."""
    texts = texts_of(64, {40})
    with pytest.raises(kind) as caught:
        await connected(Server(fails)).embed(texts)

    assert caught.value.rows == (40,)
    known = ~np.isnan(caught.value.partial.vectors).any(axis=1)
    assert known.any()
    assert not known[40]


@pytest.mark.parametrize(("fails", "kind"), REQUEST_FAILS.values(), ids=REQUEST_FAILS)
@pytest.mark.parametrize("attempts", [1, 3])
@pytest.mark.parametrize("coalesce", [False, True])
@pytest.mark.parametrize("verb", ["embed", "embed_query"])
async def test_one_lone_text_costs_one_request_per_try(fails, kind, attempts, coalesce, verb):
    """With "raise" nobody else's text is at stake: nothing is asked to find out whose fault it was."""
    server = Server(fails)
    embedder = connected(server, attempts=attempts, coalesce=coalesce)
    with pytest.raises(kind):
        await getattr(embedder, verb)("bad text")

    assert server.batches == [["bad text"]] * (1 if kind is InvalidInputError else attempts)


async def test_one_lone_text_is_named_where_others_have_passed():
    """An embedder that has embedded under the same options knows that the request is accepted, so it is the text."""
    embedder = connected(Server(REQUEST_FAILS["a refusal"][0]))
    with pytest.raises(InvalidInputError) as before:
        await embedder.embed("bad")
    await embedder.embed("good")
    with pytest.raises(InvalidInputError) as after:
        await embedder.embed("bad")

    assert (before.value.rows, after.value.rows) == ((), (0,))


# --- outages ---------------------------------------------------------------------------------------------------------


class Outage(Server):
    """Fails every request from number `first` on."""

    def __init__(self, fails, first):
        super().__init__()
        self.down, self.first = fails, first

    def answer(self, request):
        if len(self.batches) >= self.first:
            self.batches.append(json.loads(request.body)["input"])
            return self.down()
        return super().answer(request)


OUTAGES = {name: each for name, each in REQUEST_FAILS.items() if name != "a refusal"}


@pytest.mark.parametrize(("fails", "kind"), OUTAGES.values(), ids=OUTAGES)
@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("first", [0, 5])
@pytest.mark.parametrize("workers", [1, 4])
async def test_an_outage_is_raised_with_what_is_known(fails, kind, on_error, first, workers):
    """A server that fails everybody costs no text its row: the error comes out, after few requests."""
    texts, server = texts_of(10_000, set()), Outage(fails, first)
    with pytest.raises(kind) as caught:
        await connected(server, attempts=2, max_concurrency=workers).embed(texts, on_error=on_error)

    partial = caught.value.partial
    assert caught.value.rows == ()
    assert (partial is None) == (first == 0)
    if partial is not None:
        assert not partial.failures
        known = ~np.isnan(partial.vectors).any(axis=1)
        assert known.sum() == first * 64
        assert np.array_equal(partial.vectors[known], np.array([right(text) for text in texts], np.float32)[known])
    assert len(server.batches) - first <= 16 * workers


async def test_an_outage_while_a_text_is_looked_for():
    """The server dies for good while the batch is being halved: no row is blamed that was not found before."""

    class Dying(Server):
        def answer(self, request):
            if len(self.batches) >= 6:
                self.batches.append(json.loads(request.body)["input"])
                return response("x", 503)
            return super().answer(request)

    server = Dying(lambda: response("x", 500))
    with pytest.raises(ServerError) as caught:
        await connected(server, attempts=2).embed(texts_of(64, {40}), on_error="skip")

    assert caught.value.status == 503
    assert caught.value.rows == ()
    assert not caught.value.partial.failures
    assert len(server.batches) < 40


@pytest.mark.parametrize("status", [401, 402, 404])
async def test_a_refused_key_is_no_bad_text(status):
    """What no text can cause ends the call at once."""
    server = Outage(lambda: response({"error": {"message": "no"}}, status), 1)
    with pytest.raises(embedkit.ApiError) as caught:
        await connected(server).embed(texts_of(256, set()), on_error="skip")

    assert len(server.batches) == 2
    assert caught.value.partial is not None


async def test_every_vector_unusable():
    """An endpoint whose every vector is NaN, the known-good text's
    too, is broken, and not 64 texts; one that has the good one is not.
    """

    class Broken(Server):
        def answer(self, request):
            self.batches.append(texts := json.loads(request.body)["input"])
            items = ['{"embedding": [NaN, 1]}'] * len(texts)
            return response(f'{{"data": [{",".join(items)}]}}')

    server = Broken()
    with pytest.raises(DecodeError):
        await connected(server).embed(texts_of(64, set()), on_error="skip")
    assert [len(batch) for batch in server.batches] == [64, 1]

    texts = texts_of(64, set(range(64)))
    check(
        texts, await connected(Server(spoils="[NaN, 1, 1]")).embed(texts, on_error="skip"), set(range(64)), DecodeError
    )


async def test_a_stream_goes_on_past_a_bad_text():
    """Its part loses one row, and the parts after it come."""
    texts = texts_of(1000, {40, 777})
    rows, failures = [], []
    async with connected(Server(lambda: EOF_500), max_concurrency=3).stream(iter(texts), on_error="skip") as parts:
        async for part in parts:
            failures += [part.start + row for row in part.failures]
            rows.append(part.vectors)

    assert failures == [40, 777]
    assert len(np.concatenate(rows)) == 1000


def test_the_sync_wrapper_isolates_too():
    """The same from a script."""
    texts = texts_of(100, {40})
    with embedkit.SyncEmbedder(connected(Server(lambda: EOF_500))) as embedder:
        check(texts, embedder.embed(texts, on_error="skip"), {40}, ServerError)


@pytest.mark.parametrize(("fails", "kind"), OUTAGES.values(), ids=OUTAGES)
async def test_a_pool_isolates_too(fails, kind):
    """A text that fails at every endpoint costs its row there as well."""
    texts, server = texts_of(100, {40}), Server(fails)
    embedder = embedkit.connect(
        "compatible:m", base_url=["http://a/v1", "http://b/v1"], exchange=server, limits=Limits(max_texts=64),
        retry=RetryPolicy(attempts=2, initial=0.0), max_concurrency=1,
    )  # fmt: skip
    result = await embedder.embed(texts, on_error="skip")

    check(texts, result, {40}, kind)


# --- widths and parts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("size", [1, 2, 3, 64])
@pytest.mark.parametrize("count", [2, 7])
async def test_a_vector_of_another_width_costs_its_row_wherever_it_stands(count, size, workers):
    """First or last, alone in its batch or one of two: what most
    have, or a known-good text, says which width is right.
    """
    for place in range(count):
        for other in ("[1.0, 2.0]", "[1, 2, 3, 4]"):
            texts = texts_of(count, {place})
            embedder = connected(Server(spoils=other), size=size, max_concurrency=workers)

            check(texts, await embedder.embed(texts, on_error="skip"), {place}, DecodeError)
            with pytest.raises(DecodeError) as caught:
                await connected(Server(spoils=other), size=size, max_concurrency=workers).embed(texts)
            assert caught.value.rows == (place,)


@pytest.mark.parametrize("junk", ['["x", 1, 2]', "[[1.0, 2.0]]", '{"a": 1}', "7", "true", '"?"'])
@pytest.mark.parametrize("size", [1, 64])
async def test_what_is_no_embedding_at_all_costs_its_row(junk, size):
    """Text, lists in lists, objects: the others of its batch are read all the same."""
    texts, server = texts_of(9, {4}), Server(spoils=junk)

    check(texts, await connected(server, size=size).embed(texts, on_error="skip"), {4}, DecodeError)


@pytest.mark.parametrize("size", [1, 64])
async def test_an_error_in_place_of_one_embedding_costs_its_row(size):
    """The server's words stand beside it."""

    def answer(request):
        texts = json.loads(request.body)["input"]
        return {"data": [{"index": row, "error": "cannot embed this"} if text.startswith("bad") else {"index": row,
           "embedding": right(text)}
                         for row, text in enumerate(texts)]}  # fmt: skip

    texts = texts_of(9, {4})
    result = await connected(FakeExchange(answer), size=size).embed(texts, on_error="skip")

    check(texts, result, {4}, DecodeError)


@pytest.mark.parametrize("numbered", [True, False])
async def test_a_null_item_costs_its_row(numbered):
    """Its place is that which the other indices leave out, or where it stands."""

    def answer(request):
        texts = json.loads(request.body)["input"]
        items = [{**({"index": row} if numbered else {}), "embedding": right(text)} for row, text in enumerate(texts)]
        return {"data": [None if text.startswith("bad") else item for text, item in zip(texts, items, strict=True)]}

    texts = texts_of(9, {4})

    check(texts, await connected(FakeExchange(answer)).embed(texts, on_error="skip"), {4}, DecodeError)


async def test_what_is_in_flight_when_a_row_turns_out_unusable_still_comes():
    """It is paid for: with "raise" the error carries it too."""
    texts, server = texts_of(100, {40}), Server(spoils="[NaN, 1, 1]")

    async def answer(request):
        await anyio.sleep(0.01 if b"bad" in request.body else 0.05)
        return server.answer(request)

    with pytest.raises(DecodeError) as caught:
        await connected(FakeExchange(answer), size=32, max_concurrency=8).embed(texts)

    assert caught.value.rows == (40,)
    assert (~np.isnan(caught.value.partial.vectors).any(axis=1)).sum() == 99


async def test_a_bad_text_does_not_put_a_healthy_endpoint_on_leave():
    """Over a pool a text is found about as fast as over one
    endpoint: what is suspected says nothing of who is asked.
    """
    texts, server = texts_of(300, {40, 170, 290}), Server(lambda: response("x", 500))
    embedder = embedkit.connect(
        "compatible:m", base_url=["http://a/v1", "http://b/v1"], exchange=server, limits=Limits(max_texts=64),
        retry=RetryPolicy(attempts=2, initial=0.0)
    )  # fmt: skip
    result = await embedder.embed(texts, on_error="skip")

    check(texts, result, {40, 170, 290}, ServerError)
    assert len(server.batches) < 80
