"""The real command into real stores, killed at random instants: no row is lost, doubled or moved."""

from __future__ import annotations

import time

import msgspec
import numpy as np
import pytest

from benchmarks.server import wire
from benchmarks.stores import measured
from embedkit._bulk.stores.url import parse_url
from embedkit._bulk.writer import FEWEST
from tests.support.kills import ON_ITS_WAY, Command, points
from tests.support.stores import REAL, params

WIDTH = 384


def given(path, count):
    """Records with keys, and a field beside the text."""
    encode = msgspec.json.Encoder().encode
    with path.open("wb") as file:
        for row, text in enumerate(wire.texts(count)):
            file.write(encode({"id": f"k{row}", "text": text, "n": row}) + b"\n")
    return str(path)


def check(real, folder, tell, rows, kills):
    """Kill a job so often, let it end, and compare every row with the one that its text asks for.

    A commit that a disk holds up for seconds speaks of no more rows than another: what a kill costs is compared with
    what the run was sent in its busiest seconds, not in the last ones.
    """
    url = real.url(folder)
    begun, hits = time.monotonic(), []
    with wire.server(WIDTH, latency=8) as server:
        command = Command(
            url, given(folder / "in.jsonl", rows), "--key", "id", "-m", "compatible:m", "--base-url", f"{server.url}/v1",
            seen=lambda: int(server.stats()["texts"]), place=folder / parse_url(url).slug,
        )  # fmt: skip
        for texts, delay in points(kills, rows):
            kill = command.killed(texts - command.kept(), delay)
            if kill is None:
                break
            hits.append(kill)
        command.finish()
        sent = int(server.stats()["texts"])
    most = max(hits, key=lambda kill: kill.extra - max(kill.busiest, FEWEST), default=None)
    lasted = time.monotonic() - begun
    tell(
        f"{real.needs[0]}: {len(hits)} of {kills} kills hit a job of {rows:,} rows, which took {lasted:.0f} s; sent "
        f"again: {[kill.extra for kill in hits]}, of the busiest two seconds {[kill.busiest for kill in hits]}"
    )

    assert hits
    assert most.extra <= max(most.busiest, FEWEST) + ON_ITS_WAY, most
    assert sent == rows + sum(kill.extra for kill in hits)
    found = np.zeros(rows, int)
    expected = wire.rows(WIDTH)
    for keys, vectors in real.columns(url):
        numbers = np.array([int(key[1:]) for key in keys])
        found += np.bincount(numbers, minlength=rows)
        assert np.array_equal(vectors, expected[numbers % len(expected)])
    assert (found == 1).all()


@pytest.mark.parametrize("real", params("sqlite"), indirect=True)
def test_three_kills_of_the_command_cost_no_row(real, tmp_path, tell):
    """A job that is killed three times leaves the store as one that is not; what was committed is not sent again."""
    check(real, tmp_path, tell, 6_000, 3)


@pytest.mark.engines
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", list(REAL))
def test_twenty_kills_of_a_large_job_cost_no_row(name, servers, tmp_path, tell):
    """As above, at 200,000 rows into every store; Qdrant's local mode, which is for small ones, has 20,000."""
    servers(name)
    check(REAL[name], tmp_path, tell, 20_000 if name == "qdrant" else 200_000, 20)


@pytest.mark.engines
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", list(REAL))
def test_a_job_takes_little_more_memory_than_the_client(name, tell):
    """The whole process of a job of 200,000 rows holds at most 250 MB more than one that writes them with the client
    alone. Qdrant's local mode, which is for small ones, has 20,000.
    """
    rows = 20_000 if name == "qdrant" else 200_000
    alone, job = (measured(name, how, rows)["MB"] for how in ("alone", "job"))
    tell(f"{name}: {rows:,} rows take the client {alone:,.0f} MB, and a job {job:,.0f} MB")

    assert job <= alone + 250
