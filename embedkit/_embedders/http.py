"""`HttpEmbedder`: an embedder over a codec and a transport.

It holds configuration only. What belongs to an event loop (the session, the concurrency slots) is made by the first
call on that loop and let go when the loop is gone, after a fork, and on pickling.
"""

from __future__ import annotations

import os
import pickle
import time
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import msgspec

from .._batching.dispatch import PROBE_TEXT
from .._batching.plan import estimate
from .._calls import until_closed
from .._http.aiohttp_exchange import AiohttpExchange
from .._http.auth import Signer
from .._http.exchange import CheckedExchange
from .._http.settings import HttpSettings
from .._http.transport import Transport
from .._logging import host_of
from .._loops import PerLoop, this_loop
from .._traffic.concurrency import ConcurrencyLimit
from .._traffic.hedging import Hedge
from .._traffic.limiter import Limiter
from .._traffic.quota import TOKENS, shared_quota
from .._traffic.rate import Rate
from .._traffic.retry import RetryPolicy
from .._types import Embeddings, Limits, Options, Reply, Request, RequestCount, Response, Usage, origin, safe_url
from ..codec import Batches, Codec, Dialect, OutputRows, Secrets, Target, complete, together, widths
from ..codec.error_body import wordless, words_of_rows
from ..codec.error_mapping import error_from_response, error_in_success, with_url
from ..errors import (
    ApiError,
    AuthError,
    ConfigError,
    DecodeError,
    EmbedkitError,
    RateLimitError,
    ServerError,
    TooLargeError,
    TooLongError,
)
from .base import Embedder
from .cache_keys import http_origin
from .call_end import raise_if_closed
from .extra_fields import check_extra
from .learned import lasting
from .postprocess import shaped
from .wrapped_exchanges import HeardExchange, LongExchange

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self

    import anyio

    from .._http.auth import Asks, Source
    from .._http.exchange import Exchange
    from ..events import Event


T = TypeVar("T")
# Refusals of one batch after which it is taken to be too large for the quota, and comes back so much smaller.
STUBBORN, SMALLER = 3, 4
START, CEILING = 8, 64  # requests in flight: at first, and at most, where the caller says nothing


