"""Hosts that speak the OpenAI dialect: rows, no code of their own. `compatible` itself is any other server, found by
`base_url=`.

If no page names a limit, a row takes few texts; if none documents `encoding_format`, it is not sent. What a host has
no field for (a width, a type, an input type) is done on the client.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from .._types import Limits
from ..codec import Host, Parameter, Target
from ..errors import ConfigError
from .openai import OpenAI

FEW = Limits(max_texts=32)  # no page names a limit


def _hosted(name: str, base_url: str, *keys: str, quirks: Mapping[str, Any] | None = None, **more: Any) -> Host:
    """A host on the internet: it needs a key, and one from the environment goes to its own domain only."""
    parts = urlsplit(base_url)
    row = {
        "start": 100,
        "ceiling": 128,
        "own_domains": (parts.hostname,),
        "limits": FEW,
        "quirks": {"encoding": None, **(quirks or {})},
        **more,
    }
    return Host(
        name=name,
        dialect=OpenAI,
        base_url=base_url,
        version_path=parts.path,
        key_variables=keys,
        key_required=True,
        **row,
    )


def _server(name: str, base_url: str, called: str, **more: Any) -> Host:
    """A server on this machine: no key, and patience while it loads a model."""
    row = {"limits": FEW, "version_path": urlsplit(base_url).path, **more}
    down = f"is {called} running?"
    return Host(
        name=name, dialect=OpenAI, base_url=base_url, timeout=600.0, loading=600.0, unreachable_hint=down, **row
    )


def _databricks(base_url: str, target: Target) -> str:
    """Databricks: `host=` names the workspace; one outside its domains needs `base_url=` and a key given with it."""
    place = str(target.parameters.get("host") or "").removeprefix("https://").strip("/")
    if not place:
        if "{host}" not in base_url:
            return base_url
        msg = "databricks needs its workspace: pass host= or base_url=, or set DATABRICKS_HOST"
        raise ConfigError(msg)
    ours = "|".join(map(re.escape, target.host.own_domains))
    # Nothing in it may end the host's name early, since a token goes there.
    if not re.fullmatch(rf"[A-Za-z0-9.-]+\.({ours})", place):
        msg = f"host={place!r} is no workspace of {' or '.join(target.host.own_domains)}: pass base_url= and api_key="
        raise ConfigError(msg)
    return workspace(place)


def workspace(value: str) -> str:
    """DATABRICKS_HOST, with or without a scheme, as the base URL of its endpoints."""
    root = value if "://" in value else f"https://{value}"
    return root.rstrip("/") if urlsplit(root).path.strip("/") else f"{root.rstrip('/')}/serving-endpoints"


def _github(base_url: str, target: Target) -> str:
    """GitHub: `org=` is billed instead of the token's owner (docs.github.com/rest/models/embeddings)."""
    org = quote(str(target.parameters.get("org") or ""), safe="")
    return base_url.replace("/inference", f"/orgs/{org}/inference") if org and "/orgs/" not in base_url else base_url


