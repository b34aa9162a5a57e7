"""What is taken for texts: any iterable of strings in an order. Anything else is named, with the way out. Pure."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence
from collections.abc import Set as AbstractSet
from numbers import Number
from typing import TYPE_CHECKING, Any

from .._values import shown as number_shown
from ..errors import EmbedkitError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


SOME = 1024  # items of an array made into strings at a time


def listed(texts: str | Iterable[str], *, skip: bool = False) -> list[Any]:
    """The texts as a list of plain strings; TypeError names the row
    and type of anything else. With `skip` that stays, for its row.
    """
    if type(texts) is list and set(map(type, texts)) <= {str}:
        return texts[:]
    if isinstance(texts, str):
        return [plain(texts)]
    refuse_what_has_no_rows(texts, "embed() takes a string or an iterable of strings")
    if not hasattr(texts, "__iter__"):
        later = "; stream() takes an async one" if hasattr(texts, "__aiter__") else ""
        msg = f"texts is {type(texts).__name__}; embed() takes a string or an iterable of strings{later}"
        raise TypeError(msg)
    # pyarrow's arrays, whose items are no strings
    to_pylist: Callable[[], list[Any]] | None = getattr(texts, "to_pylist", None)
    rows = list(texts) if to_pylist is None else to_pylist()
    if set(map(type, rows)) <= {str}:
        return rows
    for row, text in enumerate(rows):
        if not isinstance(text, str) and not skip:
            hint = "" if not _is_table_row(text) else "; pass one column, as a list of strings"
            msg = f"texts[{row}] is {type(text).__name__}, not str: {shown(text)}{hint}"
            raise TypeError(msg)
    return [plain(text) if isinstance(text, str) else text for text in rows]


def refuse_what_has_no_rows(texts: object, takes: str) -> None:
    """TypeError where iterating would give something else than texts
    in an order: bytes, keys, a set's chance, the names of columns.
    """
    kind = type(texts).__name__
    if isinstance(texts, (bytes, bytearray, memoryview)):
        msg = f"texts is {kind}; {takes}"
    elif getattr(texts, "ndim", 1) == 0:
        msg = f"texts is {kind} without an axis; {takes}"
    elif isinstance(texts, Mapping):
        way = "pass list(texts.values()) or one of its values"
        msg = f"texts is {kind}, a mapping, of which only the keys would be embedded; {way}"
    elif isinstance(texts, AbstractSet) and not isinstance(texts, (KeysView, ItemsView)):
        msg = f"texts is {kind}, a set, which has no order; pass sorted(texts), so that row i belongs to a text"
    elif _is_table(texts):
        library = type(texts).__module__.partition(".")[0]
        msg = f"texts is {library}'s {kind}, a table; pass one column of it, like texts['text']"
    else:
        return
    raise TypeError(msg)


def _is_table(texts: object) -> bool:
    """Anything with columns: pandas, polars, pyarrow, datasets, a
    database's relation; an array of several axes or of records.
    """
    kind, own = (
        type(texts),
        getattr(texts, "__dict__", {}),
    )  # looked at, not called: polars warns of what its columns cost
    if any(hasattr(kind, name) or name in own for name in ("columns", "column_names", "schema")):
        return True
    axes = getattr(texts, "ndim", 1)
    return (isinstance(axes, int) and axes > 1) or getattr(getattr(texts, "dtype", None), "names", None) is not None


def _is_table_row(value: object) -> bool:
    return isinstance(value, (Mapping, tuple, list)) or getattr(value, "ndim", 0) != 0


def without_text(rows: Sequence[Any]) -> dict[int, EmbedkitError]:
    """Row → error of what is no string: missing values (None, NaN, NA), numbers, anything."""
    if set(map(type, rows)) <= {str}:
        return {}
    return {row: _no_text(row, value) for row, value in enumerate(rows) if not isinstance(value, str)}


def _no_text(row: int, value: object) -> InvalidInputError:
    missing = value is None or type(value).__name__ in ("NAType", "NaTType", "MaskedConstant") or _is_nan(value)
    what = f"missing ({shown(value)})" if missing else f"{type(value).__name__}, not str: {shown(value)}"
    return InvalidInputError(f"the text is {what}", rows=(row,))


def _is_nan(value: object) -> bool:
    return isinstance(value, (int, float, complex, Number)) and bool(value != value)  # noqa: PLR0124 (so NaN is known)


def one_by_one(source: Iterable[str]) -> Iterator[str]:
    """The items of a source; of pyarrow's arrays, whose items are no strings, some at a time as such."""
    if not hasattr(source, "to_pylist"):
        return iter(source)
    array: Any = source
    return (text for start in range(0, len(array), SOME) for text in array[start : start + SOME].to_pylist())


def plain(text: str) -> str:
    """The characters of any kind of string: of a `numpy.str_`, and
    of an enum's member its value rather than its name.
    """
    return str.__str__(text)


def shown(value: object) -> str:
    """A value for a message: short whatever its size, and even where its own repr fails."""
    from reprlib import repr as brief

    try:
        return brief(value)
    except ValueError:  # it is, or holds, an integer of more digits than Python writes
        return number_shown(value)
