"""The embedder without `await`: in scripts, threads, loops, forks and dying interpreters."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import anyio
import numpy as np
import pytest

import embedkit
from embedkit import ConfigError, Embedder, Embeddings, InvalidInputError, Limits, SyncEmbedder, Usage
from embedkit.sync.portal import current
from embedkit.testing import FakeEmbedder, FakeExchange
from tests.embedders.test_base import Own, rows, same

HERE = Path(__file__).parent.parent.parent


def texts_of(count):
    return [str(number) for number in range(count)]


def run(script, *flags, timeout=30, code=0, err=""):
    """Run a script of its own; its stdout, once its exit code and stderr are as claimed."""
    found = subprocess.run(
        [sys.executable, *flags, "-c", PRELUDE + textwrap.dedent(script)], capture_output=True, text=True, timeout=timeout,
        cwd=HERE, check=False,
    )  # fmt: skip
    assert (code, err) == (found.returncode, found.stderr), found.stdout
    return found.stdout


STRICT = ("-X", "dev", "-W", "error")
PRELUDE = textwrap.dedent(
    """
    import contextlib, json, os, signal, socket, sys, threading, time
    import embedkit
    from embedkit.testing import FakeEmbedder

    class Server:
        '''Listens; answers every request with so many unit vectors, or never.'''

        def __init__(self, answers=True):
            self.socket = socket.create_server(("127.0.0.1", 0))
            self.url = "http://127.0.0.1:%d/v1" % self.socket.getsockname()[1]
            self.answers = answers
            self.asked = threading.Event()
            threading.Thread(target=self.serve, daemon=True).start()

        def serve(self):
            while True:
                connection, _ = self.socket.accept()
                try:
                    # A number, for a thread that is cut off before it begins complains of no open socket.
                    threading.Thread(target=self.speak, args=(connection.detach(),), daemon=True).start()
                except RuntimeError:  # 3.12 starts no thread at its end
                    self.socket.close()
                    return

        def speak(self, number):
            with socket.socket(fileno=number) as connection, contextlib.suppress(OSError):  # the other side may be gone
                data = b""
                while True:
                    got = connection.recv(65536)
                    if not got:
                        return
                    data += got
                    if b"\\r\\n\\r\\n" not in data:
                        continue
                    head, body = data.split(b"\\r\\n\\r\\n", 1)
                    size = int([l for l in head.lower().split(b"\\r\\n") if l.startswith(b"content-length")][0].split(b":")[1])
                    if len(body) < size:
                        continue
                    data = b""
                    self.asked.set()
                    if not self.answers:
                        continue
                    count = len(json.loads(body)["input"])
                    out = json.dumps({"data": [{"embedding": [1.0, 0.0]}] * count}).encode()
                    connection.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-length: %d\\r\\n\\r\\n" % len(out) + out)
    """
)


class Slow(Own):
    """Takes a moment for every batch."""

    async def latency(self, texts):
        await anyio.sleep(0.002)


# --- plainly ---------------------------------------------------------------------------------------------------------


def test_the_three_verbs():
    """embed, embed_query and stream give what the async ones give."""
    embedder = SyncEmbedder(Own(3))

    assert same(rows(texts_of(10)), embedder.embed(texts_of(10)).vectors)
    assert same(rows(["why"])[0], embedder.embed_query("why"))
    assert [part.start for part in embedder.stream(texts_of(10))] == [0, 3, 6, 9]
    assert embedder.embed([]).vectors.shape == (0, 0)


def test_it_shows_what_it_wraps():
    """provider, model, limits, options and max_concurrency are those of the embedder; anything else is an
    AttributeError.
    """
    own = Own(3, provider="mine", model="m")
    embedder = SyncEmbedder(own)

    assert (embedder.provider, embedder.model, embedder.limits, embedder.options) == (
        "mine",
        "m",
        own.limits,
        own.options,
    )
    assert embedder.max_concurrency == own.max_concurrency
    assert repr(embedder) == f"SyncEmbedder({own!r})"

    with pytest.raises(AttributeError):
        embedder.modell  # noqa: B018 (the access is the test)


def test_the_signatures_are_those_of_the_embedder():
    """Every verb has exactly the parameters of the async one, defaults and types included; connect_sync those of
    connect.
    """
    for verb in ("embed", "embed_query", "stream"):
        ours, theirs = inspect.signature(getattr(SyncEmbedder, verb)), inspect.signature(getattr(Embedder, verb))

        assert theirs.parameters == ours.parameters

    assert inspect.signature(embedkit.connect).parameters == inspect.signature(embedkit.connect_sync).parameters
    assert embedkit.connect_sync.__name__ == "connect_sync"


def test_every_option_reaches_the_embedder():
    """No keyword is lost or swapped on the way."""
    seen = []

    class Asked(Own):
        async def embed_batch(self, texts, options):
            seen.append(options)
            return await super().embed_batch(texts, options)

    options = {
        "input_type": "document",
        "dimensions": 4,
        "dtype": "float32",
        "truncate": "end",
        "normalize": True,
        "extra": {"a": 1},
    }
    embedder = SyncEmbedder(Asked())
    embedder.embed(["a"], **options)
    embedder.embed_query("a", **options)
    list(embedder.stream(["a"], **options))

    assert [embedkit.Options(**options)] * 3 == seen

    seen.clear()
    embedder.embed_query("a")

    assert [embedkit.Options(input_type="query")] == seen


def test_connect_sync_is_connect():
    """connect_sync takes what connect takes, unknown keywords refused alike, and gives a SyncEmbedder."""
    exchange = FakeExchange([{"data": [{"embedding": [1.0, 2.0]}]}])
    with embedkit.connect_sync("compatible:m", base_url="http://h/v1", exchange=exchange) as embedder:
        assert embedder.embed(["a"]).vectors.tolist() == [[1, 2]]

    assert exchange.closed

    with pytest.raises(TypeError, match="unexpected keyword nonsense"):
        embedkit.connect_sync("compatible:m", base_url="http://h/v1", nonsense=1)


@pytest.mark.parametrize("other", [None, "openai:m", SyncEmbedder(FakeEmbedder())], ids=["None", "str", "SyncEmbedder"])
def test_what_is_no_embedder_is_refused(other):
    """SyncEmbedder wraps an Embedder, and says what it was given instead."""
    with pytest.raises(TypeError, match=f"takes an Embedder, not {type(other).__name__}"):
        SyncEmbedder(other)


def test_a_borrowed_session_is_refused():
    """A caller's own session belongs to the caller's loop."""

    async def main():
        import aiohttp

        async with aiohttp.ClientSession() as session:
            embedder = embedkit.connect("compatible:m", base_url="http://h/v1", session=session)
            with pytest.raises(ConfigError, match="session"):
                SyncEmbedder(embedder)

    asyncio.run(main())


def test_errors_come_out_as_they_are():
    """An error has its rows, its partial and a traceback from the caller's line into the embedder."""
    embedder = SyncEmbedder(Own(2, workers=1, bad={"c"}))

    with pytest.raises(InvalidInputError) as caught:
        embedder.embed(list("abcd"))

    assert caught.value.rows == (2,)
    assert same(rows(["a", "b"]), caught.value.partial.vectors[:2])
    assert {"test_errors_come_out_as_they_are", "judge"} <= {entry.name for entry in caught.traceback}

    result = embedder.embed(list("abcd"), on_error="skip")

    assert list(result.failures) == [2]


