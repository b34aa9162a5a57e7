"""`embedkit.contrib.prometheus`: the real registry, scraped as Prometheus does it."""

from __future__ import annotations

import json
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

import embedkit
from embedkit import AuthError, Limits, RetryPolicy
from embedkit.contrib import prometheus
from embedkit.testing import FakeExchange, response

pytestmark = pytest.mark.anyio
TEXT = "a text that nobody else shall read"


def scraped(registry):
    """The samples that a server of this registry gives out over HTTP, by name and labels."""
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        with urlopen(f"http://127.0.0.1:{server.server_port}/metrics") as reply:
            text = reply.read().decode()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert TEXT not in text
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_calls_attempts_texts_tokens_and_cost_are_counted():
    """A call with a retry, a failed one, and calls that share a request, as a scrape shows them."""

    def answer(request):
        if refusals:
            return response({"error": {"message": TEXT}}, refusals.pop())
        rows = [{"index": row, "embedding": [1.0, 0.0]} for row in range(len(json.loads(request.body)["input"]))]
        return response({"data": rows, "usage": {"prompt_tokens": 3 * len(rows)}})

    registry, refusals = CollectorRegistry(), [401, 503]
    settings = {"base_url": "http://h.test/v1", "retry": RetryPolicy(attempts=3, initial=0.0)}
    observe = prometheus.observer(registry)
    embedder = embedkit.connect("compatible:m", exchange=FakeExchange(answer), observe=observe, **settings)
    embedder.price = 10.0
    with pytest.raises(AuthError):
        await embedder.embed([TEXT])
    await embedder.embed([TEXT, "b"])
    await embedkit.connect(
        "compatible:m", exchange=FakeExchange(answer), observe=observe, coalesce=True, **settings
    ).embed_query(TEXT)
    found = scraped(registry)

    assert found["embedkit_call_seconds_count", "", "compatible", "m"] == 2
    assert found["embedkit_call_seconds_count", "AuthError", "compatible", "m"] == 1
    assert found["embedkit_attempt_seconds_count", "200", "compatible", "m"] == 2
    assert found["embedkit_attempt_seconds_count", "503", "compatible", "m"] == 1
    assert found["embedkit_wait_seconds_count", "compatible", "m"] == 4
    assert found["embedkit_texts_total", "compatible", "m"] == 3
    assert found["embedkit_tokens_total", "compatible", "m"] == 9
    assert found["embedkit_cost_dollars_total", "compatible", "m"] == pytest.approx(6e-5)
    assert found["embedkit_window", "compatible", "http://h.test", "m"] >= 1


async def test_each_endpoint_has_a_window_of_its_own():
    """Two addresses of one model are each shown under their own, though both have the same provider and model."""

    def answer(request):
        host = request.url.split("/")[2]
        if refusals[host]:
            return response({"error": {"message": "busy"}}, refusals[host].pop())
        rows = [{"index": row, "embedding": [1.0, 0.0]} for row in range(len(json.loads(request.body)["input"]))]
        return response({"data": rows})

    registry, refusals = CollectorRegistry(), {"one.test": [503], "two.test": [503]}
    embedder = embedkit.connect(
        "compatible:m", base_url=[f"http://{host}/v1" for host in refusals], exchange=FakeExchange(answer),
        observe=prometheus.observer(registry), retry=RetryPolicy(attempts=9, initial=0.0), limits=Limits(max_texts=1),
    )  # fmt: skip
    await embedder.embed([f"{number}" for number in range(64)])
    windows = [key for key in scraped(registry) if key[0] == "embedkit_window"]

    assert {key[2] for key in windows} == {"http://one.test", "http://two.test"}
