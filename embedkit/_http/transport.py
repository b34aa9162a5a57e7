"""One request, until it succeeds or is given up.

attempt = wait for a turn → authorize → exchange → receive; retry with backoff goes around it. The transport sees
requests, responses and exceptions, never a codec: `receive` turns a response into a result, or raises what the policy
judges.
"""

from __future__ import annotations

import math
import random
import time
from itertools import count
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .._calltime import ANSWER, PAUSE, TURN
from .._logging import DEBUG, INFO, LONG_WAIT, WARNING, Interval, heard, kind_of, log, notify, status_of
from .._loops import this_loop
from .._traffic.retry import RetryPolicy, retry_loop, tell_retry
from .._traffic.wait_queue import CALLER, RETRY, WORKER
from .._types import CAP, RequestCount
from ..errors import ApiError, AuthError, DecodeError, EmbedkitError, RateLimitError, ServerError, TransportTimeoutError
from ..events import AttemptEnded, RequestSent, RetryScheduled, Throttled, WindowChanged
from .exchange import Exchange

if TYPE_CHECKING:
    from asyncio import TimerHandle
    from collections.abc import Awaitable, Callable, Coroutine

    from .._calltime import CallTime
    from .._traffic.hedging import Hedge
    from .._traffic.limiter import Limiter
    from .._types import Request, Response
    from ..codec import OutputRows
    from ..events import Event


T = TypeVar("T")
R = TypeVar("R")
OVERLOADED = (503, 529)
TIMEOUT = 120.0  # seconds for one attempt, where nothing else is said
LEAST_TOLD = 0.05  # seconds of a wait: less is not worth a word
_ids = count(1)  # of attempts


class _Job(Generic[T]):
    """One request on its way, through all its attempts."""

    # What most never change is the class's, so that making one costs less.
    number = 1  # of the attempt
    unsent = 0  # attempts that ended before anything was sent: there were no credentials
    spent = 0.0  # seconds in exchanges and backoff: what the deadline counts
    alone = True  # the last failure concerns this request only
    failure: EmbedkitError | None = None  # the last
    again = False  # an answer that could not be used has been asked for once more
    began: float | None = None  # when it first asked for its turn; None: it has not failed, nor had to wait
    id = 0  # of the attempt, where it is seen
    left = 0.0  # when that left
    status: int | None = None  # of its response
    waited = 0.0  # seconds for this attempt's turn, where it is seen

    def __init__(
        self,
        request: Request,
        receive: Callable[[Response], T],
        tally: RequestCount,
        texts: int,
        tokens: int,
        tries: int | None,
        *,
        whole: bool,
        extra: bool,
        plain: bool,
        seen: bool,
    ) -> None:
        self.request = request
        self.receive = receive
        self.tally = tally
        self.texts = texts
        self.tokens = tokens
        self.tries = tries
        self.whole = whole
        self.extra = extra  # no attempt of its kind is a first one: the retry budget pays for it
        self.plain = plain  # nothing but the exchange itself ends the attempt
        self.seen = seen  # somebody wants to hear of each attempt

    def since(self, now: float) -> float:
        """Seconds since it first asked for its turn."""
        return self.spent if self.began is None else now - self.began


def is_loading(error: EmbedkitError) -> bool:
    """Whether the server says that it is loading its model."""
    return isinstance(error, ServerError) and error.loading


async def _sleep(seconds: float) -> None:
    import anyio

    await anyio.sleep(seconds)


