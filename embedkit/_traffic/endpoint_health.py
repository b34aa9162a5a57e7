"""How one endpoint of a pool fares: how fast it is, and until when it is left out. Arithmetic only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..errors import EmbedkitError

MIN_EJECTION, MAX_EJECTION = 1.0, 15.0  # seconds out after a failure: the first time, and at most
TOGETHER = 2.5  # seconds out at most, where all are failing: nobody else serves their callers meanwhile
WEIGHT = 0.2  # of the newest answer in the mean speed
FADES = 30.0  # seconds until what was seen of a speed counts half


class EndpointHealth:
    """One endpoint as seen from here: how fast it is, and until when it is left out. Arithmetic only."""

    def __init__(self) -> None:
        self.ejected_until = -math.inf
        self.told_until = -math.inf  # the same, where it named the time itself
        self.failed_at = -math.inf
        self.error: EmbedkitError | None = None  # why it is out
        self._failures = 0
        self._seconds: float | None = None  # an answer takes, per text
        self._seen = -math.inf

    def cost(self, now: float, fill: float) -> float:
        """How long the next answer will take, per text: longer the fuller its window.

        0 until the first answer, so every endpoint is tried. An old measurement counts for less, so a slow endpoint is
        tried again. Infinite after a failure: such an endpoint is used only when the others are full.
        """
        if self.failing:
            return math.inf
        return 0.0 if self._seconds is None else self._seconds * (1 + fill) * self._faded(now)

    def _faded(self, now: float) -> float:
        return math.pow(0.5, (now - self._seen) / FADES)

    @property
    def failing(self) -> bool:
        """No good answer since the last failure."""
        return self._failures > 0

    def back(self, *, alone: bool) -> float:
        """When it is let in again; sooner where no other answers, unless it named the time itself."""
        return min(self.ejected_until, max(self.told_until, self.failed_at + TOGETHER)) if alone else self.ejected_until

    def room(self, now: float, window: int, *, alone: bool = False) -> int:
        """How many requests it may be given at once: none while it is left out, then one until it answers again."""
        return 0 if now < self.back(alone=alone) else 1 if self.failing else window

    def hope(self, now: float) -> None:
        """Another that failed with it answers again: so may this one, unless it named the time itself."""
        self.ejected_until = min(self.ejected_until, max(now, self.told_until))

    def mark_answered(self, now: float, seconds: float, texts: int) -> None:
        """A good answer. To a request sent before the last failure it says nothing of whether that is over."""
        if now - seconds >= self.failed_at:
            self._failures = 0
            self.error = None
        each = seconds / max(texts, 1)
        kept = (1 - WEIGHT) * self._faded(now)
        self._seconds = each if self._seconds is None else kept * self._seconds + (1 - kept) * each
        self._seen = now

    def mark_failed(self, now: float, sent: float, error: EmbedkitError) -> None:
        """A request sent at `sent` failed. One sent before the endpoint was left out adds nothing but its hint."""
        fresh = sent >= self.ejected_until or not self.failing
        if fresh:
            self._failures += 1
        hint = error.retry_after
        self.failed_at = max(self.failed_at, now)
        if hint is not None:
            self.told_until = max(self.told_until, now + hint)
        wait = (
            hint
            if hint is not None
            else min(MAX_EJECTION, MIN_EJECTION * 2.0 ** min(self._failures - 1, 16))
            if fresh
            else 0.0
        )
        if self.error is None or now + wait >= self.ejected_until:
            self.ejected_until, self.error = max(self.ejected_until, now + wait), error.at()
