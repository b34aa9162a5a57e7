"""`Dialect`, the base class of a codec: all that the engine asks of one, with defaults."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from .._types import Limits, Options, Reply, Request, Response
from .contract import Codec
from .error_body import read_error_body
from .host import Target
from .vectors import Out


class Dialect(msgspec.Struct, frozen=True):
    """Base class of a codec. `class Acme(Dialect, frozen=True)` writes `encode`, `decode` and what differs.

    A property, a class variable or a field may override each property; some type checkers take a property only. Pure:
    no clock, no socket, no state that changes. A class that does not inherit from this one works too: `complete` gives
    it the defaults that it lacks.

    Attributes:
        target: what it sends requests to: host, model, base URL, parameters.
    """

    target: Target

    @property
    def limits(self) -> Limits:
        """What one request may hold: the host's limits."""
        return self.target.host.limits

    @property
    def sends_dimensions(self) -> bool:
        """Whether the API takes a width: yes. If not, the engine cuts the vectors; `encode` sees no `dimensions`."""
        return True

    @property
    def sends_dtypes(self) -> Collection[str]:
        """The dtypes that the API makes itself: float32 only. The engine makes the others; `encode` never sees them."""
        return ("float32",)

    @property
    def cuts(self) -> bool:
        """Whether the API honors `truncate="end"`: yes. Otherwise the engine cuts the text."""
        return True

    @property
    def joins(self) -> bool | Collection[str]:
        """The fields of `extra` that make a vector depend on the other texts of its request, or True for always: none.

        Late chunking and contextualized models need it. Then the texts of a call are one request: each text is sent,
        and none is split off, shared with other calls or cached.
        """
        return ()

    def encode(self, texts: Sequence[str], options: Options) -> Request:
        """The request for these texts, without credentials.

        Raises:
            ConfigError: an option cannot be honored.
        """
        raise NotImplementedError

    def decode(self, response: Response, options: Options, count: int, out: Out | None = None) -> Reply:
        """The rows of a successful response, in input order, checked; written into `out(width)` if it is given."""
        raise NotImplementedError

    def explain(self, response: Response) -> str:
        """The provider's own message in a refusal; empty if there is none."""
        return read_error_body(response).message

    def probe(self) -> Request | None:
        """A request to send once, before the first batch; `learn` gets the response."""
        return None

    def learn(self, response: Response) -> Dialect:  # noqa: ARG002 (for subclasses)
        """A codec that knows more after this response (a limit, a refused encoding), then used; else this one."""
        return self


def complete(codec: Codec, target: Target) -> Dialect:
    """The codec as a `Dialect`: itself if it is one, else with the defaults of `Dialect` for what it does not have."""
    return codec if isinstance(codec, Dialect) else _Completed(target, codec)


def _own(name: str) -> Any:
    """A property: the member of this name that the codec has, else that of `Dialect`."""

    def read(self: _Completed) -> Any:
        return getattr(self.codec if hasattr(self.codec, name) else super(_Completed, self), name)

    return property(read)


class _Completed(Dialect, frozen=True):
    """A codec whose class does not inherit from `Dialect`."""

    codec: Codec
    limits = _own("limits")
    sends_dimensions = _own("sends_dimensions")
    sends_dtypes = _own("sends_dtypes")
    cuts = _own("cuts")
    joins = _own("joins")
    encode = _own("encode")
    decode = _own("decode")
    explain = _own("explain")
    probe = _own("probe")

    def learn(self, response: Response) -> Dialect:
        better: Codec = getattr(self.codec, "learn", lambda _: self.codec)(response)
        return msgspec.structs.replace(self, codec=better)
