"""Mistral: OpenAI's dialect for embeddings, and batch jobs of its own. docs.mistral.ai, capabilities/batch"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from .._types import Limits, Options, Request, Response
from ..codec import (
    JSON,
    MARK,
    Batch,
    Batches,
    Caps,
    Host,
    dict_of,
    dicts_of,
    job_failure,
    names_of,
    object_of,
    required,
    state_of,
    text_of,
    to_json,
    whole_number,
)
from .openai import OpenAI

PAGE = 100  # jobs of one page of the list


class MistralBatches(Batches, frozen=True):
    """Mistral's batch jobs: the model stands in the job, not in the lines (mistralai, models/createbatchjobrequest.py).

    Its pages disagree about the lines of a file (100,000 or a million), so the smaller number holds, and say that
    results are kept for 24 hours.
    """

    caps: ClassVar[Caps] = Caps(lines=100_000, inputs=100_000, bytes=500_000_000, texts=32)
    jobs: ClassVar[str] = "/batch/jobs"

    def line(self, key: str, texts: Sequence[str], options: Options) -> bytes:
        body: dict[str, Any] = msgspec.json.decode(self.codec.encode(texts, options).body)
        return to_json({"custom_id": key, "body": {name: body[name] for name in body if name != "model"}})

    def create(self, key: str, file: str, options: Options) -> Request:
        job = {
            "input_files": [file],
            "endpoint": self.endpoint(self.codec.encode(["a"], options)),
            "model": self.codec.target.model,
            "metadata": {MARK: key},
            "timeout_hours": 24,
        }
        return Request(self.url(self.jobs), to_json(job), JSON)

    def listing(self, after: str | None) -> Request:
        url = self.url(self.jobs, page=int(after or 0), page_size=PAGE, order_by="-created")
        return Request(url, b"", JSON, "GET")

    def listed(self, response: Response, after: str | None) -> tuple[list[Batch], str | None]:
        found = [self.described(each, response) for each in dicts_of(object_of(response).get("data"))]
        return found, str(int(after or 0) + 1) if found else None

    def described(self, job: Mapping[str, Any], response: Response) -> Batch:
        said, errors = text_of(job.get("status")), dicts_of(job.get("errors"))
        message = "; ".join(text_of(each.get("message")) for each in errors[:3])
        return Batch(
            id=required(job.get("id"), "a job", response),
            state=state_of(said),
            said=said,
            key=text_of(dict_of(job.get("metadata")).get(MARK)),
            files=names_of(job.get("output_file"), job.get("error_file")),
            total=whole_number(job.get("total_requests")),
            finished=whole_number(job.get("completed_requests")),
            refusal=job_failure(message) if errors and state_of(said) == "failed" else None,
        )


HOSTS = (
    # Strict: an unknown field is a 422 (docs.mistral.ai). It limits tokens and texts (chroma-core/chroma#5597), and
    # answers floats to base64.
    Host(
        name="mistral", dialect=OpenAI, base_url="https://api.mistral.ai/v1", version_path="/v1",
        key_variables=("MISTRAL_API_KEY",), key_required=True, start=100, ceiling=128, own_domains=("mistral.ai",),
        quirks={"encoding": "float", "width_field": "output_dimension", "dtype_field": "output_dtype"},
        limits=Limits(max_texts=256, max_tokens=14_000, max_text_tokens=8192),  # of 16,384: the count is an estimate
        batches=MistralBatches,
    ),
)  # fmt: skip
