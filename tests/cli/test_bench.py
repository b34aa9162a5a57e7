"""`embedkit bench`: what is measured, against what, and how it is shown."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from embedkit._bench.recall import comparable, nearest, recall
from tests.cli.running import COMMAND, SIGNALS, embedkit_
from tests.support.servers.api import Api

TEXTS = [f"{'word ' * (number % 7)}number {number}" for number in range(20)]


def bench(api, *arguments):
    return embedkit_("bench", "--base-url", api.url, "--calls", 6, *arguments)


def measured(api, *arguments):
    code, stdout, stderr = bench(api, "--json", *arguments)
    return code, json.loads(stdout) if stdout else stderr


def jsonl(rows, name="texts.jsonl"):
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return name


def test_every_column_of_a_model_that_works(api):
    """Speed, latency, tokens, width, bytes, norm and steadiness come from real calls; the first finds itself."""
    code, made = measured(api, "compatible:m", "--texts", jsonl({"text": text} for text in TEXTS))
    (row,) = made["rows"]

    assert (code, made["documents"], made["queries"], made["labels"], made["k"]) == (0, 20, 0, False, 3)
    assert made["reference"] == "compatible:m, 3 dimensions, float32"
    assert (row["width"], row["bytes"], row["texts"], row["failed"], row["calls"]) == (3, 12, 20, 0, 6)
    assert row["tokens"] == sum(len(text.split()) for text in TEXTS)
    assert row["run_requests"] == len(api.bodies) == 1 + 6 + 5 + 1
    assert row["run_tokens"] > row["tokens"]
    assert (row["repeat_cosine"], row["repeat_difference"], row["recall"], row["error"]) == (1, 0, 1, None)
    assert 0 < row["p50"] <= row["p99"]
    assert row["norm"] > 1
    assert row["price"] is row["run_cost"] is None


def test_a_pipe_gets_lines_of_fields(api):
    """Where no terminal reads, the table is a line of fields per row, separated by tabs, as of the other commands."""
    code, shown, _ = bench(
        api, "compatible:m", "--texts", jsonl({"text": text} for text in TEXTS), "--dtype", "float32,int8"
    )
    _, heads, *rows = (line.split("\t") for line in shown.splitlines())

    assert code == 0
    assert heads[:4] == ["model", "width", "dtype", "bytes"]
    assert [row[:4] for row in rows] == [["compatible:m", "3", "float32", "12"], ["compatible:m", "3", "int8", "3"]]
    assert {len(row) for row in rows} == {len(heads)}


def test_pairs_and_classes_are_labels():
    """A query's own document counts, in all its rows; texts with a label find the others of that label."""
    pairs = [{"q": "a kitten", "a": "A cat sleeps."}, {"q": "shares", "a": "Stock prices fell."},
             {"q": "a kitten", "a": "The cat eats."}, {"q": "a loaf", "a": "Bread is baked."}]  # fmt: skip
    classes = [{"t": "A cat sleeps.", "c": 1}, {"t": "A kitten plays.", "c": 1}, {"t": "Stock prices fell.", "c": 2},
               {"t": "The share lost value.", "c": 2}]  # fmt: skip
    asked = ("bench", "local", "--calls", 1, "--json")
    code, of_pairs, _ = embedkit_(*asked, "-k", 2, "--texts", jsonl(pairs), "--column", "a", "--query", "q")
    other, of_classes, _ = embedkit_(*asked, "-k", 1, "--texts", jsonl(classes), "--column", "t", "--label", "c")

    assert (code, other) == (0, 0)
    assert [
        json.loads(each)[name] for each in (of_pairs, of_classes) for name in ("documents", "queries", "labels")
    ] == [4, 3, True, 4, 0, True]
    assert [json.loads(each)["rows"][0]["recall"] for each in (of_pairs, of_classes)] == [1, 1]


def test_dimensions_and_types_are_rows():
    """Each width with each type is measured as the model answers it; the model as it is comes first, once."""
    code, stdout, _ = embedkit_("bench", "local", "--dtype", "int8,binary,float32", "--calls", 1, "--json")
    rows = json.loads(stdout)["rows"]

    assert code == 0
    assert [(row["dtype"], row["bytes"]) for row in rows] == [("float32", 1536), ("int8", 384), ("binary", 48)]
    assert all(0.5 < row["recall"] <= 1 for row in rows)
    assert [row["norm"] is None for row in rows] == [False, True, True]


