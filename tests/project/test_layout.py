"""The tree is in order: nothing lies about, every module has its place, verbs and tests keep to the rules."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent.parent
PACKAGE = HERE / "embedkit"
NOTEBOOK = HERE / "examples" / "notebook.ipynb"  # test_examples.py runs it, and sees that it lies there unrun
VERBS = {"encode", "decode", "explain", "learn", "probe"}
SYNONYMS = ("parse_", "build_", "transform_", "handle_", "process_", "prepare_", "serialize_", "deserialize_")
JUNK = {
    ".orig",
    ".rej",
    ".bak",
    ".tmp",
    ".log",
    ".swp",
    ".pyi",
    ".ipynb",
    ".zip",
    ".gz",
    ".npy",
    ".onnx",
    ".patch",
    ".diff",
}


def modules(folder=PACKAGE):
    """Names of the modules and packages directly in a folder."""
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    return files | {path.parent.name for path in folder.glob("*/__init__.py")}


def sources(folder):
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def parsed(path):
    return ast.parse(path.read_text("utf-8"), str(path))


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def layers():
    """The layers of pyproject.toml, each a set of siblings, from the top."""
    contracts = tomllib.loads((HERE / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    drawn = next(contract for contract in contracts if contract["type"] == "layers")
    return [{name.strip(" ()") for name in layer.replace(":", "|").split("|")} for layer in drawn["layers"]]


def test_every_module_has_its_layer():
    """The modules of the package are exactly those that the layers in pyproject.toml name, each once."""
    drawn = [name for layer in layers() for name in layer]

    assert len(drawn) == len(set(drawn))
    assert modules() == set(drawn)


def test_imports_only_go_down():
    """No module imports from its own layer or from one above, at the top or inside a function (types excepted)."""
    height = {name: len(layers()) - number for number, layer in enumerate(layers()) for name in layer}
    wrong = []
    for path in sources(PACKAGE):
        home = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in imports(parsed(path)):
            names = [name for name in targets(node, path) if name in height and name != home and home in height]
            wrong += [f"{home} imports {name}" for name in names if height[name] >= height[home]]

    assert wrong == []


def imports(tree):
    """The import statements outside `if TYPE_CHECKING`."""
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        stack.extend(ast.iter_child_nodes(node))


def targets(node, path):
    """Names of the package's own modules that an import names."""
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[1] for alias in node.names if alias.name.startswith("embedkit.")]
    above = len(path.relative_to(PACKAGE).parts)
    if node.level == above:
        return [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
    return [(node.module or "").split(".")[1]] if not node.level and (node.module or "").startswith("embedkit.") else []


def test_the_package_holds_code_and_data():
    """Beside modules there is only py.typed, and data in its folder."""
    found = {
        path.relative_to(PACKAGE)
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    }

    assert [path for path in found if path.parts[0] != "data"] == [Path("py.typed")]


@pytest.mark.parametrize("folder", ["embedkit", "tests", "benchmarks", "examples"])
def test_nothing_lies_about(folder):
    """No left-overs of editors, merges and trials, and no binary that a reader cannot check."""
    junk = [
        str(path.relative_to(HERE))
        for path in (HERE / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path != NOTEBOOK
        and (path.suffix in JUNK or path.name.endswith("~") or path.name.lower().startswith((".", "untitled")))
    ]  # fmt: skip

    assert junk == []


def test_every_module_opens_with_its_strategy():
    """Each module says in its docstring what goes in, what comes out, what it never does."""
    assert [str(path) for path in sources(PACKAGE) if not ast.get_docstring(parsed(path))] == []


def test_a_codec_has_only_its_verbs():
    """A dialect's public methods are encode and decode, and explain, learn and probe where it needs them."""
    seen, wrong = 0, []
    for path in sources(PACKAGE / "providers"):
        for kind in (node for node in ast.walk(parsed(path)) if isinstance(node, ast.ClassDef)):
            methods = {
                node.name: node for node in kind.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            }
            if "encode" not in methods:
                continue
            seen += 1
            public = {name for name, node in methods.items() if not name.startswith("_") and not is_property(node)}
            wrong += [f"{path.name}: {kind.name}.{name}" for name in public - VERBS]
            wrong += [f"{path.name}: {kind.name} has no {name}" for name in {"encode", "decode"} - public]
            wrong += [
                f"{path.name}: {name} is async"
                for name, node in methods.items()
                if isinstance(node, ast.AsyncFunctionDef)
            ]

    assert wrong == []
    assert seen >= 2


def is_property(node):
    return any(isinstance(mark, ast.Name) and mark.id == "property" for mark in node.decorator_list)


def test_there_is_one_word_for_each_deed():
    """No function of the codec layer is a `parse_`, a `build_` or another synonym of a verb there is."""
    wrong = [
        f"{path.name}: {node.name}"
        for path in [*sources(PACKAGE / "providers"), *sources(PACKAGE / "codec")]
        for node in functions(parsed(path))
        if node.name.lstrip("_").startswith(SYNONYMS)
    ]

    assert wrong == []


def test_every_test_says_its_claim():
    """Every test function has a docstring, and no two tests of a file share a name."""
    silent, doubled = [], []
    for path in sources(HERE / "tests"):
        tree = parsed(path)
        tests = [node for node in functions(tree) if node.name.startswith("test_")]
        names = [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
        silent += [f"{path.name}: {node.name}" for node in tests if not ast.get_docstring(node)]
        doubled += [f"{path.name}: {name}" for name in set(names) if names.count(name) > 1]

    assert silent == []
    assert doubled == []


def test_no_address_of_a_machine():
    """No file of the project names a path of the machine it was written on."""
    places = tuple(f"/{name}/" for name in ("root", "work"))
    wrong = [
        f"{path.relative_to(HERE)}: {place}"
        for folder in ("embedkit", "tests", "benchmarks", "examples")
        for path in sources(HERE / folder)
        for place in places
        if place in path.read_text("utf-8")
    ]

    assert wrong == []
