"""A job over the real sinks: interrupted, gone on with, added to."""

from __future__ import annotations

import anyio
import numpy as np
import pytest

from embedkit import AuthError, DecodeError, Embedder, Embeddings, InvalidInputError, Limits
from embedkit._bulk.sinks.open_sink import FORMS, open_sink
from embedkit._types import Usage
from tests.support.jobs import job, vector
from tests.support.sinks import table_of, target, vectors_of

TEXTS = [f"text {number}" if number % 10 != 4 else "BAD" for number in range(100)]


class Server(Embedder):
    """Embeds with `vector`, refuses BAD, and gives up after so many texts."""

    limits = Limits(max_texts=8)
    provider, model = "test", "m"

    def __init__(self, last=10_000):
        self.sent, self.last = 0, last

    async def embed_batch(self, texts, options):
        await anyio.sleep(0)
        self.sent += len(texts)
        if self.sent > self.last:
            raise AuthError("the key is gone")
        if bad := [row for row, text in enumerate(texts) if text == "BAD"]:
            raise InvalidInputError("refused", rows=bad)
        return Embeddings(np.stack([vector(text) for text in texts]), "m", Usage(1, 1))


def expected(count):
    return [None if text == "BAD" else vector(text).tolist() for text in TEXTS[:count]]


@pytest.mark.parametrize("kind", FORMS)
def test_a_job_over_a_sink_loses_and_doubles_nothing(tmp_path, kind):
    """It ends for a refused key, goes on, and takes what the input has got since."""
    path = target(tmp_path, kind)

    def run(texts, last=10_000, **settings):
        return anyio.run(job(texts, Server(last), path, sink=lambda out: open_sink(str(out), kind), **settings).run)

    with pytest.raises(AuthError):
        run(TEXTS[:60], 30)
    assert (tmp_path / f"{path.name}.job").exists()
    first = run(TEXTS[:60])
    assert (first.rows, first.failed, vectors_of(path)) == (60, 6, expected(60))
    with pytest.raises(AuthError):
        run(TEXTS, 20, append=True)
    second = run(TEXTS, append=True)

    assert (second.rows, second.failed, vectors_of(path)) == (100, 10, expected(100))
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(
        [path.name, f"{path.name}.report.json", f"{path.name}.failures.jsonl"]
    )
    if kind in ("parquet", "arrow", "folder"):
        assert table_of(path).schema.metadata[b"embedkit.model"] == b"test:m"
        assert table_of(path)["text"].to_pylist() == TEXTS


class Wide(Server):
    """Another model under the same name: its vectors are wider."""

    async def embed_batch(self, texts, options):
        made = await super().embed_batch(texts, options)
        return Embeddings(np.repeat(made.vectors, 2, axis=1), made.model, made.usage)


@pytest.mark.parametrize("append", [False, True])
@pytest.mark.parametrize("kind", FORMS)
def test_vectors_of_another_width_end_a_job(tmp_path, kind, append):
    """A server that has got another model since the job began: refused with both widths, and no row is written as if it
    had failed; with the model back the job goes on.
    """
    path = target(tmp_path, kind)

    def run(server, texts=TEXTS, **settings):
        return anyio.run(job(texts, server, path, sink=lambda out: open_sink(str(out), kind), **settings).run)

    if append:
        run(Server(), TEXTS[:50])
    else:
        with pytest.raises(AuthError):
            run(Server(60))
    with pytest.raises(DecodeError, match=r"vectors of 6 values came.* have 3: .*--force"):
        run(Wide(), append=append)
    run(Server(), append=append)

    assert vectors_of(path) == expected(100)