def test_a_model_that_fails_costs_its_row():
    """A refused model is named with its reason, in table, page and JSON; the next that works is the reference."""
    refused = (404, {}, {"error": {"message": "no such <model>"}})
    arguments = [
        "compatible:gone",
        "compatible:m",
        "--texts",
        jsonl({"text": text} for text in TEXTS),
        "--html",
        "b.html",
    ]
    with Api(refused) as api:
        code, made = measured(api, *arguments)
    with Api(refused) as api:
        shown, stdout, _ = bench(api, *arguments)
    with Api(refused) as api:
        alone, _ = measured(api, arguments[0], *arguments[2:4])

    assert (code, shown, alone) == (3, 3, 1)
    assert "no such <model>" in made["rows"][0]["error"]
    assert (made["rows"][1]["recall"], made["rows"][1]["reference"]) == (1, True)
    assert "no such <model>" in stdout
    assert "no such &lt;model&gt;" in Path("b.html").read_text("utf-8")


@pytest.mark.parametrize("place", [0, 3, 20])
def test_a_text_that_fails_is_counted(api, place):
    """A refused text marks itself wherever it stands, and its reason is shown: the others are measured."""
    texts = jsonl({"text": text} for text in [*TEXTS[:place], "BAD <text>", *TEXTS[place:]])
    code, made = measured(api, "compatible:m", "--texts", texts, "--html", "b.html")
    _, shown, _ = bench(api, "compatible:m", "--texts", texts)
    (row,) = made["rows"]

    assert (code, row["failed"], row["texts"], row["recall"], row["calls"]) == (0, 1, 21, 1, 6)
    assert api.refusal in row["failure"]
    for page in (shown, Path("b.html").read_text("utf-8")):
        assert f"1 of 21 texts failed, the first with: compatible:m: {api.refusal}" in page


def test_failed_texts_find_nothing_and_are_found_by_nobody(api):
    """A model that embeds half of the texts has at most half of the recall; one that embeds none is an error."""
    texts = jsonl({"text": f"{text} {'BAD' if place % 2 else ''}"} for place, text in enumerate(TEXTS))
    with Half() as half:
        _, made = measured(half, "compatible:all", "compatible:half", "--texts", texts)
        code, none = measured(half, "compatible:none", "--texts", texts)

    assert [row["failed"] for row in made["rows"]] == [0, 10]
    assert 0 < made["rows"][1]["recall"] <= 0.5
    assert code == 1
    assert half.refusal in none["rows"][0]["error"]


class Half(Api):
    """The model "all" takes every text, "half" refuses those with BAD, "none" all that come with another."""

    def answer(self, body, key):
        """As `Api`, but "all" takes what it would refuse."""
        texts = body["input"]
        if body["model"] == "none" and (len(texts) > 1 or "word" in texts[0] or "number" in texts[0]):
            body = {**body, "input": ["BAD"]}
        if body["model"] == "all":
            body = {**body, "input": [text.replace("BAD", "bad") for text in texts]}
        return super().answer(body, key)


