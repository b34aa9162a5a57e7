"""What every dialect provides: the functions that the engine calls, and the two values most of them need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import msgspec

from .._types import Limits, Options, Reply, Request, Response
from .vectors import Out

JSON: Mapping[str, str] = MappingProxyType({"content-type": "application/json", "accept": "application/json"})
to_json: Callable[[Any], bytes] = msgspec.json.Encoder().encode
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # what a decoder raises: the last for endless brackets


class Codec(Protocol):
    """What the engine needs of a dialect. Pure: no clock, no socket, no state that changes.

    Four facts may stand beside them: `sends_dimensions` (True where left out), `sends_dtypes` (only float32 where left out) and
    `cuts` (`truncate="end"`; True where left out) say what the API honors itself. What it does not, the engine does on the client,
    and the codec's options come without it. `joins` says where a vector depends on the other texts of its request (late chunking,
    contextualized models): the fields of `extra` that make it so, or True for always. Then the texts of a call are one request, each is
    sent, and nothing of it is split, shared with other calls or kept in a cache.

    Two more functions may be there. `probe() -> Request | None`: something to ask once before the first batch. `learn(response) -> Codec`:
    a codec that knows more after this response (a refused encoding, a cap); the engine then uses that one.
    """

    @property
    def limits(self) -> Limits:
        """What one request may hold."""
        ...

    def encode(self, texts: Sequence[str], options: Options) -> Request:
        """The request for these texts, without credentials. An option that cannot be honored: ConfigError."""
        ...

    def decode(self, response: Response, options: Options, count: int, out: Out | None = None) -> Reply:
        """The rows of a successful response, in input order, checked; written into `out(width)` where given."""
        ...

    def explain(self, response: Response) -> str:
        """The provider's own message in a refusal; empty when there is none."""
        ...
