"""`progress=`: a bar of the real tqdm, or a function of the caller's, on every way to embed."""

from __future__ import annotations

import asyncio
import io
import json
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import embedkit
from embedkit import ConfigError, EmbedkitError, Limits, SyncEmbedder
from embedkit._progress import Progress
from embedkit.testing import FakeEmbedder, FakeExchange, response

pytestmark = pytest.mark.anyio
TEXTS = [f"text {number}" for number in range(10)]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


def embedder():
    return FakeEmbedder(4, limits=Limits(max_texts=3))


async def streamed(seen, **more):
    async with embedder().stream(TEXTS, progress=seen.append, **more) as parts:
        async for _ in parts:
            pass


async def embedded(seen, **more):
    await embedder().embed(TEXTS, progress=seen.append, **more)


WAYS = {
    "embed": embedded,
    "skipping": lambda seen: embedded(seen, on_error="skip"),
    "stream": streamed,
}


@pytest.mark.parametrize("way", WAYS)
async def test_it_counts_every_text_once(way):
    """In steps, up to all of them."""
    seen = []
    await WAYS[way](seen)

    assert sum(seen) == 10
    assert len(seen) == 4


@pytest.mark.parametrize("way", ["embed", "stream"])
def test_without_await_the_callers_thread_is_told(way):
    """What draws runs where it was asked for, and not on the loop's thread."""
    seen = []

    def tell(count):
        seen.append((count, threading.current_thread()))

    with SyncEmbedder(embedder()) as twin:
        made = twin.embed(TEXTS, progress=tell) if way == "embed" else list(twin.stream(TEXTS, progress=tell))

    assert len(made) == (10 if way == "embed" else 4)
    assert sum(count for count, _ in seen) == 10
    assert len(seen) == 4
    assert {thread for _, thread in seen} == {threading.current_thread()}


async def test_repeated_failed_and_missing_texts_count():
    """At the end all are done, however few were sent."""

    def answer(request):
        texts = json.loads(request.body)["input"]
        if "bad" in texts:
            return response({"error": {"message": "bad"}}, 400)
        return response({"data": [{"index": row, "embedding": [1.0]} for row in range(len(texts))]})

    seen = []
    connected = embedkit.connect("compatible:m", base_url="http://h/v1", exchange=FakeExchange(answer))
    result = await connected.embed(["a", "a", "bad", None, "b", "a"], on_error="skip", progress=seen.append)

    assert sum(seen) == 6
    assert set(result.failures) == {2, 3}


async def test_long_texts_and_shared_requests_count_too():
    """Texts in pieces, and calls that share a request."""
    long, shared = [], []
    own = embedder()
    own.limits, own.long_text = Limits(max_text_tokens=3), "mean"
    await own.embed(["a long text of many words, to be cut " * 3, "b"], progress=long.append)
    connected = embedkit.connect(
        "compatible:m", base_url="http://h/v1", coalesce=True,
        exchange=FakeExchange(lambda _: response({"data": [{"index": 0, "embedding": [1.0]}]})),
    )  # fmt: skip
    await connected.embed(["a"], progress=shared.append)

    assert (sum(long), sum(shared)) == (2, 1)


class Failing(FakeEmbedder):
    async def embed_batch(self, texts, options):
        if "text 7" in texts:
            raise EmbedkitError("no")
        return await super().embed_batch(texts, options)


@pytest.mark.parametrize("sync", [False, True])
def test_a_failed_call_claims_no_more_than_was_done(sync):
    """And its error comes out as it is."""
    seen, failing = [], Failing(4, limits=Limits(max_texts=2))
    failing.max_concurrency = 1
    with pytest.raises(EmbedkitError, match="no"):
        if sync:
            SyncEmbedder(failing).embed(TEXTS, progress=seen.append)
        else:
            asyncio.run(failing.embed(TEXTS, progress=seen.append))

    assert sum(seen) == 6


@pytest.mark.parametrize("sync", [False, True])
def test_what_it_raises_comes_out(sync):
    """A function that fails ends the call; nothing hangs."""

    def tell(_):
        raise LookupError

    with pytest.raises(LookupError):
        if sync:
            SyncEmbedder(embedder()).embed(TEXTS, progress=tell)
        else:
            asyncio.run(embedder().embed(TEXTS, progress=tell))


