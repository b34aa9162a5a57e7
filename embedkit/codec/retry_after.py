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
    limits that are over sooner), the others up to CAP.
    """
    headers = response.headers
    if (ms := _positive(headers.get("retry-after-ms"))) is not None:
        return ms / 1000
    if (after := headers.get("retry-after")) is not None:
        seconds = seconds_until(after, now)
        if seconds is not None:
            return seconds
    most = DAY - 1 if response.status == 429 else CAP  # noqa: PLR2004 (too many requests)
    for seconds, bound in ((_estimated(body), CAP), (_spoken(says), most), (_reset(headers, now), CAP)):
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


# A span of time as a message says it: "6m0s", "1d2h", "5 seconds", "250ms", "2.8s", "20".
_WORDS = r"(?:milli)?seconds?|m?secs?|minutes?|mins?|hours?|hrs?|days?"
_SPAN = rf"\d+(?:\.\d+)?(?: ?(?:ms|[dhms]|{_WORDS})\b| ?(?:ms|[dhms])(?=\d) ?\d+(?:\.\d+)?)*(?: ?(?:ms|[dhms]))?"


def _spoken(says: str) -> float | None:
    found = re.search(rf"(?:try again in|retry (?:after|in)|please wait(?: for)?) ({_SPAN})", says, re.IGNORECASE)
    if found is None:
        return None
    words = re.sub(rf"(\d) ?({_WORDS})\b", _unit, found[1].lower())
    return duration(words.rstrip(". ").replace(" ", ""))


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

    It may be seconds, a duration (1m2s, 12ms), a Unix time in seconds or milliseconds (OpenRouter), an HTTP or an ISO
    date. None if it is nothing of that, in the past, or more than MONTH away.
    """
    text = text.strip()
    seconds = duration(text)
    if seconds is None:
        seconds = _until(text, now)
    elif seconds > EPOCH and _positive(text):
        seconds = (seconds / 1000 if seconds > EPOCH * 100 else seconds) - now
    return seconds if seconds is not None and 0 < seconds <= MONTH else None


def dated(text: str) -> bool:
    """Whether a header names a point in time rather than a number of seconds."""
    seconds = duration(text.strip())
    return bool(text) and (seconds is None or seconds > EPOCH)


def duration(text: str) -> float | None:
    """Seconds in a Go-style duration, as of OpenAI's `x-ratelimit-reset-*` (12ms, 6m0s, 1h2m3.5s), or a bare number."""
    found = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?", text)
    if not text or found is None:
        return _positive(text)
    days, hours, minutes, seconds, ms = (float(part or 0) for part in found.groups())
    return days * 86_400 + hours * 3600 + minutes * 60 + seconds + ms / 1000
