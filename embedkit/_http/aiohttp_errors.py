"""Failures of aiohttp and of the system, in our own words, with the address and a remedy. None is quoted or chained."""

from __future__ import annotations

import errno
import os
import ssl as tls
from urllib.parse import urlsplit

from .._types import Request, safe_url
from ..errors import ConfigError, DecodeError, EmbedkitError, TransportError, TransportTimeoutError
from .settings import HttpSettings

PLAIN = "WRONG_VERSION_NUMBER"  # what OpenSSL makes of an answer that is no TLS
OF_CERTIFICATES = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")  # in OpenSSL's names of what refuses the client's
UNTRUSTED = (18, 19, 20, 21)  # OpenSSL's X509_V_ERR_…: self-signed, or of an issuer that is not known here
PROXY_WANTS_USER = 407
CONNECTING = "embedkit_connecting"  # of an error that was raised before there was a connection


def _timed_out(error: BaseException) -> TimeoutError:
    """The timeout that a cancellation was asked for by, with what is known of when it came."""
    late = TimeoutError()
    vars(late).update({CONNECTING: True} if CONNECTING in vars(error) else {})
    return late


def _proxy_refusal(request: Request, status: int) -> EmbedkitError:
    """The error of a proxy that lets nobody through."""
    hint = "; put user:password@ into the proxy's URL" if status == PROXY_WANTS_USER else ""
    passing = status >= 500  # noqa: PLR2004 (a failure of the proxy's)
    return _unsent(f"the proxy refused to reach {_where(request.url)}: status {status}{hint}", retryable=passing)


def _translated(  # noqa: C901, PLR0911, PLR0912
    error: Exception, request: Request, settings: HttpSettings, proxy: str | None = None
) -> EmbedkitError:
    """Our error for one of aiohttp's or the system's, with the address and the way out in it, and no word of theirs."""
    import aiohttp

    where = _where(request.url)
    unsent = CONNECTING in vars(error)
    through = f"the proxy {_where(proxy)}" if proxy and unsent else ""  # who failed, if nothing was sent
    if isinstance(error, TimeoutError):
        late = TransportTimeoutError(f"{where} did not {_awaited(error, settings, through)}")
        late.sent = not (unsent or isinstance(error, aiohttp.ConnectionTimeoutError))
        return late
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return _proxy_refusal(request, error.status)
    if isinstance(error, (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)):
        whom = through if through and _is_proxys(error, proxy) else where
        return _unsent(f"TLS to {whom} failed: {_distrust(error, whom)}", retryable=False)
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
        if through:
            return _unsent(f"{through} does not speak HTTP; check its address", retryable=False)
        return _unread(where, error.message)
    if isinstance(error, aiohttp.ClientPayloadError):
        return TransportError(f"the answer of {where} broke off")
    if (alert := _tls_alert(error)) and any(word in alert for word in OF_CERTIFICATES):
        return _unsent(f"TLS to {where} failed: {alert}{_client_hint(alert)}", retryable=False)
    if through:
        return _unsent(f"{through} hung up before it had connected to {where}")
    if isinstance(error, OSError):
        return TransportError(f"the connection to {where} broke: {alert or _reason(error)}")
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
    if "chunk" in why.lower():  # the same, in a later piece, is a body that breaks off
        return TransportError(f"the answer of {where} broke off: its chunks are none")
    if "Expected HTTP" not in why and not why.startswith("Bad status line"):  # as newer aiohttp begins it
        return TransportError(f"{where} answered with headers that are no HTTP", retryable=False)
    return _unsent(f"what answers at {where} does not speak HTTP; check base_url", retryable=False)


def _where(url: str) -> str:
    """Scheme, host and port: what of a URL can be shown."""
    return "/".join(safe_url(url).split("/")[:3])


def _awaited(error: TimeoutError, settings: HttpSettings, through: str) -> str:
    import aiohttp

    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return f"connect within {min(settings.connect, settings.timeout):g} s; raise connect_timeout="
    if isinstance(error, aiohttp.SocketTimeoutError) and settings.read is not None:
        return f"send anything for {settings.read:g} s; raise read_timeout="
    if CONNECTING in vars(error):
        by = f"through {through} " if through else ""
        return f"connect {by}within {settings.timeout:g} s; raise timeout="
    return f"answer within {settings.timeout:g} s; raise timeout= or send smaller batches"


def _is_proxys(error: Exception, proxy: str | None) -> bool:
    """Whether it was the handshake with the proxy that failed."""
    parts = urlsplit(proxy or "")
    return (getattr(error, "host", None), getattr(error, "port", None)) == (parts.hostname, parts.port or 443)


def _tls_alert(error: Exception) -> str:
    """OpenSSL's name of why a connection ended. aiohttp keeps the number, which means something else to the system."""
    cause = error if isinstance(error, tls.SSLError) else error.__cause__
    return (cause.reason or type(cause).__name__) if isinstance(cause, tls.SSLError) else ""


def _client_hint(alert: str) -> str:
    asks = "; the server asks for a client certificate: pass an ssl.SSLContext with one (load_cert_chain) as ssl="
    return asks if "CERTIFICATE_REQUIRED" in alert else ""


def _distrust(error: Exception, whom: str) -> str:
    """Why TLS failed, and the way out if there is one."""
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
    if message := getattr(cause, "verify_message", ""):
        hint = "; for a private CA pass ssl='/path/to/ca.pem'" if getattr(cause, "verify_code", 0) in UNTRUSTED else ""
        return f"the certificate is refused: {message}{hint}"
    reason = getattr(cause, "reason", None)
    return (
        f"{'it' if whom.startswith('the proxy') else 'the server'} does not speak TLS; should the URL begin with http://?"
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
