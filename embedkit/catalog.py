"""Models as data: width, token limit, price, Matryoshka widths,
prefixes; each block with its source and the month it was read.

A row is (name, components, most tokens per text, dollars per million tokens); what else is known follows by
name. None: not published. A model that is not here works all the same: it only has no price, no prefix and no
client-side cut. Weights that anyone may serve are described once, under their Hub names; any host or server
that serves them by that name (or its last part) gets widths and prefixes from there, and a host's own block
adds what differs: its names, its prices, its limits.

The prefixes are what `input_type` becomes where a model family
wants it in the text itself, word for word, spaces included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ._types import QUANTIZED, ModelFacts

SEARCH = {
    "query": "Represent this sentence for searching relevant passages: "
}  # BGE (English), mxbai, Snowflake Arctic 1
ARCTIC_2 = {"query": "query: "}
NOMIC = {
    "query": "search_query: ",
    "document": "search_document: ",
    "classification": "classification: ",
    "clustering": "clustering: ",
}
E5 = {  # symmetric uses take the query's prefix (intfloat/e5-base-v2, model card, FAQ 1)
    "query": "query: ",
    "document": "passage: ",
    "classification": "query: ",
    "clustering": "query: ",
    "similarity": "query: ",
}
GEMMA = {
    "query": "task: search result | query: ",
    "document": "title: none | text: ",
    "classification": "task: classification | query: ",
    "clustering": "task: clustering | query: ",
    "similarity": "task: sentence similarity | query: ",
}
_TASK = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
QWEN3 = {"query": _TASK}  # no space after the colon (Ollama library page; Qwen3-Embedding, model card)
E5_INSTRUCT = {"query": f"{_TASK} "}  # one space (multilingual-e5-large-instruct, model card)


def _row(name: str, width: int | None, tokens: int | None, price: float | None = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "dimensions": width, "tokens": tokens, "price": price, **more}


def _block(source: str, *rows: Mapping[str, Any]) -> tuple[ModelFacts, ...]:
    return tuple(ModelFacts(**{"source": source, **row}) for row in rows)


WEIGHTS = _block(
    "model cards and the records of MTEB 2.26.24, 2026-11",
    _row("sentence-transformers/all-MiniLM-L6-v2", 384, 256),
    _row("sentence-transformers/all-mpnet-base-v2", 768, 384),
    _row("intfloat/e5-small-v2", 384, 512, prefixes=E5),
    _row("intfloat/e5-base-v2", 768, 512, prefixes=E5),
    _row("intfloat/e5-large-v2", 1024, 512, prefixes=E5),
    _row("intfloat/multilingual-e5-small", 384, 512, prefixes=E5),
    _row("intfloat/multilingual-e5-base", 768, 512, prefixes=E5),
    _row("intfloat/multilingual-e5-large", 1024, 512, prefixes=E5),
    _row("intfloat/multilingual-e5-large-instruct", 1024, 514, prefixes=E5_INSTRUCT),
    _row("BAAI/bge-small-en-v1.5", 384, 512, prefixes=SEARCH),
    _row("BAAI/bge-base-en-v1.5", 768, 512, prefixes=SEARCH),
    _row("BAAI/bge-large-en-v1.5", 1024, 512, prefixes=SEARCH),
    _row("BAAI/bge-m3", 1024, 8192),
    _row("nomic-ai/nomic-embed-text-v1", 768, 8192, prefixes=NOMIC),
    _row("nomic-ai/nomic-embed-text-v1.5", 768, 8192, prefixes=NOMIC, widths=(64, 128, 256, 512)),
    _row("nomic-ai/nomic-embed-text-v2-moe", 768, 512, prefixes=NOMIC, widths=(256,)),
    _row("mixedbread-ai/mxbai-embed-large-v1", 1024, 512, prefixes=SEARCH),
    _row("Snowflake/snowflake-arctic-embed-s", 384, 512, prefixes=SEARCH),
    _row("Snowflake/snowflake-arctic-embed-m", 768, 512, prefixes=SEARCH),
    _row("Snowflake/snowflake-arctic-embed-l", 1024, 512, prefixes=SEARCH),
    _row("Snowflake/snowflake-arctic-embed-l-v2.0", 1024, 8192, prefixes=ARCTIC_2, widths=(256,)),
    _row("google/embeddinggemma-300m", 768, 2048, prefixes=GEMMA, widths=(128, 256, 512)),
    _row("Qwen/Qwen3-Embedding-0.6B", 1024, 32_768, prefixes=QWEN3, widths=range(32, 1025)),
    _row("Qwen/Qwen3-Embedding-4B", 2560, 32_768, prefixes=QWEN3, widths=range(32, 2561)),
    _row("Qwen/Qwen3-Embedding-8B", 4096, 32_768, prefixes=QWEN3, widths=range(32, 4097)),
)


def _served(weights: str, price: float | None = None, **more: Any) -> dict[str, Any]:
    """A row for open weights that a host serves, under their Hub name or another: `name=`."""
    known = next(each for each in WEIGHTS if each.name == weights)
    return {**msgspec.structs.asdict(known), "price": price, **more}


def _hosted(source: str, *rows: Mapping[str, Any]) -> tuple[ModelFacts, ...]:
    return _block("", *({**row, "source": f"{source}; weights as on their model cards"} for row in rows))


_QWEN3, _BGE = "Qwen/Qwen3-Embedding-", "BAAI/bge-"

# What a batch job costs, as a part of the price, and of which models; None: of all.
BATCH_PRICES: dict[str, tuple[float, frozenset[str] | None]] = {
    "openai": (0.5, None),  # platform.openai.com/docs/guides/batch
    "mistral": (0.5, None),  # docs.mistral.ai, capabilities/batch
    # ai.google.dev/gemini-api/docs/batch-api; no page has a price for the second generation.
    "gemini": (0.5, frozenset({"gemini-embedding-001"})),
    # docs.voyageai.com/docs/batch-inference: a third off, with this list.
    "voyage": (0.67, frozenset({
        "voyage-4-large", "voyage-4", "voyage-4-lite", "voyage-3-large", "voyage-3.5", "voyage-3.5-lite",
        "voyage-context-3", "voyage-code-3", "voyage-code-2",
    })),
}  # fmt: skip


def _in_batches(provider: str, known: tuple[ModelFacts, ...]) -> tuple[ModelFacts, ...]:
    """The models of a provider with their prices in batch jobs."""
    part, models = BATCH_PRICES.get(provider, (1.0, frozenset()))
    return tuple(
        msgspec.structs.replace(each, batch_price=round(each.price * part, 6))
        if each.price is not None and (models is None or each.name in models)
        else each
        for each in known
    )


MODELS: dict[str, tuple[ModelFacts, ...]] = {
    "openai": _block(
        "OpenAI API reference and developers.openai.com model pages, 2026-11",
        _row("text-embedding-3-small", 1536, 8192, 0.02, widths=range(1, 1537)),
        _row("text-embedding-3-large", 3072, 8192, 0.13, widths=range(1, 3073)),
        _row("text-embedding-ada-002", 1536, 8192, 0.10),
    ),
    "azureaifoundry": _block(  # prices differ by region
        "exchanges recorded 2026-08; Cohere's model pages, 2026-11",
        _row("Cohere-embed-v3-english", 1024, 512),
        _row("Cohere-embed-v3-multilingual", 1024, 512),
    ),
    "cohere": (  # Pro and Fast share one space: index with one, ask with the other
        *_block(
            "Cohere's model and pricing pages, 2026-11",
            _row("embed-v5.0-pro", 2048, 128_000, 0.12, widths=(256, 512, 768, 1024, 1536)),
            _row("embed-v5.0-fast", 2048, 128_000, 0.08, widths=(256, 512, 768, 1024, 1536)),
            _row("embed-v4.0", 1536, 128_000, 0.12, widths=(256, 512, 1024)),
        ),
        *_block(
            "Cohere's model pages; price of litellm 1.109.1, as Cohere lists none any more, 2026-11",
            _row("embed-english-v3.0", 1024, 512, 0.10),
            _row("embed-multilingual-v3.0", 1024, 512, 0.10),
            _row("embed-english-light-v3.0", 384, 512, 0.10),
            _row("embed-multilingual-light-v3.0", 384, 512, 0.10),
        ),
    ),
    "nomic": _block(  # no price is published
        "Nomic Atlas API reference, 2026-11",
        _row("nomic-embed-text-v1.5", 768, 8192, widths=(64, 128, 256, 512)),
        _row("nomic-embed-text-v1", 768, 8192),
    ),
    "voyage": _block(  # the models of generation 4 share one space: index with the large one, ask with the light one
        "docs.voyageai.com, embeddings and pricing pages, 2026-10",
        _row("voyage-4-large", 1024, 32_000, 0.12, widths=(256, 512, 2048)),
        _row("voyage-4", 1024, 32_000, 0.06, widths=(256, 512, 2048)),
        _row("voyage-4-lite", 1024, 32_000, 0.02, widths=(256, 512, 2048)),
        _row("voyage-code-4", 1024, 32_000, 0.12, widths=(256, 512)),  # 2048 is unconfirmed
        _row("voyage-context-4", 1024, 120_000, 0.12, widths=(256, 512, 2048)),
        _row("voyage-multimodal-3.5", 1024, 32_000, 0.12,
         widths=(256, 512, 2048)),  # of text; pictures are billed by the pixel
        _row("voyage-3-large", 1024, 32_000, 0.18, widths=(256, 512, 2048)),
        _row("voyage-3.5", 1024, 32_000, 0.06, widths=(256, 512, 2048)),
        _row("voyage-3.5-lite", 1024, 32_000, 0.02, widths=(256, 512, 2048)),
        _row("voyage-code-3", 1024, 32_000, 0.18, widths=(256, 512, 2048)),
        _row("voyage-context-3", 1024, 32_000, 0.18, widths=(256, 512, 2048)),
        _row("voyage-3", 1024, 32_000, 0.06),
        _row("voyage-3-lite", 512, 32_000, 0.02),
        _row("voyage-finance-2", 1024, 32_000, 0.12),
        _row("voyage-law-2", 1024, 16_000, 0.12),
        _row("voyage-multilingual-2", 1024, 32_000, 0.12),
        _row("voyage-code-2", 1536, 16_000, 0.12),
        _row("voyage-large-2", 1536, 16_000, 0.12),
    ),
    "jina": _block(
        "api.jina.ai OpenAPI, version 2026.04.02, read 2026-11; only v3 has a price, in the example of /v1/models",
        _row("jina-embeddings-v5-text-small", 1024, 32_768, widths=range(1, 1025)),
        _row("jina-embeddings-v5-text-nano", 768, 8192, widths=range(1, 769)),
        _row("jina-embeddings-v4", 2048, 32_768, widths=range(1, 2049)),
        _row("jina-embeddings-v3", 1024, 8192, 0.05, widths=range(1, 1025)),
        _row("jina-code-embeddings-0.5b", 896, None, widths=range(1, 897)),
        _row("jina-code-embeddings-1.5b", 1536, None, widths=range(1, 1537)),
    ),
    "perplexity": _block(
        "perplexityai 0.46.1 and Perplexity's pricing page, 2026-10",
        _row("pplx-embed-v1-0.6b", 1024, 32_000, 0.004, widths=range(128, 1025)),
        _row("pplx-embed-v1-4b", 2560, 32_000, 0.03, widths=range(128, 2561)),
        _row("pplx-embed-context-v1-0.6b", None, 32_000, 0.008),  # their widths are not on the page
        _row("pplx-embed-context-v1-4b", None, 32_000, 0.05),
    ),
    "isaacus": _block("isaacus 0.22.1; neither width nor price is confirmed, 2026-11",
     _row("kanon-2-embedder", None, None)),
    "zeroentropy": _block(  # no price is published
        "zeroentropy 0.1.0a11, 2026-11",
        _row("zembed-1", 2560, None, widths=(40, 80, 160, 320, 640, 1280)),
    ),
    "cloudflare": _block(
        "Workers AI model and pricing pages; widths and limits of the model cards, 2026-11",
        _row("@cf/baai/bge-small-en-v1.5", 384, 512, 0.02, prefixes=SEARCH),
        _row("@cf/baai/bge-base-en-v1.5", 768, 512, 0.067, prefixes=SEARCH),
        _row("@cf/baai/bge-large-en-v1.5", 1024, 512, 0.204, prefixes=SEARCH),
        _row("@cf/baai/bge-m3", 1024, 8192, 0.012),
        _row("@cf/qwen/qwen3-embedding-0.6b", 1024, None, 0.012, widths=range(32, 1025)),
        _row("@cf/pfnet/plamo-embedding-1b", 2048, None, 0.019),
        _row("@cf/google/embeddinggemma-300m", 768, 2048, prefixes=GEMMA, widths=(128, 256, 512)),
    ),
    "gemini": _block(  # the first generation takes the task as a field, so it has no prefixes
        "ai.google.dev embeddings page and google-genai 3.4.0, 2026-11",
        _row("gemini-embedding-001", 3072, 2048, 0.15, widths=range(128, 3073)),
        _row("gemini-embedding-2", 3072, 8192, 0.20, prefixes=GEMMA, widths=range(128, 3073)),
        _row("gemini-embedding-2-preview", 3072, 8192, 0.20, prefixes=GEMMA, widths=range(128, 3073)),
    ),
    "vertex": _block(  # text-embedding-005 and its sibling are billed by characters, so without a price per token
        "Vertex AI embeddings pages, 2026-11",
        _row("gemini-embedding-001", 3072, 2048, 0.15, widths=range(128, 3073)),
        _row("gemini-embedding-2", 3072, 8192, 0.20, prefixes=GEMMA, widths=range(128, 3073)),
        _row("text-embedding-005", 768, 2048),
        _row("text-multilingual-embedding-002", 768, 2048),
    ),
    "bedrock": _block(
        "Amazon Bedrock user guide; prices of litellm 1.109.1, 2026-11",
        _row("amazon.titan-embed-text-v2:0", 1024, 8192, 0.02, widths=(256, 512)),
        _row("amazon.titan-embed-text-v1", 1536, 8192, 0.10),
        _row("amazon.nova-2-multimodal-embeddings-v1:0", 3072, 8172, 0.135, widths=(256, 384, 1024)),
        _row("cohere.embed-v4:0", 1536, 128_000, 0.12, widths=(256, 512, 1024), dtypes=QUANTIZED),
        _row("cohere.embed-english-v3", 1024, 512, 0.10, dtypes=QUANTIZED),
        _row("cohere.embed-multilingual-v3", 1024, 512, 0.10, dtypes=QUANTIZED),
    ),
    "snowflake": _block(
        "litellm 1.109.1 and model cards, 2026-11",
        _row("snowflake-arctic-embed-l-v2.0", 1024, 8192, 0.07, widths=(256,)),
        _row("snowflake-arctic-embed-m", 768, 512),
        _row("snowflake-arctic-embed-m-v1.5", 768, 512),
        _row("e5-base-v2", 768, 512),
    ),
    "watsonx": _block(  # no price per token in the sources read
        "IBM watsonx.ai supported embedding models page and model cards, 2026-11",
        _row("ibm/granite-embedding-278m-multilingual", 768, 512),
        _row("ibm/slate-125m-english-rtrvr-v2", 768, 512),
        _row("ibm/slate-30m-english-rtrvr-v2", 384, 512),
        _row("intfloat/multilingual-e5-large", 1024, 512, prefixes=E5),
        _row("sentence-transformers/all-minilm-l6-v2", 384, 256),
    ),
    "ollama": _block(
        "Ollama library pages, cross-checked with MTEB 2.26.24, 2026-11",
        _row("nomic-embed-text", 768, 2048, prefixes=NOMIC, widths=(64, 128, 256, 512)),
        _row("nomic-embed-text-v2-moe", 768, 512, prefixes=NOMIC, widths=(256,)),
        _row("mxbai-embed-large", 1024, 512, prefixes=SEARCH),
        _row("all-minilm", 384, 256),
        _row("bge-m3", 1024, 8192),
        _row("bge-large", 1024, 512, prefixes=SEARCH),
        _row("snowflake-arctic-embed", 1024, 512, prefixes=SEARCH),
        _row("snowflake-arctic-embed:22m", 384, 512, prefixes=SEARCH),
        _row("snowflake-arctic-embed:33m", 384, 512, prefixes=SEARCH),
        _row("snowflake-arctic-embed:110m", 768, 512, prefixes=SEARCH),
        _row("snowflake-arctic-embed:137m", 768, 2048, prefixes=SEARCH),
        _row("snowflake-arctic-embed2", 1024, 8192, prefixes=ARCTIC_2, widths=(256,)),
        _row("embeddinggemma", 768, 2048, prefixes=GEMMA, widths=(128, 256, 512)),
        _row("qwen3-embedding", None, 32_768, prefixes=QWEN3),  # which size an untagged name means is not written down
        _row("qwen3-embedding:0.6b", 1024, 32_768, prefixes=QWEN3, widths=range(32, 1025)),
        _row("qwen3-embedding:4b", 2560, 32_768, prefixes=QWEN3, widths=range(32, 2561)),
        _row("qwen3-embedding:8b", 4096, 32_768, prefixes=QWEN3, widths=range(32, 4097)),
        _row("granite-embedding", 384, 512),
        _row("granite-embedding:278m", 768, 512),
        _row("paraphrase-multilingual", 768, 512),
    ),
    "huggingface": WEIGHTS,  # billed by compute time, so without a price per token
    # --- hosts that speak the OpenAI dialect ---
    "mistral": _block(
        "platform-docs-public of Mistral, 2026-08; price files of 2026-10",
        _row("mistral-embed", 1024, 8192, 0.10),
        _row("mistral-embed-2312", 1024, 8192, 0.10),
        _row("codestral-embed", 1536, 8192, 0.15, widths=range(1, 3073), dtypes=QUANTIZED),
        _row("codestral-embed-2505", 1536, 8192, 0.15, widths=range(1, 3073), dtypes=QUANTIZED),
    ),
    "mixedbread": _hosted(
        "Mixedbread's OpenAPI and client 0.54.0, 2026-11",
        _served("mixedbread-ai/mxbai-embed-large-v1", widths=range(1, 1025), dtypes=QUANTIZED, prefix_field="prompt"),
    ),
    "together": (
        *_hosted(
            "Together's OpenAPI, litellm 1.109.1, 2026-11",
            _served(f"{_BGE}base-en-v1.5", 0.008),
            _served(f"{_BGE}large-en-v1.5"),
            _served("intfloat/multilingual-e5-large-instruct", 0.02),
        ),
        *_block(
            "Together's OpenAPI; width of the 32k model as recorded, 2026-11",
            _row("togethercomputer/m2-bert-80M-8k-retrieval", 768, 8192),
            _row("togethercomputer/m2-bert-80M-32k-retrieval", 768, 32_768),
        ),
    ),
    "fireworks": _hosted(
        "docs.fireworks.ai and price files of 2026-10",
        _served(f"{_QWEN3}8B", 0.10, name="accounts/fireworks/models/qwen3-embedding-8b", tokens=40_960),
        _served(f"{_QWEN3}4B", name="accounts/fireworks/models/qwen3-embedding-4b"),
        _served(f"{_QWEN3}0.6B", name="accounts/fireworks/models/qwen3-embedding-0p6b"),
        _served("nomic-ai/nomic-embed-text-v1.5", 0.008),
        _row("thenlper/gte-base", 768, 512, 0.008),
        _row("thenlper/gte-large", 1024, 512, 0.016),
        _row("WhereIsAI/UAE-Large-V1", 1024, 512, 0.016),
    ),
    "deepinfra": _hosted(
        "deepinfra.com model page, 2026-11",
        _served(f"{_QWEN3}0.6B", 0.002, tokens=8192),
    ),
    "nvidia": _block(  # trial credits or a license, no price per token
        "langchain_nvidia_ai_endpoints 1.5.0 and NIM documentation, 2026-11",
        _row("nvidia/llama-nemotron-embed-1b-v2", 2048, 8192, widths=(384, 512, 768, 1024)),
        _row("nvidia/llama-3.2-nv-embedqa-1b-v2", 2048, 8192, widths=(384, 512, 768, 1024)),
        _row("nvidia/nv-embedqa-e5-v5", 1024, 512),
        _row("baai/bge-m3", 1024, 8192),
    ),
    "openrouter": (
        *_block(
            "openrouter.ai model pages; prices as charged in recorded exchanges, 2026-08",
            _row("openai/text-embedding-3-small", 1536, 8192, 0.02, widths=range(1, 1537)),
            _row("openai/text-embedding-ada-002", 1536, 8192, 0.10),
        ),
        *_block(
            "openrouter.ai and Google's embeddings page, 2026-11; not of unit length below 3072",
            _row("google/gemini-embedding-001", 3072, 2048, widths=range(128, 3073)),
        ),
        *_hosted(
            "openrouter.ai model pages, 2026-11",
            _served(f"{_QWEN3}8B", name="qwen/qwen3-embedding-8b"),
            _served("intfloat/multilingual-e5-large", 0.01),
        ),
    ),
    "databricks": _hosted(
        "Databricks' supported-models page and price files of 2026-10",
        _row("databricks-gte-large-en", 1024, 8192, 0.13),
        _served(f"{_BGE}large-en-v1.5", 0.10, name="databricks-bge-large-en", prefix_field="instruction"),
        _served(f"{_QWEN3}0.6B", 0.02, name="databricks-qwen3-embedding-0-6b"),
    ),
    "dashscope": _block(
        "Alibaba Model Studio documentation, 2026-11",
        _row("text-embedding-v4", 1024, 8192, 0.07, widths=(64, 128, 256, 512, 768, 1536, 2048)),
        _row("text-embedding-v3", 1024, 8192, widths=(64, 128, 256, 512, 768)),
        _row("text-embedding-v2", 1536, 2048),
        _row("text-embedding-v1", 1536, 2048),
        _row("qwen3.7-text-embedding", None, 128_000, 0.07),
    ),
    "zhipu": _block(
        "docs.bigmodel.cn, 2026-11",
        _row("embedding-3", 2048, 3072, widths=(256, 512, 1024)),
        _row("embedding-2", 1024, 512),
    ),
    "siliconflow": _hosted(
        "docs.siliconflow.com, 2026-11",
        _served(f"{_BGE}m3"),
        _served(f"{_BGE}m3", name="Pro/BAAI/bge-m3"),
        _served(f"{_BGE}large-en-v1.5"),
        _served(f"{_QWEN3}8B", widths=(64, 128, 256, 512, 768, 1024, 1536, 2048, 2560)),
        _served(f"{_QWEN3}4B", widths=(64, 128, 256, 512, 768, 1024, 1536, 2048)),
        _served(f"{_QWEN3}0.6B", widths=(64, 128, 256, 512, 768)),
    ),
    "github": _block(
        "docs.github.com/rest/models/embeddings, 2026-11",
        _row("openai/text-embedding-3-small", 1536, 8192, widths=range(1, 1537)),
        _row("openai/text-embedding-3-large", 3072, 8192, widths=range(1, 3073)),
    ),
    "doubleword": _hosted("exchanges recorded 2026-08", _served(f"{_QWEN3}8B")),
    "venice": _hosted(
        "exchanges recorded 2026-08 and litellm 1.109.1, 2026-11",
        _served(f"{_QWEN3}0.6B", 0.0125, name="text-embedding-qwen3-0-6b"),
        _served(f"{_QWEN3}8B", 0.0125, name="text-embedding-qwen3-8b"),
        _served(f"{_BGE}m3", 0.0125, name="text-embedding-bge-m3"),
    ),
    "sambanova": _block("a recorded exchange, 2026-11; width as answered", _row("E5-Mistral-7B-Instruct", 4096, None)),
    "nebius": _hosted("price files of 2026-10", _served(f"{_QWEN3}8B", 0.01)),
    "novita": _hosted("price files of 2026-10", _served(f"{_BGE}m3", 0.01, name="baai/bge-m3")),
    # --- in this process ---
    "local": _block(
        "sentence-transformers/all-MiniLM-L6-v2 model card, 2026-11",
        _row("all-minilm-l6-v2", 384, 256, 0.0),
    ),
}  # fmt: skip
MODELS = {provider: _in_batches(provider, known) for provider, known in MODELS.items()}


def facts(provider: str, model: str) -> ModelFacts | None:
    """What is known of a model at a provider; None for a model that is not in the catalog. Capitals do not matter.

    Of a tag of Ollama's ("22m-l-v1-fp16", "latest") the size counts where the sizes of a family differ, the rest
    does not. What the provider's own block lacks is looked for among the open weights, by the last part of the
    name: any server may serve them, under "BAAI/bge-m3", "bge-m3" or LM Studio's "text-embedding-bge-m3". It is
    then a guess what width that server gives them.
    """
    known = {each.name.lower(): each for each in MODELS.get(provider, ())}
    model = model.lower()
    family, _, tag = model.rpartition(":")
    return (
        known.get(model)
        or known.get(f"{family}:{tag.partition('-')[0]}")
        or known.get(family)
        or _served_by_name(model)
    )


def _served_by_name(model: str) -> ModelFacts | None:
    for each in WEIGHTS:
        if _bare(each.name.lower()) == _bare(model):
            widths = each.widths if each.dimensions in each.widths else (*each.widths, each.dimensions or 0)
            return msgspec.structs.replace(each, dimensions=None, widths=widths)
    return None


def _bare(name: str) -> str:
    return name.rpartition("/")[2].removeprefix("text-embedding-")
