"""Recorded traffic, read without embedkit: what was asked, what was answered, and what a caller has to be told of it.

`FOLDERS` switches a folder of recordings on, one line for each; a folder whose host embedkit does not have yet waits. Everything
else here is a plain reading of JSON by the wire reference, kept apart from the package so that the two can disagree.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

KEY = "sk-test-of-recordings"


class Row(NamedTuple):
    """How a folder's recordings are replayed.

    Attributes:
        host: embedkit's name for who answered.
        connect: further keywords of `connect`, or a function of the recording that gives them.
        tokens: its usage counts tokens.
        narrow: `dimensions` goes on the wire (else it is asserted elsewhere that it does not).
        base64: the numpy type inside a string.
        ours: fields that embedkit always sends, or always leaves to the server, whatever the recorded client did.
        route: the recorded path is the one embedkit posts to.
    """

    host: str
    connect: Mapping[str, Any] | Callable[[Any], Mapping[str, Any]] = MappingProxyType({})
    tokens: bool = True
    narrow: bool = True
    base64: str = "<f4"
    ours: tuple[str, ...] = ()
    route: bool = True


def azure(exchange):
    """The resource, and the dated API version of the classic URL, out of a recorded address."""
    parts = urlsplit(re.sub("<[A-Z_]*BASE>", "https://r.openai.azure.com", exchange["request"]["url"]))
    version = parse_qs(parts.query).get("api-version", [None])[0]
    return {"base_url": "https://r.openai.azure.com", **({"api_version": version} if version else {})}


def root(exchange):
    """The recorded address without its route, for hosts that have none of their own."""
    parts = urlsplit(exchange["request"]["url"])
    return {
        "base_url": f"{parts.scheme or 'http'}://{parts.netloc or 'server.example'}{parts.path.removesuffix('/embeddings')}"
    }


OPENAI = ("encoding_format",)  # base64 is asked for where the row says so (wire reference 1.2)
COHERE = ("truncate", "embedding_types", "input_type")  # always said (docs.cohere.com/reference/embed)

# One line switches a folder on. The name on the left is the folder's; the host is embedkit's.
FOLDERS: dict[str, Row] = {
    "azure-ai-foundry": Row("azure", azure, ours=OPENAI),
    "azure-openai": Row("azure", azure, ours=(*OPENAI, "model")),
    "cohere": Row("cohere", ours=COHERE),
    "huggingface": Row("huggingface", {"pooling": "mean"}, route=False),
    "llamacpp": Row("llamacpp", ours=OPENAI),
    "ollama": Row("ollama", ours=("truncate",)),
    "openai": Row("openai", ours=OPENAI),
    "tei": Row("tei", {"base_url": "http://localhost:8080"}),
    "vllm": Row("vllm", ours=OPENAI),
}

# Folders whose host has another name than theirs, hyphens left out.
NAMES = {"voyage-mongodb": "voyage", "zai": "zhipu"}

# Recordings that another host made than their folder says; first match wins.
OTHERS: dict[str, Row] = {
    "cohere/*": Row("cohere", {"base_url": "https://gateway.example/v1"}, ours=COHERE),  # the version before: see `row`
    "huggingface/200-huggingface-js-test-tapes-11.json": Row("compatible", root, ours=OPENAI),  # routed to SambaNova
    "huggingface/fixture-200-semantic-kernel-embeddings-test-response-object.json": Row("compatible", root, ours=OPENAI),
    "ollama/200-llama-stack-6.json": Row(
        "ollama", ours=("truncate",), route=False
    ),  # the address is the recorder's guess, the body that of /api/embed
    "openai/200-proxy-pgai-*": Row("openai", root, ours=OPENAI, route=False),  # a proxy at its root, where embedkit adds /v1
    "openai/200-ruby-openai-babbage-similarity-*": Row(
        "openai", ours=(*OPENAI, "model"), route=False
    ),  # the route before `model`
    "openai/200-langchain-community-testpinecone-*": Row("openai", ours=(*OPENAI, "model"), route=False),
    "vllm/*": Row("vllm", base64="<f8", ours=OPENAI),  # this version put doubles into base64 (exchanges, quirk 1)
}

# Recordings that are not a reply to a request for embeddings of texts, each with its reason. Counted by the test.
ASIDE: dict[str, str] = {
    "cohere/spec-200-v1-tokenize-*": "another route of the provider",
    "tei/spec-200-tokenize-schema.json": "another route of the provider",
    "tei/spec-200-embed-all-schema.json": "another route of the provider",
}

# Examples out of a specification that are no valid reply: they must be refused as such.
BROKEN = (
    "openai/spec-200-embeddings-oai.json",
    "mixedbread/spec-200-v1-embeddings-schema.json",
    "tei/spec-200-v1-embeddings-schema.json",
)


def load(path: Path) -> dict[str, Any]:
    """A recording, its header names in lower case."""
    exchange: dict[str, Any] = json.loads(path.read_text("utf-8"))
    for side in ("request", "response"):
        named = exchange[side]["headers"] or {}
        exchange[side]["headers"] = {
            name.lower(): ", ".join(value) if isinstance(value, list) else str(value) for name, value in named.items()
        }
    exchange["name"] = f"{path.parent.name}/{path.name}"
    return exchange


def row(exchange: Mapping[str, Any]) -> Row | None:
    """How to replay a recording; None: its folder is not switched on."""
    name, route = exchange["name"], urlsplit(exchange["request"]["url"]).path
    folder = name.partition("/")[0]
    if folder in ("ollama", "tei") and route.endswith("/v1/embeddings"):
        return Row("compatible", root, ours=OPENAI)  # their second dialect
    if folder == "ollama" and route.endswith("/api/embeddings") and "prompt" in (as_json(exchange["request"]["body"]) or {}):
        return Row("ollama", {"legacy": True}, ours=("truncate",))
    if folder == "cohere" and not route.startswith("/v1/"):
        return FOLDERS[folder]
    found = next((line for pattern, line in OTHERS.items() if fnmatch(name, pattern)), None)
    return found or FOLDERS.get(folder)


def host_of(folder: str) -> str:
    """The name embedkit has for a folder's provider, by the rule of names."""
    return FOLDERS[folder].host if folder in FOLDERS else NAMES.get(folder, folder.replace("-", ""))


