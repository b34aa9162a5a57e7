"""AWS's signature: byte for byte that of AWS's own client, from arguments alone, and never a key to be seen."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

import embedkit
from embedkit import ConfigError, RetryPolicy
from embedkit._types import Request
from embedkit.codec import JSON
from embedkit.providers.bedrock.sigv4 import sign
from embedkit.testing import FakeExchange, response

ACCESS, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
HOST = "https://bedrock-runtime.us-east-1.amazonaws.com"
TITAN = f"{HOST}/model/amazon.titan-embed-text-v2%3A0/invoke"
HELLO = b'{"inputText":"hello"}'
ALL = "accept;content-type;host;x-amz-date"
REPLY = {"embedding": [0.6, 0.8], "inputTextTokenCount": 1}
KEYS = {"aws_access_key_id": ACCESS, "aws_secret_access_key": SECRET}


def signed(url=TITAN, body=HELLO, headers=JSON, region="us-east-1", now=NOW, **more):
    """The headers that `sign` adds."""
    request = Request(url, body, headers)
    return sign(request, access_key=ACCESS, secret_key=SECRET, region=region, service="bedrock", now=now, **more)


def taken(header):
    """(names signed, signature) of an Authorization header."""
    return re.search(r"SignedHeaders=(\S+), Signature=(\w+)$", header).groups()


@pytest.mark.parametrize(
    ("request_", "names", "signature"),
    [
        ({}, ALL, "50eaf8c4adbb8c1b85900d8c203d074488f528e51810599f2ec905fe8b1fac08"),
        (
            {"token": "SESSIONTOKENEXAMPLE"},
            f"{ALL};x-amz-security-token",
            "e349ea6695cffc0eaac8ddcf753631ac70cf6473d4016ec579c5b012491a043e",
        ),
    ],
)
def test_the_vectors_of_the_wire_reference(request_, names, signature):
    """Without and with a session token: the signatures that botocore makes; an encoded path is encoded once more."""
    headers = signed(**request_)

    assert taken(headers["authorization"]) == (names, signature)
    assert headers["authorization"].startswith(
        f"AWS4-HMAC-SHA256 Credential={ACCESS}/20260102/us-east-1/bedrock/aws4_request, "
    )
    assert headers["x-amz-date"] == "20260102T030405Z"
    assert headers.get("x-amz-security-token") == request_.get("token")


@pytest.mark.parametrize(
    ("request_", "names", "signature"),
    [
        (  # an ARN in the path, its tilde left alone; a body in UTF-8; another region
            {
                "url": HOST.replace("us-east", "eu-west")
                + "/model/arn%3Aaws%3Abedrock%3Aeu-west-1%3A1%3Ainference-profile%2Fa~b/invoke",
                "body": '{"inputText":"größe"}'.encode(),
                "region": "eu-west-1",
            },
            ALL,
            "be1adb6bb9ceadded347295b2e13df7150e6103d1a33350d35343ea93f239f7a",
        ),
        (  # parameters sorted by name, then value; one without a value
            {"url": f"{HOST}/model/m/invoke?b=2&a=x%20y&a=%2F&c", "body": b"{}"},
            ALL,
            "804523cfa31e65caff23ec61848aa2b9e710b957bc688bd2f71b421b6cea31cd",
        ),
        (  # names in lower case, spaces folded, what proxies change left out
            {
                "url": f"{HOST}/model/m/invoke",
                "body": b"{}",
                "headers": {"X-Custom": "  a   b ", "User-Agent": "u", **JSON},
            },
            f"{ALL};x-custom",
            "09019f54051bb999c14466c42b97e4013d2db14b43a9dc5f5ac40375bf3148fb",
        ),
        (  # a port that is not the scheme's own belongs to the host; a user does not
            {"url": "http://user@localhost:8080/model/m/invoke", "body": b"{}"},
            ALL,
            "55a11acf2957111247b3d68c9b841ff1ff88d8546b5507ee1a0837648a7f7a93",
        ),
    ],
)
def test_what_awss_own_client_signs(request_, names, signature):
    """Special characters, a query, odd headers and ports: the signatures botocore 1.44.8 makes of the same requests."""
    assert taken(signed(**request_)["authorization"]) == (names, signature)


@pytest.mark.parametrize(
    "change",
    [
        {"body": b'{"inputText":"hellp"}'},
        {"url": TITAN + "?a=1"},
        {"url": TITAN.replace("east-1", "east-2")},
        {"region": "us-east-2"},
        {"now": NOW + 1},
        {"token": "t"},
        {"headers": {**JSON, "accept": "*/*"}},
    ],
)
def test_everything_is_under_the_signature(change):
    """Another body, query, host, region, second, token or header is another signature; the same is the same."""
    assert signed() == signed()
    assert taken(signed()["authorization"]) != taken(signed(**change)["authorization"])


def test_the_port_of_the_scheme_and_an_empty_path_are_as_good_as_none():
    """Port 443 of https and a URL without a path sign like the bare host and the root."""
    assert signed(TITAN.replace(".com/", ".com:443/")) == signed()
    assert signed(HOST) == signed(f"{HOST}/")


# --- through `connect` -----------------------------------------------------------------------------------------------


def connected(answers, model="amazon.titan-embed-text-v2:0", **given):
    exchange = FakeExchange(answers)
    settings = {"region": "us-east-1", "retry": RetryPolicy(initial=0.0), **given}
    return embedkit.connect(f"bedrock:{model}", exchange=exchange, **settings), exchange


def stamp(request):
    return datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()


@pytest.mark.anyio
async def test_what_is_sent_is_what_was_signed():
    """Signing the request that arrived, headers of the caller included, at its own time gives its own signature."""
    embedder, exchange = connected([REPLY], **KEYS, aws_session_token="SESSION", headers={"X-Team": "search"})
    result = await embedder.embed(["hello"], dimensions=2, extra={"embeddingTypes": ["float"]})

    (request,) = exchange.requests
    plain = {name: value for name, value in request.headers.items() if not name.startswith(("authorization", "x-amz-"))}
    again = signed(request.url, request.body, plain, now=stamp(request), token="SESSION")

    assert request.headers["authorization"] == again["authorization"]
    assert "x-team" in taken(again["authorization"])[0]
    assert json.loads(request.body) == {"inputText": "hello", "dimensions": 2, "embeddingTypes": ["float"]}
    assert result.vectors.shape == (1, 2)


@pytest.mark.anyio
async def test_the_receiver_can_verify_it():
    """What arrives at a socket, path and Host header as they came, has the signature it was sent with."""
    arrived = []

    async def receive(request):
        headers = {name.lower(): value for name, value in request.headers.items()}
        arrived.append(Request(f"http://{headers['host']}{request.raw_path}", await request.read(), headers))
        return web.json_response(REPLY)

    app = web.Application()
    app.router.add_post("/{path:.*}", receive)
    async with TestServer(app) as server:
        arn = "arn:aws:bedrock:us-east-1:1:foundation-model/amazon.titan-embed-text-v2:0"
        async with embedkit.connect(
            f"bedrock:{arn}", base_url=str(server.make_url("")), region="us-east-1", **KEYS
        ) as embedder:
            await embedder.embed(["größe"])
    (request,) = arrived
    names, signature = taken(request.headers["authorization"])
    plain = {name: request.headers[name] for name in names.split(";") if name not in ("host", "x-amz-date")}

    assert (
        "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Afoundation-model%2Famazon.titan-embed-text-v2%3A0/" in request.url
    )
    assert taken(signed(request.url, request.body, plain, now=stamp(request))["authorization"]) == (names, signature)


@pytest.mark.anyio
async def test_every_attempt_is_signed_afresh():
    """A retry carries its own time: a signature is good for five minutes only."""
    embedder, exchange = connected([response({"message": "slow down"}, 503), REPLY], **KEYS)
    embedder._signer._now = iter([NOW, NOW + 10]).__next__
    await embedder.embed(["hello"])
    first, second = exchange.requests

    assert (stamp(first), stamp(second)) == (NOW, NOW + 10)
    assert taken(first.headers["authorization"]) != taken(second.headers["authorization"])


@pytest.mark.anyio
async def test_credentials_come_from_awss_variables(monkeypatch):
    """All keys and the region are read where AWS's own clients read them; a bearer key comes first."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": "SESSION",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    embedder, exchange = connected([REPLY], region=None)
    await embedder.embed(["hello"])
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bedrock-key")
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    other, second = connected([REPLY], region=None)
    await other.embed(["hello"])

    assert exchange.requests[0].url.startswith("https://bedrock-runtime.eu-west-1.")
    assert "/eu-west-1/bedrock/" in exchange.requests[0].headers["authorization"]
    assert exchange.requests[0].headers["x-amz-security-token"] == "SESSION"
    assert second.requests[0].url.startswith("https://bedrock-runtime.us-west-2.")
    assert second.requests[0].headers["authorization"] == "Bearer bedrock-key"
    assert "x-amz-date" not in second.requests[0].headers


