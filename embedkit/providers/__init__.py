"""Providers, one file per dialect. Each file ends in `HOSTS`, a tuple of `Host` rows, and is found by being here.

To add an OpenAI-compatible host, add a row to `compatible.py`. To add a dialect, write one file: the page it
follows in the docstring, the reply structs with only the fields used, a `Dialect` with `encode`, `decode` and `explain`, and
`HOSTS`. Then put its recorded exchanges into `tests/golden/<host>/`; the conformance test finds them. A wheel of your own brings
hosts through the entry point group `embedkit.providers`, each entry naming a module with `HOSTS`.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..codec import Host

GROUP = "embedkit.providers"


def find(name: str) -> Host:
    """The host of this name.

    Raises:
        ConfigError: there is none; the message lists the nearest names.
    """
    for host in _rows(name):
        if host.name == name:
            return host
    known = [*sorted(host.name for host in hosts()), "local"]
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=3, cutoff=0.5)
    msg = (
        f"unknown provider {name!r}" + (f"; did you mean {' or '.join(near)}?" if near else "") + f" Known: {', '.join(known)}"
    )
    raise ConfigError(msg)


def hosts() -> Iterator[Host]:
    """Every host, built-in ones first."""
    for module in _modules():
        yield from import_module(f"{__name__}.{module}").HOSTS
    yield from _brought()


def _rows(name: str) -> Iterator[Host]:
    """Hosts in the order most likely to hold `name` soon: its own module, the many compatible ones, all, then other wheels'."""
    for module in (name, "openai", "compatible"):
        if module in _modules():
            yield from import_module(f"{__name__}.{module}").HOSTS
    yield from hosts()


def _modules() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__)]


def _brought() -> Iterator[Host]:
    from importlib.metadata import entry_points

    for entry in entry_points(group=GROUP):
        yield from entry.load().HOSTS
