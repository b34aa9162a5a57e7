"""When the next request may leave: quotas told, quotas the server reports, a quota found from its refusals, and a cool-down.

Arithmetic only: `now` comes in, seconds to wait go out, and nobody waits here. A `Pace` holds numbers behind a lock and belongs to no
event loop, so every embedder of the process that spends the same quota shares it; `shared` finds it by provider, address and key.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import msgspec

from ._refusal import duration
from .errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping


REMAINING = tuple((what, f"x-ratelimit-remaining-{what}") for what in ("requests", "tokens"))


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """A quota to stay within. None: no such quota."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if value is not None and not (number and 0 < value < math.inf):
                msg = f"Rate({name}={value!r}): a rate is a positive number, or None for no such quota"
                raise ConfigError(msg)


class Bucket:
    """A token bucket that may go into debt: a reservation always succeeds, and says how long to wait before using it.

    Holds at most one second's worth (never less than `least`), since providers check per-minute quotas over windows of 1 to 10 s
    (Azure, wire reference 1A.4).
    """

    __slots__ = ("capacity", "level", "per_second", "stamp")

    def __init__(self, per_minute: float, least: float = 1.0) -> None:
        self.per_second = per_minute / 60.0
        self.capacity = max(self.per_second, least)
        self.level = self.capacity
        self.stamp: float | None = None

    def reserve(self, now: float, amount: float) -> float:
        """Take `amount`; the seconds until it is really there. Zero or negative amounts give some back."""
        if self.stamp is not None and now > self.stamp:
            self.level = min(self.capacity, self.level + (now - self.stamp) * self.per_second)
        self.stamp = now if self.stamp is None else max(now, self.stamp)
        self.level = min(self.capacity, self.level - amount)
        return max(0.0, -self.level / self.per_second)

    def copy(self, now: float, *, limit: float, remaining: float, full_in: float) -> None:
        """Take over what the server says of its own bucket: it holds `limit`, has `remaining`, and is full in so many seconds."""
        self.reserve(now, 0.0)
        self.capacity = limit
        if full_in > 0 and remaining < limit:
            self.per_second = (limit - remaining) / full_in
        self.level = min(self.level, remaining)  # what is on its way is counted here already, and there not yet


class Probe:
    """The rate a server grants, found from its 429s alone.

    What it admitted between two of them is its rate, since its own bucket was empty at both. From a little below that the pace rises
    again: almost flat where the limit was found, ever faster once it is passed (a cubic, as in TCP: RFC 9438), so that a limit costs
    few refusals and a limit that is gone is soon forgotten. The longer the rate held, the longer until it is tried again.
    """

    __slots__ = ("_admitted", "_bucket", "_plateau", "_since", "_wall", "bound")
    CUT = 0.03  # share given up
    PLATEAU, REQUESTS = 30.0, 200.0  # seconds, and requests, until the old rate is reached again, at most

    def __init__(self) -> None:
        self.bound = False  # whether requests are waiting for this
        self._bucket: Bucket | None = None
        self._wall = 0.0
        self._plateau = 0.5
        self._since = -math.inf
        self._admitted = 0

    @property
    def found(self) -> bool:
        """Whether there is a rate yet."""
        return self._bucket is not None

    def admitted(self) -> None:
        """A request got through."""
        self._admitted += 1

    def refused(self, now: float, sent: float, idle: float) -> None:
        """A 429 to a request sent at `sent`, after a pause of `idle` seconds. One sent before the last cut says nothing new."""
        if sent < self._since:
            return
        seconds = now - self._since
        if math.isfinite(seconds) and seconds > 0:
            self._wall = self._admitted / seconds if self._admitted else self._wall / 2
            longest = max(self.PLATEAU, self.REQUESTS / self._wall) if self._wall else self.PLATEAU
            self._plateau = min(max(seconds - idle, 0.5), longest)
            if self._wall > 0 and self._bucket is None:
                self._bucket = Bucket(60.0 * self._wall)
        self._since = now
        self._admitted = 0

    def rate(self, seconds: float) -> float:
        """Requests per second allowed so long after the last refusal."""
        return self._wall * (1 + self.CUT * (seconds / self._plateau - 1) ** 3)

    def reserve(self, now: float, amount: float = 1.0) -> float:
        """Seconds before one more request may go."""
        bucket = self._bucket
        if bucket is None:
            return 0.0
        bucket.per_second = self.rate(now - self._since)
        bucket.capacity = max(1.0, bucket.per_second / 4)
        wait = bucket.reserve(now, amount)
        self.bound = wait > 0
        return wait


class Cooldown:
    """A moment before which nobody sends to one provider with one key, whatever the model."""

    __slots__ = ("__weakref__", "lock", "until")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.until = -math.inf


