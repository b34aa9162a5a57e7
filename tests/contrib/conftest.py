"""Marks of plugins that LangChain's own suite brings, and that are switched off in pyproject.toml."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Make known what the module of its other suites uses as it is imported."""
    for name in ("benchmark", "vcr"):
        config.addinivalue_line("markers", f"{name}: of LangChain's own suites for chat models; not run here")
