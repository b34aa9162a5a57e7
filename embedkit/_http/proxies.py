"""Which proxy a request takes: the one given, else the environment's as requests and httpx read it, but not locally."""

from __future__ import annotations

import contextlib
from base64 import b64encode
from ipaddress import ip_address, ip_network
from urllib.parse import unquote, urlsplit

from ..errors import ConfigError

LOOPBACK = ("localhost", "0.0.0.0")  # noqa: S104 (recognized, never bound)


def is_loopback(host: str) -> bool:
    """Whether a host is certainly this machine. One under .localhost is not: a resolver may ask the network for it."""
    if host in LOOPBACK:
        return True
    with contextlib.suppress(ValueError):
        return ip_address(host).is_loopback
    return False


def stays_local(url: str) -> bool:
    """Whether a URL is meant for this machine: no proxy on the way, and nothing gained by compression."""
    host = urlsplit(url).hostname or ""
    return is_loopback(host) or host.endswith(".localhost")


def proxy_for(url: str, given: str | None, *, read_environment: bool = True) -> str | None:
    """The proxy for a URL.

    Raises:
        ConfigError: it is one that aiohttp cannot speak to. Its URL may hold a password, and is not quoted.
    """
    proxy = _from_environment(url) if given is None and read_environment and not stays_local(url) else given
    if not proxy:
        return None
    parts = urlsplit(proxy)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        msg = (
            "the proxy, from proxy= or the environment, is no http or https URL with a host, like "
            "http://proxy.example:3128; for another kind (SOCKS) pass session= with a connector that speaks it"
        )
        raise ConfigError(msg)
    return proxy


def without_user(proxy: str) -> tuple[str, str]:
    """A proxy's URL without the user and password in it, and the header that carries these; "" if it has none.

    They are encoded in UTF-8, which RFC 7617 names; aiohttp's own way from a URL knows Latin-1 only.

    Raises:
        ConfigError: the user holds a colon, which the header cannot carry.
    """
    parts = urlsplit(proxy)
    user, at, place = parts.netloc.rpartition("@")
    if not at:
        return proxy, ""
    name, _, password = user.partition(":")
    if ":" in unquote(name):
        msg = "the user in the proxy's URL holds a colon, which basic authentication cannot carry"
        raise ConfigError(msg)
    pair = f"{unquote(name)}:{unquote(password)}"
    return parts._replace(netloc=place).geturl(), f"Basic {b64encode(pair.encode()).decode()}"


def _from_environment(url: str) -> str | None:
    # typeshed does not have the second
    from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

    parts, found = urlsplit(url), getproxies_environment()
    if proxy_bypass_environment(parts.netloc.rpartition("@")[2], found) or _within(
        parts.hostname or "", found.get("no", "")
    ):
        return None
    proxy: str = found.get(parts.scheme) or found.get("all") or ""
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def _within(host: str, networks: str) -> bool:
    """Whether an address is in a network of NO_PROXY, like 10.0.0.0/8: requests reads those, urllib does not."""
    with contextlib.suppress(ValueError):
        address = ip_address(host)
        for each in networks.split(","):
            with contextlib.suppress(ValueError):
                if address in ip_network(each.strip(), strict=False):
                    return True
    return False
