"""What is found out of a finished job: in one pass, in bounded memory, whatever the vectors are."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import embedkit._bulk.embedded
import embedkit._review.sample
from embedkit._bulk.embedded import Block
from embedkit._review.facts import reviewed
from embedkit._review.failures import kinds
from embedkit._review.plane import plane
from embedkit._review.rates import rates
from embedkit._review.sample import sampled
from embedkit._types import array_of

DTYPES = ["float32", "int8", "uint8", "binary", "ubinary"]


def cut(rows, each):
    return [Block(start, rows[start : start + each]) for start in range(0, len(rows), each)]


def matrix(dtype, rows, width, seed=3):
    random = np.random.default_rng(seed)
    if dtype == "float32":
        return random.normal(size=(rows, width)).astype(np.float32)
    low = 0 if dtype in ("uint8", "ubinary") else -128
    return random.integers(low, low + 256, (rows, width)).astype(array_of(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_blocks_change_nothing(dtype, each, width, seed):
    """However rows are cut into blocks, the same ones are drawn and the same figures found."""
    rows = matrix(dtype, 97, width, seed)
    rows[50:60] = rows[3]
    whole, parts = (sampled(blocks, width, dtype, 0) for blocks in (cut(rows, 97), cut(rows, each)))

    assert whole.numbers.tolist() == parts.numbers.tolist()
    assert np.array_equal(whole.vectors, parts.vectors)
    assert (whole.rows, whole.missing, whole.zeros, whole.equals) == (
        parts.rows, parts.missing, parts.zeros, parts.equals,
    )  # fmt: skip
    assert (whole.sizes.least, whole.sizes.most) == (parts.sizes.least, parts.sizes.most)
    assert whole.sizes.mean == pytest.approx(parts.sizes.mean)


def test_a_sample_is_of_all_rows(monkeypatch):
    """Each row has the same chance, at the beginning, in the middle and at the end, and none is drawn twice."""
    monkeypatch.setattr(embedkit._review.sample, "ROWS", 100)
    rows = np.arange(1, 1001, dtype=np.float32)[:, None]
    drawn = np.array([sampled(cut(rows, 64), 1, "float32", seed).numbers for seed in range(60)])

    assert drawn.shape == (60, 100)
    assert all(len(set(each)) == 100 for each in drawn.tolist())
    counts = np.histogram(drawn, 10, (0, 1000))[0]
    assert abs(counts - 600).max() < 120  # five standard deviations
    sample = sampled(cut(rows, 64), 1, "float32", 7)
    assert sample.vectors[:, 0].tolist() == (sample.numbers + 1).tolist()


@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.integers(1, 60), st.sampled_from(DTYPES))
@settings(max_examples=60, deadline=None)
def test_equal_vectors_are_counted(values, each, dtype):
    """Rows that share their vector are counted exactly, with the first and the last of a group, in every type."""
    rows = matrix(dtype, 7, 5)[values]
    found = sampled(cut(rows, each), 5, dtype, 0).equals
    groups = {value: [row for row, other in enumerate(values) if other == value] for value in set(values)}
    several = sorted((places for places in groups.values() if len(places) > 1), key=lambda each: (-len(each), each))

    assert (found.exact, found.rows, found.groups) == (True, sum(map(len, several)), len(several))
    assert [(group.rows, group.first, group.last) for group in found.largest] == [
        (len(places), places[0], places[-1]) for places in several[:10]
    ]


def test_too_many_vectors_are_counted_by_a_share_of_them(monkeypatch):
    """Beyond what is told apart, a random share of the vectors stands for all: near the truth, in bounded memory."""
    monkeypatch.setattr(embedkit._review.sample, "DISTINCT", 2000)
    rows = matrix("float32", 20_000, 4)
    rows[10_000:15_000] = rows[:5000]  # a half of all rows share their vector with one other
    found = sampled(cut(rows, 777), 4, "float32", 0).equals

    assert not found.exact
    assert found.rows == pytest.approx(10_000, rel=0.15)
    assert found.groups == pytest.approx(5000, rel=0.15)


def test_rows_without_a_vector_are_in_no_figure():
    """NaN, infinite and null rows are counted as missing, and neither drawn nor measured."""
    rows = matrix("float32", 50, 4)
    rows[3], rows[7, 2] = np.nan, np.inf
    there = np.ones(50, bool)
    there[9] = False
    found = sampled([Block(0, rows, there)], 4, "float32", 0)

    assert (found.rows, found.missing, len(found.numbers)) == (50, 3, 47)
    assert not {3, 7, 9} & set(found.numbers.tolist())
    assert np.isfinite([found.sizes.least, found.sizes.mean, found.sizes.most]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_sizes_are_lengths_or_shares_of_ones(dtype):
    """The length in double precision; of packed bits the share of ones, whichever way they are packed."""
    rows = matrix(dtype, 30, 6)
    found = sampled(cut(rows, 7), 6, dtype, 0)
    wide = rows.astype(float) - (128 if dtype == "uint8" else 0)
    if dtype in ("binary", "ubinary"):
        bits = (rows.astype(int) + (128 if dtype == "binary" else 0)).astype(np.uint8)
        expected = np.unpackbits(bits, axis=1).mean(axis=1)
    else:
        expected = np.linalg.norm(wide, axis=1)

    assert found.sizes.least == pytest.approx(expected.min())
    assert found.sizes.mean == pytest.approx(expected.mean())
    assert found.lengths == pytest.approx(expected[found.numbers])


@given(st.lists(st.tuples(st.floats(0.001, 1e4), st.integers(0, 10_000), st.integers(0, 9)), min_size=1, max_size=200))
@settings(max_examples=60, deadline=None)
def test_rates_add_up(steps):
    """Rate times time, over all parts, is what the job has done; parts are equal, and 60 at most."""
    seconds, rows, retries = (np.cumsum(each) for each in zip(*steps, strict=True))
    found = rates([(float(s), int(r), int(r) * 3, int(t)) for s, r, t in zip(seconds, rows, retries, strict=True)])
    part = found[0].until

    assert len(found) == min(60, len(steps))
    assert found[-1].until == pytest.approx(seconds[-1])
    assert sum(each.rows for each in found) * part == pytest.approx(rows[-1])
    assert sum(each.tokens for each in found) * part == pytest.approx(rows[-1] * 3)
    assert sum(each.retries for each in found) == pytest.approx(retries[-1])


@pytest.mark.parametrize("series", [[], [(0.0, 5, 5, 0)], [(0.0, 0, None, 0), (0.0, 9, None, 0)]])
def test_no_time_has_no_rates(series):
    """A job without checkpoints, or without any time between them, has none."""
    assert rates(series) == []


def test_tokens_that_nobody_counts_have_no_rate():
    """Where the provider says no tokens, rows per second are all there is."""
    assert [(each.rows, each.tokens) for each in rates([(1.0, 4, None, 0), (2.0, 8, None, 0)])] == [
        (4, None),
        (4, None),
    ]


@pytest.mark.parametrize(
    "reasons",
    [
        ["line 3: 'text' is null, which is no string", "line 14: 'text' is null, which is no string"],
        ["a.jsonl, line 3: 'text' is null", "b, c.jsonl, line 3: 'text' is null"],
        ["m: 301, 366, … tokens, and the model takes 256", "m: 1,270 tokens, and the model takes 256"],
        ["no (request req_0a1b2c3d4e)", "no (request req_99ffaa0011)"],
        ["Invalid input 'abc' in \"x\"", "Invalid input 'de' in \"yy\""],
        ["400: bad id 6f9619ff-8b86-d011-b42d-00cf4fc964ff", "400: bad id 00000000-1111-2222-3333-444455556666"],
    ],
)
def test_reasons_of_one_kind(tmp_path, reasons):
    """Reasons that differ only in place, numbers, ids or quoted words are one kind; another reason is another."""
    lines = [{"row": row, "key": None, "reason": reason} for row, reason in enumerate([*reasons, "quite another"])]
    path = tmp_path / "f.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")

    assert [(kind.rows, kind.examples) for kind in kinds(path)[0]] == [(2, [0, 1]), (1, [2])]


def test_a_list_of_failures_that_grew_out_of_hand(tmp_path):
    """Lines that cannot be read are counted, long reasons cut, and kinds beyond a number of them put together."""
    path = tmp_path / "f.jsonl"
    with path.open("w", encoding="utf-8") as file:
        file.write("no json\n\n[1]\n")
        for row in range(1500):
            letters = "".join(chr(ord("g") + int(digit)) for digit in str(row))
            file.write(json.dumps({"row": row, "reason": letters + " z" * 2000}) + "\n")
    found, unread = kinds(path)

    assert unread == 2
    assert (len(found), sum(kind.rows for kind in found), found[0].rows) == (1001, 1500, 500)
    assert max(len(kind.reason) for kind in found) <= 300


@given(st.integers(1, 30), st.integers(1, 30), st.sampled_from(DTYPES))
@settings(max_examples=50, deadline=None)
def test_the_map_is_that_of_a_singular_value_decomposition(count, width, dtype):
    """Distances along the two axes are those of the two largest singular values, with fewer rows than width, too."""
    rows = matrix(dtype, count, width, count)
    found = plane(rows, dtype)
    wide = rows.astype(float) - (128 if dtype == "uint8" else 0)
    if dtype in ("binary", "ubinary"):
        bits = (rows.astype(int) + (128 if dtype == "binary" else 0)).astype(np.uint8)
        wide = np.unpackbits(bits, axis=1) * 2.0 - 1
    else:
        lengths = np.linalg.norm(wide, axis=1, keepdims=True)
        wide = np.divide(wide, lengths, where=lengths > 0, out=np.zeros_like(wide))
    values = np.linalg.svd(wide - wide.mean(axis=0), compute_uv=False)
    expected = np.zeros(2)
    expected[: min(2, len(values))] = values[:2]

    assert found.places.shape == (count, 2)
    assert np.linalg.norm(found.places, axis=0) == pytest.approx(expected, rel=1e-3, abs=1e-2)
    assert 0 <= sum(found.explained) <= 1 + 1e-6


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    """A file of many blocks takes a small part of its size, its long texts included."""
    monkeypatch.setattr(embedkit._bulk.embedded, "BLOCK", 1 << 20)
    monkeypatch.setattr(embedkit._review.sample, "ROWS", 200)
    rows = 10_000
    np.save(tmp_path / "v.npy", np.random.default_rng(1).normal(size=(rows, 600)).astype(np.float32))
    long = "x" * 2000 + "\n"
    (tmp_path / "t.txt").write_text(long * rows, "utf-8")
    name = str(tmp_path / "v.npy")
    reviewed(name, texts=str(tmp_path / "t.txt"))  # what is loaded once is not counted
    tracemalloc.start()
    try:
        facts = reviewed(name, texts=str(tmp_path / "t.txt"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert facts.vectors.rows == rows
    assert facts.vectors.sample == 200
    assert peak < Path(name).stat().st_size / 2
