"""What the engines share, without an engine: what travels, what is refused, and the columns."""

from __future__ import annotations

import pickle

import pyarrow as pa
import pytest

import embedkit
from embedkit import ConfigError, Rate
from embedkit.contrib import _batches
from embedkit.contrib._batches import rebuilt
from embedkit.testing import FakeEmbedder, FakeExchange
from tests.contrib.adapters import KEY
from tests.support.servers.api import Api

OPENAI = "openai:text-embedding-3-small"


@pytest.fixture(autouse=True)
def _no_clients(monkeypatch):
    monkeypatch.setattr(_batches, "_clients", {})


@pytest.mark.parametrize(
    "secret",
    [
        {"api_key": KEY},
        {"aws_secret_access_key": KEY},
        {"headers": {"X-Api-Key": KEY}},
        {"headers": {"X-Team": f"Bearer {KEY}"}},
        {"base_url": f"https://user:{KEY}@host.test/v1"},
        {"cache": f"redis://:{KEY}@host.test"},
    ],
    ids=lambda each: next(iter(each)),
)
def test_a_credential_travels_only_when_asked(secret):
    """One given as text is refused by name, unless `send_keys` says so."""
    with pytest.raises(ConfigError, match=next(iter(secret))) as refused:
        rebuilt(OPENAI, secret)

    assert KEY not in str(refused.value)
    assert KEY.encode() in pickle.dumps(rebuilt(OPENAI, {**secret, "send_keys": True}))


def test_the_key_is_that_of_the_worker(monkeypatch):
    """None is needed where it is made; the one of the environment at the first batch is sent, and no pickle has it."""
    with Api() as api:
        made = rebuilt(OPENAI, {"base_url": api.url})
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        again = pickle.loads(pickle.dumps(made))  # noqa: S301 (our own)
        again.columns(pa.array(["one", "two"]))

        assert set(api.keys) == {f"Bearer {KEY}"}
        assert KEY.encode() not in pickle.dumps(again)


def test_one_process_has_one_client_of_the_same_settings(monkeypatch):
    """However often the callable is unpickled, its client stays."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    sent = pickle.dumps(rebuilt(OPENAI, {"dimensions": 3}))
    first, second = pickle.loads(sent), pickle.loads(sent)  # noqa: S301 (our own)

    assert first.client is second.client
    assert first.client is not rebuilt(OPENAI, {"dimensions": 4}).client


def test_failed_rows_are_null_with_their_reason(monkeypatch):
    """A refused text, a null and an empty batch; what the batch took is in its first row."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Api() as api:
        made = rebuilt(OPENAI, {"base_url": api.url, "usage": True})
        table = pa.table(made.columns(pa.chunked_array([["one", "BAD"], [None, "four"]])))
        empty = pa.table(made.columns(pa.array([], pa.string())))

    vectors, reasons = table["embedding"].to_pylist(), table["embedding_error"].to_pylist()
    assert [each is None for each in vectors] == [False, True, True, False]
    assert vectors[3] == [4.0, 444.0, 0.5]
    assert [each is None for each in reasons] == [True, False, False, True]
    assert api.refusal in reasons[1]
    assert all("row" not in each for each in reasons[1:3])
    assert table["embedding_requests"].to_pylist()[1:] == [None] * 3
    assert table["embedding_requests"][0].as_py() == made.client.usage.requests == len(api.bodies)
    assert table.schema == empty.schema == pa.schema(made.types)


