"""Jobs over the batch APIs of providers, end to end: whole, ended at any step, stopped, with a limit, with bad rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import tracemalloc
from contextlib import suppress

import anyio
import msgspec
import numpy as np
import pytest

import embedkit
from embedkit._bulk.contract import Block
from embedkit._bulk.journal import Journal
from embedkit._bulk.notices import BatchJob, RowFailed
from embedkit._bulk.provider_batch import stream as batch_stream
from embedkit._traffic.retry import RetryPolicy
from embedkit.testing import FakeExchange, response
from tests.bulk.test_provider_batch import Loopback
from tests.support.batch_servers import SERVERS, Gemini, OpenAI, vector
from tests.support.jobs import Texts, job, rows_of

TEXTS = [f"text number {number} of the test" for number in range(10, 25)]
each_server = pytest.mark.parametrize("kind", SERVERS, ids=lambda kind: kind.name)


class Crash(BaseException):
    """The process is gone."""


class Run:
    """One process: what it shares with the next are the server and the files. Its steps are the requests, the lines of
    the journal and the waits, before and after each; `at` is called with the number of each.
    """

    running = None

    def __init__(self, server, out, texts=TEXTS, *, at=lambda step: None, keys=None, **settings):
        self.server, self.at, self.steps, self.time = server, at, 0, 0.0
        self.notices = []
        self.embedder = embedkit.connect(
            f"{server.name}:{server.model}", exchange=FakeExchange(self.handle), api_key="sk-of-the-test-123",
            retry=RetryPolicy(attempts=2, initial=0),
        )  # fmt: skip
        settings = {"batch_api": True, **settings}
        self.job = job(
            Texts(texts, keys=keys), self.embedder, out, tell=self.notices.append, now=lambda: self.time,
            sleep=self.sleep, **settings,
        )  # fmt: skip

    def step(self):
        self.steps += 1
        self.at(self.steps - 1)

    def handle(self, request):
        self.step()
        answer = self.server.answer(request)
        self.step()
        return answer

    async def sleep(self, seconds):
        self.step()
        self.time += seconds
        await anyio.sleep(0)

    def __call__(self):
        Run.running = self
        return anyio.run(self.job.run)

    def states(self):
        return [notice.state for notice in self.notices if isinstance(notice, BatchJob)]


@pytest.fixture(autouse=True)
def _small_chunks_and_counted_lines(monkeypatch):
    """Five texts a job. What is written is there: these tests crash a program, not a machine."""
    append = Journal.append

    def counted(self, line):
        Run.running.step()
        append(self, line)
        Run.running.step()

    monkeypatch.setattr(Journal, "append", counted)
    monkeypatch.setattr(batch_stream, "SIZE", sum(map(batch_stream.size_of, TEXTS[:5])))
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def crash(at):
    def step(number):
        if number == at:
            raise Crash

    return step


def stop(at):
    """Stops the run at this step, or at the next one in the thread of the event loop, where signals come."""

    def step(number):
        if number >= at and threading.current_thread() is threading.main_thread():
            Run.running.job.stop()

    return step


def check(out, texts=TEXTS, *, failed=()):
    rows = rows_of(out)
    assert [row["text"] for row in rows] == texts
    for place, row in enumerate(rows):
        if place in failed:
            assert (row["vector"], bool(row["why"])) == (None, True)
        else:
            assert np.allclose(row["vector"], vector(row["text"]), atol=1e-6), place


def left(folder):
    return sorted(path.name for path in folder.iterdir())


@each_server
def test_a_whole_job(kind, tmp_path):
    """Every row is at its place, the report counts tokens at the batch price, and nothing but the output is left."""
    server = kind()
    run = Run(server, tmp_path / "out")

    report = run()

    check(tmp_path / "out")
    assert left(tmp_path) == ["out", "out.report.json"]
    words = sum(len(text.split()) for text in TEXTS)
    assert (report.complete, report.rows, report.failed, report.tokens) == (True, 15, 0, words)
    assert report.cost == pytest.approx(words * run.embedder.batch_price / 1e6)
    assert report.requests == len(server.log)
    assert len(server.jobs) == 3
    assert {"uploaded", "created", "fetched", "ready"} <= set(run.states())
    requests = len(server.log)
    assert Run(server, tmp_path / "out")().already
    assert len(server.log) == requests


@each_server
def test_a_crash_at_any_step_costs_no_second_job(kind, tmp_path):
    """Ended at every third request, line of the journal or wait, and run again: each row is there once, no job was
    created twice, and no text was run twice.
    """
    whole = Run(kind(), tmp_path / "whole")
    whole()
    jobs = len(whole.server.jobs)
    assert whole.steps > 60

    for at in range(SERVERS.index(kind) % 3, whole.steps, 3):
        server, out = kind(), tmp_path / f"out-{at}"
        with suppress(Crash):
            Run(server, out, at=crash(at))()
        if at % 2:  # and once more, on the way back
            with suppress(Crash):
                Run(server, out, at=crash(at // 2))()
        report = Run(server, out)()

        check(out)
        assert (report.complete or report.already, report.rows, report.tokens) == (True, 15, 90), at
        assert len(server.jobs) == jobs, at
        assert set(server.texts_run().values()) == {1}, at
        assert not (tmp_path / f"out-{at}.job").exists()


@each_server
def test_a_stop_leaves_the_jobs_running_and_the_next_run_collects_them(kind, tmp_path):
    """Stopped while jobs are under way, it stops none of them, says that it is unfinished, and creates none again."""
    server = kind()
    server.polls = 10**6
    first = Run(server, tmp_path / "out", at=lambda step: first.job.stop() if first.time > 100 else None)

    report = first()

    assert (report.complete, report.stopped, report.rows) == (False, "asked", 0)
    assert "0 of 15 rows are kept" in first.job.kept
    assert "texts wait in batch jobs at the provider" in first.job.kept  # 0 rows, and yet all of them are paid for
    assert len(server.jobs) == 3
    assert not any(job["stopped"] for job in server.jobs.values())
    server.polls = 1
    assert Run(server, tmp_path / "out")().complete
    check(tmp_path / "out")
    assert len(server.jobs) == 3
    assert set(server.texts_run().values()) == {1}


@pytest.mark.parametrize("kind", [OpenAI, Gemini], ids=["openai", "gemini"])
def test_a_stop_at_any_step_can_be_gone_on_with(kind, tmp_path):
    """Wherever the stop comes, the run ends in order, and the next one has nothing to do twice."""
    whole = Run(kind(), tmp_path / "whole")
    whole()

    for at in range(0, whole.steps, 4):
        server, out = kind(), tmp_path / f"out-{at}"
        first = Run(server, out, at=stop(at))
        stopped = first()
        report = stopped if stopped.complete else Run(server, out)()

        check(out)
        assert report.complete
        assert len(server.jobs) <= 4, at  # the stop may cut a job short
        assert set(server.texts_run().values()) == {1}, at


def test_max_cost_counts_the_batch_price_and_is_not_passed(tmp_path):
    """A job stops before the limit, resumable, and a higher limit goes on, with each text sent once."""
    server = OpenAI()
    price = Run(server, tmp_path / "x").embedder.batch_price
    assert price == Run(server, tmp_path / "x").embedder.price / 2
    limit = 50 * price / 1e6  # of some 90 words

    report = Run(server, tmp_path / "out", max_cost=limit)()

    assert (report.complete, report.stopped) == (False, "max_cost")
    assert 0 < report.rows < 15
    assert 0 < report.cost <= limit
    report = Run(server, tmp_path / "out", max_cost=1.0)()
    check(tmp_path / "out")
    assert report.complete
    assert set(server.texts_run().values()) == {1}


@pytest.mark.parametrize("most", [1, 40, 60])
def test_a_limit_never_gives_up_what_is_paid_for(tmp_path, most):
    """Jobs of an earlier run are collected whole, also where a lower limit would not have sent their texts."""
    server = OpenAI()
    server.polls = 10**6
    first = Run(server, tmp_path / "out", at=lambda step: first.job.stop() if first.time > 100 else None)
    first()
    jobs = len(server.jobs)
    server.polls = 1

    Run(server, tmp_path / "out", max_tokens=most)()

    report = Run(server, tmp_path / "out")()
    assert report.complete or report.already
    check(tmp_path / "out")
    assert len(server.jobs) == jobs
    assert set(server.texts_run().values()) == {1}


def test_max_cost_needs_a_batch_price(tmp_path):
    """Where the price of a batch job is not known, a limit of cost is refused, and nothing is sent."""
    server = OpenAI()
    run = Run(server, tmp_path / "out", max_cost=1.0)
    run.embedder.batch_price = None

    with pytest.raises(embedkit.ConfigError, match="no price"):
        run()
    assert server.log == []


@each_server
def test_failed_rows_are_listed(kind, tmp_path):
    """A text that the provider refuses and a row without one cost their own row; both are told and listed by key."""
    server = kind()
    server.refuse = lambda text: (400, "the input is too long, the maximum is 8192 tokens") if " 13 " in text else None
    texts = [*TEXTS[:7], None, *TEXTS[8:]]
    run = Run(server, tmp_path / "out", texts, keys=[f"k{row}" for row in range(15)])

    report = run()

    check(tmp_path / "out", texts, failed={3, 7})
    assert (report.complete, report.rows, report.failed) == (True, 15, 2)
    listed = [json.loads(line) for line in (tmp_path / "out.failures.jsonl").read_text().splitlines()]
    assert [(each["row"], each["key"]) for each in listed] == [(3, "k3"), (7, "k7")]
    assert "too long" in listed[0]["reason"]
    assert [notice.row for notice in run.notices if isinstance(notice, RowFailed)] == [3, 7]


def test_on_error_raise_ends_it_resumable(tmp_path):
    """The first refused row ends the run; without `raise` the next goes on from the same jobs."""
    server = OpenAI()
    server.refuse = lambda text: (400, "no such words") if " 18 " in text else None
    with pytest.raises(embedkit.InvalidInputError):
        Run(server, tmp_path / "out", on_error="raise")()
    jobs = len(server.jobs)

    report = Run(server, tmp_path / "out")()

    assert (report.complete, report.failed) == (True, 1)
    check(tmp_path / "out", failed={8})
    assert len(server.jobs) == jobs


def test_rows_that_are_added_are_all_that_is_sent(tmp_path):
    """`append` after a finished job sends the new rows in jobs of their own."""
    server = OpenAI()
    Run(server, tmp_path / "out", TEXTS[:8])()

    report = Run(server, tmp_path / "out", append=True)()

    check(tmp_path / "out")
    assert (report.complete, report.rows) == (True, 15)
    assert set(server.texts_run().values()) == {1}


def test_without_the_batch_api_a_job_with_texts_at_the_provider_is_refused(tmp_path):
    """Texts that wait in jobs there are not paid for a second time; once those are collected, either way goes on."""
    server = OpenAI()
    server.polls = 10**6
    first = Run(server, tmp_path / "out", at=lambda step: first.job.stop() if first.time > 100 else None)
    first()
    requests = len(server.log)

    with pytest.raises(embedkit.ConfigError, match="batch_1"):
        Run(server, tmp_path / "out", batch_api=False)()
    assert len(server.log) == requests
    server.polls = 1
    assert Run(server, tmp_path / "out")().complete


def running(server, out, **settings):
    """A job that was stopped while its jobs ran at the provider."""
    server.polls = 10**6
    first = Run(server, out, at=lambda step: first.job.stop() if first.time > 100 else None, **settings)
    first()
    assert not any(job["stopped"] for job in server.jobs.values())
    return list(server.jobs)


@each_server
@pytest.mark.parametrize("batch_api", [True, False], ids=["batch", "one by one"])
def test_force_cancels_what_runs_at_the_provider(kind, batch_api, tmp_path):
    """Begun anew, a job cancels the jobs of the one that it replaces, says so by id, and embeds every row."""
    server = kind()
    jobs = running(server, tmp_path / "out")
    server.polls = 1
    again = Run(
        server, tmp_path / "out", TEXTS[::-1], force=True, batch_api=batch_api, max_tokens=None if batch_api else 0
    )

    report = again()

    assert all(server.jobs[job]["stopped"] for job in jobs)
    told = [notice for notice in again.notices if isinstance(notice, BatchJob) and notice.state == "stopped"]
    assert [(each.job, each.start, each.rows) for each in told] == [(job, 5 * n, 5) for n, job in enumerate(jobs)]
    assert report.complete is batch_api
    if batch_api:
        check(tmp_path / "out", TEXTS[::-1])
        assert len(server.jobs) == 6


def test_force_cancels_a_job_whose_id_was_lost(tmp_path):
    """A create whose answer never came may have made a job: it is found by its key, and cancelled too."""
    server = OpenAI()
    whole = Run(OpenAI(), tmp_path / "whole")
    whole()
    created = whole.server.log.index(("POST", "/v1/batches"))

    def die(step):
        if first.server.log[-1:] == [("POST", "/v1/batches")] and len(server.jobs) == 1:
            raise Crash

    first = Run(server, tmp_path / "out", at=die)
    with suppress(Crash):
        first()
    assert len(server.log) == created + 1
    Run(server, tmp_path / "out", force=True)()

    check(tmp_path / "out")
    assert [job["stopped"] for job in server.jobs.values()] == [True, False, False, False]


def test_force_asks_nobody_else_to_cancel(tmp_path):
    """With another provider or base URL the ids mean nothing: refused, with them and the ways out, and nothing is lost."""
    server = OpenAI()
    jobs = running(server, tmp_path / "out")
    requests, kept = len(server.log), left(tmp_path / "out.job")
    for other in (Run(Gemini(), tmp_path / "out", force=True), Run(OpenAI(), tmp_path / "out", force=True)):
        if other.embedder.provider == "openai":
            other.embedder._target = msgspec.structs.replace(other.embedder._target, base_url="https://other.test/v1")
        with pytest.raises(embedkit.ConfigError, match=r"openai at https://api\.openai\.com/v1") as caught:
            other()
        assert all(job in str(caught.value) for job in jobs)
        assert "without --force" in str(caught.value)
        assert other.server.log == []

    assert (len(server.log), left(tmp_path / "out.job")) == (requests, kept)
    server.polls = 1
    assert Run(server, tmp_path / "out")().complete
    assert set(server.texts_run().values()) == {1}


@pytest.mark.parametrize("status", [401, 503])
def test_force_replaces_nothing_that_it_could_not_cancel(tmp_path, status):
    """Where the provider does not cancel, the error says which jobs run on, and the next run collects them."""
    server = OpenAI()
    jobs = running(server, tmp_path / "out")
    answer = server.answer
    server.answer = lambda request: response({"error": {"message": "no"}}, status)
    with pytest.raises(embedkit.ApiError) as caught:
        Run(server, tmp_path / "out", force=True)()
    assert all(job in caught.value.__notes__[0] for job in jobs)

    server.answer, server.polls = answer, 1
    assert Run(server, tmp_path / "out")().complete
    check(tmp_path / "out")
    assert len(server.jobs) == len(jobs)


def test_records_wait_on_disk(tmp_path):
    """While jobs run, what came beside their texts is not in memory: 15 records of 1 MB each take less than 3 MB."""

    class Wide(Texts):
        def blocks(self):
            for place, text in enumerate(self.texts):
                yield Block([text], [{"text": text, "more": f"{place:02}" * 500_000}])

    server, held = OpenAI(), []
    server.polls = 10**6

    def look(step):
        if run.time > 100:
            held.append(tracemalloc.get_traced_memory()[0])
            run.job.stop()

    run = Run(server, tmp_path / "out", at=look)
    run.job._source = Wide(TEXTS)
    tracemalloc.start()
    run()
    tracemalloc.stop()

    assert held[0] < 3_000_000
    assert len(server.jobs) == 3
    server.polls = 1
    assert Run(server, tmp_path / "out")().complete
    check(tmp_path / "out")


CHILD = """
import sys
import anyio, embedkit
from embedkit._bulk.provider_batch import stream
from tests.bulk.test_batch_jobs import TEXTS
from tests.support.jobs import job

