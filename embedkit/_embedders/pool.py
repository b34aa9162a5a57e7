"""Several endpoints, keys or providers, serving one model behind one embedder.

A request goes where a load balancer sends it, and what one member fails goes to another, until `retry` gives up.
Vectors of different models do not mix. So every endpoint of one provider first embeds one known text, again after every
outage, and must agree with the others (`known_text`); different providers embed a few under the options of the call
(`agreement`).
"""

from __future__ import annotations

import math
import random
import time
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from .._batching.plan import tightened
from .._calls import until_closed
from .._calltime import PAUSE, TURN
from .._http.transport import is_loading, timed, watched
from .._logging import INFO, Interval, heard, host_of, kind_of, log, notify, status_of
from .._loops import PerLoop, this_loop
from .._traffic.load_balancer import Endpoint, LoadBalancer
from .._traffic.retry import tell_retry
from .._traffic.wait_queue import CALLER, RETRY, WORKER
from .._types import Embeddings, Limits, Options, Reply, RequestCount, Usage
from ..codec import OutputRows, together
from ..errors import (
    ConfigError,
    DecodeError,
    EmbedkitError,
    InvalidInputError,
    RateLimitError,
    TooLargeError,
    TransportTimeoutError,
)
from ..events import BatchDone, RetryScheduled
from .agreement import Agreement
from .base import Embedder
from .call_end import raise_if_closed
from .known_text import KnownText
from .learned import lasting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from .._traffic.retry import RetryPolicy
    from ..events import Event


