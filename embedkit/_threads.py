"""Work in other threads, also for a caller whose thread outlives the main one, while the interpreter ends.

From the end of the main thread on, the standard library's thread pools take no work, and cannot even be imported for
the first time; some Pythons (3.12.0 and 3.12.1) start no thread at all: https://github.com/python/cpython/issues/113964
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from ._hints import Later

if TYPE_CHECKING:
    import anyio
else:
    anyio = Later("anyio")

T = TypeVar("T")


def pools_loaded() -> None:
    """Import `concurrent.futures.thread`, which event loops and tiktoken need, even where the main thread has ended.

    It registers a handler for the end of the main thread. `threading` refuses one after that; then it is run at once.
    """
    known: Any = threading
    try:
        import concurrent.futures.thread
    except RuntimeError:
        register, known._register_atexit = known._register_atexit, _at_once  # noqa: SLF001 (no public way)
        try:
            import concurrent.futures.thread  # noqa: F401 (loaded is all it has to be)
        finally:
            known._register_atexit = register  # noqa: SLF001


def _at_once(handler: Callable[..., object], *args: Any, **keywords: Any) -> None:
    handler(*args, **keywords)


async def aside(
    function: Callable[..., T], *args: Any, limiter: anyio.CapacityLimiter | None = None, leave: bool = False
) -> T:
    """Run `function` in a worker thread, or here if none starts. `leave`: a cancelled caller does not wait."""
    from anyio import to_thread

    begun = False

    def work() -> T:
        nonlocal begun
        begun = True
        return function(*args)

    try:
        return await to_thread.run_sync(work, limiter=limiter, abandon_on_cancel=leave)
    except RuntimeError:
        if begun:
            raise
    return function(*args)


__all__ = ["aside", "pools_loaded"]
