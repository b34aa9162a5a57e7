"""Reads and writes standard streams in threads that nobody waits for: the other end of a pipe may stay silent."""

from __future__ import annotations

from concurrent.futures import Future
from typing import IO, TYPE_CHECKING, Any, BinaryIO, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def own(stream: IO[str], mode: str) -> BinaryIO:
    """A second handle on stdin or stdout: a thread blocked in it holds no lock that the interpreter needs at exit."""
    try:
        buffering = -1 if mode == "rb" else 0
        return open(stream.fileno(), mode, buffering=buffering, closefd=False)  # type: ignore[return-value]  # not ours
    except (OSError, AttributeError):
        return stream.buffer  # type: ignore[attr-defined, no-any-return]  # replaced by a test or a notebook


async def aside(work: Callable[..., T], *arguments: Any) -> T:
    """Call it in a thread that neither a cancelled caller nor the interpreter at exit waits for."""
    import asyncio
    import threading

    done: Future[T] = Future()
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(work(*arguments))
        except BaseException as error:  # noqa: BLE001 (it is raised where the work is awaited)
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wrap_future(done)
