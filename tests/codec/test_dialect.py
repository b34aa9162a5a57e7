"""`Dialect` and its defaults: what a codec writes counts, and what it leaves out has one meaning everywhere."""

from __future__ import annotations

import pickle

import pytest

from embedkit._types import Limits, Options, Request
from embedkit.codec import Dialect, Target, complete
from embedkit.providers import find
from embedkit.testing import response

TARGET = Target(find("cohere"), "m", "http://h")
DEFAULTS = {"sends_dimensions": True, "sends_dtypes": ("float32",), "cuts": True, "joins": ()}


class Least:
    """A codec of two functions."""

    def encode(self, texts, options):
        return Request("http://h/embed", repr(texts).encode())

    def decode(self, response, options, count, out=None):
        raise NotImplementedError


class Full(Least):
    """A codec of another base that has every member."""

    limits = Limits(max_texts=3)
    sends_dimensions = False
    sends_dtypes = ("float32", "int8")
    joins = True

    def __init__(self, learned=""):
        self.learned = learned

    @property
    def cuts(self):
        return False

    def explain(self, response):
        return "its own words"

    def probe(self):
        return Request("http://h/info", method="GET")

    def learn(self, response):
        return Full("twice") if response.status == 400 else self


class Inherits(Dialect, frozen=True):
    """A codec of two functions and one fact."""

    cuts = False
    encode = Least.encode
    decode = Least.decode


def members(codec):
    return {name: getattr(codec, name) for name in DEFAULTS}


def test_what_is_left_out_has_its_default():
    """Two functions are a codec: the host's limits, the body's message, and nothing is asked or learned."""
    codec = complete(Least(), TARGET)
    refusal = response({"message": "no such model"}, 404)

    assert members(codec) == DEFAULTS
    assert codec.limits == TARGET.host.limits
    assert codec.explain(refusal) == "no such model"
    assert codec.probe() is None
    assert codec.learn(refusal) == codec
    assert codec.encode(["a"], Options()).body == b"['a']"


def test_what_is_written_counts():
    """A class that does not inherit keeps its own members, be they attributes, properties or functions."""
    codec = complete(Full(), TARGET)

    assert members(codec) == {
        "sends_dimensions": False,
        "sends_dtypes": ("float32", "int8"),
        "cuts": False,
        "joins": True,
    }
    assert (codec.limits, codec.explain(response({}, 400))) == (Limits(max_texts=3), "its own words")
    assert codec.probe().url == "http://h/info"
    assert codec.learn(response({})) == codec
    assert codec.learn(response({}, 400)).codec.learned == "twice"


def test_a_dialect_is_itself():
    """Nothing stands between the engine and a class that inherits: it is used as it is."""
    codec = Inherits(TARGET)

    assert complete(codec, TARGET) is codec
    assert members(codec) == {**DEFAULTS, "cuts": False}


@pytest.mark.parametrize("codec", [Full(), Inherits(TARGET)])
def test_a_codec_can_be_pickled(codec):
    """Whatever its base: an embedder goes to other processes with its codec."""
    made = complete(codec, TARGET)

    assert members(pickle.loads(pickle.dumps(made))) == members(made)  # noqa: S301 (our own)
