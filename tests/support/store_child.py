"""A process that writes rows into a store as a job does, for tests that kill it: `python -m … URL JOURNAL ROWS BATCH`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from embedkit._bulk.stores import base, open_store
from embedkit.codec.vector_math import missing_rows
from tests.support.stores import WIDTH, vectors


def batch(start, count, prefix="k"):
    """Records, keys and failures of rows: every 17th has failed, and the last ones repeat keys of the first."""
    numbers = range(start, start + count)
    records = [{"text": f"text {row}", "n": row, "more": [row] if row % 5 else None} for row in numbers]
    return records, [f"{prefix}{row}" for row in numbers], {row - start: "refused" for row in numbers if row % 17 == 0}


def write(url, journal, rows, step, prefix="k", wait=0.0):
    """Go on where the journal says, to the end."""
    state = json.loads(journal.read_text()) if journal.exists() else None
    store = open_store(url, key="id")
    store.begin(journal.parent, missing_rows(0, WIDTH, "float32"), state)
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    at = state["rows"] if state else 0
    for turn, start in enumerate(range(at, rows, step)):
        count = min(step, rows - start)
        records, keys, failures = batch(start, count, prefix)
        store.write([records], vectors(start, count), failures, keys)
        if turn % 3 == 2:
            keep(journal, store.sync())
        if wait:
            time.sleep(wait)
    keep(journal, store.sync())
    store.finish({"embedkit.model": "fake:m"})
    store.close()


def keep(journal, state):
    fresh = journal.with_suffix(".fresh")
    fresh.write_text(json.dumps(state))
    fresh.replace(journal)


if __name__ == "__main__":
    base.FLUSH_ROWS = int(sys.argv[4]) * 2
    write(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), (sys.argv[5:] or ["k"])[0], 0.002)
