"""What a finished job leaves beside its output: `OUT.report.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from ..errors import ConfigError
from .disk import to_json
from .journal import Header, replace_file

SERIES = 500  # points of the time series at most


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A job, finished or stopped.

    Attributes:
        output: its name, as it was given.
        complete: every row is in it. Where False, the job can go on.
        stopped: why it is not complete: "asked", "max_tokens" or "max_cost"; "" where it is.
        already: it was complete before, and nothing was sent.
        rows, failed: in the output, and those among them without a vector.
        dimensions, dtype: of a vector.
        width: values per row of the output: eight dimensions share one where bits are packed.
        tokens, cost: as the provider counts them, US dollars by the catalog's price; None where nobody says.
        requests, retries: that were sent, and that were repetitions.
        cached: rows that came from a cache.
        seconds: of all its runs.
        runs: how often it was started.
        model, base_url, options: what embedded.
        input: what was read: names, format, column, key column.
        job: what a job must have in common to go on with this output.
        digest: of the rows, in order.
        state: what the output needs to take more rows.
        series: [seconds, rows, tokens, retries] over time, at most 500 points.
        started, finished: seconds since 1970.
        version: of embedkit.
    """

    output: str
    complete: bool
    stopped: str = ""
    already: bool = False
    rows: int = 0
    failed: int = 0
    dimensions: int = 0
    dtype: str = "float32"
    tokens: int | None = None
    cost: float | None = None
    requests: int = 0
    retries: int = 0
    cached: int = 0
    seconds: float = 0.0
    runs: int = 1
    model: str = ""
    base_url: str = ""
    options: dict[str, Any] = {}
    input: dict[str, Any] = {}
    job: Header | None = None
    digest: str = ""
    width: int = 0
    state: dict[str, Any] = {}
    series: list[tuple[float, int, int | None, int]] = []
    started: float = 0.0
    finished: float = 0.0
    version: str = ""

    def write(self, path: Path) -> None:
        """Write it, whole or not at all."""
        replace_file(path, msgspec.json.format(to_json(self), indent=1) + b"\n")


def read_report(path: Path) -> Report | None:
    """The report at this path; None where there is none.

    Raises:
        ConfigError: the file is no report of ours.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        msg = f"{path} is no report of a job that this version can read ({error}); move it, or begin anew with --force"
        raise ConfigError(msg) from None


def thinned(series: list[tuple[float, int, int | None, int]]) -> list[tuple[float, int, int | None, int]]:
    """A time series of at most `SERIES` points, the last among them."""
    step = -(-len(series) // SERIES)
    return series if step <= 1 else [*series[:-1:step], series[-1]]
