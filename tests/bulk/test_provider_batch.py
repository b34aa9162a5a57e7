"""Texts through batch jobs: every row right and in order, whatever the provider answers, and wherever the run ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import numpy as np
import pytest

import embedkit
from embedkit import errors
from embedkit._bulk.provider_batch.chunk import Poll
from embedkit._bulk.provider_batch.stream import Caps, batch_stream
from embedkit._traffic.retry import RetryPolicy
from embedkit._types import Options, Request
from embedkit.testing import FakeExchange, response
from tests.support.batch_servers import SERVERS, Gemini, Mistral, OpenAI, Refused, Voyage, vector

pytestmark = pytest.mark.anyio
SMALL = Caps(lines=6, inputs=6, bytes=10**6, texts=2, full=1800.0)
each_server = pytest.mark.parametrize("kind", SERVERS, ids=lambda kind: kind.name)


@pytest.fixture(autouse=True)
def _no_disk_to_wait_for(monkeypatch):
    """These tests crash a program, not a machine: what is written is there."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


class Crash(BaseException):
    """The process is gone."""


class Store:
    """Records as JSON, durable; `at` is called before and after each put."""

    def __init__(self):
        self.kept = {}
        self.at = lambda: None

    def get(self, number):
        return json.loads(self.kept[number]) if number in self.kept else None

    def put(self, number, record):
        self.at()
        self.kept[number] = json.dumps(record)
        self.at()


class Run:
    """One process: what it shares with the next is the server, the store and the folder."""

    def __init__(self, server, folder, store=None, *, crash_at=None, lost=False):
        self.server, self.folder, self.store = server, folder, store or Store()
        self.events, self.time, self.steps, self.slept = [], 0.0, 0, []
        self.crash_at = crash_at
        self.lost = lost  # the crash comes after the server has acted
        self.exchange = FakeExchange(self.handle)
        self.store.at = self.step
        self.rows, self.failures, self.parts = {}, {}, []

    def step(self):
        self.steps += 1
        if self.steps - 1 == self.crash_at:
            raise Crash

    def handle(self, request):
        self.step()
        answer = self.server.answer(request)
        self.step()
        return answer

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.step()
        self.time += seconds

    def stream(self, texts, *, first=0, options=None, caps=SMALL, **more):
        settings = {"retry": RetryPolicy(attempts=2, initial=0), "api_key": "sk-of-the-test-123"}
        self.embedder = embedkit.connect(
            f"{self.server.name}:{self.server.model}", exchange=self.exchange, **{**settings, **more.pop("connect", {})}
        )
        return batch_stream(
            self.embedder, texts, options or Options(), store=self.store, folder=self.folder, first=first, caps=caps,
            sleep=self.sleep, now=lambda: self.time, on_event=self.events.append, **more,
        )  # fmt: skip

    async def __call__(self, texts, **more):
        first = more.get("first", 0)
        stream = self.stream(texts[first:], **more)
        self.last = stream
        async for part in stream:
            self.parts.append(part)
            for row in range(len(part)):
                self.rows[first + part.start + row] = part.vectors[row]
            self.failures |= {first + part.start + row: error for row, error in part.failures.items()}
        return self

    def states(self):
        return [event.state for event in self.events]


def right(rows, texts, *, failed=()):
    """Whether there is a row for each text, in order, with its own vector."""
    assert sorted(rows) == list(range(len(texts)))
    for row, text in enumerate(texts):
        if row in failed:
            assert np.isnan(rows[row]).all()
        else:
            assert np.allclose(rows[row], vector(text), atol=1e-6), row
    return True


TEXTS = [f"text number {number} of the test" for number in range(15)]


@each_server
async def test_every_row_comes_in_order(kind, tmp_path):
    """Whatever the order of the answers, row i is the vector of text i; equal texts are sent once, and usage adds up."""
    server = kind()
    texts = [*TEXTS, TEXTS[0], TEXTS[0]]

    run = await Run(server, tmp_path)(texts)

    assert right(run.rows, texts)
    assert [part.start for part in run.parts] == [0, 6, 12]
    assert set(server.texts_run()) == set(TEXTS)
    words = sum(len(text.split()) for text in TEXTS) + 6  # the last chunk is sent by itself
    assert sum(part.usage.tokens for part in run.parts) == words
    price = embedkit.connect(f"{server.name}:{server.model}", api_key="k-123456").batch_price
    assert sum(part.usage.cost for part in run.parts) == pytest.approx(words * price / 1e6)
    assert sum(part.usage.requests for part in run.parts) == len(server.log)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_texts_may_come_later_and_on_any_loop(backend, tmp_path):
    """An async iterable is read as any other, on asyncio and on trio, chunk by chunk, and nothing is left to collect."""
    import anyio

    async def later():
        for text in TEXTS:
            yield text

    async def main():
        run = Run(OpenAI(), tmp_path)
        rows = {}
        async for part in run.stream(later()):
            rows |= {part.start + row: part.vectors[row] for row in range(len(part))}
        return rows

    assert right(anyio.run(main, backend=backend), TEXTS)


