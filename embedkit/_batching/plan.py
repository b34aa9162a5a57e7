"""Planning: texts and limits → slices. A plan is in order,
touching, and covers every text once; nothing else is decided here.

Token counts are estimates, never bounds: a slice that the provider still finds too large is halved by the dispatcher. A
single text beyond a limit gets a slice of its own, because only the provider can say whether it fits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .._types import Limits


_GLANCE = 256  # texts whose lengths are summed at a time, so that a slice does not read all that follow


def utf8(text: str) -> int:
    """Bytes of the text on the wire, JSON escapes left out. A lone surrogate counts as its three bytes."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def estimate(text: str) -> int:
    """Tokens of a text, roughly: one for three characters, and more for those that take several bytes in UTF-8.

    Measured against cl100k_base (tests/batching/test_plan.py): English prose has a third fewer, code a quarter; German,
    CJK, Korean, Arabic, Hindi, Thai, YAML, JSON, Markdown, HTML, URLs, digits and minified code are within 20 %; Greek,
    Hebrew, emoji and log lines have up to half as many again, base64 twice as many.
    """
    characters = len(text)
    return (5 * characters + 6 * (utf8(text) - characters)) // 15 + 1


def tightened(limits: Limits, other: Limits) -> Limits:
    """Each limit, the stricter of two."""
    both = (
        (name, [one for one in (getattr(limits, name), getattr(other, name)) if one is not None])
        for name in limits.__struct_fields__
    )
    return type(limits)(**{name: min(found) for name, found in both if found})


class BatchBuilder:
    """One request being filled: `fits` says whether the next text still fits, `add` puts it in."""

    __slots__ = ("count", "limits", "size", "tokens")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.count = self.tokens = self.size = 0

    def fits(self, tokens: int, size: int, texts: int = 1) -> bool:
        """True while the next text (or texts) fits; always true for the first."""
        limits = self.limits
        return self.count == 0 or (
            (limits.max_texts is None or self.count + texts <= limits.max_texts)
            and (limits.max_tokens is None or self.tokens + tokens <= limits.max_tokens)
            and (limits.max_bytes is None or self.size + size <= limits.max_bytes)
        )

    def add(self, tokens: int, size: int, texts: int = 1) -> None:
        """Put one text (or several) in."""
        self.count += texts
        self.tokens += tokens
        self.size += size


def plan(
    texts: Sequence[str],
    limits: Limits,
    count_tokens: Callable[[str], int] = estimate,
    *,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[slice]:
    """The slices of `texts` (from `start` up to `stop`) that go
    out as one request each, as large as the limits allow.
    """
    total = len(texts) if stop is None else stop
    most = limits.max_texts or max(total, 1)
    while start < total:
        end = min(start + most, total)
        if end - start > 1 and not _clearly_fits(texts, start, end, limits, count_tokens):
            builder = BatchBuilder(limits)
            end = start
            while end < total:
                tokens, size = measure(texts[end], limits, count_tokens)
                if not builder.fits(tokens, size):
                    break
                builder.add(tokens, size)
                end += 1
        yield slice(start, end)
        start = end


def measure(text: str, limits: Limits, count_tokens: Callable[[str], int] = estimate) -> tuple[int, int]:
    """(tokens, bytes) of a text, each counted only where a limit asks for it."""
    return (
        count_tokens(text) if limits.max_tokens is not None else 0,
        utf8(text) if limits.max_bytes is not None else 0,
    )


def _clearly_fits(
    texts: Sequence[str], start: int, stop: int, limits: Limits, count_tokens: Callable[[str], int]
) -> bool:
    """True where even the worst reading of the texts' lengths is within the limits, so none has to be measured."""
    if limits.max_tokens is None and limits.max_bytes is None:
        return True
    if limits.max_tokens is not None and count_tokens is not estimate:
        return False
    # The worst: characters of four UTF-8 bytes, 23 tokens in 15 of them, and one token per text.
    most = min(
        float("inf") if limits.max_tokens is None else (limits.max_tokens - (stop - start)) * 60 // 23,
        float("inf") if limits.max_bytes is None else limits.max_bytes,
    )
    size = 0
    for glance in range(start, stop, _GLANCE):
        size += 4 * sum(map(len, texts[glance : min(glance + _GLANCE, stop)]))
        if size > most:
            return False
    return True
