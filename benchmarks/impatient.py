"""Impatient callers in virtual time: an async service whose provider is ill for a while, then well again.

Every call is one `embed_query` under `asyncio.timeout`, made at a moment of its own, whatever became of the others. The
endpoint serves so many side by side; its power is the single-text requests per second that it can do. What is measured:
how long after the fault (and after the last hint) until 99 % of the calls offered succeed, the calls answered per
second, the attempts per first attempt while ill, and the 99th percentile of the answers after recovery.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import random
from collections.abc import Coroutine, Mapping
from typing import Any

import msgspec

import embedkit
from benchmarks import callers
from benchmarks.virtual import Knee, now, run
from embedkit import RetryPolicy, TransportError, TransportTimeoutError
from embedkit._embedders.pool import Pool
from embedkit._types import Request, Response

SIDE_BY_SIDE = 24
BEFORE = 20.0  # seconds of health before the fault
# Whoever calls last must not gain from it that nobody comes after him;
# such a call waits less than so long, unless its patience is longer.
LONG = 10.0
TEXTS = (
    "text ",
    "bulk ",
)  # what our calls begin with; another text is one that the client added to find out what is wrong
_accounts = itertools.count()
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
        fault: what goes wrong, for `ill` seconds: one of FAULTS, or "page", a web page with status 200.
        load: calls offered, as a share of what the endpoint can do.
        rate: calls offered per second; 0: by `load`.
        patience: seconds after which a caller gives up; infinite: never.
        answer: seconds an answer takes.
        timeout: seconds of one attempt.
        after: seconds watched after the fault.
        queue: the endpoint lets come one after the other what it cannot serve at once, and finishes what it has begun
            even when nobody waits for it any more; else all it has takes longer, and what is cancelled costs nothing.
        model: who is asked.
        before: seconds of health before the fault.
        bulk: texts of a patient call beside the service, which begins with it.
        bulk_from: seconds after which it begins.
        apart: that call has an embedder of its own, on the same account.
    """

    fault: str = "stall"
    load: float = 0.9
    rate: float = 0.0
    patience: float = 5.0
    configuration: str = "default"
    model: str = "compatible:m"
    before: float = BEFORE
    answer: float = 0.2
    ill: float = 10.0
    timeout: float | None = 1.0
    after: float = 40.0
    queue: bool = False
    bulk: int = 0
    bulk_from: float = 0.0
    apart: bool = False
    more: Mapping[str, Any] = {}

    @property
    def power(self) -> float:
        """Single-text requests per second, of all endpoints."""
        return SIDE_BY_SIDE / self.answer * (2 if "pool" in self.configuration else 1)


class Ill(Knee):
    """An endpoint that is ill from `begin` to `end`, and notes what came to it. Endpoints of one pool share `seen`."""

    def __init__(self, seed: int, case: Case, seen: set[str]) -> None:
        super().__init__(seed, SIDE_BY_SIDE, latency=case.answer, spread=0.1)
        self.fault, self.timeout = case.fault, case.timeout or 120.0
        self.begin, self.end = case.before, case.before + case.ill
        self.last_hint = 0.0  # when it ends
        self.seen = seen
        self.first = self.again = 0  # attempts while ill
        self.served: list[float] = []
        self.slots = asyncio.Semaphore(SIDE_BY_SIDE) if case.queue else None

    async def __call__(self, request: Request) -> Response:
        ill = self.begin <= now() < self.end
        texts = msgspec.json.decode(request.body)["input"]
        texts = [texts] if isinstance(texts, str) else texts
        new = {text for text in texts if text.startswith(TEXTS)} - self.seen
        self.seen |= new
        if ill:  # a first attempt has a text that was never sent; a retry, half, hedge or known-good text has none
            self.first += bool(new)
            self.again += not new
        try:
            async with asyncio.timeout(self.timeout):
                sick = ill and (self.fault != "half" or self.random.random() < 0.5)
                return await (self.fail() if sick else self.serve(len(texts)))
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
        if self.fault == "page":
            return Response(200, {"content-type": "text/html"}, b"<html>We will be back soon</html>")
        if self.fault.startswith("429"):
            hint = {"retry-after": "1"} if "hint" in self.fault else {}
            self.last_hint = now() + 1 if hint else self.last_hint
            return Response(429, hint, b'{"error":{"message":"Rate limit reached"}}')
        return Response(int(self.fault) if self.fault.isdigit() else 503, {}, b'{"error":{"message":"ill"}}')

    async def serve(self, texts: int) -> Response:
        await self._travel()
        await (self._in_turn() if self.slots is not None else self._beside())
        await self._travel()
        self.served.append(now())
        rows = b",".join(ROW % number for number in range(texts))
        return Response(
            200, {"content-type": "application/json"}, b'{"data":[' + rows + b'],"usage":{"total_tokens":1}}'
        )

    async def _beside(self) -> None:
        """All that is here is served; the more there is, the longer it takes."""
        self.busy += 1
        try:
            await asyncio.sleep(self.seconds() * self.random.lognormvariate(0.0, self.spread))
        finally:
            self.busy -= 1

    async def _in_turn(self) -> None:
        """First in, first out. What has begun keeps its place until it is done, even when its caller has gone."""
        assert self.slots is not None
        await self.slots.acquire()
        done = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(
            self.latency * self.random.lognormvariate(0.0, self.spread), self._finish, done
        )
        await done

    def _finish(self, done: asyncio.Future[None]) -> None:
        assert self.slots is not None
        self.slots.release()
        if not done.done():
            done.set_result(None)


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
        return callers.share(self.calls, start, stop)

    def recovered(self) -> float:
        """Seconds after the fault from which on 99 % of the calls succeed."""
        return callers.recovered(self.calls, self.over)

    def goodput(self, start: float, stop: float) -> float:
        """Calls answered per second."""
        return callers.goodput(self.calls, start, stop)

    def p99(self, start: float, stop: float = math.inf) -> float:
        """Seconds within which 99 % of the good answers came to calls made from then on."""
        return callers.p99(self.calls, start, stop)

    def attempts(self) -> float:
        """Attempts per first attempt while ill."""
        first, again = sum(each.first for each in self.servers), sum(each.again for each in self.servers)
        return (first + again) / max(1, first)

    def requests(self) -> float:
        """Requests while ill per call made then: what the provider is spared, or burdened with."""
        begin, end = self.servers[0].begin, self.servers[0].end
        return sum(each.first + each.again for each in self.servers) / max(
            1, sum(begin <= made < end for made, _, _ in self.calls)
        )


