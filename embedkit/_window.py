"""How many requests may be in flight: as many as the endpoint answers well, found without being told.

Additive increase, multiplicative decrease (AIMD). A round is as many answers as the window is wide. After a round in which the window
was full and answers came about as fast as they ever did, it grows: doubling until the first trouble, by one from then on. A 429 or a
timeout makes it smaller, and the number in flight at which a 429 came is a wall, touched only now and then.

Slower answers mean that too many wait in a queue, or that the endpoint or the texts have changed. To tell which, one round goes out
with a quarter in flight (as BBR does, to see the round trip without its queue): if that is faster, the window becomes as wide as
answers are nearly as fast. Unless this thread itself was at work most of the time: then answers lay waiting here, and say nothing of the
endpoint. Arithmetic only; `now` is an argument.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

HOLD = 1.5  # how many times the best latency a round may take before the window stops growing
LEAST = 16  # answers in a round, at least: a mean over fewer says little
ROUNDS = 50  # between two looks with a quarter in flight
GRAIN = 0.1  # seconds that answers may take without telling anything: a busy loop of our own is as slow with many in flight
TWICE = 2  # slow rounds before a look: one may be a hiccup of anybody's
OWN = 0.5  # share of a round in which this thread was at work, from which on the delay is its own
PATIENCE = 300  # answers at a wall before it is tried again: one refusal in 300 is what looking costs


class Window:
    """The number of requests that may be in flight, between 1 and `ceiling`.

    Attributes:
        size: that number.
        seconds: how long answers took on average in the last round; 0 before the first is over.
    """

    __slots__ = (
        "_answers",
        "_best",
        "_ceiling",
        "_cut",
        "_full",
        "_kept",
        "_owned",
        "_patience",
        "_quick",
        "_rounds",
        "_since",
        "_slow",
        "_spent",
        "_sum",
        "_wall",
        "_worked",
        "seconds",
        "size",
    )  # fmt: skip

    def __init__(self, start: int, ceiling: int, worked: Callable[[], float] = float) -> None:
        self.size = start
        self.seconds = 0.0
        self._ceiling = ceiling
        self._quick = True  # doubling still
        self._wall = math.inf
        self._patience = 0  # answers since the wall was touched
        self._cut = -math.inf  # when the size was last cut
        self._best = math.inf  # mean seconds of the best round
        self._kept = 0  # the size to come back to after a look; 0: none is under way
        self._rounds = ROUNDS  # since the last look
        self._slow = self._owned = 0  # slow rounds in a row, and those laid to our own account
        self._worked = worked  # processor seconds of this thread; asked once a round
        self._start_round(-math.inf)

    def answered(self, now: float, seconds: float, busy: int) -> None:
        """A good answer after so many seconds, to a request that made `busy` in flight."""
        if self._kept and now - seconds < self._cut:
            return  # it was sent before the look
        self._answers += 1
        self._sum += seconds
        if busy >= self.size:
            self._full = True
        if self._answers >= self.size and self._answers >= (LEAST // 2 if self._kept else LEAST):
            self._end_round(now)

    def refused(self, now: float, sent: float, busy: int) -> None:
        """Too many at once, says the answer to a request sent at `sent`. One sent before the last cut says nothing new."""
        if sent >= self._cut:
            self._wall = min(self.size, busy)
            self._cut_to(now, self._wall * (0.5 if self._quick else 0.9))

    def late(self, now: float, sent: float) -> None:
        """No answer in time, or another sign that there may be far too many."""
        if sent >= self._cut:
            self._cut_to(now, self.size * 0.5)

    def _cut_to(self, now: float, size: float) -> None:
        self.size = max(1, math.floor(size))
        self._quick = False
        self._cut = now
        self._kept = 0
        self._start_round(now)

    def _start_round(self, now: float) -> None:
        self._answers, self._sum, self._full = 0, 0.0, False
        self._since, self._spent = now, self._worked()

    def _end_round(self, now: float) -> None:
        before, self.seconds = self.seconds, self._sum / self._answers
        full, answers = self._full, self._answers
        own = self._worked() - self._spent > OWN * (now - self._since)
        self._start_round(now)
        if self._kept:
            self._look_back(before / max(self.seconds, 1e-9))
            return
        self._rounds += 1
        self._best = min(self._best, self.seconds)
        if self.seconds > HOLD * max(self._best, GRAIN):
            if own and self._owned < ROUNDS:  # once in a while it looks all the same: the endpoint may be slow besides
                self._owned += 1
                return
            self._owned = 0
            self._quick = False
            self._slow += 1
            if self._slow >= TWICE and full and self.size > 2 and self._rounds > ROUNDS:  # noqa: PLR2004 (else a quarter is no fewer)
                self._kept, self._cut = self.size, now
                self.size = max(2, self.size // 4)
            return
        self._slow = 0
        if full:
            self._grow(answers)

    def _look_back(self, slower: float) -> None:
        """The round with a quarter in flight is over, and the one before it took `slower` times as long."""
        self._best = self.seconds
        self.size = max(1, int(self._kept * min(1.0, HOLD / slower)))
        self._kept = 0
        self._rounds = ROUNDS if slower > 2 else 0  # noqa: PLR2004 (twice: then even a quarter may have queued, look again)

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
