"""What every head sends along paths: layers × heads as a grid and as a chart (Wang et al. 2022, Figure 3). No torch.

Colours mean what they mean in maps of effects: blue-green speaks for the target, which with the partner's value falls.
A cell whose 95 % band contains 0 is faint and bears no number.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from visit.figures.grids import Grid, for_and_against
from visit.figures.heads import layers_and_heads
from visit.figures.maps import HUE, INK, ROW, heat_map
from visit.narrate.paths import SMALL_PATH
from visit.text.node_id import part_name
from visit.text.numbers import band, number

TOWARDS_AWAY = [HUE, "#c24a08"]  # blue-green and vermilion, as in grids
FAINT_PATH = 0.18  # of its strength is left of a cell whose band contains 0
_PATH_SAYS = {"name": "", "effect": "change of the difference, logits", "band": "95 % band", "direct": "past no MLP"}


def paths_grid(table: pd.DataFrame, receiver: str, title: str, chosen: str = "", of: Any = None) -> Grid:
    """The effects of all senders on one receiver; a click gives the sender's id. `table`: `visit.paths`."""
    rows = table[table["receiver"] == receiver].reset_index(drop=True)
    effect, one = rows["effect"].astype(float), bool(rows["low"].isna().all())
    top = max(float(effect.abs().max()), SMALL_PATH)  # nothing must not look like much
    sure_of = (rows["low"] > 0) | (rows["high"] < 0) | rows["low"].isna()
    full = (effect.abs() / top).clip(0, 1) ** 0.5  # one outlier must not make all others white
    numbers = [f"{v:+.2f}".replace("-", "−") if abs(v) >= 0.005 else "" for v in effect]
    cells = pd.DataFrame({
        "id": rows["sender"], "name": [part_name(node) for node in rows["sender"]],
        "effect": [number(v, True) for v in effect],
        "band": [band(low, high) for low, high in zip(rows["low"], rows["high"], strict=True)],
        "direct": [number(v, True) for v in rows["direct"]], "framed": rows["sender"] == chosen,
        "hue": ["p" if v < 0 else "n" for v in effect], "strength": full.where(sure_of, FAINT_PATH * full),
        "text": [text if certain else "" for text, certain in zip(numbers, sure_of, strict=True)],
    })  # fmt: skip
    left_out = ["band"] * one + ["direct"] * bool(rows["direct"].isna().all())
    said = {name: words for name, words in _PATH_SAYS.items() if name not in left_out}
    return replace(layers_and_heads(cells, rows, said, title, of), scale=for_and_against(top, True))


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
    color = alt.Color("hue:N", scale=alt.Scale(domain=["p", "n"], range=TOWARDS_AWAY), legend=None)
    said = alt.TitleParams(text=title[0], subtitle=title[1:], anchor="start", color=INK, subtitleColor=INK, fontSize=14,
                           subtitleFontSize=12, offset=12)  # fmt: skip
    tips = {name: words or "sender" for name, words in grid.said.items()}
    drawn = heat_map(shown, x, y, tips, color, limit=50)
    return drawn.properties(width={"step": 54}, height={"step": ROW}, title=said)
