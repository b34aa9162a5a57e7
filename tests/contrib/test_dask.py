"""Dask, the real one: every row once, though a worker is killed half-way; a rerun with the cache sends the rest only."""

from __future__ import annotations

import pytest

from embedkit._hints import Later
from tests.contrib.engines import COUNT, TEXTS, DieOnce, answered, check, model, server, told_time

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]  # Dask's own
adapter = Later("embedkit.contrib.dask")
PARTITIONS = 8


@pytest.mark.timeout(900)
def test_every_row_is_there_once_though_a_worker_dies(tmp_path, tell):
    """The scheduler gives the partitions of a killed worker out again; with a cache, what it had finished is not sent."""
    distributed = pytest.importorskip("distributed")
    import dask.dataframe as dd
    import pandas as pd

    mark = tmp_path / "died"
    frame = dd.from_pandas(pd.DataFrame({"number": range(COUNT), "text": TEXTS}), npartitions=PARTITIONS)
    with (
        server() as running,
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster),
    ):
        told = model(running.url, cache=str(tmp_path / "vectors.cache"), usage=True)
        with told_time(tell, "Dask"):
            made = adapter.embed(frame, **told, observe=DieOnce(mark)).compute()
        assert mark.exists()
        tell(f"Dask, with a cache: {answered(mark):,} texts were answered")
        assert COUNT <= answered(mark) <= COUNT + COUNT // PARTITIONS  # only the unfinished partition is sent twice
        check([*made["number"]], [*made["embedding"]], running.url)
        again = adapter.embed(frame, **told).compute()
        assert again["embedding_requests"].sum() == 0
        assert again["embedding_cached"].sum() == COUNT


def test_a_text_that_arrow_cannot_hold_costs_its_own_row():
    """Half a surrogate pair or a number among objects fails alone; columns may have numbers as names."""
    dd = pytest.importorskip("dask.dataframe")
    import dask
    import pandas as pd

    texts = pd.DataFrame({0: pd.Series(["a cat", "\ud800", 1.5, None], dtype=object, index=[7, 7, 3, 1])})
    with dask.config.set({"dataframe.convert-string": False, "scheduler": "threads"}):
        frame = dd.from_pandas(texts, npartitions=1, sort=False)
        made = adapter.embed(frame, "local:all-minilm-l6-v2", column=0).compute()

    assert [*made.index] == [7, 7, 3, 1]
    assert [*made["embedding"].isna()] == [False, True, True, True]


def test_what_parquet_keeps_is_read_again(tmp_path):
    """With the types of Arrow, as the documentation says."""
    dd = pytest.importorskip("dask.dataframe")
    import pandas as pd

    frame = dd.from_pandas(pd.DataFrame({"text": ["a cat", None]}), npartitions=1)
    adapter.embed(frame, "local:all-minilm-l6-v2").to_parquet(str(tmp_path))
    made = dd.read_parquet(str(tmp_path), dtype_backend="pyarrow").compute()

    assert [len(row) for row in made["embedding"].dropna()] == [384]
