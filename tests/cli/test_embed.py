"""`embedkit embed`: every format in and out, what is refused, what fails on the way, files that are there already."""

from __future__ import annotations

import json
import math
import ssl
import subprocess
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trustme

from tests.cli.running import NOTES, TEXTS, embed, embedkit_, expected, left, made, parsed, process
from tests.support.servers.api import Api, vector

# --- formats ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["in.txt", "in.jsonl", "in.csv", "in.parquet"])
@pytest.mark.parametrize("target", ["out.npy", "out.jsonl", "out.parquet", "-"])
def test_every_format_in_becomes_every_format_out(api, source, target):
    """Row i of the output belongs to row i of the input, with all its columns where the output has columns."""
    code, stdout, stderr = embed(api, made(source), "-o", target)
    beside = [{}] * 5 if source == "in.txt" else [{"note": str(note) if source == "in.csv" else note} for note in NOTES]

    assert code == 0
    assert stderr.startswith("5 texts x 3 dimensions, 5 tokens, 1 request, ")
    if target == "out.npy":
        assert np.load(target).tolist() == expected()
        assert left() == sorted([source, "out.npy", "out.npy.report.json"])
        return
    rows = (
        parsed(stdout if target == "-" else Path(target).read_text("utf-8"))
        if "parquet" not in target
        else pq.read_table(target).to_pylist()
    )
    none = {"embedding_error": None} if "parquet" in target else {}
    assert rows == [
        {**more, "text": text, "embedding": vector(text), **none} for more, text in zip(beside, TEXTS, strict=True)
    ]
    assert left() == sorted({source, *(() if target == "-" else (target, f"{target}.report.json"))})


def test_stdin_to_stdout(api):
    """`-` both ways: text in, JSON lines out, the summary on stderr."""
    code, stdout, stderr = embed(api, "-", "-o", "-", stdin=b"one\r\ntwo\n")

    assert (code, parsed(stdout)) == (0, [{"text": text, "embedding": vector(text)} for text in ("one", "two")])
    assert stderr.startswith("2 texts")


def test_formats_may_be_named(api):
    """A suffix that says nothing, or something else, is overruled by the options."""
    Path("data").write_text('{"body": "one"}\n"two"\n')
    code, stdout, _ = embed(
        api, "data", "-o", "out.txt", "--input-format", "jsonl", "--output-format", "jsonl", "--column", "body"
    )

    assert (code, stdout) == (0, "")
    assert [row["body"] for row in parsed(Path("out.txt").read_text())] == ["one", "two"]


@pytest.mark.parametrize("column", ["body", "a b", "größe"])
def test_the_column_may_have_any_name(api, column):
    """`--column` names the text, whatever it is called."""
    pq.write_table(pa.table({column: ["one"], "text": [7]}), "in.parquet")
    code, _, _ = embed(api, "in.parquet", "-o", "out.npy", "--column", column)

    assert code == 0
    assert api.bodies[0]["input"] == ["one"]


@pytest.mark.parametrize("target", ["out.npy", "out.jsonl", "out.parquet", "-"])
def test_no_rows_are_no_error(api, target):
    """Nothing in, nothing asked, an empty output, exit code 0."""
    Path("in.txt").touch()
    code, stdout, stderr = embed(api, "in.txt", "-o", target)

    assert (code, stdout, api.bodies) == (0, "", [])
    assert stderr.startswith("0 texts, 0 tokens, 0 requests, ")
    assert (target == "-") != Path(target).exists()


def test_an_empty_matrix_is_as_wide_as_asked(api):
    """`--dimensions` with no rows: a matrix that others can be stacked on."""
    Path("in.txt").touch()
    embed(api, "in.txt", "-o", "out.npy", "--dimensions", 256)
    embed(api, "in.txt", "-o", "bits.npy", "--dimensions", 256, "--dtype", "ubinary")

    assert (np.load("out.npy").shape, np.load("out.npy").dtype) == ((0, 256), np.float32)
    assert (np.load("bits.npy").shape, np.load("bits.npy").dtype) == ((0, 32), np.uint8)


