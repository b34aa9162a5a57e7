"""The nearest rows of a finished output, exactly: every row is compared with every query.

A score is larger for nearer rows. For float32, int8 and uint8 it is the cosine of the angle, from -1 to 1 (uint8 is
int8 plus 128, see `Options`); for packed bits it is the share of equal bits, from 0 to 1, which ranks as the Hamming
distance does. Rows without a vector never match, and neither do vectors of no length.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from .._hints import NDArray
from .._types import PACKED, DType
from .embedded import Block, Embedded, missing

AT_ONCE = 256  # queries that are compared in one pass over the output


class Match(msgspec.Struct, frozen=True):
    """A row and how near it is."""

    row: int
    score: float


def metric(dtype: DType) -> str:
    """What a score is, in a word or two."""
    return "equal bits" if dtype in PACKED else "cosine"


def nearest(output: Embedded, queries: NDArray[Any], dtype: DType, count: int) -> list[list[Match]]:
    """The nearest rows to each query, the nearest first; of equal scores the earlier row first.

    Args:
        output: where to look.
        queries: shape (q, values per row), of the output's type.
        dtype: that type.
        count: rows per query, at most.
    """
    found: list[list[Match]] = []
    for start in range(0, len(queries), AT_ONCE):
        found += nearest_of(output.blocks(), queries[start : start + AT_ONCE], dtype, count)
    return found


def nearest_of(blocks: Iterable[Block], queries: NDArray[Any], dtype: DType, count: int) -> list[list[Match]]:
    """As `nearest`, in one pass over blocks of rows."""
    import numpy as np

    rows = [np.empty(0, np.int64) for _ in queries]
    scores = [np.empty(0, np.float32) for _ in queries]
    prepared = queries if dtype in PACKED else directions(queries, dtype)
    for block in blocks:
        compared = compare(block, prepared, dtype)
        for number, column in enumerate(compared):
            held = scores[number]
            least = held[-1] if len(held) == count else -np.inf
            places = np.flatnonzero(column > least)  # an equal score comes later, and is not better
            if not len(places):
                continue
            better = column[places]
            if len(places) > count:
                kept = better >= np.partition(better, -count)[-count]
                places, better = places[kept], better[kept]
            all_rows = np.concatenate([rows[number], places + block.start])
            all_scores = np.concatenate([held, better])
            order = np.argsort(-all_scores, kind="stable")[:count]
            rows[number], scores[number] = all_rows[order], all_scores[order]
    return [
        [Match(int(row), float(score)) for row, score in zip(of, how, strict=True)]
        for of, how in zip(rows, scores, strict=True)
    ]


def comparable(vectors: NDArray[Any], dtype: DType) -> NDArray[Any]:
    """Float32 rows whose dot products order as the type is meant to be compared, of shape (n, d).

    Floats and whole numbers compare by cosine, "uint8" with its offset of 128 taken off. Packed bits compare by the
    Hamming distance: each bit becomes -1 or 1, and the dot product is d - 2 x distance. A vector of zeros is near
    nothing.
    """
    import numpy as np

    if dtype in PACKED:
        bits = (vectors.astype(np.int16) + 128).astype(np.uint8) if dtype == "binary" else vectors
        signs: NDArray[Any] = np.unpackbits(bits, axis=1).astype(np.float32)
        signs *= 2
        signs -= 1
        return signs
    rows = directions(vectors, dtype)
    rows[np.isnan(rows)] = 0
    return rows


def compare(block: Block, queries: NDArray[Any], dtype: DType) -> NDArray[Any]:
    """Scores, shape (q, n): minus infinity where a row has no vector.

    Args:
        block: n rows.
        queries: packed bits as they are, else of unit length, float32.
        dtype: of the rows.
    """
    import numpy as np

    if dtype in PACKED:
        scores = _equal_bits(block.vectors, queries)
    else:
        with np.errstate(invalid="ignore", over="ignore"):
            scores = queries @ directions(block.vectors, dtype).T
    scores[:, missing(block, dtype)] = -np.inf
    scores[np.isnan(scores)] = -np.inf
    return scores


def directions(vectors: NDArray[Any], dtype: DType) -> NDArray[Any]:
    """Rows at unit length, float32; NaN where a row has no length."""
    import numpy as np

    found = vectors.astype(np.float32)
    if dtype == "uint8":
        found -= 128
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        lengths = np.sqrt(np.einsum("ij,ij->i", found, found, dtype=np.float64))
        found /= np.where(lengths > 0, lengths, np.nan).astype(np.float32)[:, None]
    return found


def _equal_bits(vectors: NDArray[Any], queries: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    rows = np.ascontiguousarray(vectors).astype(vectors.dtype.newbyteorder("="), copy=False)
    if rows.dtype.itemsize != 1:  # numbers of JSON
        rows = rows.astype(queries.dtype)
    wide = np.uint64 if rows.shape[1] % 8 == 0 else np.uint8
    bits, asked = rows.view(wide), np.ascontiguousarray(queries).view(wide)
    found = np.empty((len(asked), len(bits)), np.float32)
    for number, query in enumerate(asked):
        found[number] = np.bitwise_count(bits ^ query).sum(axis=1, dtype=np.int64)
    result: NDArray[Any] = 1 - found / np.float32(rows.shape[1] * 8)
    return result
