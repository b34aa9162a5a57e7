"""Looking through an input once: how many rows, which are bad, and how many tokens about."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ...errors import ConfigError
from ..contract import Block, RowDigest, Scan

EXAMPLES = 5  # bad rows that are told
ALL_OF = 16  # blocks whose tokens are all counted; of those after them one in so many is


def scan(
    blocks: Iterable[Block], count_tokens: Callable[[str], int], clock: Callable[[], float], name: str, size: int
) -> Scan:
    """What these blocks hold.

    Args:
        blocks: all of them, in order.
        count_tokens: asked for a part of the texts; the others are taken to have as many per character.
        clock: gives seconds.
        name: of the input, in messages.
        size: of the input, in bytes.

    Raises:
        ConfigError: there are rows, and none has a usable text.
    """
    began = clock()
    digest = RowDigest()
    examples: dict[int, str] = {}
    bad = tokens = counted = characters = 0
    for number, block in enumerate(blocks):
        digest.update(block.texts, block.keys)
        bad += len(block.faults)
        if block.faults and len(examples) < EXAMPLES:
            examples.update(list(block.faults.items())[: EXAMPLES - len(examples)])
        texts = [text for text in block.texts if text is not None] if block.faults else block.texts
        length = sum(map(len, texts))  # type: ignore[arg-type]  # none is None
        characters += length
        if number < ALL_OF or number % ALL_OF == 0:
            tokens += sum(map(count_tokens, texts))  # type: ignore[arg-type]
            counted += length
    if bad and bad == digest.rows:
        row, why = next(iter(examples.items()))
        msg = f"{name}: no row has a text that can be used; row {row}, {why}"
        raise ConfigError(msg)
    return Scan(
        rows=digest.rows,
        bad=bad,
        examples=examples,
        tokens=tokens if counted == characters else round(tokens * characters / max(counted, 1)),
        bytes=size,
        seconds=clock() - began,
        digest=digest.hex(),
    )
