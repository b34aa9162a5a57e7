"""Makes `jargon.txt` from the dictionary files of Debian's
`dict-jargon`: one passage per line, each with its headword in front.

    apt-get download dict-jargon && dpkg -x dict-jargon_*.deb unpacked
    python benchmarks/corpus/build.py unpacked/usr/share/dictd/jargon.dict.dz benchmarks/corpus/jargon.txt

Entries are unwrapped, freed of markup, and cut at paragraph and sentence bounds so that every passage fits the embedded
model. The same input always gives the same output.
"""
# ruff: noqa: RUF001 (the typographic quotation marks are the text's own)

from __future__ import annotations

import argparse
import gzip
import re
from pathlib import Path
from typing import TYPE_CHECKING

from embedkit.local import LocalEmbedder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHORTEST = 40  # characters of a definition; below it are bare cross-references
LONGEST = 1000  # characters of a passage
MOST_TOKENS = 256  # of all-MiniLM-L6-v2, its two special tokens included
PROSE = 0.65  # share of letters in a paragraph; below it are tables and key charts
COARSE = re.compile(r"fuck|shit|cunt|whore|\bfag|\brape|masturb|orgasm|penis", re.IGNORECASE)
SENTENCE = re.compile(r"(?<=[a-z0-9)\]”’][.!?]) (?=[A-Z0-9“‘(\[])")
PRONOUNCED = re.compile(r"\s*/[^/\s]*[·´`@'][^/]*/")


def entries(text: str) -> Iterator[tuple[str, list[str]]]:
    """(headword, paragraphs) of every entry. A headword stands
    alone in the first column; its body is indented by four.
    """
    head, body = "", [""]
    for line in text.splitlines():
        if line[:1] not in ("", " "):
            yield head, body
            head, body = line.strip(), [""]
        elif not line.strip():
            body.append("")
        elif line.startswith("    ") and line[4] != " ":  # deeper: drawings, tables, code, quotations
            body[-1] += line[4:] + "\n"
    yield head, body


def clean(paragraph: str) -> str:
    """One line of plain prose, or "" where the paragraph is none."""
    text = paragraph.replace("\u00ad", "").replace("\u00a0", " ")
    text = re.sub(r"(https?://\S*)\n(?=\S*/)", r"\1", text)  # addresses are broken at their slashes
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r" <\S+@\S+>\}?", "", text)  # <mail address>
    text = re.sub(r"\{\s*([^{}]*?)\s*\}", r"\1", text)  # {cross-reference}
    text = re.sub(r"([“‘(\[]) (?=\S)", r"\1", text)  # spaces that the line breaks left inside a bracket or quotation
    text = re.sub(r"(?<=\S) ([”\])])", r"\1", text)
    text = PRONOUNCED.sub("", text)
    picture = re.fullmatch(r"\[\S*\]", text)  # the mark left where one was
    return text if not picture and sum(map(str.isalpha, text)) >= PROSE * len(text) else ""


def pack(pieces: list[str], fits: Callable[[str], bool]) -> Iterator[str]:
    """Consecutive pieces joined as far as they fit; one that does not fit alone is taken apart into sentences."""
    tray = ""
    for piece in pieces:
        joined = f"{tray} {piece}".strip()
        if fits(joined):
            tray = joined
            continue
        if tray:
            yield tray
        tray = piece if fits(piece) else ""
        if not tray and len(sentences := SENTENCE.split(piece)) > 1:
            yield from pack(sentences, fits)
    if tray:
        yield tray


def passages(text: str, count_tokens: Callable[[str], int]) -> Iterator[str]:
    """Every passage, in the order of the dictionary, each once."""
    seen = set()
    for head, body in entries(text):
        if not head or head.startswith("00-database"):
            continue

        def fits(piece: str, head: str = head) -> bool:
            line = f"{head}: {piece}"
            return len(line) <= LONGEST and count_tokens(line) <= MOST_TOKENS

        for piece in pack([prose for prose in map(clean, body) if prose], fits):
            line = f"{head}: {piece}"
            if len(piece) >= SHORTEST and piece not in seen and not COARSE.search(line):
                seen.add(piece)
                yield line


def main() -> None:
    """Read the dictionary, write the passages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dictionary", type=Path, help="jargon.dict.dz (gzip-compatible)")
    parser.add_argument("output", type=Path)
    given = parser.parse_args()
    text = gzip.decompress(given.dictionary.read_bytes()).decode()
    lines = list(passages(text, LocalEmbedder().count_tokens))
    given.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} passages, {sum(map(len, lines)) // len(lines)} characters each on average")


if __name__ == "__main__":
    main()
