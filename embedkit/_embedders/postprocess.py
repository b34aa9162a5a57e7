"""What a provider cannot make, made here of its float32 vectors: a smaller width, unit length, another dtype."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from .._hints import NDArray
from .._types import Options, Reply
from ..codec import OutputRows, are_floats, finite, no_floats, normalize, quantize, together, unlike_earlier, widths
from ..codec.vector_math import missing_value
from ..errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from .._types import ModelFacts, Options, Reply, Response
    from ..codec import Codec


def shaped(
    codec: Codec,
    response: Response,
    asked: tuple[Options, Options],
    count: int,
    out: OutputRows | None,
    facts: ModelFacts | None,
) -> Reply:
    """The reply, decoded by the options of the request; its rows then cut, normalized, quantized as the caller asks."""
    import numpy as np

    wire, options = asked
    # The provider made the dtype itself, at the model's own width.
    if wire is options or wire.dtype == options.dtype != "float32":
        reply = codec.decode(response, options, count, out)
        if options.normalize:
            normalize(reply.vectors)
        return reply
    own = OutputRows(lambda width: np.empty((count, width), np.float32))
    whole = codec.decode(response, wire, count, own)
    if own.failures and out is None:
        raise together(own.failures)
    values = whole.vectors
    sound = next((row for place, row in enumerate(values) if place not in own.failures), None)
    if options.dimensions is not None and sound is not None and are_floats(sound.tobytes()) is False:
        raise no_floats(sound.nbytes)  # the wire did not know of the width, so the bytes went unproven
    values = cut(values, options, facts)
    if own.failures and options.dtype != "float32":
        values[list(own.failures)] = 0  # NaN has no integer
    rows = laid(quantize(values, options.dtype), out, own.failures)
    return msgspec.structs.replace(whole, vectors=rows)


def cut(values: NDArray[Any], options: Options, facts: ModelFacts | None) -> NDArray[Any]:
    """The first components of each vector, as many as asked for, made unit length again.

    Raises:
        DecodeError: they are too few, or of a width that the model is not known to be cut from.
    """
    import numpy as np

    had = values.shape[1]
    width = options.dimensions or had
    if had < width or (had > width and (facts is None or (had != facts.dimensions and had not in facts.widths))):
        msg = f"dimensions={width} was asked for, but the provider answered {had}, and the model has {widths(facts)}"
        raise DecodeError(msg)
    if had > width or options.normalize:
        values = np.ascontiguousarray(values[:, :width])
        if options.normalize is not False:
            normalize(values)
    return values


def laid(made: NDArray[Any], out: OutputRows | None, failures: Mapping[int, DecodeError]) -> NDArray[Any]:
    """The rows where they belong, those that failed without a vector."""
    if out is None:
        return made
    count, width = made.shape
    if out.width not in (None, width):
        raise unlike_earlier(width, out.width, (0,) if count == 1 else ())
    rows: NDArray[Any] = out(width)
    rows[:] = made
    out.failures = dict(failures)
    if failures:
        rows[list(failures)] = missing_value(rows)
    return rows


def _copied(vectors: Any, count: int, options: Options, out: OutputRows, who: str) -> NDArray[Any]:
    """What a custom `embed_batch` made, checked and copied into the rows it belongs to."""
    import numpy as np

    try:
        made = np.asarray(vectors)
    except ValueError as error:
        msg = f"{who} returned vectors of unequal width: {error}"
        raise DecodeError(msg) from None
    if made.ndim != 2 or len(made) != count or not made.shape[1] or made.dtype.kind in "OSUMmc":  # noqa: PLR2004
        msg = f"{who} was given {count} texts and returned vectors of shape {made.shape} and type {made.dtype}"
        raise DecodeError(msg)
    width = made.shape[1] * (8 if options.dtype in ("binary", "ubinary") else 1)
    if options.dimensions not in (None, width):
        msg = f"dimensions={options.dimensions} was asked for, but {who} answered {width}"
        raise DecodeError(msg)
    rows: NDArray[Any] = out(made.shape[1])
    with np.errstate(all="ignore"):
        rows[:] = made
    if rows.dtype.kind == "f":
        _note_non_finite(rows, out)
    elif (rows != made).any():
        msg = f"dtype={options.dtype!r} was asked for, but {who} answered {made.dtype} values that do not fit it"
        raise DecodeError(msg)
    return rows


def _note_non_finite(rows: NDArray[Any], out: OutputRows) -> None:
    try:
        finite(rows)
    except DecodeError as error:
        if len(error.rows) == len(rows):
            raise
        out.failures = {row: error.at(row) for row in error.rows}
