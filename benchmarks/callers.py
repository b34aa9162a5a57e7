"""Impatient callers, whatever they call through: when each
comes, and what became of all of them. Standard library only.

`benchmarks.impatient` uses it in virtual time, `benchmarks.recovery`
over sockets, beside clients that live in another environment.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence

Call = tuple[float, float, bool]  # when it was made, when it ended, whether it succeeded
WELL = 0.99  # of the calls succeed, where a service is called well
STEP = 0.5  # seconds between the moments looked at


def arrivals(seed: int, rate: float, stop: float, start: float = 0.0) -> Iterator[float]:
    """Moments from `start` to `stop` at which callers come, on average
    `rate` a second, independent of each other (a Poisson process).
    """
    chance, moment = random.Random(f"callers {seed}"), start
    while moment < stop:
        yield moment
        moment += chance.expovariate(rate)


def share(calls: Sequence[Call], start: float, stop: float = math.inf) -> float:
    """Of the calls made from `start` to before `stop`, the share that succeeded; 0 where there was none."""
    those = [ok for made, _, ok in calls if start <= made < stop]
    return sum(those) / max(1, len(those))


def recovered(calls: Sequence[Call], over: float) -> float:
    """Seconds from `over` until 99 % of the calls made from then on
    succeed; infinite where that never comes. `calls` are in order.
    """
    if not calls:
        return math.inf
    good = list(itertools.accumulate((ok for _, _, ok in reversed(calls)), initial=0))
    good.reverse()  # of the calls from this one on, how many succeeded
    place = 0
    for number in range(math.ceil((calls[-1][0] - over) / STEP)):
        moment = over + STEP * number
        while calls[place][0] < moment:
            place += 1
        if good[place] >= WELL * (len(calls) - place):
            return moment - over
    return math.inf


def goodput(calls: Sequence[Call], start: float, stop: float) -> float:
    """Calls answered per second of that time."""
    return sum(ok and start <= ended < stop for _, ended, ok in calls) / (stop - start)


def quantile(values: Sequence[float], part: float) -> float:
    """The least of the values that at least this part of them does not exceed; not a number where there is none."""
    return sorted(values)[max(0, math.ceil(part * len(values)) - 1)] if values else math.nan


def p99(calls: Sequence[Call], start: float, stop: float = math.inf) -> float:
    """Seconds within which 99 % of the good answers came to the calls made in that time."""
    return quantile([ended - made for made, ended, ok in calls if ok and start <= made < stop], 0.99)
