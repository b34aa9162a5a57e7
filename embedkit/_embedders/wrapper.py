"""An embedder around another: it shows what the inner one shows, and hands everything on.

A subclass changes `embed_rows` only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from .base import Embedder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from .._batching.long_text import TextSplitter
    from .._types import Embeddings, Limits, Options
    from ..events import Event


class Wrapped(Embedder):
    """The base of embedders that wrap another, `inner`. What is set on it is set on the inner one.

    Attributes:
        keyword: of `embedkit.connect`, that asks for it; empty where none does.
    """

    keyword: ClassVar[str] = ""

    def __init__(self, inner: Embedder) -> None:
        self.inner = inner

    @property
    def provider(self) -> str:
        """The provider of the inner embedder."""
        return self.inner.provider

    @provider.setter
    def provider(self, value: str) -> None:
        self.inner.provider = value

    @property
    def model(self) -> str:
        """The model of the inner embedder."""
        return self.inner.model

    @model.setter
    def model(self, value: str) -> None:
        self.inner.model = value

    @property
    def base_url(self) -> str:
        """Where the inner embedder's requests go; an AttributeError where it has no address."""
        return self.inner.base_url  # type: ignore[attr-defined, no-any-return]  # those over HTTP have one

    @property
    def borrowed(self) -> bool:
        """True where the inner embedder's session is the caller's."""
        return self.inner.borrowed

    @property
    def limits(self) -> Limits:
        """What one request of the inner embedder may hold."""
        return self.inner.limits

    @limits.setter
    def limits(self, value: Limits) -> None:
        self.inner.limits = value

    @property
    def max_concurrency(self) -> int:
        """How many requests of one call the inner embedder may have in flight."""
        return self.inner.max_concurrency

    @max_concurrency.setter
    def max_concurrency(self, value: int) -> None:
        self.inner.max_concurrency = value

    @property
    def accepts_empty(self) -> bool:
        """Whether the inner embedder hands an empty text on."""
        return self.inner.accepts_empty

    @accepts_empty.setter
    def accepts_empty(self, value: bool) -> None:
        self.inner.accepts_empty = value

    @property
    def options(self) -> Options:
        """The options of the inner embedder."""
        return self.inner.options

    @options.setter
    def options(self, value: Options) -> None:
        self.inner.options = value

    @property
    def count_tokens(self) -> Callable[[str], int]:
        """How the inner embedder counts tokens."""
        return self.inner.count_tokens

    @count_tokens.setter
    def count_tokens(self, value: Callable[[str], int]) -> None:
        self.inner.count_tokens = value

    @property
    def observe(self) -> Callable[[Event], object] | None:
        """The observer of the inner embedder."""
        return self.inner.observe

    @observe.setter
    def observe(self, value: Callable[[Event], object] | None) -> None:
        self.inner.observe = value

    @property
    def price(self) -> float | None:
        """US dollars per million tokens, at the inner embedder."""
        return self.inner.price

    @price.setter
    def price(self, value: float | None) -> None:
        self.inner.price = value

    @property
    def total_timeout(self) -> float | None:
        """Seconds for a whole call of the inner embedder."""
        return self.inner.total_timeout

    @total_timeout.setter
    def total_timeout(self, value: float | None) -> None:
        self.inner.total_timeout = value

    async def embed_batch(self, texts: Sequence[str], options: Options) -> Embeddings:
        """As the inner embedder."""
        return await self.inner.embed_batch(texts, options)

    async def aclose(self) -> None:
        """Close the inner embedder."""
        await self.inner.aclose()

    def known_limits(self) -> Limits:
        """As the inner embedder knows them."""
        return self.inner.known_limits()

    def known_width(self, options: Options) -> int:
        """As the inner embedder knows it."""
        return self.inner.known_width(options)

    def joins_texts(self, options: Options) -> bool:
        """As with the inner embedder."""
        return self.inner.joins_texts(options)

    def splitter(self, options: Options) -> TextSplitter | None:
        """As the inner embedder cuts texts."""
        return self.inner.splitter(options)

    def origin(self, options: Options) -> Mapping[str, Any] | None:
        """As the inner embedder says."""
        return self.inner.origin(options)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.inner!r}>"
