"""Pacing against servers that throttle and do not say how, in virtual
time: nearly all of a quota, hardly a refusal, nothing given up.

Short runs of what `python -m benchmarks.simulation` measures at length; everything follows from the seed.
"""

from __future__ import annotations

import asyncio

import pytest

from benchmarks import simulation
from benchmarks.virtual import OVERLOADED, Bucket, Capped, Client, Knee, Server, run
from embedkit import Rate

SEEDS = (1, 2)
STEADY = (60.0, 180.0)
TOKENS = b" on tokens per min (TPM)"


def simulated(make, *, until=STEADY[1], callers=1, seed=1, **settings):
    """The server after a run, and its clients."""

    async def go():
        server = make(seed)
        clients = [Client(server, 10 * seed + each, **settings) for each in range(callers)]
        await asyncio.gather(*(client.work(until) for client in clients))
        return server, clients

    return run(go())


def outcome(make, quota, *, steady=STEADY, **settings):
    """(least share of the quota used, largest share refused, requests given up) over the seeds."""
    used, refused, lost = [], [], 0
    for seed in SEEDS:
        server, clients = simulated(make, until=steady[1], seed=seed, **settings)
        granted, share = server.use(*steady)
        used.append(granted / quota)
        refused.append(share)
        lost += sum(client.lost for client in clients)
    return min(used), max(refused), lost


