"""One request, until it succeeds or is given up.

attempt = wait for a turn → authorise → exchange → receive; retry with backoff goes around it. The transport sees requests,
responses and exceptions, never a codec: `receive` turns a response into a result, or raises what the policy judges.
"""

from __future__ import annotations

import math
import random
import time
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from ._events import RequestSent, RetryScheduled, Throttled, notify
from ._queue import CALLER, RETRY, WORKER
from ._retry import CAP, RetryPolicy, again
from .errors import ApiError, AuthError, DecodeError, EmbedkitError, RateLimitError, ServerError, TransportTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._events import Event
    from ._hedge import Hedge
    from ._limiter import Limiter
    from ._types import Request, Response

T = TypeVar("T")
OVERLOADED = (503, 529)
TIMEOUT = 120.0  # seconds for one attempt, where nothing else is said


class Exchange(Protocol):
    """The one I/O seam: a request goes out, a response comes back, or a TransportError is raised."""

    async def __call__(self, request: Request) -> Response:
        """Send and read to the end."""
        ...

    async def aclose(self) -> None:
        """Close what is open."""
        ...


class Tally:
    """What one call to the embedder has sent so far, and how many of its requests are under way. `patient`: it is one of a bulk job's own."""

    __slots__ = ("patient", "requests", "under_way")

    def __init__(self, *, patient: bool = False) -> None:
        self.requests = self.under_way = 0
        self.patient = patient


class _Job(Generic[T]):
    """One request on its way, through all its attempts."""

    __slots__ = (
        "again",
        "alone",
        "extra",
        "failure",
        "number",
        "receive",
        "request",
        "spent",
        "tally",
        "texts",
        "tokens",
        "tries",
        "whole",
    )

    def __init__(
        self,
        request: Request,
        receive: Callable[[Response], T],
        tally: Tally,
        texts: int,
        tokens: int,
        tries: int | None,
        *,
        whole: bool,
        extra: bool,
    ) -> None:
        self.request = request
        self.receive = receive
        self.tally = tally
        self.texts = texts
        self.tokens = tokens
        self.number = 1  # of the attempt
        self.spent = 0.0  # seconds in exchanges and backoff: what the deadline counts
        self.alone = True  # the last failure concerns this request only
        self.tries = tries
        self.whole = whole
        self.extra = extra  # no attempt of its kind is a first one: the retry budget pays for it
        self.failure: EmbedkitError | None = None  # the last
        self.again = False  # an answer that could not be used has been asked for once more


def _loads(error: EmbedkitError) -> bool:
    return isinstance(error, ServerError) and error.loading


async def _sleep(seconds: float) -> None:
    import anyio

    await anyio.sleep(seconds)


