"""Addresses as people have them: the base URL of the docs, the
URL of the endpoint they saw asked, with slashes and queries.
"""

from __future__ import annotations

import base64

import msgspec
import pytest

import embedkit
from embedkit import AuthError
from embedkit._connect.base_url import unrouted
from embedkit.errors import ConfigError, EmbedkitError
from embedkit.providers import find, hosts
from embedkit.testing import FakeExchange, response
from tests.support.fake_replies import KEY
from tests.support.sent import sent

pytestmark = pytest.mark.anyio
OPENAI = "openai:text-embedding-3-small"

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
    """For each host: its base URL, that with a slash, and the
    whole URL of a request lead to the same URL, asked once.
    """
    needs = NEEDS.get(name, {})
    url = await asked(f"{name}:{model}", **needs)
    more = {key: value for key, value in needs.items() if key not in ("base_url", "host")}
    base = embedkit.connect(f"{name}:{model}", api_key="k-test", **needs).base_url
    place, mark, query = url.partition("?")

    for same in (base, f"{base.partition('?')[0]}/{mark}{query}", url, f"{place}/{mark}{query}", f" {url}\n"):
        assert await asked(f"{name}:{model}", **{**more, "base_url": same}) == url
    with_query = f"{place}?{query}&tenant=a" if mark else f"{url}?tenant=a"
    assert await asked(f"{name}:{model}", **{**more, "base_url": with_query}) == with_query


@pytest.mark.parametrize(
    ("name", "variable"), [(host.name, variable) for host in hosts() for variable in host.url_variables]
)
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
        *(("tei:m", f"http://h:3000{path}", "http://h:3000/embed") for path in ("", "/embed", "/v1", "/v1/embeddings",
          "/embed_all")),
        ("hfendpoint:m", "https://x.endpoints.huggingface.cloud/v1/embeddings",
         "https://x.endpoints.huggingface.cloud"),
        ("cohere:m", "https://api.cohere.com/v1/embed", "https://api.cohere.com/v2/embed"),
        ("cohere:m", "https://api.cohere.ai/compatibility/v1", "https://api.cohere.ai/v2/embed"),
        ("voyage:voyage-context-3", "https://api.voyageai.com/v1/embeddings",
         "https://api.voyageai.com/v1/contextualizedembeddings"),
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
        ("bedrock:amazon.titan-embed-text-v2:0",
         "https://bedrock-runtime.us-east-1.amazonaws.com/model/amazon.titan-embed-text-v2%3A0/invoke",
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
        ("gemini:m", "https://host.test/v1/models/other:embedContent", {},
         "the URL names model 'other', and 'm' is given"),
        ("bedrock:amazon.titan-embed-text-v2:0", "https://host.test/model/cohere.embed-v4/invoke",
         {"region": "us-east-1"},
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


# --- base_url --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("http://host.test:8080", "http://host.test:8080/v1/embeddings"),
        ("http://host.test:8080/", "http://host.test:8080/v1/embeddings"),
        ("http://host.test/v1", "http://host.test/v1/embeddings"),
        ("http://host.test/v1//", "http://host.test/v1/embeddings"),
        ("http://host.test/a/b", "http://host.test/a/b/embeddings"),
        ("http://host.test/a%20b", "http://host.test/a%20b/embeddings"),
        ("HTTP://Host.Test/V1", "http://Host.Test/V1/embeddings"),
        ("  http://host.test/v1\n", "http://host.test/v1/embeddings"),
        ("http://host.test?tenant=a/", "http://host.test/v1/embeddings?tenant=a/"),
        ("http://host.test/v3/?tenant=a&x=", "http://host.test/v3/embeddings?tenant=a&x="),
        ("http://[::1]:8080", "http://[::1]:8080/v1/embeddings"),
        ("https://[2001:db8::1]/v1/", "https://[2001:db8::1]/v1/embeddings"),
        ("http://user:p%40ss@host.test:8080", "http://host.test:8080/v1/embeddings"),
    ],
)  # fmt: skip
async def test_where_a_base_url_leads(base_url, url):
    """A bare host gets the version segment, a path is used as
    given; slashes at the end and white space around do not matter.
    """
    assert (await sent("compatible:m", base_url=base_url)).url == url
    assert (await sent("openai:m", base_url=base_url)).url == url