@pytest.mark.parametrize("way", ["embed", "stream", "sync embed", "sync stream"])
def test_the_bar_of_tqdm(way, monkeypatch):
    """True draws one up to its end and closes it; the length of a generator is not known."""
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)

    async def read(texts):
        return [part async for part in embedder().stream(texts, progress=True)]

    if way == "embed":
        asyncio.run(embedder().embed(TEXTS, progress=True))
    elif way == "sync embed":
        SyncEmbedder(embedder()).embed(TEXTS, progress=True)
    elif way == "stream":
        asyncio.run(read(TEXTS))
    else:
        assert len(list(SyncEmbedder(embedder()).stream(iter(TEXTS), progress=True))) == 4
    drawn = written.getvalue()

    assert drawn.endswith("\n")
    assert ("10/10" in drawn) == (way != "sync stream")
    assert "10 texts" in drawn or "10/10 " in drawn


def test_a_stream_that_is_left_closes_its_bar(monkeypatch):
    """A bar is not drawn again once its loop was left."""
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    parts = SyncEmbedder(embedder()).stream(TEXTS, progress=True)
    next(parts)
    parts.close()

    assert written.getvalue().endswith("\n")
    assert "10/10" not in written.getvalue()


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("wrong", ["yes", 1, 0, "", []])
def test_neither_true_nor_a_function_is_refused(wrong, sync):
    """By name, with what it takes."""
    with pytest.raises(ConfigError, match="progress="):
        if sync:
            SyncEmbedder(embedder()).embed(TEXTS, progress=wrong)
        else:
            asyncio.run(embedder().embed(TEXTS, progress=wrong))
    with pytest.raises(ConfigError, match="progress="):
        embedder().stream(TEXTS, progress=wrong)


def test_without_tqdm_it_says_what_to_install(monkeypatch):
    """Before anything is sent; a function of the caller's needs nothing."""
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    own = embedder()
    with pytest.raises(ConfigError, match=r"tqdm, which is not installed: pip install tqdm"):
        asyncio.run(own.embed(TEXTS, progress=True))
    assert own.batches == []
    asyncio.run(own.embed(TEXTS, progress=lambda _: None))


@given(st.lists(st.integers(0, 20)), st.one_of(st.none(), st.integers(0, 50)), st.booleans())
def test_the_count_never_exceeds_the_total(counts, total, finished):
    """Whatever is reported: never more than there is, all of it where it finished, and nothing after."""
    told = []
    progress = Progress(told.append, total)
    for count in counts:
        progress.add(count)
    if finished:
        progress.finish()
        progress.add(3)

    assert all(told)
    if total is None:
        assert sum(told) == sum(counts)
    else:
        assert sum(told) == (total if finished else min(total, sum(counts)))


async def test_parts_of_a_stream_have_their_texts():
    """As they were given, missing ones too; a result of `embed` keeps none."""
    texts = ["a", None, "b", 7, "c"]
    async with embedder().stream(texts, on_error="skip") as parts:
        found = [part async for part in parts]

    assert [list(part.texts) for part in found] == [["a", None, "b"], [7, "c"]]
    assert [part.shape for part in found] == [(3, 4), (2, 4)]
    assert (await embedder().embed(["a"])).texts is None


def test_parts_have_them_without_await_too():
    """The same texts, read in the caller's thread."""
    with SyncEmbedder(embedder()) as twin:
        assert [part.texts for part in twin.stream(["a"])] == [["a"]]


async def test_the_partial_of_a_failed_part_has_them_too():
    """What was embedded travels on the error with its texts."""

    class Bad(FakeEmbedder):
        async def embed_batch(self, texts, options):
            if len(texts) > 1:
                raise embedkit.TooLargeError("one by one", status=413)
            if texts == ["bad"]:
                raise embedkit.InvalidInputError("bad", rows=(0,))
            return embedkit.Embeddings(np.ones((1, 2), np.float32))

    with pytest.raises(embedkit.InvalidInputError) as caught:
        async with Bad().stream(["a", "bad"]) as parts:
            async for _ in parts:
                pass

    assert caught.value.partial.texts == ["a", "bad"]
