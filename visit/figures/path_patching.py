"""What every head sends along paths: layers × heads as a grid and as a chart (Wang et al. 2022, Figure 3). No torch.

Negative (vermilion): with the partner's value the difference falls, so what the head said was for the target.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from visit.figures.grids import Grid
from visit.figures.heads import layers_and_heads
from visit.figures.maps import HUE, INK, ROW, heat_map
from visit.figures.patching import AGAINST
from visit.text.node_id import part_name
from visit.text.numbers import band, number

_PATH_SAYS = {"name": "", "effect": "change of the difference, logits", "band": "95 % band", "direct": "past no MLP"}


def paths_grid(table: pd.DataFrame, receiver: str, title: str, chosen: str = "", of: Any = None) -> Grid:
    """The effects of all senders on one receiver; a click gives the sender's id. `table`: `visit.paths`."""
    rows = table[table["receiver"] == receiver].reset_index(drop=True)
    effect = rows["effect"].astype(float)
    cells = pd.DataFrame({
        "id": rows["sender"], "name": [part_name(node) for node in rows["sender"]],
        "effect": [number(v, True) for v in effect],
        "band": [band(low, high) for low, high in zip(rows["low"], rows["high"], strict=True)],
        "direct": [number(v, True) for v in rows["direct"]], "framed": rows["sender"] == chosen,
        "hue": ["n" if v < 0 else "p" for v in effect],
        "strength": (effect.abs() / max(float(effect.abs().max()), 1e-12)).clip(0, 1),
        "text": [f"{v:+.2f}".replace("-", "−") if abs(v) >= 0.005 else "" for v in effect],
    })  # fmt: skip
    left_out = ["band"] * bool(rows["low"].isna().all()) + ["direct"] * bool(rows["direct"].isna().all())
    said = {name: words for name, words in _PATH_SAYS.items() if name not in left_out}
    return layers_and_heads(cells, rows, said, title, of)


def paths_chart(table: pd.DataFrame, receiver: str, title: list[str]) -> Any:
    """The same as a chart with `title`, lines above it."""
    import altair as alt

    grid = paths_grid(table, receiver, title[0])
    shown = grid.cells.drop(columns=["row", "column", "framed"]).assign(
        line=[grid.rows[n] for n in grid.cells["row"]], place=[grid.columns[n] for n in grid.cells["column"]]
    )
    axis: dict[str, Any] = {"title": None, "ticks": False, "domain": False}
    x = alt.X("place:N", sort=grid.columns, axis=alt.Axis(orient="top", labelAngle=0, **axis))
    y = alt.Y("line:N", sort=grid.rows, axis=alt.Axis(**axis))
    color = alt.Color("hue:N", scale=alt.Scale(domain=["p", "n"], range=[HUE, AGAINST]), legend=None)
    said = alt.TitleParams(text=title[0], subtitle=title[1:], anchor="start", color=INK, subtitleColor=INK, fontSize=14,
                           subtitleFontSize=12, offset=12)  # fmt: skip
    tips = {name: words or "sender" for name, words in grid.said.items()}
    drawn = heat_map(shown, x, y, tips, color, limit=50)
    return drawn.properties(width={"step": 54}, height={"step": ROW}, title=said)
