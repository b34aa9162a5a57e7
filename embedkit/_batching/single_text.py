"""One text is one request: it goes out by itself, and only what fails is for the dispatcher to judge."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from .._types import DType, Options, Reply, RequestCount, array_of
from ..codec import OutputRows, unlike_earlier

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Embeds one batch into rows, in at most so many tries; see `Embedder.fill_rows`.
Fills: TypeAlias = Callable[[Sequence[str], Options, OutputRows, RequestCount, "int | None"], Awaitable[Reply]]


class FirstRow(OutputRows):
    """The first row of a matrix of `room` rows, made when a reply tells the width. `width`: what is known of it."""

    __slots__ = ("_dtype", "_room", "matrix")

    def __init__(self, room: int, dtype: DType, width: int | None) -> None:
        self._room = room
        self._dtype = dtype
        self.width = width
        self.failures = {}
        self.matrix: NDArray[Any] | None = None

    def __call__(self, width: int) -> NDArray[Any]:
        if width != (self.width or width):
            raise unlike_earlier(width, self.width)
        import numpy as np

        self.matrix = rows = np.empty((self._room, width), array_of(self._dtype))
        return rows if self._room == 1 else rows[:1]


def replayed(fills: Fills, row: FirstRow, outcome: Reply | Exception) -> Fills:
    """`fills`, whose first call gives what was tried already: this reply, with the row it filled, or this error."""
    left: list[Reply | Exception] = [outcome]

    async def filled(
        texts: Sequence[str], options: Options, out: OutputRows, tally: RequestCount, tries: int | None
    ) -> Reply:
        if not left:
            return await fills(texts, options, out, tally, tries)
        first = left.pop()
        if isinstance(first, Exception):
            raise first
        if row.matrix is not None:
            out(row.matrix.shape[1])[:] = row.matrix[:1]
        out.failures = row.failures
        return first

    return filled


__all__ = ["Fills", "FirstRow", "replayed"]
