"""What a service of impatient callers lives through when its
provider is ill, in virtual time: the table, its bounds and its plot.

A part of `python -m benchmarks.simulation`; each row is a `Case` of `benchmarks.impatient`, run with several seeds, of
which the worst is shown. Rows are worked on by as many processes as there are processors, and printed as they finish.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import msgspec

import embedkit
from benchmarks import callers, impatient
from benchmarks.impatient import BEFORE, CONFIGURATIONS, Case, Outcome, simulate
from benchmarks.virtual import Server, now, run
from embedkit._types import Request, Response

DEFAULT_TIMEOUT = "stall, default timeout"
FAULTS = ("stall", DEFAULT_TIMEOUT, *impatient.FAULTS[1:])
LOADS = (0.3, 0.9, 2.0)
PATIENCES = (1.0, 5.0, 30.0)
ANSWERS = (0.2, 1.0)
PLOTS = Path(__file__).parent / "plots"

# The bounds. Shares of calls and of the endpoint's power, and attempts per first attempt.
WELL = 0.99  # of the calls made once it should be well again
SETTLED = 5.0  # seconds after which it should be, and
SETTLED_ANSWERS = 20  # answer times
GOODPUT, GOODPUT_PATIENCE = 0.9, 5.0
EXTRA, EXTRA_FROM, EXTRA_ILL = 1.3, 10.0, 10.0  # attempts; from so many calls a second, and faults of so many seconds
BESIDE = 2.0  # a service's p99 beside a bulk call, over its p99 alone
COLD = 1.5  # p99 of a cold burst, in answer times


class Figures(msgspec.Struct, frozen=True):
    """What is measured of a row.

    Attributes:
        recovered: seconds after the fault and its last hint from which on 99 % of the calls succeed.
        share: of the calls made once it should be well, how many succeed.
        goodput: calls answered, as a share of the power, from 20 s to
            120 s after the fault began (or as long as is watched).
        requests: while ill, per call made then (those refused without being sent, or waiting, count too).
        attempts: requests per first attempt while ill.
        p99: seconds of the good answers to calls made once it should be well.
    """

    recovered: float
    share: float
    goodput: float
    requests: float
    attempts: float
    p99: float


class Miss(msgspec.Struct, frozen=True):
    """A bound that a row misses; `far` is by what part of the bound."""

    what: str
    far: float


def settled(case: Case) -> float:
    """Seconds after the fault and its last hint when 99 % of the calls have to succeed."""
    return max(SETTLED, SETTLED_ANSWERS * case.answer)


def case_of(
    fault: str, load: float, patience: float, configuration: str, answer: float, *, quick: bool = False, **more: Any
) -> Case:
    """A row of the table: a stall with a timeout of 1 s (5 answer
    times, if that is longer), everything else with the default.

    It is watched for at least 20 s after it should be well, and for twice the patience, so that no queue hides; with
    more calls than can be served, as long as the bound of the goodput asks for.
    """
    timeout = max(1.0, 5 * answer) if fault == "stall" else None
    case = Case(
        fault=fault.partition(",")[0], load=load, patience=patience, configuration=configuration, answer=answer,
        timeout=timeout, **more
    )  # fmt: skip
    after = settled(case) + (10.0 if quick else max(20.0, 2 * patience))
    if load > 1:
        after = max(after, (60.0 if quick else 120.0) - case.ill)
    return msgspec.structs.replace(case, after=after)


def cases(
    *,
    faults: Iterable[str] = FAULTS,
    loads: Iterable[float] = LOADS,
    patiences: Iterable[float] = PATIENCES,
    configurations: Iterable[str] = CONFIGURATIONS,
    answers: Iterable[float] = ANSWERS,
    quick: bool = False,
    **more: Any,
) -> Iterator[tuple[str, Case]]:
    """(fault, case) of every row; without those whose callers have
    not even the patience for an endpoint that has nothing else to do.
    """
    for answer, fault, load, patience, configuration in itertools.product(
        answers, faults, loads, patiences, configurations
    ):
        if patience >= 2 * answer:
            yield fault, case_of(fault, load, patience, configuration, answer, quick=quick, **more)


def figures(outcome: Outcome) -> Figures:
    """Of one run."""
    case = outcome.case
    due, begin = outcome.over + settled(case), BEFORE
    stop = min(begin + 120.0, begin + case.ill + case.after)
    return Figures(
        outcome.recovered(), outcome.share(due), outcome.goodput(begin + 20.0, stop) / case.power, outcome.requests(),
        outcome.attempts(),
        outcome.p99(due),
    )  # fmt: skip


def worst(found: Sequence[Figures]) -> Figures:
    """Of several seeds; what is not a number is worse than any."""
    p99 = max((each.p99 for each in found), key=lambda value: (math.isnan(value), value))
    return Figures(
        max(each.recovered for each in found), min(each.share for each in found), min(each.goodput for each in found),
        max(each.requests for each in found), max(each.attempts for each in found), p99,
    )  # fmt: skip


def missed(case: Case, found: Figures) -> list[Miss]:
    """The bounds that a row misses.

    Below the endpoint's power it has to recover; beyond it, callers of 5 s must not make it collapse; retries have a
    budget, save for who makes fewer than 10 calls a second, and while the fault is short.
    """
    rate = case.rate or case.load * case.power
    misses = []
    if rate <= 0.9 * case.power and found.share < WELL:
        misses.append(Miss(f"{math.floor(1000 * found.share) / 10:.1f}% succeed", (WELL - found.share) / WELL))
    if rate >= 2 * case.power and case.patience == GOODPUT_PATIENCE and found.goodput < GOODPUT:
        misses.append(Miss(f"goodput {found.goodput:.0%}", (GOODPUT - found.goodput) / GOODPUT))
    if rate >= EXTRA_FROM and case.ill >= EXTRA_ILL and found.attempts > EXTRA:
        misses.append(Miss(f"{found.attempts:.2f} attempts", found.attempts / EXTRA - 1))
    return misses


# --- the table -------------------------------------------------------------------------------------------------------

COLUMNS = {  # and how wide they are
    "answer": 6, "fault": 22, "load": 4, "patience": 8, "configuration": 13, "well after": 10, "then": 6, "goodput": 7,
    "per call": 8,
    "per first": 9, "p99": 8, "misses": 0,
}  # fmt: skip


def spelled(cells: Sequence[str]) -> str:
    """One line of the table."""
    left = {1, 4, len(cells) - 1}
    return "  ".join(
        f"{cell:{'<' if place in left else '>'}{width or ''}}" for place,
        (cell, width) in enumerate(zip(cells, COLUMNS.values(), strict=True))
    ).rstrip()  # fmt: skip


def row(fault: str, case: Case, found: Figures) -> str:
    """A case and what came of it; ✗ before each bound it misses. Beyond the power it is never well."""
    after = "" if case.load > 1 else "never" if math.isinf(found.recovered) else f"{found.recovered:.1f} s"
    return spelled([
        f"{case.answer:g} s", fault, f"{case.load:g}", f"{case.patience:g} s", case.configuration,
        after, f"{found.share:.1%}", f"{found.goodput:.0%}",
        f"{found.requests:.2f}", f"{found.attempts:.2f}", f"{found.p99:.2f} s",
        ", ".join(f"✗ {miss.what}" for miss in missed(case, found)),
    ])  # fmt: skip


def measure(case: Case, seeds: int) -> Figures:
    """The worst of so many seeds."""
    return worst([figures(simulate(case, seed)) for seed in range(1, seeds + 1)])


def table(rows: Sequence[tuple[str, Case]], seeds: int) -> int:
    """Print each row when it is done, then those that miss a bound, the farthest first. How many those are."""
    print(
        spelled([*COLUMNS]),
        spelled(["-" * (width or 6) for width in COLUMNS.values()]),
        sep="\n",
        flush=True,
    )
    bad: list[tuple[float, str]] = []
    with ProcessPoolExecutor(os.cpu_count()) as workers:
        waiting = {workers.submit(measure, case, seeds): (fault, case) for fault, case in rows}
        for done in as_completed(waiting):
            fault, case = waiting.pop(done)
            found = done.result()
            print(line := row(fault, case, found), flush=True)
            if misses := missed(case, found):
                bad.append((max(miss.far for miss in misses), line))
    print(
        f"\n{len(rows) - len(bad)} of {len(rows)} rows within bounds"
        + (f"; of {seeds} seeds the worst" if seeds > 1 else "")
    )
    if bad:
        print("\nThose that miss one, the farthest first:\n")
        print(*(line for _, line in sorted(bad, key=lambda each: -each[0])), sep="\n")
    return len(bad)


# --- a bulk call beside a service ------------------------------------------------------------------------------------

BULK = 96_000  # texts, 32 a request


def beside(answer: float, *, apart: bool, queue: bool, seed: int) -> tuple[float, float, float]:
    """(p99 of a service of 0.3 times the power alone, p99 beside
    a bulk call on its account, seconds the bulk call takes).
    """
    case = Case(
        load=0.3, patience=30.0, ill=0.0, timeout=None, answer=answer, after=60.0, queue=queue, apart=apart,
        bulk_from=BEFORE,
        more={"limits": embedkit.Limits(max_texts=32)},
    )  # fmt: skip
    alone = simulate(case, seed)
    texts = int(BULK * ANSWERS[0] / answer)
    both = simulate(msgspec.structs.replace(case, bulk=texts), seed)
    ended = min(both.bulk, BEFORE + 60.0)
    return alone.p99(BEFORE), both.p99(BEFORE, ended), both.bulk - BEFORE


def bulk_table(seeds: int, answers: Iterable[float], queue: bool) -> int:
    """A patient call of many texts begins beside a service that is
    warm, on one account: through the same embedder, or its own.
    """
    print(
        "answer  embedder  p99 alone  p99 beside  ratio   bulk done after\n------  --------  ---------  ----------  ------  ---------------"
    )
    bad = 0
    for answer, apart in itertools.product(answers, (False, True)):
        found = [beside(answer, apart=apart, queue=queue, seed=seed) for seed in range(1, seeds + 1)]
        alone, with_bulk, done = max(found, key=lambda each: each[1] / each[0])
        done = max((each[2] for each in found), key=lambda value: (math.isnan(value), value))
        ratio = with_bulk / alone
        misses = [f"✗ {ratio:.1f} times"] * (ratio > BESIDE) + ["✗ never done"] * math.isnan(done)
        bad += bool(misses)
        print(
            f"{answer:>4g} s  {'its own' if apart else 'the same':8}  {alone:7.2f} s  {with_bulk:8.2f} s  {ratio:5.2f}x  {done:13.1f} s"
            f"  {', '.join(misses)}".rstrip(), flush=True,
        )  # fmt: skip
    return bad


# --- a cold burst ----------------------------------------------------------------------------------------------------

BURST = 100
COLD_ROWS = {
    "openai:text-embedding-3-small": True,
    "vllm:m": False,
}  # model: whether it is hosted, and so has room for all


class Room(Server):
    """Serves so many side by side, the others after them."""

    def __init__(self, seed: int, side_by_side: int, answer: float) -> None:
        super().__init__(seed, latency=answer, spread=0.1)
        self.slots = asyncio.Semaphore(side_by_side)

    async def __call__(self, request: Request) -> Response:
        await self._travel()
        async with self.slots:
            await asyncio.sleep(self.latency * self.random.lognormvariate(0.0, self.spread))
        await self._travel()
        return Response(200, {}, b'{"data":[{"index":0,"embedding":[1.0,0.0]}],"usage":{"total_tokens":1}}')


def burst(model: str, hosted: bool, answer: float, seed: int = 1) -> tuple[float, float]:
    """p99 of 100 calls of one small text at once on a cold
    client: (embedkit's, that of a client that sends all at once).
    """

    async def go(direct: bool) -> float:
        server = Room(seed, 10_000 if hosted else impatient.SIDE_BY_SIDE, answer)
        embedder: Any = embedkit.connect(model, api_key=impatient.account(), exchange=server)
        embedder._clock = asyncio.get_running_loop().time
        took: list[float] = []

        async def call(number: int) -> None:
            started = now()
            await (server(Request("http://simulated")) if direct else embedder.embed_query(f"text {number}"))
            took.append(now() - started)

        await asyncio.gather(*(call(number) for number in range(BURST)))
        return callers.quantile(took, 0.99)

    return run(go(False)), run(go(True))


def cold_table(seeds: int, answers: Iterable[float]) -> int:
    """Bounded where the host is known to have room for all; one
    local server's queue is only as long as it has to be.
    """
    print(
        "answer  model                            p99  / answer  all at once\n------  -----------------------------  ------  --------  -----------"
    )
    bad = 0
    for answer, (model, hosted) in itertools.product(answers, COLD_ROWS.items()):
        found = [burst(model, hosted, answer, seed) for seed in range(1, seeds + 1)]
        p99, direct = max(found)
        miss = hosted and p99 > COLD * answer
        bad += miss
        print(
            f"{answer:>4g} s  {model:29}  {p99:4.2f} s  {p99 / answer:8.2f}  {direct:9.2f} s" + "  ✗" * miss, flush=True
        )
    return bad


# --- the plot --------------------------------------------------------------------------------------------------------

SHOWN = Case(fault="stall", rate=40.0, patience=5.0, ill=4.0, after=60.0)
# The engine is imported before this folder's benchmarks, which the older checkout has, too.
_CHILD = """
import sys
sys.path[:1] = [sys.argv[1]]
import embedkit
sys.path[:1] = [sys.argv[2]]
from benchmarks import service
service.give_shown(embedkit.__file__)
"""


def give_shown(engine: str) -> None:
    """What the plot is made of, as JSON on standard output."""
    outcome = simulate(SHOWN)
    print(json.dumps({"engine": engine, "calls": outcome.calls, "widths": outcome.widths}))


def shown_by(checkout: Path) -> dict[str, Any]:
    """The plot's run with the engine of another checkout, in a process of its own."""
    here = Path(__file__).parent.parent
    command = [sys.executable, "-c", _CHILD, str(checkout.resolve()), str(here)]
    found: dict[str, Any] = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True, cwd="/").stdout
    )
    if not Path(found["engine"]).is_relative_to(checkout.resolve()):
        msg = f"{checkout} holds no embedkit: {found['engine']} was imported instead"
        raise SystemExit(msg)
    return found


