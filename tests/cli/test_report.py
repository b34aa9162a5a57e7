"""`embedkit report`: one page of a finished job that needs nothing, whatever texts, files and providers have said."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit import _page
from embedkit._review.page import duration
from tests.cli.running import embed, embedkit_, left
from tests.cli.running import made as written
from tests.support.servers.api import Api, vector

FORMS = ["v.npy", "v.parquet", "v.arrow", "v.jsonl", "folder/"]
HOSTILE = [
    "</script><script>alert(1)</script>",
    "</title></circle></svg><img src=x onerror=alert(1)>",
    "' onload='alert(1)' \" <!-- ]]>",
    "zero \0 byte, \x1b[31m escape, \x7f delete",
    "family 👨‍👩‍👧 flag 🇩🇪",
    "turned \u202e around \u2066 and left so",
    "&lt;b&gt; &amp; &#0;",
    "x" * 1_000_000,
]


class Elements(HTMLParser):
    """What a browser would make of a page: its elements with their attributes, its text, its script."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.attributes, self.text, self.script = [], set(), "", ""
        self._in_script = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self._in_script = tag == "script"

    def handle_endtag(self, tag):
        self._in_script = False

    def handle_data(self, data):
        if self._in_script:
            self.script += data
        else:
            self.text += data


def made(name, texts):
    return written(name, texts, range(1, len(texts) + 1))


def paged(*arguments):
    """The page, as written."""
    code, stdout, stderr = embedkit_("report", *arguments)
    assert code == 0, stderr
    return Path(stdout.strip()).read_bytes().decode("utf-8")


def facts(*arguments):
    code, stdout, stderr = embedkit_("report", "--json", *arguments)
    assert code == 0, stderr
    return json.loads(stdout)


@pytest.mark.parametrize("out", FORMS)
def test_every_form_gives_the_same_facts(api, out):
    """Counts, failures, lengths, nearest rows, equal vectors and map are the same, whatever holds them."""
    texts = ["a" * count for count in (1, 11, 21, 31, 103)] + ["a", "BAD"]
    assert embed(api, made("in.jsonl", texts), "-o", out, "--rate", "60000 requests/min")[0] == 3
    found = facts(out)
    job, vectors = found["job"], found["vectors"]

    assert found["notes"] == []
    assert (job["rows"], job["failed"], job["tokens"], job["cost"], job["model"]) == (7, 1, 6, None, "compatible:m")
    assert [(kind["rows"], kind["examples"]) for kind in found["failures"]["kinds"]] == [(1, [6])]
    assert "not to my liking" in found["failures"]["kinds"][0]["reason"]
    assert (vectors["rows"], vectors["missing"], vectors["dimensions"], vectors["dtype"]) == (7, 1, 3, "float32")
    assert vectors["sizes"]["least"] == pytest.approx(min(np.linalg.norm(vector(text)) for text in texts[:6]))
    assert (vectors["equal"]["rows"], vectors["equal"]["groups"]) == (2, 1)
    near = {each["row"]: each["nearest"][0] for each in vectors["neighbors"]["examples"]}
    assert near[0]["row"] == 5
    assert near[5]["row"] == 0
    assert near[0]["score"] == pytest.approx(1)
    points = {point["row"]: (point["x"], point["y"]) for point in vectors["map"]["points"]}
    assert sorted(points) == [0, 1, 2, 3, 4, 5]
    assert points[0] == pytest.approx(points[5], abs=1e-5)
    text = [point["text"] for point in vectors["map"]["points"]]
    assert text == ([None] * 6 if out == "v.npy" else texts[:6])
    assert near[0]["same_text"] is (None if out == "v.npy" else True)


def test_the_page_says_what_the_facts_say(api):
    """Figures, reasons and texts stand on the page, which lies beside the output."""
    embed(api, made("in.jsonl", ["first text", "second text", "third text", "BAD"]), "-o", "v.parquet")
    said = Elements(paged("v.parquet")).text

    assert "v.parquet.html" in left()
    for words in ("compatible:m", "first text", "the text is not to my liking", "failed", "row 2", "Map of a sample"):
        assert words in said


