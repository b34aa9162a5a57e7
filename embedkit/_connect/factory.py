"""From "provider:model" to an embedder: find the host, settle where it lives and as whom we come, and refuse what cannot work.

Nothing is sent here. Every keyword is looked at before it is used, so that a wrong one is named here rather than half-way through a
call. Every rule about keys is in `_credentials`: a key from the environment goes only where it belongs.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import urlsplit

import msgspec

from .. import catalog
from .._batching.options import checked
from .._calltime import seconds
from .._embedders.base import Embedder
from .._embedders.http import HttpEmbedder
from .._hints import Later
from .._http.credential_check import flaw
from .._http.credentials import KeyFile, Variable
from .._http.exchange import Exchange
from .._http.headers import Headers, fixed
from .._http.proxies import LOOPBACK
from .._http.settings import HttpSettings
from .._traffic.rate import Rate
from .._traffic.retry import RetryPolicy
from .._types import DType, InputType, Limits, Options, Truncate
from ..codec import Host, Target, belongs, to_json
from ..errors import ConfigError
from ..events import Event
from ..providers import find
from .base_url import address, parts, shown, without_user

if TYPE_CHECKING:
    import ssl as tls

    import aiohttp
else:
    tls, aiohttp = Later("ssl"), Later("aiohttp")

Credential = str | Callable[[], str | Awaitable[str]]
LOCAL = "local:all-minilm-l6-v2"
_KINDS: dict[str, tuple[Any, str]] = {
    "limits": (Limits, "embedkit.Limits(max_texts=…)"),
    "rate": (Rate, "embedkit.Rate(requests_per_minute=…)"),
    "retry": (RetryPolicy, "embedkit.RetryPolicy(attempts=…)"),
    "headers": ((Mapping, Callable), "a mapping of header names to values, or a callable that returns one"),
    "count_tokens": (Callable, "a callable: text → number of tokens"),
    "observe": (Callable, "a callable that is given each event"),
    "exchange": (Callable, "a callable: request → response, like embedkit.testing.FakeExchange"),
}


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
    **parameters: Any,
) -> Embedder:
    """An embedder for "provider:model". Sends nothing; works with and without `async with`.

    Args:
        model: split on the first colon only. None: EMBEDKIT_MODEL if set, else the embedded local model.
        api_key: a string, or a callable (sync or async) asked on every attempt. Explicit beats the environment. A sequence of them:
            a pool, see `base_url`.
        base_url: what the provider's docs call it, or the endpoint's whole URL; without a path its usual version segment is added; "user:password@" in it goes out
            as a header. A sequence of them: endpoints of one and the same model, which share the work by their speed; one that fails is left out until it answers again.
        input_type: what texts are for, unless a call says otherwise; likewise the five that follow, see `Options`.
        dimensions: components per vector; asked of the API, else cut here for models trained for it.
        dtype: type of the components; the provider's own, else quantised here. `Options` has the formulas.
        normalize: True makes every vector unit length.
        truncate: "end" cuts over-long texts, "error" insists on refusing them.
        extra: merged into every request body verbatim.
        max_concurrency: most requests in flight, and as many from the start. None: few at first, then as many (up to 64) as the
            endpoint answers well. Either way fewer after a 429, a timeout, or when answers get slow.
        limits: overrides what the host is known to take per request.
        rate: a quota to stay within.
        retry: how often and how patiently. None: `RetryPolicy()`, so at most 6 attempts within 300 s for one request.
        timeout: seconds for one attempt, retries not included; a call may say otherwise. None: 120 s, or what the host needs.
        total_timeout: seconds for a whole call of `embed` or `embed_query`, waits for a turn and retries included; a call may say
            otherwise. Not for streams. None: no limit.
        connect_timeout: seconds for one TCP and TLS handshake.
        read_timeout: seconds between two pieces of a response.
        max_response_bytes: most bytes of a response, after decompression.
        session: your own `aiohttp.ClientSession`, not closed here.
        proxy: URL; else HTTPS_PROXY, HTTP_PROXY and NO_PROXY. The environment's are not used for loopback; netrc is never read.
        ssl: an SSLContext, the path of a CA bundle, or False to verify nothing.
        headers: sent with every request; or a callable (sync or async) that returns them, asked on every attempt, so that a trace can
            travel: it runs in the caller's task and context, after the event `RequestSent`. Compressed answers are asked for except on loopback, where undoing it takes longer than it
            saves; `{"accept-encoding": "identity"}` asks for none.
        count_tokens: tokens of a text, for planning (`embedkit.tokens` has ready ones); None: estimated from its length.
        long_text: "mean" cuts texts that are too long for the model into pieces, and averages their vectors by tokens, made unit length.
            A call that says `truncate` means that instead.
        coalesce: True lets concurrent small calls share requests: those that come while the connections are busy travel together.
            A number: also wait up to so many seconds for company.
        hedge: True sends a request that is late beyond nearly all others a second time, for at most 5 % of them, and takes the
            first good answer. A number: that share instead of 0.05.
        observe: called with each frozen event.
        exchange: what carries requests instead of aiohttp (`embedkit.testing.FakeExchange`).
        **parameters: what only this host takes (`api_version` for Azure …); an unknown one is a TypeError that lists them.

    Raises:
        ConfigError: unknown provider, missing key, an option of the wrong kind.
        TypeError: an unknown keyword.
    """
    given = {name: value for name, value in locals().items() if name != "parameters"} | parameters
    provider, name = split(model)
    options = checked(
        Options(
            input_type=input_type, dimensions=dimensions, dtype="float32" if dtype is None else dtype, truncate=truncate,
            normalize=normalize, extra={} if extra is None else extra,
        )
    )  # fmt: skip
    options = msgspec.structs.replace(options, extra=dict(options.extra))
    _of_kind(
        limits=limits, rate=rate, retry=retry, headers=headers, count_tokens=count_tokens, observe=observe, exchange=exchange
    )
    if max_concurrency is not None:
        _whole("max_concurrency", max_concurrency)
    if total_timeout is not None:
        total_timeout = seconds("total_timeout", total_timeout)
    if provider == "local":
        wire = {"api_key": api_key, "base_url": base_url, "session": session, "proxy": proxy, "ssl": ssl, "exchange": exchange}
        own = _local(name, options, limits, observe, parameters, [each for each, value in wire.items() if value is not None])
        return _wrapped(own, long_text, coalesce, total_timeout)
    if _several(base_url) or _several(api_key):
        return _wrapped(_pooled(given), long_text, coalesce, total_timeout)
    place, key = cast("str | None", base_url), cast("Credential | None", api_key)
    host = find(provider)
    _known(provider, parameters, {each: one.help for each, one in host.parameters.items()})
    url, ours, named = address(host, place)
    parameters = _agreed(host, name, named, parameters)
    settled = {each: _parameter(host, each, parameters.get(each)) for each in host.parameters}
    url, user = without_user(url)
    target = Target(host, name, url, catalog.facts(host.catalogue or host.name, host.known_as(name)), _public(host, settled))
    target = Target(host, name, host.locate(url, target), target.facts, target.parameters)
    if user and key is not None:
        msg = "base_url holds a user and api_key is given: both would be the Authorization header; leave one out"
        raise ConfigError(msg)
    sources, unsent = _credentials(host, target.base_url, key, settled, explicit=place is not None, ours=ours)
    http = HttpSettings(
        timeout=seconds("timeout", timeout if timeout is not None else host.timeout),
        connect=seconds("connect_timeout", connect_timeout),
        read=None if read_timeout is None else seconds("read_timeout", read_timeout),
        proxy=_proxy(proxy), ssl=_verification(ssl), cap=_whole("max_response_bytes", max_response_bytes),
        session=_session(session), down=host.down,
    )  # fmt: skip
    embedder = HttpEmbedder(
        host.dialect(target, **host.quirks), target, options=options, sources=sources, http=http, limits=limits,
        headers={**user, **(fixed(headers) if isinstance(headers, Mapping) else {})},
        ask_headers=None if isinstance(headers, Mapping) else headers, max_concurrency=max_concurrency, rate=rate, retry=retry or RetryPolicy(),
        observe=observe, count_tokens=count_tokens, exchange=exchange, unsent=unsent, hedge=_share(hedge),
    )  # fmt: skip
    return _wrapped(embedder, long_text, coalesce, total_timeout)


def _several(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))


def _pooled(given: dict[str, Any]) -> Embedder:
    """An embedder over every endpoint and key given: one to one, or all of one kind with the one of the other."""
    from .._embedders.pool import Pool

    places, keys = ([*given[name]] if _several(given[name]) else [given[name]] for name in ("base_url", "api_key"))
    for name in ("base_url", "api_key"):
        if _several(given[name]) and any(each is None for each in given[name]):
            msg = f"{name} holds None beside others; each entry of a pool is given"
            raise ConfigError(msg)
    if not places or not keys or (len(places) > 1 and len(keys) > 1 and len(places) != len(keys)):
        msg = f"base_url has {len(places)} and api_key {len(keys)} entries: pass equally many, or one for all"
        raise ConfigError(msg)
    most = max(len(places), len(keys))
    retry = given["retry"] or RetryPolicy()
    single = {**given, "retry": msgspec.structs.replace(retry, attempts=1), "long_text": None, "coalesce": False}
    members = [
        connect(**{**single, "base_url": place, "api_key": key})
        for place, key in zip(places * (most // len(places)), keys * (most // len(keys)), strict=True)
    ]
    return Pool(cast("list[HttpEmbedder]", members), retry=retry)


def _wrapped(
    embedder: Embedder, long_text: Literal["mean"] | None, coalesce: bool | float, total_timeout: float | None
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
        if not isinstance(coalesce, (bool, int, float)) or not 0 <= coalesce < math.inf:
            msg = f"coalesce={coalesce!r}: True, False, or the longest wait in seconds"
            raise ConfigError(msg)
        from .._embedders.coalescing import Coalesced

        embedder = Coalesced(embedder, 0.0 if coalesce is True else float(coalesce))
    return embedder


def _share(hedge: bool | float) -> float:
    share = 0.05 if hedge is True else hedge
    if not isinstance(share, (int, float)) or not 0 <= share <= 1:
        msg = f"hedge={hedge!r}: True, False, or a share of all requests, like 0.05"
        raise ConfigError(msg)
    return float(share)


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
        msg = f"the local model runs in this process; {' and '.join(meaningless)} mean{'s' if len(meaningless) == 1 else ''} nothing to it"
        raise ConfigError(msg)
    _known("local", parameters, dict.fromkeys(LocalEmbedder.__init__.__kwdefaults__ or (), ""))
    embedder = LocalEmbedder(name or LOCAL.partition(":")[2], **parameters)
    embedder.options = options
    embedder.limits = limits or embedder.limits
    embedder.observe = observe
    return embedder


def split(model: str | None) -> tuple[str, str]:
    """(provider, model) of "provider:model"; of None, what EMBEDKIT_MODEL says, else the local model."""
    said = "model" if model is not None else "EMBEDKIT_MODEL"
    model = model if model is not None else os.environ.get("EMBEDKIT_MODEL", "").strip() or LOCAL
    if not isinstance(model, str):
        msg = f"model is {type(model).__name__}; it is a string like 'openai:text-embedding-3-small'"
        raise TypeError(msg)
    provider, colon, name = model.partition(":")
    provider, name = provider.strip().lower(), name.strip()
    if provider == "local":
        return provider, name
    if not colon or not provider or not name:
        known = [f"{each}:{model}" for each, models in catalog.MODELS.items() if any(one.name == model for one in models)]
        near = (
            f"; did you mean {' or '.join(map(repr, known))}?"
            if known
            else ", like 'openai:text-embedding-3-small' or 'ollama:mistral'"
        )
        msg = f"{said}={model!r} has no {'model' if colon and provider else 'provider'}: the form is 'provider:model'{near}"
        raise ConfigError(msg)
    if not name.isprintable():
        msg = f"{said}={model!r} holds a character that no model's name has"
        raise ConfigError(msg)
    return provider, name


# --- keywords --------------------------------------------------------------------------------------------------------


def _of_kind(**given: object) -> None:
    for name, value in given.items():
        kind, wanted = _KINDS[name]
        if iscoroutinefunction(value) and name in ("observe", "count_tokens"):
            msg = f"{name} is a coroutine function; it is called, not awaited: pass a plain one"
            raise ConfigError(msg)
        if value is not None and not isinstance(value, kind):
            msg = f"{name} is {type(value).__name__}; it takes {wanted}"
            raise ConfigError(msg)


def _known(provider: str, given: Mapping[str, Any], takes: Mapping[str, str]) -> None:
    unknown = sorted(set(given) - set(takes))
    if unknown:
        from difflib import get_close_matches

        own = ", ".join(each + (f" ({what})" if what else "") for each, what in takes.items()) or "none of its own"
        near = [each for name in unknown for each in get_close_matches(name, [*(connect.__kwdefaults__ or {}), *takes], n=1)]
        hint = f"; did you mean {' or '.join(near)}?" if near else ";"
        msg = f"connect() got an unexpected keyword {', '.join(unknown)}{hint} parameters of {provider}: {own}"
        raise TypeError(msg)


def _whole(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        msg = f"{name}={value!r}: a whole number of at least 1"
        raise ConfigError(msg)
    return value


def _proxy(proxy: str | None) -> str | None:
    if proxy is not None and parts(proxy) is None:
        msg = f"proxy={shown(proxy)}: an http or https URL with a host, like http://proxy.example:3128"
        raise ConfigError(msg)
    return proxy


def _verification(ssl: Any) -> Any:
    import ssl as tls

    if ssl is not None and not isinstance(ssl, (bool, str, os.PathLike, tls.SSLContext)):
        msg = f"ssl is {type(ssl).__name__}; it takes an ssl.SSLContext, the path of a CA bundle, or False to verify nothing"
        raise ConfigError(msg)
    return ssl


def _session(session: Any) -> Any:
    client = sys.modules.get("aiohttp")  # whoever has a session has imported it
    if session is not None and (client is None or not isinstance(session, client.ClientSession)):
        msg = f"session is {type(session).__module__}.{type(session).__qualname__}; it takes an aiohttp.ClientSession"
        raise ConfigError(msg)
    return session


def _parameter(host: Host, name: str, given: Any) -> Any:
    declared = host.parameters[name]
    value = given if given is not None else next(filter(None, map(Variable, declared.variables)), None)
    if value is not None:
        if declared.choices and value not in declared.choices:
            msg = f"{value.name if isinstance(value, Variable) else name}={value!r}: it is one of {', '.join(map(repr, declared.choices))}"
            raise ConfigError(msg)
        text = isinstance(value, str)
        if (text and not value) or (declared.secret and not text and not callable(value)):
            msg = f"{name} is {'empty' if text else type(value).__name__}; pass a value ({declared.help}), or leave it out"
            raise ConfigError(msg)
        if not declared.secret and not isinstance(value, Variable):
            try:
                to_json(value)
            except (TypeError, ValueError, OverflowError) as error:
                msg = f"{name} cannot be written into a request: {error} ({declared.help})"
                raise ConfigError(msg) from None
        return value
    if declared.required:
        where = f" or set {' or '.join(declared.variables)}" if declared.variables else ""
        msg = f"{host.name} needs {name} ({declared.help}): pass {name}={where}"
        raise ConfigError(msg)
    return None


def _agreed(host: Host, model: str, named: Mapping[str, str], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters, with those that the URL names. Model and parameters have to be what it says."""
    for each, value in named.items():
        given = model if each == "model" else parameters.get(each)
        if (
            each in ("model", *host.parameters)
            and given is not None
            and given != value
            and not f"{given}".endswith(f"/{value}")
        ):
            msg = (
                f"the URL names {each} {value!r}, and {given!r} is given: make them the same, or leave the route out of the URL"
            )
            raise ConfigError(msg)
    return {**{each: value for each, value in named.items() if each in host.parameters}, **parameters}


