"""What the benchmarks say of impatient callers is right: the
arithmetic, the bounds, what counts as an extra attempt.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import statistics

import pytest

from benchmarks import callers, impatient, recovery, service, simulation
from benchmarks.impatient import BEFORE, Case, Ill, simulate
from benchmarks.virtual import now, run
from embedkit._types import Request
from embedkit.errors import TransportTimeoutError

GOOD = service.Figures(recovered=0.0, share=1.0, goodput=0.95, requests=1.0, attempts=1.0, p99=0.2)


def better(**other):
    return service.Figures(**{name: other.get(name, getattr(GOOD, name)) for name in GOOD.__struct_fields__})


# --- arithmetic ------------------------------------------------------------------------------------------------------


def test_callers_come_at_random_moments():
    """On average so many a second, within the time asked for, and as the seed says."""
    moments = list(callers.arrivals(1, 50.0, 200.0, -10.0))
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]

    assert (
        moments
        == sorted(moments)
        == list(callers.arrivals(1, 50.0, 200.0, -10.0))
        != list(callers.arrivals(2, 50.0, 200.0, -10.0))
    )
    assert -10.0 <= moments[0] < moments[-1] < 200.0
    assert statistics.mean(gaps) == pytest.approx(1 / 50, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(1 / 50, rel=0.05)  # of an exponential both are alike


@pytest.mark.parametrize(
    ("values", "part", "wanted"),
    [
        ([5.0], 0.99, 5.0),
        (range(1, 101), 0.99, 99),
        (range(1, 101), 1.0, 100),
        (range(1, 101), 0.0, 1),
        ([3, 1, 2], 0.5, 2),
    ],
)
def test_a_quantile(values, part, wanted):
    """The least value that at least that part of them does not exceed."""
    assert callers.quantile(list(values), part) == wanted


def test_of_nothing_there_is_no_quantile():
    """Where no call succeeded, no number is made up."""
    assert math.isnan(callers.quantile([], 0.99))
    assert math.isnan(callers.p99([(0.0, 1.0, False)], 0.0))


def made(*spans):
    """Ten calls a second, each answered after 0.2 s: (start, stop, whether they succeed)."""
    return [
        (start + each / 10, start + each / 10 + 0.2, ok)
        for start, stop, ok in spans
        for each in range(round((stop - start) * 10))
    ]


@pytest.mark.parametrize(
    ("calls", "wanted"),
    [
        (made((0, 40, True)), 0.0),
        (made((0, 10, True), (10, 13, False), (13, 40, True)), 3.0),
        (made((0, 40, False)), math.inf),
        (made((0, 20, True), (20, 40, False)), math.inf),
        (made((0, 30, True), (30, 31, False), (31, 40, True)), 21.0),  # a second fall: it was not well before
        ([], math.inf),
    ],
)
def test_when_it_is_well_again(calls, wanted):
    """From that moment on 99 % of all calls succeed; the fault is over at 10 s."""
    assert callers.recovered(calls, 10.0) == wanted


def test_one_of_a_hundred_may_fail():
    """99 % is well; a time without the call that failed, or with nothing else, is told apart."""
    calls = made((0, 10, True))
    calls[50] = (*calls[50][:2], False)

    assert callers.recovered(calls, 0.0) == 0.0
    assert callers.share(calls, 0.0) == 0.99
    assert callers.share(calls, 5.0, 5.1) == 0.0
    assert callers.goodput(calls, 0.0, 5.0) == pytest.approx(9.6)  # 48 were answered by then


# --- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "found", "wanted"),
    [
        (Case(), GOOD, []),
        (Case(load=0.9), better(share=0.98), ["98.0% succeed"]),
        (Case(load=0.3), better(share=0.5), ["50.0% succeed"]),
        (Case(load=2.0), better(share=0.5), []),  # half of the calls are all that it can do
        (Case(load=2.0), better(goodput=0.89), ["goodput 89%"]),
        (Case(load=2.0, patience=30.0), better(goodput=0.5), []),
        (Case(load=0.9), better(goodput=0.1), []),
        (Case(), better(attempts=1.3), []),
        (Case(), better(attempts=1.31), ["1.31 attempts"]),
        (Case(load=0.3, answer=1.0), better(attempts=9.0), []),  # 7.2 calls a second
        (Case(rate=0.4), better(attempts=9.0), []),
        (Case(ill=4.0), better(attempts=9.0), []),
        (Case(), better(share=0.0, attempts=2.6), ["0.0% succeed", "2.60 attempts"]),
    ],
)
def test_bounds(case, found, wanted):
    """Each where it is asked for, and nowhere else."""
    assert [miss.what for miss in service.missed(case, found)] == wanted


def test_how_far_a_bound_is_missed():
    """As a part of the bound, so that misses of different kinds can be put in order."""
    far = [
        service.missed(Case(), better(**each))[0].far for each in ({"share": 0.0}, {"share": 0.98}, {"attempts": 2.6})
    ]

    assert far == [pytest.approx(1.0), pytest.approx(1 / 99), pytest.approx(1.0)]


def test_the_worst_of_several():
    """Of each figure by itself; no answer at all is the worst p99."""
    other = better(share=0.9, goodput=1.0, attempts=1.2, p99=math.nan, recovered=math.inf)

    assert str(service.worst([GOOD, other])) == str(
        better(share=0.9, goodput=0.95, attempts=1.2, p99=math.nan, recovered=math.inf)
    )


def test_beside_httpx():
    """Two seconds later than the sooner and 1.3 times the requests
    of the more sparing are within bounds; never is as late as never.
    """
    never = recovery.Figures(math.inf, 0.0, 1000)
    theirs = [recovery.Figures(1.0, 1.0, 1200), never]
    fine = [[each for each, _ in recovery.goals(recovery.Figures(after, 1.0, count), theirs)]
            for after, count in ((3.0, 1300), (3.5, 1301), (math.inf, 0))]  # fmt: skip

    assert fine == [[True, True], [False, False], [False, True]]
    assert recovery.goals(never, [never])[0][0]


# --- rows ------------------------------------------------------------------------------------------------------------


def test_every_row_is_there_once():
    """8 faults, 3 loads, 3 patiences, 5 configurations; 1 s is too little patience for answers of 1 s."""
    rows = list(service.cases())

    assert len({(fault, str(case)) for fault, case in rows}) == len(rows) == 8 * 3 * 5 * (3 + 2)
    assert {case.timeout for fault, case in rows if fault == "stall"} == {1.0, 5.0}
    assert {case.timeout for fault, case in rows if fault != "stall"} == {None}
    assert all(case.ill + case.after >= 120 for _, case in rows if case.load > 1)
    assert all(case.after >= service.settled(case) + 2 * case.patience for _, case in rows)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["patient", "impatient"]), (["--quick"], ["impatient"]), (["--fault", "stall", "503"], ["impatient"]),
        (["bulk", "cold", "--answer", "1"], ["bulk", "cold"]), (["--beside", "."], ["recovery"]),
        (["--plot"], ["patient", "impatient"]),
    ],
)  # fmt: skip
def test_the_command_line(arguments, parts):
    """Who chooses among impatient callers wants no others."""
    assert simulation.parsed(arguments).part == parts


@pytest.mark.parametrize("arguments", [["impatien"], ["recovery"], ["--fault", "404"], ["--configuration", "fast"]])
def test_what_there_is_not(arguments, capsys):
    """Says what there is."""
    with pytest.raises(SystemExit):
        simulation.parsed(arguments)
    said = capsys.readouterr().err

    assert any(word in said for word in ("parts:", "CHECKOUT", "choose from"))


def test_a_small_table(capsys):
    """Rows are printed as they finish, misses are marked and come again at the end, the farthest first."""
    case = Case(fault="500", rate=20.0, ill=2.0, after=8.0)
    never = Case(fault="500", rate=20.0, patience=0.1, ill=1.0, after=7.0)
    assert service.table([("500", case), ("never", never)], 2) == 1
    out = capsys.readouterr().out.splitlines()

    assert out[0].split() == [word for column in service.COLUMNS for word in column.split()]
    assert out[2].split()[:2] == ["0.2", "s"]
    assert "1 of 2 rows within bounds; of 2 seeds the worst" in out
    assert out[-1].endswith("✗ 0.0% succeed")


def test_a_row_that_misses():
    """What it misses stands at its end, and a service that is never well says so."""
    line = service.row("429", Case(), better(share=0.5, recovered=math.inf))

    assert line.endswith("✗ 50.0% succeed")
    assert " never " in line


# --- the simulation --------------------------------------------------------------------------------------------------


async def ask(server, *texts):
    body = b'{"input":[%s]}' % b",".join(b'"%s"' % text.encode() for text in texts)
    return (await server(Request("http://a/v1/embeddings", body))).status


def test_what_an_extra_attempt_is():
    """One that holds no text of ours that was not sent before,
    to whichever endpoint: a retry, a half, a known-good text.
    """

    async def go():
        seen: set[str] = set()
        servers = [Ill(1, Case(fault="503"), seen) for _ in range(2)]
        await asyncio.sleep(BEFORE)
        for server, texts in [(0, ["text 1"]), (0, ["text 1"]), (1, ["text 1"]), (0, ["text 2", "text 3"]), (0, ["text 3"]),
                              (1, ["text 3", "text 4"]), (1, ["hello"]), (0, ["hello"])]:  # fmt: skip
            await ask(servers[server], *texts)
        return [(each.first, each.again) for each in servers]

    assert run(go()) == [(2, 3), (1, 2)]


def test_a_queue_finishes_what_it_has_begun():
    """Whoever waits and leaves costs nothing; who leaves while being
    served has his place until the answer would have been there.
    """

    async def go():
        server = Ill(1, Case(queue=True, timeout=0.1, answer=1.0), set())
        left = await asyncio.gather(*(ask(server, f"text {each}") for each in range(100)), return_exceptions=True)
        assert all(isinstance(each, TransportTimeoutError) for each in left)
        server.timeout = 10.0
        return await ask(server, "text 100"), now()

    status, seconds = run(go())
    assert status == 200
    assert 1.5 < seconds < 2.5  # one round after the first


def test_a_call_that_never_ends_has_failed():
    """It is counted, though the run is over."""
    outcome = simulate(Case(fault="stall", rate=1.0, patience=math.inf, ill=5.0, after=5.0, timeout=100_000.0))

    assert not all(ok for _, _, ok in outcome.calls)


def test_an_error_of_ours_voids_the_run(monkeypatch):
    """Nothing but an EmbedkitError is an outcome."""

    async def broken(*_):
        raise KeyError("a bug")

    monkeypatch.setattr(impatient.Ill, "__call__", broken)
    with pytest.raises(KeyError, match="a bug"):
        simulate(Case(rate=5.0, ill=1.0, after=1.0))


def test_the_same_seed_gives_the_same_run():
    """To the last call, jitter of retries included; another seed gives another."""
    first, again, other = (simulate(Case(fault="half", rate=20.0, ill=2.0, after=2.0), seed) for seed in (1, 1, 2))

    assert first.calls == again.calls != other.calls


def test_a_cold_burst_where_nothing_is_in_the_way():
    """What 100 calls take where all are sent at once, and there is room for all or for 24."""
    assert service.burst("openai:m", hosted=True, answer=0.2)[1] == pytest.approx(0.2 * 1.26 + 0.02, rel=0.1)
    assert service.burst("vllm:m", hosted=False, answer=0.2)[1] == pytest.approx(0.2 * 4.8, rel=0.1)
