"""When the next request may leave: quotas told, reported by the server, or found from refusals; and a cool-down.

Arithmetic only: `now` comes in, seconds to wait go out, and nobody waits here. A `Quota` holds numbers behind a lock
and belongs to no event loop, so every embedder of the process that spends the same quota shares it; `shared_quota`
finds it by provider, address and key.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
import time
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from ..codec.retry_after import dated, seconds_until
from .cubic_rate import CubicRate
from .rate import Rate, TokenBucket
from .retry_budget import RetryBudget

if TYPE_CHECKING:
    from collections.abc import Mapping


REQUESTS, TOKENS = "requests", "tokens"  # what a quota may count, as the x-ratelimit headers name it
MOST_TOKENS = f"x-ratelimit-limit-{TOKENS}"
# Refusals after which a batch is taken to be too large for its quota, and the share of it that is tried then.
STUBBORN, SMALLER = 3, 4
PLENTY = 1e9  # of a quota, where only its end is told
FADING = 0.9  # of what was counted before, with each answer
MISCOUNT = 4.0  # by which our counts may be too low; a provider that reports more counts something else
LEFT = (f"x-ratelimit-remaining-{REQUESTS}", f"x-ratelimit-remaining-{TOKENS}")


class Reported(TokenBucket):
    """A bucket of the server's, as its headers tell of it.

    Attributes:
        empty_until: nothing passes before this moment, whoever asks.
        told: when it was last told of, and what was left then.
    """

    __slots__ = ("empty_until", "told")

    def __init__(self, per_minute: float) -> None:
        super().__init__(per_minute)
        self.empty_until = -math.inf
        self.told = (0.0, math.inf)

    def reserve(self, now: float, amount: float) -> float:
        """As in a TokenBucket, but not before there is anything at all."""
        return max(super().reserve(now, amount), self.empty_until - now)

    def imposed(self, now: float, amount: float) -> float:
        """Seconds that a request of this amount has to wait by what was told, were there no other of ours."""
        then, left = self.told
        return max((amount - left) / self.per_second - (now - then), self.empty_until - now, 0.0)

    def copy(self, now: float, *, limit: float, remaining: float, full_in: float) -> None:
        """Follow the server's own bucket: it holds `limit`, has `remaining`, and is full in so many seconds."""
        self.reserve(now, 0.0)
        self.capacity = limit
        self.told = (now, remaining)
        self.level = min(self.level, remaining)  # what is on its way is counted here already, and there not yet
        if self.level < limit:
            self.per_second = (limit - max(0.0, self.level)) / full_in


class Cooldown:
    """What holds for one provider and key, whatever the model: until when nobody sends, and the retry budget."""

    __slots__ = ("__weakref__", "budget", "lock", "total", "until")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.until = -math.inf
        self.total = 0.0
        self.budget = RetryBudget()


