"""Ready token counters: what they count, what they say when they
cannot, and that planning goes by them. Nothing is downloaded.
"""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import tiktoken.registry
from tokenizers import BertWordPieceTokenizer

import embedkit
from embedkit import ConfigError, InvalidInputError, Limits, tokens
from embedkit.local import VOCABULARY
from embedkit.testing import FakeExchange

pytestmark = pytest.mark.anyio
PLUGIN = """
import pathlib
def bytewise():
    return {"name": "bytewise", "pat_str": ".+", "mergeable_ranks": {bytes([each]): each for each in range(256)} | {b"ab": 256},
            "special_tokens": {"<|end|>": 257}}
ENCODING_CONSTRUCTORS = {"bytewise": bytewise}
"""


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory):
    """A tokenizer.json as the Hub has them: all-MiniLM-L6-v2's,
    with truncation to 4 tokens and padding to 64 switched on.
    """
    path = tmp_path_factory.mktemp("tokens") / "tokenizer.json"
    made = BertWordPieceTokenizer(str(VOCABULARY))
    made.enable_truncation(4)
    made.enable_padding(length=64)
    made.save(str(path))
    return path


@pytest.fixture
def bytewise(tmp_path, monkeypatch):
    """An encoding of tiktoken that needs no download, added as its plugins are: a token per byte, but one for "ab"."""
    (tmp_path / "tiktoken_ext").mkdir()
    (tmp_path / "tiktoken_ext" / "bytewise.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(tiktoken.registry, "ENCODING_CONSTRUCTORS", None)
    tiktoken.registry._available_plugin_modules.cache_clear()
    yield "bytewise"
    tiktoken.registry._available_plugin_modules.cache_clear()


# --- a tokenizer.json ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [("hello world", 4), ("hello " * 1000, 1002), ("", 2), ("unaffable", 5), ("漢字", 4), ("a\ud800b", 5)],
)
def test_it_counts_as_the_model_does(wordpiece, text, expected):
    """Two special tokens a text, no truncation and no padding
    whatever the file says, and a lone surrogate raises nothing.
    """
    assert tokens.tokenizer(wordpiece)(text) == expected


def test_a_path_may_be_a_string(wordpiece):
    """A path object and its string are the same counter, and show where they count from."""
    assert (
        repr(tokens.tokenizer(wordpiece)) == repr(tokens.tokenizer(str(wordpiece))) == f"tokenizer({str(wordpiece)!r})"
    )


@pytest.mark.parametrize(
    ("content", "says"), [(None, "no such file"), ("{}", "not a tokenizer.json"), ("not json", "not a tokenizer.json")]
)
def test_what_is_no_tokenizer_says_so(tmp_path, content, says):
    """On first use, with the path in the message; making the counter loads nothing."""
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    counter = tokens.tokenizer(path)
    with pytest.raises(ConfigError, match=says) as caught:
        counter("a text")

    assert str(path) in str(caught.value)


# --- tiktoken --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "expected"), [("ababx", 3), ("", 0), ("é", 2), ("<|end|>", 7), ("a\ud800", 4)])
def test_it_counts_as_tiktoken_does(bytewise, text, expected):
    """By the encoding's name; what looks like a special token is text like any other."""
    assert tokens.tiktoken(bytewise)(text) == expected


def test_an_unknown_name_lists_those_there_are(bytewise):
    """On first use."""
    with pytest.raises(ConfigError, match=r"neither a model nor an encoding 'gpt-nonsense'; encodings: .*bytewise"):
        tokens.tiktoken("gpt-nonsense")("a")


def test_without_a_network_it_says_what_to_do(tmp_path, monkeypatch):
    """A vocabulary that cannot be had names the variable that says where it may lie."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")  # nothing listens there
    with pytest.raises(ConfigError, match="TIKTOKEN_CACHE_DIR"):
        tokens.tiktoken("p50k_base")("a")


def test_the_models_of_openai_are_known():
    """The names of OpenAI's embedding models lead to their encoding."""
    assert tiktoken.encoding_name_for_model("text-embedding-3-small") == "cl100k_base"
    assert repr(tokens.tiktoken()) == "tiktoken('cl100k_base')"


# --- any -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("travel", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])  # noqa: S301 (our own)
def test_a_counter_travels(wordpiece, travel):
    """It pickles and copies, loaded or not, and counts the same afterwards."""
    counter = tokens.tokenizer(wordpiece)
    twins = [travel(counter)]
    counter("hello")
    twins.append(travel(counter))

    assert [twin("hello world") for twin in twins] == [4, 4]


def test_threads_share_a_counter(wordpiece):
    """The first use from many threads at once counts right in each."""
    counter = tokens.tokenizer(wordpiece)
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(counter, ["hello world"] * 64)) == {4}


@pytest.mark.parametrize(
    ("package", "make"), [("tiktoken", "tiktoken('p50k_base')"), ("tokenizers", "tokenizer('x.json')")]
)
def test_a_missing_package_is_named(package, make):
    """Without the extra the counter can be made, and its first use says what to install."""
    script = f"""
import sys
sys.modules[{package!r}] = None
from embedkit import tokens
counter = tokens.{make}
try:
    counter("a")
except Exception as error:
    print(type(error).__name__, error)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert (
        found.stdout
        == f"ConfigError counting tokens with {'tiktoken' if package == 'tiktoken' else 'a tokenizer.json'} needs {tokens.INSTALL}\n"
    )


def test_importing_it_loads_neither():
    """The counters are cheap to name."""
    script = "import sys; from embedkit import tokens; tokens.tiktoken(); print({'tiktoken', 'tokenizers'} & set(sys.modules))"

    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "set()\n"
    )


async def test_planning_goes_by_it(wordpiece):
    """Requests hold as many tokens as the counter says, and a text it cannot make sense of is refused by its row."""
    exchange = FakeExchange(lambda request: {"data": [{"embedding": [1.0]}] * len(json.loads(request.body)["input"])})
    embedder = embedkit.connect(
        "openai:m", base_url="http://h", exchange=exchange, count_tokens=tokens.tokenizer(wordpiece), max_concurrency=1,
        limits=Limits(max_tokens=12),
    )  # fmt: skip
    await embedder.embed([f"hello world {word}" for word in ("one", "two", "three", "four", "five")])

    assert [len(body["input"]) for body in exchange.bodies] == [2, 2, 1]

    with pytest.raises(InvalidInputError) as caught:
        await embedder.embed(["fine", "odd \ud800"])

    assert caught.value.rows == (1,)
