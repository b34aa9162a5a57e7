"""Which credentials a request gets. A key from the environment goes to its provider's own hosts over TLS, to loopback,
or where the provider's own base-URL variable points, and nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from .._http.credential_check import flaw
from .._http.credentials import KeyFile, Variable
from .._http.proxies import is_loopback
from ..codec import Host, host_matches
from ..errors import ConfigError

Credential = str | Callable[[], str | Awaitable[str]]


def _credentials(
    host: Host, url: str, api_key: Credential | None, settled: Mapping[str, Any], *, explicit: bool, ours: bool
) -> tuple[dict[str, Any], str]:
    """The credentials to use, and what a 401 says about a key from the environment that was not sent."""
    scheme, name = urlsplit(url).scheme, urlsplit(url).hostname or ""
    home = scheme == "https" and host_matches(name, host.own_domains)
    trusted = ours or home or is_loopback(name)
    secrets = {each: settled[each] for each, one in host.parameters.items() if one.secret and settled[each] is not None}
    stand_ins = {each: value for each, value in secrets.items() if host.parameters[each].key}
    by_hand = {each for each, value in stand_ins.items() if not isinstance(value, Variable)}
    sources = {each: value for each, value in secrets.items() if trusted or not isinstance(value, Variable)}
    if api_key is not None and by_hand:
        msg = f"{host.name} takes api_key or {' and '.join(sorted(by_hand))}, not both"
        raise ConfigError(msg)
    if api_key is not None or by_hand:  # credentials given by hand are not mixed with the environment's
        sources = {each: value for each, value in sources.items() if each in by_hand or each not in stand_ins}
        return _fit(sources if api_key is None else {**sources, "api_key": api_key}), ""
    found: Variable | KeyFile | None = next(filter(None, map(Variable, host.key_variables)), None)
    if found is None and host.key_file is not None:
        found = KeyFile(host.key_file(os.environ)) or None
    if found is not None and trusted:
        return _fit({**sources, "api_key": found}), ""
    if host.key_required and not explicit and not stand_ins:
        raise ConfigError(_keyless(host))
    held = next((value for value in (found, *stand_ins.values()) if value is not None), None)
    sources = _fit(sources)
    if held is None or trusted:
        return sources, ""
    why = f"because {scheme}://{name} is not one of {host.name}'s own hosts: pass api_key= to send it there"
    return sources, f"the key in {held.name} was not sent, {why}"


def _keyless(host: Host) -> str:
    variables = f"set {' or '.join(host.key_variables)}, or " if host.key_variables else ""
    others = {name: one.variables for name, one in host.parameters.items() if one.key}
    instead = f"; {' and '.join(others)} ({' and '.join(sum(others.values(), ()))}) stand in for it" if others else ""
    return f"{host.name} needs a key: {variables}pass api_key={instead}"


def _fit(sources: Mapping[str, Any]) -> dict[str, Any]:
    """The credentials, checked."""
    return {
        name: _key(value, value.name if isinstance(value, (Variable, KeyFile)) else name)
        for name, value in sources.items()
    }


def _key(key: Any, name: str) -> Any:
    """The key, checked: a callable, or a string that a header can carry. No message shows its value."""
    if callable(key):
        return key
    if not isinstance(key, str) or not key.strip():
        what = "empty" if isinstance(key, str) else type(key).__name__
        way = "pass a non-empty string or a callable, or leave it out"
        if hasattr(key, "get_secret_value"):  # pydantic's SecretStr, LangChain's keys
            way = f"pass {name}=secret.get_secret_value()"
        msg = f"{name} is {what}; {way}"
        raise ConfigError(msg)
    if wrong := flaw(key):
        msg = f"the key in {name} {wrong}"
        raise ConfigError(msg)
    return key if isinstance(key, (Variable, KeyFile)) else key.strip()
