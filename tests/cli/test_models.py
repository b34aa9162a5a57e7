"""`embedkit models`: which models are listed, and how."""

from __future__ import annotations

import json

import pytest

from embedkit import catalog
from tests.cli.running import embedkit_


def test_models_lists_the_catalog_in_columns():
    """In a pipe: tab-separated, a line of names, one line per model, nothing else."""
    code, stdout, stderr = embedkit_("models")
    head, *rows = (line.split("\t") for line in stdout.splitlines())

    assert (code, stderr) == (0, "")
    assert head == ["provider", "model", "width", "other widths", "tokens", "$/million", "in batches"]
    assert {tuple(row[:2]) for row in rows} == {
        (provider, facts.name) for provider, known in catalog.MODELS.items() for facts in known
    }
    assert ["openai", "text-embedding-3-small", "1536", "1-1536", "8192", "0.02", "0.01"] in rows
    assert {len(row) for row in rows} == {7}


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["openai:", "3-small"], ["text-embedding-3-small"]),
        (["LARGE", "OpenAI:"], ["text-embedding-3-large"]),
        (["--provider", "local"], ["all-minilm-l6-v2"]),
        (["--provider", "openai", "ada"], ["text-embedding-ada-002"]),
    ],
)
def test_models_are_filtered_by_every_word(arguments, names):
    """Case does not matter, order neither; "provider:" is part of the name."""
    _, stdout, _ = embedkit_("models", *arguments)

    assert [line.split("\t")[1] for line in stdout.splitlines()[1:]] == names


def test_models_as_json_say_where_each_fact_is_from():
    """A list of objects with numbers as numbers, and the source of each row."""
    _, stdout, _ = embedkit_("models", "--json", "openai:text-embedding-3")
    small, large = json.loads(stdout)

    assert small == {
        "provider": "openai", "model": "text-embedding-3-small", "dimensions": 1536,
        "widths": {"least": 1, "most": 1536},
        "max_tokens": 8192, "price": 0.02, "batch_price": 0.01, "source": small["source"],
    }  # fmt: skip
    assert large["price"] == 0.13
    assert small["source"]


def test_no_model_that_matches_is_said():
    """On stderr, with the providers there are; JSON stays JSON."""
    code, stdout, stderr = embedkit_("models", "nothing-like-it")

    assert (code, stdout) == (0, "")
    assert stderr.startswith("embedkit: no model matches (there are models of ")
    assert json.loads(embedkit_("models", "nothing-like-it", "--json")[1]) == []
