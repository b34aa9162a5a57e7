"""An embedder around an embedder: shows what the inner one shows, and hands everything on. What wraps changes `_embed` only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import Embedder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._types import Embeddings, Limits, Options

SHOWN = (
    "accepts_empty", "base_url", "borrowed", "count_tokens", "limits", "max_concurrency", "model", "observe", "options", "price",
    "provider", "total_timeout",
)  # fmt: skip


class Wrapped(Embedder):
    """The base of embedders that wrap another, `inner`."""

    def __init__(self, inner: Embedder) -> None:
        self.inner = inner

    async def embed_batch(self, texts: Sequence[str], options: Options) -> Embeddings:
        """As the inner embedder."""
        return await self.inner.embed_batch(texts, options)

    async def aclose(self) -> None:
        """Close the inner embedder."""
        await self.inner.aclose()

    def _known_limits(self) -> Limits:
        return self.inner._known_limits()  # noqa: SLF001 (embedkit's own)

    def _joins(self, options: Options) -> bool:
        return self.inner._joins(options)  # noqa: SLF001 (embedkit's own)

    def _known_width(self, options: Options) -> int:
        return self.inner._known_width(options)  # noqa: SLF001 (embedkit's own)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.inner!r}>"


def _shown(name: str) -> property:
    def get(self: Wrapped) -> Any:
        return getattr(self.inner, name)

    def put(self: Wrapped, value: Any) -> None:
        setattr(self.inner, name, value)

    return property(get, put, doc=f"`{name}` of the inner embedder.")


for _name in SHOWN:
    setattr(Wrapped, _name, _shown(_name))
