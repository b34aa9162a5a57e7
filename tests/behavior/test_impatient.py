"""Callers with little patience, and a provider that is ill for a while:
never down for good. In virtual time; everything follows from the seed.
"""

from __future__ import annotations

import asyncio
import json
import math
import random

import pytest

import embedkit
from benchmarks.impatient import FAULTS, Case, simulate
from benchmarks.virtual import VirtualLoop, now
from embedkit.providers import hosts
from embedkit.testing import FakeExchange, response


@pytest.fixture(autouse=True)
def _same_jitter():
    """The jitter of retries comes from a seed too."""
    random.seed(5)


@pytest.mark.parametrize("fault", [*FAULTS, "page"])
def test_a_service_is_well_again_within_seconds(fault):
    """40 queries a second, each under 5 s; for 4 s the provider stalls,
    fails or refuses: 5 s later 99 % succeed, and soon answers are quick.
    """
    outcome = simulate(Case(fault=fault, rate=40, patience=5, ill=4, after=20))

    assert outcome.share(outcome.over + 5) >= 0.99
    assert outcome.recovered() <= 5
    assert outcome.p99(outcome.over + 10) < 1


@pytest.mark.parametrize("patience", [1, 5, 30])
@pytest.mark.parametrize("fault", [*FAULTS, "page"])
def test_near_its_power_too(fault, patience):
    """At 0.9 times what the endpoint can do, whatever the patience
    of the callers; few attempts are made beside the first ones.
    """
    outcome = simulate(Case(fault=fault, load=0.9, patience=patience, after=15))

    assert outcome.share(outcome.over + 5) >= 0.99
    assert outcome.attempts() <= 1.3


@pytest.mark.parametrize("configuration", ["quick retry", "pool of 2", "hedge"])
@pytest.mark.parametrize("fault", ["stall", "503", "429", "half"])
def test_in_every_configuration(fault, configuration):
    """However it is connected."""
    outcome = simulate(Case(fault=fault, configuration=configuration, patience=1, after=15))

    assert outcome.share(outcome.over + 5) >= 0.99
    assert outcome.attempts() <= 1.3


@pytest.mark.parametrize(("load", "patience", "seed"), [(0.3, 30, 1), (0.3, 5, 2), (0.9, 1, 1), (0.9, 30, 2)])
def test_a_pool_whose_members_fail_half_of_the_requests(load, patience, seed):
    """That a member which answers again serves the same model is asked beside the texts of callers: it costs no
    attempts.
    """
    outcome = simulate(Case(fault="half", configuration="pool of 2", load=load, patience=patience, after=1), seed)

    assert outcome.attempts() <= 1.2


@pytest.mark.parametrize("patience", [5, 30])
@pytest.mark.parametrize("fault", ["stall", "503", "429", "half"])
def test_calls_that_share_requests(fault, patience):
    """Where few requests hold all the calls, those that failed and wait for their next try are not all that is sent."""
    outcome = simulate(Case(fault=fault, configuration="coalesce", patience=patience, after=15))

    assert outcome.share(outcome.over + 5) >= 0.99
    assert outcome.attempts() <= 1.3


@pytest.mark.parametrize(
    ("model", "before"), [(model, before) for model in ("openai:m", "compatible:m") for before in (0.0, 0.5, 2.0)]
)
def test_refused_soon_after_the_start(model, before):
    """Ten seconds of 429s that begin before much is known, or anything: well again within seconds, whatever the row
    begins with.
    """
    outcome = simulate(Case(fault="429 with hint", rate=40, patience=1, after=15, before=before, model=model))

    assert outcome.share(outcome.over + 5) >= 0.99


@pytest.mark.parametrize("patience", [1, 5])
def test_a_stall_with_the_default_timeout(patience):
    """Requests that will never be answered hold no place: the timeout of 120 s is not waited for."""
    outcome = simulate(Case(load=0.3, patience=patience, timeout=None, after=15))

    assert outcome.share(outcome.over + 5) >= 0.99


@pytest.mark.parametrize("fault", ["503", "500", "429", "reset", "stall", "page"])
def test_retries_have_a_budget(fault):
    """Ten calls a second: while the provider is ill there are at most 1.3 attempts for each first one."""
    assert simulate(Case(fault=fault, rate=10, patience=5, after=10)).attempts() <= 1.3


def test_twice_the_power_is_no_collapse():
    """With twice as many callers as can be served, the endpoint still answers nearly as many as it can."""
    case = Case(fault="503", load=2, patience=5, ill=5, after=45)
    outcome = simulate(case)

    assert outcome.goodput(outcome.over + 20, outcome.over + case.after) >= 0.9 * case.power


def test_a_lone_script_keeps_its_patience():
    """One caller without a timeout outlasts the trouble, as its retry policy allows."""
    outcome = simulate(Case(fault="503", rate=0.4, patience=math.inf, ill=4, after=10))

    assert all(ok for _, _, ok in outcome.calls)


@pytest.mark.parametrize("answer", [0.2, 1.0])
@pytest.mark.parametrize("model", ["openai:text-embedding-3-small", "mistral:mistral-embed"])
def test_a_cold_burst_at_a_hosted_api(model, answer):
    """A hundred calls at once on a client that has sent nothing yet: nobody waits for who came before."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        took = runner.run(burst(model, answer, 100))

    assert sorted(took)[98] <= 1.5 * answer


async def burst(model, answer, calls):
    """The seconds that each of so many queries takes."""

    async def served(_):
        await asyncio.sleep(answer)
        return response({"data": [{"index": 0, "embedding": [1.0, 0.0]}]})

    embedder = embedkit.connect(model, api_key="k", exchange=FakeExchange(served))
    embedder._clock = asyncio.get_running_loop().time

    async def call(number):
        await embedder.embed_query(f"text {number}")
        return now()

    return await asyncio.gather(*map(call, range(calls)))


def test_hosted_apis_take_a_hundred_from_the_start():
    """But for those whose free plan takes a handful at once, or
    that are a machine of one's own; a server here begins with few.
    """
    hosted = [host for host in hosts() if host.key_required]

    assert {host.name for host in hosted if host.start < 100 or host.ceiling < host.start} == {"jina", "watsonx"}
    assert {host.start for host in hosts() if host not in hosted} == {8}


@pytest.mark.parametrize("status", [500, 503])
def test_a_stream_over_a_dead_provider_says_so_soon(status):
    """Its later parts are tried again too, but those that the next part waits for go first: it raises about when `embed` does."""
    seconds = {}

    async def main(way):
        number = 0

        def answer(request):
            nonlocal number
            number += 1
            texts = json.loads(request.body)["input"]
            if number > 3:
                return response({"error": {"message": "no"}}, status)
            return response({"data": [{"index": row, "embedding": [1.0, 0.0]} for row in range(len(texts))]})

        embedder = embedkit.connect(
            "openai:m", api_key="k", exchange=FakeExchange(answer), limits=embedkit.Limits(max_texts=2)
        )
        embedder._clock = asyncio.get_running_loop().time
        texts = [f"text {each}" for each in range(100)]
        with pytest.raises(embedkit.ServerError):
            if way == "embed":
                await embedder.embed(texts)
            else:
                async for _ in embedder.stream(texts):
                    pass
        seconds[way] = now()

    for way in ("embed", "stream"):
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(main(way))

    assert seconds["stream"] <= 3 * seconds["embed"] + 5
