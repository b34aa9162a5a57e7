"""What one text costs as everything grows: the number of texts (by
stream), the width, the batch, the requests in flight, the retries.

A line that stays flat is the claim: memory and CPU per text do not depend on how many texts there are.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.server import wire

BASE = {"texts": 20_000, "width": 1024, "batch": 128, "inflight": 16}
AXES: dict[str, tuple[int, ...]] = {
    "texts": (1_000, 10_000, 100_000, 1_000_000, 10_000_000),
    "width": (256, 512, 1024, 2048, 4096),
    "batch": (1, 4, 16, 64, 256, 1024),
    "inflight": (1, 4, 16, 64, 256, 1024),
    "retries": (0, 1, 2, 5, 10, 20),
}
TITLES = {
    "texts": "texts in one stream (width 256)",
    "width": "components",
    "batch": "texts per request",
    "inflight": "requests in flight",
    "retries": "of 100 requests refused and sent again",
}


def point(axis: str, value: int) -> dict[str, Any]:
    """One measurement: a stream where the number of texts grows, else a call."""
    at = {**BASE, axis: value}
    if axis == "texts":
        at["width"] = 256
    if axis == "batch":
        at["texts"] = max(4_000, min(100_000, 400 * value))
    if axis == "inflight":
        at["texts"] = max(20_000, 2 * value * at["batch"])
    if axis == "width":
        at["texts"] = 20_480_000 // value
    if axis == "retries":
        at |= {"texts": 40_000, "batch": 16}
    if axis != "texts":
        wire.take(2 * at["texts"] * at["width"] * 4 + 2**28)
    with wire.server(at["width"], refuse=at.get("retries", 0)) as server:
        job = {"url": server.url, "batch": at["batch"], "inflight": at["inflight"], "width": at["width"], "ca": None}
        asked = {
            "peer": "embedkit-patient" if axis == "retries" else "embedkit",
            "texts": at["texts"],
            "callers": False,
            "stream": axis == "texts",
            "job": job,
        }
        command = [sys.executable, "-m", "benchmarks.peers.worker", json.dumps(asked)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=wire.HERE.parent)
    made: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return {"value": value, "cpu": made["cpu"], "extra": made["extra"], "output": made["output"], "rate": made["rate"]}


def run(results: Path, rounds: int) -> None:
    """Measure every axis, the median of the rounds for each point, and keep it."""
    found: dict[str, list[dict[str, Any]]] = {axis: [] for axis in AXES}
    for axis, values in AXES.items():
        for value in values:
            runs = sorted(
                (point(axis, value) for _ in range(1 if value >= 1_000_000 else rounds)), key=lambda run: run["cpu"]
            )
            found[axis].append(runs[len(runs) // 2])
            print(f"  {axis} {value:,}: {found[axis][-1]['cpu']:.2f} us CPU per text", file=sys.stderr, flush=True)
    results.mkdir(parents=True, exist_ok=True)
    (results / "scaling.json").write_text(json.dumps(found, indent=1))
    print(table(found), flush=True)


def table(found: dict[str, Any]) -> str:
    """Every point as a row."""
    lines = [
        "| what grows | to | CPU us / text | texts/s | memory beyond the start, MB |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for axis, points in found.items():
        lines += [
            f"| {TITLES[axis]} | {each['value']:,} | {each['cpu']:.2f} | {each['rate']:,.0f} | {each['extra'] / 1e6:,.0f} |"
            for each in points
        ]
    return "\n".join(lines)


def _short(value: int) -> str:
    return (
        f"{value // 1_000_000}M"
        if value >= 1_000_000
        else f"{value // 1000}k"
        if value >= 1000 and value % 1000 == 0
        else str(value)
    )


def plot(found: dict[str, Any], path: Path) -> None:
    """One panel per axis: CPU per text, and for the stream the memory too."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "embedkit", "font.size": 8})
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(found), figsize=(13, 3.2))
    for axis, (name, points) in zip(axes, found.items(), strict=True):
        values = [each["value"] for each in points]
        axis.plot(values, [each["cpu"] for each in points], "o-", color="#d95f02", label="CPU, us per text")
        axis.set_xscale("log" if values[0] else "symlog")
        axis.set_xticks(values, [_short(value) for value in values])
        axis.minorticks_off()
        axis.set_ylim(bottom=0)
        axis.set_title(TITLES[name], fontsize=9)
        axis.spines[["top"]].set_visible(False)
        if name == "texts":
            memory = axis.twinx()
            memory.plot(values, [each["extra"] / 1e6 for each in points], "s--", color="#7f8c9b", label="memory, MB")
            memory.set_ylim(0, max(50.0, *(each["extra"] / 1e6 for each in points)))
            memory.spines[["top"]].set_visible(False)
            memory.legend(handles=[*axis.lines, *memory.lines], loc="upper right", frameon=False)
    axes[0].set_ylabel("CPU, us per text")
    figure.tight_layout()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
