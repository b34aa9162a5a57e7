"""Colors and drawings: where nobody wants them there are none."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys

import pytest

from embedkit.cli.terminal import colorless, draws
from tests.cli.running import COMMAND, made
from tests.support.servers.api import Api

COLOR = re.compile(rb"\x1b\[(?:\d+;)*(?:3|4|9|10)\d(?:;\d+)*m")  # SGR 30-49, 90-107


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("environment", "unwanted"),
    [
        ({}, False),
        ({"NO_COLOR": "1"}, True),
        ({"NO_COLOR": "0"}, True),  # any value, says no-color.org
        ({"NO_COLOR": ""}, False),  # but not an empty one
        ({"CLICOLOR": "0"}, True),
        ({"CLICOLOR": "1"}, False),
    ],
)
def test_who_wants_no_colors(environment, unwanted):
    """The two variables that programs share for it."""
    assert colorless(environment) is unwanted


@pytest.mark.parametrize(
    ("stream", "environment", "drawn"),
    [
        (Screen(), {"TERM": "xterm"}, True),
        (Screen(), {}, True),
        (Screen(), {"TERM": "dumb"}, False),
        (io.StringIO(), {"TERM": "xterm"}, False),
        (None, {"TERM": "xterm"}, False),
    ],
)
def test_what_may_be_drawn_on(stream, environment, drawn):
    """A terminal that can move its cursor."""
    assert draws(stream, environment) is drawn


def on_terminal(*arguments, **variables):
    """What a command writes to a terminal of 100 columns."""
    import pty

    screen, ours = pty.openpty()
    environment = {**os.environ, "COLUMNS": "100", "TERM": "xterm-256color", **variables}
    for name in ("NO_COLOR", "CLICOLOR"):
        if name not in variables:
            environment.pop(name, None)
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdin=subprocess.DEVNULL, stdout=ours, stderr=ours, env=environment
    )
    os.close(ours)
    raw = b""
    while True:
        try:
            piece = os.read(screen, 65_536)
        except OSError:  # Linux: everyone has closed the other side
            break
        if not piece:
            break
        raw += piece
    os.close(screen)
    assert process.wait(60) == 0
    return raw


pty_only = pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals here")


@pty_only
def test_colors_on_a_terminal_and_none_where_they_are_unwanted():
    """`providers` marks found keys in color; with NO_COLOR or CLICOLOR=0 the table is the same without."""
    colored = on_terminal("providers", "a", OPENAI_API_KEY="k")
    assert COLOR.search(colored)

    for variables in ({"NO_COLOR": "1"}, {"CLICOLOR": "0"}):
        plain = on_terminal("providers", "a", OPENAI_API_KEY="k", **variables)
        assert not COLOR.search(plain)
        assert b"base URL" in plain


@pty_only
def test_a_dumb_terminal_gets_plain_lines():
    """No escape sequence at all: tables are lines with tabs, and a job draws no bar."""
    made("in.txt")
    with Api() as api:
        job = on_terminal("embed", "in.txt", "-o", "out.npy", "--base-url", api.url, TERM="dumb")

    assert b"\x1b" not in on_terminal("models", "openai", TERM="dumb")
    assert b"\x1b" not in job
    assert b"5 texts x 3 dimensions" in job


@pty_only
def test_a_job_without_colors():
    """The bar is drawn without colors."""
    made("in.txt")
    with Api() as api:
        job = on_terminal("embed", "in.txt", "-o", "out.npy", "--base-url", api.url, NO_COLOR="1")

    assert not COLOR.search(job)


@pytest.mark.parametrize("arguments", [["providers"], ["models"], ["--help"], ["embed", "--help"]], ids=str)
def test_a_pipe_gets_no_escape_sequence(arguments):
    """Where stdout is no terminal, nothing is drawn."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, check=True)

    assert b"\x1b" not in done.stdout + done.stderr
