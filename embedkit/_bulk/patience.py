"""Outlasts an outage: the job waits, sends one batch to see whether the provider is well, and goes on.

The embedder's own retries come first; what they give up on is an outage for the job. While it lasts, every part but one
waits, so that nothing that is paid for is lost and nothing is sent in vain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._embedders.wrapper import Wrapped
from ..errors import DecodeError, EmbedkitError, RateLimitError, ServerError, TransportError
from .notices import Paused, Resumed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .._embedders.base import Embedder
    from .._types import Embeddings, Options

FIRST, LONGEST = 5.0, 60.0  # seconds of a pause that the provider asks nothing of: doubled from the one to the other


class StoppedError(EmbedkitError):
    """The job was asked to stop while it waited."""


def is_outage(error: EmbedkitError) -> bool:
    """Whether the same request may succeed minutes later: no answer, too many requests, a failing server, a reply that
    cannot be read at all (a proxy's page).
    """
    if isinstance(error, DecodeError):
        return error.once_more
    return isinstance(error, (TransportError, RateLimitError, ServerError)) and error.retryable


def pause(pauses: int, retry_after: float | None, left: float, patience: float) -> float | None:
    """Seconds to wait before batch number `pauses` + 1 of an outage; None: the job gives up.

    A wait that the provider asks for may end after the patience does (`left`), so that an outage that is shorter than
    the patience is outlasted whatever the hints; one that is longer than all of the patience is not begun.
    """
    if left <= 0 or (retry_after is not None and retry_after > patience):
        return None
    own: float = min(FIRST * 2.0 ** min(pauses, 8), LONGEST, left)
    return max(own, retry_after or 0.0)


class Patient(Wrapped):
    """An embedder whose parts of a stream outlast an outage. A proxy that refuses connections before anything was
    answered is none: its address is wrong, and nobody will put it right overnight.

    Args:
        inner: the embedder.
        patience: seconds of outage that are waited for; 0: none.
        tell: is called with each `Paused` and `Resumed`.
        now, sleep: the clock.
    """

    def __init__(
        self,
        inner: Embedder,
        patience: float,
        tell: Callable[[Paused | Resumed], object],
        *,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        super().__init__(inner)
        self._patience = patience
        self._tell = tell
        self._now = now
        self._sleep = sleep
        self._since: float | None = None  # when the outage began
        self._answered = False  # anything
        self._pauses = 0
        self._attempts = 0  # in this outage, of the parts that asked
        self.gave_up: str = ""  # how long it was tried, where the patience is over
        self._over: EmbedkitError | None = None  # what every part raises from now on
        self._well: Any = None  # an event; there while parts wait
        self._scope: Any = None  # of the pause

    async def embed_part(self, rows: list[str], options: Options, *, skip: bool) -> Embeddings:
        """As the inner embedder, after any outage that the patience covers."""
        asks = False  # whether this part is the one that finds out
        while True:
            if not asks:
                await self._wait_for_others()
            try:
                made = await self.inner.embed_part(rows, options, skip=skip)
            except EmbedkitError as error:
                if isinstance(self._over, StoppedError) and is_outage(error):
                    raise self._over.at() from error  # nobody waits for the provider any more
                misled = not self._answered and isinstance(error, TransportError) and error.proxy_refused
                if misled or not is_outage(error) or self._over is not None:
                    self._end(error, asks=asks or misled)
                    raise
                if asks or self._since is None:
                    asks = True
                    await self._outlast(error)
                continue
            except BaseException:
                if asks:
                    self._end(StoppedError("the job was canceled"), asks=True)
                raise
            self._answered = True
            if asks:
                self._recover()
            return made

    def stop(self) -> None:
        """End every wait: parts that wait raise `StoppedError`; parts in flight come back."""
        self._over = StoppedError("the job was asked to stop while it waited for the provider")
        if self._scope is not None:
            self._scope.cancel()
        if self._well is not None:
            self._well.set()

    async def _wait_for_others(self) -> None:
        import anyio

        while self._since is not None and self._over is None:
            if self._well is None:
                self._well = anyio.Event()
            await self._well.wait()
        if self._over is not None:
            raise self._over.at()

    async def _outlast(self, error: EmbedkitError) -> None:
        import anyio

        now = self._now()
        if self._since is None:
            self._since = now - error.elapsed
        outage = now - self._since
        self._attempts += error.attempts
        left = self._patience - outage
        seconds = pause(self._pauses, error.retry_after, left, self._patience)
        if seconds is None:
            tries = "1 attempt" if self._attempts == 1 else f"{self._attempts:,} attempts"
            self.gave_up = f"gave up after {tries} in {outage:.0f} s; the job's patience is {self._patience:g} s"
            self._end(error, asks=True)
            raise error
        self._pauses += 1
        self._tell(Paused(seconds=seconds, outage=outage, patience=self._patience, error=error))
        with anyio.CancelScope() as self._scope:
            await self._sleep(seconds)
        self._scope = None
        if self._over is not None:
            raise self._over.at()

    def _recover(self) -> None:
        began, self._since, self._pauses, self._attempts = self._since, None, 0, 0
        if began is not None:
            self._tell(Resumed(outage=self._now() - began))
        self._ring()

    def _end(self, error: EmbedkitError, *, asks: bool) -> None:
        if asks and self._over is None:
            self._over = error
        self._ring()

    def _ring(self) -> None:
        if self._well is not None:
            self._well.set()
            self._well = None
