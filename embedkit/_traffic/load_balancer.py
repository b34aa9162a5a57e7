"""Which endpoint of a pool serves whom: arithmetic on how each of them fares, and the line where callers wait for one.

Who has waited longest goes where the answer will come soonest, by the speed seen so far, among the endpoints whose
window has room. One that fails is left out for a while, longer each time, and is let in again with a single request,
once the others are full. Health is shared by all event loops; a load balancer, where places are taken and callers wait,
belongs to one of them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from .._types import CAP
from .endpoint_health import EndpointHealth
from .wait_queue import CALLER, Queue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import anyio


# seconds until who waits looks again, where nothing is known to change; odd, lest a caller ends in that moment
LOOK = 0.93


class Windowed(Protocol):
    """What is asked: it says how many requests it may have in flight on this event loop, and how many hang there."""

    @property
    def window(self) -> int:
        """Requests that may be in flight."""
        ...

    @property
    def hung(self) -> int:
        """Requests in flight that do not count for it."""
        ...


E = TypeVar("E", bound=Windowed)


class Endpoint(Generic[E]):
    """An endpoint of a pool: its embedder and its health. `verified`: it is known to serve the same model as the
    others. `rank`: one with a higher one is used only while no endpoint of a lower one has room.
    """

    __slots__ = ("embedder", "health", "rank", "verified")

    def __init__(self, embedder: E, *, verified: bool, rank: int = 0) -> None:
        self.embedder = embedder
        self.health = EndpointHealth()
        self.verified = verified
        self.rank = rank


class _Waiter(Generic[E]):
    """A caller in the queue; the event is set when there is an endpoint for it, or reason to look again."""

    __slots__ = ("call", "came", "event", "member")

    def __init__(self, event: anyio.Event) -> None:
        self.event = event
        self.came, self.call = 0.0, 0
        self.member: Endpoint[E] | None = None


class LoadBalancer(Generic[E]):
    """Who is served where, on one event loop: who has waited longest goes where the answer will come soonest."""

    def __init__(self, members: Sequence[Endpoint[E]], clock: Callable[[], float]) -> None:
        self._members = members
        self._clock = clock
        self._busy = dict.fromkeys(members, 0)
        self._queue: Queue[_Waiter[E]] = Queue()

    async def acquire(self, until: float, kind: int = CALLER) -> Endpoint[E] | None:
        """A place at a member, to be given back with `release`; None where there will be none in time. `kind`: of who
        waits, see `wait_queue`.
        """
        if not self._queue.size and (member := self._best()) is not None:
            self._busy[member] += 1
            return member
        import anyio

        turn: _Waiter[E] = _Waiter(anyio.Event())
        self._queue.join(turn, kind, self._clock())
        try:
            while turn.member is None and self._promising(until):
                with anyio.move_on_after(self._patience(until)):
                    await turn.event.wait()
                if turn.member is None:
                    turn.event = anyio.Event()
                    self._give()
        except BaseException:
            if turn.member is not None:
                self.release(turn.member)
            raise
        finally:
            if turn.member is None:
                self._queue.leave(turn)
                self.serve()
        return turn.member

    def release(self, member: Endpoint[E]) -> None:
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
            turn.event.set()

    def _best(self) -> Endpoint[E] | None:
        found = self._among({})
        if found is None:
            # Where requests hang at every member, they hold no place; where others answer, they keep more from going
            # where they hang.
            hung = {each: each.embedder.hung for each in self._members}
            found = self._among(hung) if all(hung.values()) else None
        return found

    def _among(self, hung: Mapping[Endpoint[E], int]) -> Endpoint[E] | None:
        now, alone = self._clock(), self._alone()
        best, least = None, (0, math.inf)
        for each in self._members:
            window, busy = each.embedder.window, self._busy[each]
            if busy - hung.get(each, 0) < each.health.room(now, window if each.verified else 1, alone=alone):
                cost = each.rank, each.health.cost(now, busy / window)
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
        """Whether waiting can help: not beyond `until`, nor where all are left out for longer than CAP."""
        now = self._clock()
        return now < until and min(self._back()) - now <= CAP

    def _patience(self, until: float) -> float:
        """Seconds until a waiter looks again without an event: an endpoint may be let in, or left out, by then."""
        now = self._clock()
        moments = [*self._back(), until]
        return min([moment - now for moment in moments if now < moment < math.inf], default=LOOK)
