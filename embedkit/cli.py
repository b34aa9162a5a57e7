"""The `embedkit` command: what can be settled before click is loaded. The commands themselves are in `_commands`.

Exit codes: 0 done, 1 the provider or the network failed, 2 usage, configuration or a bad file, 3 done but for some rows
(`--on-error skip`), 130 Ctrl-C (143 SIGTERM, 129 SIGHUP), 141 nobody reads our output any more.
"""

from __future__ import annotations

import signal
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

NEEDED = ("click", "rich", "pyarrow")
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line (that of this process, unless given) and exit."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        sys.stderr.write(f'embedkit: the command line needs {", ".join(missing)}: pip install "embedkit[cli]"\n')
        sys.exit(2)
    ended: list[int] = []
    _end_like_ctrl_c(ended)
    try:
        from ._commands import root

        root.main(arguments, prog_name="embedkit")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except SystemExit as end:
        if end.code == INTERRUPTED and ended:
            sys.exit(128 + ended[0])
        raise
    sys.exit(0)


def _end_like_ctrl_c(ended: list[int]) -> None:
    """Let SIGTERM and SIGHUP, where nobody ignores them, take the way of Ctrl-C: it leaves nothing half-written."""

    def end(number: int, frame: object) -> None:  # noqa: ARG001 (the signature of a handler)
        ended.append(number)
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a job in the background: no Ctrl-C there, but a way to end it
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, end)


__all__ = ["main"]
