"""From results to tables, plots and the page that holds both."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.peers.clients import PEERS, VENV
from benchmarks.peers.scenarios import MODULES, SCENARIOS, Goal, Scenario

README = Path(__file__).parent.parent / "README.md"
PLOTS = Path(__file__).parent.parent / "plots"
BEGIN, END = "<!-- figures: written by `python -m benchmarks all --write` -->", "<!-- end of figures -->"
MEGABYTE = 1_000_000
ROOM = 60 * MEGABYTE  # what a client may hold beside its output


def brief(outcome: dict[str, Any]) -> str:
    """One measurement on one line."""
    return f"{outcome['cpu']:9.2f} ms CPU per 1,000 texts, {outcome['rate']:9,.0f} texts/s"


def table(found: dict[str, Any]) -> str:
    """A scenario as a Markdown table, the cheapest first, with its goals below."""
    scenario, peers = SCENARIOS[found["scenario"]], found["peers"]
    ours = next((peer for peer in peers if PEERS[peer].ours), None)
    head = ["client", "CPU ms / 1,000 texts", "min to max", "x embedkit", "texts/s", "memory / output", "how"]
    rows = [head, ["---", *["---:"] * 5, "---"]]
    for peer, made in sorted(peers.items(), key=lambda item: item[1]["cpu"]):
        times = f"{made['cpu'] / peers[ours]['cpu']:.2f}" if ours else ""
        rows.append([
            f"**{peer}**" if PEERS[peer].ours else peer, f"{made['cpu']:.2f}",
            f"{made['cpu_min']:.2f} to {made['cpu_max']:.2f}", times,
            f"{made['rate']:,.0f}", f"{made['extra'] / made['output']:.2f}", PEERS[peer].what,
        ])  # fmt: skip
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines += [f"\n{peer} failed: {error}" for peer, error in found["errors"].items()]
    if floor := found["floor"]:
        lines.append(
            f"\nThe server gives {floor['rate']:,.0f} texts/s ({floor['bytes'] / 1e9:.1f} GB/s) to a reader that decodes nothing and"
            f" pays {floor['reader']:.2f} ms per 1,000 texts; serving them costs {floor['server']:.2f} ms."
        )
    lines += [f"\n{line}" for line in _goals(scenario, peers)]
    return "\n".join(lines)


def _goals(scenario: Scenario, peers: dict[str, Any]) -> Iterator[str]:
    for goal in scenario.goals:
        against = [peer for peer in goal.against if peer in peers]
        if goal.ours not in peers or (goal.against and not against):
            continue
        value, fine = _judged(goal, scenario, peers[goal.ours], [peers[peer] for peer in against])
        best = f" x the best of {', '.join(against)}" if len(against) > 1 else f" x {against[0]}" if against else ""
        what = {
            "cpu": "CPU at most",
            "rate": "texts/s at least",
            "ideal": "of the ideal wall at least",
            "memory": "memory at most",
        }
        unit = " x output + 60 MB" if goal.metric == "memory" else best
        yield f"{'✓' if fine else '✗'} {goal.ours}: {value:.3g} (goal: {what[goal.metric]} {goal.limit:g}{unit})"


def _judged(
    goal: Goal, scenario: Scenario, made: dict[str, float], against: list[dict[str, float]]
) -> tuple[float, bool]:
    if goal.metric == "cpu":
        value = made["cpu"] / min(each["cpu"] for each in against)
        return value, value <= goal.limit
    if goal.metric == "rate":
        value = made["rate"] / max(each["rate"] for each in against)
        return value, value >= goal.limit
    if goal.metric == "ideal":
        value = scenario.ideal / made["seconds"]
        return value, value >= goal.limit
    value = (made["extra"] - ROOM) / made["output"]
    return made["extra"] / made["output"], value <= goal.limit


# --- the page --------------------------------------------------------------------------------------------------------


def write(results: Path) -> None:
    """Tables and plots of everything measured so far, between the marks of README.md."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("*.json"))}
    parts = [f"Measured with {machine()}."]
    scenes = [name for name in SCENARIOS if name in found]
    if scenes:
        plot(found, scenes)
        parts.append("![CPU per 1,000 texts, by client](plots/cpu.svg)")
    for name in scenes:
        rounds = found[name]["rounds"]
        parts.append(f"### {name}\n\n{SCENARIOS[name].title}. Medians of {rounds} rounds.\n\n{table(found[name])}")
    parts += [f"### {name}\n\n{_opening(module)}\n\n{(results / name).with_suffix('.md').read_text().strip()}"
              for name, module in MODULES.items() if (results / name).with_suffix(".md").exists()]  # fmt: skip
    if "scaling" in found:
        from benchmarks import scaling

        scaling.plot(found["scaling"], PLOTS / "scaling.svg")
        parts.append(
            "### scaling\n\n![CPU per text as everything grows](plots/scaling.svg)\n\n"
            + scaling.table(found["scaling"])
        )
    before, _, rest = README.read_text("utf-8").partition(BEGIN)
    README.write_text(f"{before}{BEGIN}\n\n" + "\n\n".join(parts) + f"\n\n{END}{rest.partition(END)[2]}", "utf-8")


