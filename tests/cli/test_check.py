"""`embedkit check`: what one word, embedded twice, tells."""

from __future__ import annotations

import json

import numpy as np

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
    assert (said.pop("base64"), said.pop("inputs")) == ("asked for", "makes no difference")
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

    assert (code, said["dimensions"], said["base64"], said["inputs"]) == (0, 3, True, [])
    assert len(said["latency"]) == 2
