"""What is taken for texts: strings in an order. Tables, mappings and
sets are refused with the way out; missing values are failed rows.
"""

from __future__ import annotations

import collections
import math
import types

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import embedkit
from embedkit import InvalidInputError
from embedkit.testing import FakeEmbedder

pytestmark = pytest.mark.anyio


class Frame:
    """What pandas' and polars' tables have in common: columns, and an iteration over their names."""

    columns = ("text", "id")

    def __iter__(self):
        return iter(self.columns)


class Relation:
    """As datasets and databases name theirs."""

    column_names = ("text",)

    def __iter__(self):
        return iter([{"text": "a"}])


class Result:
    """Columns of an instance, not of its class."""

    def __init__(self):
        self.columns = ["text"]

    def __iter__(self):
        return iter([("a",)])


class Grid:
    """An array of two axes."""

    ndim = 2

    def __iter__(self):
        return iter([["a", "b"]])


FRAME = pd.DataFrame({"text": ["a", None, "b"], "id": [1, 2, 3]})
TABLES = {
    "pandas": FRAME, "pandas, one column": FRAME[["text"]], "polars": pl.DataFrame({"text": ["a"]}),
    "polars, lazy": pl.LazyFrame({"text": ["a"]}),
    "pandas or polars": Frame(), "a query's result": Result(), "datasets": Relation(),
    "pyarrow's table": pa.table({"text": ["a"]}),
    "pyarrow's batch": pa.record_batch({"text": ["a"]}), "numpy, two axes": np.array([["a", "b"]]),
    "an array of two axes": Grid(),
    "numpy's records": np.array([("a", 1)], dtype=[("text", "U1"), ("n", "i4")]),
}  # fmt: skip
MAPPINGS = {
    "dict": {"a": 1}, "Counter": collections.Counter("a"), "proxy": types.MappingProxyType({"a": 1}),
    "ordered": collections.OrderedDict(a=1),
    "default": collections.defaultdict(int, a=1), "chain": collections.ChainMap({"a": 1}),
}  # fmt: skip
SETS = {"set": {"a", "b"}, "frozenset": frozenset("ab")}


@pytest.fixture(params=["embed", "stream", "sync embed", "sync stream"])
def take(request):
    """Every verb that takes texts."""

    async def call(texts, **options):
        if request.param == "embed":
            return await FakeEmbedder(4).embed(texts, **options)
        if request.param == "stream":
            parts = [part async for part in FakeEmbedder(4).stream(texts, **options)]
        else:
            sync = embedkit.SyncEmbedder(FakeEmbedder(4))
            if request.param == "sync embed":
                return sync.embed(texts, **options)
            parts = list(sync.stream(texts, **options))
        failures = {part.start + row: error for part in parts for row, error in part.failures.items()}
        vectors = np.concatenate([part.vectors for part in parts]) if parts else np.empty((0, 0), np.float32)
        return embedkit.Embeddings(vectors, failures=failures)

    return call


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("on_error", ["raise", "skip"])
async def test_a_table_is_refused_with_the_way_out(take, table, on_error):
    """Not the names of its columns, nor its rows: one column is asked for."""
    with pytest.raises(TypeError, match="one column"):
        await take(table, on_error=on_error)


@pytest.mark.parametrize("mapping", MAPPINGS.values(), ids=MAPPINGS)
async def test_a_mapping_is_refused_with_the_way_out(take, mapping):
    """Its keys are not what was meant, or list() says so."""
    with pytest.raises(TypeError, match=r"mapping.*values"):
        await take(mapping)


@pytest.mark.parametrize("texts", SETS.values(), ids=SETS)
async def test_a_set_is_refused_with_the_way_out(take, texts):
    """Row i could belong to any of its texts."""
    with pytest.raises(TypeError, match=r"set.*no order.*sorted"):
        await take(texts)


