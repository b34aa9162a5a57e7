"""Batch jobs: what a provider's API for them is asked, and what it answers. Pure, like a dialect.

A job is a file of *lines*, each of them one request with a key of ours (`custom_id`), uploaded, run by the provider
within hours at a lower price, and answered by files of lines in any order. The lines hold the bodies that the
dialect's own `encode` writes, and what comes back is read by its `decode`.

Rules that hold everywhere: join on the key, never on the place; a state that is not known is one that goes on; read
every file in every final state; nothing keeps a `create` that is sent twice from making two jobs, so each carries a key
of ours by which it is found in the list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, ClassVar, Literal
from urllib.parse import quote, urlencode

import msgspec

from .._types import Options, Request, Response
from ..errors import DecodeError
from .contract import JSON, UNREADABLE, to_json
from .dialect import Dialect
from .reply import text_of, whole_number

State = Literal["running", "done", "expired", "cancelled", "failed"]
MARK = "embedkit"  # the name in `metadata` under which our key stands
_FINAL: Mapping[str, State] = {
    "completed": "done", "partially_completed": "done", "success": "done", "succeeded": "done",
    "expired": "expired", "timeout_exceeded": "expired",
    "cancelled": "cancelled", "canceled": "cancelled",
    "failed": "failed",
}  # fmt: skip
# The job, or the account's jobs together, hold more tokens than may wait at once: a failure that waiting cures.
_FULL = r"token_limit_exceeded|enqueued token limit|RESOURCE_EXHAUSTED|rate.?limit"
# Codes of a line that was never answered: the window ended, the job was cancelled, the model took too long.
_UNANSWERED = ("batch_expired", "batch_cancelled", "batch_canceled", "request_timeout")
# google.rpc.Code → the HTTP status that means it (googleapis, google/rpc/code.proto).
_RPC = {
    1: 503, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 11: 400, 12: 501, 14: 503, 16: 401,
}  # fmt: skip
_ERRORS, _UNKNOWN = 400, 500


class Caps(msgspec.Struct, frozen=True, kw_only=True):
    """What one job may hold, and how many there may be.

    Attributes:
        lines: of a file.
        inputs: texts of a job, over all its lines.
        bytes: of a file.
        texts: of one line.
        jobs: unfinished ones at a time.
        full: seconds to wait where the provider takes no further job at present.
    """

    lines: int
    inputs: int
    bytes: int
    texts: int = 1
    jobs: int = 16
    full: float = 300.0


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A job as the provider tells of it.

    Attributes:
        id: its name there.
        state: where it stands.
        said: the same in the provider's own word.
        key: ours, by which it is found; empty: it is another's.
        files: of answers; there may be none.
        answers: lines that came with it, in place of a file.
        total, finished: lines, as counted there; None: not told.
        refusal: why it failed, as the response that a request would have got; None: it did not, or nothing says why.
    """

    id: str
    state: State = "running"
    said: str = ""
    key: str = ""
    files: tuple[str, ...] = ()
    answers: tuple[bytes, ...] = ()
    total: int | None = None
    finished: int | None = None
    refusal: Response | None = None


class Answer(msgspec.Struct, frozen=True):
    """What came back for one line: its key, and the response that the same request would have got by itself."""

    key: str
    response: Response


