"""The I/O seam."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import isawaitable
from types import CoroutineType
from typing import Any, Protocol

from .._types import Request, Response


class Exchange(Protocol):
    """Carries requests: the only place where bytes leave and arrive. In a test a fake stands here.

    The names of a response's headers may be in any case.
    """

    async def __call__(self, request: Request) -> Response:
        """Send the request, and read the response to its end.

        Raises:
            TransportError: no response arrived; `TransportTimeoutError` where it did not arrive in time.
        """
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
        sending: Any = self._exchange(request)
        if type(sending) is not CoroutineType and not isawaitable(sending):
            msg = f"returned {type(sending).__name__} at once"
            raise self._wrong(msg, "be async")
        response = await sending
        if type(response) is Response and type(response.body) is bytes and type(response.headers) is dict:
            names = "".join(response.headers)
            if names == names.lower() and type(response.status) is int:
                return response  # as nearly all are
        return self._checked(response)

    def _checked(self, response: Any) -> Response:
        if not isinstance(response, Response):
            msg = f"returned {type(response).__name__}"
            raise self._wrong(msg, "return an embedkit.codec.Response")
        for field, kind, wanted in _FIELDS:
            if not isinstance(found := getattr(response, field), kind):
                msg = f"returned a response whose {field} is {type(found).__name__}"
                raise self._wrong(msg, f"be {wanted}")
        headers: dict[str, str] = {}
        for name, value in response.headers.items():
            headers.setdefault(str(name).lower(), str(value))  # of a repeated header the first, as a lookup gives
        return Response(response.status, headers, response.body)

    def _wrong(self, what: str, must: str) -> TypeError:
        name = getattr(self._exchange, "__name__", type(self._exchange).__name__)
        return TypeError(f"exchange= ({name}) {what}; it must {must}")

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
