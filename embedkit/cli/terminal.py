"""What may be drawn: on a terminal that can, in colors where nobody asked for none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console


def draws(stream: TextIO | None, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether tables and bars may be drawn there: a terminal, and no dumb one."""
    return stream is not None and stream.isatty() and environment.get("TERM") != "dumb"


def colorless(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether colors are unwanted: NO_COLOR holds anything (https://no-color.org), or CLICOLOR is 0
    (https://bixense.com/clicolors).
    """
    return bool(environment.get("NO_COLOR")) or environment.get("CLICOLOR") == "0"


def console(**settings: Any) -> Console:
    """A console of rich that keeps to that."""
    from rich.console import Console

    return Console(no_color=colorless() or None, **settings)
