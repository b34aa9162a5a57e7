"""A key exchanged for a token, by the example of watsonx: bought once, renewed in time, and only the key to blame for a
refusal.
"""

from __future__ import annotations

import pickle
from urllib.parse import parse_qs

import pytest

import embedkit
from embedkit import AuthError, ConfigError, RetryPolicy
from embedkit._http.token_exchange import FRESH, SPENT
from embedkit.testing import FakeExchange, response

IAM = "https://iam.cloud.ibm.com/identity/token"
REPLY = {"results": [{"embedding": [1.0, 0.0]}], "input_token_count": 1}


class Cloud:
    """IAM and watsonx behind one exchange; the clock is turned by hand. IAM's tokens are numbered."""

    def __init__(self):
        self.now = 1000.0
        self.sold = 0
        self.refused = set()
        self.iam = None
        self.exchange = FakeExchange(self.answer)

    async def answer(self, request):
        import anyio

        await anyio.sleep(0)
        if request.url == IAM:
            self.sold += 1
            return self.iam or {"access_token": f"token.{self.sold}", "expires_in": 3600, "expiration": 1}
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        return response({"errors": [{"message": f"{token} is no good"}]}, 401) if token in self.refused else REPLY

    def connect(self, **given):
        settings = {"api_key": "key-of-mine", "project_id": "p", "retry": RetryPolicy(attempts=3, initial=0.0), **given}
        embedder = embedkit.connect(
            "watsonx:m", base_url="https://us-south.ml.cloud.ibm.com", exchange=self.exchange, **settings
        )
        embedder._signer._clock = lambda: self.now
        return embedder

    @property
    def tokens(self):
        """The tokens that requests for vectors carried."""
        return [each.headers["authorization"] for each in self.exchange.requests if each.url != IAM]


@pytest.fixture
def cloud():
    return Cloud()


@pytest.mark.anyio
async def test_a_key_buys_one_token_for_all(cloud):
    """The first request asks IAM, in a form, and every other shares the token, however many wait for it."""
    embedder = cloud.connect(limits=embedkit.Limits(max_texts=1))
    await embedder.embed([str(number) for number in range(20)])
    asked = cloud.exchange.requests[0]

    assert asked.url == IAM
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
    assert parse_qs(asked.body.decode()) == {
        "grant_type": ["urn:ibm:params:oauth:grant-type:apikey"],
        "apikey": ["key-of-mine"],
    }
    assert cloud.sold == 1
    assert cloud.tokens == ["Bearer token.1"] * 20


@pytest.mark.anyio
async def test_a_token_is_renewed_before_it_ends(cloud):
    """Shortly before its hour is over the next request buys a new one; until then none is bought."""
    embedder = cloud.connect()
    await embedder.embed(["a"])
    cloud.now += 3600 * SPENT - 1
    await embedder.embed(["a"])
    cloud.now += 1
    await embedder.embed(["a"])

    assert cloud.tokens == ["Bearer token.1", "Bearer token.1", "Bearer token.2"]


@pytest.mark.anyio
async def test_a_token_refused_for_its_age_is_replaced_once(cloud):
    """A 401 on a token of some age buys another and tries again; a 401 on a fresh one is the key's fault."""
    embedder = cloud.connect()
    await embedder.embed(["a"])
    cloud.now += FRESH
    cloud.refused = {"token.1"}
    await embedder.embed(["a"])
    cloud.refused = {"token.2"}
    with pytest.raises(AuthError) as caught:
        await embedder.embed(["a"])

    assert cloud.tokens == ["Bearer token.1", "Bearer token.1", "Bearer token.2", "Bearer token.2"]
    assert not caught.value.retryable
    assert "*** is no good" in str(caught.value)


@pytest.mark.anyio
async def test_a_token_is_used_as_it_is(cloud):
    """A key with dots is a token already: nothing is asked of IAM, and a refusal is final."""
    cloud.refused = {"eyJ.a.b"}
    embedder = cloud.connect(api_key="eyJ.a.b")
    with pytest.raises(AuthError):
        await embedder.embed(["a"])

    assert cloud.sold == 0
    assert cloud.tokens == ["Bearer eyJ.a.b"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("status", "body", "kind", "asked"),
    [
        (400, {"errorCode": "BXNIM0415E", "errorMessage": "Provided API key could not be found."}, AuthError, 1),
        (503, "", embedkit.ServerError, 3),
        (200, {"token": 1}, embedkit.DecodeError, 1),
    ],
)
async def test_an_exchange_that_fails_is_the_error(cloud, status, body, kind, asked):
    """A refused key is an AuthError at once, an outage is retried, and an answer without a token cannot be read."""
    cloud.iam = response(body, status)
    with pytest.raises(kind) as caught:
        await cloud.connect().embed(["a"])

    assert (cloud.sold, cloud.tokens) == (asked, [])
    assert "key-of-mine" not in str(caught.value)
    if kind is AuthError:
        assert "not exchanged for a token: Provided API key could not be found" in str(caught.value)
        assert (caught.value.code, caught.value.provider) == ("BXNIM0415E", "watsonx")


@pytest.mark.anyio
async def test_a_token_does_not_travel(cloud):
    """A pickle of the embedder holds no token, and its repr shows none."""
    embedder = cloud.connect()
    await embedder.embed(["a"])
    embedder._exchange = None  # a fake with a clock in it does not pickle

    assert b"token.1" not in pickle.dumps(embedder)
    assert "token.1" not in repr(embedder)


@pytest.mark.anyio
async def test_no_key_no_exchange(cloud):
    """Without a key, which an explicit base URL allows, nothing is asked and nothing authorizes."""
    embedder = embedkit.connect(
        "watsonx:m", base_url="https://gateway.example", project_id="p", exchange=cloud.exchange
    )
    await embedder.embed(["a"])

    assert cloud.sold == 0
    assert "authorization" not in cloud.exchange.requests[0].headers


def test_watsonx_says_what_it_lacks(monkeypatch):
    """No address, or neither project nor space: a ConfigError from `connect` with the way out."""
    monkeypatch.setenv("WATSONX_APIKEY", "k")
    with pytest.raises(ConfigError, match="WATSONX_URL"):
        embedkit.connect("watsonx:m", project_id="p")
    monkeypatch.setenv("WATSONX_URL", "https://eu-de.ml.cloud.ibm.com")
    with pytest.raises(ConfigError, match="project_id or space_id"):
        embedkit.connect("watsonx:m")
    monkeypatch.setenv("WATSONX_PROJECT_ID", "p")

    assert embedkit.connect("watsonx:m").base_url == "https://eu-de.ml.cloud.ibm.com/ml/v1?version=2026-10-14"
