"""Google's Gemini API. https://ai.google.dev/api/embeddings

Always `:batchEmbedContents` with one element per text: several parts in one content would be fused into one vector
(googleapis/python-genai#2523). The first generation takes the task as a field; the second ignores the field and wants
the task in the text, so its prefixes stand in the catalog (ai.google.dev/gemini-api/docs/embeddings). Over-long texts
are always cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec

from .._types import Limits, Options, Reply, Request, Response
from ..codec import (
    JSON,
    UNREADABLE,
    Answer,
    Batch,
    Batches,
    Caps,
    Dialect,
    Host,
    Out,
    Vector,
    compact,
    decode_reply,
    decoder_of,
    dict_of,
    dicts_of,
    key_of,
    matrix,
    named,
    names_of,
    object_of,
    prefixed,
    refused,
    reject_unsupported,
    renormalize_cut,
    required,
    split_extra,
    state_of,
    text_of,
    to_json,
    tokens_in,
    whole_number,
    with_headers,
    without_vectors,
)
from ..errors import DecodeError

TASKS = {
    "query": "RETRIEVAL_QUERY",
    "document": "RETRIEVAL_DOCUMENT",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
    "similarity": "SEMANTIC_SIMILARITY",
}
_EACH = ("taskType", "title")  # fields of one text: where `extra` has them, they go to every one


class _Values(msgspec.Struct, frozen=True, gc=False):
    values: Vector | None = None


class _Reply(msgspec.Struct, frozen=True, rename="camel"):
    embeddings: list[_Values | None] | None = None
    embedding: _Values | None = None  # of :embedContent, which a gateway may have asked
    usage_metadata: Any = None  # of the second generation only
    token_count: Any = None  # of a batch job


_decoder = decoder_of(_Reply)


class Gemini(Dialect, frozen=True):
    """Gemini's dialect. A narrower vector of the first generation comes un-normalized and is made unit length here."""

    @property
    def limits(self) -> Limits:
        return self.target.limits

    def encode(self, texts: Sequence[str], options: Options) -> Request:
        target, facts = self.target, self.target.facts
        reject_unsupported(options, target.host.name, dtype=("float32",), truncate=("end",), input_type=TASKS)
        name = f"models/{_bare(target.model)}"
        in_text = facts is not None and bool(facts.prefixes)
        each = compact(
            model=name,
            taskType=None if in_text else TASKS.get(options.input_type or ""),
            outputDimensionality=options.dimensions,
        )
        own, rest = split_extra(options.extra, _EACH)
        requests = [{**each, **own, "content": {"parts": [{"text": text}]}} for text in prefixed(texts, options, facts)]
        url = target.url(f"/{quote(name)}:batchEmbedContents")
        return Request(url, to_json({"requests": requests, **rest}), JSON)

    def decode(self, response: Response, options: Options, count: int, out: Out | None = None) -> Reply:
        reply = decode_reply(_decoder, response)
        items = reply.embeddings if reply.embedding is None else [reply.embedding]
        if items is None:
            raise without_vectors(response, count)
        rows = matrix([item.values if item else None for item in items], options, count, out)
        renormalize_cut(rows, options, self.target.facts)
        tokens = tokens_in(reply.usage_metadata, "promptTokenCount")
        return Reply(rows, "", whole_number(reply.token_count) if tokens is None else tokens)


class _Line(msgspec.Struct, frozen=True):
    key: Any = None
    metadata: Any = None
    response: msgspec.Raw = msgspec.Raw()
    error: Any = None
    embedding: msgspec.Raw = msgspec.Raw()


_lines = msgspec.json.Decoder(_Line)
_NOTHING = (b"", b"null")


