"""Addresses as people have them: the base URL of the docs, the URL of the endpoint they saw asked, with slashes and queries."""

from __future__ import annotations

import msgspec
import pytest

import embedkit
from embedkit._connect.base_url import unrouted
from embedkit.errors import ConfigError, EmbedkitError
from embedkit.providers import find, hosts
from embedkit.testing import FakeExchange, response

pytestmark = pytest.mark.anyio

# What each host needs besides a key, to be asked at all.
NEEDS = {
    "azure": {"base_url": "https://r.openai.azure.com"},
    "azureaifoundry": {"base_url": "https://r.services.ai.azure.com"},
    "bedrock": {"region": "us-east-1"},
    "cloudflare": {"account_id": "0a1b"},
    "compatible": {"base_url": "http://host.test:8080"},
    "databricks": {"host": "adb-1.azuredatabricks.net"},
    "hfendpoint": {"base_url": "https://x.endpoints.huggingface.cloud"},
    "snowflake": {"account": "org-one"},
    "vertex": {"project": "p", "location": "us-central1"},
    "watsonx": {"project_id": "p", "base_url": "https://us-south.ml.cloud.ibm.com"},
}
MODELS = {
    "bedrock": ("amazon.titan-embed-text-v2:0", "cohere.embed-english-v3"),
    "cloudflare": ("@cf/baai/bge-m3",),
    "huggingface": ("sentence-transformers/all-MiniLM-L6-v2",),
    "vertex": ("text-embedding-005", "gemini-embedding-2"),
    "voyage": ("voyage-4", "voyage-context-3", "voyage-multimodal-3"),
    "perplexity": ("pplx-embed-v1", "pplx-embed-context-v1"),
}


async def asked(model, **more):
    """The URL that the first request about texts goes to."""
    refused = response({"error": "no"}, 403)
    exchange = FakeExchange(lambda request: response(b'{"access_token": "t"}') if "iam" in request.url else refused)
    embedder = embedkit.connect(model, api_key="k-test", exchange=exchange, **more)
    with pytest.raises(EmbedkitError):
        await embedder.embed_batch(["a"], embedder.options)
    return exchange.requests[-1].url


@pytest.mark.parametrize(
    ("name", "model"), [(host.name, model) for host in hosts() for model in MODELS.get(host.name, ("mine",))]
)
async def test_the_address_a_host_has_and_the_url_it_asks_are_the_same_address(name, model):
    """For each host: its base URL, that with a slash, and the whole URL of a request lead to the same URL, asked once."""
    needs = NEEDS.get(name, {})
    url = await asked(f"{name}:{model}", **needs)
    more = {key: value for key, value in needs.items() if key not in ("base_url", "host")}
    base = embedkit.connect(f"{name}:{model}", api_key="k-test", **needs).base_url
    place, mark, query = url.partition("?")

    for same in (base, f"{base.partition('?')[0]}/{mark}{query}", url, f"{place}/{mark}{query}", f" {url}\n"):
        assert await asked(f"{name}:{model}", **{**more, "base_url": same}) == url
    with_query = f"{place}?{query}&tenant=a" if mark else f"{url}?tenant=a"
    assert await asked(f"{name}:{model}", **{**more, "base_url": with_query}) == with_query


@pytest.mark.parametrize(("name", "variable"), [(host.name, variable) for host in hosts() for variable in host.url_variables])
async def test_a_variable_may_hold_the_whole_url_too(monkeypatch, name, variable):
    """What is true of base_url= is true of each provider's own variable."""
    needs = {key: value for key, value in NEEDS.get(name, {}).items() if key != "host"}
    url = await asked(f"{name}:mine", **NEEDS.get(name, {}))
    needs.pop("base_url", None)
    for same in (url, url.replace("?", "/?") if "?" in url else f"{url}/"):
        monkeypatch.setenv(variable, same)

        assert await asked(f"{name}:mine", **needs) == url


