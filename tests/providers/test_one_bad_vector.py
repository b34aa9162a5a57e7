"""One unusable vector of a reply, at every host: its row fails, and all others come as they were sent."""

from __future__ import annotations

import json
import re

import msgspec
import numpy as np
import pytest

import embedkit
from embedkit.testing import FakeExchange, _listed, _put, _vector, response
from tests.providers.test_conformance import HOSTS, successes

pytestmark = pytest.mark.anyio

COUNT, WIDTH, BAD = 5, 96, 3
ROWS = np.random.default_rng(7).standard_normal((COUNT, WIDTH)).astype("f4")
ROWS /= np.linalg.norm(ROWS, axis=1, keepdims=True)
NUMBERS = [[float(str(value)) for value in row] for row in ROWS]
MARK = "the bad vector"
SPOILT = {
    "null": "null",
    "nulls": "[" + ",".join(["null"] * WIDTH) + "]",
    "empty": "[]",
    "NaN": "[" + ",".join(["NaN"] * WIDTH) + "]",
    "infinite": "[" + ",".join(["-Infinity", *map(str, NUMBERS[BAD][1:])]) + "]",
    "short": json.dumps(NUMBERS[BAD][:-1]),
    "words": '"out of memory"',
    "an object": '{"error": "out of memory"}',
}


def of_lists(name):
    """(golden, its body, where the list is, an item) of each shape in which a host answers several texts."""
    found = {}
    for golden in successes(name):
        body = golden["response"]["body"]
        body = json.loads(body) if isinstance(body, str) and body[:1] in ("{", "[") else body
        where, items = _listed(body, len(golden["texts"])) if isinstance(body, (dict, list)) else ((), [])
        if items and golden.get("options", {}).get("dtype") is None and "pooling" not in golden["connect"]:
            found.setdefault((where, _vector(items[0])[0]), (golden, body, where, items[0]))
    return list(found.values())


def server(case, spoilt, mark_of_order=b""):
    """Answers each text with its row, one of them spoilt."""
    golden, body, where, item = case
    path = _vector(item)[0]

    def serve(request):
        # In whatever field a dialect puts them.
        asked = list(map(int, re.findall(r"text number (\d)", request.body.decode())))
        items = [_put(item, path, MARK if row == BAD and spoilt else NUMBERS[row]) for row in asked]
        items = [{**each, "index": place} if "index" in each else each for place, each in enumerate(items)]
        text = json.dumps(_put(body, where, items)).replace(json.dumps(MARK), spoilt)
        return response(mark_of_order + text.encode(), 200, golden["response"].get("headers"))

    return serve


async def embedded(golden, serve, **options):
    embedder = embedkit.connect(
        **{"retry": embedkit.RetryPolicy(attempts=1), **golden["connect"], "exchange": FakeExchange(serve)}
    )
    embedder.skip_probe(response(golden["probe"]) if "probe" in golden else None)
    return await embedder.embed([f"text number {row}" for row in range(COUNT)], normalize=True, **options)


CASES = [
    pytest.param(case, id=f"{name}-{place}") for name in sorted(HOSTS) for place, case in enumerate(of_lists(name))
]


@pytest.mark.parametrize("case", CASES)
async def test_one_bad_vector_costs_one_row(case):
    """Null, empty, NaN, infinite, too short, words: with "skip" that row fails alone, with "raise" it is named; either
    with the server's own words where there are some.
    """
    good = [row for row in range(COUNT) if row != BAD]
    for what, spoilt in SPOILT.items():
        result = await embedded(case[0], server(case, spoilt), on_error="skip")

        assert list(result.failures) == [BAD], what
        assert ("out of memory" in str(result.failures[BAD])) == ("out of memory" in spoilt), what
        assert np.allclose(result.vectors[good], ROWS[good], atol=1e-5), what
        with pytest.raises(embedkit.EmbedkitError) as caught:
            await embedded(case[0], server(case, spoilt))
        assert caught.value.rows == (BAD,), what
        assert ("out of memory" in str(caught.value)) == ("out of memory" in spoilt), what
        assert np.allclose(caught.value.partial.vectors[good], ROWS[good], atol=1e-5), what


@pytest.mark.parametrize("case", CASES)
async def test_a_mark_of_order_before_good_vectors_costs_nothing(case):
    """UTF-8's byte order mark, which some gateways write, is skipped at every host."""
    result = await embedded(case[0], server(case, "", b"\xef\xbb\xbf"))

    assert np.allclose(result.vectors, ROWS, atol=1e-5)


@pytest.mark.parametrize("bad", [0, 2, COUNT - 1])
@pytest.mark.parametrize("case", CASES)
async def test_a_text_that_the_server_leaves_out_moves_no_other_row(case, bad):
    """The server drops a text in silence and numbers the others anew: they are found by smaller requests."""
    whole = server(case, "")

    def serve(request):
        lost = re.sub(rb"text number %d" % bad, b"text that is lost", request.body)
        known = b"text number" in request.body
        body = lost if known else request.body + b"text number 1"  # a text of embedkit's own is answered
        return whole(msgspec.structs.replace(request, body=body))

    good = [row for row in range(COUNT) if row != bad]
    result = await embedded(case[0], serve, on_error="skip")

    assert list(result.failures) == [bad]
    assert np.allclose(result.vectors[good], ROWS[good], atol=1e-5)
    with pytest.raises(embedkit.EmbedkitError) as caught:
        await embedded(case[0], serve)
    if (partial := caught.value.partial) is not None:
        there = np.isfinite(partial.vectors).all(axis=1)
        assert np.allclose(partial.vectors[there], ROWS[there], atol=1e-5)


def test_every_host_is_asked():
    """None is left out because its goldens have no list of vectors."""
    assert {case.id.rpartition("-")[0] for case in CASES} == {*HOSTS}
