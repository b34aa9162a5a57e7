"""An embedder with a cache: texts that it knows are not sent, and what is sent is kept.

It is the outermost embedder, so that the inner one plans full requests of the texts that are missing. Everything that
may block runs in a worker thread, but for a few keys in a cache that can be asked at once. A cache that fails costs
hits: it is left alone for a while, for longer each time, and the call goes on. Two calls that miss the same text at the
same time both send it, unless the inner embedder coalesces them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from .._batching.dedupe import UniqueTexts
from .._logging import INFO, WARNING, log, notify
from .._loops import PerLoop, this_loop
from .._threads import aside
from .._types import Embeddings, Options, RequestCount
from ..cache.base import Cache, CacheError, Row
from ..errors import ClosedError, ConfigError, EmbedkitError, TransportTimeoutError
from ..events import CacheFailed, CacheRead
from .cache_keys import CacheKeys
from .cached_call import CachedCall
from .wrapper import Wrapped

if TYPE_CHECKING:
    import anyio

    from .._calltime import CallTime
    from .._progress import Progress
    from .base import Embedder

READERS = 4  # threads that read at a time, per event loop; one writes
PEEK_TEXTS, PEEK_CHARACTERS = 8, 2**16  # most that is looked up on the event loop
SHORTEST, LONGEST = 1.0, 60.0  # seconds for which a cache that fails is left alone
KEPT = 16  # sets of options whose keys are remembered


class Cached(Wrapped):
    """Asks a cache before it asks the inner embedder, and keeps what that one answers.

    `usage` counts what was sent, and `usage.cached` the rows that were not. Where vectors depend on the other texts of
    their request, the cache is neither read nor written.

    Args:
        inner: the embedder that sends.
        cache: what to ask.
        owned: close the cache with this embedder; it opens again when it is used.
        clock: seconds.
    """

    keyword = "cache"

    def __init__(
        self, inner: Embedder, cache: Cache, *, owned: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(inner)
        self.cache = cache
        self._owned = owned
        self._clock = clock
        self._reset()

    def _reset(self) -> None:
        self._reads, self._writes = _Rest(self._clock), _Rest(self._clock)
        self._turns: PerLoop[dict[str, anyio.CapacityLimiter]] = PerLoop()
        self._warned: set[str] = set()
        self._kept: dict[int, tuple[Options, CacheKeys]] = {}

    async def embed_rows(
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
    ) -> Embeddings:
        def ask(texts: list[str]) -> Awaitable[Embeddings]:
            return self.inner.embed_rows(
                texts, options, skip=skip, workers=workers, patient=patient, time=time, callers=callers,
                progress=progress, tally=tally,
            )  # fmt: skip

        return await self._embed(rows, options, ask, skip=skip, time=time, progress=progress)

    async def embed_part(self, rows: list[str], options: Options, *, skip: bool) -> Embeddings:
        def ask(texts: list[str]) -> Awaitable[Embeddings]:
            return self.inner.embed_part(texts, options, skip=skip)

        return await self._embed(rows, options, ask, skip=skip, time=None)

    async def _embed(
        self,
        rows: list[str],
        options: Options,
        ask: Callable[[list[str]], Awaitable[Embeddings]],
        *,
        skip: bool,
        time: CallTime | None,
        progress: Progress | None = None,
    ) -> Embeddings:
        keys = self._keys(options) if rows else None
        if keys is None:
            return await ask(rows)
        known = CachedCall(UniqueTexts(rows, accepts_empty=True, skip=skip), keys, options.dtype)
        looking = self._look_up(known, self.known_width(options))
        try:
            await (looking if time is None else time.within(looking))
        except TransportTimeoutError as error:
            self._tell_end(error)
            raise
        if progress is not None:
            progress.add(len(rows) - len(known.todo))
        while known.todo:
            try:
                made = await ask(known.texts())
            except EmbedkitError as error:
                error.rows = known.rows_of(error.rows)
                if error.partial is not None:
                    if not isinstance(error, ClosedError):  # it is to end at once
                        await self._keep(known, error.partial, options, time)
                    known.add(error.partial)
                error.partial = known.result(self.model) if known.matrix is not None else None
                raise
            await self._keep(known, made, options, time)
            if len(known.todo) == len(rows):
                return made  # nothing was known, and no text comes twice
            known.add(made)
        return known.result(self.model)

    def _keys(self, options: Options) -> CacheKeys | None:
        """The keys under these options; None where a vector cannot be kept."""
        kept = self._kept.get(id(options))
        if kept is not None:
            return kept[1]
        origin = None if self.joins_texts(options) else self.inner.origin(options)
        if origin is None:
            return None
        try:
            keys = CacheKeys(origin, options, self.inner.splitter(options))
        except (TypeError, ValueError, OverflowError) as error:
            if isinstance(error, ConfigError):
                raise
            return None  # `extra` is no JSON, which the inner embedder says in words
        if keys.splitter is None and not options.extra:  # neither changes
            if len(self._kept) >= KEPT:
                self._kept.clear()
            self._kept[id(options)] = options, keys  # which keeps the options, and so their id
        return keys

    # --- the cache ---------------------------------------------------------------------------------------------------

    async def _look_up(self, known: CachedCall, width: int) -> None:
        began = self._clock()
        if self._reads.ready():
            rows = self._peek(known)
            if rows is not None:
                self._note(self._reads, known.read(lambda _: rows, width), "read")
            else:
                await self._aside(self._reads, "read", known.read, self.cache.read, width)
        if self.observe is not None:
            texts, seconds = len(known.unique.texts), self._clock() - began
            told = CacheRead(
                provider=self.provider, model=self.model, texts=texts, found=texts - len(known.todo), seconds=seconds
            )
            notify(self.observe, told)

    def _peek(self, known: CachedCall) -> Mapping[bytes, Row] | None:
        """The rows of a small call, where the cache can be asked at once."""
        texts = known.unique.texts
        if len(texts) > PEEK_TEXTS or sum(map(len, texts)) > PEEK_CHARACTERS:
            return None
        try:
            return self.cache.peek(known.keys())
        except Exception:  # noqa: BLE001 (`read` meets it again)
            return None

    async def _keep(self, known: CachedCall, made: Embeddings, options: Options, time: CallTime | None) -> None:
        """Write the rows that were asked for. The call waits for it, but for no longer than its time.

        Nothing is written where a refusal has taught the embedder meanwhile to cut texts elsewhere.
        """
        if not self._writes.ready() or known.keys_of.splitter != self.inner.splitter(options):
            return
        import anyio

        with anyio.move_on_after(math.inf if time is None else max(0.0, time.left())):
            await self._aside(self._writes, "written", known.write, self.cache.write, known.todo, made)

    async def _aside(self, rest: _Rest, what: str, work: Callable[..., Exception | None], *given: Any) -> None:
        """Do this in a worker thread, unless the cache has failed while it waited for its turn."""
        turns = self._turns.get(loop := this_loop())
        if turns is None:
            from anyio import CapacityLimiter

            self._turns.sweep()
            turns = self._turns[loop] = {
                "read": CapacityLimiter(READERS), "written": CapacityLimiter(1), "threads": CapacityLimiter(math.inf),
            }  # fmt: skip
        async with turns[what]:
            if rest.ready():
                self._note(rest, await aside(work, *given, limiter=turns["threads"], leave=True), what)

    def _note(self, rest: _Rest, error: Exception | None, what: str) -> None:
        """Remember whether the cache works, and tell each trouble once."""
        if error is None:
            if rest.pause:
                log(INFO, "the cache is %s again", what, host="")
            rest.worked()
            return
        rest.failed()
        why = str(error) if isinstance(error, CacheError) else type(error).__name__
        level = INFO if why in self._warned else WARNING
        self._warned.add(why)
        if self.observe is not None:
            told = CacheFailed(provider=self.provider, model=self.model, what=what, why=why, seconds=rest.pause)
            notify(self.observe, told)
        log(level, "the cache is not %s for %.0f s: %s", what, rest.pause, why, host="", wait=rest.pause)

    async def aclose(self) -> None:
        """End the calls in flight on this event loop with `ClosedError`, then close the inner embedder, and the cache
        where it is this embedder's own.
        """
        await super().aclose()
        if self._owned:
            await aside(self.cache.close)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.inner!r} with {self.cache!r}>"

    def __getstate__(self) -> dict[str, Any]:
        return {"inner": self.inner, "cache": self.cache, "_owned": self._owned, "_clock": self._clock}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()


class _Rest:
    """Whether a cache may be asked: after a failure not for a while, twice as long each time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until = -math.inf
        self.pause = 0.0

    def ready(self) -> bool:
        return self._clock() >= self._until

    def failed(self) -> None:
        self.pause = min(LONGEST, max(SHORTEST, 2 * self.pause))
        self._until = self._clock() + self.pause

    def worked(self) -> None:
        self.pause = 0.0
