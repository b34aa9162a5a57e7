"""Several endpoints, or several keys, serving one model behind one embedder.

Each request goes where it will be answered soonest, by the speed seen so far, among the endpoints whose window has room. An endpoint
that fails is left out for a while, longer each time, and let in again with a single request; what it failed goes to another. Vectors of
different models do not mix, so every endpoint first embeds one known text, again after every outage, and must agree with the others.
"""

from __future__ import annotations

import math
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from ._client import this_loop
from ._dispatch import GOOD
from ._embedder import Embedder
from ._events import RetryScheduled, notify
from ._plan import tightened
from ._retry import CAP
from ._transport import Tally
from ._types import Embeddings, Limits, Options, Reply, Usage
from .errors import ConfigError, EmbedkitError, InvalidInputError, RateLimitError, TooLargeError, TransportTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import anyio
    from numpy.typing import NDArray

    from ._client import HttpEmbedder
    from ._retry import RetryPolicy
    from .codec import Out

AGREE = 0.98  # least cosine between two endpoints' vectors of one text: above what quantised weights cost, below any two models
FIRST, LONGEST = 1.0, 15.0  # seconds out after a failure: the first time, and at most
WEIGHT = 0.2  # of the newest answer in the mean speed
FADES = 30.0  # seconds until what was seen of a speed counts half


class Health:
    """One endpoint as seen from here: how fast it is, and until when it is left out. Arithmetic only."""

    def __init__(self) -> None:
        self.out_until = -math.inf
        self.error: EmbedkitError | None = None  # why it is out
        self._failures = 0
        self._seconds: float | None = None  # an answer takes, per text
        self._seen = -math.inf

    def cost(self, now: float, fill: float) -> float:
        """How long the next answer will take, per text: longer the fuller its window.

        Zero while nothing is known, so that all are tried; less the longer ago it was seen, so that none is forgotten. After a failure
        for ever: it is tried again when the others have no room, so that no call waits for a dead endpoint without need.
        """
        if self.failing:
            return math.inf
        return 0.0 if self._seconds is None else self._seconds * (1 + fill) * self._faded(now)

    def _faded(self, now: float) -> float:
        return math.pow(0.5, (now - self._seen) / FADES)

    @property
    def failing(self) -> bool:
        """No good answer since the last failure."""
        return self._failures > 0

    def room(self, now: float, window: int) -> int:
        """How many requests it may be given at once: none while it is left out, then one until it answers again."""
        return 0 if now < self.out_until else 1 if self.failing else window

    def answered(self, now: float, seconds: float, texts: int) -> None:
        """A good answer."""
        self._failures = 0
        self.error = None
        each = seconds / max(texts, 1)
        kept = (1 - WEIGHT) * self._faded(now)
        self._seconds = each if self._seconds is None else kept * self._seconds + (1 - kept) * each
        self._seen = now

    def failed(self, now: float, sent: float, error: EmbedkitError) -> None:
        """No good answer to a request sent at `sent`. One that was under way when it was left out says nothing new, but for its hint."""
        fresh = sent >= self.out_until or not self.failing
        if fresh:
            self._failures += 1
        hint = error.retry_after
        wait = hint if hint is not None else min(LONGEST, FIRST * 2.0 ** min(self._failures - 1, 16)) if fresh else 0.0
        if self.error is None or now + wait >= self.out_until:
            self.out_until, self.error = max(self.out_until, now + wait), error.at()


class Member:
    """An endpoint of a pool: its embedder and its health. `verified`: it is known to serve the same model as the others."""

    __slots__ = ("embedder", "health", "verified")

    def __init__(self, embedder: HttpEmbedder, *, verified: bool) -> None:
        self.embedder = embedder
        self.health = Health()
        self.verified = verified


class _Turn:
    """Someone in line: the bell rings when there is a member, or reason to look again."""

    __slots__ = ("bell", "member")

    def __init__(self, bell: anyio.Event) -> None:
        self.bell = bell
        self.member: Member | None = None


