"""A job: what it leaves, how it goes on, and what it refuses."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from pathlib import Path

import anyio
import numpy as np
import pytest

from embedkit import (
    AuthError,
    ConfigError,
    Embedder,
    Embeddings,
    EmbedkitError,
    InvalidInputError,
    Limits,
    QuotaError,
    RateLimitError,
    ServerError,
    TransportError,
    bulk,
)
from embedkit._bulk import writer
from embedkit._bulk.journal import Header, Journal, Line, decoded
from embedkit._bulk.notices import Began, Paused, Progress, Resumed, RowFailed, Scanned
from embedkit._types import Usage
from tests.support.jobs import Lines, Texts, job, rows_of, vector

TEXTS = [f"text number {number}" for number in range(100)]


class Server(Embedder):
    """Embeds with `vector`; fails as `trouble` says, and remembers what it was sent."""

    limits = Limits(max_texts=8)
    provider, model = "test", "m"
    max_concurrency = 4

    def __init__(self, trouble=None, price=None):
        self.sent = []
        self.trouble = trouble
        self.price = price

    async def embed_batch(self, texts, options):
        await anyio.sleep(0)
        self.sent += texts
        error = self.trouble(self, texts) if self.trouble else None
        if error is not None:
            raise error
        bad = [row for row, text in enumerate(texts) if "BAD" in text]
        if bad:
            raise InvalidInputError("refused", rows=bad)
        tokens = sum(len(text.split()) for text in texts)
        return Embeddings(np.stack([vector(text) for text in texts]), "m", Usage(tokens, 1))


def run(job):
    return anyio.run(job.run)


def after(count, error):
    """Fails for good once so many texts were sent."""
    return lambda server, texts: error() if len(server.sent) > count else None


def check(path, texts=TEXTS):
    rows = rows_of(path)
    assert [row["text"] for row in rows] == texts
    for row in rows:
        if row["text"] is None or "BAD" in row["text"]:
            assert row["vector"] is None
        else:
            assert row["vector"] == vector(row["text"]).tolist()


def left(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def test_a_finished_job_leaves_the_output_and_a_report(tmp_path):
    """Nothing else is left where no row failed, and the report counts what happened."""
    report = run(job(TEXTS, Server(), tmp_path / "out"))

    assert left(tmp_path) == ["out", "out.report.json"]
    check(tmp_path / "out")
    assert report.complete
    assert (report.rows, report.failed, report.tokens, report.dimensions, report.runs) == (100, 0, 300, 3, 1)
    said = json.loads((tmp_path / "out.report.json").read_bytes())
    assert said["rows"] == 100
    assert said["model"] == "test:m"
    assert said["series"][-1][1] == 100


def test_run_again_it_sends_nothing(tmp_path):
    """A finished job says that it is finished."""
    run(job(TEXTS, Server(), tmp_path / "out"))
    server = Server()
    report = run(job(TEXTS, server, tmp_path / "out"))

    assert report.already
    assert report.rows == 100
    assert server.sent == []


def test_a_job_goes_on_where_an_error_ended_it(tmp_path):
    """What was written is not sent again, and the output equals that of one run."""
    first = Server(after(50, lambda: AuthError("no", status=401)))
    with pytest.raises(AuthError) as caught:
        run(job(TEXTS, first, tmp_path / "out"))
    kept = int(caught.value.__notes__[0].split()[0])
    assert kept >= 8
    assert "run the same job again" in caught.value.__notes__[0]
    assert left(tmp_path) == ["out.job"]

    second = Server()
    report = run(job(TEXTS, second, tmp_path / "out"))

    check(tmp_path / "out")
    assert second.sent == TEXTS[kept:]
    assert (report.rows, report.runs, report.complete) == (100, 2, True)
    assert left(tmp_path) == ["out", "out.report.json"]


def test_an_error_before_the_first_row_leaves_nothing(tmp_path):
    """A wrong key leaves no folder behind."""
    with pytest.raises(AuthError):
        run(job(TEXTS, Server(after(0, lambda: AuthError("no", status=401))), tmp_path / "out"))

    assert left(tmp_path) == []


@pytest.mark.parametrize("lines", range(2, 9))
@pytest.mark.parametrize("garbage", [b"", b"{", b"00000000 {}\n", b"\0" * 300, b'deadbeef {"checkpoint":null}\n'])
def test_a_torn_journal_costs_its_last_lines_only(tmp_path, lines, garbage):
    """Whatever a crash left at its end, the job goes on from the last whole line."""
    with pytest.raises(QuotaError):
        run(job(Texts(TEXTS), Server(after(60, lambda: QuotaError("gone", status=402))), tmp_path / "out"))
    journal = tmp_path / "out.job" / "journal.jsonl"
    whole = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(whole[:lines]) + garbage)
    with (tmp_path / "out.job" / "rows").open("ab") as rows:
        rows.write(b'{"text": "half a r')
    server = Server()
    run(job(TEXTS, server, tmp_path / "out"))

    check(tmp_path / "out")


def test_failed_rows_are_listed_and_told(tmp_path):
    """Rows without a text and refused ones: null in the output, a line each in the list, with row, key and reason."""
    texts = [*TEXTS[:10], None, *TEXTS[10:20], "BAD one", *TEXTS[20:40]]
    keys = [f"k{number}" for number in range(len(texts))]
    told = []
    report = run(job(Texts(texts, keys=keys), Server(), tmp_path / "out", tell=told.append))

    check(tmp_path / "out", texts)
    assert left(tmp_path) == ["out", "out.failures.jsonl", "out.report.json"]
    failures = rows_of(tmp_path / "out.failures.jsonl")
    assert failures == [
        {"row": 10, "key": "k10", "reason": "no text"},
        {"row": 21, "key": "k21", "reason": "test:m: refused"},
    ]
    assert [(each.row, each.key) for each in told if isinstance(each, RowFailed)] == [(10, "k10"), (21, "k21")]
    assert report.failed == 2


def test_failed_rows_survive_a_crash(tmp_path):
    """Their list is cut back with the rows, and each is in it once."""
    texts = [text if number % 5 else None for number, text in enumerate(TEXTS)]
    with pytest.raises(QuotaError):
        run(job(texts, Server(after(40, lambda: QuotaError("gone", status=402))), tmp_path / "out"))
    with (tmp_path / "out.job" / "failures.jsonl").open("ab") as file:
        file.write(b'{"row": 99')
    run(job(texts, Server(), tmp_path / "out"))

    assert [each["row"] for each in rows_of(tmp_path / "out.failures.jsonl")] == list(range(0, 100, 5))


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda server, texts: setattr(server, "model", "other"), 'model was "test:m" and is "test:other"'),
        (lambda server, texts: setattr(server, "provider", "x"), 'model was "test:m" and is "x:m"'),
        (lambda server, texts: texts.__setitem__(3, "changed"), "the rows of the input are others"),
        (lambda server, texts: texts.append("more"), "the rows of the input are others (100 then, 101 now)"),
        (lambda server, texts: texts.pop(), "the rows of the input are others (100 then, 99 now)"),
    ],
)
def test_a_job_of_other_settings_is_refused_and_says_what_changed(tmp_path, finished, change, says):
    """Neither a finished nor an unfinished output is touched, and nothing is sent."""
    first = Server(None if finished else after(50, lambda: QuotaError("gone", status=402)))
    with contextlib.suppress(QuotaError):
        run(job(TEXTS, first, tmp_path / "out"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "lock"}
    server, texts = Server(), list(TEXTS)
    change(server, texts)
    with pytest.raises(ConfigError, match="--force") as caught:
        run(job(texts, server, tmp_path / "out"))

    assert says in str(caught.value)
    assert server.sent == []
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "lock"} == before


def test_changed_rows_are_refused_without_a_scan_too(tmp_path):
    """The rows that were written are compared when they are read again."""
    with pytest.raises(QuotaError):
        run(job(TEXTS, Server(after(50, lambda: QuotaError("gone", status=402))), tmp_path / "out", scan=False))
    with pytest.raises(ConfigError, match="are not those that were embedded"):
        run(job(["changed", *TEXTS[1:]], Server(), tmp_path / "out", scan=False))

    run(job(TEXTS, Server(), tmp_path / "out", scan=False))
    check(tmp_path / "out")


def test_an_input_that_fails_half_way_costs_no_row_that_came(tmp_path):
    """Whatever it raises: what had come is kept, a note says so, and the same job goes on."""

    class Breaking(Texts):
        def blocks(self):
            for block in super().blocks():
                yield block
                if block.texts[-1] == "text number 62":
                    raise KeyError("of the caller")

    with pytest.raises(KeyError) as caught:
        run(job(Breaking(TEXTS, scans=False), Server(), tmp_path / "out"))
    assert "run the same job again" in caught.value.__notes__[0]
    server = Server()
    run(job(TEXTS, server, tmp_path / "out", scan=False))

    assert len(server.sent) < 100
    check(tmp_path / "out")


def test_force_begins_anew(tmp_path):
    """An old output of any kind is replaced when the new one is whole."""
    (tmp_path / "out").write_text("something else")
    with pytest.raises(ConfigError, match="exists already"):
        run(job(TEXTS, Server(), tmp_path / "out"))
    with pytest.raises(QuotaError):
        run(job(TEXTS, Server(after(50, lambda: QuotaError("gone", status=402))), tmp_path / "out", force=True))
    assert (tmp_path / "out").read_text() == "something else"
    server = Server()
    run(job(TEXTS[:50], server, tmp_path / "out", force=True))

    assert len(server.sent) == 50
    check(tmp_path / "out", TEXTS[:50])


def test_two_jobs_at_once(tmp_path):
    """The second is refused while the first runs."""

    async def main():
        gate, entered = anyio.Event(), anyio.Event()

        class Slow(Server):
            async def embed_batch(self, texts, options):
                entered.set()
                await gate.wait()
                return await super().embed_batch(texts, options)

        async with anyio.create_task_group() as group:
            group.start_soon(job(TEXTS, Slow(), tmp_path / "out").run)
            await entered.wait()
            with pytest.raises(ConfigError, match="another job is writing it"):
                await job(TEXTS, Server(), tmp_path / "out").run()
            gate.set()

    anyio.run(main)
    check(tmp_path / "out")


def test_append_embeds_only_what_was_added(tmp_path):
    """A corpus that grew: the same beginning, and more rows."""
    run(job(TEXTS[:60], Server(), tmp_path / "out"))
    server = Server()
    report = run(job(TEXTS, server, tmp_path / "out", append=True))

    check(tmp_path / "out")
    assert server.sent == TEXTS[60:]
    assert (report.rows, report.tokens) == (100, 300)
    server = Server()
    assert run(job(TEXTS, server, tmp_path / "out", append=True)).rows == 100
    assert server.sent == []


def test_append_refuses_another_beginning(tmp_path):
    """The old output stays."""
    run(job(TEXTS[:60], Server(), tmp_path / "out"))
    with pytest.raises(ConfigError, match="are not those that were embedded"):
        run(job(["x", *TEXTS[1:]], Server(), tmp_path / "out", append=True))

    check(tmp_path / "out", TEXTS[:60])
    run(job(TEXTS[:60], Server(), tmp_path / "out", append=True))
    check(tmp_path / "out", TEXTS[:60])


def test_a_refused_append_leaves_a_finished_job(tmp_path):
    """The input is named as what is wrong, and the output is the finished one that it was, for each later command."""
    run(job(TEXTS[:60], Server(), tmp_path / "out"))
    for texts, says in ((["x", *TEXTS[1:]], "the first 60 rows of the input"), (TEXTS[:50], "the input has 50 rows")):
        with pytest.raises(ConfigError, match=says) as caught:
            run(job(texts, Server(), tmp_path / "out", append=True))
        assert not hasattr(caught.value, "__notes__")
        assert left(tmp_path) == ["out", "out.report.json"]

    assert run(job(TEXTS[:60], Server(), tmp_path / "out")).already


def test_advice_for_other_rows_is_advice_that_works(tmp_path):
    """--append is named only where it may go on: not for a beginning of what is finished."""
    run(job(TEXTS[:60], Server(), tmp_path / "out"))
    with pytest.raises(ConfigError, match="--append"):
        run(job(TEXTS, Server(), tmp_path / "out"))
    with pytest.raises(ConfigError, match="now") as caught:
        run(job(TEXTS[:50], Server(), tmp_path / "out"))
    assert "--append" not in str(caught.value)


class Changing(Texts):
    """An input that others write to: it is `later` when it is read after it was looked through."""

    def __init__(self, texts, later):
        super().__init__(texts)
        self.later = later

    def scan(self, count_tokens):
        found = super().scan(count_tokens)
        self.texts = self.later
        return found


def test_an_input_that_is_cut_under_the_job_is_not_a_finished_job(tmp_path):
    """Fewer rows than were looked through: refused, what came is kept but for the last row, of which half may be gone;
    the whole input goes on, and so does `append` with what there is.
    """
    for folder, rest, options in (("a", TEXTS, {}), ("b", TEXTS[:50], {"append": True})):
        (tmp_path / folder).mkdir()
        cut = [*TEXTS[:50], "text num"]
        with pytest.raises(ConfigError, match="it had 100 rows at first, and 51 came") as caught:
            run(job(Changing(TEXTS, cut), Server(), tmp_path / folder / "out"))
        assert "50 of 100 rows are kept" in caught.value.__notes__[0]
        server = Server()
        report = run(job(rest, server, tmp_path / folder / "out", **options))

        assert server.sent == rest[50:]
        assert report.rows == len(rest)
        check(tmp_path / folder / "out", rest)


@pytest.mark.parametrize("later", [[*TEXTS, "one more"], ["another", *TEXTS[1:]]])
def test_a_job_knows_which_rows_it_has_embedded(tmp_path, later):
    """An input that grows or changes under the job: the report is of the rows that came, so that they are known again,
    and those that were looked through are not.
    """
    run(job(Changing(TEXTS, later), Server(), tmp_path / "out"))

    check(tmp_path / "out", later)
    assert run(job(later, Server(), tmp_path / "out")).already
    with pytest.raises(ConfigError, match="the rows of the input are others"):
        run(job(TEXTS, Server(), tmp_path / "out"))


def test_append_after_a_crash_in_the_middle_of_it(tmp_path):
    """The finished part stays whole until the new one is."""
    run(job(TEXTS[:60], Server(), tmp_path / "out"))
    with pytest.raises(QuotaError):
        run(job(TEXTS, Server(after(20, lambda: QuotaError("gone", status=402))), tmp_path / "out", append=True))
    check(tmp_path / "out", TEXTS[:60])
    run(job(TEXTS, Server(), tmp_path / "out", append=True))

    check(tmp_path / "out")


def rerun(texts, out, **options):
    return bulk.run_sync(texts, Server(), str(out), **options)


@pytest.mark.parametrize("out", ["o.npy", "o.parquet", "o.jsonl", "o/", "sqlite:o.db#t", "duckdb:o.duck#t"])
def test_a_finished_output_that_is_gone_is_not_called_finished(tmp_path, monkeypatch, out):
    """A report alone is no vector: refused, and force makes it again."""
    monkeypatch.chdir(tmp_path)
    rerun(TEXTS, out)
    for path in tmp_path.iterdir():
        if not path.name.endswith(".report.json"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for options in ({}, {"append": True}):
        with pytest.raises(ConfigError, match=r"is gone.*force=True"):
            rerun(TEXTS, out, **options)
    assert not rerun(TEXTS, out, force=True).already
    assert rerun(TEXTS, out).already


@pytest.mark.parametrize("out", ["o.npy", "o.parquet", "o.jsonl", "o.arrow"])
def test_a_file_that_comes_up_while_a_job_is_unfinished_is_not_replaced(tmp_path, out):
    """Neither the file nor what is paid for is lost: with the file out of the way the job ends."""
    place = tmp_path / out
    with pytest.raises(QuotaError):
        bulk.run_sync(TEXTS, Server(after(50, lambda: QuotaError("gone", status=402))), place)
    place.write_text("precious")
    with pytest.raises(ConfigError, match="made by somebody else"):
        rerun(TEXTS, place)
    assert place.read_text() == "precious"
    place.unlink()
    server = Server()
    assert bulk.run_sync(TEXTS, server, place).rows == 100
    assert server.sent == []


@pytest.mark.parametrize(
    "options", [{"patience": -1}, {"patience": float("nan")}, {"max_tokens": "5"}, {"max_cost": -0.1}]
)
def test_a_limit_is_a_number(tmp_path, options):
    """Refused by name before anything is read."""
    with pytest.raises(ConfigError, match=f"{next(iter(options))}=.*: it is a number, 0 or more"):
        rerun(TEXTS, tmp_path / "o.npy", **options)


@pytest.mark.parametrize("length", [1, 9, 60])
def test_a_header_that_a_crash_has_cut_is_no_journal(tmp_path, length):
    """It is on disk before anything is sent, so that nothing is lost with it; beside rows it is a damaged journal."""
    with pytest.raises(QuotaError):
        rerun_to_quota(tmp_path / "out")
    journal = tmp_path / "out.job" / "journal.jsonl"
    cut = journal.read_bytes()[:length]
    for damaged in (cut, b""):
        journal.write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"no journal of this format.*--force"):
            run(job(TEXTS, Server(), tmp_path / "out"))
    for path in journal.parent.iterdir():
        path.unlink()
    journal.write_bytes(cut)
    run(job(TEXTS, Server(), tmp_path / "out"))
    check(tmp_path / "out")


def test_a_journal_is_there_with_its_first_line_or_not_at_all(tmp_path, monkeypatch):
    """A crash before that is the crash of a job that has not begun, whatever an append has put beside it already."""
    seen, fsync = [], os.fsync

    def looked(descriptor):
        seen.append(journal.path.read_bytes() if journal.path.exists() else None)
        fsync(descriptor)

    journal = Journal(tmp_path)
    monkeypatch.setattr("os.fsync", looked)
    journal.append(Line(header=Header(identity={"model": "m"})))
    journal.append(Line(run=1.0))
    journal.close()

    assert seen[0] is None
    assert all(decoded(before.splitlines(keepends=True)[0]) is not None for before in seen if before is not None)
    assert Journal(tmp_path).header.identity == {"model": "m"}
    assert Journal(tmp_path).runs == 1


def rerun_to_quota(out):
    run(job(TEXTS, Server(after(50, lambda: QuotaError("gone", status=402))), out))


# --- patience --------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self):
        self.time = 0.0
        self.slept = []

    def now(self):
        return self.time

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.time += seconds
        await anyio.sleep(0)


def outage(clock, begin, end, error):
    """Fails between the two; time begins to pass with the outage."""
    return lambda server, texts: error() if len(server.sent) > begin and clock.time < end else None


ILL = [
    lambda: ServerError("down", status=503, retryable=True),
    lambda: TransportError("reset"),
    lambda: ServerError("down", status=500, retry_after=45.0, retryable=True),
    lambda: RateLimitError("slow down", status=429, retryable=True),
    lambda: RateLimitError("slow down", status=429, retry_after=110.0, retryable=True),
]


@pytest.mark.parametrize("error", ILL)
def test_ten_minutes_of_outage_cost_no_row(tmp_path, error):
    """It pauses, sends one batch at a time, and goes on; a line is told for every pause."""
    clock, told = Clock(), []
    server = Server(outage(clock, 40, 590, error))
    report = run(job(TEXTS, server, tmp_path / "out", tell=told.append, now=clock.now, sleep=clock.sleep))

    check(tmp_path / "out")
    assert report.complete
    pauses = [each for each in told if isinstance(each, Paused)]
    assert sum(each.seconds for each in pauses) >= 590
    assert len(pauses) <= 20
    assert sum(isinstance(each, Resumed) for each in told) == 1
    extra = len(server.sent) - len(TEXTS)
    assert extra <= 8 * (len(pauses) + server.max_concurrency)


@pytest.mark.parametrize("error", ILL)
def test_an_outage_beyond_the_patience_ends_it_resumable(tmp_path, error):
    """The error comes out, with what is kept; the next run goes on."""
    clock = Clock()
    server = Server(outage(clock, 40, 1e9, error))
    with pytest.raises(EmbedkitError) as caught:
        run(job(TEXTS, server, tmp_path / "out", now=clock.now, sleep=clock.sleep, patience=100))

    assert "rows are kept" in caught.value.__notes__[0]
    assert clock.time <= 100 + (error().retry_after or 0.0)
    kept = int(caught.value.__notes__[0].split()[0])
    server = Server()
    run(job(TEXTS, server, tmp_path / "out"))
    check(tmp_path / "out")
    assert server.sent == TEXTS[kept:]


@pytest.mark.parametrize("error", [lambda: AuthError("no", status=401), lambda: QuotaError("gone", status=402)])
def test_a_refused_key_or_an_exhausted_quota_is_not_waited_for(tmp_path, error):
    """Nothing gets better by waiting, so the job ends at once."""
    clock = Clock()
    with pytest.raises((AuthError, QuotaError)):
        run(job(TEXTS, Server(after(40, error)), tmp_path / "out", now=clock.now, sleep=clock.sleep))

    assert clock.slept == []


def proxy_refused():
    error = TransportError("the proxy cannot be reached")
    error.proxy_refused = True
    return error


def test_a_proxy_that_refuses_the_first_request_is_not_waited_for(tmp_path):
    """Its address is wrong. One that has let requests through is away, and is waited for as any outage is."""
    clock = Clock()
    wrong = Server(lambda server, texts: proxy_refused())
    with pytest.raises(TransportError, match="the proxy cannot be reached"):
        run(job(TEXTS, wrong, tmp_path / "out", now=clock.now, sleep=clock.sleep))
    assert clock.time == 0
    assert left(tmp_path) == []

    away = Server(outage(clock, 40, 300, proxy_refused))
    run(job(TEXTS, away, tmp_path / "out", now=clock.now, sleep=clock.sleep))
    check(tmp_path / "out")


def test_a_wait_longer_than_the_patience_ends_it_at_once(tmp_path):
    """What the provider asks for is in the error."""
    clock = Clock()
    error = lambda: ServerError("down", status=503, retry_after=3600.0, retryable=True)  # noqa: E731
    with pytest.raises(ServerError):
        run(job(TEXTS, Server(after(40, error)), tmp_path / "out", now=clock.now, sleep=clock.sleep))

    assert clock.slept == []


# --- stopping --------------------------------------------------------------------------------------------------------


def stopping(at):
    """A job that is asked to stop after so many rows."""

    def tell(notice):
        if isinstance(notice, Progress) and notice.totals.rows >= at:
            tell.job.stop()

    return tell


def test_a_stop_writes_what_is_in_flight(tmp_path):
    """What was sent is written, and the next run sends the rest."""
    first, tell = Server(), stopping(20)
    tell.job = job(TEXTS, first, tmp_path / "out", tell=tell)
    report = run(tell.job)

    assert (report.complete, report.stopped) == (False, "asked")
    assert report.rows == len(first.sent) < 100
    second = Server()
    assert run(job(TEXTS, second, tmp_path / "out")).complete
    assert first.sent + second.sent == TEXTS
    check(tmp_path / "out")


def test_a_stop_in_an_outage_ends_the_wait(tmp_path):
    """The job does not wait for the provider, and keeps what it has."""
    clock = Clock()
    server = Server(outage(clock, 40, 1e9, ILL[0]))

    def tell(notice):
        if isinstance(notice, Paused):
            tell.job.stop()

    tell.job = job(TEXTS, server, tmp_path / "out", tell=tell, now=clock.now, sleep=clock.sleep)
    report = run(tell.job)

    assert (report.complete, report.stopped) == (False, "asked")
    assert run(job(TEXTS, Server(), tmp_path / "out")).complete
    check(tmp_path / "out")


@pytest.mark.parametrize("error", ILL)
def test_a_stop_before_the_first_row_leaves_nothing(tmp_path, error):
    """Nothing has come back, so there is no folder to go on in; parts in flight that fail are no error then."""
    clock = Clock()

    def trouble(server, texts):
        tell.job.stop()
        return error()

    def tell(notice):
        assert not isinstance(notice, Paused)

    tell.job = job(TEXTS, Server(trouble), tmp_path / "out", tell=tell, now=clock.now, sleep=clock.sleep)
    report = run(tell.job)

    assert (report.complete, report.stopped, report.rows) == (False, "asked", 0)
    assert list(tmp_path.iterdir()) == []


def test_a_limit_of_nothing_leaves_nothing(tmp_path):
    """A job that may not send one text leaves no folder."""
    report = run(job(TEXTS, Server(), tmp_path / "out", max_tokens=0))

    assert (report.complete, report.stopped, report.rows) == (False, "max_tokens", 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("begin", "said"), [(-1, "none of the 100 rows is kept"), (40, " are kept in ")])
def test_an_outage_says_how_many_tries_and_rows(tmp_path, begin, said):
    """The notes of the error: what is kept of how many rows, and after how many attempts it gave up."""
    clock = Clock()
    server = Server(outage(clock, begin, 1e9, ILL[0]))
    with pytest.raises(EmbedkitError) as caught:
        run(job(TEXTS, server, tmp_path / "out", now=clock.now, sleep=clock.sleep, patience=100))
    kept, gave_up = caught.value.__notes__

    assert said in kept
    assert "100 rows " in kept
    assert gave_up == f"gave up after {len(clock.slept) + 1} attempts in 100 s; the job's patience is 100 s"


@pytest.mark.parametrize("limit", [0, 1, 3, 50, 299, 1000])
def test_max_tokens_is_not_passed(tmp_path, limit):
    """It stops cleanly at or below the limit, and a higher one goes on."""
    first = Server()
    report = run(job(TEXTS, first, tmp_path / "out", max_tokens=limit))
    assert (report.tokens or 0) <= limit
    assert report.complete == (limit >= 300)
    second = Server()
    if not report.complete:
        assert report.stopped == "max_tokens"
        report = run(job(TEXTS, second, tmp_path / "out"))

    assert report.complete
    assert first.sent + second.sent == TEXTS
    check(tmp_path / "out")


@pytest.mark.parametrize("factor", [2, 5, 9])
@pytest.mark.parametrize("limit", [40_000, 100_000])
def test_a_provider_that_counts_more_than_was_estimated(tmp_path, limit, factor):
    """The limit is one of what the provider counts: it is kept also where that is many times our estimate, from the
    first texts on.
    """
    texts = [f"text {number}" for number in range(40_000)]

    class Counts(Server):
        limits, max_concurrency = Limits(max_texts=256), 32

        async def embed_batch(self, texts, options):
            await anyio.sleep(0.02)  # so that as many are in flight as may be
            made = await super().embed_batch(texts, options)
            counted = sum(factor * self.count_tokens(text) for text in texts)
            return Embeddings(made.vectors, "m", Usage(counted, 1))

    report = run(job(texts, Counts(), tmp_path / "out", max_tokens=limit))

    most = max(limit, factor * 512 * 4)
    assert (report.stopped, report.tokens <= most) == ("max_tokens", True)
    assert report.tokens > 0.9 * limit


def test_a_stop_ends_a_job_that_waits_for_the_first_count(tmp_path):
    """It holds texts back until something has been counted; nothing is sent after the stop, and a later run goes on."""
    texts = [f"text {number}" for number in range(5_000)]

    class Slow(Server):
        limits, max_concurrency = Limits(max_texts=256), 32

        async def embed_batch(self, texts, options):
            for _ in range(100):  # until nothing more comes
                await anyio.sleep(0)
            whole.stop()
            return await super().embed_batch(texts, options)

    server = Slow()
    whole = job(texts, server, tmp_path / "out", max_tokens=1000)
    report = run(whole)
    assert (report.complete, report.rows) == (False, len(server.sent))
    assert 256 <= len(server.sent) <= 512
    assert run(job(texts, Server(), tmp_path / "out")).rows == 5_000
    check(tmp_path / "out", texts)


def test_max_cost_needs_a_price(tmp_path):
    """Without one it is refused; with one it stops there."""
    with pytest.raises(ConfigError, match="no price"):
        run(job(TEXTS, Server(), tmp_path / "out", max_cost=1.0))
    report = run(job(TEXTS, Server(price=1.0), tmp_path / "out", max_cost=100 / 1e6))

    assert report.stopped == "max_cost"
    assert report.cost <= 100 / 1e6


# --- what is looked at first -----------------------------------------------------------------------------------------


def test_the_scan_comes_before_the_first_request(tmp_path):
    """Rows, bad rows, tokens and cost are told first."""
    told = []
    run(job([*TEXTS, None], Server(price=2.0), tmp_path / "out", tell=told.append))

    assert isinstance(told[0], Scanned)
    assert (told[0].scan.rows, told[0].scan.bad) == (101, 1)
    assert told[0].cost == told[0].scan.tokens * 2.0 / 1e6
    assert isinstance(told[1], Began)


def test_an_input_without_a_usable_text_is_refused(tmp_path):
    """Nothing is sent for it."""
    server = Server()
    with pytest.raises(ConfigError, match="no row has a text"):
        run(job([None, None], server, tmp_path / "out"))
    assert server.sent == []


def test_no_rows_make_an_empty_output(tmp_path):
    """An empty input is a job that is finished at once."""
    report = run(job([], Server(), tmp_path / "out"))

    assert (report.rows, report.complete) == (0, True)
    assert rows_of(tmp_path / "out") == []


@pytest.mark.parametrize("refused", [1, 7, 8, 9, 30])
def test_rows_that_fail_before_the_width_is_known(tmp_path, refused):
    """They are held until it is, and written in their place."""
    texts = [f"BAD {number}" for number in range(refused)] + TEXTS
    report = run(job(texts, Server(), tmp_path / "out"))

    check(tmp_path / "out", texts)
    assert report.failed == refused


def test_when_every_text_fails_it_is_an_error(tmp_path):
    """Nothing was paid for, and nothing is left."""
    with pytest.raises(EmbedkitError, match="every one of the 20 texts failed"):
        run(job([f"BAD {number}" for number in range(20)], Server(), tmp_path / "out"))

    assert left(tmp_path) == []


def test_a_crash_after_the_output_was_moved(tmp_path):
    """The report is still to be written, and is."""

    class Dies(Lines):
        def finish(self, metadata):
            super().finish(metadata)
            raise OSError(28, os.strerror(28), self.target)

    with pytest.raises(OSError, match="No space"):
        run(job(TEXTS, Server(), tmp_path / "out", sink=Dies))
    server = Server()
    report = run(job(TEXTS, server, tmp_path / "out"))

    assert server.sent == []
    assert (report.complete, report.rows) == (True, 100)
    assert left(tmp_path) == ["out", "out.report.json"]


def test_an_output_in_the_folder_that_is_read_is_refused(tmp_path):
    """The next run would read it as input."""

    class Folder(Texts):
        def described(self):
            return {"inputs": [str(tmp_path)], "column": "text"}

    server = Server()
    with pytest.raises(ConfigError, match="which is read"):
        run(job(Folder(TEXTS), server, tmp_path / "out"))
    assert server.sent == []


def test_vectors_alone_never_replace_the_texts(tmp_path, monkeypatch):
    """An output that keeps no records cannot be the input, with force neither; nor can a folder be both."""
    monkeypatch.chdir(tmp_path)
    Path("own.txt").write_text("one\n")
    Path("in").mkdir()
    Path("in/a.txt").write_text("one\n")
    for name, out, form in (("own.txt", "own.txt", "npy"), ("in", "in/", None)):
        with pytest.raises(ConfigError, match=r"is the input|which is read"):
            bulk.run_sync(name, Server(), out, output_format=form, force=True)

    assert Path("own.txt").read_text() == "one\n"
    assert left("in") == ["a.txt"]


def test_what_is_written_is_safe_though_nothing_more_comes(tmp_path, monkeypatch):
    """Rows that were written early, because they were many, get their checkpoint while the provider is silent."""
    monkeypatch.setattr(writer, "ENOUGH", 1)

    async def main():
        silent = anyio.Event()

        class Stalls(Server):
            async def embed_batch(self, texts, options):
                if len(self.sent) >= 64:
                    await silent.wait()
                return await super().embed_batch(texts, options)

        async with anyio.create_task_group() as group:
            group.start_soon(job(TEXTS, Stalls(), tmp_path / "out").run)
            rows = 0
            with anyio.fail_after(60):
                while rows < 64:
                    await anyio.sleep(0.05)
                    journal = tmp_path / "out.job" / "journal.jsonl"
                    lines = journal.read_bytes().splitlines(keepends=True) if journal.exists() else []
                    found = [line.checkpoint.totals.rows for line in map(decoded, lines) if line and line.checkpoint]
                    rows = max(found, default=0)
            silent.set()

    anyio.run(main)
    check(tmp_path / "out")


@pytest.mark.parametrize(("each", "most"), [(0.001, 1024), (0.0005, 2000)])
def test_a_slow_output_slows_the_job(tmp_path, each, most):
    """Where a row takes the output so many seconds, no more texts are sent than it writes in one, beside those in
    flight, read ahead and of one commit: a kill never costs more.
    """
    texts = [f"text number {number}" for number in range(6_000)]
    server, now, at_stake = Server(), [0.0], []

    class Slow(Lines):
        paced = True

        def write(self, pieces, vectors, failures, keys):
            super().write(pieces, vectors, failures, keys)
            at_stake.append(len(server.sent) - self.safe)
            now[0] += each * len(vectors)
            time.sleep(0.0005)  # the provider would send all the others meanwhile

        safe = 0

        def sync(self):
            at_stake.append(len(server.sent) - self.safe)
            self.safe = self.rows
            return super().sync()

    async def sleep(seconds):
        await anyio.sleep(0)

    run(job(texts, server, tmp_path / "out", sink=Slow, now=lambda: now[0], sleep=sleep))

    check(tmp_path / "out", texts)
    assert max(at_stake) <= most + 1024


def test_a_disk_that_stalls_stalls_the_job(tmp_path):
    """While a checkpoint takes longer than a second, no more is sent than what is in flight and read ahead."""
    texts = [f"text number {number}" for number in range(20_000)]
    server, now, meanwhile = Server(), [0.0], []

    class Stalled(Lines):
        def sync(self):
            before = len(server.sent)
            if not meanwhile:
                now[0] += 5
                sent = -1
                while sent != (sent := len(server.sent)):
                    time.sleep(0.2)
                meanwhile.append(sent - before)
            return super().sync()

    async def sleep(seconds):
        await anyio.sleep(0)

    run(job(texts, server, tmp_path / "out", sink=Stalled, now=lambda: now[0], sleep=sleep))

    check(tmp_path / "out", texts)
    assert meanwhile[0] < 6_000


def test_a_folder_that_a_killed_job_left_at_its_very_end(tmp_path):
    """Without a journal it says nothing: the finished output counts, and no text is sent again."""
    run(job(TEXTS, Server(), tmp_path / "out"))
    (tmp_path / "out.job").mkdir()
    (tmp_path / "out.job" / "lock").touch()
    server = Server()

    assert run(job(TEXTS, server, tmp_path / "out")).already
    assert not (tmp_path / "out.job").exists()
    with pytest.raises(ConfigError, match="the rows of the input are others"):
        run(job(TEXTS[1:], server, tmp_path / "out"))
    assert server.sent == []
    check(tmp_path / "out")


def test_a_name_without_room_for_the_report_is_refused_at_the_beginning(tmp_path):
    """The report has a longer name than the output, and is written when every row is paid for."""
    most = os.pathconf(tmp_path, "PC_NAME_MAX") - len("..report.json.new")
    server = Server()
    with pytest.raises(ConfigError, match="1 bytes more than the file system takes"):
        run(job(TEXTS, server, tmp_path / ("é" * (most // 2) + "x" * (1 + most % 2))))
    assert server.sent == []
    assert os.listdir(tmp_path) == []  # noqa: PTH208

    run(job(TEXTS, server, tmp_path / ("x" * most)))
    assert len(os.listdir(tmp_path)) == 2  # noqa: PTH208


def test_the_root_is_no_output():
    """There is no place beside it."""
    with pytest.raises(ConfigError, match="root of the file system"):
        job(TEXTS, Server(), "/")


def test_on_error_raise_ends_at_the_refused_row(tmp_path):
    """The error names the row of the whole input; what came before it is kept."""
    texts = [*TEXTS[:50], "BAD", *TEXTS[50:]]
    with pytest.raises(InvalidInputError) as caught:
        run(job(texts, Server(), tmp_path / "out", on_error="raise"))
    assert caught.value.rows == (50,)

    run(job(texts, Server(), tmp_path / "out"))
    check(tmp_path / "out", texts)


@pytest.mark.parametrize("out", ["o.npy", "o.parquet", "o/", "sqlite:o.db#t", "duckdb:o.duck#t"])
def test_a_job_with_failed_rows_that_is_killed_at_its_very_end_is_gone_on_with(tmp_path, monkeypatch, out):
    """Wherever that is: the list of failed rows is beside the output by then, and is not missed in the job's folder."""
    monkeypatch.chdir(tmp_path)
    texts = [*TEXTS[:9], None]
    bulk.run_sync(texts, Server(), "whole.npy")
    wanted = Path("whole.npy.failures.jsonl").read_bytes()
    killed = 0
    for step in range(30):
        base = tmp_path / str(step)
        base.mkdir()
        monkeypatch.chdir(base)
        with monkeypatch.context() as patch, contextlib.suppress(KilledError):
            Killed(patch, step)
            bulk.run_sync(texts, Server(), out)
            break
        killed += 1
        again = Server()
        report = bulk.run_sync(texts, again, out)

        assert (report.rows, report.failed, again.sent) == (10, 1, [])
        (listed,) = base.glob("*failures.jsonl")
        assert listed.read_bytes() == wanted
    assert killed > 4


