"""How many attempts beyond the first ones an account may make: a small share, however many callers there are.

Without a common brake every caller's retries multiply the load of a failing provider, and keep it failing. So extra
attempts (retries, hedges, known-good texts, halves of batches) are paid from one balance, to which each good answer
adds a share of an attempt: the retry throttling of gRPC (gRFC A6), Finagle's RetryBudget, the retry quota of AWS' SDKs.
Unlike there, an empty balance fails nobody: whoever still has time waits, and one request at a time tries whether the
provider is well. After a few good answers in a row it is, and all may go.

Arithmetic only: `now` is an argument. The numbers are shared by threads without a lock: one lost in a million changes
nothing.
"""

from __future__ import annotations

import math

SHARE = 0.1  # of an extra attempt, for each good answer
MOST = 5.0  # extra attempts that may be saved up
WELL = 8  # good answers in a row after which the provider is taken to be well
APART, FARTHEST = 0.01, 1.0  # seconds between two requests that try whether it is: at first, doubled each time up to


class RetryBudget:
    """The balance of one account.

    Attributes:
        balance: extra attempts that may be made at once.
        streak: good answers since the last failure, at most WELL.
    """

    __slots__ = ("_apart", "_next", "balance", "streak")

    def __init__(self) -> None:
        self.streak = 0
        self.balance = MOST
        self._apart = APART
        self._next = -math.inf  # when somebody may try again whether the provider is well

    def answered(self) -> None:
        """A good answer."""
        if self.streak < WELL:
            self.streak += 1
            self._next, self._apart = -math.inf, APART
        if self.balance < MOST:
            self.balance = min(MOST, self.balance + SHARE)

    def failed(self, now: float) -> None:
        """A failure that may be the provider's: for a while no extra attempt need find out the same again."""
        self.streak = 0
        self._next = max(self._next, now + self._apart)

    def allows(self, now: float, flying: int) -> bool:
        """Whether an extra attempt may go while so many requests are on their way."""
        return self.streak >= WELL or self.balance >= 1 or (not flying and now >= self._next)

    def spend(self, now: float) -> None:
        """An extra attempt goes."""
        if self.balance >= 1:
            self.balance -= 1
        elif self.streak < WELL:
            self._next = now + self._apart
            self._apart = min(2 * self._apart, FARTHEST)

    def soon(self, now: float) -> float:
        """Seconds until one request may try the provider; infinite where only one in flight holds it back."""
        return self._next - now if self._next > now else math.inf
