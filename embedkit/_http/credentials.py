"""Keys that pickle as the name of where they came from, never as their value."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Self


class Variable(str):
    """A credential that came from the environment: pickled as the variable's name, never as its value."""

    __slots__ = ("name",)
    name: str

    def __new__(cls, name: str) -> Self:
        """Read the variable `name` now; empty where it is not set."""
        self = super().__new__(cls, os.environ.get(name, "").strip())
        self.name = name
        return self

    def __repr__(self) -> str:
        return f"Variable({self.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Variable, (self.name,)


class KeyFile(str):
    """A credential that came from a file: pickled as the file's name, never as its content."""

    __slots__ = ("name",)
    name: str

    def __new__(cls, name: str) -> Self:
        """Read the file `name` now; empty where there is none."""
        try:
            content = Path(name).expanduser().read_text("utf-8-sig").strip()
        except (OSError, ValueError, RuntimeError):
            content = ""
        self = super().__new__(cls, content)
        self.name = name
        return self

    def __repr__(self) -> str:
        return f"KeyFile({self.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return KeyFile, (self.name,)
