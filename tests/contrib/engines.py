"""What the tests of the engines share: texts, a real server, a worker that dies once, and what has to come of it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import numpy as np

import embedkit
from embedkit.events import BatchDone
from tests.support.servers.llamacpp import MODEL, start

COUNT = int(os.environ.get("EMBEDKIT_ENGINE_TEXTS", "20000"))
TEXTS = [f"{'cats' if number % 2 else 'stocks'} {number}" for number in range(COUNT)]
MOST = 32  # texts of a request
HALF = COUNT // MOST // 4  # requests after which one of two workers has done half of its share


class DieOnce:
    """An observer that kills its own process half-way, after so many batches; once, whoever comes to it first. Of every
    batch that was answered, in any process, it keeps the number of texts beside its mark: see `answered`.
    """

    def __init__(self, mark: Path, after: int = HALF) -> None:
        self.mark, self.after, self.seen = str(mark), after, 0

    def __call__(self, event: object) -> None:
        if not isinstance(event, BatchDone):
            return
        self.seen += 1
        kept = os.open(f"{self.mark}.answered", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.write(kept, f"{event.texts}\n".encode())  # appended at once, whoever else writes
        os.close(kept)
        if self.seen < self.after:
            return
        try:
            os.close(os.open(self.mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


def answered(mark):
    """Texts of all batches that the server answered and a `DieOnce` with this mark saw."""
    return sum(map(int, Path(f"{mark}.answered").read_text().split()))


def model(url, **settings):
    """The settings of an engine that asks the server."""
    return {"model": f"llamacpp:{MODEL}", "base_url": url, "limits": embedkit.Limits(max_texts=MOST), **settings}


def server():
    # One thread: two of them wait for each other, spinning, where the engine's workers need the processor too (a fifth
    # of the speed on two cores).
    return start(threads=1, parallel=16)


@contextlib.contextmanager
def told_time(tell, what):
    """Tell how long the block took for all rows."""
    begun = time.monotonic()
    yield
    seconds = time.monotonic() - begun
    tell(f"{what}: {COUNT:,} rows in {seconds:.0f} s ({COUNT / seconds:.0f} a second)")


def check(numbers, rows, url):
    """Every row is there once, none with another's vector; of every hundredth, the one the server gives for it alone."""
    assert sorted(numbers) == list(range(COUNT))
    assert all(row is not None for row in rows)
    by_number = dict(zip(numbers, rows, strict=True))
    picked = range(0, COUNT, 97)
    one = embedkit.Limits(max_texts=1)
    with embedkit.connect_sync(f"llamacpp:{MODEL}", base_url=url, limits=one) as embedder:
        expected = embedder.embed([TEXTS[each] for each in picked], input_type="document").vectors
    found = np.array([by_number[each] for each in picked], np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    cosines = found @ expected.T / np.linalg.norm(expected, axis=1)
    assert np.diag(cosines).min() > 0.999
    assert (cosines.argmax(axis=1) == np.arange(len(picked))).all()
    assert len({np.asarray(row, np.float32).tobytes() for row in rows}) == COUNT