@pytest.mark.anyio
async def test_credentials_are_not_mixed(monkeypatch):
    """Those given by hand silence every variable: another account's session token would spoil the signature."""
    for name in ("AWS_BEARER_TOKEN_BEDROCK", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "of-the-environment")
    embedder, exchange = connected([REPLY], **KEYS)
    await embedder.embed(["hello"])
    other, second = connected([REPLY], api_key="by-hand")
    await other.embed(["hello"])

    assert "x-amz-security-token" not in exchange.requests[0].headers
    assert f"Credential={ACCESS}/" in exchange.requests[0].headers["authorization"]
    assert second.requests[0].headers["authorization"] == "Bearer by-hand"

    with pytest.raises(ConfigError, match="api_key or aws_access_key_id and aws_secret_access_key, not both"):
        connected([], api_key="k", **KEYS)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"aws_access_key_id": ACCESS}, "missing: aws_secret_access_key"),
        ({"aws_secret_access_key": SECRET}, "missing: aws_access_key_id"),
        ({**KEYS, "region": None, "base_url": "https://proxy.example/bedrock"}, "missing: region"),
    ],
)
async def test_half_a_credential_is_refused(given, missing):
    """One half of a key, or no region to sign for: a ConfigError that names it, and nothing is sent."""
    embedder, exchange = connected([], **given)

    with pytest.raises(ConfigError, match=missing):
        await embedder.embed(["hello"])

    assert exchange.requests == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "AWS_BEARER_TOKEN_BEDROCK.*AWS_ACCESS_KEY_ID"),
        ({"region": None, "api_key": "k"}, "region .*AWS_REGION or AWS_DEFAULT_REGION"),
        ({"region": "evil.example/#", "api_key": "k"}, "region='evil.example/#'"),
        ({"api_key": "k", "model": "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc"}, "family='titan' or 'cohere'"),
        ({"api_key": "k", "model": "anthropic.claude"}, "does not tell its family"),
    ],
)  # fmt: skip
def test_what_bedrock_lacks_is_said_before_anything_is_sent(given, said):
    """No key, no region, a region that would name another host, a model of no known family: ConfigError from
    `connect`.
    """
    with pytest.raises(ConfigError, match=said):
        connected([], **given)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("base_url", "sent"),
    [
        ("https://bedrock-runtime.eu-west-1.amazonaws.com", True),
        ("https://vpce-1.bedrock-runtime.eu-west-1.vpce.amazonaws.com", True),
        ("https://bedrock-runtime.eu-west-1.amazonaws.com.evil.example", False),
        ("https://lb-1.eu-west-1.elb.amazonaws.com", False),
        ("https://bedrock-runtime.x.y.amazonaws.com", False),
    ],
)
async def test_keys_of_the_environment_go_to_bedrock_only(monkeypatch, base_url, sent):
    """An address that any customer of AWS can have gets no key of the environment, and the 403 says so."""
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bedrock-key")
    embedder, exchange = connected([REPLY if sent else response({"message": "no"}, 403)], base_url=base_url)
    if sent:
        await embedder.embed(["hello"])
    else:
        with pytest.raises(embedkit.AuthError, match="AWS_BEARER_TOKEN_BEDROCK was not sent"):
            await embedder.embed(["hello"])

    assert ("authorization" in exchange.requests[0].headers) is sent


