"""DataFrames as Altair charts. No torch, no fixed background: the charts follow the page's light or dark theme."""

from __future__ import annotations

from typing import Any, Literal

import pandas as pd

from visit.text.numbers import bits, number, percent
from visit.text.visible import as_word, visible

HUE = "#0b7a75"  # near the top; the drawing's blue-green
INK = "currentColor"  # the page's own text colour, light or dark
ROW = 26  # height of a cell of the lens map, px
SHORT = 9  # columns that fit any page: up to here a map fills it, beyond its cells keep a width and the map scrolls
CELL = 68  # width of a cell of a map that scrolls, px


def map_width(columns: int) -> Literal["stretch", "content"]:
    """Whether a map of so many columns fills the page's width or keeps its own and scrolls."""
    return "stretch" if columns <= SHORT else "content"


def _widths(columns: int) -> tuple[Any, Any]:
    """A map's width, and how wide a word in a cell may be."""
    import altair as alt

    if map_width(columns) == "stretch":
        return "container", alt.ExprRef(f"width / {columns} - 5")
    return {"step": CELL}, CELL - 5


def map_height(n_layers: int) -> int:
    """Pixels that a lens map needs, its column names included."""
    return min(700, (n_layers + 1) * ROW + 56)


def parting_map(table: pd.DataFrame, measure: str, pos: int, first: tuple[int, int] | None = None) -> Any:
    """Layers × pairs of tokens, how far two runs are apart; a click selects `depth`, `pos_a`, `pos_b` under "cell".

    `table`: `divergence.part`; `measure`: one of its columns. The column of the position looked at in A is outlined;
    `first`, the (pair, depth) where the runs first part, has a frame.
    """
    import altair as alt

    shown = _parting_cells(table, measure)
    names = [_row_name(d) for d in sorted(shown["depth"].unique(), reverse=True)]
    columns = shown.drop_duplicates("pair").sort_values("pair")["column"].tolist()
    width, limit = _widths(len(columns))
    axis = alt.Axis(
        orient="bottom", title=None, labelAngle=0, labelLimit=limit, ticks=False, domain=False, labelFlush=False,
        labelExpr="split(datum.label, '\\u2003')[1]",
    )  # fmt: skip
    x = alt.X("column:N", sort=columns, axis=axis)
    rows = alt.Axis(title=None, ticks=False, domain=False, labelLimit=110, labelFlush=False)
    y = alt.Y("row:N", sort=names, axis=rows)
    pick = alt.selection_point(name="cell", fields=["depth", "pos_a", "pos_b"], on="click", empty=False)
    tips = [alt.Tooltip(f"{name}:N", title=title) for name, title in _PARTING_TIPS.items()]
    base = alt.Chart(shown).encode(x=x, y=y, tooltip=tips)
    cells = base.mark_rect(cornerRadius=3, cursor="pointer", color=APART).encode(
        opacity=alt.Opacity("strength:Q", scale=alt.Scale(domain=[0, 1], range=[0.03, 1], clamp=True), legend=None),
        stroke=alt.condition(alt.datum.pos_a == pos, alt.value("#888888"), alt.value("transparent")),
    ).add_params(pick)  # fmt: skip
    words = base.mark_text(fontSize=12, cursor="pointer", limit=limit)
    light = words.transform_filter("datum.strength <= 0.5").encode(text="shown:N", color=alt.value(INK))
    strong = words.transform_filter("datum.strength > 0.5").encode(text="shown:N", color=alt.value("white"))
    shown["first"] = [(p, d) == first for p, d in zip(shown["pair"], shown["depth"], strict=True)]
    frame = base.mark_rect(filled=False, stroke="#d0871e", strokeWidth=2.5, cornerRadius=3, cursor="pointer")
    layers = alt.layer(cells, light, strong, frame.transform_filter("datum.first"))
    return layers.properties(width=width, height={"step": ROW}, padding={"left": 0, "right": 8})


APART = "#6a4fb3"  # the violet of what differs
_PARTING_TIPS = {
    "place": "after", "tokens": "tokens", "word_a": "A reads", "word_b": "B reads", "js": "divergence",
    "apart": "1 − I₅₀", "cosine": "cosine distance", "cosine_centred": "… mean and rogue dimensions removed",
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
        "strength": (table[measure] / top).clip(0, 1), "row": [_row_name(d) for d in table["depth"]],
        "column": [f"{n}\u2003{t}" for n, t in zip(table["pair"], tokens, strict=True)],
        "shown": ["" if v != v or v < 0.005 * top else f"{v:.2f}" for v in table[measure]],
        "place": [_row_name(d) for d in table["depth"]],
        "tokens": [f"{t} ({a} / {b})" for t, a, b in zip(tokens, table["pos_a"], table["pos_b"], strict=True)],
        "word_a": [as_word(w) for w in table["word_a"]], "word_b": [as_word(w) for w in table["word_b"]], **numbers,
    })  # fmt: skip


def _row_name(depth: int) -> str:
    return "embedding" if depth == 0 else f"block {depth - 1}"


def predictions(table: pd.DataFrame, target: int) -> Any:
    """The model's next-token prediction as bars, the target's bar strong; a click selects `id` under "word"."""
    import altair as alt

    shown = table.assign(
        word=[f"{i + 1}\u2003{as_word(t)}" for i, t in enumerate(table["token"])],
        share=[percent(p, narrow=True) for p in table["prob"]],
        chosen=table["id"] == target,
    )
    y = alt.Y(
        "word:N",
        sort=None,
        axis=alt.Axis(
            title=None,
            ticks=False,
            domain=False,
            labelLimit=150,
            labelFlush=False,
            labelExpr="split(datum.label, '\\u2003')[1]",
        ),
    )
    top = float(table["prob"].max())
    x = alt.X("prob:Q", axis=None, scale=alt.Scale(domain=[0, top * 1.6]))
    tips = [alt.Tooltip("word:N", title="token"), alt.Tooltip("share:N", title="probability")]
    pick = alt.selection_point(name="word", fields=["id"], on="click", empty=False)
    base = alt.Chart(shown).encode(y=y, x=x, tooltip=tips)
    bars = base.mark_bar(color=HUE, cornerRadiusEnd=3, height=13, cursor="pointer").encode(
        opacity=alt.condition("datum.chosen", alt.value(1.0), alt.value(0.4))
    ).add_params(pick)  # fmt: skip
    texts = base.mark_text(align="left", dx=5, fontSize=12, cursor="pointer", color=INK).encode(text="share:N")
    return alt.layer(bars, texts).properties(height={"step": 20})
