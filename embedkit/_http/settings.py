"""How to connect: timeouts, TLS, a proxy, a session of the caller's own."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import msgspec

from .redaction import secrets_in

if TYPE_CHECKING:
    from collections.abc import Iterator


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to connect. Travels with a pickled embedder; sockets do not.

    Attributes:
        timeout: seconds for one attempt, from the first connect to the last byte.
        connect: seconds for one TCP and TLS handshake.
        read: seconds between two pieces of a response; None: only `timeout` counts.
        proxy: URL of a proxy, before any from the environment.
        ssl: an `ssl.SSLContext`, the path of a CA bundle, or False to verify nothing.
        cap: most bytes of a response, after decompression.
        session: the caller's own `aiohttp.ClientSession`; never closed here.
        unreachable_hint: what to add when nothing listens.
    """

    timeout: float = 120.0
    connect: float = 10.0
    read: float | None = None
    proxy: str | None = None
    ssl: Any = None
    cap: int = 256 * 1024 * 1024
    session: Any = None
    unreachable_hint: str = ""

    def secrets(self) -> Iterator[str]:
        """What is secret in the caller's own session, and in the proxies that may be asked."""
        if self.session is not None:
            yield from secrets_in(self.session.headers)
        proxies = [value for name, value in os.environ.items() if name.lower().endswith("_proxy") and "@" in value]
        for proxy in (self.proxy or "", *proxies):
            with contextlib.suppress(ValueError):
                yield from secrets_in({}, proxy if "://" in proxy else f"//{proxy}")

    def __repr__(self) -> str:
        return (
            f"HttpSettings(timeout={self.timeout:g}, connect={self.connect:g}, proxy={'set' if self.proxy else None})"
        )
