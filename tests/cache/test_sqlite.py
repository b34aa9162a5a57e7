"""The cache in a file: rows come back as they went in or not at all, whatever happens to the file and its processes."""

from __future__ import annotations

import os
import pickle
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit import ConfigError
from embedkit.cache import CacheError, SQLiteCache, sqlite
from tests.support.cache_rows import key, keys, rows

MB = 2**20
HERE = Path(__file__).parent.parent.parent


def sound(path):
    """What SQLite itself thinks of the file."""
    with sqlite3.connect(path) as sql:
        found = sql.execute("PRAGMA integrity_check").fetchall()
    sql.close()
    return found == [("ok",)]


def run(script, *given, check=True):
    """A process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, given)],
        capture_output=True, text=True, check=check, env=environment, timeout=120,
    )  # fmt: skip


@pytest.fixture
def path(tmp_path):
    return tmp_path / "vectors.cache"


@pytest.fixture
def impatient(monkeypatch):
    """No test waits for a lock."""
    monkeypatch.setattr(sqlite, "PATIENCE", 0.01)


# --- rows in, rows out -----------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.lists(st.dictionaries(st.integers(0, 900), st.binary(min_size=1, max_size=40), max_size=700), max_size=4))
def test_it_is_a_mapping(tmp_path_factory, writes):
    """Whatever is written in whatever order, a read gives the last row of every key, and nothing for the others."""
    cache, known = SQLiteCache(tmp_path_factory.mktemp("cache") / "c"), {}
    for each in writes:
        cache.write({key(number): value for number, value in each.items()})
        known |= {key(number): value for number, value in each.items()}

    assert cache.read(keys(range(1000))) == known
    cache.close()


def test_another_process_finds_the_rows(path):
    """What one cache has written, another on the same file reads, after the first is closed and while it is open."""
    one, other = SQLiteCache(path), SQLiteCache(path)
    one.write(rows(range(300)))

    assert other.read(keys(range(600))) == rows(range(300))
    other.write(rows(range(300, 600)))
    assert one.read(keys(range(600))) == rows(range(600))
    one.close()
    other.close()
    assert SQLiteCache(path).read(keys([5])) == rows([5])


def test_half_a_key_is_no_key(path):
    """Two keys of equal first halves never give each other's row."""
    cache, one = SQLiteCache(path), key(1)
    other = one[:8] + bytes(8)
    cache.write({one: b"one"})

    assert other not in cache.read([other])
    cache.write({other: b"other"})
    assert cache.read([one, other]) == {other: b"other"}
    cache.write({one: b"one", other: b"other"})
    assert cache.read([one, other]).items() <= {one: b"one", other: b"other"}.items()
    cache.close()


def test_a_peek_is_a_read_of_an_open_file(path):
    """`peek` opens nothing and takes few keys only; where it can answer, it answers as `read`."""
    cache = SQLiteCache(path)

    assert cache.peek([key(1)]) is None
    assert not path.exists()
    cache.write(rows([1]))
    assert cache.peek(keys([1, 2])) == rows([1])
    assert cache.peek(keys(range(1000))) is None
    cache.close()


def test_it_pickles_as_its_path(path, monkeypatch):
    """A copy in another process, or another folder, has the same file and the same bound."""
    monkeypatch.chdir(path.parent)
    cache = SQLiteCache(path.name, max_bytes=3 * MB)
    cache.write(rows([1]))
    monkeypatch.chdir("/")
    copy = pickle.loads(pickle.dumps(cache))  # noqa: S301 (our own)

    assert copy.read([key(1)]) == rows([1])
    assert copy.max_bytes == 3 * MB
    assert repr(copy) == f"SQLiteCache({str(path)!r})"
    cache.close()
    copy.close()


# --- its bound -------------------------------------------------------------------------------------------------------


def test_the_file_stays_within_its_bound(path):
    """Ten times as much as fits: the file has its bound and one write more, and holds the newest rows."""
    cache = SQLiteCache(path, max_bytes=2 * MB)
    for start in range(0, 14_000, 500):
        cache.write(rows(range(start, start + 500)))

    cache.close()
    assert path.stat().st_size < 3 * MB
    assert cache.read(keys(range(13_500, 14_000))) == rows(range(13_500, 14_000))
    assert cache.read(keys(range(5000))) == {}
    assert len(cache.read(keys(range(14_000)))) > 900  # of 1,365 that would fit without any overhead
    cache.close()
    assert sound(path)