def test_closing_is_harmless():
    """close() before any call, twice, and use after it: all fine."""
    closed = []

    class Closing(Own):
        async def aclose(self):
            closed.append(True)

    embedder = SyncEmbedder(Closing())
    embedder.close()
    embedder.close()

    with embedder as same_one:
        assert same_one is embedder
        embedder.embed(["a"])

    assert closed == [True] * 3
    assert same(rows(["a"]), embedder.embed(["a"]).vectors)


def test_the_block_closes_whatever_happens():
    """An exception in the block closes too, and comes out."""
    exchange = FakeExchange([{"data": [{"embedding": [1.0]}]}])
    embedder = embedkit.connect_sync("compatible:m", base_url="http://h/v1", exchange=exchange)

    with pytest.raises(ZeroDivisionError), embedder:
        embedder.embed(["a"])
        _ = 1 / 0

    assert exchange.closed


def test_context_variables_are_seen():
    """What the caller has set in its context (a trace, a tenant) is there inside the call."""
    tenant = contextvars.ContextVar("tenant", default="nobody")
    seen = []

    class Asked(Own):
        def judge(self, texts):
            seen.append(tenant.get())

    tenant.set("me")
    SyncEmbedder(Asked()).embed(["a"])

    assert seen == ["me"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), KeyError("bug"), StopIteration(1)], ids=repr)
