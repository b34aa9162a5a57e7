"""Reads the address of a store: `KIND:PLACE#TABLE`. Pure; nothing here shows a password."""

from __future__ import annotations

import os
import re
from hashlib import sha256
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

import msgspec

from ...errors import ConfigError

Kind = Literal["lancedb", "qdrant", "postgresql", "sqlite", "duckdb"]
TABLE = "embeddings"  # unless the address names another
FORMS: dict[Kind, str] = {
    "lancedb": "lancedb:PATH#table",
    "qdrant": "qdrant:http://host:6333#collection or qdrant:PATH#collection",
    "postgresql": "postgresql://user@host/database#table",
    "sqlite": "sqlite:PATH#table",
    "duckdb": "duckdb:PATH#table",
}
LONGEST = 63  # bytes of a name in PostgreSQL, which cuts longer ones off without an error
_SCHEME = re.compile(r"(lancedb|qdrant|postgresql|postgres|sqlite|duckdb):(?!\\)", re.IGNORECASE)
_NAME = re.compile(r"[\w.-]+")  # what LanceDB and Qdrant take; tables of SQL may have any other name
_HOST = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(:\d+)?")
_REMOTE = re.compile(r"https?://", re.IGNORECASE)


class StoreUrl(msgspec.Struct, frozen=True):
    """Where a store is.

    Attributes:
        kind: which store.
        place: a path, or the URL of a server, with the password it may hold.
        table: of the store; in Qdrant a collection.
    """

    kind: Kind
    place: str
    table: str

    @property
    def shown(self) -> str:
        """The address as it may be shown: without user, password and query."""
        place = _bare(self.place)
        return f"{place}#{self.table}" if self.kind == "postgresql" else f"{self.kind}:{place}#{self.table}"

    @property
    def path(self) -> Path | None:
        """Where on this machine it is, links resolved; None: at a server or an object store."""
        if "://" in self.place:
            return None
        return Path(os.path.realpath(Path(self.place).expanduser()))

    @property
    def slug(self) -> str:
        """The name for a job's files: of the database, and the table. That of a server has the server in it, since the
        jobs of all servers lie in one folder. A name that other tables or files could have too ends in a digest.
        """
        path = self.path
        named = _bare(self.place).partition("://")[2].rstrip("/") if path is None else path.name
        table, plain = _plain(self.table), f"{_plain(named)}.{_plain(self.table)}"
        alone = table == self.table and (path is None or (_plain(named) == named and "." not in table))
        return plain if alone else f"{plain}-{sha256(repr((named, self.table)).encode()).hexdigest()[:8]}"

    @property
    def secrets(self) -> list[str]:
        """What no message may hold, the longest first."""
        _, mark, rest = self.place.partition("://")
        if not mark:
            return []
        head, _, query = rest.partition("?")
        pairs = [pair.partition("=") for pair in query.split("&")]
        words = [self.place, rest.rpartition("@")[0].partition(":")[2], head.rpartition("@")[0].partition(":")[2]]
        words += [value for name, _, value in pairs if "pass" in name.lower() or "key" in name.lower()]
        return sorted({each for word in words for each in (word, unquote(word)) if each}, key=len, reverse=True)

    def __repr__(self) -> str:
        return f"StoreUrl({self.shown!r})"


def _plain(name: str) -> str:
    """Without what no name of a file should hold."""
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)


def _bare(place: str) -> str:
    """A place without user, password and query, also where a password holds what it should not (/, ?, @)."""
    scheme, mark, rest = place.partition("://")
    if not mark:
        return place
    hosts, slash, path = rest.partition("?")[0].rpartition("@")[2].partition("/")
    return scheme + mark + (hosts if all(map(_HOST.fullmatch, hosts.split(","))) else "***") + slash + path


def is_store(target: str) -> bool:
    """Whether an output's name is the address of a store rather than a path."""
    return _SCHEME.match(target) is not None


def parse_url(url: str) -> StoreUrl:
    """The parts of an address.

    Raises:
        ConfigError: it names no store, no place or no table that the store can have.
    """
    scheme = _SCHEME.match(url)
    if scheme is None:
        msg = f"this is no address of a store; there are {', '.join(FORMS.values())}"
        raise ConfigError(msg)
    kind: Kind = "postgresql" if scheme[1].lower() == "postgres" else scheme[1].lower()  # type: ignore[assignment]
    place, _, table = url.rpartition("#") if "#" in url else (url, "", "")
    if kind != "postgresql":
        place = place[scheme.end() :]
    table = table or TABLE
    _check_place(kind, place)
    _check_table(kind, table)
    return StoreUrl(kind, place, table)


def _check_place(kind: Kind, place: str) -> None:
    wanted = f"write {FORMS[kind]}"
    if kind == "postgresql":
        if "://" not in place:
            msg = f"an address of PostgreSQL begins with postgresql://; {wanted}"
            raise ConfigError(msg)
    elif not place or place == ":memory:":
        msg = f"{kind}:{place} names no file or folder that outlives the job; {wanted}"
        raise ConfigError(msg)
    elif kind == "qdrant" and "://" in place and not _REMOTE.match(place):
        msg = f"Qdrant is asked over http or https; {wanted}"
        raise ConfigError(msg)
    elif kind == "lancedb" and place.lower().startswith("db://"):
        msg = f"LanceDB Cloud is not supported; {wanted}, where PATH may be an object store's address"
        raise ConfigError(msg)
    elif kind in ("sqlite", "duckdb") and place.startswith("//"):
        msg = f"{kind}: takes a path, not an address with slashes before it; {wanted}"
        raise ConfigError(msg)


def _check_table(kind: Kind, table: str) -> None:
    if kind == "postgresql" and ("@" in table or "/" in table):  # part of a password, perhaps: not shown
        msg = "what follows # is no name of a table; write # within a password as %23"
        raise ConfigError(msg)
    if kind in ("lancedb", "qdrant") and not _NAME.fullmatch(table):
        msg = f"{kind}: {table!r} is no name it takes: letters, digits, _, - and . only"
        raise ConfigError(msg)
    if "\0" in table or (kind == "postgresql" and any(len(part.encode()) > LONGEST for part in table.split("."))):
        msg = f"{kind}: {table!r} is no name of a table; at most {LONGEST} bytes without a zero byte"
        raise ConfigError(msg)
    if kind == "postgresql" and (table.count(".") > 1 or not all(table.split("."))):
        msg = f"postgresql: {table!r} is neither a table nor schema.table"
        raise ConfigError(msg)