def _public(host: Host, settled: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Variable) else value
            for name, value in settled.items() if value is not None and not host.parameters[name].secret}  # fmt: skip


# --- as whom ---------------------------------------------------------------------------------------------------------


def _credentials(
    host: Host, url: str, api_key: Credential | None, settled: Mapping[str, Any], *, explicit: bool, ours: bool
) -> tuple[dict[str, Any], str]:
    """What to authorise with, and what to say on a 401 about a key that was held back."""
    scheme, name = urlsplit(url).scheme, urlsplit(url).hostname or ""
    home = scheme == "https" and belongs(name, host.domains)
    trusted = ours or home or _loopback(name)
    secrets = {each: settled[each] for each, one in host.parameters.items() if one.secret and settled[each] is not None}
    stand_ins = {each: value for each, value in secrets.items() if host.parameters[each].key}
    by_hand = {each for each, value in stand_ins.items() if not isinstance(value, Variable)}
    sources = {each: value for each, value in secrets.items() if trusted or not isinstance(value, Variable)}
    if api_key is not None and by_hand:
        msg = f"{host.name} takes api_key or {' and '.join(sorted(by_hand))}, not both"
        raise ConfigError(msg)
    if api_key is not None or by_hand:  # credentials given by hand are not mixed with the environment's
        sources = {each: value for each, value in sources.items() if each in by_hand or each not in stand_ins}
        return _fit(sources if api_key is None else {**sources, "api_key": api_key}), ""
    found: Variable | KeyFile | None = next(filter(None, map(Variable, host.keys)), None)
    if found is None and host.key_file is not None:
        found = KeyFile(host.key_file(os.environ)) or None
    if found is not None and trusted:
        return _fit({**sources, "api_key": found}), ""
    if host.key_required and not explicit and not stand_ins:
        raise ConfigError(_keyless(host))
    held = next((value for value in (found, *stand_ins.values()) if value is not None), None)
    sources = _fit(sources)
    if held is None or trusted:
        return sources, ""
    why = f"because {scheme}://{name} is not one of {host.name}'s own hosts: pass api_key= to send it there"
    return sources, f"the key in {held.name} was not sent, {why}"


