"""What one embedder finds out while it works: the widths of vectors, and limits that refusals have named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from .._batching.plan import tightened
from .._calls import Calls
from .._loops import PerLoop
from ..codec import to_json
from ..errors import ConfigError, DecodeError

if TYPE_CHECKING:
    from typing import Self

    from .._types import Limits, Options

T = TypeVar("T")
MAX_WIDTHS = 256  # sets of options whose width is remembered: `extra` may differ with every call


class OnFirstUse(Generic[T]):
    """An attribute made when it is first read, so that a subclass needs no `super().__init__()`.

    All threads get the same value; those of a `functools.cached_property` may differ from Python 3.12 on.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object, owner: type) -> Any:
        return self if instance is None else instance.__dict__.setdefault(self._name, self._make())


class Learned:
    """Widths and limits that an embedder has seen, and the last options it worked out. No pickle holds any of it."""

    __slots__ = ("_key", "_limits", "typed", "widths")

    def __init__(self) -> None:
        self.widths: dict[bytes, int] = {}  # values per row, by `option_key`
        self._limits: Limits | None = None
        self._key: tuple[Options, bytes] | None = None
        self.typed: tuple[Options, str, Options] | None = None  # the embedder's options, an input type, and both merged

    def __reduce__(self) -> tuple[Any, ...]:
        return Learned, ()

    def key(self, options: Options, standing: Options) -> bytes:
        """`option_key`, remembered for the standing options of the embedder: most calls have those."""
        if options is not standing or options.extra:
            return option_key(options)
        known = self._key
        if known is None or known[0] is not options:
            known = self._key = options, option_key(options)
        return known[1]

    def add_width(self, key: bytes, width: int | None) -> None:
        """Remember the width of a call.

        Raises:
            DecodeError: another call, which ran beside this one, got another width under the same options.
        """
        widths = self.widths
        if width is None or (len(widths) >= MAX_WIDTHS and key not in widths):
            return
        known = widths.setdefault(key, width)
        if known != width:
            msg = f"this call got {width} values per row, another one under the same options {known}"
            raise DecodeError(msg)

    def limits(self, given: Limits) -> Limits:
        """The limits given, no wider than refusals have named."""
        return given if self._limits is None else tightened(given, self._limits)

    def add_limits(self, limits: Limits) -> None:
        """Remember these in place of what was learned before."""
        self._limits = limits


def option_key(options: Options) -> bytes:
    """What tells sets of options apart. ConfigError where `extra` is no JSON."""
    try:
        return to_json(options)
    except (TypeError, ValueError, OverflowError) as error:
        msg = f"extra cannot be written as JSON: {error}"
        raise ConfigError(msg) from None


def lasting(attributes: Mapping[str, Any], *but: str) -> dict[str, Any]:
    """The attributes that a copy or pickle takes along: not what was learned, nor what runs, nor those named."""
    return {
        name: value
        for name, value in attributes.items()
        if name not in but and not isinstance(value, (Calls, Learned, PerLoop))
    }