class Batches(msgspec.Struct, frozen=True):
    """The batch jobs of one provider and model, as OpenAI has them; others override what they have otherwise.

    Sources: openai-python, `types/batch.py`, `resources/files.py`; developers.openai.com, API reference, batches.
    """

    codec: Dialect
    caps: ClassVar[Caps]
    jobs: ClassVar[str] = "/batches"
    window: ClassVar[str] = "24h"

    def url(self, route: str, **query: Any) -> str:
        """The base URL with this route and query."""
        url = self.codec.target.url(route)
        return url + ("&" if "?" in url else "?") + urlencode(query) if query else url

    # --- requests ----------------------------------------------------------------------------------------------------

    def line(self, key: str, texts: Sequence[str], options: Options) -> bytes:
        """One line of a file, without its end.

        Raises:
            ConfigError: an option cannot be honored.
        """
        request = self.codec.encode(texts, options)
        fields = to_json({"custom_id": key, "method": "POST", "url": self.endpoint(request)})
        return b'%b,"body":%b}' % (fields[:-1], request.body)

    def endpoint(self, request: Request) -> str:
        """The route of a request as a job names it."""
        return "/v1" + request.url.partition("?")[0].removeprefix(self.codec.target.url("").partition("?")[0])

    def begin_upload(self, name: str, size: int) -> Request | None:  # noqa: ARG002 (for those who have such a step)
        """What is asked before the upload, whose `upload` then gets the response; None: nothing is."""
        return None

    def upload(self, name: str, content: bytes, begun: Response | None) -> Request:  # noqa: ARG002
        """The upload of a file. Sent twice it leaves a file that nobody uses, and no more."""
        boundary = f"embedkit-{blake2b(content, digest_size=16).hexdigest()}"
        body = (
            f'--{boundary}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="{name}"\r\n'
            "content-type: application/jsonl\r\n\r\n"
        )
        headers = {"content-type": f"multipart/form-data; boundary={boundary}", "accept": "application/json"}
        return Request(
            self.url("/files"), b"".join((body.encode(), content, f"\r\n--{boundary}--\r\n".encode())), headers
        )

    def create(self, key: str, file: str, options: Options) -> Request:
        """A new job of an uploaded file."""
        endpoint = self.endpoint(self.codec.encode(["a"], options))
        body = {"input_file_id": file, "endpoint": endpoint, "completion_window": self.window, "metadata": {MARK: key}}
        return Request(self.url(self.jobs), to_json(body), JSON)

    def poll(self, job: str) -> Request:
        """How a job stands."""
        return Request(self.url(f"{self.jobs}/{named(job)}"), b"", JSON, "GET")

    def cancel(self, job: str) -> Request:
        """Stop a job; what is finished is delivered."""
        return Request(self.url(f"{self.jobs}/{named(job)}/cancel"), b"", JSON)

    def listing(self, after: str | None) -> Request:
        """A page of the account's jobs, the first or the one at a mark that `listed` gave."""
        return Request(self.url(self.jobs, limit=100, **({"after": after} if after else {})), b"", JSON, "GET")

    def content(self, file: str) -> Request:
        """A file of answers."""
        return Request(self.url(f"/files/{named(file)}/content"), b"", {}, "GET")

    # --- responses ---------------------------------------------------------------------------------------------------

    def uploaded(self, response: Response) -> str:
        """The name of the file that was uploaded."""
        return required(object_of(response).get("id"), "a file", response)

    def batch(self, response: Response) -> Batch:
        """The job that a response describes."""
        return self.described(object_of(response), response)

    def listed(self, response: Response, after: str | None) -> tuple[list[Batch], str | None]:  # noqa: ARG002
        """The jobs of the page at a mark, and the mark of the next; None: it is the last."""
        page = object_of(response)
        found = [self.described(each, response) for each in dicts_of(page.get("data"))]
        return found, found[-1].id if found and page.get("has_more") is not False else None

    def described(self, job: Mapping[str, Any], response: Response) -> Batch:
        """The same of its JSON object."""
        said, counts = text_of(job.get("status")), dict_of(job.get("request_counts"))
        done, failed = whole_number(counts.get("completed")), whole_number(counts.get("failed"))
        return Batch(
            id=required(job.get("id"), "a job", response),
            state=state_of(said),
            said=said,
            key=text_of(dict_of(job.get("metadata")).get(MARK)),
            files=names_of(job.get("output_file_id"), job.get("error_file_id")),
            total=whole_number(counts.get("total")),
            finished=None if done is None else done + (failed or 0),
            refusal=_refused(dicts_of(dict_of(job.get("errors")).get("data"))) if state_of(said) == "failed" else None,
        )

    def answer(self, line: bytes) -> Answer:
        """One line of a file of answers.

        Raises:
            DecodeError: it is none.
        """
        found = _line_of(line)
        return Answer(key_of(found.custom_id), _response(found))


def state_of(said: str) -> State:
    """The state that a provider's word means; "running" for any that is not known to be final."""
    return _FINAL.get(re.sub(r"^(batch|job)_state_", "", said.lower()), "running")


def named(name: str) -> str:
    """A name given by the provider, as a part of a URL.

    Raises:
        DecodeError: it would lead elsewhere.
    """
    if not name or any(not part.strip(".") for part in name.split("/")):
        msg = f"the provider named something {name!r}, which is no name"
        raise DecodeError(msg)
    return quote(name, safe="/")


