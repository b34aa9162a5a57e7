"""Whether the members of a pool serve one model: the vectors of a few fixed texts tell, under the options of a call.

Each member embeds the texts when it is first used under a set of options, so that there is something to compare with
when another has to take over. Whoever was first is the reference for these options. In a process each member is asked
once per set of options, whatever number of pools it is in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._batching.plan import plan
from .._loops import this_loop
from .._types import PACKED, safe_url
from ..errors import ConfigError, InvalidInputError, TooLargeError, TransportTimeoutError
from .learned import option_key

if TYPE_CHECKING:
    import anyio

    from .._hints import NDArray
    from .._types import DType, Options, RequestCount
    from .base import Embedder

# A word, a question, and a script beyond Latin: prefixes, tokenizers and truncation show in them.
TEXTS = ("hello", "What does the treaty say about mutual defense?", "東京の天気は晴れです。")
# Least cosine of two members' vectors of a text. Servers differ in the last bits of a float; where numbers are rounded
# to few values, or to their sign, those few bits decide some of them.
LEAST: dict[DType, float] = {"float32": 0.999, "int8": 0.99, "uint8": 0.99, "binary": 0.95, "ubinary": 0.95}
LENGTHS = 0.01  # most that the lengths of two vectors of a text may differ, as a share
MAX_KEPT = 256  # vectors of members under sets of options, in this process

_kept: dict[tuple[str, str, str, bytes], NDArray[Any]] = {}


class Agreement:
    """What the members of one pool are known to agree on."""

    def __init__(self) -> None:
        self._reference: dict[bytes, tuple[Embedder, NDArray[Any]]] = {}  # by options
        self._fine: set[tuple[int, bytes]] = set()  # members, by id, and options
        self._asking: dict[tuple[object, int, bytes], anyio.Event] = {}

    async def check(self, member: Embedder, options: Options, own: Options, tally: RequestCount) -> None:
        """Return once the member is known to agree under these options with those used before. `own`: the same, with
        the fields that only this member is sent.

        Raises:
            ConfigError: it does not, or it refuses the texts.
            EmbedkitError: it failed; nothing is known yet.
        """
        key = option_key(options)
        place = id(member), key
        while place not in self._fine:
            asking = self._asking.get((this_loop(), *place))
            if asking is not None:
                await asking.wait()  # a neighbor asks already; should it fail, this one asks
                continue
            await self._compare(member, key, own, tally)

    async def _compare(self, member: Embedder, key: bytes, own: Options, tally: RequestCount) -> None:
        import anyio

        place = this_loop(), id(member), key
        answered = self._asking[place] = anyio.Event()
        try:
            found = await _vectors(member, own, tally)
        finally:
            del self._asking[place]
            answered.set()
        reference, vectors = self._reference.setdefault(key, (member, found))
        differ = "" if reference is member else difference(vectors, found, own.dtype)
        if differ:
            msg = (
                f"{named(reference)} and {named(member)} do not serve the same model: {differ}; their vectors do not "
                "mix. A pool takes one model at several providers; verify=False leaves this check out"
            )
            raise ConfigError(msg)
        self._fine.add((id(member), key))


def named(member: Embedder) -> str:
    """A member, as an error names it."""
    place = safe_url(getattr(member, "base_url", ""))
    return f"{member.provider}:{member.model}" + (f" at {place}" if place else "")


def difference(one: NDArray[Any], other: NDArray[Any], dtype: DType) -> str:
    """What differs in two members' vectors of the texts, shape (texts, values); empty: nothing that matters."""
    import numpy as np

    if one.shape[1] != other.shape[1]:
        return f"under the same options they answer {one.shape[1]} and {other.shape[1]} values per text"
    lengths = np.linalg.norm(one, axis=1), np.linalg.norm(other, axis=1)
    with np.errstate(all="ignore"):
        cosines = (one * other).sum(axis=1) / (lengths[0] * lengths[1])
        ratios = lengths[1] / lengths[0]
    if not (cosines >= LEAST[dtype]).all():  # NaN is not
        shown = ", ".join(f"{each:.4f}" for each in cosines)
        return f"the cosines of their vectors of {len(one)} texts are {shown}, and have to be at least {LEAST[dtype]}"
    if not (abs(ratios - 1) <= LENGTHS).all():
        return f"their vectors differ in length by a factor of {ratios[0]:.3g}; normalize=True makes all unit length"
    return ""


async def _vectors(member: Embedder, options: Options, tally: RequestCount) -> NDArray[Any]:
    """The same, from earlier in this process where the member can be told from others."""
    who = member.identity
    if who is None:
        return await _embedded(member, options, tally)
    place = *who, option_key(options)
    if place not in _kept:
        found = await _embedded(member, options, tally)
        if len(_kept) >= MAX_KEPT:
            return found
        _kept[place] = found
    return _kept[place]


async def _embedded(member: Embedder, options: Options, tally: RequestCount) -> NDArray[Any]:
    """The member's vectors of the texts, as numbers around zero: shape (texts, components)."""
    import numpy as np

    parts = plan(TEXTS, member.known_limits(), member.count_tokens)
    try:
        made = [(await member.fill_rows(list(TEXTS[part]), options, None, tally)).vectors for part in parts]
    except (InvalidInputError, TooLargeError) as error:  # about these texts, which the caller has not given
        msg = f"{named(member)} refuses the texts by which members of a pool are compared: {error.message}"
        raise ConfigError(msg) from error
    except TransportTimeoutError as error:
        error.sent = False  # the caller's texts were not: it says nothing of them
        raise
    rows: NDArray[Any] = np.concatenate(made)
    if options.dtype in PACKED:
        bits = rows.astype(np.int16) + (128 if options.dtype == "binary" else 0)
        return np.unpackbits(bits.astype(np.uint8), axis=1) * 2.0 - 1.0
    return rows.astype(np.float64) - (128 if options.dtype == "uint8" else 0)


def _forget() -> None:
    """For tests: nothing has been asked in this process."""
    _kept.clear()


__all__ = ["LEAST", "TEXTS", "Agreement", "difference", "named"]
