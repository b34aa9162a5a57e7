"""Blocks that wait on disk come back as they went, in any order of adding and taking, and leave nothing."""

from __future__ import annotations

import tracemalloc
from collections import deque

import anyio
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit._bulk import parked
from embedkit._bulk.contract import Block
from embedkit._bulk.feed import Feed
from embedkit._bulk.parked import ParkedBlocks
from embedkit._bulk.sources.rows import Line
from tests.support.jobs import Texts


def line(row):
    made = Line({"text": f"text {row}", "n": row})
    made.source = b'{"text": "text %d", "n": %d}' % (row, row)
    return made


def block(start, kind, count=3):
    rows = range(start, start + count)
    texts = [None if row % 5 == 0 else f"text {row}" for row in rows]
    faults = {row: "no text" for row in rows if row % 5 == 0}
    records = {
        "dicts": lambda: [{"text": f"text {row}", "at": (row, b"x")} for row in rows],
        "lines": lambda: [line(row) for row in rows],
        "arrow": lambda: pa.RecordBatch.from_pydict({"text": [f"text {row}" for row in range(99)]})[1 : 1 + count],
        "what pickle cannot write": lambda: [{"text": f"text {row}", "done": lambda: None} for row in rows],
    }[kind]()
    return Block(texts, records, faults, [f"k{row}" for row in rows])


KINDS = ["dicts", "lines", "arrow", "what pickle cannot write"]
STEPS = st.lists(st.one_of(st.sampled_from(KINDS), st.sampled_from(["take", "take", "look", "put back"])), max_size=40)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.sampled_from([1, 900, 10**6]))
def test_it_is_a_queue(tmp_path_factory, steps, segment):
    """Whatever is added, taken, looked at and put back, it holds what a deque would; with the last block goes the
    last file.
    """
    folder, whole = tmp_path_factory.mktemp("job"), deque()
    found, before = ParkedBlocks(folder), parked.SEGMENT
    parked.SEGMENT = segment
    try:
        for number, step in enumerate(steps):
            if step in KINDS:
                made = block(10 * number, step)
                whole.append(made)
                found.append(made)
            elif whole and step == "look":
                assert found[0] == whole[0]
            elif whole and step == "take":
                assert found.popleft() == whole.popleft()
            elif whole:
                found.appendleft(found.popleft())
            assert len(found) == len(whole)
            assert not list(folder.iterdir())  # no file has a name
        while whole:
            one, other = found.popleft(), whole.popleft()
            assert one == other
            assert [getattr(each, "source", None) for each in one.records if isinstance(each, dict)] == [
                getattr(each, "source", None) for each in other.records if isinstance(each, dict)
            ]
        assert found._written is None
    finally:
        parked.SEGMENT = before
        found.close()


def test_files_go_as_their_blocks_are_taken(tmp_path, monkeypatch):
    """The room on disk is that of what waits, not of all that ever waited; closing lets go of the rest."""
    monkeypatch.setattr(parked, "SEGMENT", 2000)
    found, files = ParkedBlocks(tmp_path), []
    for number in range(50):
        found.append(block(number, "dicts", 20))
        files.append(found._waiting[-1].segment.file)
    for _ in range(40):
        found.popleft()

    assert len(set(map(id, files))) > 10
    assert [each.closed for each in files] == sorted((each.closed for each in files), reverse=True)
    assert sum(each.closed for each in files) >= 38
    found.close()
    assert all(each.closed for each in files)


def test_many_texts_on_their_way_take_no_memory(tmp_path):
    """60 MB of records that were handed out and not taken back: a feed whose blocks are parked holds a few of them."""
    count, size = 6_000, 10_000

    class Long(Texts):
        def blocks(self):
            for start in range(0, count, 100):
                texts = [f"{row:05}" + "x" * size for row in range(start, start + 100)]
                yield Block(texts, [{"text": text} for text in texts])

    async def sent_and_taken():
        feed = Feed(Long([]), waiting=ParkedBlocks(tmp_path))
        feed._aside = False
        sent = [int(text[:5]) async for text in feed.texts()]
        taken = []
        while len(taken) < count:
            taken += [int(text[:5]) for text in feed.take(min(count - len(taken), 256)).texts]
        feed.close()
        return sent, taken

    tracemalloc.start()
    sent, taken = anyio.run(sent_and_taken)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert sent == taken == list(range(count))
    assert peak < 20_000_000


def test_a_full_disk_names_the_folder(tmp_path, monkeypatch):
    """The error says where there is no room."""

    class Full:
        def __init__(self, **given):
            pass

        def seek(self, at):
            pass

        def write(self, data):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(parked, "TemporaryFile", Full)
    with pytest.raises(OSError, match="No space") as caught:
        ParkedBlocks(tmp_path).append(block(1, "dicts"))
    assert caught.value.filename == str(tmp_path)
