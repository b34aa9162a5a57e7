"""Ray Data: `embed` adds vectors to a dataset; `EmbedkitBatches` is its class for `map_batches`. To install:
`pip install '.[ray]'`.

>>> import ray
>>> from embedkit.contrib.ray import embed
>>> texts = ray.data.from_items([{"text": "a cat on the sofa"}, {"text": "stock prices fell"}, {"text": None}])
>>> embedded = embed(texts, "local:all-minilm-l6-v2", workers=1)
>>> rows = embedded.take_all()
>>> sorted(len(row["embedding"] or []) for row in rows)
[0, 384, 384]
>>> [row["embedding_error"] for row in rows if row["embedding"] is None]
['local:all-minilm-l6-v2: the text is missing (None)']

An actor that dies is started again by Ray, and its batch is embedded again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from embedkit import ConfigError, Embedder, Usage

from ._batches import Batches, rebuilt

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.data import Dataset

BATCH = 1024  # rows; embedkit makes its requests of them


class EmbedkitBatches:
    """The callable of `map_batches` with `batch_format="pyarrow"`: async, in actors.

    `dataset.map_batches(EmbedkitBatches, fn_constructor_kwargs={"model": …}, concurrency=2, batch_format="pyarrow")`.
    Ray sends these keywords to the actors before anything of embedkit sees them; `embed` looks at them first.

    Args:
        model: "provider:model"; None: EMBEDKIT_MODEL of the worker if set, else the bundled model. Or what
            `embed` has made.
        **settings: as `embed` takes them.

    Raises:
        ConfigError: as `embed` raises it.
    """

    def __init__(self, model: str | Embedder | Batches | None = None, **settings: Any) -> None:
        self._batches = model if isinstance(model, Batches) else rebuilt(model, settings)

    @property
    def usage(self) -> Usage:
        """Tokens, requests and dollars of this process so far."""
        return self._batches.client.usage

    async def __call__(self, batch: pa.Table) -> AsyncIterator[pa.Table]:
        """The batch with its vectors."""
        import pyarrow as pa

        if not isinstance(batch, pa.Table):
            msg = f"the batch is {type(batch).__name__}, not a table of Arrow: pass batch_format='pyarrow'"
            raise ConfigError(msg)
        self._batches.check(batch.column_names)
        for name, values in (await self._batches.acolumns(batch[self._batches.column])).items():
            batch = batch.append_column(name, values)
        yield batch


def embed(
    dataset: Dataset,
    model: str | Embedder | None = None,
    *,
    workers: int = 1,
    batch_size: int = BATCH,
    ray_remote_args: dict[str, Any] | None = None,
    **settings: Any,
) -> Dataset:
    """The dataset with the columns `embedding` and `embedding_error`.

    Args:
        dataset: with a column of texts.
        model: "provider:model"; None: EMBEDKIT_MODEL of the worker if set, else the bundled model.
        workers: actors. A `rate` is divided by it.
        batch_size: rows that an actor gets at a time.
        ray_remote_args: further arguments of `map_batches`, `{"num_cpus": 0.1}` for one.
        **settings: `column="text"`, `output="embedding"`, `usage=False`, `send_keys=False`, and the other keywords of
            `embedkit.connect`. Keys are read from the environment of the actors.

    Raises:
        ConfigError: a credential without `send_keys`, names that collide. What `embedkit.connect` refuses is raised by
            the actor.
    """
    from ray.data import ActorPoolStrategy

    batches = rebuilt(model, {**settings, "workers": workers})
    return dataset.map_batches(
        EmbedkitBatches, fn_constructor_args=(batches,), compute=ActorPoolStrategy(size=workers),
        batch_size=batch_size, batch_format="pyarrow", **(ray_remote_args or {}),
    )  # fmt: skip