def _keyless(host: Host) -> str:
    variables = f"set {' or '.join(host.keys)}, or " if host.keys else ""
    others = {name: one.variables for name, one in host.parameters.items() if one.key}
    instead = f"; {' and '.join(others)} ({' and '.join(sum(others.values(), ()))}) stand in for it" if others else ""
    return f"{host.name} needs a key: {variables}pass api_key={instead}"


def _loopback(name: str) -> bool:
    return name in LOOPBACK or re.fullmatch(r"127\.\d+\.\d+\.\d+", name) is not None


def _fit(sources: Mapping[str, Any]) -> dict[str, Any]:
    """The credentials, if each is one."""
    return {
        name: _key(value, value.name if isinstance(value, (Variable, KeyFile)) else name) for name, value in sources.items()
    }


def _key(key: Any, name: str) -> Any:
    """The key, if it is one: a callable, or a string that a header can carry. Its value never shows."""
    if callable(key):
        return key
    if not isinstance(key, str) or not key.strip():
        what = "empty" if isinstance(key, str) else type(key).__name__
        msg = f"{name} is {what}; pass a non-empty string or a callable, or leave it out"
        raise ConfigError(msg)
    if wrong := flaw(key):
        msg = f"the key in {name} {wrong}"
        raise ConfigError(msg)
    return key if isinstance(key, (Variable, KeyFile)) else key.strip()