def test_whatever_is_raised_inside_the_loop_survives(error):
    """Even an embed_batch that calls sys.exit() raises that in the caller, and the next call works."""

    class Dying(Own):
        def judge(self, texts):
            if texts == ["die"]:
                raise error

    embedder = SyncEmbedder(Dying())

    with pytest.raises((type(error), RuntimeError)) as caught:
        embedder.embed(["die"])

    assert type(caught.value) is (RuntimeError if isinstance(error, StopIteration) else type(error))
    assert same(rows(["a"]), embedder.embed(["a"]).vectors)


# --- loops and threads -----------------------------------------------------------------------------------------------


def test_inside_a_running_loop():
    """In a notebook's cell, where a loop runs already, a sync call simply works; the async embedder beside it too."""
    own = Own(3)
    embedder = SyncEmbedder(own)

    async def cell():
        first = embedder.embed(texts_of(10)).vectors
        second = (await own.embed(texts_of(10))).vectors
        parts = [part.start for part in embedder.stream(texts_of(5))]
        return first, second, parts

    first, second, parts = asyncio.run(cell())

    assert same(first, second)
    assert parts == [0, 3]


def test_a_handler_of_a_loop_may_call():
    """The same from a callback of a running loop, and from a task among others."""
    embedder, found = SyncEmbedder(Own(3)), []

    async def main():
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: found.append(embedder.embed(["a"])))

        async def task():
            found.append(embedder.embed(["b"]))

        await asyncio.gather(task(), task())

    asyncio.run(main())

    assert len(found) == 3


def test_one_embedder_over_two_loops():
    """An HTTP embedder used with await here and through SyncEmbedder there keeps a line per loop."""
    exchange = FakeExchange(lambda request: {"data": [{"embedding": [1.0]}]})
    embedder = embedkit.connect("compatible:m", base_url="http://h/v1", exchange=exchange)
    sync = SyncEmbedder(embedder)

    async def main():
        for _ in range(3):
            await embedder.embed(["a"])
            sync.embed(["a"])

    asyncio.run(main())
    asyncio.run(main())

    assert len(exchange.requests) == 12


def test_many_threads_at_once():
    """Calls from many threads run side by side on the one portal thread, and each gets its own rows."""
    embedder = SyncEmbedder(Slow(3))
    start = threading.Barrier(16)

    def work(number):
        start.wait()
        texts = [f"{number}:{each}" for each in range(10)]
        whole = embedder.embed(texts).vectors
        parts = np.vstack([part.vectors for part in embedder.stream(texts)])
        return same(rows(texts), whole) and same(whole, parts)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(16)))

    assert [thread.name for thread in threading.enumerate()].count("embedkit") == 1


def test_the_first_call_from_many_threads_starts_one_loop():
    """However many threads make the first call at once, there is one portal thread."""
    out = run(
        """
        embedder = embedkit.SyncEmbedder(FakeEmbedder())
        start = threading.Barrier(20)
        def work():
            start.wait()
            embedder.embed(["a"])
        threads = [threading.Thread(target=work) for _ in range(20)]
        [t.start() for t in threads]; [t.join() for t in threads]
        print([t.name for t in threading.enumerate()].count("embedkit"))
        """,
        *STRICT,
    )

    assert out == "1\n"


def test_a_call_on_the_portal_thread_is_refused():
    """An embed_batch that makes a sync call would wait for itself: RuntimeError at once, and the loop lives on."""

    class Confused(Own):
        def judge(self, texts):
            if texts == ["outer"]:
                embedder.embed(["inner"])

    embedder = SyncEmbedder(Confused())

    with pytest.raises(RuntimeError, match="embedkit's own event loop"):
        embedder.embed(["outer"])

    assert same(rows(["a"]), embedder.embed(["a"]).vectors)


# --- streams ---------------------------------------------------------------------------------------------------------


