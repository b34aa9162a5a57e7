"""Counts what a job has done: rows, tokens, cost, requests, retries, seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from ..events import AttemptEnded, Event, RequestSent, RetryScheduled
from .journal import Totals

if TYPE_CHECKING:
    from .._types import Embeddings


class Tally:
    """The totals of a job, this run included.

    Args:
        before: of the runs before.
        now: a clock, in seconds.
    """

    def __init__(self, before: Totals, now: Callable[[], float]) -> None:
        self.totals = before
        self.in_flight = 0
        self._before = before
        self._now = now
        self._began = now()
        self._retries = 0

    def add(self, part: Embeddings, failed: int) -> Totals:
        """A part came back, with so many failed rows."""
        now, usage = self.totals, part.usage
        self.totals = Totals(
            rows=now.rows + len(part),
            failed=now.failed + failed,
            tokens=None if now.tokens is None or usage.tokens is None else now.tokens + usage.tokens,
            cost=None if now.cost is None or usage.cost is None else now.cost + usage.cost,
            requests=now.requests + usage.requests,
            cached=now.cached + usage.cached,
            retries=self._before.retries + self._retries,
            seconds=self._before.seconds + self._now() - self._began,
        )
        return self.totals

    def current(self) -> Totals:
        """The totals at this moment."""
        return msgspec.structs.replace(
            self.totals,
            retries=self._before.retries + self._retries,
            seconds=self._before.seconds + self._now() - self._began,
        )

    def observing(self, other: Callable[[Event], object] | None) -> Callable[[Event], object]:
        """An observer that counts, and calls the other."""

        def observe(event: Event) -> None:
            if isinstance(event, RequestSent):
                self.in_flight += not event.hedged
            elif isinstance(event, AttemptEnded):
                self.in_flight -= 1
            elif isinstance(event, RetryScheduled):
                self._retries += 1
            if other is not None:
                other(event)

        return observe
