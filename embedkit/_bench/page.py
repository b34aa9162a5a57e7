"""A bench as one HTML page: plots as inline SVG and the whole table; no script, no request, light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

import msgspec

from .measure import Bench, Measured

WIDE, HIGH, LEFT, BOTTOM, TOP, RIGHT = 480, 290, 48, 42, 14, 24  # of a plot, in its own units
COLORS = 8  # that the style has; further models begin again
NONE = "–"  # noqa: RUF001 (a dash for no value)
SHAPES = {
    "float32": '<circle r="6"/>',
    "int8": '<rect x="-5.5" y="-5.5" width="11" height="11"/>',
    "uint8": '<rect x="-5.5" y="-5.5" width="11" height="11" transform="rotate(45)"/>',
    "binary": '<path d="M0-7 7 5.5H-7Z"/>',
    "ubinary": '<path d="M0 7 7-5.5H-7Z"/>',
}
STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#59636e;--line:#d5dae0;--back:#fff;--band:#f5f7f9;
--c0:#0b62b8;--c1:#c2410c;--c2:#12805c;--c3:#8b3fc0;--c4:#a16207;--c5:#be185d;--c6:#0e7490;--c7:#4d5b6a}
@media(prefers-color-scheme:dark){:root{--ink:#e8ebef;--soft:#a3adb8;--line:#3a424b;--back:#14181d;--band:#1c2229;
--c0:#6cb2ff;--c1:#ff9a5c;--c2:#4fd1a0;--c3:#c99bf5;--c4:#e6c04f;--c5:#ff8ab8;--c6:#5cd0e6;--c7:#b4bfca}}
*{box-sizing:border-box}body{margin:0 auto;max-width:1100px;padding:24px 16px;background:var(--back);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}h1{font-size:24px;margin:0}h2{font-size:17px;margin:0 0 4px}p{margin:4px 0;
color:var(--soft)}.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:24px;
margin:20px 0}figure{margin:0;min-width:0}svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);
font-size:13px}.grid{stroke:var(--line)}.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;
font-variant-numeric:tabular-nums}th,td{padding:6px 10px;text-align:right;white-space:nowrap;
border-bottom:1px solid var(--line)}th{color:var(--soft);font-weight:600}th:first-child,td:first-child{text-align:left;
white-space:normal;overflow-wrap:anywhere;min-width:190px}td.error{text-align:left;white-space:normal}
tr:nth-child(even) td{background:var(--band)}ul{list-style:none;padding:0;margin:12px 0;display:flex;flex-wrap:wrap;
gap:4px 18px}li{overflow-wrap:anywhere}li svg{display:inline-block;width:16px;height:16px;vertical-align:-3px;
margin-right:5px}
"""


class Column(msgspec.Struct, frozen=True):
    """A column of the table: its head, what it is in a sentence, and its cell."""

    head: str
    help: str
    cell: Callable[[Measured], str]


def page(bench: Bench) -> str:
    """The page, as text."""
    good = [row for row in bench.rows if row.error is None]
    models = list(dict.fromkeys(row.model for row in bench.rows))
    colors = {model: f"var(--c{number % COLORS})" for number, model in enumerate(models)}
    plots = "".join((_recall(good, colors, bench.k), _latency(good, colors))) if good else ""
    return (
        "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'><title>embedkit bench</title>"
        f"<style>{STYLE}</style></head><body><h1>embedkit bench</h1><p>{escape(heading(bench))}</p>"
        f"{_legend(bench.rows, colors)}<div class=plots>{plots}</div>{_table(bench)}</body></html>\n"
    )


def heading(bench: Bench) -> str:
    """What was measured, in a sentence or two."""
    texts = f"{bench.documents:,} texts" + (f" and {bench.queries:,} queries" if bench.queries else "")
    against = "the labels" if bench.labels else bench.reference or "nothing, since no model answered"
    return f"{bench.corpus}: {texts}. recall@{bench.k} is against {against}."


def _legend(rows: Sequence[Measured], colors: dict[str, str]) -> str:
    marks = [_key(SHAPES["float32"], color, model) for model, color in colors.items()]
    dtypes = list(dict.fromkeys(row.dtype for row in rows))
    marks += [_key(SHAPES[dtype], "var(--soft)", dtype) for dtype in dtypes] if len(dtypes) > 1 else []
    return f"<ul>{''.join(marks)}</ul>"


def _key(shape: str, color: str, words: str) -> str:
    return f"<li><svg viewBox='-8 -8 16 16' fill='{color}' aria-hidden=true>{shape}</svg>{escape(words)}</li>"


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
    return _figure(
        f"recall@{k} against bytes per vector", _axes(across, up, "bytes per vector, each line doubles"), marks
    )


