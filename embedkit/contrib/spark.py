"""Spark: `embed` adds vectors to a DataFrame by `mapInArrow`; `embed_column` gives a Column of `array<float>`. To
install: `pip install '.[spark]'`, and Java 17 or newer. The executors need embedkit too, in the Python that
`PYSPARK_PYTHON` names, or else the first `python3` on their PATH.

>>> from pyspark.sql import SparkSession
>>> from embedkit.contrib.spark import embed, embed_column
>>> spark = SparkSession.builder.master("local[1]").getOrCreate()
>>> frame = spark.createDataFrame([("a cat on the sofa",), ("stock prices fell",), (None,)], "text string")
>>> rows = embed(frame.coalesce(1), "local:all-minilm-l6-v2").collect()
>>> [len(row.embedding or []) for row in rows]
[384, 384, 0]
>>> rows[2].embedding_error
'local:all-minilm-l6-v2: the text is missing (None)'
>>> frame.withColumn("vector", embed_column(frame.text, "local:all-minilm-l6-v2")).schema["vector"].simpleString()
'vector:array<float>'

A task whose worker dies is run again by Spark, as often as `spark.task.maxFailures` says; on one machine
`local[2,4]` allows four tries.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from embedkit import ConfigError, Embedder, Usage

from ._batches import Batches, rebuilt

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import StructType


class EmbedkitBatches:
    """The function of `mapInArrow`: `frame.mapInArrow(batches, batches.schema(frame.schema))`, which `embed` writes.

    Args:
        model: "provider:model"; None: EMBEDKIT_MODEL of the executor if set, else the bundled model.
        **settings: as `embed` takes them.

    Raises:
        ConfigError: as `embed` raises it.
    """

    def __init__(self, model: str | Embedder | None = None, **settings: Any) -> None:
        self._batches = _batches(model, settings)

    @property
    def usage(self) -> Usage:
        """Tokens, requests and dollars of this process so far."""
        return self._batches.client.usage

    def schema(self, schema: StructType) -> StructType:
        """The schema of a DataFrame, and that of the columns that are added."""
        import pyarrow as pa
        from pyspark.sql.pandas.types import from_arrow_schema
        from pyspark.sql.types import NullType, StringType, StructType

        self._batches.check(schema.names, cased=False)  # two that differ in case only cannot be told apart later
        kind = schema[self._batches.column].dataType
        if not isinstance(kind, (StringType, NullType)):
            msg = f"the column {self._batches.column!r} holds {kind.simpleString()}, not texts: pass column="
            raise ConfigError(msg)
        return StructType([*schema.fields, *from_arrow_schema(pa.schema(self._batches.types)).fields])

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Each batch with its vectors."""
        import pyarrow as pa

        for batch in batches:
            added = self._batches.columns(batch.column(self._batches.column))
            names = [*batch.schema.names, *added]
            yield pa.RecordBatch.from_arrays([*batch.columns, *added.values()], names)


def embed(frame: DataFrame, model: str | Embedder | None = None, **settings: Any) -> DataFrame:
    """The DataFrame with the columns `embedding` (`array<float>`) and `embedding_error`.

    Args:
        frame: with a column of texts. A task gets `spark.sql.execution.arrow.maxRecordsPerBatch` rows at a time.
        model: "provider:model"; None: EMBEDKIT_MODEL of the executor if set, else the bundled model.
        **settings: `column="text"`, `output="embedding"`, `workers=` (tasks that run at once, by which a `rate` is
            divided), `usage=False`, `send_keys=False`, and the other keywords of `embedkit.connect`. Keys are read from
            the environment of the executors (`spark.executorEnv.NAME`).

    Raises:
        ConfigError: a rate without `workers`, a credential without `send_keys`, a column that is missing or there
            already, a dtype that Spark has not. What `embedkit.connect` refuses fails the task.
    """
    batches = EmbedkitBatches(model, **settings)
    return frame.mapInArrow(batches, batches.schema(frame.schema))


def embed_column(column: Column | str, model: str | Embedder | None = None, **settings: Any) -> Column:
    """The vectors of a column of texts: `array<float>`, null where a text has none. `embed` says why, too.

    Args:
        column: the texts.
        model: as of `embed`.
        **settings: as of `embed`, without names of columns.

    Raises:
        ConfigError: as of `embed`.
    """
    import pandas as pd
    import pyarrow as pa
    from pyspark.sql.functions import pandas_udf
    from pyspark.sql.pandas.types import from_arrow_type

    batches = _batches(model, settings)

    def vectors(parts: Iterator[pd.Series]) -> Iterator[pd.Series]:
        for part in parts:
            lists = batches.columns(pa.array(part, pa.string(), from_pandas=True))[batches.output]
            yield pd.Series(lists.to_numpy(zero_copy_only=False), dtype=object)

    # Spark reads the kind of function from its annotations, which are texts in this file.
    vectors.__annotations__ = {"parts": Iterator[pd.Series], "return": Iterator[pd.Series]}
    udf = pandas_udf(vectors, from_arrow_type(batches.types[batches.output]))
    return udf(column)


def _batches(model: str | Embedder | None, settings: dict[str, Any]) -> Batches:
    batches = rebuilt(model, settings)
    if batches.numbers == "uint8":
        msg = f"dtype={batches.settings['dtype']!r}: Spark has no unsigned bytes; pass 'int8' or 'binary'"
        raise ConfigError(msg)
    return batches
