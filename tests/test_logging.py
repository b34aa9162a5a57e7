"""The logger `embedkit`: what it says at which level, with which fields, and that no key and no text is ever in it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import subprocess
import sys
from base64 import b64encode
from urllib.parse import quote

import pytest

import embedkit
from benchmarks.virtual import VirtualLoop
from embedkit import EmbedkitError, Limits, Rate, RetryPolicy, TransportError, TransportTimeoutError
from embedkit._logging import LOG, Interval, host_of
from embedkit.testing import FakeEmbedder, FakeExchange, response

pytestmark = pytest.mark.anyio
NOW = RetryPolicy(attempts=3, initial=0.0)
BUSY = response({"error": {"message": "busy"}}, 503)
BOTH = ["http://a.test/v1", "http://b.test/v1"]
FIELDS = ("attempt", "wait", "status", "host")


def good(request):
    texts = json.loads(request.body)["input"]
    rows = [{"index": row, "embedding": [1.0, 0.0]} for row in range(len(texts) if isinstance(texts, list) else 1)]
    return response({"data": rows})


def connect(answers=good, **settings):
    settings = {"base_url": "http://h.test:8080/v1", "retry": NOW, **settings}
    return embedkit.connect("compatible:m", exchange=FakeExchange(answers), **settings)


def script(*answers):
    """These answers, then good ones."""
    left = list(answers)
    return lambda request: left.pop(0) if left else good(request)


@pytest.fixture
def told(caplog):
    """(level, fields, message) of each record so far."""
    caplog.set_level(logging.DEBUG, "embedkit")

    def records(level=None):
        return [
            (record.levelname, *(getattr(record, name) for name in FIELDS), record.getMessage())
            for record in caplog.records
            if record.name == "embedkit" and level in (None, record.levelname)
        ]

    return records


def virtually(main, *embedders):
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        for embedder in embedders:
            inner = getattr(embedder, "inner", embedder)
            for each in (inner, *getattr(inner, "_embedders", ())):
                each._clock = runner.get_loop().time
        return runner.run(main())


# --- what is said ----------------------------------------------------------------------------------------------------


async def test_each_attempt_at_debug(told):
    """When it leaves and when it ends, with number, status and host."""
    await connect(script(BUSY)).embed(["a", "b"])
    found = told("DEBUG")

    assert [(attempt, status, host) for _, attempt, _, status, host, _ in found] == [
        (1, None, "h.test:8080"), (1, 503, "h.test:8080"), (2, None, "h.test:8080"), (2, 200, "h.test:8080"),
    ]  # fmt: skip
    assert "attempt 1 to h.test:8080 leaves, with 2 texts" in found[0][-1]
    assert "status 503, ServerError" in found[1][-1]
    assert "status 200" in found[3][-1]


async def test_each_retry_at_info(told):
    """With the number of the attempt that failed, the wait and the status."""
    await connect(script(BUSY, TransportError("reset"))).embed(["a"])

    assert [(attempt, wait, status) for _, attempt, wait, status, _, _ in told("INFO")] == [
        (1, 0.0, 503),
        (2, 0.0, None),
    ]
    assert "failed: TransportError; the next follows in 0.00 s" in told("INFO")[1][-1]


async def test_each_retry_in_a_pool(told):
    """What goes to another endpoint is a retry too, of the one that failed."""
    await connect(script(BUSY), base_url=BOTH).embed(["a"])
    found = told("INFO")

    assert [(attempt, status) for _, attempt, _, status, _, _ in found] == [(1, 503)]
    assert found[0][4] in ("a.test", "b.test")


async def test_a_call_that_is_given_up_at_warning(told):
    """Once per call, with the attempts and the status; whatever kind of embedder."""
    for settings in ({}, {"coalesce": True}, {"long_text": "mean"}):
        before = len(told("WARNING"))
        with pytest.raises(EmbedkitError):
            await connect(lambda _: BUSY, **settings).embed(["a"])
        found = [record for record in told("WARNING")[before:] if "given up" in record[-1]]
        assert [record[1:5] for record in found] == [(3, None, 503, "h.test:8080")]
    with pytest.raises(EmbedkitError):
        await connect(lambda _: BUSY, base_url=BOTH, retry=RetryPolicy(attempts=2)).embed(["a"])
    assert told("WARNING")[-1][1:5] == (2, None, 503, "a.test, b.test")


async def test_what_is_the_callers_own_fault_is_not_logged(told):
    """A wrong option, an empty text and a type are exceptions enough."""
    embedder = connect()
    for wrong, options in ((["a"], {"dimensions": 0}), (["\ud800"], {}), (7, {}), (["a"], {"total_timeout": -1})):
        with pytest.raises((EmbedkitError, TypeError)):
            await embedder.embed(wrong, **options)

    assert told("WARNING") == []


def test_the_end_of_a_calls_time_at_warning(told):
    """`total_timeout` gives it up."""

    async def never(request):
        await asyncio.sleep(1e9)

    async def main():
        with pytest.raises(TransportTimeoutError):
            await embedder.embed(["a"], total_timeout=3)

    for settings in ({}, {"coalesce": True}, {"long_text": "mean"}):
        before = len(told("WARNING"))
        embedder = connect(never, **settings)
        virtually(main, embedder)
        found = told("WARNING")[before:]
        assert [record[1:5] for record in found] == [(1, None, None, "h.test:8080")]
        assert "after 3 s: TransportTimeoutError" in found[0][-1]


def test_a_cool_down_at_warning(told):
    """A 429 with a hint stops everyone: said once, with the seconds, however many are refused."""
    limited = True

    async def answer(request):
        await asyncio.sleep(0.1)
        return response("slow", 429, {"retry-after": "7"}) if limited else good(request)

    async def main():
        nonlocal limited
        calls = [asyncio.ensure_future(embedder.embed_query(f"{number}")) for number in range(6)]
        await asyncio.sleep(1)
        limited = False
        await asyncio.gather(*calls)

    embedder = connect(answer, retry=RetryPolicy())
    virtually(main, embedder)
    found = [record for record in told("WARNING") if "nothing more is sent" in record[-1]]

    assert len(found) == 1
    assert found[0][2] == pytest.approx(7.35, abs=0.36)
    assert found[0][3:5] == (429, "h.test:8080")


def test_a_window_at_its_floor_at_warning(told):
    """One request at a time: said when it gets there, and not again while it stays."""

    async def answer(request):
        await asyncio.sleep(1)
        raise TransportTimeoutError("late")

    async def main():
        for _ in range(8):
            with pytest.raises(EmbedkitError):
                await embedder.embed_query("a")

    embedder = connect(answer, retry=RetryPolicy(attempts=1))
    virtually(main, embedder)

    assert len([record for record in told("WARNING") if "one request at a time" in record[-1]]) == 1


WAITS = {
    "requests of ours": (lambda answer: connect(answer, max_concurrency=1), "requests of ours that came before it"),
    "a rate that is told": (lambda answer: connect(answer, rate=Rate(requests_per_minute=3)), "a rate limit, for"),
    "a pool": (
        lambda answer: connect(answer, base_url=BOTH, max_concurrency=1),
        "for an endpoint or key of a.test, b.test",
    ),
    "two keys": (
        lambda answer: connect(answer, api_key=["k-1", "k-2"], max_concurrency=1),
        "for an endpoint or key of h.test",
    ),
    "coalesced": (lambda answer: connect(answer, rate=Rate(requests_per_minute=3), coalesce=True), "a rate limit, for"),
}


@pytest.mark.parametrize("wait", WAITS)
def test_a_long_wait_at_info_while_it_lasts(wait, told):
    """Whoever waits for a turn for more than some seconds is
    told of before it has one, and again when that has doubled.
    """
    make, words = WAITS[wait]

    async def answer(request):
        await asyncio.sleep(17)
        return good(request)

    async def main():
        calls = [asyncio.ensure_future(embedder.embed([f"{number}"])) for number in range(3)]
        await asyncio.sleep(6)
        early = told("INFO")
        await asyncio.sleep(5)
        later = told("INFO")
        await asyncio.gather(*calls)
        return early, later

    embedder = make(answer)
    if wait == "coalesced":
        embedder._wait = 0.0

        async def main():  # one after the other: together they would share
            await embedder.embed(["a"])
            call = asyncio.ensure_future(embedder.embed(["b"]))
            await asyncio.sleep(1)
            return await call, told("INFO")

        virtually(main, embedder)
        return
    early, later = virtually(main, embedder)

    assert early
    assert all(words in message and seconds == pytest.approx(5) for _, _, seconds, _, _, message in early)
    assert len(later) >= 2 * len(early)


def test_a_short_wait_is_not_worth_a_word(told):
    """Below some seconds nothing is said."""

    async def answer(request):
        await asyncio.sleep(1)
        return good(request)

    async def main():
        await asyncio.gather(*(embedder.embed([f"{number}"]) for number in range(4)))

    embedder = connect(answer, max_concurrency=1)
    virtually(main, embedder)

    assert told("INFO") == []


async def test_an_observer_that_fails_is_logged(caplog):
    """As an error, with its traceback; under the same logger."""
    await connect(observe=lambda event: {}[0]).embed(["a"])

    assert {record.levelname for record in caplog.records} == {"ERROR"}
    assert all(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("error", [asyncio.CancelledError, StopIteration, TimeoutError, EmbedkitError("x")], ids=repr)
async def test_no_failure_of_an_observer_reaches_the_caller(error):
    """Not even a cancellation: of a future that the observer has asked, as nothing is awaited in it."""

    def observe(event):
        raise error

    assert len(await connect(observe=observe).embed(["a"])) == 1


async def test_an_embedder_of_ones_own_is_named(told):
    """One without an address goes by the name of its provider."""

    class Own(FakeEmbedder):
        async def embed_batch(self, texts, options):
            raise embedkit.ServerError("no", status=500)

    with pytest.raises(EmbedkitError):
        await Own().embed(["a"])

    assert told()[-1][:5] == ("WARNING", 1, None, 500, "fake")


# --- how -------------------------------------------------------------------------------------------------------------


async def test_every_record_has_every_field(told, caplog):
    """A formatter that names them never fails."""
    form = logging.Formatter(" ".join(f"%({name})s" for name in FIELDS))
    with pytest.raises(EmbedkitError):
        await connect(lambda _: BUSY).embed(["a"])
    await connect(script(BUSY), base_url=BOTH).embed(["a"])

    assert len({record.levelname for record in caplog.records}) == 3
    assert all(form.format(record) for record in caplog.records if record.name == "embedkit")


def test_a_library_is_silent_unless_asked():
    """Nothing on stderr where nobody has set up logging, whatever fails; and importing the package sets up nothing."""
    script = (
        "import sys, embedkit; assert 'logging' not in sys.modules or not sys.modules['logging'].root.handlers\n"
        "from embedkit.testing import FakeExchange, response\n"
        "exchange = FakeExchange(lambda _: response('no', 503))\n"
        "client = embedkit.connect_sync('compatible:m', base_url='http://h/v1', exchange=exchange, retry=embedkit.RetryPolicy(attempts=1))\n"
        "try: client.embed(['a'])\n"
        "except embedkit.ServerError: print('failed')\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert (found.stdout, found.stderr) == ("failed\n", "")
    assert any(isinstance(handler, logging.NullHandler) for handler in LOG.handlers)


async def test_levels_are_heeded(caplog):
    """At WARNING nothing below is written, and a change of the level holds at once."""
    embedder = connect(lambda _: BUSY)
    for level, least in ((logging.WARNING, 30), (logging.INFO, 20), (logging.DEBUG, 10)):
        caplog.clear()
        caplog.set_level(level, "embedkit")
        with pytest.raises(EmbedkitError):
            await embedder.embed(["a"])
        assert min(record.levelno for record in caplog.records) == least


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://api.example.com/v1", "api.example.com"),
        ("http://me:secret@h.test:8080/v1?key=secret", "h.test:8080"),
        ("http://me:sec@ret@h.test/v1", "h.test"),
        ("https://h.test?key=secret", "h.test"),
        ("https://a.test/v1, https://b.test/v1, https://a.test/v2", "a.test, b.test"),
        ("http://[::1]:11434", "[::1]:11434"),
        ("", ""),
        ("local", ""),
    ],
)
def test_the_host_of_an_address(url, host):
    """Without user, path and query, which may hold a key."""
    assert host_of(url) == host


# --- no key and no text ----------------------------------------------------------------------------------------------

MARK = "PLANTED"
KEY = "sk-PLANTED/0123456789+abcdefghijkl"
TEXT = "a PLANTED secret of the caller's, 4111 1111 1111 1111"
BASIC = b64encode(b"PLANTED-user:PLANTED-word").decode()
PLACES = {
    "the key": {"api_key": KEY},
    "a callable": {"api_key": lambda: KEY},
    "several keys": {"api_key": [KEY, f"{KEY}2"]},
    "a header": {"headers": {"X-Secret": KEY}},
    "a header's name": {"headers": {"X-PLANTED-0123456789": "x"}},
    "headers that are asked for": {"headers": lambda: {"X-Secret": KEY, "Cookie": f"session={KEY}"}},
    "the query": {"base_url": f"http://h.test/v1?key={quote(KEY, safe='')}"},
    "the user": {"base_url": "http://PLANTED-user:PLANTED-word@h.test/v1"},
    "the path": {"base_url": f"http://h.test/{quote(KEY, safe='')}/v1"},
    "the proxy": {"proxy": "http://PLANTED-user:PLANTED-word@proxy.test:1"},
    "an option": {"extra": {"user": KEY}},
}


def quoted(request):
    """All of the request, as a server could quote it."""
    return f"{request.method} {request.url} {dict(request.headers)} {request.body.decode()} {KEY} {BASIC} {TEXT}"


def failing(status, **headers):
    def answer(request):
        words = quoted(request)
        body = {"error": {"message": words, "code": words, "type": words, "param": words}}
        return response(body, status, {**headers, "x-request-id": KEY})

    return answer


def spoilt(request):
    return response({"data": [{"index": 0, "embedding": quoted(request)}], "model": quoted(request)})


def broken(request):
    raise TransportTimeoutError(f"no answer from {quoted(request)}")


ANSWERS = {
    **{str(status): failing(status) for status in (301, 400, 401, 402, 403, 404, 413, 422, 429, 500, 503, 529)},
    "429 with a hint": failing(429, **{"retry-after": "0.01"}),
    "a success that quotes": spoilt,
    "junk": lambda request: response(quoted(request)),
    "no answer": broken,
    "good": good,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("answer", ANSWERS)
async def test_no_key_and_no_text(answer, place, caplog):
    """At DEBUG, wherever a key is and whatever a server quotes:
    not in a message, an argument, a field or a traceback.
    """
    caplog.set_level(logging.DEBUG)
    for more in ({}, {"coalesce": True}, {"hedge": True}) if place == "the key" else ({},):
        settings = {
            **PLACES[place],
            **more,
            "retry": RetryPolicy(attempts=2, initial=0.0),
            "limits": Limits(max_texts=2),
        }
        embedder = connect(ANSWERS[answer], **settings)
        for skip in ("raise", "skip"):
            with contextlib.suppress(EmbedkitError):
                await embedder.embed([TEXT, f"{TEXT}!", "x"], on_error=skip, total_timeout=2)

    assert len(caplog.records) > 3
    for record in caplog.records:
        everything = f"{record.getMessage()} {record.args!r} {vars(record)!r} {logging.Formatter().format(record)}"
        assert not any(trace in everything for trace in (MARK, "0123456789", BASIC, "4111 1111", TEXT[2:9])), everything


def test_a_wait_for_the_retry_budget_at_info(told):
    """Where the provider fails everybody, a retry that waits for a sign that it is well says so."""

    async def answer(request):
        await asyncio.sleep(0.02)
        return failing

    async def main():
        calls = [asyncio.ensure_future(embedder.embed([f"{number}"])) for number in range(30)]
        await asyncio.gather(*calls, return_exceptions=True)

    failing = response({"error": {"message": "ill"}}, 503)
    embedder = connect(answer, retry=RetryPolicy())
    virtually(main, embedder)
    waits = [record[-1] for record in told("INFO") if "for its turn" in record[-1]]

    assert waits
    assert all("it waits for the provider to be well again" in message for message in waits)


@pytest.mark.parametrize("status", [503, 429])
def test_a_retry_names_what_it_waits_for_beyond_its_backoff(status, told):
    """While the provider is ill, that is the budget; at a busy endpoint, requests that came before."""

    async def main():
        calls = [asyncio.ensure_future(embedder.embed([f"{number}"])) for number in range(40)]
        await asyncio.gather(*calls, return_exceptions=True)

    embedder = connect(lambda request: response({"error": {"message": "ill"}}, status), retry=RetryPolicy(attempts=3))
    virtually(main, embedder)
    retries = [record[-1] for record in told("INFO") if "failed" in record[-1]]

    assert any("or later: it waits for the provider to be well again" in each for each in retries)


DEAD = {
    "one endpoint": ({}, "the provider to be well again"),
    "coalesced": ({"coalesce": True}, "the provider to be well again"),
    "a pool": ({"base_url": ["http://a.test/v1", "http://b.test/v1"]}, "all fail, the next to be asked with"),
}


@pytest.mark.parametrize("callers", [1, 200])
@pytest.mark.parametrize("kind", DEAD)
def test_patient_callers_of_a_dead_provider_are_told_why_nothing_happens(kind, callers, told):
    """While the wait lasts some lines say so, at intervals that double, however many callers wait."""
    settings, words = DEAD[kind]

    async def answer(request):
        await asyncio.sleep(0.02)
        return response({"error": {"message": "ill"}}, 503)

    async def main():
        calls = [asyncio.ensure_future(embedder.embed([f"{number}"])) for number in range(callers)]
        await asyncio.sleep(45)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    embedder = connect(answer, retry=RetryPolicy(attempts=None, deadline=1000), **settings)
    virtually(main, embedder)
    waits = [record[-1] for record in told("INFO") if "has waited" in record[-1]]
    retries = [record[-1] for record in told("INFO") if "failed" in record[-1]]

    assert len(waits) <= 6
    assert (waits and any(words in each for each in waits)) if callers > 1 else (waits or retries)
    assert len(retries) <= 2 * callers + 100


def test_intervals_double_and_begin_anew():
    """Of all who wait one tells, after 5 s, 10 s, 20 s …; after a time without any wait it begins again."""
    interval = Interval()
    told = [second for second in range(100) if interval.over(float(second))]
    later = [second for second in range(400, 420) if interval.over(float(second))]

    assert told == [0, 5, 15, 35, 75]
    assert later == [400, 405, 415]
