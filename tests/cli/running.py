"""The command run in this process or in one of its own, and files for it to read."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from click.testing import CliRunner

from embedkit.cli.commands import root
from tests.support.servers.api import vector

TEXTS = ["one", "two words", "", "Grüße 🙂", "one"]
NOTES = [1, 2, 3, 4, 5]
COMMAND = [sys.executable, "-m", "embedkit"]


def embedkit_(*arguments, stdin=b""):
    """The command in this process: exit code, stdout, stderr."""
    found = CliRunner().invoke(root, list(map(str, arguments)), input=stdin)
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found.exit_code, found.stdout, found.stderr


def embed(api, *arguments, stdin=b""):
    return embedkit_("embed", "--base-url", api.url, *arguments, stdin=stdin)


SIGNALS = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN if number.name in sys.argv[1] else signal.SIG_DFL)
os.execv(sys.argv[2], sys.argv[2:])
"""


def process(api, *arguments, ignored="", **settings):
    """The command in a process of its own, its signals as a shell gives them, whatever those of this process are."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [*COMMAND, "embed", "--base-url", api.url, *map(str, arguments)]
    return subprocess.Popen([sys.executable, "-c", SIGNALS, ignored, *command], text=True, **{**streams, **settings})


def made(name, texts=TEXTS, notes=NOTES):
    """A file of these texts in the format that its suffix names."""
    rows = [{"note": note, "text": text} for note, text in zip(notes, texts, strict=True)]
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), name)
    elif name.endswith(".jsonl"):
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    elif name.endswith(".csv"):
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, ["note", "text"])
        writer.writeheader()
        writer.writerows(rows)
        Path(name).write_text(out.getvalue(), "utf-8", newline="")
    else:
        Path(name).write_text("".join(text + "\n" for text in texts), "utf-8")
    return name


def left():
    return sorted(path.name for path in Path().iterdir())


def expected(texts=TEXTS):
    return [vector(text) for text in texts]


def parsed(text):
    return [json.loads(line) for line in text.splitlines()]