@each_server
async def test_rows_without_text_fail_alone(kind, tmp_path):
    """A row that is None, empty or no Unicode is a failed row, and nothing of it is sent."""
    texts = ["a", None, "", "b", "\ud800", "c", None, "", None]

    run = await Run(kind(), tmp_path)(texts)

    assert right(run.rows, texts, failed={1, 2, 4, 6, 7, 8})
    assert sorted(run.failures) == [1, 2, 4, 6, 7, 8]
    assert {type(error) for error in run.failures.values()} == {errors.InvalidInputError}


@each_server
async def test_options_reach_every_line(kind, tmp_path):
    """A width, a type and an input type count as in a call of `embed`."""
    server = kind()
    if kind is Mistral:
        server.model = "codestral-embed"
        server.success = lambda key, line, job: {
            "custom_id": key,
            "response": {
                "status_code": 200,
                "body": server.body(server.texts_of(line), None, line["body"]["output_dimension"]),
            },
        }
    options = Options(dimensions=512, input_type="document" if kind in (Voyage, Gemini) else None)
    run = Run(server, tmp_path)

    async for part in run.stream(TEXTS[:4], options=options):
        assert part.vectors.shape == (4, 512)
        assert np.allclose(np.linalg.norm(part.vectors, axis=1), 1, atol=1e-5)


@each_server
async def test_a_crash_at_any_step_costs_no_second_job(kind, tmp_path):
    """Ended at every request, before or after the server acted, every put and every sleep, and made again: all rows are
    right, and no job is created that was created before. Every other time what came before the crash is lost too.
    """
    texts = TEXTS[:9]
    whole = await Run(kind(), tmp_path / "whole" if not (tmp_path / "whole").mkdir() else None)(texts)
    jobs = len(whole.server.jobs)
    assert whole.steps > 30

    for crash_at in range(whole.steps):
        folder = tmp_path / str(crash_at)
        folder.mkdir()
        server = kind()
        before = Run(server, folder, crash_at=crash_at)
        with pytest.raises(Crash):
            await before(texts)
        lagging = crash_at % 2
        first = 0 if lagging else len(before.rows)
        if crash_at % 4 == 2 and first:
            first -= 2  # in the midst of a chunk
            before.rows = {row: values for row, values in before.rows.items() if row < first}
        after = await Run(server, folder, before.store)(texts, first=first)

        rows = {**before.rows, **after.rows} if not lagging else after.rows
        assert right(rows, texts), crash_at
        assert min(after.rows, default=first) == first
        assert len(server.jobs) == jobs, crash_at
        assert set(server.texts_run().values()) == {1}, crash_at


@each_server
@pytest.mark.parametrize(
    "trouble", [response("oops", 502), errors.TransportError("the line broke")], ids=["502", "cut"]
)
async def test_a_job_whose_create_lost_its_answer_is_found(kind, trouble, tmp_path):
    """A create that ends in a 502 or without an answer is looked for in the list, beyond its first page."""
    server, lost = kind(), []
    other = {"custom_id": "x", "key": "x", "body": {"input": ["x"]}, "request": {"content": {"parts": [{"text": "x"}]}}}

    def handle(request):
        jobs = len(server.jobs)
        answer = server.answer(request)
        if len(server.jobs) == jobs or lost:
            return answer
        lost.append(request)
        for _ in range(3):  # others of the account, made later
            server.new_job([other], metadata={}, display="", params={})
        return trouble

    run = Run(server, tmp_path)
    run.exchange = FakeExchange(handle)
    await run(TEXTS[:5])

    assert right(run.rows, TEXTS[:5])
    assert "found" in run.states()
    assert set(server.texts_run().values()) == {1}
    assert len(server.jobs) == 4


@each_server
async def test_a_job_is_in_the_record_before_it_is_asked_for(kind, tmp_path):
    """Its id is stored before the first poll: the list, which may be long, is for lost answers only."""
    server = kind()
    run = Run(server, tmp_path)
    answer = server.polled
    server.polled = lambda name: answer(name) if any(name in kept for kept in run.store.kept.values()) else None

    await run(TEXTS[:3])

    assert right(run.rows, TEXTS[:3])
    assert not any(path.endswith(("/batches", "/jobs")) for method, path in server.log if method == "GET")


async def test_a_create_that_never_arrived_is_sent_again(tmp_path):
    """Where the list does not have the job either, twice, it is created."""
    server, lost = OpenAI(), []

    def handle(request):
        if request.url.endswith("/batches") and request.method == "POST" and not lost:
            lost.append(request)
            return errors.TransportError("the line broke")
        return server.answer(request)

    run = Run(server, tmp_path)
    run.exchange = FakeExchange(handle)
    await run(TEXTS[:3])

    assert right(run.rows, TEXTS[:3])
    assert len(server.jobs) == 1
    assert server.log.count(("GET", "/v1/batches")) == 2


@each_server
async def test_a_bad_text_costs_its_own_row(kind, tmp_path):
    """A line that is refused for one of its texts is sent again text by text; the bad one's row fails, typed."""
    server = kind()
    server.refuse = lambda text: (
        (400, "input is too long: maximum context length is 8192 tokens") if "number 3 " in text else None
    )

    run = await Run(server, tmp_path)(TEXTS[:6])

    assert right(run.rows, TEXTS[:6], failed={3})
    assert type(run.failures[3]) is errors.TooLongError
    assert len(server.jobs) == (1 if kind is Gemini else 2)


