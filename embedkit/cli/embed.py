"""`embedkit embed`: a corpus of texts to a file, a folder or a store of vectors, as a job that can go on."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, get_args

import click

from .._bulk.job import Job, Settings
from .._bulk.sinks.open_sink import FORMS, open_sink
from .._bulk.sources.format_detection import FORMATS
from .._bulk.sources.open_source import open_files
from .._connect.model_name import split
from .._traffic.rate import Rate
from .._traffic.retry import RetryPolicy
from .._types import OnError
from ..errors import ConfigError
from .app import FILE, INTERRUPTED, PARTIAL, _asks, _connected, _run, _say, codes, root
from .progress import Teller, scanned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .._bulk.notices import Scanned
    from .._bulk.report import Report

LIMIT_REACHED = 4
STDOUT = "-"
SAME = "the same command"
STOPPED = {
    "asked": ("interrupted", SAME),
    "max_tokens": ("--max-tokens is reached", "a higher one"),
    "max_cost": ("--max-cost is reached", "a higher one"),
}  # why a job has stopped, and what goes on


@root.command(epilog=codes())
@click.argument("inputs", type=FILE, metavar="INPUT…", nargs=-1, required=True)
@click.option("-m", "--model", metavar="MODEL", help='"provider:model"; the bundled model unless given.')
@click.option(
    "-o", "--output", "out", type=FILE, metavar="OUT", default=STDOUT, show_default="JSONL on stdout",
    help="A file (.npy, .parquet, .arrow, .jsonl), a folder (OUT/), the URL of a store, or - for JSONL on stdout.",
)  # fmt: skip
@click.option("--column", default="text", metavar="NAME", show_default=True, help="The text's column; a.b is nested.")
@click.option("--template", metavar="TEXT", help='A text of several columns: "{title}\\n{body}".')
@click.option("--key", metavar="NAME", help="The column that names a row.")
@click.option(
    "--input-format",
    type=click.Choice(list(FORMATS)),
    help="What INPUT is, if neither its suffix nor its beginning tells.",
)
@click.option("--delimiter", metavar="CHAR", help="Between the fields of a CSV file; its beginning tells unless given.")
@click.option("--encoding", default="utf-8", metavar="NAME", show_default=True, help="Of text, JSON and CSV.")
@click.option("--output-format", type=click.Choice(list(FORMS)), help="What OUT is, if its suffix does not tell.")
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="Read N rows at most.")
@click.option(
    "--on-error",
    type=click.Choice(get_args(OnError)),
    default="skip",
    show_default=True,
    help="What a row without a text, or a refused one, does: become a failed row, or end the job.",
)
@click.option("--scan/--no-scan", default=True, help="Look through INPUT before the first request.")
@click.option("--dry-run", is_flag=True, help="Only look through INPUT: rows, bad rows, tokens, cost, room.")
@click.option(
    "--append", is_flag=True,
    help="Go on after a finished OUT whose rows begin INPUT; with --key, send new and changed records only.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Begin anew, and replace OUT; its batch jobs are canceled.")
@click.option(
    "--patience", type=click.FloatRange(min=0), default=600.0, metavar="SECONDS", show_default=True,
    help="Outage that the job outlasts.",
)  # fmt: skip
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="For one attempt.")
@click.option("--retries", type=click.IntRange(min=0), metavar="N", help="Of one request, before it counts as outage.")
@click.option(
    "--rate", "rates", multiple=True, metavar="N/min", help='At most "500 requests/min" or "1000000 tokens/min".'
)
@click.option("--max-tokens", type=click.IntRange(min=0), metavar="N", help="Stop before the job has taken more.")
@click.option("--max-cost", type=click.FloatRange(min=0), metavar="DOLLARS", help="Stop before the job has cost more.")
@click.option("--max-concurrency", type=click.IntRange(min=1), metavar="N", help="Most requests in flight.")
@click.option("--cache", type=FILE, metavar="FILE", help="Keep vectors there, and send no text again that it has.")
@click.option("--batch-api", is_flag=True, help="Use the provider's batch jobs: at a discount, within hours.")
@click.option("--json", "machine", is_flag=True, help="JSON lines on stdout instead of lines for people.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, no summary.")
@_asks
def embed(inputs: tuple[str, ...], model: str | None, out: str, **options: Any) -> None:
    """Embed the texts of INPUT into OUT: files, folders, globs, or - for stdin.

    Text has one text per line, and a blank line is a row with an empty text. JSONL has an object or a string per line,
    a JSON array likewise, CSV and TSV a header. Parquet and Arrow have columns. Any of them may be .gz or .zst. What
    stdin is, its beginning tells, unless --input-format does. Rows keep their order.

    Run again after any end (Ctrl-C, a crash, a full disk, an outage), the same command goes on where it was: what is
    unfinished lies in OUT.job. A finished job leaves OUT, OUT.report.json and, where rows failed, OUT.failures.jsonl.

    \b
    OUT        rows
    .npy       one matrix, row i for the i-th text: float32, or as --dtype says
    .parquet   the input's columns, "embedding" (a list of fixed size) and
               "embedding_error"; .arrow likewise
    OUT/       numbered Parquet files, for any number of rows
    .jsonl     the input's record (of JSONL: to the letter), and "embedding"
    a URL      of a store: lancedb:PATH#table, qdrant:URL#collection,
               postgresql://…#table, sqlite:PATH#table, duckdb:PATH#table

    A row without a text, or one that is refused, costs itself only: NaN in .npy (zeros where the type has no NaN), null
    elsewhere, and exit code 3. --on-error raise ends the job there instead.
    """  # noqa: D301 (click's mark for lines that stay as they are)
    quiet, machine = options.pop("quiet"), options.pop("machine")
    dry_run, cache = options.pop("dry_run"), options.pop("cache")
    if out == STDOUT and machine and not dry_run:
        msg = "--json writes to stdout, and so does the output: name a file with -o"
        raise ConfigError(msg)
    reading = {name: options.pop(name) for name in ("column", "template", "key", "delimiter", "encoding", "limit")} | {
        "form": options.pop("input_format")
    }
    settings = Settings(
        **{
            name: options.pop(name)
            for name in ("on_error", "scan", "append", "force", "patience", "max_tokens", "max_cost", "batch_api")
        }
    )
    retries = options.pop("retries")
    options["retry"] = None if retries is None else RetryPolicy(attempts=retries + 1)
    options["rate"] = _rate(options.pop("rates"))
    if cache is not None:
        options["cache"] = cache
    form = options.pop("output_format")
    teller = Teller(
        quiet=quiet, machine=machine, shares=out == STDOUT and sys.stdout is not None and sys.stdout.isatty(),
    )  # fmt: skip
    if dry_run and options["api_key_env"] is None and split(model)[0] != "local":
        options["api_key"] = "not-sent"  # nobody needs a key to see what a job would cost
    embedder = _connected(model, observe=teller.observe, **options)
    if out == STDOUT and sys.stdout is None:
        msg = "stdout is closed"
        raise ConfigError(msg)
    sink = open_sink(out, form, **{name: reading[name] for name in ("column", "template", "key")})
    source = open_files(
        inputs, **reading, carried=sink.carried, empty=embedder.accepts_empty, skip=settings.on_error == "skip"
    )
    job = Job(source, embedder, sink, settings, teller.told)
    teller.failures = str(job.work.failures) if sink.resumable else ""
    if dry_run:
        _show(_run(job.estimate), teller, machine=machine)
        return
    with teller:
        report, number = _run(lambda: _until_signal(job, embedder, quiet=quiet))
    _end(report, number, teller, job.kept, resumable=sink.resumable)


def _end(report: Report, number: int, teller: Teller, kept: str, *, resumable: bool) -> None:
    """The last line, and the exit code."""
    teller.finished(report)
    if not report.complete:
        why, way = STOPPED[report.stopped]
        _say(f"{why}; {_kept(kept, way, resumable=resumable, sent=teller.sent)}")
        raise click.exceptions.Exit(128 + number if number else LIMIT_REACHED)
    if report.failed and not report.already:
        raise click.exceptions.Exit(PARTIAL)


def _kept(kept: str, way: str, *, resumable: bool, sent: bool) -> str:
    """What is left of a job that was stopped, as `Job.kept` says it, and what goes on with it."""
    if kept:
        return f"{kept}; {way} goes on there"
    if not resumable:
        return "the output is not complete"
    return "no row had come back, and nothing is kept" if sent else "nothing was sent, and nothing is kept"


def _show(found: Scanned, teller: Teller, *, machine: bool) -> None:
    if machine:
        teller.told(found)
    else:
        click.echo(scanned(found))


async def _until_signal(job: Job, embedder: Any, *, quiet: bool) -> tuple[Report, int]:
    """Run the job. The first Ctrl-C (SIGTERM, SIGHUP) lets it write what is in flight, the second ends it at once.

    Returns:
        The report, and the number of the signal that stopped it, 0 for none.
    """
    import anyio

    numbers: list[int] = []

    def stop(number: int) -> None:
        numbers.append(number)
        if len(numbers) == 1 and job.sending:
            if not quiet:
                _say("stopping: what is in flight is still written (once more ends it at once)")
            job.stop()
        else:
            scope.cancel()

    with anyio.CancelScope() as scope, _signals(stop):
        async with embedder:
            return await job.run(), numbers[0] if numbers else 0
    _say(f"interrupted; {job.kept}; {SAME} goes on there" if job.kept else "interrupted")
    raise click.exceptions.Exit(128 + numbers[0] if numbers else INTERRUPTED)


@contextmanager
def _signals(handle: Callable[[int], None]) -> Iterator[None]:
    """Call `handle` on the event loop for every signal that ends a program, unless it is ignored."""
    import asyncio

    loop = asyncio.get_running_loop()
    before: dict[int, Any] = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is None or signal.getsignal(number) == signal.SIG_IGN:
            continue
        try:
            handler = signal.getsignal(number)
            loop.add_signal_handler(number, handle, number)
        except (NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread: as it was
            continue
        before[number] = handler
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


def _rate(given: tuple[str, ...]) -> Rate | None:
    """What "500 requests/min" and "1000000 tokens/min" say, as a `Rate`."""
    found: dict[str, int] = {}
    for each in given:
        count, _, what = each.strip().partition(" ")
        unit = what.strip().removesuffix("/min")
        if unit not in ("requests", "tokens") or not count.isdigit() or int(count) < 1 or unit in found:
            msg = f'--rate {each!r}: it is "N requests/min" or "N tokens/min", each once'
            raise ConfigError(msg)
        found[unit] = int(count)
    if not found:
        return None
    return Rate(requests_per_minute=found.get("requests"), tokens_per_minute=found.get("tokens"))
