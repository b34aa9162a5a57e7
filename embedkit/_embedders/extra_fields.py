"""Fields of `extra` that would make vectors something else than the caller takes them for. Pure."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec

from .._types import Options
from ..codec import Dialect
from ..errors import ConfigError

TEXT = "the text of a request"  # looked for in its body


def check_extra(codec: Dialect, options: Options) -> None:
    """Refuse fields that replace the texts, or that ask for a type of vectors that `dtype` asks for.

    The texts of other fields would be embedded under the name of those passed, in every batch the same. Vectors of a
    type that nobody expects are read as numbers that they are not. Any other field may be replaced. Dialects say by
    `joins` which fields hold chunks grouped by hand.

    Raises:
        ConfigError: the field, and what to pass instead.
    """
    extra = options.extra
    joins = codec.joins
    own = msgspec.structs.replace(options, extra={})
    plain = _body(codec, own)
    if joins is True or not isinstance(plain, dict):
        return
    for name in extra:
        if name in plain and name not in (joins or ()) and TEXT in _written(plain[name]):
            msg = f"extra has a field {name!r}, which holds the texts of a request: pass them as the texts"
            raise ConfigError(msg)
    for dtype in codec.sends_dtypes:
        other: Any = None
        with suppress(ConfigError):
            other = _body(codec, msgspec.structs.replace(own, dtype=dtype))
        for name, value in extra.items() if dtype != options.dtype and isinstance(other, dict) else ():
            if name in other and other[name] == value != plain.get(name):
                msg = f"extra has {name}={value!r}, but vectors of {options.dtype} are expected: pass dtype={dtype!r}"
                raise ConfigError(msg)


def _body(codec: Dialect, options: Options) -> Any:
    return msgspec.json.decode(codec.encode([TEXT], options).body)


def _written(value: Any) -> str:
    return msgspec.json.encode(value).decode()
