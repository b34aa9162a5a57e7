"""How long until the first vector: a whole cold process, one call
to a server that takes 100 ms. `python -m benchmarks.first_vector`
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import struct
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks._cold import rounds, table

WIDTH, LATENCY = 1536, 0.1
SCRIPTS = {
    "bare Python": "pass",
    "embedkit": """
        import asyncio, embedkit

        async def main():
            async with embedkit.connect("openai:m", api_key="k", base_url=URL) as embedder:
                return await embedder.embed_query("hello", input_type=None)

        vector = asyncio.run(main())
        """,
    "embedkit, sync": """
        import embedkit

        with embedkit.connect_sync("openai:m", api_key="k", base_url=URL) as embedder:
            vector = embedder.embed_query("hello", input_type=None)
        """,
    "aiohttp by hand": """
        import asyncio, base64, json
        import aiohttp
        import numpy as np

        async def main():
            async with aiohttp.ClientSession(headers={"Authorization": "Bearer k"}) as session:
                body = {"model": "m", "input": ["hello"], "encoding_format": "base64"}
                async with session.post(URL + "/embeddings", json=body) as response:
                    data = json.loads(await response.read())
            return np.frombuffer(base64.b64decode(data["data"][0]["embedding"]), np.float32)

        vector = asyncio.run(main())
        """,
    "baseten": """
        from baseten_performance_client import PerformanceClient

        client = PerformanceClient(base_url=URL.removesuffix("/v1"), api_key="k")
        vector = client.embed(input=["hello"], model="m").numpy()[0]
        """,
    "openai": """
        import openai
        import numpy as np

        client = openai.OpenAI(base_url=URL, api_key="k")
        vector = np.array(client.embeddings.create(input=["hello"], model="m").data[0].embedding, np.float32)
        """,
}
CHECK = f"\nassert vector.shape == ({WIDTH},) and abs(float(vector[0]) - 0.5) < 1e-6, vector\n"


@contextmanager
def server() -> Iterator[str]:
    """An OpenAI-compatible server on loopback that answers after
    `LATENCY` seconds, as asked in base64 or in numbers; its base URL.
    """
    vector = [0.5, *(random.Random(1).uniform(-1, 1) for _ in range(WIDTH - 1))]
    packed = base64.b64encode(struct.pack(f"<{WIDTH}f", *vector)).decode()
    loop = asyncio.new_event_loop()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                size = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
                asked = json.loads(await reader.readexactly(size))
                await asyncio.sleep(LATENCY)
                embedding = packed if asked.get("encoding_format") == "base64" else vector
                data = [{"object": "embedding", "index": 0, "embedding": embedding}]
                usage = {"prompt_tokens": 1, "total_tokens": 1}
                body = json.dumps({"object": "list", "model": "m", "data": data, "usage": usage}).encode()
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
                writer.write(head + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    listening = loop.run_until_complete(asyncio.start_server(speak, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_vector", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    with server() as url:
        scripts = {
            name: script if script == "pass" else f"URL = {url!r}\n{textwrap.dedent(script)}{CHECK}"
            for name, script in SCRIPTS.items()
        }
        print(table(rounds(scripts, options.rounds), base="bare Python", than="aiohttp by hand"))


if __name__ == "__main__":
    main()
