"""What parts add, what the answer does without them, and how the two disagree: a grid, and Altair charts.

An effect is a change of the answer: below 0 it falls. Colours mean the same in all maps, blue-green speaks for the
target, so of an effect blue-green is a fall.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from visit.figures.grids import Grid, for_and_against
from visit.figures.heads import layers_and_heads
from visit.figures.maps import HUE, OUTLINE
from visit.text.numbers import number, percent

PART_KINDS = {  # of `visit.causal.agreement`, with the colour of their points
    "adds by itself": HUE, "others make up": "#b8860b", "make up in part": "#d9b44a", "others build on it": "#2f6db3",
    "steers others": "#7a3e9d", "little": OUTLINE,
}  # fmt: skip
_SHAPES = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross"]  # of the kinds, in their order
NAMED = 8  # points with their name: those where contribution and effect disagree most
WITHOUT_IT = "the answer without it, logits"  # what an effect is called wherever it is shown
_EFFECT_TIPS = {
    "name": "part", "contribution": "adds directly, logits", "influence": "influence, logits",
    "effect": WITHOUT_IT, "after": "probability without it", "kind": "so",
}  # fmt: skip


def effects_grid(table: pd.DataFrame, measure: str, title: str, chosen: str, of: Any = None) -> Grid:
    """Layers × heads, coloured by "effect", "influence" or "contribution", called `title`; a click gives the node's id.

    For the target blue-green, against it vermilion. `table`: of `causal.agreement.beside_effect`.
    """
    value = table[measure].astype(float)
    top = max(float(value.abs().max()), 1e-12)
    favours = -value if measure == "effect" else value
    cells = _points(table).assign(
        id=table["node"], framed=table["node"] == chosen, hue=["n" if v < 0 else "p" for v in favours],
        strength=(value.abs() / top).clip(0, 1),
        text=[f"{v:+.2f}" if abs(v) >= 0.005 else "0" for v in value],
    )  # fmt: skip
    found = layers_and_heads(cells, table, {**_EFFECT_TIPS, "name": ""}, f"{title} of every head of every layer", of)
    return replace(found, scale=for_and_against(top, measure == "effect"))


def disagreement(table: pd.DataFrame) -> Any:
    """What every part adds directly (x) against how the answer changes without it (y). On the line, which falls,
    the answer loses what the part adds.

    The parts that disagree most bear their names. A click selects `node` under "part".
    """
    import altair as alt

    cells = _points(table).assign(x=table["contribution"].astype(float), y=table["effect"].astype(float))
    low, high = (float(getattr(cells["x"], side)()) for side in ("min", "max"))
    low, high = min(low, -float(cells["y"].max())), max(high, -float(cells["y"].min()))
    room = 0.05 * (high - low or 1)
    far = _outermost(cells, room)
    cells["label"] = [name if i in far else "" for i, name in zip(cells.index, cells["name"], strict=True)]
    line = pd.DataFrame({"x": [low, high], "y": [-low, -high]})
    x_scale, y_scale = (
        alt.Scale(domain=ends, nice=False) for ends in ([low - room, high + room], [-high - room, -low + room])
    )
    base = alt.Chart(cells).encode(
        x=alt.X("x:Q", scale=x_scale, title="adds directly (contribution, logits)"),
        y=alt.Y("y:Q", scale=y_scale, title="the answer without it (effect, logits)"),
        tooltip=[alt.Tooltip(f"{name}:N", title=title) for name, title in _EFFECT_TIPS.items()],
    )
    pick = alt.selection_point(name="part", fields=["node"], on="click", empty=False)
    legend = alt.Legend(title=None, orient="bottom", columns=2)  # more in a line are cut off on a phone
    kinds = list(PART_KINDS)
    colour = alt.Color("kind:N", scale=alt.Scale(domain=kinds, range=list(PART_KINDS.values())), legend=legend)
    shape = alt.Shape("kind:N", scale=alt.Scale(domain=kinds, range=_SHAPES), legend=legend)
    marks = base.mark_point(filled=True, size=70, opacity=0.85, cursor="pointer")
    points = marks.encode(color=colour, shape=shape).add_params(pick)
    names = base.mark_text(align="left", dx=7, fontSize=11, color="currentColor").encode(text="label:N")
    agree = alt.Chart(line).mark_line(color=OUTLINE, strokeDash=[4, 4], strokeWidth=1).encode(x="x:Q", y="y:Q")
    return alt.layer(agree, points, names).properties(height=340)


def _outermost(cells: pd.DataFrame, room: float) -> list[int]:
    """The parts to be named: those farthest from the line, and of names that would lie on each other the first."""
    named: list[int] = []
    for i in (cells["y"] + cells["x"]).abs().sort_values(ascending=False, kind="stable").index:
        x, y = cells.loc[i, "x"], cells.loc[i, "y"]
        if all(abs(y - cells.loc[j, "y"]) > room or abs(x - cells.loc[j, "x"]) > 5 * room for j in named):
            named.append(i)
        if len(named) == NAMED:
            break
    return named


def _points(table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({
        "node": table["node"], "name": table["name"], "kind": table["kind"],
        **{name: [number(v, True) for v in table[name]] for name in ("contribution", "influence", "effect")},
        "after": [percent(p) for p in table["prob"]],
    })  # fmt: skip


def recovery(table: pd.DataFrame) -> Any:
    """How much of the answer comes back (y) with so many of the parts (x, on a log scale), a line an order."""
    import altair as alt

    names = {"norm": "by length", "contribution": "by contribution", "influence": "by influence", "random": "at random"}
    shown = table.assign(
        order=table["by"].map(names), kept=[percent(s) for s in table["share"]],
        back=[percent(r) if r == r else "–" for r in table["recovered"]],
    )  # fmt: skip
    legend = alt.Legend(title="the parts kept, chosen", orient="bottom", symbolType="stroke", symbolSize=900,
                        symbolStrokeWidth=2)  # fmt: skip
    colour = alt.Color(
        "order:N", scale=alt.Scale(domain=list(names.values()), range=["#5b6b7f", "#b8860b", HUE, OUTLINE]),
        legend=legend,
    )  # fmt: skip
    base = alt.Chart(shown).encode(
        x=alt.X("share:Q", scale=alt.Scale(type="log"), axis=alt.Axis(format="~%", title="share of the parts kept")),
        y=alt.Y("recovered:Q", axis=alt.Axis(format="%", title="comes back")),
        color=colour,
        tooltip=[alt.Tooltip("order:N", title="chosen"), alt.Tooltip("kept:N"), alt.Tooltip("back:N", title="back")],
    )
    dashed = alt.Scale(domain=list(names.values()), range=[[1, 0], [7, 3], [3, 3], [1, 3]])
    dashes = alt.StrokeDash("order:N", scale=dashed, legend=legend)  # one legend, of colours and dashes
    return alt.layer(base.mark_line().encode(strokeDash=dashes), base.mark_point(filled=True)).properties(height=340)
