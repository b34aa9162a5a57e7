"""The answers of a batch job: lines in any order, some of them refusals, some missing, become rows of one matrix.

The matrix is a file, mapped into memory, so its size does not matter. Nothing here sends or waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..._hints import NDArray
from ..._types import DType, array_of
from ...codec import Answer, OutputRows
from ...errors import (
    AuthError,
    DecodeError,
    EmbedkitError,
    InvalidInputError,
    QuotaError,
    ServerError,
    TooLargeError,
    TooLongError,
)
from .texts import Line, line_of

if TYPE_CHECKING:
    from ..._types import Reply, Response

TRIES = 3  # times a text is sent at most before its row fails

# (response, texts, where the rows go) → the reply or the error.
Reads = Callable[["Response", int, OutputRows], "tuple[Reply | None, EmbedkitError | None]"]


class Verdict(msgspec.Struct, frozen=True):
    """What is to be done about the places without a vector.

    Attributes:
        again: lines to send again, in order.
        unsent: runs of places that were never sent, in order.
        failed: place → why it gets none.
    """

    again: list[Line]
    unsent: list[Line]
    failed: dict[int, EmbedkitError]

    @property
    def settled(self) -> bool:
        """Whether nothing is to be sent."""
        return not self.again and not self.unsent


class Answers:
    """What has come back for the places of a chunk.

    Attributes:
        done: place → whether it has its vector, shape (places,).
        tokens: that the provider counted in all the answers; None: it counts none.
        model: as the provider names it.
        strange: lines that are no answer to a line of ours.
        unreadable: how many of those since `begin` cannot be read at all.
    """

    def __init__(self, count: int, path: Path, dtype: DType, read: Reads) -> None:
        import numpy as np

        self.done = np.zeros(count, bool)
        self.tokens: int | None = None
        self.model = ""
        self.strange = self.unreadable = 0
        self._why = ""
        self._path = path
        self._dtype: DType = dtype
        self._read = read
        self._tries = np.zeros(count, np.int32)
        self._rows: NDArray[Any] | None = None
        self._sent: set[Line] = set()
        self._answered: set[Line] = set()
        self._errors: dict[int, EmbedkitError] = {}
        self._last: dict[int, Line] = {}  # of a place without a vector, the line in which it was sent last

    @property
    def rows(self) -> NDArray[Any] | None:
        """The vectors, row i for place i, where `done`; None: there is none."""
        return self._rows if self.done.any() else None

    def begin(self, lines: Sequence[Line], *, counted: bool) -> None:
        """The answers to these lines follow. `counted`: the times they were sent count."""
        self._sent, self._answered = set(lines), set()
        self.unreadable = 0
        if counted:
            for first, stop in lines:
                self._tries[first:stop] += 1

    def take(self, answer: Answer) -> None:
        """The answer to one line. A second one to the same line counts where the first had no vectors."""
        line = line_of(answer.key)
        if line is None or line not in self._sent:
            self.strange += 1
            return
        first, stop = line
        if self.done[first:stop].all():
            return
        out = OutputRows(
            lambda width: self._matrix(width)[first:stop],
            None if self.rows is None else self.rows.shape[1],
        )
        reply, error = self._read(answer.response, stop - first, out)
        self._answered.add(line)
        for place in range(first, stop):
            failure = error if error is not None else out.failures.get(place - first)
            if failure is None:
                self.done[place] = True
                self._errors.pop(place, None)
            elif not self.done[place]:
                self._errors[place] = failure
        if reply is not None:
            self.model = reply.model or self.model
            self.tokens = self.tokens if reply.tokens is None else (self.tokens or 0) + reply.tokens

    def spoiled(self, error: DecodeError) -> None:
        """A line that cannot be read, so that nobody knows whose answer it is."""
        self.strange += 1
        self.unreadable += 1
        self._why = str(error)

    @property
    def lacking(self) -> bool:
        """Whether a line that was sent has no answer yet."""
        return not self._sent <= self._answered

    def end(self) -> None:
        """No more answers to these lines come."""
        for line in sorted(self._sent):
            for place in range(*line):
                if self.done[place]:
                    self._last.pop(place, None)
                    continue
                self._last[place] = line
                if line not in self._answered:
                    self._errors[place] = self._unanswered()

    def _unanswered(self) -> EmbedkitError:
        msg = "the batch job ended without an answer to this text"
        if not self.unreadable:
            return ServerError(msg, retryable=True)
        lines = "1 line of its answers" if self.unreadable == 1 else f"{self.unreadable} lines of its answers"
        return DecodeError(f"{msg}, and {lines} cannot be read ({self._why})")

    def verdict(self, *, cuts: bool) -> Verdict:
        """What is to be done. `cuts`: a text that is too long is sent again, cut shorter."""
        import numpy as np

        again: dict[Line, None] = {}
        unsent: list[Line] = []
        failed: dict[int, EmbedkitError] = {}
        for place in map(int, np.flatnonzero(~self.done)):
            line = self._last.get(place)
            if line is None:
                joined = unsent and unsent[-1][1] == place
                unsent[-1:] = [(unsent[-1][0], place + 1)] if joined else [*unsent[-1:], (place, place + 1)]
                continue
            error = self._errors[place]
            alone = line[1] - line[0] == 1
            if self._tries[place] >= TRIES or not _may_pass(error, alone=alone, cuts=cuts):
                failed[place] = error
            elif alone or _splits(error) or self.done[line[0] : line[1]].any():
                again[(place, place + 1)] = None
            else:
                again[line] = None
        return Verdict(list(again), unsent, failed)

    def too_long(self, place: int) -> bool:
        """Whether the provider found this text too long."""
        return isinstance(self._errors.get(place), TooLongError)

    def close(self) -> None:
        """Let go of the matrix, and of its file."""
        self._rows = None
        with suppress(OSError):  # Windows keeps a file that somebody has mapped
            self._path.unlink(missing_ok=True)

    def _matrix(self, width: int) -> NDArray[Any]:
        import numpy as np

        if self._rows is None or (self._rows.shape[1] != width and not self.done.any()):
            self._rows = None
            self._path.unlink(missing_ok=True)
            self._rows = np.memmap(self._path, array_of(self._dtype), "w+", shape=(len(self.done), width))
        return self._rows


def _may_pass(error: EmbedkitError, *, alone: bool, cuts: bool) -> bool:
    """Whether a text may pass when it is sent again: alone, cut, to another machine, or once the bill is paid."""
    if isinstance(error, TooLongError) and cuts:
        return True
    if isinstance(error, (InvalidInputError, TooLargeError)):
        return error.retryable or not alone
    return error.retryable or isinstance(error, (AuthError, QuotaError, DecodeError))


def _splits(error: EmbedkitError) -> bool:
    return isinstance(error, (InvalidInputError, TooLargeError, DecodeError)) and not error.retryable


def about_texts(errors: Sequence[EmbedkitError]) -> bool:
    """Whether it is the texts that are at fault, all of them."""
    return all(isinstance(error, InvalidInputError) for error in errors)
