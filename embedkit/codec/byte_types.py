"""Finds the type of a vector's bytes: the one asked for, or another that the bytes prove. Their number proves nothing.

The components of one vector are of one order of magnitude. Read as a wrong type, they are scattered over all
magnitudes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import DecodeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .._types import Options

LEAST = 64  # bytes of a vector: fewer show nothing of their type
FEW = 16  # values that are not zero: fewer show nothing either
# The highest byte of a float32 of a magnitude between 2**-18 and 8, as nearly all components of embeddings are.
_USUAL = bytes(sign | byte for sign in (0x00, 0x80) for byte in range(0x36, 0x41))
# Standard deviation of the base-2 exponents of one vector. It is 1.6 for Gaussian components, as |log2| of a normal
# variable has it; eight times that for floats read as doubles and for pairs of float16 read as floats (their
# exponents count in eighths); and for random bytes 74 as floats, 590 as doubles.
LIKELY, SCATTERED = 6.0, 8.0
CLOSE = 12  # how far, in bits, it may be from 1 if the type is not the one asked for
PLAUSIBLE = 48  # how far, in bits, the usual component may be from 1: 14 decimal digits
BIAS_4, BIAS_8 = 127, 1023  # of the exponents of float32 and float64 (IEEE 754)
ROUNDING = 0.01  # by how much a vector of unit length may miss it


def certain(first: bytes, kind: np.dtype[Any]) -> bool:
    """Whether bytes are certainly float32, by a quick test: every second value is of a usual size.

    If the bytes were doubles, those values would be the low halves. Their bits are random, or zero except for the
    first three if the doubles were made from floats. If the low halves of the values are of a usual size too, they
    may be pairs of bfloat16.
    """
    return (
        kind.kind == "f"
        and len(first) >= LEAST
        and not first[3:131:8].translate(None, _USUAL)
        and bool(first[1:131:8].translate(None, _USUAL))
    )


def source_of(first: bytes | NDArray[Any], kind: np.dtype[Any], options: Options) -> np.dtype[Any]:
    """The type inside base64: the one asked for, or float64 if the bytes prove it (vLLM has sent doubles).

    The width asked for proves nothing: floats of twice that width are as long as doubles. Without a width, float32 is
    the default and is refused only if the bytes are those of another floating-point type.

    Raises:
        DecodeError: the bytes are of another type than the one asked for.
    """
    import numpy as np

    if not isinstance(first, bytes):
        return kind
    if kind.kind != "f":
        if (name := float_type(first)) is not None:
            msg = f"dtype={options.dtype!r} was asked for, but the provider answered {name} values"
            raise DecodeError(msg)
        return kind
    if _are_doubles(first, LEAST if options.dimensions is None else FEW):
        return np.dtype("<f8")
    if len(first) % 4 == 0 and are_floats(first) is False:
        if (name := _other_type(first)) is not None:
            msg = f"dtype='float32' was asked for, but the provider answered {name} values"
            raise DecodeError(msg)
        if options.dimensions is not None:
            raise no_floats(len(first))
    return kind


def no_floats(size: int) -> DecodeError:
    """The error of bytes that are no floats, although their number fits the width asked for."""
    return DecodeError(f"the {size} bytes of an embedding are neither float32 nor float64 values")


def float_type(values: bytes) -> str | None:
    """The type of bytes that are certainly floating-point numbers, not small integers or packed bits; else None."""
    if len(values) < LEAST:
        return None
    if (
        len(values) % 4 == 0
        and values[::4].translate(None, _USUAL)
        and are_floats(values)
        and not _are_doubles(values, FEW)
    ):
        return "float32"
    return "float64" if _are_doubles(values, FEW) else _other_type(values)


def are_floats(values: bytes) -> bool | None:
    """Whether bytes look like the components of a vector when read as float32; None if too many are zero."""
    import numpy as np

    exponents = _exponents(np.frombuffer(values, "<u4"), 23, 0xFF)
    if len(exponents) < FEW:
        return None
    return bool(exponents.std() < SCATTERED and abs(exponents.mean() - BIAS_4) < PLAUSIBLE) and not _paired(values)


def _exponents(words: NDArray[Any], shift: int, mask: int) -> NDArray[Any]:
    """The exponents of floating-point numbers that are not zero, given as unsigned integers."""
    signless = words & ((1 << (8 * words.itemsize - 1)) - 1)
    found: NDArray[Any] = ((words >> shift) & mask)[signless != 0].astype("f8")
    return found


def _paired(values: bytes) -> bool:
    """Whether these are pairs of bfloat16 that look like float32: the lower half of each has a usual exponent too."""
    lower = values[1::4]
    return not lower.translate(None, _USUAL) and len(set(lower)) > 1


def _other_type(values: bytes) -> str | None:
    """The type under which bytes that are neither float32 nor float64 make a vector; None if there is none."""
    import numpy as np

    if _paired(values):
        return "bfloat16"
    readings = (
        ("float16", "<u2", 10, 0x1F, 15),
        ("big-endian float32", ">u4", 23, 0xFF, BIAS_4),
        ("big-endian float64", ">u8", 52, 0x7FF, BIAS_8),
    )
    for name, kind, shift, mask, bias in readings:
        if len(values) % np.dtype(kind).itemsize == 0:
            found = _exponents(np.frombuffer(values, kind), shift, mask)
            if (
                len(found) >= LEAST
                and found.max() < mask
                and found.std() < LIKELY / 2
                and abs(found.mean() - bias) < CLOSE
            ):
                return name
    return None


def _are_doubles(values: bytes, least: int) -> bool:
    """Whether bytes are float64: as such of one order of magnitude, but as float32 made of random halves.

    Doubles made from narrower floats show it too: the low 29 bits of each are zero. So many zeros are no accident if
    the vector is of unit length as doubles, or if it has enough values.
    """
    import numpy as np

    if len(values) % 8 or len(values) < LEAST:
        return False
    whole = np.frombuffer(values, "<u8")
    exponents = _exponents(whole, 52, 0x7FF)
    likely = bool(len(exponents) >= FEW and exponents.std() < LIKELY and abs(exponents.mean() - BIAS_8) < PLAUSIBLE)
    if (np.frombuffer(values, "<u4")[::2] & 0x1FFFFFFF).any():
        return likely and not are_floats(values)
    with np.errstate(over="ignore"):  # floats read as doubles may be anything
        length = np.linalg.norm(np.frombuffer(values, "<f8"))
    return bool(abs(length - 1) < ROUNDING or (likely and len(exponents) >= least))