def test_what_is_asked_for_stays(path):
    """Rows that get a hit now and then outlive many times as many that get none."""
    cache, loved = SQLiteCache(path, max_bytes=2 * MB), range(200)
    cache.write(rows(loved))
    for start in range(1000, 15_000, 200):
        assert cache.read(keys(loved)) == rows(loved)
        cache.write(rows(range(start, start + 200)))

    assert cache.read(keys(loved)) == rows(loved)
    cache.close()
    assert path.stat().st_size < 3 * MB
    assert sound(path)


def test_room_is_made_where_everything_is_asked_for(path):
    """Where every row had a hit, the oldest go all the same: the bound holds."""
    cache = SQLiteCache(path, max_bytes=2 * MB)
    for start in range(0, 6000, 300):
        cache.write(rows(range(start, start + 300)))
        cache.read(keys(range(start + 300)))

    cache.close()
    assert path.stat().st_size < 3 * MB
    assert len(cache.read(keys(range(6000)))) > 600
    cache.close()


def test_a_smaller_bound_is_reached(path):
    """A bound that is lowered later is kept by what is written from then on."""
    cache = SQLiteCache(path, max_bytes=16 * MB)
    for start in range(0, 8000, 1000):
        cache.write(rows(range(start, start + 1000)))
    cache.close()
    cache = SQLiteCache(path, max_bytes=2 * MB)
    for start in range(8000, 9000, 10):
        cache.write(rows(range(start, start + 10)))
    found = len(cache.read(keys(range(9000))))

    assert 600 < found < 1400
    assert cache.read(keys(range(8900, 9000))) == rows(range(8900, 9000))
    cache.close()


@pytest.mark.parametrize("wrong", [0, -1, 1000, 2.0**30, True, "1GB", None])
def test_a_bound_is_a_number_of_bytes(path, wrong):
    """Anything else is refused by name."""
    with pytest.raises(ConfigError, match="max_bytes="):
        SQLiteCache(path, max_bytes=wrong)


# --- damage ----------------------------------------------------------------------------------------------------------


def used(cache, numbers=range(800)):
    """What a cache gives and whether it said that it cannot, as an embedder uses it: errors cost hits."""
    try:
        found = cache.read(keys(numbers))
        cache.write(rows([10_000]))
    except CacheError as error:
        return {}, str(error)
    finally:
        cache.close()
    return found, ""


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_no_damage_gives_a_wrong_row(tmp_path_factory, data):
    """Bytes overwritten anywhere, or the file cut off anywhere: every row that comes back is right, nothing but
    CacheError comes out, and in the end there is a cache that works, or the file was left alone.
    """
    path = tmp_path_factory.mktemp("cache") / "c"
    cache = SQLiteCache(path)
    cache.write(rows(range(800), 200))
    cache.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        if data.draw(st.booleans()):
            file.truncate(data.draw(st.integers(0, size - 1)))
        for _ in range(data.draw(st.integers(0, 3))):
            file.seek(data.draw(st.integers(0, size - 1)))
            file.write(
                data.draw(st.sampled_from([bytes(2000), random.Random(1).randbytes(3000), b"\xff", b"A" * 9000]))
            )
    before = path.read_bytes()
    for _ in range(3):
        found, said = used(SQLiteCache(path) if sqlite._is_ours(sqlite._header(path)) else cache)

        assert found.items() <= {**rows(range(800), 200), **rows([10_000])}.items()
    if "left as it is" in said:
        assert path.read_bytes() == before
    else:
        assert not said, said
        assert SQLiteCache(path).read([key(10_000)]) == rows([10_000])


@pytest.mark.parametrize("cut", [sqlite.PAGE + 100, 3 * sqlite.PAGE, 0.5])
def test_a_damaged_cache_is_set_aside(path, cut):
    """Once it is seen, the file and its log get another name, a new one is begun, and nothing is deleted."""
    cache = SQLiteCache(path)
    cache.write(rows(range(1000)))
    cache.close()
    whole = path.read_bytes()
    os.truncate(path, cut if isinstance(cut, int) else int(cut * len(whole)))
    with pytest.raises(CacheError, match=r"was damaged; it was set aside as vectors\.cache\.corrupt, and a new one"):
        cache.read(keys(range(1000)))
    cache.write(rows(range(50)))

    assert cache.read(keys(range(1000))) == rows(range(50))
    cache.close()
    assert whole.startswith((path.parent / "vectors.cache.corrupt").read_bytes())
    assert sound(path)


