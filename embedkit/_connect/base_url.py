"""The base URL of a provider: given, from the environment, or the host's own; checked and completed.

A bare host gets the provider's version segment, a path is used as given, but for the route of an endpoint at its end:
people copy the whole URL that they see asked. What is no address is refused by the name it came under.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from .._values import shown as brief
from ..codec import host_matches
from ..errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..codec import Host

LONGEST = 200  # characters of a URL that are shown


def address(host: Host, base_url: str | None) -> tuple[str, bool, dict[str, str]]:
    """The base URL; whether it is the provider's own or came from its
    own variable (then an environment key may go there); what it names.

    What a URL names is the model, or a parameter of the host, where one stands in the route at its end.
    """
    if base_url is not None:
        based, named = _based(base_url, host)
        return based, False, named
    for variable in host.url_variables:
        if value := os.environ.get(variable, "").strip():
            based, named = _based(value, host, variable)
            return based, True, named
    if host.base_url is None:
        where = f" or set {' or '.join(host.url_variables)}" if host.url_variables else ""
        msg = f"{host.name} has no address of its own: pass base_url={where}"
        raise ConfigError(msg)
    return host.base_url, True, {}


def _based(given: str, host: Host, variable: str = "") -> tuple[str, dict[str, str]]:
    """A base URL, checked: read as `host` reads its own variable,
    or as given, with its version segment where it has no path.
    """
    own = bool(variable) and host.read_url is not str
    text, named = (
        unrouted(given, host.routes) if isinstance(given, str) and given.strip() != host.base_url else (given, None)
    )
    try:
        found = parts(_read(text, host.read_url) if own else text)
    except ValueError:  # urlsplit refuses unmatched brackets
        found = None
    if found is None:
        like = host.base_url or "http://localhost:8080"
        msg = f"{variable or 'base_url'}={shown(given)}: an http or https URL with a host (ASCII, no '#'), like {like}"
        raise ConfigError(msg)
    path = found.path.rstrip("/")
    if _begins(host.version_path, path) and host_matches(found.hostname, host.own_domains):
        path = host.version_path  # the host's own address needs it
    elif not path and not own and named is None:
        path = host.version_path
    return urlunsplit(found._replace(path=path)), named or {}


def _read(given: str, read_url: Callable[[str], str]) -> str:
    """What a variable holds, as its provider reads it; that knows of no query."""
    place, mark, query = given.partition("?")
    return read_url(place) + mark + query


def _begins(segment: str, path: str) -> bool:
    return segment != path and f"{segment}/".startswith(f"{path}/")


def unrouted(url: str, routes: Iterable[str]) -> tuple[str, dict[str, str] | None]:
    """A URL without the route at its end, and the values in place of the route's braces; None where no route fits.

    A query stays. "/models/{model}:{verb}" is a route, `{model*}`
    one with slashes in the name; the longest that fits is taken off.
    """
    place, mark, query = url.strip().partition("?")
    start = place.find("/", place.find("://") + 3 if "://" in place else 0)
    if start < 0:
        return url, None
    head, path = place[:start], place[start:].rstrip("/")
    for route in sorted(routes, key=len, reverse=True):
        found = re.search(_pattern(route), path)
        if found is not None:
            return head + path[: found.start()] + mark + query, {
                name: unquote(value) for name, value in found.groupdict().items()
            }
    return url, None


def _pattern(route: str) -> str:
    pieces = re.split(r"{(\w+\*?)}", route)
    named = (f"(?P<{each.rstrip('*')}>{'.' if each.endswith('*') else '[^/]'}+?)" for each in pieces[1::2])
    return (
        re.escape(pieces[0])
        + "".join(name + re.escape(rest) for name, rest in zip(named, pieces[2::2], strict=True))
        + "$"
    )


def parts(url: object) -> SplitResult | None:
    """The parts of an http URL that every client reads alike; None for any other text."""
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
    """A URL for a message, without its password and its query, either of which may be a key."""
    if not isinstance(url, str):
        text = brief(url)
        return type(url).__name__ if re.search("[@?]", text) else text
    _, user, place = url.rpartition("@")
    bare, *query = re.split(r"[?#&=]", place, maxsplit=1)
    bare = bare if len(bare) <= LONGEST else f"{bare[:LONGEST]}…"
    return repr(f"{'***@' if user else ''}{bare}{'?***' if query else ''}")


def without_user(url: str) -> tuple[str, dict[str, str]]:
    """The URL without "user:password@", and the header that says
    the same: a URL is shown and logged, a header is not.
    """
    whole = urlsplit(url)
    user, mark, place = whole.netloc.rpartition("@")
    if not mark:
        return url, {}
    from base64 import b64encode

    name, _, password = user.partition(":")
    basic = b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
    return urlunsplit(whole._replace(netloc=place)), {"authorization": f"Basic {basic}"}
