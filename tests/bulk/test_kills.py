"""The real command, killed at random instants: no row is lost, doubled or moved, and hardly a text is sent twice."""

from __future__ import annotations

import hashlib
import time

import numpy as np
import pytest

from benchmarks.server import wire
from tests.support.kills import ON_ITS_WAY, Command, left, points, vectors
from tests.support.servers.api import Api

ROWS, BIG, WIDTH = 6_000, 200_000, 384


def of_text(text):
    """Eight numbers that no other text has."""
    return (np.frombuffer(hashlib.blake2b(text.encode(), digest_size=16).digest(), "<u2") / 65536).tolist()


class Slow(Api):
    """Answers after some milliseconds, and counts the texts that it was sent."""

    texts = 0

    def answer(self, body, key):
        """As `Api.answer`, with vectors of eight numbers."""
        with self._lock:
            self.texts += len(body["input"])
        time.sleep(0.03)
        data = [{"index": row, "embedding": of_text(text)} for row, text in enumerate(body["input"])]
        return 200, {}, {"data": data, "model": body["model"], "usage": {"prompt_tokens": len(data)}}


def check(command, count, rows):
    """Kill it at so many instants, then let it end; the kills that hit. No text is sent again without need."""
    hits = []
    for texts, delay in points(count, rows):
        kill = command.killed(texts - command.kept(), delay)
        if kill is None:
            break
        assert kill.extra <= kill.latest + ON_ITS_WAY, kill
        hits.append(kill)
    command.finish()
    assert left(command.output) == ["", ".report.json"]
    return hits


@pytest.mark.parametrize("name", ["vectors.npy", "vectors/"])
def test_three_kills_cost_no_row(tmp_path, name):
    """A job that is killed three times ends with the rows of one that is not; what was written is not sent again."""
    texts = [f"text number {number}" for number in range(ROWS)]
    (tmp_path / "texts.txt").write_text("\n".join(texts), "utf-8")
    with Slow() as api:
        command = Command(
            str(tmp_path / name) + "/" * name.endswith("/"), str(tmp_path / "texts.txt"), "-m", "compatible:m",
            "--base-url", api.url, seen=lambda: api.texts,
        )  # fmt: skip
        hits = check(command, 3, ROWS)
        assert api.texts == ROWS + sum(kill.extra for kill in hits)

    assert np.array_equal(vectors(command.output), np.array([of_text(text) for text in texts], np.float32))


@pytest.mark.engines
@pytest.mark.parametrize("name", ["vectors.npy", "vectors.jsonl", "vectors.parquet", "vectors.arrow", "vectors/"])
def test_twenty_kills_of_a_large_job_cost_no_row(tmp_path, name):
    """As above, at 200,000 texts into every kind of file."""
    (tmp_path / "texts.txt").write_text("\n".join(wire.texts(BIG)), "utf-8")
    with wire.server(WIDTH, latency=8) as server:
        command = Command(
            str(tmp_path / name) + "/" * name.endswith("/"), str(tmp_path / "texts.txt"), "-m", "compatible:m",
            "--base-url", f"{server.url}/v1", seen=lambda: int(server.stats()["texts"]),
        )  # fmt: skip
        hits = check(command, 20, BIG)
        assert server.stats()["texts"] == BIG + sum(kill.extra for kill in hits)

    rows = wire.rows(WIDTH)
    made = vectors(command.output)
    assert len(made) == BIG
    for start in range(0, BIG, len(rows)):
        assert np.array_equal(made[start : start + len(rows)], rows[: BIG - start]), start