def test_what_was_set_aside_before_stays(path):
    """A second damaged file gets a name of its own."""
    for number in range(2):
        cache = SQLiteCache(path)
        cache.write(rows(range(500)))
        cache.close()
        os.truncate(path, sqlite.PAGE + number + 1)
        with pytest.raises(CacheError, match="set aside"):
            cache.read(keys(range(500)))

    assert [(path.parent / f"vectors.cache.corrupt{end}").stat().st_size for end in ("", ".2")] == [
        sqlite.PAGE + 1,
        sqlite.PAGE + 2,
    ]


def test_damage_seen_by_two(path):
    """Where one cache sets the file aside, another that has it open goes on with the new one, and spares its log."""
    one, other = SQLiteCache(path), SQLiteCache(path)
    one.write(rows(range(1000)))
    one.close()
    assert other.read(keys(range(1000))) == rows(range(1000))
    with sqlite3.connect(path) as sql:
        sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    sql.close()
    os.truncate(path, 3 * sqlite.PAGE)
    with pytest.raises(CacheError, match="set aside"):
        one.read(keys(range(1000)))
    one.write(rows([1]))

    assert other.peek(keys([1])) is None
    assert other.read(keys([1, 2])) == rows([1])
    other.write(rows([2]))
    other.close()
    assert one.read(keys([1, 2])) == rows([1, 2])
    one.close()
    assert sound(path)
    kept = {each.name for each in path.parent.iterdir()}
    assert kept - {f"vectors.cache.corrupt{end}" for end in ("", "-wal", "-shm")} == {"vectors.cache"}


def test_a_file_of_zeros_is_a_damaged_cache(path):
    """Some file systems leave zeros after a power failure: set aside too."""
    path.write_bytes(bytes(20_000))
    with pytest.raises(CacheError, match="set aside"):
        SQLiteCache(path).read([key(1)])
    SQLiteCache(path).write(rows([1]))

    assert SQLiteCache(path).read([key(1)]) == rows([1])


