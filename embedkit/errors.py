"""Every error embedkit raises, and what the caller may do about it.

    EmbedkitError                 the root: `except EmbedkitError` catches everything below
    ├── ConfigError               wrong set-up or option; nothing was sent
    ├── TransportError            no response: connect, TLS, a cut connection
    │   └── TransportTimeoutError no response in time
    ├── ClosedError               the embedder was closed while this call was in flight
    ├── QueueFullError            too many calls wait for their turn already; nothing was sent
    ├── DecodeError               a 2xx reply that breaks the contract: not JSON, wrong count, wrong width, NaN …
    └── ApiError                  the provider refused: status, code, message, request id, retryable, retry_after, rows
        ├── AuthError             the key is missing, wrong or not allowed
        ├── QuotaError            no credit left; never retried
        ├── NotFoundError         unknown model or route
        ├── RateLimitError        too fast; try again after `retry_after`
        ├── TooLargeError         the batch is too large: embedkit splits it
        ├── InvalidInputError     a text or the request is refused (also before sending: `status` is None)
        │   └── TooLongError      this one text exceeds the model's limit
        └── ServerError           the provider failed

Only primitives live here; reading a reply is the business of `codec`. No error ever holds a key, and all of them pickle
(`partial` stays behind: it can be gigabytes), and copies, without their traceback.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from ._types import Embeddings

__all__ = [
    "ApiError",
    "AuthError",
    "ClosedError",
    "ConfigError",
    "DecodeError",
    "EmbedkitError",
    "InvalidInputError",
    "NotFoundError",
    "QueueFullError",
    "QuotaError",
    "RateLimitError",
    "ServerError",
    "TooLargeError",
    "TooLongError",
    "TransportError",
    "TransportTimeoutError",
]


class EmbedkitError(Exception):
    """The root of the tree.

    Attributes:
        retryable: the same request may succeed later.
        retry_after: seconds the provider asked to wait, or None.
        rows: indices of the texts concerned, in the caller's list; empty when the request as a whole is.
        partial: what was embedded before the failure, an `Embeddings` with NaN where nothing is known, or None.
        attempts: how often the request that failed was sent, tries at other endpoints of a pool included; with
            `total_timeout=`, and where the embedder was closed, all that the call has sent. 0: nothing was, or nobody
            counted.
        elapsed: seconds from when it first asked for its turn; with `total_timeout=` those of the whole call.
    """

    retryable: bool = False
    retry_after: float | None = None
    attempts: int = 0
    elapsed: float = 0.0

    def __init__(self, message: str, *, rows: Iterable[int] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.rows: tuple[int, ...] = tuple(map(int, rows))
        self.partial: Embeddings | None = None

    def __str__(self) -> str:
        known = ", ".join(filter(None, (_rows(self.rows), _tries(self))))
        return self.message + (f" ({known})" if known else "")

    def at(self, *rows: int) -> Self:
        """A copy that is about these rows: what one failure says may have to be raised in several places."""
        mine = copy.copy(self)
        mine.rows = rows
        return mine

    def __reduce__(self) -> tuple[Any, ...]:
        return _revive, (type(self), self.args, {**self.__dict__, "partial": None})


def _revive(kind: type[EmbedkitError], args: tuple[Any, ...], state: dict[str, Any]) -> EmbedkitError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigError(EmbedkitError, ValueError):
    """The set-up or an option cannot work. Raised before anything is sent."""


class TransportError(EmbedkitError):
    """No response arrived. `retryable` is False where trying again cannot help (a certificate is refused).

    Attributes:
        sent: the request may have been sent, and may be the reason; False where no connection came about.
        proxy_refused: the proxy took no connection, as one does whose address is wrong.
    """

    sent: bool = True
    proxy_refused: bool = False

    def __init__(self, message: str, *, retryable: bool = True, rows: Iterable[int] = ()) -> None:
        super().__init__(message, rows=rows)
        self.retryable = retryable


class TransportTimeoutError(TransportError, TimeoutError):
    """No response arrived in time. Where it was `sent`, less work may be done in time."""


class ClosedError(EmbedkitError, RuntimeError):
    """The embedder was closed, or its event loop was ended, before this call was answered. Not retryable."""


class QueueFullError(EmbedkitError):
    """More calls wait than can be served in time. Nothing was sent or is tried again: make fewer at a time."""


class DecodeError(EmbedkitError):
    """A successful status, but a body that is not what the API's documentation says. More tries would not help.

    Attributes:
        once_more: it cannot be read as a whole, or has too few embeddings: it has been asked for once more, where the
            policy has tries.
        missing: it has too few embeddings, or some of another width, and nothing says whose.
        answered: components per vector that came, where another width was asked for; None elsewhere.
    """

    once_more: bool = False
    missing: bool = False
    answered: int | None = None


class ApiError(EmbedkitError):
    """The provider refused the request, or embedkit refused it on the provider's behalf (`status` is then None).

    Attributes:
        status: the HTTP status, or None when nothing was sent.
        code: the provider's own code, as text or number, or None.
        message: the provider's own message.
        provider, model: who was asked for what.
        request_id: what the provider's support asks for, or None.
        body: the start of the response body.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | int | None = None,
        provider: str = "",
        model: str = "",
        request_id: str | None = None,
        retryable: bool = False,
        retry_after: float | None = None,
        rows: Iterable[int] = (),
        body: str = "",
    ) -> None:
        super().__init__(message, rows=rows)
        self.status = status
        self.code = code
        self.provider = provider
        self.model = model
        self.request_id = request_id
        self.retryable = retryable
        self.retry_after = retry_after
        self.body = body

    def __str__(self) -> str:
        where = ":".join(part for part in (self.provider, self.model) if part)
        facts = [
            f"status {self.status}" if self.status is not None else "",
            f"code {self.code}" if self.code not in (None, "") else "",
            _rows(self.rows),
            f"request id {self.request_id}" if self.request_id else "",
            f"retry after {self.retry_after:g} s" if self.retry_after is not None else "",
            _tries(self),
        ]
        known = ", ".join(fact for fact in facts if fact)
        return (f"{where}: " if where else "") + self.message + (f" ({known})" if known else "")