class Desk:
    """Who is served where, on one event loop: who has waited longest goes where the answer will come soonest."""

    def __init__(self, members: Sequence[Member], clock: Callable[[], float]) -> None:
        self._members = members
        self._clock = clock
        self._busy = dict.fromkeys(members, 0)
        self._queue: deque[_Turn] = deque()

    async def turn(self, until: float) -> Member | None:
        """A place at a member, to be given back with `leave`; None where there will be none in time."""
        if not self._queue and (member := self._best()) is not None:
            self._busy[member] += 1
            return member
        import anyio

        turn = _Turn(anyio.Event())
        self._queue.append(turn)
        try:
            while turn.member is None and self._promising(until):
                with anyio.move_on_after(self._patience(turn, until)):
                    await turn.bell.wait()
                if turn.member is None:
                    turn.bell = anyio.Event()
                    self._give()
        except BaseException:
            if turn.member is not None:
                self.leave(turn.member)
            raise
        finally:
            if turn.member is None:
                self._queue.remove(turn)
                self.serve()
        return turn.member

    def leave(self, member: Member) -> None:
        """Give the place back."""
        self._busy[member] -= 1
        self.serve()

    def serve(self) -> None:
        """Something has changed: give out what is free, and let who is first look again when more will be."""
        self._give()
        if self._queue:
            self._queue[0].bell.set()

    def _give(self) -> None:
        while self._queue and (member := self._best()) is not None:
            self._busy[member] += 1
            turn = self._queue.popleft()
            turn.member = member
            turn.bell.set()
            if self._queue:
                self._queue[0].bell.set()

    def _best(self) -> Member | None:
        now = self._clock()
        best, least = None, math.inf
        for each in self._members:
            window, busy = each.embedder.window, self._busy[each]
            if busy < each.health.room(now, window if each.verified else 1):
                cost = each.health.cost(now, busy / window)
                if best is None or cost < least:
                    best, least = each, cost
        return best

    def _promising(self, until: float) -> bool:
        """Whether waiting can help: not beyond `until`, nor where all are left out for longer than anyone waits."""
        now = self._clock()
        return now < until and min(each.health.out_until for each in self._members) - now <= CAP

    def _patience(self, turn: _Turn, until: float) -> float | None:
        """Seconds until there is reason to look again without the bell: who is first minds when a member is let in again."""
        now = self._clock()
        moments = [each.health.out_until for each in self._members] if self._queue[0] is turn else []
        later = [moment - now for moment in (*moments, until) if now < moment < math.inf]
        return min(later, default=None)


