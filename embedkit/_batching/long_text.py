"""Texts longer than the model takes: cut into pieces whose vectors
are averaged ("mean"), or cut off ("end") where the provider cannot.

The mean is weighted by the tokens of the pieces and made unit length. Pieces end between words where
there are words. Token counts may be estimates: what the provider still finds too long is cut again, and
"end" leaves whole whatever the provider takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec

from .._types import Embeddings, Usage
from ..codec import normalize
from ..codec.vector_math import missing_rows, missing_value
from ..errors import EmbedkitError, TooLargeError, TooLongError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    Count = Callable[[str], int]

N = TypeVar("N", int, float)
TRIES = 6  # how often pieces are halved because the provider finds them too long
SURE = 2  # times the limit, by its count: such a text is too long, however rough the count


def pieces(text: str, most: int, count_tokens: Count) -> list[str]:
    """The text in pieces of at most `most` tokens each, which
    together are the text. Each ends after white space if it can.
    """
    found: list[str] = []
    start = 0
    while start < len(text):
        stop = _end(text, start, most, count_tokens)
        found.append(text[start:stop])
        start = stop
    return found


def head(text: str, most: int, count_tokens: Count) -> str:
    """The first of these pieces."""
    return text[: _end(text, 0, most, count_tokens)]


def _end(text: str, start: int, most: int, count_tokens: Count) -> int:
    """Where the longest piece from `start` ends that keeps within `most`; never before one character."""
    good, step = start + 1, max(1, most)
    while good < len(text):  # gallop, then halve: a long text is not counted whole for every piece
        bad = min(len(text), good + step)
        if count_tokens(text[start:bad]) > most:
            break
        good, step = bad, step * 2
    else:
        return len(text)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if count_tokens(text[start:middle]) <= most else (good, middle)
    space = max(text.rfind(" ", start, good), text.rfind("\n", start, good)) + 1
    return space if space > start + (good - start) // 2 else good


class TextSplitter(msgspec.Struct, frozen=True):
    """How texts are cut.

    Attributes:
        how: "mean" keeps all the pieces of a text, "end" the first.
        most: tokens that a text may have, as `count_tokens` counts; None: only the provider knows.
        count_tokens: tokens of a text.
    """

    how: Literal["mean", "end"]
    most: int | None
    count_tokens: Count

    def first(self, text: str) -> list[str]:
        """What to try first. A text that may not be too long is left whole where cutting it would lose something."""
        if self.most is None or self._fits(text):
            return [text]
        if self.how == "mean":
            return pieces(text, self.most, self.count_tokens)
        return [head(text, SURE * self.most, self.count_tokens)]

    def finer(self, piece: str) -> list[str]:
        """What to try when the provider finds a piece too long: what ought to fit, else halves."""
        if self.most is not None and not self._fits(piece):  # only "end" has left such a text whole
            return [head(piece, self.most, self.count_tokens)]
        middle = len(piece) // 2
        return [piece[:middle] or piece, piece[middle:]][: 2 if self.how == "mean" and middle else 1]

    def surely_fits(self, text: str) -> bool:
        """Whether the text is short enough however tokens are counted."""
        # No character has more than four tokens, nor a text eight of its own.
        return self.most is not None and 4 * len(text) + 8 <= self.most

    def _fits(self, text: str) -> bool:
        return self.most is None or self.surely_fits(text) or self.count_tokens(text) <= self.most


async def embed_long(
    texts: Sequence[str], embed: Callable[[list[str]], Awaitable[Embeddings]], splitter: TextSplitter
) -> Embeddings:
    """The embeddings of texts of any length: row i belongs to texts[i].

    `embed` gives those of pieces, all of them at once, and marks
    what it cannot embed in `failures`, as the result does.
    """
    todo = list(range(len(texts)))
    parts = [splitter.first(text) for text in texts]
    known: Embeddings | None = None
    tries = 0
    while True:
        now = [parts[row] for row in todo]
        try:
            made = await embed([piece for each in now for piece in each])
        except EmbedkitError as error:
            error.rows = tuple(sorted({todo[place] for place in _places(now, error.rows)}))
            if error.partial is not None:
                known = _mended(known, todo, _joined(now, error.partial, splitter.count_tokens))
            error.partial = known
            raise
        known = _mended(known, todo, _joined(now, made, splitter.count_tokens))
        todo = [row for row in todo if isinstance(known.failures.get(row), (TooLongError, TooLargeError))]
        if not todo or tries == TRIES:
            return known
        tries += 1
        for row in todo:
            parts[row] = [half for piece in parts[row] for half in splitter.finer(piece)]


def _places(parts: list[list[str]], numbers: Iterable[int]) -> list[int]:
    """Which text each of the pieces with these numbers belongs to."""
    owners = [place for place, each in enumerate(parts) for _ in each]
    return [owners[number] for number in numbers]


def _joined(parts: list[list[str]], made: Embeddings, count_tokens: Count) -> Embeddings:
    """Row i is the mean of the vectors of parts[i]."""
    if len(parts) == len(made):
        return made  # every text in one piece
    import numpy as np

    starts = np.concatenate(([0], np.cumsum([len(each) for each in parts])))
    vectors = made.vectors[starts[:-1]]  # the first piece of each: all there is of most
    several = [row for row, each in enumerate(parts) if len(each) > 1]
    with np.errstate(all="ignore"):  # a piece without a vector is NaN, and so is what it is part of
        for row in several:
            weights = np.array([max(1, count_tokens(piece)) for piece in parts[row]], np.float32)
            vectors[row] = weights @ made.vectors[starts[row] : starts[row + 1]]
        means = vectors[several]
        normalize(means)
    vectors[several] = means
    failures: dict[int, EmbedkitError] = {}
    for row, error in zip(_places(parts, made.failures), made.failures.values(), strict=True):
        failures.setdefault(row, error.at(row))
    vectors[list(failures)] = missing_value(vectors)
    return msgspec.structs.replace(made, vectors=vectors, failures=failures)


def _mended(known: Embeddings | None, rows: list[int], found: Embeddings) -> Embeddings:
    """What is known, with these rows made anew."""
    if known is None:
        return found
    vectors = known.vectors
    if not vectors.shape[1]:  # nothing had been embedded, so the width was not known
        vectors = missing_rows(len(known), found.vectors.shape[1], known.dtype)
    if found.vectors.shape[1]:
        vectors[rows] = found.vectors
    again = set(rows)
    failures = {row: error for row, error in known.failures.items() if row not in again}
    failures |= {rows[place]: error.at(rows[place]) for place, error in found.failures.items()}
    old, new = known.usage, found.usage
    usage = Usage(_sum(old.tokens, new.tokens), old.requests + new.requests, _sum(old.cost, new.cost))
    model = found.model or known.model
    return msgspec.structs.replace(
        known, vectors=vectors, failures=dict(sorted(failures.items())), usage=usage, model=model
    )


def _sum(one: N | None, other: N | None) -> N | None:
    return None if one is None or other is None else one + other
