"""How soon a service is well again over real loopback sockets, beside
plain httpx (`timeout=1`, no retries): same callers, same fault.

The server, a process of its own, answers 24 requests side by side in 0.2 s and lets the others wait their turn; a
request whose client has gone leaves that queue, one that has begun is finished. For a minute it stalls (accepts, and
never answers), or answers 503. Callers come at random moments, 0.9 times as many as it can serve, each with a patience
of 5 s. The clients run one after the other, each a process with a server of its own. `httpx` has the limit of 100
connections that it comes with, `httpx-all` none: every call is one request. The bounds are those of the better of the
two. "Lag" is how late a call is made, in 99 of 100 cases; a client that is at work is late by its own fault. "Others"
is what of a processor everybody else on the machine took meanwhile: where that is much, nothing is measured.

    python -m benchmarks.recovery                    stall and 503, 60 s each: eleven minutes
    python -m benchmarks.recovery --fault stall --ill 10 --load 0.3
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import callers

SIDE_BY_SIDE, ANSWER = 24, 0.2
BEFORE, AFTER = 10.0, 30.0  # seconds watched before and after the fault
TIMEOUT = 1.0  # of one request, of both clients
FAULTS = ("stall", "503")
CLIENTS = ("embedkit", "httpx", "httpx-all")  # ours, and those it is held against
SLOWER, MORE = 2.0, 1.3  # bounds: seconds later than httpx, and times its requests while ill
SETTLED = 5.0  # seconds after the fault from which on the share of good calls is shown
BUSY = 0.25  # of a processor: with more taken by others a machine is too busy to measure
ROOT = Path(__file__).parent.parent

# --- the server ------------------------------------------------------------------------------------------------------


class Endpoint:
    """Serves 24 side by side, and is ill when it is told to be."""

    def __init__(self) -> None:
        self.slots = asyncio.Semaphore(SIDE_BY_SIDE)
        self.fault, self.until = "", 0.0
        self.seen = self.while_ill = 0

    async def embeddings(self, request: Any) -> Any:
        from aiohttp import web

        loop = asyncio.get_running_loop()
        ill = loop.time() < self.until
        self.seen += 1
        self.while_ill += ill
        texts = (await request.json())["input"]
        if ill and self.fault == "stall":
            await loop.create_future()
        if ill:
            return web.json_response({"error": {"message": "ill"}}, status=int(self.fault))
        await self.slots.acquire()
        done = loop.create_future()
        loop.call_later(ANSWER, self._finish, done)
        await done
        count = 1 if isinstance(texts, str) else len(texts)
        rows = [{"index": row, "embedding": [1.0, 0.0]} for row in range(count)]
        return web.json_response({"data": rows, "usage": {"prompt_tokens": count, "total_tokens": count}})

    def _finish(self, done: asyncio.Future[None]) -> None:
        self.slots.release()
        if not done.done():
            done.set_result(None)

    async def begin(self, request: Any) -> Any:
        """The fault begins now: /begin/stall/60."""
        from aiohttp import web

        self.fault = request.match_info["fault"]
        self.until = asyncio.get_running_loop().time() + float(request.match_info["seconds"])
        self.while_ill = 0
        return web.json_response({})

    async def stats(self, _request: Any) -> Any:
        from aiohttp import web

        return web.json_response({"seen": self.seen, "while ill": self.while_ill})


async def serve() -> None:
    """Until it is killed; prints "port N" once it listens."""
    from aiohttp import web

    endpoint, app = Endpoint(), web.Application()
    app.router.add_post("/v1/embeddings", endpoint.embeddings)
    app.router.add_get("/begin/{fault}/{seconds}", endpoint.begin)
    app.router.add_get("/stats", endpoint.stats)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)  # who has gone waits no longer
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    print("port", runner.addresses[0][1], flush=True)
    await asyncio.get_running_loop().create_future()


@contextlib.contextmanager
def served() -> Iterator[str]:
    """The URL of a server, until the block is left."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.recovery", "--serve"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().split()[1]}"
    finally:
        process.kill()
        process.wait()


