"""Dispatch: slices go out over a pool of workers, rows come back into one matrix, and what is refused is taken apart.

Every slice owns its rows of the matrix from the start, so the order of arrival cannot matter. The first reply knows the
width and allocates; no reply is ever joined to another.

A batch refused for its size comes back in pieces: of the size that the refusal names, which holds for all that
follow, else in halves. A batch that fails for one text loses just that text: at once where the reply names it,
else by halving until it stands alone. Of the pieces each is sent once; a text that stands alone has all the tries
of the policy again. Every failure that one text can cause is taken for that: a refusal, a failing server, no
answer, an answer without a usable vector for it.

Whether one text is at fault is asked before anything is taken apart, and again before a text that stands alone is given
up. A refusal may be of the *request*: that is settled once per call, by one known-good text (and, should that fail too,
by the halves of the batch). A server that fails may fail everybody: then only an answer that came since the failure
tells, to another batch or to the known-good text. Where that fails too, the failure is raised. A batch that was not
answered in time is halved first and asked about later, since it may have been too large.

Where vectors depend on the other texts of their request, nothing
is taken apart: every failure but that of a row is raised.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NoReturn

from .._types import DType, Reply, array_of
from ..codec import OutputRows, together, unlike_earlier
from ..errors import (
    ApiError,
    DecodeError,
    EmbedkitError,
    InvalidInputError,
    ServerError,
    TooLargeError,
    TooLongError,
    TransportError,
    TransportTimeoutError,
)
from .workers import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    import anyio
    from numpy.typing import NDArray

    Fill = Callable[[Sequence[str], OutputRows, int | None], Awaitable[Reply]]
    Tell = Callable[[int, EmbedkitError], None]
    Cut = Callable[[int, int], Iterator[slice]]
    Learn = Callable[[Sequence[str], TooLargeError], bool]

PROBE_TEXT = "hello"  # a text no provider refuses
ODD = 3  # rows that may have set a wrong width
SUSPECTED = 0  # tries as the policy says, of a text that is suspected
MAX_LATE_SPLITS, STREAK = (
    3,
    8,
)  # failures in a row after which somebody asks whether the server is well: of late batches, of other pieces


def silent(texts: int, error: EmbedkitError) -> None:
    """Nobody listens."""


def _nothing_new(texts: Sequence[str], error: TooLargeError) -> bool:  # noqa: ARG001 (the shape of `learn`)
    """No limit is learned."""
    return False


class Dispatcher:
    """The state of one call: its matrix (of `room` rows, the first
    of them for `texts`), what is done, failed and still to do.

    `cut(start, stop)` gives the slices of a range of texts. `fill(texts, out, tries)` embeds a batch, in at most
    so many tries (None: as the policy says; 0: the same for a text that is suspected, whose failures say nothing
    of the endpoint). `learn(texts, error)` is told of a batch found too large; True says that `cut` knows better
    from now on. `whole`: the texts are one request, which is not taken apart. `single_text`: the caller has one
    text and wants its error, whoever is at fault.
    """

    _trusted: bool | None = None  # whether this request, with these options, is accepted at all
    _passed = _streak = 0  # good replies; failures since the last one
    _made_for: slice | None = None  # the part whose reply the matrix was made for, until that reply is found good
    _asking: anyio.Lock | None = None
    _unusable: EmbedkitError | None = None  # of a row, to be raised at the end
    _probed: int | None = None  # values per row of the known-good text

    def __init__(  # noqa: PLR0913 (one call's whole setting)
        self,
        texts: Sequence[str],
        cut: Cut,
        fill: Fill,
        *,
        room: int,
        dtype: DType = "float32",
        width: int | None = None,
        skip: bool = False,
        whole: bool = False,
        lone: bool = False,
        learn: Learn = _nothing_new,
        on_split: Tell = silent,
        on_failure: Tell = silent,
    ) -> None:
        self.matrix: NDArray[Any] | None = None
        self.width = width  # of a stored row: of bytes where bits are packed
        self._told = width is not None  # by earlier calls
        self.model = ""
        self.tokens: int | None = 0
        self.failures: dict[int, EmbedkitError] = {}
        self.done = bytearray(len(texts))
        self._texts = texts
        self._cut = cut
        self._crew = WorkerPool(cut(0, len(texts)))
        self._fill = fill
        self._room = room
        self._dtype = dtype
        self._skip = skip
        self._whole = whole and len(texts) > 1
        self._lone = lone and len(texts) == 1
        self._learn = learn
        self._on_split = on_split
        self._on_failure = on_failure

    async def run(self, workers: int, first: int | None = None) -> None:
        """Do all the work, with so many workers (`first`: before the first good answer).

        The first error that cannot be set aside stops everyone and is raised as it is.
        """
        await self._crew.run(self._attempt, workers, first)
        if self._unusable is not None:
            self._stop(len(self._unusable.rows), self._unusable)
        if self.done.count(1) + len(self.failures) < len(self._texts):
            # A group takes a worker's own cancellation for its end, and the rows would be missing from a success.
            msg = "a batch was canceled from within, not by the caller; its vectors are lost"
            raise RuntimeError(msg)

    async def _attempt(self, part: slice, depth: int) -> None:
        """Send one batch, `depth` halvings below one that was not answered: then once, whatever the policy allows."""
        if self._asking is not None and self._trusted is None:
            async with self._asking:
                pass  # whether this request is accepted at all is being asked: one answer serves all
        out, width = _PartRows(self, part), self.width
        try:
            reply = await self._fill(
                self._texts[part], out, None if not depth else 1 if part.stop - part.start > 1 else SUSPECTED
            )
        except UnicodeEncodeError as error:
            failure: EmbedkitError = unencodable(self._texts[part], error)
        except EmbedkitError as error:
            failure = _own(error)
        else:
            self._record(reply)
            self.done[part] = b"\1" * (part.stop - part.start)
            if out.failures:
                self._drop(part, out.failures)
            return
        self._streak += 1
        if self._made_for is part:
            self.matrix = self._made_for = None
        try:
            await self._failed(part, failure, depth, width)
        finally:
            del failure  # it knows this frame, and so would keep the matrix alive

    async def _failed(self, part: slice, error: EmbedkitError, depth: int, width: int | None) -> None:
        """Take the batch apart, give its text up, or raise the error. `width`: what was known when it was sent."""
        size, passed = part.stop - part.start, self._passed
        unsure = isinstance(error, DecodeError) and error.missing
        named = [] if unsure else sorted({row for row in error.rows if 0 <= row < size})
        if self._whole and len(named) < size:
            self._raise(part, error)
        elif isinstance(error, TooLargeError):
            await self._shrink(part, error)
        elif isinstance(error, InvalidInputError):
            if not named:
                await self._check_request(part, error)
            self._isolate(part, error, named, 0)
        elif self._lone or not _may_be_one_text(error, size):
            self._raise(part, error)
        else:
            late = isinstance(error, TransportTimeoutError)
            if (
                size == 1
                or named
                or (unsure and self.width is None)
                or self._streak > (MAX_LATE_SPLITS if late else STREAK)
                or not (depth or late)
            ):
                await self._check_server(part, error, passed)
                if isinstance(error, DecodeError) and (self._corrected() or width not in (None, self.width)):
                    self._again(part, error, part, depth=depth)
                    return
            self._isolate(part, error, named, depth + 1)

    def _isolate(self, part: slice, error: EmbedkitError, named: list[int], depth: int) -> None:
        """Give up the rows named, or the only text, and send the others again; else halve."""
        size = part.stop - part.start
        if not named and size > 1:
            self._again(part, error, *_halves(part), depth=depth)
            return
        named = named or [0]
        self._fail_rows([part.start + row for row in named], error)
        edges = [-1, *named, size]
        gaps = [slice(part.start + before + 1, part.start + after) for before, after in pairwise(edges)]
        self._again(part, error, *(gap for gap in gaps if gap.start < gap.stop))

    def rows_of(self, part: slice, width: int) -> NDArray[Any]:
        """The rows of this part, so many values wide; all parts are of one width."""
        if self._made_for is part:
            self.matrix = None  # made for this very reply, by a row that is not like its others
        known = self.width if self.matrix is None else self.matrix.shape[1]
        if width != (known or width):
            raise unlike_earlier(width, known)
        if self.matrix is None:
            import numpy as np

            self.matrix = np.empty((self._room, width), array_of(self._dtype))
            self._made_for = part
        return self.matrix[part]

    def _record(self, reply: Reply) -> None:
        self._trusted = self._crew.proven = True
        self._passed += 1
        self._streak = 0
        self._made_for = None
        if self.matrix is not None:
            self.width = self.matrix.shape[1]
        self.model = reply.model or self.model
        self.tokens = None if reply.tokens is None or self.tokens is None else self.tokens + reply.tokens

    async def _shrink(self, part: slice, error: TooLargeError) -> None:
        if self._learn(self._texts[part], error):
            self._crew.replace_rest(self._cut(self._crew.reached, len(self._texts)))
        if part.stop - part.start > 1:
            pieces = list(self._cut(part.start, part.stop))
            self._again(part, error, *(pieces if len(pieces) > 1 else _halves(part)))
        else:
            await self._check_request(part, error)
            self._fail_rows([part.start], error)

    async def _check_server(self, part: slice, error: EmbedkitError, passed: int) -> None:
        """Raise the error where the server fails everybody: no reply
        was good since it came, and the known-good text fails too.
        """
        async with self._lock():
            if self._passed > passed:
                return
            try:
                await self._probe([PROBE_TEXT])
            except EmbedkitError as other:
                if isinstance(other, (InvalidInputError, TooLargeError)) or _may_be_one_text(other, 1):
                    self._raise(part, error)
                other.rows = ()
                self._stop(part.stop - part.start, other)

    def _lock(self) -> anyio.Lock:
        if self._asking is None:
            import anyio

            self._asking = anyio.Lock()
        return self._asking

    async def _check_request(self, part: slice, error: EmbedkitError) -> None:
        """Settle whether the request itself is refused: if texts beyond doubt fail too, no text is to blame.

        Nothing is asked about one text that is too long, nor for a
        caller who has no other: that request is refused either way.
        """
        if self._trusted is None and self._lone:
            accepted = self.width is not None  # others were before it, under these options
            self._trusted = accepted or isinstance(error, TooLargeError)
        if self._trusted or (isinstance(error, TooLongError) and part.stop - part.start == 1):
            return
        async with self._lock():
            if self._trusted is None and not self._lone:
                halves = [self._texts[half] for half in _halves(part)] if part.stop - part.start > 1 else []
                for texts in ([PROBE_TEXT], *halves):
                    if await self._accepted(texts):
                        return
        if self._trusted:
            return
        self._trusted = False  # so that no other worker asks again before it is stopped
        error.rows = ()
        self._stop(part.stop - part.start, error)

    async def _accepted(self, texts: Sequence[str]) -> bool:
        try:
            await self._probe(texts)
        except (InvalidInputError, TooLargeError):
            return False
        except EmbedkitError as error:
            error.rows = ()
            self._stop(len(texts), error)
        return True

    async def _probe(self, texts: Sequence[str]) -> None:
        """Embed texts for the sake of the answer."""
        out = OutputRows(lambda width: _scratch(len(texts), width, self._dtype))
        reply = await self._fill(texts, out, None)
        if len(out.failures) == len(texts):
            raise together(out.failures)
        self._probed = reply.vectors.shape[1]
        self.width = self.width or self._probed
        self._record(reply)

    def _corrected(self) -> bool:
        """True where the known-good text shows that the width so far was
        that of a few odd rows, which fail instead of all that follow.
        """
        odd = [row for row, done in enumerate(self.done) if done] if self._probed not in (None, self.width) else []
        if not odd or len(odd) > ODD or self._told:
            return False
        msg = f"embeddings of unequal width: this one has {self.width} values, a known-good text {self._probed}"
        self.width, self.matrix = self._probed, None
        for row in odd:
            self.done[row] = 0
        self._fail_rows(odd, DecodeError(msg))
        return True

    def _again(self, part: slice, error: EmbedkitError, *pieces: slice, depth: int = 0) -> None:
        if pieces:
            self._crew.push_back(pieces, depth)
            self._on_split(part.stop - part.start, error)

    def _drop(self, part: slice, failures: Mapping[int, DecodeError]) -> None:
        """Give up the rows of a reply that cannot be used; the others are done."""
        for row in failures:
            self.done[part.start + row] = 0
        if not self._skip:  # raised when what is in flight has come too, since it is paid for
            error = together(failures)
            error.rows = tuple(part.start + row for row in error.rows)
            self._unusable = self._unusable or error
            self._crew.finish()
            return
        while failures:
            error = together(failures)
            failures = {row: other for row, other in failures.items() if row not in error.rows}
            self._fail_rows([part.start + row for row in error.rows], error)

    def _raise(self, part: slice, error: EmbedkitError) -> NoReturn:
        error.rows = tuple(part.start + row for row in error.rows)
        self._stop(part.stop - part.start, error)

    def _fail_rows(self, rows: list[int], error: EmbedkitError) -> None:
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


class _PartRows(OutputRows):
    """The rows of one part in a dispatcher's matrix, as wide as it knows by the time that a reply is read."""

    __slots__ = ("_dispatcher", "_part")

    def __init__(self, dispatcher: Dispatcher, part: slice) -> None:
        self._dispatcher = dispatcher
        self._part = part
        self.failures = {}

    @property
    def width(self) -> int | None:  # type: ignore[override]  # asked, not kept
        return self._dispatcher.width

    def __call__(self, width: int) -> NDArray[Any]:
        return self._dispatcher.rows_of(self._part, width)


def _scratch(count: int, width: int, dtype: DType) -> NDArray[Any]:
    import numpy as np

    return np.empty((count, width), array_of(dtype))


def _may_be_one_text(error: EmbedkitError, size: int) -> bool:
    """Whether one of so many texts may have caused this: a failing
    server, no answer to what was sent, an answer without its vector.
    """
    if isinstance(error, DecodeError):
        return error.missing or len(error.rows) == size
    if isinstance(error, TransportError):
        return error.sent and (
            error.retryable or size == 1
        )  # final: the deadline is over, and no smaller request follows
    return isinstance(error, ServerError) or (type(error) is ApiError and error.retryable)


def unencodable(texts: Sequence[str], error: UnicodeEncodeError) -> InvalidInputError:
    """The rows whose texts are invalid Unicode. Raises `error` where there is none: it was about something else."""
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


__all__ = ["PROBE_TEXT", "Dispatcher", "silent", "unencodable"]
