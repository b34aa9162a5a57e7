"""Arithmetic on rows: finite, of unit length, in a smaller dtype, without a vector."""

from __future__ import annotations

from typing import Any

from .._hints import NDArray
from .._types import DType, array_of
from ..errors import ConfigError, DecodeError


def finite(rows: NDArray[Any]) -> None:
    """Raise DecodeError if a value is NaN or infinite."""
    import numpy as np

    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        places = [int(place) for place in np.flatnonzero(bad)]
        msg = "the provider answered null, NaN or infinite values"
        raise DecodeError(msg, rows=places)


def normalize(rows: NDArray[Any]) -> None:
    """Make every row unit length, in place. A zero vector stays zero."""
    import numpy as np

    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    lengths[lengths == 0] = 1.0
    np.divide(rows, lengths[:, None], out=rows, casting="same_kind")  # doubles: a length may be beyond float32


def quantize(rows: NDArray[Any], dtype: DType) -> NDArray[Any]:
    """Float rows in a smaller dtype, made on the client for providers that cannot make it.

    int8 is each component of the vector at unit length, times 127, rounded; uint8 is that plus 128. ubinary is one
    bit per component, 1 if it is positive, the most significant bit first; binary is that minus 128. So Cohere and
    Voyage pack them (docs.voyageai.com/docs/flexible-dimensions-and-quantization).
    """
    import numpy as np

    if dtype == "float32":
        return rows
    if dtype in ("binary", "ubinary"):
        if rows.shape[1] % 8:
            msg = f"dtype={dtype!r} packs eight components into a byte, and this model has {rows.shape[1]}"
            raise ConfigError(msg)
        bits: NDArray[Any] = np.packbits(rows > 0, axis=1)
        return bits if dtype == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)
    unit = rows.copy()
    normalize(unit)
    whole: NDArray[Any] = np.rint(unit * 127)
    return whole.astype(np.int8) if dtype == "int8" else (whole + 128).astype(np.uint8)


def missing_value(rows: NDArray[Any]) -> float:
    """The value in a row without a vector: NaN, or zero if the dtype has no NaN."""
    return float("nan") if rows.dtype.kind == "f" else 0


def missing_rows(count: int, width: int, dtype: DType) -> NDArray[Any]:
    """Rows without a vector, so many values wide."""
    import numpy as np

    rows: NDArray[Any] = np.empty((count, width), array_of(dtype))
    rows[:] = missing_value(rows)
    return rows
