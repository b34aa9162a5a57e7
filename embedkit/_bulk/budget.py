"""How many tokens a job may still spend: asked before a text is sent, so that the limit is not passed. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

FIRST = 512  # texts that are sent whatever the limit: two parts of a stream, so that one is sure to be on its way
SHARE = 0.1  # of the limit that is in flight before the provider has counted anything


class Budget:
    """A limit of tokens.

    Until the provider has counted a text, our estimate stands for it, scaled by how the provider has counted the texts
    before, where it counts more than we do. Before it has counted any, only a tenth of the limit is in flight.

    Args:
        limit: tokens of the whole job.
        spent: tokens of earlier runs.
        count_tokens: the estimate for one text.
        sent: so many texts at the beginning are sent already; they count, and are not refused.
    """

    def __init__(self, limit: int, spent: int, count_tokens: Callable[[str], int], sent: int = 0) -> None:
        self._limit = limit
        self._sent = sent
        self._spent = spent
        self._count_tokens = count_tokens
        self._estimates: deque[int] = deque()  # of the texts in flight
        self._in_flight = 0
        self._answered = False  # anything came back
        self._estimated = self._counted = 0  # of the texts that came back

    def may(self, text: str | None) -> bool:
        """Whether another text can be sent within the limit; it counts as sent then."""
        estimate = self._count_tokens(text) if text else 0
        ratio = max(1.0, self._counted / self._estimated) if self._estimated else 1.0
        if self._sent:
            self._sent -= 1
        elif self._spent + (self._in_flight + estimate) * ratio > self._limit:
            return False
        self._estimates.append(estimate)
        self._in_flight += estimate
        return True

    @property
    def waits(self) -> bool:
        """Whether no further text is to be sent before one has come back."""
        much = self._in_flight > SHARE * (self._limit - self._spent) and len(self._estimates) >= FIRST
        return much and not self._answered

    def came_back(self, texts: int, tokens: int | None) -> None:
        """So many texts came back, the oldest first. `tokens`: as the provider counts; None: the estimate stands."""
        self._answered = True
        estimate = sum(self._estimates.popleft() for _ in range(texts))
        self._in_flight -= estimate
        self._spent += estimate if tokens is None else tokens
        if tokens is not None:
            self._estimated += estimate
            self._counted += tokens
