"""What an embedder finds out: remembered by it, left out of copies and pickles, the same for all threads."""

from __future__ import annotations

import copy
import pickle
import threading

import pytest

from embedkit import DecodeError, Limits, Options
from embedkit._embedders.learned import MAX_WIDTHS, Learned, OnFirstUse, lasting, option_key
from embedkit._loops import PerLoop


class Holder:
    learned = OnFirstUse(Learned)


def test_limits_are_never_wider_than_those_given():
    """A refusal narrows the limits, and those given stay where they are narrower."""
    learned = Learned()
    learned.add_limits(Limits(max_texts=8, max_tokens=1000))

    assert Learned().limits(Limits(max_texts=3)) == Limits(max_texts=3)
    assert learned.limits(Limits(max_texts=3)) == Limits(max_texts=3, max_tokens=1000)
    assert learned.limits(Limits()) == Limits(max_texts=8, max_tokens=1000)


def test_the_first_width_holds():
    """The width of a set of options is the first seen; another one is an error, none says nothing."""
    learned, key = Learned(), option_key(Options())
    learned.add_width(key, 8)
    learned.add_width(key, None)

    assert learned.widths.get(key) == 8
    with pytest.raises(DecodeError, match="this call got 4 values per row, another one under the same options 8"):
        learned.add_width(key, 4)


def test_many_options_are_not_all_remembered():
    """The memory is bounded, and what it holds is kept."""
    learned = Learned()
    for number in range(MAX_WIDTHS + 5):
        learned.add_width(str(number).encode(), 8)

    assert learned.widths.get(b"0") == 8
    assert learned.widths.get(str(MAX_WIDTHS).encode()) is None


def test_the_key_of_standing_options_is_made_once():
    """Options that most calls have are written as JSON once; those with `extra` every time, for what is in it may
    change.
    """
    learned, standing, extra = Learned(), Options(dtype="int8"), Options(extra={"user": "a"})

    assert learned.key(standing, standing) is learned.key(standing, standing)
    assert learned.key(extra, extra) == option_key(extra)
    assert learned.key(Options(), standing) == option_key(Options())


def test_one_for_all_threads():
    """Threads that ask at once for the first time get the same object."""
    for _ in range(50):
        holder, found, start = Holder(), [], threading.Barrier(8)

        def ask(holder=holder, found=found, start=start):
            start.wait(10)
            found.append(holder.learned)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()

        assert len(set(map(id, found))) == 1


@pytest.mark.parametrize("travel", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])  # noqa: S301 (our own)
def test_what_was_learned_does_not_travel(travel):
    """A copy and a pickle know nothing."""
    learned = Learned()
    learned.add_width(b"key", 8)
    learned.add_limits(Limits(max_texts=1))
    twin = travel(learned)

    assert (twin.widths.get(b"key"), twin.limits(Limits())) == (None, Limits())


def test_only_configuration_lasts():
    """What was learned, what runs and what belongs to a loop is left out by its type; what a class makes anew, by
    name.
    """
    assert lasting({"model": "m", "_learned": Learned(), "_queues": PerLoop(), "_pid": 7}, "_pid") == {"model": "m"}