@each_server
async def test_lines_that_failed_for_a_while_are_sent_again(kind, tmp_path):
    """A line that ended in a 500, or was never answered, is sent again in a further job, and no other line is."""
    server = kind()
    server.refuse = lambda text: (500, "the model failed") if "number 2 " in text and len(server.jobs) == 1 else None
    server.lose = lambda job, key: job == 0 and key.startswith("4-")

    run = await Run(server, tmp_path)(TEXTS[:6])

    assert right(run.rows, TEXTS[:6])
    assert len(server.jobs) == 2
    assert max(server.texts_run().values()) == 2
    assert server.texts_run()[TEXTS[0]] == 1


@each_server
async def test_an_expired_job_is_completed(kind, tmp_path):
    """What an expired job has finished is kept, and the rest is sent again."""
    server = kind()
    server.ends = ["expired", server.ok]
    server.lose = lambda job, key: job == 0 and not key.startswith("0-")

    run = await Run(server, tmp_path)(TEXTS[:6])

    assert right(run.rows, TEXTS[:6])
    assert server.texts_run()[TEXTS[0]] == 1
    assert "again" in run.states()


@each_server
async def test_a_text_that_is_never_answered_fails_alone(kind, tmp_path):
    """After three jobs without an answer a row fails, with a typed error, and the others keep their vectors."""
    server = kind()
    server.lose = lambda job, key: key.startswith("4-")

    run = await Run(server, tmp_path)(TEXTS[:5])

    assert right(run.rows, TEXTS[:5], failed={4})
    assert isinstance(run.failures[4], errors.ServerError)
    assert len(server.jobs) == 3


async def test_where_nothing_comes_the_error_is_raised_and_a_next_run_tries_again(tmp_path):
    """Three jobs without one answer are the provider's failure, not the texts'; run again, it goes on from there."""
    server = OpenAI()
    server.lose = lambda job, key: job < 3
    run = Run(server, tmp_path)

    with pytest.raises(errors.ServerError):
        await run(TEXTS[:4])
    again = await Run(server, tmp_path, run.store)(TEXTS[:4])

    assert right(again.rows, TEXTS[:4])
    assert len(server.jobs) == 4


@each_server
async def test_a_job_cancelled_elsewhere_stops_the_run_and_is_completed_by_the_next(kind, tmp_path):
    """Whoever cancelled it meant it: nothing more is sent, what is finished is kept, and the next run sends the rest."""
    server = kind()
    server.ends = ["cancelled", server.ok]
    server.lose = lambda job, key: job == 0 and not key.startswith("0-")
    run = Run(server, tmp_path)

    with pytest.raises(errors.ApiError, match="was canceled at the provider") as caught:
        await run(TEXTS[:6])
    assert caught.value.code == "batch_cancelled"
    assert len(server.jobs) == 1
    again = await Run(server, tmp_path, run.store)(TEXTS[:6])

    assert right(again.rows, TEXTS[:6])
    assert server.texts_run()[TEXTS[0]] == 1


@each_server
async def test_cancel_stops_the_jobs_and_the_next_run_goes_on(kind, tmp_path):
    """`cancel` stops jobs of an earlier run too; what they finished is used, without an error, when it goes on."""
    server = kind()
    server.polls = 10**6
    run = Run(server, tmp_path, crash_at=40)
    with pytest.raises(Crash):
        await run(TEXTS)
    running = len(server.jobs)
    other = Run(server, tmp_path, run.store)

    stopped = await other.stream(TEXTS).cancel()
    server.polls = 1

    assert stopped == list(server.jobs)
    assert running
    assert all(job["stopped"] for job in server.jobs.values())
    server.lose = lambda job, key: job < running and not key.startswith("0-")
    again = await Run(server, tmp_path, run.store)(TEXTS)
    assert right(again.rows, TEXTS)


async def test_cancelling_the_reader_leaves_the_jobs_running(tmp_path):
    """A reader that is cancelled leaves the jobs alone, says which they are, and cannot take the end for the last part."""
    import anyio

    server = OpenAI()
    server.polls = 10**6
    run = Run(server, tmp_path)
    stream = run.stream(TEXTS)

    async def sleep(seconds):
        await anyio.sleep(30)

    stream._sleep = sleep
    with anyio.move_on_after(0.05):
        await anext(stream)
    assert stream._ended
    with pytest.raises(errors.ClosedError):
        await anext(stream)
    assert not any(job["stopped"] for job in server.jobs.values())

    server.polls = 1
    again = await Run(server, tmp_path, run.store)(TEXTS)
    assert right(again.rows, TEXTS)
    assert len(server.jobs) == 3


