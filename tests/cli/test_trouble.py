"""When a command says that requests fail: soon where nothing comes back, and seldom."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from embedkit import ServerError, TransportError
from embedkit.cli.trouble import EVERY, Trouble
from embedkit.events import AttemptEnded, RequestSent, RetryScheduled


def failed(wait, error=None):
    return RetryScheduled(attempt=1, wait=wait, error=error or ServerError("down", status=503))


GOOD = AttemptEnded(texts=1, attempt=1, id=1, status=200, seconds=0.1)


def lines(script):
    """What is said, with its time, of events at their times."""
    clock = [0.0]
    trouble = Trouble(lambda: clock[0])
    said = []
    for at, event in script:
        clock[0] = at
        if line := trouble.line(event):
            said.append((at, line))
    return said


def test_a_dead_provider_is_told_within_seconds():
    """Retries of the usual backoff: the line comes after the second or third, with the reason and the next try."""
    script = [(0.1, failed(0.5)), (0.7, failed(1.1)), (1.9, failed(2.0)), (4.0, failed(4.1)), (8.2, failed(8.0))]

    assert lines(script) == [(1.9, "3 requests have failed in a row (down (status 503)); the next is sent in 2 s")]


def test_a_long_wait_is_told_at_once():
    """A server that asks for twenty seconds is named before they begin."""
    assert lines([(0.1, failed(20.0))]) == [(0.1, "1 request has failed (down (status 503)); the next is sent in 20 s")]


def test_one_failure_among_good_answers_is_no_news():
    """A refusal now and then, tried again at once, is what retries are for."""
    script = [(second / 2, GOOD if second % 4 else failed(0.7)) for second in range(400)]

    assert lines(script) == []


def test_its_end_is_told_once():
    """After the line, the first good answer says so; the next ones do not."""
    script = [
        (1.0, failed(9.0, TransportError("reset"))),
        (10.0, GOOD),
        (10.1, GOOD),
        (11.0, failed(0.1)),
        (11.2, GOOD),
    ]

    assert [line for _, line in lines(script)] == [
        "1 request has failed (reset); the next is sent in 9 s", "requests are answered again",
    ]  # fmt: skip


def test_requests_are_counted():
    """A job that is stopped knows whether anything has left."""
    trouble = Trouble(lambda: 0.0)
    trouble.line(RequestSent(texts=1, attempt=1))

    assert trouble.sent == 1


@given(st.lists(st.tuples(st.floats(0, 5), st.one_of(st.just(GOOD), st.floats(0, 100).map(failed))), max_size=200))
def test_it_never_floods(script):
    """Whatever happens: two lines in half a minute at most, and a reason of one line."""
    at, timed = 0.0, []
    for pause, event in script:
        at += pause
        timed.append((at, event))
    said = [when for when, line in lines(timed) if line.startswith(tuple("0123456789"))]

    assert all(later - earlier >= EVERY for earlier, later in pairwise(said))
    assert len(lines(timed)) <= 2 * (at // EVERY + 1)
