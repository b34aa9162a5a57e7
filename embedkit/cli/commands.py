"""Every command, with the group that they belong to."""

from . import bench, check, embed, models
from .app import root

__all__ = ["bench", "check", "embed", "models", "root"]
