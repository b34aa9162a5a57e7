"""Helpers of `decode`: from the body of a success to vectors in input order, model and usage."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

import msgspec

from .._hints import NDArray
from .._types import ModelFacts, Options, Response
from ..errors import DecodeError, EmbedkitError
from .contract import UNREADABLE
from .error_body import describe_body
from .error_mapping import error_in_success
from .vector_math import normalize
from .vectors import Missing, Reader, Vector, VectorLike, decode_json, decoder_of, decoder_of_any, miscounted

T = TypeVar("T")


def decode_reply(decoder: msgspec.json.Decoder[T], response: Response) -> T:
    """The body as the type of a decoder (see `decoder_of`).

    Raises:
        EmbedkitError: the error that the body is; DecodeError if it is unreadable.
    """
    try:
        return decode_json(response.body, decoder)
    except UNREADABLE as error:
        if isinstance(error, msgspec.ValidationError):  # one embedding may be wrong and the others right
            with suppress(*UNREADABLE):
                return decode_json(response.body, decoder_of_any(decoder.type))
        if (hidden := error_in_success(response)) is not None:
            raise hidden from None
        failure = DecodeError(f"unreadable reply: {error}; it {describe_body(response)}")
        failure.once_more = not isinstance(error, msgspec.ValidationError)  # that is JSON, of another shape
    raise failure


class _Entry(msgspec.Struct, frozen=True, gc=False):
    embedding: Vector | None = None
    index: Any = None


class _Document(msgspec.Struct, frozen=True, gc=False):
    data: list[_Entry] | None = None
    index: Any = None


class _Listing(msgspec.Struct, Generic[T], frozen=True):
    data: list[T | None] | None = None
    model: Any = None
    usage: Any = None


_flat = decoder_of(_Listing[_Entry])
_nested = decoder_of(_Listing[_Document])
_NO_ENTRY, _NO_DOCUMENT = _Entry(), _Document([])


def listing(response: Response, count: int, *, nested: bool = False) -> tuple[list[VectorLike], str, int | None]:
    """Vectors in input order, model and tokens of an OpenAI-like list: `data` of {embedding, index}, `model`, `usage`.

    Where nested, `data` holds documents, {data, index}, and each of them the embeddings of its chunks.
    """
    decoder: msgspec.json.Decoder[Any] = _nested if nested else _flat
    reply = decode_reply(decoder, response)
    data = reply.data or []
    if not data and (error := error_in_success(response)) is not None:
        raise error
    if nested:
        documents = [(document or _NO_DOCUMENT) for document in data]
        entries = [
            entry
            for document in in_place(documents, len(data))
            for entry in in_place(document.data or [], len(document.data or []))
        ]
    else:
        entries = in_place(data if None not in data else _without_null(data), count)
    tokens = tokens_in(reply.usage, "prompt_tokens", "total_tokens")
    return [entry.embedding for entry in entries], text_of(reply.model), tokens


def _without_null(data: list[Any]) -> list[Any]:
    """The entries of a list with nulls: those that have an index; if none has, all, null as one with no embedding."""
    there = [entry for entry in data if entry is not None]
    return there if any(entry.index is not None for entry in there) else [entry or _NO_ENTRY for entry in data]


def in_place(items: list[Any], count: int) -> list[Any]:
    """Items in input order, by their `index`; `Missing` where one is left out. A wrong number is left to `matrix`."""
    if len(items) == 1 == count or len(items) > count or not items:
        return items
    places = _places([item.index for item in items], count)
    if places is None:
        return items
    found: list[Any] = [Missing] * count
    for place, item in zip(places, items, strict=True):
        found[place] = item
    return found


def in_order(indices: Sequence[Any], count: int) -> list[int] | None:
    """The order that puts `count` rows with these indices into input order; None if they are in it. See `in_place`."""
    places = _places(indices, count)
    return None if places is None else sorted(range(count), key=places.__getitem__)


def _places(indices: Sequence[Any], count: int) -> list[int] | None:
    """The place of each row, of `count` at most, by its index; None if the rows are in order as far as one can tell.

    An index may be text. One that is left out beside others is 0, as serializers that leave out zeros write it. With
    `count` rows, a constant offset does not matter. With fewer rows a gap between the numbers shows which row is
    missing. Without a gap, the server may have left a text out and numbered the others anew; without a 0, the offset is
    unknown. Rows without any index are in order. Otherwise the indices have to be different numbers
    from 0 to count-1.

    Raises:
        DecodeError: they are not.
    """
    whole = list(range(count))
    if indices == whole or all(index is None for index in indices):
        return None
    numbers = [0 if index is None else whole_number(index) for index in indices]
    known = [number for number in numbers if number is not None]
    left_out, full = sum(index is None for index in indices), len(indices) == count
    offset = max(0, min(known, default=0)) if full and not left_out else 0
    places = [number - offset for number in known]
    if len(known) < len(indices) or left_out > 1 or len(set(places)) < len(places) or not set(places) <= set(whole):
        msg = f"the reply's index numbers are not 0 to {count - 1}, each once: {_brief(indices)}"
        raise DecodeError(msg)
    unknown = not full and (0 not in places or max(places) < len(places))
    return None if places == whole or unknown else places


def without_vectors(response: Response, count: int) -> EmbedkitError:
    """The error of a success without a list of embeddings: the one that the body names, else that all are missing."""
    return error_in_success(response) or miscounted(0, count)


def whole_number(value: Any) -> int | None:
    """A whole number, however it is written: 3, 3.0 or "3". None for anything else."""
    if isinstance(value, str):
        text = value.strip()
        return int(text) if re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII) else None
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def tokens_in(usage: Any, *names: str) -> int | None:
    """The first of these fields of a reply's usage that holds a number of tokens; None if none does. Never an error."""
    for name in names if isinstance(usage, dict) else ():
        found = usage.get(name)
        number = found if type(found) is int else whole_number(found)
        if number is not None and number >= 0:
            return number
    return None


