"""Builds the wheel and the sdist, installs the wheel in a fresh environment, and tries it there as a user would."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
TRY = """
import embedkit
from embedkit.testing import FakeEmbedder
assert "site-packages" in embedkit.__file__, embedkit.__file__
assert embedkit.SyncEmbedder(FakeEmbedder(8)).embed(["a", "b"]).shape == (2, 8)
print("embedkit", embedkit.__version__)
"""


def main() -> None:
    """Fail at the first thing that does not work."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _run(sys.executable, "-m", "build", "--outdir", folder, ROOT)  # the wheel is built from the sdist
        (wheel,) = folder.glob("*.whl")
        _run(sys.executable, "-m", "venv", folder / "fresh")
        programs = folder / "fresh" / ("Scripts" if sys.platform == "win32" else "bin")
        _run(programs / "python", "-m", "pip", "install", "--quiet", f"{wheel}[cli]")
        _run(programs / "python", "-I", "-c", TRY, cwd=folder)
        _run(programs / "embedkit", "--version", cwd=folder)
        _run(programs / "embedkit", "embed", "--help", cwd=folder)


def _run(*command: object, cwd: Path = ROOT) -> None:
    subprocess.run([str(word) for word in command], check=True, cwd=cwd)


if __name__ == "__main__":
    main()
