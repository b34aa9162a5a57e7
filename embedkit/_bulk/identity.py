"""What a job is: what must be the same for a run to go on with what another run has written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from .._install import version
from .._types import Options, safe_url
from .contract import Scan, Sink, Source
from .disk import to_json
from .journal import FORMAT, Header

if TYPE_CHECKING:
    from .._embedders.base import Embedder

VOLATILE = ("inputs", "files", "rows", "limit")  # a file may be moved or grow: its rows are compared themselves
ROWS = "the rows of the input"


def header_of(source: Source, embedder: Embedder, sink: Sink, options: Options, scan: Scan | None) -> Header:
    """What this job is."""
    described = _plain(source.described())
    identity = {
        "model": f"{embedder.provider}:{embedder.model}",
        "base URL": safe_url(str(getattr(embedder, "base_url", ""))),
        "options": {name: value for name, value in msgspec.structs.asdict(options).items() if value},
        "input": {name: value for name, value in described.items() if name not in VOLATILE},
        "output": sink.form,
    }
    return Header(
        identity=_plain(identity),
        rows=scan.rows if scan else None,
        digest=scan.digest if scan else "",
        input=described,
        version=version(),
        started=time.time(),
    )


def metadata_of(embedder: Embedder) -> dict[str, str]:
    """What an output that can hold metadata says of how it was made."""
    said = {name: value for name, value in msgspec.structs.asdict(embedder.options).items() if value}
    return {
        "embedkit.model": f"{embedder.provider}:{embedder.model}",
        "embedkit.options": msgspec.json.encode(said, enc_hook=str).decode(),
    }


def changed(before: Header, now: Header, *, append: bool = False) -> list[str]:
    """What differs, in words; empty: it is the same job. `append`: the input may have more rows."""
    if before.format != now.format:
        return [f"the format of the journal was {before.format} and is {FORMAT} in this version of embedkit"]
    found = _differences("", before.identity, now.identity)
    if not append and before.digest and now.digest and before.digest != now.digest:
        counts = f" ({before.rows:,} then, {now.rows:,} now)" if before.rows != now.rows else ""
        found.append(f"{ROWS} are others{counts}")
    return found


def _differences(name: str, before: Any, now: Any) -> list[str]:
    if before == now:
        return []
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys((*before, *now))
        return [
            each
            for key in keys
            for each in _differences(
                f"{name} {key}".strip() if name != "options" else key, before.get(key), now.get(key)
            )
        ]
    return [f"{name} was {_shown(before)} and is {_shown(now)}"]


def _shown(value: Any) -> str:
    return "not given" if value is None else to_json(value).decode()


def ways_out(before: Header, now: Header, differs: Sequence[str], *, done: int, keyed: bool) -> str:
    """What a user may do where only the rows of the input are others; "": nothing but to begin anew.

    Args:
        before: the job that there is.
        now: the one that is asked for.
        differs: what `changed` found.
        done: rows that are written.
        keyed: `--append` would ask for each record by its key.
    """
    if len(differs) != 1 or not differs[0].startswith(ROWS):
        return ""
    if keyed:
        return "--append sends the new and changed records only, "
    if before.rows is not None and now.rows is not None and now.rows < done:
        return ""
    return "--append goes on if the rows before are the same, "


def refusal(output: str, differs: Sequence[str], ways: str = "", *, unfinished: bool) -> str:
    """Why a job cannot go on with an output, and the ways out (those of `ways_out` first)."""
    what = "an unfinished job of other" if unfinished else "a finished job of other"
    return f"{output} holds {what} settings: {'; '.join(differs)}. {ways}--force begins anew and replaces it"


def _plain(value: Any) -> Any:
    """A value as JSON gives it back."""
    return msgspec.json.decode(to_json(value))
