"""From "provider:model" to an embedder: find the host, resolve base URL and credentials, and refuse what cannot work.

Nothing is sent here. Every keyword is looked at before it is used, so that a wrong one is
named here rather than half-way through a call. Every rule about keys is in `credentials`: a
key from the environment goes only where it belongs.
"""

from __future__ import annotations

import math
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
from .._types import DType, InputType, Limits, Options, Truncate
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
    """An embedder for "provider:model". Sends nothing; works with and without `async with`.

    Args:
        model: split on the first colon only. None: EMBEDKIT_MODEL if set, else the embedded local model.
        api_key: a string, or a callable (sync or async) asked on every attempt. Explicit beats the environment. A
            sequence of them: a pool, see `base_url`.
        base_url: what the provider's docs call it, or the endpoint's whole URL; without a path its usual version
            segment is added; "user:password@" in it goes out as a header. A sequence of them: endpoints of one and the
            same model, which share the work by their speed; one that fails is left out until it answers again.
        input_type: what texts are for, unless a call says otherwise; likewise the five that follow, see `Options`.
        dimensions: components per vector; asked of the API, else cut here for models trained for it.
        dtype: type of the components; the provider's own, else quantized here. `Options` has the formulas.
        normalize: True makes every vector unit length.
        truncate: "end" cuts over-long texts, "error" insists on refusing them.
        extra: merged into every request body verbatim.
        max_concurrency: most requests in flight, and as many from the start. None: few at first, then as many (up to
            64) as the endpoint answers well. Either way fewer after a 429, a timeout, or when answers get slow.
        limits: overrides what the host is known to take per request.
        rate: a quota to stay within.
        retry: how often and how patiently. None: `RetryPolicy()`, so at most 6 attempts within 300 s for one request.
        timeout: seconds for one attempt, retries not included; a call
            may say otherwise. None: 120 s, or what the host needs.
        total_timeout: seconds for a whole call of `embed` or `embed_query`, waits for a turn and retries included; a
            call may say otherwise. Not for streams. None: no limit.
        connect_timeout: seconds for one TCP and TLS handshake.
        read_timeout: seconds between two pieces of a response.
        max_response_bytes: most bytes of a response, after decompression.
        session: your own `aiohttp.ClientSession`, not closed here.
        proxy: URL; else HTTPS_PROXY, HTTP_PROXY and NO_PROXY. The
            environment's are not used for loopback; netrc is never read.
        ssl: an SSLContext, the path of a CA bundle, or False to verify nothing.
        headers: sent with every request; or a callable (sync or async) that returns them, asked on every attempt, so
            that a trace can travel: it runs in the caller's task and context, after the event `RequestSent`.
            Compressed answers are asked for except on loopback, where undoing it takes longer than it saves;
            `{"accept-encoding": "identity"}` asks for none.
        count_tokens: tokens of a text, for planning (`embedkit.tokens`
            has ready ones); None: estimated from its length.
        long_text: "mean" cuts texts that are too long for the model into pieces, and averages their vectors by tokens,
            made unit length. A call that says `truncate` means that instead.
        coalesce: True lets concurrent small calls share requests: those that come while the connections are busy travel
            together. A number: also wait up to so many seconds for company.
        hedge: True sends a request that is late beyond nearly all others a second time, for at most 5 % of them, and
            takes the first good answer. A number: that share instead of 0.05.
        observe: called with each frozen event.
        exchange: what carries requests instead of aiohttp (`embedkit.testing.FakeExchange`).
        cache: keeps vectors, so that no text is paid for twice: the path of a file (SQLite, at most 4 GiB), a redis://
            URL, or a `Cache` of `embedkit.cache`. Only what this package can know to change a vector makes another key,
            so not what a callable given as `headers` says, nor a header or a field of the URL's query that is named
            like a secret (key, token …). A cache that fails costs hits and a warning, never the call.
        **parameters: what only this host takes (`api_version` for
            Azure …); an unknown one is a TypeError that lists them.

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
            retry=policy, observe=observe, count_tokens=count_tokens, exchange=exchange, unsent=unsent,
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
        msg = f"long_text={long_text!r}: it is 'mean' or None; to cut long texts off pass truncate='end'"
        raise ConfigError(msg)
    if long_text is not None and embedder.options.truncate is not None:
        msg = f"long_text='mean' and truncate={embedder.options.truncate!r} contradict each other: pass one of them"
        raise ConfigError(msg)
    embedder.long_text = long_text
    if total_timeout is not None:
        embedder.total_timeout = total_timeout
    if coalesce is not False:
        if not (isinstance(coalesce, bool) or is_number(coalesce)) or not 0 <= coalesce < math.inf:
            msg = f"coalesce={shown(coalesce)}: True, False, or the longest wait in seconds"
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
