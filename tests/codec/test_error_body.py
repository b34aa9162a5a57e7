"""The server's own words: whatever envelope they come in, in a success as in a refusal, the error shows them, and no
more than that.
"""

from __future__ import annotations

import json
from email.utils import formatdate

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import embedkit
from embedkit import RetryPolicy
from embedkit.codec.error_body import EXCERPT, describe_body, fine, has_vectors, read_error_body, shortened
from embedkit.codec.error_mapping import error_from_response, error_in_success
from embedkit.errors import (
    AuthError,
    DecodeError,
    EmbedkitError,
    NotFoundError,
    QuotaError,
    RateLimitError,
    ServerError,
)
from embedkit.providers import hosts
from embedkit.testing import FakeExchange, response
from tests.connect.test_base_url import NEEDS

pytestmark = pytest.mark.anyio

W = "the quick reason"
KEY = "sk-PLANTED-0123456789"
DIALECTS = ("openai", "azure", "ollama", "cohere", "gemini", "vertex", "bedrock", "tei", "huggingface", "jina", "voyage", "nomic",
            "perplexity", "isaacus", "zeroentropy", "cloudflare", "snowflake", "watsonx")  # fmt: skip
ENVELOPES = [
    # MiniMax, vLLM and FastChat, Baidu, Zhipu's batch, Tencent, Cloudflare, Telegram's kind, RFC 9457, Apigee,
    # Spring, SAP …
    {"base_resp": {"status_code": 1004, "status_msg": W}},
    {"vectors": None, "base_resp": {"status_code": 1004, "status_msg": W}},
    {"object": "error", "message": W},
    {"error_code": 336003, "error_msg": W},
    {"error_msg": W},
    {"status": "failed", "reason": W},
    {"Response": {"Error": {"Code": "FailedOperation", "Message": W}, "RequestId": "r"}},
    {"success": False, "errors": [W]},
    {"success": False, "errors": [{"code": 7, "message": W}]},
    {"result": None, "success": False, "errors": [], "messages": [W]},
    {"result": None, "messages": [{"message": W}]},
    {"ok": False, "description": W},
    {"type": "about:blank", "title": W, "status": 400},
    {"type": "about:blank", "title": "Bad Request", "detail": W, "status": 400},
    {"title": "One or more validation errors occurred.", "status": 400, "errors": {"$.input": [W]}},
    {"fault": {"faultstring": W, "detail": {"errorcode": "steps.Failed"}}},
    {"timestamp": 1, "status": 400, "error": W, "path": "/"},
    {"errorCode": "E1", "errorMessage": W},
    {"errorMessage": W, "errorType": "Runtime", "stackTrace": ["a", "b"]},
    {"err": W},
    {"errno": 5, "errmsg": W},
    {"exception": W},
    {"data": None, "msg": W, "code": 40003},
    {"code": 40003, "msg": W, "data": []},
    {"ret_code": 7, "ret_msg": W},
    {"error": True, "message": W},
    {"error": 1, "error_description": W},
    {"error": {"errors": [{"message": W}]}},
    {"error": {"inner": {"deep": {"msg": W}}}},
    {"error": {"code": "x", "innererror": {"message": W}}},
    {"error": {"message": {"text": W}}},
    {"error": {"message": "", "details": [{"message": W}]}},
    {"error": {"message": None, "description": W}},
    {"error": [[W]]},
    {"errors": {"input": [W]}},
    {"detail": [{"msg": W, "loc": ["body", "input"], "input": "what was sent"}]},
    {"detail": {"error": {"message": W}}},
    {"message": {"error": W}},
    {"data": {"error": W}},
    {"response": {"status": {"message": W}}},
    {"status": {"code": 3, "description": W}},
    {"Status": {"Code": 5, "Text": W}},
    {"cause": {"why": W}},
    {"foo": W},
    {"data": [], "foo": W},
    {"data": [], "warning": W},
    {"embeddings": [], "info": W},
    {"statusText": W},
    # a code beside its sentence: OAuth (RFC 6749), Seldon, Google's kind
    {"error": "invalid_request", "error_description": W},
    {"error": "invalid_client", "hint": W},
    {"status": {"code": -1, "reason": "MICROSERVICE_BAD_DATA", "info": W}},
    {"error": {"message": "bad_request", "why": W}},
    ["error", W],
    # an answer in an answer
    {"message": json.dumps({"error": {"message": W}})},
    {"statusCode": 400, "body": json.dumps({"message": W})},
    json.dumps(json.dumps({"error": W})),
    [{"error": {"message": W}}],
    [W],
    json.dumps(W),
    # no JSON
    W,
    f"<Error><Code>AccessDenied</Code><Message>{W}</Message><RequestId>r</RequestId></Error>",
    f"<?xml version='1.0'?><soap:Envelope><soap:Body><soap:Fault><faultstring>{W}</faultstring></soap:Fault></soap:Body></soap:Envelope>",
    f"<error><message><![CDATA[{W}]]></message></error>",
    f"<oops>{W}</oops>",
    f"<html><body><h1>{W}</h1></body></html>",
    f'data: {{"error": {{"message": "{W}"}}}}\n\ndata: [DONE]\n\n',
    f': waiting\n\nevent: error\ndata: {{"message": "{W}"}}\n\n',
    f'\ufeff{{"error": "{W}"}}',
    f'{{"error": {{"message": "{W}", "code": "cu',
]