def test_texts_are_read_in_the_callers_thread():
    """Embed and stream read a generator where the call is made, so one over a database cursor works."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE texts (text)")
        database.executemany("INSERT INTO texts VALUES (?)", [(text,) for text in texts_of(1000)])
        query = "SELECT text FROM texts ORDER BY rowid"
        embedder = SyncEmbedder(Own(64))
        whole = embedder.embed(text for (text,) in database.execute(query)).vectors
        parts = [part.vectors for part in embedder.stream(text for (text,) in database.execute(query))]

    assert same(rows(texts_of(1000)), whole)
    assert same(whole, np.vstack(parts))


def test_a_source_may_call_the_embedder():
    """A generator that calls the sync embedder itself, within embed or stream, gets its answer."""
    embedder = SyncEmbedder(Own(2))

    def source():
        for text in texts_of(9):
            assert embedder.embed_query(text).shape == (4,)
            yield text

    assert same(rows(texts_of(9)), embedder.embed(source()).vectors)
    assert [part.start for part in embedder.stream(source())] == [0, 2, 4, 6, 8]


def test_a_source_that_blocks_blocks_only_its_caller():
    """While one thread's source waits, other threads' calls go through."""
    embedder, freed = SyncEmbedder(Own(1)), threading.Event()

    def source():
        yield "a"
        assert freed.wait(20)
        yield "b"

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(lambda: [part.start for part in embedder.stream(source())])
        for _ in range(5):
            embedder.embed(["x"])
        freed.set()

        assert slow.result() == [0, 1]


def test_reading_ahead_is_bounded():
    """The source is read at most 2 * workers parts, and a few in hand, ahead of the reader."""
    read = []

    def source():
        for text in texts_of(10_000):
            read.append(text)
            yield text

    embedder = SyncEmbedder(Own(5, workers=3))
    with closing(embedder.stream(source())) as parts:
        for taken, _ in zip(range(1, 30), parts, strict=False):
            assert len(read) <= (taken + 2 * 3 + 3) * 5


def test_an_async_source_is_read_on_the_loop():
    """An async iterable will do as well."""

    async def source():
        for text in texts_of(7):
            await anyio.sleep(0)
            yield text

    assert [part.start for part in SyncEmbedder(Own(3)).stream(source())] == [0, 3, 6]


@pytest.mark.parametrize("source", ["text", b"bytes", None, 7])
def test_what_is_no_source_is_refused_at_once(source):
    """The TypeError comes with the call, not with the first part."""
    with pytest.raises(TypeError, match=r"stream\(\) takes an iterable"):
        SyncEmbedder(Own()).stream(source)


@pytest.mark.parametrize("count", [0, 3, 4, 7])
def test_a_source_that_fails_ends_the_stream(count):
    """What the source raises comes out bare, after all parts of the texts before it."""

    def source():
        yield from texts_of(count)
        raise KeyError("source")

    found = []

    with pytest.raises(KeyError, match="source"):
        for part in SyncEmbedder(Own(4)).stream(source()):
            found.extend(part.vectors)

    assert len(found) == count


def test_an_interrupt_in_the_source_ends_the_stream():
    """Ctrl-C that hits the source comes out as itself, and the work stops."""
    own = Slow(1, workers=2)

    def source():
        yield from texts_of(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(SyncEmbedder(own).stream(source()))

    SyncEmbedder(own).embed(["a"])
    wait_until(lambda: own.flying == 0)


def test_what_is_no_string_is_named_by_its_row():
    """Row numbers are those of the stream, as in the async one."""
    with pytest.raises(TypeError, match="text 5 of the stream is int"):
        list(SyncEmbedder(Own(2)).stream([*texts_of(5), 5]))


def test_leaving_a_stream_early_stops_the_work():
    """After `break`, close() or being forgotten, nothing runs on, and later calls are untouched."""
    own = Slow(1, workers=2)
    embedder = SyncEmbedder(own)
    for _ in embedder.stream(texts_of(10_000)):
        break
    parts = embedder.stream(texts_of(10_000))
    next(parts)
    parts.close()
    kept = embedder.stream(texts_of(10_000))
    next(kept)
    del kept
    gc.collect()
    wait_until(lambda: own.flying == 0)
    sent = len(own.calls)
    embedder.embed(["a"])

    assert len(own.calls) == sent + 1
    assert sent < 50


def wait_until(holds):
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_stream_collected_on_the_portal_thread_is_quiet():
    """A forgotten stream may be collected by any thread, the loop's own included, without a word."""
    own = Own(1)
    embedder, cycle = SyncEmbedder(own), []
    gc.collect()
    gc.disable()
    try:
        parts = embedder.stream(texts_of(100))
        next(parts)
        cycle.append((cycle, parts))
        del cycle, parts

        class Collecting(Own):
            def judge(self, texts):
                gc.collect()

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            SyncEmbedder(Collecting()).embed(["a"])
    finally:
        gc.enable()
    wait_until(lambda: own.flying == 0)


