"""Azure's two kinds of URL and of key, and what every provider does alike behind one call.

The checklist at the end is that of a predecessor in another
language, LinGoose: what its embedding page offers works here too.
"""

from __future__ import annotations

import json
from contextvars import ContextVar

import anyio
import numpy as np
import pytest

import embedkit
from embedkit import ApiError, AuthError, ConfigError, DecodeError, Limits, Rate, RetryPolicy
from embedkit.events import AttemptEnded, BatchDone, BatchFailed, CallEnded, CallStarted, RequestSent
from embedkit.testing import FakeEmbedder, FakeExchange, response
from tests.support.fake_replies import KEY, SEED, THERE, echo, shaped, texts_of, vector
from tests.support.sent import authorized, provider_of, sent

pytestmark = pytest.mark.anyio
OPENAI = "openai:text-embedding-3-small"
NOW = RetryPolicy(initial=0, maximum=0)


# --- Azure -----------------------------------------------------------------------------------------------------------

CLASSIC = "https://r.openai.azure.com/openai/deployments/my%20ada%2F2/embeddings"


@pytest.mark.parametrize(
    ("base_url", "version", "url"),
    [
        ("https://r.openai.azure.com", None, "https://r.openai.azure.com/openai/v1/embeddings"),
        ("https://r.services.ai.azure.com", None, "https://r.services.ai.azure.com/openai/v1/embeddings"),
        ("https://r.openai.azure.com/openai/v1/", None, "https://r.openai.azure.com/openai/v1/embeddings"),
        ("https://r.openai.azure.com", "latest", "https://r.openai.azure.com/openai/v1/embeddings"),
        ("https://r.openai.azure.com", "preview",
         "https://r.openai.azure.com/openai/v1/embeddings?api-version=preview"),
        ("https://r.openai.azure.com/openai/v1?api-version=preview", "preview",
         "https://r.openai.azure.com/openai/v1/embeddings?api-version=preview"),
        ("https://r.openai.azure.com", "2024-10-21", f"{CLASSIC}?api-version=2024-10-21"),
        ("https://r.openai.azure.com/", "2024-10-21", f"{CLASSIC}?api-version=2024-10-21"),
        ("https://r.openai.azure.com/openai", "2024-10-21", f"{CLASSIC}?api-version=2024-10-21"),
        ("https://r.openai.azure.com/openai/v1", "2024-10-21", f"{CLASSIC}?api-version=2024-10-21"),
        (CLASSIC.removesuffix("/embeddings"), "2024-10-21", f"{CLASSIC}?api-version=2024-10-21"),
        (CLASSIC.removesuffix("/embeddings") + "?api-version=2023-05-15", None, f"{CLASSIC}?api-version=2023-05-15"),
        ("https://r.openai.azure.com", "2024&key=1#", f"{CLASSIC}?api-version=2024%26key%3D1%23"),
        # A resource may be called anything, "openai…" included.
        ("https://openai-eu.openai.azure.com", "2024-10-21",
         f"{CLASSIC}?api-version=2024-10-21".replace("//r.", "//openai-eu.")),
        ("https://openai-eu.openai.azure.com", None, "https://openai-eu.openai.azure.com/openai/v1/embeddings"),
        # A gateway in front of it.
        ("https://gate.test/llm", None, "https://gate.test/llm/embeddings"),
        ("https://gate.test/llm", "2024-10-21",
         f"{CLASSIC}?api-version=2024-10-21".replace("r.openai.azure.com", "gate.test/llm")),
    ],
)  # fmt: skip
async def test_the_two_url_families_of_azure(base_url, version, url):
    """A dated api_version puts the deployment into the path, else it is the v1 API."""
    request = await sent("azure:my ada/2", base_url=base_url, api_version=version, api_key=KEY)

    assert request.url == url
    assert request.headers["api-key"] == KEY
    assert "authorization" not in request.headers
    assert json.loads(request.body)["model"] == "my ada/2"


async def test_azure_is_set_up_by_its_environment_alone(monkeypatch):
    """The four variables of the official client are enough (openai-python, `AzureOpenAI`)."""
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://r.openai.azure.com")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    request = await sent("azure:ada")

    assert request.url == "https://r.openai.azure.com/openai/deployments/ada/embeddings?api-version=2024-10-21"
    assert request.headers["api-key"] == KEY