def as_json(text: Any) -> Any:
    """The JSON in a text; None where it holds none."""
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return None


# --- what was asked ----------------------------------------------------------------------------------------------------

MEANINGS = {
    "search_document": "document", "search_query": "query", "classification": "classification", "clustering": "clustering",
    "document": "document", "query": "query", "passage": "document",
    "RETRIEVAL_DOCUMENT": "document", "RETRIEVAL_QUERY": "query",
}  # fmt: skip


class Asked(NamedTuple):
    """The recorded request: `texts` is None where it holds no list of texts that can be read."""

    model: str
    texts: list[str] | None
    options: dict[str, Any]
    body: dict[str, Any]


def asked(exchange: Mapping[str, Any]) -> Asked:
    """The recorded request, whatever its dialect."""
    request = exchange["request"]
    body = as_json(request["body"])
    body = body if isinstance(body, dict) else {}
    first: dict[str, Any] = next(iter(body.get("requests") or body.get("instances") or ()), {})
    fields = {**(body.get("parameters") or {}), **(body.get("singleEmbeddingParams") or {}), **first, **body}
    width = next((fields[name] for name in ("dimensions", "output_dimension", "outputDimensionality", "embeddingDimension")
                  if isinstance(fields.get(name), int)), None)  # fmt: skip
    kind = next(iter(fields.get("embedding_types") or ()), fields.get("output_dtype"))
    cut = fields.get("truncate", fields.get("truncation"))
    options = {
        "dimensions": width,
        "input_type": MEANINGS.get(str(fields.get("input_type") or fields.get("task_type") or fields.get("taskType"))),
        "dtype": kind if kind in ("int8", "uint8", "binary", "ubinary") else None,
        "truncate": "end" if cut is True or cut == "END" else None,
    }
    route = unquote(urlsplit(request["url"]).path)
    placed = re.search(
        r"(?:models?|deployments|engines|feature-extraction)/([^:]+?)(?::\w+|/(?:embeddings|invoke|pipeline).*)?$", route
    )
    model = placed[1] if placed and "deployments" in route else body.get("model") or (placed[1] if placed else "")
    return Asked(model or "a-model", _texts(body), {name: value for name, value in options.items() if value}, body)


