"""The exchange over aiohttp: one request out, one response back. The only file that imports aiohttp, and only when it opens a session.

A session belongs to one event loop in one process; whoever holds an `AiohttpExchange` makes a new one for another loop. Redirects
are not followed, cookies not kept, netrc not read, and a response is cut off at `cap` bytes, counted after decompression.

What goes wrong becomes one of our errors, in our own words: aiohttp's carry request headers, the proxy's password and what the server
sent, so none of theirs is quoted, chained or left behind as a context.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl as tls
import sys
import threading
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from .._threads import aside
from .._types import Request, Response, bare
from ..errors import ConfigError, DecodeError, EmbedkitError, TransportError, TransportTimeoutError
from .proxies import is_loopback, proxy_for
from .redaction import secrets_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Iterator
    from typing import Self

    import aiohttp

    from .timeout import Deadline

AGENT = "embedkit"
HEAD_START = 0.005  # seconds after which the first request is usually on its way, and the processor has nothing to do
IDLE = 1.0  # seconds without a response after which the server may have hung up, and a busy loop not have noticed
TURNS = 3  # of the loop until it has: one to see that the socket is at its end, one to say so, one more under TLS
LARGE = 2**20  # bytes of a body beyond which aiohttp warns (payload.TOO_LARGE_BYTES_BODY)
REFUSED = 400  # the statuses of refusals begin here
LINE = 2**16  # most bytes of one header: aiohttp's 8190 are fewer than a long content-security-policy has
PLAIN = "WRONG_VERSION_NUMBER"  # what OpenSSL makes of an answer that is no TLS
UNTRUSTED = (18, 19, 20, 21)  # OpenSSL's X509_V_ERR_…: self-signed, or of an issuer that is not known here
# Held, so that the garbage collector meets an embedder nobody closed before it meets its session, of which aiohttp would warn.
_sessions: set[Any] = set()
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

    def secrets(self) -> Iterator[str]:
        """What is secret in the caller's own session, and in the proxies that may be asked."""
        if self.session is not None:
            yield from secrets_of(self.session.headers)
        proxies = [value for name, value in os.environ.items() if name.lower().endswith("_proxy") and "@" in value]
        for proxy in (self.proxy or "", *proxies):
            with contextlib.suppress(ValueError):
                yield from secrets_of({}, proxy if "://" in proxy else f"//{proxy}")

    def __repr__(self) -> str:
        return f"HttpSettings(timeout={self.timeout:g}, connect={self.connect:g}, proxy={'set' if self.proxy else None})"


