"""Batches within a quota of tokens per minute, in virtual time: told, reported in headers, named by a refusal, or
found.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import time

import numpy as np
import pytest

import embedkit
from benchmarks.virtual import now, run
from embedkit import Limits, QuotaError, Rate, RateLimitError, RetryPolicy, TooLongError
from embedkit._batching.plan import estimate
from embedkit._traffic.quota import Quota
from embedkit.codec.error_mapping import error_from_response
from embedkit.errors import TooLargeError
from embedkit.testing import FakeExchange, response

QUOTA = 10_000  # tokens a minute
EACH = 1_000  # tokens of a text
TPM = "on tokens per min (TPM)"
WORDS = "Rate limit reached " + TPM + ": Limit {limit}, Used {used}, Requested {asked}."
COMMAS = "Rate limit reached " + TPM + ": limit {limit:,}, used {used:,}, requested {asked:,}."


def text_of(number, tokens=EACH):
    """A text that begins with its number and has so many words, which are its tokens."""
    return " ".join([f"{number:05}", *["word"] * (tokens - 1)])


def counted(text):
    return len(text.split())


class Endpoint(FakeExchange):
    """A token bucket of QUOTA that is full at first, and refills in a minute.

    `says`: how a refusal is worded, of {limit}, {used}, {asked}. `retry_after`: a Retry-After. `heads`: x-ratelimit
    headers: "limit" or "all".
    """

    def __init__(self, says="Rate limit reached " + TPM, *, hint=True, heads="", usage=True, quota=QUOTA):
        super().__init__(self.answer)
        self.says, self.hint, self.heads, self.usage, self.quota = says, hint, heads, usage, quota
        self.level, self.stamp = float(quota), 0.0
        self.granted, self.refused = [], []
        self.number = lambda text: float(text[:5])

    async def answer(self, request):
        texts = json.loads(request.body)["input"]
        cost = sum(map(counted, texts))
        self.level = min(self.quota, self.level + (now() - self.stamp) * self.quota / 60)
        self.stamp = now()
        if cost > self.level:
            self.refused.append(cost)
            wait = math.ceil((cost - self.level) * 60 / self.quota)
            used = int(self.quota - self.level)
            words = self.says.format(limit=self.quota, used=used, asked=cost)
            body = {
                "error": {
                    "message": words,
                    "type": "tokens" if "TPM" in words else "requests",
                    "code": "rate_limit_exceeded",
                }
            }
            return response(body, 429, {**self.headers(), **({"retry-after": str(wait)} if self.hint else {})})
        self.level -= cost
        self.granted.append((now(), cost, len(texts)))
        rows = [{"index": row, "embedding": [self.number(text), 1.0]} for row, text in enumerate(texts)]
        usage = {"usage": {"prompt_tokens": cost, "total_tokens": cost}} if self.usage else {}
        return response({"data": rows, "model": "m", **usage}, 200, self.headers())

    def headers(self):
        if not self.heads:
            return {}
        left = {"x-ratelimit-limit-tokens": str(self.quota)}
        if self.heads == "all":
            left["x-ratelimit-remaining-tokens"] = str(int(self.level))
            left["x-ratelimit-reset-tokens"] = f"{(self.quota - self.level) * 60 / self.quota:.3f}s"
        return left


def connected(endpoint, **settings):
    """An embedder whose clock is that of the virtual loop, in batches of 20."""
    given = {"limits": Limits(max_texts=20), "max_concurrency": 4, **settings}
    embedder = embedkit.connect("compatible:m", base_url="http://h/v1", exchange=endpoint, **given)
    members = getattr(embedder, "_embedders", None) or [getattr(embedder, "inner", embedder)]
    for each in [embedder, *members]:
        if hasattr(each, "_clock"):
            each._clock = lambda: now() + 1e-9  # timers of the loop are so much too early
    return embedder


def right(vectors, count):
    return np.array_equal(vectors[:, 0], np.arange(count))


WAYS = {
    "words with figures": ({"says": WORDS}, {}),
    "figures with commas": ({"says": COMMAS}, {}),
    "a limit, nothing asked": ({"says": "Rate limit reached " + TPM + ": Limit {limit} / min."}, {}),
    "Voyage": ({"says": "You have reduced rate limits of 3 RPM and 10K TPM."}, {}),
    "the word only": ({}, {}),
    "the word only, no hint": ({"hint": False}, {"retry": RetryPolicy(attempts=12)}),
    "a header": ({"says": "Too many requests", "heads": "limit"}, {}),
    "all headers": ({"says": "Too many requests", "heads": "all"}, {}),
    "told": ({"says": "Too many requests"}, {"rate": Rate(tokens_per_minute=QUOTA)}),
    "told, counted": ({"says": "Too many requests"}, {"rate": Rate(tokens_per_minute=QUOTA), "count_tokens": counted}),
    "told, and refused in words": ({}, {"rate": Rate(tokens_per_minute=QUOTA)}),
    "told, no usage": ({"usage": False}, {"rate": Rate(tokens_per_minute=QUOTA)}),
    "told, counted far too low": (
        {}, {"rate": Rate(tokens_per_minute=QUOTA), "count_tokens": lambda text: 1 + counted(text) // 2},
    ),
    "counted far too low, no figure": ({}, {"count_tokens": lambda text: 1 + counted(text) // 2}),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_every_text_is_embedded_in_the_time_of_the_quota(way):
    """Whatever is known of it: batches that fit, few refusals, about as fast as the quota allows."""
    serves, settings = WAYS[way]
    endpoint, count = Endpoint(**serves), 60

    async def main():
        embedder = connected(endpoint, **settings)
        result = await embedder.embed([text_of(number) for number in range(count)])
        return result, now()

    result, seconds = run(main())
    assert right(result.vectors, count)
    assert max(cost for _, cost, _ in endpoint.granted) <= QUOTA
    ideal = (count * EACH - QUOTA) / QUOTA * 60
    # Found out of the server's waits alone, a limit takes a few of them.
    slack = 3.5 if "too low" in way else 2.5 if "figure" in way or "word" in way or "usage" in way else 1.6
    assert seconds <= slack * ideal + 60, (seconds, endpoint.refused)
    assert len(endpoint.refused) <= 24, endpoint.refused


@pytest.mark.parametrize("way", ["words with figures", "a header", "told", "the word only"])
@pytest.mark.parametrize("shape", ["stream", "pool", "coalesce"])
def test_in_every_kind_of_call(way, shape):
    """Streams, pools and shared requests are bounded alike."""
    serves, settings = WAYS[way]
    endpoint, count = Endpoint(**serves), 40
    more = {"pool": {"api_key": ["a", "b"]}, "coalesce": {"coalesce": True}, "stream": {}}[shape]

    async def main():
        embedder = connected(endpoint, retry=RetryPolicy(attempts=20, deadline=None), **{**settings, **more})
        texts = [text_of(number) for number in range(count)]
        if shape == "stream":
            return np.concatenate([part.vectors async for part in embedder.stream(texts)])
        if shape == "coalesce":
            import asyncio

            made = await asyncio.gather(*(embedder.embed(texts[start : start + 8]) for start in range(0, count, 8)))
            return np.concatenate([each.vectors for each in made])
        return (await embedder.embed(texts)).vectors

    assert right(run(main()), count)
    assert max(cost for _, cost, _ in endpoint.granted) <= QUOTA


# --- one text beyond it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_lone_text_beyond_it_is_an_error_at_once(on_error):
    """Where tokens are counted: nothing is sent for it, the message says why and which row, the others are embedded."""
    endpoint = Endpoint()
    texts = [text_of(0), text_of(1, QUOTA + 1), text_of(2)]

    async def main():
        embedder = connected(endpoint, rate=Rate(tokens_per_minute=QUOTA), count_tokens=counted)
        return await embedder.embed(texts, on_error=on_error)

    if on_error == "raise":
        with pytest.raises(TooLongError, match=r"10001 tokens, and the quota .* at most 10000") as caught:
            run(main())
        assert caught.value.rows == (1,)
        assert not caught.value.retryable
    else:
        result = run(main())
        assert list(result.failures) == [1]
        assert result.vectors[[0, 2], 0].tolist() == [0, 2]
    assert all(cost <= QUOTA for _, cost, _ in endpoint.granted)
    assert not endpoint.refused


def test_where_tokens_are_only_estimated_it_is_sent_alone():
    """The estimate of English is a third too high: a text that passes is not refused here, and does not wait longer
    than a full quota.
    """
    endpoint = Endpoint()
    text = text_of(0, 9_900)
    assert estimate(text) > QUOTA

    async def main():
        embedder = connected(endpoint, rate=Rate(tokens_per_minute=QUOTA))
        assert right((await embedder.embed([text])).vectors, 1)
        return now()

    seconds = run(main())
    assert seconds <= 61


@pytest.mark.parametrize("says", [WORDS, COMMAS])
def test_the_server_may_say_it_of_a_lone_text(says):
    """Then that is its error, with the server's words, and it is not asked six times."""
    endpoint = Endpoint(says)

    async def main():
        return await connected(endpoint).embed([text_of(0), text_of(1, 12_000), text_of(2)], on_error="skip")

    result = run(main())
    assert list(result.failures) == [1]
    assert "12" in str(result.failures[1])
    assert len(endpoint.refused) <= 4


