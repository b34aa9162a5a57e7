"""The one I/O seam: whatever has these two methods can carry requests."""

from __future__ import annotations

from typing import Protocol

from .._types import Request, Response


class Exchange(Protocol):
    """The one I/O seam: a request goes out, a response comes back, or a TransportError is raised."""

    async def __call__(self, request: Request) -> Response:
        """Send and read to the end."""
        ...

    async def aclose(self) -> None:
        """Close what is open."""
        ...
