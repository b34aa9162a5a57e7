"""Keys are planted in every place a key can be, and every way to fail is gone: not one shows.

Looked through after each failure: the error, its causes and contexts, its attributes, its pickle, what the frames of
embedkit hold while it is raised, events, logs, warnings, and what embedders, requests and responses show of themselves.
"""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import subprocess
import sys
import traceback
import warnings
from base64 import b64encode
from pathlib import Path
from urllib.parse import quote

import aiohttp
import numpy as np
import pytest

import embedkit
from embedkit import ConfigError, DecodeError, EmbedkitError, RetryPolicy, SyncEmbedder, TransportError
from embedkit._http.aiohttp_exchange import AiohttpExchange
from embedkit._http.settings import HttpSettings
from embedkit._types import Request
from embedkit.providers import hosts
from embedkit.testing import FakeExchange, response
from tests.http.test_aiohttp_exchange import NAME, NOWHERE, Authority, closed_port
from tests.support.servers.wire import Threaded, heard, parsed, proxying, reply, serving

pytestmark = pytest.mark.anyio
ROOT = Path(embedkit.__file__).parent
MARK = "PLANTED"  # in every key below, raw or in base64
KEY = "sk-PLANTED/0123456789+abcdefghijklmnopqrstuvwxyz"
QUOTED = quote(KEY, safe="")
PASSWORD = "PLANTED-word/of?the:proxy"
BASIC = b64encode(f"PLANTED-user:{PASSWORD}".encode()).decode()
TRACES = (
    "PLANTED",
    BASIC,
    b64encode(b"PLANTED").decode()[:8],
    "0123456789",
    "ghijklmnopqrstuvwxyz",
    "word/of",
    "word%2Fof",
)
FAST = RetryPolicy(attempts=2, initial=0.0)


def leaks(text):
    """The traces of a planted secret in a text."""
    return [trace for trace in TRACES if trace in text]


def shown(error, seen=None):
    """Every text that can be got from an exception: its own, those of
    its attributes, its frames, its pickle, its causes and contexts.
    """
    seen = set() if seen is None else seen
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    yield f"{type(error)} {error} {error!r} {error.args!r}"
    yield f"{ {name: value for name, value in vars(error).items() if name != 'partial'}!r}"
    yield "".join(traceback.format_exception(error))
    if isinstance(error, EmbedkitError):
        yield pickle.dumps(error).decode("latin-1")
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if (
            ROOT in Path(frame.f_code.co_filename).parents
        ):  # aiohttp's own hold the request's headers while it is cancelled
            for name, value in list(frame.f_locals.items()):
                yield f"{frame.f_code.co_name}: {name} = {value!r}"
    for other in (error.__cause__, error.__context__, getattr(error, "partial", None) and None):
        yield from shown(other, seen)


def told(embedder):
    """What an embedder shows of itself."""
    yield f"{embedder!r} {embedder} {vars(embedder)!r} {vars(embedder).values()!r}"
    sync = SyncEmbedder(embedder) if not embedder.borrowed else embedder
    yield f"{sync!r} {sync} {vars(sync)!r}"
    for name, value in vars(embedder).items():
        yield f"{name} = {value!r}"
    for line in embedder._transports.values():
        yield f"{line!r} {vars(line)!r} {line.exchange!r}"


def clean(texts, what=""):
    """Assert that no text has a trace of a secret."""
    for text in texts:
        found = leaks(text)
        assert not found, f"{what}: {found} in {text[:3000]}"


@pytest.fixture(autouse=True)
def _nothing_is_logged(caplog):
    """Whatever happens in a test of this file, no log at any level shows a key, and no warning does."""
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        yield
    clean((record.getMessage() + (record.exc_text or "") for record in caplog.records), "log")
    clean((str(warning.message) for warning in warned), "warning")


async def drive(embedder, *, texts=("a", "b"), events=(), fails=True, **options):
    """Embed, expect it to fail, and look through everything. Returns the error."""
    failure = None
    try:
        await embedder.embed(list(texts), **options)
    except Exception as error:
        failure = error
    assert (failure is not None) is fails
    clean(shown(failure), "error")
    clean(told(embedder), "embedder")
    for event in events:
        clean([f"{event!r} {event}"], "event")
        clean(shown(getattr(event, "error", None)), "event's error")
    return failure


