"""How many places a bulk call may take beside small calls of its account, which stay nearly as fast as alone.

While a service sends nothing, a bulk call takes every place there is. Beside one it begins with few, and is given one
more after every block of small answers that came about as fast as they do without it; after a slower block it gives a
quarter up. A service notices the seconds of its answers, a bulk call only its rate: so the one that does not mind makes
way (as LEDBAT does for the traffic of a network, RFC 6817). Arithmetic only; `now` is an argument.
"""

from __future__ import annotations

import math

FEW = 8  # places to begin with
BLOCK = 16  # small answers whose mean is looked at
SLOWER = 1.25  # times the best mean, from which on the bulk call is taken to be the reason
FORGETS = 1.005  # the best mean is that much worse with every block: the endpoint may have become slower
QUIET = 5.0  # seconds without a small answer after which a bulk call is taken to be alone


class Share:
    """The places of bulk calls.

    Attributes:
        taken: places that bulk calls have.
    """

    __slots__ = ("_beside", "_best", "_count", "_heard", "_places", "_sum", "taken")

    def __init__(self) -> None:
        self.taken = 0
        self._places = FEW
        self._heard = -math.inf  # when the last small answer came
        self._best = math.inf  # mean seconds of the best block
        self._count, self._sum, self._beside = 0, 0.0, False

    def room(self, now: float) -> bool:
        """Whether a bulk call may take one more place, as far as small calls are concerned."""
        return self.taken < self._places or now - self._heard > QUIET

    def answered(self, now: float, seconds: float) -> None:
        """A good answer to a small call, after so many seconds."""
        if now - self._heard > QUIET:  # they begin again: half of what is taken has to do until more is known
            self._places = max(1, self.taken // 2) if self.taken else FEW
            self._count, self._sum, self._beside = 0, 0.0, False
        self._heard = now
        self._count += 1
        self._sum += seconds
        self._beside = self._beside or self.taken > 0
        if self._count >= BLOCK:
            self._end_block()

    def _end_block(self) -> None:
        mean, beside = self._sum / self._count, self._beside
        self._count, self._sum, self._beside = 0, 0.0, False
        if not beside:
            self._places = FEW
        elif mean > SLOWER * self._best:
            self._places = max(1, self._places * 3 // 4)
        else:
            self._places += 1
        self._best = min(self._best * FORGETS, mean)
