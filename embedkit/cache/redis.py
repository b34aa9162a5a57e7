"""A cache in Redis or Valkey, for any number of machines. Which rows go when it is full is the server's business:
`maxmemory` and `maxmemory-policy allkeys-lru`.

A row stands there with a checksum of key and row before it: a value that was not written here, or is damaged, is no
hit.

Needs the extra `redis`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any
from zlib import crc32

from .._install import install
from .._types import safe_url
from .._values import is_number
from .._values import shown as brief
from ..errors import ConfigError
from .base import Cache, CacheError

SCHEMES = ("redis://", "rediss://", "unix://")
PART = 256  # keys per command
SUM = 4  # bytes of a checksum
LEAST = 0.001  # seconds; Redis counts milliseconds


class RedisCache(Cache):
    """Rows in a Redis server.

    Args:
        url: `redis://[[user]:password@]host[:port][/database]`, `rediss://…` for TLS, `unix://…` for a socket.
        ttl: seconds after which a row is dropped; None: the server keeps it.
        timeout: seconds that connecting and each command may take. A server that does not answer costs one such wait,
            then it is left alone for a while.
        prefix: what the name of every row begins with.

    Raises:
        ConfigError: a value of the wrong kind; the package `redis` is missing.
    """

    def __init__(self, url: str, *, ttl: float | None = None, timeout: float = 1.0, prefix: str = "embedkit:") -> None:
        if not isinstance(url, str) or not url.startswith(SCHEMES):
            shown = repr(safe_url(url)) if isinstance(url, str) else type(url).__name__
            msg = f"the URL of a Redis cache begins with {', '.join(SCHEMES)}; this is {shown}"
            raise ConfigError(msg)
        for name, value in (("ttl", ttl), ("timeout", timeout)):
            if value is not None and not (is_number(value) and LEAST <= value < math.inf):
                msg = f"{name}={brief(value)}: a number of seconds, at least {LEAST}"
                raise ConfigError(msg)
        if find_spec("redis") is None:
            msg = f"a cache in Redis needs {install('redis')}"
            raise ConfigError(msg)
        self._url = url
        self._ttl = ttl
        self._timeout = timeout
        self._prefix = prefix
        self._client: Any = None

    def read(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """The rows of those keys that it has."""
        found: dict[bytes, bytes] = {}
        with self._connected() as client:
            for start in range(0, len(keys), PART):
                part = keys[start : start + PART]
                rows = client.mget(map(self._name, part))
                found.update(
                    (key, row[SUM:])
                    for key, row in zip(part, rows, strict=True)
                    if row is not None and row[:SUM] == _sum(key, row[SUM:])
                )
        return found

    def write(self, rows: Mapping[bytes, bytes]) -> None:
        """Keep these rows."""
        items = list(rows.items())
        lasting = None if self._ttl is None else math.ceil(1000 * self._ttl)
        with self._connected() as client:
            for start in range(0, len(items), PART):
                pipeline = client.pipeline(transaction=False)
                for key, row in items[start : start + PART]:
                    pipeline.set(self._name(key), _sum(key, row) + row, px=lasting)
                pipeline.execute()

    def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _revived, (self._url, self._ttl, self._timeout, self._prefix)

    def __repr__(self) -> str:
        return f"RedisCache({safe_url(self._url)!r})"

    def _name(self, key: bytes) -> bytes:
        return self._prefix.encode() + key

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        """The client, which is safe to use from threads and after a fork: its connections know their process."""
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        if self._client is None:
            self._client = redis.Redis.from_url(
                self._url, socket_timeout=self._timeout, socket_connect_timeout=self._timeout,
                retry=Retry(NoBackoff(), 0), decode_responses=False,
            )  # fmt: skip
        try:
            yield self._client
        except (redis.RedisError, OSError, ValueError) as error:  # ValueError: of the URL
            msg = f"{self!r} failed: {type(error).__name__}"
            raise CacheError(msg) from None


def _sum(key: bytes, row: bytes) -> bytes:
    return crc32(row, crc32(key)).to_bytes(SUM, "little")


def _revived(url: str, ttl: float | None, timeout: float, prefix: str) -> RedisCache:
    return RedisCache(url, ttl=ttl, timeout=timeout, prefix=prefix)