@pytest.mark.parametrize(("dtype", "kind"), [("float32", np.float32), ("int8", np.int8), ("uint8", np.uint8)])
def test_smaller_types_are_written(api, dtype, kind):
    """`--dtype` is the type in the file: of the matrix, of the Parquet list, of the numbers in JSON."""
    made("in.txt")
    for target in ("out.npy", "out.parquet", "out.jsonl"):
        assert embed(api, "in.txt", "-o", target, "--dtype", dtype)[0] == 0
    matrix = np.load("out.npy")

    assert (matrix.dtype, matrix.shape) == (kind, (5, 3))
    assert pq.read_schema("out.parquet").field("embedding").type == pa.list_(pa.from_numpy_dtype(kind), 3)
    assert pq.read_table("out.parquet")["embedding"].to_pylist() == matrix.tolist()
    assert [row["embedding"] for row in parsed(Path("out.jsonl").read_text())] == matrix.tolist()


def test_many_rows_stay_in_order(api):
    """Thousands of rows over many requests in flight: each vector beside its own text."""
    texts = [f"{'x' * (number % 50)} {number}" for number in range(3_000)]
    made("in.jsonl", texts, range(3_000))
    code, _, stderr = embed(api, "in.jsonl", "-o", "out.parquet")
    table = pq.read_table("out.parquet")

    assert code == 0
    assert stderr.startswith("3,000 texts x 3 dimensions, ")
    assert table["note"].to_pylist() == list(range(3_000))
    assert table["embedding"].to_pylist() == expected(texts)
    assert len(api.bodies) == 94


def test_the_options_reach_the_request(api, monkeypatch):
    """Width, key and concurrency go where they belong; the key comes from the variable that is named."""
    monkeypatch.setenv("MY_KEY", "sk-mine")
    made("in.txt")
    code, _, _ = embed(
        api,
        "in.txt",
        "-o",
        "out.npy",
        "-m",
        "compatible:other",
        "--api-key-env",
        "MY_KEY",
        "--dimensions",
        3,
        "--max-concurrency",
        1,
    )

    assert code == 0
    assert (api.bodies[0]["model"], api.bodies[0]["dimensions"]) == ("other", 3)
    assert api.keys == ["Bearer sk-mine"]


