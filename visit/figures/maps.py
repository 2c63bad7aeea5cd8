"""DataFrames as Altair charts. No torch, no fixed background: the charts follow the page's light or dark theme."""

from __future__ import annotations

from typing import Any

import pandas as pd

HUE = "#0b7a75"  # near the top; the drawing's blue-green
INK = "currentColor"  # the page's own text colour, light or dark
OUTLINE = "#888888"  # of lines and outlines that stand behind
CHOSEN = "#d0871e"  # the frame of what is chosen
ROW = 26  # height of a cell of the lens map, px
MAP_CELL = 68  # width of a cell of a map that scrolls, px
WHITE_FROM = 0.85  # strength from which on a word in a cell is white


def heat_map(cells: pd.DataFrame, x: Any, y: Any, tips: dict[str, str], color: Any, limit: Any = None) -> Any:
    """Cells of `x` and `y`, the stronger the fuller: the maps of the report and of files. Pages have `grids`.

    Columns of `cells` beside those of the axes, where they are there: `strength` (0 to 1, how full the colour is; else
    `color` says all), `text` (a word in each cell, at most `limit` wide), `quiet` (that word is grey). `tips`: columns
    with their titles.
    """
    import altair as alt

    base = alt.Chart(cells).encode(x=x, y=y, color=color, tooltip=[alt.Tooltip(n, title=t) for n, t in tips.items()])
    rects = base.mark_rect()
    if "strength" in cells:  # between these shares of the blue-green neither dark nor white words have 4.5 : 1
        full = alt.Scale(domain=[0, WHITE_FROM, WHITE_FROM, 1], range=[0.04, 0.82, 0.94, 1], clamp=True)
        rects = rects.encode(opacity=alt.Opacity("strength:Q", scale=full, legend=None))
    if "text" not in cells:
        return rects
    size: dict[str, Any] = {} if limit is None else {"limit": limit}
    words = base.mark_text(fontSize=11, **size).encode(text="text:N")
    if "quiet" in cells:
        words = words.encode(opacity=alt.condition("datum.quiet", alt.value(0.65), alt.value(1)))
    dark = words.transform_filter(f"datum.strength <= {WHITE_FROM}").encode(color=alt.value(INK))
    return alt.layer(
        rects, dark, words.transform_filter(f"datum.strength > {WHITE_FROM}").encode(color=alt.value("white"))
    )