@pytest.mark.parametrize("rate", [Rate(requests_per_minute=60, tokens_per_minute=1e6), {"requests_per_minute": 60}])
def test_a_rate_is_divided(rate):
    """Each of four workers keeps to a quarter of it; without their number it is refused."""
    assert rebuilt(OPENAI, {"rate": rate, "workers": 4}).settings["rate"].requests_per_minute == 15
    with pytest.raises(ConfigError, match="workers="):
        rebuilt(OPENAI, {"rate": rate})


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"workers": 0}, "workers=0"),
        ({"workers": True}, "workers=True"),
        ({"rate": 5, "workers": 1}, "rate=5"),
        ({"rate": {"requests": 5}, "workers": 1}, "requests_per_minute"),
        ({"output": ""}, "output=''"),
        ({"output": 5}, "output=5"),
        ({"dtype": "float16"}, "float16"),
        ({"column": "x", "output": "x"}, "'x'"),
    ],
)
def test_what_cannot_work_is_refused_at_once(settings, names):
    """The message names the value."""
    with pytest.raises(ConfigError, match=names):
        rebuilt(OPENAI, settings)


def test_tables_that_do_not_fit_are_refused():
    """A column that is missing, one that is there already, one without texts; an embedder, which may hold a key."""
    made = rebuilt(OPENAI, {})
    with pytest.raises(ConfigError, match="no column 'text'"):
        made.check(["body"])
    with pytest.raises(ConfigError, match="embedding_error"):
        made.check(["text", "embedding_error"])
    with pytest.raises(ConfigError, match="2 columns 'text'"):
        made.check(["text", "text"])
    made.check(["text", "Embedding"])
    with pytest.raises(ConfigError, match="'Embedding' is there"):
        made.check(["text", "Embedding"], cased=False)
    with pytest.raises(ConfigError, match=r"no column 'text' \(there are 5\)"):
        made.check([5])
    rebuilt(OPENAI, {"column": 5}).check([5, 6])
    with pytest.raises(ConfigError, match="int64"):
        made.columns(pa.array([1]))
    with pytest.raises(ConfigError, match="send_keys"):
        rebuilt(FakeEmbedder(8), {})


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "binary", "ubinary"])
@pytest.mark.parametrize("given", ["name", "embedder"])
def test_columns_are_of_the_types_that_were_promised(dtype, given, monkeypatch):
    """The schema that an engine is told beforehand is that of what comes, whoever said the dtype."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    exchange = FakeExchange(lambda _: {"data": [{"index": 0, "embedding": [0.5] * 8}]})
    settings = {"exchange": exchange, "dtype": dtype}
    if given == "name":
        made = rebuilt(OPENAI, settings)
    else:
        made = rebuilt(embedkit.connect(OPENAI, **settings), {"send_keys": True})

    assert pa.table(made.columns(pa.array(["one", None]))).schema == pa.schema(made.types)


@pytest.mark.parametrize("kind", [pa.float64(), pa.int64(), pa.null(), pa.string()], ids=str)
def test_a_part_without_any_text_fails_row_by_row(kind, monkeypatch):
    """A part whose texts are all missing is typed by pandas as it likes: its rows are null, and the job goes on."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    made = rebuilt(OPENAI, {}).columns(pa.array([None, None], kind))

    assert made["embedding"].to_pylist() == [None, None]
    assert all("missing" in reason for reason in made["embedding_error"].to_pylist())


def test_a_list_may_hold_what_arrow_cannot(monkeypatch):
    """Half a surrogate pair, a number, bytes: each costs its own row."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Api() as api:
        made = rebuilt(OPENAI, {"base_url": api.url}).columns(["one", "\ud800", 1.5, b"x", float("nan"), "two"])

    assert [each is None for each in made["embedding"].to_pylist()] == [False, True, True, True, True, False]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (f"openai:{KEY}", "looks like a key"),
        (f"openai:m@https://user:{KEY}@host.test/v1", "holds an address"),
        ("text-embedding-3-small", "has no provider"),
        ("", "has no provider"),
        (5, "model is int"),
    ],
)
def test_what_is_no_model_does_not_travel(model, words):
    """A key or an address in the place of the model is refused where the job is made, and is not shown."""
    with pytest.raises((ConfigError, TypeError), match=words) as refused:
        rebuilt(model, {})

    assert KEY not in str(refused.value)
