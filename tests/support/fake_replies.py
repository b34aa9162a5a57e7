"""The seed providers, how to connect to each, and what each
answers in its own shape: for tests that ask all of them the same.
"""

from __future__ import annotations

import json

from embedkit.providers import hosts
from embedkit.testing import FakeEmbedder, response

KEY = "sk-of-the-test-1234567890"
SEED = {
    "openai": {"model": "openai:text-embedding-3-small", "api_key": KEY},
    "azure": {"model": "azure:ada", "api_key": KEY, "base_url": "https://r.openai.azure.com"},
    "compatible": {"model": "compatible:m", "base_url": "http://host.test:8000"},
    "localai": {"model": "localai:m"},
    "vllm": {"model": "vllm:m"},
    "llamacpp": {"model": "llamacpp:m"},
    "lmstudio": {"model": "lmstudio:m"},
    "infinity": {"model": "infinity:m"},
    "ollama": {"model": "ollama:mistral"},
    "cohere": {"model": "cohere:embed-v4.0", "api_key": KEY},
    "huggingface": {"model": "huggingface:sentence-transformers/all-MiniLM-L6-v2", "api_key": KEY},
    "hfendpoint": {"model": "hfendpoint:m", "base_url": "https://x.endpoints.huggingface.cloud"},
    "tei": {"model": "tei:m"},
    "nomic": {"model": "nomic:nomic-embed-text-v1.5", "api_key": KEY},
    "voyage": {"model": "voyage:voyage-3.5", "api_key": KEY},
}
THERE = [name for name in SEED if name in {host.name for host in hosts()}]
vector = FakeEmbedder(8).vector


def shaped(provider, rows):
    """These vectors as the provider answers them."""
    rows = [row.tolist() if hasattr(row, "tolist") else row for row in rows]
    if provider == "cohere":
        return response({"embeddings": {"float": rows}})
    if provider in ("ollama", "nomic"):
        return response({"embeddings": rows})
    if provider in ("huggingface", "hfendpoint", "tei"):
        return response(rows)
    return response({"data": [{"index": place, "embedding": row} for place, row in enumerate(rows)]})


def texts_of(request):
    """The texts in a request, whatever the provider calls them."""
    body = json.loads(request.body)
    return next(body[name] for name in ("input", "inputs", "texts") if name in body)


def echo(provider, made=vector):
    """A handler for a `FakeExchange`: the vector of each text, in
    the provider's shape; nothing to a question about the server.
    """
    return lambda request: response({}) if request.method == "GET" else shaped(provider, map(made, texts_of(request)))
