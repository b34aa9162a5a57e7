"""The release check covers the Pythons that the package says it supports, and finds the interpreters."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

from tools.release_check import SUPPORTED, TESTS, _python

HERE = Path(__file__).parent.parent.parent


def test_it_covers_what_the_package_supports():
    """A version for each classifier of pyproject.toml, from the oldest that `requires-python` allows."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text("utf-8"))["project"]
    named = [each.rpartition(" ")[2] for each in project["classifiers"] if each.startswith("Programming Language")]

    assert list(SUPPORTED) == [each for each in named if each.startswith("3.")]
    assert project["requires-python"] == f">={SUPPORTED[0]}"


def test_it_finds_an_interpreter_by_what_it_says_of_itself():
    """The running one for its own version, none for a version that nobody has."""
    ours = "{}.{}".format(*sys.version_info)
    found = subprocess.run([_python(ours), "-c", "import sys; print(sys.version)"], capture_output=True, check=True)

    assert found.stdout.decode().startswith(ours)
    assert _python("3.999") is None


def test_the_tests_that_it_runs_are_there():
    """Each folder and file of the list exists."""
    paths = [HERE / each for each in TESTS if not each.startswith("-")]

    assert [path for path in paths if not path.exists()] == []
