"""How fast a job was over its time, from the series of its report."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

PARTS = 60  # of the time, at most


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the time.

    Attributes:
        until: seconds from the beginning of the job to the part's end.
        rows: per second.
        tokens: per second; None where the provider counts none.
        retries: requests sent again, in this part.
    """

    until: float
    rows: float
    tokens: float | None
    retries: float


def rates(series: Sequence[tuple[float, int, int | None, int]]) -> list[Rate]:
    """Rates in at most 60 equal parts of the time; none where no time has passed.

    Args:
        series: (seconds, rows, tokens, retries) so far, at some moments; between them counts grow evenly.
    """
    import numpy as np

    kept: list[tuple[float, int, int | None, int]] = [(0.0, 0, 0, 0)]
    for point in series:
        if point[0] > kept[-1][0]:
            kept.append(point)
        elif len(kept) > 1:
            kept[-1] = (kept[-1][0], *point[1:])
    if len(kept) < 2:  # noqa: PLR2004 (a part has a beginning and an end)
        return []
    times = np.array([each[0] for each in kept])
    ends = np.linspace(0, times[-1], min(PARTS, len(kept) - 1) + 1)
    seconds = ends[1]
    rows, retries = (np.diff(np.interp(ends, times, [float(each[at] or 0) for each in kept])) for at in (1, 3))
    counted = all(each[2] is not None for each in kept)
    tokens = np.diff(np.interp(ends, times, [each[2] or 0 for each in kept]))
    return [
        Rate(
            until=float(ends[part + 1]),
            rows=float(max(0.0, rows[part] / seconds)),
            tokens=float(max(0.0, tokens[part] / seconds)) if counted else None,
            retries=float(max(0.0, retries[part])),
        )
        for part in range(len(rows))
    ]
