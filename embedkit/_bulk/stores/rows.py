"""What is written of a row: its key, what it was made of, and its record as JSON. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import msgspec

from ..._hints import NDArray
from ...errors import ConfigError
from .. import arrow_values
from ..contract import Records
from ..sources import arrow_fields
from ..sources.fields import Fields

Keys = list[str] | list[int]
Texts = Callable[[Records], Sequence[str | None]]
KEY, VECTOR, ERROR, DIGEST, RECORD = "key", "embedding", "embedding_error", "embedding_digest", "record"
COLUMNS = (KEY, VECTOR, ERROR, DIGEST, RECORD)


class Rows(msgspec.Struct, frozen=True, gc=False):
    """Rows on their way: lists of one length, records in pieces, vectors of shape (n, d).

    `errors`: why a row has no vector; None where it has one. `digests`: of the texts, None where `errors` is not.
    """

    keys: Keys
    vectors: NDArray[Any]
    errors: list[str | None]
    digests: list[str | None]
    pieces: list[Records]

    def take(self, places: Sequence[int]) -> Rows:
        """These rows only, in this order."""
        ends = _ends(self.pieces)
        found: list[Records] = []
        piece = 0
        for place in places:
            while place >= ends[piece]:
                piece += 1
            start = place - (ends[piece - 1] if piece else 0)
            found.append(self.pieces[piece][start : start + 1])
        return Rows(
            [self.keys[place] for place in places],  # type: ignore[arg-type]  # all of one type, as before
            self.vectors[list(places)],
            [self.errors[place] for place in places],
            [self.digests[place] for place in places],
            found,
        )


def _ends(pieces: list[Records]) -> list[int]:
    ends, end = [], 0
    for piece in pieces:
        end += len(piece)
        ends.append(end)
    return ends


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows of several writes as one, each key once: as its last row says."""
    import numpy as np

    keys: Any = [key for part in parts for key in part.keys]
    rows = Rows(
        keys,
        parts[0].vectors if len(parts) == 1 else np.concatenate([part.vectors for part in parts]),
        [error for part in parts for error in part.errors],
        [digest for part in parts for digest in part.digests],
        [piece for part in parts for piece in part.pieces],
    )
    last = {key: place for place, key in enumerate(keys)}
    return rows if len(last) == len(keys) else rows.take(sorted(last.values()))


def digest(text: str) -> str:
    """What a store keeps of a text, so that an equal one is known again: 32 hexadecimal digits."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def key_text(key: Any) -> str:
    """A key as text: itself, or what JSON writes for it; 7 and "7" are one key."""
    if isinstance(key, str):
        return key if key.isascii() else key.encode("utf-8", "replace").decode()
    if isinstance(key, int) and not isinstance(key, bool):
        return str(key)
    return json_text(key).decode()


def stored_keys(keys: Sequence[Any], failures: Collection[int], first: int) -> tuple[list[str], list[int]]:
    """(keys as text, places of the rows that have one). A row that failed may lack its key; it is left out.

    Raises:
        ConfigError: another row has none.
    """
    found: list[str] = []
    places: list[int] = []
    for place, key in enumerate(keys):
        if key is None:
            if place in failures:
                continue
            msg = f"row {first + place}: its key is null, and a store needs one in every row; mend it, or pass no key"
            raise ConfigError(msg)
        found.append(key_text(key))
        places.append(place)
    return found, places


def json_text(value: Any) -> bytes:
    """JSON in UTF-8 that every store takes: NaN and infinity are null, half of a surrogate pair is a question mark."""
    try:
        return msgspec.json.encode(value, enc_hook=str)
    except UnicodeEncodeError:
        text = json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "replace")
        return msgspec.json.encode(json.loads(text))


def json_records(pieces: Sequence[Records]) -> list[bytes]:
    """Every record as JSON."""
    return [
        json_text(record) for piece in pieces for record in (piece if isinstance(piece, list) else _speakable(piece))
    ]


def _speakable(batch: Any) -> list[dict[str, Any]]:
    lacking = arrow_values.unspeakable(batch.schema)
    if lacking is not None:
        msg = f"column {lacking[0]!r} cannot be kept in this store: {lacking[1]}; leave it out of the input"
        raise ConfigError(msg)
    return arrow_values.records(batch)


def texts_of(fields: Fields) -> Texts:
    """Reads the texts of records, as their source has made them."""

    def read(records: Records) -> Sequence[str | None]:
        if isinstance(records, list):
            return [fields.text(record)[0] for record in records]
        return arrow_fields.texts_of(records, fields, empty=True)[0]

    return read


def unpacked_sign(vectors: NDArray[Any]) -> NDArray[Any]:
    """Packed bits as unsigned bytes: `binary` is `ubinary` minus 128."""
    import numpy as np

    return vectors.view(np.uint8) ^ np.uint8(0x80) if vectors.dtype == np.int8 else vectors


def runs(size: int, step: int) -> list[tuple[int, int]]:
    """(start, end) of slices of at most `step` within `size`."""
    return list(pairwise([*range(0, size, step), size])) if size else []
