"""Bulk jobs: texts from files or tables, vectors into a file or a store, resumable after any end.

>>> from embedkit import bulk
>>> report = await bulk.run("corpus.jsonl", "openai:text-embedding-3-small", "vectors.parquet", key="id")
>>> report.rows, report.failed
(200000, 0)

A job is a source, an embedder and a sink, with a journal in the folder `OUT.job` beside the output. Run again after any
end (an error, Ctrl-C, a killed process, a full disk), it goes on where it was: nothing that was written is sent again.
A finished job leaves the output, `OUT.report.json`, and `OUT.failures.jsonl` where rows failed; run again it sends
nothing. The command `embedkit embed` runs the same jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from inspect import cleandoc, signature
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from ._bulk.contract import Block, RowDigest, Scan, Sink, Source, State
from ._bulk.job import Job, Settings
from ._bulk.keywords import explain_in_python
from ._bulk.notices import BatchJob, Began, Notice, Paused, Progress, Resumed, RowFailed, Scanned
from ._bulk.report import Report
from ._bulk.sinks.open_sink import open_sink
from ._bulk.sources.open_source import open_source
from ._connect.factory import connect
from ._embedders.base import Embedder
from ._peers import answering_later
from ._types import OnError
from .errors import EmbedkitError
from .sync import SyncEmbedder
from .sync.portal import current

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = [
    "BatchJob",
    "Began",
    "Block",
    "Notice",
    "Paused",
    "Progress",
    "Report",
    "Resumed",
    "RowDigest",
    "RowFailed",
    "Scan",
    "Scanned",
    "Sink",
    "Source",
    "State",
    "estimate",
    "estimate_sync",
    "run",
    "run_sync",
]

P = ParamSpec("P")
T = TypeVar("T")


@answering_later
async def run(  # noqa: PLR0913 (each is a choice of the user)
    source: Any,
    embedder: str | Embedder | SyncEmbedder | None,
    output: str | PathLike[str] | Sink,
    *,
    column: str = "text",
    template: str | None = None,
    key: str | None = None,
    input_format: str | None = None,
    delimiter: str | None = None,
    encoding: str = "utf-8",
    output_format: str | None = None,
    limit: int | None = None,
    on_error: OnError = "skip",
    scan: bool = True,
    append: bool = False,
    force: bool = False,
    patience: float = 600.0,
    max_tokens: int | None = None,
    max_cost: float | None = None,
    batch_api: bool = False,
    progress: Callable[[Notice], object] | None = None,
) -> Report:
    """Embed every row of a source into an output; run again after any end, go on where it was.

    Args:
        source: a path, a glob or a folder, several of them, "-" for stdin, an iterable of texts or of dicts, a pyarrow,
            polars or pandas table or column, or a `Source` of your own.
        embedder: what `connect` makes, or "provider:model"; None: the model that EMBEDKIT_MODEL names, else the
            bundled model. One that is given stays open.
        output: a file (.npy, .parquet, .arrow, .jsonl), a folder ("vectors/": numbered Parquet parts), the URL of a
            store ("lancedb:PATH#table" …), or a `Sink` of your own.
        column: the text's column or field; "a.b" is field b of the object a.
        template: a text of several columns, as "{title}: {body}", in place of `column`.
        key: the column or field that names a row; stores write by it, and failed rows are listed with it.
        input_format: how files are read, where their suffix and beginning do not tell.
        delimiter: between the fields of CSV; its beginning tells, unless given.
        encoding: of text, JSON and CSV.
        output_format: what is written, where the name does not tell.
        limit: rows that are read at most.
        on_error: "skip" makes a row without a usable text, or one that the provider refuses, a failed row; "raise" ends
            the job there, and before the first request where looking through the input finds it.
        scan: look through files once before the first request: rows, bad rows, tokens, cost, room on disk.
        append: go on after a finished job whose rows are the beginning of this input.
        force: begin anew, and replace what is there; batch jobs that run for it at the provider are canceled.
        patience: seconds of outage that the job outlasts, after the embedder's own retries.
        max_tokens: of the whole job; it stops before it takes more.
        max_cost: US dollars, likewise.
        batch_api: have the provider's batch jobs do it: at a discount, within hours.
        progress: is called with each `Notice`.

    Returns:
        Report: what was done. `complete` is False where the job stopped at a limit.

    Raises:
        ConfigError: something cannot work, or the output belongs to another job; nothing was sent.
        EmbedkitError: the provider failed. A note on it says what is kept.
        OSError: a file cannot be read or written; with such a note.
    """
    async with _job(
        source, embedder, output, column=column, template=template, key=key, input_format=input_format,
        delimiter=delimiter, encoding=encoding, output_format=output_format, limit=limit, progress=progress,
        settings=Settings(
            on_error=on_error, scan=scan, append=append, force=force, patience=patience, max_tokens=max_tokens,
            max_cost=max_cost, batch_api=batch_api,
        ),
    ) as job:  # fmt: skip
        return await job.run()


@answering_later
async def estimate(  # noqa: PLR0913 (those of `run`)
    source: Any,
    embedder: str | Embedder | SyncEmbedder | None,
    output: str | PathLike[str] | Sink,
    *,
    column: str = "text",
    template: str | None = None,
    key: str | None = None,
    input_format: str | None = None,
    delimiter: str | None = None,
    encoding: str = "utf-8",
    output_format: str | None = None,
    limit: int | None = None,
    batch_api: bool = False,
) -> Scanned:
    """Look through a source as `run` does before its first request, and send nothing. The arguments are those of `run`.

    Raises:
        ConfigError: the source can be read once only, or not at all.
    """
    async with _job(
        source, embedder, output, column=column, template=template, key=key, input_format=input_format,
        delimiter=delimiter, encoding=encoding, output_format=output_format, limit=limit, progress=None,
        settings=Settings(batch_api=batch_api),
    ) as job:  # fmt: skip
        return await job.estimate()


def _sync(waited: Callable[P, Coroutine[Any, Any, T]]) -> Callable[[Callable[..., T]], Callable[P, T]]:
    """Gives a function the parameters of the coroutine function that it runs, for type checkers and `inspect`."""

    def dressed(function: Callable[..., T]) -> Callable[P, T]:
        function.__doc__ = f"{function.__doc__}\n\n{cleandoc(waited.__doc__ or '')}"
        outer: Any = wraps(waited, (), ())(function)  # whose module the names in its annotations are looked up in
        outer.__annotations__ = dict(waited.__annotations__)
        outer.__signature__ = signature(waited)
        return cast("Callable[P, T]", outer)

    return dressed


@_sync(run)
def run_sync(*args: Any, **keywords: Any) -> Report:
    """As `run`, for callers without an event loop. An iterable is read in the thread that calls."""
    return _finished(run(*args, **keywords))


@_sync(estimate)
def estimate_sync(*args: Any, **keywords: Any) -> Scanned:
    """As `estimate`, for callers without an event loop."""
    return _finished(estimate(*args, **keywords))


def _finished(work: Coroutine[Any, Any, T]) -> T:
    """What the coroutine returns. In a notebook, whose loop runs in this thread, it runs on embedkit's own."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    return current().finish(current().start(_Nobody(), lambda: work))


