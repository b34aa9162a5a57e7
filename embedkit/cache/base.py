"""The contract of a cache: rows of bytes by key."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

Row = bytes | bytearray | memoryview


class CacheError(Exception):
    """A cache cannot be used now. Its message is logged, so it holds no key of a provider and no text.

    A cache may raise anything else too: of that only the kind is logged. No call fails of it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)


class Cache(ABC):
    """Rows by key. A key is 16 bytes, a row is the bytes of one vector; both mean nothing to a cache.

    `read` and `write` are called in worker threads, several at once, and may block. Whatever they raise costs hits and
    not the call: the embedder goes on without the cache, and asks it again after a pause. To pickle an embedder, its
    cache has to pickle too.
    """

    @abstractmethod
    def read(self, keys: Sequence[bytes]) -> Mapping[bytes, Row]:
        """The rows of those keys that it has; up to 1,024 keys, each once."""

    @abstractmethod
    def write(self, rows: Mapping[bytes, bytes]) -> None:
        """Keep these rows, up to 1,024, in place of others under the same keys."""

    def peek(self, keys: Sequence[bytes]) -> Mapping[bytes, Row] | None:  # noqa: ARG002 (most cannot)
        """As `read`, but at once: it is called on the event loop, for a few keys. None: not possible now."""
        return None

    def close(self) -> None:  # noqa: B027 (most hold nothing open)
        """Let go of what is open. A cache that is used again opens again."""
