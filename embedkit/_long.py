"""Texts longer than the model takes: cut into pieces, embedded piece by piece, and their vectors averaged.

The mean is weighted by the tokens of the pieces and made unit length again. Pieces end between words where there are words. Token
counts may be estimates: a piece that the provider still finds too long is cut once more.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import msgspec

from ._sift import blank
from ._types import Embeddings, Options, Usage
from ._wrap import Wrapped
from .codec import normalise
from .errors import ConfigError, EmbedkitError, TooLongError

if TYPE_CHECKING:
    from collections.abc import Callable

TRIES = 4  # how often a piece is cut again because the provider finds it too long: a sixteenth of what was planned


def pieces(text: str, most: int, count_tokens: Callable[[str], int]) -> list[str]:
    """The text in pieces of at most `most` tokens each, which together are the text. Each ends after white space if it can."""
    found: list[str] = []
    start = 0
    while start < len(text):
        stop = _end(text, start, most, count_tokens)
        found.append(text[start:stop])
        start = stop
    return found


def _end(text: str, start: int, most: int, count_tokens: Callable[[str], int]) -> int:
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


class LongTexts(Wrapped):
    """Embeds texts of any length (`long_text="mean"`)."""

    async def _embed(self, rows: list[str], options: Options, *, skip: bool, workers: int) -> Embeddings:
        if options.dtype != "float32":
            msg = f"long_text='mean' averages float32 vectors; dtype={options.dtype!r} has no mean"
            raise ConfigError(msg)
        most, count = self.limits.max_text_tokens, self.count_tokens
        parts = [[text] if most is None or _short(text, most, count) else pieces(text, most, count) for text in rows]
        result = await self._averaged(parts, options, workers, TRIES)
        return result if skip or not result.failures else _raise(result)

    async def _averaged(self, parts: list[list[str]], options: Options, workers: int, tries: int) -> Embeddings:
        """Row i is the mean of the vectors of parts[i]."""
        flat = (
            [piece for each in parts for piece in each]
            if any(len(each) != 1 for each in parts)
            else [each[0] for each in parts]
        )
        made = await self.inner._embed(flat, options, skip=True, workers=workers)  # noqa: SLF001 (the same house)
        result = self._joined(parts, made)
        again = [row for row, error in result.failures.items() if isinstance(error, TooLongError)] if tries else []
        if not again:
            return result
        finer = [[half for piece in parts[row] for half in _cut(piece)] for row in again]
        return _mended(result, again, await self._averaged(finer, options, workers, tries - 1))

    def _joined(self, parts: list[list[str]], made: Embeddings) -> Embeddings:
        import numpy as np

        if len(parts) == len(made):
            return made  # every text in one piece
        starts = np.concatenate(([0], np.cumsum([len(each) for each in parts])))
        vectors = made.vectors[starts[:-1]]  # the first piece of each: all there is of most
        failures: dict[int, EmbedkitError] = {}
        for place, error in made.failures.items():
            row = int(np.searchsorted(starts, place, "right")) - 1
            failures.setdefault(row, _of(error, row))
        several = [row for row, each in enumerate(parts) if len(each) > 1]
        for row in several:
            weights = np.array([max(1, self.count_tokens(piece)) for piece in parts[row]], np.float32)
            vectors[row] = weights @ made.vectors[starts[row] : starts[row + 1]]
        means = vectors[several]
        normalise(means)
        vectors[several] = means
        vectors[list(failures)] = blank(vectors)
        return msgspec.structs.replace(made, vectors=vectors, failures=failures)


def _mended(result: Embeddings, rows: list[int], better: Embeddings) -> Embeddings:
    """The result, with these rows made anew."""
    vectors = result.vectors
    if better.vectors.shape[1] == vectors.shape[1]:
        vectors[rows] = better.vectors
    elif len(rows) == len(vectors):
        vectors = better.vectors  # nothing was embedded before, so the width was not known
    failures = {row: error for row, error in result.failures.items() if row not in rows}
    failures |= {rows[place]: _of(error, rows[place]) for place, error in better.failures.items()}
    old, new = result.usage, better.usage
    usage = Usage(
        None if old.tokens is None or new.tokens is None else old.tokens + new.tokens,
        old.requests + new.requests,
        None if old.cost is None or new.cost is None else old.cost + new.cost,
    )
    return msgspec.structs.replace(
        result, vectors=vectors, failures=dict(sorted(failures.items())), usage=usage, model=better.model or result.model
    )


def _raise(result: Embeddings) -> Embeddings:
    first = next(iter(result.failures.values()))
    error = _of(first, *(row for row, each in result.failures.items() if type(each) is type(first)))
    if len(result.failures) < len(result):
        error.partial = msgspec.structs.replace(result, failures={})
    raise error


def _of(error: EmbedkitError, *rows: int) -> EmbedkitError:
    mine = copy.copy(error)
    mine.rows = rows
    return mine


def _short(text: str, most: int, count_tokens: Callable[[str], int]) -> bool:
    return (
        4 * len(text) + 8 <= most or count_tokens(text) <= most
    )  # no character has more than four tokens, nor a text eight of its own


def _cut(text: str) -> list[str]:
    middle = len(text) // 2
    return [text[:middle], text[middle:]] if middle else [text]
