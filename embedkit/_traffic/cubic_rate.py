"""The rate that a server grants, found from its refusals alone. Arithmetic: `now` comes in, seconds to wait go out."""

from __future__ import annotations

import math

REFUTED = 4.0  # by which a lost rate is taken to be smaller each time that some requests pass and it is refused again


class CubicRate:
    """The rate a server grants, found from its 429s alone. Made at the first of them.

    What it admitted between two of them is its rate, since its own bucket was empty at both. From a little below that
    the pace rises again: almost flat where the limit was found, ever faster once it is passed (a cubic, as in TCP: RFC
    9438), so that a limit costs few refusals and a limit that is gone is soon forgotten. The longer the rate held, the
    longer until it is tried again. While nobody sends, the clock stands still.

    Where hardly anything was admitted between two refusals, they say little of a rate: the provider may refuse
    everybody for a while. Then the rate goes down to a request a second (less, if it was less than ten), and is won
    back with the first good answers: an eighth of it with the first, and each doubles it.

    Attributes:
        wall: the rate found, in requests or tokens per second; 0 while nothing is known.
        lost: the rate before everything was refused, as long as it has not been won back; else 0.
    """

    __slots__ = (
        "_amount",
        "_before",
        "_borne",
        "_bound",
        "_last",
        "_mark",
        "_paused",
        "_plateau",
        "_requests",
        "_since",
        "_slot",
        "lost",
        "wall",
    )
    CUT = 0.1  # share given up
    # The old rate is reached again after so many seconds at most, or so many requests where those take longer.
    PLATEAU, LONGEST = 10.0, 200.0
    SETTLED = 1.0  # seconds after a cut in which a refusal says nothing new
    IDLE = 10.0  # seconds without a request that are no longer counted
    ENOUGH = 10  # requests that make a rate
    NEAR = 1.1  # how far above the mean the last pace may be to say anything
    # Idle time, in seconds, that may be made up later. Kept small: a strict server refuses two requests that arrive
    # together.
    SLACK = 0.01

    def __init__(self, now: float, before: float = 0.0) -> None:
        self.wall = self.lost = 0.0
        self._borne = before  # the last rate that was granted, where one is known
        self._plateau = 0.5
        self._slot = -math.inf  # when the last of those who wait may go
        self._last = now  # when somebody wanted to send, or may
        self._bound = False  # whether somebody waits for this
        self._restart(now)

    def _restart(self, now: float) -> None:
        self._since = now  # the last cut
        self._paused = 0.0  # seconds of cool-down since
        self._requests, self._amount = 0, 0.0  # admitted since
        self._before = self._mark = (now, 0, 0.0)  # the same one to two seconds ago, and up to one

    def sent(self, amount: float) -> None:
        """A request of this amount leaves."""
        self._requests += 1
        self._amount += amount

    def shift(self, now: float, seconds: float) -> None:
        """Nobody sends for so many seconds, and everyone who waits waits so much longer."""
        self._paused += seconds
        self._last = max(self._last, now) + seconds
        if self._slot >= now:
            self._slot += seconds

    def on_rejected(
        self, now: float, sent: float, amount: float, *, cut: bool, in_flight: int = 0, good: float = -math.inf
    ) -> None:
        """A 429 to a request of this amount, sent at `sent`. One sent before the last cut says nothing new.

        `in_flight`: other requests that are on their way. `good`: when the last one with a good answer was sent.
        """
        if sent < self._since:
            return
        self._requests -= 1
        self._amount -= amount
        seconds = now - self._since
        if not cut or seconds < self.SETTLED:
            return
        granted = self.granted(now)
        # What is on its way still may be refused like all the others, unless one of them has had a good answer.
        sure = self._requests - (in_flight if good < self._since else 0)
        few = sure < self.ENOUGH and granted * sure < self._borne / 2 * max(1, self._requests)
        if granted <= 0 or (few and (self.lost or not self.wall)):
            if self.lost and good >= self._since:
                # It was being won back, and was too much.
                self._borne = max(self._borne / REFUTED, min(self._borne, 2 * granted))
            self.lost = self._borne
            self.wall = max(min(self.wall or math.inf, amount / seconds / 2), min(amount, self.lost / 10))
        else:  # the fewer requests, the less they say
            self.wall += (granted - self.wall) * (min(1.0, self._requests / self.ENOUGH) if self.wall else 1.0)
            self.lost = 0.0
            if self._requests >= self.ENOUGH:
                self._borne = self.wall
        each = self._amount / self._requests if self._requests > 0 else amount
        longest = max(self.PLATEAU, self.LONGEST * each / self.wall) if self.wall else self.PLATEAU
        self._plateau = min(max(seconds, self._plateau / 2), longest)
        self._restart(now)

    def on_success(self, sent: float) -> None:
        """A good answer to a request sent at `sent`."""
        if sent >= self._since:
            self.wall = max(2 * self.wall, self.lost / 8)
            if self.wall >= 0.9 * self.lost:
                self.wall, self.lost = max(self.wall / 2, 0.9 * self.lost), 0.0

    def granted(self, now: float) -> float:
        """What was admitted per second since the last cut; or lately, where little was asked for before."""
        seconds = now - self._since
        if seconds < self.SETTLED:
            return self.wall
        lately = 0.0
        for then, requests, amount in (self._before, self._mark):
            if self._requests - requests >= self.ENOUGH:
                lately = (self._amount - amount) / max(now - then, 1.0)
        if not self._bound and lately > 2 * self._amount / max(seconds - self._paused, 1.0):
            return 0.9 * lately
        mean = self._amount / seconds
        # Where requests waited for it, the rate lies between the mean and the last pace: near that one if the server
        # saves up little.
        return (mean + max(mean, min(self.rate(now), self.NEAR * mean))) / 2 if self._bound else mean

    def rate(self, now: float) -> float:
        """What is allowed per second."""
        return self.wall * (1 + self.CUT * (max(0.0, now - self._since - self._paused) / self._plateau - 1) ** 3)

    def tick(self, now: float) -> None:
        """Somebody wants to send."""
        if now - self._last > self.IDLE:
            self._since += now - self._last
        self._last = max(now, self._last)
        if now - self._mark[0] > 1.0:
            self._before, self._mark = self._mark, (now, self._requests, self._amount)

    def reserve(self, now: float, amount: float) -> float:
        """Seconds before a request of this amount may go. Negative amounts are given back."""
        if not self.wall:
            return 0.0
        cost = amount / self.rate(now)
        self._slot = max(self._slot, now - max(cost, self.SLACK)) + cost
        self._last = max(self._last, self._slot)
        self._bound = self._slot > now
        return max(0.0, self._slot - now)
