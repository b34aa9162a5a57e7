"""Event loops: which one is running, and what belongs to each."""

from __future__ import annotations

import sys
from typing import Any, TypeVar

T = TypeVar("T")


class PerLoop(dict[object, T]):
    """One value per event loop, by `this_loop()`. Whoever adds one sweeps first, else the loops of ended threads would
    pile up.

    Several threads may use it at once, each with a loop of its own.
    """

    def sweep(self) -> list[T]:
        """Take out the values of closed loops, and return them."""
        closed = [loop for loop in list(self) if getattr(loop, "is_closed", bool)()]
        taken = [self.pop(loop, None) for loop in closed]
        return [value for value in taken if value is not None]  # None: another thread was faster

    def __reduce__(self) -> tuple[Any, ...]:
        return PerLoop, ()  # loops do not travel to another process


def this_loop() -> object:
    """What identifies the running event loop, asyncio or trio."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        try:
            return asyncio.get_running_loop()
        except RuntimeError:
            pass
    import anyio.lowlevel

    return anyio.lowlevel.current_token()


__all__ = ["PerLoop", "this_loop"]