# --- what is refused before anything is sent -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.txt", "-o", "out.npy"], "none.txt: No such file or directory"),
        (["folder.npy", "-o", "out.npy"], "folder.npy: there is no file in this folder"),
        (["*.csv.gz", "-o", "out.npy"], "*.csv.gz: no file matches"),
        (["in.foo", "-o", "out.npy"], "in.foo: No such file or directory"),
        (["in.txt", "-o", "folder.npy"], "folder.npy is a folder: name a file, or end the name in /"),
        (
            ["in.txt", "-o", "out.foo"],
            "out.foo: its suffix names no known format (.npy, .jsonl, .ndjson, .parquet, .pq, .arrow, .feather); pass",
        ),
        (["in.txt", "-o", "no/where/out.npy"], "no/where/out.npy: there is no folder no/where"),
        (
            ["in.txt", "-o", "there.npy"],
            "there.npy exists already, and no report says that this job made it; --force replaces it",
        ),
        (["in.txt", "-o", "folder.npy", "--force"], "folder.npy"),
        (
            ["in.txt", "-o", "/dev/null", "--output-format", "jsonl", "--force"],
            "/dev/null is not a regular file (- is stdout)",
        ),
        (
            ["in.txt", "-o", "-", "--output-format", "npy"],
            "npy does not go to stdout; name a file, or leave --output-format out",
        ),
        (
            ["in.csv", "-o", "out.npy", "--column", "body"],
            "in.csv: no 'body'; there is 'note', 'text' (choose with --column)",
        ),
        (
            ["a cat on the sofa"],
            "a cat on the sofa: No such file or directory; a text goes through stdin: echo TEXT | embedkit embed -",
        ),
        (["nothing.foo", "-o", "out.npy"], "embedkit: nothing.foo: No such file or directory"),
        (["-", "-o", "out.npy", "--input-format", "parquet"], "stdin: cannot be read as Parquet"),
        (["in.txt", "-o", "out.npy", "-m", "m"], "--model m has no provider: the form is 'provider:model'"),
        (["in.txt", "-o", "out.npy", "-m", "opnai:m"], "unknown provider 'opnai'; did you mean openai"),
        (["in.txt", "-o", "out.npy", "--truncate", "end"], "compatible cannot do --truncate end"),
        (["in.txt", "-o", "out.npy", "--dtype", "int8", "--normalize"], "--normalize"),
        (["in.txt", "-o", "out.npy", "--param", "nonsense"], "--param takes NAME=VALUE"),
        (["in.txt", "-o", "out.npy", "--column", "\udcff"], "--column '\\udcff' is not UTF-8"),
        (["in.txt", "-o", "out.npy", "--ca-file", "none.pem"], "--ca-file none.pem: there is no such file"),
        (["in.txt", "-o", "out.npy", "--ca-file", "in.txt"], "--ca-file in.txt: it holds no certificates in PEM"),
        (["in.txt", "-o", "out.npy", "--ca-file", ""], "--ca-file is empty"),
        (
            ["in.txt", "-o", "out.npy", "--ca-file", "in.txt", "--insecure"],
            "--ca-file and --insecure contradict each other",
        ),
        (
            ["in.txt", "-o", "out.npy", "--proxy", "socks5://a:1"],
            "--proxy socks5://a:1: an http or https URL with a host",
        ),
        (
            ["lines.txt", "-o", "out.npy"],
            "lines.txt is text by its suffix, but begins like JSON lines: pass --input-format jsonl",
        ),
        (
            ["-", "-o", "out.npy", "--input-format", "text", "--param", "a=1", "--param", "a=2"],
            "of compatible's own (there is none)",
        ),
        (
            ["in.txt", "-o", "out.npy", "--param", "api_version=1"],
            "with a parameter of compatible's own (there is none)",
        ),
        (
            ["in.txt", "-o", "out.npy", "-m", "local:", "--param", "threads=0"],
            "threads=0: a whole number of at least 1",
        ),
    ],
)
def test_what_cannot_work_is_one_line_and_exit_code_2(api, arguments, message):
    """Nothing is asked of the provider, nothing is written, and the line says what to do."""
    for name in ("in.txt", "in.csv", "there.npy.txt"):
        made(name)
    Path(made("in.jsonl")).rename("lines.txt")
    Path("there.npy").write_bytes(b"precious")
    Path("folder.npy").mkdir()
    before = left()
    code, stdout, stderr = embed(api, *arguments) if "local:" not in arguments else embedkit_("embed", *arguments)

    assert (code, stdout, api.bodies) == (2, "", [])
    assert message in stderr
    assert (stderr.startswith("embedkit: "), stderr.count("\n")) == (True, 1)
    assert left() == before
    assert Path("there.npy").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("pair", "sent"),
    [
        ("keep_alive=-1", {"keep_alive": -1}),
        ("keep_alive=0", {"keep_alive": 0}),
        ("keep_alive=10m", {"keep_alive": "10m"}),
        ('model_options={"num_ctx": 2048, "f16_kv": true}', {"options": {"num_ctx": 2048, "f16_kv": True}}),
        ("legacy=false", {}),
        ("legacy=False", {}),
    ],
)
def test_a_parameter_is_what_it_looks_like(pair, sent):
    """Numbers, truth values and JSON go out as such, to a provider that takes them."""
    made("in.txt", ["one"], [1])
    with Api((200, {}, {"embeddings": [[0.6, 0.8]]})) as api:
        code, _, stderr = embedkit_(
            "embed", "in.txt", "-o", "out.npy", "-m", "ollama:m", "--base-url", api.url, "--param", pair
        )

    assert (code, stderr[:6]) == (0, "1 text")
    assert api.bodies == [{"model": "m", "input": ["one"], "truncate": False, **sent}]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["legacy=maybe"], "legacy='maybe': it takes true or false"),
        (["legacy=0"], "legacy='0': it takes true or false"),
        (["model_options=num_ctx"], "model_options='num_ctx': it takes an object of names and values"),
        (["keep_alive=1", "keep_alive=2"], "--param keep_alive is given twice"),
        (["threads=1"], "with a parameter of ollama's own (there is keep_alive, model_options, legacy)"),
    ],
)
def test_a_parameter_that_is_none_is_refused(pairs, message):
    """Exit code 2, what it takes, and nothing sent."""
    made("in.txt")
    options = [each for pair in pairs for each in ("--param", pair)]
    code, _, stderr = embedkit_("embed", "in.txt", "-o", "out.npy", "-m", "ollama:m", *options)

    assert (code, stderr.count("\n")) == (2, 1)
    assert message in stderr


