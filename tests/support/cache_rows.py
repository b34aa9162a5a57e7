"""Rows for tests of caches: what belongs under each key is known, and nothing else looks like it."""

from __future__ import annotations

from hashlib import blake2b


def key(number):
    return blake2b(str(number).encode(), digest_size=16).digest()


def row(number, size=1536):
    """What belongs under `key(number)`."""
    return (blake2b(b"row %d" % number).digest() * (size // 64 + 1))[:size]


def rows(numbers, size=1536):
    return {key(number): row(number, size) for number in numbers}


def keys(numbers):
    return [key(number) for number in numbers]