def test_texts_of_a_matrix(api):
    """--texts shows the input beside the row numbers of a matrix, and is refused where the output has its records."""
    embed(api, made("in.jsonl", ["aaa", "z" * 9]), "-o", "v.npy")
    embed(api, "in.jsonl", "-o", "v.parquet")
    found = facts("v.npy", "--texts", "in.jsonl")
    code, _, stderr = embedkit_("report", "v.parquet", "--texts", "in.jsonl")

    assert [point["text"] for point in found["vectors"]["map"]["points"]] == ["aaa", "z" * 9]
    assert (code, "holds its records itself" in stderr) == (2, True)


@pytest.mark.parametrize("out", ["v.parquet", "v.jsonl"])
def test_hostile_texts_stay_texts(api, out):
    """No text becomes an element, an attribute or a script, none is without end, and no character breaks the page."""
    embed(api, made("in.jsonl", HOSTILE), "-o", out)
    page = paged(out)
    plain = paged(out, "-o", "plain.html", "--column", "note")
    seen, expected = Elements(page), Elements(plain)

    assert seen.elements.count("script") == 1
    assert (set(seen.elements), seen.attributes) == (set(expected.elements), expected.attributes)
    assert seen.script == expected.script
    assert not re.search("[\0-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", page)
    assert "family 👨‍👩‍👧 flag 🇩🇪" in seen.text
    assert HOSTILE[0] in seen.text
    assert len(page) < 100_000


def test_hostile_reports_and_failures_stay_text(api):
    """What a provider and the report's own fields say is escaped as texts are."""
    evil = "<img src=x onerror=alert(1)>"
    with Api() as server:
        server.refusal = f"{evil} refused"
        embed(server, made("in.jsonl", ["aaa", "BAD"]), "-o", "v.jsonl")
    report = json.loads(Path("v.jsonl.report.json").read_text("utf-8"))
    report["options"] |= {"extra": {evil: evil}}
    report |= {"model": evil, "base_url": evil, "version": evil, "finished": 1e300}
    report["input"] = {"inputs": [evil], "column": evil}
    Path("v.jsonl.report.json").write_text(json.dumps(report), "utf-8")
    seen = Elements(paged("v.jsonl"))

    assert seen.text.count(evil) >= 6
    assert "img" not in seen.elements
    assert "onerror" not in seen.attributes


def test_the_page_needs_nothing(api):
    """The policy in its head lets one script run, the page's own; there is no address that a browser would fetch."""
    embed(api, made("in.jsonl", ["aaa", "bb", "c"]), "-o", "v.parquet")
    page = paged("v.parquet")
    digest = b64encode(sha256(Elements(page).script.encode()).digest()).decode()

    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page
    assert not any(each in page for each in ("src=", "href=", "@import", "url("))


@given(st.text())
def test_safe_text_is_text(text):
    """Whatever a string holds, a parser finds one text and no element, and no character that a page may not hold."""
    safe = _page.safe(text)
    seen = Elements(f"<p title='{safe}' lang=\"{safe}\">{safe}</p>")

    assert (seen.elements, seen.attributes) == (["p"], {"title", "lang"})
    assert all(each.isprintable() or each in "\u200c\u200d" for each in safe)
    assert safe.encode().decode() == safe
    assert seen.text.strip() == seen.text


