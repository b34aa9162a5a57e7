"""What a job tells while it runs: `progress=function` is called with each of these, on the event loop, at once."""

from __future__ import annotations

from typing import Any

import msgspec

from ..errors import EmbedkitError
from .contract import Scan
from .journal import Totals


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """The root of all notices."""


class Scanned(Notice, frozen=True, kw_only=True):
    """The input was looked through.

    Attributes:
        scan: what it holds.
        cost: US dollars for its tokens, an estimate; None where no price is known.
        room: bytes that the output will take; None where the width is not known before the first vector.
        free: bytes free where it will lie.
    """

    scan: Scan
    cost: float | None = None
    room: int | None = None
    free: int | None = None


class Began(Notice, frozen=True, kw_only=True):
    """The first request is about to leave.

    Attributes:
        done: rows that an earlier run has written.
        rows: in the whole input; None where that is not known.
    """

    done: int
    rows: int | None


class Progress(Notice, frozen=True, kw_only=True):
    """Rows came back.

    Attributes:
        totals: of all runs of the job.
        rows: in the whole input; None where that is not known.
        requests_in_flight: now.
    """

    totals: Totals
    rows: int | None
    requests_in_flight: int


class RowFailed(Notice, frozen=True, kw_only=True):
    """A row has no vector.

    Attributes:
        row: its number in the whole input, from 0.
        key: its key; None where there are no keys.
        reason: why, in a sentence.
    """

    row: int
    key: Any
    reason: str


class Paused(Notice, frozen=True, kw_only=True):
    """The provider fails, and the job waits.

    Attributes:
        seconds: until one batch is sent again.
        outage: seconds since it began.
        patience: seconds that the job outlasts in all.
        error: why.
    """

    seconds: float
    outage: float
    patience: float
    error: EmbedkitError


class Resumed(Notice, frozen=True, kw_only=True):
    """The provider is well again after an outage of so many seconds."""

    outage: float


class BatchJob(Notice, frozen=True, kw_only=True):
    """A job at the provider (`batch_api=True`) has come a step further.

    Attributes:
        start, rows: its first row of the input, and how many it has.
        state: "uploaded", "created", "found", a state in the provider's own word, "fetched", "again", "ready",
            "waiting", "failing", "stopped" (canceled by us).
        job: the provider's id of it; empty where there is none.
        total, finished: lines of it, as the provider counts them; None: not told.
        message: what else there is to say; empty: nothing.
    """

    start: int
    rows: int
    state: str
    job: str = ""
    total: int | None = None
    finished: int | None = None
    message: str = ""