@pytest.mark.parametrize(
    ("key", "token", "explicit", "expected"),
    [
        ("k-env", None, {}, {"api-key": "k-env"}),
        (None, "t-env", {}, {"authorization": "Bearer t-env"}),
        ("k-env", "t-env", {}, {"authorization": "Bearer t-env"}),  # the token wins where both come from there
        ("k-env", "t-env", {"api_key": "k-own"}, {"api-key": "k-own"}),
        ("k-env", "t-env", {"ad_token": "t-own"}, {"authorization": "Bearer t-own"}),
        ("k-env", None, {"ad_token": lambda: "t-own"}, {"authorization": "Bearer t-own"}),
    ],
)
async def test_azure_goes_by_key_or_token(monkeypatch, key, token, explicit, expected):
    """A key is `api-key`, an Entra token Bearer; one of them goes out, and what was passed beats the environment."""
    for variable, value in (("AZURE_OPENAI_API_KEY", key), ("AZURE_OPENAI_AD_TOKEN", token)):
        if value:
            monkeypatch.setenv(variable, value)
    headers = (await sent("azure:ada", base_url="https://r.openai.azure.com", **explicit)).headers

    assert {name: value for name, value in headers.items() if name in ("api-key", "authorization")} == expected


def test_azure_takes_key_or_token_not_both():
    """Passing both is refused at once."""
    with pytest.raises(ConfigError, match="azure takes api_key or ad_token, not both"):
        embedkit.connect("azure:ada", base_url="https://r.openai.azure.com", api_key=KEY, ad_token="t")


async def test_a_token_of_the_environment_stays_at_home(monkeypatch):
    """AZURE_OPENAI_AD_TOKEN is held back from a foreign host like a key, and the 401 says so."""
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "t-secret")
    exchange = FakeExchange([response("", 401)])
    embedder = embedkit.connect("azure:ada", base_url="https://r.openai.azure.com.evil.test", exchange=exchange)
    with pytest.raises(AuthError, match="the key in AZURE_OPENAI_AD_TOKEN was not sent"):
        await embedder.embed("a")

    assert "t-secret" not in str(exchange.requests[0].headers)


# --- the checklist ---------------------------------------------------------------------------------------------------
#
# What LinGoose's embedding page and code offer (A, B), what it
# lacks (C) and where embedkit differs on purpose (D), row by row.
# A row that says no file is proven below; LIVE rows (A13) need a real key and are nobody's claim here.
#
# A1  one call for every provider ........ test_the_same_call_on_every_provider
# A2  OpenAI's example ................... test_the_example_of_openai
# A3  Cohere, A4 Hugging Face, A7 Nomic, A8 Voyage:
#     test_the_same_call_on_every_provider, test_requests_of_the_hosted_providers
# A5  Ollama's example ................... test_the_example_of_ollama
# A6  LocalAI, both addresses ............ test_localai_by_either_address
# A9  keys from the environment .......... test_a_key_of_the_environment_is_used, test_an_explicit_key_beats_the_environment
# A10 a custom embedder .................. test_a_custom_embedder_is_as_good; embedders/test_base.py
# A11 the caller's own client ............ test_the_callers_own_session_serves_every_provider
# A12 failures raised, cancellation ...... test_every_failure_of_every_provider_raises, test_cancellation_reaches_every_provider
# B-1 options, B-2 widths, B-3 float32 ... test_every_option_means_the_same_everywhere;
#     test_catalog.py; test_the_numbers_are_float32
# B-4 observers .......................... test_an_observer_sees_start_and_end; test_events.py
# B-5 a bulk path in batches of 32 ....... test_a_stream_in_batches_of_32; batching/test_stream.py
# B-6 llama.cpp .......................... the provider `llamacpp`, in test_the_same_call_on_every_provider
# B-7 Ollama's older route ............... test_ollama_legacy_route
# B-8 the `user` field ................... test_a_user_is_sent_only_when_there_is_one
# C1  typed errors ....................... embedders/test_http.py; test_errors.py
# C2  errors inside a 200 ................ test_an_error_inside_a_success_raises
# C3, C4, C5, C7 order, count, values .... test_rows_go_by_index, test_a_broken_reply_raises
# C6  what is retried .................... test_what_is_tried_again; traffic/test_retry.py
# C7  timeouts ........................... test_there_is_always_a_timeout
# C8, C9, C10, C11 batches, concurrency, siblings, nothing to do: batching/test_plan.py, batching/test_dispatch.py;
#    embedders/test_base.py; test_limits_split_a_call
# C12 input types ........................ test_input_types_reach_each_provider
# C13 dimensions, dtype, truncate ........ test_options_reach_each_provider
# C14 usage, odd headers ................. test_odd_headers_do_no_harm; embedders/test_base.py
# C15 Ollama's list route ................ test_the_example_of_ollama
# C16 the same names everywhere .......... test_every_option_means_the_same_everywhere
# C17 configuration that stays ........... test_the_configuration_is_the_callers_no_longer, test_calls_at_once_do_not_mix
# C18 a missing key ...................... test_a_missing_key_is_one_clear_line, test_local_servers_are_sent_no_authorization
# C19 redirects .......................... test_a_redirect_is_not_followed
# C20, C21 response cap, rate limiter .... http/test_aiohttp_exchange.py; traffic/test_limiter.py
# C22 unit length ........................ embedders/test_http.py
# C23 an observer that breaks nothing .... test_events.py; test_an_observer_sees_start_and_end
# C24 the sync wrapper ................... sync/test_sync.py; test_the_examples_without_await
# C25 cache, C26 Azure, C27 codecs ....... the modules' own files; the section on Azure above; the golden exchanges
# D1 Cohere, D2 Hugging Face, D3 Ollama, D4 Nomic, D5 numbers: test_either_shape_of_cohere, test_shapes_of_hugging_face,
#    test_ollama_legacy_route, test_a_model_is_never_chosen_for_the_caller, test_the_numbers_are_float32

