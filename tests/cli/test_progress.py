"""What a run says of itself: a bar on a terminal while it goes
on, one line when it is done, one for every row that failed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from inspect import signature
from pathlib import Path

import pytest

import embedkit
from embedkit import ConfigError, InvalidInputError, ServerError
from embedkit._bulk.contract import Scan
from embedkit._bulk.journal import Totals
from embedkit._bulk.notices import BatchJob, Began, Paused, Progress, Resumed, RowFailed, Scanned
from embedkit._bulk.report import Report
from embedkit.cli.commands import root
from embedkit.cli.progress import OPTION, Teller, batch_line, duration, in_line, many, money, scanned, size, summary
from tests.support.servers.api import Api

HERE = Path(__file__).parent.parent.parent


def report(**fields):
    given = {"rows": 1_500, "dimensions": 4, "tokens": 7_500, "cost": 0.375, "requests": 15, "seconds": 2.0} | fields
    return Report(output="out.npy", complete=True, **given)


# --- in words --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "1,500 texts x 4 dimensions, 7,500 tokens, 15 requests, 2.0 s, 750 texts/s, $0.38"),
        (
            {"rows": 1, "tokens": 1, "requests": 1, "cost": 0.0},
            "1 text x 4 dimensions, 1 token, 1 request, 2.0 s, 0.5 texts/s, free",
        ),
        (
            {"tokens": None, "cost": None, "failed": 2},
            "1,500 texts x 4 dimensions, tokens not reported, 15 requests, 2.0 s, 750 texts/s, 2 failed (rows count from 0)",
        ),
        (
            {"cached": 1_400},
            "1,500 texts x 4 dimensions, 7,500 tokens, 15 requests, 1,400 not sent again, 2.0 s, 750 texts/s, $0.38",
        ),
        ({"already": True}, "out.npy is finished already (1,500 rows); nothing was sent"),
    ],
)
def test_the_last_line(fields, said):
    """Texts, width, tokens, requests, seconds, cost and failures of the whole job."""
    assert summary(report(**fields)) == said


def test_what_the_scan_says():
    """Rows, bad rows with the first of them, tokens, cost, room and speed."""
    scan = Scan(rows=2_000, bad=2, examples={7: "line 8: null"}, tokens=50_000, bytes=3_000_000, seconds=0.01)

    assert scanned(Scanned(scan=scan, cost=0.001, room=3_072_000, free=5_000_000_000)) == (
        "2,000 rows, 2 without a usable text (row 7, line 8: null), about 50,000 tokens, about $0.0010, "
        "3.1 MB of output, 5.0 GB free, looked through at 300 MB/s"
    )


def test_pauses_are_lines_even_where_it_is_quiet(capsys):
    """Why, how long already, when it goes on, and for how long at most."""
    teller = Teller(quiet=True)
    error = ServerError("down", status=503, provider="p", model="m")
    teller.told(Paused(seconds=5, outage=12, patience=600, error=error))
    teller.told(Resumed(outage=17.4))

    assert capsys.readouterr().err == (
        "the provider has failed for 12 s (p:m: down (status 503)); one batch is sent again in 5 s; --patience is 600 s\n"
        "the provider is well again after 17 s\n"
    )


def test_failed_rows_are_named_but_not_all_of_them(capsys):
    """With their key and in the words of the command line; after twenty the list of failed rows has them."""
    teller = Teller(quiet=True)
    teller.failures = "out.failures.jsonl"
    teller.told(RowFailed(row=258, key="a", reason="300 tokens; pass truncate='end' to cut it"))
    for row in range(30):
        teller.told(RowFailed(row=row, key=None, reason="no"))
    lines = capsys.readouterr().err.splitlines()

    assert lines[0] == "row 258 (key a): 300 tokens; pass --truncate end to cut it"
    assert lines[1] == "row 0: no"
    assert lines[20:] == ["further failed rows are only listed in out.failures.jsonl"]


def test_a_line_every_half_minute_where_there_is_no_terminal(capsys):
    """How far, how fast, what it took, and how long it will still take."""
    clock = [0.0]
    teller = Teller(now=lambda: clock[0])
    teller.told(Began(done=1_000, rows=10_000))
    for second in range(91):
        clock[0] = float(second)
        totals = Totals(rows=1_000 + 20 * second, tokens=40 * second, cost=0.01, retries=1)
        teller.told(Progress(totals=totals, rows=10_000, requests_in_flight=7))

    assert capsys.readouterr().err.splitlines() == [
        "going on after 1,000 rows of an earlier run",
        "1,600 of 10,000 texts, 20 texts/s, 1,200 tokens, $0.010, 1 retry, 7 in flight, 7:00 left",
        "2,200 of 10,000 texts, 20 texts/s, 2,400 tokens, $0.010, 1 retry, 7 in flight, 6:30 left",
        "2,800 of 10,000 texts, 20 texts/s, 3,600 tokens, $0.010, 1 retry, 7 in flight, 6:00 left",
    ]


def test_for_machines_every_notice_is_a_json_object(capsys):
    """On stdout, with its kind; errors as text; the report last."""
    clock = [0.0]
    teller = Teller(machine=True, now=lambda: clock[0])
    teller.told(Scanned(scan=Scan(rows=2)))
    teller.told(Paused(seconds=5, outage=12, patience=600, error=ServerError("down", status=503)))
    clock[0] = 31.0
    teller.told(Progress(totals=Totals(rows=1), rows=2, requests_in_flight=0))
    teller.told(RowFailed(row=1, key=7, reason="no"))
    teller.finished(report())
    out, err = capsys.readouterr()
    said = [json.loads(line) for line in out.splitlines()]

    assert err == ""
    assert [each["notice"] for each in said] == ["Scanned", "Paused", "Progress", "RowFailed", "Report"]
    assert said[1]["error"] == "down (status 503)"
    assert said[4]["rows"] == 1_500


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (307_200_000, "307 MB"), (3.2e9, "3.2 GB"), (5e15, "5,000 TB")],
)
def test_size(count, said):
    """Bytes in a unit that leaves few digits."""
    assert size(count) == said


@pytest.mark.parametrize(("seconds", "said"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3900, "1:05:00")])
def test_duration(seconds, said):
    """Minutes and seconds; hours where there are some."""
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConfigError("set KEY, or pass api_key="), "set KEY, or pass --api-key-env"),
        (ConfigError("dimensions=12: m takes 384"), "--dimensions 12: m takes 384"),
        (
            ConfigError("m cannot do input_type='query'; it takes 'document'"),
            "m cannot do --input-type query; it takes 'document'",
        ),
        (ConfigError("normalize=True and dtype='int8'"), "--normalize and --dtype int8"),
        (ConfigError("dtype=None, on_error=7x"), "dtype=None, on_error=7x"),
        (ConfigError("model='a/b:c' has no provider"), "--model a/b:c has no provider"),
        (InvalidInputError("see https://host/?model=m&x=1\n  (page 2)"), "see https://host/?model=m&x=1 (page 2)"),
        (ConfigError("threads=0"), "threads=0"),
        (ConfigError("my_model='x'"), "my_model='x'"),
    ],
)
def test_errors_speak_in_options(error, said):
    """An error's keywords of Python are options on the command line; what only looks like one stays."""
    assert in_line(error) == said


