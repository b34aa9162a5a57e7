"""What is wrong with a credential as somebody has pasted it: told without showing it, and the same for every one.

A key is one word of visible ASCII characters. What stands around it in a file, a shell or a header is not part of it,
and a server would only say that the key is wrong.
"""

from __future__ import annotations

import re
from unicodedata import name as called

QUOTES = "\"'`\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u201b\u00ab\u00bb\u2039\u203a\u00b4\uff02\uff07"


def flaw(value: str) -> str:
    """Why this cannot be a credential, in words that do not show it; empty where it can."""
    text = value.strip()
    if not text:
        return "is empty"
    if text[0] in QUOTES or text[-1] in QUOTES:
        quote = _shown(text[0] if text[0] in QUOTES else text[-1])
        return f"stands in quotes ({quote}), which are not part of it: pass it without them"
    if found := re.match(r"(bearer|basic|token|apikey)\s|(authorization|(x-)?api-key)\s*:", text, re.IGNORECASE):
        return f"begins with {found[0].strip()!r}, which is put before it anyway: pass the key alone"
    if found := re.match(r"(export\s+)?[A-Z][A-Z0-9_]*(KEY|TOKEN|SECRET|PAT)\s*=", text):
        return f"begins with {found[0]!r}, the name of a variable: pass what stands behind it"
    strange = next((each for each in text if not ("!" <= each <= "~")), "")
    if not strange:
        return ""
    return f"holds white space or a character that no header can carry ({_shown(strange)}): pass the key alone"


def _shown(character: str) -> str:
    """A character by its number and name: many of those in question do not show."""
    known = "line break" if character in "\r\n" else called(character, "")
    return f"U+{ord(character):04X}" + (f", {known.lower()}" if known else "")
