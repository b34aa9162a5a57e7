"""Builds the sdist and the wheel, installs each in fresh environments, and tests there what was installed.

The wheel is tried under every supported Python that this machine has: two texts are embedded, a file is embedded and
searched, and tests run, from a copy of the sdist without the package, so that only the installed one can be imported.
The sdist is installed under the Python that runs this, and tried without the tests. A supported Python that is missing
is named at the end; with `--all` that is a failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
SUPPORTED = ("3.11", "3.12", "3.13")  # as the classifiers in pyproject.toml; a test compares them
EMBED = """
import embedkit
assert "site-packages" in embedkit.__file__, embedkit.__file__
with embedkit.connect_sync() as embedder:
    assert embedder.embed(["a cat on the sofa", "stock prices fell"]).shape == (2, 384)
print("embedkit", embedkit.__version__)
"""
# What a package can lack: its entry points, its data files, its lazy imports, its command. `make test` runs the others.
TESTS = ("tests/cli", "tests/connect", "tests/providers", "tests/real/test_local.py", "--quiet")


def main() -> None:
    """Fail at the first thing that does not work."""
    found = {version: _python(version) for version in SUPPORTED}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _run(sys.executable, "-m", "build", "--outdir", folder, ROOT)  # the wheel is built from the sdist
        (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
        _try(_installed(Path(sys.executable), f"{sdist}[local,cli]", folder / "sdist"))
        tree = _tree_without_package(sdist, folder)
        for version, python in found.items():
            if python is not None:
                programs = _installed(python, f"{wheel}[test]", folder / version)
                _try(programs)
                _run(programs / "python", "-m", "pytest", *TESTS, cwd=tree)
                shutil.rmtree(folder / version)
                _say(f"Python {version}: the wheel passes")
    missing = [version for version, python in found.items() if python is None]
    if missing:
        _say(f"Not on this machine, so not tested: Python {', '.join(missing)}")
        if "--all" in sys.argv[1:]:
            sys.exit(1)


def _python(version: str) -> Path | None:
    """The interpreter of a version that can make environments: this one, one on the PATH, or one of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates: list[str | Path] = [sys.executable, f"python{version}", *sorted(pyenv.glob(f"{version}.*/bin/python"))]
    asked = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    for each in candidates:
        try:
            said = subprocess.run([str(each), "-c", asked], capture_output=True, text=True, check=False)
        except OSError:  # none of that name
            continue
        if said.returncode == 0 and said.stdout.strip() == version:
            return Path(each)
    return None


def _installed(python: Path, what: str, folder: Path) -> Path:
    """The programs of a fresh environment with only this in it."""
    _run(python, "-m", "venv", folder)
    programs: Path = folder / ("Scripts" if sys.platform == "win32" else "bin")
    _run(programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", what)
    return programs


def _try(programs: Path) -> None:
    """Embed two texts, then a file, and search it: what the README says first."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "lines.txt").write_text("a cat on the sofa\nstock prices fell\n", "utf-8")
        _run(programs / "python", "-I", "-c", EMBED, cwd=folder)
        _run(programs / "embedkit", "--version", cwd=folder)
        _run(programs / "embedkit", "embed", "lines.txt", "-o", "lines.parquet", cwd=folder)
        _run(programs / "embedkit", "search", "a kitten on the couch", "lines.parquet", "-k", "1", cwd=folder)


def _tree_without_package(sdist: Path, folder: Path) -> Path:
    """What the sdist holds, with its tests, but without embedkit/."""
    shutil.unpack_archive(sdist, folder / "tree")
    (tree,) = (folder / "tree").iterdir()
    shutil.rmtree(tree / "embedkit")
    return tree


def _run(*command: object, cwd: Path = ROOT) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # not the tree's package
    subprocess.run([str(word) for word in command], check=True, cwd=cwd, env=environment)


def _say(line: str) -> None:
    sys.stdout.write(f"== {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
