"""embedkit: text in, vectors out. Any provider, one interface, every text accounted for.

>>> async with embedkit.connect("openai:text-embedding-3-small") as embedder:
...     result = await embedder.embed(["What is the NATO purpose?"])
>>> result.vectors.shape
(1, 1536)

Names are resolved on first use (PEP 562), so that importing this package costs next to nothing.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._connect import connect
    from ._embedder import Embedder
    from ._pace import Rate
    from ._retry import RetryPolicy
    from ._types import Embeddings, Limits, Options, Usage
    from .errors import (
        ApiError,
        AuthError,
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
]

_HOMES = {
    "_connect": ("connect",),
    "_embedder": ("Embedder",),
    "_pace": ("Rate",),
    "_retry": ("RetryPolicy",),
    "_types": ("Embeddings", "Limits", "Options", "Usage"),
    "sync": ("SyncEmbedder", "connect_sync"),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module

    home = next((module for module, names in _HOMES.items() if name in names), "errors")
    found: object = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
