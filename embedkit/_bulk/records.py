"""Records beside vectors: of the output itself, or of the input that it was made from, and what is shown of one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import ConfigError
from .embedded import Embedded
from .sources.open_source import open_files

OF_TEXTS = ("text", "body", "content", "title")  # columns that say most of a record, where nothing tells the text's


def records_of(
    output: Embedded, texts: str | None, column: str | None, rows: Sequence[int]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row, record) of these rows, in order and each once; nothing for an output that holds none.

    Args:
        output: whose rows.
        texts: the input that an output without records was made from; None: there is none at hand.
        column: the text's, in that input.
        rows: their numbers.

    Raises:
        ConfigError: the input cannot be read, or has not as many rows as the output.
    """
    if texts is None:
        yield from output.records(rows)
        return
    source = open_files([texts], column=column or "text", carried="jsonl")
    wanted, start = set(rows), 0
    for block in source.blocks():
        for row in range(start, start + len(block.texts)):
            if row in wanted:
                record = block.records[row - start] if len(block.records) else None
                yield row, dict(record) if record else {"text": block.texts[row - start]}
        start += len(block.texts)
    if output.rows is not None and start != output.rows:
        msg = f"--texts {texts} has {start:,} rows, and {output.name} has {output.rows:,}: it was not made from it"
        raise ConfigError(msg)


def text_of(record: dict[str, Any], column: str | None) -> str:
    """What is shown of a record: its text, else its first text, else all of it."""
    names: list[str | None] = [column, *OF_TEXTS, *record]
    for name in names:
        value = record.get(name) if name is not None else None
        if isinstance(value, str) and value:
            return value
    return json.dumps(record, ensure_ascii=False, default=str)
