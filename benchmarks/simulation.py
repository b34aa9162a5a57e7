"""Pacing against servers that throttle and do not say how, in
virtual time: how much of their quota is used, how much is refused.

For every server: the window found and what is granted per second in the steady state; the share of the quota used,
or where there is none of what the best fixed number of requests in flight is granted (a sweep, without any
pacing); the share of requests refused, in the steady state and in the first minute; and the requests given up. The
worst of several seeds each. Then four independent processes on one quota, which know nothing of each other, and
the least that one of them got beside the most.

Then impatient callers (`benchmarks.service`): a service whose callers give up after a while, and a provider that is ill
for ten seconds; a row that misses a bound is marked.

    python -m benchmarks.simulation                              both tables
    python -m benchmarks.simulation patient [--plot]             the first, and the plots in benchmarks/plots
    python -m benchmarks.simulation impatient [--quick]          the second; parts of it by --fault, --load, --patience, …
    python -m benchmarks.simulation bulk                         a bulk call beside a service
    python -m benchmarks.simulation cold                         100 calls at once on a cold client
    python -m benchmarks.simulation recovery --beside CHECKOUT   a plot of one recovery, beside an older engine's
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import service
from benchmarks.impatient import CONFIGURATIONS
from benchmarks.virtual import OVERLOADED, Bucket, Calendar, Capped, Client, Cost, Knee, Server, now, run
from embedkit import Rate
from embedkit._embedders.http import CEILING

SEEDS = (1, 2, 3)
SWEEP = (1, 2, 3, 4, 5, 6, 8, 12, 16, 18, 20, 24, 32, 36, 48, CEILING)
FIXED = (30.0, 150.0)  # from when to when a fixed number is measured
PLOTS = Path(__file__).parent / "plots"
TPM = 1_000_000


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A server and who asks it.

    Attributes:
        quota: what it grants per second, after any change; None where it has no such thing.
        steady: from when to when is measured.
        client: keywords of each client.
    """

    name: str
    make: Callable[[int], Server]
    quota: float | None = None
    callers: int = 1
    steady: tuple[float, float] = (120.0, 600.0)
    client: dict[str, Any] = {}
    plot: str = ""


class Outcome(msgspec.Struct, frozen=True):
    """What came of one run; `trace` holds (time, window, pace) of the first client."""

    server: Server
    clients: list[Client]
    trace: list[tuple[float, int, float]]


def batches(believed: float) -> Callable[[random.Random], Cost]:
    """Batches of 2,000 to 300,000 tokens, 30,000 in the median;
    the client believes them to be that much of what they are.
    """

    def cost(chance: random.Random) -> Cost:
        tokens = int(min(300_000, max(2_000, chance.lognormvariate(10.3, 0.8))))
        return tokens, int(tokens * believed)

    return cost


