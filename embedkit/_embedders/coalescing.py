"""Many small calls, few requests: calls that arrive while the connections are busy travel together in the next request.

The first calls leave at once; what comes meanwhile lines up, by options, and the next request takes all of it that
fits. So an idle embedder adds no delay, and a busy one batches by itself; a longest wait is an offer on top. A request
that waits for its next try, or for an answer that may never come, holds up nobody: others leave beside it, but a
handful a second. Every caller gets its own rows or its own error, one that gives up harms nobody, and a request for
which nobody waits any more is cancelled.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from .._batching.failed_rows import first_failure
from .._batching.plan import BatchBuilder, measure, tightened
from .._calls import CLOSED, closing
from .._calltime import TURN, CallTime
from .._loops import PerLoop
from .._traffic.retry import tell_retry
from .._types import Embeddings, Limits, Options, RequestCount, Usage
from ..errors import ClosedError, DecodeError, EmbedkitError, TransportTimeoutError
from .base import numbers
from .learned import lasting, option_key
from .wrapper import Wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from .._progress import Progress
    from .base import Embedder

SMALL_CALL = 16  # most texts of a call that shares
TRIPS = 8  # requests in flight for one set of options; measured: with more, few calls share one
# Seconds after which a request counts no longer as one of those: where it has failed, and waits for its next try; where
# it may yet be answered, but not before so many times as long as usual.
FAILED, UNANSWERED, FAR = 1.0, 2.5, 4.0
LOOK = 0.25  # seconds between two looks for such
WEIGHT = 0.2  # of the newest request in what is usual
SHARED = Limits(max_texts=256)  # of a shared request, where the embedder's own limits are wider


class Coalesced(Wrapped):
    """Lets concurrent small calls of `embed` and `embed_query` share requests. Large calls and streams do not.

    A call that shared a request has `usage.tokens` None, since nobody says whose they were, and counts every request it
    had a part in. A shared request runs in the context (contextvars) of one of its callers, and lives as long as the
    longest of their limits of time. Calls with another `timeout` share another request.

    Args:
        inner: the embedder that sends.
        wait: most seconds that a call waits for others to join it; 0: none waits. A full request leaves at once.
    """

    keyword = "coalesce"

    def __init__(self, inner: Embedder, wait: float = 0.0) -> None:
        super().__init__(inner)
        self._wait = wait
        self._queues: PerLoop[dict[tuple[bytes, float | None], _Queue]] = PerLoop()

    def embed_rows(
        self,
        rows: list[str],
        options: Options,
        *,
        skip: bool,
        workers: int,
        patient: bool = False,
        time: CallTime | None = None,
        callers: tuple[int, ...] = (),
        progress: Progress | None = None,
        tally: RequestCount | None = None,
    ) -> Coroutine[Any, Any, Embeddings]:
        loop = _running() if self._shares(rows) and not self.joins_texts(options) else None
        if loop is None:
            return self.inner.embed_rows(
                rows,
                options,
                skip=skip,
                workers=workers,
                patient=patient,
                time=time,
                callers=callers,
                progress=progress,
                tally=tally,
            )
        observe = self.observe
        if observe is None:
            return self._joined(loop, rows, options, 0, skip=skip, time=time)
        number = next(numbers)
        return self._told(
            observe, number, len(rows), self._joined(loop, rows, options, number, skip=skip, time=time), shares=True
        )

    async def _joined(
        self,
        loop: asyncio.AbstractEventLoop,
        rows: list[str],
        options: Options,
        number: int,
        *,
        skip: bool,
        time: CallTime | None,
    ) -> Embeddings:
        """What this call gets of a request that it shares. `number`: of this call; 0 where nobody observes."""
        limits, count = self.known_limits(), self.count_tokens
        tokens, size = map(sum, zip(*(measure(row, limits, count) for row in rows), strict=True))
        call = _PendingCall(rows, (tokens, size, len(rows)), loop.create_future(), number, skip=skip, time=time)
        self._queue(loop, options, None if time is None else time.timeout).join(call)
        try:
            return await (call.found if time is None else time.within(call.found))
        except (asyncio.CancelledError, TransportTimeoutError) as error:
            if call.found.cancelled():  # the caller gave up, or its time is over
                await call.leave()
                if isinstance(error, TransportTimeoutError):
                    self._tell_end(error)
            if isinstance(error, asyncio.CancelledError) and (closed := closing()) is not None:
                closed.attempts, closed.elapsed = call.spent(loop.time())
                raise closed from None
            raise
        finally:
            del call  # else an error and the frame it came through would keep each other

    async def embed_part(self, rows: list[str], options: Options, *, skip: bool) -> Embeddings:
        return await self.inner.embed_part(rows, options, skip=skip)

    def _shares(self, rows: list[str]) -> bool:
        return 0 < len(rows) <= min(SMALL_CALL, self.limits.max_texts or SMALL_CALL) and (
            self.accepts_empty or "" not in rows
        )

    def _queue(self, loop: asyncio.AbstractEventLoop, options: Options, timeout: float | None) -> _Queue:
        queues = self._queues.get(loop)
        if queues is None:
            self._queues.sweep()
            queues = self._queues[loop] = {}
        key = (option_key(options), timeout)
        queue = queues.get(key)
        if queue is None:
            queue = queues[key] = _Queue(
                self.inner, options, self._wait, loop, lambda: self._forget(loop, key), timeout
            )
        return queue

    def _forget(self, loop: asyncio.AbstractEventLoop, key: tuple[bytes, float | None]) -> None:
        """Let go of an empty queue, and of its loop with the last one."""
        queues = self._queues.get(loop, {})
        queues.pop(key, None)
        if not queues:
            self._queues.pop(loop, None)

    async def aclose(self) -> None:
        """End the calls in flight on this event loop with `ClosedError`, then close the inner embedder."""
        for queue in list(self._queues.get(_running(), {}).values()):
            await queue.aclose()
        await super().aclose()

    def __getstate__(self) -> dict[str, Any]:
        return {**lasting(self.__dict__), "_queues": PerLoop()}


def _running() -> asyncio.AbstractEventLoop | None:
    """The running loop of asyncio; None on another kind of loop, where each call goes alone."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class _PendingCall:
    """One caller's texts, and where it waits for what becomes of them."""

    __slots__ = ("alone", "found", "number", "rows", "size", "skip", "time", "trip")

    def __init__(
        self,
        rows: list[str],
        size: tuple[int, int, int],
        found: asyncio.Future[Embeddings],
        number: int = 0,
        *,
        skip: bool,
        time: CallTime | None = None,
    ) -> None:
        self.rows = rows
        self.size = size  # tokens, bytes, texts
        self.found = found
        self.number = number
        self.skip = skip
        self.alone = False  # the request that it shared failed, maybe for another's text
        self.trip: _SharedRequest | None = None
        self.time = time
        self.line_up()

    def line_up(self) -> None:
        """Wait for a request that may leave."""
        if self.time is not None:
            self.time.leave()
            self.time.begin(TURN)

    def settle(self, found: Embeddings | BaseException) -> None:
        if self.found.done():
            return
        if isinstance(found, BaseException):
            self.found.set_exception(found)
            self.found.exception()  # seen: a caller that is cancelled just now will not ask
        else:
            self.found.set_result(found)

    def spent(self, now: float) -> tuple[int, float]:
        """What has been sent of its request, or with a limit of time of all it had a part in, and seconds since that
        left.
        """
        if self.time is not None:
            return self.time.so_far()
        return (0, 0.0) if self.trip is None else (self.trip.tally.requests, now - self.trip.left)

    async def leave(self) -> None:
        """The caller gave up. Where nobody else waits for the request, it ends."""
        if self.trip is not None:
            self.trip.waiting -= 1
            if not self.trip.waiting and self.trip.task is not None:
                await _ended({self.trip.task})


