"""A sample of vectors on a plane, by principal component analysis."""

from __future__ import annotations

from typing import Any

import msgspec

from .._bulk.search import comparable
from .._hints import NDArray
from .._types import DType


class Plane(msgspec.Struct, frozen=True, kw_only=True):
    """Places of rows: shape (n, 2), and what share of the variance lies along each of the two axes."""

    places: NDArray[Any]
    explained: tuple[float, float]


def plane(vectors: NDArray[Any], dtype: DType) -> Plane:
    """Rows at unit length (bits as -1 and 1), projected on the two directions in which they vary most.

    An axis points to where its largest share lies, so that the same vectors always give the same map.
    """
    import numpy as np

    rows = comparable(vectors, dtype)
    rows -= rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    tall = len(rows) >= rows.shape[1]
    values, axes = np.linalg.eigh((rows.T @ rows if tall else rows @ rows.T).astype(np.float64))
    values = np.maximum(values, 0)
    total = float(values.sum())
    places = np.zeros((len(rows), 2))
    shares = [0.0, 0.0]
    for number in range(min(2, len(values))):
        value, axis = float(values[-1 - number]), axes[:, -1 - number]
        if value <= total * 1e-9 or total <= 1e-9:  # noqa: PLR2004 (what rounding leaves)
            continue
        along = rows @ axis if tall else axis * np.sqrt(value)
        places[:, number] = along * np.sign(along[np.argmax(np.abs(along))])
        shares[number] = value / total
    return Plane(places=places, explained=(shares[0], shares[1]))
