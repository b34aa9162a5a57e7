"""Answers in any order and of any quality become rows, and what is missing is known."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit._bulk.provider_batch.answers import TRIES, Answers, about_texts
from embedkit._types import Reply, Response
from embedkit.codec import Answer
from embedkit.errors import (
    AuthError,
    DecodeError,
    InvalidInputError,
    NotFoundError,
    QuotaError,
    ServerError,
    TooLargeError,
    TooLongError,
)

GOOD = Response(200, {}, b"")


class Read:
    """Reads the next of these errors, or rows whose values are their places (and so many wide)."""

    def __init__(self):
        self.error, self.bad, self.width, self.first = None, {}, 3, 0

    def __call__(self, response, count, out):
        if self.error is not None:
            return None, self.error
        rows = out(self.width)
        rows[:] = np.arange(self.first, self.first + count)[:, None]
        out.failures = dict(self.bad)
        return Reply(rows, "m", count), None


def made(tmp_path, count):
    read = Read()
    return Answers(count, tmp_path / "rows", "float32", read), read


def take(answers, read, line, *, error=None, bad=None, width=3):
    read.error, read.bad, read.width, read.first = error, bad or {}, width, line[0]
    answers.take(Answer(f"{line[0]}-{line[1]}", GOOD))


@given(
    cuts=st.sets(st.integers(1, 19), max_size=8),
    fates=st.lists(st.sampled_from(["good", "bad", "lost", "twice", "bad then good"]), min_size=20, max_size=20),
    order=st.randoms(),
)
def test_every_place_is_done_or_will_be_sent_again(tmp_path_factory, cuts, fates, order):
    """Whatever becomes of the lines, in whatever order: what came is in its row, and the rest is sent again, once each."""
    answers, read = made(tmp_path_factory.mktemp("a"), 20)
    edges = [0, *sorted(cuts), 20]
    lines = list(pairwise(edges))
    sent = [(line, fate) for line, fate in zip(lines, fates, strict=False) if fate != "lost"]
    order.shuffle(sent)
    answers.begin(lines, counted=True)
    for line, fate in sent:
        if fate.startswith("bad"):
            take(answers, read, line, error=ServerError("oh", retryable=True))
        for _ in range({"good": 1, "twice": 2, "bad then good": 1}.get(fate, 0)):
            take(answers, read, line)
    answers.end()
    verdict = answers.verdict(cuts=False)

    again = [place for line in verdict.again for place in range(*line)]
    there = [place for place in range(20) if answers.done[place]]
    assert sorted(again + there) == list(range(20))
    assert not verdict.failed
    assert not verdict.unsent
    for place in there:
        assert (answers.rows[place] == place).all()
    assert answers.tokens == (len(there) or None)


@pytest.mark.parametrize(
    ("error", "line", "again", "failed"),
    [
        (ServerError("x", retryable=True), (0, 2), [(0, 2)], []),
        (InvalidInputError("x"), (0, 2), [(0, 1), (1, 2)], []),
        (InvalidInputError("x"), (0, 1), [], [0]),
        (InvalidInputError("x", retryable=True), (0, 2), [(0, 2)], []),
        (TooLongError("x"), (0, 1), [], [0]),
        (TooLargeError("x"), (0, 2), [(0, 1), (1, 2)], []),
        (DecodeError("x"), (0, 2), [(0, 1), (1, 2)], []),
        (DecodeError("x"), (0, 1), [(0, 1)], []),
        (AuthError("x"), (0, 2), [(0, 2)], []),
        (QuotaError("x"), (0, 2), [(0, 2)], []),
        (NotFoundError("x"), (0, 2), [], [0, 1]),
    ],
)
def test_what_is_sent_again(error, line, again, failed, tmp_path):
    """What may pass by itself goes again as it was, what one text may have caused text by text, the rest fails."""
    answers, read = made(tmp_path, line[1])
    answers.begin([line], counted=True)
    take(answers, read, line, error=error)
    answers.end()
    verdict = answers.verdict(cuts=False)

    assert verdict.again == again
    assert sorted(verdict.failed) == failed


def test_a_text_too_long_is_sent_again_where_it_can_be_cut(tmp_path):
    """Cut shorter it may pass; the others of its line stay with it, each by itself."""
    answers, read = made(tmp_path, 2)
    answers.begin([(0, 2)], counted=True)
    take(answers, read, (0, 2), error=TooLongError("x"))
    answers.end()

    assert answers.verdict(cuts=True).again == [(0, 1), (1, 2)]
    assert answers.too_long(0)


def test_tries_are_bounded_and_can_be_forgiven(tmp_path):
    """A text is sent so many times; those of a run that was given up do not count."""
    for counted, left in ((True, []), (False, [(0, 1)])):
        answers, read = made(tmp_path, 1)
        for _ in range(TRIES):
            answers.begin([(0, 1)], counted=counted)
            take(answers, read, (0, 1), error=ServerError("x", retryable=True))
            answers.end()
        assert answers.verdict(cuts=False).again == left


def test_rows_that_cannot_be_used_are_sent_alone(tmp_path):
    """Of a line with one bad vector the others are kept."""
    answers, read = made(tmp_path, 3)
    answers.begin([(0, 3)], counted=True)
    take(answers, read, (0, 3), bad={1: DecodeError("NaN")})
    answers.end()

    assert answers.done.tolist() == [True, False, True]
    assert answers.verdict(cuts=False).again == [(1, 2)]


def test_a_width_that_gave_no_row_binds_nobody(tmp_path):
    """The width of the file is that of the first row that counts."""
    answers, read = made(tmp_path, 4)
    answers.begin([(0, 2), (2, 4)], counted=True)
    take(answers, read, (0, 2), width=5, bad={0: DecodeError("x"), 1: DecodeError("x")})
    take(answers, read, (2, 4), width=3)
    answers.end()

    assert answers.rows.shape == (4, 3)


def test_lines_of_others_are_counted_and_left(tmp_path):
    """A key that was not sent, or is none, changes nothing."""
    answers, _ = made(tmp_path, 4)
    answers.begin([(0, 2)], counted=True)
    for key in ("2-4", "0-1", "0-4", "x", ""):
        answers.take(Answer(key, GOOD))
    answers.end()

    assert answers.strange == 5
    assert not answers.done.any()
    assert answers.verdict(cuts=False).unsent == [(2, 4)]


def test_nothing_is_left_behind(tmp_path):
    """The file of the rows goes when they are let go."""
    answers, read = made(tmp_path, 1)
    answers.begin([(0, 1)], counted=True)
    take(answers, read, (0, 1))
    assert list(tmp_path.iterdir())
    answers.close()

    assert not list(tmp_path.iterdir())


def test_whose_fault_it_is():
    """Refused texts are the texts' fault; anything else among them is not."""
    assert about_texts([InvalidInputError("x"), TooLongError("x")])
    assert not about_texts([InvalidInputError("x"), ServerError("x")])
