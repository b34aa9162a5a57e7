"""A result as a list, and as a table of pyarrow, pandas and polars: the real libraries, read back."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from embedkit import ConfigError, Embeddings, InvalidInputError
from embedkit._types import array_of

ERROR = InvalidInputError("too 'long' <b>")
DTYPES = ["float32", "int8", "uint8", "binary", "ubinary"]


def made(dtype="float32", rows=3, failed=(), **more):
    vectors = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4).astype(array_of(dtype))
    vectors[list(failed)] = np.nan if dtype == "float32" else 0
    return Embeddings(vectors, "m", failures=dict.fromkeys(failed, ERROR), dtype=dtype, **more)


def kept(result):
    return [None if row in result.failures else each.tolist() for row, each in enumerate(result.vectors)]


READERS = {
    "to_list": lambda rows: rows,
    "to_arrow": lambda table: table.column("embedding").to_pylist(),
    "to_pandas": lambda frame: [None if each is None else each.tolist() for each in frame["embedding"]],
    "to_polars": lambda frame: frame["embedding"].to_list(),
}


@pytest.mark.parametrize("failed", [(), (1,), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", READERS)
def test_every_vector_is_there(name, dtype, failed):
    """Row by row, of every dtype; null where a row has failed."""
    result = made(dtype, failed=failed)

    assert READERS[name](getattr(result, name)()) == kept(result)


@pytest.mark.parametrize("failed", [(), (1,)])
@pytest.mark.parametrize("texts", [None, ("a", None, 7.5)])
@pytest.mark.parametrize("name", ["to_arrow", "to_pandas", "to_polars"])
def test_the_columns_are_those_that_say_something(name, texts, failed):
    """Texts where the part of a stream has them (null for what is none), and errors where there are failures."""
    table = getattr(made(failed=failed, texts=texts), name)()
    columns = list(table.column_names if name == "to_arrow" else table.columns)
    expected = [*(["text"] if texts else []), "embedding", *(["embedding_error"] if failed else [])]
    read = {
        "to_arrow": lambda each: table.column(each).to_pylist(),
        "to_pandas": lambda each: table[each].tolist(),
    }.get(name, lambda each: table[each].to_list())

    assert columns == expected
    assert not texts or read("text") == ["a", None, None]
    assert not failed or read("embedding_error") == [None, str(ERROR), None]


@pytest.mark.parametrize("name", ["to_arrow", "to_pandas", "to_polars"])
def test_half_a_surrogate_pair_costs_no_table(name):
    """Arrow holds no lone surrogate: it is U+FFFD, in a text and in a reason, and all other characters stay."""
    reason = InvalidInputError("no \ud800 here")
    vectors = np.ones((2, 4), np.float32)
    result = Embeddings(vectors, "m", failures={1: reason}, texts=("é \U0001f600", "\udc00a \ud83d\ude00"))
    table = getattr(result, name)()
    texts, errors = (
        table[each].to_pylist() if name == "to_arrow" else list(table[each]) for each in ("text", "embedding_error")
    )

    assert texts == ["é \U0001f600", "\ufffda \U0001f600"]
    assert errors[1] == "no \ufffd here"


def test_the_types():
    """Lists of fixed size in pyarrow, arrays in polars, of the dtype of the vectors."""
    for dtype in DTYPES:
        result = made(dtype)
        width = result.vectors.shape[1]
        value = pa.from_numpy_dtype(result.vectors.dtype)
        assert result.to_arrow().schema.field("embedding").type == pa.list_(value, width)
        assert result.to_polars().schema["embedding"] == pl.Array(pl.Series(result.vectors[0]).dtype, width)
        assert result.to_pandas()["embedding"][0].dtype == result.vectors.dtype


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (2, 0)])
def test_what_has_no_vectors(name, shape):
    """No rows, or only rows that failed before a width was known."""
    failures = dict.fromkeys(range(shape[0]), ERROR)
    result = Embeddings(np.empty(shape, np.float32), failures=failures)

    assert READERS[name](getattr(result, name)()) == [None] * shape[0]


def test_views_are_read_as_they_look():
    """Vectors that lie strangely in memory (columns first, every second row) come out as they are."""
    base = np.arange(24, dtype=np.float32).reshape(6, 4)
    for vectors in (base[::2], np.asfortranarray(base), base[:, ::2]):
        for name, read in READERS.items():
            assert read(getattr(Embeddings(vectors), name)()) == vectors.tolist()


def test_frames_of_a_stream_join():
    """The index of pandas goes on from part to part."""
    parts = [made(start=0), made(start=3)]
    joined = pd.concat([part.to_pandas() for part in parts])

    assert joined.index.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("library", ["pyarrow", "pandas", "polars"])
def test_a_library_that_is_missing_is_named(library, monkeypatch):
    """With what to type."""
    monkeypatch.setitem(sys.modules, library, None)
    name = {"pyarrow": "to_arrow"}.get(library, f"to_{library}")
    with pytest.raises(ConfigError, match=rf"{name}\(\) needs {library}.*pip install {library}"):
        getattr(made(), name)()


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_one_library_needs_no_other(library, monkeypatch):
    """A table of one is made without the others."""
    for other in {"pyarrow", "pandas", "polars"} - {library}:
        monkeypatch.setitem(sys.modules, other, None)

    assert READERS[f"to_{library}"](getattr(made(failed=(1,)), f"to_{library}")()) == kept(made(failed=(1,)))
