"""One quota, several worker processes of an engine: each is told its share, or all find it from the refusals."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.support.servers.api import Api

pytestmark = [pytest.mark.engines, pytest.mark.timeout(240)]
HERE = Path(__file__).parent.parent.parent
WORKERS, PER_SECOND, SECONDS, TEXTS = 4, 30, 12, 4  # of a request: TEXTS
REQUESTS = PER_SECOND * SECONDS // WORKERS  # of each worker
WORKER = """
import sys
import pyarrow as pa
import embedkit
from embedkit.contrib._batches import rebuilt

url, rate, workers, each, requests = sys.argv[1], *map(int, sys.argv[2:])
told = {"rate": embedkit.Rate(requests_per_minute=60 * rate), "workers": workers} if rate else {}
batches = rebuilt("compatible:m", {"base_url": url, "limits": embedkit.Limits(max_texts=each), **told})
made = batches.columns(pa.array([f"text {number}" for number in range(each * requests)]))
print(made["embedding_error"].null_count, made["embedding"].null_count)
"""


class Metered(Api):
    """Grants so many requests a second, none in advance but a second's worth; beyond that it says 429."""

    def __init__(self):
        super().__init__()
        self.level, self.stamp, self.granted, self.refused = float(PER_SECOND), time.monotonic(), [], []
        self.meter = threading.Lock()

    def answer(self, body, key):
        """The vectors, or a 429."""
        with self.meter:
            now = time.monotonic()
            self.level = min(PER_SECOND, self.level + (now - self.stamp) * PER_SECOND)
            self.stamp = now
            passes = self.level >= 1
            self.level -= passes
            (self.granted if passes else self.refused).append(now)
        if not passes:
            return 429, {}, {"error": {"message": "Rate limit reached for requests", "code": "rate_limit_exceeded"}}
        return super().answer(body, key)


@pytest.mark.parametrize("told", [True, False], ids=["told", "found"])
def test_workers_share_a_quota(told):
    """Every row gets its vector; told of their shares hardly any request is refused, else a minority."""
    with Metered() as api:
        command = [sys.executable, "-c", WORKER, api.url, *map(str, (told * PER_SECOND, WORKERS, TEXTS, REQUESTS))]
        workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE) for _ in range(WORKERS)]
        said = [each.communicate(timeout=200)[0].split() for each in workers]

    assert said == [[str(TEXTS * REQUESTS), "0"]] * WORKERS
    assert len(api.granted) >= WORKERS * REQUESTS
    assert len(api.refused) <= len(api.granted) * (0.02 if told else 0.5)
