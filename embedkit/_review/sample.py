"""One pass over the vectors of an output, in memory that does not grow with it: a sample, lengths, equal vectors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from .._bulk.embedded import Block, missing
from .._hints import NDArray
from .._types import PACKED, DType, array_of

ROWS = 2000  # of a sample, at most
BYTES = 32 * 1024 * 1024  # of its vectors, at most, but never fewer than `FEWEST` rows
FEWEST = 100
DISTINCT = 100_000  # vectors that are told apart; beyond that a share of them is looked at
PIECE = 1 << 20  # components that are hashed at once


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Rows with one and the same vector: how many, the first and the last of them."""

    rows: int
    first: int
    last: int


class Equals(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that share their vector with another row.

    Attributes:
        exact: every vector was looked at; else a share of 1 / `of`, and counts are that many times what was found.
        of: see `exact`.
        rows: that share their vector.
        groups: of such rows.
        largest: of the groups that were looked at, the largest first.
    """

    exact: bool
    of: int
    rows: int
    groups: int
    largest: list[Group]


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """Over all rows with a vector: its length, or of packed bits the share of ones."""

    least: float
    mean: float
    most: float


class Sampled(msgspec.Struct, frozen=True, kw_only=True):
    """What one pass has found.

    Attributes:
        rows, missing: of the output, and those among them without a vector.
        zeros: rows with a vector of nothing but zeros, which is near nothing.
        sizes: None where no row has a vector.
        equals: rows with one vector.
        numbers: of the sampled rows, shape (n,), in a random order.
        vectors: theirs, shape (n, values per row), of the output's type.
        lengths: theirs, shape (n,), as in `sizes`.
    """

    rows: int
    missing: int
    zeros: int
    sizes: Sizes | None
    equals: Equals
    numbers: NDArray[Any]
    vectors: NDArray[Any]
    lengths: NDArray[Any]


def sampled(blocks: Iterable[Block], width: int, dtype: DType, seed: int) -> Sampled:
    """Read all blocks once. The sample has every row with the same chance, and does not depend on how rows are cut
    into blocks.
    """
    import numpy as np

    kind = np.dtype(array_of(dtype))
    most = min(ROWS, max(FEWEST, BYTES // max(1, width * kind.itemsize)))
    random = np.random.default_rng(seed)
    lots, numbers = np.empty(0), np.empty(0, np.int64)
    held = np.empty((0, width), kind)
    seen = _Distinct(seed)
    rows = lost = zeros = 0
    least, largest, total = np.inf, -np.inf, 0.0
    for block in blocks:
        rows += len(block.vectors)
        drawn = random.random(len(block.vectors))
        there = ~missing(block, dtype)
        lost += len(there) - int(there.sum())
        if not there.any():
            continue
        vectors = block.vectors[there].astype(kind, copy=False)
        places, drawn = np.flatnonzero(there) + block.start, drawn[there]
        sizes = _sizes(vectors, dtype)
        least, largest = min(least, float(sizes.min())), max(largest, float(sizes.max()))
        total += float(sizes.sum())
        zeros += 0 if dtype in PACKED else int((sizes == 0).sum())
        seen.add(vectors, places)
        kept = np.flatnonzero(drawn < lots[-1]) if len(lots) == most else np.arange(len(drawn))
        if len(kept) > most:
            kept = kept[np.argpartition(drawn[kept], most)[:most]]
        all_lots = np.concatenate([lots, drawn[kept]])
        order = np.argsort(all_lots, kind="stable")[:most]
        lots = all_lots[order]
        numbers = np.concatenate([numbers, places[kept]])[order]
        held = np.concatenate([held, vectors[kept]])[order]
    found = rows - lost
    return Sampled(
        rows=rows, missing=lost, zeros=zeros,
        sizes=Sizes(least=least, mean=total / found, most=largest) if found else None,
        equals=seen.equals(), numbers=numbers, vectors=held, lengths=_sizes(held, dtype),
    )  # fmt: skip


def bins(count: int) -> int:
    """Of a histogram of so many values: an odd number, so that what is constant stands in the middle one."""
    return max(5, min(41, int(count**0.5) | 1))


def _sizes(vectors: NDArray[Any], dtype: DType) -> NDArray[Any]:
    """The length of each row in float64, shape (n,); of packed bits the share of ones."""
    import numpy as np

    if dtype in PACKED:
        bits = vectors.view(np.uint8) ^ np.uint8(0x80 if dtype == "binary" else 0)  # the byte minus 128
        share: NDArray[Any] = np.bitwise_count(bits).sum(axis=1, dtype=np.int64) / max(1, vectors.shape[1] * 8)
        return share
    numbers = vectors if dtype == "float32" else vectors.astype(np.float32) - (128 if dtype == "uint8" else 0)
    lengths: NDArray[Any] = np.sqrt(np.einsum("ij,ij->i", numbers, numbers, dtype=np.float64))
    return lengths


class _Distinct:
    """Counts equal vectors by a hash of 64 bits. When there are too many, only hashes that end in a zero bit are kept,
    then two zero bits …: a random share of the vectors, and of those every row.
    """

    def __init__(self, seed: int) -> None:
        import numpy as np

        self._random = np.random.default_rng([seed, 1])
        self._factors: NDArray[Any] = np.empty(0, np.uint64)
        self._level = 0
        self._hashes = np.empty(0, np.uint64)
        self._counts = np.empty(0, np.int64)
        self._firsts = np.empty(0, np.int64)
        self._lasts = np.empty(0, np.int64)

    def add(self, vectors: NDArray[Any], rows: NDArray[Any]) -> None:
        """Count these vectors, which have these row numbers."""
        import numpy as np

        hashes = self._hashed(vectors)
        kept = self._chosen(hashes)
        hashes, rows = hashes[kept], rows[kept]
        every = np.concatenate([self._hashes, hashes])
        self._hashes, places = np.unique(every, return_inverse=True)
        counts = np.concatenate([self._counts, np.ones(len(hashes), np.int64)])
        self._counts = np.bincount(places, counts, len(self._hashes)).astype(np.int64)
        firsts, lasts = (np.concatenate([held, rows]) for held in (self._firsts, self._lasts))
        self._firsts = np.full(len(self._hashes), np.iinfo(np.int64).max)
        self._lasts = np.full(len(self._hashes), -1)
        np.minimum.at(self._firsts, places, firsts)
        np.maximum.at(self._lasts, places, lasts)
        while len(self._hashes) > DISTINCT:
            self._level += 1
            kept = self._chosen(self._hashes)
            self._hashes, self._counts = self._hashes[kept], self._counts[kept]
            self._firsts, self._lasts = self._firsts[kept], self._lasts[kept]

    def _chosen(self, hashes: NDArray[Any]) -> NDArray[Any]:
        import numpy as np

        chosen: NDArray[Any] = (hashes & np.uint64((1 << self._level) - 1)) == 0
        return chosen

    def _hashed(self, vectors: NDArray[Any]) -> NDArray[Any]:
        """A sum of the components' bits, each times a random odd factor, mixed as splitmix64 does at its end
        (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
        """
        import numpy as np

        rows = np.ascontiguousarray(vectors)
        words = rows.view(np.uint32 if rows.shape[1] * rows.itemsize % 4 == 0 else np.uint8)
        if len(self._factors) != words.shape[1]:
            self._factors = self._random.integers(0, 1 << 63, words.shape[1], np.uint64) * np.uint64(2) + np.uint64(1)
        found = np.empty(len(words), np.uint64)
        each = max(1, PIECE // max(1, words.shape[1]))
        for start in range(0, len(words), each):
            found[start : start + each] = words[start : start + each].astype(np.uint64) @ self._factors
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            found = (found ^ (found >> np.uint64(shift))) * np.uint64(factor)
        mixed: NDArray[Any] = found ^ (found >> np.uint64(31))
        return mixed

    def equals(self) -> Equals:
        """What was counted."""
        import numpy as np

        several = np.flatnonzero(self._counts > 1)
        order = several[np.lexsort((self._firsts[several], -self._counts[several]))][:10]
        of = 1 << self._level
        return Equals(
            exact=self._level == 0,
            of=of,
            rows=int(self._counts[several].sum()) * of,
            groups=len(several) * of,
            largest=[
                Group(rows=int(self._counts[at]), first=int(self._firsts[at]), last=int(self._lasts[at]))
                for at in order
            ],
        )
