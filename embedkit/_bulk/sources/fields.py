"""What of a record is embedded, and what it is known by: a column, a nested field or a template; a key. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ...errors import ConfigError

SHOWN = 60  # characters of a value in a message
MISSING: Any = msgspec.UNSET
HALF = "{} holds half of a surrogate pair, which is no character"
_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_ESCAPES = {r"\n": "\n", r"\t": "\t", r"\r": "\r", r"\\": "\\"}


class Fields(msgspec.Struct, frozen=True):
    """Where a record's text and key are.

    Attributes:
        column: the text's; "a.b" is the field b of the object a, unless there is one that is called "a.b".
        template: what is embedded instead: text, the name of a field, text …, text. Empty: the column.
        key: the field that a row is known by.
        key_option: what names it.
    """

    column: str = "text"
    template: tuple[str, ...] = ()
    key: str | None = None
    key_option: str = "--key"

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that a text is made of."""
        return self.template[1::2] or (self.column,)

    @property
    def needed(self) -> tuple[str, ...]:
        """Those, and the key's."""
        return self.names if self.key is None else (*self.names, self.key)

    def text(self, record: Mapping[str, Any]) -> tuple[str | None, str]:
        """(the text, what is wrong): one of them is None or empty."""
        values = [find(record, name) for name in self.names]
        return self.joined(values, record)

    def joined(self, values: list[Any], record: Mapping[str, Any]) -> tuple[str | None, str]:
        """(the text that these values of `names` make, what is wrong with them)."""
        if not self.template:
            value = values[0]
            return (value, "") if isinstance(value, str) else (None, self._wrong(self.column, value, record, "string"))
        said = list(self.template)
        for place, (name, value) in enumerate(zip(self.names, values, strict=True)):
            words = _in_words(value)
            if words is None:
                return None, self._wrong(name, value, record, "string or number")
            said[2 * place + 1] = words
        return "".join(said), ""

    def _wrong(self, name: str, value: Any, record: Mapping[str, Any], kind: str) -> str:
        if value is MISSING:
            return missing(name, record, "--template" if self.template else "--column")
        return f"{name!r} is {brief(value)}, which is no {kind}"

    def known_by(self, record: Mapping[str, Any]) -> tuple[str | int | None, str]:
        """(the key, what is wrong with it)."""
        if self.key is None:
            return None, ""
        value = find(record, self.key)
        if isinstance(value, str) and sayable(value):
            return str.__str__(value), ""
        if isinstance(value, int) and not isinstance(value, bool):
            return int(value), ""
        if value is MISSING:
            return None, missing(self.key, record, self.key_option)
        if isinstance(value, str):
            return None, HALF.format(repr(self.key))
        return None, f"the key {self.key!r} is {brief(value)}, which is no string or whole number"

    def empty(self) -> str:
        """What is wrong with an empty text."""
        name = "the text" if self.template else repr(self.column)
        return f"{name} is empty, and this provider embeds no empty text"

    def described(self) -> dict[str, Any]:
        """For a journal, in JSON."""
        text = {"template": template_of(self.template)} if self.template else {"column": self.column}
        return text if self.key is None else {**text, "key": self.key}


def parse_template(template: str) -> tuple[str, ...]:
    r"""The parts of "{title}\n{body}": text, name, text … The characters \n, \t, \r and \\, as somebody types them in a
    shell, are a line break, a tab, a return and one backslash; {{ and }} are braces.

    Raises:
        ConfigError: a brace stands alone, a name is empty, or there is no field at all.
    """
    parts, text, end = [], "", 0
    for found in _PIECE.finditer(template):
        text += _unescaped(template[end : found.start()])
        end = found.end()
        piece = found.group()
        if piece in ("{{", "}}"):
            text += piece[0]
        elif not found[1]:
            what = "names no field" if piece == "{}" else "stands alone"
            msg = (
                f"the template {template!r}: {piece} at character {found.start()} {what}; "
                "write {name} for a field, and {{ or }} for a brace"
            )
            raise ConfigError(msg)
        else:
            parts += [text, found[1]]
            text = ""
    if not parts:
        msg = f"the template {template!r} names no field; write {{name}} for one"
        raise ConfigError(msg)
    return (*parts, text + _unescaped(template[end:]))


def template_of(parts: Sequence[str]) -> str:
    """What `parse_template` has read, in one spelling."""
    words = {typed: meant for meant, typed in _ESCAPES.items()} | {"{": "{{", "}": "}}"}
    return "".join(
        f"{{{part}}}" if place % 2 else "".join(words.get(letter, letter) for letter in part)
        for place, part in enumerate(parts)
    )


def _unescaped(text: str) -> str:
    return re.sub(r"\\[ntr\\]", lambda found: _ESCAPES[found.group()], text)


def find(record: Mapping[str, Any], name: str) -> Any:
    """The value of a field, nested or not; MISSING if there is none."""
    if name in record:
        return record[name]
    head, dot, rest = name.partition(".")
    inner = record.get(head) if dot else None
    return find(inner, rest) if isinstance(inner, Mapping) else MISSING


def _in_words(value: Any) -> str | None:
    """A value in a template; None where it has no words of its own."""
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    return None


def missing(name: str, names: Iterable[str], option: str) -> str:
    """That there is no such field, what there is, and the option that names another."""
    return f"no {name!r}; there is {', '.join(map(repr, names)) or 'nothing'} (choose with {option})"


def brief(value: object) -> str:
    """A value in a message."""
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    try:
        shown = msgspec.json.encode(value, enc_hook=str).decode()
    except (UnicodeEncodeError, RecursionError, TypeError, ValueError):
        shown = type(value).__name__
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…"


def sayable(value: object) -> bool:
    """Whether a value holds no half of a surrogate pair."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
        return True
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
