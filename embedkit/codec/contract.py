"""What every dialect provides: the two functions that it writes, and the values that most of them need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import msgspec

from .._types import Options, Reply, Request, Response
from .vectors import Out

JSON: Mapping[str, str] = MappingProxyType({"content-type": "application/json", "accept": "application/json"})
to_json: Callable[[Any], bytes] = msgspec.json.Encoder().encode
# What a decoder raises; the last for very deep nesting.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Codec(Protocol):
    """The least that a dialect writes. Pure: no clock, no socket, no state that changes.

    A codec may have more of what the engine asks (`limits`, `explain`, `probe` …). `Dialect` describes each and has
    its default, which counts for a codec that has none of its own.
    """

    def encode(self, texts: Sequence[str], options: Options) -> Request:
        """The request for these texts, without credentials. An option that cannot be honored: ConfigError."""
        ...

    def decode(self, response: Response, options: Options, count: int, out: Out | None = None) -> Reply:
        """The rows of a successful response, in input order, checked; written into `out(width)` if it is given."""
        ...
