"""A bulk call beside a service: the share of places it takes, and that the service hardly notices. Time is an argument,
or virtual.
"""

from __future__ import annotations

import asyncio
import json

import anyio
import pytest

import embedkit
from benchmarks.impatient import Case, simulate
from benchmarks.virtual import VirtualLoop, now
from embedkit._traffic.bulk_share import BLOCK, FEW, QUIET, SLOWER, Share
from embedkit.testing import FakeExchange, response


def block(share, now, seconds):
    """A block of small answers that took so long."""
    for _ in range(BLOCK):
        share.answered(now, seconds)


def places(share, now):
    """How many bulk calls may have."""
    taken, share.taken = share.taken, 0
    while share.taken < 1000 and share.room(now):
        share.taken += 1
    found, share.taken = share.taken, taken
    return found


def test_alone_a_bulk_call_takes_all():
    """Before any small answer, and again when there has been none for a while."""
    share = Share()

    assert places(share, 0.0) == 1000

    block(share, 1.0, 0.2)

    assert places(share, 1.0 + QUIET) == FEW
    assert places(share, 1.1 + QUIET) == 1000


def test_beside_a_service_it_grows_while_answers_are_as_fast_as_without_it():
    """One more after each block; a quarter fewer after a slower one; never none."""
    share = Share()
    block(share, 1.0, 0.2)
    share.taken = FEW
    found = []
    for seconds in (0.2, 0.2, 0.2 * SLOWER * 0.99, 0.3, 0.3, *[9.0] * 20):
        block(share, 1.0, seconds)
        found.append(places(share, 1.0))

    assert found[:5] == [FEW + 1, FEW + 2, FEW + 3, 8, 6]
    assert found[-1] == 1


def test_a_service_that_begins_beside_a_bulk_call_gets_half():
    """What it would be like alone is not known yet, so the bulk call makes way at the first answer."""
    share = Share()
    share.taken = 40
    share.answered(9.0, 1.0)

    assert places(share, 9.0) == 20


def test_answers_without_a_bulk_call_only_say_what_is_usual():
    """The next bulk call begins with few."""
    share = Share()
    for seconds in (0.2, 5.0, 0.2, 0.3):
        block(share, 1.0, seconds)

    assert places(share, 1.0) == FEW


def test_an_endpoint_that_has_become_slower_is_no_reason_for_ever():
    """What is usual is forgotten bit by bit."""
    share = Share()
    block(share, 1.0, 0.2)
    share.taken = 4
    for _ in range(400):
        block(share, 1.0, 1.0)

    assert places(share, 1.0) > 10


@pytest.mark.parametrize("answer", [0.2, 1.0])
def test_a_service_hardly_notices(answer):
    """Its p99 stays within twice what it is alone, and the bulk call finishes."""
    case = Case(fault="500", load=0.3, ill=0.0, patience=30, answer=answer, timeout=None, after=60)
    alone = simulate(case)
    beside = simulate(Case(**{name: getattr(case, name) for name in case.__struct_fields__} | {"bulk": 20_000}))

    assert beside.bulk < 120
    assert beside.p99(0) <= 2 * alone.p99(0)


def test_places_come_back_whatever_becomes_of_a_bulk_call():
    """Refused, cancelled, never answered: afterwards nothing is taken."""

    async def main():
        number = 0

        async def served(request):
            nonlocal number
            number += 1
            await asyncio.sleep(0.05 if number % 7 else 1000.0)
            if number % 5 == 0:
                return response({"error": "no"}, 503)
            return response(
                {
                    "data": [
                        {"index": row, "embedding": [1.0, 0.0]} for row in range(len(json.loads(request.body)["input"]))
                    ]
                }
            )

        embedder = embedkit.connect("compatible:m", base_url="http://h/v1", exchange=FakeExchange(served), timeout=2.0)
        embedder._clock = asyncio.get_running_loop().time
        limiter = embedder._transport().limiter
        for patience in (0.01, 0.2, 1.0, 3.0, 60.0):
            with anyio.move_on_after(patience):
                await embedder.embed([f"text {each}" for each in range(3000)], on_error="skip")
            await asyncio.sleep(30)
            await asyncio.gather(*[embedder.embed_query(f"query {each}") for each in range(20)], return_exceptions=True)
        await asyncio.sleep(2000)
        return limiter

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        limiter = runner.run(main())

    assert (limiter._busy, limiter.in_flight, limiter.share.taken, limiter._bulk) == (0, 0, 0, 0)


def test_a_bulk_call_is_no_small_call():
    """The first answer to a call of many requests does not make it make way for itself."""

    async def main():
        busy = most = 0

        async def served(request):
            nonlocal busy, most
            busy += 1
            most = max(most, busy)
            await asyncio.sleep(0.2)
            busy -= 1
            return response(
                {
                    "data": [
                        {"index": row, "embedding": [1.0, 0.0]} for row in range(len(json.loads(request.body)["input"]))
                    ]
                }
            )

        embedder = embedkit.connect(
            "openai:m", api_key="k", exchange=FakeExchange(served), limits=embedkit.Limits(max_texts=10)
        )
        embedder._clock = asyncio.get_running_loop().time
        await embedder.embed([f"text {each}" for each in range(2000)])
        return most, now()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        most, seconds = runner.run(main())

    assert most >= 100
    assert seconds < 1.0


def test_embedders_of_one_account_know_of_each_other():
    """One window for both on one event loop; with limits of its own, or another key, an embedder has its own."""

    async def main():
        exchange = FakeExchange([])

        def connected(**settings):
            keywords = {"base_url": "http://h/v1", "api_key": "k", "exchange": exchange, **settings}
            return embedkit.connect("compatible:m", **keywords)._transport().limiter

        one, other = connected(), connected()
        return one is other, one is connected(max_concurrency=3), one is connected(api_key="other")

    assert asyncio.run(main()) == (True, False, False)
