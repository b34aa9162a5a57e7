"""How embedkit is installed. Every message that tells somebody to do it is made here.

The distribution is not on the package index yet, and `embedkit` there is a project of somebody else: so it is installed
from a checkout.
"""

from __future__ import annotations

DISTRIBUTION = "embedkit-client"
COMMAND = "pip install '.[{}]' in a checkout of embedkit"


def install(extra: str) -> str:
    """What to type for this extra, and where."""
    return COMMAND.format(extra)


def need(what: str, extra: str, *modules: str) -> None:
    """Refuse to go on without these modules.

    Raises:
        ModuleNotFoundError: one is missing; the message names the extra that brings it.
    """
    from importlib.util import find_spec

    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        msg = f"{what} needs {', '.join(missing)}: {install(extra)}"
        raise ModuleNotFoundError(msg, name=missing[0])


def version() -> str:
    """The version that is installed; "" where embedkit is not installed but only on the path."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as of

    try:
        return of(DISTRIBUTION)
    except PackageNotFoundError:
        return ""


__all__ = ["DISTRIBUTION", "install", "need", "version"]
