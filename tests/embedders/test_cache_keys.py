"""The keys of cached vectors: whatever changes a vector changes its key, and nothing else does."""

from __future__ import annotations

import os
from inspect import signature

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import embedkit
from embedkit import ConfigError, Embedder, Limits, Options, Rate, RetryPolicy, tokens
from embedkit._embedders import cached
from embedkit._embedders.cache_keys import CacheKeys
from embedkit.local import LocalEmbedder
from embedkit.providers import hosts
from embedkit.testing import FakeExchange

MODEL = "openai:text-embedding-3-small"
LONG = "many words " * 300


def key(text="a text", model=MODEL, *, call=None, **given):
    """The key under which `connect` with these keywords keeps the vector of a text."""
    given = {"base_url": "http://host.test/v1", "api_key": "k", **given}
    embedder = embedkit.connect(model, exchange=FakeExchange([]), cache="some.cache", **given)
    options = embedder._merged(*(msgspec.structs.astuple(embedder.options) if call is None else call))
    return embedder._keys(options).of([text])[0]


# One value of each is drawn: what is left out, too, is a value.
CHANGES = {
    "model": [MODEL, "openai:text-embedding-3-large", "compatible:text-embedding-3-small", "compatible:intfloat/e5-base-v2"],
    "base_url": [
        "http://host.test/v1", "http://host.test/v2", "http://host.test:81/v1", "https://host.test/v1",
        "http://host.test/v1?route=a", "http://host.test/v1?route=b", ["http://host.test/v1", "http://b.test/v1"],
    ],
    "input_type": [None, "query", "document"],
    "dimensions": [None, 256, 512],
    "dtype": ["float32", "int8", "uint8", "binary", "ubinary"],
    "normalize": [None, True, False],
    "extra": [{}, {"a": 1}, {"a": 2}, {"b": 1}, {"a": [1]}, {"a": {"b": 1}}],
    "headers": [{}, {"x-route": "a"}, {"x-route": "b"}, {"x-portkey-config": "a"}],
    "long_text": [None, "mean"],
    "text": ["a", "b", "", "A", "a ", "é", "e\u0301", '"', LONG],
}  # fmt: skip
# What makes it faster or slower, who pays, what is seen: none of it changes a vector.
INDIFFERENT = {
    "api_key": ["k", "other", lambda: "k"],
    "max_concurrency": [None, 3],
    "rate": [None, Rate(requests_per_minute=5)],
    "retry": [None, RetryPolicy(attempts=1)],
    "timeout": [None, 3.0],
    "total_timeout": [None, 3.0],
    "connect_timeout": [10.0, 1.0],
    "read_timeout": [None, 1.0],
    "coalesce": [False, True],
    "hedge": [False, True],
    "observe": [None, print],
    "limits": [None, Limits(max_texts=3, max_tokens=10_000, max_bytes=1_000_000)],
    "headers_too": [{}, {"user-agent": "me"}, {"traceparent": "00-1"}, {"authorization": "secret"}, {"x-api-key": "1"}],
    "organization": [None, "org-1"],
}


def drawn(table):
    return st.fixed_dictionaries({name: st.sampled_from(values) for name, values in table.items()})


def made(changes, indifferent):
    rest = {name: value for name, value in indifferent.items() if name != "headers_too"}
    if not changes["model"].startswith("openai"):
        rest.pop("organization")
    changes = {**changes, "headers": {**changes["headers"], **indifferent["headers_too"]}}
    try:
        return key(**changes, **rest)
    except ConfigError:
        return assume(False)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_keys_are_equal_where_vectors_are(data):
    """Two embedders share a key exactly where nothing that changes a vector differs, whatever else does."""
    one = data.draw(drawn(CHANGES))
    changed = data.draw(st.sets(st.sampled_from(sorted(CHANGES)), max_size=2))
    other = {
        name: data.draw(st.sampled_from(CHANGES[name])) if name in changed else value for name, value in one.items()
    }
    keys = [made(each, data.draw(drawn(INDIFFERENT))) for each in (one, other)]

    assert (keys[0] == keys[1]) == (one == other)


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_each_option_changes_the_key(name):
    """Every value of every option has a key of its own, the other options left out."""
    plain = {"headers": {}}
    keys = [key(**({**plain, name: value} if name != "text" else {"text": value})) for value in CHANGES[name]]

    assert len(set(keys)) == len(keys)


def test_every_keyword_of_connect_is_looked_at():
    """A keyword that is added to `connect` has to be put into one of the two tables here."""
    elsewhere = {"truncate", "count_tokens", "session", "proxy", "ssl", "max_response_bytes", "exchange", "cache"}

    assert set(embedkit.connect.__kwdefaults__) == {*CHANGES, *INDIFFERENT, *elsewhere} - {
        "text", "model", "headers_too", "organization",
    }  # fmt: skip


