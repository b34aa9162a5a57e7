"""Every refusal becomes the one error that says whose fault it was, whether to try again, and when."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.utils import formatdate

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embedkit._types import CAP, Response
from embedkit.codec.error_body import EXCERPT, read_error_body
from embedkit.codec.error_mapping import error_from_response, error_in_success
from embedkit.codec.retry_after import duration
from embedkit.errors import (
    ApiError,
    AuthError,
    DecodeError,
    EmbedkitError,
    InvalidInputError,
    NotFoundError,
    QuotaError,
    RateLimitError,
    ServerError,
    TooLargeError,
    TooLongError,
)
from embedkit.testing import response

NOW = 1_764_000_000.0  # a Unix time


def judged(status, body="", headers=None, *, message=None, now=NOW):
    """The error of a refusal, read as every dialect reads it unless it has a message of its own."""
    answer = response(body, status, headers)
    return error_from_response(
        answer,
        provider="p",
        model="m",
        message=read_error_body(answer).message if message is None else message,
        now=now,
    )


def openai(message, kind=None, code=None):
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


# --- whose fault -----------------------------------------------------------------------------------------------------

# (status, body, class): texts that providers' pages, clients and issues quote, by provider.
TEXTS = [
    # OpenAI
    (400, openai("Requested 416735 tokens, max 300000 tokens per request", "max_tokens_per_request", "max_tokens_per_request"), TooLargeError),
    (400, openai("This model's maximum context length is 8192 tokens, however you requested 10000 tokens"), TooLongError),
    (400, openai("Invalid 'input[3]': maximum input length is 8192 tokens.", "invalid_request_error"), TooLongError),
    (400, openai("'$.input' is invalid. Please check the API reference.", "invalid_request_error"), InvalidInputError),
    (400, openai("Invalid value for 'encoding_format' = int3."), InvalidInputError),
    (400, openai("This model does not support specifying dimensions."), InvalidInputError),
    (401, openai("Incorrect API key provided: sk-x.", "invalid_request_error", "invalid_api_key"), AuthError),
    (403, openai("Country, region, or territory not supported", "request_forbidden"), AuthError),
    (403, openai("You are not allowed to generate embeddings from this model"), NotFoundError),
    (403, openai("Project `p` does not have access to this model"), NotFoundError),
    (404, openai("The model `x` does not exist", "invalid_request_error", "model_not_found"), NotFoundError),
    (429, openai("Rate limit reached: Limit 1000000, Used 976163, Requested 70716.", "tokens", "rate_limit_exceeded"), RateLimitError),
    (429, openai("Request too large: Limit 30000, Requested 31538.", "tokens", "rate_limit_exceeded"), TooLargeError),
    (429, openai("Slow down", "rate_limit_error", "slow_down"), RateLimitError),
    (429, openai("You exceeded your current quota.", "insufficient_quota", "insufficient_quota"), QuotaError),
    (429, openai("You exceeded your current quota, please check your plan and billing details."), QuotaError),
    (429, openai("Out of credit.", "insufficient_quota", "credit_balance_exhausted"), QuotaError),
    (429, openai("Stop.", "insufficient_quota", "organization_spend_limit_exceeded"), QuotaError),
    (429, openai("Stop.", "insufficient_quota", "project_spend_limit_exceeded"), QuotaError),
    (429, openai("Stop.", "insufficient_quota", "organization_usage_limit_exceeded"), QuotaError),
    (503, openai("Overloaded", "service_unavailable_error", "server_is_overloaded"), ServerError),
    # Azure
    (401, {"error": {"code": "401", "message": "Access denied due to invalid subscription key or wrong API endpoint."}}, AuthError),
    (401, {"error": {"code": "PermissionDenied", "message": "The principal lacks the required data action"}}, AuthError),
    (404, {"error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}}, NotFoundError),
    (429, {"error": {"code": "429", "message": "Requests to the Embeddings_Create Operation have exceeded call rate limit of your current OpenAI S0 pricing tier. Please retry after 7 seconds."}}, RateLimitError),
    (431, "Request Header Fields Too Large", ApiError),
    # Cohere
    (400, {"message": "invalid request: total number of texts must be at most 96 - received 104"}, TooLargeError),
    (400, {"message": "invalid request: valid input_type must be provided with the provided model"}, InvalidInputError),
    (400, {"message": "invalid request: inputs contains an element that is the empty string at index 0"}, InvalidInputError),
    (400, {"error_type": "TOO_MANY_TOKENS", "message": "too many tokens: size limit exceeded by 25836 tokens."}, TooLargeError),
    (401, {"message": "no api key supplied"}, AuthError),
    (402, {"message": "billing limit reached"}, QuotaError),
    (429, {"message": "You are using a Trial key, which is limited to 40 API calls / minute."}, RateLimitError),
    (429, {"message": "trial token rate limit exceeded, limit is 100000 tokens per minute"}, RateLimitError),
    (429, {"message": "You are past the per minute request limit"}, RateLimitError),
    (429, {"message": "You are using a Trial key, which is limited to 1000 API calls / month."}, QuotaError),
    (429, {"message": "Monthly call limit reached"}, QuotaError),
    (498, {"message": "blocked"}, InvalidInputError),
    (499, {"message": "request cancelled"}, ApiError),
    (501, {"message": "not implemented"}, ServerError),
    # Hugging Face
    (400, {"error": "Model not supported by provider hf-inference"}, NotFoundError),
    (400, {"error": ["Error in `inputs`: field required"], "warnings": ["w"]}, InvalidInputError),
    (402, {"error": "You have exceeded your monthly included credits for Inference Providers."}, QuotaError),
    (410, {"error": "…is no longer supported. Please use https://router.huggingface.co instead."}, NotFoundError),
    (503, {"error": "Model x/y is currently loading", "estimated_time": 20.0}, ServerError),
    # TEI, before and since 1.9
    (413, {"error": "batch size 33 > maximum allowed batch size 32", "error_type": "Validation"}, TooLargeError),
    (422, {"error": "batch size 33 > maximum allowed batch size 32", "error_type": "Validation"}, TooLargeError),
    (422, {"message": "batch size 33 > maximum allowed batch size 32", "code": 422, "type": "Validation"}, TooLargeError),
    (413, {"error": "Input validation error: `inputs` must have less than 512 tokens. Given: 527", "error_type": "Validation"}, TooLongError),
    (422, {"error": "Input validation error: `inputs` must have less than 32000 characters. Given: 67337", "error_type": "Validation"}, TooLongError),
    (413, {"error": "Input validation error: `inputs` cannot be empty", "error_type": "Validation"}, InvalidInputError),
    (422, {"error": "Input validation error: `dimensions` should be positive", "error_type": "Validation"}, InvalidInputError),
    (422, {"error": "Tokenization error", "error_type": "Tokenizer"}, InvalidInputError),
    (400, {"error": "Batch is empty", "error_type": "Empty"}, InvalidInputError),
    (413, "Failed to buffer the request body: length limit exceeded", TooLargeError),
    (424, {"error": "Inference failed", "error_type": "Backend"}, ServerError),
    (429, {"error": "Model is overloaded", "error_type": "Overloaded"}, RateLimitError),
    (503, {"error": "unhealthy", "error_type": "Unhealthy"}, ServerError),
    (401, "", AuthError),
    # Ollama
    (400, {"error": "the input length exceeds the context length"}, TooLongError),
    (400, {"error": "input length exceeds maximum context length"}, TooLongError),
    (400, {"error": "input exceeds maximum context length"}, TooLongError),
    (400, {"error": "input after truncation exceeds maximum context length"}, TooLongError),
    (400, {"error": "input exceeds maximum context length and cannot be truncated further"}, TooLongError),
    (500, {"error": "the input length exceeds the context length"}, TooLongError),
    (400, {"error": "embedding contains NaN or Inf values"}, InvalidInputError),
    (500, {"error": "failed to encode response: json: unsupported value: NaN"}, InvalidInputError),
    (400, {"error": "invalid input type"}, InvalidInputError),
    (404, {"error": "model 'x' not found"}, NotFoundError),
    (503, {"error": "server busy, please try again.  maximum pending requests exceeded"}, ServerError),
    (500, {"error": "llama runner process has terminated"}, ServerError),
    # LocalAI, vLLM, llama.cpp, Infinity, SGLang and others like them
    (400, {"error": {"code": 400, "message": "code=400, message=bad", "type": ""}}, InvalidInputError),
    (503, {"error": {"code": "model_loading", "message": "loading", "type": "model_loading"}, "loading": {}}, ServerError),
    (400, openai('Model "x" does not support matryoshka representation, changing output dimensions will lead to poor results.'), InvalidInputError),
    (400, openai("This model's maximum context length is 512 tokens. However, you requested 1451 tokens in the input"), TooLongError),
    (401, {"error": "Unauthorized"}, AuthError),
    (500, {"error": {"code": 500, "message": "input (900 tokens) is too large to process. increase the physical batch size", "type": "server_error"}}, TooLongError),
    (400, {"error": {"code": 400, "message": "input (602 tokens) is larger than the max context size", "type": "exceed_context_size_error"}}, TooLongError),
    (400, {"error": {"code": 400, "message": "request (2009 tokens) exceeds the available context size (512 tokens), try increasing it", "type": "x"}}, TooLongError),
    (503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, ServerError),
    (501, {"error": {"code": 501, "message": "This server does not support embeddings.", "type": "not_supported_error"}}, ServerError),
    (422, {"detail": [{"type": "too_long", "loc": ["body", "input"], "msg": "List should have at most 2048 items after validation"}]}, TooLargeError),
    (422, {"detail": [{"type": "string_too_long", "loc": ["body", "input", 1], "msg": "String should have at most 122880 characters"}]}, TooLongError),
    (400, openai("Invalid model: Engine for model name `x` not found."), NotFoundError),
    (429, openai("model x is currently overloaded"), RateLimitError),
    (400, {"object": "error", "message": "The input (600 tokens) is longer than the model's context length (512 tokens).", "code": 400}, TooLongError),
    (400, {"object": "error", "message": "Input at index 2 cannot be empty or whitespace only", "code": 400}, InvalidInputError),
    (422, {"detail": [{"loc": ["body", "texts"], "msg": "field required", "type": "value_error.missing"}]}, InvalidInputError),
    # Voyage, Mistral, Google, Bedrock and the other hosts
    (400, {"detail": "The max allowed tokens per submitted batch is 120000. Your batch has 126899 tokens after truncation.", "error_code": "TOO_MANY_TOKENS_IN_BATCH"}, TooLargeError),
    (400, {"detail": "The max allowed tokens per submitted batch is 120000. Your batch has 126899 tokens after truncation."}, TooLargeError),
    (400, {"detail": "The example at index 0 in your batch has too many tokens and does not fit into the model's context window of 32000 tokens."}, TooLongError),
    (403, {"detail": "Voyage AI API keys work with Voyage AI endpoints, and MongoDB Atlas API keys work with MongoDB endpoints."}, AuthError),
    (400, {"object": "error", "message": "Too many tokens overall, split into more batches.", "type": "invalid_request_prompt", "code": "3210"}, TooLargeError),
    (400, {"object": "error", "message": "Too many inputs in request, split into more batches.", "code": "3210"}, TooLargeError),
    (400, {"object": "error", "message": "Too many tokens in batch. Max is 16384 got 17555", "type": "invalid_request_error"}, TooLargeError),
    (400, {"error": {"code": 400, "message": "* BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch", "status": "INVALID_ARGUMENT"}}, TooLargeError),
    (400, {"error": {"code": 400, "message": "250 instance(s) is allowed per prediction. Actual: 512", "status": "INVALID_ARGUMENT"}}, TooLargeError),
    (400, {"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.", "status": "INVALID_ARGUMENT"}}, AuthError),
    (429, {"error": {"code": 429, "message": "You exceeded your current quota", "status": "RESOURCE_EXHAUSTED"}}, RateLimitError),
    (400, {"message": "400 Bad Request: Too many input tokens. Max input tokens: 8192, request input token count: 9875"}, TooLongError),
    (400, {"message": "Malformed input request: #/texts/41: expected maxLength: 2048, actual: 2500"}, TooLongError),
    (400, {"message": "The provided model identifier is invalid."}, NotFoundError),
    (403, {"message": "The security token included in the request is expired"}, AuthError),
    (429, {"message": "Too many requests, please wait before trying again."}, RateLimitError),
    (400, openai("<400> InternalError.Algo.InvalidParameter: Value error, batch size is invalid, it should not be larger than 10.: input.contents"), TooLargeError),
    (400, {"detail": "Validation error: 'body -> jina-embeddings-v4' Each input list can contain at most 512 items"}, TooLargeError),
    (400, {"detail": "input length is larger than the largest allowed size 2048"}, TooLargeError),
    (401, {"code": "AUTH_INVALID_API_KEY", "detail": "Invalid API key."}, AuthError),
    (403, {"code": "AUTHZ_INSUFFICIENT_BALANCE", "detail": "Not enough."}, QuotaError),
    (429, {"code": "RATE_TOKEN_LIMIT_EXCEEDED", "detail": "Slow down."}, RateLimitError),
    (400, {"error": "Input length 548 exceeds maximum allowed token size 512"}, TooLongError),
    (400, {"error": "'input_type' parameter is required for asymmetric models"}, InvalidInputError),
    (402, {"error": {"code": 402, "message": "Insufficient credits"}}, QuotaError),
    (429, {"result": None, "success": False, "errors": [{"code": 3040, "message": "Capacity temporarily exceeded"}]}, RateLimitError),
    (429, {"error": {"code": "1113", "message": "Your account is in arrears"}}, QuotaError),
    (429, {"error": {"code": "1302", "message": "Too many concurrent requests"}}, RateLimitError),
    (400, {"code": "Arrearage", "message": "Access denied, please make sure your account is in good standing.", "request_id": "r"}, QuotaError),
    (429, {"code": "Throttling.RateQuota", "message": "Requests rate limit exceeded", "request_id": "r"}, RateLimitError),
    (403, {"code": 30001, "message": "Sorry, your account balance is insufficient", "data": None}, QuotaError),
    (401, openai("Invalid API key or insufficient credits.", "invalid_api_key", 401), AuthError),
    (429, openai("Rate limit of 150 per 86400s exceeded for UserByModelByDay. Please wait 24367 seconds before retrying."), QuotaError),
    (400, {"code": "INPUT_MODEL_NOT_FOUND", "detail": "Model x not found"}, NotFoundError),
    (401, {"errorCode": "BXNIM0415E", "errorMessage": "Provided API key could not be found."}, AuthError),
    # gateways
    (502, "<html><head><title>502 Bad Gateway</title></head></html>", ServerError),
    (413, "<html><head><title>413 Request Entity Too Large</title></head></html>", TooLargeError),
    (404, "<!DOCTYPE html><html><body><h1>Not Found</h1></body></html>", NotFoundError),
    (429, "error code: 1015", RateLimitError),
    (405, {"detail": "Method Not Allowed"}, NotFoundError),
    (415, "", ApiError),
    (300, "", ApiError),
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "body", "kind"), TEXTS, ids=lambda each: None if isinstance(each, type) else str(each)[:70]
)
def test_the_class_of_every_known_text(status, body, kind):
    """Each refusal has its class, and a message that quotes the provider."""
    error = judged(status, body)

    assert type(error) is kind
    assert error.message
    assert (error.status, error.provider, error.model) == (status, "p", "m")


@pytest.mark.parametrize(
    ("status", "body", "kind"), [each for each in TEXTS if each[2] in (QuotaError, TooLargeError, TooLongError)]
)
def test_what_waiting_cannot_cure_is_never_retried(status, body, kind):
    """No credit, too large, too long: not again, and no wait, whatever headers come with it (`x-should-retry` of a
    quota too).
    """
    error = judged(status, body, {"retry-after": "1", **({"x-should-retry": "true"} if kind is QuotaError else {})})

    assert error.retryable is False
    assert error.retry_after is None


@pytest.mark.parametrize(
    ("status", "again"),
    [
        *((status, True) for status in (408, 409, 425, 424, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529)),
        *(
            (status, False)
            for status in (300, 301, 307, 400, 401, 402, 403, 404, 405, 410, 411, 413, 415, 418, 421, 422, 431, 451)
        ),
        *((status, False) for status in (498, 499, 501, 505, 511)),
    ],
)
def test_a_status_alone_says_whether_to_try_again(status, again):
    """Without a body the status alone says whether to try again; `x-should-retry` overrides it both ways."""
    plain = {} if status != 402 else {"x-should-retry": "true"}

    assert judged(status, "", plain).retryable is again
    if status != 402:
        assert judged(status, "", {"x-should-retry": "true"}).retryable is True
    assert judged(status, "", {"x-should-retry": "false"}).retryable is False
    assert judged(status, "", {"x-should-retry": "perhaps", **plain}).retryable is again


@pytest.mark.parametrize(
    ("limit", "requested", "kind"),
    [("30000", "31538", TooLargeError), ("31538", "31538", RateLimitError), ("9" * 30, "1", RateLimitError)],
)
def test_a_rate_limit_no_waiting_cures_is_too_large(limit, requested, kind):
    """A request larger than the whole limit is split; one that only has to wait waits."""
    text = "Rate limit reached (TPM): Limit {}, Requested {}."

    assert type(judged(429, openai(text.format(limit, requested)))) is kind


@pytest.mark.parametrize(
    ("message", "texts", "tokens"),
    [
        ("Requested 416735 tokens, max 300000 tokens per request", None, 300_000),
        ("invalid request: total number of texts must be at most 96 - received 104", 96, None),
        ("batch size 33 > maximum allowed batch size 32", 32, None),
        ("The max allowed tokens per submitted batch is 120000. Your batch has 126899 tokens", None, 120_000),
        ("* BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch", 100, None),
        ("250 instance(s) is allowed per prediction. Actual: 512", 250, None),
        ("Value error, batch size is invalid, it should not be larger than 10.: input.contents", 10, None),
        ("Each input list can contain at most 512 items", 512, None),
        ("List should have at most 2048 items after validation, not 2049", 2048, None),
        ("input length is larger than the largest allowed size 2,048", 2048, None),
        ("Too many tokens in batch. Max is 16384 got 17555", None, 16_384),
        ("Too many inputs in request, split into more batches.", None, None),
        ("maximum allowed batch size ,", None, None),
        (f"maximum allowed batch size {'9' * 5000}", 10**15 - 1, None),
    ],
)
def test_a_limit_is_read_where_it_is_said(message, texts, tokens):
    """What one request may hold, out of the words that refuse a larger one; nothing where no figure is given."""
    error = judged(400, openai(message))

    assert type(error) is TooLargeError
    assert (error.max_texts, error.max_tokens) == (texts, tokens)


def test_the_limit_of_an_impossible_rate_is_read():
    """The limit per minute that one request exceeds is the most that a request may hold."""
    assert judged(429, openai("Request too large (TPM): Limit 30000, Requested 31538.")).max_tokens == 30_000


# --- which text ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "rows"),
    [
        ("Invalid 'input[3]': maximum input length is 8192 tokens.", (3,)),
        ("inputs contains an element that is the empty string at index 0", (0,)),
        ("Malformed input request: #/texts/41: expected maxLength: 2048, actual: 2500", (41,)),
        ("body.texts.7: field required", (7,)),
        ("body.text.input.list[constrained-str].5: Input should be a valid string", (5,)),
        ("Input at index 12 cannot be empty or whitespace only", (12,)),
        ("Invalid 'input[3]' and 'input[4]'", ()),
        ("Invalid 'input[3]': see input[3]", (3,)),
        ("the input is invalid", ()),
        (f"Invalid 'input[{'9' * 40}]'", ()),
    ],
)
def test_a_refusal_names_the_text_it_is_about(message, rows):
    """The row out of every way of naming one; where several are named, nobody is blamed."""
    assert judged(400, openai(message)).rows == rows


def test_only_a_bad_text_has_a_row():
    """An index in the message of any other refusal is not a text to blame."""
    assert judged(429, openai("Rate limit at index 3")).rows == ()
    assert judged(400, openai("batch size 33 > maximum allowed batch size 32 at index 3")).rows == ()


# --- when ------------------------------------------------------------------------------------------------------------


def date(seconds):
    return formatdate(NOW + seconds, usegmt=True)


NO_TIME: list[object] = [True, None, -1, 0, [7], {}, "soon", "nan", 1e30, 10**400, 121]

HINTS = [
    # headers, by the order of table 7.1
    ({"retry-after-ms": "2812", "retry-after": "3"}, {}, 2.812),
    ({"retry-after-ms": "0", "retry-after": "1"}, {}, 1.0),
    ({"retry-after-ms": "-5", "retry-after": "1"}, {}, 1.0),
    ({"retry-after-ms": "soon", "retry-after": "1"}, {}, 1.0),
    ({"retry-after": "20"}, {}, 20.0),
    ({"retry-after": "1.5"}, {}, 1.5),
    ({"retry-after": date(30)}, {}, 30.0),
    ({"retry-after": date(-30)}, {}, None),
    ({"retry-after": "0"}, {}, None),
    ({"retry-after": "-1"}, {}, None),
    ({"retry-after": "nan"}, {}, None),
    ({"retry-after": "inf"}, {}, None),
    ({"retry-after": ""}, {}, None),
    ({"retry-after": "Wed, 99 Oct 2015 07:28:00 GMT"}, {}, None),
    ({"retry-after": "later"}, openai("Please try again in 3s."), 3.0),
    # a header is believed, however long: who waits decides
    ({"retry-after": "86400"}, {}, 86400.0),
    ({"retry-after": date(7200)}, {}, 7200.0),
    # a unit in words, parts of a unit, and a header that was sent twice
    ({"retry-after": "7 seconds"}, {}, 7.0),
    ({"retry-after": "60 Secs"}, {}, 60.0),
    ({"retry-after": "7S"}, {}, 7.0),
    ({"retry-after": "1 minute"}, {}, 60.0),
    ({"retry-after": "1.5m"}, {}, 90.0),
    ({"retry-after": "250µs"}, {}, 0.00025),
    ({"retry-after": "7, 9"}, {}, 9.0),
    ({"retry-after": "9,1m2s"}, {}, 62.0),
    ({"retry-after": "7, soon"}, {}, None),
    ({"retry-after": "7;w=60"}, {}, None),
    # the body
    ({}, {"error": "loading", "estimated_time": 20.0}, 20.0),
    ({}, {"error": "loading", "estimated_time": 53}, 53.0),
    ({}, {"error": "loading", "estimated_time": 0}, None),
    ({}, {"error": "loading", "estimated_time": -5}, None),
    ({}, {"error": "loading", "estimated_time": "20"}, None),
    ({}, {"error": "loading", "estimated_time": 10**400}, None),
    ({}, {"error": "loading", "estimated_time": 20.0, "warnings": ["try again in 3s"]}, 20.0),
    ({}, {"error": {"message": "x", "details": [{"@type": "Help"}, {"retryDelay": "22s"}]}}, 22.0),
    ({}, {"error": {"message": "x", "details": [{"retryDelay": "0.5s"}]}}, 0.5),
    ({}, {"error": {"message": "x", "details": [{"retryDelay": 22}]}}, None),
    ({}, {"error": {"message": "x", "details": "none"}}, None),
    ({"retry-after": "1"}, {"error": "loading", "estimated_time": 20.0}, 1.0),
    ({}, {"title": "Error 1015: You are being rate limited", "retryable": True, "retry_after": 30}, 30.0),
    ({}, {"error": {"message": "x", "retry_after": "7s"}}, 7.0),
    ({}, {"detail": {"retryAfter": 7.5}}, 7.5),
    ({}, {"retry_after": 30, "error": {"message": "try again in 3s"}}, 30.0),
    *[({}, {"retry_after": each}, None) for each in NO_TIME],
    # the message
    ({}, openai("Please try again in 2.812s."), 2.812),
    ({}, openai("Please try again in 12ms. Visit https://x.y."), 0.012),
    ({}, openai("Please try again in 1m2.5s."), 62.5),
    ({}, openai("Please try again in 20s. Visit us."), 20.0),
    ({}, openai("Please retry after 7 seconds."), 7.0),
    ({}, openai("Please retry after 1 second."), 1.0),
    ({}, openai("Please retry in 22.375817872s."), 22.375817872),
    ({}, openai("TRY AGAIN IN 5S"), 5.0),
    ({}, openai("Please try again after 7 sec"), 7.0),
    ({}, openai("Please wait for 1.5 minutes"), 90.0),
    ({}, openai(f"Please retry after {datetime.fromtimestamp(NOW + 30, UTC).isoformat()}."), 30.0),
    ({}, openai(f"Try again at {datetime.fromtimestamp(NOW + 30, UTC):%Y-%m-%d %H:%M:%SZ}"), 30.0),
    ({}, openai(f"Retry after {datetime.fromtimestamp(NOW - 30, UTC).isoformat()}."), None),
    # a date, a time of day or a range is no number of seconds
    ({}, openai("Retry after 20-11-2026"), None),
    ({}, openai("try again at 10:30"), None),
    ({}, openai("try again in 5-10 seconds"), None),
    ({}, openai("try again in 1,000 seconds"), None),
    ({}, openai("try again in a few seconds"), None),
    ({}, openai("try again in ..."), None),
    # absurd in a body: nobody said it on purpose
    ({}, openai("Please retry after 86400 seconds."), None),
    ({}, openai("Please try again in 6m0s."), None),
    ({}, openai("Please try again in 1h2m3.5s."), None),
    ({}, {"error": "loading", "estimated_time": 1e9}, None),
    # what is exhausted, and when it fills again
    ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m2s"}, {}, 62.0),
    ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "12ms"}, {}, 0.012),
    ({"x-ratelimit-remaining-tokens": " 0 ", "x-ratelimit-reset-tokens": "55"}, {}, 55.0),
    ({"x-ratelimit-remaining-tokens": "9", "x-ratelimit-reset-tokens": "12s", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "3s"}, {}, 3.0),
    ({"x-ratelimit-remaining-tokens": "9", "x-ratelimit-reset-tokens": "12s"}, {}, None),
    ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, {}, None),
    ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "0"}, {}, None),
    ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "0s"}, {}, None),
    ({"x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "5s"}, {}, None),
    ({"x-rate-limit-reset-tokens": "55", "policy-id": "DeploymentRatelimit-Token"}, {}, 55.0),
    ({"x-ratelimit-reset": str(int(NOW) + 30)}, {}, 30.0),
    ({"x-ratelimit-reset": str((int(NOW) + 26) * 1000)}, {}, 26.0),
    ({"x-ratelimit-reset": "30"}, {}, 30.0),
    ({"x-ratelimit-reset": str(int(NOW) - 30)}, {}, None),
    ({"x-ratelimit-reset": str(int(NOW) + 7200)}, {}, None),
    ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "9s"}, openai("try again in 3s"), 3.0),
    ({}, {}, None),
]  # fmt: skip


@pytest.mark.parametrize(("headers", "body", "seconds"), HINTS, ids=str)
def test_every_form_of_hint(headers, body, seconds):
    """How long to wait, in this order: header, body, message, reset; nothing negative or absurd."""
    error = judged(503, body, headers)

    assert error.retryable is True
    assert error.retry_after == (None if seconds is None else pytest.approx(seconds, abs=1e-3))


def test_the_cap_is_two_minutes():
    """A hint in a body counts up to two minutes and not beyond."""
    assert judged(503, {"estimated_time": CAP}).retry_after == 120.0
    assert judged(503, {"estimated_time": CAP + 1}).retry_after is None


@settings(deadline=None)
@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_durations_are_read_as_go_writes_them(hours, minutes, seconds, ms):
    """12ms, 1s, 6m0s, 1h2m3.5s and all between; a bare number is seconds."""
    total = hours * 3600 + minutes * 60 + seconds + ms / 1000
    text = (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{seconds}.{ms:03}s"

    assert duration(text) == pytest.approx(total)
    assert duration(f"{ms}ms") == pytest.approx(ms / 1000)
    assert duration(str(seconds)) == (seconds or None)


@settings(deadline=None)
@given(st.text(max_size=12))
@example("")
@example("1h-2m")
@example("٣s")
def test_no_text_makes_a_negative_or_endless_duration(text):
    """Junk is no duration; nothing raises."""
    seconds = duration(text)

    assert seconds is None or 0 <= seconds < float("inf")


# --- what it says ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (openai("m", "t", "c"), "m", "c"),
        (openai("m", "t"), "m", "t"),
        (openai("m", None, 400), "m", "400"),
        ({"error": "m"}, "m", None),
        ({"error": ["a", "b"]}, "a; b", None),
        ({"error": "m", "error_type": "Validation"}, "m", "Validation"),
        ({"message": "m", "code": 422, "type": "Validation"}, "m", "422"),
        ({"object": "error", "message": "m", "type": "t", "param": None, "code": 400}, "m", "400"),
        ({"message": "m", "id": "i"}, "m", None),
        ({"Message": "m", "__type": "ThrottlingException"}, "m", "ThrottlingException"),
        ({"detail": "m"}, "m", None),
        ({"detail": "m", "error_code": "TOO_MANY_TOKENS_IN_BATCH"}, "m", "TOO_MANY_TOKENS_IN_BATCH"),
        ({"detail": "d", "errors": [{"field": "input", "message": "m"}]}, "input: m", None),
        ({"errorCode": "BXNIM0415E", "errorMessage": "m"}, "m", "BXNIM0415E"),
        ({"detail": [{"loc": ["body", "texts", 0], "msg": "m", "type": "t"}, {"msg": "n"}]}, "body.texts.0: m; n", "t"),
        ({"errors": [{"code": 3040, "message": "m"}], "success": False}, "m", "3040"),
        ({"errors": [{"code": "invalid", "message": "m"}], "trace": "x", "status_code": 400}, "m", "invalid"),
        ([{"error": {"code": 400, "message": "m", "status": "INVALID_ARGUMENT"}}], "m", "400"),
        ({"error": {"message": "Provider returned error", "metadata": {"raw": '{"error": {"message": "m"}}'}}}, "Provider returned error: m", None),
        ({"error": {"message": "Provider returned error", "metadata": {"raw": "m"}}}, "Provider returned error: m", None),
        ("plain", "plain", None),
        ('"a string"', "a string", None),
        ("", "the server answered 400 with an empty body", None),
        ("{}", "the server answered 400 with no message", None),
        ("[]", "the server answered 400 with no message", None),
        ("<html><title>400\n Bad  Request</title>", "an HTML page instead of JSON: 400 Bad Request", None),
        ("<!DOCTYPE html><p>No <b>title</b></p>", "an HTML page instead of JSON: No title", None),
        (b"\xff\xfe oops", "ÿþ oops", None),
    ],
)  # fmt: skip
def test_message_and_code_of_every_envelope(body, message, code):
    """The provider's words, out of JSON in any known form, plain text, HTML or nothing."""
    error = judged(400, body)

    assert (error.message, error.code) == (message, code)


