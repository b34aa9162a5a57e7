"""What the engines share: texts in, columns of Arrow out, in whatever process it is sent to.

`Batches` is what travels: the model's name and settings, no client. The first batch of a process makes the client, with
the keys of that process's environment, and all later ones of the same settings use it: connections, what was learned of
the endpoint and the cache stay, however often an engine unpickles its function.

Columns: the vectors, null where a text has none; beside them the reason. Asked for, also what each batch took, in its
first row, so that the sums of these columns are the usage of the whole: tokens, requests, US dollars, rows of a cache.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from embedkit import ConfigError, Embedder, Embeddings, Rate, Usage

from .._connect.model_name import split
from .._values import shown
from ._client import Client, as_struct
from ._secrets import credential_in

if TYPE_CHECKING:
    import pyarrow as pa

MOST = 2**31 - 1  # numbers in one Arrow list array, whose offsets have 32 bits
PACKED = {"float32": "float", "int8": "int8", "uint8": "uint8", "binary": "int8", "ubinary": "uint8"}  # Arrow's names
_clients: dict[bytes, Client] = {}
_lock = threading.Lock()


class Batches:
    """One batch of texts after the other, as columns; picklable.

    Args:
        model: "provider:model"; None: EMBEDKIT_MODEL of the worker if set, else the bundled model. Or an
            `embedkit.Embedder`, with `send_keys`.
        settings: the other keywords of `embedkit.connect`.
        column: name of the column of texts.
        output: name of the column of vectors; `output + "_error"` has the reasons.
        workers: processes that embed at once. A `rate` is divided by it.
        usage: add columns of what each batch took.
        send_keys: let credentials that were given as text travel to the workers, in the pickle. An embedder needs it
            too, since it may hold one.

    Raises:
        ConfigError: a rate without `workers`, a credential without `send_keys`, names that collide, a model that is
            no "provider:model".
        TypeError: a model that is no text.
    """

    def __init__(
        self,
        model: str | Embedder | None,
        settings: Mapping[str, Any],
        *,
        column: str = "text",
        output: str = "embedding",
        workers: int | None = None,
        usage: bool = False,
        send_keys: bool = False,
    ) -> None:
        if workers is not None and (not isinstance(workers, int) or isinstance(workers, bool) or workers < 1):
            msg = f"workers={shown(workers)}: pass a whole number of at least 1, the processes that embed at once"
            raise ConfigError(msg)
        kept = {name: value for name, value in settings.items() if value is not None}
        if model is not None and not isinstance(model, Embedder):
            split(model)  # here already: a key or an address in its place would travel
        if not send_keys:
            _refuse_credentials(model, kept)
        if "rate" in kept:
            kept["rate"] = _share(kept["rate"], workers)
        dtype = model.options.dtype if isinstance(model, Embedder) else kept.get("dtype", "float32")
        if dtype not in PACKED:
            msg = f"dtype={shown(dtype)}: pass one of {', '.join(PACKED)}"
            raise ConfigError(msg)
        self.model = model
        self.settings: dict[str, Any] = kept
        self.column = column
        self.output = output
        self.workers = workers
        self.with_usage = usage
        self.numbers: str = PACKED[dtype]
        if not isinstance(output, str) or not output:
            msg = f"output={shown(output)}: pass the name of the column of vectors"
            raise ConfigError(msg)
        if column in self.names:
            msg = f"column={column!r} is also the name of an output: pass output= another one"
            raise ConfigError(msg)
        self._client: Client | None = None

    @property
    def names(self) -> list[str]:
        """The columns that are added, in order."""
        took = ("tokens", "requests", "cost", "cached") if self.with_usage else ()
        return [self.output, *(f"{self.output}_{name}" for name in ("error", *took))]

    @property
    def types(self) -> dict[str, pa.DataType]:
        """Their types in Arrow."""
        import pyarrow as pa

        kinds = [pa.list_(pa.type_for_alias(self.numbers)), pa.string()]
        if self.with_usage:
            kinds += [pa.int64(), pa.int64(), pa.float64(), pa.int64()]
        return dict(zip(self.names, kinds, strict=True))

    @property
    def client(self) -> Client:
        """The client of this process, made now if there is none."""
        if self._client is None:
            self._client = _client_of(self.model, self.settings)
        return self._client

    def check(self, names: Iterable[Any], *, cased: bool = True) -> None:
        """See that a table with these columns can be embedded.

        Args:
            names: of its columns.
            cased: whether the engine tells "Text" from "text".

        Raises:
            ConfigError: the column of texts is missing or there twice, or one to be added is there already.
        """
        there = list(names)
        if there.count(self.column) != 1:
            many = there.count(self.column)
            found = f"there are {many} columns {self.column!r}: rename all but one" if many else self._missing(there)
            raise ConfigError(found)
        taken = {name if cased else str(name).lower(): name for name in there}
        for name in self.names:
            if (other := taken.get(name if cased else name.lower())) is not None:
                msg = f"the column {other!r} is there already: pass output= another name than {self.output!r}"
                raise ConfigError(msg)

    def _missing(self, there: list[Any]) -> str:
        known = ", ".join(repr(name) for name in there) or "none"
        return f"there is no column {self.column!r} (there are {known}): pass column="

    def columns(self, texts: pa.Array | pa.ChunkedArray | list[Any]) -> dict[str, pa.Array]:
        """The columns for these texts. A list may hold what Arrow cannot: such a row fails, and no other."""
        listed = _texts(texts, self.column)
        if not listed:
            return self._empty()
        return self._columns(self.client.embed(listed, "document", on_error="skip"))

    async def acolumns(self, texts: pa.Array | pa.ChunkedArray) -> dict[str, pa.Array]:
        """The same on the running event loop."""
        listed = _texts(texts, self.column)
        if not listed:
            return self._empty()
        return self._columns(await self.client.aembed(listed, "document", on_error="skip"))

    def _empty(self) -> dict[str, pa.Array]:
        import pyarrow as pa

        return {name: pa.array([], kind) for name, kind in self.types.items()}

    def _columns(self, made: Embeddings) -> dict[str, pa.Array]:
        import pyarrow as pa

        # `at()`: the row of a batch means nothing in a table that an engine has cut up
        reasons = [str(made.failures[row].at()) if row in made.failures else None for row in range(len(made))]
        values = [_lists(made), pa.array(reasons, pa.string())]
        if self.with_usage:
            values += _first_row(made.usage, len(made), list(self.types.values())[2:])
        return dict(zip(self.names, values, strict=True))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}

    def __repr__(self) -> str:
        return f"Batches({self.model!r}, column={self.column!r}, output={self.output!r})"


def _client_of(model: str | Embedder | None, settings: Mapping[str, Any]) -> Client:
    """The client of these settings in this process. What plain pickle cannot write, like a lambda, gets its own."""
    try:
        key = pickle.dumps((model, settings))
    except Exception:  # noqa: BLE001 (anything may go wrong in what is pickled)
        return Client(model, settings)
    with _lock:
        if key not in _clients:
            _clients[key] = Client(model, settings)
        return _clients[key]


def _refuse_credentials(model: str | Embedder | None, settings: Mapping[str, Any]) -> None:
    if isinstance(model, Embedder):
        msg = f"{model!r} may hold a key, which would travel with it: pass 'provider:model', or send_keys=True"
        raise ConfigError(msg)
    if (name := credential_in(settings)) is not None:
        msg = (
            f"{name} holds a credential, which would travel to the workers: leave it out and set the provider's "
            "variable in the environment of the workers, name a function that reads it there, or pass send_keys=True"
        )
        raise ConfigError(msg)


def _share(rate: Any, workers: int | None) -> Rate:
    """What one worker may take of a quota."""
    told = as_struct("rate", rate)
    if not isinstance(told, Rate):
        msg = f"rate={shown(told)}: pass an embedkit.Rate"
        raise ConfigError(msg)
    if workers is None:
        msg = f"rate={told!r} is of the whole account: pass workers=, by which it is divided"
        raise ConfigError(msg)
    parts = {name: getattr(told, name) for name in told.__struct_fields__}
    return Rate(**{name: None if value is None else value / workers for name, value in parts.items()})


def _texts(texts: pa.Array | pa.ChunkedArray | list[Any], column: str) -> list[Any]:
    import pyarrow as pa

    if isinstance(texts, list):
        return texts
    if texts.null_count == len(texts):  # as pandas types a column of which this part has no text
        return [None] * len(texts)
    kind = texts.type.value_type if pa.types.is_dictionary(texts.type) else texts.type
    is_text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    if not any(fits(kind) for fits in is_text):
        msg = f"the column {column!r} holds {texts.type}, not texts: pass column="
        raise ConfigError(msg)
    listed: list[str | None] = texts.to_pylist()
    return listed


def _lists(made: Embeddings) -> pa.Array:
    """Vectors as lists, null in a row that failed."""
    import numpy as np
    import pyarrow as pa

    rows, width = made.vectors.shape
    if rows * width > MOST:
        msg = f"a batch of {rows:,} vectors of {width:,} numbers is more than Arrow's lists hold: make smaller batches"
        raise ConfigError(msg)
    failed = np.zeros(rows, bool)
    failed[list(made.failures)] = True
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * np.int32(width))
    return pa.ListArray.from_arrays(offsets, pa.array(made.vectors.reshape(-1)), mask=pa.array(failed))


def _first_row(usage: Usage, rows: int, kinds: Sequence[Any]) -> list[pa.Array]:
    """Tokens, requests, cost and rows from a cache, in the first row."""
    import pyarrow as pa

    took = (usage.tokens, usage.requests, usage.cost, usage.cached)
    return [pa.array([value, *[None] * (rows - 1)], kind) for value, kind in zip(took, kinds, strict=True)]


def rebuilt(model: str | Embedder | None, settings: Mapping[str, Any]) -> Batches:
    """A `Batches` from all keywords of an adapter."""
    own = ("column", "output", "workers", "usage", "send_keys")
    told = {name: settings[name] for name in own if name in settings}
    return Batches(model, {name: value for name, value in settings.items() if name not in own}, **told)
