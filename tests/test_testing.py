"""What a user's tests are written with: fakes and the check of a codec, and what they say when they are used wrongly."""

from __future__ import annotations

import json
from typing import Any

import pytest

import embedkit
from embedkit import ConfigError
from embedkit.codec import Response
from embedkit.testing import FakeEmbedder, FakeExchange, check_codec, response

pytestmark = pytest.mark.anyio
BODY = {"data": [{"index": row, "embedding": [1.0, float(row)]} for row in range(2)]}
GOOD = {
    "source": "this test",
    "connect": {"model": "compatible:m", "base_url": "http://h/v1"},
    "texts": ["a", "b"],
    "options": {},
    "request": {
        "url": "http://h/v1/embeddings", "body": {"model": "m", "input": ["a", "b"], "encoding_format": "base64"},
    },
    "response": {"status": 200, "body": BODY},
    "expect": {"shape": [2, 2]},
}  # fmt: skip
REFUSED = {
    **GOOD,
    "response": {"status": 401, "body": {"error": {"message": "no"}}},
    "expect": {"error": "AuthError", "status": 401},
}


async def checked(folder, **files):
    for name, golden in {"good": GOOD, "refused": REFUSED, **files}.items():
        (folder / f"{name}.json").write_text(golden if isinstance(golden, str) else json.dumps(golden))
    return await check_codec(folder)


async def test_sound_goldens_are_counted(tmp_path):
    """Goldens in which everything holds are counted."""
    assert await checked(tmp_path) == 2


UNSOUND = {
    "no JSON": ("{", "no JSON"),
    "no object": ([1], r"a golden lacks .*'connect'"),
    "a part too few": ({name: GOOD[name] for name in GOOD if name != "texts"}, r"a golden lacks \['texts'\]"),
    "a part of another name": ({**GOOD, "expected": {}}, r"a golden has no use for \['expected'\]"),
    "a misspelt expectation": ({**GOOD, "expect": {"shap": [9, 9]}}, r"expect has \['shap'\]"),
    "no expectation": ({**GOOD, "expect": {}}, r"expect has \[\]"),
    "tokens alone": ({**GOOD, "expect": {"tokens": 2}}, r"expect has \['tokens'\]"),
    "a misspelt option": ({**GOOD, "options": {"dimension": 3}}, r"options has no use for \['dimension'\]"),
    "no address": ({**GOOD, "request": {"body": {}}}, r"request lacks \['url'\]"),
    "no status": ({**GOOD, "response": {"body": BODY}}, r"response lacks \['status'\]"),
    "a misspelt error": ({**REFUSED, "expect": {"error": "AuthErr"}}, "'AuthErr' is no class"),
    "no error of ours": ({**REFUSED, "expect": {"error": "annotations"}}, "'annotations' is no class"),
    "a misspelt attribute": ({**REFUSED, "expect": {"error": "AuthError", "stat": 401}}, "stat: expected 401"),
}


@pytest.mark.parametrize(("golden", "says"), UNSOUND.values(), ids=UNSOUND)
async def test_a_golden_that_would_prove_nothing_is_refused(golden, says, tmp_path):
    """What is missing or misspelt in a golden fails the check with the name of the file: no claim is left out."""
    with pytest.raises(AssertionError, match=says) as caught:
        await checked(tmp_path, mine=golden)

    assert "mine.json" in str(caught.value)


@pytest.mark.parametrize("answers", [{"data": []}, response({}), "answer", b"answer", None, 5])
def test_answers_that_are_no_script_are_refused(answers):
    """One answer in place of a list of them is not read as a list of its letters or keys."""
    with pytest.raises(TypeError, match="it takes a list of answers, or a function of the request"):
        FakeExchange(answers)


@pytest.mark.parametrize("answer", [None, "text", [1], ValueError])
@pytest.mark.parametrize("scripted", [True, False])
async def test_an_answer_that_is_none_is_named(answer, scripted):
    """A function that forgot to return, or a class in place of an exception, is no reply of a provider."""
    exchange = FakeExchange([answer] if scripted else lambda _: answer)
    async with embedkit.connect("compatible:m", base_url="http://h/v1", exchange=exchange) as embedder:
        with pytest.raises(TypeError, match="an answer is a mapping, a response or an exception"):
            await embedder.embed("a")


async def test_headers_of_a_response_may_be_numbers():
    """`response` writes them as text, in lower case."""
    assert response({}, 429, {"Retry-After": 0}).headers == {"retry-after": "0"}


@pytest.mark.parametrize("dimensions", [0, -1, "8", None, 2.5, True])
def test_the_width_of_a_fake(dimensions):
    """A width that is none is refused where it is written."""
    with pytest.raises(ConfigError, match="dimensions="):
        FakeEmbedder(dimensions)


# --- an exchange of one's own ----------------------------------------------------------------------------------------

RAW = bytes(response(BODY).body)


def made(status: Any, headers: Any, body: Any) -> Response:
    """A response of whatever types, as somebody without a type checker writes it."""
    return Response(status, headers, body)


def exchange_of(answer):
    async def exchange(request):
        return answer

    return exchange


def connected(exchange):
    policy = embedkit.RetryPolicy(attempts=2, initial=0)
    return embedkit.connect("compatible:m", base_url="http://h/v1", exchange=exchange, retry=policy)


async def test_an_exchange_may_be_a_function():
    """Any async function of a request is an exchange; there is nothing to close."""
    async with connected(exchange_of(Response(200, {}, RAW))) as embedder:
        assert (await embedder.embed(["a", "b"])).shape == (2, 2)


async def test_headers_in_any_case():
    """A mapping of headers as other libraries give it is read: what a refusal says of waiting is not lost."""
    async with connected(exchange_of(Response(429, {"Retry-After": "0", "X-Request-ID": "r1"}, b"{}"))) as embedder:
        with pytest.raises(embedkit.RateLimitError) as caught:
            await embedder.embed("a")

    assert caught.value.request_id == "r1"


WRONG: dict[str, tuple[Any, str]] = {
    "nothing": (None, "returned NoneType; it must return an embedkit.codec.Response"),
    "a body": ({"data": []}, "returned dict"),
    "a status in words": (made("200", {}, RAW), "whose status is str; it must be a whole number"),
    "a body in letters": (made(200, {}, RAW.decode()), "whose body is str; it must be bytes"),
    "no headers": (made(200, None, RAW), "whose headers is NoneType; it must be a mapping"),
}


@pytest.mark.parametrize(("answer", "says"), WRONG.values(), ids=WRONG)
async def test_what_is_no_response_is_named(answer, says):
    """An exchange that gives something else is told what it gave, and what it must give."""
    async with connected(exchange_of(answer)) as embedder:
        with pytest.raises(TypeError, match=says):
            await embedder.embed("a")


async def test_an_exchange_that_is_not_async():
    """It is told so."""
    async with connected(lambda request: Response(200, {}, RAW)) as embedder:
        with pytest.raises(TypeError, match="it must be async"):
            await embedder.embed("a")
