"""Checks the keywords of `connect`: each has the right type, is known to the host, and can be sent."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from inspect import iscoroutinefunction, isroutine
from numbers import Real
from typing import Any, Self

from .._http.credentials import Variable
from .._peers import clause, unexpected
from .._traffic.rate import Rate
from .._traffic.retry import RetryPolicy
from .._types import Limits
from .._values import is_whole
from .._values import shown as brief
from ..cache.base import Cache
from ..codec import Host, to_json
from ..errors import ConfigError
from ..providers import hosts
from .base_url import parts, shown

_KINDS: dict[str, tuple[Any, str]] = {
    "limits": (Limits, "embedkit.Limits(max_texts=…)"),
    "rate": (Rate, "embedkit.Rate(requests_per_minute=…)"),
    "retry": (RetryPolicy, "embedkit.RetryPolicy(attempts=…)"),
    "headers": ((Mapping, Callable), "a mapping of header names to values, or a callable that returns one"),
    "count_tokens": (Callable, "a callable: text → number of tokens"),
    "observe": (Callable, "a callable that is given each event"),
    "exchange": (Callable, "a callable: request → response, like embedkit.testing.FakeExchange"),
}


def _share(hedge: bool | float) -> float:
    share = 0.05 if hedge is True else hedge
    if not isinstance(share, (int, float)) or not 0 <= share <= 1:
        msg = f"hedge={brief(hedge)}: True, False, or a share of all requests, like 0.05"
        raise ConfigError(msg)
    return float(share)


def _cache(given: Any) -> Cache:
    if isinstance(given, Cache):
        return given
    if isinstance(given, (str, os.PathLike)):
        from .. import cache as caches

        if "://" not in (path := os.fspath(given)):
            return caches.SQLiteCache(path)
        return caches.RedisCache(path)
    msg = f"cache is {type(given).__name__}; it takes the path of a file, a redis:// URL, or an embedkit.cache.Cache"
    raise ConfigError(msg)


def _of_kind(**given: object) -> None:
    for name, value in given.items():
        kind, wanted = _KINDS[name]
        called = value if isroutine(value) else getattr(value, "__call__", None)  # noqa: B004 (of an object: its method)
        if name in ("observe", "count_tokens") and (iscoroutinefunction(value) or iscoroutinefunction(called)):
            msg = f"{name} is a coroutine function; it is called, not awaited: pass a plain one"
            raise ConfigError(msg)
        if value is not None and not isinstance(value, kind):
            msg = f"{name} is {type(value).__name__}; it takes {wanted}"
            raise ConfigError(msg)


class _Counted:
    """The caller's `count_tokens`, whose results are looked at: tokens themselves are easily taken for their number."""

    __slots__ = ("_count",)

    def __init__(self, count: Callable[[str], object]) -> None:
        self._count = count

    @classmethod
    def of(cls, count: Callable[[str], object]) -> Self:
        """It, as it is where it comes from an embedder that was copied."""
        return count if isinstance(count, cls) else cls(count)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Counted) and self._count == other._count

    def __hash__(self) -> int:
        return hash(self._count)

    def __call__(self, text: str) -> int:
        found = self._count(text)
        if type(found) is int and found >= 0:
            return found
        if isinstance(found, Real) and 0 <= found < math.inf:  # type: ignore[operator]
            return found if isinstance(found, int) else math.ceil(float(found))
        hint = "; return how many they are: lambda text: len(encode(text))" if hasattr(found, "__len__") else ""
        msg = f"count_tokens returned {type(found).__name__}, and not a number of tokens{hint}"
        if isinstance(found, Real):
            msg = f"count_tokens returned {brief(found)}: a number of tokens is finite, and not negative"
        raise ConfigError(msg)


def _known(provider: str, given: Mapping[str, Any], takes: Mapping[str, str], keywords: Iterable[str]) -> None:
    unknown = sorted(set(given) - set(takes))
    if unknown:
        said = unexpected("connect", unknown, [*keywords, *takes])
        if any(clause(word, "connect", ()) for word in unknown):
            raise TypeError(said)
        own = ", ".join(each + (f" ({what})" if what else "") for each, what in takes.items()) or "none of its own"
        elsewhere = [host.name for host in hosts() if set(unknown) <= set(host.parameters)]
        others = f"; of {', '.join(elsewhere)}: {', '.join(unknown)}" if elsewhere else ""
        msg = f"{said}{'' if said.endswith('?') else ';'} parameters of {provider}: {own}{others}"
        raise TypeError(msg)


def _whole(name: str, value: int) -> int:
    if not is_whole(value):
        msg = f"{name}={brief(value)}: a whole number of at least 1"
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
        takes = "an ssl.SSLContext, the path of a CA bundle, or False to verify nothing"
        msg = f"ssl is {type(ssl).__name__}; it takes {takes}"
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
            said = value.name if isinstance(value, Variable) else name
            msg = f"{said}={brief(value)}: it is one of {', '.join(map(repr, declared.choices))}"
            raise ConfigError(msg)
        text = isinstance(value, str)
        if (text and not value) or (declared.secret and not text and not callable(value)):
            what = "empty" if text else type(value).__name__
            msg = f"{name} is {what}; pass a value ({declared.help}), or leave it out"
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
    """The parameters, with those that the URL names. ConfigError where the URL and the arguments disagree."""
    for each, value in named.items():
        given = model if each == "model" else parameters.get(each)
        if (
            each in ("model", *host.parameters)
            and given is not None
            and given != value
            and not f"{given}".endswith(f"/{value}")
        ):
            cure = "make them the same, or leave the route out of the URL"
            msg = f"the URL names {each} {value!r}, and {given!r} is given: {cure}"
            raise ConfigError(msg)
    return {**{each: value for each, value in named.items() if each in host.parameters}, **parameters}


def _public(host: Host, settled: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Variable) else value
            for name, value in settled.items() if value is not None and not host.parameters[name].secret}  # fmt: skip
