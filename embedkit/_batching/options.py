"""Checks the options of a call."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from operator import index
from typing import Any, get_args

import msgspec

from .._peers import input_type_called
from .._types import PACKED, DType, InputType, Options, Truncate
from .._values import is_whole, shown
from ..errors import ConfigError

OPTIONS = Options.__struct_fields__
_VALUES: dict[str, tuple[object, ...]] = {
    "input_type": (None, *get_args(InputType)),
    "dtype": get_args(DType),
    "truncate": (None, *get_args(Truncate)),
    "normalize": (None, True, False),
}


def validated(options: Options) -> Options:
    """The options as plain values; ConfigError names the first one of a wrong type or value, and what it may be."""
    plainly: dict[str, Any] = {"dimensions": _whole(options.dimensions)}
    for name, values in _VALUES.items():
        value = getattr(options, name)
        same = [each for each in values if value is each or (isinstance(value, str) and value == each)]
        if not same:
            called = input_type_called(value) if name == "input_type" else ""
            msg = f"{name}={shown(value)}: it is one of {', '.join(map(repr, values))}"
            raise ConfigError(f"{msg}; here that is {called!r}" if called else msg)
        plainly[name] = same[0]
    options = msgspec.structs.replace(options, **plainly)
    wide = options.dimensions
    if options.dtype in PACKED and wide is not None and wide % 8:
        msg = f"dimensions={wide} with dtype={options.dtype!r}: eight components share a byte, so a multiple of 8"
        raise ConfigError(msg)
    if options.normalize and options.dtype != "float32":
        msg = f"normalize=True with dtype={options.dtype!r}: only float32 vectors can be made unit length"
        raise ConfigError(msg)
    if not isinstance(options.extra, Mapping):
        msg = f"extra is {type(options.extra).__name__}; it is a mapping of fields for the request body"
        raise ConfigError(msg)
    return options


def _whole(dimensions: Any) -> int | None:
    """A width as a plain number; of numpy's integers too."""
    with suppress(TypeError):
        if dimensions is None or (not isinstance(dimensions, bool) and is_whole(index(dimensions))):
            return dimensions if dimensions is None else index(dimensions)
    msg = f"dimensions={shown(dimensions)}: a whole number of at least 1, or None for the model's own"
    raise ConfigError(msg)


def stored_width(options: Options) -> int:
    """Values per row that the options ask for; 0 where they do not say."""
    return (options.dimensions or 0) // (8 if options.dtype in PACKED else 1)
