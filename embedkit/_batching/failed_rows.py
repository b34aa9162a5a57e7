"""Puts failed rows into a result, and picks the error to raise for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from .._types import Embeddings
from ..codec.vector_math import missing_rows
from ..errors import EmbedkitError


def with_failed_rows(
    made: Embeddings, places: Sequence[int], others: Mapping[int, EmbedkitError], *, width: int = 0
) -> Embeddings:
    """The embeddings with the rows of `others` between them; row
    i of `made` goes to places[i]. `width`: where there are none.
    """
    rows = missing_rows(len(places) + len(others), made.vectors.shape[1] if places else width, made.dtype)
    if places:
        rows[list(places)] = made.vectors
    failures = {places[row]: error.at(places[row]) for row, error in made.failures.items()}
    return msgspec.structs.replace(made, vectors=rows, failures=dict(sorted({**failures, **others}.items())))


def first_failure(result: Embeddings) -> EmbedkitError:
    """What `on_error="raise"` raises for a result with failures:
    the first, about all the rows that share its reason.
    """
    first = next(iter(result.failures.values()))
    alike = (row for row, each in result.failures.items() if (type(each), each.message) == (type(first), first.message))
    error = first.at(*alike)
    if len(result.failures) < len(result):
        error.partial = msgspec.structs.replace(result, failures={})
    return error