@pytest.mark.parametrize(
    ("model", "price"),
    [
        ("amazon.titan-embed-text-v2:0", 0.02),
        ("us.cohere.embed-v4:0", 0.12),
        ("arn:aws:bedrock:us-east-1:1:inference-profile/global.cohere.embed-v4:0", 0.12),
        ("arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-2-multimodal-embeddings-v1:0", 0.135),
        ("amazon.titan-embed-text-v9:0", None),
    ],
)
def test_a_model_is_known_by_all_its_names(model, price):
    """A bare id, an inference profile and an ARN find the same model; the address keeps the name as given."""
    embedder, _ = connected([], model=model, api_key="k")

    assert embedder.price == price
    assert embedder.model == model


@pytest.mark.anyio
async def test_a_signature_is_for_the_region_of_the_host():
    """An address that names its region is signed for that one, whatever AWS_REGION says."""
    embedder, exchange = connected([REPLY], **KEYS, base_url="https://bedrock-runtime.ap-south-1.amazonaws.com")
    await embedder.embed(["hello"])

    assert "/ap-south-1/bedrock/" in exchange.requests[0].headers["authorization"]


@pytest.mark.anyio
async def test_no_key_is_ever_shown():
    """Neither the embedder, nor its requests, nor an error that quotes the keys back shows one."""
    said = f"signature of {ACCESS} with {SECRET} and SESSION-TOKEN is wrong"
    embedder, exchange = connected([response({"message": said}, 403)], **KEYS, aws_session_token="SESSION-TOKEN")
    with pytest.raises(embedkit.AuthError) as caught:
        await embedder.embed(["hello"])

    shown = "".join(map(repr, (embedder, exchange.requests, caught.value, caught.value.body, caught.value.args)))

    assert "signature of *** with *** and *** is wrong" in str(caught.value)
    assert not any(secret in shown + str(caught.value) for secret in (ACCESS, SECRET, "SESSION-TOKEN"))