@pytest.mark.parametrize(
    ("model", "url"),
    [
        ("azure:d", "https://host.test/openai/v1/embeddings"),
        ("ollama:m", "https://host.test/api/embed"),
        ("cohere:m", "https://host.test/v2/embed"),
        ("nomic:m", "https://host.test/v1/embedding/text"),
        ("huggingface:o/m", "https://host.test/hf-inference/models/o/m/pipeline/feature-extraction"),
        ("hfendpoint:m", "https://host.test"),
        ("tei:m", "https://host.test/embed"),
        ("infinity:m", "https://host.test/embeddings"),
        ("localai:m", "https://host.test/v1/embeddings"),
    ],
)
async def test_each_host_has_its_own_segment(model, url):
    """A bare base URL gets what this provider's address ends in, and a path replaces it."""
    route = url.removeprefix("https://host.test").removeprefix("/openai").removeprefix("/hf-inference").lstrip("/")
    route = route if model.startswith(("hugging", "tei", "infinity", "hfendpoint")) else route.partition("/")[2]

    assert (await sent(model, base_url="https://host.test/")).url == url
    assert (await sent(model, base_url="https://host.test/own")).url == f"https://host.test/own/{route}".rstrip("/")


@pytest.mark.parametrize(
    "base_url",
    [
        "host.test:8080", "localhost", "//host.test", "ftp://host.test", "http://", "https:///v1", "http:host.test",
        "http://[::1",
        "http://host.test:99999", "http://host.test:abc", "http://host.test:0", "http://host.test/a b",
        "http://ho st.test",
        "http://host.test/v1#part", "http://bücher.test/v1", "http://host.test\\@api.openai.com/v1",
        "https://api.openai.com\n.evil.test",
        "http://host.test/\x00", "http://user:p#ss@host.test", "unix:///run/server.sock",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(base_url):
    """What two clients might read apart, or none could call, is refused with an example of what works."""
    with pytest.raises(
        ConfigError, match=r"^base_url=.*: an http or https URL with a host .*, like https://api.openai.com/v1$"
    ):
        embedkit.connect("openai:m", api_key=KEY, base_url=base_url)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"base_url": []}, "base_url has 0 and api_key 1 entries"),
        ({"base_url": ["http://a", None]}, "base_url holds None beside others"),
        ({"api_key": [KEY, None]}, "api_key holds None beside others"),
        ({"api_key": [KEY, ""]}, "api_key is empty"),
        ({"base_url": ["http://a", "b"]}, "base_url='b': an http or https URL"),
        ({"base_url": {"http://a"}}, "base_url={'http://a'}: an http or https URL"),
        ({"base_url": ["http://a", "http://b"], "api_key": [KEY] * 3}, "base_url has 2 and api_key 3 entries"),
    ],
    ids=str,
)
def test_each_entry_of_a_pool_is_checked(keywords, message):
    """A pool's addresses and keys are held to the rules of a single
    one; a missing one does not stand for the provider's own.
    """
    with pytest.raises(ConfigError, match=message):
        embedkit.connect(**{"model": OPENAI, "api_key": KEY, **keywords})


@pytest.mark.parametrize("name", ["compatible", "azure", "hfendpoint"])
def test_a_host_without_an_address_asks_for_one(name):
    """Where only the user can know the address, its absence is said at once."""
    with pytest.raises(ConfigError, match=f"{name} has no address of its own: pass base_url="):
        embedkit.connect(f"{name}:m", api_key=KEY)