@each_server
async def test_strange_answers_harm_nobody(kind, tmp_path):
    """Garbage, lines of others, lines twice, an answer and a refusal to one line: each row gets its own vector."""
    server = kind()

    def spoil(lines):
        name = "key" if kind is Gemini else "custom_id"
        other = json.dumps({**json.loads(lines[0]), name: "77-79"})
        odd = ['{"half": ', "null", "[]", "7", '"text"', "\x00\xff", '{"custom_id": 5, "key": {}}', other, "", "{}"]
        refused = server.failed(json.loads(lines[0])[name], 400, "first refused")
        return [json.dumps(refused), *odd, *lines, lines[0], json.dumps(refused), lines[-1][: len(lines[-1]) // 2]]

    server.spoil = spoil
    run = await Run(server, tmp_path)(TEXTS[:6])

    assert right(run.rows, TEXTS[:6])
    assert len(server.jobs) == 1
    assert "lines of answers are none of ours" in run.events[-1].message


@each_server
async def test_vectors_that_cannot_be_used_are_asked_for_again(kind, tmp_path):
    """A line without its vectors, with NaN, or with one too few, is sent again; after three tries its row fails."""
    server = kind()
    server.lose = lambda job, key: False
    good = server.success

    def success(key, line, job):
        made = json.dumps(good(key, line, job))
        if job["number"] == 0 and key.startswith("0-"):
            return json.loads(made.replace('"embedding"', '"nothing"'))
        return json.loads(made)

    server.success = success
    run = await Run(server, tmp_path)(TEXTS[:6])

    assert right(run.rows, TEXTS[:6])
    assert len(server.jobs) == 2


async def test_a_state_nobody_knows_is_one_that_goes_on(tmp_path):
    """An unknown state is waited out; polls come later and later, up to the most."""
    server = OpenAI()
    server.polls, server.running = 12, "pondering"

    run = await Run(server, tmp_path)(TEXTS[:2], poll=Poll(first=30, most=300))

    assert right(run.rows, TEXTS[:2])
    assert run.slept[0] == 30
    assert run.slept == sorted(run.slept)
    assert run.slept[-1] == 300
    assert run.states().count("pondering") == 1


@pytest.mark.parametrize("kind", [OpenAI, Voyage])
async def test_the_output_file_may_be_missing(kind, tmp_path):
    """A job that ended without one good line has no output file, and its rows fail with what the error file says."""
    server = kind()
    server.refuse = lambda text: (400, "this text is refused")

    run = await Run(server, tmp_path)(TEXTS[:2])

    assert right(run.rows, TEXTS[:2], failed={0, 1})
    assert "this text is refused" in run.failures[0].message
    assert type(run.failures[0]) is errors.InvalidInputError


@each_server
async def test_a_full_account_is_waited_for(kind, tmp_path):
    """A create refused with 429 is sent again after the provider's own wait, never sooner, and no chunk tries meanwhile."""
    server, tried = kind(), []

    def on_create(number):
        tried.append(run.time)
        if number == 1 and len(tried) < 5:
            raise Refused(429, "too many batch jobs in flight", "rate_limit_exceeded")

    server.on_create = on_create
    run = Run(server, tmp_path)
    await run(TEXTS)

    assert right(run.rows, TEXTS)
    assert len(server.jobs) == 3
    gaps = np.diff(tried)
    assert sum(gap >= 1800 for gap in gaps) == 3
    assert "waiting" in run.states()


async def test_a_full_account_slows_no_request_for_vectors(tmp_path):
    """The limits of batch jobs are their own: a 429 on a create changes nothing for calls of `embed` with the same key."""
    server, refusals = OpenAI(), iter(range(4))

    def on_create(number):
        if next(refusals, None) is not None:
            raise Refused(429, "too many batch jobs in flight", "rate_limit_exceeded")

    server.on_create = on_create
    run = Run(server, tmp_path)
    await run(TEXTS[:2])

    limiter = run.embedder._transport().limiter
    assert limiter.window.size == 100
    assert limiter.quota.owed(0.0) == 0


@pytest.mark.parametrize("kind", [OpenAI, Voyage, Gemini])
async def test_a_job_of_too_many_tokens_goes_out_in_smaller_ones(kind, tmp_path):
    """A job that fails for its tokens while nothing else is under way is cut until it passes; nothing is lost."""
    server = kind()
    too_many = {
        "code": "token_limit_exceeded" if kind is not Gemini else "RESOURCE_EXHAUSTED",
        "message": "Enqueued token limit reached. Limit: 10 enqueued tokens.",
        "line": None,
    }
    server.fails = lambda number, lines: too_many if len(lines) > 2 else None

    run = await Run(server, tmp_path)(TEXTS[:6])

    assert right(run.rows, TEXTS[:6])
    assert all(len(job["lines"]) <= 2 for job in server.jobs.values() if job["ran"])
    assert set(server.texts_run().values()) == {1}


@each_server
async def test_a_job_that_fails_its_check_is_an_error_and_resumable(kind, tmp_path):
    """A file that the provider does not take is an error with the provider's words; run again it is sent anew."""
    server = kind()
    wrong = {"code": "invalid_json_line", "message": "line 1 cannot be read", "line": 1}
    server.fails = lambda number, lines: wrong if number == 0 else None
    run = Run(server, tmp_path)

    with pytest.raises(errors.InvalidInputError, match="line 1 cannot be read"):
        await run(TEXTS[:3])
    again = await Run(server, tmp_path, run.store)(TEXTS[:3])

    assert right(again.rows, TEXTS[:3])


@each_server
async def test_a_job_that_is_not_found_is_not_paid_for_again(kind, tmp_path):
    """A poll that is answered with 404, as with another project's key, ends the run and says what to do; no second job
    is made, and with the right key the next run collects the first.
    """
    server = kind()
    server.polls = 3
    run = Run(server, tmp_path)
    answer = server.answer
    server.answer = lambda request: (
        response({"error": {"message": "no such job"}}, 404)
        if server.jobs and request.method == "GET"
        else answer(request)
    )
    with pytest.raises(errors.NotFoundError) as caught:
        await run(TEXTS[:3])
    assert next(iter(server.jobs)) in caught.value.__notes__[0]

    server.answer = answer
    again = await Run(server, tmp_path, run.store)(TEXTS[:3])
    assert right(again.rows, TEXTS[:3])
    assert len(server.jobs) == 1


@each_server
async def test_what_is_paid_for_comes_before_the_failure_of_a_later_job(kind, tmp_path):
    """A later job that fails ends the run when its turn comes: the rows before it are given, and nothing new is sent."""
    server = kind()
    wrong = {"code": "invalid_json_line", "message": "line 1 cannot be read", "line": 1}
    server.fails = lambda number, lines: wrong if number == 1 else None
    server.polls = 1
    run = Run(server, tmp_path)

    with pytest.raises(errors.EmbedkitError, match="line 1 cannot be read"):
        await run([*TEXTS, *(f"more {number}" for number in range(100))], caps=msgspec.structs.replace(SMALL, jobs=2))

    assert sorted(run.rows) == [0, 1, 2, 3, 4, 5]
    assert len(server.jobs) == 2


@each_server
async def test_a_crash_at_any_step_of_a_bad_night(kind, tmp_path):
    """The same where jobs expire, a text is refused, a line fails, the account is full; at every other step, to take less
    time.
    """

    def bad():
        server = kind()
        server.ends = ["expired"]
        full, broken = iter([1]), iter([1])

        def refuse(text):
            if "number 1 " in text:
                return 400, "refused"
            return (500, "the model failed") if "number 4 " in text and next(broken, None) else None

        server.refuse = refuse

        def on_create(number):
            if number == 1 and next(full, None):
                raise Refused(429, "too many batch jobs in flight", "rate_limit_exceeded")

        server.on_create = on_create
        return server

    (tmp_path / "whole").mkdir()
    whole = await Run(bad(), tmp_path / "whole")(TEXTS[:8])
    assert right(whole.rows, TEXTS[:8], failed={1})
    assert len(whole.server.jobs) == 3
    for crash_at in range(SERVERS.index(kind) % 2, whole.steps, 2):
        folder = tmp_path / str(crash_at)
        folder.mkdir()
        server = bad()
        before = Run(server, folder, crash_at=crash_at)
        with pytest.raises(Crash):
            await before(TEXTS[:8])
        first = len(before.rows)
        after = await Run(server, folder, before.store)(TEXTS[:8], first=first)

        assert right({**before.rows, **after.rows}, TEXTS[:8], failed={1}), crash_at
        assert len(server.jobs) == len(whole.server.jobs), crash_at
        assert server.texts_run() == whole.server.texts_run(), crash_at


@pytest.mark.parametrize("whole", [False, True])
async def test_base64_refused_in_a_batch_is_not_asked_for_again(whole, tmp_path):
    """No page says that batch lines may ask for base64: where it is refused, the lines go out without it."""
    server = OpenAI()
    asks = lambda line: "encoding_format" in line["body"]  # noqa: E731
    message = "encoding_format base64 is not supported in batch"
    if whole:
        server.fails = lambda number, lines: {"code": "invalid", "message": message} if asks(lines[0]) else None
    else:
        good = server.success
        server.success = lambda key, line, job: server.failed(key, 400, message) if asks(line) else good(key, line, job)

    run = await Run(server, tmp_path)(TEXTS[:6])

    assert right(run.rows, TEXTS[:6])
    assert len(server.jobs) == 2


@each_server
async def test_a_changed_input_is_refused(kind, tmp_path):
    """Other texts than those that were sent would get vectors of others: refused, with the rows, and nothing is sent."""
    server = kind()
    run = Run(server, tmp_path, crash_at=30)
    with pytest.raises(Crash):
        await run(TEXTS)
    sent = len(server.log)

    for other in (["changed", *TEXTS[1:]], TEXTS[:3]):
        with pytest.raises(errors.ConfigError, match="rows 0 to 5 of the input are not those"):
            await Run(server, tmp_path, run.store)(other)
    assert len(server.log) == sent


async def test_an_answer_file_that_is_gone_is_fetched_again(tmp_path):
    """Answers deleted from the folder are fetched again, and where the provider has them no more, the rows are sent again."""
    server = OpenAI()
    run = Run(server, tmp_path)
    await run(TEXTS[:4])
    for path in tmp_path.glob("*.answers"):
        path.unlink()
    again = await Run(server, tmp_path, run.store)(TEXTS[:4])
    assert right(again.rows, TEXTS[:4])
    assert len(server.jobs) == 1

    for path in tmp_path.glob("*.answers"):
        path.unlink()
    for name in [name for name in server.files if server.files[name].startswith(b'{"id"')]:
        del server.files[name]
    last = await Run(server, tmp_path, run.store)(TEXTS[:4])
    assert right(last.rows, TEXTS[:4])
    assert len(server.jobs) == 2


async def test_an_uploaded_file_that_is_gone_is_uploaded_again(tmp_path):
    """A file of an earlier run that the provider has deleted meanwhile is uploaded again."""
    server = OpenAI()
    whole = Run(OpenAI(), tmp_path / "a" if not (tmp_path / "a").mkdir() else None)
    await whole(TEXTS[:2])
    (tmp_path / "b").mkdir()
    run = Run(server, tmp_path / "b", crash_at=next(step for step in range(whole.steps) if step == 6))
    with pytest.raises(Crash):
        await run(TEXTS[:2])
    assert server.files
    assert not server.jobs
    server.files.clear()

    again = await Run(server, tmp_path / "b", run.store)(TEXTS[:2])

    assert right(again.rows, TEXTS[:2])


async def test_forget_deletes_what_is_no_longer_needed(tmp_path):
    """Files of a chunk are there until its rows are safe, and gone after it."""
    server = OpenAI()
    run = Run(server, tmp_path)
    await run(TEXTS)
    run.last.forget(5)
    assert sorted({path.name[:12] for path in tmp_path.iterdir()}) == ["batch-000000", "batch-000001", "batch-000002"]
    assert not list(tmp_path.glob("*.rows"))

    run.last.forget(11)
    assert sorted({path.name[:12] for path in tmp_path.iterdir()}) == ["batch-000001", "batch-000002"]
    run.last.forget(15)
    assert not list(tmp_path.iterdir())


@each_server
async def test_a_full_disk_ends_it_and_costs_nothing(kind, tmp_path, monkeypatch):
    """Wherever the disk is full, the error names the file, and the next run goes on without a second job."""
    writes, limit = [0], [0]

    def fsync(descriptor):
        writes[0] += 1
        if writes[0] == limit[0]:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    await Run(kind(), tmp_path)(TEXTS[:3])
    total = writes[0]
    assert total > 5

    for place in range(1, total + 1):
        folder = tmp_path / str(place)
        folder.mkdir()
        writes[0], limit[0], server = 0, place, kind()
        run = Run(server, folder)
        with pytest.raises(OSError, match="No space left") as caught:
            await run(TEXTS[:3])
        assert str(folder) in str(caught.value.filename)
        again = await Run(server, folder, run.store)(TEXTS[:3])

        assert right(again.rows, TEXTS[:3])
        assert len(server.jobs) == 1


async def test_polls_outlast_an_outage(tmp_path):
    """A provider that answers polls with 503 for a while is asked again; the job is not given up."""
    server, down = OpenAI(), [6]

    def handle(request):
        if request.method == "GET" and down[0]:
            down[0] -= 1
            return response("down", 503)
        return server.answer(request)

    run = Run(server, tmp_path)
    run.exchange = FakeExchange(handle)
    await run(TEXTS[:2])

    assert right(run.rows, TEXTS[:2])
    assert run.states().count("failing") == 3


async def test_a_refused_key_ends_it_at_once(tmp_path):
    """A 401 is raised where it comes, without the key in it; nothing is created, and the next run goes on."""
    server = OpenAI()

    def handle(request):
        return response({"error": {"message": "Incorrect API key provided: sk-of-the-test-123"}}, 401)

    run = Run(server, tmp_path)
    run.exchange = FakeExchange(handle)
    with pytest.raises(errors.AuthError) as caught:
        await run(TEXTS[:2])

    assert "sk-of-the-test-123" not in repr(caught.value) + str(caught.value) + caught.value.body
    again = await Run(server, tmp_path, run.store)(TEXTS[:2])
    assert right(again.rows, TEXTS[:2])


async def test_gemini_sends_its_key_nowhere_else(tmp_path):
    """An upload that the answer sends to another host is refused before the key goes there."""
    server = Gemini()

    def handle(request):
        assert request.url.startswith("https://generativelanguage.googleapis.com/")
        return response({}, headers={"x-goog-upload-url": "https://generativelanguage.googleapis.com.evil.test/upload"})

    run = Run(server, tmp_path)
    run.exchange = FakeExchange(handle)
    with pytest.raises(errors.DecodeError, match="another place"):
        await run(TEXTS[:2])


async def test_inline_answers_are_read_too(tmp_path):
    """Gemini's pages disagree on whether answers come as a file; either is read."""
    server = Gemini()
    server.inline = True

    run = await Run(server, tmp_path)(TEXTS[:3])

    assert right(run.rows, TEXTS[:3])


async def test_a_text_too_long_is_cut_where_the_provider_cannot(tmp_path):
    """truncate="end" at OpenAI cuts here: little at first, to the limit once the provider has refused it."""
    server = OpenAI()
    server.refuse = lambda text: (400, "maximum context length is 8192 tokens") if len(text) > 26_000 else None
    seen = []
    good = server.success

    def success(key, line, job):
        seen.extend(map(len, server.texts_of(line)))
        return good(key, line, job)

    server.success = success
    run = await Run(server, tmp_path)(["word " * 20_000, "short"], options=Options(truncate="end"))

    assert not run.failures
    assert max(seen) <= 26_000


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("azure:mine", "lists no embedding model"),
        ("cohere:embed-v4.0", "no page gives the format"),
        ("jina:jina-embeddings-v3", "no page describes"),
        ("voyage:voyage-multimodal-3.5", "no batch jobs for multimodal"),
    ],
)
async def test_who_has_no_batch_jobs_says_so(model, words, tmp_path):
    """A provider or model without batch jobs is a ConfigError that says why, before anything is read or sent."""
    exchange = FakeExchange([])
    more = {"base_url": "https://r.openai.azure.com"} if model.startswith("azure") else {}
    embedder = embedkit.connect(model, api_key="k-123456", exchange=exchange, **more)

    with pytest.raises(errors.ConfigError, match=words):
        batch_stream(embedder, iter(["a"]), Options(), store=Store(), folder=tmp_path)
    assert not exchange.requests