def test_a_dialects_own_reading_wins():
    """What `explain` makes of a refusal is the message, and is judged as well."""
    error = judged(400, {"odd": "x"}, message="input is too long")

    assert type(error) is TooLongError
    assert error.message == "input is too long"


@pytest.mark.parametrize(
    ("headers", "body", "found"),
    [
        ({"x-request-id": "a", "cf-ray": "b"}, {"request_id": "c"}, "a"),
        ({"request-id": "a"}, "", "a"),
        ({"apim-request-id": "a"}, "", "a"),
        ({"x-amzn-requestid": "a"}, "", "a"),
        ({"x-debug-trace-id": "a"}, {"id": "c"}, "a"),
        ({"mistral-correlation-id": "a"}, "", "a"),
        ({"cf-ray": "b"}, {"request_id": "c"}, "c"),
        ({"cf-ray": "b"}, {"id": "c"}, "c"),
        ({"cf-ray": "b"}, {"trace": "c"}, "c"),
        ({"cf-ray": "b"}, "", "b"),
        ({}, "", None),
        ({"x-request-id": ""}, "", None),
    ],
)
def test_the_request_id_that_support_asks_for(headers, body, found):
    """The provider's own id, in a header or the body; that of the gateway before it only where there is no other."""
    assert judged(500, body, headers).request_id == found