def test_a_private_authority_on_the_command_line(tmp_path):
    """Refused by default, with the option that mends it; trusted by `--ca-file`; believed blindly by `--insecure`."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path("ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    made("in.txt")
    with Api(context=context) as api:
        refused, _, said = embed(api, "in.txt", "-o", "out.npy")
        codes = [
            embed(api, "in.txt", "-o", f"{name}.npy", *how)[0]
            for name, how in (("a", ["--ca-file", "ca.pem"]), ("b", ["--insecure"]))
        ]
        checked, _, _ = embedkit_("check", "--base-url", api.url, "--ca-file", "ca.pem")

    assert (refused, codes, checked) == (1, [0, 0], 0)
    assert "for a private CA pass --ca-file /path/to/ca.pem" in said
    assert np.load("a.npy").tolist() == np.load("b.npy").tolist() == expected()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'INPUT…'"),
        (["in.txt", "-o", "out.npy", "--on-error", "ignore"], "'ignore' is not one of 'raise', 'skip'"),
        (["in.txt", "-o", "out.npy", "--dimensions", "0"], "0 is not in the range x>=1"),
        (["in.txt", "-o", "out.npy", "--dtype", "float16"], "'float16' is not one of 'float32'"),
        (["in.txt", "-o", "out.npy", "--api-key", "sk-secret-key"], "No such option"),
        (["in.txt", "-o", "out.npy", "--api-key=sk-secret-key"], "No such option"),
    ],
)
def test_a_line_that_makes_no_sense_is_exit_code_2(api, arguments, message):
    """Click says what is wrong; a key given by mistake is not repeated."""
    code, stdout, stderr = embed(api, *arguments)

    assert (code, stdout) == (2, "")
    assert message in stderr
    assert "sk-secret-key" not in stderr


@pytest.mark.parametrize(
    ("arguments", "variable"),
    [
        (["-m", "openai:m", "--api-key-env", "sk-secret-key"], None),
        (["-m", "openai:m", "--param", "organization=sk-secret-key"], "OPENAI_ORG_ID"),
        (["-m", "azure:m", "--param", "ad_token=sk-secret-key"], "AZURE_OPENAI_AD_TOKEN"),
    ],
)
def test_a_key_on_the_command_line_is_refused_and_not_repeated(arguments, variable):
    """Others can read a command line, and shells remember it: the variable to use instead is named."""
    made("in.txt")
    code, stdout, stderr = embedkit_("embed", "in.txt", "-o", "out.npy", "--base-url", "http://127.0.0.1:1", *arguments)

    assert (code, stdout) == (2, "")
    assert "sk-secret-key" not in stderr
    assert variable is None or variable in stderr


def test_a_missing_key_names_its_variable_and_the_option():
    """In the words of the command line."""
    made("in.txt")
    code, _, stderr = embedkit_("embed", "in.txt", "-o", "out.npy", "-m", "openai:text-embedding-3-small")

    assert code == 2
    assert stderr == "embedkit: openai needs a key: set OPENAI_API_KEY, or pass --api-key-env\n"


# --- what fails while it is done -------------------------------------------------------------------------------------


def test_a_refused_text_fails_the_run_by_row(api):
    """Exit code 1, the row and the provider's own words, and no output."""
    made("in.txt", ["one", "BAD", "two"], [1, 2, 3])
    code, stdout, stderr = embed(api, "in.txt", "-o", "out.npy", "--on-error", "raise")

    assert (code, stdout) == (1, "")
    assert stderr == (
        "embedkit: compatible:m: the text is not to my liking (status 400, code invalid_input, row 1); rows count from 0\n"
    )
    assert left() == ["in.txt"]


@pytest.mark.parametrize("target", ["out.npy", "out.jsonl", "out.parquet", "-"])
def test_skip_costs_a_refused_text_its_own_row(api, target):
    """Exit code 3; every other row is there; the refused one is NaN or null, and named on stderr."""
    texts = [f"text {number}" for number in range(300)]
    texts[7] = texts[299] = "BAD"
    texts[8] = "BAD too"
    made("in.txt", texts, texts)
    code, stdout, stderr = embed(api, "in.txt", "-o", target, "--on-error", "skip")
    said = stderr.splitlines()

    assert code == 3
    assert [line.partition(":")[0] for line in said[:-1]] == ["row 7", "row 8", "row 299"]
    assert said[0] == "row 7: compatible:m: the text is not to my liking (status 400, code invalid_input)"
    assert said[-1].startswith("300 texts x 3 dimensions, ")
    assert said[-1].endswith(", 3 failed (rows count from 0)")
    if target == "out.npy":
        found = np.load(target).tolist()
    elif target == "out.parquet":
        found = pq.read_table(target)["embedding"].to_pylist()
    else:
        found = [row["embedding"] for row in parsed(stdout or Path(target).read_text())]
    if target == "out.npy":
        found = [None if all(map(math.isnan, row)) else row for row in found]
    assert found == [None if "BAD" in text else vector(text) for text in texts]


