"""The command in processes of its own: pipes, signals, exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import embedkit
from embedkit._install import install
from tests.cli.running import COMMAND, embedkit_, left, made, parsed, process
from tests.support.servers.api import Api, vector

# --- pipes and signals, in processes of their own --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "code", "ignored"),
    [
        ("SIGINT", 130, ""),
        ("SIGTERM", 143, ""),
        ("SIGHUP", 129, ""),
        ("SIGTERM", 143, "SIGINT"),
        ("SIGHUP", 129, "SIGINT"),
    ],
)
def test_the_first_signal_writes_what_is_in_flight(name, code, ignored):
    """Ctrl-C, SIGTERM and SIGHUP send nothing more, in the background (no Ctrl-C there) as well; what is in flight is
    written, and the same command goes on there.
    """
    texts = made("in.txt", [f"text {number}" for number in range(500)], range(500))
    with Api(hold_after=3) as api:
        running = process(api, texts, "-o", "out.npy", "--max-concurrency", "1", ignored=ignored)
        assert api.held.wait(60)
        running.send_signal(getattr(signal, name))
        assert running.stderr.readline() == (
            "embedkit: stopping: what is in flight is still written (once more ends it at once)\n"
        )
        api.release.set()
        stdout, stderr = running.communicate(timeout=60)
        sent = [text for body in api.bodies for text in body["input"]]

    assert (running.returncode, stdout) == (code, "")
    kept = f"{len(sent)} of 500 rows are kept in {Path('out.npy.job').absolute()}"
    assert stderr.endswith(f"embedkit: interrupted; {kept}; the same command goes on there\n")
    assert left() == ["in.txt", "out.npy.job"]
    with Api() as api:
        process(api, texts, "-o", "out.npy").communicate(timeout=60)
    assert left() == ["in.txt", "out.npy.job"]  # another address is another job
    with Api() as api:
        running = process(api, texts, "-o", "out.npy", "--force")
        running.communicate(timeout=60)
    assert running.returncode == 0
    assert left() == ["in.txt", "out.npy", "out.npy.report.json"]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_before_the_first_row_leaves_nothing(name):
    """The server fails: it says so within seconds, and no folder is left of a job that has nothing."""
    texts = made("in.txt")
    with Api(*[(503, {"retry-after": "9"}, {"error": {"message": "down"}})] * 9) as api:
        running = process(api, texts, "-o", "out.npy")
        first = running.stderr.readline()
        running.send_signal(getattr(signal, name))
        running.stderr.readline()
        running.send_signal(getattr(signal, name))
        running.communicate(timeout=60)

    assert re.fullmatch(
        r"1 request has failed \(compatible:m: down \(status 503, .*\)\); the next is sent in \d+ s\n", first
    )
    assert running.returncode == {"SIGINT": 130, "SIGTERM": 143}[name]
    assert left() == ["in.txt"]


def test_a_signal_in_front_of_a_server_that_fails_afterwards():
    """What was in flight fails after Ctrl-C: that is an interruption, with nothing kept, and no error of the server."""
    texts = made("in.txt")
    with Api(hold_after=0) as api:
        running = process(api, texts, "-o", "out.npy", "--retries", "0")
        assert api.held.wait(60)
        running.send_signal(signal.SIGINT)
        running.stderr.readline()
        api.script += [(503, {}, {"error": {"message": "down"}})] * 20
        api.release.set()
        _, stderr = running.communicate(timeout=60)

    assert running.returncode == 130
    assert stderr == "embedkit: interrupted; no row had come back, and nothing is kept\n"
    assert left() == ["in.txt"]


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_the_second_signal_ends_it_at_once(name, code):
    """A server that never answers does not keep the process; what was written before is kept."""
    texts = made("in.txt", [f"text {number}" for number in range(500)], range(500))
    with Api(hold_after=3) as api:
        running = process(api, texts, "-o", "out.npy", "--max-concurrency", "1")
        assert api.held.wait(60)
        running.send_signal(getattr(signal, name))
        running.stderr.readline()
        running.send_signal(getattr(signal, name))
        last = running.communicate(timeout=60)[1].splitlines()[-1]

    assert running.returncode == code
    assert left() == ["in.txt", "out.npy.job"]
    assert re.fullmatch(
        r"embedkit: interrupted; \d+ of 500 rows are kept in .*out\.npy\.job; the same command goes on there", last
    )


@pytest.mark.parametrize("when", ["main", "parse_args", "commands['models'].invoke"])
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_before_the_job_has_its_exit_code(name, code, when):
    """While the command is loaded, its line is read, or it begins: one line, and the code that is documented.

    The handlers are Python's own, though whoever runs this (nohup, say) may ignore the signal.
    """
    early = (
        f"import os, signal\n"
        f"signal.signal(signal.{name}, {'signal.default_int_handler' if name == 'SIGINT' else 'signal.SIG_DFL'})\n"
        f"import embedkit.cli, embedkit.cli.commands as commands\n"
        f"commands.root.{when} = lambda *_, **__: os.kill(os.getpid(), signal.{name})\n"
        f"embedkit.cli.main(['models'])\n"
    )
    ended = subprocess.run([sys.executable, "-c", early], capture_output=True, text=True, timeout=60, check=False)

    assert (ended.returncode, ended.stderr) == (code, "embedkit: interrupted\n")


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT"])
def test_what_is_ignored_does_not_interrupt(name):
    """Under nohup a closed terminal is no reason to stop; in the background Ctrl-C is for others."""
    made("in.txt", [f"text {number}" for number in range(100)], range(100))
    with Api(hold_after=1) as api:
        running = process(api, "in.txt", "-o", "out.npy", "--max-concurrency", "1", ignored=name)
        assert api.held.wait(60)
        running.send_signal(getattr(signal, name))
        api.release.set()
        running.communicate(timeout=60)

    assert running.returncode == 0
    assert np.load("out.npy").shape == (100, 3)


def test_ctrl_c_in_the_middle_of_a_pipe():
    """On stdout the rows already given stay, whole, and the line says that there should be more."""
    made("in.txt", [f"text {number}" for number in range(100)], range(100))
    with Api(hold_after=1) as api:
        running = process(api, "in.txt", "-o", "-", "--max-concurrency", "1")
        assert api.held.wait(60)
        running.send_signal(signal.SIGINT)
        running.stderr.readline()
        api.release.set()
        stdout, stderr = running.communicate(timeout=60)
        sent = sum(len(body["input"]) for body in api.bodies)

    assert running.returncode == 130
    assert stderr.endswith("embedkit: interrupted; the output is not complete\n")
    assert len(parsed(stdout)) == sent


def test_ctrl_c_while_stdin_is_silent():
    """A pipe that says nothing does not keep the process alive."""
    with Api() as api:
        running = process(api, "-", "-o", "-", stdin=subprocess.PIPE)
        running.stdin.write("one\n" * 256)
        running.stdin.flush()
        first = running.stdout.readline()
        running.send_signal(signal.SIGINT)
        running.wait(60)
        running.stdin.close()
        running.stdout.close()
        running.stderr.close()

    assert json.loads(first) == {"text": "one", "embedding": vector("one")}
    assert running.returncode == 130


def test_slow_stdin_flows_through():
    """Rows come out while more are still to be typed: what is read is embedded, block by block."""
    with Api() as api:
        running = process(api, "-", "-o", "-", stdin=subprocess.PIPE)
        for word in ("one", "two"):
            running.stdin.write(f"{word}\n" * 256)
            running.stdin.flush()
            for _ in range(256):
                assert json.loads(running.stdout.readline())["text"] == word
        running.stdin.write("last")
        stdout, stderr = running.communicate(timeout=60)

    assert running.returncode == 0
    assert parsed(stdout) == [{"text": "last", "embedding": vector("last")}]
    assert stderr.startswith("513 texts")


def test_a_reader_that_has_seen_enough():
    """`| head -1`: the line, exit code 141, and not a word about pipes."""
    made("in.txt", ["text"] * 50_000, ["text"] * 50_000)
    with Api() as api:
        found = subprocess.run(
            ["bash", "-c", '"$PYTHON" -m embedkit embed --base-url "$URL" in.txt -o - -q | head -1; echo "${PIPESTATUS[0]}"'],
            capture_output=True, text=True, check=True, timeout=120,
            env={**os.environ, "URL": api.url, "PYTHON": sys.executable},
        )  # fmt: skip
    line, code = found.stdout.splitlines()

    assert json.loads(line) == {"text": "text", "embedding": vector("text")}
    assert (code, found.stderr) == ("141", "")


def test_a_list_that_nobody_reads():
    """A pipe that is closed already: 141, and no complaint from the interpreter at its end."""
    reader, writer = os.pipe()
    os.close(reader)
    found = subprocess.run([*COMMAND, "models"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)

    assert (found.returncode, found.stderr) == (141, "")


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("- -o - <&-", 2, "embedkit: stdin is closed\n"),
        ("in.txt -o - >&-", 2, "embedkit: stdout is closed\n"),
        ("in.txt -o out.npy >&-", 0, "5 texts"),
        ("in.txt -o - -q 2>&-", 0, ""),
        ("in.txt -o - >/dev/full", 2, "embedkit: stdout: No space left on device\n"),
    ],
)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_streams_that_are_closed_or_full(api, line, code, said):
    """One line and an exit code, never a stack trace."""
    made("in.txt")
    command = f'"$PYTHON" -m embedkit embed --base-url "$URL" {line}'
    found = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "URL": api.url, "PYTHON": sys.executable},
    )  # fmt: skip

    assert (found.returncode, found.stderr[: len(said)]) == (code, said)
    assert "Traceback" not in found.stderr


def test_a_reader_that_is_gone_before_the_first_row():
    """A closed pipe ends it with 141, also where only the end of the output fails."""
    made("in.txt", ["one"], [1])
    with Api(hold_after=0) as api:
        running = process(api, "in.txt", "-o", "-", "-q")
        assert api.held.wait(60)
        running.stdout.close()
        api.release.set()
        stderr = running.stderr.read()
        running.stderr.close()

    assert (running.wait(60), stderr) == (141, "")


@pytest.mark.parametrize("missing", ["click", "filelock", "orjson", "pyarrow", "rich"])
def test_without_its_extra_it_says_what_to_install(missing):
    """Exit code 2 and the command that mends it, not an ImportError."""
    script = f"import sys; sys.modules[{missing!r}] = None; from embedkit.cli import main; main(['models'])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == f"embedkit: the command line needs {missing}: {install('cli')}\n"


def test_the_module_is_the_command():
    """`python -m embedkit` and the installed script: one program, called embedkit."""
    found = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, check=True)

    assert found.stdout == f"embedkit {embedkit.__version__}\n"


def test_the_embedded_model_is_the_default(monkeypatch):
    """No model named anywhere: real vectors, no server, no key."""
    monkeypatch.delenv("EMBEDKIT_MODEL")
    made("in.txt", ["a cat on the sofa", "a kitten on the couch", "stock prices fell"], [1, 2, 3])
    code, _, stderr = embedkit_("embed", "in.txt", "-o", "out.npy")
    cat, kitten, stocks = np.load("out.npy")

    assert code == 0
    assert stderr.startswith("3 texts x 384 dimensions, 19 tokens, 1 request, ")
    assert cat @ kitten > 0.5 > cat @ stocks
