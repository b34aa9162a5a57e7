"""`embedkit models`: what is known of models."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from .. import catalog
from .app import LOCAL_CODES, _say, codes, root
from .terminal import console, draws

if TYPE_CHECKING:
    from .._types import ModelFacts


@root.command(short_help="List the models whose width, limits and price are known.", epilog=codes(*LOCAL_CODES))
@click.argument("words", metavar="[FILTER]...", nargs=-1)
@click.option("--provider", metavar="NAME", help="Of this provider only.")
@click.option("--json", "as_json", is_flag=True, help="As a list of JSON objects.")
def models(words: tuple[str, ...], provider: str | None, *, as_json: bool) -> None:
    """List the models whose width, limits and price are known; any other model works too.

    A model is listed if its "provider:model" contains every FILTER. In a pipe: tab-separated, with a line of names.
    """
    found = [
        (name, facts)
        for name, known in sorted(catalog.MODELS.items())
        for facts in known
        if provider in (None, name) and all(word.lower() in f"{name}:{facts.name}".lower() for word in words)
    ]
    if as_json:
        click.echo(json.dumps([_described(name, facts) for name, facts in found], indent=2))
    elif not found:
        _say(f"no model matches (there are models of {', '.join(sorted(catalog.MODELS))})")
    elif draws(sys.stdout):
        _draw([_row(name, facts) for name, facts in found])
    else:
        for row in (HEADS, *(_row(name, facts) for name, facts in found)):
            click.echo("\t".join(row))


HEADS = ("provider", "model", "width", "other widths", "tokens", "$/million", "in batches")


def _row(provider: str, facts: ModelFacts) -> tuple[str, ...]:
    widths = facts.widths
    spelled = f"{widths[0]}-{widths[-1]}" if isinstance(widths, range) else ", ".join(map(str, widths))
    return (
        provider,
        facts.name,
        _shown(facts.dimensions),
        spelled,
        _shown(facts.tokens),
        _shown(facts.price),
        _shown(facts.batch_price),
    )


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _described(provider: str, facts: ModelFacts) -> dict[str, Any]:
    widths = facts.widths
    return {
        "provider": provider, "model": facts.name, "dimensions": facts.dimensions,
        "widths": {"least": widths[0], "most": widths[-1]} if isinstance(widths, range) else list(widths),
        "max_tokens": facts.tokens, "price": facts.price, "batch_price": facts.batch_price,
        "source": facts.source,
    }  # fmt: skip


def _draw(rows: list[tuple[str, ...]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for head in HEADS:
        justify: Any = "left" if head in HEADS[:2] else "right"
        most = len(head) if head == "other widths" else None  # the model's name, folded but never cut, gets the room
        table.add_column(
            head, justify=justify, overflow="fold", no_wrap=head not in ("model", "other widths"), max_width=most
        )
    for row in rows:
        table.add_row(*row)
    console().print(table)
