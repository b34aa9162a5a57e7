"""One model measured: how fast, how dear, how wide, how steady, and what it finds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from .._embedders.base import Embedder
from .._hints import NDArray
from .._types import DType, Embeddings, InputType, Usage
from ..errors import EmbedkitError
from .corpus import Corpus
from .recall import comparable, nearest, recall

REPEATED = 5  # texts that are embedded alone a second time


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """A model, and what of it is asked for. `dimensions`: None is its own width."""

    model: str
    dimensions: int | None = None
    dtype: DType = "float32"


class Measured(msgspec.Struct, kw_only=True):
    """What a variant has shown; None where nobody can say.

    Attributes:
        model: "provider:model".
        asked: the width asked for; None: the model's own.
        dtype: type of the components.
        width: components per vector.
        bytes: of one vector.
        norm: mean length of the vectors; float32 only.
        texts: embedded in one go, documents and queries.
        failed: those among them that could not be embedded. They find nothing and are found by nobody.
        failure: why the first of these could not.
        seconds: it took for them.
        texts_per_second: of the same.
        p50, p99: latency of a call with one text, in seconds, one call after the other.
        first: the same of the very first call, which connects.
        calls: how many were timed.
        tokens: of all texts once, as the provider counts them.
        price: US dollars per million tokens.
        run_tokens, run_requests, run_cost: what all the measuring of this variant took.
        repeat_cosine, repeat_difference: of texts embedded alone, twice: the least cosine, and the largest difference
            of two components.
        batch_cosine: the least cosine between a text embedded alone and among the others.
        recall: recall@k, from 0 to 1.
        reference: the others are compared with it.
        error: why there is nothing else.
    """

    model: str
    asked: int | None = None
    dtype: DType = "float32"
    width: int | None = None
    bytes: int | None = None
    norm: float | None = None
    texts: int = 0
    failed: int = 0
    failure: str | None = None
    seconds: float | None = None
    texts_per_second: float | None = None
    p50: float | None = None
    p99: float | None = None
    first: float | None = None
    calls: int = 0
    tokens: int | None = None
    price: float | None = None
    run_tokens: int | None = None
    run_requests: int = 0
    run_cost: float | None = None
    repeat_cosine: float | None = None
    repeat_difference: float | None = None
    batch_cosine: float | None = None
    recall: float | None = None
    reference: bool = False
    error: str | None = None


class Bench(msgspec.Struct, kw_only=True):
    """All variants measured on one corpus.

    Attributes:
        corpus: its name.
        documents, queries: how many texts it has.
        labels: recall is against what the corpus says; False: against the neighbors that `reference` finds.
        reference: what the others are compared with, as words; "" where there are labels, or nothing could be measured.
        k: of recall@k.
        rows: a variant each, once it is measured.
    """

    corpus: str
    documents: int
    queries: int
    labels: bool
    k: int
    reference: str = ""
    rows: list[Measured] = []


def planned(corpus: Corpus, k: int) -> Bench:
    """A bench of this corpus in which nothing is measured yet, for recall@k."""
    return Bench(
        corpus=corpus.name, documents=len(corpus.documents), queries=len(corpus.queries),
        labels=corpus.relevant is not None, k=k,
    )  # fmt: skip


async def measure(
    bench: Bench,
    variants: Sequence[Variant],
    connect: Callable[[Variant], Embedder],
    corpus: Corpus,
    *,
    calls: int,
    input_type: InputType | None = None,
    now: Callable[[], float] = time.perf_counter,
    tell: Callable[[Variant], object] = lambda _: None,
    reason: Callable[[EmbedkitError], str] = str,
) -> None:
    """Measure the variants, one after the other; one that fails costs its own row.

    Args:
        bench: gets a row of each variant that is through, so that they are there if the next is never through.
        variants: what is measured. Without labels the first that works is what the others are compared with.
        connect: makes the embedder of a variant.
        corpus: what they are measured on.
        calls: with one text, to take the latency of.
        input_type: what all texts are for; None: queries and documents as such where the corpus has queries.
        now: a clock, in seconds.
        tell: is told which variant is next.
        reason: an error in words.
    """
    relevant = corpus.relevant
    for variant in variants:
        tell(variant)
        row = Measured(model=variant.model, asked=variant.dimensions, dtype=variant.dtype)
        try:
            embedder = connect(variant)
            async with embedder:
                documents, queries = await _measure(row, embedder, corpus, calls, input_type, now, reason)
        except EmbedkitError as error:
            row = Measured(model=variant.model, asked=variant.dimensions, dtype=variant.dtype, error=reason(error))
            bench.rows.append(row)
            continue
        if relevant is None:
            relevant, row.reference, bench.reference = nearest(queries, documents, bench.k), True, _words(row)
        row.recall = recall(queries, documents, relevant, bench.k)
        bench.rows.append(row)


async def _measure(
    row: Measured,
    embedder: Embedder,
    corpus: Corpus,
    calls: int,
    input_type: InputType | None,
    now: Callable[[], float],
    reason: Callable[[EmbedkitError], str],
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Fill the row; the rows of documents and queries, ready to be compared."""
    import numpy as np

    row.price = embedder.price
    asking = "query" if corpus.queries and input_type is None else input_type
    giving = "document" if corpus.queries and input_type is None else input_type
    usages: list[Usage] = []

    async def embed(texts: list[str], purpose: InputType | None, **more: Any) -> tuple[Embeddings, float]:
        began = now()
        made = await embedder.embed(texts, input_type=purpose, **more)
        seconds = now() - began
        usages.append(made.usage)
        return made, seconds

    _, row.first = await embed([corpus.documents[0]], giving, on_error="skip")
    of_documents, row.seconds = await embed(corpus.documents, giving, on_error="skip")
    whole = [of_documents]
    if corpus.queries:
        of_queries, seconds = await embed(corpus.queries, asking, on_error="skip")
        row.seconds += seconds
        whole.append(of_queries)
    for each in whole:
        if len(each.failures) == len(each):
            raise each.failures[0].at()
    failures = [error.at() for each in whole for error in each.failures.values()]
    row.failure = reason(failures[0]) if failures else None

    texts, purpose = (corpus.queries, asking) if corpus.queries else (corpus.documents, giving)
    sound = [place for place in range(len(texts)) if place not in whole[-1].failures]
    alone: list[Embeddings] = []
    times: list[float] = []
    for call in range(calls):
        made, seconds = await embed([texts[sound[call % len(sound)]]], purpose)
        times.append(seconds)
        alone += [made] if len(alone) < min(REPEATED, len(sound)) else []
    kept = sound[: len(alone)]
    again = [(await embed([texts[place]], purpose))[0] for place in kept]

    row.texts, row.failed = sum(map(len, whole)), sum(len(each.failures) for each in whole)
    row.texts_per_second = (row.texts - row.failed) / row.seconds if row.seconds > 0 else None
    row.p50, row.p99 = (float(np.percentile(times, part)) for part in (50, 99))
    row.calls = calls
    row.tokens = _sum(each.usage.tokens for each in whole)
    row.run_tokens = _sum(each.tokens for each in usages)
    row.run_cost = _sum(each.cost for each in usages)
    row.run_requests = sum(each.requests for each in usages)
    row.width, row.bytes = of_documents.dimensions, of_documents.vectors.itemsize * of_documents.vectors.shape[1]
    if row.dtype == "float32":
        vectors = np.delete(of_documents.vectors, list(of_documents.failures), axis=0)
        row.norm = float(np.linalg.norm(vectors.astype(np.float64), axis=1).mean())
    once, twice = (np.concatenate([each.vectors for each in some]) for some in (alone, again))
    row.repeat_difference = float(np.abs(once.astype(np.float64) - twice.astype(np.float64)).max())
    row.repeat_cosine = _least_cosine(once, twice, row.dtype)
    row.batch_cosine = _least_cosine(once, whole[-1].vectors[kept], row.dtype)
    ready = [_comparable(each, row.dtype) for each in whole]
    return ready[0], ready[1] if corpus.queries else None


def _comparable(made: Embeddings, dtype: DType) -> NDArray[Any]:
    """Rows to compare, those of texts that failed NaN."""
    import numpy as np

    rows = comparable(np.nan_to_num(made.vectors), dtype)
    rows[list(made.failures)] = np.nan
    return rows


def _least_cosine(left: NDArray[Any], right: NDArray[Any], dtype: DType) -> float:
    """The least cosine of rows that belong together, at most 1; of bits, of their signs."""
    import numpy as np

    one, other = (comparable(each, dtype).astype(np.float64) for each in (left, right))
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    lengths[lengths == 0] = 1
    return min(1.0, float((np.einsum("ij,ij->i", one, other) / lengths).min()))


def _sum(values: Any) -> Any:
    """The sum; None where one is not known."""
    known = list(values)
    return None if None in known else sum(known)


def _words(row: Measured) -> str:
    return f"{row.model}, {row.width} dimensions, {row.dtype}"


__all__ = ["Bench", "Measured", "Variant", "measure", "planned"]