HALF = {300.0: {"rate": 25.0}}
DOUBLE = {300.0: {"rate": 100.0}}
AFTER = (420.0, 600.0)
HOURS = (1200.0, 6000.0)
DAY = (3600.0, 21600.0)
TOKENS = b" on tokens per min (TPM)"
CASES = [
    Case(name="bucket 50/s, Retry-After", make=lambda seed: Bucket(seed, 50, 50), quota=50, plot="bucket"),
    Case(name="bucket 50/s, no hint", make=lambda seed: Bucket(seed, 50, 50, hints=False), quota=50,
     plot="bucket-no-hint"),
    Case(name="bucket 50/s, holds a minute", make=lambda seed: Bucket(seed, 50, 3000), quota=50),
    Case(name="bucket 5/s, Retry-After", make=lambda seed: Bucket(seed, 5, 10), quota=5),
    Case(name="bucket 5/s, no hint", make=lambda seed: Bucket(seed, 5, 10, hints=False), quota=5),
    Case(name="bucket 200/s, Retry-After", make=lambda seed: Bucket(seed, 200, 200), quota=200),
    Case(name="bucket 50/s, answers take 1 s", make=lambda seed: Bucket(seed, 50, 50, latency=1.0), quota=50),
    Case(name="bucket 3/min, Retry-After", make=lambda seed: Bucket(seed, 0.05, 3), quota=0.05, steady=DAY),
    Case(name="bucket 3/min, no hint", make=lambda seed: Bucket(seed, 0.05, 3, hints=False), quota=0.05, steady=DAY),
    Case(name="bucket 50/s, halved to 25/s", make=lambda seed: Bucket(seed, 50, 50, later=HALF), quota=25,
     steady=AFTER, plot="halved"),
    Case(name="bucket 50/s, doubled to 100/s", make=lambda seed: Bucket(seed, 50, 50, later=DOUBLE), quota=100,
     steady=AFTER, plot="doubled"),
    Case(name="bucket 50/s, in headers", make=lambda seed: Bucket(seed, 50, 3000, tells="requests"), quota=50,
     plot="headers"),
    Case(name="bucket 5/s, in headers", make=lambda seed: Bucket(seed, 5, 300, tells="requests"), quota=5),
    Case(name="60 a calendar minute", make=lambda seed: Calendar(seed, 60), quota=1, steady=DAY),
    Case(name="3000 a calendar minute", make=lambda seed: Calendar(seed, 3000), quota=50, plot="calendar"),
    Case(name="3000 a calendar minute, in headers", make=lambda seed: Calendar(seed, 3000, tells="requests"), quota=50),
    Case(
        name="1M tokens/min, Retry-After", make=lambda seed: Bucket(seed, TPM / 60, TPM, words=TOKENS), quota=TPM / 60,
        client={"costs": batches(1.0)}, steady=HOURS,
    ),
    Case(
        name="60M tokens/min, Retry-After", make=lambda seed: Bucket(seed, TPM, TPM, words=TOKENS), quota=TPM,
        client={"costs": batches(1.0)}, plot="tokens",
    ),
    Case(
        name="60M tokens/min, no hint", make=lambda seed: Bucket(seed, TPM, TPM, words=TOKENS, hints=False), quota=TPM,
        client={"costs": batches(1.0)},
    ),
    Case(
        name="1M tokens/min, rate= told, underestimated", make=lambda seed: Bucket(seed, TPM / 60, TPM), quota=TPM / 60,
        client={"costs": batches(0.7), "rate": Rate(tokens_per_minute=TPM)}, steady=HOURS,
    ),
    Case(
        name="bucket 50/s, rate= told 40/s", make=lambda seed: Bucket(seed, 50, 50), quota=40,
        client={"rate": Rate(requests_per_minute=2400)},
    ),
    Case(
        name="bucket 50/s, rate= told 100/s", make=lambda seed: Bucket(seed, 50, 50), quota=50,
        client={"rate": Rate(requests_per_minute=6000)},
    ),
    Case(name="32 at once, 429", make=lambda seed: Capped(seed, 32), plot="cap"),
    Case(name="4 at once, 429", make=lambda seed: Capped(seed, 4)),
    Case(name="1 at once, 429", make=lambda seed: Capped(seed, 1)),
    Case(name="16 at once, 429, answers take 2 s", make=lambda seed: Capped(seed, 16, latency=2.0)),
    Case(name="16 at once, 429, answers take 50 ms", make=lambda seed: Capped(seed, 16, latency=0.05)),
    Case(name="16 at once, 429 overloaded (TEI)", make=lambda seed: Capped(seed, 16, body=OVERLOADED)),
    Case(name="32 at once, 503", make=lambda seed: Capped(seed, 32, status=503)),
    Case(name="knee at 1", make=lambda seed: Knee(seed, 1)),
    Case(name="knee at 4, answers take 2 s", make=lambda seed: Knee(seed, 4, latency=2.0)),
    Case(name="knee at 24", make=lambda seed: Knee(seed, 24), plot="knee"),
    Case(name="knee at 24, answers vary twofold", make=lambda seed: Knee(seed, 24, spread=0.5)),
    Case(name="knee at 48", make=lambda seed: Knee(seed, 48)),
    Case(name="no knee", make=Server),
    Case(name="knee at 24, answers get 4 times slower",
     make=lambda seed: Knee(seed, 24, later={300.0: {"latency": 1.0}}), steady=AFTER),
    Case(name="knee at 24, 4 times faster",
     make=lambda seed: Knee(seed, 24, latency=1.0, later={300.0: {"latency": 0.25}}), steady=AFTER),
    Case(name="knee moves from 8 to 48", make=lambda seed: Knee(seed, 8, later={300.0: {"knee": 48}}), steady=AFTER),
    Case(name="knee moves from 48 to 8", make=lambda seed: Knee(seed, 48, later={300.0: {"knee": 8}}), steady=AFTER,
     plot="knee-moves"),
]  # fmt: skip
FOUR = [
    Case(name="bucket 50/s, Retry-After", make=lambda seed: Bucket(seed, 50, 50), quota=50, callers=4, plot="four"),
    Case(name="bucket 50/s, no hint", make=lambda seed: Bucket(seed, 50, 50, hints=False), quota=50, callers=4),
    Case(name="bucket 50/s, in headers", make=lambda seed: Bucket(seed, 50, 3000, tells="requests"), quota=50,
     callers=4),
    Case(name="bucket 5/s, Retry-After", make=lambda seed: Bucket(seed, 5, 10), quota=5, callers=4),
    Case(name="32 at once, 429", make=lambda seed: Capped(seed, 32), callers=4),
    Case(name="8 at once, 429 overloaded (TEI)", make=lambda seed: Capped(seed, 8, body=OVERLOADED), callers=4),
]  # fmt: skip


