"""The commands: click reads the line, an embedder does the work, `_inputs` reads, `_outputs` writes, `_progress` tells of it.

Every error becomes one line on stderr and an exit code; `--traceback` adds where it came from.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import closing
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar, get_args
from urllib.parse import urlsplit

import click

from .. import catalog
from .._bulk.format_detection import FORMATS
from .._bulk.sinks import FORMS, OUTPUTS, Jsonl, Output
from .._bulk.sources import INPUTS, TOLD, Rows, Source, form_of
from .._bulk.stdio import aside
from .._connect.factory import connect
from .._connect.model_name import split
from .._install import DISTRIBUTION
from .._traffic.retry import RetryPolicy
from .._types import DType
from ..codec import Parameter
from ..codec.vector_math import empty
from ..errors import ConfigError, EmbedkitError
from ..providers import find
from .progress import Progress, in_line

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from numpy.typing import NDArray

    from .._embedders.base import Embedder
    from .._types import ModelFacts

T = TypeVar("T")
OF_LOCAL = {
    "path": Parameter(help="a directory with model.onnx"),
    "threads": Parameter(takes=(int,), help="how many processor cores to use"),
}
FAILED, USAGE, PARTIAL, INTERRUPTED, UNREAD = 1, 2, 3, 130, 141


class Root(click.Group):
    """The group, and the one place where errors become exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still buffered has nowhere to go
            raise click.exceptions.Exit(UNREAD) from None
        except KeyboardInterrupt:
            _say("interrupted")
            raise click.exceptions.Exit(INTERRUPTED) from None
        except (EmbedkitError, OSError) as error:
            if ctx.meta.get("traceback"):
                import traceback

                click.echo(traceback.format_exc(), err=True)
            hint = "; rows count from 0" if getattr(error, "rows", ()) else ""
            _say(f"{_line(error)}{hint}")
            ours = isinstance(error, ConfigError) or not isinstance(error, EmbedkitError)
            raise click.exceptions.Exit(USAGE if ours else FAILED) from None


def _say(text: str) -> None:
    click.echo(f"embedkit: {text}", err=True)


def _line(error: BaseException) -> str:
    if isinstance(error, OSError) and not isinstance(error, EmbedkitError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return in_line(error)


def _run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    import anyio

    return anyio.run(work, backend_options={"use_uvloop": find_spec("uvloop") is not None})


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name=DISTRIBUTION, message="%(prog)s %(version)s")
def root() -> None:
    """Text in, vectors out: any embedding provider, from the command line.

    A model is "provider:model", like openai:text-embedding-3-small or ollama:nomic-embed-text; without one it is what
    EMBEDKIT_MODEL names, else the model inside embedkit. Keys are read from the provider's own variables (OPENAI_API_KEY …).

    Exit codes: 0 done, 1 the provider or the network failed, 2 usage, configuration or a bad file, 3 done but for some rows,
    130 interrupted.
    """


# --- what embed and check share --------------------------------------------------------------------------------------