class AiohttpExchange:
    """Sends over a pooled session, opened by the first request."""

    def __init__(self, settings: HttpSettings) -> None:
        from .timeout import Deadline  # asyncio takes 50 ms, and whoever is here runs on it

        self._settings = settings
        self._session: aiohttp.ClientSession | None = settings.session
        self._routes: dict[str, tuple[Any, dict[str, str], dict[str, Any]]] = {}
        self._deadline = Deadline(settings.timeout)
        self._used: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._keeper: AsyncGenerator[None, None] | None = None
        self._pid = os.getpid()

    async def within(self, request: Request, seconds: float) -> Response:
        """The same within so many seconds, instead of those of the settings."""
        deadline = type(self._deadline)(seconds)
        try:
            return await self(request, deadline)
        finally:
            deadline.close()

    async def __call__(self, request: Request, deadline: Deadline | None = None) -> Response:
        """Send, read to the end.

        Raises:
            TransportError: no complete response arrived; TransportTimeoutError when it took too long.
            DecodeError: the response exceeds the cap, or its compression cannot be undone.
            ConfigError: the URL, a header or the proxy is none.
        """
        deadline = deadline or self._deadline
        try:
            session = self._session
            if session is None or session.closed:
                session = self._open()
            elif self._used is not None and monotonic() - self._used > IDLE:
                await _turns()
            url, added, options = self._routes.get(request.url) or self._route(request.url)
            data: bytes | _Whole | None = request.body or None
            if len(request.body) > LARGE:
                added, data = {**added, "content-length": str(len(request.body))}, _Whole(request.body)
            headers = {**added, **request.headers}
            ticket = deadline.begin()
            try:
                response = await _read(
                    await session.request(request.method, url, data=data, headers=headers, **options), self._settings.cap
                )
            except BaseException as error:
                if deadline.end(ticket, error):
                    raise TimeoutError from None
                raise
            else:
                deadline.end(ticket)
            finally:
                del url, headers, options  # they may hold a key, and a traceback can show what a frame holds
            self._used = monotonic()
            return response
        except EmbedkitError as error:
            failure = error.with_traceback(None)
        except Exception as error:
            if not isinstance(error, (OSError, ValueError)) and type(error).__module__.partition(".")[0] != "aiohttp":
                raise
            failure = _translated(error, request, msgspec.structs.replace(self._settings, timeout=deadline.seconds))
        try:
            raise failure  # out here, where aiohttp's error is no longer the context of ours
        finally:
            del failure  # it knows this frame, and would live until the garbage collector comes

    def _open(self) -> aiohttp.ClientSession:
        settings = self._settings
        if settings.session is not None:
            msg = "the session passed to connect() is closed"
            raise ConfigError(msg)
        import asyncio

        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            msg = "requests go out over aiohttp, which needs asyncio; on another event loop pass exchange="
            raise ConfigError(msg) from None
        import aiohttp

        self._loop.call_later(HEAD_START, _warm_numpy)
        connector = aiohttp.TCPConnector(
            limit=0, ttl_dns_cache=300, ssl=_verification(settings.ssl), resolver=_resolver(self._loop)
        )
        self._session = session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=_timeout(settings),
            headers={"user-agent": AGENT}, max_line_size=LINE, max_field_size=LINE,
        )  # fmt: skip
        _sessions.add(session)
        self._keeper = _kept(session)
        with contextlib.suppress(StopIteration):
            self._keeper.asend(None).send(None)  # up to its yield: now the loop knows of it
        return session

    def _route(self, url: str) -> tuple[Any, dict[str, str], dict[str, Any]]:
        """The parsed URL, headers and options to send with it, remembered: an embedder speaks to one or two URLs."""
        from yarl import URL

        settings = self._settings
        proxy = proxy_for(url, settings.proxy, read_environment=settings.session is None)  # the caller's session has its own
        options: dict[str, Any] = {"allow_redirects": False, "proxy": proxy}
        if settings.session is not None:
            options |= {
                "raise_for_status": False, "auto_decompress": True, "timeout": _timeout(settings),
                "ssl": _verification(settings.ssl),
            }  # fmt: skip
        # To undo compression takes longer than to copy what it saves, where nothing has to travel.
        headers = {"accept-encoding": "identity"} if is_loopback(url) else {}
        self._routes[url] = route = (URL(url, encoded=True), headers, options)
        return route

    async def aclose(self) -> None:
        """Close the session, unless it is the caller's."""
        keeper, self._keeper, self._session = self._keeper, None, self._settings.session
        self._deadline.close()
        if keeper is not None:
            await keeper.aclose()

    def abandon(self, *, forked: bool = False) -> None:
        """Let go of the session of a loop that is gone, without awaiting: no socket stays open, nothing warns.

        After a fork nothing is closed, since the sockets are the parent's too.
        """
        session, keeper = self._session, self._keeper
        self._keeper, self._session = None, self._settings.session
        if session is not None and keeper is not None:
            _let_go(session, None if forked else self._loop)
            with contextlib.suppress(StopIteration, StopAsyncIteration):
                keeper.aclose().send(None)  # ends at once: nothing is left to close

    def __del__(self) -> None:
        # A user who never closes gets no warning for it. A running loop closes what is its own once `_keeper` is collected; at
        # interpreter exit there may be nothing left to close with.
        with contextlib.suppress(Exception):
            forked = self._pid != os.getpid()
            if forked or self._loop is None or not self._loop.is_running():
                self.abandon(forked=forked)


async def _kept(session: aiohttp.ClientSession) -> AsyncGenerator[None, None]:
    """Closes the session when it is closed itself.

    A loop does that to every generator begun on it: when `asyncio.run` ends, and when nobody refers to the generator any more.
    """
    pid = os.getpid()
    try:
        yield
    finally:
        _sessions.discard(session)
        if pid == os.getpid():
            await session.close()
        else:
            _let_go(session, None)


