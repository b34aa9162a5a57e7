"""The clients, each as its own documentation would have one
use it, with the same batches and as many requests in flight.

A peer opens with a `Job` and gives a function: texts → rows, in whatever form the client itself returns them. Where a
client has no batching of its own, workers share one iterator of batches, the cheapest way we know. Imports stay inside:
most peers live in a virtual environment of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KEY = "sk-nothing"
Send = Callable[[Sequence[str]], Awaitable[Any]]


@dataclass(frozen=True)
class Job:
    """What is asked of a client."""

    url: str
    batch: int
    inflight: int
    width: int
    ca: str | None = None


@dataclass(frozen=True)
class Peer:
    """One way to get vectors.

    Attributes:
        open: job → texts → rows.
        what: one line on how it is used.
        ours: it is embedkit, so it runs in our environment.
        uvloop: it runs under uvloop.
        share: the part of a scenario's texts it is given; the slowest would need minutes.
    """

    open: Callable[[Job], Send]
    what: str
    ours: bool = False
    uvloop: bool = False
    share: float = 1.0


def spread(job: Job, send: Send) -> Send:
    """All texts, in batches, over as many workers as requests may be in flight."""

    async def embed(texts: Sequence[str]) -> Any:
        if len(texts) <= job.batch:
            return await send(texts)
        rows: list[Any] = [None] * len(texts)
        starts = iter(range(0, len(texts), job.batch))

        async def worker() -> None:
            for start in starts:
                rows[start : start + job.batch] = await send(texts[start : start + job.batch])

        await asyncio.gather(*(worker() for _ in range(job.inflight)))
        return rows

    return embed


# --- embedkit --------------------------------------------------------------------------------------------------------


def embedkit(
    job: Job, model: str = "openai:text-embedding-3-small", path: str = "/v1", most: int = 0, **more: Any
) -> Send:
    import embedkit

    embedder = embedkit.connect(
        model, base_url=job.url + path, api_key=KEY, max_concurrency=job.inflight,
        limits=embedkit.Limits(max_texts=most or job.batch, max_tokens=250_000), ssl=job.ca, **more,
    )  # fmt: skip

    async def embed(texts: Sequence[str]) -> Any:
        return (await embedder.embed(texts)).vectors

    return embed


def embedkit_float(job: Job) -> Send:
    return embedkit(job, extra={"encoding_format": "float"})


def embedkit_patient(job: Job) -> Send:
    import embedkit as package

    return embedkit(job, retry=package.RetryPolicy(attempts=20))


def embedkit_coalescing(job: Job) -> Send:
    return embedkit(job, most=128, coalesce=True)


def embedkit_tei(job: Job) -> Send:
    return embedkit(job, "tei:bench", "")


def embedkit_ollama(job: Job) -> Send:
    return embedkit(job, "ollama:bench", "/api")


# --- written by hand -------------------------------------------------------------------------------------------------


def aiohttp_plain(job: Job, encoding: str = "base64") -> Send:
    """What a careful user writes: a semaphore, gather, json, base64."""
    import base64
    import ssl

    import aiohttp
    import numpy as np

    context = ssl.create_default_context(cafile=job.ca) if job.ca else True
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ssl=context))
    turns = asyncio.Semaphore(job.inflight)
    decode: Any = (lambda value: np.frombuffer(base64.b64decode(value), "<f4")) if encoding == "base64" else np.float32

    async def one(texts: Sequence[str]) -> list[Any]:
        body = {"model": "bench", "input": texts, "encoding_format": encoding}
        headers = {"authorization": f"Bearer {KEY}"}
        async with turns, session.post(f"{job.url}/v1/embeddings", json=body, headers=headers) as reply:
            data = (await reply.json())["data"]
        return [decode(item["embedding"]) for item in data]

    async def embed(texts: Sequence[str]) -> Any:
        parts = await asyncio.gather(
            *(one(texts[start : start + job.batch]) for start in range(0, len(texts), job.batch))
        )
        return np.array([row for part in parts for row in part], np.float32)

    return embed


def aiohttp_plain_float(job: Job) -> Send:
    return aiohttp_plain(job, "float")


def aiohttp_tuned(job: Job) -> Send:
    """The least one can do over aiohttp.ClientSession: every
    knob set, msgspec, one matrix, no retry, no limit, no check.
    """
    import ssl

    import aiohttp
    import msgspec
    import numpy as np
    from yarl import URL

    item = msgspec.defstruct("Item", [("embedding", bytes), ("index", int)], gc=False)
    whole: Any = msgspec.defstruct("Reply", [("data", list[item])])  # type: ignore[valid-type]  # a type made here
    decode, encode = msgspec.json.Decoder(whole).decode, msgspec.json.Encoder().encode
    url = URL(f"{job.url}/v1/embeddings")
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    context = ssl.create_default_context(cafile=job.ca) if job.ca else True
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=context), cookie_jar=aiohttp.DummyCookieJar(), read_bufsize=1 << 20,
        timeout=aiohttp.ClientTimeout(total=None), skip_auto_headers=("user-agent", "accept", "accept-encoding"),
    )  # fmt: skip

    async def embed(texts: Sequence[str]) -> Any:
        rows = np.empty((len(texts), job.width), np.float32)
        view, size = memoryview(rows.data).cast("B"), job.width * 4
        starts = iter(range(0, len(texts), job.batch))

        async def worker() -> None:
            for start in starts:
                body = encode(
                    {"model": "bench", "input": texts[start : start + job.batch], "encoding_format": "base64"}
                )
                async with session.post(url, data=body, headers=headers, allow_redirects=False) as reply:
                    found = decode(await reply.read())
                for place, item in enumerate(found.data, start):
                    view[place * size : (place + 1) * size] = item.embedding

        await asyncio.gather(*(worker() for _ in range(min(job.inflight, len(texts)))))
        return rows

    return embed


def httpx_plain(job: Job) -> Send:
    import base64

    import httpx
    import numpy as np

    limits = httpx.Limits(max_connections=job.inflight, max_keepalive_connections=job.inflight)
    client = httpx.AsyncClient(limits=limits, timeout=120, headers={"authorization": f"Bearer {KEY}"})

    async def send(texts: Sequence[str]) -> list[Any]:
        body = {"model": "bench", "input": texts, "encoding_format": "base64"}
        data = (await client.post(f"{job.url}/v1/embeddings", json=body)).json()["data"]
        return [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in data]

    return spread(job, send)


# --- the official and the popular ------------------------------------------------------------------------------------


def openai(job: Job, *, http: Any = None, **more: Any) -> Send:
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=f"{job.url}/v1", api_key=KEY, **({"http_client": http()} if http else {}))

    async def send(texts: Sequence[str]) -> list[Any]:
        return [
            item.embedding for item in (await client.embeddings.create(model="bench", input=list(texts), **more)).data
        ]

    return spread(job, send)


def openai_aiohttp(job: Job) -> Send:
    from openai import DefaultAioHttpClient

    return openai(job, http=DefaultAioHttpClient)


def openai_float(job: Job) -> Send:
    return openai(job, encoding_format="float")


def baseten(job: Job, decode: Callable[[str], bytes] | None = None) -> Send:
    """Rust, on threads of its own. Numbers come as one numpy
    array; base64 is handed on as it is, so it is decoded here.
    """
    import numpy as np
    from baseten_performance_client import PerformanceClient, RequestProcessingPreference

    client = PerformanceClient(base_url=job.url, api_key=KEY)
    how = RequestProcessingPreference(
        batch_size=job.batch, max_concurrent_requests=job.inflight, max_chars_per_request=1_048_576, timeout_s=120.0
    )
    encoding = "base64" if decode else "float"

    async def embed(texts: Sequence[str]) -> Any:
        found = await client.async_embed(input=list(texts), model="bench", encoding_format=encoding, preference=how)
        if decode is None:
            return found.numpy()
        rows = np.empty((len(texts), job.width), np.float32)
        for place, item in enumerate(found.data):
            rows[place] = np.frombuffer(decode(item.embedding), "<f4")
        return rows

    return embed


def baseten_base64(job: Job) -> Send:
    import base64

    return baseten(job, base64.b64decode)


def baseten_simd(job: Job) -> Send:
    import pybase64

    return baseten(job, lambda text: pybase64.b64decode(text, validate=True))


def catsu(job: Job) -> Send:
    """Rust; its address is fixed, so a proxy's CONNECT sends it here, and always over TLS."""
    from pathlib import Path

    from catsu import Client

    assert job.ca, "catsu speaks TLS only"
    proxy = job.url.replace("https://", "http://")
    client = Client(api_keys={"openai": KEY}, proxy=proxy, ca_cert=Path(job.ca).read_text(), timeout=120)

    async def send(texts: Sequence[str]) -> Any:
        return (await client.aembed("openai:text-embedding-3-small", list(texts))).to_numpy()

    return spread(job, send)


