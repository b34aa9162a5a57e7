"""What a finished job with a key has embedded already, so that only new and changed records are sent.

A file is read back into a cache in the job's folder, by text, and written anew from it: records keep the order of the
input, and those that are not in it any more are gone. A store is asked by key, and keeps the rows that did not change.
Either is worked out once per job, before its first request, and marked as whole: a later run goes on with the same.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._embedders.cache_keys import CacheKeys
from .._embedders.cached import Cached
from ..cache.sqlite import SQLiteCache
from ..errors import ConfigError
from .contract import Block, Scan, Source
from .disk import sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._embedders.base import Embedder
    from .._hints import NDArray
    from .._types import Options
    from .sinks.file_sink import FileSink
    from .stores.base import Store

CACHE, SELECTION = "known.sqlite", "selection"
ROOM = 1 << 50  # bytes: nothing is to be evicted
MANY = 8192  # rows that a store is asked for at a time


class KnownTexts(Cached):
    """An embedder that sends no text whose vector the finished output has."""

    def __init__(self, inner: Embedder, path: Path) -> None:
        super().__init__(inner, SQLiteCache(path, max_bytes=ROOM), owned=True)

    def _keys(self, options: Options) -> CacheKeys | None:
        return None if self.joins_texts(options) else _keys_under(self.inner, options)


def _keys_under(embedder: Embedder, options: Options) -> CacheKeys:
    return CacheKeys({"output": "of this job"}, options, embedder.splitter(options))


def known_texts(
    embedder: Embedder, options: Options, sink: FileSink, source: Source, folder: Path, like: NDArray[Any]
) -> KnownTexts:
    """The embedder, with a cache of what the finished output holds; read back unless an earlier run has done that.

    Raises:
        ConfigError: the output is none that this sink has written.
    """
    path = folder / CACHE
    if not _is_whole(path):
        for old in folder.glob(f"{CACHE}*"):
            old.unlink()
        cache, keys = SQLiteCache(path, max_bytes=ROOM), _keys_under(embedder, options)
        for _, texts, vectors in sink.read_back(_text_of(source), None, like):
            named = zip(texts, vectors, strict=True)
            rows = [(text, vector) for text, vector in named if text is not None]
            found = keys.of([text for text, _ in rows])
            cache.write({key: vector.tobytes() for key, (_, vector) in zip(found, rows, strict=True)})
        cache.close()
        _mark_whole(path)
    return KnownTexts(embedder, path)


def _text_of(source: Source) -> Callable[[dict[str, Any]], Any]:
    """What makes the text of a record, as the source has made it."""
    fields = getattr(getattr(source, "how", None), "fields", None)
    if fields is None:
        msg = "append with a key needs a source that embedkit opened: it has to know how a record became a text"
        raise ConfigError(msg)
    return lambda record: fields.text(record)[0]


class Selected(Source):
    """Those rows of a source that are new or changed; a mark per row of it, 1 for yes."""

    def __init__(self, source: Source, marks: bytes) -> None:
        self._source = source
        self._marks = marks
        self._rows = array("Q", (row for row, mark in enumerate(marks) if mark))
        self.aside = source.aside

    def blocks(self) -> Iterator[Block]:
        """The selected rows, counted anew."""
        place = count = 0
        for block in self._source.blocks():
            marks = self._marks[place : place + len(block.texts)]
            if len(marks) < len(block.texts):
                msg = "the input has more rows than when the job began; begin anew with --force"
                raise ConfigError(msg)
            rows = [row for row, mark in enumerate(marks) if mark]
            bad = (row for row, text in enumerate(block.texts) if text is None)
            faults = dict(zip(bad, (block.faults[row] for row in sorted(block.faults)), strict=True))
            yield Block(
                [block.texts[row] for row in rows],
                [block.records[row] for row in rows] if isinstance(block.records, list) else block.records.take(rows),
                {count + number: faults[row] for number, row in enumerate(rows) if row in faults},
                None if block.keys is None else [block.keys[row] for row in rows],
            )
            place += len(block.texts)
            count += len(rows)

    def row(self, number: int) -> int:
        """Where a selected row stands in the whole source."""
        return self._rows[number]

    def described(self) -> dict[str, Any]:
        """As the whole source."""
        return self._source.described()

    def scan(self, count_tokens: Callable[[str], int]) -> Scan | None:
        """Of the whole source."""
        return self._source.scan(count_tokens)


def selected(store: Store, source: Source, folder: Path) -> tuple[Selected, int]:
    """The rows of a source that the store does not hold unchanged, and how many they are."""
    path = folder / SELECTION
    if not _is_whole(path):
        marks = bytearray()
        keys: list[Any] = []
        texts: list[str | None] = []

        def ask() -> None:
            same = store.unchanged(keys, texts)
            marks.extend(row not in same for row in range(len(keys)))
            keys.clear()
            texts.clear()

        for block in source.blocks():
            keys += block.keys or [None] * len(block.texts)
            texts += block.texts
            if len(keys) >= MANY:
                ask()
        ask()
        path.write_bytes(marks)
        _mark_whole(path)
    chosen = path.read_bytes()
    return Selected(source, chosen), sum(chosen)


def _is_whole(path: Path) -> bool:
    return path.exists() and _mark(path).exists()


def _mark_whole(path: Path) -> None:
    import os

    with path.open("rb") as file:
        os.fsync(file.fileno())
    _mark(path).touch()
    sync_folder(path.parent)


def _mark(path: Path) -> Path:
    return path.with_name(f"{path.name}.whole")
