"""TEI, Hugging Face's Text Embeddings Inference. https://huggingface.github.io/text-embeddings-inference

Its own route, `/embed`, on which the server does prompts, truncation and width. (`compatible:` uses its OpenAI
route.) `/info` is asked once how many texts a request may hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

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
    accepted_input_types,
    compact,
    decode_reply,
    decoder_of,
    header_int,
    matrix,
    prefixed,
    reject_unsupported,
    to_json,
)


class _Info(msgspec.Struct, frozen=True):
    max_client_batch_size: int | None = None
    max_input_length: int | None = None
    version: str | None = None


_decoder = decoder_of(list[Vector | None])  # two axes, also for one text
_info = decoder_of(_Info)


class TEI(Dialect, frozen=True):
    """TEI's dialect: an over-long text is refused unless `truncate="end"`.

    Attributes:
        sends_dimensions: the server is new enough to be asked for a width.
        known: what it said of its limits.
    """

    sends_dimensions: bool = True
    known: Limits | None = None

    @property
    def limits(self) -> Limits:
        return self.known or self.target.host.limits

    def encode(self, texts: Sequence[str], options: Options) -> Request:
        target, facts, prompt = self.target, self.target.facts, self.target.parameters.get("prompt_name")
        prompts = prompt if isinstance(prompt, Mapping) else {}
        purposes = accepted_input_types(facts, *prompts)
        reject_unsupported(
            options, target.host.name, dtype=("float32",), truncate=("end", "error"), input_type=purposes
        )
        body = compact(
            # Never a prefix with a prompt: the server adds its own.
            inputs=prefixed(texts, options, facts) if prompt is None else texts,
            prompt_name=prompts.get(options.input_type) if isinstance(prompt, Mapping) else prompt,
            truncate=options.truncate == "end",  # always sent: without it servers since 1.9.0 cut in silence
            normalize=options.normalize,
            dimensions=options.dimensions,
        )
        return Request(target.url("/embed"), to_json({**body, **options.extra}), JSON)

    def decode(self, response: Response, options: Options, count: int, out: Out | None = None) -> Reply:
        vectors = decode_reply(_decoder, response)
        tokens = header_int(response, "x-compute-tokens")  # the only usage on this route
        return Reply(matrix(vectors, options, count, out), "", tokens)

    def probe(self) -> Request:
        return Request(self.target.url("/info"), headers={"accept": "application/json"}, method="GET")

    def learn(self, response: Response) -> Dialect:
        """What /info says of the limits, and whether the server knows `dimensions`. A refusal teaches nothing."""
        try:
            info = _info.decode(response.body) if response.ok else _Info()
        except UNREADABLE:
            info = _Info()  # a proxy's page, say
        told = compact(max_texts=info.max_client_batch_size or None, max_text_tokens=info.max_input_length or None)
        better = msgspec.structs.replace(self, known=msgspec.structs.replace(self.limits, **told)) if told else self
        version = re.match(r"(\d+)\.(\d+)", info.version or "")
        old = version is not None and (int(version[1]), int(version[2])) < (1, 8)  # `dimensions` came with 1.8.0
        return msgspec.structs.replace(better, sends_dimensions=False) if old else better


HOSTS = (
    Host(
        name="tei", dialect=TEI, routes=("/embed", "/embed_all", "/v1/embeddings", "/embeddings", "/v1"),
        base_url="http://localhost:3000", catalog="huggingface",
        # --max-client-batch-size; --payload-limit, less what JSON adds
        limits=Limits(max_texts=32, max_bytes=1_900_000),
        parameters={
            "prompt_name": Parameter(
                takes=(str, dict),
                help="one of the model's own prompts in place of a prefix; or a mapping from input type to such"
            ),
        },
        timeout=600.0, loading=600.0, unreachable_hint="is text-embeddings-router running?",
    ),
)  # fmt: skip
