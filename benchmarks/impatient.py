"""Impatient callers in virtual time: an async service whose provider is ill for a while, then well again.

Every call is one `embed_query` under `asyncio.timeout`, made at a moment of its own, whatever became of the others. The endpoint serves so
many side by side; its power is the single-text requests per second that it can do. What is measured: how long after the fault (and after
the last hint) until 99 % of the calls offered succeed, the calls answered per second, the attempts per first attempt while ill, and the
99th percentile of the answers after recovery.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Mapping
from typing import Any

import msgspec

import embedkit
from benchmarks.virtual import Knee, VirtualLoop, now
from embedkit import RetryPolicy, TransportError, TransportTimeoutError
from embedkit._client import HttpEmbedder
from embedkit._dispatch import PROBE_TEXT
from embedkit._pool import Pool
from embedkit._types import Request, Response

SIDE_BY_SIDE = 24
BEFORE = 20.0  # seconds of health before the fault
ROW = b'{"index":%d,"embedding":[1.0,0.0]}'
FAULTS = ("stall", "503", "500", "429", "429 with hint", "reset", "half")
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "quick retry": {"retry": RetryPolicy(attempts=2, deadline=3)},
    "coalesce": {"coalesce": True},
    "pool of 2": {"base_url": ["http://a/v1", "http://b/v1"]},
    "hedge": {"hedge": True},
}


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One run.

    Attributes:
        fault: what goes wrong, for `ill` seconds.
        load: calls offered, as a share of what the endpoint can do.
        rate: calls offered per second; 0: by `load`.
        patience: seconds after which a caller gives up; infinite: never.
        answer: seconds an answer takes.
        timeout: seconds of one attempt.
        after: seconds watched after the fault.
        bulk: texts of a patient call beside the service, which begins with it.
    """

    fault: str = "stall"
    load: float = 0.9
    rate: float = 0.0
    patience: float = 5.0
    configuration: str = "default"
    answer: float = 0.2
    ill: float = 10.0
    timeout: float | None = 1.0
    after: float = 40.0
    bulk: int = 0
    more: Mapping[str, Any] = {}

    @property
    def power(self) -> float:
        """Single-text requests per second, of all endpoints."""
        return SIDE_BY_SIDE / self.answer * (2 if "pool" in self.configuration else 1)


class Ill(Knee):
    """An endpoint that is ill from `begin` to `end`, and notes what came to it."""

    def __init__(self, seed: int, case: Case) -> None:
        super().__init__(seed, SIDE_BY_SIDE, latency=case.answer, spread=0.1)
        self.fault, self.timeout = case.fault, case.timeout or 120.0
        self.begin, self.end = BEFORE, BEFORE + case.ill
        self.last_hint = 0.0  # when it ends
        self.seen: set[bytes] = set()
        self.first = self.again = 0  # attempts while ill
        self.served: list[float] = []

    async def __call__(self, request: Request) -> Response:
        ill = self.begin <= now() < self.end
        if ill:
            if request.body in self.seen or b'"%s"' % PROBE_TEXT.encode() in request.body:
                self.again += 1
            else:
                self.first += 1
        self.seen.add(bytes(request.body))
        try:
            async with asyncio.timeout(self.timeout):
                return await (
                    self.fail() if ill and (self.fault != "half" or self.random.random() < 0.5) else self.serve(request)
                )
        except TimeoutError:
            msg = "no response in time"
            raise TransportTimeoutError(msg) from None

    async def fail(self) -> Response:
        await self._travel()
        if self.fault == "stall":
            await asyncio.get_running_loop().create_future()
        await self._travel()
        if self.fault == "reset":
            msg = "connection reset"
            raise TransportError(msg)
        if self.fault.startswith("429"):
            hint = {"retry-after": "1"} if "hint" in self.fault else {}
            self.last_hint = now() + 1 if hint else self.last_hint
            return Response(429, hint, b'{"error":{"message":"Rate limit reached"}}')
        return Response(int(self.fault) if self.fault.isdigit() else 503, {}, b'{"error":{"message":"ill"}}')

    async def serve(self, request: Request) -> Response:
        await self._travel()
        self.busy += 1
        try:
            await asyncio.sleep(self.seconds() * self.random.lognormvariate(0.0, self.spread))
        finally:
            self.busy -= 1
        await self._travel()
        self.served.append(now())
        texts = msgspec.json.decode(request.body)["input"]
        rows = b",".join(ROW % number for number in range(1 if isinstance(texts, str) else len(texts)))
        return Response(200, {"content-type": "application/json"}, b'{"data":[' + rows + b'],"usage":{"total_tokens":1}}')


