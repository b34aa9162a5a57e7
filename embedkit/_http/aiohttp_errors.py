"""Failures of aiohttp and of the system, in our own words, with the address and a remedy. None is quoted or chained."""

from __future__ import annotations

import errno
import os

from .._types import Request, safe_url
from ..errors import ConfigError, DecodeError, EmbedkitError, TransportError, TransportTimeoutError
from .settings import HttpSettings

PLAIN = "WRONG_VERSION_NUMBER"  # what OpenSSL makes of an answer that is no TLS
UNTRUSTED = (18, 19, 20, 21)  # OpenSSL's X509_V_ERR_…: self-signed, or of an issuer that is not known here


def _translated(error: Exception, request: Request, settings: HttpSettings) -> EmbedkitError:  # noqa: C901, PLR0911
    """Our error for one of aiohttp's or the system's, with the address and the way out in it, and no word of theirs."""
    import aiohttp

    where = _where(request.url)
    if isinstance(error, TimeoutError):
        late = TransportTimeoutError(f"{where} did not {_awaited(error, settings)}")
        late.sent = not isinstance(error, aiohttp.ConnectionTimeoutError)
        return late
    if isinstance(error, aiohttp.ClientHttpProxyError):
        hint = "; put user:password@ into the proxy's URL" if error.status == 407 else ""  # noqa: PLR2004
        passing = error.status >= 500  # noqa: PLR2004 (a failure of the proxy's)
        return _unsent(f"the proxy refused to reach {where}: status {error.status}{hint}", retryable=passing)
    if isinstance(error, (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)):
        return _unsent(f"TLS to {where} failed: {_distrust(error)}", retryable=False)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return _unsent(f"the host name {error.host!r} cannot be resolved; check base_url, the proxy and the network")
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        gone = _unsent(f"the proxy {error.host}:{error.port} for {where} cannot be reached: {_reason(error.os_error)}")
        gone.proxy_refused = error.os_error.errno == errno.ECONNREFUSED
        return gone
    if isinstance(error, aiohttp.ClientConnectorError):
        down = f" ({settings.unreachable_hint})" if settings.unreachable_hint else ""
        return _unsent(f"cannot connect to {where}: {_reason(error.os_error)}{down}")
    if isinstance(error, ValueError):  # after TLS: a certificate that is refused is a ValueError too
        return ConfigError(f"{where}: {_wrong(request)}")
    if isinstance(error, (aiohttp.ClientResponseError, aiohttp.ClientPayloadError)) and "content-encoding" in str(
        error
    ):
        return DecodeError(
            f"{where} compressed its answer in a way that cannot be undone; headers={{'accept-encoding': 'identity'}} "
            "asks for none"
        )
    if isinstance(error, aiohttp.ClientResponseError):
        return _unread(where, error.message)
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


def _unread(where: str, why: str) -> TransportError:
    """The error of an answer that aiohttp's parser refuses."""
    if why.startswith(("Got more than", "Too many headers")):
        return TransportError(f"{where} answered with headers that are too long to be read", retryable=False)
    return _unsent(f"what answers at {where} does not speak HTTP; check base_url", retryable=False)


def _where(url: str) -> str:
    """Scheme, host and port: what of a URL can be shown."""
    return "/".join(safe_url(url).split("/")[:3])


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
    # Every one of several addresses failed.
    return tried if tried.startswith("Multiple exceptions") else "the other side hung up"


def _wrong(request: Request) -> str:
    """What of a request cannot be sent."""
    for name, value in request.headers.items():
        if not value.isprintable():
            return f"the header {name} holds a line break or another character that cannot be sent"
    if "@" in request.url.partition("://")[2].partition("/")[0]:
        return "base_url holds a user, and an Authorization header goes out too: leave one out"
    return "not a URL that can be called; check base_url"
