"""`embedkit.contrib.otel`, with the real SDK: spans, metrics, the trace in the headers, and what is never recorded."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import threading

import pytest
from aiohttp import web
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import embedkit
from embedkit import (
    AuthError,
    ClosedError,
    EmbedkitError,
    InvalidInputError,
    RateLimitError,
    RetryPolicy,
    SyncEmbedder,
)
from embedkit.contrib import otel
from embedkit.events import CallEnded, CallStarted, Event
from embedkit.testing import FakeEmbedder, FakeExchange, response

pytestmark = pytest.mark.anyio
KEY = "sk-PLANTED-9f8e7d6c5b4a"
TEXT = "a text that nobody else shall read"
NOW = RetryPolicy(attempts=3, initial=0.0)
BUSY = response({"error": {"message": f"busy with {TEXT!r} of {KEY}"}}, 503)
URL = "http://h.test:8080/v1"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


class Sdk:
    """The real SDK, with what it exports at hand."""

    def __init__(self, **more):
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider(resource=Resource({}), **more)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader], Resource({}))

    def instrument(self, **more):
        return otel.instrument(tracer_provider=self.tracers, meter_provider=self.meters, **more)

    def connect(self, answers=None, settings=None, **more):
        exchange = answers if isinstance(answers, FakeExchange) else FakeExchange(answers or good)
        more = {"base_url": URL, "retry": NOW, "api_key": KEY, **more}
        return embedkit.connect("compatible:m", exchange=exchange, **more, **self.instrument(**(settings or {})))

    def span(self, name):
        return self.tracers.get_tracer("test").start_as_current_span(name)

    @property
    def spans(self):
        return self.exporter.get_finished_spans()

    def named(self, prefix):
        return [span for span in self.spans if span.name.split(" ")[0] == prefix]

    @property
    def calls(self):
        return self.named("embeddings")

    @property
    def attempts(self):
        return self.named("embeddings.attempt")

    def points(self, name):
        data = self.reader.get_metrics_data()
        found = [
            metric for resource in (data.resource_metrics if data else ()) for scope in resource.scope_metrics
            for metric in scope.metrics if metric.name == name
        ]  # fmt: skip
        return [point for metric in found for point in metric.data.data_points]


@pytest.fixture
def sdk():
    return Sdk()


def good(request):
    texts = json.loads(request.body)["input"]
    rows = [{"index": row, "embedding": [1.0, 0.0]} for row in range(len(texts))]
    return response({"data": rows, "model": "m-2", "usage": {"prompt_tokens": 3 * len(texts)}})


def script(*answers):
    left = list(answers)

    def answer(request):
        return left.pop(0) if left else good(request)

    return answer


def below(span, parent):
    """Whether the span lies directly below the other, in the same trace."""
    above = parent.get_span_context()
    return span.parent is not None and (span.parent.trace_id, span.parent.span_id) == (above.trace_id, above.span_id)


def everything(spans):
    """All that is exported of these spans, in one text."""
    return " ".join(span.to_json() for span in spans)


# --- spans -----------------------------------------------------------------------------------------------------------


async def test_a_call_is_a_span_by_the_conventions(sdk):
    """Name, kind and attributes as the conventions say; the attempt is a span below it, without those of the call."""
    with sdk.span("mine") as mine:
        result = await sdk.connect().embed(["a", "b"])
    (call,), (attempt,) = sdk.calls, sdk.attempts

    assert result.usage.tokens == 6
    assert (call.name, call.kind, call.status.status_code) == ("embeddings m", SpanKind.CLIENT, StatusCode.UNSET)
    assert dict(call.attributes) == {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "compatible",
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "m-2",
        "gen_ai.usage.input_tokens": 6,
        "gen_ai.embeddings.dimension.count": 2,
        "server.address": "h.test",
        "server.port": 8080,
        "embedkit.texts": 2,
        "embedkit.requests": 1,
    }
    assert below(call, mine)
    assert below(attempt, call)
    assert attempt.kind == SpanKind.CLIENT
    assert attempt.attributes["http.response.status_code"] == 200
    assert not [name for name in attempt.attributes if name.startswith("gen_ai")]
    assert call.start_time <= attempt.start_time <= attempt.end_time <= call.end_time
    assert call.instrumentation_scope.schema_url == "https://opentelemetry.io/schemas/1.41.0"


async def test_what_stands_beside_is_untouched(sdk):
    """After a call, failed or not, the caller's own span is the current one again."""
    embedder = sdk.connect(script(response("no", 401)))
    with sdk.span("mine") as mine:
        with pytest.raises(EmbedkitError):
            await embedder.embed(["a"])
        assert trace.get_current_span() is mine
        await embedder.embed_query("a")
        assert trace.get_current_span() is mine
    assert not trace.get_current_span().get_span_context().is_valid