class Transport:
    """Sends requests over an exchange, in turn, authorised on every attempt."""

    def __init__(  # noqa: PLR0913 (the seams of one request)
        self,
        exchange: Exchange,
        authorise: Callable[[Request], Awaitable[Request]],
        limiter: Limiter,
        policy: RetryPolicy,
        *,
        name: tuple[str, str] = ("", ""),
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
        self._authorise = authorise
        self._provider, self._model = name
        self._observe = observe
        self._hedge = hedge
        # The exchange ends each attempt by itself; only a deadline that is sooner needs a timer of its own for the first.
        self._plain = hedge is None and (policy.deadline is None or timeout <= policy.deadline)
        self._loading = loading
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter

    async def send(
        self,
        request: Request,
        receive: Callable[[Response], T],
        tally: Tally,
        *,
        texts: int = 0,
        tokens: int = 0,
        tries: int | None = None,
        whole: bool = False,
        extra: bool = False,
    ) -> T:
        """What `receive` makes of the response to this request.

        Args:
            request: without credentials.
            receive: reads a response; what it raises is judged by the policy. A DecodeError may ask to be tried once more.
            tally: counts what is sent.
            texts: that the request holds.
            tokens: that it is estimated to take.
            tries: how often it is sent at most, whatever the policy allows. A rate limit and a renewed token do not count: no text is
                at fault.
            whole: its texts cannot come back in smaller requests.
            extra: it is no caller's first attempt but a known-good text, or a piece of what was late: the retry budget pays for it.

        Raises:
            EmbedkitError: whatever `receive` or the exchange raised last, once the policy gives up. A timeout of a request that holds
                several texts is given up at once, unless it is `whole`: it is to come back smaller.
        """
        job = _Job(request, receive, tally, texts, tokens, tries, whole=whole, extra=extra)
        tally.under_way += 1
        try:
            return await self._attempt(job)
        except EmbedkitError as error:
            if not (error.retryable or (isinstance(error, DecodeError) and error.once_more)):
                raise
            return await again(
                lambda: self._attempt(job), error, decide=lambda made, error: self._decide(job, made, error), sleep=self._sleep
            )
        finally:
            tally.under_way -= 1

    async def _attempt(self, job: _Job[T]) -> T:
        limiter = self.limiter
        waited = 0.0 if not job.extra and limiter.enter() else await self._turn(job)
        epoch = limiter.epoch
        try:
            if self._observe is not None:
                self._tell(self._observe, waited, job)
            signed = await self._authorise(job.request)
            job.tally.requests += 1
            sent, busy = self._clock(), limiter.flying
            try:
                if job.number == 1 and self._plain:
                    response = await self.exchange(signed)
                else:
                    response = await self._guarded(signed, job)
                limiter.heed(response.headers)
                result = job.receive(response)
            except EmbedkitError as error:
                job.alone = not self._feel(error, sent, busy, job.tokens)
                raise
            except BaseException:
                limiter.given_up(sent)
                raise
            finally:
                seconds = self._clock() - sent
                job.spent += seconds
            limiter.answered(sent, seconds, busy)
            return result
        finally:
            if epoch == limiter.epoch or limiter.holds(epoch):
                limiter.release()

    async def _turn(self, job: _Job[T]) -> float:
        """Wait for a turn; the seconds waited for the pace."""
        try:
            return await self._waited(job)
        except ApiError as error:  # not sent, for the provider has said that it would be in vain
            error.provider, error.model = error.provider or self._provider, error.model or self._model
            raise

    async def _waited(self, job: _Job[T]) -> float:
        """The same. What is waited for the retry budget counts as time between tries."""
        limiter, deadline = self.limiter, self.policy.deadline
        if not job.extra:
            kind = WORKER if job.tally.patient or job.tally.under_way > 1 else CALLER
            return await limiter.acquire(job.tokens, kind=kind) or 0.0
        came = self._clock()
        # After a rate limit it is the pace that is waited for, which the deadline does not count.
        paced = isinstance(job.failure, RateLimitError)
        blocked = not paced and not limiter.budget.allows(came, limiter.flying)
        waited = await limiter.acquire(
            job.tokens, kind=RETRY, until=math.inf if deadline is None or paced else came + deadline - job.spent
        )
        if blocked or waited is None:
            job.spent += self._clock() - came
        if waited is not None:
            return waited
        if job.failure is not None:
            raise job.failure
        msg = f"the provider fails, and within the deadline of {deadline:g} s it was not found to be well again"
        raise TransportTimeoutError(msg, retryable=False)

    def _decide(self, job: _Job[T], made: int, error: EmbedkitError) -> float | None:
        """Seconds until the next attempt after `made`, or None."""
        if isinstance(error, TransportTimeoutError) and error.sent and job.texts > 1 and not job.whole:
            return None
        loading = _loads(error) and job.spent < self._loading
        if job.tries is not None and made >= job.tries and not (loading or isinstance(error, (RateLimitError, AuthError))):
            return None
        if isinstance(error, DecodeError):
            if job.again:
                return None
            job.again = True
        wait = self.policy.wait(made, error, self._jitter(), loading=loading)
        if wait is None or (self.policy.deadline is not None and job.spent + wait >= self.policy.deadline):
            if not job.alone and error.retry_after is not None and error.retry_after <= CAP:
                self.limiter.pause(error.retry_after)  # for the others; this one gives up
            return None
        if not job.alone:
            self.limiter.pause(wait)  # one 429 stops everyone on this quota
        if self._observe is not None:
            notify(
                self._observe,
                RetryScheduled(provider=self._provider, model=self._model, attempt=made, wait=wait, error=error),
            )
        job.spent += wait
        job.number = made + 1
        job.alone = job.extra = True
        job.failure = error
        return wait

    async def _guarded(self, signed: Request, job: _Job[T]) -> Response:
        """Hedged, and cut off at the deadline."""
        if self.policy.deadline is None:
            return await self._hedged(signed, job)
        import anyio

        with anyio.move_on_after(max(0.0, self.policy.deadline - job.spent)):
            return await self._hedged(signed, job)
        msg = f"no response within the deadline of {self.policy.deadline:g} s for one request with its retries"
        raise TransportTimeoutError(msg, retryable=False)

    async def _hedged(self, signed: Request, job: _Job[T]) -> Response:
        if self._hedge is None:
            return await self.exchange(signed)
        return await self._hedge(lambda: self.exchange(signed), len(signed.body), lambda: self._again(job))

    def _again(self, job: _Job[T]) -> bool:
        """Whether a late request may be sent a second time beside the first; then it counts as sent."""
        if not self.limiter.spare(job.tokens):
            return False
        job.tally.requests += 1
        if self._observe is not None:
            self._tell(self._observe, 0.0, job)
        return True

    def _feel(self, error: EmbedkitError, sent: float, busy: int, tokens: int) -> bool:
        """What a failure says of the endpoint's load. True where everyone should wait."""
        if error.retryable:
            self.limiter.budget.failed(self._clock())
        elif isinstance(error, ApiError):
            self.limiter.budget.answered()  # it is well enough to refuse
        if isinstance(error, RateLimitError):
            return self.limiter.refused(sent, busy, tokens, hint=error.retry_after, about=error.about)
        if isinstance(error, TransportTimeoutError) and not error.retryable:
            self.limiter.given_up(sent)  # cut off at the request's own deadline, maybe soon after it was sent
        elif isinstance(error, TransportTimeoutError):
            self.limiter.late(sent)
        elif _loads(error):
            return self._loading > 0  # nobody need ask meanwhile
        elif isinstance(error, ServerError) and error.status in OVERLOADED:
            self.limiter.crowded(sent, busy)
        return False

    def _tell(self, observe: Callable[[Event], object], waited: float, job: _Job[T]) -> None:
        if waited:
            notify(observe, Throttled(provider=self._provider, model=self._model, seconds=waited))
        notify(observe, RequestSent(provider=self._provider, model=self._model, texts=job.texts, attempt=job.number))