async def told(name, answer):
    """The error of one text at this host, which answers so."""
    model = "amazon.titan-embed-text-v2:0" if name == "bedrock" else "m"
    exchange = FakeExchange(lambda request: response({"access_token": "t"}) if "iam." in request.url else answer)
    needs = NEEDS.get(name, {})
    embedder = embedkit.connect(
        f"{name}:{model}", api_key=KEY, exchange=exchange, retry=RetryPolicy(attempts=1), **needs
    )
    with pytest.raises(EmbedkitError) as caught:
        await embedder.embed_batch(["what was sent"], embedder.options)
    return caught.value


@pytest.mark.parametrize("status", [200, 400, 403, 404, 429, 500])
@pytest.mark.parametrize("body", ENVELOPES, ids=lambda body: ascii(body)[:60])
async def test_the_reason_is_shown_whoever_reads_it(body, status):
    """Every envelope, in a success and in a refusal, under every dialect: its words are in the message."""
    for name in DIALECTS:
        error = await told(name, response(body, status))

        assert W in str(error), name
        assert W in error.message, name
        assert "what was sent" not in str(error)


@pytest.mark.parametrize("name", sorted(host.name for host in hosts()))
async def test_every_host_shows_the_words_of_a_success_without_vectors(name):
    """The four rows that were lost: MiniMax's, vLLM's, Baidu's, and a status with its reason."""
    for body in ENVELOPES[:6]:
        error = await told(name, response(body))

        assert W in str(error)
        assert type(error) is DecodeError


@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize(
    ("encoding", "charset", "words"),
    [
        ("utf-8", "", "trop de requêtes ici"),
        ("utf-8", "iso-8859-1", "trop de requêtes ici"),  # the header is wrong, as servers' defaults often are
        ("utf-8-sig", "", "trop de requêtes ici"),
        ("utf-16", "", "trop de requêtes ici"),
        ("utf-16-le", "", "trop de requêtes ici"),
        ("utf-16-be", "", "trop de requêtes ici"),
        ("utf-32", "", "trop de requêtes ici"),
        ("latin-1", "", "trop de requêtes ici"),
        ("latin-1", "utf-8", "trop de requêtes ici"),
        ("gbk", "GBK", "请求 过多"),
        ("shift_jis", '"Shift_JIS"', "リクエスト 過多"),
        ("utf-8", "no-such", "请求 过多"),
    ],
)
async def test_words_are_read_in_their_encoding(encoding, charset, words, status):
    """UTF-8, 16 and 32, with and without a byte order mark, what the header says, or else Windows' own encoding."""
    kind = "application/json" + (f"; charset={charset}" if charset else "")
    for text in (json.dumps({"error": {"message": words}}, ensure_ascii=False), f"<h1>{words}</h1>"):
        error = await told("openai", response(text.encode(encoding), status, {"content-type": kind}))

        assert words in str(error)


def test_one_broken_character_spoils_no_others():
    """A body that was cut within a character is UTF-8 all the same."""
    error = read_error_body(response("{'größe': 'zu groß'".encode() + b"\xc3", 400))

    assert error.message.startswith("{'größe': 'zu groß'")


_words = st.sampled_from(
    ["message", "status_msg", "errorMessage", "detail", "reason", "error_description", "err", "fault", "title"]
)
_around = st.sampled_from(["error", "errors", "data", "result", "response", "x", "base_resp", "Fault", "status"])


