"""For tests, ours and yours: an exchange that answers from a
script, an embedder that needs nothing, and the codec check.

None of it opens a socket. A fake at the one I/O seam (`connect(…,
exchange=FakeExchange(…))`) leaves planning, retry, limits and decoding real.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from inspect import isawaitable
from pathlib import Path
from typing import Any

import msgspec

from . import errors
from ._batching.options import validated
from ._connect.factory import connect
from ._embedders.base import Embedder
from ._hints import NDArray
from ._traffic.retry import RetryPolicy
from ._types import Embeddings, Limits, Options, Request, Response, Usage
from ._values import is_whole, shown
from .errors import ConfigError, DecodeError, EmbedkitError, ServerError

Answer = Response | BaseException | Mapping[str, Any]
Handler = Callable[[Request], Answer | Awaitable[Answer]]


def response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response with this body: bytes and text as they are, anything else as JSON."""
    raw = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else msgspec.json.encode(body)
    return Response(status, {name.lower(): str(value) for name, value in (headers or {}).items()}, raw)


class FakeExchange:
    """Answers requests from a script, or from a function of the request, and remembers them in `requests`.

    An answer is a `Response`, an exception to raise, or a mapping sent as a JSON body with status 200. A script that
    has run out fails the test with an AssertionError: nothing is answered twice by accident.

    Raises:
        TypeError: `answers` is neither an iterable nor a function; or, when it is its turn, an answer is none.
    """

    def __init__(self, answers: Iterable[Answer] | Handler) -> None:
        if not callable(answers) and (
            isinstance(answers, (str, bytes, Mapping, Response)) or not isinstance(answers, Iterable)
        ):
            msg = f"answers is {type(answers).__name__}; it takes a list of answers, or a function of the request"
            raise TypeError(msg)
        self.requests: list[Request] = []
        self.closed: bool = False
        self._handler = answers if callable(answers) else _script(iter(answers))

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        self.requests.append(request)
        answer = self._handler(request)
        if isawaitable(answer):
            answer = await answer
        if isinstance(answer, BaseException):
            raise answer
        if not isinstance(answer, (Response, Mapping)):
            remedy = "response(…) makes one of any body"
            msg = f"an answer is a mapping, a response or an exception, not {shown(answer)}; {remedy}"
            raise TypeError(msg)
        return answer if isinstance(answer, Response) else response(answer)

    async def aclose(self) -> None:
        """Remember that it was closed."""
        self.closed = True

    @property
    def bodies(self) -> list[Any]:
        """The JSON bodies of the requests so far, those without a body left out."""
        return [json.loads(request.body) for request in self.requests if request.body]


def _script(answers: Any) -> Handler:
    def handler(request: Request) -> Answer:
        try:
            answer: Answer = next(answers)
        except StopIteration:
            msg = f"the script has no answer left for {request!r}"
            raise AssertionError(msg) from None
        return answer

    return handler


class FakeEmbedder(Embedder):
    """Deterministic, unit-length vectors from a hash of each text: equal texts agree, others point elsewhere.

    Attributes:
        batches: the texts of every call of `embed_batch` so far.
    """

    provider = "fake"

    def __init__(self, dimensions: int = 8, *, model: str = "fake", limits: Limits | None = None) -> None:
        if not is_whole(dimensions):
            msg = f"dimensions={shown(dimensions)}: a whole number of at least 1"
            raise ConfigError(msg)
        self.model = model
        self.limits: Limits = limits or Limits(max_texts=64)
        self.batches: list[list[str]] = []
        self._dimensions = dimensions

    async def embed_batch(self, texts: Sequence[str], options: Options) -> Embeddings:
        """One row per text; one token per word."""
        import numpy as np

        self.batches.append(list(texts))
        width = options.dimensions or self._dimensions
        rows = np.stack([self.vector(text, width) for text in texts])
        return Embeddings(rows, self.model, Usage(sum(len(text.split()) for text in texts), 1))

    def vector(self, text: str, dimensions: int | None = None) -> NDArray[Any]:
        """The vector of a text, shape (dimensions,)."""
        import numpy as np

        seed = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "little")
        values = np.random.default_rng(seed).standard_normal(dimensions or self._dimensions).astype(np.float32)
        unit: NDArray[Any] = values / np.linalg.norm(values)
        return unit


# --- the codec check -------------------------------------------------------------------------------------------------


