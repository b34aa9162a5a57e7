"""All that is known of a finished job, for a page or for machines: from its report, its failures and its vectors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from .._bulk.disk import sayable
from .._bulk.embedded import Embedded, components, open_embedded, stored_as
from .._bulk.records import fields_of, records_of, text_of
from .._bulk.report import Report, read_report
from .._bulk.search import Match
from .._bulk.stores.url import is_store, parse_url
from .._bulk.workplace import Workplace
from .._types import PACKED, DType
from ..errors import ConfigError
from .failures import Kind, kinds
from .neighbors import Neighbors, Spread, neighbors
from .plane import plane
from .rates import Rate, rates
from .sample import Equals, Group, Sampled, Sizes, bins, sampled

SEED = 0  # the same page each time
EXCERPT = 240  # characters of a text that are shown
EXAMPLES = 6  # rows that are shown with their nearest
GROUPS = 5  # of equal vectors that are shown


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What the report says; each as in `Report`."""

    rows: int
    failed: int
    tokens: int | None
    cost: float | None
    seconds: float
    requests: int
    retries: int
    cached: int
    runs: int
    model: str
    base_url: str
    dimensions: int
    dtype: str
    options: dict[str, Any]
    input: dict[str, Any]
    complete: bool
    stopped: str
    started: float
    finished: float
    version: str


class Failures(msgspec.Struct, frozen=True, kw_only=True):
    """Failed rows by kind. `rows`: in the list of failed rows."""

    rows: int
    kinds: list[Kind]


class Excerpt(msgspec.Struct, frozen=True):
    """The beginning of a row's text, and a digest of the whole."""

    text: str
    digest: bytes


class Near(msgspec.Struct, frozen=True, kw_only=True):
    """A row near to another. `same_text`: None where no text is known."""

    row: int
    score: float
    text: str | None
    same_text: bool | None


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the sample and the rows that are nearest to it in the whole output."""

    row: int
    text: str | None
    nearest: list[Near]


class Twins(msgspec.Struct, frozen=True, kw_only=True):
    """Rows with one vector: how many, the first and the last, their texts, and whether these two are equal."""

    rows: int
    first: int
    last: int
    texts: list[str | None]
    same_text: bool | None


class Equal(msgspec.Struct, frozen=True, kw_only=True):
    """As `Equals`, with texts."""

    exact: bool
    rows: int
    groups: int
    largest: list[Twins]


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """Counts between edges, of which there is one more."""

    edges: list[float]
    counts: list[int]


class Nearness(msgspec.Struct, frozen=True, kw_only=True):
    """As `Neighbors`, with texts."""

    metric: str
    edges: list[float]
    nearest: Spread
    random: Spread
    same: int
    examples: list[Example]


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A row on the map."""

    row: int
    x: float
    y: float
    text: str | None


class Map(msgspec.Struct, frozen=True, kw_only=True):
    """The sample on a plane. `explained`: the share of the variance along each axis."""

    explained: tuple[float, float]
    points: list[Point]


