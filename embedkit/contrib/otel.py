"""OpenTelemetry: spans and metrics of what an embedder does. To install: `pip install '.[otel]'`.

>>> import embedkit
>>> from embedkit.contrib import otel
>>> embedder = embedkit.connect("openai:text-embedding-3-small", **otel.instrument())

Names follow the semantic conventions for generative AI of OpenTelemetry 1.41.0, the last version in which they are part
of the main conventions: https://github.com/open-telemetry/semantic-conventions/tree/v1.41.0/docs/gen-ai

- A call of `embed` or `embed_query` is a span "embeddings {model}" below the caller's current span; each attempt of its
  requests is a span below that, and travels in the request's headers. Retries, splits and rows given up are events.
- `gen_ai.client.operation.duration`, `gen_ai.client.token.usage`; and of our own `embedkit.client.wait.duration` (for a
  turn), `embedkit.client.window` (requests that may be in flight) and `embedkit.client.cost` (US dollars).

No text, vector or key is ever recorded. What a provider says of an error may quote a text, so it is recorded only with
`messages=True`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from inspect import isawaitable
from typing import Any, TypedDict
from urllib.parse import urlsplit

from opentelemetry import context, metrics, propagate, trace
from opentelemetry.trace import Link, Span, SpanKind, StatusCode

import embedkit
from embedkit import EmbedkitError
from embedkit.events import (
    AttemptEnded,
    BatchFailed,
    BatchSplit,
    CallEnded,
    CallStarted,
    Event,
    RequestSent,
    RetryScheduled,
    WindowChanged,
)

Headers = Mapping[str, str] | Callable[[], Mapping[str, str] | Awaitable[Mapping[str, str]]]
Observer = Callable[[Event], object]
_Attributes = dict[str, str | int | float]

SCHEMA = "https://opentelemetry.io/schemas/1.41.0"
# Well-known values of gen_ai.provider.name, where they differ from ours.
PROVIDERS = {
    "azure": "azure.ai.openai",
    "azureaifoundry": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
}
# Both of gen-ai-metrics.md.
SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS = tuple(4**power for power in range(14))
PORTS = {"http": 80, "https": 443}


class Keywords(TypedDict):
    """The keywords of `embedkit.connect` that `instrument` gives."""

    observe: Observer
    headers: Callable[[], Mapping[str, str] | Awaitable[Mapping[str, str]]]


def instrument(
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
    messages: bool = False,
    observe: Observer | None = None,
    headers: Headers | None = None,
) -> Keywords:
    """Keywords for `embedkit.connect` and `embedkit.connect_sync`, by which what they make is traced and measured.

    Args:
        tracer_provider: who makes spans; None: the global one.
        meter_provider: who measures; None: the global one.
        messages: record what errors say. A provider's words may quote a text.
        observe: an observer of your own, given every event too.
        headers: headers of your own, as `connect` takes them; they win over those of the trace.
    """
    tracing = Tracing(
        tracer_provider=tracer_provider, meter_provider=meter_provider, messages=messages, observe=observe,
        headers=headers,
    )  # fmt: skip
    return {"observe": tracing.observe, "headers": tracing.headers}


class Tracing:
    """What `instrument` is made of: `observe` turns events into spans and metrics, `headers` lets the trace travel.

    One may serve any number of embedders, threads and event loops. Arguments are those of `instrument`.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        messages: bool = False,
        observe: Observer | None = None,
        headers: Headers | None = None,
    ) -> None:
        self._settings: dict[str, Any] = {
            "tracer_provider": tracer_provider, "meter_provider": meter_provider, "messages": messages,
            "observe": observe, "headers": headers,
        }  # fmt: skip
        self._messages = messages
        self._next = observe
        self._own = headers
        self._calls: dict[int, tuple[Span, Any, _Attributes]] = {}
        self._attempts: dict[int, tuple[Span, Any]] = {}  # with each, what makes the span before it current again
        self._tracer = trace.get_tracer("embedkit", embedkit.__version__, tracer_provider, SCHEMA)
        meter = metrics.get_meter("embedkit", embedkit.__version__, meter_provider, SCHEMA)
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration", "s", "GenAI operation duration.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )  # fmt: skip
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage", "{token}", "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=TOKENS,
        )  # fmt: skip
        self._wait = meter.create_histogram(
            "embedkit.client.wait.duration", "s", "Wait of a request for its turn.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )  # fmt: skip
        self._cost = meter.create_counter("embedkit.client.cost", "{USD}", "Cost, by the price of the model.")
        self._window = meter.create_gauge("embedkit.client.window", "{request}", "Requests that may be in flight.")
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            CallStarted: self._call_started,
            CallEnded: self._call_ended,
            RequestSent: self._request_sent,
            AttemptEnded: self._attempt_ended,
            RetryScheduled: self._retry_scheduled,
            BatchSplit: self._batch_refused,
            BatchFailed: self._batch_refused,
            WindowChanged: self._window_changed,
        }

    def observe(self, event: Event) -> None:
        """Take an event: for `connect(observe=…)`, and for an embedder's own attribute `observe`."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)
        if self._next is not None:
            self._next(event)

    def headers(self) -> Mapping[str, str] | Awaitable[Mapping[str, str]]:
        """The headers that carry the current span, as the global propagator writes them, and your own."""
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        own = self._own() if callable(self._own) else self._own
        if isawaitable(own):
            return _joined(carrier, own)
        return {**carrier, **own} if own else carrier

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._settings,)

    # --- calls -------------------------------------------------------------------------------------------------------

    def _call_started(self, event: CallStarted) -> None:
        shared = [self._calls[call][0] for call in event.callers if call in self._calls]
        above = trace.set_span_in_context(shared[0]) if shared else None
        about = {**_about(event), **_place(event.server)}
        facts = {**about, "embedkit.texts": event.texts}
        if event.callers:
            facts["embedkit.callers"] = len(event.callers)
        links = [Link(each.get_span_context()) for each in shared]
        span = self._tracer.start_span(f"embeddings {event.model}".rstrip(), above, SpanKind.CLIENT, facts, links)
        token = context.attach(trace.set_span_in_context(span, above))
        self._calls[event.call] = span, token, about

    def _call_ended(self, event: CallEnded) -> None:
        opened = self._calls.pop(event.call, None)
        if opened is None:
            return
        span, token, about = opened
        facts: _Attributes = {"embedkit.requests": event.requests}
        if event.answered:
            facts["gen_ai.response.model"] = event.answered
        if event.dimensions:
            facts["gen_ai.embeddings.dimension.count"] = event.dimensions
        if event.tokens is not None:
            facts["gen_ai.usage.input_tokens"] = event.tokens
        if event.cost is not None:
            facts["embedkit.cost"] = event.cost
        if event.failed:
            facts["embedkit.failed"] = event.failed
        span.set_attributes(facts)
        if event.error is not None:
            self._fail(span, event.error, _kind(event.error))
        context.detach(token)
        span.end()
        # With the context of the span, so that an exemplar of the metric names it.
        self._measure(event, about, trace.set_span_in_context(span))

    def _measure(self, event: CallEnded, about: _Attributes, where: context.Context) -> None:
        if event.answered:
            about["gen_ai.response.model"] = event.answered
        if event.tokens is not None:
            self._tokens.record(event.tokens, {**about, "gen_ai.token.type": "input"}, where)
        if event.cost:
            self._cost.add(event.cost, about, where)
        if event.error is not None:
            about["error.type"] = _kind(event.error)
        if not event.callers:  # each of the calls that share it is counted by itself
            self._duration.record(event.seconds, about, where)

    # --- attempts ----------------------------------------------------------------------------------------------------
    # They have no gen_ai.operation.name: tokens and calls would count twice where spans are summed up by it.

    def _request_sent(self, event: RequestSent) -> None:
        if event.hedged:
            if event.id in self._attempts:
                self._attempts[event.id][0].add_event("embedkit.hedge")
            return
        place = _place(event.server)
        facts: _Attributes = {**place, "embedkit.texts": event.texts}
        if event.attempt > 1:
            facts["http.request.resend_count"] = event.attempt - 1
        span = self._tracer.start_span(f"embeddings.attempt {event.model}".rstrip(), None, SpanKind.CLIENT, facts)
        self._attempts[event.id] = span, context.attach(trace.set_span_in_context(span))
        self._wait.record(event.waited, {**_about(event), **place})

    def _attempt_ended(self, event: AttemptEnded) -> None:
        opened = self._attempts.pop(event.id, None)
        if opened is None:
            return
        span, token = opened
        if event.status is not None:
            span.set_attribute("http.response.status_code", event.status)
        if event.error is not None:
            self._fail(span, event.error, str(event.status or _kind(event.error)))
        elif event.status is None:
            span.set_attribute("error.type", "cancelled")
            span.set_status(StatusCode.ERROR, "cancelled")
        context.detach(token)
        span.end()

    def _retry_scheduled(self, event: RetryScheduled) -> None:
        facts = {"embedkit.attempt": event.attempt, "embedkit.wait": event.wait, **self._what(event.error)}
        self._span_of(event).add_event("embedkit.retry", facts)

    def _batch_refused(self, event: BatchSplit | BatchFailed) -> None:
        name = "embedkit.batch.split" if isinstance(event, BatchSplit) else "embedkit.batch.failed"
        self._span_of(event).add_event(name, {"embedkit.texts": event.texts, **self._what(event.error)})

    def _window_changed(self, event: WindowChanged) -> None:
        self._window.set(event.size, {**_about(event), **_place(event.server)})

    def _span_of(self, event: Event) -> Span:
        """The span of its call; the current one where another observer has that."""
        opened = self._calls.get(event.call)
        return trace.get_current_span() if opened is None else opened[0]

    def _fail(self, span: Span, error: BaseException, kind: str) -> None:
        span.set_attribute("error.type", kind)
        span.set_status(StatusCode.ERROR, str(error) if self._messages else type(error).__name__)

    def _what(self, error: EmbedkitError) -> _Attributes:
        facts: _Attributes = {"error.type": _kind(error)}
        status = getattr(error, "status", None)
        if isinstance(status, int):
            facts["http.response.status_code"] = status
        if self._messages:
            facts["exception.message"] = str(error)
        return facts


def _again(settings: dict[str, Any]) -> Tracing:
    return Tracing(**settings)


async def _joined(carrier: dict[str, str], own: Awaitable[Mapping[str, str]]) -> Mapping[str, str]:
    return {**carrier, **await own}


def _about(event: Event) -> _Attributes:
    """What every signal says of the call that it belongs to."""
    facts: _Attributes = {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": PROVIDERS.get(event.provider, event.provider) or "custom",
    }
    if event.model:
        facts["gen_ai.request.model"] = event.model
    return facts


@lru_cache(256)
def _place(server: str) -> Mapping[str, str | int]:
    """Address and port of "https://api.openai.com"."""
    if not server:
        return {}
    found = urlsplit(server)
    port = found.port or PORTS.get(found.scheme)
    return {"server.address": found.hostname or ""} | ({} if port is None else {"server.port": port})


def _kind(error: BaseException) -> str:
    """What kind of failure it is, of few: the name of its class."""
    name = type(error).__name__
    return "cancelled" if name in ("CancelledError", "Cancelled") else name


__all__ = ["Keywords", "Tracing", "instrument"]
