"""Fixtures that several files share."""

from hub_double import hub_cache, hub_folder, served
from wheel_double import slow_pip, wheel

__all__ = ["hub_cache", "hub_folder", "served", "slow_pip", "wheel"]
