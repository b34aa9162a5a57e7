"""Models as data: width, Matryoshka widths, token limit, price, prefixes; each with its source and date.

A model that is not here works all the same: it only has no price, no prefix and no client-side cut.
"""

from __future__ import annotations

from ._types import ModelFacts

_OPENAI = "OpenAI API reference and developers.openai.com model pages, 2026-11"
_OLLAMA = "Ollama library pages, cross-checked with MTEB 2.26.24, 2026-11"
_SEARCH = "Represent this sentence for searching relevant passages: "
_NOMIC = {
    "query": "search_query: ",
    "document": "search_document: ",
    "classification": "classification: ",
    "clustering": "clustering: ",
}
_GEMMA = {
    "query": "task: search result | query: ",
    "document": "title: none | text: ",
    "classification": "task: classification | query: ",
    "clustering": "task: clustering | query: ",
    "similarity": "task: sentence similarity | query: ",
}
_QWEN3 = {
    "query": "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:",
}


def _ollama(name: str, width: int, tokens: int, prefixes: dict[str, str] | None = None, widths: tuple[int, ...] = ()) -> ModelFacts:
    return ModelFacts(name=name, dimensions=width, widths=widths, tokens=tokens, prefixes=prefixes or {}, source=_OLLAMA)


MODELS: dict[str, tuple[ModelFacts, ...]] = {
    "openai": (
        ModelFacts(name="text-embedding-3-small", dimensions=1536, widths=range(1, 1537), tokens=8192, price=0.02, source=_OPENAI),
        ModelFacts(name="text-embedding-3-large", dimensions=3072, widths=range(1, 3073), tokens=8192, price=0.13, source=_OPENAI),
        ModelFacts(name="text-embedding-ada-002", dimensions=1536, tokens=8192, price=0.10, source=_OPENAI),
    ),
    "ollama": (
        _ollama("nomic-embed-text", 768, 2048, _NOMIC, (64, 128, 256, 512)),
        _ollama("nomic-embed-text-v2-moe", 768, 512, _NOMIC, (256,)),
        _ollama("mxbai-embed-large", 1024, 512, {"query": _SEARCH}),
        _ollama("all-minilm", 384, 256),
        _ollama("bge-m3", 1024, 8192),
        _ollama("bge-large", 1024, 512, {"query": _SEARCH}),
        _ollama("snowflake-arctic-embed", 1024, 512, {"query": _SEARCH}),
        _ollama("snowflake-arctic-embed2", 1024, 8192, {"query": "query: "}, (256,)),
        _ollama("embeddinggemma", 768, 2048, _GEMMA, (128, 256, 512)),
        _ollama("qwen3-embedding", 1024, 32768, _QWEN3),
        _ollama("granite-embedding", 384, 512),
        _ollama("paraphrase-multilingual", 768, 512),
    ),
    "local": (
        ModelFacts(
            name="all-minilm-l6-v2", dimensions=384, tokens=256, price=0.0,
            source="sentence-transformers/all-MiniLM-L6-v2 model card, 2026-11",
        ),
    ),
}  # fmt: skip


def facts(provider: str, model: str) -> ModelFacts | None:
    """What is known of a model at a provider; None for a model that is not in the catalogue. A tag (":latest") does not matter."""
    found = MODELS.get(provider, ())
    return next((each for each in found if each.name == model), None) or next(
        (each for each in found if ":" in model and each.name == model.rpartition(":")[0]), None
    )
