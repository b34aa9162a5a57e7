"""When to say that requests fail and are tried again: soon where nothing comes back, never again and again. Pure."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import EmbedkitError
from ..events import AttemptEnded, Event, RequestSent, RetryScheduled

SOON = 3.0  # seconds without an answer, the coming wait included, after which failures are worth a line
EVERY = 30.0  # seconds between two such lines


class Trouble:
    """Watches the requests of a command.

    Args:
        now: a clock, in seconds.

    Attributes:
        sent: requests that have left, retries included.
        told: whether the last word was that requests fail.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.sent: int = 0
        self.told: bool = False
        self._answered = now()  # when the last good answer came, at first: when it began
        self._failed = 0  # attempts since
        self._line_at = -float("inf")

    def begin(self) -> None:
        """Count the time without an answer from here."""
        self._answered = self._now()

    def line(self, event: Event) -> str:
        """What to say now; "" for nothing."""
        if isinstance(event, RequestSent):
            self.sent += 1
        elif isinstance(event, AttemptEnded) and event.error is None:
            return self._recovered()
        elif isinstance(event, RetryScheduled):
            return self._fails(event)
        return ""

    def _recovered(self) -> str:
        self._answered, self._failed = self._now(), 0
        told, self.told = self.told, False
        return "requests are answered again" if told else ""

    def _fails(self, event: RetryScheduled) -> str:
        self._failed += 1
        now = self._now()
        once = self._failed == 1 and event.wait < SOON  # one failure among good answers is no news
        if once or now - self._answered + event.wait < SOON or now - self._line_at < EVERY:
            return ""
        self._line_at, self.told = now, True
        tries = "1 request has failed" if self._failed == 1 else f"{self._failed:,} requests have failed in a row"
        return f"{tries} ({reason(event.error)}); the next is sent in {event.wait:.0f} s"


def reason(error: EmbedkitError) -> str:
    """Why a request failed, in a few words of one line."""
    return " ".join(str(error).split())[:300]
