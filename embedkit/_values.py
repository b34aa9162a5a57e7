"""Values that callers give: which are numbers to count or to wait by, and how a wrong one is shown in a message."""

from __future__ import annotations

from typing import TypeGuard

MOST = 2**63 - 1  # of what is counted: no more texts, bytes or requests are there
LARGEST = 1e300  # no float holds a larger integer for long
WIDTH = 60  # characters of a value that are shown


def is_whole(value: object, least: int = 1) -> TypeGuard[int]:
    """Whether it is a whole number of at least that."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= MOST


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is a number that can be reckoned with, infinity and NaN included."""
    if isinstance(value, int):
        return not isinstance(value, bool) and -LARGEST < value < LARGEST
    return isinstance(value, float)


def shown(value: object) -> str:
    """The value as Python writes it, cut off where that is long; a huge integer by its size."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MOST:
        kind = "a negative integer" if value < 0 else "too large an integer"
        return f"({kind}, of {abs(value).bit_length():,} bits)"
    try:
        text = repr(value)
    except ValueError:  # a fraction of such integers
        text = type(value).__name__
    return text if len(text) <= WIDTH else text[:WIDTH] + "…"


__all__ = ["MOST", "is_number", "is_whole", "shown"]