BUCKETS = {
    "with hints": (lambda seed: Bucket(seed, 30, 30), 30, {}),
    "without": (lambda seed: Bucket(seed, 30, 30, hints=False), 30, {}),
    "small": (lambda seed: Bucket(seed, 5, 10), 5, {}),
    "slow answers": (lambda seed: Bucket(seed, 30, 30, latency=1.0), 30, {}),
    "in headers": (lambda seed: Bucket(seed, 30, 300, tells="requests"), 30, {}),
    "of tokens": (lambda seed: Bucket(seed, 1e6, 2e6, words=TOKENS), 1e6, {"costs": simulation.batches(1.0)}),
    "of tokens, in headers": (lambda seed: Bucket(seed, 1e6, 2e6, tells="tokens"), 1e6,
     {"costs": simulation.batches(1.0)}),
    "more told than there is": (lambda seed: Bucket(seed, 30, 30), 30, {"rate": Rate(requests_per_minute=3600)}),
    "halved": (lambda seed: Bucket(seed, 40, 40, later={30.0: {"rate": 20.0}}), 20, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", BUCKETS)
def test_a_quota_is_used_and_hardly_exceeded(name):
    """In the steady state at least 95 % of a quota is used,
    under 1 % of the requests are refused, and none is given up.
    """
    make, quota, settings = BUCKETS[name]
    used, refused, lost = outcome(make, quota, **settings)

    assert used > 0.95
    assert refused < 0.01
    assert lost == 0


@pytest.mark.parametrize("hints", [True, False])
def test_three_a_minute(hints):
    """A tiny quota is found too: within minutes nearly all of it is used, and no request is given up on the way."""
    used, refused, lost = outcome(lambda seed: Bucket(seed, 0.05, 3, hints=hints), 0.05, steady=(1200.0, 7200.0))

    assert used > 0.95
    assert refused < 0.03
    assert lost == 0


def test_a_quota_told_is_never_exceeded():
    """With `rate=` below what the server grants not one request is refused, and all of the rate is used."""
    used, refused, lost = outcome(lambda seed: Bucket(seed, 50, 50), 40, rate=Rate(requests_per_minute=2400))

    assert used > 0.99
    assert (refused, lost) == (0.0, 0)


def test_a_quota_of_tokens_told_is_corrected_by_what_was_used():
    """Estimates a third too low, corrected from what each answer reports: the quota is used, and nothing refused."""
    make = lambda seed: Bucket(seed, 20_000, 1_200_000)  # noqa: E731 (as in the table above)
    settings = {"rate": Rate(tokens_per_minute=1_200_000), "costs": simulation.batches(0.7)}
    used, refused, lost = outcome(make, 20_000, steady=(300.0, 1500.0), **settings)

    assert 0.95 < used < 1.02
    assert (refused, lost) == (0.0, 0)


ENDPOINTS = {
    "a cap": lambda seed: Capped(seed, 12),
    "a small cap": lambda seed: Capped(seed, 3),
    "a cap of one": lambda seed: Capped(seed, 1),
    "an overloaded TEI": lambda seed: Capped(seed, 12, body=OVERLOADED),
    "a cap with 503": lambda seed: Capped(seed, 12, status=503),
    "a knee": lambda seed: Knee(seed, 12),
    "a knee at one": lambda seed: Knee(seed, 1),
    "a knee far out": lambda seed: Knee(seed, 40),
    "a knee that moves in": lambda seed: Knee(seed, 40, later={20.0: {"knee": 8}}),
    "a knee that moves out": lambda seed: Knee(seed, 6, later={20.0: {"knee": 30}}),
    "answers that get slow": lambda seed: Knee(seed, 12, later={20.0: {"latency": 1.0}}),
}


@pytest.mark.parametrize("name", ENDPOINTS)
def test_the_best_concurrency_is_found(name, monkeypatch):
    """What is granted in the steady state is within 10 % of what
    the best fixed number in flight is granted, refusals under 1 %.
    """
    monkeypatch.setattr(simulation, "SWEEP", (1, 2, 3, 4, 12, 16, 24, 48))
    monkeypatch.setattr(simulation, "FIXED", (10.0, 50.0))
    _, most = simulation.best_fixed(simulation.Case(name=name, make=ENDPOINTS[name]))
    # A client that was refused before it knew anything takes up to 90 s to find that it is one at a time.
    steady = (100.0, 220.0) if name == "a cap of one" else STEADY
    used, refused, lost = outcome(ENDPOINTS[name], most, steady=steady)

    assert used > 0.9
    assert refused < 0.01
    assert lost == 0


@pytest.mark.parametrize(("knee", "widest"), [(1, 4), (6, 12), (12, 24)])
def test_no_queue_is_built_up(knee, widest):
    """Beyond a latency knee nothing is gained by more in flight, and the window stays near it."""
    _, (client,) = simulated(lambda seed: Knee(seed, knee), until=240.0)

    assert knee <= client.window.size <= widest


SHARED = {
    "with hints": (lambda seed: Bucket(seed, 30, 30), 30),
    "without": (lambda seed: Bucket(seed, 30, 30, hints=False), 30),
    "in headers": (lambda seed: Bucket(seed, 30, 300, tells="requests"), 30),
    "an overloaded TEI": (lambda seed: Capped(seed, 12, body=OVERLOADED), 12 / 0.28),
    "a cap": (lambda seed: Capped(seed, 12), 12 / 0.28),
}


@pytest.mark.parametrize("name", SHARED)
def test_four_processes_share_a_quota(name):
    """Four that know nothing of each other use at least 85 % together,
    with under 5 % refused; none starves, nothing is given up.
    """
    make, quota = SHARED[name]
    used, refused, lost = outcome(make, quota, callers=4, steady=(120.0, 360.0))
    _, clients = simulated(make, until=360.0, callers=4)

    assert used > 0.85
    assert refused < 0.05
    assert lost == 0
    assert min(client.done for client in clients) > 0.02 * sum(client.done for client in clients)


def test_four_embedders_of_one_process_are_one():
    """On a shared pace they are refused no more than a single one is."""

    async def go():
        server = Bucket(1, 30, 30)
        first = Client(server, 1)
        others = [Client(server, seed, pace=first.pace) for seed in (2, 3, 4)]
        await asyncio.gather(*(client.work(STEADY[1]) for client in (first, *others)))
        return server

    used, refused = run(go()).use(*STEADY)

    assert used > 0.95 * 30
    assert refused < 0.01


def test_a_run_follows_from_its_seed():
    """The same seed gives the same run to the last request, and another seed another."""
    runs = [simulated(lambda seed: Bucket(seed, 30, 30), until=30.0, seed=seed)[0] for seed in (1, 1, 2)]

    assert (runs[0].granted, runs[0].refused) == (runs[1].granted, runs[1].refused)
    assert runs[0].granted != runs[2].granted


def test_a_simulated_server_without_limits_refuses_nobody():
    """All is granted, and a change takes place at its moment."""
    server, _ = simulated(lambda seed: Server(seed, later={10.0: {"latency": 2.0}}), until=20.0)

    assert server.refused == []
    assert server.use(0.0, 10.0)[0] > 4 * server.use(12.0, 20.0)[0]


def test_what_never_comes_is_an_error():
    """A simulation in which nothing can happen any more says so instead of waiting for ever."""

    async def wait():
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="never come"):
        run(wait())


def test_the_table(monkeypatch, capsys):
    """The benchmark prints a row for every server, with what was used and refused."""
    case = simulation.Case(name="a bucket", make=lambda seed: Bucket(seed, 5, 10), quota=5, steady=(60.0, 120.0))
    four = simulation.Case(name="shared", make=lambda seed: Capped(seed, 2), steady=(60.0, 120.0), callers=4)
    for name, value in {"CASES": [case], "FOUR": [four], "SWEEP": (2, 8), "FIXED": (10.0, 30.0), "SEEDS": (1,)}.items():
        monkeypatch.setattr(simulation, name, value)
    monkeypatch.setattr("sys.argv", ["simulation", "patient"])
    simulation.main()
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split("  ")[0]: line.split() for line in lines}

    assert len({len(line) for line in lines if line.startswith(("server", "-", "a bucket"))}) <= 4
    assert [cell.endswith("%") for cell in rows["a bucket"]].count(True) == 3
    assert [cell.endswith("%") for cell in rows["shared"]].count(True) == 4


def test_a_cap_of_one_is_no_rate():
    """The request that is refused may be the first of two that left, as the other overtook it: so few at once are
    found to be too many, and not a rate that is lower than what the server grants.
    """
    used, refused, lost = outcome(lambda seed: Capped(seed, 1), 3.74, steady=(100.0, 400.0))

    assert used >= 0.96
    assert refused <= 0.006
    assert lost == 0
