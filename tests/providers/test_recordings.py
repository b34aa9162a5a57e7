"""Every recording beside the checkout is decoded, or explained, or set aside for a reason that is counted."""

from __future__ import annotations

import json
import time
from collections import Counter
from email.utils import parsedate_to_datetime
from fnmatch import fnmatch
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from embedkit import RetryPolicy, connect, errors
from embedkit.errors import ApiError, ConfigError, DecodeError, EmbedkitError
from embedkit.providers import hosts
from embedkit.testing import FakeExchange, response
from tests.conftest import SHARED
from tests.support.plain_reading import answered, asked, load
from tests.support.recordings import (
    ASIDE,
    BROKEN,
    FOLDERS,
    KEY,
    PARTIAL,
    ROWS,
    SAYS,
    WAITING,
    WAITS,
    fate,
    host_of,
    refused,
    row,
)

COLLECTIONS = ("exchanges", "captures")
RECORDINGS = {
    each["name"]: each
    for collection in COLLECTIONS
    for each in map(load, sorted((SHARED / collection).glob("*/[!_]*.json")))
}
KNOWN = frozenset(host.name for host in hosts())
CREDENTIALS = {"authorization", "api-key", "x-api-key", "x-goog-api-key"}

pytestmark = pytest.mark.anyio


def of(*fates):
    """The parameter `name`: the recordings of these fates, or one that is skipped where there are none at all."""
    names = [name for name, recording in RECORDINGS.items() if fate(recording, KNOWN) in fates]
    return pytest.mark.parametrize("name", names if RECORDINGS else ["absent"], ids=str)


async def replayed(recording, how, texts, options):
    """(the result or the error, the request that went out) of embedkit facing the recorded answer."""
    answer = recording["response"]
    fake = FakeExchange(lambda _: response(answer["body"], answer["status"], answer["headers"]))
    told = how.connect(recording) if callable(how.connect) else how.connect
    model = f"{how.host}:{asked(recording).model}"
    embedder = connect(model, api_key=KEY, exchange=fake, retry=RetryPolicy(attempts=1), **told)
    embedder._probed = True
    names = ("input_type", "dimensions", "dtype", "truncate", "normalize", "extra")
    try:
        result = await embedder.embed_batch(texts, embedder._merged(*[options.get(name) for name in names]))
    except EmbedkitError as error:
        return error, fake.requests
    return result, fake.requests


@of("decoded")
async def test_a_recorded_reply_is_decoded(shared, name):
    """Values, order, width, tokens and model are those that a plain reading of the recorded body finds."""
    recording = RECORDINGS[name]
    how = row(recording)
    assert how is not None, (
        f"{host_of(name.partition('/')[0])} exists: switch its recordings on with a line in tests/support/recordings.py"
    )
    request, answer = asked(recording), answered(recording, how.base64)
    texts = request.texts or [f"text {place}" for place in range(max(1, len(answer.vectors)))]
    options = dict(request.options)
    if not answer.vectors or len(answer.vectors[0]) != options.get("dimensions", len(answer.vectors[0])):
        await not_honored(recording, how, texts, options)
        options.pop("dimensions", None)
        how = how._replace(ours=(*how.ours, "dimensions"))
    if not answer.vectors:
        return
    result, sent = await replayed(recording, how, texts, options)

    assert not isinstance(result, EmbedkitError), result
    assert result.vectors.shape == (len(texts), len(answer.vectors[0]))
    assert result.vectors.dtype == np.dtype(
        {"binary": "int8", "ubinary": "uint8"}.get(kind := options.get("dtype", "float32"), kind)
    )
    expected = np.array(answer.vectors).astype(result.vectors.dtype)
    if how.unit and "dimensions" in options:
        expected /= np.linalg.norm(expected.astype(np.float64), axis=1, keepdims=True)
    assert (
        np.allclose(result.vectors, expected, rtol=1e-6, atol=0)
        if how.unit
        else np.array_equal(result.vectors, expected)
    )
    assert result.usage.tokens == (answer.tokens if how.tokens else None)
    assert result.model == (answer.model or request.model)
    if request.texts:
        assert different(recording, how, sent[0]) == {}


async def not_honored(recording, how, texts, options):
    """An ignored width and an empty list are errors; a width that is known to be ignored is not asked for."""
    error, sent = await replayed(recording, how, texts, options)

    assert isinstance(error, DecodeError if how.narrow else ConfigError)
    assert len(sent) == how.narrow


