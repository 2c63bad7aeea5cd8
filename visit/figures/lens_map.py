"""The lens map as one picture that stands alone: every block and token, the top word in each cell. No torch."""

from __future__ import annotations

from typing import Any

import pandas as pd

from visit.figures.lens_rows import FAINT, name_of
from visit.figures.maps import HUE, INK, MAP_CELL, ROW, heat_map
from visit.text.visible import as_word, visible


def reading_map(table: pd.DataFrame, title: list[str], readable_from: int = 0) -> Any:
    """Blocks × tokens, the top word of each state; the fuller a cell, the more probable the target there.

    `table`: `overview.lens_map`. `title`: lines above it. `readable_from`: the words of blocks before it are grey, as
    are those below 5 %.
    """
    import altair as alt

    cells = pd.DataFrame({
        "row": [name_of(d) for d in table["depth"]],
        "column": [f"{pos}\u2003{visible(token)}" for pos, token in zip(table["pos"], table["token"], strict=True)],
        "strength": table["prob"], "text": [as_word(word) for word in table["top"]],
        "quiet": (table["top_prob"] < FAINT) | (table["layer"] < readable_from), "pos": table["pos"],
    })  # fmt: skip
    names = [name_of(d) for d in sorted(table["depth"].unique(), reverse=True)]
    columns = cells.sort_values("pos")["column"].drop_duplicates().tolist()
    heads = alt.Axis(orient="top", title=None, labelAngle=0, labelLimit=MAP_CELL - 5, ticks=False, domain=False,
                     labelFlush=False, labelExpr="split(datum.label, '\u2003')[1]")  # fmt: skip
    rows = alt.Axis(title=None, ticks=False, domain=False, labelLimit=110)
    x, y = alt.X("column:N", sort=columns, axis=heads), alt.Y("row:N", sort=names, axis=rows)
    said = alt.TitleParams(text=title[0], subtitle=title[1:], anchor="start", color=INK, subtitleColor=INK, fontSize=14,
                           subtitleFontSize=12, offset=12)  # fmt: skip
    drawn = heat_map(cells.drop(columns="pos"), x, y, {}, alt.value(HUE), limit=MAP_CELL - 5)
    return drawn.properties(width={"step": MAP_CELL}, height={"step": ROW}, title=said)
