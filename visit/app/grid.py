"""A map of cells on a page: clicked, walked with the arrow keys (one Tab stop), spoken, and listed as a table."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import streamlit as st

from visit.app.figure_list import collect_figure
from visit.app.widgets import component, unfolding
from visit.figures.grids import Grid, grid_data, grid_svg, grid_table

if TYPE_CHECKING:
    import pandas as pd


@cache
def _ramps() -> str:
    from visit.figures.grids import grid_style

    return "".join(grid_style(theme, f".grid.{theme}") for theme in ("light", "dark"))


def grid(
    key: str, found: Grid, take: Callable[[Any], None], table: Callable[[], pd.DataFrame] | None = None,
    about: dict[str, Any] | None = None, code: str = "",
) -> None:  # fmt: skip
    """Draw a grid; `take` gets the id of the cell that is clicked, or chosen with Enter.

    `table`: the numbers behind it, for its files; None: its words. `about`, `code`: as `collect_figure` takes them.
    """

    def taken() -> None:
        chosen = st.session_state[key]["cell"]
        if any(chosen == one for one in found.cells["id"]):
            take(chosen)

    collect_figure(found.label, partial(grid_svg, found), table or partial(grid_table, found), about, code)
    component("grid", "<div class='grid light'></div>", _ramps(), shared="cells")(
        key=key, data=grid_data(found), on_cell_change=taken
    )


def as_table(key: str, found: Grid) -> None:
    """The same as a table, made when it is opened."""
    with unfolding(f"{key.replace('_', '-')}-table", "The same as a table", ":material/table:") as opened:
        if opened:
            st.dataframe(grid_table(found), hide_index=True, height=380)
