"""A job into a store that is killed and resumed, and two at once: as if it had been one, uninterrupted."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import pytest

from embedkit._bulk.stores import open_store
from tests.support import store_child
from tests.support.stores import REAL, params, vectors


def child(url, journal, rows, step, *more):
    command = [sys.executable, "-m", "tests.support.store_child", url, str(journal), str(rows), str(step), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ended(process):
    out, err = process.communicate(timeout=250)
    assert process.returncode == 0, err.decode()
    return out


def check(real, tmp_path, tell, rows, step, kills):
    (tmp_path / "whole").mkdir()
    whole, url, journal = real.url(tmp_path / "whole"), real.url(tmp_path), tmp_path / "journal"
    chance = random.Random(rows + kills)
    begun = time.monotonic()
    store_child.write(whole, tmp_path / "other", rows, step, wait=0.002)
    lasts = time.monotonic() - begun
    hit = 0
    for _ in range(kills):
        process = child(url, journal, rows, step)
        process.stdout.readline()
        time.sleep(chance.uniform(0, 1.6 * lasts / kills))
        process.kill()
        process.communicate()
        hit += process.returncode == -9
    ended(child(url, journal, rows, step))
    tell(f"{real.needs[0]}: {hit} of {kills} kills hit a job of {rows:,} rows")

    found = real.rows(url)
    assert hit
    assert len(found) == rows
    assert found == real.rows(whole)
    assert {key for key, row in found.items() if row.vector is None} == {f"k{row}" for row in range(0, rows, 17)}
    store = open_store(url, key="id")
    same = store.unchanged([f"k{row}" for row in range(rows)], [f"text {row}" for row in range(rows)])
    store.close()
    assert same == {row for row in range(rows) if row % 17}
    last = rows - 1 if (rows - 1) % 17 else rows - 2
    assert real.nearest(url, vectors(last, 1)[0])[0] == f"k{last}"


@pytest.mark.parametrize("real", params("sqlite", "duckdb"), indirect=True)
def test_three_kills_lose_and_double_nothing(real, tmp_path, tell):
    """Kill -9 at three instants of a short job."""
    check(real, tmp_path, tell, rows=900, step=25, kills=3)


@pytest.mark.engines
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", list(REAL))
def test_twenty_kills_lose_and_double_nothing(name, servers, tmp_path, tell):
    """Kill -9 at twenty instants of a long job."""
    servers(name)
    rows, step = (4_000, 20) if name == "qdrant" else (100_000, 500)
    check(REAL[name], tmp_path, tell, rows=rows, step=step, kills=20)


@pytest.mark.parametrize("real", params("sqlite", "postgresql", "lancedb"), indirect=True)
def test_two_jobs_at_once_both_have_their_rows(real, tmp_path):
    """Different keys and the table made by both at the same moment."""
    url = real.url(tmp_path)
    jobs = [child(url, tmp_path / f"journal {prefix}", 300, 20, prefix) for prefix in ("a", "b")]
    for process in jobs:
        ended(process)
    found = real.rows(url)

    assert set(found) == {f"{prefix}{row}" for prefix in ("a", "b") for row in range(300)}


@pytest.mark.parametrize("real", params("sqlite", "postgresql"), indirect=True)
def test_two_jobs_with_the_same_keys_do_not_wait_in_a_circle(real, tmp_path):
    """Both write all rows, and each key is there once."""
    url = real.url(tmp_path)
    jobs = [child(url, tmp_path / f"journal {number}", 300, 20) for number in (1, 2)]
    for process in jobs:
        ended(process)

    assert set(real.rows(url)) == {f"k{row}" for row in range(300)}
