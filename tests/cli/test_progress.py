"""What a run says of itself: a bar on a terminal while it goes
on, one line when it is done, one for every row that failed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from inspect import signature
from pathlib import Path

import numpy as np
import pytest

import embedkit
from embedkit import ConfigError, Embeddings, InvalidInputError, TooLongError, Usage
from embedkit.cli.commands import root
from embedkit.cli.progress import OPTION, Progress, in_line, many, money
from tests.support.servers.api import Api

HERE = Path(__file__).parent.parent.parent


def part(count, start=0, tokens=3, requests=1, cost=None, failures=()):
    usage = Usage(tokens, requests, cost)
    return Embeddings(np.zeros((count, 4), np.float32), "m", usage, dict(failures), start)


# --- in words --------------------------------------------------------------------------------------------------------


def test_the_summary_adds_parts_up(capsys):
    """Texts, width, tokens, requests, cost over all parts, in one line on stderr."""
    progress = Progress()
    with progress:
        progress.add(part(1_000, 0, 5_000, 10, 0.25))
        progress.add(part(500, 1_000, 2_500, 5, 0.125))
    progress.summarize()
    out, err = capsys.readouterr()

    assert out == ""
    assert re.fullmatch(
        r"1,500 texts x 4 dimensions, 7,500 tokens, 15 requests, \d+\.\d s, [\d,]+(\.\d)? texts/s, \$0\.38\n", err
    )


def test_one_of_each_is_not_many():
    """One text, one token, one request."""
    progress = Progress()
    progress.add(part(1, tokens=1))

    assert progress.summary().startswith("1 text x 4 dimensions, 1 token, 1 request, ")


def test_tokens_unknown_once_are_unknown():
    """A sum with a hole in it is no sum."""
    progress = Progress()
    progress.add(part(1, tokens=None))
    progress.add(part(1))

    assert "tokens not reported" in progress.summary()
    assert "$" not in progress.summary()


def test_a_part_without_a_vector_has_no_say_in_the_width():
    """Parts in which every text failed may be without width, at either end."""
    progress = Progress()
    for width in (0, 4, 0):
        progress.add(Embeddings(np.zeros((2, width), np.float32), "m", Usage(1, 1)))

    assert progress.summary().startswith("6 texts x 4 dimensions, ")


def test_each_failed_row_is_named_as_the_input_counts_it(capsys):
    """Rows count from the start of the input, not of the part; the error's own row would only confuse."""
    progress = Progress(quiet=True)
    errors = {2: TooLongError("300 tokens;\n pass truncate='end' to cut it", rows=[2], provider="p", model="m")}
    progress.add(part(5, start=256, failures=errors))
    progress.summarize()

    assert capsys.readouterr().err == "row 258: p:m: 300 tokens; pass --truncate end to cut it\n"
    assert "1 failed (rows count from 0)" in progress.summary()
    assert errors[2].rows == (2,)


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
    keywords = {*signature(embedkit.connect).parameters, *signature(embedkit.Embedder.embed).parameters}

    assert set(OPTION) <= keywords
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
        terminal.until(r"96 of 200 texts, [\d.,]+ texts/s, 192 tokens .*[━╸╺]")
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
    assert re.fullmatch(r"openai +text-embedding-3-small +1536 +1-1536 +8192 +0\.02", rows[1])
    assert len(rows) == 4
