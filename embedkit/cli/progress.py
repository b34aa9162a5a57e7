"""What a job says while it runs: a bar on a terminal, a line now and then elsewhere, JSON lines for machines."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from .._bulk.disk import to_json
from .._bulk.notices import BatchJob, Began, Notice, Paused, Progress, Resumed, RowFailed, Scanned
from .._bulk.report import Report
from .._types import Options
from ..events import CacheFailed, Event, RetryScheduled
from .terminal import console, draws
from .trouble import Trouble

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from rich.progress import Progress as Bar


SAME = (
    *Options.__struct_fields__,
    "base_url",
    "cache",
    "max_concurrency",
    "max_tokens",
    "model",
    "on_error",
    "proxy",
    "rate",
    "timeout",
)
OPTION = {"api_key": "--api-key-env", "ssl": "--ca-file", "max_cost": "--max-cost"} | {
    name: f"--{name.replace('_', '-')}" for name in SAME if name != "extra"
}  # keyword of Python → option of the command line; `extra` has none
KEYWORD = re.compile(
    rf"(?<![\w?&])({'|'.join(OPTION)})=" + r"(?:'([\w.:/-]*)'|(\d+\b)|True\b|(?=[\s,;:.)]|$))"
)  # as errors spell a keyword with its value
EVERY = 30.0  # seconds between plain lines, where there is no terminal
SHOWN_FAILURES = 20  # failed rows that are named; the list of failed rows has all


class Teller:
    """Says what a job tells.

    Args:
        quiet: say nothing but which rows failed and why the job pauses.
        machine: JSON lines on stdout, one per notice, instead of lines for people.
        shares: stdout goes to the same terminal, where a bar would be in its way.
        now: a clock, in seconds.

    Attributes:
        failures: where all failed rows are listed in the end; "" where they are not.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        machine: bool = False,
        shares: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._quiet = quiet
        self._machine = machine
        self.failures: str = ""
        self._now = now
        self._bar: Bar | None = None
        self._task: Any = None
        self._first: tuple[float, int] | None = None  # when this run got its first rows, and how many it had
        self._latest: Progress | None = None
        self._line_at = now()
        self._failed = 0
        self._why = ""  # nothing moves
        self._trouble = Trouble(now)
        self._cache_faults: set[str] = set()
        self._paused = False  # the job says itself how it fares
        self.visible: bool = not quiet and not machine and not shares and draws(sys.stderr)

    def __enter__(self) -> Self:
        if self.visible:
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn(),
                console=console(stderr=True), transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task("looking through the input", total=None)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.stop()

    def told(self, notice: Notice) -> None:
        """Say a notice of the job."""
        if isinstance(notice, (Paused, Resumed)):
            self._paused = isinstance(notice, Paused)
        elif isinstance(notice, Began):
            self._trouble.begin()
        if self._machine and not isinstance(notice, Progress):
            self._as_json(notice)
        else:
            self._say_notice(notice)

    def _say_notice(self, notice: Notice) -> None:
        if isinstance(notice, Progress):
            self._progress(notice)
        elif isinstance(notice, Scanned):
            if not self._quiet and (notice.scan.bad or self.visible):
                self.say(scanned(notice))
        elif isinstance(notice, Began):
            self._began(notice)
        elif isinstance(notice, Paused):
            self.say(
                f"the provider has failed for {notice.outage:.0f} s ({in_line(notice.error)}); one batch is sent again "
                f"in {notice.seconds:.0f} s; --patience is {notice.patience:.0f} s{self._done()}"
            )
        elif isinstance(notice, Resumed):
            self.say(f"the provider is well again after {notice.outage:.0f} s")
        elif isinstance(notice, RowFailed):
            self._row_failed(notice)
        elif isinstance(notice, BatchJob) and not self._quiet:
            self.say(batch_line(notice))

    @property
    def sent(self) -> bool:
        """Whether a request has left."""
        return self._trouble.sent > 0

    def observe(self, event: Event) -> None:
        """Say that requests fail and are tried again: on a terminal each wait, elsewhere a line now and then."""
        if isinstance(event, CacheFailed):
            self._cache_failed(event)
        line = self._trouble.line(event)
        if line and not self._quiet and not self._paused and self._bar is None:
            if not self._machine:
                self.say(KEYWORD.sub(_option, line))
            elif isinstance(event, RetryScheduled):
                self._write({"notice": "Retrying", "seconds": event.wait, "error": in_line(event.error)})
        if self._bar is not None and isinstance(event, RetryScheduled):
            status = getattr(event.error, "status", None)
            why = f"status {status}" if status else type(event.error).__name__
            self._why = f", trying again in {event.wait:.0f} s ({why})"
            self._draw()

    def _cache_failed(self, event: CacheFailed) -> None:
        """Say it once of each reason; the job goes on without the cache."""
        if event.why in self._cache_faults or self._quiet:
            return
        self._cache_faults.add(event.why)
        if self._machine:
            self._write({"notice": "CacheFailed", "what": event.what, "why": event.why})
        else:
            self.say(f"the cache cannot be {event.what} ({event.why}); the job goes on without it")

    def say(self, line: str) -> None:
        """One line for people, above the bar."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)  # noqa: T201 (this is what a command line is for)

    def finished(self, report: Report) -> None:
        """The last line."""
        if self._machine:
            plain = msgspec.structs.replace(report, series=[], state={}, job=None)
            self._write({"notice": "Report", **msgspec.to_builtins(plain)})
        elif not self._quiet and (report.complete or report.rows):
            self.say(summary(report))

    def _began(self, notice: Began) -> None:
        self._first = None
        if notice.done and not self._quiet:
            self.say(f"going on after {many(notice.done, 'row')} of an earlier run")
        if self._bar is not None:
            self._bar.update(self._task, total=notice.rows, completed=notice.done, description="connecting")

    def _progress(self, notice: Progress) -> None:
        self._latest, self._why = notice, ""
        if self._first is None:
            self._first = (self._now(), notice.totals.rows)
        if self._bar is not None:
            self._draw()
        elif not self._quiet and self._now() - self._line_at >= EVERY:
            self._line_at = self._now()
            if self._machine:
                self._as_json(notice)
            else:
                self.say(f"{self._state(notice)}{self._left(notice)}")

    def _draw(self) -> None:
        if self._bar is not None and self._latest is not None:
            state = f"{self._state(self._latest)}{self._why}"
            self._bar.update(self._task, completed=self._latest.totals.rows, description=state)
        elif self._bar is not None and self._why:
            self._bar.update(self._task, description=f"connecting{self._why}")

    def _state(self, notice: Progress) -> str:
        totals = notice.totals
        of = f" of {notice.rows:,}" if notice.rows is not None else ""
        facts = [
            f"{totals.rows:,}{of} texts",
            f"{_rate(self._speed(notice))} texts/s",
            many(totals.tokens, "token") if totals.tokens else "",
            money(totals.cost) if totals.cost else "",
            many(totals.retries, "retry") if totals.retries else "",
            f"{notice.requests_in_flight} in flight",
        ]
        return ", ".join(filter(None, facts))

    def _done(self) -> str:
        if self._latest is None:
            return ""
        of = f" of {self._latest.rows:,}" if self._latest.rows is not None else ""
        return f"; {self._latest.totals.rows:,}{of} rows are done"

    def _speed(self, notice: Progress) -> float:
        began, rows = self._first or (self._now(), 0)
        elapsed = self._now() - began
        return (notice.totals.rows - rows) / elapsed if elapsed > 0 else 0.0

    def _left(self, notice: Progress) -> str:
        speed = self._speed(notice)
        if notice.rows is None or speed <= 0:
            return ""
        return f", {duration((notice.rows - notice.totals.rows) / speed)} left"

    def _row_failed(self, notice: RowFailed) -> None:
        self._failed += 1
        if self._failed <= SHOWN_FAILURES or not self.failures:
            key = f" (key {notice.key})" if notice.key is not None else ""
            self.say(f"row {notice.row}{key}: {KEYWORD.sub(_option, notice.reason)}")
        elif self._failed == SHOWN_FAILURES + 1:
            self.say(f"further failed rows are only listed in {self.failures}")

    def _as_json(self, notice: Notice) -> None:
        fields = {
            name: in_line(value) if isinstance(value, BaseException) else msgspec.to_builtins(value, enc_hook=str)
            for name, value in msgspec.structs.asdict(notice).items()
        }
        self._write({"notice": type(notice).__name__, **fields})

    def _write(self, said: dict[str, Any]) -> None:
        sys.stdout.write(to_json(said).decode() + "\n")
        sys.stdout.flush()


def failing() -> Callable[[Event], None]:
    """An observer that says on stderr that requests fail and are tried again, for commands without a progress."""
    trouble = Trouble(time.monotonic)

    def observe(event: Event) -> None:
        if line := trouble.line(event):
            print(f"embedkit: {KEYWORD.sub(_option, line)}", file=sys.stderr, flush=True)  # noqa: T201

    return observe


def scanned(notice: Scanned) -> str:
    """What looking through the input has shown, in one line."""
    scan = notice.scan
    example = next((f" (row {row}, {why})" for row, why in scan.examples.items()), "")
    facts = [
        many(scan.rows, "row"),
        f"{scan.bad:,} without a usable text{example}" if scan.bad else "",
        f"about {many(scan.tokens, 'token')}",
        f"about {money(notice.cost)}" if notice.cost is not None else "",
        f"{size(notice.room)} of output" if notice.room is not None else "",
        f"{size(notice.free)} free" if notice.room is not None and notice.free is not None else "",
        f"looked through at {scan.bytes / 1e6 / scan.seconds:,.0f} MB/s" if scan.bytes and scan.seconds > 0 else "",
    ]
    return ", ".join(filter(None, facts))


def batch_line(notice: BatchJob) -> str:
    """A step of a job at the provider, in one line."""
    rows = f"rows {notice.start:,} to {notice.start + notice.rows - 1:,}"
    counted = f", {notice.finished or 0:,} of {notice.total:,} lines" if notice.total else ""
    message = f": {notice.message}" if notice.message else ""
    if notice.state == "ready":
        return f"{rows}: ready{message}"
    job = f"batch job {notice.job}" if notice.job else "a batch job"
    said = {"uploaded": "the texts are uploaded", "again": f"{job} is needed again", "waiting": f"{job} has to wait"}
    return f"{rows}: {said.get(notice.state, f'{job} is {notice.state}')}{counted}{message}"


def summary(report: Report) -> str:
    """A whole job in one line."""
    if report.already:
        failed = f", {report.failed:,} failed" if report.failed else ""
        return f"{report.output} is finished already ({many(report.rows, 'row')}{failed}); nothing was sent"
    facts = [
        many(report.rows, "text") + (f" x {report.dimensions} dimensions" if report.dimensions else ""),
        "tokens not reported" if report.tokens is None else many(report.tokens, "token"),
        many(report.requests, "request"),
        f"{report.cached:,} not sent again" if report.cached else "",
        f"{report.seconds:.1f} s",
        f"{_rate(report.rows / max(report.seconds, 1e-9))} texts/s",
        "" if report.cost is None or not report.rows else money(report.cost),
        f"{report.failed:,} failed (rows count from 0)" if report.failed else "",
    ]
    return ", ".join(filter(None, facts))


def in_line(error: BaseException) -> str:
    """An error in one line, its keywords of Python as options of the command line."""
    return KEYWORD.sub(_option, " ".join(str(error).split()))


def printable(text: str) -> str:
    """In one line, without what a terminal or the order of letters would obey."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in " ".join(text.split()))


def _option(keyword: re.Match[str]) -> str:
    return f"{OPTION[keyword[1]]} {keyword[2] or keyword[3] or ''}".rstrip()


def _rate(speed: float) -> str:
    return f"{speed:,.{1 if speed < 10 else 0}f}"  # noqa: PLR2004 (two digits that mean something)


def many(count: int, what: str) -> str:
    """So many of something: "1 text", "2,000 texts"."""
    if count != 1:
        what = f"{what[:-1]}ies" if what.endswith("ry") else f"{what}s"
    return f"{count:,} {what}"


def money(dollars: float) -> str:
    """Dollars, with two digits that mean something however small the sum."""
    if dollars <= 0:
        return "free"
    return f"${dollars:,.{max(2, 1 - math.floor(math.log10(dollars)))}f}"


def size(count: int) -> str:
    """Bytes, in the largest unit that leaves a whole number: "307 MB"."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:  # noqa: PLR2004 (SI)
            break
        value, unit = value / 1000, larger
    return f"{value:,.{0 if value >= 100 or unit == 'B' else 1}f} {unit}"  # noqa: PLR2004 (three digits)


def duration(seconds: float) -> str:
    """A time that is left: "1:05:00"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