def test_a_page_is_not_replaced_unless_asked(api):
    """A page that is there stays; --force replaces it, and never the output or the job's own files."""
    embed(api, made("in.jsonl", ["aaa", "BAD"]), "-o", "v.parquet")
    embed(api, "in.jsonl", "-o", "folder/")
    Path("v.parquet.html").write_text("mine", "utf-8")
    code, _, stderr = embedkit_("report", "v.parquet")
    assert (code, "--force" in stderr, Path("v.parquet.html").read_text("utf-8")) == (2, True, "mine")

    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    for page in ("v.parquet", "v.parquet.report.json", "v.parquet.failures.jsonl", "v.parquet.job/x", "./v.parquet"):
        assert embedkit_("report", "v.parquet", "-o", page, "--force")[0] == 2, page
    for page in ("folder", "folder/x.html", "folder/part-00000.parquet", "no/x.html"):
        assert embedkit_("report", "folder", "-o", page, "--force")[0] == 2, page
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before

    assert paged("v.parquet", "--force").startswith("<!DOCTYPE html>")


def test_without_a_report(api):
    """What vectors and failures tell is shown, and a line says that the report is missing."""
    embed(api, made("in.jsonl", ["aaa", "bb", "BAD"]), "-o", "v.parquet")
    Path("v.parquet.report.json").unlink()
    code, _, stderr = embedkit_("report", "v.parquet")
    found = facts("v.parquet")

    assert code == 0
    assert "There is no v.parquet.report.json beside it" in stderr
    assert (found["job"], found["rates"], found["failures"]["rows"]) == (None, [], 1)
    assert (found["vectors"]["rows"], found["vectors"]["missing"]) == (3, 1)


@pytest.mark.parametrize("command", [["report"], ["search", "a"]])
def test_an_unfinished_folder_is_called_so(command):
    """An unfinished job leaves its folder empty: report and search say that it goes on, not that the folder is odd."""
    Path("d").mkdir()
    Path("d.job").mkdir()
    Path("d.job/journal.jsonl").write_text("begun", "utf-8")
    code, _, stderr = embedkit_(*command, "d/")

    assert code == 2
    assert "its job is not finished" in stderr


def test_an_unfinished_job_is_refused_in_a_line(api):
    """Its folder is named, and the way to go on; a finished output under an unfinished job is shown, with a note."""
    assert embed(api, made("in.txt", ["aaa", "bb"]), "-o", "v.parquet")[0] == 0
    Path("v.parquet.job").mkdir()
    Path("v.parquet.job/journal.jsonl").write_text("begun", "utf-8")
    found = facts("v.parquet")
    for name in ("v.parquet", "v.parquet.report.json"):
        Path(name).unlink()
    code, _, stderr = embedkit_("report", "v.parquet")

    assert len(found["notes"]) == 1
    assert "Another job on this output is not finished" in found["notes"][0]
    assert code == 2
    assert len(stderr.splitlines()) == 1
    assert "its job is not finished" in stderr
    assert "run the same `embedkit embed` again" in stderr
    assert Path("v.parquet.job/journal.jsonl").read_text("utf-8") == "begun"


def test_what_does_not_fit_together_is_said(api):
    """A list of failures that is gone, a report of another job, and failures that it does not know are notes."""
    embed(api, made("in.jsonl", ["aaa", "bb", "BAD"]), "-o", "v.parquet")
    Path("v.parquet.failures.jsonl").unlink()
    assert ["is not there" in note for note in facts("v.parquet")["notes"]] == [True]
    pq.write_table(pq.read_table("v.parquet").slice(0, 2), "v.parquet")
    assert any("they are not of one job" in note for note in facts("v.parquet")["notes"])
    pq.write_table(pq.read_table("v.parquet").take([0, 1, 1]), "v.parquet")
    assert any(
        "0 rows have no vector, and its report says that 1 failed" in note for note in facts("v.parquet")["notes"]
    )


def test_different_texts_with_one_vector_are_said(api):
    """Equal vectors of different texts are a note; those of one text are none."""
    embed(api, made("in.jsonl", ["ad", "bc", "zzz"]), "-o", "v.parquet")
    embed(api, made("same.jsonl", ["ad", "ad", "zzz"]), "-o", "w.parquet")

    assert facts("v.parquet")["notes"] == ["Different texts have one and the same vector: see equal vectors."]
    assert facts("w.parquet")["notes"] == []


