"""Connections of aiohttp whose failures say when they came: before the request, or amid the answer."""

from __future__ import annotations

from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

from .aiohttp_errors import CONNECTING


class Connector(aiohttp.TCPConnector):
    """Marks what is raised while a connection is made: by the resolver, the handshakes, a proxy, or a cancellation.

    The same errors come out of a connection that stands. Only of the first is it certain that no text was sent.
    """

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._factory = partial(_Handler, loop=self._loop)  # type: ignore[assignment]  # partial is invariant

    async def _create_connection(self, *args: Any) -> ResponseHandler:
        try:
            return await super()._create_connection(*args)
        except BaseException as error:
            vars(error)[CONNECTING] = True
            raise


class _Handler(ResponseHandler):
    """Ends an answer whose later pieces are no HTTP.

    aiohttp's parser in C then closes the connection and tells the handler, but not whoever waits for the body, so that
    a chunk of a wrong size would cost the whole timeout.
    """

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        payload = getattr(self, "_payload", None)
        if isinstance(exc, HttpProcessingError) and payload is not None and not payload.is_eof():
            payload.set_exception(aiohttp.ClientPayloadError())
        super().set_exception(exc, *cause)