def test_the_code_that_aws_puts_into_a_header():
    """Without the address behind the colon."""
    error = judged(400, {"message": "m"}, {"x-amzn-errortype": "ValidationException:http://internal.amazon.com/"})

    assert error.code == "ValidationException"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_says_where_to(status):
    """A redirect of a POST is not followed: the message names the place and the way out."""
    error = judged(status, "", {"location": "https://elsewhere.example/v1"})

    assert "https://elsewhere.example/v1" in error.message
    assert "base_url" in error.message


def test_long_bodies_are_cut():
    """Message and excerpt stay readable, also where a cut would split a character."""
    error = judged(400, "é" * 100_000)

    assert len(error.message) == len(error.body) == EXCERPT
    assert set(error.body) == {"é"}


# --- nothing breaks it -----------------------------------------------------------------------------------------------

names = st.sampled_from(
    ["error", "errors", "detail", "details", "message", "Message", "code", "type", "status", "loc", "msg", "estimated_time",
     "retryDelay", "metadata", "raw", "id", "trace", "request_id", "warnings", "error_type"]
)  # fmt: skip
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.sampled_from(["429", "²", "10" * 400]),
)
bodies = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5), max_leaves=12
)


@settings(deadline=None)
@given(st.integers(300, 599), bodies | st.binary(max_size=30), st.dictionaries(st.sampled_from(
    ["retry-after", "retry-after-ms", "x-should-retry", "x-ratelimit-reset", "x-ratelimit-remaining-tokens",
     "x-ratelimit-reset-tokens", "x-rate-limit-reset-tokens", "location", "x-request-id"]), st.text(max_size=12)))  # fmt: skip
