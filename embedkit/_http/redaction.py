"""Removes secrets from responses and messages: providers echo API keys in bodies, headers and error texts.

What to hide is read off the signed request, and found however it is escaped. A reply is redacted before anyone reads
it, rather than a message once it is made: a body is cut to an excerpt, and half a key is no longer found. Pure, and
busy on failures only.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

from .._types import Response

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

HIDDEN = "***"
SHORT = 5  # a secret of so many characters is left: it would blank out common words
KEPT = 256  # most secrets remembered that may change with every request, as a signature does
PLAIN = {"accept", "accept-encoding", "accept-language", "content-type", "content-length", "user-agent"}
_TELLING = re.compile(r"key|token|secret|sig|pass|auth|code|cred", re.IGNORECASE)  # names of what is secret in a query


class Redactor:
    """Hides what it was given. An older secret is hidden on: its request may still be under way."""

    def __init__(self) -> None:
        self._secrets: dict[str, None] = {}
        self._lasting: set[str] = set()

    def add(self, secrets: Iterable[str], *, lasting: bool = False) -> None:
        """Hide these from now on; for ever if `lasting`, else until so many newer ones have come."""
        if lasting:
            self._lasting.update(secret for secret in secrets if len(secret) > SHORT)
            return
        for secret in secrets:
            if len(secret) > SHORT:
                self._secrets.pop(secret, None)
                self._secrets[secret] = None
        while len(self._secrets) > KEPT:
            del self._secrets[next(iter(self._secrets))]

    def redact(self, text: str) -> str:
        """The text without any of them."""
        for secret in sorted(
            {*self._secrets, *self._lasting}, key=len, reverse=True
        ):  # the longest first: one may be part of another
            text = re.sub("".join(map(_escaped, secret)), HIDDEN, text)
        return text

    def redact_response(self, response: Response) -> Response:
        """The response without any of them; the same object where there were none."""
        text = bytes(response.body).decode("utf-8", "surrogateescape")
        hidden = self.redact(text)
        headers = {name.lower(): self.redact(value) for name, value in response.headers.items()}
        if hidden == text and all(value == response.headers[name] for name, value in headers.items()):
            return response
        return Response(response.status, headers, hidden.encode("utf-8", "surrogateescape"))


def _escaped(character: str) -> str:
    """A pattern for a character as it is, and as JSON, a URL and HTML may escape it."""
    if character.isascii() and character.isalnum():
        return character
    plain, number = re.escape(character), ord(character)
    percent = "".join(f"%{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))
    return rf"(?:\\*{plain}|\\*(?i:u{number:04x})|(?i:{percent})|(?i:&#(?:{number}|x0*{number:x});))"


def secrets_in(headers: Mapping[str, str], url: str = "") -> Iterator[str]:
    """What is secret in a request: its headers but the plain ones, the user of its URL, and what looks like a key."""
    for name, value in headers.items():
        if name.lower() not in PLAIN:
            yield value
            yield from _pieces(name.lower(), value)
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    if at:
        yield from (user, unquote(user), unquote(user).partition(":")[2])
        yield b64encode(unquote(user).encode()).decode()
    for name, value in parse_qsl(parts.query):
        if _TELLING.search(name):
            yield value


def _pieces(name: str, value: str) -> Iterator[str]:
    """Of "Bearer KEY" the key, of a cookie its values, of basic authentication the user and the password."""
    scheme, _, rest = value.partition(" ")
    yield rest
    if name == "cookie":
        yield from (each.partition("=")[2] for each in value.split(";"))
    if scheme.lower() == "basic":
        try:
            user = b64decode(rest).decode()
        except (NotBase64, UnicodeDecodeError):
            return
        yield user
        yield user.partition(":")[2]
