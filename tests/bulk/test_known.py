"""A finished output and a key: only new and changed records are sent."""

from __future__ import annotations

from pathlib import Path

import anyio
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedkit import ConfigError, QuotaError, bulk
from tests.bulk.test_job import Server, after
from tests.support.jobs import rows_of, vector

FILES = ["out.parquet", "out.arrow", "out.jsonl", "out/"]
STORES = ["duckdb:db.duck#t", "sqlite:db.sqlite#t"]
OLD = [{"id": number, "text": f"text {number}"} for number in range(40)]
NEW = [
    *OLD[:10],
    {"id": 10, "text": "changed"},
    *OLD[12:],
    {"id": 100, "text": "new"},
    {"id": 101, "text": None},
]  # 11 is gone
SENT = {"changed", "new"}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(rows, server, out, **options):
    async def main():
        return await bulk.run(rows, server, out, key="id", **options)

    return anyio.run(main)


def rows_in(out):
    """What the output holds: id → vector."""
    if out.startswith("duckdb"):
        import duckdb

        with duckdb.connect("db.duck") as base:
            return {
                int(key): vector and list(vector)
                for key, vector in base.execute("SELECT key, embedding FROM t").fetchall()
            }
    if out.endswith(".jsonl"):
        return {row["id"]: row["embedding"] for row in rows_of(out)}
    if out.endswith(".arrow"):
        with pa.ipc.open_file(out) as file:
            table = file.read_all()
    else:
        table = pq.read_table(out)
    return {row["id"]: None if row["embedding"] is None else list(row["embedding"]) for row in table.to_pylist()}


def expected(rows):
    return {row["id"]: None if row["text"] is None else vector(row["text"]).tolist() for row in rows}


@pytest.mark.parametrize("out", FILES)
def test_a_file_becomes_that_of_the_new_records(out):
    """In their order; what did not change is not sent, what is gone is gone."""
    run(OLD, Server(), out)
    server = Server()
    report = run(NEW, server, out, append=True)

    assert set(server.sent) == SENT
    assert list(rows_in(out)) == [row["id"] for row in NEW]
    assert rows_in(out) == expected(NEW)
    assert (report.rows, report.failed, report.cached) == (len(NEW), 1, len(NEW) - 3)
    assert not Path(f"{out.rstrip('/')}.job").exists()
    server = Server()
    assert run(NEW, server, out).already


@pytest.mark.parametrize("out", FILES)
def test_a_crash_in_the_middle_of_it(out):
    """The next run sends what is missing, and nothing that the old output had."""
    run(OLD, Server(), out)
    many = [*NEW, *({"id": 1000 + number, "text": f"more {number}"} for number in range(60))]
    with pytest.raises(QuotaError):
        run(many, Server(after(30, lambda: QuotaError("gone", status=402))), out, append=True)
    server = Server()
    run(many, server, out, append=True)

    assert rows_in(out) == expected(many)
    assert not any(text in {row["text"] for row in OLD} for text in server.sent)


@pytest.mark.parametrize("out", STORES)
def test_a_store_gets_what_is_new_or_changed(out):
    """Rows under other keys stay."""
    run(OLD, Server(), out)
    server = Server()
    report = run(NEW, server, out, append=True)

    assert set(server.sent) == SENT
    assert report.rows == 3
    if out.startswith("duckdb"):
        assert rows_in(out) == expected([*OLD, *NEW])
    server = Server()
    run([*NEW, {"id": 102, "text": "newest"}], server, out, append=True)
    assert server.sent == ["newest"]


@pytest.mark.parametrize("out", [*FILES, *STORES])
def test_a_first_job_that_was_ended_goes_on_with_a_corpus_that_grew(out):
    """`append` is the advice, and takes it: the rows that are written are the beginning."""
    with pytest.raises(QuotaError):
        run(OLD, Server(after(20, lambda: QuotaError("gone", status=402))), out)
    grown = [*OLD, {"id": 100, "text": "new"}]
    with pytest.raises(ConfigError, match="append=True goes on"):
        run(grown, Server(), out)
    run(grown, Server(), out, append=True)

    assert not out.startswith("duckdb") or rows_in(out) == expected(grown)
    assert run(grown, Server(), out).already


@pytest.mark.parametrize("out", [*FILES, *STORES])
def test_what_a_job_has_begun_by_key_goes_on_by_key(out):
    """Also without `append`: the journal says how the rows that are written were counted."""
    run(OLD, Server(), out)
    many = [*NEW, *({"id": 1000 + number, "text": f"more {number}"} for number in range(60))]
    with pytest.raises(QuotaError):
        run(many, Server(after(30, lambda: QuotaError("gone", status=402))), out, append=True)
    server = Server()
    run(many, server, out)

    assert not any(text in {row["text"] for row in OLD} for text in server.sent)
    assert out.startswith("sqlite") or rows_in(out).items() >= expected(many).items()


@pytest.mark.parametrize("out", [*FILES, *STORES])
def test_other_records_with_a_key_are_added_to_a_finished_job(out):
    """Also fewer of them: that is what is told."""
    run(OLD, Server(), out)
    with pytest.raises(ConfigError, match="append=True sends the new and changed records only"):
        run(NEW[:20], Server(), out)
    server = Server()
    run(NEW[:20], server, out, append=True)
    assert server.sent == ["changed"]


def test_a_matrix_takes_more_rows_only():
    """It holds no records: the rows before have to be the same."""
    run(OLD, Server(), "out.npy")
    with pytest.raises(ConfigError, match="are not those that were embedded"):
        run(NEW, Server(), "out.npy", append=True)
    server = Server()
    run([*OLD, {"id": 100, "text": "new"}], server, "out.npy", append=True)
    assert server.sent == ["new"]


def test_nothing_is_left_open():
    """The cache of what was known goes with the job's folder."""
    run(OLD, Server(), "out.parquet")
    run(NEW, Server(), "out.parquet", append=True)

    assert not [path for path in Path().iterdir() if "known" in path.name]
