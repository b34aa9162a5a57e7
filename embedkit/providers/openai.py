"""OpenAI, and the hosts that speak its dialect. https://platform.openai.com/docs/api-reference/embeddings/create

Compatible servers differ in small ways, and each difference is a field of `Dialect` that a host's row sets: the name of the width
field, whether base64 may be asked for, what can be truncated. Replies are taken as they come: floats or base64, with or without
`index` and `usage` (wire reference 0.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from .._types import Limits, Options, Reply, Request, Response
from ..codec import (
    JSON,
    Codec,
    Host,
    Out,
    Parameter,
    Target,
    bearer,
    compact,
    listing,
    matrix,
    meanings,
    only,
    prefixed,
    read,
    to_json,
    with_headers,
)
from ..errors import ConfigError


class Dialect(msgspec.Struct, frozen=True):
    """The OpenAI dialect.

    Attributes:
        encoding: what `encoding_format` asks for; None: the field is not sent.
        width_field: the name of the field for `dimensions`; None: this host has none.
        counts_tokens: its usage counts tokens.
        cut_field, cut_value: what to send for `truncate="end"`; None: it cannot be asked to cut.
        refuses: it refuses an over-long text rather than cutting it.
        send_model: the body names the model.
    """

    target: Target
    encoding: str | None = "base64"
    width_field: str | None = "dimensions"
    counts_tokens: bool = True
    cut_field: str | None = None
    cut_value: Any = None
    refuses: bool = False
    send_model: bool = True

    @property
    def limits(self) -> Limits:
        return self.target.host.limits

    @property
    def sends_dimensions(self) -> bool:
        """False where a narrower vector has to be cut on the client."""
        facts = self.target.facts
        return self.width_field is not None and (facts is None or facts.dimensions is None or bool(facts.widths))

    def encode(self, texts: Sequence[str], options: Options) -> Request:
        target, facts = self.target, self.target.facts
        cuts = (*(("end",) if self.cut_field else ()), *(("error",) if self.refuses else ()))
        only(options, target.host.name, dtype=("float32",), truncate=cuts, input_type=meanings(facts))
        body = compact(
            input=prefixed(texts, options, facts),
            model=target.model if self.send_model else None,
            encoding_format=self.encoding,
        )
        if options.dimensions is not None and self.width_field is not None:
            body[self.width_field] = options.dimensions
        if options.truncate == "end" and self.cut_field is not None:
            body[self.cut_field] = self.cut_value
        return Request(target.url("/embeddings"), to_json({**body, **options.extra}), JSON)

    def decode(self, response: Response, options: Options, count: int, out: Out | None = None) -> Reply:
        vectors, model, tokens = listing(response, count)
        return Reply(matrix(vectors, options, count, out), model, tokens if self.counts_tokens else None)

    def explain(self, response: Response) -> str:
        return read(response).message

    def learn(self, response: Response) -> Codec:
        """A server that refuses base64 is asked for its default from then on (vllm-project/vllm#6174)."""
        if self.encoding is None or response.status not in (400, 422, 500):
            return self
        refused = any(word in read(response).message.lower() for word in ("encoding_format", "base64", "encoding format"))
        return msgspec.structs.replace(self, encoding=None) if refused else self


def _organised(request: Request, credentials: Mapping[str, str], now: float) -> Request:
    """OpenAI: the key, and the organisation and project it is billed to (wire reference 1.1)."""
    names = {"organization": "openai-organization", "project": "openai-project"}
    more = {header: credentials[name] for name, header in names.items() if credentials.get(name)}
    return with_headers(bearer(request, credentials, now), more)


def _azure_key(request: Request, credentials: Mapping[str, str], now: float) -> Request:
    """Azure: an Entra token as Bearer, a key as `api-key` (wire reference 1A.1, 1A.2)."""
    if token := credentials.get("ad_token"):
        if credentials.get("api_key"):
            msg = "azure takes api_key or ad_token, not both"
            raise ConfigError(msg)
        return bearer(request, {"api_key": token}, now)
    key = credentials.get("api_key")
    return with_headers(request, {"api-key": key}) if key else request


def _azure_url(base_url: str, target: Target) -> str:
    """Azure's two URL families (wire reference 1A.1): a dated api_version puts the deployment in the path, else the v1 API."""
    base = base_url.rstrip("/")
    version = target.parameters.get("api_version")
    if "/openai/deployments/" in base:
        return f"{base}?api-version={version}" if version and "?" not in base else base
    root = base.partition("/openai")[0]
    if version is None or version in ("v1", "preview", "latest"):
        path = base if urlsplit(base).path.rstrip("/") else f"{root}/openai/v1"
        return f"{path}?api-version={version}" if version in ("v1", "preview") else path
    return f"{root}/openai/deployments/{quote(target.model, safe='')}?api-version={version}"


_OPENAI = Limits(max_texts=2048, max_tokens=250_000, max_text_tokens=8191)  # of 300,000: the count is an estimate (7.3)

HOSTS = (
    Host(
        name="openai", dialect=Dialect, base_url="https://api.openai.com/v1", segment="/v1", keys=("OPENAI_API_KEY",),
        key_required=True, domains=("api.openai.com",), url_variables=("OPENAI_BASE_URL",), authorise=_organised,
        parameters={
            "organization": Parameter(("OPENAI_ORG_ID",), secret=True, help="organisation to bill, org-…"),
            "project": Parameter(("OPENAI_PROJECT_ID",), secret=True, help="project to bill, proj_…"),
        },
        quirks={"refuses": True}, limits=_OPENAI,
    ),
    Host(
        name="azure", dialect=Dialect, segment="/openai/v1", keys=("AZURE_OPENAI_API_KEY",), key_required=True,
        domains=("openai.azure.com", "cognitiveservices.azure.com", "services.ai.azure.com"),
        url_variables=("AZURE_OPENAI_ENDPOINT",), locate=_azure_url, authorise=_azure_key, catalogue="openai",
        parameters={
            "api_version": Parameter(("OPENAI_API_VERSION",), help="a dated version selects the classic URL, e.g. 2024-10-21"),
            "ad_token": Parameter(("AZURE_OPENAI_AD_TOKEN",), secret=True, help="Entra token, or a callable giving one"),
        },
        quirks={"refuses": True}, limits=_OPENAI,
    ),
    Host(name="compatible", dialect=Dialect, segment="/v1", limits=Limits(max_texts=32), accepts_empty=True),
    # LocalAI: dimensions are ignored, usage is absent since 4.2.5, and a first request may load the model (5A).
    Host(
        name="localai", dialect=Dialect, base_url="http://localhost:8080/v1", segment="/v1", limits=Limits(max_texts=32),
        quirks={"width_field": None}, timeout=600.0, down="is LocalAI running?",
    ),
    # vLLM: nothing is cut unless asked; -1 means the model's own maximum (5B).
    Host(
        name="vllm", dialect=Dialect, base_url="http://localhost:8000/v1", segment="/v1", limits=Limits(max_texts=128),
        quirks={"cut_field": "truncate_prompt_tokens", "cut_value": -1, "refuses": True}, accepts_empty=True,
        timeout=600.0, down="is vLLM running?",
    ),
    # llama.cpp: dimensions are ignored (5C); over-long texts are refused, some of them with a 500.
    Host(
        name="llamacpp", dialect=Dialect, base_url="http://localhost:8080/v1", segment="/v1", limits=Limits(max_texts=32),
        quirks={"width_field": None, "refuses": True}, accepts_empty=True, timeout=600.0, down="is llama-server running?",
    ),
    # LM Studio answers floats to base64, ignores dimensions (5F).
    Host(
        name="lmstudio", dialect=Dialect, base_url="http://localhost:1234/v1", segment="/v1", limits=Limits(max_texts=32),
        quirks={"width_field": None, "encoding": "float"}, timeout=600.0, down="is LM Studio's server running?",
    ),
    # Infinity has no /v1 unless started with a prefix, cuts over-long texts, and counts characters as tokens (5D).
    Host(
        name="infinity", dialect=Dialect, base_url="http://localhost:7997", limits=Limits(max_texts=2048),
        quirks={"counts_tokens": False}, accepts_empty=True, timeout=600.0, down="is Infinity running?",
    ),
)  # fmt: skip