class HttpEmbedder(Embedder):
    """An embedder that asks a provider over HTTP. Made by `embedkit.connect`."""

    def __init__(  # noqa: PLR0913 (`connect` settles these, one by one)
        self,
        codec: Codec,
        target: Target,
        *,
        options: Options,
        sources: Mapping[str, Source],
        headers: Mapping[str, str],
        ask_headers: Asks | None = None,
        http: HttpSettings,
        limits: Limits | None,
        max_concurrency: int | None,
        rate: Rate | None,
        retry: RetryPolicy,
        observe: Callable[[Event], object] | None,
        count_tokens: Callable[[str], int] | None,
        exchange: Exchange | None,
        unsent: str = "",
        hedge: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.provider = target.host.name
        self.model = target.model
        self.options = options
        self.max_concurrency = max_concurrency or target.host.ceiling
        self.first_workers: int = max_concurrency or min(START, target.host.start)
        self._first = max_concurrency or target.host.start
        self.accepts_empty = target.host.accepts_empty
        self.loading = target.host.loading  # seconds that the server may take to load its model
        self.observe = observe
        self.price = target.facts.price if target.facts is not None else None
        self.batch_price = target.facts.batch_price if target.facts is not None else None
        if count_tokens is not None:
            self.count_tokens = count_tokens
        self._codec = complete(codec, target)
        self._target = target
        self._own_limits = limits
        self._sources = Secrets(sources)
        self._headers = Secrets(headers)
        self._ask_headers = Secrets({} if ask_headers is None else {"headers": ask_headers})
        self._http = http
        self._rate = rate
        self._retry = retry
        self._exchange = exchange
        self._unsent = unsent
        self._hedge = hedge
        self._clock = clock
        self._reset()

    def _reset(self) -> None:
        self._signer = Signer(
            self._target, self._sources, self._headers, ask=self._ask_headers, timeout=self._http.timeout
        )
        self._signer.redactor.add(self._http.secrets(), lasting=True)
        self._quota = shared_quota(self._quota_key(), self.model, self._rate)
        self._transports: PerLoop[Transport] = PerLoop()
        self._job_limiters: PerLoop[Limiter] = PerLoop()
        self._pid = os.getpid()
        self._probed = self._codec.probe() is None
        self._sound: Options | None = None  # whose extra fields were looked at last
        self._probing: dict[object, anyio.Event] = {}

    @property
    def limits(self) -> Limits:  # type: ignore[override]  # what was given, else what the codec knows by now
        """What one request may hold."""
        return self._own_limits or self._codec.limits

    @property
    def borrowed(self) -> bool:
        """True where the session is the caller's, and so bound to its event loop."""
        return self._http.session is not None

    @property
    def window(self) -> int:
        """How many requests may be in flight on this event loop by now."""
        return self._transport().limiter.window.size

    @property
    def hung(self) -> int:
        """Requests in flight on this event loop that do not count for the window: no answer is expected any more."""
        return self._transport().limiter.hung()

    @property
    def late(self) -> float:
        """Seconds after which no answer is a sign of trouble, by how long answers take on this event loop."""
        return self._transport().limiter.patience

    @property
    def identity(self) -> tuple[str, str, str] | None:
        """Provider, model and a digest of the address; None over an exchange of the caller's, which may be anybody."""
        if self._exchange is not None:
            return None
        return self.provider, self.model, blake2b(self.base_url.encode("utf-8", "surrogatepass")).hexdigest()

    def with_retry(self, retry: RetryPolicy) -> Self:
        """The same embedder under another retry policy; it shares the quota, and has sockets of its own."""
        twin = self.__copy__()
        twin._retry = retry  # noqa: SLF001 (of the same class)
        return twin

    @property
    def base_url(self) -> str:
        """Where requests go."""
        return self._target.base_url

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.provider}:{self.model} at {safe_url(self._target.base_url)}>"

    def cuts_texts(self) -> bool:
        return self._codec.cuts

    def most_text_tokens(self, options: Options) -> int | None:
        """As the limits say, else the catalog; less what goes before every text."""
        facts = self._target.facts
        most = super().most_text_tokens(options) or (facts.tokens if facts is not None else None)
        prefix = facts.prefixes.get(options.input_type or "", "") if facts is not None else ""
        return max(1, most - self.count_tokens(prefix)) if most is not None and prefix else most

    def origin(self, options: Options) -> Mapping[str, Any]:
        """Who answers, where, which model, and what the request says besides text and options."""
        return http_origin(self._target, self._headers, options)

    # --- one batch ---------------------------------------------------------------------------------------------------

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

    async def fill_rows(
        self,
        texts: Sequence[str],
        options: Options,
        out: OutputRows | None,
        tally: RequestCount,
        tries: int | None = None,
    ) -> Reply:
        if not self._probed:
            await self._prepare(tally)  # `embed_batch` comes here without a plan
        transport = self._transport()
        counted = self._quota.counts_tokens
        tokens = sum(map(self.count_tokens, texts)) if counted else 0
        asked = self._checked(texts, tokens)
        kept: list[tuple[EmbedkitError, Reply, dict[int, DecodeError]]] = []  # of a reply in which some are missing
        while True:
            codec, wire = self._codec, self._wire_options(options)
            request = codec.encode(texts, wire)
            refused: list[Response] = []

            def receive(
                response: Response,
                codec: Dialect = codec,
                wire: Options = wire,
                refused: list[Response] = refused,
                request: Request = request,
            ) -> Reply:
                if not response.ok:
                    refused.append(self._signer.redactor.redact_response(response))
                    raise self._redacted(
                        with_url(
                            self._smaller(self._judged(codec, refused[-1]), texts, options),
                            self._signer.sent_to(request),
                        )
                    )
                reply = self._decoded(codec, response, (wire, options), len(texts), out)
                if (
                    out is not None
                    and out.failures
                    and not kept
                    and any(each.once_more for each in out.failures.values())
                ):
                    kept.append((together(out.failures), reply, out.failures))
                    raise kept[0][0]  # asked for once more, where there is another try
                return reply

            try:
                reply = await transport.send(
                    request,
                    receive,
                    tally,
                    texts=len(texts),
                    tokens=asked,
                    tries=tries or None,
                    whole=len(texts) > 1 and self.joins_texts(options),
                    extra=tries is not None or texts == [PROBE_TEXT],
                    rows=out,
                )
            except EmbedkitError as error:
                if out is not None and kept and error is kept[0][0]:  # there was none
                    _, reply, out.failures = kept[0]
                    for each in out.failures.values():
                        each.attempts, each.elapsed = error.attempts, error.elapsed
                    return reply
                if refused and self._adopt(codec, refused[-1]):
                    continue
                raise self._redacted(error) from None
            self._quota.passed(self._clock(), tokens, asked, reply.tokens)
            return reply

    def quota_tokens(self) -> int | None:
        return self._quota.most_by_our_count

    def _checked(self, texts: Sequence[str], tokens: int) -> int:
        """The tokens to ask the quota for: all that it ever grants, where an estimate says that it takes more.

        A lone text of more tokens than that is refused here only where they are really counted. An estimate may be
        twice too high, so the text is sent alone, and the provider says whether it passes.
        """
        most = self._quota.most if tokens else None
        if most is None or tokens <= most:
            return tokens
        if len(texts) == 1 and self.count_tokens is not estimate:
            msg = (
                f"the text has {tokens} tokens, and the quota of this account passes at most {most} at once, so it was "
                "not sent; shorten the text, pass long_text='mean' with "
                f"limits=Limits(max_text_tokens={most}), or ask for a larger quota"
            )
            raise TooLongError(msg, provider=self.provider, model=self.model, rows=(0,))
        return most

    def _smaller(self, error: ApiError, texts: Sequence[str], options: Options) -> ApiError:
        """The error as it is; where a rate limit refuses this batch since it can never pass, one that asks for smaller.

        It could not where it holds more tokens than the quota grants in all its time, or where the pace finds that
        nothing so large passes.
        """
        quota = self._quota
        if isinstance(error, (RateLimitError, TooLargeError)) and error.status == 429 and error.max_tokens is not None:  # noqa: PLR2004
            quota.learn(error.max_tokens)
        if not isinstance(error, RateLimitError) or error.about in ("requests", "concurrency"):
            return error
        known = quota.most_by_our_count
        if len(texts) == 1 or self.joins_texts(options) or (error.about != TOKENS and known is None):
            return error  # nothing can come back smaller, or nothing says that it should
        tokens = sum(map(self.count_tokens, texts))
        large = error.about == TOKENS or (known is not None and 2 * tokens > known)
        if known is not None and tokens > known:
            why = f"it holds more tokens ({tokens} or so) than the quota passes at once ({known})"
        elif large and quota.too_large(self._clock(), tokens):
            why = f"nothing so large ({tokens} tokens or so) has passed, and nothing else lately"
        else:
            return error
        other = TooLargeError(
            f"{error.message}; the batch comes back in smaller ones: {why}", status=error.status, code=error.code,
            provider=error.provider, model=error.model, request_id=error.request_id, body=error.body,
        )  # fmt: skip
        other.max_tokens = quota.most_by_our_count
        return other

    def _decoded(
        self, codec: Dialect, response: Response, asked: tuple[Options, Options], count: int, out: OutputRows | None
    ) -> Reply:
        """The rows of a success. Errors quote a redacted copy: an excerpt of the original may cut a key in half."""
        if out is not None and out.failures:
            out.failures = {}  # of an earlier try
        try:
            # Nothing is to be done on the client, as with most replies.
            if asked[0] is asked[1] and asked[1].normalize is None and asked[1].dimensions is None:
                reply = codec.decode(response, asked[1], count, out)
            else:
                reply = self._shaped(codec, response, asked, count, out)
        except EmbedkitError as error:
            failure = error
        else:
            if out is not None and out.failures:
                veiled = self._signer.redactor.redact_response(response)
                said = words_of_rows(veiled, count, out.failures)
                for row, each in out.failures.items():
                    if row in said:
                        each.message = f"{each.message}: {said[row]}"
                    self._redacted(each)
            return reply
        # A new error: the first may quote a key, and a traceback would show it.
        failure = self._undecoded(failure, codec, response, asked, count)
        raise failure

    def _undecoded(
        self, failure: EmbedkitError, codec: Dialect, response: Response, asked: tuple[Options, Options], count: int
    ) -> EmbedkitError:
        """What is wrong with a reply, in the server's own words where it has some, and from whom it came."""
        veiled = self._signer.redactor.redact_response(response)
        if veiled is not response:
            try:
                self._shaped(codec, veiled, asked, count, None)
            except EmbedkitError as error:
                failure = error
        if type(failure) is DecodeError:  # whatever of the reply the codec missed, the server's own words say more
            failure = _worded(failure, error_in_success(veiled), veiled)
        if isinstance(failure, DecodeError):
            failure.message = f"{self.provider}:{self.model} at {safe_url(self._target.base_url)}: {failure.message}"
        return self._redacted(failure)  # before an event shows it

    def _shaped(
        self, codec: Dialect, response: Response, asked: tuple[Options, Options], count: int, out: OutputRows | None
    ) -> Reply:
        """The rows as the caller's options want them; what the provider cannot make is made of what it answered."""
        wire, options = asked
        try:
            return shaped(codec, response, asked, count, out, self._target.facts)
        except DecodeError as error:
            if error.answered is None or not self._can_cut(error.answered, wire):
                raise
        wire = msgspec.structs.replace(wire, dimensions=None)
        return shaped(codec, response, (wire, options), count, out, self._target.facts)

    def _can_cut(self, answered: int, wire: Options) -> bool:
        """Whether vectors of the width answered can be cut to the one asked for: the model is trained for both."""
        facts, asked = self._target.facts, wire.dimensions
        if facts is None or asked is None or wire.dtype != "float32" or answered <= asked:
            return False
        return asked in facts.widths and (answered == facts.dimensions or answered in facts.widths)

    def joins_texts(self, options: Options) -> bool:
        fields = self._codec.joins
        if isinstance(fields, bool) or not options.extra:
            return fields is True
        return any(options.extra.get(field) for field in fields)

    def _wire_options(self, options: Options) -> Options:
        """The options as the wire gets them: without the width and dtype that have to be made on the client."""
        wire, asked = options, options.dimensions
        if asked is not None and not self._codec.sends_dimensions:
            facts = self._target.facts
            if facts is None or (asked != facts.dimensions and asked not in facts.widths):
                why = f"{self.provider} cannot be asked for a width, and {self.model} cannot be cut to it"
                msg = f"dimensions={asked}: {why} (it has {widths(facts)})"
                raise ConfigError(msg)
            wire = msgspec.structs.replace(wire, dimensions=None)
            if asked != facts.dimensions:
                wire = msgspec.structs.replace(wire, dtype="float32")  # only floats can be cut
        if options.dtype != "float32" and options.dtype not in self._codec.sends_dtypes:
            wire = msgspec.structs.replace(wire, dtype="float32")
        if wire.extra and options is not self._sound:
            check_extra(self._codec, wire)
            self._sound = options
        return wire

    def _judged(self, codec: Dialect, response: Response) -> ApiError:
        error = error_from_response(
            response, provider=self.provider, model=self.model, message=codec.explain(response), now=time.time()
        )
        if isinstance(error, AuthError) and self._unsent:
            error.message = f"{error.message}; {self._unsent}"
        if isinstance(error, AuthError) and self._signer.renew():
            error.retryable = True
        if isinstance(error, ServerError) and _improved_codec(codec, response):
            error.retryable = False  # asked another way it may pass at once
        return error

    def _adopt(self, codec: Dialect, response: Response) -> bool:
        """True where the codec knows better after this refusal, and the request is worth another try."""
        better = _improved_codec(codec, response)
        if better is None:
            return self._codec is not codec and self._codec != codec  # a neighbor's request has learned it meanwhile
        self._codec = better
        return True

    def _redacted(self, error: EmbedkitError) -> EmbedkitError:
        if isinstance(error, ApiError):
            error.provider = error.provider or self.provider
            error.model = error.model or self.model
            error.body = self._signer.redactor.redact(error.body)
            error.code = self._signer.redactor.redact(error.code) if isinstance(error.code, str) else error.code
            error.request_id = self._signer.redactor.redact(error.request_id) if error.request_id else error.request_id
        error.message = self._signer.redactor.redact(error.message)
        error.args = (error.message,)
        return error

    def skip_probe(self, answer: Response | None = None) -> None:
        """Ask the server nothing of itself; `answer`: what it would have said."""
        if answer is not None:
            self._adopt(self._codec, answer)
        self._probed = True

    async def _prepare(self, tally: RequestCount) -> None:
        """Ask once what the server knows of itself (TEI's /info); a server that does not answer it is used as it is."""
        if self._probed:
            return
        loop = this_loop()
        if loop in self._probing:
            await self._probing[loop].wait()  # a neighbor asks already; should it fail, every call finds out for itself
            return
        import anyio

        answered = self._probing[loop] = anyio.Event()
        try:
            request = self._codec.probe()
            if request is not None:
                response = await self._transport().send(request, lambda response: response, tally)
                self._adopt(self._codec, response)
            self._probed = True
        except EmbedkitError as error:
            raise self._redacted(error) from None
        finally:
            del self._probing[loop]
            answered.set()

    # --- batch jobs --------------------------------------------------------------------------------------------------

    def batches(self) -> Batches:
        """What the provider's API for batch jobs is asked, by the dialect as it is known by now.

        Raises:
            ConfigError: it has none, or embedkit does not use it; the message says why.
        """
        made = self._target.host.batches
        if isinstance(made, str):
            some = "openai, mistral, voyage and gemini"
            msg = f"{self.provider} cannot be used through batch jobs: {made}; embedkit knows those of {some}"
            raise ConfigError(msg)
        found: Batches = made(self._codec)
        return found

    def as_sent(self, options: Options) -> Options:
        """The options as the provider gets them; what it does not make is made here of what it answers."""
        return self._wire_options(options)

    @until_closed
    async def ask(
        self,
        request: Request,
        read: Callable[[Response], T],
        tally: RequestCount,
        *,
        seconds: float,
        tries: int | None = None,
        into: BinaryIO | None = None,
    ) -> T:
        """What `read` makes of the answer to a request for something else than vectors.

        Args:
            request: without credentials.
            read: gets a success only.
            tally: counts what is sent.
            seconds: one attempt may take.
            tries: how often it is sent at most; None: as the policy says.
            into: a file that gets the body, of any size; the response that `read` gets then has none.

        Raises:
            EmbedkitError: the refusal, named and redacted, or no answer came.
            OSError: the file cannot be written.
        """
        transport = self._transport()
        exchange = LongExchange(transport.exchange, seconds, into)
        policy = msgspec.structs.replace(self._retry, deadline=None)
        codec = self._codec

        def receive(response: Response) -> T:
            if not response.ok:
                veiled = self._signer.redactor.redact_response(response)
                raise self._redacted(with_url(self._judged(codec, veiled), self._signer.sent_to(request)))
            return read(response)

        calm = Transport(
            exchange, self._signer.on(exchange), self._job_limiter(),
            policy if tries is None else msgspec.structs.replace(policy, attempts=tries),
            name=(self.provider, self.model), host=host_of(self._target.base_url), observe=self.observe,
            timeout=seconds, clock=self._clock,
        )  # fmt: skip
        try:
            return await calm.send(request, receive, tally)
        except EmbedkitError as error:
            raise self._redacted(error) from None
        except BaseException as error:
            raise_if_closed(error, tally)
            raise

    def _job_limiter(self) -> Limiter:
        """Who may ask about batch jobs on this event loop: their limits are not those of requests for vectors."""
        loop = this_loop()
        found = self._job_limiters.get(loop)
        if found is None:
            self._job_limiters.sweep()
            quota = shared_quota(f"{self._quota_key()}\nbatch jobs", self.model, None)
            window = ConcurrencyLimit(START, START, time.thread_time)
            found = self._job_limiters[loop] = Limiter(window, quota, clock=self._clock, sleep=_pause)
        return found

    def answered(
        self, response: Response, asked: tuple[Options, Options], count: int, out: OutputRows
    ) -> tuple[Reply | None, EmbedkitError | None]:
        """The rows of one answer that came in a batch job, as (sent, wanted) options ask, or why there are none."""
        try:
            if not response.ok:
                return None, self.judged(response)
            return self._decoded(self._codec, response, asked, count, out), None
        except EmbedkitError as error:
            return None, error

    def judged(self, response: Response) -> ApiError:
        """The error that a refusal is."""
        return self._redacted(self._judged(self._codec, self._signer.redactor.redact_response(response)))  # type: ignore[return-value]

    def adopt(self, refusal: Response) -> bool:
        """True where the dialect knows better after this refusal, and the request is worth another try."""
        return self._adopt(self._codec, refusal)

    def _quota_key(self) -> str:
        """Whose quota is spent: the provider, where it is, and every credential. Only a hash of it is kept."""
        whose = (source if isinstance(source, str) else str(id(source)) for source in self._sources.values())
        place = "" if self._exchange is None else str(id(self._exchange))  # a fake one has a quota of its own
        return "\n".join((self.provider, self._target.base_url, place, *whose))

    # --- loops, forks, pickles ---------------------------------------------------------------------------------------

    def _transport(self) -> Transport:
        """The transport of this event loop, made on first use."""
        if self._pid != os.getpid():
            for stale in self._transports.values():
                _abandon(stale, forked=True)
            self._reset()
        loop = this_loop()
        transport = self._transports.get(loop)
        return transport if transport is not None else self._opened(loop)

    def _opened(self, loop: object) -> Transport:
        for stale in self._transports.sweep():
            _abandon(stale)
        if self._http.session is not None:
            owner = getattr(self._http.session, "_loop", loop)
            if owner is not loop:
                remedy = "give each loop its own, or let embedkit open one"
                msg = f"the session passed to connect() belongs to another event loop; {remedy}"
                raise ConfigError(msg)
        # Embedders of one quota share one window on a loop.
        limits = (loop, self._first, self.max_concurrency, self._clock)
        limiter = self._quota.limiters.get(limits)
        if limiter is None:
            window = ConcurrencyLimit(self._first, self.max_concurrency, time.thread_time)
            limiter = self._quota.limiters[limits] = Limiter(window, self._quota, clock=self._clock, sleep=_pause)
        exchange = AiohttpExchange(self._http) if self._exchange is None else CheckedExchange(self._exchange)
        self._transports[loop] = transport = Transport(
            exchange, self._signer.on(exchange), limiter, self._retry,
            name=(self.provider, self.model), host=host_of(self._target.base_url),
            server=origin(self._target.base_url), observe=self.observe,
            hedge=Hedge(self._hedge, clock=self._clock) if self._hedge else None,
            timeout=self._http.timeout, loading=self.loading, clock=self._clock,
        )  # fmt: skip
        return transport

    def listen(self, hear: Callable[[Response], object]) -> None:
        """Have every response told to a function, too. To be called on the event loop, before the first request."""
        self._exchange = HeardExchange(self._exchange or AiohttpExchange(self._http), hear)

    async def aclose(self) -> None:
        """End the calls in flight on this event loop with `ClosedError`, then close its sockets.

        Called twice it does nothing; used again the embedder opens anew. See `Embedder.aclose`.
        """
        transport = self._transports.pop(this_loop(), None)
        if transport is not None:
            await transport.exchange.aclose()

    def __copy__(self) -> Self:
        twin = type(self).__new__(type(self))
        twin.__setstate__(self._kept())
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.__copy__()  # nothing in it changes

    def __getstate__(self) -> dict[str, Any]:
        if self._http.session is not None:
            msg = "an embedder on the caller's own session cannot be pickled: a session belongs to one event loop"
            raise ConfigError(msg)
        given = {
            **self._sources, **self._ask_headers, "extra": self.options.extra, "observe": self.observe,
            "count_tokens": self.count_tokens, "exchange": self._exchange, "ssl": self._http.ssl,
        }  # fmt: skip
        for name, value in given.items():
            try:
                pickle.dumps(value)
            except Exception as error:
                kind = type(value).__name__
                msg = f"{name} ({kind}) cannot be pickled, so this embedder cannot; a function of a module can"
                raise ConfigError(msg) from error
        return self._kept()

    def _kept(self) -> dict[str, Any]:
        return lasting(self.__dict__, "_quota", "_signer", "_pid", "_probed", "_probing", "_sound")

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()


def _improved_codec(codec: Dialect, response: Response) -> Dialect | None:
    """The codec that knows more after this response; None where there is nothing to learn."""
    better = codec.learn(response)
    return None if better == codec else better


def _worded(failure: DecodeError, said: EmbedkitError | None, veiled: Response) -> EmbedkitError:
    """What the server says; where single rows are at fault, beside what is wrong with them."""
    if said is None:
        return _quoting(failure, veiled)
    if failure.rows and type(said) is DecodeError:
        failure.message = f"{failure.message}: {said.message}"
        return failure
    return said


def _quoting(error: DecodeError, response: Response) -> DecodeError:
    """The error with the start of a reply that has no vectors, unless it shows it already."""
    shown = wordless(response)
    if shown and shown not in error.message:
        error.message = f"{error.message}; the reply {shown}"
    return error


async def _pause(seconds: float) -> None:
    import anyio

    await anyio.sleep(seconds)


def _abandon(transport: Transport, *, forked: bool = False) -> None:
    if isinstance(transport.exchange, AiohttpExchange):
        transport.exchange.abandon(forked=forked)
