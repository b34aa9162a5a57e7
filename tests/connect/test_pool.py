"""`embedkit.pool`: several providers of one model, over real sockets and over exchanges."""

from __future__ import annotations

import asyncio
import json
import pickle
import time
from functools import partial
from typing import Any

import numpy as np
import pytest

import embedkit
from embedkit import (
    AuthError,
    ConfigError,
    Embedder,
    Embeddings,
    Limits,
    RetryPolicy,
    ServerError,
    SyncEmbedder,
    Usage,
)
from embedkit._embedders.agreement import TEXTS
from embedkit.cache import Cache
from embedkit.events import AttemptEnded, BatchDone, RequestSent, RetryScheduled
from embedkit.testing import FakeEmbedder, FakeExchange, response
from tests.support.servers.api import Api, vector

pytestmark = pytest.mark.anyio
NOW = RetryPolicy(attempts=6, initial=0.0)
PROBES = set(TEXTS)
unit = FakeEmbedder(8).vector


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


class Provider:
    """What answers for one provider: the vectors of `made`, or an error while `down`."""

    def __init__(self, name, made=unit, model="served", price=None, **settings):
        self.name, self.made, self.model, self.down = name, made, model, None
        self.exchange = FakeExchange(self.answer)
        settings = {"base_url": f"http://{name}/v1", **settings}
        self.embedder = embedkit.connect(f"compatible:{name}", exchange=self.exchange, **settings)
        self.embedder.provider = name
        self.embedder.price = price
        self.tokens = 0

    def answer(self, request):
        if self.down is not None:
            return self.down
        body = json.loads(request.body)
        texts = body["input"]
        if not set(texts) <= PROBES:
            self.tokens += 10 * len(texts)
        width = body.get("dimensions", 8)
        rows = [{"index": row, "embedding": self.made(text)[:width].tolist()} for row, text in enumerate(texts)]
        return response({"data": rows, "model": self.model, "usage": {"prompt_tokens": 10 * len(texts)}})

    @property
    def asked(self):
        """The texts of each request, those for comparison left out."""
        return [body["input"] for body in self.exchange.bodies if not set(body["input"]) <= PROBES]

    @property
    def probes(self):
        return sum(set(body["input"]) <= PROBES for body in self.exchange.bodies)


def pooled(*providers, **settings):
    return embedkit.pool([each.embedder for each in providers], retry=NOW, **settings)


# --- who answers -----------------------------------------------------------------------------------------------------


async def test_every_member_works():
    """A call of many batches is shared by all; each row is the vector of its text."""
    providers = [Provider(name) for name in "abc"]
    texts = [f"text {number}" for number in range(60)]
    embedder = embedkit.pool([each.embedder for each in providers])
    embedder._embedders[0]._own_limits = Limits(max_texts=2)
    result = await embedder.embed(texts)

    assert np.allclose(result.vectors, np.stack([unit(text) for text in texts]))
    assert sorted(text for each in providers for part in each.asked for text in part) == sorted(texts)
    assert all(each.asked for each in providers)
    assert result.model == "served"


async def test_what_one_fails_another_answers():
    """A member that dies costs its request a second try, elsewhere, and no more; it is left out then."""
    first, second = Provider("a", price=1.0), Provider("b", price=2.0)
    embedder = pooled(first, second, prefer="cheapest")
    embedder._clock = lambda: 0.0
    for number in range(4):
        await embedder.embed([f"{number}"])
    first.down = response("no", 500)
    results = [await embedder.embed([f"later {number}"]) for number in range(6)]

    assert [result.usage.requests for result in results] == [3, 1, 1, 1, 1, 1]  # one for the texts to compare
    assert sum(map(len, first.asked)) + sum(map(len, second.asked)) == 11


@pytest.mark.parametrize("status", [401, 402, 404, 429, 503])
async def test_any_failure_of_a_member_is_its_own(status):
    """A wrong key, an empty account, a model that is not there, a rate limit: the others answer."""
    first, second = Provider("a"), Provider("b")
    first.down = response({"error": {"message": "no"}}, status)

    assert (await pooled(first, second).embed(["x"])).vectors.shape == (1, 8)


async def test_where_all_fail_it_is_the_failure_of_one():
    """And its own words come out, under its own name."""
    first, second = Provider("a"), Provider("b")
    first.down = second.down = response({"error": {"message": "bad key"}}, 401)
    with pytest.raises(AuthError, match="bad key") as caught:
        await pooled(first, second).embed(["x"])

    assert caught.value.provider in ("a", "b")


