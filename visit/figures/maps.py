"""DataFrames as Altair charts. No torch, no fixed background: the charts follow the page's light or dark theme."""

from __future__ import annotations

from typing import Any, Literal

import pandas as pd

from visit.text.numbers import bits, number
from visit.text.visible import as_word, visible

HUE = "#0b7a75"  # near the top; the drawing's blue-green
INK = "currentColor"  # the page's own text colour, light or dark
OUTLINE = "#888888"  # of lines and outlines that stand behind
CHOSEN = "#d0871e"  # the frame of what is chosen
ROW = 26  # height of a cell of the lens map, px
SHORT = 9  # columns that fit any page: up to here a map fills it, beyond its cells keep a width and the map scrolls
MAP_CELL = 68  # width of a cell of a map that scrolls, px


def map_width(columns: int) -> Literal["stretch", "content"]:
    """Whether a map of so many columns fills the page's width or keeps its own and scrolls."""
    return "stretch" if columns <= SHORT else "content"


def _map_widths(columns: int) -> tuple[Any, Any]:
    """A map's width, and how wide a word in a cell may be."""
    import altair as alt

    if map_width(columns) == "stretch":
        return "container", alt.ExprRef(f"width / {columns} - 5")
    return {"step": MAP_CELL}, MAP_CELL - 5


def map_height(n_layers: int) -> int:
    """Pixels that a map of all blocks needs, its column names included: rows that must be looked for are not seen."""
    return (n_layers + 1) * ROW + 56


def heat_map(
    cells: pd.DataFrame, x: Any, y: Any, tips: dict[str, str], color: Any, click: tuple[str, list[str]] | None = None,
    limit: Any = None, outline: str = CHOSEN,
) -> Any:  # fmt: skip
    """Cells of `x` and `y`, the stronger the fuller: every map of the app and of the report.

    Columns of `cells` beside those of the axes, where they are there: `strength` (0 to 1, how full the colour is; else
    `color` says all), `text` (a word in each cell, at most `limit` wide), `quiet` (that word is grey), `outlined`,
    `framed` (on top of the words).
    `tips`: columns with their titles. `click`: (name of the selection, columns that it gives).
    """
    import altair as alt

    base = alt.Chart(cells).encode(x=x, y=y, color=color, tooltip=[alt.Tooltip(n, title=t) for n, t in tips.items()])
    cursor: Literal["pointer", "default"] = "pointer" if click else "default"
    rects = base.mark_rect(cornerRadius=3 if click else 0, cursor=cursor)
    if "strength" in cells:
        full = alt.Scale(domain=[0, 1], range=[0.04, 1], clamp=True)
        rects = rects.encode(opacity=alt.Opacity("strength:Q", scale=full, legend=None))
    if "outlined" in cells:
        rects = rects.encode(stroke=alt.condition("datum.outlined", alt.value(outline), alt.value("transparent")))
    if click:
        pick = alt.selection_point(name=click[0], fields=click[1], on="click", empty=False)
        rects = rects.add_params(pick)
    layers = [rects]
    if "text" in cells:
        size: dict[str, Any] = {} if limit is None else {"limit": limit}
        words = base.mark_text(fontSize=11, cursor=cursor, **size).encode(text="text:N")
        if "quiet" in cells:
            words = words.encode(opacity=alt.condition("datum.quiet", alt.value(0.55), alt.value(1)))
        layers.append(words.transform_filter("datum.strength <= 0.5").encode(color=alt.value(INK)))
        layers.append(words.transform_filter("datum.strength > 0.5").encode(color=alt.value("white")))
    if "framed" in cells:
        frame = base.mark_rect(filled=False, strokeWidth=2.5, cornerRadius=3, cursor=cursor)
        layers.append(frame.encode(color=alt.value(CHOSEN)).transform_filter("datum.framed"))
    return layers[0] if len(layers) == 1 else alt.layer(*layers)


def parting_map(table: pd.DataFrame, measure: str, pos: int, first: tuple[int, int] | None = None) -> Any:
    """Layers × pairs of tokens, how far two runs are apart; a click selects `depth`, `pos_a`, `pos_b` under "cell".

    `table`: `divergence.part`; `measure`: one of its columns. The column of the position looked at in A is outlined;
    `first`, the (pair, depth) where the runs first part, has a frame.
    """
    import altair as alt

    shown = _parting_cells(table, measure)
    names = [_state_name(d) for d in sorted(shown["depth"].unique(), reverse=True)]
    columns = shown.drop_duplicates("pair").sort_values("pair")["column"].tolist()
    width, limit = _map_widths(len(columns))
    axis = alt.Axis(
        orient="top", title=None, labelAngle=0, labelLimit=limit, ticks=False, domain=False, labelFlush=False,
        labelExpr="split(datum.label, '\\u2003')[1]",
    )  # fmt: skip
    x = alt.X("column:N", sort=columns, axis=axis)
    rows = alt.Axis(title=None, ticks=False, domain=False, labelLimit=110, labelFlush=False)
    y = alt.Y("row:N", sort=names, axis=rows)
    shown["outlined"] = shown["pos_a"] == pos
    shown["framed"] = [(p, d) == first for p, d in zip(shown["pair"], shown["depth"], strict=True)]
    layers = heat_map(
        shown, x, y, _PARTING_TIPS, alt.value(APART), ("cell", ["depth", "pos_a", "pos_b"]), limit, OUTLINE
    )
    return layers.properties(width=width, height={"step": ROW}, padding={"left": 0, "right": 8})


APART = "#6a4fb3"  # the violet of what differs
_PARTING_TIPS = {
    "place:N": "after", "tokens:N": "tokens", "word_a:N": "A reads", "word_b:N": "B reads", "js:N": "divergence",
    "apart:N": "1 − I₅₀", "cosine:N": "cosine distance", "cosine_centred:N": "… mean and rogue dimensions removed",
}  # fmt: skip


def _parting_cells(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    def joined(names: tuple[str, str]) -> list[str]:
        both = zip(table[names[0]], table[names[1]], strict=True)
        return [" / ".join(dict.fromkeys((visible(a), visible(b)))) for a, b in both]

    top = 1.0 if measure in ("js", "apart") else max(float(table[measure].max()), 1e-12)
    tokens = joined(("token_a", "token_b"))
    numbers = {name: [number(v) for v in table[name]] for name in ("js", "apart", "cosine", "cosine_centred")}
    numbers["js"] = [bits(v) for v in table["js"]]
    return pd.DataFrame({
        "depth": table["depth"], "pair": table["pair"], "pos_a": table["pos_a"], "pos_b": table["pos_b"],
        "strength": (table[measure] / top).clip(0, 1), "row": [_state_name(d) for d in table["depth"]],
        "column": [f"{n}\u2003{t}" for n, t in zip(table["pair"], tokens, strict=True)],
        "text": ["" if v != v or v < 0.005 * top else f"{v:.2f}" for v in table[measure]],
        "place": [_state_name(d) for d in table["depth"]],
        "tokens": [f"{t} ({a} / {b})" for t, a, b in zip(tokens, table["pos_a"], table["pos_b"], strict=True)],
        "word_a": [as_word(w) for w in table["word_a"]], "word_b": [as_word(w) for w in table["word_b"]], **numbers,
    })  # fmt: skip


def _state_name(depth: int) -> str:
    return "embedding" if depth == 0 else f"block {depth - 1}"
