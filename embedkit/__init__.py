"""embedkit: text in, vectors out. Any provider, one interface, every text accounted for.

>>> async with embedkit.connect("openai:text-embedding-3-small") as embedder:
...     result = await embedder.embed(["What is the NATO purpose?"])
>>> result.vectors.shape
(1, 1536)

Names are resolved on first use (PEP 562), so that importing this package costs next to nothing.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import annotations as annotations
    from . import bulk as bulk
    from . import cache as cache
    from . import catalog as catalog
    from . import cli as cli
    from . import codec as codec
    from . import contrib as contrib
    from . import errors as errors
    from . import events as events
    from . import local as local
    from . import providers as providers
    from . import sync as sync
    from . import testing as testing
    from . import tokens as tokens
    from ._connect.factory import connect
    from ._connect.pool import pool
    from ._embedders.base import Embedder
    from ._traffic.rate import Rate
    from ._traffic.retry import RetryPolicy
    from ._types import Embeddings, Limits, Options, Usage
    from .errors import (
        ApiError,
        AuthError,
        ClosedError,
        ConfigError,
        DecodeError,
        EmbedkitError,
        InvalidInputError,
        NotFoundError,
        QueueFullError,
        QuotaError,
        RateLimitError,
        ServerError,
        TooLargeError,
        TooLongError,
        TransportError,
        TransportTimeoutError,
    )
    from .sync import SyncEmbedder, connect_sync

__version__ = "0.1.0"

__all__ = [
    "ApiError",
    "AuthError",
    "ClosedError",
    "ConfigError",
    "DecodeError",
    "Embedder",
    "Embeddings",
    "EmbedkitError",
    "InvalidInputError",
    "Limits",
    "NotFoundError",
    "Options",
    "QueueFullError",
    "QuotaError",
    "Rate",
    "RateLimitError",
    "RetryPolicy",
    "ServerError",
    "SyncEmbedder",
    "TooLargeError",
    "TooLongError",
    "TransportError",
    "TransportTimeoutError",
    "Usage",
    "connect",
    "connect_sync",
    "pool",
]

_MODULES = (
    "annotations", "bulk", "cache", "catalog", "cli", "codec", "contrib", "errors", "events", "local", "providers",
    "sync", "testing", "tokens",
)  # fmt: skip
_HOMES = {
    "_connect.factory": ("connect",),
    "_connect.pool": ("pool",),
    "_embedders.base": ("Embedder",),
    "_traffic.rate": ("Rate",),
    "_traffic.retry": ("RetryPolicy",),
    "_types": ("Embeddings", "Limits", "Options", "Usage"),
    "sync": ("SyncEmbedder", "connect_sync"),
}


if not TYPE_CHECKING:  # for which a misspelled name is a mistake

    def __getattr__(name: str) -> object:
        if name not in __all__ and name not in _MODULES:
            error = AttributeError(f"module {__name__!r} has no attribute {name!r}")
            if name.startswith("_"):  # asked by tools that look at modules: nothing is loaded for them
                raise error
            from ._peers import attribute

            raise attribute(__name__, name) or error
        from importlib import import_module

        if name in _MODULES:
            return import_module(f".{name}", __name__)
        home = next((module for module, names in _HOMES.items() if name in names), "errors")
        found: object = getattr(import_module(f".{home}", __name__), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return [*__all__, *_MODULES, "__version__"]
