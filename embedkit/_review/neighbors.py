"""Whether near rows are nearer than any two: some rows of a sample against the whole output, and the sample."""

from __future__ import annotations

from typing import Any

import msgspec

from .._bulk.embedded import Block, Embedded
from .._bulk.search import Match, compare, directions, metric, nearest
from .._hints import NDArray
from .._types import PACKED, DType
from .sample import Sampled, bins

PROBES = 64  # rows whose nearest are looked for, in one pass over the output
NEAREST = 4  # of each
SAME = 0.9999  # a score from here on is of vectors that hardly differ
PERCENTS = (5, 25, 50, 75, 95)


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Scores: how many, their percentiles (5, 25, 50, 75, 95), and the share of them in each bin."""

    count: int
    percentiles: list[float]
    shares: list[float]


class Neighbors(msgspec.Struct, frozen=True, kw_only=True):
    """What some rows of the output are near to.

    Attributes:
        metric: what a score is.
        edges: of the bins, one more than there are bins.
        nearest: scores of a row and the row that is nearest to it in the whole output.
        random: scores of two rows of the sample, picked blindly.
        same: how many of the rows have a nearest one whose vector hardly differs.
        found: (row, the nearest other rows), the nearest first.
    """

    metric: str
    edges: list[float]
    nearest: Spread
    random: Spread
    same: int
    found: list[tuple[int, list[Match]]]


def neighbors(output: Embedded, sample: Sampled, dtype: DType) -> Neighbors | None:
    """Read the output once more; None where there are no two rows that can be compared."""
    import numpy as np

    probes, numbers = sample.vectors[:PROBES], sample.numbers[:PROBES]
    found = [
        (int(row), [match for match in matches if match.row != row][:NEAREST])
        for row, matches in zip(numbers, nearest(output, probes, dtype, NEAREST + 1), strict=True)
    ]
    found = [(row, matches) for row, matches in found if matches]
    queries = probes if dtype in PACKED else directions(probes, dtype)
    scores = compare(Block(0, sample.vectors), queries, dtype)
    pairs = scores[np.isfinite(scores) & (sample.numbers[None] != numbers[:, None])]
    if not found or not len(pairs):
        return None
    best = np.array([matches[0].score for _, matches in found], np.float32)
    low, high = float(min(np.min(best), np.min(pairs))), float(max(np.max(best), np.max(pairs)))
    if high - low < 0.01:  # noqa: PLR2004 (all scores are one and the same: a bin of some width around them)
        low, high = low - 0.05, high + 0.05
    edges = np.linspace(low, high, bins(len(pairs)) + 1)
    return Neighbors(
        metric=metric(dtype),
        edges=[float(each) for each in edges],
        nearest=_spread(best, edges),
        random=_spread(pairs, edges),
        same=int((best >= SAME).sum()),
        found=found,
    )


def _spread(scores: NDArray[Any], edges: NDArray[Any]) -> Spread:
    import numpy as np

    counts = np.histogram(np.clip(scores, edges[0], edges[-1]), edges)[0]
    return Spread(
        count=len(scores),
        percentiles=[float(each) for each in np.percentile(scores, PERCENTS)],
        shares=[float(each) for each in counts / len(scores)],
    )
