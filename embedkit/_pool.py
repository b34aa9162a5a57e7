"""Several endpoints, or several keys, serving one model behind one embedder.

Each request goes where it will be answered soonest, by the speed seen so far, among the endpoints whose window has room. An endpoint that fails is left out for a while, longer
each time, and let in again with a single request; what it failed goes to another. Vectors of different models do not mix, so every
endpoint first embeds one known text and must agree with the others.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import msgspec

from ._dispatch import GOOD
from ._embedder import Embedder
from ._events import RetryScheduled, notify
from ._plan import tightened
from ._transport import Tally
from ._types import Embeddings, Limits, Options, Reply, Usage
from .errors import ConfigError, EmbedkitError, InvalidInputError, TooLargeError, TransportTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import anyio
    from numpy.typing import NDArray

    from ._client import HttpEmbedder
    from ._retry import RetryPolicy
    from .codec import Out

AGREE = 0.98  # least cosine between two endpoints' vectors of one text: above what quantised weights cost, below any two models
FIRST, LONGEST = 1.0, 60.0  # seconds out after a failure: the first time, and at most
WEIGHT = 0.2  # of the newest answer in the mean speed


class Health:
    """One endpoint as seen from here: how fast it is, how much it has to do, and until when it is left out. Arithmetic only."""

    def __init__(self) -> None:
        self.busy = 0
        self.out_until = -math.inf
        self._failures = 0
        self._seconds: float | None = None  # an answer takes, per text

    def cost(self, window: int) -> float:
        """How long the next answer will take, per text: longer the fuller its window. Zero while nothing is known, so that all are tried."""
        return 0.0 if self._seconds is None else self._seconds * (1 + self.busy / window)

    def free(self, now: float, window: int) -> bool:
        """Whether it may be asked: not while it is left out, nor beyond its window; one request at a time until it answers again."""
        return now >= self.out_until and self.busy < (1 if self._failures else window)

    def answered(self, seconds: float, texts: int) -> None:
        """A good answer."""
        self._failures = 0
        each = seconds / max(texts, 1)
        self._seconds = each if self._seconds is None else self._seconds + WEIGHT * (each - self._seconds)

    def failed(self, now: float, sent: float, hint: float | None) -> None:
        """No good answer to a request sent at `sent`. Requests that were under way when it was left out say nothing new."""
        if sent < self.out_until and self._failures:
            return
        self._failures += 1
        self.out_until = now + (hint if hint is not None else min(LONGEST, FIRST * 2.0 ** min(self._failures - 1, 16)))


class Member:
    """An endpoint of a pool: its embedder and its health."""

    def __init__(self, embedder: HttpEmbedder, *, verified: bool) -> None:
        self.embedder = embedder
        self.health = Health()
        self.verified = verified

    def free(self, now: float) -> bool:
        """Whether it may be asked; while it is not yet known to serve the same model, by one request at a time."""
        return self.health.free(now, self.embedder.window if self.verified else 1)


class Pool(Embedder):
    """One embedder over several endpoints. Made by `connect` where `base_url` or `api_key` is a sequence.

    Args:
        members: the endpoints, each with a retry policy of a single attempt: what fails goes to another instead.
        retry: how often one request is tried in all, and how long to wait where no endpoint is left.
    """

    def __init__(
        self, members: Sequence[HttpEmbedder], *, retry: RetryPolicy, clock: Callable[[], float] = time.monotonic
    ) -> None:
        first = members[0]
        self.provider, self.model, self.options = first.provider, first.model, first.options
        self.accepts_empty, self.price, self.observe = first.accepts_empty, first.price, first.observe
        self.count_tokens = first.count_tokens
        self.max_concurrency = sum(each.max_concurrency for each in members)
        self._retry = retry
        self._clock = clock
        self._embedders = list(members)
        self._reset()

    def _reset(self) -> None:
        one_place = len({each.base_url for each in self._embedders}) == 1  # several keys: one model beyond doubt
        self._members = [Member(each, verified=one_place) for each in self._embedders]
        self._known: tuple[str, NDArray[Any]] | None = None  # where the first answer to GOOD came from, and what it was
        self._news: anyio.Event | None = None

    @property
    def limits(self) -> Limits:  # type: ignore[override]  # the strictest of all, as they are known by now
        """What one request may hold."""
        found = self._embedders[0].limits
        for each in self._embedders[1:]:
            found = tightened(found, each.limits)
        return found

    @property
    def borrowed(self) -> bool:
        """True where the session is the caller's."""
        return any(each.borrowed for each in self._embedders)

    async def embed_batch(self, texts: Sequence[str], options: Options) -> Embeddings:
        """One request, without planning: `embed` is what you want."""
        tally = Tally()
        reply = await self._fill(texts, options, None, tally)
        return Embeddings(reply.vectors, reply.model or self.model, Usage(reply.tokens, tally.requests), dtype=options.dtype)

    async def aclose(self) -> None:
        """Close the sockets of this event loop, of every endpoint."""
        for each in self._embedders:
            await each.aclose()

    async def _fill(self, texts: Sequence[str], options: Options, out: Out | None, tally: Tally) -> Reply:
        failures = 0
        started = self._clock()
        while True:
            member = await self._chosen()
            sent = self._clock()
            try:
                return await self._asked(member, texts, options, out, tally)
            except (ConfigError, InvalidInputError, TooLargeError):
                raise  # about the texts or the request: another endpoint would say the same
            except EmbedkitError as error:
                failures += 1
                now = self._clock()
                member.health.failed(now, sent, error.retry_after)
                if isinstance(error, TransportTimeoutError) and error.sent and len(texts) > 1:
                    raise  # it comes back smaller
                if failures >= (self._retry.attempts if error.retryable else len(self._members)):
                    raise
                if self._retry.deadline is not None and now - started >= self._retry.deadline:
                    raise
                self._tell(failures, error)
            finally:
                self._ring()

    async def _asked(self, member: Member, texts: Sequence[str], options: Options, out: Out | None, tally: Tally) -> Reply:
        health = member.health
        health.busy += 1
        try:
            if not member.verified:
                await self._verify(member, tally)
            sent = self._clock()
            reply = await member.embedder._fill(texts, options, out, tally)  # noqa: SLF001 (a member is an embedder of this house)
            health.answered(self._clock() - sent, len(texts))
            return reply
        finally:
            health.busy -= 1

    async def _chosen(self) -> Member:
        """The endpoint that will be done soonest; waits while there is none."""
        import anyio

        while True:
            now = self._clock()
            free = [each for each in self._members if each.free(now)]
            if free:
                return min(free, key=lambda each: each.health.cost(each.embedder.window))
            if self._news is None:
                self._news = anyio.Event()
            soonest = min(each.health.out_until for each in self._members)
            with anyio.move_on_after(soonest - now if soonest > now else None):
                await self._news.wait()

    def _ring(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None

    async def _verify(self, member: Member, tally: Tally) -> None:
        import numpy as np

        options = msgspec.structs.replace(self.options, dtype="float32", dimensions=None, normalize=True)
        made = await member.embedder.embed_batch([GOOD], options)
        tally.requests += made.usage.requests
        if self._known is None:
            self._known = (member.embedder.base_url, made.vectors[0])
        place, vector = self._known
        cosine = float(np.dot(made.vectors[0], vector)) if made.vectors.shape[1] == len(vector) else None
        if cosine is None or cosine < AGREE:
            differ = (
                f"a cosine of {cosine:.3f}" if cosine is not None else f"{len(vector)} and {made.vectors.shape[1]} components"
            )
            msg = (
                f"{place} and {member.embedder.base_url} do not serve the same model (one text, {differ}): their vectors do not mix; "
                "a pool takes endpoints of one model"
            )
            raise ConfigError(msg)
        member.verified = True

    def _tell(self, attempt: int, error: EmbedkitError) -> None:
        if self.observe is not None:
            notify(
                self.observe,
                RetryScheduled(provider=self.provider, model=self.model, attempt=attempt, wait=0.0, error=error),
            )

    def __repr__(self) -> str:
        return f"<Pool {', '.join(map(repr, self._embedders))}>"

    def __getstate__(self) -> dict[str, Any]:
        local = {"_members", "_known", "_news", "_widths", "_tight"}
        return {name: value for name, value in self.__dict__.items() if name not in local}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()
