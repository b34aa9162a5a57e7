"""The caller's own headers: a mapping is checked once, what a callable returns at every attempt.

What a callable returns may be a key put in the wrong place. So an error says what is wrong with it and never shows it,
nor does a frame that a traceback holds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Mapping
from inspect import isawaitable
from typing import Any

from ..codec import is_header_safe
from ..errors import ConfigError, TransportTimeoutError

Headers = Mapping[str, str] | Callable[[], Mapping[str, str] | Awaitable[Mapping[str, str]]]
FRAMING = ("content-length", "transfer-encoding")
FRAMED = "says where the body ends, which is settled when it is sent: leave it out"
NAME = re.compile(r"[!#$%&'*+.^_`|~\w-]+", re.ASCII)  # RFC 9110, 5.6.2: a token


def fixed(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers given as a mapping, as they are sent; ConfigError names the one that cannot be."""
    for name, value in headers.items():
        if not _named(name):
            msg = f"headers: {name!r} is no header's name"
            raise ConfigError(msg)
        if name.lower() in FRAMING:
            msg = f"headers: {name!r} {FRAMED}"
            raise ConfigError(msg)
        if wrong := _wrong(value):
            msg = f"headers: the value of {name!r} {wrong}"
            raise ConfigError(msg)
    return _sent(headers)


async def asked(what: str, source: Callable[[], Any], seconds: float = math.inf) -> Any:
    """What a callable of the caller's gives, within so many seconds if it is awaitable. What it raises comes out.

    Raises:
        TransportTimeoutError: it gave nothing in time.
    """
    found = source()
    if not isawaitable(found) or seconds == math.inf:
        return await found if isawaitable(found) else found
    import anyio

    with anyio.move_on_after(seconds):
        return await found
    msg = f"{what} gave nothing within timeout={seconds:g} s"
    error = TransportTimeoutError(msg)
    error.sent = False
    raise error


async def asked_headers(
    source: Callable[[], Mapping[str, str] | Awaitable[Mapping[str, str]]], seconds: float = math.inf
) -> dict[str, str]:
    """The headers that a callable gives for one attempt; ConfigError says what is wrong with what it returned."""
    found: Any = await asked("the callable given as headers", source, seconds)
    wrong = _wrong_with(found)
    if not wrong:
        return _sent(found)
    del found  # it may be a key, and a traceback can show what a frame holds
    msg = f"the callable given as headers returned {wrong}"
    raise ConfigError(msg)


def _wrong_with(found: object) -> str:
    if not isinstance(found, Mapping):
        return f"{type(found).__name__}; it must return a mapping of header names to values"
    for number, (name, value) in enumerate(found.items(), 1):
        if not _named(name):
            return f"a mapping whose name number {number} ({type(name).__name__}) is no header's name"
        if name.lower() in FRAMING:
            return f"a mapping whose name number {number} {FRAMED}"
        if wrong := _wrong(value):
            return f"a mapping whose value number {number} {wrong}"
    return ""


def _named(name: object) -> bool:
    return isinstance(name, str) and NAME.fullmatch(name) is not None


def _wrong(value: object) -> str:
    if not isinstance(value, str):
        return f"is {type(value).__name__}, not str"
    return "" if is_header_safe(value) else "holds a character that no header can carry"


def _sent(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value.strip() for name, value in headers.items()}


__all__ = ["Headers", "asked", "asked_headers", "fixed"]
