"""From "provider:model" to an embedder: find the host, settle where it lives and as whom we come, and refuse what cannot work.

Nothing is sent here. Every rule about keys is in `_credentials`: a key from the environment goes only where it belongs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import urlsplit

import msgspec

from . import catalog
from ._client import HttpEmbedder, KeyFile, Variable
from ._http import LOOPBACK, HttpSettings
from ._retry import RetryPolicy
from ._sift import checked
from ._types import DType, InputType, Limits, Options, Truncate
from .codec import Host, Target, belongs
from .errors import ConfigError
from .providers import find

if TYPE_CHECKING:
    import ssl as tls
    from collections.abc import Awaitable, Callable, Mapping

    import aiohttp

    from ._embedder import Embedder
    from ._events import Event
    from ._pace import Rate
    from ._transport import Exchange

    Credential = str | Callable[[], str | Awaitable[str]]


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
    connect_timeout: float = 10.0,
    read_timeout: float | None = None,
    max_response_bytes: int = 256 * 1024 * 1024,
    session: aiohttp.ClientSession | None = None,
    proxy: str | None = None,
    ssl: tls.SSLContext | str | bool | None = None,
    headers: Mapping[str, str] | None = None,
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
        base_url: what the provider's docs call it; without a path its usual version segment is added. A sequence of them: endpoints
            of one and the same model, which share the work by their speed; one that fails is left out until it answers again.
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
        retry: how often and how patiently.
        timeout: seconds for one attempt, retries not included.
        connect_timeout: seconds for one TCP and TLS handshake.
        read_timeout: seconds between two pieces of a response.
        max_response_bytes: most bytes of a response, after decompression.
        session: your own `aiohttp.ClientSession`, not closed here.
        proxy: URL; else HTTPS_PROXY, HTTP_PROXY and NO_PROXY. Loopback is never proxied, netrc never read.
        ssl: an SSLContext, the path of a CA bundle, or False to verify nothing.
        headers: sent with every request.
        count_tokens: tokens of a text, for planning (`embedkit.tokens` has ready ones); None: estimated from its length.
        long_text: "mean" cuts texts that are too long for the model into pieces, and averages their vectors by tokens, made unit length.
        coalesce: True lets concurrent small calls share requests: those that come while the connections are busy travel together.
            A number: also wait up to so many seconds for company.
        hedge: True sends a request that is late beyond 95 % of the others a second time, for at most 5 % of them, and takes the
            first answer. A number: that share instead of 0.05.
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
            input_type=input_type, dimensions=dimensions, dtype=dtype or "float32", truncate=truncate,
            normalize=normalize, extra=dict(extra or {}),
        )
    )  # fmt: skip
    if max_concurrency is not None and (
        isinstance(max_concurrency, bool) or not isinstance(max_concurrency, int) or max_concurrency < 1
    ):
        msg = f"max_concurrency={max_concurrency!r}: a whole number of at least 1"
        raise ConfigError(msg)
    if provider == "local":
        wire = {"api_key": api_key, "base_url": base_url, "session": session, "proxy": proxy, "ssl": ssl, "exchange": exchange}
        own = _local(name, options, limits, observe, parameters, [each for each, value in wire.items() if value is not None])
        return _wrapped(own, long_text, coalesce)
    if _several(base_url) or _several(api_key):
        return _wrapped(_pooled(given), long_text, coalesce)
    place, key = cast("str | None", base_url), cast("Credential | None", api_key)
    host = find(provider)
    unknown = sorted(set(parameters) - set(host.parameters))
    if unknown:
        takes = ", ".join(f"{each} ({host.parameters[each].help})" for each in host.parameters) or "none of its own"
        msg = f"connect() got an unexpected keyword {', '.join(unknown)}; parameters of {provider}: {takes}"
        raise TypeError(msg)
    settled = {each: _parameter(host, each, parameters.get(each)) for each in host.parameters}
    url, ours = _address(host, place)
    target = Target(host, name, url, catalog.facts(host.catalogue or host.name, host.known_as(name)), _public(host, settled))
    target = Target(host, name, host.locate(url, target), target.facts, target.parameters)
    sources, unsent = _credentials(host, target.base_url, key, settled, explicit=base_url is not None, ours=ours)
    http = HttpSettings(
        timeout=_seconds("timeout", timeout if timeout is not None else host.timeout),
        connect=_seconds("connect_timeout", connect_timeout),
        read=None if read_timeout is None else _seconds("read_timeout", read_timeout),
        proxy=proxy, ssl=ssl, cap=max_response_bytes, session=session, down=host.down,
    )  # fmt: skip
    embedder = HttpEmbedder(
        host.dialect(target, **host.quirks), target, options=options, sources=sources,
        headers={key.lower(): value for key, value in (headers or {}).items()}, http=http, limits=limits,
        max_concurrency=max_concurrency, rate=rate, retry=retry or RetryPolicy(), observe=observe,
        count_tokens=count_tokens, exchange=exchange, unsent=unsent, hedge=_share(hedge),
    )  # fmt: skip
    return _wrapped(embedder, long_text, coalesce)


def _several(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _pooled(given: dict[str, Any]) -> Embedder:
    """An embedder over every endpoint and key given: one to one, or all of one kind with the one of the other."""
    from ._pool import Pool

    places, keys = ([*given[name]] if _several(given[name]) else [given[name]] for name in ("base_url", "api_key"))
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


def _wrapped(embedder: Embedder, long_text: str | None, coalesce: bool | float) -> Embedder:
    if long_text is not None:
        if long_text != "mean":
            msg = f"long_text={long_text!r}: it is 'mean' or None; to cut long texts off pass truncate='end'"
            raise ConfigError(msg)
        from ._long import LongTexts

        embedder = LongTexts(embedder)
    if coalesce is not False:
        if not isinstance(coalesce, (bool, int, float)) or not 0 <= coalesce < math.inf:
            msg = f"coalesce={coalesce!r}: True, False, or the longest wait in seconds"
            raise ConfigError(msg)
        from ._coalesce import Coalesced

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
    from .local import LocalEmbedder

    if meaningless:
        msg = f"the local model runs in this process; {' and '.join(meaningless)} mean{'s' if len(meaningless) == 1 else ''} nothing to it"
        raise ConfigError(msg)
    embedder = LocalEmbedder(name or "all-minilm-l6-v2", **parameters)
    embedder.options = options
    embedder.limits = limits or embedder.limits
    embedder.observe = observe
    return embedder


def split(model: str | None) -> tuple[str, str]:
    """(provider, model) of "provider:model"; of None, what EMBEDKIT_MODEL says, else the local model."""
    model = model if model is not None else os.environ.get("EMBEDKIT_MODEL") or "local:all-minilm-l6-v2"
    if not isinstance(model, str):
        msg = f"model is {type(model).__name__}; it is a string like 'openai:text-embedding-3-small'"
        raise TypeError(msg)
    provider, colon, name = model.partition(":")
    provider = provider.strip().lower()
    if provider == "local":
        return provider, name
    if not colon or not provider or not name:
        msg = f"model={model!r} has no provider: the form is 'provider:model', like 'openai:text-embedding-3-small' or 'ollama:mistral'"
        raise ConfigError(msg)
    return provider, name


def _seconds(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        msg = f"{name}={value!r}: a positive number of seconds"
        raise ConfigError(msg)
    return float(value)


def _parameter(host: Host, name: str, given: Any) -> Any:
    declared = host.parameters[name]
    if given is not None:
        if declared.choices and given not in declared.choices:
            msg = f"{name}={given!r}: it is one of {', '.join(map(repr, declared.choices))}"
            raise ConfigError(msg)
        return given
    for variable in declared.variables:
        if os.environ.get(variable):
            return Variable(variable)
    if declared.required:
        where = f" or set {' or '.join(declared.variables)}" if declared.variables else ""
        msg = f"{host.name} needs {name} ({declared.help}): pass {name}={where}"
        raise ConfigError(msg)
    return None


def _public(host: Host, settled: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Variable) else value
            for name, value in settled.items() if value is not None and not host.parameters[name].secret}  # fmt: skip


def _address(host: Host, base_url: str | None) -> tuple[str, bool]:
    """The base URL, and whether it is the provider's own or came from its own variable (then an environment key may go there)."""
    if base_url is not None:
        return _based(base_url, host), False
    for variable in host.url_variables:
        if value := os.environ.get(variable):
            return (host.read_url(value) if host.read_url is not str else _based(value, host)), True
    if host.base_url is None:
        where = f" or set {' or '.join(host.url_variables)}" if host.url_variables else ""
        msg = f"{host.name} has no address of its own: pass base_url={where}"
        raise ConfigError(msg)
    return host.base_url, True


