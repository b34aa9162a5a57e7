"""What a job says is written in the options of the command. Python is told its own keywords instead. Pure."""

from __future__ import annotations

import re

from ..errors import EmbedkitError
from .sinks.open_sink import FORMS
from .sources.format_detection import FORMATS

_FLAGS = {"append": "append=True", "batch-api": "batch_api=True", "force": "force=True", "no-scan": "scan=False"}
_VALUED = ("column", "delimiter", "encoding", "input-format", "key", "on-error", "output-format", "template")
_VALUES = ("raise", "skip", *FORMATS, *FORMS)
_OPTION = re.compile(
    rf"(?<![\w-])--(?:(?P<flag>{'|'.join(_FLAGS)})"
    rf"|(?P<name>{'|'.join(_VALUED)})(?: (?P<value>{'|'.join(_VALUES)}|utf-[\w-]+|\S+(?=:)))?)(?![\w-])"
)


def in_python(text: str) -> str:
    """The text, with `force=True` for `--force` and `on_error="skip"` for `--on-error skip`."""
    return _OPTION.sub(_keyword, text)


def explain_in_python(error: EmbedkitError) -> None:
    """Put Python's keywords into the message of an error, and into its notes."""
    error.message = in_python(error.message)
    error.args = (error.message, *error.args[1:])
    for place, note in enumerate(notes := getattr(error, "__notes__", [])):
        notes[place] = in_python(note)


def _keyword(option: re.Match[str]) -> str:
    if option["flag"]:
        return _FLAGS[option["flag"]]
    value = option["value"]
    return f"{option['name'].replace('-', '_')}=" + (f'"{value}"' if value else "")


__all__ = ["explain_in_python", "in_python"]
