"""What providers say of batch jobs, read: states, objects, lines of answers."""

from __future__ import annotations

import json

import pytest

import embedkit
from embedkit._types import Options
from embedkit.codec import named, state_of
from embedkit.codec.error_mapping import error_from_response
from embedkit.errors import DecodeError, ServerError
from embedkit.testing import FakeExchange, response

MODELS = {
    "openai": "openai:text-embedding-3-small", "voyage": "voyage:voyage-3.5", "mistral": "mistral:mistral-embed",
    "gemini": "gemini:gemini-embedding-001",
}  # fmt: skip


def api(name, **more):
    return embedkit.connect(MODELS[name], api_key="k-123456", exchange=FakeExchange([]), **more).batches()


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("validating", "running"), ("in_progress", "running"), ("finalizing", "running"), ("cancelling", "running"),
        ("canceling", "running"), ("QUEUED", "running"), ("CANCELLATION_REQUESTED", "running"), ("", "running"),
        ("BATCH_STATE_PENDING", "running"), ("BATCH_STATE_UNSPECIFIED", "running"), ("a state to come", "running"),
        ("completed", "done"), ("partially_completed", "done"), ("SUCCESS", "done"), ("BATCH_STATE_SUCCEEDED", "done"),
        ("JOB_STATE_SUCCEEDED", "done"), ("expired", "expired"), ("TIMEOUT_EXCEEDED", "expired"),
        ("BATCH_STATE_EXPIRED", "expired"), ("cancelled", "cancelled"), ("canceled", "cancelled"),
        ("BATCH_STATE_CANCELLED", "cancelled"), ("CANCELLED", "cancelled"), ("failed", "failed"), ("FAILED", "failed"),
        ("BATCH_STATE_FAILED", "failed"),
    ],
)  # fmt: skip
def test_states_of_all_providers(said, state):
    """Every state that a page names means what it says; any other is one that goes on."""
    assert state_of(said) == state


def line(**fields):
    return json.dumps({"id": "x", "custom_id": "0-1", "response": None, "error": None, **fields}).encode()


@pytest.mark.parametrize(
    ("name", "given", "status", "kind"),
    [
        ("openai", line(response={"status_code": 200, "body": {"data": []}}), 200, None),
        ("openai", line(response={"status_code": 400, "body": {"error": {"message": "no"}}}), 400, "InvalidInputError"),
        ("openai", line(response={"status_code": 429, "body": {"error": {"message": "slow"}}}), 429, "RateLimitError"),
        ("openai", line(error={"code": "batch_expired", "message": "late"}), 503, "ServerError"),
        ("openai", line(error={"code": "batch_cancelled", "message": "late"}), 503, "ServerError"),
        ("openai", line(error={"code": "request_timeout", "message": "late"}), 503, "ServerError"),
        ("openai", line(error={"code": "a code to come", "message": "what"}), 500, "ServerError"),
        ("openai", line(), 503, "ServerError"),
        ("openai", line(error="text"), 503, "ServerError"),
        ("openai", line(response={}), 503, "ServerError"),
        ("openai", line(response={"status_code": "two hundred", "body": {"data": []}}), 200, None),
        ("voyage", line(response={"status_code": 500, "message": "it broke"}), 500, "ServerError"),
        ("voyage", line(response={"status_code": 400}), 400, "InvalidInputError"),
        ("mistral", line(response={"status_code": 422, "body": {"detail": "no"}}), 422, "InvalidInputError"),
        ("gemini", b'{"key": "0-1", "response": {"embedding": {"values": [1]}}}', 200, None),
        ("gemini", b'{"metadata": {"key": "0-1"}, "response": {"embedding": {"values": [1]}}}', 200, None),
        ("gemini", b'{"key": "0-1", "embedding": {"values": [1]}}', 200, None),
        ("gemini", b'{"key": "0-1", "error": {"code": 3, "message": "no"}}', 400, "InvalidInputError"),
        ("gemini", b'{"key": "0-1", "error": {"code": 8, "message": "full"}}', 429, "RateLimitError"),
        ("gemini", b'{"key": "0-1", "error": {"code": 13, "message": "oh"}}', 500, "ServerError"),
        ("gemini", b'{"key": "0-1", "error": {"code": 503, "message": "oh"}}', 503, "ServerError"),
        ("gemini", b'{"key": "0-1", "response": null}', 503, "ServerError"),
        ("gemini", b'{"key": "0-1"}', 503, "ServerError"),
    ],
)  # fmt: skip
def test_a_line_is_the_response_that_its_request_would_have_got(name, given, status, kind):
    """Refusals of every shape become typed errors; those that say that a line was not run are worth another try."""
    answer = api(name).answer(given)

    assert (answer.key, answer.response.status) == ("0-1", status)
    if kind is not None:
        error = error_from_response(answer.response, provider="", model="", message="", now=0.0)
        assert type(error).__name__ == kind
        assert error.retryable == (kind in ("ServerError", "RateLimitError"))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "given", [b"", b"{", b"null", b"[]", b"7", b'"a"', b"\xff\xfe", b"{}", b'{"custom_id": 7, "key": 7}', b"[" * 10**5]
)
def test_what_is_no_line_is_a_decode_error(name, given):
    """Whatever stands in a file of answers, it is an answer or a DecodeError."""
    with pytest.raises(DecodeError):
        api(name).answer(given)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("body", [b"", b"[]", b"oops", b"{}", b'{"id": 7, "name": null}', b'{"id": "", "name": ""}'])
