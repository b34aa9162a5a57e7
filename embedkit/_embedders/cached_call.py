"""One call of an embedder with a cache: which texts are known, which have to be asked for, and the matrix of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from .._hints import NDArray
from .._types import Embeddings, Usage, array_of
from ..codec.vector_math import missing_rows, missing_value
from ..errors import DecodeError, EmbedkitError

if TYPE_CHECKING:
    from .._batching.dedupe import UniqueTexts
    from .._types import DType
    from ..cache.base import Row
    from .cache_keys import CacheKeys

    Read = Callable[[Sequence[bytes]], Mapping[bytes, Row]]
    Write = Callable[[Mapping[bytes, bytes]], object]

PART = 1024  # rows read or written at a time


class CachedCall:
    """The state of a call. A place is the number of a text among the different ones.

    Attributes:
        unique: the texts.
        keys_of: how their keys are made.
        todo: places still to be asked for, in order.
        matrix: None while no vector is known; else with room for every row of the call, and its first rows are those of
            the places.
    """

    def __init__(self, unique: UniqueTexts, keys: CacheKeys, dtype: DType) -> None:
        self.unique = unique
        self.todo: list[int] = list(range(len(unique.texts)))
        self.matrix: NDArray[Any] | None = None
        self.keys_of = keys
        self._keys: list[bytes] | None = None
        self._dtype = dtype
        self._found: list[int] = []  # places that the cache had
        self._failures: dict[int, EmbedkitError] = {}
        self._usage = Usage(0, 0, 0.0)
        self._model = ""
        self._again = False

    def keys(self) -> list[bytes]:
        """The key of every place, worked out once."""
        if self._keys is None:
            self._keys = self.keys_of.of(self.unique.texts)
        return self._keys

    def texts(self) -> list[str]:
        """Those still to be asked for."""
        texts = self.unique.texts
        return texts if len(self.todo) == len(texts) else [texts[place] for place in self.todo]

    def rows_of(self, rows: Sequence[int]) -> tuple[int, ...]:
        """The caller's rows for rows of what was asked for."""
        return self.unique.rows_of([self.todo[row] for row in rows])

    def read(self, ask: Read, width: int) -> Exception | None:
        """Take what the cache has. What goes wrong is returned; the rows that came before it are good.

        `width`: values per row; 0 where nobody knows, then it is that of the first row found. A row of another width is
        not taken: it is asked for, and so replaced.
        """
        failure = None
        try:
            self._read(ask, width)
        except Exception as error:  # noqa: BLE001 (a cache may raise anything)
            failure = error
        if self._found:
            found = set(self._found)
            self.todo = [place for place in self.todo if place not in found] if len(found) < len(self.todo) else []
        if self.matrix is not None and self.todo:
            self.matrix[self.todo] = missing_value(self.matrix)
        return failure

    def _read(self, ask: Read, width: int) -> None:
        import numpy as np

        keys, kind = self.keys(), np.dtype(array_of(self._dtype)).newbyteorder("<")
        size = width * kind.itemsize
        for start in range(0, len(keys), PART):
            part = keys[start : start + PART]
            found = ask(part)
            rows = [found.get(key) or b"" for key in part]
            size = size or next((len(row) for row in rows if row and not len(row) % kind.itemsize), 0)
            places = [place for place, row in enumerate(rows, start) if row and len(row) == size]
            if not places:
                continue
            if self.matrix is None:
                self.matrix = np.empty((self.unique.count, size // kind.itemsize), array_of(self._dtype))
            values = np.frombuffer(b"".join([row for row in rows if len(row) == size]), kind)
            at = slice(start, start + len(part)) if len(places) == len(part) else places
            self.matrix[at] = values.reshape(len(places), -1)
            self._found += places

    def write(self, keep: Write, places: Sequence[int], made: Embeddings) -> Exception | None:
        """Keep the rows of `made`, which belong to these places. What goes wrong is returned.

        A row without a vector is not kept: NaN, or zeros, which is what it has in an integer dtype.
        """
        import numpy as np

        keys, kind = self.keys(), np.dtype(array_of(self._dtype)).newbyteorder("<")
        try:
            for start in range(0, len(places), PART):
                part = np.ascontiguousarray(made.vectors[start : start + PART], kind)
                good = part.any(axis=1)
                if part.dtype.kind == "f":
                    good &= np.isfinite(part).all(axis=1)
                rows = {
                    keys[places[start + row]]: part[row].tobytes()
                    for row in np.flatnonzero(good).tolist()
                    if start + row not in made.failures
                }
                if rows:
                    keep(rows)
        except Exception as error:  # noqa: BLE001 (a cache may raise anything)
            return error
        return None

    def add(self, made: Embeddings) -> None:
        """Take what came for the texts that were asked for. Where their width shows that the model has changed since
        the cache was filled, those from the cache are asked for too.

        Raises:
            DecodeError: the width has changed once more.
        """
        width, todo = made.vectors.shape[1], self.todo
        self.todo = []
        if self.matrix is not None and width and width != self.matrix.shape[1]:
            if self._again:
                msg = f"one call got vectors of {self.matrix.shape[1]} and of {width} values"
                raise DecodeError(msg)
            self._again, self.matrix, self.todo, self._found = True, None, self._found, []
        if self.matrix is None:
            self.matrix = missing_rows(self.unique.count, width, self._dtype)
        if width:
            self.matrix[todo] = made.vectors
        self._failures |= {todo[row]: error.at(todo[row]) for row, error in made.failures.items()}
        self._usage = Usage(
            _sum(self._usage.tokens, made.usage.tokens),
            self._usage.requests + made.usage.requests,
            _sum(self._usage.cost, made.usage.cost),
        )
        self._model = made.model

    def result(self, model: str) -> Embeddings:
        """All rows of the caller. `model`: where nobody was asked."""
        matrix = self.matrix if self.matrix is not None else missing_rows(self.unique.count, 0, self._dtype)
        usage = msgspec.structs.replace(self._usage, cached=len(self.unique.rows_of(self._found)))
        failures = self.unique.spread_failures(self._failures)
        return Embeddings(self.unique.expand(matrix), self._model or model, usage, failures, dtype=self._dtype)


def _sum(one: float | None, other: float | None) -> Any:
    return None if one is None or other is None else one + other
