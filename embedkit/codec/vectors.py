"""Decodes the bytes of a reply straight into rows, with no Python object per number.

The cost of a list of numbers in a JSON parser grows with their count, even if the parser skips them; that of a string
with its bytes. So long lists and strings are *lifted* out first: they are found by their brackets or quotes, replaced
by a mark, and read later, numbers as one block of doubles by a SIMD parser, base64 by a SIMD decoder. The rest of the
body is small. msgspec parses it and meets the marks in their order.

Lifting guesses, and a wrong guess only costs time: then the body is parsed as it came. If a lifted list stands inside
a string, or a lifted string begins where one ends, the quotes of the mark break the JSON there. If it is no
embedding, a mark is left over. A body that has such marks itself is not touched.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, ForwardRef, TypeAlias, TypeVar

import msgspec

from .._hints import NDArray
from .._types import QUANTIZED, Options, array_of
from ..errors import DecodeError
from .byte_types import certain, source_of
from .vector_math import finite, missing_value

if TYPE_CHECKING:
    import numpy as np

Out = Callable[[int], Any]  # width → the (count, width) rows to fill
T = TypeVar("T")
LONG = 64  # bytes of a list worth lifting: a shorter one is as often a shape or some indices as a vector
SMALL = 16_384  # bytes of a body in which copying the strings takes less time than finding them
STRIDE = 256  # bytes skipped in search of a long string: more than stands between two embeddings, less than half of one
_NUMERIC = b"-0123456789"  # what a list of numbers begins with
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_BRACKET = ord("[")
_MARK, _QUOTED, _ESCAPED = "#", b'"#"', b"\\u0023"  # no base64, and the only other way to write it
_MARK_OF_ORDER = b"\xef\xbb\xbf"
# In the place of a number: words for what is no number, and exponents from 300 on, which float32 has not.
_NO_NUMBER = re.compile(
    rb"(?<=[\[,:\s])[-+]?(?:(?:NaN|nan|Infinity|inf)\b|\d[\d.]*[eE]\+?0*(?:[3-9]\d\d|[1-9]\d{3,})\b)(?=[\],}\s])"
)


class Vector:
    """One embedding in a reply struct: base64 or numbers, whatever was asked for. `matrix` reads it."""

    __slots__ = ("text",)

    def __init__(self, text: str | memoryview | list[float | None] | DecodeError) -> None:
        # Base64, the JSON of a list, a short list, or the reason why it is none of them.
        self.text: str | memoryview | list[float | None] | DecodeError = text


# What `matrix` takes for one row: a reply's own, components made from it, None for null, or the reason for no vector.
if TYPE_CHECKING:
    VectorLike: TypeAlias = Vector | bytes | Sequence[float] | NDArray[Any] | DecodeError | None
else:  # so that `get_type_hints` of any module can resolve it
    _Array = ForwardRef("NDArray[Any]", module="embedkit._hints")
    VectorLike = Vector | bytes | Sequence[float] | _Array | DecodeError | None


class OutputRows:
    """Where the rows of one reply go, and which of its texts have no usable vector.

    Attributes:
        width: values per row of earlier replies under the same options; None: this is the first.
        failures: row within the batch → what is wrong with its vector. Such a row is NaN (zero if the dtype has no
            NaN).
    """

    __slots__ = ("_rows", "failures", "width")

    def __init__(self, rows: Callable[[int], NDArray[Any]], width: int | None = None) -> None:
        self._rows = rows
        self.width: int | None = width
        self.failures: dict[int, DecodeError] = {}

    def __call__(self, width: int) -> NDArray[Any]:
        """The rows to fill, so many values wide."""
        return self._rows(width)


def decoder_of(kind: type[T]) -> msgspec.json.Decoder[T]:
    """A decoder of replies of this type, with a `Vector` for every embedding in it."""
    return msgspec.json.Decoder(kind, dec_hook=_vector)


def _vector(kind: type, value: Any) -> Vector:
    """An embedding. A null in a list is left for `matrix`, which knows its row."""
    if kind is not Vector or type(value) not in (str, list):
        msg = f"Expected an embedding, got `{type(value).__name__}`"
        raise TypeError(msg)
    if type(value) is list:
        for each in value:
            if type(each) not in (float, int, type(None)):
                msg = f"Expected a list of numbers, got `{type(each).__name__}` in it"
                raise TypeError(msg)
    return Vector(value)


def decoder_of_any(kind: type[T]) -> msgspec.json.Decoder[T]:
    """A decoder that takes anything for an embedding: `matrix` then refuses what is none, and names its row."""
    return msgspec.json.Decoder(kind, dec_hook=_anything)


def _anything(kind: type, value: Any) -> Any:
    if kind is not Vector:
        return _vector(kind, value)
    try:
        return _vector(kind, value)
    except TypeError as error:
        return Vector(DecodeError(str(error)))


def decode_json(body: bytes | bytearray | memoryview, reader: msgspec.json.Decoder[T]) -> T:
    """The JSON body as the type of a decoder made by `decoder_of`, each `Vector` still unread. Raises msgspec's errors.

    A byte order mark is skipped. A number that JSON cannot express is read as null: NaN and Infinity as Python's json
    module writes them, and what is beyond a double.
    """
    body = bytes(body) if isinstance(body, memoryview) else body
    if reader.dec_hook is None:  # made without `decoder_of`
        reader = decoder_of(reader.type)
    try:
        if len(body) < SMALL and body[(quote := body.rfind(b'"', 0, STRIDE) + 1) : quote + 1] in _BASE64:
            return reader.decode(body)
        return _lifted(body, reader)
    except (msgspec.DecodeError, UnicodeDecodeError):
        mended = _NO_NUMBER.sub(b"null", body.removeprefix(_MARK_OF_ORDER))
        if mended == body:
            raise
    return _lifted(mended, reader)


def _lifted(body: bytes | bytearray, reader: msgspec.json.Decoder[T]) -> T:
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
    """The text around long strings of base64, and those strings. None if something is escaped: it may be a quote."""
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
    """The text around long lists of numbers, and those lists. Looks at each byte at most twice."""
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


_NULL = DecodeError("null stands in place of an embedding")


@cache
def _tools() -> tuple[Any, Callable[..., bytes], dict[str, np.dtype[Any]]]:
    """numpy, the SIMD decoder and numpy's type of each dtype, loaded when the first vector has come."""
    import numpy as np
    from pybase64 import b64decode

    return np, b64decode, {dtype: np.dtype(array_of(dtype)) for dtype in ("float32", *QUANTIZED)}


