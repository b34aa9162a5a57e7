"""Every block of Python in the README and on the site runs, and prints what stands beside its `print`.

The blocks of a page run one after the other, as a reader would type them, with the bundled model where they need no
key. Where they name a provider, its answers come from a fake at the exchange. Left out are blocks marked `no-run`,
since they need a file or a package that is not there, and those titled "before", which are code of other libraries.
docs/frameworks.md and docs/observability.md have tests of their own.
"""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import click
import prometheus_client
import pytest

from embedkit import catalog
from embedkit._embedders import http
from embedkit.cli import commands  # noqa: F401 (registers the subcommands)
from embedkit.cli.app import root
from embedkit.providers import hosts
from embedkit.testing import FakeEmbedder, FakeExchange
from tools.provider_pages import pages

HERE = Path(__file__).parent.parent.parent
SITE = {path.relative_to(HERE).as_posix(): path.read_text("utf-8") for path in sorted((HERE / "docs").rglob("*.md"))}
MADE = {f"docs/providers/{name}": text for name, text in pages().items()}
PAGES = {"README.md": (HERE / "README.md").read_text("utf-8"), **SITE, **MADE}
FENCE = re.compile(r"^```(\w+)?([^\n]*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
ELSEWHERE = {"docs/frameworks.md"}  # test_frameworks.py runs it
KEYS = ("OPENAI_API_KEY", "CO_API_KEY", "AZURE_OPENAI_API_KEY")
CORPUS = [{"id": number, "title": f"title {number}", "body": f"passage number {number}"} for number in range(3)]


def blocks(name, language="python"):
    return [
        (note.strip(), code)
        for found, note, code in FENCE.findall(PAGES[name])
        if found == language
    ]  # fmt: skip


RUN = [name for name in PAGES if name not in ELSEWHERE and any(note == "" for note, _ in blocks(name))]


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
    """Somebody in an empty folder with a corpus and keys; no request leaves this process."""
    metrics = set(prometheus_client.REGISTRY._collector_to_names)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://resource.openai.azure.com")
    for key in KEYS:
        monkeypatch.setenv(key, "sk-of-the-test-1234567890")
    monkeypatch.setattr(http, "AiohttpExchange", lambda settings: FakeExchange(answer))
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CORPUS), "utf-8")
    yield
    for each in set(prometheus_client.REGISTRY._collector_to_names) - metrics:  # a page makes observers of its own
        prometheus_client.REGISTRY.unregister(each)


@pytest.mark.parametrize("name", RUN)
def test_every_block_runs(name, reader, capsys):
    """A page's blocks run in order, and where every `print` says what comes out, that is what comes out."""
    space = {"__name__": "__page__"}
    for note, code in blocks(name):
        if note:
            continue
        with warnings.catch_warnings():
            if "fastapi" in code:
                warnings.simplefilter("default")  # what FastAPI's own client deprecates
            exec(compile(code, name, "exec", dont_inherit=True), space)  # noqa: S102 (our own pages)
        printed = capsys.readouterr().out.splitlines()
        calls = re.findall(r"^ *print\((.*)$", code, flags=re.MULTILINE)
        promised = [said[1] for call in calls if (said := re.search(r"\)  # (.+)$", call))]
        if len(promised) == len(calls):
            assert printed == promised


@pytest.mark.parametrize("name", PAGES)
def test_a_block_that_is_not_run_says_why_it_is_not(name):
    """A block of Python is run, or marked as `no-run` or as the code of another library, and compiles where it is ours."""
    for note, code in blocks(name):
        assert note in ("", "no-run") or note.startswith('title="before: ')
        if not note.startswith("title"):
            compile(code, name, "exec")


def test_commands_have_the_options_that_the_pages_use():
    """Every line of `embedkit …` in a block names a subcommand and options that it has."""
    wrong = []
    for name in PAGES:
        for line in (line for _, code in blocks(name, "") for line in code.splitlines()):
            words = line.partition("#")[0].split()
            if words[:1] != ["embedkit"] or words[1].startswith("-"):
                continue
            command = root.get_command(click.Context(root), words[1])
            known = (
                {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
                if command
                else set()
            )
            wrong += [
                f"{name}: {line}" for word in words[2:] if word.startswith("-") and word != "-" and word not in known
            ]
            wrong += [] if command else [f"{name}: {line}"]

    assert wrong == []


def test_every_provider_has_a_page_that_says_what_the_code_says():
    """A page for each host and the bundled model, with its variables, parameters, limits and models."""
    built_in = {host.name: host for host in hosts() if host.dialect.__module__.startswith("embedkit.")}

    assert set(pages()) == {"index.md", "local.md", *(f"{name}.md" for name in built_in)}
    for name, host in built_in.items():
        page = pages()[f"{name}.md"]
        asked = [*host.key_variables, *host.url_variables, *host.parameters]
        asked += [each.name for each in catalog.MODELS.get(host.catalog or name, ())]

        assert [word for word in asked if f"`{word}`" not in page] == []


def test_every_error_has_a_row():
    """docs/errors.md says of every error what to do, of the root in its first line."""
    import embedkit

    errors = {name for name in embedkit.__all__ if name.endswith("Error")} - {"EmbedkitError", "ApiError"}
    listed = set(re.findall(r"^\| `(\w+)` \|", PAGES["docs/errors.md"], flags=re.MULTILINE))

    assert listed >= errors


def test_the_first_line_counts_the_providers():
    """The number in the README is that of the rows of its table."""
    assert re.search(r"works with (\d+) providers", PAGES["README.md"])[1] == str(len(pages()) - 1)
