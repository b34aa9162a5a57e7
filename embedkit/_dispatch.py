"""Dispatch: slices go out over a bounded number of workers, rows come back into one matrix, and what is refused is taken apart.

Workers share one iterator of slices and a deque for pieces that come back smaller; a worker leaves when both are empty and nothing
is in flight. Every slice owns its rows of the matrix from the start, so the order of arrival cannot matter. The first reply knows
the width and allocates; no reply is ever joined to another.

A batch refused for its size is halved. A batch refused for a text loses just that text: at once where the provider names it, else by
halving until it stands alone. Whether the *request* is refused rather than a text is settled once per call, by one known-good text.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from ._types import DType, Reply, array_of
from .errors import DecodeError, EmbedkitError, InvalidInputError, TooLargeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    import anyio
    from numpy.typing import NDArray

    Fill = Callable[[Sequence[str], Callable[[int], NDArray[Any]]], Awaitable[Reply]]

GOOD = "hello"  # a text no provider refuses


class Board:
    """The state of one call: its matrix (of `room` rows, the first of them for `texts`), what is done, failed and still to do."""

    def __init__(
        self,
        texts: Sequence[str],
        slices: Iterator[slice],
        fill: Fill,
        *,
        room: int,
        dtype: DType = "float32",
        width: int | None = None,
        skip: bool = False,
        split: Callable[[int, EmbedkitError], None] | None = None,
    ) -> None:
        self.matrix: NDArray[Any] | None = None
        self.model = ""
        self.tokens: int | None = 0
        self.failures: dict[int, EmbedkitError] = {}
        self.done = bytearray(len(texts))
        self._texts = texts
        self._slices = slices
        self._fill = fill
        self._room = room
        self._dtype = dtype
        self._width = width
        self._skip = skip
        self._split = split
        self._pieces: deque[slice] = deque()
        self._flying = 0
        self._changed: anyio.Event | None = None
        self._trusted = False  # this request, with these options, has been accepted at least once
        self._asking: anyio.Lock | None = None
        self._error: BaseException | None = None

    async def run(self, workers: int) -> None:
        """Do all the work. The first error that cannot be set aside stops everyone and is raised as it is."""
        first = next(self._slices, None)
        if first is None:
            return
        self._pieces.append(first)
        second = next(self._slices, None) if workers > 1 else None
        if second is None:
            await self._work()  # one slice, or one worker: no task group
        else:
            self._pieces.append(second)
            await self._together(workers)

    async def _together(self, workers: int) -> None:
        import anyio

        async with anyio.create_task_group() as group:

            async def worker() -> None:
                try:
                    await self._work()
                except Exception as error:
                    # Kept aside rather than raised: a task group would wrap it, and users write `except ApiError`.
                    self._error = self._error or error
                    group.cancel_scope.cancel()

            for _ in range(min(workers, len(self._texts))):
                group.start_soon(worker)
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    async def _work(self) -> None:
        while True:
            part = self._pieces.popleft() if self._pieces else next(self._slices, None)
            if part is not None:
                self._flying += 1
                try:
                    await self._attempt(part)
                finally:
                    self._flying -= 1
                    if self._changed is not None:
                        self._changed.set()
                        self._changed = None
            elif self._flying:
                await self._change()  # what is in flight may come back in pieces
            else:
                return

    async def _change(self) -> None:
        if self._changed is None:
            import anyio

            self._changed = anyio.Event()
        await self._changed.wait()

    async def _attempt(self, part: slice) -> None:
        try:
            reply = await self._fill(self._texts[part], lambda width: self._rows(part, width))
        except TooLargeError as error:
            if part.stop - part.start == 1:
                self._give_up(part, error)
            else:
                self._halve(part, error)
        except UnicodeEncodeError as error:
            await self._isolate(part, unencodable(self._texts[part], error))
        except InvalidInputError as error:
            await self._isolate(part, error)
        except DecodeError as error:
            error.rows = tuple(part.start + row for row in error.rows)
            raise
        else:
            self._settle(reply)
            self.done[part] = b"\1" * (part.stop - part.start)

    def _rows(self, part: slice, width: int) -> NDArray[Any]:
        if width != (self._width or width):
            msg = f"this reply has {width} values per row, earlier ones under the same options had {self._width}"
            raise DecodeError(msg)
        if self.matrix is None:
            import numpy as np

            self._width = width
            self.matrix = np.empty((self._room, width), array_of(self._dtype))
        return self.matrix[part]

    def _settle(self, reply: Reply) -> None:
        self._trusted = True
        self.model = reply.model or self.model
        self.tokens = None if reply.tokens is None or self.tokens is None else self.tokens + reply.tokens

    def _halve(self, part: slice, error: EmbedkitError) -> None:
        middle = (part.start + part.stop) // 2
        self._pieces.extend((slice(part.start, middle), slice(middle, part.stop)))
        if self._split is not None:
            self._split(part.stop - part.start, error)

    async def _isolate(self, part: slice, error: InvalidInputError) -> None:
        size = part.stop - part.start
        named = sorted({row for row in error.rows if 0 <= row < size})
        if not named:
            await self._ask(error)
            if size > 1:
                self._halve(part, error)
                return
            named = [0]
        for row in named:
            self._give_up(slice(part.start + row, part.start + row + 1), error)
        edges = [-1, *named, size]
        for before, after in zip(edges, edges[1:], strict=False):
            if after - before > 1:
                self._pieces.append(slice(part.start + before + 1, part.start + after))

    async def _ask(self, error: InvalidInputError) -> None:
        """Settle whether the request itself is refused: if a text beyond doubt fails too, no text is to blame."""
        if self._asking is None:
            import anyio

            self._asking = anyio.Lock()
        async with self._asking:
            if self._trusted:
                return
            try:
                self._settle(await self._fill([GOOD], _scratch(self._dtype)))
            except InvalidInputError:
                error.rows = ()
                raise error from None

    def _give_up(self, part: slice, error: EmbedkitError) -> None:
        """Mark one row as failed, or raise its error."""
        mine = error if not self.failures and error.rows in ((), (part.start,)) else _copy(error)
        mine.rows = (part.start,)
        if not self._skip:
            raise mine
        self.failures[part.start] = mine


def _copy(error: EmbedkitError) -> EmbedkitError:
    revive, arguments = error.__reduce__()
    twin: EmbedkitError = revive(*arguments)
    return twin


def _scratch(dtype: DType) -> Callable[[int], NDArray[Any]]:
    def rows(width: int) -> NDArray[Any]:
        import numpy as np

        return np.empty((1, width), array_of(dtype))

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