def _let_go(session: aiohttp.ClientSession, loop: asyncio.AbstractEventLoop | None) -> None:
    """Take the pooled connections from a session that cannot be awaited any more, and cut them: those of this loop, or of no loop of ours."""
    connector = session.connector
    session.detach()
    if connector is None:
        return
    pooled = [handler.transport for handlers in connector._conns.values() for handler, *_ in handlers]  # noqa: SLF001 (no public way)
    connector._conns.clear()  # noqa: SLF001 (else it warns of what is left in it)
    if loop is None:
        _orphans.extend(pooled)
        return
    for transport in filter(None, pooled):
        if loop.is_closed():
            _cut(transport)
        else:
            transport.abort()


def _cut(transport: Any) -> None:
    """Close the socket of a transport whose loop is closed, where its own close() would only raise."""
    layer = getattr(transport, "_ssl_protocol", None)
    if layer is not None:
        transport._closed = True  # noqa: SLF001 (else it warns)
        transport = layer._transport  # noqa: SLF001
    sock = getattr(transport, "_sock", None)
    if sock is not None:
        sock.close()
        transport._sock = None  # noqa: SLF001 (else it warns)


class _Whole:
    """A large body as aiohttp takes it without a warning: an async iterable, of one piece.

    Of several pieces a later one fails, once the server has hung up, before its answer is read: an early 401 would be lost.
    """

    def __init__(self, body: bytes) -> None:
        self._pieces = iter((body,))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


async def _turns() -> None:
    """Let a loop that was busy see which servers have hung up meanwhile, before it takes one of their connections."""
    import asyncio

    for _ in range(TURNS):
        await asyncio.sleep(0)


async def _read(reply: aiohttp.ClientResponse, cap: int) -> Response:
    """The response with its whole body, at most `cap` bytes of it; of a refusal what arrives, since its status says what matters. Leaves nothing open."""
    pieces, size, content = [], 0, reply.content
    try:
        while size <= cap:
            piece = content.read_nowait() if (whole := content.is_eof()) else await content.readany()
            pieces.append(piece)
            size += len(piece)
            if whole:
                break
    except Exception:
        if reply.status < REFUSED:
            raise
    finally:
        if not reply.closed:
            reply.close()
    if size > cap:
        msg = f"the response exceeds {cap} bytes; raise max_response_bytes if that is expected"
        raise DecodeError(msg)
    return Response(reply.status, reply.headers, b"".join(pieces))


def _resolver(loop: asyncio.AbstractEventLoop) -> Any:
    """What looks up host names: aiohttp's own, and where that is the one over the loop's thread pool, it may do without the pool."""
    from aiohttp.resolver import DefaultResolver, ThreadedResolver

    return ThreadedResolver(_Names(loop)) if DefaultResolver is ThreadedResolver else None  # type: ignore[arg-type]  # all it uses