async def test_the_cheapest_comes_first():
    """With `prefer="cheapest"` a dearer one is used only while every cheaper one fails, and the cheaper one again
    after.
    """
    dear, cheap = Provider("dear", price=10.0), Provider("cheap", price=1.0)
    now = 0.0
    embedder = pooled(dear, cheap, prefer="cheapest")
    embedder._clock = lambda: now
    await embedder.embed(["a"])
    cheap.down = response("no", 503)
    await embedder.embed(["b"])
    await embedder.embed(["c"])
    cheap.down, now = None, 60.0
    await embedder.embed(["d"])
    await embedder.embed(["e"])

    assert dear.asked == [["b"], ["c"]]
    assert [cheap.asked[0], *cheap.asked[-2:]] == [["a"], ["d"], ["e"]]


def test_a_dearer_one_helps_where_the_cheapest_is_full():
    """Its places taken, the others are used; it takes all that fit."""

    async def main():
        dear, cheap = Provider("dear", price=10.0, max_concurrency=8), Provider("cheap", price=1.0, max_concurrency=2)
        answers = {each: each.answer for each in (dear, cheap)}

        def slow(each):
            async def answer(request):
                await asyncio.sleep(0.02)
                return answers[each](request)

            return answer

        for each in answers:
            each.exchange._handler = slow(each)
        embedder = pooled(dear, cheap, prefer="cheapest")
        await asyncio.gather(*(embedder.embed([f"{number}"]) for number in range(2)))
        assert (len(cheap.asked), len(dear.asked)) == (2, 0)
        await asyncio.gather(*(embedder.embed([f"more {number}"]) for number in range(6)))
        assert (len(cheap.asked), len(dear.asked)) == (4, 4)

    asyncio.run(main())


# --- what is told of it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prices", [(2.0, 10.0), (2.0, 2.0), (None, None), (2.0, None)])
async def test_the_cost_is_by_the_price_of_whoever_answered(prices):
    """Tokens of each member at its price; None where one that answered has none."""
    providers = [
        Provider(name, price=price, limits=Limits(max_texts=1)) for name, price in zip("ab", prices, strict=True)
    ]
    result = await pooled(*providers).embed([f"{number}" for number in range(20)])
    costs = [each.tokens * price / 1e6 for each, price in zip(providers, prices, strict=True) if price is not None]

    assert all(each.tokens for each in providers)
    assert result.usage.tokens == 200
    assert result.usage.cost == (pytest.approx(sum(costs)) if None not in prices else None)


async def test_events_name_the_member():
    """Attempts, retries and batches carry provider and model of whoever they are about; the call has the number of all."""
    first, second, seen = Provider("a"), Provider("b"), []
    first.down = response("no", 500)
    await pooled(first, second, observe=seen.append).embed(["x"])
    told = {
        kind: [(event.provider, event.model) for event in seen if type(event) is kind]
        for kind in (RequestSent, AttemptEnded, RetryScheduled, BatchDone)
    }

    assert told[RetryScheduled] == [("a", "a")]
    assert told[BatchDone] == [("b", "b")]
    assert set(told[RequestSent]) == set(told[AttemptEnded]) == {("a", "a"), ("b", "b")}
    assert len({event.call for event in seen if event.call}) == 1


async def test_the_limits_are_the_narrowest():
    """No request holds more than any member takes; so with what a text may have, and what is taken for empty."""
    first = Provider("a", limits=Limits(max_texts=2, max_text_tokens=100))
    second = Provider("b", limits=Limits(max_texts=64, max_tokens=50, max_text_tokens=10))
    embedder = pooled(first, second)
    await embedder.embed([f"text {number}" for number in range(9)])

    assert embedder.limits == Limits(max_texts=2, max_tokens=50, max_text_tokens=10)
    assert embedder.most_text_tokens(embedder.options) == 10
    assert max(len(part) for each in (first, second) for part in each.asked) == 2


async def test_extra_is_each_members_own():
    """What one provider wants in its body goes to no other; a call's own goes to all."""
    first, second = Provider("a", extra={"route": "x"}), Provider("b")
    embedder = pooled(first, second)
    for number in range(4):
        await embedder.embed([f"{number}"], extra={"user": "me"})
    await embedder.embed(["last"])

    assert {(body.get("route"), body.get("user")) for body in first.exchange.bodies} <= {("x", "me"), ("x", None)}
    assert {body.get("route") for body in second.exchange.bodies} == {None}
    assert "me" in {body.get("user") for body in second.exchange.bodies}


# --- one model -------------------------------------------------------------------------------------------------------


def turned(text):
    return unit("another " + text)


