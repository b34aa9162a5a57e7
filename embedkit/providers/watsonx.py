"""IBM watsonx.ai. https://cloud.ibm.com/apidocs/watsonx-ai#text-embeddings

The API takes tokens of IBM Cloud's IAM. An API key is exchanged for one before the first request, and again before it
expires. A key with a dot in it is such a token already (a JWT) and goes out as it is, as in the official client
(ibm-watsonx-ai, client.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from .._types import Limits, Options, Reply, Request, Response
from ..codec import (
    JSON,
    Dialect,
    Host,
    Out,
    Parameter,
    Target,
    TokenExchange,
    Vector,
    compact,
    decode_reply,
    decoder_of,
    matrix,
    prefixed,
    reject_unsupported,
    text_of,
    to_json,
    whole_number,
    without_vectors,
)
from ..errors import ConfigError

_VERSION = "2026-10-14"  # what ibm-watsonx-ai 1.8.1 sends
_IAM = "https://iam.cloud.ibm.com/identity/token"


class _Result(msgspec.Struct, frozen=True, gc=False):
    embedding: Vector | None = None


class _Reply(msgspec.Struct, frozen=True):
    results: list[_Result | None] | None = None  # in input order, without an index
    model_id: Any = None
    input_token_count: Any = None


class _Token(msgspec.Struct, frozen=True):
    access_token: str
    expires_in: float = 3600.0


_decoder = decoder_of(_Reply)
_token = decoder_of(_Token)


class Watsonx(Dialect, frozen=True):
    """watsonx's dialect: an over-long text is refused, unless `truncate="end"` and the catalog knows where to cut."""

    sends_dimensions = False

    @property
    def limits(self) -> Limits:
        return self.target.limits

    def encode(self, texts: Sequence[str], options: Options) -> Request:
        target, facts, given = self.target, self.target.facts, self.target.parameters
        cuts = ("end", "error") if facts is not None and facts.tokens is not None else ("error",)
        purposes = {"query", "document", *(facts.prefixes if facts is not None else ())}
        reject_unsupported(options, target.host.name, dtype=("float32",), truncate=cuts, input_type=purposes)
        cut = {"truncate_input_tokens": facts.tokens} if options.truncate == "end" and facts is not None else None
        body = compact(
            model_id=target.model,
            inputs=prefixed(texts, options, facts),
            # Only one of the two is sent; a space wins, since no variable sets it.
            project_id=None if given.get("space_id") else given.get("project_id"),
            space_id=given.get("space_id"),
            parameters=cut,
        )
        return Request(target.url("/text/embeddings"), to_json({**body, **options.extra}), JSON)

    def decode(self, response: Response, options: Options, count: int, out: Out | None = None) -> Reply:
        reply = decode_reply(_decoder, response)
        if reply.results is None:
            raise without_vectors(response, count)
        rows = matrix([result.embedding if result else None for result in reply.results], options, count, out)
        return Reply(rows, text_of(reply.model_id), whole_number(reply.input_token_count))


def _locate(base_url: str, target: Target) -> str:
    """The version of the API goes with every request."""
    given = target.parameters
    if not given.get("project_id") and not given.get("space_id"):
        msg = "watsonx needs project_id or space_id: pass one, or set WATSONX_PROJECT_ID"
        raise ConfigError(msg)
    if re.search(r"[?&]version=", base_url):
        return base_url
    return f"{base_url}{'&' if '?' in base_url else '?'}version={quote(given.get('version', _VERSION), safe='')}"


def _ask(credentials: Mapping[str, str]) -> Request | None:
    key = credentials["api_key"]
    if "." in key:
        return None
    form = urlencode({"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": key})
    headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
    return Request(credentials.get("iam_url", _IAM), form.encode(), headers)


def _read(response: Response) -> tuple[str, float]:
    token = decode_reply(_token, response)
    return token.access_token, token.expires_in


HOSTS = (
    Host(
        name="watsonx", dialect=Watsonx, routes=("/text/embeddings",), version_path="/ml/v1",
        key_variables=("WATSONX_APIKEY", "WATSONX_API_KEY"), key_required=True, own_domains=("ml.cloud.ibm.com",),
        url_variables=("WATSONX_URL",), resolve_url=_locate, token_exchange=TokenExchange(_ask, _read),
        parameters={
            "project_id": Parameter(("WATSONX_PROJECT_ID",), help="the project to bill"),
            "space_id": Parameter(help="a deployment space, instead of a project"),
            "version": Parameter(help=f"date of the API's behavior, {_VERSION} unless said"),
            "iam_url": Parameter(help=f"where keys become tokens, {_IAM} unless said"),
        },
        limits=Limits(max_texts=1000),
    ),
)  # fmt: skip
