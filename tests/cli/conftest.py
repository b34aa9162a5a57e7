"""One API for the tests of a module, and a folder of its own for every test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.servers.api import Api

HERE = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def shared_api():
    with Api() as running:
        yield running


@pytest.fixture
def api(shared_api):
    """The one API of this module, with nothing remembered."""
    shared_api.bodies.clear()
    shared_api.keys.clear()
    return shared_api


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """Every test in a folder of its own, with a model that needs no key."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMBEDKIT_MODEL", "compatible:m")
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.delenv(
        "PYTHONUNBUFFERED", raising=False
    )  # as most users have it: what is buffered is lost in a broken pipe
