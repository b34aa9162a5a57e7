"""The one I/O seam: whatever has these two methods can carry requests."""

from __future__ import annotations

from typing import Protocol

from .._types import Request, Response


class Exchange(Protocol):
    """Carries requests: the only place where bytes leave and arrive. In a test a fake stands here."""

    async def __call__(self, request: Request) -> Response:
        """Send the request, and read the response to its end.

        Raises:
            TransportError: no response arrived; `TransportTimeoutError` where it did not arrive in time.
        """
        ...

    async def aclose(self) -> None:
        """Close what is open."""
        ...
