"""Which proxy, if any: what is given, what the environment says, what it says to leave alone. Real proxies are spoken to in `test_aiohttp_exchange`."""

from __future__ import annotations

import pytest

from embedkit._http.proxies import proxy_for

HERE, THERE = "http://here:1", "http://there:2"
ENVIRONMENTS = [
    # environment, proxy=, URL, the proxy
    ({}, None, "https://a.test/v1", None),
    ({"HTTPS_PROXY": HERE}, None, "https://a.test/v1", HERE),
    ({"https_proxy": HERE}, None, "https://a.test/v1", HERE),
    ({"HTTPS_PROXY": HERE}, None, "http://a.test/v1", None),
    ({"HTTP_PROXY": HERE}, None, "http://a.test/v1", HERE),
    ({"HTTP_PROXY": HERE}, None, "https://a.test/v1", None),
    ({"ALL_PROXY": HERE}, None, "https://a.test/v1", HERE),
    ({"ALL_PROXY": THERE, "HTTPS_PROXY": HERE}, None, "https://a.test/v1", HERE),
    ({"HTTPS_PROXY": "here:1"}, None, "https://a.test/v1", HERE),
    ({"HTTPS_PROXY": ""}, None, "https://a.test/v1", None),
    ({"HTTPS_PROXY": HERE}, THERE, "https://a.test/v1", THERE),
    ({"HTTPS_PROXY": HERE, "NO_PROXY": "*"}, THERE, "https://a.test/v1", THERE),
    ({"HTTPS_PROXY": HERE}, "", "https://a.test/v1", None),
    ({"HTTPS_PROXY": HERE, "NO_PROXY": "*"}, None, "https://a.test/v1", None),
    ({"HTTPS_PROXY": HERE, "NO_PROXY": "a.test"}, None, "https://a.test/v1", None),
    ({"HTTPS_PROXY": HERE, "no_proxy": "b.test, .a.test"}, None, "https://x.a.test/v1", None),
    ({"HTTPS_PROXY": HERE, "NO_PROXY": "test"}, None, "https://a.test/v1", None),
    ({"HTTPS_PROXY": HERE, "NO_PROXY": "a.test:8443"}, None, "https://a.test:8443/v1", None),
    ({"HTTPS_PROXY": HERE, "NO_PROXY": "a.test:8443"}, None, "https://a.test/v1", HERE),
    ({"HTTPS_PROXY": HERE, "NO_PROXY": "a.test"}, None, "https://u:p@a.test/v1", None),
    ({"HTTPS_PROXY": HERE, "NO_PROXY": "b.test"}, None, "https://a.test/v1", HERE),
    ({"HTTPS_PROXY": HERE, "NO_PROXY": "b.test,10.0.0.0/8"}, None, "https://10.1.2.3/v1", None),
    ({"HTTPS_PROXY": HERE, "NO_PROXY": "10.0.0.0/8"}, None, "https://11.1.2.3/v1", HERE),
    ({"HTTPS_PROXY": HERE, "NO_PROXY": "2001:db8::/32"}, None, "https://[2001:db8::7]/v1", None),
    *(
        ({"ALL_PROXY": HERE}, *each)
        for url in ("http://127.0.0.1:8080/v1", "http://127.7.7.7/v1", "https://[::1]/v1", "http://localhost:11434/api", "http://api.localhost/v1")
        for each in ((None, url, None), (THERE, url, THERE), ("", url, None))
    ),
    ({"ALL_PROXY": HERE}, None, "http://127.evil.test/v1", HERE),
]  # fmt: skip


@pytest.mark.parametrize(("environment", "proxy", "url", "expected"), ENVIRONMENTS)
def test_which_proxy(environment, proxy, url, expected, monkeypatch):
    """`proxy=` wins, then the variables as requests and httpx read them, which loopback is spared."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert proxy_for(url, proxy) == expected


@pytest.mark.parametrize("proxy", ["http://h:1", ""])
def test_the_environment_is_not_always_asked(proxy, monkeypatch):
    """A session of the caller's has its own proxy, so that the environment is not read for it; an empty proxy is none."""
    monkeypatch.setenv("HTTPS_PROXY", HERE)

    assert proxy_for("https://a.test/v1", None, read_environment=False) is None
    assert proxy_for("https://a.test/v1", proxy, read_environment=False) == (proxy or None)