def test_an_interrupt_shows_what_was_measured():
    """Ctrl-C in the second model ends with 130, and the first one's row is there, in the table and on the page."""
    with Api(hold_after=1 + 1 + 6 + 5) as api:
        asked = ["compatible:m", "compatible:other", "--calls", "6", "--html", "b.html"]
        asked += ["--texts", jsonl({"text": text} for text in TEXTS)]
        command = [*COMMAND, "bench", "--base-url", api.url, *asked]
        running = subprocess.Popen(
            [sys.executable, "-c", SIGNALS, "", *command], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert api.held.wait(60)
        running.send_signal(signal.SIGINT)
        stdout, stderr = running.communicate(timeout=60)

    assert running.returncode == 130
    assert "interrupted" in stderr
    assert "\ncompatible:m\t3\t" in stdout
    assert "compatible:other" not in stdout
    assert "compatible:m<" in Path("b.html").read_text("utf-8")


def test_another_page_of_the_same_name_is_replaced(api):
    """A page is written anew as often as one likes; nothing else is."""
    asked = ["compatible:m", "--texts", jsonl({"text": text} for text in TEXTS), "--html", "b.html"]
    assert [bench(api, *asked)[0], bench(api, *asked)[0]] == [0, 0]


def test_recall_of_bits_by_hand():
    """Four rows of eight bits, every text's one nearest by floats and by Hamming distance counted on paper."""
    rows = np.array([[0b00000000], [0b00000001], [0b11110000], [0b11111000]], np.uint8)
    for dtype, packed in (("ubinary", rows), ("binary", (rows.astype(int) - 128).astype(np.int8))):
        bits = comparable(packed, dtype)

        # Distances from 0: 1, 4, 5; from 1: 1, 5, 6; from 2: 4, 5, 1; from 3: 5, 6, 1.
        assert nearest(None, bits, 1) == [[1], [0], [3], [2]]
        assert recall(None, bits, [[1], [0], [0], [2]], 1) == 0.75
        # Asked for 2 places, row 1 finds 0 and then 2: both of [0, 2], one of [0, 3].
        assert recall(None, bits, [[], [0, 2], [], []], 2) == 1
        assert recall(None, bits, [[], [0, 3], [], []], 2) == 0.5
    # Rows 1 and 2 both differ from 0 in one bit: the one place is shared, whichever stands first.
    tied = comparable(np.array([[0], [1], [2], [255]], np.uint8), "ubinary")
    assert recall(None, tied, [[1], [], [], []], 1) == recall(None, tied, [[2], [], [], []], 1) == 0.5


def test_rows_without_numbers_take_no_part():
    """A failed text is nobody's neighbor, and finds none, not even by chance among equals."""
    rows = comparable(np.eye(5, dtype=np.float32), "float32")
    rows[2] = np.nan

    assert nearest(None, rows, 4) == [[1, 3, 4], [0, 3, 4], [], [0, 1, 4], [0, 1, 3]]
    assert recall(None, rows, [[2], [2], [0], [2], [2]], 3) == 0


def test_hostile_words_stay_words(api):
    """What a server says and what a file is called is shown as text: no markup, no command to a terminal, no bidi."""
    name = jsonl(({"text": text} for text in TEXTS), "<script>\x1b[31m\u202e.jsonl")
    said = "<img src=x onerror=alert(1)>\x1b[2J\u202e" + "x" * 400
    with Api((404, {}, {"error": {"message": said}})) as broken:
        code, shown, _ = bench(broken, "compatible:m", "compatible:n", "--texts", name, "--html", "b.html")
    text = Path("b.html").read_text("utf-8")

    assert code == 3
    assert not any(each in text for each in ("<script", "<img", "\x1b", "\u202e"))
    assert "&lt;img" in text
    assert "\u202e" not in shown


def test_the_page_needs_nothing(api):
    """One file with both plots: no script, and no address that a browser would fetch."""
    code, _, _ = bench(api, "compatible:m@" + api.url.replace("://", "://user:secret@"), "--html", "b.html")
    text = Path("b.html").read_text("utf-8")

    assert code == 0
    assert text.count("<figure>") == 2
    assert not any(each in text for each in ("<script", "src=", "href=", "@import", "url(", "secret"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compatible:m", "--dimensions", "256,x"], "--dimensions '256,x'"),
        (["compatible:m", "--dtype", "int4"], "--dtype 'int4'"),
        (["compatible:m", "openai:m"], "--base-url with models of several providers"),
        (["compatible:m", "--query", "q"], "--texts"),
        (["compatible:m", "--texts", "t.jsonl", "--query", "q", "--label", "l"], "contradict"),
        (["compatible:m", "--texts", "t.jsonl"], "t.jsonl, row 1"),
        (["compatible:m", "--texts", "one.txt"], "one text, 2 times"),
        (["compatible:m", "--texts", "empty.txt"], "no text"),
        (["compatible:m", "--texts", "labels.csv", "--label", "l"], "row 1: the label is empty"),
        (["compatible:m", "--texts", "labels.csv", "--query", "l"], "row 1: the query is empty"),
        (["compatible:m", "--texts", "labels.csv", "--label", "no"], "(choose with --label)"),
        (["compatible:m", "--html", "one.txt"], "is not replaced"),
        (["compatible:m", "--html", "."], "this is a folder"),
        (["compatible:m", "--html", ""], "--html is empty"),
        (["compatible:m@URL", "openai:m"], "OPENAI_API_KEY"),
        (["compatible:m@URL", "nobody:m"], "unknown provider 'nobody'"),
        (["compatible:m", "-k", "24"], "24 texts to choose from"),
        (["compatible:m", "--html", "no/b.html"], "there is no folder no"),
    ],
)
def test_what_cannot_be_measured_is_refused_first(api, arguments, words, monkeypatch):
    """A value that means nothing is named, and nothing is sent."""
    jsonl([{"text": "one"}, {"text": 7}], "t.jsonl")
    Path("one.txt").write_text("same\nsame\n", "utf-8")
    Path("empty.txt").touch()
    Path("labels.csv").write_text("text,l\none,1\ntwo,\nthree,1\n", "utf-8")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    url = [] if "compatible:m@URL" in arguments else ["--base-url", api.url]
    code, _, stderr = embedkit_("bench", *url, *(each.replace("URL", api.url) for each in arguments))

    assert Path("one.txt").read_text("utf-8") == "same\nsame\n"
    assert code == 2
    assert words in stderr
    assert api.bodies == []


@given(st.integers(0, 2**32), st.integers(2, 12), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_bits_compare_by_their_hamming_distance(seed, count, width):
    """The order of packed rows is that of how many bits differ, for both ways of packing."""
    rows = np.random.default_rng(seed).integers(0, 256, (count, width), np.uint8)
    bits = np.unpackbits(rows, axis=1)
    distances = (bits[:, None] != bits[None]).sum(axis=2)
    for dtype, given_ in (("ubinary", rows), ("binary", (rows.astype(int) - 128).astype(np.int8))):
        signs = comparable(given_, dtype)

        assert np.array_equal((width * 8 - signs @ signs.T) / 2, distances)


@given(st.integers(0, 2**32), st.integers(3, 12), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_recall_does_not_depend_on_the_order_of_the_documents(seed, count, k):
    """With many equal scores, too: another order of the documents gives the same recall, from 0 to 1."""
    random = np.random.default_rng(seed)
    documents, queries = (comparable(random.integers(0, 4, (some, 1), np.uint8), "ubinary") for some in (count, 3))
    relevant = [random.choice(count, 2, replace=False).tolist() for _ in range(3)]
    order = random.permutation(count)
    place = np.argsort(order)
    k = min(k, count)
    first = recall(queries, documents, relevant, k)

    assert first == pytest.approx(recall(queries, documents[order], [place[each].tolist() for each in relevant], k))
    assert 0 <= first <= 1


@given(st.integers(0, 2**32), st.integers(3, 30))
@settings(max_examples=30, deadline=None)
def test_a_model_finds_its_own_neighbors(seed, count):
    """Against its own nearest, recall is 1 where no two scores are equal, and nobody is its own neighbor."""
    rows = comparable(np.random.default_rng(seed).normal(size=(count, 16)), "float32")
    assume(all(len(set(scores)) == count for scores in np.round(rows @ rows.T, 6).tolist()))
    found = nearest(None, rows, 2)

    assert all(place not in each for place, each in enumerate(found))
    assert recall(None, rows, found, 2) == pytest.approx(1)


@pytest.mark.parametrize("scale", [1e38, 1e-38])
def test_the_norm_of_any_float32_is_a_number(scale):
    """The squares of large and of small components leave float32's range, and the mean length is right all the same."""

    class Scaled(Api):
        def answer(self, body, key):
            status, headers, made = super().answer(body, key)
            for row in made["data"]:
                row["embedding"] = [scale, scale * len(body["input"][row["index"]]) / 100]
            return status, headers, made

    with Scaled() as api:
        code, made = measured(api, "compatible:m", "--texts", jsonl({"text": text} for text in TEXTS))

    assert code == 0
    assert made["rows"][0]["norm"] == pytest.approx(scale, rel=0.1)