@settings(deadline=None)
@given(
    _words,
    st.lists(st.tuples(_around, st.booleans()), max_size=5),
    st.dictionaries(st.sampled_from(["id", "code", "n"]), st.integers(0, 9)),
)
def test_words_are_found_wherever_they_are(name, way, beside):
    """Under any name that promises words, at any depth, in lists or not, whatever stands beside."""
    body = {name: W, **beside}
    for around, listed in way:
        body = {around: [body] if listed else body, **beside}

    assert W in read_error_body(response(body)).message
    assert W in str(error_in_success(response(body)))


# --- a healthy reply -------------------------------------------------------------------------------------------------

VECTORS = [
    {"data": [{"embedding": [0.6, 0.8], "index": 0}]},
    {"data": [{"embedding": "mpkZP83MTD8=", "index": 0}]},
    {"embeddings": [[0.6, 0.8]]},
    {"embeddings": {"int8": [[1, 2]]}},
    {"embeddings": [{"values": [0.6, 0.8]}]},
    {"predictions": [{"embeddings": {"values": [1, 2, 3]}}]},
    {"result": {"data": [[0.6, 0.8]]}},
    {"embedding": [1, 0]},
]
BESIDE = [
    {"error": None}, {"error": ""}, {"error": False}, {"error": []}, {"error": {}}, {"error": 0}, {"error": "none"}, {"error": "No error"},
    {"error": {"code": 0, "message": ""}}, {"error": {"code": None, "message": "success"}}, {"errors": []}, {"errors": None}, {"err": ""},
    {"status": "ok"}, {"status": "success"}, {"status": 200}, {"message": "success"}, {"message": "OK"}, {"msg": "操作成功"}, {"code": 0},
    {"code": 200}, {"code": "0"}, {"code": "ok"}, {"success": True}, {"detail": None}, {"detail": "took 3 ms"}, {"warnings": ["old model"]},
    {"message": "Request was successful."}, {"base_resp": {"status_code": 0, "status_msg": "success"}}, {"errorCode": 0, "errorMessage": ""},
    {"object": "list"}, {"type": "text"}, {"messages": []}, {"info": {"note": "all is well"}},
]  # fmt: skip


@pytest.mark.parametrize("beside", BESIDE, ids=str)
def test_a_healthy_reply_is_no_error(beside):
    """Beside vectors only what is called an error is one; what says "success" never is, even without vectors."""
    for vectors in VECTORS:
        assert has_vectors(vectors)
        assert error_in_success(response({**vectors, **beside})) is None
        assert error_in_success(response({**beside, **vectors})) is None


@pytest.mark.parametrize("body", [{}, [], None, 7, {"data": []}, {"object": "list", "data": [], "model": "m", "usage": {"total_tokens": 3}},
    {"embeddings": [], "id": "a-b", "texts": ["what was sent to it"]}, {"code": 0, "message": "success", "data": None}, [[0.1, 0.2]], [[]],
    {"success": True, "errors": [], "messages": [], "result": {}}], ids=str)  # fmt: skip
def test_an_empty_reply_is_no_error_of_its_own(body):
    """Without vectors and without words there is no reason to give: who misses the vectors says so."""
    assert error_in_success(response(body)) is None


@pytest.mark.parametrize(
    "body", [{"object": "list", "data": [], "model": "m"}, {"data": [], "code": 0, "message": "success"}], ids=str
)
async def test_an_empty_reply_is_shown(body):
    """What came instead of vectors stands in the message, and no user's text."""
    error = await told("openai", response(body))

    assert "1 text was sent, but 0 embeddings came back; the reply starts with" in str(error)
    assert json.dumps(body, separators=(",", ":")) in str(error)


@pytest.mark.parametrize(
    "body",
    [
        {"error": "blocked", "data": [{"embedding": [1.0]}]},
        {"errors": [{"message": "blocked"}], "embeddings": [[1.0, 2.0]]},
    ],
)
def test_what_is_called_an_error_is_one_beside_vectors_too(body):
    """An error by its name, of a reply that has too few vectors, is the reason."""
    assert "blocked" in str(error_in_success(response(body)))


