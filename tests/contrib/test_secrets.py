"""What in the settings of an adapter tells of a credential: here what functions bring along when they are pickled."""

from __future__ import annotations

import os
from functools import lru_cache, partial

import pytest

from embedkit import ConfigError
from embedkit._hints import Later
from embedkit.contrib._batches import rebuilt
from embedkit.contrib._secrets import credential_in
from tests.contrib.adapters import KEY

cloudpickle = Later("cloudpickle")  # how Dask, Ray and Spark pickle functions; it comes with Dask
MAIN = """
import os
KEY, PLACE = {key!r}, os
def of_a_variable():
    return os.environ["OPENAI_API_KEY"]
def of_a_global():
    return KEY
def of_another():
    return of_a_global()
"""


class Vault:
    """Something that knows a key."""

    def __init__(self):
        self.key = KEY

    def get(self):
        return self.key

    def __call__(self):
        return self.key

    @classmethod
    def of_the_environment(cls):
        return os.environ["OPENAI_API_KEY"]


@lru_cache
def cached():
    return KEY


def named():
    return KEY


def closure(value):
    def inner():
        return value

    return inner


def recursive():
    def inner(again=0):
        return os.environ["OPENAI_API_KEY"] if again else inner(1)

    return inner


def main_program():
    """The functions of a script, as `__main__` has them."""
    names = {"__name__": "__main__"}
    exec(MAIN.format(key=KEY), names)  # noqa: S102 (our own)
    return names


CARRY = {
    "closure": lambda: closure(KEY),
    "closure of a closure": lambda: closure(closure(KEY)),
    "closure of an object": lambda: closure(Vault()),
    "closure of a list": lambda: closure([KEY]),
    "partial": lambda: partial(os.path.join, KEY),
    "partial by name": lambda: partial(os.path.join, a=KEY),
    "partial of a closure": lambda: partial(closure(KEY)),
    "default": lambda: lambda key=KEY: key,
    "named default": lambda: lambda *, key=KEY: key,
    "method": lambda: Vault().get,
    "object": Vault,
    "method of a mapping": lambda: partial({"x": KEY}.get, "NAME_OF_IT"),
    "global of a script": lambda: main_program()["of_a_global"],
    "function of a script that uses another": lambda: main_program()["of_another"],
}
FREE = {
    "function": lambda: named,
    "cached function": lambda: cached,
    "variable": lambda: partial(os.getenv, "OPENAI_API_KEY"),
    "lambda": lambda: lambda: os.environ["OPENAI_API_KEY"],
    "closure of a name": lambda: closure("OPENAI_API_KEY"),
    "closure of a number": lambda: closure(5),
    "method of a class": lambda: Vault.of_the_environment,
    "recursion": recursive,
    "function of a script": lambda: main_program()["of_a_variable"],
}


@pytest.mark.parametrize("setting", ["api_key", "ad_token", "headers"])
@pytest.mark.parametrize("name", CARRY)
def test_a_function_that_brings_a_text_along_is_a_credential(name, setting):
    """However it does; of `headers=` objects and methods may travel, which say themselves how they are pickled."""
    function = CARRY[name]()
    allowed = setting == "headers" and name in {"method", "object", "method of a mapping"}

    assert credential_in({setting: function}) == (None if allowed else setting)
    assert credential_in({"observe": function}) is None


@pytest.mark.parametrize("name", FREE)
def test_a_function_that_reads_it_where_it_runs_is_none(name):
    """Nothing of the caller's is in its closure, in its defaults, or among its arguments."""
    function = FREE[name]()

    assert credential_in({"api_key": function}) is credential_in({"headers": function}) is None


def test_no_closure_takes_a_key_to_the_workers():
    """It is refused by the name of its setting, unless keys are to travel."""
    with pytest.raises(ConfigError, match="api_key holds a credential") as refused:
        rebuilt("openai:m", {"api_key": closure(KEY)})

    assert KEY not in str(refused.value)
    assert rebuilt("openai:m", {"api_key": closure(KEY), "send_keys": True}).settings["api_key"]() == KEY


@pytest.mark.engines
def test_the_pickles_of_engines_hold_what_is_refused_and_nothing_that_is_not():
    """Of functions as `cloudpickle` takes them apart: a key is in every one that is refused, and in no other."""
    for name, made in CARRY.items():
        assert KEY.encode() in cloudpickle.dumps(made()), name
    for name, made in FREE.items():
        assert KEY.encode() not in cloudpickle.dumps(made()), name