QUESTION = "What is the NATO purpose?"


def connected(provider, exchange=None, **keywords):
    """A seed provider's embedder over an exchange that knows its shape."""
    return embedkit.connect(**{**SEED[provider], **keywords}, exchange=exchange or FakeExchange(echo(provider)))


@pytest.mark.parametrize("provider", THERE)
async def test_the_same_call_on_every_provider(provider):
    """`await embedder.embed(list)` gives one float32 row per text, in order, whoever is asked."""
    texts = [QUESTION, "b", "a", QUESTION, "naïve 模型 \x00"]
    async with connected(provider, max_concurrency=1) as embedder:
        result = await embedder.embed(texts)

    assert result.vectors.dtype == np.float32
    assert np.allclose([vector(text) for text in texts], result.vectors, rtol=1e-6)
    assert (len(result), result.dimensions, result.failures) == (5, 8, {})


async def test_the_example_of_openai(monkeypatch):
    """The page's first example: the key from OPENAI_API_KEY, a list and a model in the body, a vector back."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    exchange = FakeExchange(echo("openai", lambda _: [0.1] * 1536))
    async with embedkit.connect("openai:text-embedding-ada-002", exchange=exchange) as embedder:
        result = await embedder.embed([QUESTION])

    request = exchange.requests[0]
    assert (request.method, request.url) == ("POST", "https://api.openai.com/v1/embeddings")
    assert authorized(request) == f"Bearer {KEY}"
    assert exchange.bodies == [{"input": [QUESTION], "model": "text-embedding-ada-002", "encoding_format": "base64"}]
    assert result.vectors.shape == (1, 1536)


@pytest.mark.parametrize(
    "base_url", [None, "http://localhost:11434/api", "http://localhost:11434/api/", "http://localhost:11434"]
)
@pytest.mark.parametrize("model", ["mistral", "llama2", "nomic-embed-text:v1.5"])
async def test_the_example_of_ollama(base_url, model):
    """The page's second example: with /api as it writes it, without,
    or by default; one list, no key, nothing cut in silence.
    """
    exchange = FakeExchange(echo("ollama"))
    async with embedkit.connect(f"ollama:{model}", base_url=base_url, exchange=exchange) as embedder:
        await embedder.embed([QUESTION, "b"])

    host = "localhost" if base_url else "127.0.0.1"
    assert exchange.requests[0].url == f"http://{host}:11434/api/embed"
    assert exchange.bodies == [{"model": model, "input": [QUESTION, "b"], "truncate": False}]
    assert authorized(exchange.requests[0]) is None


def test_the_examples_without_await():
    """Both examples again, in a script without an event loop."""
    with embedkit.connect_sync(OPENAI, api_key=KEY, exchange=FakeExchange(echo("openai"))) as embedder:
        assert embedder.embed([QUESTION]).vectors.shape == (1, 8)
    with embedkit.connect_sync(
        "ollama:mistral", base_url="http://localhost:11434/api", exchange=FakeExchange(echo("ollama"))
    ) as embedder:
        assert embedder.embed([QUESTION]).vectors.shape == (1, 8)


@pytest.mark.parametrize("model", ["localai:bert", "openai:bert", "compatible:bert"])
@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("http://host.test:8080", "http://host.test:8080/v1/embeddings"),
        ("http://host.test:8080/v1", "http://host.test:8080/v1/embeddings"),
        ("http://host.test:8080/v1/", "http://host.test:8080/v1/embeddings"),
    ],
)
async def test_localai_by_either_address(model, base_url, url):
    """LocalAI answers with and without /v1 in the address, needs
    no key, and gets one as Bearer, OpenAI's embedder included.
    """
    assert (await sent(model, base_url=base_url)).url == url
    assert authorized(await sent(model, base_url=base_url)) is None
    assert authorized(await sent(model, base_url=base_url, api_key=KEY)) == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("provider", "url", "body"),
    [
        ("cohere", "https://api.cohere.com/v2/embed",
         {"model": "embed-v4.0", "texts": [QUESTION], "input_type": "search_document", "embedding_types": ["float"],
          "truncate": "NONE"}),
        ("huggingface",
         "https://router.huggingface.co/hf-inference/models/sentence-transformers/all-MiniLM-L6-v2/pipeline/feature-extraction",
         {"inputs": [QUESTION]}),
        ("nomic", "https://api-atlas.nomic.ai/v1/embedding/text",
         {"model": "nomic-embed-text-v1.5", "texts": [QUESTION], "task_type": "search_document",
          "long_text_mode": "truncate"}),
    ],
)  # fmt: skip
async def test_requests_of_the_hosted_providers(provider, url, body):
    """Where and what the other hosted providers of the page are
    sent: today's routes, a list always, no field without a value.
    """
    exchange = FakeExchange(echo(provider))
    await connected(provider, exchange).embed([QUESTION])

    assert exchange.requests[0].url == url
    assert exchange.bodies == [body]
    assert authorized(exchange.requests[0]) == f"Bearer {KEY}"


async def test_a_custom_embedder_is_as_good():
    """A class of one's own takes the same calls, streams, and runs without await."""

    class Mine(embedkit.Embedder):
        limits = Limits(max_texts=2)

        async def embed_batch(self, texts, options):
            return embedkit.Embeddings(np.array([vector(text) for text in texts]), model="mine")

    result = await Mine().embed([QUESTION, "b", "c"])
    parts = [part.vectors async for part in Mine().stream([QUESTION, "b", "c"])]

    assert np.array_equal(result.vectors, np.concatenate(parts))
    assert np.array_equal(result.vectors[0], await Mine().embed_query(QUESTION))
    assert isinstance(embedkit.connect("ollama:m"), embedkit.Embedder)


