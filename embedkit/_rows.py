"""From the bytes of a reply straight into rows, with no Python object per number.

A JSON parser pays for a list of numbers by the number, even for one it skips, and for a string by the byte. So what is long is
*lifted* out first: found by its brackets or quotes, replaced by a mark, and read later, numbers as one block of doubles by a SIMD
parser, base64 by a SIMD decoder. What is left of the body is small and goes to msgspec, which meets the marks in their order.

Lifting guesses, and a wrong guess only costs time. Should a lifted list stand inside a string, or a lifted string begin where one
ends, the quotes of the mark break the JSON there; should it be no embedding, a mark is left over; and a body that has such marks itself
is left alone. Then it is parsed as it came.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ForwardRef, TypeAlias, TypeVar

import msgspec

from ._hints import NDArray
from ._types import QUANTISED, DType, Options, array_of
from .errors import ConfigError, DecodeError

if TYPE_CHECKING:
    import numpy as np

Out = Callable[[int], Any]  # width → the (count, width) rows to fill
T = TypeVar("T")
LONG = 64  # bytes of a list worth lifting: shorter ones are a shape or a few indices as often as a vector
SMALL = 16_384  # bytes of a body whose strings are copied sooner than searched for
STRIDE = 256  # bytes skipped in search of a long string: more than stands between two embeddings, less than half of one
_NUMERIC = b"-0123456789"  # what a list of numbers begins with
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_BRACKET = ord("[")
_MARK, _QUOTED, _ESCAPED = "#", b'"#"', b"\\u0023"  # no base64, and the only other way to write it


class Vector:
    """One embedding in a reply struct: base64 or numbers, whatever was asked. Still as it came, until `matrix` reads it."""

    __slots__ = ("text",)

    def __init__(self, text: str | memoryview | list[float]) -> None:
        self.text: str | memoryview | list[float] = text  # base64, a list as it stands in the JSON, or a short list


# What `matrix` takes for one row: a reply's own, or components made from it.
if TYPE_CHECKING:
    Given: TypeAlias = Vector | bytes | Sequence[float] | NDArray[Any]
else:  # evaluated where it was written, wherever it is used
    Given = Vector | bytes | Sequence[float] | ForwardRef("NDArray[Any]", module="embedkit._hints")


def decoder_of(kind: type[T]) -> msgspec.json.Decoder[T]:
    """What reads replies of this type, with a `Vector` for every embedding in it."""
    return msgspec.json.Decoder(kind, dec_hook=_vector)


def _vector(kind: type, value: Any) -> Vector:
    if kind is not Vector or type(value) not in (str, list):
        msg = f"Expected an embedding, got `{type(value).__name__}`"
        raise TypeError(msg)
    if type(value) is list:
        for each in value:
            if type(each) not in (float, int):
                msg = f"Expected a list of numbers, got `{type(each).__name__}` in it"
                raise TypeError(msg)
    return Vector(value)


def parse(body: bytes | bytearray | memoryview, reader: msgspec.json.Decoder[T]) -> T:
    """The JSON body as the type of a decoder made by `decoder_of`, each `Vector` in it still unread. Raises what msgspec raises."""
    body = bytes(body) if isinstance(body, memoryview) else body
    if reader.dec_hook is None:  # made without `decoder_of`
        reader = decoder_of(reader.type)
    if len(body) < SMALL and body[(quote := body.rfind(b'"', 0, STRIDE) + 1) : quote + 1] in _BASE64:
        return reader.decode(body)
    gaps, lifted = _strings(body) or _lists(body)
    if lifted:
        short = _QUOTED.join(gaps)
        marks = iter(lifted)

        def vector(kind: type, value: Any) -> Vector:
            return Vector(next(marks)) if value == _MARK and kind is Vector else _vector(kind, value)

        if short.count(_QUOTED) == len(lifted) and _ESCAPED not in short:  # else some are the body's own
            try:
                found = msgspec.json.decode(short, type=reader.type, dec_hook=vector)
                if next(marks, None) is None:
                    return found
            except (msgspec.DecodeError, UnicodeDecodeError):
                pass  # junk, or a wrong guess: the whole body tells which
    return reader.decode(body)


def _strings(body: bytes | bytearray) -> tuple[list[bytes | bytearray], list[memoryview]] | None:
    """What stands around and in long strings of base64. None where something is escaped: it may be a quote."""
    gaps, lifted, view = [], [], memoryview(body)
    kept = stop = 0
    while stop := body.find(b'"', (seen := stop) + STRIDE) + 1:
        start = body.rfind(b'"', seen, seen + STRIDE)
        if start >= 0 and stop - start >= 2 * STRIDE:
            if body[start + 1] not in _BASE64:
                return None  # between two strings, so most likely numbers
            gaps.append(body[kept:start])
            lifted.append(view[start + 1 : stop - 1])
            kept = stop
    gaps.append(body[kept:])
    return (gaps, lifted) if lifted and b"\\" not in body else None


def _lists(body: bytes | bytearray) -> tuple[list[bytes | bytearray], list[memoryview]]:
    """What stands around and in long lists of numbers. Looks at each byte at most twice."""
    gaps, lifted, view = [], [], memoryview(body)
    kept = stop = 0
    while stop := body.find(b"]", seen := stop) + 1:
        start = body.rfind(b"[", seen, stop)
        if start >= 0 and stop - start >= LONG and body[start + 1 : start + LONG].lstrip()[:1] in _NUMERIC:
            gaps.append(body[kept:start])
            lifted.append(view[start:stop])
            kept = stop
    gaps.append(body[kept:])
    return gaps, lifted


@cache
def _tools() -> tuple[Any, Callable[..., bytes], dict[str, np.dtype[Any]]]:
    """numpy, the SIMD decoder, numpy's type of each of ours: loaded when the first vector has come."""
    import numpy as np
    from pybase64 import b64decode

    return np, b64decode, {dtype: np.dtype(array_of(dtype)) for dtype in ("float32", *QUANTISED)}


