"""What the two benchmarks of cold processes share: an environment with the peers in it, interleaved rounds, a table."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
VENV = ROOT / "build" / "cold"
PEERS = ("openai", "litellm", "baseten-performance-client")


def python() -> str:
    """An interpreter that has embedkit and its peers, so that all start from the same; made on first use."""
    found, stamp = VENV / "bin" / "python", VENV / "peers.txt"
    if not stamp.exists() or stamp.read_text() != " ".join(PEERS):
        print(f"installing {', '.join(PEERS)} beside embedkit into {VENV.relative_to(ROOT)} …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--editable", str(ROOT), *PEERS]
        subprocess.run([str(found), *install], check=True)
        stamp.write_text(" ".join(PEERS))
    return str(found)


def rounds(scripts: Mapping[str, str], count: int) -> dict[str, list[tuple[float, float]]]:
    """(wall, CPU) in milliseconds of whole processes: every script once per round, so that a busy moment is everyone's.

    A round before the first is not counted: it writes the bytecode and fills the page cache.
    """
    interpreter = python()
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches a list of prices at its import
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in scripts}
    for number in range(count + 1):
        for name, script in scripts.items():
            started = time.perf_counter()
            child = os.posix_spawn(interpreter, [interpreter, "-c", script], variables)
            _, status, used = os.wait4(child, 0)
            wall = time.perf_counter() - started
            if status:
                sys.exit(f"{name} failed; it ran: {script}")
            if number:
                found[name].append((1000 * wall, 1000 * (used.ru_utime + used.ru_stime)))
        if sys.stderr.isatty():
            print(f"\r{number} of {count} rounds\r", end="", file=sys.stderr, flush=True)
    return found


def table(found: Mapping[str, list[tuple[float, float]]], base: str, than: str) -> str:
    """Least and median of each, what it takes beyond `base`, and
    its ratio to `than`: the minima, which others disturb least.
    """
    least = {name: min(wall for wall, _ in runs) for name, runs in found.items()}
    lines = [
        f"| | wall ms, min | median | CPU ms, min | min beyond {base} | min : {than} |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, runs in found.items():
        median = statistics.median(wall for wall, _ in runs)
        cpu = min(cpu for _, cpu in runs)
        beyond, ratio = least[name] - least[base], least[name] / least[than]
        lines.append(f"| {name} | {least[name]:.1f} | {median:.1f} | {cpu:.1f} | {beyond:.1f} | {ratio:.2f} |")
    return "\n".join(lines)
