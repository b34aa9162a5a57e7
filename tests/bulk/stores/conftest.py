"""Every test gets the store that it asks for, and its server runs meanwhile."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.support.stores import REAL, missing


@pytest.fixture(scope="session")
def servers():
    with ExitStack() as stack:
        running = {}

        def start(name):
            if name not in running:
                stack.enter_context(REAL[name].running())
                running[name] = True

        yield start


@pytest.fixture
def real(request, servers):
    """The store named by the test's parameter."""
    name = request.param
    if missing(name):
        pytest.fail(f"{missing(name)} is not installed: make test-engines installs it")
    servers(name)
    return REAL[name]
