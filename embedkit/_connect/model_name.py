"""Splits "provider:model" into provider and model."""

from __future__ import annotations

import os
import re

from .. import catalog
from .._peers import providers_called
from ..errors import ConfigError
from ..providers import hosts

LOCAL = "local:all-minilm-l6-v2"
# How keys of providers begin; without a provider before it, also as many letters and digits as no model's name has.
_KEY = re.compile(r"(sk-|pa-|nvapi-)[\w-]{16,}|(hf_|gsk_|jina_|fw_|r8_|AIza|pplx-)\w{16,}", re.ASCII)
_LONG = re.compile(r"(?=(\D*\d){6})[\w-]{32,}", re.ASCII)


def split(model: str | None) -> tuple[str, str]:
    """(provider, model) of "provider:model"; of None, what EMBEDKIT_MODEL says, else the local model."""
    said = "model" if model is not None else "EMBEDKIT_MODEL"
    model = model if model is not None else os.environ.get("EMBEDKIT_MODEL", "").strip() or LOCAL
    if not isinstance(model, str):
        msg = f"model is {type(model).__name__}; it is a string like 'openai:text-embedding-3-small'"
        raise TypeError(msg)
    provider, colon, name = model.partition(":")
    if _KEY.fullmatch((name if colon else model).strip()) or _LONG.fullmatch(model.strip()):
        msg = (
            f"{said} looks like a key, so it is not shown here: a key goes into api_key= or the provider's variable, "
            "and the model is 'provider:model', like 'openai:text-embedding-3-small'"
        )
        raise ConfigError(msg)
    provider, name = provider.strip().lower(), name.strip()
    if provider == "local":
        return provider, name
    if not colon or not provider or not name:
        before = model.strip().rstrip(":").lower()
        lacks = "provider" if not provider or not colon else "model"
        if before in catalog.MODELS or _is_provider(before):
            lacks = "model"
        near = _near(model.strip(), before)
        hint = (
            f"; did you mean {' or '.join(map(repr, near))}?"
            if near
            else ", like 'openai:text-embedding-3-small' or 'ollama:mistral'"
        )
        msg = f"{said}={model!r} has no {lacks}: the form is 'provider:model'{hint}"
        raise ConfigError(msg)
    if "@http" in name:
        msg = f"{said} holds an address, which goes into base_url=; the model alone is 'provider:model'"
        raise ConfigError(msg)
    if not name.isprintable():
        msg = f"{said}={model!r} holds a character that no model's name has"
        raise ConfigError(msg)
    return provider, name


def _near(model: str, lower: str) -> list[str]:
    """What a name without a provider, or without a model, may mean: "provider/model" as litellm and others write it, a
    model of the catalog, a provider with a model of the catalog.
    """
    found = [f"{lower}:{one.name}" for one in catalog.MODELS.get(lower, ())[:1]]
    before, slash, after = model.partition("/")
    if slash and after:
        near = [before.lower()] if _is_provider(before.lower()) else [*providers_called(before)]
        found += [f"{each}:{after}" for each in near]
    found += [
        f"{each}:{one.name}" for each, models in catalog.MODELS.items() for one in models if one.name.lower() == lower
    ]
    return found[:3] or _close(lower)


def _close(lower: str) -> list[str]:
    """What a misspelled provider, or a misspelled model of the catalog, may mean."""
    from difflib import get_close_matches

    known = {one.name.lower(): f"{each}:{one.name}" for each, models in catalog.MODELS.items() for one in models}
    known |= {each: f"{each}:{models[0].name}" for each, models in catalog.MODELS.items() if models}
    known |= {"local": LOCAL}
    return [known[each] for each in get_close_matches(lower, known, n=1, cutoff=0.8)]


def _is_provider(name: str) -> bool:
    return any(host.name == name for host in hosts())
