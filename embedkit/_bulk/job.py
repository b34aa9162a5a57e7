"""A job: a source, a sink and a journal around `Embedder.stream`. Run again after any end, it goes on where it was.

What happens, in order: the input is looked through (`scan`); an unfinished job at this output is found and compared
with this one; the rows that it wrote are left out; parts come back and are written (`writer`), each at most a second
before the journal says so; at the end the output is moved to its name, the report is written, and the job's folder is
removed. A crash at any point of that is gone on with: `Checkpoint.complete` says that only the end is missing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import msgspec

from .._batching.options import stored_width, validated
from .._batching.plan import estimate
from .._embedders.base import Embedder
from .._embedders.cached import Cached
from .._embedders.wrapper import Wrapped
from .._threads import aside
from .._types import PACKED, Embeddings, OnError
from ..codec.vector_math import missing_rows
from ..errors import ConfigError, EmbedkitError
from .budget import Budget
from .contract import RowDigest, Scan, Sink, Source
from .feed import Feed
from .identity import ROWS, changed, header_of, metadata_of, refusal, ways_out
from .journal import Checkpoint, Header, Journal, Line, Totals
from .known import KnownTexts, Selected, known_texts, selected
from .notices import BatchJob, Began, Notice, Progress, RowFailed, Scanned
from .parked import ParkedBlocks
from .patience import Patient, StoppedError, is_outage
from .report import Report, read_report, thinned
from .sinks.file_sink import FileSink
from .stdio import aside as left_behind
from .stores.base import Store
from .tally import Tally
from .workplace import Workplace
from .writer import Rows, Writer

T = TypeVar("T")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a job is run; `embedkit.bulk.run` says what each means."""

    on_error: OnError = "skip"
    scan: bool = True
    append: bool = False
    force: bool = False
    patience: float = 600.0
    max_tokens: int | None = None
    max_cost: float | None = None
    batch_api: bool = False