@pytest.mark.parametrize(
    ("value", "well"),
    [("ok", True), ("OK.", True), ("Success!", True), ("succeeded", True), ("", True), (" ", True), ("0", True), ("200", True), ("204", True),
     ("request processed successfully", True), ("成功", True), (None, True), (0, True), (0.0, True), (200, True), (False, True), ([], True),
     ({"a": [None, {"b": ""}]}, True), ("failed", False), ("unsuccessful", False), ("not ok", False), ("404", False), (1, False), (404, False),
     (True, False), ("success rate too low", False), ({"a": "x"}, False), (["x"], False), ("okra", False)],
)  # fmt: skip
def test_what_says_that_all_is_well(value, well):
    """The words and numbers of success, and those that only look like them."""
    assert fine(value) is well


# --- whose fault -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        ({"error": {"message": W, "code": "invalid_api_key"}}, AuthError, 401),
        ({"error": {"message": W, "type": "authentication_error"}}, AuthError, 401),
        ({"error": {"message": W, "code": 16, "status": "UNAUTHENTICATED"}}, AuthError, 401),
        ({"error": {"message": W, "status": "PERMISSION_DENIED"}}, AuthError, 401),
        ({"code": "InvalidApiKey", "message": W}, AuthError, 401),
        ({"Response": {"Error": {"Code": "AuthFailure.SignatureFailure", "Message": W}}}, AuthError, 401),
        ({"fault": {"faultstring": W, "detail": {"errorcode": "oauth.v2.InvalidApiKey"}}}, AuthError, 401),
        ({"__type": "AccessDeniedException", "message": W}, AuthError, 401),
        ({"error": "Invalid API key"}, AuthError, 401),
        ({"status": 401, "title": "Unauthorized", "detail": W}, AuthError, 401),
        ({"statusCode": 403, "message": W}, AuthError, 403),
        ({"base_resp": {"status_code": 401, "status_msg": W}}, AuthError, 401),
        ({"code": 401, "data": None}, AuthError, 401),
        ({"error": {"message": W, "code": "insufficient_quota"}}, QuotaError, 429),
        ({"error": {"message": W, "type": "billing_error"}}, QuotaError, 402),
        ({"code": "Arrearage", "message": W}, QuotaError, 429),
        ({"error": {"message": W, "code": 402}}, QuotaError, 402),
        ({"error_msg": "insufficient balance"}, QuotaError, 402),
        ({"error": {"message": W, "code": "rate_limit_exceeded"}}, RateLimitError, 429),
        ({"error": {"message": W, "status": "RESOURCE_EXHAUSTED"}}, RateLimitError, 429),
        ({"code": "Throttling.RateQuota", "message": W}, RateLimitError, 429),
        ({"Response": {"Error": {"Code": "RequestLimitExceeded", "Message": W}}}, RateLimitError, 429),
        ({"message": "slow down", "code": "429"}, RateLimitError, 429),
        ({"error": {"message": W, "code": "model_not_found"}}, NotFoundError, 404),
        ({"error": {"message": W, "code": 503}}, ServerError, 503),
        ({"error": {"message": W, "type": "overloaded_error"}}, ServerError, 503),
        ({"error": {"message": W, "code": "invalid_max_tokens"}}, DecodeError, None),
        ({"error": {"message": W, "code": 1004}}, DecodeError, None),
        ({"error": {"message": W, "code": "context_length_exceeded"}}, DecodeError, None),
    ],
    ids=str,
)
def test_a_success_that_names_its_failure_is_that_failure(body, kind, status):
    """A status of HTTP, or a code or kind that means the key, the quota or the rate: the error of that name."""
    error = error_in_success(response(body))

    assert type(error) is kind
    assert getattr(error, "status", None) == status
    assert status is None or error.retryable is (kind in (RateLimitError, ServerError))


def test_a_hint_in_a_success_is_counted_from_its_own_date():
    """`Retry-After` as a date in a 200 counts from the server's own clock; without a clock it is no hint."""
    body, soon = {"error": {"code": 429, "message": W}}, formatdate(1_764_000_030, usegmt=True)

    assert (
        error_in_success(
            response(body, 200, {"retry-after": soon, "date": formatdate(1_764_000_000, usegmt=True)})
        ).retry_after
        == 30
    )
    assert error_in_success(response(body, 200, {"retry-after": soon})).retry_after is None
    assert error_in_success(response(body, 200, {"retry-after": "7"})).retry_after == 7


