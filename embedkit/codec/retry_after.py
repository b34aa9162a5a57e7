"""How long a refusal says to wait, in its headers, body or message; in seconds from `now`. Pure."""

from __future__ import annotations

import re
from datetime import UTC
from typing import TYPE_CHECKING, Any

from .._types import CAP, Response

if TYPE_CHECKING:
    from collections.abc import Mapping


EPOCH = 1e9  # seconds: a larger number is a Unix time (2001 and later)
DAY = 86_400.0
MONTH = 32 * 86_400.0  # seconds; no quota is longer, so a longer wait is a mistake


def retry_after(response: Response, says: str, body: Any, now: float) -> float | None:
    """Seconds to wait, by the first of: `retry-after-ms`, `retry-after`, body, message, `x-ratelimit-reset-*`.

    `retry-after` is believed whatever it says, the words of a rate limit below a day (Azure says "86400 seconds" of
    limits that are over sooner), and so is a `retry_after` in its body; the others up to CAP.
    """
    headers = response.headers
    if (ms := _positive(headers.get("retry-after-ms"))) is not None:
        return ms / 1000
    if (after := headers.get("retry-after")) is not None:
        seconds = seconds_until(after, now)
        if seconds is not None:
            return seconds
    most = DAY - 1 if response.status == 429 else CAP  # noqa: PLR2004 (too many requests)
    for seconds, bound in (
        (_estimated(body), CAP),
        (_field(body, now), most),
        (_spoken(says, now), most),
        (_reset(headers, now), CAP),
    ):
        if seconds is not None and 0 < seconds <= bound:
            return seconds
    return None


def _positive(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if 0 < number < float("inf") else None


def _until(date: str, now: float) -> float | None:
    from datetime import datetime
    from email.utils import parsedate_to_datetime

    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            moment = parse(date)
            seconds = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp() - now
        except (ValueError, OverflowError, TypeError):
            continue
        return seconds if seconds > 0 else None
    return None


def _estimated(body: Any) -> float | None:
    """Hugging Face's `estimated_time` of a model that loads; Google's `retryDelay` ("22s"), of google.rpc.RetryInfo."""
    if not isinstance(body, dict):
        return None
    if isinstance(body.get("estimated_time"), (int, float)):
        return float(min(body["estimated_time"], 1e9))  # a huge int is no float
    error = body.get("error")
    details = error.get("details") if isinstance(error, dict) else None
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and isinstance(detail.get("retryDelay"), str):
            return duration(detail["retryDelay"])
    return None


def _field(body: Any, now: float) -> float | None:
    """A field `retry_after` or `retryAfter`: in the body, or in its `error` or `detail`.

    developers.cloudflare.com/changelog/post/2026-03-12-retry-after-header-for-1xxx-errors
    """
    if not isinstance(body, dict):
        return None
    places = [each for each in (body, body.get("error"), body.get("detail")) if isinstance(each, dict)]
    for place in places:
        for name in ("retry_after", "retryAfter"):
            value = place.get(name)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= MONTH:
                return float(value)
            if isinstance(value, str) and (seconds := seconds_until(value, now)) is not None:
                return seconds
    return None


# A span of time as a message says it: "6m0s", "1d2h", "5 seconds", "250ms", "2.8s", "20".
_WORDS = r"(?:milli)?seconds?|m?secs?|minutes?|mins?|hours?|hrs?|days?"
_SPAN = rf"\d+(?:\.\d+)?(?: ?(?:ms|[dhms]|{_WORDS})\b| ?(?:ms|[dhms])(?=\d) ?\d+(?:\.\d+)?)*(?: ?(?:ms|[dhms]))?"
_DATE = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?"
# What a digit, a colon or a dash follows is a date, a time of day or a range, and no span.
_SAID = rf"(?:(?:try again|retry) (?:in|after|at)|please wait(?: for)?) (?:({_DATE})|({_SPAN})(?![,.:/-]?\d))"


def _spoken(says: str, now: float) -> float | None:
    found = re.search(_SAID, says, re.IGNORECASE)
    if found is None:
        return None
    return _until(found[1], now) if found[1] else duration(_abbreviated(found[2]).rstrip("."))


def _abbreviated(words: str) -> str:
    """The same without words and blanks: "5 seconds" is "5s"."""
    return re.sub(rf"(\d) ?({_WORDS})\b", _unit, words.lower()).replace(" ", "")


def _unit(found: re.Match[str]) -> str:
    return found[1] + ("ms" if found[2].startswith(("mil", "ms")) else found[2][0])


def _reset(headers: Mapping[str, str], now: float) -> float | None:
    for what in ("requests", "tokens"):
        if headers.get(f"x-ratelimit-remaining-{what}", "").strip() == "0" and (
            seconds := seconds_until(headers.get(f"x-ratelimit-reset-{what}", ""), now)
        ):
            return seconds
    # Azure's spelling (openai/openai-python#937).
    if seconds := seconds_until(headers.get("x-rate-limit-reset-tokens", ""), now):
        return seconds
    return seconds_until(headers.get("x-ratelimit-reset", ""), now)


def seconds_until(text: str, now: float) -> float | None:
    """Seconds from `now` (Unix seconds) to what a header says.

    It may be seconds, a duration (1m2s, 12ms, 7 seconds), a Unix time in seconds or milliseconds (OpenRouter), an HTTP
    or an ISO date. Of several, as a repeated header is joined ("7, 9"; RFC 9110, 5.3), the longest. None if it is
    nothing of that, in the past, or more than MONTH away.
    """
    text = text.strip()
    seconds = _span(text)
    if seconds is None:
        seconds = _until(text, now) or _longest(text, now)
    elif seconds > EPOCH and _positive(text):
        seconds = (seconds / 1000 if seconds > EPOCH * 100 else seconds) - now
    return seconds if seconds is not None and 0 < seconds <= MONTH else None


def _longest(text: str, now: float) -> float | None:
    parts = text.split(",")
    if len(parts) == 1 or not all(part.strip()[:1].isdigit() for part in parts):  # a date begins with its weekday
        return None
    known = [seconds_until(part, now) for part in parts]
    return max(filter(None, known)) if all(known) else None


def dated(text: str) -> bool:
    """Whether a header names a point in time rather than a number of seconds."""
    seconds = _span(text.strip())
    return bool(text) and (seconds is None or seconds > EPOCH)


def _span(text: str) -> float | None:
    seconds = duration(text)
    return seconds if seconds is not None or not text[:1].isdigit() else duration(_abbreviated(text))


_N = r"(\d+(?:\.\d+)?)"
_GO = rf"(?:{_N}d)?(?:{_N}h)?(?:{_N}m(?!s))?(?:{_N}s)?(?:{_N}ms)?(?:{_N}[uµμ]s)?(?:{_N}ns)?"
_SECONDS = (86_400.0, 3600.0, 60.0, 1.0, 1e-3, 1e-6, 1e-9)  # of each unit


def duration(text: str) -> float | None:
    """Seconds in a Go-style duration, as of OpenAI's `x-ratelimit-reset-*` (12ms, 6m0s, 1h2m3.5s), or a bare number.

    pkg.go.dev/time#Duration.String
    """
    found = re.fullmatch(_GO, text)
    if not text or found is None:
        return _positive(text)
    return sum(float(part or 0) * unit for part, unit in zip(found.groups(), _SECONDS, strict=True))