# What only some hosts take: values of each of their parameters, beside what else the host needs.
OF_HOSTS = {
    ("azure", "api_version"): ({}, [None, "2024-10-21", "preview"]),
    ("azureaifoundry", "api_version"): ({}, [None, "2024-10-21", "preview"]),
    ("bedrock", "region"): ({"base_url": None, "family": "titan"}, ["us-east-1", "eu-west-1"]),
    ("bedrock", "family"): ({"base_url": None, "region": "us-east-1"}, ["titan", "cohere", "nova"]),
    ("cloudflare", "account_id"): ({}, ["a" * 32, "b" * 32]),
    ("cloudflare", "pooling"): ({"account_id": "a" * 32}, [None, "mean", "cls"]),
    ("databricks", "host"): ({"base_url": None}, ["adb-1.2.azuredatabricks.net", "adb-2.3.azuredatabricks.net"]),
    ("github", "org"): ({}, [None, "me"]),
    ("huggingface", "pooling"): ({}, [None, "mean", "cls", "last"]),
    ("hfendpoint", "pooling"): ({}, [None, "mean", "cls", "last"]),
    ("ollama", "keep_alive"): ({}, [None, "10m"]),
    ("ollama", "model_options"): ({}, [None, {"num_ctx": 8192}, {"num_ctx": 4096}]),
    ("ollama", "legacy"): ({}, [None, True]),
    ("snowflake", "account"): ({"base_url": None}, ["myorg-one", "myorg-two"]),
    ("snowflake", "token_type"): ({"account": "myorg-one", "base_url": None}, ["OAUTH", "KEYPAIR_JWT"]),
    ("tei", "prompt_name"): ({}, [None, "query", {"query": "q"}]),
    ("vertex", "project"): ({"location": "us-central1", "base_url": None}, ["project-one", "project-two"]),
    ("vertex", "location"): ({"project": "project-one", "base_url": None}, ["us-central1", "europe-west4", "global"]),
    ("watsonx", "project_id"): ({}, ["one", "two"]),
    ("watsonx", "space_id"): ({}, ["one", "two"]),
    ("watsonx", "version"): ({"project_id": "one"}, ["2024-10-17", "2025-10-17"]),
    ("watsonx", "iam_url"): ({"project_id": "one"}, [None, "https://iam.test.cloud.ibm.com/identity/token"]),
}  # fmt: skip
# Of a model's name a host may tell more than the name; these are names that need no more.
NAMES = {
    "bedrock": "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abc",
    "cloudflare": "@cf/baai/bge-base-en-v1.5",
}


@pytest.mark.parametrize(("host", "name"), sorted(OF_HOSTS))
def test_parameters_of_a_host_change_the_key(host, name):
    """Every value of every parameter that only some hosts take has a key of its own."""
    needed, values = OF_HOSTS[host, name]
    model = f"{host}:{NAMES.get(host, 'm')}"
    keys = [key(model=model, **needed, **({} if value is None else {name: value})) for value in values]

    assert len(set(keys)) == len(keys)


def test_every_parameter_of_every_host_is_looked_at():
    """A parameter that is added to a host has to be put into the table above, unless it says who asks, and pays."""
    named = {(host.name, name) for host in hosts() for name, one in host.parameters.items() if not one.secret}

    assert named == set(OF_HOSTS)


@pytest.mark.parametrize(
    ("model", "several"),
    [("cohere:embed-v4.0", [{}, {"truncate": "end"}, {"truncate": "error"}]), ("ollama:m", [{}, {"truncate": "end"}])],
)
def test_truncate_changes_the_key(model, several):
    """Cut or refused at the provider: a key each."""
    assert len({key(model=model, **each) for each in several}) == len(several)


# What `embed` takes besides texts: with two values of each option; and what changes no vector.
OF_CALLS = {
    "input_type": [None, "query"], "dimensions": [None, 256], "dtype": [None, "int8"], "truncate": [None, "error"],
    "normalize": [None, True], "extra": [None, {"a": 1}],
}  # fmt: skip
OF_NO_VECTOR = {"on_error", "timeout", "total_timeout", "progress"}


@pytest.mark.parametrize("name", OF_CALLS)
def test_each_option_of_a_call_changes_the_key(name):
    """What one call says, and the others do not, keeps its rows apart."""
    keys = [
        key(model="cohere:embed-v4.0", call=[{name: value}.get(each) for each in OF_CALLS]) for value in OF_CALLS[name]
    ]

    assert len(set(keys)) == 2


def test_every_option_of_a_call_is_looked_at():
    """An option that is added to `Options`, or to a method that embeds, has to be put into one of the two tables above."""
    assert {each.name for each in msgspec.structs.fields(Options)} == set(OF_CALLS)
    for verb in ("embed", "embed_query", "stream"):
        taken = {
            name for name, one in signature(getattr(Embedder, verb)).parameters.items() if one.kind is one.KEYWORD_ONLY
        }
        assert taken <= {*OF_CALLS, *OF_NO_VECTOR}, verb


def test_no_secret_is_in_a_key():
    """A password in the URL, a key in its query, a header that is named like a secret: the key is the same."""
    plain = key()
    for unseen in (
        {"base_url": "http://me:secret@host.test/v1", "api_key": None},
        {"base_url": "http://host.test/v1?api_key=1"}, {"base_url": "http://host.test/v1?code=2&sig=3"},
        {"headers": {"Cookie": "a=b"}}, {"headers": {"X-Auth-Token": "t"}},
    ):  # fmt: skip
        assert key(**unseen) == plain