async def check_codec(folder: str | Path) -> int:
    """Check a provider against its golden exchanges: JSON files,
    each one request with its response. Returns their number.

    A golden holds `source` (where its bytes come from), `connect` (keywords of `connect`, `model` among them), `texts`,
    `options`, `request` (`url`, `headers` that must be there, `body` as JSON), `response` (`status`, `headers`, `body`:
    text or JSON) and `expect`: `vectors`, or `shape`, with `tokens` and `model`; or `error` (a class of
    `embedkit.errors`) with any of its attributes. Where the codec asks something first, `probe` may hold the body of
    the answer; that exchange is not part of the golden.

    From every success follow more checks: a reply in another order (where it carries `index`) comes back in order; one
    that is too short or too long, has a null, unequal widths, an index twice or an error in it, or is junk, is a
    DecodeError; an HTML page with status 502 is a retryable ServerError.

    Raises:
        AssertionError: the first thing that does not hold, with the file's name; also a golden that is no JSON, lacks
            something, or has a name in it that says nothing here: it would prove nothing.
    """
    goldens = sorted(Path(folder).glob("*.json"))  # noqa: ASYNC240 (a test waits for nothing else)
    kinds = set()
    for path in goldens:
        try:
            golden = _golden(path.read_text("utf-8"))
            kinds.add("error" in golden["expect"])
            await _check(golden)
        except AssertionError as error:
            msg = f"{path.parent.name}/{path.name}: {error}"
            raise AssertionError(msg) from error
    if kinds != {True, False}:
        msg = f"{folder}: a provider needs at least one golden success and one golden refusal"
        raise AssertionError(msg)
    return len(goldens)


_PARTS: dict[str, tuple[set[str], set[str]]] = {  # of a golden, and of its parts: what must be there, what may be
    "a golden": ({"connect", "texts", "request", "response", "expect"}, {"source", "options", "probe"}),
    "request": ({"url", "body"}, {"headers", "method"}),
    "response": ({"status", "body"}, {"headers"}),
    "options": (set(), set(Options.__struct_fields__)),
}


def _golden(text: str) -> dict[str, Any]:
    """A golden exchange, in which nothing is missing or misspelled: that would be a check left out in silence."""
    try:
        golden = json.loads(text)
    except ValueError as error:
        msg = f"no JSON: {error}"
        raise AssertionError(msg) from None
    for part, (needed, allowed) in _PARTS.items():
        found = golden if part == "a golden" else golden.get(part) or {}
        names = set(found) if isinstance(found, dict) else set()
        if names - needed - allowed or needed - names:
            missing = sorted(needed - names)
            msg = f"{part} " + (f"lacks {missing}" if missing else f"has no use for {sorted(names - needed - allowed)}")
            raise AssertionError(msg)
    expect = golden["expect"]
    known = {"vectors", "shape", "tokens", "model"}
    if "error" in expect:
        kind = getattr(errors, str(expect["error"]), None)
        if not (isinstance(kind, type) and issubclass(kind, EmbedkitError)):
            msg = f"expect: {expect['error']!r} is no class of embedkit.errors"
            raise AssertionError(msg)
    elif set(expect) - known or not set(expect) & {"vectors", "shape"}:
        msg = f"expect has {sorted(expect)}; it takes vectors or shape, with tokens and model, or error"
        raise AssertionError(msg)
    return dict(golden)


async def _check(golden: Mapping[str, Any]) -> None:
    expect, answer = golden["expect"], golden["response"]
    recorded = response(answer["body"], answer["status"], answer.get("headers"))
    exchange = FakeExchange([recorded])
    result = await _embed(golden, exchange)
    _equal("method", golden["request"].get("method", "POST"), exchange.requests[0].method)
    _equal("url", golden["request"]["url"], exchange.requests[0].url)
    _equal("request body", golden["request"]["body"], exchange.bodies[0])
    for name, value in golden["request"].get("headers", {}).items():
        _equal(f"header {name}", value, exchange.requests[0].headers.get(name.lower()))
    if "error" in expect:
        _check_refusal(expect, result)
    elif isinstance(result, EmbedkitError):
        msg = f"expected vectors, got {result!r}"
        raise AssertionError(msg) from result
    else:
        _check_result(expect, result)
        await _check_abuse(golden, result)


def _check_refusal(expect: Mapping[str, Any], result: Embeddings | EmbedkitError) -> None:
    kind: type[EmbedkitError] = getattr(errors, expect["error"])
    if type(result) is not kind:
        msg = f"expected {kind.__name__}, got {result!r}"
        raise AssertionError(msg)
    for name, value in expect.items():
        if name == "message":
            if value not in str(result):
                msg = f"expected a message with {value!r}, got {str(result)!r}"
                raise AssertionError(msg)
        elif name != "error":
            found = getattr(result, name, f"no attribute of that name on {kind.__name__}")
            _equal(name, value, list(found) if isinstance(found, tuple) else found)


def _check_result(expect: Mapping[str, Any], result: Embeddings) -> None:
    import numpy as np

    if "shape" in expect:
        _equal("shape", tuple(expect["shape"]), result.vectors.shape)
    if "vectors" in expect and not np.allclose(result.vectors, expect["vectors"], rtol=1e-6, atol=1e-7):
        msg = f"expected the vectors {expect['vectors']}, got {result.vectors.tolist()}"
        raise AssertionError(msg)
    if not result.vectors.flags.c_contiguous:
        msg = "the vectors are not C-contiguous"
        raise AssertionError(msg)
    if "tokens" in expect:
        _equal("tokens", expect["tokens"], result.usage.tokens)
    if "model" in expect:
        _equal("model", expect["model"], result.model)