class Pool(Embedder):
    """One embedder over several members. Made by `connect` where `base_url` or `api_key` is a sequence, and by `pool`.

    Limits are the strictest of all. A `rate` holds for each member by itself.

    Args:
        members: each tries a request once: what fails goes to another instead.
        retry: how often one request is tried in all, at every member at least once; and for how long, from when it is
            first sent.
        check: how members show that they serve one model: as an "endpoint" of one provider, as a "provider", or "none".
        cheapest: the members of the lowest price come first; all have one.
    """

    def __init__(
        self,
        members: Sequence[Embedder],
        *,
        retry: RetryPolicy,
        check: Literal["endpoint", "provider", "none"] = "endpoint",
        cheapest: bool = False,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] | None = None,
    ) -> None:
        first, prices = members[0], [each.price for each in members]
        self.provider = ", ".join(dict.fromkeys(each.provider for each in members))
        self.model, self.options, self.observe = first.model, first.options, first.observe
        self.accepts_empty = all(each.accepts_empty for each in members)
        self.price = None if None in prices else max(filter(None, prices), default=0.0)
        self.count_tokens = first.count_tokens
        self.max_concurrency = sum(each.max_concurrency for each in members)
        self.first_workers = sum(each.first_workers or each.max_concurrency for each in members)
        self._priced_apart = len(set(prices)) > 1
        self._retry = retry
        self._check = check
        self._cheapest = cheapest
        self._clock = clock
        self._jitter = jitter or _random
        self._embedders = list(members)
        self._reset()

    def _reset(self) -> None:
        # Several keys at one place: one model beyond doubt.
        self._trusted = self._check != "endpoint" or len(set(map(_address, self._embedders))) == 1
        self._agreement = Agreement() if self._check == "provider" and len(self._embedders) > 1 else None
        prices = sorted({each.price or 0.0 for each in self._embedders}) if self._cheapest else []
        self._members = [
            Endpoint(each, verified=self._trusted, rank=prices.index(each.price or 0.0) if prices else 0)
            for each in self._embedders
        ]
        self._known = KnownText()
        self._waits = Interval()
        self._balancers: PerLoop[LoadBalancer[Embedder]] = PerLoop()

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
        return ", ".join(dict.fromkeys(filter(None, map(_address, self._embedders))))

    @property
    def members(self) -> tuple[Embedder, ...]:
        """Who embeds."""
        return tuple(self._embedders)

    def quota_tokens(self) -> int | None:
        return min((most for each in self._embedders if (most := each.quota_tokens()) is not None), default=None)

    def cuts_texts(self) -> bool:
        return all(each.cuts_texts() for each in self._embedders)

    def joins_texts(self, options: Options) -> bool:
        return any(each.joins_texts(self._own(each, options)) for each in self._embedders)

    def _own(self, member: Embedder, options: Options) -> Options:
        """The options of a call, with the fields that only this member is sent; those of the call win."""
        own = member.options.extra
        if not own or self._check == "endpoint":  # all are sent the same
            return options
        return msgspec.structs.replace(options, extra={**own, **options.extra})

    def most_text_tokens(self, options: Options) -> int | None:
        known = [most for each in self._embedders if (most := each.most_text_tokens(options)) is not None]
        return min(known, default=None)

    def origin(self, options: Options) -> Mapping[str, Any] | None:
        """Those of all members: their vectors agree, but need not be equal. None where one does not say."""
        found = [each.origin(self._own(each, options)) for each in self._embedders]
        known = [each for each in found if each is not None]
        if len(known) < len(found):
            return None
        places = {msgspec.json.encode(each, enc_hook=str).decode() for each in known}
        return known[0] if len(places) == 1 else {"members": sorted(places)}

    @until_closed
    async def embed_batch(self, texts: Sequence[str], options: Options) -> Embeddings:
        """One request, without planning: `embed` is what you want."""
        tally = RequestCount()
        try:
            reply = await self.fill_rows(texts, options, None, tally)
        except BaseException as error:
            raise_if_closed(error, tally)
            raise
        return Embeddings(
            reply.vectors, reply.model or self.model, Usage(reply.tokens, tally.requests), dtype=options.dtype
        )

    async def aclose(self) -> None:
        """End the calls in flight on this event loop with `ClosedError`, then close its sockets, of every member."""
        for each in self._embedders:
            await each.aclose()

    async def fill_rows(
        self,
        texts: Sequence[str],
        options: Options,
        out: OutputRows | None,
        tally: RequestCount,
        tries: int | None = None,
    ) -> Reply:
        return (await self._answered(texts, options, out, tally, tries))[0]

    async def _timed(
        self,
        observe: Callable[[Event], object],
        texts: Sequence[str],
        options: Options,
        out: OutputRows,
        tally: RequestCount,
        tries: int | None,
    ) -> Reply:
        started = self._clock()
        reply, member = await self._answered(texts, options, out, tally, tries)
        seconds = self._clock() - started
        about = _about(member, tally)
        notify(observe, BatchDone(**about, texts=len(texts), tokens=reply.tokens, seconds=seconds))
        return reply

    async def _answered(
        self,
        texts: Sequence[str],
        options: Options,
        out: OutputRows | None,
        tally: RequestCount,
        tries: int | None,
    ) -> tuple[Reply, Embedder]:
        """The rows, and who made them."""
        balancer = self._balancer()
        failures, refusing, until = 0, set[Endpoint[Embedder]](), math.inf
        tried = 0  # requests of those failures that were sent
        whole = self.joins_texts(options)
        most = tries or max(self._retry.attempts or math.inf, len(self._members))
        unusable = 0  # answers; a second one is one too many
        loading = 0  # answers of a model that is being loaded, which are no failures
        doubted = len(self._members) == 1
        came, pause = self._clock(), 0.0
        while True:
            member = await self._turn(balancer, until, failures, tally, came, pause)
            if member is None:
                raise self._tried(self._hopeless(), tried, came)
            sent = self._clock()
            if not failures:
                until = sent + (self._retry.deadline or math.inf)
            try:
                reply = await self._asked(
                    member, texts, options, out, tally, 1 if failures else None, suspected=tries is not None
                )
                if out is None or not out.failures or doubted or failures + 1 >= most:
                    return reply, member.embedder
                doubted = True  # another endpoint may have a vector for every text
                raise together(out.failures)  # noqa: TRY301 (judged below, as any other)
            except (ConfigError, InvalidInputError, TooLargeError) as error:
                self._tried(error, tried + error.attempts, came)
                raise  # about the texts or the request: another endpoint would say the same
            except EmbedkitError as error:
                failures, tried = failures + 1, tried + error.attempts
                self._tried(error, tried, came)
                impatient = self._impatient(member, sent, error, tally)
                self._note(member, sent, error, spare=impatient, suspected=tries is not None)
                once_more = isinstance(error, DecodeError) and (
                    error.once_more or bool(out is not None and out.failures)
                )
                unusable += once_more
                if not (error.retryable or once_more):
                    refusing.add(member)
                loading += is_loading(error) and member.embedder.loading > 0
                pause = self._pause(failures, error) if impatient else 0.0
                # A batch that is late comes back smaller.
                late = isinstance(error, TransportTimeoutError) and error.sent and len(texts) > 1 and not whole
                if (
                    late
                    or failures - loading >= most
                    or unusable > 1
                    or len(refusing) == len(self._members)
                    or self._clock() + pause >= until
                    or pause >= _left(tally)
                ):
                    raise
                self._notify(failures, error, member, tally, pause)
            except BaseException:
                tally.cancelled(self._clock() - came)
                raise
            finally:
                balancer.release(member)

    async def _turn(
        self,
        balancer: LoadBalancer[Embedder],
        until: float,
        failures: int,
        tally: RequestCount,
        came: float,
        pause: float,
    ) -> Endpoint[Embedder] | None:
        """A place at a member, after a pause; None where there will be none in time, that of the call included."""
        time = tally.time
        if pause:
            await self._rest(pause, tally, came)
        if time is not None:
            alone = all(each.health.failing for each in self._members)
            if min(each.health.back(alone=alone) for each in self._members) - self._clock() >= time.left():
                return None
        turn = balancer.acquire(until, RETRY if failures else WORKER if tally.patient else CALLER)
        try:
            return await timed(time, TURN, watched(turn, self._tell_wait, self._clock) if heard(INFO) else turn)
        except EmbedkitError:
            raise
        except BaseException:
            tally.cancelled(self._clock() - came)
            raise

    def _tell_wait(self, waited: float) -> None:
        now = self._clock()
        if not self._waits.over(now):
            return
        host, why = host_of(self.base_url), ""
        if all(each.health.failing for each in self._members):
            soonest = min(self._members, key=lambda each: each.health.back(alone=True)).health
            seconds = max(0.0, soonest.back(alone=True) - now)
            failure = kind_of(soonest.error) if soonest.error is not None else "no answer"
            why = f": all fail, the next to be asked with {failure}, in {seconds:.1f} s"
        log(
            INFO, "a request has waited %.1f s for an endpoint or key of %s%s", waited, host, why,
            host=host, wait=waited,
        )  # fmt: skip

    def _tried(self, error: EmbedkitError, attempts: int, came: float) -> EmbedkitError:
        error.attempts, error.elapsed = attempts, self._clock() - came
        return error

    def _impatient(self, member: Endpoint[Embedder], sent: float, error: EmbedkitError, tally: RequestCount) -> bool:
        """Whether the call's own `timeout` ended it before an answer counts as late: no fault of the endpoint."""
        time = tally.time
        if time is None:
            return False
        time.failure = kind_of(error)
        return (
            time.timeout is not None
            and isinstance(error, TransportTimeoutError)
            and self._clock() - sent < member.embedder.late
        )

    async def _rest(self, seconds: float, tally: RequestCount, came: float) -> None:
        import anyio

        try:
            await timed(tally.time, PAUSE, anyio.sleep(seconds))
        except BaseException:
            tally.cancelled(self._clock() - came)
            raise

    def _pause(self, failures: int, error: EmbedkitError) -> float:
        """Seconds before the next try of a call that is too impatient for every member: none of them is left out for
        that, so nothing else keeps its tries apart.
        """
        rounds, rest = divmod(failures, len(self._members))
        return 0.0 if rest else self._retry.wait(rounds, error, self._jitter()) or 0.0

    def _note(
        self, member: Endpoint[Embedder], sent: float, error: EmbedkitError, *, spare: bool, suspected: bool
    ) -> None:
        if spare:
            return
        if suspected and not isinstance(error, RateLimitError):
            return  # a text that is looked for fails its request everywhere, which says nothing of the endpoint
        member.health.mark_failed(self._clock(), sent, error)
        if not isinstance(error, RateLimitError):
            member.verified = self._trusted  # what comes back may be another model

    async def _asked(
        self,
        member: Endpoint[Embedder],
        texts: Sequence[str],
        options: Options,
        out: OutputRows | None,
        tally: RequestCount,
        tries: int | None,
        *,
        suspected: bool,
    ) -> Reply:
        verified, own = member.verified, self._own(member.embedder, options)
        back = not verified and member.health.failing  # what it serves by now is asked with these texts
        if self._agreement is not None:
            await self._agreement.check(member.embedder, options, own, tally)
        elif not (verified or back):
            await self._verify(member, options, tally)
        sent, vector = self._clock(), None
        if back and not suspected:  # a text that is looked for goes alone
            reply, vector, verified = await self._known.along(member.embedder, texts, own, out, tally, tries)
            member.verified = member.verified or verified
        else:
            reply = await member.embedder.fill_rows(texts, own, out, tally, tries)
        if self._priced_apart:
            _add_cost(tally, reply.tokens, member.embedder.price)
        now = self._clock()
        if sent >= member.health.failed_at and all(each.health.failing for each in self._members):
            for each in self._members:
                each.health.hope(now)
        member.health.mark_answered(now, now - sent, len(texts))
        if not (verified or member.verified):
            await self._verify(member, options, tally, vector)
        return reply

    def _hopeless(self) -> EmbedkitError:
        """Why no endpoint is left: what the one says that will be let in again first."""
        soonest = min(self._members, key=lambda each: each.health.ejected_until).health
        if soonest.error is None:
            deadline = self._retry.deadline
            msg = f"no endpoint was free within the deadline of {deadline:g} s for one request with its retries"
            return TransportTimeoutError(msg, retryable=False)
        error = soonest.error.at()
        wait = soonest.ejected_until - self._clock()
        error.message += f"; no other endpoint is left, and this one is not asked again for {wait:.0f} s"
        return error

    def _balancer(self) -> LoadBalancer[Embedder]:
        loop = this_loop()
        balancer = self._balancers.get(loop)
        if balancer is None:
            self._balancers.sweep()
            balancer = self._balancers[loop] = LoadBalancer(self._members, self._clock)
        return balancer

    async def _verify(
        self, member: Endpoint[Embedder], options: Options, tally: RequestCount, vector: NDArray[Any] | None = None
    ) -> None:
        await self._known.ask(member.embedder, options, tally, vector)
        member.verified = True
        self._balancer().serve()  # its window is open now

    def _notify(
        self, attempt: int, error: EmbedkitError, member: Endpoint[Embedder], tally: RequestCount, wait: float
    ) -> None:
        if (tell := tell_retry.get()) is not None:
            tell()
        host = host_of(_address(member.embedder))
        log(
            INFO, "attempt %d to %s failed: %s; another endpoint or key is asked", attempt, host, kind_of(error),
            host=host, attempt=attempt, wait=wait, status=status_of(error),
        )  # fmt: skip
        if self.observe is not None:
            notify(
                self.observe, RetryScheduled(**_about(member.embedder, tally), attempt=attempt, wait=wait, error=error)
            )

    def __repr__(self) -> str:
        return f"<Pool {', '.join(map(repr, self._embedders))}>"

    def __getstate__(self) -> dict[str, Any]:
        return lasting(self.__dict__, "_members", "_known", "_waits")

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()


def _address(member: Embedder) -> str:
    """Where its requests go; empty where nowhere."""
    found: str = getattr(member, "base_url", "")
    return found


def _random() -> float:
    """Between 0 and 1. It pickles by its name: `random.random` takes the state of this process's generator along."""
    return random.random()  # noqa: S311


def _left(tally: RequestCount) -> float:
    """Seconds that the call has left."""
    return tally.time.left() if tally.time is not None else math.inf


def _about(member: Embedder, tally: RequestCount) -> dict[str, Any]:
    """What an event says of a member."""
    return {"provider": member.provider, "model": member.model, "call": tally.call}


def _add_cost(tally: RequestCount, tokens: int | None, price: float | None) -> None:
    known = tokens is not None and price is not None and tally.cost is not None
    tally.cost = tally.cost + tokens * price / 1e6 if known else None  # type: ignore[operator]
