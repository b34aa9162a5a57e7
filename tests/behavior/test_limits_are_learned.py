"""What one request may hold, learned end to end: from the words
of a refusal, from refusals without a figure, and from lateness.
"""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest

import embedkit
from embedkit import Embeddings, Limits, RetryPolicy, TooLargeError, TransportTimeoutError
from embedkit._batching.dispatch import MAX_LATE_SPLITS
from embedkit.events import BatchSplit
from embedkit.testing import FakeExchange, response

pytestmark = pytest.mark.anyio
WIDE = Limits(max_texts=5000)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


class Server(FakeExchange):
    """Embeds a number as itself; refuses, with this answer, batches that `allows` finds too large."""

    def __init__(self, allows, refusal):
        super().__init__(self.answer)
        self.allows = allows
        self.refusal = refusal
        self.refused = []

    def answer(self, request):
        texts = json.loads(request.body)["input"]
        if not self.allows(texts):
            self.refused.append(len(texts))
            return copy.copy(self.refusal)
        return {
            "data": [
                {"index": row, "embedding": [float(text) if text.isdigit() else 0.5, 1.0]}
                for row, text in enumerate(texts)
            ]
        }

    @property
    def sizes(self):
        return [len(body["input"]) for body in self.bodies]


def connected(server, **settings):
    given = {"limits": WIDE, "max_concurrency": 1, "retry": RetryPolicy(initial=0.0), **settings}
    return embedkit.connect("compatible:m", base_url="http://h/v1", exchange=server, **given)


def numbers(count, start=0):
    return [f"{number:07}" for number in range(start, start + count)]


def right(result, start=0):
    """Whether row i holds number i."""
    return np.array_equal(result.vectors[:, 0], np.arange(start, start + len(result)))


# Who names how many texts a request may hold: (status, body, figure), in the words of
# Cohere, TEI, Gemini, Vertex, DashScope, Jina, Perplexity and FastAPI's validation.
TEXTS = [
    (400, {"message": "invalid request: total number of texts must be at most 96 - received 104"}, 96),
    (422, {"error": "batch size 33 > maximum allowed batch size 32", "error_type": "Validation"}, 32),
    (422, {"message": "batch size 33 > maximum allowed batch size 32", "code": 422, "type": "Validation"}, 32),
    (413, {"error": "batch size 33 > maximum allowed batch size 32", "error_type": "Validation"}, 32),
    (400, {"error": {"code": 400,
       "message": "* BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch",
       "status": "INVALID_ARGUMENT"}}, 100),
    (400, {"error": {"code": 400, "message": "250 instance(s) is allowed per prediction. Actual: 512",
       "status": "INVALID_ARGUMENT"}}, 250),
    (400, {"error": {"code": "InvalidParameter",
       "message": "<400> InternalError.Algo.InvalidParameter: Value error, batch size is invalid, it should not be larger than 10.: input.contents"}}, 10),
    (422, {"detail": "Validation error: 'body -> jina-embeddings-v4' Each input list can contain at most 512 items"},
     512),
    (422, {"detail": "input length is larger than the largest allowed size 2048"}, 2048),
    (422, {"detail": [{"loc": ["body", "input"],
        "msg": "List should have at most 2048 items after validation, not 2049", "type": "too_long"}]}, 2048),
]  # fmt: skip
# And how many tokens.
TOKENS = [
    (400, {"error": {"message": "Requested 416735 tokens, max 300000 tokens per request",
       "type": "max_tokens_per_request", "param": None, "code": "max_tokens_per_request"}}, 300_000),
    (400, {"detail": "Request to model 'voyage-4-large' failed. The max allowed tokens per submitted batch is 120000. Your batch has 126899 tokens after truncation. Please lower the number of tokens in the batch."}, 120_000),
    (400, {"object": "error", "message": "Too many tokens in batch. Max is 16384 got 17555",
      "type": "invalid_request_prompt", "code": "3210"}, 16_384),
    (429, {"error": {"message": "Request too large for text-embedding-3-small on tokens per min (TPM): Limit 30000, Requested 31538.", "type": "tokens", "code": "rate_limit_exceeded"}}, 30_000),
]  # fmt: skip


# --- figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "body", "figure"), TEXTS)
async def test_a_limit_of_texts_is_learned_from_its_words(status, body, figure):
    """One refusal, and everything that follows comes in batches of just that size; the next call begins with it."""
    server = Server(lambda texts: len(texts) <= figure, response(body, status))
    embedder = connected(server)
    count = 2 * figure + 3
    first = await embedder.embed(numbers(count))
    second = await embedder.embed(numbers(count, 10**6))

    assert right(first)
    assert right(second, 10**6)
    assert server.refused == [count]
    assert server.sizes == [count, *[figure, figure, 3] * 2]
    assert (first.usage.requests, second.usage.requests) == (4, 3)


