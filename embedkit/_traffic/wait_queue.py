"""Who is next: the discipline of the queue in which requests wait for their turn.

While the queue is short, who came first is served first. Once it stands (it has not been empty for INTERVAL), whoever
came last is served first: adaptive LIFO, as Facebook's servers do ("Fail at Scale", ACM Queue 13(8), 2015), with
CoDel's notion of a standing queue, one that does not drain within an interval (RFC 8289). First come, first served
would bring everyone their turn just before they give up, and nobody would be answered in time. Nobody starves: every
NTH turn goes to who has waited longest.

There are three kinds. A caller comes first. Whoever asks for a further request of a call that has one under way is that
call's own worker: workers are served in order, among themselves, when no caller waits. A retry waits like a caller,
behind callers, and only goes where the retry budget lets it; every other one that goes is of the oldest call, since a
stream waits for its first part. A queue of MOST callers refuses another one
(`QueueFullError`); workers and retries are never refused.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

from ..errors import QueueFullError

CALLER, WORKER, RETRY = range(3)
INTERVAL = 0.1  # seconds (RFC 8289, 4.2: "100 ms works well across a range of RTTs")
NTH = 20  # one turn of so many goes to who has waited longest; no more, since such a caller may give up soon
MOST = 20_000  # callers that wait


class Waiting(Protocol):
    """Someone in the queue."""

    came: float
    call: int


T = TypeVar("T", bound=Waiting)


class Queue(Generic[T]):
    """Those who wait. Arithmetic only: nobody waits here.

    Attributes:
        size: how many.
    """

    def __init__(self) -> None:
        self.size = 0
        self._kinds: tuple[OrderedDict[T, None], ...] = (OrderedDict(), OrderedDict(), OrderedDict())
        self._since = [0.0, 0.0, 0.0]  # when the first came who found none of its kind
        self._turns = self._retried = 0

    def join(self, one: T, kind: int, now: float, call: int = 0) -> None:
        """Wait from `now` on, for the call of this number."""
        line = self._kinds[kind]
        if kind == CALLER and len(line) >= MOST:
            remedy = "make fewer at a time, or raise max_concurrency"
            msg = f"{MOST} calls wait for their turn already, and this one was not sent: {remedy}"
            raise QueueFullError(msg)
        if not line:
            self._since[kind] = now
        one.came, one.call = now, call
        line[one] = None
        self.size += 1

    def leave(self, one: T) -> None:
        """Wait no longer."""
        for line in self._kinds:
            if one in line:
                del line[one]
                self.size -= 1

    def next(self, now: float, *, retries: bool = True, workers: bool = True) -> T | None:
        """Take out whose turn it is; None where nobody may go. `retries`, `workers`: whether those may."""
        may = (True, workers, retries)
        lines = [(kind, line) for kind, line in enumerate(self._kinds) if line and may[kind]]
        if not lines:
            return None
        self._turns += 1
        kind, line = lines[0]
        if self._turns % NTH == 0 or kind != CALLER:
            kind, line = min(lines, key=lambda each: next(iter(each[1])).came)
        self.size -= 1
        self._retried += kind == RETRY
        if kind == RETRY and self._retried % 2 == 0:
            oldest = min(line, key=lambda one: one.call)
            del line[oldest]
            return oldest
        last = kind != WORKER and self._turns % NTH != 0 and now - self._since[kind] > INTERVAL
        return line.popitem(last=last)[0]