class Reader:
    """Reads one vector after the other; holds the SIMD parser, which serves one thread at a time."""

    __slots__ = ("_decode", "_numpy", "_parser")

    def __init__(self) -> None:
        self._numpy, self._decode, _ = _tools()
        self._parser: Any = None

    def __call__(self, given: VectorLike, row: int | None = None) -> bytes | NDArray[Any]:
        """The bytes inside base64, or the numbers as float64; for this row, which an error then names.

        Raises:
            DecodeError: it is neither.
        """
        try:
            if not isinstance(given, Vector):
                if given is None or isinstance(given, DecodeError):
                    raise (given or _NULL).at(*(() if row is None else (row,)))
                return given if isinstance(given, bytes) else self._numpy.asarray(given, "f8")
            text = given.text
            if isinstance(text, DecodeError):
                raise text.at(*(() if row is None else (row,)))
            numbers: NDArray[Any]
            if isinstance(text, list):
                numbers = self._numpy.array(text, "f8")  # null is NaN
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
        except (ValueError, TypeError, RuntimeError):  # junk, or an integer beyond 64 bits; msgspec says where
            return self._numpy.array(msgspec.json.decode(text, type=list[float | None]), "f8")


def matrix(vectors: Sequence[VectorLike], options: Options, count: int, out: Out | None = None) -> NDArray[Any]:
    """Vectors as checked rows, written into `out(width)`.

    Each is the `Vector` of a reply, or components made from one: bytes of the dtype asked for, or numbers; None if
    the reply has none. What is wrong with single rows goes into `out.failures` if `out` is an `OutputRows`, else it
    is raised.

    Raises:
        DecodeError: wrong count, another width than the one asked for (`answered` says which), bytes that are no
            whole number of values or of another type, no usable row. `rows` names the rows where it is about some.
    """
    if len(vectors) != count:
        raise miscounted(len(vectors), count)
    np, decode, kinds = _tools()
    kind = kinds[options.dtype]
    read = Reader()
    done = 0
    try:
        first = read(vectors[0], 0)
        sure = isinstance(first, bytes) and certain(first, kind)
        source = kind if sure else source_of(_witness(first, vectors, read), kind, options)
        width = _width(first, source, options)
        if isinstance(out, OutputRows) and (known := out.width) is not None and known != width:
            raise unlike_earlier(width, known, rows=(0,))
        rows: NDArray[Any] = out(width) if out is not None else np.empty((count, width), kind)
        if type(first) is bytes and source is rows.dtype and rows.flags.c_contiguous and sys.byteorder == "little":
            done = _copy(rows, vectors, first, decode)
        if done < count:
            with np.errstate(all="ignore"):  # a number beyond float32 is found below
                for place in range(done, count):
                    _convert(rows, place, read(vectors[place], place) if place else first, source)
        if kind.kind == "f" and b"\0" in np.isfinite(rows).tobytes():  # for one row `all` takes as long again
            finite(rows)
    except DecodeError as error:
        return _row_by_row(vectors, options, out, error)  # the first may be the wrong one
    return rows


