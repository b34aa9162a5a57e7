"""Pieces of pages: one HTML file that asks nothing of a network, light and dark, with plots as inline SVG.

Whatever a caller, a file or a provider has written goes through `safe`; the policy in the head of a page forbids
everything else: no script runs but the page's own, known by its digest, and nothing is fetched or sent.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from html import escape
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")
Ticks = Sequence[tuple[float, str]]  # (part of the axis, from 0 to 1; label)

WIDE, HIGH, LEFT, BOTTOM, TOP, RIGHT = 480, 290, 48, 42, 14, 24  # of a plot, in its own units
PARTS = 5  # of an axis, about
NONE = "–"  # noqa: RUF001 (a dash for no value)
JOINERS = "\u200c\u200d"  # not printable to Python, and part of an emoji or a word
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
white-space:normal;overflow-wrap:anywhere;min-width:190px}td.error{text-align:left;white-space:normal;
overflow-wrap:anywhere}
tr:nth-child(even) td{background:var(--band)}ul{list-style:none;padding:0;margin:12px 0;display:flex;flex-wrap:wrap;
gap:4px 18px}li{overflow-wrap:anywhere}li svg{display:inline-block;width:16px;height:16px;vertical-align:-3px;
margin-right:5px}@media(max-width:600px){svg text{font-size:15px}}
"""


class Column(msgspec.Struct, Generic[T], frozen=True):
    """A column of a table: its head, what it is in a sentence, and its cell."""

    head: str
    help: str
    cell: Callable[[T], str]


def safe(text: str) -> str:
    """A text that somebody else has written, as HTML holds it, within an element or a quoted attribute.

    Line breaks become spaces. What no page may hold (control characters, halves of surrogate pairs) and what would
    change the direction of the text after it becomes a replacement character.
    """
    plain = " ".join(text.split())
    if not plain.isprintable():
        plain = "".join(
            each if each.isprintable() or each in JOINERS else "\N{REPLACEMENT CHARACTER}" for each in plain
        )
    return escape(plain)


def document(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """A whole page.

    Args:
        title: not escaped yet.
        body: HTML.
        style: of this page besides `STYLE`; a constant.
        script: of this page; a constant.
    """
    runs = f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" if script else "'none'"
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {runs}; base-uri 'none'; form-action 'none'"
    return (
        "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8>"
        f'<meta http-equiv=Content-Security-Policy content="{policy}">'
        f"<meta name=viewport content='width=device-width,initial-scale=1'><title>{safe(title)}</title>"
        f"<style>{STYLE}{style}</style></head><body>{body}{f'<script>{script}</script>' if script else ''}"
        "</body></html>\n"
    )


def legend(keys: Iterable[str]) -> str:
    """What the marks of plots mean: a list of `key`."""
    return f"<ul>{''.join(keys)}</ul>"


def key(shape: str, color: str, words: str) -> str:
    """One entry of a legend: an SVG shape within 16 units around the origin, its color, and what it stands for."""
    return f"<li><svg viewBox='-8 -8 16 16' fill='{color}' aria-hidden=true>{shape}</svg>{safe(words)}</li>"


def axes(across: Ticks, up: Ticks, words: str, high: int = HIGH) -> str:
    """Grid lines with labels; `words` below say what goes across."""
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


def figure(title: str, axes: str, marks: str, high: int = HIGH) -> str:
    """A plot with its title."""
    return (
        f"<figure><h2>{escape(title)}</h2><svg viewBox='0 0 {WIDE} {high}' role=img aria-label='{escape(title)}'>"
        f"{axes}{marks}</svg></figure>"
    )


def steps(heights: Sequence[float], color: str, *, filled: bool = True) -> str:
    """A line of steps over the whole width of a plot, and the area below it; heights are from 0 to 1."""
    floor, each = HIGH - BOTTOM, (WIDE - LEFT - RIGHT) / max(1, len(heights))
    path = f"M{LEFT} {floor}"
    for number, height in enumerate(heights):
        path += f"V{floor - height * (floor - TOP):.1f}H{LEFT + (number + 1) * each:.1f}"
    area = f" fill='{color}' fill-opacity=.3" if filled else " fill=none"
    return f"<path d='{path}V{floor}'{area} stroke='{color}' stroke-width=1.5 />"


def axis_end(most: float) -> float:
    """Where an axis that begins with 0 ends: at a round number that is no smaller."""
    if not 0 < most < math.inf:
        return 1.0
    step = _step(most / PARTS)
    return step * math.ceil(most / step - 1e-9)


def ticks(begin: float, end: float) -> list[tuple[float, str]]:
    """Labels at the round numbers of an axis that may begin and end anywhere, about five of them."""
    if not (end > begin and math.isfinite(end - begin)):
        return []
    step = _step((end - begin) / PARTS)
    first, last = math.ceil(begin / step - 1e-9), math.floor(end / step + 1e-9)
    digits = max(0, 1 - math.floor(math.log10(step) + 1e-9))
    return [
        ((at * step - begin) / (end - begin), short(round(at * step, digits) + 0.0)) for at in range(first, last + 1)
    ]


def _step(least: float) -> float:
    """1, 2, 2.5 or 5 of some power of ten, no smaller than this."""
    unit = 10.0 ** math.floor(math.log10(least))
    return next(unit * each for each in (1, 2, 2.5, 5, 10) if unit * each >= least * (1 - 1e-12))


def short(value: float) -> str:
    """A number in few letters: 2.5k; 1.2M; 120; 0.05."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{letter}"
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.4g}"  # noqa: PLR2004


def number(value: float | None, form: str, factor: float = 1) -> str:
    """A number as a cell shows it."""
    return NONE if value is None else format(value * factor, form)


__all__ = [
    "BOTTOM",
    "HIGH",
    "LEFT",
    "NONE",
    "RIGHT",
    "STYLE",
    "TOP",
    "WIDE",
    "Column",
    "Ticks",
    "axes",
    "axis_end",
    "document",
    "figure",
    "key",
    "legend",
    "number",
    "safe",
    "short",
    "steps",
    "ticks",
]  # fmt: skip
