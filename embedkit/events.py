"""What happens while texts are embedded: `connect(…, observe=function)` calls the function with each event at once.

An event is built only where somebody listens. The function is called on the event loop, so it has to be quick, and what
it raises is logged and breaks nothing. Events hold counts, seconds and errors; never a text, a vector or a key.

    from embedkit import connect, events

    def observe(event: events.Event) -> None:
        if isinstance(event, events.AttemptEnded):
            print(event.id, event.status, f"{event.seconds:.3f} s")

    embedder = connect("openai:text-embedding-3-small", observe=observe)

`CallStarted` and `CallEnded` come in pairs of one `call`, `RequestSent` and `AttemptEnded` in pairs of one `id`, and so
make the spans of a trace: both of a pair come in one task. `RequestSent` comes before the callables given as `api_key=`
and `headers=` are asked, in the same task too, so that `headers=` can say which span it is. All that one call of
`embed` causes has the same `call`, also at the endpoints of a pool. Both are whole numbers from 1 that count up in this
process.
"""

from __future__ import annotations

import msgspec

from .errors import EmbedkitError

__all__ = [
    "AttemptEnded",
    "BatchDone",
    "BatchFailed",
    "BatchSplit",
    "CacheFailed",
    "CacheRead",
    "CallEnded",
    "CallStarted",
    "Event",
    "RequestSent",
    "RetryScheduled",
    "Throttled",
    "WindowChanged",
]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """The root of all events.

    Attributes:
        provider, model: whose request it is about.
        call: the call of `embed` or `embed_query` that it belongs to, or the part of a stream, or the request that
            coalesced calls share; 0: to none.
    """

    provider: str = ""
    model: str = ""
    call: int = 0


class CallStarted(Event, frozen=True, kw_only=True):
    """A call of `embed` or `embed_query` begins, or the part of a stream, or the request that coalesced calls share.

    Attributes:
        texts: that it holds.
        server: where its requests go ("https://api.openai.com"); empty where nowhere, or to several.
        callers: the calls that share this request, where it is one of coalesced calls. Each of them begins and ends by
            itself too.
    """

    texts: int
    server: str = ""
    callers: tuple[int, ...] = ()


class CallEnded(Event, frozen=True, kw_only=True):
    """A call has ended, in whichever way; each `CallStarted` has exactly one.

    Attributes:
        texts: that it held.
        failed: rows without a vector (`on_error="skip"`).
        tokens, requests, cost: what it took, as `Usage` has them; tokens and cost are None where nobody says, and on a
            call that shared its request.
        dimensions: components per vector; 0 where there is none.
        answered: the model as the provider names it; empty where it failed.
        seconds: from its beginning, waits for a turn and retries included.
        error: what it raises; None where it succeeded. An `EmbedkitError`, what an embedder of yours raised, or the
            cancellation of its caller.
        callers: as its `CallStarted` has them.
    """

    texts: int
    failed: int = 0
    tokens: int | None = None
    requests: int = 0
    cost: float | None = None
    dimensions: int = 0
    answered: str = ""
    seconds: float
    error: BaseException | None = None
    callers: tuple[int, ...] = ()


class RequestSent(Event, frozen=True, kw_only=True):
    """An attempt leaves.

    Attributes:
        texts: that it holds.
        attempt: its number among the tries of this request, from 1; in a pool each endpoint counts its own.
        id: of this attempt, as its `AttemptEnded` has it.
        hedged: it is late, and is sent a second time beside the first, under the number and the id of that.
        server: where it goes: "https://api.openai.com".
        waited: seconds for its turn: behind others, for a rate, or in a cool-down.
    """

    texts: int
    attempt: int
    id: int = 0
    hedged: bool = False
    server: str = ""
    waited: float = 0.0


class AttemptEnded(Event, frozen=True, kw_only=True):
    """An attempt has ended, in whichever way; each `RequestSent` that is not `hedged` has exactly one.

    Attributes:
        texts, attempt, id: as its `RequestSent` has them.
        status: HTTP status of the response; None where none came.
        seconds: from when it left, the waits for a key and for `headers=` included.
        error: why it failed; None where it succeeded, and where its caller was gone before it had an answer (`status`
            is None then).
    """

    texts: int
    attempt: int
    id: int
    status: int | None
    seconds: float
    error: EmbedkitError | None = None


class RetryScheduled(Event, frozen=True, kw_only=True):
    """An attempt failed, and the next follows.

    Attributes:
        attempt: the number of the one that failed.
        wait: seconds until the next.
        error: why it failed.
    """

    attempt: int
    wait: float
    error: EmbedkitError


class Throttled(Event, frozen=True, kw_only=True):
    """A request waited `seconds` for its turn: a rate, or a cool-down after a 429."""

    seconds: float


class WindowChanged(Event, frozen=True, kw_only=True):
    """Another number of requests may be in flight at once, on this event loop at this endpoint.

    Attributes:
        before, size: that number as it was, and as it is.
        server: of the endpoint: "https://api.openai.com".
    """

    before: int
    size: int
    server: str = ""


class BatchDone(Event, frozen=True, kw_only=True):
    """A batch came back and its rows are in place.

    Attributes:
        texts: that it held.
        tokens: as the provider counts them; None where it does not.
        seconds: for the whole request with its retries.
    """

    texts: int
    tokens: int | None
    seconds: float


class BatchSplit(Event, frozen=True, kw_only=True):
    """A refused batch of `texts` goes out again in smaller pieces, because of `error`."""

    texts: int
    error: EmbedkitError


class BatchFailed(Event, frozen=True, kw_only=True):
    """A batch of `texts` is given up because of `error`: the call raises it, or the row is marked."""

    texts: int
    error: EmbedkitError


class CacheRead(Event, frozen=True, kw_only=True):
    """The cache was asked for the vectors of a call.

    Attributes:
        texts: that the call holds, equal ones counted once.
        found: those whose vector the cache had.
        seconds: how long it took.
    """

    texts: int
    found: int
    seconds: float


class CacheFailed(Event, frozen=True, kw_only=True):
    """The cache could not be read or written. The call goes on without it.

    Attributes:
        what: "read" or "written".
        why: it could not, with the name of the file or the server.
        seconds: in which it is not asked again.
    """

    what: str
    why: str
    seconds: float
