"""Splits "provider:model" into provider and model."""

from __future__ import annotations

import os

from .. import catalog
from ..errors import ConfigError

LOCAL = "local:all-minilm-l6-v2"


def split(model: str | None) -> tuple[str, str]:
    """(provider, model) of "provider:model"; of None, what EMBEDKIT_MODEL says, else the local model."""
    said = "model" if model is not None else "EMBEDKIT_MODEL"
    model = model if model is not None else os.environ.get("EMBEDKIT_MODEL", "").strip() or LOCAL
    if not isinstance(model, str):
        msg = f"model is {type(model).__name__}; it is a string like 'openai:text-embedding-3-small'"
        raise TypeError(msg)
    provider, colon, name = model.partition(":")
    provider, name = provider.strip().lower(), name.strip()
    if provider == "local":
        return provider, name
    if not colon or not provider or not name:
        known = [
            f"{each}:{model}" for each, models in catalog.MODELS.items() if any(one.name == model for one in models)
        ]
        before, slash, after = model.partition("/")  # as litellm and others write it
        if slash and before.lower() in catalog.MODELS:
            known.insert(0, f"{before.lower()}:{after}")
        near = (
            f"; did you mean {' or '.join(map(repr, known))}?"
            if known
            else ", like 'openai:text-embedding-3-small' or 'ollama:mistral'"
        )
        lacks = "model" if colon and provider else "provider"
        msg = f"{said}={model!r} has no {lacks}: the form is 'provider:model'{near}"
        raise ConfigError(msg)
    if not name.isprintable():
        msg = f"{said}={model!r} holds a character that no model's name has"
        raise ConfigError(msg)
    return provider, name