def _rows(rows: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")  # noqa: PLR2004
    return f"row{'s' if len(rows) > 1 else ''} {shown}" if rows else ""


def _tries(error: EmbedkitError) -> str:
    seconds = f"{error.elapsed:.1f}" if error.elapsed >= 1 else f"{error.elapsed:.2f}"
    return f"{error.attempts} attempts in {seconds} s" if error.attempts > 1 else ""


class AuthError(ApiError):
    """The key is missing, wrong, or not allowed to do this."""


class QuotaError(ApiError):
    """Credit or plan is exhausted. Never retried: waiting does not fill an account."""


class NotFoundError(ApiError):
    """The model or the route does not exist."""


class RateLimitError(ApiError):
    """Too many requests or tokens in too short a time, or too many at once.

    Attributes:
        about: "tokens", "requests" or "concurrency" where the provider says what there was too much of; None elsewhere.
        max_tokens: the tokens that the quota grants in its time, a minute or more, where the provider says so; None
            elsewhere.
    """

    about: str | None = None
    max_tokens: int | None = None


class TooLargeError(ApiError):
    """The request holds too many texts, tokens or bytes. embedkit halves it, also where your `embed_batch` raises it.

    Attributes:
        max_texts, max_tokens: what one request may hold, where the provider says so; None elsewhere. Set it, and
            batches to come keep within it.
    """

    max_texts: int | None = None
    max_tokens: int | None = None


class InvalidInputError(ApiError):
    """A text, or the request itself, is refused. `rows` names the texts where they are known."""


class TooLongError(InvalidInputError):
    """One text exceeds the model's limit."""


class ServerError(ApiError):
    """The provider failed (5xx).

    Attributes:
        loading: it says that the model is being loaded, and will be there soon.
    """

    loading: bool = False
