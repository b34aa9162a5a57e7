"""The notebook of examples/ runs from its first cell to its last, in a real kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent.parent
NOTEBOOK = HERE / "examples" / "notebook.ipynb"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """What each cell of code has shown, as a mapping of MIME types, and the text that it wrote."""
    done = tmp_path_factory.mktemp("notebook") / "done.ipynb"
    # In a process of its own: the kernel's client and its loop are not what is tested here.
    script = (
        "import sys, nbformat; from nbclient import NotebookClient; "
        "book = nbformat.read(sys.argv[1], 4); NotebookClient(book, timeout=120, kernel_name='python3').execute(); "
        "nbformat.write(book, sys.argv[2])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, NOTEBOOK, done], capture_output=True, text=True, check=False, cwd=HERE,
        env={**os.environ, "PYTHONPATH": str(HERE)},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    cells = [cell for cell in json.loads(done.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    shown = [[each["data"] for each in cell["outputs"] if "data" in each] for cell in cells]
    written = ["".join("".join(each["text"]) for each in cell["outputs"] if "text" in each) for cell in cells]
    return list(zip(shown, written, strict=True))


def text(data, kind):
    return "".join(data[kind])


def test_the_notebook_runs(outputs):
    """No cell fails, and each shows what the page says: the facts of a result, its shape, tables, vectors."""
    results = [shown[-1] if shown else {} for shown, _ in outputs]

    assert "<caption>embedkit.Embeddings</caption>" in text(results[1], "text/html")
    assert "all-minilm-l6-v2" in text(results[1], "text/html")
    assert text(results[2], "text/plain") == "(120, 384)"
    assert "embedding_error" in text(results[3], "text/html")
    assert "Array(Float32, shape=(384,))" in text(results[4], "text/plain")
    assert "passage number 0 about cats" in text(results[5], "text/html")
    assert "array(" in text(results[6], "text/plain")


def test_a_bar_is_drawn_in_the_cell_that_asked_for_it(outputs):
    """For `embed`, for a stream of unknown length, and without `await`, where a thread of ours does the work."""
    drawn = [cell for cell, (shown, written) in enumerate(outputs) if "120/120" in written or "texts" in written]

    assert drawn == [1, 5, 6]
    assert "120/120" in outputs[1][1]
    assert "3/3" in outputs[6][1]


def test_the_notebook_lies_there_unrun():
    """Without outputs, so that it changes only when somebody changes it."""
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]

    assert [cell["outputs"] for cell in cells if cell["cell_type"] == "code"] == [[]] * 7