def litellm(job: Job) -> Send:
    import litellm

    litellm.suppress_debug_info = True

    async def send(texts: Sequence[str]) -> list[Any]:
        found = await litellm.aembedding(
            "openai/text-embedding-3-small", input=list(texts), api_base=f"{job.url}/v1", api_key=KEY
        )
        return [item["embedding"] for item in found.data]

    return spread(job, send)


def langchain(job: Job) -> Send:
    from langchain_openai import OpenAIEmbeddings

    client = OpenAIEmbeddings(
        model="bench", base_url=f"{job.url}/v1", api_key=KEY, check_embedding_ctx_length=False, chunk_size=job.batch
    )
    return spread(job, client.aembed_documents)


def pydantic_ai(job: Job) -> Send:
    from pydantic_ai.embeddings import Embedder
    from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIEmbeddingModel("bench", provider=OpenAIProvider(base_url=f"{job.url}/v1", api_key=KEY))
    client = Embedder(model)

    async def send(texts: Sequence[str]) -> Any:
        return (await client.embed_documents(list(texts))).embeddings

    return spread(job, send)


def huggingface_hub(job: Job) -> Send:
    from huggingface_hub import AsyncInferenceClient

    client = AsyncInferenceClient(f"{job.url}/embed", token=KEY)

    async def send(texts: Sequence[str]) -> Any:
        return await client.feature_extraction(list(texts))

    return spread(job, send)


