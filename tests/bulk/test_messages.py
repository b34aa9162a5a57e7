"""What is said of inputs and outputs that cannot be, through the command and from Python: in the same words, but for options."""

from __future__ import annotations

import asyncio
import errno
import gzip
import inspect
import io
import os
import pickle
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from embedkit import ConfigError, bulk
from embedkit._bulk.keywords import in_python
from embedkit.cache import SQLiteCache
from embedkit.testing import FakeEmbedder
from tests.cli.running import embedkit_
from tests.support.servers.api import Api

LINES = b'{"text": "a"}\n{"text": "b"}\n'


def zipped():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.txt", "hello\n")
    return out.getvalue()


def tarred():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.add(__file__, "a.py")
    return out.getvalue()


def zstd(data):
    return pa.compress(data, codec="zstd", asbytes=True)


@pytest.mark.parametrize(
    ("said", "here"),
    [
        ("out.npy exists already; --force replaces it", "out.npy exists already; force=True replaces it"),
        ("begin anew with --force", "begin anew with force=True"),
        ("--append goes on; go on with --batch-api,", "append=True goes on; go on with batch_api=True,"),
        ("leave this check out with --no-scan", "leave this check out with scan=False"),
        ("no 'text'; there is 'body' (choose with --column)", "no 'text'; there is 'body' (choose with column=)"),
        ("a is missing (choose with --key); --template", "a is missing (choose with key=); template="),
        ("--on-error skip makes it a failed row", 'on_error="skip" makes it a failed row'),
        ("pass --input-format jsonl, or ", 'pass input_format="jsonl", or '),
        ("(read as text; --input-format says otherwise)", "(read as text; input_format= says otherwise)"),
        ("pass --encoding utf-16-le", 'pass encoding="utf-16-le"'),
        ("not UTF-8 (byte 4; --encoding names another)", "not UTF-8 (byte 4; encoding= names another)"),
        ("--output-format xlsx: there is npy", 'output_format="xlsx": there is npy'),
        ("or leave --output-format out", "or leave output_format= out"),
        ("they look separated by ';': --delimiter says so", "they look separated by ';': delimiter= says so"),
        ("my--force.txt, a--column and --forced stay", "my--force.txt, a--column and --forced stay"),
    ],
)
def test_an_option_of_the_command_is_a_keyword_in_python(said, here):
    """Each is written as Python takes it, with its value; the name of a file stays what it is."""
    assert in_python(said) == here


def test_every_option_that_a_job_names_is_a_keyword_of_run():
    """No message of a job keeps an option of the command when Python is told."""
    takes = set(inspect.signature(bulk.run).parameters)
    for path in (Path(bulk.__file__).parent / "_bulk").rglob("*.py"):
        for said in re.findall(r"(?<![\w-])--[a-z][a-z-]+", path.read_text("utf-8")):
            if said not in ("--dtype", "--texts"):  # of embedkit search and report, which Python does not have
                assert in_python(said).partition("=")[0] in takes, f"{path.name}: {said}"


def test_a_refused_job_names_keywords(tmp_path):
    """From Python an error and the notes on it have `force=True`; to the command they stay options."""
    out = tmp_path / "out.npy"
    out.write_bytes(b"")
    with pytest.raises(ConfigError) as caught:
        bulk.run_sync(["a"], FakeEmbedder(), out)

    assert str(caught.value).endswith("; force=True replaces it")
    assert caught.value.args == (caught.value.message,)
    (tmp_path / "in.txt").write_text("a\n", "utf-8")
    code, _, stderr = embedkit_("embed", tmp_path / "in.txt", "-o", out, "-m", "local")

    assert (code, stderr) == (
        2,
        f"embedkit: {out} exists already, and no report says that this job made it; --force replaces it\n",
    )