def text_of(value: Any) -> str:
    """A text that a reply need not have, like the model's name; empty if it is no text."""
    return value if isinstance(value, str) else ""


def _brief(values: Sequence[object], most: int = 8) -> str:
    return ", ".join(map(str, values[:most])) + (", …" if len(values) > most else "")


def header_int(response: Response, header: str) -> int | None:
    """The number in a header; None if it holds none."""
    text = response.headers.get(header, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None  # noqa: PLR2004 (64 bits)


def vector_values(vector: VectorLike) -> bytes | NDArray[Any]:
    """What one vector holds, for a dialect that has to look: the bytes inside base64, or the numbers as float64."""
    return Reader()(vector)


def pool_tokens(tokens: Sequence[VectorLike], how: str) -> NDArray[Any]:
    """One vector for a text out of those of its tokens, without padding: their mean, the first ("cls") or the last.

    Raises:
        DecodeError: there is none, or they are of unequal width.
    """
    import numpy as np

    rows = [np.asarray(vector_values(token)) for token in tokens]
    if any(row.ndim != 1 for row in rows):
        msg = "a text came back as token vectors in base64, whose type nobody says"
        raise DecodeError(msg)
    if not rows or len(set(map(len, rows))) > 1:
        msg = f"a text came back as {len(rows)} token vectors{' of unequal width' if rows else ''}"
        raise DecodeError(msg)
    if how != "mean":
        return rows[{"cls": 0, "last": -1}[how]]
    with np.errstate(all="ignore"):  # `matrix` finds an infinity
        mean: NDArray[Any] = np.mean(rows, axis=0)
    return mean


def renormalize_cut(rows: NDArray[Any], options: Options, facts: ModelFacts | None) -> None:
    """Make vectors unit length, in place, that a provider has cut to the width and not normalized.

    gemini-embedding-001 is one that does so (ai.google.dev/gemini-api/docs/embeddings).
    """
    if options.dimensions not in (None, facts and facts.dimensions) and options.normalize is not False:
        normalize(rows)
