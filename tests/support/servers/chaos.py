"""A real embeddings server behind a proxy that breaks connections:
everything a network and a provider get wrong, by a seed.

The server (aiohttp) speaks OpenAI's dialect and answers a vector that tells texts apart. It refuses in storms, shuffles
its rows, and now and then breaks the contract of a reply. The proxy reads whole messages and passes them on, or resets,
cuts off, stalls, or lets bytes trickle. Nothing here waits for a clock.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

CURED = (
    "429",
    "500",
    "503",
    "shuffled",
    "reset",
    "reset in the body",
    "cut off",
    "trickle",
)  # a client has to get over these
BROKEN = ("twice", "short", "long", "nan", "odd bytes", "null", "not json")  # replies that must never be believed
# seconds, in which every request is refused; by 429 only once, since a client that hears it again and again slows down
STORM = 0.02
CALM = 60  # messages before anything goes wrong but stalls
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close at once, with RST


def vector(text: str) -> list[float]:
    """The vector of "… 123": exact in float32, and different for every number below a million."""
    number = int(text.rpartition(" ")[2]) if text.rpartition(" ")[2].isdigit() else 0
    return [1.0, float(number % 1000), float(number // 1000), 0.5]


class Chaos:
    """What goes wrong, how often, and what has gone wrong so far (`done`).

    Args:
        seed: of everything random.
        share: of the messages something happens to.
        faults: what may happen.
        stalls: so many messages in all are never answered.
    """

    def __init__(self, seed: int, *, share: float, faults: tuple[str, ...] = CURED, stalls: int = 0) -> None:
        self.random = random.Random(seed)
        self.share, self.faults, self.stalls = share, faults, stalls
        self.done: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()  # texts
        self.requests = 0
        self.url = ""
        self.relays: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._storm, self._until = "", 0.0

    def draw(self, *kinds: str) -> str:
        """What happens to the next message, of these kinds; empty: nothing."""
        now = asyncio.get_running_loop().time()
        if self._storm in kinds and now < self._until:
            return self._count(self._storm)
        if "stall" in kinds and self.stalls and self.done["passed"] > CALM // 2:
            self.stalls -= 1
            return self._count("stall")
        able = [fault for fault in self.faults if fault in kinds and (fault != "429" or not self.done[fault])]
        if not able or self.done["passed"] < CALM or self.random.random() >= self.share:
            self.done["passed"] += 1
            return ""
        fault = self.random.choice(able)
        if fault in ("429", "503"):
            self._storm, self._until = fault, now + STORM
        return self._count(fault)

    def _count(self, fault: str) -> str:
        self.done[fault] += 1
        return fault

    # --- the server ------------------------------------------------------------------------------------------------------

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        texts: list[str] = body["input"]
        self.asked.update(texts)
        self.requests += 1
        fault = self.draw("429", "500", "503", "shuffled", *BROKEN)
        if fault == "429":
            return _error(429, "Rate limit reached", {"retry-after-ms": "2"})
        if fault in ("500", "503"):
            return _error(int(fault), "the server had an error")
        if "dimensions" in body:
            return _error(400, "this model has no dimensions")
        if any("bad" in text for text in texts):
            return _error(400, "one of these is not accepted")
        items = [self.item(vector(text), place) for place, text in enumerate(texts)]
        return web.json_response(text=self.broken(fault, items))

    def item(self, values: list[float], place: int) -> dict[str, Any]:
        packed = base64.b64encode(struct.pack("<4f", *values)).decode()
        return {"object": "embedding", "index": place, "embedding": packed if self.random.random() < 0.9 else values}

    def broken(self, fault: str, items: list[dict[str, Any]]) -> str:
        victim = self.random.choice(items)
        if fault == "shuffled":
            self.random.shuffle(items)
        elif fault == "twice":
            items.append({**victim})
        elif fault == "short":
            items.remove(victim)
        elif fault == "long":
            items.append({**victim, "index": len(items)})
        elif fault == "nan":
            victim["embedding"] = [1.0, float("nan"), 0.0, 0.0]
        elif fault == "odd bytes":
            victim["embedding"] = base64.b64encode(b"12345678").decode()
        elif fault == "null":
            victim["embedding"] = None
        text = json.dumps({"object": "list", "data": items, "model": "m", "usage": {"prompt_tokens": len(items)}})
        return text[: len(text) // 2] if fault == "not json" else text

    # --- the proxy -------------------------------------------------------------------------------------------------------

    def accept(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A client has connected."""
        relay = asyncio.get_running_loop().create_task(self.relay(port, reader, writer))
        self.relays[relay] = writer
        relay.add_done_callback(self.relays.pop)

    async def relay(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: request after request to the server at `port`, and the responses back, as they fare."""
        ends = [writer]
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                up, down = await asyncio.open_connection("127.0.0.1", port)
                ends.append(down)
                while await self.exchange(reader, writer, up, down):
                    pass
        finally:
            for each in ends:
                each.transport.abort()

    async def exchange(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up: asyncio.StreamReader,
        down: asyncio.StreamWriter,
    ) -> bool:
        """One message there and back. True while the connection may live on."""
        request = await _message(reader)
        fault = self.draw("reset", "reset in the body", "cut off", "trickle", "stall")
        if fault == "reset":
            return _reset(writer)
        down.write(request)
        response = await _message(up)
        if fault == "stall":
            await reader.read()  # until the client has had enough
            return False
        if fault == "trickle":
            for start in range(0, len(response), 97):
                writer.write(response[start : start + 97])
                await writer.drain()
                await asyncio.sleep(0)
            return True
        writer.write(
            response
            if fault not in ("reset in the body", "cut off")
            else response[: self.random.randrange(len(response))]
        )
        await writer.drain()
        if fault == "reset in the body":
            return _reset(writer)
        if fault == "cut off":
            writer.close()
            await writer.wait_closed()
        return fault != "cut off"


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": {"message": message, "code": None}}, status=status, headers=headers)


def _reset(writer: asyncio.StreamWriter) -> bool:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
    return False


async def _message(reader: asyncio.StreamReader) -> bytes:
    """One HTTP message with a Content-Length."""
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    return head + await reader.readexactly(int(fields.get(b"content-length", b"0")))


@contextlib.asynccontextmanager
async def serving(chaos: Chaos) -> AsyncIterator[Chaos]:
    """The server and its proxy on ports of their own; `chaos.url`
    is where to ask. Asserts in the end that no client is left.
    """
    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/embeddings", chaos.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    proxy = await asyncio.start_server(
        lambda reader, writer: chaos.accept(port, reader, writer), "127.0.0.1", 0, limit=2**26
    )
    chaos.url = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}/v1"
    try:
        yield chaos
        for _ in range(1000):  # what the clients have closed is seen a little later
            if not chaos.relays:
                break
            await asyncio.sleep(0.005)
        assert not chaos.relays, f"{len(chaos.relays)} connections were left open"
    finally:
        proxy.close()
        await asyncio.sleep(0.01)  # for those who were about to connect
        for relay, writer in list(chaos.relays.items()):
            relay.cancel()
            writer.transport.abort()
        await asyncio.sleep(0.01)
        await proxy.wait_closed()
        await runner.cleanup()
