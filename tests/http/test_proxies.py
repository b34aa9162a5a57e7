"""Which proxy, if any: what is given, what the environment says, what it says to leave alone. Real proxies are spoken
to in `test_aiohttp_exchange`.
"""

from __future__ import annotations

import pytest

from embedkit._http.proxies import is_loopback, proxy_for, stays_local

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
    """A session of the caller's has its own proxy, so that the environment is not read for it; an empty proxy is
    none.
    """
    monkeypatch.setenv("HTTPS_PROXY", HERE)

    assert proxy_for("https://a.test/v1", None, read_environment=False) is None
    assert proxy_for("https://a.test/v1", proxy, read_environment=False) == (proxy or None)


def test_only_a_loopback_address_is_certain_to_be_this_machine():
    """A name under .localhost takes no proxy, but a resolver may ask the network for it: no key from the environment
    goes there.
    """
    mine = ("localhost", "127.0.0.1", "127.7.7.7", "::1", "0:0:0:0:0:0:0:1", "0.0.0.0")
    others = ("api.localhost", "127.0.0.1.evil.example", "localhost.evil.example", "127.1.1.999", "10.0.0.1", "")

    assert list(map(is_loopback, mine)) == [True] * len(mine)
    assert list(map(is_loopback, others)) == [False] * len(others)
    assert stays_local("http://api.localhost/v1")
