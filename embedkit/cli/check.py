"""`embedkit check`: one word, embedded twice, and what the endpoint can do."""

from __future__ import annotations

import json
import re
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any, get_args

import click

from .._embedders.http import HttpEmbedder
from .._traffic.retry import RetryPolicy
from .._types import InputType, Options, safe_url
from ..errors import EmbedkitError
from .app import _asks, _connected, _run, codes, root
from .rate_limits import rate_limits, spelled

if TYPE_CHECKING:
    from .._embedders.base import Embedder
    from .._types import Embeddings, Response


@root.command(epilog=codes(0, 1, 2, 130, 141))
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@_asks
def check(model: str | None, *, as_json: bool, **options: Any) -> None:
    """Embed one word with MODEL, twice, and say what came back and what the endpoint can do.

    At most three requests are sent: the word, once more, and once in half the width. What is said of a request's size
    and of input types is what embedkit knows of the provider; the rest is what the endpoint answers. "rate limits"
    are those that its headers name.
    """
    embedder = _connected(model, retry=RetryPolicy(attempts=1), **options)
    said = _run(lambda: _checked(embedder))
    if as_json:
        click.echo(json.dumps({name: value for name, value, _ in said}, indent=2))
        return
    for name, _, shown in said:
        click.echo(f"{name.replace('_', ' '):<12}{shown}")


async def _checked(embedder: Embedder) -> list[tuple[str, Any, str]]:
    """(name, value in JSON, value for people) of each finding."""
    import numpy as np

    codec = getattr(embedder, "_codec", None)
    heard: list[Response] = []
    if isinstance(embedder, HttpEmbedder):
        embedder.listen(heard.append)
    async with embedder:
        times = [time.perf_counter()]
        for _ in range(2):
            result = await embedder.embed(["hello"])
            times.append(time.perf_counter())
        answer = heard[-1] if heard else None
        narrow = await _narrowed(embedder, result.dimensions)
    took = [round((stop - start) * 1000) for start, stop in pairwise(times)]
    tokens = result.usage.tokens
    address = safe_url(getattr(embedder, "base_url", ""))
    other = "" if result.model == embedder.model else f" (it calls itself {result.model})"
    found: list[tuple[str, Any, str]] = [
        ("provider", embedder.provider, embedder.provider),
        ("address", address, address or "in this process"),
        ("model", {"asked": embedder.model, "answered": result.model}, f"{embedder.model}{other}"),
        ("dimensions", result.dimensions, str(result.dimensions)),
    ]
    if result.vectors.dtype.kind == "f":
        norm = float(np.linalg.norm(result.vectors[0]))
        found.append(("norm", norm, f"{norm:.4f}"))
    else:
        found.append(("type", result.dtype, result.dtype))
    found += [
        ("latency", took, f"{took[0]:,} ms the first time, {took[1]:,} ms the second"),
        ("tokens", tokens, "not reported" if tokens is None else f"{tokens} for one word"),
        ("narrower", narrow, narrow),
    ]
    most = embedder.known_limits()
    limits = {name: getattr(most, name) for name in most.__struct_fields__ if getattr(most, name) is not None}
    most_of = ", ".join(f"{value:,} {LIMITS[name]}" for name, value in limits.items())
    found.append(("request", limits, f"at most {most_of}" if most_of else "no limit known"))
    if codec is not None:
        found.append(_base64(codec, result, answer))
    kinds = _input_types(codec)
    if kinds is not None:
        found.append(("inputs", kinds, ", ".join(kinds) or "makes no difference"))
    if answer is not None:
        granted = rate_limits(answer.headers)
        found.append(("rate_limits", granted, spelled(granted)))
    return found


def _base64(codec: Any, result: Embeddings, answer: Response | None) -> tuple[str, Any, str]:
    """Whether vectors are asked for as base64, and come so."""
    if b'"base64"' not in codec.encode(["hello"], Options()).body:
        return "base64", {"asked": False, "answered": None}, "not asked for"
    if answer is None or result.vectors.dtype.kind != "f":
        return "base64", {"asked": True, "answered": None}, "asked for"
    length = result.vectors.shape[1] * 4 * 4 // 3  # letters for so many bytes
    came = re.search(rb'"[A-Za-z0-9+/]{%d,}={0,2}"' % length, answer.body) is not None
    return "base64", {"asked": True, "answered": came}, "yes" if came else "asked for, but numbers came"


LIMITS = {
    "max_texts": "texts", "max_tokens": "tokens", "max_bytes": "bytes of text", "max_text_tokens": "tokens per text"
}  # fmt: skip


async def _narrowed(embedder: Embedder, width: int) -> str:
    """Whether vectors of half the width come back."""
    half = width // 2
    try:
        result = await embedder.embed(["hello"], dimensions=half)
    except EmbedkitError as error:
        return f"no ({' '.join(str(error).split())})"[:200]
    return f"yes ({result.dimensions} dimensions)" if result.dimensions == half else "no"


def _input_types(codec: Any) -> list[str] | None:
    """Those that change the request; None of an embedder without requests."""
    if codec is None:
        return None
    bare = codec.encode(["hello"], Options()).body
    found = []
    for kind in get_args(InputType):
        try:
            body = codec.encode(["hello"], Options(input_type=kind)).body
        except EmbedkitError:  # it has no such type
            continue
        if body != bare:
            found.append(kind)
    return found