class Reader:
    """Reads one vector after the other; holds the SIMD parser, which serves one thread at a time."""

    __slots__ = ("_decode", "_numpy", "_parser")

    def __init__(self) -> None:
        self._numpy, self._decode, _ = _tools()
        self._parser: Any = None

    def __call__(self, given: Given, row: int | None = None) -> bytes | NDArray[Any]:
        """The bytes inside base64, or the numbers as float64; for this row, which an error then names.

        Raises:
            DecodeError: it is neither.
        """
        try:
            if not isinstance(given, Vector):
                return given if isinstance(given, bytes) else self._numpy.asarray(given, "f8")
            text = given.text
            numbers: NDArray[Any]
            if isinstance(text, list):
                numbers = self._numpy.array(text, "f8")
            elif isinstance(text, memoryview) and text[0] == _BRACKET:
                numbers = self._numpy.frombuffer(self._doubles(text), "f8")
            else:
                return self._decode(text, None, True)
            return numbers
        except (ValueError, TypeError, OverflowError, msgspec.DecodeError) as error:
            msg = f"neither numbers nor base64: {error}"
            raise DecodeError(msg, rows=() if row is None else (row,)) from None

    def _doubles(self, text: memoryview) -> Any:
        if self._parser is None:
            from simdjson import Parser

            self._parser = Parser()
        try:
            return self._parser.parse(text).as_buffer(of_type="d")
        except (ValueError, TypeError, RuntimeError):  # junk, or an integer beyond 64 bits: read again by what can say where
            return self._numpy.array(msgspec.json.decode(text, type=list[float]), "f8")


def matrix(vectors: Sequence[Given], options: Options, count: int, out: Out | None = None) -> NDArray[Any]:
    """Vectors as checked rows, written into `out(width)`.

    Each is the `Vector` of a reply, or components made from one: bytes of the dtype asked for, or numbers.

    Raises:
        DecodeError: wrong count, ragged or wrong width, bytes that are no whole number of items, junk, non-finite or
            out-of-range values. `rows` names the row where it is one.
    """
    if len(vectors) != count:
        msg = f"{count} texts were sent, but {len(vectors)} embeddings came back"
        raise DecodeError(msg)
    np, decode, kinds = _tools()
    kind = kinds[options.dtype]
    read = Reader()
    first = read(vectors[0], 0)
    # Doubles made from floats begin with a zero, floats hardly ever; where the width is known, the length tells too.
    certain = isinstance(first, bytes) and first[:1] != b"\0" and options.dimensions is None
    source = kind if certain else _source(first, kind, options)
    width = _width(first, source, options)
    rows: NDArray[Any] = out(width) if out is not None else np.empty((count, width), kind)
    done = 0
    if type(first) is bytes and source is rows.dtype and rows.flags.c_contiguous and sys.byteorder == "little":
        done = _copy(rows, vectors, first, decode)
    if done < count:
        with np.errstate(all="ignore"):  # a number beyond float32 is found below
            for place in range(done, count):
                _convert(rows, place, read(vectors[place], place) if place else first, source)
    if kind.kind == "f" and b"\0" in np.isfinite(rows).tobytes():  # for one row `all` takes as long again
        finite(rows)
    return rows


