"""What is settled before anything is sent: options and texts are checked, equal texts meet, empty ones step aside. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from operator import index
from typing import Any

import msgspec

from .._hints import NDArray
from .._types import Embeddings, Options
from ..codec.vector_math import blank, empty
from ..errors import ConfigError, EmbedkitError, InvalidInputError

BLOCK = 1024  # rows moved at a time when equal texts get their rows back

OPTIONS = ("input_type", "dimensions", "dtype", "truncate", "normalize", "extra")
_VALUES: dict[str, tuple[object, ...]] = {
    "input_type": (None, "query", "document", "classification", "clustering", "similarity"),
    "dtype": ("float32", "int8", "uint8", "binary", "ubinary"),
    "truncate": (None, "end", "error"),
    "normalize": (None, True, False),
}


def checked(options: Options) -> Options:
    """The options, if each is of its kind, as plain values; ConfigError names the one that is not, and what it may be."""
    plainly: dict[str, Any] = {"dimensions": _whole(options.dimensions)}
    for name, values in _VALUES.items():
        value = getattr(options, name)
        same = [each for each in values if value is each or (isinstance(value, str) and value == each)]
        if not same:
            msg = f"{name}={value!r}: it is one of {', '.join(map(repr, values))}"
            raise ConfigError(msg)
        plainly[name] = same[0]
    options = msgspec.structs.replace(options, **plainly)
    wide = options.dimensions
    if options.dtype in ("binary", "ubinary") and wide is not None and wide % 8:
        msg = f"dimensions={wide} with dtype={options.dtype!r}: eight components share a byte, so a multiple of 8"
        raise ConfigError(msg)
    if options.normalize and options.dtype != "float32":
        msg = f"normalize=True with dtype={options.dtype!r}: only float32 vectors can be made unit length"
        raise ConfigError(msg)
    if not isinstance(options.extra, Mapping):
        msg = f"extra is {type(options.extra).__name__}; it is a mapping of fields for the request body"
        raise ConfigError(msg)
    return options


def _whole(dimensions: Any) -> int | None:
    """A width as a plain number; of numpy's integers too."""
    with suppress(TypeError):
        if dimensions is None or (not isinstance(dimensions, bool) and index(dimensions) >= 1):
            return dimensions if dimensions is None else index(dimensions)
    msg = f"dimensions={dimensions!r}: a whole number of at least 1, or None for the model's own"
    raise ConfigError(msg)


def stored_width(options: Options) -> int:
    """Values per row that the options ask for; 0 where they do not say."""
    return (options.dimensions or 0) // (8 if options.dtype in ("binary", "ubinary") else 1)


def spread_out(made: Embeddings, places: Sequence[int], others: Mapping[int, EmbedkitError], *, width: int = 0) -> Embeddings:
    """The embeddings with the rows of `others` between them; row i of `made` goes to places[i]. `width`: where there are none."""
    rows = empty(len(places) + len(others), made.vectors.shape[1] if places else width, made.dtype)
    if places:
        rows[list(places)] = made.vectors
    failures = {places[row]: error.at(places[row]) for row, error in made.failures.items()}
    return msgspec.structs.replace(made, vectors=rows, failures=dict(sorted({**failures, **others}.items())))


class Sift:
    """What of the caller's rows is sent: equal texts once (unless they may repeat), empty ones not at all; and the way back."""

    def __init__(self, rows: list[str], *, accepts_empty: bool, skip: bool, repeats: bool = False) -> None:
        self.failures: dict[int, EmbedkitError] = {}
        self.count = len(rows)
        self._places: NDArray[Any] | None = None  # the caller's row → its place among the texts sent; -1: not sent
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
        """Every text is sent, in its place; only empty ones that are refused are left out."""
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

    def spread(self, failures: Mapping[int, EmbedkitError]) -> dict[int, EmbedkitError]:
        """The caller's row → its own error, those found before sending included, in order."""
        if self._places is None or not (failures or self.failures):
            return dict(sorted(failures.items()))
        found = {row: failures[place].at(row) for row, place in enumerate(self._places.tolist()) if place in failures}
        return dict(sorted({**self.failures, **found}.items()))

    def expand(self, matrix: NDArray[Any]) -> NDArray[Any]:
        """Give every row of the caller its vector, in place: the matrix has room for all, its first rows are those of `texts`.

        A text's place never lies behind any of its rows, so filling from the end overwrites nothing that is still needed.
        """
        if self._places is not None:
            for stop in range(len(self._places), 0, -BLOCK):
                part = slice(max(0, stop - BLOCK), stop)
                places = self._places[part]
                matrix[part] = matrix[places]
                matrix[part][places < 0] = blank(matrix)
        return matrix


def raised(result: Embeddings) -> EmbedkitError:
    """What `on_error="raise"` raises for a result with failures: the first, about all the rows that share its reason."""
    first = next(iter(result.failures.values()))
    alike = (row for row, each in result.failures.items() if (type(each), each.message) == (type(first), first.message))
    error = first.at(*alike)
    if len(result.failures) < len(result):
        error.partial = msgspec.structs.replace(result, failures={})
    return error
