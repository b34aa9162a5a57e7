"""Ray Data, the real one: every row once, though an actor is killed half-way."""

from __future__ import annotations

import pytest

from embedkit._hints import Later
from tests.contrib.engines import COUNT, TEXTS, DieOnce, answered, check, model, server, told_time

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]  # Ray's own
adapter = Later("embedkit.contrib.ray")


@pytest.fixture(scope="module")
def ray():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        ray = pytest.importorskip("ray")
        ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200_000_000, log_to_driver=False)
        yield ray
        ray.shutdown()


@pytest.mark.timeout(900)
def test_every_row_is_there_once_though_an_actor_dies(ray, tmp_path, tell):
    """Ray starts a killed actor again and gives it its batches again."""
    mark = tmp_path / "died"
    rows = [{"number": number, "text": text} for number, text in enumerate(TEXTS)]
    with server() as running:
        told = model(running.url, observe=DieOnce(mark))
        with told_time(tell, "Ray"):
            embedded = adapter.embed(
                ray.data.from_items(rows, override_num_blocks=8), workers=2, batch_size=128, usage=True, **told
            ).take_all()
        assert mark.exists()
        tell(f"Ray: {answered(mark):,} texts were answered")
        assert COUNT < answered(mark) < COUNT * 1.5
        check([row["number"] for row in embedded], [row["embedding"] for row in embedded], running.url)
        assert (
            sum(row["embedding_tokens"] or 0 for row in embedded if row["embedding_tokens"] == row["embedding_tokens"])
            > 0
        )
