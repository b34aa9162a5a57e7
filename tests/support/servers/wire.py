"""Small servers on loopback that say exactly the bytes they are told to. None answers anything of its own accord.

`serving` runs one in the test's own event loop, a coroutine for each connection; `Threaded` runs
one in threads, for what has to happen while that loop is busy, closed, or in another process;
`proxying` is an HTTP proxy that knows its own names.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

PATIENCE = 10.0  # seconds after which something will never happen


@dataclass
class Seen:
    """A request as it arrived. Header names are lower-case."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def count(self) -> int:
        """How many texts it holds."""
        return len(json.loads(self.body)["input"])


def parsed(head: bytes) -> tuple[str, dict[str, str]]:
    """The first line of a head, and its headers."""
    line, *rest = head.decode("latin-1").split("\r\n")
    pairs = (each.split(":", 1) for each in rest if each)
    return line, {name.lower(): value.strip() for name, value in pairs}


def reply(body: Any = None, status: str = "200 OK", *, count: int = 1, **headers: str) -> bytes:
    """A whole answer: `count` vectors unless told otherwise; bytes as they are, anything else as JSON."""
    if body is None:
        body = {"data": [{"index": row, "embedding": [1.0, float(row)]} for row in range(count)]}
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"content-length": str(len(raw)), **{name.replace("_", "-"): value for name, value in headers.items()}}
    return (
        f"HTTP/1.1 {status}\r\n".encode()
        + b"".join(f"{name}: {value}\r\n".encode() for name, value in named.items())
        + b"\r\n"
        + raw
    )


@dataclass
class Server:
    """What a server has seen so far."""

    url: str = ""
    requests: list[Seen] = field(default_factory=list)
    opened: int = 0
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    failures: list[Exception] = field(default_factory=list)

    async def deserted(self) -> None:
        """Wait until every client has hung up."""
        async with asyncio.timeout(PATIENCE):
            while running := [task for task in self.tasks if not task.done()]:
                await asyncio.wait(running)


@dataclass
class Talk:
    """One connection, from the server's side."""

    server: Server
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> Seen:
        """The next request, whole."""
        line, headers = parsed((await self.reader.readuntil(b"\r\n\r\n"))[:-4])
        seen = Seen(line, headers, await self.reader.readexactly(int(headers.get("content-length", "0"))))
        self.server.requests.append(seen)
        return seen

    async def say(self, *pieces: bytes) -> None:
        """Send each piece, in a packet of its own as far as that can be had."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def over(self) -> None:
        """Wait until the client hangs up."""
        while await self.reader.read(65536):
            pass

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Speak = Callable[[Talk], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(speak: Speak, *, context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """A server whose every connection is `speak(talk)`, and is closed when that returns."""
    server = Server()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        server.tasks.add(task)
        server.opened += 1
        try:
            await speak(Talk(server, reader, writer))
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has left, or the test has
        except Exception as error:
            server.failures.append(error)
        finally:
            writer.close()

    listener = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    scheme = "http" if context is None else "https"
    server.url = f"{scheme}://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        listener.close()
        for task in server.tasks:
            task.cancel()
        await asyncio.gather(*server.tasks, return_exceptions=True)
    if server.failures:
        raise server.failures[0]


async def polite(talk: Talk) -> None:
    """Answers every request with a vector for each text, and lets the client hang up."""
    while True:
        await talk.say(reply(count=(await talk.request()).count))


def saying(*answers: bytes) -> Speak:
    """Answers the server's first request with the first of these,
    and so on; after each connection's last, waits for the client.
    """
    left = list(answers)

    async def speak(talk: Talk) -> None:
        while True:
            await talk.request()
            await talk.say(left.pop(0))

    return speak


def then(*turns: Speak) -> Speak:
    """The first connection is the first of these, and so on."""
    left = list(turns)

    async def speak(talk: Talk) -> None:
        await left.pop(0)(talk)

    return speak


# --- a proxy ---------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def proxying(
    names: Mapping[str, str], *, user: str = "", status: str = "", context: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    """An HTTP proxy that takes each name to a server's URL. `user`
    is the "user:password" it wants, `status` how it answers instead.
    """

    async def speak(talk: Talk) -> None:
        head = await talk.reader.readuntil(b"\r\n\r\n")
        line, headers = parsed(head[:-4])
        talk.server.requests.append(Seen(line, headers, b""))
        wanted = "Basic " + base64.b64encode(user.encode()).decode()
        if status or (user and headers.get("proxy-authorization") != wanted):
            await talk.say(reply(b"the proxy says no", status or "407 Proxy Authentication Required"))
            return
        method, address, _ = line.split(" ")
        place = address if method == "CONNECT" else address.split("/")[2]
        host, _, port = names[place.partition(":")[0]].split("/")[2].partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        if method == "CONNECT":
            await talk.say(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            writer.write(head)
        try:
            await asyncio.gather(_carry(talk.reader, writer), _carry(reader, talk.writer))
        finally:
            writer.close()

    async with serving(speak, context=context) as server:
        server.url = server.url.removesuffix("/v1")
        yield server


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        writer.write_eof() if writer.can_write_eof() else writer.close()


# --- in threads ------------------------------------------------------------------------------------------------------


class Threaded:
    """A server of its own threads: `speak(connection, server)` for each connection, which is closed when that returns.

    Attributes:
        url: its base URL.
        opened, closed: connections so far.
        gone: set when a connection has been closed.
    """

    def __init__(
        self, speak: Callable[[socket.socket, Threaded], None] | None = None, context: ssl.SSLContext | None = None
    ) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"{'http' if context is None else 'https'}://127.0.0.1:{self.listener.getsockname()[1]}/v1"
        self.opened = self.closed = 0
        self.gone = threading.Event()
        self._speak = speak or answering
        self._context = context
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                connection, _ = self.listener.accept()
                self.opened += 1
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the client has left
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            with connection:
                self._speak(connection, self)
        self.closed += 1
        self.gone.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def heard(connection: socket.socket) -> Seen | None:
    """The next request on a blocking socket; None where the client has hung up."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (got := connection.recv(65536)):
            return None
        data += got
    head, _, body = data.partition(b"\r\n\r\n")
    line, headers = parsed(head)
    while len(body) < int(headers.get("content-length", "0")):
        body += connection.recv(65536)
    return Seen(line, headers, body)


def answering(connection: socket.socket, server: Threaded) -> None:
    """Answers every request with a vector for each text."""
    while (seen := heard(connection)) is not None:
        connection.sendall(reply(count=seen.count))