def _texts(body: Mapping[str, Any]) -> list[str] | None:
    given = next((body[name] for name in ("input", "texts", "inputs", "prompt", "inputText") if name in body), None)
    if given is None:
        contents = [each.get("content") for each in body.get("requests", ())] or [body.get("content")]
        given = [
            "".join(part.get("text", "") for part in each.get("parts", ())) for each in contents if isinstance(each, dict)
        ] or [each.get("content") for each in body.get("instances", ())]
    given = [given] if isinstance(given, str) else given
    return given if given and all(isinstance(text, str) for text in given) else None


# --- what was answered -------------------------------------------------------------------------------------------------


class Answered(NamedTuple):
    """The recorded reply: one array per text, in the order of `index`."""

    vectors: list[Any]
    tokens: int | None
    model: str | None


def answered(exchange: Mapping[str, Any], how: Row) -> Answered:
    """The recorded reply, whatever its dialect."""
    body = json.loads(exchange["response"]["body"])
    vectors = [
        np.frombuffer(base64.b64decode(each), how.base64) if isinstance(each, str) else np.array(each) for each in listed(body)
    ]
    vectors = [each.reshape(-1, each.shape[-1]).mean(axis=0) if each.ndim > 1 else each for each in vectors]
    model = body.get("model") if isinstance(body, dict) else None
    return Answered(vectors, counted(body, exchange["response"]["headers"]) if how.tokens else None, model)


def listed(body: Any) -> list[Any]:
    """The vectors of a reply as they stand there: one per text."""
    if isinstance(body, list):
        return body if isinstance(body[0], list) else [body]
    if "data" in body:
        return [item["embedding"] for item in sorted(body["data"], key=lambda item: item.get("index") or 0)]
    if "predictions" in body:
        return [each["embeddings"]["values"] for each in body["predictions"]]
    found = body["embeddings"] if "embeddings" in body else [body["embedding"]]
    found = next(iter(found.values())) if isinstance(found, dict) else found
    return [each if isinstance(each, (list, str)) else each.get("values", each.get("embedding")) for each in found]


def counted(body: Any, headers: Mapping[str, str]) -> int | None:
    """The tokens a reply reports, in its body or in a header; None: it does not."""
    for name in ("x-compute-tokens", "x-amzn-bedrock-input-token-count"):
        if name in headers:
            return int(headers[name])
    if not isinstance(body, dict):
        return None
    usage = body.get("usage") or {}
    if "predictions" in body:
        each = [one["embeddings"].get("statistics", {}).get("token_count") for one in body["predictions"]]
        return None if None in each else int(sum(each))
    places = (
        usage.get("prompt_tokens"), usage.get("total_tokens"), body.get("prompt_eval_count"), body.get("inputTextTokenCount"),
        ((body.get("meta") or {}).get("billed_units") or {}).get("input_tokens"),
        (body.get("usageMetadata") or {}).get("promptTokenCount"),
    )  # fmt: skip
    return next((int(place) for place in places if place is not None), None)


# --- what was refused --------------------------------------------------------------------------------------------------

