"""The manners that all commands share: help, exit codes, errors for machines, options by other names."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from embedkit.cli.app import CODES, NONE, WORDS, codes
from embedkit.cli.commands import root
from tests.cli.running import COMMAND, embedkit_, made
from tests.support.servers.api import Api

COMMANDS = sorted(root.commands)
ASKING = [name for name in COMMANDS if any(one.name == "base_url" for one in root.commands[name].params)]


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=str)
def test_help_fits_the_screen_and_shows_no_markup(command):
    """Both spellings; lines within 80 columns; tables stay tables."""
    long, short = embedkit_(*command, "--help"), embedkit_(*command, "-h")

    assert long == short
    assert long[0] == 0
    assert max(map(len, long[1].splitlines())) <= 80
    assert "\b" not in long[1]
    assert "\\b" not in long[1]
    if command == ["embed"]:
        assert '\n  .parquet   the input\'s columns, "embedding" (a list of fixed size) and\n' in long[1]


def test_help_names_every_exit_code():
    """What a script needs is in the first help a user sees, and in that of a job."""
    for command in ([], ["embed"]):
        said = " ".join(embedkit_(*command, "--help")[1].split())
        for number, why in CODES.items():
            assert f"{number} {why}" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_names_its_exit_codes(command):
    """Each names 0, 2 and Ctrl-C; 1 stands where a provider is asked, and only there."""
    said = " ".join(embedkit_(command, "--help")[1].split()).partition("Exit codes: ")[2]

    assert re.match(
        r"0 done; .*2 usage, configuration or a bad file; .*130 Ctrl-C, 143 SIGTERM, 129 SIGHUP; 141 ", said
    )
    assert (" 1 " in said) == (command in ASKING)


def test_words_of_exit_codes_may_differ():
    """A command may say in its own words what a number means."""
    assert codes(0, 3, c3="some models failed") == "Exit codes: 0 done; 3 some models failed."


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_speaks_to_machines(command):
    """--json is an option of each."""
    assert "--json" in [name for one in root.commands[command].params for name in one.opts]


@pytest.mark.parametrize(
    ("arguments", "code", "kind", "message"),
    [
        (["embed", "none.txt", "-o", "out.npy"], 2, "FileNotFoundError", "none.txt"),
        (["embed", "in.txt"], 2, "ConfigError", "name a file with -o"),
        (["embed", "in.txt", "-o", "out.npy", "--batch-size", "7"], 2, "NoSuchOption", "--batch-size"),
        (["embed"], 2, "MissingParameter", "INPUT"),
        (["embed", "in.txt", "-o", "out.npy", "--dtype", "x"], 2, "BadParameter", "--dtype"),
        (["search", "q", "none.npy"], 2, "ConfigError", "none.npy"),
        (["bench", "compatible:m", "--dtype", "int4"], 2, "ConfigError", "--dtype 'int4'"),
        (["check", "openai:m"], 2, "ConfigError", "OPENAI_API_KEY"),
        (["check", "compatible:m", "--base-url", "http://127.0.0.1:9"], 1, "TransportError", "cannot connect"),
        (["models", "--wrong"], 2, "NoSuchOption", "--wrong"),
        (["providers", "--wrong"], 2, "NoSuchOption", "--wrong"),
    ],
)
def test_errors_for_machines(monkeypatch, arguments, code, kind, message):
    """With --json the last line of stdout is the error; people find it on stderr as ever."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    made("in.txt")
    place = ["--base-url", "http://127.0.0.1:9"] if arguments[0] == "embed" else []
    exit_code, stdout, stderr = embedkit_(*arguments, *place, "--json")
    error = json.loads(stdout.splitlines()[-1])["error"]

    assert exit_code == error["exit_code"] == code
    assert error["kind"] == kind
    assert message in error["message"]
    assert stderr


def test_without_json_an_error_is_for_people_only():
    """Nothing comes on stdout."""
    assert embedkit_("embed", "none.txt", "-o", "out.npy")[1] == ""


def test_an_error_for_machines_has_what_a_script_decides_by():
    """Status, code, whether to try again and when, rows, and what is kept."""
    made("in.txt")
    refusal = (429, {"retry-after": "700"}, {"error": {"message": "no credit", "code": "insufficient_quota"}})
    with Api(*[refusal] * 5) as api:
        code, stdout, _ = embedkit_("embed", "in.txt", "-o", "out.npy", "--base-url", api.url, "--json")
    *notices, last = map(json.loads, stdout.splitlines())
    error = last["error"]

    assert [each["notice"] for each in notices] == ["Scanned", "Began"]
    assert (code, error["exit_code"], error["kind"]) == (1, 1, "QuotaError")
    assert (error["status"], error["code"], error["retryable"]) == (429, "insufficient_quota", False)
    assert error["notes"] == []


@pytest.mark.parametrize(
    ("command", "option", "ours"),
    [
        ("embed", "--max-retries", "--retries"),
        ("embed", "--api-base", "--base-url"),
        ("embed", "--api-key", "--api-key-env"),
        ("embed", "--workers", "--max-concurrency"),
        ("embed", "--text-column", "--column"),
        ("embed", "--overwrite", "--force"),
        ("embed", "--encoding-format", "--dtype"),
        ("embed", "--model-name", "-m"),
        ("search", "--top-k", "-k"),
        ("check", "--cacert", "--ca-file"),
        ("embed", "--dimension", "--dimensions"),
    ],
)
def test_an_option_of_another_tool_gets_our_name(command, option, ours):
    """An unknown option is answered with the one to use."""
    code, _, stderr = embedkit_(command, "x", "y", option, "7")

    assert code == 2
    assert f"{option}'" in stderr
    assert f"Did you mean '{ours}'?" in stderr


@pytest.mark.parametrize("option", NONE)
def test_an_option_that_nobody_needs_is_said_to_be_none(option):
    """What embedkit does by itself is said."""
    code, _, stderr = embedkit_("embed", "in.txt", option, "7")

    assert code == 2
    assert f"No such option '{option}': leave it out; {NONE[option]}." in stderr


def test_every_option_that_is_named_is_there():
    """No word leads to an option that no command has."""
    there = {name for command in root.commands.values() for one in command.params for name in one.opts}

    assert set(WORDS) <= there


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_stdout_is_named():
    """Where there is no file to name, it is stdout."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*COMMAND, "models"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    assert (done.returncode, done.stderr) == (2, "embedkit: stdout: No space left on device\n")
