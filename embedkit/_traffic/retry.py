"""When again, and how long until then. `RetryPolicy.wait` decides, as a pure function; tenacity runs the loop.

The happy path never comes here: a loop is built only after the first failure, and per call (a shared `AsyncRetrying`
loses concurrent calls: tenacity#93). This is the only file that imports tenacity.
"""

from __future__ import annotations

import math
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

import msgspec

from .._types import CAP
from .._values import is_number, is_whole, shown
from ..errors import ApiError, ConfigError, DecodeError, EmbedkitError, RateLimitError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tenacity import RetryCallState

T = TypeVar("T")
LOADED = 5.0  # seconds between two looks at most, whether a model has been loaded
_DOUBLINGS = 64  # beyond any `maximum`, and within a float
# The model failed: `Backend` of text-embeddings-inference, `ModelErrorException` of Bedrock. A third try will not help.
_ONCE_MORE = 424
# Called when a request has failed and is to be tried again; whoever waits for it sets it for the task that sends it.
tell_retry: ContextVar[Callable[[], None] | None] = ContextVar("tell_retry", default=None)


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How often and how patiently a request is tried.

    Attributes:
        attempts: how many times in all; 1 means never again; None: until the deadline. With more than 1, a server that
            says that it is loading its model is asked beyond them, as long as its host's row allows.
        deadline: seconds for one request with its retries, the first attempt included, the wait for a turn not; None:
            no deadline.
        initial: seconds of the first backoff, doubled each time. A rate limit without a hint starts at four times that.
        maximum: seconds no backoff exceeds.
    """

    attempts: int | None = 6
    deadline: float | None = 300.0
    initial: float = 0.5
    maximum: float = 60.0

    def __post_init__(self) -> None:
        attempts = self.attempts
        counted = attempts is None or is_whole(attempts)
        timed = is_number(self.initial) and 0 <= self.initial < math.inf
        timed = timed and is_number(self.maximum) and self.maximum >= 0
        if not (counted and timed and (self.deadline is None or (is_number(self.deadline) and self.deadline > 0))):
            rules = "attempts is a whole number of at least 1 or None, initial and maximum not negative"
            given = ", ".join(f"{name}={shown(getattr(self, name))}" for name in self.__struct_fields__)
            msg = f"RetryPolicy({given}): {rules}, deadline positive or None"
            raise ConfigError(msg)

    def wait(self, attempt: int, error: EmbedkitError, jitter: float, *, loading: bool = False) -> float | None:
        """Seconds to wait after failure number `attempt` (from 1), or None to give up. `jitter` is random in [0, 1).

        A provider's hint above zero is kept to, plus up to a tenth so that callers do not come back together. Without
        one: full jitter over a doubling backoff; for a rate limit half of it is certain, since a quick retry cannot
        outlast a window of a minute. While a model is `loading`, attempts are not counted (unless there is to be but
        one), and the wait is short.
        """
        if not (error.retryable or (isinstance(error, DecodeError) and error.once_more)):
            return None
        loading = loading and self.attempts != 1
        used_up = self.attempts is not None and attempt >= self.attempts and not loading
        if used_up or (isinstance(error, ApiError) and error.status == _ONCE_MORE and attempt > 1):
            return None
        if error.retry_after is not None and error.retry_after > 0:
            return error.retry_after * (1 + jitter / 10) if error.retry_after <= CAP else None
        doubled = self.initial * 2.0 ** min(attempt - 1, _DOUBLINGS)
        if loading or isinstance(error, RateLimitError):
            return min(self.maximum, min(LOADED, doubled) if loading else 4.0 * doubled) * (1 + jitter) / 2
        return min(self.maximum, doubled) * jitter


async def retry_loop(
    attempt: Callable[[], Awaitable[T]],
    failure: EmbedkitError,
    *,
    decide: Callable[[int, EmbedkitError], float | None],
    sleep: Callable[[float], Awaitable[None]],
) -> T:
    """Carry on after a first `failure`: `decide(attempts made, error)` gives the wait, or None to raise the error."""
    from tenacity import AsyncRetrying

    pending: EmbedkitError | None = failure
    pause = 0.0

    async def once() -> T:
        nonlocal pending
        if pending is not None:
            error, pending = pending, None
            raise error
        return await attempt()

    def once_more(state: RetryCallState) -> bool:
        nonlocal pause
        error = state.outcome.exception() if state.outcome is not None else None
        wait = decide(state.attempt_number, error) if isinstance(error, EmbedkitError) else None
        pause = wait or 0.0
        return wait is not None

    return await AsyncRetrying(retry=once_more, wait=lambda _: pause, sleep=sleep, reraise=True)(once)
