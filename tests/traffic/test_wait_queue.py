"""The queue discipline and the retry budget, as arithmetic. Time is an argument."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit import QueueFullError
from embedkit._traffic import wait_queue as module
from embedkit._traffic.retry_budget import FARTHEST, MOST, WELL, RetryBudget
from embedkit._traffic.wait_queue import CALLER, INTERVAL, NTH, RETRY, WORKER, Queue


class One:
    def __init__(self, name):
        self.name = name
        self.came, self.call = 0.0, 0


def queued(kind, count, *, start=0.0):
    queue = Queue()
    for number in range(count):
        queue.join(One(number), kind, start + number / 1000)
    return queue


def order(queue, now, *, retries=True):
    found = []
    while (one := queue.next(now, retries=retries)) is not None:
        found.append(one.name)
    return found


@pytest.mark.parametrize("kind", [CALLER, RETRY, WORKER])
def test_a_short_queue_is_served_in_order(kind):
    """Who came first is first while the queue does not stand."""
    assert order(queued(kind, 5), INTERVAL / 2) == [0, 1, 2, 3, 4]


def test_a_standing_queue_serves_the_fresh():
    """Once it has stood for an interval who came last is first, and every NTH turn is for who has waited longest."""
    found = order(queued(CALLER, NTH + 5), 1.0)

    assert found[:3] == [NTH + 4, NTH + 3, NTH + 2]
    assert found[NTH - 1] == 0


def test_every_other_retry_is_of_the_oldest_call():
    """However often it has been tried: a stream may wait for it, while its other parts are tried again too."""
    queue = Queue()
    for number in range(6):
        queue.join(One(number), RETRY, float(number), call=5 - number)

    assert order(queue, 10.0) == [5, 4, 3, 2, 1, 0]

    for number in range(6):
        queue.join(One(number), RETRY, float(number), call=number)

    assert order(queue, 10.0) == [5, 0, 4, 1, 3, 2]


def test_workers_are_served_in_order_and_after_callers():
    """A bulk call's own workers keep their order, however long they wait, and callers come before them."""
    queue = queued(WORKER, 3)
    queue.join(One("caller"), CALLER, 5.0)

    assert order(queue, 10.0) == ["caller", 0, 1, 2]


def test_nobody_starves():
    """However many callers come, a worker has its turn within NTH turns."""
    queue = queued(WORKER, 1)
    served = []
    for turn in range(NTH):
        queue.join(One(f"caller {turn}"), CALLER, 1.0 + turn)
        served.append(queue.next(1.0 + turn, retries=True).name)

    assert 0 in served


def test_retries_wait_for_the_budget():
    """Without leave they are passed over, and lose nothing by it."""
    queue = queued(RETRY, 2)

    assert order(queue, 0.01, retries=False) == []
    assert queue.size == 2
    assert order(queue, 0.01) == [0, 1]


def test_a_queue_beyond_its_bound_refuses_callers_only(monkeypatch):
    """The error says how many wait and what to do; workers and retries are let in."""
    monkeypatch.setattr(module, "MOST", 3)
    queue = queued(CALLER, 3)
    with pytest.raises(QueueFullError, match="3 calls wait"):
        queue.join(One("late"), CALLER, 1.0)
    queue.join(One("worker"), WORKER, 1.0)
    queue.join(One("retry"), RETRY, 1.0)

    assert queue.size == 5


@given(
    st.lists(st.tuples(st.sampled_from(["join", "next", "leave"]), st.integers(0, 2), st.integers(0, 9)), max_size=80)
)
def test_everyone_is_served_once_or_leaves(steps):
    """Nobody is lost and nobody served twice, whatever the order of things."""
    queue, waiting, now = Queue(), [], 0.0
    for what, kind, number in steps:
        now += 0.03
        if what == "join":
            waiting.append(One(number))
            queue.join(waiting[-1], kind, now)
        elif what == "leave" and waiting:
            queue.leave(waiting.pop(number % len(waiting)))
        elif what == "next":
            one = queue.next(now, retries=True)
            assert (one is None) == (not waiting)
            if one is not None:
                waiting.remove(one)

        assert queue.size == len(waiting)


# --- the budget ------------------------------------------------------------------------------------------------------


def spent(budget, now, flying=1):
    allowed = budget.allows(now, flying)
    if allowed:
        budget.spend(now)
    return allowed


def test_an_empty_budget_lets_one_try():
    """A few extra attempts at once, then one at a time, ever further apart, as long as nothing is on the way."""
    budget = RetryBudget()

    assert [spent(budget, 0.0) for _ in range(int(MOST) + 2)] == [True] * int(MOST) + [False] * 2
    assert spent(budget, 0.0, 0)
    assert not spent(budget, 0.0, 0)
    assert sum(spent(budget, second / 10, 0) for second in range(1, 101)) <= 10 / FARTHEST + 8


def test_good_answers_free_the_others():
    """Each adds its share, and a few in a row show the provider to be well; the next failure ends that."""
    budget = RetryBudget()
    while spent(budget, 0.0):
        pass
    for _ in range(WELL):
        budget.answered()

    assert all(spent(budget, 0.0) for _ in range(100))

    budget.failed(0.0)

    assert not spent(budget, 0.0)