def ollama(job: Job) -> Send:
    from ollama import AsyncClient

    client = AsyncClient(job.url)

    async def send(texts: Sequence[str]) -> Any:
        return (await client.embed("bench", list(texts))).embeddings

    return spread(job, send)


PEERS: dict[str, Peer] = {
    "embedkit": Peer(embedkit, "connect(), base64", ours=True),
    "embedkit-uvloop": Peer(embedkit, "the same under uvloop", ours=True, uvloop=True),
    "embedkit-float": Peer(embedkit_float, "connect(), asked for numbers", ours=True),
    "embedkit-patient": Peer(embedkit_patient, "connect(retry=RetryPolicy(attempts=20))", ours=True),
    "embedkit-coalesce": Peer(embedkit_coalescing, "connect(coalesce=True)", ours=True),
    "embedkit-tei": Peer(embedkit_tei, 'connect("tei:…")', ours=True),
    "embedkit-ollama": Peer(embedkit_ollama, 'connect("ollama:…")', ours=True),
    "aiohttp-tuned": Peer(aiohttp_tuned, "by hand: every knob of aiohttp, msgspec, one matrix, no checks"),
    "aiohttp-tuned-uvloop": Peer(aiohttp_tuned, "the same under uvloop", uvloop=True),
    "aiohttp": Peer(aiohttp_plain, "by hand: semaphore, gather, json, base64"),
    "aiohttp-float": Peer(aiohttp_plain_float, "by hand: semaphore, gather, json, numbers"),
    "httpx": Peer(httpx_plain, "by hand: httpx.AsyncClient, json, base64", share=0.25),
    "baseten": Peer(baseten, "baseten-performance-client, numbers, .numpy()"),
    "baseten-base64": Peer(baseten_base64, "baseten-performance-client, base64, decoded as Python does"),
    "baseten-simd": Peer(baseten_simd, "baseten-performance-client, base64, decoded with pybase64"),
    "openai": Peer(openai, "AsyncOpenAI", share=0.25),
    "openai-aiohttp": Peer(openai_aiohttp, "AsyncOpenAI over openai[aiohttp]", share=0.25),
    "openai-float": Peer(openai_float, "AsyncOpenAI, encoding_format='float'", share=0.05),
    "litellm": Peer(litellm, "litellm.aembedding", share=0.05),
    "langchain": Peer(langchain, "langchain-openai", share=0.25),
    "pydantic-ai": Peer(pydantic_ai, "pydantic-ai-slim", share=0.25),
    "catsu": Peer(catsu, "catsu (TLS only)", share=0.5),
    "huggingface-hub": Peer(huggingface_hub, "huggingface_hub.AsyncInferenceClient", share=0.25),
    "ollama": Peer(ollama, "ollama.AsyncClient", share=0.25),
}

VENV = Path(__file__).parent.parent.parent / "build" / "peers"
# What that environment of the peers holds; embedkit runs in ours.
REQUIREMENTS = (
    "aiohttp", "httpx", "msgspec", "numpy", "pybase64", "uvloop", "baseten-performance-client", "openai[aiohttp]",
    "litellm", "langchain-openai", "pydantic-ai-slim[openai]", "catsu", "huggingface_hub", "ollama",
)  # fmt: skip