# --- where keys are --------------------------------------------------------------------------------------------------


async def asked():
    await asyncio.sleep(0)
    return KEY


def key_file(monkeypatch, tmp_path):
    (tmp_path / "token").write_text(KEY + "\n")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    return {"model": "huggingface:m"}


def environment(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return {"model": "openai:m"}


def azure(monkeypatch, tmp_path):
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", KEY)
    return {"model": "azure:m", "base_url": "https://r.openai.azure.com"}


def proxies(monkeypatch, tmp_path):
    monkeypatch.setenv("HTTP_PROXY", f"http://PLANTED-user:{quote(PASSWORD, safe='')}@h:1")
    return {"model": "openai:m", "api_key": KEY, "proxy": f"http://PLANTED-user:{quote(PASSWORD, safe='')}@h:1"}


def given(**settings):
    return lambda monkeypatch, tmp_path: {"model": "openai:m", "api_key": "sk-of-no-interest", **settings}


BASE = "http://host.test/v1"
PLACES = {
    "given": given(api_key=KEY),
    "given with white space": given(api_key=f" {KEY}\n"),
    "a function": given(api_key=lambda: KEY),
    "a coroutine function": given(api_key=asked),
    "the environment": environment,
    "a file": key_file,
    "a token": given(model="azure:m", base_url="https://r.openai.azure.com", ad_token=KEY, api_key=None),
    "a token of the environment": azure,
    "another secret": given(organization=KEY),
    "a bearer header": given(headers={"Authorization": f"Bearer {KEY}"}),
    "a header": given(headers={"X-Api-Key": KEY}),
    "a basic header": given(headers={"Authorization": f"Basic {BASIC}"}),
    "headers that are asked for": given(headers=lambda: {"X-Api-Key": KEY, "Cookie": f"a=b; session={KEY}"}),
    "a cookie": given(headers={"Cookie": f"a=b; session={KEY}; c=d"}),
    "the query": given(base_url=f"{BASE}?api-version=1&key={QUOTED}"),
    "the user": given(base_url=f"http://PLANTED-user:{quote(PASSWORD, safe='')}@host.test/v1", api_key=None),
    "the proxy": proxies,
}  # fmt: skip


@pytest.fixture(params=list(PLACES.values()), ids=list(PLACES))
def place(request, monkeypatch, tmp_path):
    """Keywords of `connect` with a secret in one of its places."""
    return request.param(monkeypatch, tmp_path)


def everything(request):
    """What a server could quote: the whole request, and the keys
    in it as they are, escaped for JSON and for URLs, and unpacked.
    """
    sent = f"{request.method} {request.url} {dict(request.headers)} {request.body.decode()}"
    forms = {KEY, QUOTED, KEY.replace("/", "\\/")} if KEY in sent or QUOTED in sent else set()
    if BASIC in sent or "PLANTED-user" in sent:
        forms |= {BASIC, f"PLANTED-user:{PASSWORD}", PASSWORD, quote(PASSWORD, safe="")}
    return " ".join([sent, *sorted(forms)])


def as_json(text):
    return {"error": {"message": text, "code": text, "type": text, "param": text}, "request_id": text, "message": text}


def as_list(text):
    return {"detail": [{"loc": ["body", text], "msg": text}]}


def as_html(text):
    return f"<html><title>{text}</title><body>{text}</body></html>"


def as_vectors(text):
    return {"data": [{"embedding": text, "index": 0}], "model": text, "error": {"message": text, "code": 503}}


SHAPES = {"json": as_json, "list": as_list, "html": as_html, "text": str, "vectors": as_vectors}
STATUSES = [200, 301, 401, 422, 503]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
async def test_a_server_that_quotes_the_request(place, shape):
    """Whatever the status and wherever it stands in body and
    headers, what a server quotes back of a secret does not show.
    """
    for status in STATUSES:
        events = []

        def answer(request, status=status):
            text = everything(request)
            names = ("x-request-id", "location", "retry-after", "www-authenticate", "x-should-retry", "cf-ray")
            return response(shape(text), status, dict.fromkeys(names, text))

        exchange = FakeExchange(answer)
        embedder = embedkit.connect(**place, exchange=exchange, observe=events.append, retry=FAST)
        error = await drive(embedder, events=events)

        assert isinstance(error, EmbedkitError)
        assert exchange.requests
        clean([repr(request) for request in exchange.requests], "request")


@pytest.mark.parametrize("status", [200, 401, 503])
@pytest.mark.parametrize("before", ["", "<html><title>", '{"error": {"message": "', '{"data": "'])
async def test_a_key_that_an_excerpt_would_cut_in_half(before, status):
    """An error keeps the start of a message and of a body: no part of a key is at its end."""
    for limit in (200, 2000, 8000):
        for part in range(0, len(KEY) + 9, 8):
            padding = "x" * (limit - len(before) - part)
            exchange = FakeExchange([response(f"{before}{padding}{KEY}{'y' * 99}", status)])
            await drive(embedkit.connect("openai:m", api_key=KEY, exchange=exchange, retry=RetryPolicy(attempts=1)))


async def test_a_key_that_was_changed_meanwhile():
    """A request signed with the last key is still under way when the next is asked for: neither shows."""
    keys = iter([KEY, "sk-of-no-interest-1", "sk-of-no-interest-2"])
    first = asyncio.Event()

    async def slow(request):
        if KEY in request.headers["authorization"]:
            await first.wait()
            return response(f"no {KEY}", 401)
        first.set()
        return {"data": [{"embedding": [1.0]}]}

    embedder = embedkit.connect("openai:m", api_key=lambda: next(keys), exchange=FakeExchange(slow))
    late = asyncio.create_task(drive(embedder))
    await asyncio.sleep(0)
    await embedder.embed("c")

    assert "no ***" in str(await late)


async def test_what_is_hidden_is_only_the_key():
    """Everything else a server says is left as it is."""
    message = "Incorrect API key provided: ***. You can find your API key at https://h/keys?authorization=bearer."
    answer = response({"error": {"message": message.replace("***", KEY)}}, 401, {"x-request-id": "req-1"})
    error = await drive(embedkit.connect("openai:m", api_key=KEY, exchange=FakeExchange([answer])))

    assert error.message == message
    assert error.request_id == "req-1"


# --- every host ------------------------------------------------------------------------------------------------------


def planted(host):
    """Keywords that connect to this host, with a secret wherever it takes one."""
    plain = {
        name: (*one.choices, *(kind() for kind in one.takes if kind is not str), "PLAIN")[0]
        for name, one in host.parameters.items()
    }
    settings = {name: KEY if one.secret else plain[name] for name, one in host.parameters.items()}
    settings.pop("host", None)  # Databricks': the base URL stands for it
    if not any(one.key for one in host.parameters.values()):
        settings["api_key"] = KEY
    return {"model": f"{host.name}:m", "base_url": "https://host.test/v1", **settings}


@pytest.mark.parametrize("host", list(hosts()), ids=lambda host: host.name)
async def test_every_host(host):
    """However a host signs its requests, no secret shows: not
    when it is quoted back, not when a token is bought with it.
    """
    for status in (200, 401, 503):

        def answer(request, status=status):
            return response(as_json(everything(request)), status, {"x-request-id": everything(request)})

        events = []
        embedder = embedkit.connect(**planted(host), exchange=FakeExchange(answer), observe=events.append, retry=FAST)
        assert isinstance(await drive(embedder, events=events), EmbedkitError)


async def test_a_token_that_was_bought():
    """A token an exchange answers with does not show either, in a reply that cannot be read as in one that can."""
    token = "PLANTED.0123456789.token"
    whole = json.dumps({"access_token": token, "expires_in": 3600})
    for answers in (
        [whole, token],
        [whole[:-9]],
        [json.dumps({"access_token": token, "expires_in": "soon"})],
        [f'["{token}"]'],
    ):
        exchange = FakeExchange([response(answers[0]), *(response(each, 401) for each in answers[1:])])
        embedder = embedkit.connect("watsonx:m", api_key="k" * 20, project_id="p", base_url="https://us-south.ml.cloud.ibm.com", exchange=exchange)  # fmt: skip
        await drive(embedder)


# --- over sockets ----------------------------------------------------------------------------------------------------


def quoting(status):
    """A server that answers with the bytes of the request it got."""

    async def speak(talk):
        while True:
            seen = await talk.request()
            text = f"{seen.line} {seen.headers} {seen.body.decode()}"
            await talk.say(reply(text.encode(), status, x_request_id=text[:4000], location=text[:4000]))

    return speak


async def hang_up(talk):
    await talk.request()


async def say_it_back(talk):
    """An echo: answers with the request itself, which is no HTTP answer."""
    head = await talk.reader.readuntil(b"\r\n\r\n")
    line, headers = parsed(head[:-4])
    await talk.say(
        head, *(f"HTTP/1.1 200 OK\r\n{name} {value}\r\n\r\n".encode() for name, value in headers.items()), line.encode()
    )


async def bad_header(talk):
    """Quotes the key in a header that is none."""
    seen = await talk.request()
    await talk.say(f"HTTP/1.1 200 OK\r\nx y {seen.headers['authorization']}\r\n\r\n".encode())


async def bad_status(talk):
    """Quotes the key in a status line that is none."""
    seen = await talk.request()
    await talk.say(f"HTTP/9.9 {seen.headers['authorization']}\r\n\r\n".encode())


async def bad_packing(talk):
    await talk.request()
    await talk.say(reply(b"x", content_encoding="gzip"))


async def nothing(talk):
    await talk.over()


WIRE = {
    "quoted with 200": quoting("200 OK"), "quoted with 401": quoting("401 No"), "quoted with 307": quoting("307 Go"),
    "quoted with 503": quoting("503 Busy"), "hung up": hang_up, "echoed": say_it_back, "in a header": bad_header,
    "in the status": bad_status, "badly packed": bad_packing, "silence": nothing,
}  # fmt: skip


@pytest.mark.parametrize("speak", WIRE.values(), ids=WIRE)
async def test_over_a_socket(speak):
    """Whatever a real server does with a request, aiohttp's errors included, no key comes out of it."""
    asyncio.get_running_loop().set_debug(True)
    asyncio.get_running_loop().slow_callback_duration = 99.0
    events = []
    async with serving(speak) as server:
        url = f"{server.url}?key={QUOTED}"
        settings = {"headers": {"x-token": KEY}, "observe": events.append, "retry": FAST, "read_timeout": 0.05}
        async with embedkit.connect("openai:m", api_key=KEY, base_url=url, **settings) as embedder:
            assert isinstance(await drive(embedder, events=events), EmbedkitError)
            clean(
                [f"{line.exchange!r} {vars(line.exchange._session)!r}" for line in embedder._transports.values()],
                "session",
            )


async def test_addresses_that_lead_nowhere():
    """Refused, unknown, misspelt: the address is named without user and query."""
    user = f"PLANTED-user:{quote(PASSWORD, safe='')}@"
    for url in (await closed_port(), f"http://{NOWHERE}", "https://127.0.0.1:1", f"http://{'n' * 64}.test"):
        where = url.replace("://", f"://{user}") + f"/v1?key={QUOTED}"
        async with embedkit.connect("openai:m", base_url=where, retry=FAST, connect_timeout=1) as embedder:
            assert isinstance(await drive(embedder), (TransportError, ConfigError))


async def test_tls_that_fails():
    """A refused certificate, and a server that speaks no TLS."""
    authority = Authority()
    async with serving(nothing, context=authority.server("127.0.0.1")) as server, serving(hang_up) as other:
        for url in (server.url, other.url.replace("http:", "https:")):
            async with embedkit.connect(
                "openai:m", api_key=KEY, base_url=url, retry=FAST, connect_timeout=0.1
            ) as embedder:
                assert isinstance(await drive(embedder), TransportError)


@pytest.mark.parametrize("how", ["proxy=", "environment"])
async def test_proxies_that_fail(how, monkeypatch):
    """A proxy that refuses, is not there, is unknown, or quotes what it was told: its password never shows."""
    user = f"PLANTED-user:{quote(PASSWORD, safe='')}@"

    async def gossip(talk):
        head = await talk.reader.readuntil(b"\r\n\r\n")
        await talk.say(
            reply(head, "407 Proxy Authentication Required", x_request_id=parsed(head[:-4])[1]["proxy-authorization"])
        )

    async with proxying({}, status="403 Forbidden") as refusing, serving(gossip) as gossiping:
        for proxy in (
            refusing.url,
            gossiping.url.removesuffix("/v1"),
            await closed_port(),
            f"http://{NOWHERE}",
            "https://127.0.0.1:1",
        ):
            for scheme in ("http", "https"):
                settings = {}
                if how == "proxy=":
                    settings = {"proxy": proxy.replace("://", f"://{user}")}
                else:
                    monkeypatch.setenv(f"{scheme.upper()}_PROXY", proxy.replace("://", f"://{user}"))
                async with embedkit.connect(
                    "openai:m", api_key=KEY, base_url=f"{scheme}://{NAME}/v1", retry=FAST, **settings
                ) as embedder:
                    assert isinstance(await drive(embedder), EmbedkitError)


async def test_a_session_with_keys_of_its_own():
    """Headers and the password of the caller's own session are quoted back no more than ours."""
    for status in ("200 OK", "401 No", "503 Busy"):
        for extra in ({"headers": {"Authorization": f"Bearer {KEY}"}}, {"headers": {"x-key": KEY}}):
            async with serving(quoting(status)) as server, aiohttp.ClientSession(**extra) as session:
                embedder = embedkit.connect("compatible:m", base_url=server.url, session=session, retry=FAST)
                assert isinstance(await drive(embedder), EmbedkitError)


async def test_cancelled_on_the_wire():
    """A call cancelled while its request is out shows nothing, of ours, in its traceback."""
    async with serving(nothing) as server, embedkit.connect("openai:m", api_key=KEY, base_url=server.url) as embedder:
        call = asyncio.create_task(embedder.embed(["a"]))
        while not server.opened:
            await asyncio.sleep(0)
        call.cancel()
        try:
            await call
        except asyncio.CancelledError as error:
            clean(shown(error), "cancelled")
        else:
            pytest.fail("it was not cancelled")
        clean([f"{call!r} {call.get_stack()!r}"], "task")


# --- functions, junk, ways to show -----------------------------------------------------------------------------------


class Vault(Exception):
    """The caller's own."""


@pytest.mark.parametrize("junk", [KEY.encode(), [KEY], {"key": KEY}, f"{KEY}\nx", KEY + "ü", Vault()], ids=repr)
async def test_a_function_that_gives_something_else(junk):
    """Bytes, a list, a key with a line break in it: what was given does
    not show, nor does it when the function raises after giving keys.
    """

    def key():
        if isinstance(junk, Exception):
            raise junk
        return junk

    async def coroutine():
        return key()

    for source in (key, coroutine):
        await drive(embedkit.connect("openai:m", api_key=source, organization=KEY, exchange=FakeExchange([])))


WRONG = [
    {"api_key": KEY.encode()}, {"api_key": f"{KEY} {KEY}"}, {"api_key": KEY + "\x00"},
    {"headers": {"x-key": KEY + "\n"}},
    {"headers": {"x-key": KEY.encode()}}, {"base_url": f"ftp://u:{KEY}@h/v1"}, {"base_url": f"http://u:{KEY}@/v1"},
    {"base_url": f"http://h:x/v1?key={KEY}"}, {"base_url": f"https://h/v1?key={KEY}#{KEY}"},
    {"proxy": f"socks5://u:{KEY}@h:1"},
    {"proxy": f"u:{KEY}@h:1"}, {"base_url": "http://u:PLANTED@h/v1", "api_key": KEY}, {"organization": KEY.encode()},
    {"apikey": KEY}, {"nonsense": KEY}, {"timeout": -1, "api_key": KEY}, {"session": KEY}, {"ssl": 7, "api_key": KEY},
    {"exchange": 7, "api_key": KEY}, {"limits": 7, "api_key": KEY}, {"extra": {KEY: object()}, "max_concurrency": 0},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: next(iter(wrong)))
def test_what_connect_refuses(wrong):
    """A set-up that cannot work is refused without its secrets being named."""
    try:
        embedder = embedkit.connect("openai:m", **{"api_key": "sk-of-no-interest", **wrong})
    except (ConfigError, TypeError) as error:
        texts = [
            text for text in shown(error) if " = " not in text.partition("\n")[0]
        ]  # connect's own frame holds its arguments
        clean(texts, "refused")
    else:
        clean(told(embedder), "accepted")


async def test_pickles_of_what_came_of_it():
    """An error, its partial result and an event travel without
    the key; an embedder's pickle is the caller's own copy of it.
    """
    answers = [{"data": [{"embedding": [1.0]}]}, *[response(f"no {KEY}", 500)] * 2]
    exchange = FakeExchange(answers)
    embedder = embedkit.connect("openai:m", api_key=KEY, exchange=exchange, limits=embedkit.Limits(max_texts=1), max_concurrency=1, retry=RetryPolicy(attempts=1))  # fmt: skip
    with pytest.raises(EmbedkitError) as caught:
        await embedder.embed(["a", "b"])

    partial = caught.value.partial
    assert np.isnan(partial.vectors[1]).all()
    clean([repr(partial), str(partial), pickle.dumps(caught.value).decode("latin-1")], "pickle")


async def test_what_things_show_of_themselves():
    """A request, a signed one, a response, settings, a target: each has a repr without secrets."""
    exchange = FakeExchange([{"data": [{"embedding": [1.0]}]}])
    url = f"http://host.test/v1?key={QUOTED}"
    embedder = embedkit.connect("openai:m", api_key=KEY, base_url=url, headers={"x-k": KEY}, exchange=exchange)
    await embedder.embed("a")
    [signed] = exchange.requests
    settings = HttpSettings(proxy=f"http://u:{PASSWORD}@h")

    assert KEY in signed.headers["authorization"]
    clean(
        map(
            repr,
            (
                signed,
                Request(f"http://u:{QUOTED}@h/v1?key={KEY}"),
                response(KEY),
                settings,
                AiohttpExchange(settings),
                embedder,
            ),
        )
    )
    clean(
        map(
            repr, (embedder._target, embedder._codec, embedder._sources, embedder._headers, [embedder], {"e": embedder})
        )
    )
    clean([json.dumps(embedder, default=repr), f"{embedder}", f"{embedder!s}"])


async def test_an_exchange_of_the_callers():
    """What another exchange raises is cleansed as what ours does."""
    for error in (TransportError(f"cannot reach http://h?key={KEY}"), DecodeError(f"{KEY} is no vector")):
        await drive(
            embedkit.connect("openai:m", api_key=KEY, exchange=FakeExchange([error]), retry=RetryPolicy(attempts=1))
        )


# --- the command line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "status"),
    [("embed", "401 No"), ("embed", "200 OK"), ("check", "401 No"), ("check", "503 Busy"), ("check", "")],
)
def test_the_command_line(command, status, tmp_path):
    """Its stderr, --traceback included, never shows a key: of the environment, of the URL, or quoted back."""

    def gossip(connection, server):
        while status and (seen := heard(connection)) is not None:
            text = f"{seen.line} {seen.headers}"
            connection.sendall(reply(as_json(text), status, x_request_id=text, retry_after="500"))

    (tmp_path / "lines.txt").write_text("a\nb\n")
    with Threaded(gossip) as server:
        words = ["embed", "lines.txt", "-o", "out.npy"] if command == "embed" else ["check"]
        model = ["-m", "openai:m"] if command == "embed" else ["openai:m"]
        url = server.url if status else "http://127.0.0.1:1"
        found = subprocess.run(
            [sys.executable, "-m", "embedkit", *words, *model, "--base-url", f"{url}?key={QUOTED}",
             "--api-key-env", "MY_KEY", "--traceback"],
            capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False,
            env={"MY_KEY": KEY, "PYTHONPATH": str(ROOT.parent), "PATH": "", "EMBEDKIT_RETRIES": "0"},
        )  # fmt: skip

    assert found.returncode == 1, found.stderr
    assert "Traceback" in found.stderr
    clean([found.stderr, found.stdout], "output")
