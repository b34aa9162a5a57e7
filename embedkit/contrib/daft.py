"""Daft: `embed` adds vectors to a DataFrame; `EmbedkitBatches` is a function of expressions. To install:
`pip install '.[daft]'`.

>>> import daft
>>> from embedkit.contrib.daft import EmbedkitBatches, embed
>>> frame = daft.from_pydict({"text": ["a cat on the sofa", "stock prices fell", None]})
>>> made = embed(frame, "local:all-minilm-l6-v2").to_pydict()
>>> [len(row or []) for row in made["embedding"]]
[384, 384, 0]
>>> made["embedding_error"][2]
'local:all-minilm-l6-v2: the text is missing (None)'
>>> batches = EmbedkitBatches("local:all-minilm-l6-v2")
>>> frame.select(batches(daft.col("text")).get("embedding")).column_names
['embedding']

A worker process that dies fails the query: `cache=` keeps what was paid for, and the next run sends only the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedkit import Embedder, Usage

from ._batches import Batches, rebuilt

if TYPE_CHECKING:
    import daft
    import pyarrow as pa

BATCH = 1024  # rows; embedkit makes its requests of them


class EmbedkitBatches:
    """A function of a column of texts, giving a struct: `embedding`, and `embedding_error` where there is none.

    Args:
        model: "provider:model"; None: EMBEDKIT_MODEL of the worker if set, else the bundled model.
        workers: processes that embed at once. A `rate` is divided by it. None: in Daft's own process or another, as
            Daft likes.
        batch_size: most rows at a time.
        **settings: as `embed` takes them.

    Raises:
        ConfigError: as `embed` raises it.
    """

    def __init__(
        self,
        model: str | Embedder | None = None,
        *,
        workers: int | None = None,
        batch_size: int = BATCH,
        **settings: Any,
    ) -> None:
        self._batches = rebuilt(model, {**settings, "workers": workers})
        self._batch_size = batch_size

    @property
    def usage(self) -> Usage:
        """Tokens, requests and dollars of this process so far."""
        return self._batches.client.usage

    def __call__(self, texts: daft.Expression) -> daft.Expression:
        """The expression of the structs."""
        import daft

        kinds = {name: daft.DataType.from_arrow_type(kind) for name, kind in self._batches.types.items()}
        struct = daft.method.batch(return_dtype=daft.DataType.struct(kinds), batch_size=self._batch_size)
        own = type("Embed", (_Embed,), {"embed": struct(_Embed.embed), "__module__": __name__})
        workers = self._batches.workers
        udf = daft.cls(own, max_concurrency=workers, use_process=None if workers is None else True)
        return udf(self._batches).embed(texts)


class _Embed:
    """What Daft makes in a worker."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def embed(self, texts: daft.Series) -> pa.Array:
        import pyarrow as pa

        columns = self._batches.columns(texts.to_arrow())
        return pa.StructArray.from_arrays(list(columns.values()), list(columns))


def embed(frame: daft.DataFrame, model: str | Embedder | None = None, **settings: Any) -> daft.DataFrame:
    """The DataFrame with the columns `embedding` and `embedding_error`.

    Args:
        frame: with a column of texts.
        model: "provider:model"; None: EMBEDKIT_MODEL of the worker if set, else the bundled model.
        **settings: `column="text"`, `output="embedding"`, `workers=`, `batch_size=`, `usage=False`, `send_keys=False`,
            and the other keywords of `embedkit.connect`. Keys are read from the environment of the workers.

    Raises:
        ConfigError: a rate without `workers`, a credential without `send_keys`, a column that is missing or there
            already. What `embedkit.connect` refuses fails the query.
    """
    import daft

    batches = EmbedkitBatches(model, **settings)
    told = batches._batches  # noqa: SLF001 (its own file)
    told.check(frame.column_names)
    made = f"{told.output}_made"
    while made in frame.column_names:
        made += "_"
    structs = frame.with_column(made, batches(daft.col(told.column)))
    return structs.with_columns({name: daft.col(made).get(name) for name in told.names}).exclude(made)
