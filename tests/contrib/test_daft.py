"""Daft, the real one: a killed worker fails the query, and a rerun with the cache sends only what was missing."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from embedkit._hints import Later
from tests.contrib.engines import COUNT, MOST, TEXTS, answered, check, model, server, told_time

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]  # Daft's own
adapter = Later("embedkit.contrib.daft")
HERE = Path(__file__).parent.parent.parent
QUERY = """
import daft
from embedkit.contrib.daft import embed
from tests.contrib.engines import TEXTS, DieOnce, model
if __name__ == "__main__":
    frame = daft.from_pydict({{"text": TEXTS}}).into_batches(250)
    told = model({url!r}, cache={cache!r}, observe=DieOnce({mark!r}))
    embed(frame, workers=2, batch_size=128, **told).collect()
"""


@pytest.mark.timeout(900)
def test_a_rerun_sends_only_what_was_missing(tmp_path, tell):
    """The query fails with its worker; the next has every row once, and those from before out of the cache."""
    daft = pytest.importorskip("daft")
    cache, mark = str(tmp_path / "vectors.cache"), tmp_path / "died"
    with server() as running:
        script = textwrap.dedent(QUERY).format(url=running.url, cache=cache, mark=str(mark))
        (tmp_path / "query.py").write_text(script)
        failed = subprocess.run(
            [sys.executable, "-W", "ignore", tmp_path / "query.py"], cwd=HERE, timeout=600, check=False,
            env={**__import__("os").environ, "PYTHONPATH": str(HERE)}, capture_output=True, text=True,
        )  # fmt: skip
        assert mark.exists(), failed.stderr[-2000:]
        assert failed.returncode != 0

        frame = daft.from_pydict({"number": list(range(COUNT)), "text": TEXTS})
        with told_time(tell, "Daft, the rerun"):
            made = adapter.embed(frame, usage=True, **model(running.url, cache=cache)).to_pydict()
        check(made["number"], made["embedding"], running.url)
        cached = sum(each or 0 for each in made["embedding_cached"])
        tell(f"Daft: {answered(mark):,} texts were answered before it failed, {cached:,} of them are in the cache")
        assert 0 < cached < COUNT
        assert sum(each or 0 for each in made["embedding_requests"]) <= -(-(COUNT - cached) // MOST) + 8


def test_the_columns_of_a_frame_stay():
    """Whatever they are called: what is made on the way takes the name of none."""
    daft = pytest.importorskip("daft")
    frame = daft.from_pydict({"text": ["a cat"], "embedding_made": [1], "embedding_made_": [2]})
    made = adapter.embed(frame, "local:all-minilm-l6-v2").to_pydict()

    assert [*made] == ["text", "embedding_made", "embedding_made_", "embedding", "embedding_error"]
    assert (made["embedding_made"], len(made["embedding"][0])) == ([1], 384)
