"""The exchange over aiohttp: one request out, one response back. The only file that imports aiohttp, and only when it opens a session.

A session belongs to one event loop in one process; whoever holds an `AiohttpExchange` makes a new one for another loop. Redirects
are not followed, cookies not kept, netrc not read, and a response is cut off at `cap` bytes, counted after decompression.
"""

from __future__ import annotations

import contextlib
import os
import ssl as tls
import sys
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from ._types import Request, Response
from .errors import ConfigError, DecodeError, EmbedkitError, TransportError, TransportTimeoutError

if TYPE_CHECKING:
    import aiohttp

AGENT = "embedkit"
HEAD_START = 0.005  # seconds after which the first request is usually on its way, and the processor has nothing to do
LOOPBACK = ("localhost", "127.0.0.1", "::1", "0.0.0.0")  # noqa: S104 (recognised, never bound)
# Held, so that the garbage collector meets an embedder nobody closed before it meets its session, of which aiohttp would warn.
_open: set[Any] = set()
_orphans: list[Any] = []  # sessions of a parent process: closing them would speak on the parent's sockets


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
        down: what to add when nothing listens.
    """

    timeout: float = 120.0
    connect: float = 10.0
    read: float | None = None
    proxy: str | None = None
    ssl: Any = None
    cap: int = 256 * 1024 * 1024
    session: Any = None
    down: str = ""

    def __repr__(self) -> str:
        return f"HttpSettings(timeout={self.timeout:g}, connect={self.connect:g}, proxy={'set' if self.proxy else None})"


class AiohttpExchange:
    """Sends over a pooled session, opened by the first request."""

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = settings.session
        self._options: dict[str, Any] = {}
        self._urls: dict[str, Any] = {}
        self._pid = os.getpid()

    async def __call__(self, request: Request) -> Response:
        """Send, read to the end.

        Raises:
            TransportError: no complete response arrived; TransportTimeoutError when it took too long.
            DecodeError: the response exceeds the cap.
            ConfigError: the URL or the proxy is none.
        """
        session = self._session
        if session is None or session.closed:
            session = self._open()
        try:
            url, proxy = self._urls.get(request.url) or self._address(request.url)
            reply = await session.request(
                request.method, url, data=request.body or None, headers=request.headers, proxy=proxy,
                allow_redirects=False, **self._options,
            )  # fmt: skip
            try:
                return Response(reply.status, reply.headers, await _read(reply, self._settings.cap))
            except BaseException:
                reply.close()  # a body half read; one read to its end has given its connection back already
                raise
        except EmbedkitError:
            raise
        except (OSError, ValueError) as error:  # TimeoutError is an OSError, aiohttp's InvalidURL a ValueError
            # The cause is named, not chained: aiohttp's errors carry the proxy's password.
            raise _translated(error, request.url, self._settings) from None
        except Exception as error:
            if type(error).__module__.partition(".")[0] != "aiohttp":
                raise
            raise _translated(error, request.url, self._settings) from None

    def _open(self) -> aiohttp.ClientSession:
        settings = self._settings
        if settings.session is not None:
            msg = "the session passed to connect() is closed"
            raise ConfigError(msg)
        import asyncio

        import aiohttp

        asyncio.get_running_loop().call_later(HEAD_START, _warm_numpy)
        connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, ssl=_verification(settings.ssl))
        self._session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=_timeout(settings),
            headers={"user-agent": AGENT},
        )  # fmt: skip
        _open.add(self._session)
        return self._session

    def _address(self, url: str) -> tuple[Any, str | None]:
        """The parsed URL and the proxy for it, remembered: an embedder speaks to one or two URLs."""
        from yarl import URL

        settings = self._settings
        if settings.session is not None and not self._options:
            self._options = {"raise_for_status": False, "timeout": _timeout(settings), "ssl": _verification(settings.ssl)}
        found = (URL(url, encoded=True), _proxy(url, settings))
        self._urls[url] = found
        return found

    async def aclose(self) -> None:
        """Close the session, unless it is the caller's."""
        session, self._session = self._session, self._settings.session
        _open.discard(session)
        if session is not None and session is not self._settings.session:
            await session.close()

    def abandon(self, *, forked: bool = False) -> None:
        """Let go of the session of a loop that is gone, without awaiting: no socket stays open, nothing warns.

        After a fork nothing is closed, since the sockets are the parent's too.
        """
        session, self._session = self._session, None
        _open.discard(session)
        if session is None or session is self._settings.session:
            return
        connector = session.connector
        session.detach()
        if connector is None:
            return
        pooled = [handler.transport for handlers in connector._conns.values() for handler, *_ in handlers]  # noqa: SLF001 (no public way)
        if forked:
            connector._conns.clear()  # noqa: SLF001 (else it warns, when the child ends, of what is the parent's to close)
            _orphans.extend((connector, pooled))
            return
        loop = connector._loop  # noqa: SLF001 (no public way)
        if (
            loop.is_running()
        ):  # forgotten rather than closed, and maybe collected by another thread: the loop closes what is its own
            loop.call_soon_threadsafe(_shut, connector)
            return
        _shut(connector)
        for transport in pooled if loop.is_closed() else ():
            sock = getattr(transport, "_sock", None)  # its loop is closed, so close() would only raise
            if sock is not None:
                sock.close()
                transport._sock = None  # type: ignore[union-attr]  # noqa: SLF001

    def __del__(self) -> None:
        # A user who never closes gets no warning for it; at interpreter exit there may be nothing left to close with.
        with contextlib.suppress(Exception):
            self.abandon(forked=self._pid != os.getpid())


