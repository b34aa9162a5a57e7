"""Ollama's own API. https://github.com/ollama/ollama/blob/main/docs/api.md#generate-embeddings

`/api/embed` takes a list. The older `/api/embeddings` takes one prompt and gives vectors that are not normalized;
`legacy=True` selects it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from .._types import Limits, Options, Reply, Request, Response
from ..codec import (
    JSON,
    Dialect,
    Host,
    Out,
    Parameter,
    Target,
    Vector,
    accepted_input_types,
    compact,
    decode_reply,
    decoder_of,
    matrix,
    prefixed,
    read_error_body,
    reject_unsupported,
    text_of,
    to_json,
    whole_number,
    without_vectors,
)


class _Reply(msgspec.Struct, frozen=True):
    embeddings: list[Vector | None] | None = None
    embedding: Vector | None = None
    model: Any = None
    prompt_eval_count: Any = None  # left out when zero


_decoder = decoder_of(_Reply)


class Ollama(Dialect, frozen=True):
    """Ollama's dialect: no text is cut unless `truncate="end"` (the server's default cuts it)."""

    @property
    def limits(self) -> Limits:
        # Embedding models are loaded with one slot, so larger lists only wait longer (server/sched.go).
        return Limits(max_texts=1) if self._legacy else self.target.host.limits

    @property
    def sends_dimensions(self) -> bool:
        return not self._legacy

    @property
    def _legacy(self) -> bool:
        return bool(self.target.parameters.get("legacy"))

    def encode(self, texts: Sequence[str], options: Options) -> Request:
        target, facts = self.target, self.target.facts
        cuts = ("error",) if self._legacy else ("end", "error")
        reject_unsupported(
            options, target.host.name, dtype=("float32",), truncate=cuts, input_type=accepted_input_types(facts)
        )
        asked = compact(
            model=target.model,
            keep_alive=target.parameters.get("keep_alive"),
            options=target.parameters.get("model_options"),
        )
        texts = prefixed(texts, options, facts)
        if self._legacy:
            return Request(target.url("/embeddings"), to_json({**asked, "prompt": texts[0], **options.extra}), JSON)
        body = compact(input=texts, truncate=options.truncate == "end", dimensions=options.dimensions)
        return Request(target.url("/embed"), to_json({**asked, **body, **options.extra}), JSON)

    def decode(self, response: Response, options: Options, count: int, out: Out | None = None) -> Reply:
        reply = decode_reply(_decoder, response)
        vectors = reply.embeddings if reply.embedding is None else [reply.embedding]
        if vectors is None:
            raise without_vectors(response, count)
        return Reply(matrix(vectors, options, count, out), text_of(reply.model), whole_number(reply.prompt_eval_count))

    def explain(self, response: Response) -> str:
        message = read_error_body(response).message
        absent = re.search(r"model\b.*\bnot found|try pulling", message)  # another 404 is about the URL
        return f"{message}; `ollama pull {self.target.model}` fetches it" if absent else message


def address(value: str) -> str:
    """OLLAMA_HOST as Ollama reads it (ollama/ollama, envconfig/config.go), with /api behind it."""
    value = value.strip().strip("\"'").strip()
    scheme, mark, rest = value.partition("://")
    if not mark:
        scheme, rest = ("https", "ollama.com:443") if value == "ollama.com" else ("http", value)
    place, _, path = rest.partition("/")
    user, at, place = place.rpartition("@")
    if place.count(":") > 1 and not place.startswith("["):
        place = f"[{place}]"  # a bare IPv6 address
    parts = urlsplit(f"//{place}")
    name = parts.hostname or "127.0.0.1"
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)  # noqa: S104 (a server's bind-all is its own loopback)
    try:
        port = parts.port
    except ValueError:
        port = None
    if port is None:
        port = 11434 if not mark else {"https": 443}.get(scheme, 80)
        port = 443 if (scheme, name) == ("https", "ollama.com") else port
    path = f"/{path.strip('/')}" if path.strip("/") else ""
    path = re.sub("/(api|v1)(/embed|/embeddings)?$", "", path)
    return f"{scheme}://{user}{at}{f'[{name}]' if ':' in name else name}:{port}{path}/api"


def _locate(base_url: str, target: Target) -> str:  # noqa: ARG001 (the shape of `resolve_url`)
    """Ollama speaks OpenAI's dialect under /v1, and this one under /api beside it."""
    return re.sub(r"/v1(?=$|\?)", "/api", base_url)


HOSTS = (
    Host(
        name="ollama", dialect=Ollama, base_url="http://127.0.0.1:11434/api", version_path="/api", resolve_url=_locate,
        routes=("/embed", "/embeddings"), key_variables=("OLLAMA_API_KEY",),
        own_domains=("ollama.com",), url_variables=("OLLAMA_HOST",), read_url=address, limits=Limits(max_texts=32),
        parameters={
            "keep_alive": Parameter(
                takes=(str, float), help='how long the model stays loaded: "10m", seconds, 0 or -1'
            ),
            "model_options": Parameter(takes=(dict,), help='the model\'s own options, e.g. {"num_ctx": 8192}'),
            "legacy": Parameter(takes=(bool,), help="true speaks /api/embeddings, one text per request"),
        },
        timeout=600.0, loading=600.0, unreachable_hint="is Ollama running? `ollama serve` starts it",
    ),
)  # fmt: skip
