"""Where a provider lives: from a base URL given, in the environment or known, to one that every client reads alike.

A bare host gets the provider's version segment, a path is used as given; what is no address is refused by the name it came under.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from .errors import ConfigError

if TYPE_CHECKING:
    from .codec import Host


def address(host: Host, base_url: str | None) -> tuple[str, bool]:
    """The base URL, and whether it is the provider's own or came from its own variable (then an environment key may go there)."""
    if base_url is not None:
        return _based(base_url, host), False
    for variable in host.url_variables:
        if value := os.environ.get(variable, "").strip():
            return _based(value, host, variable), True
    if host.base_url is None:
        where = f" or set {' or '.join(host.url_variables)}" if host.url_variables else ""
        msg = f"{host.name} has no address of its own: pass base_url={where}"
        raise ConfigError(msg)
    return host.base_url, True


def _based(given: str, host: Host, variable: str = "") -> str:
    """A base URL, checked: read as `host` reads its own variable, or as given, with its version segment where it has no path."""
    own = bool(variable) and host.read_url is not str
    try:
        found = parts(host.read_url(given) if own else given)
    except ValueError:  # what urlsplit says of brackets
        found = None
    if found is None:
        msg = f"{variable or 'base_url'}={shown(given)}: an http or https URL with a host (ASCII, no '#'), like {host.base_url or 'http://localhost:8080'}"
        raise ConfigError(msg)
    return urlunsplit(found._replace(path=found.path.rstrip("/") or ("" if own else host.segment)))


def parts(url: object) -> SplitResult | None:
    """The parts of an http URL that every client reads alike; None where one might not, or where it is none."""
    text = url.strip() if isinstance(url, str) else ""
    if not text.isascii() or re.search(r"[\s\\\x00-\x1f\x7f#]", text):
        return None
    try:
        found = urlsplit(text)
        sound = found.scheme in ("http", "https") and found.hostname and found.port != 0
    except ValueError:
        return None
    return found if sound else None


def shown(url: object) -> str:
    """A URL for a message: a password or a query in it, either of which may be a key, does not show."""
    if not isinstance(url, str):
        return type(url).__name__ if re.search("[@?]", repr(url)) else repr(url)
    _, user, place = url.rpartition("@")
    bare, *query = re.split(r"[?#&=]", place, maxsplit=1)
    return repr(f"{'***@' if user else ''}{bare}{'?***' if query else ''}")


def without_user(url: str) -> tuple[str, dict[str, str]]:
    """The URL without "user:password@", and the header that says the same: a URL is shown and logged, a header is not."""
    whole = urlsplit(url)
    user, mark, place = whole.netloc.rpartition("@")
    if not mark:
        return url, {}
    from base64 import b64encode

    name, _, password = user.partition(":")
    basic = b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
    return urlunsplit(whole._replace(netloc=place)), {"authorization": f"Basic {basic}"}
