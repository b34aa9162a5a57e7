"""The public types, for the type checker alone: `mypy --strict` reads this file, nothing runs it.

A comment `type: ignore[…]` marks what must be refused: strict mode reports it as unused once it is accepted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import embedkit
from embedkit.annotations import DType, Exchange, Headers, InputType, OnError, Request, Response, Stream, Truncate


async def verbs() -> None:
    async with embedkit.connect("openai:m", api_key="k", dimensions=256, input_type="document") as embedder:
        assert_type(embedder, embedkit.Embedder)
        result = await embedder.embed(
            ["a"], dtype="int8", truncate="end", normalize=False, extra={"user": 1}, on_error="skip"
        )
        assert_type(result, embedkit.Embeddings)
        assert_type(await embedder.embed_query("a", dimensions=8), NDArray[Any])
        assert_type(embedder.stream(iter(["a"])), Stream)
        async for part in embedder.stream(lines(), on_error="raise"):
            assert_type(part, embedkit.Embeddings)
        async with embedder.stream(("a",)) as parts:
            assert_type(await anext(parts), embedkit.Embeddings)
            await parts.aclose()
    await embedder.aclose()


async def lines() -> AsyncIterator[str]:
    yield "a"


async def refused(embedder: embedkit.Embedder, twin: embedkit.SyncEmbedder) -> None:
    await embedder.embed(7)  # type: ignore[arg-type]
    await embedder.embed([b"a"])  # type: ignore[list-item]
    await embedder.embed(["a"], input_type="passage")  # type: ignore[arg-type]
    await embedder.embed(["a"], on_error="ignore")  # type: ignore[arg-type]
    await embedder.embed(["a"], nonsense=1)  # type: ignore[call-arg]
    await embedder.embed(["a"], "query")  # type: ignore[call-arg, arg-type, unused-ignore]
    await embedder.embed_query(["a"])  # type: ignore[arg-type]
    twin.embed(7)  # type: ignore[arg-type]
    twin.embed(["a"], dimensions="256")  # type: ignore[arg-type]
    twin.embed(["a"], nonsense=1)  # type: ignore[call-arg]
    twin.embed_query("a", on_error="skip")  # type: ignore[call-arg]
    twin.modell  # type: ignore[attr-defined]  # noqa: B018
    embedkit.connect("m", dimensions="256")  # type: ignore[arg-type]
    embedkit.connect_sync("m", dimensions="256")  # type: ignore[arg-type]
    embedkit.connect_sync(7)  # type: ignore[arg-type]
    embedkit.SyncEmbedder(twin)  # type: ignore[arg-type]
    embedkit.Limits(8)  # type: ignore[call-arg]
    embedkit.Limits(max_texts="8")  # type: ignore[arg-type]


def sync_verbs() -> None:
    with embedkit.connect_sync("ollama:mistral", base_url="http://localhost:11434/api", keep_alive="10m") as embedder:
        assert_type(embedder, embedkit.SyncEmbedder)
        assert_type(embedder.embed("a", dtype="binary", on_error="skip", progress=True), embedkit.Embeddings)
        assert_type(embedder.embed_query("a", input_type=None), NDArray[Any])
        parts = embedder.stream(["a"], truncate="error")
        assert_type(parts, Generator[embedkit.Embeddings, None, None])
        assert_type(next(parts), embedkit.Embeddings)
        parts.close()
    embedder.close()
    assert_type(embedkit.SyncEmbedder(Mine()).embedder, embedkit.Embedder)
    assert_type(embedder.model, str)
    assert_type(embedder.provider, str)
    assert_type(embedder.limits, embedkit.Limits)
    assert_type(embedder.options, embedkit.Options)
    assert_type(embedder.max_concurrency, int)


def result(value: embedkit.Embeddings) -> None:
    assert_type(value.vectors, NDArray[Any])
    assert_type(value.model, str)
    assert_type(value.usage, embedkit.Usage)
    assert_type(value.usage.tokens, int | None)
    assert_type(value.usage.requests, int)
    assert_type(value.usage.cost, float | None)
    assert_type(value.failures, Mapping[int, embedkit.EmbedkitError])
    assert_type(value.start, int)
    assert_type(value.shape, tuple[int, int])
    assert_type(value.texts, Sequence[Any] | None)
    assert_type(value.to_list(), list[list[float] | None])
    assert_type(value.dimensions, int)
    assert_type(len(value), int)
    assert_type(value[0], NDArray[Any])
    assert_type(value[1:], NDArray[Any])
    assert_type(np.asarray(value), NDArray[Any])
    for row in value:
        assert_type(row, NDArray[Any])
    value.start = 1  # type: ignore[misc]


def settings() -> None:
    limits = embedkit.Limits(max_texts=64, max_tokens=None, max_bytes=1, max_text_tokens=8191)
    rate = embedkit.Rate(requests_per_minute=60, tokens_per_minute=1e6)
    retry = embedkit.RetryPolicy(attempts=3, deadline=None, initial=0.1, maximum=5)
    options = embedkit.Options(
        input_type="query", dimensions=8, dtype="uint8", truncate="end", normalize=None, extra={}
    )
    assert_type(limits.max_texts, int | None)
    assert_type(rate.tokens_per_minute, float | None)
    assert_type(retry.wait(1, embedkit.EmbedkitError("x"), 0.5), float | None)
    assert_type(options.extra, Mapping[str, Any])
    embedkit.connect(limits=limits, rate=rate, retry=retry, api_key=lambda: "k", observe=print, count_tokens=len)
    embedkit.connect_sync(limits=limits, rate=rate, retry=retry, api_key=later, max_concurrency=4, headers={"a": "b"})


def pools(embedder: embedkit.Embedder, twin: embedkit.SyncEmbedder) -> None:
    assert_type(embedkit.pool([embedder], prefer="cheapest", verify=False, coalesce=True), embedkit.Embedder)
    embedkit.pool(embedder)  # type: ignore[arg-type]
    embedkit.pool([twin])  # type: ignore[list-item]
    embedkit.pool([embedder], prefer="fastest")  # type: ignore[arg-type]


async def wrapper(
    embedder: embedkit.Embedder, kind: InputType, dtype: DType, truncate: Truncate, on_error: OnError
) -> Stream:
    await embedder.embed("a", input_type=kind, dtype=dtype, truncate=truncate, on_error=on_error)
    return embedder.stream(["a"], input_type=kind, dtype=dtype, truncate=truncate, on_error=on_error)


class Wire:
    """An exchange of one's own."""

    async def __call__(self, request: Request) -> Response:
        return Response(200, {}, request.body)

    async def aclose(self) -> None: ...