# The class a status means by itself (wire reference 7.1) …
STATUS = {
    400: "InvalidInputError", 401: "AuthError", 402: "QuotaError", 403: "AuthError", 404: "NotFoundError", 405: "NotFoundError",
    408: "ApiError", 409: "ApiError", 413: "TooLargeError", 415: "ApiError", 421: "NotFoundError", 422: "InvalidInputError",
    424: "ServerError", 429: "RateLimitError", 500: "ServerError", 501: "ServerError", 502: "ServerError", 503: "ServerError",
    504: "ServerError",
}  # fmt: skip

# … and the refusals that say something else. Read one by one.
SAYS: dict[str, str] = {
    # 429 that no waiting cures: no credit, or a request larger than the limit (1.5)
    "openai/429-huggingface-js-test-tapes.json": "QuotaError",
    "openai/429-ruby-llm-chat-real-error-*": "TooLargeError",
    # a key is refused whatever the status (part 2, section 5; the specification repeats one body under every status)
    "gemini/400-crewai-test-google-streaming-returns-usage-metrics.json": "AuthError",
    "gemini/400-langchaingo-testgoogleaierrorhandling.json": "AuthError",
    "gemini/400-newrelic-python-agent-cassette.json": "AuthError",
    "gemini/400-req-llm-embed-batch.json": "AuthError",
    "jina/spec-*": "AuthError",
    # the batch is too large
    "cohere/400-ruby-llm-chat-real-error-*": "TooLargeError",
    "jina/quoted-400-issue-list-too-long.json": "TooLargeError",
    "mistral/400-rig-capability-edges-*": "TooLargeError",
    "tei/spec-413-*": "TooLargeError",
    # one text is too long
    "bedrock/400-ruby-llm-chat-real-error-*": "TooLongError",
    "gemini/400-ruby-llm-chat-real-error-*": "TooLongError",
    "llamacpp/400-rig-error-matrix-context-overflow-blocking.json": "TooLongError",
    "llamacpp/500-rig-error-matrix-embeddings-input-past-the-batch.json": "TooLongError",
    "ollama/400-pgai-ollama-*": "TooLongError",
    "ollama/400-ruby-llm-chat-real-error-*": "TooLongError",
    "ollama/quoted-400-issue-context-length.json": "TooLongError",
    "openai/400-pgai-test-document-in-batch-too-long.json": "TooLongError",
    "openai/400-ruby-llm-chat-real-error-*": "TooLongError",
    "openrouter/400-ruby-llm-chat-real-error-*": "TooLongError",
    "perplexity/400-ruby-llm-chat-real-error-*": "TooLongError",
    "tei/quoted-413-*": "TooLongError",
    "vertex/400-ruby-llm-chat-real-error-*": "TooLongError",
    "voyage/400-pgai-*": "TooLongError",
    # the model does not exist, or not for this account (exchanges, quirk 15)
    "bedrock/400-openinference-should-handle-streaming-errors.json": "NotFoundError",
    "bedrock/403-langchaingo-testbedrockanthropictoolcalling.json": "NotFoundError",
    "bedrock/403-openinference-should-handle-mistral-pixtral-models.json": "NotFoundError",
    "hyperbolic/400-huggingface-js-test-tapes.json": "NotFoundError",
    "mistral/400-ai-bad-request-response.json": "NotFoundError",
    "mistral/400-rig-embedding-matrix-error-preserves-provider-body.json": "NotFoundError",
    "openai/400-newrelic-python-agent-cassette.json": "NotFoundError",
    "openai/403-dd-trace-js-*": "NotFoundError",
    "openrouter/400-rig-*": "NotFoundError",
    "perplexity/400-langchaingo-testperplexitytool.json": "NotFoundError",
    "voyage/400-pydantic-ai-testvoyageai-test-embed-error.json": "NotFoundError",
    # a text that gives NaN is a bad text, not an outage
    "ollama/quoted-500-issue-nan.json": "InvalidInputError",
}

