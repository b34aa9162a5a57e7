"""What a run of the command line has done so far: drawn on a
terminal while it happens, summed up in one line at the end.
"""

from __future__ import annotations

import copy
import math
import re
import sys
import time
from typing import TYPE_CHECKING, Any

from .._types import Options
from ..events import Event, RetryScheduled

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from rich.progress import Progress as Bar

    from .._types import Embeddings


SAME = (*Options.__struct_fields__, "base_url", "max_concurrency", "model", "on_error", "proxy")
OPTION = {"api_key": "--api-key-env", "ssl": "--ca-file"} | {
    name: f"--{name.replace('_', '-')}" for name in SAME if name != "extra"
}  # keyword of Python → option of the command line; `extra` has none
KEYWORD = re.compile(
    rf"(?<![\w?&])({'|'.join(OPTION)})=" + r"(?:'([\w.:/-]*)'|(\d+\b)|True\b|(?=[\s,;:.)]|$))"
)  # as errors spell a keyword with its value


class Progress:
    """Counts parts as they come back.

    Args:
        quiet: say nothing but which rows failed.
        shares: stdout goes to the same terminal, where a bar would be in its way.
    """

    def __init__(self, *, quiet: bool = False, shares: bool = False) -> None:
        self.texts: int = 0
        self.failed: int = 0
        self.dimensions: int = 0
        self.requests: int = 0
        self.tokens: int | None = 0
        self.cost: float | None = 0.0
        self._quiet = quiet
        self._started = time.monotonic()
        self._bar: Bar | None = None
        self._task: Any = None
        self.visible: bool = not quiet and not shares and sys.stderr.isatty()

    def __enter__(self) -> Self:
        if self.visible:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn(),
                console=Console(stderr=True), transient=True,
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

    def expect(self, total: int | None) -> None:
        """How many texts there will be, where that is known."""
        if self._bar is not None:
            self._bar.update(self._task, total=total, description="connecting")

    def add(self, part: Embeddings, faults: dict[int, str] | None = None) -> None:
        """A part has come back and is written. `faults`: by row, what the
        input says of those without a text; what is told is taken out.
        """
        usage = part.usage
        self.texts += len(part)
        self.failed += len(part.failures)
        self.dimensions = self.dimensions or part.dimensions
        self.requests += usage.requests
        self.tokens = None if self.tokens is None or usage.tokens is None else self.tokens + usage.tokens
        self.cost = None if self.cost is None or usage.cost is None else self.cost + usage.cost
        for row, error in part.failures.items():
            alone = copy.copy(error)
            alone.rows = ()  # they count within the part, and the line names the row itself
            known = (faults or {}).pop(part.start + row, None)
            self._print(f"row {part.start + row}: {known or in_line(alone)}")
        if self._bar is not None:
            self._bar.update(self._task, completed=self.texts, description=self._now())

    def observe(self, event: Event) -> None:
        """Show a wait before a retry, and its reason."""
        if self._bar is not None and isinstance(event, RetryScheduled):
            status = getattr(event.error, "status", None)
            why = f"status {status}" if status else type(event.error).__name__
            self._bar.update(self._task, description=f"{self._now()}, trying again in {event.wait:.0f} s ({why})")

    def summary(self) -> str:
        """The whole run in one line."""
        seconds = time.monotonic() - self._started
        facts = [
            many(self.texts, "text") + (f" x {self.dimensions} dimensions" if self.dimensions else ""),
            "tokens not reported" if self.tokens is None else many(self.tokens, "token"),
            many(self.requests, "request"),
            f"{seconds:.1f} s",
            f"{self._rate()} texts/s",
            "" if self.cost is None or not self.texts else money(self.cost),
            f"{self.failed:,} failed (rows count from 0)" if self.failed else "",
        ]
        return ", ".join(filter(None, facts))

    def summarize(self) -> None:
        """Print the summary, unless asked to be quiet."""
        if not self._quiet:
            self._print(self.summary())

    def _rate(self) -> str:
        rate = self.texts / max(time.monotonic() - self._started, 1e-9)
        return f"{rate:,.{1 if rate < 10 else 0}f}"  # noqa: PLR2004 (two digits that mean something)

    def _now(self) -> str:
        tokens = f", {many(self.tokens, 'token')}" if self.tokens else ""
        total = self._bar.tasks[0].total if self._bar is not None else None
        of = f" of {total:,.0f}" if total is not None else ""
        return f"{self.texts:,}{of} texts, {self._rate()} texts/s{tokens}"

    def _print(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)  # noqa: T201 (this is what a command line is for)


def in_line(error: BaseException) -> str:
    """An error in one line, its keywords of Python as options of the command line."""
    return KEYWORD.sub(_option, " ".join(str(error).split()))


def _option(keyword: re.Match[str]) -> str:
    return f"{OPTION[keyword[1]]} {keyword[2] or keyword[3] or ''}".rstrip()


def many(count: int, what: str) -> str:
    """So many of something: "1 text", "2,000 texts"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def money(dollars: float) -> str:
    """Dollars, with two digits that mean something however small the sum."""
    if dollars <= 0:
        return "free"
    return f"${dollars:,.{max(2, 1 - math.floor(math.log10(dollars)))}f}"