def carried(headers: Headers) -> embedkit.Embedder:
    exchange: Exchange = Wire()
    embedkit.connect("m", exchange=Wire().aclose)  # type: ignore[arg-type]
    return embedkit.connect("m", exchange=exchange, headers=headers)


def mixed_up() -> None:
    with embedkit.connect():  # type: ignore[attr-defined]
        pass


async def later() -> str:
    return "k"


class Mine(embedkit.Embedder):
    """A custom embedder, typed."""

    limits = embedkit.Limits(max_texts=64)

    async def embed_batch(self, texts: Sequence[str], options: embedkit.Options) -> embedkit.Embeddings:
        return embedkit.Embeddings(
            np.ones((len(texts), options.dimensions or 8), np.float32), "mine", embedkit.Usage(None, 1)
        )


class Unfinished(embedkit.Embedder):
    """Has no embed_batch."""


def custom() -> None:
    Unfinished()  # type: ignore[abstract]


def errors() -> None:
    try:
        sync_verbs()
    except embedkit.QueueFullError as error:
        assert_type(error, embedkit.QueueFullError)
    except (embedkit.RateLimitError, embedkit.ServerError, embedkit.AuthError, embedkit.QuotaError) as error:
        assert_type(error.status, int | None)
        assert_type(error.code, str | int | None)
        assert_type(error.request_id, str | None)
        assert_type(error.retry_after, float | None)
        assert_type(error.body, str)
    except (embedkit.TooLongError, embedkit.InvalidInputError, embedkit.TooLargeError, embedkit.NotFoundError) as error:
        assert_type(error.rows, tuple[int, ...])
        assert_type(error.provider, str)
        assert_type(error.model, str)
    except embedkit.ClosedError as error:
        assert_type(error.retryable, bool)
    except embedkit.ApiError as error:
        assert_type(error.retryable, bool)
    except (
        embedkit.TransportTimeoutError,
        embedkit.TransportError,
        embedkit.DecodeError,
        embedkit.ConfigError,
    ) as error:
        assert_type(error.message, str)
    except embedkit.EmbedkitError as error:
        assert_type(error.partial, embedkit.Embeddings | None)


def modules() -> None:
    embedkit.nonsense  # type: ignore[attr-defined]  # noqa: B018
    assert_type(embedkit.errors.ConfigError("no"), embedkit.ConfigError)
    assert_type(embedkit.testing.FakeEmbedder().limits, embedkit.Limits)
    assert_type(embedkit.tokens.tiktoken()("a"), int)
    assert_type(embedkit.local.LocalEmbedder().count_tokens("a"), int)
    assert_type(embedkit.sync.connect_sync(), embedkit.SyncEmbedder)
    assert_type(embedkit.catalog.facts("openai", "m"), embedkit.codec.ModelFacts | None)
    assert_type(embedkit.providers.find("openai"), embedkit.codec.Host)
    embedkit.cli.main(7)  # type: ignore[arg-type]


def caught_as() -> None:
    timeout: TimeoutError = embedkit.TransportTimeoutError("late")
    wrong: ValueError = embedkit.ConfigError("no")
    raise timeout from wrong