def _latency(rows: Sequence[Measured], colors: dict[str, str]) -> str:
    shown = [row for row in rows if row.p50 is not None and row.p99 is not None]
    most = max(((row.p99 or 0) * 1000 for row in shown), default=0) or 1
    unit = 10 ** math.floor(math.log10(most))
    top = next(unit * each for each in (1, 2, 2.5, 5, 10) if unit * each >= most)
    gap = 26
    high = max(HIGH, TOP + BOTTOM + gap * len(shown))
    marks = ""
    for number, row in enumerate(shown):
        y = TOP + (number + 0.5) * (high - TOP - BOTTOM) / len(shown)
        left, right = (LEFT + (value or 0) * 1000 / top * (WIDE - LEFT - RIGHT) for value in (row.p50, row.p99))
        words = f"p50 {(row.p50 or 0) * 1000:,.1f} ms, p99 {(row.p99 or 0) * 1000:,.1f} ms"
        color = colors[row.model]
        marks += (
            f"<path d='M{left:.1f} {y:.1f}H{right:.1f}M{right:.1f} {y - 6:.1f}v12' stroke='{color}' stroke-width=2 "
            f"fill=none /><text x={LEFT - 8} y={y + 4:.1f} text-anchor=end>{row.width}</text>"
        )
        marks += _mark(left, y, row, colors, words)
    across = [(part / 5, f"{top * part / 5:g}") for part in range(6)]
    return _figure("latency of a call with one text", _axes(across, [], "ms; mark: p50, end of the line: p99; "
                   "left: the width", high), marks, high)  # fmt: skip


def _mark(x: float, y: float, row: Measured, colors: dict[str, str], words: str) -> str:
    title = escape(f"{row.model}, {row.width} dimensions, {row.dtype}: {words}")
    return (
        f"<g transform='translate({x:.1f} {y:.1f})' fill='{colors[row.model]}' stroke='var(--back)'>"
        f"<title>{title}</title>{SHAPES[row.dtype]}</g>"
    )


def _axes(across: Sequence[tuple[float, str]], up: Sequence[tuple[float, str]], words: str, high: int = HIGH) -> str:
    floor, parts = high - BOTTOM, []
    for part, label in across:
        x = LEFT + part * (WIDE - LEFT - RIGHT)
        parts.append(f"<path class=grid d='M{x:.1f} {TOP}V{floor}'/>")
        parts.append(f"<text x={x:.1f} y={floor + 17} text-anchor=middle>{label}</text>")
    for part, label in up:
        y = floor - part * (floor - TOP)
        parts.append(f"<path class=grid d='M{LEFT} {y:.1f}H{WIDE - RIGHT}'/>")
        parts.append(f"<text x={LEFT - 8} y={y + 4:.1f} text-anchor=end>{label}</text>")
    parts.append(f"<text x={(LEFT + WIDE) / 2} y={high - 6} text-anchor=middle>{words}</text>")
    return "".join(parts)


def _figure(title: str, axes: str, marks: str, high: int = HIGH) -> str:
    return (
        f"<figure><h2>{escape(title)}</h2><svg viewBox='0 0 {WIDE} {high}' role=img aria-label='{escape(title)}'>"
        f"{axes}{marks}</svg></figure>"
    )


def _table(bench: Bench) -> str:
    heads = "".join(f"<th title='{escape(each.help)}'>{escape(each.head.format(k=bench.k))}</th>" for each in COLUMNS)
    body = ""
    for row in bench.rows:
        asked = f"{row.asked or 'own'} dimensions, {row.dtype}"
        cells = (
            "".join(f"<td>{escape(each.cell(row))}</td>" for each in COLUMNS)
            if row.error is None
            else f"<td class=error colspan={len(COLUMNS)}>{escape(asked)}: {escape(row.error)}</td>"
        )
        body += f"<tr><td>{escape(row.model)}</td>{cells}</tr>"
    return f"<div class=scroll tabindex=0><table><tr><th>model</th>{heads}</tr>{body}</table></div>"


def _of(value: float | None, form: str, factor: float = 1) -> str:
    return NONE if value is None else format(value * factor, form)


COLUMNS: tuple[Column, ...] = (
    Column("width", "components per vector", lambda row: _of(row.width, ",")),
    Column("dtype", "type of the components", lambda row: row.dtype),
    Column("bytes", "of one vector", lambda row: _of(row.bytes, ",")),
    Column("recall@{k}", "share of relevant texts among the first k", lambda row: _of(row.recall, ".3f")),
    Column("texts/s", "all texts in one go", lambda row: _of(row.texts_per_second, ",.0f")),
    Column("p50 ms", "median latency of a call with one text", lambda row: _of(row.p50, ",.1f", 1000)),
    Column("p99 ms", "99th percentile of the same", lambda row: _of(row.p99, ",.1f", 1000)),
    Column("first ms", "the first call, which connects", lambda row: _of(row.first, ",.0f", 1000)),
    Column("tokens", "of all texts, as the provider counts", lambda row: _of(row.tokens, ",")),
    Column("$/M tokens", "price per million tokens", lambda row: _of(row.price, "g")),
    Column("run $", "all that this row took", lambda row: _of(row.run_cost, ".2g")),
    Column("norm", "mean length of the vectors", lambda row: _of(row.norm, ".3f")),
    Column("twice cos", "the same text twice: the least cosine", lambda row: _of(row.repeat_cosine, ".6f")),
    Column("twice max", "the same: the largest difference", lambda row: _of(row.repeat_difference, ".1e")),
    Column("in batch", "alone and among others: the least cosine", lambda row: _of(row.batch_cosine, ".6f")),
    Column("failed", "texts without a vector", lambda row: _of(row.failed, ",")),
)

__all__ = ["COLUMNS", "heading", "page"]
