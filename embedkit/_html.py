"""A result as a notebook shows it: what it is and what it took, no vector."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from .errors import EmbedkitError

SHOWN = 5  # failures


def table(caption: str, facts: Mapping[str, str], failures: Mapping[int, EmbedkitError]) -> str:
    """A table of two columns, with everything escaped: a provider or a caller may have written it."""
    rows = [*facts.items()]
    rows += [(f"row {row}", f"{type(error).__name__}: {error}") for row, error in list(failures.items())[:SHOWN]]
    if len(failures) > SHOWN:
        rows.append(("…", f"{len(failures) - SHOWN:,} more in .failures"))
    body = "".join(
        f"<tr><th style='text-align: left'>{escape(name)}</th><td style='text-align: left'>{escape(value)}</td></tr>"
        for name, value in rows
    )
    return f"<table><caption>{escape(caption)}</caption>{body}</table>"


__all__ = ["table"]