class _Nobody:
    """Who calls the portal; it has no sockets that would have to be closed at the end of the interpreter."""

    embedder: Any = None


@asynccontextmanager
async def _job(
    source: Any,
    embedder: str | Embedder | SyncEmbedder | None,
    output: str | PathLike[str] | Sink,
    *,
    settings: Settings,
    progress: Callable[[Notice], object] | None,
    output_format: str | None,
    input_format: str | None,
    column: str,
    template: str | None,
    key: str | None,
    **reading: Any,
) -> AsyncIterator[Job]:
    """A job, and an embedder that is closed after it where it was opened for it."""
    ours = embedder is None or isinstance(embedder, str)
    if isinstance(embedder, SyncEmbedder):
        used = embedder.embedder
    elif isinstance(embedder, Embedder):
        used = embedder
    elif ours:
        used = connect(embedder)
    else:
        msg = f'embedder is {type(embedder).__name__}; pass "provider:model", or what connect() makes'
        raise TypeError(msg)
    try:
        sink = output
        if not isinstance(sink, Sink):
            sink = open_sink(fspath(sink), output_format, column=column, template=template, key=key)
        given = source
        if not isinstance(source, Source):
            given = open_source(
                source, column=column, template=template, key=key, form=input_format, carried=sink.carried,
                empty=used.accepts_empty, skip=settings.on_error == "skip", **reading,
            )  # fmt: skip
        yield Job(given, used, sink, settings, progress or _ignore)
    except EmbedkitError as error:
        explain_in_python(error)
        raise
    finally:
        if ours:
            await used.aclose()


def _ignore(notice: Notice) -> None:
    """Nobody wants to know."""
