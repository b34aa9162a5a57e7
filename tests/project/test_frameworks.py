"""docs/frameworks.md: a row for every adapter, versions that the extras allow, and examples that print what they say."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent.parent
TEXT = (HERE / "docs" / "frameworks.md").read_text("utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if "| `.[" in line]
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n\n```python\n(.*?)```", TEXT, flags=re.DOTALL | re.MULTILINE))
ADAPTERS = {each.stem: each for each in (HERE / "embedkit" / "contrib").glob("[!_]*.py")}
LIGHT = {"LangChain"}


def test_every_class_of_the_table_is_there():
    """Each row names the classes of one adapter, as they are defined."""
    for _, _, classes, *_ in ROWS:
        names = re.findall(r"`(\w+)\.(\w+)`", classes)
        module, *others = {module for module, _ in names}
        defined = {node.name for node in ast.parse(ADAPTERS[module].read_text("utf-8")).body if hasattr(node, "name")}

        assert others == []
        assert {name for _, name in names} == {name for name in defined if name.startswith("Embedkit")}


def test_every_version_of_the_table_is_one_that_the_extra_allows():
    """What a row was tested with is the package of its extra, no older than its bound."""
    extras = tomllib.loads((HERE / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for _, extra, _, tested in ROWS:
        package, version = tested.split()
        wanted = dict(each.split(">=") for each in extras[re.search(r"\[(.+)\]", extra)[1]] if ">=" in each)
        least = wanted[package]

        assert [int(part) for part in version.split(".")] >= [int(part) for part in least.split(".")]


@pytest.mark.parametrize(
    "name", [name if name in LIGHT else pytest.param(name, marks=pytest.mark.engines) for name, *_ in ROWS]
)
def test_an_example_prints_what_it_says(name, tmp_path):
    """Each framework has an example, which runs in a process of its own and prints what stands beside its `print`."""
    if name == "Daft":
        pytest.importorskip("daft", reason="Daft has an environment of its own: make test-engines")
    script = SECTIONS[name]
    promised = re.findall(r"^ *print\(.*\)  # (.+)$", script, flags=re.MULTILINE)
    # As in an activated environment: Spark runs its workers with the python3 of the PATH.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**os.environ, "PATH": path}, timeout=120,
    )  # fmt: skip

    assert found.returncode == 0, found.stderr[-2000:]
    assert found.stdout.splitlines()[-len(promised) :] == promised != []
