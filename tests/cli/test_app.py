"""The help of every command."""

from __future__ import annotations

import pytest

from tests.cli.running import embedkit_


@pytest.mark.parametrize("command", [[], ["embed"], ["models"], ["check"]], ids=str)
def test_help_fits_the_screen_and_shows_no_markup(command):
    """Both spellings; lines within 80 columns; tables stay tables."""
    long, short = embedkit_(*command, "--help"), embedkit_(*command, "-h")

    assert long == short
    assert long[0] == 0
    assert max(map(len, long[1].splitlines())) <= 80
    assert "\b" not in long[1]
    assert "\\b" not in long[1]
    if command == ["embed"]:
        assert '\n  .parquet   the input\'s columns, "embedding" (a list of fixed size) and\n' in long[1]


def test_help_names_every_exit_code():
    """What a script needs is in the first help a user sees."""
    _, stdout, _ = embedkit_("--help")

    for code in ("0 done", "1 the provider or the network failed", "2 usage,", "3 done but for some rows", "130"):
        assert code in " ".join(stdout.split())