def _opening(module: str) -> str:
    """What a module of its own says that it measures."""
    text = (Path(__file__).parent.parent / f"{module.rpartition('.')[2]}.py").read_text("utf-8")
    return text.split('"""')[1].partition(" `python")[0]


def machine() -> str:
    """What the figures were measured with; ours and the peers' versions."""
    import os

    names = ("aiohttp", "msgspec", "numpy", "pysimdjson", "pybase64", "uvloop")
    ours = ", ".join(f"{name} {version(name)}" for name in names)
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "",
    )
    return f"Python {platform.python_version()} on Linux {platform.release()}, {os.cpu_count()} x {model}; {ours}; {peers()}"


def peers() -> str:
    """Versions of the peers, read from their own environment."""
    shown = (
        "baseten_performance_client",
        "openai",
        "litellm",
        "langchain_openai",
        "pydantic_ai_slim",
        "catsu",
        "huggingface_hub",
        "ollama",
        "httpx",
    )
    folders = {
        path.name.partition("-")[0]: path.name.split("-")[1] for path in VENV.glob("lib/*/site-packages/*.dist-info")
    }
    return ", ".join(
        f"{name.replace('_', '-')} {folders[name].removesuffix('.dist')}" for name in shown if name in folders
    )


def plot(found: dict[str, Any], names: list[str]) -> None:
    """One panel of bars per scenario: CPU per 1,000 texts, on a logarithmic axis."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "embedkit", "font.size": 8})
    from matplotlib import pyplot as plt

    wide = 3
    tall = -(-len(names) // wide)
    figure, axes = plt.subplots(tall, wide, figsize=(13, 2.6 * tall), squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        lean = name == "memory"
        values = {
            peer: made["extra"] / made["output"] if lean else made["cpu"] for peer, made in found[name]["peers"].items()
        }
        bars = sorted(values.items(), key=lambda item: -item[1])
        colors = ["#d95f02" if PEERS[peer].ours else "#7f8c9b" for peer, _ in bars]
        shown = axis.barh([peer for peer, _ in bars], [value for _, value in bars], color=colors)
        axis.bar_label(
            shown,
            labels=[f"{value:.2f} x output" if lean else f"{value:,.1f}" for _, value in bars],
            padding=2,
            fontsize=7,
        )
        if not lean:
            axis.set_xscale("log")
            axis.set_xlim(1, max(values.values()) * 4)
        axis.tick_params(axis="x", which="both", bottom=False, labelbottom=False)
        axis.margins(x=0.35)
        axis.set_title(name, fontsize=9)
        axis.spines[["top", "right", "bottom"]].set_visible(False)
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    figure.suptitle("CPU of the client process, ms per 1,000 texts (less is better; logarithmic)", fontsize=10, y=1.0)
    figure.tight_layout()
    PLOTS.mkdir(exist_ok=True)
    figure.savefig(PLOTS / "cpu.svg", metadata={"Date": None})
    plt.close(figure)