def test_a_part_of_bad_rows_alone_is_a_part_too(api):
    """Failed rows before the first success: they wait for its width, and stand before it."""
    texts = ["BAD"] * 40 + ["good"] * 40
    made("in.txt", texts, texts)
    code, _, _ = embed(api, "in.txt", "-o", "out.npy", "--on-error", "skip", "--max-concurrency", 1)

    assert code == 3
    assert np.isnan(np.load("out.npy")).all(axis=1).tolist() == [True] * 40 + [False] * 40


def test_when_every_text_fails_nothing_is_written(api):
    """A file of NaN helps nobody: exit code 1."""
    made("in.txt", ["BAD", "BAD too"], [1, 2])
    code, _, stderr = embed(api, "in.txt", "-o", "out.npy", "--on-error", "skip")

    assert code == 1
    assert stderr.splitlines()[-1] == "embedkit: every one of the 2 texts failed; nothing was written"
    assert left() == ["in.txt"]


def test_a_bad_line_deep_in_the_file_costs_nothing(api):
    """It is found before anything is sent: exit code 2, the place, the way out, and no output."""
    Path("in.jsonl").write_text('{"text": "one"}\n' * 1_000 + "oops\n")
    code, _, stderr = embed(api, "in.jsonl", "-o", "out.parquet", "--on-error", "raise")

    assert code == 2
    assert stderr == (
        "embedkit: in.jsonl, row 1000 (line 1001): not JSON: Expecting value (at character 0 of the line); "
        "--on-error skip makes it a failed row\n"
    )
    assert api.bodies == []
    assert left() == ["in.jsonl"]


def test_on_stdout_the_rows_before_a_failure_are_there(api):
    """A pipe cannot take back what it was given; the exit code says that there is more."""
    made("in.txt", ["one"] * 512 + ["BAD"], ["one"] * 513)
    code, stdout, _ = embed(api, "in.txt", "-o", "-", "--max-concurrency", 1, "--on-error", "raise")

    assert code == 1
    assert parsed(stdout) == [{"text": "one", "embedding": vector("one")}] * 512


MIXED = [
    b'{"text": "one", "n": NaN}', b'{"text": null}', b'{"body": "x"}', b'{"text": 7}', b'{"text": {"a": 1}}',
    b'{"text": NaN}', b"oops",
    b'{"text": "\xff"}', b'{"text": "\\ud800"}', b"[1]", b'{"text": ""}', b'"two words"',
]  # fmt: skip
FAILED = range(1, 10)


@pytest.mark.parametrize("target", ["out.npy", "out.jsonl", "out.parquet", "-"])
@pytest.mark.parametrize("how", ["a file", "a pipe"])
def test_skip_costs_a_row_without_a_text_itself_only(api, target, how):
    """Null, missing, no string, no JSON, no UTF-8: exit code 3, each
    named by row and line with what is wrong, the others embedded.
    """
    Path("in.jsonl").write_bytes(b"\n".join(MIXED))
    source, stdin = ("in.jsonl", b"") if how == "a file" else ("-", b"\n".join(MIXED))
    code, stdout, stderr = embed(api, source, "-o", target, "--on-error", "skip", stdin=stdin)
    said = [line for line in stderr.splitlines() if "without a usable text" not in line]

    assert code == 3
    assert [line.split(":")[:2] for line in said[:-1]] == [[f"row {row}", f" line {row + 1}"] for row in FAILED]
    assert said[0] == "row 1: line 2: 'text' is null, which is no string"
    assert said[-1].endswith(", 9 failed (rows count from 0)")
    assert [text for body in api.bodies for text in body["input"]] == ["one", "", "two words"]
    if target == "out.npy":
        found = np.load(target).tolist()
    elif target == "out.parquet":
        found = pq.read_table(target)["embedding"].to_pylist()
    else:
        found = [row["embedding"] for row in parsed(stdout or Path(target).read_text())]
    found = [None if row is None or all(map(math.isnan, row)) else row for row in found]
    texts = {0: "one", 10: "", 11: "two words"}
    assert found == [vector(texts[row]) if row in texts else None for row in range(12)]