def narrow(text):
    return unit(text)[:4]


def long(text):
    return 2 * unit(text)


def broken(text):
    return unit(text) * np.nan


OTHERS = {
    "another model": (turned, r"cosines of their vectors of 3 texts are .*at least 0.999"),
    "another width": (narrow, "8 and 4 values per text"),
    "another length": (long, "differ in length by a factor of (2|0.5); normalize=True"),
    "one text of three": (lambda text: turned(text) if text == TEXTS[1] else unit(text), r"cosines .* 1\.0000, -?0\."),
}


@pytest.mark.parametrize("name", OTHERS)
async def test_another_model_is_refused(name):
    """At the first use of a second member, before it has given a vector; the error names both and what differs."""
    made, words = OTHERS[name]
    first, second = Provider("a"), Provider("b", made)
    embedder = pooled(first, second)
    await embedder.embed(["x"])
    with pytest.raises(ConfigError, match=words) as caught:
        await embedder.embed(["y"])

    assert "a:a at http://a/v1" in str(caught.value)
    assert "b:b at http://b/v1" in str(caught.value)
    assert second.asked == []
    assert (await pooled(first, second, verify=False).embed(["x", "y"])).vectors.shape[0] == 2


async def test_the_error_shows_no_key():
    """A key in the query of an address stays out of it."""
    first = Provider("a", base_url="http://a/v1?key=sk-PLANTED-0123456789")
    embedder = pooled(first, Provider("b", turned, base_url="http://b/v1?key=sk-PLANTED-9876543210"))
    await embedder.embed(["x"])
    with pytest.raises(ConfigError, match=r"a:a at http://a/v1 and b:b at http://b/v1 do not") as caught:
        await embedder.embed(["y"])

    assert "PLANTED" not in f"{caught.value} {vars(caught.value)}"


async def test_nearly_the_same_is_the_same():
    """Floats that differ in their last bits are one model, in every dtype."""

    def nearly(text):
        noise = np.random.default_rng(len(text)).standard_normal(8).astype(np.float32)
        return unit(text) + 3e-5 * noise

    for dtype in ("float32", "int8", "uint8", "binary", "ubinary"):
        first, second = Provider("a", dtype=dtype), Provider("b", nearly, dtype=dtype)
        embedder = pooled(first, second)
        for number in range(4):
            await embedder.embed([f"{number}"])
        assert first.asked
        assert second.asked


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "binary", "ubinary"])
async def test_another_model_shows_in_every_dtype(dtype):
    """Rounding hides no other model."""
    embedder = pooled(Provider("a", dtype=dtype), Provider("b", turned, dtype=dtype))
    with pytest.raises(ConfigError, match="do not serve the same model"):
        for number in range(4):
            await embedder.embed([f"{number}"])


async def test_members_are_compared_under_the_options_of_the_call():
    """Each set of options once; a difference that only some options make is found under them."""

    def answer(request):
        body = json.loads(request.body)
        return Provider.answer(second, request) if "dimensions" not in body else whole(request)

    def whole(request):
        texts = json.loads(request.body)["input"]
        rows = [{"index": row, "embedding": unit(text)[-4:].tolist()} for row, text in enumerate(texts)]
        return response({"data": rows})

    first, second = Provider("a", price=1.0), Provider("b", price=2.0)
    second.exchange._handler = answer
    embedder = pooled(first, second, prefer="cheapest")
    embedder._clock = lambda: 0.0
    await embedder.embed(["a"])
    await embedder.embed(["b"], dimensions=4)
    first.down = response("no", 500)
    for number in range(3):
        await embedder.embed([f"{number}"])
    assert (first.probes, second.probes) == (2, 1)
    with pytest.raises(ConfigError, match="cosines"):
        await embedder.embed(["c"], dimensions=4)


def test_many_calls_at_once_ask_once():
    """However many calls need it: three texts to each member, once."""

    async def later(provider, request):
        await asyncio.sleep(0.01)
        return provider.answer(request)

    async def main():
        providers = [Provider(name) for name in "ab"]
        for each in providers:
            each.exchange._handler = partial(later, each)
        embedder = pooled(*providers)
        await asyncio.gather(*(embedder.embed([f"{number}"]) for number in range(50)))
        assert [each.probes for each in providers] == [1, 1]

    asyncio.run(main())


