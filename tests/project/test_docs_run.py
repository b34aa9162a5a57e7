"""Every block of Python and every `embedkit` command in the README and on the site runs, and prints what it says.

The blocks of a page run one after the other, as a reader would type them, with the bundled model where they need no
key. Where they name a provider, its answers come from a fake at the exchange. Left out are blocks titled "before", which
are code of other libraries. test_frameworks.py runs those of docs/frameworks.md.
"""

from __future__ import annotations

import ast
import io
import json
import re
import shlex
import sys
import tokenize
import warnings
from pathlib import Path

import prometheus_client
import pytest
import tiktoken
import trustme
from click.testing import CliRunner

import embedkit
from embedkit import catalog
from embedkit._embedders import http
from embedkit.cli.commands import root
from embedkit.providers import hosts
from embedkit.testing import FakeEmbedder, FakeExchange
from tools.provider_pages import pages

HERE = Path(__file__).parent.parent.parent
SITE = {path.relative_to(HERE).as_posix(): path.read_text("utf-8") for path in sorted((HERE / "docs").rglob("*.md"))}
MADE = {f"docs/providers/{name}": text for name, text in pages().items()}
PAGES = {"README.md": (HERE / "README.md").read_text("utf-8"), **SITE, **MADE}
FENCE = re.compile(r"^```(\w+)?([^\n]*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
ELSEWHERE = {"docs/frameworks.md"}  # test_frameworks.py runs it
CORPUS = [{"id": number, "title": f"title {number}", "body": f"passage number {number}"} for number in range(3)]


def blocks(name, language="python"):
    return [
        (note.strip(), code)
        for found, note, code in FENCE.findall(PAGES[name])
        if found == language
    ]  # fmt: skip


RUN = [name for name in PAGES if name not in ELSEWHERE and any(note == "" for note, _ in blocks(name))]
COMMANDS = {
    name: [line for _, code in blocks(name, "") for line in code.splitlines() if line.startswith("embedkit ")]
    for name in PAGES
}


def answer(request):
    """The vectors of the texts in a request, in OpenAI's, Ollama's or Cohere's format."""
    if not request.body:
        return {}
    body = json.loads(request.body)
    texts = next(body[name] for name in ("input", "inputs", "texts") if name in body)
    facts = next(
        (catalog.facts(each, body["model"]) for each in catalog.MODELS if catalog.facts(each, body["model"])), None
    )
    width = body.get("dimensions") or (facts.dimensions if facts else None) or 8
    rows = [FakeEmbedder(width).vector(text).tolist() for text in texts]
    if request.url.endswith("/api/embed"):
        return {"embeddings": rows}
    if "cohere" in request.url:
        return {"embeddings": {"float": rows}}
    tokens = sum(len(text.split()) for text in texts)
    return {
        "data": [{"index": place, "embedding": row} for place, row in enumerate(rows)],
        "usage": {"total_tokens": tokens},
    }


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """Somebody in a folder with some files, and with a key for every provider; no request leaves this process."""
    metrics = set(prometheus_client.REGISTRY._collector_to_names)
    monkeypatch.chdir(tmp_path)
    for host in hosts():
        for name in host.key_variables:
            monkeypatch.setenv(name, "sk-of-the-test-1234567890")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://resource.openai.azure.com")
    monkeypatch.setenv("DATABRICKS_HOST", "https://adb-1.azuredatabricks.net")
    monkeypatch.setenv("WATSONX_URL", "https://us-south.ml.cloud.ibm.com")
    for name in (
        "AWS_REGION",
        "CLOUDFLARE_ACCOUNT_ID",
        "GOOGLE_CLOUD_PROJECT",
        "SNOWFLAKE_ACCOUNT",
        "WATSONX_PROJECT_ID",
    ):
        monkeypatch.setenv(name, "some-value")
    monkeypatch.setattr(http, "AiohttpExchange", lambda settings: FakeExchange(answer))
    letters = tiktoken.Encoding(
        "cl100k_base", pat_str=".+", mergeable_ranks={bytes([each]): each for each in range(256)}, special_tokens={}
    )
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, "cl100k_base", letters)  # the real one would be downloaded
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "internal-ca.pem"))
    for name in ("corpus.jsonl", "articles.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in CORPUS), "utf-8")
    (tmp_path / "pairs.csv").write_text("question,answer\nwho?,me\nwhere?,here\n", "utf-8")
    for name in ("lines.txt", "questions.txt"):
        (tmp_path / name).write_text("a cat on the sofa\nstock prices fell\n", "utf-8")
    yield
    for each in set(prometheus_client.REGISTRY._collector_to_names) - metrics:  # a page makes observers of its own
        prometheus_client.REGISTRY.unregister(each)


def promises(code):
    """Line → what the comment behind the `print` that begins there says it prints."""
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    comments = {each.start[0]: each.string.lstrip("# ") for each in tokens if each.type == tokenize.COMMENT}
    prints = [
        node for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]  # fmt: skip
    return {node.lineno: comments[node.end_lineno] for node in prints if node.end_lineno in comments}


def run(name, code, space):
    """Run a block in the namespace of its page; what each of its lines printed."""
    printed = {}

    def print_(*words):
        printed.setdefault(sys._getframe(1).f_lineno, []).append(" ".join(map(str, words)))

    space["print"] = print_
    with warnings.catch_warnings():
        if "fastapi" in code:
            warnings.simplefilter("default")  # what FastAPI's own client deprecates
        exec(compile(code, name, "exec", dont_inherit=True), space)  # noqa: S102 (our own pages)
    return printed


@pytest.mark.parametrize("name", RUN)
def test_every_block_runs(name, reader):
    """A page's blocks run in order, and every `print` with a comment behind it prints what the comment says."""
    space = {"__name__": "__page__"}
    for note, code in blocks(name):
        if note == "":
            printed = run(name, code, space)
            assert {line: printed.get(line) for line in promises(code)} == {
                line: [said] for line, said in promises(code).items()
            }


@pytest.mark.parametrize(
    "code",
    [
        "print(1)  # 2",
        "if False:\n    print(1)  # 1",
        "print(\n    1\n)  # 2",
        "print(1)\nprint(2)  # 1",
        "print(1 / 0)",
    ],
)
def test_a_block_that_does_not_do_what_it_says_is_found(code, reader, monkeypatch):
    """Another value, a `print` that is not reached, and an error."""
    monkeypatch.setitem(PAGES, "README.md", f"```python\n{code}\n```\n")

    with pytest.raises((AssertionError, ZeroDivisionError)):
        test_every_block_runs("README.md", None)


@pytest.mark.parametrize("name", PAGES)
def test_a_block_that_is_not_run_is_of_another_library(name):
    """A block of Python has no mark, or the title that says whose code it is."""
    assert [note for note, _ in blocks(name) if note and not re.fullmatch(r'title="before: .+"', note)] == []


@pytest.mark.parametrize("name", [name for name, lines in COMMANDS.items() if lines])
def test_every_command_runs(name, reader):
    """Every line `embedkit …` of a page's blocks ends with exit code 0, one after the other in one folder."""
    for line in COMMANDS[name]:
        words = shlex.split(line, comments=True)[1:]
        given = Path(words.pop()).read_bytes() if "<" in words else b""
        ran = CliRunner().invoke(root, [word for word in words if word != "<"], input=given)

        assert (ran.exit_code, ran.stderr if ran.exit_code else "") == (0, ""), line


def test_every_provider_has_a_page_that_says_what_the_code_says():
    """A page for each host and the bundled model, with its variables, parameters, limits and models."""
    built_in = {host.name: host for host in hosts() if host.dialect.__module__.startswith("embedkit.")}

    assert set(pages()) == {"index.md", "local.md", *(f"{name}.md" for name in built_in)}
    for name, host in built_in.items():
        page = pages()[f"{name}.md"]
        asked = [*host.key_variables, *host.url_variables, *host.parameters]
        asked += [each.name for each in catalog.MODELS.get(host.catalog or name, ())]

        assert [word for word in asked if f"`{word}`" not in page] == []


def test_every_error_has_a_row_that_says_what_to_do():
    """docs/errors.md has every error but the two base classes, each with what happened, whether it is retried and what to
    do; and it names those that are no `ApiError`.
    """
    errors = {name for name in embedkit.__all__ if name.endswith("Error")} - {"EmbedkitError", "ApiError"}
    lines = [line for line in PAGES["docs/errors.md"].splitlines() if re.match(r"\| `\w+Error` \|", line)]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    said = re.search(r"^All but (.*?)are\s+also an `ApiError`", PAGES["docs/errors.md"], flags=re.DOTALL | re.MULTILINE)

    assert sorted(row[0].strip("`") for row in rows) == sorted(errors)
    assert [row for row in rows if len(row) != 4 or not all(row)] == []
    assert set(re.findall(r"`(\w+)`", said[1])) == {
        name for name in errors if not issubclass(getattr(embedkit, name), embedkit.ApiError)
    }


def test_every_exit_code_has_a_row():
    """docs/command.md lists the exit codes that `embedkit --help` lists."""
    section = PAGES["docs/command.md"].partition("## Exit codes")[2].partition("\n## ")[0]
    listed = [int(code) for row in re.findall(r"^\| ([\d, ]+) \|", section, re.MULTILINE) for code in row.split(",")]
    helped = CliRunner().invoke(root, ["--help"]).stdout.partition("Exit codes:")[2].partition("Options:")[0]

    assert sorted(listed) == sorted({int(code) for code in re.findall(r"\b\d+\b", helped)})


def test_the_first_line_counts_the_providers():
    """The number in the README is that of the rows of its table."""
    assert re.search(r"works with (\d+) providers", PAGES["README.md"])[1] == str(len(pages()) - 1)
