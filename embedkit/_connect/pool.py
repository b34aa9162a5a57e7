"""Several providers of one model as one embedder: what `connect` made of each, behind one pool."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from .._calltime import seconds
from .._embedders.agreement import named
from .._embedders.base import Embedder
from .._embedders.http import HttpEmbedder
from .._embedders.pool import Pool
from .._embedders.wrapper import Wrapped
from .._peers import answering
from .._traffic.retry import RetryPolicy
from .._types import Options
from .._values import shown
from ..cache.base import Cache
from ..errors import ConfigError
from ..events import Event
from .factory import _wrapped
from .keywords import _of_kind

SHARED = ("long_text", "total_timeout")  # what a whole call is told, and so the pool


@answering
def pool(
    members: Sequence[Embedder],
    *,
    prefer: Literal["cheapest"] | None = None,
    verify: bool = True,
    retry: RetryPolicy | None = None,
    long_text: Literal["mean"] | None = None,
    total_timeout: float | None = None,
    coalesce: bool | float = False,
    cache: Cache | str | os.PathLike[str] | None = None,
    observe: Callable[[Event], object] | None = None,
) -> Embedder:
    """One embedder over several providers of one model. Sends nothing.

        embedder = embedkit.pool([
            embedkit.connect("openai:text-embedding-3-small"),
            embedkit.connect("azure:small", base_url="https://mine.openai.azure.com"),
            embedkit.connect("openrouter:openai/text-embedding-3-small"),
        ])

    Each request goes where its answer will come soonest; what one member fails goes to another, and a failing one is
    left out until it answers again. A request may hold what the narrowest of all takes. `usage.cost` is by the price of
    whoever has answered, events name the provider that they are about, and `model` of a result is as the first answer
    has it.

    When a member is first used under a set of options it embeds three short texts under them, once in a process, and
    has to agree with those used before: in width, in direction (cosine at least 0.999; 0.99 of int8 and uint8, 0.95 of
    bits, where rounding shows) and in length. Tokens of these texts are in no usage.

    Args:
        members: embedders of one model, made with the same options; `extra` is each one's own. Of members made by
            `connect` copies are used, which share their quota; embedders of your own are used as they are.
            Pools among them give their members; their `prefer`, `verify` and `retry` do not count.
        prefer: "cheapest" uses members in the order of `price`: a dearer one only while every cheaper one fails or has
            no place free. None: by speed alone.
        verify: False leaves the comparison out.
        retry: how often one request is tried in all, at every member at least once. None: `RetryPolicy()`. That of the
            members does not count.
        long_text: as `connect` has it. None: as all members were told.
        total_timeout: seconds for a whole call. None: as all members were told.
        coalesce: True lets concurrent small calls share requests; a number: as `connect` has it.
        cache: where vectors are kept, as `connect` has it. Any member's vector stands for those of all.
        observe: called with each event. None: the first observer among the members.

    Raises:
        ConfigError: no members, options that differ, a member with a cache or `coalesce=` of its own, a member without
            a price where the cheapest is to come first; on use: members that do not agree, and what differs.
        TypeError: a member is no `embedkit.Embedder`.
    """
    _of_kind(retry=retry, observe=observe)
    if not isinstance(verify, bool):
        msg = f"verify={shown(verify)}: it is True or False"
        raise ConfigError(msg)
    if total_timeout is not None:
        total_timeout = seconds("total_timeout", total_timeout)
    if prefer not in (None, "cheapest"):
        msg = f"prefer={shown(prefer)}: it is 'cheapest' or None, which is by speed"
        raise ConfigError(msg)
    found = [each for member in _sequence(members) for each in _flat(member)]
    if not found:
        raise ConfigError("a pool has at least one member; members is empty")
    _same_options(found)
    if prefer == "cheapest":
        _priced(found)
    told = {name: _agreed(members, name, given) for name, given in zip(SHARED, (long_text, total_timeout), strict=True)}
    retry = retry or RetryPolicy()
    once = msgspec.structs.replace(retry, attempts=1)  # the pool itself tries again, elsewhere
    embedder = Pool(
        [each.with_retry(once) if isinstance(each, HttpEmbedder) else each for each in found],
        retry=retry, check="provider" if verify else "none", cheapest=prefer == "cheapest",
    )  # fmt: skip
    embedder.options = msgspec.structs.replace(embedder.options, extra={})
    embedder.observe = observe or next((each.observe for each in found if each.observe is not None), None)
    for each in embedder.members:
        if isinstance(each, HttpEmbedder):  # copies; embedders of the caller's stay as they are
            each.observe = each.observe or embedder.observe
    return _wrapped(embedder, told["long_text"], coalesce, told["total_timeout"], cache)


def _sequence(members: Any) -> Sequence[Any]:
    if isinstance(members, Sequence) and not isinstance(members, str):
        return members
    msg = f"a pool takes a list of embedders, not {type(members).__name__}"
    raise TypeError(msg)


def _flat(member: Any) -> Sequence[Embedder]:
    """The member; those of a pool instead of it."""
    if isinstance(member, Pool):
        return member.members
    if isinstance(member, Wrapped):
        msg = f"{named(member)} was made with {member.keyword}=: make the members without it, and pass it to pool()"
        raise ConfigError(msg)
    if not isinstance(member, Embedder):
        hint = "; pass its .embedder" if hasattr(member, "embedder") else ""
        if isinstance(member, str):
            hint = "; pass what connect() makes of a model's name"
        msg = f"a member of a pool is an embedkit.Embedder, not {type(member).__name__}{hint}"
        raise TypeError(msg)
    return [member]


def _same_options(members: Sequence[Embedder]) -> None:
    first = members[0]
    for each in members[1:]:
        for name in Options.__struct_fields__:
            one, other = getattr(first.options, name), getattr(each.options, name)
            if name != "extra" and one != other:
                msg = (
                    f"{named(first)} was made with {name}={one!r} and {named(each)} with {name}={other!r}: their "
                    "vectors would not mix; make all members of a pool with the same options"
                )
                raise ConfigError(msg)


def _priced(members: Sequence[Embedder]) -> None:
    for each in members:
        if each.price is None:
            msg = (
                f"prefer='cheapest': no price is known of {named(each)}; set its attribute price, in US dollars per "
                "million tokens"
            )
            raise ConfigError(msg)


def _agreed(members: Sequence[Embedder], name: str, given: Any) -> Any:
    """What the pool is told, else what all its members were."""
    if given is not None:
        return given
    told = {getattr(each, name) for each in members}
    if len(told) > 1:
        shown = " and ".join(sorted(map(repr, told)))
        msg = f"{name} holds for a whole call, and the members were made with {shown}: pass it to pool()"
        raise ConfigError(msg)
    return told.pop()


__all__ = ["pool"]