def test_the_way_out_of_the_message_leads_out():
    """A text cut into pieces that the quota passes."""
    endpoint = Endpoint()

    async def main():
        most = Limits(max_texts=20, max_text_tokens=QUOTA // 2)
        embedder = connected(
            endpoint, rate=Rate(tokens_per_minute=QUOTA), count_tokens=counted, long_text="mean", limits=most, retry=RetryPolicy(deadline=None)
        )  # fmt: skip
        return (await embedder.embed([text_of(0, QUOTA + 1)])).vectors.shape

    endpoint.number = lambda text: 0.0
    assert run(main()) == (1, 2)


# --- what is no such refusal -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "says",
    [
        "Rate limit reached on requests per min (RPM): Limit 3, Used 3, Requested 1.",
        "Too many requests",
        "Model is overloaded",
    ],
)
def test_other_refusals_split_nothing(says):
    """Too many requests, or a refusal that says nothing: the batch stays whole, and waits."""
    refusals = 4
    sizes = []

    async def answer(request):
        texts = json.loads(request.body)["input"]
        sizes.append(len(texts))
        if len(sizes) <= refusals:
            return response({"error": {"message": says, "type": "requests"}}, 429, {"retry-after": "1"})
        return response(
            {"data": [{"index": row, "embedding": [float(text[:5]), 1.0]} for row, text in enumerate(texts)]}
        )

    async def main():
        return await connected(FakeExchange(answer)).embed([text_of(number) for number in range(20)])

    assert right(run(main()).vectors, 20)
    assert sizes == [20] * (refusals + 1)


