"""Lines of text: each is a row, a blank one with an empty text."""

from __future__ import annotations

from functools import partial
from operator import add
from typing import TYPE_CHECKING

from .rows import BLOCK, Builder
from .streams import not_utf8, whole_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..contract import Block
    from .rows import At, How
    from .streams import Pieces


def read(file: Pieces, how: How, at: At, *, lean: bool) -> Iterator[Block]:
    """Every line, without its end (LF or CR LF); nothing else is taken off."""
    rows = Builder(how, at, lean=lean)
    thin = lean or not how.carried
    column, plain = how.fields.column, not how.fields.template and how.fields.key is None
    for found in whole_lines(file, at.name):
        piece = found.replace(b"\r\n", b"\n") if b"\r" in found else found
        raw = piece.removesuffix(b"\n").split(b"\n")
        lines: list[str] | None = None
        if plain:
            try:
                lines = [*map(bytes.decode, raw)]  # one by one: a wide character makes its own line wide only
            except UnicodeDecodeError:
                lines = None
        if lines is None:
            for line in raw:
                fault = not_utf8(line, how.encoding)
                rows.record(rows.row + 1, {column: None if fault else line.decode()}, fault)
                if len(rows) == BLOCK:
                    yield rows.take()
            yield rows.take()
            continue
        for start in range(0, len(lines), BLOCK):
            texts = lines[start : start + BLOCK]
            yield rows.lot(texts, [] if thin else [{column: text} for text in texts], None, partial(add, rows.row + 1))
