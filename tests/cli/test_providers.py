"""`embedkit providers`: every host, and whether a key for it is found."""

from __future__ import annotations

import json

from embedkit.providers import hosts
from tests.cli.running import embedkit_


def test_keys_are_found_and_never_shown(monkeypatch):
    """Every host of the code is listed; a key is said to be found, and where, and nothing of it is shown."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-mine")
    monkeypatch.delenv("COHERE_API_KEY", raising=False)
    monkeypatch.delenv("CO_API_KEY", raising=False)
    code, stdout, stderr = embedkit_("providers", "--json")
    said = {each["provider"]: each for each in json.loads(stdout)}

    assert code == 0
    assert set(said) == {"local", *(host.name for host in hosts())}
    assert (said["openai"]["key"], said["openai"]["found_in"]) == ("found", "OPENAI_API_KEY")
    assert said["cohere"]["key"] == "missing"
    assert "of-mine" not in stdout + stderr + embedkit_("providers")[1]
