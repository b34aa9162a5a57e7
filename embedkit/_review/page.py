"""A finished job as one HTML page. Its only script shows the text of the dot under the cursor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import PurePath
from typing import Any

import msgspec

from .._page import (
    NONE,
    axes,
    axis_end,
    document,
    figure,
    key,
    legend,
    safe,
    steps,
    ticks,
)  # fmt: skip
from .facts import Equal, Example, Facts, Failures, Job, Map, Nearness, Vectors
from .neighbors import SAME
from .rates import Rate

COLORS = [f"var(--c{place})" for place in (0, 6, 2, 4, 1, 5)]  # of the map, from the first rows to the last
MAP_WIDE, MAP_HIGH, MARGIN = 720, 440, 16
SQUARE = '<rect x="-6" y="-6" width="12" height="12"/>'
KINDS = 20  # of failures that are shown
STYLE = """
h1{overflow-wrap:anywhere}h2{margin-top:32px}figure h2,figure+figure h2{margin-top:0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:12px;margin:20px 0}
.tiles div{background:var(--band);border-radius:8px;padding:10px 14px}.tiles b{display:block;font-size:22px;
font-weight:600;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}.tiles span{color:var(--soft)}
.notes{display:block;padding:10px 14px;border-left:4px solid var(--c1);background:var(--band)}
dl{display:grid;grid-template-columns:minmax(90px,max-content) 1fr;gap:4px 18px;margin:12px 0}dt{color:var(--soft)}
dd{margin:0;overflow-wrap:anywhere}
.kinds td:first-child{min-width:190px;unicode-bidi:isolate}.kinds svg{width:120px;height:10px;display:inline-block}
.text{unicode-bidi:isolate;overflow-wrap:anywhere;color:var(--ink)}
.rows{color:var(--soft);white-space:nowrap;font-variant-numeric:tabular-nums}
.near{margin:16px 0;padding:0 0 0 14px;border-left:3px solid var(--line)}.near p{color:var(--ink);margin:0 0 6px}
.near ol{list-style:none;margin:0;padding:0}.near li{display:grid;grid-template-columns:56px 1fr;gap:10px;padding:3px 0}
.near b{font-weight:600;font-variant-numeric:tabular-nums}
#map{background:var(--band);border-radius:8px;touch-action:pan-y;cursor:crosshair}#map circle{r:3px;fill-opacity:.65}
#map #ring{r:7px;fill:none;stroke:var(--ink);stroke-width:2}#under{min-height:5em;color:var(--ink);
overflow-wrap:anywhere;unicode-bidi:isolate;border-left:3px solid var(--line);padding:0 0 0 12px;margin:10px 0}
@media(max-width:600px){#map circle{r:5px}#map #ring{r:11px}#under{min-height:8em}
.kinds th:nth-child(3),.kinds td:nth-child(3){display:none}.kinds th,.kinds td{padding:6px;white-space:normal}
.kinds td:first-child{min-width:0}}
"""
SCRIPT = """
(() => {
  const map = document.getElementById("map"), under = document.getElementById("under");
  if (!map) return;
  const ring = document.getElementById("ring");
  const dots = [...map.querySelectorAll("circle[cx]")].filter(dot => dot !== ring).map(dot => {
    const title = dot.firstElementChild, text = title.textContent;
    title.remove();
    return {x: +dot.getAttribute("cx"), y: +dot.getAttribute("cy"), text};
  });
  let at = -1;
  const show = place => {
    at = place;
    ring.setAttribute("cx", dots[at].x);
    ring.setAttribute("cy", dots[at].y);
    ring.removeAttribute("visibility");
    under.textContent = dots[at].text;
  };
  const point = event => {
    const cursor = new DOMPoint(event.clientX, event.clientY).matrixTransform(map.getScreenCTM().inverse());
    let best = -1, least = 900;
    dots.forEach((dot, place) => {
      const far = (dot.x - cursor.x) ** 2 + (dot.y - cursor.y) ** 2;
      if (far < least) [best, least] = [place, far];
    });
    if (best >= 0 && best !== at) show(best);
  };
  map.addEventListener("pointermove", point);
  map.addEventListener("pointerdown", point);
  map.addEventListener("keydown", event => {
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (step) { event.preventDefault(); show((Math.max(at, step > 0 ? -1 : 0) + step + dots.length) % dots.length); }
  });
})();
"""


def page(facts: Facts) -> str:
    """The page, as text."""
    job, vectors = facts.job, facts.vectors
    parts = [
        f"<h1>{safe(PurePath(facts.output).name or facts.output)}</h1><p>{safe(heading(facts))}</p>",
        _notes(facts.notes),
        _tiles(facts),
        _details(job) if job is not None else "",
        _plots(_rates(facts.rates)),
        _failures(facts.failures),
    ]
    if vectors is not None:
        near = vectors.neighbors
        parts += [
            "<h2>Vectors</h2>",
            f"<p>{_sizes(vectors)}</p>",
            f"<p>{_nearness(near, vectors)}</p>" if near is not None else "<p>There are no two rows to compare.</p>",
            _plots([_lengths(vectors), *([_scores(near)] if near is not None else [])]),
            _map(vectors),
            _neighbors(near.examples, near.metric) if near is not None else "",
            _equal(vectors.equal),
        ]
    return document(f"{facts.output}: embedkit report", "".join(parts), style=STYLE, script=SCRIPT)


def heading(facts: Facts) -> str:
    """What it is, in a line."""
    job, vectors = facts.job, facts.vectors
    if job is None:
        return "an embedded file" if vectors is None else f"{vectors.dimensions:,} dimensions, {vectors.dtype}"
    shape = f", {job.dimensions:,} dimensions, {job.dtype}" if job.dimensions else ""
    return f"embedded with {job.model or 'a model that is not named'}{shape}"


def duration(seconds: float) -> str:
    """A time in two units: 3 h 20 min; 4 min 5 s; 2.5 s."""
    if seconds < 60:  # noqa: PLR2004 (a minute)
        return f"{seconds:.3g} s"
    whole = round(seconds)
    for unit, name, part, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            rest = whole % unit // part
            return f"{whole // unit} {name}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def _notes(notes: Sequence[str]) -> str:
    return f"<ul class=notes>{''.join(f'<li>{safe(note)}</li>' for note in notes)}</ul>" if notes else ""


def _tiles(facts: Facts) -> str:
    job, vectors = facts.job, facts.vectors
    if job is not None:
        pace = _pace(job.rows / job.seconds) if job.seconds > 0 else NONE
        cost = "not known" if job.cost is None else f"${job.cost:,.4f}" if job.cost < 1 else f"${job.cost:,.2f}"
        tiles = [
            ("rows", f"{job.rows:,}"), ("failed", f"{job.failed:,}"),
            ("tokens", "not known" if job.tokens is None else f"{job.tokens:,}"), ("cost", cost),
            ("time", duration(job.seconds)), ("rows per second", pace),
        ]  # fmt: skip
    elif vectors is not None:
        tiles = [("rows", f"{vectors.rows:,}"), ("without a vector", f"{vectors.missing:,}")]
    else:
        return ""
    shown = "".join(f"<div><b>{safe(value)}</b><span>{name}</span></div>" for name, value in tiles)
    return f"<div class=tiles>{shown}</div>"


def _pace(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"  # noqa: PLR2004


def _details(job: Job) -> str:
    said = {
        "model": job.model,
        "address": job.base_url,
        "options": _pairs(job.options),
        "input": _input(job.input),
        "requests": f"{job.requests:,}, and {job.retries:,} of them sent again",
        "from a cache": f"{job.cached:,} rows" if job.cached else "",
        "runs": f"{job.runs:,}",
        "began": _moment(job.started),
        "finished": _moment(job.finished),
        "embedkit": job.version,
    }
    rows = "".join(f"<dt>{name}</dt><dd>{safe(value[:1000])}</dd>" for name, value in said.items() if value)
    return f"<dl>{rows}</dl>"


def _input(said: dict[str, Any]) -> str:
    """Names of what was read, and what was read of it."""
    names, files = said.get("inputs") or [], said.get("files") or []
    several = [f"{len(files):,} files"] if len(files) > 1 else []
    template = [f"template {said['template']}"] if said.get("template") else []
    read = [f"{name} {said[name]}" for name in ("column", "key") if said.get(name)]
    return ", ".join([*map(str, names), *several, *template, *read])


def _pairs(values: dict[str, Any]) -> str:
    """name=value, name=value, without those that are empty."""

    def spelled(value: Any) -> str:
        return value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=str).decode()

    return ", ".join(
        f"{name}={spelled(value)}" for name, value in values.items() if value is not None and value not in ("", {}, [])
    )


def _moment(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if seconds > 0 else ""
    except (OverflowError, ValueError, OSError):
        return ""


def _plots(plots: Iterable[str]) -> str:
    shown = "".join(plots)
    return f"<div class=plots>{shown}</div>" if shown else ""


def _rates(rates: Sequence[Rate]) -> list[str]:
    if len(rates) < 2:  # noqa: PLR2004 (one part is the average, which stands above)
        return []
    found = [_over_time("rows per second", [each.rows for each in rates], rates[-1].until, 0)]
    if all(each.tokens is not None for each in rates) and any(each.tokens for each in rates):
        found.append(_over_time("tokens per second", [each.tokens or 0 for each in rates], rates[-1].until, 6))
    if any(each.retries for each in rates):
        found.append(_over_time("requests sent again", [each.retries for each in rates], rates[-1].until, 1))
    return found


def _over_time(title: str, values: Sequence[float], until: float, color: int) -> str:
    end = axis_end(max(values))
    unit, name = next((each for each in ((3600, "hours"), (60, "minutes")) if until >= 2 * each[0]), (1, "seconds"))
    across = ticks(0, until / unit)
    return figure(
        title,
        axes(across, ticks(0, end), f"{name} since the beginning"),
        steps([value / end for value in values], f"var(--c{color})"),
    )


def _failures(failures: Failures) -> str:
    if not failures.rows:
        return ""
    most = failures.kinds[0].rows
    rows = "".join(
        f"<tr><td dir=auto>{safe(kind.reason)}</td><td>{kind.rows:,}</td><td>{_bar(kind.rows / most)}</td>"
        f"<td>{', '.join(f'{row:,}' for row in kind.examples)}{' …' * (kind.rows > len(kind.examples))}</td></tr>"
        for kind in failures.kinds[:KINDS]
    )
    left = failures.kinds[KINDS:]
    more = f"<p>and {sum(kind.rows for kind in left):,} rows for {len(left):,} other reasons</p>" if left else ""
    return (
        "<h2>Failures by kind</h2><div class='scroll kinds' tabindex=0><table>"
        "<tr><th>reason, as the first row has it</th><th>rows</th><th></th><th>row numbers</th></tr>"
        f"{rows}</table></div>{more}"
    )


def _bar(part: float) -> str:
    return (
        "<svg viewBox='0 0 120 10' preserveAspectRatio=none aria-hidden=true>"
        f"<rect width={max(1.0, part * 120):.1f} height=10 rx=2 fill='var(--c1)' /></svg>"
    )


def _sizes(vectors: Vectors) -> str:
    sizes, have = vectors.sizes, vectors.rows - vectors.missing
    words = f"{have:,} rows have a vector" + (f", {vectors.missing:,} have none" if vectors.missing else "") + ". "
    what = "length of a vector" if vectors.measure == "length" else "share of ones among the bits of a vector"
    words += f"The {what}: {_length(sizes.least)} at least, {_length(sizes.mean)} on average, "
    words += f"{_length(sizes.most)} at most. "
    if vectors.sample < have:
        words += f"Plots and map are of {vectors.sample:,} of them, drawn at random (seed {vectors.seed})."
    return escape(words)


def _length(value: float) -> str:
    return f"{value:.3f}" if 0.01 <= value < 1000 else f"{value:.4g}"  # noqa: PLR2004


def _lengths(vectors: Vectors) -> str:
    counts, edges = vectors.histogram.counts, vectors.histogram.edges
    end = axis_end(max(counts))
    title = "length of the vectors (norm)" if vectors.measure == "length" else "share of ones per vector"
    return figure(
        title,
        axes(ticks(edges[0], edges[-1]), ticks(0, end), f"{vectors.measure}; up: rows of the sample"),
        steps([count / end for count in counts], "var(--c0)"),
    )


def _nearness(near: Nearness, vectors: Vectors) -> str:
    one, other = near.nearest, near.random
    words = (
        f"Nearest other row, searched in the whole file for {one.count:,} rows: {near.metric} "
        f"{one.percentiles[2]:.3f} in the middle, {one.percentiles[0]:.3f} to {one.percentiles[4]:.3f} for nine in "
        f"ten. Two rows picked at random: {other.percentiles[2]:.3f}, {other.percentiles[0]:.3f} to "
        f"{other.percentiles[4]:.3f}. "
    )
    if near.same:
        words += f"For {near.same:,} of the {one.count:,} it is {SAME} or more: nearly the same vector. "
    equal = vectors.equal
    if equal.rows:
        words += f"{'' if equal.exact else 'About '}{equal.rows:,} rows share their vector with another row."
    return escape(words)


def _scores(near: Nearness) -> str:
    shares = (near.nearest.shares, near.random.shares)
    end = axis_end(max(map(max, shares)) * 100)
    up = [(part, f"{label}%") for part, label in ticks(0, end)]
    marks = "".join(
        steps([share * 100 / end for share in each], f"var(--c{color})")
        for each, color in ((near.random.shares, 7), (near.nearest.shares, 2))
    )
    plot = figure("near rows and random pairs", axes(ticks(near.edges[0], near.edges[-1]), up, near.metric), marks)
    keys = legend([key(SQUARE, "var(--c2)", "a row and its nearest"), key(SQUARE, "var(--c7)", "two rows at random")])
    return plot.replace("</figure>", f"{keys}</figure>")


def _map(vectors: Vectors) -> str:
    points = vectors.map.points
    if len(points) < 3:  # noqa: PLR2004 (two points are always on a line)
        return ""
    first, last = points[0].row, points[-1].row
    explained = " and ".join(f"{share:.1%}" for share in vectors.map.explained)
    words = (
        f"{len(points):,} rows on the two axes along which they differ most (PCA), which hold {explained} of their "
        "variance: dots far apart are different, dots close together may be. The color is the place in the file."
    )
    keys = legend(
        key(SQUARE, color, f"row {first:,}" if not place else f"row {last:,}" if place == len(COLORS) - 1 else "")
        for place, color in enumerate(COLORS)
    )
    return (
        f"<h2>Map of a sample</h2><p>{words}</p>{keys}"
        f"<svg id=map viewBox='0 0 {MAP_WIDE} {MAP_HIGH}' role=img tabindex=0 aria-label='map of a sample'>"
        f"{_dots(vectors.map, vectors.rows)}<circle id=ring cx=0 cy=0 visibility=hidden /></svg>"
        "<p id=under aria-live=polite>Point at a dot, or touch it, and its text stands here.</p>"
    )


def _dots(spread: Map, rows: int) -> str:
    points = spread.points
    low_x, high_x = min(point.x for point in points), max(point.x for point in points)
    low_y, high_y = min(point.y for point in points), max(point.y for point in points)
    scale = min(
        (MAP_WIDE - 2 * MARGIN) / max(high_x - low_x, 1e-9), (MAP_HIGH - 2 * MARGIN) / max(high_y - low_y, 1e-9)
    )  # the same for both axes: distances are to be compared
    left, top = MAP_WIDE / 2 - (low_x + high_x) / 2 * scale, MAP_HIGH / 2 + (low_y + high_y) / 2 * scale
    return "".join(
        f"<circle cx={left + point.x * scale:.1f} cy={top - point.y * scale:.1f}"
        f" fill='{COLORS[min(len(COLORS) - 1, point.row * len(COLORS) // max(1, rows))]}'>"
        f"<title>{_line(point.row, point.text)}</title></circle>"
        for point in points
    )


def _line(row: int, text: str | None) -> str:
    return f"row {row:,}" + (f": {safe(text)}" if text is not None else "")


def _said(row: int, text: str | None) -> str:
    said = f" <span class=text dir=auto>{safe(text) or '(empty)'}</span>" if text is not None else ""
    return f"<span class=rows>row {row:,}</span>{said}"


def _neighbors(examples: Sequence[Example], metric: str) -> str:
    blocks = ""
    for example in examples:
        near = "".join(
            f"<li><b>{each.score:.3f}</b><span>{_said(each.row, each.text)}"
            f"{' <i>same text</i>' if each.same_text else ''}</span></li>"
            for each in example.nearest
        )
        blocks += f"<div class=near><p>{_said(example.row, example.text)}</p><ol>{near}</ol></div>"
    return f"<h2>Some rows and their nearest</h2><p>{escape(metric)}, over the whole file.</p>{blocks}"


def _equal(equal: Equal) -> str:
    if not equal.rows:
        return "<h2>Equal vectors</h2><p>No two rows have the same vector.</p>" if equal.exact else ""
    about = "" if equal.exact else "About "
    words = f"{about}{equal.rows:,} rows share their vector with another row, in {equal.groups:,} groups."
    items = ""
    for twins in equal.largest:
        texts = _said(twins.first, twins.texts[0])
        if twins.same_text is not True:
            texts += f"<br>{_said(twins.last, twins.texts[1])}"
        of = {True: ", one text", False: ", different texts", None: ""}[twins.same_text]
        items += f"<div class=near><p><b>{twins.rows:,} rows</b>{of}</p>{texts}</div>"
    return f"<h2>Equal vectors</h2><p>{words}</p>{items}"


__all__ = ["duration", "heading", "page"]
