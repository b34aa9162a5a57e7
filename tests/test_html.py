"""A result as a notebook shows it."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np

from embedkit import Embeddings, InvalidInputError, Usage

EVIL = "<script>alert('&')</script>"


class Cells(HTMLParser):
    """The texts of an HTML table's cells, and the tags that there are."""

    def __init__(self, page):
        super().__init__()
        self.cells, self.tags, self.open = [], set(), []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.cells.append(data)


def test_it_says_what_it_is_and_what_it_took():
    """Shape, dtype, model, usage and cost, and how many rows failed."""
    result = Embeddings(np.zeros((1200, 32), np.int8), "m", Usage(34567, 8, 0.0123), dtype="binary")
    cells = Cells(result._repr_html_()).cells

    assert dict(zip(cells[1::2], cells[2::2], strict=True)) == {
        "texts": "1,200", "dimensions": "256", "dtype": "binary", "model": "m", "tokens": "34,567", "requests": "8",
        "cost": "$0.012300", "failed": "0",
    }  # fmt: skip


def test_it_shows_no_vector_and_not_every_failure():
    """A large result is a small page: the first failures with their rows, and how many more there are."""
    failures = {row: InvalidInputError(f"bad {row}") for row in range(500)}
    page = Embeddings(np.full((100_000, 8), 0.123456, np.float32), "m", failures=failures)._repr_html_()

    assert len(page) < 3000
    assert "0.123" not in page
    assert "row 4" in page
    assert "row 5<" not in page
    assert "495 more" in page


def test_what_others_wrote_is_escaped():
    """A model's name and an error's words are text, whatever stands in them."""
    page = Embeddings(np.zeros((1, 2), np.float32), EVIL, failures={0: InvalidInputError(EVIL)})._repr_html_()
    found = Cells(page)

    assert found.tags == {"table", "caption", "tr", "th", "td"}
    assert found.open == []
    assert found.cells.count(EVIL) == 1
    assert [each for each in found.cells if each != EVIL and EVIL in each]


def test_what_nobody_said_is_told_as_such():
    """A result without model, tokens and cost, and one without rows."""
    cells = Cells(Embeddings(np.zeros((0, 0), np.float32), "", Usage())._repr_html_()).cells

    assert {"not named", "not reported", "not known"} < set(cells)