def failure(status: int, message: str, code: object = None) -> Response:
    """A refusal with these words, as `error_from_response` reads it."""
    return Response(status, {}, to_json({"error": {"message": message, "code": code}}))


class _Body(msgspec.Struct, frozen=True):
    status_code: Any = None
    body: msgspec.Raw = msgspec.Raw()
    message: Any = None  # Voyage, in place of a body


class _Line(msgspec.Struct, frozen=True):
    custom_id: Any = None
    response: _Body | None = None
    error: Any = None


_lines = msgspec.json.Decoder(_Line)


def _line_of(line: bytes) -> _Line:
    try:
        return _lines.decode(line)
    except UNREADABLE as error:
        msg = f"no line of answers: {error}"
        raise DecodeError(msg) from None


def key_of(key: Any) -> str:
    """Our key in a line; DecodeError where it has none."""
    if not isinstance(key, str) or not key:
        msg = "a line of answers without a key"
        raise DecodeError(msg)
    return key


def _response(line: _Line) -> Response:
    """The response in a line; that of a line that has none says why."""
    got, error = line.response, line.error
    if got is None or (got.status_code is None and not bytes(got.body)):
        return refused(error)
    status = whole_number(got.status_code)
    if status is None or not 100 <= status <= 599:  # noqa: PLR2004 (no HTTP status)
        status = _UNKNOWN if error else 200
    body = bytes(got.body)
    if status >= _ERRORS and body in (b"", b"null"):
        return failure(status, text_of(got.message) or "the line failed, and nothing says why")
    return Response(status, {}, body)


def refused(error: Any) -> Response:
    """The refusal that the `error` of a line is: {code, message}, of OpenAI's words or Google's numbers."""
    found = dict_of(error)
    code, message = found.get("code"), text_of(found.get("message"))
    if code in _UNANSWERED or not found:
        return failure(503, message or "the line was not answered", code)
    number, said = whole_number(code), f"{code} {message}"
    if re.search(_FULL, said, re.IGNORECASE):
        return failure(429, message or said, code)
    if number is None:
        return failure(_UNKNOWN, message or said, code)
    return failure(number if number >= _ERRORS else _RPC.get(number, _UNKNOWN), message, text_of(found.get("status")))


def _refused(errors: Sequence[Mapping[str, Any]]) -> Response | None:
    """Why a job failed: its first error; None where it has none."""
    if not errors:
        return None
    first = errors[0]
    line = whole_number(first.get("line"))
    where = f" (line {line} of the file)" if line is not None else ""
    return job_failure(text_of(first.get("message")) + where, first.get("code"))


def job_failure(message: str, code: object = None) -> Response:
    """The refusal that the failure of a whole job is."""
    full = re.search(_FULL, f"{code} {message}", re.IGNORECASE) is not None
    return failure(429 if full else _ERRORS, message or f"the job failed: {code}", code)


def object_of(response: Response) -> dict[str, Any]:
    """The JSON object in a body; DecodeError where there is none."""
    try:
        found = msgspec.json.decode(response.body)
    except UNREADABLE:
        found = None
    if not isinstance(found, dict):
        msg = f"a JSON object was expected, and {len(response.body)} bytes of something else came"
        raise DecodeError(msg)
    return found


def required(name: Any, what: str, response: Response) -> str:
    """The id of what a response describes; DecodeError where it has none."""
    if not isinstance(name, str) or not name:
        msg = f"the provider answered {response.status} with {what} that has no id"
        raise DecodeError(msg)
    return name


def dict_of(value: Any) -> dict[str, Any]:
    """An object of a reply; empty where it is none."""
    return value if isinstance(value, dict) else {}


def dicts_of(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; none where it is no list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def names_of(*names: Any) -> tuple[str, ...]:
    """Those of these that are names."""
    return tuple(name for name in names if isinstance(name, str) and name)


__all__ = [
    "MARK",
    "Answer",
    "Batch",
    "Batches",
    "Caps",
    "State",
    "dict_of",
    "dicts_of",
    "failure",
    "job_failure",
    "key_of",
    "named",
    "names_of",
    "object_of",
    "refused",
    "required",
    "state_of",
]
