"""How fast known texts come back from a cache: embedkit's SQLite file beside LangChain's CacheBackedEmbeddings over its
LocalFileStore, and litellm's cache in memory (it has none on disk any more). `python -m benchmarks.caching`

Each cache is filled with vectors that are known, then all texts are asked for, several times over, and every vector is
checked. The first time is a measurement of its own: embedkit then writes that the rows were used, which decides what
goes when the file is full. Every run is a process of its own, on one core where the system can do that; rounds are
interleaved, figures are medians. The peers are installed into `build/caching` on first use.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
VENV = Path(os.environ.get("CACHING_PEERS", ROOT / "build" / "caching"))
REQUIREMENTS = ("numpy", "langchain-classic", "litellm")
WIDTHS = (("float32", 384), ("float32", 1536), ("int8", 1536))
BATCH = 256  # texts that a peer is given at once; embedkit gets them all, or a stream, or one
PASSES = 4

Texts = Sequence[str]
Get = Callable[[Texts], Any]


def texts(count: int) -> list[str]:
    return [
        f"passage {number} of a corpus, as long as the passages of a corpus are now and then" for number in range(count)
    ]


def vectors(count: int, width: int, dtype: str) -> Any:
    """The vectors of all texts. Row i is one of 1,024 made beforehand, with i in its first component."""
    import numpy as np

    rows = np.random.default_rng(width).standard_normal((1024, width)).astype(np.float32)[np.arange(count) % 1024]
    if dtype == "int8":
        rows = np.clip(40 * rows, -127, 127).astype(np.int8)
        rows[:, 0], rows[:, 1], rows[:, 2] = (np.arange(count) // part % 100 + 1 for part in (1, 100, 10_000))
    else:
        rows[:, 0] = np.arange(count)
    return rows


# --- the caches: filled, then asked ----------------------------------------------------------------------------------


def embedkit_cache(how: str, folder: str, given: list[str], known: Any, dtype: str) -> Get:
    import embedkit
    from embedkit._embedders.cached import Cached
    from embedkit.cache import SQLiteCache

    rows = dict(zip(given, known, strict=True))

    class Filling(embedkit.Embedder):
        limits = embedkit.Limits(max_texts=1024)
        options = embedkit.Options(dtype=dtype)  # type: ignore[arg-type]  # a name from the command line

        def origin(self, options: embedkit.Options) -> dict[str, str]:
            return {"provider": "benchmark"}

        async def embed_batch(self, texts: Sequence[str], options: embedkit.Options) -> embedkit.Embeddings:
            import numpy as np

            made = np.array([rows[text] for text in texts])
            return embedkit.Embeddings(made, "m", embedkit.Usage(len(texts), 1), dtype=options.dtype)

    embedder = Cached(Filling(), SQLiteCache(f"{folder}/cache", max_bytes=2**36))
    loop = asyncio.new_event_loop()

    async def whole(texts: Texts) -> Any:
        return (await embedder.embed(texts)).vectors

    async def stream(texts: Texts) -> Any:
        import numpy as np

        async with embedder.stream(texts) as parts:
            return np.concatenate([part.vectors async for part in parts])

    async def single(texts: Texts) -> Any:
        return [await embedder.embed_query(text, input_type=None) for text in texts]

    loop.run_until_complete(whole(given))
    work = {"whole": whole, "stream": stream, "single": single}[how]
    return lambda texts: loop.run_until_complete(work(texts))


def batched(ask: Get) -> Get:
    return lambda texts: [row for start in range(0, len(texts), BATCH) for row in ask(texts[start : start + BATCH])]


def langchain(folder: str, given: list[str], known: Any, dtype: str) -> Get:
    from langchain_classic.embeddings import CacheBackedEmbeddings
    from langchain_classic.storage import LocalFileStore
    from langchain_core.embeddings import Embeddings

    rows = dict(zip(given, known.tolist(), strict=True))

    class Filling(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [rows[text] for text in texts]

        def embed_query(self, text: str) -> list[float]:
            return list(rows[text])

    cache = CacheBackedEmbeddings.from_bytes_store(Filling(), LocalFileStore(folder), key_encoder="blake2b")
    batched(cache.embed_documents)(given)
    return batched(cache.embed_documents)


def litellm(folder: str, given: list[str], known: Any, dtype: str) -> Get:
    """Its own network call is replaced by a function that answers at once; a hit never comes there."""
    import litellm as library
    from litellm.llms.openai.openai import OpenAIChatCompletion

    rows = dict(zip(given, known.tolist(), strict=True))

    async def answer(self: Any, data: dict[str, Any], model_response: Any, *args: Any, **more: Any) -> Any:
        model_response.data = [
            {"object": "embedding", "index": place, "embedding": rows[text]} for place, text in enumerate(data["input"])
        ]
        model_response.model, model_response.object = "m", "list"
        model_response.usage = library.Usage(prompt_tokens=1, completion_tokens=0, total_tokens=1)
        return model_response

    OpenAIChatCompletion.aembedding = answer
    library.cache = library.Cache(type="local")
    loop = asyncio.new_event_loop()

    async def embed(texts: Texts) -> Any:
        found = await library.aembedding(model="openai/m", input=list(texts), api_key="k", caching=True)
        return [each["embedding"] for each in found.data]

    library.cache.cache.max_size_in_memory = 10 * len(given)
    batched(lambda texts: loop.run_until_complete(embed(texts)))(given)
    loop.run_until_complete(asyncio.sleep(2))  # it writes in tasks of its own
    rows.clear()  # from now on a miss fails
    return batched(lambda texts: loop.run_until_complete(embed(texts)))


PEERS: dict[str, tuple[Callable[[str, list[str], Any, str], Get], int, str]] = {
    "embedkit": (lambda *given: embedkit_cache("whole", *given), 200_000, "SQLiteCache, one call of embed()"),
    "embedkit-stream": (lambda *given: embedkit_cache("stream", *given), 200_000, "the same, stream()"),
    "embedkit-single": (lambda *given: embedkit_cache("single", *given), 20_000, "the same, embed_query() one by one"),
    "langchain": (langchain, 10_000, f"CacheBackedEmbeddings, LocalFileStore, {BATCH} texts a call"),
    "litellm": (litellm, 1000, f"Cache(type='local'), aembedding(caching=True), {BATCH} texts a call"),
}


# --- one measurement -------------------------------------------------------------------------------------------------


def measure(peer: str, dtype: str, width: int, share: float) -> dict[str, float]:
    """Hits per second of wall time the first time and later, and microseconds of processor time per hit."""
    import numpy as np

    opens, count, _ = PEERS[peer]
    count = max(BATCH, int(count * share))
    given, known = texts(count), vectors(count, width, dtype)
    with tempfile.TemporaryDirectory(dir=os.environ.get("CACHING_FOLDER")) as folder:
        ask = opens(folder, given, known, dtype)
        runs = []
        for _ in range(PASSES):
            wall, cpu = time.perf_counter(), time.process_time()
            found = ask(given)
            runs.append((count / (time.perf_counter() - wall), 1e6 * (time.process_time() - cpu) / count))
            if not np.array_equal(np.asarray(found, known.dtype), known):
                sys.exit(f"{peer} gave wrong vectors")
        size = sum(each.stat().st_size for each in Path(folder).rglob("*") if each.is_file())
    first, *later = runs
    return {
        "first": first[0], "first_cpu": first[1], "later": statistics.median(run[0] for run in later),
        "cpu": statistics.median(run[1] for run in later), "size": size / (count * width * known.itemsize),
    }  # fmt: skip


def python(peer: str) -> str:
    """The interpreter of a peer: ours, or that of an environment with the others in it, made on first use."""
    if peer.startswith("embedkit"):
        return sys.executable
    found, stamp = VENV / "bin" / "python", VENV / "requirements.txt"
    if not stamp.exists() or stamp.read_text() != "\n".join(REQUIREMENTS):
        print(f"installing {', '.join(REQUIREMENTS)} into {VENV} …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        subprocess.run([str(found), "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
        stamp.write_text("\n".join(REQUIREMENTS))
    return str(found)


def run(peer: str, dtype: str, width: int, share: float) -> dict[str, Any]:
    """One measurement in a process of its own; {"error": …} where it failed."""
    command = [python(peer), "-m", "benchmarks.caching", "--one", json.dumps([peer, dtype, width, share])]
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=ROOT)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def table(dtype: str, width: int, found: dict[str, list[dict[str, Any]]]) -> str:
    lines = [
        f"| {width} x {dtype} | hits/s | first time | CPU us / hit | first time | size / vectors | how |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for peer, runs in found.items():
        good = [run for run in runs if "error" not in run]
        if not good:
            lines.append(f"| {peer} | failed: {runs[0]['error']} | | | | | {PEERS[peer][2]} |")
            continue
        middle = {name: statistics.median(run[name] for run in good) for name in good[0]}
        lines.append(
            f"| {f'**{peer}**' if peer.startswith('embedkit') else peer} | {middle['later']:,.0f} | "
            f"{middle['first']:,.0f} | {middle['cpu']:.2f} | {middle['first_cpu']:.2f} | {middle['size']:.2f} | "
            f"{PEERS[peer][2]} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.caching", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--share", type=float, default=1.0, help="of the texts that each is given")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])
    if options.one:
        print(json.dumps(measure(*json.loads(options.one))))
        return
    peers = options.peers.split(",")
    for dtype, width in WIDTHS:
        found: dict[str, list[dict[str, Any]]] = {
            peer: [] for peer in peers if dtype == "float32" or "embedkit" in peer
        }
        for number in range(options.rounds if found else 0):
            turn = number % len(found)
            for peer in [*list(found)[turn:], *list(found)[:turn]]:  # nobody is always first
                found[peer].append(run(peer, dtype, width, options.share))
                print(f"  {number + 1}/{options.rounds} {peer:16} {found[peer][-1]}", file=sys.stderr, flush=True)
        print(table(dtype, width, found), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
