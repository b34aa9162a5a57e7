"""A token that was bought with a key: asked for when first needed, renewed before it ends, by one caller at a time.

What to ask and how to read the answer is the host's (`codec.TokenExchange`, pure); keeping the token is done here, with
the time as an argument. The exchange goes through the same `Exchange` as every request, inside the attempt, so that a
failure of it is retried like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..codec.error_mapping import error_from_response, with_url
from ..errors import ApiError, AuthError, DecodeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from .._types import Request, Response
    from ..codec import TokenExchange

SPENT = 0.9  # of a token's life; it is renewed then, so that none ends on its way
FRESH = 60.0  # seconds; a token refused at this age is refused for good


class TokenCache:
    """Holds the token of one embedder."""

    def __init__(self, grant: TokenExchange, provider: str) -> None:
        self.token = ""
        self._grant = grant
        self._provider = provider
        self._since = self._until = 0.0

    async def authorize(
        self,
        credentials: Mapping[str, str],
        ask: Callable[[Request], Awaitable[Response]],
        turn: AbstractAsyncContextManager[object],
        clock: Callable[[], float],
    ) -> dict[str, str]:
        """The credentials with the token in place of the key. `turn` lets one caller of a loop in at a time.

        Raises:
            AuthError: the key is refused; other ApiErrors as the exchange answers them.
        """
        request = self._grant.request(credentials)
        if request is None:
            return dict(credentials)
        async with turn:
            if clock() >= self._until:
                response = await ask(request)
                if not response.ok:
                    raise self._refused(response, request.url, clock())
                self.token, seconds = self._read(response)
                self._since = clock()
                self._until = self._since + seconds * SPENT
        return {**credentials, "api_key": self.token}

    def _read(self, response: Response) -> tuple[str, float]:
        try:
            return self._grant.parse(response)
        except DecodeError:
            # The answer is not quoted: it may hold the token.
            msg = "the answer to the exchange of the key for a token cannot be read"
        raise DecodeError(msg)

    def drop(self, now: float) -> bool:
        """Forget a token that was refused; True where a new one may do better."""
        if not self.token or now - self._since < FRESH:
            return False
        self.token, self._until = "", 0.0
        return True

    def _refused(self, response: Response, url: str, now: float) -> ApiError:
        error = with_url(error_from_response(response, provider=self._provider, model="", message="", now=now), url)
        if error.retryable:
            return error
        message = f"the key was not exchanged for a token: {error.message}"
        return AuthError(message, status=error.status, code=error.code, request_id=error.request_id, body=error.body)


__all__ = ["FRESH", "SPENT", "TokenCache"]