@pytest.mark.parametrize(("status", "body", "figure"), TOKENS)
async def test_a_limit_of_tokens_is_learned_from_its_words(status, body, figure):
    """The same for tokens, where they are counted as the provider does."""
    each = figure // 4 - 10

    def tokens(text):
        return each

    server = Server(lambda texts: len(texts) * each <= figure, response(body, status))
    embedder = connected(server, count_tokens=tokens)
    result = await embedder.embed(numbers(10))
    await embedder.embed(numbers(5))

    assert right(result)
    assert server.sizes == [10, 4, 4, 2, 4, 1]


async def test_estimates_that_are_too_low_are_kept_away_from_the_limit():
    """Where the estimate finds that the batch had been within the
    limit, later ones stay further away, until none is refused.
    """
    server = Server(lambda texts: sum(map(len, texts)) <= 16_384, response(TOKENS[2][1], 400))  # a token a character
    embedder = connected(server)
    first = await embedder.embed(numbers(6000))
    refused = len(server.refused)
    await embedder.embed(numbers(6000))

    assert right(first)
    assert 2 <= refused <= 6
    assert len(server.refused) == refused  # nothing more to learn
    assert max(size for size in server.sizes if size not in server.refused) * 7 > 16_384 / 2  # and not much too careful


async def test_what_is_on_its_way_already_is_cut_too():
    """With many requests in flight each learns on its own, at most once, and nothing too large follows."""
    server = Server(lambda texts: len(texts) <= 32, response(TEXTS[1][1], 422))
    embedder = connected(server, limits=Limits(max_texts=100), max_concurrency=8)
    result = await embedder.embed(numbers(1600))

    assert right(result)
    assert len(server.refused) <= 8
    assert [size for size in server.sizes if size > 32] == server.refused == [100] * len(server.refused)


async def test_a_stream_learns():
    """The parts of a stream that are yet to be read keep within what was learned."""
    server = Server(lambda texts: len(texts) <= 32, response(TEXTS[1][1], 422))
    async with connected(server, limits=Limits(max_texts=100)).stream(numbers(500)) as stream:
        parts = [part async for part in stream]

    assert np.array_equal(np.concatenate([part.vectors for part in parts])[:, 0], np.arange(500))
    assert len(server.refused) <= 2
    assert max(server.sizes[4:]) <= 32


async def test_a_figure_that_is_no_help_ends_nowhere():
    """A figure above what was refused teaches nothing: the batch is halved, and halved again."""
    server = Server(lambda texts: len(texts) <= 10, response(TEXTS[0][1], 400))  # says 96, means 10
    result = await connected(server).embed(numbers(40))

    assert right(result)
    assert server.sizes == [40, 20, 10, 10, 20, 10, 10]


async def test_a_refusal_without_a_figure_is_halved():
    """Nothing is learned where nothing is said."""
    refusal = response({"message": "Too many inputs in request, split into more batches.", "code": "3210"}, 400)
    server = Server(lambda texts: len(texts) <= 8, refusal)
    embedder = connected(server)

    assert right(await embedder.embed(numbers(16)))
    assert right(await embedder.embed(numbers(16)))
    assert server.sizes == [16, 8, 8] * 2


async def test_the_callers_own_limit_stays():
    """What is learned never widens what the caller gave."""
    server = Server(lambda texts: len(texts) <= 3, response(TEXTS[1][1], 422))  # says 32
    embedder = connected(server, limits=Limits(max_texts=5))
    await embedder.embed(numbers(10))
    server.allows = lambda texts: True
    await embedder.embed(numbers(10))

    assert server.sizes[-2:] == [5, 5]
    assert embedder.limits == Limits(max_texts=5)


async def test_a_copy_learns_for_itself():
    """A copy, like a pickle, carries the configuration and not what was learned."""
    server = Server(lambda texts: len(texts) <= 32, response(TEXTS[1][1], 422))
    embedder = connected(server)
    await embedder.embed(numbers(64))
    await copy.copy(embedder).embed(numbers(64))

    assert server.sizes == [64, 32, 32] * 2


async def test_a_custom_embedder_may_name_its_limit():
    """`embed_batch` raises a TooLargeError with a figure: batches to come keep within it."""

    class Mine(embedkit.Embedder):
        def __init__(self):
            self.sizes = []

        async def embed_batch(self, texts, options):
            self.sizes.append(len(texts))
            if len(texts) > 7:
                error = TooLargeError("at most seven")
                error.max_texts = 7
                raise error
            return Embeddings(np.ones((len(texts), 2)), "mine")

    mine = Mine()
    await mine.embed(numbers(20))
    await mine.embed(numbers(7))

    assert mine.sizes == [20, 7, 7, 6, 7]