class Twins:
    """Two endpoints behind one exchange."""

    def __init__(self, members: Mapping[str, Ill]) -> None:
        self.members = members

    async def __call__(self, request: Request) -> Response:
        return await self.members[request.url.split("/")[2]](request)

    async def aclose(self) -> None:
        """Nothing is open."""


class Outcome(msgspec.Struct):
    """What came of a run: of each call when it was made, when it ended, and whether it succeeded."""

    case: Case
    calls: list[tuple[float, float, bool]]
    servers: list[Ill]
    widths: list[tuple[float, int]]
    bulk: float = math.nan  # when the patient call was done
    errors: dict[str, int] = {}

    @property
    def over(self) -> float:
        """The later of the fault's end and the last hint's."""
        moments: list[float] = [moment for each in self.servers for moment in (each.end, each.last_hint)]
        return max(moments)

    def share(self, start: float, stop: float = math.inf) -> float:
        """Of the calls made then, the share that succeeded."""
        those = [ok for made, _, ok in self.calls if start <= made < stop]
        return sum(those) / max(1, len(those))

    def recovered(self) -> float:
        """Seconds after the fault from which on 99 % of the calls succeed."""
        last, step = self.calls[-1][0], 0.5
        moments = [self.over + step * each for each in range(int((last - self.over) / step))]
        return next((moment - self.over for moment in moments if self.share(moment) >= 0.99), math.inf)

    def goodput(self, start: float, stop: float) -> float:
        """Calls answered per second."""
        return sum(ok and start <= ended < stop for _, ended, ok in self.calls) / (stop - start)

    def p99(self, start: float) -> float:
        """Seconds within which 99 % of the good answers came to calls made from then on."""
        took = sorted(ended - made for made, ended, ok in self.calls if ok and made >= start)
        return took[int(0.99 * len(took))] if took else math.nan

    def attempts(self) -> float:
        """Attempts per first attempt while ill."""
        first, again = sum(each.first for each in self.servers), sum(each.again for each in self.servers)
        return (first + again) / max(1, first)


def simulate(case: Case, seed: int = 1) -> Outcome:
    """One run of a case."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(_run(case, seed))


async def _run(case: Case, seed: int) -> Outcome:
    names = ("a", "b") if "pool" in case.configuration else ("a",)
    servers = {name: Ill(seed + place, case) for place, name in enumerate(names)}
    settings = {"base_url": "http://a/v1", **CONFIGURATIONS[case.configuration], **case.more}
    if case.timeout is not None:
        settings["timeout"] = case.timeout
    embedder: Any = embedkit.connect("compatible:m", api_key="k", exchange=Twins(servers), **settings)
    _set_clock(embedder, asyncio.get_running_loop().time)
    outcome = Outcome(case, [], list(servers.values()), [])
    chance, tasks, rate = random.Random(f"callers {seed}"), set(), case.rate or case.load * case.power
    stop = BEFORE + case.ill + case.after

    async def call(number: int) -> None:
        made, ok = now(), False
        try:
            async with asyncio.timeout(None if case.patience == math.inf else case.patience):
                await embedder.embed_query(f"text {number}")
            ok = True
        except (embedkit.EmbedkitError, TimeoutError) as error:
            name = type(error).__name__
            outcome.errors[name] = outcome.errors.get(name, 0) + 1
        outcome.calls.append((made, now(), ok))

    async def bulk() -> None:
        await embedder.embed([f"bulk {number}" for number in range(case.bulk)])
        outcome.bulk = now()

    if case.bulk:
        tasks.add(asyncio.create_task(bulk()))
    number = 0
    members = _members(embedder)
    while now() < stop:
        task = asyncio.create_task(call(number))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        number += 1
        outcome.widths.append((now(), sum(each.window for each in members)))
        await asyncio.sleep(chance.expovariate(rate))
    if tasks:
        await asyncio.wait(tasks, timeout=60.0 + (min(case.patience, 600.0)))
    for task in tasks:
        task.cancel()
    outcome.calls.sort()
    return outcome


def _members(embedder: Any) -> list[HttpEmbedder]:
    embedder = getattr(embedder, "inner", embedder)
    return list(embedder._embedders) if isinstance(embedder, Pool) else [embedder]


def _set_clock(embedder: Any, clock: Any) -> None:
    inner = getattr(embedder, "inner", embedder)
    for each in (inner, *_members(inner)):
        each._clock = clock


__all__ = ["CONFIGURATIONS", "FAULTS", "Case", "Outcome", "simulate"]
