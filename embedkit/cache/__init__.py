"""Keeps vectors that were paid for: a cache is asked before a text is sent.

    embedkit.connect("openai:text-embedding-3-small", cache="vectors.cache")
    embedkit.connect("openai:text-embedding-3-small", cache="redis://localhost:6379/0")
    embedkit.connect("openai:text-embedding-3-small", cache=SQLiteCache("vectors.cache", max_bytes=2**34))

A key is a digest of all that is known to change a vector (provider, address, model, options, prefix, how a long text is
cut) and of the text, so embedders of any kind may share a cache. What nobody can tell from outside changes no key: a
server that serves another model under the same name needs a new cache.

`Cache` is the contract: two methods for one of your own.
"""

from .base import Cache, CacheError
from .redis import RedisCache
from .sqlite import SQLiteCache

__all__ = ["Cache", "CacheError", "RedisCache", "SQLiteCache"]
