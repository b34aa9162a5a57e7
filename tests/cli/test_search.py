"""`embedkit search`: the nearest rows, in every form that `embedkit embed` writes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from embedkit._bulk.embedded import Block
from embedkit._bulk.search import nearest_of
from tests.cli.running import embed, embedkit_, parsed
from tests.cli.running import made as written
from tests.support.servers.api import vector


def made(name, texts):
    return written(name, texts, range(1, len(texts) + 1))


def order(query, texts):
    """Rows by cosine, computed in double precision."""
    rows, asked = np.array([vector(text) for text in texts], float), np.array(vector(query), float)
    scores = rows @ asked / np.linalg.norm(rows, axis=1) / np.linalg.norm(asked)
    return sorted(range(len(texts)), key=lambda row: (-scores[row], row)), scores


@pytest.mark.parametrize("out", ["v.npy", "v.parquet", "v.arrow", "v.jsonl", "folder/"])
def test_every_form_gives_the_same_rows(api, out):
    """Rows, scores and records are the same, whatever holds them; model and address come from file or report."""
    texts = ["a" * count for count in (1, 11, 21, 31, 103)]  # far apart
    assert embed(api, made("in.jsonl", texts), "-o", out)[0] == 0
    code, stdout, _ = embedkit_("search", "a" * 12, out, "--json", "-k", 3)
    said = json.loads(stdout)
    expected, scores = order("a" * 12, texts)

    assert code == 0
    assert [match["row"] for match in said["matches"]] == expected[:3]
    assert [match["score"] for match in said["matches"]] == pytest.approx(
        [scores[row] for row in expected[:3]], abs=1e-5
    )
    if out != "v.npy":
        assert said["matches"][0]["record"] == {"note": expected[0] + 1, "text": texts[expected[0]]}


def test_queries_from_stdin_and_texts_of_a_matrix(api):
    """Each line of stdin is a query, and --texts gives a matrix its records."""
    embed(api, made("in.jsonl", ["aaa", "z" * 9]), "-o", "v.npy")
    code, stdout, _ = embedkit_("search", "-", "v.npy", "--texts", "in.jsonl", "--json", stdin=b"aaa\n\nzzzzzzzzz\n")

    assert code == 0
    assert [(line["query"], line["matches"][0]["record"]["text"]) for line in parsed(stdout)] == [
        ("aaa", "aaa"), ("z" * 9, "z" * 9),
    ]  # fmt: skip


def test_a_query_in_place_of_the_file(api):
    """FILE before QUERY is told their order; two names of nothing are not."""
    embed(api, made("in.jsonl", ["aaa"]), "-o", "v.npy")

    assert embedkit_("search", "v.npy", "aaa") == (
        2, "", "embedkit: aaa: there is no such file or folder; QUERY comes first, FILE second\n",
    )  # fmt: skip
    assert embedkit_("search", "a" * 5_000, "w.npy") == (2, "", "embedkit: w.npy: there is no such file or folder\n")


def test_failed_rows_never_match(api):
    """A row without a vector is in no answer, even if all are asked for."""
    for out in ("v.npy", "v.parquet", "v.arrow", "v.jsonl"):
        embed(api, made("in.jsonl", ["aaa", "BAD", "zz"]), "-o", out)
        _, stdout, _ = embedkit_("search", "aaa", out, "--json")
        assert sorted(match["row"] for match in json.loads(stdout)["matches"]) == [0, 2], out


def test_another_model_or_width_is_refused(api):
    """What another model embedded is not compared; nothing says which model: -m is asked for."""
    embed(api, made("in.jsonl", ["aaa"]), "-o", "v.parquet")
    np.save("lone.npy", np.ones((2, 5), np.float32))
    api.bodies.clear()
    other = embedkit_("search", "a", "v.parquet", "-m", "compatible:other", "--base-url", api.url)
    lone = embedkit_("search", "a", "lone.npy")
    assert (other[0], lone[0], api.bodies) == (2, 2, [])
    assert "it was embedded with compatible:m" in other[2]
    assert "pass it with -m" in lone[2]

    wide = embedkit_("search", "a", "lone.npy", "-m", "compatible:m", "--base-url", api.url)
    assert wide[0] == 2
    assert "vectors of 5 dimensions, and compatible:m gives 3" in wide[2]


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "binary", "ubinary"])
def test_blocks_change_nothing(dtype):
    """The best of all rows are found, however the rows are cut into blocks; ties go to the earlier row."""
    random = np.random.default_rng(7)
    kinds = {"float32": np.float32, "int8": np.int8, "uint8": np.uint8, "binary": np.int8, "ubinary": np.uint8}
    rows = random.integers(1, 100, (200, 16)).astype(kinds[dtype])
    rows[150] = rows[3]
    queries = rows[[3, 77]]
    whole = nearest_of([Block(0, rows)], queries, dtype, 12)
    cut = nearest_of([Block(start, rows[start : start + 7]) for start in range(0, 200, 7)], queries, dtype, 12)

    assert [[match.row for match in each] for each in whole] == [[match.row for match in each] for each in cut]
    assert [match.row for match in whole[0]][:2] == [3, 150]
    assert whole[1][0].row == 77
