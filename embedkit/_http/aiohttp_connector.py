"""Connections of aiohttp whose failures say whether they came before the request was on its way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp

from .aiohttp_errors import CONNECTING

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler


class Connector(aiohttp.TCPConnector):
    """Marks what is raised while a connection is made: by the resolver, the handshakes, a proxy, or a cancellation.

    The same errors come out of a connection that stands. Only of the first is it certain that no text was sent.
    """

    async def _create_connection(self, *args: Any) -> ResponseHandler:
        try:
            return await super()._create_connection(*args)
        except BaseException as error:
            vars(error)[CONNECTING] = True
            raise