class GeminiBatches(Batches, frozen=True):
    """Gemini's batch jobs, always by file: what is given inline comes back in one piece.

    ai.google.dev/gemini-api/docs/batch-api, which is of version v1beta; python-genai, `batches.py`. A file holds 2 GB,
    and one text a line.
    """

    caps: ClassVar[Caps] = Caps(lines=50_000, inputs=50_000, bytes=2_000_000_000)

    def url(self, route: str, **query: Any) -> str:
        """A route of version v1beta, whatever the base URL ends in; what comes before a | goes before the version."""
        url = super().url("", **query)
        base, mark, rest = url.partition("?")
        root = base.rstrip("/").removesuffix("/v1beta").removesuffix("/v1")
        place, _, route = route.rpartition("|")
        return f"{root}{place}/v1beta{route}{mark}{rest}"

    def line(self, key: str, texts: Sequence[str], options: Options) -> bytes:
        body = msgspec.json.decode(self.codec.encode(texts, options).body)
        return to_json({"key": key, "request": body["requests"][0]})

    def begin_upload(self, name: str, size: int) -> Request | None:
        headers = {
            **JSON, "x-goog-upload-protocol": "resumable", "x-goog-upload-command": "start",
            "x-goog-upload-header-content-length": str(size),
            "x-goog-upload-header-content-type": "application/jsonl",
        }  # fmt: skip
        return Request(self.url("/upload|/files"), to_json({"file": {"display_name": name}}), headers)

    def upload(self, name: str, content: bytes, begun: Response | None) -> Request:  # noqa: ARG002 (as others have it)
        place = begun.headers.get("x-goog-upload-url", "") if begun is not None else ""
        root = self.url("").removesuffix("/v1beta")
        if not place.startswith(f"{root}/"):  # the key goes there
            msg = f"the upload is to go to another place than {root}"
            raise DecodeError(msg)
        headers = {"x-goog-upload-offset": "0", "x-goog-upload-command": "upload, finalize"}
        return Request(place, content, headers)

    def uploaded(self, response: Response) -> str:
        return required(dict_of(object_of(response).get("file")).get("name"), "a file", response)

    def create(self, key: str, file: str, options: Options) -> Request:  # noqa: ARG002 (they are in the lines)
        url = self.url(f"/models/{quote(_bare(self.codec.target.model))}:asyncBatchEmbedContent")
        # The names as python-genai sends them.
        job = {"batch": {"displayName": key, "inputConfig": {"file_name": file}}}
        return Request(url, to_json(job), JSON)

    def poll(self, job: str) -> Request:
        return Request(self.url(f"/{named(job)}"), b"", JSON, "GET")

    def cancel(self, job: str) -> Request:
        return Request(self.url(f"/{named(job)}:cancel"), b"", JSON)

    def listing(self, after: str | None) -> Request:
        query = {"pageSize": 100, **({"pageToken": after} if after else {})}
        return Request(self.url("/batches", **query), b"", JSON, "GET")

    def content(self, file: str) -> Request:
        return Request(self.url(f"/download|/{named(file)}:download", alt="media"), b"", {}, "GET")

    def listed(self, response: Response, after: str | None) -> tuple[list[Batch], str | None]:  # noqa: ARG002
        page = object_of(response)
        found = [
            self.described(each, response)
            for name in ("operations", "batches")
            for each in dicts_of(page.get(name))
            if each.get("name")
        ]
        return found, text_of(page.get("nextPageToken")) or None

    def described(self, job: Mapping[str, Any], response: Response) -> Batch:
        told, error = dict_of(job.get("metadata")), dict_of(job.get("error"))
        said, stats = text_of(told.get("state")), dict_of(told.get("batchStats"))
        output = {**dict_of(job.get("response")), **dict_of(told.get("output"))}
        inline = next(
            filter(None, map(output.get, ("inlinedEmbedContentResponses", "inlinedResponses"))), None
        )  # its pages and its client disagree about the name
        total, pending = whole_number(stats.get("requestCount")), whole_number(stats.get("pendingRequestCount"))
        state = state_of(said)
        if state == "running" and job.get("done") is True:  # an operation is over, whatever its state is called
            state = "failed" if error else "done"
        return Batch(
            id=required(job.get("name"), "a job", response),
            state=state,
            said=said,
            key=text_of(told.get("displayName")),
            files=names_of(output.get("responsesFile")),
            answers=tuple(to_json(each) for each in dicts_of(dict_of(inline).get("inlinedResponses"))),
            total=total,
            finished=None if total is None or pending is None else total - pending,
            refusal=refused(error) if error and state == "failed" else None,
        )

    def answer(self, line: bytes) -> Answer:
        try:
            found = _lines.decode(line)
        except UNREADABLE as error:
            msg = f"no line of answers: {error}"
            raise DecodeError(msg) from None
        key = key_of(found.key or dict_of(found.metadata).get("key"))
        if (body := bytes(found.response)) not in _NOTHING:
            return Answer(key, Response(200, {}, body))
        # A page says that each line is an EmbedContentResponse.
        whole = bytes(found.embedding) not in _NOTHING
        return Answer(key, Response(200, {}, line) if whole else refused(found.error))


def _bare(model: str) -> str:
    """The name without the collection that Google's own pages put before it."""
    return model.removeprefix("models/")


def _keyed(request: Request, credentials: Mapping[str, str], now: float) -> Request:  # noqa: ARG001 (an `authorize`)
    """The key in a header. It may also stand in the URL, but then every log would hold it."""
    key = credentials.get("api_key")
    return with_headers(request, {"x-goog-api-key": key}) if key else request


HOSTS = (
    Host(
        name="gemini", dialect=Gemini, base_url="https://generativelanguage.googleapis.com/v1", version_path="/v1",
        key_variables=("GOOGLE_API_KEY", "GEMINI_API_KEY"), key_required=True, start=100, ceiling=128,
        own_domains=("generativelanguage.googleapis.com",),
        routes=("/models/{model}:{verb}", "/models/{model}", "/models", "/openai/embeddings", "/openai"),
        # "at most 100 requests can be in one batch"
        authorize=_keyed, static_auth=True, catalog_name=_bare, limits=Limits(max_texts=100), batches=GeminiBatches,
    ),
)  # fmt: skip
