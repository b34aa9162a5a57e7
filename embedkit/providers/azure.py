"""Azure's two hosts of OpenAI's dialect: a URL and a key of their own."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlsplit, urlunsplit

from .._types import Limits, Request
from ..codec import Host, Parameter, Target, bearer, with_headers
from .openai import _OPENAI, OpenAI


def _azure_key(request: Request, credentials: Mapping[str, str], now: float) -> Request:
    """An Entra token as Bearer, a key as `api-key`; of two variables the token's wins (openai-python, lib/azure.py)."""
    if token := credentials.get("ad_token"):
        return bearer(request, {"api_key": token}, now)
    key = credentials.get("api_key")
    return with_headers(request, {"api-key": key}) if key else request


def _azure_url(base_url: str, target: Target) -> str:
    """Azure's two URL families: a dated api_version puts the deployment in the path, else it is the v1 API.

    learn.microsoft.com/azure/foundry/openai/how-to/embeddings
    """
    parts = urlsplit(base_url)
    version, path, query = target.parameters.get("api_version"), parts.path, parts.query
    if version not in (None, "v1", "preview", "latest") and "/openai/deployments/" not in path:
        path, query = f"{path.partition('/openai')[0]}/openai/deployments/{quote(target.model, safe='')}", ""
    if version not in (None, "latest") and "api-version=" not in query:
        query = "&".join(filter(None, (query, f"api-version={quote(version, safe='')}")))
    return urlunsplit(parts._replace(path=path, query=query))


_AZURE = {
    "api_version": Parameter(("OPENAI_API_VERSION",), help="a dated version selects the classic URL, e.g. 2024-10-21"),
    "ad_token": Parameter(
        ("AZURE_OPENAI_AD_TOKEN",), secret=True, key=True, help="Entra token, or a callable giving one"
    ),
}

HOSTS = (
    Host(
        name="azure", dialect=OpenAI, version_path="/openai/v1", key_variables=("AZURE_OPENAI_API_KEY",),
        key_required=True, start=100, ceiling=128,
        own_domains=("openai.azure.com", "cognitiveservices.azure.com", "services.ai.azure.com"),
        url_variables=("AZURE_OPENAI_ENDPOINT",), resolve_url=_azure_url, authorize=_azure_key, static_auth=True,
        catalog="openai",
        parameters=_AZURE, quirks={"refuses": True}, limits=_OPENAI,
        batches="its table of models for batch deployments lists no embedding model (learn.microsoft.com, batch)",
    ),
    # Azure AI Foundry's other models on the same routes. 96 is Cohere's limit (docs.cohere.com/reference/embed).
    Host(
        name="azureaifoundry", dialect=OpenAI, version_path="/openai/v1", key_variables=("AZURE_OPENAI_API_KEY",),
        key_required=True, start=100, ceiling=128,
        own_domains=("services.ai.azure.com",), url_variables=("AZURE_OPENAI_ENDPOINT",), resolve_url=_azure_url,
        authorize=_azure_key, static_auth=True,
        parameters=_AZURE, quirks={"encoding": None}, limits=Limits(max_texts=96),
    ),
)  # fmt: skip