@pytest.mark.parametrize(
    ("model", "given", "url"),
    [
        ("compatible:m", "http://h:8080/v1/embeddings", "http://h:8080/v1/embeddings"),
        ("compatible:m", "http://h:8080/v1/embeddings/", "http://h:8080/v1/embeddings"),
        ("compatible:m", "http://h:8080/embeddings", "http://h:8080/embeddings"),
        ("compatible:m", "http://h:8080/embeddings/v1", "http://h:8080/embeddings/v1/embeddings"),
        ("compatible:m", "http://embeddings:8080", "http://embeddings:8080/v1/embeddings"),
        ("compatible:m", "http://embeddings", "http://embeddings/v1/embeddings"),
        ("compatible:m", "http://h/my-embeddings", "http://h/my-embeddings/embeddings"),
        ("openai:m", "https://api.openai.com", "https://api.openai.com/v1/embeddings"),
        ("openai:m", "https://api.openai.com/v1/embeddings?a=b", "https://api.openai.com/v1/embeddings?a=b"),
        # At home a path that is the beginning of the right one is completed; elsewhere it is somebody's own.
        ("openrouter:m", "https://openrouter.ai/api", "https://openrouter.ai/api/v1/embeddings"),
        ("openrouter:m", "https://gate.test/api", "https://gate.test/api/embeddings"),
        ("deepinfra:m", "https://api.deepinfra.com/v1", "https://api.deepinfra.com/v1/openai/embeddings"),
        # Azure's target URI, as its portal shows it.
        ("azure:d", "https://r.openai.azure.com/openai/deployments/mine/embeddings?api-version=2023-05-15",
         "https://r.openai.azure.com/openai/deployments/mine/embeddings?api-version=2023-05-15"),
        ("azure:d", "https://r.openai.azure.com/openai", "https://r.openai.azure.com/openai/v1/embeddings"),
        ("azureaifoundry:m", "https://r.services.ai.azure.com/models/embeddings?api-version=2024-05-01-preview",
         "https://r.services.ai.azure.com/models/embeddings?api-version=2024-05-01-preview"),
        # Ollama: its own routes, and OpenAI's beside them.
        *(
            ("ollama:m", f"http://h:11434{path}", "http://h:11434/api/embed")
            for path in ("", "/", "/api", "/api/", "/api/embed", "/api/embeddings", "/v1", "/v1/", "/v1/embeddings")
        ),
        ("ollama:m", "http://h/behind/v1", "http://h/behind/api/embed"),
        ("ollama:m", "http://h/v1?key=a", "http://h/api/embed?key=a"),
        *(("tei:m", f"http://h:3000{path}", "http://h:3000/embed") for path in ("", "/embed", "/v1", "/v1/embeddings", "/embed_all")),
        ("hfendpoint:m", "https://x.endpoints.huggingface.cloud/v1/embeddings", "https://x.endpoints.huggingface.cloud"),
        ("cohere:m", "https://api.cohere.com/v1/embed", "https://api.cohere.com/v2/embed"),
        ("cohere:m", "https://api.cohere.ai/compatibility/v1", "https://api.cohere.ai/v2/embed"),
        ("voyage:voyage-context-3", "https://api.voyageai.com/v1/embeddings", "https://api.voyageai.com/v1/contextualizedembeddings"),
        ("gemini:m", "https://generativelanguage.googleapis.com/v1beta/models/m:embedContent",
         "https://generativelanguage.googleapis.com/v1beta/models/m:batchEmbedContents"),
        ("gemini:models/m", "https://generativelanguage.googleapis.com/v1beta/models/m:embedContent",
         "https://generativelanguage.googleapis.com/v1beta/models/m:batchEmbedContents"),
        ("gemini:m", "https://generativelanguage.googleapis.com/v1beta/openai/",
         "https://generativelanguage.googleapis.com/v1beta/models/m:batchEmbedContents"),
        # What the URL names need not be said again.
        ("cloudflare:@cf/baai/bge-m3", "https://api.cloudflare.com/client/v4/accounts/0a1b/ai/run/@cf/baai/bge-m3",
         "https://api.cloudflare.com/client/v4/accounts/0a1b/ai/run/@cf/baai/bge-m3"),
        ("cloudflare:@cf/baai/bge-m3", "https://api.cloudflare.com/client/v4/accounts/0a1b/ai/v1",
         "https://api.cloudflare.com/client/v4/accounts/0a1b/ai/run/@cf/baai/bge-m3"),
        ("vertex:m", "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/us-central1",
         "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/us-central1/publishers/google/models/m:predict"),
        ("bedrock:amazon.titan-embed-text-v2:0", "https://bedrock-runtime.us-east-1.amazonaws.com/model/amazon.titan-embed-text-v2%3A0/invoke",
         "https://bedrock-runtime.us-east-1.amazonaws.com/model/amazon.titan-embed-text-v2%3A0/invoke"),
        ("databricks:mine", "https://adb-1.azuredatabricks.net/serving-endpoints/mine/invocations",
         "https://adb-1.azuredatabricks.net/serving-endpoints/embeddings"),
    ],
)  # fmt: skip
async def test_where_an_address_of_people_leads(model, given, url):
    """The URL asked, for addresses as docs, portals and other clients have them."""
    assert await asked(model, base_url=given) == url