def test_a_batch_no_larger_than_one_that_passed_is_not_split():
    """Another process uses the quota up: what passed before passes again, so it waits."""
    sizes, answers = [], iter(["ok", *["no"] * 5, "ok"])

    async def answer(request):
        texts = json.loads(request.body)["input"]
        sizes.append(len(texts))
        if next(answers) == "no":
            return response(
                {"error": {"message": "Rate limit reached " + TPM, "type": "tokens"}}, 429, {"retry-after": "1"}
            )
        rows = [{"index": row, "embedding": [float(text[:5]), 1.0]} for row, text in enumerate(texts)]
        return response({"data": rows}, 200, {"x-ratelimit-limit-tokens": "1000000"})

    async def main():
        embedder = connected(FakeExchange(answer), count_tokens=counted, rate=Rate(tokens_per_minute=1e9))
        await embedder.embed([text_of(number) for number in range(20)])
        await embedder.embed([text_of(number) for number in range(20)])

    run(main())
    assert sizes == [20] * 7


def test_who_gives_up_sooner_hears_of_the_rate_limit():
    """Fewer tries than it takes to tell: the RateLimitError, as before."""

    async def main():
        embedder = connected(Endpoint(), retry=RetryPolicy(attempts=2))
        await embedder.embed([text_of(number) for number in range(20)])

    with pytest.raises(RateLimitError):
        run(main())


@pytest.mark.parametrize("limit", ["0", "-1", "", "unlimited", "1e9", "9" * 400, "nan"])
def test_an_absurd_limit_bounds_nothing(limit):
    """What is no number of tokens is not taken for one."""

    async def answer(request):
        texts = json.loads(request.body)["input"]
        rows = [{"index": row, "embedding": [float(text[:5]), 1.0]} for row, text in enumerate(texts)]
        return response({"data": rows}, 200, {"x-ratelimit-limit-tokens": limit, "x-ratelimit-remaining-tokens": "5"})

    async def main():
        embedder = connected(FakeExchange(answer))
        await embedder.embed(["1"])
        return await embedder.embed([text_of(number) for number in range(40)])

    assert right(run(main()).vectors, 40)


# --- the arithmetic --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "kind", "most"),
    [
        (TPM + ": Limit 10000, Used 9000, Requested 3000", RateLimitError, 10_000),
        (TPM + ": Limit 10,000, Used 9,000, Requested 3,000", RateLimitError, 10_000),
        (TPM + ": Limit: 150000 / min. Current: 160000 / min.", RateLimitError, 150_000),
        (TPM + ": Limit 10000, Requested 12000", TooLargeError, 10_000),
        (TPM + ": limit 10,000, requested 12,000", TooLargeError, 10_000),
        ("rate limits of 3 RPM and 10K TPM", RateLimitError, 10_000),
        ("rate limits of 3 RPM and 1.5M TPM", RateLimitError, 1_500_000),
        ("rate limits of 3 RPM and 16000 TPM", RateLimitError, 16_000),
        ("on requests per min (RPM): Limit 3, Used 3, Requested 1", RateLimitError, None),
        ("token rate limit", RateLimitError, None),
        ("Limit " + "9" * 500 + " " + TPM, RateLimitError, None),
        ("1.2.3M TPM", RateLimitError, None),
    ],
)
def test_what_a_refusal_says_of_a_quota(words, kind, most):
    """The tokens granted, in every spelling seen; of requests none."""
    error = error_from_response(
        response({"error": {"message": words}}, 429), provider="p", model="m", message="", now=time.time()
    )

    assert type(error) is kind
    assert error.max_tokens == most