def test_a_bad_row_late_in_a_pipe_costs_its_row_with_skip(api):
    """60,000 rows that can be read only once."""
    rows = b'{"text": "one"}\n' * 59_990 + b'{"text": null}\n' + b'{"text": "two"}\n' * 9
    Path("rows").write_bytes(rows)
    with Path("rows").open("rb") as file:
        cat = subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE)
        running = process(api, "-", "-o", "out.npy", "--on-error", "skip", stdin=cat.stdout)
        cat.stdout.close()
        _, stderr = running.communicate(timeout=120)
        cat.wait()

    assert running.returncode == 3
    assert "row 59990: line 59991: 'text' is null, which is no string\n" in stderr
    assert stderr.splitlines()[-1].startswith("60,000 texts x 3 dimensions")
    assert np.isnan(np.load("out.npy")).any(axis=1).nonzero()[0].tolist() == [59_990]


def test_an_empty_text_is_refused_before_it_is_paid_for(api):
    """By a provider that takes none: found in the file, by row and line; with skip it costs its row."""
    made("in.txt", ["one", "", "two"], [1, 2, 3])
    code, _, stderr = embed(
        api, "in.txt", "-o", "out.npy", "-m", "mistral:m", "--api-key-env", "PATH", "--on-error", "raise"
    )
    assert (code, api.bodies) == (2, [])
    assert "in.txt, row 1 (line 2): 'text' is empty, and this provider embeds no empty text; --on-error skip" in stderr
    code, _, _ = embed(api, "in.txt", "-o", "out.npy", "-m", "mistral:m", "--api-key-env", "PATH", "--on-error", "skip")
    assert (code, np.isnan(np.load("out.npy")).all(axis=1).tolist()) == (3, [False, True, False])


def test_stdin_from_a_file_is_looked_through_too(api):
    """`< in.jsonl` can be read twice."""
    Path("in.jsonl").write_text('{"text": "one"}\n' * 1_000 + '{"text": null}\n')
    with Path("in.jsonl").open("rb") as file:
        running = process(api, "-", "-o", "out.npy", "--on-error", "raise", stdin=file)
        _, stderr = running.communicate(timeout=60)
    assert (running.returncode, api.bodies) == (2, [])
    assert "row 1000 (line 1001): 'text' is null" in stderr
    with Path("in.jsonl").open("rb") as file:
        running = process(api, "-", "-o", "out.npy", "--on-error", "skip", stdin=file)
        running.communicate(timeout=60)
    assert (running.returncode, np.load("out.npy").shape) == (3, (1_001, 3))


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        (b"PK\x03\x04", "stdin begins like a ZIP archive or an office document"),
        (b'{\n"text": "a"\n}', "stdin begins like a JSON document of several lines: write one object per line"),
        (b'["a", {"text": "b"', "not JSON"),
        (b"id;body\n1;a\n", "stdin begins like a table whose fields are separated by ';'"),
        (b'"a"\n"b"\n', "stdin begins like JSON strings: pass --input-format jsonl, or --input-format text"),
        (b"PAR1\x15\x04", "cannot be read as Parquet"),
        (b"\x1f\x8b\x08\x00", "stdin: cannot be unpacked as gzip"),
        (b"BZh91AY&SY", "stdin begins like bzip2: unpack it first, as bzip2 -dc does"),
        (b'{"body": "a"}\n', "there is 'body' (choose with --column)"),
    ],
)
def test_a_pipe_is_not_embedded_as_what_it_is_not(api, stdin, message):
    """Exit code 2, one line, and nothing sent."""
    code, stdout, stderr = embed(api, "-", "-o", "-", stdin=stdin)

    assert (code, stdout, api.bodies, stderr.count("\n")) == (2, "", [], 1)
    assert message in stderr


def test_a_pipe_is_told_by_its_beginning(api):
    """JSON lines and arrays, CSV and TSV, with all their columns; `--input-format` has the last word."""
    rows = [{"id": "1", "text": "one"}, {"id": "2", "text": "two, more"}]
    pipes = [
        "".join(json.dumps(row) + "\n" for row in rows), 'id,text\n1,one\n2,"two, more"\n',
        "id\ttext\r\n1\tone\r\n2\ttwo, more\r\n", "id;text\n1;one\n2;two, more\n", json.dumps(rows, indent=2),
    ]  # fmt: skip
    for content in pipes:
        code, stdout, _ = embed(api, "-", "-o", "-", stdin=content.encode())
        assert (code, parsed(stdout)) == (0, [{**row, "embedding": vector(row["text"])} for row in rows])
    code, stdout, _ = embed(api, "-", "-o", "-", "--input-format", "text", stdin=pipes[0].encode())
    assert (code, [row["text"] for row in parsed(stdout)]) == (0, pipes[0].splitlines())