class Pace:
    """What all callers of one quota share: a cool-down, the buckets of a `Rate`, those the server reports, and the rate found."""

    def __init__(self, rate: Rate | None = None, cooldown: Cooldown | None = None) -> None:
        self._cooldown = cooldown or Cooldown()
        self._lock = self._cooldown.lock
        self._requests = Bucket(rate.requests_per_minute) if rate and rate.requests_per_minute else None
        self._tokens = Bucket(rate.tokens_per_minute) if rate and rate.tokens_per_minute else None
        self._reported: dict[str, Bucket] = {}
        self._probe = Probe()
        self._idle = 0.0  # seconds of cool-down since the last refusal

    def reserve(self, now: float, tokens: int) -> float:
        """Seconds before a request of so many tokens may go; it is counted at once, from the end of a cool-down if there is one."""
        with self._lock:
            start = max(now, self._cooldown.until)
            wait = self._probe.reserve(start)
            if self._requests is not None:
                wait = max(wait, self._requests.reserve(start, 1))
            if self._tokens is not None:
                wait = max(wait, self._tokens.reserve(start, tokens))
            for what, bucket in self._reported.items():
                wait = max(wait, bucket.reserve(start, 1 if what == "requests" else tokens))
            return start - now + wait

    def refund(self, now: float, tokens: int) -> None:
        """A reserved request was never sent. Without this, callers who lose patience would pile up debt that nobody used."""
        with self._lock:
            self._probe.reserve(now, -1.0)
            for bucket in (self._requests, self._reported.get("requests")):
                if bucket is not None:
                    bucket.reserve(now, -1)
            for bucket in (self._tokens, self._reported.get("tokens")):
                if bucket is not None:
                    bucket.reserve(now, -tokens)

    def blocked(self, now: float) -> float:
        """Seconds until the cool-down ends; nothing is counted."""
        return max(0.0, self._cooldown.until - now)

    def pause(self, now: float, seconds: float) -> None:
        """Nobody sends for so many seconds from now. A shorter pause never ends a longer one."""
        with self._lock:
            self._idle += max(0.0, now + seconds - max(now, self._cooldown.until))
            self._cooldown.until = max(self._cooldown.until, now + seconds)

    def correct(self, now: float, tokens: int) -> None:
        """The provider counted so many tokens more (or, negative, fewer) than were reserved."""
        for bucket in (self._tokens, self._reported.get("tokens")):
            if bucket is not None:
                with self._lock:
                    bucket.reserve(now, tokens)

    def admitted(self) -> None:
        """A request got through. Without the lock: one count lost in a million changes no rate."""
        self._probe.admitted()

    def refused(self, now: float, sent: float) -> None:
        """A 429 to a request sent at `sent`."""
        with self._lock:
            self._probe.refused(now, sent, self._idle)
            self._idle = 0.0

    @property
    def counts_tokens(self) -> bool:
        """Whether anyone has to count the tokens of a request."""
        return self._tokens is not None or "tokens" in self._reported

    @property
    def found(self) -> bool:
        """True once 429s have shown a rate."""
        return self._probe.found

    @property
    def bound(self) -> bool:
        """True while requests wait for the rate found; then a 429 is about that."""
        return self._probe.bound

    def heed(self, now: float, headers: Mapping[str, str]) -> None:
        """Learn from a response what the server says is left (wire reference 1.6); then a quota is met before it refuses."""
        for what, remaining_name in REMAINING:
            told = headers.get(remaining_name)
            if told is not None:
                self._copy(now, what, told, headers)

    def _copy(self, now: float, what: str, told: str, headers: Mapping[str, str]) -> None:
        limit, remaining = _number(headers.get(f"x-ratelimit-limit-{what}", "")), _number(told)
        full_in = duration(headers.get(f"x-ratelimit-reset-{what}", ""))
        if limit and remaining is not None and full_in:  # Azure names no reset: nothing can be paced by that
            with self._lock:
                bucket = self._reported.setdefault(what, Bucket(60.0 * limit))
                bucket.copy(now, limit=limit, remaining=remaining, full_in=full_in)


def _number(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdigit() else None


# --- sharing ---------------------------------------------------------------------------------------------------------

_cooldowns: WeakValueDictionary[bytes, Cooldown] = WeakValueDictionary()
_paces: WeakValueDictionary[tuple[bytes, str, Rate | None], Pace] = WeakValueDictionary()


def shared(account: str, model: str, rate: Rate | None) -> Pace:
    """The pace of a quota: of one model for one account (provider, address and key, kept as a hash only)."""
    digest = hashlib.sha256(account.encode("utf-8", "surrogatepass")).digest()
    cooldown = _cooldowns.setdefault(digest, Cooldown())
    return _paces.setdefault((digest, model, rate), Pace(rate, cooldown))


def _forget() -> None:
    """A forked child starts over: another thread of its parent may have held a lock."""
    _cooldowns.clear()
    _paces.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
