"""Numbers that callers give, far beyond what can be reckoned with."""

from __future__ import annotations

from fractions import Fraction

import pytest

import embedkit
from embedkit import ConfigError, Limits, Rate, RetryPolicy
from embedkit._values import WIDTH, shown
from embedkit.cache import RedisCache, SQLiteCache
from embedkit.testing import FakeExchange
from tests.embedders.test_http import OPENAI
from tests.support.fake_replies import echo

pytestmark = pytest.mark.anyio
HUGE = (10**400, -(10**400), 10**5000)  # the last is one that Python refuses to write


def opened(**settings):
    return embedkit.connect(**{**OPENAI, "exchange": FakeExchange(echo("openai")), **settings})


CONNECT = (
    "timeout", "total_timeout", "connect_timeout", "read_timeout", "max_concurrency", "max_response_bytes", "coalesce",
    "hedge", "dimensions",
)  # fmt: skip
MADE = {
    **{f"RetryPolicy.{name}": (RetryPolicy, name) for name in ("attempts", "deadline", "initial", "maximum")},
    **{f"Rate.{name}": (Rate, name) for name in ("requests_per_minute", "tokens_per_minute")},
    **{f"Limits.{name}": (Limits, name) for name in ("max_texts", "max_tokens", "max_bytes", "max_text_tokens")},
    "SQLiteCache.max_bytes": (lambda **given: SQLiteCache("a", **given), "max_bytes"),
    "RedisCache.ttl": (lambda **given: RedisCache("redis://localhost", **given), "ttl"),
    "local.threads": (lambda **given: embedkit.connect("local", **given), "threads"),
}


def refused(name, error):
    said = str(error)
    return f"{name}=(" in said and "integer, of" in said and len(said) < 300


@pytest.mark.parametrize("value", HUGE, ids=["large", "negative", "unwritable"])
@pytest.mark.parametrize("name", CONNECT)
def test_connect_refuses_a_huge_number_in_few_words(name, value):
    """The option is named, and the value shown by its size."""
    with pytest.raises(ConfigError) as caught:
        opened(**{name: value})

    assert refused(name, caught.value)


@pytest.mark.parametrize("value", HUGE, ids=["large", "negative", "unwritable"])
@pytest.mark.parametrize("name", MADE)
def test_what_goes_into_connect_does_too(name, value):
    """Policies, rates, limits and caches."""
    make, option = MADE[name]
    with pytest.raises(ConfigError) as caught:
        make(**{option: value})

    assert refused(option, caught.value)


@pytest.mark.parametrize("value", HUGE, ids=["large", "negative", "unwritable"])
@pytest.mark.parametrize("name", ["timeout", "total_timeout", "dimensions"])
async def test_a_call_does_too(name, value):
    """Nothing is sent."""
    embedder = opened()
    with pytest.raises(ConfigError) as caught:
        await embedder.embed("a text", **{name: value})

    assert refused(name, caught.value)
    assert not embedder._exchange.requests


@pytest.mark.parametrize(
    ("value", "wanted"), [(7, "7"), (0.5, "0.5"), ("a", "'a'"), (True, "True"), (Fraction(10**5000, 3), "Fraction")]
)
def test_how_a_value_is_shown(value, wanted):
    """As Python writes it."""
    assert shown(value) == wanted


def test_a_long_value_is_cut_off():
    """No message is filled with what was given."""
    assert shown("x" * 1000) == repr("x" * 1000)[:WIDTH] + "…"