async def test_a_password_in_the_address_becomes_a_header():
    """user:password in a URL goes out as Basic authorization, and shows nowhere: not in a URL, a repr or an error."""
    exchange = FakeExchange([response({"error": "no"}, 403)])
    embedder = embedkit.connect("ollama:m", base_url="http://me:p%40ss:word@host.test", exchange=exchange)
    with pytest.raises(AuthError) as caught:
        await embedder.embed("a")

    request = exchange.requests[0]
    assert base64.b64decode(request.headers["authorization"].removeprefix("Basic ")) == b"me:p@ss:word"
    for shown in (request.url, repr(request), repr(embedder), embedder.base_url, str(caught.value)):
        assert "p@ss" not in shown
        assert "p%40ss" not in shown

    with pytest.raises(ConfigError, match="base_url holds a user and api_key is given"):
        embedkit.connect("openai:m", base_url="http://me:word@host.test", api_key=KEY)


async def test_a_query_stays_out_of_the_repr_of_a_request():
    """A gateway's key in the query goes out, but is not shown."""
    request = await sent("compatible:m", base_url="https://host.test/v1?key=secret")

    assert request.url.endswith("/embeddings?key=secret")
    assert "secret" not in repr(request)


# --- base URLs from the environment ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "variable", "value", "url"),
    [
        # OpenAI: includes the version, so nothing is added (openai-python, `OPENAI_BASE_URL`).
        ("openai:m", "OPENAI_BASE_URL", "https://gate.test/v1", "https://gate.test/v1/embeddings"),
        ("openai:m", "OPENAI_BASE_URL", "https://gate.test/", "https://gate.test/embeddings"),
        ("openai:m", "OPENAI_BASE_URL", " https://gate.test/a/ ", "https://gate.test/a/embeddings"),
        ("openai:m", "OPENAI_BASE_URL", " ", "https://api.openai.com/v1/embeddings"),
        # Azure: the resource's root (1A.3).
        (
            "azure:d",
            "AZURE_OPENAI_ENDPOINT",
            "https://r.openai.azure.com",
            "https://r.openai.azure.com/openai/v1/embeddings",
        ),
        (
            "azure:d",
            "AZURE_OPENAI_ENDPOINT",
            "https://r.openai.azure.com/",
            "https://r.openai.azure.com/openai/v1/embeddings",
        ),
        # Cohere: the root, a version at its end does not count (2.1).
        ("cohere:m", "CO_API_URL", "https://api.cohere.com", "https://api.cohere.com/v2/embed"),
        ("cohere:m", "CO_API_URL", "https://api.cohere.ai/v1", "https://api.cohere.ai/v2/embed"),
        ("cohere:m", "CO_API_URL", "https://api.cohere.com/v1/", "https://api.cohere.com/v2/embed"),
        ("cohere:m", "CO_API_URL", "https://gate.test/cohere/v2", "https://gate.test/cohere/v2/embed"),
        # Nomic: the root, as its own client has it (6.1).
        (
            "nomic:m",
            "ATLAS_API_PATH",
            "https://staging-api-atlas.nomic.ai",
            "https://staging-api-atlas.nomic.ai/v1/embedding/text",
        ),
        ("nomic:m", "ATLAS_API_PATH", "https://gate.test/v1/", "https://gate.test/v1/embedding/text"),
        # Nobody else reads one of another's.
        ("compatible:m", "OPENAI_BASE_URL", "https://gate.test/v1", "http://host.test/v1/embeddings"),
        ("vllm:m", "OPENAI_BASE_URL", "https://gate.test/v1", "http://localhost:8000/v1/embeddings"),
    ],
)
async def test_base_urls_of_the_environment(monkeypatch, model, variable, value, url):
    """Each provider's variable is read by the rules of its own client."""
    monkeypatch.setenv(variable, value)
    elsewhere = {"base_url": "http://host.test"} if model.startswith("compatible") else {}

    assert (await sent(model, api_key=KEY, **elsewhere)).url == url


