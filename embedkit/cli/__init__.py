"""The `embedkit` command: what can be settled before click is
loaded. Each command has a file of its own beside this one.

Exit codes: 0 done, 1 the provider or the network failed, 2 usage, configuration or a bad file, 3 done but for some
rows, 4 stopped at a limit of tokens or cost, 130 Ctrl-C (143 SIGTERM, 129 SIGHUP), 141 nobody reads the output.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, NoReturn

from .._install import install

if TYPE_CHECKING:
    from types import FrameType

NEEDED = ("click", "filelock", "orjson", "pyarrow", "rich")
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line (that of this process, unless given) and exit."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        sys.stderr.write(f"embedkit: the command line needs {', '.join(missing)}: {install('cli')}\n")
        sys.exit(2)
    _hold_closed_streams()
    if sys.stderr is None:  # closed by whoever started us
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 (for good)
    ended: list[int] = []
    _end_like_ctrl_c(ended)
    try:
        from .commands import root

        root.main(arguments, prog_name="embedkit")
    except KeyboardInterrupt:
        sys.stderr.write("embedkit: interrupted\n")
        sys.exit(128 + ended[0] if ended else INTERRUPTED)
    except SystemExit as end:
        if end.code == INTERRUPTED and ended:
            sys.exit(128 + ended[0])
        raise
    sys.exit(0)


def _hold_closed_streams() -> None:
    """Keep the numbers 0 to 2 for streams: a socket or file that got one would be written to as stdout, and libuv ends
    the process where it is to close one (`uv__close` in its src/unix/core.c).
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _end_like_ctrl_c(ended: list[int]) -> None:
    """Handle SIGTERM and SIGHUP like Ctrl-C, unless they are ignored, so that no file is left half-written."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN and hasattr(signal, "pthread_sigmask"):
        # A job in the background ignores Ctrl-C. Its handler is installed all the same, for the other two to call.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def end(number: int, frame: FrameType | None) -> None:
        ended.append(number)
        handler = signal.getsignal(signal.SIGINT)  # asyncio's own, while a loop runs
        if not callable(handler):
            raise KeyboardInterrupt
        handler(signal.SIGINT, frame)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, end)


__all__ = ["main"]
