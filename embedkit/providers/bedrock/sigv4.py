"""AWS Signature Version 4: the headers that sign a request, made of the request, the keys and the time. Pure.

What is sent is signed: the path as it stands in the URL (encoded once more, as every service but S3 wants it), its
query, every header of the request, and the SHA-256 of its bytes.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html
"""

from __future__ import annotations

import hmac
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import quote, unquote, urlsplit

from ..._types import Request

ALGORITHM = "AWS4-HMAC-SHA256"
# Set or changed on the way, so the receiver could not check them.
_UNSIGNED = frozenset({"authorization", "connection", "expect", "transfer-encoding", "user-agent", "x-amzn-trace-id"})


def sign(
    request: Request, *, access_key: str, secret_key: str, token: str = "", region: str, service: str, now: float
) -> dict[str, str]:
    """The headers to add to the request. `now` is in Unix seconds; `token` belongs to temporary keys."""
    parts = urlsplit(request.url)
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    added = {"x-amz-date": stamp, **({"x-amz-security-token": token} if token else {})}
    own = {name.lower(): value for name, value in request.headers.items()}
    signed = {**own, **added, "host": _host(parts.scheme, parts.netloc)}
    headers = sorted((name, " ".join(value.split())) for name, value in signed.items() if name not in _UNSIGNED)
    names = ";".join(name for name, _ in headers)
    canonical = "\n".join(
        (
            request.method,
            quote(parts.path or "/", safe="/~"),
            _query(parts.query),
            *(f"{name}:{value}" for name, value in headers),
            "",
            names,
            sha256(request.body).hexdigest(),
        )
    )
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    text = "\n".join((ALGORITHM, stamp, scope, sha256(canonical.encode()).hexdigest()))
    key = f"AWS4{secret_key}".encode()
    for step in scope.split("/"):
        key = hmac.digest(key, step.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    return {
        **added,
        "authorization": f"{ALGORITHM} Credential={access_key}/{scope}, SignedHeaders={names}, Signature={signature}",
    }


def _host(scheme: str, netloc: str) -> str:
    """The Host header as it is sent: without a user, and without the scheme's own port."""
    host = netloc.rpartition("@")[2]
    return host.removesuffix(":443" if scheme == "https" else ":80")


def _query(query: str) -> str:
    """Parameters sorted by their encoded name, then value; one without a value keeps its equals sign."""
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    encoded = sorted((quote(unquote(name), safe="~"), quote(unquote(value), safe="~")) for name, _, value in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded)
