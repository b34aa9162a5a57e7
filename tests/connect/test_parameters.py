"""A host's own parameters, of the kinds they take: from Python, from the environment, from a command line."""

from __future__ import annotations

import pytest

import embedkit
from embedkit import ConfigError
from embedkit.codec import Host, Parameter, Target
from embedkit.providers import ollama, openai, tei

TEXT, NUMBER = Parameter(), Parameter(takes=(float,))
WHOLE, TRUTH = Parameter(takes=(int,)), Parameter(takes=(bool,))
OBJECT, LIST = Parameter(takes=(dict,)), Parameter(takes=(list,))
EITHER = Parameter(takes=(str, float))
REFUSED = object()


@pytest.mark.parametrize(
    ("declared", "text", "value"),
    [
        (TEXT, "2024-10-21", "2024-10-21"), (TEXT, "20241021", "20241021"), (TEXT, "007", "007"),
        (TEXT, "true", "true"),
        (TEXT, "null", "null"), (TEXT, '{"a": 1}', '{"a": 1}'), (TEXT, '"20241021"', "20241021"), (TEXT, '"', '"'),
        (TEXT, "", ""),
        (TEXT, "a=b", "a=b"), (TEXT, "1e400", "1e400"), (TEXT, "[" * 5000, "[" * 5000), (TEXT, "\udcff", "\udcff"),
        (EITHER, "-1", -1), (EITHER, "0", 0), (EITHER, "1.5", 1.5), (EITHER, "10m", "10m"), (EITHER, '"-1"', "-1"),
        (EITHER, "true", "true"), (EITHER, "NaN", "NaN"), (EITHER, "007", "007"), (EITHER, str(2**80), 2**80),
        (TRUTH, "true", True), (TRUTH, "false", False), (TRUTH, "False", False), (TRUTH, "TRUE", True),
        (TRUTH, "maybe", REFUSED),
        (TRUTH, "0", REFUSED), (TRUTH, "1", REFUSED), (TRUTH, "", REFUSED), (TRUTH, "null", REFUSED),
        (TRUTH, '"false"', REFUSED),
        (WHOLE, "-3", -3), (WHOLE, " 4 ", 4), (WHOLE, "4.0", REFUSED), (WHOLE, "four", REFUSED),
        (WHOLE, "true", REFUSED),
        (NUMBER, "4", 4), (NUMBER, "-4.5e3", -4500.0), (NUMBER, "NaN", REFUSED), (NUMBER, "false", REFUSED),
        (NUMBER, "1,5", REFUSED),
        (OBJECT, '{"num_ctx": 2048}', {"num_ctx": 2048}), (OBJECT, '{"s": "True"}', {"s": "True"}),
        (OBJECT, "{num_ctx: 1}", REFUSED),
        (OBJECT, "[1]", REFUSED), (OBJECT, "{" * 5000, REFUSED), (OBJECT, "", REFUSED), (LIST, "[1, 2]", [1, 2]),
        (LIST, "1", REFUSED),
    ],
)  # fmt: skip
def test_what_a_text_stands_for(declared, text, value):
    """JSON where the parameter takes what it says, the text as it
    stands where it takes text; anything else is refused.
    """
    if value is REFUSED:
        with pytest.raises(ConfigError, match=r"^each=.*: it takes "):
            declared.read("each", declared.spelled(text))
        return
    found = declared.read("each", declared.spelled(text))
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("declared", "value", "taken"),
    [
        (TEXT, "a", True), (TEXT, 1, False), (TEXT, b"a", False), (EITHER, 1, True), (EITHER, True, False),
        (TRUTH, False, True),
        (TRUTH, 0, False), (NUMBER, 1, True), (NUMBER, True, False), (WHOLE, 1.0, False), (OBJECT, {"a": 1}, True),
        (OBJECT, [1], False),
        (LIST, (1,), True),
    ],
)  # fmt: skip
def test_what_python_may_give(declared, value, taken):
    """A value of a kind it takes, as it is. True is no number, and a number no truth value."""
    if taken:
        assert declared.read("each", value) is value
    else:
        with pytest.raises(ConfigError, match=r"^each=.*: it takes "):
            declared.read("each", value)


def test_a_text_in_python_does_not_turn_a_switch_on():
    """`legacy="false"` is false; what is neither is refused by name, with what it takes."""
    asked = [embedkit.connect("ollama:m", legacy=value)._codec.target.parameters for value in ("false", "true", False)]

    assert asked == [{"legacy": False}, {"legacy": True}, {"legacy": False}]
    with pytest.raises(ConfigError, match=r"^legacy='maybe': it takes true or false \(true speaks /api/embeddings"):
        embedkit.connect("ollama:m", legacy="maybe")
    with pytest.raises(ConfigError, match="model_options='num_ctx=1': it takes an object of names and values"):
        embedkit.connect("ollama:m", model_options="num_ctx=1")
    with pytest.raises(ConfigError, match="api_version=20241021: it takes text"):
        embedkit.connect("azure:m", base_url="http://127.0.0.1:1", api_version=20241021)


def test_a_variable_is_read_as_what_the_parameter_takes(monkeypatch):
    """The environment has text only."""
    declared = {
        "on": Parameter(("MY_SWITCH",), takes=(bool,)),
        "count": Parameter(("MY_COUNT",), takes=(int,)),
        "id": Parameter(("MY_ID",)),
    }
    host = Host(name="mine", dialect=openai.OpenAI, base_url="https://mine.example/v1", parameters=declared)
    monkeypatch.setattr("embedkit._connect.factory.find", lambda _: host)
    for name, value in {"MY_SWITCH": "False", "MY_COUNT": "7", "MY_ID": "0123"}.items():
        monkeypatch.setenv(name, value)

    assert embedkit.connect("mine:m")._codec.target.parameters == {"on": False, "count": 7, "id": "0123"}
    monkeypatch.setenv("MY_SWITCH", "maybe")
    with pytest.raises(ConfigError, match="on='maybe': it takes true or false"):
        embedkit.connect("mine:m")


@pytest.mark.parametrize("host", [*ollama.HOSTS, *tei.HOSTS], ids=lambda host: host.name)
def test_a_target_has_parameters_of_their_kinds_only(host):
    """Whoever makes one."""
    for name in host.parameters:
        with pytest.raises(ConfigError, match=f"^{name}="):
            Target(host, "m", "http://x", None, {name: object()})
