"""Retry: a pure decision for every failure, and a loop of its own for every call. No test sleeps."""

from __future__ import annotations

import math

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from embedkit import (
    ApiError,
    AuthError,
    ConfigError,
    DecodeError,
    InvalidInputError,
    QuotaError,
    RateLimitError,
    RetryPolicy,
    ServerError,
    TooLargeError,
    TransportError,
    TransportTimeoutError,
)
from embedkit._traffic.retry import retry_loop
from embedkit._types import CAP

JITTER = st.floats(0, 1, exclude_max=True)
PATIENT = RetryPolicy(attempts=10_000, deadline=None)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


def down(**facts):
    return ServerError("down", **{"status": 503, "retryable": True, **facts})


def busy(**facts):
    return RateLimitError("busy", **{"status": 429, "retryable": True, **facts})


# --- the decision ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempt", [1, 2, 3, 5, 8, 1030, 9_999])
@given(JITTER)
def test_a_failure_backs_off_doubling_with_full_jitter(attempt, jitter):
    """Without a hint: anything from nothing to initial * 2 ** (attempt - 1), never beyond `maximum`, however many
    attempts.
    """
    wait = PATIENT.wait(attempt, down(), jitter)

    assert wait == min(60.0, 0.5 * 2.0 ** min(attempt - 1, 60)) * jitter
    assert 0 <= wait <= 60


@pytest.mark.parametrize("attempt", [1, 2, 3, 5, 8, 1030, 9_999])
@given(JITTER)
def test_a_rate_limit_backs_off_further(attempt, jitter):
    """A rate limit without a hint starts at four times the first backoff, and half of the wait is certain."""
    wait = PATIENT.wait(attempt, busy(), jitter)
    most = min(60.0, 2.0 * 2.0 ** min(attempt - 1, 60))

    assert most / 2 <= wait <= most


@given(JITTER, st.floats(0.001, CAP), st.sampled_from([down, busy]), st.integers(1, 50))
def test_a_hint_is_kept_to(jitter, hint, failure, attempt):
    """The provider's hint is the least that is waited, and at most a tenth is added, also beyond `maximum`."""
    wait = RetryPolicy(attempts=99, maximum=0.001).wait(attempt, failure(retry_after=hint), jitter)

    assert hint <= wait <= hint * 1.1


@pytest.mark.parametrize("attempt", [1, 6, 1_000, 10**9])
def test_no_number_of_attempts_is_until_the_deadline(attempt):
    """`attempts=None` never gives up by count; what cannot succeed is still not tried again."""
    policy = RetryPolicy(attempts=None)

    assert policy.wait(attempt, down(), 0.5) is not None
    assert policy.wait(attempt, ServerError("no", status=501), 0.5) is None


@pytest.mark.parametrize("hint", [CAP + 0.001, 24_367.0, math.inf])
def test_an_absurd_hint_is_not_slept(hint):
    """A hint beyond two minutes raises at once: the error carries the figure."""
    assert PATIENT.wait(1, busy(retry_after=hint), 0.5) is None


@pytest.mark.parametrize("hint", [0.0, -5.0, math.nan])
def test_a_hint_of_nothing_is_none(hint):
    """A hint of zero or less would make every caller come back at once: own backoff instead."""
    assert PATIENT.wait(3, down(retry_after=hint), 0.5) == PATIENT.wait(3, down(), 0.5)
    assert PATIENT.wait(3, busy(retry_after=hint), 0.5) == PATIENT.wait(3, busy(), 0.5)


@given(st.integers(1, 20), st.integers(1, 25), JITTER)
def test_attempts_are_counted(attempts, attempt, jitter):
    """The last attempt is the last, and `attempts=1` means never again."""
    wait = RetryPolicy(attempts=attempts).wait(attempt, down(), jitter)

    assert (wait is None) == (attempt >= attempts)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (TransportError("cut"), True),
        (TransportTimeoutError("slow"), True),
        (TransportError("TLS", retryable=False), False),
        (down(), True),
        (ServerError("no such thing", status=501), False),
        (busy(), True),
        (RateLimitError("a month", status=429), False),
        (QuotaError("no credit", status=429), False),
        (AuthError("no", status=401), False),
        (InvalidInputError("bad", status=400), False),
        (TooLargeError("large", status=413), False),
        (DecodeError("no JSON"), False),
        (ConfigError("no key"), False),
        (ApiError("so it says", status=409, retryable=True), True),
    ],
)
def test_the_error_knows_whether_again(error, again):
    """Only what is retryable is tried again, whatever its class or status."""
    assert (PATIENT.wait(1, error, 0.5) is not None) is again


