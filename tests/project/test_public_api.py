"""The public API: what `import embedkit` offers, and how little it costs."""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import embedkit
from embedkit._http import aiohttp_exchange
from tests.support.servers.api import Api, vector

HERE = Path(__file__).parent.parent
MODULES = sorted(embedkit._MODULES)


def fresh(script):
    """What a new interpreter prints, without site-packages: the package needs nothing but the standard library."""
    found = subprocess.run(
        [sys.executable, "-S", "-c", script], capture_output=True, text=True, cwd=HERE.parent, check=True
    )
    return found.stdout.split()


def test_importing_it_loads_nothing():
    """`import embedkit` loads one module, itself: no client, no loop, no numpy, not even typing."""
    loaded = fresh("import sys; before = set(sys.modules); import embedkit; print(*sorted(set(sys.modules) - before))")
    dear = {"aiohttp", "anyio", "asyncio", "msgspec", "numpy", "tenacity", "typing"}

    assert loaded == ["embedkit"]
    assert dear & set(fresh("import sys, embedkit; print(*sys.modules)")) == set()


def test_looking_at_it_loads_nothing():
    """dir(), the version and names that tools look for cost no more than the import."""
    loaded = fresh(
        "import sys, embedkit; before = set(sys.modules); dir(embedkit); embedkit.__version__; hasattr(embedkit, '__wrapped__'); "
        "print(*sorted(set(sys.modules) - before))"
    )

    assert loaded == []


def test_the_errors_are_cheap():
    """Catching an error of the tree needs no numpy and no HTTP client."""
    loaded = fresh("import sys, embedkit; embedkit.RateLimitError; print(*sys.modules)")

    assert not {"aiohttp", "anyio", "asyncio", "msgspec", "numpy", "tenacity"} & set(loaded)


def test_connecting_opens_nothing():
    """connect() loads no HTTP client, no event loop and no numpy; the first request does."""
    found = subprocess.run(
        [sys.executable, "-c", "import sys, embedkit; embedkit.connect('openai:m', api_key='k'); print(*sys.modules)"],
        capture_output=True, text=True, check=True, cwd=HERE.parent,
    )  # fmt: skip

    assert not {"aiohttp", "anyio", "asyncio", "numpy", "tenacity"} & set(found.stdout.split())


def test_numpy_is_loaded_while_the_first_reply_is_awaited(monkeypatch):
    """The first request does not wait for it: its import, a matter of a thread, fills the wait for the reply."""
    tasks = []
    with Api(hold_after=0) as api:

        def warm():
            tasks.append(asyncio.current_task())
            threading.Thread(target=lambda: api.held.wait(30) and api.release.set()).start()

        monkeypatch.setattr(aiohttp_exchange, "_warm_numpy", warm)
        with embedkit.connect_sync("compatible:m", base_url=api.url, timeout=30) as embedder:
            vectors = embedder.embed("hello").vectors

    assert vectors.tolist() == [vector("hello")]
    assert tasks == [None]  # called by the loop itself, not on the way of the request


def test_the_names_are_sorted_and_once():
    """`__all__` is in order, without doubles and without private names."""
    names = embedkit.__all__

    assert names == sorted(set(names))
    assert not [name for name in names if name.startswith("_")]


@pytest.mark.parametrize("name", embedkit.__all__)
def test_every_name_resolves(name):
    """Each public name is there, is itself on every access, and has a docstring."""
    found = getattr(embedkit, name)

    assert found is getattr(embedkit, name)
    assert found.__doc__
    assert found.__name__ == name


@pytest.mark.parametrize("function", [embedkit.connect_sync, embedkit.bulk.run_sync, embedkit.bulk.estimate_sync])
def test_help_of_a_sync_function_is_aligned(function):
    """The documentation that it shares with the async one stands at its margin, in `help()` and in notebooks."""
    assert {"Args:", "Raises:"} & set(function.__doc__.splitlines()) != set()


