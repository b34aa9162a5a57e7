"""How many tokens a job may still spend: asked before a text is sent, so that the limit is not passed. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class Budget:
    """A limit of tokens.

    Until the provider has counted a text, our estimate stands for it, scaled by how the provider has counted the texts
    before, where it counts more than we do.

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

    def came_back(self, texts: int, tokens: int | None) -> None:
        """So many texts came back, the oldest first. `tokens`: as the provider counts; None: the estimate stands."""
        estimate = sum(self._estimates.popleft() for _ in range(texts))
        self._in_flight -= estimate
        self._spent += estimate if tokens is None else tokens
        if tokens is not None:
            self._estimated += estimate
            self._counted += tokens
