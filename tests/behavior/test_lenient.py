"""Lenient beside, strict inside: a field that nobody needs
never costs a vector, and what is needed is never guessed.
"""

from __future__ import annotations

import base64
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import embedkit
from embedkit import DecodeError, RetryPolicy
from embedkit.codec import in_order, in_place, tokens_in, whole_number
from embedkit.testing import FakeExchange, _listed, response
from tests.providers.test_conformance import GOLDEN

pytestmark = pytest.mark.anyio
VECTORS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]


async def embedded(body, count=3, attempts=1):
    exchange = FakeExchange(lambda _: body if hasattr(body, "status") else response(body))
    policy = RetryPolicy(attempts=attempts, initial=0.0)
    embedder = embedkit.connect("compatible:m", base_url="http://h/v1", exchange=exchange, retry=policy)
    return await embedder.embed_batch([f"text {row}" for row in range(count)], embedkit.Options())


def numbered(*indices, **beside):
    """A reply whose row with index i has the vector of text i, as far as it is one; None leaves the index out."""
    data = []
    for place, index in enumerate(indices):
        item = {"embedding": VECTORS[place]} if index is None else {"embedding": VECTORS[place], "index": index}
        data.append(item)
    return {"data": data, **beside}


@pytest.mark.parametrize(
    ("indices", "order"),
    [
        ((None, 1, 2), (0, 1, 2)), ((1, None, 2), (1, 0, 2)), ((2, 1, None), (2, 1, 0)),
        ((None, None, None), (0, 1, 2)),
        (("0", "1", "2"), (0, 1, 2)), (("2", "0", "1"), (1, 2, 0)), ((" 1", "+2", "0"), (2, 0, 1)),
        ((2.0, 1.0, 0.0), (2, 1, 0)),
        ((1, 2, 3), (0, 1, 2)), ((3, 1, 2), (1, 2, 0)), ((64, 66, 65), (0, 2, 1)), (("101", "102", "100"), (2, 0, 1)),
        ((2, 0, 1), (1, 2, 0)),
    ],
)  # fmt: skip
async def test_indices_as_servers_write_them(indices, order):
    """Left out where it is 0, as text, as floats, with one constant offset: the rows come in input order."""
    result = await embedded(numbered(*indices))

    assert result.vectors.tolist() == [VECTORS[place] for place in order]


@pytest.mark.parametrize(
    "indices",
    [
        (0, 0, 0), (0, 0, 1), (1, 1, 2), (0, 1, 3), (0, 2, 3), (-1, 0, 1), (None, None, 1), (None, 0, 1), (None, 2, 3),
        (None, 1, 3),
        ("a", "b", "c"), (0.5, 1, 2), ([0], 1, 2), ({}, 1, 2), (True, 0, 2), ("", 1, 2), (10**30, 1, 2), (5, 7, 9),
    ],
)  # fmt: skip
async def test_indices_that_say_nothing_certain_are_refused(indices):
    """Doubled, beyond the end, negative, with gaps, no numbers: no row is guessed."""
    with pytest.raises(DecodeError, match="index"):
        await embedded(numbered(*indices))


@settings(max_examples=200)
@given(st.permutations(range(6)), st.integers(0, 10**9), st.sampled_from(["number", "text", "float"]), st.booleans())
def test_any_permutation_is_obeyed(order, offset, written, without_zero):
    """However it is written, with any offset, or without its zero: row i is that whose index is the i-th smallest."""
    offset = 0 if without_zero else offset
    write = {"number": int, "text": str, "float": float}[written]
    indices = [None if without_zero and index == 0 else write(index + offset) for index in order]
    places = in_order(indices, 6)

    assert [order[place] for place in places or range(6)] == list(range(6))


@settings(max_examples=200)
@given(st.lists(st.integers(-2, 7), min_size=1, max_size=6))
def test_no_other_numbers_are(numbers):
    """Of any six numbers or fewer: a permutation, of all places
    or of some that begin at 0, or an error; never a row twice.
    """

    class Item:
        def __init__(self, index):
            self.index = index

    try:
        found = in_place([Item(number) for number in numbers], 6)
    except DecodeError:
        return
    named = [item.index for item in found if hasattr(item, "index")]
    assert sorted(named) == sorted(numbers)
    if len(found) == 6 and len(numbers) < 6:
        assert 0 in numbers
        assert all(found[number].index == number for number in numbers)