# Seconds the provider asks to wait (table 7.1); everywhere else: none.
WAITS: dict[str, float] = {
    "azure-ai-foundry/429-*": 1.0,  # retry-after: 1 beside retry-after-ms: 0
    "cerebras/429-*": 0.66,
    "gemini/429-ruby-llm-chat-*-errors-2.json": 22.0,
    "gemini/429-ruby-llm-chat-*-errors.json": 48.0,
    "groq/429-*": 7.0,
    "huggingface/500-pydantic-ai-*": 1.0,
    "huggingface/503-huggingface-hub-testinferenceclient-test-document-*": 32.13720703125,
    "huggingface/503-huggingface-hub-testinferenceclient-test-token-classification-*": 53.3741569519043,
    "huggingface/503-huggingface-hub-*": 20.0,
    "huggingface/503-huggingface-js-test-tapes-4.json": 0.0,  # "overloaded", without an estimate
    "huggingface/503-huggingface-js-*": 20.0,
    "openai/429-dd-trace-py-lcel-openai-chain-batch.json": 20.0,
    "openrouter/429-langchaingo-testopenrouterstreaming.json": 26.0,  # x-ratelimit-reset, in milliseconds, less the Date of the reply
    "openrouter/429-req-llm-multi-tool-2.json": 13.0,
}


class Refused(NamedTuple):
    """What a caller has to be told of a refusal."""

    kind: str
    said: list[str]
    code: str | None
    request_id: str | None
    retryable: bool
    wait: float | None


def refused(exchange: Mapping[str, Any]) -> Refused:
    """What a caller has to be told, by the tables above and a plain reading of the body."""
    answer, name = exchange["response"], exchange["name"]
    kind = found(SAYS, name) or STATUS[answer["status"]]
    said, code, inner = saying(answer["body"])
    ids = (*(answer["headers"].get(header) for header in IDS), inner, answer["headers"].get("cf-ray"))
    retryable = kind == "RateLimitError" or (kind in ("ServerError", "ApiError") and answer["status"] not in (415, 501))
    return Refused(
        kind, said, errortype(answer["headers"]) or code, next(filter(None, ids), None), retryable, found(WAITS, name) or None
    )


IDS = ("x-request-id", "apim-request-id", "x-amzn-requestid", "x-debug-trace-id", "mistral-correlation-id")


def errortype(headers: Mapping[str, str]) -> str | None:
    """AWS names the error in a header, with an address behind a colon."""
    return headers.get("x-amzn-errortype", "").partition(":")[0] or None


def found(table: Mapping[str, Any], name: str) -> Any:
    """The entry of the first pattern that matches."""
    return next((value for pattern, value in table.items() if fnmatch(name, pattern)), None)


def saying(text: str) -> tuple[list[str], str | None, str | None]:
    """(what the provider says, its code, its request id) out of a refusal's body."""
    body: Any = as_json(text)
    body = body[0] if isinstance(body, list) else body
    if not isinstance(body, dict):
        plain = re.search("<title>(.*?)</title>", text) or re.search(
            '"message": "(.*?)"', text
        )  # a page; a list with a comma too many
        return [plain[1] if plain else text.strip()], None, None
    inner = next((body[name] for name in ("error", "detail") if body.get(name)), None)
    whole: dict[str, Any] = inner if isinstance(inner, dict) else {}
    outer = next((body[name] for name in ("message", "Message") if name in body), None)
    said = whole.get("message") or outer or inner
    texts = [str(each["msg"]) if isinstance(each, dict) else str(each) for each in (said if isinstance(said, list) else [said])]
    if (relayed := (whole.get("metadata") or {}).get("raw")) is not None:
        texts += saying(relayed)[0]  # OpenRouter hands on what the provider behind it said
    codes = [
        whole.get("code"), body.get("code"), body.get("error_code"), whole.get("type"), whole.get("status"),
        body.get("error_type"), body.get("type"), body.get("__type"),
    ]  # fmt: skip
    if isinstance(inner, list) and isinstance(inner[0], dict):
        codes = [inner[0].get("code"), inner[0].get("type")]
    code = next((str(each) for each in codes if each not in (None, "")), None)
    return texts, code, body.get("request_id") or body.get("id")
