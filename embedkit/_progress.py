"""How far a call has come: a bar of tqdm, drawn as the terminal or the notebook can, or a function of the caller's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from ._install import install
from ._values import shown
from .errors import ConfigError

T = TypeVar("T")
Tell = Callable[[int], object]


class Progress:
    """Counts texts that are done, up to `total` (None: not known), and tells of them."""

    def __init__(self, tell: Tell, total: int | None, close: Callable[[], object] = lambda: None) -> None:
        self._tell = tell
        self._left = total
        self._close: Callable[[], object] | None = close

    def add(self, count: int) -> None:
        """So many more are done. A batch that had to be sent again counts once."""
        if self._left is not None:
            count = min(count, self._left)
            self._left -= count
        if count and self._close is not None:
            self._tell(count)

    def finish(self) -> None:
        """All are done: repeated and failed ones too, for which nothing was sent."""
        self.add(self._left or 0)
        self.close()

    def close(self) -> None:
        """No more will be. May be called twice."""
        close, self._close = self._close, None
        if close is not None:
            close()

    async def around(self, work: Awaitable[T]) -> T:
        """What `work` gives; then all are done."""
        try:
            made = await work
        except BaseException:
            self.close()
            raise
        self.finish()
        return made


def progress_of(progress: bool | Tell, total: int | None) -> Progress | None:
    """What a call is to do about its progress.

    Raises:
        ConfigError: tqdm is not installed, or `progress` is neither a truth value nor a callable.
    """
    if progress is False or progress is None:
        return None
    if progress is not True:
        if callable(progress):
            return Progress(progress, total)
        msg = f"progress={shown(progress)}: True for a bar, False, or a callable that is given the number of texts done"
        raise ConfigError(msg)
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        msg = f"progress=True draws with tqdm, which is not installed: pip install tqdm, or {install('notebook')}"
        raise ConfigError(msg) from error
    bar: Any = tqdm(total=total, unit=" texts")
    return Progress(bar.update, total, bar.close)


def length(texts: object) -> int | None:
    """How many there are, where that is known before they are read."""
    try:
        return len(texts)  # type: ignore[arg-type]
    except TypeError:
        return None


__all__ = ["Progress", "Tell", "length", "progress_of"]