def test_an_example_in_the_reference_is_a_block():
    """The site reads `>>>` at the margin of a docstring as a quotation; four spaces make it code."""
    for name in re.findall(r"^::: ([\w.]+)", (HERE.parent / "docs" / "api.md").read_text("utf-8"), re.MULTILINE):
        found = embedkit
        for part in name.split(".")[1:]:
            found = getattr(found, part)
        members = [found, *(member for member in vars(found).values() if getattr(member, "__module__", "") == name)]
        for member in members:
            lines = (inspect.getdoc(member) or "").splitlines()
            assert not [line for line in lines if line.startswith(">>>")], member


def test_star_brings_all_of_it():
    """`from embedkit import *` gives exactly `__all__`."""
    space = {}
    exec("from embedkit import *", space)  # noqa: S102 (a star import needs a module's top level)

    assert set(space) - {"__builtins__"} == set(embedkit.__all__)


def test_dir_shows_the_names():
    """dir() lists the public names, the public modules and the version, and no machinery."""
    assert set(dir(embedkit)) == {*embedkit.__all__, *MODULES, "__version__"}


@pytest.mark.parametrize("name", MODULES)
def test_a_public_module_is_there_after_a_plain_import(name):
    """`import embedkit; embedkit.errors` needs no second import, and the modules not asked for are not loaded."""
    loaded = subprocess.run(
        [sys.executable, "-c", f"import sys, embedkit; print(embedkit.{name}.__name__); print(*sys.modules)"],
        capture_output=True, text=True, check=True, cwd=HERE.parent,
    ).stdout.splitlines()  # fmt: skip

    assert loaded[0] == f"embedkit.{name}"
    assert not {"aiohttp", "click", "numpy", "onnxruntime", "tiktoken", "tokenizers"} & set(loaded[1].split())


def test_every_public_module_is_named():
    """A module without an underscore is public, and so an attribute."""
    assert {
        module.name for module in pkgutil.iter_modules(embedkit.__path__) if not module.name.startswith("_")
    } == set(MODULES)


def test_an_unknown_name_is_an_attribute_error():
    """A misspelt name is an AttributeError, or an ImportError from an import, that names package and attribute."""
    with pytest.raises(AttributeError, match="module 'embedkit' has no attribute 'Embeder'"):
        embedkit.Embeder  # noqa: B018 (the access is the test)
    with pytest.raises(ImportError, match="cannot import name 'Embeder'"):
        exec("from embedkit import Embeder", {})  # noqa: S102


def test_names_for_mypy_are_names_at_run_time():
    """What the package imports for the type checker is what it resolves when asked, name by name."""
    tree = ast.parse((HERE.parent / "embedkit" / "__init__.py").read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    modules = [name for name, home in typed.items() if home is None]
    typed = {name: home for name, home in typed.items() if home}

    assert sorted(typed) == embedkit.__all__
    assert modules == MODULES
    for name, home in typed.items():
        assert getattr(importlib.import_module(f"embedkit.{home}"), name) is getattr(embedkit, name)


def test_the_types_of_every_name_are_checked():
    """typing_api.py mentions every public name, so that its type cannot change unseen."""
    used = {
        node.attr
        for node in ast.walk(ast.parse((Path(__file__).parent / "typing_api.py").read_text("utf-8")))
        if isinstance(node, ast.Attribute)
    }

    assert set(embedkit.__all__) <= used


def test_the_package_says_that_it_is_typed():
    """py.typed lies beside the code, so that a user's type checker looks in."""
    assert (HERE.parent / "embedkit" / "py.typed").is_file()


def test_the_version_is_that_of_the_project():
    """`__version__` is the one place where the version stands; pyproject.toml points there."""
    import tomllib

    config = tomllib.loads((HERE.parent / "pyproject.toml").read_text("utf-8"))

    assert "version" in config["project"]["dynamic"]
    assert "version" not in config["project"]
    assert config["tool"]["hatch"]["version"]["path"] == "embedkit/__init__.py"
