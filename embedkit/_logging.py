"""The logger `embedkit`, and the observer: whoever wants to see what happens.

DEBUG: each attempt, when it leaves and when it ends. INFO: each retry, with what it
waits for, and long waits for a turn, which of all who wait one tells. WARNING: a
cool-down that a provider asks for, a window that has shrunk to its floor, a call that is given up. Every record has
`attempt`, `wait`, `status` and `host`, None where there is none. What a provider or a caller has written never goes in:
it may quote a key or a text.
"""

from __future__ import annotations

import logging
import math
from logging import DEBUG, INFO, WARNING
from typing import TYPE_CHECKING

from ._types import safe_url
from .errors import EmbedkitError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .events import Event

LOG = logging.getLogger("embedkit")
# A library says nothing unless asked: docs.python.org/3/howto/logging.html, "Configuring Logging for a Library".
LOG.addHandler(logging.NullHandler())
LONG_WAIT = 5.0  # seconds: a longer wait for a turn is told
heard = LOG.isEnabledFor


class Interval:
    """Whether one who waits tells of it: of all who wait at one place one does, at intervals that double. Where nobody
    had anything to tell for as long as the last, they begin anew.
    """

    def __init__(self) -> None:
        self._next = -math.inf
        self._gap = LONG_WAIT

    def over(self, now: float) -> bool:
        """Whether it is time; then the next interval begins."""
        if now < self._next - 1e-6:  # clocks round
            return False
        self._gap = 2 * self._gap if now - self._next <= self._gap else LONG_WAIT
        self._next = now + self._gap
        return True


def log(
    level: int,
    message: str,
    *args: object,
    host: str,
    attempt: int | None = None,
    wait: float | None = None,
    status: int | None = None,
) -> None:
    """Write one record, if somebody wants it."""
    if LOG.isEnabledFor(level):
        LOG.log(level, message, *args, extra={"attempt": attempt, "wait": wait, "status": status, "host": host})


def notify(observe: Callable[[Event], object], event: Event) -> None:
    """Tell the observer; what it raises is logged, never passed on."""
    try:
        observe(event)
    except BaseException as error:
        # Nothing is awaited in here, so a cancellation is not the caller's: the observer has asked a canceled future.
        if not isinstance(error, Exception) and type(error).__name__ != "CancelledError":
            raise
        LOG.exception("the observer failed on %s", type(event).__name__)


def kind_of(error: BaseException) -> str:
    """What kind of failure it is, in words of ours."""
    status = status_of(error)
    return type(error).__name__ + (f" (status {status})" if status is not None else "")


def status_of(error: BaseException | None) -> int | None:
    """The status that the provider answered, where it did."""
    status = getattr(error, "status", None) if isinstance(error, EmbedkitError) else None
    return status if isinstance(status, int) else None


def host_of(url: str) -> str:
    """Host and port of a URL, or of several; what else is in it may be a key."""
    hosts = (safe_url(each).partition("://")[2].partition("/")[0] for each in url.split(", "))
    return ", ".join(dict.fromkeys(filter(None, hosts)))


__all__ = [
    "DEBUG", "INFO", "LOG", "LONG_WAIT", "WARNING", "Interval", "heard", "host_of", "kind_of", "log", "notify",
    "status_of",
]  # fmt: skip
