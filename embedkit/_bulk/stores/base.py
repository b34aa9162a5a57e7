"""What all stores have in common: rows wait until a flush, a flush is one step that is done or not done, and a table
says what its vectors are.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn, get_args

import msgspec

from ..._hints import NDArray
from ..._install import install
from ..._types import DType
from ...errors import ConfigError, EmbedkitError
from ..contract import Records, Sink, State
from .rows import COLUMNS, Rows, Texts, digest, joined, key_text, stored_keys
from .url import StoreUrl

Metric = Literal["cosine", "l2", "ip"]
FLUSH_ROWS = 8192
FLUSH_BYTES = 16 * 1024 * 1024  # of vectors
WAITS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # seconds between tries, for a server that restarts
LAYOUT = 1  # of the columns; a table of another one is refused


class StoreError(EmbedkitError):
    """The store failed: no connection, no room, a lock that another process holds. A job can go on later.

    `retryable`: the server may be back in a moment.
    """


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """What a table says of its vectors.

    Attributes:
        keys: "text" (a key column) or "integer" (the row's number in the input).
        width: components of a vector; of packed bits, bytes.
        dtype, metric: of the vectors; how they are to be compared.
        made_by: what changes a vector: model, options.
        job: what the last finished job said of itself.
        layout: of the columns.
    """

    keys: Literal["text", "integer"]
    width: int
    dtype: DType
    metric: Metric
    made_by: dict[str, str] = {}
    job: dict[str, str] = {}
    layout: int = LAYOUT

    def json(self) -> str:
        """As a store keeps it."""
        return msgspec.json.encode({"embedkit": self}).decode()


def label_from(text: str | None) -> Label | None:
    """The label that a store has kept; None where there is none."""
    try:
        return msgspec.convert(msgspec.json.decode(text or "null")["embedkit"], Label)
    except (msgspec.MsgspecError, TypeError, KeyError, UnicodeError):
        return None


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What a job asks of a store; `keyed`: rows have keys of their own. `dtype` None: as the vectors' type says."""

    texts: Texts
    keyed: bool
    dtype: DType | None
    metric: Metric
    made_by: dict[str, str]


class Store(Sink):
    """A sink that is a table. `write` may be given what is there already: a row replaces the one with its key.

    A store of its own kind gives `_open`, `_found`, `_create`, `_put`, `_digests`, `_relabel` and `_close`.
    """

    extra: ClassVar[str]
    clients: ClassVar[tuple[str, ...]]  # modules, which the extra installs
    metrics: ClassVar[tuple[Metric, ...]] = get_args(Metric)
    dtypes: ClassVar[tuple[DType, ...]] = get_args(DType)
    paced: ClassVar[bool] = True
    most_rows: ClassVar[int | None] = None  # in one flush, where fewer than FLUSH_ROWS are better
    waits: Sequence[float] = WAITS
    sleep = staticmethod(time.sleep)

    def __init__(self, url: StoreUrl, setup: Setup) -> None:
        self.target = url.shown
        self.form = url.kind
        # Beside the database where that is a file, so that a job is found from any folder, and is no other database's.
        self.place = Path(url.slug) if url.path is None else url.path.with_name(url.slug)
        self.url = url
        self.setup = setup
        self._held: list[Rows] = []
        self._held_rows = self._held_bytes = 0
        self._rows = 0  # given to `write`, from the beginning of the job
        self._wanted: Label | None = None  # None: no vector has come, and no table can be made
        self._there: Label | None = None
        self._opened = False
        if setup.metric not in self.metrics:
            self._refuse(f"it has no metric {setup.metric!r}; there is {', '.join(self.metrics)}")
        if setup.dtype is not None:
            self._check_dtype(setup.dtype)

    # --- what a job calls ---

    def expect(self, metadata: Mapping[str, str]) -> None:
        """Learn what will make the vectors, before anything is asked of the store: as `finish` is told it later."""
        made_by = {name: value for name, value in metadata.items() if name.startswith("embedkit.")}
        options = msgspec.json.decode(made_by.get("embedkit.options", "{}"))
        dtype = options.get("dtype", self.setup.dtype or "float32")
        self._check_dtype(dtype)
        self.setup = msgspec.structs.replace(self.setup, made_by=made_by, dtype=dtype)

    def exists(self) -> bool:
        """Whether a new job would replace rows: where rows are known by their number, and the table is there.

        Raises:
            ConfigError, StoreError: as `check`, so that nothing is paid for that the table could not hold.
        """
        try:
            self.check()
            return self._there is not None and not self.setup.keyed
        finally:
            self.close()

    def gone(self) -> bool:
        """As `Sink.gone`, of a database on this machine."""
        return self.url.path is not None and not self.url.path.exists()

    def reopen(self, folder: Path, state: Mapping[str, Any]) -> State:  # noqa: ARG002
        """Nothing has to be prepared: rows are added, or replaced by key."""
        return dict(state)

    def check(self) -> None:
        """Connect, and compare the table that is there, if any, with what the job asks. Nothing is written.

        Raises:
            ConfigError: the client is not installed; or the table is somebody else's, or of other vectors.
            StoreError: the store cannot be reached.
        """
        self._connect()
        if self._there is not None:
            self._compare(self._there, None)

    def room_needed(self, rows: int, like: NDArray[Any], records: int) -> int | None:
        """As `Sink.room_needed`: the store's disk is its own business."""
        del rows, like, records
        return None

    def begin(self, folder: Path, like: NDArray[Any], state: Mapping[str, Any] | None) -> None:  # noqa: ARG002
        """Start, or go on. Rows after `state` may be there already: they are written again in their place."""
        self._held, self._held_rows, self._held_bytes = [], 0, 0
        self._rows = int(state["rows"]) if state else 0
        self._connect()
        dtype = self.setup.dtype or _dtype_of(like)
        self._check_dtype(dtype)
        wanted = self._label(dtype, like.shape[1])
        if self._there is not None:
            self._compare(self._there, wanted)
            wanted = msgspec.structs.replace(wanted, width=self._there.width)
        elif self._rows and wanted.width:
            self._refuse(f"{self._rows:,} rows are written, but the table is gone; begin anew")
        self._wanted = wanted if wanted.width else None

    def write(
        self, pieces: list[Records], vectors: NDArray[Any], failures: Mapping[int, str], keys: Sequence[Any] | None
    ) -> None:
        """Add rows; they leave in a flush."""
        count, first = len(vectors), self._rows
        self._rows += count
        if self._wanted is None or not count:
            return
        texts = [text for piece in pieces if len(piece) for text in self.setup.texts(piece)]
        rows = Rows(
            list(range(first, first + count)),
            vectors if vectors.shape[1] == self._wanted.width else _blank(vectors, self._wanted.width),
            [failures.get(place) for place in range(count)],
            [None if place in failures or text is None else digest(text) for place, text in enumerate(texts)],
            [piece for piece in pieces if len(piece)],
        )
        if self.setup.keyed:
            if keys is None:
                self._refuse("it was opened for rows with keys, and these have none")
            found, places = stored_keys(keys or [], failures, first)
            rows = msgspec.structs.replace(rows if len(places) == count else rows.take(places), keys=found)
        self._held.append(rows)
        self._held_rows += len(rows.keys)
        self._held_bytes += rows.vectors.nbytes
        if self._held_rows >= min(FLUSH_ROWS, self.most_rows or FLUSH_ROWS) or self._held_bytes >= FLUSH_BYTES:
            self._flush()

    def sync(self) -> State:
        """Commit what was written."""
        self._flush()
        return {"rows": self._rows}

    def finish(self, metadata: Mapping[str, str]) -> None:
        """Say in the table what made it; a table for no rows is made, where the width is known."""
        self._flush()
        if self._wanted is None:
            return
        with self.guard():
            if self._there is None:
                self._make(None)
            self._there = msgspec.structs.replace(self._wanted, job=dict(metadata))
            self._relabel(self._there)

    def finished(self, folder: Path, state: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """False: `finish` may be done again."""
        return False

    def close(self) -> None:
        """Close the connection; what was not synced is not written."""
        self._held = []
        self._drop()

    def unchanged(self, keys: Sequence[Any], texts: Sequence[str | None]) -> set[int]:
        """The places of those rows that the table holds already: a vector under this key, made of exactly this text.

        It may be asked before `begin`.

        Raises:
            ConfigError: as `check`.
            StoreError: the store failed.
        """
        if not self._opened:
            self.check()
        if self._there is None:
            return set()
        asked = {place: self._key(key) for place, key in enumerate(keys) if key is not None}
        with self.guard():
            held = self._digests(list(dict.fromkeys(asked.values())))
        return {
            place
            for place, key in asked.items()
            if (text := texts[place]) is not None and key in held and held[key] == digest(text)
        }

    def label(self) -> Label | None:
        """What the table says of its vectors; None where there is none yet."""
        self._connect()
        return self._there

    # --- what a kind of store has ---

    @abstractmethod
    def _open(self) -> None:
        """Connect."""

    @abstractmethod
    def _found(self) -> tuple[Sequence[str], str | None] | None:
        """(columns, label as JSON) of the table; None if there is no such table."""

    @abstractmethod
    def _create(self, label: Label, rows: Rows | None) -> None:
        """Make the table, unless another process has just done so. `rows`: the first that it will hold."""

    @abstractmethod
    def _put(self, rows: Rows, label: Label) -> None:
        """Write rows, each key once among them, all or none, in place of those with their keys; they are safe then."""

    @abstractmethod
    def _digests(self, keys: Sequence[Any]) -> Mapping[Any, str | None]:
        """The digests under these keys, of rows with a vector; keys that are not there may lack."""

    @abstractmethod
    def _relabel(self, label: Label) -> None:
        """Keep another label, and leave the table in good order."""

    @abstractmethod
    def _close(self) -> None:
        """Disconnect."""

    @abstractmethod
    def _failures(self) -> tuple[type[Exception], ...]:
        """What the client raises."""

    def _passing(self, error: Exception) -> bool:  # noqa: ARG002
        """Whether a server failed that may be back in a moment."""
        return False

    def _secrets(self) -> list[str]:
        """What no message may hold."""
        return self.url.secrets

    # --- what they share ---

    @contextmanager
    def guard(self) -> Iterator[None]:
        """A failure of the client as a `StoreError`, without a secret in it."""
        try:
            yield
        except EmbedkitError:
            raise
        except Exception as error:
            if not isinstance(error, (OSError, *self._failures())):
                raise
            said = str(error).strip() or type(error).__name__
            for secret in self._secrets():
                said = said.replace(secret, "***")
            failure = StoreError(f"{self.target}: {said}")
            failure.retryable = self._passing(error)
            raise failure from None

    def _connect(self) -> None:
        if self._opened:
            return
        for client in self.clients:
            try:
                import_module(client)
            except ImportError:
                msg = f"{self.target}: its client, {client}, is not installed; {install(self.extra)}"
                raise ConfigError(msg) from None
        with self.guard():
            self._open()
            self._opened = True
            try:
                self._look()
            except BaseException:
                self._drop()
                raise

    def _look(self) -> None:
        found = self._found()
        self._there = None
        if found is None:
            return
        columns, text = found
        label = label_from(text)
        if label is None:
            self._refuse("there is such a table, and no job of embedkit has made it; name another")
        missing = [name for name in COLUMNS if columns and name not in columns]
        if missing or label.layout != LAYOUT:
            lacks = f"it lacks {', '.join(missing)}" if missing else f"its layout is {label.layout}"
            self._refuse(f"the table is not as a job of embedkit makes it ({lacks}); name another")
        self._there = label

    def _label(self, dtype: DType, width: int) -> Label:
        keys: Literal["text", "integer"] = "text" if self.setup.keyed else "integer"
        return Label(keys=keys, width=width, dtype=dtype, metric=self.setup.metric, made_by=self.setup.made_by)

    def _compare(self, there: Label, wanted: Label | None) -> None:
        """Refuse a table of other vectors; `wanted` None: the width is not known yet."""
        mine = wanted or self._label(self.setup.dtype or there.dtype, 0)
        pairs: list[tuple[str, object, object]] = [
            ("width", there.width, mine.width or there.width),
            ("dtype", there.dtype, mine.dtype),
            ("metric", there.metric, mine.metric),
            ("keys", there.keys, mine.keys),
        ]
        pairs += [(name, there.made_by.get(name, value), value) for name, value in mine.made_by.items()]
        told = [f"{name} {held!r} there, {asked!r} here" for name, held, asked in pairs if held != asked]
        if told:
            self._refuse(f"the table holds other vectors ({'; '.join(told)}); name another table, or ask for the same")

    def _check_dtype(self, dtype: DType) -> None:
        if dtype not in self.dtypes:
            self._refuse(f"it cannot hold dtype {dtype!r}; there is {', '.join(self.dtypes)}")

    def _make(self, rows: Rows | None) -> None:
        if self._wanted is None:
            return
        self._create(self._wanted, rows)
        self._look()
        if self._there is None:
            self._refuse("the table was dropped while it was made")
        self._compare(self._there, self._wanted)

    def _flush(self) -> None:
        if not self._held or self._wanted is None:
            return
        rows = joined(self._held)
        for wait in self.waits:
            try:
                self._commit(rows)
                break
            except StoreError as error:
                if not error.retryable:
                    raise
            self.sleep(wait)
            self._drop()
        else:
            self._commit(rows)
        self._held, self._held_rows, self._held_bytes = [], 0, 0

    def _commit(self, rows: Rows) -> None:
        self._connect()
        with self.guard():
            if self._there is None:
                self._make(rows)
            if self._wanted is not None:
                self._put(rows, self._wanted)

    def _drop(self) -> None:
        """Close the connection, in whatever state it is."""
        if self._opened:
            self._opened = False
            with suppress(Exception):
                self._close()

    def _key(self, key: Any) -> Any:
        return key_text(key) if self.setup.keyed else int(key)

    def _refuse(self, why: str) -> NoReturn:
        msg = f"{self.target}: {why}"
        raise ConfigError(msg)


def _dtype_of(like: NDArray[Any]) -> DType:
    names: dict[str, DType] = {"float32": "float32", "int8": "int8", "uint8": "uint8"}
    return names[like.dtype.name]


def _blank(vectors: NDArray[Any], width: int) -> NDArray[Any]:
    import numpy as np

    return np.zeros((len(vectors), width), vectors.dtype)
