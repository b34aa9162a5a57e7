"""Turns a refusal into the one error that says whether to try again, after how long, and whose fault it is.

Providers agree on little: a batch that is too large is answered with 400, 413, 422 or 429, and an account without
credit with the status of a passing rate limit. This module tells them apart, for every dialect. Pure: `now` (Unix
seconds) is an argument. It runs on failures only, so it is plain and complete rather than fast.
"""

from __future__ import annotations

import re

from .._types import CAP, Response, safe_url
from ..errors import (
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
from .error_body import EXCERPT, ErrorBody, failed, fine, has_vectors, read_error_body, shortened, text_of_body
from .retry_after import _until, retry_after

# A request that is too large as a whole and has to be split, in the words of OpenAI, Cohere, TEI, Voyage, Jina …
_TOO_LARGE = (
    r"max_tokens_per_request|max \d+ tokens per request|maximum allowed batch size|batch size error"
    r"|number of texts must be at most|split into more batches|tokens in batch|max allowed tokens per submitted batch"
    r"|TOO_MANY_TOKENS|requests can be in one batch|allowed per prediction|batch size is invalid"
    r"|can contain at most \d+ items|larger than the largest allowed size|should have at most \d+ items"
    r"|payload too large|length limit exceeded|request entity too large|body (is )?too large"
    r"|array too long|too many inputs"
)
# What one request may hold, in the words of those that name a number.
_N = r"(\d[\d,]{0,14})"
_MOST_TEXTS = (
    rf"texts must be at most {_N}|maximum allowed batch size {_N}|at most {_N} (?:requests|items|inputs|texts)"
    rf"|{_N} instance\(?s?\)? (?:is|are) allowed per prediction|should not be larger than {_N}"
    rf"|largest allowed size {_N}|maximum length {_N}"
)
_MOST_TOKENS = (
    rf"max(?:imum)? {_N} tokens per request|max allowed tokens per submitted batch is {_N}|Limit:? {_N}.*?Requested"
    rf"|tokens in batch\. Max is {_N}"
)
# The tokens that a quota allows in its time: OpenAI ("on tokens per min (TPM): Limit 10000, Used 9000, Requested
# 3000"), Voyage ("10K TPM").
_GRANTED = (rf"\bLimit:? {_N}\b", r"(\d[\d,.]{0,14}) ?([KM]?) ?TPM\b")
# Too much of what, in the order asked: TEI is "overloaded" by texts in flight; OpenAI, Cohere and Jina name tokens.
_ABOUT = {
    "concurrency": r"overloaded|concurren",
    "tokens": r"tokens? per min|\bTPM\b|token rate limit|RATE_TOKEN|\btokens\b",
}
# One text that is too long. llama.cpp and Ollama's older route say so with a 500, which is then no outage.
_TOO_LONG = (
    r"maximum context length|maximum input length|exceeds? (the |maximum |available )*context|exceed_context_size"
    r"|must have less than \d+ (tokens|characters)|longer than the model's context|too many input tokens"
    r"|too large to process|exceeds maximum allowed token size|expected maxLength|input is too long|too long"
    r"|string_too_long|exceeds? (the )?maximum (length|number of tokens)|does not fit into the model's context"
    r"|context_length_exceeded|should have at most \d+ characters"
)
_QUOTA = (
    r"insufficient_quota|credit_balance_exhausted|spend_limit_exceeded|usage_limit_exceeded|billing_hard_limit"
    r"|INSUFFICIENT_BALANCE|insufficient (credit|balance|funds)|exceeded your (current quota|monthly included credits)"
    r"|balance is insufficient"  # SiliconFlow, a 403
    r"|\bArrearage\b"  # DashScope, a 400
    r"|^1113\b"  # Zhipu's code, a 429
    r"|ServiceQuotaExceeded"  # Bedrock, a 400 (API_runtime_InvokeModel, Errors)
)
_DAILY = r"per[_ ]?day|\b[RT]PD\b|\bdaily\b"
_KEY = r"API_KEY_INVALID|api key not valid|invalid api key|incorrect api key|invalid_api_key"
_MODEL = r"(from|to|access( to)?) this model|model_not_found|no access to model"
# A code that says whose fault a 403 is, whatever its words say of a model: AWS's AccessDeniedException, "You don't
# have access to the model with the specified model ID", is about the account.
_DENIED = r"denied|permission|forbidden|unauthori[sz]ed|not ?authorized"
# No such model, under another status than 404: Hugging Face's router, Mistral, Perplexity, Infinity, Voyage,
# OpenRouter, Bedrock, Hyperbolic, in this order; Jina's code ends like OpenAI's.
_ABSENT = (
    r"model not supported by provider|invalid[_ ]model\b|model_not_found|model \S+ is not supported\. Supported models"
    r"|model \S+ does not exist|is not a valid model ID|model identifier is invalid|allowed now, your model"
)
# A model that is not in memory yet: llama.cpp ("Loading model"), Hugging Face, LocalAI, vLLM behind a proxy.
_LOADING = (
    r"\bloading\b|model_loading|\bwarm(ing|s)?[ -]?up\b|(model|server) (is )?(not (yet )?(ready|loaded)|starting)"
    r"|still (starting|loading)"
)
_NAN = r"unsupported value: NaN"  # Ollama's 500 for a text that it makes NaN of: halving finds the text
_ROW = (
    r"(?:input|inputs|texts)\[(\d{1,9})\]|at index (\d{1,9})\b|#/texts/(\d{1,9})\b"
    r"|body\.(?:text\.)?(?:input|inputs|texts)\.(?:list\[[^\]]*\]\.)?(\d{1,9})\b"
)
_RETRYABLE = frozenset({408, 409, 425, 429, 424, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
_SERVER = 500
_BUSY = 503
_ELSEWHERE = (404, 405, 410, 421)  # of a wrong URL, or of a model that is not there
# The status that a code in a success stands for. Codes are compared in small letters, without what joins their words.
_REFUSED_KEY = (
    r"unauth|forbidden|authfail|authinvalid|^auth\w*(error|exception|required)$|permission|accessdenied|loginrequired"
    r"|invalid(api|access|auth|security|bearer)*(key|token|credential|signature)s?$"
    r"|(api|access)(key|token)(is)?(invalid|expired|missing)"
)
_NAMED = (
    (401, _REFUSED_KEY),
    (429, r"ratelimit|toomanyrequest|throttl|requestlimit|ratequota|resourceexhausted|^3040$"),  # 3040: Cloudflare
    (402, r"insufficient|quotaexceed|outofcredit|billing|arrear|paymentrequired|balance"),
    (404, r"(model|route|resource)notfound|^notfound(error)?$"),
    (503, r"unavailable|overloaded|serverbusy|^internal(server)?error$|^servererror$"),
)  # fmt: skip


def error_from_response(response: Response, *, provider: str, model: str, message: str, now: float) -> ApiError:
    """The error of a response whose status is not 2xx. `message` is the dialect's own reading (`explain`)."""
    refusal = read_error_body(response)
    status = response.status
    says = " ".join(filter(None, (_errortype(response), refusal.code, refusal.kind, message or refusal.message)))
    kind = _kind(status, says, refusal, _errortype(response))
    if status == 429 and re.search(r"ByDay\b", says + " " + response.headers.get("x-ratelimit-type", "")):
        kind = QuotaError  # GitHub Models, `UserByModelByDay`: its retry-after is hours
    told = retry_after(response, says, refusal.body, now)
    soon = "retry-after" in response.headers or (told is not None and told <= CAP)
    if kind is RateLimitError and not soon and re.search(_DAILY, says, re.IGNORECASE):
        kind = QuotaError  # of a day, and no hint that it is refilled sooner
    should = response.headers.get("x-should-retry")
    retryable = (status in _RETRYABLE and issubclass(kind, (ServerError, RateLimitError))) or _passing(status, kind)
    if should in ("true", "false") and kind is not QuotaError:
        retryable = should == "true"
    named = {int(next(filter(None, found.groups()))) for found in re.finditer(_ROW, says)}
    error = kind(
        _worded(message or refusal.message, response),
        status=status,
        code=_errortype(response) or refusal.code or refusal.kind or None,
        provider=provider,
        model=model,
        request_id=_request_id(response, refusal),
        retryable=retryable,
        retry_after=told if retryable else None,
        # Of several rows, any may be at fault.
        rows=named if len(named) == 1 and issubclass(kind, InvalidInputError) else (),
        body=text_of_body(response)[:EXCERPT],
    )
    if isinstance(error, RateLimitError):
        error.about = next((what for what, words in _ABOUT.items() if re.search(words, says, re.IGNORECASE)), None)
        error.max_tokens = _granted(says) if error.about == "tokens" else None
    if isinstance(error, ServerError):
        error.loading = status == _BUSY and re.search(_LOADING, says, re.IGNORECASE) is not None
    if isinstance(error, TooLargeError):
        error.max_texts, error.max_tokens = _figure(_MOST_TEXTS, says), _figure(_MOST_TOKENS, says)
    return error


def _figure(pattern: str, says: str) -> int | None:
    found = re.search(pattern, says, re.IGNORECASE)
    return int(next(filter(None, found.groups())).replace(",", "")) or None if found else None


def error_in_success(response: Response) -> EmbedkitError | None:
    """The error hidden in a success: the one its own code names, else a DecodeError; None when the body names no error.

    Beside vectors only what is called an error is one; without vectors any words are the reason.
    """
    refusal = read_error_body(response)
    body, message = refusal.body, "" if fine(refusal.message) else refusal.message
    if not isinstance(body, dict) and (not isinstance(body, str) or message == body):
        return None  # no JSON, or nothing but vectors or words: the caller, who cannot read it, shows it
    called = isinstance(body, dict) and not all(map(fine, map(body.get, ("error", "errors", "err"))))
    named = _named(refusal)
    if not called and (has_vectors(body) or not (message or named or failed(body))):
        return None
    if named is None:
        return DecodeError(f"status {response.status}, but the body is an error: {_said(message, response)}")
    now = _until(response.headers.get("date", ""), 0.0) or float("inf")  # without it a date in the headers is no hint
    return error_from_response(
        type(response)(named, response.headers, response.body), provider="", model="", message=message, now=now
    )


def _named(refusal: ErrorBody) -> int | None:
    """The status that a body names by its code or kind, or by the few words that no other failure has."""
    if re.search(_QUOTA, f"{refusal.code} {refusal.kind}"):
        return 429
    for said in (refusal.code, refusal.kind):
        if re.fullmatch("[45][0-9][0-9]", said):
            return int(said)
        plain = re.sub(r"[\W_]", "", said).lower()
        if found := next((status for status, words in _NAMED if re.search(words, plain)), None):
            return found
    if re.search(_QUOTA, refusal.message):
        return 402
    return 401 if re.search(_KEY, refusal.message, re.IGNORECASE) else None


def with_url(error: ApiError, url: str) -> ApiError:
    """The error of a request to this URL. If nothing is found there, the message names it, without user and query."""
    if error.status in _ELSEWHERE:
        error.message = f"{error.message}; asked at {safe_url(url)}"
        error.args = (error.message,)
    return error


# One question a line, in the order in which they are asked.
def _kind(status: int, says: str, refusal: ErrorBody, errortype: str) -> type[ApiError]:  # noqa: C901, PLR0911
    def match(pattern: str) -> bool:
        return re.search(pattern, says, re.IGNORECASE) is not None

    if status == 401:  # Perplexity's text for a refused key mentions credits too
        return AuthError
    if (
        status == 402
        or (match(_QUOTA) and refusal.kind != "RESOURCE_EXHAUSTED")
        or (status == 429 and match(r"\bmonth(ly)?\b"))
    ):
        return QuotaError  # Google says "exceeded your current quota" of a quota per minute
    if match(_KEY):
        return AuthError
    if status == 403:
        denied = re.search(_DENIED, f"{errortype} {refusal.code} {refusal.kind}", re.IGNORECASE)
        return NotFoundError if match(_MODEL) and not denied else AuthError
    if status in _ELSEWHERE or (status in (400, 422) and match(_ABSENT)):
        return NotFoundError
    if status == 429:
        return TooLargeError if _impossible(says) else RateLimitError
    if match(_TOO_LARGE):
        return TooLargeError
    if match(_TOO_LONG) and (status in (400, 413, 422) or (status >= _SERVER and status != 503)):
        return TooLongError
    if status == 413 and refusal.kind.lower() != "validation":  # TEI before 1.9: 413 for all that is invalid
        return TooLargeError
    if status in (400, 413, 422, 498) or match(_NAN):  # 498: Cohere blocks an unsafe text
        return InvalidInputError
    return ServerError if status >= _SERVER or status == 424 else ApiError


def _passing(status: int, kind: type[ApiError]) -> bool:
    return kind is ApiError and status in (408, 409, 425)


def _impossible(says: str) -> bool:
    """Whether waiting cannot cure a 429: the request alone exceeds the limit ("Limit 30000, Requested 31538")."""
    found = re.search(rf"\bLimit:? {_N}\b.*?\bRequested:? {_N}\b", says, re.IGNORECASE)
    return found is not None and _whole(found[2]) > _whole(found[1])


def _granted(says: str) -> int | None:
    if (most := _figure(_GRANTED[0], says)) is not None:
        return most
    found = re.search(_GRANTED[1], says)
    number = found[1].rstrip(",.").replace(",", "") if found is not None else ""
    if found is None or number.count(".") > 1:
        return None
    return int(float(number) * {"K": 1_000, "M": 1_000_000}.get(found[2], 1)) or None


def _whole(figure: str) -> int:
    return int(figure.replace(",", ""))


def _worded(message: str, response: Response) -> str:
    if 300 <= response.status < 400 and (where := response.headers.get("location")):
        followed = "redirects of a POST are not followed: set base_url to the final address"
        return f"the server redirects to {where}; {followed}"
    if message:
        return message[:EXCERPT]
    if not response.body:
        return f"the server answered {response.status} with an empty body"
    shown = _said("", response)
    return f"the server answered {response.status} with no message" + (
        f": {shown}" if shown not in ("{}", "[]", "null") else ""
    )


def _said(message: str, response: Response) -> str:
    return message[:EXCERPT] or shortened(text_of_body(response))


def _errortype(response: Response) -> str:
    """The name of an error of AWS, in a header: what comes before a colon and an address."""
    return response.headers.get("x-amzn-errortype", "").partition(":")[0]


def _request_id(response: Response, refusal: ErrorBody) -> str | None:
    names = (
        "x-request-id", "request-id", "apim-request-id", "x-amzn-requestid", "x-debug-trace-id",
        "mistral-correlation-id", "x-trace-id", "x-ms-request-id",
    )  # fmt: skip
    for name in names:
        if found := response.headers.get(name):
            return found
    body = refusal.body if isinstance(refusal.body, dict) else {}
    given = (body.get(name) for name in ("request_id", "trace", "id"))
    own = next(
        (str(each) for each in given if isinstance(each, (str, int)) and not isinstance(each, bool) and each != ""), ""
    )
    return own or response.headers.get("cf-ray") or None  # Cloudflare's own id last
