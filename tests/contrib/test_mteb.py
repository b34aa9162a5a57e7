"""MTEB: real tasks whose data lies on disk, run by the real mteb: what is sent, what they score, what they took."""

from __future__ import annotations

import json

import pytest

from embedkit import ConfigError
from embedkit._hints import Later
from tests.contrib.adapters import KEY, voyage

mteb = pytest.importorskip("mteb", reason="of the extra mteb")
pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
adapter = Later("embedkit.contrib.mteb")

DOCUMENTS = {
    "d1": "A cat sleeps on the sofa.",
    "d2": "Stock prices fell on Monday.",
    "d3": "Bread is baked from flour.",
}
QUERIES = {"q1": "a kitten on the couch", "q2": "the market lost value", "q3": "how to make a loaf"}
PAIRS = [
    ("A cat sleeps.", "A kitten naps.", 4.5), ("It rains.", "Stock prices fell.", 0.5), ("He bakes.", "He makes bread.", 4.0),
    ("The sky is blue.", "Tax is due in May.", 0.2),
]  # fmt: skip
ABOUT = {
    "description": "of the test", "eval_splits": ["test"], "eval_langs": ["eng-Latn"], "reference": None, "date": None,
    "domains": None, "task_subtypes": None, "license": None, "annotations_creators": None, "dialect": None,
    "sample_creation": None, "bibtex_citation": None,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _a_key(monkeypatch):
    monkeypatch.setenv("VOYAGE_API_KEY", KEY)


@pytest.fixture
def tasks(tmp_path):
    """A retrieval task and an STS task, as files of JSON lines."""
    from datasets import load_dataset
    from mteb.abstasks import AbsTaskRetrieval, AbsTaskSTS
    from mteb.abstasks.task_metadata import TaskMetadata

    def written(name, rows):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return str(path)

    def loaded(name, rows):
        return load_dataset("json", data_files=written(name, rows), split="train", cache_dir=str(tmp_path / "cache"))

    corpus = loaded("corpus", [{"id": name, "title": "", "text": text} for name, text in DOCUMENTS.items()])
    queries = loaded("queries", [{"id": name, "text": text} for name, text in QUERIES.items()])
    pairs = loaded("pairs", [{"sentence1": one, "sentence2": two, "score": score} for one, two, score in PAIRS])
    here = {"path": str(tmp_path), "revision": "1"}

    class Retrieval(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name="OurRetrieval", type="Retrieval", main_score="ndcg_at_10", dataset=here, modalities=["text"], **ABOUT
        )

        def load_data(self, *_, **__):
            relevant = {f"q{number}": {f"d{number}": 1} for number in (1, 2, 3)}
            split = {"corpus": corpus, "queries": queries, "relevant_docs": relevant, "top_ranked": None}
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    class Similarity(AbsTaskSTS):
        metadata = TaskMetadata(
            name="OurSTS", type="STS", main_score="cosine_spearman", dataset=here, modalities=["text"], **ABOUT
        )
        min_score, max_score = 0, 5

        def load_data(self, *_, **__):
            self.dataset = {"test": pairs}
            self.data_loaded = True

    return [Retrieval(), Similarity()]


def evaluated(encoder, tasks):
    return mteb.evaluate(encoder, tasks, cache=None, co2_tracker=False, show_progress_bar=False)


def test_the_embedded_model_scores(tasks):
    """A real model finds all three documents and ranks the pairs, and each task says what it took."""
    encoder = adapter.EmbedkitEncoder("local")
    result = evaluated(encoder, tasks)
    said = adapter.with_usage(result, encoder)

    assert {each.task_name: each.get_score() for each in result.task_results}["OurRetrieval"] == 1
    assert {each.task_name: each.get_score() for each in result.task_results}["OurSTS"] > 0.7
    assert set(said["usage"]) == {"OurRetrieval", "OurSTS"}
    assert said["usage"]["OurSTS"]["tokens"] > 0
    assert json.dumps(said)


def test_texts_go_out_as_what_they_are(tasks):
    """Queries and documents of a retrieval task are sent as such; tokens, requests and cost are those of the task."""
    exchange, settings = voyage()
    encoder = adapter.EmbedkitEncoder(**settings)
    evaluated(encoder, tasks[:1])
    sent = {text: body.get("input_type") for body in exchange.bodies for text in body["input"]}
    used = encoder.usages["OurRetrieval"]

    assert {kind for text, kind in sent.items() if text in QUERIES.values()} == {"query"}
    assert {kind for text, kind in sent.items() if text.strip() in DOCUMENTS.values()} == {"document"}
    assert (used.tokens, used.requests) == (6, len(exchange.requests))
    assert used.cost == pytest.approx(6 * encoder.embedder.price / 1e6)


def test_a_prompt_goes_before_the_text_in_place_of_an_input_type(tasks):
    """A prompt of one's own is put before the texts it is for, and nothing else says what they are."""
    exchange, settings = voyage()
    evaluated(adapter.EmbedkitEncoder(prompts={"query": "Find: "}, **settings), tasks[:1])
    asked = [body for body in exchange.bodies if body["input"][0].startswith("Find: ")]

    assert {text for body in asked for text in body["input"]} == {f"Find: {text}" for text in QUERIES.values()}
    assert all(body.get("input_type") is None for body in asked)


def test_what_changes_vectors_keeps_results_apart():
    """MTEB's cache of results tells widths, types and prompts apart, and no key is in it."""
    plain, narrow, prompted, told, averaged = (
        adapter.EmbedkitEncoder("voyage:voyage-3.5", **more).mteb_model_meta
        for more in (
            {},
            {"dimensions": 256, "dtype": "int8"},
            {"prompts": {"query": "Find: "}},
            {"extra": {"task": "x", "api_key": KEY}},
            {"long_text": "mean"},
        )
    )

    assert plain.experiment_kwargs is None
    assert narrow.experiment_kwargs == {"dimensions": 256, "dtype": "int8"}
    assert prompted.experiment_kwargs == {"prompts": "query=Find: "}
    assert told.experiment_kwargs == {"extra": '{"task": "x"}'}
    assert averaged.experiment_kwargs == {"long_text": "mean"}
    assert KEY not in repr(narrow) + repr(told)


def test_packed_bits_are_refused():
    """MTEB would take the cosine of bytes."""
    with pytest.raises(ConfigError, match="binary"):
        adapter.EmbedkitEncoder("local", dtype="binary")


def test_prompts_are_a_mapping():
    """A prompt alone does not say for which texts it is."""
    with pytest.raises(ConfigError, match="prompts='query: '"):
        adapter.EmbedkitEncoder("local", prompts="query: ")
