"""What the documents name is there: every file, every folder, every class, function and command in backticks."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import embedkit

HERE = Path(__file__).parent.parent.parent
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/architecture.md",
    "docs/frameworks.md",
    "docs/observability.md",
    "benchmarks/README.md",
    "benchmarks/corpus/README.md",
)
CODE = ("embedkit", "tests", "benchmarks", "examples")
MAP = HERE / "docs" / "architecture.md"


def in_backticks(text):
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def links(text):
    return [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]


PATH = re.compile(r"[\w./-]+(/|\.(py|md|toml|c|json|txt|yml|svg))|(tests|benchmarks|embedkit|docs)/[\w/-]+")


def exists(word, document):
    """The file or folder, seen from the checkout, from the package, or from beside the document."""
    return any((folder / word).exists() for folder in (HERE, HERE / "embedkit", document.parent))


def defined():
    """Names that the code defines, and `Class.member` for what stands in a class."""
    names = set()
    for path in (path for folder in CODE for path in (HERE / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names |= {name.id for name in [node] if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)}
            names |= {node.arg} if isinstance(node, ast.arg) else set()
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                names.add(node.name)
            if isinstance(node, ast.ClassDef):
                names |= {f"{node.name}.{each.name}" for each in node.body if hasattr(each, "name")}
    return names


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_that_a_document_names_exists(name):
    """Files and folders in backticks, and the targets of links, are in the tree."""
    document = HERE / name
    text = document.read_text("utf-8")
    paths = [word for word in in_backticks(text) if PATH.fullmatch(word)]

    assert [word for word in [*paths, *links(text)] if not exists(word, document)] == []


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_every_name_that_a_document_names_is_defined(name):
    """Classes, methods, functions and fields in backticks are defined somewhere in the code."""
    document = HERE / name
    words = [word for word in in_backticks(document.read_text("utf-8")) if re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", word)]
    known = {*defined(), "del", "make"}  # a statement of Python, a command
    unknown = [word for word in words if word not in known and not word.startswith("embedkit.")]
    missing = [word for word in words if word.startswith("embedkit.") and not imported(word)]

    assert [word for word in unknown if not exists(word, document)] == []
    assert missing == []


def imported(word):
    """Whether this dotted name of the package can be had."""
    found = embedkit
    for name in word.split(".")[1:]:
        found = getattr(found, name, None)
    return found is not None


def test_the_map_shows_every_module():
    """The picture of the layers has every folder and module of the package, and its lines begin with nothing else."""
    picture = MAP.read_text("utf-8").split("```")[1]
    drawn = set(re.findall(r"(?:^| {3,})(\w+)/?(?= )", picture, flags=re.MULTILINE))
    files = {path.stem for path in (HERE / "embedkit").glob("*.py")} - {"__init__", "__main__"}
    folders = {path.parent.name for path in (HERE / "embedkit").glob("*/__init__.py")}

    assert files | folders <= drawn
    assert set(re.findall(r"^(\w+)", picture, flags=re.MULTILINE)) <= files | folders
