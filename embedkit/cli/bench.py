"""`embedkit bench`: models side by side on the same texts, as a table, as JSON, as a page."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from .._bench.builtin import PAIRS
from .._bench.corpus import Corpus, of_pairs, read
from .._bench.measure import Bench, Variant, measure, planned
from .._bench.page import COLUMNS, TITLE, heading, in_trouble, page
from .._bulk.sources.format_detection import FORMATS
from .._bulk.sources.open_source import open_files
from .._connect.model_name import split
from .._types import DType, safe_url
from ..errors import ConfigError, EmbedkitError
from .app import FAILED, FILE, PARTIAL, _asks, _connected, _run, _say, codes, root
from .progress import failing, in_line, printable
from .terminal import console, draws

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._embedders.base import Embedder

OWN = "own"
AT = ("@http://", "@https://")


def _asks_but_shape(command: Callable[..., None]) -> Callable[..., None]:
    return _asks(command, shape=False)


@root.command(
    short_help="Measure models side by side on the same texts.",
    epilog=codes(0, 1, 2, 3, 130, 141, c1="every model failed", c3="some models failed"),
)
@click.argument("models", metavar="MODEL…", nargs=-1, required=True)
@click.option(
    "--texts", "inputs", type=FILE, metavar="FILE", multiple=True, help="What embed reads; else a small set of its own."
)
@click.option("--column", default="text", metavar="NAME", show_default=True, help="The text's column; a.b is nested.")
@click.option("--query", metavar="NAME", help="The column of queries: the text of a row answers its query.")
@click.option("--label", metavar="NAME", help="The column of labels: texts with the same label belong together.")
@click.option("--input-format", type=click.Choice(list(FORMATS)), help="What FILE is, if its name does not tell.")
@click.option(
    "--limit", type=click.IntRange(min=2), default=1000, metavar="N", show_default=True, help="Rows read, at most."
)
@click.option("--calls", type=click.IntRange(min=1), default=100, metavar="N", show_default=True,
              help="Calls with one text, for the latency.")  # fmt: skip
@click.option("-k", type=click.IntRange(min=1), metavar="N", help="Of recall@k; 10, or a fifth of few texts.")
@click.option("--dimensions", default=OWN, metavar="N,N…", show_default=True, help="Widths; own is the model's.")
@click.option("--dtype", "dtypes", default="float32", metavar="NAME,…", show_default=True, help="Types of components.")
@click.option("--html", type=FILE, metavar="FILE", help="Write a page with plots there; it needs no network.")
@click.option("--json", "machine", is_flag=True, help="JSON on stdout instead of the table.")
@_asks_but_shape
def bench(models: tuple[str, ...], inputs: tuple[str, ...], **options: Any) -> None:
    """Measure each MODEL on the same texts; MODEL@URL names its server too (compatible:m@http://localhost:8000/v1).

    Every model is measured once for each of --dimensions with each of --dtype, as it answers when asked for that; one
    that fails costs its own row. A model that has no key, or that nobody knows, is refused before anything is sent.
    recall@k is the share of relevant texts among the first k: of those that --query or --label name, else of the k
    nearest that the first model finds. Bits are compared by their Hamming distance. Ctrl-C shows what is measured.

    Each measurement sends all texts once, and --calls and a few more texts one by one: it costs as much. With --query,
    queries and texts go out as such (input types), unless --input-type says otherwise.
    """
    reading = {name: options.pop(name) for name in ("column", "query", "label", "input_format", "limit")}
    asked_k, calls = options.pop("k"), options.pop("calls")
    html, machine = options.pop("html"), options.pop("machine")
    widths, dtypes = _widths(options.pop("dimensions")), _dtypes(options.pop("dtypes"))
    variants = _variants(models, widths, dtypes)
    _one_key(models, options)
    corpus = _corpus(inputs, **reading)
    k = corpus.neighbors(asked_k)
    input_type = options.get("input_type")
    place = None if html is None else _page_place(html)

    def connect(variant: Variant) -> Embedder:
        model, url = _place(variant.model)
        at = {"base_url": url} if url else {}
        return _connected(
            model, observe=failing(), **{**options, **at}, dimensions=variant.dimensions, dtype=variant.dtype
        )

    def tell(variant: Variant) -> None:
        if sys.stderr.isatty():
            width = variant.dimensions or "its own"
            _say(f"measuring {_shown(variant.model)}, {width} dimensions, {variant.dtype}")

    for model in models:
        connect(Variant(model=model))  # what has no key, or is no model, is refused before another is paid for
    made = planned(corpus, k)
    try:
        _run(
            lambda: measure(
                made, variants, connect, corpus, calls=calls, input_type=input_type, tell=tell, reason=_reason
            )
        )
    finally:  # an interrupt keeps what was measured so far
        for row in made.rows:
            row.model = _shown(row.model)
        if made.rows:
            _show(made, machine=machine)
            if place is not None:
                place.write_text(page(made), "utf-8")
    failed = sum(row.error is not None for row in made.rows)
    if failed:
        raise click.exceptions.Exit(FAILED if failed == len(made.rows) else PARTIAL)


def _reason(error: EmbedkitError) -> str:
    return printable(in_line(error))


def _page_place(html: str) -> Path:
    """Where the page goes, seen to be writable before anything is paid for.

    Raises:
        ConfigError: there is no such folder, it cannot be written, or something else is there that is not to be lost.
    """
    place = Path(html)
    if not html or not place.absolute().parent.is_dir():
        msg = f"--html {html}: there is no folder {place.parent}" if html else "--html is empty: name a file"
        raise ConfigError(msg)
    if place.is_dir():
        msg = f"--html {html}: this is a folder; name a file in it"
        raise ConfigError(msg)
    if place.is_file() and place.stat().st_size and TITLE not in place.read_bytes()[:1000].decode("utf-8", "replace"):
        msg = f"--html {html}: there is a file that is no page of embedkit bench, which is not replaced; name another"
        raise ConfigError(msg)
    if not os.access(place if place.exists() else place.absolute().parent, os.W_OK):
        msg = f"--html {html}: it cannot be written; name a file in a folder of yours"
        raise ConfigError(msg)
    return place


def _variants(models: tuple[str, ...], widths: list[int | None], dtypes: list[DType]) -> list[Variant]:
    """What is measured, the first model as it is by itself first: the others are compared with that."""
    product = [
        Variant(model=model, dimensions=width, dtype=dtype) for model in models for width in widths for dtype in dtypes
    ]
    return list(dict.fromkeys([Variant(model=models[0]), *product]))


def _widths(given: str) -> list[int | None]:
    found: list[int | None] = []
    for each in given.split(","):
        name = each.strip()
        if name != OWN and not (name.isascii() and name.isdigit() and int(name) > 0):
            msg = f"--dimensions {given!r}: it is widths with commas between them, each a number from 1 or {OWN!r}"
            raise ConfigError(msg)
        found.append(None if name == OWN else int(name))
    return found


def _dtypes(given: str) -> list[DType]:
    found: list[DType] = []
    for each in given.split(","):
        known = next((dtype for dtype in get_args(DType) if dtype == each.strip()), None)
        if known is None:
            msg = f"--dtype {given!r}: it is types with commas between them, of {', '.join(get_args(DType))}"
            raise ConfigError(msg)
        found.append(known)
    return found


def _one_key(models: tuple[str, ...], options: dict[str, Any]) -> None:
    """Refuse what belongs to one provider where there are several: a key would go to all of them."""
    providers = sorted({split(_place(model)[0])[0] for model in models})
    for name, option in (("api_key_env", "--api-key-env"), ("base_url", "--base-url"), ("parameters", "--param")):
        if options.get(name) and len(providers) > 1:
            msg = f"{option} with models of several providers ({', '.join(providers)}): it holds for one; run it apart"
            raise ConfigError(msg)


def _place(model: str) -> tuple[str, str]:
    """Model and URL of "provider:model@URL"; the URL is empty where there is none."""
    cut = min((place for mark in AT if (place := model.find(mark)) >= 0), default=-1)
    return (model, "") if cut < 0 else (model[:cut], model[cut + 1 :])


def _shown(model: str) -> str:
    """The same without what a URL may hide: a user, a query."""
    name, url = _place(model)
    return f"{name}@{safe_url(url)}" if url else name


def _corpus(
    inputs: tuple[str, ...], *, column: str, query: str | None, label: str | None, input_format: str | None, limit: int
) -> Corpus:
    if query is not None and label is not None:
        msg = "--query and --label contradict each other: a file has pairs, or texts with labels"
        raise ConfigError(msg)
    if not inputs:
        if query is not None or label is not None or column != "text":
            msg = "--column, --query and --label are columns of a file: name it with --texts"
            raise ConfigError(msg)
        return of_pairs(PAIRS, "built-in texts")
    key = query if query is not None else label
    option = "--query" if query is not None else "--label"
    source = open_files(inputs, column=column, key=key, key_option=option, form=input_format, limit=limit, empty=False)
    kind = "pairs" if query is not None else "classes" if label is not None else "texts"
    name = ", ".join("stdin" if each == "-" else printable(each) for each in inputs)
    return read(source, name, kind=kind)


def _show(made: Bench, *, machine: bool) -> None:
    if machine:
        import msgspec

        click.echo(msgspec.json.encode(made).decode())
        return
    heads = ("model", *(each.head.format(k=made.k) for each in COLUMNS))
    rows = [
        (row.model, *([""] * len(COLUMNS) if row.error is not None else [each.cell(row) for each in COLUMNS]))
        for row in made.rows
    ]
    click.echo(heading(made))
    if draws(sys.stdout):
        _draw(heads, rows)
    else:
        for cells in (heads, *rows):
            click.echo("\t".join(map(printable, cells)))
    for row in made.rows:
        if (trouble := in_trouble(row)) is not None:
            click.echo(f"{row.model}, {trouble}")


def _draw(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number else "left", overflow="fold")
    for cells in rows:
        table.add_row(*map(Text, cells))
    console(file=sys.stdout, highlight=False).print(table)
