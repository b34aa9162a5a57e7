"""embedkit beside its peers: `python -m benchmarks [SCENARIO…] [--peers NAME…] [--rounds N] [--write]`.

Every run of every peer is a fresh process, the rounds are interleaved, and every vector is checked. Figures are medians
over the rounds. `--write` puts tables and plots into benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers.clients import KEY, PEERS, REQUIREMENTS, VENV
from benchmarks.peers.scenarios import MODULES, SCENARIOS, Scenario
from benchmarks.report import figures
from benchmarks.server import wire

PAGES = 5  # times its output that a client may take
RESULTS = wire.BUILD / "results"


def peers_python() -> Path:
    """The interpreter of the peers' own environment, made on first use and when the list of peers has changed."""
    python, stamp = VENV / "bin" / "python", VENV / "requirements.txt"
    wanted = "\n".join(REQUIREMENTS)
    if not stamp.exists() or stamp.read_text() != wanted:
        print("installing the peers …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--upgrade", *REQUIREMENTS], check=True)
        stamp.write_text(wanted)
    return python


def run(scenario: Scenario, peer: str, at: wire.Server) -> dict[str, Any]:
    """One measurement in a process of its own; {"error": …} where it failed."""
    how = PEERS[peer]
    ca = str(wire.certificate()[0]) if at.tls else None
    job = {"url": at.url, "batch": scenario.batch, "inflight": scenario.inflight, "width": scenario.width, "ca": ca}
    least = 2 * scenario.batch * scenario.inflight if scenario.latency else scenario.batch
    texts = max(least, int(scenario.texts * how.share))
    asked = {"peer": peer, "texts": texts, "callers": scenario.callers, "job": job}
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "OPENAI_API_KEY": KEY}
    if ca:
        environment["SSL_CERT_FILE"] = ca
    command = [str(sys.executable if how.ours else peers_python()), "-m", "benchmarks.peers.worker", json.dumps(asked)]
    wire.take(min(2**32, PAGES * texts * scenario.width * 4 + 2**28))
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=900, check=False, cwd=wire.HERE.parent
        )
    except subprocess.TimeoutExpired:
        return {"error": "not done after 15 minutes"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def measure(name: str, peers: list[str], rounds: int) -> dict[str, Any]:
    """All rounds of one scenario: medians by peer, and what the server could have given."""
    scenario = SCENARIOS[name]
    found: dict[str, list[dict[str, Any]]] = {peer: [] for peer in peers}
    errors: dict[str, str] = {}
    with wire.server(scenario.width, style=scenario.style, latency=scenario.latency, tls=scenario.tls) as at:
        for number in range(rounds):
            turn = number % len(peers)
            for peer in (*peers[turn:], *peers[:turn]):  # nobody is always first
                if peer in errors:
                    continue
                outcome = run(scenario, peer, at)
                if "error" in outcome:
                    errors[peer] = outcome["error"]
                else:
                    found[peer].append(outcome)
                print(
                    f"  {number + 1}/{rounds} {peer:22} {errors.get(peer) or figures.brief(outcome)}",
                    file=sys.stderr,
                    flush=True,
                )
    encoding = "float" if name.startswith("bulk-") and name != "bulk-base64" else "base64"
    floor = {}
    if not scenario.tls and not scenario.latency:
        with wire.server(scenario.width, style=scenario.style) as at:
            floor = wire.floor(at, scenario.batch, scenario.inflight, encoding)
    medians = {peer: _medians(runs) for peer, runs in found.items() if runs}
    return {"scenario": name, "rounds": rounds, "peers": medians, "errors": errors, "floor": floor, "runs": found}


def _medians(runs: list[dict[str, Any]]) -> dict[str, float]:
    made = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    return {**made, "cpu_min": min(run["cpu"] for run in runs), "cpu_max": max(run["cpu"] for run in runs)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "scenarios", nargs="*", metavar="SCENARIO", help=f"{', '.join([*SCENARIOS, *MODULES, 'scaling'])}; all"
    )
    parser.add_argument("--peers", help="names, with commas between; those of the scenario where left out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="tables and plots into benchmarks/README.md")
    options = parser.parse_args()
    everything = [*SCENARIOS, *MODULES, "scaling"]
    names = options.scenarios or ["bulk-base64", "bulk-float", "single"]
    names = everything if names == ["all"] else names
    unknown = [name for name in names if name not in everything]
    wrong = [peer for peer in (options.peers or "").split(",") if peer and peer not in PEERS]
    if unknown or wrong:
        parser.error(
            f"unknown {', '.join(unknown + wrong)}; scenarios: {', '.join(everything)}; peers: {', '.join(PEERS)}"
        )
    failed = False
    for name in names:
        if name in MODULES:
            failed |= not _module(name)
        elif name == "scaling":
            from benchmarks import scaling

            scaling.run(RESULTS, options.rounds)
        else:
            peers = [peer for peer in (options.peers.split(",") if options.peers else SCENARIOS[name].peers) if peer]
            print(f"{name}: {SCENARIOS[name].title}", file=sys.stderr)
            found = measure(name, peers, options.rounds)
            RESULTS.mkdir(parents=True, exist_ok=True)
            (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1))
            print(figures.table(found), flush=True)
            failed |= bool(found["errors"])
    if options.write:
        figures.write(RESULTS)
    sys.exit(failed)


def _module(name: str) -> bool:
    """A benchmark of whole processes: it prints its own table, which is kept beside the others."""
    done = subprocess.run([sys.executable, "-m", MODULES[name]], stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, flush=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    if not done.returncode:
        (RESULTS / f"{name}.md").write_text(done.stdout)
    return done.returncode == 0


if __name__ == "__main__":
    main()
