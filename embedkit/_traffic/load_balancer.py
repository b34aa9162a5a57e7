"""Which endpoint of a pool serves whom: arithmetic on how each of them fares, and the line where callers wait for one.

Who has waited longest goes where the answer will come soonest, by the speed seen so far, among the endpoints whose window has room. One
that fails is left out for a while, longer each time, and is let in again with a single request, once the others are full. Health is
shared by all event loops; a desk, where places are taken and callers wait, belongs to one of them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from .retry import CAP
from .wait_queue import CALLER, Queue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import anyio

    from ..errors import EmbedkitError

LOOK = 0.93  # seconds until who waits looks again, where nothing is known to change; odd, lest a caller ends in that moment
FIRST, LONGEST = 1.0, 15.0  # seconds out after a failure: the first time, and at most
TOGETHER = 2.5  # seconds out at most, where all are failing: nobody else serves their callers meanwhile
WEIGHT = 0.2  # of the newest answer in the mean speed
FADES = 30.0  # seconds until what was seen of a speed counts half


class Windowed(Protocol):
    """What is asked: it says how many requests it may have in flight on this event loop."""

    @property
    def window(self) -> int:
        """Requests that may be in flight."""
        ...


E = TypeVar("E", bound=Windowed)


class Health:
    """One endpoint as seen from here: how fast it is, and until when it is left out. Arithmetic only."""

    def __init__(self) -> None:
        self.out_until = -math.inf
        self.told_until = -math.inf  # the same, where it named the time itself
        self.failed_at = -math.inf
        self.error: EmbedkitError | None = None  # why it is out
        self._failures = 0
        self._seconds: float | None = None  # an answer takes, per text
        self._seen = -math.inf

    def cost(self, now: float, fill: float) -> float:
        """How long the next answer will take, per text: longer the fuller its window.

        Zero while nothing is known, so that all are tried; less the longer ago it was seen, so that none is forgotten. After a failure
        for ever: it is tried again when the others have no room, so that no call waits for a dead endpoint without need.
        """
        if self.failing:
            return math.inf
        return 0.0 if self._seconds is None else self._seconds * (1 + fill) * self._faded(now)

    def _faded(self, now: float) -> float:
        return math.pow(0.5, (now - self._seen) / FADES)

    @property
    def failing(self) -> bool:
        """No good answer since the last failure."""
        return self._failures > 0

    def back(self, *, alone: bool) -> float:
        """When it is let in again; sooner where no other answers, unless it named the time itself."""
        return min(self.out_until, max(self.told_until, self.failed_at + TOGETHER)) if alone else self.out_until

    def room(self, now: float, window: int, *, alone: bool = False) -> int:
        """How many requests it may be given at once: none while it is left out, then one until it answers again."""
        return 0 if now < self.back(alone=alone) else 1 if self.failing else window

    def hope(self, now: float) -> None:
        """Another that failed with it answers again: so may this one, unless it named the time itself."""
        self.out_until = min(self.out_until, max(now, self.told_until))

    def answered(self, now: float, seconds: float, texts: int) -> None:
        """A good answer. To a request sent before the last failure it says nothing of whether that is over."""
        if now - seconds >= self.failed_at:
            self._failures = 0
            self.error = None
        each = seconds / max(texts, 1)
        kept = (1 - WEIGHT) * self._faded(now)
        self._seconds = each if self._seconds is None else kept * self._seconds + (1 - kept) * each
        self._seen = now

    def failed(self, now: float, sent: float, error: EmbedkitError) -> None:
        """No good answer to a request sent at `sent`. One that was under way when it was left out says nothing new, but for its hint."""
        fresh = sent >= self.out_until or not self.failing
        if fresh:
            self._failures += 1
        hint = error.retry_after
        self.failed_at = max(self.failed_at, now)
        if hint is not None:
            self.told_until = max(self.told_until, now + hint)
        wait = hint if hint is not None else min(LONGEST, FIRST * 2.0 ** min(self._failures - 1, 16)) if fresh else 0.0
        if self.error is None or now + wait >= self.out_until:
            self.out_until, self.error = max(self.out_until, now + wait), error.at()


class Member(Generic[E]):
    """An endpoint of a pool: its embedder and its health. `verified`: it is known to serve the same model as the others."""

    __slots__ = ("embedder", "health", "verified")

    def __init__(self, embedder: E, *, verified: bool) -> None:
        self.embedder = embedder
        self.health = Health()
        self.verified = verified


class _Turn(Generic[E]):
    """Someone in line: the bell rings when there is a member, or reason to look again."""

    __slots__ = ("bell", "came", "member")

    def __init__(self, bell: anyio.Event) -> None:
        self.bell = bell
        self.came = 0.0
        self.member: Member[E] | None = None


class Desk(Generic[E]):
    """Who is served where, on one event loop: who has waited longest goes where the answer will come soonest."""

    def __init__(self, members: Sequence[Member[E]], clock: Callable[[], float]) -> None:
        self._members = members
        self._clock = clock
        self._busy = dict.fromkeys(members, 0)
        self._queue: Queue[_Turn[E]] = Queue()

    async def turn(self, until: float, kind: int = CALLER) -> Member[E] | None:
        """A place at a member, to be given back with `leave`; None where there will be none in time. `kind`: of who waits, see `_queue`."""
        if not self._queue.size and (member := self._best()) is not None:
            self._busy[member] += 1
            return member
        import anyio

        turn: _Turn[E] = _Turn(anyio.Event())
        self._queue.join(turn, kind, self._clock())
        try:
            while turn.member is None and self._promising(until):
                with anyio.move_on_after(self._patience(until)):
                    await turn.bell.wait()
                if turn.member is None:
                    turn.bell = anyio.Event()
                    self._give()
        except BaseException:
            if turn.member is not None:
                self.leave(turn.member)
            raise
        finally:
            if turn.member is None:
                self._queue.leave(turn)
                self.serve()
        return turn.member

    def leave(self, member: Member[E]) -> None:
        """Give the place back."""
        self._busy[member] -= 1
        self.serve()

    def serve(self) -> None:
        """Something has changed: give out what is free."""
        self._give()

    def _give(self) -> None:
        while self._queue.size and (member := self._best()) is not None:
            turn = self._queue.next(self._clock(), retries=True)
            if turn is None:
                return
            self._busy[member] += 1
            turn.member = member
            turn.bell.set()

    def _best(self) -> Member[E] | None:
        now, alone = self._clock(), self._alone()
        best, least = None, math.inf
        for each in self._members:
            window, busy = each.embedder.window, self._busy[each]
            if busy < each.health.room(now, window if each.verified else 1, alone=alone):
                cost = each.health.cost(now, busy / window)
                if best is None or cost < least:
                    best, least = each, cost
        return best

    def _alone(self) -> bool:
        """No member answers: each is all there is."""
        return all(each.health.failing for each in self._members)

    def _back(self) -> list[float]:
        alone = self._alone()
        return [each.health.back(alone=alone) for each in self._members]

    def _promising(self, until: float) -> bool:
        """Whether waiting can help: not beyond `until`, nor where all are left out for longer than anyone waits."""
        now = self._clock()
        return now < until and min(self._back()) - now <= CAP

    def _patience(self, until: float) -> float:
        """Seconds until there is reason to look again without the bell: a member may be let in again, or may have been left out."""
        now = self._clock()
        moments = [*self._back(), until]
        return min([moment - now for moment in moments if now < moment < math.inf], default=LOOK)
