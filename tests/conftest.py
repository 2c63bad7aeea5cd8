"""Fixtures that several files share."""

from hub_double import hub_cache, hub_folder, served

__all__ = ["hub_cache", "hub_folder", "served"]
