"""The texts of one batch job: which of a chunk's rows share one, which cannot be sent, and how they lie on disk.

A *chunk* is the rows of an input that one job embeds. Equal texts are sent once: the *place* of a text is its number
among those that are sent. A line of a job holds the texts of some places that follow each other, and its key names
them, so that whoever reads the answers needs nothing else.
"""

from __future__ import annotations

import os
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from ..._batching.dispatch import unencodable
from ..._batching.plan import BatchBuilder, measure
from ..._batching.texts import plain, without_text
from ..._hints import NDArray
from ...errors import EmbedkitError, InvalidInputError
from ..contract import RowDigest
from ..disk import naming, sync_folder

if TYPE_CHECKING:
    from ..._types import Limits

Line = tuple[int, int]  # the first place of a line, and the one after its last
LONGEST = 2**26  # bytes of a line of answers: 32 vectors of 4096 numbers are a twentieth of that
_KEY = re.compile(r"(\d{1,9})-(\d{1,9})", re.ASCII)
_QUOTED = re.compile(rb'"\d{1,9}-\d{1,9}"')
_json = msgspec.json.Encoder()


def names_a_line(answer: bytes) -> bool:
    """Whether a key of ours stands in a line of answers, which may be damaged."""
    return _QUOTED.search(answer) is not None


def key_of(line: Line) -> str:
    """The key under which a line is sent."""
    return f"{line[0]}-{line[1]}"


def line_of(key: str) -> Line | None:
    """The line that a key names; None where it is none of ours."""
    found = _KEY.fullmatch(key)
    return (int(found[1]), int(found[2])) if found is not None else None


class Places(msgspec.Struct, frozen=True):
    """What is sent of some rows.

    Attributes:
        texts: each once, in the order in which they came first.
        of: the place of each row's text, shape (rows,), int32; -1: it is not sent.
        faults: row → why it is not sent.
    """

    texts: list[str]
    of: NDArray[Any]
    faults: dict[int, EmbedkitError]

    def rows(self, count: int) -> list[str | None]:
        """The first rows again; None for what is not sent."""
        return [self.texts[place] if place >= 0 else None for place in self.of[:count].tolist()]

    def digest(self) -> str:
        """A digest of all rows, what is not sent being the same whatever it is."""
        found = RowDigest()
        found.update(self.rows(len(self.of)))
        return found.hex()


def placed(rows: Sequence[str | None], *, accepts_empty: bool) -> Places:
    """What is sent of these rows: no text twice, nothing that is missing, empty or no Unicode."""
    import numpy as np

    faults: dict[int, EmbedkitError] = dict(without_text(rows))
    order: dict[str, int] = {}
    of = np.full(len(rows), -1, np.int32)
    for row, given in enumerate(rows):
        if row in faults or given is None:
            continue
        text = plain(given)
        wrong = _refusal(text, accepts_empty=accepts_empty)
        if wrong is not None:
            faults[row] = wrong.at(row)
        else:
            of[row] = order.setdefault(text, len(order))
    return Places(list(order), of, dict(sorted(faults.items())))


def _refusal(text: str, *, accepts_empty: bool) -> InvalidInputError | None:
    if not text and not accepts_empty:
        return InvalidInputError("the text is empty, and this provider embeds no empty text")
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError as error:
        return unencodable([text], error)
    return None


def lines_of(
    texts: Sequence[str], limits: Limits, count_tokens: Callable[[str], int], most: int | None, start: int = 0
) -> Iterator[Line]:
    """The lines of texts whose places follow each other from `start`, each within the limits of one request.

    A text of more than `most` tokens stands alone: were it refused, the others of its line would be too.
    """
    first, builder = 0, BatchBuilder(limits)
    for place, text in enumerate(texts):
        long = most is not None and 4 * len(text) + 8 > most and count_tokens(text) > most
        tokens, size = measure(text, limits, count_tokens)
        if builder.count and (long or not builder.fits(tokens, size)):
            yield start + first, start + place
            first, builder = place, BatchBuilder(limits)
        builder.add(tokens, size)
        if long:
            yield start + first, start + place + 1
            first, builder = place + 1, BatchBuilder(limits)
    if builder.count:
        yield start + first, start + len(texts)


def size_of(text: str | None) -> int:
    """Bytes of a text as JSON, about."""
    return 3 if text is None else len(text) + 3 if text.isascii() else len(text.encode("utf-8", "surrogatepass")) + 3


# --- on disk ---------------------------------------------------------------------------------------------------------


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that has its name once it is on disk, whole; before that, nothing has it."""
    unfinished = path.with_name(f"{path.name}.part")
    with unfinished.open("w+b") as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
        except EmbedkitError:  # of what is written; a timeout is an OSError too
            raise
        except OSError:
            with naming(path):
                raise
    unfinished.replace(path)
    sync_folder(path.parent)


def write_places(path: Path, places: Places) -> None:
    """The texts, one a line, as JSON; and beside them, in a file that comes first, the places of the rows."""
    import numpy as np

    with whole_file(_beside(path)) as file:
        np.save(file, places.of)
    with whole_file(path) as file:
        file.writelines(_json.encode(text) + b"\n" for text in places.texts)


def read_places(path: Path) -> Places:
    """What was written, without the faults.

    Raises:
        OSError: it is not there.
    """
    import numpy as np

    of = np.load(_beside(path))
    texts = [msgspec.json.decode(line, type=str) for line in path.read_bytes().splitlines()]
    return Places(texts, of, {})


def _beside(path: Path) -> Path:
    return path.with_suffix(".places")


def read_texts(path: Path, lines: Iterable[Line]) -> Iterator[list[str]]:
    """The texts of these lines, which are in order, one line after the other."""
    with path.open("rb") as file:
        at = 0
        for first, stop in lines:
            while at < first:
                next(file)
                at += 1
            yield [msgspec.json.decode(next(file), type=str) for _ in range(first, stop)]
            at = stop


def write_lines(path: Path, lines: Iterable[Line]) -> None:
    """The lines of one job, to be found by whoever reads its answers."""
    with whole_file(path) as file:
        file.writelines(f"{key_of(line)}\n".encode() for line in lines)


def read_lines(path: Path) -> list[Line]:
    """The lines of one job.

    Raises:
        OSError: the file is not there.
    """
    found = (line_of(text) for text in path.read_text("ascii").splitlines())
    return [line for line in found if line is not None]


def answer_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file of answers, one at a time, whatever the file is; of a line that is too long, pieces."""
    with path.open("rb") as file:
        if file.read(len(BOM_UTF8)) != BOM_UTF8:
            file.seek(0)
        while line := file.readline(LONGEST):
            if line.strip():
                yield line
