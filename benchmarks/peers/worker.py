"""One measurement, in a process that does nothing else: `python -m
benchmarks.peers.worker JOB`, with the job and the outcome as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.clients import PEERS, Job, Send

STATUS = Path("/proc/self/status")


def memory(name: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most since `forget`."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def forget() -> None:
    """Begin the search for the highest memory anew."""
    Path("/proc/self/clear_refs").write_text("5")


def cpu() -> tuple[float, float]:
    """CPU milliseconds of all threads of this process, in user and in kernel mode."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime * 1000, used.ru_stime * 1000


def check(found: Any, width: int, start: int) -> None:
    """Every vector is the one its text asked for, bit for bit."""
    import numpy as np

    from benchmarks.server.wire import rows

    table = rows(width)
    for first in range(0, len(found), 4096):
        part = np.asarray(found[first : first + 4096], np.float32)
        wanted = table[np.arange(start + first, start + first + len(part)) % len(table)]
        if not np.array_equal(part, wanted):
            bad = int(np.flatnonzero((part != wanted).any(axis=1))[0]) if part.shape == wanted.shape else -1
            msg = f"row {first + bad} is not the vector of its text" if bad >= 0 else f"rows of shape {part.shape}"
            raise AssertionError(msg)


def callers(send: Send, inflight: int) -> Send:
    """As many tasks as may be in flight, each awaiting one text after the other."""

    async def embed(texts: Sequence[str]) -> list[Any]:
        rows: list[Any] = [None] * len(texts)
        places = iter(range(len(texts)))

        async def caller() -> None:
            for place in places:
                rows[place] = (await send([texts[place]]))[0]

        await asyncio.gather(*(caller() for _ in range(inflight)))
        return rows

    return embed


async def streamed(count: int, job: Job) -> dict[str, Any]:
    """The same by stream: texts made as they are asked for, parts dropped as they come, each first row checked."""
    import numpy as np

    import embedkit
    from benchmarks.server.wire import rows

    table = rows(job.width)
    limits = embedkit.Limits(max_texts=job.batch)
    seen = 0
    gc.collect()
    before = memory("VmRSS")
    forget()
    spent, started = cpu(), time.perf_counter()
    async with embedkit.connect(
        "compatible:bench", base_url=f"{job.url}/v1", max_concurrency=job.inflight, limits=limits
    ) as embedder:
        async for part in embedder.stream(f"@{number} how long is the coast of Britain?" for number in range(count)):
            assert np.array_equal(part.vectors[0], table[part.start % len(table)])
            assert part.start == seen
            seen += len(part)
    seconds = time.perf_counter() - started
    used = sum(after - before for after, before in zip(cpu(), spent, strict=True))
    assert seen == count, f"{count} texts, {seen} vectors"
    return {
        "cpu": used / count * 1000, "rate": count / seconds, "seconds": seconds, "extra": memory("VmHWM") - before,
        "output": count * job.width * 4, "texts": count,
    }  # fmt: skip


async def measure(asked: dict[str, Any]) -> dict[str, Any]:
    from benchmarks.server.wire import texts

    job = Job(**asked["job"])
    made = [] if asked.get("stream") else texts(asked["texts"])
    send = PEERS[asked["peer"]].open(job)
    check(await send(texts(2 * job.batch)), job.width, 0)  # imports, first connections
    if asked.get("stream"):
        return await streamed(asked["texts"], job)
    if asked["callers"]:
        send = callers(send, job.inflight)
    gc.collect()
    before = memory("VmRSS")
    forget()
    spent, started = cpu(), time.perf_counter()
    found = await send(made)
    seconds = time.perf_counter() - started
    user, system = (after - before for after, before in zip(cpu(), spent, strict=True))
    most = memory("VmHWM")
    assert len(found) == len(made), f"{len(made)} texts, {len(found)} vectors"
    check(found, job.width, 0)
    return {
        "cpu": (user + system) / len(made) * 1000, "user": user / len(made) * 1000, "rate": len(made) / seconds,
        "seconds": seconds,
        "extra": most - before, "output": len(made) * job.width * 4, "texts": len(made),
    }  # fmt: skip


def main() -> None:
    asked = json.loads(sys.argv[1])
    if PEERS[asked["peer"]].uvloop:
        import uvloop

        outcome = uvloop.run(measure(asked))
    else:
        outcome = asyncio.run(measure(asked))
    print("\n" + json.dumps(outcome), flush=True)
    import os

    os._exit(0)  # some clients complain of sockets left open; that is not what is measured


if __name__ == "__main__":
    main()