def test_the_keywords_that_become_options_are_those_that_have_one():
    """Each stands for an option that the command has, and no keyword that has an option of its name is missing."""
    options = {name for parameter in root.commands["embed"].params for name in parameter.opts}
    of_jobs = set(signature(embedkit.bulk.run).parameters)
    keywords = {*signature(embedkit.connect).parameters, *signature(embedkit.Embedder.embed).parameters}

    assert set(OPTION) <= keywords | of_jobs
    assert set(OPTION.values()) <= options
    assert {name for name in keywords if f"--{name.replace('_', '-')}" in options} <= set(OPTION)


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 texts"), (1, "1 text"), (2, "2 texts"), (1_234_567, "1,234,567 texts")]
)
def test_many(count, said):
    """Thousands are set apart, one is alone."""
    assert many(count, "text") == said


@pytest.mark.parametrize(
    ("dollars", "said"),
    [
        (0, "free"),
        (0.000000123, "$0.00000012"),
        (0.0049, "$0.0049"),
        (0.02, "$0.020"),
        (0.5, "$0.50"),
        (12.3456, "$12.35"),
        (1234.5, "$1,234.50"),
    ],
)
def test_money_has_two_digits_that_mean_something(dollars, said):
    """However small the sum; cents from a dime on."""
    assert money(dollars) == said


# --- on a terminal ---------------------------------------------------------------------------------------------------


class Terminal:
    """A command whose stderr (and stdout, if asked) is a terminal
    of 100 columns, and what has appeared on it so far.
    """

    def __init__(self, *arguments, stdout=False):
        import pty

        self.screen, ours = pty.openpty()
        variables = {
            **os.environ,
            "COLUMNS": "100",
            "TERM": "xterm",
            "PYTHONPATH": str(HERE),
            "EMBEDKIT_MODEL": "compatible:m",
        }
        variables.pop("NO_COLOR", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "embedkit", *arguments], stdin=subprocess.DEVNULL,
            stdout=ours if stdout else subprocess.PIPE,
            stderr=ours, env=variables,
        )  # fmt: skip
        os.close(ours)
        self.raw = b""

    @property
    def text(self):
        """What has appeared, without colors and movements of the cursor."""
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.raw.decode(errors="replace"))

    def read(self):
        """More of it; False at the end."""
        try:
            piece = os.read(self.screen, 4096)
        except OSError:  # Linux: everyone has closed the other side
            piece = b""
        self.raw += piece
        return bool(piece)

    def until(self, pattern):
        """Read until this has appeared."""
        while not re.search(pattern, self.text):
            assert self.read(), self.text

    def end(self):
        """Read to the end; the exit code and what came on stdout."""
        while self.read():
            pass
        os.close(self.screen)
        stdout = self.process.communicate(timeout=60)[0]
        return self.process.returncode, stdout


