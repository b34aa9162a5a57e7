"""Many small calls, few requests: calls that arrive while the connections are busy travel together in the next request.

The first calls leave at once, one to a sender; what comes meanwhile lines up, by options, and whoever is free next takes all of it that
fits. So an idle embedder adds no delay, and a busy one batches by itself; a longest wait is an offer on top. Every caller gets its own
rows or its own error, and one that gives up harms nobody.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from ._embedder import option_key
from ._types import Embeddings, Options, Usage
from ._wrap import Wrapped
from .errors import EmbedkitError

if TYPE_CHECKING:
    from ._embedder import Embedder

SMALL = 16  # most texts of a call that shares
SENDERS = 8  # requests in flight for one set of options; more would leave nothing to share (measured: performance, 4.4)
SHARED = 256  # most texts of a shared request where no limit is known


class Coalesced(Wrapped):
    """Lets concurrent small calls of `embed` and `embed_query` share requests. Large calls and streams go straight through.

    A call that shared a request has `usage.tokens` None: nobody says whose they were.

    Args:
        inner: the embedder that sends.
        wait: longest time, in seconds, that a call waits for company; 0: none waits for it.
    """

    def __init__(self, inner: Embedder, wait: float = 0.0) -> None:
        super().__init__(inner)
        self._wait = wait
        self._lines: dict[tuple[asyncio.AbstractEventLoop, bytes], _Line] = {}

    async def _embed(self, rows: list[str], options: Options, *, skip: bool, workers: int) -> Embeddings:
        if not 0 < len(rows) <= min(SMALL, self.limits.max_texts or SMALL):
            return await self.inner._embed(rows, options, skip=skip, workers=workers)  # noqa: SLF001 (the same house)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # another kind of loop: each call goes alone
            return await self.inner._embed(rows, options, skip=skip, workers=workers)  # noqa: SLF001
        key = (loop, option_key(options))
        line = self._lines.get(key)
        if line is None:
            self._lines = {each: line for each, line in self._lines.items() if line.senders and not each[0].is_closed()}
            line = self._lines[key] = _Line(self.inner, options, self._wait)
        call = _Call(rows, loop.create_future(), skip=skip)
        line.join(call)
        return await call.found

    async def _embed_part(self, rows: list[str], options: Options, *, skip: bool) -> Embeddings:
        return await self.inner._embed_part(rows, options, skip=skip)  # noqa: SLF001

    async def aclose(self) -> None:
        """Give up what has not been sent, and close the inner embedder."""
        loop = asyncio.get_running_loop()
        for line in [line for (owner, _), line in self._lines.items() if owner is loop]:
            await line.aclose()
        await super().aclose()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lines": {}}


class _Call:
    """One caller's texts, and where it waits for what becomes of them."""

    __slots__ = ("found", "rows", "skip")

    def __init__(self, rows: list[str], found: asyncio.Future[Embeddings], *, skip: bool) -> None:
        self.rows = rows
        self.found = found
        self.skip = skip


class _Line:
    """The calls that wait on one event loop under the same options, and the tasks that send them."""

    def __init__(self, inner: Embedder, options: Options, wait: float) -> None:
        self.senders: set[asyncio.Task[None]] = set()
        self._inner = inner
        self._options = options
        self._wait = wait
        self._calls: deque[_Call] = deque()

    def join(self, call: _Call) -> None:
        self._calls.append(call)
        if len(self.senders) < min(SENDERS, self._inner.max_concurrency):
            task = asyncio.get_running_loop().create_task(self._send())
            self.senders.add(task)
            task.add_done_callback(self.senders.discard)

    async def aclose(self) -> None:
        senders = list(self.senders)
        for task in senders:
            task.cancel()
        await asyncio.gather(*senders, return_exceptions=True)

    async def _send(self) -> None:
        taken: list[_Call] = []
        try:
            if self._wait:
                await asyncio.sleep(self._wait)
            while taken := self._take():
                try:
                    result = await self._inner._embed(  # noqa: SLF001 (the same house)
                        [row for call in taken for row in call.rows],
                        self._options,
                        skip=True,
                        workers=self._inner.max_concurrency,
                    )
                except Exception as error:  # noqa: BLE001 (it is raised in every caller)
                    _share_failure(taken, error)
                else:
                    _share(taken, result)
        except asyncio.CancelledError:
            for call in (*taken, *self._calls):
                _settle(call, RuntimeError("the embedder was closed before this call was sent or answered"))
            self._calls.clear()
            raise

    def _take(self) -> list[_Call]:
        """The calls of the next request, first come first; those given up meanwhile are left out."""
        most = self._inner.limits.max_texts or SHARED
        taken: list[_Call] = []
        while self._calls and (self._calls[0].found.done() or most >= len(self._calls[0].rows)):
            call = self._calls.popleft()
            if not call.found.done():
                most -= len(call.rows)
                taken.append(call)
        return taken


def _share(calls: list[_Call], result: Embeddings) -> None:
    """To every caller its own rows, and the errors of its own rows."""
    usage = result.usage if len(calls) == 1 else Usage(None, result.usage.requests)
    start = 0
    for call in calls:
        stop = start + len(call.rows)
        own = (
            result
            if len(calls) == 1
            else msgspec.structs.replace(result, vectors=result.vectors[start:stop].copy(), usage=usage, failures={})
        )
        if result.failures:
            failures = {row - start: _of(error, row - start) for row, error in result.failures.items() if start <= row < stop}
            own = msgspec.structs.replace(own, failures=failures)
            if failures and not call.skip:
                _settle(call, _raised(own))
        _settle(call, own)
        start = stop


def _share_failure(calls: list[_Call], error: Exception) -> None:
    for call in calls:
        mine = error
        if isinstance(error, EmbedkitError) and len(calls) > 1:
            mine = _of(error)
            mine.partial = None
        _settle(call, mine)


def _raised(own: Embeddings) -> EmbedkitError:
    """What `on_error="raise"` raises for these failures: the first, with all the rows that share its reason."""
    first = next(iter(own.failures.values()))
    error = _of(
        first, *(row for row, other in own.failures.items() if type(other) is type(first) and other.message == first.message)
    )
    if len(own.failures) < len(own):
        error.partial = msgspec.structs.replace(own, failures={})
    return error


def _of(error: EmbedkitError, *rows: int) -> EmbedkitError:
    mine = copy.copy(error).with_traceback(None)
    mine.rows = rows
    return mine


def _settle(call: _Call, found: Embeddings | BaseException) -> None:
    if call.found.done():
        return
    if isinstance(found, BaseException):
        call.found.set_exception(found)
    else:
        call.found.set_result(found)