def _copy(rows: NDArray[Any], vectors: Sequence[Given], first: bytes, decode: Callable[..., bytes]) -> int:
    """Decode base64 into rows, and say how many came before the first that is something else, which `Reader` then tells."""
    view: Any = rows.data.cast("B")
    step = stop = len(first)
    view[:step] = first
    try:
        for given in vectors[1:]:
            made = decode(given.text, None, True)  # type: ignore[union-attr]  # it need not be base64
            if len(made) != step:
                break
            view[stop : stop + step] = made
            stop += step
    except (ValueError, TypeError, AttributeError):
        pass
    return stop // step


def _width(first: bytes | NDArray[Any], source: np.dtype[Any], options: Options) -> int:
    width, rest = divmod(len(first), source.itemsize if isinstance(first, bytes) else 1)
    if rest or not width:
        msg = f"an embedding of {len(first)} bytes is not a whole number of {source.name} values"
        raise DecodeError(msg)
    got = width * 8 if options.dtype in ("binary", "ubinary") else width
    if options.dimensions not in (None, got):
        msg = f"dimensions={options.dimensions} was asked for, but the provider answered {got}"
        raise DecodeError(msg)
    return width


def _source(first: bytes | NDArray[Any], kind: np.dtype[Any], options: Options) -> np.dtype[Any]:
    """The type inside base64: the one asked for, or float64 from a server that sends doubles (seen from vLLM).

    Told by length where the width is known. Else doubles made from floats betray themselves: the low 29 bits of every second
    word are zero, and as doubles the vector has unit length (as floats it would then be longer).
    """
    import numpy as np

    if kind != np.float32 or not isinstance(first, bytes) or len(first) % 8 or len(first) < 64:  # noqa: PLR2004 (too short to tell)
        return kind
    if options.dimensions is not None:
        return np.dtype("<f8") if len(first) == 8 * options.dimensions else kind
    if int.from_bytes(first[:4], "little") & 0x1FFFFFFF or (np.frombuffer(first, "<u4")[::2] & 0x1FFFFFFF).any():
        return kind
    with np.errstate(over="ignore"):  # floats read as doubles may be anything
        length = np.linalg.norm(np.frombuffer(first, "<f8"))
    return np.dtype("<f8") if abs(length - 1) < 0.01 else kind  # noqa: PLR2004 (unit length to rounding)


def _convert(rows: NDArray[Any], place: int, vector: bytes | NDArray[Any], source: np.dtype[Any]) -> None:
    import numpy as np

    width = rows.shape[1]
    size = len(vector) / source.itemsize if isinstance(vector, bytes) else vector.size
    if size != width:
        msg = f"embeddings of unequal width: one has {size:g} values, the first has {width}"
        raise DecodeError(msg, rows=[place])
    values = np.frombuffer(vector, source.newbyteorder("<")) if isinstance(vector, bytes) else vector
    rows[place] = values
    if rows.dtype.kind in "iu" and (wrong := rows[place] != values).any():
        msg = f"{values[wrong][0]:g} is not a value of {rows.dtype.name}"
        raise DecodeError(msg, rows=[place])


def finite(rows: NDArray[Any]) -> None:
    """Raise DecodeError where a value is NaN or infinite."""
    import numpy as np

    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        places = [int(place) for place in np.flatnonzero(bad)]
        msg = f"the provider answered NaN or infinite values for {len(places)} of {len(rows)} texts"
        raise DecodeError(msg, rows=places)


def normalise(rows: NDArray[Any]) -> None:
    """Make every row unit length, in place. A zero vector stays zero."""
    import numpy as np

    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    lengths[lengths == 0] = 1.0
    np.divide(rows, lengths[:, None], out=rows, casting="same_kind")  # by doubles: a length may be beyond float32 either way


def quantised(rows: NDArray[Any], dtype: DType) -> NDArray[Any]:
    """Float rows in a smaller dtype, made on the client for providers that cannot.

    int8 is each component of the vector at unit length, times 127, rounded; uint8 is that plus 128. ubinary is one bit per component, 1 where it is positive, most
    significant bit first; binary is that minus 128, as Cohere and Voyage pack them (wire reference 2.3; part 2, 2.1).
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
    normalise(unit)
    whole: NDArray[Any] = np.rint(unit * 127)
    return whole.astype(np.int8) if dtype == "int8" else (whole + 128).astype(np.uint8)


__all__ = ["Given", "Out", "Reader", "Vector", "decoder_of", "finite", "matrix", "normalise", "parse", "quantised"]