async def test_a_member_takes_over_from_one_that_died_before():
    """The first member is gone when the second is used for the first time: what it answered then still tells."""
    first, second, third = Provider("a", price=1.0), Provider("b", price=2.0), Provider("c", turned, price=3.0)
    embedder = pooled(first, second, third, prefer="cheapest")
    await embedder.embed(["x"])
    first.down = response("no", 503)
    assert np.allclose((await embedder.embed(["y"])).vectors[0], unit("y"))
    second.down = response("no", 503)
    with pytest.raises(ConfigError, match="do not serve the same model"):
        await embedder.embed(["z"])


async def test_a_lone_member_is_compared_with_nobody():
    """No request but those of the call; one member refused for its texts is named."""
    lone = Provider("a")
    await pooled(lone).embed(["x"])
    assert lone.probes == 0


async def test_one_that_refuses_the_texts_says_so():
    """A refusal of the texts that are compared is an error of the pool's setting, not of the caller's texts."""
    first, second = Provider("a"), Provider("b")
    second.down = response({"error": {"message": "no such field"}}, 400)
    embedder = pooled(first, second)
    await embedder.embed(["x"])
    with pytest.raises(ConfigError, match=r"b:b at .* refuses the texts by which .* no such field"):
        await embedder.embed(["y"], on_error="skip")


# --- what belongs in it ----------------------------------------------------------------------------------------------

pool: Any = embedkit.pool  # called wrongly


class NoCache(Cache):
    """A cache in which nothing is."""

    def read(self, keys):
        return {}

    def write(self, rows):
        pass


