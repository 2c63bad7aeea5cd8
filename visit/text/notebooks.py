"""Results that show themselves in a notebook as their drawing.

Drawings lie above numbers, so a result reaches its own by name, when a notebook asks (`visit.files.notebook_view`).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, ClassVar

import pandas as pd


def notebook_html(kind: str, result: Any) -> str:
    """A result as HTML that stands alone: interactive, offline, in a frame of its own."""
    return import_module("visit.files.notebook_view").view_of(kind, result)


class DrawnTable(pd.DataFrame):
    """A table that a notebook shows as its drawing. What is made from it (a selection, a copy) is a plain table."""

    _metadata: ClassVar[list[str]] = ["drawn_as"]
    drawn_as = ""

    @property
    def _constructor(self) -> Callable[..., pd.DataFrame]:
        return pd.DataFrame

    def _repr_html_(self) -> str | None:
        return notebook_html(self.drawn_as, self) if self.drawn_as and len(self) else super()._repr_html_()


def drawn_table(table: pd.DataFrame, kind: str, about: dict[str, Any]) -> DrawnTable:
    """The table, drawn as `kind` in a notebook (empty: as it is); `about`: its `.attrs`."""
    found = DrawnTable(table)
    found.drawn_as, found.attrs = kind, about
    return found