def test_two_streams_in_one_thread():
    """Streams may be read in turns."""
    embedder = SyncEmbedder(Own(3))
    pairs = zip(embedder.stream(texts_of(12)), embedder.stream(texts_of(12)), strict=True)

    assert [(first.start, second.start) for first, second in pairs] == [(0, 0), (3, 3), (6, 6), (9, 9)]


# --- pickles and forks -----------------------------------------------------------------------------------------------


def test_it_pickles_its_configuration():
    """A SyncEmbedder travels, used or not, and works where it arrives."""
    embedder = SyncEmbedder(FakeEmbedder(5))
    before = embedder.embed(["a"]).vectors
    twin = pickle.loads(pickle.dumps(embedder))  # noqa: S301 (our own bytes)

    assert same(before, twin.embed(["a"]).vectors)

    web = embedkit.connect_sync("openai:m", api_key="sk-mine", dimensions=7)
    copy = pickle.loads(pickle.dumps(web))  # noqa: S301 (our own bytes)

    assert (copy.provider, copy.model, copy.options) == ("openai", "m", web.options)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_after_a_fork():
    """A child of os.fork makes a loop of its own, whatever the parent has open; both go on, and both end cleanly."""
    out = run(
        """
        server = Server()
        embedder = embedkit.connect_sync("compatible:m", base_url=server.url)
        fake = embedkit.SyncEmbedder(FakeEmbedder())
        assert embedder.embed(["a"]).vectors.shape == (1, 2)
        parts = fake.stream(map(str, range(100_000)))
        next(parts)
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: forking beside a thread
        child = os.fork()
        assert fake.embed(["a"]).vectors.shape == (1, 8)
        assert embedder.embed(["a", "b"]).vectors.shape == (2, 2)
        if child == 0:
            try:
                next(parts)
            except RuntimeError as error:
                assert "fork" in str(error)
            embedder.close()
            print("child", flush=True)
            sys.exit(7)
        _, status = os.waitpid(child, 0)
        assert embedder.embed(["a", "b"]).vectors.shape == (2, 2)
        next(parts)
        print("parent", os.waitstatus_to_exitcode(status))
        """,
        *STRICT,
    )

    assert out == "child\nparent 7\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_in_processes_of_multiprocessing(method):
    """A pool of forked or spawned processes takes a used embedder along."""
    out = run(
        f"""
        import multiprocessing, warnings
        if __name__ == "__main__":
            warnings.simplefilter("ignore", DeprecationWarning)
            embedder = embedkit.SyncEmbedder(FakeEmbedder())
            embedder.embed(["a"])
            with multiprocessing.get_context({method!r}).Pool(2) as pool:
                print([result.vectors.shape for result in pool.map(embedder.embed, [["a"], ["b", "c"], ["d"]])])
        """
    )

    assert out == "[(1, 8), (2, 8), (1, 8)]\n"


# --- Ctrl-C ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["embedder.embed(['a'])", "embedder.embed_query('a')", "list(embedder.stream(['a']))"])
def test_ctrl_c_ends_a_call_that_hangs(verb):
    """SIGINT while a server does not answer: KeyboardInterrupt within a moment, and the next call works."""
    out = run(
        f"""
        silent, server = Server(answers=False), Server()
        embedder = embedkit.connect_sync("compatible:m", base_url=silent.url)
        def interrupt():
            silent.asked.wait()
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt, daemon=True).start()
        try:
            {verb}
        except KeyboardInterrupt:
            print("interrupted")
        with embedkit.connect_sync("compatible:m", base_url=server.url) as other:
            print(other.embed(["a"]).vectors.shape)
        embedder.close()
        """,
        *STRICT,
    )

    assert out == "interrupted\n(1, 2)\n"


def test_ctrl_c_ends_the_program():
    """Uncaught, the interrupt ends the process at once, with Python's own exit code and one traceback."""
    process = subprocess.Popen(
        [sys.executable, *STRICT, "-c", PRELUDE + textwrap.dedent(
            """
            import numpy  # loaded beside the request it would exec() in another thread, and CPython then forgets the interrupt's exit code
            silent = Server(answers=False)
            embedder = embedkit.connect_sync("compatible:m", base_url=silent.url)
            threading.Thread(target=lambda: (silent.asked.wait(), print("asked", flush=True)), daemon=True).start()
            embedder.embed(["a"])
            """
        )],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=HERE,
    )  # fmt: skip
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=15)

    assert process.returncode == -signal.SIGINT
    assert err.count("Traceback") == 1
    assert err.rstrip().endswith("KeyboardInterrupt")