def test_a_failed_backend_is_tried_once_more():
    """Status 424 (TEI's backend) is tried a second time, not a third."""
    assert PATIENT.wait(1, down(status=424), 0.5) is not None
    assert PATIENT.wait(2, down(status=424), 0.5) is None


@given(JITTER, st.integers(1, 30), st.floats(0, 100), st.floats(0, 100))
def test_any_policy_waits_within_its_bounds(jitter, attempt, initial, maximum):
    """A backoff is never negative and never beyond `maximum`, zero included."""
    policy = RetryPolicy(attempts=99, initial=initial, maximum=maximum)

    for failure in (down(), busy()):
        assert 0 <= policy.wait(attempt, failure, jitter) <= maximum


@pytest.mark.parametrize(
    "settings",
    [
        *({"attempts": value} for value in (0, -1, 2.5, "3", True, math.nan)),
        *({"deadline": value} for value in (0, -1, math.nan, "9", True)),
        *({"initial": value} for value in (-0.1, math.nan, math.inf, "1", None, True)),
        *({"maximum": value} for value in (-0.1, math.nan, "1", None, True)),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(settings):
    """Values of another kind, negative ones and NaN are a ConfigError (a ValueError too) that says what may stand
    there.
    """
    with pytest.raises(ConfigError, match=r"attempts is a whole number of at least 1"):
        RetryPolicy(**settings)


def test_a_policy_may_be_endless():
    """No deadline, no maximum and no backoff at all are policies."""
    assert RetryPolicy(deadline=None, maximum=math.inf, initial=0).wait(1, down(), 0.9) == 0.0


# --- the loop --------------------------------------------------------------------------------------------------------


class Script:
    """Attempts that fail so often and then succeed, and a sleep that only notes."""

    def __init__(self, failures, name=""):
        self.left = list(failures)
        self.name = name
        self.slept = []

    async def attempt(self):
        await checkpoint()
        if self.left:
            raise self.left.pop(0)
        return f"done {self.name}"

    async def sleep(self, seconds):
        self.slept.append(seconds)
        await checkpoint()


@pytest.mark.anyio
async def test_the_loop_goes_on_after_the_first_failure():
    """The first failure counts as attempt 1; each decision gets its number and error, and its wait is slept."""
    first, second, third = down(), busy(), down()
    script, asked = Script([second, third]), []

    def decide(made, error):
        asked.append((made, error))
        return made / 10

    result = await retry_loop(script.attempt, first, decide=decide, sleep=script.sleep)

    assert result == "done "
    assert asked == [(1, first), (2, second), (3, third)]
    assert script.slept == [0.1, 0.2, 0.3]


@pytest.mark.anyio
async def test_the_last_error_comes_out_as_it_is():
    """When the decision is no, the very error is raised: no RetryError around it, nothing slept after it."""
    last = down()
    script = Script([last])

    with pytest.raises(ServerError) as caught:
        await retry_loop(
            script.attempt, busy(), decide=lambda made, error: None if error is last else 0.0, sleep=script.sleep
        )

    assert caught.value is last
    assert script.slept == [0.0]


@pytest.mark.anyio
async def test_what_is_not_ours_is_not_retried():
    """An exception that is no EmbedkitError ends the loop at once, undecided."""
    script = Script([KeyError("bug")])

    with pytest.raises(KeyError, match="bug"):
        await retry_loop(script.attempt, down(), decide=lambda made, error: 0.0, sleep=script.sleep)

    assert script.left == []


@pytest.mark.anyio
async def test_fifty_calls_at_once_are_all_finished():
    """Every call has a loop of its own: fifty that fail and wait side by side all come back, each with its own
    result.
    """
    results, scripts = {}, [Script([down()] * (number % 5), str(number)) for number in range(50)]

    async def call(script):
        results[script.name] = await retry_loop(
            script.attempt, down(), decide=lambda made, error: made / 100, sleep=script.sleep
        )

    async with anyio.create_task_group() as group:
        for script in scripts:
            group.start_soon(call, script)

    assert {str(number): f"done {number}" for number in range(50)} == results
    assert [len(script.slept) for script in scripts] == [number % 5 + 1 for number in range(50)]


@pytest.mark.anyio
async def test_a_call_that_is_cancelled_while_it_waits_stops():
    """Cancellation in the backoff ends the loop: no further attempt, no further decision."""
    script, asked = Script([]), []

    def decide(made, error):
        asked.append(made)
        return 1.0

    with anyio.CancelScope() as scope:

        async def sleep(seconds):
            scope.cancel()
            await anyio.sleep_forever()

        await retry_loop(script.attempt, down(), decide=decide, sleep=sleep)

    assert scope.cancelled_caught
    assert asked == [1]