FORBIDDEN = [
    # The account or the key may not do this, whatever the words say of a model.
    ({"message": "You don't have access to the model with the specified model ID."}, {"x-amzn-errortype": "AccessDeniedException:http://a/"}, AuthError),
    ({"message": "You don't have access to the model with the specified model ID."}, {}, AuthError),
    ({"message": "Your account does not have access to this model."}, {"x-amzn-errortype": "AccessDeniedException"}, AuthError),
    ({"__type": "AccessDeniedException", "Message": "no access to model m"}, {}, AuthError),
    ({"message": "User: arn:aws:iam::1:user/a is not authorized to perform: bedrock:InvokeModel on resource: arn:…"}, {}, AuthError),
    ({"message": "Model access is denied due to missing AWS Marketplace subscription."}, {}, AuthError),
    ({"message": "The security token included in the request is expired"}, {"x-amzn-errortype": "ExpiredTokenException"}, AuthError),
    ({"error": {"code": 403, "message": "Permission denied on resource for access to this model", "status": "PERMISSION_DENIED"}}, {}, AuthError),
    ({"error": {"code": "forbidden", "message": "Forbidden: you cannot use this model"}}, {}, AuthError),
    ({"error": "unauthorized"}, {}, AuthError),
    ({"code": "AUTH_INVALID_API_KEY", "detail": "Invalid API key."}, {}, AuthError),
    ({"detail": "Voyage AI API keys work with Voyage AI endpoints"}, {}, AuthError),
    # There is no such model, or none that embeds: another key would not help.
    ({"error": {"message": "Project `p` does not have access to model `m`", "code": "model_not_found"}}, {}, NotFoundError),
    ({"error": {"message": "You are not allowed to generate embeddings from this model", "type": "invalid_request_error"}}, {}, NotFoundError),
    # Nothing left to spend.
    ({"code": "AUTHZ_INSUFFICIENT_BALANCE", "detail": "Not enough."}, {}, QuotaError),
]  # fmt: skip


@pytest.mark.parametrize(("body", "headers", "kind"), FORBIDDEN, ids=str)
def test_what_a_403_is_about(body, headers, kind):
    """The key or its rights, unless the provider's own code says that the model is not there."""
    answer = response(body, 403, headers)

    assert (
        type(error_from_response(answer, provider="p", model="m", message=read_error_body(answer).message, now=0.0))
        is kind
    )


# --- in a header -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"x-error-message": W}, W),
        ({"X-Amzn-ErrorMessage": W}, W),
        ({"x-ms-error-detail": W}, W),
        ({"grpc-message": W.replace(" ", "%20")}, W),
        ({"x-error": W}, W),
        ({"www-authenticate": f'Bearer realm="a", error="invalid_token", error_description="{W}"'}, W),
        ({"www-authenticate": 'Bearer error="invalid_token"'}, "invalid_token"),
        (
            {"x-error": "", "www-authenticate": "Bearer", "x-request-id": "r"},
            "the server answered 401 with an empty body",
        ),
    ],
)
def test_words_in_a_header(headers, words):
    """Where the body is empty a header may say why."""
    answer = response("", 401, headers)

    assert (
        error_from_response(answer, provider="p", model="m", message=read_error_body(answer).message, now=0.0).message
        == words
    )


@pytest.mark.parametrize("body", ["", {}, {"data": []}], ids=str)
async def test_words_in_a_header_of_a_success(body):
    """A success without a word in its body, whose header has the reason."""
    for name in DIALECTS:
        error = await told(name, response(body, 200, {"x-error-message": W}))

        assert type(error) is DecodeError
        assert W in error.message


# --- no more than that -----------------------------------------------------------------------------------------------

HUGE = [
    {"weird": [[0.123456789] * 1536] * 50},
    {"weird": "A" * 100_000, "vectors": ["B" * 8192] * 20},
    {"error": {"vector": [0.5] * 100_000}},
    {"a" * 5000: {"b" * 5000: 1}},
    {"input": ["what was sent to it " * 5000]},
    {"error": {"input": ["what was sent to it " * 5000]}},
    [[0.25] * 9000],
    '{"data": [{"embedding": [' + "0.123, " * 50_000,
    "<x>" * 30_000,
    "<a>" + "what was sent to it " * 5000 + "</a>",
    {"message": "m" * 100_000},
    {"x": {str(place): {"message": "m" * 900} for place in range(900)}},
    {"deep": json.loads("[" * 500 + "1" + "]" * 500)},
    "[" * 50_000,
    '{"error": ' + "[" * 900 + "]" * 900 + "}",
    '{"detail": ' + '{"a": ' * 900 + '"some words in here"' + "}" * 901,
]


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("body", HUGE, ids=lambda body: ascii(body)[:40])
async def test_no_error_is_long(body, status):
    """Neither vectors nor texts are repeated at length, whatever comes."""
    error = await told("openai", response(body, status))

    assert len(error.message) <= EXCERPT + 200
    assert error.message.count("0.123") <= 40
    assert error.message.count("what was sent to it") <= 20


