"""The smallest source and sink, and a job over them, for tests of what a job does between the two."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from embedkit._bulk.contract import Block, RowDigest, Scan, Sink, Source
from embedkit._bulk.job import Job, Settings


class Texts(Source):
    """Rows of a list, in blocks of so many; None is a row without a text."""

    def __init__(self, texts, block=7, keys=None, scans=True):
        self.texts, self.block, self.keys, self.scans = texts, block, keys, scans

    def blocks(self):
        for start in range(0, len(self.texts), self.block):
            texts = self.texts[start : start + self.block]
            faults = {start + place: "no text" for place, text in enumerate(texts) if text is None}
            keys = None if self.keys is None else self.keys[start : start + self.block]
            yield Block(list(texts), [{"text": text} for text in texts], faults, keys)

    def described(self):
        return {"inputs": ["texts"], "column": "text"}

    def scan(self, count_tokens):
        if not self.scans:
            return None
        digest = RowDigest()
        bad = {}
        tokens = 0
        for block in self.blocks():
            digest.update(block.texts, block.keys)
            bad |= block.faults
            tokens += sum(count_tokens(text) for text in block.texts if text)
        return Scan(
            rows=digest.rows, bad=len(bad), examples=dict(list(bad.items())[:3]), tokens=tokens, digest=digest.hex()
        )


class Lines(Sink):
    """One JSON line per row: text, vector, failure, key."""

    form = "lines"

    def __init__(self, path):
        self.target, self.place = str(path), Path(path)
        self.file = None
        self.syncs = 0

    def exists(self):
        return self.place.exists()

    def room_needed(self, rows, like, records):
        return rows * like.shape[1] * 20

    def begin(self, folder, like, state):
        self.path = folder / "rows"
        self.width = like.shape[1]
        self.rows = state["rows"] if state else 0
        self.file = self.path.open("r+b" if self.path.exists() else "w+b")
        self.file.truncate(state["size"] if state else 0)
        self.file.seek(0, os.SEEK_END)

    def write(self, pieces, vectors, failures, keys):
        records = [record for piece in pieces for record in piece]
        assert len(records) == len(vectors)
        for place, (record, vector) in enumerate(zip(records, vectors, strict=True)):
            row = {**record, "vector": None if place in failures else vector.tolist(), "why": failures.get(place)}
            self.file.write(json.dumps(row | ({"key": keys[place]} if keys else {})).encode() + b"\n")
        self.rows += len(records)

    def sync(self):
        self.file.flush()
        os.fsync(self.file.fileno())
        self.syncs += 1
        return {"rows": self.rows, "size": self.file.tell()}

    def finish(self, metadata):
        self.close()
        self.path.replace(self.place)

    def finished(self, folder, state):
        return self.place.exists() and not (folder / "rows").exists()

    def reopen(self, folder, state):
        (folder / "rows").write_bytes(self.place.read_bytes())
        return dict(state)

    def close(self):
        if self.file is not None:
            self.file.close()
            self.file = None


def rows_of(path):
    return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]


def job(source, embedder, out, *, tell=None, now=None, sleep=None, sink=Lines, **settings):
    source = source if isinstance(source, Source) else Texts(source)
    clock = {} if now is None else {"now": now, "sleep": sleep}
    return Job(source, embedder, sink(out), Settings(**settings), tell or (lambda notice: None), **clock)


def vector(text):
    return np.array([len(text), sum(map(ord, text)) % 1000, 0.5], np.float32)