class Job:
    """One run of a job.

    Args:
        source, embedder, sink: what to read, what embeds, where vectors go.
        settings: how.
        tell: is called with each `Notice`; what it raises ends the job.
        now, sleep: the clock of outages and checkpoints.

    Attributes:
        work: the names around the output.
    """

    def __init__(
        self,
        source: Source,
        embedder: Embedder,
        sink: Sink,
        settings: Settings,
        tell: Callable[[Notice], object],
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] | None = None,
    ) -> None:
        self._source = source
        self._embedder = embedder
        self._sink = sink
        self._settings = settings
        self._tell = tell
        self._now = now
        self._sleep = sleep
        self.work: Workplace = Workplace(sink.target, sink.place)
        self._options = validated(embedder.options)
        self._rows: int | None = None  # of the whole input, where that is known
        self._stopped = ""
        self._tally = Tally(Totals(), now)
        self._feed: Feed | None = None
        self._patient: Patient | None = None
        self._budget: Budget | None = None
        self._journal: Journal | None = None
        self._loop: Any = None
        self._reading: Any = None  # the cancel scope of whoever waits for jobs at the provider

    async def run(self) -> Report:
        """Run it to its end.

        Raises:
            ConfigError: something cannot work, or the output belongs to another job; nothing was sent.
            EmbedkitError: the provider failed for longer than the job's patience, or refused the key, the quota or the
                request. A note on the error says what is kept.
            OSError: a file cannot be read or written; with such a note.
        """
        if self._sink.resumable:
            return await self._run()
        with TemporaryDirectory(prefix="embedkit-") as folder:  # nothing is left of a job whose output is a pipe
            self.work = Workplace(self._sink.target, Path(folder) / "pipe")
            return await self._run()

    async def _run(self) -> Report:
        self._loop = _running_loop()
        self._check()
        self._sink.expect(metadata_of(self._embedder))
        scan = await aside(self._scan)
        header = header_of(self._source, self._embedder, self._sink, self._options, scan)
        earlier = await aside(self._finished_before, header)
        if earlier is not None:
            if not (header.digest and earlier.job is not None and earlier.job.digest):
                await self._compare_rows(earlier)
            await aside(self.work.sweep)
            return earlier
        await aside(self.work.enter)
        journal: Journal | None = None
        try:
            if self._settings.force:
                await self._give_up_jobs(header)
            journal = self._journal = await aside(self._open, header)
            if journal.header is not None and journal.header.by_key:
                await aside(self._leave_out_known)
            report = await self._go_on(journal)
            if not report.complete and self._nothing_kept(journal):
                journal.close()
                await aside(self.work.remove)
        except BaseException as error:
            if journal is not None:
                self._take_leave(error, journal)
            raise
        else:
            return report
        finally:
            if journal is not None:
                journal.close()
            self.work.leave()

    @property
    def sending(self) -> bool:
        """Whether the input has been looked through, and requests leave."""
        return self._feed is not None

    def stop(self, why: str = "asked") -> None:
        """Send nothing more; what is in flight comes back and is written, and `run` returns a report that says so.

        May be called from any thread.
        """
        self._stopped = self._stopped or why
        if self._loop is not None and _running_loop() is not self._loop:
            with contextlib.suppress(RuntimeError):  # it has ended, and the job with it
                self._loop.call_soon_threadsafe(self.stop)
            return
        if self._feed is not None:
            self._feed.stop()
        if self._patient is not None:
            self._patient.stop()
        if self._reading is not None:  # jobs at the provider go on there, for the next run to find
            self._reading.cancel()

    async def estimate(self) -> Scanned:
        """Look through the input, and do nothing else."""
        scan = await aside(self._source.scan, estimate)
        if scan is None:
            msg = "this input can be read once only, so that it cannot be looked through first: pass a file"
            raise ConfigError(msg)
        return self._scanned(scan)

    # --- before the first request ------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._settings.batch_api and isinstance(self._embedder, Cached):
            raise ConfigError("batch jobs ask no cache: leave cache= out, or batch_api=True")
        if self._settings.batch_api and self._by_key() and isinstance(self._sink, FileSink):
            msg = "batch jobs cannot leave out what a file has already: write into a store, or leave batch_api=True out"
            raise ConfigError(msg)
        for name in self._source.described().get("inputs", ()):
            self._check_place(name)
        for name in ("patience", "max_tokens", "max_cost"):
            value = getattr(self._settings, name)
            if value is not None and not (isinstance(value, (int, float)) and value >= 0):
                msg = f"{name}={value!r}: it is a number, 0 or more"
                raise ConfigError(msg)
        if self._settings.max_cost is not None and self._price() is None:
            model = f"{self._embedder.provider}:{self._embedder.model}"
            msg = f"max_cost={self._settings.max_cost:g}: no price of {model} is known; pass max_tokens= instead"
            raise ConfigError(msg)

    def _check_place(self, name: str) -> None:
        """Refuse an output that would be read as input next time, or take the place of the only copy of the texts."""
        read, place = Path(os.path.realpath(name)), self.work.place
        if place == read and not read.is_dir() and not self._sink.carried:
            msg = f"{self._sink.target} is the input, and vectors alone would take its place; name another output"
            raise ConfigError(msg)
        if (place == read and read.is_dir()) or (place != read and place.is_relative_to(read)):
            msg = (
                f"{self._sink.target} lies in {name}, which is read: another run would read it as input; "
                "put it somewhere else"
            )
            raise ConfigError(msg)

    def _price(self) -> float | None:
        """US dollars per million tokens, in the way that is asked for."""
        return (
            getattr(_innermost(self._embedder), "batch_price", None)
            if self._settings.batch_api
            else self._embedder.price
        )

    def _scan(self) -> Scan | None:
        scan = self._source.scan(estimate) if self._settings.scan else None
        if scan is None:
            return None
        self._rows = scan.rows
        if scan.rows and scan.bad == scan.rows:
            row, why = next(iter(scan.examples.items()), (0, ""))
            msg = f"no row has a text that can be used; row {row}, {why}"
            raise ConfigError(msg)
        found = self._scanned(scan)
        if found.room is not None and found.free is not None and found.room > found.free:
            msg = (
                f"{self._sink.target} will take about {found.room / 1e9:,.2f} GB, and {found.free / 1e9:,.2f} GB are "
                "free there; make room, or leave this check out with --no-scan"
            )
            raise ConfigError(msg)
        self._tell(found)
        return scan

    def _scanned(self, scan: Scan) -> Scanned:
        price = self._price()
        width = self._embedder.known_width(self._options) or stored_width(self._options)
        like = missing_rows(0, width, self._options.dtype)
        parent = self.work.place.parent
        return Scanned(
            scan=scan,
            cost=None if price is None else scan.tokens * price / 1e6,
            room=self._sink.room_needed(scan.rows, like, scan.bytes) if width else None,
            free=shutil.disk_usage(parent).free if parent.is_dir() else None,
        )

    def _finished_before(self, header: Header) -> Report | None:
        """The report of this very job, finished before. ConfigError where the output is not ours to write."""
        work, append = self.work, self._settings.append
        if self._settings.force or work.unfinished():
            return None
        report = read_report(work.report)
        if report is None or report.job is None:
            if self._sink.exists():
                msg = f"{work.output} exists already, and no report says that this job made it; --force replaces it"
                raise ConfigError(msg)
            return None
        if report.rows and self._sink.gone():
            msg = (
                f"{work.output} is gone, though a job has finished it ({work.report}): put it back, or begin anew with "
                "--force"
            )
            raise ConfigError(msg)
        differs = changed(report.job, header, append=append)
        if differs:
            ways = ways_out(report.job, header, differs, done=report.rows, keyed=self._knows_keys())
            raise ConfigError(refusal(work.output, differs, ways, unfinished=False))
        return None if append else msgspec.structs.replace(report, already=True)

    async def _compare_rows(self, report: Report) -> None:
        """Refuse rows that are not those of a finished job, where no look through the input has told: a pipe's."""
        read = left_behind if self._source.aside else _here
        if not await read(_holds, self._source, report.rows, report.digest):
            differs = [f"{ROWS} are others"]
            none = Header(identity={})  # nobody has counted the rows of a pipe
            ways = ways_out(none, none, differs, done=report.rows, keyed=self._knows_keys())
            raise ConfigError(refusal(self.work.output, differs, ways, unfinished=False))

    def _open(self, header: Header) -> Journal:
        """The journal, its header written or compared."""
        if self._settings.force:
            self.work.clear()
        journal = Journal(self.work.folder)
        try:
            self._compare(journal, header)
            journal.append(Line(run=time.time()))
        except BaseException:
            journal.close()
            raise
        return journal

    async def _give_up_jobs(self, header: Header) -> None:
        """Cancel what an unfinished job has running at the provider: nobody would collect it, and it would be paid.

        Raises:
            ConfigError: it was sent to another provider, or to another base URL.
            EmbedkitError: the provider could not be asked; nothing is replaced.
        """
        if not self.work.unfinished():
            return
        try:
            journal = Journal(self.work.folder)
        except ConfigError:  # it cannot be read, and so names no job
            return
        try:
            jobs = journal.jobs_at_the_provider()
            if not jobs:
                return
            way = f"run that job again without --force to collect them, or cancel them and delete {self.work.folder}"
            shown = f"{self.work.output}: an unfinished job has batch jobs running at the provider ({', '.join(jobs)})"
            before, now = (each.identity if each else {} for each in (journal.header, header))
            if _asked_at(before) != _asked_at(now):
                msg = f"{shown}, and they were sent to {' at '.join(_asked_at(before))}: {way}"
                raise ConfigError(msg)
            try:
                await self._cancel(journal)
            except EmbedkitError as error:
                error.add_note(f"{shown}, and they could not be canceled; nothing was replaced; {way}")
                raise
        finally:
            journal.close()

    async def _cancel(self, journal: Journal) -> None:
        from .provider_batch.stream import batch_stream

        stream = batch_stream(
            self._embedder, [], self._options, store=journal, folder=self.work.folder, on_event=self._tell_batch
        )
        await stream.cancel()
        await stream.aclose()

    def _compare(self, journal: Journal, header: Header) -> None:
        """Whether a journal is this job's; a new one gets its header."""
        append, before = self._settings.append, journal.header
        if before is None:
            self._start(journal, header)
            return
        # Rows that a store was asked for are counted without the others: they cannot become more.
        fixed = before.by_key and isinstance(self._sink, Store)
        differs = changed(before, header, append=append and not fixed)
        if differs:
            done = journal.last.totals.rows if journal.last is not None else 0
            ways = "" if fixed else ways_out(before, header, differs, done=done, keyed=False)
            raise ConfigError(refusal(self.work.output, differs, ways, unfinished=True))
        jobs = journal.jobs_under_way()
        if jobs and not self._settings.batch_api:
            msg = (
                f"{self.work.output}: texts of this job wait in batch jobs at the provider ({', '.join(jobs)}); "
                "go on with --batch-api, or begin anew with --force, which cancels those jobs"
            )
            raise ConfigError(msg)
        if append and header.digest != before.digest:
            kept = {"by_key": before.by_key, "replaces": before.replaces}
            journal.append(Line(header=msgspec.structs.replace(header, **kept)))

    def _by_key(self) -> bool:
        """Whether a new job adds records to a finished output by their key: what did not change is not sent."""
        return self._settings.append and self._knows_keys()

    def _knows_keys(self) -> bool:
        """Whether records have keys, by which the output knows them again."""
        return self._source.described().get("key") is not None and (
            isinstance(self._sink, Store) or (isinstance(self._sink, FileSink) and bool(self._sink.carried))
        )

    def _leave_out_known(self) -> None:
        """Find out what the finished output has already."""
        if isinstance(self._sink, Store):
            self._source, self._rows = selected(self._sink, self._source, self.work.folder)
            return
        report = read_report(self.work.report)
        if report is not None and isinstance(self._sink, FileSink):
            like = missing_rows(0, report.width, self._options.dtype)
            folder, source = self.work.folder, self._source
            self._embedder = known_texts(self._embedder, self._options, self._sink, source, folder, like)

    def _start(self, journal: Journal, header: Header) -> None:
        """Write the first line; with `append` also what a finished job has done."""
        report = read_report(self.work.report) if self._settings.append else None
        replaces = self._settings.force or report is not None
        header = msgspec.structs.replace(header, by_key=self._by_key(), replaces=replaces)
        if report is None or self._by_key():
            journal.append(Line(header=header))
            return
        state = self._sink.reopen(self.work.folder, report.state)
        failures = self.work.copy_failures()
        totals = Totals(
            rows=report.rows, failed=report.failed, tokens=report.tokens, cost=report.cost, requests=report.requests,
            retries=report.retries, cached=report.cached, seconds=report.seconds,
        )  # fmt: skip
        done = Checkpoint(totals=totals, digest=report.digest, width=report.width, state=state, failures=failures)
        journal.append(Line(header=header, checkpoint=done))

    # --- rows --------------------------------------------------------------------------------------------------------

    async def _go_on(self, journal: Journal) -> Report:
        last = journal.last
        if last is not None and last.complete and self._sink.finished(self.work.folder, last.state):
            report = await aside(self._settle, journal)
            return await self._run() if self._settings.append else report
        writer = Writer(self._sink, journal, self.work.folder, self._options, self._now)
        try:
            await aside(writer.begin, last)
            if last is None or not last.complete or self._settings.append:
                feed = self._feed = self._new_feed(journal)
                await self._embed(feed, writer, journal)
                if feed.cut_short:
                    return self._report(journal, complete=False)
                await aside(self._keep_what_came, journal, feed)
                self._refuse_nothing(journal)
                self._refuse_to_replace(journal)
                await aside(writer.complete, feed.digest.hex())
            await aside(self._sink.finish, metadata_of(self._embedder))
            return await aside(self._settle, journal)
        finally:
            if self._feed is not None:
                self._feed.close()
            writer.close()
            self._sink.close()
            if isinstance(self._embedder, KnownTexts):
                self._embedder.cache.close()

    def _new_feed(self, journal: Journal) -> Feed:
        settings, embedder, last, header = self._settings, self._embedder, journal.last, journal.header
        expected = None if header is None or isinstance(self._source, Selected) else header.rows
        self._tally = Tally(last.totals if last is not None else Totals(), self._now)
        limits = [] if settings.max_tokens is None else [("max_tokens", settings.max_tokens)]
        price = self._price()
        if settings.max_cost is not None and price:
            limits.append(("max_cost", int(settings.max_cost / price * 1e6)))
        # Within hours more may come than there is memory for.
        waiting = ParkedBlocks(self.work.folder) if settings.batch_api else None
        if not limits:
            return Feed(self._source, None, expected, waiting)
        why, limit = min(limits, key=lambda each: each[1])
        # Texts of jobs at the provider are paid for: no limit may leave them there.
        sent = max(0, journal.announced - self._tally.totals.rows)
        budget = self._budget = Budget(limit, self._tally.totals.tokens or 0, embedder.count_tokens, sent)

        def may(text: str | None) -> bool:
            self._stopped = self._stopped or ("" if (fits := budget.may(text)) else why)
            return fits

        # A batch job is read whole before any of it is sent.
        return Feed(self._source, may, expected, waiting, None if settings.batch_api else lambda: budget.waits)

    async def _embed(self, feed: Feed, writer: Writer, journal: Journal) -> None:
        """Every row that is left, until the source ends or the job is stopped; what came back is on disk then."""
        import anyio

        last, embedder = journal.last, self._embedder
        done = last.totals.rows if last is not None else 0
        await feed.skip(done, last.digest if last is not None else "", self._sink.target)
        self._tell(Began(done=done, rows=self._rows))
        parts = self._batch_parts(feed, writer, journal, done) if self._settings.batch_api else self._parts(feed)
        if self._stopped:
            self.stop()
        observe = embedder.observe
        embedder.observe = self._tally.observing(observe)
        failure: Exception | None = None
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(writer.run)
                try:
                    with self._reading or contextlib.nullcontext():
                        async with parts:
                            async for part in parts:
                                await writer.put(self._returned(feed, part))
                except Exception as error:  # noqa: BLE001 (raised below, when what came before it is on disk)
                    failure = error
                writer.end()
        except BaseExceptionGroup as several:
            raise _first(several) from None
        finally:
            embedder.observe = observe
        left = self._reading is not None and self._reading.cancelled_caught
        if left or (isinstance(failure, StoppedError) and self._stopped):
            feed.cut_short = True
        elif failure is not None:
            raise failure

    def _parts(self, feed: Feed) -> Any:
        import anyio

        settings, sleep = self._settings, self._sleep or anyio.sleep
        patient = Patient(self._embedder, settings.patience, self._tell, now=self._now, sleep=sleep)
        self._patient = patient
        return patient.stream(feed.texts(), on_error=settings.on_error)

    def _batch_parts(self, feed: Feed, writer: Writer, journal: Journal, done: int) -> Any:
        """As `_parts`, from jobs at the provider."""
        import anyio

        from .provider_batch.stream import batch_stream

        clock: dict[str, Any] = {"now": self._now} if self._sleep is None else {"now": self._now, "sleep": self._sleep}
        stream = batch_stream(
            self._embedder, feed.texts(), self._options, store=journal, folder=self.work.folder, first=done,
            on_error=self._settings.on_error, on_event=self._tell_batch, **clock,
        )  # fmt: skip
        writer.checkpointed = stream.forget
        self._reading = anyio.CancelScope()
        return stream

    def _tell_batch(self, event: Any) -> None:
        said = {name: value for name, value in msgspec.structs.asdict(event).items() if name != "chunk"}
        self._tell(BatchJob(**said))

    def _returned(self, feed: Feed, part: Embeddings) -> Rows:
        """A part beside its records, counted and told."""
        start = feed.digest.rows
        taken = feed.take(len(part))
        keys = taken.keys
        failures = {place: taken.faults.get(place) or _reason(error) for place, error in part.failures.items()}
        totals = self._tally.add(part, len(failures))
        if self._budget is not None:
            self._budget.came_back(len(part), part.usage.tokens)
        selected = self._source if isinstance(self._source, Selected) else None
        numbers = {place: selected.row(start + place) if selected else start + place for place in failures}
        for place, reason in failures.items():
            self._tell(RowFailed(row=numbers[place], key=keys[place] if keys else None, reason=reason))
        self._tell(Progress(totals=totals, rows=self._rows, requests_in_flight=self._tally.in_flight))
        refused = len(failures) - len(taken.faults)
        return Rows(numbers, taken.pieces, keys, part.vectors, failures, refused, feed.digest.hex(), totals)

    def _keep_what_came(self, journal: Journal, feed: Feed) -> None:
        """Where the input is not what it was when it was looked through: refuse fewer rows, and keep what came of more
        or of others as what this job has embedded.
        """
        header, came = journal.header, feed.digest.hex()
        if header is None or not header.digest or header.digest == came or isinstance(self._source, Selected):
            return
        if feed.too_few:
            msg = (
                f"the input changed while it was read: it had {header.rows:,} rows at first, and {feed.read:,} came; "
                "with all of them again the same job goes on, with --append it ends with the rows that there are"
            )
            raise ConfigError(msg)
        journal.append(Line(header=msgspec.structs.replace(header, rows=feed.read, digest=came)))

    def _refuse_nothing(self, journal: Journal) -> None:
        totals, header = self._tally.totals, journal.header
        others = header is not None and header.by_key  # the output has the rows that did not fail before
        if totals.rows and totals.failed == totals.rows and not others:
            failed = "the only text" if totals.rows == 1 else f"every one of the {totals.rows:,} texts"
            msg = f"{failed} failed; nothing was written"
            raise EmbedkitError(msg)

    def _refuse_to_replace(self, journal: Journal) -> None:
        """Refuse to take the place of a file that was not there when the job began: nobody has asked for that."""
        header, sink = journal.header, self._sink
        if header is None or header.replaces or not isinstance(sink, FileSink) or sink.form == "folder":
            return
        if sink.exists():
            msg = f"{sink.target} was made by somebody else while the job ran: move it away, and the same job goes on"
            raise ConfigError(msg)

    # --- the end -----------------------------------------------------------------------------------------------------

    def _settle(self, journal: Journal) -> Report:
        """What follows when the output is at its name: the list of failed rows, the report, an end of the folder."""
        report = self._report(journal, complete=True)
        self.work.tidy(failed=bool(report.failed))
        report.write(self.work.report)
        journal.close()
        self.work.remove()
        return report

    def _report(self, journal: Journal, *, complete: bool) -> Report:
        header, last = journal.header, journal.last
        assert header is not None  # noqa: S101 (its first line)
        totals = self._tally.current() if self._feed is not None else last.totals if last is not None else Totals()
        width, dtype = last.width if last is not None else 0, self._options.dtype
        return Report(
            output=self._sink.target, complete=complete, stopped="" if complete else self._stopped,
            rows=totals.rows, failed=totals.failed, tokens=totals.tokens, cost=totals.cost, requests=totals.requests,
            retries=totals.retries, cached=totals.cached, seconds=totals.seconds, runs=journal.runs,
            dimensions=width * 8 if dtype in PACKED else width, dtype=dtype, width=width,
            model=header.identity["model"], base_url=header.identity["base URL"], options=header.identity["options"],
            input=header.input, job=header, digest=last.digest if last is not None else "",
            state=last.state if last is not None else {}, series=thinned(journal.history),
            started=header.started, finished=time.time(), version=header.version,
        )  # fmt: skip

    def _nothing_kept(self, journal: Journal) -> bool:
        """No row has a vector that is not in a finished output, so that a folder would only be in the way."""
        totals, before = journal.last.totals if journal.last is not None else Totals(), journal.before
        return not journal.batches and totals.rows - before.rows == totals.failed - before.failed

    def _take_leave(self, error: BaseException, journal: Journal) -> None:
        """Say on an error what is kept, and remove the folder where nothing is."""
        if self._sink.resumable and isinstance(error, Exception):
            for note in self._notes(error, journal):
                error.add_note(note)
        if self._nothing_kept(journal):
            journal.close()
            self.work.remove()

    def _notes(self, error: Exception, journal: Journal) -> list[str]:
        """What else there is to say of an error: what is kept, and how long an outage was."""
        notes = []
        if not self._nothing_kept(journal):
            again = "" if isinstance(error, ConfigError) else "; run the same job again, and it goes on there"
            notes.append(f"{self.kept}{again}")
        elif self._feed is not None and (
            isinstance(error, OSError) or (isinstance(error, EmbedkitError) and is_outage(error))
        ):
            notes.append("no row is kept" if self._rows in (None, 1) else f"none of the {self._rows:,} rows is kept")
        if self._patient is not None and self._patient.gave_up:
            notes.append(self._patient.gave_up)
        return notes

    @property
    def kept(self) -> str:
        """What an unfinished job leaves for the next run, in words; "" where that is nothing."""
        if not (self._sink.resumable and self.work.unfinished()):
            return ""
        journal = self._journal
        if journal is None:  # ended before it was opened
            return f"what is written is kept in {self.work.folder}"
        rows = journal.last.totals.rows if journal.last is not None else 0
        of = f" of {self._rows:,}" if self._rows is not None else ""
        jobs = journal.jobs_at_the_provider()
        going = f", and texts wait in batch jobs at the provider ({', '.join(jobs)})" if jobs else ""
        if not jobs and journal.jobs_under_way():
            going = ", and with them what batch jobs have answered"
        return f"{rows:,}{of} rows are kept in {self.work.folder}{going}"


async def _here(work: Callable[..., T], *arguments: Any) -> T:
    """Call it in this thread."""
    return work(*arguments)


def _holds(source: Source, rows: int, digest: str) -> bool:
    """Whether a source has so many rows, of this digest; reads hardly more of it."""
    found = RowDigest()
    for block in source.blocks():
        found.update(block.texts, block.keys)
        if found.rows > rows:
            return False
    return found.hex() == digest


def _running_loop() -> Any:
    """The event loop that runs in this thread; None: none does."""
    import asyncio

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _asked_at(identity: dict[str, Any]) -> tuple[str, str]:
    """(provider, base URL): whom a job asks."""
    return str(identity.get("model", "")).partition(":")[0], str(identity.get("base URL", ""))


def _innermost(embedder: Embedder) -> Embedder:
    while isinstance(embedder, Wrapped):
        embedder = embedder.inner
    return embedder


def _first(several: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first failure in a group."""
    found: BaseException = several
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


def _reason(error: EmbedkitError) -> str:
    return " ".join(str(error.at()).split())
