"""One request, until it succeeds or is given up.

attempt = wait for a turn → authorise → exchange → receive; retry with backoff goes around it. The transport sees requests,
responses and exceptions, never a codec: `receive` turns a response into a result, or raises what the policy judges.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Protocol, TypeVar

from ._events import RequestSent, RetryScheduled, Throttled, notify
from ._retry import RetryPolicy, again
from .errors import EmbedkitError, RateLimitError, TransportTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._events import Event
    from ._limiter import Limiter
    from ._types import Request, Response

T = TypeVar("T")


class Exchange(Protocol):
    """The one I/O seam: a request goes out, a response comes back, or a TransportError is raised."""

    async def __call__(self, request: Request) -> Response:
        """Send and read to the end."""
        ...

    async def aclose(self) -> None:
        """Close what is open."""
        ...


class Tally:
    """What one call to the embedder has sent so far."""

    __slots__ = ("requests",)

    def __init__(self) -> None:
        self.requests = 0


async def _sleep(seconds: float) -> None:
    import anyio

    await anyio.sleep(seconds)


class Transport:
    """Sends requests over an exchange, in turn, authorised afresh on every attempt."""

    def __init__(
        self,
        exchange: Exchange,
        authorise: Callable[[Request], Awaitable[Request]],
        limiter: Limiter,
        policy: RetryPolicy,
        *,
        name: tuple[str, str] = ("", ""),
        observe: Callable[[Event], object] | None = None,
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
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter

    async def send(
        self, request: Request, receive: Callable[[Response], T], tally: Tally, *, texts: int = 0, tokens: int = 0
    ) -> T:
        """What `receive` makes of the response to this request.

        Raises:
            EmbedkitError: whatever `receive` or the exchange raised last, once the policy gives up.
        """
        spent = 0.0  # seconds in exchanges and backoff: what the deadline counts
        number = 1

        async def attempt() -> T:
            nonlocal spent
            waited = await self.limiter.acquire(tokens)
            try:
                if self._observe is not None:
                    self._tell(self._observe, waited, texts, number)
                signed = await self._authorise(request)
                tally.requests += 1
                started = self._clock()
                try:
                    return receive(await self._within(spent, signed) if number > 1 else await self.exchange(signed))
                finally:
                    spent += self._clock() - started
            finally:
                self.limiter.release()

        def decide(made: int, error: EmbedkitError) -> float | None:
            nonlocal number, spent
            wait = self.policy.wait(made, error, self._jitter())
            if wait is None or (self.policy.deadline is not None and spent + wait >= self.policy.deadline):
                return None
            if isinstance(error, RateLimitError):
                self.limiter.pause(wait)  # one 429 stops everyone on this quota
            if self._observe is not None:
                notify(
                    self._observe,
                    RetryScheduled(provider=self._provider, model=self._model, attempt=made, wait=wait, error=error),
                )
            spent += wait
            number = made + 1
            return wait

        try:
            return await attempt()
        except EmbedkitError as error:
            if not error.retryable:
                raise
            return await again(attempt, error, decide=decide, sleep=self._sleep)

    async def _within(self, spent: float, request: Request) -> Response:
        """A later attempt, cut off at the deadline."""
        import anyio

        if self.policy.deadline is None:
            return await self.exchange(request)
        with anyio.move_on_after(max(0.0, self.policy.deadline - spent)):
            return await self.exchange(request)
        msg = f"no response within the deadline of {self.policy.deadline:g} s for one request with its retries"
        raise TransportTimeoutError(msg, retryable=False)

    def _tell(self, observe: Callable[[Event], object], waited: float, texts: int, number: int) -> None:
        if waited:
            notify(observe, Throttled(provider=self._provider, model=self._model, seconds=waited))
        notify(observe, RequestSent(provider=self._provider, model=self._model, texts=texts, attempt=number))
