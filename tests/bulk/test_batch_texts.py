"""Which texts of a chunk are sent, in which lines, and how they lie on disk."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit._batching.plan import estimate
from embedkit._bulk.provider_batch import texts as batch_texts
from embedkit._bulk.provider_batch.texts import (
    answer_lines,
    key_of,
    line_of,
    lines_of,
    placed,
    read_lines,
    read_places,
    read_texts,
    write_lines,
    write_places,
)
from embedkit._types import Limits

TEXTS = st.lists(st.one_of(st.none(), st.text(max_size=5), st.sampled_from(["a", "b", "", "\ud800"])), max_size=40)


@given(rows=TEXTS, accepts_empty=st.booleans())
def test_every_row_is_sent_once_or_has_a_fault(rows, accepts_empty):
    """A row has the place of its own text, or a fault that names it; no text has two places."""
    found = placed(rows, accepts_empty=accepts_empty)

    assert len(found.of) == len(rows)
    assert len(set(found.texts)) == len(found.texts)
    for row, text in enumerate(rows):
        if row in found.faults:
            assert found.of[row] == -1
            assert found.faults[row].rows == (row,)
            assert text is None or (text == "" and not accepts_empty) or any(0xD800 <= ord(c) < 0xE000 for c in text)
        else:
            assert found.texts[found.of[row]] == text


@given(
    texts=st.lists(st.text("ab ", min_size=1, max_size=60), max_size=40),
    most_texts=st.integers(1, 5),
    most_tokens=st.integers(1, 30),
    most=st.one_of(st.none(), st.integers(1, 10)),
    start=st.integers(0, 9),
)
def test_lines_cover_every_place_once_within_the_limits(texts, most_texts, most_tokens, most, start):
    """Lines are in order and touch; none is over the limits unless it is one text; one that is too long stands alone."""
    limits = Limits(max_texts=most_texts, max_tokens=most_tokens)
    lines = list(lines_of(texts, limits, estimate, most, start))

    assert [place for line in lines for place in range(*line)] == list(range(start, start + len(texts)))
    for first, stop in lines:
        tokens = [estimate(text) for text in texts[first - start : stop - start]]
        assert len(tokens) == 1 or (len(tokens) <= most_texts and sum(tokens) <= most_tokens)
        if most is not None and len(tokens) > 1:
            assert max(tokens) <= most


@settings(max_examples=30)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), max_size=20), data=st.data())
def test_texts_come_back_from_disk(tmp_path_factory, texts, data):
    """Any lines of the texts, in order, are read as they were written, line breaks and all."""
    path = tmp_path_factory.mktemp("t") / "a.texts"
    texts = placed(texts, accepts_empty=True).texts
    write_places(path, placed(texts, accepts_empty=True))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(texts)), max_size=6)))
    lines = list(zip(cuts[::2], cuts[1::2], strict=False))

    assert list(read_texts(path, lines)) == [texts[first:stop] for first, stop in lines]


@settings(max_examples=30)
@given(rows=TEXTS, other=TEXTS)
def test_rows_come_back_from_disk(tmp_path_factory, rows, other):
    """The rows are known again from what was written, and so is their digest, which tells other rows from them."""
    path = tmp_path_factory.mktemp("t") / "a.texts"
    places = placed(rows, accepts_empty=False)
    write_places(path, places)
    read = read_places(path)

    sent = [None if row in places.faults else text for row, text in enumerate(rows)]
    assert read.rows(len(rows)) == sent
    assert read.rows(2) == sent[:2]
    assert read.digest() == places.digest()
    others = placed(other, accepts_empty=False)
    assert (others.digest() == places.digest()) == (others.rows(len(other)) == sent)


def test_keys_name_their_lines(tmp_path):
    """A key is read as the line it was made of, and nothing else is."""
    lines = [(0, 32), (32, 33), (999_999_998, 999_999_999)]
    write_lines(tmp_path / "lines", lines)

    assert read_lines(tmp_path / "lines") == lines
    assert [line_of(key_of(line)) for line in lines] == lines
    for key in ("", "1", "1-", "-1", "1-2-3", "a-b", " 1-2", "1-2\n", "9999999999-1", "١-٢"):
        assert line_of(key) is None


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path):
    """A failure half-way leaves nothing under the name, and what had it before stays."""
    path = tmp_path / "f"
    path.write_text("before")
    with pytest.raises(RuntimeError), batch_texts.whole_file(path) as file:
        file.write(b"half")
        raise RuntimeError

    assert path.read_text() == "before"


def test_it_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """The bytes are synced before the rename, and the folder after it."""
    done = []
    sync = batch_texts.os.fsync
    monkeypatch.setattr(batch_texts.os, "fsync", lambda fd: (done.append((tmp_path / "f").exists()), sync(fd)))
    write_lines(tmp_path / "f", [(0, 1)])

    assert done == [False, True]


def test_a_line_without_end_is_read_in_pieces(tmp_path, monkeypatch):
    """A file of one endless line never is in memory as a whole."""
    monkeypatch.setattr(batch_texts, "LONGEST", 10)
    (tmp_path / "a").write_bytes(b"x" * 25 + b"\n\n  \nshort\n")

    assert list(answer_lines(tmp_path / "a")) == [b"x" * 10, b"x" * 10, b"xxxxx\n", b"short\n"]