WRONG = {
    "nothing": (lambda: pool([]), ConfigError, "at least one member"),
    "no list": (lambda: pool(FakeEmbedder()), TypeError, "a list of embedders, not FakeEmbedder"),
    "a string": (lambda: pool("ab"), TypeError, "a list of embedders, not str"),
    "a name": (lambda: pool(["openai:m"]), TypeError, "an embedkit.Embedder, not str"),
    "a sync embedder": (lambda: pool([SyncEmbedder(FakeEmbedder())]), TypeError, r"pass its \.embedder"),
    "coalescing members": (
        lambda: pool([embedkit.connect("ollama:m", coalesce=True)]),
        ConfigError,
        "pass it to pool",
    ),
    "members with a cache": (
        lambda: pool([embedkit.connect("ollama:m"), embedkit.connect("ollama:m", cache=NoCache())]),
        ConfigError,
        "made with cache=.*pass it to pool",
    ),
    "a pool with a cache": (
        lambda: pool([embedkit.connect("ollama:m", base_url=["http://a", "http://b"], cache=NoCache())]),
        ConfigError,
        "made with cache=.*pass it to pool",
    ),
    "a time below nothing": (lambda: pool([FakeEmbedder()], total_timeout=-1), ConfigError, "total_timeout=-1"),
    "no time": (lambda: pool([FakeEmbedder()], total_timeout=0), ConfigError, "total_timeout=0"),
    "a word for a switch": (lambda: pool([FakeEmbedder()], verify="no"), ConfigError, "verify='no'"),
    "other times of a pool": (
        lambda: pool([pooled(Provider("a"), Provider("b"), total_timeout=4), Provider("c").embedder]),
        ConfigError,
        "total_timeout holds",
    ),
    "other options": (
        lambda: pooled(Provider("a", dimensions=4), Provider("b")),
        ConfigError,
        "dimensions=4 and b:b at http://b/v1 with dimensions=None",
    ),
    "other times": (lambda: pooled(Provider("a", total_timeout=4), Provider("b")), ConfigError, "total_timeout holds"),
    "an unknown order": (lambda: pooled(Provider("a"), prefer="best"), ConfigError, "prefer='best'"),
    "no price": (lambda: pooled(Provider("a"), prefer="cheapest"), ConfigError, "no price is known of a:a"),
    "a wrong policy": (lambda: pool([FakeEmbedder()], retry=3), ConfigError, "retry"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_belong_is_refused_by_name(name):
    """At once, before anything is sent."""
    make, kind, words = WRONG[name]
    with pytest.raises(kind, match=words):
        make()


async def test_a_pool_in_a_pool_gives_its_members():
    """Endpoints of one provider beside another provider: one pool of three."""
    exchange = FakeExchange(Provider("a").answer)
    inner = embedkit.connect("compatible:a", base_url=["http://x/v1", "http://y/v1"], exchange=exchange)
    embedder = embedkit.pool([inner, Provider("b").embedder])

    assert len(embedder.members) == 3
    assert (await embedder.embed(["x", "y"])).vectors.shape == (2, 8)


@pytest.mark.parametrize(("name", "value"), [("total_timeout", 4.0), ("long_text", "mean")])
def test_what_a_pool_in_a_pool_was_told_of_a_call_holds_on(name, value):
    """A time limit and the treatment of long texts are not lost when its members are taken out of it."""
    inner = pooled(Provider("a"), Provider("b"), **{name: value})

    assert getattr(embedkit.pool([inner]), name) == value
    assert getattr(embedkit.pool([inner, pooled(Provider("c"), **{name: value})]), name) == value


async def test_an_embedder_of_ones_own_is_a_member():
    """Beside one over HTTP; it fails over too, and its limits count."""

    class Own(Embedder):
        provider, model, limits, price = "own", "m", Limits(max_texts=3), 0.0
        fails = False

        async def embed_batch(self, texts, options):
            if self.fails:
                raise ServerError("gone", status=500)
            return Embeddings(np.stack([unit(text) for text in texts]), "m", Usage(len(texts), 1))

    own, other = Own(), Provider("a", price=1.0)
    embedder = embedkit.pool([own, other.embedder], prefer="cheapest", retry=NOW)
    await embedder.embed(["x"])
    own.fails = True

    assert np.allclose((await embedder.embed(list("pqrs"))).vectors[3], unit("s"))
    assert sorted(map(len, other.asked)) == [1, 3]
    assert embedder.limits.max_texts == 3


async def test_closing_closes_the_members():
    """And what is used again opens again."""
    providers = [Provider(name) for name in "ab"]
    async with pooled(*providers) as embedder:
        for number in range(3):
            await embedder.embed([f"{number}"])

    assert [each.exchange.closed for each in providers] == [True, True]
    assert (await embedder.embed(["again"])).vectors.shape == (1, 8)


def test_a_member_of_its_own_is_as_it_was():
    """The pool changes nothing of what it was given: not the policy, not the observer."""
    one = embedkit.connect("ollama:m", retry=RetryPolicy(attempts=3))
    embedkit.pool([one], observe=print)

    assert (one._retry.attempts, one.observe) == (3, None)


def test_it_travels_and_works_without_await():
    """A pickled pool has its members and its setting; `SyncEmbedder` runs it."""
    with Api() as one, Api() as other:
        members = [embedkit.connect("compatible:m", base_url=each.url) for each in (one, other)]
        for price, each in enumerate(members):
            each.price = float(price)
        twin = pickle.loads(pickle.dumps(embedkit.pool(members, prefer="cheapest")))  # noqa: S301 (our own)
        with SyncEmbedder(twin) as embedder:
            assert embedder.embed(["a", "bc"]).vectors.tolist() == [vector("a"), vector("bc")]
            assert [part.vectors.shape for part in embedder.stream(["a"])] == [(1, 3)]
        assert (len(other.bodies), twin.members[1].price) == (0, 1.0)


async def test_calls_may_share_requests():
    """With `coalesce=True`, as with `connect`."""
    embedder = pooled(Provider("a"), Provider("b"), coalesce=True)

    assert (await embedder.embed_query("x")).shape == (8,)


# --- over sockets ----------------------------------------------------------------------------------------------------


class Slow(Api):
    def answer(self, body, key):
        time.sleep(0.1)
        return super().answer(body, key)


class Dying(Api):
    """Answers twenty requests and fails from then on."""

    def answer(self, body, key):
        found = super().answer(body, key)
        return found if len(self.bodies) <= 20 else (503, {}, {"error": "gone"})


class Other(Api):
    def answer(self, body, key):
        status, headers, said = super().answer(body, key)
        for each in said["data"]:
            each["embedding"].reverse()
        return status, headers, said


def test_three_servers_of_which_one_dies_half_way_and_one_is_slow():
    """Every vector is right and in place, most are the fast one's; one with other vectors is refused."""
    texts = [f"passage {number}" for number in range(300)]

    async def main(*servers, **settings):
        members = [
            embedkit.connect("compatible:m", base_url=each.url, max_concurrency=4, limits=Limits(max_texts=2))
            for each in servers
        ]
        async with embedkit.pool(members, **settings) as embedder:
            return await embedder.embed(texts)

    with Api() as good, Slow() as slow, Dying() as dying, Other() as other:
        result = asyncio.run(main(good, slow, dying))
        assert result.vectors.tolist() == [vector(text) for text in texts]
        assert len(good.bodies) > len(slow.bodies) > 1
        assert len(dying.bodies) > 20
        with pytest.raises(ConfigError, match="do not serve the same model"):
            asyncio.run(main(good, other))
        # In this process they have been asked, so nothing is sent to find it out once more.
        count = len(other.bodies)
        with pytest.raises(ConfigError, match="do not serve the same model"):
            asyncio.run(main(good, other))
        assert len(other.bodies) == count
