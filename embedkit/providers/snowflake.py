"""Snowflake Cortex's EMBED. https://docs.snowflake.com/en/user-guide/snowflake-cortex/cortex-rest-api

The OpenAI envelope with two differences: the texts are called `text`, and each `embedding` is a list with one list in
it. There is no switch for queries, width, dtype or truncation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from .._types import Limits, Options, Reply, Request, Response
from ..codec import (
    JSON,
    Dialect,
    Host,
    Missing,
    Out,
    Parameter,
    Target,
    Vector,
    decode_reply,
    decoder_of,
    fill_url,
    in_place,
    matrix,
    reject_unsupported,
    text_of,
    to_json,
    tokens_in,
    without_vectors,
)
from ..errors import DecodeError


class _Item(msgspec.Struct, frozen=True, gc=False):
    embedding: list[Vector | None] | None = None
    index: Any = None


class _Reply(msgspec.Struct, frozen=True):
    data: list[_Item] | None = None
    model: Any = None
    usage: Any = None


_decoder = decoder_of(_Reply)


class Snowflake(Dialect, frozen=True):
    """Cortex's dialect."""

    sends_dimensions = False

    @property
    def limits(self) -> Limits:
        return self.target.limits

    def encode(self, texts: Sequence[str], options: Options) -> Request:
        target = self.target
        reject_unsupported(options, target.host.name, dtype=("float32",), truncate=(), input_type=("query", "document"))
        kind = target.parameters.get("token_type")
        headers = {**JSON, "x-snowflake-authorization-token-type": kind} if kind else JSON
        body = {"text": texts, "model": target.model, **options.extra}
        return Request(target.url("/cortex/inference:embed"), to_json(body), headers)

    def decode(self, response: Response, options: Options, count: int, out: Out | None = None) -> Reply:
        reply = decode_reply(_decoder, response)
        if reply.data is None:
            raise without_vectors(response, count)
        found = [
            [item.embedding] if item is Missing else item.embedding or [None] for item in in_place(reply.data, count)
        ]
        if any(len(each) != 1 for each in found):
            msg = f"a text came back with {', '.join(str(len(each)) for each in found[:8])} embeddings, not one"
            raise DecodeError(msg)
        rows = matrix([each[0] for each in found], options, count, out)
        return Reply(rows, text_of(reply.model), tokens_in(reply.usage, "total_tokens"))


def _locate(base_url: str, target: Target) -> str:
    """Underscores of an account are hyphens in its host's name (docs.snowflake.com, Cortex authentication)."""
    located = fill_url(base_url, target)
    return located if located == base_url else located.replace("_", "-")


HOSTS = (
    Host(
        name="snowflake", dialect=Snowflake, routes=("/cortex/inference:{verb}", "/cortex"),
        base_url="https://{account}.snowflakecomputing.com/api/v2", version_path="/api/v2",
        key_variables=("SNOWFLAKE_PAT", "SNOWFLAKE_TOKEN", "SNOWFLAKE_JWT"), key_required=True, start=100, ceiling=128,
        own_domains=("snowflakecomputing.com",),
        resolve_url=_locate,
        parameters={
            "account": Parameter(
                ("SNOWFLAKE_ACCOUNT", "SNOWFLAKE_ACCOUNT_ID"), help="the account's identifier, like myorg-account1"
            ),
            "token_type": Parameter(
                choices=("PROGRAMMATIC_ACCESS_TOKEN", "OAUTH", "KEYPAIR_JWT"),
                help="what api_key is, where Snowflake must be told"
            ),
        },
        limits=Limits(max_texts=32),  # a choice: no page names a limit
    ),
)  # fmt: skip