def test_ctrl_c_gets_through_a_loop_that_is_busy():
    """Even while an embed_batch keeps the loop busy, the caller is free at once."""
    out = run(
        """
        from embedkit import Embedder, Embeddings
        entered, left = threading.Event(), threading.Event()
        class Busy(Embedder):
            async def embed_batch(self, texts, options):
                entered.set()
                time.sleep(2)
                left.set()
                return Embeddings([[1.0]] * len(texts))
        embedder = embedkit.SyncEmbedder(Busy())
        threading.Thread(target=lambda: (entered.wait(), os.kill(os.getpid(), signal.SIGINT)), daemon=True).start()
        try:
            embedder.embed(["a"])
        except KeyboardInterrupt:
            print("interrupted", "late" if left.is_set() else "at once", flush=True)
        """,
        *STRICT,
    )

    assert out == "interrupted at once\n"


# --- the end of the interpreter --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "code", "err"),
    [
        ("", 0, ""),
        ("embedder.close()", 0, ""),
        ("sys.exit(5)", 5, ""),
        ("with embedder: sys.exit(5)", 5, ""),
        ("os.write(1, b'late'); import atexit; atexit.register(embedder.close)", 0, ""),
        ("kept = embedder.stream(map(str, range(10**6))); next(kept)", 0, ""),
        (
            "kept = other.stream(map(str, range(10**6))); next(kept); cycle = [kept]; cycle.append(cycle); del kept",
            0,
            "",
        ),
        ("del embedder", 0, ""),
        ("embedder.cycle = embedder", 0, ""),
    ],
    ids=["open", "closed", "exit", "exit in block", "closed late", "stream", "stream in a cycle", "deleted", "cycle"],
)
def test_the_process_ends(end, code, err):
    """With sockets and streams open, closed or forgotten: it ends soon, with its own exit code and nothing on
    stderr.
    """
    run(
        f"""
        server = Server()
        embedder = embedkit.connect_sync("compatible:m", base_url=server.url)
        other = embedkit.SyncEmbedder(FakeEmbedder())
        assert embedder.embed(["a"]).vectors.shape == (1, 2)
        {end}
        """,
        *STRICT,
        code=code,
        err=err,
        timeout=15,
    )


def test_a_close_registered_before_the_first_call():
    """An atexit handler that runs after embedkit's own finds everything closed, and says nothing."""
    run(
        """
        import atexit
        embedder = embedkit.SyncEmbedder(FakeEmbedder())
        atexit.register(embedder.close)
        embedder.embed(["a"])
        """,
        *STRICT,
    )


@pytest.mark.parametrize("used", [True, False])
def test_a_call_while_the_modules_go_says_so(used):
    """A call in a `__del__` at the very end is the same error, not one of the import that failed; close() is harmless."""
    out = run(
        f"""
        class Late:
            embedder = embedkit.SyncEmbedder(FakeEmbedder())

            def __del__(self, ended=embedkit.ClosedError):
                embedder = self.embedder
                for verb in (embedder.embed, embedder.embed_query, lambda text: list(embedder.stream([text]))):
                    try:
                        verb("a")
                    except ended as error:
                        print(error)
                embedder.close()
                print("closed")

        late = Late()
        if {used}:
            late.embedder.embed(["a"])
        """,
        *STRICT,
    )

    assert out == 3 * "the interpreter is shutting down, and this call with it\n" + "closed\n"


def test_a_call_after_the_end_says_so():
    """A call made while the interpreter shuts down is a RuntimeError, not a hang."""
    out = run(
        """
        import atexit
        def late():
            try:
                embedder.embed(["a"])
            except RuntimeError as error:
                print(error)
        atexit.register(late)
        embedder = embedkit.SyncEmbedder(FakeEmbedder())
        embedder.embed(["a"])
        """,
        *STRICT,
    )

    assert out == "the interpreter is shutting down, and this call with it\n"


