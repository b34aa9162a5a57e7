"""A cache in one SQLite file, for any number of processes and threads.

Two tables. `vectors` holds the rows in the order in which they came, so that texts that were embedded together lie
together: a corpus that is embedded again is read from one end to the other. `entries` is small and says where the row
of a key lies, and whether it was asked for since it was put there. When the file is full, the oldest rows go, but those
that were asked for meanwhile are put at the end once more ("second chance", also called CLOCK: about the least recently
used go first). So a hit costs no write, but for the first one of a row, and those are written thousands at a time.

A row is found by half of its key, and taken for it only where the whole key and the checksum agree: damage that SQLite
does not see costs hits. A damaged cache is set aside as `*.corrupt`, and a new one begun. A file that is not known to
be a cache of ours, by its application_id, is left as it is.

The journal is a write-ahead log (https://www.sqlite.org/wal.html): readers and a writer do not wait for each other, and
a killed process damages nothing. There is no fsync per write: after a power failure the last rows may be missing.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

from .._hints import Later
from .._values import is_whole, shown
from ..errors import ConfigError
from .base import Cache, CacheError
from .lending import Lending

if TYPE_CHECKING:
    import sqlite3
else:
    sqlite3 = Later("sqlite3")  # an import of some milliseconds, which most users of `connect` do not need

FORMAT = 1  # of the tables; user_version in the file
APPLICATION = int.from_bytes(b"ekvc")  # application_id in the file
MAGIC = b"SQLite format 3\0"  # https://www.sqlite.org/fileformat.html, section 1.3: 16 bytes; application_id is at 68
HEADER, ID_AT = 100, slice(68, 72)
SMALLEST, USUAL = 2**20, 2**32  # bytes
PAGE = 8192  # bytes; measured: 4,096 reads rows in order 30 % slower, 16,384 rows out of order 10 %
PART = 256  # keys per query
PEEK = 8  # most keys that are read on the event loop
PATIENCE = 2.0  # seconds that a lock of another process is waited for
NOTED = 2**15  # first hits that are written together; fewer at a time rewrite most of `entries` as often
EVICTED, ROUNDS = 512, 64  # rows considered at a time, and how often per write
# SQLITE_CORRUPT, SQLITE_NOTADB; and SQLITE_TOOBIG, SQLITE_CONSTRAINT, SQLITE_MISMATCH, which nothing that is done here
# can cause: https://www.sqlite.org/rescode.html
DAMAGE = (11, 26, 18, 19, 20)
FURTHEST = 2**62  # place; no file has so many rows
# The log is written back when it has 4 MiB, and begun anew at the next write, unless somebody reads it just then. Where
# several processes are busy somebody always does, and it would grow without end: from LOG on, who writes has the others
# wait for a moment, and empties it.
LOG, MOMENT = 2**24, 0.25  # bytes, seconds
SETTINGS = ("synchronous = NORMAL", "wal_autocheckpoint = 512", f"journal_size_limit = {2**23}", "cache_size = -8192")
ENTRIES = "CREATE TABLE entries (key INTEGER PRIMARY KEY, place INTEGER NOT NULL, used INTEGER NOT NULL)"
VECTORS = (
    "CREATE TABLE vectors (place INTEGER PRIMARY KEY, key INTEGER NOT NULL, digest BLOB NOT NULL, "
    "checksum INTEGER NOT NULL, row BLOB NOT NULL)"
)
# CROSS JOIN keeps SQLite to this order of tables: https://www.sqlite.org/optoverview.html, section 8.1
FIND = (
    "SELECT e.used, v.digest, v.checksum, v.row FROM json_each(?) AS wanted "
    "CROSS JOIN entries AS e ON e.key = wanted.value CROSS JOIN vectors AS v ON v.place = e.place"
)
REPLACED = (
    "DELETE FROM vectors WHERE place IN (SELECT e.place FROM json_each(?) AS j JOIN entries AS e ON e.key = j.value)"
)
NOTE = "UPDATE entries SET used = 1 WHERE used = 0 AND key IN (SELECT value FROM json_each(?))"
OLDEST = (
    "SELECT v.place, v.key, coalesce(e.used, 0) FROM vectors AS v "
    "LEFT JOIN entries AS e ON e.key = v.key AND e.place = v.place ORDER BY v.place LIMIT ?"
)
NEXT = "SELECT coalesce(max(place), 0) + 1 FROM vectors"


class _Open(NamedTuple):
    """A connection, and the file that it is to: that of its name may be another one by now."""

    sql: sqlite3.Connection
    file: tuple[int, int]


class _DamagedError(Exception):
    """What was read from the file cannot have been written."""


class SQLiteCache(Cache):
    """Rows in a file, of at most about `max_bytes`.

    Args:
        path: the file. It is made on first use, in a folder that is there; `path-wal` and `path-shm` lie beside it
            while it is open. Not on a network drive, whose locks SQLite cannot rely on.
        max_bytes: of the file; the write-ahead log takes some megabytes more, up to some tens where several processes
            write at once. A smaller number than before makes room bit by bit, and the file itself does not get smaller.
            Each process obeys its own.

    Raises:
        ConfigError: `path` cannot be a cache: its folder is missing, it is a folder or a device, or another program's
            database.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_bytes: int = USUAL) -> None:
        if not is_whole(max_bytes, SMALLEST):
            msg = f"max_bytes={shown(max_bytes)}: a whole number of bytes, at least {SMALLEST:,}"
            raise ConfigError(msg)
        self.path: Path = Path(os.path.abspath(path))  # noqa: PTH100 (resolve() would follow links)
        self.max_bytes: int = max_bytes
        self._longest = LOG
        self._unused: list[bytes] = []  # keys whose first hit is not written yet
        self._connections = Lending(partial(_open, self.path), _close, partial(_is_current, self.path))
        _refuse(self.path, os.fspath(path))

    def read(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """The rows of those keys that it has."""
        with self._connection() as sql:
            found = self._found(sql, keys)
            if len(self._unused) >= NOTED:
                self._note(sql)
        return found

    def peek(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes] | None:
        """As `read`, for a few keys, from a file that is open; None where it is locked."""
        if len(keys) > PEEK or len(self._unused) >= NOTED:
            return None
        try:
            with self._connections.idle() as opened:
                return None if opened is None else self._found(opened.sql, keys)
        except sqlite3.Error:
            return None  # `read` meets it again, and may wait

    def write(self, rows: Mapping[bytes, bytes]) -> None:
        """Keep these rows."""
        items = list(rows.items())
        with self._connection() as sql:
            for start in range(0, len(items), EVICTED):
                self._make_room(sql)
                self._add(sql, items[start : start + EVICTED])
            self._shorten(sql)

    def close(self) -> None:
        """Close the file in this process. Used again, it is opened again."""
        if self._unused:
            with suppress(CacheError), self._connection() as sql:
                self._note(sql)
        self._connections.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _revived, (str(self.path), self.max_bytes)

    def __del__(self) -> None:
        with suppress(AttributeError):  # __init__ has refused its arguments
            self._connections.close()

    def __repr__(self) -> str:
        return f"SQLiteCache({str(self.path)!r})"

    # --- reading and writing -----------------------------------------------------------------------------------------

    def _found(self, sql: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        unused: list[bytes] = []
        for start in range(0, len(keys), PART):
            for used, digest, checksum, row in sql.execute(FIND, (_listed(_halves(keys[start : start + PART])),)):
                if type(row) is type(digest) is bytes and crc32(row, crc32(digest)) == checksum:
                    found[digest] = row
                    if not used:
                        unused.append(digest)
        self._unused += unused
        return found

    def _note(self, sql: sqlite3.Connection) -> None:
        """Write which rows had their first hit, unless somebody else is writing: it is a hint."""
        noted, self._unused = self._unused, []
        with suppress(sqlite3.OperationalError):
            sql.execute("PRAGMA busy_timeout = 0")
            sql.execute(NOTE, (_listed(_halves(noted)),))

    def _add(self, sql: sqlite3.Connection, items: Sequence[tuple[bytes, bytes]]) -> None:
        keys = _halves([key for key, _ in items])
        sql.execute("BEGIN IMMEDIATE")
        sql.execute(REPLACED, (_listed(keys),))
        first = _next(sql)
        sql.executemany(
            "INSERT INTO vectors VALUES (?, ?, ?, ?, ?)",
            [
                (place, key, digest, crc32(row, crc32(digest)), row)
                for place, (key, (digest, row)) in enumerate(zip(keys, items, strict=True), first)
            ],
        )
        sql.executemany(
            "INSERT OR REPLACE INTO entries VALUES (?, ?, 0)", [(key, first + row) for row, key in enumerate(keys)]
        )
        sql.execute("COMMIT")

    def _shorten(self, sql: sqlite3.Connection) -> None:
        """Empty a log that has become long. Where somebody reads it for longer than a moment, it is left until it is
        twice as long.
        """
        log, until = Path(f"{self.path}-wal"), time.monotonic() + MOMENT
        if _size(log) <= self._longest:
            return
        self._longest = 2 * _size(log)
        sql.execute(f"PRAGMA busy_timeout = {int(MOMENT * 1000)}")
        while time.monotonic() < until:
            # It does not wait for others who write it back: https://www.sqlite.org/c3ref/wal_checkpoint_v2.html
            if not sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] or _size(log) <= LOG:
                self._longest = LOG
                return
            time.sleep(MOMENT / 25)

    def _make_room(self, sql: sqlite3.Connection) -> None:
        """Drop the oldest rows until the file is within its bound, or enough for now."""
        for _ in range(ROUNDS):
            pages, free, size = (
                sql.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
            )
            if (pages - free) * size <= self.max_bytes:
                return
            if self._unused:
                self._note(sql)
                sql.execute(f"PRAGMA busy_timeout = {int(PATIENCE * 1000)}")
            sql.execute("BEGIN IMMEDIATE")
            _evict(sql)
            sql.execute("COMMIT")

    # --- the file ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """A connection that waits for locks.

        Raises:
            CacheError: the file cannot be used now. A damaged one has been set aside.
        """
        used: list[_Open] = []
        try:
            with self._connections.one() as opened:
                used.append(opened)
                opened.sql.execute(f"PRAGMA busy_timeout = {int(PATIENCE * 1000)}")
                yield opened.sql
                opened.sql.execute("PRAGMA busy_timeout = 0")  # `peek` does not wait
        except (sqlite3.Error, _DamagedError) as error:
            if _is_damage(error):
                raise CacheError(self._set_aside(used[0].file if used else _file(self.path))) from None
            msg = f"{self.path}: {error}"
            raise CacheError(msg) from None
        except OSError as error:
            msg = f"{self.path}: {error.strerror or type(error).__name__}"
            raise CacheError(msg) from None

    def _set_aside(self, file: tuple[int, int]) -> str:
        """Rename a damaged file, if it is the one that has its name still, and ours. What has become of it, in words.

        Its log goes first: whoever opens a new file of this name must not find the old log, nor its index. A connection
        to the old one notices the new name, and leaves the new log alone (`databaseIsUnmoved` in SQLite's pager.c).
        """
        self._connections.close()
        if _file(self.path) != file:
            return f"{self.path} was damaged, and somebody else has replaced it"
        if not _is_ours(_header(self.path)):
            return f"{self.path} is damaged, and not known to be a cache of embedkit: it is left as it is, and unused"
        aside, number = Path(f"{self.path}.corrupt"), 1
        while aside.exists():
            number += 1
            aside = Path(f"{self.path}.corrupt.{number}")
        try:
            for suffix in ("-wal", "-shm", ""):
                with suppress(FileNotFoundError):
                    os.replace(f"{self.path}{suffix}", f"{aside}{suffix}")  # noqa: PTH105 (of text, not of a path)
        except OSError as error:
            return f"{self.path} is damaged, and cannot be renamed ({error.strerror}): it is unused"
        return f"{self.path} was damaged; it was set aside as {aside.name}, and a new one is begun"


def _revived(path: str, max_bytes: int) -> SQLiteCache:
    return SQLiteCache(path, max_bytes=max_bytes)


def _is_current(path: Path, opened: _Open) -> bool:
    """Whether it is to the file that has the name now: it may have been set aside, replaced or removed."""
    return opened.file == _file(path)


def _open(path: Path) -> _Open:
    """A connection to a cache, which is made where there is no file, or an empty one."""
    header = _header(path)
    if header and not _is_ours(header):
        msg = f"{path} is no cache of embedkit, or its beginning is damaged: it is left as it is, and unused"
        raise CacheError(msg)
    sql = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
    try:
        _prepare(sql, path, new=not header)
    except BaseException:
        sql.close()
        raise
    return _Open(sql, _file(path))


def _prepare(sql: sqlite3.Connection, path: Path, *, new: bool) -> None:
    if new:
        _create(sql)
    if (found := sql.execute("PRAGMA user_version").fetchone()[0]) != FORMAT:
        msg = (
            f"{path} is a cache of format {found}, and this embedkit has format {FORMAT}: it is left as it is, and "
            "unused; name another file"
        )
        raise CacheError(msg)
    with suppress(sqlite3.OperationalError):  # busy: another process does the same just now
        sql.execute("PRAGMA journal_mode = WAL").fetchall()
    for how in SETTINGS:
        sql.execute(f"PRAGMA {how}").fetchall()


def _create(sql: sqlite3.Connection) -> None:
    """Make the tables, in one transaction: the file is empty, or known to be ours."""
    sql.execute(f"PRAGMA page_size = {PAGE}")
    sql.execute("BEGIN IMMEDIATE")
    if sql.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:  # else another process was faster
        for line in (ENTRIES, VECTORS, f"PRAGMA user_version = {FORMAT}", f"PRAGMA application_id = {APPLICATION}"):
            sql.execute(line)
    sql.execute("COMMIT")


def _evict(sql: sqlite3.Connection) -> None:
    """Drop some of the oldest rows. Those that had a hit are put at the end, up to half of them: so room is made."""
    oldest = sql.execute(OLDEST, (EVICTED,)).fetchall()
    if not oldest:
        return
    kept = [(place, key) for place, key, used in oldest if used][: len(oldest) // 2]
    moved = {place for place, _ in kept}
    first = _next(sql)
    sql.executemany(
        "UPDATE vectors SET place = ? WHERE place = ?", [(new, place) for new, (place, _) in enumerate(kept, first)]
    )
    sql.executemany(
        "UPDATE entries SET place = ?, used = 0 WHERE key = ?", [(new, key) for new, (_, key) in enumerate(kept, first)]
    )
    sql.executemany(
        "DELETE FROM entries WHERE key = ? AND place = ?",
        [(key, place) for place, key, _ in oldest if place not in moved],
    )
    sql.execute("DELETE FROM vectors WHERE place <= ?", (oldest[-1][0],))


def _next(sql: sqlite3.Connection) -> int:
    """The place of the next row."""
    place = sql.execute(NEXT).fetchone()[0]
    if not isinstance(place, int) or not 0 < place < FURTHEST:
        raise _DamagedError
    return place


def _is_damage(error: Exception) -> bool:
    """Whether the file is at fault. A table is missing where its name was overwritten."""
    missing = str(error) in ("no such table: entries", "no such table: vectors")
    return missing or isinstance(error, _DamagedError) or getattr(error, "sqlite_errorcode", 0) & 0xFF in DAMAGE


def _halves(keys: Sequence[bytes]) -> tuple[int, ...]:
    """The first eight bytes of each key, as SQLite's integers, by which it finds rows fastest."""
    return struct.unpack(f"<{2 * len(keys)}q", b"".join(keys))[::2]


def _listed(keys: Sequence[int]) -> str:
    return f"[{','.join(map(str, keys))}]"


def _close(opened: _Open) -> None:
    with suppress(Exception):  # also while the interpreter ends, when nothing can be imported any more
        opened.sql.close()


def _file(path: Path) -> tuple[int, int]:
    """Which file has this name; (0, 0): none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_dev, found.st_ino


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _header(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEADER)
    except FileNotFoundError:
        return b""


def _is_ours(header: bytes) -> bool:
    """Whether a file with this beginning is a cache of ours, or what is left of a file after a crash: zeros."""
    return not header.strip(b"\0") or (header.startswith(MAGIC) and int.from_bytes(header[ID_AT]) == APPLICATION)


def _refuse(path: Path, given: str) -> None:
    """ConfigError for what can be no cache, whatever happens later."""
    try:
        possible = b"\0" not in os.fsencode(given)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        msg = f"cache={given!a}: no file can have this name"
        raise ConfigError(msg)
    with suppress(OSError):
        if given in ("", ":memory:"):
            msg = f"cache={given!r}: the path of a file"
        elif path.is_dir():
            msg = f"cache={given!r}: this is a folder; name a file in it"
        elif not path.parent.is_dir():
            msg = f"cache={given!r}: there is no folder {path.parent}; make it first"
        elif path.exists() and not path.is_file():  # to open a pipe would wait for whoever is at its other end
            msg = f"cache={given!r}: this is a pipe, a socket or a device; name a file"
        elif (header := _header(path)).startswith(MAGIC) and not _is_ours(header):
            msg = f"cache={given!r}: this is a database of another program; name another file"
        else:
            return
        raise ConfigError(msg)
