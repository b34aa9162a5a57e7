"""Jobs of the real command that are killed (`kill -9`) at instants of a test's choice, and what each kill costs."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from embedkit._bulk.journal import NAME, decoded

IN_FLIGHT = 4  # requests at most: what is on its way is known then
BATCH = 32  # texts in a request
ON_ITS_WAY = (2 * IN_FLIGHT + 1) * BATCH  # in flight, in the reorder buffer, and read ahead
SLACK = 1.0  # seconds that a checkpoint and a look at the server may take beside the second between checkpoints


class Kill(msgspec.Struct, frozen=True):
    """A run that was killed: texts that the server was sent, rows of them that were kept, how many texts were answered
    in the last moments, which no checkpoint need speak of yet, and how many in as much time where they were most.
    """

    sent: int
    kept: int
    latest: int
    busiest: int

    @property
    def extra(self) -> int:
        """Texts that are sent again."""
        return self.sent - self.kept


class Command:
    """`embedkit embed` with these arguments, in processes of its own.

    Args:
        output: what it writes.
        arguments: of the command, the output's not among them.
        seen: how many texts its server was sent so far.
        place: the name of which its job's files are made; None: the output's.
    """

    def __init__(self, output: str, *arguments: str, seen: Callable[[], int], place: Path | None = None) -> None:
        self.output = output
        self._place = place or Path(output.rstrip("/"))
        self._command = [sys.executable, "-m", "embedkit", "embed", *arguments, "-o", output]
        self._command += ["--max-concurrency", str(IN_FLIGHT)]
        self._seen = seen

    def kept(self) -> int:
        """Rows that its journal speaks of; once it is finished, its report."""
        report = self._place.with_name(f"{self._place.name}.report.json")
        if report.exists():
            return int(json.loads(report.read_bytes())["rows"])
        journal = self._place.with_name(f"{self._place.name}.job") / NAME
        rows = 0
        for raw in journal.read_bytes().splitlines(keepends=True) if journal.exists() else ():
            line = decoded(raw)
            if line is None:
                break
            rows = line.checkpoint.totals.rows if line.checkpoint is not None else rows
        return rows

    def start(self) -> subprocess.Popen[str]:
        """Start it."""
        return subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self._place.parent
        )

    def killed(self, texts: int, delay: float = 0.0) -> Kill | None:
        """Run it, and kill it so many seconds after so many more texts were sent; None where it had ended before."""
        before, first = self.kept(), self._seen()
        moments: list[tuple[float, int]] = []
        process = self.start()
        try:
            due: float | None = None
            while process.poll() is None and (due is None or time.monotonic() < due):
                moments.append((time.monotonic(), self._seen() - first))
                if due is None and moments[-1][1] >= texts:
                    due = moments[-1][0] + delay
                time.sleep(0.001)
        finally:
            process.kill()
            said, _ = process.communicate()
        assert process.returncode in (-9, 0), said
        if process.returncode == 0:
            return None
        time.sleep(0.05)  # what was on its way to the server arrives
        sent = self._seen() - first
        moments.append((moments[-1][0], sent))
        lately = gained(moments, 1 + SLACK)
        return Kill(sent, self.kept() - before, lately[-1], max(lately))

    def finish(self) -> str:
        """Run it to its end; what it said."""
        process = self.start()
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0, said
        return said


def gained(moments: list[tuple[float, int]], seconds: float) -> list[int]:
    """At each moment, by how much its count is above the one so many seconds before."""
    found, place, earlier = [], 0, 0
    for when, count in moments:
        while moments[place][0] <= when - seconds:
            earlier = moments[place][1]
            place += 1
        found.append(count - earlier)
    return found


def points(count: int, rows: int) -> list[tuple[int, float]]:
    """Random instants of a job of so many rows, as rows and seconds, in order; the last after the last answer."""
    chance = random.Random()
    found = [(chance.randrange(rows), chance.random() / 10) for _ in range(count - 1)]
    return [*sorted(found), (rows, chance.random() / 5)]


def vectors(output: str) -> Any:
    """The rows of an output, shape (n, d), in order; NaN where a row has none."""
    if output.endswith(".npy"):
        return np.load(output)
    if output.endswith(".jsonl"):
        with Path(output).open(encoding="utf-8") as lines:
            return np.array([json.loads(line)["embedding"] for line in lines], np.float32)
    import pyarrow as pa
    import pyarrow.parquet as pq

    if output.endswith(".arrow"):
        with pa.memory_map(output) as file:
            table = pa.ipc.open_file(file).read_all()
    else:
        parts = sorted(Path(output).iterdir()) if Path(output).is_dir() else [Path(output)]
        table = pa.concat_tables([pq.read_table(part) for part in parts])
    column = table.column("embedding").combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), -1)


def left(output: str) -> list[str]:
    """What lies beside the output, and it, by name."""
    name = os.path.basename(output.rstrip("/"))  # noqa: PTH119 (a folder's name too)
    return sorted(path.name.removeprefix(name) for path in Path(output).parent.iterdir() if path.name.startswith(name))
