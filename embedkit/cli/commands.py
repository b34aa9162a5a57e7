"""Every command, with the group that they belong to."""

from . import bench, check, embed, models, providers, report, search
from .app import root

__all__ = ["bench", "check", "embed", "models", "providers", "report", "root", "search"]
