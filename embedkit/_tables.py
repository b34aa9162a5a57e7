"""Vectors as a table of the library that somebody works with: a row per text, null where a text has no vector.

Columns: `text` where the texts are known, `embedding`, and where rows have failed `embedding_error`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from ._hints import NDArray
from .errors import ConfigError, EmbedkitError

TEXT, VECTOR, ERROR = "text", "embedding", "embedding_error"


class Rows:
    """What a table is made of: vectors of shape (n, d), row → error of those without, and the texts where known."""

    def __init__(
        self, vectors: NDArray[Any], failures: Mapping[int, EmbedkitError], texts: Sequence[Any] | None
    ) -> None:
        import numpy as np

        self.vectors: NDArray[Any] = np.ascontiguousarray(vectors)
        self.failed: NDArray[Any] = np.zeros(len(vectors), bool)
        self.failed[list(failures)] = True
        self._failures = failures
        self._texts = texts

    def columns(self, vectors: Any, column: Callable[[list[str | None]], Any]) -> dict[str, Any]:
        """All columns in order; `column` makes one of texts."""
        found = {} if self._texts is None else {TEXT: column([_text(each) for each in self._texts])}
        found[VECTOR] = vectors
        if self._failures:
            errors: list[str | None] = [None] * len(self.vectors)
            for row, error in self._failures.items():
                errors[row] = _text(str(error))
            found[ERROR] = column(errors)
        return found


def to_list(rows: Rows) -> list[list[float] | None]:
    """Each vector as a list of numbers; None where there is none."""
    made: list[list[float] | None] = rows.vectors.tolist()
    for row in rows.failed.nonzero()[0]:
        made[row] = None
    return made


def to_arrow(rows: Rows) -> Any:
    """A `pyarrow.Table`; vectors are lists of fixed size."""
    pa = _library("pyarrow", "to_arrow")
    values, width = pa.array(rows.vectors.reshape(-1)), rows.vectors.shape[1]
    if width:
        made = pa.FixedSizeListArray.from_arrays(values, width, mask=pa.array(rows.failed))
    else:
        made = pa.array([None if failed else [] for failed in rows.failed], pa.list_(values.type, 0))
    return pa.table(rows.columns(made, lambda texts: pa.array(texts, pa.string())))


def to_pandas(rows: Rows, start: int) -> Any:
    """A `pandas.DataFrame`; vectors are numpy arrays, and the index counts on from part to part of a stream."""
    pandas = _library("pandas", "to_pandas")
    index = pandas.RangeIndex(start, start + len(rows.vectors))

    def column(values: Sequence[Any]) -> Any:
        return pandas.Series(values, index, dtype=object)

    pairs = zip(rows.vectors, rows.failed, strict=True)
    return pandas.DataFrame(rows.columns(column([None if failed else vector for vector, failed in pairs]), column))


def to_polars(rows: Rows) -> Any:
    """A `polars.DataFrame`; vectors are of type Array."""
    pl = _library("polars", "to_polars")
    kind = pl.Array(pl.Series(rows.vectors.reshape(-1)[:0]).dtype, rows.vectors.shape[1])
    made = pl.Series(VECTOR, rows.vectors if rows.vectors.size else [[]] * len(rows.vectors), dtype=kind)
    frame = pl.DataFrame(rows.columns(made, lambda texts: pl.Series(texts, dtype=pl.String)))
    if not rows.failed.any():
        return frame
    return frame.with_columns(pl.when(pl.lit(pl.Series(~rows.failed))).then(pl.col(VECTOR)).alias(VECTOR))


def _text(found: Any) -> str | None:
    """A text, with U+FFFD for half a surrogate pair, which Arrow cannot hold; what is no text is null."""
    if not isinstance(found, str):
        return None
    try:
        found.encode()
    except UnicodeEncodeError:
        return found.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return found


def _library(name: str, what: str) -> Any:
    """The module; ConfigError says what to install."""
    try:
        return import_module(name)
    except ImportError as error:
        msg = f"{what}() needs {name}, which is not installed: pip install {name}"
        raise ConfigError(msg) from error


__all__ = ["Rows", "to_arrow", "to_list", "to_pandas", "to_polars"]