def test_parquet_of_every_type_becomes_json_lines(api):
    """What Python's dates cannot hold, too: nothing is embedded for nothing."""
    beside = {
        "ns": pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns")),
        "far": pa.array([2**62, None], pa.timestamp("us", "UTC")),
        "span": pa.array([-(10**18) - 1, None], pa.duration("ns")),
        "day": pa.array([10**7, None], pa.int32()).view(pa.date32()),
        "vector": pa.array([[0.1, 0.2], None], pa.list_(pa.float32(), 2)), "raw": pa.array([b"\xff", None]),
        "sum": pa.array([Decimal("1.10"), None]),
        "pairs": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int8())),
    }  # fmt: skip
    pq.write_table(pa.table({"text": ["one", "two"], **beside}), "in.parquet")
    code, stdout, _ = embed(api, "in.parquet", "-o", "-")
    first, second = parsed(stdout)

    assert code == 0
    assert first == {
        "text": "one", "ns": "2023-11-14T22:13:20.123456789", "far": "+148108-07-06T14:00:27.387904Z",
        "span": "-P11574DT6400.000000001S",
        "day": "+29349-01-26", "vector": [0.1, 0.2], "raw": "/w==", "sum": "1.10", "pairs": [["k", 1]],
        "embedding": vector("one"),
    }  # fmt: skip
    assert second == {"text": "two", **dict.fromkeys(beside), "embedding": vector("two")}


def test_nobody_listening_is_one_line(api):
    """Exit code 1, the address, and no stack trace; with --traceback there is one."""
    made("in.txt")
    code, _, stderr = embedkit_("check", "--base-url", "http://127.0.0.1:1")
    _, _, traced = embedkit_("check", "--base-url", "http://127.0.0.1:1", "--traceback")

    assert code == 1
    assert (stderr.startswith("embedkit: cannot connect to http://127.0.0.1:1: "), stderr.count("\n")) == (True, 1)
    assert traced.startswith("Traceback (most recent call last):")
    assert traced.endswith(stderr)


def test_a_key_that_the_provider_quotes_is_not_shown(monkeypatch):
    """OpenAI repeats a wrong key in its refusal; the line has stars there."""
    monkeypatch.setenv("MY_KEY", "sk-secret-key-123")
    refusal = {"error": {"message": "Incorrect API key provided: sk-secret-key-123.", "code": "invalid_api_key"}}
    with Api((401, {}, refusal)) as api:
        code, _, stderr = embedkit_("check", "--base-url", api.url, "--api-key-env", "MY_KEY")

    assert code == 1
    assert "Incorrect API key provided: ***." in stderr
    assert "sk-secret" not in stderr


# --- files that are there already ------------------------------------------------------------------------------------


def test_force_replaces_a_file_only_when_all_went_well(api):
    """A failed run leaves the old file as it was; a good one puts the new in its place."""
    made("in.txt")
    made("bad.txt", ["BAD"], [1])
    Path("out.npy").write_bytes(b"old")
    failed, _, _ = embed(api, "bad.txt", "-o", "out.npy", "--force")
    kept = Path("out.npy").read_bytes()
    code, _, _ = embed(api, "in.txt", "-o", "out.npy", "--force")

    assert (failed, kept) == (1, b"old")
    assert (code, np.load("out.npy").tolist()) == (0, expected())
    assert left() == ["bad.txt", "in.txt", "out.npy", "out.npy.report.json"]


def test_the_input_may_be_replaced_by_the_output(api):
    """Reading is done before the name is taken."""
    made("same.parquet")
    code, _, _ = embed(api, "same.parquet", "-o", "same.parquet", "--force")

    assert code == 0
    assert pq.read_table("same.parquet").column_names == ["note", "text", "embedding", "embedding_error"]


