"""The exchange over real sockets: broken bytes, slow bytes, TLS, proxies, forks and loops that end. Nothing here leaves
this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import inspect
import json
import os
import pickle
import socket
import ssl
import threading
import time
import zlib
from contextlib import aclosing
from datetime import UTC, datetime
from urllib.parse import quote

import aiohttp
import anyio
import numpy as np
import pytest
import trustme

import embedkit
from embedkit import (
    ApiError,
    AuthError,
    ConfigError,
    DecodeError,
    EmbedkitError,
    RateLimitError,
    RetryPolicy,
    ServerError,
    TransportError,
    TransportTimeoutError,
)
from embedkit._http import aiohttp_errors
from embedkit._http import aiohttp_exchange as http
from embedkit._http.aiohttp_exchange import AiohttpExchange
from embedkit._http.settings import HttpSettings
from embedkit._types import Request
from embedkit.events import RequestSent, RetryScheduled
from embedkit.testing import FakeExchange, response
from tests.support.servers.wire import (
    PATIENCE,
    Threaded,
    answering,
    heard,
    polite,
    proxying,
    reply,
    saying,
    serving,
    then,
)
from tests.sync.test_sync import run

pytestmark = pytest.mark.anyio
ONCE = RetryPolicy(attempts=1)
AGAIN = RetryPolicy(initial=0.0)  # at once
KEY = "sk-of-this-test"
NOWHERE = ".".join(["n" * 63] * 5)  # a host name longer than DNS has them: refused without asking anyone
SLOW = 0.05  # seconds that something which never comes is waited for


def connect(url, **settings):
    """An embedder that tries once."""
    return embedkit.connect("compatible:m", **{"base_url": url, "retry": ONCE, **settings})


async def raised(url, kind, **settings):
    """The error of embedding one text there."""
    async with connect(url, **settings) as embedder:
        with pytest.raises(kind) as caught:
            await embedder.embed(["a"])
    assert type(caught.value) is kind
    return caught.value


async def closed_port():
    """A URL where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


# --- what goes out ---------------------------------------------------------------------------------------------------


async def test_a_request_on_the_wire():
    """A request is one POST with a length, the key, JSON both ways and our name; no cookie, and on loopback no wish for
    compression.
    """
    async with serving(polite) as server, connect(server.url, api_key=KEY) as embedder:
        result = await embedder.embed(["a", "b"])

    [seen] = server.requests
    assert result.vectors.tolist() == [[1, 0], [1, 1]]
    assert seen.line == "POST /v1/embeddings HTTP/1.1"
    assert seen.headers == {
        "host": server.url.split("/")[2], "user-agent": "embedkit", "accept-encoding": "identity", "content-type": "application/json",
        "accept": "application/json", "authorization": f"Bearer {KEY}", "content-length": str(len(seen.body)),
    }  # fmt: skip
    assert json.loads(seen.body)["input"] == ["a", "b"]


async def test_headers_of_the_caller_win():
    """`headers=` adds to every request and replaces what embedkit would say."""
    mine = {"X-Mine": "1", "User-Agent": "mine", "Accept-Encoding": "gzip"}
    async with serving(polite) as server, connect(server.url, headers=mine) as embedder:
        await embedder.embed(["a"])

    sent = server.requests[0].headers
    assert (sent["x-mine"], sent["user-agent"], sent["accept-encoding"]) == ("1", "mine", "gzip")


@pytest.mark.parametrize("size", [10, 2**20 - 100, 2**20 + 1, 5_000_000])
async def test_a_body_of_any_size(size):
    """A large body arrives whole, with its length and in no chunks, and nothing warns of it."""
    async with serving(polite) as server, connect(server.url) as embedder:
        await embedder.embed(["x" * size])

    [seen] = server.requests
    assert "transfer-encoding" not in seen.headers
    assert len(json.loads(seen.body)["input"][0]) == size


@pytest.mark.parametrize("bad", ["a\nb", "a\r\nx-evil: 1"])
async def test_a_header_that_cannot_be_sent(bad):
    """A line break in a header never reaches the wire; the error names the header and not its value."""
    async with serving(polite) as server:
        exchange = AiohttpExchange(HttpSettings())
        with pytest.raises(ConfigError, match="x-mine") as caught:
            await exchange(Request(server.url, b"{}", {"x-mine": bad}))
        await exchange.aclose()

    assert server.requests == []
    assert bad not in str(caught.value)


@pytest.mark.parametrize("url", ["http://h:99999/v1", f"http://{'a' * 64}.test/v1", "http://[::1/v1", "http://"])
async def test_a_url_that_is_none(url):
    """What cannot be called is a ConfigError of ours, whatever the URL parser thinks of it."""
    exchange = AiohttpExchange(HttpSettings())
    with pytest.raises(ConfigError, match="not a URL"):
        await exchange(Request(url, b"{}"))
    await exchange.aclose()


# --- what comes back -------------------------------------------------------------------------------------------------