def simulate(case: Case, seed: int = 1) -> Outcome:
    """One run of a case; everything in it follows from the seed."""
    random.seed(f"client {seed}")  # the jitter of retries
    return run(_run(case, seed))


def account() -> str:
    """A key that nobody had before: what is known of an account lives as long as the process."""
    return f"{os.getpid()}-{next(_accounts)}"


async def _run(case: Case, seed: int) -> Outcome:
    names = ("a", "b") if "pool" in case.configuration else ("a",)
    seen: set[str] = set()
    servers = {name: Ill(seed + place, case, seen) for place, name in enumerate(names)}
    settings = {"base_url": "http://a/v1", **CONFIGURATIONS[case.configuration], **case.more}
    if case.timeout is not None:
        settings["timeout"] = case.timeout
    key = account()
    place = Twins(servers)  # one for both: a quota belongs to an account at one place
    embedder, other = (_connected(case.model, key, place, settings) for _ in range(2))
    outcome = Outcome(case, [], list(servers.values()), [])
    service = _Service(embedder, outcome, case.before + case.ill + case.after)
    if case.bulk:
        service.begin(service.bulk(other if case.apart else embedder))
    members = _members(embedder)
    last = service.stop + (case.patience if case.patience <= LONG else 0.0)
    for number, moment in enumerate(callers.arrivals(seed, case.rate or case.load * case.power, last)):
        await asyncio.sleep(moment - now())
        service.begin(service.call(number))
        outcome.widths.append((now(), sum(each.window for each in members)))
    await service.end()
    outcome.calls.sort()
    return outcome


class _Service:
    """Calls under way, and what came of those made before `stop`."""

    def __init__(self, embedder: Any, outcome: Outcome, stop: float) -> None:
        self.embedder, self.outcome, self.stop = embedder, outcome, stop
        self.tasks: set[asyncio.Task[None]] = set()
        self.bugs: list[BaseException] = []

    async def call(self, number: int) -> None:
        patience, made, ok = self.outcome.case.patience, now(), False
        try:
            async with asyncio.timeout(None if patience == math.inf else patience):
                await self.embedder.embed_query(f"text {number}")
            ok = True
        except (embedkit.EmbedkitError, TimeoutError) as error:
            self.failed(error)
        finally:  # cancelled, too: it was still waiting when the run was over
            if made < self.stop:
                self.outcome.calls.append((made, now(), ok))

    async def bulk(self, embedder: Any) -> None:
        case = self.outcome.case
        await asyncio.sleep(case.bulk_from)
        try:
            await embedder.embed([f"bulk {number}" for number in range(case.bulk)])
            self.outcome.bulk = now()
        except embedkit.EmbedkitError as error:
            self.failed(error)

    def failed(self, error: Exception) -> None:
        name = type(error).__name__
        self.outcome.errors[name] = self.outcome.errors.get(name, 0) + 1

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.bugs.append(error)

    async def end(self) -> None:
        """Wait for those still under way, as long as they have
        patience; an error that is no EmbedkitError makes the run void.
        """
        tasks = set(self.tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=60.0 + min(self.outcome.case.patience, 600.0))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.bugs:
            raise self.bugs[0]


def _members(embedder: Any) -> list[Any]:
    embedder = getattr(embedder, "inner", embedder)
    return list(embedder._embedders) if isinstance(embedder, Pool) else [embedder]


def _connected(model: str, key: str, exchange: Twins, settings: Mapping[str, Any]) -> Any:
    """What `connect` makes, on the clock of the running loop."""
    embedder: Any = embedkit.connect(model, api_key=key, exchange=exchange, **settings)
    inner = getattr(embedder, "inner", embedder)
    for each in (inner, *_members(inner)):
        each._clock = asyncio.get_running_loop().time
    return embedder


__all__ = ["CONFIGURATIONS", "FAULTS", "Case", "Outcome", "simulate"]
