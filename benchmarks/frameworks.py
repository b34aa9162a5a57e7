"""10,000 documents through LangChain, LlamaIndex and Haystack, each with embedkit and with its own integration of OpenAI:
100 texts per request, 1536 components, every request answered after 100 ms. `python -m benchmarks.frameworks [--rounds N]`
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.peers.worker import check, cpu
from benchmarks.server import wire

ROOT = Path(__file__).parent.parent
VENV = ROOT / "build" / "frameworks"
REQUIREMENTS = ("langchain-openai", "llama-index-embeddings-openai", "haystack-ai")
KEY = "sk-nothing"
TEXTS, BATCH, WIDTH, LATENCY = 10_000, 100, 1536, 100.0
Embed = Callable[[Sequence[str]], Any]


def langchain(url: str, *, ours: bool, awaited: bool) -> Embed:
    if ours:
        from embedkit.contrib.langchain import EmbedkitEmbeddings

        made: Any = EmbedkitEmbeddings("openai:bench", base_url=url, api_key=KEY, limits={"max_texts": BATCH})
    else:
        from langchain_openai import OpenAIEmbeddings

        # Its check of lengths fetches a tokenizer from the network.
        made = OpenAIEmbeddings(
            model="bench", base_url=url, api_key=KEY, chunk_size=BATCH, check_embedding_ctx_length=False
        )
    embed: Embed = made.aembed_documents if awaited else made.embed_documents
    return embed


def llama_index(url: str, *, ours: bool, awaited: bool) -> Embed:
    if ours:
        from embedkit.contrib.llama_index import EmbedkitEmbedding

        made: Any = EmbedkitEmbedding("openai:bench", base_url=url, api_key=KEY, limits={"max_texts": BATCH})
    else:
        from llama_index.embeddings.openai import OpenAIEmbedding

        made = OpenAIEmbedding(model_name="bench", api_base=url, api_key=KEY, embed_batch_size=BATCH)
    embed: Embed = made.aget_text_embedding_batch if awaited else made.get_text_embedding_batch
    return embed


def haystack(url: str, *, ours: bool, awaited: bool) -> Embed:
    from haystack import Document
    from haystack.utils import Secret

    key = Secret.from_token(KEY)
    if ours:
        from embedkit.contrib.haystack import EmbedkitDocumentEmbedder

        made: Any = EmbedkitDocumentEmbedder("openai:bench", base_url=url, api_key=key, limits={"max_texts": BATCH})
    else:
        from haystack.components.embedders import OpenAIDocumentEmbedder

        made = OpenAIDocumentEmbedder(
            api_key=key, model="bench", api_base_url=url, batch_size=BATCH, progress_bar=False, raise_on_failure=True
        )

    async def run_async(texts: Sequence[str]) -> Any:
        found = await made.run_async([Document(content=text) for text in texts])
        return [each.embedding for each in found["documents"]]

    def run(texts: Sequence[str]) -> Any:
        return [each.embedding for each in made.run([Document(content=text) for text in texts])["documents"]]

    return run_async if awaited else run


FRAMEWORKS = {"LangChain": langchain, "LlamaIndex": llama_index, "Haystack": haystack}
WAYS = [(name, ours, awaited) for name in FRAMEWORKS for awaited in (True, False) for ours in (True, False)]


async def measured(embed: Embed, *, awaited: bool) -> dict[str, float]:
    """Wall seconds and CPU milliseconds of one call, after one that pays for imports and connections; checked."""

    async def call(texts: Sequence[str]) -> Any:
        return await embed(texts) if awaited else embed(texts)

    check(await call(wire.texts(2 * BATCH)), WIDTH, 0)
    texts = wire.texts(TEXTS)
    before, started = cpu(), perf_counter()
    found = await call(texts)
    wall, after = perf_counter() - started, cpu()
    assert len(found) == TEXTS, f"{TEXTS} texts, {len(found)} vectors"
    check(found, WIDTH, 0)
    return {"wall": wall, "cpu": sum(after) - sum(before)}


def run(name: str, *, ours: bool, awaited: bool) -> dict[str, float]:
    """One measurement, in a process and with a server of its own."""
    with wire.server(WIDTH, latency=LATENCY) as at:
        job = json.dumps({"url": f"{at.url}/v1", "name": name, "ours": ours, "awaited": awaited})
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HAYSTACK_TELEMETRY_ENABLED": "False"}
        done = subprocess.run(
            [python(), "-m", "benchmarks.frameworks", "--job", job], capture_output=True, text=True, env=environment,
            cwd=ROOT, check=False, timeout=900,
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"{name} failed: {done.stderr[-2000:]}")
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return {**found, "most": at.stats()["most_waiting"]}


def python() -> str:
    """An interpreter that has embedkit and the frameworks, made on first use."""
    found, stamp = VENV / "bin" / "python", VENV / "requirements.txt"
    wanted = "\n".join(REQUIREMENTS)
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing the frameworks into {VENV.relative_to(ROOT)} …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--editable", str(ROOT)]
        subprocess.run([str(found), *install, *REQUIREMENTS], check=True)
        stamp.write_text(wanted)
    return str(found)


def table(found: dict[tuple[str, bool, bool], list[dict[str, float]]]) -> str:
    """Medians over the rounds; embedkit and what is beside it, in pairs."""
    lines = [
        "| framework | call | embeddings by | wall s | CPU ms / 1,000 texts | in flight, mean | at most |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for (name, ours, awaited), runs in found.items():
        wall, used, most = (statistics.median(run[key] for run in runs) for key in ("wall", "cpu", "most"))
        mean = TEXTS / BATCH * LATENCY / 1000 / wall  # Little's law
        by = "**embedkit**" if ours else "its own OpenAI integration"
        call = "async" if awaited else "sync"
        lines.append(f"| {name} | {call} | {by} | {wall:.2f} | {used / TEXTS * 1000:.1f} | {mean:.1f} | {most:.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frameworks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        job = json.loads(options.job)
        embed = FRAMEWORKS[job["name"]](job["url"], ours=job["ours"], awaited=job["awaited"])
        print(json.dumps(asyncio.run(measured(embed, awaited=job["awaited"]))), flush=True)
        os._exit(0)  # some leave sockets open and complain of it; that is not what is measured
    found: dict[tuple[str, bool, bool], list[dict[str, float]]] = {way: [] for way in WAYS}
    for number in range(options.rounds):
        for name, ours, awaited in WAYS:
            found[name, ours, awaited].append(run(name, ours=ours, awaited=awaited))
            print(
                f"  {number + 1}/{options.rounds} {name} {ours=} {awaited=} {found[name, ours, awaited][-1]}",
                file=sys.stderr,
            )
    print(table(found))


if __name__ == "__main__":
    main()