async def test_what_jobs_cannot_do_is_refused(tmp_path):
    """Embedders without a provider, pools and averaged long texts are refused with the way out."""
    from embedkit.testing import FakeEmbedder

    with pytest.raises(errors.ConfigError, match="connect to it alone"):
        batch_stream(FakeEmbedder(), ["a"], Options(), store=Store(), folder=tmp_path)
    mean = embedkit.connect("openai:text-embedding-3-small", api_key="k-123456", long_text="mean")
    with pytest.raises(errors.ConfigError, match="truncate='end'"):
        batch_stream(mean, ["a"], Options(), store=Store(), folder=tmp_path)


async def test_raise_names_the_row(tmp_path):
    """With on_error="raise" the first failed row is the error, and names itself."""
    run = Run(OpenAI(), tmp_path)

    with pytest.raises(errors.InvalidInputError) as caught:
        await run(["a", "b", None], on_error="raise")
    assert caught.value.rows == (2,)


# --- a process of its own, over real HTTP -----------------------------------------------------------------------------

CHILD = """
import asyncio, json, os, pathlib, sys
import numpy as np
import embedkit
from embedkit._bulk.provider_batch.chunk import Poll
from embedkit._bulk.provider_batch.stream import Caps, batch_stream
from embedkit._types import Options

name, url, folder = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])

class Store:
    def get(self, number):
        path = folder / f"{number}.json"
        return json.loads(path.read_text()) if path.exists() else None

    def put(self, number, record):
        unfinished = folder / f"{number}.json.new"
        unfinished.write_text(json.dumps(record))
        os.replace(unfinished, folder / f"{number}.json")

async def main():
    first = sum(1 for _ in folder.glob("row-*.npy"))
    texts = json.loads((folder / "texts.json").read_text())[first:]
    async with embedkit.connect(name, base_url=url, api_key="sk-of-the-test-123") as embedder:
        caps = Caps(lines=6, inputs=6, bytes=10**6, texts=2)
        stream = batch_stream(embedder, iter(texts), Options(), store=Store(), folder=folder, first=first, caps=caps,
                              poll=Poll(first=0.02, most=0.05))
        async for part in stream:
            for row in range(len(part)):
                unfinished = folder / "row.new.npy"
                np.save(unfinished, part.vectors[row])
                os.replace(unfinished, folder / f"row-{first + part.start + row:03d}.npy")

asyncio.run(main())
"""


