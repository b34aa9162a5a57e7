"""Records beside vectors: of the output itself, or of the input that it was made from, and what is shown of one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import ConfigError
from .embedded import Embedded
from .sources.fields import Fields, parse_template
from .sources.open_source import open_files

OF_TEXTS = ("text", "body", "content", "title")  # columns that say most of a record, where nothing tells the text's


def records_of(
    output: Embedded, texts: str | None, column: str | None, rows: Sequence[int]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row, record) of these rows, in order and each once; nothing for an output that holds none.

    Args:
        output: whose rows.
        texts: the input that an output without records was made from; None: there is none at hand.
        column: the text's, in that input; that of the job unless given.
        rows: their numbers.

    Raises:
        ConfigError: the input cannot be read, or has not as many rows as the output.
    """
    if texts is None:
        yield from output.records(rows)
        return
    fields = fields_of(output, column) or Fields()
    source = open_files([texts], column=fields.names[0], carried="jsonl")
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


def fields_of(output: Embedded, column: str | None) -> Fields | None:
    """Where a record's text is: in the column that is asked for, else where the report says; None where it does not."""
    if column is not None:
        return Fields(column)
    said = output.report.input if output.report is not None else {}
    if said.get("template"):
        return Fields(template=parse_template(said["template"]))
    return Fields(said["column"]) if said.get("column") else None


def text_of(record: dict[str, Any], fields: Fields | None) -> str:
    """What is shown of a record: its text, else its first text, else all of it."""
    text = fields.text(record)[0] if fields is not None else None
    if text:
        return text
    for name in (*OF_TEXTS, *record):
        value = record.get(name)
        if isinstance(value, str) and value:
            return value
    return json.dumps(record, ensure_ascii=False, default=str)
