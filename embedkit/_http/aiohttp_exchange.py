"""The exchange over aiohttp: one request out, one response back. aiohttp is imported when a session is opened.

A session belongs to one event loop in one process; whoever holds an `AiohttpExchange` makes a new one for another loop.
Redirects are not followed, cookies not kept, netrc not read, and a response is cut off at `cap` bytes, counted after
decompression.

What goes wrong becomes one of our errors, in our own words: aiohttp's carry request headers, the proxy's password and
what the server sent, so none of theirs is quoted, chained or left behind as a context.
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
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from .._threads import aside
from .._types import Request, Response
from ..errors import ConfigError, DecodeError, EmbedkitError
from .aiohttp_errors import PROXY_WANTS_USER, _proxy_refusal, _timed_out, _translated
from .aiohttp_session import _closes_with_loop, _detach, _sessions
from .proxies import proxy_for, stays_local, without_user
from .settings import HttpSettings

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator
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

    async def within(self, request: Request, seconds: float, into: BinaryIO | None = None) -> Response:
        """The same within so many seconds, instead of those of the settings.

        Args:
            request: signed.
            seconds: from connecting to the last byte.
            into: a file that gets the body of a success, of any size, in place of the response. What it held is gone.

        Raises:
            OSError: the file cannot be written.
        """
        deadline = type(self._deadline)(seconds)
        try:
            return await self(request, deadline, into)
        except _UnwritableError as error:
            raise error.reason from None
        finally:
            deadline.close()

    async def __call__(
        self, request: Request, deadline: Deadline | None = None, into: BinaryIO | None = None
    ) -> Response:
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
                await _yield_to_loop()
            url, added, options = self._routes.get(request.url) or self._route(request.url)
            data: bytes | _SinglePieceBody | None = request.body or None
            if len(request.body) > LARGE:
                added, data = {**added, "content-length": str(len(request.body))}, _SinglePieceBody(request.body)
            headers = {**added, **request.headers}
            ticket = deadline.begin()
            try:
                response = await _received(
                    await session.request(request.method, url, data=data, headers=headers, **options),
                    self._settings,
                    into,
                )
            except BaseException as error:
                if deadline.end(ticket, error):
                    raise _timed_out(error) from None
                raise
            else:
                deadline.end(ticket)
            finally:
                del url, added, headers, options  # they may hold a key, and a traceback can show what a frame holds
            self._used = monotonic()
            return self._passed(request, response)
        except EmbedkitError as error:
            failure = error.with_traceback(None)
        except Exception as error:
            if not isinstance(error, (OSError, ValueError)) and type(error).__module__.partition(".")[0] != "aiohttp":
                raise
            settings = msgspec.structs.replace(self._settings, timeout=deadline.seconds)
            failure = _translated(error, request, settings, self._proxy(request))
        try:
            raise failure  # out here, where aiohttp's error is no longer the context of ours
        finally:
            del failure  # it knows this frame, and would live until the garbage collector comes

    def _proxy(self, request: Request) -> str | None:
        """The proxy that a request took, without its user."""
        found: str | None = self._routes[request.url][2]["proxy"] if request.url in self._routes else None
        return found

    def _passed(self, request: Request, response: Response) -> Response:
        """A response, if it is not a proxy's own, which the same refusal of a tunnel would be an error for."""
        if response.status == PROXY_WANTS_USER and self._proxy(request):
            raise _proxy_refusal(request, response.status)
        return response

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

        from .aiohttp_connector import Connector

        self._loop.call_later(HEAD_START, _warm_numpy)
        connector = Connector(
            limit=0, ttl_dns_cache=300, ssl=_verification(settings.ssl), resolver=_resolver(self._loop)
        )
        self._session = session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=_timeout(settings),
            headers={"user-agent": AGENT}, max_line_size=LINE, max_field_size=LINE,
        )  # fmt: skip
        _sessions.add(session)
        self._keeper = _closes_with_loop(session)
        with contextlib.suppress(StopIteration):
            self._keeper.asend(None).send(None)  # up to its yield: now the loop knows of it
        return session

    def _route(self, url: str) -> tuple[Any, dict[str, str], dict[str, Any]]:
        """The parsed URL, headers and options to send with it, remembered: an embedder speaks to one or two URLs."""
        from yarl import URL

        settings = self._settings
        # The caller's session reads the environment itself.
        proxy = proxy_for(url, settings.proxy, read_environment=settings.session is None)
        proxy, user = without_user(proxy) if proxy else (None, "")
        options: dict[str, Any] = {"allow_redirects": False, "proxy": proxy}
        if settings.session is not None:
            options |= {
                "raise_for_status": False, "auto_decompress": True, "timeout": _timeout(settings),
                "ssl": _verification(settings.ssl),
            }  # fmt: skip
        # To undo compression takes longer than to copy what it saves, where nothing has to travel.
        headers = {"accept-encoding": "identity"} if stays_local(url) else {}
        if user and url.startswith("https:"):
            options["proxy_headers"] = {"proxy-authorization": user}
        elif user:
            headers["proxy-authorization"] = user
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
            _detach(session, None if forked else self._loop)
            with contextlib.suppress(StopIteration, StopAsyncIteration):
                keeper.aclose().send(None)  # ends at once: nothing is left to close

    def __del__(self) -> None:
        # A user who never closes gets no warning for it. A running loop closes what is its own once `_keeper` is
        # collected; at interpreter exit there may be nothing left to close with.
        with contextlib.suppress(Exception):
            forked = self._pid != os.getpid()
            if forked or self._loop is None or not self._loop.is_running():
                self.abandon(forked=forked)