@pytest.mark.parametrize("texts", [b"a", bytearray(b"a"), memoryview(b"a"), np.array("a"), 5, None, object()])
async def test_what_is_no_iterable_of_texts_is_refused(take, texts):
    """Bytes, numbers, nothing; an array without an axis."""
    with pytest.raises(TypeError, match=rf"(?=.*\b{type(texts).__name__}\b).*iterable"):
        await take(texts)


ITERABLES = {
    "list": ["a", "bb"], "tuple": ("a", "bb"), "keys": {"a": 1, "bb": 2}.keys(), "values": {1: "a", 2: "bb"}.values(),
    "deque": collections.deque(["a", "bb"]), "numpy": np.array(["a", "bb"]), "objects": np.array(["a", "bb"], object),
    "pyarrow": pa.array(["a", "bb"]), "large": pa.array(["a", "bb"], pa.large_string()),
    "view": pa.array(["a", "bb"], pa.string_view()),
    "chunked": pa.chunked_array([["a"], [], ["bb"]]), "dictionary": pa.array(["a", "bb"]).dictionary_encode(),
    "a column": pa.table({"text": ["a", "bb"]})["text"], "pandas": pd.Series(["a", "bb"]),
    "pandas strings": pd.Series(["a", "bb"], dtype="string"),
    "pandas over arrow": pd.Series(["a", "bb"], dtype="string[pyarrow]"),
    "categories": pd.Series(["a", "bb"], dtype="category"),
    "an index": pd.Index(["a", "bb"]), "polars": pl.Series(["a", "bb"]),
}  # fmt: skip


@pytest.mark.parametrize("texts", ITERABLES.values(), ids=ITERABLES)
async def test_texts_in_an_order_are_taken(take, texts):
    """Lists, views, arrays, pyarrow's arrays of every kind of string: row i belongs to text i."""
    expected = await FakeEmbedder(4).embed(["a", "bb"])
    result = await take(texts)

    assert np.array_equal(result.vectors, expected.vectors)


async def test_a_long_arrow_array_streams():
    """More items than are made strings at a time."""
    texts = [f"text {number}" for number in range(3_000)]
    parts = [part.vectors async for part in FakeEmbedder(4).stream(pa.chunked_array([texts[:1_700], texts[1_700:]]))]

    assert np.array_equal(np.concatenate(parts), (await FakeEmbedder(4).embed(texts)).vectors)


NO_TEXTS = {
    "None": None, "NaN": math.nan, "numpy's NaN": np.float32("nan"), "NaT": np.datetime64("NaT", "ns"),
    "pandas' NA": pd.NA, "pandas' NaT": pd.NaT,
    "pyarrow's null": pa.scalar(None, pa.string()), "masked": np.ma.masked, "a number": 7, "bytes": b"a",
    "a list": ["a"], "a dict": {"a": 1},
    "a tuple": ("a",), "an object": object(), "true": True,
}  # fmt: skip


@pytest.mark.parametrize("value", NO_TEXTS.values(), ids=NO_TEXTS)
async def test_what_is_no_text_is_a_failed_row(take, value):
    """With "skip" row 1 fails and its neighbors come; with "raise" it is a TypeError that names the row."""
    texts = ["a", value, "b", value]
    expected = await FakeEmbedder(4).embed(["a", "b"])
    result = await take(texts, on_error="skip")

    assert list(result.failures) == [1, 3]
    assert all(isinstance(error, InvalidInputError) and error.status is None for error in result.failures.values())
    assert np.array_equal(result.vectors[[0, 2]], expected.vectors)
    assert np.isnan(result.vectors[[1, 3]]).all()
    with pytest.raises(TypeError, match=r"\b1\b"):
        await take(texts)


@pytest.mark.parametrize("value", [None, math.nan, pd.NA], ids=["None", "NaN", "NA"])
async def test_a_missing_value_is_called_that(value):
    """The reason says that there is nothing, rather than of which type it is."""
    result = await FakeEmbedder(4).embed(["a", value], on_error="skip")

    assert "missing" in str(result.failures[1])
    assert result.failures[1].rows == (1,)


