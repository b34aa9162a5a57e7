"""Completion in the real shells, set up as the documentation says: commands, choices, names of files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

BASH = r"""
eval "$(_EMBEDKIT_COMPLETE=bash_source embedkit)"
compopt() { echo corpus; }
offered() { COMPREPLY=(); COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _embedkit_completion embedkit; printf '%s\n' "${COMPREPLY[@]}"; }
"""
# zsh completes in its line editor only: what the function hands to that is printed instead.
ZSH = r"""
compdef() { : }
_describe() { for each in ${(P)3}; do print -r -- "${each%%:*}"; done }
compadd() { for each in ${(P)5}; do print -r -- "$each"; done }
_path_files() { print corpus }
eval "$(_EMBEDKIT_COMPLETE=zsh_source embedkit)"
offered() { words=("$@"); CURRENT=$#; _embedkit_completion; }
"""
FISH = r"""
_EMBEDKIT_COMPLETE=fish_source embedkit | source
function __fish_complete_path; echo corpus; end
"""


def offered(shell, *lines, here):
    """What a shell offers at the end of each line, as sets; "corpus": it looks for names of files itself."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    program = here / "bin" / "embedkit"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m embedkit "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "HOME": str(here)}
    calls = [f"offered {' '.join(repr(word) for word in line.split(' '))}; echo END" for line in lines]
    commands = {
        "bash": ["bash", "--norc", "-c", "\n".join([BASH, *calls])],
        "zsh": ["zsh", "-f", "-c", "\n".join([ZSH, *calls])],
        "fish": [
            "fish",
            "--no-config",
            "-c",
            "\n".join([FISH, *(f"complete -C '{line}'; echo END" for line in lines)]),
        ],
    }
    done = subprocess.run(commands[shell], capture_output=True, text=True, check=True, env=environment, timeout=120)
    parts = done.stdout.split("END\n")[:-1]
    return [{each.split("\t")[0].strip() for each in part.splitlines() if each.strip()} for part in parts]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes(shell, tmp_path):
    """Commands, values of a choice, and files where a file stands."""
    commands, choices, files = offered(
        shell, "embedkit ", "embedkit embed --on-error ", "embedkit embed x -o corp", here=tmp_path
    )

    assert {"bench", "check", "embed", "models", "providers", "search"} <= commands
    assert choices == {"raise", "skip"}
    assert files == {"corpus"}