async def test_the_argument_beats_the_environment(monkeypatch):
    """An explicit base_url wins over the provider's variable."""
    monkeypatch.setenv("OLLAMA_HOST", "gate.test")

    assert (await sent("ollama:m", base_url="http://host.test")).url == "http://host.test/api/embed"


@pytest.mark.parametrize("value", ["gate.test", "ftp://gate.test", "https://gate.test:99999", "https://gate.test/a b"])
@pytest.mark.parametrize(
    ("model", "variable"),
    [("openai:m", "OPENAI_BASE_URL"), ("azure:m", "AZURE_OPENAI_ENDPOINT"), ("cohere:m", "CO_API_URL"),
     ("nomic:m", "ATLAS_API_PATH")],
)  # fmt: skip
def test_a_wrong_address_names_its_variable(monkeypatch, model, variable, value):
    """What is wrong in the environment is said of the variable, not of an argument nobody passed."""
    monkeypatch.setenv(variable, value)

    with pytest.raises(ConfigError, match=f"^{variable}='{value}': an http or https URL"):
        embedkit.connect(model, api_key=KEY)


@pytest.mark.parametrize(
    ("value", "base"),
    [
        (None, "http://127.0.0.1:11434"),
        ("", "http://127.0.0.1:11434"),
        ("  ", "http://127.0.0.1:11434"),
        ('""', "http://127.0.0.1:11434"),
        ("1.2.3.4", "http://1.2.3.4:11434"),
        ("example.com", "http://example.com:11434"),
        (":56789", "http://127.0.0.1:56789"),
        ("example.com:56789", "http://example.com:56789"),
        ("http://example.com", "http://example.com:80"),
        ("https://example.com", "https://example.com:443"),
        ("https://example.com:8443", "https://example.com:8443"),
        ("ollama.com", "https://ollama.com:443"),
        ("https://ollama.com", "https://ollama.com:443"),
        ("example.com/path/", "http://example.com:11434/path"),
        ("https://example.com/ollama", "https://example.com:443/ollama"),
        ("[::1]", "http://[::1]:11434"),
        ("[::1]:1234", "http://[::1]:1234"),
        ("::1", "http://[::1]:11434"),
        ("::1/path", "http://[::1]:11434/path"),
        (":66000", "http://127.0.0.1:11434"),
        (":-1", "http://127.0.0.1:11434"),
        ("example.com:66000", "http://example.com:11434"),
        ("http://example.com:66000", "http://example.com:80"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:1234", "http://127.0.0.1:1234"),
        ("http://0.0.0.0:1234", "http://127.0.0.1:1234"),
        ("[::]", "http://[::1]:11434"),
        ("[::]:1234", "http://[::1]:1234"),
        ('"example.com:1"', "http://example.com:1"),
        (" 'example.com' ", "http://example.com:11434"),
        ("http://me:word@example.com:1", "http://example.com:1"),
        ("me@example.com", "http://example.com:11434"),
    ],
)
async def test_ollama_host(monkeypatch, value, base):
    """OLLAMA_HOST means what Ollama takes it to mean, bind-all addresses, quotes and bad ports included.

    https://github.com/ollama/ollama/blob/main/envconfig/config.go, `Host`.
    """
    if value is not None:
        monkeypatch.setenv("OLLAMA_HOST", value)

    assert (await sent("ollama:m")).url == f"{base}/api/embed"


@pytest.mark.parametrize(
    "value", ["a b", "[::1", "http://[::1", "ftp://example.com", "\\\\example", "example.com/#x", "exämple.com"]
)
def test_a_senseless_ollama_host_is_refused(monkeypatch, value):
    """What Ollama's rules make no URL of is refused, by the variable's name."""
    monkeypatch.setenv("OLLAMA_HOST", value)

    with pytest.raises(ConfigError, match=r"^OLLAMA_HOST="):
        embedkit.connect("ollama:m")
