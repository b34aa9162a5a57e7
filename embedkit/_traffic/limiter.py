"""Whose turn it is: a place within the window, then the moment the pace allows.

The shell around pure arithmetic: a `ConcurrencyLimit` says how many may be in flight and belongs to one event loop; a
`Quota` says when, and a `RetryBudget` how many attempts beyond the first ones, and both are shared with everyone of the
same account; a `Queue` says who is next. Only here does anyone wait, and only one at a time for the pace: the others
wait in the queue, where who is next is settled late.

A request in flight far longer than usual gives its place up: it may never be answered, and the endpoint may be well
again. Requests are counted by epochs, so that nothing has to be kept of each.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .._types import CAP
from ..errors import QuotaError, RateLimitError
from .bulk_share import Share
from .quota import LEFT, MOST_TOKENS, REQUESTS, TOKENS
from .retry_budget import MOST, WELL
from .wait_queue import CALLER, RETRY, WORKER, Queue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import anyio

    from .concurrency import ConcurrencyLimit
    from .quota import Quota


# A 429 is blamed on concurrency if one request fewer would still carry the granted rate (Little's law) times this
# margin: 0.95 without a Retry-After, 1.5 with one, since servers send it for per-minute limits.
FEWER, CLEARLY = 0.95, 1.5
# Times as long as usual: a request in flight holds no place any more; one given up says that answers are late.
FAR, LONG = 4.0, 2.0
COLD = 100.0  # requests per second that an endpoint is taken to bear which refuses before its speed is known
SOON, UNKNOWN = 1.0, 2.5  # seconds: less is not far longer than anything; what is usual before anything is known
# Seconds until who waits looks for a place, at first and later; odd, lest a caller ends in that moment.
LOOK, RARELY = 0.93, 3.7
HOUR = 3600.0  # seconds; a quota that is used up for longer is an allowance of a day or more
RECHECK = 2.0  # seconds between two looks at how long a wait for tokens still is


class Limiter:
    """Before an exchange `try_acquire()`, or else `await acquire(tokens)`; after it one of `on_…`, then `release()`."""

    def __init__(
        self,
        window: ConcurrencyLimit,
        quota: Quota,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.window = window
        self.quota = quota
        self.budget = quota.budget
        self._clock = clock
        self._sleep = sleep
        self._busy = 0  # places taken, by requests in flight and by the one that waits for the pace
        self.in_flight = 0  # requests on their way that hold a place
        self._queue: Queue[_Waiter] = Queue()
        self.share = Share()
        self._pacing = False  # whether somebody waits for the pace
        self.epoch = 0  # of the requests that leave now
        self._old = 0  # of those in flight, left before this epoch
        self._bulk = self._old_bulk = 0  # those of both that are a bulk call's
        self._hung = 0  # in flight for far longer than usual: they hold no place any more
        self._began = -math.inf  # when it began
        self._heard = -math.inf  # when the last good answer came
        self._good = -math.inf  # when the request was sent that it came to
        self._longest = 0.0  # seconds a good answer took in this epoch

    def try_acquire(self) -> bool:
        """Take a place without waiting, where there is one and nothing is paced; else `acquire` it."""
        if self._busy >= self.window.size or self._queue.size or self._pacing or not self.quota.free(self._clock()):
            return False
        self._busy += 1
        self.in_flight += 1
        return True

    async def acquire(
        self,
        tokens: int = 0,
        *,
        kind: int = CALLER,
        until: float = math.inf,
        call: int = 0,
        refuse: Callable[[float], None] | None = None,
    ) -> float | None:
        """Wait for a place and for the pace; returns the seconds waited where there was a pace to wait for.

        Args:
            tokens: that the request is estimated to take.
            kind: of who waits, see `wait_queue`.
            until: when a retry that the budget keeps waiting has no time left; then None is returned, and no place
                taken.
            call: the number of the call it belongs to; older calls have smaller ones.
            refuse: is told the seconds that the pace asks for, and raises what the caller is to get instead where they
                are too many.
        """
        came = self._clock()
        retries = kind == RETRY
        if (
            not self._queue.size
            and not self._pacing
            and self._room(came)
            and (not retries or self.budget.allows(came, self.in_flight))
            and (kind != WORKER or self.share.room(came))
        ):
            self._busy += 1
            self.share.taken += kind == WORKER
            self._pacing = paced = not self.quota.free(came)
            if retries:
                self.budget.spend(came)
        else:
            turn = await self._wait_for_slot(kind, came, until, call)
            if turn is None:
                return None
            paced = turn.paced
        if paced:
            wait = self.quota.reserve(self._clock(), tokens)
            if wait > 0:
                await self._wait(wait, tokens, kind, refuse)
            self._pacing = False
        self.quota.sent(tokens)
        if paced:
            self._serve()
        self._bulk += kind == WORKER
        self.in_flight += 1  # last: nothing may come between this and the moment its epoch is noted
        return self._clock() - came if paced else 0.0

    async def _wait(self, wait: float, tokens: int, kind: int, refuse: Callable[[float], None] | None) -> None:
        """Sleep so long, and as much longer as pauses come meanwhile."""
        paused = self.quota.paused
        try:
            while wait > 0:
                if wait > CAP:
                    self.raise_if_exhausted(tokens)
                if refuse is not None:
                    refuse(wait)
                part = min(wait, RECHECK) if tokens else wait
                await self._sleep(part)
                # Tokens that others are found not to have used are there sooner; who comes meanwhile stands behind.
                wait = min(wait - part, self.quota.owed(self._clock())) if part < wait else 0.0
                if self.quota.paused > paused:
                    paused = self.quota.paused
                    self.quota.refund(self._clock(), tokens)
                    wait = self.quota.reserve(self._clock(), tokens)
        except BaseException:
            self.quota.refund(self._clock(), tokens)
            self._pacing = False
            self._leave(kind)
            raise

    def raise_if_exhausted(self, tokens: int) -> None:
        """Raise where it is the server that makes this request wait for so long, and not those of ours before it."""
        seconds, what = self.quota.imposed(self._clock(), tokens)
        if seconds > CAP:
            raise exhausted(seconds, what)

    def try_extra(self, tokens: int = 0) -> bool:
        """Whether one more request may go at once, beside the window but within the pace; then it is counted."""
        now = self._clock()
        if not self.budget.allows(now, 1):
            return False
        if self.quota.reserve(now, tokens) <= 0:
            self.quota.sent(tokens)
            self.budget.spend(now)
            return True
        self.quota.refund(now, tokens)
        return False

    def on_success(self, sent: float, seconds: float, busy: int, *, small: bool = True) -> None:
        """A good answer after so many seconds, with `busy` in flight; `small`: its call sends no other request."""
        if small:
            self.share.answered(sent + seconds, seconds)
        self._heard, self._good = sent + seconds, sent
        if seconds > self._longest:  # noqa: PLR1730 (`max` costs more)
            self._longest = seconds
        budget = self.budget
        if budget.streak < WELL or budget.balance < MOST:
            budget.answered()
        if self.quota.losing:
            self.quota.on_success(sent)
        self.window.on_success(sent + seconds, seconds, busy)

    def on_rejected(self, sent: float, busy: int, tokens: int, *, hint: float | None, about: str | None) -> bool:
        """A 429 to a request of so many tokens, with `busy` in flight. `hint`: seconds to wait; `about`: of what too
        much.

        Too many a minute, or too many at once? Where nothing tells, the first is taken for both. Then Little's law: if
        one fewer in flight would carry what is granted, there were too many; else they came too fast.

        Returns:
            whether everyone should wait.
        """
        now = self._clock()
        # Of those that left after it, some may have come before it; where nothing is answered, none was let in.
        many = max(busy, self.in_flight) if now - self._heard <= self.patience else busy
        if about == "concurrency":
            self.window.on_rejected(now, sent, many)
            return hint is not None or many <= 1  # there is nothing left to make smaller
        first = not self.quota.tried
        needed = self.quota.granted(now) * self.window.seconds  # in flight, by Little's law
        spare = about is None and many > 1 and many - 1 >= needed * (FEWER if hint is None else CLEARLY) > 0
        cut = first or hint is not None or not spare
        before = 0.0
        if first:  # requests per second so far: by Little's law, with room to grow
            usual = self.window.seconds
            before = 2 * busy / usual if usual else COLD
        self.quota.on_rejected(
            now,
            sent,
            tokens,
            what=TOKENS if about == TOKENS else REQUESTS,
            cut=cut,
            before=before,
            in_flight=self.in_flight - 1,
            good=self._good,
        )
        if first:
            self.window.on_timeout(now, sent)
        elif spare:
            self.window.on_rejected(now, sent, many)
        return first or hint is not None

    def on_overloaded(self, sent: float, busy: int) -> None:
        """The endpoint says that it has too much to do: fewer at once."""
        self.window.on_rejected(self._clock(), sent, busy)

    def on_timeout(self, sent: float) -> None:
        """No answer in time: far fewer at once."""
        self.window.on_timeout(self._clock(), sent)

    def on_given_up(self, sent: float) -> None:
        """Its caller is gone, and the request to be cancelled: it took at least so long."""
        now = self._clock()
        seconds = now - sent
        self.window.on_given_up(seconds)
        if seconds > self.patience and self._heard < sent:
            self.window.on_timeout(now, sent)

    @property
    def waiting(self) -> int:
        """How many wait for their turn: those in the queue, and the one that waits for the pace."""
        return self._queue.size + self._pacing

    @property
    def crowded(self) -> bool:
        """Whether one more would have to wait for those before it."""
        return self._queue.size > 0 or self._busy >= self.window.size

    @property
    def patience(self) -> float:
        """Seconds after which no answer says that answers are late."""
        return LONG * self.window.seconds or SOON

    def pause(self, seconds: float) -> None:
        """Nobody on this pace sends for so many seconds."""
        self.quota.pause(self._clock(), seconds)

    def update_from_headers(self, headers: Mapping[str, str]) -> None:
        """Learn from a response what is left of a quota."""
        if LEFT[0] in headers or LEFT[1] in headers or MOST_TOKENS in headers:
            self.quota.update_from_headers(self._clock(), headers)

    def release(self, kind: int = CALLER) -> None:
        """Give the place back."""
        self.in_flight -= 1
        self._bulk -= kind == WORKER
        self._leave(kind)

    def holds(self, epoch: int, kind: int = CALLER) -> bool:
        """Whether a request that left in an earlier epoch, and has ended now, still holds a place to give back."""
        if epoch < self.epoch - 1:
            self._hung -= 1
            return False
        self._old -= 1
        self._old_bulk -= kind == WORKER
        return True

    def hung(self) -> int:
        """Requests in flight that hold no place, since they have been there for far longer than usual."""
        self._room(self._clock())
        return self._hung

    def _leave(self, kind: int) -> None:
        """Whoever is next takes the place, and more may come where the window has grown."""
        self._busy -= 1
        self.share.taken -= kind == WORKER
        if self._queue.size:
            self._serve()

    def _serve(self) -> None:
        now = self._clock()
        while self._queue.size and not self._pacing and self._room(now):
            turn = self._queue.next(now, retries=self.budget.allows(now, self.in_flight), workers=self.share.room(now))
            if turn is None:
                return
            self._busy += 1
            self.share.taken += turn.kind == WORKER
            self._pacing = turn.paced = not self.quota.free(now)
            turn.given = True
            if turn.kind == RETRY:
                self.budget.spend(now)
            turn.event.set()

    def _room(self, now: float) -> bool:
        """Whether there is a place. What has been in flight far longer than usual holds none."""
        if self._busy < self.window.size:
            return True
        usual = self.window.seconds or UNKNOWN
        if now - self._began > max(SOON, FAR * usual, LONG * self._longest):
            self._busy -= self._old
            self.in_flight -= self._old
            self._hung += self._old
            self.share.taken -= self._old_bulk
            self._bulk -= self._old_bulk
            if self._old and self._heard < self._began:
                self.window.on_timeout(now, now)
            self._old, self._old_bulk, self._began, self._longest = self.in_flight, self._bulk, now, 0.0
            self.epoch += 1
        return self._busy < self.window.size

    async def _wait_for_slot(self, kind: int, came: float, until: float, call: int) -> _Waiter | None:
        import anyio

        turn = _Waiter(anyio.Event(), kind)
        self._queue.join(turn, kind, came, call)
        # There may be a place which nobody earlier in the queue may take: retries that the budget holds back.
        self._serve()
        pause = LOOK
        try:
            while not turn.given:
                with anyio.move_on_after(min(pause, self.budget.soon(self._clock())) if kind == RETRY else pause):
                    await turn.event.wait()
                pause = min(2 * pause, RARELY)
                if not turn.given:
                    self._serve()
                now = self._clock()
                if not turn.given and kind == RETRY and now >= until and not self.budget.allows(now, self.in_flight):
                    self._queue.leave(turn)
                    return None
        except BaseException:
            if turn.given:
                self._pacing = self._pacing and not turn.paced
                self._leave(kind)
            else:
                self._queue.leave(turn)
            raise
        return turn


def exhausted(seconds: float, what: str) -> RateLimitError | QuotaError:
    """Why a request is not sent: the provider has said that there is nothing left of a quota for so long."""
    kind = QuotaError if seconds >= HOUR else RateLimitError
    long = f"{seconds / HOUR:.1f} h" if kind is QuotaError else f"{seconds:.0f} s"
    msg = (
        f"not sent: the provider says that its quota of {what} is used up for another {long}; no more than {CAP:.0f} s "
        "are waited for "
        "that: try again then, or take another key or model"
    )
    return kind(msg, retryable=kind is RateLimitError, retry_after=seconds)


class _Waiter:
    """A caller in the queue; the event is set when it is its turn."""

    __slots__ = ("call", "came", "event", "given", "kind", "paced")

    def __init__(self, event: anyio.Event, kind: int) -> None:
        self.event = event
        self.kind = kind
        self.came, self.call = 0.0, 0
        self.given = self.paced = False