@pytest.mark.parametrize("content", [b"my diary\n" * 3000, b"x", b"\x89PNG" + bytes(5000)])
def test_a_file_that_is_no_cache_is_left_alone(path, content):
    """It is not touched, and not used: whose it is nobody knows."""
    path.write_bytes(content)
    cache = SQLiteCache(path)
    for _ in range(2):
        with pytest.raises(CacheError, match="no cache of embedkit"):
            cache.read([key(1)])
        with pytest.raises(CacheError, match="no cache of embedkit"):
            cache.write(rows([1]))

    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_what_cannot_be_a_cache_is_refused_at_once(path, tmp_path):
    """Another program's database, a folder, a missing folder, no name: a ConfigError that names it, and no file."""
    with sqlite3.connect(path) as sql:
        sql.execute("CREATE TABLE mine (a)")
    sql.close()
    before = path.read_bytes()
    for wrong, words in (
        (path, "another program"), (tmp_path, "this is a folder"), (tmp_path / "no" / "c", "there is no folder"),
        ("", "the path of a file"), (":memory:", "the path of a file"), (os.devnull, "a pipe, a socket or a device"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            SQLiteCache(wrong)

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_another_format_is_left_alone(path):
    """A cache of a later embedkit is neither read nor changed."""
    cache = SQLiteCache(path)
    cache.write(rows([1]))
    cache.close()
    with sqlite3.connect(path) as sql:
        sql.execute("PRAGMA user_version = 99")
    sql.close()
    with pytest.raises(CacheError, match="format 99"):
        cache.read([key(1)])


def test_a_file_that_is_removed_is_begun_anew(path):
    """Whoever deletes the file while it is open has an empty cache, which works."""
    cache = SQLiteCache(path)
    cache.write(rows([1]))
    for each in path.parent.iterdir():
        each.unlink()

    assert cache.read([key(1)]) == {}
    cache.write(rows([2]))
    assert SQLiteCache(path).read(keys([1, 2])) == rows([2])
    cache.close()


# --- locks, rights, room ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
def test_a_locked_file(path):
    """While somebody writes, reading goes on and a write is a CacheError; while somebody has the file alone, both are."""
    cache = SQLiteCache(path)
    cache.write(rows([1]))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    assert cache.read([key(1)]) == cache.peek([key(1)]) == rows([1])
    with pytest.raises(CacheError, match="locked"):
        cache.write(rows([2]))
    other.execute("ROLLBACK")
    cache.write(rows([2]))
    cache.close()
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(CacheError, match="locked"):
        cache.read([key(1)])
    with pytest.raises(CacheError, match="locked"):
        cache.write(rows([3]))
    other.execute("ROLLBACK")
    other.close()
    assert cache.read(keys([1, 2, 3])) == rows([1, 2])
    cache.close()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users here")
def test_a_folder_that_cannot_be_written(path):
    """A cache that another user owns, or in a read-only folder: CacheError, and nothing changes."""
    cache = SQLiteCache(path)
    cache.write(rows([1]))
    cache.close()
    before = path.read_bytes()
    script = """
        import os, sqlite3, sys  # before the rights are gone to read the library
        from embedkit.cache import CacheError, SQLiteCache
        if os.geteuid() == 0:
            os.seteuid(65534)  # nobody
        for name in sys.argv[1:]:
            cache = SQLiteCache(name)
            try:
                cache.read([bytes(16)])
                cache.write({bytes(16): b"x"})
            except CacheError as error:
                print(error)
    """
    path.chmod(0o444)
    path.parent.chmod(0o555)
    try:
        done = run(script, path, path.parent / "other.cache")
    finally:
        path.parent.chmod(0o755)

    said = done.stdout.splitlines()
    assert len(said) == 2, done
    assert all(str(path.parent) in line for line in said)
    assert path.read_bytes() == before
    assert not (path.parent / "other.cache").exists()


def mounted(folder, size):
    """Whether a small file system could be put there."""
    return (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, check=False
        ).returncode
        == 0
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a tmpfs")
def test_a_full_disk(tmp_path):
    """Writes are CacheErrors, what was written before is read on, and the file is sound."""
    if not mounted(tmp_path, "3m"):
        pytest.skip("needs the right to mount a small file system")
    try:
        cache, written, failures = SQLiteCache(tmp_path / "c"), [], []
        for start in range(0, 5000, 100):
            try:
                cache.write(rows(range(start, start + 100)))
            except CacheError as error:
                failures.append(str(error))
            else:
                written += range(start, start + 100)

        assert failures
        assert all("full" in each or "I/O" in each for each in failures)
        assert len(written) >= 500
        assert cache.read(keys(range(5000))) == rows(written)
        cache.close()
        assert sound(tmp_path / "c")
    finally:
        subprocess.run(["umount", tmp_path], check=True)


# --- several processes -----------------------------------------------------------------------------------------------

WRITER = """
    import random, sys
    from embedkit.cache import SQLiteCache
    sys.path.insert(0, sys.argv[2])
    from tests.support.cache_rows import rows, keys
    cache, chance = SQLiteCache(sys.argv[1], max_bytes=2**22), random.Random(sys.argv[3])
    print("begun", flush=True)
    while True:
        start = chance.randrange(10_000)
        mine = rows(range(start, start + 100))
        cache.write(mine)
        found = cache.read(keys(range(start - 50, start + 200)))
        assert found.items() <= rows(range(start - 50, start + 200)).items(), "a wrong row"
        print("done", flush=True)
"""


def writer(path, seed):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(path), str(HERE), str(seed)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(HERE)},
    )  # fmt: skip


def test_processes_that_write_while_others_are_killed(path):
    """Two processes write and read while a third is killed, again and again, in the middle of whatever it does: they
    read right rows only, the file is sound, and holds what is right.
    """
    chance = random.Random(1)
    lasting = [writer(path, seed) for seed in (1, 2)]
    try:
        for each in lasting:
            assert each.stdout.readline() == b"begun\n"
        for kill in range(4):
            victim = writer(path, 10 + kill)
            for _ in range(chance.randrange(1, 6)):
                assert victim.stdout.readline(), victim.stderr.read()
            time.sleep(chance.random() * 0.02)
            victim.send_signal(signal.SIGKILL)
            victim.communicate()
        for each in lasting:
            assert each.poll() is None, each.stderr.read()
            for _ in range(3):
                assert each.stdout.readline() == b"done\n"
    finally:
        for each in lasting:
            each.kill()
            each.communicate()

    cache = SQLiteCache(path)
    found = cache.read(keys(range(10_100)))
    assert len(found) > 1000
    assert found.items() <= rows(range(10_100)).items()
    cache.close()
    assert sound(path)


