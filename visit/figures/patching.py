"""B's values put into A, one place at a time: layers × positions or layers × heads, as a grid and as a chart. No torch.

The scale is diverging and the same everywhere: 0 as A, 1 as B, below 0 away from B. What was measured bears a dot as
long as other cells are estimates.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from visit.figures.grids import SHADES, Grid
from visit.figures.heads import layers_and_heads
from visit.figures.maps import HUE, INK, MAP_CELL, ROW, WHITE_FROM, heat_map
from visit.text.numbers import number, ratio
from visit.text.visible import visible

SITES = {  # of `visit.patch` → what is put in, of one block or head
    "resid": "the stream before a block", "attn_out": "a block’s attention output",
    "mlp_out": "a block’s MLP output", "heads": "a head",
}  # fmt: skip
AGAINST = "#c24a08"  # vermilion, as in grids
_ENDS = ((-1.0, "−1 away from B"), (-0.5, "−0.5"), (0.0, "0 as A"), (0.5, "0.5"), (1.0, "1 as B"))
_CELL_SAYS = {"place": "", "told": "", "effect": "effect"}
_SITE_NAMES = {"resid": "Block", "attn_out": "Attention of block", "mlp_out": "MLP of block"}


def patch_grid(table: pd.DataFrame, chosen: str = "", of: Any = None) -> Grid:
    """`visit.patch` as a grid: layers upwards, positions of A (with B's token below where it differs) or heads.

    A click gives `id@pos` ("L23.head4@all", "L12.resid_pre@3"); that of `chosen` has a frame. A position without a
    partner in B has no cells.
    """
    site = table.attrs["site"]
    cells = _patch_cells(table, site)
    cells["framed"] = cells["id"] == chosen
    known = table["exact"].astype(bool) | (table["changed"] == 0)
    mark = "" if known.all() else "measured; all others are estimates"
    scale = tuple((f"{'n' if v < 0 else 'p'}{round(SHADES * abs(v))}", words) for v, words in _ENDS)
    label = f"How far B’s value of {SITES[site]} moves the answer from A’s to B’s"
    if site == "heads":
        found = layers_and_heads(cells, table, _CELL_SAYS, label, of)
        return replace(found, scale=scale, mark=mark)
    layers = sorted((int(n) for n in table["layer"].unique()), reverse=True)
    pairs = table.drop_duplicates("pos")
    positions = _edit_place(pairs)
    cells["row"] = [layers.index(n) for n in table["layer"]]
    cells["column"] = [positions.index(where) for where in _edit_place(table)]
    columns = [_both_tokens(one, other) for one, other in zip(pairs["token"], pairs["token_b"], strict=True)]
    return Grid(label, cells[table["effect"].notna().to_numpy()], [f"block {n}" for n in layers], columns, _CELL_SAYS,
                "A ← B", scale=scale, mark=mark, of=of)  # fmt: skip


def _patch_cells(table: pd.DataFrame, site: str) -> pd.DataFrame:
    """A row a cell: what it is called, what it says, its colour."""
    effects, same = table["effect"].astype(float), table["changed"] == 0
    exact = table["exact"].astype(bool) & ~same
    return pd.DataFrame({
        "id": [f"{node}@{pos}" for node, pos in zip(table["id"], _edit_place(table), strict=True)],
        "place": [_place_of(row, site) for row in table.to_dict("records")],
        "told": ["both runs hold the same there, so nothing changes" if s else moved(e, x)
                 for e, x, s in zip(effects, exact, same, strict=True)],
        "effect": [number(e, True) for e in effects], "strength": effects.abs().clip(0, 1).fillna(0.0),
        "hue": ["n" if e <= -0.005 else "p" for e in effects],
        "text": [f"{e:.2f}".replace("-", "−") if abs(e) >= 0.005 else "" for e in effects],
        "marked": exact & ~(exact | same).all(),
    })  # fmt: skip


def _edit_place(table: pd.DataFrame) -> list[str]:
    """Where each patch is made, as an edit of the address says it."""
    return ["all" if pd.isna(pos) else str(int(pos)) for pos in table["pos"]]


def _place_of(row: dict[str, Any], site: str) -> str:
    """ "Block 12, “·Japan” ← “·France” (position 3)", "L23 H4, at every position" """
    name = f"{_SITE_NAMES[site]} {row['layer']}" if site in _SITE_NAMES else f"L{row['layer']} H{row['head']}"
    if pd.isna(row["pos"]):
        return f"{name}, at every position"
    one, other = row["token"], row["token_b"]
    token = f"“{visible(one)}”" + ("" if one == other or not isinstance(other, str) else f" ← “{visible(other)}”")
    return f"{name}, {token} (position {int(row['pos'])})"


def moved(effect: float, exact: bool) -> str:
    """ "with B’s value the answer moves 97 % of the way (measured)" """
    how = "measured" if exact else "estimated"
    if abs(effect) < 0.005:
        return f"with B’s value the answer stays as it is ({how})"
    if effect < 0:
        return f"with B’s value the answer moves away from B’s, by {ratio(-effect)} of the way ({how})"
    return f"with B’s value the answer moves {ratio(effect)} of the way ({how})"


def _both_tokens(one: Any, other: Any) -> str:
    if not isinstance(one, str):
        return "every position"
    below = "–" if not isinstance(other, str) else "" if one == other else f"← {visible(other)}"
    return f"{visible(one)}\n{below}" if below else visible(one)


# ---- a chart, for files ----------------------------------------------------------------------------------------------
def patch_chart(table: pd.DataFrame, title: list[str]) -> Any:
    """The same as a chart with `title`, lines above it, and its scale below."""
    import altair as alt

    found = patch_grid(table)
    names = {n: f"{n}\u2003{name}" for n, name in enumerate(found.columns)}  # two tokens may be the same
    shown = found.cells.drop(columns=["id", "row", "column"]).assign(
        line=[found.rows[n] for n in found.cells["row"]], place_x=[names[n] for n in found.cells["column"]]
    )
    step = MAP_CELL - 16
    below = 18 if any("\n" in name for name in found.columns) else 4  # px: the second line hangs below the first
    heads = alt.Axis(orient="top", title=None, labelAngle=0, labelPadding=below, labelLimit=step - 3, ticks=False,
                     domain=False, labelFlush=False,
                     labelExpr="split(split(datum.label, '\u2003')[1], '\\n')")  # fmt: skip
    x = alt.X("place_x:N", sort=list(names.values()), scale=alt.Scale(domain=list(names.values())), axis=heads)
    y = alt.Y("line:N", sort=found.rows, axis=alt.Axis(title=None, ticks=False, domain=False))
    color = alt.Color("hue:N", scale=alt.Scale(domain=["p", "n"], range=[HUE, AGAINST]), legend=None)
    drawn = heat_map(shown, x, y, {}, color, limit=step - 4)
    if found.mark:
        dots = alt.Chart(shown[shown["marked"]]).mark_point(filled=True, size=14, xOffset=step / 2 - 6, yOffset=-8)
        ink = alt.condition(f"datum.strength > {WHITE_FROM}", alt.value("white"), alt.value(INK))
        drawn = alt.layer(drawn, dots.encode(x=x, y=y, color=ink))
    said = alt.TitleParams(text=title[0], subtitle=title[1:], anchor="start", color=INK, subtitleColor=INK, fontSize=14,
                           subtitleFontSize=12, offset=12)  # fmt: skip
    drawn = drawn.properties(width={"step": step}, height={"step": ROW}, title=said)
    told = f"A dot: {found.mark}." if found.mark else "Every cell is measured."
    return alt.vconcat(drawn, _scale_chart(color, told))


def _scale_chart(color: Any, told: str) -> Any:
    """The scale as a row of filled cells, with a line of words above it."""
    import altair as alt

    words = [name for _, name in _ENDS]
    ends = pd.DataFrame({"text": words, "hue": ["n" if v < 0 else "p" for v, _ in _ENDS],
                         "strength": [abs(v) for v, _ in _ENDS], "line": ""})  # fmt: skip
    said = alt.TitleParams(text=told, anchor="start", color=INK, fontSize=11, fontWeight="normal")
    drawn = heat_map(ends, alt.X("text:N", sort=words, axis=None), alt.Y("line:N", axis=None), {}, color)
    return drawn.properties(width={"step": 92}, height={"step": 20}, title=said)