class Vectors(msgspec.Struct, frozen=True, kw_only=True):
    """What the vectors are like.

    Attributes:
        rows, missing, zeros: all; without a vector; with one of zeros only.
        dimensions, dtype: of a vector.
        sample, seed: rows in the sample, and what it was drawn with.
        measure: what `sizes` are of: "length", or of packed bits "share of ones".
        sizes: over all rows.
        histogram: of the same over the sample.
        equal: rows with one vector.
        neighbors: None where no two rows can be compared.
        map: of the sample.
    """

    rows: int
    missing: int
    zeros: int
    dimensions: int
    dtype: DType
    sample: int
    seed: int
    measure: str
    sizes: Sizes
    histogram: Histogram
    equal: Equal
    neighbors: Nearness | None
    map: Map


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    Attributes:
        output: its name, without what a store's address may hide.
        notes: what is odd, in sentences.
        job: None where there is no report.
        rates: over the time of the job.
        failures: by kind.
        vectors: None where there are none that can be read.
    """

    output: str
    notes: list[str]
    job: Job | None
    rates: list[Rate]
    failures: Failures
    vectors: Vectors | None


def place_of(name: str) -> Path:
    """Where an output is; for a store's address the name that its job's files begin with.

    Raises:
        ConfigError: it begins as a store's address does, and is none.
    """
    return Path(parse_url(name).slug if is_store(name) else os.path.realpath(name))


def reviewed(name: str, *, dtype: DType | None = None, texts: str | None = None, column: str | None = None) -> Facts:
    """Look at a finished job; reads the whole output twice, in bounded memory.

    Args:
        name: of the output: a file, a folder, the address of a store.
        dtype: of its vectors, where neither it nor a report says.
        texts: the input of an output without records.
        column: the text's; as the report says unless given.

    Raises:
        ConfigError: there is no output, it cannot be read, its job is not finished, or it is a store's and no report
            is there.
    """
    place = place_of(name)
    if is_store(name):
        return _of_store(parse_url(name).shown, place)
    work = Workplace(name, place)
    if work.unfinished() and (not place.exists() or (place.is_dir() and not any(place.iterdir()))):
        msg = (
            f"{name}: its job is not finished ({work.folder} is there), and a report comes at its end; run the same "
            "`embedkit embed` again, and it goes on"
        )
        raise ConfigError(msg)
    output = open_embedded(name)
    if texts is not None and output.holds_records:
        msg = f"--texts {texts}: {name} holds its records itself"
        raise ConfigError(msg)
    report = output.report
    stored = stored_as(output, dtype)
    notes = []
    if work.unfinished():
        notes.append(
            f"Another job on this output is not finished ({work.folder.name} is there). What follows is of the one "
            "that finished before."
        )
    vectors, rows = _vectors(output, stored, texts, column)
    if vectors is None:
        notes.append("There are no rows." if not rows else f"None of the {rows:,} rows has a vector.")
    notes += _odd(output, vectors, rows)
    return _facts(name, work, report, vectors, notes)


def _of_store(shown: str, place: Path) -> Facts:
    """A store's rows are not read: what the report says is there without them."""
    work = Workplace(shown, place)
    report = read_report(work.report)
    if report is None:
        unfinished = f"; its job is not finished ({work.folder} is there)" if work.unfinished() else ""
        msg = (
            f"{shown}: rows of a store are not read, and the report of its job, {work.report}, is not in this folder"
            f"{unfinished}; run the command where the job ran"
        )
        raise ConfigError(msg)
    notes = ["Rows of a store are not read: all figures are those of the job's report."]
    return _facts(shown, work, report, None, notes)


def _facts(name: str, work: Workplace, report: Report | None, vectors: Vectors | None, notes: list[str]) -> Facts:
    found, unread = kinds(work.failures)
    listed = sum(kind.rows for kind in found)
    if report is None:
        notes.append(
            f"There is no {work.report.name} beside it: what the job took, its model and its time are not known."
        )
    elif listed != report.failed:
        there = f"lists {listed:,}" if work.failures.exists() else "is not there"
        notes.append(f"{report.failed:,} rows failed, says the report, and {work.failures.name} {there}.")
    if report is not None and not report.complete:
        notes.append(f"The job was stopped ({report.stopped or 'it does not say why'}).")
    if unread:
        notes.append(f"{unread:,} lines of {work.failures.name} cannot be read.")
    job = None if report is None else Job(**{each: getattr(report, each) for each in Job.__struct_fields__})
    return Facts(
        output=name, notes=notes, job=job, rates=rates(report.series) if report is not None else [],
        failures=Failures(rows=listed, kinds=found), vectors=vectors,
    )  # fmt: skip


def _odd(output: Embedded, vectors: Vectors | None, rows: int) -> Iterator[str]:
    """What report and vectors do not agree on, and what no good output has."""
    report = output.report
    if report is not None and report.rows != rows:
        yield f"It holds {rows:,} rows, and its report says {report.rows:,}: they are not of one job."
    if vectors is None:
        return
    with_nulls = output.holds_records or vectors.dtype == "float32"  # else zeros stand for what is missing
    if report is not None and with_nulls and report.rows == rows and report.failed != vectors.missing:
        yield f"{vectors.missing:,} rows have no vector, and its report says that {report.failed:,} failed."
    if vectors.zeros:
        yield f"{vectors.zeros:,} rows have a vector of zeros, which is near nothing."
    equal, found = vectors.equal, vectors.rows - vectors.missing
    if equal.groups == 1 and equal.rows == found:
        yield f"All {found:,} rows have one and the same vector."
    elif any(twins.same_text is False for twins in equal.largest):
        yield "Different texts have one and the same vector: see equal vectors."