class _Names:
    """Of an event loop the two methods that look up names. Once the main thread has ended, the loop's pool takes no work."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    async def getaddrinfo(self, *args: Any, **keywords: Any) -> Any:
        if threading.main_thread().is_alive():
            return await self._loop.getaddrinfo(*args, **keywords)
        return await aside(partial(socket.getaddrinfo, *args, **keywords), leave=True)

    async def getnameinfo(self, *args: Any) -> Any:
        if threading.main_thread().is_alive():
            return await self._loop.getnameinfo(*args)
        return await aside(socket.getnameinfo, *args, leave=True)


def _timeout(settings: HttpSettings) -> aiohttp.ClientTimeout:
    import aiohttp

    # The total is a `Deadline`'s.
    return aiohttp.ClientTimeout(total=None, sock_connect=min(settings.connect, settings.timeout), sock_read=settings.read)


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


def _warm_numpy() -> None:
    """Load numpy while the first reply is awaited, which needs it: its import takes as long as many a request."""
    if "numpy" in sys.modules:
        return
    warming = threading.Thread(target=__import__, args=("numpy",), daemon=True)  # whoever leaves meanwhile does not wait for it
    with contextlib.suppress(RuntimeError):  # an interpreter that is ending starts no thread
        warming.start()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=warming.join)  # a child would wait for ever for an import that its parent had begun


# --- what went wrong -------------------------------------------------------------------------------------------------


def _translated(error: Exception, request: Request, settings: HttpSettings) -> EmbedkitError:  # noqa: C901, PLR0911 (one failure after the other)
    """Our error for one of aiohttp's or the system's, with the address and the way out in it, and no word of theirs."""
    import aiohttp

    where = _where(request.url)
    if isinstance(error, TimeoutError):
        late = TransportTimeoutError(f"{where} did not {_awaited(error, settings)}")
        late.sent = not isinstance(error, aiohttp.ConnectionTimeoutError)
        return late
    if isinstance(error, aiohttp.ClientHttpProxyError):
        hint = "; put user:password@ into the proxy's URL" if error.status == 407 else ""  # noqa: PLR2004 (Proxy Authentication Required)
        return _unsent(f"the proxy refused to reach {where}: status {error.status}{hint}", retryable=error.status >= 500)  # noqa: PLR2004 (it may pass)
    if isinstance(error, (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)):
        return _unsent(f"TLS to {where} failed: {_distrust(error)}", retryable=False)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return _unsent(f"the host name {error.host!r} cannot be resolved; check base_url, the proxy and the network")
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return _unsent(f"the proxy {error.host}:{error.port} for {where} cannot be reached: {_reason(error.os_error)}")
    if isinstance(error, aiohttp.ClientConnectorError):
        down = f" ({settings.down})" if settings.down else ""
        return _unsent(f"cannot connect to {where}: {_reason(error.os_error)}{down}")
    if isinstance(error, ValueError):  # after TLS: a certificate that is refused is a ValueError too
        return ConfigError(f"{where}: {_wrong(request)}")
    if isinstance(error, (aiohttp.ClientResponseError, aiohttp.ClientPayloadError)) and "content-encoding" in str(error):
        return DecodeError(
            f"{where} compressed its answer in a way that cannot be undone; headers={{'accept-encoding': 'identity'}} asks for none"
        )
    if isinstance(error, aiohttp.ClientResponseError):
        return _unsent(f"what answers at {where} does not speak HTTP; check base_url", retryable=False)
    if isinstance(error, aiohttp.ClientPayloadError):
        return TransportError(f"the answer of {where} broke off")
    if isinstance(error, OSError):
        return TransportError(f"the connection to {where} broke: {_reason(error)}")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return TransportError(f"{where} hung up before it had answered")
    return TransportError(f"the connection to {where} broke: {type(error).__name__}")


def _unsent(message: str, *, retryable: bool = True) -> TransportError:
    """The error of a request that never reached its server, so no text of it can be the reason."""
    error = TransportError(message, retryable=retryable)
    error.sent = False
    return error


def _where(url: str) -> str:
    """Scheme, host and port: what of a URL can be shown."""
    return "/".join(bare(url).split("/")[:3])


def _awaited(error: TimeoutError, settings: HttpSettings) -> str:
    import aiohttp

    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return f"connect within {min(settings.connect, settings.timeout):g} s; raise connect_timeout="
    if isinstance(error, aiohttp.SocketTimeoutError) and settings.read is not None:
        return f"send anything for {settings.read:g} s; raise read_timeout="
    return f"answer within {settings.timeout:g} s; raise timeout= or send smaller batches"


def _distrust(error: Exception) -> str:
    """Why TLS failed, and the way out if there is one."""
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
    if message := getattr(cause, "verify_message", ""):
        hint = "; for a private CA pass ssl='/path/to/ca.pem'" if getattr(cause, "verify_code", 0) in UNTRUSTED else ""
        return f"the certificate is refused: {message}{hint}"
    reason = getattr(cause, "reason", None)
    return (
        "the server does not speak TLS; should the URL begin with http://?"
        if reason == PLAIN
        else str(reason or type(error).__name__)
    )


def _reason(error: OSError) -> str:
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    tried = str(error.args[0]) if error.args else ""
    return tried if tried.startswith("Multiple exceptions") else "the other side hung up"  # of several addresses, each failed


def _wrong(request: Request) -> str:
    """What of a request cannot be sent."""
    for name, value in request.headers.items():
        if not value.isprintable():
            return f"the header {name} holds a line break or another character that cannot be sent"
    if "@" in request.url.partition("://")[2].partition("/")[0]:
        return "base_url holds a user, and an Authorization header goes out too: leave one out"
    return "not a URL that can be called; check base_url"