def test_the_order_of_fields_does_not_matter():
    """Equal mappings in another order are one option; a slash at the end of a URL is none."""
    assert key(extra={"a": 1, "b": {"c": 1, "d": 2}}) == key(extra={"b": {"d": 2, "c": 1}, "a": 1})
    assert key(headers={"x-a": "1", "x-b": "2"}) == key(headers={"X-B": "2", "x-a": "1"})
    assert key(base_url="http://host.test/v1/") == key()


def test_a_pool_is_its_addresses():
    """Neither their order matters nor how many keys there are; a pool of one address is that address."""
    two = ["http://a.test/v1", "http://b.test/v1"]

    assert key(base_url=two) == key(base_url=two[::-1])
    assert key(base_url=two) != key(base_url=two[0])
    assert key(base_url=two[0], api_key=["k", "l"]) == key(base_url=two[0])


def test_what_a_call_says_counts_like_what_connect_was_given():
    """An option of the call makes the key that the same option of `connect` makes."""
    assert key(call=("query", 256, "int8", None, None, {"a": 1})) == key(
        input_type="query", dimensions=256, dtype="int8", extra={"a": 1}
    )


@pytest.mark.parametrize(
    "how", [{"long_text": "mean"}, {"truncate": "end"}, {"model": "llamacpp:m", "truncate": "end"}]
)
def test_how_a_long_text_is_cut_changes_its_key(how):
    """Where texts are cut on the client, the limit and the count of tokens decide the vector of a long text, and of a
    short one nothing.
    """
    different = [
        {}, {"limits": Limits(max_text_tokens=200)}, {"limits": Limits(max_text_tokens=300)},
        {"limits": Limits(max_text_tokens=200), "count_tokens": len},
        {"limits": Limits(max_text_tokens=200), "count_tokens": lambda text: text.count(" ") + 1},
    ]  # fmt: skip
    assert len({key(LONG, **how, **each) for each in different}) == len(different)
    assert len({key("a", **how, **each) for each in different if each}) == 1


def test_a_counter_is_told_by_what_it_counts(monkeypatch):
    """Two counters of one class, and of one name, make different keys where they count differently."""
    monkeypatch.setattr(tokens.TokenCounter, "_load", staticmethod(len))
    monkeypatch.setattr(tokens.TokenCounter, "_count", staticmethod(lambda loaded, text: len(text) // loaded + 1))
    how = {"long_text": "mean", "limits": Limits(max_text_tokens=100)}

    assert key(LONG, count_tokens=tokens.TokenCounter("ab"), **how) == key(
        LONG, count_tokens=tokens.TokenCounter("cd"), **how
    )
    assert key(LONG, count_tokens=tokens.TokenCounter("ab"), **how) != key(
        LONG, count_tokens=tokens.TokenCounter("abc"), **how
    )


def test_a_prefix_is_part_of_the_key(monkeypatch):
    """A later catalog with another prefix for a model makes other keys, for that input type only."""
    from embedkit import catalog

    before = [key(model="compatible:intfloat/e5-base-v2", input_type=kind) for kind in ("query", "document", None)]
    facts = catalog.facts

    def changed(*given):
        found = facts(*given)
        return found and msgspec.structs.replace(found, prefixes={**found.prefixes, "query": "another: "})

    assert facts("compatible", "intfloat/e5-base-v2").prefixes["query"]
    monkeypatch.setattr(catalog, "facts", changed)
    after = [key(model="compatible:intfloat/e5-base-v2", input_type=kind) for kind in ("query", "document", None)]
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, True, True]


def test_the_embedded_model_is_its_weights(tmp_path):
    """The packaged weights have one key; those of a folder another, which changes with the file."""
    packaged = LocalEmbedder()
    keys = [CacheKeys(packaged.origin(packaged.options), packaged.options, None).of(["a"])]
    for content, when in ((b"one", 1), (b"other", 1), (b"again", 2)):
        (tmp_path / "model.onnx").write_bytes(content)
        os.utime(tmp_path / "model.onnx", (when, when))
        own = LocalEmbedder(path=tmp_path)
        keys.append(CacheKeys(own.origin(own.options), own.options, None).of(["a"]))

    assert len({each[0] for each in keys}) == 4


def test_keys_last():
    """The key of a vector today is its key tomorrow: what changes it has to change FORMAT, and is told to users."""
    assert key().hex() == "1af24fc6d3e59d120b61e35363734741"


def test_keys_are_made_once_per_options(monkeypatch):
    """Calls with the same options do not work out again what all of their keys have in common."""
    count = []
    monkeypatch.setattr(cached, "CacheKeys", lambda *given: count.append(1) or CacheKeys(*given))
    embedder = embedkit.connect(MODEL, api_key="k", cache="some.cache")
    for _ in range(3):
        embedder._keys(embedder.options)
        embedder._keys(embedder._merged("query", None, None, None, None, None))

    assert len(count) == 2