async def test_a_split_is_told_once():
    """The observer hears of the one batch that was refused, with its size and its error."""
    events = []
    server = Server(lambda texts: len(texts) <= 32, response(TEXTS[1][1], 422))
    await connected(server, observe=events.append).embed(numbers(100))
    (split,) = [event for event in events if isinstance(event, BatchSplit)]

    assert (split.texts, split.error.max_texts) == (100, 32)


# --- lateness --------------------------------------------------------------------------------------------------------


def late(*, sent=True):
    error = TransportTimeoutError("no answer within 60 s")
    error.sent = sent
    return error


@pytest.mark.parametrize("halvings", range(1, MAX_LATE_SPLITS + 1))
async def test_a_late_batch_comes_back_smaller(halvings):
    """A batch that was not answered in time is halved, and again, up to so many times; every row is right."""
    server = Server(lambda texts: len(texts) <= 64 >> halvings, late())
    result = await connected(server).embed(numbers(64))

    assert right(result)
    assert server.sizes.count(64 >> halvings) == 2**halvings
    assert len(server.refused) == 2**halvings - 1


async def test_a_batch_that_is_always_late_is_given_up():
    """Where a known-good text is late like the one that is left,
    the timeout is raised, with what was embedded before.
    """
    server = Server(lambda texts: not {"0000063", "hello"} & set(texts), late())
    with pytest.raises(TransportTimeoutError) as caught:
        await connected(server, limits=Limits(max_texts=32), retry=RetryPolicy(attempts=1)).embed(
            numbers(64), on_error="skip"
        )

    assert server.sizes == [32, 32, 16, 16, 8, 8, 4, 4, 2, 2, 1, 1, 1]
    assert np.isnan(caught.value.partial.vectors[:, 0]).sum() == 1


async def test_one_text_that_is_always_late_costs_its_row():
    """The batch is halved down to it, with one known-good text on the way; alone it has the policy's tries."""
    server = Server(lambda texts: "0000063" not in texts, late())
    result = await connected(server, limits=Limits(max_texts=32), retry=RetryPolicy(attempts=2, initial=0)).embed(
        numbers(64), on_error="skip"
    )

    assert list(result.failures) == [63]
    assert isinstance(result.failures[63], TransportTimeoutError)
    assert np.array_equal(result.vectors[:63, 0], np.arange(63))
    assert server.sizes == [32, 32, 16, 16, 8, 8, 4, 4, 2, 2, 1, 1, 1, 1]


async def test_only_what_was_late_comes_back_smaller():
    """Other batches keep their size; nothing is learned from one that was late."""
    server = Server(lambda texts: len(texts) < 32 or "0000040" not in texts, late())
    embedder = connected(server, limits=Limits(max_texts=32))

    assert right(await embedder.embed(numbers(96)))
    assert server.sizes == [32, 32, 16, 16, 32]


async def test_a_connection_that_never_came_about_is_tried_again_whole():
    """Nothing was sent, so less would not help: the same batch goes out again."""
    server = FakeExchange([late(sent=False), {"data": [{"embedding": [float(row), 1.0]} for row in range(8)]}])

    assert right(await connected(server).embed(numbers(8)))
    assert [len(body["input"]) for body in server.bodies] == [8, 8]


async def test_a_single_text_is_tried_again():
    """One text cannot come back smaller: it is retried by the policy, and given up by it."""
    server = Server(lambda texts: len(server.refused) >= 2, late())

    assert right(await connected(server).embed(numbers(1)))
    assert server.sizes == [1, 1, 1]

    server = Server(lambda texts: False, late())
    with pytest.raises(TransportTimeoutError):
        await connected(server, retry=RetryPolicy(attempts=3, initial=0.0)).embed(numbers(1))

    assert server.sizes == [1, 1, 1]


async def test_a_timeout_that_is_final_is_not_halved():
    """The deadline of a request is over: no smaller request follows."""
    error = TransportTimeoutError("no response within the deadline", retryable=False)
    server = Server(lambda texts: False, error)
    with pytest.raises(TransportTimeoutError):
        await connected(server).embed(numbers(8))

    assert server.sizes == [8]


async def test_lateness_leaves_fewer_in_flight():
    """Whatever was late had too much beside it, or was too large: the window is halved as well."""
    server = Server(lambda texts: len(texts) < 16, late())
    embedder = connected(server, limits=Limits(max_texts=16), max_concurrency=16)
    await embedder.embed(numbers(16))

    assert embedder.window == 8
    assert server.sizes == [16, 8, 8]
    assert math.isinf(embedder._transport().limiter.window._wall)