def _based(base_url: str, host: Host) -> str:
    parts = urlsplit(base_url) if isinstance(base_url, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        msg = f"base_url={base_url!r}: an http or https URL with a host, like {host.base_url or 'http://localhost:8080'}"
        raise ConfigError(msg)
    if parts.path.strip("/"):
        return base_url.rstrip("/")
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}{host.segment}{query}"


def _credentials(
    host: Host, url: str, api_key: Credential | None, settled: Mapping[str, Any], *, explicit: bool, ours: bool
) -> tuple[dict[str, Any], str]:
    """What to authorise with, and what to say on a 401 about a key that was held back."""
    sources = {name: settled[name] for name, one in host.parameters.items() if one.secret and settled[name] is not None}
    stand_ins = {name: value for name, value in sources.items() if host.parameters[name].key}
    by_hand = {name for name, value in stand_ins.items() if not isinstance(value, Variable)}
    if api_key is not None:
        if not callable(api_key) and not (isinstance(api_key, str) and api_key):
            msg = f"api_key is {'empty' if api_key == '' else type(api_key).__name__}; pass a non-empty string or a callable, or leave it out"
            raise ConfigError(msg)
        if by_hand:
            msg = f"{host.name} takes api_key or {' and '.join(sorted(by_hand))}, not both"
            raise ConfigError(msg)
        by_hand = {"api_key"}
    if by_hand:  # credentials belong together: those given by hand are not mixed with the environment's
        sources = {each: value for each, value in sources.items() if each in by_hand or each not in stand_ins}
        return sources if api_key is None else {**sources, "api_key": api_key}, ""
    found: Variable | KeyFile | None = next((Variable(name) for name in host.keys if os.environ.get(name)), None)
    if found is None and host.key_file is not None:
        found = KeyFile(host.key_file(os.environ)) or None
    name = urlsplit(url).hostname or ""
    trusted = ours or name in LOOPBACK or belongs(name, host.domains)
    if found is not None and trusted:
        return {**sources, "api_key": found}, ""
    held = found or next(iter(stand_ins.values()), None)
    if not trusted:
        sources = {each: value for each, value in sources.items() if not isinstance(value, Variable)}
    unsent = ""
    if held is not None and not trusted:
        unsent = f"the key in {held.name} was not sent, because {name} is not one of {host.name}'s own hosts: pass api_key= to send it there"
    if host.key_required and not explicit and not stand_ins:
        raise ConfigError(_keyless(host))
    return sources, unsent


def _keyless(host: Host) -> str:
    variables = f"set {' or '.join(host.keys)}, or " if host.keys else ""
    others = {name: one.variables for name, one in host.parameters.items() if one.key}
    instead = f"; {' and '.join(others)} ({' and '.join(sum(others.values(), ()))}) stand in for it" if others else ""
    return f"{host.name} needs a key: {variables}pass api_key={instead}"