def _shut(connector: aiohttp.BaseConnector) -> None:
    closing = connector.close()  # a coroutine: one step closes everything, the rest would only wait for it
    with contextlib.suppress(StopIteration, RuntimeError):
        closing.send(None)  # type: ignore[attr-defined]  # TCPConnector.close is a coroutine function
        closing.close()  # type: ignore[attr-defined]


async def _read(reply: aiohttp.ClientResponse, cap: int) -> bytes:
    """The whole body, at most `cap` bytes of it. One join, and none for a body that arrives in one piece."""
    if "content-encoding" not in reply.headers and reply.content_length is not None and reply.content_length <= cap:
        return await reply.read()
    pieces, size = [], 0
    async for piece in reply.content.iter_any():
        size += len(piece)
        if size > cap:
            msg = f"the response exceeds {cap} bytes; raise max_response_bytes if that is expected"
            raise DecodeError(msg)
        pieces.append(piece)
    return b"".join(pieces)


def _timeout(settings: HttpSettings) -> aiohttp.ClientTimeout:
    import aiohttp

    return aiohttp.ClientTimeout(
        total=settings.timeout, sock_connect=min(settings.connect, settings.timeout), sock_read=settings.read
    )


def _verification(ssl: Any) -> Any:
    if ssl is None:
        return True
    if isinstance(ssl, (str, os.PathLike)):
        try:
            return tls.create_default_context(cafile=os.fspath(ssl))
        except (OSError, tls.SSLError) as error:
            msg = f"ssl={os.fspath(ssl)!r}: not a readable bundle of CA certificates ({error})"
            raise ConfigError(msg) from None
    return ssl


def _proxy(url: str, settings: HttpSettings) -> str | None:
    """The proxy for a URL: the setting, else the environment's as requests and httpx read it; never for loopback."""
    parts = urlsplit(url)
    if parts.hostname in LOOPBACK or (parts.hostname or "").startswith("127."):
        return None
    if settings.proxy is not None:
        return settings.proxy
    if settings.session is not None:
        return None  # the caller's session has its own
    from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]  # not in typeshed

    found = getproxies_environment()
    if proxy_bypass_environment(parts.netloc.rpartition("@")[2], found):
        return None
    proxy = found.get(parts.scheme) or found.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def _warm_numpy() -> None:
    """Load numpy while the first reply is awaited, which needs it: its import takes as long as many a request."""
    if "numpy" not in sys.modules:
        threading.Thread(target=__import__, args=("numpy",), daemon=True).start()


def _translated(error: BaseException, url: str, settings: HttpSettings) -> EmbedkitError:  # noqa: PLR0911 (one line per failure)
    """Our error for one of aiohttp's or the system's, with the address and the way out in it."""
    import aiohttp

    parts = urlsplit(url)
    port = parts.port or {"https": 443}.get(parts.scheme, 80)
    where = f"{parts.scheme}://{parts.hostname}:{port}"
    if isinstance(error, (aiohttp.InvalidURL, ValueError)):
        return ConfigError(f"{where}: not a URL that can be called ({type(error).__name__}); check base_url and proxy")
    if isinstance(error, TimeoutError):
        step = (
            f"connect within {settings.connect:g}"
            if isinstance(error, aiohttp.ConnectionTimeoutError)
            else f"answer within {settings.timeout:g}"
        )
        return TransportTimeoutError(f"{where} did not {step} s; raise timeout= or send smaller batches")
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return TransportError(f"the proxy refused to reach {where}: status {error.status}", retryable=error.status >= 500)  # noqa: PLR2004
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return TransportError(f"the proxy for {where} cannot be reached: {error.os_error.strerror or 'no connection'}")
    if isinstance(error, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError)):
        why = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
        return TransportError(f"TLS to {where} failed: {why}; for a private CA pass ssl='/path/to/ca.pem'", retryable=False)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return TransportError(f"the host name {parts.hostname!r} cannot be resolved; check base_url and the network")
    if isinstance(error, aiohttp.ClientConnectorError):
        down = f" ({settings.down})" if settings.down else ""
        return TransportError(f"cannot connect to {where}: {error.os_error.strerror or error.os_error}{down}")
    return TransportError(f"the connection to {where} broke: {type(error).__name__}: {_plain(error)}")


def _plain(error: BaseException) -> str:
    return str(error).partition("url=")[0].strip(" ,(") or "no details"