def plot(before: Path) -> None:
    """One recovery, with this engine and with the one of an older checkout: calls that succeed, and the window."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams.update(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "embedkit",
            "font.size": 8,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )
    import matplotlib.pyplot as plt

    made = {"before": shown_by(before), "now": shown_by(Path(__file__).parent.parent)}
    stop = BEFORE + SHOWN.ill + SHOWN.after
    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(7, 3.8), height_ratios=(3, 2))
    for (name, found), color in zip(made.items(), ("tab:red", "tab:blue"), strict=True):
        calls = [tuple(each) for each in found["calls"]]
        moments = range(int(stop))
        shares = [100 * callers.share(calls, moment, moment + 1) for moment in moments]
        above.step(moments, shares, where="post", color=color, linewidth=1, label=name)
        below.step(
            [at for at, _ in found["widths"]],
            [size for _, size in found["widths"]],
            where="post",
            color=color,
            linewidth=1,
        )
    for axis in (above, below):
        axis.axvspan(BEFORE, BEFORE + SHOWN.ill, color="0.9", linewidth=0)
        axis.set_ylim(bottom=0)
    above.set_ylabel("% of the calls made\nthen that succeed")
    above.legend(loc="center right", frameon=False)
    below.set_ylabel("window")
    below.set_xlabel("seconds")
    figure.suptitle(
        f"{SHOWN.rate:g} calls a second, each given up after {SHOWN.patience:g} s; the provider stalls for {SHOWN.ill:g} s (grey)",
        fontsize=9,
    )
    figure.tight_layout()
    PLOTS.mkdir(exist_ok=True)
    figure.savefig(PLOTS / "recovery.svg", metadata={"Date": None})
    plt.close(figure)
