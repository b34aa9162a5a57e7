"""Exchanges around another one: one that is listened to, and one that has time and a file for large answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from .._http.exchange import Exchange
from .._types import Request, Response


class HeardExchange:
    """An exchange whose responses are told to somebody else, too."""

    def __init__(self, exchange: Exchange, hear: Callable[[Response], object]) -> None:
        self._exchange = exchange
        self._hear = hear

    async def __call__(self, request: Request) -> Response:
        response = await self._exchange(request)
        self._hear(response)
        return response

    async def aclose(self) -> None:
        await self._exchange.aclose()


class LongExchange:
    """An exchange with seconds of its own for one attempt, which may put the body of a success into a file."""

    def __init__(self, exchange: Exchange, seconds: float, into: BinaryIO | None) -> None:
        self._exchange = exchange
        self._seconds = seconds
        self._into = into

    async def __call__(self, request: Request) -> Response:
        within = getattr(self._exchange, "within", None)
        if within is not None:
            found: Response = await within(request, self._seconds, self._into)
            return found
        response = await self._exchange(request)
        if self._into is None or not response.ok:
            return response
        self._into.seek(0)
        self._into.truncate()
        self._into.write(response.body)
        return Response(response.status, response.headers, b"")

    async def aclose(self) -> None:
        await self._exchange.aclose()