def test_what_is_no_job_and_no_file_is_a_decode_error(name, body):
    """A success without the id that is asked for breaks the contract."""
    for read in (api(name).batch, api(name).uploaded):
        with pytest.raises(DecodeError):
            read(response(body))


@pytest.mark.parametrize("name", ["..", "a/../b", "/a", "a//b", "", ".", "files/.."])
def test_a_name_leads_nowhere_else(name):
    """An id from a reply becomes part of a URL; one that would lead to another route is refused."""
    with pytest.raises(DecodeError, match="which is no name"):
        named(name)


def test_names_are_escaped():
    """What has a meaning in a URL loses it."""
    assert named("file-1?x=#&") == "file-1%3Fx%3D%23%26"
    assert named("files/abc_1.z") == "files/abc_1.z"


def test_the_multipart_body_has_one_file():
    """The content of the upload is the file, byte for byte, even where it holds what looks like a boundary."""
    content = b'{"a": "\r\n--embedkit-\r\n"}\n' * 3
    request = api("openai").upload("k.jsonl", content, None)
    boundary = request.headers["content-type"].partition("boundary=")[2].encode()
    parts = request.body.split(b"--" + boundary)

    assert len(parts) == 4
    assert parts[2].partition(b"\r\n\r\n")[2] == content + b"\r\n"


def test_a_query_of_the_base_url_stays():
    """A base URL with a query, as of a gateway, keeps it on every route."""
    batches = api("openai", base_url="https://gateway.test/v1?tenant=a")

    assert batches.listing("b").url == "https://gateway.test/v1/batches?tenant=a&limit=100&after=b"
    assert batches.poll("b").url == "https://gateway.test/v1/batches/b?tenant=a"
    assert json.loads(batches.line("k", ["a"], Options()))["url"] == "/v1/embeddings"


def test_contextualized_models_have_their_own_route():
    """Voyage's contextualized models take documents, at a route of their own, in jobs as elsewhere."""
    batches = embedkit.connect("voyage:voyage-context-3", api_key="k-123456").batches()

    assert json.loads(batches.line("k", ["a", "b"], Options())) == {
        "custom_id": "k",
        "body": {"inputs": [["a"], ["b"]]},
    }
    job = json.loads(batches.create("k", "f", Options(dimensions=512)).body)
    assert job["endpoint"] == "/v1/contextualizedembeddings"
    assert job["request_params"] == {"model": "voyage-context-3", "output_dimension": 512}


@pytest.mark.parametrize("name", MODELS)
def test_a_failed_job_says_why(name):
    """The first error of a failed job is its refusal, and one about tokens that wait is one that waiting cures."""
    shown = {
        "openai": {
            "id": "b",
            "status": "failed",
            "errors": {"data": [{"code": "token_limit_exceeded", "message": "m"}]},
        },
        "mistral": {"id": "b", "status": "FAILED", "errors": [{"message": "token_limit_exceeded", "count": 2}]},
        "gemini": {
            "name": "batches/b",
            "metadata": {"state": "BATCH_STATE_FAILED"},
            "error": {"code": 8, "status": "RESOURCE_EXHAUSTED", "message": "m"},
        },
    }
    job = api(name).batch(response(shown.get(name, shown["openai"])))

    assert job.state == "failed"
    assert job.refusal.status == 429


def test_an_error_of_a_code_nobody_knows_is_worth_another_try():
    """A line that failed for a reason that no page names is tried again rather than given up."""
    answer = api("openai").answer(line(error={"code": "cosmic_ray", "message": "a bit flipped"}))
    error = error_from_response(answer.response, provider="", model="", message="", now=0.0)

    assert isinstance(error, ServerError)
    assert error.retryable
    assert "a bit flipped" in str(error)


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ({"done": True, "response": {"responsesFile": "files/a"}}, "done"),
        ({"done": True, "error": {"code": 13, "message": "oh"}}, "failed"),
        ({"done": True, "metadata": {"state": "BATCH_STATE_EXPIRED"}}, "expired"),
        ({"done": False, "metadata": {"state": "BATCH_STATE_NEW"}}, "running"),
        ({"metadata": {"state": "BATCH_STATE_RUNNING"}}, "running"),
    ],
)
def test_an_operation_that_is_done_is_not_waited_for(told, state):
    """Google's operations say by `done` that they are over, also where they name no state, or one nobody knows."""
    found = api("gemini").batch(response({"name": "batches/b", **told}))

    assert found.state == state
    assert found.files == (("files/a",) if "response" in told else ())
