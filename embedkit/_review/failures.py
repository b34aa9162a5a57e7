"""The list of failed rows by kind, read a line at a time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

KINDS = 1000  # that are told apart; rows of further kinds are counted together
LONGEST = 300  # characters of a reason
EXAMPLES = 3  # rows of a kind
OTHER = "other reasons"
# What differs from row to row: where the row is, words in quotes, ids, numbers.
PLACE = re.compile(r"^(?:.{0,400}?, )?(?:line|row) \d+: ")
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`")
ID = re.compile(r"\b(?=[\w-]*\d)[\w-]{8,}\b")
NUMBERS = re.compile(r"\d[\d._]*(?:, ?(?:\d[\d._]*|…))*")


class Kind(msgspec.Struct, kw_only=True):
    """Failed rows for one reason.

    Attributes:
        reason: of the first of them, its first 300 characters.
        rows: how many there are.
        examples: their first numbers, three at most.
    """

    reason: str
    rows: int = 0
    examples: list[int] = []


class Entry(msgspec.Struct):
    """A line of `OUT.failures.jsonl`."""

    row: int
    reason: str
    key: Any = None


def kind_of(reason: str) -> str:
    """What reasons of one kind have in common."""
    reason = PLACE.sub("", reason[: 4 * LONGEST])
    return NUMBERS.sub("N", ID.sub("N", QUOTED.sub("'…'", reason)))[:LONGEST]


def kinds(path: Path) -> tuple[list[Kind], int]:
    """The kinds in a list of failed rows, the most frequent first, and how many of its lines cannot be read."""
    found: dict[str, Kind] = {}
    unread = 0
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return [], 0
    with file:
        for line in file:
            try:
                entry = msgspec.json.decode(line, type=Entry)
            except msgspec.DecodeError:
                unread += bool(line.strip())
                continue
            name = kind_of(entry.reason)
            if name not in found and len(found) >= KINDS:
                name = OTHER
            reason = PLACE.sub("", entry.reason[: 4 * LONGEST])[:LONGEST] if name != OTHER else OTHER
            kind = found.setdefault(name, Kind(reason=reason))
            kind.rows += 1
            if len(kind.examples) < EXAMPLES:
                kind.examples.append(entry.row)
    return sorted(found.values(), key=lambda kind: -kind.rows), unread
