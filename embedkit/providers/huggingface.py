"""Hugging Face: the router's hf-inference, and dedicated endpoints that answer at their root.

https://huggingface.co/docs/inference-providers/tasks/feature-extraction
https://huggingface.co/docs/inference-endpoints

Replies are bare lists, and the model decides how deep: a sentence-transformers model gives one vector per text, a plain
transformers model one per token. The latter are pooled here once the caller has said how.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import msgspec

from .._types import Limits, Options, Reply, Request, Response
from ..codec import (
    JSON,
    UNREADABLE,
    Dialect,
    Host,
    Out,
    Parameter,
    Vector,
    VectorLike,
    accepted_input_types,
    compact,
    decode_json,
    decode_reply,
    decoder_of,
    header_int,
    matrix,
    pool_tokens,
    prefixed,
    read_error_body,
    reject_unsupported,
    to_json,
)
from ..errors import DecodeError


class _Toolkit(msgspec.Struct, frozen=True):
    embeddings: msgspec.Raw


_PADDING = 64  # bytes in which a body begins, after a byte order mark and spaces
_vectors = decoder_of(list[Vector | None])
_toolkit = decoder_of(_Toolkit)
_SHAPES: dict[int, msgspec.json.Decoder[Any]] = {  # by number of axes, the commonest first
    2: _vectors,
    1: decoder_of(Vector),
    3: decoder_of(list[list[Vector]]),
    4: decoder_of(list[tuple[list[Vector]]]),  # a pipeline's batch axis of one, left in
}


class HuggingFace(Dialect, frozen=True):
    """The dialect of the router and of endpoints' toolkit. Few containers know prompts, so prefixes are added here.

    Attributes:
        route: what follows the base URL.
        headers: sent with every request.
    """

    route: str = ""
    headers: Mapping[str, str] = {}
    sends_dimensions = False

    def encode(self, texts: Sequence[str], options: Options) -> Request:
        target, facts = self.target, self.target.facts
        reject_unsupported(
            options, target.host.name, dtype=("float32",), truncate=("end",), input_type=accepted_input_types(facts)
        )
        body = compact(
            inputs=prefixed(texts, options, facts),  # always a list: a lone text is answered in another shape
            normalize=options.normalize,
            truncate=options.truncate == "end" or None,
        )
        url = target.url(self.route.format(model=quote(target.model)))
        return Request(url, to_json({**body, **options.extra}), {**JSON, **self.headers})

    def decode(self, response: Response, options: Options, count: int, out: Out | None = None) -> Reply:
        rows = matrix(self._vectors(response), options, count, out)
        # TEI behind an endpoint sends this header; the other servers do not count.
        return Reply(rows, "", header_int(response, "x-compute-tokens"))

    def explain(self, response: Response) -> str:
        refusal = read_error_body(response)
        more = refusal.body.get("warnings") if isinstance(refusal.body, dict) else None  # the toolkit's reasons
        told = [each for each in map(str, more) if each not in refusal.message] if isinstance(more, list) else []
        return "; ".join(filter(None, [refusal.message, *told]))

    def _vectors(self, response: Response) -> Sequence[VectorLike]:
        axes, found = _shaped(response)
        if axes in (1, 2):
            return [found] if axes == 1 else found
        how = self.target.parameters.get("pooling")
        if how is None:
            msg = (
                f"{self.target.model} answers one vector per token, not per text: "
                "pass pooling='mean', 'cls' or 'last', as its card says"
            )
            raise DecodeError(msg)
        return [_pooled(tokens if axes == 3 else tokens[0], how) for tokens in found]  # noqa: PLR2004


def _pooled(tokens: Sequence[VectorLike], how: str) -> VectorLike:
    try:
        return pool_tokens(tokens, how)
    except DecodeError as error:
        return error  # of this text alone


def _shaped(response: Response) -> tuple[int, Any]:
    """(number of axes, the nested list) of a reply, out of the toolkit's envelope if it came in one."""
    if bytes(response.body[:_PADDING]).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        with suppress(*UNREADABLE):
            response = msgspec.structs.replace(response, body=bytes(decode_json(response.body, _toolkit).embeddings))
    for axes, decoder in _SHAPES.items():
        with suppress(*UNREADABLE):
            return axes, decode_json(response.body, decoder)
    return 2, decode_reply(_vectors, response)  # raises what is wrong with it


def token_file(environment: Mapping[str, str]) -> str:
    """Where `hf auth login` leaves the token (huggingface_hub, constants.py)."""
    home = environment.get("HF_HOME") or f"{environment.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return environment.get("HF_TOKEN_PATH") or f"{home}/token"


_SAME: dict[str, Any] = {
    "key_variables": ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
    "key_file": token_file,
    "limits": Limits(max_texts=32, max_bytes=1_900_000),  # neither is documented; a TEI behind it takes 32 and 2 MB
    "parameters": {
        "pooling": Parameter(choices=("mean", "cls", "last"), help="how to pool vectors that come one per token")
    },
}

HOSTS = (
    Host(
        name="huggingface", dialect=HuggingFace, base_url="https://router.huggingface.co/hf-inference",
        version_path="/hf-inference",
        quirks={"route": "/models/{model}/pipeline/feature-extraction"},
        routes=("/models/{model*}/pipeline/feature-extraction", "/models/{model*}", "/models"), key_required=True,
        own_domains=("huggingface.co",), start=100, ceiling=128, loading=300.0, **_SAME,
    ),
    # Scaled to zero, an endpoint wakes on a request; the header makes its proxy wait for that instead of answering 503.
    Host(
        name="hfendpoint", dialect=HuggingFace, routes=("/v1/embeddings", "/v1"),
        quirks={"headers": {"x-scale-up-timeout": "600"}}, catalog="huggingface",
        own_domains=("endpoints.huggingface.cloud",), timeout=600.0, loading=600.0, **_SAME,
    ),
)  # fmt: skip