async def test_retries_are_events_of_the_call(sdk):
    """Each attempt has its span with its own status; the call has one event per retry, and is no failure."""
    await sdk.connect(script(BUSY, BUSY)).embed(["a"])
    (call,) = sdk.calls

    assert [span.attributes["http.response.status_code"] for span in sdk.attempts] == [503, 503, 200]
    assert [span.attributes.get("http.request.resend_count") for span in sdk.attempts] == [None, 1, 2]
    assert [span.attributes.get("error.type") for span in sdk.attempts] == ["503", "503", None]
    assert [span.status.status_code for span in sdk.attempts] == [StatusCode.ERROR, StatusCode.ERROR, StatusCode.UNSET]
    assert [event.name for event in call.events] == ["embedkit.retry"] * 2
    assert dict(call.events[0].attributes) == {
        "embedkit.attempt": 1, "embedkit.wait": 0.0, "error.type": "ServerError", "http.response.status_code": 503,
    }  # fmt: skip
    assert call.status.status_code == StatusCode.UNSET
    assert call.attributes["embedkit.requests"] == 3


FAILURES = {
    "refused": ([response("no", 429)] * 3, RateLimitError, "RateLimitError", "429"),
    "gone": ([embedkit.TransportError("reset")] * 3, embedkit.TransportError, "TransportError", "TransportError"),
    "junk": ([response("junk")] * 2, embedkit.DecodeError, "DecodeError", "200"),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_a_failure_has_its_kind(sdk, name):
    """`error.type` is the class of the error on the call, the status on the attempt where one came."""
    answers, kind, told, status = FAILURES[name]
    with pytest.raises(kind):
        await sdk.connect(script(*answers)).embed(["a"])
    (call,) = sdk.calls

    assert (call.attributes["error.type"], call.status.status_code) == (told, StatusCode.ERROR)
    assert {span.attributes["error.type"] for span in sdk.attempts} == {status}


async def test_a_bad_text_is_an_event(sdk):
    """A batch that is split, and a row that is given up, are events of the call, which has the number of such rows."""

    def answer(request):
        texts = json.loads(request.body)["input"]
        return response({"error": {"message": f"bad: {texts}"}}, 400) if "bad" in texts else good(request)

    result = await sdk.connect(answer).embed(["a", "bad", "b"], on_error="skip")
    (call,) = sdk.calls

    assert list(result.failures) == [1]
    assert call.attributes["embedkit.failed"] == 1
    assert {event.name for event in call.events} == {"embedkit.batch.split", "embedkit.batch.failed"}
    assert call.events[-1].attributes["error.type"] == "InvalidInputError"


def test_a_cancelled_call_says_so(sdk):
    """A caller that gives up ends its spans, each with the kind "cancelled"."""

    async def main():
        async def wait(_):
            await asyncio.sleep(60)

        call = asyncio.create_task(sdk.connect(wait).embed(["a"]))
        await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(main())

    assert [span.attributes["error.type"] for span in sdk.spans] == ["cancelled", "cancelled"]


def test_a_closed_embedder_leaves_no_span_open(sdk):
    """`aclose` during a call ends its spans."""

    async def main():
        async def wait(_):
            await asyncio.sleep(60)

        embedder = sdk.connect(wait)
        call = asyncio.create_task(embedder.embed(["a"]))
        await asyncio.sleep(0.01)
        await embedder.aclose()
        with pytest.raises(ClosedError):
            await call

    asyncio.run(main())

    assert len(sdk.spans) == 2


async def test_an_embedder_of_ones_own_is_traced(sdk):
    """Without HTTP there is a span of the call, with dimensions and tokens, and none of attempts."""
    embedder = FakeEmbedder(4)
    embedder.observe = sdk.instrument()["observe"]
    await embedder.embed(["two words"])
    (call,) = sdk.spans

    assert call.name == "embeddings fake"
    assert call.attributes["gen_ai.embeddings.dimension.count"] == 4
    assert call.attributes["gen_ai.usage.input_tokens"] == 2
    assert "server.address" not in call.attributes


async def test_a_failure_of_ones_own_has_its_class(sdk):
    """What an embedder of one's own raises is the kind of the failure."""

    class Own(FakeEmbedder):
        async def embed_batch(self, texts, options):
            raise LookupError

    embedder = Own()
    embedder.observe = sdk.instrument()["observe"]
    with pytest.raises(LookupError):
        await embedder.embed(["a"])

    assert sdk.calls[0].attributes["error.type"] == "LookupError"


# --- who is below whom -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("texts", [1, 5])
def test_a_hundred_calls_at_once_have_their_own_parents(sdk, texts):
    """Each call lies below the span of its own task, each attempt below its own call; 5 texts are 5 requests."""

    async def main():
        async def answer(request):
            await asyncio.sleep(0.001)
            return good(request)

        embedder = sdk.connect(answer, limits=embedkit.Limits(max_texts=1))

        async def one(number):
            with sdk.span(f"mine {number}"):
                await embedder.embed([f"{number} {each}" for each in range(texts)])

        await asyncio.gather(*map(one, range(100)))

    asyncio.run(main())
    mine = {span.get_span_context().span_id: span for span in sdk.named("mine")}
    calls = {span.get_span_context().span_id: span for span in sdk.calls}

    assert len(mine) == len(calls) == 100
    assert len(sdk.attempts) == 100 * texts
    assert {span.parent.span_id for span in calls.values()} == mine.keys()
    assert sorted(span.parent.span_id for span in sdk.attempts) == sorted(texts * list(calls))
    for span in sdk.attempts:
        assert span.context.trace_id == mine[calls[span.parent.span_id].parent.span_id].context.trace_id


def test_the_sync_embedder_has_the_callers_parent(sdk):
    """Threads that call without `await` have their own spans above, though one loop serves all of them."""
    embedder = SyncEmbedder(sdk.connect())

    def one(number):
        with sdk.span(f"mine {number}"):
            embedder.embed([f"{number}"])

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    embedder.close()
    mine = [span.context.span_id for span in sdk.named("mine")]

    assert sorted(span.parent.span_id for span in sdk.calls) == sorted(mine)


@pytest.mark.parametrize("sync", [False, True])
def test_the_parts_of_a_stream_lie_below_its_reader(sdk, sync):
    """Each part is a call, below the span in which the stream was begun."""
    embedder = sdk.connect(limits=embedkit.Limits(max_texts=2))

    async def main():
        with sdk.span("mine"):
            assert [len(part) async for part in embedder.stream(["a", "b", "c"])] == [2, 1]

    if sync:
        with sdk.span("mine"):
            assert [len(part) for part in SyncEmbedder(embedder).stream(["a", "b", "c"])] == [2, 1]
    else:
        asyncio.run(main())
    (mine,) = sdk.named("mine")

    assert [below(span, mine) for span in sdk.calls] == [True, True]
    assert sorted(span.attributes["embedkit.texts"] for span in sdk.calls) == [1, 2]


def test_calls_that_share_a_request_are_linked_to_it(sdk):
    """Each caller has its own span below its own parent; the shared request lies below one of them and links to all."""

    async def main():
        async def answer(request):
            await asyncio.sleep(0.01)
            return good(request)

        embedder = sdk.connect(answer, coalesce=0.005)

        async def one(number):
            with sdk.span(f"mine {number}"):
                await embedder.embed_query(f"{number}")

        await asyncio.gather(*map(one, range(10)))

    asyncio.run(main())
    shared = [span for span in sdk.calls if "embedkit.callers" in span.attributes]
    callers = {span.context.span_id for span in sdk.calls} - {span.context.span_id for span in shared}
    linked = [link.context.span_id for span in shared for link in span.links]

    assert len(callers) == 10
    assert sorted(linked) == sorted(callers)
    assert {span.parent.span_id for span in shared} <= callers
    assert {span.parent.span_id for span in sdk.attempts} == {span.context.span_id for span in shared}
    assert sorted(span.parent.span_id for span in sdk.calls if span not in shared) == sorted(
        span.context.span_id for span in sdk.named("mine")
    )
    assert sum(point.count for point in sdk.points("gen_ai.client.operation.duration")) == 10
    assert sum(point.sum for point in sdk.points("gen_ai.client.token.usage")) == 30


async def test_endpoints_of_a_pool_are_told_apart(sdk):
    """Attempts name the server that they went to; what fails at one is an event, and all lie below the call."""

    def answer(request):
        texts = json.loads(request.body)["input"]
        return BUSY if "//a:1" in request.url and texts != ["hello"] else good(request)

    embedder = sdk.connect(answer, base_url=["http://a:1/v1", "http://b:2/v1"])
    await embedder.embed(["a"])
    await embedder.embed(["b"])
    servers = {(span.attributes["server.address"], span.attributes["server.port"]) for span in sdk.attempts}

    assert servers == {("a", 1), ("b", 2)}
    assert {span.parent.span_id for span in sdk.attempts} == {span.context.span_id for span in sdk.calls}
    assert [event.name for span in sdk.calls for event in span.events] == ["embedkit.retry"]


# --- the trace travels -----------------------------------------------------------------------------------------------


async def test_the_trace_is_in_the_headers(sdk):
    """Every attempt carries the context of its own span, as the global propagator writes it."""
    exchange = FakeExchange(script(BUSY))
    await sdk.connect(exchange).embed(["a"])
    sent = [
        trace.get_current_span(TraceContextTextMapPropagator().extract(request.headers)).get_span_context()
        for request in exchange.requests
    ]

    assert [context.span_id for context in sent] == [span.context.span_id for span in sdk.attempts]
    assert {context.trace_id for context in sent} == {sdk.calls[0].context.trace_id}


async def later():
    return {"x-mine": "later"}


OWN = {
    "a mapping": ({"x-mine": "fixed"}, "fixed"),
    "a function": (lambda: {"x-mine": "asked"}, "asked"),
    "an async function": (later, "later"),
    "one that wins": ({"x-mine": "mine", "traceparent": "00-1"}, "mine"),
}


@pytest.mark.parametrize("name", OWN)
async def test_headers_and_observers_of_ones_own_stay(sdk, name):
    """What `instrument` is given goes along: headers of any kind win, and the observer hears every event."""
    headers, value = OWN[name]
    exchange, seen = FakeExchange(good), []
    await sdk.connect(exchange, {"headers": headers, "observe": seen.append}).embed(["a"])

    assert exchange.requests[0].headers["x-mine"] == value
    assert (exchange.requests[0].headers["traceparent"] == "00-1") == (name == "one that wins")
    assert {CallStarted, CallEnded} < {type(event) for event in seen}


# --- metrics ---------------------------------------------------------------------------------------------------------


async def test_the_metrics(sdk):
    """Durations and tokens of calls by the conventions, with their buckets; waits of attempts of our own."""
    embedder = sdk.connect(script(BUSY))
    await embedder.embed(["a", "b"])
    with pytest.raises(AuthError):
        await sdk.connect(script(response("no", 401))).embed(["a"])
    ((good, bad), (tokens,)) = (
        sorted(sdk.points("gen_ai.client.operation.duration"), key=lambda point: "error.type" in point.attributes),
        sdk.points("gen_ai.client.token.usage"),
    )

    assert dict(good.attributes) == {
        "gen_ai.operation.name": "embeddings", "gen_ai.provider.name": "compatible", "gen_ai.request.model": "m",
        "gen_ai.response.model": "m-2", "server.address": "h.test", "server.port": 8080,
    }  # fmt: skip
    assert (good.count, bad.count, bad.attributes["error.type"]) == (1, 1, "AuthError")
    assert good.sum == pytest.approx((sdk.calls[0].end_time - sdk.calls[0].start_time) / 1e9, abs=0.05)
    assert (tokens.sum, tokens.attributes["gen_ai.token.type"]) == (6, "input")
    assert tokens.explicit_bounds[:3] == (1, 4, 16)
    assert good.explicit_bounds[:3] == (0.01, 0.02, 0.04)
    assert sum(point.count for point in sdk.points("embedkit.client.wait.duration")) == 3


def test_waits_and_the_window_are_measured(sdk):
    """A request that waits for a place has waited; a 429 makes the window smaller, and the gauge shows it."""

    async def main():
        async def answer(request):
            await asyncio.sleep(0.02)
            return good(request)

        embedder = sdk.connect(answer, max_concurrency=1)
        await asyncio.gather(*(embedder.embed([f"{each}"]) for each in range(3)))
        embedder = sdk.connect(script(*[response("slow down", 429, {"retry-after": "0"})] * 2), max_concurrency=16)
        await asyncio.gather(*(embedder.embed([f"{each}"]) for each in range(16)))

    asyncio.run(main())
    (waits,) = [point for point in sdk.points("embedkit.client.wait.duration") if point.max > 0]
    (window,) = sdk.points("embedkit.client.window")

    assert waits.max >= 0.02
    assert 1 <= window.value < 16
    assert window.attributes["server.address"]


async def test_the_cost_is_counted(sdk):
    """By the price of the model, where one is known."""
    embedder = sdk.connect()
    embedder.price = 2.0
    await embedder.embed(["a"])

    assert sdk.points("embedkit.client.cost")[0].value == pytest.approx(6e-6)
    assert sdk.calls[0].attributes["embedkit.cost"] == pytest.approx(6e-6)


# --- what is never recorded ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("messages", [False, True])
async def test_no_text_and_no_key_is_recorded(sdk, messages):
    """A server that quotes both in its refusals: neither is in a span, an event or a metric; with `messages=True` its
    words are, and never the key.
    """

    def answer(request):
        texts = json.loads(request.body)["input"]
        said = {"error": {"message": f"cannot embed {texts} for {request.headers['authorization']}"}}
        return response(said, 400) if TEXT in texts else good(request)

    embedder = sdk.connect(answer, {"messages": messages})
    await embedder.embed(["a", TEXT], on_error="skip")
    with pytest.raises(InvalidInputError, match="nobody"):
        await embedder.embed([TEXT])
    shown = everything(sdk.spans) + str(sdk.reader.get_metrics_data())

    assert (TEXT in shown) == messages
    assert KEY not in shown
    assert "PLANTED" not in shown


async def test_what_is_not_sampled_still_works(caplog):
    """Where the sampler drops the trace nothing is exported, calls work, and nothing complains."""
    sdk = Sdk(sampler=ALWAYS_OFF)
    with caplog.at_level(logging.WARNING):
        result = await sdk.connect(script(BUSY)).embed(["a"])

    assert result.vectors.shape == (1, 2)
    assert sdk.spans == ()
    assert [record for record in caplog.records if record.name.startswith("opentelemetry")] == []


async def test_without_an_sdk_it_costs_nothing_but_time():
    """The API alone makes spans that go nowhere, and no header."""
    exchange = FakeExchange(good)
    embedder = embedkit.connect("compatible:m", base_url=URL, exchange=exchange, **otel.instrument())
    await embedder.embed(["a"])

    assert "traceparent" not in exchange.requests[0].headers


def test_it_travels():
    """An instrumented embedder pickles where it uses the global providers; the copy traces too."""
    embedder = embedkit.connect("compatible:m", base_url=URL, **otel.instrument(messages=True))
    twin = pickle.loads(pickle.dumps(embedder))  # noqa: S301 (our own)

    assert twin.observe.__self__._messages
    assert isinstance(twin.observe.__self__, otel.Tracing)


def test_names_of_providers_are_the_well_known_ones():
    """Every value in the table is one that the conventions define."""
    from opentelemetry.semconv._incubating.attributes.gen_ai_attributes import GenAiProviderNameValues

    assert set(otel.PROVIDERS.values()) <= {each.value for each in GenAiProviderNameValues}
    assert set(otel.PROVIDERS) <= {host.name for host in embedkit.providers.hosts()}


def test_an_event_of_a_kind_to_come_is_passed_over(sdk):
    """An event that it does not know, and the end of a call whose beginning it has not seen, are nothing to it."""

    class New(Event, frozen=True, kw_only=True):
        """Of a later version."""

    observe = sdk.instrument()["observe"]
    observe(New())
    observe(CallEnded(texts=1, seconds=1.0, call=7))

    assert sdk.spans == ()


# --- all the way -----------------------------------------------------------------------------------------------------


def test_spans_arrive_at_a_collector():
    """The real exporter sends over HTTP, and a receiver reads from protobuf what was embedded over HTTP; the API got the
    very span that the collector has.
    """
    received, sent = [], []

    async def collect(request):
        message = ExportTraceServiceRequest.FromString(await request.read())
        received.extend(span for each in message.resource_spans for scope in each.scope_spans for span in scope.spans)
        return web.Response(body=b"", content_type="application/x-protobuf")

    async def embed(request):
        sent.append(request.headers["traceparent"])
        rows = [{"index": row, "embedding": [0.5, 0.5]} for row in range(len((await request.json())["input"]))]
        return web.json_response({"data": rows, "model": "served", "usage": {"prompt_tokens": 7}})

    async def main():
        app = web.Application()
        app.add_routes([web.post("/v1/traces", collect), web.post("/v1/embeddings", embed)])
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        tracers = TracerProvider(resource=Resource({}))
        processor = SimpleSpanProcessor(OTLPSpanExporter(f"http://127.0.0.1:{port}/v1/traces"))
        seen = InMemorySpanExporter()
        tracers.add_span_processor(SimpleSpanProcessor(seen))
        keywords = otel.instrument(tracer_provider=tracers)
        async with embedkit.connect("compatible:m", base_url=f"http://127.0.0.1:{port}/v1", **keywords) as embedder:
            await embedder.embed(["a", "b"])
        # Exported beside the loop, since the exporter blocks and the receiver runs on it.
        for span in seen.get_finished_spans():
            await asyncio.to_thread(processor.on_end, span)
        await asyncio.to_thread(processor.shutdown)
        await runner.cleanup()

    asyncio.run(main())
    attempt, call = received

    assert call.name == "embeddings m"
    told = {each.key: each.value for each in call.attributes}
    assert told["gen_ai.usage.input_tokens"].int_value == 7
    assert told["gen_ai.response.model"].string_value == "served"
    assert attempt.parent_span_id == call.span_id
    version, *ids, _ = sent[0].split("-")  # the last says how the trace is sampled
    assert (version, *ids) == ("00", attempt.trace_id.hex(), attempt.span_id.hex())