@settings(deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20) | st.binary())  # fmt: skip
@example(b"<!doctype html><title></title>")
@example(b"<a><![CDATA[")
@example(b"data: {")
@example({"message": "[" * 5000})
def test_nothing_breaks_the_search(body):
    """Any body is read to something short, without an error of its own."""
    answer = response(body if isinstance(body, bytes) else json.dumps(body))

    assert len(read_error_body(answer).message) <= EXCERPT
    assert len(describe_body(answer)) <= EXCERPT
    assert len(shortened(bytes(answer.body).decode("utf-8", "replace"))) <= 400
    assert isinstance(fine(body), bool)


@pytest.mark.parametrize("status", [200, 401, 404])
@pytest.mark.parametrize("name", ["status_msg", "foo", "errorMessage"])
async def test_a_key_in_the_words_does_not_show(name, status):
    """What a server quotes of the key is hidden, in whatever envelope, and cut nowhere in half."""
    for body in (
        {name: f"no such key: {KEY}"},
        {name: "x" * (EXCERPT - 15) + f" {KEY}"},
        {"oops": ["x" * 85 + KEY]},
        f"<a>{KEY}</a>",
    ):
        error = await told("openai", response(body, status))

        assert KEY not in str(error)
        assert "PLANTED" not in f"{error}{error!r}{vars(error)}"


# --- where it was asked ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [404, 405, 410, 421])
async def test_what_is_not_there_names_where_it_was_asked(status):
    """The URL, without the user and the query in it."""
    exchange = FakeExchange([response({"detail": "Not Found"}, status)])
    where = f"https://me:word@host.test/v1?api-version=1&key={KEY}"
    with pytest.raises(NotFoundError, match=r"Not Found; asked at https://host\.test/v1/embeddings \(status") as caught:
        await embedkit.connect("compatible:m", base_url=where, exchange=exchange).embed("a")

    assert KEY not in str(caught.value)
    assert "word" not in str(caught.value)


@pytest.mark.parametrize("status", [400, 401, 403, 500])
async def test_other_refusals_do_not(status):
    """Elsewhere the URL explains nothing."""
    assert "asked at" not in str(await told("openai", response({"error": W}, status)))


async def test_the_url_is_the_one_that_was_asked():
    """A key of MongoDB's is sent to its own host, and that is the one named."""
    exchange = FakeExchange([response({"detail": "Not Found"}, 404)])
    with pytest.raises(NotFoundError, match=r"asked at https://ai\.mongodb\.com/v1/embeddings"):
        await embedkit.connect("voyage:voyage-4", api_key="al-key-0123", exchange=exchange).embed("a")


async def test_a_key_exchange_that_is_not_there_names_its_url():
    """A wrong `iam_url` is not the key's fault alone: the message says where it was asked."""
    exchange = FakeExchange([response("", 404)])
    embedder = embedkit.connect(
        "watsonx:m", api_key="k" * 20, project_id="p", base_url="https://us-south.ml.cloud.ibm.com", iam_url="https://iam.test/tokn",
        exchange=exchange,
    )  # fmt: skip
    with pytest.raises(AuthError, match=r"not exchanged for a token: .*; asked at https://iam\.test/tokn"):
        await embedder.embed("a")


@pytest.mark.parametrize(
    ("body", "hinted"),
    [
        ({"error": 'model "m" not found, try pulling it first'}, True),
        ({"error": "model 'm' not found"}, True),
        ("404 page not found", False),
        ({"error": 'path "/v1/api/embed" not found'}, False),
        ({"detail": "Not Found"}, False),
        ("<html><title>404 Not Found</title></html>", False),
        ("", False),
    ],
    ids=str,
)
async def test_ollamas_hint_needs_ollamas_words(body, hinted):
    """`ollama pull` is said where the server misses the model, not where the URL is wrong."""
    error = await told("ollama", response(body, 404))

    assert ("ollama pull m" in str(error)) is hinted
    assert "asked at http://127.0.0.1:11434/api/embed" in str(error)
