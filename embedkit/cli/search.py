"""`embedkit search`: the rows of an embedded file or folder that are nearest to a query."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

import click

from .._bulk.embedded import Embedded, components, open_embedded, stored_as
from .._bulk.records import fields_of, records_of, text_of
from .._bulk.search import Match, metric, nearest
from .._types import safe_url
from ..errors import ConfigError
from .app import FILE, _asks, _connected, _run, _say, codes, root
from .progress import failing, printable

if TYPE_CHECKING:
    from .._bulk.embedded import Origin
    from .._bulk.sources.fields import Fields
    from .._embedders.base import Embedder
    from .._hints import NDArray
    from .._types import DType

STDIN = "-"


@root.command(epilog=codes(0, 1, 2, 130, 141))
@click.argument("query")
@click.argument("file", type=FILE)
@click.option("-k", "count", type=click.IntRange(1, 10_000), default=10, metavar="N", show_default=True, help="Rows.")
@click.option("-m", "--model", metavar="MODEL", help="What FILE was embedded with, where neither it nor a report says.")
@click.option(
    "--texts", type=FILE, metavar="INPUT", help="What a .npy was embedded from, to show more than numbers of rows."
)
@click.option("--column", metavar="NAME", help="The column that is shown; that of the job unless given.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON per query, with the whole records.")
@_asks
def search(query: str, file: str, **options: Any) -> None:
    """Find the rows of FILE nearest to QUERY; "-" reads queries from stdin, one per line.

    FILE is what `embedkit embed` has written: .parquet, .arrow, .jsonl, .npy, or a folder of parts. Every row is
    compared, in blocks, so that FILE may be larger than memory. The model and its options are those of FILE's own
    metadata, else of FILE.report.json; a .npy or .jsonl without a report needs -m. Where the texts were embedded as
    documents, the query is embedded as a query.

    A score is the cosine; for packed bits the share of equal bits. Rows that failed never match. In a pipe: score, row
    and text, separated by tabs; rows count from 0.
    """
    count, as_json = options.pop("count"), options.pop("as_json")
    texts, column = options.pop("texts"), options.pop("column")
    if os.path.isfile(query) and not os.path.exists(file):  # noqa: PTH110, PTH113 (a query may be too long for a path)
        msg = f"{file}: there is no such file or folder; QUERY comes first, FILE second"
        raise ConfigError(msg)
    output = open_embedded(file)
    if texts is not None and output.holds_records:
        msg = f"--texts {texts}: {file} holds its records itself"
        raise ConfigError(msg)
    dtype = stored_as(output, options.pop("dtype"))
    embedder = _embedder_of(output, dtype, observe=failing(), **options)
    queries = _queries(query)
    if not output.width:
        msg = f"{file} holds no vector"
        raise ConfigError(msg)
    vectors = _run(lambda: _embedded(embedder, queries))
    if vectors.shape[1] != output.width:
        raise ConfigError(_other_width(output, embedder, vectors.shape[1], dtype))
    found = nearest(output, vectors, dtype, count)
    records = dict(records_of(output, texts, column, [match.row for each in found for match in each]))
    fields = fields_of(output, column)
    for asked, matches in zip(queries, found, strict=True):
        if as_json:
            click.echo(_as_json(asked, matches, records, dtype))
            continue
        if len(queries) > 1:
            click.echo(printable(f"{asked}:" if sys.stdout.isatty() else f"# {asked}"))
        for match in matches:
            click.echo(_line(match, records.get(match.row), fields))
    if not any(found):
        _say(f"no row of {file} has a vector that can be compared")


def _embedder_of(output: Embedded, dtype: DType, *, model: str | None, **asked: Any) -> Embedder:
    """The embedder that made the output, for queries. ConfigError: it is not the one that is asked for."""
    origin = output.origin()
    if not origin.model and model is None:
        output.refuse("nothing says which model embedded it (no metadata, no report beside it): pass it with -m")
    made_with = origin.options
    if origin.model and asked["dimensions"] not in (None, made_with.get("dimensions"), components(output.width, dtype)):
        output.refuse(f"it holds {components(output.width, dtype)} dimensions, not {asked['dimensions']}")
    for name in ("dimensions", "truncate", "normalize", "input_type", "extra"):
        if asked.get(name) is None:
            asked[name] = made_with.get(name)
            if name == "input_type" and asked[name] == "document":
                asked[name] = "query"
    embedder = _at_the_same_place(model or origin.model, origin, **{**asked, "dtype": dtype})
    made = f"{embedder.provider}:{embedder.model}"
    if origin.model and made != origin.model:
        output.refuse(f"it was embedded with {origin.model} (says {origin.said}), so {made} finds nothing in it")
    known = embedder.known_width(embedder.options)
    if known and output.width and known != output.width:
        raise ConfigError(_other_width(output, embedder, known, dtype))
    return embedder


def _at_the_same_place(model: str, origin: Origin, **asked: Any) -> Embedder:
    """Connected to where the vectors came from, unless an address is given."""
    if asked["base_url"] is not None or not origin.base_url:
        return _connected(model, **asked)
    embedder: Embedder | None = None
    try:
        embedder = _connected(model, **asked)
        if safe_url(str(getattr(embedder, "base_url", ""))) == origin.base_url:
            return embedder
    except ConfigError:  # most often: it has no address of its own
        pass
    try:
        there = _connected(model, **{**asked, "base_url": origin.base_url})
    except ConfigError:
        if embedder is None:
            raise
        return embedder
    _say(f"the query goes to {origin.base_url}, as the report of the job says (--base-url names another)")
    return there


def _other_width(output: Embedded, embedder: Embedder, width: int, dtype: DType) -> str:
    has, gives = components(output.width, dtype), components(width, dtype)
    made = f"{embedder.provider}:{embedder.model}"
    return f"{output.name} holds vectors of {has} dimensions, and {made} gives {gives}: another model embedded it"


def _queries(given: str) -> list[str]:
    if given != STDIN:
        if not given.strip():
            msg = "QUERY is empty"
            raise ConfigError(msg)
        return [given]
    try:
        lines = sys.stdin.buffer.read().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        msg = f"stdin is not UTF-8 ({error.reason} at byte {error.start})"
        raise ConfigError(msg) from None
    found = [line for line in lines if line.strip()]
    if not found:
        msg = "stdin holds no query"
        raise ConfigError(msg)
    return found


async def _embedded(embedder: Embedder, queries: list[str]) -> NDArray[Any]:
    async with embedder:
        result = await embedder.embed(queries)
    return result.vectors


def _as_json(query: str, matches: list[Match], records: dict[int, dict[str, Any]], dtype: DType) -> str:
    found = [
        {"row": match.row, "score": round(match.score, 6)}
        | ({"record": records[match.row]} if match.row in records else {})
        for match in matches
    ]
    return json.dumps({"query": query, "metric": metric(dtype), "matches": found}, ensure_ascii=False, default=str)


def _line(match: Match, record: dict[str, Any] | None, fields: Fields | None) -> str:
    shown = "" if record is None else printable(text_of(record, fields))
    if not sys.stdout.isatty():
        return f"{match.score:.4f}\t{match.row}\t{shown}".rstrip("\t")
    width = max(20, shutil.get_terminal_size().columns - 24)
    return f"{match.score:.4f}  row {match.row:<9,} {shown if len(shown) <= width else shown[: width - 1] + '…'}"