def test_the_process_ends_after_an_exception():
    """An uncaught error of a call ends the process with code 1 and that one traceback."""
    found = subprocess.run(
        [sys.executable, *STRICT, "-c", PRELUDE + textwrap.dedent(
            """
            server = Server()
            embedder = embedkit.connect_sync("compatible:m", base_url=server.url)
            embedder.embed(["a"])
            embedder.embed([7])
            """
        )],
        capture_output=True, text=True, timeout=30, cwd=HERE, check=False,
    )  # fmt: skip

    assert found.returncode == 1
    assert found.stderr.count("Traceback") == 1
    assert found.stderr.rstrip().endswith("TypeError: texts[0] is int, not str: 7")


@pytest.mark.parametrize(
    "verb", ["embedder.embed(['a'])", "list(embedder.stream(['a']))", "list(embedder.stream(endless()))"]
)
def test_the_process_ends_while_a_daemon_thread_waits(verb):
    """A call in a daemon thread, on a server that never answers, does not hold up the end, and leaves nothing on
    stderr.
    """
    out = run(
        f"""
        silent = Server(answers=False)
        embedder = embedkit.connect_sync("compatible:m", base_url=silent.url)
        def endless():
            while True:
                yield "a"
        def work():
            try:
                {verb}
            except RuntimeError as error:
                os.write(1, str(error).encode())
        threading.Thread(target=work, daemon=True).start()
        silent.asked.wait()
        """,
        *STRICT,
        timeout=15,
    )

    assert out in ("", "the interpreter is shutting down, and this call with it")


@pytest.mark.parametrize(
    "before",
    [
        "embedder.embed_query('warm')",
        pytest.param(
            "",
            marks=pytest.mark.skipif(
                (3, 12) <= sys.version_info < (3, 12, 2), reason="starts no thread so late (gh-113964)"
            ),
        ),
    ],
    ids=["later call", "first call"],
)
def test_a_call_in_another_thread_is_finished(before):
    """A call in an ordinary thread is waited for by Python itself, and gets its answer, even if it is the first of
    all.
    """
    out = run(
        f"""
        from embedkit import Embedder, Embeddings
        import anyio
        class Slow(Embedder):
            async def embed_batch(self, texts, options):
                await anyio.sleep(0.3)
                return Embeddings([[1.0]] * len(texts))
        embedder = embedkit.SyncEmbedder(Slow())
        {before}
        threading.Thread(target=lambda: print(embedder.embed(["a"]).vectors.shape)).start()
        """,
        *STRICT,
    )

    assert out == "(1, 1)\n"


def test_an_embedder_that_will_not_close_does_not_hold_up_the_end():
    """A custom aclose that hangs delays the end by seconds, not for ever."""
    run(
        """
        import embedkit.sync.portal
        embedkit.sync.portal.GRACE = 0.5
        class Hanging(FakeEmbedder):
            async def aclose(self):
                import anyio
                await anyio.sleep_forever()
        embedder = embedkit.SyncEmbedder(Hanging())
        embedder.embed(["a"])
        """,
        "-X",
        "dev",
        timeout=15,
    )


def test_a_thread_that_cannot_start_is_reported():
    """If the loop cannot be made the call raises, instead of waiting for ever; a later call tries again."""
    out = run(
        """
        import asyncio
        real, asyncio.Runner = asyncio.Runner, None
        embedder = embedkit.SyncEmbedder(FakeEmbedder())
        try:
            embedder.embed(["a"])
        except TypeError as error:
            print("told")
        asyncio.Runner = real
        print(embedder.embed(["a"]).vectors.shape)
        """
    )

    assert out == "told\n(1, 8)\n"


# --- the pieces ------------------------------------------------------------------------------------------------------


def test_a_revived_portal():
    """If the loop's thread has died, the next call starts another."""
    embedder = SyncEmbedder(FakeEmbedder())
    embedder.embed(["a"])
    portal = current()
    loop, stopping = portal._running.result()
    loop.call_soon_threadsafe(stopping.set)
    portal._thread.join()

    assert embedder.embed(["a"]).vectors.shape == (1, 8)


def test_a_cancelled_call_says_so():
    """A call cancelled on the loop by somebody else is a RuntimeError that does not speak of shutting down."""

    class Cancelled(Embedder):
        limits = Limits(max_texts=1)

        async def embed_batch(self, texts, options):
            asyncio.current_task().cancel()
            await asyncio.sleep(1)
            return Embeddings([[1.0]], usage=Usage())

    with pytest.raises(RuntimeError, match="the call was canceled"):
        SyncEmbedder(Cancelled()).embed(["a"])