pty_only = pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals here")


@pytest.fixture
def lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_text("".join(f"text {number}\n" for number in range(200)))


@pty_only
@pytest.mark.usefixtures("lines")
def test_a_bar_shows_how_far_it_is():
    """While it goes on: texts of how many, speed, tokens; at the end the bar is gone and the summary stands there."""
    with Api(hold_after=3) as api:
        terminal = Terminal("embed", "in.txt", "-o", "out.npy", "--base-url", api.url, "--max-concurrency", "1")
        terminal.until(r"96 of 200 texts, [\d.,]+ texts/s, 192 tokens, .*[━╸╺]")
        api.release.set()
        code, _ = terminal.end()
    last = terminal.raw.rpartition(b"\x1b[2K")[2].decode()  # what is left once the bar's line was erased

    assert code == 0
    assert "200 texts x 3 dimensions, 400 tokens, 7 requests, " in last
    assert "━" not in last


@pty_only
@pytest.mark.usefixtures("lines")
def test_the_bar_says_why_nothing_moves():
    """A retry that waits is announced, with the status."""
    with Api((503, {"retry-after": "1"}, {"error": {"message": "warming up"}})) as api:
        terminal = Terminal("embed", "in.txt", "-o", "out.npy", "--base-url", api.url, "--max-concurrency", "1")
        terminal.until(r"trying again in 1 s \(status 503\)")
        code, _ = terminal.end()

    assert code == 0


@pty_only
@pytest.mark.usefixtures("lines")
def test_failed_rows_stand_above_the_bar():
    """A row that fails is a line of its own, in the provider's
    own words, whole and unadorned; the bar goes on below it.
    """
    Path("in.txt").write_text("one\n" * 40 + "BAD\n" + "two\n" * 40)
    with Api() as api:
        api.refusal = "[red]no[/red] :smile: " + "and again " * 12 + "no"
        terminal = Terminal("embed", "in.txt", "-o", "out.npy", "--base-url", api.url, "--on-error", "skip")
        code, _ = terminal.end()

    assert code == 3
    assert f"row 40: compatible:m: {api.refusal} (status 400, code invalid_input)\r\n" in terminal.text


@pty_only
@pytest.mark.usefixtures("lines")
def test_quiet_is_quiet():
    """`-q`: not a byte on the terminal."""
    with Api() as api:
        terminal = Terminal("embed", "in.txt", "-o", "out.npy", "--base-url", api.url, "-q")
        code, stdout = terminal.end()

    assert (code, stdout, terminal.raw) == (0, b"", b"")


@pty_only
@pytest.mark.usefixtures("lines")
def test_no_bar_runs_through_rows_on_the_same_terminal():
    """JSON lines on stdout of the same terminal: rows and the summary, no bar between them."""
    with Api() as api:
        terminal = Terminal("embed", "in.txt", "-o", "-", "--base-url", api.url, stdout=True)
        code, _ = terminal.end()
    rows = terminal.text.splitlines()

    assert code == 0
    assert b"\x1b" not in terminal.raw
    assert [row.partition(',"embedding"')[0] for row in rows[:-1]] == [
        f'{{"text":"text {number}"' for number in range(200)
    ]
    assert rows[-1].startswith("200 texts x 3 dimensions")


@pty_only
def test_models_are_a_table_on_a_terminal():
    """Aligned columns instead of tabs, no line cut off or wrapped at 100 columns."""
    terminal = Terminal("models", "openai:", stdout=True)
    code, _ = terminal.end()
    rows = [row.rstrip() for row in terminal.text.splitlines()]

    assert code == 0
    assert "\t" not in terminal.text
    assert re.fullmatch(r"openai +text-embedding-3-small +1536 +1-1536 +8192 +0\.02 +0\.01", rows[1])
    assert len(rows) == 4


@pytest.mark.parametrize(
    ("state", "job", "said"),
    [
        ("uploaded", "", "the texts are uploaded"),
        ("created", "b1", "batch job b1 is created"),
        ("in_progress", "b1", "batch job b1 is in_progress"),
        ("again", "", "a batch job is needed again"),
        ("waiting", "", "a batch job has to wait"),
        ("ready", "", "ready"),
    ],
)
def test_a_step_of_a_batch_job_is_a_sentence(state, job, said):
    """Also where the provider has given the job no name yet, or nothing of it is left to do."""
    assert batch_line(BatchJob(start=0, rows=2_000, state=state, job=job)) == f"rows 0 to 1,999: {said}"
