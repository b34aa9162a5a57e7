"""Recorded traffic read without embedkit: what was asked, what was answered, what a refusal says.

A plain reading of JSON, whatever the dialect, kept apart from the package so that the two can disagree.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import numpy as np


def load(path: Path) -> dict[str, Any]:
    """A recording of either collection in the form of `exchanges/`,
    its header names in lower case, named by folder and file.
    """
    recording: dict[str, Any] = json.loads(path.read_text("utf-8"))
    for side in ("request", "response"):
        half = recording[side]
        named = half["headers"] or {}
        pairs = named.items() if isinstance(named, dict) else named  # `captures/` keeps them in wire order
        half["headers"] = {
            name.lower(): ", ".join(value) if isinstance(value, list) else str(value) for name, value in pairs
        }
    request, answer = recording["request"], recording["response"]
    recording["whole"] = "body_truncated" not in answer
    request["body"] = request.get("body")
    request["url"] = request.get("url", f"http://server.example{request.get('path', '')}")
    answer["body"] = answer["body"] if "body" in answer else base64.b64decode(answer.get("body_b64", ""))
    recording["name"] = f"{path.parent.name}/{path.name}"
    return recording


def as_json(text: Any) -> Any:
    """The JSON in a text; None where it holds none."""
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return None


# --- what was asked --------------------------------------------------------------------------------------------------

MEANINGS = {
    "search_document": "document", "search_query": "query", "classification": "classification",
    "clustering": "clustering",
    "document": "document", "query": "query", "passage": "document",
    "RETRIEVAL_DOCUMENT": "document", "RETRIEVAL_QUERY": "query",
}  # fmt: skip


# Where a path holds the model.
PLACES = (
    r"/(?:deployments|engines)/(.+)/embeddings$", r"/model/(.+?)/(?:invoke|converse)", r"/models/([^:]+):\w+$",
    r"/feature-extraction/(.+)$", r"/models/(.+?)(?:/pipeline/.*)?$",
)  # fmt: skip


class Asked(NamedTuple):
    """The recorded request: `texts` is None where it holds no list of texts that can be read."""

    model: str
    texts: list[str] | None
    options: dict[str, Any]
    body: dict[str, Any]


def asked(recording: Mapping[str, Any]) -> Asked:
    """The recorded request, whatever its dialect."""
    request = recording["request"]
    body = as_json(request["body"])
    body = body if isinstance(body, dict) else {}
    first: dict[str, Any] = next(iter(body.get("requests") or body.get("instances") or ()), {})
    inner = (body.get(name) or {} for name in ("parameters", "embedContentConfig", "singleEmbeddingParams"))
    fields = {name: value for part in (*inner, first, body) for name, value in part.items()}
    width = next((fields[name] for name in ("dimensions", "output_dimension", "outputDimensionality",
       "embeddingDimension")
                  if isinstance(fields.get(name), int)), None)  # fmt: skip
    kind = next(iter(fields.get("embedding_types") or ()), fields.get("output_dtype"))
    cut = fields.get("truncate", fields.get("truncation", fields.get("truncate_prompt_tokens") == -1))
    options = {
        "dimensions": width,
        "input_type": MEANINGS.get(str(fields.get("input_type") or fields.get("task_type") or fields.get("taskType"))),
        "dtype": kind if kind in ("int8", "uint8", "binary", "ubinary") else None,
        "truncate": "end" if cut is True or cut == "END" else None,
    }
    route = unquote(urlsplit(request["url"]).path)
    placed = next(filter(None, (re.search(place, route) for place in PLACES)), None)
    model = placed[1] if placed and "deployments" in route else str(body.get("model") or (placed[1] if placed else ""))
    model = model.removeprefix("models/") or "a-model"
    if model.startswith("gemini-embedding-2"):
        options["input_type"] = None  # a task beside the text has no effect: ai.google.dev/gemini-api/docs/embeddings
    return Asked(model, _texts(body), {name: value for name, value in options.items() if value}, body)


def _texts(body: Mapping[str, Any]) -> list[str] | None:
    given = next((body[name] for name in ("input", "texts", "inputs", "prompt", "inputText") if name in body), None)
    if given is None:
        contents = [each.get("content") for each in body.get("requests", ())] or [body.get("content")]
        given = [
            "".join(part["text"] for part in each["parts"]) if all("text" in part for part in each["parts"]) else None
            for each in contents
            if isinstance(each, dict)
        ] or [each.get("content") for each in body.get("instances", ())]
        given = given or body.get("singleEmbeddingParams", {}).get("text", {}).get("value")
    given = [given] if isinstance(given, str) else given
    return given if isinstance(given, list) and given and all(isinstance(text, str) for text in given) else None


# --- what was answered -----------------------------------------------------------------------------------------------


class Answered(NamedTuple):
    """The recorded reply: one array per text, in the order of `index`."""

    vectors: list[Any]
    tokens: int | None
    model: str | None


def answered(recording: Mapping[str, Any], code: str = "<f4") -> Answered:
    """The recorded reply, whatever its dialect; `code` is the numpy type inside base64."""
    body = json.loads(recording["response"]["body"])
    vectors = [
        np.frombuffer(base64.b64decode(each), code) if isinstance(each, str) else np.array(each)
        for each in listed(body)
    ]
    vectors = [
        each.reshape(-1, each.shape[-1]).mean(axis=0) if each.ndim > 1 else each for each in vectors
    ]  # one per token
    model = body.get("model") if isinstance(body, dict) else None
    return Answered(vectors, counted(body, recording["response"]["headers"]), model)


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
        usage.get("prompt_tokens"), usage.get("total_tokens"), body.get("prompt_eval_count"),
        body.get("inputTextTokenCount"),
        ((body.get("meta") or {}).get("billed_units") or {}).get("input_tokens"),
        (body.get("usageMetadata") or {}).get("promptTokenCount"),
    )  # fmt: skip
    return next((int(place) for place in places if place is not None), None)


# --- what was refused ------------------------------------------------------------------------------------------------


def errortype(headers: Mapping[str, str]) -> str | None:
    """AWS names the error in a header, with an address behind a colon."""
    return headers.get("x-amzn-errortype", "").partition(":")[0] or None


def saying(text: str) -> tuple[list[str], str | None, str | None]:
    """(what the provider says, its code, its request id) out of a refusal's body."""
    body: Any = as_json(text)
    body = body[0] if isinstance(body, list) else body
    if not isinstance(body, dict):
        plain = re.search("<title>(.*?)</title>", text) or re.search(
            '"message": "(.*?)"', text
        )  # a page; a comma too many
        return [plain[1] if plain else text.strip()], None, None
    inner = next((body[name] for name in ("error", "detail") if body.get(name)), None)
    whole: dict[str, Any] = inner if isinstance(inner, dict) else {}
    outer = next((body[name] for name in ("message", "Message") if name in body), None)
    said = whole.get("message") or outer or inner
    texts = [
        str(each["msg"]) if isinstance(each, dict) else str(each)
        for each in (said if isinstance(said, list) else [said])
    ]
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
