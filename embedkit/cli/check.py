"""`embedkit check`: one word, embedded twice."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import click

from .._traffic.retry import RetryPolicy
from .._types import safe_url
from .app import _asks, _connected, _run, root

if TYPE_CHECKING:
    from .._embedders.base import Embedder


@root.command()
@click.argument("model", required=False)
@_asks
def check(model: str | None, **options: Any) -> None:
    """Embed one word with MODEL, twice, and say what came back."""
    embedder = _connected(model, retry=RetryPolicy(attempts=1), **options)
    for name, value in _run(lambda: _checked(embedder)):
        click.echo(f"{name:<12}{value}")


async def _checked(embedder: Embedder) -> list[tuple[str, str]]:
    import numpy as np

    async with embedder:
        times = [time.perf_counter()]
        for _ in range(2):
            result = await embedder.embed(["hello"])
            times.append(time.perf_counter())
    first, warm = (f"{(stop - start) * 1000:,.0f} ms" for start, stop in pairwise(times))
    tokens = result.usage.tokens
    measured = result.vectors.dtype.kind == "f"
    return [
        ("provider", embedder.provider),
        ("address", safe_url(getattr(embedder, "base_url", "")) or "in this process"),
        (
            "model",
            embedder.model if result.model == embedder.model else f"{embedder.model} (it calls itself {result.model})",
        ),
        ("dimensions", str(result.dimensions)),
        ("norm", f"{float(np.linalg.norm(result.vectors[0])):.4f}") if measured else ("type", result.dtype),
        ("latency", f"{first} the first time, {warm} the second"),
        ("tokens", "not reported" if tokens is None else f"{tokens} for one word"),
    ]
