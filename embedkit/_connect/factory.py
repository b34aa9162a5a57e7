"""From "provider:model" to an embedder: find the host, resolve base URL and credentials, and refuse what cannot work.

Nothing is sent here. Every keyword is looked at before it is used, so that a wrong one is
named here rather than half-way through a call. Every rule about keys is in `credentials`: a
key from the environment goes only where it belongs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import msgspec

from .. import catalog
from .._batching.options import validated
from .._calltime import seconds
from .._embedders.base import Embedder
from .._embedders.http import HttpEmbedder
from .._hints import Later
from .._http.exchange import Exchange
from .._http.headers import Headers, fixed
from .._http.settings import HttpSettings
from .._traffic.rate import Rate
from .._traffic.retry import RetryPolicy
from .._types import CAP, DType, InputType, Limits, Options, Truncate
from .._values import is_number, shown
from ..cache.base import Cache
from ..codec import Target
from ..errors import ConfigError
from ..events import Event
from ..providers import find
from .base_url import address, without_user
from .credentials import Credential, _credentials
from .keywords import (
    _agreed,
    _cache,
    _Counted,
    _known,
    _of_kind,
    _parameter,
    _proxy,
    _public,
    _session,
    _share,
    _verification,
    _whole,
)
from .model_name import LOCAL, split

if TYPE_CHECKING:
    import ssl as tls

    import aiohttp
else:
    tls, aiohttp = Later("ssl"), Later("aiohttp")


def connect(  # noqa: PLR0913 (the one place where everything can be said; each has a default)
    model: str | None = None,
    *,
    api_key: Credential | Sequence[Credential] | None = None,
    base_url: str | Sequence[str] | None = None,
    input_type: InputType | None = None,
    dimensions: int | None = None,
    dtype: DType | None = None,
    normalize: bool | None = None,
    truncate: Truncate | None = None,
    extra: Mapping[str, Any] | None = None,
    max_concurrency: int | None = None,
    limits: Limits | None = None,
    rate: Rate | None = None,
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    total_timeout: float | None = None,
    connect_timeout: float = 10.0,
    read_timeout: float | None = None,
    max_response_bytes: int = 256 * 1024 * 1024,
    session: aiohttp.ClientSession | None = None,
    proxy: str | None = None,
    ssl: tls.SSLContext | str | bool | None = None,
    headers: Headers | None = None,
    count_tokens: Callable[[str], int] | None = None,
    long_text: Literal["mean"] | None = None,
    coalesce: bool | float = False,
    hedge: bool | float = False,
    observe: Callable[[Event], object] | None = None,
    exchange: Exchange | None = None,
    cache: Cache | str | os.PathLike[str] | None = None,
    **parameters: Any,
) -> Embedder:
    """An embedder for "provider:model". Nothing is sent until the first call; use it with or without `async with`.

    Args:
        model: "provider:model"; further colons belong to the model's name. None: the model that EMBEDKIT_MODEL names,
            else the bundled model.
        api_key: a string, or a callable (sync or async) that is called before every attempt. It replaces a key of the
            environment. A sequence of keys makes a pool, see `base_url`.
        base_url: the base URL as the provider's documentation gives it, or the URL of the endpoint. If it has no path,
            the provider's usual one (like /v1) is added. "user:password@" in it is sent as a header. A sequence of URLs
            makes a pool of endpoints of the same model: faster ones get more requests, and one that fails gets none
            until it answers again.
        input_type: what the texts are for. A call can have its own, as it can of the five options that follow;
            `Options` describes all six.
        dimensions: components per vector. The API makes the shorter vector if it can; otherwise embedkit cuts the
            vector, for models that were trained for it.
        dtype: type of the components. The API makes it if it can; otherwise embedkit quantizes. `Options` has the
            formulas.
        normalize: True makes every vector unit length.
        truncate: "end" cuts texts that are too long, "error" refuses them.
        extra: fields that are merged into the body of every request; not those that hold the texts, or that `dtype`
            stands for.
        max_concurrency: the largest number of requests in flight, also at the start. None: the host's row says how many
            at first and at most; between them embedkit sends as many as are answered without errors and delays. With
            either, it sends fewer after a 429, a timeout, or when answers get slow.
        limits: what one request may hold, instead of the limits that are known of the host.
        rate: a quota to stay within.
        retry: how often and for how long a request is tried. None: `RetryPolicy()`, at most 6 attempts within 300 s.
        timeout: seconds for one attempt, without retries. A call can have its own. None: 120 s, or what the host needs.
        total_timeout: seconds for a whole call of `embed` or `embed_query`, with its waits and retries. A call can have
            its own. Not for streams. None: no limit.
        connect_timeout: seconds for one TCP and TLS handshake.
        read_timeout: seconds between two pieces of a response. None: no limit.
        max_response_bytes: the largest response, in bytes after decompression.
        session: your own `aiohttp.ClientSession`; embedkit does not close it.
        proxy: URL of a proxy. None: HTTPS_PROXY, HTTP_PROXY and NO_PROXY are read, but not for loopback addresses.
            netrc is never read.
        ssl: an SSLContext, the path of a file with certificates (PEM), or False to accept every certificate.
        headers: headers of every request, or a callable (sync or async) that returns them. It is called before every
            attempt, in the caller's task and context, after the event `RequestSent`, so that it can send the current
            trace. Compressed responses are requested, except on loopback, where decompression takes longer than it
            saves; `{"accept-encoding": "identity"}` requests none.
        count_tokens: returns the tokens of a text, to plan batches; `embedkit.tokens` has some. None: estimated from
            the text's length.
        long_text: "mean" cuts texts that are too long for the model into pieces, averages the vectors of the pieces,
            weighted by their tokens, and makes the result unit length. A call with `truncate` uses that instead.
        coalesce: True lets concurrent small calls share requests: calls that come while all connections are busy are
            sent in one request. A number: each call also waits up to so many seconds, at most 120, for others.
        hedge: True sends a request that takes much longer than usual a second time and takes the first good answer, for
            at most 5 % of the requests. A number: that share instead of 0.05.
        observe: a function that is called with each event of `embedkit.events`.
        exchange: sends the requests instead of aiohttp: an async callable that takes an `embedkit.codec.Request` and
            gives an `embedkit.codec.Response`, or raises a TransportError (`embedkit.testing.FakeExchange`).
        cache: keeps vectors, so that no text is sent twice: the path of a file (SQLite, at most 4 GiB), a redis:// URL,
            or a `Cache` of `embedkit.cache`. Its key is all that embedkit knows to change a vector. It does not know
            what a callable for `headers` returns, and leaves out headers and fields of the URL's query that are named
            like a secret (key, token …). If the cache fails, a warning is logged and the texts are sent.
        **parameters: parameters of this host alone (`api_version` for Azure …). An unknown one is a TypeError that
            lists them.

    Raises:
        ConfigError: unknown provider, missing key, an option of the wrong kind.
        TypeError: an unknown keyword.
    """
    provider, name = split(model)
    options = validated(
        Options(
            input_type=input_type, dimensions=dimensions, dtype="float32" if dtype is None else dtype,
            truncate=truncate, normalize=normalize, extra={} if extra is None else extra,
        )
    )  # fmt: skip
    options = msgspec.structs.replace(options, extra=dict(options.extra))
    _of_kind(
        limits=limits,
        rate=rate,
        retry=retry,
        headers=headers,
        count_tokens=count_tokens,
        observe=observe,
        exchange=exchange,
    )
    if max_concurrency is not None:
        _whole("max_concurrency", max_concurrency)
    if total_timeout is not None:
        total_timeout = seconds("total_timeout", total_timeout)
    if provider == "local":
        wire = {
            "api_key": api_key,
            "base_url": base_url,
            "session": session,
            "proxy": proxy,
            "ssl": ssl,
            "exchange": exchange,
        }
        own = _local(
            name, options, limits, observe, parameters, [each for each, value in wire.items() if value is not None]
        )
        return _wrapped(own, long_text, coalesce, total_timeout, cache)
    retry = retry or RetryPolicy()
    counted = None if count_tokens is None else _Counted.of(count_tokens)

    def one(place: str | None, key: Credential | None, policy: RetryPolicy) -> HttpEmbedder:
        """An embedder for one endpoint with one key."""
        host = find(provider)
        _known(
            provider,
            parameters,
            {each: one.help for each, one in host.parameters.items()},
            connect.__kwdefaults__ or {},
        )
        url, ours, named = address(host, place)
        agreed = _agreed(host, name, named, parameters)
        settled = {each: _parameter(host, each, agreed.get(each)) for each in host.parameters}
        url, user = without_user(url)
        facts = catalog.facts(host.catalog or host.name, host.catalog_name(name))
        target = Target(host, name, url, facts, _public(host, settled))
        target = Target(host, name, host.resolve_url(url, target), target.facts, target.parameters)
        if user and key is not None:
            msg = "base_url holds a user and api_key is given: both would be the Authorization header; leave one out"
            raise ConfigError(msg)
        sources, unsent = _credentials(host, target.base_url, key, settled, explicit=place is not None, ours=ours)
        http = HttpSettings(
            timeout=seconds("timeout", timeout if timeout is not None else host.timeout),
            connect=seconds("connect_timeout", connect_timeout),
            read=None if read_timeout is None else seconds("read_timeout", read_timeout),
            proxy=_proxy(proxy), ssl=_verification(ssl), cap=_whole("max_response_bytes", max_response_bytes),
            session=_session(session), unreachable_hint=host.unreachable_hint,
        )  # fmt: skip
        return HttpEmbedder(
            host.dialect(target, **host.quirks), target, options=options, sources=sources, http=http, limits=limits,
            headers={**user, **(fixed(headers) if isinstance(headers, Mapping) else {})},
            ask_headers=None if isinstance(headers, Mapping) else headers, max_concurrency=max_concurrency, rate=rate,
            retry=policy, observe=observe, count_tokens=counted, exchange=exchange, unsent=unsent,
            hedge=_share(hedge),
        )  # fmt: skip

    embedder: Embedder
    if _several(base_url) or _several(api_key):
        embedder = _pooled(base_url, api_key, retry, one)
    else:
        embedder = one(cast("str | None", base_url), cast("Credential | None", api_key), retry)
    return _wrapped(embedder, long_text, coalesce, total_timeout, cache)


def _several(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))


def _pooled(
    base_url: Any,
    api_key: Any,
    retry: RetryPolicy,
    one: Callable[[str | None, Credential | None, RetryPolicy], HttpEmbedder],
) -> Embedder:
    """A pool over all endpoints and keys: in pairs, or one endpoint with all keys, or one key with all endpoints."""
    from .._embedders.pool import Pool

    for name, value in (("base_url", base_url), ("api_key", api_key)):
        if _several(value) and any(each is None for each in value):
            msg = f"{name} holds None beside others; each entry of a pool is given"
            raise ConfigError(msg)
    places, keys = ([*each] if _several(each) else [each] for each in (base_url, api_key))
    if not places or not keys or (len(places) > 1 and len(keys) > 1 and len(places) != len(keys)):
        msg = f"base_url has {len(places)} and api_key {len(keys)} entries: pass equally many, or one for all"
        raise ConfigError(msg)
    most = max(len(places), len(keys))
    once = msgspec.structs.replace(retry, attempts=1)  # the pool itself tries again, elsewhere
    pairs = zip(places * (most // len(places)), keys * (most // len(keys)), strict=True)
    return Pool([one(place, key, once) for place, key in pairs], retry=retry)


def _wrapped(
    embedder: Embedder,
    long_text: Literal["mean"] | None,
    coalesce: bool | float,
    total_timeout: float | None,
    cache: Cache | str | os.PathLike[str] | None,
) -> Embedder:
    if long_text not in (None, "mean"):
        msg = f"long_text={shown(long_text)}: it is 'mean' or None; to cut long texts off pass truncate='end'"
        raise ConfigError(msg)
    if long_text is not None and embedder.options.truncate is not None:
        msg = f"long_text='mean' and truncate={embedder.options.truncate!r} contradict each other: pass one of them"
        raise ConfigError(msg)
    embedder.long_text = long_text
    if total_timeout is not None:
        embedder.total_timeout = total_timeout
    if coalesce is not False:
        if not (isinstance(coalesce, bool) or is_number(coalesce)) or not 0 <= coalesce <= CAP:
            msg = f"coalesce={shown(coalesce)}: True, False, or the longest wait in seconds, at most {CAP:g}"
            raise ConfigError(msg)
        from .._embedders.coalescing import Coalesced

        embedder = Coalesced(embedder, 0.0 if coalesce is True else float(coalesce))
    if cache is not None:
        from .._embedders.cached import Cached

        embedder = Cached(embedder, _cache(cache), owned=not isinstance(cache, Cache))
    return embedder


def _local(
    name: str,
    options: Options,
    limits: Limits | None,
    observe: Callable[[Event], object] | None,
    parameters: dict[str, Any],
    meaningless: list[str],
) -> Embedder:
    from ..local import LocalEmbedder

    if meaningless:
        mean = "means" if len(meaningless) == 1 else "mean"
        msg = f"the local model runs in this process; {' and '.join(meaningless)} {mean} nothing to it"
        raise ConfigError(msg)
    _known(
        "local",
        parameters,
        dict.fromkeys(LocalEmbedder.__init__.__kwdefaults__ or (), ""),
        connect.__kwdefaults__ or {},
    )
    embedder = LocalEmbedder(name or LOCAL.partition(":")[2], **parameters)
    embedder.options = options
    embedder.limits = limits or embedder.limits
    embedder.observe = observe
    return embedder
