"""Under which key a vector is kept: a digest of all that is known to change it, and of its text. Pure.

What changes a vector and is no option of a call is said by the embedder (`Embedder.origin`): whatever of it differs
makes other keys, so a difference that would not matter costs hits at most. What makes embedding faster or slower, and
what says who pays, is left out. Keys, tokens and passwords never go in: a digest could be tried out against guesses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec

from .._types import safe_url

if TYPE_CHECKING:
    from .._batching.long_text import TextSplitter
    from .._types import Options
    from ..codec import Target

FORMAT = 1  # one more whenever the same key would mean another vector, as after a change of `_embedders/postprocess.py`
SIZE = 16  # bytes of a key
_encode = msgspec.json.Encoder(order="deterministic").encode  # {"a": 1, "b": 2} is {"b": 2, "a": 1}
# Words in the name of a header or of a field of a query whose value is nobody's business.
SECRET = {
    "auth", "authorization", "code", "cookie", "cred", "credential", "credentials", "key", "apikey", "pass", "passwd",
    "password", "secret", "sig", "signature", "token",
}  # fmt: skip
# Headers that change no vector: of HTTP itself, and of tracing, where every process has its own.
INDIFFERENT = {
    "accept", "accept-encoding", "accept-language", "baggage", "connection", "content-type", "traceparent",
    "tracestate", "user-agent", "x-correlation-id", "x-request-id",
}  # fmt: skip


class CacheKeys:
    """The keys of texts under one set of options.

    Args:
        origin: what the embedder says of itself.
        options: of the call.
        splitter: how texts that are too long are cut on the client; None: they are not.

    Raises:
        TypeError, ValueError, OverflowError: `extra` is no JSON.
    """

    def __init__(self, origin: Mapping[str, Any], options: Options, splitter: TextSplitter | None) -> None:
        said = [FORMAT, origin, options, None if splitter is None else splitter.how]
        self._begun = blake2b(blake2b(_encode(said), digest_size=32).digest(), digest_size=SIZE)
        self.splitter: TextSplitter | None = splitter

    def of(self, texts: Sequence[str]) -> list[bytes]:
        """The key of each text."""
        begun, splitter = self._begun, self.splitter
        keys = []
        for text in texts:
            digest = begun.copy()
            digest.update(text.encode("utf-8", "surrogatepass"))
            if splitter is not None and not splitter.surely_fits(text):
                digest.update(b"\xff" + _cut(splitter, text))  # a byte that no text has
            keys.append(digest.digest())
        return keys


def _cut(splitter: TextSplitter, text: str) -> bytes:
    """Where the text is cut, and where again should the provider find it too long: that is up to the limit and to how
    tokens are counted, a function that cannot be compared. Counts weigh the pieces.
    """
    parts = splitter.first(text)
    finer = [splitter.finer(part) for part in parts]
    return _encode([
        [[len(part), splitter.count_tokens(part)] for part in parts],
        [[[len(piece), splitter.count_tokens(piece)] for piece in pieces] for pieces in finer],
    ])  # fmt: skip


def http_origin(target: Target, headers: Mapping[str, str], options: Options) -> dict[str, Any]:
    """What decides a vector at a provider besides text and options: who, where, which model, and what the request says
    besides. The prefix is written out, since the catalog may change.
    """
    facts, purpose = target.facts, options.input_type or ""
    return {
        "provider": target.host.name,
        "place": [_address(target.base_url)],
        "model": target.model,
        "parameters": target.parameters,
        "headers": sorted([name, value] for name, value in headers.items() if _matters(name)),
        "prefix": ["", ""] if facts is None else [facts.prefixes.get(purpose, ""), facts.prefix_field],
    }


def _address(url: str) -> list[Any]:
    """A URL without its user and without what is secret in its query."""
    query = parse_qsl(url.partition("?")[2], keep_blank_values=True)
    return [safe_url(url).rstrip("/"), sorted([name, value] for name, value in query if not _is_secret(name))]


def _matters(header: str) -> bool:
    return header not in INDIFFERENT and not _is_secret(header)


def _is_secret(name: str) -> bool:
    return not SECRET.isdisjoint(re.split(r"[^a-z0-9]+", name.lower()))
