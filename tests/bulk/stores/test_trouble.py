"""Stores in trouble: one clear error without a password, nothing lost, and a later run goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedkit._bulk.stores import StoreError, open_store
from embedkit.errors import ConfigError
from tests.bulk.stores.test_stores import job, opened, put
from tests.support.stores import params


@pytest.mark.parametrize(
    ("module", "url", "extra"),
    [
        ("apsw", "sqlite:x.db", "sqlite-vec"),
        ("sqlite_vec", "sqlite:x.db", "sqlite-vec"),
        ("duckdb", "duckdb:x.db", "duckdb"),
        ("lancedb", "lancedb:x", "lancedb"),
        ("psycopg", "postgresql://u:secret@h/d", "postgres"),
        ("qdrant_client", "qdrant:x", "qdrant"),
    ],
)
def test_a_client_that_is_not_installed_is_named_with_its_extra(monkeypatch, tmp_path, module, url, extra):
    """What to install, before anything is sent; the password of the address is not in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"its client, {module}, is not installed; .*\[{extra}\]") as caught:
        open_store(url, key="id").exists()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("real", params("sqlite", "duckdb"), indirect=True)
def test_a_file_of_something_else_is_left_alone(real, tmp_path):
    """It is no database, and stays what it was."""
    url = real.url(tmp_path)
    path = Path(url.partition(":")[2].rpartition("#")[0])
    path.write_bytes(b"precious" * 1000)
    with pytest.raises(StoreError, match=path.name):
        opened(url)

    assert path.read_bytes() == b"precious" * 1000


@pytest.mark.parametrize("real", params("postgresql"), indirect=True)
def test_a_server_that_cannot_be_reached_is_named_without_the_password(real, tmp_path):
    """Neither in the message nor in what caused it."""
    import traceback

    for url in (
        "postgresql://u:s3cret@127.0.0.1:1/d#t",
        "postgresql://u:s3cret@127.0.0.1:x/d",
        "postgresql://u:s3c ret@h?x=1",
    ):
        with pytest.raises(StoreError) as caught:
            open_store(url, key="id").exists()
        assert "s3c" not in "".join(traceback.format_exception(caught.value))


def hung_up(real, url):
    with real.open(url) as (base, _):
        base.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'embedkit'")


@pytest.mark.parametrize("real", params("postgresql"), indirect=True)
def test_a_job_outlasts_a_server_that_restarts(real, tmp_path):
    """The connection is made again, and the rows that wait are written."""
    url = real.url(tmp_path)
    store = opened(url)
    waited = []
    store.sleep = waited.append
    put(store, 0, 50)
    store.sync()
    put(store, 50, 50)
    hung_up(real, url)
    assert store.sync() == {"rows": 100}
    store.close()

    assert len(waited) == 1
    assert len(real.rows(url)) == 100


@pytest.mark.parametrize("real", params("postgresql"), indirect=True)
def test_a_job_whose_server_stays_away_goes_on_later(real, tmp_path):
    """Half a write is none; the next run writes it."""
    url = real.url(tmp_path)
    store = opened(url)
    store.waits = ()
    put(store, 0, 50)
    state = store.sync()
    put(store, 50, 50)
    hung_up(real, url)
    with pytest.raises(StoreError):
        store.sync()
    store.close()
    assert len(real.rows(url)) == 50
    store = opened(url, state)
    put(store, 50, 50)
    store.sync()
    store.close()

    assert len(real.rows(url)) == 100


@pytest.mark.parametrize("real", params("postgresql"), indirect=True)
def test_a_table_in_a_schema(real, tmp_path):
    """`schema.table` is two names."""
    url = real.url(tmp_path, "Some where.t")
    with pytest.raises(StoreError, match="Some where"):
        job(url)
    with real.open(url.replace("Some where.", "")) as (base, _):
        base.execute('CREATE SCHEMA "Some where"')
    job(url)
    job(url)

    assert len(real.rows(url)) == 5


@pytest.mark.parametrize("real", params("postgresql"), indirect=True)
def test_a_job_may_find_the_extension_elsewhere(real, tmp_path):
    """A user that may not create extensions is told what is to be run."""
    url = real.url(tmp_path)
    with real.open(url) as (base, _):
        base.execute("CREATE ROLE nobody_much LOGIN")
        base.execute("GRANT ALL ON SCHEMA public TO nobody_much")
    theirs = url.replace("postgres:@", "nobody_much:@").replace("//postgres@", "//nobody_much@")
    try:
        with pytest.raises(ConfigError, match="CREATE EXTENSION vector"):
            job(theirs)
        with real.open(url) as (base, _):
            base.execute("CREATE EXTENSION vector")
        job(theirs)
        assert len(real.rows(url)) == 5
    finally:
        with real.open(url) as (base, _):
            base.execute("DROP OWNED BY nobody_much CASCADE")
            base.execute("DROP ROLE nobody_much")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB."""
    place = tmp_path / "small"
    place.mkdir()
    made = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", place], check=False, capture_output=True
    ).returncode == 0  # fmt: skip
    if not made:
        pytest.skip("a file system can be mounted by root only")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.engines
@pytest.mark.parametrize("real", params("sqlite", "duckdb", "lancedb"), indirect=True)
def test_a_full_disk_loses_nothing_that_was_synced(real, small_disk):
    """The error says so; when there is room again the job goes on where it was."""
    url = real.url(small_disk)
    (small_disk / "filler").write_bytes(bytes(1_000_000))
    store = opened(url)
    state, at = None, 0
    with pytest.raises(StoreError, match=r"(?i)full|space|no room|disk"):
        while at < 100_000:
            put(store, at, 500)
            state = store.sync()
            at += 500
    store.close()
    assert state
    (small_disk / "filler").unlink()
    held = real.rows(url)
    assert len(held) >= state["rows"]
    store = opened(url, state)
    put(store, state["rows"], 500)
    assert store.sync() == {"rows": state["rows"] + 500}
    store.close()

    assert set(real.rows(url)) == {f"k{row}" for row in range(state["rows"] + 500)}