class KilledError(BaseException):
    """A process that is killed does nothing more: neither does anything that would tidy up."""


class Killed:
    """Ends a job before its step of this number, counted from when all its rows are safe."""

    def __init__(self, patch, step):
        self.left, self.dead, self.begun = step, False, False
        for name in ("replace", "unlink", "rmdir", "fsync"):
            patch.setattr(f"os.{name}", self.counted(getattr(os, name)))
        complete = writer.Writer.complete

        def completed(*arguments):
            complete(*arguments)
            self.begun = True

        patch.setattr(writer.Writer, "complete", completed)

    def counted(self, function):
        def step(*arguments, **keywords):
            if self.begun:
                self.dead = self.dead or not self.left
                self.left -= 1
                if self.dead:
                    raise KilledError
            return function(*arguments, **keywords)

        return step


def test_another_class_of_embedder_is_another_model(tmp_path):
    """A finished job of one embedder of one's own is not taken for that of another, though neither names itself."""

    class One(Embedder):
        async def embed_batch(self, texts, options):
            return Embeddings(np.ones((len(texts), 2), np.float32), "m")

    class Two(One):
        pass

    bulk.run_sync(["a", "b"], One(), tmp_path / "out.npy")

    assert bulk.run_sync(["a", "b"], One(), tmp_path / "out.npy").already
    with pytest.raises(ConfigError, match='model was "One:" and is "Two:"'):
        bulk.run_sync(["a", "b"], Two(), tmp_path / "out.npy")