def simulate(case: Case, seed: int, *, every: float = 1.0) -> Outcome:
    """One run of a case."""
    seconds = case.steady[1]

    async def main() -> Outcome:
        server = case.make(seed)
        clients = [Client(server, 10 * seed + each, **case.client) for each in range(case.callers)]
        working = [asyncio.create_task(client.work(seconds)) for client in clients]
        trace = []
        while now() < seconds - every:
            await asyncio.sleep(every)
            trace.append((now(), clients[0].window.size, clients[0].allowed))
        await asyncio.gather(*working)
        return Outcome(server, clients, trace)

    return run(main())


def best_fixed(case: Case) -> tuple[int, float]:
    """The number in flight at which most is granted, and how much
    that is per second; whatever changes has changed already.
    """

    async def granted(size: int) -> float:
        server = case.make(SEEDS[0])
        server.later = dict.fromkeys([0.0], *server.later.values()) if server.later else {}
        await Client(server, SEEDS[0], fixed=size, costs=case.client.get("costs")).work(FIXED[1])
        return server.use(*FIXED)[0]

    found = {size: run(granted(size)) for size in SWEEP}
    size = next(size for size in SWEEP if found[size] > 0.995 * max(found.values()))
    return size, found[size]


def line(case: Case) -> list[str]:
    start, stop = case.steady
    outcomes = [simulate(case, seed) for seed in SEEDS]
    uses = [outcome.server.use(start, stop) for outcome in outcomes]
    used, refused = min(granted for granted, _ in uses), max(share for _, share in uses)
    early = statistics.median(outcome.server.use(0.0, 60.0)[1] for outcome in outcomes)
    windows = [size for outcome in outcomes for moment, size, _ in outcome.trace if moment >= start]
    shares = [sorted(client.done for client in outcome.clients) for outcome in outcomes]
    size, most = (0, case.quota) if case.quota else best_fixed(case)
    return [
        case.name,
        f"{size} → {most:,.4g}/s" if size else "",
        f"{statistics.median(windows):.0f} → {used:,.4g}/s",
        f"{used / most:.1%}",
        f"{refused:.2%}",
        f"{early:.1%}",
        str(sum(client.lost for outcome in outcomes for client in outcome.clients)),
        *([f"{min(each[0] / each[-1] for each in shares):.0%}"] if case.callers > 1 else []),
    ]


HEAD = ["server", "best fixed", "found", "used", "refused", "at first", "given up"]


