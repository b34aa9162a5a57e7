"""The one I/O seam: whatever has these two methods can carry requests."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Protocol

from .._types import Response

if TYPE_CHECKING:
    from .._types import Request


class Exchange(Protocol):
    """The one I/O seam: a request goes out, a response comes back, or a TransportError is raised.

    Request and Response are those of `embedkit.codec`. The names of headers may be in any case.
    """

    async def __call__(self, request: Request) -> Response:
        """Send and read to the end."""
        ...

    async def aclose(self) -> None:
        """Close what is open."""
        ...


class CheckedExchange:
    """An exchange of the caller's own, whose responses are such as everything that reads them expects."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def __call__(self, request: Request) -> Response:
        """Send, and look at what came back.

        Raises:
            TypeError: it is no response, or one of wrong types.
        """
        who = f"exchange= ({getattr(self._exchange, '__name__', type(self._exchange).__name__)})"
        sending: object = self._exchange(request)
        if not isawaitable(sending):
            msg = f"{who} returned {type(sending).__name__} at once; it must be async"
            raise TypeError(msg)
        response = await sending
        if not isinstance(response, Response):
            msg = f"{who} returned {type(response).__name__}; it must return an embedkit.codec.Response"
            raise TypeError(msg)
        for field, kind, wanted in _FIELDS:
            if not isinstance(found := getattr(response, field), kind):
                msg = f"{who} returned a response whose {field} is {type(found).__name__}; it must be {wanted}"
                raise TypeError(msg)
        headers: dict[str, str] = {}
        for name, value in response.headers.items():
            headers.setdefault(str(name).lower(), str(value))  # of a repeated header the first, as a lookup gives
        return Response(response.status, headers, response.body)

    async def aclose(self) -> None:
        """Close it, where it can be closed: a plain function cannot."""
        close = getattr(self._exchange, "aclose", None)
        if close is not None:
            await close()


_FIELDS: tuple[tuple[str, Any, str], ...] = (
    ("status", int, "a whole number"),
    ("headers", Mapping, "a mapping"),
    ("body", (bytes, bytearray, memoryview), "bytes"),
)
