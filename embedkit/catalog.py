"""Models as data: width, Matryoshka widths, token limit, price, prefixes; each with its source and date.

A model that is not here works all the same: it only has no price, no prefix and no client-side cut.
"""

from __future__ import annotations

from collections.abc import Sequence

from ._types import ModelFacts

_OPENAI = "OpenAI API reference and developers.openai.com model pages, 2026-11"
_OLLAMA = "Ollama library pages, cross-checked with MTEB 2.26.24, 2026-11"
_COHERE = "Cohere's model and pricing pages, 2026-11"
_COHERE_V3 = "Cohere's model pages; price of litellm 1.109.1, as Cohere lists none any more, 2026-11"
_ATLAS = "Nomic Atlas API reference, 2026-11"
_VOYAGE = "docs.voyageai.com, embeddings and pricing pages, 2026-10"
_JINA = "api.jina.ai OpenAPI, version 2026.04.02; a price is published for v3 alone, in its /v1/models example"
_PERPLEXITY = "perplexityai 0.46.1 and Perplexity's pricing page, 2026-10"
_CLOUDFLARE = "Workers AI model and pricing pages; widths and limits of the model cards, 2026-11"
_HUB = "model cards and the records of MTEB, 2026-11"
_SEARCH = "Represent this sentence for searching relevant passages: "
_NOMIC = {
    "query": "search_query: ",
    "document": "search_document: ",
    "classification": "classification: ",
    "clustering": "clustering: ",
}
_E5 = {  # symmetric uses take the query's prefix (intfloat/e5-base-v2, model card, FAQ 1)
    "query": "query: ",
    "document": "passage: ",
    "classification": "query: ",
    "clustering": "query: ",
    "similarity": "query: ",
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


def _ollama(
    name: str, width: int, tokens: int, prefixes: dict[str, str] | None = None, widths: tuple[int, ...] = ()
) -> ModelFacts:
    return ModelFacts(name=name, dimensions=width, widths=widths, tokens=tokens, prefixes=prefixes or {}, source=_OLLAMA)


def _hub(name: str, width: int, tokens: int, prefixes: dict[str, str] | None = None, widths: Sequence[int] = ()) -> ModelFacts:
    return ModelFacts(name=name, dimensions=width, widths=widths, tokens=tokens, prefixes=prefixes or {}, source=_HUB)


def _voyage(
    name: str, price: float, width: int = 1024, widths: tuple[int, ...] = (256, 512, 2048), tokens: int = 32_000
) -> ModelFacts:
    return ModelFacts(name=name, dimensions=width, widths=widths, tokens=tokens, price=price, source=_VOYAGE)


def _jina(name: str, width: int, tokens: int | None = None, price: float | None = None) -> ModelFacts:
    return ModelFacts(name=name, dimensions=width, widths=range(1, width + 1), tokens=tokens, price=price, source=_JINA)


def _pplx(name: str, price: float, width: int | None = None) -> ModelFacts:
    widths = range(128, width + 1) if width else ()
    return ModelFacts(name=name, dimensions=width, widths=widths, tokens=32_000, price=price, source=_PERPLEXITY)


def _workers(
    name: str,
    width: int,
    tokens: int | None = None,
    price: float | None = None,
    prefixes: dict[str, str] | None = None,
    widths: Sequence[int] = (),
) -> ModelFacts:
    return ModelFacts(
        name=name, dimensions=width, widths=widths, tokens=tokens, price=price, prefixes=prefixes or {}, source=_CLOUDFLARE
    )


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
    "cohere": (
        # Pro and Fast share one space: index with one, ask with the other.
        ModelFacts(
            name="embed-v5.0-pro", dimensions=2048, widths=(256, 512, 768, 1024, 1536), tokens=128_000, price=0.12,
            source=_COHERE,
        ),
        ModelFacts(
            name="embed-v5.0-fast", dimensions=2048, widths=(256, 512, 768, 1024, 1536), tokens=128_000, price=0.08,
            source=_COHERE,
        ),
        ModelFacts(name="embed-v4.0", dimensions=1536, widths=(256, 512, 1024), tokens=128_000, price=0.12, source=_COHERE),
        ModelFacts(name="embed-english-v3.0", dimensions=1024, tokens=512, price=0.10, source=_COHERE_V3),
        ModelFacts(name="embed-multilingual-v3.0", dimensions=1024, tokens=512, price=0.10, source=_COHERE_V3),
        ModelFacts(name="embed-english-light-v3.0", dimensions=384, tokens=512, price=0.10, source=_COHERE_V3),
        ModelFacts(name="embed-multilingual-light-v3.0", dimensions=384, tokens=512, price=0.10, source=_COHERE_V3),
    ),
    "nomic": (  # no price is published
        ModelFacts(name="nomic-embed-text-v1.5", dimensions=768, widths=(64, 128, 256, 512), tokens=8192, source=_ATLAS),
        ModelFacts(name="nomic-embed-text-v1", dimensions=768, tokens=8192, source=_ATLAS),
    ),
    "voyage": (  # the models of generation 4 share one space: index with the large one, ask with the light one
        _voyage("voyage-4-large", 0.12),
        _voyage("voyage-4", 0.06),
        _voyage("voyage-4-lite", 0.02),
        _voyage("voyage-code-4", 0.12, widths=(256, 512)),  # 2048 is unconfirmed
        _voyage("voyage-context-4", 0.12, tokens=120_000),
        _voyage("voyage-multimodal-3.5", 0.12),  # of text; pictures are billed by the pixel
        _voyage("voyage-3-large", 0.18),
        _voyage("voyage-3.5", 0.06),
        _voyage("voyage-3.5-lite", 0.02),
        _voyage("voyage-code-3", 0.18),
        _voyage("voyage-context-3", 0.18),
        _voyage("voyage-3", 0.06, widths=()),
        _voyage("voyage-3-lite", 0.02, 512, ()),
        _voyage("voyage-finance-2", 0.12, widths=()),
        _voyage("voyage-law-2", 0.12, widths=(), tokens=16_000),
        _voyage("voyage-multilingual-2", 0.12, widths=()),
        _voyage("voyage-code-2", 0.12, 1536, (), 16_000),
        _voyage("voyage-large-2", 0.12, 1536, (), 16_000),
    ),
    "jina": (
        _jina("jina-embeddings-v5-text-small", 1024, 32_768),
        _jina("jina-embeddings-v5-text-nano", 768, 8192),
        _jina("jina-embeddings-v4", 2048, 32_768),
        _jina("jina-embeddings-v3", 1024, 8192, 0.05),
        _jina("jina-code-embeddings-0.5b", 896),
        _jina("jina-code-embeddings-1.5b", 1536),
    ),
    "perplexity": (
        _pplx("pplx-embed-v1-0.6b", 0.004, 1024),
        _pplx("pplx-embed-v1-4b", 0.03, 2560),
        _pplx("pplx-embed-context-v1-0.6b", 0.008),  # their widths are not on the page
        _pplx("pplx-embed-context-v1-4b", 0.05),
    ),
    "isaacus": (ModelFacts(name="kanon-2-embedder", source="isaacus 0.22.1; neither width nor price is confirmed, 2026-11"),),
    "zeroentropy": (  # no price is published
        ModelFacts(
            name="zembed-1", dimensions=2560, widths=(40, 80, 160, 320, 640, 1280), source="zeroentropy 0.1.0a11, 2026-11"
        ),
    ),
    "cloudflare": (
        _workers("@cf/baai/bge-small-en-v1.5", 384, 512, 0.02, {"query": _SEARCH}),
        _workers("@cf/baai/bge-base-en-v1.5", 768, 512, 0.067, {"query": _SEARCH}),
        _workers("@cf/baai/bge-large-en-v1.5", 1024, 512, 0.204, {"query": _SEARCH}),
        _workers("@cf/baai/bge-m3", 1024, 8192, 0.012),
        _workers("@cf/qwen/qwen3-embedding-0.6b", 1024, None, 0.012, None, range(32, 1025)),
        _workers("@cf/pfnet/plamo-embedding-1b", 2048, None, 0.019),
        _workers("@cf/google/embeddinggemma-300m", 768, 2048, None, _GEMMA, (128, 256, 512)),
    ),
    "huggingface": (  # billed by compute time, so without a price per token
        _hub("sentence-transformers/all-MiniLM-L6-v2", 384, 256),
        _hub("sentence-transformers/all-mpnet-base-v2", 768, 384),
        _hub("intfloat/e5-small-v2", 384, 512, _E5),
        _hub("intfloat/e5-base-v2", 768, 512, _E5),
        _hub("intfloat/e5-large-v2", 1024, 512, _E5),
        _hub("intfloat/multilingual-e5-small", 384, 512, _E5),
        _hub("intfloat/multilingual-e5-base", 768, 512, _E5),
        _hub("intfloat/multilingual-e5-large", 1024, 512, _E5),
        _hub("BAAI/bge-small-en-v1.5", 384, 512, {"query": _SEARCH}),
        _hub("BAAI/bge-base-en-v1.5", 768, 512, {"query": _SEARCH}),
        _hub("BAAI/bge-large-en-v1.5", 1024, 512, {"query": _SEARCH}),
        _hub("BAAI/bge-m3", 1024, 8192),
        _hub("nomic-ai/nomic-embed-text-v1", 768, 8192, _NOMIC),
        _hub("nomic-ai/nomic-embed-text-v1.5", 768, 8192, _NOMIC, (64, 128, 256, 512)),
        _hub("nomic-ai/nomic-embed-text-v2-moe", 768, 512, _NOMIC, (256,)),
        _hub("mixedbread-ai/mxbai-embed-large-v1", 1024, 512, {"query": _SEARCH}),
        _hub("Snowflake/snowflake-arctic-embed-s", 384, 512, {"query": _SEARCH}),
        _hub("Snowflake/snowflake-arctic-embed-m", 768, 512, {"query": _SEARCH}),
        _hub("Snowflake/snowflake-arctic-embed-l", 1024, 512, {"query": _SEARCH}),
        _hub("Snowflake/snowflake-arctic-embed-l-v2.0", 1024, 8192, {"query": "query: "}, (256,)),
        _hub("google/embeddinggemma-300m", 768, 2048, _GEMMA, (128, 256, 512)),
        _hub("Qwen/Qwen3-Embedding-0.6B", 1024, 32768, _QWEN3, range(32, 1025)),
        _hub("Qwen/Qwen3-Embedding-4B", 2560, 32768, _QWEN3, range(32, 2561)),
        _hub("Qwen/Qwen3-Embedding-8B", 4096, 32768, _QWEN3, range(32, 4097)),
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
