"""Providers, one file per dialect. Each file ends in `HOSTS`, a tuple of `Host` rows. Every file here is read.

To add an OpenAI-compatible host, add a row to `compatible.py`. To add a dialect, write one file: the page it follows
in the docstring, the reply structs with only the fields used, a class that inherits from `codec.Dialect` and writes
`encode` and `decode`, and `HOSTS`. Then put its recorded exchanges into `tests/golden/<host>/`; the conformance test
finds them.

A wheel of your own adds hosts through the entry point group `embedkit.providers`: each entry names a module with
`HOSTS`. It is imported only when a provider is asked for that is not built in, so a broken wheel breaks nothing else.
A built-in name cannot be taken.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module

from .._peers import providers_called
from ..codec import Host
from ..errors import ConfigError

GROUP = "embedkit.providers"


def find(name: str) -> Host:
    """The host of this name.

    Raises:
        ConfigError: no host has it, and the message lists the nearest names; or its wheel cannot be loaded.
    """
    for host in _rows(name):
        if host.name == name:
            return host
    hosts, broken = _brought()
    found = {who: host for who, host in hosts if host.name == name}
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        msg = f"provider {name!r} is brought by {' and by '.join(sorted(found))}: uninstall all but one"
        raise ConfigError(msg)
    if name in broken:
        msg = f"provider {name!r} cannot be loaded: {broken[name]}"
        raise ConfigError(msg)
    known = [*sorted({host.name for host in (*_built_in(), *(host for _, host in hosts))}), "local"]
    from difflib import get_close_matches

    near = [*providers_called(name)] or get_close_matches(name, known, n=3, cutoff=0.5)
    said = [
        f"unknown provider {name!r}"
        + (f"; did you mean {' or '.join(near)}?" if near else ".")
        + f" Known: {', '.join(known)}",
        *(f"not loaded: {why}" for why in broken.values()),
    ]
    raise ConfigError("; ".join(said))


def hosts() -> Iterator[Host]:
    """Every host: the built-in ones, then those of other wheels that can be loaded."""
    names = set()
    for host in (*_built_in(), *(host for _, host in _brought()[0])):
        if host.name not in names:
            names.add(host.name)
            yield host


def _built_in() -> Iterator[Host]:
    for module in _modules():
        yield from import_module(f"{__name__}.{module}").HOSTS


def _rows(name: str) -> Iterator[Host]:
    """Hosts in the order most likely to hold `name` soon: its own module, the many compatible ones, all."""
    for module in (name, "openai", "compatible"):
        if module in _modules():
            yield from import_module(f"{__name__}.{module}").HOSTS
    yield from _built_in()


def _modules() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__)]


def _brought() -> tuple[list[tuple[str, Host]], dict[str, str]]:
    """(wheel, host) of every host of other wheels; and name → wheel and reason of every entry that cannot be loaded."""
    from importlib.metadata import entry_points

    hosts: list[tuple[str, Host]] = []
    broken: dict[str, str] = {}
    for entry in entry_points(group=GROUP):
        who = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else entry.value
        try:
            rows = tuple(entry.load().HOSTS)
        except Exception as error:  # noqa: BLE001 (a module of others may do anything at its import)
            broken[entry.name] = f"{who} ({type(error).__name__}: {error})"
            continue
        if all(isinstance(row, Host) for row in rows):
            hosts += [(who, row) for row in rows]
        else:
            broken[entry.name] = f"{who} (HOSTS of {entry.value} holds something that is no embedkit.codec.Host)"
    return hosts, broken
