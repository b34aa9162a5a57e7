"""Requests and tokens per minute: the public `Rate`, and the token bucket that keeps to it."""

from __future__ import annotations

import math

import msgspec

from .._values import is_number, shown
from ..errors import ConfigError


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """A quota to stay within. None: no such quota.

    No batch holds more than a minute's tokens. A lone text of more is refused at once where `count_tokens=` counts
    them; where they are only estimated it is sent alone, since an estimate may be twice too high, and the provider says
    whether it passes.

    Attributes:
        requests_per_minute, tokens_per_minute: as the provider grants them to this account and model.
    """

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and not (is_number(value) and 0 < value < math.inf):
                msg = f"Rate({name}={shown(value)}): a rate is a positive number, or None for no such quota"
                raise ConfigError(msg)


class TokenBucket:
    """A token bucket that may go into debt: a reservation always succeeds, and says how long to wait before using it.

    Holds at most one second's worth (never less than `least`), since providers check per-minute quotas over windows of
    1 to 10 s (learn.microsoft.com, Azure OpenAI quotas, "rate limits").
    """

    __slots__ = ("capacity", "level", "per_second", "stamp")

    def __init__(self, per_minute: float, least: float = 1.0) -> None:
        self.per_second = per_minute / 60.0
        self.capacity = max(self.per_second, least)
        self.level = self.capacity
        self.stamp: float | None = None

    def reserve(self, now: float, amount: float) -> float:
        """Take `amount`; the seconds until it is really there. Zero or negative amounts give some back."""
        most = max(self.capacity, self.level)  # what was given back beyond the capacity stays, and grows no more
        if self.stamp is not None and now > self.stamp:
            self.level = min(most, self.level + (now - self.stamp) * self.per_second)
        self.stamp = now if self.stamp is None else max(now, self.stamp)
        self.level = min(most, self.level - amount)
        return max(0.0, -self.level / self.per_second)

    def give_back(self, now: float, amount: float) -> None:
        """Give back what was not used: the next may take it, beyond the capacity too, up to a minute's worth."""
        self.reserve(now, 0.0)
        self.level = min(max(self.level, 60.0 * self.per_second), self.level + amount)

    def shift(self, now: float, seconds: float) -> None:
        """Everyone who waits waits so much longer: what is owed is paid off later."""
        self.reserve(now, 0.0)
        if self.level < 0 and self.stamp is not None:
            self.stamp += seconds
