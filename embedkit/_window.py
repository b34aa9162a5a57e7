"""How many requests may be in flight: as many as the endpoint answers well, found without being told.

Additive increase, multiplicative decrease (AIMD). A round is as many answers as the window is wide. After a round in which the window
was full and answers came about as fast as they ever did, it grows: doubling until the first trouble, by one from then on. A 429 or a
timeout makes it smaller, and the number in flight at which a 429 came is a wall: approached quickly, then touched only now and then.

Slower answers may mean that there are too many at once, or that the endpoint or the texts have changed. To tell, one round goes out
with a quarter in flight (as BBR does: draft-cardwell-ccwg-bbr, ProbeRTT): what is faster then was waiting in a queue, and the window
becomes as wide as that queue allows. Arithmetic only; `now` is an argument.
"""

from __future__ import annotations

import math

HOLD = 1.5  # how many times the best latency a round may take before the window stops growing
LEAST = 16  # answers in a round, at least: a mean over fewer says little
ROUNDS = 50  # between two looks with a quarter in flight, unless the last one found a queue
PATIENCE = 300  # answers at a wall before it is tried again: one refusal in 300 is what looking costs


class Window:
    """The number of requests that may be in flight, between 1 and `ceiling`."""

    __slots__ = (
        "_answers",
        "_best",
        "_ceiling",
        "_cut",
        "_full",
        "_kept",
        "_loaded",
        "_patience",
        "_quick",
        "_rounds",
        "_seconds",
        "_wall",
        "seconds",
        "size",
    )  # fmt: skip

    def __init__(self, start: int, ceiling: int) -> None:
        self.size = start
        self.seconds = 0.0  # that answers took in the last round
        self._ceiling = ceiling
        self._quick = True  # doubling still
        self._wall = math.inf
        self._cut = -math.inf  # when the size was last cut
        self._best = math.inf  # mean seconds of the best round
        self._loaded = 0.0  # mean seconds of the last round with all in flight
        self._kept = 0  # the size before the look with a quarter in flight; 0: none is under way
        self._rounds = ROUNDS
        self._answers, self._seconds, self._full, self._patience = 0, 0.0, False, 0

    def answered(self, now: float, seconds: float, busy: int) -> None:
        """A good answer after so many seconds, to a request that made `busy` in flight."""
        if self._kept and now - seconds < self._cut:
            return
        self._answers += 1
        self._seconds += seconds
        self._full = self._full or busy >= self.size
        if self._answers >= max(self.size, LEAST // 2 if self._kept else LEAST):
            self._end_round(now, self._seconds / self._answers)

    def refused(self, now: float, sent: float, busy: int) -> None:
        """Too many at once, says the answer to a request sent at `sent`. One sent before the last cut says nothing new."""
        if sent >= self._cut:
            self._wall = min(self.size, busy)
            self._cut_to(now, self._wall * (0.5 if self._quick else 0.9))

    def late(self, now: float, sent: float) -> None:
        """No answer in time."""
        if sent >= self._cut:
            self._cut_to(now, self.size / 2)

    def _cut_to(self, now: float, size: float) -> None:
        self.size = max(1, math.floor(size))
        self._quick = False
        self._cut = now
        self._kept = 0
        self._start_round()

    def _start_round(self) -> None:
        self._answers, self._seconds, self._full = 0, 0.0, False

    def _end_round(self, now: float, mean: float) -> None:
        full, answers = self._full, self._answers
        self.seconds = mean
        self._start_round()
        if self._kept:
            self._look_back(mean)
            return
        self._rounds += 1
        self._best = min(self._best, mean)
        if mean > HOLD * self._best:
            self._quick = False
            if full and self.size > 2 and self._rounds > ROUNDS:
                self._kept, self._loaded, self._cut = self.size, mean, now
                self.size = max(2, self.size // 4)
        elif full:
            self._grow(answers)

    def _look_back(self, mean: float) -> None:
        """The round with a quarter in flight is over."""
        slower = self._loaded / mean
        self.size = max(1, int(self._kept * min(1.0, HOLD / slower)))
        self._kept, self._best = 0, mean
        self._rounds = ROUNDS if slower > 2 else 0  # even a quarter may have queued: look once more

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