NAMED = "is text by its suffix, but begins like"
BARE = "has no suffix that names a format, and begins like"
UNPACK = "unpack it first"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\xfd7zXZ\x00....", f"xz: {UNPACK}, as xz -dc does"),
        (b"BZh11AY&SY....", f"bzip2: {UNPACK}, as bzip2 -dc does"),
        (zipped(), "a ZIP archive or an office document: unpack it, or export text from it, first"),
        (tarred(), f"a tar archive: {UNPACK}"),
        (b"7z\xbc\xaf\x27\x1c\x00", f"a 7z archive: {UNPACK}"),
        (b"%PDF-1.7\n%\xe2\xe3", "PDF: extract its text first"),
        ("one\ntwo\n".encode("utf-16"), "text in UTF-16: pass --encoding utf-16"),
        ("one\ntwo\n".encode("utf-16-le"), "text in UTF-16: pass --encoding utf-16-le"),
        ("one\ntwo\n".encode("utf-16-be"), "text in UTF-16: pass --encoding utf-16-be"),
        ("one\ntwo\n".encode("utf-32"), "text in UTF-32: pass --encoding utf-32"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "an image: embedkit embeds texts"),
        (b"\x7fELF\x02\x01\x01\x00", "a program: embedkit embeds texts"),
        (pickle.dumps(["a"], 4), "a pickle: write it as Parquet or JSON lines first"),
        (bytes(range(256)) * 4, "binary data: embedkit reads text, JSON, CSV, Parquet and Arrow"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_file_is_instead_of_text(tmp_path, content, what):
    """With a suffix of text, of a table, and with none: what it begins like, and the way out."""
    for name, said in (("in.txt", NAMED), ("in", BARE), ("in.data", BARE)):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            bulk.estimate_sync(path, FakeEmbedder(), str(tmp_path / "out.npy"))
        code, _, stderr = embedkit_("embed", path, "--dry-run", "-m", "local")

        assert f"{path} {said} {what}" in stderr
        assert (code, f"embedkit: {caught.value}\n") == (2, in_python(stderr))


@pytest.mark.parametrize(("pack", "codec"), [(gzip.compress, "gzip"), (zstd, "zstd")])
def test_what_is_packed_says_so(tmp_path, pack, codec):
    """Of a known suffix it is unpacked; of an unknown one it is named, with what is in it; a wrong one names both."""
    (tmp_path / "in.jsonl").write_bytes(pack(LINES))
    assert bulk.estimate_sync(tmp_path / "in.jsonl", FakeEmbedder(), str(tmp_path / "out.npy")).scan.rows == 2

    for name, content, said in (
        ("in", LINES, f"is packed with {codec}, and what is in it begins like JSON lines: pass --input-format jsonl"),
        ("in.tgz", tarred(), f"is packed with {codec}, and what is in it begins like a tar archive: {UNPACK}"),
        ("in.txt", LINES, f"{NAMED} JSON lines packed with {codec}: pass --input-format jsonl"),
    ):
        (tmp_path / name).write_bytes(pack(content))
        with pytest.raises(ConfigError) as caught:
            bulk.estimate_sync(tmp_path / name, FakeEmbedder(), str(tmp_path / "out.npy"))
        assert f"{tmp_path / name} {in_python(said)}" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (LINES, "JSON lines: pass --input-format jsonl"),
        (b"one\ntwo words\n", "text: pass --input-format text"),
        (b"id,text\n1,a\n", "CSV: pass --input-format csv"),
    ],
)
def test_a_file_without_a_suffix_is_told_by_its_beginning(tmp_path, content, what):
    """It is not guessed, but the option is named."""
    path = tmp_path / "in"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        bulk.estimate_sync(path, FakeEmbedder(), str(tmp_path / "out.npy"))

    assert str(caught.value) == f"{path} {BARE} {in_python(what)}"


@pytest.mark.parametrize("content", [LINES, b"one\n", gzip.compress(LINES)])
def test_parquet_by_its_suffix_alone(tmp_path, content):
    """A table that is none says what it is instead."""
    path = tmp_path / "in.parquet"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"is Parquet by its suffix, but begins like (JSON lines|text)"):
        bulk.estimate_sync(path, FakeEmbedder(), str(tmp_path / "out.npy"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('id,text\n1,a\n2,"b and\nso on\n3,c\n', "row 1, which begins in line 3: a quote is opened and never closed"),
        ('\n\nid,text\n\n1,a\n\n"2,b\n\n3,c\n', "row 1, which begins in line 7: a quote is opened and never closed"),
        ('id,"text\n1,a\n', "the header, which begins in line 1: a quote is opened and never closed"),
        ('id,text\n1,a\n2,"b and\nso on"x\n3,c\n', "row 1, lines 3 to 4: ',' expected after"),
    ],
)
def test_an_open_quote_names_its_line(tmp_path, content, said):
    """The line in which it is opened, not the end of the file."""
    path = tmp_path / "in.csv"
    path.write_text(content, "utf-8")
    with pytest.raises(ConfigError) as caught:
        bulk.estimate_sync(path, FakeEmbedder(), str(tmp_path / "out.npy"))

    assert str(caught.value).startswith(f"{path}, {said}")


