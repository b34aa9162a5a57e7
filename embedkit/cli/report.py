"""`embedkit report`: a finished bulk job as one HTML page, or as JSON."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from .._types import DType
from ..errors import ConfigError
from .app import FILE, LOCAL_CODES, _remember, _say, codes, root

if TYPE_CHECKING:
    from .._review.facts import Facts

STDOUT = "-"


@root.command(short_help="Show a finished job as one HTML page.", epilog=codes(*LOCAL_CODES))
@click.argument("out", type=FILE)
@click.option(
    "-o", "--output", "html", type=FILE, metavar="PAGE", help="The page: OUT.html unless given; - for stdout."
)
@click.option("--force", is_flag=True, help="Replace a page that is there.")
@click.option(
    "--texts", type=FILE, metavar="INPUT", help="What a .npy was embedded from, to show texts beside numbers of rows."
)
@click.option("--column", metavar="NAME", help="The column that is shown; that of the job unless given.")
@click.option(
    "--dtype", type=click.Choice(get_args(DType)), help="Of the vectors, where neither OUT nor a report says."
)
@click.option("--json", "machine", is_flag=True, help="JSON on stdout; a page only with -o.")
@click.option(
    "--traceback", is_flag=True, expose_value=False, callback=_remember, help="With an error, show where it came from."
)
def report(
    out: str,
    html: str | None,
    texts: str | None,
    column: str | None,
    dtype: DType | None,
    *,
    force: bool,
    machine: bool,
) -> None:
    """Show what the finished job of OUT has done, and what its vectors are like, as one HTML page.

    OUT is what `embedkit embed` has written: .parquet, .arrow, .jsonl, .npy, a folder of parts; of a store the report
    of its job only. The page needs no network. It has rows, failures by kind, tokens, cost and time (OUT.report.json,
    OUT.failures.jsonl), rates over time, lengths of the vectors, some rows and their nearest, equal vectors, and a map
    of a sample.

    OUT is read twice, a block at a time, so that it may be larger than memory.
    """
    from .._review.facts import place_of, reviewed

    if machine and html == STDOUT:
        msg = "--json writes to stdout, and so does -o -: name a file with -o"
        raise ConfigError(msg)
    target = None
    if html != STDOUT and not (machine and html is None):
        target = _target(place_of(out), html, force=force)
    facts = reviewed(out, dtype=dtype, texts=texts, column=column)
    if machine:
        from .._bulk.disk import to_json

        click.echo(to_json(facts).decode())
    if target is not None:
        _write(facts, target)
        if not machine:
            for note in facts.notes:
                _say(note)
            click.echo(target)
    elif not machine:
        from .._review.page import page

        click.echo(page(facts), nl=False)


def _target(place: Path, html: str | None, *, force: bool) -> Path:
    """Where the page goes.

    Raises:
        ConfigError: there is no such folder, a page is there already, or the page would take the place of the job's
            own files.
    """
    target = Path(html) if html is not None else place.with_name(f"{place.name}.html")
    place = Path(os.path.realpath(place))
    real = Path(os.path.realpath(target))
    own = {place, *(place.with_name(f"{place.name}{end}") for end in (".report.json", ".failures.jsonl", ".job"))}
    if own & {real, *real.parents}:
        msg = f"-o {target} is where the job keeps its own files: name another page"
        raise ConfigError(msg)
    if not real.parent.is_dir():
        msg = f"-o {target}: there is no such folder"
        raise ConfigError(msg)
    if real.is_dir():
        msg = f"-o {target} is a folder: name a file in it"
        raise ConfigError(msg)
    if real.exists() and not force:
        msg = f"{target} exists already; --force replaces it, -o names another"
        raise ConfigError(msg)
    return target


def _write(facts: Facts, target: Path) -> None:
    from .._bulk.journal import replace_file
    from .._review.page import page

    replace_file(Path(os.path.realpath(target)), page(facts).encode())
