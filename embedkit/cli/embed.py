"""`embedkit embed`: a file of texts to a file of vectors."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, get_args

import click

from .._batching.options import stored_width
from .._bulk.format_detection import FORMATS
from .._bulk.outputs import FORMS, OUTPUTS, Jsonl, Output
from .._bulk.sources import INPUTS, TOLD, Rows, Source, form_of
from .._bulk.stdio import aside
from .._types import DType, OnError, Options
from ..codec.vector_math import missing_rows
from ..errors import ConfigError, EmbedkitError
from .app import INTERRUPTED, PARTIAL, _asks, _connected, _run, _say, root
from .progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from .._embedders.base import Embedder


@root.command()
@click.argument("source", metavar="INPUT")
@click.option("-m", "--model", metavar="MODEL", help='"provider:model"; the embedded model unless given.')
@click.option(
    "-o", "--output", "out", metavar="OUT", required=True, help=".npy, .parquet, .jsonl, or - for JSONL on stdout."
)
@click.option(
    "--input-format",
    type=click.Choice(list(FORMATS)),
    help="What INPUT is, if neither its suffix nor its beginning tells.",
)
@click.option("--output-format", type=click.Choice(list(FORMS)), help="What OUT is, if its suffix does not tell.")
@click.option("--column", default="text", metavar="NAME", show_default=True, help="The text's column or field.")
@click.option(
    "--on-error",
    type=click.Choice(get_args(OnError)),
    default="raise",
    show_default=True,
    help="What a row without a text, or a refused one, does.",
)
@click.option("--max-concurrency", type=click.IntRange(min=1), metavar="N", help="Most requests in flight.")
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, no summary.")
@_asks
def embed(source: str, model: str | None, out: str, **options: Any) -> None:
    """Embed the texts of INPUT (a file, or - for stdin) into OUT.

    Text has one text per line, and a blank line is a row with an empty text. JSONL has an object or a string per line,
    CSV and TSV a header. What stdin is, its beginning tells, unless --input-format does. Rows keep their order. OUT
    appears when everything is done, and not at all if something fails.

    A file is looked through before anything is sent: a row without a usable text (null, missing, no string, no JSON,
    not UTF-8) ends it there, unless --on-error skip makes it a failed row.

    \b
    OUT        rows
    .npy       one matrix, row i for the i-th text: float32, or what --dtype says
    .parquet   the input's columns, and "embedding", a list of fixed size
    .jsonl     the input's record (of JSONL: to the letter), and "embedding"

    With --on-error skip a row without a text, or one that is refused, costs itself only: NaN there (zeros where the
    type has no NaN, null in JSONL), the row and its error on stderr, exit code 3.
    """  # noqa: D301 (click's mark for lines that stay as they are)
    asked = options.pop("input_format")
    form = form_of(source, asked, INPUTS, TOLD, "--input-format")
    if source == "-" and sys.stdin is None:
        msg = "stdin is closed"
        raise ConfigError(msg)
    kind = form_of(out, options.pop("output_format"), OUTPUTS, "jsonl", "--output-format")
    target = _target(out, kind, force=options.pop("force"))
    column, skip, quiet = _column(options.pop("column")), options.pop("on_error") == "skip", options.pop("quiet")
    like = _like(options["dimensions"], options["dtype"] or "float32")
    progress = Progress(quiet=quiet, shares=target is None and sys.stdout.isatty())
    embedder = _connected(model, observe=progress.observe, **options)
    given = Source(
        name=source, form=form, column=column, sure=asked is not None, carried=kind if FORMS[kind].whole else "",
        skip=skip,
        empty=skip or embedder.accepts_empty,
    )  # fmt: skip
    rows = Rows(given.read())

    def work(output: Output) -> None:
        _run(lambda: _embed(embedder, rows, output, progress, skip=skip))
        output.finish()

    try:
        with progress:
            progress.expect(given.look_through())
            if target is None:
                work(Jsonl(None, column, like))
            else:
                _land(target, lambda folder: FORMS[kind](folder, column, like), work)
    except KeyboardInterrupt:
        _say("interrupted; nothing was written" if target else "interrupted; the output is not complete")
        raise click.exceptions.Exit(INTERRUPTED) from None
    progress.summarize()
    if progress.failed:
        raise click.exceptions.Exit(PARTIAL)


def _column(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        msg = f"--column {name!a} is not UTF-8"
        raise ConfigError(msg) from None
    return name


def _like(dimensions: int | None, dtype: DType) -> NDArray[Any]:
    """A matrix without rows, with the dtype and, if known, the width of the result."""
    return missing_rows(0, stored_width(Options(dimensions=dimensions, dtype=dtype)), dtype)


def _target(out: str, kind: str, *, force: bool) -> Path | None:
    """The file to write, None for stdout; ConfigError before any text is sent."""
    if out == "-":
        if kind != "jsonl":
            msg = f"{kind} does not go to stdout; name a file, or leave --output-format out"
            raise ConfigError(msg)
        if sys.stdout is None:
            msg = "stdout is closed"
            raise ConfigError(msg)
        return None
    path = Path(os.path.realpath(out))  # a symbolic link stays one
    if path.exists() and not path.is_file():
        msg = f"{out} is not a regular file (- is stdout)"
        raise ConfigError(msg)
    if path.exists() and not force:
        msg = f"{out} exists already; --force replaces it"
        raise ConfigError(msg)
    if not path.parent.is_dir():
        msg = f"{out}: there is no folder {Path(out).parent}"
        raise ConfigError(msg)
    return path


def _land(target: Path, make: Callable[[Path], Output], work: Callable[[Output], None]) -> None:
    """Write in a folder beside the target, move the result onto it
    when all went well; the folder is gone in any case.
    """
    with TemporaryDirectory(prefix=".embedkit-", dir=target.parent) as folder:
        with closing(make(Path(folder))) as output:
            work(output)
        Path(str(output.path)).replace(target)


async def _embed(embedder: Embedder, rows: Rows, output: Output, progress: Progress, *, skip: bool) -> None:
    async with embedder, embedder.stream(rows.texts(), on_error="skip" if skip else "raise") as parts:
        async for part in parts:
            pieces = rows.take(len(part))
            if output.path is None:  # the reader of a pipe may be slow
                await aside(output.write, pieces, part.vectors, part.failures)
            else:  # here: nothing is left running in the folder when Ctrl-C removes it
                output.write(pieces, part.vectors, part.failures)
            progress.add(part, rows.faults)
    if not progress.texts:
        output.write(rows.take(0), output.like)
    elif progress.failed == progress.texts:
        msg = "every text failed; nothing was written"
        raise EmbedkitError(msg)
