"""The window: wider while all is well, narrower at any trouble, and never outside its bounds. Time is an argument."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit._traffic.concurrency import HOLD, LEAST, PATIENCE, ROUNDS, ConcurrencyLimit

DOINGS = st.lists(
    st.tuples(
        st.sampled_from(["answered", "refused", "late"]), st.floats(0, 30), st.floats(0, 60), st.integers(1, 200), st.integers(1, 40)
    ),
    max_size=60,
)  # fmt: skip


class Endpoint:
    """Fills a window round by round; an answer takes `latency(window.size)` seconds."""

    def __init__(self, window, latency=lambda size: 1.0):
        self.window = window
        self.latency = latency
        self.now = 0.0

    def round(self, *, full=True):
        """One round of answers; returns the size it was made with."""
        size, seconds = self.window.size, self.latency(self.window.size)
        self.now += seconds
        self.window.on_success(self.now, seconds, size if full else size - 1)
        while self.window._answers:
            self.window.on_success(self.now, seconds, size if full else size - 1)
        return size

    def rounds(self, count):
        return [self.round() for _ in range(count)]


def grown(size, *, ceiling=64, latency=lambda size: 1.0):
    """An endpoint whose window was cut at once, and so grows by one, from `size` on: it was never wider."""
    window = ConcurrencyLimit(2 * size, ceiling)
    window.on_timeout(0.0, 0.0)
    window._before = window._goal = 0
    window._sound = True
    return Endpoint(window, latency)


@given(st.integers(1, 64), st.integers(0, 64), DOINGS)
def test_the_window_keeps_within_its_bounds(start, more, doings):
    """Whatever happens in whatever order, the size is a whole number between 1 and the ceiling."""
    window, now = ConcurrencyLimit(start, start + more), 0.0
    for what, pause, seconds, busy, times in doings:
        now += pause
        for _ in range(times):
            if what == "answered":
                window.on_success(now, seconds, busy)
            elif what == "refused":
                window.on_rejected(now, now - seconds, busy)
            else:
                window.on_timeout(now, now - seconds)

            assert type(window.size) is int
            assert 1 <= window.size <= start + more


@given(st.integers(1, 64), DOINGS)
def test_trouble_never_widens(start, doings):
    """A refusal or a timeout never makes the window wider, whatever came before."""
    window, now = ConcurrencyLimit(start, 64), 0.0
    for what, pause, seconds, busy, times in doings:
        now += pause
        before = window.size
        if what == "answered":
            for _ in range(times):
                window.on_success(now, seconds, busy)
        elif what == "refused":
            window.on_rejected(now, now - seconds, busy)

            assert window.size <= before or window._kept == 0
        else:
            window.on_timeout(now, now - seconds)

            assert window.size <= before


# --- growth ----------------------------------------------------------------------------------------------------------


def test_it_doubles_until_the_ceiling():
    """Full rounds of answers that stay fast double the window, and the ceiling ends that."""
    endpoint = Endpoint(ConcurrencyLimit(8, 50))

    assert endpoint.rounds(5) == [8, 16, 32, 50, 50]


def test_after_trouble_it_grows_by_one():
    """Once anything was cut, a full round adds one."""
    assert grown(4).rounds(4) == [4, 5, 6, 7]


@pytest.mark.parametrize("quick", [True, False])
def test_what_is_not_filled_does_not_grow(quick):
    """A round in which fewer were in flight than might be shows nothing, and changes nothing."""
    endpoint = Endpoint(ConcurrencyLimit(8, 64)) if quick else grown(8)
    for _ in range(5):
        endpoint.round(full=False)

    assert endpoint.window.size == 8


@pytest.mark.parametrize(("size", "answers"), [(1, LEAST), (LEAST, LEAST), (40, 40)])
def test_a_round_is_as_many_answers_as_fit_and_never_a_few(size, answers):
    """The window changes after as many answers as it is wide, but not after so few that their mean says nothing."""
    window = ConcurrencyLimit(size, 64)
    for _ in range(answers - 1):
        window.on_success(1.0, 1.0, size)

    assert window.size == size
    assert window.seconds == 0.0

    window.on_success(1.0, 1.0, size)

    assert window.size > size
    assert window.seconds == 1.0


# --- refusals and timeouts -------------------------------------------------------------------------------------------


def test_the_first_refusal_halves_what_was_in_flight():
    """While it doubles it may be far too wide; afterwards a tenth is given up. What was in flight counts, if that was
    less.
    """
    window = ConcurrencyLimit(40, 64)
    window.on_rejected(1.0, 1.0, 33)

    assert window.size == 16

    window.on_rejected(2.0, 2.0, 99)

    assert window.size == 14


def test_a_timeout_halves():
    """A timeout halves the window every time, down to one."""
    window, sizes = ConcurrencyLimit(40, 64), []
    for moment in range(1, 8):
        window.on_timeout(float(moment), float(moment))
        sizes.append(window.size)

    assert sizes == [20, 10, 5, 2, 1, 1, 1]


@pytest.mark.parametrize("what", ["refused", "late"])
def test_requests_sent_before_a_cut_say_nothing_new(what):
    """Of all that were under way when the window was cut, one counts; one sent at that moment or later counts again."""
    window = ConcurrencyLimit(40, 64)

    def trouble(sent):
        window.on_rejected(10.0, sent, 40) if what == "refused" else window.on_timeout(10.0, sent)
        return window.size

    assert [trouble(sent) for sent in (8.0, 8.5, 9.0, 9.999)] == [20] * 4
    assert trouble(10.0) < 20


def test_a_wall_is_touched_only_now_and_then():
    """Below the size that was refused it settles one short of it, and tries it again after so many answers."""
    endpoint = grown(20)
    endpoint.window._calm = 0  # there was a refusal not long ago
    endpoint.window.on_rejected(1.0, 1.0, 20)
    held = -(-PATIENCE // 19)

    assert endpoint.rounds(1 + held + 1) == [18, *[19] * held, 20]


def test_a_wall_that_is_gone_is_forgotten():
    """When the wall is passed without a refusal, growth goes on as before."""
    endpoint = grown(10)
    endpoint.window.on_rejected(1.0, 1.0, 10)
    sizes = endpoint.rounds(40)

    assert sizes[-4:] == [sizes[-1] - 3, sizes[-1] - 2, sizes[-1] - 1, sizes[-1]]
    assert sizes[-1] > 20


def test_a_refusal_with_one_in_flight_leaves_one():
    """There is no narrower window than one, and from there it grows again."""
    endpoint = Endpoint(ConcurrencyLimit(1, 64))
    endpoint.window.on_rejected(1.0, 1.0, 1)

    assert endpoint.window.size == 1
    assert max(endpoint.rounds(PATIENCE)) > 1


@pytest.mark.parametrize("what", ["refused", "late"])
def test_trouble_at_one_at_a_time_takes_nothing_of_the_old_width(what):
    """A minute in which everything fails: once answers are good again, the width is won back by doubling, however often
    it failed.
    """
    endpoint = Endpoint(ConcurrencyLimit(48, 64))
    endpoint.rounds(3)
    width = endpoint.window.size
    for _ in range(400):
        endpoint.now += 0.15
        window, now = endpoint.window, endpoint.now
        window.on_rejected(now, now, 1) if what == "refused" else window.on_timeout(now, now)

    assert endpoint.window.size == 1

    sizes = endpoint.rounds(12)

    assert max(sizes) >= width // 2


def test_half_of_all_failing_is_no_new_width():
    """A few good answers in a row among as many failures do not make a width of one the known one: the old one is won
    back by doubling.
    """
    chance, endpoint = random.Random(1), Endpoint(ConcurrencyLimit(48, 64))
    endpoint.rounds(3)
    width = endpoint.window.size
    for _ in range(600):
        endpoint.now += 0.1
        if chance.random() < 0.5:
            endpoint.window.on_success(endpoint.now, 0.1, endpoint.window.size)
        else:
            endpoint.window.on_rejected(endpoint.now, endpoint.now - 0.1, endpoint.window.size)

    assert endpoint.window.size <= 4

    sizes = endpoint.rounds(20)

    assert max(sizes) >= width // 4


# --- latency ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("knee", [1, 4, 12, 24, 40])
def test_a_knee_is_found(knee):
    """Where answers take longer in proportion to what is in flight beyond a knee, it ends at the knee or little
    above.
    """
    endpoint = Endpoint(ConcurrencyLimit(8, 64), lambda size: max(1.0, size / knee))
    sizes = endpoint.rounds(6 * ROUNDS)
    steady = [size for size in sizes[ROUNDS:] if size > max(2, 0.6 * sizes[-1])]  # without the looks

    assert knee <= min(steady)
    assert max(steady) <= max(4, knee * HOLD + 2)


def test_slower_answers_stop_the_growth():
    """Answers that take half as long again as the best did: it neither grows nor shrinks."""
    endpoint = grown(20)
    endpoint.rounds(3)
    endpoint.window._rounds = 0  # the next look is far
    endpoint.latency = lambda size: 1.01 * HOLD

    assert endpoint.rounds(10) == [23] * 10


def test_an_endpoint_that_gets_slower_costs_one_look():
    """Where a quarter in flight is as slow, it was not the queue: the window comes back, and grows on from the new
    latency.
    """
    endpoint = grown(20)
    endpoint.rounds(2)
    endpoint.latency = lambda size: 4.0

    assert endpoint.rounds(6) == [22, 22, 5, 22, 23, 24]


def test_one_slow_round_is_a_hiccup():
    """A single round of late answers, whosever fault it is, changes nothing but the growth."""
    endpoint = grown(20)
    endpoint.rounds(2)
    sizes = []
    for _ in range(5):
        endpoint.latency = lambda size: 4.0
        sizes.append(endpoint.round())
        endpoint.latency = lambda size: 1.0
        sizes.append(endpoint.round())

    assert sizes == [22, 22, 23, 23, 24, 24, 25, 25, 26, 26]


def test_a_queue_is_shortened_and_looked_at_again():
    """Where fewer in flight are answered faster, the window shrinks in proportion; where by more than twice, the next
    look is soon.

    The look is made with a quarter, or with as many more as would do if all the delay were the queue's.
    """
    endpoint = grown(40)
    endpoint.rounds(2)
    endpoint.latency = lambda size: max(1.0, size / 8)
    sizes = endpoint.rounds(9)

    assert sizes == [42, 42, 10, int(42 * HOLD / 4.2), 16, 16, 8, int(16 * HOLD / 2), 13]


def test_looks_are_rare():
    """A queue that is not worth another look at once is looked into again after so many rounds."""
    endpoint = grown(20)
    endpoint.round()
    endpoint.latency = lambda size: 1.9 if size > 10 else 1.0
    sizes = endpoint.rounds(4 * ROUNDS)

    looks = [number for number, (before, size) in enumerate(itertools.pairwise(sizes), 1) if size < 0.6 * before]

    assert looks == [2, 4 + ROUNDS, 6 + 2 * ROUNDS, 8 + 3 * ROUNDS]


def test_answers_sent_before_a_look_are_not_part_of_it():
    """What was in flight already when the look began took its time in the queue, and says nothing of the endpoint
    without one.
    """
    endpoint = grown(20)
    endpoint.round()
    endpoint.latency = lambda size: 4.0
    endpoint.rounds(2)

    assert endpoint.window.size == 5

    for _ in range(20):
        endpoint.window.on_success(endpoint.now + 1.0, 3.0, 20)

    assert endpoint.window.size == 5

    for _ in range(LEAST // 2):
        endpoint.window.on_success(endpoint.now + 1.0, 1.0, 5)

    assert endpoint.window.size == int(21 * HOLD / 4.0)


def test_trouble_ends_a_look():
    """A refusal or a timeout ends the look; the old size is won back as after any trouble."""
    endpoint = grown(20)
    endpoint.round()
    endpoint.latency = lambda size: 4.0
    endpoint.rounds(2)
    endpoint.window.on_timeout(endpoint.now + 1.0, endpoint.now + 1.0)
    endpoint.latency = lambda size: 1.0

    assert endpoint.rounds(3) == [2, 3, 18]
    assert endpoint.window._kept == 0


def test_nothing_is_looked_into_unless_it_is_full():
    """Slow answers while fewer are in flight than might be are not its own doing."""
    endpoint = grown(20)
    endpoint.round()
    endpoint.latency = lambda size: 4.0
    for _ in range(5):
        endpoint.round(full=False)

    assert endpoint.window.size == 21


@pytest.mark.parametrize(("share", "kept"), [(0.9, True), (0.2, False)])
def test_a_delay_of_our_own_says_nothing(share, kept):
    """Answers that are late while this thread is at work leave the window as it is; late for another reason they make
    it look.
    """
    now, sizes = [0.0], set()
    window = ConcurrencyLimit(32, 32, lambda: share * now[0])
    for number in range(ROUNDS + 20):
        seconds = 1.0 if number < ROUNDS + 10 else 4.0
        now[0] += seconds
        for _ in range(32):
            window.on_success(now[0], seconds, 32)
            sizes.add(window.size)

    assert sizes == ({32} if kept else {8, 32})
