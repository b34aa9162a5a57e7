"""MTEB: `EmbedkitEncoder` is an encoder of mteb. To install: `pip install '.[mteb]'`.

>>> import mteb
>>> from embedkit.contrib.mteb import EmbedkitEncoder, with_usage
>>> encoder = EmbedkitEncoder("local:all-minilm-l6-v2")
>>> encoder.mteb_model_meta.name
'local/all-minilm-l6-v2'
>>> encoder.usage.requests
0
>>> encoder = EmbedkitEncoder("openai:text-embedding-3-small", dimensions=256)  # doctest: +SKIP
>>> result = mteb.evaluate(encoder, mteb.get_task("STSBenchmark"))  # doctest: +SKIP
>>> with_usage(result, encoder)["usage"]  # doctest: +SKIP
{'STSBenchmark': {'tokens': 35010, 'requests': 2, 'cost': 0.0007002}}
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any, Literal

import mteb
import numpy as np
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.types import PromptType

from embedkit import ConfigError, Embedder, Usage, catalog

from .._values import shown
from ._client import Client, sum_of
from ._secrets import without_secrets

Purpose = Literal["query", "document", "classification", "clustering", "similarity"]
# MTEB's kinds of task (TaskType of its abstasks/task_metadata.py) → what a text is for; in the others, nobody says.
PURPOSES: dict[str, Purpose] = {
    "BitextMining": "similarity",
    "Classification": "classification",
    "Clustering": "clustering",
    "MultilabelClassification": "classification",
    "PairClassification": "similarity",
    "Regression": "classification",
    "STS": "similarity",
    "Summarization": "similarity",
}
COMPONENTS = ("float32", "int8")  # types whose cosine is that of their numbers, as MTEB takes it


class EmbedkitEncoder(AbsEncoder):  # type: ignore[misc, unused-ignore]
    """Any model of embedkit as an encoder of MTEB.

    Queries and documents go out as such; the texts of other tasks as what the kind of task says (`PURPOSES`), where the
    model has that: an STS task as "similarity". A prompt of yours for a task, its kind or "query" and "document"
    (MTEB's own order) goes before every text instead, and no input type is sent with it.

    Args:
        model: "provider:model"; None: EMBEDKIT_MODEL if set, else the bundled model. Or an `embedkit.Embedder`.
        prompts: name of a task, "NAME-query", kind of task, "query" or "document" → what goes before the text.
        **settings: the other keywords of `embedkit.connect`. `input_type` holds for every text. `dtype` is float32 or
            int8: MTEB compares numbers, and packed bits are none.

    Attributes:
        model: "provider:model".
        embedder: the `embedkit.Embedder` underneath.
        usages: task → tokens, requests and dollars that it took so far.

    A text that cannot be embedded ends the task with its error: a score of fewer texts is none.

    Raises:
        ConfigError: what `embedkit.connect` refuses, and another dtype. Calls raise as `embedkit.Embedder.embed` does.
    """

    def __init__(
        self, model: str | Embedder | None = None, *, prompts: dict[str, str] | None = None, **settings: Any
    ) -> None:
        self._client = Client(model, settings)
        self.model: str = self._client.model
        self.embedder: Embedder = self._client.embedder
        options = self.embedder.options
        if options.dtype not in COMPONENTS:
            msg = f"dtype={options.dtype!r}: MTEB compares numbers; {' or '.join(COMPONENTS)}"
            raise ConfigError(msg)
        if prompts is not None and not isinstance(prompts, Mapping):
            msg = f"prompts={shown(prompts)}: pass a mapping, like {{'query': 'Find: '}}"
            raise ConfigError(msg)
        self.model_prompts = prompts
        self.usages: dict[str, Usage] = {}
        self._unknown: set[Purpose] = set()  # that this model does not have
        self._lock = threading.Lock()
        self.mteb_model_meta: ModelMeta = _meta(self.embedder, prompts)

    @property
    def usage(self) -> Usage:
        """Tokens, requests and dollars of all calls so far."""
        return self._client.usage

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,
        hf_split: str,  # noqa: ARG002 (MTEB says more than is needed)
        hf_subset: str,  # noqa: ARG002
        prompt_type: PromptType | None = None,
        **kwargs: Any,  # noqa: ARG002 (its batch size and progress bar: batches are made here)
    ) -> Any:
        """The vectors of all texts of a loader, float32 of shape (n, d)."""
        texts = [text for batch in inputs for text in batch["text"]]
        if not texts:
            return np.empty((0, 0), np.float32)
        name = self.get_prompt_name(task_metadata, prompt_type)
        prompt = (self.model_prompts or {}).get(name) if name else None
        if prompt is not None:
            texts = [prompt + text for text in texts]
        purpose = None if prompt is not None else purpose_of(task_metadata.type, prompt_type)
        made = self._made(texts, purpose)
        with self._lock:
            self.usages[task_metadata.name] = sum_of(self.usages.get(task_metadata.name, Usage()), made.usage)
        return made.vectors.astype(np.float32)

    def _made(self, texts: list[str], purpose: Purpose | None) -> Any:
        """Embed the texts for a purpose; without one where the model has no such purpose, which sends nothing."""
        if purpose is None or purpose in self._unknown or self.embedder.options.input_type is not None:
            return self._client.embed(texts, None)
        try:
            return self._client.embed(texts, None, input_type=purpose)
        except ConfigError:
            if purpose in {"query", "document"}:  # which every model takes
                raise
            made = self._client.embed(texts, None)
            self._unknown.add(purpose)
            return made

    def __repr__(self) -> str:
        return f"EmbedkitEncoder({self.embedder!r})"


def purpose_of(kind: str, prompt_type: PromptType | None) -> Purpose | None:
    """What a text is for: MTEB's own word where it says query or document, else what the kind of task says."""
    if prompt_type is not None:
        return "query" if PromptType(prompt_type) is PromptType.query else "document"
    return PURPOSES.get(kind)


def with_usage(result: mteb.results.ModelResult, encoder: Any) -> dict[str, Any]:
    """A result of `mteb.evaluate` as JSON has it, and under "usage" what each of its tasks took.

    A task whose scores came from MTEB's own cache took nothing, and is not there.
    """
    usage = {
        each.task_name: {name: getattr(encoder.usages[each.task_name], name) for name in ("tokens", "requests", "cost")}
        for each in result.task_results
        if each.task_name in encoder.usages
    }
    return {**result.model_dump(mode="json"), "usage": usage}


def _meta(embedder: Embedder, prompts: dict[str, str] | None) -> ModelMeta:
    """What MTEB wants to know. Options that change vectors are part of it, so that its cache keeps them apart."""
    facts = catalog.facts(embedder.provider, embedder.model)
    options = embedder.options
    experiment = {
        name: getattr(options, name)
        for name in ("input_type", "dimensions", "dtype", "truncate", "normalize")
        if getattr(options, name) not in (None, "float32")
    }
    if options.extra:
        experiment["extra"] = json.dumps(without_secrets(options.extra), sort_keys=True, default=str)
    if embedder.long_text is not None:
        experiment["long_text"] = embedder.long_text
    if prompts:
        experiment["prompts"] = "; ".join(f"{name}={text}" for name, text in sorted(prompts.items()))
    return ModelMeta(
        loader=None, name=f"{embedder.provider}/{embedder.model.replace('/', '__')}", revision="embedkit",
        release_date=None, languages=None, n_parameters=None, memory_usage_mb=None,
        max_tokens=None if facts is None else facts.tokens,
        embed_dim=options.dimensions or (None if facts is None else facts.dimensions),
        license=None, open_weights=None, public_training_code=None, public_training_data=None, framework=["API"],
        similarity_fn_name=ScoringFunction.COSINE, use_instructions=None, training_datasets=None,
        experiment_kwargs=experiment or None,
    )  # fmt: skip
