"""What the adapters share: one embedder, called with and without `await`; what it took so far; its settings as data.

Settings that are written somewhere (a configuration, a pickle) hold no credential: one that was given as text is
refused there, by name, and one from the environment is read again from it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

import msgspec

import embedkit
from embedkit import (
    ConfigError,
    Embedder,
    Embeddings,
    EmbedkitError,
    Limits,
    Rate,
    RetryPolicy,
    SyncEmbedder,
    Usage,
    providers,
)

from .._values import shown
from ._secrets import holds_credential, without_secrets

Purpose = Literal["query", "document"]
STRUCTS = {"limits": Limits, "rate": Rate, "retry": RetryPolicy}


class Client:
    """An embedder as an adapter uses it.

    Args:
        model: "provider:model"; None: EMBEDKIT_MODEL if set, else the bundled model. Or an `embedkit.Embedder`.
        settings: the other keywords of `embedkit.connect`. `limits`, `rate` and `retry` may also be mappings, as
            configuration files have them.

    Attributes:
        embedder: the `embedkit.Embedder` itself.
        model: "provider:model", as it was resolved.

    Raises:
        ConfigError: settings beside an embedder, and what `embedkit.connect` refuses.
        TypeError: an unknown keyword.
    """

    def __init__(self, model: str | Embedder | None, settings: Mapping[str, Any]) -> None:
        self.settings: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
        if isinstance(model, Embedder):
            if self.settings:
                msg = f"{', '.join(self.settings)}: settings belong to the embedder that was given; pass them there"
                raise ConfigError(msg)
            self.embedder: Embedder = model
        else:
            self.embedder = embedkit.connect(model, **_with_structs(self.settings))
        self.given: str | Embedder | None = model
        self.model: str = f"{self.embedder.provider}:{self.embedder.model}"
        self._sync: SyncEmbedder | None = None
        self._usage = Usage(None, 0)
        self._lock = threading.Lock()

    @property
    def usage(self) -> Usage:
        """Tokens, requests and dollars of all calls so far, failed ones too; see `embedkit.Usage`."""
        return self._usage

    @property
    def sync(self) -> SyncEmbedder:
        """The same embedder, without `await`."""
        with self._lock:
            if self._sync is None:
                self._sync = SyncEmbedder(self.embedder)  # which an embedder on the caller's own session refuses
            return self._sync

    def embed(self, texts: Iterable[str], purpose: Purpose | None, **options: Any) -> Embeddings:
        """Embed texts as queries or documents, unless the embedder was told what they are for; None: as it was told."""
        try:
            made = self.sync.embed(texts, **{"input_type": self._purpose(purpose), **options})
        except EmbedkitError as error:
            self._count(_usage_of(error))
            raise
        self._count(made.usage)
        return made

    async def aembed(self, texts: Iterable[str], purpose: Purpose | None, **options: Any) -> Embeddings:
        """The same on the running event loop."""
        try:
            made = await self.embedder.embed(texts, input_type=self._purpose(purpose), **options)
        except EmbedkitError as error:
            self._count(_usage_of(error))
            raise
        self._count(made.usage)
        return made

    def close(self) -> None:
        """Close what calls without `await` have opened; a later one opens it again."""
        if self._sync is not None:
            self._sync.close()

    async def aclose(self) -> None:
        """Close what calls on this event loop have opened; a later one opens it again."""
        await self.embedder.aclose()

    def as_data(self, *, without: Iterable[str] = (), lenient: bool = False) -> dict[str, Any]:
        """`model` and settings as JSON has them: `Client(data.pop("model"), data)` is the same client again.

        Args:
            without: settings that the caller writes in a way of its own.
            lenient: leave credentials, functions and other objects out instead of refusing them, where the framework
                itself does so with its own. What is left of a URL is its place, so no request goes anywhere else.

        Raises:
            ConfigError: a credential was given as text, or something that JSON cannot hold; it is named.
        """
        if isinstance(self.given, Embedder):
            if lenient:
                return {"model": self.model, "embedder": repr(self.given)}  # which `connect` refuses, by name
            msg = f"{self.given!r} was given as an object, which no configuration can hold: pass 'provider:model'"
            raise ConfigError(msg)
        kept = {name: value for name, value in self.settings.items() if name not in {*without}}
        if lenient:
            credentials = self._credentials()
            plain = {name: _plain(value) for name, value in kept.items() if name not in credentials}
            return {
                "model": self._named(),
                **{name: without_secrets(value, name) for name, value in plain.items() if _is_json(value)},
            }
        self._refuse_secrets(kept)
        data = {name: _plain(value) for name, value in kept.items()}
        if wrong := [name for name, value in data.items() if not _is_json(value)]:
            kind = type(kept[wrong[0]]).__name__
            msg = f"{wrong[0]} ({kind}) cannot be written into a configuration: leave it out, and set it in code"
            raise ConfigError(msg)
        return {"model": self._named(), **data}

    def __getstate__(self) -> dict[str, Any]:
        if isinstance(self.given, Embedder):
            msg = f"{self.given!r} may hold a key, which would be written with it: pass 'provider:model' to save this"
            raise ConfigError(msg)
        self._refuse_secrets(self.settings)
        return {"model": self._named(), "settings": self.settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Client.__init__(self, state["model"], state["settings"])

    def __copy__(self) -> Self:
        return self  # its state is an embedder, which copies may share, and a count

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def _named(self) -> str:
        """The model as it was given; where nothing was said, as that was resolved, so that it stays the same."""
        return self.given if isinstance(self.given, str) else self.model

    def _purpose(self, purpose: Purpose | None) -> Purpose | None:
        return purpose if self.embedder.options.input_type is None else None

    def _count(self, new: Usage) -> None:
        with self._lock:
            self._usage = sum_of(self._usage, new)

    def _credentials(self) -> dict[str, Sequence[str]]:
        """The settings that are credentials, and the variables that they are read from where they are left out."""
        if self.embedder.provider == "local":
            return {"api_key": ()}
        host = providers.find(self.embedder.provider)
        secret = {name: one.variables for name, one in host.parameters.items() if one.secret}
        return {"api_key": host.key_variables, **secret}

    def _refuse_secrets(self, settings: Mapping[str, Any]) -> None:
        credentials = self._credentials()
        for name, value in settings.items():
            if holds_credential(name, value, secret=name in credentials):
                variables = credentials.get(name, ())
                instead = f"set {' or '.join(variables)}, which is read again" if variables else "set it in code"
                msg = f"{name} holds a credential, which is written nowhere: leave it out and {instead}"
                raise ConfigError(msg)


def _usage_of(error: EmbedkitError) -> Usage:
    """What a call took that failed: that of the rows it has embedded, else the requests it has tried."""
    usage: Usage = Usage(None, error.attempts) if error.partial is None else error.partial.usage
    return usage


def sum_of(total: Usage, more: Usage) -> Usage:
    """Both together; tokens and dollars are None where neither reports any."""
    return Usage(
        _sum(total.tokens, more.tokens), total.requests + more.requests, _sum(total.cost, more.cost),
        total.cached + more.cached,
    )  # fmt: skip


def as_struct(name: str, value: Any) -> Any:
    """A setting that a configuration file has written as a mapping; anything else as it is.

    Raises:
        ConfigError: a field that the setting does not have.
    """
    if name not in STRUCTS or not isinstance(value, Mapping):
        return value
    fields = STRUCTS[name].__struct_fields__
    if unknown := [field for field in value if field not in fields]:
        msg = f"{name} has no field {shown(unknown[0])}; its fields are {', '.join(fields)}"
        raise ConfigError(msg)
    return STRUCTS[name](**value)


def _with_structs(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: as_struct(name, value) for name, value in settings.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return msgspec.to_builtins(value) if isinstance(value, tuple(STRUCTS.values())) else value


def _is_json(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and _is_json(each) for name, each in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_json, value))
    return value is None or isinstance(value, (str, int, float))


def _sum(total: Any, more: Any) -> Any:
    return total if more is None else more + (total or 0)
