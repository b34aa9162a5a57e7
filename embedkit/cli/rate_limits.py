"""What the headers of a response say of rate limits. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

# As OpenAI names them, and those that follow it: https://platform.openai.com/docs/guides/rate-limits
OPENAI = re.compile(r"x-ratelimit-(limit|remaining|reset)-(requests|tokens)")
# Together: x-ratelimit-limit, x-tokenlimit-limit; Mistral: ratelimitbysize-limit; Cohere: x-trial-endpoint-call-limit;
# RateLimit and RateLimit-Policy: https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
ANY = re.compile(r"rate-?limit|token-?limit|call-(limit|remaining)")
KINDS, FACTS = ("requests", "tokens"), ("limit", "remaining", "reset")


def rate_limits(headers: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """What is granted: "requests" and "tokens", each with "limit", "remaining" and "reset" as far as they were sent;
    "others" has headers of other names, as they came. Empty: none was sent.
    """
    found: dict[str, dict[str, str]] = {kind: {} for kind in (*KINDS, "others")}
    for name, value in headers.items():
        if known := OPENAI.fullmatch(name.lower()):
            found[known[2]][known[1]] = value
        elif ANY.search(name.lower()):
            found["others"][name.lower()] = value
    ordered = {kind: {fact: found[kind][fact] for fact in FACTS if fact in found[kind]} for kind in KINDS}
    return {kind: facts for kind, facts in {**ordered, "others": found["others"]}.items() if facts}


def spelled(found: Mapping[str, Mapping[str, str]]) -> str:
    """The same for people."""
    parts = []
    for kind in KINDS:
        if facts := found.get(kind):
            left, most = facts.get("remaining"), facts.get("limit")
            counted = f"{left} of {most} {kind} left" if left and most else f"{left} {kind} left" if left else ""
            counted = counted or (f"at most {most} {kind}" if most else kind)
            parts.append(counted + (f" (reset: {facts['reset']})" if "reset" in facts else ""))
    parts += [f"{name}: {value}" for name, value in found.get("others", {}).items()]
    return "; ".join(parts) or "none sent"
