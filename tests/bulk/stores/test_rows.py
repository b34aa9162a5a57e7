"""What is written of a row: keys, digests, records as JSON."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit._bulk.sources.fields import Fields
from embedkit._bulk.stores.rows import Rows, joined, json_text, key_text, runs, stored_keys, texts_of, unpacked_sign
from embedkit.codec.vector_math import quantize
from embedkit.errors import ConfigError


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), min_size=1, max_size=5), min_size=1, max_size=4
    )
)
def test_of_equal_keys_the_last_row_is_left(writes):
    """However the rows are cut into writes and pieces, and whatever its records are kept in."""
    parts, number, expected = [], 0, {}
    for at, write in enumerate(writes):
        keys = [key for key, _ in write]
        records = [{"n": number + place} for place in range(len(keys))]
        pieces = [records[:1], records[1:]] if at % 2 else [pa.RecordBatch.from_pylist(records)]
        vectors = np.arange(number, number + len(keys), dtype=np.float32)[:, None]
        parts.append(
            Rows(keys, vectors, [None] * len(keys), [str(n) for n in range(number, number + len(keys))], pieces)
        )
        expected |= {key: number + place for place, key in enumerate(keys)}
        number += len(keys)
    rows = joined(parts)
    numbers = [
        value["n"] for piece in rows.pieces for value in (piece if isinstance(piece, list) else piece.to_pylist())
    ]

    assert dict(zip(rows.keys, rows.vectors[:, 0].tolist(), strict=True)) == expected
    assert dict(zip(rows.keys, map(int, rows.digests), strict=True)) == expected
    assert dict(zip(rows.keys, numbers, strict=True)) == expected


@settings(deadline=None, max_examples=50)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=6,
    )
)
def test_every_value_is_json(value):
    """UTF-8, and what JSON has no word for is null."""
    json.loads(json_text(value).decode(), parse_constant=pytest.fail)


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters()) | st.integers() | st.floats() | st.booleans())
def test_every_key_is_text(key):
    """It can be written as UTF-8, and is the same each time."""
    assert key_text(key).encode() or key == ""
    assert key_text(key) == key_text(key_text(key))


def test_rows_without_a_key_are_named():
    """By their number in the input; failed ones are left out."""
    assert stored_keys(["a", None, 3], {1: "bad"}, 10) == (["a", "3"], [0, 2])
    with pytest.raises(ConfigError, match="row 11: its key is null"):
        stored_keys(["a", None, 3], {}, 10)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (Fields("t"), ["y", None]),
        (Fields("a.b"), ["x", None]),
        (Fields(template=("<", "t", ">")), ["<y>", None]),
    ],
)
def test_texts_are_those_of_the_source(fields, expected):
    """A column, a field within one, a template; from dicts and from Arrow."""
    records = [{"a": {"b": "x"}, "t": "y"}, {"a": None, "t": None}]

    assert texts_of(fields)(records) == expected
    assert texts_of(fields)(pa.RecordBatch.from_pylist(records)) == expected


def test_both_kinds_of_packed_bits_are_the_same_bits():
    """`binary` is `ubinary` minus 128."""
    floats = np.random.default_rng(0).normal(size=(20, 32)).astype(np.float32)

    assert np.array_equal(unpacked_sign(quantize(floats, "binary")), quantize(floats, "ubinary"))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 50), st.integers(1, 9))
def test_runs_cover_everything_once(size, step):
    """In order, none longer than a step."""
    found = runs(size, step)

    assert [number for start, end in found for number in range(start, end)] == list(range(size))
    assert all(end - start <= step for start, end in found)
