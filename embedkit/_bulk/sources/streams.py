"""Bytes in: unpacked, in UTF-8, whole lines at a time, in bounded memory; and what they begin with."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO

from ...errors import ConfigError
from .rows import LONGEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PIECE = 1 << 20  # bytes read at once
LINES = 16  # looked at, to see what a pipe holds
MARK = "embedkit.marked"  # the error handler below


def _marked(error: UnicodeError) -> tuple[str, int]:
    """Bytes that cannot be decoded, each as half of a surrogate pair, which no text holds: so the row is found."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error(MARK, _marked)


class Pieces(io.RawIOBase):
    """A stream made of what a function gives: some bytes at a call, none at the end."""

    def __init__(self, more: Callable[[], bytes], start: bytes = b"") -> None:
        self._more, self._held = more, memoryview(start)

    def readable(self) -> bool:
        """True; `io.RawIOBase` asks."""
        return True

    def readinto(self, buffer: Any) -> int:
        """What is held; else what there is next."""
        if not self._held:
            self._held = memoryview(self._more())
        piece = self._held[: len(buffer)]
        self._held = self._held[len(piece) :]
        buffer[: len(piece)] = piece
        return len(piece)

    def some(self) -> bytes:
        """All that is held, or what there is next; nothing at the end."""
        held, self._held = bytes(self._held), memoryview(b"")
        return held or self._more()


def pieces(file: BinaryIO) -> Pieces:
    """A file or pipe, as its bytes come: no call waits for more than there is."""
    read = getattr(file, "read1", file.read)
    return Pieces(lambda: read(PIECE))


def unpacked(file: Pieces, codec: str, name: str) -> Pieces:
    """What was packed as "gzip" or "zstd", in however many members.

    Both check their sums. Python's gzip takes zeros at the end for what they are, the padding of a tape or a block
    device (https://docs.python.org/3/library/gzip.html); its own zstd begins with 3.14, so that is pyarrow's.

    Raises:
        ConfigError (when read): it is damaged, or cut off.
    """
    if codec == "gzip":
        read: Callable[[int], bytes] = gzip.GzipFile(fileobj=file).read1
    else:
        import pyarrow as pa

        read = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), codec).read

    def more() -> bytes:
        try:
            found = read(PIECE)
        except (ValueError, EOFError, zlib.error, OSError) as error:  # ArrowInvalid is a ValueError
            if getattr(error, "errno", None) is not None or isinstance(error, ConfigError):
                raise
            msg = f"{name}: cannot be unpacked as {codec} ({error}): it is damaged or not all of it is there"
            raise ConfigError(msg) from None
        return found

    return Pieces(more)


def in_utf8(file: Pieces, encoding: str, name: str) -> Pieces:
    """The same text in UTF-8. What cannot be decoded is no UTF-8 afterwards either, in its row alone.

    Raises:
        ConfigError (when read): the codec refuses all of it, as utf-16 does without a byte order mark.
    """
    decoder = codecs.getincrementaldecoder(encoding)(MARK)
    ended = False

    def more() -> bytes:
        nonlocal ended
        text = ""
        while not text and not ended:
            piece = file.some()
            ended = not piece
            try:
                text = decoder.decode(piece, ended)
            except UnicodeError as error:
                msg = f"{name}: it is not {encoding} ({error}); --encoding names another"
                raise ConfigError(msg) from None
        return text.encode("utf-8", "surrogatepass")

    return Pieces(more)


def encoding_named(name: str) -> str:
    """The codec's own name, "utf-8" for the usual one, with or without a byte order mark.

    Raises:
        ConfigError: Python has no codec of that name, or it is none for text.
    """
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):  # a null character in it is a ValueError
        found = None
    if found is None or not getattr(found, "_is_text_encoding", True):
        msg = (
            f"encoding {name!r}: Python has no such text encoding; there is utf-8, utf-16, cp1252, latin-1, shift_jis, "
            "gb18030 … (https://docs.python.org/3/library/codecs.html#standard-encodings)"
        )
        raise ConfigError(msg)
    return "utf-8" if found.name in ("utf-8", "utf-8-sig") else found.name


def beginning(file: Pieces, most: int, *, patient: bool) -> tuple[bytes, bool, Pieces]:
    """(first bytes, whether they are all, the stream with them before it). Of a pipe that may stay silent (not
    `patient`) no more than some lines are waited for.
    """
    start, piece = b"", b"_"
    while piece and len(start) < most and (patient or start.lstrip().count(b"\n") < LINES):
        piece = file.some()
        start += piece
    return start[:most], not piece and len(start) <= most, Pieces(file.some, start)


def whole_lines(file: Pieces, name: str) -> Iterator[bytes]:
    """The stream in pieces that end with a line; a byte order mark at its beginning is left out.

    Raises:
        ConfigError: a line is longer than `LONGEST`.
    """
    held: list[bytes] = []
    size = 0
    begun = False
    while piece := file.some():
        end = piece.rfind(b"\n") + 1
        held.append(piece[:end] if end else piece)
        size += len(held[-1])
        if not end:
            if size > LONGEST:
                msg = f"{name}: a line is longer than {LONGEST >> 20} MiB; is it in lines at all?"
                raise ConfigError(msg)
            continue
        yield _unmarked(b"".join(held), begun=begun)
        begun = True
        held = [piece[end:]]
        size = len(held[0])
    if rest := b"".join(held):
        yield _unmarked(rest, begun=begun)


def _unmarked(piece: bytes, *, begun: bool) -> bytes:
    return piece if begun else piece.removeprefix(codecs.BOM_UTF8)


def is_utf8(piece: bytes) -> bool:
    """Whether it can be decoded."""
    if piece.isascii():
        return True
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


def not_utf8(line: bytes, encoding: str) -> str:
    """What is wrong with a line that cannot be decoded; "" if it can."""
    try:
        line.decode()
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            return f"not {encoding}"
        return f"not UTF-8 ({error.reason} at byte {error.start} of the line; --encoding names another)"
    return ""