def different(recording, how, sent):
    """What embedkit sent otherwise than the recorded client: fields, path, header of the key; not habits."""
    wrong = fields(recording, how, json.loads(sent.body)) if how.fields else meaning(recording, sent)
    recorded, made = (
        unquote(urlsplit(recording["request"]["url"]).path.replace("//", "/")),
        unquote(urlsplit(sent.url).path),
    )
    same_verb = how.fields or recorded.rpartition(":")[2] == made.rpartition(":")[2]  # Google takes one text elsewhere
    if how.route and same_verb and recorded != made and "<" not in recorded:
        wrong["path"] = recorded, made
    keyed = CREDENTIALS & set(recording["request"]["headers"])
    # Azure and Vertex take two kinds of key.
    if keyed and not keyed & set(sent.headers) and how.host not in ("azure", "vertex"):
        wrong["key"] = keyed, set(sent.headers)
    return wrong


def fields(recording, how, ours):
    """Fields of the body that differ. What embedkit never sends is other clients' own."""
    body = asked(recording).body
    common = {*ours, "dimensions", "output_dimension", "input_type", "truncate", "embedding_types"} - set(how.ours)
    lists = {name: [body[name]] for name in ("input", "inputs", "texts") if isinstance(body.get(name), str)}
    return {
        name: (theirs, ours.get(name))
        for name in common
        if ((theirs := lists.get(name, body.get(name))) or None) != ours.get(name)
        and not (name == "model" and "model" not in body)
    }


def meaning(recording, sent):
    """Model, texts, width and purpose that differ, where bodies of one dialect have several forms."""
    theirs, mine = asked(recording), asked({"request": {"url": sent.url, "body": sent.body}})
    said = ("dimensions", "input_type")
    pairs = {"model": (theirs.model, mine.model), "texts": (theirs.texts, mine.texts)}
    pairs |= {name: (theirs.options.get(name), mine.options.get(name)) for name in said}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


@of("broken")
async def test_a_broken_reply_is_an_error(shared, name):
    """A success without vectors that can be read is a DecodeError, whoever wrote it."""
    recording = RECORDINGS[name]
    error, _ = await replayed(recording, row(recording), ["a text"], {})

    assert isinstance(error, DecodeError)


@of("explained")
async def test_a_recorded_refusal_is_explained(shared, name, monkeypatch):
    """Class, message, code, request id, whether to try again and when are those that a plain reading finds."""
    recording = RECORDINGS[name]
    how = row(recording)
    how = how if how is not None and how.host in KNOWN else FOLDERS["openai"]  # of a host to come, or never to come
    if (date := recording["response"]["headers"].get("date")) is not None:
        moment = parsedate_to_datetime(date).timestamp()
        monkeypatch.setattr(time, "time", lambda: moment)
    told = refused(recording)
    error, _ = await replayed(recording, how, ["a text"], {})

    assert isinstance(error, ApiError)
    assert (type(error).__name__, error.retryable, error.retry_after) == (told.kind, told.retryable, told.wait)
    assert all(text[:300] in error.message for text in told.said)
    assert error.rows == told.rows
    assert (error.code, error.request_id) == (told.code, told.request_id)
    assert (error.status, error.provider) == (recording["response"]["status"], how.host)
    assert getattr(errors, told.kind) is type(error)


def test_nothing_is_skipped_in_silence(shared, tell):
    """Every recording is decoded, explained or set aside and counted; every line of the tables is needed."""
    fates = {name: fate(recording, KNOWN) for name, recording in RECORDINGS.items()}
    counts = Counter(fates.values())
    waiting = sorted({name.partition("/")[0] for name, one in fates.items() if one == WAITING})
    compared = sum(1 for name, one in fates.items() if one == "decoded" and asked(RECORDINGS[name]).texts)
    read = {
        "decoded": f"decoded ({compared} with their request)",
        "broken": "refused as broken",
        "explained": "explained",
    }
    tell(
        f"recordings: {len(fates)} = "
        + " + ".join(f"{counts[one]} {word}" for one, word in read.items())
        + " + set aside:"
    )
    for reason, count in counts.items():
        if reason not in read:
            tell(f"  {count} {reason}" + (f": {', '.join(waiting)}" if reason == WAITING else ""))

    aside = {reason: count for reason, count in counts.items() if reason not in (*read, WAITING)}
    assert aside == {PARTIAL: 12, **{reason: count for reason, (count, _) in ASIDE.items()}}
    assert [name for name in BROKEN if fates[name] not in ("broken", WAITING)] == []
    patterns = [*SAYS, *WAITS, *ROWS, *(pattern for _, some in ASIDE.values() for pattern in some)]
    assert [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in fates)] == []
    assert set(FOLDERS) <= {name.partition("/")[0] for name in fates}