class Transport:
    """Sends requests over an exchange, in turn, authorized on every attempt."""

    def __init__(  # noqa: PLR0913 (the seams of one request)
        self,
        exchange: Exchange,
        authorize: Callable[[Request], Awaitable[Request]],
        limiter: Limiter,
        policy: RetryPolicy,
        *,
        name: tuple[str, str] = ("", ""),
        host: str = "",
        server: str = "",
        observe: Callable[[Event], object] | None = None,
        hedge: Hedge | None = None,
        timeout: float = TIMEOUT,
        loading: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = _sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.exchange = exchange
        self.limiter = limiter
        self.policy = policy
        self._authorize = authorize
        self._provider, self._model = name
        self._host = host
        self._server = server
        self._size = limiter.window.size  # of the window, as last told
        self._observe = observe
        self._hedge = hedge
        # The exchange ends each attempt by itself; only a deadline that is sooner needs a timer of its own for the
        # first.
        self._plain = hedge is None and (policy.deadline is None or timeout <= policy.deadline)
        self._loading = loading
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._waits = Interval()

    async def send(
        self,
        request: Request,
        receive: Callable[[Response], T],
        tally: RequestCount,
        *,
        texts: int = 0,
        tokens: int = 0,
        tries: int | None = None,
        whole: bool = False,
        extra: bool = False,
        rows: OutputRows | None = None,
    ) -> T:
        """What `receive` makes of the response to this request.

        Args:
            request: without credentials.
            receive: reads a response; what it raises is judged by the policy. A DecodeError may ask to be tried once
                more.
            tally: counts what is sent.
            texts: that the request holds.
            tokens: that it is estimated to take.
            tries: how often it is sent at most, whatever the policy allows. A rate limit and a renewed token do not
                count: no text is at fault.
            whole: its texts cannot come back in smaller requests.
            extra: it is no caller's first attempt but a known-good text, or a piece of what was late: the retry budget
                pays for it.
            rows: where `receive` notes the rows of a success that cannot be used; their errors are told how often it
                was sent.

        Raises:
            EmbedkitError: whatever `receive` or the exchange raised last, once the policy gives up. A timeout of a
                request that holds several texts is given up at once, unless it is `whole`: it is to come back smaller.
        """
        job = _Job(
            request, receive, tally, texts, tokens, tries,
            whole=whole, extra=extra, plain=self._plain and tally.time is None,
            seen=self._observe is not None or heard(DEBUG),
        )  # fmt: skip
        tally.under_way += 1
        try:
            try:
                result = await self._attempt(job)
            except EmbedkitError as error:
                if not (error.retryable or (isinstance(error, DecodeError) and error.once_more)):
                    raise
                result = await retry_loop(
                    lambda: self._attempt(job),
                    error,
                    decide=lambda made, error: self._decide(job, made, error),
                    sleep=lambda seconds: self._rest(job, seconds),
                )
        except EmbedkitError:
            raise
        except BaseException:
            tally.cancelled(job.since(self._clock()))
            raise
        finally:
            tally.under_way -= 1
        if rows is not None and rows.failures:
            for each in rows.failures.values():
                each.attempts, each.elapsed = job.number - job.unsent, job.since(self._clock())
        return result

    async def _attempt(self, job: _Job[T]) -> T:
        limiter = self.limiter
        kind = RETRY if job.extra else WORKER if job.tally.patient or job.tally.under_way > 1 else CALLER
        waited = 0.0 if kind == CALLER and limiter.try_acquire() else await self._turn(job, kind)
        epoch = limiter.epoch
        try:
            if job.seen:
                self._leaves(waited, job)
            asked = self._clock()
            try:
                signed = await self._authorize(job.request)
            except BaseException:
                job.began = asked if job.began is None else job.began
                job.spent += self._clock() - asked
                job.unsent += 1
                raise
            job.tally.requests += 1
            sent, busy = self._clock(), limiter.in_flight
            try:
                response = await (self.exchange(signed) if job.plain else self._guarded(signed, job))
                if job.seen:
                    job.status = response.status
                limiter.update_from_headers(response.headers)
                result = job.receive(response)
            except EmbedkitError as error:
                job.began = sent if job.began is None else job.began
                job.alone = not self._report_load(error, sent, busy, job)
                raise
            except BaseException:
                limiter.on_given_up(sent)
                raise
            finally:
                seconds = self._clock() - sent
                job.spent += seconds
            # The first request of a call with several is no small call: others of it are under way by now.
            limiter.on_success(sent, seconds, busy, small=kind == CALLER and job.tally.under_way == 1)
        except BaseException as error:
            self._failed(job, error)
            raise
        else:
            if job.seen:
                self._ended(job, None)
            return result
        finally:
            if epoch == limiter.epoch or limiter.holds(epoch, kind):
                limiter.release(kind)

    def _failed(self, job: _Job[T], error: BaseException) -> None:
        if isinstance(error, EmbedkitError):
            error.attempts, error.elapsed = job.number - job.unsent, job.since(self._clock())
        if job.seen:
            self._ended(job, error)
        elif self.limiter.window.size != self._size:
            self._resized()

    async def _turn(self, job: _Job[T], kind: int) -> float:
        """Wait for a turn; the seconds waited for the pace."""
        came = self._clock()
        try:
            waited = await self._has_turn(job, kind)
        except EmbedkitError as error:  # not sent; maybe the provider has said that it would be in vain
            if isinstance(error, ApiError):
                error.provider, error.model = error.provider or self._provider, error.model or self._model
            error.attempts, error.elapsed = job.number - 1 - job.unsent, job.since(self._clock())
            raise
        job.waited = self._clock() - came
        return waited

    async def _has_turn(self, job: _Job[T], kind: int) -> float:
        """The same. What is waited for the retry budget counts as time between tries."""
        limiter, deadline, time = self.limiter, self.policy.deadline, job.tally.time
        if job.began is None:
            job.began = self._clock()
        refuse = None
        if time is not None:
            refuse = time.refuse
            limiter.raise_if_exhausted(job.tokens)
            refuse(limiter.quota.owed(self._clock()))
        if kind != RETRY:
            turn = limiter.acquire(job.tokens, kind=kind, refuse=refuse)
            return await timed(time, TURN, self._watched(turn, job)) or 0.0
        came = self._clock()
        # After a rate limit it is the pace that is waited for, which the deadline does not count.
        limited = isinstance(job.failure, RateLimitError)
        blocked = not limited and not limiter.budget.allows(came, limiter.in_flight)
        until = math.inf if deadline is None or limited else came + deadline - job.spent
        turn = limiter.acquire(job.tokens, kind=RETRY, until=until, call=job.tally.call, refuse=refuse)
        waited = await timed(time, PAUSE if blocked else TURN, self._watched(turn, job))
        if blocked or waited is None:
            job.spent += self._clock() - came
        if waited is not None:
            return waited
        if job.failure is not None:
            raise job.failure
        msg = f"the provider fails, and within the deadline of {deadline:g} s it was not found to be well again"
        raise TransportTimeoutError(msg, retryable=False)

    def _watched(self, turn: Coroutine[Any, Any, R], job: _Job[Any]) -> Coroutine[Any, Any, R]:
        """Wait for a turn; of those who wait long one is told of."""
        if not heard(INFO):
            return turn

        def tell(waited: float) -> None:
            if not self._waits.over(self._clock()):
                return
            others = self.limiter.waiting - 1
            log(
                INFO, "a request to %s has waited %.1f s for its turn%s: it waits for %s",
                self._host, waited, f", and so have {others:,} more" if others > 0 else "",
                self._awaited(job) or "requests of ours that came before it",
                host=self._host, attempt=job.number, wait=waited,
            )  # fmt: skip

        return watched(turn, tell, self._clock)

    def _awaited(self, job: _Job[Any], after: float = 0.0) -> str:
        """What a request waits for that has no turn yet, or will so many seconds from now; empty where for nothing."""
        now, limiter = self._clock(), self.limiter
        owed = limiter.quota.owed(now) - after
        if owed > LEAST_TOLD:
            return f"a rate limit, for {owed:.1f} s more"
        if job.extra and not limiter.budget.allows(now, limiter.in_flight):
            return "the provider to be well again, which one request at a time tries"
        return "requests of ours that came before it" if limiter.crowded else ""

    async def _rest(self, job: _Job[T], seconds: float) -> None:
        if (tell := tell_retry.get()) is not None:
            tell()
        await timed(job.tally.time, PAUSE, self._sleep(seconds))

    def _decide(self, job: _Job[T], made: int, error: EmbedkitError) -> float | None:
        """Seconds until the next attempt after `made`, or None."""
        time = job.tally.time
        if time is not None:
            time.failure = kind_of(error)
        if isinstance(error, TransportTimeoutError) and error.sent and job.texts > 1 and not job.whole:
            return None
        loading = is_loading(error) and job.spent < self._loading
        if (
            job.tries is not None
            and made >= job.tries
            and not (loading or isinstance(error, (RateLimitError, AuthError)))
        ):
            return None
        if isinstance(error, DecodeError):
            if job.again:
                return None
            job.again = True
        wait = self.policy.wait(made, error, self._jitter(), loading=loading)
        late = self.policy.deadline is not None and wait is not None and job.spent + wait >= self.policy.deadline
        if wait is None or late or (time is not None and wait >= time.left()):
            if not job.alone and error.retry_after is not None and error.retry_after <= CAP:
                self._cool_down(error.retry_after, error, made)  # for the others; this one gives up
            return None
        if not job.alone:
            self._cool_down(wait, error, made)  # one 429 stops everyone on this quota
        if self._observe is not None:
            about = self._about(job)
            notify(self._observe, RetryScheduled(**about, attempt=made, wait=wait, error=error))
        job.spent += wait
        job.number = made + 1
        job.plain = False
        job.alone = job.extra = True
        job.failure = error
        self._tell_retry(job, made, error, wait)
        return wait

    def _tell_retry(self, job: _Job[T], made: int, error: EmbedkitError, wait: float) -> None:
        if heard(INFO):
            awaited = self._awaited(job, wait)
            log(
                INFO, "attempt %d to %s failed: %s; the next follows in %.2f s%s",
                made, self._host, kind_of(error), wait, f", or later: it waits for {awaited}" if awaited else "",
                host=self._host, attempt=made, wait=wait, status=status_of(error),
            )  # fmt: skip

    def _cool_down(self, seconds: float, error: EmbedkitError, made: int) -> None:
        """Nobody of this account sends for so long."""
        begun = self.limiter.quota.blocked(self._clock()) > 0
        self.limiter.pause(seconds)
        if not begun and seconds > 0:
            log(
                WARNING, "%s refused: %s; nothing more is sent with this key for %.3g s",
                self._host, kind_of(error), seconds,
                host=self._host, attempt=made, wait=seconds, status=status_of(error),
            )  # fmt: skip

    async def _guarded(self, signed: Request, job: _Job[T]) -> Response:
        """Hedged, and cut off at the deadline."""
        return await timed(job.tally.time, ANSWER, self._cut_off(signed, job))

    async def _cut_off(self, signed: Request, job: _Job[T]) -> Response:
        if self.policy.deadline is None:
            return await self._hedged(signed, job)
        import anyio

        with anyio.move_on_after(max(0.0, self.policy.deadline - job.spent)):
            return await self._hedged(signed, job)
        msg = f"no response within the deadline of {self.policy.deadline:g} s for one request with its retries"
        raise TransportTimeoutError(msg, retryable=False)

    async def _hedged(self, signed: Request, job: _Job[T]) -> Response:
        if self._hedge is None:
            return await self._exchanged(signed, job)
        return await self._hedge(lambda: self._exchanged(signed, job), len(signed.body), lambda: self._may_hedge(job))

    async def _exchanged(self, signed: Request, job: _Job[T]) -> Response:
        """One exchange, within the call's own `timeout` where it has one."""
        time = job.tally.time
        if time is None or time.timeout is None:
            return await self.exchange(signed)
        within = getattr(self.exchange, "within", None)  # else the embedder's own timeout would cut off a longer one
        return await (time.attempt(self.exchange(signed)) if within is None else within(signed, time.timeout))

    def _may_hedge(self, job: _Job[T]) -> bool:
        """Whether a late request may be sent a second time beside the first; then it counts as sent."""
        if not self.limiter.try_extra(job.tokens):
            return False
        job.tally.requests += 1
        if job.tally.time is not None:
            job.tally.time.attempts += 1
        if job.seen:
            log(
                DEBUG, "attempt %d to %s is late, and sent a second time", job.number, self._host,
                host=self._host, attempt=job.number,
            )  # fmt: skip
        if self._observe is not None:
            about = self._about(job)
            sent = RequestSent(
                **about, texts=job.texts, attempt=job.number, id=job.id, hedged=True, server=self._server
            )
            notify(self._observe, sent)
        return True

    def _report_load(self, error: EmbedkitError, sent: float, busy: int, job: _Job[T]) -> bool:
        """What a failure says of the endpoint's load. True where everyone should wait."""
        time = job.tally.time
        if time is not None and time.timeout is not None and isinstance(error, TransportTimeoutError) and error.sent:
            self.limiter.on_given_up(sent)  # this caller's own patience, maybe less than any answer takes
            return False
        if error.retryable or (isinstance(error, DecodeError) and error.once_more):
            self.limiter.budget.failed(self._clock())
        elif isinstance(error, ApiError):
            self.limiter.budget.answered()  # it is well enough to refuse
        if isinstance(error, RateLimitError):
            return self.limiter.on_rejected(sent, busy, job.tokens, hint=error.retry_after, about=error.about)
        if isinstance(error, TransportTimeoutError) and not error.retryable:
            self.limiter.on_given_up(sent)  # cut off at the request's own deadline, maybe soon after it was sent
        elif isinstance(error, TransportTimeoutError):
            self.limiter.on_timeout(sent)
        elif is_loading(error):
            return self._loading > 0  # nobody need ask meanwhile
        elif isinstance(error, ServerError) and error.status in OVERLOADED:
            self.limiter.on_overloaded(sent, busy)
        return False

    # --- seen --------------------------------------------------------------------------------------------------------

    def _about(self, job: _Job[T]) -> dict[str, Any]:
        return {"provider": self._provider, "model": self._model, "call": job.tally.call}

    def _leaves(self, waited: float, job: _Job[T]) -> None:
        job.id, job.left, job.status = next(_ids), self._clock(), None
        log(
            DEBUG, "attempt %d to %s leaves, with %d texts", job.number, self._host, job.texts,
            host=self._host, attempt=job.number, wait=waited,
        )  # fmt: skip
        if self._observe is not None:
            about = self._about(job)
            if waited:
                notify(self._observe, Throttled(**about, seconds=waited))
            sent = RequestSent(
                **about, texts=job.texts, attempt=job.number, id=job.id, server=self._server, waited=job.waited
            )
            notify(self._observe, sent)

    def _ended(self, job: _Job[T], error: BaseException | None) -> None:
        if self.limiter.window.size != self._size:
            self._resized()
        seconds = self._clock() - job.left
        failure = error if isinstance(error, EmbedkitError) else None
        status = job.status if job.status is not None else status_of(failure)
        came = f"status {status}" if status is not None else "no answer"
        what = came if error is None else f"{came}, {type(error).__name__}"
        log(
            DEBUG, "attempt %d to %s ended after %.3f s: %s", job.number, self._host, seconds, what,
            host=self._host, attempt=job.number, status=status,
        )  # fmt: skip
        if self._observe is not None:
            about = self._about(job)
            ended = AttemptEnded(
                **about, texts=job.texts, attempt=job.number, id=job.id, status=status, seconds=seconds, error=failure
            )
            notify(self._observe, ended)

    def _resized(self) -> None:
        """The window is of another size."""
        before, self._size = self._size, self.limiter.window.size
        if self._size == 1:
            log(
                WARNING,
                "%s is in trouble: one request at a time is sent to it from now on",
                self._host,
                host=self._host,
            )
        if self._observe is not None:
            changed = WindowChanged(
                provider=self._provider, model=self._model, before=before, size=self._size, server=self._server
            )
            notify(self._observe, changed)


async def timed(time: CallTime | None, phase: int, work: Awaitable[R]) -> R:
    """What `work` gives; its seconds go to the ledger of the call, where it has one."""
    if time is None:
        return await work
    time.begin(phase)
    try:
        return await work
    finally:
        time.end(phase)


async def watched(turn: Awaitable[R], tell: Callable[[float], None], clock: Callable[[], float]) -> R:
    """What `turn` gives; `tell` is called with the seconds when they are many, and then whenever they have doubled."""
    came, loop = clock(), this_loop()
    if not hasattr(loop, "call_later"):  # trio: told afterwards
        found = await turn
        if clock() - came > LONG_WAIT:
            tell(clock() - came)
        return found

    timers: list[TimerHandle] = []

    def ring(seconds: float) -> None:
        tell(clock() - came)
        timers[:] = [loop.call_later(seconds, ring, 2 * seconds)]

    timers.append(loop.call_later(LONG_WAIT, ring, LONG_WAIT))
    try:
        return await turn
    finally:
        timers[0].cancel()
