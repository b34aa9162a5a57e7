"""Every recorded exchange beside the checkout is decoded, or explained, or set aside for a reason that is counted."""

from __future__ import annotations

import json
import time
from collections import Counter
from email.utils import parsedate_to_datetime
from fnmatch import fnmatch
from urllib.parse import urlsplit

import numpy as np
import pytest

from embedkit import RetryPolicy, connect, errors
from embedkit.errors import ApiError, DecodeError, EmbedkitError
from embedkit.providers import hosts
from embedkit.testing import FakeExchange, response

from .conftest import SHARED
from .exchanges import ASIDE, BROKEN, FOLDERS, KEY, answered, asked, found, host_of, load, refused, row

NAMES = sorted(str(path.relative_to(SHARED / "exchanges")) for path in (SHARED / "exchanges").glob("*/*.json")) or ["none"]
KNOWN = {host.name for host in hosts()}
WAITING = "no host yet"
CREDENTIALS = {"authorization", "api-key", "x-api-key", "x-goog-api-key"}

pytestmark = pytest.mark.anyio


def fate(name):
    """What becomes of a recording: "decoded", "explained", "broken" (must be refused as a reply) or a reason to set it aside."""
    folder = name.partition("/")[0]
    status = int(next(part for part in name.partition("/")[2].split("-") if part.isdigit()))
    if status >= 300:
        return "explained"
    if (reason := found(ASIDE, name)) is not None:
        return reason
    if folder not in FOLDERS and host_of(folder) not in KNOWN:
        return WAITING
    return "broken" if name in BROKEN else "decoded"


def embedder(exchange, how, fake):
    """An embedder for whoever answered, over a fake that answers what was recorded."""
    told = how.connect(exchange) if callable(how.connect) else how.connect
    return connect(f"{how.host}:{asked(exchange).model}", api_key=KEY, exchange=fake, retry=RetryPolicy(attempts=1), **told)


async def replayed(exchange, how, texts, options):
    """(the result or the error, the request that went out) of embedkit facing the recorded answer."""
    answer = exchange["response"]
    fake = FakeExchange([response(answer["body"], answer["status"], answer["headers"])])
    one = embedder(exchange, how, fake)
    one._probed = True
    names = ("input_type", "dimensions", "dtype", "truncate", "normalize", "extra")
    try:
        result = await one.embed_batch(texts, one._merged(*[options.get(name) for name in names]))
    except EmbedkitError as error:
        return error, fake.requests
    return result, fake.requests


@pytest.mark.parametrize(
    "name", [name for name in NAMES if fate(name) in ("decoded", "broken")] if NAMES != ["none"] else NAMES, ids=str
)
async def test_a_recorded_reply_is_decoded(shared, name):
    """Values, order, width, tokens and model are those that a plain reading of the recorded body finds."""
    exchange = load(shared / "exchanges" / name)
    how = row(exchange)
    assert how is not None, (
        f"{host_of(name.partition('/')[0])} exists: switch its recordings on with a line in tests/exchanges.py"
    )
    request = asked(exchange)
    if fate(name) == "broken":
        result, _ = await replayed(exchange, how, ["a text"], {})
        assert isinstance(result, DecodeError)
        return
    answer = answered(exchange, how)
    options = {key: value for key, value in request.options.items() if key != "dimensions" or how.narrow}
    if not answer.vectors:
        result, _ = await replayed(exchange, how, ["a text"], options)
        assert isinstance(result, DecodeError)  # an empty list, which embedkit never sends, was answered
        return
    texts = request.texts or [f"text {place}" for place in range(len(answer.vectors))]
    result, sent = await replayed(exchange, how, texts, options)

    assert not isinstance(result, EmbedkitError), result
    assert result.vectors.shape == (len(texts), len(answer.vectors[0]))
    assert result.vectors.dtype == np.dtype(options.get("dtype", "float32"))
    assert np.array_equal(result.vectors, np.array(answer.vectors).astype(result.vectors.dtype))
    assert result.usage.tokens == answer.tokens
    assert result.model == (answer.model or request.model)
    if request.texts:
        assert different(exchange, how, sent[0]) == {}


def different(exchange, how, sent):
    """What embedkit sent otherwise than the recorded client, habits aside: fields, path, the header of the key."""
    body, ours = dict(asked(exchange).body), json.loads(sent.body)
    known = {
        *ours,
        "model",
        "dimensions",
        "output_dimension",
        "input_type",
        "truncate",
        "embedding_types",
    }  # else another client's own
    wrong = {}
    for name in known - set(how.ours):
        theirs = [body[name]] if name in ("input", "inputs", "texts") and isinstance(body.get(name), str) else body.get(name)
        if theirs != ours.get(name) and not (name == "model" and name not in ours):
            wrong[name] = theirs, ours.get(name)
    recorded, made = urlsplit(exchange["request"]["url"]), urlsplit(sent.url)
    if how.route and recorded.path.replace("//", "/") != made.path and "<" not in recorded.path:
        wrong["path"] = recorded.path, made.path
    keyed = CREDENTIALS & set(exchange["request"]["headers"])
    if keyed and keyed != CREDENTIALS & set(sent.headers) and how.host != "azure":  # which takes a key in either (1A.1)
        wrong["key"] = keyed, set(sent.headers)
    return wrong


@pytest.mark.parametrize("name", [name for name in NAMES if fate(name) == "explained"] if NAMES != ["none"] else NAMES, ids=str)
async def test_a_recorded_refusal_is_explained(shared, name, monkeypatch):
    """Class, message, code, request id, whether to try again and when are those of the wire reference."""
    exchange = load(shared / "exchanges" / name)
    how = FOLDERS.get(name.partition("/")[0]) or row(exchange) or row({**exchange, "name": "openai/any"})
    if (date := exchange["response"]["headers"].get("date")) is not None:
        moment = parsedate_to_datetime(date).timestamp()
        monkeypatch.setattr(time, "time", lambda: moment)
    told = refused(exchange)
    error, _ = await replayed(exchange, how, ["a text"], {})

    assert isinstance(error, ApiError)
    assert (type(error).__name__, error.retryable, error.retry_after) == (told.kind, told.retryable, told.wait)
    assert all(text[:300] in error.message for text in told.said)
    assert (error.code, error.request_id) == (told.code, told.request_id)
    assert (error.status, error.provider) == (exchange["response"]["status"], how.host)
    assert getattr(errors, told.kind) is type(error)


def test_nothing_is_skipped_in_silence(shared, tell):
    """Every recording is decoded, explained or set aside; what is set aside is listed, and every line of the tables is needed."""
    fates = Counter(map(fate, NAMES))
    waiting = sorted({name.partition("/")[0] for name in NAMES if fate(name) == WAITING})
    aside = {reason: count for reason, count in fates.items() if reason not in ("decoded", "explained", "broken")}
    tell(
        f"exchanges: {len(NAMES)} = {fates['decoded']} decoded + {fates['broken']} broken on purpose + {fates['explained']} explained"
        + "".join(f" + {count} {reason}" for reason, count in aside.items())
        + (f" ({', '.join(waiting)})" if waiting else "")
    )

    assert sum(fates.values()) == len(NAMES)
    assert {reason: count for reason, count in aside.items() if reason != WAITING} == {"another route of the provider": 4}
    assert all(any(fnmatch(name, pattern) for name in NAMES) for pattern in ASIDE)
    assert {name.partition("/")[0] for name in NAMES} >= set(FOLDERS)