@example(422, {"detail": [{"loc": 5, "msg": "m"}]}, {})
@example(422, {"detail": [{"loc": None, "msg": "m"}]}, {})
@example(429, {"error": {"message": "Limit " + "9" * 5000 + ", Requested " + "9" * 5001}}, {})
def test_any_refusal_becomes_an_error(status, body, headers):
    """Whatever a server sends, the caller gets one ApiError with a message, and a wait that can be slept."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    error = judged(status, raw, headers)

    assert isinstance(error, ApiError)
    assert error.message
    assert error.retry_after is None or 0 < error.retry_after < float("inf")
    assert isinstance(error.code, (str, type(None)))
    assert isinstance(error.request_id, (str, type(None)))
    assert all(0 <= row < 10**9 for row in error.rows)


@settings(deadline=None)
@given(bodies | st.binary(max_size=30))
def test_any_success_without_vectors_is_nothing_or_an_error(body):
    """The search for an error inside a success never breaks, whatever the body."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    hidden = error_in_success(Response(200, {}, raw))

    assert hidden is None or isinstance(hidden, EmbedkitError)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (
            "Rate limit reached for m on requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again in 7m12s.",
            QuotaError,
        ),
        (
            "Rate limit reached for m on requests per day (RPD): Limit 10000, Used 10000, Requested 1. Please try again in 8.64s.",
            RateLimitError,
        ),
        (
            "Rate limit reached for m on tokens per day (TPD): Limit 100000, Used 99999, Requested 900. Please try again in 13m6s.",
            QuotaError,
        ),
        ("Daily limit reached", QuotaError),
        ("Rate limit reached for m on requests per min (RPM): Limit 3. Please try again in 20s.", RateLimitError),
        ("Rate limit reached for m on requests per min (RPM): Limit 3.", RateLimitError),
    ],
)
def test_an_allowance_of_a_day(words, kind):
    """A daily limit is a quota if it is used up, and a rate limit if it is refilled within seconds."""
    assert type(judged(429, openai(words))) is kind


def test_what_only_a_header_says_of_a_quota():
    """A day's allowance at GitHub Models, and a service quota at AWS, are no passing limits."""
    assert type(judged(429, "", {"x-ratelimit-type": "UserByModelByDay", "retry-after": "24367"})) is QuotaError
    assert type(judged(429, "", {"x-ratelimit-type": "UserByModelByMinute"})) is RateLimitError
    assert type(judged(400, {"message": "m"}, {"x-amzn-errortype": "ServiceQuotaExceededException"})) is QuotaError


def test_an_error_named_inside_a_success():
    """A code that is a failure of HTTP decides; any other makes it a DecodeError with the provider's words."""
    assert type(error_in_success(response({"error": {"message": "m", "code": 503}}))) is ServerError
    assert type(error_in_success(response({"detail": "m"}))) is DecodeError
    assert "m" in str(error_in_success(response({"error": "m"})))
    assert (
        type(error_in_success(response({"success": False, "errors": [{"code": 3040, "message": "m"}]})))
        is RateLimitError
    )
    assert error_in_success(response({"success": True, "errors": [], "result": {}})) is None
    assert error_in_success(response({"error": None, "data": []})) is None
    assert error_in_success(response([])) is None