def _vectors(output: Embedded, dtype: DType, texts: str | None, column: str | None) -> tuple[Vectors | None, int]:
    """What the vectors are like, None where no row has one; and how many rows there are."""
    if not output.width:
        rows = output.rows
        return None, sum(len(block.vectors) for block in output.blocks()) if rows is None else rows
    sample = sampled(output.blocks(), output.width, dtype, SEED)
    if sample.sizes is None:
        return None, sample.rows
    near = neighbors(output, sample, dtype)
    spread = plane(sample.vectors, dtype)
    groups = sample.equals.largest[:GROUPS]
    examples = near.found[:EXAMPLES] if near is not None else []
    wanted = {int(row) for row in sample.numbers}
    wanted |= {row for group in groups for row in (group.first, group.last)}
    wanted |= {match.row for _, matches in examples for match in matches}
    known = dict(_excerpts(output, texts, column, sorted(wanted)))
    points = [
        Point(row=int(row), x=float(x), y=float(y), text=_text(known, int(row)))
        for row, (x, y) in sorted(zip(sample.numbers, spread.places, strict=True), key=lambda each: int(each[0]))
    ]
    return Vectors(
        rows=sample.rows, missing=sample.missing, zeros=sample.zeros, dimensions=components(output.width, dtype),
        dtype=dtype, sample=len(sample.numbers), seed=SEED,
        measure="share of ones" if dtype in PACKED else "length", sizes=sample.sizes, histogram=_histogram(sample),
        equal=_equal(sample.equals, groups, known),
        neighbors=None if near is None else _near(near, examples, known),
        map=Map(explained=spread.explained, points=points),
    ), sample.rows  # fmt: skip


def _excerpts(
    output: Embedded, texts: str | None, column: str | None, rows: list[int]
) -> Iterator[tuple[int, Excerpt]]:
    fields = fields_of(output, column)
    for row, record in records_of(output, texts, column, rows):
        whole = sayable(text_of(record, fields))
        digest = blake2b(whole.encode(), digest_size=16).digest()
        yield row, Excerpt(whole if len(whole) <= EXCERPT else f"{whole[:EXCERPT]}…", digest)


def _text(known: dict[int, Excerpt], row: int) -> str | None:
    return known[row].text if row in known else None


def _same(known: dict[int, Excerpt], one: int, other: int) -> bool | None:
    return known[one].digest == known[other].digest if one in known and other in known else None


def _near(near: Neighbors, examples: list[tuple[int, list[Match]]], known: dict[int, Excerpt]) -> Nearness:
    return Nearness(
        metric=near.metric, edges=near.edges, nearest=near.nearest, random=near.random, same=near.same,
        examples=[
            Example(
                row=row,
                text=_text(known, row),
                nearest=[
                    Near(
                        row=match.row, score=match.score, text=_text(known, match.row),
                        same_text=_same(known, row, match.row),
                    )
                    for match in matches
                ],
            )
            for row, matches in examples
        ],
    )  # fmt: skip


def _equal(equals: Equals, groups: list[Group], known: dict[int, Excerpt]) -> Equal:
    return Equal(
        exact=equals.exact, rows=equals.rows, groups=equals.groups,
        largest=[
            Twins(
                rows=group.rows, first=group.first, last=group.last,
                texts=[_text(known, group.first), _text(known, group.last)],
                same_text=_same(known, group.first, group.last),
            )
            for group in groups
        ],
    )  # fmt: skip


def _histogram(sample: Sampled) -> Histogram:
    import numpy as np

    low, high = float(sample.lengths.min()), float(sample.lengths.max())
    if high - low < 0.001 * high or high == low:  # rounding only: a bin of some width around it
        low, high = low * 0.99 - (high == 0), high * 1.01 + (high == 0)
    counts, edges = np.histogram(sample.lengths, bins(len(sample.lengths)), (low, high))
    return Histogram(edges=[float(each) for each in edges], counts=[int(each) for each in counts])