def test_the_bound_follows_what_is_reported():
    """The strictest of what is told and heard; less where our counts were too low, never more where they were too
    high.
    """
    pace = Quota(Rate(tokens_per_minute=10_000))
    assert (pace.most, pace.most_by_our_count) == (10_000, 10_000)
    for _ in range(50):
        pace.passed(0.0, 1000, 1000, 600)
    assert pace.most_by_our_count == 10_000
    for _ in range(100):
        pace.passed(0.0, 1000, 1000, 2000)
    assert 4900 <= (pace.most_by_our_count or 0) <= 5100
    for _ in range(100):
        pace.passed(0.0, 1000, 1000, 10**9)
    assert pace.most_by_our_count == 2500
    pace.learn(8_000)
    assert pace.most == 8_000
    pace.learn(20_000)
    assert pace.most == 10_000
    pace.learn(0)
    assert pace.most == 10_000
    assert Quota().most is None


# --- what is told is used up -----------------------------------------------------------------------------------------


class Told(FakeExchange):
    """Answers well, and says after the first request that nothing is left, and until when."""

    def __init__(self, **told):
        super().__init__(self.answer)
        self.told = {f"x-ratelimit-{name}-requests": value for name, value in told.items()}
        self.sent = []

    def answer(self, request):
        self.sent.append(now())
        texts = json.loads(request.body)["input"]
        rows = [{"index": row, "embedding": [1.0, 1.0]} for row in range(len(texts))]
        return response({"data": rows}, 200, self.told if len(self.sent) == 1 else {})


async def again(exchange, calls=1, **settings):
    """What comes of further calls, side by side, after a first one."""
    embedder = connected(exchange, **settings)
    await embedder.embed_query("first")

    async def call(number):
        try:
            return await embedder.embed_query(f"text {number}")
        except embedkit.EmbedkitError as error:
            return error

    return await asyncio.gather(*map(call, range(calls)))


def test_a_quota_that_is_back_in_seconds_is_waited_for():
    """Told as a Unix time ten seconds ahead."""
    exchange = Told(remaining="0", reset=f"{time.time() + 10:.0f}")
    found = run(again(exchange, 3))

    assert not any(isinstance(each, Exception) for each in found)
    assert exchange.sent[1:] == pytest.approx([10.0] * 3, abs=1.5)


@pytest.mark.parametrize(
    ("reset", "kind", "says"),
    [
        ("300s", RateLimitError, "300 s"),
        ("8h", QuotaError, "8.0 h"),
        (time.time() + 90_000, QuotaError, r"2[45]\.\d h"),
    ],
)
def test_a_quota_that_is_back_much_later_is_an_error_at_once(reset, kind, says):
    """Nothing is sent and nobody sleeps; the error says how long and why. What is absurd is ignored."""
    exchange = Told(remaining="0", reset=reset if isinstance(reset, str) else f"{reset:.0f}")
    found = run(again(exchange, 5))

    assert {type(each) for each in found} == {kind}
    assert all(re.search(rf"quota of requests is used up for another {says}", str(each)) for each in found)
    assert found[0].provider == "compatible"
    assert found[0].retry_after > 120
    assert len(exchange.sent) == 1


@pytest.mark.parametrize(
    "reset",
    ["", "soon", "-5", "0", "1e400", "99999999999999999999", "2019-01-01T00:00:00Z", "nan", "12345h", "1" * 400],
)
def test_an_absurd_moment_holds_nobody_back(reset):
    """Of the past, of another century, or no moment at all."""
    exchange = Told(remaining="0", reset=reset)
    run(again(exchange, 5))

    assert len(exchange.sent) == 6
    assert exchange.sent[-1] < 1


def test_waiting_behind_our_own_requests_is_no_error():
    """Ten requests at three a minute take more than two minutes, and all are answered."""
    exchange = Told()
    found = run(again(exchange, 10, rate=Rate(requests_per_minute=3)))

    assert not any(isinstance(each, Exception) for each in found)
    assert exchange.sent[-1] > 180
