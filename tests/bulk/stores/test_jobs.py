"""Whole jobs into stores: `embedkit.bulk.run` from a file to what the store's own client reads."""

from __future__ import annotations

import json

import anyio
import numpy as np
import pytest

from embedkit import ConfigError, Embedder, Embeddings, InvalidInputError, Limits, QuotaError, bulk
from tests.support.stores import WIDTH, params, vectors

every_store = pytest.mark.parametrize("real", params(), indirect=True)
ROWS = 120


class Numbers(Embedder):
    """Embeds "text n" as row n of the tests' vectors; text 7 is refused, and from text `most` on everything."""

    limits = Limits(max_texts=8)
    provider, model = "test", "m"

    def __init__(self, most=10_000):
        self.sent = []
        self.most = most

    async def embed_batch(self, texts, options):
        await anyio.sleep(0)
        if "text 7" in texts:
            raise InvalidInputError("not this one", status=400)
        rows = [int(text.split()[-1]) if text[-1].isdigit() else ROWS for text in texts]  # a probe is no text of ours
        if any(self.most <= row < ROWS for row in rows):
            raise QuotaError("no credit", status=402)
        self.sent += texts
        return Embeddings(np.concatenate([vectors(row, 1) for row in rows]), model="m")


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """A file of rows with keys; the job's own files go beside it."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "corpus.jsonl"
    path.write_text(
        "".join(json.dumps({"id": f"k{row}", "text": f"text {row}", "n": row}) + "\n" for row in range(ROWS))
    )
    return str(path)


@every_store
def test_a_job_goes_into_a_store(real, tmp_path, corpus):
    """Every row by its key, a failed one without a vector; run again it sends nothing; a report lies beside."""
    url = real.url(tmp_path)
    report = bulk.run_sync(corpus, Numbers(), url, key="id")
    again = Numbers()
    second = bulk.run_sync(corpus, again, url, key="id")
    found = real.rows(url)

    assert (report.rows, report.failed, second.already, again.sent) == (ROWS, 1, True, [])
    assert set(found) == {f"k{row}" for row in range(ROWS)}
    assert found["k7"].vector is None
    assert "not this one" in found["k7"].error
    assert found["k11"].record == {"id": "k11", "text": "text 11", "n": 11}
    assert real.nearest(url, vectors(50, 1)[0])[0] == "k50"
    assert sorted(path.name.split("embeddings.")[-1] for path in tmp_path.glob("*embeddings.*")) == [
        "failures.jsonl", "report.json",
    ]  # fmt: skip


@every_store
def test_a_job_that_ended_goes_on(real, tmp_path, corpus):
    """What was written is not sent again."""
    url = real.url(tmp_path)
    first, second = Numbers(most=60), Numbers()
    with pytest.raises(QuotaError):
        bulk.run_sync(corpus, first, url, key="id")
    report = bulk.run_sync(corpus, second, url, key="id")

    assert report.rows == ROWS
    assert len(first.sent) + len(second.sent) <= ROWS + 1 + 8 * 64
    assert set(second.sent).isdisjoint(first.sent)
    assert len(real.rows(url)) == ROWS


@every_store
def test_two_models_do_not_share_a_table(real, tmp_path, corpus):
    """Vectors of another model are refused before anything is sent, by the table itself where no report is left."""
    url = real.url(tmp_path)
    bulk.run_sync(corpus, Numbers(), url, key="id")
    for report in tmp_path.glob("*embeddings.report.json"):
        report.unlink()
    other = Numbers()
    other.model = "another"
    with pytest.raises(ConfigError, match=r"embedkit\.model 'test:m' there, 'test:another' here"):
        bulk.run_sync(corpus, other, url, key="id")

    assert other.sent == []


@every_store
def test_a_template_s_texts_are_known_again(real, tmp_path, corpus):
    """The digest is of what was embedded, whatever it was made of."""
    url = real.url(tmp_path)
    bulk.run_sync(corpus, Numbers(), url, template="text {n}", key="id")
    from embedkit._bulk.stores import open_store

    store = open_store(url, key="id")
    assert store.unchanged(["k1", "k2"], ["text 1", "text 3"]) == {0}
    store.close()
    assert len(next(row.vector for row in real.rows(url).values() if row.vector)) == WIDTH


def test_a_failed_record_of_an_append_is_named_by_its_row_of_the_input(tmp_path, corpus):
    """Though the records before it were left out, as they had not changed."""
    lines = (tmp_path / "corpus.jsonl").read_text().splitlines(keepends=True)
    url = f"sqlite:{tmp_path / 'rows.db'}#t"
    bulk.run_sync(corpus, Numbers(), url, key="id")
    (tmp_path / "corpus.jsonl").write_text("".join([*lines, '{"id": "new", "text": "text 11"}\n', '{"id": "bad"}\n']))
    told = []
    bulk.run_sync(corpus, Numbers(), url, key="id", append=True, progress=told.append)
    listed = [json.loads(line) for line in (tmp_path / "rows.db.t.failures.jsonl").read_text().splitlines()]

    assert [(each["row"], each["key"]) for each in listed] == [(7, "k7"), (ROWS + 1, "bad")]
    assert [notice.row for notice in told if isinstance(notice, bulk.RowFailed)] == [7, ROWS + 1]


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_an_append_of_nothing_but_old_failures_is_done(tmp_path, corpus, kind):
    """The rows that failed are tried again, and fail again: the others are in the store, night after night."""
    url = f"{kind}:{tmp_path / 'rows.db'}#t"
    bulk.run_sync(corpus, Numbers(), url, key="id")
    for _ in range(2):
        server = Numbers()
        report = bulk.run_sync(corpus, server, url, key="id", append=True)
        assert (report.complete, report.failed) == (True, 1)
        assert not any("text" in text for text in server.sent)