class _SharedRequest:
    """A request on its way: since when, how many callers wait for it, whether a try has failed, and whether it is late.

    One that is late holds up nobody.
    """

    __slots__ = ("failed", "late", "left", "tally", "task", "waiting")

    def __init__(self, left: float) -> None:
        self.left = left
        self.tally = RequestCount()
        self.task: asyncio.Task[None] | None = None
        self.waiting = 0
        self.failed = self.late = False

    def carry(self, calls: list[_PendingCall]) -> None:
        self.waiting = len(calls)
        for call in calls:
            call.trip = self

    def retried(self) -> None:
        self.failed = True


class _Queue:
    """The calls that wait on one event loop under the same options, and the requests on their way."""

    def __init__(
        self,
        inner: Embedder,
        options: Options,
        wait: float,
        loop: asyncio.AbstractEventLoop,
        forget: Callable[[], object],
        timeout: float | None,
    ) -> None:
        self._inner = inner
        self._options = options
        self._wait = wait
        self._loop = loop
        self._forget = forget
        self._timeout = timeout
        self._calls: deque[_PendingCall] = deque()
        self._texts = 0  # of the calls that wait
        self._timer: asyncio.TimerHandle | None = None  # there while those who wait may wait on
        self._trips: dict[asyncio.Task[None], _SharedRequest] = {}
        self._late = 0  # of them
        self._usual = 0.0  # seconds that one takes which succeeds
        self._look: asyncio.TimerHandle | None = None  # there while calls wait for one to be back, or late

    def join(self, call: _PendingCall) -> None:
        self._calls.append(call)
        self._texts += len(call.rows)
        if not self._wait or self._texts >= (self._limits().max_texts or 0):
            self._depart()
        elif len(self._calls) == 1:
            self._timer = self._loop.call_later(self._wait, self._depart)

    async def aclose(self) -> None:
        while self._calls:
            self._calls.popleft().settle(ClosedError(CLOSED))
        self._ripe()
        await _ended(set(self._trips))
        self._end()

    def _limits(self) -> Limits:
        return tightened(self._inner.known_limits(), SHARED)

    def _ripe(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None
        self._forget()

    def _depart(self) -> None:
        """Start one more request, unless enough are in flight. Until it runs, more calls may join it."""
        self._ripe()
        most = self._inner.max_concurrency
        if len(self._trips) < most and len(self._trips) - self._late < TRIPS:
            trip = _SharedRequest(self._loop.time())
            trip.task = task = self._loop.create_task(self._travel(trip))
            self._trips[task] = trip
            task.add_done_callback(self._back)
        elif self._look is None:
            self._look = self._loop.call_later(LOOK, self._find_late)

    def _find_late(self) -> None:
        self._look = None
        now, patience = self._loop.time(), max(UNANSWERED, FAR * self._usual)
        for trip in self._trips.values():
            if not trip.late and now - trip.left >= (FAILED if trip.failed else patience):
                trip.late = True
                self._late += 1
        if self._calls and self._timer is None:
            self._depart()

    def _back(self, task: asyncio.Task[None]) -> None:
        trip = self._trips.pop(task)
        self._late -= trip.late
        if self._calls and self._timer is None:
            self._depart()
        elif not self._calls and not self._trips:
            self._end()

    async def _travel(self, trip: _SharedRequest) -> None:
        calls = self._take()
        if not calls:
            return
        trip.carry(calls)
        tell_retry.set(trip.retried)
        if self._calls:
            self._depart()  # what did not fit
        try:
            texts = [row for call in calls for row in call.rows]
            skip = len(texts) > 1 or calls[0].skip  # a lone text is not looked for
            time = CallTime.of_several([call.time for call in calls], self._timeout)
            trip.tally.time = time
            result = await self._inner.embed_rows(
                texts,
                self._options,
                skip=skip,
                workers=self._inner.max_concurrency,
                time=time,
                tally=trip.tally,
                callers=tuple(call.number for call in calls if call.number),
            )
        except asyncio.CancelledError:
            for call in calls:
                call.settle(ClosedError(CLOSED))
            raise
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001 (it is raised in the callers)
            if len(calls) > 1 and _may_be_anothers(error):
                self._part(calls)
            else:
                _share_failure(calls, error)
        else:
            seconds = self._loop.time() - trip.left
            self._usual += WEIGHT * (seconds - self._usual) if self._usual else seconds
            _share(calls, result)

    def _take(self) -> list[_PendingCall]:
        """The calls of the next request, first come first, as many as fit; those given up meanwhile are left out."""
        builder = BatchBuilder(self._limits())
        taken: list[_PendingCall] = []
        while (
            self._calls
            and builder.fits(*self._calls[0].size)
            and not (taken and (taken[0].alone or self._calls[0].alone))
        ):
            call = self._calls.popleft()
            self._texts -= len(call.rows)
            if not call.found.done():
                builder.add(*call.size)
                taken.append(call)
        return taken

    def _part(self, calls: list[_PendingCall]) -> None:
        """Each of these again, in a request of its own."""
        for call in reversed(calls):
            call.alone, call.trip = True, None
            call.line_up()
            self._calls.appendleft(call)
            self._texts += len(call.rows)


async def _ended(tasks: set[asyncio.Task[Any]]) -> None:
    import anyio

    for task in tasks:
        task.cancel()
    if tasks:
        with anyio.CancelScope(shield=True):
            await asyncio.wait(tasks)


def _may_be_anothers(error: BaseException) -> bool:
    """Whether it may be about one text that it does not name: a broken reply, or an exception that is not ours."""
    return isinstance(error, DecodeError) or (isinstance(error, Exception) and not isinstance(error, EmbedkitError))


def _share(calls: list[_PendingCall], result: Embeddings) -> None:
    """To every caller its own rows, and the errors of its own rows."""
    start = 0
    for call in calls:
        stop = start + len(call.rows)
        own = result if len(calls) == 1 else _cut(result, start, stop)
        call.settle(first_failure(own) if own.failures and not call.skip else own)
        start = stop


def _cut(result: Embeddings, start: int, stop: int) -> Embeddings:
    return msgspec.structs.replace(
        result,
        vectors=result.vectors[start:stop].copy(),  # a view would keep everyone's rows
        usage=Usage(None, result.usage.requests),
        failures={row - start: error.at(row - start) for row, error in result.failures.items() if start <= row < stop},
    )


def _share_failure(calls: list[_PendingCall], error: BaseException) -> None:
    """To every caller the error, and of what was embedded before it their own rows."""
    start = 0
    for call in calls:
        stop = start + len(call.rows)
        mine = error
        if len(calls) > 1 and isinstance(error, EmbedkitError):
            mine = error.at()
            mine.partial = None if error.partial is None else _cut(error.partial, start, stop)
        call.settle(mine)
        start = stop
