"""The nouns: what they accept, and how a result behaves as an array."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest

from embedkit import ConfigError, Embeddings, InvalidInputError, Limits, Options, Usage
from embedkit._types import Request, Response, array_of

ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize("name", ["max_texts", "max_tokens", "max_bytes", "max_text_tokens"])
@pytest.mark.parametrize("value", [0, -1, 1.0, math.inf, True, "8", [8]])
def test_a_limit_is_a_whole_number(name, value):
    """Anything but a whole number of at least 1 is a ConfigError (a ValueError too) that names the field."""
    with pytest.raises(ConfigError, match=name):
        Limits(**{name: value})


def test_limits_may_be_left_open():
    """None means that no limit is known; 1 is a limit; limits compare by value and cannot be changed."""
    limits = Limits(max_texts=1)

    assert (limits.max_texts, limits.max_tokens, limits.max_bytes, limits.max_text_tokens) == (1, None, None, None)
    assert Limits(max_texts=1) == limits

    with pytest.raises(AttributeError):
        limits.max_texts = 2


def test_a_result_is_an_array():
    """np.asarray hands out the very matrix, without a copy."""
    result = Embeddings(ROWS)

    assert np.asarray(result) is result.vectors
    assert np.shares_memory(np.asarray(result), ROWS)


def test_a_result_is_copied_where_asked():
    """np.array copies, and so does another dtype; copy=False refuses to where it would have to."""
    result = Embeddings(ROWS)

    assert not np.shares_memory(np.array(result), ROWS)
    assert np.array(result, copy=None) is ROWS
    assert np.asarray(result, dtype=np.float64).dtype == np.float64
    assert np.array(result, dtype=np.float32, copy=False) is ROWS

    with pytest.raises(ValueError, match="copy"):
        np.array(result, dtype=np.float64, copy=False)


def test_numpy_functions_take_a_result():
    """A result goes into numpy's functions as the matrix it is."""
    result = Embeddings(ROWS)

    assert np.array_equal(ROWS @ ROWS.T, np.matmul(result, np.transpose(result)))
    assert np.concatenate([result, result]).shape == (6, 4)


def test_a_result_has_length_rows_and_order():
    """len, index, negative index, slice and iteration are those of the rows; beyond the end is an IndexError."""
    result = Embeddings(ROWS)

    assert len(result) == 3
    assert np.array_equal(ROWS[1], result[1])
    assert np.array_equal(ROWS[2], result[-1])
    assert np.array_equal(ROWS[1:], result[1:])
    assert [row.tolist() for row in result] == ROWS.tolist()

    with pytest.raises(IndexError):
        result[3]


@pytest.mark.parametrize(
    ("dtype", "held", "dimensions"),
    [
        ("float32", np.float32, 4),
        ("int8", np.int8, 4),
        ("uint8", np.uint8, 4),
        ("binary", np.int8, 32),
        ("ubinary", np.uint8, 32),
    ],
)
def test_dimensions_counts_components(dtype, held, dimensions):
    """`dimensions` is the number of components, eight to a byte where bits are packed; plain int8 is not packed."""
    result = Embeddings(np.zeros((2, 4), held), dtype=dtype)

    assert result.dimensions == dimensions
    assert array_of(dtype) is held


def test_an_empty_result_has_a_shape():
    """No rows: length 0, dimensions 0, and iteration ends at once."""
    result = Embeddings(np.empty((0, 0), np.float32))

    assert (len(result), result.dimensions, list(result)) == (0, 0, [])
    assert bool(len(result)) is False


def test_a_result_says_what_it_is_in_one_line():
    """Repr shows shape, dtype, model, tokens and the number of failures, and no vector."""
    plain = Embeddings(ROWS, "m", Usage(7, 1))
    failed = Embeddings(ROWS, "m", failures={1: InvalidInputError("bad", rows=[1])})

    assert repr(plain) == "Embeddings(3x4 float32, model='m', tokens=7)"
    assert repr(failed) == "Embeddings(3x4 float32, model='m', tokens=None, failures=1)"


def test_results_are_themselves():
    """Two results are equal only if they are one: no comparison of arrays is guessed at, and a result can be a key."""
    result = Embeddings(ROWS)

    assert result == result  # noqa: PLR0124 (identity is the claim)
    assert result != Embeddings(ROWS)
    assert {result: 1}[result] == 1


@pytest.mark.parametrize("travel", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])  # noqa: S301 (our own)
def test_a_result_travels(travel):
    """A copy or a pickle carries vectors, usage, failures, start and dtype."""
    result = Embeddings(ROWS, "m", Usage(7, 2, 0.5), {1: InvalidInputError("bad", rows=[1])}, 64, "float32")
    twin = travel(result)

    assert np.array_equal(ROWS, twin.vectors)
    assert (twin.model, twin.usage, twin.start, twin.dtype) == ("m", Usage(7, 2, 0.5), 64, "float32")
    assert str(twin.failures[1]) == "bad (row 1)"


def test_defaults_are_not_shared():
    """The empty mapping of one value is not that of another."""
    first, second = Options(), Options()
    first.extra["x"] = 1

    assert second.extra == {}
    assert Embeddings(ROWS).failures == {}


def test_no_secret_and_no_text_is_shown():
    """A request's repr shows no header and no body, a response's no body."""
    request = Request("https://h/v1", b'{"input": "private"}', {"authorization": "Bearer sk-1"})
    response = Response(200, {}, b'{"text": "private"}')

    assert repr(request) == "Request(POST https://h/v1, 20 bytes)"
    assert repr(response) == "Response(200, 19 bytes)"
