"""What reading one number of a reply costs: bytes of 128 rows to
a matrix, no network. `python -m benchmarks.decoding [--rounds N]`

Beside embedkit, the plainest fast way there is: msgspec into `bytes` or lists of floats, then numpy.
"""

from __future__ import annotations

import argparse
import base64
import json
import timeit
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from embedkit._types import Options, Response
from embedkit.codec import listing, matrix

COUNT, WIDTH = 128, 1536
Rows = Callable[[bytes], Any]


class _Item(msgspec.Struct, gc=False):
    embedding: bytes | list[float]
    index: int


class _Reply(msgspec.Struct):
    data: list[_Item]


_decode = msgspec.json.Decoder(_Reply).decode


def plain(body: bytes) -> Any:
    """By msgspec and numpy."""
    rows = np.empty((COUNT, WIDTH), np.float32)
    for row, item in zip(rows, _decode(body).data, strict=True):
        row[:] = np.frombuffer(item.embedding, "<f4") if isinstance(item.embedding, bytes) else item.embedding
    return rows


def ours(body: bytes, options: Options = Options()) -> Any:  # noqa: B008 (a constant)
    """As a dialect does."""
    vectors, _, _ = listing(Response(200, {}, body), COUNT)
    return matrix(vectors, options, COUNT)


def bodies() -> dict[str, tuple[bytes, Any]]:
    """Name → (a reply, the matrix it holds), in every spelling that providers use."""
    doubles = np.random.default_rng(7).standard_normal((COUNT, WIDTH))
    doubles /= np.linalg.norm(doubles, axis=1, keepdims=True)
    floats = doubles.astype(np.float32)
    whole = np.rint(doubles * 400).clip(-127, 127)

    def reply(rows: Any, indent: int | None = None) -> bytes:
        data = [{"object": "embedding", "index": place, "embedding": row} for place, row in enumerate(rows)]
        made = {"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}}
        return json.dumps(made, indent=indent, separators=None if indent else (",", ":")).encode()

    short = [[float(str(value)) for value in row] for row in floats]
    return {
        "base64": (reply([base64.b64encode(row.tobytes()).decode() for row in floats]), floats),
        "float32 text": (reply(short), floats),
        "double text": (reply(doubles.tolist()), floats),
        "one per line": (reply(short, 2), floats),
        "int8 list": (reply(whole.astype(int).tolist()), whole.astype(np.float32)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoding", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    made = bodies()
    print(f"| {COUNT} x {WIDTH} in one reply, ns per number | {' | '.join(made)} |")
    print("| --- |" + " ---: |" * len(made))
    ways: dict[str, Rows] = {"msgspec into `bytes` or `list[float]`, then numpy": plain, "**embedkit**": ours}
    for name, read in ways.items():
        cells = []
        for body, wanted in made.values():
            assert np.array_equal(read(body), wanted), f"{name} misreads"
            best = min(timeit.repeat(lambda body=body, read=read: read(body), number=1, repeat=options.rounds))  # type: ignore[misc]
            cells.append(f"{best / COUNT / WIDTH * 1e9:.1f}")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