GOOD = reply()
HEAD, _, BODY = GOOD.partition(b"\r\n\r\n")
ODD = {
    "in single bytes": [bytes([each]) for each in GOOD],
    "chunked": [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"5\r\n" + BODY[:5] + b"\r\n",
                b"%x;name=value\r\n" % len(BODY[5:]) + BODY[5:] + b"\r\n", b"0\r\ntrailer: x\r\n\r\n"],
    "HTTP/1.0": [GOOD.replace(b"1.1", b"1.0")],
    "after hints": [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", GOOD],
    "without a reason": [GOOD.replace(b"200 OK", b"200")],
    "with a folded header": [HEAD, b"\r\nx-folded: a\r\n b\r\n\r\n", BODY],
    "with a header that is no ASCII": [HEAD, b"\r\nx-a: caf\xe9 \xff\r\n\r\n", BODY],
    "with a long header": [HEAD, b"\r\ncontent-security-policy: " + b"a" * 60_000 + b"\r\n\r\n", BODY],
    "with a header twice": [HEAD, b"\r\nx-a: 1\r\nx-a: 2\r\n\r\n", BODY],
    "with a type of its own": [HEAD, b"\r\ncontent-type: text/plain; charset=klingon\r\n\r\n", BODY],
    "in capitals": [HEAD.replace(b"content-length", b"CONTENT-LENGTH"), b"\r\n\r\n", BODY],
    "with an unknown compression": [HEAD, b"\r\ncontent-encoding: none\r\n\r\n", BODY],
}  # fmt: skip


@pytest.mark.parametrize("pieces", ODD.values(), ids=ODD)
async def test_odd_answers_are_read(pieces):
    """However a server words and cuts its answer, the vectors are in it."""

    async def odd(talk):
        await talk.request()
        await talk.say(*pieces)
        await talk.over()

    async with serving(odd) as server, connect(server.url) as embedder:
        result = await embedder.embed(["a"])

    assert result.vectors.tolist() == [[1, 0]]


async def test_an_answer_that_ends_with_the_connection():
    """HTTP/1.0 without a length: the body is what comes until the server hangs up."""

    async def old(talk):
        await talk.request()
        await talk.say(b"HTTP/1.0 200 OK\r\n\r\n", BODY[:9], BODY[9:])

    async with serving(old) as server, connect(server.url) as embedder:
        assert (await embedder.embed(["a"])).vectors.tolist() == [[1, 0]]
        assert (await embedder.embed(["b"])).vectors.tolist() == [[1, 0]]

    assert server.opened == 2


def cut(*pieces):
    async def speak(talk):
        await talk.request()
        await talk.say(*pieces)

    return speak


async def reset(talk):
    await talk.request()
    talk.reset()


async def reset_amid(talk):
    await talk.request()
    await talk.say(GOOD[:-5])
    talk.reset()


async def no_chunk(talk):
    """In a piece of its own, and without hanging up: aiohttp would wait for more."""
    await talk.request()
    await talk.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n")
    await asyncio.sleep(SLOW)
    await talk.say(b"<html>Bad Gateway</html>")
    await talk.reader.read()


async def unread(talk):
    """Hangs up before it has read the request."""


CUT = {
    "before the status": cut(),
    "in the status": cut(b"HTTP/1."),
    "after the status": cut(b"HTTP/1.1 200 OK\r\n"),
    "in a header": cut(b"HTTP/1.1 200 OK\r\ncontent-le"),
    "after the headers": cut(HEAD + b"\r\n\r\n"),
    "in the body": cut(GOOD[:-5]),
    "in a chunk": cut(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc"),
    "between chunks": cut(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n"),
    "by a chunk that is none": no_chunk,
    "by a first chunk that is none": cut(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc"),
    "in a gzip": cut(reply(gzip.compress(BODY * 99), content_encoding="gzip")[:-30]),
    "by a reset": reset,
    "by a reset in the body": reset_amid,
    "unread": unread,
}


@pytest.mark.parametrize("broken", CUT.values(), ids=CUT)
async def test_a_connection_that_breaks_is_tried_again(broken):
    """Wherever an answer breaks off, it is a TransportError that names the address and is worth another try, which then
    succeeds.
    """
    async with serving(then(broken, broken, polite)) as server:
        error = await raised(server.url, TransportError)
        async with connect(server.url, retry=AGAIN) as embedder:
            result = await embedder.embed(["a"])

    assert error.retryable
    assert server.url.removesuffix("/v1") in str(error)
    assert result.vectors.tolist() == [[1, 0]]
    assert result.usage.requests == 2


NOT_HTTP = {
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "TLS": bytes.fromhex("15030300020246"),
    "an echo": b"POST /v1/embeddings HTTP/1.1\r\nauthorization: Bearer " + KEY.encode() + b"\r\n\r\n",
}
NO_HEADERS = {
    "a header that is none": b"HTTP/1.1 200 OK\r\nauthorization Bearer " + KEY.encode() + b"\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n",
}


@pytest.mark.parametrize(
    ("bytes_", "says"),
    [(each, "does not speak HTTP") for each in NOT_HTTP.values()]
    + [(each, "headers that are no HTTP") for each in NO_HEADERS.values()],
    ids=[*NOT_HTTP, *NO_HEADERS],
)
async def test_what_is_not_http_is_not_tried_again(bytes_, says):
    """A server of another kind is named as that at once, and nothing of what it said is quoted."""
    async with serving(cut(bytes_)) as server:
        error = await raised(server.url, TransportError, retry=AGAIN, api_key=KEY)

    assert server.opened == 1
    assert says in str(error)
    assert KEY not in str(error)


LONG = {
    "one": b"x-key: " + KEY.encode() * 10_000 + b"\r\n",
    "many": b"".join(b"x-%d: %s\r\n" % (number, KEY.encode()) for number in range(5_000)),
}


@pytest.mark.parametrize("headers", LONG.values(), ids=LONG)
async def test_headers_that_are_too_long_are_named(headers):
    """As what they are, not as another protocol: the address is right. None is quoted."""
    async with serving(cut(b"HTTP/1.1 200 OK\r\n" + headers + b"content-length: 0\r\n\r\n")) as server:
        error = await raised(server.url, TransportError, retry=AGAIN, api_key=KEY)

    assert "headers that are too long" in str(error)
    assert not error.retryable
    assert KEY not in str(error)


@pytest.mark.parametrize(
    "status", ["204 No Content", "205 Reset Content", "304 Not Modified", "401 Unauthorized", "503 Busy"]
)
async def test_a_status_without_a_body(status):
    """No body is read where there is none: a success without one is a DecodeError, a refusal the error of its
    status.
    """
    answer = f"HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n".encode()
    async with serving(saying(answer)) as server, connect(server.url) as embedder:
        with pytest.raises(EmbedkitError) as caught:
            await embedder.embed(["a"])

    kind = {"2": DecodeError, "3": ApiError, "4": AuthError, "5": ServerError}[status[0]]
    assert type(caught.value) is kind
    assert kind is DecodeError or f"status {status[:3]}" in str(caught.value)


@pytest.mark.parametrize("broken", ["length", "chunk", "gzip", "stall"])
@pytest.mark.parametrize(("status", "kind"), [("401 Unauthorized", AuthError), ("503 Busy", ServerError)])
async def test_a_refusal_whose_body_breaks_off_is_still_a_refusal(status, kind, broken):
    """The status of a refusal counts, whatever becomes of its body."""

    async def refuse(talk):
        await talk.request()
        if broken == "chunk":
            await talk.say(f"HTTP/1.1 {status}\r\ntransfer-encoding: chunked\r\n\r\n9\r\nno, ".encode())
        elif broken == "gzip":
            await talk.say(reply(b"no gzip", status, content_encoding="gzip"))
        else:
            await talk.say(f"HTTP/1.1 {status}\r\ncontent-length: 99\r\n\r\nno, ".encode())
        if broken == "stall":
            await talk.over()

    async with serving(refuse) as server:
        error = await raised(server.url, kind, read_timeout=SLOW)

    assert error.status == int(status[:3])
    assert error.message == "no," or broken == "gzip"


# --- retries, on the wire --------------------------------------------------------------------------------------------


async def test_a_429_is_waited_out():
    """A 429 with Retry-After, then vectors: the hint is kept to, and both requests are counted."""
    events = []
    slow = reply({}, "429 Slow down", retry_after="0.001")
    async with (
        serving(saying(slow, reply())) as server,
        connect(server.url, retry=AGAIN, observe=events.append) as embedder,
    ):
        result = await embedder.embed(["a"])

    [again] = [event for event in events if isinstance(event, RetryScheduled)]
    assert result.usage.requests == 2
    assert isinstance(again.error, RateLimitError)
    assert 0.001 <= again.wait <= 0.0011
    assert [event.attempt for event in events if isinstance(event, RequestSent)] == [1, 2]


async def test_a_storm_of_503_passes():
    """503 after 503, and then vectors for everyone: no text is lost, and every request is counted."""
    refusals = 20

    async def stormy(talk):
        nonlocal refusals
        while True:
            seen = await talk.request()
            refusals -= 1
            await talk.say(reply(count=seen.count) if refusals < 0 else reply({}, "503 Busy"))

    patient = RetryPolicy(attempts=30, initial=0.0)
    async with (
        serving(stormy) as server,
        connect(server.url, retry=patient, limits=embedkit.Limits(max_texts=1)) as embedder,
    ):
        result = await embedder.embed([str(number) for number in range(30)])

    assert result.vectors.shape == (30, 2)
    assert not np.isnan(result.vectors).any()
    assert result.usage.requests == len(server.requests) == 50


async def test_a_storm_of_503_that_does_not_pass():
    """After the last attempt the error is that of the server, and no further request goes out."""
    async with serving(saying(*[reply({"error": "busy"}, "503 Busy")] * 9)) as server:
        error = await raised(server.url, ServerError, retry=RetryPolicy(attempts=4, initial=0.0))

    assert len(server.requests) == 4
    assert (error.status, error.message) == (503, "busy")


# --- redirects, cookies, netrc ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_of_the_post_is_not_followed(status):
    """Wherever a redirect points, the texts and the key stay here; the message names the address and the way out."""
    async with serving(polite) as other, serving(saying(reply({}, f"{status} Moved", location=other.url))) as server:
        error = await raised(server.url, ApiError, api_key=KEY)

    assert other.opened == 0
    assert (error.status, error.retryable) == (status, False)
    assert other.url in str(error)
    assert "base_url" in str(error)


async def test_a_304_is_no_redirect():
    """A 3xx that points nowhere is not called a redirect."""
    async with serving(saying(b"HTTP/1.1 304 Not Modified\r\n\r\n")) as server:
        assert "redirect" not in str(await raised(server.url, ApiError))


async def test_cookies_are_not_kept():
    """What a server wants remembered is forgotten."""
    cookie = "session=1; Path=/; Domain=127.0.0.1"
    async with serving(saying(reply(set_cookie=cookie), reply())) as server, connect(server.url) as embedder:
        await embedder.embed(["a"])
        await embedder.embed(["b"])

    assert [request.headers.get("cookie") for request in server.requests] == [None, None]


async def test_netrc_is_never_read(tmp_path, monkeypatch):
    """A password for this host in ~/.netrc stays there."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\ndefault login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    async with serving(polite) as server, connect(server.url) as embedder:
        await embedder.embed(["a"])

    assert "authorization" not in server.requests[0].headers


# --- compression and size --------------------------------------------------------------------------------------------


def deflated(data):
    """Deflate without the header of zlib, as some servers send it."""
    maker = zlib.compressobj(wbits=-15)
    return maker.compress(data) + maker.flush()


PACKED = {"gzip": (gzip.compress, "gzip"), "zlib": (zlib.compress, "deflate"), "deflate": (deflated, "deflate")}


@pytest.mark.parametrize(("pack", "name"), PACKED.values(), ids=PACKED)
async def test_a_compressed_answer_is_unpacked(pack, name):
    """An answer is unpacked whether compression was asked for or not."""
    async with serving(saying(reply(pack(BODY), content_encoding=name))) as server, connect(server.url) as embedder:
        assert (await embedder.embed(["a"])).vectors.tolist() == [[1, 0]]


UNPACKABLE = {"no gzip": (BODY, "gzip"), "no deflate": (b"\xff" * 30, "deflate"), "no brotli": (BODY, "br")}


@pytest.mark.parametrize(("body", "name"), UNPACKABLE.values(), ids=UNPACKABLE)
async def test_what_cannot_be_unpacked_is_a_decode_error(body, name):
    """A broken or unknown compression is named with the way out, and not asked for again."""
    async with serving(saying(reply(body, content_encoding=name))) as server:
        error = await raised(server.url, DecodeError, retry=AGAIN)

    assert len(server.requests) == 1
    assert "accept-encoding" in str(error)


async def test_brotli_where_it_is_installed():
    """With brotli installed, aiohttp unpacks it."""
    brotli = pytest.importorskip("brotli")
    answer = reply(brotli.compress(BODY), content_encoding="br")
    async with serving(saying(answer)) as server, connect(server.url) as embedder:
        assert (await embedder.embed(["a"])).vectors.tolist() == [[1, 0]]


CAP = 100_000
TOO_BIG = {
    "a bomb": reply(
        gzip.compress(gzip.compress(b" " * 50_000_000)) and gzip.compress(b" " * 50_000_000), content_encoding="gzip"
    ),
    "one byte too many": reply(b" " * (CAP + 1)),
    "chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + (b"ffff\r\n" + b" " * 65535 + b"\r\n") * 9,
    "without a length": b"HTTP/1.0 200 OK\r\n\r\n" + b" " * (CAP + 1),
}


@pytest.mark.parametrize("answer", TOO_BIG.values(), ids=TOO_BIG)
async def test_an_answer_beyond_the_cap(answer):
    """More bytes than `max_response_bytes`, counted after decompression: a DecodeError with the figure, not tried
    again, and we hang up.
    """
    async with serving(saying(answer)) as server:
        error = await raised(server.url, DecodeError, retry=AGAIN, max_response_bytes=CAP)
        await server.deserted()

    assert len(server.requests) == 1
    assert f"{CAP} bytes; raise max_response_bytes" in str(error)


@pytest.mark.parametrize("packed", [False, True])
async def test_an_answer_up_to_the_cap(packed):
    """Exactly `max_response_bytes` is not too much."""
    body = gzip.compress(BODY) if packed else BODY
    answer = reply(body, content_encoding="gzip" if packed else "identity")
    async with serving(saying(answer)) as server, connect(server.url, max_response_bytes=len(BODY)) as embedder:
        assert (await embedder.embed(["a"])).vectors.tolist() == [[1, 0]]


# --- time ------------------------------------------------------------------------------------------------------------


async def silent(talk):
    await talk.over()


async def stuck(talk):
    await talk.request()
    await talk.say(GOOD[:-5])
    await talk.over()


@pytest.mark.parametrize("slow", [silent, stuck], ids=["before", "amid"])
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"timeout": SLOW}, f"did not answer within {SLOW} s; raise timeout="),
        ({"read_timeout": SLOW}, f"did not send anything for {SLOW} s; raise read_timeout="),
    ],
    ids=["total", "read"],
)
async def test_a_server_that_says_no_more(slow, settings, says):
    """The error names the limit that was reached, its figure and its keyword; the server sees us hang up."""
    async with serving(slow) as server:
        error = await raised(server.url, TransportTimeoutError, **settings)
        await server.deserted()

    assert error.retryable
    assert isinstance(error, TimeoutError)
    assert error.sent
    assert f"{server.url.removesuffix('/v1')} {says}" in str(error)


async def test_a_server_that_says_a_little_now_and_then():
    """Bytes that keep coming satisfy `read_timeout`, not `timeout`."""

    async def drip(talk):
        await talk.request()
        await talk.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            await talk.say(b"1\r\n \r\n")
            await asyncio.sleep(SLOW / 20)

    async with serving(drip) as server:
        error = await raised(server.url, TransportTimeoutError, timeout=4 * SLOW, read_timeout=PATIENCE)

    assert "raise timeout=" in str(error)


async def test_a_handshake_that_never_ends():
    """`connect_timeout` covers TLS too."""
    async with serving(silent) as server:
        error = await raised(server.url.replace("http:", "https:"), TransportTimeoutError, connect_timeout=SLOW)

    assert f"did not connect within {SLOW} s; raise connect_timeout=" in str(error)
    assert not error.sent


# --- connecting ------------------------------------------------------------------------------------------------------


async def test_nothing_listens():
    """A refused connection names the address, and what the host's row says of it."""
    url = await closed_port()
    async with embedkit.connect("ollama:m", base_url=url, retry=ONCE) as embedder:
        with pytest.raises(TransportError) as caught:
            await embedder.embed(["a"])

    assert caught.value.retryable
    assert f"cannot connect to {url}: Connection refused (" in str(caught.value)
    assert "ollama serve" in str(caught.value)


async def test_a_name_that_cannot_be_resolved():
    """A host name that nobody knows is named, and worth another try: the network may be down."""
    error = await raised(f"http://{NOWHERE}/v1", TransportError)

    assert error.retryable
    assert f"{NOWHERE!r} cannot be resolved" in str(error)


async def test_a_name_that_is_not_resolved_in_time(monkeypatch):
    """The timeout says that nothing was connected to, and no smaller batch is sent."""
    asked = []

    def slow(*args, **keywords):
        asked.append(args)
        time.sleep(4 * SLOW)
        raise socket.gaierror(socket.EAI_AGAIN, "")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    async with connect("http://embeddings.example/v1", timeout=SLOW) as embedder:
        with pytest.raises(TransportTimeoutError, match=r"did not connect within 0\.05 s; raise timeout=") as caught:
            await embedder.embed(["a", "b"])

    assert not caught.value.sent
    assert len(asked) == 1


async def test_an_ipv6_address_is_named_as_one():
    """The brackets of an IPv6 address stay on in a message."""
    assert "http://[::1]:1:" in str(await raised("http://[::1]:1/v1", TransportError))


# --- an answer before the request is through -------------------------------------------------------------------------


@pytest.mark.parametrize("length", ["content-length: 23\r\n", ""], ids=["with a length", "without"])
@pytest.mark.parametrize("size", [100_000, 500_000, 5_000_000])
async def test_a_refusal_that_comes_while_the_body_is_still_going_out(size, length):
    """llama.cpp answers 401 after the headers and hangs up: the refusal is seen, not the reset that follows it."""

    def refuse(connection, server):
        connection.recv(1000)
        connection.sendall(f'HTTP/1.1 401 No\r\nconnection: close\r\n{length}\r\n{{"error":"no such key"}}'.encode())

    with Threaded(refuse) as server:
        for _ in range(3):
            error = await raised(server.url, AuthError, api_key=KEY, headers={"x-pad": "x"}, extra={"pad": "x" * size})

            assert error.message == "no such key"


# --- connections are kept --------------------------------------------------------------------------------------------


async def test_a_connection_is_used_again():
    """One request after the other goes over one connection."""
    async with serving(polite) as server, connect(server.url) as embedder:
        for text in "abcde":
            await embedder.embed([text])

    assert (server.opened, len(server.requests)) == (1, 5)


async def test_no_limit_of_connections_but_ours():
    """As many requests as `max_concurrency` are really on the wire at once."""
    arrived = 0
    everyone = asyncio.Event()

    async def meet(talk):
        nonlocal arrived
        while True:
            seen = await talk.request()
            arrived += 1
            if arrived == 150:
                everyone.set()
            await everyone.wait()
            await talk.say(reply(count=seen.count))

    async with (
        serving(meet) as server,
        connect(server.url, max_concurrency=150, limits=embedkit.Limits(max_texts=1), timeout=PATIENCE) as embedder,
    ):
        await embedder.embed([str(number) for number in range(150)])

    assert server.opened == 150


async def once(talk):
    """Answers one request, says nothing of it, and hangs up."""
    await talk.say(reply(count=(await talk.request()).count))


async def test_a_connection_that_the_server_has_closed_is_not_used():
    """A server that closes idle connections costs neither an error nor an attempt."""
    async with serving(once) as server, connect(server.url) as embedder:
        for text in "abc":
            result = await embedder.embed([text])
            await server.deserted()
            for _ in range(9):  # the loop goes on meanwhile
                await asyncio.sleep(0)

            assert result.usage.requests == 1


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
async def test_a_connection_that_was_closed_while_the_loop_was_busy(tls, monkeypatch, authority):
    """The server hung up while this loop computed: noticed before a request is lost on the dead connection."""
    monkeypatch.setattr(http, "IDLE", 0.0)

    def one(connection, server):
        connection.sendall(reply(count=heard(connection).count))

    with Threaded(one, authority.server("127.0.0.1") if tls else None) as server:
        async with connect(server.url, ssl=authority.client) as embedder:
            for text in "abc":
                result = await embedder.embed([text])
                assert server.gone.wait(PATIENCE)  # and the loop stands still until then
                server.gone.clear()

                assert result.usage.requests == 1


async def test_a_connection_that_is_closed_under_a_request():
    """The server hangs up just as a request comes: a POST too is sent again, over a new connection."""

    async def leave(talk):
        await talk.say(reply(count=(await talk.request()).count))
        await talk.request()

    async with serving(then(leave, polite)) as server, connect(server.url, retry=AGAIN) as embedder:
        await embedder.embed(["a"])
        result = await embedder.embed(["b"])

    assert result.usage.requests == 2
    assert server.opened == 2


# --- cancellation, closing, loops ------------------------------------------------------------------------------------


@pytest.mark.parametrize("slow", [silent, stuck], ids=["before", "amid"])
async def test_cancellation_leaves_nothing(slow):
    """A cancelled call leaves no socket and no task; the server sees the end; the embedder goes on."""
    before = asyncio.all_tasks()
    async with serving(then(slow, slow, slow, polite)) as server:
        embedder = connect(server.url, limits=embedkit.Limits(max_texts=1), max_concurrency=3)
        call = asyncio.create_task(embedder.embed(["a", "b", "c"]))
        async with asyncio.timeout(PATIENCE):
            while server.opened < 3 or (slow is stuck and len(server.requests) < 3):
                await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await server.deserted()
        ours = asyncio.all_tasks() - before - server.tasks

        assert ours == set()
        assert (await embedder.embed(["d"])).vectors.tolist() == [[1, 0]]
        await embedder.aclose()
        await server.deserted()


async def test_closing_closes_and_opens_again():
    """`aclose` ends every connection, may be called twice, and the next call opens another."""
    async with serving(polite) as server:
        embedder = connect(server.url)
        for _ in range(2):
            await embedder.embed(["a"])
            await embedder.aclose()
            await embedder.aclose()
            await server.deserted()

    assert server.opened == 2


@pytest.mark.parametrize("slow", [silent, stuck], ids=["before", "amid"])
@pytest.mark.parametrize("mine", [False, True], ids=["own session", "the caller's"])
async def test_a_call_that_is_under_way_when_the_embedder_is_closed_ends(slow, mine):
    """At once and with a ClosedError, also where the session, which stays open, is the caller's."""
    async with serving(slow) as server, aiohttp.ClientSession() as session:
        settings = {"session": session} if mine else {}
        embedder = connect(server.url, retry=embedkit.RetryPolicy(attempts=1), **settings)
        call = asyncio.create_task(embedder.embed(["a"]))
        async with asyncio.timeout(PATIENCE):
            while not server.opened:
                await asyncio.sleep(0)
            await embedder.aclose()
            assert call.done()
            with pytest.raises(embedkit.ClosedError):
                await call
        assert not session.closed


async def test_an_embedder_nobody_closes():
    """Forgotten on a running loop: its connections end all the same, and nothing warns."""
    async with serving(polite) as server:
        embedder = connect(server.url)
        await embedder.embed(["a"])
        del embedder
        gc.collect()
        await server.deserted()


LOOPS = """
import asyncio, gc, sys, time
from tests.support.servers.wire import Threaded
import embedkit

def main(server, **settings):
    embedder = embedkit.connect("compatible:m", base_url=server.url, retry=embedkit.RetryPolicy(attempts=1), **settings)

    async def call():
        return (await embedder.embed(["a"])).vectors.shape

    async def ended(count):
        while server.closed < count:
            time.sleep(0.001)

    return embedder, call
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_two_runs_in_a_row(loop, tls, authority, tmp_path):
    """One embedder over two `asyncio.run`, never closed: the connections of a loop end with it, and nothing warns."""
    pytest.importorskip(loop)
    authority.write(tmp_path)
    out = run(
        LOOPS
        + f"""
import ssl
context = None
if {tls}:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain({str(tmp_path / "server.pem")!r})
from {loop} import run
server = Threaded(context=context)
embedder, call = main(server, ssl={str(tmp_path / "ca.pem")!r})
for number in (1, 2, 3):
    print(run(call()))
    while server.closed < number:
        time.sleep(0.001)
print(server.opened)
""",
        "-W", "error",
    )  # fmt: skip

    assert out == "(1, 2)\n(1, 2)\n(1, 2)\n3\n"


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_a_loop_that_was_just_closed(tls, authority):
    """A loop closed without a word to anyone: its sockets are closed by the next call, and nothing warns."""
    with Threaded(context=authority.server("127.0.0.1") if tls else None) as server:
        embedder = connect(server.url, ssl=authority.client)
        for number in (1, 2):
            loop = asyncio.new_event_loop()
            try:
                assert loop.run_until_complete(embedder.embed(["a"])).vectors.shape == (1, 2)
            finally:
                loop.close()

            assert server.opened == number
        del embedder
        gc.collect()
        while server.closed < 2:
            assert server.gone.wait(PATIENCE)
            server.gone.clear()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("end", ["sys.exit(7)", "os._exit(7)"])
def test_after_a_fork(end):
    """A child speaks over connections of its own, and its end does not touch the parent's."""
    out = run(
        LOOPS
        + f"""
import os, warnings
server = Threaded()
embedder, call = main(server)
loop = asyncio.new_event_loop()
loop.run_until_complete(call())
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: forking beside a thread
child = os.fork()
if child == 0:
    print("child", asyncio.run(call()), flush=True)
    {end}
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
while not server.closed:  # it hears of the child's end in its own time
    time.sleep(0.001)
print("parent", loop.run_until_complete(call()), server.opened, server.closed)
loop.run_until_complete(embedder.aclose())
loop.close()
""",
        "-W",
        "error",
    )

    assert out == "child (1, 2)\n7\nparent (1, 2) 2 1\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_while_numpy_is_loading():
    """The first request loads numpy beside it. A child forked meanwhile can load it too, rather than wait for a thread
    it does not have.
    """
    out = run(
        """
        from embedkit._http import aiohttp_exchange as _http
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: forking beside a thread
        assert "numpy" not in sys.modules
        _http._warm_numpy()
        while "numpy" not in sys.modules:
            pass
        child = os.fork()
        import numpy
        numpy.zeros(1)
        if child == 0:
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
    )

    assert out == "7\n"


async def test_a_pickled_embedder_connects_anew():
    """The configuration travels: timeouts, headers, key and all; the sockets stay."""
    async with serving(polite) as server, connect(server.url, api_key=KEY, headers={"x-a": "1"}, timeout=7) as embedder:
        await embedder.embed(["a"])
        other = pickle.loads(pickle.dumps(embedder))  # noqa: S301 (our own)
        async with other:
            await other.embed(["b"])

    assert server.opened == 2
    assert server.requests[0].headers == server.requests[1].headers


def test_on_another_kind_of_loop():
    """Under trio there is no aiohttp: the error says what there is instead."""

    async def main():
        await connect("http://127.0.0.1:1/v1").embed(["a"])

    with pytest.raises(ConfigError, match=r"asyncio.*exchange="):
        anyio.run(main, backend="trio")


# --- the caller's own session ----------------------------------------------------------------------------------------


async def test_a_session_of_the_callers_is_not_closed():
    """It is used with all that is set on it, and stays open."""
    async with (
        serving(polite) as server,
        aiohttp.ClientSession(headers={"x-theirs": "1", "user-agent": "theirs"}) as session,
    ):
        async with connect(server.url, session=session, api_key=KEY) as embedder:
            await embedder.embed(["a"])
        await embedder.embed(["b"])
        await embedder.aclose()

        assert not session.closed
        assert server.opened == 1
        sent = server.requests[0].headers
        assert (sent["x-theirs"], sent["user-agent"], sent["authorization"]) == ("1", "theirs", f"Bearer {KEY}")


async def test_a_session_with_habits_of_its_own():
    """Neither `raise_for_status` nor redirects, nor a short timeout, nor bodies left packed, change what embedkit
    does.
    """
    odd = {"raise_for_status": True, "auto_decompress": False, "timeout": aiohttp.ClientTimeout(total=1e-9)}
    answers = (
        reply({"error": "no"}, "401 No"),
        reply({}, "307 Moved", location="http://h/"),
        reply(gzip.compress(BODY), content_encoding="gzip"),
    )
    async with serving(saying(*answers)) as server, aiohttp.ClientSession(**odd) as session:
        assert (await raised(server.url, AuthError, session=session)).message == "no"
        assert (await raised(server.url, ApiError, session=session)).status == 307
        async with connect(server.url, session=session) as embedder:
            assert (await embedder.embed(["a"])).vectors.tolist() == [[1, 0]]


async def test_a_session_that_is_closed():
    """It is not opened again behind the caller's back."""
    session = aiohttp.ClientSession()
    await session.close()

    assert "session" in str(await raised("http://127.0.0.1:1/v1", ConfigError, session=session))


async def test_a_session_with_its_own_proxy():
    """The proxy of a session is used, the environment's is not."""
    async with (
        serving(polite) as server,
        proxying({"embeddings.test": server.url}) as proxy,
        aiohttp.ClientSession(proxy=proxy.url) as session,
        connect("http://embeddings.test/v1", session=session) as embedder,
    ):
        await embedder.embed(["a"])

    assert len(proxy.requests) == len(server.requests) == 1


def test_a_session_on_a_second_loop():
    """A session belongs to its loop; elsewhere it is a ConfigError that says so."""
    with Threaded() as server, asyncio.Runner() as first, asyncio.Runner() as second:

        async def open_session():
            return aiohttp.ClientSession()

        session = first.run(open_session())
        embedder = connect(server.url, session=session)

        assert first.run(embedder.embed(["a"])).vectors.shape == (1, 2)
        with pytest.raises(ConfigError, match="another event loop"):
            second.run(embedder.embed(["a"]))
        with pytest.raises(ConfigError, match="pickled"):
            pickle.dumps(embedder)
        first.run(session.close())


# --- TLS -------------------------------------------------------------------------------------------------------------


class Authority:
    """A certificate authority nobody knows."""

    def __init__(self):
        self._ca = trustme.CA()
        self.client = ssl.create_default_context()
        self._ca.configure_trust(self.client)

    def server(self, name, **dates):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(name, **dates).configure_cert(context)
        return context

    def write(self, folder):
        """ca.pem, and server.pem for 127.0.0.1; returns the first."""
        self._ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
        self._ca.cert_pem.write_to_path(str(folder / "ca.pem"))
        return folder / "ca.pem"


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.mark.parametrize("given", ["path", "PathLike", "SSLContext", "False"])
async def test_a_private_authority(given, authority, tmp_path):
    """`ssl=` takes the path of a bundle, a context, or False."""
    path = authority.write(tmp_path)
    trust = {"path": str(path), "PathLike": path, "SSLContext": authority.client, "False": False}[given]
    async with (
        serving(polite, context=authority.server("127.0.0.1")) as server,
        connect(server.url, ssl=trust) as embedder,
    ):
        assert (await embedder.embed(["a"])).vectors.tolist() == [[1, 0]]
        await embedder.embed(["b"])

    assert server.opened == 1


PAST = {"not_before": datetime(2001, 1, 1, tzinfo=UTC), "not_after": datetime(2002, 1, 1, tzinfo=UTC)}
DISTRUST = {
    "unknown": ("127.0.0.1", {}, None, r"unable to get local issuer certificate; for a private CA pass ssl="),
    "expired": ("127.0.0.1", PAST, True, r"certificate has expired$"),
    "another name": ("other.test", {}, True, r"mismatch.*'127\.0\.0\.1'\.$"),
}


@pytest.mark.parametrize(("name", "dates", "trusted", "says"), DISTRUST.values(), ids=DISTRUST)
async def test_a_certificate_that_is_refused(name, dates, trusted, says, authority):
    """A TransportError that says why and what to do, where anything can be done; trying again would not help."""
    async with serving(polite, context=authority.server(name, **dates)) as server:
        error = await raised(
            server.url, TransportError, ssl=authority.client if trusted else None, retry=AGAIN, api_key=KEY
        )

    assert not error.retryable
    assert f"TLS to {server.url.removesuffix('/v1')} failed" in str(error)
    with pytest.raises(TransportError, match=says):
        raise error
    assert server.requests == []


def guarded(authority):
    """A server that shakes hands with whoever has a certificate. A refusal is read to its end before it hangs up."""
    context = authority.server("127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED

    def speak(connection, server):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        shaking = context.wrap_bio(incoming, outgoing, server_side=True)
        while True:
            with contextlib.suppress(ssl.SSLError):
                shaking.do_handshake()
            connection.sendall(outgoing.read())
            piece = connection.recv(65536)
            if not piece:
                return
            incoming.write(piece)

    return speak


async def test_a_server_that_asks_for_a_certificate_of_the_clients(authority):
    """TLS 1.3 says so only after the handshake: it is named, with the way out, and not tried again."""
    with Threaded(guarded(authority)) as server:
        url = server.url.replace("http:", "https:")
        error = await raised(url, TransportError, ssl=authority.client, retry=AGAIN)

    assert server.opened == 1
    assert f"TLS to {url.removesuffix('/v1')} failed: TLSV13_ALERT_CERTIFICATE_REQUIRED" in str(error)
    assert "load_cert_chain" in str(error)
    assert not error.retryable


async def test_https_to_a_server_that_speaks_http():
    """The likeliest mistake is named."""
    async with serving(cut_at_once) as server:
        error = await raised(server.url.replace("http:", "https:"), TransportError, retry=AGAIN)

    assert not error.retryable
    assert "does not speak TLS" in str(error)


async def cut_at_once(talk):
    await talk.reader.read(1)
    await talk.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def test_a_server_that_hangs_up_in_the_handshake():
    """That may pass."""

    async def leave(talk):
        await talk.reader.read(1)

    async with serving(leave) as server:
        error = await raised(server.url.replace("http:", "https:"), TransportError)

    assert error.retryable


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_bundle_that_is_none(content, tmp_path):
    """A missing or unreadable bundle is a ConfigError that names the file."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)

    assert str(path) in str(await raised("https://127.0.0.1:1/v1", ConfigError, ssl=str(path)))


def test_the_bundle_of_the_environment(authority, tmp_path):
    """SSL_CERT_FILE is read, as by every program that uses OpenSSL."""
    path = authority.write(tmp_path)
    with Threaded(context=authority.server("127.0.0.1")) as server:
        out = run(
            f"""
            os.environ["SSL_CERT_FILE"] = {str(path)!r}
            with embedkit.connect_sync("compatible:m", base_url={server.url!r}) as embedder:
                print(embedder.embed(["a"]).vectors.shape)
            """
        )

    assert out == "(1, 2)\n"


# --- proxies ---------------------------------------------------------------------------------------------------------

NAME = "embeddings.test"
SECRET = "pa:ss%2Fword-of-the-proxy"  # user, then the password as a URL has it
DECODED = "pa:ss/word-of-the-proxy"


def with_user(url):
    return url.replace("://", f"://{SECRET}@")


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("user", ["", DECODED], ids=["open", "user"])
async def test_a_proxy(user, tls, authority):
    """`proxy=` carries http as it is and https through a tunnel, with the user and password of its URL; the key goes to
    the server alone.
    """
    context = authority.server(NAME) if tls else None
    async with serving(polite, context=context) as server, proxying({NAME: server.url}, user=user) as proxy:
        url = f"http{'s' if tls else ''}://{NAME}/v1"
        trust = authority.client
        async with connect(url, proxy=with_user(proxy.url) if user else proxy.url, ssl=trust, api_key=KEY) as embedder:
            await embedder.embed(["a"])

    assert [request.line.split()[0] for request in proxy.requests] == ["CONNECT" if tls else "POST"]
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert server.requests[0].headers["accept-encoding"].startswith("gzip")
    assert not tls or KEY not in str(proxy.requests)


@pytest.mark.parametrize("wants", [DECODED, ""], ids=["another user", "it says no"])
async def test_a_proxy_that_refuses(wants, authority):
    """A proxy that lets nobody through to https is named with its status, and never its password."""
    async with proxying({}, user=wants and "someone:else", status="" if wants else "403 Forbidden") as proxy:
        error = await raised(f"https://{NAME}/v1", TransportError, proxy=with_user(proxy.url), retry=AGAIN)

    assert len(proxy.requests) == 1
    assert not error.retryable
    assert f"the proxy refused to reach https://{NAME}: status {'407' if wants else '403'}" in str(error)
    assert ("user:password@" in str(error)) is bool(wants)
    assert "word-of-the-proxy" not in str(error)


@pytest.mark.parametrize("user", ["u:p€ss", "ü:ß", "u:", "u"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
async def test_a_proxys_user_in_any_letters(user, tls, authority):
    """The user and the password of a proxy reach it in UTF-8, whatever letters they have."""
    context = authority.server(NAME) if tls else None
    wanted = user if ":" in user else f"{user}:"
    async with serving(polite, context=context) as server, proxying({NAME: server.url}, user=wanted) as proxy:
        mine = proxy.url.replace("://", f"://{quote(user, safe=':')}@")
        async with connect(f"http{'s' if tls else ''}://{NAME}/v1", proxy=mine, ssl=authority.client) as embedder:
            await embedder.embed(["a"])

    assert len(server.requests) == 1


async def test_a_colon_in_a_proxys_user():
    """It cannot be sent, and is not called an unusable URL of the server."""
    error = await raised(f"https://{NAME}/v1", ConfigError, proxy="http://secret%3Aword:p@127.0.0.1:1")

    assert "the user in the proxy's URL holds a colon" in str(error)
    assert "secret" not in str(error)


async def test_a_proxy_that_wants_a_user_for_plain_http():
    """The same refusal as that of a tunnel, not an unknown status of the server."""
    async with proxying({}, user="someone:else") as proxy:
        plain, tunnel = [
            await raised(f"{scheme}://{NAME}/v1", TransportError, proxy=proxy.url, retry=AGAIN)
            for scheme in ("http", "https")
        ]

    assert len(proxy.requests) == 2
    assert str(plain) == str(tunnel).replace("https", "http")
    assert (plain.retryable, plain.sent) == (tunnel.retryable, tunnel.sent) == (False, False)


async def no_http(talk):
    await talk.reader.readuntil(b"\r\n\r\n")
    await talk.say(b"SSH-2.0-OpenSSH_9.2\r\n")


async def waiting(talk):
    await talk.reader.read()


ILL_PROXIES = {
    "hangs up": (unread, r"the proxy {} hung up before it had connected to https://{name}"),
    "resets": (reset, r"the proxy {} hung up before it had connected to https://{name}"),
    "is none": (no_http, r"the proxy {} does not speak HTTP; check its address"),
    "waits": (waiting, r"https://{name} did not connect through the proxy {} within 0.05 s"),
}


@pytest.mark.parametrize(("speak", "says"), ILL_PROXIES.values(), ids=ILL_PROXIES)
async def test_a_proxy_that_is_ill_is_named(speak, says):
    """What goes wrong before a tunnel stands is the proxy's fault, and no text can be the reason: none is looked for."""
    async with serving(speak) as server, connect(
        f"https://{NAME}/v1", proxy=with_user(server.url.removesuffix("/v1")), timeout=SLOW
    ) as embedder:  # fmt: skip
        with pytest.raises(TransportError) as caught:
            await embedder.embed(["a", "b", "c"])

    assert says.format(server.url.removesuffix("/v1"), name=NAME) in str(caught.value)
    assert not caught.value.sent
    assert server.opened == 1
    assert "word-of-the-proxy" not in str(caught.value)


async def test_the_tls_of_a_proxy(authority):
    """Which handshake failed is said: the proxy's or the server's."""
    async with serving(cut_at_once) as plain:
        away = plain.url.removesuffix("/v1").replace("http:", "https:")
        error = await raised(f"https://{NAME}/v1", TransportError, proxy=away)
    async with serving(polite, context=authority.server(NAME)) as server, proxying({NAME: server.url}) as proxy:
        other = await raised(f"https://{NAME}/v1", TransportError, proxy=proxy.url)

    assert f"TLS to the proxy {away} failed: it does not speak TLS" in str(error)
    assert f"TLS to https://{NAME} failed: the certificate is refused" in str(other)


async def test_a_proxy_whose_server_is_down():
    """A 502 of a proxy may pass."""
    async with proxying({}, status="502 Bad Gateway") as proxy:
        assert (await raised(f"https://{NAME}/v1", TransportError, proxy=proxy.url)).retryable
        assert (await raised(f"http://{NAME}/v1", ServerError, proxy=proxy.url)).retryable


async def test_a_proxy_that_is_not_there():
    """A proxy that cannot be reached is named by its address, not as the server, and never with its password."""
    url = await closed_port()
    error = await raised(f"http://{NAME}/v1", TransportError, proxy=with_user(url))
    lost = await raised(f"http://{NAME}/v1", TransportError, proxy=with_user(f"http://{NOWHERE}"))

    assert f"the proxy {url.removeprefix('http://')} for http://{NAME} cannot be reached: Connection refused" in str(
        error
    )
    assert NOWHERE in str(lost)
    assert error.proxy_refused
    assert not lost.proxy_refused
    assert "word-of-the-proxy" not in f"{error}{lost}"


@pytest.mark.parametrize(
    "proxy", ["socks5://u:secret-word@h:1", "u:secret-word@h:1", "http://", "::: secret-word", "ftp://h"]
)
async def test_a_proxy_of_another_kind(proxy, monkeypatch):
    """What aiohttp cannot speak is refused rather than spoken to in HTTP, without a word of its URL."""
    monkeypatch.setenv("ALL_PROXY", proxy)
    if "://" not in proxy:  # the environment's are http where they do not say, so this one is passed
        monkeypatch.delenv("ALL_PROXY")
    exchange = AiohttpExchange(HttpSettings(proxy=None if "://" in proxy else proxy))
    with pytest.raises(ConfigError, match="no http or https URL") as caught:
        await exchange(Request(f"http://{NAME}/v1"))
    await exchange.aclose()

    assert "secret-word" not in str(caught.value)


async def test_the_proxy_of_the_environment(monkeypatch):
    """HTTP_PROXY is spoken to for a server elsewhere, and not for one on loopback."""
    async with serving(polite) as server, proxying({NAME: server.url}) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        async with connect(f"http://{NAME}/v1") as far, connect(server.url) as near:
            await far.embed(["a"])
            await near.embed(["b"])

    assert [request.line for request in proxy.requests] == [f"POST http://{NAME}/v1/embeddings HTTP/1.1"]
    assert len(server.requests) == 2


async def test_a_proxy_that_is_asked_for_is_used_for_loopback_too(monkeypatch):
    """`proxy=` is what the caller wants: only the environment's leaves loopback alone."""
    async with serving(polite) as server, proxying({"127.0.0.1": server.url}) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://{NOWHERE}")
        async with connect(server.url, proxy=proxy.url) as embedder:
            await embedder.embed(["a"])

    assert [request.line for request in proxy.requests] == [f"POST {server.url}/embeddings HTTP/1.1"]
    assert len(server.requests) == 1


# --- nothing slips through -------------------------------------------------------------------------------------------


def failures(kind=Exception):
    """Every exception class of aiohttp, our dependency's own ones included."""
    for each in kind.__subclasses__():
        if each.__module__.split(".")[0] == "aiohttp":
            yield each
        yield from failures(each)


def made(kind):
    """An exception of this class, as if aiohttp had raised it, with the key wherever it has room for one."""
    error = kind.__new__(kind, KEY)
    error.args = (KEY,)
    key = aiohttp.client_reqrep.ConnectionKey(KEY, 1, False, True, None, None, None)
    named = {
        "_conn_key": key, "_os_error": OSError(111, KEY), "_certificate_error": ssl.SSLCertVerificationError(1, KEY), "status": 407,
        "message": KEY, "headers": {"authorization": KEY}, "history": (), "_url": KEY, "_description": KEY, "_path": KEY,
        "request_info": aiohttp.RequestInfo("http://h/", "POST", {"authorization": KEY}, "http://h/"),
        "expected": b"", "got": b"", "host": "h", "port": 1,
    }  # fmt: skip
    for name, value in named.items():
        try:
            setattr(error, name, value)
        except AttributeError:
            assert isinstance(inspect.getattr_static(kind, name), property)
    return error


KINDS = sorted(set(failures()), key=lambda kind: (kind.__module__, kind.__name__))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_of_aiohttp_becomes_one_of_ours(kind):
    """Whatever class aiohttp has, or gets: an error of ours, with the address, without a word of theirs, and nothing
    hanging on to it.
    """
    error = aiohttp_errors._translated(
        made(kind), Request("https://user:planted@h.test:8443/v1?key=planted"), HttpSettings()
    )

    assert isinstance(error, (TransportError, ConfigError, DecodeError))
    assert error.__cause__ is error.__context__ is None
    assert "h.test:8443" in str(error) or "resolved" in str(error)
    assert "planted" not in f"{error!r} {vars(error)}"
    assert (
        KEY not in str(error) or "DNS" in kind.__name__ or "Proxy" in kind.__name__
    )  # which name the host, here made of the key


def test_the_walk_finds_them():
    """The walk above sees the exceptions that this file meets for real, and the parser's own."""
    names = {kind.__name__ for kind in KINDS}

    assert {
        "ClientError",
        "ServerDisconnectedError",
        "ClientPayloadError",
        "InvalidURL",
        "BadStatusLine",
        "ClientOSError",
    } <= names
    assert len(names) > 30


async def test_what_is_nobodys_error_comes_out():
    """An exception of the caller's own code (a trace of their session) is not dressed up as a failure of the
    network.
    """

    async def fail(*_):
        raise LookupError("mine")

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(fail)
    async with (
        aiohttp.ClientSession(trace_configs=[trace]) as session,
        connect("http://127.0.0.1:1/v1", session=session) as embedder,
    ):
        with pytest.raises(LookupError, match="mine"):
            await embedder.embed(["a"])


# --- fakes and the real thing ----------------------------------------------------------------------------------------

SCRIPT = [
    (b'{"data": [{"embedding": [1.0, 2.0]}]}', 200, {"x-request-id": "r1"}),
    (b'{"error": {"message": "slow down"}}', 429, {"retry-after": "0.001", "X-Request-Id": "r2"}),
    (b'{"data": [{"embedding": [3.0, 4.0]}]}', 200, {}),
    (b'{"error": {"message": "no such model", "code": "model_not_found"}}', 404, {"X-Request-Id": "r3"}),
    (b"", 401, {}),
    (b"<html><title>502 Bad Gateway</title></html>", 502, {"content-type": "text/html"}),
    (b"<html><title>502 Bad Gateway</title></html>", 502, {"content-type": "text/html"}),
    (b"no json", 200, {}),
    (b"no json", 200, {}),
]


async def story(embedder):
    """What an embedder makes of the script: vectors, or everything an error says."""
    async with embedder:
        for _ in range(len(SCRIPT) - 3):  # three answers are tried again
            try:
                result = await embedder.embed(["a"])
            except EmbedkitError as error:
                error.elapsed = 0.0
                yield type(error), str(error), {name: value for name, value in vars(error).items() if name != "partial"}
            else:
                yield result.vectors.tolist(), result.model, result.usage


async def test_the_fake_and_the_real_exchange_agree():
    """The same script over a FakeExchange and over sockets: the same vectors, errors, attributes and counts."""
    policy = RetryPolicy(attempts=2, initial=0.0)
    fake = FakeExchange([response(*each) for each in SCRIPT])
    wire = [reply(body, f"{status} X", **headers) for body, status, headers in SCRIPT]
    async with serving(saying(*wire)) as server, aclosing(story(connect(server.url, retry=policy))) as real:
        seen = [each async for each in real]
        # a 404 names the URL
        faked = embedkit.connect("compatible:m", base_url=server.url, exchange=fake, retry=policy)
        told = [each async for each in story(faked)]

    assert seen == told
    assert len(server.requests) == len(fake.requests) == len(SCRIPT)
    assert [json.loads(request.body) for request in server.requests] == fake.bodies
    assert [request.line.split()[1] for request in server.requests] == ["/v1/embeddings"] * len(SCRIPT)


async def test_the_fake_and_the_real_exchange_give_the_same_response():
    """Status, body, and headers by their lower-case names."""
    request = Request("http://h/v1", b"{}")
    fake = await FakeExchange([response(b"body", 418, {"X-Mixed": "Case"})])(request)
    async with serving(saying(reply(b"body", "418 Teapot", **{"X-Mixed": "Case"}))) as server:
        exchange = AiohttpExchange(HttpSettings())
        real = await exchange(Request(server.url, b"{}"))
        await exchange.aclose()

    assert (real.status, bytes(real.body), real.headers["x-mixed"]) == (
        fake.status,
        bytes(fake.body),
        fake.headers["x-mixed"],
    )
    assert real.headers.get("x-absent") is fake.headers.get("x-absent") is None


def test_many_threads_with_a_loop_each():
    """One embedder, many threads, an `asyncio.run` in each: every loop has its own connections, and every one is
    closed.
    """
    with Threaded(answering) as server:
        embedder, shapes = connect(server.url), []

        async def calls():
            shapes.extend([(await embedder.embed([text])).vectors.shape for text in "abc"])

        threads = [threading.Thread(target=lambda: asyncio.run(calls())) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert shapes == [(1, 2)] * 24
        assert server.opened == 8
        while server.closed < 8:
            assert server.gone.wait(PATIENCE)
            server.gone.clear()


# --- a body that goes into a file ------------------------------------------------------------------------------------


async def fetched(url, into, seconds=10.0, **settings):
    """The response to a GET whose body goes into a file."""
    exchange = AiohttpExchange(HttpSettings(**settings))
    try:
        return await exchange.within(Request(url, b"", {}, "GET"), seconds, into)
    finally:
        await exchange.aclose()


async def test_a_body_of_any_size_goes_into_a_file(tmp_path):
    """Beyond the cap too, since it is not in memory; what the file held before is gone, and the response has no body."""
    body = bytes(range(256)) * 4096

    async def talks(talk):
        await talk.request()
        await talk.say(reply(body))

    with (tmp_path / "f").open("w+b") as file:
        file.write(b"x" * 2 * len(body))
        async with serving(talks) as server:
            got = await fetched(server.url, file, cap=1000)

    assert (got.status, got.body) == (200, b"")
    assert (tmp_path / "f").read_bytes() == body


async def test_a_refusal_does_not_go_into_the_file(tmp_path):
    """Its body comes with the response, as ever, and the file stays as it was."""

    async def talks(talk):
        await talk.request()
        await talk.say(reply({"error": "no"}, "404 Not Found"))

    with (tmp_path / "f").open("w+b") as file:
        async with serving(talks) as server:
            got = await fetched(server.url, file)

    assert (got.status, got.body) == (404, b'{"error": "no"}')
    assert (tmp_path / "f").read_bytes() == b""


async def test_half_a_body_in_a_file_is_an_error(tmp_path):
    """A body that breaks off raises, so nobody takes the file for whole."""

    async def talks(talk):
        await talk.request()
        await talk.say(reply(b"x" * 100)[:-50])

    with (tmp_path / "f").open("w+b") as file:
        async with serving(talks) as server:
            with pytest.raises(embedkit.errors.TransportError, match="broke off"):
                await fetched(server.url, file)


async def test_a_server_that_falls_silent_within_a_file_is_given_up(tmp_path):
    """The attempt may take long, but not without a byte."""

    async def talks(talk):
        await talk.request()
        await talk.say(reply(b"x" * 100)[:-50])
        await talk.over()

    with (tmp_path / "f").open("w+b") as file:
        async with serving(talks) as server:
            with pytest.raises(embedkit.errors.TransportTimeoutError):
                await fetched(server.url, file, timeout=SLOW)


async def test_a_full_disk_is_no_error_of_the_connection():
    """What the system says of the file comes out as it is: nothing is tried again."""

    class Full:
        def seek(self, place):
            pass

        def truncate(self):
            pass

        def write(self, piece):
            raise OSError(28, "No space left on device")

    async def talks(talk):
        await talk.request()
        await talk.say(reply(b"x" * 100))

    async with serving(talks) as server:
        with pytest.raises(OSError, match="No space left") as caught:
            await fetched(server.url, Full())
    assert not isinstance(caught.value, embedkit.errors.EmbedkitError)
