"""Annotations hold at run time: `inspect.signature` and `typing.get_type_hints` work on all that is public."""

from __future__ import annotations

import inspect
import pkgutil
import subprocess
import sys
import typing
from importlib import import_module
from pathlib import Path

import pytest

import embedkit
from embedkit import codec, providers
from embedkit._hints import Later

HERE = Path(__file__).parent.parent
MODULES = [
    "embedkit",
    *(f"embedkit.{name}" for name in embedkit._MODULES),
    *(f"embedkit.providers.{module.name}" for module in pkgutil.iter_modules(providers.__path__)),
]


def public(module):
    """Everything with a name that does not begin with an underscore,
    by the way to it: module, class, and what a class has.
    """
    yield module.__name__, module
    for name in dir(module):
        found = getattr(module, name)
        if (
            name.startswith("_")
            or not str(getattr(found, "__module__", "")).startswith("embedkit")
            or not callable(found)
        ):
            continue
        yield f"{module.__name__}.{name}", found
        if inspect.isclass(found):
            yield from members(f"{module.__name__}.{name}", found)


def members(path, kind):
    for name in dir(kind):
        found = inspect.getattr_static(kind, name)
        if isinstance(found, property):
            found = found.fget
        elif isinstance(found, (staticmethod, classmethod)):
            found = found.__func__
        if inspect.isfunction(found) and found.__module__.startswith("embedkit"):  # magic methods and private ones too
            yield f"{path}.{name}", found


THINGS = {path: found for name in MODULES for path, found in public(import_module(name))}


@pytest.mark.parametrize("path", THINGS)
def test_annotations_can_be_evaluated(path):
    """A documentation tool, a dependency injector, a validator: all of them ask like this."""
    found = THINGS[path]
    hints = typing.get_type_hints(found, include_extras=True)

    assert not any(isinstance(hint, (str, Later)) for hint in hints.values())
    if callable(found):
        inspect.signature(found)
        if not inspect.isclass(found):
            inspect.signature(found, eval_str=True)
            assert set(hints) <= {*inspect.signature(found).parameters, "return"}


def test_the_walk_meets_what_there_is():
    """A walk that finds nothing would prove nothing."""
    assert {
        "embedkit.connect", "embedkit.SyncEmbedder.stream", "embedkit.Embeddings.__array__",
        "embedkit.Embeddings.dimensions", "embedkit.codec.OutputRows.__call__", "embedkit.testing.FakeExchange.bodies",
        "embedkit.providers.openai.OpenAI.encode",
        "embedkit.errors.ApiError.at", "embedkit.cli.main", "embedkit.tokens.tiktoken", "embedkit.local.LocalEmbedder",
    } <= set(THINGS)  # fmt: skip
    assert set(embedkit.__all__) <= {path.removeprefix("embedkit.") for path in THINGS}


@pytest.mark.parametrize("name", MODULES)
def test_they_can_be_evaluated_in_a_module_that_was_imported_alone(name):
    """Whatever was loaded before, and in whichever order."""
    script = (
        f"import typing; from importlib import import_module; module = import_module({name!r})\n"
        "for name in (name for name in dir(module) if name[0] != '_'):\n"
        "    found = getattr(module, name)\n"
        "    if callable(found) and str(getattr(found, '__module__', '')).startswith('embedkit'): typing.get_type_hints(found)\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=HERE, check=False)

    assert found.stderr == ""


def test_what_they_say_is_what_the_type_checker_reads():
    """The dear ones among them too, which are stood in for until somebody looks."""
    import ssl

    import aiohttp
    from numpy.typing import NDArray

    hints = typing.get_type_hints(embedkit.connect)

    assert hints["session"] == aiohttp.ClientSession | None
    assert hints["ssl"] == ssl.SSLContext | str | bool | None
    assert hints["return"] is embedkit.Embedder
    assert typing.get_type_hints(embedkit.Embedder.embed_query)["return"] == NDArray[typing.Any]
    assert typing.get_type_hints(embedkit.Embeddings)["vectors"] == NDArray[typing.Any]
    assert typing.get_type_hints(codec.vector_values)["return"] == bytes | NDArray[typing.Any]
    assert set(typing.get_type_hints(codec.vector_values)["vector"].__args__) >= {
        codec.Vector,
        bytes,
        NDArray[typing.Any],
    }


def test_the_sync_door_takes_what_the_async_one_takes_and_gives_another():
    """`connect_sync` has the parameters of `connect`, and says itself what comes back."""
    ours, theirs = inspect.signature(embedkit.connect_sync), inspect.signature(embedkit.connect)
    hints = typing.get_type_hints(embedkit.connect_sync)

    assert ours.parameters == theirs.parameters
    assert ours.return_annotation is hints.pop("return") is embedkit.SyncEmbedder
    assert hints == {name: hint for name, hint in typing.get_type_hints(embedkit.connect).items() if name != "return"}


def test_an_alias_holds_in_the_code_of_others():
    """`VectorLike` in a dialect of one's own is evaluated in a module that knows none of the names in it."""
    space = {"codec": codec}
    exec("def unread(vector: codec.VectorLike) -> codec.Out: ...", space)  # noqa: S102 (a module of somebody else)

    assert codec.Vector in typing.get_type_hints(space["unread"])["vector"].__args__


def test_a_stand_in_has_no_magic():
    """What looks at any object (copy, inspect) loads nothing by looking."""
    script = (
        "import sys, inspect, embedkit.codec as c, embedkit._hints as h; inspect.unwrap(h.NDArray); h.Later('nonsense');\n"
        "hasattr(h.NDArray, '__wrapped__'); print('numpy' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=HERE, check=True)

    assert found.stdout == "False\n"