HOSTS = (
    Host(name="compatible", dialect=OpenAI, version_path="/v1", limits=FEW, accepts_empty=True, loading=600.0),

    # --- hosted ---
    # The model's prompt is a field, `prompt`, and every dtype an encoding.
    _hosted(
        "mixedbread", "https://api.mixedbread.com/v1", "MXBAI_API_KEY", url_variables=("MIXEDBREAD_BASE_URL",),
        quirks={"encoding": "base64", "dtype_field": "encoding_format", "unit_field": "normalized"},
        limits=Limits(max_texts=256),
    ),
    # Its schema knows `model` and `input`, nothing else; no usage (docs.together.ai, create embedding).
    _hosted(
        "together", "https://api.together.ai/v1", "TOGETHER_API_KEY", own_domains=("together.ai", "together.xyz"),
        quirks={"width_field": None}, limits=Limits(max_texts=100),
    ),
    # Strict; vectors are of unit length only if `normalize` says so (docs.fireworks.ai, embeddings reference).
    _hosted(
        "fireworks", "https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY",
        quirks={"unit_field": "normalize"}, limits=Limits(max_texts=2048),
    ),
    _hosted(
        "deepinfra", "https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY", "DEEPINFRA_TOKEN",
        "DEEPINFRA_API_TOKEN",
        # The limit: api.deepinfra.com/openapi.json, `input`.
        quirks={"encoding": "base64", "pads": True}, limits=Limits(max_texts=1024),
    ),
    # Retriever models refuse a request without `input_type`; some refuse base64. Too long is refused unless cut
    # (docs.nvidia.com/nim, text embedding reference).
    _hosted(
        "nvidia", "https://integrate.api.nvidia.com/v1", "NVIDIA_API_KEY", limits=Limits(max_texts=50),
        quirks={
            "encoding": "float", "purposes": {None: "passage", "document": "passage", "query": "query"},
            "cut": {"truncate": "END"}, "refuses": True,
        },
    ),
    # A router: `input_type` goes on to whoever serves the model; its reference gives these two values
    # (openrouter.ai/docs).
    _hosted(
        "openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", limits=Limits(max_texts=96),
        quirks={"encoding": "base64", "purposes": {"query": "search_query", "document": "search_document"}},
    ),
    # `dimensions` is refused as an unknown field; floats answer base64.
    _hosted(
        "databricks", "https://{host}/serving-endpoints", "DATABRICKS_TOKEN", "DATABRICKS_API_KEY",
        own_domains=("databricks.com", "azuredatabricks.net"), url_variables=("DATABRICKS_HOST", "DATABRICKS_API_BASE"),
        routes=("/embeddings", "/{model}/invocations"), read_url=workspace, resolve_url=_databricks,
        parameters={"host": Parameter(help="the workspace, adb-….azuredatabricks.net")},
        quirks={"width_field": None}, limits=Limits(max_texts=150),
    ),
    # Keys are bound to a region: base_url="https://dashscope-intl.aliyuncs.com" is Singapore (Alibaba Model Studio).
    _hosted(
        "dashscope", "https://dashscope.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY",
        own_domains=("aliyuncs.com",),
        quirks={"encoding": "float"}, limits=Limits(max_texts=10, max_text_tokens=8192),
    ),
    _hosted(  # docs.bigmodel.cn, embedding-3
        "zhipu", "https://open.bigmodel.cn/api/paas/v4", "ZHIPUAI_API_KEY", "ZAI_API_KEY",
        own_domains=("bigmodel.cn", "z.ai"),
        limits=Limits(max_texts=64, max_text_tokens=3072),
    ),
    _hosted(  # docs.siliconflow.com
        "siliconflow", "https://api.siliconflow.cn/v1", "SILICONFLOW_API_KEY",
        own_domains=("siliconflow.cn", "siliconflow.com"), quirks={"encoding": "base64"},
    ),
    _hosted(  # docs.github.com/rest/models/embeddings; the models are OpenAI's
        "github", "https://models.github.ai/inference", "GITHUB_TOKEN", resolve_url=_github,
        limits=Limits(max_texts=100),
        parameters={"org": Parameter(help="organization to bill instead of the token's owner")},
        quirks={
            "encoding": "base64", "refuses": True,
            "headers": {"accept": "application/vnd.github+json", "x-github-api-version": "2022-11-28"},
        },
    ),
    # Known of these are the base URL and the variable; no page names a limit or `encoding_format`.
    _hosted("doubleword", "https://api.doubleword.ai/v1", "DOUBLEWORD_API_KEY"),
    _hosted("venice", "https://api.venice.ai/api/v1", "VENICE_API_KEY", "VENICE_AI_API_KEY"),
    _hosted("sambanova", "https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY"),
    _hosted("nebius", "https://api.studio.nebius.ai/v1", "NEBIUS_API_KEY"),
    _hosted("novita", "https://api.novita.ai/v3/openai", "NOVITA_API_KEY"),
    _hosted("scaleway", "https://api.scaleway.ai/v1", "SCW_SECRET_KEY"),
    _hosted("vercel", "https://ai-gateway.vercel.sh/v1", "VERCEL_AI_GATEWAY_API_KEY"),
    _hosted("hyperbolic", "https://api.hyperbolic.xyz/v1", "HYPERBOLIC_API_KEY"),

    # --- on this machine ---
    # LocalAI: dimensions are ignored, usage is absent since 4.2.5, and a first request may load the model.
    _server("localai", "http://localhost:8080/v1", "LocalAI", quirks={"width_field": None}),
    # vLLM: nothing is cut unless `truncate_prompt_tokens` says so; -1 is the model's own maximum.
    _server(
        "vllm", "http://localhost:8000/v1", "vLLM", limits=Limits(max_texts=128), accepts_empty=True,
        quirks={"cut": {"truncate_prompt_tokens": -1}, "refuses": True},
    ),
    # SGLang refuses what is too long or blank (serving_embedding.py).
    _server("sglang", "http://localhost:30000/v1", "SGLang", limits=Limits(max_texts=128), quirks={"refuses": True}),
    # llama.cpp: dimensions are ignored; over-long texts are refused, some of them with a 500.
    _server(
        "llamacpp", "http://localhost:8080/v1", "llama-server", accepts_empty=True,
        quirks={"width_field": None, "refuses": True},
    ),
    # LM Studio answers floats to base64 (lmstudio-ai/lmstudio-bug-tracker#756) and ignores dimensions
    # (lmstudio-ai/lms#300).
    _server(
        "lmstudio", "http://localhost:1234/v1", "LM Studio's server",
        quirks={"width_field": None, "encoding": "float"},
    ),
    # Xinference ignores dimensions and cuts over-long texts.
    _server("xinference", "http://localhost:9997/v1", "Xinference", quirks={"width_field": None}, accepts_empty=True),
    # Infinity has no /v1 unless started with a prefix, cuts over-long texts, and counts characters as tokens
    # (michaelfeil/infinity, `lengths_via_tokenize`).
    _server(
        "infinity", "http://localhost:7997", "Infinity", limits=Limits(max_texts=2048), accepts_empty=True,
        quirks={"counts_tokens": False},
    ),
)  # fmt: skip