stream.SIZE = sum(map(stream.size_of, TEXTS[:5]))
model, url, out = sys.argv[1:]
embedder = embedkit.connect(model, base_url=url, api_key="sk-of-the-test-123")
clock = [0.0]
async def sleep(seconds):
    clock[0] += seconds
    await anyio.sleep(0.001)
anyio.run(job(TEXTS, embedder, out, batch_api=True, now=lambda: clock[0], sleep=sleep).run)
"""


def test_kill_9_costs_no_second_job(tmp_path):
    """Killed at requests of several kinds, over real HTTP: the last run's output is whole, and no text was run twice."""
    server = OpenAI()
    loopback = Loopback(server)
    codes = []
    for left_over, after in [(1, True), (3, True), (2, False), (None, False)]:
        loopback.after = after
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, f"{server.name}:{server.model}", loopback.url, str(tmp_path / "out")],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        loopback.victim, loopback.left = child, left_over
        codes.append(child.wait(60))
    loopback.close()

    assert codes == [-9, -9, -9, 0]
    check(tmp_path / "out")
    assert len(server.jobs) == 3
    assert set(server.texts_run().values()) == {1}


def test_what_is_fetched_is_not_said_to_wait_at_the_provider(tmp_path):
    """A run that ended after its answers came names no job as if it still held texts."""
    server = OpenAI()
    server.ends, server.lose = ["expired"], lambda job, key: True
    run = Run(server, tmp_path / "out")
    with pytest.raises(embedkit.ServerError) as caught:
        run()
    notes = " ".join(caught.value.__notes__)
    assert "wait in batch jobs" not in notes
    assert "and with them what batch jobs have answered" in notes
