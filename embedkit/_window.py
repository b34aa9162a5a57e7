"""How many requests may be in flight: as many as the endpoint answers well, found without being told.

Additive increase, multiplicative decrease (AIMD). A round is as many answers as the window is wide. After a round in which the window
was full and answers came about as fast as they ever did, it grows: doubling until the first trouble, by one from then on. A 429, a
timeout or answers much slower than before make it smaller. The width at which the last refusal came is a wall: it is approached
quickly, then touched only now and then. Arithmetic only; `now` is an argument.
"""

from __future__ import annotations

import math

HOLD, SHRINK = 1.5, 2.5  # how many times the best latency a round may take before the window stops growing, gets smaller
GRAIN = 0.05  # seconds that answers may take without telling anything: a busy loop of our own is as slow with many in flight
PATIENCE = 300  # answers at a wall before it is tried again: one refusal in 300 is what looking costs
ERA = 30.0  # seconds, and at least so many rounds, after which the best latency is measured anew
ROUNDS = 50


class Window:
    """The number of requests that may be in flight, between 1 and `ceiling`."""

    __slots__ = (
        "_answers",
        "_best",
        "_ceiling",
        "_cut",
        "_era",
        "_full",
        "_held",
        "_kept",
        "_patience",
        "_quick",
        "_rounds",
        "_seconds",
        "_wall",
        "size",
    )  # fmt: skip

    def __init__(self, start: int, ceiling: int) -> None:
        self.size = start
        self._ceiling = ceiling
        self._quick = True  # doubling still
        self._wall = math.inf
        self._best = math.inf  # mean seconds of the best round of this era
        self._era = -math.inf
        self._rounds = 0
        self._kept: int | None = None  # the size to come back to after the best latency was measured with fewer in flight
        self._cut = -math.inf
        self._answers, self._seconds, self._full, self._patience = 0, 0.0, False, 0

    def answered(self, now: float, seconds: float, busy: int) -> None:
        """A good answer after so many seconds, with `busy` requests in flight, this one included."""
        self._answers += 1
        self._seconds += seconds
        self._full = self._full or busy >= self.size
        if self._answers >= self.size:
            self._end_round(now, self._seconds / self._answers)

    def refused(self, now: float, sent: float, busy: int) -> None:
        """A 429 (or "overloaded") to a request sent at `sent`; those sent before the last cut say nothing new."""
        if sent >= self._cut:
            self._wall = min(self.size, busy)
            self._to(now, self._wall * (0.5 if self._quick else 0.9))

    def late(self, now: float, sent: float, busy: int) -> None:
        """No answer in time."""
        if sent >= self._cut:
            self._to(now, min(self.size, busy) / 2)

    def _to(self, now: float, size: float) -> None:
        self.size = max(1, math.floor(size))
        self._quick = False
        self._cut = now
        self._kept = None
        self._start_round()

    def _end_round(self, now: float, mean: float) -> None:
        full, answers = self._full, self._answers
        self._start_round()
        self._rounds += 1
        if self._kept is not None:  # the round with fewer in flight is over
            self.size, self._kept, self._best = self._kept, None, mean
            return
        self._best = min(self._best, mean)
        if self._era == -math.inf:
            self._era = now
        elif now - self._era > ERA and self._rounds > ROUNDS and self.size > 1:
            self._era, self._rounds = now, 0
            self._kept, self.size = self.size, max(1, self.size // 2)
            return
        best = max(self._best, GRAIN)
        if mean > SHRINK * best:
            self._to(now, 0.8 * self.size)
        elif mean > HOLD * best:
            self._quick = False
        elif full:
            self._grow(answers)

    def _start_round(self) -> None:
        self._answers, self._seconds, self._full = 0, 0.0, False

    def _grow(self, answers: int) -> None:
        wider = self.size * 2 if self._quick else self.size + 1
        if wider >= self._wall:
            self._patience += answers
            if self._patience < PATIENCE:
                self.size = max(self.size, int(self._wall) - 1)
                return
            self._wall = math.inf
        self._patience = 0
        self.size = min(wider, self._ceiling)
