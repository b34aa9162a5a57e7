"""OpenAI, and the hosts that speak its dialect. https://platform.openai.com/docs/api-reference/embeddings/create

Compatible hosts differ in small ways, and each difference is a field of `OpenAI` that a row in `compatible.py` sets:
the name of the width field, whether base64 may be asked for, what can be cut. Replies are taken as they come: floats
or base64, with or without `index` and `usage`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from .._types import QUANTIZED, Limits, Options, Reply, Request, Response
from ..codec import (
    JSON,
    Batches,
    Caps,
    Dialect,
    Host,
    Out,
    Parameter,
    accepted_input_types,
    bearer,
    known_width,
    listing,
    matrix,
    prefixed,
    prompt_field,
    read_error_body,
    reject_unsupported,
    to_json,
    with_headers,
)
from ..errors import DecodeError

# Options, URL, fields of the body, the same as the end of its JSON, headers.
_Kept = tuple[Options, str, dict[str, Any], bytes, Mapping[str, str]]


class OpenAI(Dialect, frozen=True, dict=True):
    """The OpenAI dialect, adapted by a host's row. A name that is None or empty: the host has no such field.

    Attributes:
        encoding: what `encoding_format` asks for; None: it is not sent.
        width_field: takes `dimensions`.
        dtype_field: takes a dtype other than float32.
        unit_field: takes `normalize`.
        purposes: input type → value of `input_type`. With a value for None, the API demands one. Without, a router
            passes it on, and it is sent only for models that the catalog does not know.
        cut: the fields that say `truncate="end"`; empty: the host cannot be asked to cut.
        refuses: it refuses an over-long text rather than cutting it.
        pads: it fills a vector up with zeros when asked for more than the model has.
        counts_tokens: its usage counts tokens.
        headers: sent with every request.
    """

    encoding: str | None = "base64"
    width_field: str | None = "dimensions"
    dtype_field: str | None = None
    unit_field: str | None = None
    purposes: Mapping[str | None, str] = {}
    cut: Mapping[str, Any] = {}
    refuses: bool = False
    pads: bool = False
    counts_tokens: bool = True
    headers: Mapping[str, str] = {}
    joins: ClassVar[tuple[str, ...]] = ("late_chunking",)  # Jina's, at whatever server or router passes it on

    @property
    def sends_dimensions(self) -> bool:
        """False if a narrower vector has to be cut on the client."""
        facts = self.target.facts
        return self.width_field is not None and (facts is None or facts.dimensions is None or bool(facts.widths))

    @property
    def sends_dtypes(self) -> tuple[str, ...]:
        """What this host and model make themselves; the rest is made on the client."""
        facts = self.target.facts
        return ("float32", *(facts.dtypes if facts is not None else QUANTIZED)) if self.dtype_field else ("float32",)

    @property
    def cuts(self) -> bool:
        """False if the client has to cut an over-long text: this host refuses it, and cannot be asked to cut."""
        return bool(self.cut) or not self.refuses

    def encode(self, texts: Sequence[str], options: Options) -> Request:
        kept: _Kept | None = self.__dict__.get("kept")
        if kept is None or kept[0] is not options:
            kept = self.__dict__["kept"] = self._beside_texts(options)
        _, url, fields, rest, headers = kept
        given = prefixed(texts, options, self.target.facts)
        if options.extra:
            return Request(url, to_json({"input": given, **fields, **options.extra}), headers)
        return Request(url, b'{"input":%b,%b' % (to_json(given), rest), headers)

    def _beside_texts(self, options: Options) -> _Kept:
        """All of a request but its texts and `extra`. A codec keeps that of the last options, which rarely change."""
        target, facts = self.target, self.target.facts
        if options.input_type or options.truncate or options.dtype != "float32":
            cuts = (*(("end",) if self.cut else ()), *(("error",) if self.refuses else ()))
            kinds = accepted_input_types(facts, *filter(None, self.purposes))
            reject_unsupported(options, target.host.name, dtype=self.sends_dtypes, truncate=cuts, input_type=kinds)
        fields = (
            ("encoding_format", self.encoding),
            ("input_type", self.purposes.get(options.input_type) if facts is None or None in self.purposes else None),
            (self.width_field, known_width(options, facts) if self.pads else options.dimensions),
            # Mixedbread's dtype is its encoding, so it comes after that one.
            (self.dtype_field, None if options.dtype == "float32" else options.dtype),
            (self.unit_field, options.normalize),
        )
        body: dict[str, Any] = {"model": target.model, **prompt_field(options, facts)}
        body |= {name: value for name, value in fields if name is not None and value is not None}
        body |= self.cut if options.truncate == "end" else {}
        headers = {**JSON, **self.headers} if self.headers else JSON
        return options, target.url("/embeddings"), body, to_json(body)[1:], headers

    def decode(self, response: Response, options: Options, count: int, out: Out | None = None) -> Reply:
        vectors, model, tokens = listing(response, count)
        rows = matrix(vectors, options, count, out)
        facts = self.target.facts
        wide = facts.dimensions if facts is not None and facts.dimensions else 0
        if self.pads and options.dimensions is not None and wide < options.dimensions and not rows[:, -1].any():
            msg = f"dimensions={options.dimensions} is more than {self.target.model} has: every vector ends in zero"
            raise DecodeError(msg)
        return Reply(rows, model, tokens if self.counts_tokens else None)

    def learn(self, response: Response) -> Dialect:
        """A server that refuses base64 is asked for its default from then on (vllm-project/vllm#6174)."""
        if self.encoding is None or response.status not in (400, 422, 500):
            return self
        refused = any(
            word in read_error_body(response).message.lower()
            for word in ("encoding_format", "base64", "encoding format")
        )
        return msgspec.structs.replace(self, encoding=None) if refused else self


class OpenAIBatches(Batches, frozen=True):
    """OpenAI's batch jobs. The caps: openai-python, `types/batch_create_params.py`, `input_file_id`."""

    caps: ClassVar[Caps] = Caps(lines=50_000, inputs=50_000, bytes=200_000_000, texts=32)


def _organized(request: Request, credentials: Mapping[str, str], now: float) -> Request:
    """OpenAI: the key, and the organization and project it is billed to (openai-python, _client.py)."""
    names = {"organization": "openai-organization", "project": "openai-project"}
    more = {header: credentials[name] for name, header in names.items() if credentials.get(name)}
    return with_headers(bearer(request, credentials, now), more)


_OPENAI = Limits(max_texts=2048, max_tokens=250_000, max_text_tokens=8191)  # of 300,000: the count is an estimate


HOSTS = (
    Host(
        name="openai", dialect=OpenAI, base_url="https://api.openai.com/v1", version_path="/v1",
        key_variables=("OPENAI_API_KEY",),
        key_required=True, start=100, ceiling=128, own_domains=("api.openai.com",), url_variables=("OPENAI_BASE_URL",),
        read_url=str.strip,  # as it stands: /v1 is part of it
        authorize=_organized, static_auth=True,
        parameters={
            "organization": Parameter(("OPENAI_ORG_ID",), secret=True, help="organization to bill, org-…"),
            "project": Parameter(("OPENAI_PROJECT_ID",), secret=True, help="project to bill, proj_…"),
        },
        quirks={"refuses": True}, limits=_OPENAI, batches=OpenAIBatches,
    ),
)  # fmt: skip