class Loopback:
    """A fake provider over HTTP, which kills the process `victim` when it has received so many requests of it."""

    def __init__(self, server):
        loopback, lock = self, threading.Lock()
        self.victim, self.left, self.after = None, None, False

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                if self.headers.get("transfer-encoding"):
                    raise AssertionError
                with lock:
                    request = Request(
                        f"http://{self.headers['host']}{self.path}",
                        body,
                        {k.lower(): v for k, v in self.headers.items()},
                        self.command,
                    )
                    struck = loopback.left == 0
                    loopback.left = None if loopback.left is None else loopback.left - 1
                    if struck and not loopback.after:
                        loopback.victim.kill()
                        return
                    answer = server.answer(request)
                    if struck:
                        loopback.victim.kill()
                        return
                self.send_response(answer.status)
                for name, value in {**answer.headers, "content-length": str(len(answer.body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)

            do_GET = do_POST = do

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def close(self):
        self.http.shutdown()
        self.http.server_close()


@pytest.mark.parametrize(
    ("kind", "kills"), [(OpenAI, [(1, True), (3, False)]), (Gemini, [(2, True)])], ids=["openai", "gemini"]
)
def test_kill_9_costs_no_second_job(kind, kills, tmp_path):
    """Killed at several requests, one process after the other, over real HTTP: every row is right, no job was doubled."""
    server = kind()
    loopback = Loopback(server)
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    codes = []
    for left, after in [*kills, (None, False)]:
        loopback.after = after
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, f"{server.name}:{server.model}", loopback.url, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        loopback.victim, loopback.left = child, left
        codes.append(child.wait(60))
    loopback.close()

    assert codes == [-9] * len(kills) + [0]
    rows = {row: np.load(tmp_path / f"row-{row:03d}.npy") for row in range(len(TEXTS))}
    assert right(rows, TEXTS)
    assert set(server.texts_run().values()) == {1}
    assert len(server.jobs) == 3


# --- answers that are not what the provider has ---------------------------------------------------------------------


class Downloads:
    """A server whose downloads are spoiled: `spoil` is given the number of the download and the answer to it."""

    def __init__(self, server, spoil):
        self.server, self.spoil, self.count = server, spoil, 0

    def __getattr__(self, name):
        return getattr(self.server, name)

    def answer(self, request):
        answer = self.server.answer(request)
        if "/content" not in request.url and ":download" not in request.url:
            return answer
        self.count += 1
        return self.spoil(self.count, answer)


def once(spoil):
    return lambda number, answer: spoil(answer) if number == 1 else answer


def cut(answer):
    return response(answer.body[: len(answer.body) // 2])


SPOILED = {
    "a page of a proxy": lambda answer: response(b"<html>please log in</html>"),
    "cut off": cut,
    "not found yet": lambda answer: response({"error": {"message": "no such file"}}, 404),
    "with zeros": lambda answer: response(bytes(64) + answer.body[64:]),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=list(SPOILED))
@each_server
async def test_a_download_that_went_wrong_is_repeated_before_a_text_is_paid_for_again(kind, spoil, tmp_path):
    """Whatever came the first time in the place of the answers, the provider still has them: no second job."""
    server = Downloads(kind(), once(spoil))
    run = await Run(server, tmp_path)(TEXTS[:6])
    assert right(run.rows, TEXTS[:6])
    assert len(server.jobs) == 1


@each_server
async def test_answers_that_nobody_can_read_are_no_reason_to_send_texts_again(kind, tmp_path):
    """Where every download is something else, the run ends and says how that begins; nothing is sent a second time, and
    the next run, with the answers there, goes on.
    """
    server = kind()
    run = Run(Downloads(server, lambda number, answer: SPOILED["a page of a proxy"](answer)), tmp_path)
    with pytest.raises(errors.DecodeError, match="holds none: it begins b'<html>please"):
        await run(TEXTS[:6])
    assert len(server.jobs) == 1

    again = await Run(server, tmp_path, run.store)(TEXTS[:6])
    assert right(again.rows, TEXTS[:6])
    assert len(server.jobs) == 1


async def test_a_line_that_cannot_be_read_is_named(tmp_path):
    """After three tries the row's error says why, and not only that nothing came."""
    server = OpenAI()
    server.spoil = lambda lines: [line[:60] if '"custom_id": "0-' in line else line for line in lines]
    run = await Run(server, tmp_path)(TEXTS[:6])
    assert sorted(run.failures) == [0]
    assert "and 1 line of its answers cannot be read (no line of answers: " in str(run.failures[0])


async def test_a_byte_order_mark_is_no_part_of_the_first_answer(tmp_path):
    """A file of answers may begin with one."""
    server = Downloads(OpenAI(), lambda number, answer: response(b"\xef\xbb\xbf" + answer.body))
    run = await Run(server, tmp_path)(TEXTS[:6])
    assert right(run.rows, TEXTS[:6])
    assert len(server.jobs) == 1


def change(path, before):
    """Another character in the place of the one after these bytes."""
    whole = path.read_bytes()
    spot = whole.index(before) + len(before)
    path.write_bytes(whole[:spot] + (b"7" if whole[spot : spot + 1] != b"7" else b"8") + whole[spot + 1 :])
    return whole


async def test_answers_that_are_damaged_on_disk_are_fetched_again(tmp_path):
    """A digit of a vector, changed between two runs, reaches no row, and nothing is sent twice."""
    server = OpenAI()
    run = await Run(server, tmp_path)(TEXTS[:6])
    (path,) = tmp_path.glob("*.answers")
    whole = change(path, b'"embedding": "aaa'[:14])
    again = await Run(server, tmp_path, run.store)(TEXTS[:6])
    assert right(again.rows, TEXTS[:6])
    assert path.read_bytes() == whole
    assert len(server.jobs) == 1


async def test_texts_that_are_damaged_on_disk_are_not_sent(tmp_path):
    """A letter of a text, changed between two runs: what is sent again is the text of the input."""
    server = OpenAI()
    server.lose = lambda job, key: job == 0 and key.startswith("4-")
    run = Run(server, tmp_path)
    with pytest.raises(Crash):
        await Run(server, tmp_path, run.store, crash_at=6)(TEXTS[:6])
    assert len(server.jobs) <= 1
    (path,) = tmp_path.glob("*.texts")
    change(path, b"text number ")
    change(path, b"text number 4 of the te")
    again = await Run(server, tmp_path, run.store)(TEXTS[:6])
    assert right(again.rows, TEXTS[:6])
    assert set(server.texts_run()) == set(TEXTS[:6])


async def test_answers_that_are_gone_when_asked_for_once_more_are_kept_as_they_came(tmp_path):
    """A file that is cut off, and that the provider deletes then: what can be read of it counts, and the rest goes out
    again.
    """

    def spoil(number, answer):
        return cut(answer) if number == 1 else response({"error": {"message": "gone"}}, 404) if number < 4 else answer

    server = Downloads(OpenAI(), spoil)
    run = await Run(server, tmp_path)(TEXTS[:6])
    assert right(run.rows, TEXTS[:6])
    assert len(server.jobs) == 2
    assert sum(server.texts_run().values()) < 12