BESIDE: dict[str, list[object]] = {
    "usage": [{"prompt_tokens": 3.0}, {"prompt_tokens": "3"}, {"prompt_tokens": None, "total_tokens": 3},
     {"total_tokens": "3"}],
    "no usage": [[], {}, None, "3", 3, {"prompt_tokens": []}, {"prompt_tokens": -3}, {"prompt_tokens": 3.5},
     {"prompt_tokens": {}}, False],
    "model": [7, None, [], {"name": "m"}, True, 1.5], "object": [7, None, [], "embedding"],
    "created": ["now", None, -1, {}],
    "error": ["", False, None, 0, [], {}], "errors": [[], None, ""], "detail": [None, ""], "id": [None, 7],
    "meta": ["x"], "warnings": [["w"]],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BESIDE.items() for value in values])
async def test_what_stands_beside_costs_no_vector(name, value):
    """Usage, model, object and the rest in any shape; usage is read where it is a number."""
    result = await embedded({**numbered(0, 1, 2), name.removeprefix("no "): value})

    assert result.vectors.tolist() == VECTORS
    assert result.usage.tokens == (3 if name == "usage" else None)


def test_a_whole_number_in_any_spelling():
    """What says a number of tokens or a place, and what does not."""
    assert [whole_number(value) for value in (3, 3.0, "3", " 3 ", "+3")] == [3] * 5
    for value in (3.5, "3.5", "", "three", None, [], {}, True, "३", "1e3", float("nan"), float("inf"), 1e300, "9" * 30):
        assert whole_number(value) is None
    assert tokens_in({"a": None, "b": "4"}, "a", "b") == 4
    assert tokens_in([], "a") is None


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"\xef\xbb\xbf \n", b" \n\t"])
@pytest.mark.parametrize("wide", [3, 400])
@pytest.mark.parametrize("as_base64", [True, False])
async def test_a_byte_order_mark_is_passed_over(mark, wide, as_base64):
    """At any length, before numbers as before base64."""
    values = np.arange(wide, dtype="<f4") / 16
    vector = base64.b64encode(values.tobytes()).decode() if as_base64 else values.tolist()
    result = await embedded(response(mark + json.dumps({"data": [{"embedding": vector}]}).encode()), 1)

    assert result.vectors[0].tolist() == values.tolist()


# --- every dialect ---------------------------------------------------------------------------------------------------


def successes():
    """One golden success of every host, with its body as JSON."""
    found = {}
    for path in sorted(GOLDEN.glob("*/*.json")):
        golden = json.loads(path.read_text("utf-8"))
        body = golden["response"]["body"]
        body = json.loads(body) if isinstance(body, str) and body[:1] in ("{", "[") else body
        if "vectors" in golden["expect"] and isinstance(body, dict) and _listed(body, len(golden["texts"]))[1]:
            found.setdefault(path.parent.name, pytest.param(golden, body, id=f"{path.parent.name}-{path.stem}"))
    return list(found.values())


@pytest.mark.parametrize(("golden", "body"), successes())
async def test_no_dialect_needs_what_it_does_not_use(golden, body):
    """Each field of each host's reply that holds no embedding,
    in ten wrong shapes: the vectors are those of the golden.
    """
    where, _ = _listed(body, len(golden["texts"]))
    needed = {where[0]} if where else set()
    used = {"result": "pooling"}  # Cloudflare's pooling is compared with the one asked for
    others = [name for name in body if name not in needed and name not in used]
    for name, value in itertools.product(
        [*others, "usage", "model", "object", "extra"], [None, 7, "x", [], {}, 1.5, True, [{}], {"a": []}]
    ):
        if name in needed or (name in ("error", "errors", "detail", "success")):
            continue
        answer = response({**body, name: value}, golden["response"]["status"], golden["response"].get("headers"))
        embedder = embedkit.connect(**golden["connect"], exchange=FakeExchange([answer]), retry=RetryPolicy(attempts=1))
        embedder._probed = True
        options = golden.get("options", {})
        named = [options.get(each) for each in ("input_type", "dimensions", "dtype", "truncate", "normalize", "extra")]
        result = await embedder.embed_batch(golden["texts"], embedder._merged(*named))

        assert np.allclose(result.vectors, golden["expect"]["vectors"], rtol=1e-6, atol=1e-7)