class Quota:
    """What all callers of one quota share: a cool-down, and limits of requests and of tokens."""

    def __init__(self, rate: Rate | None = None, cooldown: Cooldown | None = None) -> None:
        self._cooldown = cooldown or Cooldown()
        self._lock = self._cooldown.lock
        self.budget = self._cooldown.budget
        self._shifted = self._cooldown.total  # up to where `_shift` has caught up
        self._told: dict[str, TokenBucket] = {}
        self._reported: dict[str, Reported] = {}
        self._found: dict[str, CubicRate] = {}
        # The most tokens that the quota can pass at once, as `rate=` says.
        self._most = rate.tokens_per_minute if rate is not None else None
        self._heard: float | None = None  # as the server says
        self._estimated = self._used = 0.0  # tokens of late, by our count and by the provider's
        self._shown: int | None = None  # tokens by our count beyond which nothing passed, while nobody said why
        self._refusals, self._refused_at = 0, -math.inf  # since something passed; the last that was counted
        self.largest = 0  # tokens of the largest of them, as far as they were counted
        self.losing = False  # a rate was lost that good answers win back
        # The limiters of those who spend this quota, by event loop and limits: a bulk call and a service know of each
        # other.
        self.limiters: WeakValueDictionary[tuple[object, ...], Any] = WeakValueDictionary()
        if rate is not None and rate.requests_per_minute is not None:
            self._told[REQUESTS] = TokenBucket(rate.requests_per_minute)
        if rate is not None and rate.tokens_per_minute is not None:
            self._told[TOKENS] = TokenBucket(rate.tokens_per_minute)
        self._list()

    def _list(self) -> None:
        kinds = (self._told, self._reported, self._found)
        self._quotas = [(quota, what == TOKENS) for kind in kinds for what, quota in kind.items()]
        # Whether anyone has to count those of a request.
        self.counts_tokens = any(of_tokens for _, of_tokens in self._quotas) or self._heard is not None

    def free(self, now: float) -> bool:
        """Whether nothing is counted, and nobody told to wait."""
        return not self._quotas and now >= self._cooldown.until

    def reserve(self, now: float, tokens: int) -> float:
        """Seconds before a request of so many tokens may go; it is counted at once, from the end of a cool-down if
        there is one.

        Whoever waits notes `paused` before, and waits on by what it has grown meanwhile: so all go in order, as far
        apart as before.
        """
        if self.free(now):
            return 0.0
        with self._lock:
            self._shift(now)
            for cubic in self._found.values():
                cubic.tick(now)
            start = max(now, self._cooldown.until)
            return start - now + self._count(start, 1, tokens)

    def owed(self, now: float) -> float:
        """Seconds until all that is reserved is there, and the cool-down over."""
        with self._lock:
            start = max(now, self._cooldown.until)
            return start - now + self._count(start, 0, 0)

    def imposed(self, now: float, tokens: int) -> tuple[float, str]:
        """Seconds to wait because the server says so, for a request of so many tokens, and what is lacking."""
        found = ((quota.imposed(now, tokens if what == TOKENS else 1), what) for what, quota in self._reported.items())
        return max(found, default=(0.0, ""))

    def refund(self, now: float, tokens: int) -> None:
        """A reserved request was never sent. Without this, callers who give up would leave debt that nobody used."""
        with self._lock:
            self._shift(now)
            self._count(now, -1, -tokens)

    def _count(self, now: float, requests: int, tokens: int) -> float:
        return max(
            [quota.reserve(now, tokens if of_tokens else requests) for quota, of_tokens in self._quotas], default=0.0
        )

    @property
    def paused(self) -> float:
        """Seconds of all cool-downs so far."""
        return self._cooldown.total

    def blocked(self, now: float) -> float:
        """Seconds until the cool-down ends; nothing is counted."""
        return max(0.0, self._cooldown.until - now)

    def pause(self, now: float, seconds: float) -> None:
        """Nobody sends for so many seconds from now. A shorter pause never ends a longer one."""
        with self._lock:
            self._cooldown.total += max(0.0, now + seconds - max(now, self._cooldown.until))
            self._cooldown.until = max(self._cooldown.until, now + seconds)
            self._shift(now)

    def _shift(self, now: float) -> None:
        """Catch up with pauses, which another model of this account may have caused."""
        seconds, self._shifted = self._cooldown.total - self._shifted, self._cooldown.total
        if seconds > 0:
            for quota, _ in self._quotas:
                quota.shift(now, seconds)

    def correct(self, now: float, tokens: int) -> None:
        """The provider counted so many tokens more (or, negative, fewer) than were reserved."""
        for bucket in (self._told.get(TOKENS), self._reported.get(TOKENS)):
            if bucket is not None:
                with self._lock:
                    if tokens < 0:
                        bucket.give_back(now, -tokens)
                    else:
                        bucket.reserve(now, tokens)

    @property
    def most(self) -> int | None:
        """The most tokens that one request may hold: all that the quota grants in its time; None: unknown."""
        known = [each for each in (self._most, self._heard) if each is not None]
        return max(1, int(min(known))) if known else None

    @property
    def most_by_our_count(self) -> int | None:
        """The same, less as much as our counts were too low of late."""
        if self._most is None and self._heard is None and self._shown is None:
            return None
        most = self.most
        if most is not None and self._used > self._estimated:
            most = max(1, int(most * max(self._estimated / self._used, 1 / MISCOUNT)))
        if self._shown is None:
            return most
        shown = max(self._shown, self.largest)
        return shown if most is None else min(most, shown)

    def too_large(self, now: float, tokens: int) -> bool:
        """Whether a refused batch of so many tokens, by our count, is taken to be larger than the quota ever passes.

        So it is where nothing has passed for STUBBORN refusals, and nothing so large before: from then on batches are a
        quarter of it. Refusals within a second count once, for they came of one rush.
        """
        if now - self._refused_at >= CubicRate.SETTLED:
            self._refusals, self._refused_at = self._refusals + 1, now
        if self._refusals < STUBBORN or tokens <= self.largest:
            return False
        self._shown, self._refusals = max(1, tokens // SMALLER), 0
        return True

    def learn(self, most: float) -> None:
        """The server says how many tokens its quota grants."""
        if 0 < most < math.inf and most != self._heard:
            with self._lock:
                self._heard = most
                self._list()

    def passed(self, now: float, tokens: int, reserved: int, used: int | None) -> None:
        """A request has passed: of so many tokens by our count (0: not counted), and as many as the provider says.

        Without the lock: as `sent`.
        """
        self._refusals = 0
        if not tokens:
            return
        self.largest = max(self.largest, tokens)
        if used is not None:
            self.correct(now, used - reserved)
            self._estimated = self._estimated * FADING + tokens
            self._used = self._used * FADING + used

    def sent(self, tokens: int) -> None:
        """A request leaves. Without the lock: one count lost in a million changes no rate."""
        for what, cubic in self._found.items():
            cubic.sent(tokens if what == TOKENS else 1)

    def on_rejected(
        self,
        now: float,
        sent: float,
        tokens: int,
        *,
        what: str = REQUESTS,
        cut: bool = True,
        before: float = 0.0,
        in_flight: int = 0,
        good: float = -math.inf,
    ) -> None:
        """A 429 to a request of so many tokens, sent at `sent`; `cut`: the rate of what is to blame; `before`: requests
        per second so far.

        `in_flight`: other requests that are on their way. `good`: when the last one with a good answer was sent.
        """
        with self._lock:
            self._shift(now)  # what is new has not been there to wait
            if what in self._found:
                self._found[what].on_rejected(
                    now, sent, tokens if what == TOKENS else 1, cut=cut, in_flight=in_flight, good=good
                )
            else:
                self._found[what] = CubicRate(now, before if what == REQUESTS else before * tokens)
                self._list()
            self.losing = any(cubic.lost for cubic in self._found.values())

    def on_success(self, sent: float) -> None:
        """A good answer to a request sent at `sent`, while a rate is lost."""
        with self._lock:
            for cubic in self._found.values():
                if cubic.lost:
                    cubic.on_success(sent)
            self.losing = any(cubic.lost for cubic in self._found.values())

    @property
    def tried(self) -> bool:
        """True once there was a 429."""
        return bool(self._found)

    def granted(self, now: float) -> float:
        """Requests admitted per second, as far as 429s have had them counted."""
        cubic = self._found.get(REQUESTS)
        return cubic.granted(now) if cubic is not None else 0.0

    def update_from_headers(self, now: float, headers: Mapping[str, str]) -> None:
        """Read what the server says is left (`x-ratelimit-*`, as OpenAI names them), to wait before it refuses."""
        for what, name in zip((REQUESTS, TOKENS), LEFT, strict=True):
            told = headers.get(name)
            if told is not None:
                self._copy(now, what, told, headers)
        if (most := _number(headers.get(MOST_TOKENS, ""))) is not None:
            self.learn(most)

    def _copy(self, now: float, what: str, told: str, headers: Mapping[str, str]) -> None:
        most = headers.get(f"x-ratelimit-limit-{what}")
        limit, remaining = _number(most or ""), _number(told)
        reset = headers.get(f"x-ratelimit-reset-{what}", "")
        full_in = seconds_until(reset, time.time())
        says_enough = limit or (most is None and remaining == 0)
        if remaining is None or not full_in or not says_enough:  # Azure names no reset: nothing can be paced by that
            return
        with self._lock:
            self._shift(now)
            if what not in self._reported:
                self._reported[what] = Reported(60.0 * (limit or PLENTY))
                self._list()
            bucket = self._reported[what]
            if remaining == 0 and (dated(reset) or not limit):  # a window that ends then: nothing trickles in before
                bucket.empty_until = now + full_in
            elif limit:
                bucket.copy(now, limit=limit, remaining=remaining, full_in=full_in)


def _number(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdigit() else None


_cooldowns: WeakValueDictionary[bytes, Cooldown] = WeakValueDictionary()
_quotas: WeakValueDictionary[tuple[bytes, str, Rate | None], Quota] = WeakValueDictionary()
_lock = threading.Lock()


def shared_quota(account: str, model: str, rate: Rate | None) -> Quota:
    """The pace of a quota: of one model for one account (provider, address and key, kept as a hash only)."""
    digest = hashlib.sha256(account.encode("utf-8", "surrogatepass")).digest()
    with _lock:
        cooldown = _cooldowns.setdefault(digest, Cooldown())
        return _quotas.setdefault((digest, model, rate), Quota(rate, cooldown))


def _forget() -> None:
    """A forked child starts over: another thread of its parent may have held a lock."""
    global _lock  # noqa: PLW0603 (as the line above says)
    _lock = threading.Lock()
    _cooldowns.clear()
    _quotas.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
