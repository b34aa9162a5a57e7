"""Every command, with the group that they belong to."""

from . import check, embed, models
from .app import root

__all__ = ["check", "embed", "models", "root"]