def test_a_store_has_the_figures_of_its_report(api):
    """Its rows are not read, and a line says so; without a report it is refused, and no password is shown."""
    assert embed(api, made("in.jsonl", ["aaa", "bb"]), "-o", "sqlite:some.db#t")[0] == 0
    found = facts("sqlite:some.db#t")
    page = paged("sqlite:some.db#t")
    other = embedkit_("report", "postgresql://user:secret@host/base#t")

    assert (found["job"]["rows"], found["vectors"]) == (2, None)
    assert found["notes"] == ["Rows of a store are not read: all figures are those of the job's report."]
    assert "some.db.t.html" in left()
    assert "Rows of a store are not read" in page
    assert other[0] == 2
    assert "base.t.report.json, is not in this folder" in other[2]
    assert "secret" not in other[1] + other[2]


RANDOM = np.random.default_rng(4)
NAN = np.full((5, 4), np.nan, np.float32)
ODD = {
    "no rows": (np.empty((0, 8), np.float32), None),
    "no width": (np.empty((5, 0), np.float32), None),
    "nothing but NaN": (NAN, None),
    "some NaN": (np.concatenate([NAN, RANDOM.normal(size=(9, 4)).astype(np.float32)]), None),
    "infinite": (np.full((4, 4), np.inf, np.float32), None),
    "one row": (RANDOM.normal(size=(1, 8)).astype(np.float32), None),
    "two rows": (RANDOM.normal(size=(2, 8)).astype(np.float32), None),
    "a width of 1": (RANDOM.normal(size=(30, 1)).astype(np.float32), None),
    "all the same": (np.ones((30, 4), np.float32), None),
    "zeros": (np.zeros((30, 4), np.float32), None),
    "huge": ((RANDOM.random((30, 4)) * 3e38).astype(np.float32), None),
    "tiny": ((RANDOM.random((30, 4)) * 1e-42).astype(np.float32), None),
    "whole numbers": (RANDOM.integers(-9, 9, (30, 4)), None),
    "big-endian": (RANDOM.normal(size=(30, 4)).astype(">f4"), None),
    "int8": (RANDOM.integers(-128, 128, (30, 4)).astype(np.int8), "int8"),
    "uint8": (RANDOM.integers(0, 256, (30, 4)).astype(np.uint8), "uint8"),
    "binary": (RANDOM.integers(-128, 128, (30, 5)).astype(np.int8), "binary"),
    "ubinary": (RANDOM.integers(0, 256, (30, 1)).astype(np.uint8), "ubinary"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_vectors_have_a_page(name):
    """Nothing, little, or what is no number ends in no error and no warning: the page says what there is."""
    matrix, dtype = ODD[name]
    np.save("v.npy", matrix)
    asked = [] if dtype is None else ["--dtype", dtype]
    seen = Elements(paged("v.npy", *asked))
    found = facts("v.npy", *asked)
    have = int(np.isfinite(matrix.astype(float)).all(axis=1).sum()) if matrix.shape[1] else 0

    assert "nan" not in seen.text.lower().replace("nanoseconds", "")
    assert "inf" not in seen.text.lower().split()
    if have:
        assert found["vectors"]["rows"] - found["vectors"]["missing"] == have
    else:
        assert found["vectors"] is None
        assert any(words in found["notes"][0] for words in ("There are no rows", "has a vector"))


def test_what_whole_numbers_are_has_to_be_known():
    """Whole numbers of a matrix may be bits: --dtype is asked for."""
    np.save("v.npy", np.ones((3, 4), np.int8))
    code, _, stderr = embedkit_("report", "v.npy")

    assert (code, "pass --dtype int8 or binary" in stderr) == (2, True)


def test_an_empty_job(api):
    """A job without rows has a page, which says so."""
    Path("in.txt").write_text("", "utf-8")
    for out in ("v.parquet", "v.npy", "v.jsonl", "v.arrow"):
        assert embed(api, "in.txt", "-o", out)[0] == 0
        assert "There are no rows." in Elements(paged(out)).text, out


def test_stdout_and_json(api):
    """-o - prints the page, --json writes none unless it is named, and the two do not share stdout."""
    embed(api, made("in.jsonl", ["aaa", "bb"]), "-o", "v.parquet")
    before = left()
    code, stdout, _ = embedkit_("report", "v.parquet", "-o", "-")
    facts("v.parquet")
    assert (code, stdout.startswith("<!DOCTYPE html>"), left()) == (0, True, before)
    assert embedkit_("report", "v.parquet", "-o", "-", "--json")[0] == 2
    facts("v.parquet", "-o", "page.html")
    assert Path("page.html").read_text("utf-8") == stdout


@pytest.mark.parametrize("junk", ["v.parquet", "v.npy", "v.jsonl", "v.arrow", "v.txt"])
def test_what_is_no_output_is_refused_in_a_line(junk):
    """A file that cannot be read, or that embedkit has not written, is named."""
    Path(junk).write_bytes(b"garbage" * 100)
    code, _, stderr = embedkit_("report", junk)

    assert (code, junk in stderr) == (2, True)
    assert left() == [junk]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (0.0421, "0.0421 s"), (59.96, "60 s"), (61, "1 min 1 s"), (7200, "2 h"), (90061, "1 d 1 h")],
)
def test_durations(seconds, words):
    """Two units, the smaller one left out where it is nothing."""
    assert duration(seconds) == words


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_labels_lie_on_the_axis(begin, width):
    """Two labels or more, not many, at equal distances within the axis."""
    found = [part for part, _ in _page.ticks(begin, begin + width)]

    assert all(-1e-6 <= part <= 1 + 1e-6 for part in found)
    assert 2 <= len(found) <= 7
    assert np.diff(found) == pytest.approx(found[1] - found[0], rel=1e-3)


