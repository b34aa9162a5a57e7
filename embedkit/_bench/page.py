"""A bench as one HTML page: plots as inline SVG and the whole table; no script, no request, light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from .._page import (
    BOTTOM,
    HIGH,
    LEFT,
    RIGHT,
    TOP,
    WIDE,
    Column,
    axes,
    axis_end,
    document,
    figure,
    key,
    legend,
    number,
    safe,
    ticks,
)  # fmt: skip
from .measure import Bench, Measured

COLORS = 8  # that the style has; further models begin again
TITLE = "<title>embedkit bench</title>"  # by which a page of this kind is known again
SHAPES = {
    "float32": '<circle r="6"/>',
    "int8": '<rect x="-5.5" y="-5.5" width="11" height="11"/>',
    "uint8": '<rect x="-5.5" y="-5.5" width="11" height="11" transform="rotate(45)"/>',
    "binary": '<path d="M0-7 7 5.5H-7Z"/>',
    "ubinary": '<path d="M0 7 7-5.5H-7Z"/>',
}


def page(bench: Bench) -> str:
    """The page, as text."""
    good = [row for row in bench.rows if row.error is None]
    models = list(dict.fromkeys(row.model for row in bench.rows))
    colors = {model: f"var(--c{place % COLORS})" for place, model in enumerate(models)}
    plots = "".join((_recall(good, colors, bench.k), _latency(good, colors))) if good else ""
    words = f"<h1>embedkit bench</h1><p>{safe(heading(bench))}</p>"
    body = f"{words}{_legend(bench.rows, colors)}<div class=plots>{plots}</div>{_table(bench)}"
    return document("embedkit bench", body)


def heading(bench: Bench) -> str:
    """What was measured, in a sentence or two."""
    texts = f"{bench.documents:,} texts" + (f" and {bench.queries:,} queries" if bench.queries else "")
    against = "the labels" if bench.labels else bench.reference or "nothing, since no model answered"
    return f"{bench.corpus}: {texts}. recall@{bench.k} is against {against}."


def in_trouble(row: Measured) -> str | None:
    """What went wrong with a row, in a sentence; None where nothing did."""
    asked = f"{row.asked or 'own'} dimensions, {row.dtype}"
    if row.error is not None:
        return f"{asked}: {row.error}"
    if row.failure is not None:
        return f"{asked}: {row.failed:,} of {row.texts:,} texts failed, the first with: {row.failure}"
    return None


def _legend(rows: Sequence[Measured], colors: dict[str, str]) -> str:
    marks = [key(SHAPES["float32"], color, model) for model, color in colors.items()]
    dtypes = list(dict.fromkeys(row.dtype for row in rows))
    marks += [key(SHAPES[dtype], "var(--soft)", dtype) for dtype in dtypes] if len(dtypes) > 1 else []
    return legend(marks)


def _recall(rows: Sequence[Measured], colors: dict[str, str], k: int) -> str:
    shown = [row for row in rows if row.recall is not None and row.bytes]
    if not shown:
        return ""
    sizes = [math.log2(row.bytes or 1) for row in shown]
    low, high = math.floor(min(sizes)), math.ceil(max(sizes))
    low, high = (low - 1, high + 1) if low == high else (low, high)
    step = max(1, math.ceil((high - low) / 7))
    bottom = math.floor(min(row.recall or 0 for row in shown) * 10 - 0.01) / 10
    bottom = max(0.0, min(bottom, 0.9))
    marks = "".join(
        _mark(
            LEFT + (math.log2(row.bytes or 1) - low) / (high - low) * (WIDE - LEFT - RIGHT),
            HIGH - BOTTOM - ((row.recall or 0) - bottom) / (1 - bottom) * (HIGH - TOP - BOTTOM),
            row,
            colors,
            f"recall@{k} {row.recall:.3f} with {row.bytes:,} bytes",
        )
        for row in shown
    )
    across = [((x - low) / (high - low), f"{2**x:,}") for x in range(low, high + 1, step)]
    up = [(part / 5, f"{bottom + (1 - bottom) * part / 5:.2f}") for part in range(6)]
    return figure(
        f"recall@{k} against bytes per vector", axes(across, up, "bytes per vector, each line doubles"), marks
    )


def _latency(rows: Sequence[Measured], colors: dict[str, str]) -> str:
    shown = [row for row in rows if row.p50 is not None and row.p99 is not None]
    most = max(((row.p99 or 0) * 1000 for row in shown), default=0) or 1
    top = axis_end(most)
    gap = 26
    high = max(HIGH, TOP + BOTTOM + gap * len(shown))
    marks = ""
    for place, row in enumerate(shown):
        y = TOP + (place + 0.5) * (high - TOP - BOTTOM) / len(shown)
        left, right = (LEFT + (value or 0) * 1000 / top * (WIDE - LEFT - RIGHT) for value in (row.p50, row.p99))
        words = f"p50 {(row.p50 or 0) * 1000:,.1f} ms, p99 {(row.p99 or 0) * 1000:,.1f} ms"
        color = colors[row.model]
        marks += (
            f"<path d='M{left:.1f} {y:.1f}H{right:.1f}M{right:.1f} {y - 6:.1f}v12' stroke='{color}' stroke-width=2 "
            f"fill=none /><text x={LEFT - 8} y={y + 4:.1f} text-anchor=end>{row.width}</text>"
        )
        marks += _mark(left, y, row, colors, words)
    return figure("latency of a call with one text", axes(ticks(0, top), [], "ms; mark: p50, end of the line: p99; "
                   "left: the width", high), marks, high)  # fmt: skip


def _mark(x: float, y: float, row: Measured, colors: dict[str, str], words: str) -> str:
    title = safe(f"{row.model}, {row.width} dimensions, {row.dtype}: {words}")
    return (
        f"<g transform='translate({x:.1f} {y:.1f})' fill='{colors[row.model]}' stroke='var(--back)'>"
        f"<title>{title}</title>{SHAPES[row.dtype]}</g>"
    )


def _table(bench: Bench) -> str:
    heads = "".join(f"<th title='{escape(each.help)}'>{escape(each.head.format(k=bench.k))}</th>" for each in COLUMNS)
    body = ""
    for row in bench.rows:
        trouble = in_trouble(row)
        said = "" if trouble is None else f"<td class=error colspan={len(COLUMNS)}>{safe(trouble)}</td>"
        name = safe(row.model)
        if row.error is None:
            cells = "".join(f"<td>{safe(each.cell(row))}</td>" for each in COLUMNS)
            body += f"<tr><td>{name}</td>{cells}</tr>"
            name = ""
        if said:
            body += f"<tr><td>{name}</td>{said}</tr>"
    return f"<div class=scroll tabindex=0><table><tr><th>model</th>{heads}</tr>{body}</table></div>"


COLUMNS: tuple[Column[Measured], ...] = (
    Column("width", "components per vector", lambda row: number(row.width, ",")),
    Column("dtype", "type of the components", lambda row: row.dtype),
    Column("bytes", "of one vector", lambda row: number(row.bytes, ",")),
    Column("recall@{k}", "share of relevant texts among the first k", lambda row: number(row.recall, ".3f")),
    Column("texts/s", "all texts in one go", lambda row: number(row.texts_per_second, ",.0f")),
    Column("p50 ms", "median latency of a call with one text", lambda row: number(row.p50, ",.1f", 1000)),
    Column("p99 ms", "99th percentile of the same", lambda row: number(row.p99, ",.1f", 1000)),
    Column("first ms", "the first call, which connects", lambda row: number(row.first, ",.0f", 1000)),
    Column("tokens", "of all texts, as the provider counts", lambda row: number(row.tokens, ",")),
    Column("$/M tokens", "price per million tokens", lambda row: number(row.price, "g")),
    Column("run $", "all that this row took", lambda row: number(row.run_cost, ".2g")),
    Column("norm", "mean length of the vectors", lambda row: number(row.norm, ".3f")),
    Column("twice cos", "the same text twice: the least cosine", lambda row: number(row.repeat_cosine, ".6f")),
    Column("twice max", "the same: the largest difference", lambda row: number(row.repeat_difference, ".1e")),
    Column("in batch", "alone and among others: the least cosine", lambda row: number(row.batch_cosine, ".6f")),
    Column("failed", "texts without a vector", lambda row: number(row.failed, ",")),
)

__all__ = ["COLUMNS", "TITLE", "heading", "in_trouble", "page"]