async def test_the_callers_own_session_serves_every_provider():
    """Each provider sends over the caller's aiohttp session, headers of its own included, and leaves it open."""
    import aiohttp
    from aiohttp import web

    seen = []

    async def answer(request):
        seen.append((request.path, request.headers["x-mine"]))
        if request.method == "GET":
            return web.json_response({})
        body = json.loads(await request.read())
        rows = [vector(text) for text in next(body[name] for name in ("input", "inputs", "texts") if name in body)]
        return web.Response(body=shaped(request.path.split("/")[1], rows).body, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    async with aiohttp.ClientSession(headers={"x-mine": "yes"}) as session:
        for provider in THERE:
            embedder = embedkit.connect(
                **{**SEED[provider], "base_url": f"http://127.0.0.1:{port}/{provider}"}, session=session
            )
            assert np.allclose(vector("a"), await embedder.embed_query("a", input_type=None))
            await embedder.aclose()
            assert not session.closed
    await runner.cleanup()

    assert {path.split("/")[1] for path, _ in seen} == set(THERE)
    assert {mine for _, mine in seen} == {"yes"}


@pytest.mark.parametrize("provider", THERE)
async def test_every_failure_of_every_provider_raises(provider):
    """No status from 300 up is ever a result, empty or not: each is an ApiError that carries it."""
    for status in (
        302,
        400,
        401,
        402,
        403,
        404,
        405,
        408,
        409,
        410,
        413,
        422,
        424,
        425,
        429,
        431,
        500,
        501,
        502,
        503,
        504,
        529,
    ):
        embedder = connected(
            provider, FakeExchange(lambda _, status=status: response("", status)), retry=RetryPolicy(attempts=1)
        )
        with pytest.raises(ApiError) as caught:
            await embedder.embed(["a", "b"])

        assert (caught.value.status, caught.value.provider) == (status, provider)


@pytest.mark.parametrize("provider", THERE)
async def test_cancellation_reaches_every_provider(provider):
    """A cancelled call stops waiting for its answer at once, and the embedder is as good as new."""
    hanging = True

    async def handler(request):
        if hanging:
            await anyio.sleep_forever()
        return echo(provider)(request)

    embedder = connected(provider, FakeExchange(handler))
    async with anyio.create_task_group() as group:
        group.start_soon(embedder.embed, ["a"])
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    hanging = False

    assert np.allclose(vector("b"), await embedder.embed_query("b", input_type=None))


TRACE = ContextVar("TRACE", default=None)


async def test_an_observer_sees_start_and_end():
    """It hears of each request and its outcome with provider and
    model, in the caller's context, and of a failure as such.
    """
    seen = []
    exchange = FakeExchange([shaped("ollama", [vector("a")]), response("", 404)])
    embedder = embedkit.connect("ollama:m", observe=lambda event: seen.append((event, TRACE.get())), exchange=exchange)
    TRACE.set("trace-1")
    await embedder.embed("a")
    with pytest.raises(ApiError):
        await embedder.embed("b")

    assert [type(event) for event, _ in seen] == [
        CallStarted,
        RequestSent,
        AttemptEnded,
        BatchDone,
        CallEnded,
        CallStarted,
        RequestSent,
        AttemptEnded,
        BatchFailed,
        CallEnded,
    ]
    assert {(event.provider, event.model, trace) for event, trace in seen} == {("ollama", "m", "trace-1")}


async def test_a_stream_in_batches_of_32():
    """Any number of texts goes out 32 at a time, in order, when that is the limit."""
    exchange = FakeExchange(echo("ollama"))
    embedder = embedkit.connect("ollama:m", limits=Limits(max_texts=32), exchange=exchange)
    texts = [f"text {number}" for number in range(100)]
    parts = [part async for part in embedder.stream(texts)]

    assert sorted(len(texts_of(request)) for request in exchange.requests) == [4, 32, 32, 32]
    assert [part.start for part in parts] == [0, 32, 64, 96]
    assert np.allclose([vector(text) for text in texts], np.concatenate(parts))


async def test_ollama_legacy_route():
    """`legacy=True` speaks the older route: one prompt per request, the caller's options, values as they come."""
    exchange = FakeExchange(
        lambda request: response({"embedding": [3.0, 4.0 * len(json.loads(request.body)["prompt"])]})
    )
    embedder = embedkit.connect(
        "ollama:m", legacy=True, model_options={"temperature": 0}, max_concurrency=1, exchange=exchange
    )
    result = await embedder.embed(["a", "bb"])

    assert {request.url for request in exchange.requests} == {"http://127.0.0.1:11434/api/embeddings"}
    assert exchange.bodies == [{"model": "m", "prompt": text, "options": {"temperature": 0}} for text in ("a", "bb")]
    assert result.vectors.tolist() == [[3, 4], [3, 8]]


async def test_a_user_is_sent_only_when_there_is_one():
    """No empty `user` field: it goes out with `extra`, and not without."""
    assert "user" not in json.loads((await sent(OPENAI, api_key=KEY)).body)
    assert json.loads((await sent(OPENAI, api_key=KEY, extra={"user": "me"})).body)["user"] == "me"


@pytest.mark.parametrize("provider", THERE)
@pytest.mark.parametrize(
    "body", [{"error": {"message": "boom"}}, {"error": "boom"}, {"detail": "boom"}, {"message": "boom"}, {}, [], None]
)
async def test_an_error_inside_a_success_raises(provider, body):
    """A 200 without vectors is an error, with the provider's words where there are any; never an empty result."""
    embedder = connected(provider, FakeExchange(lambda _: response(body)), retry=RetryPolicy(attempts=1))
    with pytest.raises(DecodeError):
        await embedder.embed(["a"])


@pytest.mark.parametrize("provider", ["openai", "azure", "localai", "vllm"])
async def test_rows_go_by_index(provider):
    """A reply in another order is put right; doubled, missing and impossible indices are refused."""
    rows = [vector("a"), vector("b"), vector("c")]

    def answered(*indices):
        return {"data": [{"index": index, "embedding": rows[index % 3].tolist()} for index in indices]}

    result = await connected(provider, FakeExchange([answered(2, 0, 1)])).embed(["a", "b", "c"])
    assert np.allclose(rows, result.vectors)

    for wrong in ((0, 1, 1), (1, 2, 4), (0, 1, -1), (0, 1), (0, 1, 2, 3)):
        with pytest.raises(DecodeError):
            # One too few, without a gap: which one is looked for by further requests.
            script = (lambda _: answered(0, 1)) if wrong == (0, 1) else [answered(*wrong)]
            await connected(provider, FakeExchange(script)).embed(["a", "b", "c"])


BROKEN = {
    "none": [], "one more": [[1.0, 2.0]] * 3, "ragged": [[1.0, 2.0], [1.0]], "null inside": [[1.0, 2.0], [1.0, None]],
    "a null": [[1.0, 2.0], None], "empty": [[], []], "one empty": [[1.0], []], "text": [[1.0, 2.0], [1.0, "2"]],
    "huge": [[1.0], [1e39]],
}  # fmt: skip


@pytest.mark.parametrize("provider", THERE)
@pytest.mark.parametrize("rows", BROKEN.values(), ids=BROKEN)
async def test_a_broken_reply_raises(provider, rows):
    """Too few, too many, unequal, empty or senseless vectors are a
    DecodeError for every provider; no zero is made up.
    """
    with pytest.raises(DecodeError):
        await connected(
            provider, FakeExchange(lambda request: response({}) if request.method == "GET" else shaped(provider, rows))
        ).embed(["a", "b"])


@pytest.mark.parametrize("provider", THERE)
async def test_what_is_tried_again(provider):
    """What may pass later is sent again, what cannot is not; over every provider."""
    for status in (408, 409, 425, 429, 500, 502, 503, 504, 520, 529):
        answers = iter([response("", status)])
        exchange = FakeExchange(lambda request, answers=answers: next(answers, None) or echo(provider)(request))
        embedder = connected(provider, exchange, retry=NOW, api_key=f"{KEY}-{status}")
        embedder._probed = True
        result = await embedder.embed("a")

        assert result.usage.requests == 2
    for status in (401, 402, 403, 404, 405, 410, 501):
        exchange = FakeExchange(lambda _, status=status: response("", status))
        embedder = connected(provider, exchange, retry=NOW, api_key=f"{KEY}-{status}")
        embedder._probed = True
        with pytest.raises(ApiError):
            await embedder.embed("a")

        assert len(exchange.requests) == 1


@pytest.mark.parametrize("provider", THERE)
def test_there_is_always_a_timeout(provider):
    """Nobody has to ask for one: each attempt ends after minutes at most, connecting after seconds."""
    http = connected(provider)._http

    assert 0 < http.connect <= 10
    assert 0 < http.timeout <= 600


async def test_limits_split_a_call():
    """A provider's own limit on texts per request is kept without a word from the caller: Cohere takes 96."""
    exchange = FakeExchange(echo("cohere"))
    texts = [f"text {number}" for number in range(250)]
    result = await connected("cohere", exchange).embed(texts)

    assert sorted(len(texts_of(request)) for request in exchange.requests) == [58, 96, 96]
    assert np.allclose([vector(text) for text in texts], result.vectors)
    assert result.usage.requests == 3


@pytest.mark.parametrize(
    ("model", "query", "document"),
    [
        ("cohere:embed-v4.0", {"input_type": "search_query"}, {"input_type": "search_document"}),
        ("nomic:nomic-embed-text-v1.5", {"task_type": "search_query"}, {"task_type": "search_document"}),
        ("ollama:nomic-embed-text", {"input": ["search_query: a"]}, {"input": ["search_document: a"]}),
        ("ollama:bge-m3", {"input": ["a"]}, {"input": ["a"]}),
        ("huggingface:intfloat/e5-small-v2", {"inputs": ["query: a"]}, {"inputs": ["passage: a"]}),
        ("tei:intfloat/e5-small-v2", {"inputs": ["query: a"]}, {"inputs": ["passage: a"]}),
        ("vllm:intfloat/e5-small-v2", {"input": ["query: a"]}, {"input": ["passage: a"]}),
        ("openai:text-embedding-3-small", {"input": ["a"]}, {"input": ["a"]}),
    ],
)
async def test_input_types_reach_each_provider(model, query, document):
    """A query and a document are told apart by each provider's own means; left out, nothing or `document` is said."""
    for input_type, fields in (("query", query), ("document", document)):
        body = json.loads((await sent(model, api_key=KEY, input_type=input_type)).body)
        assert {name: body[name] for name in fields} == fields


@pytest.mark.parametrize("model", ["openai:text-embedding-3-small", "ollama:bge-m3", "tei:BAAI/bge-m3", "vllm:m"])
async def test_a_purpose_a_model_does_not_know_is_refused(model):
    """`query` and `document` run everywhere; the other purposes are refused where they would mean nothing."""
    with pytest.raises(ConfigError, match="cannot do input_type='clustering'; it takes 'document', 'query'"):
        await sent(model, api_key=KEY, input_type="clustering")


@pytest.mark.parametrize(
    ("model", "options", "fields"),
    [
        ("openai:text-embedding-3-small", {"dimensions": 8}, {"dimensions": 8, "encoding_format": "base64"}),
        ("azure:ada", {"dimensions": 8, "base_url": "https://r.openai.azure.com"}, {"dimensions": 8}),
        ("ollama:m", {"dimensions": 8, "truncate": "end"}, {"dimensions": 8, "truncate": True}),
        ("ollama:m", {"truncate": "error"}, {"truncate": False}),
        ("cohere:embed-v4.0", {"truncate": "end"}, {"truncate": "END"}),
        ("nomic:nomic-embed-text-v1.5", {"dimensions": 64}, {"dimensionality": 64}),
        (
            "tei:m",
            {"dimensions": 8, "normalize": False, "truncate": "end"},
            {"dimensions": 8, "normalize": False, "truncate": True},
        ),
        ("vllm:m", {"dimensions": 8, "truncate": "end"}, {"dimensions": 8, "truncate_prompt_tokens": -1}),
        ("huggingface:m", {"truncate": "end", "normalize": True}, {"truncate": True, "normalize": True}),
    ],
)
async def test_options_reach_each_provider(model, options, fields):
    """Width, truncation and unit length travel under each provider's own names, and only when asked for."""
    wide = {"nomic": 64}.get(provider_of(model), 8)
    exchange = FakeExchange(echo(provider_of(model), FakeEmbedder(wide).vector))
    await embedkit.connect(model, api_key=KEY, exchange=exchange, **options).embed("a")
    body = exchange.bodies[-1]

    assert {name: body[name] for name in fields} == fields
    assert None not in body.values()


async def test_a_smaller_dtype_reaches_cohere():
    """Where the provider has the dtype, it is asked for and its own bytes are given."""
    exchange = FakeExchange([{"embeddings": {"int8": [[-128, 0, 127]]}}])
    result = await connected("cohere", exchange, dtype="int8").embed("a")

    assert exchange.bodies[0]["embedding_types"] == ["int8"]
    assert result.vectors.dtype == np.int8
    assert result.vectors.tolist() == [[-128, 0, 127]]


@pytest.mark.parametrize("provider", THERE)
async def test_odd_headers_do_no_harm(provider):
    """A good answer stays one whatever its headers say: fractions, words, another content type."""
    odd = {
        "X-RateLimit-Remaining-Requests": "1.5", "X-RateLimit-Limit-Tokens": "many",
        "X-Endpoint-Monthly-Call-Limit": "-1",
        "Retry-After": "soon", "Content-Type": "text/plain", "X-Compute-Tokens": "n/a",
        "X-RateLimit-Reset-Requests": "",
    }  # fmt: skip
    answer = shaped(provider, [vector("a")])
    odd_answer = response(answer.body, 200, odd)
    result = await connected(
        provider, FakeExchange(lambda request: response({}) if request.method == "GET" else odd_answer)
    ).embed("a")

    assert np.allclose([vector("a")], result.vectors)
    assert result.usage.tokens is None


@pytest.mark.parametrize("provider", THERE)
async def test_every_option_means_the_same_everywhere(provider):
    """The common keywords have one name each for every provider, `query` and `document` included."""
    exchange = FakeExchange(echo(provider))
    embedder = connected(
        provider, exchange, api_key=KEY, base_url="http://localhost:1/own", headers={"x-a": "1"}, extra={"own": 1},
        timeout=5,
        max_concurrency=2, limits=Limits(max_texts=2), rate=Rate(requests_per_minute=6e6), input_type="document",
        normalize=True,
        count_tokens=len, observe=lambda _: None,
    )  # fmt: skip
    result = await embedder.embed(["a", "b", "c"])
    await embedder.embed_query("d")

    assert np.allclose(np.linalg.norm(result.vectors, axis=1), 1)
    for request in exchange.requests:
        assert request.url.startswith("http://localhost:1/own")
        assert authorized(request).removeprefix("Bearer ") == KEY
        assert request.headers["x-a"] == "1"
    assert [body["own"] for body in exchange.bodies] == [1] * len(exchange.bodies)


async def test_calls_at_once_do_not_mix():
    """One embedder in many tasks, each call with options of its own: every call gets its own answer."""
    exchange = FakeExchange(
        lambda request: echo("ollama", FakeEmbedder(json.loads(request.body).get("dimensions", 8)).vector)(request)
    )
    embedder = embedkit.connect("ollama:m", exchange=exchange)
    found = {}

    async def one(width):
        found[width] = await embedder.embed([f"text of {width}", "shared"], dimensions=width)

    async with anyio.create_task_group() as group:
        for width in range(2, 40):
            group.start_soon(one, width)

    for width, result in found.items():
        made = FakeEmbedder(width).vector
        assert np.allclose([made(f"text of {width}"), made("shared")], result.vectors)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status):
    """A redirect is an error that names the new address and base_url; neither texts nor key go there."""
    exchange = FakeExchange([response("", status, {"Location": "https://evil.test/v1"})])
    with pytest.raises(ApiError, match=r"redirects to https://evil.test/v1; .* set base_url"):
        await connected("openai", exchange).embed("a")

    assert len(exchange.requests) == 1


