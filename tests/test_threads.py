"""A thread that outlives the main one may be the first to use embedkit:
everything lazy still loads, and every call works or says why not.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import anyio
import pytest

from embedkit import _threads
from tests.support.servers.api import Api

HERE = Path(__file__).parent.parent
NO_THREAD = "a sync call needs embedkit's own thread, and this Python starts none any more"
LOADED = {
    "nothing": "",
    "the package": "import embedkit",
    "all of it": "from embedkit import *; import aiohttp, numpy",
    "the portal's thread": "import embedkit; from embedkit.testing import FakeEmbedder; embedkit.SyncEmbedder(FakeEmbedder()).embed('a')",
}
SYNC = {
    "an API": "with embedkit.connect_sync('compatible:m', base_url=URL) as embedder: print(embedder.embed(['one', 'two']).vectors.shape)",
    "an API by its host's name": "with embedkit.connect_sync('compatible:m', base_url=NAMED) as embedder: print(embedder.embed(['one', 'two']).vectors.shape)",
    "a stream": "with embedkit.connect_sync('compatible:m', base_url=URL) as embedder: print(*(part.vectors.shape for part in embedder.stream(['one', 'two'])))",
    "many requests": "with embedkit.connect_sync('compatible:m', base_url=NAMED, limits=embedkit.Limits(max_texts=1), coalesce=True, hedge=True) as embedder: print(embedder.embed(['one', 'two']).vectors.shape)",
    "the bundled model": "print(embedkit.connect_sync().embed(['one', 'two']).vectors.shape)",
    "an embedder of one's own": "from embedkit.testing import FakeEmbedder; print(embedkit.SyncEmbedder(FakeEmbedder(3)).embed(['one', 'two']).vectors.shape)",
}
ASYNC = {
    "an API": "async with embedkit.connect('compatible:m', base_url=URL) as embedder: return (await embedder.embed(['one', 'two'])).vectors.shape",
    "an API by its host's name": "async with embedkit.connect('compatible:m', base_url=NAMED) as embedder: return (await embedder.embed(['one', 'two'])).vectors.shape",
    "a stream": "async with embedkit.connect('compatible:m', base_url=URL) as embedder: return [part.vectors.shape async for part in embedder.stream(['one', 'two'])][0]",
    "many requests": "async with embedkit.connect('compatible:m', base_url=NAMED, limits=embedkit.Limits(max_texts=1), coalesce=True, hedge=True) as embedder: return (await embedder.embed(['one', 'two'])).vectors.shape",
    "the bundled model": "return (await embedkit.connect().embed(['one', 'two'])).vectors.shape",
}  # fmt: skip


@pytest.fixture(scope="module")
def api():
    with Api() as served:
        yield served


def late(script, *, before="", url="", named=""):
    """What a script prints in a thread that begins with it when the
    main thread has ended. Warnings are errors, and it must end.
    """
    program = (
        f"import threading, sys\nURL, NAMED = {url!r}, {named!r}\n{before}\ndef work():\n    threading.main_thread().join()\n    import embedkit\n    try:\n"
        + textwrap.indent(script, " " * 8)
        + "\n    except embedkit.EmbedkitError as error: print(error)\nthreading.Thread(target=work).start()\n"
    )
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        cwd=HERE,
        timeout=60,
        check=False,
    )
    assert (found.returncode, found.stderr) == (0, ""), found.stderr
    return found.stdout.strip()


def asynchronous(body):
    return f"import asyncio\nasync def main():\n    {body}\nprint(asyncio.run(main()))"


@pytest.fixture(scope="module")
def starts():
    """Does this Python still start threads then? 3.12.0 and 3.12.1 do not."""
    return late("try: threading.Thread(target=print).start(); print('yes')\nexcept RuntimeError: print('no')") == "yes"


@pytest.mark.parametrize("uvloop", ["with uvloop", "without"])
@pytest.mark.parametrize("what", SYNC)
@pytest.mark.parametrize("loaded", LOADED)
def test_a_sync_call(api, starts, loaded, what, uvloop):
    """It works, or, where the portal's thread cannot be started any more, says so in an EmbedkitError."""
    absent = "" if uvloop == "with uvloop" else "sys.modules['uvloop'] = None\n"
    said = late(
        SYNC[what], before=absent + LOADED[loaded], url=api.url, named=api.url.replace("127.0.0.1", "localhost")
    )

    if starts or loaded == "the portal's thread":
        width = 384 if what == "the bundled model" else 3
        assert said == f"(2, {width})"
    else:
        assert said.startswith(NO_THREAD)


@pytest.mark.parametrize("what", ASYNC)
@pytest.mark.parametrize("loaded", LOADED)
def test_an_async_call(api, loaded, what):
    """It works on every Python: what would go into another thread
    is done in this one, where no other can be started.
    """
    said = late(
        asynchronous(ASYNC[what]), before=LOADED[loaded], url=api.url, named=api.url.replace("127.0.0.1", "localhost")
    )

    assert said == ("(2, 384)" if what == "the bundled model" else "(2, 3)")


def test_a_host_that_is_not_there():
    """The error is the one that any other thread gets."""
    said = late(
        asynchronous(
            "await embedkit.connect('compatible:m', base_url='http://no.such.host.invalid', retry=embedkit.RetryPolicy(attempts=1)).embed('a')"
        )
    )

    assert said == "the host name 'no.such.host.invalid' cannot be resolved; check base_url, the proxy and the network"


def test_tiktoken():
    """Its import needs a thread pool, which the standard library cannot load for the first time any more."""
    said = late("from embedkit import tokens; tokens.tiktoken('nonsense')('a')")

    assert said.startswith("tiktoken knows neither a model nor an encoding 'nonsense'")
    assert "from concurrent.futures import ThreadPoolExecutor" in (
        Path(__import__("tiktoken").__file__).parent / "core.py"
    ).read_text("utf-8")


def test_pools_are_as_if_they_had_been_loaded_before():
    """They take no work, rather than keep the interpreter from its end; and `threading` is as it was."""
    said = late(
        "register = threading._register_atexit\nfrom embedkit._threads import pools_loaded; pools_loaded()\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "try: ThreadPoolExecutor().submit(print, 'no')\nexcept RuntimeError as error: print(error)\n"
        "print(threading._register_atexit is register)"
    )

    assert said.splitlines() == ["cannot schedule new futures after interpreter shutdown", "True"]


@pytest.mark.anyio
async def test_work_goes_aside():
    """Into another thread, with its result and its error."""

    def fail():
        raise RuntimeError("of the work itself")

    assert await _threads.aside(threading.get_ident) != threading.get_ident()
    with pytest.raises(RuntimeError, match="of the work itself"):
        await _threads.aside(fail)


@pytest.mark.anyio
async def test_where_no_thread_starts_work_is_done_here_and_once(monkeypatch):
    """A process at its limit of threads too. What the work itself raises is no reason to do it again."""
    done = []

    def work(value):
        done.append(value)
        if value == "bad":
            raise RuntimeError("of the work itself")
        return threading.get_ident()

    def refused(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    limiter = anyio.CapacityLimiter(1)

    assert await _threads.aside(work, "good", limiter=limiter) == threading.get_ident()
    with pytest.raises(RuntimeError, match="of the work itself"):
        await _threads.aside(work, "bad", limiter=limiter)
    assert done == ["good", "bad"]
    assert limiter.borrowed_tokens == 0
