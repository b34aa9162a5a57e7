"""What in the settings of an adapter tells of a credential, so that none is written down or sent to workers.

A setting may be text, a mapping, a URL, or a function that gives a credential when it is asked. A function may bring
one along: in its closure, its defaults, or the arguments of a `functools.partial`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

# A word of the name of a header, a field or a parameter of a URL that tells of a secret; some are found within a word.
SECRET = re.compile(
    r"((?<![a-z])(key|auth|authorization|bearer|code|cookie|credentials?|creds|jwt|pass|passcode|passphrase|pwd|sig|signature)"
    r"|(api|access|account|auth|private|secret|shared|subscription)-?key|password|passwd|secret|token)(?![a-z])"
)
# The value of a header that holds a secret, whatever the header is called.
SCHEME = re.compile(r"\s*(api-?key|aws4-\S+|basic|bearer|digest|hawk|key|negotiate|ntlm|token)\s+\S", re.IGNORECASE)
VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")  # the name of an environment variable, which is no secret


def holds_credential(name: str, value: Any, *, secret: bool) -> bool:
    """Whether a setting holds a credential.

    Args:
        name: of the setting.
        value: of the setting.
        secret: whether what it is for is a credential, however it is given.
    """
    if callable(value):
        return (secret and _carries(value)) or (name == "headers" and _carries(value, methods=False))
    return secret or next(_secrets(value, name), None) is not None


def credential_in(settings: Mapping[str, Any]) -> str | None:
    """The first setting that holds a credential, whoever the provider is."""
    for name, value in settings.items():
        if holds_credential(name, value, secret=_tells_of_a_secret(name)):
            return name
    return None


def _secrets(value: Any, setting: str = "") -> Iterator[str]:
    """Places in a value that tell of a credential: a field's name, a URL's user or parameter, a header's value."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            if _is_secret(str(name), each, setting):
                yield str(name)
            yield from _secrets(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _secrets(each)
    elif isinstance(value, str) and "://" in value:
        parts = urlsplit(value)
        yield from ["user"] if "@" in parts.netloc else []
        yield from (name for name, _ in parse_qsl(parts.query) if _tells_of_a_secret(name))


def without_secrets(value: Any, setting: str = "") -> Any:
    """The value less what `_secrets` finds in it."""
    if isinstance(value, Mapping):
        kept = {name: each for name, each in value.items() if not _is_secret(str(name), each, setting)}
        return {name: without_secrets(each) for name, each in kept.items()}
    if isinstance(value, (list, tuple)):
        return [without_secrets(each) for each in value]
    if next(_secrets(value), None) is None:
        return value
    parts = urlsplit(value)
    query = urlencode([(name, each) for name, each in parse_qsl(parts.query) if not _tells_of_a_secret(name)])
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query).geturl()


def _is_secret(name: str, value: Any, setting: str) -> bool:
    scheme = setting == "headers" and isinstance(value, str) and SCHEME.match(value) is not None
    return scheme or _tells_of_a_secret(name)


def _tells_of_a_secret(name: str) -> bool:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|_", "-", name)
    return SECRET.search(words.lower()) is not None


def _carries(function: Any, *, methods: bool = True, seen: tuple[Any, ...] = ()) -> bool:
    """Whether a pickle of the function would hold a text or an object of the caller's.

    A function of a module is pickled as its name. Any other may be pickled with its closure and its defaults, and one
    of the main program also with what it uses of that.

    Args:
        function: what gives a credential.
        methods: whether the object of a method counts, and one that is called itself; it may know how it is pickled.
        seen: functions that are looked at already.
    """
    if _has_name(function) or any(each is function for each in seen):
        return False
    seen = (*seen, function)
    if isinstance(function, partial):
        given = (*function.args, *function.keywords.values())
        return any(_may_hold(each, seen) for each in given) or _carries(function.func, methods=methods, seen=seen)
    if isinstance(function, FunctionType):
        return any(_may_hold(each, seen) for each in _brought(function))
    if isinstance(function, MethodType):
        return methods and not isinstance(function.__self__, type)
    return methods


def _has_name(function: Any) -> bool:
    """Whether it is found by its name in a module, but the main program, which other processes do not have."""
    module = getattr(function, "__module__", None)
    found: Any = sys.modules.get(module) if isinstance(module, str) else None
    for part in getattr(function, "__qualname__", "").split("."):
        found = getattr(found, part, None)
    return found is function and module != "__main__"


def _brought(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # it is empty
            yield cell.cell_contents
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    if function.__module__ == "__main__":
        names = function.__globals__
        yield from (names[name] for name in function.__code__.co_names if name in names)


def _may_hold(value: Any, seen: tuple[Any, ...]) -> bool:
    if isinstance(value, str):
        return VARIABLE.fullmatch(value) is None
    if callable(value):
        return _carries(value, seen=seen)
    return not isinstance(value, (bool, int, float, ModuleType, type(None)))
