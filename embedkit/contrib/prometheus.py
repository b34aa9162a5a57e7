"""Prometheus: counts and durations of what an embedder does. To install: `pip install '.[prometheus]'`.

>>> import embedkit
>>> from embedkit.contrib import prometheus
>>> embedder = embedkit.connect("openai:text-embedding-3-small", observe=prometheus.observer())

Each metric is labeled with the provider and the model; what a provider says, a text or a key is in none.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from embedkit.events import AttemptEnded, CallEnded, Event, RequestSent, WindowChanged


def observer(registry: CollectorRegistry = REGISTRY) -> Callable[[Event], None]:
    """An observer that counts into `registry`: make one for each, since it registers its metrics.

    | metric | counts |
    | --- | --- |
    | `embedkit_call_seconds` | the duration of calls; `error`: the class of what they raised, or "" |
    | `embedkit_attempt_seconds` | the duration of attempts; `status`: of the response, or "" |
    | `embedkit_wait_seconds` | the waits of attempts for their turn |
    | `embedkit_texts_total`, `embedkit_tokens_total`, `embedkit_cost_dollars_total` | what calls held and took |
    | `embedkit_window` | requests that may be in flight at an endpoint (`server`), as last changed |
    """
    by = ("provider", "model")
    calls = Histogram("embedkit_call_seconds", "Duration of calls.", (*by, "error"), registry=registry)
    attempts = Histogram("embedkit_attempt_seconds", "Duration of attempts.", (*by, "status"), registry=registry)
    waits = Histogram("embedkit_wait_seconds", "Waits of attempts for their turn.", by, registry=registry)
    texts = Counter("embedkit_texts", "Texts embedded.", by, registry=registry)
    tokens = Counter("embedkit_tokens", "Tokens taken, as providers count them.", by, registry=registry)
    cost = Counter("embedkit_cost_dollars", "Cost, by the price of the model.", by, registry=registry)
    window = Gauge("embedkit_window", "Requests that may be in flight.", (*by, "server"), registry=registry)

    def observe(event: Event) -> None:
        who = event.provider, event.model
        if isinstance(event, CallEnded):
            if not event.callers:  # each of the calls that share it is counted by itself
                calls.labels(*who, "" if event.error is None else type(event.error).__name__).observe(event.seconds)
                texts.labels(*who).inc(event.texts - event.failed if event.error is None else 0)
            tokens.labels(*who).inc(event.tokens or 0)
            cost.labels(*who).inc(event.cost or 0)
        elif isinstance(event, AttemptEnded):
            attempts.labels(*who, str(event.status or "")).observe(event.seconds)
        elif isinstance(event, RequestSent) and not event.hedged:
            waits.labels(*who).observe(event.waited)
        elif isinstance(event, WindowChanged):
            window.labels(*who, event.server).set(event.size)

    return observe


__all__ = ["observer"]
