"""Sends equal texts once and empty ones not at all, and gives every row of the caller its vector. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .._hints import NDArray
from ..codec.vector_math import missing_value
from ..errors import EmbedkitError, InvalidInputError

BLOCK = 1024  # rows moved at a time when equal texts get their rows back


class UniqueTexts:
    """The texts that a call sends: equal ones once (unless they may repeat), no empty ones; and which rows are
    theirs.
    """

    def __init__(self, rows: list[str], *, accepts_empty: bool, skip: bool, repeats: bool = False) -> None:
        self.failures: dict[int, EmbedkitError] = {}
        self.count = len(rows)
        self._places: NDArray[Any] | None = None  # the caller's row → its place among the texts sent; -1: not sent
        if self.count == 1 and (rows[0] or accepts_empty):  # most calls
            self.texts = rows
            return
        places = dict.fromkeys(rows)
        refused = "" in places and not accepts_empty
        if refused:
            self._refuse([row for row, text in enumerate(rows) if not text], skip=skip)
            del places[""]
        if repeats:
            self._keep_all(rows, refused=refused)
            return
        self.texts = list(places) if len(places) < len(rows) else rows
        if self.texts is not rows:
            import numpy as np

            order = dict(zip(places, range(len(places)), strict=True))
            self._places = np.fromiter((order.get(text, -1) for text in rows), np.intp, len(rows))

    def _keep_all(self, rows: list[str], *, refused: bool) -> None:
        """Send every text in its place; leave out only empty ones that are refused."""
        self.texts = [text for text in rows if text] if refused else rows
        if refused:
            import numpy as np

            sent = np.fromiter(map(bool, rows), bool, len(rows))
            self._places = np.where(sent, np.cumsum(sent) - 1, -1)

    def _refuse(self, empty: list[int], *, skip: bool) -> None:
        msg = "the text is empty, and this provider embeds no empty text"
        if not skip:
            msg += "; leave it out or pass on_error='skip'"
            raise InvalidInputError(msg, rows=empty)
        self.failures = {row: InvalidInputError(msg, rows=(row,)) for row in empty}

    def rows_of(self, places: Iterable[int]) -> tuple[int, ...]:
        """The caller's rows for places among the texts sent."""
        if self._places is None:
            return tuple(places)
        wanted = set(places)
        return tuple(row for row, place in enumerate(self._places.tolist()) if place in wanted) if wanted else ()

    def spread_failures(self, failures: Mapping[int, EmbedkitError]) -> dict[int, EmbedkitError]:
        """The caller's row → its own error, those found before sending included, in order."""
        if not (failures or self.failures):
            return {}
        if self._places is None:
            return dict(sorted(failures.items()))
        found = {row: failures[place].at(row) for row, place in enumerate(self._places.tolist()) if place in failures}
        return dict(sorted({**self.failures, **found}.items()))

    def expand(self, matrix: NDArray[Any]) -> NDArray[Any]:
        """Give every row of the caller its vector, in place: the
        matrix has room for all, its first rows are those of `texts`.

        A text's place never lies behind any of its rows, so filling
        from the end overwrites nothing that is still needed.
        """
        if self._places is not None:
            for stop in range(len(self._places), 0, -BLOCK):
                part = slice(max(0, stop - BLOCK), stop)
                places = self._places[part]
                matrix[part] = matrix[places]
                matrix[part][places < 0] = missing_value(matrix)
        return matrix
