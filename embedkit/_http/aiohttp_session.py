"""The end of an aiohttp session: with its event loop, after a fork, without an await."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator

    import aiohttp

# Held, so that an embedder nobody closed is collected before its session: aiohttp would warn of the session.
_sessions: set[Any] = set()
_parents_sessions: list[Any] = []  # sessions of a parent process: closing them would speak on the parent's sockets


async def _closes_with_loop(session: aiohttp.ClientSession) -> AsyncGenerator[None, None]:
    """Closes the session when it is closed itself.

    A loop does that to every generator begun on it: when `asyncio.run` ends, and when nobody refers to the generator
    any more.
    """
    pid = os.getpid()
    try:
        yield
    finally:
        _sessions.discard(session)
        if pid == os.getpid():
            await session.close()
        else:
            _detach(session, None)


def _detach(session: aiohttp.ClientSession, loop: asyncio.AbstractEventLoop | None) -> None:
    """Cut the pooled connections of a session that nobody can await; `loop` None: a parent's, which are only kept."""
    connector = session.connector
    session.detach()
    if connector is None:
        return
    pooled = [handler.transport for handlers in connector._conns.values() for handler, *_ in handlers]  # noqa: SLF001
    connector._conns.clear()  # noqa: SLF001 (else it warns of what is left in it)
    if loop is None:
        _parents_sessions.extend(pooled)
        return
    for transport in filter(None, pooled):
        if loop.is_closed():
            _close_socket(transport)
        else:
            transport.abort()


def _close_socket(transport: Any) -> None:
    """Close the socket of a transport whose loop is closed, where its own close() would only raise."""
    layer = getattr(transport, "_ssl_protocol", None)
    if layer is not None:
        transport._closed = True  # noqa: SLF001 (else it warns)
        transport = layer._transport  # noqa: SLF001
    sock = getattr(transport, "_sock", None)
    if sock is not None:
        sock.close()
        transport._sock = None  # noqa: SLF001 (else it warns)


if hasattr(os, "register_at_fork"):
    # Held until the interpreter is gone: a child that ends would be warned of its parent's sockets, and of the loop
    # they belong to.
    os.register_at_fork(after_in_child=_parents_sessions.__len__)
