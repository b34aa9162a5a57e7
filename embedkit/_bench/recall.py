"""Which texts are near which, and how many of the right ones are found. Pure arithmetic on matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._bulk.search import comparable
from .._hints import NDArray

ROWS = 256  # queries scored at a time: 256 x 100,000 scores are 100 MB


def nearest(queries: NDArray[Any] | None, documents: NDArray[Any], k: int) -> list[list[int]]:
    """For every query the places of its `k` nearest documents, nearest first; None: of every document the others.

    A row of NaN finds nothing and is found by nobody.
    """
    import numpy as np

    found: list[list[int]] = []
    for start, scores in _scores(queries, documents):
        del start
        for row, order in zip(scores, np.argsort(-scores, axis=1, kind="stable")[:, :k], strict=True):
            found.append([int(place) for place in order if row[place] > -np.inf])
    return found


def recall(
    queries: NDArray[Any] | None, documents: NDArray[Any], relevant: Sequence[Sequence[int]], k: int
) -> float | None:
    """The mean share of relevant documents among the first `k`, from 0 to 1; None where no query has any.

    A query with more than `k` relevant documents can find `k` at most, and that counts as all. Documents with equal
    scores (bits have many) share the places that are left among the first `k`: the result is what their order at
    random gives on average, so it does not depend on their order in the file.
    A row of NaN finds nothing, and is found by nobody.
    """
    import numpy as np

    total, counted = 0.0, 0
    for start, scores in _scores(queries, documents):
        least = np.partition(scores, -k, axis=1)[:, -k]
        for row, bound in enumerate(least):
            wanted = relevant[start + row]
            if not wanted:
                continue
            mine, theirs = scores[row, wanted], scores[row]
            above, level = int((theirs > bound).sum()), int((theirs == bound).sum())
            tied = int(((mine == bound) & (mine > -np.inf)).sum())
            found = int((mine > bound).sum()) + (k - above) * tied / level
            total += found / min(k, len(wanted))
            counted += 1
    return total / counted if counted else None


def _scores(queries: NDArray[Any] | None, documents: NDArray[Any]) -> Any:
    """Scores of some queries at a time, with the place of the first: (start, array of shape (some, n))."""
    import numpy as np

    asking = documents if queries is None else queries
    for start in range(0, len(asking), ROWS):
        # Rounded, since a matrix product adds in an order that depends on its shape, and equal texts are to be level.
        scores = np.round(asking[start : start + ROWS] @ documents.T, 6)
        if queries is None:
            scores[np.arange(len(scores)), np.arange(start, start + len(scores))] = -np.inf
        scores[np.isnan(scores)] = -np.inf
        yield start, scores


__all__ = ["comparable", "nearest", "recall"]
