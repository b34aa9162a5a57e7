"""Dask: `embed` adds vectors to a DataFrame by `map_partitions`. To install: `pip install '.[dask]'`.

>>> import dask.dataframe as dd
>>> import pandas as pd
>>> from embedkit.contrib.dask import embed
>>> texts = pd.DataFrame({"text": ["a cat on the sofa", "stock prices fell", None]})
>>> embedded = embed(dd.from_pandas(texts, npartitions=1), "local:all-minilm-l6-v2").compute()
>>> [len(row) for row in embedded["embedding"].dropna()]
[384, 384]
>>> embedded["embedding_error"][2]
'local:all-minilm-l6-v2: the text is missing (None)'

Vectors are lists of Arrow (`pandas.ArrowDtype`), which Parquet keeps as such. A worker that dies is started again by
its nanny, and its partitions are embedded again, `distributed.scheduler.allowed-failures` times. Without the
distributed scheduler nothing is repeated: `cache=` keeps what was paid for. A partition is kept when all of it is
embedded; one that was interrupted is sent again, so cut the frame into partitions that may be paid for twice.

What `to_parquet` has written is read by `read_parquet(…, dtype_backend="pyarrow")`: without that, pandas does not know
lists of Arrow again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedkit import Embedder, Usage

from ._batches import rebuilt

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from dask.dataframe import DataFrame


class EmbedkitBatches:
    """The function of `map_partitions`, as in `frame.map_partitions(batches, meta=batches.meta(frame))`.

    Args:
        model: "provider:model"; None: EMBEDKIT_MODEL of the worker if set, else the bundled model.
        **settings: as `embed` takes them.

    Raises:
        ConfigError: as `embed` raises it.
    """

    def __init__(self, model: str | Embedder | None = None, **settings: Any) -> None:
        self._batches = rebuilt(model, settings)

    @property
    def usage(self) -> Usage:
        """Tokens, requests and dollars of this process so far."""
        return self._batches.client.usage

    def meta(self, frame: DataFrame) -> pd.DataFrame:
        """What Dask is told of the result: no rows, all columns."""
        import pyarrow as pa

        empty = frame._meta if hasattr(frame, "_meta") else frame.iloc[:0]  # noqa: SLF001 (Dask's name for it)
        self._batches.check(empty.columns)
        return _with(empty, {name: pa.array([], kind) for name, kind in self._batches.types.items()})

    def __call__(self, part: pd.DataFrame) -> pd.DataFrame:
        """The partition with its vectors."""
        import pyarrow as pa

        column = part[self._batches.column]
        try:
            texts = pa.array(column, from_pandas=True)
        except (pa.ArrowException, TypeError, UnicodeEncodeError):  # something among the texts that is none
            texts = column.tolist()
        return _with(part, self._batches.columns(texts))


def embed(frame: DataFrame, model: str | Embedder | None = None, **settings: Any) -> DataFrame:
    """The DataFrame with the columns `embedding` and `embedding_error`.

    Args:
        frame: with a column of texts.
        model: "provider:model"; None: EMBEDKIT_MODEL of the worker if set, else the bundled model.
        **settings: `column="text"`, `output="embedding"`, `workers=` (processes, by which a `rate` is divided),
            `usage=False`, `send_keys=False`, and the other keywords of `embedkit.connect`. Keys are read from the
            environment of the workers.

    Raises:
        ConfigError: a rate without `workers`, a credential without `send_keys`, a column that is missing or there
            already. What `embedkit.connect` refuses fails the task.
    """
    batches = EmbedkitBatches(model, **settings)
    return frame.map_partitions(batches, meta=batches.meta(frame))


def _with(part: pd.DataFrame, columns: dict[str, pa.Array]) -> pd.DataFrame:
    import pandas as pd

    added = {
        name: pd.Series(pd.arrays.ArrowExtensionArray(values), index=part.index) for name, values in columns.items()
    }
    return part.assign(**added)
