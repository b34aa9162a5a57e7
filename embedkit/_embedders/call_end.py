"""How a call ends: what its last event says, what its error says of its texts, and what its cancellation becomes."""

from __future__ import annotations

from typing import Any

from .._calls import closing
from .._types import Embeddings, RequestCount, Usage
from ..errors import ClosedError, EmbedkitError, TooLongError
from ..events import CallEnded

SHORTER = 'truncate="end" cuts a text that is too long; connect(…, long_text="mean") averages its pieces'


def advise(error: EmbedkitError, truncate: str | None) -> None:
    """Note on a provider's refusal of a text that is too long how it can be embedded, unless the caller has chosen."""
    if isinstance(error, TooLongError) and error.status is not None and truncate is None:
        error.add_note(SHORTER)


def closed_call(error: BaseException, tally: RequestCount) -> ClosedError | None:
    """What the cancellation of this call becomes where its embedder was closed; None for any other error."""
    if not isinstance(error, EmbedkitError) and (closed := closing()) is not None:
        closed.attempts, closed.elapsed = tally.spent()
        return closed
    return None


def raise_if_closed(error: BaseException, tally: RequestCount) -> None:
    """Raise what the cancellation of this call becomes where its embedder was closed."""
    if (closed := closed_call(error, tally)) is not None:
        try:
            raise closed from None
        finally:
            del closed  # it knows this frame


def ended(
    about: dict[str, Any],
    seconds: float,
    made: Embeddings | None,
    error: BaseException | None = None,
    *,
    shares: bool,
) -> CallEnded:
    """What the observer is told of a call that gave this, or had it when it failed."""
    if made is None:
        return CallEnded(**about, seconds=seconds, error=error)
    usage = Usage(None, made.usage.requests) if shares else made.usage
    return CallEnded(
        **about, failed=len(made.failures), tokens=usage.tokens, requests=usage.requests, cost=usage.cost,
        dimensions=made.dimensions, answered=made.model, seconds=seconds, error=error,
    )  # fmt: skip


def embedded_words(made: Embeddings | None, asked: int) -> str:
    """How many texts were embedded before an error."""
    if made is None:
        return "the text was not embedded" if asked == 1 else f"none of the {asked:,} texts was embedded"
    if made.vectors.dtype.kind != "f":
        return "error.partial holds what was embedded"
    done = int((made.vectors[:, 0] == made.vectors[:, 0]).sum())  # NaN is what is missing
    return f"{done:,} of {asked:,} texts were embedded before; error.partial holds them"
