"""JSON lines: an object or a string on each; a blank line is no row."""

from __future__ import annotations

from functools import partial
from operator import add
from typing import TYPE_CHECKING

from .json_reader import JsonReader
from .rows import BLOCK
from .streams import whole_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..contract import Block
    from .rows import At, How
    from .streams import Pieces


def read(file: Pieces, how: How, at: At, *, lean: bool) -> Iterator[Block]:
    """Every row."""
    reader = JsonReader(how, at, lean=lean)
    number = 1
    for piece in whole_lines(file, at.name):
        lines = piece.removesuffix(b"\n").split(b"\n")
        for start in range(0, len(lines), BLOCK):
            part = lines[start : start + BLOCK]
            yield reader.block(part, partial(add, number))
            number += len(part)