@pytest.mark.parametrize(
    "body",
    [{"embeddings": {"float": [[1, 2]]}}, {"embeddings": [[1, 2]]}, {"embeddings": {"float": [[1, 2]], "int8": None}}],
)
async def test_either_shape_of_cohere(body):
    """Version 2's mapping by type and version 1's plain list are both read."""
    assert (await connected("cohere", FakeExchange([body])).embed("a")).vectors.tolist() == [[1, 2]]


async def test_shapes_of_hugging_face():
    """Pooled vectors are taken as they are; one vector per token
    needs to be told how to pool, or is refused with the way out.
    """
    tokens = [[[1.0, 0.0], [3.0, 4.0]]]
    for reply in ([[1.0, 2.0]], [1.0, 2.0]):
        assert (await connected("huggingface", FakeExchange([response(reply)])).embed("a")).vectors.tolist() == [[1, 2]]
    for how, row in (("mean", [2, 2]), ("cls", [1, 0]), ("last", [3, 4])):
        assert (
            await connected("huggingface", FakeExchange([response(tokens)]), pooling=how).embed("a")
        ).vectors.tolist() == [row]
    with pytest.raises(DecodeError, match="one vector per token, not per text: pass pooling='mean'"):
        await connected("huggingface", FakeExchange([response(tokens)])).embed("a")


@pytest.mark.parametrize("provider", THERE)
async def test_a_model_is_never_chosen_for_the_caller(provider):
    """There is no default model that could change the space of the
    vectors: "provider" alone is refused, any name goes out as given.
    """
    with pytest.raises(ConfigError):
        embedkit.connect(provider, api_key=KEY)
    if provider in ("cohere", "nomic", "ollama", "openai", "voyage"):
        model = {"nomic": "nomic-embed-text-v1"}.get(provider, "some/old-model")
        assert json.loads((await sent(f"{provider}:{model}", api_key=KEY)).body)["model"] == model


async def test_the_numbers_are_float32():
    """Values are the nearest float32 of what came, no more digits and no fewer."""
    given = [0.1, 1 / 3, -1e-8, 16_777_217.0, 1e-45]
    result = await connected("openai", FakeExchange([shaped("openai", [given])])).embed("a")

    assert result.vectors.tobytes() == np.array([given], np.float32).tobytes()