def test_processes_that_evict_at_once(path):
    """Three processes write many times as much as fits, all the time: the file keeps its bound and one write of each
    more, and its log is begun anew although somebody always reads it.
    """
    busy = [writer(path, seed) for seed in range(3)]
    largest = dict.fromkeys(("", "-wal"), 0)
    try:
        for _ in range(200):  # of 150 kB each; what they write in the log is about twice as much
            for each in busy:
                assert each.stdout.readline() in (b"begun\n", b"done\n"), each.stderr.read()
            for suffix in largest:
                largest[suffix] = max(largest[suffix], sqlite._size(Path(f"{path}{suffix}")))
    finally:
        for each in busy:
            each.kill()
            each.communicate()

    assert largest[""] < 4 * MB + 3 * MB
    assert largest["-wal"] < sqlite.LOG + 24 * MB
    assert sound(path)


def test_processes_that_begin_at_once(path):
    """Four processes make the same file at the same moment: each of them reads what all have written."""
    script = f"""
        import sys, time
        from embedkit.cache import SQLiteCache
        sys.path.insert(0, {str(HERE)!r})
        from tests.support.cache_rows import rows, keys
        cache, number = SQLiteCache(sys.argv[1]), int(sys.argv[2])
        print("ready", flush=True)
        sys.stdin.readline()
        cache.write(rows([number]))
        print("written", flush=True)
        sys.stdin.readline()
        assert cache.read(keys(range(4))) == rows(range(4))
    """
    several = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), str(path), str(number)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(HERE)}, bufsize=0,
        )
        for number in range(4)
    ]  # fmt: skip
    for word in (b"ready\n", b"written\n"):
        said = [each.stdout.readline() for each in several]
        assert said == [word] * 4, [each.stderr.read() for each in several if each.poll() is not None]
        for each in several:
            each.stdin.write(b"\n")
    for each in several:
        assert each.wait(30) == 0, each.stderr.read()
        each.communicate()

    assert sound(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_in_the_middle_of_work(path):
    """A process that forks while its threads read and write: parent and children go on, each with connections of its
    own, and no row is wrong or lost.
    """
    script = f"""
        import os, sys, threading, warnings
        from embedkit.cache import SQLiteCache
        sys.path.insert(0, {str(HERE)!r})
        from tests.support.cache_rows import rows, keys
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: forking beside a thread
        cache, failures, over = SQLiteCache(sys.argv[1]), [], threading.Event()

        def work(start):
            number = start
            while not over.is_set():
                try:
                    cache.write(rows([number]))
                    assert cache.read(keys([number])) == rows([number])
                except BaseException as error:
                    failures.append(error)
                number += 1

        threads = [threading.Thread(target=work, args=(start,)) for start in (0, 100_000, 200_000)]
        for each in threads: each.start()
        for child in range(5):
            while not cache.read(keys([child])): pass
            if not (pid := os.fork()):
                mine = range(1_000_000 * (child + 1), 1_000_000 * (child + 1) + 50)
                for number in mine: cache.write(rows([number]))
                os._exit(cache.read(keys(mine)) != rows(mine))
            assert os.waitpid(pid, 0)[1] == 0, "the child failed"
        over.set()
        for each in threads: each.join()
        assert not failures, failures
        for child in range(5):
            mine = range(1_000_000 * (child + 1), 1_000_000 * (child + 1) + 50)
            assert cache.read(keys(mine)) == rows(mine)
        cache.close()
    """
    done = run(script, path, check=False)

    assert done.returncode == 0, done.stderr
    assert sound(path)


def test_connections_are_closed_with_their_cache(path):
    """A cache that nobody closes and nobody has any more leaves no file open."""
    script = """
        import gc, sys, warnings
        from pathlib import Path
        warnings.simplefilter("error")
        from embedkit.cache import SQLiteCache
        cache = SQLiteCache(sys.argv[1])
        cache.write({bytes(16): b"x"})
        assert Path(sys.argv[1] + "-wal").exists()
        del cache
        gc.collect()
        assert not Path(sys.argv[1] + "-wal").exists()
    """
    done = run(script, path)

    assert done.stderr == ""
