"""Looking through an input: rows, bad rows, tokens about, and a digest that does not depend on the blocks."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as some

from embedkit import ConfigError
from embedkit._bulk.contract import Block, RowDigest
from embedkit._bulk.sources.scan import EXAMPLES, scan


def looked(blocks, count_tokens=len):
    return scan(blocks, count_tokens, count().__next__, "in.txt", 7)


@given(some.lists(some.tuples(some.text() | some.none(), some.integers() | some.text())), some.integers(1, 5))
def test_the_digest_is_that_of_the_rows(rows, size):
    """However they are cut, with keys and without."""
    texts, keys = [text for text, _ in rows], [key for _, key in rows]
    for known in (None, keys):
        digest = RowDigest()
        digest.update(texts, known)
        blocks = [
            Block(texts[start : start + size], [{}] * size, {}, None if known is None else known[start : start + size])
            for start in range(0, len(rows), size)
        ]
        assert looked([block for block in blocks if None not in block.texts] or []).bad == 0
        faulty = [
            Block(
                block.texts, block.records, {at: "x" for at, text in enumerate(block.texts) if text is None}, block.keys
            )
            for block in [*blocks, Block(["good"], [{}], {}, None if known is None else ["k"])]
        ]
        digest.update(["good"], None if known is None else ["k"])
        found = looked(faulty)
        assert (found.digest, found.rows, found.bad) == (digest.hex(), len(rows) + 1, texts.count(None))


def test_what_it_tells():
    """The first few bad rows; bytes and seconds as they are given."""
    faults = {row: f"why {row}" for row in range(0, 18, 2)}
    found = looked([Block(["ab" if row % 2 else None for row in range(20)], [{}] * 20, faults)])

    assert (found.rows, found.bad, found.bytes, found.seconds, found.tokens) == (20, 9, 7, 1, 20)
    assert found.examples == {row: f"why {row}" for row in range(0, 2 * EXAMPLES, 2)}


def test_tokens_of_a_large_input_are_estimated_from_a_part():
    """A counter that takes its time is asked for one block in sixteen; equal texts give the exact sum."""
    asked = []
    found = looked([Block(["four"] * 10, [{}] * 10)] * 1_600, lambda text: asked.append(text) or 2)

    assert found.tokens == 32_000
    assert len(asked) < 1_600


def test_no_row_that_can_be_used_is_refused():
    """With the first reason; no rows at all are none."""
    with pytest.raises(ConfigError, match=r"in.txt: no row has a text that can be used; row 3, why"):
        looked([Block([None], [{}], {3: "why"})])
    assert looked([]).rows == 0