def _witness(first: bytes | NDArray[Any], vectors: Sequence[VectorLike], read: Reader) -> bytes | NDArray[Any]:
    """The first vector that shows of which type its bytes are: one of zeros shows nothing."""
    if not isinstance(first, bytes) or not _zero(first):
        return first
    for place, given in enumerate(vectors):
        with suppress(DecodeError):  # it is found again, as a row that fails
            made = read(given, place)
            if isinstance(made, bytes) and not _zero(made):
                return made
    return first


def _zero(values: bytes) -> bool:
    return not values.strip(b"\0")


def miscounted(found: int, count: int) -> DecodeError:
    """The error of a reply with another number of embeddings than texts; too few are asked for once more."""
    error = DecodeError(
        f"{count} text{'s were' if count > 1 else ' was'} sent, but {found} embedding{'s' * (found != 1)} came back"
    )
    error.once_more = error.missing = found < count
    return error


class Missing:
    """Takes the place of an item that a reply does not have. Its embedding is the reason."""

    embedding: ClassVar[DecodeError] = DecodeError("the reply has no embedding for this text, and those of the others")
    embedding.once_more = True  # it may be there the next time


def _copy(rows: NDArray[Any], vectors: Sequence[VectorLike], first: bytes, decode: Callable[..., bytes]) -> int:
    """Decode base64 into rows, and return how many came before the first that is something else."""
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
        msg = (
            f"an embedding of {len(first)} bytes is not a whole number of {source.name} values"
            if rest
            else "the embedding is empty"
        )
        raise DecodeError(msg, rows=(0,))
    got = width * 8 if options.dtype in ("binary", "ubinary") else width
    if options.dimensions not in (None, got):
        raise _another_width(got, options, rows=(0,))
    return width


def unlike_earlier(got: int, known: int | None, rows: Sequence[int] = ()) -> DecodeError:
    """The error of a reply of another width than those before it under the same options."""
    msg = f"this reply has {got} values per row, earlier ones under the same options had {known}"
    return DecodeError(msg, rows=rows)


def _another_width(got: int, options: Options, rows: Sequence[int] = ()) -> DecodeError:
    error = DecodeError(f"dimensions={options.dimensions} was asked for, but the provider answered {got}", rows=rows)
    error.answered = got
    return error


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


# --- a reply with rows that cannot be used ---------------------------------------------------------------------------


def _row_by_row(vectors: Sequence[VectorLike], options: Options, out: Out | None, error: DecodeError) -> NDArray[Any]:
    """The usable rows of a reply in which some are not: null, empty, not finite, or of another width than most."""
    kind = _tools()[2][options.dtype]
    known = out.width if isinstance(out, OutputRows) else None
    found, failures = _read_each(vectors, options, kind, known)
    width = _common_width({place: len(row) for place, row in found.items()}, options, known)
    for place, row in list(found.items()):
        if len(row) != width:
            del found[place]
            failures[place] = DecodeError(
                f"embeddings of unequal width: this one has {len(row)} values, others have {width}", rows=(place,)
            )
    failures = dict(sorted(failures.items()))
    if not isinstance(out, OutputRows) or not found:
        raise together(failures) if failures else error
    rows: NDArray[Any] = out(width)
    rows[:] = missing_value(rows)
    for place, row in found.items():
        rows[place] = row
    out.failures = failures
    return rows


