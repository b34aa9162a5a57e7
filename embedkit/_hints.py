"""Names for annotations, of libraries too dear to import for that: each is loaded when somebody evaluates the
annotation.

`typing.get_type_hints` and `inspect.signature` look a name up in the module that wrote it, so it has to be there at run
time too: https://docs.python.org/3/library/typing.html#typing.TYPE_CHECKING
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any


class Later:
    """Stands for a module, or for one generic class in it, which is imported when asked for an attribute or a
    parameter.
    """

    def __init__(self, module: str, name: str | None = None) -> None:
        self._module, self._class = module, name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked of everything: by copy, pickle, inspect
            raise AttributeError(name)
        return getattr(import_module(self._module), name)

    def __getitem__(self, parameter: Any) -> Any:
        return getattr(import_module(self._module), self._class or "")[parameter]


if TYPE_CHECKING:
    from numpy.typing import NDArray
else:
    NDArray = Later("numpy.typing", "NDArray")

__all__ = ["Later", "NDArray"]