FOLDERS = [
    (lambda here: bulk.run_sync(["a"], FakeEmbedder(), here), r"is a folder: name a file, or end the name in /"),
    (lambda here: bulk.run_sync(["a"], FakeEmbedder(), f"sqlite:{here}#t"), r"is a folder; name a file in it"),
    (lambda here: bulk.run_sync(["a"], FakeEmbedder(), f"duckdb:{here}#t"), r"is a folder; name a file in it"),
    (lambda here: bulk.run_sync(Path(here), FakeEmbedder(), "out.npy"), r"there is no file in this folder"),
    (SQLiteCache, r"this is a folder; name a file in it"),
]


@pytest.mark.parametrize(("work", "said"), FOLDERS)
def test_a_folder_says_that_it_is_one(tmp_path, work, said):
    """As an output, a store, a cache, and as an input that holds nothing."""
    here = tmp_path / "out.npy"
    here.mkdir()
    with pytest.raises(ConfigError, match=said):
        work(str(here))


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (
            ["embed", "in.txt", "-o", "out.npy", "--cache", "there"],
            "--cache there: this is a folder; name a file in it",
        ),
        (["check", "openai:m", "--ca-file", "there"], "--ca-file there: this is a folder; name a file"),
        (["bench", "local", "--html", "there"], "--html there: this is a folder; name a file in it"),
        (["search", "q", "there"], "there is a folder without parts of embedkit (part-00000.parquet …)"),
        (["embed", "in.txt", "-o", "there", "--output-format", "npy"], "there is a folder, and those hold parts"),
    ],
)
def test_a_folder_in_an_option(tmp_path, monkeypatch, option, said):
    """Every option that takes a file says so before anything is sent."""
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    Path("in.txt").write_text("one\n")
    code, _, stderr = embedkit_(*option)

    assert (code, said in stderr) == (2, True), stderr


# --- a full disk -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path):
    """A file system of 64 kB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)], capture_output=True, check=False
    )
    if sys.platform != "linux" or mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def rest(place, count):
    """Fill it but for so many bytes."""
    free = os.statvfs(place)
    (place / "filling").write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - count)))


@pytest.mark.parametrize(
    ("output", "free", "named"),
    [
        ("out.npy", 8_192, "out.npy.job/vectors.npy"),
        ("out.jsonl", 8_192, "out.jsonl.job/rows.jsonl"),
        ("out.parquet", 8_192, "out.parquet.job/spool-00000"),
        ("out.arrow", 8_192, "out.arrow.job/spool-00000"),
        ("out/", 8_192, "out.job/spool-00000"),
        ("out.npy", 0, "out.npy.job/journal.jsonl"),
    ],
)
def test_a_full_disk_names_the_file(small, output, free, named):
    """Whatever is being written, the journal included; the job can go on when there is room."""
    rest(small, free)
    texts = [f"text number {number}" for number in range(200)]
    with pytest.raises(OSError, match="No space left on device") as caught:
        bulk.run_sync(texts, FakeEmbedder(dimensions=64), f"{small}/{output}")

    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(small / named)


def test_a_full_disk_names_the_list_of_failed_rows(small):
    """Failed rows are listed while the job runs; what cannot be written is named."""
    rest(small, 4 * 4096)
    texts = [None if number % 2 else "text" for number in range(4_000)]
    with pytest.raises(OSError, match="No space left on device") as caught:
        bulk.run_sync(texts, FakeEmbedder(dimensions=1), str(small / "out.npy"))

    assert Path(caught.value.filename).name in ("failures.jsonl", "vectors.npy")


def test_a_full_disk_of_the_cache_is_told_once(small, tmp_path):
    """The job goes on without it, and says which file and why."""
    rest(small, 40_000)
    (tmp_path / "in.txt").write_text("".join(f"text number {number} {'x' * 40}\n" for number in range(2_000)))
    with Api() as api:
        code, _, stderr = embedkit_(
            "embed", tmp_path / "in.txt", "-o", tmp_path / "out.npy", "--cache", small / "c.db", "-m", "compatible:m",
            "--base-url", api.url,
        )  # fmt: skip

    assert code == 0
    said = re.findall(
        rf"the cache cannot be (?:read|written) \({small}/c.db: (.*)\); the job goes on without it", stderr
    )
    assert said
    assert len(said) == len(set(said))


def test_both_doors_say_the_same():
    """The async one is the sync one."""
    with pytest.raises(ConfigError, match="is a folder"):
        asyncio.run(bulk.run(["a"], FakeEmbedder(), "sqlite:.#t"))
