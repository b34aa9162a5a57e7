"""What models are measured on: texts, and what is known of which belongs to which."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from .._bulk.contract import Source
from ..errors import ConfigError

USUAL_K = 10
SPARSE = 5  # texts per neighbor, at least, where nobody says how many neighbors: of few texts, recall of 10 is chance

KEYS = {"pairs": "query", "classes": "label"}  # what the key of a row is


class Corpus(msgspec.Struct, frozen=True, kw_only=True):
    """Texts to measure models on.

    Attributes:
        documents: the texts, each once.
        queries: what is looked for among them; empty: every text looks for its own neighbors, itself left out.
        relevant: by query (by text where there are no queries), the places of the documents that belong to it; None:
            nobody knows, and the neighbors that the first model finds stand for them.
        name: where they are from.
    """

    documents: list[str]
    queries: list[str] = []
    relevant: list[list[int]] | None = None
    name: str = ""

    @property
    def candidates(self) -> int:
        """How many documents one query chooses from."""
        return len(self.documents) - (0 if self.queries else 1)

    def neighbors(self, asked: int | None) -> int:
        """The k of recall@k: as asked, else 10, or fewer among few texts.

        Raises:
            ConfigError: there are no more than k documents to choose from, so all of them would be found.
        """
        if asked is not None and asked >= self.candidates:
            msg = f"k={asked}: there are {self.candidates} texts to choose from; k is a number below that"
            raise ConfigError(msg)
        return asked or max(1, min(USUAL_K, self.candidates // SPARSE))


def read(source: Source, name: str, *, kind: str) -> Corpus:
    """The corpus that a file is.

    Args:
        source: of the texts; the key of a row is its query (kind "pairs") or its label ("classes").
        name: of the file.
        kind: "texts": nothing is known of them; "pairs": the document of a row answers its query, and a query may have
            several rows; "classes": texts with the same label belong together.

    Raises:
        ConfigError: a row has no usable text, query or label; there are fewer than two different texts; no text shares
            its label with another.
    """
    texts, keys = [], []
    for text, key in _rows(source, name, kind):
        texts.append(text)
        keys.append(key)
    documents = list(dict.fromkeys(texts))
    if len(documents) < 2:  # noqa: PLR2004 (one text is nobody's neighbor)
        found = "no text" if not documents else f"one text, {len(texts):,} times" if len(texts) > 1 else "one text"
        msg = f"{name} has {found}: at least two different ones are needed to compare models"
        raise ConfigError(msg)
    place = {text: number for number, text in enumerate(documents)}
    places = [place[text] for text in texts]
    if kind == "pairs":
        queries, relevant = _pairs(places, [str(key) for key in keys])
        return Corpus(documents=documents, queries=queries, relevant=relevant, name=name)
    if kind == "classes":
        return Corpus(documents=documents, relevant=_classes(places, keys, len(documents), name), name=name)
    return Corpus(documents=documents, name=name)


def of_pairs(pairs: Sequence[tuple[str, str]], name: str) -> Corpus:
    """The corpus of (query, document) pairs."""
    documents = list(dict.fromkeys(document for _, document in pairs))
    place = {text: number for number, text in enumerate(documents)}
    queries, relevant = _pairs([place[document] for _, document in pairs], [query for query, _ in pairs])
    return Corpus(documents=documents, queries=queries, relevant=relevant, name=name)


def _rows(source: Source, name: str, kind: str) -> Iterator[tuple[str, Any]]:
    row = 0
    for block in source.blocks():
        keys = block.keys or [None] * len(block.texts)
        for text, key in zip(block.texts, keys, strict=True):
            if text is None or row in block.faults:
                msg = f"{name}, row {row}: {block.faults.get(row, 'no text')}; --column, --query and --label say where"
                raise ConfigError(msg)
            if kind != "texts" and not str(key).strip():
                msg = f"{name}, row {row}: the {KEYS[kind]} is empty; fill it in, or leave the row out"
                raise ConfigError(msg)
            yield text, key
            row += 1


def _pairs(places: Sequence[int], keys: Sequence[str]) -> tuple[list[str], list[list[int]]]:
    found: dict[str, dict[int, None]] = defaultdict(dict)
    for place, query in zip(places, keys, strict=True):
        found[query][place] = None
    return list(found), [list(each) for each in found.values()]


def _classes(places: Sequence[int], keys: Sequence[Any], count: int, name: str) -> list[list[int]]:
    members: dict[Any, set[int]] = defaultdict(set)
    relevant: list[set[int]] = [set() for _ in range(count)]
    for place, label in zip(places, keys, strict=True):
        members[label].add(place)
    for each in members.values():
        for place in each:
            relevant[place] |= each - {place}
    if not any(relevant):
        msg = f"{name}: no text shares its label with another, so there is nothing to find"
        raise ConfigError(msg)
    return [sorted(each) for each in relevant]


__all__ = ["Corpus", "of_pairs", "read"]