def show(head: Sequence[str], rows: Sequence[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, ["-" * width for width in widths], *rows):
        first, *others = (
            f"{cell:{'>' if number else '<'}{width}}"
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join((first, *others)).rstrip())


def plot(case: Case) -> None:
    """Granted and refused per second, and the window and the pace of the first client, over the time of one run."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "embedkit", "font.size": 8, "axes.spines.top": False})
    import matplotlib.pyplot as plt

    outcome = simulate(case, SEEDS[0])
    stop, bin_ = case.steady[1], 5.0
    moments = [bin_ * each for each in range(int(stop / bin_))]
    granted = [outcome.server.use(moment, moment + bin_)[0] for moment in moments]
    refused = [sum(moment <= each < moment + bin_ for each in outcome.server.refused) / bin_ for moment in moments]
    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(7, 3.8), height_ratios=(3, 2))
    above.step(moments, granted, where="post", color="tab:blue", linewidth=1, label="granted")
    above.set_ylabel("tokens granted/s" if "costs" in case.client else "granted/s")
    above.set_ylim(bottom=0)
    if case.quota:
        above.axhline(case.quota, color="black", linewidth=0.6, linestyle=":", label="quota (after any change)")
    other = above.twinx()
    other.step(moments, refused, where="post", color="tab:red", linewidth=1, label="refused")
    other.set_ylabel("refused/s", color="tab:red")
    other.set_ylim(0, max(4.0, 4 * max(refused)))
    times = [moment for moment, _, _ in outcome.trace[::2]]
    below.step(times, [size for _, size, _ in outcome.trace[::2]], where="post", color="tab:green", linewidth=1)
    below.set_ylabel("window", color="tab:green")
    below.set_ylim(0, 1.08 * CEILING)
    below.set_xlabel("seconds")
    if any(allowed < float("inf") for _, _, allowed in outcome.trace):
        pace = below.twinx()
        pace.plot(
            times,
            [min(allowed, 2 * max(granted)) for _, _, allowed in outcome.trace[::2]],
            color="tab:orange",
            linewidth=1,
        )
        pace.set_ylabel("pace found/s", color="tab:orange")
        pace.set_ylim(0, 2 * max(granted))
    who = f", {case.callers} independent callers (window and pace of one)" if case.callers > 1 else ""
    figure.suptitle(case.name + who, fontsize=9)
    figure.tight_layout()
    PLOTS.mkdir(exist_ok=True)
    figure.savefig(PLOTS / f"pacing-{case.plot}.svg", metadata={"Date": None})
    plt.close(figure)


PARTS = ("patient", "impatient", "bulk", "cold", "recovery")


def patient(*, draw: bool) -> None:
    """The first table, and its plots."""
    print(
        f"One caller; of {len(SEEDS)} seeds the worst. Used: of the quota, or of what the best fixed number in flight is granted.\n"
    )
    show(HEAD, [line(case) for case in CASES])
    print("\nFour independent callers; the best fixed number is one caller's.\n")
    show([*HEAD, "least/most"], [line(case) for case in FOUR])
    if draw:
        for case in [*CASES, *FOUR]:
            if case.plot:
                plot(case)


def impatient(options: argparse.Namespace) -> int:
    """The second table. How many rows miss a bound."""
    more = {"faults": options.fault, "answers": options.answer, "configurations": options.configuration}
    chosen = {name: value for name, value in more.items() if value}
    common = {"quick": options.quick, "queue": options.queue, "ill": options.ill}
    if options.quick and not (options.load or options.patience):
        chosen.setdefault("answers", [0.2])
        rows = [*service.cases(**chosen, loads=[0.9], patiences=[1.0, 5.0], **common)]
        chosen.setdefault("configurations", ["default"])
        rows += service.cases(**chosen, loads=[2.0], patiences=[5.0], **common)
    else:
        rows = [
            *service.cases(
                **chosen, loads=options.load or service.LOADS, patiences=options.patience or service.PATIENCES, **common
            )
        ]
    if not rows:
        raise SystemExit("no row is left: a patience below twice the answer's time has none")
    return service.table(rows, options.seeds)


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        msg = f"{text} is no number above 0"
        raise argparse.ArgumentTypeError(msg)
    return value


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Whoever chooses among impatient callers wants these only."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.simulation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "part", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; patient and impatient where left out"
    )
    parser.add_argument(
        "--plot", action="store_true", help="draw the plots of patient callers as well (needs matplotlib)"
    )
    parser.add_argument(
        "--beside", type=Path, metavar="CHECKOUT", help="of an older engine (recovery; needs matplotlib)"
    )
    parser.add_argument("--fault", nargs="+", choices=service.FAULTS)
    parser.add_argument(
        "--load", nargs="+", type=positive, help="calls offered, as a share of what the endpoint can do"
    )
    parser.add_argument("--patience", nargs="+", type=positive, help="seconds")
    parser.add_argument("--configuration", nargs="+", choices=list(CONFIGURATIONS))
    parser.add_argument("--answer", nargs="+", type=positive, help="seconds that an answer takes")
    parser.add_argument("--ill", type=float, default=10.0, help="seconds that the fault lasts (10)")
    parser.add_argument(
        "--queue",
        action="store_true",
        help="the endpoint lets come one after the other, and finishes what it has begun",
    )
    parser.add_argument("--seeds", type=int, default=1, help="of so many the worst (1)")
    parser.add_argument(
        "--quick", action="store_true", help="under two minutes: load 0.9 and patience 1 and 5, watched for less long"
    )
    options = parser.parse_args(arguments)
    if wrong := [each for each in options.part if each not in PARTS]:
        parser.error(f"unknown {', '.join(wrong)}; parts: {', '.join(PARTS)}")
    chosen = (
        options.fault or options.load or options.patience or options.configuration or options.answer or options.quick
    )
    options.part = options.part or (
        ["recovery"] if options.beside else ["impatient"] if chosen else ["patient", "impatient"]
    )
    if "recovery" in options.part and options.beside is None:
        parser.error("recovery needs --beside CHECKOUT: a git worktree or an unpacked archive of the older engine")
    return options


def main() -> None:
    options = parsed()
    answers = options.answer or service.ANSWERS
    if "patient" in options.part:
        patient(draw=options.plot)
    if "impatient" in options.part:
        print("\nImpatient callers; goodput as a share of what the endpoint can do.\n")
        impatient(options)
    if "bulk" in options.part:
        print("\nA bulk call beside a service of 0.3 times what the endpoint can do, on one account.\n")
        service.bulk_table(options.seeds, answers, options.queue)
    if "cold" in options.part:
        print("\nA hundred calls of one small text at once on a cold client.\n")
        service.cold_table(options.seeds, answers)
    if "recovery" in options.part:
        service.plot(options.beside)


if __name__ == "__main__":
    main()