def test_a_symbolic_link_stays_one(api):
    """The file it points to is written, there or not there yet."""
    made("in.txt")
    Path("elsewhere").mkdir()
    Path("out.npy").symlink_to("elsewhere/real.npy")
    first, _, _ = embed(api, "in.txt", "-o", "out.npy")
    again, _, _ = embed(api, "in.txt", "-o", "out.npy")
    forced, _, _ = embed(api, "in.txt", "-o", "out.npy", "--force")

    assert (first, again, forced) == (0, 0, 0)
    assert Path("out.npy").is_symlink()
    assert np.load("elsewhere/real.npy").tolist() == expected()


# --- what is said of a job that was begun before ---------------------------------------------------------------------


def test_a_dry_run_needs_no_key(monkeypatch):
    """What a job would cost is said of a provider that wants a key, without one."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    code, stdout, stderr = embedkit_("embed", made("in.txt"), "-m", "openai:text-embedding-3-small", "--dry-run")

    assert (code, stderr) == (0, "")
    assert "5 rows" in stdout


def test_a_dry_run_for_machines_needs_no_output():
    """It writes none, so that stdout is free."""
    code, stdout, _ = embedkit_("embed", made("in.txt"), "-m", "local:", "--dry-run", "--json")

    assert code == 0
    assert json.loads(stdout)["scan"]["rows"] == 5


def test_a_finished_job_with_failed_rows_is_finished(api):
    """The first run says 3; run again it says that it is finished, sends nothing and exits with 0."""
    Path("in.jsonl").write_text('{"text": "one"}\n{"text": null}\n', "utf-8")
    assert embed(api, "in.jsonl", "-o", "out.npy")[0] == 3
    sent = len(api.bodies)
    code, _, stderr = embed(api, "in.jsonl", "-o", "out.npy")

    assert code == 0
    assert "out.npy is finished already (2 rows, 1 failed); nothing was sent" in stderr
    assert len(api.bodies) == sent


@pytest.mark.parametrize("other", ["one\n", "one\nthree\n", "one\ntwo\nthree\n", ""])
def test_other_rows_of_a_pipe_are_no_finished_job(api, other):
    """A pipe cannot be looked through first; its rows are compared all the same before the job is said to be done."""

    def piped(text):
        child = process(api, "-", "-o", "out.npy", "-m", "compatible:m", stdin=subprocess.PIPE)
        _, stderr = child.communicate(text, timeout=60)
        return child.returncode, stderr

    assert piped("one\ntwo\n")[0] == 0
    sent = len(api.bodies)
    code, stderr = piped("one\ntwo\n")
    assert (code, "finished already" in stderr) == (0, True)
    code, stderr = piped(other)

    assert code == 2
    assert "the rows of the input are others" in stderr
    assert len(api.bodies) == sent


def test_a_file_that_changed_is_no_finished_job_without_a_scan(api):
    """`--no-scan` leaves out the look, not the comparison."""
    Path("in.txt").write_text("one\ntwo\n")
    assert embed(api, "in.txt", "-o", "out.npy", "--no-scan")[0] == 0
    assert embed(api, "in.txt", "-o", "out.npy")[0] == 0
    Path("in.txt").write_text("one\nthree\n")

    for more in ([], ["--no-scan"]):
        code, _, stderr = embed(api, "in.txt", "-o", "out.npy", *more)
        assert code == 2
        assert "the rows of the input are others" in stderr


def test_a_limit_says_that_a_higher_one_goes_on(api):
    """The same command would only stop again."""
    Path("in.txt").write_text("".join(f"text {number}\n" for number in range(200)))
    code, _, stderr = embed(api, "in.txt", "-o", "out.npy", "--max-tokens", "50")

    assert code == 4
    assert "of 200 rows are kept in" in stderr
    assert stderr.endswith("out.npy.job; a higher one goes on there\n")
    assert "the same command" not in stderr
    assert embed(api, "in.txt", "-o", "out.npy", "--max-tokens", "5000")[0] == 0


def test_advice_does_not_contradict_itself(api):
    """Where only --force goes on, nothing says that the same command does."""
    Path("in.txt").write_text("".join(f"text {number}\n" for number in range(200)))
    assert embed(api, "in.txt", "-o", "out.npy", "--max-tokens", "50")[0] == 4
    Path("out.npy.job", "vectors.npy").write_bytes(b"cut")
    code, _, stderr = embed(api, "in.txt", "-o", "out.npy")

    assert code == 2
    assert "--force" in stderr
    assert "rows are kept in" in stderr
    assert "run the same job again" not in stderr
