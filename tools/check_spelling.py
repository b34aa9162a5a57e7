"""Checks the spelling of what people read: every page of the built site, and README.md and SECURITY.md.

A word is right if it is in the dictionary of American English, in `tools/words.txt` (the words of this field), or the
name of a provider. Left out is what is code, and what has a capital after its first letter: an abbreviation or the name
of a class.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from embedkit.providers import hosts

ROOT = Path(__file__).parent.parent
DOCUMENTS = ("README.md", "SECURITY.md")  # the site has CONTRIBUTING.md and CHANGELOG.md
UNREAD = {"code", "pre", "script", "style", "head", "svg"}
APART = {"p", "li", "td", "th", "h1", "h2", "h3", "h4", "a", "span", "label"}
WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")


class Text(HTMLParser):
    """What a reader reads of a page of HTML, without its code."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self._unread = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 (the parser's)
        """Code begins, or another piece of text."""
        self._unread += tag in UNREAD
        self.words += [" "] if tag in APART else []

    def handle_endtag(self, tag: str) -> None:
        """Code ends, or a piece of text."""
        self._unread -= tag in UNREAD
        self.words += [" "] if tag in APART else []

    def handle_data(self, data: str) -> None:
        """Keep the text."""
        self.words += [] if self._unread else [data]


def prose_of_html(page: str) -> str:
    """The text of a page of the site, without code."""
    return "".join(Text(page).words)


def prose_of_markdown(text: str) -> str:
    """The text of a Markdown file, without code and without the targets of links."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`]+`|\]\([^)]*\)|<[^>]+>", " ", text)


def misspelled(prose: str, known: Iterable[str]) -> Iterator[str]:
    """The words of a text that neither the dictionary nor `known` has, each once, as they stand there."""
    known = {word.lower() for word in known}
    prose = re.sub(r"\S*(?:://|[\w-]/|\.[a-z])\S*", " ", prose)  # addresses, paths, names of files
    for word in dict.fromkeys(WORD.findall(prose.replace("\u2019", "'"))):  # the typographic apostrophe
        named = re.search(r".[A-Z]", word) or word.lower().removesuffix("'s") in known
        if not named and not _dictionary().lookup(word):
            yield word


@cache
def _dictionary() -> Any:
    from spylls.hunspell import Dictionary

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its files open
        return Dictionary.from_files("en_US")


def main() -> None:
    """Print the misspelled words, and fail if there are any."""
    known = {*(ROOT / "tools" / "words.txt").read_text("utf-8").split(), *(host.name for host in hosts())}
    site = ROOT / "build" / "site"
    read = {f"site/{path.relative_to(site)}": prose_of_html(path.read_text("utf-8")) for path in site.rglob("*.html")}
    read |= {name: prose_of_markdown((ROOT / name).read_text("utf-8")) for name in DOCUMENTS}
    found: dict[str, str] = {}
    for name, prose in sorted(read.items()):
        for word in misspelled(prose, known):
            found.setdefault(word, name)
    if found:
        wrong = "".join(f"misspelled in {name}: {word}\n" for word, name in sorted(found.items()))
        sys.exit(f"{wrong}A word that is right belongs into tools/words.txt.")


if __name__ == "__main__":
    main()
