"""Whether the endpoints of one provider serve one model: what they answer to one known text has to agree.

An endpoint is asked for that text alone before it is given anything else. After an outage the text travels with the
first texts of a caller that are answered: what comes back may be another model, but a request of its own would be one
more for a provider that is hardly well. Options change vectors, so an answer is compared with an earlier one under the
same options; where there is none, the endpoint is asked once more for the text alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from .._batching.dispatch import PROBE_TEXT
from .._batching.plan import plan
from .._types import safe_url
from ..codec import OutputRows, together
from ..codec.vector_math import missing_rows
from ..errors import ConfigError, InvalidInputError, TooLargeError, TransportTimeoutError
from .learned import MAX_WIDTHS, option_key
from .postprocess import laid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .._types import Options, Reply, RequestCount
    from .base import Embedder

# Least cosine between two endpoints' vectors of one text. Quantized weights cost less, two different models more.
AGREE = 0.98


class Shared(NamedTuple):
    """A reply to a caller's texts that the known text may have travelled with.

    Attributes:
        reply: the caller's rows.
        vector: of the known text; None where it did not travel, or has none.
        agrees: it does with an earlier one.
    """

    reply: Reply
    vector: NDArray[Any] | None = None
    agrees: bool = False


class KnownText:
    """What the endpoints of a pool have answered to it."""

    def __init__(self) -> None:
        self._under: dict[bytes, tuple[str, NDArray[Any]]] = {}  # by options: where it came from first, and its vector
        self._first: Options | None = None  # the options under which it was asked for alone

    async def ask(
        self, member: Embedder, options: Options, tally: RequestCount, vector: NDArray[Any] | None = None
    ) -> None:
        """Return once the member has answered the known text alone, and agrees with the others.

        Args:
            member: who is asked.
            options: of the call that comes next.
            tally: counts what is sent.
            vector: that the member gave under these options just before: from then on it is what others have to agree
                with.

        Raises:
            ConfigError: it serves another model.
            EmbedkitError: it failed; nothing is known yet.
        """
        asked = None
        while asked is None or asked != self._first:  # else another member was first meanwhile, under other options
            asked = self._first or _plain(options)
            try:
                reply = await member.fill_rows([PROBE_TEXT], asked, None, tally)
            except TransportTimeoutError as error:
                error.sent = False  # the caller's texts were not: it says nothing of them
                raise
            self._first = self._first or asked
        if not self._agrees(member, asked, reply.vectors[0]):
            self._keep(member, asked, reply.vectors[0])
        if vector is not None:
            self._keep(member, options, vector)

    async def along(
        self,
        member: Embedder,
        texts: Sequence[str],
        options: Options,
        out: OutputRows | None,
        tally: RequestCount,
        tries: int | None,
    ) -> Shared:
        """As `Embedder.fill_rows`, with the known text behind the caller's where there is room for it.

        Raises:
            ConfigError: the member serves another model; `out` has none of its rows.
            EmbedkitError: it failed.
        """
        both, count = [*texts, PROBE_TEXT], len(texts)
        if options.dtype == "float32" and not member.joins_texts(options) and _is_one_request(member, both):
            own = OutputRows(lambda width: missing_rows(count + 1, width, options.dtype))
            try:
                reply = await member.fill_rows(both, options, own, tally, tries)
            except (InvalidInputError, TooLargeError) as error:
                if error.rows and count not in error.rows:
                    raise
            else:
                vector = None if own.failures.pop(count, None) else reply.vectors[count].copy()
                agrees = vector is not None and self._agrees(member, options, vector)
                if own.failures and out is None:
                    raise together(own.failures)
                rows = laid(reply.vectors[:count], out, own.failures)
                return Shared(msgspec.structs.replace(reply, vectors=rows), vector, agrees)
        return Shared(await member.fill_rows(texts, options, out, tally, tries))

    def _keep(self, member: Embedder, options: Options, vector: NDArray[Any]) -> None:
        if len(self._under) < MAX_WIDTHS:
            self._under.setdefault(_key(options), (_place(member), vector))

    def _agrees(self, member: Embedder, options: Options, vector: NDArray[Any]) -> bool:
        """Whether the vector is the known one under these options; False where none is known. ConfigError: it is not
        that.
        """
        import numpy as np

        if (known := self._under.get(_key(options))) is None:
            return False
        place, other = known
        if len(vector) != len(other):
            differ = f"{len(other)} and {len(vector)} components"
        else:
            with np.errstate(all="ignore"):
                cosine = float(np.dot(vector, other) / (np.linalg.norm(vector) * np.linalg.norm(other)))
            if cosine >= AGREE:  # NaN is not
                return True
            differ = f"a cosine of {cosine:.3f}"
        msg = (
            f"{place} and {_place(member)} do not serve the same model (one text, {differ}): their vectors "
            "do not mix; a pool takes endpoints of one model"
        )
        raise ConfigError(msg)


def _place(member: Embedder) -> str:
    return safe_url(getattr(member, "base_url", ""))


def _plain(options: Options) -> Options:
    """The same, without what is made of a vector afterwards: what is left makes another vector of the same text."""
    return msgspec.structs.replace(options, dtype="float32", dimensions=None, normalize=True, truncate=None)


def _key(options: Options) -> bytes:
    """Of what changes the direction of a vector, or its width."""
    return option_key(msgspec.structs.replace(options, normalize=True, truncate=None))


def _is_one_request(member: Embedder, texts: Sequence[str]) -> bool:
    first = next(plan(texts, member.known_limits(), member.count_tokens))
    return bool(first.stop == len(texts))


__all__ = ["AGREE", "KnownText", "Shared"]