@pytest.mark.parametrize(
    ("value", "url"),
    [
        (f"{start}{path}", "http://h:11434/api/embed")
        for start in ("http://h:11434", "h:11434", "h")
        for path in ("", "/", "/api", "/v1", "/api/embed", "/v1/embeddings/")
    ],
)
async def test_ollamas_variable_may_name_either_api(monkeypatch, value, url):
    """OLLAMA_HOST, with or without scheme, port and path."""
    monkeypatch.setenv("OLLAMA_HOST", value)

    assert await asked("ollama:m") == url


async def test_ollamas_variable_in_quotes_may_name_either_api(monkeypatch):
    """Quotes around OLLAMA_HOST, which Ollama takes off, hide no route."""
    monkeypatch.setenv("OLLAMA_HOST", '"http://h:11434/api/embed"')

    assert await asked("ollama:m") == "http://h:11434/api/embed"


async def test_one_api_version_is_asked_for(monkeypatch):
    """A target URI that names its version keeps it, whatever the environment says beside it."""
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    url = "https://r.openai.azure.com/openai/deployments/mine/embeddings?api-version=2023-05-15"

    assert await asked("azure:d", base_url=url) == url
    assert await asked("azure:d", base_url=url.partition("?")[0]) == url.replace("2023-05-15", "2024-10-21")


@pytest.mark.parametrize(
    ("model", "base_url", "more", "message"),
    [
        ("gemini:m", "https://host.test/v1/models/other:embedContent", {}, "the URL names model 'other', and 'm' is given"),
        ("bedrock:amazon.titan-embed-text-v2:0", "https://host.test/model/cohere.embed-v4/invoke", {"region": "us-east-1"},
         "names model 'cohere.embed-v4', and 'amazon.titan"),
        ("cloudflare:@cf/m", "https://host.test/client/v4/accounts/one/ai/run/@cf/m", {"account_id": "two"},
         "names account_id 'one', and 'two' is given"),
    ],
)  # fmt: skip
def test_a_url_that_says_otherwise_is_refused(model, base_url, more, message):
    """Neither of two models or accounts is asked where the URL names one and the call another."""
    with pytest.raises(ConfigError, match=message):
        embedkit.connect(model, api_key="k-test", base_url=base_url, **more)


def test_a_url_beats_the_environment(monkeypatch):
    """The account in the URL is the one meant, whatever CLOUDFLARE_ACCOUNT_ID says."""
    monkeypatch.setenv("CLOUDFLARE_ACCOUNT_ID", "two")
    embedder = embedkit.connect(
        "cloudflare:@cf/m", api_key="k-test", base_url="https://host.test/client/v4/accounts/one/ai/run/@cf/m"
    )

    assert embedder._target.parameters["account_id"] == "one"


@pytest.mark.parametrize(
    ("url", "left"),
    [
        ("http://h/embeddings", "http://h"),
        ("http://h/v1/embeddings?a=/embeddings", "http://h/v1?a=/embeddings"),
        ("h/embeddings", "h"),
        ("h:1/x/embeddings//", "h:1/x"),
        ("http://embeddings", None),
        ("embeddings", None),
        ("http://h/?x=/embeddings", None),
        ("", None),
    ],
)
def test_only_the_end_of_a_path_is_a_route(url, left):
    """A host's name, a query or a longer word that ends alike is left alone."""
    assert unrouted(url, find("openai").routes) == ((url, None) if left is None else (left, {}))


def test_every_host_says_what_it_asks():
    """A route of a host begins with a slash, and its own base URL ends in none of them."""
    for host in hosts():
        assert all(route.startswith("/") for route in host.routes)
        assert host.base_url is None or unrouted(host.base_url, host.routes)[1] is None
        assert isinstance(msgspec.structs.asdict(host)["routes"], tuple)