class Pool(Embedder):
    """One embedder over several endpoints. Made by `connect` where `base_url` or `api_key` is a sequence.

    Limits are the strictest of all. A `rate` holds for each endpoint and key by itself.

    Args:
        members: the endpoints, each with a retry policy of a single attempt: what fails goes to another instead.
        retry: how often one request is tried in all, at every endpoint at least once; and for how long, from when it is first sent.
    """

    def __init__(
        self, members: Sequence[HttpEmbedder], *, retry: RetryPolicy, clock: Callable[[], float] = time.monotonic
    ) -> None:
        first = members[0]
        self.provider, self.model, self.options = first.provider, first.model, first.options
        self.accepts_empty, self.price, self.observe = first.accepts_empty, first.price, first.observe
        self.count_tokens = first.count_tokens
        self.max_concurrency = sum(each.max_concurrency for each in members)
        self._start = sum(each._start for each in members)  # noqa: SLF001 (a member is an embedder of this house, as below)
        self._retry = retry
        self._clock = clock
        self._embedders = list(members)
        self._reset()

    def _reset(self) -> None:
        self._one_place = len({each.base_url for each in self._embedders}) == 1  # several keys: one model beyond doubt
        self._members = [Member(each, verified=self._one_place) for each in self._embedders]
        self._known: tuple[str, NDArray[Any]] | None = None  # where the first answer to GOOD came from, and what it was
        self._desks: dict[object, Desk] = {}

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

    @property
    def base_url(self) -> str:
        """Where requests go: every address, once."""
        return ", ".join(dict.fromkeys(each.base_url for each in self._embedders))

    def _cuts(self) -> bool:
        return self._embedders[0]._cuts()  # noqa: SLF001

    def _most_tokens(self, options: Options) -> int | None:
        return self._embedders[0]._most_tokens(options)  # noqa: SLF001

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
        desk = self._desk()
        failures, refusing, until = 0, set[Member](), math.inf
        while True:
            member = await desk.turn(until)
            if member is None:
                raise self._hopeless()
            sent, proven = self._clock(), False
            if not failures:
                until = sent + (self._retry.deadline or math.inf)
            try:
                if not member.verified:
                    await self._verify(member, tally)
                    desk.serve()  # its window is open now
                proven = True
                return await self._asked(member, texts, options, out, tally)
            except (ConfigError, InvalidInputError, TooLargeError):
                raise  # about the texts or the request: another endpoint would say the same
            except EmbedkitError as error:
                failures += 1
                member.health.failed(self._clock(), sent, error)
                if not isinstance(error, RateLimitError):
                    member.verified = self._one_place  # what comes back may be another model
                if not error.retryable:
                    refusing.add(member)
                # A batch that is late comes back smaller; a question that is late says nothing of the batch.
                late = proven and isinstance(error, TransportTimeoutError) and error.sent and len(texts) > 1
                most = max(self._retry.attempts, len(self._members))
                if late or failures >= most or len(refusing) == len(self._members) or self._clock() >= until:
                    raise
                self._tell(failures, error)
            finally:
                desk.leave(member)

    async def _asked(self, member: Member, texts: Sequence[str], options: Options, out: Out | None, tally: Tally) -> Reply:
        sent = self._clock()
        reply = await member.embedder._fill(texts, options, out, tally)  # noqa: SLF001
        now = self._clock()
        if member.health.failing:
            member.embedder.forget_load()  # what it bore while it was failing says nothing
        member.health.answered(now, now - sent, len(texts))
        return reply

    def _hopeless(self) -> EmbedkitError:
        """Why no endpoint is left: what the one says that will be let in again first."""
        soonest = min(self._members, key=lambda each: each.health.out_until).health
        if soonest.error is None:
            msg = f"no endpoint was free within the deadline of {self._retry.deadline:g} s for one request with its retries"
            return TransportTimeoutError(msg, retryable=False)
        error = soonest.error.at()
        error.message += (
            f"; no other endpoint is left, and this one is not asked again for {soonest.out_until - self._clock():.0f} s"
        )
        return error

    def _desk(self) -> Desk:
        loop = this_loop()
        desk = self._desks.get(loop)
        if desk is None:
            for dead in [each for each in list(self._desks) if getattr(each, "is_closed", bool)()]:
                self._desks.pop(dead, None)
            desk = self._desks[loop] = Desk(self._members, self._clock)
        return desk

    async def _verify(self, member: Member, tally: Tally) -> None:
        import numpy as np

        options = msgspec.structs.replace(self.options, dtype="float32", dimensions=None, normalize=True, truncate=None)
        reply = await member.embedder._fill([GOOD], options, None, tally)  # noqa: SLF001
        found = reply.vectors[0]
        if self._known is None:
            self._known = (member.embedder.base_url, found)
        place, vector = self._known
        if len(found) != len(vector):
            differ = f"{len(vector)} and {len(found)} components"
        elif (cosine := float(np.dot(found, vector))) < AGREE:
            differ = f"a cosine of {cosine:.3f}"
        else:
            member.verified = True
            return
        msg = (
            f"{place} and {member.embedder.base_url} do not serve the same model (one text, {differ}): their vectors do not mix; "
            "a pool takes endpoints of one model"
        )
        raise ConfigError(msg)

    def _tell(self, attempt: int, error: EmbedkitError) -> None:
        if self.observe is not None:
            notify(
                self.observe,
                RetryScheduled(provider=self.provider, model=self.model, attempt=attempt, wait=0.0, error=error),
            )

    def __repr__(self) -> str:
        return f"<Pool {', '.join(map(repr, self._embedders))}>"

    def __getstate__(self) -> dict[str, Any]:
        local = {"_members", "_known", "_desks", "_widths", "_tight"}
        return {name: value for name, value in self.__dict__.items() if name not in local}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()
