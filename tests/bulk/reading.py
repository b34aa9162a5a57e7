"""Sources read in tests: each as a job reads it, and looked through, which has to give the same rows."""

from __future__ import annotations

import io
import sys

import pytest

from embedkit import ConfigError
from embedkit._batching.plan import estimate
from embedkit._bulk.contract import RowDigest
from embedkit._bulk.sources.open_source import open_files


def source(names, column="text", **how):
    """A source of files, which refuses bad rows unless it is told to skip them."""
    given = [names] if isinstance(names, str) else names
    if column != "text":
        how["column"] = column
    return open_files(given, **{"skip": False, **how})


def flat(blocks):
    """(texts, faults, keys) of blocks, or what they raise in the place of more."""
    texts, faults, keys, error = [], {}, [], None
    try:
        for block in blocks:
            assert len(block.texts) == len(block.records)
            assert all((block.texts[row - len(texts)] is None) for row in block.faults)
            texts += block.texts
            faults.update(block.faults)
            keys += block.keys if block.keys is not None else []
    except ConfigError as raised:
        error = raised
    return texts, faults, keys, error


def read(given):
    """(texts, faults, keys) of a source. Looking through it, where that is possible, finds exactly the same."""
    found = flat(given.blocks())
    *rows, error = found
    if given.again:
        if hasattr(given, "_all"):
            *lean, same = flat(given._all(lean=True))
            if given.how.limit is None:
                assert (lean, str(same)) == (rows, str(error))
        if error is None and (len(rows[1]) < len(rows[0]) or not rows[0]):
            digest = RowDigest()
            digest.update(rows[0], rows[2] if given.how.fields.key is not None else None)
            scan = given.scan(estimate)
            assert (scan.rows, scan.bad, scan.digest) == (len(rows[0]), len(rows[1]), digest.hex())
            assert list(scan.examples.items()) == list(rows[1].items())[:5]
    if error is not None:
        raise error
    return rows


def texts(names, column="text", **how):
    return read(source(names, column, **how))[0]


def faults(names, column="text", **how):
    """By row, what is wrong with those that are skipped."""
    return read(source(names, column, skip=True, **how))[1]


def keys(names, key, column="text", **how):
    return read(source(names, column, key=key, **how))[2]


def records(names, column="text", carried="jsonl", **how):
    """The whole rows, as dicts."""
    found = []
    for block in source(names, column, carried=carried, **how).blocks():
        found += block.records if isinstance(block.records, list) else block.records.to_pylist()
    return found


def refused(names, column="text", **how):
    with pytest.raises(ConfigError) as error:
        texts(names, column, **how)
    return str(error.value)


class Pipe(io.RawIOBase):
    """A pipe that gives so many bytes at a time."""

    def __init__(self, content, size):
        self._content, self._size = content, size

    def readable(self):
        return True

    def readinto(self, buffer):
        count = min(self._size, len(buffer))
        piece, self._content = self._content[:count], self._content[count:]
        buffer[: len(piece)] = piece
        return len(piece)


def stdin(monkeypatch, content, *, size=1 << 16, **how):
    """The texts that come through a pipe of this content."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Pipe(content, size))))
    return texts("-", **how)
