"""The same texts to disk: `embedkit embed` into a file and a folder, `llm embed-multi` into its SQLite file, txtai with
a checkpoint, and a loop over LangChain's CacheBackedEmbeddings. `python -m benchmarks.jobs`

Each run is a process of its own, imports included, against the C server, which answers at once unless
`--latency` says else. Then the same again,
killed (SIGKILL) when the server has seen half of the texts, and run once more to its end: the server counts what is
sent again. Every vector on disk is checked after both. The peers send one request after the other, so they are given
fewer texts. They are installed into `build/jobs` on first use.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
VENV = Path(os.environ.get("JOBS_PEERS", ROOT / "build" / "jobs"))
REQUIREMENTS = ("llm", "txtai", "langchain-openai", "langchain-classic")
WIDTH = 384
BATCH = 256  # texts that LangChain and txtai's function are given at once; llm's own limit is 100
MODEL = "text-embedding-3-small"


# --- what runs in the environment of the peers -----------------------------------------------------------------------


def read(path: str) -> list[str]:
    with Path(path).open(encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


def run_txtai(given: str, folder: str) -> None:
    import numpy as np
    import openai
    from txtai import Embeddings

    client = openai.OpenAI()

    def transform(texts: list[str]) -> list[list[float]]:
        return [each.embedding for each in client.embeddings.create(model=MODEL, input=texts).data]

    # Its least: no database of texts, no approximate index.
    index = Embeddings(method="external", transform=transform, backend="numpy", batch=BATCH, encodebatch=BATCH)
    index.index(((row, text, None) for row, text in enumerate(read(given))), checkpoint=f"{folder}/checkpoint")
    index.save(f"{folder}/index")
    np.save(f"{folder}/out.npy", np.asarray(index.ann.backend))  # for the check


def run_langchain(given: str, folder: str) -> None:
    import numpy as np
    from langchain_classic.embeddings import CacheBackedEmbeddings
    from langchain_classic.storage import LocalFileStore
    from langchain_openai import OpenAIEmbeddings

    model = OpenAIEmbeddings(model=MODEL, check_embedding_ctx_length=False)
    cached = CacheBackedEmbeddings.from_bytes_store(
        model, LocalFileStore(f"{folder}/cache"), namespace=MODEL, key_encoder="sha256"
    )
    texts = read(given)
    rows = np.empty((len(texts), WIDTH), np.float32)
    for start in range(0, len(texts), BATCH):
        rows[start : start + BATCH] = cached.embed_documents(texts[start : start + BATCH])
    np.save(f"{folder}/out.npy", rows)


# --- what comes out --------------------------------------------------------------------------------------------------


def rows_npy(folder: Path) -> Any:
    import numpy as np

    return np.load(folder / "out.npy")


def rows_folder(folder: Path) -> Any:
    import numpy as np
    import pyarrow.parquet as pq

    parts = [pq.read_table(path)["embedding"].combine_chunks() for path in sorted((folder / "out").glob("*.parquet"))]
    return np.concatenate([part.flatten().to_numpy().reshape(-1, WIDTH) for part in parts])


def rows_llm(folder: Path) -> Any:
    import sqlite3

    import numpy as np

    with sqlite3.connect(folder / "out.db") as base:
        found = base.execute("SELECT embedding FROM embeddings ORDER BY CAST(id AS INTEGER)").fetchall()
    return np.frombuffer(b"".join(blob for (blob,) in found), "<f4").reshape(-1, WIDTH)


PEERS: dict[str, tuple[int, Callable[[Path], Any], str]] = {
    "embedkit-npy": (200_000, rows_npy, "`embedkit embed`, .npy"),
    "embedkit-folder": (200_000, rows_folder, "`embedkit embed`, a folder of Parquet with the texts"),
    "llm": (20_000, rows_llm, "`llm embed-multi`, SQLite, 100 texts a request"),
    "txtai": (20_000, rows_npy, f"Embeddings.index(checkpoint=…), {BATCH} a request"),
    "langchain": (20_000, rows_npy, f"CacheBackedEmbeddings over OpenAIEmbeddings, LocalFileStore, {BATCH} a call"),
}


def command(peer: str, given: Path, folder: Path, url: str) -> list[str]:
    if peer.startswith("embedkit"):
        out = folder / ("out.npy" if peer.endswith("npy") else "out/")
        target = f"{out}/" if peer.endswith("folder") else str(out)
        return [
            sys.executable, "-m", "embedkit", "embed", str(given), "--column", "text", "-m", "vllm:bench",
            "--base-url", url, "-o", target,
        ]  # fmt: skip
    if peer == "llm":
        return [
            str(VENV / "bin" / "llm"), "embed-multi", "c", str(given), "--format", "nl", "-m", "3-small",
            "-d", str(folder / "out.db"),
        ]  # fmt: skip
    return [python(peer), "-m", "benchmarks.jobs", "--one", peer, str(given), str(folder)]


def python(peer: str) -> str:
    """The interpreter of a peer: ours, or that of an environment with the others in it, made on first use."""
    if peer.startswith("embedkit"):
        return sys.executable
    found, stamp = VENV / "bin" / "python", VENV / "requirements.txt"
    if not stamp.exists() or stamp.read_text() != "\n".join(REQUIREMENTS):
        print(f"installing {', '.join(REQUIREMENTS)} into {VENV} …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        subprocess.run([str(found), "-m", "pip", "install", "--quiet", *REQUIREMENTS, "numpy"], check=True)
        stamp.write_text("\n".join(REQUIREMENTS))
    return str(found)


def texts_to(path: Path, count: int) -> None:
    from .server.wire import texts

    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"id": row, "text": text}) + "\n" for row, text in enumerate(texts(count)))


def resident(pid: int) -> float:
    """MB that a process has held at most. (`ru_maxrss` also counts the parent, as it was at the fork.)"""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def run(peer: str, given: Path, folder: Path, at: Any, kill_at: float | None) -> dict[str, float]:
    """One process to its end, or killed when the server has seen so many texts more."""
    environment = {
        **os.environ, "OPENAI_API_KEY": "sk-bench", "OPENAI_BASE_URL": f"{at.url}/v1", "LLM_USER_PATH": str(folder / "llm"),
        "OPENBLAS_NUM_THREADS": "1",
    }  # fmt: skip
    before, begun = at.stats()["texts"], time.perf_counter()
    with (folder / "log").open("ab") as log:
        child = subprocess.Popen(
            command(peer, given, folder, f"{at.url}/v1"), env=environment, cwd=ROOT, stdout=log, stderr=log
        )
        peak, ended = 0.0, 0
        while not ended:
            peak = max(peak, resident(child.pid))
            if kill_at is not None and at.stats()["texts"] - before >= kill_at:
                os.kill(child.pid, signal.SIGKILL)
            time.sleep(0.005)
            ended, status, used = os.wait4(child.pid, os.WNOHANG)
        child.returncode = os.waitstatus_to_exitcode(status)
    if status and kill_at is None:
        sys.exit(f"{peer} failed: {(folder / 'log').read_text(errors='replace')[-2000:]}")
    return {
        "seconds": time.perf_counter() - begun, "cpu": used.ru_utime + used.ru_stime, "rss": peak,
        "texts": at.stats()["texts"] - before,
    }  # fmt: skip


def check(peer: str, folder: Path, count: int) -> None:
    import numpy as np

    from .server.wire import count_of, rows

    found, known = PEERS[peer][1](folder), rows(WIDTH)
    if found.shape != (count, WIDTH) or not np.allclose(found, known[np.arange(count) % count_of(WIDTH)], atol=1e-6):
        sys.exit(f"{peer} left wrong vectors: {found.shape}")


def measured(peer: str, share: float, latency: float) -> str:
    from .server.wire import server

    count = int(PEERS[peer][0] * share)
    python(peer)
    with server(WIDTH, latency=latency) as at, tempfile.TemporaryDirectory(dir=os.environ.get("JOBS_FOLDER")) as name:
        whole, half = Path(name) / "whole", Path(name) / "half"
        whole.mkdir()
        half.mkdir()
        given = Path(name) / "texts.jsonl"
        texts_to(given, count)
        done = run(peer, given, whole, at, None)
        check(peer, whole, count)
        killed = run(peer, given, half, at, count / 2)
        again = run(peer, given, half, at, None)
        check(peer, half, count)
    return (
        f"| {f'**{peer}**' if peer.startswith('embedkit') else peer} | {count:,} | {count / done['seconds']:,.0f} | "
        f"{1e6 * done['cpu'] / count:,.0f} | {done['rss']:,.0f} | {killed['texts']:,.0f} | {count - again['texts']:,.0f} | "
        f"{killed['texts'] + again['texts'] - count:,.0f} | {PEERS[peer][2]} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jobs", description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the texts that each is given")
    parser.add_argument("--latency", type=float, default=0.0, help="ms that the server takes for a request")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        peer, given, folder = options.one
        {"txtai": run_txtai, "langchain": run_langchain}[peer](given, folder)
        return
    print(
        "| | texts | rows/s | CPU us / row | peak RSS, MB | sent when killed | rows that survive | sent again | how |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    for peer in options.peers.split(","):
        print(measured(peer, options.share, options.latency), flush=True)


if __name__ == "__main__":
    main()
