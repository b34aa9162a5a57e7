"""The `Embedder`: one abstract method, and everything a caller wants around it.

`embed_batch` turns one batch into vectors. Checking, deduplication, planning, concurrency, isolation of bad texts and
filling the matrix are concrete and written once here, over `_batching`. State of the base class is made on first use,
so a subclass needs no `super().__init__()`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, cast, get_args

import msgspec

from .._batching.dedupe import UniqueTexts
from .._batching.dispatch import Dispatcher, silent
from .._batching.failed_rows import first_failure, with_failed_rows
from .._batching.long_text import TextSplitter, embed_long
from .._batching.options import OPTIONS, stored_width, validated
from .._batching.plan import estimate, plan, tightened
from .._batching.single_text import Fills, FirstRow, replayed
from .._batching.stream import Stream
from .._batching.texts import listed, without_text
from .._batching.workers import check_workers
from .._calls import Calls, ending_calls, until_closed
from .._calltime import ANSWER, CallTime
from .._hints import NDArray
from .._logging import WARNING, host_of, kind_of, log, notify, status_of
from .._peers import Elsewhere, answering, look_up
from .._progress import Progress, Tell, length, progress_of
from .._types import (
    DType,
    Embeddings,
    InputType,
    Limits,
    OnError,
    Options,
    Reply,
    RequestCount,
    Truncate,
    Usage,
    origin,
)
from .._values import shown
from ..codec import OutputRows, normalize, together
from ..codec.vector_math import missing_rows, missing_value
from ..errors import ApiError, ClosedError, ConfigError, DecodeError, EmbedkitError, InvalidInputError, TooLargeError
from ..events import BatchDone, BatchFailed, BatchSplit, CallStarted, Event
from .call_end import advise, closed_call, embedded_words, ended, raise_if_closed
from .learned import Learned, OnFirstUse, option_key
from .postprocess import _copied

numbers = count(1)  # of calls
UNNAMED = (None,) * len(OPTIONS)
NOTHING = [None] * (len(OPTIONS) - 1)  # is named but an input type


class _ClassName:
    """The name of the class, for an embedder that names no provider: a job has to tell two kinds of them apart."""

    def __get__(self, instance: object, owner: type) -> str:
        return owner.__name__


class Embedder(ABC):
    """Texts in, one matrix out. Subclass it and write `embed_batch`; the rest is there.

    Attributes:
        provider, model: how it names itself in results, events and errors, and how a job knows it again. The provider
            is the name of the class unless it is set.
        limits: what one call of `embed_batch` may be given.
        max_concurrency: how many calls of `embed_batch` may be in flight at once, per call of `embed`.
        accepts_empty: hand an empty text on instead of refusing it.
        options: what holds where a call says nothing else.
        count_tokens: tokens of a text, for planning; an estimate unless replaced.
        observe: called with each frozen event; what it raises is logged.
        price: US dollars per million tokens, for `usage.cost`.
        long_text: "mean" cuts texts that are too long into pieces and averages their vectors, where a call says nothing
            of `truncate`.
        total_timeout: seconds for a whole call of `embed` or `embed_query` that says nothing else; None: no limit.
    """

    provider: str = cast("str", _ClassName())
    model: str = ""
    limits: Limits = Limits()
    max_concurrency: int = 16
    accepts_empty: bool = False
    options: Options = Options()
    count_tokens: Callable[[str], int] = staticmethod(estimate)
    observe: Callable[[Event], object] | None = None
    price: float | None = None
    long_text: Literal["mean"] | None = None
    total_timeout: float | None = None
    _calls = OnFirstUse(Calls)
    _learned = OnFirstUse(Learned)
    _probed: bool = True  # nothing has to be asked before anything can be planned
    _priced_apart: bool = False  # members of a pool that differ in price: the cost is counted answer by answer
    first_workers: int | None = None  # requests in flight before the first good answer; None: as many as later

    @abstractmethod
    async def embed_batch(self, texts: Sequence[str], options: Options) -> Embeddings:
        """Embed one batch, within `limits`: vectors of shape (len(texts), d), row i for texts[i].

        Raise `InvalidInputError(message, rows=[…])` (rows within the batch) for bad texts, `TooLargeError` for too many
        of them: the batch comes back in smaller ones.
        """

    @until_closed
    async def embed(  # noqa: PLR0913 (what one call may say)
        self,
        texts: str | Iterable[str],
        *,
        input_type: InputType | None = None,
        dimensions: int | None = None,
        dtype: DType | None = None,
        truncate: Truncate | None = None,
        normalize: bool | None = None,
        extra: Mapping[str, Any] | None = None,
        on_error: OnError = "raise",
        timeout: float | None = None,  # noqa: ASYNC109 (of each attempt)
        total_timeout: float | None = None,
        progress: bool | Tell = False,
    ) -> Embeddings:
        """Embed texts; a lone string is one text. Options left out are those of `connect`.

        Args:
            texts: what to embed.
            input_type: what they are for; this and the five that follow are as `Options` says.
            dimensions: components per vector.
            dtype: type of the components.
            truncate: "end" cuts over-long texts, "error" insists on refusing them.
            normalize: True makes every vector unit length.
            extra: merged into the request body verbatim.
            on_error: "raise" raises the first error; "skip" marks the row of a bad text and goes on.
            timeout: seconds for one attempt of this call; None: as `connect` was told, else 120 s at most hosts.
            progress: True draws a bar of tqdm, in a terminal or a notebook; a callable is given the number of texts
                that are done since it was last called.
            total_timeout: seconds for the whole call, waits for a turn and retries included; None: as `connect` was
                told, else no limit. When they are over, `TransportTimeoutError` says where they went, and its `partial`
                holds what is embedded already. A wait that the provider or a quota asks for, or a backoff, is the
                provider's error at once where it is longer than what is left.

        Returns:
            Embeddings: `vectors` of shape (n, d), row i for texts[i]; shape (0, 0) and no request for no texts.

        Raises:
            TypeError: something in `texts` is no string; the message names its row.
            ConfigError: an option cannot be honored; nothing was sent.
            EmbedkitError: see `embedkit.errors`. `rows` names the texts concerned, `partial` holds what was embedded
                before. With `on_error="skip"` a bad text only marks its own row: NaN there, and its error in
                `failures`. So does what is missing (None, NaN) or no string.
        """
        time = self._limited(timeout, total_timeout)
        options = self._merged(input_type, dimensions, dtype, truncate, normalize, extra)
        skip = _skips(on_error)
        rows = listed(texts, skip=skip)
        try:
            if progress is not False and (bar := progress_of(progress, len(rows))) is not None:
                embed = partial(self.embed_rows, workers=self.max_concurrency, time=time, progress=bar)
                return await bar.around(self._among(rows, options, embed) if skip else embed(rows, options, skip=False))
            if not skip:
                return await self.embed_rows(rows, options, skip=False, workers=self.max_concurrency, time=time)
            return await self._among(rows, options, self.embed_rows, workers=self.max_concurrency, time=time)
        except EmbedkitError as error:
            if len(rows) > 1 and not isinstance(error, ConfigError):
                error.add_note(embedded_words(error.partial, len(rows)))
            advise(error, options.truncate)
            raise

    @until_closed
    async def embed_query(
        self,
        text: str,
        *,
        input_type: InputType | None = "query",
        dimensions: int | None = None,
        dtype: DType | None = None,
        truncate: Truncate | None = None,
        normalize: bool | None = None,
        extra: Mapping[str, Any] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 (of each attempt)
        total_timeout: float | None = None,
    ) -> NDArray[Any]:
        """Embed one query: a vector of shape (d,). Limits of time, and what it raises, are as those of `embed`."""
        time = self._limited(timeout, total_timeout)
        if not isinstance(text, str):
            msg = f"a query is one string, not {type(text).__name__}; embed() takes many"
            raise TypeError(msg)
        options = self._merged(input_type, dimensions, dtype, truncate, normalize, extra)
        result = await self.embed_rows(listed(text), options, skip=False, workers=1, time=time)
        return result.vectors[0]  # type: ignore[no-any-return]  # a row of NDArray[Any]

    @answering
    def stream(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        *,
        input_type: InputType | None = None,
        dimensions: int | None = None,
        dtype: DType | None = None,
        truncate: Truncate | None = None,
        normalize: bool | None = None,
        extra: Mapping[str, Any] | None = None,
        on_error: OnError = "raise",
        progress: bool | Tell = False,
    ) -> Stream:
        """Embed any number of texts in bounded memory: an async iterator of `Embeddings`, in input order.

        Each part's `start` is the index of its first text in the stream; `failures` counts rows within the part, and
        `texts` are those of the part. `progress` is as `embed` has it; it counts parts that were taken.
        `async for` is enough on asyncio; `async with embedder.stream(…) as parts` also ends the work at once when the
        block is left. `total_timeout` does not apply: a stream takes as long as its texts do.

        Where a vector depends on the other texts of its request (late chunking, contextualized models), each part is
        one request and so one document: its boundary is set here, by `limits` and at most 256 texts, not by your
        documents. To set it yourself, call `embed` once per document.
        """
        options = self._merged(input_type, dimensions, dtype, truncate, normalize, extra)
        skip = _skips(on_error)

        async def work(part: list[Any]) -> Embeddings:
            return await (
                self._among(part, options, self.embed_part) if skip else self.embed_part(part, options, skip=False)
            )

        return Stream(
            texts,
            self.known_limits,
            work,
            workers=self.max_concurrency,
            count_tokens=self.count_tokens,
            skip=skip,
            calls=self._calls,
            progress=None if progress is False else progress_of(progress, length(texts)),
        )

    @property
    def borrowed(self) -> bool:
        """True where the session is the caller's, and so bound to its event loop."""
        return False

    if not TYPE_CHECKING:  # for which a misspelled name is a mistake
        __getattr__ = look_up

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "aclose" in cls.__dict__:  # one rule for all, whoever writes it
            cls.aclose = ending_calls(cls.__dict__["aclose"])  # type: ignore[assignment, method-assign]

    async def aclose(self) -> None:
        """End the calls in flight, then close what is open. May be called twice; a closed embedder opens again when it
        is used.

        Every call of `embed` and `embed_query` (and of a provider's `embed_batch`) that is in flight on this event
        loop, whatever it waits for, raises `ClosedError` at once, and is over when this returns; so is every stream,
        after the parts that are ready. A call that cannot be interrupted any more gives its result. The same holds with
        `coalesce`, `hedge` and pools, and for embedders of your own, whose `aclose` runs once their calls have ended.
        Calls on other event loops go on: each loop closes its own.
        """
        await self._calls.end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    if not TYPE_CHECKING:  # for which it is a mistake
        __enter__ = Elsewhere("goes into `async with`; embedkit.connect_sync() makes one for `with`")

    # --- hooks -------------------------------------------------------------------------------------------------------
    # What an embedder of this package calls on another (a pool on its members, coalescing on what it wraps). Your own
    # `Embedder` needs none of them.

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
        """Embed these texts as one call. `patient`: it belongs to a bulk job, and others may go first. `callers`: the
        calls that share it. `progress`: is told of texts that are done. `tally`: counts what is sent, for whoever wants
        to know.
        """
        call = next(numbers)
        if tally is None:
            tally = RequestCount(patient, time, call, progress)
        else:
            tally.call = call
        work = self._one_call(rows, options, tally, skip, workers)
        if self.observe is None or not rows:
            return work
        return self._told(self.observe, call, len(rows), work, callers)

    async def _one_call(
        self,
        rows: list[str],
        options: Options,
        tally: RequestCount,
        skip: bool,
        workers: int,
    ) -> Embeddings:
        if not rows:
            return Embeddings(missing_rows(0, 0, options.dtype), self.model, Usage(0, 0), dtype=options.dtype)
        try:
            splitter, lone = self.splitter(options), len(rows) == 1 and not skip
            if splitter is None:
                return await self._settled(rows, options, tally, skip=skip, workers=workers, lone=lone)
            if self.joins_texts(options):
                option = "long_text" if splitter.how == "mean" else "truncate"
                msg = (
                    f"{option}={splitter.how!r} cuts texts on the client, and here a "
                    "vector depends on the other texts of its request: leave it out and shorten the texts before"
                )
                raise ConfigError(msg)
            options = msgspec.structs.replace(options, truncate=None)
            made = await embed_long(
                rows,
                lambda pieces: self._settled(
                    pieces,
                    options,
                    RequestCount(tally.patient, tally.time, tally.call, tally.progress),
                    skip=True,
                    workers=workers,
                    lone=lone,
                ),
                splitter,
            )
            if made.failures and not skip:
                raise first_failure(made)
        except EmbedkitError as error:
            self._sign(error)
            self._tell_end(error)
            raise
        return made

    async def embed_part(self, rows: list[str], options: Options, *, skip: bool) -> Embeddings:
        """One part of a stream, which has the workers."""
        return await self.embed_rows(rows, options, skip=skip, workers=1, patient=True)

    async def fill_rows(
        self,
        texts: Sequence[str],
        options: Options,
        out: OutputRows | None,
        tally: RequestCount,
        tries: int | None = None,  # noqa: ARG002 (an `embed_batch` is called once)
    ) -> Reply:
        """Embed one batch into the rows that `out(width)` gives, in at most `tries` tries; None: as the policy says.

        Without `out` into rows of its own; a text without a vector is an error then.
        """
        began, time = monotonic(), tally.time
        try:
            if time is None:
                made = await self.embed_batch(texts, options)
            else:
                time.begin(ANSWER)
                try:
                    made = await time.attempt(self.embed_batch(texts, options))
                finally:
                    time.end(ANSWER)
        except EmbedkitError as error:
            error.attempts, error.elapsed = max(1, error.attempts), monotonic() - began
            raise
        except BaseException:
            tally.requests += 1
            tally.cancelled(monotonic() - began)
            raise
        if not isinstance(made, Embeddings):
            msg = (
                f"{type(self).__name__}.embed_batch returned {type(made).__name__}; it must return embedkit.Embeddings"
            )
            raise TypeError(msg)
        tally.requests += made.usage.requests
        own = OutputRows(lambda width: missing_rows(len(texts), width, options.dtype)) if out is None else out
        # Of another embedder, asked with on_error="skip". Whatever their class, only reason and rows are read.
        theirs = cast("dict[int, DecodeError]", dict(made.failures))
        if len(theirs) == len(texts):
            raise together(theirs)
        rows = _copied(made.vectors, len(texts), options, own, f"{type(self).__name__}.embed_batch")
        for row in theirs:
            rows[row] = missing_value(rows)
        own.failures.update(theirs)
        if out is None and own.failures:
            raise together(own.failures)
        if options.normalize:
            normalize(rows)
        return Reply(rows, made.model, made.usage.tokens)

    loading: float = 0.0  # seconds that the server may take to load its model

    @property
    def window(self) -> int:
        """How many requests may be in flight on this event loop by now."""
        return self.max_concurrency

    @property
    def hung(self) -> int:
        """Requests in flight on this event loop that do not count for the window: no answer is expected any more."""
        return 0

    @property
    def late(self) -> float:
        """Seconds after which no answer is a sign of trouble."""
        return math.inf

    @property
    def identity(self) -> tuple[str, str, str] | None:
        """What tells this embedder from others of this process, no secret in it; None: nothing does."""
        return None

    def known_limits(self) -> Limits:
        """The limits, no wider than refusals have shown."""
        known, quota = self._learned.limits(self.limits), self.quota_tokens()
        return known if quota is None else tightened(known, Limits(max_tokens=quota))

    def known_width(self, options: Options) -> int:
        """Values per row that these options have given before, else that they ask for; 0: nobody knows."""
        return self._learned.widths.get(option_key(options)) or stored_width(options)

    def quota_tokens(self) -> int | None:
        """The most tokens that a request may hold, by our count, to pass a quota at all."""
        return None

    def most_text_tokens(self, options: Options) -> int | None:  # noqa: ARG002 (a prefix depends on them)
        """Tokens that one text may have."""
        return self.known_limits().max_text_tokens

    def cuts_texts(self) -> bool:
        """Whether `embed_batch` itself can do `truncate="end"`."""
        return True

    def joins_texts(self, options: Options) -> bool:  # noqa: ARG002 (they may ask for it)
        """Whether a vector depends on the other texts of its request, so that those of a call are one request."""
        return False

    def splitter(self, options: Options) -> TextSplitter | None:
        """How texts that are too long are cut on the client; None: they are not."""
        how = self._shortens(options)
        return None if how is None else TextSplitter(how, self.most_text_tokens(options), self.count_tokens)

    def origin(self, options: Options) -> Mapping[str, Any] | None:  # noqa: ARG002 (a prefix depends on them)
        """What decides a vector besides its text and the options, as JSON, for the key of a cache; None: nobody knows,
        so nothing is cached.
        """
        return None

    # --- one call ----------------------------------------------------------------------------------------------------

    def _limited(self, timeout: float | None, total_timeout: float | None) -> CallTime | None:
        """The time of this call, where it has a limit."""
        total = self.total_timeout if total_timeout is None else total_timeout
        return None if total is None and timeout is None else CallTime(total, timeout)

    def _merged(self, *values: Any) -> Options:
        """The options of this call: what it names over what `connect` was given."""
        if values == UNNAMED:
            return self.options
        input_type, *others = values
        plain = others == NOTHING and type(input_type) is str
        if plain and (kept := self._learned.typed) is not None and kept[0] is self.options and kept[1] == input_type:
            return kept[2]  # those of the last call that named an input type and nothing else
        named = {name: value for name, value in zip(OPTIONS, values, strict=True) if value is not None}
        options = validated(msgspec.structs.replace(self.options, **named))
        if options == self.options:
            options = self.options
        if plain:
            self._learned.typed = self.options, input_type, options
        return options

    async def _among(
        self, rows: list[Any], options: Options, embed: Callable[..., Awaitable[Embeddings]], **more: Any
    ) -> Embeddings:
        """`embed` of those rows that are strings; the others are failed rows."""
        others = without_text(rows)
        if not others:
            return await embed(rows, options, skip=True, **more)
        places = [place for place in range(len(rows)) if place not in others]
        try:
            made = await embed([rows[place] for place in places], options, skip=True, **more)
        except EmbedkitError as error:
            error.rows = tuple(places[row] for row in error.rows)
            if error.partial is not None:
                error.partial = with_failed_rows(error.partial, places, others)
            raise
        for failure in others.values():
            self._sign(failure)
        return with_failed_rows(made, places, others, width=self.known_width(options))

    def _shortens(self, options: Options) -> Literal["mean", "end"] | None:
        """What is done on the client about texts that are too long; what a call says of `truncate` wins."""
        if options.truncate is not None:
            return "end" if options.truncate == "end" and not self.cuts_texts() else None
        if self.long_text is not None and options.dtype != "float32":
            msg = f"long_text={self.long_text!r} averages float32 vectors; dtype={options.dtype!r} has no mean"
            raise ConfigError(msg)
        return self.long_text

    def _sign(self, error: EmbedkitError) -> None:
        if isinstance(error, ApiError):
            error.provider, error.model = error.provider or self.provider, error.model or self.model

    async def _settled(
        self, rows: list[str], options: Options, tally: RequestCount, *, skip: bool, workers: int, lone: bool
    ) -> Embeddings:
        whole = self.joins_texts(options)
        unique = UniqueTexts(rows, accepts_empty=self.accepts_empty, skip=skip, repeats=whole)
        if not self._probed:
            await (self._prepare(tally) if tally.time is None else tally.time.within(self._prepare(tally)))
        if whole:
            self._fits_one_request(unique.texts)
        key = self._learned.key(options, self.options)
        fills: Fills = self.fill_rows if self.observe is None else partial(self._timed, self.observe)
        if tally.progress is not None:
            fills = partial(_counted, fills, tally.progress)
        if len(unique.texts) == 1 and tally.time is None:
            check_workers(workers)
            row = FirstRow(len(rows), options.dtype, self._learned.widths.get(key))
            try:
                reply = await fills(unique.texts, options, row, tally, None)
            except (EmbedkitError, UnicodeEncodeError) as error:
                fills = replayed(fills, row, error)
            except BaseException as error:
                raise_if_closed(error, tally)
                raise
            else:
                if row.matrix is not None and not row.failures:
                    self._learned.add_width(key, row.matrix.shape[1])
                    return self._made(row.matrix, unique, options, tally, reply.model, reply.tokens, {})
                fills = replayed(fills, row, reply)
        return await self._dispatched(fills, unique, options, tally, key, skip=skip, workers=workers, lone=lone)

    async def _dispatched(
        self,
        fills: Fills,
        unique: UniqueTexts,
        options: Options,
        tally: RequestCount,
        key: bytes,
        *,
        skip: bool,
        workers: int,
        lone: bool,
    ) -> Embeddings:
        """The texts in as many requests as they need; what fails is taken apart."""
        time, learned = tally.time, self._learned

        def fill(texts: Sequence[str], out: OutputRows, tries: int | None) -> Awaitable[Reply]:
            return fills(texts, options, out, tally, tries)

        def cut(start: int, stop: int) -> Iterator[slice]:
            return plan(unique.texts, self.known_limits(), self.count_tokens, start=start, stop=stop)

        dispatcher = Dispatcher(
            unique.texts, cut, fill, room=unique.count, dtype=options.dtype, width=learned.widths.get(key),
            skip=skip, whole=self.joins_texts(options), lone=lone, learn=self._learn,
            on_split=silent if self.observe is None else partial(self._tell_split, self.observe, tally),
            on_failure=silent if self.observe is None else partial(self._tell_failure, self.observe, tally),
        )  # fmt: skip
        try:
            if time is None:
                await dispatcher.run(workers, self.first_workers)
            else:
                await time.within(dispatcher.run(workers, self.first_workers))
            learned.add_width(key, dispatcher.width)
        except EmbedkitError as error:
            self._unfinished(error, dispatcher, unique, options, tally)
            raise
        except BaseException as error:
            if (closed := closed_call(error, tally)) is None:
                raise
            try:
                self._unfinished(closed, dispatcher, unique, options, tally)
                raise closed from None
            finally:
                del closed  # it knows this frame, and so would keep the matrix alive
        return self._result(dispatcher, unique, options, tally)

    def _unfinished(
        self, error: EmbedkitError, dispatcher: Dispatcher, unique: UniqueTexts, options: Options, tally: RequestCount
    ) -> None:
        """Tell the error which rows it is about, and what has come in."""
        error.rows = unique.rows_of(error.rows)
        if any(dispatcher.done):
            error.partial = self._result(dispatcher, unique, options, tally)
        if tally.time is not None and tally.time.cut and self.observe is not None:
            self._tell_failure(self.observe, tally, dispatcher.done.count(0), error)

    def _fits_one_request(self, texts: Sequence[str]) -> None:
        """Raise TooLargeError where texts that belong together need more than one request."""
        first = next(plan(texts, self.known_limits(), self.count_tokens), slice(0, 0))
        if first.stop < len(texts):
            msg = (
                f"the texts of this call are one document to the model, so one request, and {len(texts)} were given: "
                f"{first.stop} fit into one request; call embed() once per document, with fewer texts"
            )
            error = TooLargeError(msg)
            error.max_texts = first.stop
            raise error

    def _learn(self, texts: Sequence[str], error: TooLargeError) -> bool:
        """Remember the limit that a refusal names. True where it is new: these texts then go out in smaller batches."""
        known = self._learned.limits(self.limits)
        tokens = error.max_tokens
        if tokens is not None and (counted := sum(map(self.count_tokens, texts))) <= tokens:
            tokens = max(1, counted * 4 // 5)  # the count is too low for texts like these: keep further away
        learned = tightened(known, Limits(max_texts=error.max_texts, max_tokens=tokens))
        self._learned.add_limits(learned)
        return learned != known or tokens is not None  # the quota may have become known meanwhile

    async def _prepare(self, tally: RequestCount) -> None:  # noqa: B027 (most have nothing to ask)
        """What has to be asked before anything can be planned."""

    async def _timed(
        self,
        observe: Callable[[Event], object],
        texts: Sequence[str],
        options: Options,
        out: OutputRows,
        tally: RequestCount,
        tries: int | None,
    ) -> Reply:
        started = monotonic()
        reply = await self.fill_rows(texts, options, out, tally, tries)
        seconds = monotonic() - started
        notify(observe, BatchDone(**self._about(tally), texts=len(texts), tokens=reply.tokens, seconds=seconds))
        return reply

    async def _told(
        self,
        observe: Callable[[Event], object],
        call: int,
        texts: int,
        work: Awaitable[Embeddings],
        callers: tuple[int, ...] = (),
        *,
        shares: bool = False,
    ) -> Embeddings:
        """What this call gives; the observer is told of its beginning and its end. `shares`: its request, which tells
        what it took.
        """
        about: dict[str, Any] = {
            "provider": self.provider, "model": self.model, "call": call, "texts": texts, "callers": callers,
        }  # fmt: skip
        notify(observe, CallStarted(**about, server=_server_of(self)))
        began = monotonic()
        try:
            made = await work
        except BaseException as error:
            notify(observe, ended(about, monotonic() - began, getattr(error, "partial", None), error, shares=shares))
            raise
        finally:
            del work
        notify(observe, ended(about, monotonic() - began, made, shares=shares))
        return made

    def _about(self, tally: RequestCount) -> dict[str, Any]:
        return {"provider": self.provider, "model": self.model, "call": tally.call}

    def _tell_split(
        self, observe: Callable[[Event], object], tally: RequestCount, texts: int, error: EmbedkitError
    ) -> None:
        notify(observe, BatchSplit(**self._about(tally), texts=texts, error=error))

    def _tell_failure(
        self, observe: Callable[[Event], object], tally: RequestCount, texts: int, error: EmbedkitError
    ) -> None:
        notify(observe, BatchFailed(**self._about(tally), texts=texts, error=error))

    def _tell_end(self, error: EmbedkitError) -> None:
        """Log that a call is given up. What the caller got wrong is the caller's to see."""
        mistaken = isinstance(error, ConfigError) or (isinstance(error, InvalidInputError) and error.status is None)
        if not mistaken and not isinstance(error, ClosedError):
            host = host_of(getattr(self, "base_url", "")) or self.provider
            log(
                WARNING, "a call to %s is given up after %.3g s: %s; attempts: %d",
                host, error.elapsed, kind_of(error), error.attempts,
                host=host, attempt=error.attempts, status=status_of(error),
            )  # fmt: skip

    def _result(self, dispatcher: Dispatcher, unique: UniqueTexts, options: Options, tally: RequestCount) -> Embeddings:
        matrix = dispatcher.matrix
        if matrix is None:
            matrix = missing_rows(unique.count, dispatcher.width or self.known_width(options), options.dtype)
        missing = [row for row, done in enumerate(dispatcher.done) if not done] if not all(dispatcher.done) else []
        if missing:
            matrix[missing] = missing_value(matrix)
        return self._made(matrix, unique, options, tally, dispatcher.model, dispatcher.tokens, dispatcher.failures)

    def _made(
        self,
        matrix: NDArray[Any],
        unique: UniqueTexts,
        options: Options,
        tally: RequestCount,
        model: str,
        tokens: int | None,
        failures: dict[int, EmbedkitError],
    ) -> Embeddings:
        failures = unique.spread_failures(failures)
        for error in failures.values():
            self._sign(error)
        cost = None
        if tokens is not None:
            if self._priced_apart:
                cost = tally.cost
            elif self.price is not None:
                cost = tokens * self.price / 1e6
        return Embeddings(
            unique.expand(matrix), model or self.model, Usage(tokens, tally.requests, cost), failures,
            dtype=options.dtype,
        )  # fmt: skip


async def _counted(
    fills: Callable[..., Awaitable[Reply]], progress: Progress, texts: Sequence[str], *args: Any
) -> Reply:
    """One batch; its texts are done then."""
    reply = await fills(texts, *args)
    progress.add(len(texts))
    return reply


def _server_of(embedder: Embedder) -> str:
    """Where its requests go; empty where nowhere, or to several. Of its own, since a URL may hold a key and a traceback
    shows what a frame holds.
    """
    url = getattr(embedder, "base_url", "")
    return "" if ", " in url else origin(url)


def _skips(on_error: OnError) -> bool:
    if on_error == "raise":
        return False
    if on_error not in get_args(OnError):
        msg = f"on_error={shown(on_error)}: it is one of {', '.join(map(repr, get_args(OnError)))}"
        raise ConfigError(msg)
    return on_error == "skip"