async def _check_abuse(golden: Mapping[str, Any], result: Embeddings) -> None:
    import numpy as np

    body = golden["response"]["body"]
    body = json.loads(body) if isinstance(body, str) else body
    path, items = _listed(body, len(golden["texts"]))
    if len(items) > 1 and all(isinstance(item, dict) and "index" in item for item in items):
        shuffled = await _embed(golden, FakeExchange([_answered(golden, _put(body, path, items[::-1]))]))
        if not isinstance(shuffled, Embeddings) or not np.array_equal(shuffled.vectors, result.vectors):
            msg = f"a shuffled reply must come back in input order, got {shuffled!r}"
            raise AssertionError(msg)
    for what, spoilt in _spoilt(items):
        await _must_raise(golden, _answered(golden, _put(body, path, spoilt)), DecodeError, what)
    for error in _ERRORS:
        await _must_raise(golden, response(error), DecodeError, "an error inside a success", "spoilt")
    await _must_raise(golden, response("not json"), DecodeError, "junk")
    await _must_raise(golden, response("<html><title>502 Bad Gateway</title></html>", 502), ServerError, "an HTML 502")


_ERRORS: tuple[dict[str, Any], ...] = (
    {"error": {"message": "spoilt"}},
    {"object": "error", "message": "spoilt"},
    {"base_resp": {"status_code": 1004, "status_msg": "spoilt"}},
    {"status": "failed", "reason": "spoilt"},
)


def _answered(golden: Mapping[str, Any], body: Any) -> Response:
    return response(body, golden["response"]["status"], golden["response"].get("headers"))


def _spoilt(items: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Replies that look right and are not, made of one that is:
    what is wrong, and the list of embeddings to send instead.
    """
    if not items:
        return
    yield "a short reply", items[:-1]
    yield "a long reply", [*items, items[-1]]
    path, vector = _vector(items[0])
    yield "a null in place of an embedding", [_put(items[0], path, None), *items[1:]]
    if isinstance(vector, str):
        yield "an embedding that is no base64", [_put(items[0], path, "?"), *items[1:]]
    else:
        yield "a null in an embedding", [_put(items[0], path, [None, *vector[1:]]), *items[1:]]
    if len(items) > 1:
        if isinstance(vector, list):
            yield "embeddings of unequal width", [_put(items[0], path, vector[:-1]), *items[1:]]
        if all(isinstance(item, dict) and "index" in item for item in items):
            yield "an index given twice", [{**item, "index": items[0]["index"]} for item in items]


def _listed(value: Any, count: int, path: tuple[Any, ...] = ()) -> tuple[tuple[Any, ...], list[Any]]:
    """(path, the list of `count` embeddings) in a reply; an empty list where it has none, as for a lone embedding."""
    if (
        isinstance(value, list)
        and len(value) == count
        and all(isinstance(each, (dict, list)) and _vector(each)[1] for each in value)
    ):
        return path, value
    for key, inner in value.items() if isinstance(value, dict) else ():
        found = _listed(inner, count, (*path, key))
        if found[1]:
            return found
    return path, []


def _vector(value: Any, path: tuple[Any, ...] = ()) -> tuple[tuple[Any, ...], Any]:
    """(path, the first list of numbers or base64 string) in one item of a reply; None where it has none."""
    if isinstance(value, list) and value and all(isinstance(each, (int, float)) for each in value):
        return path, value
    if path and path[-1] == "embedding" and isinstance(value, str):
        return path, value
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        found = _vector(inner, (*path, key))
        if found[1]:
            return found
    return path, None


def _put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of a JSON value with another one at this path."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _put(copy[path[0]], path[1:], new)
    return copy


async def _must_raise(
    golden: Mapping[str, Any], answer: Response, kind: type[EmbedkitError], what: str, words: str = ""
) -> None:
    error = await _embed(golden, FakeExchange([answer]))
    if words not in str(error):
        msg = f"{what} must show its words, {words!r}, got {error!r}"
        raise AssertionError(msg)
    if type(error) is not kind or (kind is ServerError and not error.retryable):
        msg = f"{what} must raise {kind.__name__}{' (retryable)' if kind is ServerError else ''}, got {error!r}"
        raise AssertionError(msg)


async def _embed(golden: Mapping[str, Any], exchange: FakeExchange) -> Embeddings | EmbedkitError:
    from ._embedders.http import HttpEmbedder

    settings = {"retry": RetryPolicy(attempts=1), **golden["connect"], "exchange": exchange}
    embedder = connect(**settings)
    if isinstance(embedder, HttpEmbedder):
        embedder.skip_probe(response(golden["probe"]) if "probe" in golden else None)
    named = golden.get("options", {})
    given = {name: named[name] for name in Options.__struct_fields__ if named.get(name) is not None}
    try:
        options = validated(msgspec.structs.replace(embedder.options, **given))
        made: Embeddings = await embedder.embed_batch(golden["texts"], options)
    except EmbedkitError as error:
        return error
    return made


def _equal(what: str, expected: object, actual: object) -> None:
    if expected != actual:
        msg = f"{what}: expected {expected!r}, got {actual!r}"
        raise AssertionError(msg)
