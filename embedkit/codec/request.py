"""Helpers of `encode`: from texts and options to the fields of a request."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .._types import ModelFacts, Options
from ..errors import ConfigError


def compact(**fields: Any) -> dict[str, Any]:
    """The fields that have a value. Sending null is not leaving it out: Infinity answers a null width with 422."""
    return {name: value for name, value in fields.items() if value is not None}


def reject_unsupported(options: Options, host: str, **allowed: Collection[object]) -> None:
    """Raise ConfigError for an option whose value this host cannot honor; None is always allowed."""
    for name, values in allowed.items():
        value = getattr(options, name)
        if value is not None and value not in values:
            can = ", ".join(repr(each) for each in sorted(map(str, values))) or "leaving it out"
            msg = f"{host} cannot do {name}={value!r}; it takes {can}"
            raise ConfigError(msg)


def prefixed(texts: Sequence[str], options: Options, facts: ModelFacts | None) -> Sequence[str]:
    """The texts with the model family's prefix for this input type, if it has one that goes into the text."""
    prefix = _prefix(options, facts)
    return [prefix + text for text in texts] if prefix and facts is not None and not facts.prefix_field else texts


def prompt_field(options: Options, facts: ModelFacts | None) -> dict[str, str]:
    """The same prefix as a request field, for a provider that puts it before the texts itself."""
    prefix = _prefix(options, facts).strip()
    return {facts.prefix_field: prefix} if prefix and facts is not None and facts.prefix_field else {}


def _prefix(options: Options, facts: ModelFacts | None) -> str:
    return facts.prefixes.get(options.input_type, "") if facts is not None and options.input_type else ""


def known_width(options: Options, facts: ModelFacts | None) -> int | None:
    """The width asked for; ConfigError if the catalog knows that the model has no such width."""
    asked = options.dimensions
    if asked is None or facts is None or asked == facts.dimensions or asked in facts.widths or facts.dimensions is None:
        return asked
    msg = f"dimensions={asked}: {facts.name} has {widths(facts)}"
    raise ConfigError(msg)


def widths(facts: ModelFacts | None) -> str:
    """The widths of a model, in words."""
    if facts is None or (facts.dimensions is None and not facts.widths):
        return "no width that is known"
    some = facts.widths
    more = f"any from {some[0]} to {some[-1]}" if isinstance(some, range) else ", ".join(map(str, some))
    return " or ".join(filter(None, (str(facts.dimensions or ""), more))) + " components"


def split_extra(extra: Mapping[str, Any], names: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(these fields, the others) of `extra`: some bodies have the first for each text."""
    return {name: extra[name] for name in names if name in extra}, {
        name: extra[name] for name in extra if name not in names
    }


def single_text(texts: Sequence[str], host: str) -> str:
    """The one text, for a route that takes no more (a limit that `connect(limits=)` may have lifted)."""
    if len(texts) != 1:
        msg = f"{host} takes one text per request with this model, and got {len(texts)}: leave limits= out"
        raise ConfigError(msg)
    return texts[0]


def accepted_input_types(facts: ModelFacts | None, *extra: str) -> set[str]:
    """The input types a model can tell apart; `query` and `document` are always accepted."""
    return {"query", "document", *extra, *(facts.prefixes if facts is not None else ())}
