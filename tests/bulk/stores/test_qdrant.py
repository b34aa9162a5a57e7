"""Qdrant over HTTP: what is sent, with which key, in requests of bounded size."""

from __future__ import annotations

import numpy as np
import pytest

from embedkit._bulk.stores import StoreError, open_store
from embedkit._bulk.stores.qdrant import BODY, _batches
from embedkit._bulk.stores.rows import Rows
from embedkit.codec.vector_math import missing_rows
from embedkit.errors import ConfigError
from tests.bulk.stores.test_stores import job, opened, put


@pytest.mark.engines
@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
def test_a_server_gets_the_rows(monkeypatch):
    """Points, payloads, the label; the key from the environment goes with every request."""
    from tests.support.qdrant_server import serving

    monkeypatch.setenv("QDRANT_API_KEY", "s3cret-of-qdrant")
    with serving("s3cret-of-qdrant") as server:
        job(server.url, count=700, failures={3: "too long"})
        store = opened(server.url)
        put(store, 699, 2)
        store.sync()
        same = store.unchanged(["k3", "k4", "k700", "x"], ["text 3", "text 4", "text 700", "text"])
        label = store.label()
        store.close()
        points = server.base.scroll("embeddings", limit=1000, with_vectors=True)[0]
        keys = {key for _, _, _, key in server.seen}

        with pytest.raises(ConfigError, match="width 16 there, 8 here"):
            opened(server.url, width=8)

    assert {point.payload["embedding_key"] for point in points} == {f"k{row}" for row in range(701)}
    assert [point.payload["embedding_error"] for point in points if not point.vector] == ["too long"]
    assert same == {1, 2}
    assert label.job == {"embedkit.model": "fake:m"}
    assert keys == {"s3cret-of-qdrant"}


@pytest.mark.engines
@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
def test_a_refusal_shows_no_key(monkeypatch):
    """Not even where the server quotes it."""
    from tests.support.qdrant_server import serving

    monkeypatch.setenv("QDRANT_API_KEY", "s3cret-wrong")
    with serving("s3cret-right") as server, pytest.raises(StoreError, match="401") as caught:
        open_store(server.url, key="id").exists()

    assert "s3cret" not in str(caught.value)


@pytest.mark.engines
def test_a_server_that_is_not_there_is_named():
    """Its address, and a job can go on later."""
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:9"):
        open_store("qdrant:http://127.0.0.1:9#c", key="id").exists()


@pytest.mark.engines
def test_a_server_that_is_busy_is_asked_again():
    """A 503 is waited for; a 400 is not."""
    from tests.support.qdrant_server import serving

    with serving() as server:
        store = opened(server.url)
        waited = []
        store.sleep = waited.append
        put(store, 0, 5)
        server.troubles = [503, 503, 503]  # the first try asks twice
        store.sync()
        put(store, 5, 5)
        server.troubles = [400]
        with pytest.raises(StoreError, match="400"):
            store.sync()
        store.close()
        count = server.base.count("embeddings").count

    assert waited == [1.0, 2.0]
    assert count == 5


@pytest.mark.parametrize(("width", "record"), [(16, 10), (4096, 10), (1536, 100_000), (16, 2 * BODY)])
def test_requests_are_of_bounded_size(width, record):
    """Long vectors and long records make smaller batches; every row is in one."""
    rows = Rows([], missing_rows(600, width, "float32"), [], [], [])
    records = [b"x" * record] * 600
    found = list(_batches(rows, records))

    assert [row for start, end in found for row in range(start, end)] == list(range(600))
    assert all(end - start == 1 or (end - start) * (width * 20 + record) <= BODY for start, end in found)
    assert np.all([end - start <= 256 for start, end in found])
