"""`embedkit check`: what one word, embedded twice, tells."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from embedkit.cli.rate_limits import rate_limits, spelled
from tests.cli.running import embedkit_
from tests.support.servers.api import Api, vector


def test_check_says_what_came_back(api):
    """Where, what, how wide, how long, how fast, how it counts."""
    code, stdout, stderr = embedkit_(
        "check", "compatible:m", "--base-url", api.url.replace("http://", "http://user:secret@")
    )
    said = dict(line.split(maxsplit=1) for line in stdout.splitlines())

    assert (code, stderr) == (0, "")
    assert said.pop("latency").split()[1:5] == ["ms", "the", "first", "time,"]
    assert said.pop("narrower").startswith("no")
    del said["request"]
    assert (said.pop("base64"), said.pop("inputs")) == ("asked for, but numbers came", "makes no difference")
    assert said.pop("rate") == "limits none sent"
    assert said == {
        "provider": "compatible", "address": api.url, "model": "m", "dimensions": "3",
        "norm": f"{np.linalg.norm(vector('hello')):.4f}",
        "tokens": "1 for one word",
    }  # fmt: skip
    assert len(api.bodies) == 3


def test_check_of_a_server_that_says_less():
    """A server with another name for its model and no usage: both are said. A smaller type has no norm."""
    answer = {"data": [{"embedding": [0.6, 0.8] * 4}], "model": "its own name"}
    with Api(*[(200, {}, answer)] * 20) as api:
        _, stdout, _ = embedkit_("check", "--base-url", api.url)
        _, packed, _ = embedkit_("check", "--base-url", api.url, "--dtype", "ubinary")

    assert "model       m (it calls itself its own name)\n" in stdout
    assert "tokens      not reported\n" in stdout
    assert "dimensions  8\n" in packed
    assert "type        ubinary\n" in packed
    assert "norm" not in packed


def test_check_gives_up_at_once():
    """A check that retries for minutes is none: one attempt."""
    with Api((503, {}, {"error": {"message": "warming up"}})) as api:
        code, _, stderr = embedkit_("check", "--base-url", api.url)

    assert (code, len(api.bodies)) == (1, 1)
    assert "warming up (status 503)" in stderr


def test_check_as_json(api):
    """--json says the same in one object."""
    code, stdout, _ = embedkit_("check", "--base-url", api.url, "--json")
    said = json.loads(stdout)

    assert (code, said["dimensions"], said["inputs"], said["rate_limits"]) == (0, 3, [], {})
    assert said["base64"] == {"asked": True, "answered": False}
    assert len(said["latency"]) == 2


GRANTED = {
    "x-ratelimit-limit-requests": "5000", "x-ratelimit-remaining-requests": "4999", "x-ratelimit-reset-requests": "12ms",
    "x-ratelimit-remaining-tokens": "900", "ratelimit-policy": "60;w=60", "x-request-id": "r-1",
}  # fmt: skip


def test_check_shows_the_rate_limits_of_the_headers():
    """Limit, rest and reset of requests and tokens as they were sent, and whatever other header tells of limits."""
    answer = {"data": [{"embedding": [0.6, 0.8]}], "model": "m"}
    with Api(*[(200, GRANTED, answer)] * 9) as api:
        _, stdout, _ = embedkit_("check", "--base-url", api.url)
        _, as_json, _ = embedkit_("check", "--base-url", api.url, "--json")

    assert (
        "rate limits 4999 of 5000 requests left (reset: 12ms); 900 tokens left; ratelimit-policy: 60;w=60\n" in stdout
    )
    assert json.loads(as_json)["rate_limits"] == {
        "requests": {"limit": "5000", "remaining": "4999", "reset": "12ms"}, "tokens": {"remaining": "900"},
        "others": {"ratelimit-policy": "60;w=60"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, "none sent"),
        ({"date": "today", "x-request-id": "r"}, "none sent"),
        ({"X-RateLimit-Limit-Tokens": "5"}, "at most 5 tokens"),
        ({"x-ratelimit-reset-tokens": "6m0s"}, "tokens (reset: 6m0s)"),
        ({"x-trial-endpoint-call-remaining": "39"}, "x-trial-endpoint-call-remaining: 39"),
        ({"x-tokenlimit-limit": "9", "x-ratelimit-limit": "3"}, "x-tokenlimit-limit: 9; x-ratelimit-limit: 3"),
    ],
)
def test_rate_limits_in_words(headers, said):
    """Whatever part of it is sent, under whatever name, is said once."""
    assert spelled(rate_limits(headers)) == said


def test_check_sees_base64():
    """An endpoint that answers in base64 is told from one that ignores the wish."""
    wide = base64.b64encode(np.ones(96, np.float32).tobytes()).decode()
    for vector_, said in ((wide, "yes"), ([1.0] * 96, "asked for, but numbers came")):
        with Api(*[(200, {}, {"data": [{"embedding": vector_}]})] * 3) as api:
            _, stdout, _ = embedkit_("check", "--base-url", api.url)

        assert f"base64      {said}\n" in stdout