@given(st.floats(1e-300, 1e300))
def test_an_axis_ends_beyond_its_values(most):
    """At a label, no smaller than the largest value and not much larger."""
    end = _page.axis_end(most)

    assert most * (1 - 1e-6) <= end <= most * 1.8
    assert _page.ticks(0, end)[-1][0] == pytest.approx(1)


def test_the_text_is_what_was_embedded(api):
    """A template is filled in, a nested column is found, and --column shows another."""
    rows = [{"a": {"b": f"deep {row}"}, "title": f"title {row}", "note": f"note {row}"} for row in range(3)]
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    embed(api, "in.jsonl", "--template", "{title}: {a.b}", "-o", "t.parquet")
    embed(api, "in.jsonl", "--column", "a.b", "-o", "n.jsonl")

    def texts(*arguments):
        return [point["text"] for point in facts(*arguments)["vectors"]["map"]["points"]]

    assert texts("t.parquet") == [f"title {row}: deep {row}" for row in range(3)]
    assert texts("n.jsonl") == [f"deep {row}" for row in range(3)]
    assert texts("n.jsonl", "--column", "note") == [f"note {row}" for row in range(3)]
    assert "in.jsonl, template {title}: {a.b}" in Elements(paged("t.parquet")).text
    _, stdout, _ = embedkit_("search", "deep 1", "n.jsonl", "-k", 1)
    assert "\tdeep " in stdout

    Path("in.csv").write_text("n,body\n1,one\n2,two\n3,three\n", "utf-8")
    embed(api, "in.csv", "--column", "body", "-o", "v.npy")
    assert texts("v.npy", "--texts", "in.csv") == ["one", "two", "three"]


def test_a_job_whose_rows_all_failed_has_left_nothing(api):
    """There is no output, and one line says so."""
    assert embed(api, made("in.jsonl", ["BAD", "BAD too"]), "-o", "v.parquet")[0] == 1
    code, _, stderr = embedkit_("report", "v.parquet")

    assert (code, stderr) == (2, "embedkit: v.parquet: there is no such file or folder\n")