async def test_a_column_with_nulls(take):
    """A null of pyarrow's, pandas' or polars' is a failed row like None."""
    columns = [
        pa.chunked_array([["a", None], ["b"]]), pd.Series(["a", None, "b"]),
        pd.Series(["a", None, "b"], dtype="string"),
        pd.Series(["a", pd.NA, "b"], dtype="string[pyarrow]"), pl.Series(["a", None, "b"]),
    ]  # fmt: skip
    for column in columns:
        result = await take(column, on_error="skip")

        assert list(result.failures) == [1]
        assert not np.isnan(result.vectors[[0, 2]]).any()


async def test_a_part_without_texts_is_as_wide_as_the_others():
    """Missing values that fill a part of a stream: it has the width of the parts before, so that all of them join."""
    embedder = FakeEmbedder(4, limits=embedkit.Limits(max_texts=2))
    embedder.max_concurrency = 1
    parts = [part.vectors async for part in embedder.stream(["a", "b", None, None, "c"], on_error="skip")]

    assert [part.shape for part in parts] == [(2, 4), (2, 4), (1, 4)]
    alone = await FakeEmbedder(4).embed([None], on_error="skip", dimensions=3)
    assert alone.vectors.shape == (1, 3)


async def test_nothing_but_missing_values(take):
    """Every row fails, and nothing is sent."""
    result = await take([None, math.nan], on_error="skip")

    assert list(result.failures) == [0, 1]
    assert len(result.vectors) == 2


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.one_of(st.sampled_from(["a", "b", "c", "", "bad"]), st.none(), st.floats(), st.integers()), max_size=30
    ),
    st.integers(1, 5),
)
async def test_any_mix_of_texts_and_others(texts, size):
    """Missing, empty, equal and refused texts in any order: each
    failure is its own row's, each vector its own text's.
    """

    class Own(embedkit.Embedder):
        limits = embedkit.Limits(max_texts=size)

        async def embed_batch(self, texts, options):
            if rows := [row for row, text in enumerate(texts) if text == "bad"]:
                raise InvalidInputError("bad", rows=rows)
            return embedkit.Embeddings(np.array([[ord(text), 1] for text in texts], np.float32))

    result = await Own().embed(texts, on_error="skip")
    failed = {row for row, text in enumerate(texts) if text in ("", "bad") or not isinstance(text, str)}

    assert set(result.failures) == failed
    assert [error.rows for error in result.failures.values()] == [(row,) for row in sorted(failed)]
    for row, text in enumerate(texts):
        if row not in failed:
            assert result.vectors[row].tolist() == [ord(text), 1]


async def test_rows_of_an_error_are_the_callers_beside_missing_values():
    """An error that ends a call names rows as the caller counts them, and so does what was embedded before."""

    class Own(embedkit.Embedder):
        limits = embedkit.Limits(max_texts=1)
        max_concurrency = 1

        async def embed_batch(self, texts, options):
            if texts == ["c"]:
                raise embedkit.AuthError("no", rows=[0])
            return embedkit.Embeddings(np.ones((1, 2), np.float32))

    with pytest.raises(embedkit.AuthError) as caught:
        await Own().embed([None, "a", None, "c"], on_error="skip")

    assert caught.value.rows == (3,)
    assert np.isnan(caught.value.partial.vectors[:, 0]).tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    ("value", "says"), [(10**5000, "too large an integer"), ([10**5000], "list")], ids=["itself", "in a list"]
)
async def test_an_integer_that_python_does_not_write_is_a_value_like_any_other(value, says):
    """It is named in few words, and with skip it costs its own row."""
    embedder = FakeEmbedder()
    with pytest.raises(TypeError, match=rf"^texts\[1\] is (int|list), not str: .*{says}"):
        await embedder.embed(["a", value])
    made = await embedder.embed(["a", value], on_error="skip")

    assert list(made.failures) == [1]
    assert says in str(made.failures[1])
