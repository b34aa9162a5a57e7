"""Frozen facts for one observer. An event is built only where somebody listens, and an observer that raises breaks nothing.

Events hold counts, seconds and errors; never a text, a vector or a key.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from .errors import EmbedkitError


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """The root of all events. `provider` and `model` say whose request it is about."""

    provider: str = ""
    model: str = ""


class RequestSent(Event, frozen=True, kw_only=True):
    """An attempt leaves; the first has number 1. One that is late and sent twice (`hedge`) leaves twice under its number."""

    texts: int
    attempt: int


class RetryScheduled(Event, frozen=True, kw_only=True):
    """Attempt number `attempt` failed, and the next follows in `wait` seconds."""

    attempt: int
    wait: float
    error: EmbedkitError


class Throttled(Event, frozen=True, kw_only=True):
    """A request waited `seconds` for its turn: a rate, or a cool-down after a 429."""

    seconds: float


class BatchDone(Event, frozen=True, kw_only=True):
    """A batch came back and its rows are in place. `seconds` is the whole request with its retries."""

    texts: int
    tokens: int | None
    seconds: float


class BatchSplit(Event, frozen=True, kw_only=True):
    """A refused batch of `texts` goes out again in smaller pieces."""

    texts: int
    error: EmbedkitError


class BatchFailed(Event, frozen=True, kw_only=True):
    """A batch is given up: the call raises, or the row is marked."""

    texts: int
    error: EmbedkitError


def notify(observe: Callable[[Event], object], event: Event) -> None:
    """Tell the observer; what it raises is logged, never passed on."""
    try:
        observe(event)
    except Exception:
        import logging

        logging.getLogger("embedkit").exception("the observer failed on %s", type(event).__name__)