def _remember(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    ctx.meta[str(parameter.name)] = value


def _asks(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say how to connect."""
    kinds = click.Choice(["query", "document", "classification", "clustering", "similarity"])
    options = (
        click.option("--base-url", metavar="URL", help="Where the provider is, as its own docs call it."),
        click.option(
            "--api-key-env", metavar="NAME", help="The environment variable that holds the key (its name, not the key)."
        ),
        click.option("--input-type", type=kinds, help="What the texts are for."),
        click.option("--dimensions", type=click.IntRange(min=1), metavar="N", help="Components per vector."),
        click.option("--dtype", type=click.Choice(get_args(DType)), help="Their type; float32 unless given."),
        click.option(
            "--truncate", type=click.Choice(["end", "error"]), help="Cut over-long texts, or insist that they are refused."
        ),
        click.option(
            "--normalize/--no-normalize", default=None, help="Make every vector unit length, or leave it as it comes."
        ),
        click.option(
            "--param",
            "parameters",
            metavar="NAME=VALUE",
            multiple=True,
            help="What only this provider takes, as often as needed. Where it takes a number, true or false, or an object, VALUE is "
            'JSON (keep_alive=-1, legacy=false, model_options={"num_ctx": 2048}); where it takes text, VALUE is the text as it '
            "stands (api_version=20241021), or in JSON's double quotes.",
        ),
        click.option("--ca-file", metavar="PATH", help="Certificates (PEM) to trust instead of the system's."),
        click.option(
            "--insecure", is_flag=True, help="Believe any server: verify no certificate. Your key goes to whoever answers."
        ),
        click.option("--proxy", metavar="URL", help="Proxy to go through; else HTTPS_PROXY, HTTP_PROXY and NO_PROXY say."),
        click.option(
            "--traceback", is_flag=True, expose_value=False, callback=_remember, help="With an error, show where it came from."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _connected(model: str | None, *, api_key_env: str | None, parameters: tuple[str, ...], **asked: Any) -> Embedder:
    """The embedder, of what was asked for on the command line."""
    given = {name: value for name, value in asked.items() if value is not None}
    given.update(_trust(given.pop("ca_file", None), insecure=given.pop("insecure")))
    if api_key_env is not None:
        given["api_key"] = os.environ.get(api_key_env) or _no_key()
    try:
        return connect(model, **given, **_parameters(split(model)[0], parameters))
    except TypeError as error:
        raise ConfigError(str(error)) from error


def _trust(ca_file: str | None, *, insecure: bool) -> dict[str, Any]:
    """Whom to believe, as `connect` takes it; a file that holds no certificates is refused before anything is asked."""
    if ca_file is None:
        return {"ssl": False} if insecure else {}
    if insecure:
        msg = "--ca-file and --insecure contradict each other: pass one of them"
        raise ConfigError(msg)
    import ssl

    if not ca_file:  # the ssl module would take it for none
        msg = "--ca-file is empty: pass the path of certificates in PEM, or leave it out"
        raise ConfigError(msg)
    try:
        return {"ssl": ssl.create_default_context(cafile=ca_file)}
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        why = "there is no such file" if isinstance(error, FileNotFoundError) else f"it holds no certificates in PEM ({error})"
        msg = f"--ca-file {ca_file}: {why}"
        raise ConfigError(msg) from None


def _no_key() -> str:
    # The name is not repeated: whoever gets it wrong may have given the key itself.
    msg = "--api-key-env: there is no such variable, or it is empty (it takes the variable's name, never the key itself)"
    raise ConfigError(msg)


def _parameters(provider: str, pairs: tuple[str, ...]) -> dict[str, Any]:
    """Host parameters, each of the kind that it takes. Credentials are refused: a command line can be read by others and is remembered."""
    known = OF_LOCAL if provider == "local" else find(provider).parameters
    taken: dict[str, Any] = {}
    for pair in pairs:
        name, mark, value = pair.partition("=")
        if not mark or name not in known:
            takes = ", ".join(each for each, one in known.items() if not one.secret) or "none"
            msg = f"--param takes NAME=VALUE, with a parameter of {provider}'s own (there is {takes})"
            raise ConfigError(msg)
        declared = known[name]
        if declared.secret:
            instead = (
                f": set {' or '.join(declared.variables)} instead" if declared.variables else ", and those are not given here"
            )
            msg = f"--param {name} is a credential{instead}"
            raise ConfigError(msg)
        if name in taken:
            msg = f"--param {name} is given twice"
            raise ConfigError(msg)
        taken[name] = declared.read(name, declared.spelled(value))
    return taken


# --- embed -----------------------------------------------------------------------------------------------------------


@root.command()
@click.argument("source", metavar="INPUT")
@click.option("-m", "--model", metavar="MODEL", help='"provider:model"; the embedded model unless given.')
@click.option("-o", "--output", "out", metavar="OUT", required=True, help=".npy, .parquet, .jsonl, or - for JSONL on stdout.")
@click.option(
    "--input-format", type=click.Choice(list(FORMATS)), help="What INPUT is, if neither its suffix nor its beginning tells."
)
@click.option(
    "--output-format", type=click.Choice(["npy", "jsonl", "parquet"]), help="What OUT is, if its suffix does not tell."
)
@click.option("--column", default="text", metavar="NAME", show_default=True, help="The text's column or field.")
@click.option(
    "--on-error",
    type=click.Choice(["raise", "skip"]),
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

    Text has one text per line, and a blank line is a row with an empty text. JSONL has an object or a string per line, CSV and
    TSV a header. What stdin is, its beginning tells, unless --input-format does. Rows keep their order. OUT appears when
    everything is done, and not at all if something fails.

    A file is looked through before anything is sent: a row without a usable text (null, missing, no string, no JSON, not
    UTF-8) ends it there, unless --on-error skip makes it a failed row.

    \b
    OUT        rows
    .npy       one matrix, row i for the i-th text: float32, or what --dtype says
    .parquet   the input's columns, and "embedding", a list of fixed size
    .jsonl     the input's record (of JSONL: to the letter), and "embedding"

    With --on-error skip a row without a text, or one that is refused, costs itself only: NaN there (zeros where the type has no NaN, null in JSONL), the
    row and its error on stderr, exit code 3.
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
        name=source, form=form, column=column, sure=asked is not None, carried=kind if FORMS[kind].whole else "", skip=skip,
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
    progress.summarise()
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
    """No rows yet, of the type to come and, where it is known, the width."""
    return empty(0, (dimensions or 0) // (8 if dtype in ("binary", "ubinary") else 1), dtype)


def _target(out: str, kind: str, *, force: bool) -> Path | None:
    """Where the result goes, None for stdout; refused now rather than after an hour's work."""
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
    """Write in a folder beside the target, move the result onto it when all went well; the folder is gone in any case."""
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


# --- models ----------------------------------------------------------------------------------------------------------


@root.command(short_help="List the models whose width, limits and price are known.")
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
    elif sys.stdout.isatty():
        _draw([_row(name, facts) for name, facts in found])
    else:
        for row in (HEADS, *(_row(name, facts) for name, facts in found)):
            click.echo("\t".join(row))


HEADS = ("provider", "model", "width", "other widths", "tokens", "$/million")


def _row(provider: str, facts: ModelFacts) -> tuple[str, ...]:
    widths = facts.widths
    spelled = f"{widths[0]}-{widths[-1]}" if isinstance(widths, range) else ", ".join(map(str, widths))
    return provider, facts.name, _shown(facts.dimensions), spelled, _shown(facts.tokens), _shown(facts.price)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _described(provider: str, facts: ModelFacts) -> dict[str, Any]:
    widths = facts.widths
    return {
        "provider": provider, "model": facts.name, "dimensions": facts.dimensions,
        "widths": {"least": widths[0], "most": widths[-1]} if isinstance(widths, range) else list(widths),
        "max_tokens": facts.tokens, "price": facts.price, "source": facts.source,
    }  # fmt: skip


def _draw(rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for head in HEADS:
        justify: Any = "left" if head in HEADS[:2] else "right"
        most = len(head) if head == "other widths" else None  # the room is the model's, whose name is folded but never cut
        table.add_column(head, justify=justify, overflow="fold", no_wrap=head not in ("model", "other widths"), max_width=most)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


# --- check -----------------------------------------------------------------------------------------------------------


@root.command()
@click.argument("model", required=False)
@_asks
def check(model: str | None, **options: Any) -> None:
    """Embed one word with MODEL, twice, and say what came back."""
    embedder = _connected(model, retry=RetryPolicy(attempts=1), **options)
    for name, value in _run(lambda: _checked(embedder)):
        click.echo(f"{name:<12}{value}")


async def _checked(embedder: Embedder) -> list[tuple[str, str]]:
    import numpy as np

    async with embedder:
        times = [time.perf_counter()]
        for _ in range(2):
            result = await embedder.embed(["hello"])
            times.append(time.perf_counter())
    first, warm = (f"{(stop - start) * 1000:,.0f} ms" for start, stop in pairwise(times))
    tokens = result.usage.tokens
    measured = result.vectors.dtype.kind == "f"
    return [
        ("provider", embedder.provider),
        ("address", _public(getattr(embedder, "base_url", ""))),
        ("model", embedder.model if result.model == embedder.model else f"{embedder.model} (it calls itself {result.model})"),
        ("dimensions", str(result.dimensions)),
        ("norm", f"{float(np.linalg.norm(result.vectors[0])):.4f}") if measured else ("type", result.dtype),
        ("latency", f"{first} the first time, {warm} the second"),
        ("tokens", "not reported" if tokens is None else f"{tokens} for one word"),
    ]


def _public(url: str) -> str:
    """The address without what may be secret in it."""
    if not url:
        return "in this process"
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
