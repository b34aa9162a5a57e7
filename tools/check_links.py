"""Checks the links of what people read: the built site, and the Markdown files as they stand in the repository.

A link to another page, file or heading must lead somewhere. Links to other sites are not followed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parent.parent
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "benchmarks/README.md")


class Page(HTMLParser):
    """A page of HTML: where its links lead, and what can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors = {""}
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what this tag links to, and what it is called."""
        found = dict(attrs)
        self.anchors |= {found.get("id") or "", found.get("name") or "" if tag == "a" else ""}
        self.links += [link for name in ("href", "src") if (link := found.get(name)) and tag != "base"]


def dead_links_of_site(site: Path) -> Iterator[str]:
    """Every link of a built site that leads nowhere, as `page: link`."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        for link in page.links:
            place, inside = _target(path, link, site)
            if place is None:
                continue
            if not place.exists() or (place in pages and inside not in pages[place].anchors):
                yield f"{path.relative_to(site.resolve())}: {link}"


def _target(page: Path, link: str, site: Path) -> tuple[Path | None, str]:
    """(file, anchor) that a link of a page means; no file where it leads out of the site."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None, ""
    words = unquote(parts.path)
    base = site if words.startswith("/") else page.parent
    place = (base / words.lstrip("/")).resolve() if words else page
    return place / "index.html" if place.is_dir() else place, unquote(parts.fragment)


def dead_links_of_document(document: Path) -> Iterator[str]:
    """Every link of a Markdown file to a file or a heading that is not there, as `file: link`."""
    for link in re.findall(r"\]\(<?([^)\s>]+)", _without_code(document.read_text("utf-8"))):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        place = (document.parent / unquote(parts.path)).resolve() if parts.path else document
        inside = parts.fragment
        if not place.exists() or (inside and inside not in _headings(place)):
            yield f"{document.relative_to(ROOT) if document.is_relative_to(ROOT) else document}: {link}"


def _headings(document: Path) -> set[str]:
    """The anchors that a repository's page of this Markdown file has."""
    lines = re.findall(r"^#+ +(.+?) *$", _without_code(document.read_text("utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


def _without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def main() -> None:
    """Print the dead links, and fail if there are any."""
    dead = [*dead_links_of_site(ROOT / "build" / "site")]
    documents = [*(ROOT / name for name in DOCUMENTS), *sorted((ROOT / "docs").rglob("*.md"))]
    dead += [each for document in documents for each in dead_links_of_document(document)]
    if dead:
        sys.exit("\n".join(f"dead link: {each}" for each in dead))


if __name__ == "__main__":
    main()
