"""Dispatch: slices go out over a crew of workers, rows come back into one matrix, and what is refused is taken apart.

Every slice owns its rows of the matrix from the start, so the order of arrival cannot matter. The first reply knows the width and
allocates; no reply is ever joined to another.

A batch refused for its size comes back in pieces: of the size that the refusal names, which holds for all that follow, else in
halves. So does a batch that was not answered in time. A batch refused for a text loses just that text: at once where the provider
names it, else by halving until it stands alone. Whether the *request* is refused rather than a text is settled once per call, by one
known-good text (and, should that fail too, by the halves of the batch).
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NoReturn

from ._crew import Crew
from ._types import DType, Reply, array_of
from .errors import DecodeError, EmbedkitError, InvalidInputError, TooLargeError, TransportTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    import anyio
    from numpy.typing import NDArray

    Fill = Callable[[Sequence[str], Callable[[int], NDArray[Any]]], Awaitable[Reply]]
    Tell = Callable[[int, EmbedkitError], None]
    Cut = Callable[[int, int], Iterator[slice]]
    Learn = Callable[[Sequence[str], TooLargeError], bool]

GOOD = "hello"  # a text no provider refuses
LATE = 3  # how often a batch that is late is halved and sent again


def _silent(texts: int, error: EmbedkitError) -> None:
    """Nobody listens."""


def _nothing_new(texts: Sequence[str], error: TooLargeError) -> bool:  # noqa: ARG001 (the shape of `learn`)
    """No limit is learned."""
    return False


class Board:
    """The state of one call: its matrix (of `room` rows, the first of them for `texts`), what is done, failed and still to do.

    `cut(start, stop)` gives the slices of a range of texts. `learn(texts, error)` is told of a batch found too large; True says that
    `cut` knows better from now on.
    """

    def __init__(
        self,
        texts: Sequence[str],
        cut: Cut,
        fill: Fill,
        *,
        room: int,
        dtype: DType = "float32",
        width: int | None = None,
        skip: bool = False,
        learn: Learn = _nothing_new,
        on_split: Tell = _silent,
        on_failure: Tell = _silent,
    ) -> None:
        self.matrix: NDArray[Any] | None = None
        self.width = width  # of a stored row: of bytes where bits are packed
        self.model = ""
        self.tokens: int | None = 0
        self.failures: dict[int, EmbedkitError] = {}
        self.done = bytearray(len(texts))
        self._texts = texts
        self._cut = cut
        self._crew = Crew(cut(0, len(texts)))
        self._fill = fill
        self._room = room
        self._dtype = dtype
        self._skip = skip
        self._learn = learn
        self._on_split = on_split
        self._on_failure = on_failure
        self._trusted: bool | None = None  # whether this request, with these options, is accepted at all
        self._asking: anyio.Lock | None = None

    async def run(self, workers: int, first: int | None = None) -> None:
        """Do all the work, with so many workers (`first`: before the first good answer).

        The first error that cannot be set aside stops everyone and is raised as it is.
        """
        await self._crew.run(self._attempt, workers, first)
        if self.done.count(1) + len(self.failures) < len(self._texts):
            # A group takes a worker's own cancellation for its end, and the rows would be missing from a success.
            msg = "a batch was cancelled from within, not by the caller; its vectors are lost"
            raise RuntimeError(msg)

    async def _attempt(self, part: slice, late: int) -> None:
        if self._asking is not None and self._trusted is None:
            async with self._asking:
                pass  # whether this request is accepted at all is being asked: one answer serves all
        try:
            reply = await self._fill(self._texts[part], lambda width: self._rows(part, width))
        except UnicodeEncodeError as error:
            refused: EmbedkitError = unencodable(self._texts[part], error)
        except EmbedkitError as error:
            refused = _own(error)
        else:
            self._settle(reply)
            self.done[part] = b"\1" * (part.stop - part.start)
            return
        try:
            await self._refused(part, refused, late)
        finally:
            del refused  # it knows this frame, and so would keep the matrix alive

    async def _refused(self, part: slice, refused: EmbedkitError, late: int) -> None:
        if isinstance(refused, TooLargeError):
            await self._shrink(part, refused)
        elif isinstance(refused, InvalidInputError):
            await self._isolate(part, refused)
        elif (
            isinstance(refused, TransportTimeoutError)
            and refused.retryable
            and refused.sent
            and late < LATE
            and part.stop - part.start > 1
        ):
            self._again(part, refused, *_halves(part), late=late + 1)
        else:
            refused.rows = tuple(part.start + row for row in refused.rows)
            self._stop(part.stop - part.start, refused)

    def _rows(self, part: slice, width: int) -> NDArray[Any]:
        if width != (self.width or width):
            msg = f"this reply has {width} values per row, earlier ones under the same options had {self.width}"
            raise DecodeError(msg)
        if self.matrix is None:
            import numpy as np

            self.width = width
            self.matrix = np.empty((self._room, width), array_of(self._dtype))
        return self.matrix[part]

    def _settle(self, reply: Reply) -> None:
        self._trusted = self._crew.proven = True
        self.model = reply.model or self.model
        self.tokens = None if reply.tokens is None or self.tokens is None else self.tokens + reply.tokens

    async def _shrink(self, part: slice, error: TooLargeError) -> None:
        if self._learn(self._texts[part], error):
            self._crew.follow(self._cut(self._crew.reached, len(self._texts)))
        if part.stop - part.start > 1:
            pieces = list(self._cut(part.start, part.stop))
            self._again(part, error, *(pieces if len(pieces) > 1 else _halves(part)))
        else:
            await self._ask(part, error)
            self._give_up([part.start], error)

    async def _isolate(self, part: slice, error: InvalidInputError) -> None:
        size = part.stop - part.start
        named = sorted({row for row in error.rows if 0 <= row < size})
        if not named:
            await self._ask(part, error)
            if size > 1:
                self._again(part, error, *_halves(part))
                return
            named = [0]
        self._give_up([part.start + row for row in named], error)
        edges = [-1, *named, size]
        gaps = [slice(part.start + before + 1, part.start + after) for before, after in pairwise(edges)]
        self._again(part, error, *(gap for gap in gaps if gap.start < gap.stop))

    async def _ask(self, part: slice, error: EmbedkitError) -> None:
        """Settle whether the request itself is refused: if texts beyond doubt fail too, no text is to blame."""
        if self._asking is None:
            import anyio

            self._asking = anyio.Lock()
        async with self._asking:
            if self._trusted is None:
                halves = [self._texts[half] for half in _halves(part)] if part.stop - part.start > 1 else []
                for texts in ([GOOD], *halves):
                    if await self._accepted(texts):
                        return
        if self._trusted:
            return
        self._trusted = False  # so that no other worker asks again before it is stopped
        error.rows = ()
        self._stop(part.stop - part.start, error)

    async def _accepted(self, texts: Sequence[str]) -> bool:
        try:
            self._settle(await self._fill(texts, _scratch(len(texts), self._dtype)))
        except (InvalidInputError, TooLargeError):
            return False
        except EmbedkitError as error:
            error.rows = ()
            self._stop(len(texts), error)
        return True

    def _again(self, part: slice, error: EmbedkitError, *pieces: slice, late: int = 0) -> None:
        if pieces:
            self._crew.again(pieces, late)
            self._on_split(part.stop - part.start, error)

    def _give_up(self, rows: list[int], error: EmbedkitError) -> None:
        """Mark rows as failed, or raise their error."""
        if not self._skip:
            error.rows = tuple(rows)
            self._stop(len(rows), error)
        for row in rows:
            self.failures[row] = mine = error.at(row)
            self._on_failure(1, mine)

    def _stop(self, texts: int, error: EmbedkitError) -> NoReturn:
        self._on_failure(texts, error)
        raise error


def _halves(part: slice) -> tuple[slice, slice]:
    middle = (part.start + part.stop) // 2
    return slice(part.start, middle), slice(middle, part.stop)


def _own(error: EmbedkitError) -> EmbedkitError:
    """A copy whose rows may be set: a custom embedder may raise one object again and again."""
    mine = copy.copy(error).with_traceback(error.__traceback__)
    mine.__cause__, mine.__context__ = error.__cause__, error.__context__
    mine.__suppress_context__ = error.__suppress_context__
    return mine


def _scratch(count: int, dtype: DType) -> Callable[[int], NDArray[Any]]:
    def rows(width: int) -> NDArray[Any]:
        import numpy as np

        return np.empty((count, width), array_of(dtype))

    return rows


def unencodable(texts: Sequence[str], error: UnicodeEncodeError) -> InvalidInputError:
    """The rows that are no valid Unicode. Raises the error itself where none is: then it was not about these texts."""
    rows = [row for row, text in enumerate(texts) if not _encodes(text)]
    if not rows:
        raise error
    msg = "the text holds a lone surrogate, which is no character: text.encode('utf-8', 'replace').decode() mends it"
    return InvalidInputError(msg, rows=rows)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


__all__ = ["GOOD", "Board", "unencodable"]