def _read_each(
    vectors: Sequence[VectorLike], options: Options, kind: np.dtype[Any], known: int | None
) -> tuple[dict[int, NDArray[Any]], dict[int, DecodeError]]:
    """(row → its values in the dtype asked for, row → the reason why it has none)."""
    read = Reader()
    given: dict[int, bytes | NDArray[Any]] = {}
    found: dict[int, NDArray[Any]] = {}
    failures: dict[int, DecodeError] = {}
    for place, vector in enumerate(vectors):
        try:
            given[place] = read(vector, place)
        except DecodeError as error:
            failures[place] = error.at(place)
    sources = _sources(given, options, kind, alone=known is not None and len(vectors) == 1)
    for place, made in given.items():
        try:
            found[place] = _row(_values(made, sources[place], place) if isinstance(made, bytes) else made, kind, place)
        except DecodeError as error:
            failures[place] = error.at(place)
    return found, failures


def _sources(
    given: Mapping[int, bytes | NDArray[Any]], options: Options, kind: np.dtype[Any], *, alone: bool
) -> dict[int, np.dtype[Any] | DecodeError]:
    """The type of the bytes of each row in base64, or the reason why it is none that was asked for.

    Bytes that show nothing, zeros, are of the type that most others show.

    Raises:
        DecodeError: no more rows are of a type that was asked for than are not: the reply is wrong, not a row. A text
            that was sent alone may be at fault if earlier replies were right.
    """
    sources: dict[int, np.dtype[Any] | DecodeError] = {}
    for place, made in given.items():
        try:
            sources[place] = source_of(made, kind, options)
        except DecodeError as error:
            sources[place] = error
    wrong = [source for source in sources.values() if isinstance(source, DecodeError)]
    shown = [
        source
        for place, source in sources.items()
        if not isinstance(source, DecodeError) and not (isinstance(made := given[place], bytes) and _zero(made))
    ]
    if len(wrong) >= max(len(shown), 1) and not alone:
        raise wrong[0]
    usual, _ = Counter(shown).most_common(1)[0] if shown else (kind, 0)
    return {
        place: usual if isinstance(made := given[place], bytes) and _zero(made) else source
        for place, source in sources.items()
    }


def _values(made: bytes, source: np.dtype[Any] | DecodeError, place: int) -> NDArray[Any]:
    import numpy as np

    if isinstance(source, DecodeError):
        raise source
    if len(made) % source.itemsize:
        msg = f"an embedding of {len(made)} bytes is not a whole number of {source.name} values"
        raise DecodeError(msg, rows=(place,))
    return np.frombuffer(made, source.newbyteorder("<"))


def _row(values: NDArray[Any], kind: np.dtype[Any], place: int) -> NDArray[Any]:
    """Values as a checked row of this type."""
    import numpy as np

    if not values.size:
        msg = "the embedding is empty"
        raise DecodeError(msg, rows=(place,))
    row = np.empty((1, values.size), kind)
    with np.errstate(all="ignore"):
        _convert(row, 0, values, kind)
    if kind.kind == "f":
        finite(row)
    made: NDArray[Any] = row[0]
    return made


def _common_width(widths: dict[int, int], options: Options, known: int | None) -> int:
    """The values per row that a reply's usable rows share: asked for, known from earlier replies, or those of most.

    Raises:
        DecodeError: none has the width asked for or known; or no width is that of most.
    """
    asked, bits = options.dimensions, 8 if options.dtype in ("binary", "ubinary") else 1
    wanted = known if asked is None else asked // bits
    counts = Counter(widths.values())
    if wanted is not None and (wanted in counts or not counts):
        return wanted
    if not counts:
        return 0
    most, times = counts.most_common(1)[0]
    if wanted is None:
        if 2 * times > len(widths):
            return most
        first = next(iter(widths.values()))
        msg = f"embeddings of unequal width: {', '.join(map(str, sorted(counts)))} values, and none is that of most"
        error = DecodeError(msg, rows=[place for place, width in widths.items() if width != first])
        error.missing = True
        raise error
    alone = tuple(widths) if len(widths) == 1 and known is not None else ()  # one text may be at fault, several are not
    if asked is not None:
        raise _another_width(most * bits, options, alone)
    raise unlike_earlier(most, wanted, alone)


def together(failures: Mapping[int, DecodeError]) -> DecodeError:
    """One error for the failures of single rows: the first, about all the rows that share its reason."""
    first = next(iter(failures.values()))
    return first.at(*(row for row, error in failures.items() if error.message == first.message))


__all__ = [
    "Missing",
    "Out",
    "OutputRows",
    "Reader",
    "Vector",
    "VectorLike",
    "decode_json",
    "decoder_of",
    "decoder_of_any",
    "matrix",
    "miscounted",
    "together",
    "unlike_earlier",
]
