"""`embedkit providers`: every host, and whether a key for it is found. Keys themselves are never shown."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from .. import providers as hosts_of
from ..codec import Host
from .app import LOCAL_CODES, _say, codes, root
from .terminal import console, draws


@root.command(short_help="List the providers, and whether a key for each is found.", epilog=codes(*LOCAL_CODES))
@click.argument("words", metavar="[FILTER]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="As a list of JSON objects.")
def providers(words: tuple[str, ...], *, as_json: bool) -> None:
    """List the providers, and whether a key for each is found in the environment. No key is ever shown.

    A provider is listed if its name contains every FILTER. In a pipe: tab-separated, with a line of names.
    """
    found = [
        described(host, os.environ)
        for host in sorted(hosts_of.hosts(), key=lambda host: host.name)
        if all(word.lower() in host.name for word in words)
    ]
    if all(word.lower() in "local" for word in words):
        found.insert(0, LOCAL)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif not found:
        _say("no provider matches; embedkit providers lists all")
    elif draws(sys.stdout):
        _draw([_row(each) for each in found])
    else:
        for row in (HEADS, *map(_row, found)):
            click.echo("\t".join(row))


HEADS = ("provider", "key", "variables", "base URL")
LOCAL: dict[str, Any] = {
    "provider": "local", "key": "not needed", "found_in": None, "variables": [], "base_url": None, "url_variables": [],
    "parameters": {},
}  # fmt: skip


def described(host: Host, environment: Mapping[str, str]) -> dict[str, Any]:
    """A host in JSON. Of a key there is only where it was found.

    Its "key" is "found", "missing" (nothing can be sent without one), "not set" (it may do without) or "not needed".
    """
    stand_ins = [name for one in host.parameters.values() if one.key for name in one.variables]
    variables = [*host.key_variables, *stand_ins]
    where = next((name for name in variables if environment.get(name, "").strip()), None)
    if where is None and host.key_file is not None and (path := host.key_file(environment)) and Path(path).is_file():
        where = path
    lacking = "missing" if host.key_required else "not set" if variables else "not needed"
    return {
        "provider": host.name,
        "key": "found" if where else lacking,
        "found_in": where,
        "variables": variables,
        "base_url": host.base_url,
        "url_variables": list(host.url_variables),
        "parameters": {name: one.help for name, one in host.parameters.items()},
    }


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    key = f"found in {found['found_in']}" if found["found_in"] else found["key"]
    return found["provider"], key, ", ".join(found["variables"]), found["base_url"] or ", ".join(found["url_variables"])


def _draw(rows: list[tuple[str, ...]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for head in HEADS:
        table.add_column(head, overflow="fold", no_wrap=head == HEADS[0])
    for name, key, *rest in rows:
        style = "green" if key.startswith("found") else "red" if key == "missing" else ""
        table.add_row(Text(name), Text(key, style), *map(Text, rest))
    console().print(table)