def asked(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as reply:  # noqa: S310 (our own server)
        return json.load(reply)


# --- the clients -----------------------------------------------------------------------------------------------------

Send = Callable[[str], Awaitable[object]]


def embedkit(url: str) -> Send:
    import embedkit as package

    return package.connect("compatible:m", base_url=f"{url}/v1", api_key="k", timeout=TIMEOUT).embed_query


def httpx(url: str, **more: Any) -> Send:
    import httpx as package

    client = package.AsyncClient(timeout=TIMEOUT, **more)

    async def send(text: str) -> object:
        reply = await client.post(f"{url}/v1/embeddings", json={"model": "m", "input": [text]})
        reply.raise_for_status()
        return reply.json()["data"][0]["embedding"]

    return send


def httpx_all(url: str) -> Send:
    import httpx as package

    return httpx(url, limits=package.Limits(max_connections=None))


OPEN: dict[str, Callable[[str], Send]] = dict(zip(CLIENTS, (embedkit, httpx, httpx_all), strict=True))


async def call_all(job: dict[str, Any]) -> dict[str, Any]:
    """Every call of a run, its times counted from the moment at which the fault begins."""
    send: Send = OPEN[job["client"]](job["url"])
    calls: list[callers.Call] = []
    errors: dict[str, int] = {}
    tasks: set[asyncio.Task[None]] = set()
    lags: list[float] = []
    await send("a first call, which pays for imports")
    start = time.monotonic() + BEFORE

    async def call(number: int) -> None:
        made, ok = time.monotonic() - start, False
        try:
            async with asyncio.timeout(job["patience"]):
                await send(f"text {number}")
            ok = True
        except Exception as error:  # noqa: BLE001 (whatever a client raises, its call failed)
            errors[type(error).__name__] = errors.get(type(error).__name__, 0) + 1
        if made < job["ill"] + AFTER:  # those after it only keep the server as busy as before
            calls.append((made, time.monotonic() - start, ok))

    async def fall_ill() -> None:
        await asyncio.sleep(start - time.monotonic())
        await asyncio.to_thread(asked, f"{job['url']}/begin/{job['fault']}/{job['ill']}")

    ill = asyncio.create_task(fall_ill())
    stop = job["ill"] + AFTER + job["patience"]
    for number, moment in enumerate(callers.arrivals(job["seed"], job["rate"], stop, -BEFORE)):
        await asyncio.sleep(start + moment - time.monotonic())
        lags.append(time.monotonic() - start - moment)
        tasks.add(task := asyncio.create_task(call(number)))
        task.add_done_callback(tasks.discard)
    await asyncio.gather(ill, *tasks)
    return {
        "calls": sorted(calls),
        "errors": errors,
        "lag": callers.quantile(lags, 0.99),
        "cpu": time.process_time() / (time.monotonic() - start + BEFORE),
    }


# --- one beside the other --------------------------------------------------------------------------------------------


def measure(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What came of each client, by name; one after the other, since
    a client without room on the machine is measured for nothing.
    """
    from benchmarks.__main__ import peers_python

    found = {}
    for client in CLIENTS:
        began, before = time.monotonic(), taken_by_others()
        with served() as url:
            python = sys.executable if client == "embedkit" else str(peers_python())
            command = [python, "-m", "benchmarks.recovery", "--call", json.dumps({**job, "client": client, "url": url})]
            made = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=False)
            if made.returncode:
                msg = f"{client} failed; what it said is above"
                raise SystemExit(msg)
            found[client] = {**json.loads(made.stdout), **asked(f"{url}/stats")}
        found[client]["others"] = (taken_by_others() - before) / (time.monotonic() - began)
    return found


def taken_by_others() -> float:
    """Processor seconds since the machine started that were neither this process's nor its children's, once those have
    ended (man7.org, proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal).
    """
    fields = [int(each) for each in Path("/proc/stat").read_text("ascii").splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


class Figures(NamedTuple):
    """What is shown of a client.

    Attributes:
        recovered: seconds after the fault from which on 99 % of the calls succeed.
        share: of the calls made from 5 s after it on, how many succeed.
        requests: that the server saw while ill.
    """

    recovered: float
    share: float
    requests: int


def figures(made: dict[str, Any], ill: float) -> Figures:
    calls = [tuple(each) for each in made["calls"]]
    return Figures(callers.recovered(calls, ill), callers.share(calls, ill + SETTLED), made["while ill"])


def goals(ours: Figures, theirs: Sequence[Figures]) -> list[tuple[bool, str]]:
    """Each bound: whether it is kept, and how it reads. Who
    recovers first counts for one, who asks least for the other.
    """
    soonest = min(each.recovered for each in theirs)
    slower = 0.0 if ours.recovered == soonest else ours.recovered - soonest  # both may be infinite
    times = ours.requests / max(1, min(each.requests for each in theirs))
    return [
        (slower <= SLOWER, f"{slower:+.1f} s to recover beside httpx (goal: at most {SLOWER:+g})"),
        (times <= MORE, f"{times:.2f} times its requests while ill (goal: at most {MORE:g})"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recovery", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fault", nargs="+", choices=FAULTS, default=FAULTS)
    parser.add_argument("--ill", type=float, default=60.0, help="seconds that the fault lasts (60)")
    parser.add_argument(
        "--load", type=float, default=0.9, help="calls offered, as a share of what the server can do (0.9)"
    )
    parser.add_argument("--patience", type=float, default=5.0, help="seconds (5)")
    parser.add_argument("--seed", type=int, default=1, help="when callers come")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--call", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
    elif options.call:
        print(json.dumps(asyncio.run(call_all(json.loads(options.call)))))
    else:
        sys.exit(compare(options))


def compare(options: argparse.Namespace) -> bool:
    """Print what came of every fault. True where a bound is missed."""
    missed = False
    rate = options.load * SIDE_BY_SIDE / ANSWER
    print(f"{rate:g} calls a second, each given up after {options.patience:g} s; ill for {options.ill:g} s.\n")
    print("fault  client     well after  from 5 s on  requests while ill      lag   CPU  others  errors")
    print("-----  ---------  ----------  -----------  ------------------  -------  ----  ------  ------")
    for fault in options.fault:
        job = {"fault": fault, "ill": options.ill, "rate": rate, "patience": options.patience, "seed": options.seed}
        made = measure(job)
        found = {client: figures(made[client], options.ill) for client in CLIENTS}
        for client, (after, share, requests) in found.items():
            soon = "never" if math.isinf(after) else f"{after:.1f} s"
            errors = ", ".join(f"{count:,} {name}" for name, count in sorted(made[client]["errors"].items()))
            print(
                f"{fault:5}  {client:9}  {soon:>10}  {share:11.1%}  {requests:18,}  {1000 * made[client]['lag']:4.0f} ms"
                f"  {made[client]['cpu']:4.0%}  {made[client]['others']:6.0%}  {errors}"
            )
        for fine, line in goals(found["embedkit"], [found[client] for client in CLIENTS[1:]]):
            print(f"{'✓' if fine else '✗'} {fault}: {line}", flush=True)
            missed |= not fine
        if any(made[client]["others"] > BUSY for client in CLIENTS):
            print(f"  {fault}: the machine was too busy to measure this; try again when nothing else runs", flush=True)
    return missed


if __name__ == "__main__":
    main()
