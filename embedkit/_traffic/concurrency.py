"""How many requests may be in flight: as many as the endpoint answers well, found without being told.

Additive increase, multiplicative decrease (AIMD). A round is as many answers as the window is wide. After a round in
which the window was full and answers came about as fast as they ever did, it grows: doubling until the first trouble,
by one from then on. A 429 or a timeout makes it smaller, and the number in flight at which a 429 came again and again
is a wall, touched only now and then.

What trouble took is won back about as fast as it was lost, once answers are good again: doubling with every round up to
nearly the old width, then by one (slow start and its threshold, as in TCP: RFC 5681, 3.1). Trouble that comes after
hardly a good answer says less of the width than of the endpoint: then the threshold comes down but little, and no wall
is seen.

Slower answers mean that too many wait in a queue, or that the endpoint or the texts have changed. To tell which, one
round goes out with fewer in flight (as BBR does, to see the round trip without its queue): somewhat fewer than would do
if all the delay were the queue's, and at least a quarter. If that is faster, the window becomes as wide as answers are
nearly as fast. Unless this thread itself was at work most of the time: then answers lay waiting here, and say nothing
of the endpoint. Arithmetic only; `now` is an argument.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

HOLD = 1.5  # how many times the best latency a round may take before the window stops growing
LEAST = 16  # answers in a round, at least: a mean over fewer says little
ROUNDS = 50  # between two looks with fewer in flight
# Seconds; quicker answers tell nothing: a busy loop of our own is as slow with many in flight.
GRAIN = 0.1
TWICE = 2  # slow rounds before a look: one may be a hiccup of anybody's
# By how many times fewer a look is made with: at most; and beyond what would do if all the delay were the queue's.
QUARTER, FURTHER = 4.0, 1.25
# If our own thread was busy for more than this share of a round, slow answers are our fault, not the endpoint's.
OWN = 0.5
PATIENCE = 300  # answers at a wall before it is tried again: one refusal in 300 is what looking costs
CALM = 1000  # good answers after which trouble is the first again: no wall, and the old width is still believed
# Good answers in a row after which a size is taken to work; an endpoint that fails half its requests rarely gives 8.
SURE = 8
NEARLY = 0.9  # of the old width: won back by doubling
# What is left of that threshold after more trouble before it was reached: after timeouts, after refusals.
FADES = {True: 0.9, False: 0.97}


class ConcurrencyLimit:
    """The number of requests that may be in flight, between 1 and `ceiling`.

    Attributes:
        size: that number.
        seconds: how long answers took on average in the last round; 0 before the first is over.
    """

    __slots__ = (
        "_answers",
        "_before",
        "_best",
        "_calm",
        "_ceiling",
        "_cut",
        "_failed",
        "_full",
        "_goal",
        "_good",
        "_kept",
        "_lost",
        "_lost_sum",
        "_mean",
        "_need",
        "_owned",
        "_patience",
        "_quick",
        "_rounds",
        "_since",
        "_slow",
        "_sound",
        "_spent",
        "_sum",
        "_wall",
        "_won",
        "_worked",
        "seconds",
        "size",
    )  # fmt: skip

    def __init__(self, start: int, ceiling: int, worked: Callable[[], float] = float) -> None:
        self.size = start
        self.seconds = self._mean = 0.0
        self._ceiling = ceiling
        self._quick = True  # doubling still
        self._wall = math.inf
        self._patience = 0  # answers since the wall was touched
        self._cut = -math.inf  # when the size was last cut
        self._before = self._goal = 0  # the size before the trouble, and what of it is won back by doubling
        self._good = 0  # good answers, to what was sent since the last cut, since the size last changed
        self._need = LEAST  # so many are a round
        self._sound = True  # there were enough of them to say that this size is borne
        self._won = False  # something was won back since the last cut
        self._failed = 0  # times that more trouble came after that
        self._calm = CALM  # good answers since the last trouble at a size that was borne
        self._best = math.inf  # mean seconds of the best round
        self._kept = 0  # the size to come back to after a look; 0: none is under way
        self._rounds = ROUNDS  # since the last look
        self._slow = self._owned = 0  # slow rounds in a row, and those laid to our own account
        self._worked = worked  # processor seconds of this thread; asked once a round
        self._start_round(-math.inf)

    def on_success(self, now: float, seconds: float, busy: int) -> None:
        """A good answer after so many seconds, to a request that made `busy` in flight."""
        if self._kept and now - seconds < self._cut:
            return  # it was sent before the look
        if now - seconds >= self._cut:
            self._good += 1
            if self._good >= self._need:
                self._win_back(now)
        if self._calm < CALM:
            self._calm += 1
        self._answers += 1
        self._sum += seconds
        if busy >= self.size:
            self._full = True
        ended = self._answers + self._lost
        if ended >= self.size and ended >= (LEAST // 2 if self._kept else LEAST):
            self._end_round(now)

    def on_given_up(self, seconds: float) -> None:
        """Whoever waited for an answer is gone after so many seconds: it would have taken at least as long."""
        if seconds > self.seconds > 0:
            self._lost += 1
            self._lost_sum += seconds

    def on_rejected(self, now: float, sent: float, busy: int) -> None:
        """A request sent at `sent` was refused as one too many. One sent before the last cut says nothing new."""
        if sent >= self._cut:
            size = min(self.size, busy)
            # Otherwise far more went well before the trouble.
            if self._sound and self._calm < CALM and 2 * size >= self._before:
                self._wall = size
            self._cut_to(now, size * (0.5 if self._quick else 0.9), late=False)

    def on_timeout(self, now: float, sent: float) -> None:
        """No answer in time, or another sign that there may be far too many."""
        if sent >= self._cut:
            self._cut_to(now, self.size * 0.5, late=True)

    def _cut_to(self, now: float, size: float, *, late: bool) -> None:
        if self._sound:
            width = self._kept or self.size
            if self._calm < CALM and 2 * width < self._before:  # a few good answers in a row do not make it all well
                self._before = width = int(self._before * FADES[late])
            else:
                self._before = width if self._calm < CALM else max(self._before, width)
            self._goal = int(width * NEARLY)
            self._calm = self._failed = 0
        elif self.size > 1:  # at one at a time, trouble says nothing of how many are too many
            self._goal = int(self._goal * FADES[late])
            self._failed += self._won
        if self._before >= self._wall:
            self._before, self._goal = int(self._wall) - 1, int(self._wall * NEARLY)
        self.size = max(1, math.floor(size))
        self._quick = self._sound = self._won = False
        self._cut = now
        self._kept = 0
        self._await_round(now)

    def _await_round(self, now: float) -> None:
        """Wait for a round of good answers: a longer one after each failed attempt to win something back."""
        self._good = 0
        self._need = max(self.size, min(SURE, 1 << self._failed))
        self._start_round(now)

    def _win_back(self, now: float) -> None:
        """A round of good answers is over."""
        self._sound = self._sound or self._good >= SURE
        if self.size < self._before and not self._kept:
            self.size = min(2 * self.size, self._goal) if self.size < self._goal else self.size + 1
            self._won = True
            self._await_round(now)
        elif self._sound:
            self._good, self._need = 0, LEAST
        else:
            self._need = SURE

    def _start_round(self, now: float) -> None:
        self._answers, self._sum, self._full = 0, 0.0, False
        self._lost, self._lost_sum = 0, 0.0
        self._since, self._spent = now, self._worked()

    def _end_round(self, now: float) -> None:
        # A request given up says how long callers wait, but not how fast the endpoint answers: it may stand still.
        self.seconds = (self._sum + self._lost_sum) / (self._answers + self._lost)
        before, self._mean = self._mean, self._sum / self._answers
        full, answers = self._full, self._answers
        own = self._worked() - self._spent > OWN * (now - self._since)
        self._start_round(now)
        if self._kept:
            self._look_back(before / max(self._mean, 1e-9))
            return
        self._rounds += 1
        self._best = min(self._best, self._mean)
        if self._mean > HOLD * max(self._best, GRAIN):
            if own and self._owned < ROUNDS:  # once in a while it looks all the same: the endpoint may be slow besides
                self._owned += 1
                return
            self._owned = 0
            self._quick = False
            self._slow += 1
            if self._slow >= TWICE and full and self.size > 2 and self._rounds > ROUNDS:  # noqa: PLR2004
                self._kept, self._cut = self.size, now
                self.size = max(2, int(self.size / min(QUARTER, FURTHER * self._mean / self._best)))
            return
        self._slow = 0
        if full:
            self._grow(answers)

    def _look_back(self, slower: float) -> None:
        """The round with fewer in flight is over, and the one before it took `slower` times as long."""
        self._best = self._mean
        self.size = max(1, int(self._kept * min(1.0, HOLD / slower)))
        self._kept = self._before = 0
        # At more than twice even these may have queued: look again.
        self._rounds = ROUNDS if slower > 2 else 0  # noqa: PLR2004

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