class _SinglePieceBody:
    """A large body as aiohttp takes it without a warning: an async iterable, of one piece.

    Of several pieces a later one fails, once the server has hung up, before its answer is read: an early 401 would be
    lost.
    """

    def __init__(self, body: bytes) -> None:
        self._pieces = iter((body,))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


async def _yield_to_loop() -> None:
    """Let a loop that was busy see which servers have hung up meanwhile, before it takes one of their connections."""
    import asyncio

    for _ in range(TURNS):
        await asyncio.sleep(0)


async def _read(reply: aiohttp.ClientResponse, cap: int) -> Response:
    """The response with its whole body, at most `cap` bytes; of a refusal whatever arrives. Leaves nothing open."""
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


class _UnwritableError(Exception):
    """A file could not be written. No OSError, which would be taken for one of the connection."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


async def _received(reply: aiohttp.ClientResponse, settings: HttpSettings, into: BinaryIO | None) -> Response:
    if into is None or reply.status >= REFUSED:
        return await _read(reply, settings.cap)
    return await _save(reply, into, settings.timeout)


async def _save(reply: aiohttp.ClientResponse, into: BinaryIO, silent: float) -> Response:
    """The response without its body, which goes into a file piece by piece. Leaves nothing open.

    It may take long, so a server that falls silent is given up by the seconds without a piece.
    """
    import asyncio

    try:
        _write(into, b"", anew=True)
        whole = False
        while not whole:
            async with asyncio.timeout(silent):
                piece = await reply.content.readany()
            _write(into, piece)
            whole = reply.content.at_eof()
    finally:
        if not reply.closed:
            reply.close()
    return Response(reply.status, reply.headers, b"")


def _write(into: BinaryIO, piece: bytes, *, anew: bool = False) -> None:
    try:
        if anew:
            into.seek(0)
            into.truncate()
        into.write(piece)
    except OSError as error:
        raise _UnwritableError(error) from None


def _resolver(loop: asyncio.AbstractEventLoop) -> Any:
    """The resolver of host names, aiohttp's; where it would use the loop's thread pool, one that can do without."""
    from aiohttp.resolver import DefaultResolver, ThreadedResolver

    # What it uses of a loop is all that `_Names` has.
    return ThreadedResolver(_Names(loop)) if DefaultResolver is ThreadedResolver else None  # type: ignore[arg-type]


class _Names:
    """A loop's two methods that look up names, without its pool: that takes no work once the main thread ended."""

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
    return aiohttp.ClientTimeout(
        total=None, sock_connect=min(settings.connect, settings.timeout), sock_read=settings.read
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


def _warm_numpy() -> None:
    """Load numpy while the first reply is awaited, which needs it: its import takes as long as many a request."""
    if "numpy" in sys.modules:
        return
    # A daemon, so that a program which ends meanwhile does not wait for it.
    warming = threading.Thread(target=__import__, args=("numpy",), daemon=True)
    with contextlib.suppress(RuntimeError):  # an interpreter that is ending starts no thread
        warming.start()
        if hasattr(os, "register_at_fork"):
            # A child would wait for ever for an import that its parent has begun.
            os.register_at_fork(before=warming.join)
